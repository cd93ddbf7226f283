"""Reading of data files."""

import gzip
import math
import os
import zlib
from pathlib import Path

import numpy as np

from .backend import describe
from .runs import check_input

_IDX_DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: str | os.PathLike) -> np.ndarray:
    """Read an array from an IDX file, gzip-compressed or not (the format of MNIST).

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    ndarray

    Raises
    ------
    TypeError
        If it is no path.
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not in that format, or is cut short.
    """
    data = Path(check_input("path", path)).read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: expected a whole gzip file, received a broken one.") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_DTYPES:
        raise ValueError(f"{path}: expected an IDX file, as MNIST's, received something else.")
    start, dtype = 4 + 4 * data[3], np.dtype(_IDX_DTYPES[data[2]])
    shape = tuple(np.frombuffer(data[4:start], ">i4")) if len(data) >= start else ()
    expected = start + math.prod(int(n) for n in shape) * dtype.itemsize
    if len(data) != expected:
        raise ValueError(f"{path}: expected {expected} bytes, received {len(data)}; is it whole?")
    return np.frombuffer(data[start:], dtype).reshape(shape).astype(dtype.newbyteorder("="))


def load_mnist(folder: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read MNIST, or a data set in its format, from a folder of IDX files.

    Parameters
    ----------
    folder : str or path-like
        Holds ``train-images-idx3-ubyte`` and ``t10k-images-idx3-ubyte``, with or without ``.gz``.

    Returns
    -------
    train, test : ndarray, shape (n, height, width)
        Images, float32 in [0, 1].

    Raises
    ------
    FileNotFoundError
        If a file is missing; the message names it.
    """
    train, test = _read_parts(folder, "images-idx3-ubyte")
    return train.astype(np.float32) / 255.0, test.astype(np.float32) / 255.0


def load_mnist_labels(folder: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read the classes of the images of :func:`load_mnist`.

    Parameters
    ----------
    folder : str or path-like
        Holds ``train-labels-idx1-ubyte`` and ``t10k-labels-idx1-ubyte``, with or without ``.gz``.

    Returns
    -------
    train, test : ndarray, shape (n,)
        Classes, int64.

    Raises
    ------
    FileNotFoundError
        If a file is missing; the message names it.
    """
    train, test = _read_parts(folder, "labels-idx1-ubyte")
    return train.astype(np.int64), test.astype(np.int64)


def _read_parts(folder: str | os.PathLike, kind: str) -> list[np.ndarray]:
    """Those to train with, and those to test with."""
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"folder: expected a path, received {describe(folder)}.")
    parts = []
    for name in (f"train-{kind}", f"t10k-{kind}"):
        found = [p for p in (Path(folder) / name, Path(folder) / f"{name}.gz") if p.exists()]
        if not found:
            raise FileNotFoundError(
                f"folder: expected one that has {name} or {name}.gz, received {str(folder)!r}, which "
                "has neither."
            )
        parts.append(read_idx(found[0]))
    return parts
