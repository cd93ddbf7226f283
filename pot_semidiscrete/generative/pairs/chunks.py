"""Numbered chunks of pairs, each a function of a seed and its number."""

from dataclasses import dataclass
from typing import Protocol

import torch

from ...backend import ours
from .space import PairingSpace
from .streams import NoiseLaw, permutation, stream


class Assign(Protocol):
    """Rows of the data for the noise of a chunk; `fingerprint` tells it from other assignments."""

    fingerprint: int

    def __call__(self, number: int, noise: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True, eq=False)
class PairStream:
    """Chunks of n pairs, each of which is used `n_reuse` times.

    After `period` chunks, if it is given, the pairs are the same again.
    """

    space: PairingSpace
    law: NoiseLaw
    assign: Assign
    seed: int
    n: int
    n_reuse: int
    period: int | None = None

    @property
    def has_fresh(self) -> bool:
        """Whether coordinates out of the space are drawn anew in each use."""
        return can_refresh(self.space, self.law)

    @ours()
    def draw(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise, shape (n, d), and rows of the data, shape (n,), of a chunk."""
        number = number if self.period is None else number % self.period
        noise = self.law.draw(self.n, stream(self.seed, number, 0, like=self.law.like))
        return noise, self.assign(number, noise)

    @ours()
    def use(
        self, number: int, k: int, noise: torch.Tensor, index: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The pairs of a chunk in a random order, for their use number k, from 0.

        From the second use on, coordinates of normal noise out of the space of pairing are drawn anew:
        they are independent of the data.
        """
        random = stream(self.seed, number, 1, k, like=noise)
        is_repeated = k > 0 or (self.period is not None and number >= self.period)
        if is_repeated and self.has_fresh:
            fresh = self.law.draw(self.n, random)
            noise = self.space.refreshed(self.space.points(noise), fresh)
        order = permutation(random, self.n)
        return noise[order], index[order]


def can_refresh(space: PairingSpace, law: NoiseLaw) -> bool:
    """Whether coordinates out of the space can be drawn anew."""
    return law.is_normal and space.is_orthogonal
