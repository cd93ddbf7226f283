"""Rows of a tensor, or items of a data set, by their numbers."""

from collections.abc import Callable
from typing import Any

import torch

from ...backend import describe, theirs


class DataRows:
    """What the numbers of data points stand for.

    Parameters
    ----------
    data : tensor or Dataset
    transform : callable, optional
        ``item -> tensor``.
    """

    def __init__(self, data: Any, transform: Callable[[Any], torch.Tensor] | None) -> None:
        if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
            raise TypeError(
                f"data: expected a tensor or a data set with a length, received {describe(data)}; give "
                "what is to be returned."
            )
        if transform is not None and not callable(transform):
            raise TypeError(f"transform: expected a callable, received {describe(transform)}.")
        self.data, self.transform = data, transform

    def check_length(self, n_data: int) -> None:
        """Check that there are as many as were paired."""
        if len(self.data) != n_data:
            raise ValueError(
                f"data: expected {n_data} items, those that were paired and in their order, received "
                f"{len(self.data)}."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an item."""
        return tuple(self._item(0).shape)

    def __call__(self, index: torch.Tensor) -> torch.Tensor:
        """Data points of these numbers, on the device of `index`."""
        if isinstance(self.data, torch.Tensor) and self.transform is None:
            return self.data[index.to(self.data.device)].to(index.device)
        return torch.stack([self._item(i) for i in index.tolist()]).to(index.device)

    def _item(self, i: int) -> torch.Tensor:
        with theirs():  # data sets and transforms are code of users
            item = self.data[i]
            item = item[0] if isinstance(item, (tuple, list)) else item
            item = item if self.transform is None else self.transform(item)
        if isinstance(item, torch.Tensor):
            return item
        try:
            return torch.as_tensor(item, device="cpu")
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(
                f"data: expected items that are arrays, received {describe(item)}; give transform=, "
                "which makes a tensor of an item."
            ) from None
