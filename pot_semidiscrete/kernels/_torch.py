"""torch: the same passes as NumPy's kernel, on any device."""

import math

import numpy as np
import torch

from ._blocks import HardBlock, SoftBlock
from ._generic import CACHE, EXP_FLOOR, Kernel
from ._scratch import KEPT, scratch

MOST_THREADS = KEPT // CACHE  # to share a pass: of what is kept


class TorchHardBlock(HardBlock):
    """Counts instead of a dense one-hot matrix."""

    def colsum(self, weights=None):
        counts = torch.bincount(self.index, weights, minlength=self.n_atoms)
        return counts.to(self.c_transform.dtype)

    def groupsum(self, members):
        return torch.stack([self.colsum(column) for column in members.T])


class TorchKernel(Kernel):
    """In-place :class:`Kernel` for torch tensors, outside any autograd graph."""

    buffer = None
    unit = math.log(2.0)  # on a processor, torch.exp2 takes less than half of the time of torch.exp

    @staticmethod
    def cache():
        return CACHE * min(torch.get_num_threads(), MOST_THREADS)

    def memory(self, rows, allocate=np.empty):
        shape = (rows.shape[0], self.bias.shape[0])
        if rows.is_cpu:  # NumPy asks for large pages
            return torch.from_numpy(allocate(shape, rows.numpy().dtype))
        return rows.new_empty(shape)

    def room(self, rows):
        """Where the scores of these rows go."""
        n = rows.shape[0]
        if self.buffer is None or self.buffer.shape[0] < n:
            self.buffer = self.memory(rows, scratch)
        return self.buffer[:n]

    def matmul(self, u, v):
        return torch.matmul(u, v.T, out=self.room(u))

    def scaled(self, cross):
        return torch.mul(cross, self.scale, out=self.room(cross))

    def soft(self, scores, row):
        tops, totals = [], []
        for part in self.pieces(scores) if scores.is_cpu else [scores]:
            part += self.bias
            tops.append(part.amax(dim=1))
            part.sub_(tops[-1][:, None]).clamp_(min=EXP_FLOOR[part.itemsize] / self.unit).exp2_()
            totals.append(part.sum(dim=1))
        top, total = torch.cat(tops), torch.cat(totals)
        transform = row - (self.reg * self.unit) * (top + total.log2())
        return SoftBlock(scores, total.reciprocal_(), transform, self.nx)

    def hard(self, scores, row):
        scores += self.bias
        if scores.is_cpu:
            # torch's search for the place of a maximum is slower there
            index = torch.from_numpy(scores.numpy().argmax(axis=1))
            top = scores.gather(1, index[:, None])[:, 0]
        else:
            top, index = scores.max(dim=1)
        return TorchHardBlock(index, scores.shape[1], row - top, self.nx)
