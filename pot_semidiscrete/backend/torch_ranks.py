"""What processes that work on one problem exchange: parts of points, and sums over them."""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from .arrays import Array, describe
from .interrupts import uninterrupted
from .torch_handshake import Handshake


class Ranks(Handshake):
    """The processes of a group, and what they exchange."""

    def __init__(self, group: Any, device: torch.device) -> None:
        super().__init__(group, device)
        self.n_bytes = self.n_exchanges = 0  # that this rank sent so far, but for headers of handshakes
        self.has_drawn = False

    def part(self, n: int) -> slice:
        """Which of n rows are those of this rank."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    @uninterrupted()
    def sum(self, *arrays: Array) -> list[Array]:
        """Sums of arrays of this rank and of all others, by one exchange; the same bits on all."""
        tensors = [torch.as_tensor(array, device=self.device) for array in arrays]
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        self.handshake_same("sums", flat.numel())
        self._count(flat)
        work = self._post(dist.all_reduce, flat)
        during, self.overlapped = self.overlapped, None
        try:
            if during is not None:
                during()
        finally:
            self._wait(work)
        parts = flat.split([tensor.numel() for tensor in tensors])
        sums = [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
        return [
            total.cpu().numpy() if isinstance(array, np.ndarray) else total
            for total, array in zip(sums, arrays, strict=True)
        ]

    @uninterrupted()
    def min(self, array: Array) -> Array:
        """The least of the entries of this rank and of all others."""
        least = array.clone()
        self.handshake_same("minima", least.numel())
        self._count(least)
        self._wait(self._post(dist.all_reduce, least, dist.ReduceOp.MIN))
        return least

    def pad(self, rows: Array, n: int) -> Array:
        """The rows of this rank among n, the others being 0: their sum has all."""
        whole = torch.zeros((n, *rows.shape[1:]), dtype=rows.dtype, device=rows.device)
        whole[self.part(n)] = rows
        return whole

    def first(self, *arrays: Array) -> list[Array]:
        """The arrays of the first rank, of which others have some of the same shapes."""
        return self.sum(*(array if self.rank == 0 else torch.zeros_like(array) for array in arrays))

    @uninterrupted()
    def objects(self, thing: Any) -> list[Any]:
        """What each rank has, of dicts, lists, numbers and tensors."""
        self.handshake_same("state")
        things = [None] * self.size
        with self.explained():
            dist.all_gather_object(things, thing, group=self.group)
        return things

    @uninterrupted()
    def first_object(self, thing: Any) -> Any:
        """What the first rank has."""
        self.handshake_same("state")
        things = [thing]
        with self.explained():
            dist.broadcast_object_list(things, dist.get_global_rank(self.group, 0), group=self.group)
        return things[0]

    def gather(self, rows: Array) -> Array:
        """Points of all ranks: the first of each, then the second, and so on, some having fewer.

        So a batch of which each rank draws a part is in the same order as several of them at once.
        """
        parts = self._parts(rows)
        if not self.has_drawn:
            self._check_streams(parts)
            self.has_drawn = True
        place = torch.cat([torch.arange(len(part), device=rows.device) for part in parts])
        return torch.cat(parts)[place.argsort(stable=True)]

    def concatenate(self, rows: Array) -> tuple[Array, slice]:
        """Rows of all ranks, one rank's after another's, and which of them are this rank's."""
        parts = self._parts(rows)
        start = sum(map(len, parts[: self.rank]))
        return torch.cat(parts), slice(start, start + len(rows))

    @uninterrupted()
    def _parts(self, rows: Array) -> list[Array]:
        """Rows of each rank, some having fewer."""
        counts = [n_rows for n_rows, _ in self.handshake_same("points", *rows.shape, free=1)]
        own = torch.zeros((max(counts), *rows.shape[1:]), dtype=rows.dtype, device=rows.device)
        own[: rows.shape[0]] = rows
        parts = [torch.empty_like(own) for _ in counts]
        self._count(own)
        self._wait(self._post(dist.all_gather, parts, own))
        return [part[:count] for part, count in zip(parts, counts, strict=True)]

    def _check_streams(self, parts: list[torch.Tensor]) -> None:
        """Refuse ranks that draw the same points: estimates would count them twice."""
        for rank, part in enumerate(parts[1:], start=1):
            if len(part) > 1 and bool((part != part[0]).any()) and torch.equal(part, parts[0]):
                self.is_aborted = True
                raise ValueError(
                    f"process_group: expected points of its own on each rank, received on rank {rank} "
                    "those of rank 0; seed what draws them by the rank, torch.manual_seed(seed + rank)."
                )

    def _count(self, tensor: torch.Tensor) -> None:
        self.n_bytes += tensor.numel() * tensor.element_size()
        self.n_exchanges += 1


def ranks_of_group(process_group: Any, like: Array) -> Ranks:
    """The ranks of a group that this process belongs to, for data like `like`."""
    if not isinstance(process_group, dist.ProcessGroup):
        raise TypeError(
            "process_group: expected a group of torch.distributed with this process in it, received "
            f"{describe(process_group)}; after init_process_group, give torch.distributed.group.WORLD."
        )
    if not isinstance(like, torch.Tensor):
        raise TypeError(
            f"process_group: expected atoms that are torch tensors, received {describe(like)}; use "
            "torch.as_tensor."
        )
    if dist.get_backend(process_group) == "nccl" and not like.is_cuda:
        raise ValueError(
            "process_group: expected atoms on a GPU for a group of the backend nccl, received them on "
            f"{like.device}; move them, or make a group of gloo."
        )
    return Ranks(process_group, like.device)
