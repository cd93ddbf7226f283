"""Ground costs: what a reduction needs to know of the metric.

A cost is ``c(x, y) = source_term(x) + target_term(y) - bilinear(x, y)``, so that the part that is a
matrix product is one, and the parts that depend on one point only never make a matrix.
"""

from collections.abc import Callable
from typing import TypeAlias

from ..backend import Backend, describe
from .angular import Correlation, Cosine
from .base import Cost, SeparableCost, Weights, cost_of, register_cost, registered_costs
from .checks import check_cost
from .custom import CallableMetric
from .euclidean import Cityblock, Euclidean, SqEuclidean
from .minkowski import Minkowski
from .scipy_metrics import ScipyMetric

__all__ = [
    "Cost",
    "SeparableCost",
    "Weights",
    "check_cost",
    "register_cost",
    "registered_costs",
]


Metric: TypeAlias = str | tuple | Callable | Cost | None
"""What users give as a metric; a tuple is a name and constants, ``("minkowski", 3)``."""


def resolve_metric(metric: Metric, nx: Backend) -> Cost:
    """Turn `metric` (None, a name, a callable, or a :class:`Cost`) into a :class:`Cost`."""
    if metric is None:
        return SqEuclidean()
    if isinstance(metric, Cost):
        return metric
    if isinstance(metric, tuple) and metric:
        return cost_of(metric[0], nx, *metric[1:])
    if isinstance(metric, type) and issubclass(metric, Cost):
        raise TypeError(
            f"metric: expected an instance of Cost, received {describe(metric)}; give "
            f"{metric.__name__}(...)."
        )
    return CallableMetric(metric) if callable(metric) else cost_of(metric, nx)
