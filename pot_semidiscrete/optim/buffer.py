"""Source points on their way: those that no step was taken with, and those kept for Newton's method."""

from collections.abc import Callable

from ..backend import Array, Backend, joined
from ..samplers.draws import Draws


class SampleBuffer:
    """The newest source points, up to `limit` bytes; `complete` while none was dropped.

    Attributes
    ----------
    n : int
        Points in it.
    """

    def __init__(self, limit: int, nx: Backend) -> None:
        self.limit, self.nx, self.n, self.complete = limit, nx, 0, True
        self._batches: list[Array] = []
        self._dropped = 0  # rows before the first batch, whose memory it holds

    def add(self, x: Array) -> None:
        """Take in a batch; drop the oldest points that there is no room for."""
        self._batches.append(x)
        self.n += x.shape[0]
        most = self.limit // (x.shape[1] * self.nx.bitsize(x) // 8)
        while self.n > most:
            self.complete = False
            rows = min(self.n - most, self._batches[0].shape[0])
            self.n, self._dropped = self.n - rows, self._dropped + rows
            rest = self._batches.pop(0)[rows:]
            if rest.shape[0] == 0:
                self._dropped = 0
                continue
            if self._dropped > rest.shape[0]:  # so that no point is copied more than once
                rest, self._dropped = self.nx.copy(rest), 0
            self._batches.insert(0, rest)

    def points(self) -> Array:
        """All of them, in one array."""
        self._batches, self._dropped = [joined(self._batches, self.nx)], 0
        return self._batches[0]


class SampleQueue:
    """Points in the order in which they came, taken out in numbers of another size.

    Attributes
    ----------
    size : int
        Points in it.
    """

    def __init__(self, nx: Backend) -> None:
        self.nx, self.size = nx, 0
        self._batches: list[Array] = []

    def add(self, x: Array) -> None:
        """Put a batch at the end."""
        self._batches.append(x)
        self.size += x.shape[0]

    def take(self, n: int) -> Array:
        """The first n points, or all if there are fewer."""
        points = joined(self._batches, self.nx)
        self._batches = [points[n:]]
        self.size = self._batches[0].shape[0]
        return points[:n]


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
    """

    def __init__(self, draw: Draws, batch_size: int, max_memory: int) -> None:
        self.draw, self.batch_size, nx = draw, batch_size, draw.target.nx
        self.kept, self._unused = SampleBuffer(max_memory, nx), SampleQueue(nx)
        self._next: list[Array] = []  # batches that were looked at

    @property
    def n_unused(self) -> int:
        """Points that no step was taken with."""
        return self._unused.size

    def advance(self) -> None:
        """Take in the next batch."""
        x = self._next.pop(0) if self._next else self.draw(self.batch_size)
        self.kept.add(x)
        self._unused.add(x)

    def take(self, n: int) -> Array:
        """The next n points for a step, or all if there are fewer."""
        return self._unused.take(n)

    def ahead(self, n: int) -> Array:
        """About n points, n or more, that come next."""
        batches = self._fresh(self.draw, n, 1)
        self._next += batches
        return joined(batches, self.draw.target.nx)

    def independent(self, n: int, again: bool = True) -> Array:
        """About n independent points, in two batches at least; they come next if `again`."""
        batches = self._fresh(self.draw.independent, n, 2)
        if again and not self.draw.are_quasi_random:
            self._next += batches
        return joined(batches, self.draw.target.nx)

    def _fresh(self, draw: Callable[[int], Array], n: int, least: int) -> list[Array]:
        batches: list[Array] = []
        drawn = 0
        while drawn < n or len(batches) < least:  # a sampler may return fewer points than asked for
            batches.append(draw(self.batch_size))
            drawn += batches[-1].shape[0]
        return batches
