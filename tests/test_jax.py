"""Functions that JAX transforms: what they close over is looked at, what is traced is not."""

import numpy as np
import pytest

import pot_semidiscrete as sd
from pot_semidiscrete.kernels import reduce
from pot_semidiscrete.problem import build_target
from tests.backends import Backend

jax = pytest.importorskip("jax")
NX = Backend("jax", "float64")
ATOMS, POINTS = (NX.array(np.random.default_rng(k).normal(size=(9, 2))) for k in range(2))
WEIGHTS = NX.array([0.0, 0.3, *[0.1] * 7])
POTENTIAL = 0.1 * ATOMS[:, 0]
FUNCTIONS = [name for name in sd.__all__ if name.startswith("semidiscrete_")]
each = pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])


@each
@pytest.mark.parametrize("reg", [0.0, 0.1])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_that_closes_over_the_problem(name, reg, metric):
    function = getattr(sd, name)
    at = lambda x, psi: function(ATOMS, x, psi, WEIGHTS, metric=metric, reg=reg)
    expected = at(POINTS, POTENTIAL)
    for found in (
        jax.jit(lambda x: at(x, POTENTIAL))(POINTS),
        jax.jit(lambda psi: at(POINTS, psi))(POTENTIAL),
        jax.jit(at)(POINTS, POTENTIAL),
        jax.vmap(lambda psi: at(POINTS, psi))(POTENTIAL[None])[0],
        jax.jit(lambda: at(POINTS, POTENTIAL))(),
    ):
        np.testing.assert_allclose(found, expected, atol=1e-12)
    gradient = jax.grad(lambda x: at(x, POTENTIAL).sum())
    np.testing.assert_allclose(jax.jit(gradient)(POINTS), gradient(POINTS), atol=1e-12)


@each
def test_result_inside_a_traced_function(metric):
    """Also at the first call: what a result keeps must not be of the trace."""
    for name in ("c_transform", "atom_weights", "ot_map"):
        result = sd.solve_semidiscrete(
            ATOMS, "normal", WEIGHTS, metric, 0.1, tol=0, max_iter=3, random_state=0
        )
        loaded = result.to(ATOMS)
        found = jax.jit(getattr(loaded, name))(POINTS)
        np.testing.assert_allclose(found, getattr(result, name)(POINTS), atol=1e-12)
        np.testing.assert_allclose(found, getattr(loaded, name)(POINTS), atol=1e-12)


def test_squares_of_weights_of_arrays_that_do_not_change():
    target = build_target(ATOMS, WEIGHTS)
    task = (target, target.center(POINTS), POTENTIAL[1:], 0.5)
    found = reduce(*task, ("colsum", "colsquare", "weights"))
    np.testing.assert_allclose(found.colsquare, (found.weights**2).sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.colsum, found.weights.sum(axis=0), rtol=1e-12)


def test_what_is_known_is_checked_inside_a_traced_function():
    bad = POTENTIAL.at[0].set(np.nan)
    with pytest.raises(ValueError, match="semi_dual_potential: expected finite"):
        jax.jit(lambda x: sd.semidiscrete_loss(ATOMS, x, bad))(POINTS)
    with pytest.raises(TypeError, match="X_target: expected atoms that are known"):
        jax.jit(sd.cost_scale)(ATOMS)
