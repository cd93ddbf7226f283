"""Pairs whose second latent point lets data differ, where a mean of costs alone leads to a median."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree

from ..backend import describe, guest
from .descents import PairCost, PairDescent, PointCost, cityblock, sqeuclidean


class EnergyDescent(PairDescent):
    r"""Down the mean cost of pairs; once the learning rate falls, down an energy score of them.

    Of each pair (z, y), a second latent point :math:`z'` has the coordinates of z, but for the `share`
    of them that are drawn anew. Steps go down

    .. math:: \tfrac12 E \bigl[ |g(z) - y|_1 + |g(z') - y|_1 - |g(z) - g(z')|_1 \bigr].

    In each pixel this is the distance of y to the interval between the two points: it draws the nearer
    one only, and none where y lies between them. So what differs between data of latent points that are
    near may stay, where :math:`E |g(z) - y|_1` draws all of them to one median. Until the rate falls,
    steps go down the latter, which pairs latent points with data sooner.

    It is the energy score of Gneiting and Raftery (2007, JASA 102, section 4.3), of two draws in each
    pixel, but that y was drawn for one of the two.
    """

    follows_rate = True
    share = 0.13  # python -m benchmarks.training --recipe energy --grid

    def __init__(self, *pairs: Any) -> None:
        super().__init__(*pairs)
        self.peak = 0.0  # the highest rate so far

    def __repr__(self) -> str:
        return "costs of pairs, energy score"  # in checkpoints, which tell it from others

    def latents(self, z: Any, draw: Callable[[], Any], rate: Callable[[], float]) -> Any:
        check_latents(z)  # from the first step on, not after two thirds of a run
        present = rate()
        self.peak = max(self.peak, present)
        return z if present == self.peak else self.with_neighbors(z, draw())

    def with_neighbors(self, z: Any, fresh: Any) -> Any:
        """Latent points, then for each of them one that has a share of the coordinates of `fresh`."""
        (leaves, structure), others = _pytree.tree_flatten(z), _pytree.tree_leaves(fresh)
        return _pytree.tree_unflatten(
            [self._joined(*pair) for pair in zip(leaves, others, strict=True)], structure
        )

    def _joined(self, z: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
        if not z.is_floating_point():  # labels, say, which belong to the pair
            return torch.cat([z, z])
        anew = self.random.uniform(*z.shape).to(z.device) < self.share
        rows = torch.arange(len(z), device=fresh.device) % len(fresh)  # a loader's last may be few
        return torch.cat([z, torch.where(anew, fresh[rows], z)])

    def value(self, noted: list[torch.Tensor]) -> PointCost:
        cost, (goal,) = super().value(noted), noted

        def score(x: torch.Tensor) -> torch.Tensor:
            if len(x) == len(goal):
                return cost(x)
            one, other = x.tensor_split(2)
            return (cost(one) + cost(other) - self.cost(one, other).mean()) / 2.0

        return score

    def state_dict(self) -> dict[str, Any]:
        return {"random": super().state_dict(), "peak": self.peak}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if "random" in state:  # not that of another number of ranks
            super().load_state_dict(state["random"])
        self.peak = state["peak"]


def check_latents(z: Any) -> None:
    """Refuse latent points that cannot be joined: parts that are no tensors, or have no rows."""
    for part in _pytree.tree_leaves(z):
        if not isinstance(part, torch.Tensor) or part.ndim == 0:
            raise TypeError(
                "latent_sampler: expected tensors of latent points with pair_cost='energy', received "
                f"{describe(part)}; return tensors, or give another pair_cost."
            )


PAIR_COSTS: dict[str, tuple[type[PairDescent], PairCost]] = {
    "cityblock": (PairDescent, cityblock),
    "sqeuclidean": (PairDescent, sqeuclidean),
    "energy": (EnergyDescent, cityblock),
}
"""By the names of the option `pair_cost`: what rounds go down, and the cost in it."""


def pair_descent(loss: Any, data: Any, pair_cost: str | PairCost, random: Any) -> PairDescent:
    """What rounds go down by the option `pair_cost`."""
    if not isinstance(pair_cost, str):
        return PairDescent(loss, data, random, guest(pair_cost))
    make, cost = PAIR_COSTS[pair_cost]
    return make(loss, data, random, cost, pair_cost)
