"""The contract of a sampler, and the registry of those with a name."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from ..backend import Array, Random, check_free, describe


class Sampler(ABC):
    """A source that can be asked for points. To write one, give it ``__call__``.

    Points on which the next ones depend, quasi-random ones say, need another method for standard errors,
    :meth:`independent`. Who has it is quasi-random.

    Attributes
    ----------
    is_quasi_random : bool
    has_independent_coordinates : bool
        Whether a class says that the coordinates of a point are independent of each other.
    """

    is_quasi_random = False
    has_independent_coordinates = False

    def __init_subclass__(cls, **options: object) -> None:
        """Tell whether a class is quasi-random by its method."""
        super().__init_subclass__(**options)
        cls.is_quasi_random = cls.independent is not Sampler.independent

    @abstractmethod
    def __call__(self, n: int) -> Array:
        """Draw the next n points, shape (n, d); fewer are taken as they come."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def independent(self, n: int) -> Array:
        """Draw n independent points of the same law, shape (n, d)."""
        return self(n)


class Law(Sampler):
    """A law of a dimension, drawn by a source of randomness of our own, whose state can be stored.

    A law with a parameter is a class for each value.

    Parameters
    ----------
    dimension : int
        Of the points, that of the atoms.
    random : Random
        Draws ``uniform(*shape)``, ``normal(*shape)`` and ``integers(high, n)`` in the backend.
    """

    def __init__(self, dimension: int, random: Random) -> None:
        self.dimension, self.random = dimension, random

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dimension})"

    def state_dict(self) -> dict[str, Any]:
        """Where the randomness is."""
        return self.random.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.random.load_state_dict(state)


_LAWS: dict[str, type[Law]] = {}


def register_law(*names: str) -> Callable[[type[Law]], type[Law]]:
    """Make a law known by these names, as a `sampler_source`: a decorator of its class.

    Parameters
    ----------
    *names : str
        What users give.

    Returns
    -------
    callable
        ``law -> law``.

    Raises
    ------
    TypeError
        If what is decorated is no subclass of :class:`Law`, is not made of a dimension and randomness,
        or has no name.
    ValueError
        If a name is that of another class.

    Examples
    --------
    >>> import numpy as np
    >>> from pot_semidiscrete import solve_semidiscrete
    >>> from pot_semidiscrete.samplers import Law, register_law
    >>> @register_law("symmetric_cube")
    ... class SymmetricCube(Law):
    ...     def __call__(self, n):
    ...         return 2.0 * self.random.uniform(n, self.dimension) - 1.0
    >>> atoms = np.random.default_rng(0).normal(size=(10, 2))
    >>> solve_semidiscrete(atoms, "symmetric_cube", reg=0.5, random_state=0).converged
    True
    """

    if not names or not all(isinstance(name, str) and name for name in names):
        raise TypeError('names: expected names, as in @register_law("name"), received none.')

    def register(law: type[Law]) -> type[Law]:
        if not (isinstance(law, type) and issubclass(law, Law)):
            raise TypeError(f"law: expected a subclass of Law, received {describe(law)}.")
        _check_can_be_made(law)
        for name in names:
            check_free(name, _LAWS, law)
        _LAWS.update(dict.fromkeys(names, law))
        return law

    return register


def _check_can_be_made(law: type[Law]) -> None:
    """Check that a law is a class the solver can make, by ``law(dimension, random)``."""
    if inspect.isabstract(law):
        raise TypeError(f"law: expected a class with a __call__(n), received {law.__name__} without.")
    try:
        inspect.signature(law).bind(1, None)
    except TypeError as error:
        raise TypeError(
            f"law: expected a class made by {law.__name__}(dimension, random), received another "
            f"({error}); leave __init__ out, and make a subclass for each value of a parameter."
        ) from None


def registered_laws() -> dict[str, type[Law]]:
    """Laws that have a name."""
    return dict(_LAWS)
