"""Ground costs: what a sweep needs to know of the metric.

A cost is written ``c(x, y) = row(x) + column(y) - cross(x, y)``, so that the part that is a
matrix product is one, and the parts that depend on one point only never make a matrix.
"""

import ot
from scipy.spatial.distance import cdist

from . import envelope
from ._validation import all_finite, describe

SCIPY_METRICS = (
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
)


class Cost:
    """A cost known by its matrix only; subclasses say more.

    Attributes
    ----------
    name : str
        POT's name of the metric.
    translation_invariant : bool
        Whether moving both points by one vector leaves the cost alone: the data are then centred.
    """

    name = None
    translation_invariant = False

    def row(self, x, nx):
        """Part of the cost that depends on the source point only, ``(n,)``."""
        return 0.0 * x[:, 0]

    def column(self, y, nx):
        """Part of the cost that depends on the atom only, ``(n_atoms,)``."""
        return 0.0 * y[:, 0]

    def cross(self, x, y, scale, nx, matmul):
        """``scale`` times the part of minus the cost that depends on both, ``(n, n_atoms)``."""
        factors = self.factors(x, y, scale, nx)
        return -scale * self.matrix(x, y, nx) if factors is None else matmul(*factors)

    def factors(self, x, y, scale, nx):
        """``u, v`` with ``u v^T`` the same as `cross`, ``(n, k)`` and ``(n_atoms, k)``, or None."""
        return None

    def matrix(self, x, y, nx):
        """Cost matrix, ``(n, n_atoms)``."""
        return ot.dist(x, y, metric=self.name, nx=nx)

    def mean_cross(self, x, y, block, nx):
        """``sum_j chi_ij cross_ij``, ``(n,)``, the weights given as a kernel's block."""
        return nx.sum(block.dense() * self.cross(x, y, 1.0, nx, lambda u, v: nx.dot(u, v.T)), axis=1)

    def pullback(self, x, y, block, nx):
        """``sum_j chi_ij d_x c(x_i, y_j)``, ``(n, d)``, the weights given as a kernel's block."""
        raise TypeError(
            f"metric {self.name!r}: its gradient in the source points is not known on the "
            f"{nx.__name__} backend; use 'sqeuclidean', 'euclidean', 'cityblock', 'cosine' or "
            "'correlation', or give a differentiable callable with torch or jax."
        )


class SqEuclidean(Cost):
    """``|x - y|^2``."""

    name = "sqeuclidean"
    translation_invariant = True

    def row(self, x, nx):
        return nx.sum(x * x, axis=1)

    column = row

    def factors(self, x, y, scale, nx):
        return (2.0 * scale) * x, y

    def mean_cross(self, x, y, block, nx):
        return 2.0 * nx.sum(x * block.average(y), axis=1)

    def pullback(self, x, y, block, nx):
        return 2.0 * (x - block.average(y))


class Euclidean(Cost):
    """``|x - y|``; its gradient at an atom is taken as 0, one of its subgradients."""

    name = "euclidean"
    translation_invariant = True

    def matrix(self, x, y, nx):
        # near an atom, the expanded square |x|^2 - 2 <x, y> + |y|^2 cancels: take differences
        if nx.__name__ == "numpy":
            return cdist(x, y).astype(x.dtype)
        if nx.__name__ == "torch":
            return envelope.exact_distances(x, y)
        squared = nx.sum((x[:, None, :] - y[None, :, :]) ** 2, axis=2)
        # the square root has no derivative at 0: keep its argument away from it
        away = squared > 0
        zero = 0.0 * squared
        return nx.where(away, nx.sqrt(nx.where(away, squared, zero + 1.0)), zero)

    def pullback(self, x, y, block, nx):
        distance = self.matrix(x, y, nx)
        away = distance > 0
        zero = 0.0 * distance
        share = nx.where(away, block.dense() / nx.where(away, distance, zero + 1.0), zero)
        return x * nx.sum(share, axis=1)[:, None] - nx.dot(share, y)


class Cityblock(Cost):
    """``sum_k |x_k - y_k|``; its gradient takes ``sign(0) = 0``."""

    name = "cityblock"
    translation_invariant = True

    def pullback(self, x, y, block, nx):
        weights = block.dense()
        columns = [
            nx.sum(weights * nx.sign(x[:, k : k + 1] - y[None, :, k]), axis=1) for k in range(x.shape[1])
        ]
        return nx.stack(columns, axis=1)


class Cosine(Cost):
    """``1 - <x, y> / (|x| |y|)``."""

    name = "cosine"

    def column(self, y, nx):
        return 1.0 + 0.0 * y[:, 0]

    def factors(self, x, y, scale, nx):
        return scale * self._direction(x, nx), self._direction(y, nx)

    def matrix(self, x, y, nx):
        return 1.0 - nx.dot(self._direction(x, nx), self._direction(y, nx).T)

    def pullback(self, x, y, block, nx):
        along = self._direction(x, nx)
        mean = block.average(self._direction(y, nx))
        radial = nx.einsum("ij,ij->i", along, mean)[:, None]
        return (radial * along - mean) / self._length(x, nx)

    @staticmethod
    def _length(x, nx):
        squared = nx.einsum("ij,ij->i", x, x)[:, None]
        # a zero vector is orthogonal to all
        return nx.sqrt(nx.where(squared > 0, squared, 1.0 + 0.0 * squared))

    def _direction(self, x, nx):
        return x / self._length(x, nx)


class Correlation(Cosine):
    """The cosine cost of the points less the mean of their coordinates."""

    name = "correlation"

    @staticmethod
    def _length(x, nx):
        return Cosine._length(x - nx.mean(x, axis=1)[:, None], nx)

    def _direction(self, x, nx):
        return (x - nx.mean(x, axis=1)[:, None]) / self._length(x, nx)


class ScipyMetric(Cost):
    """A metric that POT hands to :func:`scipy.spatial.distance.cdist` (NumPy only)."""

    def __init__(self, name):
        self.name = name
        self.translation_invariant = name == "chebyshev"

    def matrix(self, x, y, nx):
        return super().matrix(x, y, nx).astype(x.dtype)


class CallableMetric(Cost):
    """A user's ``metric(x, y) -> (n, n_atoms)``; what it returns is checked at each call."""

    def __init__(self, metric):
        self.metric = metric
        self.name = getattr(metric, "__name__", type(metric).__name__)

    def matrix(self, x, y, nx):
        C = self.metric(x, y)
        expected = (x.shape[0], y.shape[0])
        if not hasattr(C, "shape") or tuple(C.shape) != expected or C.dtype != x.dtype:
            raise ValueError(
                f"metric: expected a matrix of shape {expected} and dtype {x.dtype}, received "
                f"{describe(C)}; metric(x, y) takes (n, d) and (m, d) and returns (n, m)."
            )
        if not all_finite(C, nx):
            raise ValueError("metric: expected finite costs, received NaN or inf.")
        return C

    def pullback(self, x, y, block, nx):
        if nx.__name__ not in ("torch", "jax"):
            return super().pullback(x, y, block, nx)
        return envelope.metric_pullback(lambda points: self.matrix(points, y, nx), x, block.dense(), nx)


_NAMED = {cost.name: cost for cost in (SqEuclidean, Euclidean, Cityblock, Cosine, Correlation)}
_NAMED["minkowski"] = Euclidean  # ot.dist's exponent is 2 unless told


def resolve_metric(metric, nx):
    """Turn `metric` (None, a name, or a callable) into a :class:`Cost`."""
    if metric is None:
        return SqEuclidean()
    if callable(metric):
        return CallableMetric(metric)
    names = tuple(_NAMED) + (SCIPY_METRICS if nx.__name__ == "numpy" else ())
    if not isinstance(metric, str):
        raise TypeError(
            f"metric: expected None, a name or a callable (x, y) -> matrix, received {describe(metric)}."
        )
    if metric not in names:
        raise ValueError(
            f"metric: expected a callable or, on the {nx.__name__} backend, one of {', '.join(names)}, "
            f"received {metric!r}."
        )
    return _NAMED[metric]() if metric in _NAMED else ScipyMetric(metric)
