"""What a run says of itself: intervals, sub-optimality, tolerance, on a problem solved by quadrature."""

import functools
import itertools
import math
import pickle
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import pot_semidiscrete as ps
from benchmarks import references
from pot_semidiscrete.inference import bounds, estimates
from pot_semidiscrete.kernels import reduce
from pot_semidiscrete.optim.newton import NewtonResult, maximize
from pot_semidiscrete.optim.semi_dual import SemiDual
from pot_semidiscrete.problem import build_target
from pot_semidiscrete.solver.run import Solver
from tests.backends import uncrossed

SEEDS = 200
N_ATOMS = 20
WEIGHTS = np.full(N_ATOMS, 1.0 / N_ATOMS)
ATOMS = np.random.default_rng(5).normal(size=(N_ATOMS, 1))
REG = 0.05 * ps.cost_scale(ATOMS)
SOURCE = references.gauss_legendre(-8.0, 8.0, 2000, references.normal_density)
# what a probability of 0.95 falls under, of 200, 0.3% of the time; and one of 0.05 exceeds
LEAST_SEEN, MOST_MISSED = 0.91, 0.095


@functools.cache
def exact():
    """The optimum, by quadrature and Newton's method."""
    return references.newton(SOURCE, ATOMS, WEIGHTS, REG)


def fitted(target, points, psi, reg):
    """Points and what they measure at a potential, as if it had been fitted to them."""
    found = NewtonResult(psi, SemiDual(target).measure(points, psi, reg), reg)
    return bounds.FittedPoints(target, points, found)


def gap(potential):
    """True sub-optimality."""
    return exact().value - references.semi_dual(SOURCE, ATOMS, WEIGHTS, REG, potential)[0]


def solve(**options):
    """A run, whether it comes to its tolerance or not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ps.SemiDiscreteWarning)
        return ps.solve_semidiscrete(ATOMS, "normal", reg=REG, **options)


@functools.cache
def runs(kind):
    """Runs of all seeds, to their tolerance or cut short."""
    options = {"converged": {}, "early": {"max_iter": 5, "batch_size": 64}}[kind]
    return [solve(tol=0.1, random_state=seed, **options) for seed in range(SEEDS)]


@pytest.mark.parametrize("kind", ["converged", "early"])
def test_interval_holds_the_cost(kind):
    inside = [low <= exact().value <= high for low, high in (r.value_interval for r in runs(kind))]
    assert np.mean(inside) >= LEAST_SEEN


def test_interval_is_about_as_wide_as_that_of_a_mean():
    """The mean of the c-transform at the optimum, over the points of the evaluation."""
    ratios = [
        (high - low) / (2.0 * 1.96 * r.value_stderr)
        for r in runs("converged")
        for low, high in [r.value_interval]
    ]
    assert np.median(ratios) < 1.3


@pytest.mark.parametrize("kind", ["converged", "early"])
def test_suboptimality_is_right_to_a_factor_of_two(kind):
    estimates = np.array([r.suboptimality for r in runs(kind)])
    truth = np.array([gap(r.potential) for r in runs(kind)])
    assert 0.5 < np.median(estimates / truth) < 2.0
    assert 0.5 < estimates.mean() / truth.mean() < 2.0


@pytest.mark.parametrize("kind", ["converged", "early"])
def test_converged_is_seldom_wrong(kind):
    errors = [
        references.marginal_error(
            references.semi_dual(SOURCE, ATOMS, WEIGHTS, REG, r.potential)[1], WEIGHTS
        )
        for r in runs(kind)
        if r.converged
    ]
    assert kind == "early" or len(errors) == SEEDS
    assert np.sum(np.array(errors) > 0.1**2) <= MOST_MISSED * SEEDS


ESTIMATES = ("value", "value_linear", "value_stderr", "chi2", "chi2_stderr")
ESTIMATES += ("value_interval", "suboptimality")


@pytest.fixture
def made(monkeypatch):
    """Names of what was computed for estimates so far: masses, and plans."""
    names = []

    def noted(name):
        function = getattr(estimates, name)
        monkeypatch.setattr(estimates, name, lambda *args: names.append(name) or function(*args))

    noted("chi_square")
    noted("plan_cost")
    return names


@pytest.mark.parametrize(
    "options", [{"max_iter": 2}, {"max_iter": 40}, {"max_iter": 40, "max_memory": 0}]
)
@pytest.mark.parametrize("how", ["asked", "copied", "saved"])
def test_estimates_are_made_when_asked(options, how, made, tmp_path):
    """Once, to the same end as at once."""
    result = solve(tol=0, random_state=0, **options)
    assert made == []
    if how == "copied":
        result = pickle.loads(pickle.dumps(result))
    if how == "saved":
        result.save(tmp_path / "result.npz")
        result = ps.SemiDiscreteResult.load(tmp_path / "result.npz", ATOMS)
    for _ in range(2):
        found = [getattr(result, name) for name in ESTIMATES]
    assert sorted(set(made)) == ["chi_square", "plan_cost"]
    once = list(made)
    other = solve(tol=0, random_state=0, **options)
    other.save(tmp_path / "other.npz")
    assert made == 2 * once
    assert found == [getattr(other, name) for name in ESTIMATES]
    np.testing.assert_array_equal(result.marginal_b, other.marginal_b)
    assert made == 2 * once
    low, high = result.value_interval
    assert low < exact().value < high
    assert 0.0 < result.suboptimality < 20.0 * gap(result.potential)


@pytest.mark.parametrize("verbose", [False, True])
def test_estimates_that_take_long_say_so(verbose, capsys, caplog, monkeypatch):
    for quick, n_told in ((2**29, 0), (0, 1)):
        monkeypatch.setattr(estimates, "QUICK", quick)
        result = solve(tol=0, random_state=0, max_iter=40, verbose=verbose)
        capsys.readouterr()
        caplog.clear()
        with caplog.at_level("INFO", logger="pot_semidiscrete"):
            assert result.value_interval[0] < result.value_interval[1]
            assert result.suboptimality > 0.0
        told = capsys.readouterr().out.splitlines(), [record.getMessage() for record in caplog.records]
        assert [len(words) for words in told] == ([n_told, 0] if verbose else [0, n_told])
        assert all("Newton's method on" in words for lines in told for words in lines)


def test_estimates_are_of_the_source_that_there_was(made):
    """A generator may have moved, and a user's metric may have changed, when they are asked for."""
    rng, scale = np.random.default_rng(0), np.ones(1)
    facts = {"sampler_source": lambda n: scale * rng.normal(size=(n, 1)), "reg": REG, "tol": 0}
    result = ps.solve_semidiscrete(ATOMS, **facts, max_iter=40)
    assert made == []
    scale *= 100.0
    assert abs(result.value - exact().value) < 4.0 * result.value_stderr
    scale /= 100.0
    metric = lambda x, y: scale * ((x[:, None] - y[None]) ** 2).sum(axis=2)
    result = ps.solve_semidiscrete(ATOMS, **facts, metric=metric, max_iter=40)
    scale *= 100.0
    assert abs(result.value - exact().value) < 4.0 * result.value_stderr
    assert result.value_interval[0] < exact().value < result.value_interval[1]


@pytest.mark.parametrize("max_memory", [0, 2**28])
def test_estimates_share_no_memory_with_the_user(max_memory, nx):
    """A sampler that returns one array again and again, and atoms that are changed after the run."""
    if not nx.in_groups:
        pytest.skip("arrays that are changed in place are those of NumPy and torch")
    rng = np.random.default_rng(0)
    atoms, points = 1.0 + rng.random((20, 3)), 1.0 + rng.random((100, 256, 3))
    buffer, count = nx.array(points[0].copy()), iter(points)

    def reused(n):
        buffer[:] = nx.array(next(count))
        return buffer

    facts = {"metric": "cosine", "reg": 0.002, "tol": 0, "max_iter": 20, "max_memory": max_memory}
    given, fresh = nx.array(atoms.copy()), iter(points)
    result = ps.solve_semidiscrete(given, reused, **facts)
    buffer += 7.0
    given += 7.0
    other = ps.solve_semidiscrete(nx.array(atoms), lambda n: nx.array(next(fresh)), **facts)
    for name in ESTIMATES:
        assert getattr(result, name) == getattr(other, name)
    np.testing.assert_array_equal(nx.host(result.potential), nx.host(other.potential))


@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_interval_is_of_this_backend_and_finite(reg, nx):
    result = ps.solve_semidiscrete(
        nx.array(ATOMS), "normal", reg=reg, tol=0, max_iter=40, random_state=0
    )
    low, high = result.value_interval
    assert type(low) is float
    assert type(high) is float
    assert low < float(result.value) < high
    assert 0.0 <= result.suboptimality < high - low


@uncrossed
@pytest.mark.parametrize("off", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("reg", [0.0, REG])
def test_part_of_the_points_bounds_the_cost_as_all_of_them_do(reg, off, nx):
    """Potentials off by up to 3 reg: plans from near to far from feasible; 12 parts of 500 points."""
    rng = np.random.default_rng(0)
    target = build_target(nx.array(ATOMS)).detached
    potential = exact().potential + off * REG * rng.normal(size=N_ATOMS)
    costs = []
    for _ in range(12):
        points = target.center(nx.array(rng.normal(size=(20_000, 1))))
        fit = fitted(target, points, nx.array(potential), reg)
        costs.append([*bounds.plan_cost(fit, 500)[:2], *bounds.plan_cost(fit, 20_000)[:2]])
    part, error, whole, least = np.array(costs).T
    assert (np.abs(part - whole) < 5.0 * error).all()
    assert abs(np.mean(part - whole)) < 4.0 * np.std(part - whole) / 12**0.5 + 1e-4 * least.mean()
    if off == 0.0 and reg > 0:
        assert error.mean() < 1.2 * least.mean()


@pytest.mark.parametrize("away", [0.0, 30.0])
@pytest.mark.parametrize("reg", [0.0, 0.01])
def test_error_of_a_part_is_what_parts_scatter_by(reg, away):
    """300 atoms in the square, 120 parts of one set of points, from near and from far away."""
    rng = np.random.default_rng(0)
    target = build_target(rng.random((300, 2))).detached
    points = target.center(rng.random((120 * 301, 2)) + away)
    psi = maximize(SemiDual(target), points[::30], 0.0 * target.weights, reg).potential
    fit = fitted(target, points, psi, reg)
    transform = reduce(target, points, psi, reg).c_transform
    whole = bounds.plan_cost(fit, len(points))[0]
    parts, errors = [], []
    for _ in range(120):
        shuffled = replace(fit, points=points[rng.permutation(len(points))])
        cost, error, _ = bounds.plan_cost(shuffled, 301)
        parts.append(cost)
        errors.append(error**2 - transform.var() / len(points))
    scatter = np.mean((np.array(parts) - whole) ** 2)
    assert abs(np.mean(parts) - whole) < 5.0 * (scatter / 120) ** 0.5
    tolerance = 0.02 * transform.var() / len(points) if away else 0.0  # rounding of a small difference
    assert 0.6 * scatter - tolerance < np.mean(errors) < 1.7 * scatter + tolerance


def masses(n_atoms, seed=0):
    """What some atoms have too much and others lack."""
    difference = np.random.default_rng(seed).normal(size=n_atoms)
    excess, lacking = np.maximum(difference, 0.0), np.maximum(-difference, 0.0)
    return excess / excess.sum() / 10.0, lacking / lacking.sum() / 10.0


@pytest.mark.parametrize("largest", [2048, 64])
def test_coupling_sends_what_is_too_much_to_near_atoms_that_lack_it(largest, nx, monkeypatch):
    """All of it, and at a small part of the cost of a product, of 300 atoms at once or in groups."""
    target = build_target(nx.array(np.random.default_rng(1).random((300, 2)))).detached
    excess, lacking = masses(300)
    best = bounds.coupling(target, excess, lacking).toarray()
    monkeypatch.setattr(bounds, "MOST_ATOMS", largest)
    shares = bounds.coupling(target, excess, lacking).toarray()
    assert (shares >= 0.0).all()
    np.testing.assert_allclose(shares.sum(axis=1), excess > 0.0, atol=1e-9)
    np.testing.assert_allclose(excess @ shares, lacking, atol=1e-9)
    atoms = nx.host(target.atoms)
    costs = ((atoms[:, None, :] - atoms[None, :, :]) ** 2).sum(axis=2)
    cost = lambda shares: (excess[:, None] * shares * costs).sum()
    product = cost(np.outer(excess > 0.0, lacking) / lacking.sum())
    assert cost(best) <= 1.0001 * cost(shares)
    assert cost(shares) < (0.05 if largest > 300 else 0.15) * product


def test_the_value_is_in_its_interval_and_the_bound_above_the_estimate():
    """Each end has noise of its own; square, 60 to 100 atoms, where 1 to 3 of 25 were outside."""
    for seed in range(12):
        atoms = np.random.default_rng(seed).random((60 + 4 * seed, 2))
        result = ps.solve_semidiscrete(atoms, "unif", reg=0.01, tol=0.15, random_state=seed)
        low, high = result.value_interval
        assert low < result.value < high
        assert 0.0 < result.suboptimality <= result.suboptimality_bound


@pytest.mark.parametrize("reg", [0.0, 0.3])
def test_the_value_is_in_its_interval_to_the_last_digit(reg, nx, rng):
    """A source of one point, whose interval is as narrow as rounding; none is short of less than 0."""
    for n_atoms in (1, 7, 29):
        atoms, x = nx.array(rng.normal(size=(n_atoms, 3))), nx.array(rng.normal(size=(1, 3)))
        sampler = lambda n, x=x: nx.array(np.repeat(nx.host(x), n, axis=0))
        result = ps.solve_semidiscrete(atoms, sampler, reg=reg, tol=0, max_iter=20, random_state=0)
        low, high = result.value_interval
        assert low <= float(result.value) <= high
        assert 0.0 <= result.suboptimality <= result.suboptimality_bound


@pytest.mark.parametrize("kind", ["converged", "early"])
def test_suboptimality_bound_holds(kind):
    inside = [gap(r.potential) <= r.suboptimality_bound for r in runs(kind)]
    assert np.mean(inside) >= LEAST_SEEN


@pytest.mark.parametrize("reg", [0.0, 0.2])
def test_a_short_run_from_a_potential_claims_no_more_than_its_points_allow(reg):
    """300 atoms, 20 batches: an estimate was 0 there, exactly."""
    atoms = np.random.default_rng(0).normal(size=(300, 4))
    options = {"reg": reg, "tol": 0, "random_state": 0}
    start = ps.solve_semidiscrete(atoms, "normal", max_iter=20, **options).potential
    result = ps.solve_semidiscrete(atoms, "normal", max_iter=20, init_potential=start, **options)
    assert 0.0 < result.suboptimality <= result.suboptimality_bound


def test_coupling_of_nothing_is_empty():
    target = build_target(np.random.default_rng(1).random((5, 2))).detached
    assert bounds.coupling(target, np.zeros(5), np.zeros(5)).nnz == 0


@pytest.mark.parametrize("size", [0.0, 0.01, 1.0])
def test_plan_at_reg_0_is_feasible_and_costs_what_is_said(size, nx):
    """Of all points, written out: columns of the weights, and its cost; atoms without points, too."""
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(40, 2.0))
    target = build_target(nx.array(rng.random((40, 2))), nx.array(weights)).detached
    points, potential = target.center(nx.array(rng.random((900, 2)))), nx.array(size * rng.random(40))
    fit = fitted(target, points, potential, 0.0)
    cost, error, _ = bounds.plan_cost(fit, 900)
    costs, mass = nx.host(target.cost_matrix(points)), nx.host(fit.found.measured.marginal)
    cell = (costs - nx.host(potential)).argmin(axis=1)
    scale = np.minimum(1.0, weights / np.maximum(mass, 1e-30))
    excess, lacking = np.maximum(mass - weights, 0.0), np.maximum(weights - mass, 0.0)
    shares = bounds.coupling(target, excess, lacking).toarray()
    plan = np.eye(40)[cell] * scale[cell][:, None] + (1.0 - scale[cell])[:, None] * shares[cell]
    rounding = 100.0 * nx.eps
    np.testing.assert_allclose(plan.sum(axis=1), 1.0, atol=rounding)
    np.testing.assert_allclose(plan.mean(axis=0), weights, atol=rounding)
    assert cost == pytest.approx((plan * costs).sum() / 900, rel=rounding)
    # that of the rows of the plan, less the potential of what they send
    deviation = (plan * (costs - nx.host(potential))).sum(axis=1).std(ddof=1)
    assert error == pytest.approx(deviation / 900**0.5, rel=1e-3 + rounding)


@pytest.mark.parametrize("d", [1, 2])
def test_interval_at_reg_0_is_about_as_wide_as_that_of_a_mean(d):
    """200 atoms of the uniform law; masses filled in by a product made it 10 times so on the line."""
    atoms = np.random.default_rng(0).random((200, d))
    result = ps.solve_semidiscrete(atoms, "unif", reg=0, tol=0, max_iter=64, random_state=0)
    assert np.ptp(result.value_interval) < 2.0 * 2.0 * 1.96 * result.value_stderr


@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_one_atom_has_nothing_to_gain(reg, nx):
    result = ps.solve_semidiscrete(
        nx.array([[1.0, -2.0]]), "normal", reg=reg, tol=0, max_iter=5, random_state=0
    )
    low, high = result.value_interval
    assert abs((low + high) / 2.0 - 7.0) < high - low  # twice what 95% of runs keep to
    assert result.suboptimality == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_interval_and_suboptimality_are_saved(reg, nx, tmp_path):
    result = ps.solve_semidiscrete(nx.array(ATOMS), "normal", reg=reg, tol=0, max_iter=5, random_state=0)
    result.save(tmp_path / "result.npz")
    loaded = ps.SemiDiscreteResult.load(tmp_path / "result.npz", nx.array(ATOMS))
    assert type(loaded.value_interval) is tuple
    assert loaded.value_interval == result.value_interval
    assert loaded.suboptimality == result.suboptimality


def failing(error, n):
    """A normal sampler that raises after n batches."""
    rng, left = np.random.default_rng(0), iter(range(n))

    def sample(size):
        if next(left, None) is None:
            raise error
        return rng.normal(size=(size, 1))

    return sample


@pytest.mark.parametrize("n", [0, 3, 10])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("the disk is gone")])
def test_broken_runs_claim_nothing(error, n, tmp_path):
    """Before the first batch, in the ascent, and in the last evaluation."""
    try:
        result = ps.solve_semidiscrete(ATOMS, failing(error, n), reg=REG, tol=0, max_iter=10)
    except OSError:
        result = error.partial_result
    assert result.status == ("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
    assert result.value_interval is None
    assert math.isnan(result.suboptimality)
    result.save(tmp_path / "result.npz")
    loaded = ps.SemiDiscreteResult.load(tmp_path / "result.npz", ATOMS)
    assert loaded.value_interval is None
    assert math.isnan(loaded.suboptimality)


def test_value_is_as_right_as_is_asked_for():
    """100 atoms on a line, where the masses are right long before the value is; 3 seeds."""
    atoms, weights = np.random.default_rng(5).normal(size=(100, 1)), np.full(100, 0.01)
    reg = 1e-3 * ps.cost_scale(atoms)
    truth = references.newton(SOURCE, atoms, weights, reg)
    options = {"reg": reg, "tol": 0.3}

    def lacks(seed, **more):
        result = ps.solve_semidiscrete(atoms, "normal", random_state=seed, **options, **more)
        assert result.converged
        value = references.semi_dual(SOURCE, atoms, weights, reg, result.potential)[0]
        return truth.value - value

    wanted = 0.05 * reg
    assert np.mean([lacks(seed) for seed in (0, 2, 3)]) > 3.0 * wanted
    assert np.mean([lacks(seed, tol_value=wanted) for seed in (0, 2, 3)]) < 2.0 * wanted


@pytest.mark.parametrize(("n_atoms", "reg", "wanted"), [(100, 0.02, 1e-4), (60, 0.05, 2e-4)])
def test_the_value_is_tried_again_when_the_samples_allow_it(n_atoms, reg, wanted, monkeypatch):
    """What it lacks falls as 1 / n; each try takes Newton's method twice, and six were made."""
    atoms, tries = np.random.default_rng(0).normal(size=(n_atoms, 2)), []
    is_right = Solver.is_value_right

    def watched(solver):
        tries.append([is_right(solver), solver.n_samples, solver.value_due])
        return tries[-1][0]

    monkeypatch.setattr(Solver, "is_value_right", watched)
    result = ps.solve_semidiscrete(atoms, "normal", reg=reg, tol_value=wanted, random_state=0)
    assert result.converged
    assert result.suboptimality <= wanted
    assert [answer for answer, *_ in tries] == [False] * (len(tries) - 1) + [True]
    assert 2 <= len(tries) <= 3
    assert tries[0][2] > 2.0 * tries[0][1]  # it is far off
    for (_, n, due), (_, then, _) in itertools.pairwise(tries):
        assert then >= max(n, due)


def test_a_start_whose_masses_are_right_is_not_returned_for_that():
    """Its value may lack more than is asked for, as slow modes are unseen by chi2."""
    line, options = np.linspace(-2.0, 2.0, 200)[:, None], {"reg": 0.01, "random_state": 1}
    start = ps.solve_semidiscrete(line, "normal", **options | {"random_state": 9}).potential
    rough = ps.solve_semidiscrete(line, "normal", init_potential=start, **options)
    result = ps.solve_semidiscrete(line, "normal", init_potential=start, tol_value=2e-4, **options)
    assert rough.n_iter == 0
    assert rough.suboptimality > 5e-4
    assert result.converged
    assert result.n_iter > 0
    assert result.suboptimality <= 2e-4


# Warm starts.


@functools.cache
def solved(seed):
    """A potential of 25,600 points."""
    return solve(tol=0, max_iter=100, random_state=seed).potential


def test_a_few_points_lose_little_of_what_many_reached():
    """25,600 points, then 1,280: the loss is below a tenth of the error of the 1,280, in the mean."""
    before = [solved(seed) for seed in range(20)]
    after = [
        solve(tol=0, max_iter=5, random_state=1000 + seed, init_potential=potential).potential
        for seed, potential in enumerate(before)
    ]
    loss = np.mean([gap(two) - gap(one) for one, two in zip(before, after, strict=True)])
    assert loss < 0.1 * exact().trace / (2 * 1280)


def test_what_is_within_tolerance_takes_no_batch():
    """Nearly always: it is some thousand points that tell."""
    results = [
        solve(tol=0.1, random_state=1000 + seed, init_potential=solved(seed)) for seed in range(20)
    ]
    assert all(result.converged for result in results)
    assert np.mean([result.n_iter == 0 for result in results]) >= 0.7
    result = results[0]
    assert (result.n_iter, result.log["value"].size) == (0, 0)
    assert result.value_interval[0] <= exact().value <= result.value_interval[1]


def test_a_look_that_lacks_few_points_takes_one_for_each_group():
    """What two looks have measured is what one has of all their points."""
    dual, rng = SemiDual(build_target(np.array([[0.0], [1.0], [3.0]]))), np.random.default_rng(0)
    rule = SimpleNamespace(learn=lambda found: None, look_size=lambda most: 1031)  # 1024 come first
    psi, draw = np.array([0.0, 0.1, 0.2]), lambda n: rng.normal(size=(n, 1))
    evaluate = lambda x, before=None: estimates.evaluate(dual, x, psi, 0.1, before)
    found, points = estimates.evaluate_sequentially(evaluate, draw, rule, math.inf)
    assert found.n == 1024 + len(found.measured.groups) == sum(map(len, points))
    whole = evaluate(np.concatenate(points))
    np.testing.assert_allclose(found.marginal, whole.marginal)
    assert found.chi2 == pytest.approx(whole.chi2)
    assert found.chi2_stderr == pytest.approx(whole.chi2_stderr, rel=0.5)  # other groups


@pytest.mark.parametrize("size", [1.0, 10.0, 100.0])
def test_a_wrong_start_is_left(size):
    """Random potentials of about the cost scale, ten and a hundred times that; 6 seeds."""
    ratios = []
    for seed in range(6):
        junk = size * np.random.default_rng(seed).normal(size=N_ATOMS)
        result = solve(tol=0, max_iter=100, random_state=1000 + seed, init_potential=junk)
        ratios.append(gap(result.potential) * 2.0 * 25_600 / exact().trace)
    assert np.mean(ratios) <= 2.0


def test_a_moved_source_takes_half_of_the_points():
    """Source points of warm and of cold runs, the source moved by 1% of the spread."""
    atoms = np.random.default_rng(5).normal(size=(100, 2))
    options = {"reg": 0.02 * ps.cost_scale(atoms), "tol": 0.1}

    def source(seed, shift):
        rng = np.random.default_rng(seed)
        return lambda n: rng.normal(size=(n, 2)) + shift

    warm_samples, cold_samples = 0, 0
    for seed in range(20):
        moved = np.array([0.01, 0.0]) * atoms.std()
        start = ps.solve_semidiscrete(atoms, source(seed, 0.0), **options).potential
        cold = ps.solve_semidiscrete(atoms, source(100 + seed, moved), **options)
        warm = ps.solve_semidiscrete(atoms, source(200 + seed, moved), init_potential=start, **options)
        assert warm.converged
        warm_samples, cold_samples = warm_samples + warm.n_samples, cold_samples + cold.n_samples
    assert warm_samples <= 0.6 * cold_samples


@pytest.mark.parametrize("max_memory", [0, 2**28])
def test_result_holds_few_points_until_it_is_asked(max_memory, monkeypatch):
    """Of many; what it then says is of those, and holds."""
    monkeypatch.setattr(estimates, "PENDING", 2000)
    result = solve(tol=0.05, random_state=0, max_iter=2000, max_memory=max_memory)
    held = result._estimates
    assert held.evaluation.measured.n > 2000
    assert held._points.shape[0] == 2000
    assert held._fit is None or held._fit.points.shape[0] <= 2000
    low, high = result.value_interval
    assert low < exact().value < high
    assert result.suboptimality <= result.suboptimality_bound
