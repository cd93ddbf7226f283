"""What a round of the generator's steps goes down: bounds of the loss, or costs of pairs."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from ..backend import describe
from .data import DataRows
from .loss import SemiDiscreteLoss
from .majorant import Majorant

PointCost: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Value of a batch of points, ``x -> scalar``, differentiable."""
PairCost: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Costs of pairs, ``(x, y) -> (n,)``, differentiable in x."""


class Descent(ABC):
    """What the steps of a round go down."""

    follows_rate = False  # whether it asks for the learning rate

    @abstractmethod
    def begin(self, batches: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
        """Follow points with the potential, and note for each batch what its value needs."""

    def latents(self, z: Any, draw: Callable[[], Any], rate: Callable[[], float]) -> Any:
        """Latent points of a step, for a batch `z` of the round: these, perhaps with more like `draw()`.

        `rate()` is the learning rate, relative to the first; some optimisers have none.
        """
        return z

    @abstractmethod
    def value(self, noted: list[torch.Tensor]) -> PointCost:
        """Value of a batch, of what was noted of it."""

    def state_dict(self) -> dict[str, Any]:
        """Where its random numbers are, if it has some."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Go on from there."""


class BoundDescent(Descent):
    """Down the bounds that touch the loss where the round began: formula (G) there."""

    def __init__(self, loss: SemiDiscreteLoss) -> None:
        self.loss = loss

    def __repr__(self) -> str:
        return "bounds of the loss"

    def begin(self, batches: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
        bounds = self.loss.majorants(batches, follow=True)
        return [[bound.goal, bound.constant] for bound in bounds]

    def value(self, noted: list[torch.Tensor]) -> PointCost:
        bound = Majorant(*noted)
        return lambda x: bound(self.loss.target.center(self.loss.rows(x)))


class PairDescent(Descent):
    r"""Down the mean cost of pairs: of each point and an atom that the plan drew for it.

    Pairs of latent points and data, :math:`\gamma`, have been drawn from the plan, which is one of
    the ground cost of the loss. A step then goes down :math:`E_\gamma\, c'(g(z), y)`, for another cost
    :math:`c'` of points and data themselves. This bounds their transport cost of :math:`c'` from above,
    to the masses that the plan gives the atoms: their weights, up to what ``chi2`` measures.

    `data` are the atoms of the loss, as points; `cost` is :math:`c'`, and `name` what users call it.
    """

    def __init__(
        self, loss: SemiDiscreteLoss, data: Any, random: Any, cost: PairCost, name: str = "a callable"
    ) -> None:
        self.loss, self.rows, self.random = loss, DataRows(data, None, "target"), random
        self.cost, self.name = cost, name

    def __repr__(self) -> str:
        return f"costs of pairs, {self.name}"

    def begin(self, batches: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
        points = torch.cat(list(batches))
        goals = self.rows(self.loss.pair(points, self.random.generator, follow=True))
        return [[part] for part in goals.split([len(batch) for batch in batches])]

    def value(self, noted: list[torch.Tensor]) -> PointCost:
        (goal,) = noted

        def mean_cost(x: torch.Tensor) -> torch.Tensor:
            costs = self.cost(x, goal.to(x).reshape(x.shape))
            if not isinstance(costs, torch.Tensor) or costs.shape != x.shape[:1]:
                raise ValueError(
                    f"pair_cost: expected a callable that returns {len(x)} numbers, one for each pair, "
                    f"received {describe(costs)}."
                )
            return costs.mean()

        return mean_cost

    def state_dict(self) -> dict[str, Any]:
        return self.random.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.random.load_state_dict(state)


def cityblock(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Sums of absolute differences: shape (n,)."""
    return (x - y).abs().flatten(1).sum(dim=1)


def sqeuclidean(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Sums of squared differences: shape (n,)."""
    return (x - y).square().flatten(1).sum(dim=1)
