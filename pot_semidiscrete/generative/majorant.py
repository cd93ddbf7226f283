"""Bounds of the loss that a generator can descend several times."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..backend import brief, describe, ours


@dataclass(frozen=True)
class Majorant:
    r"""Upper bound of ``loss(x)`` for the squared distance, which touches it at a batch of points.

    :math:`|x|^2 - \psi^{c,\lambda}(x)` is convex, of gradient :math:`2 T(x)`: so
    :math:`\psi^{c,\lambda}(x') \le \psi^{c,\lambda}(x) - |x - T(x)|^2 + |x' - T(x)|^2`, and a generator
    can take several steps along the bound for the price of one reduction, the first along formula (G).

    Attributes
    ----------
    goal : tensor, shape (n, d)
        :math:`T(x)`, in the coordinates of the atoms.
    constant : tensor, shape (n,)
    """

    goal: torch.Tensor
    constant: torch.Tensor

    __repr__ = brief

    @ours()
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Bound of the mean value at the moved points `x`, shape (n, d)."""
        return (self.constant + (x - self.goal).square().sum(dim=1)).mean()


def check_batches(batches: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Check a list of one or more batches of points of one shape."""
    if not isinstance(batches, (list, tuple)) or not all(isinstance(x, torch.Tensor) for x in batches):
        raise TypeError(
            f"batches: expected a list of tensors, received {describe(batches)}; give [x] for one batch."
        )
    if len({x.shape[1:] for x in batches}) != 1 or not all(x.ndim for x in batches):
        raise ValueError(
            "batches: expected a list of tensors, points of one shape, received "
            f"{', '.join(map(describe, batches)) or 'none'}."
        )
    return list(batches)
