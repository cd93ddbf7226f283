"""Weights that are kept for other potentials, as in Sinkhorn's iterations: no exponential is taken."""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import envelope
from ._blocks import LEAST_WEIGHT, DenseBlock
from ._generic import EXP_FLOOR, joined

LIFT = 1e10  # of factors: products of small shares with small ones would be denormal numbers, and slow


@dataclass
class KeptBlock(DenseBlock):
    """Rows of weights ``chi = shares * inverse[:, None] * factor``, of which no copy is made.

    Attributes
    ----------
    inverse : array, shape (n,)
    factor : array, shape (n_atoms,)
    least : float
        What shares times factors are at least in an array of `chi`: smaller numbers are slow.
    """

    inverse: Any
    factor: Any
    least: float
    nx: Any

    def colsum(self):
        return self.nx.dot(self.inverse, self.shares) * self.factor

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
        return self.less(0.0)

    def less(self, mean):
        chi = self.nx.maximum(self.shares, self.least / self.factor)
        chi *= self.factor
        chi *= self.inverse[:, None]
        chi += LEAST_WEIGHT - mean
        return chi


class Kept:
    """The weights of points at one potential, and what they are at others that are near.

    They are summed up by the backend that the kernel names for it.

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
        self.outer, self.potential, self.reg, self.rows = kernel.nx, potential, kernel.reg, rows
        self.nx = kernel.backend_of_sums(x)
        n_bytes = self.outer.bitsize(potential) // 8
        self.floor, numbers = EXP_FLOOR[n_bytes], np.finfo(f"f{n_bytes}")
        # what was cut off must not count beside what is left of a row, nor beside the lightest atom
        lightest = float(self.outer.min(kernel.target.weights))
        self.least = math.exp(self.floor) / (numbers.eps * lightest)
        self.normal = float(100.0 * numbers.tiny)
        self.shares, blocks = kernel.memory(x, potential.shape[0]), []
        with envelope.full_precision(self.outer, potential), envelope.no_grad(self.outer):
            product = kernel.target.cost.factors(x[:1], kernel.target.atoms, 1.0, self.outer) is not None
            self._go(potential)
            for start in range(0, x.shape[0], rows):
                if self.shares is not None:
                    kernel.buffer = self.shares[start : start + rows]
                block = kernel(x[start : start + rows])
                if self.shares is not None and not product:  # only a product goes where it is told
                    kernel.buffer[:] = block.shares
                    block.shares = kernel.buffer
                blocks.append(block)
                self._add(self._held(block.shares))
            self._end()
            self.parts = [self._held(block.shares) for block in blocks]
            part = lambda name: joined([getattr(block, name) for block in blocks], self.outer)
            # the c-transform, if the sums of the rows were 1
            self.transform = self._held(part("c_transform") - self.reg * self.outer.log(part("inverse")))

    def _held(self, array):
        """An array as the backend of sums has it."""
        return array if self.nx is self.outer else self.outer.to_numpy(array)

    def _given(self, array):
        """An array of that backend as the user's has it."""
        return array if self.nx is self.outer else self.outer.from_numpy(array, type_as=self.potential)

    def _go(self, potential):
        """Take the factors of the columns at a potential, and no blocks yet."""
        moved = self._held(potential - self.potential) / self.reg
        self.at, self.highest, self.told = potential, self.nx.max(moved), True
        self.factor = self.nx.exp(self.nx.maximum(moved - self.highest, self.floor + 0.0 * moved))
        self.lifted, self.inverse, self.columns = LIFT * self.factor, [], 0.0

    def _add(self, shares):
        """Sum up a block both ways, while it is in the cache if it fits there, unless a row is lost."""
        total = self.nx.dot(shares, self.lifted) if self.told else None
        self.told = self.told and bool(self.nx.min(total) > LIFT * self.least)
        if self.told:
            self.inverse.append(LIFT / total)
            self.columns = self.columns + self.nx.dot(self.inverse[-1], shares)

    def _end(self):
        if self.told:
            self.inverse = joined(self.inverse, self.nx)

    def reaches(self, potential, reg):
        """Whether the weights at a potential can be told from these: they are from now on."""
        if reg != self.reg:
            return False
        if potential is not self.at:
            with envelope.full_precision(self.outer, potential), envelope.no_grad(self.outer):
                self._go(potential)
                for shares in self.parts:
                    self._add(shares)
                self._end()
        return self.told

    def sums(self, name):
        """Sum of the c-transform, and that of the columns of the weights or of their squares."""
        with envelope.full_precision(self.outer, self.potential), envelope.no_grad(self.outer):
            fell = self.reg * (self.highest - self.nx.log(self.inverse))
            transforms = np.sum(self.nx.to_numpy(self.transform - fell), dtype=float)
            if name == "colsum":
                return transforms, self._given(self.factor * self.columns)
            return transforms, sum(block.colsquare() for block in self.blocks())

    def blocks(self, step=1, first=0):
        """Weights of every `step`-th of the points from `first` on."""
        if self.shares is None:
            self.shares = joined(self.parts, self.outer)
            self.parts = [self.shares]
        inverse, factor = self._given(self.inverse), self._given(self.factor)
        for start in range(first % step, self.shares.shape[0], step * self.rows):
            some = slice(start, start + step * self.rows, step)
            yield KeptBlock(self.shares[some], inverse[some], factor, self.normal, self.outer)
