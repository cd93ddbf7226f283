"""Pairs in a file: the seed of their noise, and the row of the data of each."""

import json
import math
import os
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from ...backend import describe, ours
from ...problem import check_count
from ...runs import check_input, replaced
from ...runs.archive import Archive, check_facts, is_count
from ..data import DataRows
from .loader import PairLoader
from .space import PairingSpace
from .streams import NoiseLaw, PairStream, fingerprint

_CHECKS: dict[str, Callable[[Any], bool]] = {
    "format": lambda value: value == 1,
    "seed": is_count,
    "noise": lambda value: isinstance(value, str),
    "n_reuse": lambda value: is_count(value) and value > 0,
    "shape": lambda value: isinstance(value, list) and all(map(is_count, value)),
    "dtype": ["float32", "float64"].__contains__,
    "device": lambda value: isinstance(value, str),
    "n_data": is_count,
}


def write_table(
    path: str | os.PathLike, stream: PairStream, labels: torch.Tensor | None, n_data: int, n: int
) -> None:
    """Write a table of at least n pairs, whole or not at all."""
    noise, like = stream.law.noise, stream.law.like
    if not isinstance(noise, str):
        raise ValueError(
            "noise: expected a law with a name, by which a file can tell it, received "
            f"{describe(noise)}; make one with samplers.register_law."
        )
    facts = {"format": 1, "seed": stream.seed, "noise": noise, "n_reuse": stream.n_reuse}
    facts |= {"shape": list(stream.space.shape), "dtype": str(like.dtype).removeprefix("torch.")}
    facts |= {"device": like.device.type, "n_data": n_data}
    chunks = [stream.draw(number)[1].cpu().numpy() for number in range(math.ceil(n / stream.n))]
    arrays = {"index": np.stack(chunks).astype(np.int32), "meta": np.array(json.dumps(facts))}
    if stream.has_fresh:
        arrays["projection"] = stream.space.matrix.cpu().numpy()
    if labels is not None:
        arrays["labels"] = labels.cpu().numpy()
    with replaced(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


class Table(NamedTuple):
    """What a file of :func:`write_table` has."""

    rows: np.ndarray  # of the data, shape (n_chunks, n)
    facts: dict[str, Any]  # those of _CHECKS
    projection: np.ndarray | None  # by which a pair gets fresh noise, shape (d, k)
    labels: np.ndarray | None  # shape (n_data, ...)


def read_table(path: str | os.PathLike) -> Table:
    """What :func:`write_table` wrote."""
    path = check_input("path", path)
    try:
        with open(path, "rb") as file:
            archive = Archive(file)
            facts = json.loads(str(archive.array("meta", "U", ())))
            check_facts(facts, _CHECKS)
            index = archive.array("index", "i", (None, None))
            projection = labels = None
            if "projection" in archive:
                projection = archive.array("projection", "f", (math.prod(facts["shape"]), None))
            if "labels" in archive:
                labels = _labels(archive, facts["n_data"])
            if index.size == 0 or index.min() < 0 or index.max() >= facts["n_data"]:
                raise ValueError("numbers of data that there are not")
    except ValueError as error:
        raise ValueError(
            f"{path}: expected a file written by SemiDiscretePairs.precompute, received {error}; "
            "write it again, or read a copy that is whole."
        ) from error
    return Table(index, facts, projection, labels)


def _labels(archive: Archive, n_data: int) -> np.ndarray:
    """Labels, a number each, or conditions, a row each."""
    try:
        return archive.array("labels", "iub", (n_data,))
    except ValueError:
        return archive.array("labels", "f", (n_data, None))


class TableAssignment:
    """Data of a chunk as they are in a table, shape (n_chunks, n)."""

    def __init__(self, index: torch.Tensor) -> None:
        self.index = index
        self.fingerprint = fingerprint(tuple(index.shape), zlib.crc32(index.cpu().numpy().data))

    def __call__(self, number: int, noise: torch.Tensor) -> torch.Tensor:
        return self.index[number]


class StoredPairs(PairLoader):
    """Batches of pairs from a table written by :meth:`SemiDiscretePairs.precompute`.

    Noise is drawn again from its seed, and nothing is paired. Batches are those of the pairs that wrote
    the table. After its end the table begins anew, with fresh noise in the coordinates outside of the
    space of pairing.

    Parameters
    ----------
    path : str or path-like
        Of the table.
    data : tensor of shape (n_data, ...) or Dataset
        The data of the pairs that wrote it.
    batch_size : int, default=128
        Pairs of a batch; a divisor of the pairs of a chunk, which are four batches of the pairs that
        wrote it.
    transform : callable, optional
        ``item -> tensor``.
    n_reuse : int, optional
        Uses of a pair; by default as in the pairs that wrote it.
    epoch_size : int, optional
        As many as data by default.
    device : str or torch.device, optional
        Where noise is drawn: the kind of device that paired it, ``"cuda"`` or ``"cpu"``.

    Raises
    ------
    TypeError, ValueError
        If the file is not one of ours, or arguments do not fit it.

    Examples
    --------
    >>> import os, tempfile, torch
    >>> from pot_semidiscrete.generative import SemiDiscretePairs, StoredPairs
    >>> points = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    >>> pairs = SemiDiscretePairs(points, batch_size=50, random_state=0)
    >>> path = os.path.join(tempfile.mkdtemp(), "pairs.npz")
    >>> pairs.precompute(1000, path)
    >>> stored = StoredPairs(path, points, batch_size=50)
    >>> all(torch.equal(a, b) for a, b in zip(next(iter(pairs)), next(iter(stored))))
    True
    """

    @ours()
    def __init__(
        self,
        path: str | os.PathLike,
        data: Any,
        *,
        batch_size: int = 128,
        transform: Callable[[Any], torch.Tensor] | None = None,
        n_reuse: int | None = None,
        epoch_size: int | None = None,
        device: Any = None,
    ) -> None:
        table = read_table(path)
        facts, batch_size = table.facts, check_count("batch_size", batch_size)
        device = facts["device"] if device is None else device
        if not isinstance(device, (str, torch.device)):
            raise TypeError(f"device: expected the name of a device, received {describe(device)}.")
        if str(device).partition(":")[0] != facts["device"]:
            raise ValueError(
                f"device: expected {facts['device']!r}, where the pairs were made, for random numbers "
                f"are others elsewhere, received {str(device)!r}; write a table with a coupling there."
            )
        n = table.rows.shape[1]
        if n % batch_size != 0:
            raise ValueError(f"batch_size: expected a divisor of {n}, received {batch_size}; take one.")
        like = torch.zeros(
            (1, math.prod(facts["shape"])), dtype=getattr(torch, facts["dtype"]), device=device
        )
        move = lambda array: torch.from_numpy(array).to(device)
        projection = None if table.projection is None else move(table.projection).to(like)
        space = PairingSpace(tuple(facts["shape"]), projection)
        index = move(table.rows.astype(np.int64))
        n_reuse = facts["n_reuse"] if n_reuse is None else check_count("n_reuse", n_reuse)
        self.n_pairs, law, seed = index.numel(), NoiseLaw(facts["noise"], like), facts["seed"]
        stream = PairStream(space, law, TableAssignment(index), seed, n, n_reuse, len(index))
        labels = None if table.labels is None else move(table.labels)
        rows = DataRows(data, transform)
        super().__init__(stream, rows, labels, facts["n_data"], batch_size, epoch_size)

    def __repr__(self) -> str:
        return (
            f"StoredPairs(n_pairs={self.n_pairs}, batch_size={self.batch_size}, n_batches={len(self)})"
        )
