"""torch: its names for the passes, on any device."""

import math

import torch

from ._blocks import HardBlock
from ._generic import CACHE
from ._inplace import InPlaceKernel
from ._scratch import KEPT, scratch

MOST_THREADS = KEPT // CACHE  # to share a pass: of what is kept


class TorchHardBlock(HardBlock):
    """Counts instead of a dense one-hot matrix."""

    def colsum(self):
        counts = torch.bincount(self.index, minlength=self.n_atoms)
        return counts.to(self.c_transform.dtype)


class TorchKernel(InPlaceKernel):
    """The passes by torch, outside any autograd graph."""

    unit = math.log(2.0)  # on a processor, torch.exp2 takes less than half of the time of torch.exp

    @staticmethod
    def cache():
        return CACHE * min(torch.get_num_threads(), MOST_THREADS)

    def memory(self, rows, n_columns):
        shape = (rows.shape[0], n_columns)
        if rows.is_cpu:  # NumPy asks for large pages
            return torch.from_numpy(scratch(shape, rows.numpy().dtype))
        return rows.new_empty(shape)

    def pieces(self, scores):
        return super().pieces(scores) if scores.is_cpu else [scores]

    def prepare(self, x, rows):
        return super().prepare(x, rows) if x.is_cpu else None

    def product(self, u, v, out=None):
        return torch.matmul(u, v, out=out)

    def scaled(self, cross):
        return torch.mul(cross, self.scale, out=self.room(cross))

    def highest(self, part):
        return part.amax(dim=1)

    def log(self, total):
        return total.log2()

    def inverse(self, total):
        return total.reciprocal_()

    def power(self, part, floor):
        return part.clamp_(min=floor).exp2_().sum(dim=1)

    def hard(self, scores, row):
        scores += self.bias
        if scores.is_cpu:
            # torch's search for the place of a maximum is slower there
            index = torch.from_numpy(scores.numpy().argmax(axis=1))
            top = scores.gather(1, index[:, None])[:, 0]
        else:
            top, index = scores.max(dim=1)
        return TorchHardBlock(index, scores.shape[1], row - top, self.nx)
