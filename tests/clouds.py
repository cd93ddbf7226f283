"""Targets and points for tests of what is done with them again and again."""

import numpy as np

from pot_semidiscrete.kernels import reduce
from pot_semidiscrete.optim.newton import maximize
from pot_semidiscrete.optim.semi_dual import SemiDual
from pot_semidiscrete.problem import build_target

REG = 0.1


def build(nx, atoms, weights=None, metric=None):
    """A target in which atoms at one place stay apart, cut from its graph."""
    weights = None if weights is None else nx.array(weights)
    return build_target(nx.array(atoms), weights, metric, merge=False).detached


def cloud(nx, n_atoms=30, n=1500, weights=None, d=2, seed=0):
    """A target and points, both normal laws."""
    rng = np.random.default_rng(seed)
    target = build(nx, 0.7 * rng.normal(size=(n_atoms, d)) + 0.3, weights)
    return target, target.center(nx.array(rng.normal(size=(n, d))))


def law(name, n_atoms):
    """Weights of this law, of sum 1."""
    rng = np.random.default_rng(7)
    weights = {
        "uniform": np.ones(n_atoms),
        "dirichlet": rng.dirichlet(np.full(n_atoms, 0.3)) + 1e-8,
        "light": 10.0 ** rng.uniform(-6.0, 0.0, size=n_atoms),
    }[name]
    return weights / weights.sum()


def dense(nx, target, x, potential, reg):
    """Weights chi and ``diag m - E[chi chi^T]``, by the formula."""
    chi = nx.host(reduce(target, x, potential, reg, ("weights",)).weights)
    return chi, np.diag(chi.mean(axis=0)) - chi.T @ chi / len(chi)


def near(nx, target, x, reg, size=0.3, seed=3):
    """A potential `size` times reg off the maximiser over the points."""
    optimum = maximize(SemiDual(target), x, 0.0 * target.weights, reg, rtol=0.0).potential
    noise = np.random.default_rng(seed).normal(size=target.weights.shape[0])
    return target.zero_mean(optimum + nx.array(size * reg * noise))
