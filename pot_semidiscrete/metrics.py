"""Measures of how close generated points are to data."""

import numpy as np
import ot


def transport_cost(x, y, unit=1.0):
    """Exact squared Euclidean transport cost between two samples, by :func:`ot.emd2`.

    Alone it can be gamed, by points that are averages of data: see :func:`covariance_ratio`.

    Parameters
    ----------
    x : ndarray, shape (n, d)
    y : ndarray, shape (m, d)
    unit : float
        What to divide the cost by.

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> transport_cost(np.zeros((2, 1)), np.ones((2, 1)))
    1.0
    """
    x, y = (np.asarray(points, dtype=float) for points in (x, y))
    # 10 million iterations: ot.emd2's own limit is met at 2,000 points
    return float(ot.emd2([], [], ot.dist(x, y), numItermax=10_000_000)) / unit


def covariance_ratio(x, y):
    """Trace of the covariance of `x` over that of `y`: below 1, `x` lacks diversity.

    Parameters
    ----------
    x : ndarray, shape (n, d)
    y : ndarray, shape (m, d)

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> covariance_ratio(np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]]))
    0.25
    """
    x, y = (np.asarray(points, dtype=float) for points in (x, y))
    return float(x.var(axis=0, ddof=1).sum() / y.var(axis=0, ddof=1).sum())
