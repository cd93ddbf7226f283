"""The solver: draw, step, evaluate, decide, stop."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from .backend import Array, guest, joint, ours
from .costs import CallableMetric, Metric
from .inference.bounds import FittedPoints
from .inference.estimates import UNKNOWN, Estimates, StoredEstimates, evaluate
from .inference.trace import shrink
from .kernels import ranks_at
from .optim.ascent import (
    ANNEALING,
    FEW_POINTS,
    AscentState,
    cold_start,
    resolving_eps,
    step,
    warm_start,
)
from .optim.buffer import SampleStream
from .optim.newton import can_correct, maximize
from .optim.options import Options
from .optim.semi_dual import SemiDual
from .optim.stopping import StoppingRule, rule_of
from .problem import Problem, check_bool, check_callable, named_options, resolve_shards, shared
from .result import SemiDiscreteResult, SolverState, warn_shortfall
from .runs import Progress, guarded
from .samplers.base import Sampler
from .samplers.draws import Draws
from .samplers.resolve import rank_seed, resolve_source


class Solver:
    """One run: the state of the ascent, what was evaluated, and the outcome."""

    def __init__(self, problem: Problem, draw: Draws, options: Options, bar: Progress) -> None:
        self.target, self.reg, self.options, self.bar = problem.target, problem.reg, options, bar
        self.dual, self.rule = SemiDual(self.target), rule_of(options.tol, options.sample_cost)
        self.stream = SampleStream(draw, options.batch_size, options.max_memory)
        zero = 0.0 * self.target.weights
        self.ascent = AscentState(zero, zero, self.reg)
        self.prior: Array | None = None  # the user's potential, and the samples it counts for
        self.n_prior = 0.0
        self.n_iter, self.n_used, self.corrected_at = 0, 0, 0
        self.evaluation = UNKNOWN  # of the present estimate, at the points ...
        self.test_points: Array | None = None
        self.fit: FittedPoints | None = None
        self.estimates: Estimates | StoredEstimates | None = None
        self.status, self.most = "max_iter", options.max_iter * options.batch_size
        self.values: list[float] = []
        self.levels: list[float] = []

    def begin(self, psi: Array | None) -> None:
        """Start from nothing, or from the user's potential if it is better.

        It counts for as many samples as its chi2 tells.
        """
        x = self.stream.ahead(FEW_POINTS if psi is not None else 1)
        self.ascent = cold_start(self.dual, x, self.reg)
        if psi is None:
            return
        found = evaluate(self.dual, x, psi, self.reg)
        if self.dual.measure(x, self.ascent.potential, self.reg).value > float(found.value):
            return
        self.prior, self.evaluation, self.test_points = psi, found, x
        self.rule.n_eff = found.n_eff
        self.n_prior = found.n_eff / (max(found.chi2, 0.0) + found.chi2_stderr)
        eps = resolving_eps(self.dual, x, psi, self.reg)
        self.ascent = warm_start(self.dual, psi, eps, self.n_prior, found.n_eff)

    def run(self, callback: Callable[[SolverState], Any] | None) -> None:
        """Draw, step, evaluate, decide, until the tolerance, the callback or `max_iter` says stop."""
        if self.is_good_start():
            self.status = "converged"
            return
        while self.n_iter < self.options.max_iter:
            self.iterate()
            self.bar.update(self.progress)
            if callback is not None and callback(self.state()):
                self.status = "stopped"
                break
            if self.is_look_due() and self.decide():
                self.status = "converged"
                return
        if not self.rule.history or self.status == "stopped":
            self.correct()

    def is_good_start(self) -> bool:
        """Whether the user's potential is good enough: by more points, if it is by a few."""
        if self.prior is None or not self.rule.may_be_met(self.evaluation):
            return False
        self.evaluation = UNKNOWN
        return self.look()

    def iterate(self) -> None:
        """Draw one batch, and take the steps that there are enough points for."""
        self.stream.advance()
        self.n_iter += 1
        value, budget = math.nan, ANNEALING * self.rule.samples(self.most, self.dual.n_atoms)
        while self.stream.n_unused >= (1 if self.is_last else self.ascent.batch):
            x = self.stream.take(self.ascent.batch)
            self.ascent, found = step(self.dual, self.ascent, x, self.reg, budget - self.n_used)
            self.n_used += x.shape[0]
            self.rule.n_eff, self.evaluation, value = found.n_eff, UNKNOWN, found.value
        self.values.append(self.values[-1] if math.isnan(value) and self.values else value)
        self.levels.append(self.ascent.eps)

    @property
    def is_last(self) -> bool:
        """Whether no batch is left to draw."""
        return self.n_iter == self.options.max_iter

    @property
    def n_samples(self) -> float:
        """Samples that the estimate rests on."""
        return self.n_used + self.n_prior

    def is_look_due(self) -> bool:
        """Whether to evaluate: when the samples can be enough, and at the end."""
        due = self.rule.is_due(self.dual, self.ascent, self.n_samples, self.is_last)
        return check_bool(f"tol: is_due of {type(self.rule).__name__}", due)

    def look(self) -> bool:
        """Evaluate the present estimate on fresh points; tell whether it is good enough.

        The points serve the ascent from then on.
        """
        if not self.evaluation.is_known:
            self.evaluate(self.stream.independent(self.rule.look_size(self.n_samples)))
        return self.rule.note(self.n_iter, self.evaluation)

    def evaluate(self, x: Array) -> None:
        """Evaluate the present estimate at points that it has not seen."""
        self.evaluation, self.test_points = evaluate(self.dual, x, self.ascent.average, self.reg), x

    def decide(self) -> bool:
        """Look; correct if that is cheaper than to draw on, or the last chance."""
        if self.look() and self.is_value_right():
            return True
        before = self.ascent, self.evaluation
        if (self.rule.prefers_correction(self.n_used) or self.is_last) and self.correct():
            self.evaluate(self.test_points)
            if self.look() and self.is_value_right():
                return True
            if self.evaluation.chi2 > before[1].chi2:  # it was right in slow modes alone
                self.ascent, self.evaluation, self.fit = *before, None
        self.rule.wait(self.evaluation, self.n_samples)
        return False

    def is_value_right(self) -> bool:
        """Whether the value lacks little, too: slow modes, unseen by chi2, are corrected first."""
        if self.options.tol_value == 0.0:
            return True
        if self.correct():
            self.evaluate(self.test_points)
        lacks = self.estimates_at(self.test_points).certificate.suboptimality
        return self.rule.is_met(self.evaluation) and lacks <= self.options.tol_value

    def correct(self) -> bool:
        """Move the estimate to the maximiser over the points kept; tell whether that was possible."""
        ascent, n = self.ascent, self.stream.kept.n
        if self.corrected_at == self.n_used or not can_correct(self.dual, n, self.rule.n_eff):
            return False
        points, self.fit, before = self.stream.kept.points(), None, self.dual.work
        self.bar.tell(f"Newton's method on {n:,} points")
        eps = self.reg if ascent.eps <= self.reg else ascent.annealed
        found = maximize(self.dual, points, ascent.average, self.reg, eps=eps)
        self.rule.corrected((self.dual.work - before) / (n * self.dual.n_atoms))
        self.fit, psi = FittedPoints(self.target, points, found), found.potential
        if self.prior is not None or not self.stream.kept.complete:
            prior = ascent.average if self.prior is None else self.prior
            psi = shrink(self.dual, points, prior, found, self.reg, ascent.eps)
        if not ascent.annealed:
            eps = resolving_eps(self.dual, points, psi, self.reg)
            ascent = replace(ascent, eps=eps, annealed=eps)
        self.ascent = replace(ascent, potential=psi, average=psi)
        self.corrected_at, self.evaluation = self.n_used, UNKNOWN
        return True

    def estimate(self) -> None:
        """Tell what was reached, by fresh points that are drawn now: as it is asked for, mostly.

        At once where a user's metric may have changed until then, or other ranks be needed for it.
        """
        points = self.test_points
        if not self.evaluation.is_known or points is None:
            points = self.stream.independent(max(FEW_POINTS, self.n_used // 16), again=False)
        self.estimates = estimates = self.estimates_at(points)
        if isinstance(self.target.cost, CallableMetric) or self.target.shard is not None:
            self.estimates = estimates.stored()

    def estimates_at(self, points: Array) -> Estimates:
        """Estimates of the present potential, by points that it has not seen."""
        facts = (self.target, self.ascent.average, self.reg, points, self.evaluation, self.fit)
        return Estimates(*facts, self.n_samples)

    @property
    def chi2(self) -> float:
        """That of the last look."""
        return self.rule.history[-1][1] if self.rule.history else math.nan

    def state(self) -> SolverState:
        """What the callback sees."""
        facts = (self.n_iter, self.stream.draw.n_samples, self.ascent.eps, self.chi2)
        return SolverState(*facts, self.ascent, self.target)

    def progress(self) -> dict[str, float]:
        """Numbers to show."""
        needed = self.rule.needed(self.ascent, self.most)
        facts = {"reg": self.ascent.eps, "value": (self.values or [math.nan])[-1], "chi2": self.chi2}
        return facts | {"samples": self.n_used, "samples needed": needed}

    def result(self) -> SemiDiscreteResult:
        """What was reached."""
        looks, psi = np.array(self.rule.history, dtype=float).reshape(-1, 3), self.ascent.average
        return SemiDiscreteResult(
            self.target,
            self.target.zero_mean(psi),
            self.reg,
            self.estimates or Estimates(self.target, psi, self.reg, None, self.evaluation),
            status=self.status,
            n_iter=self.n_iter,
            n_samples=self.stream.draw.n_samples,
            work=self.dual.work,
            log={
                "value": np.array(self.values),
                "reg": np.array(self.levels),
                "check_n_iter": looks[:, 0].astype(int),
                "check_chi2": looks[:, 1],
                "check_chi2_stderr": looks[:, 2],
            },
        )


@named_options
def solve_semidiscrete(
    X_target: Array,
    sampler_source: Callable | str | Array = "unif",
    a_target: Array | None = None,
    metric: Metric = None,
    reg: float = 0.0,
    *,
    tol: float | StoppingRule = 0.1,
    max_iter: int = 10_000,
    batch_size: int = 256,
    init_potential: Array | None = None,
    max_memory: int = 2**28,
    sample_cost: float = 0.0,
    tol_value: float = 0.0,
    random_state: Any = None,
    verbose: bool = False,
    callback: Callable[[SolverState], Any] | None = None,
    process_group: Any = None,
) -> SemiDiscreteResult:
    r"""Solve semi-discrete optimal transport: averaged ascent, and Newton's method on its samples.

    .. math::
        \mathrm{OT}_\lambda(\mu, \nu) = \max_\psi\;
        \mathbb{E}_{x \sim \mu}\, \psi^{c,\lambda}(x) + \langle b, \psi \rangle,
        \qquad \nu = \sum_j b_j \delta_{y_j} .

    The regularisation falls from a cost measured on the first points; from then on iterates are
    averaged. Where that is cheaper, Newton's method on the points drawn corrects the average. No
    default depends on the scale of the data (see :doc:`/algorithm`).

    Parameters
    ----------
    X_target : array, shape (n_atoms, d)
        Atoms :math:`y_j`; their backend, dtype and device are those of the computation.
        :class:`StoredAtoms` and :class:`ShardedAtoms` are not, or not all, in memory.
    sampler_source : callable, str, law, loader or array of shape (n, d), default="unif"
        Source :math:`\mu`: a callable ``n -> (n, d)`` array in the backend of `X_target` (a torch
        generator is called without gradient); a name, ``"unif"`` (``"unif_cube"``), ``"ball"``
        (``"unif_ball"``), ``"spherical"`` (of uniform radius) or ``"normal"``; a frozen law of
        ``scipy.stats``, a distribution or a ``DataLoader`` of torch; or points themselves, drawn
        uniformly with replacement. A :class:`samplers.SobolSampler` draws quasi-random points: far more
        accurate in dimension 1 or 2, still more accurate in 10.
    a_target : array, shape (n_atoms,), optional
        Weights :math:`b`, non-negative, of sum 1. Uniform by default. Atoms of weight 0 are left
        out: their potential is 0.
    metric : str, callable or Cost, optional
        Ground cost, as in :func:`semidiscrete_c_transform`. ``"sqeuclidean"`` by default.
    reg : float, default=0.0
        Regularisation :math:`\lambda \ge 0`, in units of the metric (see :func:`cost_scale`, and
        :doc:`/choosing`). Below the rounding of the costs it is taken as 0.
    tol : float or StoppingRule, default=0.1
        Stop when the relative error of the masses, :math:`(\sum_j (m_j - b_j)^2 / b_j)^{1/2}`, is
        below `tol` with 95% confidence on fresh samples. That takes about ``N_eff / tol**2`` points,
        with ``N_eff <= n_atoms``. The default is a `chi2` of 0.01; couplings for flow matching are
        content with 0.05 (Mousavi-Hosseini et al.). 0 runs exactly `max_iter` batches. For
        another rule see :class:`optim.stopping.StoppingRule`.
    max_iter : int, default=10000
        Largest number of batches.
    batch_size : int, default=256
        Source points drawn at once; a step takes as many as the noise of the gradient asks for.
    init_potential : array, shape (n_atoms,), optional
        Potential to continue from. It counts for as many samples as its error on new points tells.
    max_memory : int, default=2**28
        Bytes of source points to keep for Newton's method, the newest ones. 0 leaves it out.
    sample_cost : float, default=0.0
        What drawing a point costs, in units of evaluating it at all atoms once.
    tol_value : float, default=0.0
        If it is positive, stop only if the value lacks no more either (``result.suboptimality``), in
        units of the metric: in low dimension slow modes, which the masses do not show, may leave it
        short. They are what Newton's method corrects.
    random_state : None, int, numpy Generator or RandomState, or torch Generator
        Randomness of named and array sources. Global generators are never touched.
    verbose : bool, default=False
        Show a progress bar (tqdm's if it is installed), with the samples and the seconds that `tol`
        should take. If not, a run of over 2 seconds tells them to :mod:`logging`, at level INFO.
    callback : callable, optional
        Called with a :class:`SolverState` after each batch; stops the run by returning True.
    process_group : torch.distributed.ProcessGroup, optional
        Processes that all make this call, with the same arguments: each draws its part of a batch and
        reduces its part of the points, and all get the same result (see :doc:`/distributed`). A source
        with a `random_state` has another stream on each; a callable must draw other points on each.
        The callback is called on each, and stops the run if one returns True. That of
        :class:`ShardedAtoms` need not be given.

    Returns
    -------
    SemiDiscreteResult
        Potential, estimates on fresh samples (``value_interval`` holds the transport cost with 95%
        confidence, ``chi2`` is the squared marginal error, ``suboptimality`` what the value lacks:
        more than chi2 suggests in low dimension), and why the run ended.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape, dtype or range. An exception of the sampler or
        the callback passes through with what was reached as its attribute ``partial_result``.
    RuntimeError
        On the other ranks of a `process_group`, of which one raised an exception, died, or does not
        answer within the time-out of the group; with ``partial_result``, too.

    Warns
    -----
    SemiDiscreteWarning
        If `tol` was not reached; it says how many more points that would take.

    References
    ----------
    Houdard, Leclaire, Papadakis, Rabin, arXiv:2102.05542 (the semi-discrete setting);
    Genevay, Cuturi, Peyre, Bach, "Stochastic Optimization for Large-scale Optimal Transport",
    NeurIPS 2016; Mousavi-Hosseini, Zhang, Klein, Cuturi, arXiv:2509.25519 (to stop by `chi2`).

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
    more = {"max_memory": max_memory, "sample_cost": sample_cost, "tol_value": tol_value}
    options = Options.checked(tol, max_iter, batch_size, **more)
    if callback is not None:
        callback = guest(check_callable("callback", callback, "of the state"))
    with ours():  # no decorator, whose frame the warning would point to
        X_target, ranks = resolve_shards(X_target, process_group)
        with joint(ranks):
            problem = Problem.of(X_target, a_target, metric, reg)
            init_potential = problem.init_potential(init_potential)
            problem = Problem(problem.target.copy(), problem.reg)
            problem = shared(problem, ranks, init_potential, **vars(options))
            random_state = rank_seed(problem.target, random_state)
            source = resolve_source(sampler_source, problem.target.like, random_state)
            result = solve_problem(problem, source, options, init_potential, verbose, callback)
        warn_shortfall(result, options.tol, 4)
    return result


def solve_problem(
    problem: Problem,
    source: Sampler,
    options: Options,
    init_potential: Array | None = None,
    verbose: bool = False,
    callback: Callable[[SolverState], Any] | None = None,
) -> SemiDiscreteResult:
    """:func:`solve_semidiscrete` of what it has checked, without the warning."""
    bar = Progress(verbose, options.max_iter, "solve_semidiscrete")
    solver = Solver(problem, Draws(source, problem.target), options, bar)
    ranks = ranks_at(problem.target)
    if callback is not None and ranks is not None:
        callback = ranks.agreed(callback)
    with guarded(solver, bar), joint(ranks):
        solver.begin(init_potential)
        solver.run(callback)
        solver.estimate()
    return solver.result()
