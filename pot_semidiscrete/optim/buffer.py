"""Source points on their way: those that no step was taken with, and those kept for Newton's method."""

import math
from collections.abc import Callable

from ..backend import Array, Backend, joined
from ..samplers.draws import Draws


class SampleBuffer:
    """Points in the order in which they came: the newest, up to `limit` bytes.

    Attributes
    ----------
    size : int
        Points in it.
    complete : bool
        Whether none was dropped.
    """

    def __init__(self, limit: float, nx: Backend) -> None:
        self.limit, self.nx, self.size, self.complete = limit, nx, 0, True
        self._batches: list[Array] = []

    def add(self, x: Array) -> None:
        """Put a batch at the end; drop the oldest points that there is no room for."""
        self._batches.append(x)
        self.size += x.shape[0]
        row = x.shape[1] * self.nx.bitsize(x) // 8
        if row * self.size > self.limit:
            self.take(self.size - int(self.limit // row))
            self.complete = False

    def take(self, n: int) -> Array:
        """Take the first n points out, or all if there are fewer."""
        n, parts = min(n, self.size), list[Array]()
        self.size -= n
        while n > 0:
            first = self._batches.pop(0)
            if first.shape[0] > n:
                self._batches.insert(0, first[n:])
            parts.append(first[:n])
            n -= parts[-1].shape[0]
        return joined(parts, self.nx)

    def points(self) -> Array:
        """All of them, in one array; they stay."""
        self._batches = [joined(self._batches, self.nx)]
        return self._batches[0]


class SampleStream:
    """The source points of a run: drawn in batches, looked at, taken for steps, kept.

    Batches have the size of the run: batch normalisation makes the law depend on it.

    Parameters
    ----------
    draw : Draws
    batch_size : int
    max_memory : int
        Bytes of points to keep.

    Attributes
    ----------
    kept : SampleBuffer
    unused : SampleBuffer
        Points that no step was taken with.
    """

    def __init__(self, draw: Draws, batch_size: int, max_memory: int) -> None:
        self.draw, self.batch_size, nx = draw, batch_size, draw.target.nx
        self.kept, self.unused = SampleBuffer(max_memory, nx), SampleBuffer(math.inf, nx)
        self._next: list[Array] = []  # batches that were looked at

    def advance(self) -> None:
        """Take in the next batch."""
        x = self._next.pop(0) if self._next else self.draw(self.batch_size)
        self.kept.add(x)
        self.unused.add(x)

    def ahead(self, n: int) -> Array:
        """About n points, n or more, that come next."""
        return self._fresh(self.draw, n, 1, True)

    def independent(self, n: int) -> Array:
        """About n independent points, in two batches at least; they come next, if they can."""
        return self._fresh(self.draw.independent, n, 2, not self.draw.are_quasi_random)

    def _fresh(self, draw: Callable[[int], Array], n: int, least: int, come_next: bool) -> Array:
        """Points in batches, so many at least; a sampler may return fewer points than asked for."""
        batches, drawn = list[Array](), 0
        while drawn < n or len(batches) < least:
            batches.append(draw(self.batch_size))
            drawn += batches[-1].shape[0]
        if come_next:
            self._next += batches
        return joined(batches, self.draw.target.nx)
