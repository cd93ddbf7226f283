"""NumPy: one product into a kept buffer, one in-place exponential."""

import numpy as np

from ._blocks import HardBlock, SoftBlock
from ._generic import EXP_FLOOR, Kernel
from ._scratch import scratch


class NumpyHardBlock(HardBlock):
    """Counts instead of a dense one-hot matrix."""

    def colsum(self):
        return np.bincount(self.index, minlength=self.n_atoms).astype(self.c_transform.dtype)


class NumpyKernel(Kernel):
    """In-place :class:`Kernel` for NumPy arrays."""

    buffer = None

    def room(self, rows):
        """Where the scores of these rows go."""
        if self.buffer is None or len(self.buffer) < len(rows):
            self.buffer = scratch((len(rows), len(self.bias)), rows.dtype)
        return self.buffer[: len(rows)]

    def matmul(self, u, v):
        return np.matmul(u, v.T, out=self.room(u))

    def scaled(self, cross):
        return np.multiply(cross, self.scale, out=self.room(cross))

    def soft(self, scores, row):
        scores += self.bias
        top = scores.max(axis=1)
        scores -= top[:, None]
        np.maximum(scores, EXP_FLOOR[scores.itemsize], out=scores)
        np.exp(scores, out=scores)
        total = scores.sum(axis=1)
        return SoftBlock(scores, 1.0 / total, row - self.reg * (top + np.log(total)), self.nx)

    def hard(self, scores, row):
        scores += self.bias
        index = scores.argmax(axis=1)
        top = np.take_along_axis(scores, index[:, None], axis=1)[:, 0]
        return NumpyHardBlock(index, scores.shape[1], row - top, self.nx)
