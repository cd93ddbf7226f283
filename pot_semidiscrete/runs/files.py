"""Files that are never half written."""

import contextlib
import os


@contextlib.contextmanager
def replaced(path):
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
