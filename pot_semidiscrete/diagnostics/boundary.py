"""Mass near the boundaries of the cells, and how fast the gradient changes there."""

import math

import numpy as np

from ..backend import Array, capabilities, in_double
from ..inference.gaps import LEAST_COUNT, SIGMAS
from ..kernels import SoftBlock, weight_blocks
from ..problem import Target, spread_of, unit_curvature
from .ties import Ties, jumps


def near_boundary(target: Target, x: Array, ties: Ties) -> tuple[dict[str, float], float]:
    """Density of the distance to the boundary, jumps and roughness; and what the last is at least.

    With ``v`` the jump and ``delta`` the distance of a point, the second derivative of
    ``t -> E psi^c(X + t)`` is that of the cost less ``E[v v^T / |v|; delta < h] / (2 h)``, h small.
    """
    n, unit = len(ties.distance), unit_curvature(target)
    count = min(n, max(LEAST_COUNT, math.ceil(n ** (2.0 / 3.0))))
    nearest = np.argsort(ties.distance)[:count]
    nearest = nearest[np.isfinite(ties.distance[nearest])]
    if len(nearest) == 0:
        names = ("density", "density_stderr", "mean_jump", "max_jump", "roughness")
        return dict.fromkeys(names, 0.0) | {"window": math.inf}, 0.0
    able, rows = capabilities(target.nx), (nearest, ties.first[nearest], ties.second[nearest])
    index = [able.index(v, target.weights) for v in rows]
    vectors = in_double(jumps(target, x[index[0]], *index[1:]))
    jump, distance = ties.jump[nearest], ties.distance[nearest]
    vectors /= np.sqrt(jump)[:, None]
    windows = len(nearest) // 2 ** np.arange(max(1, math.ceil(math.log2(len(nearest) / LEAST_COUNT))))
    rough = [np.linalg.norm(_gram(vectors[:k]), 2) / (2 * n * unit * distance[k - 1]) for k in windows]
    density = math.inf if ties.tied_mass else len(nearest) / (n * distance[-1])
    facts = {
        "density": density,
        "density_stderr": density / math.sqrt(len(nearest)),
        "window": distance[-1],
        "mean_jump": jump.mean(),
        "max_jump": jump.max(),
        "roughness": math.inf if ties.tied_mass else rough[0],
    }
    at_least = [
        r * max(0.0, 1.0 - SIGMAS / math.sqrt(k)) for r, k in zip(rough, windows, strict=True) if k > 9
    ]
    return facts, max(at_least, default=0.0)


def _gram(vectors: np.ndarray) -> np.ndarray:
    """The smaller of ``V^T V`` and ``V V^T``: their norms are the same."""
    return vectors.T @ vectors if vectors.shape[0] > vectors.shape[1] else vectors @ vectors.T


def smoothness(target: Target, x: Array, potential: Array, reg: float) -> tuple[np.ndarray, np.ndarray]:
    """Norms of the second derivative of the c-transform, by the power method, and largest weights."""
    nx, found = target.nx, []
    start = nx.from_numpy(np.random.default_rng(0).normal(size=(1, x.shape[1])), type_as=x)
    for part, chi in weight_blocks(target, x, potential, reg):
        vector = start + 0.0 * part
        for _ in range(16):
            norm = nx.sqrt(nx.sum(vector**2, axis=1))
            vector = vector / nx.clip(norm, 1e-30)[:, None]
            vector = _second_derivative(target, part, chi, vector, reg)
        found.append((nx.sqrt(nx.sum(vector**2, axis=1)), nx.max(chi, axis=1)))
    norms, largest = (np.concatenate([*map(in_double, field)]) for field in zip(*found, strict=True))
    return norms, largest


def _second_derivative(target: Target, x: Array, chi: Array, v: Array, reg: float) -> Array:
    r"""``sum_j chi_j d_xx c_j v - Cov_chi(d_x c) v / reg``, for each point and its vector.

    Derivatives of the cost along v are central differences; the weights are not differenced, so
    that the step need not be small against the width of the boundaries.
    """
    nx = target.nx
    h = target.unit ** (1.0 / 3.0) * (spread_of(target) + float(nx.max(nx.abs(x))))
    slope = (target.cost_matrix(x + h * v) - target.cost_matrix(x - h * v)) / (2.0 * h)
    mean = nx.sum(chi * slope, axis=1)[:, None]
    # shares of sum 1, as a vjp expects, and of the order of chi
    unit = unit_curvature(target) * spread_of(target) + 1e-30
    spread = _vjp(target, x, chi * (1.0 + (slope - mean) / unit)) - _vjp(target, x, chi)
    difference = _vjp(target, x + h * v, chi) - _vjp(target, x - h * v, chi)
    return difference / (2.0 * h) - unit / reg * spread


def _vjp(target: Target, x: Array, shares: Array) -> Array:
    """``sum_j shares_j d_x c_j`` for each point; shares of any sum above 0."""
    nx, total = target.nx, 0.0
    for columns, part in target.parts():
        some = shares[:, columns]
        mass = nx.sum(some, axis=1) + 1e-30  # a cost takes shares of sum 1
        gradient = target.cost.vjp(x, part.atoms, SoftBlock(some, 1.0 / mass, None, nx), nx)
        total = total + mass[:, None] * gradient
    return total
