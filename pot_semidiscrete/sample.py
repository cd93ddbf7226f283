"""Points that are swept again and again, each time with as little work as that takes.

Where there is room, the weights at one potential are kept: at another that is near they are these times
a factor for each atom, as in Sinkhorn's iterations, which takes no exponential. In dimension 1, 2 or 3,
at a small regularisation, points that lie together share their weights among few atoms: they are put in
groups, and a group is swept with the atoms that can have a part in it. Both are in Schmitzer,
"Stabilized sparse scaling algorithms for entropy regularized transport problems", 2019.
"""

import numpy as np

from .kernels import block_rows, dense_block, keep, known_cross, on_host, stride, sweep, sweeps

LARGEST_KEPT = 2**24  # entries of the weights that are kept
LOW = 3  # dimensions at most, in which points that are consecutive in an order can lie together ...
LEAST_ATOMS, LEAST_ENTRIES = 256, 2**21  # ... and (points x atoms), from which that order pays
GROUP = 1024  # points of a group ...
LARGEST_BOUNDS = 2**22  # ... unless more than these (groups x atoms)
DEPTH = 14.0  # weights below exp(-DEPTH) b_j are left out: that share of a row, or of a column, at most
MOST = 0.5  # of the atoms, in the mean: with more, all are taken
ALL = slice(None)


class Sample:
    """Points of a source, measured at several potentials.

    Parameters
    ----------
    target : Target
    points : array, shape (n, d)

    Attributes
    ----------
    x : array, shape (n, d)
        The points, in the order of their groups if there are any.
    """

    def __init__(self, target, points):
        self.target, self.points, self.x = target, points, points
        self.grouped, self.kept, self.rows = in_groups(target, points), None, block_rows(target, points)
        self.squared = None, None, None
        n_entries = points.shape[0] * target.weights.shape[0]
        self.has_room = n_entries <= LARGEST_KEPT and not self.grouped
        if self.grouped:
            self.rows = max(GROUP, -(-n_entries // LARGEST_BOUNDS))
            self._group(target.nx.to_numpy(points))

    def _group(self, x):
        """Put the points in groups, each in a small box."""
        nx, order = self.target.nx, ordered(x, self.rows)
        x, starts = x[order], np.arange(0, len(x), self.rows)
        low, high = np.minimum.reduceat(x, starts), np.maximum.reduceat(x, starts)
        self.x, self.center, self.half = (
            nx.from_numpy(v, type_as=self.x) for v in (x, (low + high) / 2.0, (high - low) / 2.0)
        )

    def measure(self, potential, reg):
        """Semi-dual value, summed in double precision, and marginal."""
        n = self.x.shape[0]
        total, colsum = self._sums("colsum", potential, reg)
        return self.target.precise_value(total / n, potential), colsum / n

    def squares(self, potential, reg):
        """``sum_i chi_ij^2``, remembered for the next call with the same potential."""
        at, level, found = self.squared
        if at is not potential or level != reg:
            found = self._sums("colsquare", potential, reg)[1]
            self.squared = potential, reg, found
        return found

    def transform(self, potential, reg):
        """c-transform of the points `x`."""
        found = sweeps(self.target, self._parts(potential, reg), potential, reg, ("c_transform",))
        return self.target.nx.concatenate([out.c_transform for _, out in found], axis=0)

    def weights(self, potential, reg, step=1, first=0):
        """Blocks of weights, of every `step`-th point after `first`, and the atoms of their columns."""
        # only for the regularisation that the points are measured at
        kept = self._kept(potential, reg, renew=True) if self.kept and self.kept.reg == reg else None
        if kept is not None:
            yield from ((block, ALL) for block in kept.blocks(step, first))
            return
        parts = self._parts(potential, reg, self.rows * step, step, first)
        for atoms, out in sweeps(self.target, parts, potential, reg, ("weights",)):
            chi = self.target.nx.to_numpy(out.weights) if self.grouped else out.weights
            yield dense_block(chi), atoms

    def forget(self):
        """Free the weights that are kept; from now on none are."""
        self.kept, self.has_room = None, False

    def _sums(self, name, potential, reg):
        """Sum of the c-transform, and that of the columns of the weights or of their squares."""
        kept = self._kept(potential, reg)
        if kept is not None:
            return kept.sums(name)
        nx = self.target.nx
        total, sums = 0.0, np.zeros(self.target.weights.shape[0])
        parts = self._parts(potential, reg)
        for atoms, out in sweeps(self.target, parts, potential, reg, ("c_transform", name)):
            total += np.sum(nx.to_numpy(out.c_transform), dtype=float)
            sums[atoms] += nx.to_numpy(getattr(out, name))
        return total, nx.from_numpy(sums, type_as=potential)

    def _kept(self, potential, reg, renew=False):
        """Weights at a potential that is near, if there are any, or there is room for them."""
        if not self.has_room or reg == 0:
            return None
        if self.kept is None or (renew and not self.kept.reaches(potential, reg)):
            self.kept = None  # freed before there are others
            self.kept = keep(self.target, self.x, potential, reg, self.rows)
        return self.kept if self.kept.reaches(potential, reg) else None

    def _parts(self, potential, reg, rows=None, step=1, first=0):
        """Every `step`-th point after `first` of each group, of so many rows, or of all, and atoms."""
        rows = self.rows if self.grouped else rows or self.x.shape[0]
        near = self._near(potential, reg) if self.grouped and reg > 0 else None
        for k, start in enumerate(range(0, self.x.shape[0], rows)):
            part = self.x[start + (first - start) % step : start + rows : step]
            if part.shape[0] > 0:
                yield part, ALL if near is None else np.flatnonzero(near[k])

    def _near(self, potential, reg):
        """Whether to take an atom, for each group; None if all are taken.

        The logarithm of ``chi_j / b_j`` is known in the middle of a group. It is a score less that of a
        sum of exponentials of all scores, which is convex: it falls no faster than their mean.
        """
        target, nx = self.target, self.target.nx
        mean = sweep(target, self.center, potential, reg, ("map",)).map
        scores = nx.to_numpy(potential - target.column + known_cross(target, self.center)).astype(float)
        top = scores.max(axis=1, keepdims=True)
        sums = np.exp((scores - top) / reg) @ nx.to_numpy(target.weights).astype(float)
        total = top + reg * np.log(sums)[:, None]
        rounding = 8.0 * np.finfo(f"f{nx.bitsize(potential) // 8}").eps * np.abs(scores).max()
        highest = scores - total + nx.to_numpy(target.cost.drift(self.half, target.atoms, mean, nx))
        near = ~(highest <= -DEPTH * reg - rounding)  # all of them if it is not a number
        return None if near.mean() > MOST else near


def measure(target, x, potential, reg):
    """Semi-dual value, summed in double precision, and marginal of the points `x`, once."""
    out = sweep(target, x, potential, reg, ("c_transform", "colsum"))
    mean = np.mean(target.nx.to_numpy(out.c_transform), dtype=float)
    return target.precise_value(mean, potential), out.colsum / x.shape[0]


def in_groups(target, x):
    """Whether it can pay to sweep groups of these points with a part of the atoms."""
    (n, d), n_atoms = x.shape, target.weights.shape[0]
    many = n > GROUP and n_atoms > LEAST_ATOMS and n * n_atoms >= LEAST_ENTRIES
    known = target.nx.__name__ in ("numpy", "torch") and target.cost.drift is not None
    return d <= LOW and many and known and on_host(x)


def ordered(x, rows):
    """Indices of points, in NumPy, with which any `rows` consecutive ones lie together.

    Halves of halves, each time across the longest side.
    """
    groups, found = [np.arange(len(x))], []
    columns = [np.ascontiguousarray(column) for column in x.T]  # much the faster ones to reduce
    while groups:
        group = groups.pop()
        if len(group) <= rows:
            found.append(group)
            continue
        part = [column[group] for column in columns]
        middle = max(round(len(group) / (2 * rows)), 1) * rows
        order = np.argpartition(part[np.argmax([np.ptp(column) for column in part])], middle)
        groups += [group[order[middle:]], group[order[:middle]]]
    return np.concatenate(found)


def plus(total, atoms, part):
    """The array `total`, shape (..., n_support), and `part` at these atoms: in place if not all."""
    if isinstance(atoms, slice):
        return total + part
    total[..., atoms] += part
    return total


def spread(x, n):
    """At most `n` of the points, evenly spaced: a sampler may return them in an order."""
    return x[:: stride(x.shape[0], n)]
