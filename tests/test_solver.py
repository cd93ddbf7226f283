"""The solver's own promises: scale-free, stable, honest."""

import functools
import itertools

import numpy as np
import pytest
from ot.backend import get_backend
from scipy import stats

import pot_semidiscrete as ps
from benchmarks import problems, references
from pot_semidiscrete.inference.chi2 import chi_square
from pot_semidiscrete.optim.buffer import SampleBuffer
from pot_semidiscrete.optim.semi_dual import Measurement
from tests.backends import BACKENDS, Backend, uncrossed

SMALL = ["uniform_line", "normal_line", "uniform_square", "mlp_64", "light_atoms"]
USUAL = [usual for usual in ("numpy-float64", "torch-float32") if usual.split("-")[0] in BACKENDS]


def scaled_source(nx, factor, d=2, seed=1):
    """A standard normal sampler, times a factor."""
    rng = np.random.default_rng(seed)
    return lambda n: nx.array(rng.normal(size=(n, d))) * factor


@pytest.mark.parametrize("relative_reg", [0.0, 0.02])
@pytest.mark.parametrize("factor", [2.0**-12, 2.0**9, 1e-3, 255.0])
def test_iterates_scale_with_the_data(factor, relative_reg, nx64, rng):
    """Data times s, reg times s^2: potential times s^2, to the bit for powers of two."""
    atoms = rng.normal(size=(50, 2)) + 1.0
    reg = relative_reg * 2.0 * atoms.var(axis=0).sum()
    potentials = [
        nx64.host(
            ps.solve_semidiscrete(
                nx64.array(atoms) * s, scaled_source(nx64, s), reg=reg * s * s, tol=0, max_iter=40
            ).potential
        )
        / s**2
        for s in (1.0, factor)
    ]
    if np.log2(factor) % 1 == 0:
        np.testing.assert_array_equal(potentials[0], potentials[1])
    else:
        # rounding decides on which side of a boundary a point falls, and Newton's steps amplify it
        tol = 1e-5 if reg == 0 else 1e-6
        np.testing.assert_allclose(potentials[0], potentials[1], atol=tol * np.ptp(potentials[0]))


def test_far_from_the_origin_in_float32(nx, rng):
    """A shift of 1e4 rounds the data by 5e-4 of their deviation; the answer moves as little."""
    atoms = rng.normal(size=(50, 2))
    potentials = []
    for shift in (0.0, 1e4):
        source = np.random.default_rng(1)
        result = ps.solve_semidiscrete(
            nx.array(atoms + shift),
            lambda n, shift=shift, source=source: nx.array(source.normal(size=(n, 2)) + shift),
            reg=0.05,
            tol=0,
            max_iter=100,
        )
        potentials.append(nx.host(result.potential))
    assert np.abs(potentials[0] - potentials[1]).max() < 1e4 * nx.eps * 20


@uncrossed
@pytest.mark.parametrize("batch_size", [16, 300, 4096])
@pytest.mark.parametrize("reg", [0.0, 0.05])
def test_batch_size_does_not_matter_much(batch_size, reg, nx, rng):
    atoms = rng.normal(size=(100, 2)) * 0.5 + 1.0
    result = ps.solve_semidiscrete(
        nx.array(atoms),
        "normal",
        reg=reg,
        tol=0,
        max_iter=30_000 // batch_size,
        batch_size=batch_size,
        random_state=0,
    )
    # a relative error of 0.15 for each atom; the limit of 300 samples each is 0.06
    assert result.chi2 < 0.15**2 + 4 * result.chi2_stderr


@uncrossed
@pytest.mark.parametrize("reg", [0.0, 0.05])
@pytest.mark.parametrize("law", ["zeros", "tiny", "dirichlet", "one heavy"])
def test_unequal_weights(law, reg, nx, rng):
    n_atoms = 30
    weights = {
        "zeros": np.where(np.arange(n_atoms) % 3 == 0, 0.0, 1.0),
        "tiny": np.where(np.arange(n_atoms) % 3 == 0, 1e-6, 1.0),
        "dirichlet": rng.dirichlet(np.full(n_atoms, 0.3)),
        "one heavy": np.where(np.arange(n_atoms) == 0, 100.0, 1.0),
    }[law]
    weights = weights / weights.sum()
    result = ps.solve_semidiscrete(
        nx.array(rng.random((n_atoms, 2))),
        "unif",
        nx.array(weights),
        reg=reg,
        tol=0,
        max_iter=100,
        random_state=0,
    )
    marginal, potential = nx.host(result.marginal_b), nx.host(result.potential)
    assert np.isfinite(potential).all()
    assert marginal.sum() == pytest.approx(1.0, abs=1e-4)
    assert (marginal[weights == 0] == 0.0).all()
    assert weights @ potential == pytest.approx(0.0, abs=1e-5)
    # total variation; the sampling noise of the evaluation alone is about 0.05 or less
    assert np.abs(marginal - weights).sum() / 2 < 0.12


def test_duplicate_atoms(nx, rng):
    """Two copies of each atom: together they get the mass of the one."""
    atoms = rng.random((30, 2))
    result = ps.solve_semidiscrete(
        nx.array(np.vstack([atoms, atoms])), "unif", reg=0.01, tol=0, max_iter=300, random_state=0
    )
    marginal = nx.host(result.marginal_b)
    assert np.abs(marginal[:30] + marginal[30:] - 1.0 / 30).sum() / 2 < 0.1


def test_atoms_far_from_the_source(nx, rng):
    """The distance is taken up by the first batch, not by the steps."""
    atoms = rng.random((50, 2)) + np.array([1000.0, -500.0])
    result = ps.solve_semidiscrete(nx.array(atoms), "unif", reg=0.01, tol=0.3, random_state=0)
    assert result.converged
    assert result.n_iter < 200


def test_metric_other_than_squared(nx, rng):
    for metric in ("euclidean", "cityblock"):
        result = ps.solve_semidiscrete(
            nx.array(rng.random((30, 2))), "unif", metric=metric, reg=0.02, random_state=0
        )
        assert result.converged


@uncrossed
@pytest.mark.parametrize("name", ["unif", "unif_cube", "ball", "unif_ball", "normal"])
def test_named_sources_have_their_law(name, nx):
    """Mean and second moment, five standard errors of 5,000 points."""
    seen = []

    def metric(x, y):
        seen.append(nx.host(x))
        return ((x[:, None, :] - y[None, :, :]) ** 2).sum(2)

    ps.solve_semidiscrete(
        nx.array(np.zeros((1, 3))), name, metric=metric, reg=1.0, tol=0, max_iter=20, random_state=0
    )
    x = np.unique(np.concatenate(seen), axis=0)
    assert len(x) > 5000
    mean, square = {
        "unif": (0.5, 1.0 / 3.0),
        "ball": (0.0, 0.2),
        "normal": (0.0, 1.0),
    }[name.split("_")[-1].replace("cube", "unif")]
    assert np.abs(x.mean(axis=0) - mean).max() < 5 * x.std() / np.sqrt(len(x))
    assert np.abs((x**2).mean(axis=0) - square).max() < 5 * (x**2).std() / np.sqrt(len(x))


@pytest.mark.parametrize("n_atoms", [20, 200])
def test_tolerance_means_the_relative_error_of_the_masses(n_atoms, nx64, rng):
    """At convergence, the masses measured on 400,000 new points are right to `tol`."""
    atoms, tol = rng.random((n_atoms, 2)), 0.1
    result = ps.solve_semidiscrete(nx64.array(atoms), "unif", reg=0.01, tol=tol, random_state=0)
    assert result.status == "converged"
    x = np.random.default_rng(9).random((400_000, 2))
    chi = ps.semidiscrete_atom_weights
    potential = nx64.host(result.potential)
    masses = sum(chi(atoms, part, potential, reg=0.01).sum(axis=0) for part in np.split(x, 40))
    masses /= len(x)
    error = np.sqrt(n_atoms * ((masses - 1.0 / n_atoms) ** 2).sum())
    assert error < tol * 1.1


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_chi_square_is_unbiased_and_its_error_is_what_it_is(spread, rng):
    """2,000 repetitions of 200 points, at the optimum and away from it; 5 standard errors."""
    b = rng.dirichlet(np.full(10, 2.0))
    for m in (b, 0.9 * b + 0.1 * np.roll(b, 1)):
        truth = ((m - b) ** 2 / b).sum()
        chi = np.eye(10)[rng.choice(10, p=m, size=(2000, 200))]
        chi = (1.0 - spread) * chi + spread * m  # the mean is m
        found = []
        for rows in chi:
            second = (rows**2).mean(axis=0)
            groups = [group.mean(axis=0) for group in np.split(rows, 20)]
            measured = Measurement(200, 0.0, rows.mean(axis=0), b, second, 1.0, None, groups)
            found.append(chi_square(measured))
        chi2, stderr = np.array(found).T
        assert abs(chi2.mean() - truth) < 5 * chi2.std() / np.sqrt(2000)
        assert 0.95 < np.sqrt((stderr**2).mean()) / chi2.std() < 1.25


@pytest.mark.parametrize("batch_size", [1, 3])
def test_small_batches_are_no_other_start(batch_size):
    """From a single point, the scale of the costs and the first eps would be 0."""
    atoms = np.random.default_rng(0).normal(size=(5, 1))
    options = {"max_iter": 4000 // batch_size, "batch_size": batch_size, "max_memory": 0, "tol": 0.0}
    result = ps.solve_semidiscrete(atoms, "normal", random_state=0, **options)
    assert result.chi2 < 0.01


def test_warm_start_keeps_what_was_reached(nx64, rng):
    atoms = nx64.array(rng.normal(size=(100, 2)))
    options = {"reg": 0.05, "tol": 0, "random_state": 0}
    cold = ps.solve_semidiscrete(atoms, "normal", max_iter=400, **options)
    warm = ps.solve_semidiscrete(atoms, "normal", max_iter=400, init_potential=cold.potential, **options)
    assert warm.log["reg"][0] == 0.05  # no annealing
    assert warm.chi2 < max(cold.chi2, 0.0) + 5 * (cold.chi2_stderr + warm.chi2_stderr)


def test_warm_start_with_little_memory_gains_what_its_samples_tell(nx64):
    """From a potential of few samples, while few points are kept: as a cold run of as many."""
    rng = np.random.default_rng(0)
    atoms, x = nx64.array(rng.normal(size=(100, 3))), nx64.array(rng.normal(size=(20_000, 3)))
    options = {"reg": 0.02 * ps.cost_scale(atoms), "tol": 0, "max_memory": 2**15}
    gained, possible = 0.0, 0.0
    for seed in range(3):
        solve = functools.partial(ps.solve_semidiscrete, atoms, "normal", random_state=seed, **options)
        start = solve(max_iter=4).potential
        warm, cold = solve(max_iter=300, init_potential=start), solve(max_iter=300)
        values = [
            float(ps.semidiscrete_loss(atoms, x, psi, reg=options["reg"]))
            for psi in (start, warm.potential, cold.potential)
        ]
        gained, possible = gained + values[1] - values[0], possible + values[2] - values[0]
    assert gained > 0.8 * possible > 0.0


def test_potential_that_is_right_takes_no_iteration(nx64, rng):
    """The few points of a start tell too little of it: the look takes as many as the rule asks for."""
    atoms = nx64.array(rng.normal(size=(50, 2)))
    options = {"reg": 0.2, "random_state": 0}
    right = ps.solve_semidiscrete(atoms, "normal", tol=0.02, **options)
    again = ps.solve_semidiscrete(atoms, "normal", tol=0.05, init_potential=right.potential, **options)
    assert again.converged
    assert again.n_iter == 0
    np.testing.assert_allclose(nx64.host(again.potential), nx64.host(right.potential), atol=1e-12)


@uncrossed
@pytest.mark.parametrize("n_atoms", [20, 300])
def test_large_regularisation_continues_where_it_was(n_atoms, nx, rng):
    """At 10 times the scale of the cost, where next to nothing is left to gain."""
    atoms, draw = nx.array(rng.normal(size=(n_atoms, 1))), scaled_source(nx, 1.0, d=1)
    options = {"reg": 10.0 * ps.cost_scale(atoms), "tol": 0, "max_iter": 20}
    first = ps.solve_semidiscrete(atoms, draw, **options)
    again = ps.solve_semidiscrete(atoms, draw, init_potential=first.potential, **options)
    assert np.abs(nx.host(again.potential) - nx.host(first.potential)).max() < 1e-3
    assert 0.0 < first.suboptimality < 1e-3


def test_potential_is_unbiased_enough_for_the_value(nx64):
    """Value against quadrature on the line, z-test at 1e-5."""
    atoms = np.linspace(0.0, 1.0, 30)[:, None]
    x = ((np.arange(200_000) + 0.5) / 200_000)[:, None]
    result = ps.solve_semidiscrete(
        nx64.array(atoms), "unif", reg=0.01, tol=0, max_iter=500, random_state=3
    )
    exact = ps.semidiscrete_loss(atoms, x, nx64.host(result.potential), reg=0.01)
    assert abs(float(result.value) - exact) < stats.norm.isf(5e-6) * result.value_stderr


def test_more_samples_help_without_regularisation(rng):
    """The steps towards ``reg = 0`` never add up to a finite length; errors on 400,000 points."""
    atoms, x = rng.random((50, 2)), np.random.default_rng(7).random((400_000, 2))
    errors = []
    for max_iter in (100, 1600):
        result = ps.solve_semidiscrete(atoms, "unif", reg=0, tol=0, max_iter=max_iter, random_state=0)
        masses = np.mean(
            [
                ps.semidiscrete_atom_weights(atoms, part, result.potential).mean(axis=0)
                for part in np.split(x, 40)
            ],
            axis=0,
        )
        errors.append(50.0 * ((masses - 0.02) ** 2).sum())
    assert errors[1] < errors[0] / 2


def test_learnable_metric_leaves_no_graph():
    torch = pytest.importorskip("torch")
    matrix = torch.eye(2, requires_grad=True)

    def learnable(x, y):
        return (((x @ matrix)[:, None] - (y @ matrix)[None]) ** 2).sum(dim=2)

    result = ps.solve_semidiscrete(
        torch.rand(20, 2), "unif", metric=learnable, reg=0.1, tol=0, max_iter=5
    )
    assert not result.potential.requires_grad
    assert not result.value.requires_grad


@functools.cache
def efficiency(name, backend="numpy-float64", seeds=range(3), n=16_000, shortfall=None, **options):
    """Efficiency ratios of runs with about `n` points on a stored problem: the limit is 1."""
    (library, dtype), problem, ratios = backend.split("-"), problems.get(name), []
    nx, quadrature, reference = Backend(library, dtype), problem.quadrature(), references.load(name)
    size = options.setdefault("batch_size", 256)
    n_iter = n // (shortfall or size)
    for seed in seeds:
        draw = problem.sampler(np.random.default_rng(seed), dtype)
        result = ps.solve_semidiscrete(
            nx.array(problem.atoms),
            lambda n, draw=draw: nx.array(draw(min(n, shortfall or n))),
            nx.array(problem.weights),
            reg=problem.reg,
            tol=0,
            max_iter=n_iter,
            **options,
        )
        psi = nx.host(result.potential)
        ratios.append(reference.efficiency_ratio(quadrature, psi, n_iter * (shortfall or size)))
    return np.array(ratios)


def lower_mean(ratios):
    """Mean less two standard errors."""
    return ratios.mean() - 2.0 * ratios.std(ddof=1) / np.sqrt(len(ratios))


@pytest.mark.parametrize(("name", "backend"), [*zip(SMALL, itertools.cycle(USUAL))])
def test_defaults_reach_the_statistical_limit(name, backend):
    """16,000 points."""
    assert lower_mean(efficiency(name, backend)) <= 1.5


@pytest.mark.parametrize(("batch_size", "shortfall"), [(16, None), (4096, None), (256, 3)])
def test_limit_is_reached_by_batches_of_any_size(batch_size, shortfall):
    """Also if the sampler returns 3 points whatever is asked."""
    ratios = efficiency("uniform_line", n=8192, batch_size=batch_size, shortfall=shortfall)
    assert lower_mean(ratios) <= 1.5


def test_no_memory_leaves_the_average():
    """On the line an ascent is slow along its long modes; the correction is not."""
    plain, corrected = efficiency("uniform_line", max_memory=0), efficiency("uniform_line")
    assert plain.mean() > 2.0 * max(corrected.mean(), 1.0)


@pytest.mark.parametrize("merged", [False, True])
def test_buffer_keeps_the_newest_points(merged, nx64):
    buffer = SampleBuffer(10 * 2 * 8, get_backend(nx64.array([0.0])))
    for k in range(5):
        buffer.add(nx64.array(np.full((3, 2), float(k))))
        if merged:
            buffer.points()
    newest = nx64.host(buffer.points())[:, 0]
    np.testing.assert_array_equal(newest, [1.0] + [2.0] * 3 + [3.0] * 3 + [4.0] * 3)
    assert not buffer.complete
    buffer.add(nx64.array(np.full((40, 2), 9.0)))
    np.testing.assert_array_equal(nx64.host(buffer.points()), np.full((10, 2), 9.0))


@pytest.mark.parametrize("max_memory", [1, 2048, 40_000])
def test_little_memory_is_no_worse_than_none(max_memory):
    """A batch of 256 points takes 2,048 bytes here."""
    little, none = (efficiency("uniform_line", max_memory=m) for m in (max_memory, 0))
    if max_memory < 2048:
        np.testing.assert_array_equal(little, none)
    assert little.mean() <= 1.1 * none.mean()


def test_autocast_does_not_reach_a_warm_start():
    torch = pytest.importorskip("torch")
    atoms = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    options = {"reg": 0.5, "tol": 0, "max_iter": 20, "random_state": 0}
    options["init_potential"] = torch.zeros(60)
    expected = ps.solve_semidiscrete(atoms, "normal", **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ps.solve_semidiscrete(atoms, "normal", **options)
        assert found.value_interval == expected.value_interval
    assert torch.equal(found.potential, expected.potential)


def test_reg_below_the_rounding_of_the_costs_is_0(nx, rng):
    """As it is for 1e-12 of the mean cost in float32, and not in float64."""
    atoms = nx.array(rng.random((20, 2)))
    options = {"tol": 0, "max_iter": 20, "random_state": 0}
    tiny, zero = (
        ps.solve_semidiscrete(atoms, "unif", reg=reg, **options)
        for reg in (1e-12 * ps.cost_scale(atoms), 0.0)
    )
    assert zero.reg == 0.0
    assert (tiny.reg == 0.0) == (nx.dtype == "float32")
    if tiny.reg == 0:
        np.testing.assert_array_equal(nx.host(tiny.potential), nx.host(zero.potential))


def test_a_correction_that_makes_masses_worse_is_left(rng):
    """Far clusters at reg 0: Newton's method is right in their masses, not in those of single atoms."""
    angle = np.arange(2000) % 8 * np.pi / 4
    atoms = 40.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.3 * rng.normal(size=(2000, 2))
    with pytest.warns(ps.SemiDiscreteWarning):
        result = ps.solve_semidiscrete(atoms, "normal", tol=0.03, max_iter=100, random_state=0)
    looks = result.log["check_chi2"]
    assert len(looks) > 1
    assert result.chi2 == looks.min()
    assert looks[-1] > looks[-2]  # the correction, after the look at the same points
