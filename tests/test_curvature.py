"""Curvature of points: against dense formulas, and where few points make it noise."""

import math

import numpy as np
import pytest

from pot_semidiscrete import sample
from pot_semidiscrete._target import build_target
from pot_semidiscrete.curvature import (
    DENSE,
    FLAT,
    N_PROBES,
    PURITY,
    REST,
    Curvature,
    DenseCurvature,
    Told,
    curvature_of,
    inverse_of,
    probes,
    smoothing,
    trace_of,
)
from pot_semidiscrete.kernels import sweep
from pot_semidiscrete.newton import improve
from pot_semidiscrete.sample import Sample, measure
from tests.backends import counted
from tests.clouds import REG, build, cloud, dense, law, near, unstable


def unit_gradients(nx, target):
    """A vector for each atom, of sum 0."""
    b = nx.host(target.weights)
    z = np.diag(np.sqrt(len(b) * b))
    return nx.array(z - z.sum(axis=1, keepdims=True) * b)


def test_product_is_the_dense_hessian_times_reg(nx64):
    """By the formula, and by differences of the marginal."""
    target, x = cloud(nx64)
    potential = near(nx64, target, x, REG)
    vectors = np.random.default_rng(1).normal(size=(3, 30))
    found = nx64.host(Curvature(Sample(target, x), potential, REG).product(nx64.array(vectors)))
    np.testing.assert_allclose(found, vectors @ dense(nx64, target, x, potential, REG)[1], atol=1e-12)
    for vector, image in zip(vectors, found, strict=True):
        ends = [
            nx64.host(measure(target, x, potential + nx64.array(h * vector), REG)[1])
            for h in (1e-5, -1e-5)
        ]
        np.testing.assert_allclose(REG * (ends[0] - ends[1]) / 2e-5, image, atol=1e-8)


@pytest.mark.parametrize("kind", [Curvature, DenseCurvature])
def test_damping_adds_a_share_of_the_diagonal(kind, nx64, monkeypatch):
    """The damped solution, put into the damped product, gives the right-hand side."""
    monkeypatch.setattr("pot_semidiscrete.curvature.REST", 1e-3)
    target, x = cloud(nx64)
    curvature = kind(Sample(target, x), near(nx64, target, x, REG), REG)
    right, diagonal = unit_gradients(nx64, target), nx64.host(curvature.diagonal)
    solution = curvature.invert(right, 0.5)
    back = nx64.host(curvature.product(solution)) + 0.5 * diagonal * nx64.host(solution)
    np.testing.assert_allclose(back, nx64.host(right), atol=0.01 * np.abs(nx64.host(right)).max())
    larger = nx64.host(curvature.solve(right, 0.0))
    assert (larger**2).sum() > 2.0 * (nx64.host(curvature.solve(right, 0.5)) ** 2).sum()


@pytest.mark.parametrize("kind", [Curvature, DenseCurvature])
def test_gains_are_those_of_the_inverse(kind, nx64, monkeypatch):
    monkeypatch.setattr("pot_semidiscrete.curvature.REST", 0.0)
    target, x = cloud(nx64)
    potential = near(nx64, target, x, REG)
    curvature = kind(Sample(target, x), potential, REG)
    gradients = unit_gradients(nx64, target)[:4]
    _, matrix = dense(nx64, target, x, potential, REG)
    g = nx64.host(gradients)
    expected = 0.5 * REG * g @ np.linalg.pinv(matrix) @ g.T
    np.testing.assert_allclose(curvature.gains(gradients), expected, atol=0.01 * expected.max())
    assert curvature.gain(gradients[1]) == pytest.approx(expected[1, 1], rel=0.01)


def test_inverse_of_a_matrix_that_is_not_definite():
    definite = np.array([[2.0, 1.0, 0.0], [1.0, 3.0, 0.5], [0.0, 0.5, 1.0]])
    for matrix in (definite, definite - 2.0 * np.eye(3)):
        np.testing.assert_allclose(inverse_of(matrix) @ matrix, np.eye(3), atol=1e-12)


def test_recomputed_weights_give_what_stored_ones_do(nx, monkeypatch):
    target, x = cloud(nx)
    potential = near(nx, target, x, REG)
    stored = Curvature(Sample(target, x), potential, REG)
    monkeypatch.setattr("pot_semidiscrete.curvature.LARGEST_STORE", 0)
    recomputed = Curvature(Sample(target, x), potential, REG)
    assert stored.kept is not None
    assert recomputed.kept is None
    vectors = probes(target, N_PROBES)[1]
    for call in (lambda c: c.product(vectors), lambda c: c.solve(vectors, 0.0)):
        np.testing.assert_array_equal(nx.host(call(stored)), nx.host(call(recomputed)))


@pytest.mark.parametrize("kind", [Curvature, DenseCurvature])
@pytest.mark.parametrize("weights", ["uniform", "dirichlet", "light"])
def test_solve_inverts_the_product(weights, kind, nx):
    """The matrix to a residual of 1%, conjugate gradients to a share ``REST`` of all gains."""
    target, x = cloud(nx, weights=law(weights, 30))
    curvature = kind(Sample(target, x), near(nx, target, x, REG), REG)
    right, diagonal = unit_gradients(nx, target), nx.host(curvature.diagonal)
    solved = curvature.solve(right, 0.0)
    size = np.abs(nx.host(solved)).max()
    np.testing.assert_allclose(nx.host(solved) @ nx.host(target.weights) / size, 0.0, atol=1e-5)
    left = nx.host(curvature.product(curvature.invert(right, 0.0))) - nx.host(right)
    norm = lambda u: np.sqrt((u**2 / diagonal).sum(axis=1))
    slack = 1.0 if nx.dtype == "float64" else 3.0
    if kind is DenseCurvature:
        assert (norm(left) <= slack * 0.01 * norm(nx.host(right))).all()
    root = np.sqrt(diagonal)
    matrix = nx.host(curvature.product(nx.array(np.eye(30)))).astype(float) / np.outer(root, root)
    scaled = nx.host(right) / root
    gain = (scaled @ np.linalg.pinv(matrix, FLAT) * scaled).sum()
    reached = (nx.host(right) * nx.host(solved)).sum() / REG
    assert (1.0 - REST) * gain <= reached <= 1.001 * gain


@pytest.mark.parametrize("with_steps", [True, False])
@pytest.mark.parametrize("rows", [0.7, 2.0, 16.0])
def test_trace_of_few_points_for_each_atom_is_told_by_others(rows, with_steps, nx, monkeypatch):
    """200 atoms in dimension 5: the inverse of what few points show is much too large."""
    rng, n_atoms, reg = np.random.default_rng(0), 200, 0.5
    target = build(nx, rng.normal(size=(n_atoms, 5)))
    many = target.local(nx.array(rng.normal(size=(20_000, 5))))
    potential = improve(Sample(target, many), 0.0 * target.weights, reg).potential
    hessian = dense(nx, target, many, potential, reg)[1] / reg
    b = nx.host(target.weights)
    exact = np.trace(np.linalg.pinv(hessian, 1e-6, hermitian=True) @ (np.diag(b) - np.outer(b, b)))
    exact -= reg * (n_atoms - 1)
    for name, value in {"DENSE": 0, "LEAST_SHARE": 0, "LEAST_ROWS": 0}.items():
        monkeypatch.setattr(f"pot_semidiscrete.curvature.{name}", value)
    monkeypatch.setattr("pot_semidiscrete.curvature.USUAL_STORE", rows * n_atoms**2)
    found, plain = [], []
    for seed in range(4):
        x = target.local(nx.array(np.random.default_rng(seed).normal(size=(10_000, 5))))
        curvature = curvature_of(Sample(target, x), potential, reg)
        gradient = target.weights - curvature.mean
        told = curvature.newton(gradient, 0.0)[1] if with_steps else curvature.tell()
        found.append(told.whole - reg * (n_atoms - 1))
        signs, vectors = probes(target, N_PROBES)
        plain.append(curvature._whole(signs, curvature.solve(vectors, 0.0)) - reg * (n_atoms - 1))
    assert 0.7 * exact < np.mean(found) < 1.15 * exact
    if rows == 2.0:
        assert np.mean(plain) > 1.15 * exact


def test_weights_of_one_atom_each_have_no_excess(nx):
    """Points of one cell each, and a part of them: nothing is curved, and nothing is divided by it."""
    rng = np.random.default_rng(0)
    target = build(nx, rng.normal(size=(300, 5)))
    x = target.local(nx.array(rng.normal(size=(20_000, 5))))
    curvature = curvature_of(Sample(target, x), 0.0 * target.weights, 1e-6)
    assert curvature.step > 1
    vectors = probes(target, N_PROBES)[1]
    assert curvature.excess(vectors, 0.0 * vectors) == 1.0
    assert math.isfinite(curvature.tell().whole)


def test_excess_is_asked_of_other_points_at_an_odd_spacing(nx, monkeypatch):
    """Every second point of a Sobol sequence lies in the same half of the space."""
    target, x = cloud(nx, n_atoms=300, n=20_000, d=5)
    curvature = curvature_of(Sample(target, x), 0.0 * target.weights, 0.5)
    asked, weights = [], Sample.weights
    noted = lambda self, *args: asked.append(args[2:]) or weights(self, *args)
    monkeypatch.setattr(Sample, "weights", noted)
    vectors = probes(target, N_PROBES)[1]
    curvature.excess(vectors, curvature.solve(vectors, 0.0))
    (step, first), own = asked[-1], range(0, 20_000, curvature.step)
    assert step % 2 == 1
    assert not set(range(first, 20_000, step)) & set(own)


def test_rows_that_end_by_underflow_stay_numbers(nx):
    """Of several systems solved at once, one is done long before another."""
    target, x = cloud(nx, n_atoms=300, n=3000)
    curvature = Curvature(Sample(target, x), 0.0 * target.weights, 0.01 * REG)
    gradient = unit_gradients(nx, target)[:1]
    rows = nx.array(np.concatenate([factor * nx.host(gradient) for factor in (1.0, 1e-18, 0.0)]))
    dampings = nx.array([[0.0], [100.0], [1.0]])
    found = nx.host(curvature.solve(rows, dampings))
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[2], 0.0)


@pytest.mark.parametrize("factor", [2.0**-30, 2.0**27])
def test_trace_of_a_part_of_the_points_scales_with_the_data(factor, nx):
    rng = np.random.default_rng(0)
    atoms, points = rng.normal(size=(300, 5)), rng.normal(size=(20_000, 5))
    found = []
    for s in (1.0, factor):
        target = build(nx, atoms * s)
        points_of = Sample(target, target.local(nx.array(points * s)))
        curvature = curvature_of(points_of, 0.0 * target.weights, 0.5 * s * s)
        assert curvature.step > 1
        found.append(curvature.tell().whole / s**2)
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_what_is_noise_to_other_points_is_not_solved_for(nx, monkeypatch):
    """The step that is tried has damping, gains what was promised, and conjugate gradients end early."""
    curvature, gradient, value = unstable(nx, monkeypatch)
    products = counted(monkeypatch, curvature, "product")
    plain = curvature.solve(gradient[None, :], 0.0)
    until_the_end = len(products)
    move, _ = curvature.newton(gradient, 0.0, Told(1.0))
    assert len(products) - until_the_end < until_the_end / 2
    assert move.damping == curvature.first_damping
    rises = [
        curvature.sample.measure(curvature.potential + step, REG)[0] - value
        for step in (plain[0], move.steps[0])
    ]
    assert rises[1] == pytest.approx(move.promised, rel=0.5)
    assert rises[1] > max(rises[0], 0.0)


@pytest.mark.parametrize("stored", [True, False])
def test_other_points_see_the_curvature_of_the_formula(stored, nx, monkeypatch):
    """And steps that are solutions have that of these points as products with their gradients."""
    monkeypatch.setattr("pot_semidiscrete.curvature.LARGEST_STORE", 2**25 if stored else 0)
    target, x = cloud(nx, n_atoms=300, n=4000, d=5)
    potential = near(nx, target, x, REG)
    curvature = Curvature(Sample(target, x), potential, REG, step=3)
    steps = nx.array(0.01 * np.random.default_rng(0).normal(size=(2, 300)))
    matrix = dense(nx, target, x[1::9], potential, REG)[1]
    own, others = curvature.seen(curvature.product(steps), steps)
    s = nx.host(steps) / REG
    assert others == pytest.approx(np.einsum("ij,jk,ik->i", s, matrix, s), rel=1e-4)
    assert own == pytest.approx(np.einsum("ij,ij->i", nx.host(curvature.product(steps)), s), rel=1e-4)


def test_a_step_is_as_long_as_other_points_allow(nx, monkeypatch):
    """Told of 1.6 times the curvature, along steps that are cut as when they are tried."""
    curvature, gradient, _ = unstable(nx, monkeypatch)
    own, asked = lambda vectors, steps: (nx.host(vectors) * nx.host(steps)).sum(axis=1) / REG, []

    def seen(vectors, steps):
        asked.append(float(abs(steps).max()))
        return own(vectors, steps), 1.6 * own(vectors, steps)

    monkeypatch.setattr(curvature, "seen", seen)
    monkeypatch.setattr("pot_semidiscrete.curvature.LARGEST_STEP", 0.1)
    move, _ = curvature.newton(gradient, 0.0, Told(1.0))
    whole = curvature.solve(gradient[None, :], move.damping)
    assert nx.host(move.steps[0]) == pytest.approx(nx.host(whole[0]) / 1.6, rel=0.1, abs=0.1 * REG)
    assert move.promised == pytest.approx(move.hoped / 1.6)
    assert asked[-1] == pytest.approx(0.1 * REG)
    assert asked[-2] > 0.2 * REG


def test_all_points_ask_nobody(nx, monkeypatch):
    """Their steps are whole, and promise what their own curvature does, however far they go."""
    target, x = cloud(nx, n_atoms=300, n=600, d=5)
    curvature = Curvature(Sample(target, x), near(nx, target, x, REG, 0.5), REG)
    monkeypatch.setattr("pot_semidiscrete.curvature.LARGEST_STEP", 0.1)
    gradient = target.weights - curvature.mean
    move, _ = curvature.newton(gradient, 0.0, Told(1.0))
    steps = curvature.solve(
        nx.array([nx.host(gradient)] * 2), nx.array([[0.0], [curvature.harder(0.0)]])
    )
    assert move.damping == 0.0
    assert nx.host(move.steps) == pytest.approx(nx.host(steps), rel=1e-3, abs=1e-5)
    assert move.promised == pytest.approx(0.5 * float((gradient * steps[0]).sum()), rel=1e-3)
    assert move.hoped == pytest.approx(move.promised)


def test_slow_modes_are_no_noise(nx, monkeypatch):
    """In the plane at a small regularisation: other points see them, too."""
    monkeypatch.setattr(sample, "LEAST_ENTRIES", 10**9)
    target, x = cloud(nx, n_atoms=300, n=20_000, seed=1)
    reg = 0.01
    points, potential = Sample(target, x), near(nx, target, x, reg, 0.5)
    # a slow mode: potentials that change little from an atom to the next
    potential = potential + 20.0 * reg * target.atoms[:, 0]
    curvature = curvature_of(points, potential, reg)
    assert curvature.asks
    gradient = target.weights - points.measure(potential, reg)[1]
    move, _ = curvature.newton(gradient, 0.0, Told(1.0))
    plain = curvature.solve(gradient[None, :], 0.0)[0]
    damped = curvature.solve(gradient[None, :], curvature.first_damping)[0]
    gain = lambda step: 0.5 * float((gradient * step).sum())
    assert move.damping == 0.0
    assert gain(plain) > 2.0 * gain(damped)
    assert move.promised > 0.8 * gain(plain)


def estimates(modes, noise=0.0, error=0.1, n=300, n_probes=6, n_seeds=200):
    """The estimator and Hutchinson's, for a matrix with these eigenvalues beside small ones."""
    rng = np.random.default_rng(0)
    values = np.concatenate([modes, np.linspace(-noise, 1.0, n - len(modes))])
    basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
    matrix, found = (basis * values) @ basis.T, []
    for _ in range(n_seeds):
        signs = rng.choice([-1.0, 1.0], size=(n_probes, n))
        images = signs @ matrix
        images += error * images.std() * rng.normal(size=images.shape)  # they are solved for in part
        found.append((trace_of(signs, images), np.sum(signs * images) / n_probes))
    return np.array(found) / np.trace(matrix)


@pytest.mark.parametrize("modes", [[2000.0], [1500.0, 800.0, 400.0]], ids=len)
def test_trace_of_a_matrix_with_few_large_modes(modes):
    """Without bias, better than Hutchinson's, and never far off."""
    found, plain = estimates(modes).T
    assert abs(found.mean() - 1.0) < 3.0 * found.std() / len(found) ** 0.5 + 0.02
    assert found.std() < 0.5 * plain.std()
    assert 1 / 3 < found.min() <= found.max() < 3


def test_trace_of_a_small_matrix_with_noise_is_the_plain_one():
    found, plain = estimates([10.0], noise=1.0, n_probes=60).T  # eigenvalues of either sign
    np.testing.assert_allclose(found, plain, rtol=1e-10)


def test_trace_of_what_is_not_a_number():
    signs = np.ones((3, 5))
    assert np.isnan(trace_of(signs, np.nan * signs))


@pytest.mark.parametrize("kind", [Curvature, DenseCurvature])
def test_atom_that_no_point_visits_counts_as_one_point_or_its_weight(kind, nx64):
    """Two atoms far from the points, one heavier and one lighter than a point."""
    atoms = np.concatenate([np.random.default_rng(0).normal(size=(8, 2)), [[1e4, 0.0], [0.0, 1e4]]])
    weights = np.full(10, 0.9 / 8)
    weights[8:] = 0.0999, 0.0001
    target = build_target(nx64.array(atoms), nx64.array(weights))
    x = target.local(nx64.array(np.random.default_rng(1).normal(size=(100, 2))))
    diagonal = nx64.host(kind(Sample(target, x), 0.0 * target.weights, REG).diagonal)
    np.testing.assert_allclose(diagonal[8:], [0.0999 / 10.99, 0.0001 / 1.01], rtol=1e-6)
    np.testing.assert_allclose(diagonal[:8].sum(), 1.0, rtol=0.02)


def test_probes_have_the_covariance_of_a_draw_of_an_atom(nx64):
    target, _ = cloud(nx64, n_atoms=6, weights=law("dirichlet", 6))
    z, b = nx64.host(probes(target, 100_000)[1]), nx64.host(target.weights)
    np.testing.assert_allclose(z.sum(axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose(z.T @ z / len(z), np.diag(b) - np.outer(b, b), atol=0.005)


def test_products_of_weights_are_no_denormal_numbers(nx):
    target, x = cloud(nx)
    potential = nx.array(1e3 * np.random.default_rng(7).normal(size=30))
    kept = Sample(target, x)
    kept.measure(potential, REG)
    for kind, points in ((Curvature, Sample(target, x)), (DenseCurvature, kept), (Curvature, kept)):
        blocks = kind(points, potential, REG).weights()
        weights = np.concatenate([nx.host(block.dense()) for block, _ in blocks])
        assert weights.min() ** 2 > np.finfo(nx.dtype).tiny
        np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-5)


def test_smoothing_is_narrower_than_a_cell(nx):
    """On the line, cells of width 1/20: a point is shared by two neighbours at most."""
    atoms = (np.arange(20) + 0.5)[:, None] / 20
    target = build(nx, atoms)
    x = target.local(nx.array(((np.arange(2000) + 0.5) / 2000)[:, None]))
    width = smoothing(Sample(target, x), 0.0 * target.weights)
    chi = nx.host(sweep(target, x, 0.0 * target.weights, width, ("weights",)).weights)
    assert (chi**2).sum(axis=1).mean() >= PURITY
    assert np.sort(chi, axis=1)[:, :-2].sum(axis=1).mean() < 0.1


@pytest.mark.parametrize("n", [1, 100, 5000])
@pytest.mark.parametrize("n_atoms", [1, 100, 1000])
def test_curvature_is_of_the_points_and_of_as_many_as_atoms(n_atoms, n, nx):
    target, x = cloud(nx, n_atoms=n_atoms, n=n)
    few = curvature_of(Sample(target, x), 0.0 * target.weights, REG)
    assert min(n, n_atoms) <= few.n <= n
    assert isinstance(few, DenseCurvature) == (n_atoms <= DENSE)
