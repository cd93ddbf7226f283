"""Measures of how close generated points are to data."""

from .classifier import Classifier, class_shares, entropy
from .judge import Judge
from .neighbors import coverage, precision_recall
from .transport import (
    covariance_ratio,
    frechet_distance,
    nearest_cost,
    semi_dual_value,
    transport_cost,
)

__all__ = [
    "Classifier",
    "Judge",
    "class_shares",
    "covariance_ratio",
    "coverage",
    "entropy",
    "frechet_distance",
    "nearest_cost",
    "precision_recall",
    "semi_dual_value",
    "transport_cost",
]
