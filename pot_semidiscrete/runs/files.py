"""Files that are never half written, and nothing else that is written over."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import IO

from ..backend import describe


def _path(name: str, path: object) -> str:
    """Check that something is a path."""
    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"{name}: expected a path, received {describe(path)}.")
    return os.fsdecode(path)


def check_output(name: str, path: object) -> str:
    """Check that a file can be written, before the work that it is to keep; its absolute path.

    A link is followed. Only regular files are replaced: not a folder, a device or a pipe.
    """
    given = _path(name, path)
    path = os.path.realpath(given)
    folder = os.path.dirname(path)
    if os.path.exists(path) and not os.path.isfile(path):
        kind = "a folder" if os.path.isdir(path) else "a device or a pipe"
        raise ValueError(f"{name}: expected a file, received {given!r}, {kind}; give another path.")
    if not os.path.isdir(folder):
        raise ValueError(
            f"{name}: expected a file in a folder that exists, received {given!r}; make the folder "
            f"{folder!r} first."
        )
    if not os.access(folder, os.W_OK):
        raise ValueError(
            f"{name}: expected a file in a folder that can be written to, received {given!r}; change "
            f"the permissions of {folder!r}, or give another path."
        )
    return path


def check_input(name: str, path: object) -> str:
    """Check that there is a file that can be read to its end; its path.

    One that is not there is a FileNotFoundError.
    """
    path = _path(name, path)
    if not os.path.exists(path):
        raise FileNotFoundError(f"{name}: expected a file that exists, received {path!r}.")
    if not os.path.isfile(path):
        raise ValueError(f"{name}: expected a file, received {path!r}, a folder, a device or a pipe.")
    return path


@contextlib.contextmanager
def replaced(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """Open a binary file that takes the place of `path`, whole, when the body ends well.

    Until then it lies beside it, so that a kill at any moment leaves the old file, or the new one.
    """
    path = check_output("path", path)
    partial = f"{path}.partial"
    with contextlib.suppress(FileNotFoundError):
        os.remove(partial)  # of a run that was killed; nothing that it might point to
    try:
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or the name could reach the disk before the data
        if os.path.exists(path):
            shutil.copymode(path, partial)
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise
