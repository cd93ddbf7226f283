"""Semi-discrete optimal transport beside POT, and generators trained by it."""

from .diagnostics import (
    GradientDiagnostics,
    OneSidedDerivatives,
    gradient_diagnostics,
    one_sided_derivatives,
)
from .functional import (
    cost_scale,
    semidiscrete_atom_weights,
    semidiscrete_c_transform,
    semidiscrete_gradient,
    semidiscrete_loss,
    semidiscrete_ot_map,
)
from .generators import ParameterResult, generator_gradient, train_parameters
from .problem import ShardedAtoms, StoredAtoms
from .result import SemiDiscreteResult, SolverState
from .runs import SemiDiscreteWarning
from .solve import solve_semidiscrete

__version__ = "0.2.0"

__all__ = [
    "GradientDiagnostics",
    "OneSidedDerivatives",
    "ParameterResult",
    "SemiDiscreteResult",
    "SemiDiscreteWarning",
    "ShardedAtoms",
    "SolverState",
    "StoredAtoms",
    "cost_scale",
    "generator_gradient",
    "gradient_diagnostics",
    "one_sided_derivatives",
    "semidiscrete_atom_weights",
    "semidiscrete_c_transform",
    "semidiscrete_gradient",
    "semidiscrete_loss",
    "semidiscrete_ot_map",
    "solve_semidiscrete",
    "train_parameters",
]
