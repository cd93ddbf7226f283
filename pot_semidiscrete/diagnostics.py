"""Does the gradient exist? What a sample of the source says.

Formula (G) needs the c-transform to be differentiable where the source has mass. At ``reg = 0`` it is
so inside the Laguerre cells: what matters is how much mass lies on their boundaries, or so near
them that it might as well. All thresholds are free of units, so that the scale of the data drops out.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csgraph, csr_array

from . import envelope
from ._target import _index, build_target, check_potential, check_reg, rounding_unit
from ._validation import check_points
from .dual import scale_of
from .inference.estimates import evaluate
from .kernels import block_rows, weight_blocks
from .kernels._blocks import HardBlock, SoftBlock
from .optim.semi_dual import SemiDual

MASS = 1e-3  # on the boundaries, from which (G) is called undefined
ROUGH = 30.0  # curvature at the boundaries, in units of that of the cost, that is a risk
CONCENTRATED = 1e6  # roughness that is mass on the boundaries of a potential that is nearly optimal
WRONG = 0.3  # relative error of the masses with which a potential is not optimal
HARD = 0.99  # an assignment weight that is as good as 1, and the share of them that is as good as all
ROUNDING = 8.0  # of the dtype, in a difference of scores
HIDDEN = 0.1  # share of the points, above which it is said
LEAST_COUNT = 16  # points in a window
SIGMAS = 3.0
DOUBT = 1e-3  # probability of a gap, or of an empty cell, by chance
CLEAR = SIGMAS * math.log(64 / DOUBT)  # points by which mass near a boundary would have been seen
LEAST_POINTS = 16  # to tell the masses from
N_CUTS, N_POWER = 64, 16

_PLAIN = {"fine": "the gradient exists", "at risk": "do not rely on it", "undefined": "(G) has no value"}


@dataclass(frozen=True)
class GradientDiagnostics:
    r"""What :func:`gradient_diagnostics` found; printed, it is a report in words.

    The distance of a point to the boundary of its cell is its tie margin, the largest
    :math:`\psi_j - c(x, y_j)` less the second, divided by the jump of the gradient there.

    Attributes
    ----------
    verdict : str
        ``"fine"``, ``"at risk"`` or ``"undefined"``.
    reasons : tuple of str
        Why it is not fine.
    boundary_reasons : tuple of str
        Those of them that the place of the mass gives, and not the quality of the potential.
    notes : tuple of str
        What else is worth knowing.
    reg : float
        Regularisation.
    n_samples : int
        Source points.
    tied_mass, tied_mass_stderr : float
        Share of the source on the boundaries, to rounding.
    density, density_stderr : float
        Density of the distance to the boundary at 0, per unit of the points: a shift of the boundaries
        by h changes the cell of ``density * h`` of the mass. Infinite if there is mass on them.
    window : float
        Distance within which it was counted; it holds :math:`n^{2/3}` of the n points.
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
        Atoms whose cells hold no point though they should: the potential is not optimal.
    n_groups : int
        Groups of cells with no mass near what separates them: the optimal potential is unique up to
        one constant for each. 1 if the boundaries are at fault, and at ``reg > 0``.
    hard_mass : float
        Share of the points that give 99% of themselves to one atom.
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
    def step(self):
        """Longest step that lowers the value as each point follows its gradient, ``2 / smoothness``."""
        return 2.0 / self.smoothness

    def __str__(self):
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


def gradient_diagnostics(X_target, X_source, semi_dual_potential, a_target=None, metric=None, reg=0.0):
    r"""Tell whether the generator gradient exists, from points of the source.

    At ``reg = 0``, formula (G) needs that no mass lies on the boundaries of the Laguerre cells, where
    two atoms tie and the gradient jumps from :math:`\partial_x c(x, y_j)` to
    :math:`\partial_x c(x, y_k)`. The verdict is

    - *undefined* if 0.1% of the points or more tie to rounding, and more than coincidence explains, or
      if ``roughness`` is above a million: they would tie at a potential nearer to the optimal one;
    - *at risk* if fewer do; if ``roughness`` is above 30, beyond doubt, in any window from 16 points on;
      or if the potential cannot be optimal, for cells are empty or masses are wrong by 30%;
    - *fine* otherwise.

    It is that of the potential given: where optimal potentials are not unique, as for finite sources,
    another one may be fine.

    At ``reg > 0`` the gradient exists. The verdict is *at risk* if the mean Lipschitz constant of the
    gradient is above 30 times the curvature of the cost, or if 99% of the points are assigned as at
    ``reg = 0`` and the boundaries are such that the verdict there would not be fine.

    Parameters
    ----------
    X_target : array, shape (n_atoms, d)
        Atoms :math:`y_j`.
    X_source : array, shape (n, d)
        Source points, best some thousands. They must be points that the potential was not fitted to,
        or the whole of a finite source: n points and a potential optimal for them tie at up to
        ``n_atoms - 1`` points.
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
    target = build_target(X_target, a_target, metric).detached
    reg = check_reg(reg, target)
    X_source, nx = check_points("X_source", X_source, like=target.atoms)
    potential = check_potential("semi_dual_potential", semi_dual_potential, target, reg)
    return diagnose(target, target.local(nx.detach(X_source)), nx.detach(potential), reg)


def diagnose(target, x, potential, reg):
    """:func:`gradient_diagnostics` of a built target, of which no two atoms are at one place."""
    with envelope.full_precision(target.nx, x), envelope.no_grad(target.nx):
        return _diagnose(target, potential, x, reg)


def _diagnose(target, potential, x, reg):
    n, n_atoms = x.shape[0], target.atoms.shape[0]
    ties = Ties(target, x, potential, reg)
    tied = ties.tied_mass
    facts = {"reg": reg, "n_samples": n, "tied_mass": tied, "hard_mass": 1.0}
    facts["tied_mass_stderr"] = math.sqrt(tied * (1.0 - tied) / n)
    facts["hidden"] = ties.hidden
    near, rough = _near_boundary(target, x, ties)
    facts["marginal_error"], wrong = _marginal_error(target, x, potential, reg)
    facts["empty_cells"] = ties.empty_cells if reg == 0 else 0
    # where two atoms tie, or nearly so, they hide a third
    facts["n_groups"] = ties.n_groups if reg == 0 and not tied and rough <= ROUGH else 1
    facts["smoothness"] = facts["mean_smoothness"] = math.inf
    if reg > 0:
        constants, top = _smoothness(target, x, potential, reg)
        facts["smoothness"], facts["mean_smoothness"] = constants.max(), constants.mean()
        facts["hard_mass"] = np.mean(top >= HARD) if n_atoms > 1 else 0.0
    facts = {name: v if isinstance(v, int) else float(v) for name, v in (facts | near).items()}
    found = _verdict(facts, unit_curvature(target), rough, wrong)
    facts.pop("hidden")
    return GradientDiagnostics(*found, **facts)


def _verdict(facts, unit, rough, wrong):
    """Verdict, reasons, those of the boundaries, and notes; `rough` and `wrong` are beyond doubt."""
    reasons, notes, reg, tied = [], [], facts["reg"], facts["tied_mass"]
    if facts["hard_mass"] >= HARD:
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
        elif rough > ROUGH:
            reasons.append(
                f"so much mass lies near cell boundaries, {facts['density']:.3g} per unit length, "
                f"that the gradient changes {rough:.2g} times as fast as that of the cost, or more"
            )
    stiff = facts["mean_smoothness"] / unit
    if reg > 0 and stiff > ROUGH:
        reasons.append(
            f"reg is so small that the gradient changes {stiff:.2g} times as fast as that of the cost"
        )
    boundary = tuple(reasons)
    if facts["empty_cells"] and not tied:
        reasons.append(f"the potential is not optimal: empty cells, {facts['empty_cells']} of them")
    elif wrong > WRONG and not tied:
        reasons.append(
            "the potential is not optimal for this source: the masses are wrong by "
            f"{100 * wrong:.2g}% or more"
        )
    if facts["hidden"] > HIDDEN:
        notes.append(
            f"rounding hides the margins of {100 * facts['hidden']:.3g}% of the points, so fine are the "
            "cells: use float64"
        )
    if facts["n_groups"] > 1:
        notes.append(
            f"no mass lies near what separates {facts['n_groups']} groups of cells: optimal potentials "
            "differ by a constant on each"
        )
    if reg == 0 and not tied and facts["n_groups"] == 1 and facts["n_samples"] <= 2 * CLEAR:
        notes.append("too few points to tell whether the optimal potential is unique")
    undefined = reg == 0 and (tied >= MASS or rough > CONCENTRATED)
    verdict = "undefined" if undefined else "at risk" if reasons else "fine"
    return verdict, tuple(reasons), boundary, tuple(notes)


class Ties:
    """The two best atoms of each point, and how close the choice is; on the host.

    Attributes
    ----------
    first, second : ndarray of int, shape (n,)
    margin : ndarray, shape (n,)
        Difference of their scores, in units of the cost; 0 if that is a rounding error.
    jump : ndarray, shape (n,)
        Length of the difference of their gradients.
    distance : ndarray, shape (n,)
        ``margin / jump``, the margin no less than its rounding error; infinite without a real jump.
    tied : ndarray of bool, shape (n,)
        Whether the margin is a rounding error, and the jump is not.
    coincidences : float
        Number of such points that a density would give.
    hidden : float
        Share of the points whose margin or jump rounding hides.
    """

    def __init__(self, target, x, potential, reg):
        nx, eps = target.nx, rounding_unit(target)
        self.n_atoms, dimension = target.atoms.shape
        self.weights = nx.to_numpy(target.weights)
        bias = potential - target.column + (reg * target.log_weights if reg > 0 else 0.0)
        size = nx.abs(potential) + nx.abs(target.column)
        step = block_rows(target, x)
        blocks = [
            _best_two(target, x[start : start + step], bias, size)
            for start in range(0, x.shape[0], step)
        ]
        pieces = [np.concatenate([nx.to_numpy(v) for v in field]) for field in zip(*blocks, strict=True)]
        self.first, self.second = (index.astype(int) for index in pieces[:2])
        self.margin, self.jump, size = (values.astype(float) for values in pieces[2:])
        unit = unit_curvature(target)
        shift = 0.0 if target.center is None else np.linalg.norm(nx.to_numpy(target.center))
        rounding = eps * (ROUNDING * size + shift * self.jump)  # the points were rounded where they were
        real = self.jump > math.sqrt(eps) * unit * spread_of(target)
        self.tied = real & (self.margin <= rounding)
        self.distance = np.full(len(self.jump), math.inf)
        self.distance[real] = np.maximum(self.margin, rounding)[real] / self.jump[real]
        self.margin[self.tied] = 0.0
        # points of a density in a cell as wide as jump / unit, that are as close by coincidence
        chance = 2.0 * dimension * unit * rounding[real] / self.jump[real] ** 2
        self.coincidences = np.minimum(chance, 1.0).sum()
        lost = (~real).sum() if self.n_atoms > 1 else 0
        self.hidden = float(self.coincidences + lost) / len(real)

    @property
    def tied_mass(self):
        """Share of points on a boundary; 0 if so many may be there by coincidence."""
        most = SIGMAS * self.coincidences
        count = int(self.tied.sum())
        return count / len(self.tied) if count > most + SIGMAS * math.sqrt(most) else 0.0

    @property
    def empty_cells(self):
        """Number of cells with no point, of those that should have had one."""
        due = len(self.first) * self.weights > math.log(self.n_atoms / DOUBT)
        return int((due & (np.bincount(self.first, minlength=self.n_atoms) == 0)).sum())

    @property
    def n_groups(self):
        """Groups of cells that are apart: 1, and one for each cut of a spanning tree with a gap.

        The tree has the smallest gaps (single linkage). Across a cut, the margins of n points with a
        density there come within about ``mean / n`` of 0.
        """
        order, size, gap = _linkage(self.first, self.second, self.margin, self.n_atoms)
        position = np.empty_like(order)
        position[order] = np.arange(len(order))
        first, second = position[self.first], position[self.second]
        inside = np.concatenate([[0], np.cumsum(np.bincount(first, minlength=len(order)))])
        held = inside[np.arange(len(order)) + size] - inside[:-1]
        lesser = np.minimum(held, len(first) - held)
        cuts = np.flatnonzero(lesser >= LEAST_COUNT)
        cuts = cuts[np.argsort(-gap[cuts])][:N_CUTS]
        return 1 + sum(bool(self._is_gap(first, second, start, start + size[start])) for start in cuts)

    def _is_gap(self, first, second, start, end):
        """Tell whether no margin is small between the cells at these places and the others."""
        here, there = (first >= start) & (first < end), (second >= start) & (second < end)
        sides = [self.margin[here & ~there], self.margin[~here & there]]
        sides = [side for side in sides if len(side)]
        if not sides:  # points of each cell, by which one would have been seen
            size = end - start
            sides_seen = here.sum() / size, (~here).sum() / max(self.n_atoms - size, 1)
            return min(sides_seen) > CLEAR
        return max(len(side) * side.min() / max(side.mean(), 1e-300) for side in sides) > CLEAR


def _best_two(target, x, bias, size):
    """Best and second atom of a block, margin, jump, and what their scores were computed from."""
    nx, atoms = target.nx, target.atoms
    scores = bias + target.cost.cross(x, atoms, 1.0, nx, lambda u, v: nx.dot(u, v.T))
    first, best = nx.argmax(scores, axis=1), nx.max(scores, axis=1)
    hit = HardBlock(first, atoms.shape[0], best, nx).dense() > 0
    rest = nx.where(hit, nx.full((1, 1), -math.inf, type_as=scores), scores)
    second = nx.argmax(rest, axis=1)
    vectors = _jumps(target, x, first, second)
    jump = nx.sqrt(nx.sum(vectors**2, axis=1))
    return first, second, best - nx.max(rest, axis=1), jump, nx.abs(best) + size[first]


def _jumps(target, x, first, second):
    """``d_x c(x_i, y_j) - d_x c(x_i, y_k)`` for two atoms of each point."""
    gradients = [
        target.cost.pullback(
            x, target.atoms, HardBlock(index, target.atoms.shape[0], x[:, 0], target.nx), target.nx
        )
        for index in (first, second)
    ]
    return gradients[0] - gradients[1]


def _linkage(first, second, margin, n_atoms):
    """Spanning tree of the cells by their gaps: preorder, size of subtrees, rank of the edge above.

    The gap of two cells is the larger of the two smallest margins from one to the other: where there
    is mass on one side only, a potential can move. Edges of the highest rank join what no point joins.
    """
    pair, inverse = np.unique(first * n_atoms + second, return_inverse=True)
    least = np.full(len(pair), math.inf)
    np.minimum.at(least, inverse, margin)
    j, k = np.divmod(pair, n_atoms)
    edge, inverse = np.unique(np.minimum(j, k) * n_atoms + np.maximum(j, k), return_inverse=True)
    gaps = np.zeros(len(edge))
    np.maximum.at(gaps, inverse, least)
    rank = np.empty(len(edge))
    rank[np.argsort(gaps)] = 1.0 + np.arange(len(edge))
    j, k = np.divmod(edge, n_atoms)
    graph = csr_array((rank, (j, k)), shape=(n_atoms, n_atoms))
    part = csgraph.connected_components(graph, directed=False)[1]
    root, *others = np.unique(part, return_index=True)[1]
    j, k = np.append(j, np.full(len(others), root)), np.append(k, others).astype(int)
    rank = np.append(rank, np.full(len(others), len(edge) + 1.0))
    tree = csgraph.minimum_spanning_tree(csr_array((rank, (j, k)), shape=(n_atoms, n_atoms)))
    tree = tree + tree.T
    order, above = csgraph.depth_first_order(tree, root, directed=False)
    size = np.ones(n_atoms, dtype=int)
    for node in order[:0:-1]:
        size[above[node]] += size[node]
    joined = [float(tree[above[node], node]) for node in order[1:]]
    return order, size[order], np.array([0.0, *joined])


def _near_boundary(target, x, ties):
    """Density of the distance to the boundary, jumps and roughness; and the roughness beyond doubt.

    With ``v`` the jump and ``delta`` the distance of a point, the second derivative of
    ``t -> E psi^c(X + t)`` is that of the cost less ``E[v v^T / |v|; delta < h] / (2 h)``, h small.
    """
    n, unit = len(ties.distance), unit_curvature(target)
    count = min(n, max(LEAST_COUNT, math.ceil(n ** (2.0 / 3.0))))
    nearest = np.argsort(ties.distance)[:count]
    nearest = nearest[np.isfinite(ties.distance[nearest])]
    if len(nearest) == 0:
        names = ("density", "density_stderr", "mean_jump", "max_jump", "roughness")
        return dict.fromkeys(names, 0.0) | {"window": math.inf}, 0.0
    index = [
        _index(v, target.atoms, target.nx) for v in (nearest, ties.first[nearest], ties.second[nearest])
    ]
    vectors = target.nx.to_numpy(_jumps(target, x[index[0]], *index[1:])).astype(float)
    jump, distance = ties.jump[nearest], ties.distance[nearest]
    vectors /= np.sqrt(jump)[:, None]
    windows = len(nearest) // 2 ** np.arange(max(1, math.ceil(math.log2(len(nearest) / LEAST_COUNT))))
    rough = [np.linalg.norm(_gram(vectors[:k]), 2) / (2 * n * unit * distance[k - 1]) for k in windows]
    density = math.inf if ties.tied_mass else len(nearest) / (n * distance[-1])
    facts = {
        "density": density,
        "density_stderr": density / math.sqrt(len(nearest)),
        "window": distance[-1],
        "mean_jump": jump.mean(),
        "max_jump": jump.max(),
        "roughness": math.inf if ties.tied_mass else rough[0],
    }
    doubtless = [
        r * max(0.0, 1.0 - SIGMAS / math.sqrt(k)) for r, k in zip(rough, windows, strict=True) if k > 9
    ]
    return facts, max(doubtless, default=0.0)


def _gram(vectors):
    """The smaller of ``V^T V`` and ``V V^T``: their norms are the same."""
    return vectors.T @ vectors if vectors.shape[0] > vectors.shape[1] else vectors @ vectors.T


def _marginal_error(target, x, potential, reg):
    """Relative error of the masses, and what it is at least."""
    if x.shape[0] < LEAST_POINTS:
        return math.nan, 0.0
    found = evaluate(SemiDual(target), x, potential, reg)
    chi2, stderr = found.chi2, found.chi2_stderr
    return math.sqrt(max(chi2, 0.0)), math.sqrt(max(chi2 - SIGMAS * stderr, 0.0))


def _smoothness(target, x, potential, reg):
    """Norms of the second derivative of the c-transform at the points, and their largest weights."""
    nx, found = target.nx, []
    start = nx.from_numpy(np.random.default_rng(0).normal(size=(1, x.shape[1])), type_as=x)
    for part, chi in weight_blocks(target, x, potential, reg):
        vector = start + 0.0 * part
        for _ in range(N_POWER):
            norm = nx.sqrt(nx.sum(vector**2, axis=1))
            vector = vector / nx.maximum(norm, 1e-30 + 0.0 * norm)[:, None]
            vector = _second_derivative(target, part, chi, vector, reg)
        found.append((nx.sqrt(nx.sum(vector**2, axis=1)), nx.max(chi, axis=1)))
    return tuple(
        np.concatenate([nx.to_numpy(v).astype(float) for v in field])
        for field in zip(*found, strict=True)
    )


def _second_derivative(target, x, chi, v, reg):
    r"""``sum_j chi_j d_xx c_j v - Cov_chi(d_x c) v / reg``, for each point and its vector.

    Derivatives of the cost along v are central differences; the weights are not differenced, so
    that the step need not be small against the width of the boundaries.
    """
    nx, atoms, cost = target.nx, target.atoms, target.cost
    h = rounding_unit(target) ** (1.0 / 3.0) * (spread_of(target) + float(nx.max(nx.abs(x))))
    pullback = lambda points, shares: cost.pullback(
        points, atoms, SoftBlock(shares, 1.0 + 0.0 * points[:, 0], None, nx), nx
    )
    slope = (target.cost_matrix(x + h * v) - target.cost_matrix(x - h * v)) / (2.0 * h)
    mean = nx.sum(chi * slope, axis=1)[:, None]
    # shares of sum 1, as a pullback expects, and of the order of chi
    unit = unit_curvature(target) * spread_of(target) + 1e-30
    spread = pullback(x, chi * (1.0 + (slope - mean) / unit)) - pullback(x, chi)
    return (pullback(x + h * v, chi) - pullback(x - h * v, chi)) / (2.0 * h) - unit / reg * spread


def unit_curvature(target):
    """``2 E c(Y, Y') / E |Y - Y'|^2``, which is 2 for the squared distance; 1 if all atoms are one."""
    length = spread_of(target)
    return 2.0 * scale_of(target) / length**2 if length > 0 else 1.0


def spread_of(target):
    """``(E |Y - Y'|^2)^(1/2)``."""
    nx, b = target.nx, target.weights
    centred = target.atoms - nx.dot(b, target.atoms)
    return math.sqrt(2.0 * float(nx.sum(b * nx.sum(centred**2, axis=1))))
