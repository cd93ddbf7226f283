"""Newton's correction: known maximisers, and data that degenerate."""

import math
import warnings

import numpy as np
import pytest
from scipy import stats

from benchmarks import references
from pot_semidiscrete import newton, sample
from pot_semidiscrete.curvature import Curvature, DenseCurvature, Move, Told
from pot_semidiscrete.dual import scale_of
from pot_semidiscrete.kernels import weight_blocks
from pot_semidiscrete.sample import Sample, measure
from tests.backends import Backend, counted
from tests.clouds import REG, build, cloud, dense, law, near, unstable


def chi_square(nx, target, x, potential, reg):
    marginal, b = nx.host(measure(target, x, potential, reg)[1]), nx.host(target.weights)
    return float(((marginal - b) ** 2 / b).sum())


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
    reg, b = relative_reg * scale_of(target), nx.host(target.weights)
    source = references.Quadrature(nx.host(x), np.full(2000, 1.0 / 2000))
    exact = references.newton(source, nx.host(target.atoms), b, reg, tol=1e-10)
    found = newton.improve(Sample(target, x), 0.0 * target.weights, reg)
    rounding = 20.0 * nx.eps * scale_of(target)
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
    monkeypatch.setattr("pot_semidiscrete.curvature.DENSE", 30 if few else 29)
    monkeypatch.setattr("pot_semidiscrete.curvature.N_PROBES", 30)
    monkeypatch.setattr("pot_semidiscrete.curvature.REST", 1e-3)
    monkeypatch.setattr("pot_semidiscrete.curvature.LEAST_SHARE", 1.0)  # all points for the curvature
    target, x = cloud(nx64, weights=law("dirichlet", 30))
    start, b = near(nx64, target, x, REG, 1e-3), nx64.host(target.weights)
    found = newton.climb(Sample(target, x), start, REG)
    hessian = dense(nx64, target, x, found.potential, REG)[1] / REG
    expected = np.trace(np.linalg.pinv(hessian, 1e-10, hermitian=True) @ (np.diag(b) - np.outer(b, b)))
    assert found.trace == pytest.approx(expected - 29 * REG, rel=0.02)


@pytest.mark.parametrize("n_atoms", [60, 300])
def test_a_trace_that_is_known_is_that_of_the_first_step(n_atoms, nx, monkeypatch):
    """Two steps, the second so near that it needs no trace of its own: neither is the whole."""
    monkeypatch.setattr(newton, "NEARBY", 1e9)
    monkeypatch.setattr(newton, "DISAPPOINTING", 0.0)
    target, x = cloud(nx, n_atoms=n_atoms, n=3000)
    start = near(nx, target, x, REG, 1.0)
    kind = DenseCurvature if n_atoms == 60 else Curvature
    calls, solved = [], kind.newton

    def noted(curvature, gradient, damping, told=None):
        found = solved(curvature, gradient, damping, told)
        calls.append((told, found[1]))
        return found

    monkeypatch.setattr(kind, "newton", noted)
    climb = newton.Climb(Sample(target, x), start, REG, 1e-6, None)
    climb.outcome(math.inf)
    assert len(calls) >= 2
    assert calls[0][0] is None
    assert calls[-1][0] is not None
    assert calls[-1][0] is calls[-1][1]
    assert calls[-1][0] is calls[0][1]
    assert climb.trace == pytest.approx(calls[0][1].whole - REG * (n_atoms - 1), rel=1e-6)


@pytest.mark.parametrize("kept", [True, False])
def test_a_step_that_disappoints_is_compared_with_a_damped_one(kept, nx, monkeypatch):
    """The better of two, solved for at once, and no longer one."""
    monkeypatch.setattr(sample, "LARGEST_KEPT", 10**9 if kept else 0)
    curvature, gradient, value = unstable(nx, monkeypatch)
    steps = [curvature.solve(gradient[None, :], damping)[0] for damping in (0.0, curvature.harder(0.0))]
    promised = 0.5 * float((gradient * steps[0]).sum())
    move = Move(gradient, curvature.target.nx.stack(steps), 0.0, promised, promised)
    here = (curvature.potential, REG, newton.ENOUGH, (value, curvature.target.weights - gradient))
    climb = newton.Climb(curvature.sample, *here)
    climb.curvature = curvature
    values = [climb._measured(curvature.potential + curvature.trial(move, k))[1] for k in (0, 1)]
    assert values[0] < value + newton.DISAPPOINTING * promised
    monkeypatch.setattr(newton, "LARGEST_STEP", 0.0)
    tried = counted(monkeypatch, curvature, "trial")
    (_, reached, _), failures = climb._search(move)
    assert len(tried) == 2
    assert reached == pytest.approx(max(values), rel=1e-6)
    assert failures == int(values[0] < value)
    assert reached > value
    assert values[1] > values[0]


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
    move = Move(0.0 * target.weights, 0.0 * target.weights[None, :], 0.0, 0.0, hoped)
    monkeypatch.setattr(DenseCurvature, "newton", lambda *_: (move, Told(1.0)))
    found = newton.climb(Sample(target, x), 0.0 * target.weights, REG)
    assert found.settled == (hoped == 0.0)


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
        searches = counted(patch, newton.Climb, "_search")
        curvatures = counted(patch, newton, "curvature_of")
        found = newton.climb(Sample(target, x), 0.0 * target.weights, REG)
    assert found.settled
    assert len(curvatures) == len(searches)
    assert all(abs(potential - found.potential).max() > 0 for (potential, *_), _ in searches)
    assert found.value >= max(value for (_, value, _), _ in searches)
    best = newton.climb(Sample(target, x), 0.0 * target.weights, REG, 1e-3)
    assert found.value > best.value - newton.ENOUGH * found.trace / 2000.0


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
    trace = newton.improve(Sample(target, x), nx.array(exact), 0.0).trace
    assert value - found.value < 0.2 * trace / (2 * n)
    assert np.abs(nx.host(found.potential) - exact).max() < 0.01 * np.ptp(exact)
    marginal = nx.host(measure(target, x, found.potential, 0.0)[1])
    assert np.abs(marginal - weights).max() < 0.05


# Caution.


def test_caution_leaves_resolved_atoms_alone(nx):
    target, x = cloud(nx, n=4000)
    found = newton.improve(Sample(target, x), 0.0 * target.weights, REG)
    assert newton.Fit(Sample(target, x), found).cautious() is found.potential


def test_caution_lowers_what_few_points_see(nx):
    """More the fewer points an atom receives; those of more than ``RESOLVED`` hardly."""
    target, x = cloud(nx, weights=law("light", 30))
    found = newton.improve(Sample(target, x), 0.0 * target.weights, REG)
    lowered = nx.host(newton.Fit(Sample(target, x), found).cautious()) - nx.host(found.potential)
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
        careful = newton.Fit(Sample(target, x), found).cautious()
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
    careful = newton.Fit(Sample(target, x), found).cautious()
    masses = [nx.host(measure(target, fresh, p, 0.1)[1]) for p in (found.potential, careful)]
    assert masses[0][60] > 50.0 * 1e-7
    assert masses[1][60] < 1e-7
    np.testing.assert_allclose(masses[1][:60], masses[0][:60], rtol=0.02)
    lack = measure(target, x, careful, 0.1)[0] - found.value
    assert abs(lack) < 0.1 * found.trace / (2.0 * 2000)


@pytest.mark.parametrize("seed", [0, 2])
def test_atoms_lighter_than_a_point_get_none_at_reg_0(seed, nx):
    """Weights down to 1e-9: fitted to points, a cell that should be empty holds one of them."""
    rng = np.random.default_rng(seed)
    weights = 10.0 ** rng.uniform(-9.0, 0.0, size=60)
    target = build(nx, rng.normal(size=(60, 2)), weights / weights.sum())
    x, fresh = (target.local(nx.array(rng.normal(size=(n, 2)))) for n in (2000, 50_000))
    found = newton.improve(Sample(target, x), 0.0 * target.weights, 0.0)
    careful = newton.Fit(Sample(target, x), found).cautious()
    plain, better = (chi_square(nx, target, fresh, p, 0.0) for p in (found.potential, careful))
    assert plain > 100.0
    assert better < 0.2
    assert measure(target, fresh, careful, 0.0)[0] > measure(target, fresh, found.potential, 0.0)[0]


def test_starts_do_not_matter_at_reg_0(nx):
    """Nor do those whose cells tell nothing of the width of a cell."""
    target, x = cloud(nx, n_atoms=60, n=3000)
    junk = target.centred(nx.array(30.0 * np.random.default_rng(7).normal(size=60)))
    starts = [0.0 * target.weights, junk, near(nx, target, x, 0.01)]
    found = [newton.improve(Sample(target, x), start, 0.0) for start in starts]
    assert np.ptp([outcome.value for outcome in found]) < 0.1 * found[0].trace / (2.0 * 3000)


def test_masses_at_reg_0_are_as_good_as_the_points(nx):
    """On the line, where atoms that nearly coincide exchange masses at hardly any cost."""
    rng, n = np.random.default_rng(4), 20_000
    target = build(nx, rng.random((100, 1)))
    x, fresh = (target.local(nx.array(rng.random((n, 1)))) for _ in range(2))
    found = newton.improve(Sample(target, x), 0.0 * target.weights, 0.0)
    limit = 100 / n
    assert chi_square(nx, target, x, found.potential, 0.0) < newton.MISFIT * limit
    assert chi_square(nx, target, fresh, found.potential, 0.0) < 4.0 * limit  # 2 of them are chance


def test_masses_at_reg_0_of_light_atoms_among_heavy_tails(nx):
    """Cells much smaller than the width of most: further down, as far as numbers tell costs apart."""
    rng, n = np.random.default_rng(0), 20_000
    weights = np.maximum(rng.dirichlet(np.full(100, 0.3)), 1e-4)
    target = build(nx, rng.standard_t(3, size=(100, 1)), weights / weights.sum())
    x = target.local(nx.array(rng.standard_t(3, size=(n, 1))))
    found = newton.improve(Sample(target, x), 0.0 * target.weights, 0.0)
    most = newton.MISFIT if nx.dtype == "float64" else 100.0  # 300 after four levels
    assert chi_square(nx, target, x, found.potential, 0.0) < most * 100 / n


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
        careful = newton.Fit(Sample(target, x), out).cautious()
        assert math.isfinite(out.trace)
        potentials = (nx64.host(p) / s**2 for p in (out.potential, careful))
        found.append([*potentials, out.value / s**2, out.trace / s**2])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


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
        careful = newton.Fit(Sample(target, x), found).cautious()
    assert np.isfinite(nx.host(found.potential)).all()
    assert np.isfinite(nx.host(careful)).all()
    assert math.isfinite(found.trace)
    assert found.value >= before - 10.0 * nx.eps * abs(before)


def test_costs_below_0_have_a_ladder_too():
    """Of a user's metric: minus the inner product is the squared distance in all that matters."""
    nx, rng = Backend("numpy", "float64"), np.random.default_rng(0)
    atoms, points = rng.normal(size=(40, 2)) + 1.0, rng.normal(size=(400, 2)) + 1.0
    values = []
    for metric in (None, lambda x, y: -2.0 * (x @ y.T)):
        target = build(nx, atoms, metric=metric)
        x = target.local(nx.array(points))
        values.append(newton.improve(Sample(target, x), 0.0 * target.weights, 0.0).value)
    separable = (points**2).sum(axis=1).mean() + (atoms**2).sum(axis=1).mean()
    assert values[0] == pytest.approx(values[1] + separable, rel=1e-3)
