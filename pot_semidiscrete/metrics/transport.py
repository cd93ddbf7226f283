"""Measures of how close generated points are to data."""

from collections.abc import Callable

import numpy as np
import ot
from ot.backend import NumpyBackend

from ..backend import ours
from ..inference.bounds import MAX_PIVOTS
from ..problem import check_count, check_lengths, check_numbers, check_points, check_real
from ..solve import solve_semidiscrete

BLOCK = 500  # points at a time, about


def blocks(x: np.ndarray) -> list[np.ndarray]:
    """Points in parts of at most `BLOCK`."""
    return np.array_split(x, -(-len(x) // BLOCK))


def samples(x: np.ndarray, y: np.ndarray, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Check two samples of points of one shape, at least so many; as rows in double precision."""
    x, y = (check_numbers(name, v, finite=False).astype(float) for name, v in (("x", x), ("y", y)))
    if x.ndim < 2 or y.ndim < 2 or x.shape[1:] != y.shape[1:] or 0 in x.shape + y.shape:
        raise ValueError(
            "x, y: expected points of one shape, arrays of shape (n, ...) and (m, ...), received shapes "
            f"{x.shape} and {y.shape}."
        )
    x, y = flat(x), flat(y)
    for name, points in {"x": x, "y": y}.items():
        check_lengths(name, points, NumpyBackend(), "clean the data first")
        if len(points) < least:
            raise ValueError(f"{name}: expected {least} points or more, received {len(points)}.")
    return x, y


def centred(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two samples less a median of one: far from the origin, squares that are expanded cancel.

    An entry of `y`, not a mean: whole numbers stay whole, and so ties and copies what they are.
    """
    center = np.partition(y, len(y) // 2, axis=0)[len(y) // 2]
    return x - center, y - center


@ours()
def transport_cost(x: np.ndarray, y: np.ndarray, unit: float = 1.0) -> float:
    """Exact squared Euclidean transport cost between two samples, by :func:`ot.emd2`.

    Averages of data have a low cost, too: look at :func:`covariance_ratio` as well.

    Parameters
    ----------
    x : ndarray, shape (n, ...)
    y : ndarray, shape (m, ...)
    unit : float
        Divisor of the cost.

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> transport_cost(np.zeros((2, 1)), np.ones((2, 1)))
    1.0
    """
    x, y = centred(*samples(x, y))
    unit, costs = check_real("unit", unit, positive=True), ot.dist(x, y)
    scale = float(costs.max()) or 1.0  # the tolerance of POT's simplex is absolute
    return float(ot.emd2([], [], costs / scale, numItermax=MAX_PIVOTS)) * scale / unit


@ours()
def semi_dual_value(
    sampler: Callable,
    y: np.ndarray,
    reg: float,
    *,
    n_batches: int = 50,
    batch_size: int = 200,
    unit: float = 1.0,
) -> tuple[float, tuple[float, float]]:
    """Regularised transport cost from a source to data, and a 95% interval of it.

    Unlike :func:`transport_cost`, it is the cost of the law itself, not of a sample. With the `reg` of a
    training it is what training minimises. The estimate is the semi-dual value on fresh points, at a
    newly fitted potential.

    Parameters
    ----------
    sampler : callable
        ``n -> x``, shape (n, d), in the backend of `y`.
    y : array, shape (m, d)
        Data.
    reg : float
        Regularisation, in units of the squared distance.
    n_batches, batch_size : int
        Batches and points of a batch to solve with; the interval uses further points.
    unit : float
        Divisor of the cost.

    Returns
    -------
    value : float
    interval : tuple of float

    Examples
    --------
    >>> import numpy as np
    >>> normal = np.random.default_rng(0).normal
    >>> value, (low, high) = semi_dual_value(lambda n: normal(size=(n, 1)), np.array([[2.0]]), 0.1)
    >>> low < 5.0 < high  # the squared distance to the only point is 1 + 2**2
    True
    """
    y, _ = check_points("y", y)
    unit = check_real("unit", unit, positive=True)
    n_batches = check_count("n_batches", n_batches)
    result = solve_semidiscrete(y, sampler, reg=reg, tol=0, max_iter=n_batches, batch_size=batch_size)
    low, high = result.value_interval
    return float(result.value) / unit, (low / unit, high / unit)


@ours()
def covariance_ratio(x: np.ndarray, y: np.ndarray) -> float:
    """Trace of the covariance of `x` over that of `y`: below 1, `x` lacks diversity.

    Parameters
    ----------
    x : ndarray, shape (n, ...)
        Points whose diversity is in doubt.
    y : ndarray, shape (m, ...)
        Points to compare them with.

    Returns
    -------
    float
        1 for points as diverse as `y`.

    Examples
    --------
    >>> import numpy as np
    >>> covariance_ratio(np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]]))
    0.25
    """
    x, y = samples(x, y, least=2)
    spread = float(y.var(axis=0, ddof=1).sum())
    if spread == 0.0:
        raise ValueError("y: expected points that differ, received copies of one point.")
    return float(x.var(axis=0, ddof=1).sum()) / spread


@ours()
def nearest_cost(x: np.ndarray, y: np.ndarray, unit: float = 1.0) -> float:
    """Mean squared distance from the points `x` to the nearest of `y`: near 0, they are copies.

    Parameters
    ----------
    x : ndarray, shape (n, ...)
    y : ndarray, shape (m, ...)
    unit : float
        Divisor of the result.

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> nearest_cost(np.array([[0.0], [1.0]]), np.array([[0.0], [3.0]]))
    0.5
    """
    x, y = centred(*samples(x, y))
    unit = check_real("unit", unit, positive=True)
    nearest = [ot.dist(part, y).min(axis=1) for part in blocks(x)]
    return float(np.concatenate(nearest).mean()) / unit


@ours()
def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    r"""Squared Wasserstein distance between the Gaussian laws fitted to two samples.

    .. math:: |m_x - m_y|^2 + \mathrm{tr}\big(C_x + C_y - 2 (C_x^{1/2} C_y C_x^{1/2})^{1/2}\big).

    Of the features of a network it is what is called FID (Heusel et al., arXiv:1706.08500).

    Parameters
    ----------
    x, y : ndarray, shapes (n, ...) and (m, ...)

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> round(frechet_distance(np.array([[-1.0], [1.0]]), np.array([[0.0], [4.0]])), 9)
    6.0
    """
    x, y = samples(x, y, least=2)
    cx, cy = (np.atleast_2d(np.cov(points.T)) for points in (x, y))
    # not ot.gaussian's distance, which is NaN for singular covariances, as those of few points
    values, vectors = np.linalg.eigh(cx)
    root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cy @ root), 0.0)).sum()
    total = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum() + np.trace(cx) + np.trace(cy)
    distance = float(total - 2 * cross)
    return distance if distance > 1e-12 * total else 0.0  # less is what rounding left


def flat(images: np.ndarray) -> np.ndarray:
    """Points of any shape as rows."""
    return images.reshape(len(images), -1)
