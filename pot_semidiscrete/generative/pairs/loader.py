"""A data set of torch whose batches are cut from chunks, and which resumes at any of them."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch.utils.data import IterableDataset

from ...backend import describe, ours
from ...problem import check_count
from ..data import DataRows
from .streams import PairStream, shared_counts, this_process, this_worker


def _shapes(batch: Any) -> str:
    """Name of the tuple, and the shape of each entry."""
    shapes = (f"{name}: {tuple(x.shape)}" for name, x in batch._asdict().items())
    return f"{type(batch).__name__}({', '.join(shapes)})"


class Pairs(NamedTuple):
    """A batch of pairs: ``noise`` and ``data``, (batch_size, ...), and ``index``, rows of the data."""

    noise: torch.Tensor
    data: torch.Tensor
    index: torch.Tensor  # type: ignore[assignment]  # hides tuple.index

    def __repr__(self) -> str:
        return _shapes(self)


class LabelledPairs(NamedTuple):
    """A batch of pairs with the labels, or the conditions, of the data."""

    noise: torch.Tensor
    data: torch.Tensor
    index: torch.Tensor  # type: ignore[assignment]
    label: torch.Tensor

    def __repr__(self) -> str:
        return _shapes(self)


class PairLoader(IterableDataset):
    """The base of :class:`SemiDiscretePairs` and :class:`StoredPairs`: batches and epochs.

    Chunks of pairs are numbered, through all epochs and processes. An epoch of a process is a range of
    these numbers; worker i of w makes the i-th, (i + w)-th, (i + 2w)-th and so on of the range.
    """

    def __init__(
        self,
        stream: PairStream,
        rows: DataRows,
        labels: torch.Tensor | None,
        n_data: int,
        batch_size: int,
        epoch_size: int | None,
    ) -> None:
        super().__init__()
        rows.check_length(n_data)
        self.stream, self.rows, self.labels, self.batch_size = stream, rows, labels, batch_size
        self.epoch_size = n_data if epoch_size is None else check_count("epoch_size", epoch_size)
        self._batches_per_use = stream.n // batch_size  # of the pairs of a chunk, ...
        self._batches_per_chunk = self._batches_per_use * stream.n_reuse  # ... and of all its uses
        self._rank_and_size = (0, 1)
        self._epochs_begun = shared_counts()  # of each worker
        self._position = (0, 0)  # epoch, and batches of it that this process or worker has made
        self._is_resumed = False  # whether a loaded position waits for the next epoch ...
        self._resumed_worker = (0, 1)  # ... and in which worker, of how many, it was loaded

    def __getstate__(self) -> dict[str, Any]:
        self._find_rank()
        return dict(vars(self))

    def __len__(self) -> int:
        """Batches of an epoch of this process, those of all workers."""
        return math.ceil(self.epoch_size / (self.batch_size * self._find_rank()[1]))

    def __iter__(self) -> Iterator[Pairs | LabelledPairs]:
        """Batches of the next epoch, or of the one that was resumed."""
        worker, n_workers = this_worker()
        if self._is_resumed and (worker, n_workers) != self._resumed_worker:
            raise ValueError(
                "state: expected to go on with num_workers=0, as it is of the middle of an epoch with "
                f"none, received {n_workers} workers; resume these by torchdata's StatefulDataLoader."
            )
        epoch, start = self._position if self._is_resumed else (int(self._epochs_begun[worker]), 0)
        self._is_resumed, self._position = False, (epoch, start)
        self._epochs_begun[worker] = epoch + 1
        rank, n_ranks = self._find_rank()
        first, done = (epoch * n_ranks + rank) * self._n_chunks, 0  # number of the epoch's first chunk
        for i, size in self._chunks(worker, n_workers):
            if done + size > start:
                for batch in self._batches(first + i, max(start - done, 0), size):
                    self._position = (epoch, self._position[1] + 1)
                    yield batch
            done += size

    def set_epoch(self, epoch: int) -> None:
        """Begin with this epoch next, in this process and all workers, and forget a loaded state."""
        self._is_resumed, self._position = False, (check_count("epoch", epoch, minimum=0), 0)
        self._epochs_begun.fill_(epoch)

    def state_dict(self) -> dict[str, int]:
        """Position of this process, or of this worker, as plain numbers.

        With workers each has its own state, which torchdata's ``StatefulDataLoader`` collects. That of
        the main process is then the start of the next epoch.
        """
        worker, n_workers = this_worker()
        epoch, batch = self._position
        n_batches = sum(size for _, size in self._chunks(worker, n_workers))
        if not self._is_resumed and not 0 < batch < n_batches:
            epoch, batch = int(self._epochs_begun[worker]), 0
        return {**self._arguments(), "epoch": epoch, "batch": batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from a state, bit for bit; with workers, from the start of an epoch.

        In the middle of an epoch with workers, it is the state of a ``StatefulDataLoader`` to load.

        Raises
        ------
        ValueError
            If the state is of other pairs, or of another number of workers or processes.
        """
        if not isinstance(state, dict):
            raise TypeError(f"state: expected what state_dict() returned, received {describe(state)}.")
        epoch, batch = (
            check_count(f"state: {name}", state.get(name), minimum=0) for name in ("epoch", "batch")
        )
        for name, value in self._arguments().items():
            found = state.get(name)
            if found != value:
                hint = f", random_state={found} here" if name == "seed" else ""
                raise ValueError(
                    f"state: expected that of pairs with {name} {value}, received {found}; make the "
                    f"pairs, and their loader, with the arguments of the run that is resumed{hint}."
                )
        if batch == 0 and this_worker() == (0, 1):  # in the main process: for workers to come, too
            self.set_epoch(epoch)
            return
        self._position, self._is_resumed, self._resumed_worker = (epoch, batch), True, this_worker()

    def _arguments(self) -> dict[str, int]:
        """What a state must have in common with the pairs that continue it."""
        worker, n_workers = this_worker()
        rank, n_ranks = self._find_rank()
        sizes = {"seed": self.stream.seed, "batch_size": self.batch_size, "chunk_size": self.stream.n}
        sizes |= {"n_reuse": self.stream.n_reuse, "epoch_size": self.epoch_size}
        sizes["of"] = self.stream.assign.fingerprint
        return sizes | {"worker": worker, "n_workers": n_workers, "rank": rank, "n_ranks": n_ranks}

    def _find_rank(self) -> tuple[int, int]:
        """Rank and number of processes, as they were where there was a process group."""
        self._rank_and_size = this_process() or self._rank_and_size
        return self._rank_and_size

    @property
    def _n_chunks(self) -> int:
        """Chunks of an epoch of this process."""
        return math.ceil(len(self) / self._batches_per_chunk)

    def _chunks(self, worker: int, n_workers: int) -> Iterator[tuple[int, int]]:
        """The chunks of an epoch that a worker makes, and how many batches of each."""
        for i in range(worker, self._n_chunks, n_workers):
            yield i, min(self._batches_per_chunk, len(self) - i * self._batches_per_chunk)

    def _batches(self, number: int, start: int, stop: int) -> Iterator[Pairs | LabelledPairs]:
        """Batches `start` to `stop` of a chunk."""
        noise, index = self.stream.draw(number)
        per_use = self._batches_per_use
        for k in range(start // per_use, math.ceil(stop / per_use)):
            parts = [part.split(self.batch_size) for part in self.stream.use(number, k, noise, index)]
            for i in range(max(start - k * per_use, 0), min(stop - k * per_use, per_use)):
                yield self._batch(*(part[i] for part in parts))

    @ours()
    def _batch(self, noise: torch.Tensor, index: torch.Tensor) -> Pairs | LabelledPairs:
        """Pairs as the user gets them: noise in its shape, data and labels looked up."""
        noise, data = noise.reshape(-1, *self.stream.space.shape), self.rows(index)
        if self.labels is None:
            return Pairs(noise, data, index)
        return LabelledPairs(noise, data, index, self.labels[index])
