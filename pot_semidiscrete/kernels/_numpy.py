"""NumPy: one product into a kept buffer, one in-place exponential."""

import functools
import math

import numpy as np

from ._blocks import HardBlock, SoftBlock
from ._generic import CACHE, EXP_FLOOR, Kernel
from ._scratch import scratch


@functools.cache
def fastest_power(char):
    """Power function of a dtype, and the logarithm of its base.

    Powers of 2 take half of the time of those of e where NumPy has them in wide instructions, and twice
    where it has not.
    """
    introspect = getattr(np.lib, "introspect", None)  # since NumPy 2.0
    found = introspect.opt_func_info(func_name="^exp2$") if introspect else {}
    current = found.get("exp2", {}).get(2 * char, {}).get("current", "baseline")
    return (np.exp, 1.0) if current.startswith("baseline") else (np.exp2, math.log(2.0))


class NumpyHardBlock(HardBlock):
    """Counts instead of a dense one-hot matrix."""

    def colsum(self, weights=None):
        counts = np.bincount(self.index, weights, minlength=self.n_atoms)
        return counts.astype(self.c_transform.dtype)

    def groupsum(self, members):
        return np.stack([self.colsum(column) for column in members.T])


class NumpyKernel(Kernel):
    """In-place :class:`Kernel` for NumPy arrays."""

    buffer = None

    def __init__(self, target, potential, reg):
        self.power, self.unit = fastest_power(potential.dtype.char)
        super().__init__(target, potential, reg)

    @staticmethod
    def cache():
        return CACHE

    def memory(self, rows, allocate=np.empty):
        return allocate((len(rows), len(self.bias)), rows.dtype)

    def room(self, rows):
        """Where the scores of these rows go."""
        if self.buffer is None or len(self.buffer) < len(rows):
            self.buffer = self.memory(rows, scratch)
        return self.buffer[: len(rows)]

    def matmul(self, u, v):
        return np.matmul(u, v.T, out=self.room(u))

    def scaled(self, cross):
        return np.multiply(cross, self.scale, out=self.room(cross))

    def soft(self, scores, row):
        tops, totals = [], []
        # an array of floors: with a number, NumPy takes three times as long
        floor = np.full(scores.shape[1], EXP_FLOOR[scores.itemsize] / self.unit, dtype=scores.dtype)
        for part in self.pieces(scores):
            part += self.bias
            tops.append(part.max(axis=1))
            part -= tops[-1][:, None]
            np.maximum(part, floor, out=part)
            self.power(part, out=part)
            totals.append(part.sum(axis=1))
        top, total = np.concatenate(tops), np.concatenate(totals)
        transform = row - self.reg * (self.unit * top + np.log(total))
        return SoftBlock(scores, 1.0 / total, transform, self.nx)

    def hard(self, scores, row):
        scores += self.bias
        index = scores.argmax(axis=1)
        top = np.take_along_axis(scores, index[:, None], axis=1)[:, 0]
        return NumpyHardBlock(index, scores.shape[1], row - top, self.nx)
