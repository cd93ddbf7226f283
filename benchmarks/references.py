"""Problems whose solution is known to rounding, by quadrature and Newton's method in float64.

``python -m benchmarks.references`` solves the large problems once and writes their atoms,
potential, value and trace to ``benchmarks/references/NAME.npz``; the small ones are solved where
they are used.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "references"
BLOCK = 4096


@dataclass(frozen=True)
class Quadrature:
    """A source law as nodes and masses, so that expectations are finite sums."""

    nodes: np.ndarray
    mass: np.ndarray


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
    """

    atoms: np.ndarray
    weights: np.ndarray
    reg: float
    potential: np.ndarray
    value: float
    trace: float

    def efficiency_ratio(self, source, potential, n_samples):
        """Sub-optimality of a potential, in units of the statistical limit of its samples."""
        value = semi_dual(source, self.atoms, self.weights, self.reg, potential)[0]
        return (self.value - value) * 2.0 * n_samples / self.trace


def gauss_legendre(low, high, n, density=None, dimension=1):
    """Product quadrature of a law of independent coordinates with a density on [low, high]."""
    t, w = np.polynomial.legendre.leggauss(n)
    t = low + (high - low) * (t + 1.0) / 2.0
    w = w if density is None else w * density(t)
    w = w / w.sum()
    grids = np.meshgrid(*[t] * dimension, indexing="ij")
    masses = np.meshgrid(*[w] * dimension, indexing="ij")
    nodes = np.stack([g.ravel() for g in grids], axis=1)
    return Quadrature(nodes, np.prod([m.ravel() for m in masses], axis=0))


def normal_density(t):
    """Standard normal density, up to a constant."""
    return np.exp(-(t**2) / 2.0)


def semi_dual(source, atoms, weights, reg, potential, hessian=False):
    """Semi-dual value, marginal and (minus the) Hessian at a potential, ``reg > 0``."""
    n_atoms = len(atoms)
    value, marginal = weights @ potential, np.zeros(n_atoms)
    products = np.zeros((n_atoms, n_atoms)) if hessian else None
    for start in range(0, len(source.nodes), BLOCK):
        x, mass = source.nodes[start : start + BLOCK], source.mass[start : start + BLOCK]
        cost = (x**2).sum(axis=1)[:, None] + (atoms**2).sum(axis=1) - 2.0 * x @ atoms.T
        scores = (potential - cost) / reg + np.log(weights)
        top = scores.max(axis=1)
        chi = np.exp(scores - top[:, None])
        total = top + np.log(chi.sum(axis=1))
        chi /= chi.sum(axis=1)[:, None]
        value -= reg * mass @ total
        marginal += mass @ chi
        if hessian:
            products += chi.T @ (chi * mass[:, None])
    return value, marginal, (np.diag(marginal) - products) / reg if hessian else None


def newton(source, atoms, weights, reg, tol=1e-13):
    """Maximise the semi-dual by damped Newton steps, down a ladder of regularisations."""
    spread = 2.0 * weights @ ((atoms - weights @ atoms) ** 2).sum(axis=1)
    ladder = [reg]
    while ladder[-1] * 3.0 < spread:
        ladder.append(ladder[-1] * 3.0)
    potential = np.zeros(len(atoms))
    for level in reversed(ladder):
        for _ in range(60):
            value, marginal, hessian = semi_dual(source, atoms, weights, level, potential, True)
            gradient = weights - marginal
            if (gradient**2 / weights).sum() < (tol if level == reg else 1e-3):
                break
            # the null space (constants) is filled in with the size of the diagonal
            step = np.linalg.solve(hessian + np.trace(hessian) / len(atoms) ** 2, gradient)
            length = 1.0
            while length > 1e-9:
                trial = potential + length * step
                if semi_dual(source, atoms, weights, level, trial)[0] >= value:
                    break
                length /= 2.0
            potential = trial
    potential = potential - weights @ potential
    covariance = np.diag(weights) - np.outer(weights, weights)
    trace = np.trace(np.linalg.pinv(hessian, hermitian=True) @ covariance) - reg * (len(atoms) - 1)
    return Reference(atoms, weights, reg, potential, float(value), float(trace))


def quantile_potential(atoms, weights, inverse_cdf):
    """Optimal potential at ``reg = 0`` on the line, atoms sorted (THEORY: 1D closed form)."""
    cuts = inverse_cdf(np.cumsum(weights)[:-1])
    steps = (cuts - atoms[1:]) ** 2 - (cuts - atoms[:-1]) ** 2
    potential = np.concatenate([[0.0], np.cumsum(steps)])
    return potential - weights @ potential


@dataclass(frozen=True)
class Problem:
    """A named large problem: the name of its source, its quadrature, its atoms."""

    source: str
    quadrature: object
    atoms: object
    reg: object

    def solve(self):
        atoms = self.atoms(np.random.default_rng(0))
        weights = np.full(len(atoms), 1.0 / len(atoms))
        return newton(self.quadrature(), atoms, weights, self.reg(atoms))


PROBLEMS = {
    "uniform_square": Problem(
        "unif",
        lambda: gauss_legendre(0.0, 1.0, 160, dimension=2),
        lambda rng: rng.random((1000, 2)),
        lambda atoms: 0.02 * atoms.var(axis=0).sum(),
    ),
    "shifted_normal": Problem(
        "normal",
        lambda: gauss_legendre(-6.0, 6.0, 200, normal_density, dimension=2),
        lambda rng: 1.0 + 0.5 * rng.normal(size=(1000, 2)),
        lambda atoms: 0.03,
    ),
}


def load(name):
    """The stored reference of a large problem."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        facts = {key: file[key] for key in file.files}
    return Reference(**{key: value if value.ndim else float(value) for key, value in facts.items()})


def main():
    FOLDER.mkdir(exist_ok=True)
    for name, problem in PROBLEMS.items():
        reference = problem.solve()
        np.savez_compressed(FOLDER / f"{name}.npz", **vars(reference))
        print(f"{name}: value {reference.value:.12g}, trace {reference.trace:.6g}", flush=True)


if __name__ == "__main__":
    main()
