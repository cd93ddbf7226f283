"""Couplings from what users have: data, results, losses."""

import math
from typing import Any

import torch

from ...backend import describe, ours
from ...plan import SemiDiscretePlan
from ..data import stacked
from ..potential import TrackedPotential
from .coupling import SemiDiscreteCoupling
from .groups import Groups
from .solving import solve_coupling
from .space import PairingSpace, Projection, check_projection
from .streams import NoiseLaw, stream


def coupling_of(
    plan: Any,
    noise: Any,
    labels: Any,
    projection: Projection,
    shape: tuple[int, ...] | None,
    random_state: Any,
) -> SemiDiscreteCoupling:
    """The coupling of what users have: data, a potential of them, or a coupling.

    Parameters
    ----------
    shape : tuple of int or None
        Of an item of the data that are returned.
    """
    plan = stacked(plan)
    if isinstance(plan, torch.Tensor):
        noise = "normal" if noise is None else noise
        options = {"labels": labels, "projection": projection, "random_state": random_state}
        return solve_coupling(plan, noise, **options)
    if labels is not None:
        raise ValueError(
            "labels: expected None with a potential that was solved without, by which the noise would "
            "depend on the label, received some; give labels to solve_coupling, and its coupling."
        )
    if isinstance(plan, SemiDiscreteCoupling):
        if noise is not None or projection is not None:
            raise ValueError(
                "noise, projection: expected None with a coupling, which has its own, received some; "
                "give them to solve_coupling."
            )
        return plan
    if not isinstance(plan, (SemiDiscretePlan, TrackedPotential)):
        raise TypeError(
            "plan: expected a coupling, a result, a loss or a tensor of data, received "
            f"{describe(plan)}."
        )
    with ours():
        return _coupling_of_potential(plan, "normal" if noise is None else noise, projection, shape)


def _coupling_of_potential(
    plan: SemiDiscretePlan | TrackedPotential,
    noise: Any,
    projection: Projection,
    shape: tuple[int, ...] | None,
) -> SemiDiscreteCoupling:
    """The coupling of a result, or of the present potential of a loss."""
    if isinstance(plan, TrackedPotential):
        loss, shape = plan, tuple(plan.shape)
        plan = SemiDiscretePlan(loss.target, loss.target.gather(loss.potential).clone(), loss.reg)
        if loss.features is not None and projection is None:
            projection = loss.rows
    elif not isinstance(plan._potential, torch.Tensor):
        plan = plan.to("cpu")  # as torch's tensors
    target, like = plan._target, plan._target.like
    projection = check_projection(projection, like)
    d = projection.shape[0] if isinstance(projection, torch.Tensor) else like.shape[1]
    if callable(projection) and shape is None:
        raise ValueError(
            "data: expected data of the shape of the noise with a callable projection, received None."
        )
    if shape is None or (not callable(projection) and math.prod(shape) != d):
        shape = (d,)
    space = PairingSpace(shape, projection)
    law, data = NoiseLaw(noise, like.new_zeros((1, space.dimension))), None
    if projection is None and target.shard is None:
        atoms = target.scatter(target.atoms[:]) + (0.0 if target.origin is None else target.origin)
        data = atoms.reshape(-1, *shape)
    weights = target.distribute(target.weights)
    groups = Groups.made(None, weights, len(weights), stream(0, like=weights))
    return SemiDiscreteCoupling([plan], groups, space, law, data)
