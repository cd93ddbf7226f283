"""torch: the same passes as NumPy's kernel, on any device."""

import torch

from ._blocks import HardBlock, SoftBlock
from ._generic import EXP_FLOOR, Kernel
from ._scratch import scratch


class TorchHardBlock(HardBlock):
    """Counts instead of a dense one-hot matrix."""

    def colsum(self):
        counts = torch.bincount(self.index, minlength=self.n_atoms)
        return counts.to(self.c_transform.dtype)


class TorchKernel(Kernel):
    """In-place :class:`Kernel` for torch tensors, outside any autograd graph."""

    buffer = None

    def matmul(self, u, v):
        n = u.shape[0]
        if self.buffer is None or self.buffer.shape[0] < n:
            shape = (n, v.shape[0])
            self.buffer = (
                torch.from_numpy(scratch(shape, u.numpy().dtype)) if u.is_cpu else u.new_empty(shape)
            )
        return torch.matmul(u, v.T, out=self.buffer[:n])

    def soft(self, scores, row):
        scores += self.bias
        top = scores.amax(dim=1)
        scores.sub_(top[:, None]).clamp_(min=EXP_FLOOR[scores.itemsize]).exp_()
        total = scores.sum(dim=1)
        transform = row - self.reg * (top + total.log())
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
