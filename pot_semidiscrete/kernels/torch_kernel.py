"""torch: its names for the passes, on any device."""

import math

import torch
from ot.backend import get_backend

from ..backend import Array, on_host
from .base import CACHE, Atoms, Kernel
from .blocks import HardBlock, SoftBlock
from .fused import known_fused_kernel
from .in_place import InPlaceKernel
from .numpy_kernel import NumpySoftBlock
from .scratch import KEPT, scratch

FEW_COLUMNS = 8  # of a product on a processor: with 16 both ways take the same time


class TorchSoftBlock(SoftBlock):
    """Products with a few columns from the left: from the right torch takes up to eight times longer."""

    def average(self, values: Array) -> Array:
        if values.shape[1] > FEW_COLUMNS:
            return super().average(values)
        return (values.T.contiguous() @ self.exp_scores.T).T * self.inv_row_sums[:, None]

    def cdf_group(self, level: Array) -> tuple[Array, Array, Array]:
        if not level.is_cpu:
            return super().cdf_group(level)
        scores, inverse, transform = (
            array.numpy() for array in (self.exp_scores, self.inv_row_sums, self.c_transform)
        )
        block = NumpySoftBlock(scores, inverse, transform, get_backend(scores))
        start, weights, part = block.cdf_group(level.numpy())  # whose small steps are faster
        return torch.from_numpy(start), torch.from_numpy(weights), torch.from_numpy(part)


class TorchHardBlock(HardBlock):
    """Counts instead of a dense one-hot matrix."""

    def colsum(self) -> Array:
        if self.index.is_cpu:
            counts = torch.bincount(self.index, minlength=self.n_atoms)
            return counts.to(self.c_transform.dtype)
        ones = torch.ones_like(self.c_transform)  # the host need not wait, as it does for bincount
        return ones.new_zeros(self.n_atoms).index_add_(0, self.index, ones)


class TorchKernel(InPlaceKernel):
    """The passes by torch, outside any autograd graph."""

    soft_block = TorchSoftBlock
    threaded = True
    unit = math.log(2.0)  # on a processor, torch.exp2 takes less than half of the time of torch.exp

    @classmethod
    def suited(cls, target: Atoms) -> type[Kernel]:
        """The fused kernel, for data on a GPU that it is made for, if Triton is installed."""
        fused = None if cls is not TorchKernel or on_host(target.atoms) else known_fused_kernel()
        return cls if fused is None else fused.suited(target)

    @staticmethod
    def cache() -> int:
        return min(CACHE * torch.get_num_threads(), KEPT)  # threads share a pass

    def memory(self, rows: Array, n_columns: int) -> Array:
        shape = (rows.shape[0], n_columns)
        if rows.is_cpu:  # NumPy asks for large pages
            return torch.from_numpy(scratch(shape, rows.numpy().dtype))
        return rows.new_empty(shape)

    def pieces(self, scores: Array) -> list[Array]:
        return super().pieces(scores) if scores.is_cpu else [scores]

    def prepare(self, x: Array, rows: int) -> Array | None:
        return super().prepare(x, rows) if x.is_cpu else None

    def product(self, u: Array, v: Array, out: Array | None = None) -> Array:
        return torch.matmul(u, v, out=out)

    def scaled(self, bilinear: Array) -> Array:
        return torch.mul(bilinear, self.scale, out=self.room(bilinear))

    def row_max(self, part: Array) -> Array:
        return part.amax(dim=1)

    def row_sum(self, part: Array) -> Array:
        return part.sum(dim=1)

    def log(self, total: Array) -> Array:
        return total.log2()

    def inverse(self, total: Array) -> Array:
        return total.reciprocal_()

    def power(self, part: Array, floor: float) -> Array:
        return part.clamp_(min=floor).exp2_()

    def hard(self, scores: Array, source_term: Array) -> HardBlock:
        scores += self.bias
        scores = self.rows(scores)
        if scores.is_cpu:
            # torch's search for the place of a maximum is slower there
            index = torch.from_numpy(scores.numpy().argmax(axis=1))
            top = scores.gather(1, index[:, None])[:, 0]
        else:
            top, index = scores.max(dim=1)
        return TorchHardBlock(index, scores.shape[1], source_term - top, self.nx)
