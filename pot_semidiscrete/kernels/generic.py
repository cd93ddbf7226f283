"""The kernel in POT's backend vocabulary: runs anywhere, and can be differentiated.

What is differentiated must not ask for ``nx.zeros(..., type_as=x)``: under JAX, `x` is traced and
has no device to tell.
"""

from ..backend import Array
from .base import Kernel
from .blocks import HardBlock, SoftBlock


class GenericKernel(Kernel):
    """Weights and c-transform by functions that every backend has."""

    def soft(self, scores: Array, source_term: Array) -> SoftBlock:
        nx = self.nx
        scores = scores + self.bias
        total = nx.logsumexp(scores, axis=1)
        powers = nx.exp(scores - total[:, None])
        transform = source_term - self.reg * total
        return SoftBlock(powers, 1.0 / nx.sum(powers, axis=1), transform, nx)

    def hard(self, scores: Array, source_term: Array) -> HardBlock:
        nx = self.nx
        scores = scores + self.bias
        block = HardBlock(nx.argmax(scores, axis=1), scores.shape[1], source_term, nx)
        # max(s), with the derivative of the atom chosen, ties included
        block.c_transform = source_term - nx.sum(block.dense() * scores, axis=1)
        return block
