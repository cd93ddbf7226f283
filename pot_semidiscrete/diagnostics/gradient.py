"""Does the gradient exist? What a sample of the source says.

Formula (G) needs the c-transform to be differentiable where the source has mass. At ``reg = 0`` it is
so inside the Laguerre cells: what matters is how much mass lies on their boundaries, or so near
them that it might as well. All thresholds are free of units, so that the scale of the data drops out.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import Array, no_grad, ours
from ..costs import Metric
from ..inference.estimates import evaluate
from ..inference.gaps import CLEAR, LEAST_COUNT, SIGMAS
from ..optim.semi_dual import SemiDual
from ..problem import Problem, Target, unit_curvature
from .boundary import near_boundary, smoothness
from .ties import Ties

TIED_MASS = 1e-3  # mass on the boundaries from which on (G) is called undefined
ROUGH = 30.0  # curvature at the boundaries, in units of that of the cost, that is a risk
CONCENTRATED = 1e6  # roughness beyond which the points would tie at a potential nearer to optimal
MARGINAL_ERROR = 0.3  # relative error of the masses with which a potential is not optimal
HARD_WEIGHT = 0.99  # an assignment weight that counts as 1, and a share of the points that counts as all
HIDDEN_SHARE = 0.1  # of the points with margins lost to rounding, above which a note says so

_PLAIN = {"fine": "the gradient exists", "at risk": "do not rely on it", "undefined": "(G) has no value"}


@dataclass(frozen=True)
class GradientDiagnostics:
    r"""Result of :func:`gradient_diagnostics`; printed, it is a report in words.

    The distance of a point to the boundary of its cell is its tie margin, the largest
    :math:`\psi_j - c(x, y_j)` less the second, divided by the jump of the gradient there.

    Attributes
    ----------
    verdict : str
        ``"fine"``, ``"at risk"`` or ``"undefined"``.
    reasons : tuple of str
        Why the verdict is not ``"fine"``.
    boundary_reasons : tuple of str
        Those of the reasons that are due to the mass near boundaries, not to the quality of the
        potential.
    notes : tuple of str
        Further remarks.
    reg : float
        Regularisation.
    n_samples : int
        Source points.
    tied_mass, tied_mass_stderr : float
        Share of the source on the boundaries, to rounding.
    density, density_stderr : float
        Density of the distance to the boundary at 0, per unit of the points: a shift of the boundaries
        by h changes the cell of a mass of ``density * h``. Infinite if there is mass on the boundaries.
    window : float
        Distance within which points were counted; it contains :math:`n^{2/3}` of the n points.
    mean_jump, max_jump : float
        Length of :math:`\partial_x c(x, y_j) - \partial_x c(x, y_k)` at the points in the window.
    roughness : float
        Rate at which the mean gradient changes at the boundaries when all points are moved together,
        in the direction where it is largest and in units of the curvature of the cost: 1 for the
        transport of a density to itself. Infinite if there is mass on the boundaries.
    marginal_error : float
        Relative error of the masses that the potential gives to the atoms, 0 at an optimal one; NaN for
        less than 16 points.
    empty_cells : int
        Atoms whose cells should contain points and do not: the potential is not optimal.
    n_groups : int
        Groups of cells with no mass near the boundaries between them: the optimal potential is unique up
        to one constant for each group. 1 if there is mass on the boundaries, and at ``reg > 0``.
    hard_mass : float
        Share of the points with an assignment weight of at least 99%.
    smoothness, mean_smoothness : float
        Lipschitz constant of the gradient of the c-transform at the points, to about 1%: the largest
        and the mean; infinite at ``reg = 0``.
    step : float
        Longest step that lowers the value as each point follows its gradient, ``2 / smoothness``.
    """

    verdict: str
    reasons: tuple
    boundary_reasons: tuple
    notes: tuple
    reg: float
    n_samples: int
    tied_mass: float
    tied_mass_stderr: float
    density: float
    density_stderr: float
    window: float
    mean_jump: float
    max_jump: float
    roughness: float
    marginal_error: float
    empty_cells: int
    n_groups: int
    hard_mass: float
    smoothness: float
    mean_smoothness: float

    @property
    def step(self) -> float:
        """Longest step that lowers the value as each point follows its gradient, ``2 / smoothness``."""
        return 2.0 / self.smoothness if self.smoothness > 0 else math.inf

    def __str__(self) -> str:
        facts = [
            f"{self.verdict}: {_PLAIN[self.verdict]} (reg = {self.reg:.3g}, {self.n_samples} points)",
            *(f"  because {reason}" for reason in self.reasons),
            *(f"  note: {note}" for note in self.notes),
            f"  mass on cell boundaries     {self.tied_mass:.3g} +- {self.tied_mass_stderr:.1g}",
            f"  density of mass near them   {self.density:.3g} +- {self.density_stderr:.1g}",
            f"  jump of the gradient there  {self.mean_jump:.3g}, at most {self.max_jump:.3g}",
            f"  roughness, error of masses  {self.roughness:.3g}, {self.marginal_error:.2g}",
        ]
        if self.reg > 0:
            facts.append(f"  smoothness, longest step    {self.smoothness:.3g}, {self.step:.3g}")
        return "\n".join(facts)


@ours()
def gradient_diagnostics(
    X_target: Array,
    X_source: Array,
    semi_dual_potential: Array,
    a_target: Array | None = None,
    metric: Metric = None,
    reg: float = 0.0,
) -> GradientDiagnostics:
    r"""Tell whether the generator gradient exists, from points of the source.

    At ``reg = 0``, formula (G) needs that no mass lies on the boundaries of the Laguerre cells, where
    two atoms tie and the gradient jumps from :math:`\partial_x c(x, y_j)` to
    :math:`\partial_x c(x, y_k)`. The verdict is

    - *undefined* if 0.1% of the points or more tie to rounding, and more than chance explains; or
      if ``roughness`` is above a million: the points would tie at a potential nearer to the optimal one;
    - *at risk* if fewer points tie; if ``roughness`` is significantly above 30 in any window of at least
      16 points; or if the potential cannot be optimal, because cells are empty or masses wrong by 30%;
    - *fine* otherwise.

    The verdict is about the given potential: where optimal potentials are not unique, as for finite
    sources, another one may be fine.

    At ``reg > 0`` the gradient exists. The verdict is *at risk* if the mean Lipschitz constant of the
    gradient is above 30 times the curvature of the cost, or if 99% of the points are assigned as at
    ``reg = 0`` and the verdict there would not be *fine*.

    Parameters
    ----------
    X_target : array, shape (n_atoms, d)
        Atoms :math:`y_j`.
    X_source : array, shape (n, d)
        Source points, some thousands. They must be fresh, or the whole of a finite source: with a
        potential that is optimal for the same points, up to ``n_atoms - 1`` of them tie.
    semi_dual_potential : array, shape (n_atoms,)
        Optimal potential :math:`\psi`, or nearly so, in units of the metric.
    a_target : array, shape (n_atoms,), optional
        Weights :math:`b`, non-negative, of sum 1. Uniform by default.
    metric : str or callable, optional
        Ground cost, as in :func:`semidiscrete_gradient`.
    reg : float, default=0.0
        Regularisation :math:`\lambda \ge 0`, in units of the metric.

    Returns
    -------
    GradientDiagnostics
        The verdict, and what it rests on.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape, dtype or range, or the gradient of the metric is
        not known on that backend.

    References
    ----------
    Houdard, Leclaire, Papadakis, Rabin, arXiv:2102.05542 (the counterexamples, and the
    differentiation theorem); Kitagawa, Merigot, Thibert, arXiv:1603.05579 (the curvature at
    ``reg = 0``, an integral over the boundaries).

    Examples
    --------
    All mass on the bisector of two atoms, then a density:

    >>> import numpy as np
    >>> from pot_semidiscrete import gradient_diagnostics
    >>> atoms = np.array([[-1.0, 0.0], [1.0, 0.0]])
    >>> segment = np.stack([np.zeros(100), np.linspace(-1.0, 1.0, 100)], axis=1)
    >>> gradient_diagnostics(atoms, segment, np.zeros(2)).verdict
    'undefined'
    >>> square = np.random.default_rng(0).uniform(-1.0, 1.0, size=(1000, 2))
    >>> gradient_diagnostics(atoms, square, np.zeros(2)).verdict
    'fine'
    """
    problem = Problem.of(X_target, a_target, metric, reg)
    x = problem.nx.detach(problem.points("X_source", X_source))
    potential = problem.nx.detach(problem.potential("semi_dual_potential", semi_dual_potential))
    return diagnose(problem.target, x, potential, problem.reg)


def diagnose(target: Target, x: Array, potential: Array, reg: float) -> GradientDiagnostics:
    """:func:`gradient_diagnostics` of a built target, of which no two atoms are at one place."""
    facts: dict[str, Any] = {"reg": reg, "n_samples": len(x), "hard_mass": 1.0}
    with no_grad(target.nx):
        ties = Ties(target, x, potential, reg)
        near, roughness = near_boundary(target, x, ties)
        facts["marginal_error"], error = _marginal_error(target, x, potential, reg)
        facts["smoothness"] = facts["mean_smoothness"] = math.inf
        if reg > 0:
            constants, top = smoothness(target, x, potential, reg)
            facts["smoothness"], facts["mean_smoothness"] = constants.max(), constants.mean()
            facts["hard_mass"] = np.mean(top >= HARD_WEIGHT) if ties.n_atoms > 1 else 0.0
    facts["tied_mass"] = tied = ties.tied_mass
    facts["tied_mass_stderr"] = math.sqrt(tied * (1.0 - tied) / len(x))
    facts["empty_cells"] = ties.empty_cells if reg == 0 else 0
    # where two atoms tie, or nearly so, they hide a third
    facts["n_groups"] = ties.n_groups if reg == 0 and not tied and roughness <= ROUGH else 1
    facts = {name: v if isinstance(v, int) else float(v) for name, v in (facts | near).items()}
    found = _verdict(facts, unit_curvature(target), roughness, error, ties.hidden)
    return GradientDiagnostics(*found, **facts)


def _verdict(
    facts: dict[str, Any], unit: float, roughness: float, error: float, hidden: float
) -> tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Verdict, reasons, those of the boundaries, and notes.

    `unit` is the curvature of the cost, `hidden` the share of the points whose margins rounding hides;
    by their standard errors, `roughness` and marginal `error` are at least so large.
    """
    reasons: list[str] = []
    notes: list[str] = []
    reg, tied = facts["reg"], facts["tied_mass"]
    if facts["hard_mass"] >= HARD_WEIGHT:
        if reg > 0:
            notes.append(
                "reg is so small that the numbers behave as at reg = 0: "
                f"{100 * facts['hard_mass']:.3g}% of the points go to one atom"
            )
        if tied > 0:
            reasons.append(
                f"{100 * tied:.3g}% of the mass lies on cell boundaries, where the gradient jumps by "
                f"{facts['mean_jump']:.3g} in the mean"
            )
        elif roughness > ROUGH:
            reasons.append(
                f"so much mass lies near cell boundaries, {facts['density']:.3g} per unit length, "
                f"that the gradient changes {roughness:.2g} times as fast as that of the cost, or more"
            )
    stiff = facts["mean_smoothness"] / unit
    if reg > 0 and stiff > ROUGH:
        reasons.append(
            f"reg is so small that the gradient changes {stiff:.2g} times as fast as that of the cost"
        )
    boundary = tuple(reasons)
    if facts["empty_cells"] and not tied:
        reasons.append(f"the potential is not optimal: empty cells, {facts['empty_cells']} of them")
    elif error > MARGINAL_ERROR and not tied:
        reasons.append(
            "the potential is not optimal for this source: the masses are wrong by "
            f"{100 * error:.2g}% or more"
        )
    if hidden > HIDDEN_SHARE:
        notes.append(
            f"rounding hides the margins of {100 * hidden:.3g}% of the points, so fine are the "
            "cells: use float64"
        )
    if facts["n_groups"] > 1:
        notes.append(
            f"no mass lies near what separates {facts['n_groups']} groups of cells: optimal potentials "
            "differ by a constant on each"
        )
    if reg == 0 and not tied and facts["n_groups"] == 1 and facts["n_samples"] <= 2 * CLEAR:
        notes.append("too few points to tell whether the optimal potential is unique")
    undefined = reg == 0 and (tied >= TIED_MASS or roughness > CONCENTRATED)
    verdict = "undefined" if undefined else "at risk" if reasons else "fine"
    return verdict, tuple(reasons), boundary, tuple(notes)


def _marginal_error(target: Target, x: Array, potential: Array, reg: float) -> tuple[float, float]:
    """Relative error of the masses, and what it is at least, by its standard error."""
    if x.shape[0] < LEAST_COUNT:
        return math.nan, 0.0
    found = evaluate(SemiDual(target), x, potential, reg)
    chi2, stderr = found.chi2, found.chi2_stderr
    return math.sqrt(max(chi2, 0.0)), math.sqrt(max(chi2 - SIGMAS * stderr, 0.0))
