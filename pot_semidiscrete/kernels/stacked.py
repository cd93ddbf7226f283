"""Reductions over the atoms of several problems at once, each with a softmax of its own.

The problems are filled up to the size of the largest with atoms of the potential minus infinity. Then
one product has the scores of many: a row of a block is a point and a problem, a column the place of an
atom in its problem.
"""

from dataclasses import dataclass, replace
from typing import Any, cast

from ..backend import Array, equal_rows, joined, on_host, slices
from .base import DEVICE_ENTRIES, kernel_for, sharing_rows
from .blocks import HardBlock, SoftBlock
from .in_place import InPlaceKernel
from .outputs import OF_COLUMNS, Task


@dataclass
class StackedBlock(SoftBlock):
    """Rows of a softmax: those of a point one after the other, one of each of so many problems."""

    n_problems: int = 1

    def sum_rows(self, factors: Array) -> Array:
        nx, width = self.nx, self.exp_scores.shape[1]
        powers = nx.reshape(self.exp_scores, (-1, self.n_problems, width))
        factors = nx.reshape(factors, (-1, self.n_problems))
        return nx.reshape(nx.einsum("nk,nkm->km", factors, powers), (-1,))


class StackedTiles:
    """Blocks of so many `rows` of the points over all problems, those of one of `kernels` at a time.

    The outputs are those of :class:`~pot_semidiscrete.problem.StackedTarget`, c-transforms and sums over
    points: the first have a column for each problem, and weights of its atoms are divided by the number
    of problems.
    """

    def __init__(self, task: Task, x: Array) -> None:
        target: Any = task.target  # a StackedTarget
        self.target, self.outputs, self.nx = target, task.outputs, target.nx
        make, width = cast(type[InPlaceKernel], kernel_for(self.nx)), target.width
        most, rows = DEVICE_ENTRIES, DEVICE_ENTRIES // width
        if on_host(x):
            most = make.cache() // (self.nx.bitsize(x) // 8)
            rows = max(most // len(target.place_of), sharing_rows(x))
        self.rows = equal_rows(x.shape[0], rows)
        potential = task.potential[target.place_of] + target.floor
        self.kernels = []
        for columns in slices(len(potential), max(most // (self.rows * width), 1) * width):
            kernel = make(target.filled.tile(columns), potential[columns], task.reg)
            kernel.width = width
            self.kernels.append(kernel)

    def __call__(self, x: Array, *_: Array | None) -> tuple:
        """Outputs for a block of points."""
        nx, term = self.nx, self.target.cost.source_term(x, self.nx)
        parts = zip(*(self.tile(kernel, x, term) for kernel in self.kernels), strict=True)
        found = [joined(part, nx, axis=-1) for part in parts]
        pairs = zip(self.outputs, found, strict=True)
        return tuple(v[self.target.kept] if name in OF_COLUMNS else v for name, v in pairs)

    def tile(self, kernel: InPlaceKernel, x: Array, term: Array) -> list[Array]:
        """The outputs of the problems of a kernel."""
        nx, tile, width = self.nx, kernel.target, self.target.width
        n_problems = len(kernel.bias) // width
        scores = tile.cost.bilinear(x, tile.atoms, kernel.scale, nx, kernel.matmul)
        term = nx.repeat(term, n_problems)
        block: SoftBlock | HardBlock
        if kernel.reg > 0:
            block = StackedBlock(**vars(kernel.soft(scores, term)), n_problems=n_problems)
        else:
            hard = kernel.hard(scores, term)
            first = width * nx.arange(n_problems, type_as=hard.index)
            index = nx.reshape(hard.index, (-1, n_problems)) + first[None, :]
            block = replace(hard, index=nx.reshape(index, (-1,)), n_atoms=n_problems * width)
        share = 1.0 / self.target.n_problems
        made = {
            "c_transform": lambda: nx.reshape(block.c_transform, (-1, n_problems)),
            "colsum": lambda: share * block.colsum(),
            "colsquare": lambda: share**2 * block.colsquare(),
        }
        return [made[name]() for name in self.outputs]
