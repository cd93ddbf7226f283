"""The solver: draw, step, evaluate, decide, stop."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .backend import Array
from .costs import CallableMetric
from .inference.bounds import FittedPoints
from .inference.estimates import Estimates, evaluate
from .inference.trace import trace_estimate
from .optim.ascent import ANNEALING, FEW_POINTS, AscentState, cold_start, resolving_eps, step, warm_start
from .optim.buffer import SampleBuffer, SampleQueue
from .optim.hessian import most_rows
from .optim.newton import ROWS, maximize
from .optim.semi_dual import SemiDual
from .optim.stopping import rule_of
from .problem import Problem, Target, check_callable, check_count, check_real
from .result import SemiDiscreteResult
from .runs import Progress, SemiDiscreteWarning, guarded
from .samplers.base import Sampler
from .samplers.draws import Draws
from .samplers.resolve import resolve_source


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
    _ascent: Any
    _target: Any

    @property
    def potential(self) -> Array:
        """Present estimate, as in the result."""
        return self._target.scatter(self._target.zero_mean(self._ascent.average))


class Solver:
    """One run: the state of the ascent, what was evaluated, and the outcome.

    Parameters
    ----------
    target : Target
    draw : Draws
    reg, tol, sample_cost, tol_value : float
    max_iter, batch_size, max_memory : int
    """

    def __init__(
        self,
        target: Target,
        draw: Draws,
        reg: float,
        tol: float,
        max_iter: int,
        batch_size: int,
        max_memory: int,
        sample_cost: float,
        tol_value: float,
    ) -> None:
        self.target, self.draw, self.reg = target, draw, reg
        self.max_iter, self.batch_size, self.tol_value = max_iter, batch_size, tol_value
        self.dual, self.rule = SemiDual(target), rule_of(tol, sample_cost)
        self.kept, self.unused = SampleBuffer(max_memory, target.nx), SampleQueue(target.nx)
        self.drawn: list[Array] = []  # batches of looks, which come next
        self.ascent: AscentState | None = None
        self.prior, self.n_prior = None, 0.0  # the user's potential, and the samples it counts for
        self.n_iter, self.n_used, self.corrected_at = 0, 0, 0
        self.evaluation, self.test_points = None, None  # of the present estimate
        self.status, self.fit, self.estimates = "max_iter", None, None
        self.found, self.values, self.levels = None, [], []

    def run(self, callback: Callable | None, bar: Progress) -> None:
        """Draw, step, evaluate, decide, until the tolerance, the callback or `max_iter` says stop."""
        if self.is_good_start():
            self.status = "converged"
            return
        while self.n_iter < self.max_iter:
            self.iterate()
            bar.update(self.progress)
            if callback is not None and callback(self.state()):
                self.status = "stopped"
                break
            if self.is_look_due() and self.decide():
                self.status = "converged"
                return
        if not self.rule.history or self.status == "stopped":
            self.correct()

    def begin(self, psi: Array) -> None:
        """Start from the user's potential, which counts for as many samples as its chi2 tells.

        Not if it is worse than knowing nothing.
        """
        batches, x = self.fresh(self.draw, FEW_POINTS)
        self.drawn += batches
        cold, found = cold_start(self.dual, x, self.reg), evaluate(self.dual, x, psi, self.reg)
        if self.dual.measure(x, cold.potential, self.reg).value > found.measured.value:
            self.ascent = cold
            return
        self.prior, self.evaluation, self.test_points = psi, found, x
        self.rule.n_eff = found.n_eff
        self.n_prior = found.n_eff / (max(found.chi2, 0.0) + found.chi2_stderr)
        eps = resolving_eps(self.dual, x, psi, self.reg)
        self.ascent = warm_start(self.dual, psi, eps, self.n_prior, found.n_eff)

    def is_good_start(self) -> bool:
        """Whether the user's potential is good enough: by more points, if it is by a few."""
        if self.prior is None or not self.rule.may_be_met(self.evaluation):
            return False
        self.evaluation = None
        return self.look()

    def iterate(self) -> None:
        """Draw one batch, and take the steps that there are enough points for."""
        x = self.drawn.pop(0) if self.drawn else self.draw(self.batch_size)
        self.n_iter += 1
        self.kept.add(x)
        self.unused.add(x)
        if self.ascent is None:
            self.ascent = cold_start(self.dual, x, self.reg)
        budget = self.rule.budget(self.max_iter * self.batch_size, self.dual.n_atoms)
        while self.unused.size >= self.ascent.batch or (self.is_last and self.unused.size > 0):
            x = self.unused.take(self.ascent.batch)
            left = ANNEALING * budget - self.n_used
            self.ascent, self.found = step(self.dual, self.ascent, x, self.reg, left)
            self.n_used += x.shape[0]
            self.rule.n_eff, self.evaluation = self.found.n_eff, None
        self.values.append(self.found.value if self.found else math.nan)
        self.levels.append(self.ascent.eps)

    @property
    def n_samples(self) -> float:
        """Samples that the estimate rests on."""
        return self.n_used + self.n_prior

    def is_look_due(self) -> bool:
        """Whether to evaluate: when the samples can be enough, and at the end."""
        return self.rule.is_due(self.dual, self.ascent, self.n_samples, self.is_last)

    @property
    def is_last(self) -> bool:
        """Whether no batch is left to draw."""
        return self.n_iter == self.max_iter

    def look(self) -> bool:
        """Evaluate the present estimate on fresh points; tell whether it is good enough.

        The points serve the ascent from then on.
        """
        if self.evaluation is None:
            n = max(int(min(self.rule.n_points, self.n_samples)), FEW_POINTS)
            batches, x = self.fresh(self.draw.independent, n)
            self.evaluate(x)
            if not self.draw.are_quasi_random:
                self.drawn += batches
        return self.rule.note(self.n_iter, self.evaluation)

    def fresh(self, draw: Callable, n: int) -> tuple[list[Array], Array]:
        """About n source points, in two batches at least, and all of them in one array.

        Batches have the size of the run: batch normalisation makes the law depend on it.
        """
        batches, drawn = [], 0
        while drawn < n or len(batches) < 2:  # a sampler may return fewer points than asked for
            batches.append(draw(self.batch_size))
            drawn += batches[-1].shape[0]
        return batches, self.target.nx.concatenate(batches, axis=0)

    def evaluate(self, x: Array) -> None:
        """Evaluate the present estimate at points that it has not seen."""
        self.evaluation, self.test_points = evaluate(self.dual, x, self.ascent.average, self.reg), x

    def decide(self) -> bool:
        """Look; correct if that is cheaper than to draw on, or the last chance."""
        if self.look() and self.is_value_right():
            return True
        dear = self.rule.prefers_correction(self.n_used)
        if (dear or self.is_last) and self.correct():
            self.evaluate(self.test_points)
            if self.look() and self.is_value_right():
                return True
        self.rule.wait(self.evaluation, self.n_samples)
        return False

    def is_value_right(self) -> bool:
        """Whether the value lacks little, too: slow modes, unseen by chi2, are corrected first."""
        if self.tol_value == 0.0:
            return True
        if self.correct():
            self.evaluate(self.test_points)
        found = self.estimates_at(self.test_points).certificate
        return self.rule.is_met(self.evaluation) and found.suboptimality <= self.tol_value

    def correct(self) -> bool:
        """Move the estimate to the maximiser over the points kept; tell whether that was possible.

        With fewer points than effective atoms there is nothing to correct by.
        """
        points, ascent, n_atoms = self.kept.points(), self.ascent, self.dual.n_atoms
        if points is None or self.corrected_at == self.n_used:
            return False
        n, wanted = points.shape[0], ROWS * self.rule.n_eff
        if self.rule.n_eff > n or min(n, wanted) > 2.0 * most_rows(self.dual):
            return False
        self.fit, before = None, self.dual.work
        eps = self.reg if ascent.eps <= self.reg else ascent.annealed
        found = maximize(self.dual, points, ascent.average, self.reg, eps=eps)
        self.rule.corrected((self.dual.work - before) / (n * n_atoms))
        self.fit, psi = FittedPoints(self.target, points, found), found.potential
        if self.prior is not None or not self.kept.complete:
            psi = self.shrink(points, psi, found.measured.value)
        if not ascent.annealed:
            eps = resolving_eps(self.dual, points, psi, self.reg)
            ascent = replace(ascent, eps=eps, annealed=eps)
        self.ascent = replace(ascent, potential=psi, average=psi)
        self.corrected_at, self.evaluation = self.n_used, None
        return True

    def shrink(self, points: Array, psi: Array, value: float) -> Array:
        """A correction of a potential that rests on other points, too: as far as it is to be trusted.

        Newton's method gains ``trace / (2 n)`` by chance; the share of its gain that is more than twice
        as much is the share of the way to go (James and Stein, 1961).
        """
        prior = self.ascent.average if self.prior is None else self.prior
        gain = value - self.dual.measure(points, prior, self.reg).value
        chance = trace_estimate(self.dual, points, psi, self.ascent.eps) / points.shape[0]
        share = max(0.0, 1.0 - chance / max(gain, 1e-300))
        return prior + share * (psi - prior)

    def estimate(self) -> None:
        """Tell what was reached, by fresh points that are drawn now: as it is asked for, mostly.

        At once where much would have to be kept until then, or a user's metric may have changed.
        """
        points = self.test_points
        if self.evaluation is None:
            _, points = self.fresh(self.draw.independent, max(FEW_POINTS, self.n_used // 16))
        self.estimates = self.estimates_at(points)
        if self.estimates.are_large or isinstance(self.target.cost, CallableMetric):
            self.estimates.settle()

    def estimates_at(self, points: Array) -> Estimates:
        """Estimates of the present potential, by points that it has not seen."""
        facts = (self.target, self.ascent.average, self.reg, points, self.evaluation, self.fit)
        return Estimates(*facts, self.n_samples)

    def state(self) -> SolverState:
        """What the callback sees."""
        chi2 = self.rule.history[-1][1] if self.rule.history else math.nan
        ascent = self.ascent
        return SolverState(self.n_iter, self.draw.n_samples, ascent.eps, chi2, ascent, self.target)

    def progress(self) -> dict[str, float]:
        """Numbers to show."""
        if self.ascent is None:
            return {}
        facts = {"reg": self.ascent.eps, "value": self.found.value if self.found else math.nan}
        return facts | ({"chi2": self.rule.history[-1][1]} if self.rule.history else {})

    def result(self) -> SemiDiscreteResult:
        """What was reached."""
        target = self.target
        psi = self.ascent.average if self.ascent else 0.0 * target.weights
        looks = np.array(self.rule.history, dtype=float).reshape(-1, 3)
        log = {
            "value": np.array(self.values),
            "reg": np.array(self.levels),
            "check_n_iter": looks[:, 0].astype(int),
            "check_chi2": looks[:, 1],
            "check_chi2_stderr": looks[:, 2],
        }
        return SemiDiscreteResult(
            target,
            target.zero_mean(psi),
            self.reg,
            self.estimates or Estimates(target, psi, self.reg, None, self.evaluation),
            status=self.status,
            n_iter=self.n_iter,
            n_samples=self.draw.n_samples,
            work=self.dual.work,
            log=log,
        )


def solve_semidiscrete(
    X_target,
    sampler_source="unif",
    a_target=None,
    metric=None,
    reg=0.0,
    *,
    tol=0.1,
    max_iter=10_000,
    batch_size=256,
    init_potential=None,
    max_memory=2**28,
    sample_cost=0.0,
    tol_value=0.0,
    random_state=None,
    verbose=False,
    callback=None,
):
    r"""Solve semi-discrete optimal transport: averaged ascent, and Newton's method on its samples.

    .. math::
        \mathrm{OT}_\lambda(\mu, \nu) = \max_\psi\;
        \mathbb{E}_{x \sim \mu}\, \psi^{c,\lambda}(x) + \langle b, \psi \rangle,
        \qquad \nu = \sum_j b_j \delta_{y_j} .

    The regularisation falls from a cost measured on the first points; from then on iterates are
    averaged. Where that is cheaper than drawing on, Newton's method on the points drawn corrects the
    average. No default depends on the scale of the data (see :doc:`/algorithm`).

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
        Regularisation :math:`\lambda \ge 0`, in units of the metric: see :func:`cost_scale`. Below
        the rounding of the costs it is taken as 0.
    tol : float, default=0.1
        Stop when the relative error of the masses, :math:`(\sum_j (m_j - b_j)^2 / b_j)^{1/2}`, is
        below `tol` with 95% confidence on fresh samples. That takes about ``N_eff / tol**2`` points,
        with ``N_eff <= n_atoms``. The default is a `chi2` of 0.01; couplings for flow matching are
        content with 0.05 (Mousavi-Hosseini et al.). 0 runs exactly `max_iter` batches.
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
        Show a progress bar (tqdm's if it is installed).
    callback : callable, optional
        Called with a :class:`SolverState` after each batch; stops the run by returning True.

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

    Warns
    -----
    SemiDiscreteWarning
        If `tol` was not reached; it says how many more points that would take.

    References
    ----------
    Houdard, Leclaire, Papadakis, Rabin, arXiv:2102.05542 (the semi-discrete setting);
    Genevay, Cuturi, Peyre, Bach, "Stochastic Optimization for Large-scale Optimal Transport",
    NeurIPS 2016; Mousavi-Hosseini, Zhang, Klein, Cuturi, arXiv:2509.25519 (flow matching).

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
    sample_cost = check_real("sample_cost", sample_cost)
    tol_value = check_real("tol_value", tol_value)
    if callback is not None:
        check_callable("callback", callback, "of the state")
    problem = Problem.of(X_target, a_target, metric, reg)
    init_potential = problem.init_potential(init_potential)
    target, reg = problem.target.copy(), problem.reg
    source = resolve_source(sampler_source, target, random_state)
    options = (reg, tol, max_iter, batch_size, max_memory, sample_cost, tol_value)
    result = solve_target(target, source, *options, init_potential, verbose, callback)
    warn_shortfall(result, tol)
    return result


def solve_target(
    target: Target,
    source: Sampler,
    reg: float,
    tol: float,
    max_iter: int,
    batch_size: int,
    max_memory: int = 2**28,
    sample_cost: float = 0.0,
    tol_value: float = 0.0,
    init_potential: Array | None = None,
    verbose: bool = False,
    callback: Callable | None = None,
) -> SemiDiscreteResult:
    """:func:`solve_semidiscrete` of a built target and a resolved source, without the warning."""
    draw = Draws(source, target)
    options = (max_iter, batch_size, max_memory, sample_cost, tol_value)
    solver = Solver(target, draw, reg, tol, *options)
    bar = Progress(verbose, max_iter, "solve_semidiscrete")
    with guarded(solver, bar):
        if init_potential is not None:
            solver.begin(init_potential)
        solver.run(callback, bar)
        solver.estimate()
    return solver.result()


def warn_shortfall(result: SemiDiscreteResult, tol: float) -> None:
    """Say how far a run ended from its tolerance, and what it would take to reach it."""
    if tol == 0 or result.status not in ("max_iter", "interrupted"):
        return
    reached, needed = result._estimates.evaluation.bound, ""
    if math.isnan(reached):
        words = "before its error was measured"
    else:
        words = f"with a relative marginal error of up to {reached**0.5:.3g} (95%)"
        if reached > tol**2:
            more = (reached / tol**2 - 1.0) * result.n_samples
            needed = f" As it falls with the samples, it needs about {more:.2g} more source points."
        if result.reg == 0 and reached > tol**2:
            needed += (
                " At reg = 0 it never will where source points tie between atoms, as for distances on a "
                "line: the plan is not unique there, and a positive reg makes it so."
            )
    warnings.warn(
        f"solve_semidiscrete ended ({result.status}) {words}, tol is {tol:.3g}.{needed} Raise max_iter, "
        "batch_size, reg or tol, or continue from init_potential=result.potential.",
        SemiDiscreteWarning,
        stacklevel=3,
    )
