"""Data as a target, and how points of any shape are compared with them, as a torch module."""

from collections.abc import Callable
from typing import Any, Self

import torch

from ..backend import capabilities, describe, in_double, ours
from ..costs import Metric, SqEuclidean
from ..problem import (
    StoredAtoms,
    Target,
    at_price,
    build_target,
    check_plain,
    check_points,
    digest,
    flat_rows,
    remedy_for,
)
from .data import check_tensor
from .features import FeatureMap, Features, in_parts
from .shared import SharedState


class ComparedData(SharedState):
    """The base of :class:`TrackedPotential`: the data, and the map from points to what is compared.

    The parameters are explained at :class:`SemiDiscreteLoss`.
    """

    def __init__(
        self,
        X_target: torch.Tensor,
        a_target: torch.Tensor | None,
        metric: Metric,
        *,
        reg_m: float | None,
        reg_m_type: str,
        features: Features | None,
        process_group: Any,
    ) -> None:
        target, feature_map, data = _compared(X_target, a_target, metric, features)
        weights = in_double(target.distribute(target.weights))
        super().__init__(data, weights, at_price(target, reg_m, reg_m_type), process_group)
        self._feature_map, self.shape = feature_map, X_target.shape[1:]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        with ours():  # what was read in inference mode is of no use outside
            owned = capabilities(self.target.nx).owned
            self.target = self.target.map(owned)
            self._buffers |= {name: owned(buffer) for name, buffer in self._buffers.items()}

    @property
    def reg_m(self) -> float:
        """Price of masses other than the weights, ``inf`` if they are held to be these."""
        return self.target.reg_m

    @property
    def features(self) -> Features | None:
        """What points are compared by; None for the points themselves."""
        return None if self._feature_map is None else self._feature_map.function

    @property
    def has_majorants(self) -> bool:
        """Whether bounds of the loss are known: for the squared distance only."""
        return isinstance(self.target.cost, SqEuclidean)

    @ours()
    def rows(self, x: torch.Tensor) -> torch.Tensor:
        """Points of any shape, or their features, as one row each, in the dtype of the data."""
        _check_shape(x, self.shape)
        x = in_dtype(x, self.target.weights.dtype)
        if x.is_floating_point() and x.ndim > 0:
            x = x if self._feature_map is None or 0 in x.shape else self._feature_map(x)
        return flat_rows(x, self.target.nx)

    @ours()
    def local(self, x: torch.Tensor) -> torch.Tensor:
        """Points in the coordinates of the atoms, checked, and cut from their graph."""
        x, _ = check_points("x", self.rows(x), like=self.target.like)
        return self.target.center(x.detach())

    @ours()
    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        # follow the device that fn moves to, and only that: the buffers need their precision
        weights = self.target.weights
        device = fn(torch.empty(0, dtype=weights.dtype, device=weights.device)).device
        self.target = self.target.map(lambda array: array.to(device))
        if self._feature_map is not None:
            self._feature_map.to(device)
        return super()._apply(lambda tensor: tensor.to(device), recurse)


def require_squared_distance(data: ComparedData, name: str, remark: str) -> None:
    """Refuse the method `name` to another metric."""
    if not data.has_majorants:
        raise ValueError(
            f"{name}: expected a loss with metric 'sqeuclidean', {remark}, received "
            f"{data.target.cost.name!r}."
        )


def in_dtype(x: Any, dtype: torch.dtype) -> Any:
    """A floating tensor in a precision, whatever a caller's autocast made of it; all else as it is."""
    return x.to(dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x


def _check_shape(x: Any, shape: torch.Size) -> None:
    """Refuse what is no tensor, or is images of another shape than the data, channels last, say."""
    check_tensor("x", x)
    if len(shape) > 1 and _one_channel(x.shape[1:]) != _one_channel(shape):
        raise ValueError(
            f"x: expected points of the shape of the data, (n, {', '.join(map(str, shape))}), received "
            f"{describe(x)}; reshape or permute them."
        )


def _one_channel(shape: torch.Size) -> tuple[int, ...]:
    """The shape of an image without a first axis of length 1."""
    return shape[1:] if len(shape) == 3 and shape[0] == 1 else shape


def _compared(
    X_target: torch.Tensor,
    a_target: torch.Tensor | None,
    metric: Metric,
    features: Features | None,
) -> tuple[Target, FeatureMap | None, str]:
    """The data, or their features, as a target; the map to these; and a digest of the data."""
    check_plain("X_target", X_target)
    if isinstance(X_target, StoredAtoms):
        if features is not None:
            raise TypeError(
                f"features: expected None with stored atoms, received {describe(features)}; store the "
                "features of the data."
            )
        if not isinstance(X_target.like, torch.Tensor):
            raise TypeError(
                "X_target: expected stored atoms that torch computes with, received "
                f"{X_target!r}; give StoredAtoms(..., like=torch.zeros(1))."
            )
        target = build_target(X_target, a_target, metric)
        return target, None, target.digest
    remedy = "use torch.as_tensor" if hasattr(X_target, "shape") else remedy_for(X_target)
    check_tensor("X_target", X_target, remedy)
    for name, array in {"X_target": X_target, "a_target": a_target}.items():
        if getattr(array, "requires_grad", False):
            raise ValueError(
                f"{name}: expected data that stand still, received a tensor with requires_grad; detach "
                "it, or use pot_semidiscrete.semidiscrete_loss, which is differentiable in it."
            )
    rows = X_target.flatten(1) if X_target.ndim > 2 else X_target
    if features is None:
        target = build_target(rows, a_target, metric)
        return target, None, target.digest
    rows, nx = check_points("X_target", rows)
    feature_map = FeatureMap(features, X_target)
    target = build_target(in_parts(feature_map, X_target), a_target, metric)
    return target, feature_map, digest(rows, nx)
