"""Metrics that POT hands to :func:`scipy.spatial.distance.cdist`."""

import functools

import ot

from ..backend import Array, Backend, capabilities
from .base import Cost, register_cost


class ScipyMetric(Cost):
    """One of them, by its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.translation_invariant = name == "chebyshev"

    @classmethod
    def available(cls, nx: Backend) -> bool:
        return capabilities(nx).takes_scipy

    def matrix(self, x: Array, y: Array, nx: Backend) -> Array:
        return ot.dist(x, y, metric=self.name, nx=nx).astype(x.dtype)


for name in (
    "braycurtis",
    "canberra",
    "chebyshev",
    "dice",
    "hamming",
    "jaccard",
    "rogerstanimoto",
    "russellrao",
    "sokalsneath",
    "yule",
):
    register_cost(ScipyMetric, name, make=functools.partial(ScipyMetric, name))
