"""The theorem: (G) is the gradient of the transport cost at ``reg > 0``, and fails without.

The latent laws are equal masses on a fine grid; the cost is solved to rounding by Newton's method at
each step of a difference, or by a linear program at ``reg = 0``.
"""

import importlib

import numpy as np
import pytest

import pot_semidiscrete as ps
from benchmarks import references

NUMPY = {"numpy": "numpy", "torch": "torch", "jax": "jax.numpy"}
WIDTH = 6
REGS = [0.02, 0.2, 2.0]


def grid(dimension):
    """Equal masses: 3,000 on [-1, 1], or 40 x 40 on its square, off the kinks of symmetric networks."""
    n = 3000 if dimension == 1 else 40
    t = (np.arange(n) + 0.5) / n * 2.0 - 1.0 + 1e-4
    return np.stack(np.meshgrid(*dimension * [t]), axis=-1).reshape(-1, dimension)


def affine(theta, z, xp):
    """A matrix and an offset; `xp` is the module of the arrays, which this one needs not."""
    d = z.shape[1]
    return z @ theta[: d * d].reshape(d, d) + theta[d * d : d * d + d]


def network(activation):
    """One hidden layer; theta holds its matrices and offsets one after the other."""

    def generator(theta, z, xp):
        d = z.shape[1]
        first, rest = theta[: d * WIDTH].reshape(d, WIDTH), theta[d * WIDTH :]
        hidden = activation(z @ first + rest[:WIDTH], xp)
        second = rest[WIDTH : WIDTH + WIDTH * d].reshape(WIDTH, d)
        return hidden @ second + rest[WIDTH + WIDTH * d : WIDTH + WIDTH * d + d]

    return generator


GENERATORS = {
    "affine": affine,
    "tanh": network(lambda x, xp: xp.tanh(x)),
    "relu": network(lambda x, xp: xp.maximum(x, 0.0 * x)),
}


def setting(dimension):
    """Parameters, a direction of length 1, atoms and weights."""
    rng = np.random.default_rng(dimension)
    theta, direction = rng.normal(size=(2, 2 * dimension * WIDTH + WIDTH + dimension))
    atoms, weights = rng.normal(size=(12, dimension)), rng.dirichlet(np.full(12, 3.0))
    return theta, direction / np.linalg.norm(direction), atoms, weights


def difference(value, h):
    """Fourth-order central difference of a function of one number, at 0."""
    return (8.0 * (value(h) - value(-h)) - (value(2.0 * h) - value(-2.0 * h))) / (12.0 * h)


@pytest.mark.parametrize("reg", REGS)
@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("name", GENERATORS)
def test_formula_is_the_gradient_of_the_cost(name, dimension, reg, autodiff):
    generator, z = GENERATORS[name], grid(dimension)
    theta, direction, atoms, weights = setting(dimension)

    def solve(t):
        x = generator(theta + t * direction, z, np)
        source = references.Quadrature(x, np.full(len(x), 1.0 / len(x)))
        return references.newton(source, atoms, weights, reg, tol=1e-20)

    here, xp = solve(0.0), importlib.import_module(NUMPY[autodiff.name])
    value, gradient = ps.generator_gradient(
        lambda theta, z: generator(theta, z, xp),
        *(autodiff.array(a) for a in (theta, z, atoms, here.potential, weights)),
        reg=reg,
    )
    expected = difference(lambda t: solve(t).value, 1e-4)
    assert float(value) == pytest.approx(here.value, rel=1e-12)
    # a few of the equal masses cross the kinks of the network within the difference
    tolerance = 1e-3 if name == "relu" else 1e-7
    assert autodiff.host(gradient) @ direction == pytest.approx(expected, rel=tolerance)
    assert abs(expected) > 1e-3


@pytest.mark.parametrize("reg", REGS)
def test_one_sided_derivatives_agree_with_the_formula(reg, autodiff):
    """From latent points to both numbers by public functions alone."""
    theta, direction, atoms, weights = setting(2)
    z, xp = grid(2)[::4], importlib.import_module(NUMPY[autodiff.name])
    generator = lambda theta, z: network(lambda x, xp: xp.tanh(x))(theta, z, xp)
    theta, direction, z, atoms, weights = (
        autodiff.array(a) for a in (theta, direction, z, atoms, weights)
    )
    found = ps.one_sided_derivatives(generator, theta, direction, z, atoms, weights, reg=reg)
    source = references.Quadrature(autodiff.host(generator(theta, z)), np.full(len(z), 1.0 / len(z)))
    solved = references.newton(source, autodiff.host(atoms), autodiff.host(weights), reg, tol=1e-20)
    potential = autodiff.array(solved.potential)
    gradient = ps.generator_gradient(generator, theta, z, atoms, potential, weights, reg=reg)[1]
    slope = float(autodiff.host(gradient) @ autodiff.host(direction))
    assert not found.kink
    assert found.left == pytest.approx(slope, abs=3.0 * found.left_error + 1e-9)
    assert found.right == pytest.approx(slope, abs=3.0 * found.right_error + 1e-9)
    assert max(found.left_error, found.right_error) < 1e-4 * abs(slope)


def segment(theta, z):
    """A vertical segment at theta; it lies on the bisector of the two atoms at 0."""
    return z * np.array([0.0, 1.0]) + theta * np.array([1.0, 0.0])


@pytest.mark.parametrize("theta", [0.0, 0.2])
def test_formula_fails_on_a_segment_without_regularisation(theta):
    """``W_0 = theta^2 + const`` is smooth, but every optimal potential ties all of the mass."""
    atoms, z, one = np.array([[1.0, 0.0], [-1.0, 0.0]]), grid(1)[::10], np.ones(1)
    options = {"vjp": lambda theta, z, c: c[:, :1].sum(axis=0)}
    optimal = np.array([-2.0 * theta, 2.0 * theta])
    found = ps.one_sided_derivatives(segment, theta * one, one, z, atoms)
    assert not found.kink
    assert found.left == pytest.approx(2.0 * theta, abs=1e-9)
    assert ps.gradient_diagnostics(atoms, segment(theta, z), optimal).verdict == "undefined"
    for side in (-1.0, 1.0):
        beside = optimal + side * np.array([1e-9, 0.0])
        gradient = ps.generator_gradient(segment, theta * one, z, atoms, beside, **options)[1]
        assert gradient[0] == pytest.approx(2.0 * (theta - side), abs=1e-6)
    for reg in REGS:
        gradient = ps.generator_gradient(segment, theta * one, z, atoms, optimal, reg=reg, **options)[1]
        assert gradient[0] == pytest.approx(2.0 * theta, abs=1e-9)


@pytest.mark.parametrize("reg", [0.0, *REGS])
def test_without_its_hypothesis_the_theorem_fails_at_any_reg(reg):
    """``relu(theta z)`` has no derivative at 0 for any z: the cost has a kink there, regularised or not.

    Near 0 it is that of ``delta_0`` plus ``|theta| E max(Z, 0)`` times the slope of the transform at 0,
    which is ``-2 ybar`` at an optimal potential, if there is one atom.
    """
    generator = lambda theta, z: np.maximum(theta * z, 0.0)
    z = grid(1)[::10]
    found = ps.one_sided_derivatives(generator, np.zeros(1), np.ones(1), z, np.array([[3.0]]), reg=reg)
    slope = -6.0 * np.maximum(z, 0.0).mean()
    assert found.kink
    assert found.right == pytest.approx(slope, rel=1e-6)
    assert found.left == pytest.approx(6.0 * np.maximum(-z, 0.0).mean(), rel=1e-6)
