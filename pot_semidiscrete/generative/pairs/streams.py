"""Random numbers that are a function of a seed and a count, and laws drawn by them."""

import hashlib
from typing import Any

import numpy as np
import torch
from ot.backend import get_backend
from torch import distributed
from torch.utils.data import get_worker_info

from ...backend import describe
from ...backend.torch_backend import TorchRandom
from ...problem import flat_rows
from ...samplers.base import Sampler
from ...samplers.laws import CallableSampler
from ...samplers.resolve import resolve_random, resolve_source

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
