"""Boundaries of cells: gaps of a source, across which potentials may move, and where few points are."""

import math
from typing import TypeAlias

import numpy as np
from scipy.sparse import csgraph, csr_array

from ..backend import Array, capabilities
from ..kernels import HardBlock, row_blocks
from ..problem import Target

LEAST_COUNT = 16  # points of a window, or to estimate masses by, at least
SIGMAS = 3.0
DOUBT = 1e-3  # probability of a gap, or of an empty cell, by chance, that is accepted
N_CUTS = 64
CLEAR = SIGMAS * math.log(N_CUTS / DOUBT)  # points by which mass near a boundary would have been seen
Nearest: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Best and second atom of each point, and the difference of their scores, on the host."""


def cell_bias(target: Target, potential: Array, reg: float) -> Array:
    """What scores have beside the term of points and atoms, so that the best atom has the cell."""
    return potential - target.target_term + (reg * target.log_weights if reg > 0 else 0.0)


def best_two(
    target: Target, x: Array, bias: Array, group: Array | None = None
) -> tuple[Array, Array, Array, Array]:
    """Best and second atom of each point of a block, the scores' difference, and the best score.

    The second one is of another group, if atoms have groups.
    """
    nx = target.nx
    scores = bias + target.bilinear(x)
    first, best = nx.argmax(scores, axis=1), nx.max(scores, axis=1)
    hit = HardBlock(first, scores.shape[1], best, nx).dense() > 0
    hit = hit if group is None else group[first][:, None] == group[None, :]
    rest = nx.where(hit, nx.full((1, 1), -math.inf, type_as=scores), scores)
    return first, nx.argmax(rest, axis=1), best - nx.max(rest, axis=1), best


def nearest_boundaries(
    target: Target, x: Array, potential: Array, reg: float, group: np.ndarray | None = None
) -> Nearest:
    """The boundary that each point is nearest to; between groups of atoms, if atoms have groups."""
    bias, nx = cell_bias(target, potential, reg), target.nx
    groups = None if group is None else capabilities(nx).index(group, target.weights)
    blocks = [best_two(target, rows, bias, groups)[:3] for (rows,) in row_blocks(target, x)]
    first, second, margin = (
        np.concatenate([nx.to_numpy(v) for v in field]) for field in zip(*blocks, strict=True)
    )
    return first.astype(int), second.astype(int), margin.astype(float)


def hides_boundaries(target: Target, x: Array, potential: Array, reg: float, nearest: Nearest) -> bool:
    """Whether mass is near boundaries between groups of atoms, which no point's two best atoms tell of.

    So it is where atoms of a group are far nearer to each other than to other groups: the regularisation
    that resolves the atoms sees no boundary between groups. Two atoms are in one group if they are the
    two best of `LEAST_COUNT` points. A group with four times as many points for each of its atoms would
    be linked to others, were it not for that, or for a gap of the source.
    """
    n_atoms, (first, second, _) = target.atoms.shape[0], nearest
    pairs = csr_array((np.ones(len(first)), (first, second)), shape=(n_atoms, n_atoms))
    n_groups, group = csgraph.connected_components(pairs + pairs.T >= LEAST_COUNT, directed=False)
    count = lambda atoms: np.bincount(group[atoms], minlength=n_groups)
    is_out = group[first] != group[second]
    is_seen = count(first) >= 4 * LEAST_COUNT * count(np.arange(n_atoms))
    is_apart = is_seen & (count(first[is_out]) + count(second[is_out]) < LEAST_COUNT)
    if is_apart.sum() < 2:
        return False
    first, _, margin = nearest_boundaries(target, x, potential, reg, group)
    sides = [margin[group[first] == k] for k in np.flatnonzero(is_apart)]
    return any(len(s) * s.min() <= CLEAR * s.mean() for s in sides)


def has_gap(nearest: Nearest, n_atoms: int) -> bool:
    """Whether no mass is near the boundary between two groups of the cells of a potential."""
    return n_atoms > 1 and count_groups(*nearest, n_atoms) > 1


def nearest_links(
    nearest: Nearest, n_atoms: int, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of atoms between the cells of which points are, and their links, by the nearest points.

    A link, the mean product of the weights at `eps`, is `eps` times the density of the difference of the
    two scores at 0. Of a pair, the `LEAST_COUNT` points nearest to the boundary have that density, or
    all if there are fewer (Loftsgaarden, Quesenberry, 1965); of one point, it is 0.
    """
    first, second, margin = nearest
    pair = np.minimum(first, second) * n_atoms + np.maximum(first, second)
    order = np.lexsort((margin, pair))
    pair, start, count = np.unique(pair[order], return_index=True, return_counts=True)
    count = np.minimum(count, LEAST_COUNT)
    width = np.maximum(margin[order][start + count - 1], eps)
    return *np.divmod(pair, n_atoms), eps * (count - 1.0) / (2.0 * width * len(margin))


def count_groups(first: np.ndarray, second: np.ndarray, margin: np.ndarray, n_atoms: int) -> int:
    """Groups of cells that are apart: 1, and one for each cut of a spanning tree with a gap.

    The tree has the smallest gaps (single linkage). Across a cut, the margins of n points with a
    density there come within about ``mean / n`` of 0.
    """
    order, size, gap = linkage(first, second, margin, n_atoms)
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    first, second = position[first], position[second]
    inside = np.concatenate([[0], np.cumsum(np.bincount(first, minlength=len(order)))])
    held = inside[np.arange(len(order)) + size] - inside[:-1]
    lesser = np.minimum(held, len(first) - held)
    cuts = np.flatnonzero(lesser >= LEAST_COUNT)
    cuts = cuts[np.argsort(-gap[cuts])][:N_CUTS]
    ends = (cuts + size[cuts]).tolist()
    cells = first, second, margin, n_atoms
    return 1 + sum(_is_gap(*cells, *cut) for cut in zip(cuts.tolist(), ends, strict=True))


def _is_gap(
    first: np.ndarray, second: np.ndarray, margin: np.ndarray, n_atoms: int, start: int, end: int
) -> bool:
    """Whether no mass is near what separates cells `start` to `end`, in preorder, from others."""
    here, there = (first >= start) & (first < end), (second >= start) & (second < end)
    sides = [margin[here & ~there], margin[~here & there]]
    sides = [side for side in sides if len(side)]
    if not sides:  # points of each cell, by which one would have been seen
        size = end - start
        sides_seen = here.sum() / size, (~here).sum() / max(n_atoms - size, 1)
        return bool(min(sides_seen) > CLEAR)
    return bool(max(len(s) * s.min() / max(s.mean(), 1e-300) for s in sides) > CLEAR)


def linkage(
    first: np.ndarray, second: np.ndarray, margin: np.ndarray, n_atoms: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spanning tree of the cells by their gaps: preorder, size of subtrees, rank of the edge above.

    The gap of two cells is the larger of the two smallest margins from one to the other: where there
    is mass on one side only, a potential can move. Edges of the highest rank join what no point joins.
    """
    pair, inverse = np.unique(first * n_atoms + second, return_inverse=True)
    least = np.full(len(pair), math.inf)
    np.minimum.at(least, inverse, margin)
    j, k = np.divmod(pair, n_atoms)
    edge, inverse = np.unique(np.minimum(j, k) * n_atoms + np.maximum(j, k), return_inverse=True)
    gaps = np.zeros(len(edge))
    np.maximum.at(gaps, inverse, least)
    rank = np.empty(len(edge))
    rank[np.argsort(gaps)] = 1.0 + np.arange(len(edge))
    j, k = np.divmod(edge, n_atoms)
    graph = csr_array((rank, (j, k)), shape=(n_atoms, n_atoms))
    part = csgraph.connected_components(graph, directed=False)[1]
    root, *others = np.unique(part, return_index=True)[1]
    j, k = np.append(j, np.full(len(others), root)), np.append(k, others).astype(int)
    rank = np.append(rank, np.full(len(others), len(edge) + 1.0))
    tree = csgraph.minimum_spanning_tree(csr_array((rank, (j, k)), shape=(n_atoms, n_atoms)))
    tree = tree + tree.T
    order, above = csgraph.depth_first_order(tree, root, directed=False)
    size = np.ones(n_atoms, dtype=int)
    for node in order[:0:-1]:
        size[above[node]] += size[node]
    joined = [float(tree[above[node], node]) for node in order[1:]]
    return order, size[order], np.array([0.0, *joined])
