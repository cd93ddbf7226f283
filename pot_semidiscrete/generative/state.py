"""A module whose ``state_dict`` knows the data that it belongs to."""

import warnings
from typing import Any

import torch
from torch import nn

from ..backend import ours
from ..runs import SemiDiscreteWarning


class StateOfData(nn.Module):
    """The base of a potential: its state is refused by one of other data.

    Parameters
    ----------
    data_digest : str
        Hexadecimal, of the data.
    """

    def __init__(self, data_digest: str) -> None:
        super().__init__()
        self.data_digest = data_digest

    @ours()
    def get_extra_state(self) -> torch.Tensor:
        """Digest of the data, as bytes: a tensor, as all that is in a ``state_dict`` mostly is."""
        return torch.tensor(list(bytes.fromhex(self.data_digest)), dtype=torch.uint8, device="cpu")

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Nothing: it was compared before anything was taken."""

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any, **options: Any
    ) -> None:
        name, potential = f"{prefix}_extra_state", state_dict.get(f"{prefix}potential")
        if name not in state_dict and potential is not None:
            state_dict[name] = self.get_extra_state()
            warnings.warn(
                "state_dict: it was written by version 0.1.0, which kept nothing of the data of a "
                "potential; whether it is of these cannot be told.",
                SemiDiscreteWarning,
                stacklevel=3,
            )
        digest = state_dict.get(name)
        if digest is not None and not self._is_of_these(digest):
            raise ValueError(
                "state_dict: expected the potential of these data, in the same order and of the same "
                "values in single precision, received that of others; give the loss the data of its run."
            )
        if isinstance(potential, torch.Tensor) and not bool(torch.isfinite(potential).all()):
            raise ValueError("state_dict: expected a finite potential, received NaN or inf.")
        super()._load_from_state_dict(state_dict, prefix, *arguments, **options)

    def _is_of_these(self, digest: Any) -> bool:
        return isinstance(digest, torch.Tensor) and torch.equal(digest.cpu(), self.get_extra_state())
