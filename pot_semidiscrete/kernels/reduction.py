"""One reduction over (samples x atoms), in blocks: all that the package ever does with data.

The loop is here; a kernel turns a block of points into a block of weights.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..backend import Array, brief, capabilities, equal_rows, joined, no_grad, on_host
from .base import Atoms, Block, Kernel
from .blocks import reached
from .generic import GenericKernel
from .shared import own_rows, ranks_at

BLOCK_BYTES = 2**27  # bytes of a block on the host, at most
SHARING = 256  # rows that make the reading of the atoms cheap
DEVICE_ENTRIES = 2**26  # of a block elsewhere
LARGEST_BILINEAR = 2**26  # entries of a matrix kept for several reductions of the same points ...
DEVICE_BILINEAR = 2**28  # ... elsewhere: 1 GiB in float32


@dataclass
class Reduction:
    """What a reduction was asked for; the rest is None.

    Attributes
    ----------
    c_transform : array, shape (n,)
        ``psi^{c,reg}(x_i)``.
    colsum : array, shape (n_support,)
        ``sum_i chi_ij``.
    colsquare : array, shape (n_support,)
        ``sum_i chi_ij^2``.
    gradient : array, shape (n, d)
        ``sum_j chi_ij d_x c(x_i, y_j)``.
    map : array, shape (n, d)
        ``sum_j chi_ij y_j``, in the coordinates of the target's atoms.
    average : array, shape (n,)
        ``sum_j chi_ij values_j``.
    linear : array, shape (n,)
        ``sum_j chi_ij c(x_i, y_j)``.
    weights : array, shape (n, n_support)
        ``chi_ij``: the one thing whose size is (samples x atoms).
    """

    c_transform: Array = None
    colsum: Array = None
    colsquare: Array = None
    gradient: Array = None
    map: Array = None
    average: Array = None
    linear: Array = None
    weights: Array = None

    __repr__ = brief


def _linear(target: Atoms, x: Array, block: Block, *_: Any) -> Array:
    """``sum_j chi_ij c(x_i, y_j)``: the cost once more, for it is seldom wanted."""
    nx, cost = target.nx, target.cost
    separable = cost.source_term(x, nx) + block.average(target.target_term[:, None])[:, 0]
    return separable - cost.weighted_mean(x, target.atoms, block, nx)


_OUTPUTS: dict[str, Callable] = {
    "c_transform": lambda target, x, block, *_: block.c_transform,
    "colsum": lambda target, x, block, *_: block.colsum(),
    "gradient": lambda target, x, block, *_: target.cost.vjp(x, target.atoms, block, target.nx),
    "map": lambda target, x, block, *_: block.average(target.atoms),
    "average": lambda target, x, block, values: block.average(values[:, None])[:, 0],
    "linear": _linear,
    "weights": lambda target, x, block, *_: block.dense(),
    "colsquare": lambda target, x, block, *_: block.colsquare(),  # the last: it spends the block
}
_SUMS = {"colsum", "colsquare"}


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
        If it is shared, each rank reduces a part of the rows, and all get the whole.
    x : array, shape (n, d)
        Source points in the target's coordinates (``target.center``).
    potential : array, shape (n_support,)
    reg : float
    outputs : sequence of str
        Names of the fields of :class:`Reduction` to fill, in any order.
    values : array, shape (n_support,), optional
        What ``"average"`` is the average of.
    bilinear : array, shape (n, n_support), optional
        What :func:`known_bilinear` returned for `x`.
    differentiable : bool
        Keep the autograd graph, recomputing each block when it is differentiated, so that memory
        stays that of a block. Otherwise everything is detached and computed in place.

    Returns
    -------
    Reduction
    """
    nx = target.nx
    if differentiable:
        generic = GenericKernel(target, potential, reg)
        return _reduce(generic, x, outputs, values, bilinear, capabilities(nx).checkpoint)
    with no_grad(nx):
        kernel = target.kernel(target.detached, nx.detach(potential), reg)
        ranks, n = ranks_at(target), x.shape[0]
        if ranks is None or n < ranks.size:
            return _reduce(kernel, nx.detach(x), outputs, values, bilinear)
        own, known = (None if a is None else own_rows(target, a) for a in (nx.detach(x), bilinear))
        part = _reduce(kernel, own, outputs, values, known)
        found = {name: getattr(part, name) for name in sorted(set(outputs))}
        parts = (v if name in _SUMS else ranks.spread(v, n) for name, v in found.items())
        return Reduction(**dict(zip(found, ranks.sum(*parts), strict=True)))


def _reduce(
    kernel: Kernel,
    x: Array,
    outputs: Sequence[str],
    values: Array | None,
    bilinear: Array | None,
    guard: Callable = lambda function: function,
) -> Reduction:
    target, nx = kernel.target, kernel.nx
    outputs = sorted(set(outputs), key=list(_OUTPUTS).index)

    @guard
    def block_outputs(rows: Array, bilinear: Array, prepared: Array) -> tuple:
        block = kernel(rows, bilinear, prepared)
        return tuple(_OUTPUTS[name](target, rows, block, values) for name in outputs)

    step = block_rows(target, x)
    prepared = kernel.prepare(x, step) if bilinear is None else None
    sums: dict[str, Array] = {}
    parts: dict[str, list[Array]] = {name: [] for name in outputs if name not in _SUMS}
    for rows in row_blocks(target, x, bilinear, prepared, step=step):
        for name, piece in zip(outputs, block_outputs(*rows), strict=True):
            if name in parts:
                parts[name].append(piece)
            else:  # as many numbers as a block: they are not kept
                sums[name] = sums[name] + piece if name in sums else piece
    return Reduction(**sums, **{name: joined(pieces, nx) for name, pieces in parts.items()})


def known_bilinear(target: Atoms, x: Array) -> Array | None:
    """The part of the costs that a reduction computes first, to keep for several of the points `x`.

    None, and to be computed each time, where it would have more than `LARGEST_BILINEAR` entries, or
    `DEVICE_BILINEAR` in the memory of a device.
    """
    nx, atoms = target.nx, target.atoms
    if x.shape[0] * atoms.shape[0] > (LARGEST_BILINEAR if on_host(x) else DEVICE_BILINEAR):
        return None
    with no_grad(nx):
        return target.cost.bilinear(x, atoms, 1.0, nx)


def weight_blocks(
    target: Atoms, x: Array, potential: Array, reg: float
) -> Iterator[tuple[Array, Array]]:
    """Blocks of points, ``(k, d)``, and their assignment weights, ``(k, n_support)``, one by one."""
    for (rows,) in row_blocks(target, x):
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
            total = total + terms - cost.source_mean(rows, target.atoms, part, nx)
    return total


def expected_cost(target: Atoms, x: Array, law: Array) -> Array:
    """Mean cost from each of the points `x` to the atoms, of weights `law`, ``(n,)``, in blocks."""
    nx, cost, means = target.nx, target.cost, []
    with no_grad(nx):
        for (rows,) in row_blocks(target, x):
            terms = nx.sum(law) * cost.source_term(rows, nx) + nx.sum(law * target.target_term)
            means.append(terms - cost.target_mean(rows, target.atoms, law, nx))
    return nx.concatenate(means, axis=0)


def row_blocks(
    target: Atoms, x: Array, *others: Array | None, step: int | None = None
) -> Iterator[tuple]:
    """Source points, and arrays of as many rows, a block at a time; None stays None."""
    step = step or block_rows(target, x)
    for start in range(0, x.shape[0], step):
        yield tuple(None if array is None else array[start : start + step] for array in (x, *others))


def block_rows(target: Atoms, x: Array, caches: int = 1) -> int:
    """Rows of a block: few enough for so many caches, enough for the product to be worth its while.

    Each product reads and packs all the atoms: the higher the dimension, the more rows share that.
    """
    n_rows, (n_atoms, d) = x.shape[0], target.atoms.shape
    if on_host(x):
        row = n_atoms * target.nx.bitsize(target.atoms) // 8
        rows = min(max(caches * target.kernel.cache() // row, min(2 * d, SHARING)), BLOCK_BYTES // row)
    else:
        rows = DEVICE_ENTRIES // n_atoms
    return equal_rows(n_rows, rows)


def draw_atoms(
    target: Atoms, x: Array, potential: Array, reg: float, uniform: Callable[[int], Array]
) -> Array:
    """An atom for each of the points, by their assignment weights; the cell decides at ``reg = 0``.

    Parameters
    ----------
    uniform : callable
        ``n -> array`` of shape (n,), of numbers in [0, 1).

    Returns
    -------
    array of int, shape (n,)
    """
    nx = target.nx
    with no_grad(nx):
        kernel = target.kernel(target.detached, nx.detach(potential), reg)
        step, x = block_rows(target, x, caches=2), nx.detach(x)  # for its steps are small
        prepared, share = kernel.prepare(x, step), 1.0 - uniform(x.shape[0])
        blocks = row_blocks(target, x, None, prepared, share, step=step)
        parts = [kernel(*rows).narrow(share) for *rows, share in blocks]
        start, weights, share = (joined(pieces, nx) for pieces in zip(*parts, strict=True))
        return start + reached(weights, share, nx)[0]
