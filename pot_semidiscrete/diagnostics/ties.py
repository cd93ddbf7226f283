"""How close source points are to the boundaries of the cells."""

import math

import numpy as np

from ..backend import Array
from ..kernels import HardBlock, row_blocks
from ..problem import Target, spread_of, unit_curvature
from .linkage import linkage

ROUNDING = 8.0  # units of rounding in a difference of scores
LEAST_COUNT = 16  # points of a window, or to estimate masses by, at least
SIGMAS = 3.0
DOUBT = 1e-3  # probability of a gap, or of an empty cell, by chance, that is accepted
N_CUTS = 64
CLEAR = SIGMAS * math.log(N_CUTS / DOUBT)  # points by which mass near a boundary would have been seen


class Ties:
    """The two best atoms of each point, and how close the choice is; on the host.

    The `margin` is the difference of their scores, in units of the cost, 0 if that is a rounding error;
    the `jump`, the length of the difference of their gradients. A point is `tied` if the margin is a
    rounding error and the jump is not. Its `distance` is ``margin / jump``, the margin no less than its
    rounding error; infinite without a real jump.
    """

    def __init__(self, target: Target, x: Array, potential: Array, reg: float) -> None:
        nx, eps = target.nx, target.unit
        self.n_atoms, dimension = target.atoms.shape
        self.weights = nx.to_numpy(target.weights)
        bias = potential - target.target_term + (reg * target.log_weights if reg > 0 else 0.0)
        size = nx.abs(potential) + nx.abs(target.target_term)
        blocks = [_best_two(target, rows, bias, size) for (rows,) in row_blocks(target, x)]
        pieces = [np.concatenate([nx.to_numpy(v) for v in field]) for field in zip(*blocks, strict=True)]
        self.first, self.second = (index.astype(int) for index in pieces[:2])
        self.margin, self.jump, size = (values.astype(float) for values in pieces[2:])
        unit = unit_curvature(target)
        shift = 0.0 if target.origin is None else np.linalg.norm(nx.to_numpy(target.origin))
        rounding = eps * (ROUNDING * size + shift * self.jump)  # the points were rounded where they were
        real = self.jump > math.sqrt(eps) * unit * spread_of(target)
        self.tied = real & (self.margin <= rounding)
        self.distance = np.full(len(self.jump), math.inf)
        self.distance[real] = np.maximum(self.margin, rounding)[real] / self.jump[real]
        self.margin[self.tied] = 0.0
        # points of a density in a cell as wide as jump / unit, that are as close by coincidence
        chance = 2.0 * dimension * unit * rounding[real] / self.jump[real] ** 2
        self.coincidences = np.minimum(chance, 1.0).sum()  # tied points that a density would give
        lost = (~real).sum() if self.n_atoms > 1 else 0
        self.hidden = float(self.coincidences + lost) / len(real)  # the share that rounding hides

    @property
    def tied_mass(self) -> float:
        """Share of points on a boundary; 0 if so many may be there by coincidence."""
        most = SIGMAS * self.coincidences
        count = int(self.tied.sum())
        return count / len(self.tied) if count > most + SIGMAS * math.sqrt(most) else 0.0

    @property
    def empty_cells(self) -> int:
        """Number of cells with no point, of those that should have had one."""
        due = len(self.first) * self.weights > math.log(self.n_atoms / DOUBT)
        return int((due & (np.bincount(self.first, minlength=self.n_atoms) == 0)).sum())

    @property
    def n_groups(self) -> int:
        """Groups of cells that are apart: 1, and one for each cut of a spanning tree with a gap.

        The tree has the smallest gaps (single linkage). Across a cut, the margins of n points with a
        density there come within about ``mean / n`` of 0.
        """
        order, size, gap = linkage(self.first, self.second, self.margin, self.n_atoms)
        position = np.empty_like(order)
        position[order] = np.arange(len(order))
        first, second = position[self.first], position[self.second]
        inside = np.concatenate([[0], np.cumsum(np.bincount(first, minlength=len(order)))])
        held = inside[np.arange(len(order)) + size] - inside[:-1]
        lesser = np.minimum(held, len(first) - held)
        cuts = np.flatnonzero(lesser >= LEAST_COUNT)
        cuts = cuts[np.argsort(-gap[cuts])][:N_CUTS]
        ends = cuts + size[cuts]
        return 1 + sum(
            self._is_gap(first, second, *cut) for cut in zip(cuts.tolist(), ends.tolist(), strict=True)
        )

    def _is_gap(self, first: np.ndarray, second: np.ndarray, start: int, end: int) -> bool:
        """Whether no mass is near what separates cells `start` to `end`, in preorder, from others."""
        here, there = (first >= start) & (first < end), (second >= start) & (second < end)
        sides = [self.margin[here & ~there], self.margin[~here & there]]
        sides = [side for side in sides if len(side)]
        if not sides:  # points of each cell, by which one would have been seen
            size = end - start
            sides_seen = here.sum() / size, (~here).sum() / max(self.n_atoms - size, 1)
            return bool(min(sides_seen) > CLEAR)
        return bool(max(len(s) * s.min() / max(s.mean(), 1e-300) for s in sides) > CLEAR)


def _best_two(target: Target, x: Array, bias: Array, size: Array) -> tuple[Array, ...]:
    """Best and second atom of a block, margin, jump, and size of the terms of the scores."""
    nx = target.nx
    scores = bias + target.bilinear(x)
    first, best = nx.argmax(scores, axis=1), nx.max(scores, axis=1)
    hit = HardBlock(first, scores.shape[1], best, nx).dense() > 0
    rest = nx.where(hit, nx.full((1, 1), -math.inf, type_as=scores), scores)
    second = nx.argmax(rest, axis=1)
    vectors = jumps(target, x, first, second)
    jump = nx.sqrt(nx.sum(vectors**2, axis=1))
    return first, second, best - nx.max(rest, axis=1), jump, nx.abs(best) + size[first]


def jumps(target: Target, x: Array, first: Array, second: Array) -> Array:
    """``d_x c(x_i, y_j) - d_x c(x_i, y_k)`` for two atoms of each point."""
    nx, own = target.nx, target.nx.arange(x.shape[0], type_as=first)
    gradients = [
        target.cost.vjp(x, target.atoms[index], HardBlock(own, x.shape[0], x[:, 0], nx), nx)
        for index in (first, second)
    ]
    return gradients[0] - gradients[1]
