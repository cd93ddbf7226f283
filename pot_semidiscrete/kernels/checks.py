"""Whether a kernel keeps its contract, by the generic one."""

from ..backend import Array, rounding_unit
from .base import Atoms, Kernel
from .generic import GenericKernel

OUTPUTS = ("c_transform", "dense", "colsum", "colsquare")  # the last spends the block


def check_kernel(kernel: type[Kernel], target: Atoms, x: Array, potential: Array, reg: float) -> None:
    """Compare the blocks of a kernel with those of :class:`GenericKernel`, at a few points.

    Targets do so with each kernel that is not the package's own.

    Parameters
    ----------
    kernel : subclass of Kernel
        To be checked.
    target : Target
        Its backend is that of the kernel.
    x : array, shape (n, d)
        Points, in the coordinates of the target.
    potential : array, shape (n_support,)
        Any.
    reg : float
        Regularisation; 0 for :meth:`Kernel.hard`.

    Raises
    ------
    ValueError
        If a shape, a dtype or a number is another.

    Examples
    --------
    >>> import numpy as np
    >>> from pot_semidiscrete.kernels import check_kernel
    >>> from pot_semidiscrete.problem import build_target
    >>> target = build_target(np.eye(3))
    >>> check_kernel(target.kernel, target, np.zeros((2, 3)), np.zeros(3), 0.1)
    """
    nx, built = target.nx, kernel(target, potential, reg)
    block = built(x, None, built.prepare(x, x.shape[0]))
    generic = GenericKernel(target, potential, reg)(x)
    for name in OUTPUTS:
        found, expected = (getattr(b, name) for b in (block, generic))
        found, expected = (v() if callable(v) else v for v in (found, expected))
        facts = [(tuple(getattr(v, "shape", ())), getattr(v, "dtype", None)) for v in (found, expected)]
        if facts[0] != facts[1]:
            raise ValueError(
                f"kernel {kernel.__name__}: expected {name} of shape {facts[1][0]} and dtype "
                f"{facts[1][1]}, received shape {facts[0][0]}, dtype {facts[0][1]}."
            )
        error, size = (float(nx.max(nx.abs(nx.detach(v)))) for v in (found - expected, expected + 1.0))
        if not error <= 1e4 * rounding_unit(x, nx) * max(size, 1.0):
            raise ValueError(
                f"kernel {kernel.__name__}: expected {name} as that of GenericKernel, received one that "
                f"differs by {error:.2g} at reg = {reg:.2g}; see doc/extending.rst."
            )
