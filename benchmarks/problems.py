"""The problems of the benchmarks: laws that can be drawn from and integrated exactly.

``get(name)`` builds a problem of ``NAMES``, the same one each time: float64, from a fixed seed.
In 1 and 2 dimensions the source is a law with a quadrature; above, it is a finite array of
20,000 rows, drawn with replacement, so that an expectation is a mean over the rows.
"""

import functools
import zlib
from dataclasses import dataclass

import numpy as np
from scipy.special import roots_legendre

ROWS = 20_000


@dataclass(frozen=True)
class Quadrature:
    """A source law as nodes and masses, so that expectations are finite sums."""

    nodes: np.ndarray
    mass: np.ndarray


def product(points, masses, dimension):
    """Quadrature of independent coordinates from that of one."""
    grids = np.meshgrid(*[points] * dimension, indexing="ij")
    weights = np.meshgrid(*[masses / masses.sum()] * dimension, indexing="ij")
    nodes = np.stack([g.ravel() for g in grids], axis=1)
    return Quadrature(nodes, np.prod([w.ravel() for w in weights], axis=0))


def gauss_legendre(low, high, n, density=None, dimension=1):
    """Product quadrature of a law of independent coordinates with a density on [low, high]."""
    t, w = roots_legendre(n)
    t = low + (high - low) * (t + 1.0) / 2.0
    return product(t, w if density is None else w * density(t), dimension)


def midpoint(low, high, n, density, dimension=1):
    """The same with equal steps: better where the density and its slopes vanish at both ends."""
    t = low + (high - low) * (np.arange(n) + 0.5) / n
    return product(t, density(t), dimension)


def normal_density(t):
    """Standard normal density, up to a constant."""
    return np.exp(-(t**2) / 2.0)


def uniform_nodes(n, dimension):
    """Quadrature of the uniform law on the unit cube."""
    return gauss_legendre(0.0, 1.0, n, dimension=dimension)


def normal_nodes(n, dimension):
    """Quadrature of the standard normal law."""
    return midpoint(-7.0, 7.0, n, normal_density, dimension)


def student_nodes(n, dimension, end=100.0, order=10):
    """Panels of equal width up to `end`, and ``x = sqrt(3) tan(u)`` beyond.

    The law of u has the density ``2 cos(u)^2 / pi``.
    """
    t, w = roots_legendre(order)
    edges = np.linspace(-end, end, n // order + 1)
    width = edges[1] - edges[0]
    body = (edges[:-1, None] + width * (t + 1.0) / 2.0).ravel()
    body_mass = np.tile(w * width / 2.0, len(edges) - 1) * (1.0 + body**2 / 3.0) ** -2
    low = np.arctan(end / np.sqrt(3.0))
    tail = gauss_legendre(low, np.pi / 2.0, 100).nodes[:, 0]
    tail_mass = roots_legendre(100)[1] * (np.pi / 2.0 - low) / 2.0 * np.cos(tail) ** 2 * np.sqrt(3.0)
    tail = np.sqrt(3.0) * np.tan(tail)
    masses = np.concatenate([tail_mass[::-1], body_mass, tail_mass])
    return product(np.concatenate([-tail[::-1], body, tail]), masses, dimension)


def student(normals):
    """Independent Student t variables with 3 degrees of freedom, from 4 normals each."""
    return normals[..., 0] / ((normals[..., 1:] ** 2).sum(-1) / 3.0) ** 0.5


@dataclass(frozen=True)
class Law:
    """``scale * axes`` times independent standard variables.

    Attributes
    ----------
    name : str
        ``"unif"`` on [0, 1], ``"normal"`` or ``"student"`` with 3 degrees of freedom.
    dimension : int
    n_nodes : int
        Along each axis, of the quadrature.
    scale : float
    axes : ndarray, shape (d, d), optional
    rule : callable, optional
        Another quadrature than the usual one of the law, ``(n, dimension) -> Quadrature``.
    """

    name: str
    dimension: int
    n_nodes: int
    scale: float = 1.0
    axes: np.ndarray | None = None
    rule: object = None

    def place(self, x):
        """Standard variables to points."""
        if self.axes is not None:
            axes = self.axes.T
            x = x @ (axes.astype(x.dtype) if isinstance(x, np.ndarray) else x.new_tensor(axes))
        return x * self.scale

    def quadrature(self, refine=1.0):
        """Nodes and masses, `refine` times as many along each axis."""
        usual = {"unif": uniform_nodes, "normal": normal_nodes, "student": student_nodes}
        nodes = (self.rule or usual[self.name])(round(refine * self.n_nodes), self.dimension)
        return Quadrature(self.place(nodes.nodes), nodes.mass)

    def sampler(self, generator, dtype):
        """``n -> (n, d)`` points, by a generator of numpy or of torch."""
        if isinstance(generator, np.random.Generator):
            options, uniform, normal = {}, generator.random, generator.standard_normal
        else:
            import torch

            options = {"generator": generator, "device": generator.device}
            uniform, normal = torch.rand, torch.randn

        def sample(n):
            if self.name == "student":
                standard = student(normal((n, self.dimension, 4), dtype=dtype, **options))
            else:
                draw = uniform if self.name == "unif" else normal
                standard = draw((n, self.dimension), dtype=dtype, **options)
            return self.place(standard)

        return sample


@dataclass(frozen=True)
class Rows:
    """Rows of an array, drawn with replacement.

    Attributes
    ----------
    rows : ndarray, shape (n, d)
    """

    rows: np.ndarray
    name: str = "rows"

    def quadrature(self, refine=1.0):
        """The rows, or the first share `refine` of them."""
        rows = self.rows[: round(min(refine, 1.0) * len(self.rows))]
        return Quadrature(rows, np.full(len(rows), 1.0 / len(rows)))

    def sampler(self, generator, dtype):
        """``n -> (n, d)`` rows, by a generator of numpy or of torch."""
        if isinstance(generator, np.random.Generator):
            rows = self.rows.astype(dtype)
            return lambda n: rows[generator.integers(len(rows), size=n)]
        import torch

        options = {"generator": generator, "device": generator.device}
        rows = torch.from_numpy(self.rows).to(generator.device, dtype)
        return lambda n: rows[torch.randint(len(rows), (n,), **options)]


@dataclass(frozen=True)
class Problem:
    """A source, a target and a regularisation.

    Attributes
    ----------
    name : str
    source : Law or Rows
    atoms : ndarray, shape (N, d)
    weights : ndarray, shape (N,)
    reg : float
    scale : float
        What the data were multiplied by; the cost goes with its square.
    """

    name: str
    source: object
    atoms: np.ndarray
    weights: np.ndarray
    reg: float
    scale: float = 1.0

    @property
    def cost_scale(self):
        """Mean cost between two atoms."""
        return mean_cost(self.atoms, self.weights)

    def sampler(self, generator, dtype):
        """``n -> (n, d)`` points of `dtype`, by a generator of numpy or of torch."""
        return self.source.sampler(generator, dtype)

    def quadrature(self, refine=1.0):
        """The source as nodes and masses."""
        return self.source.quadrature(refine)

    def fingerprint(self):
        """Sums that change when the problem does."""
        powers = (self.atoms**2).sum(axis=1)
        source = self.quadrature()
        return np.array(
            [
                self.weights @ powers,
                powers @ powers,
                self.weights @ self.weights,
                np.abs(self.atoms).sum(axis=1) @ np.arange(len(powers)),
                source.mass @ np.abs(source.nodes).sum(axis=1),
                self.reg,
            ]
        )


def mean_cost(atoms, weights):
    """Mean squared distance between two atoms drawn independently."""
    return 2.0 * float(weights @ ((atoms - weights @ atoms) ** 2).sum(axis=1))


def even(n):
    """Equal weights."""
    return np.full(n, 1.0 / n)


def dirichlet(rng, n, concentration, least=1e-8):
    """Dirichlet weights, none under `least`."""
    weights = np.maximum(rng.dirichlet(np.full(n, concentration)), least)
    return weights / weights.sum()


def clusters(rng, n, dimension, n_clusters, radius, spread):
    """Points in round clusters whose centres have the standard deviation `spread`."""
    centres = spread * rng.normal(size=(n_clusters, dimension))
    return centres[rng.integers(n_clusters, size=n)] + radius * rng.normal(size=(n, dimension))


def mlp(rng, latents, widths, last=np.tanh):
    """Outputs of a network with random weights: He's, leaky ReLU of slope 0.2."""
    x = latents
    for layer, width in enumerate(widths):
        if layer > 0:
            x = np.where(x > 0.0, x, 0.2 * x)
        x = x @ (rng.normal(size=(x.shape[1], width)) * np.sqrt(2.0 / x.shape[1]))
        x = x + 0.1 * rng.normal(size=width)
    return last(x)


def decaying(dimension, decades):
    """Standard deviations that fall evenly in logarithm."""
    return 10.0 ** -np.linspace(0.0, decades, dimension)


def build(name, source, atoms, weights, relative_reg, scale=1.0):
    """A problem whose `reg` is a share of the mean cost."""
    atoms = np.ascontiguousarray(atoms * scale)
    return Problem(name, source, atoms, weights, relative_reg * mean_cost(atoms, weights), scale)


def uniform_square(rng):
    """Uniform atoms in the unit square, the law of the source."""
    atoms = rng.random((1000, 2))
    reg = 0.02 * atoms.var(axis=0).sum()
    return Problem("uniform_square", Law("unif", 2, 160), atoms, even(1000), float(reg))


def shifted_normal(rng):
    """A standard normal law in the plane, and atoms of a narrower one beside it."""
    rule = lambda n, dimension: gauss_legendre(-6.0, 6.0, n, normal_density, dimension)
    atoms = 1.0 + 0.5 * rng.normal(size=(1000, 2))
    return Problem("shifted_normal", Law("normal", 2, 200, rule=rule), atoms, even(1000), 0.03)


def normal_line(rng):
    """Few atoms of unequal weights on the line."""
    atoms = 0.5 * rng.normal(size=(40, 1)) + 0.5
    return build("normal_line", Law("normal", 1, 4000), atoms, dirichlet(rng, 40, 1.0), 0.02)


def uniform_line(rng):
    """Uniform atoms and a uniform source on the line, a small regularisation."""
    return build("uniform_line", Law("unif", 1, 2000), rng.random((200, 1)), even(200), 0.002)


def student_line(rng):
    """A heavy tail, and unequal weights."""
    # lighter ends than 1e-4 would lie too far out for the quadrature
    atoms, weights = rng.normal(size=(100, 1)), dirichlet(rng, 100, 0.3, least=1e-4)
    return build("student_line", Law("student", 1, 40_000), atoms, weights, 0.01)


def sharp_square(rng):
    """As `uniform_square`, with a fifth of the regularisation."""
    return build("sharp_square", Law("unif", 2, 300), rng.random((1000, 2)), even(1000), 0.002)


def anisotropic_clusters(rng):
    """A tilted normal law, 5 times as long as wide, in units of 255."""
    axes = np.array([[1.0, 0.0], [0.8, 0.2]])
    atoms = clusters(rng, 300, 2, 8, radius=0.1, spread=0.7)
    weights = dirichlet(rng, 300, 0.3)
    law = Law("normal", 2, 560, scale=255.0, axes=axes)
    return build("anisotropic_clusters", law, atoms, weights, 0.01, scale=255.0)


def far_atoms(rng):
    """Atoms 10 standard deviations away, in units of a thousandth."""
    atoms = 0.5 * rng.normal(size=(200, 2)) + np.array([8.0, 6.0])
    return build("far_atoms", Law("normal", 2, 600, scale=1e-3), atoms, even(200), 0.02, scale=1e-3)


def light_atoms(rng):
    """Weights spread over 8 decades."""
    atoms, weights = rng.normal(size=(500, 2)), 10.0 ** rng.uniform(-8.0, 0.0, size=500)
    return build("light_atoms", Law("normal", 2, 200), atoms, weights / weights.sum(), 0.05)


def plane_rows(rng):
    """A ring of 20,000 points to 5,000 atoms in a square."""
    angles, radii = rng.uniform(0.0, 2.0 * np.pi, ROWS), 1.0 + 0.15 * rng.normal(size=ROWS)
    rows = radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return build("plane_rows", Rows(rows), 2.0 * rng.random((5000, 2)) - 1.0, even(5000), 0.005)


def clusters_10(rng):
    """Clusters in dimension 10, within a wider normal law."""
    rows = 1.5 * rng.normal(size=(ROWS, 10))
    atoms = clusters(rng, 1000, 10, 12, radius=0.4, spread=1.0)
    return build("clusters_10", Rows(rows), atoms, even(1000), 0.01)


def anisotropic_10(rng):
    """Variances that decay, of both, and unequal weights."""
    rows = rng.normal(size=(ROWS, 10)) * decaying(10, 1.5)
    atoms = 0.5 + rng.normal(size=(2000, 10)) * decaying(10, 1.0)
    return build("anisotropic_10", Rows(rows), atoms, dirichlet(rng, 2000, 0.3), 0.1)


def student_10(rng):
    """Heavy tails in dimension 10."""
    rows = student(rng.normal(size=(ROWS, 10, 4)))
    atoms = 1.5 * rng.normal(size=(500, 10))
    return build("student_10", Rows(rows), atoms, dirichlet(rng, 500, 1.0), 0.02)


def mlp_64(rng):
    """Outputs of two random networks, in dimension 64."""
    rows = mlp(rng, rng.normal(size=(ROWS, 16)), (64, 64, 64))
    atoms = mlp(rng, rng.normal(size=(1000, 16)), (64, 64, 64))
    return build("mlp_64", Rows(rows), atoms, even(1000), 0.02)


def rows_64(rng):
    """A normal law and clusters, of variances that decay, in images' units."""
    spread = decaying(64, 1.5)
    rows = 255.0 * rng.normal(size=(ROWS, 64)) * spread
    atoms = clusters(rng, 5000, 64, 20, radius=0.7, spread=0.7) * spread
    return build("rows_64", Rows(rows), atoms, even(5000), 0.01, scale=255.0)


def digits(rng):
    """The handwritten digits of scikit-learn and a random network's images."""
    from sklearn.datasets import load_digits

    rows = mlp(rng, rng.uniform(-1.0, 1.0, size=(ROWS, 20)), (64, 64), last=np.tanh)
    return build("digits", Rows(8.0 + 8.0 * rows), load_digits().data, even(1797), 0.01)


BUILDERS = {
    builder.__name__: builder
    for builder in (
        normal_line,
        uniform_line,
        student_line,
        uniform_square,
        shifted_normal,
        sharp_square,
        anisotropic_clusters,
        far_atoms,
        light_atoms,
        plane_rows,
        clusters_10,
        anisotropic_10,
        student_10,
        mlp_64,
        rows_64,
        digits,
    )
}
NAMES = tuple(BUILDERS)


@functools.cache
def get(name):
    """A problem by name."""
    # seed 0 made the first two; a user's own seeds must not draw the atoms again
    seed = 0 if name in ("uniform_square", "shifted_normal") else zlib.crc32(name.encode())
    return BUILDERS[name](np.random.default_rng(seed))
