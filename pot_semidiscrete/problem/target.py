"""The target measure as everything inside sees it: built once, at the door."""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
from ot.backend import get_backend

from ..backend import Array, Backend, brief, eager, is_foreign, joined, rounding_unit, stride
from ..costs import Cost
from ..kernels import Kernel, check_at, kernel_for
from .marginal import Marginal
from .places import Copies
from .sharded import TargetShard
from .stored import LazyAtoms, TargetAtoms
from .support import Support

Thing = TypeVar("Thing")
LANDMARKS, LEAST_STRIDE = 512, 9  # atoms that stand for all, about, and one of so many at least


def _known(method: Callable[["Target"], Thing]) -> functools.cached_property[Thing]:
    """A cached property, made at once: what is kept must not belong to a function that is traced."""

    @functools.wraps(method)
    def made(self: "Target") -> Thing:
        with eager(self.nx):
            return method(self)

    return functools.cached_property(made)


@dataclass(frozen=True, eq=False)
class Target(Support, Marginal):
    """A finite set of weighted atoms, gathered to its support and centred.

    Attributes
    ----------
    atoms : array, shape (n_support, d)
        Atoms of positive weight, less `origin`; those at one place, or as good as, are one. Those not in
        memory are :class:`StoredAtoms`.
    weights : array, shape (n_support,)
        Their weights ``b``, of sum 1.
    origin : array, shape (d,) or None
        What was subtracted, if the cost is translation invariant: the expanded square
        ``|x|^2 - 2 <x, y> + |y|^2`` cancels badly in float32 far from the origin.
    support : array of int or None
        Indices of the atoms kept, the first of those at a place; None if all are.
    n_atoms : int
        Number of atoms the user gave.
    cost : Cost
    place : ndarray of int, shape (n_atoms,), or None
        Entry of `atoms` of each atom that the user gave, ``n_support`` if its weight is 0.
    copies : Copies or None
        Atoms at one place; None if there are none.
    digest : str
        Of the atoms that the user gave.
    reg_m : float
        What masses cost that are not the weights: see :class:`Marginal`.
    """

    atoms: Array
    weights: Array
    origin: Array | None
    support: Array | None
    n_atoms: int
    cost: Cost
    place: np.ndarray | None = None
    copies: Copies | None = None
    digest: str = ""
    reg_m: float = math.inf

    __repr__ = brief

    def __getstate__(self) -> dict[str, Any]:
        """What is not found again from the arrays: backend and kernel are."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @functools.cached_property
    def nx(self) -> Backend:
        """Backend of POT."""
        return get_backend(self.weights)

    @_known
    def kernel(self) -> type[Kernel]:
        """What makes blocks of assignment weights, outside any graph."""
        kernel = kernel_for(self.nx).suited(self)
        if is_foreign(kernel):
            few = self.detached.subset(slice(0, 4))
            check_at(kernel, few, float(self.nx.max(self.nx.abs(few.cost_matrix(few.atoms)))) or 1.0)
        return kernel

    @_known
    def log_weights(self) -> Array:
        """``log b``."""
        return self.nx.log(self.weights)

    @_known
    def target_term(self) -> Array:
        """Term of the cost that depends on the atom only."""
        return self.in_parts(lambda atoms: self.cost.target_term(atoms, self.nx))

    @property
    def landmark_stride(self) -> int:
        """Every so-many-th atom is taken, where a few are to stand for all."""
        return max(LEAST_STRIDE, stride(self.weights.shape[0], LANDMARKS))

    @_known
    def landmark_radius(self) -> float:
        """Largest cost from some of the other atoms to the nearest landmark."""
        every, nx = self.landmark_stride, self.nx
        landmarks = self.subset(slice(None, None, every))
        others = self.atoms[every // 2 :: 8 * every]
        return float(nx.max(nx.min(landmarks.cost_matrix(others), axis=1)))

    @property
    def is_stored(self) -> bool:
        """Whether atoms are not in the memory of the computation, and read as they are needed."""
        return isinstance(self.atoms, LazyAtoms)

    @property
    def shard(self) -> TargetShard | None:
        """The atoms, if each of several ranks has a part of them."""
        return self.atoms if isinstance(self.atoms, TargetShard) else None

    @_known
    def local(self) -> "Target":
        """The target of the atoms of this rank, whose weights are left as they are."""
        if self.shard is None:
            return self
        columns = self.shard.columns
        local = replace(self, atoms=self.shard.rows, weights=self.weights[columns])
        log_weights, target_term = self.log_weights[columns], self.target_term[columns]
        vars(local).update(kernel=self.kernel, log_weights=log_weights, target_term=target_term)
        return local

    @property
    def n_problems(self) -> int:
        """Problems whose atoms they are: see :class:`StackedTarget`."""
        return 1

    @property
    def like(self) -> Array:
        """Array of the kind of the atoms, and as many columns."""
        return self.atoms.like if self.is_stored else self.atoms

    def parts(self) -> Iterator[tuple[slice, "Target"]]:
        """Atoms that are in memory at once: all, unless they are stored; of this rank."""
        if isinstance(self.atoms, TargetAtoms):
            yield from ((part, self.subset(part)) for part in self.atoms.parts())
        elif self.shard is not None:
            columns = self.shard.columns
            yield columns, replace(self, atoms=self.shard.rows, weights=self.weights[columns])
        else:
            yield slice(None), self

    def in_parts(self, function: Callable[[Array], Array], axis: int = 0) -> Array:
        """A function of atoms, joined for all."""
        found = joined([function(target.atoms) for _, target in self.parts()], self.nx, axis)
        return found if self.shard is None else self.shard.whole(found, axis=axis)[0]

    def total(self, function: Callable[[slice, "Target"], Array]) -> Array:
        """A sum over atoms, from those of its :meth:`parts`."""
        found = sum(function(*part) for part in self.parts())
        return found if self.shard is None else self.shard.ranks.sum(found)[0]

    @property
    def mean(self) -> Array:
        """Weighted mean of the atoms."""
        return self.total(lambda _, part: self.nx.dot(part.weights, part.atoms))

    @property
    def unit(self) -> float:
        """Rounding unit of the dtype."""
        return rounding_unit(self.weights, self.nx)

    @_known
    def detached(self) -> "Target":
        """The same target, cut from any autograd graph."""
        return self.map(self.nx.detach)

    def copy(self) -> "Target":
        """The same target, which shares no memory with the user's arrays."""
        if self.support is not None:
            return self
        atoms = self.atoms
        if self.origin is None and not isinstance(atoms, TargetAtoms):
            atoms = self.nx.copy(atoms) if self.shard is None else atoms.map(self.nx.copy)
        return replace(self, atoms=atoms, weights=self.nx.copy(self.weights))

    def moved(self, origin: Array) -> "Target":
        """The same target, about another origin."""
        return replace(self, atoms=self.atoms + (self.origin - origin), origin=origin)

    def subset(self, atoms: Array | slice) -> "Target":
        """The target with some of its atoms, whose weights are left as they are."""
        return replace(self, atoms=self.atoms[atoms], weights=self.weights[atoms])

    def tile(self, columns: slice) -> "Target":
        """Some neighbouring atoms, with what is known of them."""
        tile = self.subset(columns)
        vars(tile).update(log_weights=self.log_weights[columns], target_term=self.target_term[columns])
        return tile

    def map(self, function: Callable[[Array], Array]) -> "Target":
        """Apply `function` to every array (a move to another device, say)."""
        maybe = lambda array: None if array is None else function(array)
        return replace(
            self,
            atoms=self.atoms.map(function) if self.is_stored else function(self.atoms),
            weights=function(self.weights),
            origin=maybe(self.origin),
            support=maybe(self.support),
        )

    def center(self, x: Array) -> Array:
        """Source points in the coordinates of `atoms`."""
        return x if self.origin is None else x - self.origin

    def cost_matrix(self, x: Array) -> Array:
        """Cost of each atom from each of a few points, ``(n, n_support)``."""
        terms = self.cost.source_term(x, self.nx)[:, None] + self.target_term
        return terms - self.bilinear(x)

    def bilinear(self, x: Array) -> Array:
        """What is left of the terms of points and atoms, ``(n, n_support)``."""
        return self.in_parts(lambda atoms: self.cost.bilinear(x, atoms, 1.0, self.nx), axis=1)
