"""Noise for given data points: drawn with pairs, and kept until it is asked for."""

import math
from collections import defaultdict
from typing import Any

import torch

from ...backend import describe
from ...backend.torch_backend import TorchRandom
from .chunks import PairStream
from .given import Given
from .pairing import CouplingAssignment
from .streams import shared_counts, stream, this_process, this_worker


class Reservoir:
    """Points of noise by the data that they belong to.

    Which of them are kept depends on the data and on time alone, so that they stay samples of the law of
    the noise given the data.

    Parameters
    ----------
    pairing : CouplingAssignment
    stream : PairStream
    max_memory : int
        Bytes.
    patience : int
        Chunks of pairs that a call draws, at most.

    Attributes
    ----------
    n_nearest : int
        Points that were taken for a data point though they belong to another.
    """

    def __init__(
        self, pairing: CouplingAssignment, stream: PairStream, max_memory: int, patience: int = 8
    ) -> None:
        self.pairing, self.stream, self.max_memory = pairing, stream, max_memory
        self.patience = patience
        self.kept = stream.law.like.new_empty(0)
        self.slots: dict[int, list[int]] = defaultdict(list)
        self.free: list[int] = []  # of the slots so far
        self.n_slots = self.n_nearest = 0
        self._drawn = shared_counts()  # chunks, by each worker of a loader

    def take(self, index: torch.Tensor) -> torch.Tensor:
        """Noise for these rows of the data, of the shape of a sample."""
        n_data, like = self.pairing.coupling.n_data, self.stream.law.like
        if not isinstance(index, torch.Tensor) or index.ndim != 1 or index.is_floating_point():
            raise TypeError(
                f"index: expected a tensor of int of shape (n,), received {describe(index)}."
            )
        index = index.to(like.device)
        if len(index) > 0 and not 0 <= int(index.min()) <= int(index.max()) < n_data:
            raise ValueError(f"index: expected rows of the data, 0 to {n_data - 1}, received others.")
        self._begin()
        found = self.kept.new_empty((len(index), self.kept.shape[1]))
        missing = self._collect(index.tolist(), range(len(index)), found)
        for _ in range(self.patience):
            if not missing:
                break
            kept, points, given, random = self._draw(index[missing])
            self._add(kept, self.pairing.assigned(points, given, random))
            missing = self._collect(index.tolist(), missing, found)
        if missing:
            found[missing] = self._nearest(index[missing])
        return self._whole(found).reshape(-1, *self.stream.space.shape)

    def state_dict(self) -> dict[str, Any]:
        """What is kept, and how much was drawn."""
        atoms = sorted(atom for atom, slots in self.slots.items() if slots)
        counts = torch.tensor([len(self.slots[atom]) for atom in atoms], device="cpu", dtype=torch.long)
        slots = [slot for atom in atoms for slot in self.slots[atom]]
        points = self.kept[slots].clone()
        index = torch.tensor(atoms, device="cpu", dtype=torch.long).repeat_interleave(counts)
        n_drawn = int(self._drawn[this_worker()[0]])
        return {"index": index, "points": points, "n_drawn": n_drawn, "n_nearest": self.n_nearest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there, bit for bit."""
        self.kept = self.kept[:0]
        self._begin()
        self._add(state["points"].to(self.kept), state["index"])
        self._drawn[this_worker()[0]], self.n_nearest = state["n_drawn"], state["n_nearest"]

    def _begin(self) -> None:
        """Memory for the noise, if there is none yet."""
        if len(self.kept) > 0:
            return
        coupling, like = self.pairing.coupling, self.stream.law.like
        width = self.stream.space.matrix.shape[1] if self.stream.has_fresh else like.shape[1]
        room = self.max_memory // (width * like.element_size())
        if room < coupling.n_data:
            raise ValueError(
                f"max_memory: expected {coupling.n_data * width * like.element_size()} bytes at "
                f"least, a point of noise for each of the data, received {self.max_memory}."
            )
        self.limit = room // coupling.n_data  # points kept for each of the data
        self.kept = like.new_empty((self.limit * coupling.n_data, width))
        self.slots, self.free, self.n_slots = defaultdict(list), [], 0

    def _random(self) -> TorchRandom:
        """Randomness of the next draw: no chunk of the loader has the second count 3."""
        worker, (rank, _) = this_worker()[0], this_process() or (0, 1)
        self._drawn[worker] += 1
        count = (int(self._drawn[worker]), 3, worker, rank)
        return stream(self.pairing.seed, *count, like=self.stream.law.like)

    def _draw(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Given, TorchRandom]:
        """A chunk of noise in the form in which it is kept, as points, and given what these data are."""
        coupling, law, random = self.pairing.coupling, self.stream.law, self._random()
        n = max(self.stream.n, len(index))
        groups = coupling.groups.codes[index.repeat(math.ceil(n / len(index)))[:n]]
        given = self.pairing.given_in(groups, random)
        noise = law.draw(n, random)
        points = coupling.space.points(noise)
        kept = points if self.stream.has_fresh else noise
        if given.condition is not None:
            points = coupling.space.joined(points, given.condition)
        return kept, points, given, random

    def _nearest(self, index: torch.Tensor) -> torch.Tensor:
        """For each of these data, the point of a chunk that costs least more there than at its own."""
        kept, points, given, _ = self._draw(index)
        excess = self.pairing.excess(points, given, index)
        best = []
        for column in range(len(index)):
            best.append(int(excess[:, column].argmin()))
            self.n_nearest += int(excess[best[-1], column] > 0.0)
            excess[best[-1]] = torch.inf  # each is used once
        return kept[best]

    def _whole(self, kept: torch.Tensor) -> torch.Tensor:
        """Noise, of which the coordinates out of the space are drawn now if they are free."""
        if not self.stream.has_fresh:
            return kept
        fresh = self.stream.law.draw(len(kept), self._random())
        return self.stream.space.refreshed(kept, fresh)

    def _add(self, points: torch.Tensor, index: torch.Tensor) -> None:
        """Keep points for their data, of each data point no more than the limit."""
        rows, slots = [], []
        for row, atom in enumerate(index.tolist()):
            found = self.slots[atom]
            if len(found) < self.limit:
                rows.append(row)
                slots.append(self.free.pop() if self.free else self.n_slots)
                self.n_slots = max(self.n_slots, slots[-1] + 1)
                found.append(slots[-1])
        self.kept[slots] = points[rows]

    def _collect(self, index: list[int], rows: Any, found: torch.Tensor) -> list[int]:
        """Take what there is for these rows of `index`; the rows that are left."""
        taken, slots, missing = [], [], []
        for row in rows:
            kept = self.slots[index[row]]
            if kept:
                taken.append(row)
                slots.append(kept.pop())
            else:
                missing.append(row)
        found[taken] = self.kept[slots]
        self.free += slots
        return missing
