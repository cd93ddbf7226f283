"""The Minkowski distance, which has an exponent and weights."""

import functools
import math
import numbers
import operator
from collections.abc import Iterator

import numpy as np

from ..backend import Array, Backend, describe, is_bool
from .base import Cost, Weights, register_cost


class Minkowski(Cost):
    r""":math:`(\sum_k w_k |x_k - y_k|^p)^{1/p}`, as in SciPy; ``("minkowski", p)`` as a metric.

    Its gradient at an atom is taken as 0, one of its subgradients.

    Parameters
    ----------
    p : float
        Exponent, at least 1.
    w : array-like, shape (d,), optional
        Weights of the coordinates, at least 0.

    Raises
    ------
    ValueError
        If one of them is not.

    Examples
    --------
    >>> import numpy as np
    >>> from pot_semidiscrete import cost_scale
    >>> round(cost_scale(np.array([[0.0, 0.0], [1.0, 2.0]]), metric=("minkowski", 3)), 4)
    1.04
    """

    translation_invariant = True

    def __init__(self, p: float | None = None, w: object = None) -> None:
        is_number = isinstance(p, numbers.Real) and not is_bool(p)
        if p is None or not is_number or not 1.0 <= float(p) < math.inf:
            raise ValueError(
                'metric: expected an exponent of at least 1, as in ("minkowski", 3), received '
                f'{"none" if p is None else describe(p)}; inf is "chebyshev".'
            )
        self.p, self.name = float(p), f"minkowski, p={float(p):g}"
        self.w: np.ndarray | None = None
        if w is None:
            return
        weights = np.asarray(w)
        is_real = weights.dtype.kind in "iuf" and weights.ndim == 1
        if not (is_real and (np.isfinite(weights) & (weights >= 0)).all()):
            raise ValueError(
                f"metric: expected weights of coordinates, at least 0, received {describe(w)}; give "
                'one for each, as in ("minkowski", 3, [1.0, 0.5]).'
            )
        self.w = weights.astype(float)
        self.name += f", w={self.w.tolist()}"

    def matrix(self, x: Array, y: Array, nx: Backend) -> Array:
        largest, powers = self._powers(x, y, nx, self.p)
        total = functools.reduce(operator.add, powers)
        return largest * total ** (1.0 / self.p)

    def vjp(self, x: Array, y: Array, chi: Weights, nx: Backend) -> Array:
        largest, powers = self._powers(x, y, nx, self.p)
        total = functools.reduce(operator.add, powers) + 0.0 * largest
        share = chi.dense() * nx.where(total > 0, total, 1.0 + 0.0 * total) ** (1.0 / self.p - 1.0)
        _, powers = self._powers(x, y, nx, self.p - 1.0)
        columns = [
            nx.sum(share * nx.sign(x[:, k : k + 1] - y[None, :, k]) * power, axis=1) * length
            for k, (length, power) in enumerate(zip(self._lengths(x), powers, strict=True))
        ]
        return nx.stack(columns, axis=1)

    def _lengths(self, x: Array) -> list[float]:
        """What differences of each coordinate are multiplied by: ``w_k^(1/p)``."""
        d = x.shape[1]
        if self.w is not None and len(self.w) != d:
            raise ValueError(
                f"metric: expected {d} weights, one for each coordinate, received {len(self.w)}."
            )
        return [1.0] * d if self.w is None else (self.w ** (1.0 / self.p)).tolist()

    def _powers(self, x: Array, y: Array, nx: Backend, p: float) -> tuple[Array, Iterator[Array]]:
        """Largest weighted difference of coordinates, and powers of all, in units of it, one by one."""
        lengths = self._lengths(x)
        differences = lambda: (
            v * nx.abs(x[:, k : k + 1] - y[None, :, k]) for k, v in enumerate(lengths)
        )
        largest = functools.reduce(nx.maximum, differences())
        unit = nx.where(largest > 0, largest, 1.0 + 0.0 * largest)
        return largest, ((part / unit) ** p for part in differences())


register_cost(Minkowski, "minkowski")
