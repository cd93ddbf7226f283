"""Whether a cost keeps its contract, at a few points."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from ..backend import Array, Backend, describe, in_double, is_traced, rounding_unit
from .base import Cost, UnknownGradientError


def check_cost(cost: Cost, x: Array, y: Array, nx: Backend) -> None:
    """Check what a :class:`Cost` says of a few points: kinds, and that its parts agree.

    Targets do so for each cost that is not the package's own. That the matrix is the cost that you mean
    only your own test can tell.

    Parameters
    ----------
    cost : Cost
        To be checked.
    x, y : array, shapes (n, d) and (m, d)
        Points, n and m different, so that a matrix is not mistaken for its transpose.
    nx : ot.backend.Backend
        Backend of the points.

    Raises
    ------
    ValueError
        If there is no name, a shape or a dtype is wrong, points are written to, costs are not finite,
        ``factors`` not in proportion to `scale`, costs change as all points move though the cost is said
        to be translation invariant, or ``vjp`` is not the derivative of the matrix, in sign or size.

    Examples
    --------
    >>> import numpy as np
    >>> from ot.backend import NumpyBackend
    >>> from pot_semidiscrete.costs import SqEuclidean, check_cost
    >>> check_cost(SqEuclidean(), np.ones((2, 3)), np.zeros((4, 3)), NumpyBackend())
    """
    if is_traced(x) or is_traced(y):
        return
    if not (isinstance(cost.name, str) and cost.name):
        raise ValueError(
            f"metric: expected a cost with a name, by which files know it, received {cost.name!r} of "
            f"{type(cost).__name__}; give the class a name."
        )
    x, y = nx.copy(nx.detach(x)), nx.copy(nx.detach(y))
    if cost.translation_invariant:  # as targets do
        origin = nx.mean(y, axis=0)
        x, y = x - origin, y - origin
    before = [np.array(in_double(v)) for v in (x, y)]
    _check_kinds(cost, x, y, nx)
    if not all(np.array_equal(in_double(v), kept) for v, kept in zip((x, y), before, strict=True)):
        raise ValueError(
            f"metric {cost.name!r}: expected points that stay as they are, received others after its "
            "methods were called; do not change x and y in place."
        )
    matrix, once, thrice = (
        in_double(v) for v in (cost.matrix(x, y, nx), *(cost.bilinear(x, y, s, nx) for s in (1.0, 3.0)))
    )
    if not np.isfinite(matrix).all():
        raise ValueError(f"metric {cost.name!r}: expected finite costs, received NaN or inf.")
    if np.abs(3.0 * once - thrice).max() > 1e-3 * (np.abs(matrix).max() + np.abs(once).max()):
        raise ValueError(
            f"metric {cost.name!r}: expected factors in proportion to scale, received those at scale 3 "
            "that are not 3 times those at 1; multiply one of the two factors by it, once."
        )
    if cost.translation_invariant:
        _check_invariance(cost, x, y, matrix, nx)
    if type(cost).vjp is not Cost.vjp:
        _check_vjp(cost, x, y, nx)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)


def _distances(x: Array, y: Array, nx: Backend) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distances, ``(n, m)``, and which are large: a cost of others may be rounding only."""
    distances = np.linalg.norm(in_double(x)[:, None] - in_double(y)[None], axis=2)
    return distances, distances > 0.1 * distances.max()


def _check_kinds(cost: Cost, x: Array, y: Array, nx: Backend) -> None:
    """Check shapes and dtypes: first of what the author wrote, then of what is made of it."""
    (n, _), m, name = x.shape, y.shape[0], f"metric {cost.name!r}"
    check = lambda part, value, shape: _check_kind(f"{name}: expected {part}", value, shape, x, y)
    if not cost._is_separable:
        check("matrix(x, y, nx)", cost.matrix(x, y, nx), (n, m))
    check("source_term(x, nx)", cost.source_term(x, nx), (n,))
    check("target_term(y, nx)", cost.target_term(y, nx), (m,))
    factors = cost.factors(x, y, 1.0, nx)
    if factors is not None:
        part = "factors(x, y, scale, nx)"
        if not isinstance(factors, (tuple, list)) or len(factors) != 2:
            raise ValueError(
                f"{name}: expected {part} to be two arrays u, v, received {describe(factors)}; return "
                "both, and not their product."
            )
        columns = tuple(getattr(factors[0], "shape", ()))[1:2] or (x.shape[1],)
        for letter, factor, rows in zip("uv", factors, (n, m), strict=True):
            check(f"{letter} of {part}", factor, (rows, *columns))
    check("bilinear(x, y, 1.0, nx)", cost.bilinear(x, y, 1.0, nx), (n, m))
    check("matrix(x, y, nx)", cost.matrix(x, y, nx), (n, m))


def _check_kind(words: str, value: Any, shape: tuple[int, ...], x: Array, y: Array) -> None:
    if tuple(getattr(value, "shape", (None,))) != shape:
        raise ValueError(
            f"{words} of shape {shape}, received {describe(value)}; here x has {x.shape[0]} rows, y "
            f"{y.shape[0]}."
        )
    if getattr(value, "dtype", None) != x.dtype:
        raise ValueError(
            f"{words} of dtype {x.dtype}, received {describe(value)}; make constants with "
            "nx.from_numpy(..., type_as=x)."
        )


def _check_invariance(cost: Cost, x: Array, y: Array, matrix: np.ndarray, nx: Backend) -> None:
    """Move all points as far as they are from each other."""
    distances, far = _distances(x, y, nx)
    vector = distances.max() * np.cos(np.arange(x.shape[1])) / x.shape[1] ** 0.5
    shift = nx.from_numpy(vector, type_as=x)
    moved = in_double(cost.matrix(x + shift, y + shift, nx))
    if (np.abs(moved - matrix) > 1e-2 * np.abs(matrix).max())[far].any():
        raise ValueError(
            f"metric {cost.name!r}: expected costs that stay as all points move by one vector, "
            "received others; leave out translation_invariant, or mend the matrix."
        )


def _check_vjp(cost: Cost, x: Array, y: Array, nx: Backend) -> None:
    """Compare a gradient with a difference of the costs, along it and away from the atoms.

    What kinks, jumps and rounding make of the difference is allowed for, and a second, shorter step.
    """
    points, (distances, far) = in_double(x), _distances(x, y, nx)
    like = lambda v: nx.from_numpy(v, type_as=x)
    chi = np.random.default_rng(0).dirichlet(np.ones(y.shape[0]), x.shape[0]) * far
    chi /= np.maximum(chi.sum(axis=1, keepdims=True), 1e-300)
    dense = like(chi)
    weights: Any = SimpleNamespace(average=lambda values: nx.dot(dense, values), dense=lambda: dense)
    try:
        gradient = cost.vjp(x, y, weights, nx)
    except (NotImplementedError, UnknownGradientError):
        return
    words = f"metric {cost.name!r}: expected vjp(x, y, chi, nx)"
    _check_kind(words, gradient, tuple(x.shape), x, y)
    if not far.any():
        return
    slope, length, unit = in_double(gradient), np.median(distances[far]), rounding_unit(x, nx)
    way = length * (_unit(slope) + 0.5 * _unit(points - chi @ in_double(y)))
    noise = 30.0 * unit * (1.0 + (np.linalg.norm(points, axis=1).max() / length) ** 2)
    rate = None
    for step in (unit ** (1.0 / 3.0), unit**0.5):
        moved = [like(points + sign * step * way) for sign in (-1.0, 0.0, 1.0)]
        with np.errstate(all="ignore"):
            costs = [in_double(cost.matrix(v, y, nx)) for v in moved]
        below, here, above = ((chi * v).sum(axis=1) for v in costs)
        found, bend = above - below, np.abs(above - 2.0 * here + below).max()
        expected = (slope * (in_double(moved[2]) - in_double(moved[0]))).sum(axis=1)
        # costs that stay may be too small for the dtype; others jump, or are rounding
        rate, before = found / step, found / step if rate is None else rate
        tells = (found != 0.0) & (np.abs(rate - before) < 0.5 * np.abs(rate))
        error, size = tells * np.abs(found - expected), np.abs([found, expected]).max()
        if not error.max() > 0.1 * size + 4.0 * bend + noise * np.abs(costs[1]).max():
            return
    row = error.argmax()
    raise ValueError(
        f"{words} as the differences of matrix, {found[row]:.3g} along a short way, received "
        f"{expected[row]:.3g}; mend its sign or its size: it is sum_j chi_ij d_x c(x_i, y_j)."
    )
