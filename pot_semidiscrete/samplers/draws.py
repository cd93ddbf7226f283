"""Batches of a source, checked."""

from collections.abc import Callable
from typing import Any

from ..backend import Array, describe, guest, is_foreign, no_grad
from ..kernels import ranks_at
from ..problem import Target, check_lengths, check_same_kind
from .base import Sampler


class Draws:
    """Checked batches of a source, in the target's coordinates and cut from any graph.

    ``n_samples`` counts the points drawn so far, on all ranks if the target is shared.
    """

    def __init__(self, sampler: Sampler, target: Target) -> None:
        self.sampler, self.target, self.n_samples = sampler, target, 0
        self._ahead: dict[tuple[str, int], Array | Exception] = {}

    def __call__(self, n: int) -> Array:
        """Draw the next batch."""
        return self._draw("sampler_source", self.sampler, n)

    @property
    def are_quasi_random(self) -> bool:
        """Whether points depend on those before."""
        return self.sampler.is_quasi_random

    def independent(self, n: int) -> Array:
        """Draw a batch of independent points."""
        if not self.are_quasi_random:
            return self(n)
        return self._draw("sampler_source.independent", self.sampler.independent, n)

    def _draw(self, name: str, draw: Callable[[int], Array], n: int) -> Array:
        """Points of all ranks, counted."""
        ranks = ranks_at(self.target)
        if ranks is None:
            x = self._checked(name, draw, n)
        elif self.are_quasi_random:  # one sequence: the first rank draws all
            x = self._checked(name, draw, n) if ranks.rank == 0 else None
            x = ranks.gather(self.target.like[:0] if x is None else x)
        else:
            x = self._of_all_ranks(name, draw, n)
        self.n_samples += x.shape[0]
        return x

    def _of_all_ranks(self, name: str, draw: Callable[[int], Array], n: int) -> Array:
        """n points, a part drawn by each rank; the next part is drawn while ranks exchange sums."""
        ranks = ranks_at(self.target)
        part = ranks.part(n)
        draw_part = lambda: self._checked(name, draw, part.stop - part.start)
        x = self._ahead.pop((name, n), None)
        if isinstance(x, Exception):
            raise x

        def draw_ahead() -> None:
            try:
                self._ahead[name, n] = draw_part()
            except Exception as error:  # raised when the batch is asked for, if ever
                self._ahead[name, n] = error

        ranks.overlapped = draw_ahead
        return ranks.gather(draw_part() if x is None else x)

    def _checked(self, name: str, draw: Callable[[int], Array], n: int) -> Array:
        """What a sampler returns, checked, in the target's coordinates."""
        if n == 0:
            return self.target.like[:0]
        draw = guest(draw) if is_foreign(type(self.sampler)) else draw
        with no_grad(self.target.nx):
            x = check_batch(f"{name}({n})", draw(n), n, self.target)
            # a sampler may return the same memory each time
            return self.target.nx.copy(x) if self.target.origin is None else self.target.center(x)


def check_batch(name: str, x: Any, n: int, target: Target) -> Array:
    """Check what a sampler returned when asked for `n` points; fewer are taken as they come."""
    nx, atoms = target.nx, target.like
    expected = f"an array of shape ({n}, {atoms.shape[1]}), backend and dtype of X_target"
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise TypeError(f"{name}: expected {expected}, received {describe(x)}.")
    check_same_kind(name, x, atoms)
    if len(x.shape) != 2 or x.shape[1] != atoms.shape[1] or not 0 < x.shape[0] <= n:
        raise ValueError(f"{name}: expected {expected}, received {describe(x)}.")
    check_lengths(name, x, nx, "check the generator")
    return nx.detach(x)
