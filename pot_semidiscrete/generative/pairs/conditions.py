"""Conditions of data points, and their weight beside the points."""

from typing import Any

import ot
import torch
from ot.backend import get_backend

from ...backend import describe
from ...backend.torch_backend import TorchRandom
from ...problem import check_points, flat_rows
from .space import PairingSpace
from .streams import NoiseLaw, permutation


def check_conditions(conditions: Any, like: torch.Tensor) -> torch.Tensor:
    """Check conditions, one of any shape for each data point; as rows like those of the data."""
    if not isinstance(conditions, torch.Tensor):
        raise TypeError(
            f"conditions: expected a tensor, received {describe(conditions)}; give "
            "torch.as_tensor(conditions)."
        )
    found = conditions.to(like) if conditions.ndim != 1 else conditions.to(like)[:, None]
    rows, _ = check_points("conditions", flat_rows(found, get_backend(like)))
    if rows.shape[0] != like.shape[0]:
        raise ValueError(
            f"conditions: expected {like.shape[0]} rows, one for each point, received "
            f"{describe(conditions)}."
        )
    return rows


def balanced_weight(
    space: PairingSpace,
    law: NoiseLaw,
    atoms: torch.Tensor,
    conditions: torch.Tensor,
    random: TorchRandom,
    tolerance: float = 0.02,
) -> float:
    """Three times the smallest weight of conditions, to 10%, at which pairs agree in them.

    Plain transport sends noise to data whatever its condition is, and so makes the law of the noise
    depend on the condition (Cheng and Schwing, 2025). As there, the weight is found by bisection on
    exact transport between mini-batches. The conditions of the noise are those of the data in another
    order, so that a large weight keeps them all. Three times: other noise lies farther out than any of a
    mini-batch, and at the smallest weight would still go to a cluster of another label. Pairs agree if a
    share `tolerance` is left of the squared distance that independent pairs have.
    """
    n = min(512, len(atoms))  # as solve_coupling tells: exact transport of more takes long
    few = permutation(random, len(atoms))[:n]
    noise, others = space.points(law.draw(n, random)), few[permutation(random, n)]
    costs = torch.cdist(noise, atoms[few]) ** 2
    condition_costs = torch.cdist(conditions[others], conditions[few]) ** 2
    mean, independent = costs.mean(), condition_costs.mean()
    if mean == 0.0 or independent == 0.0:
        return 0.0
    costs, condition_costs = costs / mean, condition_costs / independent
    uniform = torch.full_like(costs[0], 1.0 / len(costs))
    low, high = 1e-3, 1e3  # of the unit, in which both costs are alike
    while high > 1.1 * low:
        middle = (low * high) ** 0.5
        plan = ot.emd(uniform, uniform, costs + middle * condition_costs)
        agree = float((plan * condition_costs).sum()) <= tolerance
        low, high = (low, middle) if agree else (middle, high)
    return 3.0 * high * float(mean / independent)
