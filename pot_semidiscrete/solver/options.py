"""The options of a run."""

from dataclasses import dataclass
from typing import Any

from ..optim.stopping import StoppingRule, check_tol
from ..problem import check_count, check_real


@dataclass(frozen=True)
class Options:
    """How a run is made; see :func:`pot_semidiscrete.solve_semidiscrete`."""

    tol: float | StoppingRule = 0.1
    max_iter: int = 10_000
    batch_size: int = 256
    max_memory: int = 2**28
    sample_cost: float = 0.0
    tol_value: float = 0.0

    @classmethod
    def checked(cls, tol: Any, max_iter: Any, batch_size: Any, **options: Any) -> "Options":
        """Options of the user."""
        max_memory = options.pop("max_memory", cls.max_memory)
        return cls(
            check_tol(tol),
            check_count("max_iter", max_iter),
            check_count("batch_size", batch_size),
            check_count("max_memory", max_memory, minimum=0),
            **{name: check_real(name, value) for name, value in options.items()},
        )
