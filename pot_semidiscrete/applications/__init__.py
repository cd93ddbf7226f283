"""What else the potential and its gradient are good for, by what the core has."""

from .barycenters import Barycenter, barycenter
from .errors import ErrorBars
from .quantization import Quantization, quantize
from .ranks import CenterOutwardRanks

__all__ = [
    "Barycenter",
    "CenterOutwardRanks",
    "ErrorBars",
    "Quantization",
    "barycenter",
    "quantize",
]
