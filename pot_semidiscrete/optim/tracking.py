"""Following the potential of a source that moves, a generator in training.

In rounds of small steps: within one the regularisation falls from a tenth of the cost scale, for a
generator that moves leaves the potential behind mostly along smooth directions, and at a larger
regularisation a step sees further along them.
"""

from collections.abc import Callable

from ..backend import Array
from ..kernels import reduce
from ..problem import Target, scale_of
from .ascent import LEAST_ROWS, cold_start, compute_move
from .semi_dual import SemiDual

TOP = 0.1  # from where the regularisation falls, in units of the cost scale; benchmarks.training
LEAST_REG = 2e-3  # in units of the cost scale: at reg = 0 a step has no unit of its own
LENGTHS = 16, 32  # steps in a round, at least and (but for the first) at most; benchmarks.training
ROUND_CLIP = 3.0  # largest move of an atom, in units of eps; benchmarks.training: with 6, FD 106, not 81
SPAN = 5.0  # rounds that the average spans, at most, and what a potential solved for counts as


def tracking_levels(target: Target, reg: float) -> tuple[float, float]:
    """Last regularisation of a round after a moving source, and the first in units of it."""
    scale = scale_of(target)
    level = reg if reg > 0 else LEAST_REG * scale
    return level, max(TOP * scale / level, 1.0) if level > 0 else 1.0  # 0 for one atom only


def warm_up(target: Target, draw: Callable[[], Array], reg: float, n_batches: int = 50) -> Array:
    """Potential to start following from: a short annealing down to `reg`, averaged.

    Parameters
    ----------
    draw : callable
        ``() -> x``, a fresh batch.
    """
    state = cold_start(SemiDual(target), draw(), reg)
    potential = average = state.potential
    ratio = reg / state.eps if state.eps > 0 else 1.0
    for k in range(n_batches):
        eps = state.eps * ratio ** (k / max(n_batches - 1.0, 1.0))
        potential = _step(target, draw(), potential, eps)
        average = average + 2.0 / (k + 2.0) * (potential - average)
    return average


def follow(
    average: Array,
    count: float,
    target: Target,
    x: Array,
    reg: float,
    ratio: float,
    bilinear: Array | None = None,
    calls: int = 1,
) -> Array:
    """A round of small steps with the points `x` towards the optimum of a source that moves.

    The regularisation falls geometrically from `ratio` times `reg` to `reg`, and the iterates are
    averaged with weights as time. The few points of a step, and the large first levels, leave a noise of
    many `reg` in that average where an atom sees few. So the potential is an average over the last
    rounds, of one pass in all, but at most of five: it must not lag behind the source.

    Parameters
    ----------
    average : array, shape (n_support,)
        Potential so far.
    count : float
        Calls so far.
    x : array, shape (n, d)
        Fresh points.
    ratio : float
    bilinear : array, shape (n, n_support), optional
        As in :func:`pot_semidiscrete.kernels.reduce`.
    calls : int
        In how many calls, each with a part of the points, the round is done.
    """
    n, potential, mean = x.shape[0], average, average
    least, most = LENGTHS
    length = min(max(-(-n // LEAST_ROWS), -(-least // calls)), most if count else n, n)
    for k in range(length):
        eps = reg * ratio ** (1.0 - k / (length - 1.0)) if length > 1 else reg
        carry = (reg - eps) * target.log_weights
        known = None if bilinear is None else bilinear[k::length]
        # psi_eps ~ psi_0 - eps log b: potentials are kept as they would be at `reg`
        potential = _step(target, x[k::length], potential + carry, eps, known) - carry
        mean = mean + 2.0 / (k + 2.0) * (potential - mean)
    rounds = min(SPAN * calls, target.weights.shape[0] / n, count + 1.0)
    return average + (mean - average) / max(rounds, 1.0)


def _step(target: Target, x: Array, psi: Array, eps: float, bilinear: Array | None = None) -> Array:
    """One step of ascent with the points `x`."""
    colsum = reduce(target, x, psi, eps, ("colsum",), bilinear=bilinear).colsum
    move = compute_move(target.nx, target.goal(psi), colsum / float(x.shape[0]), clip=ROUND_CLIP)
    return psi + eps * target.exponent(eps) * move
