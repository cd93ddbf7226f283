"""Cells by the smallest margins between them: single linkage."""

import math

import numpy as np
from scipy.sparse import csgraph, csr_array


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
