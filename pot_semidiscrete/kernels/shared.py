"""Parts of a reduction that several processes do: rows to each, and sums of all."""

from typing import Any

from ..backend import Array
from .base import Atoms


def ranks_at(target: Atoms) -> Any:
    """The ranks that work at a target together; None if there is one process."""
    return getattr(target, "ranks", None)


def row_ranks(target: Atoms) -> Any:
    """Those ranks, if each works at a part of the rows, and all have all atoms."""
    return ranks_at(target) if target.shard is None else None


def local_rows(target: Atoms, rows: Array) -> Array:
    """Those of the rows, which all ranks have, that are this rank's to work at: all of one process."""
    ranks = row_ranks(target)
    return rows if ranks is None else rows[ranks.part(rows.shape[0])]


def points_of_all(target: Atoms, x: Array) -> tuple[Array, slice]:
    """Points at which ranks work that have parts of the atoms, and which of them are this rank's.

    A target that is shared is asked by all ranks for the same points. One that is not is asked by each
    for its own, and all of these are gathered.
    """
    return (x, slice(None)) if ranks_at(target) is not None else target.shard.ranks.concatenate(x)


def all_sums(target: Atoms, *sums: Array) -> list[Array]:
    """Sums over the rows of all ranks, from those over the rows of each, in one exchange."""
    ranks = row_ranks(target)
    return list(sums) if ranks is None else ranks.sum(*sums)
