"""Quantisation: atoms that stand best for a source."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import Array, brief, describe, ours
from ..problem import Problem, check_count, named_options
from ..result import SemiDiscreteResult
from .lloyd import Lloyd, Objective
from .starts import resolve_n_points, resolve_sources


@dataclass(frozen=True)
class QuantizationResult:
    """What :func:`quantize` reached.

    Attributes
    ----------
    atoms : array, shape (n_atoms, d)
    weights : array, shape (n_atoms,)
        Uniform, or the masses of the cells. Empty cells have a small mass, a fraction of that of a
        point.
    cost : scalar of the backend
        Estimate of the transport cost from the source to the atoms, on fresh points. For uniform weights
        a lower estimate, as ``transport.value``.
    cost_stderr : float
        Its Monte-Carlo standard error.
    transport : SemiDiscreteResult
        The transport of the source to the atoms: map, pairs, an interval of the cost.
    history : dict of ndarray
        For each step, ``cost`` on its own points, and ``decrease``, the predicted decrease of it, with
        its noise.
    """

    atoms: Array
    weights: Array
    transport: SemiDiscreteResult
    history: dict[str, np.ndarray]

    __repr__ = brief

    @property
    def cost(self) -> Any:
        """Estimate of the transport cost, on fresh points."""
        return self.transport.value

    @property
    def cost_stderr(self) -> float:
        """Monte-Carlo standard error of `cost`."""
        return self.transport.value_stderr


@named_options
@ours()
def quantize(
    sampler_source: Callable | str | Array,
    n_atoms: int,
    *,
    weights: str | None = None,
    reg: float = 0.0,
    X_init: Array | None = None,
    n_init: int = 1,
    n_steps: int = 50,
    n_points: int | None = None,
    random_state: Any = None,
) -> QuantizationResult:
    r"""Find the atoms to which it costs least to transport a source.

    .. math::
        \min_{y_1, \dots, y_N} \mathrm{OT}_\lambda\Big(\mu, \sum_j b_j \delta_{y_j}\Big),
        \qquad c(x, y) = |x - y|^2,

    with :math:`b_j = 1/N`, or over the weights as well (optimal quantisers: k-means of a law; for
    :math:`\lambda > 0` mixtures of normal laws of variance :math:`\lambda/2`). Each step of Lloyd's
    method fits the potential to fresh points and moves each atom to the mean of its cell. Atoms are
    averaged over the second half of the steps. The result is a local minimum, as for k-means.

    Parameters
    ----------
    sampler_source : callable, str, law, loader or array of shape (n, d)
        Source :math:`\mu`, as in :func:`pot_semidiscrete.solve_semidiscrete`. A
        :class:`samplers.SobolSampler` is the most accurate in low dimension.
    n_atoms : int
        Number of atoms, up to some thousands.
    weights : {None, "free"}
        Uniform, or the masses of the cells.
    reg : float, default=0.0
        Regularisation :math:`\lambda \ge 0`. Atoms come closer to each other the larger it is.
    X_init : array, shape (n_atoms, d), optional
        Atoms to start from. By default points of the source; for free weights such as are far from each
        other. Needed if the source has no backend or dimension: a name, a law, a loader.
    n_init : int, default=1
        Number of starts. What is returned is that of least cost over the second half of its steps, for
        one start may end in a poor minimum, as for k-means. 1 with `X_init`.
    n_steps : int, default=50
        Number of steps of a start.
    n_points : int, optional
        Points of the source for a step; 64 for each atom, 8,192 at least, by default.
    random_state : None, int, numpy Generator or RandomState, or torch Generator
        Randomness of the start, and of named and array sources. Global generators are never touched.

    Returns
    -------
    QuantizationResult
        Atoms, weights, cost and its standard error, and the transport.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape, dtype or range.

    References
    ----------
    Du, Faber, Gunzburger, "Centroidal Voronoi Tessellations: Applications and Algorithms", SIAM Review
    41, 1999; de Goes, Breeden, Ostromoukhov, Desbrun, "Blue Noise through Optimal Transport", ACM
    Transactions on Graphics 31, 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from pot_semidiscrete.applications import quantize
    >>> from pot_semidiscrete.samplers import SobolSampler
    >>> found = quantize(SobolSampler(1, random_state=0), 5, n_steps=10, random_state=0)
    >>> np.sort(found.atoms[:, 0]).round(1)  # of the uniform law: (i + 1/2) / 5
    array([0.1, 0.3, 0.5, 0.7, 0.9])
    """
    n_atoms, n_steps = check_count("n_atoms", n_atoms), check_count("n_steps", n_steps)
    n_points = resolve_n_points(n_points, n_atoms)
    if weights is not None and not (isinstance(weights, str) and weights == "free"):
        raise ValueError(f'weights: expected None (uniform) or "free", received {describe(weights)}.')
    given, is_free = {"sampler_source": sampler_source}, weights == "free"
    n_init = check_count("n_init", n_init)
    if X_init is not None and n_init > 1:
        raise ValueError(
            f"n_init: expected 1 start, that of X_init, received {n_init}; leave X_init out."
        )
    sources, starts = resolve_sources(
        given, n_atoms, n_points, X_init, random_state, spread=is_free, n_init=n_init
    )
    uniform, reg = 0.0 * starts[0][:, 0] + 1.0 / n_atoms, Problem.of(starts[0], reg=reg).reg
    objective = Objective(sources, [1.0], reg, is_free, n_points)
    runs = [Lloyd(objective, atoms, uniform, [0.0 * uniform]) for atoms in starts]
    for run in runs:
        run.run(n_steps)
    best = min(runs, key=lambda run: run.late_cost)
    (transport,) = best.transports()
    return QuantizationResult(best.atoms, best.weights, transport, best.history_arrays)
