"""The public door: every argument is checked here, and trusted inside."""

import contextlib
import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
from ot.backend import get_backend

from ..backend import (
    Array,
    Backend,
    NotFiniteError,
    all_finite,
    check_plain,
    describe,
    eager,
    is_bool,
    is_foreign,
    is_traced,
)

POSITIONS = "an array of shape (n, d), float32 or float64"
_LONGEST = {32: 1e15, 64: 1e75}  # by bits: sums of squares are finite; in float64, of squares of these


def check_points(name: str, X: Any, like: Array | None = None) -> tuple[Array, Backend]:
    """Check points, shape (n, d), and tell their backend; with `like`, they are of its kind."""
    if isinstance(X, (list, tuple)):
        with contextlib.suppress(ValueError, TypeError):  # ragged: reported below as what it is
            rows = np.asarray(X)
            if rows.dtype.kind not in "fiu":
                raise ValueError
            X = rows if like is None else get_backend(like).from_numpy(rows, type_as=like)
    check_plain(name, X)
    try:
        nx = get_backend(X)
    except ValueError:
        raise TypeError(
            f"{name}: expected {POSITIONS}, of a backend POT knows, received {describe(X)}; "
            f"{remedy_for(X)}."
        ) from None
    if like is not None:
        check_same_kind(name, X, like)
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(
            f"{name}: expected {POSITIONS}, n and d at least 1, received {describe(X)}; "
            "reshape it to one row per point."
        )
    if str(X.dtype).rsplit(".", 1)[-1] not in ("float32", "float64"):
        raise TypeError(
            f"{name}: expected {POSITIONS}, received {describe(X)}; cast it, e.g. to float32."
        )
    if like is not None and X.shape[1] != like.shape[1]:
        raise ValueError(
            f"{name}: expected {like.shape[1]} columns, one for each coordinate of the atoms, "
            f"received {describe(X)}."
        )
    remedy = "clean the data first" if like is None else "see what made them"
    check_lengths(name, X, nx, remedy, least=like is None)
    return X, nx


def remedy_for(X: object) -> str:
    """How what is no array becomes one."""
    if hasattr(X, "shape") and not is_foreign(type(X)):  # atoms that are not in memory
        return "give it to solve_semidiscrete or to a SemiDiscreteLoss"
    if hasattr(X, "to_numpy"):  # pandas, polars
        return 'give its numbers, to_numpy().astype("float32")'
    if hasattr(X, "tensors"):
        return "give its points, dataset.tensors[0]"
    if hasattr(X, "__getitem__") and hasattr(X, "__len__") and not isinstance(X, str):
        return "give its points, generative.stack_dataset(dataset)"
    if hasattr(X, "dataset"):
        return "give its points, torch.cat([x for x, *_ in loader])"
    return "convert it to a NumPy array or a torch tensor"


def check_array(name: str, X: Any) -> None:
    """Refuse what is no array: users' functions return those of the backend, and no lists."""
    if not hasattr(X, "shape") or not hasattr(X, "dtype"):
        raise TypeError(f"{name}: expected {POSITIONS}, received {describe(X)}.")


def check_lengths(name: str, X: Array, nx: Backend, remedy: str, *, least: bool = False) -> None:
    """Check that points are finite, and their squares neither overflow nor, with `least`, all underflow.

    Entries or squares that are not finite are a NotFiniteError, squares that all underflow a ValueError.
    """
    if is_traced(X):
        return
    longest = _LONGEST[nx.bitsize(X)]
    with eager(nx):
        length = float(nx.max(nx.abs(nx.detach(X)))) * X.shape[1] ** 0.5
    if (length == 0 or not least or length >= 1.0 / longest) and length <= longest:
        return
    if not all_finite(X, nx):
        raise NotFiniteError(f"{name}: expected finite numbers, received NaN or inf; {remedy}.")
    error = NotFiniteError if length > longest else ValueError
    raise error(
        f"{name}: expected a longest point of length {1.0 / longest:.0e} to {longest:.0e}, whose "
        f"squares are finite in this dtype and not 0, received {length:.2g}; divide all data by "
        f"{length:.0e}."
    )


def check_same_kind(name: str, x: Array, like: Array) -> None:
    """Check that `x` has the backend, dtype and device of `like`."""
    check_plain(name, x)
    try:
        nx = get_backend(x, like)
    except ValueError:
        raise TypeError(
            f"{name}: expected the backend of X_target, {get_backend(like).__name__}, received "
            f"{describe(x)}; convert one of them."
        ) from None
    same_device = is_traced(x) or is_traced(like) or nx.dtype_device(x)[1] == nx.dtype_device(like)[1]
    if x.dtype != like.dtype or not same_device:
        raise TypeError(
            f"{name}: expected the dtype and device of X_target, {_kind(like, nx)}, received "
            f"{_kind(x, nx)}; cast or move one of them."
        )


def _kind(x: Array, nx: Backend) -> str:
    """Dtype and device of an array, in words."""
    dtype, device = nx.dtype_device(x)
    return f"{str(dtype).rsplit('.', 1)[-1]} on {device}"


def flat_rows(points: Any, nx: Backend) -> Any:
    """Points of any shape as one row each; what is no such thing is left for the checks."""
    shape: tuple[int, ...] = getattr(points, "shape", ())
    if len(shape) == 0 or 0 in shape or not hasattr(points, "reshape"):
        return points
    return nx.reshape(points, (shape[0], math.prod(shape[1:])))


def check_vector(name: str, v: Any, X_target: Array, nx: Backend) -> Array:
    """Check a finite vector with one entry for each atom."""
    if isinstance(v, (list, tuple)):
        try:
            if is_bool(np.asarray(v)):
                raise TypeError
            v = nx.from_numpy(np.asarray(v, dtype=float), type_as=X_target)
        except (TypeError, ValueError):
            raise TypeError(
                f"{name}: expected one number for each atom, received {describe(v)} of other things."
            ) from None
    if hasattr(v, "potential_b"):
        raise TypeError(
            f"{name}: expected one number for each atom, received a {type(v).__name__}; give its "
            "potential."
        )
    check_plain(name, v)
    if not hasattr(v, "shape") or tuple(v.shape) != (X_target.shape[0],):
        raise ValueError(
            f"{name}: expected shape ({X_target.shape[0]},), one entry for each row of X_target, "
            f"received {describe(v)}."
        )
    check_same_kind(name, v, X_target)
    with eager(nx):
        is_finite = all_finite(v, nx)
    if not is_finite:
        raise ValueError(f"{name}: expected finite numbers, received NaN or inf; see what made them.")
    return v


def check_weights(a_target: Any, X_target: Array, nx: Backend) -> Array:
    """Check weights of atoms: non-negative, of sum 1 to rounding; `None` is uniform."""
    n_atoms = X_target.shape[0]
    if a_target is None:
        return 0.0 * X_target[:, 0] + 1.0 / n_atoms
    a_target = check_vector("a_target", a_target, X_target, nx)
    if is_traced(a_target):
        return a_target
    with eager(nx):
        host = nx.to_numpy(nx.detach(a_target))
    total = float(np.sum(host, dtype=float))
    if host.min() < 0:
        raise ValueError("a_target: expected non-negative weights, received a negative one.")
    with np.errstate(over="ignore"):
        was_single = bool((host == host.astype(np.float32)).all())  # before they were cast
    if abs(total - 1.0) > (1e-4 if was_single else 1e-8):
        raise ValueError(
            f"a_target: expected weights of sum 1, received sum {total:.10g}; divide them by their sum."
        )
    return a_target / total


def check_real(name: str, value: Any, *, positive: bool = False) -> float:
    """Check a finite real number, at least 0 (or above 0)."""
    try:
        if isinstance(value, (str, bytes)) or is_bool(value):
            raise TypeError
        number = float(value)
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a real number, received {describe(value)}.") from None
    if not math.isfinite(number) or number < 0 or (positive and number == 0):
        bound = "above 0" if positive else "at least 0"
        raise ValueError(f"{name}: expected a finite number {bound}, received {number}.")
    return number


def check_bool(name: str, value: Any) -> bool:
    """Check a truth value; 1 and 0 are also understood."""
    if not isinstance(value, (bool, np.bool_, numbers.Integral)) or value not in (0, 1):
        raise TypeError(f"{name}: expected True or False, received {describe(value)}.")
    return bool(value)


def check_count(name: str, value: Any, minimum: int = 1) -> int:
    """Check a whole number of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected a whole number, received {describe(value)}.")
    if value < minimum:
        raise ValueError(f"{name}: expected a whole number of at least {minimum}, received {value}.")
    return int(value)


def check_callable(name: str, value: Any, signature: str) -> Callable:
    """Check that `value` can be called; `signature` says how."""
    if not callable(value):
        raise TypeError(f"{name}: expected a callable {signature}, received {describe(value)}.")
    return value
