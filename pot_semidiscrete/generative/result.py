"""What a training run reached."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .loss import SemiDiscreteLoss


@dataclass
class TrainingResult:
    """What :func:`train_generator` reached.

    Attributes
    ----------
    generator : torch.nn.Module
        The generator that was given, trained.
    loss : SemiDiscreteLoss
        The loss, with its potential.
    history : dict of ndarray
        ``loss`` (what a step minimises: the semi-dual value, a bound of it, or the cost of pairs) and
        ``seconds`` (since the start) for each step; ``chi2`` (squared relative marginal error, on fresh
        points) at the steps ``chi2_step``.
    status : str
        ``"finished"``, ``"stopped"`` (by the callback), ``"interrupted"``, ``"diverged"`` (the loss
        was not finite; generator and potential are those of step `n_steps`) or ``"failed"``.
    n_steps : int
        Steps of the generator taken.
    """

    generator: torch.nn.Module
    loss: SemiDiscreteLoss
    history: dict[str, np.ndarray] = field(default_factory=dict)
    status: str = "finished"

    def __repr__(self) -> str:
        found = {name: self.history.get(name, np.zeros(0)) for name in ("loss", "chi2")}
        last = [f", {name}={values[-1]:.4g}" for name, values in found.items() if len(values)]
        return f"TrainingResult(status={self.status!r}, n_steps={self.n_steps}{''.join(last)})"

    @property
    def n_steps(self) -> int:
        """Steps of the generator taken."""
        return len(self.history["loss"])

    def plot(self, axes: Sequence[Any] | None = None) -> Sequence[Any]:
        """Draw the loss and the marginal error (needs matplotlib).

        Parameters
        ----------
        axes : pair of matplotlib axes, optional

        Returns
        -------
        pair of matplotlib axes
        """
        from ..plot import plot_history

        return plot_history(self.history, axes)
