"""How close source points are to the boundaries of the cells."""

import math

import numpy as np

from ..backend import Array
from ..inference.gaps import DOUBT, SIGMAS, best_two, cell_bias, count_groups
from ..kernels import HardBlock, row_blocks
from ..problem import Target, spread_of, unit_curvature

ROUNDING = 8.0  # units of rounding in a difference of scores


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
        bias = cell_bias(target, potential, reg)
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
        """Groups of cells that are apart."""
        return count_groups(self.first, self.second, self.margin, self.n_atoms)


def _best_two(target: Target, x: Array, bias: Array, size: Array) -> tuple[Array, ...]:
    """Best and second atom of a block, margin, jump, and size of the terms of the scores."""
    first, second, margin, best = best_two(target, x, bias)
    jump = target.nx.sqrt(target.nx.sum(jumps(target, x, first, second) ** 2, axis=1))
    return first, second, margin, jump, target.nx.abs(best) + size[first]


def jumps(target: Target, x: Array, first: Array, second: Array) -> Array:
    """``d_x c(x_i, y_j) - d_x c(x_i, y_k)`` for two atoms of each point."""
    nx, own = target.nx, target.nx.arange(x.shape[0], type_as=first)
    gradients = [
        target.cost.vjp(x, target.atoms[index], HardBlock(own, x.shape[0], x[:, 0], nx), nx)
        for index in (first, second)
    ]
    return gradients[0] - gradients[1]
