"""What the solver returns: consistent with itself, with the free functions, and with its file."""

import functools
import importlib
import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import ot
import pytest
from scipy import stats

import pot_semidiscrete as sd
from pot_semidiscrete import SemiDiscreteResult, SemiDiscreteWarning, solve_semidiscrete
from tests.backends import Backend

WEIGHTS = np.array([0.1, 0.0, 0.3, 0.15, 0.0, 0.2, 0.25])
ATOMS = np.random.default_rng(1).normal(size=(7, 2))
POINTS = np.random.default_rng(2).normal(size=(9, 2))


@functools.cache
def run(kind, dtype, **options):
    """A run, once for the same options."""
    nx = Backend(kind, dtype)
    return solve_semidiscrete(nx.array(ATOMS), "normal", nx.array(WEIGHTS), random_state=0, **options)


def solve(nx, **options):
    """A short run on atoms of which two have no weight."""
    return run(nx.kind, nx.dtype, **{"reg": 0.2, "tol": 0, "max_iter": 20} | options)


def interrupted(nx, after=0):
    """A run whose source is interrupted after some batches; after 0, nothing at all is known."""
    left = iter(range(after))

    def sampler(n):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return nx.array(np.random.default_rng(0).normal(size=(n, 2)))

    return solve_semidiscrete(nx.array(ATOMS), sampler, nx.array(WEIGHTS), reg=0.2, tol=0)


def failed(nx):
    """What is attached to the exception of a sampler."""

    def sampler(n):
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk") as caught:
        solve_semidiscrete(nx.array(ATOMS), sampler, reg=0.2)
    return caught.value.partial_result


def stalled(nx):
    """Nine points, each of which belongs to one atom, have no masses like these."""
    with pytest.warns(SemiDiscreteWarning, match="has not halved.* points tie .*Raise reg, tol"):
        return solve_semidiscrete(nx.array(ATOMS), nx.array(POINTS), nx.array(WEIGHTS), random_state=0)


def after_three(state):
    """A callback that stops the run."""
    return state.n_iter == 3


STATES = {
    "max_iter": solve,
    "converged": lambda nx: solve(nx, tol=0.2, max_iter=1000),
    "stopped": lambda nx: solve(nx, callback=after_three),
    "stalled": stalled,
    "interrupted": interrupted,
    "failed": failed,
}


@functools.cache
def in_state(status, kind):
    """A result that has a status."""
    return STATES[status](Backend(kind, "float64"))


@pytest.fixture(params=STATES)
def any_state(request, nx64):
    """A status, and a result that has it."""
    return request.param, in_state(request.param, nx64.kind)


def test_it_is_a_result_of_pot(nx64):
    assert isinstance(solve(nx64), ot.utils.OTResult)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("potentials", "c_transform"),
        ("potential_a", "c_transform"),
        ("plan", "atom_weights"),
        ("sparse_plan", "atom_weights"),
        ("lazy_plan", "atom_weights"),
        ("marginals", "marginal_b"),
        ("marginal_a", "marginal_b"),
        ("a_to_b", "ot_map"),
        ("b_to_a", "atom"),
        ("value_quad", "Gromov"),
    ],
)
def test_absent_member_says_what_to_use(name, instead, any_state):
    _, result = any_state
    assert not hasattr(result, name)
    with pytest.raises(AttributeError, match=f"{name}.*{instead}"):
        getattr(result, name)


def test_what_is_computed_is_not_set(any_state):
    _, result = any_state
    with pytest.raises(AttributeError, match=r"SemiDiscreteResult\.value is computed, not set"):
        result.value = 0.0


def test_every_public_member_of_pot_is_present_or_absent(any_state):
    """None of them raises anything but AttributeError."""
    _, result = any_state
    for name in dir(ot.utils.OTResult):
        if not name.startswith("_"):
            hasattr(result, name)


def test_repr_works_in_every_state(any_state):
    status, result = any_state
    assert f"status='{status}'" in repr(result)
    assert "n_atoms=7" in repr(result)


def test_status_converged_and_counts_agree(any_state):
    status, result = any_state
    assert result.status == status
    assert result.converged is (status == "converged")
    assert len(result.log["value"]) == len(result.log["reg"]) == result.n_iter
    assert result.n_samples >= 256 * result.n_iter
    assert result.n_iter == {"max_iter": 20, "stopped": 3}.get(status, result.n_iter)
    assert all(isinstance(history, np.ndarray) for history in result.log.values())
    checks = [result.log[f"check_{name}"] for name in ("n_iter", "chi2", "chi2_stderr")]
    assert len({len(check) for check in checks}) == 1
    assert (np.diff(checks[0]) >= 0).all()  # a correction is looked at, too


def test_samples_counted_are_samples_drawn(nx64):
    drawn = []

    def sampler(n):
        drawn.append(n)
        return nx64.array(np.random.default_rng(len(drawn)).normal(size=(n, 2)))

    result = solve_semidiscrete(nx64.array(ATOMS), sampler, reg=0.2, tol=0.3, max_iter=50)
    assert result.n_samples == sum(drawn)


def test_convergence_is_what_was_measured(nx64):
    tol = 0.1
    result = solve(nx64, tol=tol, max_iter=1000)
    assert result.converged
    assert result.chi2 == result.log["check_chi2"][-1]
    assert result.chi2 + 1.645 * result.chi2_stderr <= tol**2
    assert result.log["check_n_iter"][-1] == result.n_iter
    assert (np.diff(result.log["reg"]) <= 0).all()
    assert result.log["reg"][-1] >= result.reg == 0.2


def test_potential_has_weighted_mean_zero(nx):
    result = solve(nx)
    potential = nx.host(result.potential_b)
    assert potential.shape == (7,)
    assert abs(WEIGHTS @ potential) <= 8 * nx.eps * np.abs(potential).max()
    np.testing.assert_array_equal(nx.host(result.potential), potential)


@pytest.mark.parametrize("name", ["potential", "potential_b", "marginal_b", "value", "value_linear"])
def test_numbers_keep_backend_and_dtype(name, nx):
    number = getattr(solve(nx), name)
    assert str(number.dtype).endswith(nx.dtype)
    assert type(number).__module__.split(".")[0].startswith(nx.name)


def test_marginal_is_a_probability(nx):
    marginal = nx.host(solve(nx).marginal_b)
    assert abs(marginal.sum() - 1) <= 32 * nx.eps
    assert (marginal >= 0).all()


@pytest.mark.parametrize("reg", [0.0, 0.2])
def test_atoms_of_no_weight_get_nothing(reg, nx):
    result = solve(nx, reg=reg)
    empty = WEIGHTS == 0
    chi = nx.host(result.atom_weights(nx.array(POINTS)))
    assert chi.shape == (9, 7)
    assert (chi[:, empty] == 0).all()
    assert (nx.host(result.marginal_b)[empty] == 0).all()
    assert (nx.host(result.potential_b)[empty] == 0).all()
    assert np.isin(nx.host(result.pair(nx.array(ATOMS), random_state=0)), np.flatnonzero(~empty)).all()


@pytest.mark.parametrize("reg", [0.0, 0.2])
@pytest.mark.parametrize("method", ["c_transform", "atom_weights", "ot_map"])
def test_methods_are_the_free_functions(method, reg, nx):
    result, x = solve(nx, reg=reg), nx.array(POINTS)
    free = getattr(sd, f"semidiscrete_{method}")
    expected = free(nx.array(ATOMS), x, result.potential, nx.array(WEIGHTS), None, reg)
    np.testing.assert_allclose(
        nx.host(getattr(result, method)(x)), nx.host(expected), rtol=64 * nx.eps, atol=64 * nx.eps
    )


def test_value_is_the_loss_on_fresh_points(nx64, rng):
    """Within 6 standard errors of an independent estimate: probability below 1e-8."""
    result = solve(nx64, max_iter=100)
    x = nx64.array(rng.normal(size=(5000, 2)))
    values = nx64.host(result.c_transform(x)) + WEIGHTS @ nx64.host(result.potential)
    stderr = np.hypot(values.std() / len(values) ** 0.5, result.value_stderr)
    assert abs(float(result.value) - values.mean()) < 6 * stderr


def test_linear_value_is_the_cost_of_the_plan(nx64, rng):
    """As above; and entropy makes the difference: value = linear + reg KL >= linear."""
    result = solve(nx64, max_iter=100)
    x = rng.normal(size=(5000, 2))
    costs = (nx64.host(result.atom_weights(nx64.array(x))) * ot.dist(x, ATOMS)).sum(axis=1)
    n_fresh = result.n_samples - 100 * 256  # drawn to evaluate
    stderr = costs.std() * (1 / n_fresh + 1 / len(costs)) ** 0.5
    assert abs(float(result.value_linear) - costs.mean()) < 6 * stderr
    assert float(result.value) > float(result.value_linear)


def test_pairs_follow_the_weights(nx64):
    """One chi-square over four points, 5,000 pairs each: probability below 1e-5."""
    result, n = solve(nx64, reg=0.5), 5000
    x = POINTS[:4]
    chi = nx64.host(result.atom_weights(nx64.array(x)))[:, WEIGHTS > 0]
    pairs = nx64.host(result.pair(nx64.array(np.repeat(x, n, axis=0)), random_state=0))
    counts = np.stack([np.bincount(part.astype(int), minlength=7) for part in pairs.reshape(4, n)])
    counts, expected = counts[:, WEIGHTS > 0], n * chi
    rare = expected < 10
    statistic = ((counts - expected) ** 2 / expected)[~rare].sum()
    # the rare cells of a point together are one cell
    rest = np.where(rare, expected, 0).sum(axis=1)
    found = np.where(rare, counts, 0).sum(axis=1)
    statistic += ((found - rest) ** 2 / np.maximum(rest, 1)).sum()
    assert statistic < stats.chi2.isf(1e-5, df=(~rare).sum() + (rest > 0).sum() - 4)


@pytest.mark.parametrize("x", [POINTS, POINTS[:1]], ids=["points", "point"])
def test_pairs_of_a_map_are_its_cells(x, nx64):
    result, x = solve(nx64, reg=0.0), nx64.array(x)
    cells = nx64.host(result.atom_weights(x)).argmax(axis=1)
    np.testing.assert_array_equal(nx64.host(result.pair(x)), cells)


def test_pairs_are_rows_of_the_atoms(nx64):
    result, x = solve(nx64, reg=0.0), nx64.array(POINTS)
    pairs = result.pair(x)
    assert pairs.shape == (9,)
    np.testing.assert_allclose(
        ATOMS[nx64.host(pairs).astype(int)], nx64.host(result.ot_map(x)), rtol=0, atol=64 * nx64.eps
    )
    assert "int" in str(pairs.dtype)


def test_same_seed_same_pairs(nx64):
    result, x = solve(nx64, reg=1.0), nx64.array(np.repeat(POINTS, 20, axis=0))
    first = nx64.host(result.pair(x, random_state=3))
    np.testing.assert_array_equal(nx64.host(result.pair(x, random_state=3)), first)
    assert (nx64.host(result.pair(x, random_state=4)) != first).any()
    assert (nx64.host(result.pair(x)) != nx64.host(result.pair(x))).any()


def test_a_generator_is_advanced_by_pair(nx64):
    result, x = solve(nx64, reg=1.0), nx64.array(np.repeat(POINTS, 20, axis=0))
    random = np.random.default_rng(0)
    first, second = (nx64.host(result.pair(x, random_state=random)) for _ in range(2))
    assert (first != second).any()


@pytest.mark.parametrize("end", ["first", "last"])
def test_no_draw_pairs_an_atom_out_of_reach(end, nx):
    """Not even the least and the largest number of a generator, with atoms out of reach at the ends."""

    class Fixed(np.random.Generator):
        def random(self, size=None, dtype=np.float64):
            one = np.ones(size, dtype)
            return 0 * one if end == "first" else np.nextafter(one, 0 * one)

    atoms, x = nx.array([[-2.0], [-0.5], [0.5], [2.0]]), nx.array(np.linspace(-0.1, 0.1, 50)[:, None])
    result = solve_semidiscrete(atoms, "normal", reg=0.02, tol=0, max_iter=50, random_state=0)
    assert nx.host(result.atom_weights(x))[:, [0, 3]].max() < 1e-12
    pairs = nx.host(result.pair(x, random_state=Fixed(np.random.PCG64(0))))
    assert np.isin(pairs, [1, 2]).all()


# Files.


def city(x, y):
    """A metric of a user's own: the sum of absolute differences."""
    return abs(x[:, None, :] - y[None, :, :]).sum(2)


SCALARS = ("status", "converged", "n_iter", "n_samples", "reg", "value_stderr", "chi2", "chi2_stderr")


def assert_same(nx, one, other):
    """Both results hold the same numbers."""
    for name in SCALARS:
        np.testing.assert_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in ("value", "value_linear", "marginal_b", "potential_b"):
        a, b = getattr(one, name), getattr(other, name)
        if a is None:
            assert b is None, name
        else:
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(nx.host(a), nx.host(b), err_msg=name)
    assert one.log.keys() == other.log.keys()
    for name in one.log:
        np.testing.assert_array_equal(one.log[name], other.log[name], err_msg=name)


@pytest.mark.parametrize("metric", [None, "euclidean", city], ids=["None", "euclidean", "callable"])
def test_file_gives_the_result_back(metric, nx, tmp_path):
    result = solve(nx, metric=metric, max_iter=5)
    result.save(tmp_path / "result")
    again = SemiDiscreteResult.load(
        tmp_path / "result", nx.array(ATOMS), metric if callable(metric) else None
    )
    assert_same(nx, result, again)
    x = nx.array(POINTS)
    for method in ("c_transform", "atom_weights", "ot_map"):
        np.testing.assert_allclose(
            nx.host(getattr(again, method)(x)),
            nx.host(getattr(result, method)(x)),
            rtol=64 * nx.eps,
            atol=64 * nx.eps,
        )
    np.testing.assert_array_equal(nx.host(again.pair(x, 0)), nx.host(result.pair(x, 0)))


def test_file_keeps_every_state(any_state, nx64, tmp_path):
    _, result = any_state
    result.save(tmp_path / "result")
    again = SemiDiscreteResult.load(tmp_path / "result", nx64.array(ATOMS))
    assert_same(nx64, result, again)
    assert repr(again) == repr(result)


def test_file_of_a_file_is_the_same(nx64, tmp_path):
    solve(nx64, max_iter=3).save(tmp_path / "one")
    again = SemiDiscreteResult.load(tmp_path / "one", nx64.array(ATOMS))
    again.save(tmp_path / "two")
    assert_same(nx64, again, SemiDiscreteResult.load(tmp_path / "two", nx64.array(ATOMS)))


def test_potential_of_a_file_continues_a_run(nx64, tmp_path):
    solve(nx64).save(tmp_path / "result")
    again = SemiDiscreteResult.load(tmp_path / "result", nx64.array(ATOMS))
    result = solve_semidiscrete(
        nx64.array(ATOMS), "normal", reg=0.2, tol=0, max_iter=2, init_potential=again.potential
    )
    assert (result.log["reg"] == 0.2).all()


@pytest.mark.parametrize("metric", [None, city], ids=["None", "callable"])
def test_file_holds_no_pickle(metric, nx64, tmp_path):
    solve(nx64, metric=metric, max_iter=2).save(tmp_path / "result.npz")
    with np.load(tmp_path / "result.npz", allow_pickle=False) as file:
        members = {name: file[name] for name in file.files}
    assert len(members) > 3
    assert all(member.dtype != object for member in members.values())


def saved(folder, nx, **options):
    """The file of a run."""
    path = folder / "result"
    solve(nx, max_iter=2, **options).save(path)
    return path


def moved(atoms, row, by):
    """A copy of which one row is moved."""
    atoms = atoms.copy()
    atoms[row] += by
    return atoms


@pytest.mark.parametrize(
    "atoms",
    [
        ATOMS[::-1],
        ATOMS[[1, 0, 2, 3, 4, 5, 6]],
        ATOMS + 1.0 * (np.arange(7) % 2)[:, None],
        2.0 * ATOMS,
        moved(ATOMS, 3, [0.02, 0.0]),
        ATOMS[:, ::-1],
        ATOMS[:-1],
        np.concatenate([ATOMS, ATOMS[:1]]),
        np.concatenate([ATOMS, ATOMS], axis=1),
    ],
    ids=["reversed", "swapped", "others", "scaled", "moved", "columns", "fewer", "more", "wider"],
)
def test_file_refuses_other_atoms(atoms, nx64, tmp_path):
    path = saved(tmp_path, nx64)
    with pytest.raises(ValueError, match=r"X_target: expected.*received"):
        SemiDiscreteResult.load(path, nx64.array(atoms))


def test_file_refuses_moved_atoms_for_a_metric_that_sees_it(nx64, tmp_path):
    path = saved(tmp_path, nx64, metric="cosine")
    with pytest.raises(ValueError, match=r"X_target: expected.*received"):
        SemiDiscreteResult.load(path, nx64.array(ATOMS + 1.0))


@pytest.mark.parametrize(
    ("metric", "given"),
    [(None, "euclidean"), ("euclidean", None), ("euclidean", "sqeuclidean"), (None, city), (city, max)],
    ids=["named", "saved", "other", "callable", "other-callable"],
)
def test_file_refuses_another_metric(metric, given, nx64, tmp_path):
    path = saved(tmp_path, nx64, metric=metric)
    if given is None:  # what was saved is used
        result = SemiDiscreteResult.load(path, nx64.array(ATOMS))
        assert result.c_transform(nx64.array(POINTS)).shape == (9,)
        return
    with pytest.raises(ValueError, match=r"metric: expected.*received"):
        SemiDiscreteResult.load(path, nx64.array(ATOMS), given)


def test_file_asks_for_the_callable(nx64, tmp_path):
    path = saved(tmp_path, nx64, metric=city)
    with pytest.raises(ValueError, match=r"metric: expected.*result, 'city.*callable.*give it"):
        SemiDiscreteResult.load(path, nx64.array(ATOMS))


def test_file_asks_for_the_constants_of_a_metric(nx64, tmp_path):
    metric = ("minkowski", 3)
    path = saved(tmp_path, nx64, metric=metric)
    with pytest.raises(ValueError, match=r"metric: expected.*minkowski, p=3.*constants.*give it"):
        SemiDiscreteResult.load(path, nx64.array(ATOMS))
    assert SemiDiscreteResult.load(path, nx64.array(ATOMS), metric).reg == 0.2


def write_text(path):
    path.write_text("potential: 0 0 0")


def write_npy(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def write_npz(path):
    with path.open("wb") as file:
        np.savez(file, potential=np.zeros(3))


def write_format(path):
    with path.open("wb") as file:
        np.savez(file, meta=np.array(json.dumps({"format": 99})))


def write_pickle(path):
    with path.open("wb") as file:
        np.savez(file, meta=np.array([{"format": 1}], dtype=object))


def write_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "write",
    [
        write_text,
        write_npy,
        write_npz,
        write_format,
        write_pickle,
        write_half,
        lambda path: path.write_text(""),
    ],
    ids=["text", "npy", "npz", "format", "pickle", "half", "empty"],
)
def test_file_that_is_not_ours_is_refused(write, tmp_path):
    path = tmp_path / "result"
    if write is write_half:
        sd.solve_semidiscrete(ATOMS, "normal", tol=0, max_iter=1).save(path)
    write(path)
    with pytest.raises(ValueError, match=r"result.*expected.*SemiDiscreteResult.save"):
        SemiDiscreteResult.load(path, ATOMS)


def test_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        SemiDiscreteResult.load(tmp_path / "nothing", ATOMS)


@pytest.mark.parametrize("name", ["result", "result.npz", "result.data"])
@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["str", "Path"])
def test_path_is_used_as_it_is(name, kind, tmp_path):
    result = solve_semidiscrete(ATOMS, "normal", tol=0, max_iter=1, random_state=0)
    result.save(kind(tmp_path / name))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert SemiDiscreteResult.load(kind(tmp_path / name), ATOMS).n_iter == 1


@pytest.mark.parametrize(
    "error", [OSError("no space left"), KeyboardInterrupt()], ids=["full", "Ctrl-C"]
)
def test_crash_while_writing_leaves_the_old_file(error, tmp_path, monkeypatch):
    path = tmp_path / "result"
    result = solve_semidiscrete(ATOMS, "normal", tol=0, max_iter=1, random_state=0)
    result.save(path)
    before = path.read_bytes()

    def crash(file, *args, **arrays):
        (open(file, "wb") if isinstance(file, str) else file).write(b"PK half of it")  # noqa: SIM115
        raise error

    monkeypatch.setattr(np, "savez_compressed", crash)
    with pytest.raises(type(error)):
        solve_semidiscrete(ATOMS, "normal", tol=0, max_iter=2, random_state=1).save(path)
    assert path.read_bytes() == before
    assert SemiDiscreteResult.load(path, ATOMS).n_iter == 1
    assert [p.name for p in tmp_path.iterdir()] == ["result"], "nothing half-written is left behind"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_file_is_read_under_another_dtype_and_backend(dtype, nx, tmp_path):
    path = saved(tmp_path, nx)
    expected = SemiDiscreteResult.load(path, nx.array(ATOMS))
    tolerance = {"rtol": 1e-5, "atol": 1e-5}
    atoms, points = ATOMS.astype(dtype), POINTS.astype(dtype)
    kinds = [np.asarray]
    if importlib.util.find_spec("torch"):
        kinds.append(importlib.import_module("torch").as_tensor)
    if importlib.util.find_spec("jax"):
        kinds.append(importlib.import_module("jax.numpy").asarray)
    for kind in kinds:
        again = SemiDiscreteResult.load(path, kind(atoms))
        assert str(again.potential.dtype).endswith(dtype)
        assert type(again.potential) is type(kind(atoms))
        np.testing.assert_allclose(again.potential, nx.host(expected.potential), **tolerance)
        np.testing.assert_allclose(float(again.value), float(expected.value), **tolerance)
        np.testing.assert_allclose(
            again.c_transform(kind(points)), nx.host(expected.c_transform(nx.array(POINTS))), **tolerance
        )


def test_warning_class_is_ours():
    assert issubclass(SemiDiscreteWarning, UserWarning)


def test_shifted_atoms_are_not_those_of_the_file(tmp_path):
    """Though centring would make them equal."""
    solved = sd.solve_semidiscrete(ATOMS, "normal", tol=0, max_iter=1)
    solved.save(tmp_path / "result")
    with pytest.raises(ValueError, match="same order"):
        SemiDiscreteResult.load(tmp_path / "result", ATOMS + 10.0)


def test_file_of_the_first_version_is_read(nx):
    """What it did not have is not known; weights of 0, and its interval, are there."""
    atoms = np.random.default_rng(0).normal(size=(30, 2))
    path = Path(__file__).with_name("result_0.1.0.npz")
    with pytest.warns(SemiDiscreteWarning, match=r"0\.1\.0, which kept too little"):
        result = SemiDiscreteResult.load(path, nx.array(atoms))
    low, high = result.value_interval
    assert low < float(result.value) < high
    assert result.status == "converged"
    assert (nx.host(result.potential)[:5] == 0.0).all()
    assert math.isnan(result.work)
    assert math.isnan(result.suboptimality_bound)
