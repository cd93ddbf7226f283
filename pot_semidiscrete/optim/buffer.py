"""Source points on their way: those that no step was taken with, and those kept for Newton's method."""

from ..backend import Array, Backend, joined


class SampleBuffer:
    """The newest source points, up to `limit` bytes; `complete` while none was dropped."""

    def __init__(self, limit: int, nx: Backend) -> None:
        self.limit, self.nx, self.size, self.complete, self._batches = limit, nx, 0, True, []

    def add(self, x: Array) -> None:
        """Take in a batch; drop the oldest points that there is no room for."""
        self._batches.append(x)
        self.size += self._bytes(x)
        while self.size > self.limit:
            first, self.complete = self._batches.pop(0), False
            self.size -= self._bytes(first)
            rows = (self.limit - self.size) // max(self._bytes(first[:1]), 1)
            if rows > 0:  # all of them may have become one
                self._batches.insert(0, self.nx.copy(first[first.shape[0] - rows :]))
                self.size += self._bytes(self._batches[0])

    def points(self) -> Array | None:
        """All of them, in one array; None if there is no room for any."""
        if self._batches:
            self._batches = [joined(self._batches, self.nx)]
        return self._batches[0] if self._batches else None

    def _bytes(self, x: Array) -> int:
        return x.shape[0] * x.shape[1] * self.nx.bitsize(x) // 8


class SampleQueue:
    """Points in the order in which they came, taken out in numbers of another size.

    Attributes
    ----------
    size : int
        Points in it.
    """

    def __init__(self, nx: Backend) -> None:
        self.nx, self.size, self._batches = nx, 0, []

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
