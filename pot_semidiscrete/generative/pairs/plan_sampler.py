"""Pairs for code that pairs the batches it is given, torchcfm's say."""

import hashlib

import torch

from ...backend import describe, ours
from .pairs import SemiDiscretePairs


class PlanSampler:
    """Replacement of ``torchcfm.optimal_transport.OTPlanSampler``, with the plan of all data.

    OTPlanSampler couples within a batch. Here each data point gets noise by the plan of all data
    (:meth:`SemiDiscretePairs.noise_for`). The data keep their order, each once.

    Parameters
    ----------
    pairs : SemiDiscretePairs
        Pairs of all data.

    Examples
    --------
    >>> import torch
    >>> from pot_semidiscrete.generative import PlanSampler, SemiDiscretePairs
    >>> data = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    >>> sampler = PlanSampler(SemiDiscretePairs(data, random_state=0))
    >>> x0, x1 = sampler.sample_plan(torch.randn(64, 2), data[:64])
    >>> torch.equal(x1, data[:64]), bool(((x0 - x1) ** 2).sum(1).mean() < 1.5)
    (True, True)
    """

    def __init__(self, pairs: SemiDiscretePairs) -> None:
        if not isinstance(pairs, SemiDiscretePairs):
            raise TypeError(f"pairs: expected SemiDiscretePairs, received {describe(pairs)}.")
        self.pairs = pairs
        self._row_of: dict[bytes, int] | None = None

    def __repr__(self) -> str:
        return f"PlanSampler({self.pairs!r})"

    @ours()
    def sample_plan(
        self, x0: torch.Tensor, x1: torch.Tensor, replace: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise for data points, and the data points.

        Parameters
        ----------
        x0 : tensor, shape (n, ...)
            Noise; only its dtype and device are used.
        x1 : tensor, shape (n, ...), or of int, shape (n,)
            Data as `pairs` returns them, equal in single precision, or their rows; then the data are
            returned.
        replace : bool
            Accepted as in torchcfm, without effect: nothing is drawn twice.

        Returns
        -------
        x0, x1 : tensors, shape (n, ...)
            Noise in the shape of `x1`, flattened perhaps.

        Raises
        ------
        ValueError
            If a point is not among the data, for example because it was augmented.
        """
        if not isinstance(x0, torch.Tensor):
            raise TypeError(f"x0: expected a tensor, received {describe(x0)}.")
        index = self._rows(x1)
        noise = self.pairs.noise_for(index).to(x0)
        if x1.ndim == 1:
            return noise, self.pairs.rows(index).to(x0.device)
        return noise.reshape(x1.shape) if noise.numel() == x1.numel() else noise, x1

    def sample_plan_with_labels(
        self,
        x0: torch.Tensor,
        x1: torch.Tensor,
        y0: torch.Tensor | None = None,
        y1: torch.Tensor | None = None,
        replace: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """The same, with the labels of the data.

        Raises
        ------
        ValueError
            If `y0` is not None: the given noise is not used, so its labels cannot be.
        """
        if y0 is not None:
            raise ValueError(
                f"y0: expected None, for the noise has no labels, received {describe(y0)}; give those "
                "of the data as y1."
            )
        return *self.sample_plan(x0, x1, replace), None, y1

    @ours()
    def _rows(self, x1: torch.Tensor) -> torch.Tensor:
        """Rows of data points that are given by their rows, or by their values."""
        if not isinstance(x1, torch.Tensor):
            raise TypeError(f"x1: expected a tensor, received {describe(x1)}.")
        if x1.ndim == 1 and not x1.is_floating_point():
            return x1
        if self._row_of is None:
            self._row_of = {}
            index = torch.arange(len(self.pairs.rows.data), device="cpu")
            for few in index.split(self.pairs.batch_size):
                for i, key in zip(few.tolist(), _keys(self.pairs.rows(few)), strict=True):
                    self._row_of.setdefault(key, i)
        found = [self._row_of.get(key) for key in _keys(x1)]
        if None in found:
            raise ValueError(
                f"x1: expected data points to the bit, received {found.count(None)} of {len(found)} "
                "others, augmented perhaps; give their rows, a tensor of int."
            )
        return torch.tensor(found, device="cpu")


def _keys(points: torch.Tensor) -> list[bytes]:
    """A hash of each point, of its values in single precision."""
    rows = points.detach().cpu().float().reshape(len(points), -1).numpy()
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]
