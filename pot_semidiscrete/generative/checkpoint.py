"""What a training run was, in a file that is read without pickle."""

import math
import os
import pickle
import re
import warnings
from collections.abc import Callable
from typing import Any

import torch

from ..backend import describe
from ..problem import projection, same_costs, same_projection, sample_costs
from ..runs import SemiDiscreteWarning, check_input, replaced
from ..runs.archive import check_archive
from .fsdp import full_tensors
from .loss import SemiDiscreteLoss
from .rounds import NEW_ROUND

FORMATS = ["pot_semidiscrete training, 5", "pot_semidiscrete training, 6"]  # 5: of version 0.1.0
ENTRIES = {
    "problem": False,
    "run": False,
    "global_random": False,
    "latent_sampler": True,
    "callback": True,
}
"""States in a file, and whether one may be None."""
OF_RANKS: dict[str, Any] = {
    "latent_sampler": None,
    "global_random": {},
    "run.round": NEW_ROUND,
    "run.critic.random": None,
}
"""What each rank has of its own in a state, and what a rank begins with that was not there."""


def _entry(state: dict[str, Any], path: str) -> Any:
    """What a state has at a path, ``"run.round"`` say; None if it does not go so far."""
    found: Any = state
    for name in path.split("."):
        found = None if found is None else found.get(name)
    return found


def _with_entry(state: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The state with another value at a path, if it goes so far."""
    name, _, rest = path.partition(".")
    if rest and state.get(name) is None:
        return state
    return state | {name: _with_entry(state[name], rest, value) if rest else value}


def _state_of_rank(state: dict[str, Any], ranks: Any) -> dict[str, Any]:
    """State of a rank, of that of all; of another number of ranks, one that begins a new round."""
    rank, size = (0, 1) if ranks is None else (ranks.rank, ranks.size)
    others = state.get("other_ranks", [])
    own: dict[str, Any] = {}
    if rank > 0:
        own = others[rank - 1] if rank <= len(others) else OF_RANKS
    if size != 1 + len(others):
        peak = _entry(state, "run.round.descent.peak")  # whether the rate has fallen, of all ranks
        own = own | {"run.round": NEW_ROUND | ({} if peak is None else {"descent": {"peak": peak}})}
    for path, value in own.items():
        state = _with_entry(state, path, value)
    return state


def write(path: str, state: dict[str, Any], check: bool = False) -> None:
    """Write a state of tensors, numbers, strings, lists and dicts, whole or not at all.

    With `check`, not at all if it cannot be read without pickle.
    """
    with replaced(path) as file:
        try:
            torch.save({"format": FORMATS[-1]} | state, file)
            if check:
                file.flush()
                torch.load(file.name, map_location="cpu", weights_only=True)
        except (pickle.PickleError, AttributeError, TypeError) as error:
            raise TypeError(
                "checkpoint: expected states of generator, optimizer, latent_sampler and callback, and "
                "latent points, made of tensors, numbers, strings, lists and dicts, received others: "
                f"{error}"
            ) from error


def read(path: str) -> dict[str, Any]:
    """State that :func:`write` wrote to `path`."""
    path = check_input("checkpoint", path)
    try:
        check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = _what_is_wrong(state)
    except OSError:
        raise
    except Exception as error:  # whatever torch says of a file that is none of its own
        found = f"something else ({type(error).__name__}: {error})"
    if found is not None:
        raise ValueError(
            f"checkpoint: expected a file of the format {FORMATS[-1]!r} at {path!r}, received "
            f"{found}; give another path."
        )
    if state["format"] != FORMATS[-1]:
        warnings.warn(
            f"checkpoint: {path!r} was written by version 0.1.0, which kept too little of the data to "
            "tell them from all others.",
            SemiDiscreteWarning,
            stacklevel=2,
        )
    return state


def _what_is_wrong(state: Any) -> str | None:
    """What a file has that is not the state of a run; None if it is one."""
    if not isinstance(state, dict):
        return type(state).__name__
    if state.get("format") not in FORMATS:
        return repr(state.get("format"))
    for name, is_optional in ENTRIES.items():
        found = state.get(name, "not there")
        if not isinstance(found, dict) and not (is_optional and found is None):
            return f"{name} {describe(found)}"
    return None


def problem_of(loss: SemiDiscreteLoss) -> dict[str, Any]:
    """What a checkpoint must agree on about data and potential."""
    target = loss.target
    weights = target.distribute(target.weights)
    return {
        "a_target": weights[weights > 0].cpu().double(),
        "target": torch.from_numpy(projection(target)),
        "data": loss.data_digest,
        "metric": target.cost.name,
        "costs": torch.from_numpy(sample_costs(target)),
        "reg": loss.reg,
        "reg_m": loss.reg_m,
        "debias": loss.debias,
        "device": target.weights.device.type,
        "potential": shapes(loss.state_dict()),
    }


def shapes(state: dict[str, Any]) -> dict[str, str]:
    """Shapes and dtypes of the tensors of a state_dict, in words; extra states are of any kind."""
    return {
        name: f"shape {tuple(value.shape)}, {value.dtype}"
        for name, value in state.items()
        if isinstance(value, torch.Tensor) and not name.endswith("_extra_state")
    }


def check_same(path: str, expected: dict[str, Any], received: dict[str, Any]) -> None:
    """Refuse the checkpoint of another problem."""
    missing = sorted(received.keys() - expected.keys())
    if missing:
        raise ValueError(
            f"checkpoint: expected {missing} in the problem of {path!r}, received none; give another "
            "path."
        )
    for name in received:
        one, other = expected[name], received[name]
        if _agree(name, one, other):
            continue
        name = "pair_cost" if name == "descent" else name  # the argument that it follows from
        remedy = "give the arguments of its run, or another path."
        if isinstance(one, torch.Tensor):
            raise ValueError(
                f"{name}: expected that of the checkpoint {path!r}, received another; {remedy}"
            )
        if isinstance(one, dict):
            entry = next(k for k in [*one, *other] if one.get(k) != other.get(k))
            one, other = (f"{entry!r} of {side.get(entry, 'no kind')}" for side in (one, other))
        if name == "optimizer":
            one, other = _without_common(one, other)
        raise ValueError(
            f"{name}: expected {one}, as in the checkpoint {path!r}, received {other}; {remedy}"
        )


def _without_common(*descriptions: str) -> list[str]:
    """Descriptions of optimisers, less the options that they share if they are of one kind."""
    kinds = [text.partition("(")[0] for text in descriptions]
    if len(set(kinds)) > 1:
        return kinds
    options = [
        re.split(r", (?=\w+=)", text.partition("(")[2].rpartition(")")[0]) for text in descriptions
    ]
    common, falls = set.intersection(*map(set, options)), " that falls"
    return [
        f"{kind}({', '.join(v for v in values if v not in common)}){falls * text.endswith(falls)}"
        for kind, values, text in zip(kinds, options, descriptions, strict=True)
    ]


def _agree(name: str, one: Any, other: Any) -> bool:
    """Whether two values of an entry of a problem are the same, to rounding."""
    if name == "target":
        return same_projection(one.numpy(), other.numpy())
    if name == "costs":
        return same_costs(one.numpy(), other.numpy())
    if name == "a_target":  # of other atoms, if there are more or fewer
        return one.shape != other.shape or torch.allclose(one, other, rtol=1e-4, atol=0.0)
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=1e-4)
    return one == other


def is_stateful(thing: object) -> bool:
    """Tell whether `thing` can be asked for its state, and be given one."""
    return hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict")


def state_of(thing: Any) -> dict[str, Any] | None:
    """State of what has one, else None."""
    return thing.state_dict() if is_stateful(thing) else None


def restore(thing: Any, state: dict[str, Any] | None) -> None:
    """Give `thing` a state that it had."""
    if state is not None and is_stateful(thing):
        thing.load_state_dict(state)


class GlobalRandom:
    """torch's generators that all code shares: those that a run moved, and only those."""

    def __init__(self) -> None:
        self.start = self.states()

    @staticmethod
    def states() -> dict[str, torch.Tensor]:
        """Where all of them are."""
        states = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_initialized():
            states |= {f"cuda:{k}": s for k, s in enumerate(torch.cuda.get_rng_state_all())}
        return states

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Where those are that have moved."""
        return {
            name: state
            for name, state in self.states().items()
            if name not in self.start or not torch.equal(state, self.start[name])
        }

    def load_state_dict(self, states: dict[str, torch.Tensor]) -> None:
        """Go on from there."""
        if not all(name == "cpu" or name.startswith("cuda:") for name in states):
            raise TypeError(f"expected states of generators, received {sorted(states)}")
        for name, state in states.items():
            self.start.pop(name, None)  # moved, before this process
            if name == "cpu":
                torch.set_rng_state(state)
            elif torch.cuda.is_available() and int(name[5:]) < torch.cuda.device_count():
                torch.cuda.set_rng_state(state, name)


class Checkpoint:
    """A file in which a run is kept, every so many steps.

    The run is a :class:`Trainer`. `problem` is what it and the file must agree on; `others` have a
    state beside it: ``latent_sampler`` and ``callback``.
    """

    def __init__(
        self,
        path: str,
        every: int,
        problem: dict[str, Any],
        others: dict[str, Any],
        ranks: Any = None,
    ) -> None:
        self.path, self.every, self.problem = path, every, problem
        self.others, self.ranks = others, ranks
        self.n_steps: int | None = None  # of the run in the file, if there is one
        self.random, self.checked = GlobalRandom(), False

    def load(self, run: Any) -> None:
        """Continue the run of the file, if there is one."""
        is_first = self.ranks is None or self.ranks.rank == 0
        state = read(self.path) if is_first and os.path.exists(self.path) else None
        state = state if self.ranks is None else self.ranks.first_object(state)
        if state is None:
            return
        state["problem"].setdefault("reg_m", math.inf)  # an older file has none
        known = self.problem
        of_pair = "dimension tuple"  # what an older file has of a name and a dimension
        if state["problem"].get("latent_sampler") == of_pair and " and " in known["latent_sampler"]:
            known = known | {"latent_sampler": of_pair}
        if state["format"] == FORMATS[0]:  # which has less
            known = {
                name: known[name] for name in known if name not in ("data", "costs", "descent", "critic")
            }
        check_same(self.path, state["problem"], known)
        if is_stateful(self.others["latent_sampler"]) and state["latent_sampler"] is None:
            raise ValueError(
                f"checkpoint: expected the state of latent_sampler in {self.path!r}, received none; "
                "give another path."
            )
        try:
            state = _state_of_rank(state, self.ranks)
            run.load_state_dict(state["run"])
            for name, thing in self.others.items():
                restore(thing, state[name])
            self.random.load_state_dict(state["global_random"])
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError) as error:
            raise ValueError(
                f"checkpoint: expected the states of a run in {self.path!r}, received others "
                f"({type(error).__name__}: {error}); give another path."
            ) from error
        self.n_steps = run.n_steps

    def save(self, run: Any) -> None:
        """Write the run as it is."""
        state: dict[str, Any] = {"problem": self.problem, "run": full_tensors(run.state_dict())}
        state |= {name: state_of(thing) for name, thing in self.others.items()}
        state |= {"global_random": self.random.state_dict()}
        if self.ranks is not None:
            own = {path: _entry(state, path) for path in OF_RANKS}
            state["other_ranks"] = self.ranks.objects(own)[1:]
        if self.ranks is None or self.ranks.rank == 0:
            write(self.path, state, check=not self.checked)
        self.checked, self.n_steps = True, run.n_steps

    def watched(self, sampler: Callable[[int], Any]) -> Callable[[int], Any]:
        """`sampler`, with a warning if its random numbers come from where nobody can look."""
        if is_stateful(sampler):
            return sampler
        is_first = True

        def draw(n: int) -> Any:
            nonlocal is_first
            if not is_first:
                return sampler(n)
            random, z = GlobalRandom(), sampler(n)
            is_first = False
            if not random.state_dict():
                warnings.warn(
                    "latent_sampler: it has no state_dict and leaves torch's global generator alone. If "
                    "it draws from a state of its own, a run that is continued will not be the one that "
                    "was interrupted: give it state_dict and load_state_dict.",
                    SemiDiscreteWarning,
                    stacklevel=2,
                )
            return z

        return draw
