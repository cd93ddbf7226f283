"""Arrays in a NumPy archive, read by someone who does not trust it."""

import math
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np


class Archive:
    """A file of ``numpy.savez``, whose arrays are looked at before they are read.

    Whatever is wrong with it is a ValueError, and no memory is taken for what is not there.
    """

    def __init__(self, file: IO[bytes]) -> None:
        with _sound():
            self._zip = zipfile.ZipFile(file)
        self._members = {info.filename.removesuffix(".npy"): info for info in self._zip.infolist()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def array(self, name: str, kinds: str, shape: tuple[int | None, ...]) -> np.ndarray:
        """An array of one of some kinds of dtype, and of a shape, in which None is any length."""
        if name not in self._members:
            raise ValueError(f"no entry {name!r}")
        info = self._members[name]
        with _sound(), self._zip.open(info) as file:
            version = np.lib.format.read_magic(file)
            of = np.lib.format
            header = of.read_array_header_1_0 if version == (1, 0) else of.read_array_header_2_0
            found, _, dtype = header(file)
            as_asked = len(found) == len(shape) and all(
                n is None or n == k for n, k in zip(shape, found, strict=True)
            )
            if dtype.kind not in kinds or not as_asked:
                raise ValueError(f"an entry {name!r} of shape {found}, dtype {dtype}, not of {shape}")
            n_bytes = math.prod(found) * dtype.itemsize
            if n_bytes > min(info.file_size, 1032 * info.compress_size):  # the most that deflate can do
                raise ValueError(f"an entry {name!r} that is said to have {n_bytes} bytes, and has not")
        with _sound(), self._zip.open(info) as file:
            return np.lib.format.read_array(file, allow_pickle=False)


def is_count(value: Any) -> bool:
    """Whether what was read is a whole number of at least 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def check_facts(facts: Any, checks: dict[str, Callable[[Any], bool]]) -> None:
    """Check that what was read is a dict whose entries are there and pass their checks."""
    if not isinstance(facts, dict):
        raise ValueError(f"{next(iter(checks))} {facts!r}")
    for name, is_sound in checks.items():
        if name not in facts or not is_sound(facts[name]):
            raise ValueError(f"{name} {facts.get(name, 'not there')!r}")


@contextmanager
def _sound() -> Iterator[None]:
    """Say of all that zip, deflate and NumPy find to be wrong that it is broken."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"a broken archive ({type(error).__name__}: {error})") from error


def check_archive(path: str | os.PathLike) -> None:
    """Compare the parts of a zip file with their check sums; none may be a folder."""
    with _sound(), zipfile.ZipFile(path) as archive:
        # torch takes what is marked as a folder of MS-DOS for one, and leaves its tensor as memory was
        folders = [info.filename for info in archive.infolist() if info.external_attr & 0x10]
        broken = archive.testzip() or next(iter(folders), None)
    if broken is not None:
        raise ValueError(f"a broken archive (check sum or kind of {broken})")
