"""A module whose ``state_dict`` has a digest of the data that it belongs to."""

import warnings
from typing import Any

import numpy as np
import torch
from torch import nn

from ..backend import ours
from ..runs import SemiDiscreteWarning


class StateOfData(nn.Module):
    """The base of a potential: it refuses the state of one of other data.

    Parameters
    ----------
    data_digest : str
        Hexadecimal, of the data.
    weights : ndarray, shape (n_atoms,)
    """

    def __init__(self, data_digest: str, weights: np.ndarray) -> None:
        super().__init__()
        self.data_digest = data_digest
        # weights differ by rounding, so that a digest would not do: these moments differ by as little
        self.weight_moments = np.exp(1j * np.arange(len(weights))) @ weights

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
        digest = state_dict.get(name)
        if digest is not None and not self._matches(digest):
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
