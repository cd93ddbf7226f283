"""Checks of the potential by fresh points of the generator."""

import warnings

import torch

from ..diagnostics import diagnose
from ..inference.chi2 import chi_square
from ..optim.newton import maximize
from ..optim.semi_dual import SemiDual
from ..runs import SemiDiscreteWarning
from .loss import SemiDiscreteLoss


def squared_marginal_error(loss: SemiDiscreteLoss, x: torch.Tensor) -> float:
    """chi2 of the potential, by the points `x` of all ranks, in the coordinates of the atoms."""
    target = loss.shared_target
    measured = SemiDual(target).measure(x, target.gather(loss.potential), loss.reg)
    return chi_square(measured)[0]


def warn_of_boundaries(loss: SemiDiscreteLoss, x: torch.Tensor) -> bool:
    """Warn if mass on cell boundaries, or near them, endangers the gradient; tell whether it does.

    At ``reg = 0``, and a potential that does not lag behind the points: if half of them are ten for each
    atom, it is improved on that half, and diagnosed on the other.
    """
    target, half = loss.target, x[::2]
    potential = target.gather(loss.potential)
    if len(half) * float(target.weights.min()) > 10.0:
        x, potential = x[1::2], maximize(SemiDual(target), half, potential, 0.0).potential
    found = diagnose(target, x, potential, 0.0)
    if found.boundary_reasons:
        warnings.warn(
            f"train_generator, reg = 0: the gradient is {found.verdict}, for "
            f"{'; '.join(found.boundary_reasons)}. A reg of 1% of cost_scale(data) makes it exist.",
            SemiDiscreteWarning,
            stacklevel=5,  # where train_generator was called
        )
    return bool(found.boundary_reasons)
