"""What was reached, measured on source points that the potential has never seen."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ot
from scipy import sparse
from scipy.special import xlogy

from .kernels import expected_cost, sweep, weight_blocks
from .newton import Fit, improve
from .sample import Sample, ordered, spread

N_GROUPS = 32
FEW_GROUPS = 8  # for each of which a linear system is solved
NORMAL_95, NORMAL_975, NORMAL_99 = 1.644854, 1.959964, 2.326348
ROUGHLY = 0.5  # of the statistical error, to tell whether a maximiser is far
MOST_ATOMS = 2048  # among which it is solved for what each sends where ...
MAX_PIVOTS = 10**7  # ... with so many steps of the network simplex at most
CLEAR = 3.0  # times the value that the maximiser over a sample gains by chance: no longer chance


@dataclass(frozen=True)
class Evaluation:
    """Estimates on fresh samples; without any, nothing is known.

    Attributes
    ----------
    value : scalar of the backend
        Semi-dual value, in expectation at most the transport cost.
    value_stderr : float
        Its Monte-Carlo standard error.
    precise : float
        The value, summed in double precision.
    value_linear : scalar of the backend
        Mean cost under the plan of the potential, without the entropy.
    marginal : array, shape (n_support,)
        Mean of the assignment weights, which is ``b`` at an optimal potential.
    chi2 : float
        Unbiased estimate of ``sum_j (m_j - b_j)^2 / b_j`` (it may be negative).
    chi2_stderr : float
        Its standard error.
    points : array, shape (n, d)
        The samples, as long as they are of use.
    counts, sums : ndarrays, shapes (n_groups,), (n_groups, n_support)
        Samples of each group, and the sums of their assignment weights, likewise.
    """

    value: Any = None
    value_stderr: float = math.nan
    precise: float = math.nan
    value_linear: Any = None
    marginal: Any = None
    chi2: float = math.nan
    chi2_stderr: float = math.nan
    points: Any = None
    counts: Any = None
    sums: Any = None

    @property
    def brief(self):
        """The estimates without the samples."""
        return replace(self, points=None, counts=None, sums=None)


@dataclass(frozen=True)
class Bounds:
    """What the samples of an evaluation say of the transport cost.

    Attributes
    ----------
    interval : tuple of float
        It holds the cost with 95% confidence.
    gain : float
        By how much the maximiser over the samples exceeds the potential there: the sub-optimality
        of the potential, plus what is gained by chance.
    chance : float
        ``trace / (2 n)``.
    clear : bool
        Whether the gain is no longer chance.
    """

    interval: tuple
    gain: float
    chance: float
    clear: bool


class Estimates:
    """What fresh samples tell of a potential, in two parts, each made when it is first asked for.

    Parameters
    ----------
    evaluation : Evaluation or callable
        Or ``() -> Evaluation``.
    certificate : tuple or callable
        What :func:`certificate` returns, or ``evaluation -> that``.
    """

    def __init__(self, evaluation=Evaluation(), certificate=(None, math.nan)):
        self._evaluation, self._certificate = evaluation, certificate

    @property
    def evaluation(self):
        """Estimates of means."""
        if callable(self._evaluation):
            self._evaluation = self._evaluation()
        return self._evaluation

    @property
    def certificate(self):
        """Interval of the transport cost, and sub-optimality."""
        evaluation, certificate = self.evaluation, self._certificate  # in this order, for other threads
        if callable(certificate):
            self._certificate = certificate(evaluation)
            self._evaluation = evaluation.brief
        return self._certificate


def fresh_batches(draw, n_samples, batch_size):
    """Draw about `n_samples` source points, in two batches at least.

    Batches are drawn at the size of the run: batch normalisation makes the law depend on it.

    Parameters
    ----------
    draw : callable
        ``n -> (n, d)`` batches in the target's coordinates.
    n_samples, batch_size : int

    Returns
    -------
    list of array
    """
    batches, drawn = [], 0
    while drawn < n_samples or len(batches) < 2:  # a sampler may return fewer points than asked for
        batches.append(draw(batch_size))
        drawn += batches[-1].shape[0]
    return batches


def evaluate(target, batches, potential, reg):
    """Reduce the sweeps of batches of source points that the potential has not seen.

    Parameters
    ----------
    target : Target
    batches : list of array, shapes (n, d)
        In the target's coordinates.
    potential : array, shape (n_support,)
    reg : float

    Returns
    -------
    Evaluation
    """
    nx = target.nx
    pieces = max(1, -(-N_GROUPS // len(batches)))
    n_groups = min(N_GROUPS, len(batches) * pieces)
    counts, sums = np.zeros(n_groups), np.zeros((n_groups, target.weights.shape[0]))
    transforms, linears, first = [], [], 0
    for x in batches:
        n_parts = min(pieces, x.shape[0])
        # every n_parts-th point: whatever the order of a batch
        members = np.eye(n_parts)[np.arange(x.shape[0]) % n_parts]
        out = sweep(
            target,
            x,
            potential,
            reg,
            ("c_transform", "groupsum", "linear"),
            members=nx.from_numpy(members, type_as=x),
        )
        group = (first + np.arange(n_parts)) % n_groups
        counts[group] += members.sum(axis=0)
        sums[group] += nx.to_numpy(out.groupsum)
        transforms.append(out.c_transform)
        linears.append(out.linear)
        first += n_parts
    counts, sums = counts[counts > 0], sums[counts > 0]
    transform = nx.concatenate(transforms, axis=0)
    host = nx.to_numpy(transform).astype(float)
    chi2, stderr = chi_square(counts, sums, nx.to_numpy(target.weights).astype(float))
    return Evaluation(
        value=target.dual_value(transform, potential),
        value_stderr=float(host.std(ddof=1) / math.sqrt(len(host))) if len(host) > 1 else math.nan,
        precise=target.precise_value(host.mean(), potential),
        value_linear=nx.mean(nx.concatenate(linears, axis=0)),
        marginal=nx.from_numpy(sums.sum(axis=0) / counts.sum(), type_as=potential),
        chi2=chi2,
        chi2_stderr=stderr,
        points=nx.concatenate(batches, axis=0),
        counts=counts,
        sums=sums,
    )


def bound(target, evaluation, potential, reg, fit=None):
    r"""Interval of the transport cost, and the sub-optimality of a potential, from an evaluation.

    From below, the mean of the semi-dual at `potential`, which has not seen the samples. From above,
    the cost of a plan from points to the atoms: its expectation is at least the cost. The plan is that
    of a potential fitted to the points, its columns scaled down to the weights where they exceed
    them, and what is missing from rows and columns filled in: by a product, whose entropy is bounded by
    convexity, or at ``reg = 0`` by atoms that are near.

    Parameters
    ----------
    target : Target
    evaluation : Evaluation
    potential : array, shape (n_support,)
        That of the evaluation.
    reg : float
    fit : Fit, optional
        Points to bound the cost with from above, and what was fitted to them; otherwise the samples of
        the evaluation.

    Returns
    -------
    Bounds
    """
    x = evaluation.points
    n, stderr = x.shape[0], evaluation.value_stderr
    value, marginal = evaluation.precise, evaluation.marginal
    known = None if fit is None else fit.outcome.curvature
    if known is None:
        sample = Sample(target, x)
        found = improve(sample, potential, reg, ROUGHLY, (value, marginal))
        gain, chance = found.value - value, found.trace / (2.0 * n)
        clear = gain > (1.0 + CLEAR) * chance
    else:
        chance, clear = fit.outcome.trace / (2.0 * n), False
        gain = known.gain(target.weights - marginal)
        if gain > (1.0 + CLEAR) * chance:
            # the trace misleads where few points lie between atoms: products of groups need none
            counts, lacks = deviations(target, evaluation)
            excess, stderr_excess = paired(counts, known.gains(lacks))
            gain, clear = chance + excess, excess > CLEAR * stderr_excess
    cost, deviation = _feasible(fit or Fit(sample, found), n)
    low, high = value - NORMAL_975 * stderr, cost + NORMAL_975 * deviation
    if low > high:  # by chance, each by points of its own: they do not tell so exactly where the cost is
        low, high = high, value + NORMAL_975 * stderr
    return Bounds((low, high), max(gain, 0.0), chance, clear)


def _feasible(fit, n):
    """Mean cost, with entropy, of a plan from the points to the atoms, and its standard error.

    The plan of row i is ``(1 - e_i) p_i + e_i q_i``: p_i is proportional to the weights of the potential
    fitted, less what exceeds the columns, and q_i to what the columns lack. Value and masses of the fit
    say what all of it costs without e; what e adds is measured on at most n of the points, and does not
    see ``psi + const``.
    """
    outcome, part, nx = fit.outcome, spread(fit.points, n), fit.target.nx
    transform, added = (_filled if fit.reg > 0 else _sent)(fit, part)
    mass, scale = (nx.to_numpy(v).astype(float) for v in (outcome.marginal, fit.scale))
    cost = outcome.value + np.mean(added) + fit.reg * np.sum(scale * mass * np.log(scale))
    # the part is among the points, so that the two means vary together
    covariance = np.cov(transform, added)
    variance = (covariance[0, 0] + 2.0 * covariance[0, 1]) / fit.points.shape[0]
    variance += covariance[1, 1] / part.shape[0]
    return float(cost), math.sqrt(max(variance, 0.0))


def _filled(fit, part):
    """c-transforms, and what e adds if all rows get the same q, ndarrays.

    The relative entropy of the plan is at most ``(1 - e_i) KL(p_i | b) + e_i KL(q | b)``.
    """
    target, reg, outcome, scale = fit.target, fit.reg, fit.outcome, fit.scale
    nx, b, psi = target.nx, target.weights, outcome.potential
    out = sweep(target, part, psi, reg, ("c_transform", "average"), values=scale)
    lacking = nx.maximum(b - scale * outcome.marginal, 0.0 * b)
    lacking = lacking / nx.maximum(nx.sum(lacking), 1e-30 + 0.0 * b)
    filling = expected_cost(target, part, lacking) - nx.sum(lacking * psi)
    short = nx.maximum(1.0 - out.average, 0.0 * out.average)
    b, lacking, short, filling, transform = (
        nx.to_numpy(v).astype(float) for v in (b, lacking, short, filling, out.c_transform)
    )
    added = short * (filling + reg * np.sum(xlogy(lacking, lacking / b)) - transform)
    return transform, added - reg * xlogy(1.0 - short, 1.0 - short)


def _sent(fit, part):
    """The same at ``reg = 0``, where each cell sends what it has too much to atoms that are near."""
    target, psi, to_numpy = fit.target, fit.outcome.potential, fit.target.nx.to_numpy
    b, mass, values = (to_numpy(v).astype(float) for v in (target.weights, fit.outcome.marginal, psi))
    excess = np.maximum(mass - b, 0.0)
    where, e = coupling(target, excess, np.maximum(b - mass, 0.0)), excess / np.maximum(mass, b)
    expected, transforms, added = where @ values, [], []
    for rows, chi in weight_blocks(target, part, psi, 0.0):
        cell = to_numpy(target.nx.argmax(chi, axis=1))
        costs = to_numpy(target.cost_matrix(rows))
        transforms.append(costs[np.arange(len(cell)), cell] - values[cell])
        sent = where[cell].multiply(costs).sum(axis=1) - expected[cell]
        added.append(e[cell] * (sent - transforms[-1]))
    return np.concatenate(transforms), np.concatenate(added)


def coupling(target, excess, lacking):
    """Where atoms send what they have too much: shares, a sparse array of shape (n_support, n_support).

    Shares that meet what the others lack make a plan that is feasible. These are of an optimal transport
    for squared distances between atoms (a user's metric need not be one between atoms); if there are
    many, of those of groups of atoms that lie together, and what is left over in a group goes to the
    next ones.

    Parameters
    ----------
    target : Target
    excess, lacking : ndarrays, shape (n_support,)
        Masses, of the same sum.
    """
    atoms, n_atoms = target.nx.to_numpy(target.atoms), len(excess)

    def optimal(over, under, a, b):
        costs = ot.dist(atoms[over].astype(float), atoms[under].astype(float))
        return ot.emd(a, b, costs / max(costs.max(), 1e-300), numItermax=MAX_PIVOTS)

    if n_atoms <= MOST_ATOMS:
        sent = _matched(np.arange(n_atoms), excess, lacking, optimal)
    else:
        order = ordered(atoms, MOST_ATOMS)
        groups = np.split(order, range(MOST_ATOMS, n_atoms, MOST_ATOMS))
        sent = sum(_matched(group, excess, lacking, optimal) for group in groups)
        left = excess - sent.sum(axis=1), lacking - sent.sum(axis=0)
        place = np.argsort(order).astype(float)
        next_ones = lambda over, under, a, b: ot.emd_1d(place[over], place[under], a, b, dense=False)
        sent = sent + _matched(order, *left, next_ones)
    total = sent.sum(axis=1)
    return sparse.csr_array(sent.multiply(1.0 / np.where(total > 0.0, total, 1.0)[:, None]))


def _matched(atoms, excess, lacking, plan):
    """Masses sent among some atoms, as much as can be; `plan` is of ``(over, under, a, b)``."""
    over, under = atoms[excess[atoms] > 0.0], atoms[lacking[atoms] > 0.0]
    a, b, shape = excess[over], lacking[under], 2 * excess.shape
    mass = min(a.sum(), b.sum())
    if not mass > 0.0:
        return sparse.csr_array(shape)
    found = sparse.coo_array(plan(over, under, a / a.sum(), b / b.sum()))
    return sparse.csr_array((mass * found.data, (over[found.row], under[found.col])), shape=shape)


def certificate(target, potential, reg, fit, trace, n_samples, evaluation):
    """Interval of the transport cost, and estimate of ``H(psi*) - H(psi)``, of the end of a run.

    The average of a run, corrected by Newton's method, lacks what the samples of the run allow at best,
    ``trace / (2 n_samples)``, unless fresh samples show clearly that it is more; they are too few to see
    that it is not less.

    Parameters
    ----------
    target, potential, reg, fit
        As in :func:`bound`.
    trace : float or None
        That of the samples of the run; of the evaluation's if not known.
    n_samples : int
        Of the run.
    evaluation : Evaluation
        That of the potential.

    Returns
    -------
    interval : tuple of float
    suboptimality : float
    """
    found = bound(target, evaluation, potential, reg, fit)
    excess = max(found.gain - found.chance, 0.0)
    if n_samples == 0:
        return found.interval, excess
    if trace is None:
        trace = found.chance * 2.0 * evaluation.points.shape[0]
    limit = trace / (2.0 * n_samples)
    return found.interval, max(excess, limit) if found.clear else limit


def upper_bound(estimate, quantile=NORMAL_95):
    """Upper bound of ``chi2``, of an evaluation or a result: at 95% unless told.

    An estimate below 0 counts as 0, for what is estimated is not negative: noise alone cannot
    make a bound small.
    """
    return max(estimate.chi2, 0.0) + quantile * estimate.chi2_stderr


def marginal_chi_square(target, parts, potential, reg):
    """:func:`chi_square` of groups of points, and its standard error."""
    to_numpy = target.nx.to_numpy
    sums = [to_numpy(sweep(target, part, potential, reg, ("colsum",)).colsum) for part in parts]
    counts = np.array([part.shape[0] for part in parts], dtype=float)
    return chi_square(counts, np.stack(sums).astype(float), to_numpy(target.weights).astype(float))


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
    deviation = (sums / counts[:, None] - weights) / np.sqrt(weights)
    return paired(counts, deviation @ deviation.T)


def deviations(target, evaluation):
    """Samples of a few groups of an evaluation, and what their masses lack of the weights."""
    merged = range(0, len(evaluation.counts), -(-len(evaluation.counts) // FEW_GROUPS))
    counts, sums = (np.add.reduceat(v, merged) for v in (evaluation.counts, evaluation.sums))
    return counts, target.weights - target.nx.from_numpy(sums / counts[:, None], type_as=target.weights)


def paired(counts, products):
    """Mean of the products of different groups, and its standard error (a U-statistic).

    Parameters
    ----------
    counts : ndarray, shape (n_groups,)
    products : ndarray, shape (n_groups, n_groups)

    Returns
    -------
    mean : float
    stderr : float
    """
    g = len(counts)
    if g < 2:
        return math.nan, math.nan
    products = products.copy()
    np.fill_diagonal(products, 0.0)
    pairs = np.outer(counts, counts)
    np.fill_diagonal(pairs, 0.0)
    mean = float((pairs * products).sum() / pairs.sum())
    # variances of a product, v2, and of its conditional mean, v1 (Hoeffding 1948):
    # Var U = 2 (2 (g - 2) v1 + v2) / (g (g - 1))
    v2 = (products**2).sum() / (g * (g - 1.0)) - (products.sum() / (g * (g - 1.0))) ** 2
    v1 = 0.0
    if g > 4:
        between = (products.sum(axis=1) / (g - 1.0)).var(ddof=1)
        v1 = (between * (g - 1.0) ** 2 / (g - 2.0) - v2) / (g - 4.0)
    variance = max(2.0 * (g - 2.0) * v1 + v2, v2 / 2.0, 0.0)  # v2 can be negative by rounding
    return mean, math.sqrt(variance * 2.0 / (g * (g - 1.0)))
