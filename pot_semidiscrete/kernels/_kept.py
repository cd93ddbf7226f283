"""Weights that are kept for other potentials, as in Sinkhorn's iterations: no exponential is taken."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import envelope
from ._blocks import LEAST_WEIGHT, DenseBlock
from ._generic import EXP_FLOOR

LIFT = 1e10  # of factors: products of small shares with small ones would be denormal numbers, and slow


@dataclass
class KeptBlock(DenseBlock):
    """Rows of weights ``chi = shares * inverse[:, None] * factor``, of which no copy is made.

    Attributes
    ----------
    inverse : array, shape (n,)
    factor : array, shape (n_atoms,)
    least : float
        Shares times factors below are taken for that: smaller numbers are slow.
    """

    inverse: Any
    factor: Any
    least: float
    nx: Any

    def colsum(self):
        return self.nx.dot(self.inverse, self.shares) * self.factor

    def colsquare(self):
        """``sum_i chi_ij^2``."""
        chi = self.dense()
        chi *= chi
        return self.nx.sum(chi, axis=0)

    @functools.cached_property
    def lifted(self):
        """Scales of the columns and of the rows, before or after a product with the shares."""
        return LIFT * self.factor, self.inverse / LIFT, LIFT * self.inverse, self.factor / LIFT

    def over_atoms(self, vectors):
        columns, rows = self.lifted[:2]
        return super().over_atoms(vectors * columns) * rows

    def over_points(self, vectors):
        rows, columns = self.lifted[2:]
        return super().over_points(vectors * rows) * columns

    def dense(self):
        chi = self.nx.maximum(self.shares, self.least / self.factor)
        chi *= self.factor
        chi *= self.inverse[:, None]
        chi += LEAST_WEIGHT
        return chi


class Kept:
    """The weights of points at one potential, and what they are at others that are near.

    Parameters
    ----------
    kernel : Kernel
        Of that potential, at a positive regularisation.
    x : array, shape (n, d)
    potential : array, shape (n_support,)
    rows : int
        Points of a block.
    """

    def __init__(self, kernel, x, potential, rows):
        nx = self.nx = kernel.nx
        self.potential, self.reg, self.rows = potential, kernel.reg, rows
        n_bytes = nx.bitsize(potential) // 8
        self.floor, numbers = EXP_FLOOR[n_bytes], np.finfo(f"f{n_bytes}")
        # what was cut off must not count beside what is left of a row, nor beside the lightest atom
        lightest = float(nx.min(kernel.target.weights))
        self.least, self.normal = math.exp(self.floor) / (numbers.eps * lightest), 100.0 * numbers.tiny
        self.shares, blocks = kernel.memory(x, potential.shape[0]), []
        with envelope.full_precision(nx, potential), envelope.no_grad(nx):
            self._go(potential)
            for start in range(0, x.shape[0], rows):
                kernel.buffer = None if self.shares is None else self.shares[start : start + rows]
                blocks.append(kernel(x[start : start + rows]))
                self._add(blocks[-1].shares)
            self._end()
            joined = lambda name: nx.concatenate([getattr(b, name) for b in blocks], axis=0)
            if self.shares is None:
                self.shares = joined("shares")
            # the c-transform, if the sums of the rows were 1
            self.transform = joined("c_transform") - self.reg * nx.log(joined("inverse"))

    def _go(self, potential):
        """Take the factors of the columns at a potential, and no blocks yet."""
        moved = (potential - self.potential) / self.reg
        self.at, self.highest, self.told = potential, self.nx.max(moved), True
        self.factor = self.nx.exp(self.nx.maximum(moved - self.highest, self.floor + 0.0 * moved))
        self.lifted, self.inverse, self.columns = LIFT * self.factor, [], 0.0

    def _add(self, shares):
        """Sum up a block both ways, while it is in the cache if it fits there, unless a row is lost."""
        if self.told:
            total = self.nx.dot(shares, self.lifted)
            self.told = bool(self.nx.min(total) > LIFT * self.least)
            self.inverse.append(LIFT / total)
            self.columns = self.columns + self.nx.dot(self.inverse[-1], shares)

    def _end(self):
        self.inverse = self.nx.concatenate(self.inverse, axis=0)

    def reaches(self, potential, reg):
        """Whether the weights at a potential can be told from these: they are from now on."""
        if reg != self.reg:
            return False
        if potential is not self.at:
            with envelope.full_precision(self.nx, potential), envelope.no_grad(self.nx):
                self._go(potential)
                for start in range(0, self.shares.shape[0], self.rows):
                    self._add(self.shares[start : start + self.rows])
                self._end()
        return self.told

    def sums(self, name):
        """Sum of the c-transform, and that of the columns of the weights or of their squares."""
        nx = self.nx
        with envelope.full_precision(nx, self.factor), envelope.no_grad(nx):
            fell = self.reg * (self.highest - nx.log(self.inverse))
            transforms = np.sum(nx.to_numpy(self.transform - fell), dtype=float)
            if name == "colsum":
                return transforms, self.factor * self.columns
            return transforms, sum(block.colsquare() for block in self.blocks())

    def blocks(self, step=1, first=0):
        """Weights of every `step`-th of the points from `first` on."""
        for start in range(first, self.shares.shape[0], step * self.rows):
            some = slice(start, start + step * self.rows, step)
            yield KeptBlock(self.shares[some], self.inverse[some], self.factor, self.normal, self.nx)
