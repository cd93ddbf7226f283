"""A handshake before each exchange of processes that work on one problem: ``torch.distributed``.

All ranks make the same calls in the same order. Before each exchange of data they sum up headers: a few
integers of each rank, for the operation that it is at and the size of its part. A rank that ends by an
exception says so in its next header, and the others end with an error that names it, instead of waiting
for it. If a rank dies, the others get the error of the backend, after the time-out of the group at the
latest.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from .arrays import NotFiniteError, says_stop
from .interrupts import uninterrupted

OPERATIONS = ["points", "sums", "minima", "callback", "arguments", "seed", "state", "exit"]
ERRORS: dict[int, type[BaseException]] = {1: KeyboardInterrupt, 2: NotFiniteError, 3: RuntimeError}
"""What the others raise, by the first entry of the header of a rank that aborts; it is 0 in others."""


class Handshake:
    """The processes of a group of torch.distributed, and their handshakes, on a device."""

    def __init__(self, group: Any, device: torch.device) -> None:
        self.group, self.device = group, device
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.is_inside = self._is_exchanging = False
        self.is_aborted = False  # whether a rank has ended by an exception: no more is exchanged
        self.overlapped: Callable[[], None] | None = None  # called, once, while a sum is on its way

    def __repr__(self) -> str:
        return f"{type(self).__name__}(rank={self.rank}, size={self.size})"

    @uninterrupted()
    def handshake(self, operation: str, *facts: int) -> list[list[int]]:
        """Send this rank's operation, and two facts at most; receive the facts of all ranks.

        If a rank ended by an exception, it is raised here by its kind in `ERRORS`.
        """
        headers = self._exchange_headers(0, OPERATIONS.index(operation), *facts)
        aborted = self._aborted(headers)
        if aborted:
            self.is_aborted = True
            text = f"rank {aborted[0]} of {self.size} left: {self._broadcast_text('', aborted[0])}"
            raise ERRORS[headers[aborted[0]][0]](f"process_group: {text}")
        if any(OPERATIONS[header[1]] != operation for header in headers):
            self.is_aborted = True
            found = ", ".join(f"rank {r} {OPERATIONS[header[1]]!r}" for r, header in enumerate(headers))
            raise RuntimeError(
                f"process_group: expected all ranks at the same place of the run, received {found}; "
                "make the same calls, with the same arguments, on all of them."
            )
        return [header[2:] for header in headers]

    @uninterrupted()
    def abort(self, error: BaseException) -> None:
        """Send the others the exception by which this rank ends, unless they know that one has.

        Not in the middle of an exchange, which a second Ctrl-C has left: it would be taken for its data.
        """
        if self.is_aborted or self._is_exchanging:
            return
        self.is_aborted = True
        with contextlib.suppress(RuntimeError):  # they may be gone, too
            kind = next((k for k in (1, 2) if isinstance(error, ERRORS[k])), 3)
            headers = self._exchange_headers(kind, OPERATIONS.index("exit"))
            self._broadcast_text(f"{type(error).__name__}: {error}", self._aborted(headers)[0])

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Context, in which an exception of this rank ends the others, too."""
        is_outermost, self.is_inside = not self.is_inside, True
        if is_outermost:
            self.is_aborted = self._is_exchanging = False
            self.overlapped = None
        try:
            yield
        except BaseException as error:
            self.abort(error)
            raise
        finally:
            self.is_inside = not is_outermost

    def agreed(self, callback: Callable[[Any], Any]) -> Callable[[Any], bool]:
        """A callback whose verdict is that of all ranks: true, if it is on one."""

        def call(state: Any) -> bool:
            return any(
                verdict for (verdict, _) in self.handshake("callback", says_stop(callback(state)))
            )

        return call

    def seed(self, seed: int) -> int:
        """A seed of this rank, made of that of rank 0."""
        return int(np.random.SeedSequence([self.first_seed(seed), self.rank]).generate_state(1)[0])

    def first_seed(self, seed: int) -> int:
        """The seed of rank 0."""
        (first, _), *_ = self.handshake("seed", seed % 2**63)
        return first

    def check_same(self, **arguments: Any) -> None:
        """Check that arguments, by their ``repr``, are those of all ranks."""
        for name, value in arguments.items():
            digest = hashlib.sha256(f"{name} {value}".encode()).digest()
            headers = self.handshake("arguments", int.from_bytes(digest[:7], "big"))
            others = [rank for rank, header in enumerate(headers) if header != headers[0]]
            if others:
                self.is_aborted = True
                raise ValueError(
                    f"{name}: expected the same on all ranks, received on rank {others[0]} another than "
                    f"on rank 0; give each rank the same {name}."
                )

    def handshake_same(self, operation: str, *facts: int, free: int = 0) -> list[list[int]]:
        """Handshake in which all facts but the first few must be those of all."""
        headers = self.handshake(operation, *facts)
        if any(header[free:] != headers[0][free:] for header in headers):
            self.is_aborted = True
            raise RuntimeError(
                f"process_group: expected exchanges of one size, received {headers} of the ranks; make "
                "the same calls, with the same arguments, on all of them."
            )
        return headers

    def _exchange_headers(self, *entries: int) -> list[list[int]]:
        headers = torch.zeros((self.size, 4), dtype=torch.int64, device=self.device)
        headers[self.rank, : len(entries)] = torch.tensor(entries, device=self.device)
        self._wait(self._post(dist.all_reduce, headers))  # whose latency grows as log(size)
        return headers.tolist()

    @staticmethod
    def _aborted(headers: list[list[int]]) -> list[int]:
        """Ranks that abort."""
        return [rank for rank, header in enumerate(headers) if header[0] > 0]

    def _broadcast_text(self, text: str, source: int) -> str:
        """A short text of the rank `source`, on all ranks."""
        raw = text.encode()[:240].ljust(240)
        sent = torch.tensor(list(raw), dtype=torch.uint8, device=self.device)
        self._wait(self._post(dist.broadcast, sent, dist.get_global_rank(self.group, source)))
        return bytes(sent.tolist()).decode(errors="replace").strip()

    def _post(self, collective: Callable, *arguments: Any) -> Any:
        self._is_exchanging = True
        with self.explained():
            return collective(*arguments, group=self.group, async_op=True)

    def _wait(self, work: Any) -> None:
        with self.explained():
            work.wait()
        self._is_exchanging = False

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Say of an error of the backend what it means."""
        try:
            yield
        except RuntimeError as error:
            self.is_aborted = True
            raise RuntimeError(
                f"process_group: rank {self.rank} of {self.size} lost another rank, which died or did "
                f"not answer within the time-out of the group ({error})."
            ) from error
