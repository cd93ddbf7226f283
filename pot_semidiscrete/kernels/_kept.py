"""Weights that are kept for other potentials, as in Sinkhorn's iterations: no exponential is taken."""

import math

import numpy as np

from .. import envelope
from ._blocks import SoftBlock
from ._generic import EXP_FLOOR


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
        self.nx, self.potential, self.reg, self.rows = kernel.nx, potential, kernel.reg, rows
        n_bytes = self.nx.bitsize(potential) // 8
        self.floor, numbers = EXP_FLOOR[n_bytes], np.finfo(f"f{n_bytes}")
        # what was cut off must not count beside what is left of a row, nor beside the lightest atom
        lightest = float(self.nx.min(kernel.target.weights))
        self.least, self.normal = math.exp(self.floor) / (numbers.eps * lightest), 100.0 * numbers.tiny
        memory, blocks = kernel.memory(x, potential.shape[0]), []
        with envelope.full_precision(self.nx, potential), envelope.no_grad(self.nx):
            self._go(potential)
            for start in range(0, x.shape[0], rows):
                kernel.buffer = None if memory is None else memory[start : start + rows]
                blocks.append(kernel(x[start : start + rows]))
                self._add(blocks[-1].shares)
            joined = lambda name: self.nx.concatenate([getattr(b, name) for b in blocks], axis=0)
            # the c-transform, if the sums of the rows were 1
            self.transform = joined("c_transform") - self.reg * self.nx.log(joined("inverse"))
        self.shares = [block.shares for block in blocks]

    def _go(self, potential):
        """Take the factors of the columns at a potential, and no blocks yet."""
        moved = (potential - self.potential) / self.reg
        self.at, self.highest, self.told = potential, self.nx.max(moved), True
        self.factor = self.nx.exp(self.nx.maximum(moved - self.highest, self.floor + 0.0 * moved))
        self.totals, self.columns = [], 0.0

    def _add(self, shares):
        """Sum up a block both ways, while it is in the cache if it fits there, unless a row is lost."""
        if self.told:
            self.totals.append(self.nx.dot(shares, self.factor))
            self.told = bool(self.nx.min(self.totals[-1]) > self.least)
            self.columns = self.columns + self.nx.dot(1.0 / self.totals[-1], shares)

    def reaches(self, potential, reg):
        """Whether the weights at a potential can be told from these: they are from now on."""
        if reg != self.reg:
            return False
        if potential is not self.at:
            with envelope.full_precision(self.nx, potential), envelope.no_grad(self.nx):
                self._go(potential)
                for shares in self.shares:
                    self._add(shares)
        return self.told

    def sums(self, name):
        """Sum of the c-transform, and that of the columns of the weights or of their squares."""
        nx = self.nx
        with envelope.full_precision(nx, self.factor), envelope.no_grad(nx):
            fell = self.reg * (nx.log(nx.concatenate(self.totals, axis=0)) + self.highest)
            transforms = np.sum(nx.to_numpy(self.transform - fell), dtype=float)
            if name == "colsum":
                return transforms, self.factor * self.columns
            chi = lambda k, total: SoftBlock(self.scaled(k, k + 1), 1.0 + 0.0 * total, None, nx)
            return transforms, sum(chi(k, total).colsquare() for k, total in enumerate(self.totals))

    def scaled(self, start, stop, step=1, first=0):
        """Weights in some of the blocks, of every `step`-th of all points from `first` on."""
        parts, normal = [], float(self.normal) / self.factor  # smaller numbers are slow
        for k in range(start, min(stop, len(self.shares))):
            some = slice((first - k * self.rows) % step, None, step)
            part = self.nx.maximum(self.shares[k][some], normal)
            part *= self.factor
            part /= self.totals[k][some][:, None]
            parts.append(part)
        return parts[0] if len(parts) == 1 else self.nx.concatenate(parts, axis=0)
