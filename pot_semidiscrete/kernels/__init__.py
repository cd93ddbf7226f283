"""One sweep over (samples x atoms), in blocks: all that the package ever does with data.

The loop and the reductions are here; a kernel turns a block of points into a block of weights.
"""

import functools
from dataclasses import dataclass
from typing import Any

from .. import envelope
from ._generic import Kernel, equal_rows, joined

MEMORY = 2**27  # bytes of a block on the host, at most
SHARING = 256  # rows that make the reading of the atoms cheap
DEVICE_ENTRIES = 2**26  # of a block elsewhere
LARGEST_CROSS = 2**26  # entries of a matrix that is kept for several sweeps of the same points ...
DEVICE_CROSS = 2**28  # ... elsewhere: 1 GiB in float32


@dataclass
class Sweep:
    """What a sweep was asked for; the rest is None.

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

    c_transform: Any = None
    colsum: Any = None
    colsquare: Any = None
    gradient: Any = None
    map: Any = None
    average: Any = None
    linear: Any = None
    weights: Any = None


def _linear(target, x, block, *_):
    """``sum_j chi_ij c(x_i, y_j)``: the cost once more, for it is seldom wanted."""
    nx, cost = target.nx, target.cost
    separable = cost.row(x, nx) + block.average(target.column[:, None])[:, 0]
    return separable - cost.mean_cross(x, target.atoms, block, nx)


_REDUCTIONS = {
    "c_transform": lambda target, x, block, *_: block.c_transform,
    "colsum": lambda target, x, block, *_: block.colsum(),
    "gradient": lambda target, x, block, *_: target.cost.pullback(x, target.atoms, block, target.nx),
    "map": lambda target, x, block, *_: block.average(target.atoms),
    "average": lambda target, x, block, values: block.average(values[:, None])[:, 0],
    "linear": _linear,
    "weights": lambda target, x, block, *_: block.dense(),
    "colsquare": lambda target, x, block, *_: block.colsquare(),  # the last: it spends the block
}
_ORDER = list(_REDUCTIONS)
_SUMS = ("colsum", "colsquare")


def sweep(
    target,
    x,
    potential,
    reg,
    want=("c_transform",),
    *,
    values=None,
    cross=None,
    differentiable=False,
):
    """Reduce the assignment weights of `x` over blocks of rows.

    Parameters
    ----------
    target : Target
    x : array, shape (n, d)
        Source points in the target's coordinates (``target.local``).
    potential : array, shape (n_support,)
    reg : float
    want : sequence of str
        Names of the fields of :class:`Sweep` to fill, in any order.
    values : array, shape (n_support,), optional
        What ``"average"`` is the average of.
    cross : array, shape (n, n_support), optional
        What :func:`known_cross` returned for `x`.
    differentiable : bool
        Keep the autograd graph, recomputing each block when it is differentiated, so that memory
        stays that of a block. Otherwise everything is detached and computed in place.

    Returns
    -------
    Sweep
    """
    nx = target.nx
    if differentiable:
        with envelope.full_precision(nx, x):
            kernel = Kernel(target, potential, reg)
            return _sweep(kernel, x, want, values, cross, envelope.checkpoint(nx))
    with envelope.full_precision(nx, x), envelope.no_grad(nx):
        kernel = detached_kernel(target, potential, reg)
        return _sweep(kernel, nx.detach(x), want, values, cross)


def _sweep(kernel, x, want, values=None, cross=None, guard=lambda function: function):
    target, nx = kernel.target, kernel.nx
    want = sorted(set(want), key=_ORDER.index)

    @guard
    def reduce(rows, cross, prepared):
        block = kernel(rows, cross, prepared)
        return tuple(_REDUCTIONS[name](target, rows, block, values) for name in want)

    step = block_rows(target, x)
    part = lambda array, start: None if array is None else array[start : start + step]
    arrays = (x, cross, kernel.prepare(x, step) if cross is None else None)
    parts = [reduce(*(part(array, k) for array in arrays)) for k in range(0, x.shape[0], step)]
    return Sweep(
        **{
            name: sum(pieces[1:], pieces[0]) if name in _SUMS else joined(pieces, nx)
            for name, pieces in zip(want, zip(*parts, strict=True), strict=True)
        }
    )


def known_cross(target, x):
    """The part of the costs that a sweep computes first, to keep for several sweeps of the points `x`.

    None, and to be computed each time, where it would have more than `LARGEST_CROSS` entries, or
    `DEVICE_CROSS` in the memory of a device.
    """
    nx, atoms = target.nx, target.atoms
    if x.shape[0] * atoms.shape[0] > (LARGEST_CROSS if on_host(x) else DEVICE_CROSS):
        return None
    with envelope.full_precision(nx, x), envelope.no_grad(nx):
        return target.cost.cross(x, atoms, 1.0, nx, lambda u, v: nx.dot(u, v.T))


def weight_blocks(target, x, potential, reg):
    """Blocks of points, ``(k, d)``, and their assignment weights, ``(k, n_support)``, one by one."""
    step = block_rows(target, x)
    for start in range(0, x.shape[0], step):
        rows = x[start : start + step]
        yield rows, sweep(target, rows, potential, reg, ("weights",)).weights


def mean_cost(target, x, weights=None):
    """Mean cost from the points `x` to each atom, ``(n_support,)``, in blocks.

    It is the optimal potential of an infinite `reg`, up to a constant.
    """
    nx, cost = target.nx, target.cost
    if weights is None:
        weights = nx.full((x.shape[0],), 1.0 / x.shape[0], type_as=x)
    step, total = block_rows(target, x), 0.0
    with envelope.full_precision(nx, x), envelope.no_grad(nx):
        for start in range(0, x.shape[0], step):
            rows, share = x[start : start + step], weights[start : start + step]
            # the mean of a product of matrices needs no such product
            mean = lambda u, v, share=share: nx.dot(v, nx.dot(share, u))
            cross = cost.cross(rows, target.atoms, 1.0, nx, mean)
            if cross.ndim == 2:
                cross = nx.dot(share, cross)
            separable = nx.sum(share * cost.row(rows, nx)) + nx.sum(share) * target.column
            total = total + separable - cross
    return total


def expected_cost(target, x, law):
    """Mean cost from each of the points `x` to the atoms, of weights `law`, ``(n,)``, in blocks."""
    nx, cost, means = target.nx, target.cost, []
    step = block_rows(target, x)
    with envelope.full_precision(nx, x), envelope.no_grad(nx):
        for start in range(0, x.shape[0], step):
            rows = x[start : start + step]
            cross = cost.cross(rows, target.atoms, 1.0, nx, lambda u, v: nx.dot(u, nx.dot(law, v)))
            if cross.ndim == 2:
                cross = nx.dot(cross, law)
            means.append(nx.sum(law) * cost.row(rows, nx) + nx.sum(law * target.column) - cross)
    return nx.concatenate(means, axis=0)


def select(nx):
    """The fastest kernel for a backend."""
    return _select(nx.__name__)


@functools.cache
def _select(name):
    if name == "numpy":
        from ._numpy import NumpyKernel

        return NumpyKernel
    if name == "torch":
        from ._torch import TorchKernel

        return TorchKernel
    return Kernel


def detached_kernel(target, potential, reg):
    """The kernel of a potential, cut from any graph."""
    return select(target.nx)(target.detached, target.nx.detach(potential), reg)


def on_host(x):
    """Whether an array is in the memory of the processor."""
    return str(getattr(x, "device", "cpu")).startswith(("cpu", "TFRT_CPU"))


def block_rows(target, x):
    """Rows of a block: few enough for the cache, enough for the product to be worth its while.

    Each product reads and packs all the atoms: the higher the dimension, the more rows share that.
    """
    n_rows, (n_atoms, d) = x.shape[0], target.atoms.shape
    if on_host(x):
        row = n_atoms * target.nx.bitsize(target.atoms) // 8
        rows = min(max(select(target.nx).cache() // row, min(2 * d, SHARING)), MEMORY // row)
    else:
        rows = DEVICE_ENTRIES // n_atoms
    return equal_rows(n_rows, rows)


def stride(n, most):
    """From one to the next of at most so many of n points, evenly spaced.

    It is odd, for in a Sobol sequence every second point lies in the same half of the space.
    """
    return -(-n // most) // 2 * 2 + 1 if n > most else 1
