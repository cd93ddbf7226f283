"""The units of a problem: of costs, of lengths, of curvature."""

import math

import numpy as np

from ..backend import is_traced, no_grad, stride
from ..costs import SqEuclidean
from ..kernels import mean_cost
from .target import Target

MOST_ROWS = 4096  # atoms whose costs to all are averaged, at most


def scale_of(target: Target) -> float:
    """Mean cost between two atoms drawn independently; of a user's metric below 0, its size."""
    nx, weights = target.nx, target.weights
    if isinstance(target.cost, SqEuclidean):
        # the atoms are centred: E|Y - Y'|^2 = 2 E|Y|^2
        return float(2.0 * nx.sum(weights * target.target_term))
    some = target.subset(slice(None, None, stride(weights.shape[0], MOST_ROWS)))
    share = some.weights / nx.sum(some.weights)
    return abs(float(nx.sum(weights * mean_cost(target, some.atoms, share))))


def spread_of(target: Target) -> float:
    """``(E |Y - Y'|^2)^(1/2)``."""
    nx, b = target.nx, target.weights
    mean = target.mean
    squares = target.in_parts(lambda atoms: nx.sum((atoms - mean) ** 2, axis=1))
    return math.sqrt(2.0 * float(nx.sum(b * squares)))


def unit_curvature(target: Target) -> float:
    """``2 E c(Y, Y') / E |Y - Y'|^2``, which is 2 for the squared distance; 1 if all atoms are one."""
    if target.weights.shape[0] == 1:  # whose distance to itself may be a rounding
        return 1.0
    length, scale = spread_of(target), scale_of(target)
    return 2.0 * scale / length**2 if length > 0.0 and scale > 0.0 else 1.0


def rounding_of(target: Target) -> float:
    """Of a cost: that of the median between some of the atoms, which outliers do not move."""
    nx, n = target.nx, target.weights.shape[0]
    some = target.detached.subset(slice(None, None, stride(n, MOST_ROWS // 64)))
    with no_grad(nx):
        costs = some.cost_matrix(some.atoms)
    return 0.0 if is_traced(costs) else target.unit * float(np.median(np.abs(nx.to_numpy(costs))))
