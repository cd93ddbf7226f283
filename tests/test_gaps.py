"""Atoms that own their points entirely are given the right number of them."""

import numpy as np
import pytest
from scipy.special import expit

from pot_semidiscrete.curvature import Curvature, DenseCurvature
from pot_semidiscrete.gaps import across_gaps, shift_to
from pot_semidiscrete.kernels import sweep
from pot_semidiscrete.newton import improve
from pot_semidiscrete.sample import Sample
from tests.clouds import build, cloud

REG = 1e-3
PLACES = np.array([-50.0, -40.0, -30.0, -20.0, -10.0])  # of points far out, beyond gaps


def tail(nx, share=3.5):
    """A target and points on the line; the first atom is to have `share` of the points far out."""
    rng = np.random.default_rng(0)
    x = np.concatenate([PLACES, rng.random(395)])[:, None]
    atoms = np.array([[-2.0], [0.2], [0.4], [0.6], [0.8]])
    weights = np.array([share, *(4 * [(400.0 - share) / 4])]) / 400.0
    target = build(nx, atoms, weights)
    return target, Sample(target, target.local(nx.array(x)))


@pytest.mark.parametrize("share", [0.6, 1.0, 2.5, 4.9])
def test_an_atom_gets_its_part_of_the_points_beyond_a_gap(share, nx):
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
    moved = across_gaps(points, potential, marginal, REG, np.zeros(5))
    better, marginal = points.measure(moved, REG)
    assert better > value
    np.testing.assert_allclose(400.0 * nx.host(marginal), 400.0 * nx.host(target.weights), atol=0.5)
    assert 400.0 * nx.host(marginal)[0] == pytest.approx(3.5, abs=0.05)


def test_nothing_moves_where_all_masses_are_right(nx):
    target, points = tail(nx)
    found = improve(points, 0.0 * target.weights, REG)
    facts = (found.potential, found.marginal, REG)
    assert across_gaps(points, *facts, found.curvature.shared()) is None
    assert across_gaps(points, found.potential, target.weights, REG, np.zeros(5)) is None


@pytest.mark.parametrize("kind", [Curvature, DenseCurvature])
def test_what_is_shared_is_the_mean_of_products(kind, nx):
    target, x = cloud(nx)
    chi = nx.host(sweep(target, x, 0.0 * target.weights, 0.1, ("weights",)).weights)[::3]
    found = kind(Sample(target, x), 0.0 * target.weights, 0.1, 3)
    one_more = 0.0 if kind is DenseCurvature else 1.0 / found.n
    np.testing.assert_allclose(found.shared(), (chi * (1.0 - chi)).mean(axis=0) + one_more, rtol=1e-4)


@pytest.mark.parametrize("number", [0.01, 1.0, 2.5, 49.99])
def test_shifted_odds_have_the_sum(number):
    odds = np.sort(np.random.default_rng(0).normal(scale=300.0, size=50))
    assert expit(odds + shift_to(odds, number)).sum() == pytest.approx(number, rel=1e-6)
