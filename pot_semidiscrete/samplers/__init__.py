"""Where source points come from, and where randomness does."""

from . import laws  # registers them
from .base import Law, Sampler, register_law
from .sobol import SobolSampler

__all__ = ["Law", "Sampler", "SobolSampler", "register_law"]

del laws
