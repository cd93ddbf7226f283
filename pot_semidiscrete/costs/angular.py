"""Costs that depend on the directions of two points."""

from ..backend import Array, Backend
from .base import SeparableCost, Weights, register_cost


@register_cost
class Cosine(SeparableCost):
    """``1 - <x, y> / (|x| |y|)``."""

    name = "cosine"

    def target_term(self, y: Array, nx: Backend) -> Array:
        return 1.0 + 0.0 * y[:, 0]

    def factors(self, x: Array, y: Array, scale: float, nx: Backend) -> tuple[Array, Array]:
        return scale * self.direction(x, nx), self.direction(y, nx)

    def vjp(self, x: Array, y: Array, chi: Weights, nx: Backend) -> Array:
        along = self.direction(x, nx)
        mean = chi.average(self.direction(y, nx))
        radial = nx.einsum("ij,ij->i", along, mean)[:, None]
        return (radial * along - mean) / self.length(x, nx)

    def length(self, x: Array, nx: Backend) -> Array:
        """``|x|``, ``(n, 1)``; 1 for a zero vector, which is orthogonal to all."""
        squared = nx.einsum("ij,ij->i", x, x)[:, None]
        return nx.sqrt(nx.where(squared > 0, squared, 1.0 + 0.0 * squared))

    def direction(self, x: Array, nx: Backend) -> Array:
        """``x / |x|``."""
        return x / self.length(x, nx)


@register_cost
class Correlation(Cosine):
    """The cosine cost of the points less the mean of their coordinates."""

    name = "correlation"

    def length(self, x: Array, nx: Backend) -> Array:
        return super().length(x - nx.mean(x, axis=1)[:, None], nx)

    def direction(self, x: Array, nx: Backend) -> Array:
        return (x - nx.mean(x, axis=1)[:, None]) / self.length(x, nx)
