"""The loop of the solver: draw, step, evaluate, decide, stop."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..backend import Array, joined, joint, says_stop
from ..costs import CallableMetric
from ..inference.bounds import FittedPoints
from ..inference.estimates import (
    UNKNOWN,
    Estimates,
    Evaluation,
    StoredEstimates,
    evaluate,
    evaluate_sequentially,
)
from ..inference.trace import shrink
from ..kernels import ranks_at
from ..optim.ascent import (
    ANNEALING,
    FEW_POINTS,
    LEAST_ROWS,
    AscentState,
    cold_start,
    resolving_eps,
    step,
    warm_start,
)
from ..optim.buffer import SampleStream
from ..optim.newton import can_correct, maximize
from ..optim.semi_dual import Measurement, SemiDual
from ..optim.stopping import rule_of
from ..problem import Problem, check_bool
from ..result import SemiDiscreteResult, SolverState
from ..runs import Progress, guarded
from ..samplers.base import Sampler
from ..samplers.draws import Draws
from .options import Options


class Solver:
    """One run: the state of the ascent, what was evaluated, and the outcome."""

    def __init__(self, problem: Problem, draw: Draws, options: Options, bar: Progress) -> None:
        self.target, self.reg, self.options, self.bar = problem.target, problem.reg, options, bar
        self.dual, self.rule = SemiDual(self.target), rule_of(options.tol, options.sample_cost)
        self.stream = SampleStream(draw, options.batch_size, options.max_memory)
        zero = 0.0 * self.target.weights
        self.ascent = AscentState(zero, zero, self.reg)
        self.n_iter, self.n_used, self.corrected_at = 0, 0, 0
        self.prior: Array | None = None  # the user's potential, and the samples it counts for; ...
        self.n_prior, self.value_due = 0.0, 0.0  # ... those with which the value should be right
        self.evaluation = UNKNOWN  # of the present estimate, at the points ...
        self.test_points: Array | None = None
        self.fit: FittedPoints | None = None
        self.estimates: Estimates | StoredEstimates | None = None
        self.status, self.most = "max_iter", options.max_iter * options.batch_size
        self.values, self.levels = list[float](), list[float]()
        self.measured: tuple[Measurement, Array] | None = None  # by the newest step, at a potential

    def begin(self, psi: Array | None) -> None:
        """Start from nothing, or from the user's potential if it is better; it may be right already."""
        x = self.stream.ahead(FEW_POINTS if psi is not None else min(LEAST_ROWS, self.most))
        self.ascent = cold_start(self.dual, x, self.reg, self.budget)
        if psi is None:
            return
        found = self.evaluation_at(x, psi)
        if self.dual.measure(x, self.ascent.potential, self.reg).value > float(found.value):
            return
        self.prior, self.test_points = psi, x
        self.resume(psi, found)
        if self.rule.may_be_met(found):
            self.evaluation = UNKNOWN  # to be made by more points
            if self.look(self.budget) and self.is_value_right():
                self.status = "converged"
            else:
                self.resume(self.ascent.average, self.evaluation)

    def resume(self, psi: Array, found: Evaluation) -> None:
        """Go on from a potential, which counts for the samples that its chi2 tells of."""
        n = found.n_eff / (max(found.chi2, 0.0) + found.chi2_stderr)
        ascent = warm_start(self.dual, self.test_points, psi, self.reg, n, found.n_eff)
        # an interrupt comes before or after: an evaluation is that of the present estimate
        self.ascent, self.evaluation, self.n_prior, self.rule.n_eff = ascent, found, n, found.n_eff

    def run(self, psi: Array | None, callback: Callable[[SolverState], Any] | None = None) -> None:
        """Draw, step, evaluate, decide, until the rule, the callback or `max_iter` says stop."""
        self.begin(psi)
        while self.status == "max_iter" and not self.is_last:
            self.iterate()
            self.bar.update(self.progress)
            if callback is not None and says_stop(callback(state_of(self))):
                self.status = "stopped"
            elif (self.is_look_due() or self.correct_first()) and self.decide():
                self.status = "converged"
            elif self.is_stalled:
                self.status = "stalled"
        if self.status == "stopped" or self.evaluation.n == 0:
            self.correct()

    def iterate(self) -> None:
        """Draw one batch, and take the steps that there are enough points for."""
        self.stream.advance()
        self.n_iter += 1
        budget = ANNEALING * self.budget
        while self.stream.unused.size >= (1 if self.is_last else self.ascent.batch):
            x, psi = self.stream.unused.take(self.ascent.batch), self.ascent.potential
            self.ascent, found = step(self.dual, self.ascent, x, self.reg, budget - self.n_used)
            self.n_used += x.shape[0]
            self.rule.n_eff, self.evaluation, self.measured = self.ascent.n_eff, UNKNOWN, (found, psi)
        self.values.append(math.nan if self.measured is None else self.measured[0].value)
        self.levels.append(self.ascent.eps)

    @property
    def budget(self) -> float:
        """Samples that the rule will take, for a problem of so many atoms: 1 where none is left."""
        return self.rule.samples(max(self.most, 1), self.dual.n_atoms // self.target.n_problems)

    @property
    def is_last(self) -> bool:
        """Whether no batch is left to draw."""
        return self.n_iter == self.options.max_iter

    @property
    def is_stalled(self) -> bool:
        """Whether more samples would not help."""
        return check_bool(f"tol: is_stalled of {type(self.rule).__name__}", self.rule.is_stalled)

    @property
    def is_value_due(self) -> bool:
        """Whether the value can be right, as far as the last look at it tells, or no batch is left."""
        return self.is_last or not self.n_samples < self.value_due

    @property
    def n_samples(self) -> float:
        """Samples that the estimate rests on."""
        return self.n_used + self.n_prior

    def is_look_due(self) -> bool:
        """Whether to evaluate: when the samples can be enough, and at the end."""
        due = self.rule.is_due(self.dual, self.ascent, self.n_samples, self.is_last)
        return check_bool(f"tol: is_due of {type(self.rule).__name__}", due) and self.is_value_due

    def correct_first(self) -> bool:
        """Correct before a look, if the rule says that this saves points; tell whether it was done."""
        facts = (self.dual, self.ascent, self.n_samples, self.n_used)
        if not (self.is_value_due and self.rule.corrects_first(*facts)):
            return False
        is_done = self.correct()
        if not is_done:
            self.rule.corrected(math.inf)
        return is_done

    def look(self, most: float | None = None) -> bool:
        """Evaluate the estimate on fresh points, at most `most` or n_samples; tell if it is right."""
        if self.evaluation.n == 0:
            measure = lambda x, before: self.evaluation_at(x, self.ascent.average, before)
            most = self.n_samples if most is None else most
            found, points = evaluate_sequentially(measure, self.stream.independent, self.rule, most)
            self.evaluation, self.test_points = found, joined(points, self.target.nx)
        return self.rule.note(self.n_iter, self.evaluation)

    def evaluation_at(self, x: Array, psi: Array, before: Measurement | None = None) -> Evaluation:
        """The evaluation of a potential at points that it has not seen, and those measured before."""
        return evaluate(self.dual, x, psi, self.reg, before)

    def decide(self) -> bool:
        """Look; correct if that is cheaper than to draw on, or all that is left to try."""
        if self.look() and self.is_value_right():
            return True
        before, rule = (self.ascent, self.evaluation), self.rule
        rule.wait(self.evaluation, self.n_samples)
        is_left = self.is_last or self.is_stalled
        if (rule.prefers_correction(self.n_used) or is_left) and self.correct(self.test_points):
            if self.look() and self.is_value_right():
                return True
            if self.evaluation.chi2 > before[1].chi2:  # it was right in slow modes alone
                self.ascent, self.evaluation, self.fit = *before, None
            rule.wait(self.evaluation, self.n_samples)
        return False

    def is_value_right(self) -> bool:
        """Whether the value lacks little, too: slow modes, unseen by chi2, are corrected first."""
        if self.options.tol_value == 0.0:
            return True
        self.correct(self.test_points)
        lacks = self.estimates_at(self.test_points).certificate.suboptimality
        self.value_due = self.n_samples * lacks / self.options.tol_value  # it falls as 1 / n
        return self.rule.is_met(self.evaluation) and lacks <= self.options.tol_value

    def correct(self, fresh: Array | None = None) -> bool:
        """Move the estimate to the maximiser over the points kept, if they allow that; tell whether."""
        ascent, n = self.ascent, self.stream.kept.size
        if self.corrected_at == self.n_used or n == 0 or not can_correct(self.dual, n, ascent.n_eff):
            return False
        points, before = self.stream.kept.points(), self.dual.work
        self.fit = None
        self.bar.tell(f"Newton's method on {n:,} points")
        eps = self.reg if ascent.eps <= self.reg else ascent.annealed
        found = maximize(self.dual, points, ascent.average, self.reg, eps=eps)
        self.rule.corrected((self.dual.work - before) / (n * self.dual.n_atoms))
        self.fit, psi = FittedPoints(self.target, points, found), found.potential
        if self.prior is not None or not self.stream.kept.complete:
            start = [] if self.prior is None else [(self.prior, self.n_prior)]
            psi = shrink(self.dual, points, [*start, (ascent.average, self.n_used)], found)
        if not ascent.annealed:
            eps = resolving_eps(self.dual, points, psi, self.reg)
            ascent = replace(ascent, eps=eps, annealed=eps)
        ascent = replace(ascent, potential=psi, average=psi)
        self.ascent, self.evaluation, self.corrected_at = ascent, UNKNOWN, self.n_used
        self.evaluation = UNKNOWN if fresh is None else self.evaluation_at(fresh, psi)
        return True

    def estimate(self) -> None:
        """Prepare estimates by fresh points: they are made when asked for, as a rule."""
        points = self.test_points
        if self.evaluation.n == 0:
            points = self.stream.independent(max(FEW_POINTS, self.n_used // 16))
        self.estimates = self.estimates_at(points)
        # at once where a user's metric may have changed until then, or other ranks be needed for it
        if isinstance(self.target.cost, CallableMetric) or self.target.shard is not None:
            self.estimates = self.estimates.stored()

    def estimates_at(self, points: Array) -> Estimates:
        """Estimates of the present potential, by points that it has not seen."""
        facts = (self.target, self.ascent.average, self.reg, points, self.evaluation, self.fit)
        return Estimates(*facts, self.n_samples, self.bar.verbose)

    def progress(self) -> dict[str, float]:
        """Numbers to show."""
        needed = self.rule.needed(self.ascent, self.most)
        facts = {"reg": self.ascent.eps, "value": (self.values or [math.nan])[-1]}
        return facts | {"chi2": self.rule.last_chi2, "samples": self.n_used, "samples needed": needed}

    def result(self) -> Any:
        """What was reached."""
        target, psi = self.target, self.target.normalized(self.ascent.average)
        counts = counts_of(self, self.rule.history, self.values, self.dual.n_atoms)
        estimates = self.estimates or Estimates(target, psi, self.reg, None, self.evaluation)
        return SemiDiscreteResult(target, psi, self.reg, estimates, status=self.status, **counts)


def state_of(run: Solver) -> SolverState:
    """What the callback sees of a run."""
    facts = (run.n_iter, run.stream.draw.n_samples, run.ascent.eps, run.rule.last_chi2)
    return SolverState(*facts, run.ascent, run.target)


def counts_of(run: Solver, looks: list[Any], values: list[float], n_atoms: int) -> dict[str, Any]:
    """Log and counts of a result of a run, for a problem that has so many of its atoms."""
    n_iter, chi2, stderr = np.array(looks, dtype=float).reshape(-1, 3).T
    log = {"value": np.array(values), "reg": np.array(run.levels)}
    log |= {"check_n_iter": n_iter.astype(int), "check_chi2": chi2, "check_chi2_stderr": stderr}
    n_samples, work = run.stream.draw.n_samples, run.dual.work * (n_atoms / run.dual.n_atoms)
    return {"log": log, "n_iter": run.n_iter, "n_samples": n_samples, "work": work}


def solve_problem(
    problem: Problem,
    source: Sampler,
    options: Options,
    init_potential: Array | None = None,
    verbose: bool = False,
    callback: Callable[[SolverState], Any] | None = None,
    name: str = "solve_semidiscrete",
) -> SemiDiscreteResult:
    """:func:`solve_semidiscrete` of what it has checked, without the warning; `name` is shown."""
    bar = Progress(verbose, options.max_iter, name)
    solver = Solver(problem, Draws(source, problem.target), options, bar)
    ranks = ranks_at(problem.target)
    if callback is not None and ranks is not None:
        callback = ranks.agreed(callback)
    with guarded(solver, bar), joint(ranks):
        solver.run(init_potential, callback)
        solver.estimate()
    return solver.result()
