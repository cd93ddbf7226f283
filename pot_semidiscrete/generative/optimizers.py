"""Optimisers: the user's or ours, and what a file keeps of one."""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from ..backend import describe
from ..problem import check_callable
from .fsdp import resharded, sharded_like

MakeOptimizer: TypeAlias = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


def adam(
    parameters: list[torch.nn.Parameter],
    lr: float = 3e-3,
    betas: tuple[float, float] = (0.9, 0.99),
) -> torch.optim.Optimizer:
    """The default optimiser of a list of parameters: in one pass over them, where torch has it."""
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
    return torch.optim.Adam(parameters, lr=lr, betas=betas, fused=fused)


calm_adam: MakeOptimizer = functools.partial(adam, lr=2e-3, betas=(0.5, 0.99))
"""The default beside a critic, or for pairs: with more momentum images go blank, or all alike."""


def resolve_optimizer(
    name: str,
    optimizer: torch.optim.Optimizer | MakeOptimizer | None,
    module: Callable[..., Any],
    owner: str,
    default: MakeOptimizer,
) -> torch.optim.Optimizer:
    """An optimiser as it was given, or made of the parameters of `module`, by default by `default`.

    In errors, `name` is the argument, and `owner` what the module is.
    """
    resharded(module)  # or its parameters are not those that an optimiser has
    if isinstance(optimizer, torch.optim.Optimizer):
        found = module.parameters() if isinstance(module, torch.nn.Module) else ()
        own = {id(p) for p in found if p.requires_grad}
        if own and own.isdisjoint(map(id, parameters_of(optimizer))):
            raise ValueError(
                f"{name}: expected one of the parameters of the {owner}, received "
                f"{type(optimizer).__name__} of others; make it of {owner}.parameters()."
            )
        return optimizer
    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            f"{name}: expected a torch optimizer, for the {owner} is not a torch.nn.Module whose "
            "parameters could be asked for."
        )
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(
            f"{owner}: expected a module with parameters to train, received {describe(module)}, which "
            f"has none; give {name}, or let them require gradients."
        )
    make = default if optimizer is None else check_callable(name, optimizer, "of parameters")
    built = make(parameters)
    if not isinstance(built, torch.optim.Optimizer):
        raise TypeError(
            f"{name}: expected a torch optimizer, or a callable of parameters that makes one, "
            f"received one that made {describe(built)}."
        )
    return built


def describe_optimizer(optimizer: torch.optim.Optimizer) -> str:
    """Kind and options of an optimiser, as it was built: schedules change neither."""
    options = ", ".join(
        f"{name}={float(value) if isinstance(value, torch.Tensor) else value}"
        for name, value in sorted(optimizer.defaults.items())
    )
    return f"{type(optimizer).__name__}({options})"


def fall(progress: float) -> float:
    """Learning rate after a share of a run, relative to the first: it falls to 0 in the last third."""
    return min(1.0, 3.0 * max(1.0 - progress, 0.0))


def rise_and_fall(progress: float) -> float:
    """The same, but for a rise in the first twentieth: where images are alike, all go to one median.

    Without, at a rate of 3e-3, generators of MNIST lost most of the digits.
    """
    return min(fall(progress), 0.02 + 20.0 * progress)


def note_rates(optimizer: torch.optim.Optimizer) -> None:
    """Let the groups of an optimiser keep their present rates, as torch's schedulers do."""
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])


def relative_rate(optimizer: torch.optim.Optimizer) -> float:
    """Present learning rate, relative to the first."""
    group = optimizer.param_groups[0]
    first = group.get("initial_lr", optimizer.defaults["lr"])
    return float(group["lr"] / first) if first else 1.0


def set_relative_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give all parameters a learning rate, relative to their first."""
    for group in optimizer.param_groups:
        group["lr"] = group.get("initial_lr", optimizer.defaults["lr"]) * rate


def parameters_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """What an optimiser moves."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state in its own precision: torch casts it to that of the parameters."""
    parameters = parameters_of(optimizer)
    parts = {
        k: {name: sharded_like(value, parameters[k]) for name, value in entries.items()}
        for k, entries in state["state"].items()
    }
    optimizer.load_state_dict(state | {"state": parts})
    for k, entries in parts.items():
        held = optimizer.state[parameters[k]]
        for name, value in entries.items():
            if isinstance(value, torch.Tensor) and held[name].dtype != value.dtype:
                held[name] = value.to(held[name].device)
