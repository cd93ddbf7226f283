"""Measures of generated points and images."""

import itertools

import numpy as np
import ot
import pytest
from scipy.linalg import sqrtm
from sklearn.datasets import load_digits

from pot_semidiscrete.metrics import (
    Classifier,
    Judge,
    class_shares,
    covariance_ratio,
    coverage,
    entropy,
    frechet_distance,
    nearest_cost,
    precision_recall,
    semi_dual_value,
    transport_cost,
)

MEASURES = transport_cost, covariance_ratio, nearest_cost, frechet_distance
OTHER_SHAPES = ((5, 2), (5, 3)), ((5,), (5,)), ((0, 2), (5, 2)), ((5, 4), (5, 2, 2))


def test_transport_cost_is_the_best_permutation(rng):
    x, y = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    best = min(
        ((x - y[list(order)]) ** 2).sum(axis=1).mean() for order in itertools.permutations(range(5))
    )
    assert transport_cost(x, y) == pytest.approx(best, rel=1e-12)
    assert transport_cost(x, y, unit=4.0) == pytest.approx(best / 4, rel=1e-12)
    assert transport_cost(x.astype("float32"), y) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("unit", [1.0, 4.0])
def test_semi_dual_value_is_the_regularised_cost(unit, rng):
    """Of a law on itself: that of ``ot.sinkhorn`` between large samples."""
    y, x = rng.normal(size=(50, 2)), rng.normal(size=(3000, 2))
    value, (low, high) = semi_dual_value(
        lambda n: x[rng.integers(len(x), size=n)], y, 0.5, unit=unit, n_batches=100
    )
    expected = ot.solve(ot.dist(x, y), reg=0.5, reg_type="KL").value / unit
    assert low < expected < high
    assert value == pytest.approx(expected, rel=0.05)
    assert high - low < 0.2 * expected


def test_transport_cost_splits_masses():
    """Two points against three: thirds and halves."""
    x, y = np.array([[0.0], [1.0]]), np.array([[0.0], [1.0], [2.0]])
    # a third stays at 0, a sixth goes from 0 to 1, a sixth stays at 1, a third from 1 to 2
    assert transport_cost(x, y) == pytest.approx(1 / 6 + 1 / 3, rel=1e-12)


def test_transport_cost_of_a_set_to_itself_is_zero(rng):
    x = rng.normal(size=(40, 2))
    assert transport_cost(x, rng.permutation(x)) == pytest.approx(0, abs=1e-12)


def test_transport_cost_of_a_translation_is_its_square(rng):
    x = rng.normal(size=(40, 2))
    assert transport_cost(x, x + [3.0, 4.0]) == pytest.approx(25, rel=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
def test_points_may_be_images(measure, rng):
    x, y = rng.random((30, 3, 4)), rng.random((40, 3, 4))
    assert measure(x, y) == measure(x.reshape(30, 12), y.reshape(40, 12))


@pytest.mark.parametrize("shapes", OTHER_SHAPES, ids=str)
@pytest.mark.parametrize("measure", MEASURES)
def test_points_of_other_shapes_are_refused(measure, shapes):
    with pytest.raises(ValueError, match="expected points of one shape"):
        measure(*map(np.zeros, shapes))


def test_covariance_ratio(rng):
    x, y = rng.normal(size=(30, 4)), rng.normal(size=(20, 4))
    expected = np.trace(np.cov(x.T)) / np.trace(np.cov(y.T))
    assert covariance_ratio(x, y) == pytest.approx(expected, rel=1e-12)
    assert covariance_ratio(x + 7.0, y) == pytest.approx(expected, rel=1e-9)
    assert covariance_ratio(3.0 * x, y) == pytest.approx(9 * expected, rel=1e-12)
    assert covariance_ratio(x, x) == 1.0
    assert covariance_ratio(np.ones((30, 4)), y) == 0.0


def test_nearest_cost(rng):
    """More points than a block holds."""
    x, y = rng.normal(size=(1203, 3)), rng.normal(size=(40, 3))
    expected = ((x[:, None] - y) ** 2).sum(axis=2).min(axis=1).mean()
    assert nearest_cost(x, y) == pytest.approx(expected, rel=1e-9)
    assert nearest_cost(x, y, unit=4.0) == pytest.approx(expected / 4, rel=1e-9)
    assert nearest_cost(x, np.concatenate([y, x])) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("measure", [coverage, precision_recall])
def test_neighbors_need_more_points_than_k(measure, rng):
    x, y = rng.normal(size=(9, 2)), rng.normal(size=(6, 2))
    measure(x, y, k=5)
    with pytest.raises(ValueError, match="y: expected 7 points or more, received 6"):
        measure(x, y, k=6)


@pytest.mark.parametrize("measure", MEASURES)
def test_measures_know_no_unit_and_no_origin(measure, rng):
    x, y = rng.normal(size=(50, 3)), 2.0 * rng.normal(size=(60, 3)) + 1.0
    power, found = 0 if measure is covariance_ratio else 2, measure(x, y)
    for scale in (2.0**-40, 2.0**40):
        assert measure(scale * x, scale * y) == pytest.approx(scale**power * found, rel=1e-9)
    assert measure(x + 1e7, y + 1e7) == pytest.approx(found, rel=1e-6)
    assert frechet_distance(2.0**40 * x, 2.0**40 * x) == 0.0


@pytest.mark.parametrize("shift", [0, 10**8])
def test_whole_numbers_are_compared_exactly(shift, rng):
    """Ties count, wherever points are, and copies are at a distance of 0."""
    squares = lambda x, y: ((x[:, None] - y) ** 2).sum(axis=2)
    within = lambda x, y, k: squares(x, y) <= np.sort(squares(y, y), axis=1)[:, k]
    for _ in range(20):
        x, y = rng.integers(6, size=(40, 3)), rng.integers(6, size=(37, 3))
        moved = x + float(shift), y + float(shift)
        expected = within(x, y, 3).any(axis=1).mean(), within(y, x, 3).any(axis=1).mean()
        assert precision_recall(*moved, k=3) == expected
        assert coverage(*moved, k=5) == within(x, y, 5).any(axis=0).mean()
        assert nearest_cost(*moved) == pytest.approx(squares(x, y).min(axis=1).mean(), rel=1e-15)
        assert nearest_cost(moved[0], moved[0][::-1]) == 0.0


def test_frechet_distance_is_its_formula(rng):
    x, y = rng.normal(size=(50, 4)), rng.normal(size=(30, 4)) @ rng.normal(size=(4, 4)) + 1
    cx, cy = np.cov(x.T), np.cov(y.T)
    expected = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum()
    expected += np.trace(cx + cy - 2 * sqrtm(cx @ cy).real)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(y, x) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(x, x + [3.0, 4.0, 0.0, 0.0]) == pytest.approx(25, rel=1e-9)
    assert frechet_distance(x, rng.permutation(x)) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_degenerate_laws(rng):
    """Constant features, as those of a dead unit: their covariance is singular."""
    x, y = rng.normal(size=(50, 3)) * [1, 1, 0], rng.normal(size=(50, 3)) * [0, 1, 0]
    assert frechet_distance(x, 0 * x) == pytest.approx(
        (x.mean(axis=0) ** 2).sum() + x.var(axis=0, ddof=1).sum(), rel=1e-9
    )
    assert np.isfinite(frechet_distance(x, y))


def test_shares_and_entropy():
    shares = class_shares(np.array([0, 0, 2, 3]), 5)
    np.testing.assert_array_equal(shares, [0.5, 0, 0.25, 0.25, 0])
    assert entropy(shares) == pytest.approx(1.5 * np.log(2), rel=1e-12)
    assert entropy(np.full(10, 0.1)) == pytest.approx(np.log(10), rel=1e-12)
    assert entropy(np.array([0.0, 1.0])) == 0
    assert entropy(np.full(3, 0.33333)) == pytest.approx(np.log(3), rel=1e-12)  # of rounded shares


@pytest.fixture(scope="module")
def digits():
    """Shuffled digits in [0, 1], and their classes."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    return digits.images[order] / 16.0, digits.target[order]


@pytest.fixture(scope="module")
def judge(digits):
    """Of the last 447 digits, the others being known."""
    pytest.importorskip("torch")
    images, labels = digits
    classifier = Classifier(images[:1350], labels[:1350], n_steps=300)
    return Judge(images[:1350], images[1350:], classifier)


def test_classifier_recognises_digits(judge, digits):
    images, labels = digits
    assert judge.classifier.n_classes == 10
    assert (judge.classifier.labels(images[1350:]) == labels[1350:]).mean() > 0.9


def test_images_in_colour_are_judged(digits):
    """Digits of the first 5 classes in red, the others in blue: their pixels alone tell who is who."""
    pytest.importorskip("torch")
    images, labels = digits
    tints = np.where(labels[:, None] < 5, [1.0, 0.0, 0.2], [0.0, 0.2, 1.0])
    images = images[:, None] * tints[:, :, None, None]
    classifier = Classifier(images[:1350], labels[:1350] // 5, n_steps=100)
    assert (classifier.labels(images[1350:]) == labels[1350:] // 5).all()
    judge = Judge(images[:1350], images[1350:], classifier)
    swapped = judge(images[:447, ::-1])
    assert swapped["frechet"] > 10 * judge.floor["frechet"]
    with pytest.raises(ValueError, match=r"images: expected images of shape \(3, 8, 8\)"):
        judge(images[:447, 0])


def test_classifier_has_a_seed_of_its_own(digits):
    torch = pytest.importorskip("torch")
    images, labels = digits
    state = torch.random.get_rng_state()
    one, two, other = (
        Classifier(images, labels, n_steps=3, random_state=seed).features(images[:9])
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(one, two)
    assert abs(one - other).max() > 0


def test_floor_is_what_real_images_get(judge):
    floor = judge.floor
    assert floor["covariance"] == pytest.approx(1, abs=0.05)
    assert floor["entropy"] > 2.28
    assert floor["rarest"] > 0.05
    expected = transport_cost(judge.train, judge.held_out, judge.unit)
    assert floor["cost"] == pytest.approx(expected, rel=0.15)


def test_each_fault_has_a_measure(judge, digits):
    """Fewer classes, averages, noise and copies."""
    images, labels = digits
    train, floor = images[:1350], judge.floor
    copies = judge(train[:447])
    assert copies["nearest"] == pytest.approx(0, abs=1e-9)
    assert floor["nearest"] > 0.05
    few = judge(train[labels[:1350] < 5][:447])
    assert few["rarest"] < 0.01
    assert few["entropy"] < 1.8
    assert few["frechet"] > 10 * floor["frechet"]
    near = np.argsort(((train[:447, None] - train) ** 2).sum(axis=(2, 3)), axis=1)[:, :6]
    blurred = judge(train[near].mean(axis=1))
    assert blurred["cost"] < floor["cost"]
    assert blurred["covariance"] < 0.85
    assert blurred["frechet"] > 1.2 * floor["frechet"]
    noise = judge(np.random.default_rng(0).uniform(size=(447, 8, 8)))
    assert noise["cost"] > 1.5 * floor["cost"]
    assert noise["frechet"] > 10 * floor["frechet"]
