"""A block of assignment weights, however it is stored."""

from dataclasses import dataclass

from ..backend import Array, Backend, brief

LEAST_WEIGHT = 1e-17  # added to all: products of smaller ones would be denormal numbers, and slow


@dataclass
class SoftBlock:
    """Rows of a softmax: ``chi = exp_scores * inv_row_sums[:, None]``.

    Attributes
    ----------
    exp_scores : array, shape (n, n_atoms)
        Exponentials, of any positive row sum.
    inv_row_sums : array, shape (n,)
    c_transform : array, shape (n,)
    """

    exp_scores: Array
    inv_row_sums: Array
    c_transform: Array
    nx: Backend

    __repr__ = brief

    def colsum(self) -> Array:
        """``sum_i chi_ij``."""
        return self.nx.dot(self.inv_row_sums, self.exp_scores)

    def colsquare(self) -> Array:
        """``sum_i chi_ij^2``; the exponentials are spent, in place where arrays can be changed."""
        scores = self.exp_scores
        scores += LEAST_WEIGHT
        scores *= scores
        return self.nx.dot((1e10 * self.inv_row_sums) ** 2, scores) / 1e20

    def average(self, values: Array) -> Array:
        """``sum_j chi_ij values_j`` for ``values`` of shape (n_atoms, k)."""
        return self.nx.dot(self.exp_scores, values) * self.inv_row_sums[:, None]

    def dense(self) -> Array:
        """``chi``."""
        return self.exp_scores * self.inv_row_sums[:, None]


@dataclass
class HardBlock:
    """Rows of a Laguerre assignment: ``chi_ij = 1`` if ``j = index_i``, else 0."""

    index: Array
    n_atoms: int
    c_transform: Array
    nx: Backend

    __repr__ = brief

    def colsum(self) -> Array:
        """``sum_i chi_ij``."""
        return self.nx.sum(self.dense(), axis=0)

    def colsquare(self) -> Array:
        """``sum_i chi_ij^2``, the same."""
        return self.colsum()

    def average(self, values: Array) -> Array:
        """``values_j`` of the atom chosen."""
        return values[self.index]

    def dense(self) -> Array:
        """``chi``, in the dtype of the c-transform."""
        nx = self.nx
        atoms = nx.arange(self.n_atoms, type_as=self.index)
        hit = self.index[:, None] == atoms[None, :]
        return hit * (1.0 + 0.0 * self.c_transform[:, None])
