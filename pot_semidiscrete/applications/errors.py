"""Error bars: standard errors of a fitted potential, its map and its plan, due to the points."""

from typing import Any

from ..backend import Array, ours
from ..inference.errors import SampleFit
from ..plan import EstimatedPlan, SemiDiscretePlan, plan_target
from ..problem import Problem, check_count
from ..samplers.sobol import resolve_seed


class ErrorBars(EstimatedPlan):
    r"""A plan fitted to fresh points, with the standard errors of the central limit theorem.

    .. math::
        \sqrt{n}\, (\psi_n - \psi^*) \to \mathcal{N}(0, A^+ \Sigma A^+), \qquad
        A = -\nabla^2 H(\psi^*), \quad \Sigma = \mathrm{Cov}\, \chi(X) .

    A result has standard errors of its own, by the points that it kept (see
    :attr:`SemiDiscreteResult.potential_stderr`). These here are by others, and as narrow as the theorem
    allows: it is about the maximiser over n points, so the potential is fitted to them, starting from
    that of the result, and this is the plan of the potential fitted. It has the members of a result that
    tell of a plan, such as ``ot_map(x)`` and ``map_stderr(x)``. Up to 256 atoms both matrices are
    computed. Beyond, the covariance is estimated by random vectors that have it, and standard errors
    have a relative noise of :math:`1 / \sqrt{2\,\mathrm{n\_probes}}`.

    Parameters
    ----------
    result : SemiDiscreteResult
        Of any `reg`.
    x : array, shape (n, d)
        Fresh independent source points, many times as many as there are atoms.
    n_probes : int, default=64
        Random vectors, for more than 256 atoms.
    random_state : None, int or numpy Generator
        Randomness of these vectors, and of the potentials at which the spread of the map is taken.

    Attributes
    ----------
    potential_b, potential : array, shape (n_atoms,)
        The potential fitted to the points.
    potential_stderr : array, shape (n_atoms,)
        Its standard error, 0 at atoms of weight 0.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape or range, if points are fewer than the effective number
        of atoms, or, once it is asked for, if no point is between two groups of cells.

    Warns
    -----
    SemiDiscreteWarning
        If the fit ended at its bound of work, as for atoms whose weights are tiny.

    References
    ----------
    Bercu, Bigot, "Asymptotic Distribution and Convergence Rates of Stochastic Algorithms for Entropic
    Optimal Transportation between Probability Measures", Annals of Statistics 49, 2021; Bercu, Bigot,
    Gadat, Siviero, "A Stochastic Gauss-Newton Algorithm for Regularized Semi-discrete Optimal
    Transport", Information and Inference 12, 2023; del Barrio, Gonzalez-Sanz, Loubes, Rodriguez-Vitores,
    "Distributional Limit Theory for Optimal Transport", arXiv:2505.19104 (plans, maps and costs).

    Examples
    --------
    Two atoms that are mirror images: the potential is 0, and what is fitted is near it.

    >>> import numpy as np
    >>> from pot_semidiscrete import solve_semidiscrete
    >>> from pot_semidiscrete.applications import ErrorBars
    >>> atoms, rng = np.array([[-1.0], [1.0]]), np.random.default_rng(0)
    >>> result = solve_semidiscrete(atoms, "normal", reg=1.0, random_state=0)
    >>> bars = ErrorBars(result, rng.normal(size=(1000, 1)))
    >>> bool(np.all(np.abs(bars.potential) < 3.0 * bars.potential_stderr))
    True
    >>> cost, stderr = bars.functional(lambda x, y: (x - y.T) ** 2)
    >>> 0.0 < stderr < 0.1 * cost
    True
    """

    @ours()
    def __init__(
        self, result: SemiDiscretePlan, x: Array, *, n_probes: int = 64, random_state: Any = None
    ) -> None:
        options = {"n_probes": check_count("n_probes", n_probes), "seed": resolve_seed(random_state)}
        target, reg = plan_target(result, "solve_semidiscrete"), result.reg
        x = target.nx.detach(Problem(target, reg).points("x", x))
        fit = SampleFit("x", target, x, result._potential, reg, **options)
        super().__init__(target, fit.potential, reg, fit)

    def __repr__(self) -> str:
        return f"ErrorBars(n={self._estimates.n}, n_atoms={self._target.n_atoms})"
