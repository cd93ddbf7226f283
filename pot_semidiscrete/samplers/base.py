"""The contract of a sampler, and the registry of those with a name."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from ..backend import Array, Random


class Sampler(ABC):
    """A source that can be asked for points. To write one, give it ``__call__``.

    Points whose next ones depend on them are quasi-random: say so by :attr:`is_quasi_random`, and give
    :meth:`independent`, which standard errors need.
    """

    is_quasi_random = False

    @abstractmethod
    def __call__(self, n: int) -> Array:
        """Draw the next n points, shape (n, d)."""

    def independent(self, n: int) -> Array:
        """Draw n independent points of the same law, shape (n, d)."""
        return self(n)


class Law(Sampler):
    """A law of a dimension, drawn by a source of randomness of our own, whose state can be stored.

    Parameters
    ----------
    dimension : int
    random : Random
    """

    def __init__(self, dimension: int, random: Random) -> None:
        self.dimension, self.random = dimension, random

    def state_dict(self) -> dict[str, Any]:
        """Where the randomness is."""
        return self.random.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.random.load_state_dict(state)


_LAWS: dict[str, type[Law]] = {}


def register_law(*names: str) -> Callable[[type[Law]], type[Law]]:
    """Decorator: make a law known by these names, as a `sampler_source`."""

    def register(law: type[Law]) -> type[Law]:
        _LAWS.update(dict.fromkeys(names, law))
        return law

    return register


def registered_laws() -> dict[str, type[Law]]:
    """Laws that have a name."""
    return dict(_LAWS)
