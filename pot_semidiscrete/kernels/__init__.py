"""Reductions over (samples x atoms), and the kernels that make their blocks."""

from .base import Atoms, Block, Kernel, kernel_for, register_kernel, registered_kernels
from .blocks import HardBlock, SoftBlock
from .checks import check_kernel
from .generic import GenericKernel
from .in_place import InPlaceKernel
from .reduction import (
    Reduction,
    draw_atoms,
    expected_cost,
    known_bilinear,
    mean_cost,
    reduce,
    row_blocks,
    weight_blocks,
)

__all__ = [
    "Atoms",
    "Block",
    "GenericKernel",
    "HardBlock",
    "InPlaceKernel",
    "Kernel",
    "Reduction",
    "SoftBlock",
    "check_kernel",
    "draw_atoms",
    "expected_cost",
    "kernel_for",
    "known_bilinear",
    "mean_cost",
    "reduce",
    "register_kernel",
    "registered_kernels",
    "row_blocks",
    "weight_blocks",
]


def _numpy() -> type[Kernel]:
    from .numpy_kernel import NumpyKernel

    return NumpyKernel


def _torch() -> type[Kernel]:
    from .torch_kernel import TorchKernel

    return TorchKernel


register_kernel("", lambda: GenericKernel)
register_kernel("numpy", _numpy)
register_kernel("torch", _torch)
