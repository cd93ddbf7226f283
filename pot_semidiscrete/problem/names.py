"""What takes the place of options of POT's solvers, for those who come from there."""

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_INSTEAD = {
    **dict.fromkeys(
        ("lr0", "lr_exponent", "max_cost"), "steps are in units of the problem; leave it out"
    ),
    **dict.fromkeys(
        ("decreasing_reg", "decreasing_reg_initial_eps", "decreasing_reg_exponent"),
        "the regularisation always falls to reg, from a cost that is measured; leave it out",
    ),
    "polyak_average": "iterates are always averaged; leave it out",
    "log": "the history is the attribute log of the result; leave it out",
    "numItermax": "use max_iter",
    "stopThr": "use tol, a relative error of the masses",
    "warmstart": "use init_potential",
    "b": "use a_target, the weights of the atoms",
    **dict.fromkeys(("seed", "random_seed", "rng"), "use random_state"),
    **dict.fromkeys(("epsilon", "eps"), "the regularisation is reg"),
    **dict.fromkeys(("device", "dtype"), "the run has those of X_target; convert it"),
    "weights": "use a_target, the weights of the atoms",
    "a": "the source is sampler_source; weights of the atoms are a_target",
    "M": "the cost is metric; use X_target and sampler_source",
}


def named_options(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Say of an option of POT's what takes its place, and of one without a name that it needs one."""
    kinds = {name: p.kind for name, p in inspect.signature(function).parameters.items()}
    by_place = [name for name, kind in kinds.items() if kind is not inspect.Parameter.KEYWORD_ONLY]
    by_name = [name for name in kinds if name not in by_place]

    @functools.wraps(function)
    def checked(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        if len(args) > len(by_place):
            raise TypeError(
                f"{function.__name__}: expected at most {len(by_place)} arguments without a name "
                f"({', '.join(by_place)}), received {len(args)}; give the others by name: "
                f"{', '.join(by_name)}."
            )
        for name in kwargs:
            if name not in kinds:
                remedy = _INSTEAD.get(name, f"the options are {', '.join(by_name)}")
                raise TypeError(
                    f"{function.__name__}: expected no option {name!r}, received it; {remedy}."
                )
        return function(*args, **kwargs)

    return checked
