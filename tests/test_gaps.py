"""Atoms that own their points entirely are given the right number of them."""

import numpy as np
import pytest
from scipy.special import expit

from pot_semidiscrete import newton
from pot_semidiscrete.curvature import Curvature, DenseCurvature
from pot_semidiscrete.gaps import across_gaps, shift_to
from pot_semidiscrete.kernels import sweep
from pot_semidiscrete.newton import improve
from pot_semidiscrete.sample import Sample
from tests.clouds import build, cloud

REG = 1e-3
PLACES = np.array([-50.0, -40.0, -30.0, -20.0, -10.0])  # of points far out, beyond gaps


def tail(nx, share=3.5, scale=1.0):
    """A target and points on the line; the first atom is to have `share` of the points far out."""
    rng = np.random.default_rng(0)
    x = np.concatenate([scale * PLACES, rng.random(395)])[:, None]
    atoms = np.array([[-2.0], [0.2], [0.4], [0.6], [0.8]])
    weights = np.array([share, *(4 * [(400.0 - share) / 4])]) / 400.0
    target = build(nx, atoms, weights)
    return target, Sample(target, target.local(nx.array(x)))


@pytest.mark.parametrize("share", [0.6, 1.0, 2.5, 4.9])
def test_an_atom_gets_its_part_of_the_points_beyond_a_gap(share, nx, monkeypatch):
    monkeypatch.setattr("pot_semidiscrete.gaps.CHANCE", 0.02)
    target, points = tail(nx, share)
    found = improve(points, 0.0 * target.weights, REG)
    marginal = nx.host(points.measure(found.potential, REG)[1])
    assert 400.0 * marginal[0] == pytest.approx(share, abs=0.1)


@pytest.mark.parametrize(("raised", "number"), [(-300.0, 0.0), (300.0, 400.0)])
def test_gaps_are_crossed_at_once(raised, number, nx):
    """From no points, or all of them, to 3.5."""
    target, points = tail(nx)
    potential = improve(points, 0.0 * target.weights, REG).potential
    potential = potential + nx.array(raised * np.array([1.0, 0.0, 0.0, 0.0, 0.0]))
    value, marginal = points.measure(potential, REG)
    assert 400.0 * nx.host(marginal)[0] == pytest.approx(number, abs=0.01)
    moved = across_gaps(points, potential, marginal, REG, Curvature(points, potential, REG))
    better, marginal = points.measure(moved, REG)
    assert better > value
    np.testing.assert_allclose(400.0 * nx.host(marginal), 400.0 * nx.host(target.weights), atol=1.0)
    assert nx.host(moved) @ nx.host(target.weights) == pytest.approx(0.0, abs=1e3 * nx.eps)
    assert 400.0 * nx.host(marginal)[0] == pytest.approx(3.5, abs=0.05)


def test_nothing_moves_where_all_masses_are_right(nx):
    target, points = tail(nx)
    found = improve(points, 0.0 * target.weights, REG)
    assert newton._beyond_gaps(points, found, newton.ENOUGH) is None
    assert across_gaps(points, found.potential, target.weights, REG, found.curvature) is None


@pytest.mark.parametrize(
    "setting",
    [
        {"gaps.SHARED": 0.0, "curvature.DENSE": 0, "curvature.USUAL_STORE": 0},
        {"curvature.DENSE_WORK": 133 * 25},
    ],
)
def test_gaps_are_seen_by_all_points(setting, nx64, monkeypatch):
    """The curvature is of a part of them, among which there may be none near a gap, or none far out."""
    for name, value in {"gaps.CHANCE": 0.02, **setting}.items():
        monkeypatch.setattr(f"pot_semidiscrete.{name}", value)
    target, points = tail(nx64)
    found = improve(points, 0.0 * target.weights, REG)
    assert found.curvature.step > 1
    assert 400.0 * nx64.host(found.marginal)[0] == pytest.approx(3.5, abs=0.1)


def test_far_points_do_not_round_the_others(nx, monkeypatch):
    """In single precision, costs of points at 500 are rounded by 20 times the regularisation."""
    monkeypatch.setattr("pot_semidiscrete.gaps.CHANCE", 0.02)
    target, points = tail(nx, scale=10.0)
    found = improve(points, 0.0 * target.weights, REG)
    assert 400.0 * nx.host(found.marginal)[0] == pytest.approx(3.5, abs=0.1)


def test_many_atoms_are_cut_off(nx64):
    """Round clusters, each with an atom, and not its number of points: more than are moved at a time."""
    rng, places = np.random.default_rng(0), 10.0 * np.arange(12)[:, None]
    x = rng.choice(places[:, 0], size=(1200, 1)) + 0.01 * rng.normal(size=(1200, 1))
    target = build(nx64, places)
    points = Sample(target, target.local(nx64.array(x)))
    found = improve(points, 0.0 * target.weights, REG)
    assert 1200.0 * np.abs(nx64.host(found.marginal) - 1.0 / 12.0).max() < 10.0  # by chance


def test_users_metrics_are_asked_for_all_atoms(nx):
    def metric(x, y):
        assert y.shape[0] == 5
        return (x - y.T) ** 2

    x = np.concatenate([PLACES, np.random.default_rng(0).random(395)])[:, None]
    weights = np.array([3.5, *(4 * [99.125])]) / 400.0
    target = build(nx, [[-2.0], [0.2], [0.4], [0.6], [0.8]], weights, metric)
    assert improve(Sample(target, nx.array(x)), 0.0 * target.weights, REG).value > 0.0


def test_nothing_is_looked_for_with_few_points_for_each_atom(nx, monkeypatch):
    calls = []
    monkeypatch.setattr(newton, "across_gaps", lambda *facts: calls.append(facts))
    for n, n_calls in ((59, 0), (60, 1)):
        target, x = cloud(nx, n=n)
        improve(Sample(target, x), 0.0 * target.weights, 0.1)
        assert len(calls) == n_calls


@pytest.mark.parametrize("kind", [Curvature, DenseCurvature])
def test_what_is_shared_is_the_mean_of_products(kind, nx):
    target, x = cloud(nx)
    chi = nx.host(sweep(target, x, 0.0 * target.weights, 0.1, ("weights",)).weights)[::3]
    found = kind(Sample(target, x), 0.0 * target.weights, 0.1, 3)
    np.testing.assert_allclose(found.shared(), (chi * (1.0 - chi)).mean(axis=0), rtol=1e-4)


@pytest.mark.parametrize("number", [0.01, 1.0, 2.5, 49.99])
def test_shifted_odds_have_the_sum(number):
    odds = np.sort(np.random.default_rng(0).normal(scale=300.0, size=50))
    assert expit(odds + shift_to(odds, number)).sum() == pytest.approx(number, rel=1e-6)
