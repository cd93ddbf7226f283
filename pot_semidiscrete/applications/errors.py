"""Error bars: standard errors of a fitted potential, its map and its plan, due to the points."""

from collections.abc import Callable
from typing import Any

from ..backend import Array, describe, ours
from ..inference.errors import SampleFit
from ..plan import EstimatedPlan, SemiDiscretePlan
from ..problem import Problem, check_count
from ..samplers.sobol import resolve_seed


class ErrorBars:
    r"""Standard errors of potential, map and plan, by the central limit theorem of the potential.

    .. math::
        \sqrt{n}\, (\psi_n - \psi^*) \to \mathcal{N}(0, A^+ \Sigma A^+), \qquad
        A = -\nabla^2 H(\psi^*), \quad \Sigma = \mathrm{Cov}\, \chi(X) .

    A result has standard errors of its own, by the points that it kept (see
    :attr:`SemiDiscreteResult.potential_stderr`). These here are by others, and as narrow as the theorem
    allows: it is about the maximiser over n points, so the potential is fitted to them, starting from
    that of the result, and the standard errors are those of this fit, `plan`. Up to 256 atoms both
    matrices are computed. Beyond, the covariance is estimated by random vectors that have it, and
    standard errors have a relative noise of :math:`1 / \sqrt{2\,\mathrm{n\_probes}}`. The spread of the
    map is that at potentials of the normal law, by a cubature rule.

    Parameters
    ----------
    result : SemiDiscreteResult
        Of ``reg > 0``.
    x : array, shape (n, d)
        Fresh independent source points, many times as many as there are atoms.
    n_probes : int, default=64
        Random vectors, for more than 256 atoms.
    random_state : None, int or numpy Generator
        Randomness of these vectors, and of the potentials at which the spread of the map is taken.

    Attributes
    ----------
    plan : EstimatedPlan
        The plan of the fitted potential: ``plan.potential``, ``plan.ot_map(x)`` and so on, as of a
        result.
    potential_stderr : array, shape (n_atoms,)
        Standard error of ``plan.potential``, 0 at atoms of weight 0.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape or range, if points are fewer than the effective number
        of atoms, or if ``reg = 0``, where points cannot estimate the Hessian.

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
    >>> bool(np.all(np.abs(bars.plan.potential) < 3.0 * bars.potential_stderr))
    True
    >>> cost, stderr = bars.functional(lambda x, y: (x - y.T) ** 2)
    >>> 0.0 < stderr < 0.1 * cost
    True
    """

    @ours()
    def __init__(
        self, result: SemiDiscretePlan, x: Array, *, n_probes: int = 64, random_state: Any = None
    ) -> None:
        if not isinstance(result, SemiDiscretePlan):
            raise TypeError(
                f"result: expected a SemiDiscreteResult, received {describe(result)}; give that of "
                "solve_semidiscrete."
            )
        result._check_whole("result")
        options = {"n_probes": check_count("n_probes", n_probes), "seed": resolve_seed(random_state)}
        target, reg = result._target, result.reg
        x = target.nx.detach(Problem(target, reg).points("x", x))
        self._fit = SampleFit("x", target, x, result._potential, reg, **options)
        self.plan = EstimatedPlan(target, self._fit.potential, reg, self._fit)

    def __repr__(self) -> str:
        return f"ErrorBars(n={self._fit.n}, n_atoms={self.plan._target.n_atoms})"

    @property
    def potential_stderr(self) -> Array:
        """Standard error of ``plan.potential``, shape (n_atoms,)."""
        return self.plan.potential_stderr

    def map_stderr(self, x: Array) -> Array:
        """Standard error of ``plan.ot_map(x)``: :meth:`SemiDiscreteResult.map_stderr`.

        Parameters
        ----------
        x : array, shape (n, d)

        Returns
        -------
        array, shape (n, d)
        """
        return self.plan.map_stderr(x)

    def functional(self, f: Callable[[Array, Array], Array]) -> tuple[float, float]:
        r"""Estimate of :math:`\int f \, d\pi`, and its standard error, of the plan fitted.

        Parameters
        ----------
        f : callable
            ``(x, y) -> matrix``, shape (n, n_atoms), of source points and atoms, as a metric.

        Returns
        -------
        estimate, stderr : float
        """
        return self.plan.functional(f)
