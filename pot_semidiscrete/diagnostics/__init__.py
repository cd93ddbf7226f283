"""Does the gradient exist?"""

from .gradient import ROUGH, GradientDiagnostics, diagnose, gradient_diagnostics
from .one_sided import OneSidedDerivatives, one_sided_derivatives

__all__ = [
    "ROUGH",
    "GradientDiagnostics",
    "OneSidedDerivatives",
    "diagnose",
    "gradient_diagnostics",
    "one_sided_derivatives",
]
