"""What is composed of the core, against closed forms and peers."""

import numpy as np
import pytest
from scipy import stats

from pot_semidiscrete import semidiscrete_c_transform
from pot_semidiscrete.applications import quantize
from pot_semidiscrete.samplers import SobolSampler

# Quantisation.


def sobol(nx, dimension, law="unif", generator=None):
    return SobolSampler(dimension, law, generator, type_as=nx.array([0.0]), random_state=0)


@pytest.mark.parametrize("law", ["unif", "normal"])
def test_quantiser_of_a_line_has_the_means_of_its_quantiles(law, nx):
    n = 6
    levels = np.arange(n + 1) / n
    middles = levels[:-1] + 0.5 / n
    if law == "normal":
        middles = -n * np.diff(stats.norm.pdf(stats.norm.ppf(levels)))
    found = quantize(sobol(nx, 1, law), n, n_steps=12, random_state=0)
    np.testing.assert_allclose(np.sort(nx.host(found.atoms)[:, 0]), middles, atol=0.01)
    np.testing.assert_allclose(nx.host(found.weights), 1.0 / n, rtol=10 * nx.eps)
    if law == "unif":
        assert float(found.cost) == pytest.approx(1.0 / (12 * n**2), rel=0.05)
        low, high = found.transport.value_interval
        assert low < 1.0 / (12 * n**2) < high


def test_free_weights_do_as_well_as_k_means(rng):
    cluster = pytest.importorskip("sklearn.cluster")
    x = rng.normal(size=(5000, 2)) * [2.0, 1.0]
    start = x[:8]
    peer = cluster.KMeans(8, init=start, n_init=1).fit(x).inertia_ / len(x)
    found = quantize(x, 8, weights="free", X_init=start, n_steps=150, random_state=0)
    inertia = semidiscrete_c_transform(found.atoms, x, np.zeros(8)).mean()
    assert inertia < 1.01 * peer
    nearest = np.argmin(((x[:, None] - found.atoms) ** 2).sum(-1), axis=1)
    np.testing.assert_allclose(found.weights, np.bincount(nearest, minlength=8) / len(x), atol=0.01)
    assert abs(float(found.cost) - inertia) < 5.0 * found.cost_stderr


@pytest.mark.parametrize("reg", [0.5, 3.0])
def test_free_quantiser_of_a_normal_law_shrinks(reg):
    """The law that minimises OT_reg(normal, .) has the variance max(0, 1 - reg / 2)."""
    source = SobolSampler(1, "normal", random_state=0)
    found = quantize(source, 12, weights="free", reg=reg, n_steps=60, random_state=0)
    variance = found.weights @ found.atoms[:, 0] ** 2
    assert variance == pytest.approx(max(0.0, 1.0 - 0.5 * reg), abs=0.03)


def test_quantiser_in_the_plane_beats_random_atoms_and_keeps_the_mean(rng):
    """Optimal atoms satisfy sum_j b_j y_j = E X; their cost is near 1 / (6 N) in the plane, or less."""
    start = rng.random((40, 2))
    found = quantize(SobolSampler(2, random_state=0), 40, X_init=start, n_steps=20)
    np.testing.assert_allclose(found.weights @ found.atoms, 0.5, atol=2e-3)
    low, high = found.transport.value_interval
    assert found.history["cost"][0] > 2.0 * high
    assert 5.0 / (18.0 * np.sqrt(3.0) * 40) < high  # hexagons, which no cells are better than
    assert low < 1.1 / (6.0 * 40)


def test_copies_among_rows_do_not_start_together(rng):
    rows = np.repeat(rng.normal(size=(5, 2)), 40, axis=0)
    for weights in (None, "free"):
        found = quantize(rows, 5, weights=weights, n_steps=2, n_points=400, random_state=0)
        assert float(found.cost) < 0.05
    with pytest.raises(ValueError, match="n_atoms: expected at most 5"):
        quantize(rows, 6, n_points=400)


@pytest.mark.parametrize("source", ["normal", stats.norm(), 3, None, np.random.Generator])
def test_a_source_that_does_not_tell_its_backend_needs_atoms(source):
    with pytest.raises(ValueError, match="X_init: expected points to start from"):
        quantize(source, 3)
