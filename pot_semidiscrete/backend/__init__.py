"""What a backend of POT can do beyond POT's own functions, and helpers for its arrays."""

from importlib import import_module

from .ambient import guest, ours, theirs
from .arrays import (
    Array,
    Backend,
    NotFiniteError,
    all_finite,
    brief,
    check_plain,
    describe,
    equal_rows,
    finfo,
    is_bool,
    is_foreign,
    is_traced,
    joined,
    largest_exponent,
    on_host,
    rounding_unit,
    says_stop,
    slices,
    stride,
)
from .capabilities import Capabilities, capabilities, eager, no_grad, register
from .conversion import converted, in_double, template
from .interrupts import uninterrupted
from .random import Random
from .ranks import joint, ranks_of
from .registry import LazyRegistry, check_free

register("torch", lambda: import_module(".torch_backend", __name__).TorchCapabilities)
register("jax", lambda: import_module(".jax_backend", __name__).JaxCapabilities)
