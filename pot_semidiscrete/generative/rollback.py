"""What is not finite, and the way back to before it was met."""

import contextlib
import copy
from collections.abc import Iterator, Sequence

import torch

from ..problem import NotFiniteError
from .rounds import Rounds


@contextlib.contextmanager
def rollback_if_not_finite(tensors: Sequence[torch.Tensor], rounds: Rounds) -> Iterator[None]:
    """If points, a value, a gradient or parameters are not finite, undo what the body changed.

    All but the generator's optimiser, which moves last, and its random numbers.

    Parameters
    ----------
    tensors : sequence of tensors
        Parameters and buffers.
    rounds : Rounds
    """
    kept, round_before = [t.detach().clone() for t in tensors], rounds.state_dict()
    # within a round the loss stands still
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
    # finite sums have finite terms, and are looked at all at once; one that is not finite may be large
    sums = [t.sum().to(tensors[0].device) for t in tensors]
    if tensors and not (torch.stack(sums).isfinite().all() or all(t.isfinite().all() for t in tensors)):
        raise NotFiniteError(f"{name}: expected finite numbers, received NaN or inf.")
