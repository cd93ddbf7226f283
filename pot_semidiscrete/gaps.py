"""Atoms that a gap between the points cuts off from the others.

In the tail of a heavy law an atom may own its points entirely, and not the number that it should
have. The value is then a straight line in its potential, up to the next point, which may be thousands
of `reg` away: no curvature tells where. With all other potentials fixed, the mass of the atom is a mean
of logistic functions, which one sort makes easy to invert.
"""

import numpy as np
from scipy.special import expit, logsumexp

from .kernels import sweep

FEW_POINTS = 0.02  # that an atom lacks, or has too many: less is left to others, or rounding
FAR = 4.0  # in units of reg, the way that its own curvature makes of that: beyond, it is no guide
MOST = 8  # atoms at a time, the worst ones
ROUNDS, NEAR = 3, 0.1  # at most, and in units of reg, where another would move nothing
DEEP = 40.0  # logarithm of odds beyond which a point is an atom's, or is not
HALVINGS = 40


def across_gaps(sample, potential, marginal, reg, shared):
    """The potential, with atoms that are cut off moved until each has its mass; None if there are none.

    Parameters
    ----------
    sample : Sample
    potential, marginal : arrays, shape (n_support,)
        And what the sample measures there.
    reg : float
    shared : ndarray, shape (n_support,)
        ``E[chi_j (1 - chi_j)]`` there, or nearby.

    Returns
    -------
    array, shape (n_support,)
        Of at least the same value: one coordinate after the other is maximised.
    """
    target, nx, n = sample.target, sample.target.nx, sample.x.shape[0]
    b = nx.to_numpy(target.weights).astype(float)
    lack = b - nx.to_numpy(marginal)
    cut_off = (n * np.abs(lack) > FEW_POINTS) & (np.abs(lack) > FAR * np.abs(shared))
    worst = np.argsort(-np.abs(lack) * cut_off)[: min(int(cut_off.sum()), MOST, len(b) - 1)]
    if len(worst) == 0:
        return None
    rest = np.setdiff1d(np.arange(len(b)), worst)
    part = lambda atoms: (target.part(nx.from_numpy(atoms)), potential[nx.from_numpy(atoms)])
    # logarithms of what the atoms, and all others together, would have of each point
    few, own = part(worst)
    scores = nx.to_numpy(own - few.cost_matrix(sample.x)) / reg + np.log(b[worst])
    others, theirs = part(rest)
    transform = sweep(others, sample.x, theirs, reg).c_transform
    logs = np.column_stack([scores, nx.to_numpy(transform) / -reg]).astype(float)
    moved = np.zeros(len(b))
    for _ in range(ROUNDS):
        before = moved.copy()
        for k, atom in enumerate(worst):
            odds = logs[:, k] - logsumexp(np.delete(logs, k, axis=1), axis=1)
            shift = shift_to(np.sort(odds), n * b[atom])
            logs[:, k] += shift
            moved[atom] += shift
        if np.abs(moved - before).max() < NEAR:
            break
    return potential + reg * nx.from_numpy(moved, type_as=potential)


def shift_to(odds, number):
    """What to add to logarithms of odds, sorted, so that the sum of probabilities is this number."""
    low, high = -odds[-1] - DEEP, -odds[0] + DEEP
    for _ in range(HALVINGS):
        shift = 0.5 * (low + high)
        first, last = np.searchsorted(odds, (-shift - DEEP, -shift + DEEP))
        found = len(odds) - last + expit(odds[first:last] + shift).sum()
        low, high = (shift, high) if found < number else (low, shift)
    return 0.5 * (low + high)
