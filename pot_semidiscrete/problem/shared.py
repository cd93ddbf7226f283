"""A target that several processes work at, each with a part of the source points."""

from dataclasses import dataclass, fields
from typing import Any

from ..backend import Array
from .fingerprints import digest
from .problem import Problem
from .target import Target


@dataclass(frozen=True, eq=False)
class SharedTarget(Target):
    """A target whose reductions are done by the ranks of a process group together."""

    ranks: Any = None  # a copy has none: it is the target of one process

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"ranks": None}

    @classmethod
    def of(cls, target: Target, ranks: Any) -> "SharedTarget":
        """The target, shared by the ranks."""
        return cls(**{field.name: getattr(target, field.name) for field in fields(Target)}, ranks=ranks)


def unshared(target: Target) -> Target:
    """The target of what this process does alone; if it is sharded, all ranks at the same points."""
    return target if target.shard is not None else of_own_points(target)


def of_own_points(target: Target) -> Target:
    """The target without its ranks: each process asks for its own points, alone or with the others."""
    if not isinstance(target, SharedTarget):
        return target
    return Target(**{field.name: getattr(target, field.name) for field in fields(Target)})


def shared(problem: Problem, ranks: Any, init_potential: Array | None = None, **options: Any) -> Problem:
    """The problem of all ranks, who must agree on it and on the options of the run; None is one process.

    Options that are objects are compared by their class.
    """
    if ranks is None:
        return problem
    target, nx = problem.target, problem.nx
    arguments = {
        "X_target": target.digest,
        "a_target": digest(target.weights[:, None], nx),
        "metric": target.cost.name,
        "reg": problem.reg,
        "reg_m": target.reg_m,
        "init_potential": None if init_potential is None else digest(init_potential[:, None], nx),
    }
    plain = (bool, int, float, str, type(None))
    options = {name: v if isinstance(v, plain) else type(v).__name__ for name, v in options.items()}
    ranks.check_same(**arguments, **options)
    return Problem(SharedTarget.of(target, ranks), problem.reg)
