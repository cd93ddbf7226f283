"""Several problems of one source, solved at once: what each gets is what it would get alone."""

import numpy as np
import pytest
import scipy.stats

from pot_semidiscrete.kernels import kernel_for
from pot_semidiscrete.optim.semi_dual import SemiDual
from pot_semidiscrete.optim.stopping import ChiSquareRule
from pot_semidiscrete.problem import Problem, StackedTarget
from pot_semidiscrete.samplers.resolve import resolve_source
from pot_semidiscrete.solver import Options, can_stack, solve_stacked, stacked
from tests.backends import BACKENDS, Backend, counted, needs_torch

KINDS = [kind for kind in BACKENDS if kind in ("numpy", "torch", "cuda")]  # whose arrays can be changed
SIZES = (30, 1, 17, 23)


def problems_of(backend, sizes=SIZES, reg=0.0, seed=0):
    """Problems in the plane, of clouds about several places, with unlike weights; and random numbers."""
    rng, found = np.random.default_rng(seed), []
    for n in sizes:
        atoms, weights = rng.normal(size=(n, 2)) + rng.normal(size=2), rng.uniform(0.2, 1.0, n)
        found.append(Problem.of(backend.array(atoms), backend.array(weights / weights.sum()), None, reg))
    return found, rng


def stacked_of(problems):
    """Their targets about one origin, and stacked."""
    targets = [p.target.moved(problems[0].target.origin) for p in problems]
    return targets, StackedTarget.of(targets)


@pytest.mark.parametrize("cache", [None, 2**11])
@pytest.mark.parametrize("reg", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_a_measurement_is_that_of_each(kind, reg, cache, monkeypatch):
    """Of one tile, and of a tile of two problems and more, rows in several blocks."""
    backend = Backend(kind, "float64")
    problems, rng = problems_of(backend, reg=reg)
    targets, whole = stacked_of(problems)
    if cache is not None:
        monkeypatch.setattr(kernel_for(whole.nx), "cache", staticmethod(lambda: cache))
    x, psi = backend.array(rng.normal(size=(50, 2))), backend.array(rng.normal(size=sum(SIZES)))
    dual = SemiDual(whole)
    found = dual.measure(x, psi, reg, 5)
    each = [SemiDual(t).measure(x, psi[c], reg, 5) for t, c in zip(targets, whole.columns, strict=True)]
    host = backend.host
    for alone, part in zip(each, dual.parts(found, psi), strict=True):
        for name in ("marginal", "goal", "second_moment", "transform"):
            np.testing.assert_allclose(host(getattr(part, name)), host(getattr(alone, name)), atol=1e-12)
        np.testing.assert_allclose(part.value, alone.value)
        np.testing.assert_allclose(part.n_eff, alone.n_eff)
        for a, b in zip(part.groups, alone.groups, strict=True):
            np.testing.assert_allclose(host(a), host(b), atol=1e-12)
    np.testing.assert_allclose(found.value, np.mean([alone.value for alone in each]))
    assert float(host(found.marginal).sum()) == pytest.approx(1.0)
    purity = [host(m.second_moment) / np.maximum(host(m.goal), host(m.marginal)) for m in each]
    np.testing.assert_allclose(found.n_eff + 1.0, np.mean([p.sum() for p in purity]))


def solved(problems, source="normal", starts=None, **options):
    """Their results, with noise from a seed."""
    source = resolve_source(source, problems[0].target.atoms, 1)
    starts = [None] * len(problems) if starts is None else starts
    return solve_stacked(problems, source, Options(**{"tol": 0.1} | options), starts)


@pytest.mark.parametrize("reg", [0.0, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_each_problem_has_its_masses_and_its_certificate(kind, reg):
    """By points that no run has seen: chi2 is what was told, and less than the tolerance."""
    backend = Backend(kind, "float32")
    problems, rng = problems_of(backend, reg=reg)
    x = backend.array(rng.normal(size=(20_000, 2)))
    for problem, result in zip(problems, solved(problems), strict=True):
        assert result.converged
        weights = backend.host(problem.target.weights)
        assert backend.host(result.potential) @ weights == pytest.approx(0.0, abs=1e-4)
        masses = backend.host(result.atom_weights(x)).mean(0)
        chi2 = float(((masses - weights) ** 2 / weights).sum())
        noise = len(weights) / len(x)
        assert chi2 <= 0.01 + noise
        assert abs(chi2 - noise - result.chi2) < 5.0 * (result.chi2_stderr + noise)
        assert result.log["check_chi2"][-1] + 1.96 * result.log["check_chi2_stderr"][-1] <= 0.01
        assert result.value_interval[0] < result.value_interval[1]


def test_an_interval_in_the_line():
    """Alone and together, the value is that of quantiles."""
    atoms = [np.sort(np.random.default_rng(k).normal(size=(9, 1)), axis=0) for k in range(4)]
    results = solved([Problem.of(a) for a in atoms], tol=0.06)
    ends = scipy.stats.norm.ppf(np.arange(10) / 9)
    density = scipy.stats.norm.pdf(ends)
    finite = np.nan_to_num(ends, posinf=0.0, neginf=0.0) * density
    means, squares = -np.diff(density), 1 / 9 - np.diff(finite)
    for a, result in zip(atoms, results, strict=True):
        exact = float((squares - 2.0 * a[:, 0] * means + a[:, 0] ** 2 / 9).sum())
        low, high = result.value_interval
        assert low - 0.02 < exact < high + 0.02
        assert abs(float(result.value) - exact) < 5.0 * result.value_stderr + 0.02


def test_some_end_sooner_and_some_alone(monkeypatch):
    """An evaluation that fails leaves a problem in the run; Newton's method takes it out."""
    problems, _ = problems_of(Backend("numpy", "float64"), 6 * (20,))
    left = counted(monkeypatch, stacked.StackedSolver, "keep")
    results = solved(problems, tol=0.3)
    assert left  # some, not all, had met the rule
    assert all(result.converged for result in results)
    alone = counted(monkeypatch, stacked, "solve_problem")
    monkeypatch.setattr(ChiSquareRule, "prefers_correction", lambda self, n: True)
    results = solved(problems)
    assert 0 < len(alone) <= 6
    assert all(result.converged and result.chi2 < 0.01 for result in results)


def test_slow_modes_of_some_keep_none_waiting():
    """Where the atoms are far wider than the source, it is Newton's method that they need, soon."""
    rng = np.random.default_rng(0)
    atoms = [scale * rng.normal(size=(60, 3)) for scale in np.logspace(-2, 2, 12)]
    results = solved([Problem.of(a, None, None, 0.01) for a in atoms])
    assert all(result.converged for result in results)
    assert max(result.n_samples for result in results) < 500_000


def test_each_problem_logs_its_own_value():
    """Of one atom y it is 1 + y^2 where the source is 1 and -1, whatever the others' values are."""
    sign = lambda n: np.where(np.arange(n) % 2, 1.0, -1.0)[:, None]
    places = (0.0, 3.0, 50.0)
    clouds = [np.random.default_rng(k).normal(size=(20, 1)) + 10.0 * k for k in range(2)]
    problems = [Problem.of(np.array([[y]])) for y in places] + [Problem.of(y) for y in clouds]
    results = solved(problems, source=sign, max_iter=40)
    for y, result in zip(places, results, strict=False):
        assert len(result.log["value"]) == result.n_iter > 0
        np.testing.assert_allclose(result.log["value"], 1.0 + y**2)
    for result in results[3:]:  # the error of the value is of second order
        assert len(result.log["value"]) == len(result.log["reg"]) == result.n_iter > 0
        assert result.log["value"][-1] == pytest.approx(float(result.value), rel=0.1)


def test_what_has_not_converged_is_told():
    problems, _ = problems_of(Backend("numpy", "float64"))
    results = solved(problems, max_iter=1)
    assert [result.status for result in results] == ["max_iter", "converged", "max_iter", "max_iter"]
    again = solved(problems, starts=[result.potential for result in solved(problems)], tol=0.2)
    assert [(result.status, result.n_iter) for result in again] == 4 * [("converged", 0)]


def test_an_interrupted_run_has_all_problems(monkeypatch):
    problems, _ = problems_of(Backend("numpy", "float64"))
    iterate = stacked.StackedSolver.iterate

    def stop(solver):
        iterate(solver)
        raise KeyboardInterrupt

    monkeypatch.setattr(stacked.StackedSolver, "iterate", stop)
    results = solved(problems, tol=0.05)
    assert [result.status for result in results] == 4 * ["interrupted"]
    assert all(np.isfinite(result.potential).all() and np.isnan(result.chi2) for result in results)
    monkeypatch.setattr(stacked.StackedSolver, "iterate", lambda solver: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        solved(problems)
    assert [result.status for result in caught.value.partial_result] == 4 * ["failed"]


@needs_torch
def test_a_coupling_of_many_small_classes(monkeypatch):
    """Weights that differ, and are 0, points that are there twice, and classes of one point."""
    import torch

    from pot_semidiscrete.generative import SemiDiscretePairs, solve_coupling
    from pot_semidiscrete.generative.pairs import solving

    rng = np.random.default_rng(0)
    label = torch.from_numpy(rng.permutation(np.repeat(np.arange(20), rng.integers(20, 39, 20))))
    label[0] = 20
    data = torch.from_numpy(rng.normal(size=(len(label), 2)) + label.numpy()[:, None] / 10)
    data[5], label[5] = data[4], label[4]
    weights = torch.from_numpy(rng.uniform(0.1, 1.0, len(label)))
    weights[10:13] = 0.0
    weights /= weights.sum()
    calls = counted(monkeypatch, solving, "solve_stacked")
    coupling = solve_coupling(data, a_target=weights, labels=label, tol=0.3, random_state=0)
    assert sum(map(len, calls)) == 20
    assert all(result.converged for result in coupling.results)
    assert coupling.chi2 < 0.09
    pairs = SemiDiscretePairs(coupling, batch_size=1000, epoch_size=100_000, random_state=0)
    index = torch.cat([batch.index for batch in pairs])
    share = index.bincount(minlength=len(label)) / len(index)
    assert bool((share[weights == 0] == 0).all())
    has = weights > 0
    chi2 = float(((share - weights)[has] ** 2 / weights[has]).sum()) - int(has.sum()) / len(index)
    assert abs(chi2 - coupling.chi2) < 0.02
    again = solve_coupling(
        data, a_target=weights, labels=label, tol=0.4, init_coupling=coupling, random_state=1
    )
    assert {result.n_iter for result in again.results} == {0}
    assert again.chi2 == pytest.approx(coupling.chi2, abs=0.03)


@needs_torch
def test_which_groups_are_solved_at_once():
    import torch

    from pot_semidiscrete.generative.pairs.groups import Groups

    def bundles(sizes, *most):
        codes = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        no = torch.zeros(len(sizes))
        return Groups(codes, no, no).bundles(*most)

    assert bundles([300, 100]) == [[0], [1]]
    assert bundles([1, 2, 3, 5, 8, 13]) == [[5, 4], [3, 2], [1, 0]]
    assert bundles([1300] * 9) == [[0, 1, 2, 3, 4, 5, 6], [7, 8]]
    assert bundles([6000] * 3) == bundles([10] * 3, 0) == [[0], [1], [2]]


def test_what_is_not_stacked(monkeypatch):
    """Several `reg`, far classes, and kernels of the user: they are solved one by one."""
    near, _ = problems_of(Backend("numpy", "float64"), (5, 6))
    assert can_stack(near)
    other = problems_of(Backend("numpy", "float64"), (5,), reg=0.3)[0]
    assert not can_stack(near + other)
    move = lambda problem: np.asarray(problem.target.atoms + problem.target.origin + 100.0)
    assert not can_stack([near[0], Problem.of(move(near[1]), None, None, 0.0)])
    kernel = type("Own", (near[0].target.kernel,), {"__module__": "users"})
    monkeypatch.setattr(type(near[0].target), "kernel", kernel)
    assert not can_stack(problems_of(Backend("numpy", "float64"), (5, 6))[0])


def test_what_is_finished_alone_counts_all():
    """Iterations, samples, work and the log, before and after."""
    problems, _ = problems_of(Backend("numpy", "float64"), (40, 40), reg=0.05)
    source = resolve_source("normal", problems[0].target.atoms, 0)
    for result in solve_stacked(problems, source, Options.checked(1e-3, 30, 64), [None, None]):
        assert result.status == "max_iter"
        assert result.n_iter == len(result.log["value"]) == len(result.log["reg"]) == 30
        assert result.log["check_n_iter"][-1] == 30
        assert result.n_samples >= 30 * 64
        assert result.work >= result.n_samples * 0.5 * 40
