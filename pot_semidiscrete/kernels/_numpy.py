"""NumPy: its names for the passes, and which power is the fastest."""

import functools
import math

import numpy as np

from ._blocks import HardBlock
from ._generic import CACHE
from ._inplace import InPlaceKernel
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

    def colsum(self):
        counts = np.bincount(self.index, minlength=self.n_atoms)
        return counts.astype(self.c_transform.dtype)


class NumpyKernel(InPlaceKernel):
    """The passes by NumPy."""

    def __init__(self, target, potential, reg):
        self.exp, self.unit = fastest_power(potential.dtype.char)
        super().__init__(target, potential, reg)

    @staticmethod
    def cache():
        return CACHE

    def memory(self, rows, n_columns):
        return scratch((len(rows), n_columns), rows.dtype)

    def product(self, u, v, out=None):
        return np.matmul(u, v, out=out)

    def scaled(self, cross):
        return np.multiply(cross, self.scale, out=self.room(cross))

    def highest(self, part):
        return part.max(axis=1)

    def log(self, total):
        return np.log(total) / self.unit

    def inverse(self, total):
        return 1.0 / total

    def power(self, part, floor):
        # an array of floors: with a number, NumPy takes three times as long
        np.maximum(part, np.full(part.shape[1], floor, dtype=part.dtype), out=part)
        with np.errstate(over="ignore"):  # rows of guessed tops are looked at
            return self.exp(part, out=part).sum(axis=1)

    def hard(self, scores, row):
        scores += self.bias
        index = scores.argmax(axis=1)
        top = np.take_along_axis(scores, index[:, None], axis=1)[:, 0]
        return NumpyHardBlock(index, scores.shape[1], row - top, self.nx)
