"""Optimisers: the user's or ours, and what a file keeps of one."""

import torch

from ..backend import describe
from ..problem import check_callable


def resolve_optimizer(name, optimizer, module, owner, default):
    """An optimiser as it was given, or made of the parameters of `module`.

    Parameters
    ----------
    name : str
        Of the argument, for errors.
    optimizer : torch.optim.Optimizer, callable of parameters, or None
    module : torch.nn.Module or callable
    owner : str
        What `module` is, for errors.
    default : callable of parameters
        Makes it if there is none.
    """
    if isinstance(optimizer, torch.optim.Optimizer):
        return optimizer
    if not isinstance(module, torch.nn.Module):
        raise TypeError(
            f"{name}: expected a torch optimizer, for the {owner} is not a torch.nn.Module whose "
            "parameters could be asked for."
        )
    parameters = [p for p in module.parameters() if p.requires_grad]
    make = default if optimizer is None else check_callable(name, optimizer, "of parameters")
    built = make(parameters)
    if not isinstance(built, torch.optim.Optimizer):
        raise TypeError(
            f"{name}: expected a torch optimizer, or a callable of parameters that makes one, "
            f"received one that made {describe(built)}."
        )
    return built


def describe_optimizer(optimizer):
    """Kind and options of an optimiser, as it was built: schedules change neither."""
    options = ", ".join(
        f"{name}={float(value) if isinstance(value, torch.Tensor) else value}"
        for name, value in sorted(optimizer.defaults.items())
    )
    return f"{type(optimizer).__name__}({options})"


def fall(progress):
    """Learning rate after a share of a run, relative to the first: it falls to 0 in the last third."""
    return min(1.0, 3.0 * max(1.0 - progress, 0.0))


def set_rate(optimizer, rate):
    for group in optimizer.param_groups:
        group["lr"] = rate


def parameters_of(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def load_optimizer(optimizer, state):
    """Load a state in its own precision: torch casts it to that of the parameters."""
    optimizer.load_state_dict(state)
    parameters = parameters_of(optimizer)
    for k, entries in state["state"].items():
        held = optimizer.state[parameters[k]]
        for name, value in entries.items():
            if isinstance(value, torch.Tensor) and held[name].dtype != value.dtype:
                held[name] = value.to(held[name].device)
