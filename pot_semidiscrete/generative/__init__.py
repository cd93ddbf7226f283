"""Generators trained by semi-discrete optimal transport (needs torch).

A loss (``loss.py``) has a potential that follows a generator (``potential.py``), perhaps as a
``network.py``, and data that points are compared with (``compared.py``), perhaps by ``features.py``.
A run (``training.py``, ``trainer.py``), of what was chosen (``choices.py``), goes in ``rounds.py`` down
``descents.py`` or ``energy.py``, beside a ``critic.py``, and is kept by ``checkpoint.py``. What several
processes do together is in ``shared.py``.
"""

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        "pot_semidiscrete.generative needs torch: install it, or pot_semidiscrete[torch]. Without "
        "torch, see pot_semidiscrete.train_parameters."
    ) from error

from .critic import GradientPenaltyCritic
from .data import stack_dataset
from .features import ImageFeatures, random_filters
from .loss import SemiDiscreteLoss
from .models import dcgan_generator, mlp_generator
from .pairs import (
    LabelledPairs,
    Pairs,
    PlanSampler,
    SemiDiscreteCoupling,
    SemiDiscretePairs,
    StoredPairs,
    solve_coupling,
)
from .patches import PatchLoss
from .result import TrainingResult
from .training import train_generator

__all__ = [
    "GradientPenaltyCritic",
    "ImageFeatures",
    "LabelledPairs",
    "Pairs",
    "PatchLoss",
    "PlanSampler",
    "SemiDiscreteCoupling",
    "SemiDiscreteLoss",
    "SemiDiscretePairs",
    "StoredPairs",
    "TrainingResult",
    "dcgan_generator",
    "mlp_generator",
    "random_filters",
    "solve_coupling",
    "stack_dataset",
    "train_generator",
]
