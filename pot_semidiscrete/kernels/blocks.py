"""A block of assignment weights, however it is stored."""

import math
from dataclasses import dataclass, replace

from ..backend import Array, Backend, brief, capabilities

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

    def sum_rows(self, factors: Array) -> Array:
        """Sum of the exponentials of each column, those of each row times a factor."""
        return self.nx.dot(factors, self.exp_scores)

    def colsum(self) -> Array:
        """``sum_i chi_ij``."""
        return self.sum_rows(self.inv_row_sums)

    def colsquare(self) -> Array:
        """``sum_i chi_ij^2``; the exponentials are spent, in place where arrays can be changed."""
        self.exp_scores *= self.exp_scores
        return self.sum_rows((1e10 * self.inv_row_sums) ** 2) / 1e20

    def average(self, values: Array) -> Array:
        """``sum_j chi_ij values_j`` for ``values`` of shape (n_atoms, k)."""
        return self.nx.dot(self.exp_scores, values) * self.inv_row_sums[:, None]

    def dense(self) -> Array:
        """``chi``."""
        return self.exp_scores * self.inv_row_sums[:, None]

    def scaled(self, share: Array) -> "SoftBlock":
        """The weights times a share of each row, in the same memory."""
        return replace(self, inv_row_sums=self.inv_row_sums * share)

    def cdf_group(self, level: Array) -> tuple[Array, Array, Array]:
        """Group of columns where the distribution function of each row reaches a level in (0, 1].

        First column of the group, ``(n,)``, weights of its columns, ``(n, width)``, up to a factor, and
        level of the group alone, ``(n,)``, from which :func:`inverse_cdf` has the column.
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
        group, level = level_in_group(masses, level, nx)
        rows = nx.arange(n_rows, type_as=group)
        if n_rest:
            inside = nx.clip(group, 0, n_groups - 1)
            part = nx.where((group < n_groups)[:, None], groups[rows, inside], rest)
        else:
            part = groups[rows, group]
        return group * width, part, level

    def sums(self, groups: Array) -> Array:
        """Sums along the last of three axes."""
        return self.nx.sum(groups, axis=2)


def inverse_cdf(masses: Array, level: Array, nx: Backend) -> tuple[Array, Array, Array]:
    """Where cumulative masses reach a level in (0, 1] of their sum, that threshold, and all sums."""
    sums = capabilities(nx).cumulative(masses)
    threshold = nx.clip(level, LEAST_SHARE, 1.0) * sums[:, -1]
    return nx.sum(sums < threshold[:, None], axis=1), threshold, sums


def level_in_group(masses: Array, level: Array, nx: Backend) -> tuple[Array, Array]:
    """Group where cumulative masses reach a level, and the level of the group alone."""
    group, threshold, sums = inverse_cdf(masses, level, nx)
    rows = nx.arange(masses.shape[0], type_as=group)
    return group, (threshold - sums[rows, group]) / masses[rows, group] + 1.0


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
