"""Arrays of any backend: what they are, and how they are taken in parts."""

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from ot.backend import Backend as Backend

Array: TypeAlias = Any
"""An array of one of POT's backends: NumPy, torch, JAX, CuPy. They share no base class."""


class NotFiniteError(ValueError):
    """Points or their squares were NaN or infinite: of a generator in training, a divergence."""


def is_traced(x: Array) -> bool:
    """Tell whether `x` is a JAX tracer, whose numbers cannot be looked at."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(x, jax.core.Tracer)


def all_finite(x: Array, nx: Backend) -> bool:
    """Tell whether every entry of `x` is finite (tracers are trusted)."""
    if is_traced(x):
        return True
    x = nx.detach(x)
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(nx.sum(x))
    # a finite sum has finite terms; another may have overflowed
    return math.isfinite(total) or not bool(nx.any(~nx.isfinite(x)))


def describe(x: object) -> str:
    """Name the type, shape and dtype of `x` for an error message."""
    if isinstance(x, type):
        return f"the class {x.__name__}"
    shape = getattr(x, "shape", None) if is_foreign(type(x)) else None
    if shape is None:
        return f"{type(x).__name__} ({x!r})" if np.isscalar(x) else type(x).__name__
    library, dtype = type(x).__module__.split(".")[0], getattr(x, "dtype", None)
    if dtype is None:  # a frame of columns
        return f"{library} {type(x).__name__} of shape {tuple(shape)}"
    return f"{library} array of shape {tuple(shape)}, dtype {dtype}"


def brief(thing: Any) -> str:
    """A ``repr`` for what holds arrays: what is public in it and not None, arrays by their shapes."""
    values = {name: getattr(thing, name) for name in getattr(thing, "__dataclass_fields__", vars(thing))}
    facts = [f"{k}={_shown(v)}" for k, v in values.items() if v is not None and not k.startswith("_")]
    return f"{type(thing).__name__}({', '.join(facts)})"


def _shown(value: Any) -> str:
    """A value in a few words."""
    shape = getattr(value, "shape", ())
    if shape:
        return f"{str(value.dtype).rsplit('.', 1)[-1]}{tuple(shape)}"
    if isinstance(value, (list, dict)) and value:
        return f"{len(value)} entries"
    text = f"{value:.6g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 80 and " at 0x" not in text else type(value).__name__


def is_bool(x: object) -> bool:
    """Whether `x` is a truth value or an array of them, which Python would take for 0 and 1."""
    dtype = str(getattr(x, "dtype", type(x).__name__))
    return dtype.rsplit(".", 1)[-1] == "bool"


def says_stop(answer: Any) -> bool:
    """Whether a callback says that the run is to stop: True does, None and False do not."""
    if answer is not None and (not is_bool(answer) or getattr(answer, "ndim", 0) > 0):
        raise TypeError(
            f"callback: expected a return of True, to stop, or of False or None, received "
            f"{describe(answer)}; return nothing."
        )
    return bool(answer)


def check_plain(name: str, X: Any) -> None:
    """Refuse arrays of NumPy with rules of their own: masks would be ignored, ``*`` be a product."""
    if isinstance(X, np.ma.MaskedArray):
        raise TypeError(
            f"{name}: expected a plain array, received a masked one, whose mask would be ignored; leave "
            "its masked rows out, or fill them."
        )
    if isinstance(X, np.matrix):
        raise TypeError(
            f"{name}: expected a plain array, received a numpy.matrix; use np.asarray of it."
        )


def is_foreign(kind: type) -> bool:
    """Whether a class is not the package's own, and is to be checked."""
    return not kind.__module__.startswith(__name__.split(".")[0])


def on_host(x: Array) -> bool:
    """Whether an array is in the memory of the processor."""
    return str(getattr(x, "device", "cpu")).startswith(("cpu", "TFRT_CPU"))


def rounding_unit(x: Array, nx: Backend) -> float:
    """Distance from 1 to the next number of the dtype of `x`."""
    return float(finfo(x, nx).eps)


def largest_exponent(x: Array, nx: Backend) -> float:
    """Logarithm of the largest number of the dtype of `x`."""
    return math.log(float(finfo(x, nx).max))


def finfo(x: Array, nx: Backend) -> np.finfo:
    """Limits of the dtype of `x`."""
    return np.finfo("float32" if nx.bitsize(x) == 32 else "float64")


def stride(n: int, most: int) -> int:
    """From one to the next of at most so many of n points, evenly spaced.

    It is odd, for in a Sobol sequence every second point lies in the same half of the space.
    """
    return -(-n // most) // 2 * 2 + 1 if n > most else 1


def slices(n: int, step: int) -> Iterator[slice]:
    """Neighbours among n rows, so many at a time; the last may be fewer."""
    return (slice(start, min(start + step, n)) for start in range(0, n, step))


def equal_rows(n_rows: int, most: int) -> int:
    """Rows of blocks of equal length, none of a few rows."""
    return max(1, -(-n_rows // -(-n_rows // max(most, 1)))) if n_rows else 1


def joined(parts: Sequence[Array], nx: Backend, axis: int = 0) -> Array:
    """Arrays, one after the other in an axis."""
    return parts[0] if len(parts) == 1 else nx.concatenate(list(parts), axis=axis)
