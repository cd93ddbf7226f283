"""Newton's correction: against dense formulas, known maximisers, and data that degenerate."""

import math
import warnings

import numpy as np
import pytest
from scipy import stats

from benchmarks import references
from pot_semidiscrete import newton, sample
from pot_semidiscrete._target import build_target
from pot_semidiscrete.dual import scale_of
from pot_semidiscrete.kernels import sweep, weight_blocks
from pot_semidiscrete.sample import Sample, measure, spread
from pot_semidiscrete.samplers import SobolSampler
from tests.backends import counted

REG = 0.1


def build(nx, atoms, weights=None, metric=None):
    return build_target(nx.array(atoms), None if weights is None else nx.array(weights), metric).detached


def cloud(nx, n_atoms=30, n=1500, weights=None, d=2, seed=0):
    """A target and points, both normal laws."""
    rng = np.random.default_rng(seed)
    target = build(nx, 0.7 * rng.normal(size=(n_atoms, d)) + 0.3, weights)
    return target, target.local(nx.array(rng.normal(size=(n, d))))


def law(name, n_atoms):
    rng = np.random.default_rng(7)
    weights = {
        "uniform": np.ones(n_atoms),
        "dirichlet": rng.dirichlet(np.full(n_atoms, 0.3)) + 1e-8,
        "light": 10.0 ** rng.uniform(-6.0, 0.0, size=n_atoms),
    }[name]
    return weights / weights.sum()


def dense(nx, target, x, potential, reg):
    """Weights chi and ``diag m - E[chi chi^T]``, by the formula."""
    chi = nx.host(sweep(target, x, potential, reg, ("weights",)).weights)
    return chi, np.diag(chi.mean(axis=0)) - chi.T @ chi / len(chi)


def chi_square(nx, target, x, potential, reg):
    marginal, b = nx.host(measure(target, x, potential, reg)[1]), nx.host(target.weights)
    return float(((marginal - b) ** 2 / b).sum())


def near(nx, target, x, reg, size=0.3, seed=3):
    """A potential `size` times reg off the maximiser over the points."""
    optimum = newton.improve(Sample(target, x), 0.0 * target.weights, reg).potential
    noise = np.random.default_rng(seed).normal(size=target.weights.shape[0])
    return target.centred(optimum + nx.array(size * reg * noise))


def unit_gradients(nx, target):
    """A vector for each atom, of sum 0."""
    b = nx.host(target.weights)
    z = np.diag(np.sqrt(len(b) * b))
    return nx.array(z - z.sum(axis=1, keepdims=True) * b)


# Curvature.


def test_product_is_the_dense_hessian_times_reg(nx64):
    """By the formula, and by differences of the marginal."""
    target, x = cloud(nx64)
    potential = near(nx64, target, x, REG)
    vectors = np.random.default_rng(1).normal(size=(3, 30))
    found = nx64.host(newton.Curvature(Sample(target, x), potential, REG).product(nx64.array(vectors)))
    np.testing.assert_allclose(found, vectors @ dense(nx64, target, x, potential, REG)[1], atol=1e-12)
    for vector, image in zip(vectors, found, strict=True):
        ends = [
            nx64.host(measure(target, x, potential + nx64.array(h * vector), REG)[1])
            for h in (1e-5, -1e-5)
        ]
        np.testing.assert_allclose(REG * (ends[0] - ends[1]) / 2e-5, image, atol=1e-8)


@pytest.mark.parametrize("kind", [newton.Curvature, newton.DenseCurvature])
def test_damping_adds_a_share_of_the_diagonal(kind, nx64, monkeypatch):
    """The damped solution, put into the damped product, gives the right-hand side."""
    monkeypatch.setattr(newton, "REST", 1e-3)
    target, x = cloud(nx64)
    curvature = kind(Sample(target, x), near(nx64, target, x, REG), REG)
    right, diagonal = unit_gradients(nx64, target), nx64.host(curvature.diagonal)
    solution = curvature.invert(right, 0.5)
    back = nx64.host(curvature.product(solution)) + 0.5 * diagonal * nx64.host(solution)
    np.testing.assert_allclose(back, nx64.host(right), atol=0.01 * np.abs(nx64.host(right)).max())
    larger = nx64.host(curvature.solve(right, 0.0))
    assert (larger**2).sum() > 2.0 * (nx64.host(curvature.solve(right, 0.5)) ** 2).sum()


@pytest.mark.parametrize("kind", [newton.Curvature, newton.DenseCurvature])
def test_gains_are_those_of_the_inverse(kind, nx64, monkeypatch):
    monkeypatch.setattr(newton, "REST", 0.0)
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
        np.testing.assert_allclose(newton.inverse_of(matrix) @ matrix, np.eye(3), atol=1e-12)


def test_recomputed_weights_give_what_stored_ones_do(nx, monkeypatch):
    target, x = cloud(nx)
    potential = near(nx, target, x, REG)
    stored = newton.Curvature(Sample(target, x), potential, REG)
    monkeypatch.setattr(newton, "LARGEST_STORE", 0)
    recomputed = newton.Curvature(Sample(target, x), potential, REG)
    assert stored.kept is not None
    assert recomputed.kept is None
    vectors = newton.probes(target)[1]
    for call in (lambda c: c.product(vectors), lambda c: c.solve(vectors, 0.0)):
        np.testing.assert_array_equal(nx.host(call(stored)), nx.host(call(recomputed)))


@pytest.mark.parametrize("kind", [newton.Curvature, newton.DenseCurvature])
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
    if kind is newton.DenseCurvature:
        assert (norm(left) <= slack * 0.01 * norm(nx.host(right))).all()
    root = np.sqrt(diagonal)
    matrix = nx.host(curvature.product(nx.array(np.eye(30)))).astype(float) / np.outer(root, root)
    scaled = nx.host(right) / root
    gain = (scaled @ np.linalg.pinv(matrix, newton.FLAT) * scaled).sum()
    reached = (nx.host(right) * nx.host(solved)).sum() / REG
    assert (1.0 - newton.REST) * gain <= reached <= 1.001 * gain


# The maximiser over the points.


@pytest.mark.parametrize("start", ["zeros", "junk"])
@pytest.mark.parametrize("weights", ["uniform", "dirichlet", "light"])
def test_marginal_at_the_maximiser_is_that_of_the_weights(weights, start, nx):
    """The error left is a share ``ENOUGH`` of the statistical one, ``N / n`` for chi2."""
    target, x = cloud(nx, weights=law(weights, 30))
    junk = np.random.default_rng(5).normal(size=30) * (start == "junk")
    found = newton.improve(Sample(target, x), nx.array(junk), REG)
    assert found.settled
    assert chi_square(nx, target, x, found.potential, REG) < 0.1 * 30 / 1500
    assert float(nx.host(target.weights) @ nx.host(found.potential)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(("relative_reg", "share"), [(0.2, 0.2), (1e-2, 0.2), (2e-3, 1.0), (1e-3, 1.0)])
def test_value_at_the_maximiser_is_that_of_dense_newton(relative_reg, share, nx):
    """From zeros, to a share of the statistical error ``trace / (2 n)``; less well for a small reg."""
    target, x = cloud(nx, n_atoms=40, n=2000)
    reg, b = relative_reg * newton.scale_of(target), nx.host(target.weights)
    source = references.Quadrature(nx.host(x), np.full(2000, 1.0 / 2000))
    exact = references.newton(source, nx.host(target.atoms), b, reg, tol=1e-10)
    found = newton.improve(Sample(target, x), 0.0 * target.weights, reg)
    rounding = 20.0 * nx.eps * newton.scale_of(target)
    assert -rounding < exact.value - found.value < share * exact.trace / 4000 + rounding
    if relative_reg >= 1e-2:
        assert found.settled
        assert found.trace == pytest.approx(exact.trace, rel=0.6)


@pytest.mark.parametrize("reg", [0.0, 1e-3, REG, 10.0])
@pytest.mark.parametrize("size", [0.0, 0.1, 100.0])
def test_value_never_decreases(reg, size, nx):
    target, x = cloud(nx, weights=law("dirichlet", 30), n=300)
    potential = target.centred(nx.array(size * np.random.default_rng(2).normal(size=30)))
    before = measure(target, x, potential, reg)[0]
    found = newton.improve(Sample(target, x), potential, reg)
    assert found.value >= before - 10.0 * nx.eps * abs(before)
    assert found.value == pytest.approx(measure(target, x, found.potential, reg)[0], rel=1e-6)


def test_improving_again_changes_little(nx):
    target, x = cloud(nx)
    once = newton.improve(Sample(target, x), 0.0 * target.weights, REG)
    twice = newton.improve(Sample(target, x), once.potential, REG)
    assert twice.value - once.value < once.trace / (2 * 1500)


@pytest.mark.parametrize("few", [True, False])
def test_trace_is_that_of_the_dense_formula(few, nx64, monkeypatch):
    """``tr(A^+ (diag b - b b^T)) - reg (N - 1)``: exact for few atoms, and with many probes."""
    monkeypatch.setattr(newton, "DENSE", 30 if few else 29)
    monkeypatch.setattr(newton, "N_PROBES", 30)
    monkeypatch.setattr(newton, "REST", 1e-3)
    monkeypatch.setattr(newton, "LEAST_SHARE", 1.0)  # all points for the curvature
    target, x = cloud(nx64, weights=law("dirichlet", 30))
    start, b = near(nx64, target, x, REG, 1e-3), nx64.host(target.weights)
    found = newton.climb(Sample(target, x), start, REG)
    hessian = dense(nx64, target, x, found.potential, REG)[1] / REG
    expected = np.trace(np.linalg.pinv(hessian, 1e-10, hermitian=True) @ (np.diag(b) - np.outer(b, b)))
    assert found.trace == pytest.approx(expected - 29 * REG, rel=0.02)


@pytest.mark.parametrize("with_steps", [True, False])
@pytest.mark.parametrize("rows", [0.7, 2.0, 16.0])
def test_trace_of_few_points_for_each_atom_is_told_by_others(rows, with_steps, nx, monkeypatch):
    """200 atoms in dimension 5: the inverse of what few points show is much too large."""
    rng, n_atoms, reg = np.random.default_rng(0), 200, 0.5
    target = build(nx, rng.normal(size=(n_atoms, 5)))
    many = target.local(nx.array(rng.normal(size=(20_000, 5))))
    potential = newton.improve(Sample(target, many), 0.0 * target.weights, reg).potential
    hessian = dense(nx, target, many, potential, reg)[1] / reg
    b = nx.host(target.weights)
    exact = np.trace(np.linalg.pinv(hessian, 1e-6, hermitian=True) @ (np.diag(b) - np.outer(b, b)))
    exact -= reg * (n_atoms - 1)
    for name, value in {"DENSE": 0, "LEAST_SHARE": 0, "LEAST_ROWS": 0}.items():
        monkeypatch.setattr(newton, name, value)
    monkeypatch.setattr(newton, "USUAL_STORE", rows * n_atoms**2)
    found, plain = [], []
    for seed in range(4):
        x = target.local(nx.array(np.random.default_rng(seed).normal(size=(10_000, 5))))
        curvature = newton.curvature_of(Sample(target, x), potential, reg)
        gradient = target.weights - curvature.mean
        told = curvature.newton(gradient, 0.0)[1] if with_steps else curvature.tell()
        found.append(told.trace - reg * (n_atoms - 1))
        signs, vectors = newton.probes(target)
        plain.append(curvature._whole(signs, curvature.solve(vectors, 0.0)) - reg * (n_atoms - 1))
    assert 0.7 * exact < np.mean(found) < 1.15 * exact
    if rows == 2.0:
        assert np.mean(plain) > 1.15 * exact


def test_weights_of_one_atom_each_have_no_excess(nx):
    """Points of one cell each, and a part of them: nothing is curved, and nothing is divided by it."""
    rng = np.random.default_rng(0)
    target = build(nx, rng.normal(size=(300, 5)))
    x = target.local(nx.array(rng.normal(size=(20_000, 5))))
    curvature = newton.curvature_of(Sample(target, x), 0.0 * target.weights, 1e-6)
    assert curvature.step > 1
    vectors = newton.probes(target)[1]
    assert curvature.excess(vectors, 0.0 * vectors) == 1.0
    assert math.isfinite(curvature.tell().trace)


def test_excess_is_asked_of_other_points_at_an_odd_spacing(nx, monkeypatch):
    """Every second point of a Sobol sequence lies in the same half of the space."""
    target, x = cloud(nx, n_atoms=300, n=20_000, d=5)
    curvature = newton.curvature_of(Sample(target, x), 0.0 * target.weights, 0.5)
    asked, weights = [], Sample.weights
    noted = lambda self, *args: asked.append(args[2:]) or weights(self, *args)
    monkeypatch.setattr(Sample, "weights", noted)
    vectors = newton.probes(target)[1]
    curvature.excess(vectors, curvature.solve(vectors, 0.0))
    (step, first), own = asked[-1], range(0, 20_000, curvature.step)
    assert step % 2 == 1
    assert not set(range(first, 20_000, step)) & set(own)


def test_rows_that_end_by_underflow_stay_numbers(nx):
    """Of several systems solved at once, one is done long before another."""
    target, x = cloud(nx, n_atoms=300, n=3000)
    curvature = newton.Curvature(Sample(target, x), 0.0 * target.weights, 0.01 * REG)
    gradient = unit_gradients(nx, target)[:1]
    rows = nx.array(np.concatenate([factor * nx.host(gradient) for factor in (1.0, 1e-18, 0.0)]))
    dampings = nx.array([[0.0], [100.0], [1.0]])
    found = nx.host(curvature.solve(rows, dampings))
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[2], 0.0)


@pytest.mark.parametrize("n_atoms", [60, 300])
def test_a_trace_that_is_known_is_that_of_the_first_step(n_atoms, nx, monkeypatch):
    """Two steps, the second so near that it needs no trace of its own: neither is the whole."""
    monkeypatch.setattr(newton, "NEARBY", 1e9)
    monkeypatch.setattr(newton, "DISAPPOINTING", 0.0)
    target, x = cloud(nx, n_atoms=n_atoms, n=3000)
    start = near(nx, target, x, REG, 1.0)
    kind = newton.DenseCurvature if n_atoms == 60 else newton.Curvature
    calls, solved = [], kind.newton

    def noted(curvature, gradient, damping, told):
        found = solved(curvature, gradient, damping, told)
        calls.append((told, found[1]))
        return found

    monkeypatch.setattr(kind, "newton", noted)
    found = newton.climb(Sample(target, x), start, REG, 1e-6)
    assert len(calls) >= 2
    assert calls[0][0] is None
    assert calls[-1][0] is not None
    assert calls[-1][0] is calls[-1][1]
    assert found.trace == calls[-1][0].trace
    assert found.trace == pytest.approx(calls[0][1].trace - REG * (n_atoms - 1), rel=1e-6)


@pytest.mark.parametrize("factor", [2.0**-30, 2.0**27])
def test_trace_of_a_part_of_the_points_scales_with_the_data(factor, nx):
    rng = np.random.default_rng(0)
    atoms, points = rng.normal(size=(300, 5)), rng.normal(size=(20_000, 5))
    found = []
    for s in (1.0, factor):
        target = build(nx, atoms * s)
        points_of = Sample(target, target.local(nx.array(points * s)))
        curvature = newton.curvature_of(points_of, 0.0 * target.weights, 0.5 * s * s)
        assert curvature.step > 1
        found.append(curvature.tell().trace / s**2)
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def unstable(nx, monkeypatch):
    """A curvature of 1.2 points for each atom, solved for almost to the end, and the gradient of all."""
    target, x = cloud(nx, n_atoms=300, n=4000, d=5)
    monkeypatch.setattr(newton, "USUAL_STORE", 0)
    monkeypatch.setattr(newton, "LEAST_ROWS", 1.2)
    monkeypatch.setattr(newton, "LEAST_SHARE", 0.0)
    monkeypatch.setattr(newton, "REST", 1e-3)
    points, potential = Sample(target, x), near(nx, target, x, REG, 0.5)
    value, marginal = points.measure(potential, REG)
    curvature = newton.curvature_of(points, potential, REG)
    assert curvature.step > 1
    return curvature, target.weights - marginal, value


@pytest.mark.parametrize("kept", [True, False])
def test_a_step_that_disappoints_is_compared_with_a_damped_one(kept, nx, monkeypatch):
    """The better of two, solved for at once, and no longer one."""
    monkeypatch.setattr(sample, "LARGEST_KEPT", 10**9 if kept else 0)
    curvature, gradient, value = unstable(nx, monkeypatch)
    steps = [curvature.solve(gradient[None, :], damping)[0] for damping in (0.0, curvature.harder(0.0))]
    promised = 0.5 * float((gradient * steps[0]).sum())
    move = newton.Move(gradient, curvature.target.nx.stack(steps), 0.0, promised, promised)
    here = (curvature, curvature.potential, REG, move)
    values = [newton._tried(*here, k)[1] for k in (0, 1)]
    assert values[0] < value + newton.DISAPPOINTING * promised
    monkeypatch.setattr(newton, "LARGEST_STEP", 0.0)
    tried = counted(monkeypatch, newton, "_tried")
    (_, reached, _), failures = newton._search(*here, value)
    assert len(tried) == 2
    assert reached == pytest.approx(max(values), rel=1e-6)
    assert failures == int(values[0] < value)
    assert reached > value
    assert values[1] > values[0]


def test_what_is_noise_to_other_points_is_not_solved_for(nx, monkeypatch):
    """The step that is tried has damping, gains what was promised, and conjugate gradients end early."""
    curvature, gradient, value = unstable(nx, monkeypatch)
    products = counted(monkeypatch, curvature, "product")
    plain = curvature.solve(gradient[None, :], 0.0)
    until_the_end = len(products)
    move, _ = curvature.newton(gradient, 0.0, newton.Told(trace=1.0))
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
    monkeypatch.setattr(newton, "LARGEST_STORE", 2**25 if stored else 0)
    target, x = cloud(nx, n_atoms=300, n=4000, d=5)
    potential = near(nx, target, x, REG)
    curvature = newton.Curvature(Sample(target, x), potential, REG, step=3)
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
    monkeypatch.setattr(newton, "LARGEST_STEP", 0.1)
    move, _ = curvature.newton(gradient, 0.0, newton.Told(trace=1.0))
    whole = curvature.solve(gradient[None, :], move.damping)
    assert nx.host(move.steps[0]) == pytest.approx(nx.host(whole[0]) / 1.6, rel=0.1, abs=0.1 * REG)
    assert move.promised == pytest.approx(move.hoped / 1.6)
    assert asked[-1] == pytest.approx(0.1 * REG)
    assert asked[-2] > 0.2 * REG


@pytest.mark.parametrize("max_steps", [1, 8])
def test_a_climb_that_is_out_of_steps_is_not_settled(max_steps, nx, monkeypatch):
    """Though its step did what it promised."""
    target, x = cloud(nx)
    potential = near(nx, target, x, REG)
    monkeypatch.setattr(newton, "ROUGH", 0.0)  # masses are off, whatever they are
    monkeypatch.setattr(newton, "MAX_STEPS", max_steps)
    monkeypatch.setattr(newton, "MATTERS", 1e9)
    assert newton.climb(Sample(target, x), potential, REG).settled == (max_steps > 1)


@pytest.mark.parametrize("hoped", [0.0, 1e3])
def test_where_all_is_noise_nothing_is_settled(hoped, nx, monkeypatch):
    """Little is promised, by other points; these hope for much."""
    target, x = cloud(nx)
    move = newton.Move(0.0 * target.weights, 0.0 * target.weights[None, :], 0.0, 0.0, hoped)
    monkeypatch.setattr(newton.DenseCurvature, "newton", lambda *_: (move, newton.Told(trace=1.0)))
    found = newton.climb(Sample(target, x), 0.0 * target.weights, REG)
    assert found.settled == (hoped == 0.0)


def test_all_points_ask_nobody(nx, monkeypatch):
    """Their steps are whole, and promise what their own curvature does, however far they go."""
    target, x = cloud(nx, n_atoms=300, n=600, d=5)
    curvature = newton.Curvature(Sample(target, x), near(nx, target, x, REG, 0.5), REG)
    monkeypatch.setattr(newton, "LARGEST_STEP", 0.1)
    gradient = target.weights - curvature.mean
    move, _ = curvature.newton(gradient, 0.0, newton.Told(trace=1.0))
    steps = curvature.solve(
        nx.array([nx.host(gradient)] * 2), nx.array([[0.0], [curvature.harder(0.0)]])
    )
    assert move.damping == 0.0
    assert nx.host(move.steps) == pytest.approx(nx.host(steps), rel=1e-3, abs=1e-5)
    assert move.promised == pytest.approx(0.5 * float((gradient * steps[0]).sum()), rel=1e-3)
    assert move.hoped == pytest.approx(move.promised)


def test_steps_that_are_noise_again_call_for_more_points(nx, monkeypatch):
    target, x = unstable(nx, monkeypatch)[0].target, cloud(nx, n_atoms=300, n=4000, d=5)[1]
    curvatures = counted(monkeypatch, newton, "curvature_of")
    found = newton.climb(Sample(target, x), 0.0 * target.weights, REG)
    n_points = [curvature.n for curvature in curvatures]
    assert found.settled
    assert n_points[0] == n_points[1] < n_points[-1]


def test_masses_are_mended_last_where_that_gains_a_trifle(nx):
    """And no step follows: the potential that is found was not one of those tried."""
    target, x = cloud(nx, n_atoms=100, n=1000, weights=law("dirichlet", 100), seed=1)
    with pytest.MonkeyPatch.context() as patch:
        tried, curvatures = counted(patch, newton, "_tried"), counted(patch, newton, "curvature_of")
        found = newton.climb(Sample(target, x), 0.0 * target.weights, REG)
    assert found.settled
    assert len(curvatures) == len(tried)
    assert all(abs(potential - found.potential).max() > 0 for potential, _, _ in tried)
    assert found.value >= max(value for _, value, _ in tried)
    best = newton.climb(Sample(target, x), 0.0 * target.weights, REG, 1e-3)
    assert found.value > best.value - newton.ENOUGH * found.trace / 2000.0


def test_slow_modes_are_no_noise(nx, monkeypatch):
    """In the plane at a small regularisation: other points see them, too."""
    monkeypatch.setattr(sample, "LEAST_ENTRIES", 10**9)
    target, x = cloud(nx, n_atoms=300, n=20_000, seed=1)
    reg = 0.01
    points, potential = Sample(target, x), near(nx, target, x, reg, 0.5)
    # a slow mode: potentials that change little from an atom to the next
    potential = potential + 20.0 * reg * target.atoms[:, 0]
    curvature = newton.curvature_of(points, potential, reg)
    assert curvature.asks
    gradient = target.weights - points.measure(potential, reg)[1]
    move, _ = curvature.newton(gradient, 0.0, newton.Told(trace=1.0))
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
        found.append((newton.trace_of(signs, images), np.sum(signs * images) / n_probes))
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
    assert np.isnan(newton.trace_of(signs, np.nan * signs))


@pytest.mark.parametrize("kind", [newton.Curvature, newton.DenseCurvature])
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


def test_probes_have_the_covariance_of_a_draw_of_an_atom(nx64, monkeypatch):
    monkeypatch.setattr(newton, "N_PROBES", 100_000)
    target, _ = cloud(nx64, n_atoms=6, weights=law("dirichlet", 6))
    z, b = nx64.host(newton.probes(target)[1]), nx64.host(target.weights)
    np.testing.assert_allclose(z.sum(axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose(z.T @ z / len(z), np.diag(b) - np.outer(b, b), atol=0.005)


@pytest.mark.parametrize("n_atoms", [3, 30, 300])
@pytest.mark.parametrize("heat", [1e2, 1e4])
def test_trace_of_a_large_regularisation_is_positive(heat, n_atoms, nx):
    """There ``reg A -> diag b - b b^T``: the trace is that of ``Sigma / b``, however small."""
    target, x = cloud(nx, n_atoms=n_atoms, n=1000)
    reg = heat * float(scale_of(target))
    found = newton.improve(Sample(target, x), 0.0 * target.weights, reg)
    blocks = weight_blocks(target, x, found.potential, reg)
    chi = np.concatenate([nx.host(chi) for _, chi in blocks]).astype(float)
    expected = reg * float((chi.var(axis=0) / chi.mean(axis=0)).sum())
    assert found.settled or nx.dtype == "float32"  # whose rounding is larger than what is to be gained
    assert 0.5 * expected < found.trace < 2.0 * expected


def test_a_promise_too_large_ends_the_climb_before_its_step(nx):
    """The half-iteration before it is kept, for it cannot lower the value."""
    target, x = cloud(nx)
    junk = target.centred(nx.array(3.0 * np.random.default_rng(7).normal(size=30)))
    before = measure(target, x, junk, REG)[0]
    found = newton.climb(Sample(target, x), junk, REG, most=0.0)
    assert not found.settled
    assert before < found.value < newton.improve(Sample(target, x), junk, REG).value


def test_far_starts_take_the_ladder(nx, monkeypatch):
    """It does not depend on the start, so that they end at one potential; near ones never see it."""
    target, x = cloud(nx)
    start, ladder, taken = near(nx, target, x, REG), newton._descend, []
    monkeypatch.setattr(newton, "_descend", lambda *args: taken.append(1) or ladder(*args))
    newton.improve(Sample(target, x), start, REG)
    assert not taken
    junk = [nx.array(30.0 * np.random.default_rng(s).normal(size=30)) for s in (7, 8)]
    ends = [nx.host(newton.improve(Sample(target, x), target.centred(p), REG).potential) for p in junk]
    assert len(taken) == 2
    np.testing.assert_array_equal(*ends)


def test_steps_are_as_long_as_the_gaps_between_points(nx):
    """Where no point lies near a boundary the value is a straight line, here of some 1,900 reg."""
    target = build(nx, [[-1.0], [1.0]], [0.25, 0.75])
    x = np.random.default_rng(0).normal(size=(400, 1))
    x[:200] -= 50.0
    x[200:] += 50.0
    found = newton.climb(Sample(target, target.local(nx.array(x))), 0.0 * target.weights, REG)
    np.testing.assert_allclose(nx.host(found.marginal), [0.25, 0.75], atol=0.01)


def test_products_of_weights_are_no_denormal_numbers(nx):
    target, x = cloud(nx)
    potential = nx.array(1e3 * np.random.default_rng(7).normal(size=30))
    for kind in (newton.Curvature, newton.DenseCurvature):
        blocks = kind(Sample(target, x), potential, REG).weights()
        weights = np.concatenate([nx.host(chi) for chi, _ in blocks])
        assert weights.min() ** 2 > np.finfo(nx.dtype).tiny
        np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("start", ["zeros", "near"])
@pytest.mark.parametrize("uniform", [True, False])
def test_unregularised_line_is_solved(uniform, start, nx):
    """4,000 quantiles of the law, 20 atoms: the value is right to a fifth of its statistical error.

    The masses are right to a few percent of the total only: atoms that nearly coincide exchange
    theirs at hardly any cost.
    """
    rng, n = np.random.default_rng(4), 4000
    atoms = np.sort(0.5 * rng.normal(size=20) + 1.0)
    weights = np.full(20, 0.05) if uniform else rng.dirichlet(np.full(20, 2.0))
    points = rng.permutation(stats.norm.ppf((np.arange(n) + 0.5) / n))[:, None]
    exact = references.quantile_potential(atoms, weights, stats.norm.ppf)
    noise = 0.01 * np.ptp(exact) * rng.normal(size=20)
    target = build(nx, atoms[:, None], weights)
    x = target.local(nx.array(points))
    found = newton.improve(Sample(target, x), nx.array((exact + noise) * (start == "near")), 0.0)
    value = measure(target, x, nx.array(exact), 0.0)[0]
    trace = newton.climb(Sample(target, x), nx.array(exact), 0.0).trace
    assert value - found.value < 0.2 * trace / (2 * n)
    assert np.abs(nx.host(found.potential) - exact).max() < 0.01 * np.ptp(exact)
    marginal = nx.host(measure(target, x, found.potential, 0.0)[1])
    assert np.abs(marginal - weights).max() < 0.05


# Caution.


def test_caution_leaves_resolved_atoms_alone(nx):
    target, x = cloud(nx, n=4000)
    found = newton.improve(Sample(target, x), 0.0 * target.weights, REG)
    assert newton.Fit(Sample(target, x), found, REG).cautious() is found.potential
    light = build(nx, nx.host(target.atoms), law("light", 30))
    assert newton.Fit(Sample(light, x), found, 0.0).cautious() is found.potential


def test_caution_lowers_what_few_points_see(nx):
    """More the fewer points an atom receives; those of more than ``RESOLVED`` hardly."""
    target, x = cloud(nx, weights=law("light", 30))
    found = newton.improve(Sample(target, x), 0.0 * target.weights, REG)
    lowered = nx.host(newton.Fit(Sample(target, x), found, REG).cautious()) - nx.host(found.potential)
    expected = 1500 * nx.host(target.weights)
    lowered -= lowered[expected.argmax()]  # the centring adds a constant
    assert (lowered <= 1e-5).all()
    assert np.abs(lowered[expected > newton.RESOLVED]).max() < 0.02 * REG
    assert lowered[expected < 0.1].mean() < -REG


def test_caution_helps_on_fresh_points(nx):
    """Weights down to 1e-8, 10 seeds: no light atom gains mass, and the error falls."""
    rng = np.random.default_rng(0)
    weights = 10.0 ** rng.uniform(-8.0, 0.0, size=40)
    target = build(nx, rng.normal(size=(40, 2)), weights / weights.sum())
    b, errors = nx.host(target.weights), []
    fresh = target.local(nx.array(rng.normal(size=(20_000, 2))))
    for _ in range(10):
        x = target.local(nx.array(rng.normal(size=(500, 2))))
        found = newton.improve(Sample(target, x), 0.0 * target.weights, 0.5)
        careful = newton.Fit(Sample(target, x), found, 0.5).cautious()
        masses = [nx.host(measure(target, fresh, p, 0.5)[1]) for p in (found.potential, careful)]
        light = 500 * b < 1.0
        assert (masses[1][light] <= masses[0][light] * (1.0 + 1e-3)).all()
        errors.append([((m - b) ** 2 / b).sum() for m in masses])
    plain, careful = np.mean(errors, axis=0)
    assert careful < plain


def test_an_atom_that_no_point_reaches_gets_no_mass(nx):
    """Its mass would come from events rarer than any sample shows: far out, and light."""
    rng = np.random.default_rng(1)
    atoms, weights = np.concatenate([rng.normal(size=(60, 2)), [[3.6, 0.0]]]), np.full(61, 1.0 / 60)
    weights[60] = 1e-7
    target = build(nx, atoms, weights / weights.sum())
    x, fresh = (target.local(nx.array(rng.normal(size=(n, 2)))) for n in (2000, 100_000))
    found = newton.improve(Sample(target, x), 0.0 * target.weights, 0.1)
    careful = newton.Fit(Sample(target, x), found, 0.1).cautious()
    masses = [nx.host(measure(target, fresh, p, 0.1)[1]) for p in (found.potential, careful)]
    assert masses[0][60] > 50.0 * 1e-7
    assert masses[1][60] < 1e-7
    np.testing.assert_allclose(masses[1][:60], masses[0][:60], rtol=0.02)
    lack = measure(target, x, careful, 0.1)[0] - found.value
    assert abs(lack) < 0.1 * found.trace / (2.0 * 2000)


# Scale.


@pytest.mark.parametrize("reg", [0.0, 2.0**-10, 2.0**-3])
@pytest.mark.parametrize("factor", [2.0**-12, 2.0**9])
def test_steps_scale_with_the_data_to_the_bit(factor, reg, nx64):
    """Data times s, reg times s^2: potential, value and trace times s^2."""
    rng = np.random.default_rng(0)
    atoms, points = rng.normal(size=(30, 2)), rng.normal(size=(500, 2))
    weights, found = law("dirichlet", 30), []
    for s in (1.0, factor):
        target = build(nx64, atoms * s, weights)
        x = target.local(nx64.array(points * s))
        out = newton.improve(Sample(target, x), 0.0 * target.weights, reg * s * s)
        careful = newton.Fit(Sample(target, x), out, reg * s * s).cautious()
        assert math.isfinite(out.trace)
        potentials = (nx64.host(p) / s**2 for p in (out.potential, careful))
        found.append([*potentials, out.value / s**2, out.trace / s**2])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_smoothing_is_narrower_than_a_cell(nx):
    """On the line, cells of width 1/20: a point is shared by two neighbours at most."""
    atoms = (np.arange(20) + 0.5)[:, None] / 20
    target = build(nx, atoms)
    x = target.local(nx.array(((np.arange(2000) + 0.5) / 2000)[:, None]))
    width = newton.smoothing(Sample(target, x), 0.0 * target.weights)
    chi = nx.host(sweep(target, x, 0.0 * target.weights, width, ("weights",)).weights)
    assert (chi**2).sum(axis=1).mean() >= newton.PURITY
    assert np.sort(chi, axis=1)[:, :-2].sum(axis=1).mean() < 0.1


@pytest.mark.parametrize("n", [1, 100, 5000])
@pytest.mark.parametrize("n_atoms", [1, 100, 1000])
def test_curvature_is_of_the_points_and_of_as_many_as_atoms(n_atoms, n, nx):
    target, x = cloud(nx, n_atoms=n_atoms, n=n)
    few = newton.curvature_of(Sample(target, x), 0.0 * target.weights, REG)
    assert min(n, n_atoms) <= few.n <= n
    assert isinstance(few, newton.DenseCurvature) == (n_atoms <= newton.DENSE)


# Data that degenerate.

DEGENERATE = {
    "duplicate atoms": (lambda r: np.repeat(r.normal(size=(10, 2)), 3, axis=0), 100),
    "equal atoms": (lambda r: np.ones((10, 2)), 100),
    "one atom": (lambda r: r.normal(size=(1, 2)), 100),
    "two atoms": (lambda r: r.normal(size=(2, 2)), 100),
    "far atoms": (lambda r: 1e3 + r.normal(size=(10, 2)), 100),
    "one point": (lambda r: r.normal(size=(10, 2)), 1),
    "two points": (lambda r: r.normal(size=(10, 2)), 2),
    "equal points": (lambda r: r.normal(size=(10, 2)), -100),
}


@pytest.mark.parametrize("reg", [0.0, 1e-3, REG])
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_data_give_finite_results(name, reg, nx):
    rng, (draw, n) = np.random.default_rng(0), DEGENERATE[name]
    target = build(nx, draw(rng))
    points = np.ones((-n, 2)) if n < 0 else rng.normal(size=(n, 2))
    x = target.local(nx.array(points))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = measure(target, x, 0.0 * target.weights, reg)[0]
        found = newton.improve(Sample(target, x), 0.0 * target.weights, reg)
        careful = newton.Fit(Sample(target, x), found, reg).cautious()
    assert np.isfinite(nx.host(found.potential)).all()
    assert np.isfinite(nx.host(careful)).all()
    assert math.isfinite(found.trace)
    assert found.value >= before - 10.0 * nx.eps * abs(before)


@pytest.mark.parametrize("n", [64, 100, 128, 500])
def test_a_part_of_quasi_random_points_is_as_even_as_all_of_them(n):
    x = SobolSampler(2, random_state=0)(1024)
    part = spread(x, n)
    assert n / 2 <= len(part) <= n
    for axis in (0, 1):
        halves = (part[:, axis] < 0.5).mean()
        assert abs(halves - 0.5) < 2.0 / len(part) ** 0.75  # 0 or 1 where the spacing is even
