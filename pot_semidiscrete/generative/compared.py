"""Data as a target, and how points of any shape are compared with them, as a torch module."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from ot.backend import get_backend
from torch import nn

from ..backend import capabilities, describe, in_double, ours
from ..costs import Metric, SqEuclidean
from ..problem import (
    ShardedAtoms,
    SharedTarget,
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
from ..runs import SemiDiscreteWarning
from .data import check_tensor
from .features import FeatureMap, Features, in_parts


class ComparedData(nn.Module):
    """The base of :class:`TrackedPotential`: the data, and the map from points to what is compared.

    The parameters are explained at :class:`SemiDiscreteLoss`. `ranks` are the processes that share the
    data, None if there is one; a copy has none. ``state_dict`` has a digest of the data: that of others
    is refused.
    """

    def __init__(
        self,
        X_target: torch.Tensor,
        a_target: torch.Tensor | None,
        metric: Metric,
        reg_m: float | None,
        reg_m_type: str,
        features: Features | None,
        ranks: Any,
    ) -> None:
        super().__init__()
        target, self._feature_map, self.data_digest = _compared(X_target, a_target, metric, features)
        # weights differ by rounding, so that a digest would not do: these moments differ by as little
        weights = in_double(target.distribute(target.weights))
        self.weight_moments = np.exp(1j * np.arange(len(weights))) @ weights
        self.target, self.ranks = at_price(target, reg_m, reg_m_type), ranks
        self.shape = X_target.shape[1:]
        if ranks is not None:
            ranks.check_same(
                X_target=self.data_digest,
                a_target=np.round(self.weight_moments, 6),
                metric=target.cost.name,
                reg_m=self.reg_m,
            )

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__ | {"ranks": None}
        state.pop("_shared_target", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        with ours():  # what was read in inference mode is of no use outside
            owned = capabilities(self.target.nx).owned
            self.target = self.target.map(owned)
            self._buffers |= {name: owned(buffer) for name, buffer in self._buffers.items()}

    @functools.cached_property
    def _shared_target(self) -> Target:
        """The target of what all ranks do together; ``target`` is that of each one's own points."""
        return self.target if self.ranks is None else SharedTarget.of(self.target, self.ranks)

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
        check_shape("x", x, self.shape)
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
        if self.target.shard is not None and device != weights.device:
            raise TypeError(
                f"to: expected {weights.device}, where the ranks have their sharded atoms, received "
                f"{device}; make ShardedAtoms of rows that are there, and a loss of them."
            )
        self.target = self.target.map(lambda array: array.to(device))
        self.__dict__.pop("_shared_target", None)
        if self._feature_map is not None:
            self._feature_map.to(device)
        return super()._apply(lambda tensor: tensor.to(device), recurse)

    @ours()
    def get_extra_state(self) -> torch.Tensor:
        """Digest of the data and moments of the weights, as a tensor of bytes."""
        found = bytes.fromhex(self.data_digest) + np.complex128(self.weight_moments).tobytes()
        return torch.tensor(list(found), dtype=torch.uint8, device="cpu")

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Do nothing: ``_load_from_state_dict`` has compared it."""

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any, **options: Any
    ) -> None:
        name, potential = f"{prefix}_extra_state", state_dict.get(f"{prefix}potential")
        if name not in state_dict and potential is not None:
            state_dict[name] = self.get_extra_state()
            warnings.warn(
                "state_dict: it was written by version 0.1.0, which kept nothing of the data of a "
                "potential; it may be of others than these.",
                SemiDiscreteWarning,
                stacklevel=3,
            )
        found = state_dict.get(name)
        if found is not None and not self._matches(found):
            raise ValueError(
                "state_dict: expected the potential of these data and weights, in the same order and of "
                "the same values in single precision, received that of others; give the loss those of "
                "its run."
            )
        if isinstance(potential, torch.Tensor) and not bool(torch.isfinite(potential).all()):
            raise ValueError("state_dict: expected a finite potential, received NaN or inf.")
        super()._load_from_state_dict(state_dict, prefix, *arguments, **options)

    def _matches(self, state: Any) -> bool:
        """Whether an extra state is that of these data, and of nearly these weights."""
        own = self.get_extra_state()
        if not isinstance(state, torch.Tensor) or state.shape != own.shape or state.dtype != own.dtype:
            return False
        state = state.cpu()
        moments = np.frombuffer(bytes(state[-16:].tolist()), dtype=np.complex128)[0]
        return torch.equal(state[:-16], own[:-16]) and abs(moments - self.weight_moments) < 1e-6


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


def check_shape(name: str, x: Any, shape: torch.Size) -> torch.Tensor:
    """Refuse what is no tensor, or is images of another shape than the data, channels last, say."""
    check_tensor(name, x, "use torch.as_tensor" if name == "x" else "return a tensor")
    if len(shape) > 1 and _one_channel(x.shape[1:]) != _one_channel(shape):
        raise ValueError(
            f"{name}: expected points of the shape of the data, (n, {', '.join(map(str, shape))}), "
            f"received {describe(x)}; reshape or permute them."
        )
    return x


def _one_channel(shape: torch.Size) -> tuple[int, ...]:
    """The shape of an image without a first axis of length 1."""
    return shape[1:] if len(shape) == 3 and shape[0] == 1 else shape


def _check_alike(feature_map: FeatureMap, atoms: Any) -> None:
    """Refuse features that are not the same on all ranks, which have them of data that differ, say."""
    found, _ = atoms.ranks.concatenate(feature_map(atoms[:1]).detach())
    others = (found - found[0]).abs().amax(dim=1) > 1e-3 * found.abs().max()
    if bool(others.any()):
        raise ValueError(
            "features: expected the same on all ranks, received on rank "
            f"{int(others.nonzero()[0])} others than on rank 0; make them on one rank, and send them to "
            "all."
        )


def _compared(
    X_target: torch.Tensor,
    a_target: torch.Tensor | None,
    metric: Metric,
    features: Features | None,
) -> tuple[Target, FeatureMap | None, str]:
    """The data, or their features, as a target; the map to these; and a digest of the data."""
    check_plain("X_target", X_target)
    if isinstance(X_target, (StoredAtoms, ShardedAtoms)):
        if not isinstance(X_target.like, torch.Tensor):
            raise TypeError(
                f"X_target: expected atoms that torch computes with, received {X_target!r}; give "
                "StoredAtoms(..., like=torch.zeros(1)), or ShardedAtoms of a tensor."
            )
        if features is None:
            target = build_target(X_target, a_target, metric)
            return target, None, target.digest
        if isinstance(X_target, StoredAtoms):
            raise TypeError(
                f"features: expected None with stored atoms, received {describe(features)}; store the "
                "features of the data."
            )
        feature_map = FeatureMap(features, X_target.rows)
        data = digest(X_target, get_backend(X_target.like))
        _check_alike(feature_map, X_target)
        found = lambda rows: check_points("features(X_target)", in_parts(feature_map, rows))[0]
        return build_target(X_target.map(found), a_target, metric), feature_map, data
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
