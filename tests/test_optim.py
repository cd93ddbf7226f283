"""The optimisers, by properties: identities of the objective, increase, right masses, bounded work."""

from dataclasses import replace

import numpy as np
import ot
import pytest
from scipy.stats import norm

import pot_semidiscrete as ps
from benchmarks import references
from benchmarks.references import quantile_potential
from pot_semidiscrete.inference.estimates import evaluate
from pot_semidiscrete.inference.trace import Models, trace_estimate
from pot_semidiscrete.optim import hessian as hessians
from pot_semidiscrete.optim import newton
from pot_semidiscrete.optim.ascent import (
    CLIP,
    AscentState,
    cold_start,
    compute_move,
    resolving_eps,
    slope_in_eps,
    step,
)
from pot_semidiscrete.optim.semi_dual import SemiDual
from pot_semidiscrete.optim.stopping import ChiSquareRule, Look
from pot_semidiscrete.problem import Problem, build_target
from pot_semidiscrete.solver import run
from tests.clouds import REG, build, cloud, dense, law, near

LAWS = ["uniform", "dirichlet", "light"]


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("reg", [0.0, REG])
def test_measurement_is_what_the_weights_say(name, reg, nx):
    target, x = cloud(nx, weights=law(name, 30))
    dual, psi = SemiDual(target), nx.array(0.1 * np.random.default_rng(1).normal(size=30))
    found = dual.measure(x, psi, reg)
    chi, b = dense(nx, target, x, psi, reg)[0], nx.host(target.weights)
    m, second = chi.mean(axis=0), (chi**2).mean(axis=0)
    np.testing.assert_allclose(nx.host(found.marginal), m, atol=20 * nx.eps)
    np.testing.assert_allclose(nx.host(found.second_moment), second, atol=20 * nx.eps)
    expected = max((second / np.maximum(b, m)).sum() - 1.0, 1.0)
    assert found.n_eff == pytest.approx(expected, rel=1e-3)
    assert found.n_eff <= 29.0 * (1.0 + 1e-5)
    assert dual.work == 1500 * 30


def test_effective_number_of_atoms_goes_from_1_to_all(nx):
    """As the regularisation falls, at the optimum of each."""
    target, x = cloud(nx, n=3000)
    dual = SemiDual(target)
    found = [newton.eps_scaling(dual, x, reg).measured.n_eff for reg in (100.0, 1.0, 0.1, 0.01)]
    assert found[0] == 1.0
    assert found == sorted(found)
    assert found[-1] > 20.0


@pytest.mark.parametrize("dense_atoms", [0, 256])
def test_hessian_is_that_of_the_value(dense_atoms, nx64, monkeypatch):
    """Both forms against differences of the gradient, and solutions against the matrix."""
    monkeypatch.setattr(hessians, "DENSE", dense_atoms)
    target, x = cloud(nx64)
    dual, rng = SemiDual(target), np.random.default_rng(2)
    psi, v = (nx64.array(0.1 * rng.normal(size=30)) for _ in range(2))
    found = hessians.hessian(dual, x, psi, REG, len(x), target.weights)
    assert isinstance(found, hessians.DenseHessian) == (dense_atoms > 0)
    ahead, behind = (nx64.host(dual.measure(x, psi + h * v, REG).marginal) for h in (1e-5, -1e-5))
    np.testing.assert_allclose(
        nx64.host(found.apply(v)), REG * (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-10
    )
    g = target.weights - dual.measure(x, psi, REG).marginal
    scale, g = np.asarray(found.scale), nx64.host(g)
    rows = np.stack([g, 0.01 * np.diff(np.append(g, g[0]))])  # side by side, as one by one
    s = nx64.host(found.solve(nx64.array(rows), 0.1, 1e-12))
    for row, one in zip(rows, s, strict=True):
        np.testing.assert_allclose(nx64.host(found.solve(nx64.array(row), 0.1, 1e-12)), one, rtol=1e-5)
        left = nx64.host(found.apply(nx64.array(one))) + 0.1 * scale * one - row
        assert np.abs(left).max() < 1e-5 * np.abs(row).max()


@pytest.mark.parametrize("room", [250, 190, 60])
def test_hessians_keep_about_as_many_weights_as_there_is_room_for(room, nx, monkeypatch):
    target, x = cloud(nx, n_atoms=300, n=400)
    monkeypatch.setattr(hessians, "STORE", 300 * room)
    b = target.weights
    found = hessians.hessian(SemiDual(target), x, 0.0 * b, REG, len(x), b)
    assert 0.66 * room <= sum(chi.shape[0] for chi in found.blocks) == found.n <= 2 * room


@pytest.mark.parametrize("d", [1, 2])
def test_sparse_hessian_is_the_dense_one(d, nx):
    """But for the weights left out; in a plane and on a line, at what tells atoms apart."""
    rng = np.random.default_rng(0)
    target = build(nx, rng.normal(size=(300, d)))
    x = nx.array(rng.normal(size=(6000, d)))
    dual, psi = SemiDual(target), 0.0 * target.weights
    eps = resolving_eps(dual, x, psi, 0.0)
    found, exact = (
        hessians.newton_model(dual, x, psi, eps, 6000, target.weights),
        hessians.DenseHessian(dual, x, psi, eps, target.weights),
    )
    assert isinstance(found, hessians.SparseHessian)
    assert found.bandwidth < 150
    matrix = np.diag(found.mean) - found.products.toarray()
    np.testing.assert_allclose(matrix, exact.matrix, atol=1e-6)
    np.testing.assert_allclose(found.scale, exact.scale, atol=1e-6)
    np.testing.assert_allclose(matrix.sum(axis=1), 0.0, atol=1e-14)
    g = target.weights - dual.measure(x, psi, eps).marginal
    steps = [nx.host(model.solve(g, 0.1)) for model in (found, exact)]
    np.testing.assert_allclose(steps[0] - steps[0].mean(), steps[1] - steps[1].mean(), atol=1e-3)


def test_wide_hessians_are_not_factorised(nx):
    """Where points see many atoms, and where all see few but neighbours are many."""
    target, x = cloud(nx, n_atoms=300, n=400, d=2)
    dual, psi = SemiDual(target), 0.0 * target.weights
    found = hessians.newton_model(dual, x, psi, 10.0, 400, target.weights)
    assert type(found) is hessians.HessianOperator
    target, x = cloud(nx, n_atoms=800, n=800, d=8)
    dual, psi = SemiDual(target), 0.0 * target.weights
    eps = resolving_eps(dual, x, psi, 0.0) / 4.0
    found = hessians.newton_model(dual, x, psi, eps, 800, target.weights)
    assert found.bandwidth**2 > 20 * found.n
    g = target.weights - dual.measure(x, psi, eps).marginal
    s = found.solve(g, 0.1, 1e-12)
    left = nx.host(found.apply(s)) + 0.1 * nx.host(found.scale * s) - nx.host(g)
    assert np.abs(left).max() < 1e-4 * np.abs(nx.host(g)).max()


def test_hessians_of_points_in_a_cell_each(nx):
    """There are no neighbours; nor does a gradient of a sum that rounding makes move the constants."""
    atoms = np.random.default_rng(0).normal(size=(300, 2))
    target = build_target(ps.StoredAtoms(nx.array(atoms))).detached
    dual, psi = SemiDual(target), 0.0 * target.weights
    x = target.center(nx.array(atoms[::2]))
    found = hessians.newton_model(dual, x, psi, 1e-8, 150, target.weights)
    assert isinstance(found, hessians.SparseHessian)
    assert np.abs(nx.host(found.apply(target.weights * nx.array(atoms[:, 0])))).max() == 0.0
    g = np.where(np.arange(300) % 2 == 0, 1.0, -1.0) / 300
    s = nx.host(found.solve(nx.array(g + 1e-7), 1e-8))
    assert abs(nx.host(found.scale) @ s) < 1e-4 * np.abs(s).max()


def test_hessians_of_points_that_see_all_atoms_are_not_sparse(rng):
    """Not of weights that are all small, nor where a few points see a crowd and most see few atoms."""
    even = SemiDual(build_target(rng.normal(size=(1_200_000, 1)).astype(np.float32)))
    psi, x = 0.0 * even.target.weights, np.zeros((2, 1), dtype=np.float32)
    found = hessians.newton_model(even, x, psi, 1e8, 2, even.target.weights)
    assert type(found) is hessians.HessianOperator
    crowd, others = 1e-3 * rng.normal(size=(500, 2)), 100.0 * rng.normal(size=(500, 2))
    dual, x = SemiDual(build_target(np.concatenate([crowd, others]))), np.tile(others, (2, 1))
    x[1::100] = 0.0  # none of every 33rd
    x = dual.target.center(x)
    b = dual.target.weights
    assert type(hessians.newton_model(dual, x, 0.0 * b, 1.0, 1000, b)) is hessians.HessianOperator


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("size", [0.0, 1.0, 30.0])
def test_newton_never_falls_and_ends_with_the_masses_right(name, size, nx):
    """From near and from absurd potentials, to rounding."""
    target, x = cloud(nx, weights=law(name, 30))
    dual = SemiDual(target)
    start = nx.array(size * np.random.default_rng(4).normal(size=30))
    before = dual.measure(x, start, REG).value
    found = newton.newton_cg(dual, x, start, REG, rtol=0.0)
    assert found.measured.value >= before - 1e-6 * abs(before)
    b, m = nx.host(target.weights), nx.host(found.measured.marginal)
    assert ((m - b) ** 2 / b).sum() < 1e-3
    assert abs(b @ nx.host(found.potential)) < 1e-4


def test_newton_finds_the_optimum_of_a_finite_source(nx64):
    target, x = cloud(nx64, n=400)
    found = newton.eps_scaling(SemiDual(target), x, REG)
    source = references.Quadrature(nx64.host(x), np.full(400, 1.0 / 400))
    exact = references.newton(source, nx64.host(target.atoms), nx64.host(target.weights), REG)
    assert found.measured.value == pytest.approx(exact.value, rel=1e-9)


@pytest.mark.parametrize("store", [2**25, 8 * 300])
def test_a_model_of_few_points_does_no_harm(store, nx, monkeypatch):
    """Fewer points than atoms in the Hessian, where there is no room for more: damped, bounded."""
    monkeypatch.setattr(hessians, "STORE", store)
    monkeypatch.setattr(newton, "QUICK", 0)
    target, x = cloud(nx, n_atoms=300, n=4000, d=5)
    dual, start = SemiDual(target), 0.0 * target.weights
    before = dual.measure(x, start, REG).value
    found = newton.maximize(dual, x, start, REG, eps=REG)
    assert found.measured.value > before
    assert dual.work < 10.0 * len(x) * 300


def test_a_correction_that_is_cut_off_ends_with_a_sinkhorn_iteration(nx):
    """The masses are nearer to the goal than Newton's last step may leave them."""
    target, x = cloud(nx, weights=law("dirichlet", 30))
    dual, psi = SemiDual(target), nx.array(0.5 * REG * np.random.default_rng(4).normal(size=30))
    before = dual.measure(x, psi, REG)
    found = newton.newton_cg(dual, x, psi, REG, last=dual.work)
    expected = target.zero_mean(psi + REG * target.nx.log(target.weights / before.marginal))
    np.testing.assert_allclose(nx.host(found.potential), nx.host(expected), atol=50 * nx.eps)
    assert found.measured.value > before.value
    assert not found.converged


def test_box_bends_no_step_downwards(nx64, monkeypatch):
    """A step cut off at the box is scaled to where the model rises; light atoms, far away."""
    monkeypatch.setattr(newton, "BOX", 0.1)
    target, x = cloud(nx64, weights=law("light", 30))
    start = nx64.array(3.0 * np.random.default_rng(4).normal(size=30))
    found = newton.newton_cg(SemiDual(target), x, start, REG, rtol=0.0)
    b, m = nx64.host(target.weights), nx64.host(found.measured.marginal)
    assert ((m - b) ** 2 / b).sum() < 1e-6


@pytest.mark.parametrize("reg", [0.0, 1e-9])
def test_masses_are_right_at_next_to_no_regularisation(reg, nx64):
    """To what 4,000 points of 50 cells have: it is no worse than where it began, and within bounds."""
    rng = np.random.default_rng(0)
    target = build(nx64, rng.random((50, 2)))
    dual, x = SemiDual(target), target.center(nx64.array(rng.random((4000, 2))))
    found = newton.maximize(dual, x, 0.0 * target.weights, reg)
    m = nx64.host(found.measured.marginal)
    assert 50.0 * ((m - 0.02) ** 2).sum() < 50 / 4000
    assert dual.work < 8 * max(newton.CORRECTION * 4000 * 50, newton.QUICK)


def test_masses_are_right_on_a_line_of_many_atoms(nx64):
    """Its modes are the slowest: by conjugate gradients the value was 15% short."""
    rng = np.random.default_rng(0)
    atoms, x = rng.normal(size=(300, 1)), rng.normal(size=(3000, 1))
    target = build(nx64, atoms)
    start, x_of_target = 0.0 * target.weights, target.center(nx64.array(x))
    found = newton.maximize(SemiDual(target), x_of_target, start, 0.0)
    assert 0.99 < found.measured.value / ot.emd2_1d(x[:, 0], atoms[:, 0]) <= 1.0
    b, m = nx64.host(target.weights), nx64.host(found.measured.marginal)
    assert ((m - b) ** 2 / b).sum() < 300 / 3000


def test_eps_that_tells_atoms_apart(nx64):
    target, x = cloud(nx64)
    dual, psi = SemiDual(target), 0.0 * target.weights
    eps = resolving_eps(dual, x, psi, 0.0)
    purity = lambda eps: (nx64.host(dual.measure(x, psi, eps).second_moment).sum() - 1 / 30) / (29 / 30)
    assert purity(eps) >= 0.5 > purity(2.0 * eps)
    assert resolving_eps(dual, x, psi, 10.0 * eps) == 10.0 * eps
    assert resolving_eps(dual, x, psi, 0.01 * eps) == pytest.approx(eps)


@pytest.mark.parametrize("dense_atoms", [0, 256])
def test_trace_is_that_of_the_matrices(dense_atoms, nx64, monkeypatch):
    """The exact one to rounding; by a few random vectors to what they scatter by."""
    monkeypatch.setattr(hessians, "DENSE", dense_atoms)
    target, x = cloud(nx64)
    psi = near(nx64, target, x, REG, 0.0)
    chi, matrix = dense(nx64, target, x, psi, REG)
    covariance = np.cov(chi.T, bias=True)
    exact = REG * np.trace(np.linalg.pinv(matrix, rcond=1e-9) @ covariance)
    found = trace_estimate(Models(SemiDual(target), x, psi, REG))
    assert found == pytest.approx(exact, rel=1e-6 if dense_atoms else 0.5)


@pytest.mark.parametrize("reg", [0.0, 1e-4])
def test_trace_has_a_closed_form_on_the_line(reg, nx64):
    """Minus the Hessian is tridiagonal at ``reg = 0``, of densities at the ends of the cells.

    Points see none of it there, and not enough at a small reg; whatever the weights are.
    """
    atoms, b = np.linspace(-1.5, 1.5, 28), np.tile([1.0, 3.0, 1.0, 2.0], 7) / 49.0
    psi = quantile_potential(atoms, b, norm.ppf)
    link = norm.pdf(norm.ppf(np.cumsum(b)[:-1])) / (2.0 * np.diff(atoms))
    matrix = np.diag(np.append(link, 0.0) + np.append(0.0, link)) - np.diag(link, 1) - np.diag(link, -1)
    exact = np.trace(np.linalg.pinv(matrix) @ (np.diag(b) - np.outer(b, b)))
    target = Problem.of(nx64.array(atoms[:, None]), nx64.array(b)).target
    x = target.center(nx64.array(np.random.default_rng(0).normal(size=(20_000, 1))))
    found = trace_estimate(Models(SemiDual(target), x, nx64.array(psi - reg * np.log(b)), reg))
    assert found == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("dense_atoms", [0, 256])
def test_trace_of_atoms_that_no_point_links(dense_atoms, nx64, monkeypatch):
    """Two pairs far apart: that of each pair, and nothing of the boundary between them."""
    monkeypatch.setattr(hessians, "DENSE", dense_atoms)
    rng, reg, psi = np.random.default_rng(0), 8.0, np.zeros(4)
    one, atoms = rng.normal(size=(400, 1)) - 50.0, np.array([[-51.0], [-49.0]])
    pair, both = (
        build(nx64, rows, np.ones(len(rows)) / len(rows)) for rows in (atoms, np.vstack([atoms, -atoms]))
    )
    expected = trace_estimate(
        Models(SemiDual(pair), pair.center(nx64.array(one)), nx64.array(psi[:2]), reg)
    )
    x = both.center(nx64.array(np.vstack([one, -one])))
    found = trace_estimate(Models(SemiDual(both), x, nx64.array(psi), reg))
    assert found == pytest.approx(2.0 * expected, rel=1e-6 if dense_atoms else 1.0)
    assert found > 0.1 * expected > 0.0


def test_batches_follow_the_noise_of_the_gradient():
    state = AscentState(None, None, 1.0, n_eff=1000.0)
    assert state.batch == 500
    assert AscentState(None, None, 1.0, n_eff=2.0).batch == 32
    averaged = AscentState(None, None, 1.0, 1.0, samples=6000.0, n_eff=1000.0)
    assert averaged.batch == 1000
    assert averaged.steps == pytest.approx(8.0)  # the integral of 1 / (500 (1 + n / 2000)^(1/2))
    falling = replace(averaged, annealed=1.5)
    assert falling.batch == 667
    assert replace(averaged, annealed=4.0).batch == 500  # steps have fallen by as much
    few = AscentState(None, None, 0.1, 1.0, samples=4.0 * 32 * 1024, n_eff=4.0)
    assert few.batch == 2 * 32  # a step of so few takes as long with more
    assert replace(few, samples=32.0 * 1024).batch == 32


@pytest.mark.parametrize("reg", [0.0, 0.01])
def test_steps_of_few_atoms_are_no_more_than_the_root_of_the_samples(reg, monkeypatch):
    """Else 1,280,000 samples for two atoms are 40,000 steps, and take as long as their overhead."""
    counts, n = [], 1000 * 256
    monkeypatch.setattr(run, "step", lambda *args: counts.append(1) or step(*args))
    options = {"tol": 0, "max_iter": 1000, "batch_size": 256, "random_state": 0}
    ps.solve_semidiscrete(np.array([[-1.0], [1.0]]), "normal", reg=reg, **options)
    bound = 1024 * (2.0 * np.sqrt(n / (32 * 1024)) - 1.0)  # the integral of 1 / batch
    assert 0.9 * bound < len(counts) < 1.1 * bound
    assert bound < 0.6 * n / 32


def test_annealing_takes_its_share_of_the_samples(nx):
    """Of batches in units of n_eff, which grows as 1 / eps in the plane; no more in 16 dimensions."""
    for d, least in ((2, 0.5), (16, 0.0)):
        rng = np.random.default_rng(0)
        target = build(nx, rng.normal(size=(400, d)))
        dual, draw = SemiDual(target), lambda n, d=d, rng=rng: nx.array(rng.normal(size=(n, d)))
        budget = 100.0 * 400
        state, n = cold_start(dual, draw(64), 0.0, budget), 0
        assert state.ratio == pytest.approx((0.3 * 0.1 * 100.0) ** (2.0 / 3.0))
        while not state.annealed:
            x = target.center(draw(state.batch))
            state, _ = step(dual, state, x, 0.0, budget)
            n += len(x)
        assert least * 0.3 * budget < n < 1.2 * 0.3 * budget


def test_slope_in_eps_is_that_of_gaussian_laws(nx64):
    """One has the potential ``(1 - 1 / s + eps / (4 s^2)) y^2`` to first order, for variances 1, s^2."""
    middle = lambda n: norm.ppf((np.arange(n) + 0.5) / n)
    s, eps = 1.5, 0.1
    target = build(nx64, s * middle(400)[:, None])
    dual, x = SemiDual(target), target.center(nx64.array(middle(4000)[:, None]))
    y = nx64.host(target.atoms)[:, 0]
    psi = lambda eps: newton.newton_cg(dual, x, nx64.array((1 - 1 / s) * y**2), eps, rtol=0.0).potential
    found = dual.measure(x, psi(eps), eps)
    slope = nx64.host(slope_in_eps(target, found.goal, found.second_moment / found.marginal))
    exact = nx64.host(psi(eps) - psi(eps / 1.1)) / (eps - eps / 1.1)
    inner = np.abs(y) < 2.0 * s  # the outermost atoms have points of their own
    fit = lambda v: np.polyfit(y[inner], v[inner], 2)[0]
    assert fit(exact) == pytest.approx(1.0 / (4.0 * s**2), rel=0.15)
    assert fit(slope) == pytest.approx(fit(exact), rel=0.15)


def test_atoms_with_points_of_their_own_stay(nx):
    """And so do all where points see all atoms alike."""
    target, _ = cloud(nx)
    b = target.weights
    for peak in (0.0 * b + 1.0, b):
        assert np.abs(nx.host(slope_in_eps(target, b, peak))).max() < 1e-6


def test_ascent_anneals_then_averages(nx):
    target, _ = cloud(nx)
    dual, rng = SemiDual(target), np.random.default_rng(0)
    draw = lambda n: target.center(nx.array(rng.normal(size=(n, 2))))
    state = cold_start(dual, draw(64), REG)
    seen = [state]
    while state.samples < 4000:
        state, _ = step(dual, state, draw(state.batch), REG, 1e9)
        seen.append(state)
    levels = [s.eps for s in seen]
    assert levels == sorted(levels, reverse=True)
    assert levels[-1] == REG
    assert levels[0] > 10.0 * REG
    assert all(s.average is s.potential for s in seen if not s.annealed)
    m = nx.host(dual.measure(draw(20_000), state.average, REG).marginal)
    assert 30.0 * ((m - 1.0 / 30) ** 2).sum() < 0.05


def test_a_run_stops_soon_after_its_tolerance():
    """1,000 atoms in 16 dimensions: chi2 on 50,000 points is a third of tol^2 to all."""
    atoms = np.random.default_rng(0).normal(size=(1000, 16)).astype(np.float32)
    reg, tol = 0.01 * ps.cost_scale(atoms), 0.2
    result = ps.solve_semidiscrete(atoms, "normal", reg=reg, tol=tol, random_state=0)
    assert result.converged
    x = np.random.default_rng(1).normal(size=(50_000, 16)).astype(np.float32)
    chi = [ps.semidiscrete_atom_weights(atoms, p, result.potential, reg=reg) for p in np.split(x, 50)]
    m = np.mean([c.mean(axis=0) for c in chi], axis=0)
    noise = 1000.0 * np.mean([(c.astype(float) ** 2).sum() / len(c) for c in chi]) / len(x)
    chi2 = 1000.0 * ((m - 1e-3) ** 2).sum() - noise
    assert tol**2 / 3.0 < chi2 <= tol**2
    n_eff = noise * len(x)
    assert result.work < 4.0 * 1000 * n_eff / tol**2


def test_a_dear_sampler_is_asked_for_less():
    """In the plane, where slow modes are what is left: Newton's method instead of more points.

    Both potentials are as accurate, on points of their own.
    """
    atoms = np.random.default_rng(0).normal(size=(300, 2))
    options = {"reg": 1e-3 * ps.cost_scale(atoms), "tol": 0.1, "random_state": 0}
    runs = {
        c: ps.solve_semidiscrete(atoms, "normal", sample_cost=c, **options) for c in (0.0, 1.0, 100.0)
    }
    assert runs[100.0].n_samples < 0.8 * runs[0.0].n_samples
    assert runs[100.0].work > runs[0.0].work
    np.testing.assert_array_equal(runs[1.0].potential, runs[0.0].potential)
    target, x = build_target(atoms), np.random.default_rng(1).normal(size=(100_000, 2))
    for result in runs.values():
        assert result.converged
        found = evaluate(SemiDual(target), target.center(x), result.potential, options["reg"])
        assert found.bound < options["tol"] ** 2


def test_a_good_start_is_not_corrected_by_a_few_points():
    """In eight dimensions these know less than the start, whatever they cost."""
    atoms = np.random.default_rng(0).normal(size=(400, 8))
    options = {"reg": 1e-3 * ps.cost_scale(atoms)}
    start = ps.solve_semidiscrete(atoms, "normal", tol=0.3, random_state=1, **options).potential
    options |= {"tol": 0.25, "random_state": 11, "init_potential": start}
    cheap, dear = (
        ps.solve_semidiscrete(atoms, "normal", sample_cost=cost, **options) for cost in (0.0, 1e4)
    )
    assert cheap.converged
    assert dear.converged
    assert 0 < dear.n_samples <= cheap.n_samples


def test_a_run_that_keeps_no_points_draws_on_however_dear():
    """There is nothing to correct by."""
    atoms = np.random.default_rng(0).normal(size=(100, 2))
    options = {"reg": 1e-3 * ps.cost_scale(atoms), "tol": 0.2, "random_state": 0, "max_memory": 0}
    cheap, dear = (
        ps.solve_semidiscrete(atoms, "normal", sample_cost=cost, **options) for cost in (0.0, 100.0)
    )
    assert dear.n_samples == cheap.n_samples
    assert dear.work == cheap.work
    np.testing.assert_array_equal(dear.potential, cheap.potential)


def test_rare_visits_weigh_as_much_as_their_absence(nx64):
    """At the right masses the mean step is 0, however few points visit an atom."""
    n_atoms, n = 1000, 10  # a visit gives 100 times the mass
    target = build(nx64, np.arange(float(n_atoms))[:, None])
    marginal = nx64.array(np.where(np.arange(n_atoms) < n, 1.0 / n, 0.0))  # of points in a cell each
    facts, visit = (target.nx, target.weights, marginal), nx64.array(np.full(n_atoms, 1.0 / n))
    moves = nx64.host(compute_move(*facts, visit=visit))
    assert abs(moves.mean()) < 1e-9
    assert abs(moves).max() <= CLIP
    cut_off = nx64.host(compute_move(*facts))
    assert cut_off.mean() > 0.5


def few_and(light, weight, dtype=np.float64):
    """Atoms of a plane, so many of them light, and the weights of all."""
    weights = np.concatenate([np.full(light, weight), np.ones(150)])
    atoms = np.random.default_rng(0).normal(size=(light + 150, 2))
    return atoms.astype(dtype), (weights / weights.sum()).astype(dtype)


@pytest.mark.parametrize("seed", [0, 1])
def test_light_atoms_do_not_put_off_a_look(seed):
    """Far too heavy in a few batches, in units of their weights, as they are moved in other units."""
    atoms, weights = few_and(50, 1e-12)
    light = ps.solve_semidiscrete(atoms, "normal", weights, reg=0.05, random_state=seed)
    plain = ps.solve_semidiscrete(atoms[50:], "normal", reg=0.05, random_state=seed)
    assert light.converged
    assert light.log["check_n_iter"][0] <= 1.5 * plain.log["check_n_iter"][0]


def test_masses_that_are_free_and_nearly_0_do_not_put_off_a_look(nx):
    """Goals are 0 to rounding where a mass is cheap to give up, and the error is more than a float."""
    atoms = 5.0 * np.random.default_rng(0).normal(size=(100, 2))
    result = ps.solve_semidiscrete(
        nx.array(atoms), "normal", reg=0.1, reg_m=0.01, max_iter=300, random_state=0
    )
    assert result.converged


@pytest.mark.parametrize("weight", [1e-17, 1e-20, 1e-28])
def test_newton_is_as_fast_with_atoms_that_are_light_in_float32(weight):
    """Masses below what a kernel cuts off are not to be reached; those above are, as in float64."""
    found, work = {}, {}
    for dtype in (np.float32, np.float64):
        target = build_target(*few_and(20, weight, dtype))
        x = target.center(np.random.default_rng(1).normal(size=(5000, 2)).astype(dtype))
        dual = SemiDual(target)
        found[dtype] = newton.maximize(dual, x, 0.0 * target.weights, 0.5)
        work[dtype] = dual.work
    one, other = (found[dtype].potential for dtype in found)
    assert found[np.float32].converged
    assert work[np.float32] <= 1.2 * work[np.float64]
    first = 0 if weight > 1e-25 else 20
    np.testing.assert_allclose(one[first:], other[first:], atol=1e-3)


@pytest.mark.parametrize(
    ("looks", "is_stalled"),
    [
        ([(100, 0.05, 0.001), (1600, 0.05, 0.001)], True),
        ([(100, 0.05, 0.001), (1500, 0.05, 0.001)], False),  # not yet
        ([(100, 0.05, 0.001), (1600, 0.02, 0.001)], False),  # it has halved
        ([(100, 0.015, 0.01), (1600, 0.015, 0.001)], False),  # or may have
        ([(100, -0.004, 0.002), (1600, -0.001, 0.001)], False),  # masses are right: it is the value
    ],
)
def test_runs_whose_error_no_longer_falls_are_stalled(looks, is_stalled):
    rule = ChiSquareRule(0.1)
    for n, chi2, stderr in looks:
        assert not rule.is_stalled
        rule.wait(Look(chi2, stderr), n)
    assert rule.is_stalled == is_stalled
