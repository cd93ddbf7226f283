"""What a training run is made of: what the caller chose, and what suits the data where nothing was."""

from dataclasses import dataclass
from typing import Any

import torch

from ..backend import describe, on_host
from ..problem import ShardedAtoms, check_callable, check_count
from ..samplers.resolve import rank_seed, resolve_random
from .critic import GradientPenaltyCritic, resolve_critic
from .data import is_image, stacked
from .descents import PairDescent
from .energy import PAIR_COSTS, pair_descent
from .features import ImageFeatures
from .loss import SemiDiscreteLoss
from .rounds import resolve_reuse

OF_IMAGES: dict[str, Any] = {
    "n_atoms": 4000,
    "pair_cost": "cityblock",
    "critic": "wgan-gp",
    "batch_size": 100,
    "dual_steps": 10,
    "reuse": 20,
}
"""What serves images best, beside :class:`ImageFeatures`: ``python -m benchmarks.training``."""
POINTS = 200  # in a batch, of other data


@dataclass
class Parts:
    """What a training run is made of, beside its generator."""

    loss: SemiDiscreteLoss
    batch_size: int  # points in a batch
    reuse: int  # steps of the generator in a round
    descent: PairDescent | None = None  # what rounds go down, if not the bounds of the loss
    critic: GradientPenaltyCritic | None = None


def parts_of_loss(
    loss: SemiDiscreteLoss, *, batch_size: int | None, reuse: int | None, critic: Any, **options: Any
) -> Parts:
    """Those of a loss of the user's, which has most options itself."""
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
    return Parts(loss, batch_size or POINTS, resolve_reuse(reuse, loss), None, critic or None)


def parts_of_data(
    data: Any, random_state: object, *, has_independent_coordinates: bool = False, **options: Any
) -> Parts:
    """Those on data, by the options of :func:`train_generator`: None is what suits, False is without.

    `has_independent_coordinates` tells of latent points.
    """
    data = stacked(data)
    chosen = {name: value for name, value in options.items() if value is not None}
    suited: dict[str, Any] = dict(OF_IMAGES) if are_images(data) else {}
    if suited and "features" not in chosen:
        suited["features"] = ImageFeatures(sample(data, OF_IMAGES["n_atoms"]), n_components=64)
    suited |= chosen
    for name in ("n_atoms", "features", "pair_cost", "critic"):
        if suited.get(name) is False:
            suited[name] = None
    n_atoms, pair_cost = suited.get("n_atoms"), suited.get("pair_cost")
    check_pairs(data, n_atoms, pair_cost)
    atoms = data if n_atoms is None else sample(data, n_atoms)
    batch_size = suited.get("batch_size", POINTS)
    loss = loss_on(atoms, batch_size, suited)
    if loss.target.is_relaxed:
        suited["critic"] = critic_beside_price(chosen.get("critic"))
    if are_images(data) and suited.get("critic") is None:
        if "pair_cost" not in chosen and has_independent_coordinates:
            pair_cost = "energy"
        if "dual_steps" not in chosen and pair_cost == "energy":
            loss.dual_steps *= 2  # of errors of the masses the score shows more
    if "batch_size" not in chosen and loss.ranks is not None:
        batch_size += -batch_size % loss.ranks.size
    parts = Parts(loss, batch_size, resolve_reuse(suited.get("reuse"), loss, pair_cost is not None))
    if pair_cost is None and suited.get("critic") is None:
        return parts
    nx, like = loss.target.nx, loss.potential
    random = resolve_random(rank_seed(loss._shared_target, random_state), nx, like)
    of_pairs, of_critic = random.integers(2**31, 2).tolist()
    if pair_cost is not None:
        parts.descent = pair_descent(loss, atoms, pair_cost, resolve_random(of_pairs, nx, like))
    parts.critic = resolve_critic(suited.get("critic"), data, of_critic)
    return parts


def loss_on(atoms: Any, batch_size: int, options: dict[str, Any]) -> SemiDiscreteLoss:
    """A loss, by default of a sharper `reg` than its own, and of larger rounds on a GPU."""
    dual_steps = options.get("dual_steps")
    given: dict[str, Any] = {
        name: options.get(name) for name in ("reg", "reg_m", "features", "process_group")
    }
    loss = SemiDiscreteLoss(atoms, **given)
    if given["reg"] is None:
        loss.reg *= 0.3  # rounds can follow at less than its own steps
    if dual_steps is not None:
        loss.dual_steps = check_count("dual_steps", dual_steps)
    elif not on_host(loss.potential):
        # a round is bound there by the number of its operations
        points = min(0.125 * loss.target.n_atoms, 8192)
        loss.dual_steps = max(loss.dual_steps, int(points) // batch_size)
    return loss


def critic_beside_price(critic: Any) -> Any:
    """The critic where masses are free at a price: none, or one of data of its own."""
    if critic is None or critic is False:
        return None
    if isinstance(critic, GradientPenaltyCritic):
        return critic
    raise ValueError(
        "critic: expected a GradientPenaltyCritic, of data without outliers, or False with reg_m, "
        f"received {describe(critic)}, which would see all data; give either, or leave out reg_m."
    )


def check_pairs(data: Any, n_atoms: Any, pair_cost: Any) -> None:
    """Refuse a number of atoms or a cost that is none, and with either atoms that are not in memory.

    Sharded ones are, with a cost: rows of pairs are exchanged.
    """
    if n_atoms is not None:
        check_count("n_atoms", n_atoms)
    if pair_cost is not None and not (isinstance(pair_cost, str) and pair_cost in PAIR_COSTS):
        check_callable("pair_cost", pair_cost, f"(x, y) -> costs, or one of {', '.join(PAIR_COSTS)}")
    has_rows = n_atoms is None and isinstance(data, ShardedAtoms)
    is_asked = n_atoms is not None or pair_cost is not None
    if is_asked and not (has_rows or isinstance(data, torch.Tensor)):
        raise TypeError(
            "target: expected a tensor or a data set with n_atoms or pair_cost, or ShardedAtoms with "
            f"pair_cost alone, received {describe(data)}; leave them out."
        )


def are_images(data: Any) -> bool:
    """Whether data are images in memory."""
    kinds = (torch.float32, torch.float64)  # others are refused as atoms
    return isinstance(data, torch.Tensor) and data.dtype in kinds and is_image(data.shape[1:])


def sample(data: torch.Tensor, n: int) -> torch.Tensor:
    """A part of the data, without replacement, always the same."""
    if n >= len(data):
        return data
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    return data[order[:n].to(data.device)]
