"""Points that are swept again: leaving out atoms that do not matter changes nothing that does."""

import numpy as np
import pytest

from pot_semidiscrete import newton, sample
from pot_semidiscrete._target import build_target
from pot_semidiscrete.kernels import sweep

REG = 0.002
LOST = np.exp(-sample.DEPTH)


@pytest.fixture(autouse=True)
def small_groups(monkeypatch):
    """Groups of few points, so that small data have many."""
    for name, value in {"LEAST_ATOMS": 0, "LEAST_ENTRIES": 0, "GROUP": 64, "SMALL": 16}.items():
        monkeypatch.setattr(sample, name, value)


def problem(nx, d=2, n=700, n_atoms=150, metric=None):
    rng = np.random.default_rng(d)
    weights = rng.dirichlet(np.full(n_atoms, 0.5)) + 1e-9
    target = build_target(
        nx.array(rng.random((n_atoms, d))), nx.array(weights / weights.sum()), metric
    ).detached
    x = target.local(nx.array(rng.random((n, d))))
    return target, sample.ordered(target, x), nx.array(0.1 * REG * rng.normal(size=n_atoms))


def full(nx, target, x, potential):
    """Weights, value and marginal, in double precision."""
    out = sweep(target, x, potential, REG, ("weights", "c_transform"))
    value = nx.host(out.c_transform).mean() + nx.host(target.weights) @ nx.host(potential)
    chi = nx.host(out.weights)
    return chi, value, chi.mean(axis=0)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_order_keeps_the_points_and_brings_near_ones_together(d, nx):
    target = problem(nx, d)[0]
    rng = np.random.default_rng(d)
    before = nx.array(rng.normal(size=(700, d)))
    after = nx.host(sample.ordered(target, before))
    np.testing.assert_array_equal(np.unique(nx.host(before), axis=0), np.unique(after, axis=0))
    if not nx.in_groups:
        np.testing.assert_array_equal(after, nx.host(before))
        return
    step = lambda points: np.linalg.norm(np.diff(points, axis=0), axis=1).mean()
    assert step(after) < 0.5 * step(nx.host(before))


MOVES = {  # of potentials, in units of reg, and whether all atoms are then taken
    "none": (0.0, False),
    "small": (0.5 * np.random.default_rng(5).normal(size=150), False),
    "one up": (30.0 * (np.arange(150) == 7), False),
    "one down": (-30.0 * (np.arange(150) == 7), False),
    "constant": (100.0, False),
    "large": (30.0 * np.random.default_rng(5).normal(size=150), True),
}


@pytest.mark.parametrize("move", MOVES)
def test_measure_is_that_of_all_atoms(move, nx):
    target, x, base = problem(nx)
    found, (raised, whole) = sample.Sample(target, x, REG), MOVES[move]
    found.measure(base)
    potential = base + nx.array(REG * raised * np.ones(150))
    near, b = found._near(potential), nx.host(target.weights)
    value, marginal = found.measure(potential)
    chi, expected, mass = full(nx, target, x, potential)
    lost = 2.0 * LOST + 10.0 * nx.eps / REG  # and rounded
    assert abs(value - expected) < lost * (REG + abs(expected))
    np.testing.assert_allclose(nx.host(marginal), mass, rtol=lost, atol=lost * b.min())
    assert (near is None) == (whole or not nx.in_groups)
    for k, atoms in enumerate(near or []):
        out = np.setdiff1d(np.arange(150), atoms)
        assert (chi[64 * k : 64 * (k + 1), out] < 1.01 * LOST * b[out]).all()


def test_measure_of_no_number_is_none(nx):
    target, x, base = problem(nx)
    found = sample.Sample(target, x, REG)
    found.measure(base)
    assert np.isnan(found.measure(np.nan * base)[0])


def test_a_large_regularisation_has_no_groups(nx):
    target, x, base = problem(nx)
    found = sample.Sample(target, x, 100.0 * REG)
    found.measure(base)
    assert not found.grouped
    assert found.heights is None


def test_metrics_of_users_are_called_with_all_atoms(nx):
    atoms = nx.array(np.random.default_rng(0).random((150, 2)))
    offset = nx.array(np.linspace(0.0, 1e-3, 150))
    metric = lambda x, y: ((x[:, None, :] - y[None, :, :]) ** 2).sum(-1) + offset[None, :]
    target = build_target(atoms, metric=metric).detached
    found = newton.improve(target, nx.array(np.random.default_rng(1).random((700, 2))), 0 * offset, REG)
    assert found.value > 0.0


def test_groups_are_the_weights(nx):
    target, x, potential = problem(nx)
    chi = sweep(target, x, potential, REG, ("weights",)).weights
    found, whole = np.zeros(chi.shape), nx.host(chi)
    for k, (part, near) in enumerate(sample.groups(target, chi)):
        found[16 * k : 16 * k + part.shape[0], near] = part
    assert (found <= whole).all()
    assert (whole - found < LOST * nx.host(target.weights)).all()
    if nx.in_groups:  # of points that lie together
        assert (found > 0).mean() < 0.6


def test_curvature_of_groups_is_that_of_all_weights(nx):
    target, x, potential = problem(nx)
    curvature = newton.Curvature(target, x, potential, REG)
    chi, _, mass = full(nx, target, x, potential)
    vectors = np.random.default_rng(3).normal(size=(4, 150))
    b, rounding = nx.host(target.weights), 100.0 * nx.eps
    np.testing.assert_allclose(nx.host(curvature.mean), mass, rtol=rounding, atol=2.0 * LOST * b.max())
    expected = nx.host(curvature.diagonal) * vectors - vectors @ chi.T @ chi / len(chi)
    scale = np.abs(expected).max()
    product = nx.host(curvature.product(nx.array(vectors)))
    np.testing.assert_allclose(product, expected, atol=(rounding + 10.0 * LOST) * scale)
    trace = REG * float((chi.var(axis=0) / nx.host(curvature.diagonal)).sum())
    assert curvature.least_trace() == pytest.approx(trace, rel=1e-3)


def test_improving_by_groups_reaches_the_same_maximum(nx, monkeypatch):
    monkeypatch.setattr(newton, "DENSE", 0)
    target, x, potential = problem(nx, n=3000)
    values = []
    for least in (0, 10**9):
        monkeypatch.setattr(sample, "LEAST_ENTRIES", least)
        found = newton.improve(target, x, potential, REG, 1e-3)
        chance = found.trace / (2.0 * 3000)
        values.append(sample.measure(target, x, found.potential, REG)[0])
        assert found.value == pytest.approx(values[-1], abs=0.01 * chance)
    assert abs(values[0] - values[1]) < 0.01 * chance
