"""Undo a step that met numbers that are not finite."""

import contextlib
import copy
from collections.abc import Iterator, Sequence

import torch

from ..problem import NotFiniteError
from .rounds import Rounds


@contextlib.contextmanager
def rollback_if_not_finite(tensors: Sequence[torch.Tensor], rounds: Rounds) -> Iterator[None]:
    """If points, a value, a gradient or parameters are not finite, undo what the body changed.

    Not undone are the generator's optimiser, which moves last, and the random numbers drawn.

    Parameters
    ----------
    tensors : sequence of tensors
        Parameters and buffers.
    rounds : Rounds
    """
    kept, round_before = [t.detach().clone() for t in tensors], rounds.state_dict()
    # within a round the loss does not change
    loss = copy.deepcopy(rounds.loss.state_dict()) if rounds.is_due else None
    try:
        yield
    except NotFiniteError:
        with torch.no_grad():
            for tensor, good in zip(tensors, kept, strict=True):
                tensor.copy_(good)
        if loss is not None:
            rounds.loss.load_state_dict(loss)
        rounds.load_state_dict(round_before)
        raise


def check_finite(name: str, tensors: Sequence[torch.Tensor]) -> None:
    """Refuse tensors that are not finite."""
    # one check of the sums: finite ones have finite terms, others may be due to overflow
    sums = [t.sum().to(tensors[0].device) for t in tensors]
    if tensors and not (torch.stack(sums).isfinite().all() or all(t.isfinite().all() for t in tensors)):
        raise NotFiniteError(f"{name}: expected finite numbers, received NaN or inf.")
