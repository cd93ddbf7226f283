"""What a backend of POT can do beyond POT's own vocabulary, and what arrays tell of themselves."""

from .arrays import (
    Array,
    Backend,
    all_finite,
    describe,
    equal_rows,
    is_foreign,
    is_traced,
    joined,
    on_host,
    rounding_unit,
    stride,
)
from .capabilities import Capabilities, capabilities, full_precision, no_grad, register
from .random import Random

__all__ = [
    "Array",
    "Backend",
    "Capabilities",
    "Random",
    "all_finite",
    "capabilities",
    "describe",
    "equal_rows",
    "full_precision",
    "is_foreign",
    "is_traced",
    "joined",
    "no_grad",
    "on_host",
    "register",
    "rounding_unit",
    "stride",
]


def _torch() -> type[Capabilities]:
    from .torch_backend import TorchCapabilities

    return TorchCapabilities


def _jax() -> type[Capabilities]:
    from .jax_backend import JaxCapabilities

    return JaxCapabilities


register("torch", _torch)
register("jax", _jax)
