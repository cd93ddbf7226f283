"""Atoms that are not in the memory of the computation: read in parts, as they are needed."""

import copy
import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np
from ot.backend import get_backend

from ..backend import Array, Backend, converted, describe, is_bool, ours, slices, template
from ..kernels import BLOCK_BYTES
from .validation import check_lengths, check_points, check_real


class StoredAtoms:
    """Data that stay where they are, given as `X_target`: they are read in parts, as they are needed.

    Atoms are read in blocks, joined by an online log-sum-exp, so that memory is that of one block. A
    large ``numpy.memmap`` of floating numbers given as `X_target` is read in the same way.
    ``atoms[index]`` reads some of them: one by its number, or a slice or numbers of several.

    Parameters
    ----------
    rows : array, shape (n_atoms, ...)
        ``numpy.memmap``, data set of h5py or zarr, NumPy array or tensor on the host: anything with a
        shape, a dtype and rows by slices, of real numbers of any kind. Rows with several axes are
        flattened.
    scale : float, default=1.0
        Factor of all entries: 1 / 255 for images of bytes.
    like : array, dtype or device, optional
        Backend, dtype and device of the computation: an array that has them, a dtype, or a device such
        as ``"cuda"``. By default those of the data, or NumPy's float32 if the data are of no backend, or
        not float32 or float64.

    Attributes
    ----------
    shape : tuple of int
        Numbers of atoms and of coordinates.
    dtype : dtype
        That of the computation.

    Raises
    ------
    TypeError, ValueError
        If there are no such rows.

    Examples
    --------
    >>> import numpy as np
    >>> from pot_semidiscrete import StoredAtoms, solve_semidiscrete
    >>> images = np.random.default_rng(0).integers(256, size=(50, 2, 2), dtype=np.uint8)
    >>> atoms = StoredAtoms(images, scale=1 / 255)
    >>> atoms
    StoredAtoms(50 atoms of 4 coordinates, float32)
    >>> solve_semidiscrete(atoms, reg=0.05, random_state=0).converged
    True
    """

    _index: np.ndarray | None = None  # rows that are atoms, rising; None if all are
    _origin: Array | None = None  # what is subtracted

    def __init__(self, rows: Any, scale: float = 1.0, *, like: Any = None) -> None:
        shape = tuple(getattr(rows, "shape", ()))
        kind = str(getattr(rows, "dtype", None)).rsplit(".", 1)[-1]
        if not hasattr(rows, "__getitem__") or not kind.startswith(("float", "int", "uint")):
            raise TypeError(
                f"rows: expected an array or a data set of real numbers, received {describe(rows)}; "
                "give what has a shape, a dtype, and rows by slices."
            )
        if len(shape) < 2 or 0 in shape:
            raise ValueError(
                f"rows: expected shape (n_atoms, ...), at least 1 of each, received {describe(rows)}; "
                "give one row for each atom."
            )
        self._rows, self._scale = rows, check_real("scale", scale, positive=True)
        bits = kind if kind in ("float32", "float64") else "float32"
        if like is None:
            like = rows[:1] if hasattr(rows, "detach") and bits == kind else np.dtype(bits)
        like = template("like", like, np.zeros(1, dtype=bits))
        wide = get_backend(like).zeros((1, math.prod(shape[1:])), type_as=like)
        self._like, _ = check_points("like", wide)

    def __repr__(self) -> str:
        (n, d), dtype = self.shape, str(self.dtype).rsplit(".", 1)[-1]
        return f"StoredAtoms({n} atoms of {d} coordinates, {dtype})"

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of atoms and of coordinates."""
        n = self._rows.shape[0] if self._index is None else len(self._index)
        return n, self._like.shape[1]

    @property
    def dtype(self) -> Any:
        """That of the computation."""
        return self._like.dtype

    @ours()
    def __getitem__(self, index: int | slice | Array) -> Array:
        """Some of the atoms, in the memory of the computation."""
        nx, chosen = self._nx, rows_of(index, len(self))
        rows = np.asarray(_rows(self._rows, chosen if self._index is None else self._index[chosen]))
        host = rows.reshape(len(rows), self.shape[1]).astype(nx.to_numpy(self._like).dtype)
        host *= self._scale
        if self._origin is not None:
            host -= nx.to_numpy(self._origin)
        found = converted(host, self._like)
        return found[0] if isinstance(index, numbers.Integral) else found

    @property
    def like(self) -> Array:
        """Array of the backend, the dtype and the device of the computation, shape (1, d)."""
        return self._like

    @property
    def _nx(self) -> Backend:
        return get_backend(self._like)


class LazyAtoms(ABC):
    """Atoms of a target that are no array: those on its support, less its origin."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Numbers of atoms and of coordinates."""

    @property
    @abstractmethod
    def like(self) -> Array:
        """Array of the kind of the atoms, and as many columns."""

    @abstractmethod
    def __getitem__(self, atoms: slice | Array) -> Array:
        """Some of the atoms, in the memory of the computation."""

    @abstractmethod
    def chosen(self, index: np.ndarray) -> Self:
        """Some of the atoms, by their numbers, which rise."""

    @abstractmethod
    def centred(self, origin: Array) -> Self:
        """The atoms less a point."""

    @abstractmethod
    def map(self, function: Callable[[Array], Array]) -> Self:
        """The same with other arrays: on another device, say."""

    def parts(self) -> Iterator[slice]:
        """Neighbouring atoms, few enough to be read at once."""
        (n, d), size = self.shape, get_backend(self.like).bitsize(self.like) // 8
        return slices(n, max(BLOCK_BYTES // 16 // (d * size), 1))  # a few are in memory at a time


class TargetAtoms(StoredAtoms, LazyAtoms):
    """Stored atoms of a target."""

    def __init__(self, atoms: StoredAtoms) -> None:
        vars(self).update(vars(atoms))

    def check(self, name: str) -> None:
        """Check the numbers as :func:`check_points` does."""
        nx, largest = self._nx, 0.0
        for part in self.parts():
            atoms = self[part]
            check_lengths(name, atoms, nx, "clean the data first")
            largest = max(largest, float(nx.max(nx.abs(atoms))))
        check_lengths(name, nx.full(self._like.shape, largest, type_as=self._like), nx, "", least=True)

    def chosen(self, index: np.ndarray) -> Self:
        return self._with(_index=index if self._index is None else self._index[index])

    def centred(self, origin: Array) -> Self:
        return self._with(_origin=origin)

    def map(self, function: Callable[[Array], Array]) -> Self:
        origin = None if self._origin is None else function(self._origin)
        return self._with(_like=function(self._like), _origin=origin)

    def _with(self, **changed: Any) -> Self:
        other = copy.copy(self)
        vars(other).update(changed)
        return other


def rows_of(index: Any, n: int) -> slice | np.ndarray:
    """Rows of n that a user asks for: a slice as it is, all else as an array of their numbers."""
    if isinstance(index, slice):
        return index
    if isinstance(index, numbers.Integral) and not is_bool(index):
        if not 0 <= int(index) < n:  # as iteration expects
            raise IndexError(f"index: expected a number of an atom, 0 to {n - 1}, received {index}.")
        return np.array([index])
    try:
        if isinstance(index, (list, tuple)):
            host = np.asarray(index, dtype=None if len(index) else int)
        else:
            host = get_backend(index).to_numpy(index)
    except (TypeError, ValueError):
        host = np.asarray(None)
    if host.ndim != 1 or host.dtype.kind not in "iu":
        remedy = "np.flatnonzero of it" if is_bool(host) else "numbers of atoms"
        raise TypeError(
            f"index: expected a slice, or a vector of whole numbers, received {describe(index)}; give "
            f"{remedy}."
        )
    if host.min(initial=0) < 0 or host.max(initial=0) >= n:
        raise ValueError(
            f"index: expected numbers of atoms, 0 to {n - 1}, received {host.min()} to {host.max()}."
        )
    return host


def _rows(data: Any, which: slice | np.ndarray) -> Any:
    """Rows of data; of files, each once and in the order in which they lie."""
    if isinstance(which, slice) or isinstance(data, np.ndarray) or hasattr(data, "detach"):
        return data[which]
    order, inverse = np.unique(which, return_inverse=True)
    return np.asarray(data[order])[inverse]
