"""Whether the fused kernel can be had, and with which products."""

import functools
import logging
from importlib import import_module

from .base import Kernel

PRODUCTS = ["ieee", "tf32x3", "tf32", "bf16"]


@functools.cache
def known_fused_kernel() -> type[Kernel] | None:
    """The fused kernel; None, and said once, where Triton is not installed."""
    try:
        return import_module(".triton_kernel", __package__).TritonKernel
    except ImportError as error:
        logging.getLogger("pot_semidiscrete").info(
            "reductions on the GPU go by torch, in blocks, for Triton is not installed (%s)", error
        )
        return None


def fused_kernel(precision: str = "ieee") -> type[Kernel]:
    """Fused kernel for torch, in any dimension and with products of a given precision.

    Without it, float32 data on a GPU get one of ``"ieee"`` up to 64 coordinates, and blocks of scores
    above. Register it for others::

        register_kernel("torch", fused_kernel("tf32"))

    What it is not made for goes by torch as ever: the host, float64, costs of users, and those that are
    no product of matrices. All sums are of float32, whatever the products are of.

    Parameters
    ----------
    precision : str
        Of the products of points and atoms in the costs: ``"ieee"`` in float32; ``"tf32x3"`` nearly so,
        by tensor cores; ``"tf32"`` of numbers rounded to 11 bits, ``"bf16"`` to 8. Products over `reg`
        have to be small beside 2048 and 256 for these two: :doc:`/extending` has figures. Up to 8
        coordinates all are sums in float32.

    Returns
    -------
    subclass of Kernel

    Raises
    ------
    ValueError
        If there is no such precision.
    ImportError
        If Triton is not installed.

    Examples
    --------
    >>> from pot_semidiscrete.kernels import fused_kernel
    >>> fused_kernel("float8")
    Traceback (most recent call last):
        ...
    ValueError: precision: expected one of 'ieee', 'tf32x3', 'tf32', 'bf16', received 'float8'.
    """
    if precision not in PRODUCTS:
        known = ", ".join(map(repr, PRODUCTS))
        raise ValueError(f"precision: expected one of {known}, received {precision!r}.")
    kernel = known_fused_kernel()
    if kernel is None:
        raise ImportError(
            "fused_kernel: expected Triton, which is not installed; run pip install triton (Linux), or "
            "leave torch its own kernel."
        )
    return _of_precision(kernel, precision)


@functools.cache
def _of_precision(kernel: type[Kernel], precision: str) -> type[Kernel]:
    """The kernel of a precision, in any dimension."""
    facts = {"precision": precision, "most_coordinates": None, "__module__": kernel.__module__}
    return type(kernel.__name__, (kernel,), facts)
