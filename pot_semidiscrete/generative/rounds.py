"""Rounds of training: a move of the potential, then steps of the generator."""

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils import _pytree

from ..backend import guest
from ..problem import NotFiniteError, check_count
from .descents import BoundDescent, Descent, PointCost
from .loss import SemiDiscreteLoss

NEW_ROUND: dict[str, Any] = {"latents": [], "bounds": [], "mean_before": None, "position": 0}
"""State of :class:`Rounds` before the first step of a round."""


def resolve_reuse(reuse: int | None, loss: SemiDiscreteLoss, in_pairs: bool = False) -> int:
    """Check the steps of the generator in a round: several need the squared distance, or pairs."""
    if reuse is None:
        return 16 if (loss.has_majorants or in_pairs) and loss.network is None else 1
    reuse = check_count("reuse", reuse)
    if reuse > 1 and not (loss.has_majorants or in_pairs):
        raise ValueError(
            f"reuse: expected 1 with metric {loss.target.cost.name!r}, received {reuse}; the bound that "
            "several steps descend is known for 'sqeuclidean'."
        )
    return reuse


class Rounds:
    """Moves of the potential, and what each step of the generator goes down after them.

    A round has `reuse` steps down a descent; with ``reuse=1``, and none given, down the loss itself, at
    fresh points.
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
        self.latents: list[Any] = []  # batches of the present round, ...
        self.bounds: list[list[torch.Tensor]] = []  # ... and what the descent noted of each
        self.position = 0  # steps taken in the round
        self.moves = 0  # of the potential, and ...
        self.mean_before: torch.Tensor | None = None  # ... the first batch's mean, when it began

    @property
    def is_due(self) -> bool:
        """Whether the next step begins a round, and so moves the potential."""
        return self.reuse == 1 or not self.latents or self.position == self.reuse

    @torch.no_grad()
    def next(self, rate: Callable[[], float] = lambda: 1.0) -> tuple[Any, PointCost]:
        """Move the potential, if that is due; latent points of the next step, and their value.

        `rate()` is the learning rate of the step, relative to the first; some optimisers have none.
        """
        if self.fresh:  # the loss at points that nothing has seen: formula (G)
            self.loss.follow(torch.cat(self.draw()))
            self.latents, self.moves = self.latents[:1], self.loss.moves
            return self.latent(), self.loss
        if self.is_due:  # follow the points that the steps of the round are for
            self.bounds, self.position = self.descent.begin(self.draw()), 0
            self.moves = self.loss.moves
        k = self.position % len(self.latents)
        self.position += 1
        z = self.descent.latents(self.latents[k], self.latent, rate)
        return z, self.descent.value(self.bounds[k])

    def draw(self) -> list[torch.Tensor]:
        """Fresh batches of points; before, the potential moves as the mean of the last round's did."""
        mean = lambda points: self.loss.local(points).mean(dim=0)
        if self.mean_before is not None and self.moves == self.loss.moves:  # by nothing else since
            self.loss.translate(mean(self.generator(self.latents[0])) - self.mean_before)
        self.latents = [self.latent() for _ in range(self.loss.dual_steps)]
        batches = [self.generator(z) for z in self.latents]
        self.mean_before = mean(batches[0]) if self.loss.can_translate else None
        return batches

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


@contextlib.contextmanager
def rollback_if_not_finite(tensors: Sequence[torch.Tensor], rounds: Rounds) -> Iterator[None]:
    """If points, a value, a gradient or parameters are not finite, undo what the body changed.

    Undone are changes of `tensors`, which are parameters and buffers, of the loss and of the round; not
    those of the generator's optimiser, which moves last, and of the random numbers.
    """
    kept, round_before = [t.detach().clone() for t in tensors], rounds.state_dict()
    # within a round the loss does not change
    loss = copy.deepcopy(rounds.loss.state_dict()) if rounds.is_due else None
    try:
        yield
    except NotFiniteError:
        with torch.no_grad():
            for tensor, good in zip(tensors, kept, strict=True):
                tensor.copy_(good)
        if loss is not None:
            rounds.loss.load_state_dict(loss)
        rounds.load_state_dict(round_before)
        raise
