"""Semi-dual values and optima at ``reg = 0``: exact on the line and on the square."""

import numpy as np
from scipy import sparse, special, stats
from scipy.sparse.linalg import spsolve
from scipy.spatial import ConvexHull

from .references import quantile_potential

STUDENT = stats.t(3)
# cumulative distribution, its inverse, x -> E[X; X < x], and E[X^2]
LINE = {
    "unif": (
        lambda x: np.clip(x, 0.0, 1.0),
        lambda u: u,
        lambda x: np.clip(x, 0.0, 1.0) ** 2 / 2.0,
        1.0 / 3.0,
    ),
    "normal": (special.ndtr, special.ndtri, lambda x: -stats.norm.pdf(x), 1.0),
    "student": (
        STUDENT.cdf,
        STUDENT.ppf,
        # (1 + x^2 / 3) times the density is the density's root times a constant
        lambda x: -1.5 * np.sqrt(STUDENT.pdf(0.0) * STUDENT.pdf(x)),
        3.0,
    ),
}


def line_cells(atoms, potential):
    """Indices of the atoms that have a cell, from left to right, and the points between them.

    ``|x - y|^2 - psi`` is a line in x, up to ``x^2``: the cells are those of a lower envelope.
    """
    heights = atoms**2 - potential
    kept, cuts = [], []
    for j in np.argsort(atoms):
        while kept:
            cut = (heights[j] - heights[kept[-1]]) / (2.0 * (atoms[j] - atoms[kept[-1]]))
            if not cuts or cut > cuts[-1]:
                cuts.append(cut)
                break
            kept.pop()
            cuts.pop()
        kept.append(j)
    return np.array(kept), np.array(cuts)


def line_semi_dual(law, atoms, weights, potential):
    """Value and marginal at ``reg = 0`` of a law on the line, exact; distinct atoms of shape (N, 1)."""
    cdf, _, partial_mean, second_moment = LINE[law.name]
    y, psi = atoms[:, 0] / law.scale, potential / law.scale**2
    kept, cuts = line_cells(y, psi)
    mass = np.diff(cdf(cuts), prepend=0.0, append=1.0)
    first = np.diff(partial_mean(cuts), prepend=0.0, append=partial_mean(np.inf))
    inside = (y[kept] ** 2 - psi[kept]) @ mass - 2.0 * y[kept] @ first
    marginal = np.zeros(len(y))
    marginal[kept] = mass
    return float(law.scale**2 * (second_moment + inside + weights @ psi)), marginal


def line_optimum(law, atoms, weights):
    """Optimal potential and value at ``reg = 0`` of a law on the line."""
    order = np.argsort(atoms[:, 0])
    potential = np.empty(len(atoms))
    potential[order] = quantile_potential(
        atoms[order, 0], weights[order], lambda u: law.scale * LINE[law.name][1](u)
    )
    return potential, line_semi_dual(law, atoms, weights, potential)[0]


def clip(corners, sides, normal, offset, side):
    """The part of a convex polygon where ``<normal, x> <= offset``.

    ``sides[k]`` names the side from corner k to the next; the new one is named `side`.
    """
    beyond = corners @ normal - offset
    if (beyond <= 0.0).all():
        return corners, sides
    new_corners, new_sides = [], []
    for k, name in enumerate(sides):
        here, after = beyond[k], beyond[(k + 1) % len(sides)]
        if here <= 0.0:
            new_corners.append(corners[k])
            new_sides.append(name)
        if (here <= 0.0) != (after <= 0.0):
            share = here / (here - after)
            new_corners.append(corners[k] + share * (corners[(k + 1) % len(sides)] - corners[k]))
            new_sides.append(side if here <= 0.0 else name)
    return np.array(new_corners).reshape(-1, 2), new_sides


def square_semi_dual(atoms, weights, potential):
    """Value, marginal and (minus the) Hessian at ``reg = 0`` of the uniform law on the unit square.

    The Laguerre cells are polygons; the Hessian has ``-side / (2 |y_i - y_j|)`` off its diagonal
    (Kitagawa, Merigot, Thibert).
    """
    n, heights = len(atoms), (atoms**2).sum(axis=1) - potential
    hull = ConvexHull(np.column_stack([atoms, heights]))
    lower = hull.simplices[hull.equations[:, 2] < 0.0]
    neighbours = [set() for _ in range(n)]
    for triangle in lower.tolist():
        for j in triangle:
            neighbours[j].update(triangle)
    square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    value, marginal = weights @ potential, np.zeros(n)
    rows, columns, entries = [], [], []
    for i in range(n):
        if not neighbours[i]:
            continue
        corners, sides = square, [-1] * 4
        for j in neighbours[i] - {i}:
            normal, offset = 2.0 * (atoms[j] - atoms[i]), heights[j] - heights[i]
            corners, sides = clip(corners, sides, normal, offset, j)
            if len(corners) == 0:
                break
        if len(corners) == 0:
            continue
        a = corners - atoms[i]
        b = np.roll(a, -1, axis=0)
        triangles = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2.0
        marginal[i] = triangles.sum()
        value += triangles @ ((a**2).sum(1) + (b**2).sum(1) + (a * b).sum(1)) / 6.0
        value -= potential[i] * marginal[i]
        for j, length in zip(sides, np.linalg.norm(b - a, axis=1), strict=True):
            if j >= 0:
                rows.append(i)
                columns.append(j)
                entries.append(length / (2.0 * np.linalg.norm(atoms[j] - atoms[i])))
    links = sparse.csr_matrix((entries, (rows, columns)), shape=(n, n))
    links = (links + links.T) / 2.0
    return value, marginal, sparse.diags(np.asarray(links.sum(axis=1)).ravel()) - links


def square_optimum(atoms, weights, tol=1e-20):
    """Optimal potential and value at ``reg = 0``, the atoms being in the square.

    Newton's method from the Voronoi cells, damped so that no cell vanishes.
    """
    potential = np.zeros(len(atoms))
    value, marginal, hessian = square_semi_dual(atoms, weights, potential)
    floor = min(marginal.min(), weights.min()) / 2.0
    for _ in range(50):
        gradient = weights - marginal
        error = gradient @ (gradient / weights)
        if error < tol:
            break
        step = np.append(spsolve(hessian[:-1, :-1].tocsc(), gradient[:-1]), 0.0)
        length = 1.0
        while length > 1e-6:
            trial = potential + length * step
            moved = square_semi_dual(atoms, weights, trial)
            gradient = weights - moved[1]
            if moved[1].min() > floor and gradient @ (gradient / weights) < (1 - length / 2) * error:
                break
            length /= 2.0
        else:
            break
        potential, (value, marginal, hessian) = trial, moved
    return potential - weights @ potential, float(value)
