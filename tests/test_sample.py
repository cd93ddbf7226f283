"""Points that are swept again: what is left out, or kept, changes nothing that matters."""

import functools

import numpy as np
import pytest

from pot_semidiscrete import sample
from pot_semidiscrete._target import build_target
from pot_semidiscrete.curvature import Curvature
from pot_semidiscrete.kernels import _inplace, sweep
from pot_semidiscrete.newton import improve
from pot_semidiscrete.samplers import SobolSampler

REG = 0.002
LOST = np.exp(-sample.DEPTH)
METRICS = {"sqeuclidean": REG, "euclidean": 0.001, "cityblock": 0.001}  # and a small regularisation


@pytest.fixture
def small_groups(monkeypatch):
    """Groups of few points, so that small data have many."""
    for name, value in {"LEAST_ATOMS": 0, "LEAST_ENTRIES": 0, "GROUP": 32}.items():
        monkeypatch.setattr(sample, name, value)


def problem(nx, d=2, n=700, n_atoms=150, metric=None):
    rng = np.random.default_rng(d)
    weights = rng.dirichlet(np.full(n_atoms, 0.5)) + 1e-9
    target = build_target(
        nx.array(rng.random((n_atoms, d))), nx.array(weights / weights.sum()), metric
    ).detached
    x = target.local(nx.array(rng.random((n, d))))
    return target, sample.Sample(target, x), nx.array(0.1 * REG * rng.normal(size=n_atoms))


def full(nx, points, potential, reg=REG):
    """Weights, value and marginal of all points and atoms, in double precision."""
    target = points.target
    out = sweep(target, points.x, potential, reg, ("weights", "c_transform"))
    value = nx.host(out.c_transform).mean() + nx.host(target.weights) @ nx.host(potential)
    chi = nx.host(out.weights)
    return chi, value, chi.mean(axis=0)


def dense(nx, points, blocks):
    """Blocks of weights and the atoms of their columns as one matrix."""
    rows = []
    for block, near in blocks:
        chi = nx.host(block.dense())
        rows.append(np.zeros((chi.shape[0], points.target.weights.shape[0])))
        rows[-1][:, near] = chi
    return np.concatenate(rows)


# Groups.


@pytest.mark.parametrize("d", [1, 2, 3])
def test_groups_hold_all_points_and_lie_together(d, nx, small_groups):
    target = problem(nx, d)[0]
    before = nx.array(np.random.default_rng(d).normal(size=(700, d)))
    points = sample.Sample(target, before)
    assert points.grouped == nx.in_groups
    if not nx.in_groups:
        np.testing.assert_array_equal(nx.host(points.x), nx.host(before))
        return
    after = nx.host(points.x)
    np.testing.assert_array_equal(np.unique(nx.host(before), axis=0), np.unique(after, axis=0))
    center, half = nx.host(points.center), nx.host(points.half)
    for k, start in enumerate(range(0, 700, 32)):
        assert (np.abs(after[start : start + 32] - center[k]) <= half[k] * (1.0 + 1e-5) + 1e-6).all()
    assert np.median(half) < 0.2 * np.ptp(nx.host(before))


MOVES = {  # of potentials, in units of reg
    "none": 0.0,
    "small": 0.5 * np.random.default_rng(5).normal(size=150),
    "one up": 30.0 * (np.arange(150) == 7),
    "one down": -30.0 * (np.arange(150) == 7),
    "constant": 100.0,
    "large": 100.0 * np.random.default_rng(5).normal(size=150),
}


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("move", MOVES)
def test_groups_measure_what_all_atoms_do(move, metric, nx, small_groups):
    reg = METRICS[metric]
    target, points, base = problem(nx, metric=metric)
    potential = base + nx.array(reg * MOVES[move] * np.ones(150))
    value, marginal = points.measure(potential, reg)
    chi, expected, mass = full(nx, points, potential, reg)
    b = nx.host(target.weights)
    lost = 2.0 * LOST + 10.0 * nx.eps / reg  # and rounded
    assert abs(value - expected) < lost * (reg + abs(expected))
    np.testing.assert_allclose(nx.host(marginal), mass, rtol=lost, atol=lost * b.min())
    squares = nx.host(points.squares(potential, reg))
    np.testing.assert_allclose(squares, (chi**2).sum(axis=0), rtol=lost, atol=lost * b.min())
    near = points._near(potential, reg) if nx.in_groups else None
    if move != "large":
        assert (near is None) == (not nx.in_groups)
    for k, taken in enumerate([] if near is None else near):
        assert (chi[32 * k : 32 * (k + 1), ~taken] <= 1.01 * LOST * b[~taken]).all()


@pytest.mark.parametrize("shift", [30.0, 700.0])
def test_groups_far_away_keep_their_atoms(shift, nx, small_groups):
    """A 16th of the points so far away that the rounding of their costs is larger than `reg`."""
    rng = np.random.default_rng(0)
    target = build_target(nx.array(rng.random((300, 2)))).detached
    x = rng.random((640, 2))
    x[:40] += shift
    points = sample.Sample(target, target.local(nx.array(x)))
    value, marginal = points.measure(0.0 * target.weights, REG)
    _, expected, mass = full(nx, points, 0.0 * target.weights)
    assert value == pytest.approx(expected, rel=10.0 * nx.eps)
    np.testing.assert_allclose(nx.host(marginal).sum(), 1.0, rtol=1e-5)
    np.testing.assert_allclose(nx.host(marginal), mass, atol=LOST + 100.0 * nx.eps * shift / REG / 640)


@pytest.mark.parametrize("grouped", [True, False])
def test_measure_of_no_number_is_none(grouped, nx, request):
    if grouped:
        request.getfixturevalue("small_groups")
    _, points, base = problem(nx)
    points.measure(base, REG)
    assert np.isnan(points.measure(np.nan * base, REG)[0])


def test_a_large_regularisation_takes_all_atoms(nx, small_groups):
    _, points, base = problem(nx)
    if nx.in_groups:
        assert points._near(base, REG) is not None
        assert points._near(base, 100.0 * REG) is None
    value, _ = points.measure(base, 100.0 * REG)
    assert value == pytest.approx(full(nx, points, base, 100.0 * REG)[1], rel=10.0 * nx.eps)


def test_metrics_of_users_are_called_with_all_atoms(nx, small_groups, monkeypatch):
    monkeypatch.setattr(_inplace, "LEAST_COLUMNS", 1)  # tops are guessed of costs that are a product
    atoms = nx.array(np.random.default_rng(0).random((150, 2)))
    offset = nx.array(np.linspace(0.0, 1e-3, 150))
    metric = lambda x, y: ((x[:, None, :] - y[None, :, :]) ** 2).sum(-1) + offset[None, :]
    target = build_target(atoms, metric=metric).detached
    points = sample.Sample(target, nx.array(np.random.default_rng(1).random((700, 2))))
    assert not points.grouped
    assert improve(points, 0 * offset, REG).value > 0.0


# Weights that are kept.


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("rows", [64, 700])
@pytest.mark.parametrize("move", MOVES)
def test_kept_weights_measure_what_a_sweep_does(move, rows, threads, nx, monkeypatch):
    monkeypatch.setattr(sample, "block_rows", lambda *_: rows)
    if nx.name == "torch":  # one thread leaves sums to NumPy
        monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    target, points, base = problem(nx, d=5)
    assert points.has_room
    points.measure(base, REG)
    kept = points.kept
    if nx.kind == "torch":
        assert (kept.nx is kept.outer) == (threads > 1)
    potential = base + nx.array(REG * MOVES[move] * np.ones(150))
    reached = kept.reaches(potential, REG)
    assert reached or move == "large"
    value, marginal = points.measure(potential, REG)
    squares = nx.host(points.squares(potential, REG))
    assert points.kept is kept
    chi, expected, mass = full(nx, points, potential)
    b, lost = nx.host(target.weights), 20.0 * nx.eps / REG
    assert abs(value - expected) < lost * (REG + abs(expected))
    np.testing.assert_allclose(nx.host(marginal), mass, rtol=lost, atol=lost * b.min())
    np.testing.assert_allclose(squares, (chi**2).sum(axis=0), rtol=lost, atol=lost * b.min())


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "cosine", "callable"])
def test_weights_of_all_costs_are_kept(metric, nx):
    cost = (
        (lambda x, y: ((x[:, None, :] - y[None, :, :]) ** 2).sum(-1)) if metric == "callable" else metric
    )
    _, points, base = problem(nx, d=5, metric=cost)
    points.measure(base, REG)
    potential = base + nx.array(0.3 * REG * np.random.default_rng(5).normal(size=150))
    value, marginal = points.measure(potential, REG)
    assert points.kept.told
    _, expected, mass = full(nx, points, potential)
    lost = 20.0 * nx.eps / REG
    assert abs(value - expected) < lost * (REG + abs(expected))
    np.testing.assert_allclose(nx.host(marginal), mass, rtol=lost, atol=lost * 1e-9)


def test_nothing_is_kept_without_room(nx, monkeypatch):
    monkeypatch.setattr(sample, "LARGEST_KEPT", 150 * 700 - 1)
    _, points, base = problem(nx, d=5)
    found = points.measure(base, REG)
    assert points.kept is None
    monkeypatch.setattr(sample, "LARGEST_KEPT", 150 * 700)
    _, roomy, _ = problem(nx, d=5)
    kept = roomy.measure(base, REG)
    assert roomy.kept is not None
    assert kept[0] == pytest.approx(found[0], rel=10.0 * nx.eps)


def test_kept_weights_are_those_of_one_regularisation(nx):
    _, points, base = problem(nx, d=5)
    for reg in (REG, 10.0 * REG, 0.0):
        expected = full(nx, points, base, reg)[1]
        assert points.measure(base, reg)[0] == pytest.approx(expected, rel=20.0 * nx.eps)


@pytest.fixture(params=["grouped", "kept", "neither"])
def kind(request, monkeypatch):
    """How weights come about, of points in small blocks."""
    if request.param == "grouped":
        request.getfixturevalue("small_groups")
    monkeypatch.setattr(sample, "LARGEST_KEPT", 10**9 if request.param == "kept" else 0)
    monkeypatch.setattr(sample, "block_rows", lambda *_: 64)
    return request.param


@pytest.mark.parametrize(("step", "first"), [(1, 0), (3, 0), (9, 4), (701, 3)])
def test_weights_are_of_every_so_manieth_point(step, first, kind, nx):
    _, points, base = problem(nx)
    points.measure(base, REG)
    potential = base + nx.array(0.3 * REG * np.random.default_rng(5).normal(size=150))
    found = dense(nx, points, points.weights(potential, REG, step, first))
    chi = full(nx, points, potential)[0][first::step]
    np.testing.assert_allclose(found, chi, atol=2.0 * LOST + 10.0 * nx.eps / REG)


def test_products_with_blocks_are_those_with_their_weights(kind, nx):
    """One atom is raised, so that the factors of all others are small."""
    rng = np.random.default_rng(5)
    target, points, base = problem(nx)
    points.measure(base, REG)
    raised = np.zeros(150)
    raised[np.argmin(nx.host(target.weights))] = 12.0 * REG
    columns, rows = rng.normal(size=(3, 150)), rng.normal(size=(3, 700))
    close = functools.partial(np.testing.assert_allclose, rtol=1e3 * nx.eps, atol=1e3 * nx.eps)
    held = lambda v: v if points.grouped else nx.array(v)
    kept = points.kept
    for block, near in points.weights(base + nx.array(raised), REG, 3, 1):
        chi, v = nx.host(block.dense()), columns[:, near]
        u, mean = rows[:, : len(chi)], chi.mean(axis=0)
        close(nx.host(block.colsquare(held(mean))), ((chi - mean) ** 2).sum(axis=0))
        np.testing.assert_array_equal(nx.host(block.dense()), chi)  # nothing was spent
        close(nx.host(block.colsum()), chi.sum(axis=0))
        close(nx.host(block.over_atoms(held(v))), v @ chi.T)
        close(nx.host(block.over_points(held(u))), u @ chi)
    assert (kept is not None) == (kind == "kept")
    assert points.kept is kept  # none were made anew


def test_weights_far_from_those_kept_are_kept_anew(nx):
    _, points, base = problem(nx, d=5)
    points.measure(base, REG)
    kept = points.kept
    potential = base + nx.array(1e4 * REG * np.random.default_rng(5).normal(size=150))
    found = dense(nx, points, points.weights(potential, REG))
    assert points.kept is not kept
    np.testing.assert_allclose(found, full(nx, points, potential)[0], atol=1e4 * nx.eps)


@pytest.mark.parametrize("n", [64, 100, 128, 500])
def test_a_part_of_quasi_random_points_is_as_even_as_all_of_them(n):
    x = SobolSampler(2, random_state=0)(1024)
    part = sample.spread(x, n)
    assert n / 2 <= len(part) <= n
    for axis in (0, 1):
        halves = (part[:, axis] < 0.5).mean()
        assert abs(halves - 0.5) < 2.0 / len(part) ** 0.75  # 0 or 1 where the spacing is even


# What Newton's method makes of them.


def test_curvature_is_that_of_all_weights(kind, nx):
    _, points, potential = problem(nx)
    points.measure(potential - nx.array(REG * np.linspace(0.0, 5.0, 150)), REG)
    curvature = Curvature(points, potential, REG)
    chi, _, mass = full(nx, points, potential)
    vectors = np.random.default_rng(3).normal(size=(4, 150))
    b, rounding = nx.host(points.target.weights), 100.0 * nx.eps / REG**0.5
    np.testing.assert_allclose(nx.host(curvature.mean), mass, rtol=rounding, atol=2.0 * LOST * b.max())
    expected = nx.host(curvature.diagonal) * vectors - vectors @ chi.T @ chi / len(chi)
    scale = np.abs(expected).max()
    product = nx.host(curvature.product(nx.array(vectors)))
    np.testing.assert_allclose(product, expected, atol=(rounding + 10.0 * LOST) * scale)
    trace = REG * float((chi.var(axis=0) / nx.host(curvature.diagonal)).sum())
    assert curvature.least_trace() == pytest.approx(trace, rel=1e-3)


@pytest.mark.parametrize("d", [2, 5])
def test_improving_with_less_work_reaches_the_same_maximum(d, nx, monkeypatch, small_groups):
    monkeypatch.setattr("pot_semidiscrete.curvature.DENSE", 0)
    values = []
    for kept, least in ((0, 10**9), (0, 0), (10**9, 10**9)):
        monkeypatch.setattr(sample, "LARGEST_KEPT", kept)
        monkeypatch.setattr(sample, "LEAST_ENTRIES", least)
        target, points, potential = problem(nx, d, n=3000)
        found = improve(points, potential, REG, 1e-3)
        chance = found.trace / (2.0 * 3000)
        values.append(sample.measure(target, points.x, found.potential, REG)[0])
        assert found.value == pytest.approx(values[-1], abs=0.01 * chance)
    assert np.ptp(values) < 0.02 * chance
