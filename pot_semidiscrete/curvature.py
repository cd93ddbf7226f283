"""Curvature of the semi-dual at points kept, and Newton's steps from it.

It is that of a part of the points, a matrix for few atoms and else a product with their weights. Where
they are few for each atom its small eigenvalues are noise: other points then tell how far a step may
go, and what a trace is worth.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import lapack

from .dual import scale_of
from .envelope import full_precision, no_grad
from .kernels import stride, sweep
from .sample import LEAST_ATOMS, plus, spread

LARGEST_STORE = 2**25  # entries of the weights kept for one solve, and a third as many of other points
USUAL_STORE = 2**21
LEAST_SHARE = 0.125  # of the points, for the curvature ...
LEAST_ROWS = 2.0  # ... and points for each atom, as far as LARGEST_STORE allows
REST = 0.15  # of the gain, where conjugate gradients end
MAX_CONJUGATE = 100
RESOLVED = 10.0  # points that tell enough of an atom, or of a direction
FLAT = 1e-5  # curvature of a direction, in units of the diagonal
DENSE = LEAST_ATOMS  # up to which the curvature is a matrix, inverted: of all atoms, not of groups ...
DENSE_WORK = 2**29  # ... and the products that making it may take
UNSURE = 0.1  # a trace, in units of reg n_atoms, that is a difference of much larger numbers ...
FAINT = 1e-3  # ... and that is nothing but their errors
STEEP = 20.0  # a trace, in units of reg n_atoms, above which flat directions are damped in it
LARGEST_STEP = 32.0  # in units of reg, for one coordinate, at first
CLIP = 0.25  # of its largest entry, from one trial of a step to the next
PURITY = 0.7  # of the weights at which the curvature for reg = 0 is taken, see smoothing
MANTISSA = {32: 24, 64: 53}  # bits, by those of a number
N_PROBES, FEW_PROBES = 6, 2  # for a trace that is reported, and to tell on the way what is worth a step
RELIABLE = 0.1  # of the largest eigenvalue of a few products of probes: below, they tell of errors
NOISY = 2.0  # times as much curvature at other points: a trace is told with damping, too
FIRST_LOOK = 4  # conjugate gradients, after which others are asked, and after twice as many each time
SURER = 1.4  # times as much as a damped step must the other promise, to be preferred


@dataclass(frozen=True)
class Told:
    """What random signs tell of a curvature: it serves at potentials that are almost as good.

    Attributes
    ----------
    whole : float
        Trace of ``A^+ (diag b - b b^T)``.
    gain_damping : float
        Share of the diagonal to add in estimates of gains.
    """

    whole: float = math.nan
    gain_damping: float = 0.0


@dataclass(frozen=True)
class Move:
    """Newton's steps at one potential, to try in turn.

    Attributes
    ----------
    gradient : array, shape (n_support,)
    steps : array, shape (n, n_support)
    damping : float
        Of the first, a share of the diagonal.
    promised, hoped : float
        Value to gain by it, by the curvature that other points see, and half of its product with the
        gradient, which these points alone would promise.
    """

    gradient: Any
    steps: Any
    damping: float
    promised: float
    hoped: float


class Curvature:
    """``diag m - E[chi chi^T]`` of points: minus `reg` times the Hessian of their semi-dual.

    Parameters
    ----------
    sample : Sample
    potential : array, shape (n_support,)
    reg : float
    step : int
        Of the points, every `step`-th is taken.
    """

    slight_damping = 0.03  # of the diagonal, in a trace that is little but noise, or steep
    first_damping = 0.1  # in a step, once one did not increase the value ...
    more_damping = 4.0  # ... times this each time, and divided by it when a step did

    def __init__(self, sample, potential, reg, step=1):
        self.sample, self.potential, self.reg, self.step = sample, potential, reg, step
        self.target, self.n, self.kept = sample.target, -(-sample.x.shape[0] // step), None
        self.others = None  # weights of other points, once they were asked
        b = self.target.weights
        self.stores = self.n * b.shape[0] <= LARGEST_STORE
        shared_by = []
        self.mean = self.summed(
            0.0 * b, lambda block, near: shared_by.append(near) or block.colsum() / self.n
        )
        self.shared_by_few = not any(isinstance(near, slice) for near in shared_by)
        # an atom that these points hardly visit: as if one did, or its own weight if that is less
        self.diagonal = self.target.nx.maximum(self.mean, b / (self.n * b + 1.0))

    def weights(self):
        """Blocks of assignment weights, and the atoms of their columns.

        In groups they are arrays of NumPy, which has the least to do for each.
        """
        if self.kept is not None:
            return self.kept
        found = self.sample.weights(self.potential, self.reg, self.step)
        if self.stores:
            found = self.kept = list(found)
        return found

    def lighten(self):
        """Free the weights, until they are needed again."""
        self.kept = self.others = None

    @property
    def least_damping(self):
        """Share of the diagonal that a few of the points make up."""
        return RESOLVED / self.n

    def shared(self):
        """``E[chi_j (1 - chi_j)]``, ndarray: 0 for an atom that owns its points, and no others."""
        square = self.summed(0.0 * self.mean, lambda block, near: block.colsquare())
        return self.target.nx.to_numpy(self.mean - square / self.n).astype(float)

    def inner(self, array):
        """An array as the weights are."""
        return self.target.nx.to_numpy(array) if self.sample.grouped else array

    def summed(self, start, part):
        """`start`, which is spent, and ``part(block, atoms)`` of each block at its atoms."""
        total = self.inner(start)
        for block, near in self.weights():
            total = plus(total, near, part(block, near))
        return self.target.nx.from_numpy(total, type_as=start) if self.sample.grouped else total

    def product(self, vectors):
        """Image of the rows of `vectors`."""
        v = self.inner(vectors)
        smooth = lambda block, near: block.over_points(block.over_atoms(v[:, near])) / -self.n
        return self.summed(self.diagonal * vectors, smooth)

    def solve(self, right, damping, wary=False):
        """Newton's steps for the rows of `right`, gradients of sum 0: ``reg`` times the inverse.

        A share `damping` of the diagonal is added to it (Levenberg, 1944). If `wary`, a row goes no
        further once other points have seen its gain fall: what is noise then takes more damping.
        """
        solution = self.invert(right, damping, wary)
        return self.reg * (solution - self.target.nx.dot(solution, self.target.weights)[:, None])

    def newton(self, gradient, damping, told=None):
        """Newton's steps, and what a few probes tell unless it is known.

        All in one, for the time goes into reading the weights. A step with more damping is there to try
        if the other does badly, or instead of it if the other is noise to other points. By their
        curvature the steps are shortened.
        """
        nx, rows, dampings = self.target.nx, [gradient[None, :]] * 2, [damping, self.harder(damping)]
        if told is None:
            signs, vectors = probes(self.target, FEW_PROBES)
            rows, dampings = [*rows, vectors], dampings + [0.0] * FEW_PROBES
        shares = nx.from_numpy(np.array(dampings)[:, None], type_as=gradient)
        solved = self.solve(nx.concatenate(rows, axis=0), shares, wary=True)
        told = told or self._told_by(signs, vectors, solved[2:], math.inf)
        steps = solved[:2]
        # others are asked of what will be tried, up to its length
        own, others = self.seen(gradient[None, :], self.cut(steps) if self.asks else steps)
        length = allowed(own, others)
        promised = self.reg * length * (own - 0.5 * length * others)
        best = int(self.asks and SURER * promised[1] > promised[0])
        steps = nx.from_numpy(length[best:, None], type_as=gradient) * steps[best:]
        hoped = 0.5 * self.reg * own[best]
        return Move(gradient, steps, dampings[best], float(promised[best]), float(hoped)), told

    @functools.cached_property
    def told(self):
        """What probes tell, enough of them for a trace that is reported."""
        with full_precision(self.target.nx, self.potential), no_grad(self.target.nx):
            return self.tell()

    def tell(self):
        """What probes tell; the trace is that of ``diag b - b b^T`` times the inverse, times `reg`."""
        signs, vectors = probes(self.target, N_PROBES)
        return self._told_by(signs, vectors, self.solve(vectors, 0.0))

    def _told_by(self, signs, vectors, steps, noisy=NOISY):
        """What probes tell, by the steps for them; slightly damped ones if other points say so.

        They are asked where they see more than `noisy` times the curvature, and say it by the bound from
        below ``(v^T s)^2 / (s^T A s) <= v^T A^+ v``, for any s.
        """
        whole, excess = self._whole(signs, steps), self.excess(vectors, steps)
        gain_damping = 0.0
        if excess > noisy or whole > STEEP * self.reg * signs.shape[1]:
            gain_damping = self.slight_damping
            steps = self.solve(vectors, gain_damping)
            other, less = self._whole(signs, steps), self.excess(vectors, steps)
            unseen = excess == 1.0  # whatever they would say of it
            if unseen or other / less > whole / excess:
                whole, excess = other, less
        return Told(whole * excess**-0.5, gain_damping)

    def _whole(self, signs, steps):
        """The trace, as if all curvature that these points show were there.

        With ``C C^T = diag b - b b^T``, ``C^T A^+ C`` exceeds the projection that it would be without
        any randomness of the weights by a positive matrix, up to the noise of the masses.
        """
        nx, n_atoms = self.target.nx, self.target.weights.shape[0]
        root = np.sqrt(nx.to_numpy(self.target.weights).astype(float))
        images = root * nx.to_numpy(steps) / self.reg - (signs - np.outer(signs @ root, root))
        return self.reg * (n_atoms - 1.0 + trace_of(signs, images))

    def excess(self, vectors, steps):
        """Curvature along steps for some vectors of other points, over that of these, where it is small.

        With n points for each atom, and all directions alike, the trace of the inverse is
        1 / (1 - 1 / n) times too large (Marchenko and Pastur, 1967), and this the square of that. Where
        each point is shared by few atoms there is little of that noise.
        """
        own, others = (curvature.sum() for curvature in self.seen(vectors, steps))
        return max(float(others / own), 1.0) if own > 0.0 else 1.0

    @property
    def asks(self):
        """Whether other points can tell what these do not."""
        return self.step > 1 and not self.shared_by_few

    def seen(self, vectors, steps):
        """Products of steps with the vectors they are for, and curvature of other points, ndarrays.

        In units of `reg`. Of solutions the products are the curvature of these points; they are in both
        places if others would not be asked.
        """
        v, nx = self.inner(steps) / self.reg, self.target.nx
        own = nx.to_numpy(nx.sum(vectors * steps, axis=1)).astype(float) / self.reg
        if not self.asks:
            return own, own
        n_rows = others = 0.0
        for block, near in self.elsewhere():
            part = v[:, near]
            n_rows += block.shares.shape[0]
            others = others + (part * part) @ block.colsum() - (block.over_atoms(part) ** 2).sum(axis=1)
        others = others if self.sample.grouped else nx.to_numpy(others)
        return own, others.astype(float) / n_rows

    def elsewhere(self):
        """Blocks of weights of other points, kept if those of these points are."""
        if self.others is not None:
            return self.others
        # a third as many are enough, and an odd step as that of `stride` is
        found = self.sample.weights(self.potential, self.reg, 3 * self.step, self.step // 2)
        if self.stores:
            found = self.others = list(found)
        return found

    def gains(self, gradients):
        """``<g, step of h> / 2`` for each two rows g, h of the gradients, ndarray (n, n)."""
        nx = self.target.nx
        with full_precision(nx, gradients), no_grad(nx):
            steps = self.solve(gradients, self.told.gain_damping)
            return 0.5 * nx.to_numpy(nx.dot(gradients, steps.T)).astype(float)

    def gain(self, gradient):
        """What a Newton step promises."""
        return float(self.gains(gradient[None, :])[0, 0])

    def trace(self, whole):
        """``tr(A^+ Sigma)`` from that of ``A^+ (diag b - b b^T)``."""
        part = self.reg * (self.target.weights.shape[0] - 1.0)
        trace = whole - part
        if trace < UNSURE * part:
            trace = max(trace if trace > FAINT * part else 0.0, self.least_trace())
        return trace

    def least_trace(self):
        """Bound of ``tr(A^+ Sigma)`` from below, by the diagonal: tight for a large `reg`."""
        mean, zero = self.inner(self.mean), 0.0 * self.mean
        square = self.summed(zero, lambda block, near: block.colsquare(mean[near]))
        seen = self.summed(0.0 * zero, lambda block, near: 0.0 * mean[near] + block.shares.shape[0])
        variance = (square + (self.n - seen) * self.mean**2) / self.n
        return self.reg * float(self.target.nx.sum(variance / self.diagonal))

    def cut(self, steps):
        """Steps as they are tried at first."""
        return self.target.nx.clip(steps, -LARGEST_STEP * self.reg, LARGEST_STEP * self.reg)

    def trial(self, move, failures, longest=LARGEST_STEP):
        """What to try, after so many failures: flat directions, and large entries, are cut."""
        nx = self.target.nx
        if failures < move.steps.shape[0]:
            step = move.steps[failures]
        else:
            step = self.solve(move.gradient[None, :], self.harder(move.damping, failures))[0]
        cap = CLIP**failures * min(float(nx.max(nx.abs(step))), longest * self.reg)
        return nx.clip(step, -cap, cap)

    def harder(self, damping, failures=1):
        """Share of the diagonal to add after so many failures with another."""
        return max(damping * self.more_damping, self.first_damping) * self.more_damping ** (failures - 1)

    def invert(self, right, damping, wary=False):
        """Conjugate gradients (Hestenes and Stiefel, 1952), preconditioned by the diagonal."""
        nx = self.target.nx
        inner = lambda u, v: nx.sum(u * v, axis=1)[:, None]
        residual, solution = right, 0.0 * right
        direction = right / self.diagonal
        size = inner(right, direction)
        zero = gain = 0.0 * size
        one, granted = zero + 1.0, 0.0
        for k in range(1, MAX_CONJUGATE + 1):
            straight = self.diagonal * direction
            image = self.product(direction) + damping * straight
            along = inner(direction, image)
            # left alone: a direction in which the points show no curvature, but rounding, and a row that
            # has ended, by underflow or by what others saw
            curved = (along > FLAT * inner(direction, straight)) & (size > 0.0)
            length = nx.where(curved, size / nx.where(curved, along, one), zero)
            solution, gain = solution + length * direction, gain + length * size
            # slow directions, as far as they hold value (Nash and Sofer, 1990), and others see them
            if float(nx.max(k * length * size - REST * gain)) <= 0.0:
                break
            if wary and k >= FIRST_LOOK and k & (k - 1) == 0:
                own, others = self.seen(right, self.reg * solution)
                before, granted = granted, own * allowed(own, others)
                curved = curved & (nx.from_numpy(granted - before, type_as=right)[:, None] >= 0.0)
            residual = residual - length * image
            scaled = residual / self.diagonal
            size, last = inner(residual, scaled), size
            direction = nx.where(curved, scaled + size / nx.where(curved, last, one) * direction, zero)
        return solution


class DenseCurvature(Curvature):
    """The same for few atoms: a matrix, inverted in double precision."""

    asks = False
    slight_damping, first_damping, more_damping = 1e-3, 1e-3, 10.0
    least_damping = FLAT

    def __init__(self, sample, potential, reg, step=1):
        super().__init__(sample, potential, reg, step)
        nx, to_numpy = self.target.nx, self.target.nx.to_numpy
        self.root = np.sqrt(to_numpy(self.diagonal).astype(float))
        product = lambda chi: to_numpy(nx.dot(chi.T, chi)).astype(float)
        square = sum(product(block.dense()) for block, _ in self.weights())
        self.scaled = np.eye(len(square)) - square / self.n / np.outer(self.root, self.root)
        self.inverses = {}

    def shared(self):
        square = (1.0 - np.diag(self.scaled)) * self.root**2
        return self.target.nx.to_numpy(self.mean).astype(float) - square

    def inverse(self, damping):
        """That of the damped matrix; flat directions are damped in any case."""
        if damping not in self.inverses:
            damped = self.scaled + max(damping, FLAT) * np.eye(len(self.root))
            self.inverses[damping] = inverse_of(damped) / np.outer(self.root, self.root)
        return self.inverses[damping]

    def newton(self, gradient, damping, told=None):
        told = told or self.tell(damping)
        steps = self.solve(gradient[None, :], damping)
        promised = 0.5 * float(self.target.nx.sum(gradient * steps[0]))
        return Move(gradient, steps, damping, promised, promised), told

    def tell(self, damping=0.0):
        told = Told(self._exactly(damping))
        # that of directions in which no point lies
        if told.whole > STEEP * self.reg * len(self.root):
            told = Told(self._exactly(max(damping, self.slight_damping)), self.slight_damping)
        return told

    def _exactly(self, damping):
        """The trace, no estimate, of the damped matrix."""
        b, inverse = self.target.nx.to_numpy(self.target.weights).astype(float), self.inverse(damping)
        return self.reg * float(np.diag(inverse) @ b - b @ inverse @ b)

    def invert(self, right, damping, wary=False):
        nx = self.target.nx
        return nx.from_numpy(nx.to_numpy(right) @ self.inverse(damping), type_as=right)


def curvature_of(sample, potential, reg, times=1):
    """The curvature at a part of the points, `times` as many as usual: few would make it unstable."""
    n, n_atoms = sample.x.shape[0], sample.target.weights.shape[0]
    if n_atoms <= DENSE:
        return DenseCurvature(sample, potential, reg, stride(n, DENSE_WORK // n_atoms**2))
    rows = times * max(LEAST_SHARE * n, LEAST_ROWS * n_atoms, USUAL_STORE / n_atoms)
    rows = int(min(rows, max(LARGEST_STORE / n_atoms, n_atoms)))
    return Curvature(sample, potential, reg, stride(n, rows))


def smoothing(sample, potential):
    """Regularisation at which a point is shared by neighbouring cells only.

    The curvature at ``reg = 0`` is a density on the boundaries of the cells, which no sample sees;
    the weights at a small regularisation average it over their width.
    """
    target, x = sample.target, spread(sample.x, 1024)
    width = scale_of(target)
    for _ in range(MANTISSA[target.nx.bitsize(potential)]):  # less is below the rounding of costs
        chi = sweep(target, x, potential, width, ("weights",)).weights
        if float(target.nx.sum(chi * chi)) >= PURITY * x.shape[0]:
            break
        width /= 2.0
    return width


def allowed(own, others):
    """Best length, up to 1, of steps of such products with gradients, and curvatures at other points."""
    return np.clip(own / np.maximum(others, 1e-300), 0.0, 1.0)


def probes(target, n):
    """Random signs, and their images under a matrix C with ``C C^T = diag b - b b^T``."""
    nx, b = target.nx, target.weights
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(n, b.shape[0]))
    z = nx.sqrt(b) * nx.from_numpy(signs, type_as=b)
    return signs, z - nx.sum(z, axis=1)[:, None] * b


def trace_of(signs, images):
    """Trace of a positive semi-definite matrix, from its images of random signs.

    What the images of all but one of them span holds an approximation of the matrix, whose trace is
    known; the one left out estimates the rest, each in turn (XNysTrace of Epperly, Tropp and Webber,
    2024). Where the trace is small beside the noise of the matrix, which makes it indefinite, the plain
    mean is taken (Hutchinson, 1990).

    Parameters
    ----------
    signs, images : ndarrays, shape (n_probes, n)

    Returns
    -------
    float
    """
    inner, square, found = signs @ images.T, images @ images.T, []
    inner = (inner + inner.T) / 2.0  # the images are solved for in part: each is of another matrix
    plain = np.trace(inner) / len(signs)
    if not plain >= UNSURE * signs.shape[1]:
        return plain
    for k in range(len(signs)):
        others = np.delete(np.arange(len(signs)), k)
        values, vectors = np.linalg.eigh(inner[np.ix_(others, others)])
        basis = (vectors / np.sqrt(np.maximum(values, 1e-300)))[:, values > RELIABLE * values[-1]]
        known = np.sum(basis * (square[np.ix_(others, others)] @ basis))
        found.append(known + inner[k, k] - np.sum((basis.T @ inner[others, k]) ** 2))
    return float(np.mean(found))


def inverse_of(matrix):
    """That of a positive definite matrix, by Cholesky's factor: half of the time of another."""
    factor, failed = lapack.dpotrf(matrix)
    if failed:  # by rounding
        return np.linalg.inv(matrix)
    upper = lapack.dpotri(factor)[0]
    inverse = upper + upper.T
    np.fill_diagonal(inverse, upper.diagonal())
    return inverse
