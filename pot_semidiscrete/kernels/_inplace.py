"""The kernel where arrays can be changed: a block in one buffer, passed over in place."""

import math

from ._blocks import SoftBlock
from ._generic import EXP_FLOOR, Kernel, equal_rows, joined

MOST_COORDINATES = 3  # up to which tops of rows are guessed ...
LEAST_ROWS, LEAST_COLUMNS = 128, 4096  # ... for so many points and atoms
HEADROOM = 28.0  # logarithm of the largest sum of a row of which the guess is good enough
LIKELY = 0.75  # of that, in units of reg, may be the cost from an atom to the few
MOST_LOW = 0.25  # of the rows of a block may have too low a guess: with more, no more is guessed
# Exponents less guesses are cut off here, as at EXP_FLOOR: no share times the inverse of the sum of its
# row, exp(-HEADROOM) at least, must be denormal, below exp(-87) in float32.
GUESSED_FLOOR = {4: -58.0, 8: -600.0}


class InPlaceKernel(Kernel):
    """In-place :class:`Kernel`; a library's kernel adds its names for the passes.

    They are `memory`, `product`, `scaled`, `highest`, `power`, `log` and `inverse`; powers and
    logarithms are those of the unit of the scores.

    After the product, passes over the block add the bias, find the top of each row, subtract it, cut
    off what is far below, take exponentials and sum them up. In low dimension the product does the work
    of the first three: bias and top are two more coordinates, the top guessed by a few of the atoms,

    ``scores = [u, 1, top] @ [v^T; bias; -1]``.

    Rows for which it was too low are done again.
    """

    buffer = None
    right = None  # factor of that product, while tops are guessed

    def room(self, rows):
        """Where the scores of these rows go."""
        n = rows.shape[0]
        if self.buffer is None or self.buffer.shape[0] < n:
            self.buffer = self.memory(rows, self.bias.shape[0])
        return self.buffer[:n]

    def pieces(self, scores):
        """Parts of the rows of a block on the host, each to be passed over while it is in the cache."""
        n_rows, n_columns = scores.shape
        rows = equal_rows(n_rows, self.cache() // (n_columns * scores.itemsize))
        return [scores[start : start + rows] for start in range(0, n_rows, rows)]

    def matmul(self, u, v):
        return self.product(u, v.T, self.room(u))

    def prepare(self, x, rows):
        """Rows ``[u, 1, top, row]``, `row` the part of the cost of the point, and the right factor.

        None where guesses do not pay, or do not go well as a rule.
        """
        n_rows, d = x.shape
        enough = n_rows >= LEAST_ROWS and self.bias.shape[0] >= LEAST_COLUMNS
        if self.reg == 0 or d > MOST_COORDINATES or not enough:
            return None
        factors = self.target.cost.factors(x, self.target.atoms, self.scale, self.nx)
        if factors is None or not self.target.farthest_from_few <= LIKELY * HEADROOM * self.reg:
            return None
        (u, v), nx, every = factors, self.nx, self.target.every
        of = lambda value, like: nx.full(like.shape, value, type_as=like)
        row, bias = self.target.cost.row(x, nx)[:, None], self.bias[None, :]
        self.right = nx.concatenate([v.T, bias, of(-1.0, bias)], axis=0)
        left, few = nx.concatenate([u, of(1.0, row)], axis=1), nx.copy(self.right[:-1, ::every])
        tops, many = [], every * rows  # as many scores with the few as a block has
        for start in range(0, n_rows, many):
            part = left[start : start + many]
            tops.append(self.highest(self.product(part, few, self.memory(part, few.shape[1]))))
        return nx.concatenate([left, joined(tops, nx)[:, None], row], axis=1)

    def guessed(self, left):
        """Block of points whose rows :meth:`prepare` returned; None once many guesses were too low."""
        if self.right is None:
            return None
        left, top, row = left[:, :-1], left[:, -2], left[:, -1]
        scores = self.product(left, self.right, self.room(left))
        total = self.power(scores, GUESSED_FLOOR[scores.itemsize] / self.unit)
        most = math.exp(HEADROOM)
        if not (float(total.max()) <= most and float(total.min()) >= 0.5):
            low = self.nx.where(~((total <= most) & (total >= 0.5)))[0]
            if low.shape[0] > MOST_LOW * left.shape[0]:
                self.right = None
                return None
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
