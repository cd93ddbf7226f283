"""From one backend, dtype or device to another."""

import sys
from importlib import import_module
from typing import Any

import numpy as np
from ot.backend import get_backend

from .arrays import Array
from .capabilities import capabilities


def template(name: str, where: Any, like: Array) -> Array:
    """Array of the backend, dtype and device that a user asks for; what is not said is that of `like`.

    `where` is an array, a dtype, float32 or float64, or a device of torch.
    """
    torch: Any = sys.modules.get("torch")
    bits, was_torch = get_backend(like).bitsize(like), capabilities(get_backend(like)).name == "torch"
    found: Any = where
    try:
        if isinstance(where, str) or (torch is not None and isinstance(where, torch.device)):
            torch = import_module("torch")
            found = torch.zeros(1, dtype=getattr(torch, f"float{bits}"), device=where)
        elif torch is not None and isinstance(where, torch.dtype):
            found = torch.zeros(1, dtype=where, device=like.device if was_torch else "cpu")
        elif isinstance(where, (type, np.dtype)):
            found = np.zeros(1, dtype=where)
        get_backend(found)
    except (AssertionError, ImportError, RuntimeError, TypeError, ValueError):
        found = None  # an AssertionError is that of a torch without CUDA
    if str(getattr(found, "dtype", None)).rsplit(".", 1)[-1] not in ("float32", "float64"):
        raise TypeError(
            f"{name}: expected an array, a NumPy dtype, or a torch dtype or device that is here, of "
            f"float32 or float64, received {where!r}."
        )
    return found


def in_double(array: Array) -> np.ndarray:
    """Numbers of an array of any backend on the host, in double precision."""
    nx = get_backend(array)
    return nx.to_numpy(nx.detach(array)).astype(float)


def converted(array: Array, like: Array) -> Array:
    """An array in the backend and on the device of another, and, but for whole numbers, in its dtype."""
    if isinstance(array, np.generic):  # a number of NumPy
        return converted(np.asarray(array), like)[()]
    nx = get_backend(array)
    host = nx.to_numpy(nx.detach(array))
    if not host.flags.writeable:  # torch warns of others
        host = host.copy()
    target = get_backend(like)
    if host.dtype.kind in "iu":
        return capabilities(target).index(host, like)
    return target.from_numpy(host, type_as=like)
