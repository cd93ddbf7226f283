"""The squared relative error of the masses, without bias, from fresh points."""

import math

import numpy as np

from ..backend import Array, in_double, slices
from ..optim.semi_dual import Measurement

GROUPS = 32  # of points, by which the error of chi2 is estimated: its variance to a quarter


def chi_square(measured: Measurement) -> tuple[float, float]:
    """Unbiased ``sum_j (m_j - b_j)^2 / b_j``, b the goal, and its standard error.

    A U-statistic: products of different points only, so that the noise of the points adds nothing in
    expectation (Hoeffding, 1948); Mousavi-Hosseini et al. (arXiv:2509.25519) stop by it. Its variance
    has two parts, from pairs and from single points; the products of the means of groups tell them
    apart, by the analysis of their variance. It is at least ``2 n_eff^2 / ((n_atoms - 1) n^2)``,
    whatever a sampler does that repeats itself.

    Parameters
    ----------
    measured : Measurement

    Returns
    -------
    chi2 : float
    stderr : float

    Examples
    --------
    >>> import numpy as np
    >>> m, rows = np.array([0.5, 0.5]), [np.array([1.0, 0.0]), np.array([0.0, 1.0])]
    >>> found = chi_square(Measurement(2, 0.0, m, m, m, 1.0, None, rows))
    >>> round(found[0], 6)  # two points, each of its own atom
    -1.0
    """
    n = measured.n
    if n < 2:
        return math.nan, math.nan
    b, m, second = map(in_double, (measured.goal, measured.marginal, measured.second_moment))
    parts = ((n * m**2 - second) / (n - 1.0) - 2.0 * b * m + b**2) / b
    chi2, groups = float(parts.sum()), [in_double(v) for v in measured.groups]
    if len(groups) < 4:
        return chi2, math.nan
    least = math.sqrt(2.0 / max(len(b) - 1.0, 1.0)) * measured.n_eff / n  # Cauchy and Schwarz
    with np.errstate(over="ignore", invalid="ignore"):  # of weights whose squares are 0
        stderr = _stderr(np.stack(groups), b)
    return chi2, max(stderr, least) if math.isfinite(stderr) else math.inf


def _stderr(means: np.ndarray, b: np.ndarray) -> float:
    """Standard error, by the means of G groups of as many points.

    ``<z_g, z_h>``, ``z = (m - b) / sqrt(b)``, is a constant, an effect of g and one of h of variance s,
    and a remainder of variance p; over all pairs of groups they leave ``4 s / G + 2 p / G^2``.
    """
    n_groups = means.shape[0]
    z = (means - b) / np.sqrt(b)
    # OpenBLAS starts threads above 2^18 multiplications, which then wait in a loop on the next core
    products = sum(z[:, part] @ z[:, part].T for part in slices(len(b), 256))
    among = products[np.triu_indices(n_groups, 1)]
    rows = (products.sum(axis=1) - np.diag(products)) / (n_groups - 1.0)
    shrink = (n_groups - 2.0) / (n_groups - 1.0)
    total, between = among.var(ddof=1), rows.var(ddof=1) / shrink
    # E between = shrink s + p / (n_groups - 1) and, but for O(1 / G^2), E total = 2 shrink s + p
    single = max((between - total / (n_groups - 1.0)) / (shrink - 2.0 * shrink / (n_groups - 1.0)), 0.0)
    pair = max(total - 2.0 * shrink * single, 0.0)
    return math.sqrt(4.0 * single / n_groups + 2.0 * pair / n_groups**2)


def worst_atom(measured: Measurement, weights: Array) -> tuple[float, float]:
    """Largest error of a mass in units of its weight, and the standard error of that mass, as well."""
    b, m, goal, second = map(
        in_double, (weights, measured.marginal, measured.goal, measured.second_moment)
    )
    error = np.abs(m - goal) / b
    worst = int(np.argmax(error))
    variance = max(second[worst] - m[worst] ** 2, 0.0) / measured.n
    return float(error[worst]), float(math.sqrt(variance) / b[worst])
