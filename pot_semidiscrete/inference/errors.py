r"""Standard errors, by the central limit theorem of the potential that maximises a sample average.

.. math::
    \sqrt{n}\, (\psi_n - \psi^*) \to \mathcal{N}(0, A^+ \Sigma A^+), \qquad
    A = -\nabla^2 H(\psi^*), \quad \Sigma = \mathrm{Cov}\, \chi(X)

(Bercu, Bigot, 2021). Another potential is compared with the maximiser: the square of what they differ by
is added to the variance of the maximiser. Where the potential has not seen the points, 1.96 times the
root contain the optimum in 95.6% at least, whatever the error e of the potential is: of
``|e| > 1.96 ((e + z)^2 + s^2)^(1/2)``, z normal of variance s^2, the probability is 4.4% at most.

The theorem holds at ``reg = 0``, too, where A is a density on the boundaries of the cells (del Barrio,
Gonzalez-Sanz, Loubes, 2024). There and at a small `reg`, a larger one estimates it: ``trace.Models``.
"""

import copy
import functools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import Array, brief, describe, in_double, no_grad
from ..kernels import BLOCK_BYTES, exponent_floor, known_bilinear, reduce, row_blocks, weight_blocks
from ..optim.ascent import resolving_eps
from ..optim.hessian import MAX_ITERATIONS, DenseHessian
from ..optim.newton import CORRECTION, QUICK, can_correct, maximize
from ..optim.semi_dual import SemiDual
from ..optim.stopping import NORMAL_975
from ..problem import Target, check_array
from ..runs import SemiDiscreteWarning
from .gaps import has_gap
from .trace import PRECISE, Models


@dataclass(frozen=True)
class NormalLaw:
    """Normal law of the maximiser over points.

    Attributes
    ----------
    mean : array, shape (n_support,)
        The maximiser, which stands for the potential that is optimal.
    deviations : array, shape (k, n_support)
        Vectors of the size of the error: the mean of their products is the covariance.
    """

    mean: Array
    deviations: Array

    __repr__ = brief

    def potential_stderr(self, target: Target, psi: Array) -> Array:
        """Root of the mean squared error of a potential, shape (n_support,), both of them normalized."""
        return (target.nx.mean(self.deviations**2, axis=0) + (psi - self.mean) ** 2) ** 0.5

    def map_stderr(self, target: Target, x: Array, psi: Array, reg: float) -> Array:
        """Error of the map of a potential, shape (n, d), of which 1.96 times are a 95% interval.

        By the percentile method (Davison, Hinkley, 1997, section 5.3): of the maps of ``mean +-
        deviation``, as draws of the normal law, 2.5% are farther from that of the mean on each side. It
        is right for any monotone function of a normal variable, as the map is between two atoms: where
        weights are saturated, and where the map jumps. The farther side counts.
        """
        nx, found, (n_draws, n_atoms) = target.nx, [], self.deviations.shape
        span = float(np.ptp(nx.to_numpy(self.deviations), axis=1).max())
        # weights are right to rounding, times powers of the span as well
        reach = math.log(target.unit) - exponent_floor(x)
        moves_of = self._tilted_moves if span < reach * reg else self._moves
        row = 32 * (n_draws + n_atoms) * x.shape[1]  # bytes of a row of moves, made from one of atoms
        for (part,) in row_blocks(target, x, step=max(BLOCK_BYTES // row, 1)):
            middle, moves = moves_of(target, part, reg)
            ends = nx.from_numpy(farther_end(moves) / NORMAL_975, type_as=middle)
            error = reduce(target, part, psi, reg, ("map",)).map - middle
            found.append((ends**2 + error**2) ** 0.5)
        return nx.concatenate(found, axis=0)

    def _moves(self, target: Target, x: Array, reg: float) -> tuple[Array, np.ndarray]:
        """Map of the mean, and how far those of ``mean +- deviation`` are from it, (n, d, 2 k)."""
        nx, known = target.nx, known_bilinear(target, x)
        evaluate = lambda psi: reduce(target, x, psi, reg, ("map",), bilinear=known).map
        middle, moves = evaluate(self.mean), []
        for row in self.deviations:
            moves += [nx.to_numpy(evaluate(self.mean + s * row) - middle) for s in (1.0, -1.0)]
        return middle, np.stack(moves, axis=-1)

    def _tilted_moves(self, target: Target, x: Array, reg: float) -> tuple[Array, np.ndarray]:
        """The same from the weights at the mean: ``chi_ij exp(deviation_j / reg)``, up to a factor."""
        nx, (n, d) = target.nx, x.shape
        at_mean = reduce(target, x, self.mean, reg, ("weights", "map"))
        chi, middle = at_mean.weights, at_mean.map
        tilt = nx.exp(nx.concatenate([self.deviations, -self.deviations], axis=0) / reg).T

        def moved(columns: slice, part: Target) -> Array:
            """Sum over atoms of their weights times their way from the map of the mean."""
            ways = chi[:, None, columns] * (part.atoms.T[None] - middle[:, :, None])
            return nx.dot(nx.reshape(ways, (n * d, -1)), tilt[columns])

        moves = nx.reshape(target.total(moved), (n, d, -1)) / nx.dot(chi, tilt)[:, None]
        return middle, nx.to_numpy(moves)

    def map(self, function: Callable[[Array], Array]) -> "NormalLaw":
        """Apply `function` to every array."""
        return NormalLaw(function(self.mean), function(self.deviations))


class SampleFit:
    """The potential that maximises an average over points, and what the theorem says of it.

    Up to 256 atoms the matrices are computed. Beyond, random vectors have the covariance.

    Parameters
    ----------
    name : str
        What an error calls the points.
    target : Target
    x : array, shape (n, d)
    psi : array, shape (n_support,)
        Potential to start from.
    reg : float
    n_probes : int
        Random vectors, for more than 256 atoms.
    seed : int
        Of their signs, or of the basis of the deviations.

    Attributes
    ----------
    potential : array, shape (n_support,)
        The maximiser, normalized.

    Raises
    ------
    ValueError
        If the points are too few for a fit, or see no Hessian: where none is between two groups of
        cells.
    """

    def __init__(
        self,
        name: str,
        target: Target,
        x: Array,
        psi: Array,
        reg: float,
        n_probes: int = 64,
        seed: int = 0,
    ) -> None:
        dual, self.n = SemiDual(target), x.shape[0]
        with no_grad(target.nx):
            n_eff = dual.measure(x, psi, reg).n_eff
            if self.n <= n_eff:
                raise ValueError(
                    f"{name}: expected more points than {n_eff:.0f}, the effective number of atoms, "
                    f"received {self.n}; give applications.ErrorBars more, or solve with a larger reg."
                )
            if not can_correct(dual, self.n, n_eff):
                raise ValueError(
                    f"{name}: expected so few effective atoms that there is room for the weights of as "
                    f"many points at {dual.n_atoms} atoms, received {n_eff:.0f}; solve with a larger "
                    "reg, or for fewer atoms."
                )
            # until a thousandth of what chance gains in one direction is left, not of all of them
            rtol, eps = 1e-3 / n_eff, resolving_eps(dual, x, psi, reg)
            most = max(QUICK, CORRECTION * MAX_ITERATIONS * self.n * dual.n_atoms)
            # at a small reg from above, for Newton's method alone would not arrive
            for start in [eps] if reg in (0.0, eps) else [eps, reg]:
                found = maximize(dual, x, psi, reg, rtol, start, most)
                psi = found.potential
            if not found.converged:
                warnings.warn(
                    f"{name}: Newton's method on {self.n:,} points took its bound of work before it "
                    "converged, and standard errors may be wrong; give applications.ErrorBars fewer "
                    "points, solve with a larger reg, or leave atoms out whose weights are tiny.",
                    SemiDiscreteWarning,
                    stacklevel=4,
                )
            self.potential = target.normalized(psi)
        self.name, self.target, self.x, self.reg = name, target, x, reg
        self.n_probes, self.seed = n_probes, seed

    def __getstate__(self) -> dict[str, Any]:
        """All but the Hessian, which is made again."""
        return {name: value for name, value in vars(self).items() if name not in ("_models", "_seen")}

    @functools.cached_property
    def _models(self) -> Models:
        """The Hessian of the points."""
        return Models(SemiDual(self.target), self.x, self.potential, self.reg)

    @functools.cached_property
    def _seen(self) -> Any:
        """That where the points see it, if they do."""
        found = self._models
        with no_grad(self.target.nx):
            is_apart = found.eps > self.reg and has_gap(found.nearest, len(self.potential))
        if is_apart or found.seen.is_singular:
            raise ValueError(
                f"{self.name}: expected points between the cells of all neighbours, received {self.n} "
                "that see no Hessian between some; give applications.ErrorBars more, or solve with a "
                "larger reg."
            )
        return found.seen

    def _solve(self, g: Array) -> Array:
        """Inverse of the Hessian times g, or each row: in slow modes as well, which Newton may leave."""
        if isinstance(self._seen, DenseHessian):
            return self._seen.solve(g, 0.0)
        return self._seen.solve(g, 0.0, PRECISE, g.shape[-1])

    @functools.cached_property
    def law(self) -> NormalLaw:
        """Normal law of the potential."""
        target, random = self.target, np.random.default_rng(self.seed)
        nx, found, scale = target.nx, self._models.own, self._models.unit / math.sqrt(self.n)
        if isinstance(found, DenseHessian):
            values, vectors = np.linalg.eigh(found.covariance)
            root = vectors * np.sqrt(np.maximum(values, 0.0))
            # so many draws have 20 beyond 5%, as section 2.4 of Davison and Hinkley (1997) advises
            draws = np.linalg.qr(random.normal(size=(399, len(values))))[0]
            scale *= math.sqrt(len(draws))
            probes = nx.from_numpy(draws @ root.T, type_as=target.weights)
        else:
            scale /= math.sqrt(found.n)
            probes = found.probes(self.n_probes, random)
        del found  # its weights make room for those of the other
        moves = self._solve(probes)
        goal = target.goal(self.potential)  # <goal, move> is 0 as long as psi is normalized
        return NormalLaw(self.potential, scale * (moves - nx.sum(goal * moves, axis=1)[:, None]))

    def stored(self) -> "SampleFit":
        """The same: it has all that it is asked for."""
        return self

    def map(self, function: Callable[[Array], Array]) -> "SampleFit":
        """Apply `function` to every array, the points included (a move to another device, say)."""
        moved = copy.copy(self)  # without the Hessian
        moved.target = self.target.map(function)
        moved.potential, moved.x = function(self.potential), function(self.x)
        if "law" in vars(self):
            vars(moved)["law"] = self.law.map(function)
        return moved

    def functional(self, f: Callable[[Array, Array], Array]) -> tuple[float, float]:
        """Estimate of the mean of f under the plan, and its standard error."""
        nx, psi, reg = self.target.nx, self.potential, self.reg
        rows, slope = self._means(f, psi, reg)
        at, eps = self._models.at, self._models.eps
        if eps > reg:  # the slope is a density on the boundaries, as the Hessian is
            slope = self._means(f, at, eps)[1]
        # a point moves psi by A^+ (b - chi) / n, and the mean by the product of that with the slope
        v = self._solve(self.target.exponent(eps) * slope / float(self.n))
        moved = reduce(self.target, self.x, psi, reg, ("average",), values=v).average
        values, moved = map(in_double, (nx.concatenate(rows, axis=0), moved))
        return float(values.mean()), float((values - moved).std(ddof=1) / math.sqrt(self.n))

    def _means(
        self, f: Callable[[Array, Array], Array], psi: Array, eps: float
    ) -> tuple[list[Array], Array]:
        """Mean of f over the weights of each point, and the slope of the sum, in units of 1 / eps."""
        target, nx = self.target, self.target.nx
        origin = 0.0 * target.like[0] if target.origin is None else target.origin
        slope, rows = 0.0 * target.weights, []
        for x, chi in weight_blocks(target, self.x, psi, eps):
            evaluate = lambda atoms, x=x: _checked(f(x + origin, atoms + origin), x, atoms)
            weighted = chi * target.in_parts(evaluate, axis=1)
            rows.append(nx.sum(weighted, axis=1))
            slope = slope + nx.sum(weighted, axis=0) - nx.dot(rows[-1], chi)
        return rows, slope


def farther_end(draws: np.ndarray) -> np.ndarray:
    """Farther of the ends between which 95% of the draws along the last axis are.

    The ends are quantiles of the draws, the i-th of n of them at ``i / (n + 1)`` (Weibull).
    """
    draws = np.sort(draws, axis=-1)  # faster than to select
    share, i = math.modf(max(0.025 * (draws.shape[-1] + 1) - 1.0, 0.0))
    low, high = draws[..., int(i) : int(i) + 2], draws[..., ::-1][..., int(i) : int(i) + 2]
    ends = (abs(side[..., 0] + share * (side[..., 1] - side[..., 0])) for side in (low, high))
    return np.maximum(*ends)


def _checked(values: Any, x: Array, atoms: Array) -> Array:
    """Check what a user's function returned for a block."""
    check_array("f", values)
    shape = (x.shape[0], atoms.shape[0])
    if tuple(values.shape) != shape or values.dtype != x.dtype:
        raise ValueError(
            f"f: expected a matrix of shape {shape} and {x.dtype}, a value for each point and atom, "
            f"received {describe(values)}."
        )
    return values
