"""Several problems of one source, solved at once: of few atoms, little of the time is in products."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from ..backend import Array, Backend, is_foreign, joined
from ..inference.estimates import UNKNOWN, Estimates, Evaluation, evaluate_parts
from ..optim.semi_dual import Measurement, SemiDual
from ..problem import Problem, StackedTarget, rounding_of
from ..result import SemiDiscreteResult
from ..runs import Progress, guarded
from ..samplers.base import Sampler
from ..samplers.draws import Draws
from .options import Options
from .run import Solver, counts_of, solve_problem


class StackedSolver(Solver):
    """A run for the mean of several semi-duals, in which each problem ends as soon as it meets the rule.

    When to look is decided by the mean of what the last look found at those that are left.

    Attributes
    ----------
    left : list of int
        Problems that have not met the rule.
    results : dict of SemiDiscreteResult
        Of those that have, by their numbers.
    """

    def __init__(self, problems: Sequence[Problem], source: Sampler, options: Options, bar: Any) -> None:
        self.targets = [problem.target for problem in problems]
        self.left, self.results = list(range(len(problems))), dict[int, SemiDiscreteResult]()
        self.looks: list[list[tuple[int, float, float]]] = [[] for _ in problems]
        self.problem_values: list[list[float]] = [[] for _ in problems]
        self.evaluations: list[Evaluation] = []
        self.looked_at = 0.0  # samples
        target = StackedTarget.of(self.targets)
        draw = Draws(source, target)
        super().__init__(Problem(target, problems[0].reg), draw, replace(options, max_memory=0), bar)

    def evaluation_at(self, x: Array, psi: Array, before: Measurement | None = None) -> Evaluation:
        """The mean of the evaluations of the problems."""
        targets = [self.targets[k] for k in self.left]
        parts, measured = evaluate_parts(self.dual, targets, x, psi, self.reg, before)
        self.evaluations = parts
        return _mean(parts, measured)

    def iterate(self) -> None:
        """Draw, and take steps; log the value of each problem that is left."""
        super().iterate()
        last = [(self.problem_values[k] or [math.nan])[-1] for k in self.left]
        found = last if self.measured is None else self.dual.values(*self.measured)
        for k, value in zip(self.left, found, strict=True):
            self.problem_values[k].append(value)

    def is_look_due(self) -> bool:
        """Whether the mean is due, or twice the samples were taken: slow modes of some keep it up."""
        n_last = self.looked_at or 2.0 * self.budget  # the noise of its points takes nearly that
        return super().is_look_due() or self.n_samples >= 2.0 * n_last

    def look(self, most: float | None = None) -> bool:
        """Evaluate the problems, and end those that are good enough; tell whether all are."""
        super().look(most)
        self.looked_at = self.n_samples
        for k, found in zip(self.left, self.evaluations, strict=True):
            self.looks[k].append((self.n_iter, found.chi2, found.chi2_stderr))
        is_met = [self.rule.is_met(found) for found in self.evaluations]
        for number, k in enumerate(self.left):
            if is_met[number]:
                self.results[k] = self.result_at(number, "converged")
        is_done = all(is_met)
        if is_done:
            self.left = []
        else:
            self.keep([number for number, done in enumerate(is_met) if not done])
            self.rule.learn(self.evaluation)
        return is_done

    def decide(self) -> bool:
        """Look; end, too, where the rest is for Newton's method, which takes one problem at a time."""
        if self.look():
            return True
        self.rule.wait(self.evaluation, self.n_samples)
        return self.rule.prefers_correction(self.n_used)

    def correct(self, fresh: Array | None = None) -> bool:
        """Nothing: see :meth:`decide`."""
        return False

    def keep(self, numbers: list[int]) -> None:
        """Go on with some of the problems that are left."""
        ratio = len(self.left) / len(numbers)
        choose = lambda v: (
            v
            if isinstance(v, float)
            else joined([v[self.columns[number]] for number in numbers], self.target.nx)
        )
        state = self.ascent  # whose sums of weights are of chi^k / K
        potential, average, drift = map(choose, (state.potential, state.average, state.drift))
        mass, square = ratio * choose(state.mass), ratio**2 * choose(state.square)
        ascent = replace(
            state, potential=potential, average=average, drift=drift, mass=mass, square=square
        )
        left = [self.left[number] for number in numbers]
        evaluations = [self.evaluations[number] for number in numbers]
        dual = SemiDual(StackedTarget.of([self.targets[k] for k in left]))
        dual.work = self.dual.work / self.dual.n_atoms * dual.n_atoms  # of those that are left
        # an interrupt comes before or after
        self.left, self.ascent, self.target, self.dual = left, ascent, dual.target, dual
        self.evaluations, self.evaluation, self.measured = evaluations, _mean(evaluations), None

    @property
    def columns(self) -> list[slice]:
        """Atoms of each of the problems that are left."""
        return cast(StackedTarget, self.target).columns

    def result_at(self, number: int, status: str) -> SemiDiscreteResult:
        """The result of one of the problems that are left."""
        k, psi = self.left[number], self.ascent.average[self.columns[number]]
        target, points, found = self.targets[k], None, UNKNOWN
        if status == "converged":
            points, found = self.test_points, self.evaluations[number]
        facts = (target, psi, self.reg, points, found, None, self.n_samples, self.bar.verbose)
        counts = counts_of(self, self.looks[k], self.problem_values[k], psi.shape[0])
        psi = target.normalized(psi)
        return SemiDiscreteResult(target, psi, self.reg, Estimates(*facts), status=status, **counts)

    def result(self) -> list[SemiDiscreteResult]:
        """What was reached for each problem."""
        more = {k: self.result_at(number, self.status) for number, k in enumerate(self.left)}
        return [result for _, result in sorted((self.results | more).items())]


def _mean(evaluations: list[Evaluation], measured: Measurement | None = None) -> Evaluation:
    """What is expected of one of several problems."""
    names = ("chi2", "chi2_stderr", "marginal_error", "marginal_error_stderr", "n_eff", "value")
    mean = lambda name: float(np.mean([float(getattr(found, name)) for found in evaluations]))
    means: dict[str, Any] = {name: mean(name) for name in names}
    return Evaluation(n=evaluations[0].n, measured=measured, **means)


def can_stack(problems: Sequence[Problem]) -> bool:
    """Whether problems have one `reg`, a kernel of the package's own, and one origin without loss.

    About the common origin squares are larger than about their own: by 2 bits at most.
    """
    targets, nx = [problem.target for problem in problems], problems[0].nx
    if len({problem.reg for problem in problems}) > 1 or is_foreign(targets[0].kernel):
        return False
    origins = np.stack([nx.to_numpy(target.origin).astype(float) for target in targets])
    far = ((origins - origins.mean(axis=0)) ** 2).sum(axis=1).max()
    return bool(far <= 4.0 * np.median([rounding_of(target) / target.unit for target in targets]))


def solve_stacked(
    problems: Sequence[Problem],
    source: Sampler,
    options: Options,
    init_potentials: Sequence[Array | None],
    verbose: bool = False,
    name: str = "solve_semidiscrete",
) -> list[SemiDiscreteResult]:
    """:func:`solve_problem` of several problems of one source, cost and `reg`, by a tolerance.

    Of two iterations or more. Those that take more samples than the others, or Newton's method, are
    finished one by one.
    """
    nx: Backend = problems[0].nx
    origins: list[Array] = [problem.target.origin for problem in problems]
    origin = sum(origins) / float(len(problems))  # so that they have the points in common
    moved = [replace(problem, target=problem.target.moved(origin)) for problem in problems]
    bar = Progress(verbose, options.max_iter, name)
    # an iteration is left to those that are finished one by one
    most = replace(options, max_iter=options.max_iter - 1)
    solver = StackedSolver(moved, source, most, bar)
    with guarded(solver, bar):
        solver.run(None if init_potentials[0] is None else joined(init_potentials, nx))
    if solver.status == "interrupted":
        return solver.result()
    rest = replace(options, max_iter=max(options.max_iter - solver.n_iter, 1))
    for number, k in enumerate(solver.left):
        before = solver.result_at(number, solver.status)
        start = solver.ascent.average[solver.columns[number]]
        found = solver.results[k] = solve_problem(problems[k], source, rest, start, verbose, None, name)
        _continue(before, found)
        if found.status == "interrupted":
            rest = replace(rest, max_iter=1)
    solver.left = []
    return solver.result()


def _continue(before: SemiDiscreteResult, found: SemiDiscreteResult) -> None:
    """Count what was done before a result was finished alone."""
    offset = {"check_n_iter": before.n_iter}
    for name, values in found.log.items():
        found.log[name] = np.concatenate([before.log[name], values + offset.get(name, 0)])
    found.n_iter += before.n_iter
    found.n_samples += before.n_samples
    found.work += before.work
