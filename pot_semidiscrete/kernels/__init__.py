"""Reductions over (samples x atoms), and the kernels that make their blocks."""

from importlib import import_module

from .base import BLOCK_BYTES, Atoms, Kernel, kernel_for, register_kernel, registered_kernels
from .blocks import HardBlock, SoftBlock
from .checks import check_at, check_kernel
from .fused import fused_kernel
from .generic import GenericKernel
from .in_place import InPlaceKernel, exponent_floor
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
from .shared import all_sums, local_rows, ranks_at

__all__ = [
    "HardBlock",
    "InPlaceKernel",
    "Kernel",
    "SoftBlock",
    "check_kernel",
    "fused_kernel",
    "register_kernel",
    "registered_kernels",
]

register_kernel("", GenericKernel)
register_kernel("numpy", lambda: import_module(".numpy_kernel", __name__).NumpyKernel)
register_kernel("torch", lambda: import_module(".torch_kernel", __name__).TorchKernel)
