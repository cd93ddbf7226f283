"""What was reached, measured on source points that the potential has never seen."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .kernels import sweep

N_GROUPS = 32


@dataclass(frozen=True)
class Evaluation:
    """Estimates on fresh samples.

    Attributes
    ----------
    value : scalar of the backend
        Semi-dual value, in expectation at most the transport cost.
    value_stderr : float
        Its Monte-Carlo standard error.
    value_linear : scalar of the backend
        Mean cost under the plan of the potential, without the entropy.
    marginal : array, shape (n_support,)
        Mean of the assignment weights, which is ``b`` at an optimal potential.
    chi2 : float
        Unbiased estimate of ``sum_j (m_j - b_j)^2 / b_j`` (it may be negative).
    chi2_stderr : float
        Its standard error.
    """

    value: Any
    value_stderr: float
    value_linear: Any
    marginal: Any
    chi2: float
    chi2_stderr: float


def evaluate(target, draw, potential, reg, n_samples, batch_size):
    """Draw about `n_samples` fresh source points, in batches, and reduce their sweeps.

    Parameters
    ----------
    target : Target
    draw : callable
        ``n -> (n, d)`` batches in the target's coordinates.
    potential : array, shape (n_support,)
    reg : float
    n_samples : int
    batch_size : int
        Batches are drawn at the size of the run: batch normalisation makes the law depend on it.

    Returns
    -------
    Evaluation
    """
    nx = target.nx
    n_batches = max(-(-n_samples // batch_size), 2)
    pieces = max(1, -(-N_GROUPS // n_batches))
    groups = [[0, 0.0] for _ in range(min(N_GROUPS, n_batches * pieces))]
    transforms, linears, slot, drawn, batches = [], [], 0, 0, 0
    while drawn < n_samples or batches < 2:  # a sampler may return fewer points than asked for
        x = draw(batch_size)
        drawn, batches = drawn + x.shape[0], batches + 1
        rows = -(-x.shape[0] // pieces)
        for start in range(0, x.shape[0], rows):
            part = x[start : start + rows]
            out = sweep(target, part, potential, reg, ("c_transform", "colsum", "linear"))
            group = groups[slot % len(groups)]
            group[0] += part.shape[0]
            group[1] = group[1] + out.colsum
            transforms.append(out.c_transform)
            linears.append(out.linear)
            slot += 1
    groups = [group for group in groups if group[0]]
    counts = np.array([count for count, _ in groups], dtype=float)
    sums = np.stack([nx.to_numpy(total) for _, total in groups]).astype(float)
    transform = nx.concatenate(transforms, axis=0)
    host = nx.to_numpy(transform).astype(float)
    chi2, stderr = chi_square(counts, sums, nx.to_numpy(target.weights).astype(float))
    return Evaluation(
        value=target.dual_value(transform, potential),
        value_stderr=float(host.std(ddof=1) / math.sqrt(len(host))) if len(host) > 1 else math.nan,
        value_linear=nx.mean(nx.concatenate(linears, axis=0)),
        marginal=nx.from_numpy(sums.sum(axis=0) / counts.sum(), type_as=potential),
        chi2=chi2,
        chi2_stderr=stderr,
    )


def upper_bound(estimate):
    """95% upper bound of ``chi2``, of an evaluation or a result."""
    return estimate.chi2 + 1.645 * estimate.chi2_stderr


def chi_square(counts, sums, weights):
    """Unbiased ``sum_j (m_j - b_j)^2 / b_j`` from column sums over groups of samples.

    A U-statistic of the group means: products of different groups only, so that the noise of the
    samples adds nothing in expectation. Its variance has a part from the conditional means, which
    vanishes at the optimum, and a part from the products; a jackknife would count the second twice
    more.

    Parameters
    ----------
    counts : ndarray, shape (n_groups,)
    sums : ndarray, shape (n_groups, n_support)
    weights : ndarray, shape (n_support,)

    Returns
    -------
    chi2 : float
    stderr : float

    Examples
    --------
    >>> import numpy as np
    >>> chi2, stderr = chi_square(np.ones(2), np.array([[1.0, 0.0], [0.0, 1.0]]), np.full(2, 0.5))
    >>> round(chi2, 6)
    -1.0
    """
    g = len(counts)
    if g < 2:
        return math.nan, math.nan
    deviation = (sums / counts[:, None] - weights) / np.sqrt(weights)
    products = deviation @ deviation.T
    np.fill_diagonal(products, 0.0)
    pairs = np.outer(counts, counts)
    np.fill_diagonal(pairs, 0.0)
    chi2 = float((pairs * products).sum() / pairs.sum())
    # variances of a product, v2, and of its conditional mean, v1 (Hoeffding 1948):
    # Var U = 2 (2 (g - 2) v1 + v2) / (g (g - 1))
    v2 = (products**2).sum() / (g * (g - 1.0)) - (products.sum() / (g * (g - 1.0))) ** 2
    v1 = 0.0
    if g > 4:
        spread = (products.sum(axis=1) / (g - 1.0)).var(ddof=1)
        v1 = (spread * (g - 1.0) ** 2 / (g - 2.0) - v2) / (g - 4.0)
    return chi2, math.sqrt(max(2.0 * (g - 2.0) * v1 + v2, v2 / 2.0) * 2.0 / (g * (g - 1.0)))
