"""What a backend can do beyond POT's vocabulary: one class each, the only place that knows its name.

Fitting is done without a graph. What users differentiate is one of two things: a value whose gradients
are known (the envelope theorem, :meth:`Capabilities.with_gradients`), or anything else, by recomputing
each block when it is needed (:meth:`Capabilities.checkpoint`), so that memory stays that of a block.
"""

import contextlib
import functools
import operator
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from ot.backend import get_backend

from .arrays import Array, Backend, describe, is_traced, slices
from .random import HostRandom, Random
from .registry import LazyRegistry

Evaluate = Callable[..., tuple[Array, tuple[Array | None, ...]]]
Detour = tuple[AbstractContextManager, Callable[[], AbstractContextManager]]
"""A context without some state, and what makes the context that leads back to it."""


class Capabilities:
    """Those of a backend that neither differentiates nor has devices; subclasses say more."""

    differentiates = False  # whether any function can be differentiated
    takes_scipy = False  # whether SciPy's functions take its arrays

    def __init__(self, nx: Backend) -> None:
        self.nx = nx

    @property
    def name(self) -> str:
        """POT's name of the backend."""
        return self.nx.__name__

    def tracks_gradient(self, *arrays: Array) -> bool:
        """Tell whether a gradient may be asked for with respect to one of the arrays."""
        return any(is_traced(a) for a in arrays)

    def no_grad(self) -> AbstractContextManager:
        """Context in which no graph is recorded."""
        return contextlib.nullcontext()

    @staticmethod
    def detours() -> list[Detour]:
        """Around those states that all code of a thread shares and that would change results."""
        return []

    def require_autograd(self, name: str) -> None:
        """Refuse to differentiate in a state of the user in which the library never does."""

    def owned(self, x: Array) -> Array:
        """An array that can take part in whatever is differentiated: `x`, or a copy; no array stays."""
        return x

    def eager(self) -> AbstractContextManager:
        """Context in which known arrays are computed with at once, though a function is traced."""
        return contextlib.nullcontext()

    def checkpoint(self, function: Callable) -> Callable:
        """The function, recomputed when it is differentiated: only its inputs are kept."""
        return function

    def with_gradients(self, evaluate: Evaluate, *arrays: Array) -> Array:
        """A value of arrays whose gradients are known, to be differentiated once.

        `evaluate` is ``(arrays, needed) -> value, gradients``, `needed` a bool for each array; the
        gradients of those that are not needed may be None.
        """
        return evaluate(arrays, (False,) * len(arrays))[0]

    def vjp(self, function: Callable, x: Array, cotangent: Array) -> Array:
        """``sum_i cotangent_i d function_i / dx``."""
        raise TypeError(f"the {self.name} backend does not differentiate.")

    def pullback(self, generator: Callable, theta: Any, z: Array, cotangent_of: Callable) -> tuple:
        """Value at ``points = generator(theta, z)``, and gradient in theta, an array or a tree of them.

        `cotangent_of` is ``points -> (value, cotangent)``, the cotangent of the shape of the points.
        """
        raise TypeError(
            f"vjp: expected a callable (theta, z, cotangent) -> gradient, for the {self.name} backend "
            "does not differentiate; give vjp, or use torch or jax."
        )

    def distances(self, x: Array, y: Array) -> Array:
        """Euclidean distances, ``(n, m)``, by differences; their derivative at 0 is 0.

        The expanded square ``|x|^2 - 2 <x, y> + |y|^2`` cancels near an atom. Differences are made for
        16 coordinates at once: memory does not grow with the dimension, and a compiler has few of them.
        """
        nx = self.nx
        parts = ((x[:, None, part], y[None, :, part]) for part in slices(x.shape[1], 16))
        squared = functools.reduce(operator.add, (nx.sum((a - b) ** 2, axis=2) for a, b in parts))
        # the square root has no derivative at 0: keep its argument away from it
        away, zero = squared > 0, 0.0 * squared
        return nx.where(away, nx.sqrt(nx.where(away, squared, zero + 1.0)), zero)

    @staticmethod
    def n_threads() -> int:
        """Threads that an operation of the calling thread may have; 1 if that is not known."""
        return 1

    @staticmethod
    def use_threads(n: int) -> None:
        """Let it have so many."""

    def cumulative(self, weights: Array) -> Array:
        """Cumulative sums of the rows of numbers of sum 1, up to a factor."""
        return self.nx.cumsum(weights, axis=1)

    @staticmethod
    def index(rows: np.ndarray, like: Array) -> Array:
        """Whole numbers of the host, on the device of `like`."""
        return get_backend(like).from_numpy(rows)

    def shared_seed(self) -> int | None:
        """Seed drawn by the generator that all code of the library shares; None if there is none."""
        return None

    def seeded(self, seed: int | None, like: Array) -> Random:
        """Random numbers like `like`, from a seed, or from one of the operating system."""
        return self.random_of(np.random.default_rng(seed), like)

    def random_of(self, generator: object, like: Array) -> Random:
        """Random numbers like `like`, of a user's generator, which is advanced."""
        if isinstance(generator, np.random.RandomState):
            generator = np.random.Generator(generator._bit_generator)
        if isinstance(generator, np.random.Generator):
            return HostRandom(generator, like, self.index)
        kind = type(generator)
        library = f"{kind.__module__.split('.')[0]} " if kind.__name__ == "Generator" else ""
        raise TypeError(
            "random_state: expected None, an int, a NumPy Generator or RandomState, or a torch "
            f"Generator with torch data, received {library}{describe(generator)}; give an int."
        )


@functools.cache
def blas_libraries() -> list[Any]:
    """Controllers of those that this process has loaded; none without threadpoolctl."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return []
    return ThreadpoolController().select(user_api="blas").lib_controllers


class NumpyCapabilities(Capabilities):
    """NumPy's arrays are SciPy's."""

    takes_scipy = True

    @staticmethod
    def detours() -> list[Detour]:
        states = np.geterr()
        calm: Any = {k: state if state == "ignore" else "warn" for k, state in states.items()}
        calm["under"] = "ignore"  # exponentials fall to 0
        return [(np.errstate(**calm), functools.partial(np.errstate, **states))]

    @staticmethod
    def n_threads() -> int:
        return max((library.num_threads for library in blas_libraries()), default=1)

    @staticmethod
    def use_threads(n: int) -> None:
        for library in blas_libraries():
            library.set_num_threads(n)

    def distances(self, x: Array, y: Array) -> Array:
        from scipy.spatial.distance import cdist

        return cdist(x, y).astype(x.dtype)


_REGISTRY: LazyRegistry[type[Capabilities]] = LazyRegistry()
_REGISTRY.register("", lambda: Capabilities)
_REGISTRY.register("numpy", lambda: NumpyCapabilities)


def register(name: str, load: Callable[[], type[Capabilities]]) -> None:
    """Say who knows the backend that POT calls `name`; `load` imports it when it is first met."""
    _REGISTRY.register(name, load)


def capabilities(nx: Backend) -> Capabilities:
    """Capabilities of a backend of POT."""
    return _REGISTRY[nx.__name__](nx)


def imported() -> list[type[Capabilities]]:
    """Those of the libraries that this process has imported."""
    return [_REGISTRY[name] for name in _REGISTRY.loaders() if sys.modules.get(name) is not None]


def no_grad(nx: Backend) -> AbstractContextManager:
    """Context in which no graph is recorded."""
    return capabilities(nx).no_grad()


def eager(nx: Backend) -> AbstractContextManager:
    """Context in which what is known of a traced function is a number, and can be looked at."""
    return capabilities(nx).eager()
