"""Memory for the blocks of a reduction on the host."""

import math
import threading

import numpy as np

KEPT = 2**23  # bytes
_thread = threading.local()


def scratch(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Array to overwrite, alive until the next call of the same thread.

    Memory of up to `KEPT` bytes is kept, for the system hands out fresh memory page by page, which
    takes as long as a block's arithmetic. Above, NumPy asks for large pages.
    """
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    memory = getattr(_thread, "memory", None)
    if memory is None or len(memory) < n_bytes:
        memory = np.empty(n_bytes + 64, dtype=np.uint8)  # to begin with a line of the cache
        memory = memory[-memory.ctypes.data % 64 :]
        if n_bytes <= KEPT:
            _thread.memory = memory
    return memory[:n_bytes].view(dtype).reshape(shape)
