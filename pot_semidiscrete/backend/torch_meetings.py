"""Where processes meet that work on one problem: ``torch.distributed``.

All ranks make the same calls in the same order. Before each exchange of data they meet: a few integers
of each say where it is and how large its part of the exchange will be. A rank that leaves by an
exception says so where the others meet next, and they end with an error that names it, instead of
waiting for it. What a rank that died leaves them is the error of the backend, after the time-out of the
group at the latest.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from .arrays import NotFiniteError
from .interrupts import uninterrupted

PLACES = ["points", "sums", "minima", "callback", "arguments", "seed", "state", "exit"]
EXITS: dict[int, type[BaseException]] = {1: KeyboardInterrupt, 2: NotFiniteError, 3: RuntimeError}
"""How a rank leaves, by what the others raise; it is 0 while it stays."""


class Meetings:
    """The processes of a group, and whether they are together.

    Parameters
    ----------
    group : torch.distributed.ProcessGroup
    device : torch.device
        Of what is exchanged.

    Attributes
    ----------
    rank, size : int
        Of this process, and of the group.
    is_over : bool
        Whether the ranks have parted: no more is exchanged.
    meanwhile : callable or None
        Called, once, while a sum is on its way.
    """

    def __init__(self, group: Any, device: torch.device) -> None:
        self.group, self.device = group, device
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.is_over = self.is_inside = self._is_exchanging = False
        self.meanwhile: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(rank={self.rank}, size={self.size})"

    @uninterrupted()
    def meet(self, where: str, *facts: int) -> list[list[int]]:
        """Tell the others where this rank is, with two facts at most; get those of all ranks.

        Raises
        ------
        RuntimeError
            If a rank left by an exception, or is somewhere else.
        KeyboardInterrupt
            If a rank was interrupted.
        NotFiniteError
            If that is what it left by.
        """
        heads = self._heads(0, PLACES.index(where), *facts)
        left = self._left(heads)
        if left:
            self.is_over = True
            text = f"rank {left[0]} of {self.size} left: {self._text('', left[0])}"
            raise EXITS[heads[left[0]][0]](f"process_group: {text}")
        if any(PLACES[head[1]] != where for head in heads):
            self.is_over = True
            places = ", ".join(f"rank {r} {PLACES[head[1]]!r}" for r, head in enumerate(heads))
            raise RuntimeError(
                f"process_group: expected all ranks at the same place of the run, received {places}; "
                "make the same calls, with the same arguments, on all of them."
            )
        return [head[2:] for head in heads]

    @uninterrupted()
    def leave(self, error: BaseException) -> None:
        """Tell the others that this rank ends by an exception, if they do not know.

        Not in the middle of an exchange, which a second Ctrl-C has left: it would be taken for its data.
        """
        if self.is_over or self._is_exchanging:
            return
        self.is_over = True
        with contextlib.suppress(RuntimeError):  # they may be gone, too
            kind = next((k for k in (1, 2) if isinstance(error, EXITS[k])), 3)
            heads = self._heads(kind, PLACES.index("exit"))
            self._text(f"{type(error).__name__}: {error}", self._left(heads)[0])

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Context, in which an exception of this rank is told to the others."""
        is_outermost, self.is_inside = not self.is_inside, True
        if is_outermost:
            self.is_over = self._is_exchanging = False
            self.meanwhile = None
        try:
            yield
        except BaseException as error:
            self.leave(error)
            raise
        finally:
            self.is_inside = not is_outermost

    def agreed(self, callback: Callable[[Any], Any]) -> Callable[[Any], bool]:
        """A callback whose verdict is that of all ranks: true, if it is on one."""

        def call(state: Any) -> bool:
            return any(verdict for (verdict, _) in self.meet("callback", bool(callback(state))))

        return call

    def seed(self, seed: int) -> int:
        """A seed of this rank, made of that of rank 0."""
        return int(np.random.SeedSequence([self.first_seed(seed), self.rank]).generate_state(1)[0])

    def first_seed(self, seed: int) -> int:
        """The seed of rank 0."""
        (first, _), *_ = self.meet("seed", seed % 2**63)
        return first

    def check_same(self, **arguments: Any) -> None:
        """Check that arguments, told by their ``repr``, are those of all ranks."""
        for name, value in arguments.items():
            digest = hashlib.sha256(f"{name} {value}".encode()).digest()
            heads = self.meet("arguments", int.from_bytes(digest[:7], "big"))
            others = [rank for rank, head in enumerate(heads) if head != heads[0]]
            if others:
                self.is_over = True
                raise ValueError(
                    f"{name}: expected the same on all ranks, received on rank {others[0]} another than "
                    f"on rank 0; give each rank the same {name}."
                )

    def same(self, where: str, *facts: int, free: int = 0) -> list[list[int]]:
        """Meet, where all facts but the first few must be those of all."""
        heads = self.meet(where, *facts)
        if any(head[free:] != heads[0][free:] for head in heads):
            self.is_over = True
            raise RuntimeError(
                f"process_group: expected exchanges of one size, received {heads} of the ranks; make "
                "the same calls, with the same arguments, on all of them."
            )
        return heads

    def _heads(self, *entries: int) -> list[list[int]]:
        heads = torch.zeros((self.size, 4), dtype=torch.int64, device=self.device)
        heads[self.rank, : len(entries)] = torch.tensor(entries, device=self.device)
        self._wait(self._post(dist.all_reduce, heads))  # whose latency grows as log(size)
        return heads.tolist()

    @staticmethod
    def _left(heads: list[list[int]]) -> list[int]:
        """Ranks that say that they leave."""
        return [rank for rank, head in enumerate(heads) if head[0] > 0]

    def _text(self, text: str, source: int) -> str:
        """What the rank `source` says, in a few words."""
        raw = text.encode()[:240].ljust(240)
        told = torch.tensor(list(raw), dtype=torch.uint8, device=self.device)
        self._wait(self._post(dist.broadcast, told, dist.get_global_rank(self.group, source)))
        return bytes(told.tolist()).decode(errors="replace").strip()

    def _post(self, collective: Callable, *arguments: Any) -> Any:
        self._is_exchanging = True
        with self.known():
            return collective(*arguments, group=self.group, async_op=True)

    def _wait(self, work: Any) -> None:
        with self.known():
            work.wait()
        self._is_exchanging = False

    @contextlib.contextmanager
    def known(self) -> Iterator[None]:
        """Say of an error of the backend what it means."""
        try:
            yield
        except RuntimeError as error:
            self.is_over = True
            raise RuntimeError(
                f"process_group: rank {self.rank} of {self.size} lost another rank, which died or did "
                f"not answer within the time-out of the group ({error})."
            ) from error
