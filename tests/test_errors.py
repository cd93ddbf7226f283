"""Standard errors of a result: against the truth, closed forms and brute force."""

import pickle

import numpy as np
import pytest
from scipy.stats import norm

from benchmarks import references
from benchmarks.problems import normal_density
from benchmarks.references import quantile_potential
from pot_semidiscrete import (
    SemiDiscreteResult,
    SemiDiscreteWarning,
    StoredAtoms,
    cost_scale,
    semidiscrete_atom_weights,
    semidiscrete_ot_map,
    solve_semidiscrete,
)
from pot_semidiscrete.applications import ErrorBars
from pot_semidiscrete.inference import errors
from pot_semidiscrete.inference.errors import NormalLaw
from pot_semidiscrete.inference.estimates import Estimates
from pot_semidiscrete.optim.newton import maximize
from pot_semidiscrete.optim.semi_dual import SemiDual
from pot_semidiscrete.problem import Problem

ATOMS = np.random.default_rng(0).normal(size=(8, 1))
REG = 0.1 * cost_scale(ATOMS)
X = np.linspace(-1.0, 1.0, 5)[:, None]
SOURCE = references.gauss_legendre(-8.0, 8.0, 600, normal_density)


def squares(x, y):
    """Squared distances of points of a line."""
    return (x - y.T) ** 2


def solve(atoms=ATOMS, reg=REG, **options):
    """A normal source on the line."""
    return solve_semidiscrete(atoms, "normal", reg=reg, **{"random_state": 0} | options)


def deviations(runs, reg):
    """Errors in units of their standard errors."""
    truth = references.newton(SOURCE, ATOMS, np.full(8, 1.0 / 8), reg).potential
    chi = semidiscrete_atom_weights(ATOMS, SOURCE.nodes, truth, reg=reg)
    cost = SOURCE.mass @ np.sum(chi * squares(SOURCE.nodes, ATOMS), axis=1)
    images = semidiscrete_ot_map(ATOMS, X, truth, reg=reg)
    off = {"potential": [], "map": [], "cost": []}
    for result in runs:
        estimate, stderr = result.functional(squares)
        off["potential"].append((result.potential - truth) / result.potential_stderr)
        off["map"].append((result.ot_map(X) - images) / result.map_stderr(X))
        off["cost"].append((estimate - cost) / stderr)
    return off


def test_errors_hold_the_truth_where_newton_ended_the_run():
    """Over 40 runs, 95%, and no wider than they need be: the maximiser over the points of the run."""
    runs = (solve(tol=0, max_iter=10, random_state=seed) for seed in range(40))
    for values in deviations(runs, REG).values():
        assert np.mean(np.abs(values) < 1.96) > 0.88
        assert 0.7 < np.mean(np.square(values)) < 1.4


@pytest.mark.filterwarnings("ignore::pot_semidiscrete.SemiDiscreteWarning")
@pytest.mark.parametrize("options", [{"tol": 0.4}, {"tol": 0, "max_iter": 2, "max_memory": 0}])
def test_errors_hold_the_truth_wherever_the_ascent_stopped(options):
    """A run that was stopped early is off by more than its noise; the fresh points show it."""
    reg = 0.2 * REG
    off = deviations((solve(reg=reg, random_state=seed, **options) for seed in range(30)), reg)
    for values in off.values():
        assert np.mean(np.abs(values) < 1.96) > 0.9
    assert np.mean(np.square(off["potential"])) > 0.2  # and not by being as wide as can be


def test_two_atoms_have_a_closed_form(nx):
    """psi = (p, -p): the error of p is ``reg sd(chi_1) / (2 sqrt(n) E chi_1 chi_2)``.

    The map follows p: the ends of the interval are those of p.
    """
    atoms, weights, reg, n = np.array([[-1.0], [1.5]]), np.array([0.3, 0.7]), 0.8, 20_000
    result = solve_semidiscrete(nx.array(atoms), "normal", nx.array(weights), reg=reg, random_state=0)
    x = np.random.default_rng(1).normal(size=(n, 1))
    bars = ErrorBars(result, nx.array(x), random_state=0)
    truth = references.newton(SOURCE, atoms, weights, reg).potential
    chi = semidiscrete_atom_weights(atoms, SOURCE.nodes, truth, weights, reg=reg)
    both = SOURCE.mass @ (chi[:, 0] * chi[:, 1])
    gap = reg * np.sqrt((SOURCE.mass @ chi[:, 0] ** 2 - 0.3**2) / n) / both  # of psi_1 - psi_2
    expected = gap * np.array([0.7, 0.3])  # of weighted mean 0
    np.testing.assert_allclose(nx.host(bars.potential_stderr), expected, rtol=0.03)
    potentials = [nx.host(bars.potential) + s * 1.96 * gap * np.array([0.7, -0.3]) for s in (0, 1, -1)]
    middle, *ends = (semidiscrete_ot_map(atoms, X, psi, weights, reg=reg) for psi in potentials)
    expected = np.max(np.abs(np.array(ends) - middle), axis=0) / 1.96
    np.testing.assert_allclose(nx.host(bars.map_stderr(nx.array(X))), expected, rtol=0.05)


def stderr_on_the_line(y, b, n):
    """Those of the potential of a normal source at ``reg = 0``, where ends of cells are quantiles."""
    B, k = np.cumsum(b)[:-1], len(y) - 1
    moves = np.cumsum(np.eye(k), axis=0) * (-2.0 * np.diff(y) / norm.pdf(norm.ppf(B)))
    moves = np.vstack([np.zeros(k), moves])
    moves = moves - b @ moves
    return np.sqrt(np.diag(moves @ (np.minimum.outer(B, B) - np.outer(B, B)) @ moves.T) / n)


@pytest.mark.parametrize("reg", [0.0, 1e-4])
def test_errors_on_the_line_are_those_of_quantiles(reg, nx):
    """At ``reg = 0``: the ends of cells are quantiles of the points; and at a reg that is nearly 0.

    ``psi_{j+1} - psi_j`` moves by ``2 (y_j - y_{j+1})`` times the end t_j, and quantiles of n points
    have the covariance ``B_i (1 - B_j) / (n f(t_i) f(t_j))``. The cost has that of the c-transform.
    """
    n, y, b = 20_000, np.linspace(-1.5, 1.5, 28), np.tile([1.0, 3.0, 1.0, 2.0], 7) / 49.0
    x, B = np.random.default_rng(0).normal(size=(n, 1)), np.cumsum(b)[:-1]
    atoms, weights = nx.array(y[:, None]), nx.array(b)
    result = solve_semidiscrete(atoms, "normal", weights, reg=reg, tol=0.2, random_state=0)
    bars = ErrorBars(result, nx.array(x))
    ends = np.quantile(x[:, 0], B)
    fitted = quantile_potential(y, b, lambda _: ends)
    unit = 2.0 * np.diff(y) * np.sqrt(B * (1.0 - B) / n) / norm.pdf(norm.ppf(B))
    off = np.diff(nx.host(bars.potential) + reg * np.log(b) - fitted) / unit
    assert np.max(np.abs(off)) < 0.3  # the maximiser over the points
    ratio = nx.host(bars.potential_stderr) / stderr_on_the_line(y, b, n)
    assert ratio.mean() == pytest.approx(1.0, abs=0.05)
    assert ratio.std() < 0.05
    cost, stderr = bars.functional(lambda x, y: (x - y.T) ** 2)
    transform = nx.host(bars.c_transform(nx.array(x)))
    assert cost == pytest.approx(transform.mean(), rel=0.01)
    assert stderr == pytest.approx(transform.std() / np.sqrt(n), rel=0.02)


@pytest.mark.parametrize("seed", [2, 3])
def test_errors_at_atoms_that_lie_far_out(seed):
    """Less than a point is within the kernel of one bandwidth, and bars would be 40 times too wide."""
    rng, n = np.random.default_rng(seed), 10_000
    y, b = np.sort(rng.normal(size=100)), np.full(100, 0.01)
    result = solve(y[:, None], 0.0, tol=0.2)
    ratio = ErrorBars(result, rng.normal(size=(n, 1))).potential_stderr / stderr_on_the_line(y, b, n)
    assert np.median(ratio) == pytest.approx(1.0, abs=0.1)
    assert np.all((ratio > 0.75) & (ratio < 1.75))  # of 16 points the relative error is 1 / 4


def test_errors_in_ten_dimensions_are_those_of_other_points():
    """Most neighbours have fewer points than a window: taken for one, they make bars twice as wide."""
    atoms, n = np.random.default_rng(0).normal(size=(100, 10)), 10_000
    result = solve(atoms, 0.0, tol=0.1)
    target = Problem.of(atoms, None, None, 0.0).target
    points = [np.random.default_rng(100 + seed).normal(size=(n, 10)) for seed in range(12)]
    fits = [maximize(SemiDual(target), target.center(x), result.potential, 0.0) for x in points]
    spread = np.var([fit.potential for fit in fits], axis=0, ddof=1)
    ratio = np.sqrt(np.mean(ErrorBars(result, points[0]).potential_stderr ** 2) / np.mean(spread))
    assert 0.8 < ratio < 1.35


@pytest.mark.parametrize("reg", [REG, 0.05 * REG, 1e-3 * REG, 0.0])
def test_spread_of_the_map_is_that_at_potentials_of_the_law(reg, nx):
    """By brute force: the farther of two quantiles, one of each side, of a law that is skewed.

    Where potentials of the law differ by few reg, and by so many that weights are below any power.
    """
    atoms = nx.array(ATOMS)
    target = Problem.of(atoms, None, None, reg).target
    psi, rows = np.linspace(-0.1, 0.1, 8), 0.3 * np.random.default_rng(0).normal(size=(100, 8))
    law = NormalLaw(nx.array(psi), nx.array(rows))
    images = [semidiscrete_ot_map(ATOMS, X, psi + s * r, reg=reg) for r in rows for s in (1.0, -1.0)]
    moved = psi + 0.2 * np.arange(8)
    at, middle = (semidiscrete_ot_map(ATOMS, X, v, reg=reg) for v in (moved, psi))
    moves = np.sort(np.array(images) - middle, axis=0)
    below, above = (m[4] + 0.025 * (m[5] - m[4]) for m in (moves, -moves[::-1]))  # place 5.025 of 200
    assert np.any(above < 2.0 * below)  # both negative
    expected = np.sqrt((np.minimum(below, above) / 1.959964) ** 2 + (at - middle) ** 2)
    found = law.map_stderr(target, target.center(nx.array(X)), nx.array(moved), reg)
    np.testing.assert_allclose(nx.host(found), expected, rtol=2e-3)
    stderr = nx.host(law.potential_stderr(target, nx.array(moved)))
    np.testing.assert_allclose(stderr, np.sqrt(np.mean(rows**2, axis=0) + (moved - psi) ** 2), rtol=1e-5)


def test_map_near_a_boundary_at_reg_0(nx):
    """Two atoms: the map jumps by 2, and 1.96 errors hold the jump within 1.96 of the boundary's own.

    The boundary is the mean of the source: the map of a point is wrong in 1 run of 40 at most.
    """
    atoms, n = np.array([[-1.0], [1.0]]), 1000
    result = solve_semidiscrete(nx.array(atoms), "normal", reg=0.0, random_state=0)
    bars = ErrorBars(result, nx.array(np.random.default_rng(1).normal(size=(n, 1))), random_state=0)
    psi = nx.host(bars.potential)
    unit = np.sqrt(np.pi / 2.0 / n)  # of a median
    at = (psi[0] - psi[1]) / 4.0 + unit * np.array([-2.5, -1.6, 1.6, 2.5])
    stderr = nx.host(bars.map_stderr(nx.array(at[:, None])))[:, 0]
    np.testing.assert_allclose(stderr, [0.0, 2.0 / 1.959964, 2.0 / 1.959964, 0.0], rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"tol": 0, "max_iter": 10}], ids=["fresh", "run"])
def test_errors_are_there_whatever_was_asked_before(options):
    """The certificate frees points, but not those that the errors need; a pickle has them."""
    results = [solve(**options) for _ in range(3)]
    assert results[0].value_interval is not None
    results[2] = pickle.loads(pickle.dumps(results[2]))
    for result in results[1:]:
        np.testing.assert_array_equal(result.potential_stderr, results[0].potential_stderr)
        np.testing.assert_array_equal(result.map_stderr(X), results[0].map_stderr(X))
        assert result.functional(squares) == results[0].functional(squares)


@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_one_atom_has_no_error(reg):
    """The potential is 0, the map constant; the mean cost has the error of a mean."""
    x = np.random.default_rng(0).normal(size=(100, 1))
    bars = ErrorBars(solve(np.array([[2.0]]), reg), x)
    assert bars.potential_stderr == 0.0
    assert np.all(bars.map_stderr(X) == 0.0)
    cost, stderr = bars.functional(squares)
    assert cost == pytest.approx(np.mean((x - 2.0) ** 2))
    assert stderr == pytest.approx(np.std((x - 2.0) ** 2, ddof=1) / 10.0)


def test_a_fit_that_takes_its_bound_of_work_warns(monkeypatch):
    """It took minutes for light atoms, whose mass no point has; two passes are no fit."""
    result = solve()
    x = np.random.default_rng(0).normal(size=(500, 1))
    monkeypatch.setattr(errors, "QUICK", 1.0)
    monkeypatch.setattr(errors, "CORRECTION", 2.0 / errors.MAX_ITERATIONS)
    with pytest.warns(SemiDiscreteWarning, match=r"Newton's method on 500 points took its bound"):
        ErrorBars(result, x)


def test_a_fit_at_a_small_reg_comes_from_above():
    """Newton's method does not arrive from the potential of the result; errors are those of reg = 0."""
    rng = np.random.default_rng(0)
    atoms, x = rng.normal(size=(150, 2)), rng.normal(size=(3000, 2))
    reg = 1e-4 * cost_scale(atoms)
    bars, limit = (
        ErrorBars(solve_semidiscrete(atoms, "normal", reg=r, tol=0.3, random_state=0), x)
        for r in (reg, 0.0)
    )
    masses, chance = bars.atom_weights(x).mean(axis=0), 150 / 3000
    assert np.mean((150.0 * masses - 1.0) ** 2) < 1e-3 * chance
    ratio = bars.potential_stderr / limit.potential_stderr
    assert np.median(ratio) == pytest.approx(1.0, abs=0.1)
    assert np.max(np.abs(np.log(ratio))) < np.log(2.0)


def test_stored_atoms_have_the_same_errors():
    one, other = solve(), solve(StoredAtoms(ATOMS))
    np.testing.assert_allclose(other.potential_stderr, one.potential_stderr, rtol=1e-6)
    np.testing.assert_allclose(other.map_stderr(X), one.map_stderr(X), rtol=1e-6)
    np.testing.assert_allclose(other.functional(squares), one.functional(squares), rtol=1e-6)


def test_files_keep_errors_that_were_asked_for(nx, tmp_path):
    """Of potential and map, atoms at one place and of no weight included; functionals take points."""
    atoms = nx.array(np.append(ATOMS, [[9.0], ATOMS[0]], axis=0))
    weights = nx.array(np.append(np.full(8, 0.1), [0.0, 0.2]))
    result = solve_semidiscrete(atoms, "normal", weights, reg=REG, random_state=0)
    path, x = tmp_path / "result.npz", nx.array(X)
    result.save(path)
    bare = SemiDiscreteResult.load(path, atoms)
    for call in (lambda r: r.potential_stderr, lambda r: r.map_stderr(x)):
        with pytest.raises(ValueError, match=r"error bars: expected .*; give fresh points to"):
            call(bare)
    stderr, of_map = nx.host(result.potential_stderr), nx.host(result.map_stderr(x))
    assert stderr[8] == 0.0
    assert stderr[9] == stderr[0] > 0.0
    result.save(path)
    moved = result.to(np.zeros(1))  # NumPy, float64
    for other, host, at in ((SemiDiscreteResult.load(path, atoms), nx.host, x), (moved, np.asarray, X)):
        np.testing.assert_allclose(host(other.potential_stderr), stderr, rtol=1e-6)
        np.testing.assert_allclose(host(other.map_stderr(at)), of_map, rtol=1e-3, atol=1e-6)
        with pytest.raises(ValueError, match=r"functional: expected .*; give fresh points to"):
            other.functional(squares)


def test_a_file_whose_law_has_another_size_is_refused(tmp_path):
    path, result = tmp_path / "result.npz", solve()
    assert result.potential_stderr.shape == (8,)
    result.save(path)
    arrays = dict(np.load(path))
    arrays |= {name: arrays[name][..., :7] for name in ("law_mean", "law_deviations")}
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"'law_mean' of shape \(8,\), received .*; give the atoms"):
        SemiDiscreteResult.load(path, ATOMS)


def test_errors_are_refused_where_there_are_none(monkeypatch):
    """For a callable as a metric; where there are fewer points than effective atoms."""
    with pytest.raises(ValueError, match=r"error bars: .*metric is a callable"):
        _ = solve(metric=lambda x, y: (x[:, None, 0] - y[None, :, 0]) ** 2).potential_stderr
    result = solve()
    few = Estimates(result._target, result._potential, REG, result._target.center(X[:1]))
    with pytest.raises(ValueError, match="error bars: expected more points than"):
        _ = few.law
    monkeypatch.setattr(errors, "can_correct", lambda *facts: False)
    with pytest.raises(ValueError, match="error bars: expected so few effective atoms"):
        _ = solve().potential_stderr


@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_atoms_that_no_point_chooses_between_are_told(reg):
    """Weights are 0 and 1 there, and so is the Hessian; with a larger reg there is one."""
    x = np.array([[-10.0], [-9.5], [9.5], [10.0]])
    atoms = np.array([[-10.0], [10.0]])
    bars = ErrorBars(solve_semidiscrete(atoms, x, reg=reg, random_state=0), np.tile(x, (50, 1)))
    calls = (lambda: bars.potential_stderr, lambda: bars.map_stderr(x), lambda: bars.functional(squares))
    for call in calls:
        with pytest.raises(ValueError, match=r"x: expected points between .* no Hessian.* a larger reg"):
            call()
    bars = ErrorBars(solve_semidiscrete(atoms, x, reg=400.0, random_state=0), np.tile(x, (50, 1)))
    assert np.all(bars.potential_stderr * np.sqrt(200.0) < 400.0)  # of order reg / sqrt(n)


def test_copies_after_a_question(nx):
    """Of a result and of what was fitted: without the weights of the Hessian, and the same."""
    rng = np.random.default_rng(0)
    result = solve(nx.array(rng.normal(size=(300, 2))), nx.array([0.5])[0].item(), tol=0.3)
    bars = ErrorBars(result, nx.array(rng.normal(size=(600, 2))), n_probes=2)
    for found in (result, bars):
        expected = nx.host(found.potential_stderr)
        data = pickle.dumps(found)
        assert len(data) < 2e6
        np.testing.assert_allclose(nx.host(pickle.loads(data).potential_stderr), expected, rtol=1e-5)


def test_error_bars_that_were_moved_have_their_standard_errors(nx):
    """Those asked for before, and those made again where the plan is; functionals as well."""
    x = np.random.default_rng(0).normal(size=(500, 1))
    bars = ErrorBars(solve(nx.array(ATOMS)), nx.array(x))
    unasked = bars.to(np.zeros(1))  # NumPy, float64
    expected, of_map = nx.host(bars.potential_stderr), nx.host(bars.map_stderr(nx.array(X)))
    asked = bars.to(np.zeros(1))
    np.testing.assert_allclose(asked.map_stderr(X), of_map, rtol=1e-3)  # the same law, not another basis
    for moved in (unasked, asked):
        np.testing.assert_allclose(moved.potential_stderr, expected, rtol=1e-3)
        np.testing.assert_allclose(moved.functional(squares), bars.functional(squares), rtol=1e-3)
