"""One step of stochastic ascent on the semi-dual, shared by the solver and the trainers."""

from dataclasses import dataclass, replace
from typing import Any

from .kernels import mean_cost, sweep
from .schedules import annealed, gain

LARGEST_PUSH = 3.0  # in units of reg, for one coordinate in one step
LIGHTEST_ATOM = 0.3  # in units of 1 / n_atoms: the floor of the weights in the step


@dataclass(frozen=True)
class DualState:
    """Where the ascent is.

    Attributes
    ----------
    potential : array, shape (n_support,)
        Last iterate.
    average : array, shape (n_support,)
        Average of the iterates since the regularisation reached its last value, the t-th with a
        weight proportional to t: the estimate.
    level : float
        Present regularisation: annealed from the scale of the cost down to the one asked for.
    passes : float
        Source points seen per atom since the average began.
    n_averaged : int
        Iterates in the average.
    """

    potential: Any
    average: Any
    level: float
    passes: float = 0.0
    n_averaged: int = 0


def cold_start(target, x, reg):
    """State to start from knowing nothing but a batch `x`.

    The mean cost to each atom is the optimal potential of an infinite regularisation; how far the
    value then is from that of ``reg = 0`` is the scale of the cost that the atoms compete for, and
    the level from which to anneal.
    """
    potential = target.centred(mean_cost(target, x))
    lowest = sweep(target, x, potential, 0.0).c_transform
    nx = target.nx
    mean = nx.sum(target.weights * (mean_cost(target, x) - potential))
    level = float(mean - nx.mean(lowest))
    return DualState(potential, potential, max(level, reg))


def warm_start(target, potential, reg):
    """State that continues from a potential."""
    potential = target.centred(potential)
    return DualState(potential, potential, reg)


def step(state, target, x, reg):
    """One step of averaged stochastic ascent with the batch `x`.

    ``psi_j += level * clip(gain * (b_j - m_j) / max(b_j, floor))``, m the mean of the weights.

    Returns
    -------
    state : DualState
    value : scalar
        Estimate of the semi-dual at the potential before the step: `x` had not been seen.
    """
    nx, n = target.nx, x.shape[0]
    n_atoms = target.weights.shape[0]
    share = n / n_atoms
    out = sweep(target, x, state.potential, state.level, ("c_transform", "colsum"))
    value = nx.mean(out.c_transform) + nx.sum(target.weights * state.potential)
    floor = nx.full((1,), LIGHTEST_ATOM / n_atoms, type_as=target.weights)
    excess = (target.weights - out.colsum / n) / nx.maximum(target.weights, floor)
    push = nx.clip(gain(state.passes, share) * excess, -LARGEST_PUSH, LARGEST_PUSH)
    potential = state.potential + state.level * push
    if state.level > reg > 0:
        level = annealed(state.level, reg, share)
        return replace(state, potential=potential, average=potential, level=level), value
    t = state.n_averaged + 1
    average = state.average + (2.0 / (t + 1.0)) * (potential - state.average)
    passes = state.passes + share
    return DualState(potential, average, annealed(state.level, reg, share, passes), passes, t), value
