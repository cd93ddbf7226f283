"""Step and annealing rules, in units of the problem.

Time is counted in *passes*: source points seen per atom. Steps are in units of ``reg / b_j``,
the inverse of a bound on the diagonal curvature of the semi-dual, so that neither the scale of
the data nor the number of atoms appears in any default.
"""

import math

SETTLED = 60.0  # passes after which the level falls slowly, at reg = 0
ROUND_TOP = 0.1  # from where the regularisation falls within a round, in units of the cost scale
ROUND_MEMORY = 1.0, 5.0  # passes that the average over rounds spans, and rounds at most
ROUND_GAIN = 0.7  # step within a round, in units of reg / b_j, however few points an atom sees


def gain(passes, share):
    """Step, in units of ``reg / b_j``: ``min(6 share / sqrt(1 + passes / 2), 3/2)``.

    Parameters
    ----------
    passes : float
        Passes since the regularisation reached its last value.
    share : float
        Passes that the batch amounts to. A point that falls into the cell of atom j then moves
        its potential by about 6 `reg` at first, whatever the batch size; the curvature bounds
        a stable step by 2.
    """
    return min(6.0 * share / (1.0 + passes / 2.0) ** 0.5, 1.5)


def annealed(level, reg, share, passes=0.0):
    """Next regularisation on the way from `level` down to `reg`.

    A pass divides it by e, but a batch never by more than e^(1/4), so that the potential can
    follow. Towards ``reg = 0`` there is no last value: the level falls as ``passes**-2`` to about a
    thousandth, then as ``passes**-1/2``, so that the steps never add up to a finite length (Genans et
    al., 2025, study power schedules).
    """
    rate = share
    if reg == 0:
        rate = share / (1.0 + passes / 2.0) if passes < SETTLED else share / (2.0 * passes)
    return max(reg, level * math.exp(-min(rate, 0.25)))


def cooled(position, length, reg, heat):
    """Regularisation at a position of a round of small steps: geometric, from `heat` `reg` to `reg`.

    A generator that moves leaves the potential behind mostly along smooth directions; at a larger
    regularisation a step sees further along them.
    """
    return reg * heat ** (1.0 - position / (length - 1.0)) if length > 1 else reg
