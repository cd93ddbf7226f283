"""The kernel where arrays can be changed: a block in one buffer, passed over in place."""

import math

from ._blocks import SoftBlock
from ._generic import EXP_FLOOR, Kernel, equal_rows, joined
from ._scratch import scratch

LEAST_COLUMNS = 2048  # atoms from which the tops of rows are guessed ...
LEAST_ROWS, MOST_COORDINATES = 8, 3  # ... with so many rows for each dimension, not above this one
ROOM = 28.0  # most by which an exponent may be above what was guessed for its row ...
LIKELY = 0.75  # ... of which, from an atom to the few, the cost may take so much
GUESSED_FLOOR = {4: -52.0, 8: -600.0}  # where exponents are cut off then: see EXP_FLOOR


class InPlaceKernel(Kernel):
    """In-place :class:`Kernel`: what a library's kernel adds are its names for the passes.

    After the product, passes over the block add the bias, find the top of each row, subtract it, cut
    off what is far below, take exponentials and sum them up. In low dimension the product does the work
    of the first three: bias and top are two more coordinates, the top guessed by a few of the atoms.
    Rows for which that was too low are done again.
    """

    buffer = None
    right = None  # factor of the product with bias and tops

    def room(self, rows):
        """Where the scores of these rows go."""
        n = rows.shape[0]
        if self.buffer is None or self.buffer.shape[0] < n:
            self.buffer = self.memory(rows, self.bias, scratch)
        return self.buffer[:n]

    def pieces(self, scores):
        """Parts of the rows of a block on the host, each to be passed over while it is in the cache."""
        n_rows, n_columns = scores.shape
        rows = equal_rows(n_rows, self.cache() // (n_columns * scores.itemsize))
        return [scores[start : start + rows] for start in range(0, n_rows, rows)]

    def matmul(self, u, v):
        return self.product(u, v.T, self.room(u))

    def prepare(self, x, rows):
        """Left factor of the product with bias and tops, and the part of the cost of each point.

        None where guesses of the tops do not pay, or do not go well as a rule.
        """
        n_rows, d = x.shape
        if (
            self.reg == 0
            or d > MOST_COORDINATES
            or n_rows < LEAST_ROWS * d
            or len(self.bias) < LEAST_COLUMNS
        ):
            return None
        factors = self.target.cost.factors(x, self.target.atoms, self.scale, self.nx)
        if factors is None or not self.target.sparsity <= LIKELY * ROOM * self.reg:
            return None
        (u, v), nx, bias = factors, self.nx, self.bias[None, :]
        row, every = self.target.cost.row(x, nx)[:, None], self.target.every
        self.right = nx.concatenate([v.T, bias, 0.0 * bias - 1.0], axis=0)
        left, few = nx.concatenate([u, 0.0 * row + 1.0], axis=1), nx.copy(self.right[:-1, ::every])
        tops, many = [], every * rows
        for start in range(0, n_rows, many):
            part = left[start : start + many]
            tops.append(self.highest(self.product(part, few, self.memory(part, few.T, scratch))))
        return nx.concatenate([left, joined(tops, nx)[:, None], row], axis=1)

    def prepared(self, left):
        """Block of the points whose left factors are given."""
        left, top, row = left[:, :-1], left[:, -2], left[:, -1]
        scores = self.product(left, self.right, self.room(left))
        floor, most = GUESSED_FLOOR[scores.itemsize] / self.unit, math.exp(ROOM)
        total = self.power(scores, floor)
        if not float(total.max()) <= most:
            low = self.nx.where(~(total <= most))[0]
            top = self.nx.copy(top)
            again = self.product(left[low], self.right)
            more, total[low] = self.normal(again)
            scores[low] = again
            top[low] += more
        return self.block(scores, row, top, total)

    def soft(self, scores, row):
        tops, totals = [], []
        for part in self.pieces(scores):
            part += self.bias
            top, total = self.normal(part)
            tops.append(top)
            totals.append(total)
        return self.block(scores, row, *(joined(parts, self.nx) for parts in (tops, totals)))

    def normal(self, part):
        """Tops and totals of scores, which become shares of at most 1."""
        top = self.highest(part)
        part -= top[:, None]
        return top, self.power(part, EXP_FLOOR[part.itemsize] / self.unit)

    def block(self, shares, row, top, total):
        transform = row - (self.reg * self.unit) * (top + self.log(total))
        return SoftBlock(shares, self.inverse(total), transform, self.nx)
