"""The potentials by which noise is paired with data: of all data, or of each group."""

import math
from typing import Any

import torch

from ...backend import describe, ours, template
from ...backend.torch_backend import TorchRandom
from ...plan import SemiDiscretePlan
from ...problem import check_points
from .given import Given, Groups, draw_by_weights
from .space import PairingSpace
from .streams import NoiseLaw


class SemiDiscreteCoupling:
    r"""Which data noise belongs to, as :func:`solve_coupling` found it.

    Attributes
    ----------
    results : list of SemiDiscreteResult
        In the space of pairing, one of each group: the parts of the first class, of the second, ...
    groups : Groups
        Its `codes` tell the group of each data point, its `classes` the labels that there are.
    conditions : tensor, shape (n_data, m), or None
    data : tensor, shape (n_data, ...), or None
        What was given, by reference.
    space : PairingSpace
        Where noise and data are compared: its `projection`, and its `condition_weight`.
    law : NoiseLaw
        Of the noise.
    """

    def __init__(
        self,
        results: list[SemiDiscretePlan],
        groups: Groups,
        space: PairingSpace,
        law: NoiseLaw,
        data: torch.Tensor | None = None,
        conditions: torch.Tensor | None = None,
    ) -> None:
        self.results, self.groups, self.space, self.law = results, groups, space, law
        self.data, self.conditions = data, conditions

    def __repr__(self) -> str:
        facts = {"n_data": self.n_data, "dimension": self.results[0]._target.atoms.shape[1]}
        facts |= {} if self.groups.classes is None else {"n_classes": len(self.groups.classes)}
        facts |= {} if len(self.results) == 1 else {"n_groups": len(self.results)}
        told = ", ".join(f"{name}={value}" for name, value in facts.items())
        return f"SemiDiscreteCoupling(chi2={self.chi2:.3g}, reg={self.results[0].reg:.3g}, {told})"

    @property
    def n_data(self) -> int:
        """Number of data points."""
        return len(self.groups.codes)

    @property
    def like(self) -> torch.Tensor:
        """An array of the dtype and on the device of the computation."""
        return self.results[0]._target.weights

    @property
    def labels(self) -> torch.Tensor | None:
        """Labels of the data, or conditions; None if there are neither."""
        return self.groups.labels if self.conditions is None else self.conditions

    @property
    def chi2(self) -> float:
        r"""Squared relative error of the masses of all data, NaN if it was not estimated.

        That of the groups, each by its weight: :math:`\sum_k p_k \chi^2_k`.
        """
        found = [getattr(result, "chi2", math.nan) for result in self.results]
        return float(sum(p * chi2 for p, chi2 in zip(self.groups.weights.tolist(), found, strict=True)))

    @ours()
    def to(self, where: Any) -> "SemiDiscreteCoupling":
        """The same on another device, or in another dtype; the data stay where they are.

        Parameters
        ----------
        where : tensor, torch dtype or device

        Returns
        -------
        SemiDiscreteCoupling
        """
        like = template("where", where, self.like)
        results = [result.to(like) for result in self.results]
        moved = (self.groups.to(like), self.space.to(like), self.law.to(like))
        conditions = None if self.conditions is None else self.conditions.to(like)
        return SemiDiscreteCoupling(results, *moved, self.data, conditions)

    def draw_given(self, n: int, random: TorchRandom, proportions: torch.Tensor | None = None) -> Given:
        """What n pairs are given: classes in the proportions asked for, conditions as in the data."""
        return self.given_in(self.groups.draw(n, random, proportions), random)

    def given_in(self, groups: torch.Tensor, random: TorchRandom) -> Given:
        """What pairs with data of these groups are given."""
        if self.conditions is None:
            return Given(groups)
        return Given(groups, self.conditions[self.independent(groups, random)])

    def check_proportions(self, proportions: Any) -> torch.Tensor:
        """Check a user's proportions of labels."""
        classes = self.groups.classes
        if classes is None:
            raise ValueError("proportions: expected None without labels, received some; give labels.")
        weights, _ = check_points("proportions", torch.as_tensor(proportions).to(self.like)[None])
        if weights.shape[1:] != classes.shape or weights.min() < 0.0 or weights.sum() == 0.0:
            raise ValueError(
                f"proportions: expected {len(classes)} numbers of at least 0, one of each of the "
                f"classes, received {describe(proportions)}."
            )
        return weights[0]

    def assign(self, points: torch.Tensor, given: Given, random: TorchRandom) -> torch.Tensor:
        """Data points, as rows, that points of the space belong to, shape (n,)."""
        pair = lambda k, rows: self.results[k].pair(points[rows], random.generator)
        return self.groups.each(given.group, pair)

    def independent(self, groups: torch.Tensor, random: TorchRandom) -> torch.Tensor:
        """Data points of these groups, drawn by their weights, whatever the noise is."""

        def draw(k: int, rows: torch.Tensor) -> torch.Tensor:
            target = self.results[k]._target
            return draw_by_weights(target.distribute(target.weights), len(rows), random)

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
