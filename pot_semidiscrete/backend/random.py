"""Randomness of our own: no global generator is read or written."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from ot.backend import get_backend

from .arrays import Array, Backend


class Random(Protocol):
    """A source of random numbers in a backend, whose state can be stored."""

    def uniform(self, *shape: int) -> Array:
        """Uniform numbers in [0, 1)."""

    def normal(self, *shape: int) -> Array:
        """Standard normal numbers."""

    def integers(self, high: int, n: int) -> Array:
        """n whole numbers below `high`."""

    def state_dict(self) -> dict[str, Any]:
        """Where the source is."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""


class HostRandom:
    """Draws by a NumPy generator, moved to the backend and, by `index`, to the device of `like`."""

    def __init__(self, generator: np.random.Generator, like: Array, index: Callable) -> None:
        self.generator, self.like, self.index = generator, like, index

    @property
    def nx(self) -> Backend:
        """Backend of POT."""
        return get_backend(self.like)

    def uniform(self, *shape: int) -> Array:
        return self.nx.from_numpy(self.generator.random(shape), type_as=self.like)

    def normal(self, *shape: int) -> Array:
        return self.nx.from_numpy(self.generator.standard_normal(shape), type_as=self.like)

    def integers(self, high: int, n: int) -> Array:
        return self.index(self.generator.integers(high, size=n), self.like)

    def state_dict(self) -> dict[str, Any]:
        return _plain(self.generator.bit_generator.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.bit_generator.state = state


def _plain(state: Any) -> Any:
    """The state of a NumPy generator, without arrays."""
    if isinstance(state, dict):
        return {name: _plain(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray) else state
