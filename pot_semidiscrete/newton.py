"""Newton's method on points kept: what an ascent of small steps leaves along slow modes.

The sample average of the semi-dual is maximised by Newton's method, from an estimate that is
already near (Le Cam's one-step estimator). The curvature is that of a part of the points, the
gradient that of all of them. Before a step, where masses are far off, half of a Sinkhorn iteration,
``psi += reg log(b / m)``, mends atoms that hardly communicate with the others, for which a
quadratic model is poor.
"""

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

from .curvature import CLIP, LARGEST_STEP, MANTISSA, RESOLVED, Told, curvature_of, smoothing
from .dual import scale_of
from .envelope import full_precision, no_grad
from .gaps import across_gaps
from .kernels import mean_cost
from .sample import Sample, spread

LOST = 10.0  # gain that a step promises where Newton's method is lost, in units of reg n_atoms / n
MAX_STEPS = 8
MAX_FAILURES = 4  # of one step
DISAPPOINTING = 0.5  # of what it promises: another is tried if there is one
ROUGH = 0.5  # logarithm of b / m that calls for a half-iteration ...
LARGEST_LOG = 10.0  # ... and the largest in one
ENOUGH = 0.1  # of the statistical error: what is gained beyond does not matter ...
EVENLY = 1e-3  # ... but for quasi-random points, whose error is smaller
COARSE = 1.0  # the same on the way
TRIFLE = 0.25  # of what is enough: not worth another look at the points
MATTERS = 5.0  # times what is enough: a step that promises, or gains, less leaves nothing behind
NEARBY = 4.0  # times the statistical error in value, within which a trace is that of all potentials
LADDER = 4.0  # from one regularisation to the next, where Newton's method is lost
TOP = 0.2  # of the cost scale: where the ladder begins
WHOLE = 2  # levels above the width of a cell, from where on all points are taken
CLOSE = 0.01  # of the statistical error, on the way to reg = 0, at the width of a cell ...
MISFIT = 0.25  # ... and below, until the squared error of masses is that share of n_atoms / n ...
PATIENCE, PROGRESS = 4, 0.75  # ... or, after so many levels, still more than that share of what it was
TRACED = 4  # times as many points as for a step, for the trace at the width of a cell
CROSSINGS = 8  # of gaps, by a few atoms each time
SEEN = 2.0  # points for each atom: with fewer, most own what they see
UNSEEN = 0.05  # value, in units of reg / n, for which an atom may be left without mass


@dataclass(frozen=True)
class Outcome:
    """Where Newton's method went.

    Attributes
    ----------
    potential : array, shape (n_support,)
    value : float
        Semi-dual value of the points.
    marginal : array, shape (n_support,)
        Mean of their assignment weights.
    reg : float
        Regularisation of all these.
    settled : bool
        Whether the last step did what it promised, or promised little.
    curvature : Curvature
        That of the last step; at ``reg = 0``, at the width of a cell. Or None, once it was freed.
    """

    potential: Any
    value: float
    marginal: Any
    reg: float
    settled: bool
    curvature: Any

    @property
    def trace(self):
        """Estimate of ``tr(A^+ Sigma)``: in the mean n points allow no better than ``trace / (2 n)``."""
        whole = self.curvature.told.whole
        return self.curvature.trace(whole) if self.reg > 0 else whole

    @property
    def start(self):
        """Potential, and its value and marginal: what another climb starts from."""
        return self.potential, (self.value, self.marginal)


def improve(sample, potential, reg, enough=ENOUGH, measured=None):
    """Maximise the semi-dual of a sample, to within its statistical error.

    Parameters
    ----------
    sample : Sample
    potential : array, shape (n_support,)
        Estimate to start from; only steps that increase the value are taken.
    reg : float
    enough : float
        Share of the statistical error of as many independent points that need not be gained.
    measured : (float, array), optional
        What the sample measures at `potential`, if known.

    Returns
    -------
    Outcome
    """
    with full_precision(sample.target.nx, sample.x), no_grad(sample.target.nx):
        return _improve(sample, potential, reg, enough, measured)


def _improve(sample, potential, reg, enough, measured):
    if reg == 0:
        return _unregularised(sample, potential, enough, measured)
    # a relative error of the masses of order 1, and more than chance: the model is no guide
    most = reg * max(1.0, LOST * sample.target.weights.shape[0] / sample.x.shape[0])
    found = climb(sample, potential, reg, enough, measured, most)
    if not found.settled:
        found = replace(found, curvature=None)  # its store is freed before there is another
        other = climb(sample, _descend(sample, reg), reg, enough)
        found = max(found, other, key=lambda outcome: outcome.value)
        del other
        if not found.settled:
            start, measured = found.start
            del found
            found = climb(sample, start, reg, enough, measured)
    for _ in range(CROSSINGS):
        beyond = _beyond_gaps(sample, found, enough)
        if beyond is None:
            break
        del found
        found = climb(sample, beyond[0], reg, enough, beyond[1])
    return found


def _beyond_gaps(sample, found, enough):
    """Potential, with value and marginal, from where to go on with atoms that are cut off; or None."""
    n, n_atoms, reg = sample.x.shape[0], sample.target.weights.shape[0], found.reg
    if n < SEEN * n_atoms:
        return None
    potential = across_gaps(sample, found.potential, found.marginal, reg, found.curvature)
    if potential is None:
        return None
    measured = sample.measure(potential, reg)
    rounding = 2.0 ** -MANTISSA[sample.target.nx.bitsize(potential)] * abs(found.value)
    worth = enough * reg * n_atoms / (2 * n) + rounding  # of the error that points allow, as a rule
    return (potential, measured) if measured[0] - found.value > worth else None


def _unregularised(sample, potential, enough, measured):
    """From above: less and less regularisation, until the masses at ``reg = 0`` are right.

    There the curvature is a density on the boundaries of cells, which no sample sees. It is first
    averaged over the width of a cell; atoms that nearly coincide need less.
    """
    best = potential, measured or sample.measure(potential, 0.0)
    nx, b, n = sample.target.nx, sample.target.weights, sample.x.shape[0]
    reg = LADDER**WHOLE * smoothing(sample, potential)
    potential = _descend(sample, reg)
    width = smoothing(sample, potential)
    while reg > width:
        potential = climb(sample, potential, reg, COARSE).potential
        reg /= LADDER
    reg, share, misfits = width, min(enough, CLOSE), PATIENCE * [math.inf]
    rounding = 2.0 ** -MANTISSA[nx.bitsize(potential)] * scale_of(sample.target)
    while reg >= rounding:
        potential = climb(sample, potential, reg, share).potential
        value, marginal = sample.measure(potential, 0.0)
        if value > best[1][0]:
            best = potential, (value, marginal)
        misfits.append(float(nx.sum((marginal - b) ** 2 / b)))
        if misfits[-1] < MISFIT * b.shape[0] / n or not misfits[-1] < PROGRESS * misfits[-1 - PATIENCE]:
            break
        reg, share = reg / LADDER, enough
    potential, (value, marginal) = best
    curvature = curvature_of(sample, potential, width, TRACED)
    curvature.slight_damping = curvature.least_damping  # more hides slow modes
    return Outcome(potential, value, marginal, 0.0, True, curvature)


def _descend(sample, reg):
    """Potential from a ladder of regularisations towards `reg`, to start from there with all points.

    A part of the points goes down to `reg` itself, all of them to the level above.
    """
    target, n = sample.target, sample.x.shape[0]
    few = Sample(target, spread(sample.x, max(n // 4, 2 * target.weights.shape[0])))
    levels, top = [], TOP * scale_of(target)
    level = reg if few.x.shape[0] < n else LADDER * reg
    while level < top:
        levels.append(level)
        level *= LADDER
    potential = target.centred(mean_cost(target, few.x))  # optimal for an infinite reg
    for level in reversed(levels):
        potential = climb(few, potential, level, COARSE).potential
    return potential


def climb(sample, potential, reg, enough=ENOUGH, measured=None, most=math.inf):
    """Newton steps at one regularisation, while they matter and none promises more than `most`."""
    return Climb(sample, potential, reg, enough, measured).outcome(most)


class Climb:
    """A potential on its way up by Newton steps, and what was seen on the way.

    Parameters
    ----------
    sample, potential, reg, enough, measured
        As in :func:`improve`.

    Attributes
    ----------
    value, marginal : float, array of shape (n_support,)
        What the sample measures at `potential`.
    rough : bool
        Whether masses are off so far that a half-iteration mends them.
    damping : float
        Of the next step.
    n_noisy : int
        Steps that gained much, and were damped because others would have been noise.
    told, trace, told_at : Told, float, float
        What a few probes tell, the trace by it, and the value of the potential at which it was told.
    little : float
        Gain that is enough to end with.
    """

    def __init__(self, sample, potential, reg, enough, measured):
        self.sample, self.target, self.reg, self.enough = sample, sample.target, reg, enough
        self.final = enough <= ENOUGH
        self.damping, self.n_noisy, self.curvature = 0.0, 0, None
        self.told, self.trace, self.told_at, self.little = Told(), math.nan, -math.inf, 0.0
        self._go(potential, *(measured or sample.measure(potential, reg)))

    def _go(self, potential, value, marginal):
        nx, b = self.target.nx, self.target.weights
        self.potential, self.value, self.marginal = potential, value, marginal
        # logarithm of b / m, of atoms that receive nothing up to LARGEST_LOG
        self.lack = nx.log(b / nx.maximum(marginal, math.exp(-LARGEST_LOG) * b))
        self.rough = float(nx.max(nx.abs(self.lack))) > ROUGH

    def outcome(self, most):
        """Where the steps lead."""
        settled = done = failed = False  # done: the last step needs no other, but for rough masses
        for _ in range(MAX_STEPS):
            before = self.value
            if self.rough:
                self._go(*self._measured(self.potential + self.reg * self.lack))
                # after a failure, damping may hide what is left
                if done and self.final and not failed and self.value - before < TRIFLE * self.little:
                    break
            move, settled = self._look(), False
            if move.promised > most:
                break
            if self.final and move.promised < TRIFLE * self.little:
                settled = move.hoped < MATTERS * self.little
                break
            rise, failures = self._follow(move)
            settled = abs(rise - move.promised) < self.little or move.hoped < MATTERS * self.little
            done = settled and failures == 0
            if (done and not self.rough) or not self.value - before > self.little:
                if self.final and self.curvature.step > 1 and rise > MATTERS * self.little:
                    self._again()
                break
            failed = failed or failures > 0
            self._temper(move, rise, failures)
        else:
            settled = settled and not rise > self.little  # out of steps
        return Outcome(self.potential, self.value, self.marginal, self.reg, settled, self.curvature)

    def _look(self):
        """The next step, from the curvature here."""
        self.curvature = None  # its store is freed before there is another
        # of more points, once steps have been noise to others more than once
        times = 2 ** max(self.n_noisy - 1, 0)
        self.curvature = curvature_of(self.sample, self.potential, self.reg, times)
        gradient, n = self.target.weights - self.marginal, self.sample.x.shape[0]
        if self.value - self.told_at < NEARBY * self.trace / (2.0 * n):
            move, _ = self.curvature.newton(gradient, self.damping, self.told)
        else:
            move, self.told = self.curvature.newton(gradient, self.damping)
            self.trace, self.told_at = self.curvature.trace(self.told.whole), self.value
        self.little = self.enough * self.trace / (2.0 * n)
        return move

    def _follow(self, move):
        """Go where a move leads if that is up: by how much it is, and after how many failures."""
        found, failures = self._search(move)
        rise = found[1] - self.value
        if rise > 0:
            self._go(*found)
        return rise, failures

    def _temper(self, move, rise, failures):
        """Choose the damping of the next step."""
        if move.damping > self.damping and rise > MATTERS * self.little:
            self.n_noisy += 1
        if failures:
            self.damping = self.curvature.harder(move.damping, failures)
        elif self.n_noisy > 1:
            self.damping = 0.0  # what was noise of few points need not be that of more
        else:
            self.damping = move.damping / self.curvature.more_damping

    def _search(self, move):
        """Where a step leads, with value and marginal, and after how many failures.

        It is shortened until the value does not fall, and the better of two is taken if it rises by
        less than was hoped for; if that is the first trial, of a longer step, it is lengthened while
        the value grows: between points that lie far apart the value is a straight line.
        """
        curvature, nx, value = self.curvature, self.target.nx, self.value
        trial = lambda *way: self._measured(self.potential + curvature.trial(move, *way))
        first = found = trial(0)
        failures, wished = 0, value
        if move.steps.shape[0] > 1:
            wished += DISAPPOINTING * move.promised
        for k in range(1, MAX_FAILURES + 1):
            if found[1] >= wished:
                break
            failures = failures if found[1] >= value else k
            other, wished = trial(k), value
            if other[1] > found[1] or math.isnan(found[1]):
                found = other
        longest, length = LARGEST_STEP, float(nx.max(nx.abs(move.steps[0])))
        while found[1] > value and found is first and length > longest * curvature.reg:
            longest /= CLIP
            further = trial(0, longest)
            if not further[1] > found[1]:
                break
            first = found = further
        return found, failures

    def _again(self):
        """One more step with the same curvature: that of a part of the points leaves something."""
        move, _ = self.curvature.newton(self.target.weights - self.marginal, self.damping, self.told)
        found = self._measured(self.potential + self.curvature.trial(move, 0))
        if found[1] > self.value:
            self._go(*found)

    def _measured(self, potential):
        """A potential, centred, with value and marginal."""
        potential = self.target.centred(potential)
        return potential, *self.sample.measure(potential, self.reg)


class Fit:
    """A sample, and what Newton's method made of it.

    Parameters
    ----------
    sample : Sample
    outcome : Outcome
    """

    def __init__(self, sample, outcome):
        self.sample, self.outcome, self.reg = sample, outcome, outcome.reg
        self.target, self.points = sample.target, sample.points

    @functools.cached_property
    def scale(self):
        """Factors, at most 1, with which no atom receives more than its weight."""
        nx, b = self.target.nx, self.target.weights
        return nx.minimum(b / nx.maximum(self.outcome.marginal, 1e-30 + 0.0 * b), 1.0 + 0.0 * b)

    @functools.cached_property
    def resolved(self):
        """Whether each atom sees enough points."""
        nx, b = self.target.nx, self.target.weights
        return self.points.shape[0] * float(nx.min(b)) > RESOLVED

    def lighten(self):
        """Free all weights, until they are needed again."""
        self.sample.forget()
        if self.outcome.curvature is not None:
            self.outcome.curvature.lighten()

    def cautious(self):
        """The maximiser over the points, less what rare points add to its error.

        The mass of an atom grows as the exponential of its potential, so that a potential fitted to
        few points gives too much on others: without end for an atom lighter than one point. The
        relative variance of the mean of the exponentials, over the n b_j points that the atom should
        receive, is taken as that excess, and once more where it is above 1: mass that is missing costs
        a light atom hardly anything, and mass too much a great deal. At ``reg = 0`` the unit is the
        width of a cell, and atoms are left alone that weigh as much as a tenth of a point.
        """
        nx, b, n = self.target.nx, self.target.weights, self.points.shape[0]
        potential, reg = self.outcome.potential, self.reg
        if self.resolved:
            return potential
        marginal = self.outcome.marginal
        if reg == 0:
            reg = self.outcome.curvature.reg
            marginal = self.sample.measure(potential, reg)[1]
        mass = nx.maximum(n * marginal, nx.full((1,), 1e-30, type_as=b))
        squares = self.sample.squares(potential, reg)
        share = nx.minimum(nx.sqrt(squares) / mass, 1.0 + 0.0 * b)
        excess = nx.minimum(share**2 / (n * b), 1e10 + 0.0 * b)  # whose square is finite
        caution = nx.log(1.0 + excess + excess**2)
        # lighter still, seen by few points, and without any mass for next to nothing in value
        unseen = nx.minimum(UNSEEN / (n * b), LARGEST_STEP + 0.0 * b)
        caution = nx.where(share**2 > 1.0 / RESOLVED, nx.maximum(caution, unseen), caution)
        if self.reg == 0:
            caution = nx.where(n * b < 1.0 / RESOLVED, caution, 0.0 * b)
        return self.target.centred(potential - reg * caution)
