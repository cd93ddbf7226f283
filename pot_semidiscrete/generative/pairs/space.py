"""Where noise and data are compared: all coordinates, some of them, or features; and conditions."""

import functools
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from ...backend import describe, guest
from ...problem import check_points

Projection: TypeAlias = torch.Tensor | Callable[[torch.Tensor], torch.Tensor] | None


def check_projection(projection: Any, like: torch.Tensor) -> Projection:
    """Check a projection; a matrix gets the dtype and device of `like`."""
    if isinstance(projection, torch.Tensor):
        return check_points("projection", projection.detach().to(like))[0]
    if projection is None or callable(projection):
        return projection
    raise TypeError(f"projection: expected a tensor or a callable, received {describe(projection)}.")


class PairingSpace:
    """Coordinates in which noise, of samples of some shape, and data are paired.

    A projection from noise to points is a matrix, for flattened noise, or a callable, for noise of its
    shape. `condition_weight` is that of the squared distance of conditions beside that of points.
    """

    def __init__(
        self, shape: tuple[int, ...], projection: Projection = None, condition_weight: float = 0.0
    ) -> None:
        self.shape, self.projection, self.condition_weight = shape, projection, condition_weight
        self._map = guest(projection) if callable(projection) else projection

    @property
    def dimension(self) -> int:
        """Of the noise."""
        return math.prod(self.shape)

    @property
    def matrix(self) -> torch.Tensor:
        """The projection, where it is a matrix."""
        assert isinstance(self.projection, torch.Tensor)
        return self.projection

    @functools.cached_property
    def is_orthogonal(self) -> bool:
        """Whether the projection is a matrix of orthonormal columns, fewer than rows."""
        v = self.projection
        if not isinstance(v, torch.Tensor) or v.shape[1] >= v.shape[0]:
            return False
        return torch.allclose(v.T @ v, torch.eye(v.shape[1], dtype=v.dtype, device=v.device), atol=1e-4)

    def points(self, noise: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        """Points of noise samples, ``(n, d)``, and of their conditions."""
        points = noise
        if isinstance(self._map, torch.Tensor):
            points = noise @ self._map
        elif self._map is not None:
            points = self._mapped(self._map, noise)
        return points if condition is None else self.joined(points, condition)

    @torch.no_grad()
    def _mapped(self, function: Callable, noise: torch.Tensor) -> torch.Tensor:
        """Points of a callable projection, computed in parts."""
        found = []
        for part in noise.split(512):
            x = function(part.reshape(-1, *self.shape))
            if not isinstance(x, torch.Tensor) or x.ndim == 0 or len(x) != len(part):
                raise ValueError(
                    f"projection: expected a function to a tensor of {len(part)} rows, as it was given, "
                    f"received {describe(x)}."
                )
            found.append(x.reshape(len(x), -1))
        return torch.cat(found)

    def joined(self, points: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Points beside scaled conditions, (n, k + m), whose squared distances are the costs."""
        return torch.cat([points, math.sqrt(self.condition_weight) * condition], dim=1)

    def refreshed(self, points: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
        """Noise that is fresh out of the space of an orthogonal projection, and `points` in it."""
        v = self.matrix
        return fresh + (points - fresh @ v) @ v.T

    def to(self, like: torch.Tensor) -> "PairingSpace":
        """The same, a matrix in the dtype and on the device of `like`."""
        v = self.projection
        v = v.to(like) if isinstance(v, torch.Tensor) else v
        return PairingSpace(self.shape, v, self.condition_weight)
