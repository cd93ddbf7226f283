"""Pairs of noise and data for flow matching."""

from .coupling import SemiDiscreteCoupling
from .loader import LabelledPairs, Pairs
from .pairs import SemiDiscretePairs
from .plan_sampler import PlanSampler
from .solving import solve_coupling
from .table import StoredPairs

__all__ = [
    "LabelledPairs",
    "Pairs",
    "PlanSampler",
    "SemiDiscreteCoupling",
    "SemiDiscretePairs",
    "StoredPairs",
    "solve_coupling",
]
