"""Atoms of which each process has a part."""

import numbers
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NoReturn, Self

import numpy as np
from ot.backend import get_backend

from ..backend import Array, capabilities, describe, joint, ours, ranks_of
from .stored import LazyAtoms, rows_of
from .validation import check_points


class ShardedAtoms:
    """Data of which each process of a group has its own rows, given as `X_target`.

    For atoms that do not fit on one device: each process keeps its own. All make the same calls, each
    with its own rows. Vectors of one number per atom are whole on all processes; the atoms are those of
    the first rank, then those of the second, and so on. See :doc:`/distributed`.

    ``atoms[index]`` has the rows of some atoms, by their numbers: all processes ask together, each for
    those that it wants, and only these are exchanged.

    Parameters
    ----------
    rows : tensor, shape (n_rows, d)
        Rows of this rank, float32 or float64; any number of them.
    process_group : torch.distributed.ProcessGroup
        Processes that hold the rows. All must construct the object at the same time.

    Attributes
    ----------
    shape : tuple of int
        Numbers of atoms, of all ranks, and of coordinates.
    dtype : dtype

    Raises
    ------
    TypeError, ValueError
        If there are no such rows, no such group, or other ranks have rows of another dtype or dimension.

    Examples
    --------
    On each rank::

        atoms = ShardedAtoms(rows, torch.distributed.group.WORLD)
        result = solve_semidiscrete(atoms, "normal", reg=0.1, random_state=0)
    """

    @ours()
    def __init__(self, rows: Array, process_group: Any) -> None:
        if process_group is None:
            raise TypeError(
                "process_group: expected a group of torch.distributed, received None; give that of the "
                "processes that have the rows, torch.distributed.group.WORLD, say."
            )
        self._ranks = ranks_of(process_group, rows)
        with joint(self._ranks):
            rows, nx = check_points("rows", rows)
            self._ranks.check_same(dtype=rows.dtype, dimension=rows.shape[1])
            counts = [count for count, _ in self._ranks.handshake("arguments", rows.shape[0])]
        self._rows = nx.detach(rows)
        self._bounds = np.cumsum([0, *counts])

    def __len__(self) -> int:
        return self.shape[0]

    @ours()
    def __getitem__(self, index: int | slice | Array) -> Array:
        """Some of all atoms, for each rank those of the numbers that it gives."""
        with joint(self._ranks):
            every, own = self._ranks.concatenate(self._numbers(index))
            rows = TargetShard.of(self)[every][own]
        return rows[0] if isinstance(index, numbers.Integral) else rows

    def _numbers(self, index: int | slice | Array) -> Array:
        """Numbers of atoms, checked, as an array."""
        rows = rows_of(index, len(self))
        host = np.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows
        return capabilities(get_backend(self._rows)).index(host, self._rows)

    def __repr__(self) -> str:
        (n, d), dtype = self.shape, str(self.dtype).rsplit(".", 1)[-1]
        return f"ShardedAtoms({len(self._rows)} of {n} atoms of {d} coordinates, {dtype})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "ShardedAtoms: expected to stay in this process, whose group no copy has; keep a result by "
            "result.save, on all ranks, and load it with ShardedAtoms made again."
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of atoms, of all ranks, and of coordinates."""
        return int(self._bounds[-1]), self._rows.shape[1]

    @property
    def dtype(self) -> Any:
        """That of the rows."""
        return self._rows.dtype


class TargetShard(ShardedAtoms, LazyAtoms):
    """Sharded atoms of a target: ``rows`` are those of this rank, ``columns`` which of all they are."""

    def __init__(self, ranks: Any, rows: Array, bounds: np.ndarray) -> None:
        self.ranks, self.rows, self._bounds = ranks, rows, bounds
        self._ranks, self._rows, sizes = ranks, rows, np.diff(bounds)
        self.columns = slice(*(int(bound) for bound in bounds[ranks.rank : ranks.rank + 2]))
        self.largest = int(sizes.max())  # atoms of the rank that has most
        if sizes.min() == 0:
            raise ValueError(
                "X_target: expected on each rank an atom of positive weight that is not one of a rank "
                f"before, received none on rank {int(sizes.argmin())}; deal the rows out in another way."
            )

    @classmethod
    def of(cls, atoms: ShardedAtoms) -> "TargetShard":
        """Those of a user."""
        return cls(atoms._ranks, atoms._rows, atoms._bounds)

    def __getitem__(self, which: slice | Array) -> Array:
        """A few of all atoms, on all ranks, which ask for the same ones."""
        nx, able = get_backend(self.rows), capabilities(get_backend(self.rows))
        chosen = which if isinstance(which, (slice, np.ndarray)) else nx.to_numpy(which)
        if isinstance(chosen, slice):
            chosen = np.arange(*chosen.indices(self.shape[0]))
        start, stop = self.columns.start, self.columns.stop
        here = np.flatnonzero((chosen >= start) & (chosen < stop))
        found = nx.zeros((len(chosen), self.shape[1]), type_as=self.rows)
        found[able.index(here, self.rows)] = self.rows[able.index(chosen[here] - start, self.rows)]
        return self.ranks.sum(found)[0]

    @property
    def like(self) -> Array:
        """Array of the kind of the atoms, and as many columns."""
        return self.rows[:1]

    def whole(self, *parts: Array, axis: int = 0) -> list[Array]:
        """Arrays with one entry for each atom in an axis, from those of the atoms of each rank."""
        nx, arrays = get_backend(self.rows), []
        for part in parts:
            shape = list(part.shape)
            shape[axis] = self.shape[0]
            array = nx.zeros(tuple(shape), type_as=part)
            array[(slice(None),) * (axis % part.ndim) + (self.columns,)] = part
            arrays.append(array)
        return self.ranks.sum(*arrays)

    def chosen(self, index: np.ndarray) -> Self:
        bounds = np.searchsorted(index, self._bounds)
        own = index[bounds[self.ranks.rank] : bounds[self.ranks.rank + 1]] - self.columns.start
        able = capabilities(get_backend(self.rows))
        return type(self)(self.ranks, self.rows[able.index(own, self.rows)], bounds)

    def centred(self, origin: Array) -> Self:
        return self.map(lambda rows: rows - origin)

    def map(self, function: Callable[[Array], Array]) -> Self:
        return type(self)(self.ranks, function(self.rows), self._bounds)


def together(target: Any) -> AbstractContextManager:
    """Context of what all ranks do, if the atoms of a target are sharded."""
    return joint(None if target.shard is None else target.shard.ranks)


def resolve_shards(X_target: Any, process_group: Any = None) -> tuple[Any, Any]:
    """Atoms as they are checked further, and the ranks that work at them, or None."""
    if not isinstance(X_target, ShardedAtoms):
        return X_target, ranks_of(process_group, getattr(X_target, "like", X_target))
    atoms = TargetShard.of(X_target)
    if process_group is not None and process_group is not atoms.ranks.group:
        raise ValueError(
            f"process_group: expected that of X_target, or none, received {describe(process_group)}; "
            "leave it out."
        )
    return atoms, atoms.ranks
