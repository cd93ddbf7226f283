"""A block of assignment weights, however it is stored."""

from dataclasses import dataclass
from typing import Any

LEAST_WEIGHT = 1e-17  # added to all: products of smaller ones would be denormal numbers, and slow


@dataclass
class SoftBlock:
    """Rows of a softmax: ``chi = shares * inverse[:, None]``.

    Attributes
    ----------
    shares : array, shape (n, n_atoms)
        Exponentials, of any positive row sum.
    inverse : array, shape (n,)
        Inverse of the row sums.
    c_transform : array, shape (n,)
    """

    shares: Any
    inverse: Any
    c_transform: Any
    nx: Any

    def colsum(self):
        """``sum_i chi_ij``."""
        return self.nx.dot(self.inverse, self.shares)

    def colsquare(self):
        """``sum_i chi_ij^2``; the shares are spent, in place where arrays can be changed."""
        shares = self.shares
        shares += LEAST_WEIGHT
        shares *= shares
        return self.nx.dot((1e10 * self.inverse) ** 2, shares) / 1e20

    def average(self, values):
        """``sum_j chi_ij values_j`` for ``values`` of shape (n_atoms, k)."""
        return self.nx.dot(self.shares, values) * self.inverse[:, None]

    def dense(self):
        """``chi``."""
        return self.shares * self.inverse[:, None]


@dataclass
class HardBlock:
    """Rows of a Laguerre assignment: ``chi_ij = 1`` if ``j = index_i``, else 0."""

    index: Any
    n_atoms: int
    c_transform: Any
    nx: Any

    def colsum(self):
        return self.nx.sum(self.dense(), axis=0)

    def colsquare(self):
        return self.colsum()

    def average(self, values):
        return values[self.index]

    def dense(self):
        nx = self.nx
        atoms = nx.arange(self.n_atoms, type_as=self.index)
        hit = self.index[:, None] == atoms[None, :]
        return hit * (1.0 + 0.0 * self.c_transform[:, None])  # in the dtype of the transform
