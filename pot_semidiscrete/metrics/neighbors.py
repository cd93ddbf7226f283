"""Measures by nearest neighbours: how many points lie among others, and how many these reach."""

import numpy as np
import ot

from ..backend import ours
from ..problem import check_count
from .transport import blocks, centred, samples


def _radii(x: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of each point to its k-th neighbour, shape (n,)."""
    return np.concatenate([np.partition(ot.dist(part, x), k, axis=1)[:, k] for part in blocks(x)])


def _within(x: np.ndarray, y: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which points of `x` lie in a ball about one of `y`, and in which balls there is one of `x`."""
    within, reached = [], np.zeros(len(y), dtype=bool)
    for part in blocks(x):
        found = ot.dist(part, y) <= radii
        within.append(found.any(axis=1))
        reached |= found.any(axis=0)
    return np.concatenate(within), reached


@ours()
def precision_recall(x: np.ndarray, y: np.ndarray, k: int = 3) -> tuple[float, float]:
    """Share of `x` that lies among `y`, and of `y` that lies among `x`.

    A point lies among others if it is within the distance from one of them to its k-th neighbour among
    the others. Precision is high if points are plausible, recall if they are diverse.

    Parameters
    ----------
    x : ndarray, shape (n, ...)
        Points in question, or their features.
    y : ndarray, shape (m, ...)
        Data, or their features.
    k : int, default=3
        Number of the neighbour; both samples need more points than that.

    Returns
    -------
    precision, recall : float

    References
    ----------
    Kynkaanniemi, Karras, Laine, Lehtinen, Aila, "Improved Precision and Recall Metric for Assessing
    Generative Models", NeurIPS 2019.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.arange(10.0)[:, None]
    >>> precision_recall(y[:5] + 0.5, y)  # of y, 0 to 7 are within 3 of 0.5 to 4.5
    (1.0, 0.8)
    """
    k = check_count("k", k)
    x, y = centred(*samples(x, y, least=k + 1))
    precise, _ = _within(x, y, _radii(y, k))
    recalled, _ = _within(y, x, _radii(x, k))
    return float(precise.mean()), float(recalled.mean())


@ours()
def coverage(x: np.ndarray, y: np.ndarray, k: int = 5) -> float:
    """Share of `y` with a point of `x` no farther than their k-th neighbour in `y`.

    Unlike recall, it is not raised by outliers in `x`, whose balls are large.

    Parameters
    ----------
    x : ndarray, shape (n, ...)
    y : ndarray, shape (m, ...)
    k : int, default=5
        Number of the neighbour; `y` needs more points than that.

    Returns
    -------
    float

    References
    ----------
    Naeem, Oh, Uh, Choi, Yoo, "Reliable Fidelity and Diversity Metrics for Generative Models", ICML 2020.

    Examples
    --------
    >>> import numpy as np
    >>> y = np.arange(10.0)[:, None]
    >>> coverage(y[:1], y, k=1), coverage(y[:1], y)
    (0.2, 0.4)
    """
    k = check_count("k", k)
    x, y = centred(*samples(x, y))
    if len(y) <= k:
        raise ValueError(f"y: expected {k + 1} points or more, received {len(y)}.")
    return float(_within(x, y, _radii(y, k))[1].mean())
