"""torch: the same passes as NumPy's kernel, on any device."""

import torch

from ._blocks import HardBlock, SoftBlock
from ._generic import EXP_FLOOR, Kernel


class TorchHardBlock(HardBlock):
    """Counts instead of a dense one-hot matrix."""

    def colsum(self):
        counts = torch.bincount(self.index, minlength=self.n_atoms)
        return counts.to(self.c_transform.dtype)


class TorchKernel(Kernel):
    """In-place :class:`Kernel` for torch tensors, outside any autograd graph."""

    buffer = None

    def matmul(self, u, v):
        if self.buffer is None or len(self.buffer) < len(u):
            self.buffer = u.new_empty((len(u), len(v)))
        return torch.matmul(u, v.T, out=self.buffer[: len(u)])

    def soft(self, scores, row):
        scores += self.bias
        top = scores.amax(dim=1)
        scores.sub_(top[:, None]).clamp_(min=EXP_FLOOR[scores.itemsize]).exp_()
        total = scores.sum(dim=1)
        return SoftBlock(scores, 1.0 / total, row - self.reg * (top + total.log()), self.nx)

    def hard(self, scores, row):
        scores += self.bias
        top, index = scores.max(dim=1)
        return TorchHardBlock(index, scores.shape[1], row - top, self.nx)
