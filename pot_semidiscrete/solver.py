"""The solver: sample, step, look, correct, stop."""

import functools
import math
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import ascent
from ._run import Progress, SemiDiscreteWarning, guarded
from ._target import build_target, check_init_potential, check_reg
from ._validation import check_callable, check_count, check_real
from .certificates import (
    NORMAL_95,
    NORMAL_99,
    Estimates,
    Evaluation,
    certificate,
    evaluate,
    fresh_batches,
    upper_bound,
)
from .costs import CallableMetric
from .newton import ENOUGH, EVENLY, Fit, improve
from .result import SemiDiscreteResult
from .sample import Sample
from .samplers import Draws, resolve_source

FIRST_CHECK = 4.0  # passes after the annealing
CHECK_GROWTH = 1.5
CHECK_SHARE = 1.0 / 16.0  # of the samples so far; the checks together cost about three times that
LEAST_EVALUATION = 2048  # points, to tell whether to stop ...
LEAST_CERTIFICATE = 1024  # ... and for the estimates of a run that was to end anyway
LARGEST_PENDING = 2**23  # numbers that a result may hold until it is asked for more
LATEST_CHECKS = 5  # to tell the rate from
WORTH_CORRECTING = 2.0  # times the marginal error that the samples allow
DOUBT = 2.0  # times the value that Newton's method gains by chance: what a given potential outweighs ...
DOUBT_AT_0 = 4.0  # ... at reg = 0, where the trace is that of the width of a cell


@dataclass(frozen=True)
class SolverState:
    """What `callback` sees after each batch.

    Attributes
    ----------
    n_iter, n_samples : int
        Batches used, source points drawn.
    reg : float
        Present regularisation, annealed down to the one asked for.
    potential : array, shape (n_atoms,)
        Present estimate.
    chi2 : float
        Last estimate of the squared marginal error; NaN before the first check.
    """

    n_iter: int
    n_samples: int
    reg: float
    chi2: float
    _dual: Any
    _target: Any

    @property
    def potential(self):
        """Present estimate, as in the result."""
        return self._target.expand(self._target.centred(self._dual.average))


class Window:
    """The newest source points, up to `limit` bytes; `complete` while none was dropped."""

    def __init__(self, limit, nx):
        self.limit, self.nx, self.batches, self.size, self.complete = limit, nx, [], 0, True

    def holds(self, x):
        """Whether there is room for more points."""
        return self.size + self._bytes(x) <= self.limit

    def add(self, x):
        self.batches.append(x)
        self.size += self._bytes(x)
        while self.size > self.limit:
            first, self.complete = self.batches.pop(0), False
            self.size -= self._bytes(first)
            room = (self.limit - self.size) // max(self._bytes(first[:1]), 1)
            if room > 0:  # all batches may have become one
                self.batches.insert(0, first[first.shape[0] - room :])
                self.size += self._bytes(self.batches[0])

    def _bytes(self, x):
        return x.shape[0] * x.shape[1] * self.nx.bitsize(x) // 8

    def points(self):
        """All of them, in one array; None if there is no room for any."""
        if len(self.batches) > 1:
            self.batches = [self.nx.concatenate(self.batches, axis=0)]
        return self.batches[0] if self.batches else None


class Solver:
    """One run: the state of the ascent, its history, and the outcome."""

    def __init__(self, target, draw, reg, batch_size, potential, max_memory):
        self.target, self.draw, self.reg, self.batch_size = target, draw, reg, batch_size
        self.given, self.dual = None, None
        if potential is not None:
            self.dual = ascent.warm_start(target, potential, reg)
            self.given = self.dual.potential
        self.window = Window(max_memory, target.nx)
        self.n_iter, self.n_seen, self.corrected_at = 0, 0, 0
        self.status, self.evaluation, self.fit = "max_iter", None, None
        self.trace, self.estimates = None, None
        self.values, self.levels, self.checks = [], [], []

    def iterate(self):
        """Take one batch."""
        x = self.draw(self.batch_size)
        if self.window.complete and not self.window.holds(x) and ascent.is_near(self.dual):
            self.correct()  # from now on the ascent is on its own
        if self.dual is None:
            self.dual = ascent.cold_start(self.target, x, self.reg)
        self.levels.append(self.dual.level)
        self.window.add(x)
        self.dual, value = ascent.step(self.dual, self.target, x, self.reg, self.window.complete)
        self.values.append(value)
        self.n_iter += 1
        self.n_seen += x.shape[0]
        self.evaluation = self.fit = None

    def correct(self):
        """Move the estimate to the maximiser over the points kept, as far as they are to be trusted.

        A potential that rests on other points, dropped ones or those of another run, counts for as much
        as its value shows: Newton's method gains ``trace / (2 n)`` by chance, and the share of the
        gain that is not chance is the share of the way to go (James and Stein, 1961).
        """
        points = self.window.points()
        if points is None or self.corrected_at == self.n_seen:
            return
        self.fit = None  # what it keeps is freed before there is another
        reg, sample, measured = self.reg, Sample(self.target, points), None
        start = prior = self.dual.average
        others, share = 1.0 - points.shape[0] / self.n_seen, 1.0
        if self.given is not None:
            prior, others = self.given, 1.0
        if others > 0:
            measured = sample.measure(prior, reg)
            value = measured[0]
            if start is not prior:
                found = sample.measure(start, reg)
                start, measured = (start, found) if found[0] > value else (prior, measured)
        found = improve(sample, start, reg, EVENLY if self.draw.evenly else ENOUGH, measured)
        if others > 0:
            trace = found.trace
            chance = (DOUBT if reg > 0 else DOUBT_AT_0) * others * trace / (2.0 * points.shape[0])
            share = max(0.0, 1.0 - chance / max(found.value - value, 1e-300))
            self.trace = trace if self.given is None else share * trace
        self.fit = Fit(sample, found)
        potential = prior + share * (self.fit.cautious() - prior)
        self.dual = replace(
            self.dual, potential=potential, average=potential, level=reg or self.dual.level
        )
        self.corrected_at, self.evaluation = self.n_seen, None

    def look(self):
        """Evaluate the present estimate on fresh samples."""
        if self.evaluation is None:
            batches = self.fresh(LEAST_EVALUATION)
            self.evaluation = evaluate(self.target, batches, self.dual.average, self.reg)
        return self.evaluation

    def fresh(self, least):
        """Samples for an evaluation, a share of those so far."""
        n = max(least, int(CHECK_SHARE * self.draw.n_samples))
        return fresh_batches(self.draw.independent, n, self.batch_size)

    def estimate(self):
        """Tell what was reached, by fresh samples that are drawn now: as it is asked for, mostly.

        At once where much would have to be kept until then, or a user's metric may have changed.
        """
        potential, fit, evaluation = self.dual.average, self.fit, self.evaluation
        if evaluation is None:
            batches = held = self.fresh(LEAST_CERTIFICATE)
            evaluation = functools.partial(evaluate, self.target, batches, potential, self.reg)
        else:
            batches, held = [evaluation.points], [evaluation.points, evaluation.sums]
        if fit is not None and fit.points.shape[0] < sum(x.shape[0] for x in batches):
            fit = None
        if fit is not None:
            held = [*held, fit.points]
        facts = (self.target, potential, self.reg, fit, self.trace, self.n_seen)
        estimates = Estimates(evaluation, functools.partial(certificate, *facts))
        much = sum(x.shape[0] * x.shape[1] for x in held) > LARGEST_PENDING
        if much or isinstance(self.target.cost, CallableMetric):
            self.evaluation = estimates.evaluation
            _ = estimates.certificate
        elif fit is not None:
            fit.lighten()
        self.estimates = estimates

    def check(self, tol):
        """Tell whether the marginal error of the corrected estimate is below `tol`, at 95%."""
        if self.given is not None:
            self.correct()
        found, allowed = self.look(), self.target.weights.shape[0] / max(self.n_seen, 1)
        poor = found.chi2 > WORTH_CORRECTING * allowed and self.n_seen >= 2 * self.corrected_at
        if upper_bound(found, NORMAL_99) <= tol**2 or poor:
            self.correct()
            found = self.look()
        self.checks.append((self.n_iter, found.chi2, found.chi2_stderr))
        # several looks: each at 99%, so that the run is right at 95%
        return upper_bound(found, NORMAL_99) <= tol**2

    def state(self):
        return SolverState(
            self.n_iter,
            self.draw.n_samples,
            self.dual.level,
            self.checks[-1][1] if self.checks else float("nan"),
            self.dual,
            self.target,
        )

    def progress(self):
        if not self.values:
            return {}
        facts = {"reg": self.dual.level, "value": float(self.values[-1])}
        if self.checks:
            facts["chi2"] = self.checks[-1][1]
        return facts

    def result(self):
        """What was reached."""
        nx, target = self.target.nx, self.target
        potential = (
            nx.zeros((target.atoms.shape[0],), type_as=target.atoms)
            if self.dual is None
            else target.centred(self.dual.average)
        )
        checks = np.array(self.checks, dtype=float).reshape(-1, 3)
        log = {
            "value": np.array([float(v) for v in self.values]),
            "reg": np.array(self.levels),
            "check_n_iter": checks[:, 0].astype(int),
            "check_chi2": checks[:, 1],
            "check_chi2_stderr": checks[:, 2],
        }
        return SemiDiscreteResult(
            target,
            potential,
            self.reg,
            self.estimates or Estimates((self.evaluation or Evaluation()).brief),
            status=self.status,
            n_iter=self.n_iter,
            n_samples=self.draw.n_samples,
            log=log,
        )


def solve_semidiscrete(
    X_target,
    sampler_source="unif",
    a_target=None,
    metric=None,
    reg=0.0,
    *,
    tol=0.05,
    max_iter=10_000,
    batch_size=256,
    init_potential=None,
    max_memory=2**28,
    random_state=None,
    verbose=False,
    callback=None,
):
    r"""Solve semi-discrete optimal transport: averaged ascent, then Newton's method on its samples.

    .. math::
        \mathrm{OT}_\lambda(\mu, \nu) = \max_\psi\;
        \mathbb{E}_{x \sim \mu}\, \psi^{c,\lambda}(x) + \langle b, \psi \rangle,
        \qquad \nu = \sum_j b_j \delta_{y_j} .

    Steps are in units of :math:`\lambda / b_j`, the inverse of a bound on the diagonal curvature, and
    the regularisation is annealed from a cost measured on the first batch, so that no default
    depends on the scale of the data. Iterates are averaged with weights that grow with time: nothing
    assumes that the number of batches is known. The average is then corrected by Newton's method on the
    points drawn so far, which reaches what so many samples allow (see :doc:`/solver`).

    Parameters
    ----------
    X_target : array, shape (n_atoms, d)
        Atoms :math:`y_j`; their backend, dtype and device are those of the computation.
    sampler_source : callable, str or array of shape (n, d), default="unif"
        Source :math:`\mu`: a callable ``n -> (n, d)`` array in the backend of `X_target` (a torch
        generator is called without gradient); a name, ``"unif"`` (``"unif_cube"``), ``"ball"``
        (``"unif_ball"``) or ``"normal"``; or points, drawn uniformly with replacement. A
        :class:`samplers.SobolSampler` draws quasi-random points: far more accurate in dimension 1 or
        2, still more accurate in 10.
    a_target : array, shape (n_atoms,), optional
        Weights :math:`b`, non-negative, of sum 1. Uniform by default. Atoms of weight 0 are left
        out: their potential is 0.
    metric : str or callable, optional
        Ground cost, as in :func:`semidiscrete_c_transform`. ``"sqeuclidean"`` by default.
    reg : float, default=0.0
        Regularisation :math:`\lambda \ge 0`, in units of the metric: see :func:`cost_scale`.
    tol : float, default=0.05
        Stop when the relative error of the masses that the plan gives to the atoms,
        :math:`(\sum_j (m_j - b_j)^2 / b_j)^{1/2}`, is below `tol` with 95% confidence on
        fresh samples. It has no unit and does not depend on the number of atoms; reaching it takes
        of the order of ``n_atoms / tol**2`` source points. 0 runs exactly `max_iter` batches.
    max_iter : int, default=10000
        Largest number of batches of the ascent.
    batch_size : int, default=256
        Source points in a batch.
    init_potential : array, shape (n_atoms,), optional
        Potential to continue from, without annealing. It is left as far as new points show that it
        is wrong: what many points have reached is not lost to a few.
    max_memory : int, default=2**28
        Bytes of source points to keep for Newton's correction of the average; the newest ones if
        more are drawn. 0 leaves the average of the ascent as it is.
    random_state : None, int, numpy Generator or RandomState, or torch Generator
        Randomness of named and array sources. Global generators are never touched.
    verbose : bool, default=False
        Show a progress bar (tqdm's if it is installed).
    callback : callable, optional
        Called with a :class:`SolverState` after each batch; stops the run by returning True.

    Returns
    -------
    SemiDiscreteResult
        Potential, estimates on fresh samples (``value_interval`` holds the transport cost with 95%
        confidence, ``chi2`` is the squared marginal error, ``suboptimality`` what the value lacks), and
        why the run ended.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape, dtype or range. An exception of the sampler or
        the callback passes through with what was reached as its attribute ``partial_result``.

    Warns
    -----
    SemiDiscreteWarning
        If `tol` was not reached; it says how many more points that would take.

    References
    ----------
    Houdard, Leclaire, Papadakis, Rabin, arXiv:2102.05542 (the semi-discrete setting);
    Genevay, Cuturi, Peyre, Bach, "Stochastic Optimization for Large-scale Optimal Transport",
    NeurIPS 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from pot_semidiscrete import solve_semidiscrete
    >>> atoms = np.random.default_rng(0).random((20, 2))
    >>> result = solve_semidiscrete(atoms, "unif", reg=0.01, random_state=0)
    >>> result.converged
    True
    >>> result.ot_map(np.array([[0.5, 0.5]])).shape
    (1, 2)
    """
    tol = check_real("tol", tol)
    max_iter, batch_size = check_count("max_iter", max_iter), check_count("batch_size", batch_size)
    max_memory = check_count("max_memory", max_memory, minimum=0)
    if callback is not None:
        check_callable("callback", callback, "of the state")
    target = build_target(X_target, a_target, metric).detached.own
    reg = check_reg(reg, target)
    init_potential = check_init_potential(init_potential, target)
    source = resolve_source(sampler_source, target, random_state)
    result = solve_target(
        target, source, reg, tol, max_iter, batch_size, init_potential, max_memory, verbose, callback
    )
    warn_shortfall(result, tol)
    return result


def solve_target(
    target,
    source,
    reg,
    tol,
    max_iter,
    batch_size,
    init_potential=None,
    max_memory=2**28,
    verbose=False,
    callback=None,
):
    """:func:`solve_semidiscrete` of a built target and a resolved source, without the warning."""
    solver = Solver(target, Draws(source, target), reg, batch_size, init_potential, max_memory)
    bar = Progress(verbose, max_iter, "solve_semidiscrete")
    with guarded(solver, bar):
        _run(solver, tol, max_iter, callback, bar)
        solver.correct()
        solver.estimate()
    return solver.result()


def _run(solver, tol, max_iter, callback, bar):
    """Iterate until the tolerance, the callback or `max_iter` says stop."""
    check_at = FIRST_CHECK
    if solver.given is not None:
        check_at /= CHECK_GROWTH**4
        if tol > 0 and solver.check(tol):
            solver.status = "converged"
            return
    while solver.n_iter < max_iter:
        solver.iterate()
        bar.update(solver.progress)
        if callback is not None and callback(solver.state()):
            solver.status = "stopped"
            return
        last = solver.n_iter == max_iter
        if last:
            solver.correct()
        if tol > 0 and (solver.dual.passes >= check_at or last):
            if solver.check(tol):
                solver.status = "converged"
                return
            check_at *= CHECK_GROWTH


def warn_shortfall(result, tol):
    """Say how far a run ended from its tolerance, and what it would take to reach it."""
    if tol == 0 or result.status not in ("max_iter", "interrupted"):
        return
    reached, needed = upper_bound(result), ""
    if math.isnan(reached):
        words = "before its error was measured"
    else:
        words = f"with a relative marginal error of up to {reached**0.5:.3g} (95%)"
        if reached > tol**2:
            factor = (reached / tol**2) ** (1.0 / _rate(result.log))
            more = (factor - 1.0) * result.n_samples
            needed = f" At the rate seen, it needs about {more:.2g} more source points."
    warnings.warn(
        f"solve_semidiscrete ended ({result.status}) {words}, tol is {tol:.3g}.{needed} Raise max_iter, "
        "batch_size, reg or tol, or continue from init_potential=result.potential.",
        SemiDiscreteWarning,
        stacklevel=3,
    )


def _rate(log):
    """Exponent with which the bound of the marginal error falls with the samples; 1 in theory."""
    bounds = (np.maximum(log["check_chi2"], 0.0) + NORMAL_95 * log["check_chi2_stderr"])[-LATEST_CHECKS:]
    batches = log["check_n_iter"][-LATEST_CHECKS:]
    if len(bounds) < LATEST_CHECKS or min(bounds.min(), batches.min()) <= 0:
        return 1.0
    slope = np.polyfit(np.log(batches), np.log(bounds), 1)[0]
    return float(np.clip(-slope, 0.5, 1.0))
