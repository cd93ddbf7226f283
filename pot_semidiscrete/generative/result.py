"""What a training run reached, and what it writes down step by step."""

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
        ``loss`` (what a step minimises: the semi-dual value, a bound of it, or the cost or the energy
        score of pairs) and ``seconds`` (since the start) for each step; ``chi2`` (squared relative
        marginal error, on fresh points) at the steps ``chi2_step``.
    status : str
        ``"finished"``, ``"stopped"`` (by the callback), ``"interrupted"``, ``"diverged"`` (the loss
        was not finite; generator and potential are those of step `n_steps`) or ``"failed"``. What a
        callback sees is ``"running"``.
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


class Column:
    """A growing array of numbers, whose views never change once they were handed out."""

    def __init__(self, dtype: type = float) -> None:
        self.values: np.ndarray = np.empty(64, dtype)
        self.n = 0

    def append(self, value: float) -> None:
        """Add a number at the end."""
        if self.n == len(self.values):
            self.values = np.concatenate([self.values, np.empty_like(self.values)])
        self.values[self.n] = value
        self.n += 1

    def view(self) -> np.ndarray:
        """The numbers so far, without a copy."""
        return self.values[: self.n]

    def replace(self, values: np.ndarray) -> None:
        """Start again from these."""
        self.values, self.n = np.concatenate([values, np.empty(64, self.values.dtype)]), len(values)


class History:
    """``loss`` and ``seconds`` of each step, and ``chi2`` at the steps ``chi2_step``."""

    def __init__(self) -> None:
        self.loss, self.seconds = Column(), Column()
        self.chi2_step, self.chi2 = Column(int), Column()

    def views(self) -> dict[str, np.ndarray]:
        """Numbers so far by name, without a copy."""
        return {name: column.view() for name, column in vars(self).items()}

    def shown(self, batch_size: int) -> dict[str, float]:
        """Numbers for a progress bar."""
        if not self.loss.n:
            return {}
        facts, found = {"loss": self.loss.view()[-1]}, self.chi2.view()
        if len(found):
            facts["chi2"] = found[-1]
        seconds = max(self.seconds.view()[-1], 1e-9)
        return facts | {"images/s": self.loss.n * batch_size / seconds}

    def state_dict(self) -> dict[str, Any]:
        """Numbers so far by name, as tensors, for a file."""
        return {name: torch.from_numpy(values) for name, values in self.views().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        for name, column in vars(self).items():
            column.replace(state[name].numpy())
