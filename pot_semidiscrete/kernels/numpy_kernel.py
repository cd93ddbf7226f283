"""NumPy: its names for the passes, and which power is the fastest."""

import functools
import math
from collections.abc import Callable

import numpy as np

from ..backend import Array
from .base import Atoms
from .blocks import HardBlock, SoftBlock
from .in_place import InPlaceKernel
from .scratch import scratch


@functools.cache
def fastest_power(char: str) -> tuple[Callable, float]:
    """Power function of a dtype, and the logarithm of its base.

    Powers of 2 take half of the time of those of e where NumPy has them in wide instructions, and twice
    where it has not.
    """
    introspect = getattr(np.lib, "introspect", None)  # since NumPy 2.0
    found = introspect.opt_func_info(func_name="^exp2$") if introspect else {}
    current = found.get("exp2", {}).get(2 * char, {}).get("current", "baseline")
    return (np.exp, 1.0) if current.startswith("baseline") else (np.exp2, math.log(2.0))


def _sums(values: Array) -> Array:
    """Sums along the last axis by BLAS, in a quarter to a third of the time of NumPy's."""
    return values @ np.ones(values.shape[-1], dtype=values.dtype)


class NumpySoftBlock(SoftBlock):
    """Sums by BLAS."""

    def sums(self, groups: Array) -> Array:
        return _sums(groups)


class NumpyHardBlock(HardBlock):
    """Counts instead of a dense one-hot matrix."""

    def colsum(self) -> Array:
        counts = np.bincount(self.index, minlength=self.n_atoms)
        return counts.astype(self.c_transform.dtype)


class NumpyKernel(InPlaceKernel):
    """The passes by NumPy."""

    soft_block = NumpySoftBlock
    threaded = True

    def __init__(self, target: Atoms, potential: Array, reg: float) -> None:
        self.exp, self.unit = fastest_power(potential.dtype.char)
        super().__init__(target, potential, reg)

    def memory(self, rows: Array, n_columns: int) -> Array:
        return scratch((len(rows), n_columns), rows.dtype)

    def product(self, u: Array, v: Array, out: Array | None = None) -> Array:
        return np.matmul(u, v, out=out)

    def scaled(self, bilinear: Array) -> Array:
        return np.multiply(bilinear, self.scale, out=self.room(bilinear))

    def row_max(self, part: Array) -> Array:
        return part.max(axis=1)

    def row_sum(self, part: Array) -> Array:
        with np.errstate(over="ignore"):  # rows of guessed maxima are looked at
            return _sums(part)

    def log(self, total: Array) -> Array:
        return np.log(total) / self.unit

    def inverse(self, total: Array) -> Array:
        return 1.0 / total

    def power(self, part: Array, floor: float) -> Array:
        # an array of floors: with a number, NumPy takes three times as long
        np.maximum(part, np.full(part.shape[1], floor, dtype=part.dtype), out=part)
        with np.errstate(over="ignore"):
            return self.exp(part, out=part)

    def hard(self, scores: Array, source_term: Array) -> HardBlock:
        scores += self.bias
        scores = self.rows(scores)
        index = scores.argmax(axis=1)
        top = np.take_along_axis(scores, index[:, None], axis=1)[:, 0]
        return NumpyHardBlock(index, scores.shape[1], source_term - top, self.nx)
