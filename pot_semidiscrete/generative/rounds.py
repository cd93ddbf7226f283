"""Rounds of training: a move of the potential, then steps of the generator."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree

from ..backend import guest
from ..problem import check_count
from .descents import BoundDescent, Descent, PointCost
from .loss import SemiDiscreteLoss

NEW_ROUND: dict[str, Any] = {"latents": [], "bounds": [], "mean_before": None, "position": 0}
"""State of :class:`Rounds` before the first step of a round."""


def resolve_reuse(
    reuse: int | None, loss: SemiDiscreteLoss, in_pairs: bool = False, default: int = 16
) -> int:
    """Check the steps of the generator in a round: several need the squared distance, or pairs."""
    if reuse is None:
        return default if (loss.has_majorants or in_pairs) and loss.network is None else 1
    reuse = check_count("reuse", reuse)
    if reuse > 1 and not (loss.has_majorants or in_pairs):
        raise ValueError(
            f"reuse: expected 1 with metric {loss.target.cost.name!r}, received {reuse}; the bound that "
            "several steps descend is known for 'sqeuclidean'."
        )
    return reuse


class Rounds:
    """Moves of the potential, and what each step of the generator goes down after them.

    Parameters
    ----------
    generator : callable
    latent : callable
        ``() -> z``, a fresh batch.
    loss : SemiDiscreteLoss
    reuse : int
        Steps of the generator in a round.
    descent : Descent, optional
        What they go down; with ``reuse=1`` the loss itself, at fresh points, if it is left out.

    Attributes
    ----------
    latents, bounds : list
        Batches of the present round, and what the descent noted of each.
    mean_before : tensor, shape (d,), or None
        Of the first batch's points when the round began.
    moves : int
        Moves of the potential when the round began.
    position : int
        Steps taken in the round.
    """

    def __init__(
        self,
        generator: Callable[..., torch.Tensor],
        latent: Callable[[], Any],
        loss: SemiDiscreteLoss,
        reuse: int,
        descent: Descent | None = None,
    ) -> None:
        self.generator, self.latent, self.loss, self.reuse = guest(generator), latent, loss, reuse
        self.fresh = reuse == 1 and descent is None
        self.descent: Descent = BoundDescent(loss) if descent is None else descent
        self.latents: list[Any] = []
        self.bounds: list[list[torch.Tensor]] = []
        self.mean_before: torch.Tensor | None = None
        self.moves = self.position = 0

    @property
    def is_due(self) -> bool:
        """Whether the next step begins a round, and so moves the potential."""
        return self.reuse == 1 or not self.latents or self.position == self.reuse

    @torch.no_grad()
    def next(self) -> tuple[Any, PointCost]:
        """Latent points of the next step's batch, and the value of its points.

        The potential has moved before, if that was due.
        """
        if self.fresh:
            return self.fresh_batch()
        if self.is_due:
            self.begin()
        k = self.position % len(self.latents)
        self.position += 1
        return self.latents[k], self.descent.value(self.bounds[k])

    def fresh_batch(self) -> tuple[Any, PointCost]:
        """The loss at points that nothing has seen: formula (G)."""
        self.loss.follow(torch.cat(self.draw()))
        self.latents, self.moves = self.latents[:1], self.loss.moves
        return self.latent(), self.loss

    def begin(self) -> None:
        """Follow with the potential, by the points that the steps of the round are for."""
        self.bounds, self.position = self.descent.begin(self.draw()), 0
        self.moves = self.loss.moves

    def draw(self) -> list[torch.Tensor]:
        """Fresh batches of points; before, the potential follows the move of the last round's."""
        self.shift_potential()
        self.latents = [self.latent() for _ in range(self.loss.dual_steps)]
        batches = [self.generator(z) for z in self.latents]
        self.mean_before = self.mean(batches[0]) if self.loss.can_translate else None
        return batches

    def shift_potential(self) -> None:
        """Move the potential as the mean of the points moved, if nothing else has moved it since."""
        if self.mean_before is not None and self.moves == self.loss.moves:
            self.loss.translate(self.mean(self.generator(self.latents[0])) - self.mean_before)

    def mean(self, points: torch.Tensor) -> torch.Tensor:
        """Mean of points, in the coordinates of the atoms."""
        return self.loss.local(points).mean(dim=0)

    def state_dict(self) -> dict[str, Any]:
        """Where the round is."""
        return {
            "latents": self.latents,
            "bounds": self.bounds,
            "mean_before": self.mean_before if self.moves == self.loss.moves else None,
            "position": self.position,
            "descent": self.descent.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        device = self.loss.target.weights.device
        move = lambda z: z.to(device) if isinstance(z, torch.Tensor) else z
        self.latents = _pytree.tree_map(move, state["latents"])
        self.bounds = _pytree.tree_map(move, state["bounds"])
        if "descent" in state:  # not that of another number of ranks, or of an older file
            self.descent.load_state_dict(state["descent"])
        self.mean_before, self.moves = move(state["mean_before"]), self.loss.moves
        self.position = state["position"]
