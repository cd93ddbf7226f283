"""The kernel where arrays can be changed: a block in one buffer, passed over in place."""

import math
from abc import abstractmethod
from typing import cast

from ..backend import Array, equal_rows, joined, slices
from .base import SHARING, Kernel, sharing_rows
from .blocks import SoftBlock

# Exponents are cut off here, by bytes of the dtype: no atom has a smaller weight at a point, so that no
# smaller mass is reached. No power times the inverse of the sum of its row, exp(-HEADROOM) at least, may
# be a denormal number, below exp(-87) in float32, on which a processor is some twenty times slower; in
# float64 squares of powers are none, either.
EXP_FLOOR = {4: -58.0, 8: -350.0}
MOST_COORDINATES = 3  # up to which maxima of rows are guessed ...
GUESS_ROWS, GUESS_COLUMNS = 128, 4096  # ... for so many points and atoms
HEADROOM = 28.0  # logarithm of the largest sum of a row of which the guess is good enough
LIKELY = 0.75  # of that, in units of reg, may be the cost from an atom to the landmarks
MOST_LOW = 0.25  # of the rows of a block may have too low a guess: with more, no more is guessed


class InPlaceKernel(Kernel):
    """A kernel by passes over a buffer; a library's kernel adds its names for the passes.

    Powers and logarithms are those of the unit of the scores.

    After the product, passes over the block add the bias, find the maximum of each row, subtract it, cut
    off what is far below, take exponentials and sum them up. Where there are few coordinates the product
    does the work of the first: the bias is one more. In low dimension it does that of the first three:
    the maximum is another one, guessed by a few of the atoms, the landmarks:

    ``scores = [u, 1, row_max] @ [v^T; bias; -1]``.

    Rows for which it was too low are done again.
    """

    soft_block = SoftBlock
    width: int | None = None  # columns that share a sum, if not all do: a row then has several softmaxes
    right: Array | None = None  # factor of that product
    is_guessed = False  # whether the maxima of rows are

    @abstractmethod
    def product(self, u: Array, v: Array, out: Array | None = None) -> Array:
        """``u v``, in the memory `out` if there is any."""

    @abstractmethod
    def row_max(self, part: Array) -> Array:
        """Maximum of each row."""

    @abstractmethod
    def row_sum(self, part: Array) -> Array:
        """Sum of each row."""

    @abstractmethod
    def power(self, part: Array, floor: float) -> Array:
        """Powers of the unit of the entries, which may be overwritten; those below `floor` as at it."""

    @abstractmethod
    def log(self, total: Array) -> Array:
        """Logarithms, in the unit."""

    @abstractmethod
    def inverse(self, total: Array) -> Array:
        """Inverses of the entries, which may be overwritten."""

    def room(self, rows: Array) -> Array:
        """Where the scores of these rows go."""
        n = rows.shape[0]
        if self.buffer is None or self.buffer.shape[0] < n:
            self.buffer = self.memory(rows, self.bias.shape[0])
        return self.buffer[:n]

    def pieces(self, scores: Array) -> list[Array]:
        """Parts of the rows of a block on the host, each to be passed over while it is in the cache."""
        n_rows, n_columns = scores.shape
        rows = equal_rows(n_rows, self.cache() // (n_columns * scores.itemsize))
        return [scores[part] for part in slices(n_rows, rows)]

    def rows(self, scores: Array) -> Array:
        """The same scores, a row for each softmax."""
        return scores if self.width is None else scores.reshape(-1, self.width)

    def matmul(self, u: Array, v: Array) -> Array:
        return self.product(u, v.T, self.room(u))

    def prepare(self, x: Array, rows: int) -> Array | None:
        """The points, or rows ``[u, 1, row_max, source_term]`` where maxima are guessed.

        None where a larger product is not cheaper than a pass over the block.
        """
        target, nx, few = self.target, self.nx, sharing_rows(x)
        if self.reg == 0 or few == SHARING or x.shape[0] < 2 * few:
            return None
        factors = target.cost.factors(x[:1], target.atoms, self.scale, nx)
        if factors is None:
            return None
        self.right = nx.concatenate([factors[1].T, self.bias[None, :]], axis=0)
        self.is_guessed = self.may_guess(x)
        if not self.is_guessed:
            return x
        left, term = self.left_factor(x), target.cost.source_term(x, nx)[:, None]
        every, minus = target.landmark_stride, nx.full((1, self.bias.shape[0]), -1.0, type_as=x)
        landmarks = nx.copy(self.right[:, ::every])
        self.right = nx.concatenate([self.right, minus], axis=0)
        maxima, many = [], every * rows  # as many scores with the landmarks as a block has
        for rows_of_part in slices(x.shape[0], many):
            part = left[rows_of_part]
            room = self.memory(part, landmarks.shape[1])
            maxima.append(self.row_max(self.product(part, landmarks, room)))
        return nx.concatenate([left, joined(maxima, nx)[:, None], term], axis=1)

    def may_guess(self, x: Array) -> bool:
        """Whether guesses of the maxima pay, and go well as a rule."""
        (n_rows, d), target = x.shape, self.target
        enough = n_rows >= GUESS_ROWS and self.bias.shape[0] >= GUESS_COLUMNS
        low = d <= MOST_COORDINATES
        return low and enough and target.landmark_radius <= LIKELY * HEADROOM * self.reg

    def left_factor(self, x: Array) -> Array:
        """Rows ``[u, 1]``."""
        u, _ = cast(tuple, self.target.cost.factors(x, self.target.atoms[:1], self.scale, self.nx))
        return self.nx.concatenate([u, self.nx.full((x.shape[0], 1), 1.0, type_as=x)], axis=1)

    def prepared_block(self, rows: Array) -> SoftBlock | None:
        """Block of what :meth:`prepare` returned; None once many guesses were too low."""
        if self.right is None:
            return None
        if not self.is_guessed:
            scores = self.product(self.left_factor(rows), self.right, self.room(rows))
            return self.normalized(scores, self.target.cost.source_term(rows, self.nx))
        left, maxima, term = rows[:, :-1], rows[:, -2], rows[:, -1]
        scores = self.product(left, self.right, self.room(rows))
        total = self.exponentiate(scores)
        most = math.exp(HEADROOM)
        if not (float(total.max()) <= most and float(total.min()) >= 0.5):
            low = self.nx.where(~((total <= most) & (total >= 0.5)))[0]
            if low.shape[0] > MOST_LOW * left.shape[0]:
                self.right = None
                return None
            again = self.product(left[low], self.right)
            more, total[low] = self.normalize(again)
            scores[low] = again
            maxima[low] += more
        return self.block(scores, term, maxima, total)

    def soft(self, scores: Array, source_term: Array) -> SoftBlock:
        return self.normalized(scores, source_term, self.bias)

    def normalized(self, scores: Array, source_term: Array, bias: Array | None = None) -> SoftBlock:
        """Block of scores, to which a bias may have to be added."""
        maxima, totals = [], []
        for part in self.pieces(scores):
            if bias is not None:
                part += bias
            row_max, total = self.normalize(self.rows(part))
            maxima.append(row_max)
            totals.append(total)
        return self.block(
            self.rows(scores), source_term, joined(maxima, self.nx), joined(totals, self.nx)
        )

    def normalize(self, part: Array) -> tuple[Array, Array]:
        """Maxima and totals of the rows of scores, which become powers of at most 1."""
        row_max = self.row_max(part)
        part -= row_max[:, None]
        return row_max, self.exponentiate(part)

    def exponentiate(self, part: Array) -> Array:
        """Totals of the rows of scores, which become powers, wherever :meth:`power` left these."""
        powers = self.power(part, exponent_floor(part) / self.unit)
        if powers is not part:
            part[...] = powers
        return self.row_sum(part)

    def block(self, powers: Array, source_term: Array, row_max: Array, total: Array) -> SoftBlock:
        """The block of powers of which these are the maxima and the totals."""
        transform = source_term - (self.reg * self.unit) * (row_max + self.log(total))
        return self.soft_block(powers, self.inverse(total), transform, self.nx)


def exponent_floor(like: Array) -> float:
    """Logarithm of the least weight, up to the sum of its row, in the dtype of an array."""
    return EXP_FLOOR[like.itemsize]
