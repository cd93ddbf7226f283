"""Noise for given data points: drawn with pairs, and kept until it is asked for."""

import math
import os
from collections import defaultdict
from typing import Any

import torch

from ...backend import describe
from ...backend.torch_backend import TorchRandom
from .assignment import CouplingAssignment
from .groups import Condition
from .streams import PairStream, shared_counts, stream, this_process, this_worker


class Reservoir:
    """Noise samples that are kept by the data points they are paired with.

    Which of them are kept depends on the data points and the order of requests, never on the noise: they
    stay samples of the law of the noise given the data point. At most `max_memory` bytes are kept.
    ``n_nearest`` counts samples that were returned for a data point though they are paired with another.
    """

    def __init__(self, pairing: CouplingAssignment, stream: PairStream, max_memory: int) -> None:
        self.pairing, self.stream, self.max_memory = pairing, stream, max_memory
        self._drawn = shared_counts()  # streams that each worker of a loader has opened
        self._empty()

    def __getstate__(self) -> dict[str, Any]:
        """Without what is kept, which is to be used once."""
        return {name: getattr(self, name) for name in ("pairing", "stream", "max_memory", "_drawn")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._empty()

    def _empty(self) -> None:
        """Forget all noise and counts."""
        self.kept = self.stream.law.like.new_empty((0, self._width))
        self.slots: dict[int, list[int]] = defaultdict(list)  # rows of kept, of each data point
        self.free: list[int] = []  # rows of kept that may be written over
        self.n_slots = self.n_nearest = self.n_asked = self.n_points = 0
        self.process = os.getpid()

    @property
    def _width(self) -> int:
        """Numbers that are kept of a sample: its point of the space if the rest is drawn anew."""
        has_fresh = self.stream.has_fresh
        return self.stream.space.matrix.shape[1] if has_fresh else self.stream.law.like.shape[1]

    def take(self, index: torch.Tensor) -> torch.Tensor:
        """Noise for these rows of the data, of the shape of a sample."""
        index = self._checked(index)
        if self.process != os.getpid():
            self._empty()  # in a forked worker: the process that started it has the same noise
        self.n_asked += len(index)
        found = self.kept.new_empty((len(index), self._width))
        rows, n_data = index.tolist(), self.pairing.coupling.n_data
        missing = self._collect(rows, range(len(rows)), found)
        while missing and self.n_points < 4 * n_data + 8 * self.n_asked:  # a start, and rare data
            kept, points, condition, random = self._draw(index[missing])
            self._add(kept, self.pairing.assign(points, condition, random))
            missing = self._collect(rows, missing, found)
        if missing:
            found[missing] = self._nearest(index[missing])
        if self.stream.has_fresh:  # the coordinates out of the space
            found = self.stream.space.refreshed(found, self.stream.law.draw(len(found), self._random()))
        return found.reshape(-1, *self.stream.space.shape)

    def _checked(self, index: Any) -> torch.Tensor:
        """Rows of the data, of positive weight."""
        whole = isinstance(index, torch.Tensor) and not index.is_floating_point()
        if not whole or index.ndim != 1 or index.dtype == torch.bool:
            raise TypeError(
                f"index: expected a tensor of int of shape (n,), received {describe(index)}; use "
                "torch.as_tensor."
            )
        pairing, n_data = self.pairing, self.pairing.coupling.n_data
        index = index.to(self.stream.law.like.device).long()
        if len(index) > 0 and not 0 <= int(index.min()) <= int(index.max()) < n_data:
            raise ValueError(
                f"index: expected rows of the data, 0 to {n_data - 1}, received {int(index.min())} to "
                f"{int(index.max())}; number the data in the order in which they were paired."
            )
        if len(index) > 0 and not bool((pairing.weights[index] > 0.0).all()):
            row = int(index[pairing.weights[index] == 0.0][0])
            raise ValueError(f"index: expected data of positive weight, received row {row} of weight 0.")
        if self._limit < 1:
            least = n_data * self._width * self.kept.element_size()
            raise ValueError(
                f"max_memory: expected {least} bytes at least, a point of noise for each of the data, "
                f"received {self.max_memory}."
            )
        return index

    @property
    def _limit(self) -> int:
        """Noise samples that may be kept for each data point."""
        room = self.max_memory // (self._width * self.kept.element_size())
        return room // self.pairing.coupling.n_data

    def state_dict(self) -> dict[str, Any]:
        """What is kept, and how much was drawn."""
        atoms = sorted(atom for atom, slots in self.slots.items() if slots)
        sizes = torch.tensor([len(self.slots[atom]) for atom in atoms], device="cpu", dtype=torch.long)
        slots = [slot for atom in atoms for slot in self.slots[atom]]
        points = self.kept[slots].clone()
        index = torch.tensor(atoms, device="cpu", dtype=torch.long).repeat_interleave(sizes)
        n_drawn = int(self._drawn[this_worker()[0]])
        counts = (self.n_nearest, self.n_asked, self.n_points)
        return {"index": index, "points": points, "n_drawn": n_drawn, "counts": counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there, bit for bit."""
        self._empty()
        self._add(state["points"].to(self.kept), state["index"])
        self._drawn[this_worker()[0]] = state["n_drawn"]
        self.n_nearest, self.n_asked, self.n_points = state["counts"]

    def _random(self) -> TorchRandom:
        """Random numbers of the next draw. Chunks of the loader have 0, 1 or 2 where this has 3."""
        worker, (rank, _) = this_worker()[0], this_process() or (0, 1)
        self._drawn[worker] += 1
        count = (int(self._drawn[worker]), 3, worker, rank)
        return stream(self.pairing.seed, *count, like=self.stream.law.like)

    def _draw(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Condition, TorchRandom]:
        """Noise drawn under the conditions of these data, and the random numbers to pair it with.

        It is returned in the form in which it is kept, and as points of the space of pairing.
        """
        coupling, law, random = self.pairing.coupling, self.stream.law, self._random()
        n = max(self.stream.n, len(index))
        self.n_points += n
        groups = coupling.groups.codes[index.repeat(math.ceil(n / len(index)))[:n]]
        condition = self.pairing.condition_on(groups, random)
        noise = law.draw(n, random)
        points = coupling.space.points(noise)
        kept = points if self.stream.has_fresh else noise
        if condition.values is not None:
            points = coupling.space.joined(points, condition.values)
        return kept, points, condition, random

    def _nearest(self, index: torch.Tensor) -> torch.Tensor:
        """For each of these data, the noise of a new draw that is nearest to being paired with it."""
        kept, points, condition, _ = self._draw(index)
        excess = self.pairing.excess(points, condition, index)
        best = []
        for column in range(len(index)):
            best.append(int(excess[:, column].argmin()))
            self.n_nearest += int(excess[best[-1], column] > 0.0)
            excess[best[-1]] = torch.inf  # used once
        return kept[best]

    def _add(self, points: torch.Tensor, index: torch.Tensor) -> None:
        """Keep noise for the data points of `index`, up to the limit of each."""
        rows, slots, limit = [], [], self._limit
        for row, atom in enumerate(index.tolist()):
            found = self.slots[atom]
            if len(found) < limit:
                rows.append(row)
                slots.append(self.free.pop() if self.free else self.n_slots)
                self.n_slots = max(self.n_slots, slots[-1] + 1)
                found.append(slots[-1])
        if self.n_slots > len(self.kept):  # doubled, so that it is seldom
            more = self.kept.new_empty((max(len(self.kept), self.n_slots - len(self.kept)), self._width))
            self.kept = torch.cat([self.kept, more])
        self.kept[slots] = points[rows]

    def _collect(self, index: list[int], rows: Any, found: torch.Tensor) -> list[int]:
        """Move what is kept for these rows of `index` to `found`; return the rows without."""
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
