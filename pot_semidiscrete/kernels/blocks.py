"""A block of assignment weights, however it is stored."""

import math
from dataclasses import dataclass, replace

from ..backend import Array, Backend, brief, capabilities

LEAST_WEIGHT = 1e-17  # added to all: products of smaller ones would be denormal numbers, and slow
LEAST_SHARE = 1e-12  # of a mass: above all traces that rounding leaves at atoms out of reach


@dataclass
class SoftBlock:
    """Rows of a softmax: ``chi = exp_scores * inv_row_sums[:, None]``.

    Attributes
    ----------
    exp_scores : array, shape (n, n_atoms)
        Exponentials, of any positive row sum.
    inv_row_sums : array, shape (n,)
        Inverses of these sums.
    c_transform : array, shape (n,)
        ``psi^{c,reg}(x_i)``.
    nx : ot.backend.Backend
        POT's backend.
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

    def scaled(self, share: Array) -> "SoftBlock":
        """The weights times a share of each row, in the same memory."""
        return replace(self, inv_row_sums=self.inv_row_sums * share)

    def narrow(self, share: Array) -> tuple[Array, Array, Array]:
        """Group of columns where the distribution function of each row reaches a share in (0, 1].

        Returns
        -------
        start : array of int, shape (n,)
            First column of the group.
        weights : array, shape (n, width)
            Those of its columns, up to a factor.
        share : array, shape (n,)
            Of the group, where the function is reached: what :func:`reached` goes on from.
        """
        nx, scores = self.nx, self.exp_scores
        n_rows, n_atoms = scores.shape
        width = math.isqrt(n_atoms)
        n_groups, n_rest = divmod(n_atoms, width)
        groups = nx.reshape(scores[:, : n_atoms - n_rest], (n_rows, n_groups, width))
        masses = self.sums(groups)
        if n_rest:
            rest = nx.concatenate([scores[:, n_atoms - n_rest :], 0.0 * groups[:, 0, n_rest:]], axis=1)
            masses = nx.concatenate([masses, nx.sum(rest, axis=1)[:, None]], axis=1)
        group, share = share_of_group(masses, share, nx)
        rows = nx.arange(n_rows, type_as=group)
        if n_rest:
            inside = nx.clip(group, 0, n_groups - 1)
            part = nx.where((group < n_groups)[:, None], groups[rows, inside], rest)
        else:
            part = groups[rows, group]
        return group * width, part, share

    def sums(self, groups: Array) -> Array:
        """Sums along the last of three axes."""
        return self.nx.sum(groups, axis=2)


def reached(masses: Array, share: Array, nx: Backend) -> tuple[Array, Array, Array]:
    """Where cumulative masses reach a share in (0, 1] of their sum; what that is; and these sums."""
    below = capabilities(nx).cumulative(masses)
    level = nx.clip(share, LEAST_SHARE, 1.0) * below[:, -1]
    return nx.sum(below < level[:, None], axis=1), level, below


def share_of_group(masses: Array, share: Array, nx: Backend) -> tuple[Array, Array]:
    """Group where cumulative masses reach a share of their sum, and what share of its own that is."""
    group, level, below = reached(masses, share, nx)
    rows = nx.arange(masses.shape[0], type_as=group)
    return group, (level - below[rows, group]) / masses[rows, group] + 1.0


@dataclass
class HardBlock:
    """Rows of a Laguerre assignment: ``chi_ij = 1`` if ``j = index_i``, else 0.

    Attributes
    ----------
    index : array of int, shape (n,)
        Atom of each point.
    n_atoms : int
        Columns of the block.
    c_transform : array, shape (n,)
        ``psi^{c,0}(x_i)``.
    nx : ot.backend.Backend
        POT's backend.
    """

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
