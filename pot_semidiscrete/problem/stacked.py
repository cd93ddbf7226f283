"""Several targets of one source, whose problems are solved at once."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from ..backend import Array, capabilities, joined
from .target import Target


@dataclass(frozen=True, eq=False)
class StackedTarget(Target):
    """The atoms of K targets, one after the other: the mean of their semi-duals is to be maximised.

    It is concave, and separate in the potentials ``psi^k``. With ``b = b^k / K`` and ``chi = chi^k / K``
    it has the gradient ``b - E chi``, and ``chi2`` and ``n_eff`` are means over the problems.
    """

    sizes: tuple[int, ...] = ()  # atoms of each target

    @classmethod
    def of(cls, targets: Sequence[Target]) -> "StackedTarget":
        """Stack targets of one cost and origin, with atoms in memory."""
        first, nx = targets[0], targets[0].nx
        given = {field.name: getattr(first, field.name) for field in fields(Target)}
        sizes = tuple(target.weights.shape[0] for target in targets)
        given |= {"support": None, "n_atoms": sum(sizes), "place": None, "copies": None, "digest": ""}
        given["atoms"] = joined([target.atoms for target in targets], nx)
        given["weights"] = joined([target.weights for target in targets], nx) / float(len(targets))
        return cls(**given, sizes=sizes)

    @property
    def n_problems(self) -> int:
        return len(self.sizes)

    @property
    def columns(self) -> list[slice]:
        """Atoms of each target."""
        ends = [0, *itertools.accumulate(self.sizes)]
        return [slice(*ends) for ends in itertools.pairwise(ends)]

    @property
    def width(self) -> int:
        """Atoms of the largest target, to which the others are filled up."""
        return max(self.sizes)

    @functools.cached_property
    def is_own(self) -> np.ndarray:
        """Which places of the targets, filled up to the largest, have atoms; (n_problems, width)."""
        return np.arange(self.width) < np.array(self.sizes)[:, None]

    @functools.cached_property
    def kept(self) -> Array:
        """The places that do."""
        return capabilities(self.nx).index(np.flatnonzero(self.is_own), self.weights)

    @functools.cached_property
    def place_of(self) -> Array:
        """Atom at each place, the first of its target at those that have none."""
        starts = np.array([columns.start for columns in self.columns])[:, None]
        atom = starts + np.where(self.is_own, np.arange(self.width), 0)
        return capabilities(self.nx).index(atom.reshape(-1), self.weights)

    @functools.cached_property
    def floor(self) -> Array:
        """0 at places that have atoms, minus infinity at others: to be added to potentials."""
        floor = np.where(self.is_own, 0.0, -np.inf).reshape(-1)
        return self.nx.from_numpy(floor, type_as=self.weights)

    @functools.cached_property
    def filled(self) -> Target:
        """The targets filled up; the weights of each have the sum 1."""
        atoms = self.atoms if self.is_own.all() else self.atoms[self.place_of]
        weights = float(self.n_problems) * self.weights[self.place_of]
        return Target(atoms, weights, None, None, len(self.place_of), self.cost)
