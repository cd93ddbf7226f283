"""Minus the Hessian of a sample average of the semi-dual, in units of 1 / eps.

``diag(m) - E chi chi^T``, positive semi-definite, with the constants as its null space. For few atoms it
is a matrix; otherwise it is known by products with the weights of some points, which are kept. Where
masses are free at a price, it is the mean of that and of ``diag(g) - g g^T``, g the goal, and so is the
unit: see :class:`~pot_semidiscrete.problem.marginal.Marginal`.
"""

import functools
import math
from collections.abc import Iterable

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components, reverse_cuthill_mckee
from scipy.sparse.linalg import splu

from ..backend import Array, in_double, stride
from ..kernels import all_sums, local_rows, weight_blocks
from ..problem import unshared
from .ascent import LEAST_ROWS
from .semi_dual import SemiDual

DENSE = 256  # atoms up to which it is a matrix; benchmarks.constants
STORE = 2**25  # weights kept for products, twice at most: 128 MiB in float32
PRODUCT = 0.2  # of a pass is what a product takes; benchmarks.kernels
MAX_ITERATIONS = 50  # of conjugate gradients, and of Newton's method: a bound for any input
FORCING = 0.15  # of the mean increase so far: the model has stopped rising (Nash, Sofer, 1990)


def least_scale(weights: Array, n: int) -> Array:
    """Least unit of damping: about the smaller of the weight and the mass of a point."""
    return weights / (float(n) * weights + 1.0)


class DenseHessian:
    """The Hessian as a matrix, in double precision.

    Attributes
    ----------
    n : int
        Points.
    covariance : array, shape (n_support, n_support)
        Of the weights.
    scale : array, shape (n_support,)
        The same, but above 0: D, in units of which damping is.
    """

    def __init__(self, dual: SemiDual, x: Array, psi: Array, eps: float, goal: Array) -> None:
        self.nx, self.n, n_atoms = dual.target.nx, x.shape[0], dual.n_atoms
        self.most_rows = math.inf
        dual.count(x)
        mean, products = np.zeros(n_atoms), np.zeros((n_atoms, n_atoms))
        for _, chi in weight_blocks(unshared(dual.target), local_rows(dual.target, x), psi, eps):
            products += self.nx.to_numpy(self.nx.dot(chi.T, chi))
            mean += self.nx.to_numpy(self.nx.sum(chi, axis=0))
        mean, self._products = (total / self.n for total in all_sums(dual.target, mean, products))
        matrix = np.diag(mean) - self._products
        self.covariance = self._products - np.outer(mean, mean)
        weights, goal = (self.nx.to_numpy(v) for v in (dual.target.weights, goal))
        self.share = share = dual.target.exponent(eps)
        self.matrix = share * matrix + (1.0 - share) * (np.diag(goal) - np.outer(goal, goal))
        mean = share * mean + (1.0 - share) * goal
        self.scale = np.maximum(mean, least_scale(weights, self.n))

    def raise_links(self, j: np.ndarray, k: np.ndarray, links: np.ndarray) -> None:
        """Raise mean products of weights to others, of pairs of atoms that less than a point sees."""
        old, change = self._products[j, k], np.zeros_like(self.matrix)
        rise = np.where(self.n * old < 0.25, np.maximum(links - old, 0.0), 0.0)  # a half times a half
        change[j, k] = change[k, j] = self.share * rise
        self.matrix += np.diag(change.sum(axis=1)) - change

    def modes(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues of ``D^{-1/2} M D^{-1/2}`` that are not 0 to rounding; D^{-1/2} times the vectors.

        So scaled, small weights are no null space.
        """
        root = np.sqrt(np.maximum(self.scale, 1e-300))
        values, vectors = np.linalg.eigh(self.matrix / np.outer(root, root))
        kept = values > 1e-9 * values[-1]
        kept[0] = False  # the constants
        return values[kept], vectors[:, kept] / root[:, None]

    @property
    def is_singular(self) -> bool:
        """Whether it is so to rounding, the constants left aside."""
        return len(self.modes()[0]) < len(self.scale) - 1

    def apply(self, v: Array) -> Array:
        """Product with a vector."""
        return self.nx.from_numpy(self.matrix @ self.nx.to_numpy(v), type_as=v)

    def solve(self, g: Array, mu: float, forcing: float = FORCING) -> Array:
        """Solution of ``(Hessian + mu D) s = g``, for g of sum 0, or for each row of a matrix."""
        D = self.scale  # D D^T lifts the null space
        matrix = self.matrix + mu * np.diag(D) + np.outer(D, D)
        return self.nx.from_numpy(np.linalg.solve(matrix, self.nx.to_numpy(g).T).T, type_as=g)


class HessianOperator:
    """The Hessian by products with the weights of points.

    Attributes
    ----------
    n : int
    mean : array, shape (n_support,)
        Mean of the weights.
    scale : array, shape (n_support,)
        As of :class:`DenseHessian`.
    is_singular : bool
        False, for it is not known.
    """

    is_singular = False

    def __init__(self, dual: SemiDual, x: Array, psi: Array, eps: float, goal: Array) -> None:
        self.dual, self.x, self.nx, self.n = dual, x, dual.target.nx, x.shape[0]
        self.most_rows = most_rows(dual)
        dual.count(x)
        blocks = weight_blocks(unshared(dual.target), local_rows(dual.target, x), psi, eps)
        self.blocks = [chi for _, chi in blocks]
        weights, self.goal, self.share = dual.target.weights, goal, dual.target.exponent(eps)
        sums = self.total((self.nx.sum(chi, axis=0) for chi in self.blocks), 0.0 * weights)
        self.mean = sums / float(self.n)
        mean = self.share * self.mean + (1.0 - self.share) * self.goal
        self.scale = self.nx.maximum(mean, least_scale(weights, self.n))

    def apply(self, v: Array) -> Array:
        """Product with a vector, or with each row of a matrix."""
        self.dual.count(self.x, PRODUCT)
        dot, mean = self.nx.dot, self.nx.sum(self.goal * v, axis=-1, keepdims=True)
        products = self.total((dot(dot(v, chi.T), chi) for chi in self.blocks), 0.0 * v)
        product = self.mean * v - products / float(self.n)
        return self.share * product + (1.0 - self.share) * self.goal * (v - mean)

    def total(self, sums: Iterable[Array], zero: Array) -> Array:
        """Sum over all blocks, those of other ranks included; `zero` is that of a rank without any."""
        return all_sums(self.dual.target, sum(sums, start=zero))[0]

    def probes(self, n: int, random: np.random.Generator) -> Array:
        """Sums of the weights of the points with random signs, n rows: their covariance, times n."""
        nx, signs = self.nx, random.choice([-1.0, 1.0], (n, self.n))
        own = local_rows(self.dual.target, signs.T).T
        ends = np.cumsum([chi.shape[0] for chi in self.blocks])
        parts = zip(np.split(own, ends[:-1], axis=1), self.blocks, strict=False)  # a rank may have none
        means = nx.from_numpy(signs.sum(axis=1)[:, None], type_as=self.mean) * self.mean
        sums = (nx.dot(nx.from_numpy(part, type_as=chi), chi) for part, chi in parts)
        return self.total(sums, 0.0 * means) - means

    def solve(
        self, g: Array, mu: float, forcing: float = FORCING, max_iter: int = MAX_ITERATIONS
    ) -> Array:
        """Solution of ``(Hessian + mu D) s = g``, for g of sum 0, or for each row of a matrix."""
        return conjugate_gradients(self, g, mu, forcing, max_iter)


class SparseHessian:
    """The Hessian where points see few atoms: a graph Laplacian, of neighbouring cells.

    The weights of a point that are left out go to its others, so that the constants stay the null space.
    Of several processes each makes all of it.

    Parameters
    ----------
    dual : SemiDual
    chi : sparse array, shape (n, n_support)
        What :func:`_sparse_weights` returned.

    Attributes
    ----------
    n : int
    most_rows : float
        Points that there is room for the weights of.
    mean : array, shape (n_support,)
        Mean of the weights.
    products : sparse array, shape (n_support, n_support), or None
        Mean of the products of the weights, if they may be few.
    bandwidth : float
        Of those, reordered (Cuthill, McKee, 1969).
    scale : array, shape (n_support,)
        As of :class:`DenseHessian`.
    """

    def __init__(self, dual: SemiDual, chi: sparse.csr_array) -> None:
        self.nx, self.n = dual.target.nx, chi.shape[0]
        chi.data /= np.repeat(chi.sum(axis=1), np.diff(chi.indptr))
        self.chi, self.mean = chi, chi.sum(axis=0) / float(self.n)
        self.most_rows = STORE * self.n / chi.nnz
        scale = np.maximum(self.mean, least_scale(self.nx.to_numpy(dual.target.weights), self.n))
        self.scale = self.nx.from_numpy(scale, type_as=dual.target.weights)
        pairs = min(np.sum(np.diff(chi.indptr).astype(float) ** 2), float(dual.n_atoms) ** 2)
        self.products, self.bandwidth = None, math.inf
        if pairs <= 2.0 * dual.n_atoms * self.widest():  # else no such band has as many
            self.products = sparse.csr_array(chi.T @ chi)
            self.products.data /= float(self.n)
            self.bandwidth = _bandwidth(self.products)

    def widest(self, n_rows: int = 1) -> float:
        """Bandwidth up to which the matrix is factorised, to solve for as many right-hand sides.

        A factor takes n_support times the square of the bandwidth in multiplications, of which there are
        20 in the time of an entry. It is to take a pass at most, for each of the right-hand sides.
        """
        return math.sqrt(20.0 * self.n * n_rows)

    @functools.cached_property
    def _part(self) -> np.ndarray:
        """The part of each atom: no point links those of different ones."""
        links = sparse.bmat([[None, self.chi], [self.chi.T, None]])  # of points and atoms
        return connected_components(links, directed=False)[1][self.n :]

    @property
    def is_singular(self) -> bool:
        """Whether it falls into parts."""
        return bool(self._part.any())

    def apply(self, v: Array) -> Array:
        """Product with a vector, or with each row of a matrix."""
        v = self.nx.to_numpy(v)
        if self.products is None:
            product = self.chi.T @ (self.chi @ v.T) / float(self.n)
        else:
            product = self.products @ v.T
        return self.nx.from_numpy(self.mean * v - product.T, type_as=self.scale)

    def probes(self, n: int, random: np.random.Generator) -> Array:
        """As of :class:`HessianOperator`."""
        signs = random.choice([-1.0, 1.0], (n, self.n))
        sums = (self.chi.T @ signs.T).T - signs.sum(axis=1)[:, None] * self.chi.mean(axis=0)
        return self.nx.from_numpy(sums, type_as=self.scale)

    def solve(
        self, g: Array, mu: float, forcing: float = FORCING, max_iter: int = MAX_ITERATIONS
    ) -> Array:
        """Solution of ``(Hessian + mu D) s = g``, for g of sum 0, or for each row of a matrix.

        At ``mu = 0`` of sum 0 in each part: the rest of g, by rounding or by parts, is left out.
        """
        n_rows = 1 if len(g.shape) == 1 else g.shape[0]
        D, rhs = (in_double(v) for v in (self.scale, g))
        part = self._part if mu == 0.0 else np.zeros(len(D), dtype=int)
        member = sparse.csr_array((np.ones(len(D)), (part, np.arange(len(D)))))
        rhs = rhs - D * (((member @ rhs.T).T / (member @ D)) @ member)
        if self.bandwidth > self.widest(n_rows):
            rhs = self.nx.from_numpy(rhs, type_as=g)
            return conjugate_gradients(self, rhs, mu, forcing, max_iter)
        diagonal = sparse.csr_array(sparse.diags(self.mean + max(mu, 1e-9) * D))  # constants: 0
        matrix = (diagonal - self.products).tocsc()
        factor = splu(matrix, "MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
        return self.nx.from_numpy(factor.solve(rhs.T).T, type_as=g)


def conjugate_gradients(
    model: HessianOperator | SparseHessian, g: Array, mu: float, forcing: float, max_iter: int
) -> Array:
    """Solution of ``(Hessian + mu D) s = g``, for g of sum 0, by products with the Hessian.

    Preconditioned by D and truncated (Nocedal and Wright, 2006, sections 5.1 and 7.1). The rows of a
    matrix g are solved for side by side, each until it is truncated.
    """
    D, nx = model.scale, model.nx
    dot = lambda u, v: np.asarray(nx.to_numpy(nx.sum(u * v, axis=-1)), dtype=float)
    by_row = lambda share: nx.from_numpy(share[..., None], type_as=g)
    s, r, p = 0.0 * g, g, g / D
    rz = dot(r, p)
    gain, is_open = 0.0 * rz, rz > 0.0
    for k in range(1, max_iter + 1):
        Ap = model.apply(p) + mu * D * p
        curvature = dot(p, Ap)
        is_open = is_open & (curvature > 1e-7 * dot(p, D * p))  # rounding
        alpha = np.where(is_open, rz, 0.0) / np.where(is_open, curvature, 1.0)
        s, r, gain = s + by_row(alpha) * p, r - by_row(alpha) * Ap, gain + alpha * rz
        is_open = is_open & (k * alpha * rz > forcing * gain)
        if not is_open.any():
            break
        z = r / D
        rz, before = dot(r, z), np.where(is_open, rz, np.inf)
        is_open = is_open & (rz > 0.0)
        p = z + by_row(rz / before) * p
    return s


def _bandwidth(matrix: sparse.csr_array) -> int:
    """Bandwidth of a symmetric matrix, reordered."""
    places = np.argsort(reverse_cuthill_mckee(matrix, symmetric_mode=True)).astype(np.int32)
    rows = np.flatnonzero(np.diff(matrix.indptr))
    columns, starts = places[matrix.indices], matrix.indptr[rows]
    last, first = np.maximum.reduceat(columns, starts), np.minimum.reduceat(columns, starts)
    return int(np.max(np.maximum(last - places[rows], places[rows] - first), initial=0))


def _sparse_weights(dual: SemiDual, x: Array, psi: Array, eps: float) -> sparse.csr_array | None:
    """Weights of points, or None if those of a point have more products than there are atoms.

    Without the least, of which a point has a thousandth at most, as in Schmitzer (2019), section 3.3.
    """
    parts, products = [], 0.0
    for _, block in weight_blocks(unshared(dual.target), x, psi, eps):
        chi = dual.target.nx.to_numpy(block)
        kept = np.flatnonzero(chi > 1e-3 / dual.n_atoms)
        data, places = chi.reshape(-1)[kept].astype(float), np.divmod(kept, dual.n_atoms)
        parts.append(sparse.csr_array((data, places), shape=chi.shape))
        products += float(np.sum(np.diff(parts[-1].indptr).astype(float) ** 2))
        if products > float(x.shape[0]) * dual.n_atoms:
            return None
    return sparse.csr_array(sparse.vstack(parts))


def hessian(
    dual: SemiDual, x: Array, psi: Array, eps: float, rows: float, goal: Array
) -> DenseHessian | HessianOperator:
    """The Hessian at a potential, of about `rows` of the points: of twice as many at most.

    `goal` are the masses to reach.
    """
    ratio = x.shape[0] / max(min(rows, most_rows(dual)), 1.0)
    kind = DenseHessian if dual.n_atoms <= DENSE else HessianOperator
    return kind(dual, x[:: int(ratio) // 2 * 2 + 1], psi, eps, goal)  # odd, as `stride` is


def newton_model(
    dual: SemiDual, x: Array, psi: Array, eps: float, rows: float, goal: Array
) -> DenseHessian | HessianOperator | SparseHessian:
    """The same, or a sparse one where points see few atoms."""
    if dual.n_atoms > DENSE and not dual.target.is_relaxed:
        part = x[:: stride(x.shape[0], LEAST_ROWS)]
        chi = _sparse_weights(dual, part, psi, eps)
        if chi is not None:  # a few points may see more than those few did
            part = x[:: stride(x.shape[0], int(min(rows, STORE * part.shape[0] / chi.nnz)))]
            dual.count(part)
            chi = _sparse_weights(dual, part, psi, eps)
        if chi is not None:
            return SparseHessian(dual, chi)
    return hessian(dual, x, psi, eps, rows, goal)


def most_rows(dual: SemiDual) -> float:
    """Points that there is room for the weights of."""
    return STORE / dual.n_atoms if dual.n_atoms > DENSE else math.inf
