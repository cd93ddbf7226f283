"""One step of stochastic ascent on the semi-dual, shared by the solver and the trainers."""

from dataclasses import dataclass, replace
from typing import Any

from .dual import scale_of
from .kernels import mean_cost, sweep
from .schedules import ROUND_GAIN, ROUND_MEMORY, ROUND_TOP, annealed, cooled, gain

LARGEST_SHARE = 0.25  # passes in one step ...
ANNEALED_SHARE = 1.0  # ... once the level has been reached, if the average is corrected in the end
LEAST_ROWS = 32  # points in one step, unless the batch is smaller, or the round too short ...
LEAST_LENGTH = 16  # ... in steps
LARGEST_LENGTH = 32  # in steps, of a round but the first: beyond, each has more points
FITTED = 5  # rounds that a potential counts for that was solved for
NEAR = 16.0  # passes after which the average is near enough for Newton's method
LARGEST_PUSH = 3.0  # in units of reg, for one coordinate in one step
LEAST_LEVEL = 2e-3  # in units of the cost scale


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
    cost = mean_cost(target, x)
    potential = target.centred(cost)
    lowest = sweep(target, x, potential, 0.0).c_transform
    nx = target.nx
    mean = nx.sum(target.weights * (cost - potential))
    level = max(float(mean - nx.mean(lowest)), 0.0)
    return DualState(potential, potential, max(level, reg))


def warm_start(target, potential, reg):
    """State that continues from a potential."""
    potential = target.centred(potential)
    return DualState(potential, potential, reg)


def step(state, target, x, reg, corrected=False):
    """Averaged stochastic ascent with the batch `x`, annealing towards `reg`.

    A batch of many points for each atom is taken in several steps, for the curvature bounds the
    length of one; but not for long if the average is `corrected` in the end, for all that is then
    asked of it is to be near.

    Returns
    -------
    state : DualState
    value : scalar
        Estimate of the semi-dual at the potentials before the steps: `x` had not been seen.
    """
    n, total, pieces = x.shape[0], 0.0, 1
    if not (corrected and is_near(state)):
        share = ANNEALED_SHARE if corrected and state.level <= reg else LARGEST_SHARE
        pieces = max(1, round(n / max(LEAST_ROWS, share * target.weights.shape[0])))
    rows = -(-n // pieces)
    for start in range(0, n, rows):
        part = x[start : start + rows]
        state, value = _step(state, target, part, reg)
        total = value if rows == n else total + value * (part.shape[0] / n)
    return state, total


def is_near(state):
    """Whether the average of an ascent is where Newton's method works."""
    return state is not None and state.passes >= NEAR


def _step(state, target, x, reg):
    share = x.shape[0] / target.weights.shape[0]
    eta = gain(state.passes, share)
    potential, transform = move(target, x, state.potential, state.level, eta)
    value = target.dual_value(transform, state.potential)
    if state.level > reg > 0:
        level = annealed(state.level, reg, share)
        return replace(state, potential=potential, average=potential, level=level), value
    t, passes = state.n_averaged + 1, state.passes + share
    level = annealed(state.level, reg, share, passes)
    return DualState(potential, averaged(state.average, potential, t), level, passes, t), value


def warm_up(target, draw, reg, n_batches=50):
    """Potential to start following from: a short annealing down to `reg`, averaged.

    Parameters
    ----------
    draw : callable
        ``() -> x``, a fresh batch.
    """
    state = cold_start(target, draw(), reg)
    potential = average = state.potential
    ratio = reg / state.level if state.level > 0 else 1.0
    for k in range(n_batches):
        level = state.level * ratio ** (k / max(n_batches - 1.0, 1.0))
        potential, _ = move(target, draw(), potential, level, ROUND_GAIN)
        average = averaged(average, potential, k + 1)
    return average


def tracking_reg(target, reg):
    """Regularisation at which to follow a moving source: `reg`, or 0.2% of the cost scale at 0.

    A step at ``reg = 0`` has no unit of its own.
    """
    return reg if reg > 0 else LEAST_LEVEL * scale_of(target)


def round_heat(target, reg):
    """From where the regularisation falls in a round, in units of `reg`: a tenth of the cost scale."""
    return max(ROUND_TOP * scale_of(target) / reg, 1.0) if reg > 0 else 1.0  # 0 for one atom only


def follow(average, count, target, x, reg, heat, cross=None, calls=1):
    """A round of small steps with the points `x` towards the optimum of a source that moves.

    The regularisation falls from `heat` times `reg` to `reg`, and the iterates are averaged. The few
    points of a step, and the large first levels, leave a noise of many `reg` in that average where an
    atom sees few. So the potential is an average over the last rounds, of one pass in all, but at most
    of five: it must not lag behind the source.

    Parameters
    ----------
    average : array, shape (n_support,)
        Potential so far.
    count : int
        Calls so far.
    x : array, shape (n, d)
        Fresh points.
    heat : float
    cross : array, shape (n, n_support), optional
        As in :func:`pot_semidiscrete.kernels.sweep`.
    calls : int
        In how many calls, each with a part of the points, the round is done.

    Returns
    -------
    array, shape (n_support,)
    """
    n, potential, mean = x.shape[0], average, average
    most = LARGEST_LENGTH if count else n
    length = min(max(-(-n // LEAST_ROWS), -(-LEAST_LENGTH // calls)), most, n)
    for k in range(length):
        level = cooled(k, length, reg, heat)
        carry = (reg - level) * target.log_weights
        known = None if cross is None else cross[k::length]
        # psi_level ~ psi_0 - level log b: potentials are kept as they would be at `reg`
        potential, _ = move(target, x[k::length], potential + carry, level, ROUND_GAIN, known)
        potential = potential - carry
        mean = averaged(mean, potential, k + 1)
    passes, rounds = ROUND_MEMORY
    rounds = min(rounds * calls, passes * target.weights.shape[0] / n, count + 1.0)
    return average + (mean - average) / max(rounds, 1.0)


def averaged(average, potential, t):
    """Average of t iterates, the k-th with a weight proportional to k, from that of t - 1."""
    return average + (2.0 / (t + 1.0)) * (potential - average)


def move(target, x, potential, level, eta, cross=None):
    """``psi_j += level * clip(eta * (b_j - m_j) / max(b_j, floor))``, m the mean of the weights.

    Returns
    -------
    potential : array, shape (n_support,)
    transform : array, shape (n,)
        c-transform of the points at the potential before the step, at the regularisation `level`.
    """
    nx, n = target.nx, x.shape[0]
    out = sweep(target, x, potential, level, ("c_transform", "colsum"), cross=cross)
    push = eta * (target.weights - out.colsum / n) * target.inverse_weights
    return potential + level * nx.clip(push, -LARGEST_PUSH, LARGEST_PUSH), out.c_transform
