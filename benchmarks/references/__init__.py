"""Optimal potentials, values and traces of the problems, by Newton's method in float64.

``python -m benchmarks.references [NAME ...]`` makes ``benchmarks/references/NAME.npz``. A file
holds the solution, how it was made, and a fingerprint of the problem it belongs to.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import linalg

from .. import problems
from ..problems import Quadrature, gauss_legendre, normal_density

__all__ = [
    "Quadrature",
    "Reference",
    "gauss_legendre",
    "load",
    "newton",
    "normal_density",
    "quantile_potential",
    "semi_dual",
]

FOLDER = Path(__file__).parent
BLOCK = 4096
TINY = -230.0  # products of exp(TINY) are normal numbers: those below them are slow


@dataclass(frozen=True)
class Reference:
    """A solved problem.

    Attributes
    ----------
    atoms, weights : ndarray
    reg : float
    potential : ndarray
        Optimal, of weighted mean 0.
    value : float
        Transport cost.
    trace : float
        ``tr(A^+ Sigma)``: T samples cannot do better, in the mean, than ``trace / (2 T)``.
    chi2 : float
        What is left of the gradient, ``sum_j (m_j - b_j)^2 / b_j``.
    """

    atoms: np.ndarray
    weights: np.ndarray
    reg: float
    potential: np.ndarray
    value: float
    trace: float
    chi2: float

    def efficiency_ratio(self, source, potential, n_samples):
        """Sub-optimality of a potential, in units of the statistical limit of its samples."""
        value = semi_dual(source, self.atoms, self.weights, self.reg, potential)[0]
        return (self.value - value) * 2.0 * n_samples / self.trace

    def verify(self, problem, tol=1e-10):
        """Marginal error of the potential on the quadrature, ValueError if it is not under `tol`."""
        value, marginal, _ = semi_dual(
            problem.quadrature(), problem.atoms, problem.weights, problem.reg, self.potential
        )
        chi2 = marginal_error(marginal, problem.weights)
        if not (chi2 < tol and abs(value - self.value) <= 1e-10 * abs(self.value)):
            raise ValueError(
                f"{problem.name}: marginal error {chi2:.3g}, expected under {tol:.3g}; "
                f"value {value:.12g}, stored {self.value:.12g}. Make the reference again."
            )
        return chi2


def marginal_error(marginal, weights):
    """``sum_j (m_j - b_j)^2 / b_j``."""
    return float(((marginal - weights) ** 2 / weights).sum())


def semi_dual(source, atoms, weights, reg, potential, hessian=False):
    """Semi-dual value, marginal and (minus the) Hessian at a potential, ``reg > 0``."""
    n_atoms, centre = len(atoms), weights @ atoms
    atoms = atoms - centre
    bias = (potential - (atoms**2).sum(axis=1)) / reg + np.log(weights)
    value, marginal = weights @ potential, np.zeros(n_atoms)
    products = np.zeros((n_atoms, n_atoms)) if hessian else None
    for start in range(0, len(source.nodes), BLOCK):
        x, mass = source.nodes[start : start + BLOCK] - centre, source.mass[start : start + BLOCK]
        chi = (2.0 / reg * x) @ atoms.T
        chi += bias
        top = chi.max(axis=1)
        chi -= top[:, None]
        np.exp(np.maximum(chi, TINY, out=chi), out=chi)
        total = chi.sum(axis=1)
        value += mass @ ((x**2).sum(axis=1) - reg * (top + np.log(total)))
        marginal += (mass / total) @ chi
        if hessian:
            chi *= (np.sqrt(mass) / total)[:, None]
            products += chi.T @ chi
    return value, marginal, (np.diag(marginal) - products) / reg if hessian else None


def scaled(hessian, weights, reg, damping=0.0):
    """``D (reg A + b b^T) D``, ``D = diag(b)^-1/2``: close to the identity, and definite."""
    root = np.sqrt(weights)
    matrix = reg * hessian / np.outer(root, root) + np.outer(root, root)
    matrix[np.diag_indices_from(matrix)] += damping
    return matrix


def ascend(source, atoms, weights, reg, potential, tol, max_iter=60):
    """Damped Newton steps from a potential, until the marginal error is under `tol`.

    Returns the potential and the value, marginal and Hessian there; it stops earlier where no
    step along Newton's direction improves the value or the marginal.
    """
    root = np.sqrt(weights)
    state = semi_dual(source, atoms, weights, reg, potential, hessian=True)
    for _ in range(max_iter):
        value, marginal, hessian = state
        gradient, error = weights - marginal, marginal_error(marginal, weights)
        if error < tol:
            break
        factor = linalg.cho_factor(scaled(hessian, weights, reg, 1e-2 * min(1.0, error)))
        step = reg * linalg.cho_solve(factor, gradient / root) / root
        # near the solution Newton's own step is right, up to rounding
        length, shortest = 1.0, 1e-5 if error > 1e-10 else 1.0
        while length >= shortest:
            trial = potential + length * step
            moved = semi_dual(source, atoms, weights, reg, trial, hessian=True)
            rise = moved[0] - value
            if rise > 1e-4 * length * gradient @ step or marginal_error(moved[1], weights) < error / 2:
                break
            length /= 2.0
        else:
            break
        potential, state = trial, moved
    return potential, state


def newton(source, atoms, weights, reg, tol=1e-13, coarse=None):
    """Maximise the semi-dual by damped Newton steps, down a ladder of regularisations.

    The steps before the last use the quadrature `coarse`, `source` by default. It shares no code with
    the package's own Newton's method, which is judged by what it finds.
    """
    ladder = [reg]
    while ladder[-1] * 3.0 < problems.mean_cost(atoms, weights):
        ladder.append(ladder[-1] * 3.0)
    first = source if coarse is None else coarse
    mean = first.mass @ first.nodes
    # the optimal potential of an infinite reg
    potential, previous = (atoms**2).sum(axis=1) - 2.0 * atoms @ mean, None
    for level in reversed(ladder):
        if previous is not None:
            potential = potential + (previous - level) * np.log(weights)
        potential = ascend(first, atoms, weights, level, potential, 1e-3)[0]
        previous = level
    potential, (_, marginal, hessian) = ascend(source, atoms, weights, reg, potential, tol)
    potential = potential - weights @ potential
    value = semi_dual(source, atoms, weights, reg, potential)[0]
    trace = efficiency_trace(hessian, weights, reg)
    chi2 = marginal_error(marginal, weights)
    return Reference(atoms, weights, reg, potential, float(value), trace, chi2)


def efficiency_trace(hessian, weights, reg):
    """``tr(A^+ Sigma)``, with the Hessian of a solution.

    ``Sigma = diag(b) - b b^T - reg A`` makes it ``reg (tr S^-1 - N)`` for S of :func:`scaled`.
    """
    lower = linalg.cholesky(scaled(hessian, weights, reg), lower=True)
    inverse, _ = linalg.lapack.dtrtri(lower, lower=1)
    return float(reg * ((np.tril(inverse) ** 2).sum() - len(weights)))


def quantile_potential(atoms, weights, inverse_cdf):
    """Optimal potential at ``reg = 0`` on the line, atoms sorted (THEORY: 1D closed form)."""
    cuts = inverse_cdf(np.cumsum(weights)[:-1])
    steps = (cuts - atoms[1:]) ** 2 - (cuts - atoms[:-1]) ** 2
    potential = np.concatenate([[0.0], np.cumsum(steps)])
    return potential - weights @ potential


def load(name):
    """The stored reference of a problem."""
    problem = problems.get(name)
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        facts = {key: file[key] for key in file.files}
    if not np.allclose(facts["fingerprint"], problem.fingerprint(), rtol=1e-9, atol=0.0):
        raise ValueError(f"The stored reference is of another {name}: make it again.")
    numbers = {key: float(facts[key]) for key in ("value", "trace", "chi2")}
    return Reference(problem.atoms, problem.weights, problem.reg, facts["potential"], **numbers)
