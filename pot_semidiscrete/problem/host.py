"""Checks of what stays on the host: samples, images, labels, sizes, and parameters of any kind."""

import numbers
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from ot.backend import get_backend

from ..backend import Array, describe, is_bool
from .validation import check_count, check_plain


def check_numbers(
    name: str, values: Any, *, finite: bool = True, with_bools: bool = False
) -> np.ndarray:
    """Check numbers that NumPy takes as an array, in their own dtype; `with_bools`, 0 and 1, too."""
    check_plain(name, values)
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):  # ragged, on another device, or in a graph
        array = np.asarray(None)
    if array.dtype.kind not in ("biuf" if with_bools else "iuf"):
        raise TypeError(
            f"{name}: expected an array of real numbers, received {describe(values)}; convert it to a "
            "NumPy array (of a tensor, detach().cpu().numpy()); cast truth values, e.g. to float32."
        )
    if finite and not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, received NaN or inf; see what made them.")
    return array


def check_shares(name: str, values: Any, n: int | None = None) -> np.ndarray:
    """Check non-negative numbers of sum 1, n of them if that is known; in double precision."""
    shares = check_numbers(name, values).astype(float)
    if shares.ndim != 1 or len(shares) == 0 or n not in (None, len(shares)):
        raise ValueError(
            f"{name}: expected shape ({n or 'n'},), one for each, received shape {shares.shape}."
        )
    if shares.min() < 0.0 or abs(shares.sum() - 1.0) > 1e-4:
        raise ValueError(
            f"{name}: expected non-negative numbers of sum 1, received sum {shares.sum():.6g}, the "
            f"least of them {shares.min():.3g}; divide them by their sum."
        )
    return shares / shares.sum()


def check_images(
    name: str, images: Any, shape: tuple[int, ...] | None = None, *, least: int = 1
) -> np.ndarray:
    """Check at least so many images, grey or of channels, of a given shape if there is one."""
    array = check_numbers(name, images, with_bools=True)
    if array.ndim not in (3, 4) or array.size == 0 or len(array) < least:
        raise ValueError(
            f"{name}: expected an array of shape (n, height, width) or (n, channels, height, width), n "
            f"at least {least}, received {describe(array)}; give one image in each row."
        )
    if shape is not None and array.shape[1:] != shape:
        raise ValueError(
            f"{name}: expected images of shape {shape}, as the others are, received {describe(array)}."
        )
    return array


def check_labels(name: str, labels: Any) -> np.ndarray:
    """Check classes, whole numbers from 0."""
    try:
        array = check_numbers(name, labels, finite=False)
    except TypeError:
        array = np.zeros(1)
    if array.dtype.kind not in "iu":
        raise TypeError(
            f"{name}: expected whole numbers, one class for each image, received {describe(labels)}; "
            "number the classes from 0, and cast them to int."
        )
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(
            f"{name}: expected shape (n,), n at least 1, received {describe(labels)}; flatten it."
        )
    if array.min() < 0:
        raise ValueError(f"{name}: expected classes of at least 0, received {array.min()}.")
    return array


def check_counts(name: str, values: Any, *, least: int = 0) -> list[int]:
    """Check a sequence of whole numbers of at least 1, at least so many."""
    if not isinstance(values, (Sequence, np.ndarray)) or isinstance(values, (str, bytes)):
        raise TypeError(
            f"{name}: expected a sequence of whole numbers, received {describe(values)}; give a tuple."
        )
    if len(values) < least:
        raise ValueError(f"{name}: expected at least {least} numbers, received {len(values)}.")
    return [check_count(f"{name}[{k}]", value) for k, value in enumerate(values)]


def check_parameters(name: str, theta: Any, like: Array, *, differentiated: bool = False) -> Any:
    """Check parameters that hold numbers; users' generators know the kinds they take.

    A number becomes an array of shape () like `like`. Arrays of whole numbers are refused if a library
    is to differentiate in them.
    """
    check = lambda part: check_parameters(name, part, like, differentiated=differentiated)
    if isinstance(theta, dict):
        parts = {key: check(part) for key, part in theta.items()}
        return theta if all(parts[key] is theta[key] for key in theta) else parts
    if isinstance(theta, (list, tuple)):
        found = [check(part) for part in theta]
        make = getattr(theta, "_make", type(theta))  # a named tuple's is not its class
        return theta if all(map(operator.is_, found, theta)) else make(found)
    theta = number_as_array(theta, like)
    check_plain(name, theta)
    kind = getattr(getattr(theta, "dtype", None), "kind", "f")  # torch's have none
    if theta is None or isinstance(theta, (str, bytes)) or kind in "OSU" or is_bool(theta):
        raise TypeError(
            f"{name}: expected an array of numbers, or a list, tuple or dict of arrays, received "
            f"{describe(theta)}; give what generator(theta, z) takes."
        )
    dtype = str(getattr(theta, "dtype", "")).rsplit(".", 1)[-1]
    if differentiated and dtype.startswith(("int", "uint")):
        raise TypeError(
            f"{name}: expected floating numbers, received {describe(theta)}; cast it, or give vjp."
        )
    return theta


def number_as_array(value: Any, like: Array) -> Any:
    """A number as an array of shape () like `like`; all else as it is."""
    if isinstance(value, numbers.Real) and not is_bool(value):
        return get_backend(like).full((), float(value), type_as=like)
    return value
