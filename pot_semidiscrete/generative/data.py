"""Data sets of torch: their items by number, and all of them as a tensor."""

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..backend import describe, ours, theirs
from ..problem import NotFiniteError, ShardedAtoms, check_bool, remedy_for
from ..runs import Progress, replaced


class DataRows:
    """Data points by their numbers, of a tensor, Dataset or ShardedAtoms: the argument `name`."""

    def __init__(
        self, data: Any, transform: Callable[[Any], torch.Tensor] | None, name: str = "data"
    ) -> None:
        if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
            raise TypeError(
                f"{name}: expected a tensor or a data set with a length, received {describe(data)}; "
                "give what is to be returned."
            )
        if transform is not None and not callable(transform):
            raise TypeError(f"transform: expected a callable, received {describe(transform)}.")
        self.data, self.transform, self.name = data, transform, name

    def check_length(self, n_data: int) -> None:
        """Check that there are as many as were paired."""
        if len(self.data) != n_data:
            raise ValueError(
                f"{self.name}: expected {n_data} items, those that were paired and in their order, "
                f"received {len(self.data)}."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an item."""
        return tuple(self.item(0).shape)

    def __call__(self, index: torch.Tensor) -> torch.Tensor:
        """Data points of these numbers, on the device of `index`."""
        if isinstance(self.data, ShardedAtoms) and self.transform is None:
            return self.data[index]
        if isinstance(self.data, torch.Tensor) and self.transform is None:
            return self.data[index.to(self.data.device)].to(index.device)
        return torch.stack([self.item(i) for i in index.tolist()]).to(index.device)

    def item(self, i: int) -> torch.Tensor:
        """One of them."""
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
                f"{self.name}: expected items that are arrays, received {describe(item)}; give "
                "transform=, which makes a tensor of an item."
            ) from None


def check_tensor(name: str, x: object, remedy: str = "use torch.as_tensor") -> None:
    """Refuse what is no tensor."""
    if not isinstance(x, torch.Tensor):
        remedy = remedy_for(x) if isinstance(x, torch.utils.data.DataLoader) else remedy
        raise TypeError(f"{name}: expected a torch tensor, received {describe(x)}; {remedy}.")


def is_image(shape: Sequence[int], least: int = 8) -> bool:
    """Whether a point of this shape is an image, of at least so many pixels along each side."""
    return len(shape) in (2, 3) and min(shape[-2:]) >= least


def in_shape(x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Points in another shape of as many entries."""
    check_tensor("x", x)
    if x.ndim < 2 or math.prod(x.shape[1:]) != math.prod(shape):
        raise ValueError(
            f"x: expected points of the shape of the data, (n, {', '.join(map(str, shape))}), received "
            f"{describe(x)}."
        )
    return x.reshape(-1, *shape)


def check_finite(name: str, tensors: Sequence[torch.Tensor]) -> None:
    """Refuse tensors that are not finite."""
    # one check of the sums: finite ones have finite terms, others may be due to overflow
    sums = [t.sum().to(tensors[0].device) for t in tensors]
    if tensors and not (torch.stack(sums).isfinite().all() or all(t.isfinite().all() for t in tensors)):
        raise NotFiniteError(f"{name}: expected finite numbers, received NaN or inf.")


def stacked(data: Any) -> Any:
    """A data set of torch as a tensor of all of its items; all else as it is, for the checks to come."""
    return stack_dataset(data) if isinstance(data, torch.utils.data.Dataset) else data


@ours()
def stack_dataset(
    dataset: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    transform: Callable[[Any], torch.Tensor] | None = None,
    verbose: bool = False,
) -> torch.Tensor:
    """Stack all items of a data set into a tensor, to be used as `X_target`.

    Parameters
    ----------
    dataset : Dataset
        Data set with a length. Of an item that is a tuple, such as an image and its label, the first
        entry is taken.
    path : str or path-like, optional
        File in NumPy's format (``.npy``) to write the tensor to, item by item. The tensor returned is
        then mapped to the file. If it does not fit into memory, give it to
        :class:`pot_semidiscrete.StoredAtoms`.
    transform : callable, optional
        ``item -> tensor``.
    verbose : bool, default=False
        Show a progress bar.

    Returns
    -------
    tensor, shape (n, ...)
        In the dtype of the items.

    Raises
    ------
    TypeError, ValueError
        If there are no items, items are not arrays, or their shapes or dtypes differ.

    References
    ----------
    NEP 1, *A Simple File Format for NumPy Arrays* (the file).

    Examples
    --------
    >>> import torch
    >>> from pot_semidiscrete.generative import stack_dataset
    >>> labelled = torch.utils.data.TensorDataset(torch.eye(3), torch.arange(3))
    >>> stack_dataset(labelled)
    tensor([[1., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]])
    """
    rows = DataRows(dataset, transform, "dataset")
    n, bar = len(dataset), Progress(check_bool("verbose", verbose), len(dataset), "stack_dataset")
    if n == 0:
        raise ValueError("dataset: expected at least one item, received none.")

    def items() -> Iterator[torch.Tensor]:
        for item in itertools.chain([first], map(rows.item, range(1, n))):
            item = item.detach().cpu()
            if item.shape != first.shape or item.dtype != first.dtype:
                raise ValueError(
                    f"dataset: expected items like the first, {describe(first)}, received "
                    f"{describe(item)}; give transform=, which makes them alike."
                )
            yield item
            bar.update(dict)

    first = rows.item(0)
    try:
        if path is None:
            stacked = first.new_empty((n, *first.shape), device="cpu")
            for place, item in zip(stacked, items(), strict=True):
                place.copy_(item)
            return stacked
        with replaced(path) as file:
            facts = {"descr": first.cpu().numpy().dtype.str, "fortran_order": False}
            np.lib.format.write_array_header_1_0(file, facts | {"shape": (n, *first.shape)})
            for item in items():
                file.write(item.numpy().tobytes())
        return torch.from_numpy(np.load(path, mmap_mode="c"))
    finally:
        bar.close(dict)
