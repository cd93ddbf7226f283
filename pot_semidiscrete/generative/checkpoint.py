"""What a training run was, in a file that is read without pickle."""

import math
import os
import pickle
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import torch

from ..backend import describe
from ..problem import fingerprint, same_fingerprint
from ..runs import SemiDiscreteWarning, replaced
from .loss import SemiDiscreteLoss

FORMAT = "pot_semidiscrete training, 5"


class Run(Protocol):
    """What a :class:`Checkpoint` keeps."""

    @property
    def n_steps(self) -> int: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def check_path(path: object) -> str:
    """Check that `path` can be written, before the run rather than in it."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"checkpoint: expected a path, received {describe(path)}.")
    path = os.fsdecode(path)
    folder = os.path.dirname(path) or "."
    if os.path.isdir(path) or not os.path.isdir(folder):
        raise ValueError(f"checkpoint: expected a file in a folder that exists, received {path!r}.")
    return os.path.abspath(path)


def write(path: str, state: dict[str, Any], check: bool = False) -> None:
    """Write a state of tensors, numbers, strings, lists and dicts, whole or not at all.

    With `check`, not at all if it cannot be read without pickle.
    """
    with replaced(path) as file:
        try:
            torch.save({"format": FORMAT} | state, file)
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
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = repr(state["format"] if isinstance(state, dict) else type(state).__name__)
    except OSError:
        raise
    except Exception as error:  # whatever torch says of a file that is none of its own
        found = f"something else ({type(error).__name__})"
    if found != repr(FORMAT):
        raise ValueError(
            f"checkpoint: expected a file of the format {FORMAT!r} at {path!r}, received "
            f"{found}; give another path."
        )
    return state


def problem_of(loss: SemiDiscreteLoss) -> dict[str, Any]:
    """What a checkpoint must agree on about data and potential."""
    target = loss.target
    weights = target.distribute(target.weights)
    return {
        "a_target": weights[weights > 0].cpu().double(),
        "target": torch.as_tensor(fingerprint(target)),
        "metric": target.cost.name,
        "reg": loss.reg,
        "dual_steps": loss.dual_steps,
        "debias": loss.debias,
        "device": target.atoms.device.type,
        "potential": shapes(loss.state_dict()),
    }


def shapes(state: dict[str, Any]) -> dict[str, str]:
    """Shapes and dtypes of the tensors of a state_dict, in words."""
    return {
        name: f"shape {tuple(value.shape)}, {value.dtype}"
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    }


def check_same(path: str, expected: dict[str, Any], received: dict[str, Any]) -> None:
    """Refuse the checkpoint of another problem."""
    for name in received:
        one, other = expected[name], received[name]
        if _agree(name, one, other):
            continue
        remedy = "give the arguments of its run, or another path."
        if isinstance(one, torch.Tensor):
            raise ValueError(
                f"{name}: expected that of the checkpoint {path!r}, received another; {remedy}"
            )
        if isinstance(one, dict):
            entry = next(k for k in [*one, *other] if one.get(k) != other.get(k))
            one, other = (f"{entry!r} of {side.get(entry, 'no kind')}" for side in (one, other))
        raise ValueError(
            f"{name}: expected {one}, as in the checkpoint {path!r}, received {other}; {remedy}"
        )


def _agree(name: str, one: Any, other: Any) -> bool:
    if name == "target":
        return same_fingerprint(one.numpy(), other.numpy())
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
        for name, state in states.items():
            self.start.pop(name, None)  # moved, before this process
            if name == "cpu":
                torch.set_rng_state(state)
            elif torch.cuda.is_available() and int(name[5:]) < torch.cuda.device_count():
                torch.cuda.set_rng_state(state, name)


class Checkpoint:
    """Where a run is kept: what it was, and what it must agree on to be continued.

    Attributes
    ----------
    path : str
    every : int
        Steps from one writing to the next.
    problem : dict
        What the run and a file must agree on.
    n_steps : int or None
        Steps of the run in the file; None if there is no file.
    """

    def __init__(
        self,
        path: str,
        every: int,
        problem: dict[str, Any],
        latent_sampler: Callable[[int], Any],
        callback: Callable[..., Any] | None,
    ) -> None:
        self.path, self.every, self.problem = path, every, problem
        self.n_steps: int | None = None
        self.others = {"latent_sampler": latent_sampler, "callback": callback}
        self.random, self.checked = GlobalRandom(), False

    def load(self, run: Run) -> None:
        """Continue the run of the file, if there is one."""
        if not os.path.exists(self.path):
            return
        state = read(self.path)
        check_same(self.path, state["problem"], self.problem)
        run.load_state_dict(state["run"])
        for name, thing in self.others.items():
            restore(thing, state[name])
        self.random.load_state_dict(state["global_random"])
        self.n_steps = run.n_steps

    def save(self, run: Run) -> None:
        """Write the run as it is."""
        state: dict[str, Any] = {"problem": self.problem, "run": run.state_dict()}
        state |= {name: state_of(thing) for name, thing in self.others.items()}
        write(self.path, state | {"global_random": self.random.state_dict()}, check=not self.checked)
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
