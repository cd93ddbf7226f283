"""Barycentres of sources, on atoms that move."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import Array, brief, describe, ours
from ..problem import Problem, check_count, check_shares, named_options
from ..result import SemiDiscreteResult
from .lloyd import Lloyd, Objective
from .starts import resolve_n_points, resolve_sources


@dataclass(frozen=True)
class BarycenterResult:
    """What :func:`barycenter` reached.

    Attributes
    ----------
    atoms : array, shape (n_atoms, d)
        Of uniform weights.
    cost : float
        Weighted mean of the transport costs from the sources, a lower estimate on fresh points.
    cost_stderr : float
        Its Monte-Carlo standard error.
    cost_interval : tuple of float
        Weighted mean of the 95% intervals of the transports: contains the mean cost to these atoms if
        each of them contains its cost.
    transports : list of SemiDiscreteResult
        The transport of each source to the atoms.
    source_weights : ndarray, shape (n_sources,)
    history : dict of ndarray
        For each step, ``cost`` on its own points, and ``decrease``, the predicted decrease of it, with
        its noise.
    """

    atoms: Array
    transports: list[SemiDiscreteResult]
    source_weights: np.ndarray
    history: dict[str, np.ndarray]

    __repr__ = brief

    @property
    def cost(self) -> float:
        """Estimate of the mean transport cost, on fresh points."""
        return float(self.source_weights @ [float(result.value) for result in self.transports])

    @property
    def cost_stderr(self) -> float:
        """Monte-Carlo standard error of `cost`."""
        errors = [result.value_stderr for result in self.transports]
        return float(np.linalg.norm(self.source_weights * errors))

    @property
    def cost_interval(self) -> tuple[float, float]:
        """Weighted mean of the 95% intervals of the transports."""
        ends = self.source_weights @ np.array([result.value_interval for result in self.transports])
        return float(ends[0]), float(ends[1])


@named_options
@ours()
def barycenter(
    sources: Sequence[Any],
    n_atoms: int,
    *,
    source_weights: Sequence[float] | np.ndarray | None = None,
    reg: float = 0.0,
    X_init: Array | None = None,
    n_steps: int = 50,
    n_points: int | None = None,
    random_state: Any = None,
) -> BarycenterResult:
    r"""Find the atoms, of uniform weights, to which it costs least to transport several sources.

    .. math::
        \min_{y_1, \dots, y_N} \sum_k s_k\,
        \mathrm{OT}_\lambda\Big(\mu_k, \frac1N \sum_j \delta_{y_j}\Big), \qquad c(x, y) = |x - y|^2 .

    With many atoms and :math:`\lambda = 0`, the Wasserstein barycentre of the sources. Each step fits a
    potential for each source to fresh points, and moves each atom to the mean of the means of its cells.
    Atoms are averaged over the second half of the steps. The result is a local minimum.

    Parameters
    ----------
    sources : sequence
        Sources :math:`\mu_k`, each as in :func:`pot_semidiscrete.solve_semidiscrete`.
    n_atoms : int
        Number of atoms, up to some thousands.
    source_weights : array-like, shape (n_sources,), optional
        Weights :math:`s_k`, non-negative, of sum 1 to within 1e-4; they are divided by their sum.
        Uniform by default.
    reg : float, default=0.0
        Regularisation :math:`\lambda \ge 0`. Atoms come closer to each other the larger it is.
    X_init : array, shape (n_atoms, d), optional
        Atoms to start from; points of the first source by default. Needed if that has no backend or
        dimension: a name, a law, a loader.
    n_steps : int, default=50
        Number of steps.
    n_points : int, optional
        Points of each source for a step; 64 for each atom, 8,192 at least, by default.
    random_state : None, int, numpy Generator or RandomState, or torch Generator
        Randomness of the start, and of named and array sources. Global generators are never touched.

    Returns
    -------
    BarycenterResult
        Atoms, cost, its standard error and interval, and the transports.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape, dtype or range.

    References
    ----------
    Agueh, Carlier, "Barycenters in the Wasserstein Space", SIAM Journal on Mathematical Analysis 43,
    2011; Cuturi, Doucet, "Fast Computation of Wasserstein Barycenters", ICML 2014; Claici, Chien,
    Solomon, "Stochastic Wasserstein Barycenters", ICML 2018.

    Examples
    --------
    Between the uniform laws on [0, 1] and on [2, 5] lies that on [1, 3].

    >>> import numpy as np
    >>> from pot_semidiscrete.applications import barycenter
    >>> from pot_semidiscrete.samplers import SobolSampler
    >>> one = SobolSampler(1, random_state=0)
    >>> two = SobolSampler(1, generator=lambda z: 3.0 * z + 2.0, random_state=1)
    >>> found = barycenter([one, two], 5, n_steps=10, random_state=0)
    >>> np.sort(found.atoms[:, 0]).round(1)
    array([1.2, 1.6, 2. , 2.4, 2.8])
    """
    n_atoms, n_steps = check_count("n_atoms", n_atoms), check_count("n_steps", n_steps)
    n_points = resolve_n_points(n_points, n_atoms)
    if not isinstance(sources, (list, tuple)) or len(sources) == 0:
        raise TypeError(f"sources: expected a list of sources, received {describe(sources)}.")
    n = len(sources)
    shares = np.full(n, 1.0 / n) if source_weights is None else source_weights
    shares = check_shares("source_weights", shares, n)
    given = {f"sources[{k}]": source for k, source in enumerate(sources)}
    samplers, (atoms,) = resolve_sources(given, n_atoms, n_points, X_init, random_state, spread=False)
    uniform, reg = 0.0 * atoms[:, 0] + 1.0 / n_atoms, Problem.of(atoms, reg=reg).reg
    objective = Objective(samplers, shares.tolist(), reg, False, n_points)
    lloyd = Lloyd(objective, atoms, uniform, [0.0 * uniform for _ in samplers])
    lloyd.run(n_steps)
    return BarycenterResult(lloyd.atoms, lloyd.transports(), shares, lloyd.history_arrays)
