"""The objective: sample averages of the semi-dual, and the work that they take.

Two units make the constants of the optimisers free of scale. Potentials are in units of ``eps`` and
gradients are divided by ``b``: with ``D = diag(b)``, the spectrum of ``-eps D^-1/2 Hess D^-1/2`` lies in
[0, 1]. Samples are in units of the effective number of atoms, :attr:`Measurement.n_eff`.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import Array, all_finite, brief, in_double, joined
from ..kernels import reduce, row_blocks
from ..problem import Target, rounding_of


@dataclass(frozen=True)
class Measurement:
    """Averages over n points at a potential.

    Attributes
    ----------
    n : int
    value : float
        Semi-dual value, summed in double precision.
    marginal : array, shape (n_support,)
        Mean of the assignment weights, the masses.
    goal : array, shape (n_support,)
        Masses to reach: ``b``, unless they are free at a price. Less `marginal` they are the gradient.
    second_moment : array, shape (n_support,)
        Mean of their squares.
    n_eff : float
        Effective number of atoms, ``E sum_j chi_j^2 / max(g_j, m_j) - 1``, taken as 1 below that. At the
        optimum n samples allow ``E chi2 = n_eff / n`` and no less, and the gradient of B points has the
        relative noise ``n_eff / B`` (the gradient noise scale of McCandlish et al., 2018, in the metric
        D). It falls as `eps` grows, and is at most the number of atoms less 1, or 1.
    transform : array, shape (n,)
        c-transform of the points; of several problems, (n, n_problems).
    groups : list of array, shape (n_support,)
        Mean of the weights of each group of the points, which are consecutive and as large as can be.
    """

    n: int
    value: float
    marginal: Array
    goal: Array
    second_moment: Array
    n_eff: float
    transform: Array
    groups: list[Array]

    __repr__ = brief


class SemiDual:
    """The semi-dual of a target, measured at points of a source.

    Parameters
    ----------
    target : Target

    Attributes
    ----------
    n_atoms : int
        Atoms of positive weight.
    work : float
        Entries (points x atoms) evaluated so far.
    """

    def __init__(self, target: Target) -> None:
        self.target, self.n_atoms, self.work = target, target.weights.shape[0], 0.0

    def count(self, x: Array, passes: float = 1.0) -> None:
        """Count so many passes over the points and the atoms."""
        self.work += passes * x.shape[0] * self.n_atoms

    def measure(self, x: Array, psi: Array, eps: float, groups: int = 1) -> Measurement:
        """Average over the points `x`, shape (n, d), by one reduction of each of so many groups."""
        target, nx, n = self.target, self.target.nx, x.shape[0]
        goal = target.goal(psi)
        self.count(x)
        parts = [x[n * k // groups : n * (k + 1) // groups] for k in range(groups)]
        outs = [reduce(target, part, psi, eps, ("c_transform", "colsum", "colsquare")) for part in parts]
        transform = joined([out.c_transform for out in outs], nx)
        value = float(np.mean(nx.to_numpy(transform), dtype=float) + target.precise_term(psi))
        if not math.isfinite(value):
            raise self.not_finite(x)
        marginal = sum(out.colsum for out in outs) / float(n)
        second = sum(out.colsquare for out in outs) / float(n)
        n_eff = self.effective_atoms(second, goal, marginal)
        means = [out.colsum / float(part.shape[0]) for out, part in zip(outs, parts, strict=True)]
        return Measurement(n, value, marginal, goal, second, n_eff, transform, means)

    def effective_atoms(self, second: Array, goal: Array, marginal: Array) -> float:
        """Their number, of these moments: see :attr:`Measurement.n_eff`."""
        nx = self.target.nx
        return max(float(nx.sum(second / nx.maximum(goal, marginal))) - 1.0, 1.0)

    def resolution(self, second: Array) -> float:
        """``E sum_j chi_j^2``, 1 if each point has one atom; of several problems, the mean."""
        return float(self.target.n_problems) * float(self.target.nx.sum(second))

    @functools.cached_property
    def least_resolution(self) -> float:
        """That of weights which are the same at all points."""
        return self.resolution(self.target.weights**2)

    def pooled(self, a: Measurement, b: Measurement) -> Measurement:
        """Averages over the points of both, at the same potential and in as many groups."""
        n = a.n + b.n
        pool = lambda u, v: u + b.n / n * (v - u)
        marginal, second = pool(a.marginal, b.marginal), pool(a.second_moment, b.second_moment)
        n_eff = self.effective_atoms(second, a.goal, marginal)
        transform = joined([a.transform, b.transform], self.target.nx)
        groups = [pool(*means) for means in zip(a.groups, b.groups, strict=True)]
        value = pool(a.value, b.value)
        return Measurement(n, value, marginal, a.goal, second, n_eff, transform, groups)

    def values(self, found: Measurement, psi: Array) -> list[float]:
        """Semi-dual value of each of the problems of a :class:`StackedTarget`."""
        target: Any = self.target
        nx = target.nx
        transforms = nx.to_numpy(found.transform).reshape(found.n, -1)
        terms = float(target.n_problems) * in_double(found.goal * psi)
        sums = [terms[columns].sum() for columns in target.columns]
        return (transforms.mean(axis=0, dtype=float) + sums).tolist()

    def parts(self, found: Measurement, psi: Array) -> list[Measurement]:
        """What was measured of each of the problems of a :class:`StackedTarget`."""
        target: Any = self.target
        nx, k, parts = target.nx, float(target.n_problems), []
        transforms, means = nx.reshape(found.transform, (found.n, -1)), k * nx.stack(found.groups)
        values = self.values(found, psi)
        for number, (value, columns) in enumerate(zip(values, target.columns, strict=True)):
            marginal, goal = k * found.marginal[columns], k * found.goal[columns]
            second, transform = k * k * found.second_moment[columns], nx.copy(transforms[:, number])
            n_eff = self.effective_atoms(second, goal, marginal)
            groups = list(nx.copy(means[:, columns]))
            measured = (found.n, value, marginal, goal, second, n_eff, transform, groups)
            parts.append(Measurement(*measured))
        return parts

    @functools.cached_property
    def least_eps(self) -> float:
        """Below it rounding decides which atom is nearer: no smaller eps resolves more of them."""
        return rounding_of(self.target)

    def not_finite(self, x: Array) -> ValueError:
        """The error to raise where what is measured at the points is not finite: who is to blame."""
        target = self.target
        if all(all_finite(target.cost_matrix(rows), target.nx) for (rows,) in row_blocks(target, x)):
            return ValueError(
                f"kernel {target.kernel.__name__}: expected finite c-transforms at the source points, "
                "received NaN or inf; subtract the maximum of each row of the scores before its powers."
            )
        return ValueError(
            f"metric {target.cost.name!r}: expected finite costs at the source points, received NaN or "
            "inf; define the cost wherever the source has points, or draw none where it is not defined."
        )

    def rounding(self, scale: float) -> float:
        """What rounding makes of values of a scale, about."""
        return 4.0 * self.target.unit * abs(scale)
