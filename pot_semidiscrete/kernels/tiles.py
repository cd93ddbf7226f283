"""Blocks of a few atoms at a time, joined by an online log-sum-exp.

Where a block of all atoms has too few rows, or they are not in memory. Each tile of atoms gives the
weights within it and their c-transform ``c_k``. With that of all, ``c = -reg log sum_k exp(-c_k/reg)``,
the share of a tile is ``exp((c - c_k) / reg)`` (Milakov and Gimelshein, 2018); at ``reg = 0`` the least
of all has it.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from ..backend import Array, equal_rows, joined, on_host, slices
from .base import BLOCK_BYTES, DEVICE_ENTRIES, SHARING, Atoms, row_bytes, sharing_rows
from .blocks import inverse_cdf, level_in_group
from .outputs import OF_COLUMNS, OUTPUTS, Task


def is_tiled(target: Atoms, x: Array) -> bool:
    """Whether a block of all atoms has too few rows for their reading to be cheap."""
    is_large = sharing_rows(x) * row_bytes(target) > BLOCK_BYTES
    return target.is_stored or (on_host(x) and is_large)


class Tiles:
    """Blocks of so many `rows` of the points over all atoms, those of a tile, `columns`, at a time."""

    def __init__(self, task: Task, x: Array) -> None:
        target, outputs, reg = task.target, task.outputs, task.reg
        self.target, self.potential, self.reg = target, task.potential, reg
        self.outputs, self.values, self.nx = outputs, task.values, target.nx
        self.column_names = [name for name in outputs if name in OF_COLUMNS]
        first = ["c_transform"] if reg > 0 else ["c_transform", "index"]
        self.row_names = [*first, *(name for name in outputs if name not in OF_COLUMNS | {*first})]
        # the share of a tile is known once all are: until then, sums over points need its weights
        self.is_kept = bool(self.column_names) and reg > 0
        self.memory: Array = None
        n_atoms, entry = target.weights.shape[0], self.nx.bitsize(x) // 8
        most, cached = BLOCK_BYTES // entry, target.kernel.cache() // entry
        if not on_host(x):
            most = cached = DEVICE_ENTRIES
        self.rows = equal_rows(x.shape[0], self.most_rows(most))
        width = max(2 * cached // self.rows, SHARING)
        if target.is_stored:
            width = min(width, next(target.atoms.parts()).stop)
        self.columns = list(slices(n_atoms, width))

    def most_rows(self, entries: int) -> int:
        """Points of a block, at most, whose tiles together have at most so many entries if kept."""
        return entries // len(self.potential) if self.is_kept else SHARING

    def __call__(self, x: Array, bilinear: Array | None = None, *_: None) -> tuple:
        """Outputs for a block of points."""
        found, kept = self.accumulate(x, bilinear)
        found = self.whole(found)
        whole = found["c_transform"]
        if self.reg > 0:
            kept = [block.scaled(self.share(whole, block.c_transform)) for block in kept]
        elif self.column_names:
            kept = [replace(kept[-1], index=found["index"], n_atoms=self.n_atoms, c_transform=whole)]
        for name in self.column_names:
            parts = [OUTPUTS[name](self.target, x, block) for block in kept]
            found[name] = joined(parts, self.nx, axis=-1)
        return tuple(found[name] for name in self.outputs)

    def accumulate(self, x: Array, bilinear: Array | None = None) -> tuple[dict[str, Array], list[Any]]:
        """Outputs for each point, by all tiles, and the blocks for sums over points: at 0, the last."""
        found: list[Array] = []
        kept: list[Any] = []
        for columns, tile in self.tiles(self.columns):
            block = self.block(columns, tile, x, bilinear)
            values = None if self.values is None else self.values[columns]
            part = [OUTPUTS[name](tile, x, block, values) for name in self.row_names]
            if self.reg == 0:
                part[1] = part[1] + columns.start
            found = self.join(found, part) if found else part
            if not self.is_kept:
                kept.clear()
            kept.append(block)
        return dict(zip(self.row_names, found, strict=True)), kept

    @property
    def n_atoms(self) -> int:
        """Columns of a block."""
        return len(self.potential)

    def whole(self, found: dict[str, Array]) -> dict[str, Array]:
        """Outputs for all atoms, from those for the ones that there are tiles of."""
        return found

    def tiles(self, columns: list[slice]) -> Iterator[tuple[slice, Atoms]]:
        """Tiles of these atoms; the next is read while one is used, if they are not in memory."""
        if not self.target.is_stored:
            yield from ((part, self.target.tile(part)) for part in columns)
            return
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self.target.tile, columns[0])
            for part, following in zip(columns, [*columns[1:], None], strict=True):
                tile = coming.result()
                if following is not None:
                    coming = reader.submit(self.target.tile, following)
                yield part, tile

    def block(self, columns: slice, tile: Atoms, x: Array, bilinear: Array | None = None) -> Any:
        """Weights within a tile; they last until the next block, unless they are kept."""
        kernel = self.target.kernel(tile, self.potential[columns], self.reg)
        if self.is_kept:
            if self.memory is None:
                self.memory = self.nx.reshape(kernel.memory(x, len(self.potential)), (-1,))
            room = self.memory[x.shape[0] * columns.start : x.shape[0] * columns.stop]
            kernel.buffer = self.nx.reshape(room, (x.shape[0], -1))
        return kernel(x, None if bilinear is None else bilinear[:, columns])

    def share(self, whole: Array, part: Array) -> Array:
        """Share of all weights that tiles of this c-transform have."""
        return self.nx.exp((whole - part) / self.reg)

    def join(self, old: list[Array], new: list[Array]) -> list[Array]:
        """Outputs of the tiles so far and of the next, their c-transforms first."""
        nx, both = self.nx, (old[0], new[0])
        if self.reg == 0:
            is_new = new[0] < old[0]
            pairs = zip(old, new, strict=True)
            return [nx.where(by_row(is_new, a), b, a) for a, b in pairs]
        least = nx.minimum(*both)
        transform = least - self.reg * nx.log(sum(self.share(least, part) for part in both))
        left, right = (self.share(transform, part) for part in both)
        pairs = zip(old[1:], new[1:], strict=True)
        return [transform, *(by_row(left, a) * a + by_row(right, b) * b for a, b in pairs)]

    def draw(self, x: Array, level: Array) -> Array:
        """Atom of each point where its distribution function reaches a level: its tile, then itself."""
        nx, chosen, levels = self.nx, [], []
        for rows in slices(x.shape[0], self.rows):
            blocks = (self.block(*tile, x[rows]) for tile in self.tiles(self.columns))
            transforms = nx.stack([block.c_transform for block in blocks], axis=1)
            masses = self.share(nx.min(transforms, axis=1)[:, None], transforms)
            tile, part = level_in_group(masses, level[rows], nx)
            chosen.append(tile)
            levels.append(part)
        which, level = joined(chosen, nx), joined(levels, nx)
        points = {k: nx.where(which == k)[0] for k in nx.unique(which).tolist()}
        needed = [self.columns[k] for k in points]
        order, index = [], []
        for all_rows, (columns, tile) in zip(points.values(), self.tiles(needed), strict=True):
            for some in slices(all_rows.shape[0], self.rows):
                rows = all_rows[some]
                first, weights, part = self.block(columns, tile, x[rows]).cdf_group(level[rows])
                order.append(rows)
                index.append(columns.start + first + inverse_cdf(weights, part, nx)[0])
        return joined(index, nx)[nx.argsort(joined(order, nx))]


def by_row(numbers: Array, values: Array) -> Array:
    """A number for each row of values."""
    return numbers if values.ndim == 1 else numbers[:, None]
