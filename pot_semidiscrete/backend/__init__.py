"""What a backend of POT can do beyond POT's own vocabulary, and what arrays tell of themselves."""

from importlib import import_module

from .arrays import (
    Array,
    Backend,
    all_finite,
    describe,
    equal_rows,
    is_foreign,
    is_traced,
    joined,
    largest_exponent,
    on_host,
    rounding_unit,
    stride,
)
from .capabilities import Capabilities, capabilities, full_precision, no_grad, register
from .conversion import converted, template
from .random import Random
from .registry import LazyRegistry, check_free

__all__ = [
    "Array",
    "Backend",
    "Capabilities",
    "LazyRegistry",
    "Random",
    "all_finite",
    "capabilities",
    "check_free",
    "converted",
    "describe",
    "equal_rows",
    "full_precision",
    "is_foreign",
    "is_traced",
    "joined",
    "largest_exponent",
    "no_grad",
    "on_host",
    "register",
    "rounding_unit",
    "stride",
    "template",
]

register("torch", lambda: import_module(".torch_backend", __name__).TorchCapabilities)
register("jax", lambda: import_module(".jax_backend", __name__).JaxCapabilities)
