"""Atoms that a gap between the points cuts off from the others.

In the tail of a heavy law an atom may own its points entirely, and not the number that it should
have. The value is then a straight line in its potential, up to the next point, which may be thousands
of `reg` away: no curvature tells where. With all other potentials fixed, the mass of the atom is a mean
of logistic functions, which one sort makes easy to invert.
"""

import copy
from dataclasses import replace

import numpy as np
from scipy.special import expit

from .sample import Sample

CHANCE = 1.0  # deviations by chance of the points of an atom, which it lacks, or has too much, at least
SHARED = 0.5  # of one point, that those of the curvature may share unseen, if they are few
FAR = 4.0  # in units of reg, the way that its own curvature makes of that: beyond, it is no guide
MOST, LARGEST = 8, 2**22  # atoms at a time, the worst ones, and entries (points x atoms) of theirs
ROUNDS, NEAR = 3, 0.1  # at most, and in units of reg, where another would move nothing
DEEP = 40.0  # logarithm of odds beyond which a point is an atom's, or is not
HALVINGS = 60


def across_gaps(sample, potential, marginal, reg, curvature):
    """The potential, with atoms that are cut off moved until each has its mass; None if there are none.

    Only costs that are a product are served, and up to eight atoms at a time.

    Parameters
    ----------
    sample : Sample
    potential, marginal : arrays, shape (n_support,)
        And what the sample measures there.
    reg : float
    curvature : Curvature
        There, or nearby: it is asked first, then all points.

    Returns
    -------
    array, shape (n_support,)
        Centred, of at least the same value: one coordinate after the other is maximised.
    """
    target, nx, n = sample.target, sample.target.nx, sample.x.shape[0]
    b = nx.to_numpy(target.weights).astype(float)
    lack = b - nx.to_numpy(marginal)
    many = n * np.abs(lack) > CHANCE * np.sqrt(n * b + 1.0)
    if not many.any() or target.cost.factors(sample.x[:1], target.atoms, 1.0, nx) is None:
        return None
    cut_off = lambda shared: many & (np.abs(lack) > FAR * np.abs(shared))
    if not cut_off(curvature.shared() + (SHARED / curvature.n if curvature.asks else 0.0)).any():
        return None
    found = cut_off(nx.to_numpy(marginal - sample.squares(potential, reg) / n))
    n_moved = min(int(found.sum()), MOST, LARGEST // n, len(b) - 1)
    if n_moved == 0:
        return None
    worst = np.argsort(-np.abs(lack) * found)[:n_moved]
    moved = np.zeros(len(b))
    moved[worst] = _shifts(_logarithms(sample, potential, reg, worst), n * b[worst])
    return target.centred(potential + reg * nx.from_numpy(moved, type_as=potential))


def _logarithms(sample, potential, reg, some):
    """Of what some atoms, and in the last row all others, have of each point, but for a factor of it."""
    target, nx = sample.target, sample.target.nx
    cost = copy.copy(target.cost)
    cost.row = lambda x, nx: 0.0 * x[:, 0]  # a factor of the point: large far out, and in the way
    rest = np.setdiff1d(np.arange(target.weights.shape[0]), some)
    facts = lambda atoms: (
        replace(target.part(nx.from_numpy(atoms)), cost=cost),
        potential[nx.from_numpy(atoms)],
    )
    others, theirs = facts(rest)
    others = Sample(others, sample.x)
    few, own = facts(some)
    double = lambda array: nx.to_numpy(array).astype(float)
    scores = double(own - few.cost_matrix(others.x)).T / reg + double(few.log_weights)[:, None]
    return np.concatenate([scores, double(others.transform(theirs, reg))[None, :] / -reg])


def _shifts(logs, numbers):
    """What to add to each row but the last, so that its shares of the columns have these sums."""
    moved = np.zeros(len(numbers))
    for _ in range(ROUNDS):
        before = moved.copy()
        for k, number in enumerate(numbers):
            others = np.delete(logs, k, axis=0)
            top = others.max(axis=0)
            others = top + np.log(np.exp(others - top).sum(axis=0))
            shift = shift_to(np.sort(logs[k] - others), number)
            logs[k] += shift
            moved[k] += shift
        if np.abs(moved - before).max() < NEAR:
            break
    return moved


def shift_to(odds, number):
    """What to add to logarithms of odds, sorted, so that the sum of probabilities is this number.

    In the middle of a gap, if it is that anywhere there.
    """
    ends = []
    for goal in (number * (1.0 - 1e-9), number * (1.0 + 1e-9)):
        low, high = -odds[-1] - DEEP, -odds[0] + DEEP
        for _ in range(HALVINGS):
            shift = 0.5 * (low + high)
            first, last = np.searchsorted(odds, (-shift - DEEP, -shift + DEEP))
            found = len(odds) - last + expit(odds[first:last] + shift).sum()
            low, high = (shift, high) if found < goal else (low, shift)
        ends.append(0.5 * (low + high))
    return 0.5 * sum(ends)
