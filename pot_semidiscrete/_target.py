"""The target measure as everything inside sees it: built once, at the door."""

import functools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ._validation import check_points, check_real, check_vector, check_weights, is_traced
from .costs import Cost, resolve_metric
from .envelope import full_precision
from .kernels import stride

FEW, EVERY = 512, 9  # atoms that stand for all, about, and one of so many at least ...
OTHERS = 64  # ... and how many are asked for how far off those are
LIGHTEST_ATOM = 0.3  # in units of 1 / n_atoms: the floor of the weights in a step


@dataclass(frozen=True, eq=False)
class Target:
    """A finite set of weighted atoms, compressed to its support and centred.

    Attributes
    ----------
    atoms : array, shape (n_support, d)
        Atoms of positive weight, less `center`.
    weights : array, shape (n_support,)
        Their weights ``b``, of sum 1.
    center : array, shape (d,) or None
        What was subtracted, if the cost is translation invariant: the expanded square
        ``|x|^2 - 2 <x, y> + |y|^2`` cancels badly in float32 far from the origin.
    support : array of int or None
        Indices of the atoms kept; None if all are.
    n_atoms : int
        Number of atoms the user gave.
    cost : Cost
    nx : ot.backend.Backend
    """

    atoms: Any
    weights: Any
    center: Any
    support: Any
    n_atoms: int
    cost: Cost
    nx: Any

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
        nx = self.nx
        # column k of the support is entry position[k]; the appended zero stands for all others
        position = np.full(self.n_atoms, v.shape[axis])
        position[nx.to_numpy(self.support)] = np.arange(v.shape[axis])
        zero = 0.0 * (v[:1] if axis == 0 else v[:, :1])
        padded = nx.concatenate([v, zero], axis=axis)
        index = nx.from_numpy(position)
        return padded[index] if axis == 0 else padded[:, index]

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


def build_target(X_target, a_target=None, metric=None):
    """Check the user's target and build the :class:`Target`."""
    X_target, nx = check_points("X_target", X_target)
    with full_precision(nx, X_target):
        return _build(X_target, nx, a_target, metric)


def _build(X_target, nx, a_target, metric):
    cost = resolve_metric(metric, nx)
    weights = check_weights(a_target, X_target, nx)
    atoms, support = X_target, None
    if not is_traced(weights):
        positive = nx.to_numpy(nx.detach(weights)) > 0
        if not positive.all():
            support = _index(np.flatnonzero(positive), X_target, nx)
            atoms, weights = atoms[support], weights[support]
    center = None
    if cost.translation_invariant:
        # any constant will do: the cost does not see it, so it stays out of the graph
        center = nx.detach(nx.dot(weights, atoms))
        atoms = atoms - center
    return Target(atoms, weights, center, support, X_target.shape[0], cost, nx)


def fingerprint(target):
    """One number for each atom and one for the centre, by which a file knows its target."""
    atoms = target.nx.to_numpy(target.nx.detach(target.atoms)).astype(float)
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
    """Check a regularisation that costs can be divided by in the dtype of the target."""
    reg = check_real("reg", reg)
    least = 1e-19 if target.nx.bitsize(target.atoms) == 32 else 1e-150
    if 0 < reg < least:
        raise ValueError(
            f"reg: expected 0, or at least {least:g} for costs of this dtype, received {reg:g}; use 0, "
            "or rescale the data."
        )
    return reg


def check_potential(name, potential, target):
    """Check a user's potential and compress it to the support."""
    return target.compress(check_vector(name, potential, target.template, target.nx))


def check_init_potential(potential, target):
    """Check a potential to start from, None included, and cut it from any graph."""
    if potential is None:
        return None
    return target.nx.detach(check_potential("init_potential", potential, target))


def _index(index, X_target, nx):
    """A host index on the device of `X_target`."""
    if nx.__name__ != "torch":
        return nx.from_numpy(index)
    return nx.from_numpy(index).to(X_target.device)
