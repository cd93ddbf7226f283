"""Formula (G), and training by it without torch."""

import numpy as np
import pytest
from ot.backend import get_backend
from scipy import stats

import pot_semidiscrete as ps
from benchmarks import references
from pot_semidiscrete.metrics import transport_cost
from tests.backends import uncrossed


def affine(theta, z):
    """``x = A z + b`` in two dimensions, theta = (A, b) as one vector."""
    return z @ theta[:4].reshape(2, 2).T + theta[4:]


def affine_vjp(theta, z, cotangent):
    """Product of a cotangent with its derivative in theta."""
    parts = [(cotangent.T @ z).ravel(), cotangent.sum(axis=0)]
    return get_backend(z).concatenate(parts)


@pytest.fixture
def problem(rng):
    """Arguments of `generator_gradient`, for the affine generator."""
    return {
        "theta": rng.normal(size=6),
        "z": rng.normal(size=(40, 2)),
        "X_target": rng.normal(size=(20, 2)),
        "semi_dual_potential": rng.normal(size=20),
    }


@pytest.mark.parametrize("reg", [0.0, 0.1])
@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean"])
def test_gradient_by_finite_differences_in_theta(metric, reg, problem, nx64):
    """At a fixed potential, in every coordinate of theta."""
    value, gradient = ps.generator_gradient(
        affine,
        **{key: nx64.array(v) for key, v in problem.items()},
        metric=metric,
        reg=reg,
        vjp=affine_vjp if not nx64.differentiates else None,
    )

    def loss(theta):
        x = affine(theta, problem["z"])
        return ps.semidiscrete_loss(
            problem["X_target"], x, problem["semi_dual_potential"], metric=metric, reg=reg
        )

    assert float(value) == pytest.approx(loss(problem["theta"]), rel=1e-12)
    steps = 1e-6 * np.eye(6)
    expected = [(loss(problem["theta"] + h) - loss(problem["theta"] - h)) / 2e-6 for h in steps]
    np.testing.assert_allclose(nx64.host(gradient), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("reg", [0.05, 0.5])
def test_theorem_the_gradient_of_the_transport_cost(reg):
    """(G) at the optimal potential is the derivative of W itself, the potential solved anew.

    Newton and equal-mass nodes on the line; the generator ``theta_0 + theta_1 z + sin(theta_2 z)``.
    """
    rng = np.random.default_rng(0)
    atoms, weights = rng.normal(size=(25, 1)), rng.dirichlet(np.full(25, 3.0))
    z = stats.norm.ppf((np.arange(2000) + 0.5) / 2000)[:, None]
    theta = np.array([0.3, 0.8, 0.5])

    def generator(theta, z):
        return theta[0] + theta[1] * z + np.sin(theta[2] * z)

    def vjp(theta, z, c):
        return np.array([c.sum(), (c * z).sum(), (c * z * np.cos(theta[2] * z)).sum()])

    def solve(theta):
        source = references.Quadrature(generator(theta, z), np.full(2000, 1 / 2000))
        return references.newton(source, atoms, weights, reg, tol=1e-18)

    _, gradient = ps.generator_gradient(
        generator, theta, z, atoms, solve(theta).potential, weights, reg=reg, vjp=vjp
    )
    steps = 1e-4 * np.eye(3)
    expected = [(solve(theta + h).value - solve(theta - h).value) / 2e-4 for h in steps]
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)


def test_theta_of_several_arrays(problem, autodiff):
    a = {key: autodiff.array(v) for key, v in problem.items()}
    flat = ps.generator_gradient(affine, **a, reg=0.1)[1]
    theta = a.pop("theta")
    parts = {"matrix": theta[:4].reshape(2, 2), "offset": theta[4:]}
    gradient = ps.generator_gradient(lambda t, z: z @ t["matrix"].T + t["offset"], parts, **a, reg=0.1)[
        1
    ]
    joined = np.concatenate([autodiff.host(gradient[k]).ravel() for k in ("matrix", "offset")])
    np.testing.assert_allclose(joined, autodiff.host(flat), atol=1e-14)


def test_points_of_any_shape(problem, nx64):
    """Images: the cotangent comes back in the shape of the points."""
    a = {key: nx64.array(v) for key, v in problem.items()}
    seen = []

    def vjp(theta, z, cotangent):
        seen.append(cotangent.shape)
        return affine_vjp(theta, z, cotangent.reshape(-1, 2))

    options = {"reg": 0.1, "vjp": vjp if not nx64.differentiates else None}
    image = ps.generator_gradient(lambda t, z: affine(t, z).reshape(-1, 1, 1, 2), **a, **options)
    options["vjp"] = affine_vjp if not nx64.differentiates else None
    flat = ps.generator_gradient(affine, **a, **options)
    np.testing.assert_allclose(nx64.host(image[1]), nx64.host(flat[1]), atol=1e-14)
    assert seen in ([], [(40, 1, 1, 2)])


def test_parameters_are_left_alone(autodiff, problem):
    a = {key: autodiff.array(v) for key, v in problem.items()}
    if autodiff.name == "torch":
        a["theta"].requires_grad_()
    ps.generator_gradient(affine, **a, reg=0.1)
    assert getattr(a["theta"], "grad", None) is None


def translation(theta, z):
    """Latent points, moved."""
    return z + theta


@uncrossed
@pytest.mark.parametrize("reg", [0.0, 0.2])
def test_training_a_translation_finds_the_mean(reg, nx):
    """The minimiser is ``ybar - E Z``; the mean of the last iterates is within 0.1 of it."""
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(50, 2)) + np.array([1.0, -0.5])
    path = []
    result = ps.train_parameters(
        translation,
        nx.array(np.zeros(2)),
        lambda n: nx.array(rng.normal(size=(n, 2))),
        nx.array(atoms),
        vjp=(lambda theta, z, c: c.sum(0)) if not nx.differentiates else None,
        reg=reg,
        n_steps=120,
        learning_rate=0.05,
        callback=lambda step, theta, loss: path.append(nx.host(theta)),
    )
    assert result.status == "finished"
    assert len(result.history["loss"]) == 120
    assert np.abs(np.mean(path[60:], axis=0) - atoms.mean(axis=0)).max() < 0.1
    assert nx.host(result.potential).mean() == pytest.approx(0.0, abs=1e-5)


def training(**options):
    """A short run of `train_parameters`, with these options instead of its own."""
    rng = np.random.default_rng(0)
    defaults = {
        "generator": translation,
        "theta": np.zeros(2),
        "latent_sampler": lambda n: rng.normal(size=(n, 2)),
        "X_target": np.random.default_rng(1).normal(size=(20, 2)),
        "vjp": lambda theta, z, c: c.sum(0),
        "reg": 0.1,
        "n_steps": 10,
    }
    return ps.train_parameters(**(defaults | options))


def test_parameters_are_one_array_of_the_backend_of_the_atoms():
    with pytest.raises(TypeError, match=r"theta: expected a numpy array.*one array"):
        training(theta=[np.zeros(2)], generator=lambda theta, z: z + theta[0])


def perceptron(theta, z):
    """Two layers of 32 units, theta = (W, c, V, d) as one vector."""
    hidden = np.maximum(z @ theta[:64].reshape(2, 32) + theta[64:96], 0)
    return hidden @ theta[96:160].reshape(32, 2) + theta[160:]


def perceptron_vjp(theta, z, cotangent):
    """Product of a cotangent with its derivative in theta."""
    hidden = np.maximum(z @ theta[:64].reshape(2, 32) + theta[64:96], 0)
    back = (cotangent @ theta[96:160].reshape(32, 2).T) * (hidden > 0)
    parts = (z.T @ back, back.sum(axis=0), hidden.T @ cotangent, cotangent.sum(axis=0))
    return np.concatenate([part.ravel() for part in parts])


@pytest.mark.parametrize("reg", [0.0, 0.05])
@pytest.mark.parametrize("learning_rate", [0.01, 0.03])
def test_training_bears_large_steps(learning_rate, reg):
    """Two groups of 500 atoms, at 6.7 from their middle in mean square: it reaches 0.15 to 0.3."""
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(500, 2)) + 3.0 * rng.integers(2, size=(500, 1))
    result = training(
        generator=perceptron,
        theta=0.5 * rng.normal(size=162),
        vjp=perceptron_vjp,
        X_target=atoms,
        reg=reg,
        n_steps=150,
        batch_size=100,
        learning_rate=learning_rate,
    )
    x = perceptron(result.theta, rng.normal(size=(500, 2)))
    assert transport_cost(x, atoms) < 0.4


def test_training_starts_from_a_copy():
    theta = np.zeros(2)
    assert np.abs(training(theta=theta).theta).max() > 0
    assert (theta == 0).all()


def test_training_is_repeatable():
    np.testing.assert_array_equal(training().theta, training().theta)


def test_callback_stops_the_training():
    result = training(callback=lambda step, theta, loss: step == 3)
    assert (result.status, len(result.history["loss"])) == ("stopped", 4)


def test_interruption_keeps_the_parameters():
    def interrupt(step, theta, loss):
        if step == 3:
            raise KeyboardInterrupt

    result = training(callback=interrupt)
    assert (result.status, len(result.history["loss"])) == ("interrupted", 4)


def test_failure_carries_what_was_reached():
    def vjp(theta, z, cotangent):
        vjp.calls += 1
        return cotangent.sum(0) * (np.nan if vjp.calls > 3 else 1.0)

    vjp.calls = 0
    with pytest.raises(ValueError, match="NaN or inf at step 3") as caught:
        training(vjp=vjp)
    partial = caught.value.partial_result
    assert partial.status == "failed"
    assert np.isfinite(partial.theta).all()
    assert len(partial.history["loss"]) == 3
