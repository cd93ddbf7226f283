"""Pairs of noise and data for flow matching.

``solving.py`` solves for a ``coupling.py``: a potential for each of the ``groups.py`` of the data, in a
``space.py``. By it an ``assignment.py`` gives data to chunks of noise, drawn by ``streams.py``; a
``loader.py`` cuts them into batches: ``pairs.py``, or ``table.py`` of those in a file. For given data, a
``reservoir.py`` has noise.
"""

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
