"""What a reduction can be asked for, each from a block of weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..backend import Array, brief
from .base import Atoms, Block


@dataclass
class Reduction:
    """What a reduction was asked for; the rest is None."""

    c_transform: Array = None  # (n,), psi^{c,reg}(x_i)
    gradient: Array = None  # (n, d), sum_j chi_ij d_x c(x_i, y_j)
    map: Array = None  # (n, d), sum_j chi_ij y_j, in the coordinates of the target's atoms
    average: Array = None  # (n,), sum_j chi_ij values_j
    linear: Array = None  # (n,), sum_j chi_ij c(x_i, y_j)
    index: Array = None  # (n,), atom of the Laguerre cell, at reg = 0
    colsum: Array = None  # (n_support,), sum_i chi_ij
    weights: Array = None  # (n, n_support), chi_ij: the one thing whose size is (samples x atoms)
    colsquare: Array = None  # (n_support,), sum_i chi_ij^2

    __repr__ = brief


@dataclass(frozen=True)
class Task:
    """What a reduction is asked for, whatever the points."""

    target: Atoms  # cut from any graph, unless a gradient is asked for
    potential: Array
    reg: float
    outputs: Sequence[str] = ()  # names of fields of a Reduction
    values: Array | None = None  # what "average" is the average of

    __repr__ = brief


def _linear(target: Atoms, x: Array, block: Block, *_: Any) -> Array:
    """``sum_j chi_ij c(x_i, y_j)``: the cost once more, for it is seldom wanted."""
    nx, cost = target.nx, target.cost
    separable = cost.source_term(x, nx) + block.average(target.target_term[:, None])[:, 0]
    return separable - cost.weighted_mean(x, target.atoms, block, nx)


OUTPUTS: dict[str, Callable] = {
    "c_transform": lambda target, x, block, *_: block.c_transform,
    "gradient": lambda target, x, block, *_: target.cost.vjp(x, target.atoms, block, target.nx),
    "map": lambda target, x, block, *_: block.average(target.atoms),
    "average": lambda target, x, block, values: block.average(values[:, None])[:, 0],
    "linear": _linear,
    "index": lambda target, x, block, *_: block.index,
    "colsum": lambda target, x, block, *_: block.colsum(),
    "weights": lambda target, x, block, *_: block.dense(),
    "colsquare": lambda target, x, block, *_: block.colsquare(),  # the last: it spends the block
}
"""To add one: a field of :class:`Reduction`, an entry here. What has numbers for each atom is named in
`OF_COLUMNS`, what is a sum over points in `SUMS`.

Tiles of atoms, and ranks, are joined by the shares of their weights: an output of each point has to be
linear in chi, a mean under the weights. An entropy is not: make it of ``weights``. A method that blocks
do not have goes into each kind of them (``blocks.py``, ``triton_kernel.py``).
"""
OF_COLUMNS = {"colsum", "weights", "colsquare"}  # one number or more for each atom
SUMS = {"colsum", "colsquare"}  # over all points
