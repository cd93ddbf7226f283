"""What else the potential and its gradient are good for, by what the core has."""

from .barycenters import BarycenterResult, barycenter
from .errors import ErrorBars
from .quantization import QuantizationResult, quantize
from .ranks import CenterOutwardRanks

__all__ = [
    "BarycenterResult",
    "CenterOutwardRanks",
    "ErrorBars",
    "QuantizationResult",
    "barycenter",
    "quantize",
]
