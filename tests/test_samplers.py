"""Quasi-random points: their law, their evenness, and where a run goes on."""

import json
import pickle
import warnings

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtr

import pot_semidiscrete as ps
from pot_semidiscrete import solve_semidiscrete
from pot_semidiscrete.problem import build_target
from pot_semidiscrete.samplers import SobolSampler
from pot_semidiscrete.samplers.draws import Draws
from pot_semidiscrete.samplers.laws import CallableSampler
from tests.backends import global_states, uncrossed

LAWS = ("unif", "normal")


def sampler(nx, dimension=3, law="unif", generator=None, random_state=0):
    """Sobol points in a backend and dtype."""
    like = nx.array(np.zeros((2, 5)))
    return SobolSampler(dimension, law, generator, type_as=like, random_state=random_state)


def cube(law, x):
    """Points of the law to points of the unit cube."""
    return ndtr(x) if law == "normal" else x


def mean_errors(law, draw, n_seeds=20):
    """Squared errors of means of a smooth function, in units of those of 4096 independent points."""
    # in each dimension the function is 1 + 2 (u - 1/2): of mean 1 and variance 1/3
    function = lambda x: (2.0 * cube(law, x)).prod(axis=1)
    means = np.array(
        [function(draw(SobolSampler(3, law, random_state=s))).mean() for s in range(n_seeds)]
    )
    return (means - 1.0) ** 2 * 4096 / ((4.0 / 3.0) ** 3 - 1.0)


@pytest.mark.parametrize("law", LAWS)
def test_law(nx, law):
    x = nx.host(sampler(nx, law=law)(4096))
    mean, variance = {"unif": (0.5, 1.0 / 12.0), "normal": (0.0, 1.0)}[law]
    np.testing.assert_allclose(x.mean(axis=0), mean, atol=0.002)
    np.testing.assert_allclose(np.cov(x.T), variance * np.eye(3), atol=0.01)


@pytest.mark.parametrize("law", LAWS)
def test_every_slice_has_its_share(law):
    x = cube(law, SobolSampler(4, law, random_state=1)(4096))
    counts = [np.histogram(column, bins=1024, range=(0.0, 1.0))[0] for column in x.T]
    assert (np.array(counts) == 4).all()


@pytest.mark.parametrize("law", LAWS)
def test_low_discrepancy(law):
    assert mean_errors(law, lambda s: s(4096)).mean() < 1.0 / 20.0
    assert mean_errors(law, lambda s: np.concatenate([s(1000) for _ in range(4)])).mean() < 1.0 / 20.0


@pytest.mark.parametrize("law", LAWS)
def test_independent_points_are_as_wrong_as_independent_points_are(law):
    # chi-squared of 100 degrees of freedom over 100: 3.5 standard deviations
    assert 0.5 < mean_errors(law, lambda s: s.independent(4096), 100).mean() < 1.5


@pytest.mark.parametrize("law", LAWS)
def test_independent_points_follow_the_law(nx, law):
    x = cube(law, nx.host(sampler(nx, law=law).independent(4096)))
    counts = np.array([np.histogram(column, bins=16, range=(0.0, 1.0))[0] for column in x.T])
    chi2 = ((counts - 256.0) ** 2 / 256.0).sum(axis=1)  # 15 degrees of freedom
    assert (chi2 < 38.0).all()  # 0.1%
    assert (chi2 > 3.0).all()  # more even than independent points are
    assert abs(np.corrcoef(x[1:, 0], x[:-1, 0])[0, 1]) < 0.06


@pytest.mark.parametrize("sizes", [[1, 2, 61], [7, 57], [32, 32], [63, 1]], ids=str)
def test_batch_sizes_do_not_change_the_points(nx, sizes):
    whole, parts = sampler(nx), sampler(nx)
    np.testing.assert_array_equal(nx.host(whole(64)), np.concatenate([nx.host(parts(n)) for n in sizes]))
    np.testing.assert_array_equal(
        nx.host(whole.independent(64)), np.concatenate([nx.host(parts.independent(n)) for n in sizes])
    )


def test_streams_do_not_move_each_other(nx):
    whole, mixed = sampler(nx), sampler(nx)
    found = [mixed(10)]
    mixed.independent(30)
    found.append(mixed(10))
    np.testing.assert_array_equal(nx.host(whole(20)), np.concatenate([nx.host(x) for x in found]))
    assert (mixed.position, mixed.n_independent) == (20, 30)


def test_seeds(nx):
    points = nx.host(sampler(nx)(16))
    np.testing.assert_array_equal(points, nx.host(sampler(nx, random_state=np.int64(0))(16)))
    same = [sampler(nx, random_state=np.random.default_rng(5))(16) for _ in range(2)]
    np.testing.assert_array_equal(*map(nx.host, same))
    others = [points, nx.host(same[0])]
    others += [nx.host(sampler(nx, random_state=seed)(16)) for seed in (1, None, None)]
    others += [nx.host(sampler(nx).independent(16))]
    for i, x in enumerate(others):
        assert all((x != y).all() for y in others[:i])


def test_generator_of_random_state_is_advanced():
    rng = np.random.default_rng(0)
    assert (SobolSampler(2, random_state=rng)(8) != SobolSampler(2, random_state=rng)(8)).all()


def test_global_generators_are_left_alone(nx):
    before = global_states()
    for seed in (0, None):
        found = sampler(nx, random_state=seed)
        found(5), found.independent(5)
    assert global_states() == before


@pytest.mark.parametrize("drawn", [(), (1,), (2,), (5, 7), (4096,)], ids=str)
def test_resume(nx, drawn):
    first = sampler(nx, law="normal", random_state=3)
    for n in drawn:
        first(n), first.independent(n + 1)
    state = json.loads(json.dumps(first.state_dict()))
    again = sampler(nx, law="normal", random_state=4)
    again(3), again.independent(3)
    again.load_state_dict(state)
    assert again.state_dict() == first.state_dict()
    np.testing.assert_array_equal(nx.host(again(9)), nx.host(first(9)))
    np.testing.assert_array_equal(nx.host(again.independent(9)), nx.host(first.independent(9)))


def test_state_survives_an_npz_file(tmp_path):
    first, again = SobolSampler(2, random_state=None), SobolSampler(2)
    first(5)
    np.savez(tmp_path / "state.npz", **first.state_dict())
    with np.load(tmp_path / "state.npz", allow_pickle=False) as file:
        again.load_state_dict(dict(file))
    np.testing.assert_array_equal(again(9), first(9))


def test_points_are_like_type_as(nx):
    like = nx.array(np.zeros(3))
    for x in (sampler(nx)(4), sampler(nx).independent(4), sampler(nx, generator=lambda z: z)(4)):
        assert type(x) is type(like)
        assert x.dtype == like.dtype
        assert x.shape == (4, 3)
        assert getattr(x, "device", None) == getattr(like, "device", None)


@pytest.mark.parametrize("law", LAWS)
def test_extreme_points_stay_inside(nx, law):
    """The nearest that either stream comes to 0 and 1."""
    ends = np.array([[2.0**-54, 2.0**-33, 1.0 - 2.0**-33, 1.0 - 2.0**-53, 0.5]])
    x = nx.host(sampler(nx, law=law)._points(ends))
    assert np.isfinite(x).all()
    if law == "unif":
        assert (x > 0).all()
        assert (x < 1).all()


def test_generator(nx):
    generator = lambda z: 2.0 * z[:, :2] - 1.0
    plain, moved = sampler(nx), sampler(nx, generator=generator)
    np.testing.assert_array_equal(nx.host(moved(8)), nx.host(generator(plain(8))))
    np.testing.assert_array_equal(
        nx.host(moved.independent(8)), nx.host(generator(plain.independent(8)))
    )


def test_torch_generator_is_called_without_gradient():
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(3, 2)
    seen = []
    module.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    draw = SobolSampler(3, generator=module, type_as=module.weight, random_state=0)
    for x in (draw(4), draw.independent(4)):
        assert not x.requires_grad
        assert x.shape == (4, 2)
    assert seen == [False, False]
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("dimension", [1, 3, 300])
def test_no_warnings(dimension):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in (1, 3, 4, 100):
            draw = SobolSampler(dimension, "normal", random_state=0)
            draw(n), draw(n), draw.independent(n)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"dimension": 0}, ValueError),
        ({"dimension": 2.0}, TypeError),
        ({"dimension": 21202}, ValueError),
        ({"law": "ball"}, ValueError),
        ({"law": ["unif"]}, ValueError),
        ({"generator": 3}, TypeError),
        ({"type_as": [0.0]}, TypeError),
        ({"type_as": "float32"}, TypeError),
        ({"type_as": np.zeros(2, dtype=int)}, TypeError),
        ({"random_state": -1}, ValueError),
        ({"random_state": True}, TypeError),
        ({"random_state": "0"}, TypeError),
    ],
    ids=str,
)
def test_bad_arguments_are_refused(given, error):
    (name,) = given
    with pytest.raises(error, match=rf"^{name}: expected .*received"):
        SobolSampler(**{"dimension": 2} | given)


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (2.0, TypeError), (2**32 + 1, ValueError)])
def test_bad_numbers_of_points_are_refused(n, error):
    with pytest.raises(error, match=r"^n: expected .*received"):
        SobolSampler(2)(n)


@pytest.mark.parametrize(
    "bad", [lambda z: z[:-1], lambda z: None, lambda z: 0.0], ids=["rows", "None", "0"]
)
def test_bad_points_of_the_generator_are_refused(nx, bad):
    draw = sampler(nx, generator=bad)
    for call in (draw, draw.independent):
        with pytest.raises(ValueError, match=r"^generator: expected one point for each of 4"):
            call(4)


@pytest.mark.parametrize(
    "change",
    [{"dimension": 3}, {"position": -1}, {"more": 1}],
    ids=str,
)
def test_bad_states_are_refused(change):
    draw = SobolSampler(2, random_state=0)
    draw(3)
    before = draw.state_dict()
    with pytest.raises(ValueError, match=r"^state.*: expected .*received"):
        draw.load_state_dict(before | change)
    with pytest.raises(ValueError, match=r"^state: expected .*received"):
        draw.load_state_dict({})
    assert draw.state_dict() == before


@pytest.mark.parametrize("n_columns", [2, 3])
def test_draws_are_checked_and_counted(nx, n_columns):
    target = build_target(nx.array(np.arange(8.0).reshape(4, 2)), None, None)
    draw = Draws(CallableSampler(sampler(nx, n_columns)), target)
    if n_columns == 3:
        for call in (draw, draw.independent):
            with pytest.raises(ValueError, match="sampler_source"):
                call(5)
        return
    expected = sampler(nx, 2)
    np.testing.assert_array_equal(nx.host(draw(5)), nx.host(target.center(expected(5))))
    np.testing.assert_array_equal(
        nx.host(draw.independent(6)), nx.host(target.center(expected.independent(6)))
    )
    assert draw.n_samples == 11


def test_draws_of_any_other_source_are_independent_already(nx):
    target = build_target(nx.array(np.arange(8.0).reshape(4, 2)), None, None)
    calls = []
    draw = Draws(CallableSampler(lambda n: calls.append(n) or nx.array(np.ones((n, 2)))), target)
    draw.independent(3), draw(4)
    assert (calls, draw.n_samples) == ([3, 4], 7)


@uncrossed
def test_solver_takes_it(nx, rng):
    atoms = nx.array(rng.random((10, 2)))
    source = SobolSampler(2, type_as=atoms, random_state=0)
    result = solve_semidiscrete(atoms, source, reg=0.05)
    assert result.converged
    exact = solve_semidiscrete(atoms, "unif", reg=0.05, tol=0.02, random_state=0)
    np.testing.assert_allclose(nx.host(result.potential), nx.host(exact.potential), atol=0.02)


# Laws and loaders of other packages.


def foreign(kind):
    """A standard normal law, or standard normal points, of another package."""
    if kind == "scipy":
        return stats.multivariate_normal(np.zeros(2))
    torch = pytest.importorskip("torch")
    if kind == "torch":
        return torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    points = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0))
    data = torch.utils.data.TensorDataset(points, torch.arange(20_000))
    return torch.utils.data.DataLoader(data, batch_size=300)


FOREIGN = ["scipy", "torch", "loader"]


@uncrossed
@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_source_is_solved_for_as_our_own(kind, nx):
    atoms = nx.array(np.random.default_rng(0).normal(size=(10, 2)))
    options = {"reg": 0.3, "tol": 0, "max_iter": 150, "random_state": 0}
    found = ps.solve_semidiscrete(atoms, foreign(kind), **options)
    expected = ps.solve_semidiscrete(atoms, "normal", **options)
    assert str(found.potential.dtype).endswith(nx.dtype)
    np.testing.assert_allclose(nx.host(found.potential), nx.host(expected.potential), atol=0.1)
    options["max_iter"] = 3
    one, other = (ps.solve_semidiscrete(atoms, foreign(kind), **options).potential for _ in range(2))
    np.testing.assert_array_equal(nx.host(one), nx.host(other))


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_source_leaves_global_generators_alone(kind, nx64):
    source, before = foreign(kind), global_states()
    atoms = nx64.array(np.random.default_rng(0).normal(size=(10, 2)))
    ps.solve_semidiscrete(atoms, source, reg=0.3, tol=0, max_iter=2)
    if kind != "loader":  # which seeds its workers by torch's
        assert global_states() == before


@uncrossed
@pytest.mark.parametrize("name", ["norm", "uniform", "t"])
def test_laws_of_scipy_on_a_line(name, nx):
    law = getattr(stats, name)(*([3] if name == "t" else []))
    atoms = nx.array(law.ppf(np.linspace(0.05, 0.95, 10))[:, None])
    result = ps.solve_semidiscrete(atoms, law, tol=0, max_iter=40, random_state=0)
    borders = law.cdf(np.convolve(nx.host(atoms)[:, 0], [0.5, 0.5], "valid"))
    assert abs(nx.host(result.marginal_b) - 0.1).max() < 0.03
    assert 0.0 < borders[0] < 0.12


def test_new_laws_of_scipy(nx64):
    if not hasattr(stats, "Normal"):
        pytest.skip("needs SciPy 1.15")
    atoms = nx64.array(np.linspace(-1.0, 1.0, 5)[:, None])
    result = ps.solve_semidiscrete(atoms, stats.Normal(), reg=0.1, tol=0, max_iter=20, random_state=0)
    expected = ps.solve_semidiscrete(atoms, stats.norm(), reg=0.1, tol=0, max_iter=20, random_state=1)
    np.testing.assert_allclose(nx64.host(result.potential), nx64.host(expected.potential), atol=0.1)


@pytest.mark.parametrize("source", ["normal", *FOREIGN])
def test_loss_is_fitted_to_whatever_the_solver_takes(source):
    torch = pytest.importorskip("torch")
    from pot_semidiscrete.generative import SemiDiscreteLoss

    atoms = torch.randn(10, 2, generator=torch.Generator().manual_seed(1))
    given = source if source == "normal" else foreign(source)
    options = {"tol": 0, "max_iter": 60, "random_state": 0}
    loss = SemiDiscreteLoss(atoms, reg=0.3)
    result = loss.fit(given, **options)
    expected = ps.solve_semidiscrete(
        atoms, given if source != "loader" else foreign(source), reg=0.3, **options
    )
    torch.testing.assert_close(result.potential, expected.potential)
    torch.testing.assert_close(loss.potential, result.potential)


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_latent_law_trains(kind, tmp_path):
    """And goes on from a checkpoint bit for bit, where a law has a state."""
    torch = pytest.importorskip("torch")
    from pot_semidiscrete.generative import train_generator

    data = torch.randn(30, 2, generator=torch.Generator().manual_seed(1))

    def run(n_steps, path=None):
        generator = torch.nn.Linear(2, 2)
        torch.nn.init.eye_(generator.weight)
        torch.nn.init.zeros_(generator.bias)
        options = {"n_steps": n_steps, "random_state": 0, "batch_size": 16, "checkpoint": path}
        train_generator(generator, foreign(kind), data, **options)
        return generator.weight.detach()

    whole = run(6)
    if kind != "loader":
        path = tmp_path / "run.pt"
        run(3, path)
        torch.testing.assert_close(run(6, path), run(6), rtol=0.0, atol=0.0)
    torch.testing.assert_close(whole, run(6), rtol=0.0, atol=0.0)
    found = ps.train_parameters(
        lambda theta, z: theta + z,
        np.zeros(2),
        stats.multivariate_normal(np.zeros(2)),
        data.double().numpy(),
        vjp=lambda theta, z, cotangent: cotangent.sum(axis=0),
        reg=0.3,
        n_steps=3,
    )
    assert found.status == "finished"


def test_loader_gives_each_point_once_in_an_epoch():
    torch = pytest.importorskip("torch")
    from pot_semidiscrete.samplers.adapters import LoaderOfTorch

    points = torch.arange(20.0).reshape(10, 2)
    loader = LoaderOfTorch(torch.utils.data.DataLoader(points, batch_size=4), np.zeros(1, np.float32))
    rows = []
    while sum(map(len, rows)) < 10:
        rows.append(loader(3))
        assert 0 < len(rows[-1]) <= 3
    np.testing.assert_array_equal(np.concatenate(rows), points)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(loader))(3), points[:3])


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [([], ValueError, "empty"), ([{"x": 1}] * 4, TypeError, "tuples that begin")],
)
def test_loader_of_no_points_is_refused(data, error, words):
    torch = pytest.importorskip("torch")
    loader = torch.utils.data.DataLoader(data, batch_size=2)
    with pytest.raises(error, match=rf"sampler_source: expected a loader of points.*{words}"):
        ps.solve_semidiscrete(np.eye(2), loader, reg=0.1)


def test_data_sets_as_atoms_are_told_how():
    torch = pytest.importorskip("torch")
    from pot_semidiscrete.generative import SemiDiscreteLoss

    data = torch.utils.data.TensorDataset(torch.rand(6, 2))
    loader, subset = torch.utils.data.DataLoader(data), torch.utils.data.Subset(data, [0, 1])
    for given, words in ((data, "dataset.tensors"), (loader, "torch.cat"), (subset, "stack_dataset")):
        with pytest.raises(TypeError, match=rf"X_target: expected .*{words}"):
            ps.solve_semidiscrete(given)
    with pytest.raises(TypeError, match=r"X_target: expected .*torch\.cat"):
        SemiDiscreteLoss(loader)
    assert SemiDiscreteLoss(subset).potential.shape == (2,)  # which are read


def test_names_of_laws_are_latent_laws_of_a_dimension():
    torch = pytest.importorskip("torch")
    from pot_semidiscrete.generative import train_generator

    data = torch.randn(30, 2, generator=torch.Generator().manual_seed(1))

    def run(latent):
        generator = torch.nn.Linear(3, 2)
        torch.nn.init.eye_(generator.weight)
        torch.nn.init.zeros_(generator.bias)
        train_generator(generator, latent, data, n_steps=3, random_state=0, batch_size=16)
        return generator.weight.detach()

    torch.testing.assert_close(run(("normal", 3)), run(3), rtol=0.0, atol=0.0)
    assert not torch.equal(run(("unif", 3)), run(3))
    options = {"vjp": lambda theta, z, cotangent: cotangent.sum(axis=0), "reg": 0.3, "n_steps": 2}
    atoms = data.double().numpy()
    ball = lambda seed: ps.train_parameters(
        *(np.add, np.zeros(2), ("ball", 2), atoms), random_state=seed, **options
    )
    np.testing.assert_array_equal(ball(0).theta, ball(0).theta)
    assert (ball(1).theta != ball(0).theta).all()
    for train in (
        run,
        lambda latent: ps.train_parameters(np.add, np.zeros(2), latent, atoms, **options),
    ):
        with pytest.raises(
            ValueError, match="latent_sampler: expected a name and a dimension, received"
        ):
            train("normal")
        with pytest.raises(ValueError, match="dimension: expected a whole number of at least 1"):
            train(("normal", 0))
