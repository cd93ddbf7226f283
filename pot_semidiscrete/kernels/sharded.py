"""Reductions over atoms of which each rank has a part: all-reduces of least scores and of sums.

All ranks have the same points, which are gathered first where each has others. Each has the outputs
``o_k`` for its own atoms and their c-transform ``c_k``. With the least of all, ``c_0``, and the sums of
``p_k = exp((c_0 - c_k) / reg)`` and of ``p_k o_k``, ``c = c_0 - reg log sum_k p_k`` and ``o = sum_k p_k
o_k / sum_k p_k``. At ``reg = 0`` the first of the atoms where c is reached has it all.
"""

from collections.abc import Callable

from ..backend import Array, joined, slices
from .base import SHARING
from .blocks import level_in_group
from .outputs import Task
from .tiles import Tiles, by_row


class ShardTiles(Tiles):
    """Blocks of points over the atoms of this rank, joined with those of all others.

    Outputs that have one number for each atom are those of this rank's at ``reg > 0``.
    """

    def __init__(self, task: Task, x: Array) -> None:
        self.shard = task.target.shard
        own = self.shard.columns
        values = None if task.values is None else task.values[own]
        super().__init__(Task(task.target.local, task.potential[own], task.reg, task.outputs, values), x)

    def most_rows(self, entries: int) -> int:
        """As many on all ranks: as fit where most atoms are."""
        fit = entries // self.shard.largest
        return fit if self.is_kept else max(fit, SHARING)

    @property
    def n_atoms(self) -> int:
        """Those of all ranks."""
        return self.shard.shape[0]

    def whole(self, found: dict[str, Array]) -> dict[str, Array]:
        """Outputs for all atoms, by two exchanges."""
        nx, ranks, columns = self.nx, self.shard.ranks, self.shard.columns
        transform = found.pop("c_transform")
        least = ranks.min(transform)
        if self.reg > 0:
            share = self.share(least, transform)
            total, *sums = ranks.sum(share, *(by_row(share, v) * v for v in found.values()))
            found = {name: v / by_row(total, v) for name, v in zip(found, sums, strict=True)}
            return {"c_transform": least - self.reg * nx.log(total)} | found
        index = found.pop("index") + columns.start
        first = ranks.min(nx.where(transform == least, index, self.n_atoms + 0 * index))
        if found:
            is_own = index == first
            parts = [nx.where(by_row(is_own, v), v, 0.0 * v) for v in found.values()]
            found = dict(zip(found, ranks.sum(*parts), strict=True))
        return {"c_transform": least, "index": first} | found


def draw_from_shards(tiles: ShardTiles, x: Array, level: Array, draw: Callable[..., Array]) -> Array:
    """Atom of each point where its distribution function reaches a level: its rank, then itself.

    `draw`, ``(x, level=level) -> array of int``, is of the atoms of this rank.
    """
    nx, shard, transforms = tiles.nx, tiles.shard, []
    ranks = shard.ranks
    for rows in slices(x.shape[0], tiles.rows):
        transforms.append(tiles.accumulate(x[rows])[0]["c_transform"])
    own = joined(transforms, nx)[:, None]
    place = nx.arange(ranks.size, type_as=own)[None, :] == ranks.rank
    (every,) = ranks.sum(place * own)
    which, part = level_in_group(tiles.share(nx.min(every, axis=1)[:, None], every), level, nx)
    mine = which == ranks.rank
    index = 0 * which
    if bool(mine.any()):
        index[mine] = shard.columns.start + draw(x[mine], level=part[mine])
    return ranks.sum(index)[0]
