"""A cost that the user gives as a function."""

from collections.abc import Callable

from ..backend import Array, Backend, all_finite, check_plain, describe
from .base import Cost


class CallableMetric(Cost):
    """A user's ``metric(x, y) -> (n, n_atoms)``; what it returns is checked at each call."""

    def __init__(self, metric: Callable) -> None:
        self.metric = metric
        self.name = getattr(metric, "__name__", type(metric).__name__)

    def matrix(self, x: Array, y: Array, nx: Backend) -> Array:
        C = self.metric(x, y)
        check_plain("metric", C)
        expected = (x.shape[0], y.shape[0])
        if not hasattr(C, "shape") or tuple(C.shape) != expected or C.dtype != x.dtype:
            raise ValueError(
                f"metric: expected a matrix of shape {expected} and dtype {x.dtype}, received "
                f"{describe(C)}; metric(x, y) takes (n, d) and (m, d) and returns (n, m)."
            )
        if not all_finite(C, nx):
            raise ValueError("metric: expected finite costs, received NaN or inf.")
        return C
