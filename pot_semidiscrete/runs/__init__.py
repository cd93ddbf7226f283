"""What every long run shares: interruption, progress, and files that are never half written."""

from .files import check_input, check_output, replaced
from .progress import Progress, SemiDiscreteWarning, guarded, say

__all__ = [
    "Progress",
    "SemiDiscreteWarning",
    "check_input",
    "check_output",
    "guarded",
    "replaced",
    "say",
]
