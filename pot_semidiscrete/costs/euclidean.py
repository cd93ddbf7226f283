"""Costs that depend on the difference of two points."""

import ot

from ..backend import Array, Backend, capabilities
from .base import Cost, SeparableCost, Weights, register_cost


@register_cost
class SqEuclidean(SeparableCost):
    """``|x - y|^2``."""

    name = "sqeuclidean"
    translation_invariant = True

    def source_term(self, x: Array, nx: Backend) -> Array:
        return nx.sum(x * x, axis=1)

    def target_term(self, y: Array, nx: Backend) -> Array:
        return nx.sum(y * y, axis=1)

    def factors(self, x: Array, y: Array, scale: float, nx: Backend) -> tuple[Array, Array]:
        return (2.0 * scale) * x, y

    def vjp(self, x: Array, y: Array, chi: Weights, nx: Backend) -> Array:
        return 2.0 * (x - chi.average(y))


@register_cost
class Euclidean(Cost):
    """``|x - y|``; its gradient at an atom is taken as 0, one of its subgradients."""

    name = "euclidean"
    translation_invariant = True

    def matrix(self, x: Array, y: Array, nx: Backend) -> Array:
        return capabilities(nx).distances(x, y)

    def vjp(self, x: Array, y: Array, chi: Weights, nx: Backend) -> Array:
        distance = self.matrix(x, y, nx)
        away, zero = distance > 0, 0.0 * distance
        share = nx.where(away, chi.dense() / nx.where(away, distance, zero + 1.0), zero)
        return x * nx.sum(share, axis=1)[:, None] - nx.dot(share, y)


@register_cost
class Cityblock(Cost):
    """``sum_k |x_k - y_k|``; its gradient takes ``sign(0) = 0``."""

    name = "cityblock"
    translation_invariant = True

    def matrix(self, x: Array, y: Array, nx: Backend) -> Array:
        return ot.dist(x, y, metric=self.name, nx=nx)

    def vjp(self, x: Array, y: Array, chi: Weights, nx: Backend) -> Array:
        weights = chi.dense()
        columns = [
            nx.sum(weights * nx.sign(x[:, k : k + 1] - y[None, :, k]), axis=1) for k in range(x.shape[1])
        ]
        return nx.stack(columns, axis=1)
