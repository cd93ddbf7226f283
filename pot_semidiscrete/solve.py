"""The public door of the solver."""

from collections.abc import Callable
from typing import Any

from .backend import Array, guest, joint, ours
from .costs import Metric
from .optim.stopping import StoppingRule
from .problem import Problem, check_bool, check_callable, named_options, resolve_shards, shared
from .result import SemiDiscreteResult, SolverState, warn_shortfall
from .samplers.resolve import rank_seed, resolve_source
from .solver import Options, solve_problem


@named_options
def solve_semidiscrete(
    X_target: Array,
    sampler_source: Callable | str | Array = "unif",
    a_target: Array | None = None,
    metric: Metric = None,
    reg: float = 0.0,
    *,
    reg_m: float | None = None,
    reg_m_type: str = "kl",
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

    The regularisation falls from a cost measured on the first points to `reg`; then iterates are
    averaged. Where that is cheaper than more samples, Newton's method on the points drawn corrects the
    average. No default depends on the scale of the data (see :doc:`/algorithm`).

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
    reg_m : float, optional
        Price of masses m other than b, in units of the metric: m minimises the transport cost plus
        :math:`\mathrm{reg\_m} \cdot \mathrm{KL}(m \,|\, b)`, as in
        :func:`ot.unbalanced.sinkhorn_unbalanced` with ``reg_m=(inf, reg_m)``; the law of the source is
        kept. An outlier gets little mass if its extra cost is much larger. None or ``inf``: ``m = b``.
    reg_m_type : "kl"
        The divergence of the masses.
    tol : float or StoppingRule, default=0.1
        Stop when the relative error of the masses, :math:`(\sum_j (m_j - b_j)^2 / b_j)^{1/2}`, is
        below `tol` with 95% confidence on fresh samples. That takes about ``N_eff / tol**2`` points,
        with ``N_eff <= n_atoms``. The default is a `chi2` of 0.01; for flow matching 0.05 is enough
        (Mousavi-Hosseini et al.). 0 runs exactly `max_iter` batches. For another rule see
        :class:`optim.stopping.StoppingRule`.
    max_iter : int, default=10000
        Largest number of batches. Points for estimates are drawn in addition, up to about as many;
        ``result.n_samples`` counts both.
    batch_size : int, default=256
        Source points drawn at once. The solver chooses how many a step uses.
    init_potential : array, shape (n_atoms,), optional
        Potential to continue from. Its error on fresh points decides for how many samples it counts.
    max_memory : int, default=2**28
        Bytes of source points to keep for Newton's method, the newest ones. 0 leaves it out.
    sample_cost : float, default=0.0
        What drawing a point costs, in units of evaluating it at all atoms once. If it is some
        tens or more, Newton's method corrects a run before it is first evaluated, where that saves
        points; if it is less, it matters only after an evaluation that failed.
    tol_value : float, default=0.0
        If positive, the error of the value (``result.suboptimality``) must also be at most this, in
        units of the metric. In low dimension slow modes, which the masses do not show, may leave an
        error in the value; Newton's method corrects it.
    random_state : None, int, numpy Generator or RandomState, or torch Generator
        Randomness of named and array sources. Global generators are never touched.
    verbose : bool, default=False
        Show a progress bar (tqdm's if it is installed), with the samples and the seconds that `tol`
        should take. Otherwise a run of over 2 seconds logs them (:mod:`logging`, level INFO).
    callback : callable, optional
        Called with a :class:`SolverState` after each batch; stops the run by returning True.
    process_group : torch.distributed.ProcessGroup, optional
        Processes that all make this call, with the same arguments: each draws its part of a batch and
        reduces its part of the points, and all get the same result (see :doc:`/distributed`). A source
        with a `random_state` has another stream on each process; a callable must draw other points on
        each. The callback is called on each, and stops the run if one returns True. Not needed with
        :class:`ShardedAtoms`, which have their group.

    Returns
    -------
    SemiDiscreteResult
        Potential, estimates on fresh samples (``value_interval`` contains the transport cost with 95%
        confidence, ``chi2`` is the squared marginal error, ``suboptimality`` the error of the value),
        and why the run ended.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape, dtype or range. An exception of the sampler or
        the callback passes through with what was reached as its attribute ``partial_result``.
    RuntimeError
        If another rank of the `process_group` raised an exception, died, or does not answer within the
        time-out of the group; with ``partial_result``, too.

    Warns
    -----
    SemiDiscreteWarning
        If `tol` was not reached; it says how many more points that would take.

    References
    ----------
    Houdard, Leclaire, Papadakis, Rabin, arXiv:2102.05542 (the semi-discrete setting);
    Genevay, Cuturi, Peyre, Bach, "Stochastic Optimization for Large-scale Optimal Transport",
    NeurIPS 2016; Mousavi-Hosseini, Zhang, Klein, Cuturi, arXiv:2509.25519 (to stop by `chi2`); Chizat,
    Peyre, Schmitzer, Vialard, "Scaling Algorithms for Unbalanced Optimal Transport Problems",
    Mathematics of Computation 87, 2018 (`reg_m`).

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
    verbose = check_bool("verbose", verbose)
    if callback is not None:
        callback = guest(check_callable("callback", callback, "of the state"))
    with ours():  # no decorator, whose frame the warning would point to
        X_target, ranks = resolve_shards(X_target, process_group)
        with joint(ranks):
            problem = Problem.of(X_target, a_target, metric, reg, reg_m=reg_m, reg_m_type=reg_m_type)
            init_potential = problem.init_potential(init_potential)
            problem = Problem(problem.target.copy(), problem.reg)
            problem = shared(problem, ranks, init_potential, **vars(options))
            random_state = rank_seed(problem.target, random_state)
            source = resolve_source(sampler_source, problem.target.like, random_state)
            result = solve_problem(problem, source, options, init_potential, verbose, callback)
        warn_shortfall(result, options.tol, 4)
    return result
