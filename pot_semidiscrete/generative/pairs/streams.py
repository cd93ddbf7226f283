"""What is a function of a seed and a count: random numbers, noise, and chunks of pairs."""

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from ot.backend import get_backend
from torch import distributed
from torch.utils.data import get_worker_info

from ...backend import describe, ours
from ...backend.torch_backend import TorchRandom
from ...problem import flat_rows
from ...samplers.base import Sampler
from ...samplers.laws import CallableSampler
from ...samplers.resolve import resolve_random, resolve_source
from .space import PairingSpace

MOST_WORKERS = 1024  # of a loader


def seed_of(random_state: Any, like: torch.Tensor) -> int:
    """A seed, from what users give as randomness; a generator is advanced."""
    random = resolve_random(random_state, get_backend(like), like)  # refuses what is none
    is_seed = isinstance(random_state, (int, np.integer))
    return int(random_state if is_seed else random.integers(2**31, 1)[0])


def stream(seed: int, *count: int, like: torch.Tensor) -> TorchRandom:
    """Random numbers on the device of `like`; for other counts they are independent."""
    seed = int(np.random.SeedSequence((seed, *count)).generate_state(1, np.uint64)[0]) >> 1
    return TorchRandom(torch.Generator(like.device).manual_seed(seed), like)


def fingerprint(*things: Any) -> int:
    """A number of 56 bits that tells things from others by their ``repr``."""
    return int.from_bytes(hashlib.blake2b(repr(things).encode(), digest_size=7).digest(), "big")


def shared_counts() -> torch.Tensor:
    """A count for each worker of a loader, in memory shared with the process that starts them."""
    return torch.zeros(MOST_WORKERS, dtype=torch.long, device="cpu").share_memory_()


def this_worker() -> tuple[int, int]:
    """Number of this worker of a loader, and how many there are."""
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)


def this_process() -> tuple[int, int] | None:
    """Rank and number of processes, where there is a process group."""
    if not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed.get_rank(), distributed.get_world_size()


def permutation(random: TorchRandom, n: int) -> torch.Tensor:
    """The numbers below n in random order."""
    return random.uniform(n).argsort()


class NoiseLaw:
    """A law that can be drawn again from a seed, of samples like `like`, shape (1, d).

    `noise` is as `sampler_source` of :func:`pot_semidiscrete.solve_semidiscrete`, but no callable.
    """

    def __init__(self, noise: Any, like: torch.Tensor) -> None:
        if isinstance(noise, torch.Tensor):
            noise = flat_rows(noise.detach(), get_backend(like))
        self.noise, self.like = noise, like
        if isinstance(noise, Sampler) or isinstance(self.sampler(0), CallableSampler):
            raise TypeError(
                "noise: expected the name of a law, a law of SciPy or torch, or a tensor of points, "
                f"which are drawn by a seed, received {describe(noise)}; make a law of it with "
                "samplers.register_law, and give its name."
            )

    @property
    def is_normal(self) -> bool:
        """Whether it is the standard normal law."""
        return isinstance(self.noise, str) and self.noise == "normal"

    def sampler(self, seed: int) -> Sampler:
        """The law, drawn from that seed on."""
        return resolve_source(self.noise, self.like, seed, "noise")

    def draw(self, n: int, random: TorchRandom) -> torch.Tensor:
        """Noise samples, ``(n, d)``."""
        if self.is_normal:
            return random.normal(n, self.like.shape[1])
        return self.sampler(int(random.integers(2**31, 1)[0]))(n)

    def to(self, like: torch.Tensor) -> "NoiseLaw":
        """The same in that dtype, on that device."""
        noise = self.noise.to(like) if isinstance(self.noise, torch.Tensor) else self.noise
        return NoiseLaw(noise, self.like.to(like))


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
