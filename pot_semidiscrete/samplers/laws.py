"""Laws with a name, as POT has them, and samplers of what users give instead."""

from typing import Any

from ..backend import Array, Random, theirs
from .base import Law, Sampler, register_law


@register_law("unif", "unif_cube")
class UniformSampler(Law):
    """Uniform on the unit cube."""

    has_independent_coordinates = True

    def __call__(self, n: int) -> Array:
        return self.random.uniform(n, self.dimension)


@register_law("spherical")
class SphericalSampler(Law):
    """Spherical uniform: in the unit ball, the direction uniform and the radius on [0, 1]."""

    def __call__(self, n: int) -> Array:
        direction = self.random.normal(n, self.dimension)
        length = (direction**2).sum(1)[:, None] ** 0.5
        return direction / length * self.radius(self.random.uniform(n, 1))

    def radius(self, u: Array) -> Array:
        """Radii of points, from uniform numbers."""
        return u


@register_law("ball", "unif_ball")
class BallSampler(SphericalSampler):
    """Uniform on the unit ball."""

    def radius(self, u: Array) -> Array:
        return u ** (1.0 / self.dimension)


@register_law("normal")
class NormalSampler(Law):
    """Standard normal."""

    has_independent_coordinates = True

    def __call__(self, n: int) -> Array:
        return self.random.normal(n, self.dimension)


class RowSampler(Sampler):
    """Rows of an array, drawn uniformly with replacement."""

    def __init__(self, rows: Array, random: Random) -> None:
        self.rows, self.random = rows, random

    def __repr__(self) -> str:
        return f"RowSampler(n={self.rows.shape[0]})"

    def __call__(self, n: int) -> Array:
        return self.rows[self.random.integers(self.rows.shape[0], n)]


class CallableSampler(Sampler):
    """A user's ``n -> points``; quasi-random if it has a method `independent`."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.is_quasi_random = hasattr(function, "independent")

    def __repr__(self) -> str:
        return f"CallableSampler({getattr(self.function, '__name__', type(self.function).__name__)})"

    def __call__(self, n: int) -> Array:
        with theirs():
            return self.function(n)

    def independent(self, n: int) -> Array:
        with theirs():
            return (self.function.independent if self.is_quasi_random else self.function)(n)
