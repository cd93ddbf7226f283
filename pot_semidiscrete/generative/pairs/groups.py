"""Groups of the data, each with a potential of its own, and labels that they are made by."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ...backend import describe
from ...backend.torch_backend import TorchRandom


@dataclass(frozen=True)
class Condition:
    """What the law of pairs is conditioned on, pair by pair."""

    group: torch.Tensor  # that the data point is drawn from, shape (n,)
    values: torch.Tensor | None = None  # continuous conditions of the noise, shape (n, m)


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of the data, each with a potential of its own: of one class, and not too large.

    Attributes
    ----------
    codes : tensor of int, shape (n_data,)
        Number of the group of each data point.
    weights : tensor, shape (n_groups,)
        Of the groups.
    class_of : tensor of int, shape (n_groups,)
        Number of the class of each group; 0 without labels.
    classes : tensor, shape (n_classes,), or None
        Labels that there are.
    """

    codes: torch.Tensor
    weights: torch.Tensor
    class_of: torch.Tensor
    classes: torch.Tensor | None = None

    @classmethod
    def made(cls, labels: Any, weights: torch.Tensor, part_size: int, random: TorchRandom) -> "Groups":
        """Each class split at random into as few groups as hold `part_size` points at most.

        Labels are what :func:`check_labels` returned, or None. Points of weight 0 do not count.
        """
        no_labels = None, torch.zeros_like(weights, dtype=torch.long)
        classes, labels = no_labels if labels is None else labels
        codes = torch.empty_like(labels)
        class_of: list[int] = []
        for k in range(1 if classes is None else len(classes)):
            rows = (labels == k).nonzero()[:, 0]
            n_positive = int((weights[rows] > 0.0).sum())
            if n_positive == 0:
                raise ValueError(
                    "labels: expected classes of positive weight, received 0 for number "
                    f"{k} of the sorted ones; leave its data out."
                )
            # at random, but those of positive weight first, so that each part has one
            order = torch.where(weights[rows] > 0.0, random.uniform(len(rows)), 1.0).argsort()
            n_parts = math.ceil(n_positive / part_size)
            part = torch.arange(len(rows), device=rows.device) % n_parts
            codes[rows[order]] = len(class_of) + part
            class_of += n_parts * [k]
        total = torch.zeros(len(class_of), dtype=weights.dtype, device=weights.device)
        total.index_add_(0, codes, weights)
        return cls(codes, total, torch.tensor(class_of, device=codes.device), classes)

    @functools.cached_property
    def members(self) -> list[torch.Tensor]:
        """Rows of the data of each group."""
        sizes = self.codes.bincount(minlength=len(self.weights)).tolist()
        return list(self.codes.argsort(stable=True).split(sizes))

    def bundles(self, most: int = 10_000) -> list[list[int]]:
        """Groups to solve for at once: of so many points in all, and of sizes within a factor of two.

        Those of more than a quarter of that are alone: it is products that they take their time for.
        """
        sizes = self.codes.bincount(minlength=len(self.weights))
        bundles: list[list[int]] = []
        for k in sizes.argsort(descending=True, stable=True).tolist():
            first = int(sizes[bundles[-1][0]]) if bundles else math.inf
            if 2 * int(sizes[k]) < first or max(len(bundles[-1]) + 1, 4) * first > most:
                bundles.append([])
            bundles[-1].append(k)
        return bundles

    @property
    def labels(self) -> torch.Tensor | None:
        """Labels of the data, shape (n_data,)."""
        return None if self.classes is None else self.classes[self.class_of[self.codes]]

    def to(self, like: torch.Tensor) -> "Groups":
        """The same on the device of `like`, weights in its dtype."""
        classes = None if self.classes is None else self.classes.to(like.device)
        arrays = (self.codes.to(like.device), self.weights.to(like), self.class_of.to(like.device))
        return Groups(*arrays, classes)

    def draw(self, n: int, random: TorchRandom, proportions: torch.Tensor | None) -> torch.Tensor:
        """Groups in these proportions of the classes, those of the data by default."""
        share = self.weights
        if proportions is not None:
            of_class = torch.zeros_like(proportions).index_add_(0, self.class_of, share)
            share = share / of_class[self.class_of] * proportions[self.class_of]
        return draw_by_weights(share, n, random)

    def each(
        self, groups: torch.Tensor, draw: Callable[[int, torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Rows of the data, one for each entry of `groups`, drawn group by group.

        For the entries that are k, `draw` is ``(k, entries) -> positions`` in ``members[k]``.
        """
        sizes = groups.bincount(minlength=len(self.weights)).tolist()
        found = torch.empty_like(groups)
        for k, entries in enumerate(groups.argsort(stable=True).split(sizes)):
            if len(entries) > 0:
                found[entries] = self.members[k][draw(k, entries)]
        return found


def draw_by_weights(weights: torch.Tensor, n: int, random: TorchRandom) -> torch.Tensor:
    """Draw n indices with probabilities proportional to the weights."""
    ends = weights.cumsum(0)
    level = (1.0 - random.uniform(n)).to(ends) * ends[-1]  # above 0, so that no weight of 0 is drawn
    return torch.searchsorted(ends, level).clamp(max=len(ends) - 1)


def check_labels(labels: Any, n: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels of n data points as the sorted values, and the code of each point."""
    if not hasattr(labels, "shape") and not isinstance(labels, (list, tuple)):
        raise TypeError(f"labels: expected a tensor of {n} labels, received {describe(labels)}.")
    try:
        found = labels if isinstance(labels, torch.Tensor) else torch.as_tensor(labels, device="cpu")
    except (TypeError, ValueError):
        raise TypeError(
            f"labels: expected whole numbers, received {describe(labels)}; give "
            "np.unique(labels, return_inverse=True)[1]."
        ) from None
    if found.shape != (n,):
        raise ValueError(
            f"labels: expected shape ({n},), a label for each point, received {describe(labels)}; of "
            "vectors that are 1 at the label, give argmax(1)."
        )
    if found.is_floating_point() or found.is_complex():
        raise TypeError(
            f"labels: expected whole numbers, received {found.dtype}; cast classes to int, or give "
            "continuous ones as conditions=."
        )
    values, codes = found.to(device).unique(return_inverse=True)
    return values, codes
