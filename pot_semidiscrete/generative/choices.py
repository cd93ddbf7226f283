"""What a training run is made of: what the caller chose, and what suits the data where nothing was."""

from dataclasses import dataclass
from typing import Any

import torch

from ..backend import describe, on_host
from ..problem import check_callable, check_count
from ..samplers.resolve import rank_seed, resolve_random
from .critic import GradientPenaltyCritic, resolve_critic
from .data import stacked
from .descents import COSTS, PairDescent
from .features import ImageFeatures
from .loss import SemiDiscreteLoss
from .shared import shared_target


@dataclass
class Parts:
    """What a training run is made of, beside its generator.

    Attributes
    ----------
    loss : SemiDiscreteLoss
    descent : PairDescent or None
        What rounds go down, if not the bounds of the loss.
    critic : GradientPenaltyCritic or None
    """

    loss: SemiDiscreteLoss
    descent: PairDescent | None = None
    critic: GradientPenaltyCritic | None = None


def parts_of_loss(loss: SemiDiscreteLoss, critic: Any, **options: Any) -> Parts:
    """Those of a loss of the user's, which has all options of its own but the critic."""
    if any(value is not None for value in options.values()):
        raise ValueError(
            f"{', '.join(options)}: expected None with a SemiDiscreteLoss, which has its own; give them "
            "to the loss, or give data."
        )
    if critic not in (None, False) and not isinstance(critic, GradientPenaltyCritic):
        raise TypeError(
            "critic: expected a GradientPenaltyCritic, which has data of its own, with a "
            f"SemiDiscreteLoss, received {describe(critic)}."
        )
    return Parts(loss, None, critic or None)


def parts_of_data(
    data: Any,
    batch_size: int,
    random_state: object,
    *,
    n_atoms: Any = None,
    features: Any = None,
    pair_cost: Any = None,
    critic: Any = None,
    reg: float | None = None,
    dual_steps: int | None = None,
    process_group: Any = None,
) -> Parts:
    """Those on data: None is what suits them, False is without."""
    data = stacked(data)
    n_atoms, features, pair_cost, critic = suited(data, n_atoms, features, pair_cost, critic)
    atoms = data if n_atoms is None else sample(data, n_atoms)
    loss = SemiDiscreteLoss(atoms, reg=reg, features=features, process_group=process_group)
    if reg is None:
        loss.reg *= 0.3  # rounds can follow at less than its own steps
    if dual_steps is not None:
        loss.dual_steps = check_count("dual_steps", dual_steps)
    elif not on_host(loss.potential):
        # a round is bound there by the number of its operations
        points = min(0.125 * loss.target.n_atoms, 8192)
        loss.dual_steps = max(loss.dual_steps, int(points) // batch_size)
    parts = Parts(loss)
    if pair_cost is None and critic is None:
        return parts
    nx, like = loss.target.nx, loss.potential
    random = resolve_random(rank_seed(shared_target(loss), random_state), nx, like)
    of_pairs, of_critic = random.integers(2**31, 2).tolist()
    if pair_cost is not None:
        parts.descent = PairDescent(loss, atoms, pair_cost, resolve_random(of_pairs, nx, like))
    parts.critic = resolve_critic(critic, data, of_critic)
    return parts


def suited(data: Any, n_atoms: Any, features: Any, pair_cost: Any, critic: Any) -> tuple[Any, ...]:
    """The options, checked: for images, those that were left out are what serves them best.

    4,000 atoms, compared by the main components of their :class:`ImageFeatures`; ``python -m
    benchmarks.training`` measures what each does.
    """
    if are_images(data):
        n_atoms = 4000 if n_atoms is None else n_atoms
        pair_cost = "cityblock" if pair_cost is None else pair_cost
        critic = "wgan-gp" if critic is None else critic
        if features is None:
            features = ImageFeatures(sample(data, 4000), n_components=256)
    found = [None if value is False else value for value in (n_atoms, features, pair_cost, critic)]
    n_atoms, features, pair_cost, critic = found
    if n_atoms is not None:
        check_count("n_atoms", n_atoms)
    if pair_cost is not None and pair_cost not in COSTS:
        check_callable("pair_cost", pair_cost, f"(x, y) -> costs, or one of {', '.join(COSTS)}")
    if (n_atoms is pair_cost is None) or isinstance(data, torch.Tensor):
        return n_atoms, features, pair_cost, critic
    raise TypeError(
        f"target: expected a tensor or a data set with n_atoms or pair_cost, received {describe(data)}."
    )


def are_images(data: Any, least: int = 8) -> bool:
    """Whether data are images in memory, of at least so many pixels along each side."""
    is_one = isinstance(data, torch.Tensor) and data.is_floating_point() and data.ndim in (3, 4)
    return is_one and min(data.shape[-2:]) >= least


def sample(data: torch.Tensor, n: int) -> torch.Tensor:
    """A part of the data, without replacement, always the same."""
    if n >= len(data):
        return data
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    return data[order[:n].to(data.device)]
