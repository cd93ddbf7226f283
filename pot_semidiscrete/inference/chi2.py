"""The squared relative error of the masses, without bias, from fresh points."""

import math
from typing import Any

import numpy as np

from ..optim.semi_dual import Measurement

NORMAL_95, NORMAL_975 = 1.644854, 1.959964


def chi_square(measured: Measurement, weights: np.ndarray, nx: Any) -> tuple[float, float]:
    """Unbiased ``sum_j (m_j - b_j)^2 / b_j``, and its standard error.

    A U-statistic: products of different points only, so that the noise of the points adds nothing in
    expectation (Hoeffding, 1948). With ``R = E chi chi^T`` and ``D = diag(b)``, its variance is at most
    ``2 n_eff / n^2``, from pairs, for the spectrum of ``D^-1/2 R D^-1/2`` lies in [0, 1] at the optimum;
    and ``4 sum_j (m_j - b_j)^2 m_j / b_j^2 / n``, from single points, for R is at most ``diag(m)``.

    Parameters
    ----------
    measured : Measurement
    weights : array, shape (n_support,)
    nx : ot.backend.Backend

    Returns
    -------
    chi2 : float
    stderr : float

    Examples
    --------
    >>> import numpy as np
    >>> from ot.backend import NumpyBackend
    >>> m = np.array([0.5, 0.5])  # two points, each of its own atom
    >>> found = chi_square(Measurement(2, 0.0, m, m, 1.0, None), m, NumpyBackend())
    >>> round(found[0], 6)
    -1.0
    """
    n = measured.n
    if n < 2:
        return math.nan, math.nan
    b, m, second = (
        nx.to_numpy(v).astype(float) for v in (weights, measured.marginal, measured.second_moment)
    )
    parts = ((n * m**2 - second) / (n - 1.0) - 2.0 * b * m + b**2) / b
    single = max(float(np.sum(parts * m / b)), 0.0)
    return float(parts.sum()), math.sqrt(2.0 * measured.n_eff + 4.0 * n * single) / n


def worst_atom(measured: Measurement, weights: np.ndarray, nx: Any) -> tuple[float, float]:
    """Largest relative error of a mass, and the standard error of that mass, relative as well."""
    b, m, second = (
        nx.to_numpy(v).astype(float) for v in (weights, measured.marginal, measured.second_moment)
    )
    worst = int(np.argmax(np.abs(m - b) / b))
    variance = max(second[worst] - m[worst] ** 2, 0.0) / measured.n
    return float(abs(m[worst] - b[worst]) / b[worst]), float(math.sqrt(variance) / b[worst])
