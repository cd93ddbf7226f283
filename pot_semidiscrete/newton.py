"""Second-order steps on points kept: what an ascent of small steps leaves along slow modes.

The sample average of the semi-dual is maximised by Newton's method, from an estimate that is
already near (Le Cam's one-step estimator). The curvature is that of a part of the points, the
gradient that of all of them. Before each step, half of a Sinkhorn iteration,
``psi += reg log(b / m)``, mends atoms that hardly communicate with the others, for which a
quadratic model is poor.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .dual import scale_of
from .envelope import full_precision, no_grad
from .kernels import mean_cost, sweep, weight_blocks

LARGEST_STORE = 2**25  # entries of the weights kept for one solve; beyond, they are recomputed
USUAL_STORE = 2**21
LEAST_SHARE = 0.125  # of the points, for the curvature ...
LEAST_ROWS = 2.0  # ... and points for each atom, as far as LARGEST_STORE allows
LEAST_CURVATURE = 0.3  # in units of b / reg: the floor for atoms that these points hardly visit
RESIDUAL = 1e-2  # of the conjugate gradients, relative
MAX_CONJUGATE = 100
FLAT = 1e-5  # curvature of a direction, in units of the diagonal
MAX_STEPS = 8
MAX_CLIPS = 4
CLIP = 0.25  # from one trial of a step to the next
LARGEST_STEP = 32.0  # in units of reg, for one coordinate
LARGEST_LOG = 10.0  # of b / m, in one half-iteration
FIRST_DAMPING = 0.02  # once a step had to be clipped; times 4 each time, a quarter when one had not
ENOUGH = 0.1  # of the statistical error: what is gained beyond does not matter
LADDER = 4.0  # from one regularisation to the next, where Newton's method is lost
TOP = 0.2  # of the cost scale: where the ladder begins
PURITY = 0.7  # of the weights at which the curvature for reg = 0 is taken, see smoothing
N_PROBES = 4
RESOLVED = 100.0  # points for an atom: then its potential needs no caution


@dataclass(frozen=True)
class Outcome:
    """Where Newton's method went.

    Attributes
    ----------
    potential : array, shape (n_support,)
    value : float
        Semi-dual value of the points.
    trace : float
        Estimate of ``tr(A^+ Sigma)``: n points cannot do better, in the mean, than ``trace / (2 n)``.
    settled : bool
        Whether the last step did what it promised, or promised little.
    """

    potential: Any
    value: float
    trace: float
    settled: bool


class Curvature:
    """``diag m - E[chi chi^T]`` of the points `x`: minus `reg` times the Hessian of the semi-dual.

    Parameters
    ----------
    target : Target
    x : array, shape (n, d)
    potential : array, shape (n_support,)
    reg : float
    damping : float
        Share of the diagonal to add to it.
    """

    def __init__(self, target, x, potential, reg, damping=0.0):
        self.target, self.x, self.potential, self.reg = target, x, potential, reg
        self.n, self.kept = x.shape[0], None
        nx, b = target.nx, target.weights
        if self.n * b.shape[0] <= LARGEST_STORE:
            self.kept = list(self.weights())
        mean = sum(nx.sum(chi, axis=0) for chi in self.weights()) / self.n
        self.diagonal = (1.0 + damping) * nx.maximum(mean, LEAST_CURVATURE * b)

    def weights(self):
        """Assignment weights, in blocks."""
        if self.kept is not None:
            return self.kept
        return (chi for _, chi in weight_blocks(self.target, self.x, self.potential, self.reg))

    def product(self, vectors):
        """Image of the rows of `vectors`."""
        dot = self.target.nx.dot
        smooth = sum(dot(dot(vectors, chi.T), chi) for chi in self.weights())
        return self.diagonal * vectors - smooth / self.n

    def solve(self, right):
        """Newton's steps for the rows of `right`, gradients of sum 0: ``reg`` times the inverse.

        Conjugate gradients (Hestenes and Stiefel, 1952), preconditioned by the diagonal.
        """
        nx = self.target.nx
        inner = lambda u, v: nx.sum(u * v, axis=1)[:, None]
        residual, solution = right, 0.0 * right
        direction = right / self.diagonal
        size = goal = inner(right, direction)
        zero = 0.0 * goal
        one = zero + 1.0
        for _ in range(MAX_CONJUGATE):
            image = self.product(direction)
            along = inner(direction, image)
            # a direction in which the points show no curvature, but rounding, is left alone
            curved = along > FLAT * inner(direction, self.diagonal * direction)
            length = nx.where(curved, size / nx.where(curved, along, one), zero)
            solution = solution + length * direction
            residual = residual - length * image
            scaled = residual / self.diagonal
            size, last = inner(residual, scaled), size
            unsolved = nx.where(curved, size - RESIDUAL**2 * goal, zero)
            if float(nx.max(unsolved)) <= 0.0:
                break
            direction = nx.where(curved, scaled + size / nx.where(curved, last, one) * direction, zero)
        return self.reg * (solution - nx.dot(solution, self.target.weights)[:, None])


def improve(target, x, potential, reg):
    """Maximise the semi-dual of the points `x`, to within their statistical error.

    Parameters
    ----------
    target : Target
    x : array, shape (n, d)
    potential : array, shape (n_support,)
        Estimate to start from; only steps that increase the value are taken.
    reg : float

    Returns
    -------
    Outcome
    """
    with full_precision(target.nx, x), no_grad(target.nx):
        return _improve(target, x, potential, reg)


def _improve(target, x, potential, reg):
    if reg == 0:
        return _unregularised(target, x, potential)
    found = climb(target, x, potential, reg)
    if found.settled:
        return found
    other = climb(target, x, _descend(target, x, reg), reg)
    best = max(found, other, key=lambda outcome: outcome.value)
    return best if best.settled else climb(target, x, best.potential, reg)


def _unregularised(target, x, potential):
    """Newton steps at ``reg = 0``, where no step knows how far to trust it: from above, once."""
    start = _descend(target, x, smoothing(target, x, potential))
    if measure(target, x, start, 0.0)[0] > measure(target, x, potential, 0.0)[0]:
        potential = start
    return climb(target, x, potential, 0.0)


def _descend(target, x, reg):
    """Potential from a ladder of regularisations down to `reg`, by a part of the points."""
    levels, top = [], TOP * scale_of(target)
    while reg < top:
        levels.append(reg)
        reg *= LADDER
    few = spread(x, max(x.shape[0] // 4, 2 * target.weights.shape[0]))
    potential = target.centred(mean_cost(target, few))  # optimal for an infinite reg
    for level in reversed(levels):
        potential = climb(target, few, potential, level).potential
    return potential


def climb(target, x, potential, reg):
    """Newton steps at one regularisation, while they matter."""
    nx, b, n = target.nx, target.weights, x.shape[0]
    signs, rows = probes(target), curvature_rows(n, b.shape[0])
    width = reg if reg > 0 else smoothing(target, x, potential)
    some = spread(x, rows)
    value, marginal = measure(target, x, potential, reg)
    damping, trace, settled = 0.0, math.nan, False
    for _ in range(MAX_STEPS):
        before = value
        if reg > 0:
            mass = nx.maximum(marginal, math.exp(-LARGEST_LOG) * b)
            potential = target.centred(potential + reg * nx.log(b / mass))
            value, marginal = measure(target, x, potential, reg)
        gradient = b - marginal
        curvature = Curvature(target, some, potential, width, damping)
        solved = curvature.solve(nx.concatenate([gradient[None, :], signs], axis=0))
        promised = 0.5 * float(nx.sum(gradient * solved[0]))
        trace = float(nx.sum(signs * solved[1:])) / N_PROBES - reg * (b.shape[0] - 1.0)
        enough = ENOUGH * trace / (2.0 * n)
        trial, clips = _trial(target, x, potential, solved[0], reg, width, value)
        rise = trial[1] - value
        if rise > 0:
            potential, value, marginal = trial
        settled = abs(rise - promised) < enough or promised < 5.0 * enough
        if (settled and clips == 0) or not value - before > enough:
            break
        damping = FIRST_DAMPING * 4.0 ** (clips - 1) if clips else damping / 4.0
    return Outcome(potential, value, trace, settled)


def _trial(target, x, potential, step, reg, width, value):
    """The step, clipped until it increases the value: what it leads to, and how often it was."""
    nx, clips = target.nx, 0
    cap = min(float(nx.max(nx.abs(step))), LARGEST_STEP * width)
    while True:
        moved = target.centred(potential + nx.clip(step, -cap, cap))
        reached, marginal = measure(target, x, moved, reg)
        if reached >= value or clips == MAX_CLIPS:
            return (moved, reached, marginal), clips
        cap, clips = CLIP * cap, clips + 1


def cautious(target, x, potential, reg):
    """The maximiser over the points `x`, less what rare points add to its error.

    The mass of an atom grows as the exponential of its potential, so that a potential fitted to few
    points gives too much on others: without end for an atom lighter than one point. The relative
    variance of the mean of the exponentials, over the n b_j points that the atom should receive, is
    taken as that excess.
    """
    nx, b, n = target.nx, target.weights, x.shape[0]
    if reg == 0 or n * float(nx.min(b)) > RESOLVED:
        return potential
    total = square = 0.0
    for _, chi in weight_blocks(target, x, potential, reg):
        total, square = total + nx.sum(chi, axis=0), square + nx.sum(chi * chi, axis=0)
    share = nx.sqrt(square) / nx.maximum(total, nx.full((1,), 1e-30, type_as=b))
    return target.centred(potential - reg * nx.log(1.0 + share**2 / (n * b)))


def measure(target, x, potential, reg):
    """Semi-dual value, summed in double precision, and marginal of the points `x`."""
    nx = target.nx
    out = sweep(target, x, potential, reg, ("c_transform", "colsum"))
    value = np.mean(nx.to_numpy(out.c_transform), dtype=float)
    value += np.sum(nx.to_numpy(target.weights * potential), dtype=float)
    return float(value), out.colsum / x.shape[0]


def probes(target, n=N_PROBES):
    """Random signs times ``b^(1/2)``, less their mean: of covariance ``diag b - b b^T`` (Hutchinson)."""
    nx, b = target.nx, target.weights
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(n, b.shape[0]))
    z = nx.sqrt(b) * nx.from_numpy(signs, type_as=b)
    return z - nx.sum(z, axis=1)[:, None] * b


def spread(x, n):
    """At most `n` of the points, evenly spaced: a sampler may return them in an order."""
    return x[:: -(-x.shape[0] // n)]


def curvature_rows(n, n_atoms):
    """Points for the curvature, of `n`: fewer than atoms would make it unstable."""
    rows = max(LEAST_SHARE * n, LEAST_ROWS * n_atoms, USUAL_STORE / n_atoms)
    return int(min(n, rows, max(LARGEST_STORE / n_atoms, n_atoms)))


def smoothing(target, x, potential):
    """Regularisation at which a point is shared by neighbouring cells only.

    The curvature at ``reg = 0`` is a density on the boundaries of the cells, which no sample sees;
    the weights at a small regularisation average it over their width.
    """
    nx, width, x = target.nx, scale_of(target), spread(x, 1024)
    for _ in range(60):
        chi = sweep(target, x, potential, width, ("weights",)).weights
        if float(nx.sum(chi * chi)) >= PURITY * x.shape[0]:
            break
        width /= 2.0
    return width
