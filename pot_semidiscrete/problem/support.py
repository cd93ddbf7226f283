"""Vectors over the user's atoms, and over those that count."""

from collections.abc import Callable

import numpy as np

from ..backend import Array, Backend, capabilities, in_double
from .places import Copies


class Support:
    """Which of the user's atoms are of a target: the base of :class:`Target`, which has what is below.

    Attributes
    ----------
    support : array of int or None
    n_atoms : int
    place : ndarray of int, shape (n_atoms,), or None
    copies : Copies or None
    weights : array, shape (n_support,)
    nx : ot.backend.Backend
    """

    support: Array | None
    n_atoms: int
    place: np.ndarray | None
    copies: Copies | None
    weights: Array
    nx: Backend

    @property
    def entries(self) -> np.ndarray:
        """Number of the atom of the support that each of the user's atoms of positive weight is."""
        if self.copies is None:
            return np.arange(self.weights.shape[0])
        return self.copies.place[self.copies.share > 0]

    def gather(self, v: Array) -> Array:
        """Entries of a user's vector at the support."""
        return v if self.support is None else v[self.support]

    def scatter(self, v: Array, axis: int = 0) -> Array:
        """A vector (or the columns of a matrix) over all atoms, 0 where the weight is 0."""
        if self.support is None:
            return v
        nx, index = self.nx, self.nx.from_numpy(self.place)
        zero = 0.0 * (v[:1] if axis == 0 else v[:, :1])  # stands for all atoms of weight 0
        padded = nx.concatenate([v, zero], axis=axis)
        return padded[index] if axis == 0 else padded[:, index]

    def distribute(self, masses: Array, axis: int = 0) -> Array:
        """Masses of all atoms: of those at one place, in proportion to their weights."""
        masses = self.scatter(masses, axis)
        if self.copies is None:
            return masses
        return masses * self.nx.from_numpy(self.copies.share, type_as=masses)

    def collect(self, masses: Array) -> Array:
        """Masses at the support, from those of all atoms."""
        if self.copies is None:
            return self.gather(masses)
        return self.nx.from_numpy(self.copies.sum(self.nx.to_numpy(masses)), type_as=masses)

    def merge(self, potential: Array, reg: float) -> Array:
        """Potential at the support whose c-transform is that of a user's potential."""
        if self.copies is None:
            return self.gather(potential)
        merged = self.copies.merge(in_double(potential), reg)
        return self.nx.from_numpy(merged, type_as=potential)

    def rows(self, index: Array, uniform: Callable[[int], np.ndarray]) -> Array:
        """Rows of the user's atoms, from entries of `atoms`, shape (n,).

        Of those at one place, one is drawn in proportion to its weight, by `uniform`, ``n -> ndarray``
        of n numbers in [0, 1).
        """
        if self.copies is None:
            return index if self.support is None else self.support[index]
        rows = self.copies.draw(self.nx.to_numpy(index), uniform(index.shape[0]))
        return capabilities(self.nx).index(rows, self.weights)
