"""How a coupling draws data for noise."""

import functools
from typing import Any

import torch

from ...backend import describe
from ...backend.torch_backend import TorchRandom
from ...problem import check_points
from .coupling import SemiDiscreteCoupling
from .groups import Given, draw_by_weights
from .streams import fingerprint, stream


class CouplingAssignment:
    """Data for the noise of a chunk, by a coupling.

    Parameters
    ----------
    coupling : SemiDiscreteCoupling
    seed : int
    proportions : tensor, shape (n_classes,), optional
        Of the labels; those of the data by default.
    independent : float
        Share of pairs whose data are drawn whatever the noise is.
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
        given = self.given_in(self.groups.draw(len(noise), random, self.proportions), random)
        return self.assigned(self.coupling.space.points(noise, given.condition), given, random)

    def given_in(self, groups: torch.Tensor, random: TorchRandom) -> Given:
        """What pairs with data of these groups are given: conditions are drawn from the data."""
        conditions = self.coupling.conditions
        return Given(groups, None if conditions is None else conditions[self._any(groups, random)])

    def assigned(self, points: torch.Tensor, given: Given, random: TorchRandom) -> torch.Tensor:
        """Data, as rows, that points of the space belong to, but for the share that is independent."""
        pair = lambda k, rows: self.results[k].pair(points[rows], random.generator)
        index = self.groups.each(given.group, pair)
        if self.independent == 0.0:
            return index
        free = random.uniform(len(points)) < self.independent
        return torch.where(free, self._any(given.group, random), index)

    @functools.cached_property
    def weights(self) -> torch.Tensor:
        """Of all data, within their groups: the masses that the plan is to have."""
        found = self.coupling.like.new_empty(self.coupling.n_data)
        for result, member in zip(self.results, self.groups.members, strict=True):
            found[member] = result._target.distribute(result._target.goal(result._potential))
        return found

    def _any(self, groups: torch.Tensor, random: TorchRandom) -> torch.Tensor:
        """Data of these groups, drawn by their weights."""
        members = self.groups.members
        draw = lambda k, rows: draw_by_weights(self.weights[members[k]], len(rows), random)
        return self.groups.each(groups, draw)

    def excess(self, points: torch.Tensor, given: Given, index: torch.Tensor) -> torch.Tensor:
        """What points cost more at these data than where they belong, shape (n, len(index))."""
        groups = self.groups.codes[index]
        found = points.new_full((len(points), len(index)), torch.inf)
        for k in groups.unique().tolist():
            result, rows, columns = self.results[k], given.group == k, groups == k
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
        found = torch.as_tensor(proportions, device=coupling.like.device)[None].to(coupling.like)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"proportions: expected numbers, received {describe(proportions)}.") from None
    weights, _ = check_points("proportions", found)
    if weights.shape[1:] != classes.shape or weights.min() < 0.0 or weights.sum() == 0.0:
        raise ValueError(
            f"proportions: expected {len(classes)} numbers of at least 0, one of each of the "
            f"classes, received {describe(proportions)}."
        )
    return weights[0]
