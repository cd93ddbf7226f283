"""The generator gradient, formula (G), and the alternating algorithm on top of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .backend import (
    Array,
    Backend,
    all_finite,
    capabilities,
    describe,
    guest,
    joint,
    no_grad,
    ours,
    says_stop,
)
from .costs import Metric
from .kernels import reduce
from .optim import tracking
from .optim.adam import Adam
from .problem import (
    Problem,
    Target,
    check_array,
    check_bool,
    check_callable,
    check_count,
    check_parameters,
    check_plain,
    check_points,
    check_real,
    flat_rows,
    number_as_array,
    resolve_shards,
)
from .runs import Progress, guarded
from .samplers.adapters import adapted
from .samplers.draws import check_batch
from .samplers.resolve import resolve_random


@ours()
def generator_gradient(
    generator: Callable,
    theta: Any,
    z: Array,
    X_target: Array,
    semi_dual_potential: Array,
    a_target: Array | None = None,
    metric: Metric = None,
    reg: float = 0.0,
    *,
    vjp: Callable[[Any, Array, Array], Any] | None = None,
) -> tuple[Array, Any]:
    r"""Gradient of the transport cost in the parameters of a generator, at a potential.

    .. math::
        \nabla W_\lambda(\theta) = \mathbb{E}\Big[ \big(\partial_\theta g(\theta, Z)\big)^{\!\top}
        \nabla \psi^{c,\lambda}\big(g(\theta, Z)\big) \Big],

    estimated on the latent points `z`. It is the gradient of the cost if `semi_dual_potential` is
    optimal for `theta` and ``reg > 0``. At ``reg = 0`` it need not exist, even where the cost is smooth;
    it exists if the generator puts no mass on the boundaries of the Laguerre cells.

    Parameters
    ----------
    generator : callable
        ``generator(theta, z)`` returns n points; any shape whose rows have d entries.
    theta : array or number, or for torch and jax also a list, tuple or dict of them
        Parameters. A number is taken as an array of shape () of the kind of the atoms.
    z : array
        Latent points, handed to `generator` as they are.
    X_target : array, shape (n_atoms, d)
        Atoms :math:`y_j`.
    semi_dual_potential : array, shape (n_atoms,)
        Potential, in units of the metric.
    a_target : array, shape (n_atoms,), optional
        Weights :math:`b`, non-negative, of sum 1. Uniform by default.
    metric : str or callable, optional
        Ground cost, as in :func:`semidiscrete_gradient`.
    reg : float, default=0.0
        Regularisation :math:`\lambda \ge 0`, in units of the metric.
    vjp : callable, optional
        ``vjp(theta, z, cotangent)`` returns :math:`\sum_i (\partial_\theta g(\theta, z_i))^\top
        \mathrm{cotangent}_i`, of the shape of `theta`; `cotangent` has the shape of the points.
        Needed with NumPy; torch and jax differentiate `generator` if it is not given.

    Returns
    -------
    value : scalar of the backend
        Semi-dual value of the points, as :func:`semidiscrete_loss`.
    gradient : same structure as `theta`
        In units of the metric per unit of `theta`.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape, dtype or range.
    RuntimeError
        If torch is to differentiate in inference mode.

    References
    ----------
    Houdard, Leclaire, Papadakis, Rabin, arXiv:2102.05542 (the differentiation theorem for
    the regularised cost).

    Examples
    --------
    The translation of a sample; the gradient is :math:`2 (\theta + \bar z - \bar T)`.

    >>> import numpy as np
    >>> from pot_semidiscrete import generator_gradient
    >>> atoms, z = np.array([[0.0], [1.0]]), np.array([[-1.0], [1.0]])
    >>> value, gradient = generator_gradient(
    ...     lambda theta, z: z + theta, np.array([2.0]), z, atoms, np.zeros(2),
    ...     vjp=lambda theta, z, cotangent: cotangent.sum(axis=0))
    >>> gradient
    array([2.])
    """
    check_callable("generator", generator, "(theta, z) -> points")
    check_plain("z", z)
    X_target, ranks = resolve_shards(X_target)
    with joint(ranks):
        problem = Problem.of(X_target, a_target, metric, reg, merge=False)
        theta = check_parameters("theta", theta, problem.target.like, differentiated=vjp is None)
        vjp = _vjp("generator_gradient", vjp, problem.nx)
        potential = problem.nx.detach(problem.potential("semi_dual_potential", semi_dual_potential))
        target = problem.target.detached
        return gradient_at(guest(generator), theta, z, target, potential, problem.reg, vjp)


def _vjp(name: str, vjp: Callable | None, nx: Backend) -> Callable | None:
    """What the user's function differentiates by, checked; None if the backend is to."""
    if vjp is None:
        capabilities(nx).require_autograd(name)
        return None
    return guest(check_callable("vjp", vjp, "(theta, z, cotangent) -> gradient"))


def gradient_at(
    generator: Callable,
    theta: Any,
    z: Array,
    target: Target,
    potential: Array,
    reg: float,
    vjp: Callable[[Any, Array, Array], Any] | None,
) -> tuple[Array, Any]:
    """:func:`generator_gradient` of a built target."""
    nx = target.nx

    def cotangent_of(points: Array) -> tuple[Array, Array]:
        x = _rows(points, target)
        out = reduce(target, target.center(x), potential, reg, ("c_transform", "gradient"))
        value = target.semi_dual(out.c_transform, potential)
        return value, nx.reshape(out.gradient / float(x.shape[0]), tuple(points.shape))

    if vjp is not None:
        value, cotangent = cotangent_of(generator(theta, z))
        gradient = number_as_array(vjp(theta, z, cotangent), target.like)
        if getattr(gradient, "shape", None) != getattr(theta, "shape", None):
            raise ValueError(
                f"vjp: expected a gradient of the shape of theta ({describe(theta)}), received "
                f"{describe(gradient)}; sum the cotangents over the points."
            )
        return value, gradient
    return capabilities(nx).pullback(generator, theta, z, cotangent_of)


def _rows(points: Array, target: Target) -> Array:
    """What a generator returned, checked, one row for each point."""
    check_array("generator(theta, z)", points)
    return check_points("generator(theta, z)", flat_rows(points, target.nx), like=target.like)[0]


@dataclass
class ParameterResult:
    """What :func:`train_parameters` reached.

    Attributes
    ----------
    theta : array
        Parameters.
    potential : array, shape (n_atoms,)
        Potential, of weighted mean 0 (or soft minimum 0, with `reg_m`).
    history : dict of ndarray
        ``loss``: semi-dual value at each step.
    status : str
        ``"finished"``, ``"stopped"`` (by the callback), ``"interrupted"`` or ``"failed"``.
    """

    theta: Any
    potential: Any
    history: dict = field(default_factory=dict)
    status: str = "finished"

    def __repr__(self) -> str:
        losses = self.history.get("loss", ())
        last = f", loss={losses[-1]:.4g}" if len(losses) else ""
        return f"ParameterResult(status={self.status!r}, n_steps={len(losses)}{last})"


@ours()
def train_parameters(
    generator: Callable,
    theta: Array,
    latent_sampler: Callable[[int], Array],
    X_target: Array,
    *,
    a_target: Array | None = None,
    metric: Metric = None,
    vjp: Callable[[Any, Array, Array], Any] | None = None,
    reg: float,
    reg_m: float | None = None,
    reg_m_type: str = "kl",
    n_steps: int,
    dual_steps: int = 5,
    batch_size: int = 200,
    learning_rate: float = 1e-2,
    init_potential: Array | None = None,
    random_state: object = None,
    verbose: bool = False,
    callback: Callable[[int, Array, float], Any] | None = None,
) -> ParameterResult:
    r"""Fit the parameters of a generator to atoms: the alternating algorithm, without torch.

    Each step takes a round of averaged stochastic ascent on the potential, with fresh points, then one
    step of Adam along :func:`generator_gradient`. For neural networks use
    :func:`pot_semidiscrete.generative.train_generator`.

    Parameters
    ----------
    generator : callable
        ``generator(theta, z)`` returns points, shape (n, d).
    theta : array or number
        Parameters to start from; not changed.
    latent_sampler : callable, law or loader
        ``n -> z``, n latent points; a name and a dimension, ``("normal", 16)``; or a frozen law of
        ``scipy.stats``, a distribution or a ``DataLoader`` of torch.
    X_target : array, shape (n_atoms, d)
        Atoms :math:`y_j`.
    a_target : array, shape (n_atoms,), optional
        Weights :math:`b`, non-negative, of sum 1. Uniform by default.
    metric : str or callable, optional
        Ground cost, as in :func:`semidiscrete_gradient`.
    vjp : callable, optional
        As in :func:`generator_gradient`; needed with NumPy.
    reg : float
        Regularisation :math:`\lambda \ge 0`, in units of the metric: see :func:`cost_scale`.
    reg_m : float, optional
        Price of masses other than b, in units of the metric, as in :func:`solve_semidiscrete`: outliers
        that are much farther than that are not learnt.
    reg_m_type : "kl"
        The divergence of the masses.
    n_steps : int
        Number of steps on `theta`.
    dual_steps : int, default=5
        Batches for the potential for each step on `theta`.
    batch_size : int, default=200
        Points in a batch, for both.
    learning_rate : float, default=1e-2
        Step of Adam, in units of `theta`.
    init_potential : array, shape (n_atoms,), optional
        Potential to start from.
    random_state : None, int, numpy Generator or RandomState, or torch Generator
        Randomness of the latent law, if it is named, of SciPy or of torch.
    verbose : bool, default=False
        Show a progress bar.
    callback : callable, optional
        Called as ``callback(step, theta, loss)`` after each step; stops the run by returning True.

    Returns
    -------
    ParameterResult
        Parameters, potential, history, and why the run ended.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape, dtype or range. An exception of a callable passes
        through with what was reached as its attribute ``partial_result``.
    RuntimeError
        If torch is to differentiate in inference mode.

    References
    ----------
    Houdard, Leclaire, Papadakis, Rabin, arXiv:2102.05542 (the alternating algorithm);
    Kingma, Ba, "Adam", ICLR 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from pot_semidiscrete import train_parameters
    >>> rng = np.random.default_rng(0)
    >>> atoms = rng.normal(size=(50, 2)) + 3.0
    >>> result = train_parameters(
    ...     lambda theta, z: z + theta, np.zeros(2), lambda n: rng.normal(size=(n, 2)), atoms,
    ...     vjp=lambda theta, z, cotangent: cotangent.sum(axis=0),
    ...     reg=0.1, n_steps=300, learning_rate=0.1)
    >>> bool(np.abs(result.theta - atoms.mean(axis=0)).max() < 0.3)
    True
    """
    learning_rate = check_real("learning_rate", learning_rate, positive=True)
    n_steps, dual_steps = check_count("n_steps", n_steps), check_count("dual_steps", dual_steps)
    batch_size, verbose = check_count("batch_size", batch_size), check_bool("verbose", verbose)
    check_callable("generator", generator, "(theta, z) -> points")
    X_target, nx = check_points("X_target", X_target)
    theta = check_parameters("theta", theta, X_target, differentiated=vjp is None)
    random = resolve_random(random_state, nx, X_target)
    latent_sampler = adapted(latent_sampler, X_target, random) or latent_sampler
    check_callable("latent_sampler", latent_sampler, "n -> latent points")
    if callback is not None:
        callback = guest(check_callable("callback", callback, "(step, theta, loss)"))
    problem = Problem.of(X_target, a_target, metric, reg, reg_m=reg_m, reg_m_type=reg_m_type)
    target, reg, vjp = problem.target, problem.reg, _vjp("train_parameters", vjp, problem.nx)
    init_potential = problem.init_potential(init_potential)
    adam = Adam(theta, learning_rate, target.nx)
    calls = guest(generator), guest(latent_sampler)
    run = ParameterRun(*calls, adam, target, reg, vjp, dual_steps, batch_size)
    bar = Progress(verbose, n_steps, "train_parameters")
    with guarded(run, bar):
        run.start(init_potential)
        for step in range(n_steps):
            run.step()
            bar.update(run.progress)
            facts = (step, adam.theta, float(run.losses[-1]))
            if callback is not None and says_stop(callback(*facts)):
                run.status = "stopped"
                break
    return run.result()


@dataclass(repr=False)
class ParameterRun:
    """One run of :func:`train_parameters`: parameters, potential, history."""

    generator: Callable
    latent_sampler: Callable[[int], Array]
    adam: Adam
    target: Target
    reg: float
    vjp: Callable[[Any, Array, Array], Any] | None
    dual_steps: int
    batch_size: int
    status: str = "finished"

    def __post_init__(self) -> None:
        self.level, self.ratio = tracking.tracking_levels(self.target, self.reg)
        self.potential, self.rounds = 0.0 * self.target.weights, 0.0
        self.losses: list[Array] = []

    def points(self) -> Array:
        """A fresh batch of points, for the potential."""
        with no_grad(self.target.nx):
            n = self.batch_size
            x = _rows(self.generator(self.adam.theta, self.latent_sampler(n)), self.target)
            return self.target.center(check_batch("generator(theta, z)", x, n, self.target))

    def start(self, potential: Array | None) -> None:
        """Start from a potential, or from a short annealing."""
        if potential is None:
            self.potential, self.rounds = tracking.warm_up(self.target, self.points, self.level), 1
        else:
            self.potential, self.rounds = potential, tracking.SPAN

    def step(self) -> None:
        """Follow with the potential, then move the parameters."""
        x = self.target.nx.concatenate([self.points() for _ in range(self.dual_steps)], axis=0)
        self.potential = tracking.follow(
            self.potential, self.rounds, self.target, x, self.level, self.ratio
        )
        self.rounds += 1
        z, theta = self.latent_sampler(self.batch_size), self.adam.theta
        loss, gradient = gradient_at(
            self.generator, theta, z, self.target, self.potential, self.reg, self.vjp
        )
        if not all_finite(gradient, self.target.nx):
            raise ValueError(
                "generator: expected a finite gradient, received NaN or inf at step "
                f"{len(self.losses)}; lower learning_rate, or check vjp."
            )
        self.adam.step(gradient)
        self.losses.append(loss)

    def progress(self) -> dict[str, float]:
        """Numbers to show."""
        return {"loss": float(self.losses[-1])} if self.losses else {}

    def result(self) -> ParameterResult:
        """What was reached."""
        target = self.target
        history = {"loss": np.array([float(loss) for loss in self.losses])}
        potential = target.scatter(target.normalized(self.potential))
        return ParameterResult(self.adam.theta, potential, history, self.status)
