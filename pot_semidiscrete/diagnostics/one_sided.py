"""Derivatives of the transport cost from both sides: where they differ, there is no gradient."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import ot
from ot.backend import get_backend

from ..backend import Array, all_finite, describe, guest, in_double, no_grad, ours
from ..costs import Metric
from ..inference.bounds import MAX_PIVOTS
from ..inference.gaps import SIGMAS
from ..optim.newton import eps_scaling
from ..optim.semi_dual import SemiDual
from ..problem import (
    Problem,
    Target,
    check_callable,
    check_count,
    check_parameters,
    check_plain,
    check_real,
    flat_rows,
    spread_of,
    unit_curvature,
)


@dataclass(frozen=True)
class OneSidedDerivatives:
    """What :func:`one_sided_derivatives` found.

    Attributes
    ----------
    left, right : float
        Derivatives along the direction, from either side.
    left_error, right_error : float
        Errors of the derivatives: of the differences, and of the latent points if there are several
        batches.
    jump, jump_error : float
        ``right - left``, and its error; the batches see the same latent points on both sides.
    step : float
        Longest step of the differences, in units of the direction.
    kink : bool
        Whether the two derivatives differ by more than three errors.
    """

    left: float
    right: float
    left_error: float
    right_error: float
    jump: float
    jump_error: float
    step: float

    @property
    def kink(self) -> bool:
        """Whether the two derivatives differ by more than three errors."""
        return abs(self.jump) > SIGMAS * self.jump_error


@ours()
def one_sided_derivatives(
    generator: Callable[[Any, Array], Array],
    theta: Any,
    direction: Any,
    z: Array,
    X_target: Array,
    a_target: Array | None = None,
    metric: Metric = None,
    reg: float = 0.0,
    *,
    step: float | None = None,
    n_batches: int = 1,
) -> OneSidedDerivatives:
    r"""Differentiate the transport cost along a direction, from both sides.

    .. math::
        W_\lambda'(\theta; \pm v) = \lim_{h \downarrow 0}
        \frac{W_\lambda(\theta \pm h v) - W_\lambda(\theta)}{\pm h},

    for the empirical law of ``generator(theta, z)``, solved anew at each of the eight steps: by a linear
    program at ``reg = 0``, by Newton's method otherwise. Formula (G) is not used, so this function can
    test it: at a kink the two numbers differ, elsewhere both are ``<gradient, v>``.

    Parameters
    ----------
    generator : callable
        ``generator(theta, z)`` returns n points; any shape whose rows have d entries.
    theta : array or number, or list, tuple or dict of them
        Parameters, best in float64. A number is taken as an array of shape () of the kind of the atoms.
    direction : same structure as `theta`
        Direction :math:`v`.
    z : array
        Latent points, handed to `generator` as they are. At ``reg = 0`` the (samples x atoms) matrix
        of costs must fit in memory.
    X_target : array, shape (n_atoms, d)
        Atoms :math:`y_j`.
    a_target : array, shape (n_atoms,), optional
        Weights :math:`b`, non-negative, of sum 1. Uniform by default.
    metric : str or callable, optional
        Ground cost, as in :func:`semidiscrete_c_transform`.
    reg : float, default=0.0
        Regularisation :math:`\lambda \ge 0`, in units of the metric.
    step : float, optional
        Longest step h; Richardson's extrapolation combines 1, 1/2, 1/4 and 1/8 of it. By default the
        points move by 1% of the spread of the atoms, or by a tenth of the width that `reg` gives to the
        boundaries if that is less.
    n_batches : int, default=1
        Batches of latent points, from which the statistical error is estimated. With 1 the latent points
        are taken as the whole law. The cost of a small batch is biased.

    Returns
    -------
    OneSidedDerivatives
        Both derivatives in units of the metric per unit of the direction, and their errors.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape, dtype or range.

    References
    ----------
    Houdard, Leclaire, Papadakis, Rabin, arXiv:2102.05542 (the counterexample).

    Examples
    --------
    Two points that turn about the middle of two atoms: the cost is :math:`(|\theta| - 1)^2 + 1`.

    >>> import numpy as np
    >>> from pot_semidiscrete import one_sided_derivatives
    >>> atoms, sign = np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([1.0, -1.0])
    >>> turn = lambda theta, z: np.stack([theta * z, z], axis=1)
    >>> found = one_sided_derivatives(turn, np.zeros(1), np.ones(1), sign, atoms)
    >>> round(found.left, 6), round(found.right, 6), found.kink
    (2.0, -2.0, True)
    >>> one_sided_derivatives(turn, np.zeros(1), np.ones(1), sign, atoms, reg=0.5).kink
    False
    """
    check_callable("generator", generator, "(theta, z) -> points")
    n_batches = check_count("n_batches", n_batches)
    check_plain("z", z)
    problem = Problem.of(X_target, a_target, metric, reg)
    target, reg = problem.target, problem.reg
    theta = check_parameters("theta", theta, target.like)
    direction = check_parameters("direction", direction, target.like)
    _check_direction(theta, direction)

    def points(t: float) -> Array:
        with no_grad(target.nx):
            made = flat_rows(guest(generator)(_moved(theta, direction, t), z), target.nx)
            return target.nx.detach(problem.points("generator(theta, z)", made))

    here = points(0.0)
    if here.shape[0] < 2 * n_batches and n_batches > 1:
        raise ValueError(
            f"n_batches: expected 2 points or more for each, received {n_batches} for {here.shape[0]} "
            "points; give more latent points."
        )
    if step is None:
        step = _default_step(target, here, points, reg)
    step = check_real("step", step, positive=True)
    value, noise = _transport_costs(target, here, reg, n_batches)
    sides = [_one_side(target, points, reg, n_batches, sign * step, value, noise) for sign in (-1, 1)]
    (left, left_error), (right, right_error) = sides
    spread = lambda v: np.std(v[1:], ddof=1) / math.sqrt(n_batches) if n_batches > 1 else 0.0
    facts = (
        left[0],
        right[0],
        math.hypot(left_error, spread(left)),
        math.hypot(right_error, spread(right)),
        right[0] - left[0],
        math.hypot(left_error + right_error, spread(right - left)),
        step,
    )
    return OneSidedDerivatives(*(float(v) for v in facts))


def _one_side(
    target: Target,
    points: Callable[[float], Array],
    reg: float,
    n_batches: int,
    step: float,
    value: np.ndarray,
    noise: float,
) -> tuple[np.ndarray, float]:
    """Derivative of all points and of the batches, by four steps, and its numerical error."""
    quotients = []
    for h in (step, step / 2.0, step / 4.0, step / 8.0):
        moved, more = _transport_costs(target, points(h), reg, n_batches)
        quotients.append((moved - value) / h)
        noise = max(noise, more)
    firsts = [2.0 * fine - coarse for coarse, fine in itertools.pairwise(quotients)]
    seconds = [(4.0 * fine - coarse) / 3.0 for coarse, fine in itertools.pairwise(firsts)]
    # points that cross a kink of a generator change all of these, though one may look right by chance
    found = [v[0] for v in firsts + seconds]
    # the weights of the values add up to less than 64 / h
    return seconds[-1], max(found) - min(found) + 64.0 * noise / abs(step)


def _default_step(target: Target, here: Array, points: Callable[[float], Array], reg: float) -> float:
    """Step that moves the points by little against the atoms and the width of the boundaries."""
    nx, length = target.nx, spread_of(target)
    probe = target.unit ** (1.0 / 3.0)
    speed = float(nx.max(nx.abs(points(probe) - here))) / probe
    if speed == 0:
        raise ValueError(
            "direction: expected one along which generator(theta, z) moves, received one along which it "
            "does not; give another, or step."
        )
    length = length if length > 0 else max(float(nx.max(nx.abs(here))), 1e-30)
    goal = 0.01 * length
    if reg > 0:
        goal = min(goal, 0.1 * reg / (unit_curvature(target) * length))
    return goal / speed


def _transport_costs(target: Target, x: Array, reg: float, n_batches: int) -> tuple[np.ndarray, float]:
    """Transport cost of the points and of each batch of them, and the largest error."""
    parts = [x] + [x[k::n_batches] for k in range(n_batches) if n_batches > 1]
    solve = lambda part: _by_newton(target, part, reg) if reg > 0 else _by_linear_program(target, part)
    found = [solve(part) for part in parts]
    return np.array([value for value, _ in found]), max(error for _, error in found)


def _by_linear_program(target: Target, x: Array) -> tuple[float, float]:
    """Transport cost at ``reg = 0``, a linear program, and its rounding error."""
    costs, weights = in_double(target.cost_matrix(x)), in_double(target.weights)
    mass = np.full(len(costs), 1.0 / len(costs))
    scale = float(np.abs(costs).max()) or 1.0  # the tolerance of POT's simplex is absolute
    value = ot.emd2(mass, weights / weights.sum(), costs / scale, numItermax=MAX_PIVOTS)
    return float(value) * scale, target.unit * scale


def _by_newton(target: Target, x: Array, reg: float) -> tuple[float, float]:
    """Transport cost at ``reg > 0``, by Newton's method to rounding, and its error."""
    with no_grad(target.nx):
        value = eps_scaling(SemiDual(target), x, reg).measured.value
    return value, target.unit * (abs(value) + reg)


def _check_direction(theta: Any, direction: Any) -> None:
    """Check that a direction is finite, and has the structure, shapes and backend of `theta`."""
    kinds = [kind for kind in (dict, list, tuple) if isinstance(theta, kind)]
    keys = lambda parts: set(parts if isinstance(parts, dict) else range(len(parts)))
    if kinds and isinstance(direction, kinds[0]) and keys(theta) == keys(direction):
        for key in keys(theta):
            _check_direction(theta[key], direction[key])
        return
    if not kinds and not hasattr(theta, "shape"):
        raise TypeError(
            "theta: expected an array, or a list, tuple or dict of arrays, received "
            f"{describe(theta)}; make it an array."
        )
    if kinds or tuple(theta.shape) != tuple(getattr(direction, "shape", (None,))):
        raise ValueError(
            f"direction: expected the shape of theta ({describe(theta)}), received "
            f"{describe(direction)}; give one number for each parameter."
        )
    try:
        nx = get_backend(theta, direction)
    except ValueError:
        raise TypeError(
            f"direction: expected the backend of theta ({describe(theta)}), received "
            f"{describe(direction)}; convert one of them."
        ) from None
    if not all_finite(direction, nx):
        raise ValueError("direction: expected finite numbers, received NaN or inf; see what made them.")


def _moved(theta: Any, direction: Any, t: float) -> Any:
    """``theta + t direction``, part by part."""
    if isinstance(theta, dict):
        return {key: _moved(part, direction[key], t) for key, part in theta.items()}
    if isinstance(theta, (list, tuple)):
        make = getattr(theta, "_make", type(theta))  # a named tuple's is not its class
        return make(_moved(p, v, t) for p, v in zip(theta, direction, strict=True))
    return theta + t * direction
