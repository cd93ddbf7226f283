"""What several processes share in training: a potential, gradients, and who writes."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from ..backend import joint, ours
from ..problem import SharedTarget, Target
from .fsdp import is_sharded
from .state import StateOfData

Thing = TypeVar("Thing")


class SharedState(StateOfData):
    """The base of a potential that several processes may move together.

    Parameters
    ----------
    data_digest : str
    weights : ndarray, shape (n_atoms,)
    target : Target
    ranks : Ranks or None

    Attributes
    ----------
    target : Target
        For what each process asks of its own points.
    ranks : Ranks or None
        None if there is one process; a copy has none.
    """

    def __init__(self, data_digest: str, weights: np.ndarray, target: Target, ranks: Any) -> None:
        super().__init__(data_digest, weights)
        self.target, self.ranks = target, ranks
        self._shared: SharedTarget | None = None
        if self.ranks is not None:
            self.ranks.check_same(
                X_target=data_digest,
                a_target=np.round(self.weight_moments, 6),
                metric=target.cost.name,
                reg_m=target.reg_m,
            )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"ranks": None, "_shared": None}


def shared_target(state: SharedState) -> Target:
    """The target of what all ranks do together."""
    target, kept = state.target, state._shared
    if state.ranks is None:
        return target
    if kept is None or kept.atoms is not target.atoms:
        kept = state._shared = SharedTarget.of(target, state.ranks)
    return kept


def jointly(method: Callable[..., Thing]) -> Callable[..., Thing]:
    """A method in the package's own states, in which an exception of one rank ends all."""

    @functools.wraps(method)
    def call(self: SharedState, *arguments: Any, **options: Any) -> Thing:
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
