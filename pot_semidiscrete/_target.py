"""The target measure as everything inside sees it: built once, at the door."""

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ._validation import check_points, check_real, check_vector, check_weights, is_traced
from .costs import Cost, resolve_metric
from .envelope import full_precision, no_grad
from .kernels import stride

FEW, EVERY = 512, 9  # atoms that stand for all, about, and one of so many at least ...
OTHERS = 64  # ... and how many are asked for how far off those, or each other, are
HASHED = 1024  # points at once, so that their hashes are made in the cache
LIGHTEST_ATOM = 0.3  # in units of 1 / n_atoms: the floor of the weights in a step


@dataclass(frozen=True, eq=False)
class Target:
    """A finite set of weighted atoms, compressed to its support and centred.

    Attributes
    ----------
    atoms : array, shape (n_support, d)
        Atoms of positive weight, less `center`; those at one place are one (:attr:`distinct`).
    weights : array, shape (n_support,)
        Their weights ``b``, of sum 1.
    center : array, shape (d,) or None
        What was subtracted, if the cost is translation invariant: the expanded square
        ``|x|^2 - 2 <x, y> + |y|^2`` cancels badly in float32 far from the origin.
    support : array of int or None
        Indices of the atoms kept, the first of those at a place; None if all are.
    n_atoms : int
        Number of atoms the user gave.
    cost : Cost
    nx : ot.backend.Backend
    place : ndarray of int, shape (n_atoms,), or None
        Entry of `atoms` of each atom that the user gave, ``n_support`` if its weight is 0.
    share : ndarray, shape (n_atoms,), or None
        Share of each of them in the weight of that entry; None if no atoms were merged.
    """

    atoms: Any
    weights: Any
    center: Any
    support: Any
    n_atoms: int
    cost: Cost
    nx: Any
    place: Any = None
    share: Any = None

    @functools.cached_property
    def log_weights(self):
        return self.nx.log(self.weights)

    @functools.cached_property
    def inverse_weights(self):
        """Those of light atoms as if they were heavier: what a step is in proportion to."""
        floor = LIGHTEST_ATOM / self.weights.shape[0]
        return 1.0 / self.nx.maximum(self.weights, floor + 0.0 * self.weights)

    @functools.cached_property
    def column(self):
        """The part of the cost that depends on the atom only."""
        with full_precision(self.nx, self.atoms):
            return self.cost.column(self.atoms, self.nx)

    @property
    def every(self):
        """Every so-many-th atom is taken, where a few are to stand for all."""
        return max(EVERY, stride(self.weights.shape[0], FEW))

    @functools.cached_property
    def farthest_from_few(self):
        """Largest cost from some of the other atoms to the nearest of those few."""
        every, nx = self.every, self.nx
        few = self.part(slice(None, None, every))
        others = self.atoms[every // 2 :: FEW // OTHERS * every]
        return float(nx.max(nx.min(few.cost_matrix(others), axis=1)))

    @functools.cached_property
    def rounding(self):
        """Of a cost: that of the median between some of the atoms, which outliers do not move."""
        nx, some = self.nx, self.detached.part(slice(None, None, stride(self.weights.shape[0], OTHERS)))
        with no_grad(nx):
            costs = some.cost_matrix(some.atoms)
        return 0.0 if is_traced(costs) else rounding_unit(self) * np.median(np.abs(nx.to_numpy(costs)))

    @functools.cached_property
    def detached(self):
        """The same target, cut from any autograd graph."""
        return self.map(self.nx.detach)

    @property
    def own(self):
        """The same target, which shares no memory with the user's arrays."""
        if self.support is not None:
            return self
        atoms = self.nx.copy(self.atoms) if self.center is None else self.atoms
        return replace(self, atoms=atoms, weights=self.nx.copy(self.weights))

    def part(self, atoms):
        """The target with some of its atoms, whose weights are left as they are."""
        return replace(self, atoms=self.atoms[atoms], weights=self.weights[atoms])

    def map(self, function):
        """Apply `function` to every array (a move to another device, say)."""
        arrays = {
            name: None if getattr(self, name) is None else function(getattr(self, name))
            for name in ("atoms", "weights", "center", "support")
        }
        return replace(self, **arrays)

    @property
    def template(self):
        """Something of the shape (in its first axis), dtype and device that the user gave."""
        if self.support is None:
            return self.atoms
        return self.expand(self.weights)[:, None]

    def local(self, x):
        """Source points in the coordinates of `atoms`."""
        return x if self.center is None else x - self.center

    def compress(self, v):
        """Entries of a user's vector at the support."""
        return v if self.support is None else v[self.support]

    def expand(self, v, axis=0):
        """A vector (or the columns of a matrix) over all atoms, 0 where the weight is 0."""
        if self.support is None:
            return v
        nx, index = self.nx, self.nx.from_numpy(self.place)
        zero = 0.0 * (v[:1] if axis == 0 else v[:, :1])  # stands for all atoms of weight 0
        padded = nx.concatenate([v, zero], axis=axis)
        return padded[index] if axis == 0 else padded[:, index]

    @property
    def distinct(self):
        """The same measure, atoms at one place being one, whose weight is the sum of theirs."""
        if is_traced(self.atoms):
            return self
        nx, (first, place) = self.nx, _places(self.nx.to_numpy(self.atoms))
        if len(first) == len(place):
            return self
        weights, where = nx.to_numpy(self.weights).astype(float), _index(first, self.atoms, nx)
        total, user = np.bincount(place, weights), np.arange(self.n_atoms)
        user = user if self.place is None else self.place
        return replace(
            self,
            atoms=self.atoms[where],
            weights=nx.from_numpy(total, type_as=self.weights),
            support=where if self.support is None else self.support[where],
            place=np.append(place, len(first))[user],
            share=np.append(weights / total[place], 0.0)[user],
        )

    def share_out(self, masses, axis=0):
        """Masses of all atoms: of those at one place, in proportion to their weights."""
        masses = self.expand(masses, axis)
        return masses if self.share is None else masses * self.nx.from_numpy(self.share, type_as=masses)

    def collect(self, masses):
        """Masses at the support, from those of all atoms."""
        if self.share is None:
            return self.compress(masses)
        total = np.bincount(self.place, self.nx.to_numpy(masses), self.atoms.shape[0] + 1)[:-1]
        return self.nx.from_numpy(total, type_as=masses)

    def merge(self, potential, reg):
        r"""Potential at the support whose c-transform is that of a user's potential.

        It is :math:`\lambda \log \sum_k (b_k / b) \exp(\psi_k / \lambda)` over the atoms at a place, b
        the weight of all of them, or the largest of theirs at ``reg = 0``; mostly they are the same.
        """
        if self.share is None:
            return self.compress(potential)
        place, psi = self.place, self.nx.to_numpy(potential).astype(float)
        top = np.full(self.atoms.shape[0] + 1, -np.inf)
        np.maximum.at(top, place, psi)
        if reg > 0:
            sums = np.bincount(place, self.share * np.exp((psi - top[place]) / reg), len(top))
            top[:-1] += reg * np.log(sums[:-1])
        return self.nx.from_numpy(top[:-1], type_as=potential)

    def rows(self, index, random):
        """Rows of the user's atoms; of those at one place, one is drawn in proportion to its weight."""
        if self.share is None:
            return index if self.support is None else self.support[index]
        host, order = self.nx.to_numpy, np.argsort(self.place, kind="stable")
        place, edges = self.place[order], np.append(0.0, np.cumsum(self.share[order]))
        start, end = (np.searchsorted(place, host(index), side) for side in ("left", "right"))
        level = edges[start] + host(random.uniform(len(start), 1))[:, 0] * (edges[end] - edges[start])
        row = np.clip(np.searchsorted(edges, level, "right") - 1, start, end - 1)
        return _index(order[row], self.atoms, self.nx)

    def centred(self, potential):
        """The potential of the class ``psi + const`` with ``<b, psi> = 0``."""
        return potential - self.nx.sum(self.weights * potential)

    def cost_matrix(self, x):
        """Cost of each atom from each of a few points, ``(n, n_support)``."""
        nx = self.nx
        with full_precision(nx, x):
            cross = self.cost.cross(x, self.atoms, 1.0, nx, lambda u, v: nx.dot(u, v.T))
            return self.cost.row(x, nx)[:, None] + self.column - cross

    def dual_value(self, transform, potential):
        """Semi-dual value ``mean(psi^c) + <b, psi>`` of points with that c-transform."""
        return self.nx.mean(transform) + self.nx.sum(self.weights * potential)

    def precise_value(self, mean, potential):
        """The same from the mean of the c-transform, a float, summed in double precision."""
        return float(mean + np.sum(self.nx.to_numpy(self.weights * potential), dtype=float))


def build_target(X_target, a_target=None, metric=None, *, merge=True):
    """Check the user's target and build the :class:`Target`.

    Atoms at one place are merged, for solvers: at ``reg = 0`` they would tie at each point, and one of
    them get all of their mass. With ``merge=False`` they are left as they are, and the target in the
    graph of the user's arrays: what is asked for at a given potential is right for copies, too.
    """
    X_target, nx = check_points("X_target", X_target)
    with full_precision(nx, X_target):
        target = _build(X_target, nx, a_target, metric)
        return target.detached.distinct if merge else target


def _build(X_target, nx, a_target, metric):
    cost = resolve_metric(metric, nx)
    weights = check_weights(a_target, X_target, nx)
    atoms, support, place = X_target, None, None
    if not is_traced(weights):
        positive = nx.to_numpy(nx.detach(weights)) > 0
        if not positive.all():
            support = _index(np.flatnonzero(positive), X_target, nx)
            place = np.where(positive, np.cumsum(positive) - 1, positive.sum())
            atoms, weights = atoms[support], weights[support]
    center = None
    if cost.translation_invariant:
        # any constant will do: the cost does not see it, so it stays out of the graph
        center = nx.detach(nx.dot(weights, atoms))
        atoms = atoms - center
    return Target(atoms, weights, center, support, X_target.shape[0], cost, nx, place)


def _places(points):
    """Index of the first of the points at each place, and the place of each point."""
    points = np.ascontiguousarray(points + 0.0)  # -0 becomes 0
    words = points.view(np.uint16)
    key = 2 * np.random.default_rng(0).integers(2**63, size=words.shape[1], dtype=np.uint64) + 1
    starts = range(0, len(points), HASHED)
    hashes = np.concatenate([words[k : k + HASHED].astype(np.uint64) @ key for k in starts])
    _, first, place = np.unique(hashes, return_index=True, return_inverse=True)
    if (points[first[place]] != points).any():  # numbers are sorted ten times as fast as points
        _, first, place = np.unique(points, axis=0, return_index=True, return_inverse=True)
        place = place.ravel()  # NumPy 2.0 gives it two axes
    order = np.argsort(first)
    return first[order], np.argsort(order)[place]


def fingerprint(target):
    """A number for each atom of positive weight and one for the centre: so a file knows its target."""
    atoms = target.nx.to_numpy(target.nx.detach(target.atoms)).astype(float)
    if target.share is not None:  # as if they had not been merged
        atoms = atoms[target.place[target.share > 0]]
    center = 0.0 if target.center is None else target.nx.to_numpy(target.center).astype(float)
    points = np.vstack([atoms, np.zeros(atoms.shape[1]) + center])
    return points @ np.cos(1.0 + np.arange(atoms.shape[1]))


def same_fingerprint(expected, received):
    """Tell whether two fingerprints are of the same atoms, up to dtype and rounding."""
    if expected.shape != received.shape:
        return False
    tolerance = 1e-3 * np.abs(expected[:-1]).max() + 1e-5 * np.abs(expected)
    return bool((np.abs(expected - received) <= tolerance).all())


def check_reg(reg, target):
    """Check a regularisation that costs can be divided by, and take 0 for what is as good as 0.

    That is what is below the rounding of a cost (:attr:`Target.rounding`): the dtype does not have the
    differences that it would tell apart. Results have the `reg` that was used.
    """
    reg = check_real("reg", reg)
    if 0 < reg < target.rounding:
        return 0.0
    least = 1e-19 if target.nx.bitsize(target.atoms) == 32 else 1e-150
    if 0 < reg < least:
        raise ValueError(
            f"reg: expected 0, or at least {least:g} for costs of this dtype, received {reg:g}; use 0, "
            "or rescale the data."
        )
    return reg


def check_potential(name, potential, target, reg=0.0):
    """Check a user's potential and compress it to the support."""
    return target.merge(check_vector(name, potential, target.template, target.nx), reg)


def check_init_potential(potential, target, reg=0.0):
    """Check a potential to start from, None included, and cut it from any graph."""
    if potential is None:
        return None
    return target.nx.detach(check_potential("init_potential", potential, target, reg))


def rounding_unit(target):
    """Of the dtype of the target."""
    return float(np.finfo("float32" if target.nx.bitsize(target.atoms) == 32 else "float64").eps)


def _index(index, X_target, nx):
    """A host index on the device of `X_target`."""
    if nx.__name__ != "torch":
        return nx.from_numpy(index)
    return nx.from_numpy(index).to(X_target.device)
