"""What several processes share in training: a potential, gradients, and who writes."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch.nn.parallel import DistributedDataParallel

from ..backend import joint, ours
from .fsdp import is_sharded

Thing = TypeVar("Thing")


def jointly(method: Callable[..., Thing]) -> Callable[..., Thing]:
    """A method in the package's own states, in which an exception of one rank ends all."""

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **options: Any) -> Thing:
        with ours(), joint(self.ranks):
            return method(self, *arguments, **options)

    return call


def all_points(ranks: Any, x: torch.Tensor) -> torch.Tensor:
    """Points of all ranks, from those of each."""
    return x if ranks is None else ranks.gather(x)


def mean_of_ranks(ranks: Any, x: torch.Tensor) -> torch.Tensor:
    """Mean of a tensor over the ranks, who have as many points each."""
    return x if ranks is None else ranks.sum(x)[0] / ranks.size


def part_of_batch(batch_size: int, ranks: Any) -> int:
    """Points of a batch that are a rank's: as many as any other's, for the mean of means is the mean."""
    size = 1 if ranks is None else ranks.size
    if batch_size % size:
        raise ValueError(
            f"batch_size: expected a multiple of the number of ranks, {size}, received {batch_size}; "
            f"give {batch_size + -batch_size % size}."
        )
    return batch_size // size


def unwrapped(generator: Any) -> Any:
    """The module inside of what shares its tensors: ``torch.compile`` and DistributedDataParallel."""
    while isinstance(generator, DistributedDataParallel) or hasattr(generator, "_orig_mod"):
        is_parallel = isinstance(generator, DistributedDataParallel)
        generator = generator.module if is_parallel else generator._orig_mod
    return generator


def averages_gradients(generator: Any, parameters: Sequence[torch.Tensor]) -> bool:
    """Whether a module averages its gradients over the ranks itself: DDP, or FSDP2 (`fully_shard`)."""
    generator = getattr(generator, "_orig_mod", generator)
    return isinstance(generator, DistributedDataParallel) or any(map(is_sharded, parameters))


def average_gradients(ranks: Any, parameters: Sequence[torch.Tensor]) -> None:
    """Gradients of the mean over all ranks, from those of each."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    for gradient, total in zip(gradients, ranks.sum(*gradients) if gradients else (), strict=True):
        gradient.copy_(total / ranks.size)


@torch.no_grad()
def start_alike(ranks: Any, tensors: Sequence[torch.Tensor]) -> None:
    """Give all ranks the tensors of the first; None is one process."""
    if ranks is None or not tensors:
        return
    for tensor, first in zip(tensors, ranks.first(*tensors), strict=True):
        tensor.copy_(first)
