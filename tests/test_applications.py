"""What is composed of the core, against closed forms and peers."""

import numpy as np
import pytest
from scipy import linalg, stats

from benchmarks import references
from benchmarks.references import normal_density
from pot_semidiscrete import (
    cost_scale,
    semidiscrete_atom_weights,
    semidiscrete_c_transform,
    semidiscrete_ot_map,
    solve_semidiscrete,
)
from pot_semidiscrete.applications import CenterOutwardRanks, ErrorBars, barycenter, quantize
from pot_semidiscrete.applications.starts import resolve_sources
from pot_semidiscrete.optim import newton
from pot_semidiscrete.optim.semi_dual import SemiDual
from pot_semidiscrete.samplers import SobolSampler
from tests.backends import Backend, uncrossed

# Quantisation.


def sobol(nx, dimension, law="unif", generator=None):
    """Sobol points of a law, in a backend."""
    return SobolSampler(dimension, law, generator, type_as=nx.array([0.0]), random_state=0)


@uncrossed
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


def test_free_weights_start_as_well_as_k_means():
    """In groups that a poor start shares out wrongly: it was 4 to 65% worse."""
    cluster, ratios = pytest.importorskip("sklearn.cluster"), []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        groups = 4.0 * rng.normal(size=(20, 2)) + 1000.0
        x = groups[rng.integers(20, size=4000)] + 0.5 * rng.normal(size=(4000, 2))
        found = quantize(x, 20, weights="free", random_state=seed)
        inertia = semidiscrete_c_transform(found.atoms, x, np.zeros(20)).sum()
        ratios.append(inertia / cluster.KMeans(20, random_state=seed).fit(x).inertia_)
    assert np.median(ratios) < 1.01


def test_the_best_of_several_starts_is_that_of_kmeans():
    """Clusters far apart, where one start leaves two of them to an atom: as good as ten of KMeans."""
    cluster = pytest.importorskip("sklearn.cluster")
    rng, gains, ratios = np.random.default_rng(0), [], []
    x = 10.0 * rng.random((20, 2))[rng.integers(20, size=5000)] + 0.3 * rng.normal(size=(5000, 2))
    for seed in range(3):
        options = {"weights": "free", "n_steps": 20, "random_state": seed}
        one, best = (quantize(x, 20, n_init=n, **options) for n in (1, 10))
        gains.append(one.history["cost"][10:].mean() / best.history["cost"][10:].mean())
        inertia = semidiscrete_c_transform(best.atoms, x, np.zeros(20)).sum()
        ratios.append(inertia / cluster.KMeans(20, n_init=10, random_state=seed).fit(x).inertia_)
    assert min(gains) >= 1.0  # the first start is that of n_init=1
    assert np.mean(gains) > 1.02
    assert np.mean(ratios) < 1.01


@pytest.mark.parametrize("weights", [None, "free"])
def test_starts_differ(weights, nx):
    """Of uniform weights as well: each is another choice of points."""
    x = nx.array(np.random.default_rng(0).normal(size=(200, 2)))
    given = {"sampler_source": x}
    _, starts = resolve_sources(given, 5, 100, None, 0, spread=weights == "free", n_init=3)
    rows = {tuple(map(tuple, np.sort(nx.host(atoms), axis=0))) for atoms in starts}
    assert len(rows) == 3
    found = quantize(x, 5, weights=weights, n_init=3, n_steps=4, n_points=100, random_state=0)
    assert found.atoms.shape == (5, 2)
    assert found.history["cost"].shape == (4,)


def test_starts_are_points_that_differ_by_less_than_rounding():
    """Once points of both groups are chosen, squared distances to them are 0 but for rounding."""
    x = np.concatenate([np.arange(12.0), 1e12 + np.arange(12.0)])[:, None] * 1e-3
    found = quantize(x, 24, weights="free", n_steps=1, n_points=24, random_state=0)
    assert np.isfinite(found.atoms).all()  # starts were drawn with the probabilities 0 / 0


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
    found = quantize(SobolSampler(2, random_state=0), 40, X_init=start, n_steps=12, n_points=4096)
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


# Ranks.


def banana(x):
    """Points bent along a parabola."""
    return np.stack([x[:, 0], x[:, 0] ** 2 + 0.5 * x[:, 1]], axis=1)


def ranks_of(data, reg=0.0, **options):
    """Ranks of data, by a solve of its own."""
    result = solve_semidiscrete(data, "spherical", reg=reg, random_state=0, **options)
    return CenterOutwardRanks(result, random_state=1)


@uncrossed
def test_ranks_on_a_line_are_those_of_order(nx, rng):
    data = rng.normal(size=(9, 1)) ** 3
    order = np.argsort(np.argsort(data[:, 0]))
    ranks = ranks_of(nx.array(data), tol=0.02)
    found = nx.host(ranks.ranks(nx.array(data)))[:, 0]
    np.testing.assert_allclose(found, (2.0 * order + 1.0) / 9.0 - 1.0, atol=0.03)
    depth = nx.host(ranks.depth(nx.array(data)))
    np.testing.assert_allclose(depth, 1.0 - abs(found), rtol=100 * nx.eps)
    ends = nx.host(ranks.contour(0.99, 64))[:, 0]
    np.testing.assert_allclose(np.unique(ends), [data.min(), data.max()], rtol=100 * nx.eps)


@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_the_rank_of_an_atom_is_the_barycentre_of_its_cell(reg, rng):
    data = rng.normal(size=(12, 2))
    ranks = ranks_of(data, reg)
    u = ranks._points.atoms + ranks._points.origin
    chi = ranks.result.atom_weights(u)
    barycentres = chi.T @ u / chi.sum(axis=0)[:, None]
    np.testing.assert_allclose(ranks.ranks(data), barycentres, atol=1e-6)
    np.testing.assert_allclose(barycentres.mean(axis=0), 0.0, atol=0.03)  # of U


@pytest.mark.parametrize("law", [lambda x: x, banana])
def test_ranks_are_free_of_the_distribution(law, rng):
    """Norms are uniform, of fresh points, too: to within the noise of 300 atoms and 400 points."""
    data, fresh = law(rng.normal(size=(300, 2))), law(rng.normal(size=(400, 2)))
    ranks = ranks_of(data, reg=0.002 * cost_scale(data))
    bound = 1.63 * np.sqrt(1.0 / 300 + 1.0 / 400)  # Kolmogorov and Smirnov, of two samples, at 1%
    norms = 1.0 - ranks.depth(fresh)
    assert stats.kstest(norms, "uniform").statistic < bound
    angles = np.arctan2(*ranks.ranks(fresh).T) / (2.0 * np.pi) + 0.5
    assert stats.kstest(angles, "uniform").statistic < bound
    if law is not banana:  # F(|y|) y / |y|, F the law of |Y|
        length = np.linalg.norm(fresh, axis=1)[:, None]
        true = (1.0 - np.exp(-0.5 * length**2)) * fresh / length
        assert np.linalg.norm(ranks.ranks(fresh) - true, axis=1).mean() < 0.08
        radius = np.linalg.norm(ranks.contour(0.5, 50), axis=1)
        assert radius.mean() == pytest.approx(np.sqrt(2.0 * np.log(2.0)), rel=0.1)


def test_the_rank_of_a_single_atom_is_the_centre(nx):
    atom = nx.array([[0.3, -2.0]])
    ranks = ranks_of(atom)
    np.testing.assert_allclose(nx.host(ranks.ranks(atom)), 0.0, atol=0.03)
    assert nx.host(ranks.depth(atom))[0] > 0.95


def test_contours_in_space_are_points_of_random_directions(rng):
    data = rng.normal(size=(60, 3))
    contour = ranks_of(data, reg=0.3, tol=0.3).contour(1.0, 200)
    assert contour.shape == (200, 3)
    assert abs(contour.mean(axis=0)).max() < 0.4
    assert np.linalg.norm(contour, axis=1).min() > 0.8


def test_ranks_are_for_the_squared_distance(rng):
    result = solve_semidiscrete(rng.normal(size=(5, 2)), "spherical", metric="euclidean", reg=0.5)
    with pytest.raises(ValueError, match="result: expected one for the squared distance"):
        CenterOutwardRanks(result)


# Barycentres.


def normal(nx, mean, root, seed=0):
    """Sobol points of a normal law; the square of the root is its covariance."""
    place = lambda z: z @ nx.array(root) + nx.array(mean)
    return SobolSampler(len(mean), "normal", place, type_as=nx.array([0.0]), random_state=seed)


@uncrossed
def test_barycenter_on_a_line_is_the_mean_of_quantile_functions(nx):
    n, share = 6, 0.25
    levels = np.arange(n + 1) / n
    means = -n * np.diff(stats.norm.pdf(stats.norm.ppf(levels)))
    sources = [normal(nx, [0.0], [[1.0]]), normal(nx, [4.0], [[3.0]], seed=1)]
    weights = [1.0 - share, share]
    found = barycenter(sources, n, source_weights=weights, n_steps=12, random_state=0)
    expected = 4.0 * share + (1.0 - share + 3.0 * share) * means
    np.testing.assert_allclose(np.sort(nx.host(found.atoms)[:, 0]), expected, atol=0.03)
    least = share * (1.0 - share) * (4.0**2 + 2.0**2)
    assert least < found.cost_interval[1]
    assert found.cost < 1.15 * least  # atoms are few
    errors = [float(result.value_stderr) for result in found.transports]  # independent
    assert found.cost_stderr == pytest.approx(np.hypot(*(np.array(weights) * errors)), rel=1e-6)
    assert 0.0 < found.cost_stderr < np.ptp(found.cost_interval) / (2.0 * 1.95)


def test_weights_of_sources_are_divided_by_their_sum():
    """They may be rounded: a third is the default of three."""
    options = {"sources": [np.random.default_rng(k).normal(size=(50, 2)) for k in range(3)]}
    options |= {"n_atoms": 4, "n_steps": 1, "random_state": 0}
    third = barycenter(**options, source_weights=np.full(3, 0.33333))
    np.testing.assert_allclose(third.source_weights, 1.0 / 3.0, rtol=1e-15)
    np.testing.assert_allclose(third.atoms, barycenter(**options).atoms, rtol=1e-6)


def test_barycenter_of_normal_laws_is_nearly_normal():
    """Agueh and Carlier, 2011, theorem 6.1: S = mean of (S^1/2 S_k S^1/2)^1/2."""
    roots = np.array([[[2.0, 0.0], [0.0, 0.5]], [[0.6, 0.5], [0.5, 1.5]]])
    C, S = roots @ roots, np.eye(2)
    for _ in range(50):
        half, inverse = linalg.sqrtm(S), linalg.inv(linalg.sqrtm(S))
        middle = np.mean([linalg.sqrtm(half @ c @ half) for c in C], axis=0)
        S = inverse @ middle @ middle @ inverse
    numpy = Backend("numpy", "float64")
    sources = [
        normal(numpy, mean, root, k) for k, (mean, root) in enumerate(zip(np.eye(2), roots, strict=True))
    ]
    found = barycenter(sources, 60, n_steps=10, random_state=0)
    np.testing.assert_allclose(found.atoms.mean(axis=0), 0.5, atol=0.02)
    covariance = np.cov(found.atoms.T, bias=True)
    np.testing.assert_allclose(covariance, S, atol=0.08 * np.trace(S))
    bures = [np.trace(S + c - 2.0 * linalg.sqrtm(linalg.sqrtm(S) @ c @ linalg.sqrtm(S))) for c in C]
    least = 0.5 + np.mean(bures)
    assert least < found.cost_interval[1]
    # what is missing of the spread of S lies within the cells
    assert found.cost_interval[0] < least + np.trace(S - covariance) * 2.0


def test_barycenter_of_one_source_is_its_quantiser():
    options = {"n_steps": 3, "random_state": 0, "n_points": 500}
    rows = np.random.default_rng(0).normal(size=(100, 2))
    one, other = barycenter([rows], 4, **options), quantize(rows, 4, **options)
    np.testing.assert_array_equal(one.atoms, other.atoms)
    assert one.cost == float(other.cost)


def test_barycenter_does_not_depend_on_the_order_of_the_sources(rng):
    rows = [rng.normal(size=(50, 2)) + k for k in range(2)]
    options = {"X_init": rows[0][:5], "n_points": 4000, "n_steps": 8, "random_state": 0}
    one, other = barycenter(rows, 5, **options), barycenter(rows[::-1], 5, **options)
    np.testing.assert_allclose(one.atoms, other.atoms, atol=0.15)


def test_fits_are_not_cut_off(monkeypatch):
    """Where atoms are many, a fit takes more than the passes that one may take in a run."""
    options = {"n_points": 800, "n_steps": 2, "random_state": 0}
    free = quantize(SobolSampler(2, random_state=0), 100, **options)
    monkeypatch.setattr(newton, "QUICK", 0)
    monkeypatch.setattr(newton, "CORRECTION", 0.1)
    bound = quantize(SobolSampler(2, random_state=0), 100, **options)
    np.testing.assert_array_equal(bound.atoms, free.atoms)
    assert free.transport.chi2 < 0.2  # 8 points an atom
    target = bound.transport._target
    x = target.center(SobolSampler(2, random_state=1).independent(800))
    values = (
        newton.maximize(SemiDual(target), x, 0.0 * target.weights, 0.0, max_work=w).measured.value
        for w in (None, np.inf)
    )
    assert next(values) < next(values)  # the bound is one


# Error bars.


def squares(x, y):
    """Squared distances of points of a line."""
    return (x - y.T) ** 2


def test_error_bars_hold_the_truth(rng):
    """Over 100 runs, 95% of the bars: not below 90%, what chance makes of so many."""
    atoms, source = rng.normal(size=(8, 1)), references.gauss_legendre(-8.0, 8.0, 600, normal_density)
    reg, x = 0.1 * cost_scale(atoms), np.linspace(-1.0, 1.0, 5)[:, None]
    result = solve_semidiscrete(atoms, "normal", reg=reg, random_state=0)
    truth = references.newton(source, atoms, np.full(8, 1.0 / 8), reg).potential
    chi = semidiscrete_atom_weights(atoms, source.nodes, truth, reg=reg)
    cost = source.mass @ np.sum(chi * squares(source.nodes, atoms), axis=1)
    images = semidiscrete_ot_map(atoms, x, truth, reg=reg)
    off = {"potential": [], "map": [], "cost": []}
    for seed in range(100):
        bars = ErrorBars(result, np.random.default_rng(seed).normal(size=(2000, 1)))
        estimate, stderr = bars.functional(squares)
        off["potential"].append((bars.potential - truth) / bars.potential_stderr)
        off["map"].append((bars.ot_map(x) - images) / bars.map_stderr(x))
        off["cost"].append((estimate - cost) / stderr)
    for values in off.values():
        assert np.mean(np.abs(values) < 1.96) > 0.9
        assert 0.75 < np.mean(np.square(values)) < 1.3  # and no wider than they need be


@uncrossed
@pytest.mark.parametrize(("reg", "n"), [(0.03, 2000), (0.001, 10_000)], ids=["wide", "sparse"])
def test_error_bars_of_many_atoms_are_those_of_the_matrices(reg, n, nx):
    """Beyond 256 atoms, by products and random vectors: to within their noise, slow modes included."""
    rng = np.random.default_rng(0)
    atoms, x = rng.random((300, 2)), rng.random((n, 2))
    result = solve_semidiscrete(nx.array(atoms), "unif", reg=reg, tol=0.2, random_state=0)
    bars = ErrorBars(result, nx.array(x), n_probes=200)
    chi = semidiscrete_atom_weights(atoms, x, nx.host(bars.potential), reg=reg)
    mean, products = chi.mean(axis=0), chi.T @ chi / len(x)
    inverse = np.linalg.pinv(np.diag(mean) - products, rcond=1e-9, hermitian=True) * reg
    covariance = inverse @ (products - np.outer(mean, mean)) @ inverse / len(x)
    expected = np.sqrt(np.diag(covariance))
    left = inverse @ (1.0 / 300 - mean)  # of Newton's method: the potential is that of the theorem
    assert np.max(np.abs(left) / expected) < 0.05
    ratio = nx.host(bars.potential_stderr) / expected
    assert ratio.mean() == pytest.approx(1.0, abs=0.12)
    assert ratio.std() < 0.15
    values = (x[:, :1] > 0.5) * atoms[:, 1]
    moved = np.mean(chi * values - chi * np.sum(chi * values, axis=1)[:, None], axis=0)
    influence = np.sum(chi * values, axis=1) - chi @ inverse @ moved / reg
    estimate, stderr = bars.functional(lambda x, y: (x[:, :1] > 0.5) * y[:, 1])
    assert estimate == pytest.approx(np.mean(np.sum(chi * values, axis=1)), rel=1e-3)
    assert stderr == pytest.approx(influence.std() / np.sqrt(len(x)), rel=0.02)


def test_error_bars_are_zero_where_there_is_no_weight(nx):
    weights, atoms = nx.array([0.5, 0.0, 0.5]), nx.array([[0.0], [3.0], [1.0]])
    result = solve_semidiscrete(atoms, "unif", weights, reg=0.2, random_state=0)
    x = nx.array(np.random.default_rng(0).random((300, 1)))
    found = nx.host(ErrorBars(result, x).potential_stderr)
    assert found[1] == 0.0
    np.testing.assert_allclose(found[0], found[2], rtol=1e-3)  # the potential is (p, -p)
