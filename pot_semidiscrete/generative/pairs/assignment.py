"""How a coupling draws data for noise."""

import functools
from typing import Any

import torch

from ...backend import describe, is_bool
from ...backend.torch_backend import TorchRandom
from ...problem import check_points
from .coupling import SemiDiscreteCoupling
from .groups import Condition, draw_by_weights
from .streams import fingerprint, stream


class CouplingAssignment:
    """Data for the noise of a chunk, by a coupling.

    Labels have the `proportions` given, or those of the data; the data of a share `independent` of the
    pairs are drawn whatever the noise is.
    """

    def __init__(
        self,
        coupling: SemiDiscreteCoupling,
        seed: int,
        proportions: Any = None,
        independent: float = 0.0,
    ) -> None:
        self.coupling, self.seed, self.independent = coupling, seed, independent
        self.groups, self.results = coupling.groups, coupling.results
        self.proportions = None if proportions is None else check_proportions(proportions, coupling)
        share = None if self.proportions is None else self.proportions.tolist()
        data = [(result._target.digest, result.reg) for result in self.results]
        self.fingerprint = fingerprint(data, share, independent)

    def __call__(self, number: int, noise: torch.Tensor) -> torch.Tensor:
        random = stream(self.seed, number, 2, like=noise)
        groups = self.groups.draw(len(noise), random, self.proportions)
        condition = self.condition_on(groups, random)
        points = self.coupling.space.points(noise, condition.values)
        return self.assign(points, condition, random)

    def condition_on(self, groups: torch.Tensor, random: TorchRandom) -> Condition:
        """Condition on these groups, and on continuous conditions drawn from their data."""
        conditions = self.coupling.conditions
        if conditions is None:
            return Condition(groups)
        return Condition(groups, conditions[self._independent_rows(groups, random)])

    def assign(self, points: torch.Tensor, condition: Condition, random: TorchRandom) -> torch.Tensor:
        """Rows of the data that the plan pairs with points of the space; a share is independent."""
        pair = lambda k, entries: self.results[k].pair(points[entries], random.generator)
        index = self.groups.each(condition.group, pair)
        if self.independent == 0.0:
            return index
        is_independent = random.uniform(len(points)) < self.independent
        return torch.where(is_independent, self._independent_rows(condition.group, random), index)

    @functools.cached_property
    def weights(self) -> torch.Tensor:
        """Mass of each data point within its group, as the plan is to have it; shape (n_data,)."""
        found = self.coupling.like.new_empty(self.coupling.n_data)
        for result, member in zip(self.results, self.groups.members, strict=True):
            found[member] = result._target.distribute(result._target.goal(result._potential))
        return found

    def _independent_rows(self, groups: torch.Tensor, random: TorchRandom) -> torch.Tensor:
        """Rows of the data of these groups, drawn by their weights whatever the noise is."""
        members = self.groups.members
        draw = lambda k, entries: draw_by_weights(self.weights[members[k]], len(entries), random)
        return self.groups.each(groups, draw)

    def excess(self, points: torch.Tensor, condition: Condition, index: torch.Tensor) -> torch.Tensor:
        """``c(x, y_j) - psi_j - psi^c(x)`` for points x and the data of `index`, shape (n, len(index)).

        It is 0 where the plan pairs them (at ``reg = 0``), and infinite in another group.
        """
        groups = self.groups.codes[index]
        found = points.new_full((len(points), len(index)), torch.inf)
        for k in groups.unique().tolist():
            result, rows, columns = self.results[k], condition.group == k, groups == k
            target, local = result._target, torch.searchsorted(self.groups.members[k], index[columns])
            if target.place is not None:
                local = torch.from_numpy(target.place).to(local)[local]
            costs = target.subset(local).cost_matrix(target.center(points[rows]))
            least = result.c_transform(points[rows])
            excess = costs - result._potential[local] - least[:, None]
            found[rows.nonzero(), columns.nonzero()[:, 0]] = excess
        return found


def check_proportions(proportions: Any, coupling: SemiDiscreteCoupling) -> torch.Tensor:
    """Check a user's proportions of labels."""
    classes = coupling.groups.classes
    if classes is None:
        raise ValueError("proportions: expected None without labels, received some; give labels.")
    try:
        given = torch.as_tensor(proportions, device=coupling.like.device)
        if is_bool(given):
            raise TypeError
        found = given[None].to(coupling.like)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"proportions: expected numbers, received {describe(proportions)}.") from None
    weights, _ = check_points("proportions", found)
    if weights.shape[1:] != classes.shape or weights.min() < 0.0 or weights.sum() == 0.0:
        raise ValueError(
            f"proportions: expected {len(classes)} numbers of at least 0, one of each of the "
            f"classes, received {describe(proportions)}."
        )
    return weights[0]
