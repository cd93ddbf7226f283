"""One reduction over (samples x atoms), in blocks: all that the package ever does with data.

The loop is here; a kernel turns a block of points into a block of weights.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

from ..backend import Array, Backend, capabilities, equal_rows, joined, no_grad, on_host, slices
from .base import BLOCK_BYTES, DEVICE_ENTRIES, Atoms, Kernel, row_bytes, sharing_rows
from .blocks import SoftBlock, inverse_cdf
from .generic import GenericKernel
from .outputs import OF_COLUMNS, OUTPUTS, SUMS, Reduction, Task
from .sharded import ShardTiles, draw_from_shards
from .shared import local_rows, points_of_all, ranks_at, row_ranks
from .stacked import StackedTiles
from .threads import in_threads
from .tiles import Tiles, is_tiled

LARGEST_BILINEAR = 2**26  # entries of a matrix kept for several reductions of the same points ...
DEVICE_BILINEAR = 2**28  # ... in the memory of a device: 1 GiB in float32


def reduce(
    target: Atoms,
    x: Array,
    potential: Array,
    reg: float,
    outputs: Sequence[str] = ("c_transform",),
    *,
    values: Array | None = None,
    bilinear: Array | None = None,
    differentiable: bool = False,
) -> Reduction:
    """Reduce the assignment weights of `x` over blocks of rows.

    Parameters
    ----------
    target : Target
        If it is shared, each rank reduces a part of the rows, or a part of the atoms if each has one,
        and all get the whole. If its atoms are sharded, but it is not, each rank has other points, and
        gets what is asked of these.
    x : array, shape (n, d)
        Source points in the target's coordinates (``target.center``).
    potential, values : array, shape (n_support,)
        ``"average"`` is the average of `values`.
    reg : float
    outputs : sequence of str
        Names of the fields of :class:`Reduction` to fill, in any order.
    bilinear : array, shape (n, n_support), optional
        What :func:`known_bilinear` returned for `x`.
    differentiable : bool
        Keep the autograd graph, recomputing each block when it is differentiated, so that memory
        stays that of a block. Otherwise everything is detached and computed in place.
    """
    nx, outputs = target.nx, sorted(set(outputs), key=list(OUTPUTS).index)
    is_sum = ranks_at(target) is None and not SUMS.isdisjoint(outputs)  # over points of one rank
    if target.shard is not None and (differentiable or is_sum):
        raise TypeError(
            "X_target: expected atoms that this process has where this gradient is asked for, received "
            "sharded ones, by which a loss is differentiated in its points alone; detach all else."
        )
    if differentiable:
        task = Task(target, potential, reg, outputs, values)
        generic = _evaluation(GenericKernel(target, potential, reg), task)
        blocks = row_blocks(target, x, bilinear, None)
        return _reduce(outputs, capabilities(nx).checkpoint(generic), blocks, nx)
    with no_grad(nx):
        target, x, potential = target.detached, nx.detach(x), nx.detach(potential)
        task = Task(target, potential, reg, outputs, values)
        if target.shard is not None:
            return _sharded(task, x, bilinear)
        ranks, n = row_ranks(target), x.shape[0]
        if ranks is None or n < ranks.size:
            return _by_threads(task, x, bilinear)
        own, known = (None if a is None else local_rows(target, a) for a in (x, bilinear))
        part = _by_threads(task, own, known)
        found = {name: getattr(part, name) for name in outputs}
        parts = (v if name in SUMS else ranks.pad(v, n) for name, v in found.items())
        return Reduction(**dict(zip(found, ranks.sum(*parts), strict=True)))


def _sharded(task: Task, x: Array, bilinear: Array | None) -> Reduction:
    """The reduction of ranks each of which has a part of the atoms."""
    target = task.target
    x, own = points_of_all(target, x)
    tiles = ShardTiles(task, x)
    blocks = row_blocks(target.local, x, bilinear, step=tiles.rows)
    found = _reduce(task.outputs, tiles, blocks, target.nx)
    names = [name for name in task.outputs if name in OF_COLUMNS and task.reg > 0]
    if names:
        parts = target.shard.whole(*(getattr(found, name) for name in names), axis=-1)
        found = replace(found, **dict(zip(names, parts, strict=True)))
    rows = {name: getattr(found, name)[own] for name in task.outputs if name not in SUMS}
    return replace(found, **rows)


def _by_threads(task: Task, x: Array, bilinear: Array | None) -> Reduction:
    """The reduction of one process, outside any graph."""
    parts = in_threads(task.target, partial(_detached, task), x, bilinear)
    if len(parts) == 1:
        return parts[0]
    outputs = [[getattr(part, name) for name in task.outputs] for part in parts]
    return _joined(task.outputs, outputs, task.target.nx)


def _detached(task: Task, x: Array, bilinear: Array | None) -> Reduction:
    """The reduction of one thread."""
    target = task.target
    if target.n_problems > 1 or is_tiled(target, x):
        tiles = (StackedTiles if target.n_problems > 1 else Tiles)(task, x)
        blocks = row_blocks(target, x, bilinear, step=tiles.rows)
        return _reduce(task.outputs, tiles, blocks, target.nx)
    kernel = target.kernel(target, task.potential, task.reg)
    fused = kernel.fused and bilinear is None and "weights" not in task.outputs
    step = fused_rows(target, x) if fused else block_rows(target, x)
    prepared = kernel.prepare(x, step) if bilinear is None else None
    blocks = row_blocks(target, x, bilinear, prepared, step=step)
    return _reduce(task.outputs, _evaluation(kernel, task), blocks, target.nx)


def _evaluation(kernel: Kernel, task: Task) -> Callable:
    """``(x, bilinear, prepared) -> outputs`` of a block of points."""

    def evaluate(x: Array, bilinear: Array | None, prepared: Array | None) -> tuple:
        block = kernel(x, bilinear, prepared)
        return tuple(OUTPUTS[name](kernel.target, x, block, task.values) for name in task.outputs)

    return evaluate


def _reduce(
    outputs: Sequence[str], evaluate: Callable, blocks: Iterator[tuple], nx: Backend
) -> Reduction:
    """Evaluate blocks of points, and put them together."""
    return _joined(outputs, (evaluate(*block) for block in blocks), nx)


def _joined(outputs: Sequence[str], blocks: Iterable[Sequence[Array]], nx: Backend) -> Reduction:
    """Join what there is of each point, and add up the rest, of outputs for parts of the points."""
    sums: dict[str, Array] = {}
    parts: dict[str, list[Array]] = {name: [] for name in outputs if name not in SUMS}
    for block in blocks:
        for name, piece in zip(outputs, block, strict=True):
            if name in parts:
                parts[name].append(piece)
            else:  # as many numbers as a block: they are not kept
                sums[name] = sums[name] + piece if name in sums else piece
    return Reduction(**sums, **{name: joined(pieces, nx) for name, pieces in parts.items()})


def known_bilinear(target: Atoms, x: Array) -> Array | None:
    """The part of the costs that a reduction computes first, to keep for several of the points `x`.

    Of sharded atoms, that of this rank's.

    None, and to be computed each time, where it would have more than `LARGEST_BILINEAR` entries, or
    `DEVICE_BILINEAR` in the memory of a device, and where the kernel is fused.
    """
    target = target.local
    nx, most = target.nx, LARGEST_BILINEAR if on_host(x) else DEVICE_BILINEAR
    if target.kernel.fused or x.shape[0] * target.weights.shape[0] > most:
        return None
    with no_grad(nx):
        return target.bilinear(x)


def weight_blocks(
    target: Atoms, x: Array, potential: Array, reg: float
) -> Iterator[tuple[Array, Array]]:
    """Blocks of points, ``(k, d)``, and their assignment weights, ``(k, n_support)``, one by one."""
    step = None
    if target.shard is not None:  # a block takes three exchanges: larger ones
        step = equal_rows(x.shape[0], BLOCK_BYTES // 16 // row_bytes(target))
    for (rows,) in row_blocks(target, x, step=step):
        yield rows, reduce(target, rows, potential, reg, ("weights",)).weights


def mean_cost(target: Atoms, x: Array, share: Array | None = None) -> Array:
    """Mean cost from the points `x`, of weights `share`, to each atom, ``(n_support,)``, in blocks.

    It is the optimal potential of an infinite `reg`, up to a constant.
    """
    nx, cost, total = target.nx, target.cost, 0.0
    if share is None:
        share = nx.full((x.shape[0],), 1.0 / x.shape[0], type_as=x)
    with no_grad(nx):
        for rows, part in row_blocks(target, x, share):
            terms = nx.sum(part * cost.source_term(rows, nx)) + nx.sum(part) * target.target_term
            total = total + terms - target.in_parts(partial(cost.source_mean, rows, share=part, nx=nx))
    return total


def expected_cost(target: Atoms, x: Array, law: Array) -> Array:
    """Mean cost from each of the points `x` to the atoms, of weights `law`, ``(n,)``, in blocks."""
    nx, cost, means = target.nx, target.cost, []
    with no_grad(nx):
        for (rows,) in row_blocks(target, x):
            terms = nx.sum(law) * cost.source_term(rows, nx) + nx.sum(law * target.target_term)
            of_part = lambda columns, part, rows=rows: cost.target_mean(
                rows, part.atoms, law[columns], nx
            )
            means.append(terms - target.total(of_part))
    return nx.concatenate(means, axis=0)


def row_blocks(
    target: Atoms, x: Array, *others: Array | None, step: int | None = None
) -> Iterator[tuple]:
    """Source points, and arrays of as many rows, a block at a time; None stays None."""
    step = step or block_rows(target, x)
    for rows in slices(x.shape[0], step):
        yield tuple(None if array is None else array[rows] for array in (x, *others))


def block_rows(target: Atoms, x: Array, caches: int = 1) -> int:
    """Rows of a block: few enough for so many caches, enough for the product to be worth its while.

    Each product reads and packs all the atoms: the higher the dimension, the more rows share that.
    """
    n_rows, n_atoms = x.shape[0], target.weights.shape[0]
    if on_host(x):
        row = row_bytes(target)
        rows = min(max(caches * target.kernel.cache() // row, sharing_rows(x)), BLOCK_BYTES // row)
    else:
        rows = DEVICE_ENTRIES // n_atoms
    return equal_rows(n_rows, rows)


def fused_rows(target: Atoms, x: Array) -> int:
    """Rows of a block that holds no matrix, but coordinates, or four arrays of groups of atoms."""
    n_atoms, d = target.atoms.shape
    return equal_rows(x.shape[0], DEVICE_ENTRIES // max(d, 4 * math.isqrt(n_atoms)))


def draw_atoms(
    target: Atoms, x: Array, potential: Array, reg: float, uniform: Callable[[int], Array]
) -> Array:
    """An atom for each of the points, by their assignment weights; the cell decides at ``reg = 0``.

    `uniform` draws n numbers in [0, 1).
    """
    if reg == 0:
        return reduce(target, x, potential, reg, ("index",)).index
    nx, level = target.nx, 1.0 - uniform(x.shape[0])
    with no_grad(nx):
        target, x, potential = target.detached, nx.detach(x), nx.detach(potential)
        if target.shard is None:
            return _drawn(target, x, potential, reg, level)
        (x, own), (level, _) = points_of_all(target, x), points_of_all(target, level)
        draw = partial(_drawn, target.local, potential=potential[target.shard.columns], reg=reg)
        return draw_from_shards(ShardTiles(Task(target, potential, reg), x), x, level, draw)[own]


def _drawn(target: Atoms, x: Array, potential: Array, reg: float, level: Array) -> Array:
    """Atom of each point where its distribution function reaches a level in (0, 1]."""
    draw = lambda x, level: _drawn_by_one(target, x, potential, reg, level)
    return joined(in_threads(target, draw, x, level), target.nx)


def _drawn_by_one(target: Atoms, x: Array, potential: Array, reg: float, level: Array) -> Array:
    """The same, by one thread."""
    if is_tiled(target, x):
        return Tiles(Task(target, potential, reg), x).draw(x, level)
    nx, kernel = target.nx, target.kernel(target, potential, reg)
    # two caches, for its steps are small
    step = fused_rows(target, x) if kernel.fused else block_rows(target, x, caches=2)
    blocks = row_blocks(target, x, None, kernel.prepare(x, step), level, step=step)
    parts = [cast(SoftBlock, kernel(*rows)).cdf_group(level) for *rows, level in blocks]
    start, weights, level = (joined(pieces, nx) for pieces in zip(*parts, strict=True))
    return start + inverse_cdf(weights, level, nx)[0]
