"""The cost of a batch to itself, half of which a Sinkhorn divergence takes off (Feydy et al., 2019)."""

import torch

from ..backend import Array
from ..costs import Metric
from ..kernels import reduce
from ..plan import semi_dual
from ..problem import Target, build_target


def self_target(x: torch.Tensor, metric: Metric, reg: float, n_iter: int = 20) -> tuple[Target, Array]:
    """The law of the points `x` as a target, and its potential to itself.

    By the symmetric iteration ``phi <- (phi + phi^{c,reg}) / 2``.
    """
    target = build_target(x.detach(), metric=metric, merge=False)
    points, potential = target.atoms, 0.0 * target.weights
    for _ in range(n_iter):
        potential = (potential + reduce(target, points, potential, reg).c_transform) / 2.0
    return target, potential


def self_cost(x: torch.Tensor, metric: Metric, reg: float) -> torch.Tensor:
    """Cost of the points to themselves, with the target held: its derivative in x is half the whole."""
    target, potential = self_target(x, metric, reg)
    return semi_dual(target, target.center(x), potential, reg)


def self_gradient(x: torch.Tensor, metric: Metric, reg: float) -> tuple[torch.Tensor, torch.Tensor]:
    """c-transform of the self-potential at each point, shape (n,), and its gradient, shape (n, d)."""
    target, potential = self_target(x, metric, reg)
    out = reduce(target, target.atoms, potential, reg, ("c_transform", "gradient"))
    return out.c_transform, out.gradient
