"""The potential as a network of the atoms."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import nn

from ..backend import describe
from ..problem import NotFiniteError
from .optimizers import MakeOptimizer, load_optimizer, resolve_optimizer


class NetworkPotential(nn.Module):
    """A potential ``psi_j = module(y_j)`` of the atoms `points`, with the optimiser that trains it."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer | MakeOptimizer | None,
        points: torch.Tensor,
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"potential: expected a torch.nn.Module of the atoms, received {describe(module)}; for "
                "a vector leave it out, and start it with fit(..., init_potential=...)."
            )
        self.module, self.points = module, points.detach()
        self.optimizer = resolve_optimizer(
            "potential_optimizer", optimizer, module, "potential", torch.optim.Adam
        )

    def forward(self) -> torch.Tensor:
        """Potential of each atom, shape (n_support,)."""
        psi = self.module(self.points)
        n = len(self.points)
        if not isinstance(psi, torch.Tensor) or psi.shape not in ((n,), (n, 1)):
            raise ValueError(
                f"potential: expected a module that returns shape ({n},) or ({n}, 1), one number for "
                f"each atom, received {describe(psi)}."
            )
        return psi.reshape(n).to(self.points.dtype)

    def ascend(self, value_at: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """One step of the optimiser up the semi-dual, ``psi -> value``, of gradient ``b - m``."""

        @torch.enable_grad()
        def closure() -> Any:
            self.module.zero_grad()
            value = value_at(self())
            if not torch.isfinite(value):
                raise NotFiniteError(
                    "potential: expected finite numbers of the module, received NaN or inf."
                )
            (-value).backward()
            return -value

        self.optimizer.step(closure)
        self.module.zero_grad()

    def get_extra_state(self) -> dict[str, Any]:
        """State of the optimiser, which ``state_dict`` holds beside the parameters."""
        return self.optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on with an optimiser that had this state."""
        load_optimizer(self.optimizer, state)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        self.points = fn(self.points)
        super()._apply(fn, recurse)
        load_optimizer(self.optimizer, self.optimizer.state_dict())  # moves it to the parameters' device
        return self
