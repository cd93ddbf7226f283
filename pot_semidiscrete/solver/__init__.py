"""A run of the solver, of a problem that was checked."""

from .options import Options
from .run import solve_problem

__all__ = ["Options", "solve_problem"]
