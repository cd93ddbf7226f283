"""A run of the solver, of a problem that was checked."""

from .options import Options
from .run import solve_problem
from .stacked import can_stack, solve_stacked

__all__ = ["Options", "can_stack", "solve_problem", "solve_stacked"]
