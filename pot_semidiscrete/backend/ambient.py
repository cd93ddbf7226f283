"""States that all code of a thread shares: the package's in its own code, the user's in the user's.

NumPy's error state and torch's inference mode and autocast change no result, for each public function
is :func:`ours`. What draws or watches (samplers, generators, callbacks) is called as a :func:`guest`, in
the states of the user. What is a part of the computation is not: metrics, kernels, features, potentials
that are networks, optimisers. torch's default dtype, which all threads share, and its default device, on
which user's functions may rely, stay as they are: here all tensors are made with both.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from .arrays import is_foreign
from .capabilities import imported

_outside = contextvars.ContextVar[tuple[Callable[[], AbstractContextManager], ...] | None](
    "pot_semidiscrete_outside", default=None
)  # the ways back; None outside of the package


@contextlib.contextmanager
def ours() -> Iterator[None]:
    """Context, or decorator, of the package's own states."""
    if _outside.get() is not None:
        yield
        return
    with contextlib.ExitStack() as stack:
        ways_back = []
        for context, way_back in (detour for kind in imported() for detour in kind.detours()):
            stack.enter_context(context)
            ways_back.append(way_back)
        stack.callback(_outside.reset, _outside.set(tuple(ways_back)))
        yield


@contextlib.contextmanager
def theirs() -> Iterator[None]:
    """Context of the states in which the public function was called."""
    with contextlib.ExitStack() as stack:
        ways_back = _outside.get() or ()
        stack.callback(_outside.reset, _outside.set(None))
        for way_back in ways_back:
            stack.enter_context(way_back())
        yield


def guest(function: Callable[..., Any]) -> Callable[..., Any]:
    """A user's function, to be called in the user's states; an object of the package stays as it is."""
    if not is_foreign(type(function)):
        return function

    def call(*arguments: Any, **options: Any) -> Any:
        with theirs():
            return function(*arguments, **options)

    return call
