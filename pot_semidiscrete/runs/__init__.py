"""What every long run shares: interruption, progress, and files that are never half written."""

from .files import replaced
from .progress import Progress, SemiDiscreteWarning, guarded

__all__ = ["Progress", "SemiDiscreteWarning", "guarded", "replaced"]
