"""Parts of a reduction that the threads of one process do: rows to each, one thread to an operation.

Operations on a block are short. Threads that shared each of them would wait for each other at its end,
for as long as another process has a core, and would fetch what the others have in their caches.
"""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..backend import Array, capabilities, no_grad, on_host, slices
from .base import CACHE, Atoms, row_bytes, sharing_rows
from .scratch import KEPT

Thing = TypeVar("Thing")


@functools.cache
def _pool(n_threads: int, use_threads: Callable[[int], None]) -> ThreadPoolExecutor:
    """So many threads, whose operations have one thread each."""
    return ThreadPoolExecutor(n_threads, "reduce", use_threads, (1,))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of the threads


def in_threads(
    target: Atoms, function: Callable[..., Thing], x: Array, *others: Array | None
) -> list[Thing]:
    """What a function of rows returns for the points `x`, and arrays of as many rows, or for parts.

    Each thread gets a block's worth of scores at least, and enough rows for the reading of the atoms to
    be cheap. Where there are fewer rows, or their block is large, the threads share the operations.
    """
    nx, n_rows, least = target.nx, x.shape[0], sharing_rows(x)
    backend, is_able = capabilities(nx), target.kernel.threaded and not target.is_stored
    most = backend.n_threads() if is_able and on_host(x) else 1
    n_threads = max(min(most, n_rows * row_bytes(target) // CACHE), 1)
    if most == 1 or n_rows < n_threads * least or least * row_bytes(target) > KEPT:
        return [function(x, *others)]

    def of_part(rows: slice) -> Thing:
        with no_grad(nx):
            return function(*(None if array is None else array[rows] for array in (x, *others)))

    backend.use_threads(1)  # those that wait for an operation to share would take cores from the others
    try:
        if n_threads == 1:
            return [of_part(slice(None))]
        parts = slices(n_rows, -(-n_rows // n_threads))
        return list(_pool(most, backend.use_threads).map(of_part, parts))
    finally:
        backend.use_threads(most)
