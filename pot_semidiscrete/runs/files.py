"""Files that are never half written."""

import contextlib
import os
from collections.abc import Iterator
from typing import IO


@contextlib.contextmanager
def replaced(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Open a binary file that takes the place of `path`, whole, when the body ends well.

    Until then it lies beside it, so that a kill at any moment leaves the old file, or the new one.

    Parameters
    ----------
    path : str or path-like
    """
    path = os.fsdecode(path)
    partial = f"{path}.partial"
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or the name could reach the disk before the data
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise
