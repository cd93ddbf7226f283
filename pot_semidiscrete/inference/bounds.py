"""Bounds of the transport cost: from below by a potential, from above by a plan that is feasible.

From below, the mean of the semi-dual at a potential that has not seen the points. From above, the cost
of a plan from points to the atoms: its expectation is at least the cost. The plan is that of a
potential fitted to the points, its columns scaled down to the weights where they exceed them, and what
is missing from rows and columns filled in: by a product, whose entropy is bounded by convexity, or at
``reg = 0`` by atoms that are near. Where masses are free at a price, the plan is feasible as it is, too.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import ot
from scipy import sparse
from scipy.special import xlogy

from ..backend import Array, brief, capabilities, in_double, stride
from ..kernels import expected_cost, reduce, weight_blocks
from ..optim.newton import NewtonResult
from ..problem import Target
from .order import ordered

MOST_ATOMS = 2048  # of one exact transport between atoms; more are split into groups
MAX_PIVOTS = 10**7  # of the network simplex: POT's own limit is met at 2,000 points


@dataclass(frozen=True)
class FittedPoints:
    """Points of a source, or some of them, and a potential fitted to all.

    Attributes
    ----------
    target : Target
    points : array, shape (k, d)
    found : NewtonResult
    """

    target: Target
    points: Array
    found: NewtonResult

    __repr__ = brief

    @property
    def n(self) -> int:
        """Points that the potential was fitted to."""
        return self.found.measured.n

    def subsample(self, most: int) -> "FittedPoints":
        """The same fit, with at most so many of its points."""
        step = stride(self.points.shape[0], most)
        if step == 1:
            return self
        return replace(self, points=self.target.nx.copy(self.points[::step]))

    @property
    def reg(self) -> float:
        """Regularisation of the fit."""
        return self.found.eps

    @functools.cached_property
    def scale(self) -> Array:
        """Factor of each column that brings it down to the goal b, ``min(1, b / m)``."""
        b, m = self.found.measured.goal, self.found.measured.marginal
        return b / self.target.nx.maximum(b, m)


def plan_cost(fit: FittedPoints, most: int) -> tuple[float, float, np.ndarray]:
    """Mean cost, with entropy, of a feasible plan from the points to the atoms, and its standard error.

    The plan of row i is ``(1 - e_i) p_i + e_i q_i``: p_i is proportional to the weights of the potential
    fitted, less what exceeds the columns, and q_i to the deficit of the columns. Value and masses of the
    fit say what all of it costs without e; what e adds is measured on at most so many of the points, and
    does not see ``psi + const``. Where masses are free at a price, the columns are the goal, or those of
    the plan as it is, with ``e = 0``, whichever is cheaper.

    Returns
    -------
    cost, stderr : float
    rows : ndarray
        Cost of each of these points, up to a constant.
    """
    measured, part = fit.found.measured, fit.subsample(most).points
    fill = _fill_by_product if fit.reg > 0 else _fill_by_neighbors
    transform, added = fill(fit, part)
    mass, scale = map(in_double, (measured.marginal, fit.scale))
    cost = measured.value + np.mean(added) + fit.reg * np.sum(scale * mass * np.log(scale))
    as_it_is = measured.value + fit.target.excess(measured.marginal, measured.goal)
    if as_it_is < cost:
        cost, added = as_it_is, 0.0 * added
    # the part is among the points, so that the two means vary together
    covariance = np.cov(transform, added)
    variance = (covariance[0, 0] + 2.0 * covariance[0, 1]) / fit.n + covariance[1, 1] / part.shape[0]
    return float(cost), math.sqrt(max(variance, 0.0)), transform + added


def _fill_by_product(fit: FittedPoints, part: Array) -> tuple[np.ndarray, np.ndarray]:
    """c-transforms of points, and what e adds to their cost if all rows get the same q.

    The relative entropy of the plan is at most ``(1 - e_i) KL(p_i | b) + e_i KL(q | b)``.
    """
    target, reg, scale = fit.target, fit.reg, fit.scale
    nx, b, psi = target.nx, target.weights, fit.found.potential
    out = reduce(target, part, psi, reg, ("c_transform", "average"), values=scale)
    measured = fit.found.measured
    deficit = nx.clip(measured.goal - scale * measured.marginal, 0.0)
    deficit = deficit / nx.clip(nx.sum(deficit), 1e-30)
    filling = expected_cost(target, part, deficit) - nx.sum(deficit * psi)
    short = nx.clip(1.0 - out.average, 0.0)
    b, deficit, short, filling, transform = map(in_double, (b, deficit, short, filling, out.c_transform))
    added = short * (filling + reg * np.sum(xlogy(deficit, deficit / b)) - transform)
    return transform, added - reg * xlogy(1.0 - short, 1.0 - short)


def _fill_by_neighbors(fit: FittedPoints, part: Array) -> tuple[np.ndarray, np.ndarray]:
    """The same at ``reg = 0``, if each cell sends its excess to atoms that are near."""
    target, psi, to_numpy = fit.target, fit.found.potential, fit.target.nx.to_numpy
    measured = fit.found.measured
    b, mass, values = map(in_double, (measured.goal, measured.marginal, psi))
    excess = np.maximum(mass - b, 0.0)
    shares = coupling(target, excess, np.maximum(b - mass, 0.0))
    e = excess / np.maximum(mass, b)
    expected, transforms, added = shares @ values, [], []
    for rows, chi in weight_blocks(target, part, psi, 0.0):
        cell = to_numpy(target.nx.argmax(chi, axis=1))
        costs = to_numpy(target.cost_matrix(rows))
        transforms.append(costs[np.arange(len(cell)), cell] - values[cell])
        sent = shares[cell].multiply(costs).sum(axis=1) - expected[cell]
        added.append(e[cell] * (sent - transforms[-1]))
    return np.concatenate(transforms), np.concatenate(added)


def coupling(target: Target, excess: np.ndarray, deficit: np.ndarray) -> sparse.csr_array:
    """Where atoms send their excess: shares, a sparse array of shape (n_support, n_support).

    Shares that fill the deficits make a plan that is feasible. These are of an optimal transport
    for squared distances between atoms (a user's metric need not be one between atoms); if there are
    many, of those of groups of atoms that lie together, and what is left over in a group goes to the
    next ones.

    Parameters
    ----------
    target : Target
    excess, deficit : ndarrays, shape (n_support,)
        Masses, of the same sum.
    """
    nx, n_atoms = target.nx, len(excess)
    index = lambda rows: capabilities(nx).index(rows, target.weights)
    read = lambda rows: in_double(target.atoms[index(rows)])

    def optimal(over: np.ndarray, under: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        costs = ot.dist(read(over), read(under))
        return ot.emd(a, b, costs / max(costs.max(), 1e-300), numItermax=MAX_PIVOTS)

    if n_atoms <= MOST_ATOMS:
        sent = _send_within(np.arange(n_atoms), excess, deficit, optimal)
    else:
        most = 64 if target.shard is None else 8  # coordinates of stored atoms that are read
        every = stride(target.like.shape[1], most) if target.is_stored else 1
        few = nx.to_numpy(target.in_parts(lambda atoms: atoms[:, ::every]))
        order = ordered(few, MOST_ATOMS)
        groups = np.split(order, range(MOST_ATOMS, n_atoms, MOST_ATOMS))
        sent = sum(_send_within(group, excess, deficit, optimal) for group in groups)
        left = excess - sent.sum(axis=1), deficit - sent.sum(axis=0)
        place = np.argsort(order).astype(float)
        along_order = lambda over, under, a, b: ot.emd_1d(place[over], place[under], a, b, dense=False)
        sent = sent + _send_within(order, *left, along_order)
    total = sent.sum(axis=1)
    return sparse.csr_array(sent.multiply(1.0 / np.where(total > 0.0, total, 1.0)[:, None]))


def _send_within(
    atoms: np.ndarray, excess: np.ndarray, deficit: np.ndarray, plan: Callable
) -> sparse.csr_array:
    """Masses that some atoms send each other, as much as excess and deficits among them allow.

    Parameters
    ----------
    atoms : ndarray of int
    excess, deficit : ndarrays, shape (n_support,)
    plan : callable
        ``(over, under, a, b) -> plan`` from atoms with an excess to atoms with a deficit, for the
        shares a and b.
    """
    over, under = atoms[excess[atoms] > 0.0], atoms[deficit[atoms] > 0.0]
    a, b, shape = excess[over], deficit[under], 2 * excess.shape
    mass = min(a.sum(), b.sum())
    if not mass > 0.0:
        return sparse.csr_array(shape)
    found = sparse.coo_array(plan(over, under, a / a.sum(), b / b.sum()))
    return sparse.csr_array((mass * found.data, (over[found.row], under[found.col])), shape=shape)
