"""One training run: steps of the generator, the potential with them, and what is written down."""

import contextlib
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import torch

from ..backend import describe, guest, says_stop, uninterrupted
from ..diagnostics import diagnose
from ..inference.chi2 import chi_square
from ..optim.newton import maximize
from ..optim.semi_dual import SemiDual
from ..runs import Progress, SemiDiscreteWarning
from .checkpoint import Checkpoint, problem_of, restore, shapes, state_of
from .choices import Parts
from .compared import check_shape, in_dtype
from .critic import facts_of, guided, tensors_of
from .data import check_finite
from .descents import PointCost
from .fsdp import resharded, sharded_like
from .loss import SemiDiscreteLoss
from .optimizers import (
    describe_optimizer,
    load_optimizer,
    note_rates,
    parameters_of,
    relative_rate,
    set_relative_rate,
)
from .result import History, TrainingResult
from .rounds import Rounds, rollback_if_not_finite
from .shared import (
    all_points,
    average_gradients,
    averages_gradients,
    mean_of_ranks,
    part_of_batch,
    start_alike,
    unwrapped,
)

Callback: TypeAlias = Callable[[TrainingResult], Any]


class Trainer:
    """One run: generator, loss, optimiser and the schedule of its rate, rounds, history.

    Of a batch each rank of the loss has an equal part.
    """

    def __init__(
        self,
        generator: Any,
        latent_sampler: Callable[[int], Any],
        parts: Parts,
        optimizer: torch.optim.Optimizer,
        schedule: Callable[[int], float] | None,
    ) -> None:
        self.generator, self.latent_sampler, self.loss = generator, latent_sampler, parts.loss
        self.optimizer, self.schedule, self.batch_size = optimizer, schedule, parts.batch_size
        self.rounds = Rounds(generator, self.latent, self.loss, parts.reuse, parts.descent)
        self.critic, self.history = parts.critic, History()
        self.status, self.start, self.begun = "finished", time.perf_counter(), False
        self.module, self.ranks, self.warned = unwrapped(generator), self.loss.ranks, False
        self.share = part_of_batch(self.batch_size, self.ranks)
        self.averages = self.ranks is None or averages_gradients(generator, parameters_of(optimizer))
        if not self.averages:
            start_alike(self.ranks, self.tensors())
        if self.critic is not None or self.rounds.descent.follows_rate:
            note_rates(optimizer)
        if self.critic is not None:
            self.critic.ranks = self.ranks
            start_alike(self.ranks, tensors_of(self.critic))

    @property
    def n_steps(self) -> int:
        """Steps of the generator taken."""
        return self.history.loss.n

    def latent(self) -> Any:
        """Fresh latent points."""
        return guest(self.latent_sampler)(self.share)

    @torch.no_grad()
    def points(self, n: int | None = None) -> torch.Tensor:
        """Fresh points, `n` if latent ones are rows, in the generator's mode, without a graph."""
        z = self.latent()
        z = z[:n] if isinstance(z, torch.Tensor) and z.ndim > 0 else z
        return check_shape("generator(z)", made(self.generator, z), self.loss.shape)

    def run(
        self, n_steps: int, callback: Callback | None, bar: Progress, checkpoint: Checkpoint | None
    ) -> None:
        """Iterate until the callback or `n_steps` says stop."""
        evaluate_every = max(1, n_steps // 50)
        if callback is not None:
            callback = guest(callback)
            callback = callback if self.ranks is None else self.ranks.agreed(callback)
        if self.loss.n_steps == 0:
            self.loss.warm_up(self.points)
        for k in range(self.n_steps + 1, n_steps + 1):
            # where all ranks take part, in what the generator exchanges, too
            with contextlib.nullcontext() if self.ranks is None else uninterrupted():
                self.step()
                if k % evaluate_every == 0 or k == n_steps:
                    self.evaluate()
            bar.update(self.progress)
            stop = callback is not None and says_stop(callback(self.result("running")))
            # after the callback: what it changes, a learning rate say, is part of the step
            if checkpoint is not None and (k % checkpoint.every == 0 or k == n_steps or stop):
                checkpoint.save(self)
            if stop:
                self.status = "stopped"
                return

    def step(self) -> None:
        """Follow with the potential if a round begins, then move the generator.

        Raises NotFiniteError, all being as after the step before, if the generator's points, their
        value, its gradient or what the optimiser made of it are not finite.
        """
        values: list[torch.Tensor] = []
        with self.rollback():
            if self.schedule is not None:
                set_relative_rate(self.optimizer, self.schedule(self.n_steps))
            z, value_at = self.rounds.next(lambda: relative_rate(self.optimizer))
            self.optimizer.step(lambda: self.differentiate(z, value_at, values))
            torch.clear_autocast_cache()  # or a caller's autocast would go on with the old weights
            check_finite("parameters", parameters_of(self.optimizer))
            if self.critic is not None:  # at fresh points: those of a round are drawn to their data
                self.critic.step(self.points(self.critic.batch_size), relative_rate(self.optimizer))
                check_finite("critic", parameters_of(self.critic.optimizer))
        self.history.loss.append(float(values[0]))
        self.history.seconds.append(time.perf_counter() - self.start)

    @torch.enable_grad()
    def differentiate(self, z: Any, value_at: PointCost, values: list[torch.Tensor]) -> Any:
        """Value of a batch, noted in `values`, and its gradient: the closure of an optimiser."""
        torch.clear_autocast_cache()
        x = in_dtype(guest(self.generator)(z), self.loss.target.weights.dtype)
        value = value_at(x) if self.critic is None else guided(self.critic, value_at, x)
        if not value.requires_grad:
            raise TypeError(
                "generator: expected points that torch can differentiate in the parameters, received "
                "points cut from the graph; use neither detach nor numpy inside it."
            )
        noted = mean_of_ranks(self.ranks, value.detach())
        self.optimizer.zero_grad()
        if self.ranks is not None:  # before gradients are averaged, which all ranks take part in
            check_finite("loss", [noted])
        value.backward()
        if not self.averages:
            average_gradients(self.ranks, parameters_of(self.optimizer))
        check_finite("loss", [noted])
        self.begun = True
        gradients = [p.grad for p in parameters_of(self.optimizer) if p.grad is not None]
        check_finite("gradient", gradients)
        values.append(noted)
        return value if self.ranks is None else noted

    def tensors(self) -> list[torch.Tensor]:
        """Parameters, and buffers of the generator."""
        buffers = self.module.buffers() if isinstance(self.module, torch.nn.Module) else ()
        return [*parameters_of(self.optimizer), *buffers]

    def rollback(self) -> AbstractContextManager:
        """Context that undoes what its body changed, if what it met is not finite."""
        return rollback_if_not_finite([*self.tensors(), *tensors_of(self.critic)], self.rounds)

    def evaluate(self) -> None:
        """Measure the marginal error on five batches of fresh points."""
        with self.rollback():
            x = all_points(self.ranks, torch.cat([self.loss.local(self.points()) for _ in range(5)]))
        history, target = self.history, self.loss._shared_target
        history.chi2_step.append(self.n_steps)
        measured = SemiDual(target).measure(x, target.gather(self.loss.potential), self.loss.reg)
        history.chi2.append(chi_square(measured)[0])
        # a diagnosis takes longer than an evaluation: at the 1st, 2nd, 4th, 8th, ...
        is_power_of_two = history.chi2.n & (history.chi2.n - 1) == 0
        can_diagnose = self.loss.target.shard is None  # it takes the costs of all atoms at once
        if self.loss.reg == 0 and not self.warned and is_power_of_two and can_diagnose:
            self.warned = warn_of_boundaries(self.loss, x)

    def progress(self) -> dict[str, float]:
        """Numbers to show."""
        return self.history.shown(self.batch_size)

    def result(self, status: str | None = None) -> TrainingResult:
        """What was reached."""
        return TrainingResult(self.generator, self.loss, self.history.views(), status or self.status)

    def problem(self) -> dict[str, Any]:
        """What a checkpoint must agree on."""
        parameters = {f"parameter {k}": p for k, p in enumerate(parameters_of(self.optimizer))}
        return problem_of(self.loss) | {
            "batch_size": self.batch_size,
            "reuse": self.rounds.reuse,
            "critic": facts_of(self.critic),
            "descent": repr(self.rounds.descent),
            "dual_steps": self.loss.dual_steps,  # after what their defaults depend on
            "generator": shapes((state_of(self.module) or {}) | parameters),
            "optimizer": describe_optimizer(self.optimizer) + (" that falls" if self.schedule else ""),
        }

    def state_dict(self) -> dict[str, Any]:
        """All that the rest of the run depends on, but for what a :class:`Checkpoint` adds."""
        module, parameters = resharded(self.module), parameters_of(self.optimizer)
        own, buffers = state_of(module) or {}, {}
        if isinstance(module, torch.nn.Module):
            buffers = {name: b for name, b in module.named_buffers() if name not in own}
            inside = {id(p) for p in module.parameters()}
            parameters = [p for p in parameters if id(p) not in inside]
        return {
            "n_steps": self.n_steps,
            "generator": own,
            "buffers": buffers,  # those that state_dict leaves out
            "parameters": [p.detach() for p in parameters],  # those that are not the generator's
            "loss": self.loss.state_dict(),
            "reg": self.loss.reg,
            "warned": self.warned,
            "round": self.rounds.state_dict(),
            "critic": state_of(self.critic),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another trainer was."""
        here = self.state_dict()
        own = here["generator"]
        restore(self.module, {k: sharded_like(v, own.get(k)) for k, v in state["generator"].items()})
        for name, buffer in here["buffers"].items():
            buffer.copy_(state["buffers"][name])
        for parameter, value in zip(here["parameters"], state["parameters"], strict=True):
            parameter.copy_(value)
        self.loss.load_state_dict(state["loss"])
        self.loss.reg, self.warned = state["reg"], state["warned"]
        self.rounds.load_state_dict(state["round"])
        restore(self.critic, state.get("critic"))
        load_optimizer(self.optimizer, state["optimizer"])
        self.history.load_state_dict(state["history"])
        self.begun = True
        self.start = time.perf_counter() - float(state["history"]["seconds"][-1])


def made(generator: Callable[[Any], Any], z: Any) -> Any:
    """Points of a generator; if it fails, the error is noted what it was given."""
    try:
        return guest(generator)(z)
    except Exception as error:
        error.add_note(
            f"The generator was given latent points: {describe(z)}. Those that train_generator draws "
            "have the dtype and device of the data."
        )
        raise


def warn_of_boundaries(loss: SemiDiscreteLoss, x: torch.Tensor) -> bool:
    """Warn if mass on cell boundaries, or near them, endangers the gradient; tell whether it does.

    At ``reg = 0``, and a potential that does not lag behind the points: if half of them are ten for each
    atom, it is improved on that half, and diagnosed on the other.
    """
    target, half = loss.target, x[::2]
    potential = target.gather(loss.potential)
    if len(half) * float(target.weights.min()) > 10.0:
        x, potential = x[1::2], maximize(SemiDual(target), half, potential, 0.0).potential
    found = diagnose(target, x, potential, 0.0)
    if found.boundary_reasons:
        warnings.warn(
            f"train_generator, reg = 0: the gradient is {found.verdict}, for "
            f"{'; '.join(found.boundary_reasons)}. A reg of 1% of cost_scale(data) makes it exist.",
            SemiDiscreteWarning,
            stacklevel=5,  # where train_generator was called
        )
    return bool(found.boundary_reasons)
