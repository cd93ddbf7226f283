"""The potential of a data set, which follows a generator, as the state of a torch module."""

import functools
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import nn

from ..backend import capabilities, describe, guest, in_double, ours
from ..costs import Metric, SqEuclidean
from ..optim import tracking
from ..optim.ascent import cold_start
from ..optim.semi_dual import SemiDual
from ..plan import semi_dual
from ..problem import (
    StoredAtoms,
    Target,
    build_target,
    check_callable,
    check_count,
    check_plain,
    check_points,
    check_reg,
    digest,
    flat_rows,
    remedy_for,
    scale_of,
)
from .features import FeatureMap, Features, in_parts
from .network import NetworkPotential
from .optimizers import MakeOptimizer
from .shared import SharedState, all_points, jointly, mean_of_ranks, shared_target, start_alike


class TrackedPotential(SharedState):
    """The base of :class:`SemiDiscreteLoss`: all but its values. The parameters are explained there."""

    potential: torch.Tensor
    n_steps: torch.Tensor

    @ours()
    def __init__(
        self,
        X_target: torch.Tensor,
        a_target: torch.Tensor | None,
        metric: Metric,
        reg: float | None,
        dual_steps: int,
        potential: nn.Module | None,
        potential_optimizer: torch.optim.Optimizer | MakeOptimizer | None,
        features: Features | None,
        process_group: Any = None,
    ) -> None:
        target, feature_map, data = _compared(X_target, a_target, metric, features, potential)
        weights = in_double(target.distribute(target.weights))
        super().__init__(data, weights, target, process_group)
        self._feature_map, self.shape = feature_map, X_target.shape[1:]
        self.dual_steps = check_count("dual_steps", dual_steps)
        self.reg = 0.01 * scale_of(self.target) if reg is None else reg
        zeros = torch.zeros_like(self.target.scatter(self.target.weights))
        self.register_buffer("potential", zeros)
        self.register_buffer("n_steps", torch.zeros((), dtype=torch.long, device="cpu"))
        self.network: NetworkPotential | None = None
        self.moves = 0  # of the potential, in this process
        if potential is not None:
            points = self.target.gather(capabilities(self.target.nx).owned(X_target))
            self.network = NetworkPotential(potential, potential_optimizer, points)
            start_alike(self.ranks, [*self.network.parameters(), *self.network.buffers()])
            with torch.no_grad():
                self._store(self.network(), 0)
        elif potential_optimizer is not None:
            raise ValueError(
                "potential_optimizer: expected None with a vector, received one; give potential=, a "
                "module."
            )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        with ours():  # what was read in inference mode is of no use outside
            owned = capabilities(self.target.nx).owned
            self.target = self.target.map(owned)
            self._buffers |= {name: owned(buffer) for name, buffer in self._buffers.items()}

    @property
    def reg(self) -> float:
        """Regularisation; the potential follows at the one that it is set to."""
        return self._reg

    @reg.setter
    @ours()
    def reg(self, reg: float) -> None:
        self._reg = check_reg(reg, self.target)
        self._tracking_reg = tracking.tracking_reg(self.target, self._reg)
        self._eps_start = tracking.eps_ratio(self.target, self._tracking_reg)

    @property
    def features(self) -> Features | None:
        """What points are compared by; None for the points themselves."""
        return None if self._feature_map is None else self._feature_map.function

    @property
    def has_majorants(self) -> bool:
        """Whether bounds of the loss are known: for the squared distance only."""
        return isinstance(self.target.cost, SqEuclidean)

    @property
    def can_translate(self) -> bool:
        """Whether :meth:`translate` is known: for the squared distance and a vector."""
        return self.has_majorants and self.network is None

    @jointly
    @torch.no_grad()
    def dual_step(self, x: torch.Tensor) -> None:
        """Move the potential by one batch of points, for a loop of your own.

        Make `dual_steps` calls between steps of the generator. One call of :meth:`follow` with all of
        their points is better: it is one round with more steps.

        Parameters
        ----------
        x : tensor, shape (n, ...)
            Fresh points of the generator; its graph is not followed.
        """
        self._dual_ascent(all_points(self.ranks, self.local(x)), 1)

    @jointly
    @torch.no_grad()
    def follow(self, x: torch.Tensor) -> None:
        """Move the potential by a round of many small steps with the points `x`.

        For a generator that takes one or several steps between rounds, as in :func:`train_generator`.
        The potential is an average over the last rounds. One call counts as `dual_steps` dual steps;
        with a network it takes as many, each with a part of the points.

        Parameters
        ----------
        x : tensor, shape (n, ...)
            Fresh points of the generator: several batches.
        """
        self._dual_ascent(all_points(self.ranks, self.local(x)), self.dual_steps)

    def _dual_ascent(self, x: torch.Tensor, n_steps: int, bilinear: torch.Tensor | None = None) -> None:
        """Follow the points `x`, in the coordinates of the atoms; this counts for `n_steps`."""
        if self.network is not None:
            for part in x.tensor_split(min(n_steps, len(x))):
                self.network.ascend(functools.partial(semi_dual, self.target, part, reg=self.reg))
            self._store(self.network(), int(self.n_steps) + n_steps)
            return
        target, calls = shared_target(self), self.dual_steps // n_steps
        potential = target.gather(self.potential)
        count = int(self.n_steps) // n_steps
        if self.n_steps == 0:
            potential = cold_start(SemiDual(target), x, self._tracking_reg).potential
        potential = tracking.follow(
            potential, count, target, x, self._tracking_reg, self._eps_start, bilinear, calls
        )
        self._store(potential, int(self.n_steps) + n_steps)

    @jointly
    @torch.no_grad()
    def translate(self, shift: torch.Tensor) -> None:
        r"""Correct the potential for points that all move by one vector (squared distance only).

        It becomes :math:`\psi_j - 2 \langle s, y_j \rangle` up to a constant, so that an optimal one
        stays optimal. The points of a generator that is still nearly constant move together, too far for
        :meth:`follow` alone; :func:`train_generator` makes this correction before each round. Before the
        first dual step it does nothing.

        Parameters
        ----------
        shift : tensor, of the shape of a point
            Movement of the mean of the points, or with `features` of the mean of these, shape (d,).
        """
        require_vector(self, "translate")
        require_squared_distance(self, "translate", "where the move is known; leave it to follow")
        if not isinstance(shift, torch.Tensor):
            raise TypeError(f"shift: expected a torch tensor, received {describe(shift)}.")
        shift, _ = check_points("shift", shift.reshape(1, -1), like=self.target.like)
        shift = mean_of_ranks(self.ranks, shift[0])
        along = self.target.in_parts(lambda atoms: atoms @ shift)
        moved = self.target.gather(self.potential) - 2.0 * along
        self._store(moved, int(self.n_steps))

    @jointly
    @torch.no_grad()
    def warm_up(self, draw: Callable[[], torch.Tensor], n_batches: int = 50) -> None:
        """Start the potential by a short annealing.

        Parameters
        ----------
        draw : callable
            ``() -> x``, a fresh batch of points of the generator, of any shape.
        n_batches : int
            Batches to draw; a network takes a dual step with each.
        """
        draw = guest(check_callable("draw", draw, "() -> points"))
        n_batches = check_count("n_batches", n_batches)
        if self.network is None:
            points = lambda: all_points(self.ranks, self.local(draw()))
            start = tracking.warm_up(shared_target(self), points, self._tracking_reg, n_batches)
            self._store(start, self.dual_steps)
            return
        for _ in range(n_batches):
            self.dual_step(draw())

    @torch.no_grad()
    def _store(self, potential: torch.Tensor, n_steps: int) -> None:
        self.potential.copy_(self.target.scatter(self.target.zero_mean(potential)))
        self.n_steps.fill_(n_steps)
        self.moves += 1

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
        # follow the device that fn moves to, and only that: the potential needs its precision
        device = fn(torch.empty(0, dtype=self.potential.dtype, device=self.potential.device)).device
        self.target = self.target.map(lambda array: array.to(device))
        if self._feature_map is not None:
            self._feature_map.to(device)
        return super()._apply(lambda tensor: tensor.to(device), recurse)


def in_dtype(x: Any, dtype: torch.dtype) -> Any:
    """Points in a precision, whatever a caller's autocast made of them; what are none stay so."""
    return x.to(dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x


def _check_shape(x: object, shape: torch.Size) -> None:
    """Refuse what is no tensor, or is images of another shape than the data, channels last, say."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"x: expected a torch tensor, received {describe(x)}; use torch.as_tensor.")
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
    potential: nn.Module | None,
) -> tuple[Target, FeatureMap | None, str]:
    """The data, or their features, as a target; the map to these; and a digest of the data."""
    check_plain("X_target", X_target)
    if isinstance(X_target, StoredAtoms):
        if not isinstance(X_target.like, torch.Tensor) or not features is potential is None:
            raise TypeError(
                "X_target: expected stored atoms that torch computes with, and neither features nor a "
                f"network, received {X_target!r}; give StoredAtoms(..., like=torch.zeros(1))."
            )
        target = build_target(X_target, a_target, metric)
        return target, None, target.digest
    if not isinstance(X_target, torch.Tensor):
        raise TypeError(
            f"X_target: expected a torch tensor, received {type(X_target).__name__}; "
            f"{'use torch.as_tensor' if hasattr(X_target, 'shape') else remedy_for(X_target)}."
        )
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


def require_vector(loss: TrackedPotential, name: str) -> None:
    """Refuse the method `name` to a potential that is a network."""
    if loss.network is not None:
        raise TypeError(
            f"{name}: expected a loss whose potential is a vector, received one whose potential is "
            "a network, which only follow, dual_step and warm_up train; leave out potential=."
        )


def require_squared_distance(loss: TrackedPotential, name: str, remark: str) -> None:
    """Refuse the method `name` to another metric."""
    if not loss.has_majorants:
        raise ValueError(
            f"{name}: expected a loss with metric 'sqeuclidean', {remark}, received "
            f"{loss.target.cost.name!r}."
        )
