"""Points that are swept again and again: each time with the atoms that matter to them only.

At a small regularisation, points that lie together share their weights among few atoms. In dimension 1,
2 or 3 points are put in an order in which consecutive ones lie together, and a first sweep notes which
atoms have a part in which group of them (Schmitzer, "Stabilized sparse scaling algorithms for entropy
regularized transport problems", 2019, truncates Sinkhorn's iterations so).
"""

from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from .costs import CallableMetric
from .kernels import on_host, sweep

LOW = 3  # dimensions at most, in which points that are consecutive in an order can lie together ...
LEAST_ATOMS, LEAST_ENTRIES = 256, 2**21  # ... and (points x atoms), from which that order pays
GROUP = 1024  # points of a group ...
LARGEST_NOTES = 2**22  # ... unless more than these (groups x atoms) ...
SMALL = 128  # ... and where their weights are kept
DEPTH = 14.0  # weights below exp(-DEPTH) b_j are left out: that share of a row, or of a column, at most
MOST = 0.5  # of the atoms, in the mean: with more, all are taken
ALL = slice(None)


class Sample:
    """The points `x` of a source, measured at one regularisation and several potentials.

    Parameters
    ----------
    target : Target
    x : array, shape (n, d)
    reg : float
    """

    def __init__(self, target, x, reg):
        self.target, self.x, self.reg = target, x, reg
        self.grouped = reg > 0 and in_groups(target, x)
        self.rows, n_entries = x.shape[0], x.shape[0] * target.weights.shape[0]
        if self.grouped:
            self.rows = max(GROUP, -(-n_entries // LARGEST_NOTES))
        self.base = self.heights = None

    def measure(self, potential):
        """Semi-dual value, summed in double precision, and marginal."""
        nx, near = self.target.nx, self._near(potential)
        note = self.grouped and near is None
        want = ("c_transform", "colsum", "blockmax") if note else ("c_transform", "colsum")
        value, colsum, tops = 0.0, np.zeros(self.target.weights.shape[0]), []
        for k, start in enumerate(range(0, self.x.shape[0], self.rows)):
            atoms = ALL if near is None else near[k]
            part, rows = select(self.target, atoms), self.x[start : start + self.rows]
            out = sweep(part, rows, potential[atoms], self.reg, want)
            value += np.sum(nx.to_numpy(out.c_transform), dtype=float)
            colsum[atoms] += nx.to_numpy(out.colsum)
            if note:
                tops.append(nx.to_numpy(out.blockmax).max(axis=0))
        if note:
            self._note(np.stack(tops), nx.to_numpy(potential))
        n = self.x.shape[0]
        value = value / n + np.sum(nx.to_numpy(self.target.weights * potential), dtype=float)
        return float(value), nx.from_numpy(colsum / n, type_as=potential)

    def _note(self, tops, potential):
        """How high, in units of their atom, the weights of each group were at a potential."""
        tops /= self.target.nx.to_numpy(self.target.weights)
        with np.errstate(divide="ignore"):
            np.log(tops, out=tops)
        self.grouped = (tops > -DEPTH).mean() <= MOST  # or it does not pay
        self.base, self.heights = (potential.copy(), tops) if self.grouped else (None, None)

    def _near(self, potential):
        """Atoms to take, for each group; None for all of them.

        The weights of an atom grow by as much as its potential was raised, in units of reg, and all
        shrink by what the least raised of the atoms near the group was raised, at least.
        """
        if self.heights is None:
            return None
        raised = (self.target.nx.to_numpy(potential) - self.base) / self.reg
        least = np.where(self.heights > -DEPTH, raised, np.inf).min(axis=1)
        near = ~(self.heights + (raised - least[:, None]) <= -DEPTH)  # all of them if it is not a number
        return None if near.mean() > MOST else [np.flatnonzero(row) for row in near]


def measure(target, x, potential, reg):
    """Semi-dual value, summed in double precision, and marginal of the points `x`, once."""
    sample = Sample(target, x, reg)
    sample.grouped = False
    return sample.measure(potential)


def in_groups(target, x):
    """Whether it can pay to sweep groups of these points with a part of the atoms."""
    (n, d), n_atoms = x.shape, target.weights.shape[0]
    many = n > GROUP and n_atoms > LEAST_ATOMS and n * n_atoms >= LEAST_ENTRIES
    # a user's metric is called with all atoms, which it may know by their place
    known = target.nx.__name__ in ("numpy", "torch") and not isinstance(target.cost, CallableMetric)
    return d <= LOW and many and known and on_host(x)


def ordered(target, x):
    """The points in an order in which consecutive ones lie together, if :func:`in_groups`."""
    if not in_groups(target, x):
        return x
    # a copy, for torch warns of what it may not write to
    return x[np.array(cKDTree(target.nx.to_numpy(x), leafsize=SMALL).indices)]


def select(target, atoms):
    """The target with a part of its atoms, whose weights are left as they are."""
    if isinstance(atoms, slice):
        return target
    return replace(target, atoms=target.atoms[atoms], weights=target.weights[atoms])


def groups(target, chi):
    """Weights of small groups of consecutive rows, in NumPy, and the atoms of their columns."""
    chi, least = target.nx.to_numpy(chi), np.exp(-DEPTH) * target.nx.to_numpy(target.weights)
    for start in range(0, chi.shape[0], SMALL):
        part = chi[start : start + SMALL]
        near = np.flatnonzero(part.max(axis=0) > least)
        if len(near) > MOST * chi.shape[1]:
            near = ALL
        yield part[:, near], near


def plus(total, atoms, part):
    """The array `total`, shape (..., n_support), and `part` at these atoms: in place if not all."""
    if isinstance(atoms, slice):
        return total + part
    total[..., atoms] += part
    return total


def spread(x, n):
    """At most `n` of the points, evenly spaced: a sampler may return them in an order.

    The spacing is odd, for in a Sobol sequence every second point lies in the same half of the space.
    """
    return x[:: -(-x.shape[0] // n) // 2 * 2 + 1] if x.shape[0] > n else x
