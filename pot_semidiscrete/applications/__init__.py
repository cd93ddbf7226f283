"""What else the potential and its gradient are good for, by what the core has."""

from .quantization import Quantization, quantize

__all__ = ["Quantization", "quantize"]
