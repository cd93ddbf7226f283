"""Atoms that move: Lloyd's method, each to the mean of the points that the plans send there.

For the squared distance and at given plans, the atoms that minimise ``sum_k s_k OT_reg(mu_k, nu)`` are
``y_j = sum_k s_k E_k[chi_j(X) X] / E_k[chi_j(X)]``. With uniform weights the plans are those of optimal
potentials (Balzer, Schloemer, Deussen, 2009; Cuturi, Doucet, 2014). Weights that are free are the masses
of the plan at the potential 0: Lloyd's method at ``reg = 0``, otherwise the iteration of Blahut and
Arimoto (expectation and maximisation, for a mixture of normal laws of the variance ``reg / 2``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..backend import Array, brief, no_grad
from ..inference.bounds import FittedPoints
from ..inference.estimates import Estimates
from ..kernels import weight_blocks
from ..optim.buffer import SampleStream
from ..optim.newton import NewtonResult, maximize
from ..optim.semi_dual import SemiDual
from ..problem import Target, build_target
from ..result import SemiDiscreteResult
from ..samplers.base import Sampler
from ..samplers.draws import Draws
from ..solver import Options


@dataclass(frozen=True)
class Objective:
    """What the atoms minimise, ``sum_k s_k OT_reg(mu_k, nu)``, and the points to estimate it by.

    Attributes
    ----------
    sources : sequence of Sampler
    shares : sequence of float
        Of sum 1.
    reg : float
    is_free : bool
        Whether the weights of the atoms are free (of one source); else they are uniform.
    n_points : int
        Of each source, for a step.
    """

    sources: Sequence[Sampler]
    shares: Sequence[float]
    reg: float
    is_free: bool
    n_points: int

    def draw(self, target: Target, k: int, independent: bool = False) -> Array:
        """Fresh points of a source, in the target's coordinates."""
        stream = SampleStream(Draws(self.sources[k], target), Options.batch_size, 0)
        return stream.independent(self.n_points) if independent else stream.ahead(self.n_points)

    def fit(self, dual: SemiDual, x: Array, psi: Array) -> NewtonResult:
        """The potential that is optimal for the points, starting from `psi`, whatever work it takes.

        Atoms whose masses are wrong move to wrong places. Where weights are free, `psi` itself, which is
        0, measured.
        """
        if self.is_free:
            return NewtonResult(psi, dual.measure(x, psi, self.reg), self.reg)
        return maximize(dual, x, psi, self.reg, max_work=math.inf)

    def transport(self, target: Target, k: int, psi: Array) -> SemiDiscreteResult:
        """The transport of a source, fitted to as many points as for a step, and measured by others."""
        dual, x = SemiDual(target), self.draw(target, k)
        found, fresh = self.fit(dual, x, psi), self.draw(target, k, independent=True)
        psi, fit, n = found.potential, FittedPoints(target, x, found), x.shape[0]
        estimates = Estimates(target, psi, self.reg, fresh, fit=fit, n_samples=n)
        log = {"value": np.array([found.measured.value]), "reg": np.array([self.reg])}
        counts = {"n_iter": 1, "n_samples": n + fresh.shape[0], "work": dual.work}
        return SemiDiscreteResult(target, psi, self.reg, estimates, log, "max_iter", **counts)


@dataclass
class Lloyd:
    """Lloyd's method: atoms, weights and potentials after the steps so far.

    Attributes
    ----------
    objective : Objective
    atoms : array, shape (n_atoms, d)
    weights : array, shape (n_atoms,)
    potentials : list of array, shape (n_atoms,)
        One for each source.
    history : dict of list
        ``cost`` of each step, on its points, and ``decrease``, the predicted decrease of it.
    """

    objective: Objective
    atoms: Array
    weights: Array
    potentials: list[Array]
    history: dict[str, list[float]] = field(default_factory=lambda: {"cost": [], "decrease": []})

    __repr__ = brief

    def run(self, n_steps: int) -> None:
        """Make the steps, and average over their second half (Polyak, Juditsky, 1992)."""
        kept = []
        for k in range(n_steps):
            self.step()
            if 2 * k >= n_steps - 1:
                kept.append((self.atoms, self.weights, *self.potentials))
        means = (sum(arrays) / len(kept) for arrays in zip(*kept, strict=True))
        self.atoms, self.weights, *self.potentials = means

    @property
    def late_cost(self) -> float:
        """Mean cost over the second half of the steps."""
        costs = self.history["cost"]
        return float(np.mean(costs[len(costs) // 2 :]))

    def transports(self) -> list[SemiDiscreteResult]:
        """The transport of each source to the atoms."""
        target, objective = build_target(self.atoms, self.weights), self.objective
        start = [target.merge(psi, objective.reg) for psi in self.potentials]
        return [objective.transport(target, k, psi) for k, psi in enumerate(start)]

    @property
    def history_arrays(self) -> dict[str, np.ndarray]:
        """The history as arrays, which results have."""
        return {name: np.array(values) for name, values in self.history.items()}

    def step(self) -> None:
        """Fit the potentials to fresh points; move the atoms to the means."""
        objective, target = self.objective, build_target(self.atoms, self.weights, merge=False).detached
        nx, cost, move, dual = target.nx, 0.0, 0.0 * target.atoms, SemiDual(target)
        for k, share in enumerate(objective.shares):
            x = objective.draw(target, k)
            found = objective.fit(dual, x, self.potentials[k])
            self.potentials[k], cost = found.potential, cost + share * found.measured.value
            mass, sums = moments(target, x, found.potential, objective.reg)
            divisor = nx.clip(mass, 1e-30)[:, None]  # an atom without points stays
            move = move + share * (sums / divisor - mass[:, None] / divisor * target.atoms)
            if objective.is_free:  # one point more, shared by all atoms: no weight is 0
                self.weights = (mass + 1.0 / mass.shape[0]) / (x.shape[0] + 1.0)
        self.history["cost"].append(cost)
        self.history["decrease"].append(float(nx.sum(target.weights * nx.sum(move**2, axis=1))))
        self.atoms = self.atoms + move


def moments(target: Target, x: Array, potential: Array, reg: float) -> tuple[Array, Array]:
    """Mass and sum of the points that go to each atom, ``sum_i chi_ij`` and ``sum_i chi_ij x_i``."""
    nx, mass, sums = target.nx, 0.0 * target.weights, 0.0 * target.atoms
    with no_grad(nx):
        for rows, chi in weight_blocks(target, x, potential, reg):
            mass, sums = mass + nx.sum(chi, axis=0), sums + nx.dot(chi.T, rows)
    return mass, sums
