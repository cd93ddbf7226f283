"""The dual algebra at a given potential: identities, exact to rounding."""

import itertools
import tracemalloc

import numpy as np
import ot
import pytest
from ot.backend import NumpyBackend
from scipy.spatial import distance
from scipy.stats import qmc

import pot_semidiscrete as ps
from pot_semidiscrete import kernels, plan
from pot_semidiscrete.backend import Capabilities
from pot_semidiscrete.costs import Minkowski
from pot_semidiscrete.kernels import in_place as in_place_kernel
from pot_semidiscrete.kernels import reduction, tiles
from pot_semidiscrete.kernels.outputs import OUTPUTS as KNOWN
from pot_semidiscrete.kernels.outputs import SUMS, Task
from pot_semidiscrete.kernels.tiles import Tiles
from pot_semidiscrete.problem import build_target
from tests.backends import BACKENDS, Backend, counted

METRICS = (None, "sqeuclidean", "euclidean", "cityblock", "cosine", "correlation")
OUTPUTS = [name for name in KNOWN if name != "index"]
FUNCTIONS = (
    "semidiscrete_c_transform",
    "semidiscrete_atom_weights",
    "semidiscrete_ot_map",
    "semidiscrete_gradient",
)


@pytest.fixture
def problem(rng):
    """Arguments of the public functions: 30 atoms of unequal weights, 17 points."""
    weights = rng.random(30)
    return {
        "X_target": rng.normal(size=(30, 5)) + 2.0,
        "X_source": rng.normal(size=(17, 5)),
        "semi_dual_potential": rng.normal(size=30),
        "a_target": weights / weights.sum(),
    }


def call(name, nx, problem, **options):
    """A public function on the arrays of a backend."""
    arrays = {key: nx.array(value) for key, value in problem.items()}
    return getattr(ps, name)(**arrays, **options)


@pytest.mark.parametrize("reg", [0.0, 0.3])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", FUNCTIONS[:3])
def test_equals_pot(name, metric, reg, problem, nx64):
    expected = getattr(ot.semidiscrete, name)(**problem, metric=metric, reg=reg)
    actual = nx64.host(call(name, nx64, problem, metric=metric, reg=reg))
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("metric", ["chebyshev", "braycurtis", "canberra"])
def test_equals_pot_for_metrics_of_scipy(metric, problem):
    expected = ot.semidiscrete.semidiscrete_c_transform(**problem, metric=metric, reg=0.1)
    actual = ps.semidiscrete_c_transform(**problem, metric=metric, reg=0.1)
    np.testing.assert_allclose(actual, expected, rtol=1e-10)


@pytest.mark.parametrize("w", [None, [1.0, 0.0, 2.0, 0.5, 1e-3]])
@pytest.mark.parametrize("p", [1, 1.5, 2, 3, 20])
def test_minkowski_is_that_of_scipy(p, w, problem, nx):
    """Its gradient is that of its values."""
    metric, x, y = ("minkowski", p, w), problem["X_source"], problem["X_target"]
    costs = distance.cdist(x, y, "minkowski", p=p, **({} if w is None else {"w": w}))
    found = nx.host(call("semidiscrete_c_transform", nx, problem, metric=metric))
    expected = (costs - problem["semi_dual_potential"]).min(axis=1)
    np.testing.assert_allclose(found, expected, rtol=100 * nx.eps, atol=100 * nx.eps)
    if nx.dtype == "float64":
        at = lambda x: nx.host(
            call("semidiscrete_c_transform", nx, problem | {"X_source": x}, **options)
        )
        options, h = {"metric": metric, "reg": 0.3}, 1e-6
        steps = h * np.eye(5)
        slopes = np.stack([(at(x + s) - at(x - s)) / (2.0 * h) for s in steps], axis=1)
        found = nx.host(call("semidiscrete_gradient", nx, problem, **options))
        np.testing.assert_allclose(found, slopes, atol=1e-7)


def test_minkowski_leaves_out_what_has_no_weight(nx):
    """However far apart it is: beside it, powers of what counts would be 0."""
    atoms, x, psi = nx.array([[0.0, 0.0]]), nx.array([[1e6, 3.0]]), nx.array([0.0])
    metric = ("minkowski", 100, [0.0, 1.0])
    found = ps.semidiscrete_c_transform(atoms, x, psi, metric=metric)
    np.testing.assert_array_equal(nx.host(found), [3.0])
    found = ps.semidiscrete_gradient(atoms, x, psi, metric=metric)
    np.testing.assert_array_equal(nx.host(found), [[0.0, 1.0]])


def test_minkowski_of_any_scale_and_at_an_atom(nx):
    for scale in (1e-14, 1.0, 1e14):
        atoms = nx.array(scale * np.eye(3))
        found = ps.semidiscrete_c_transform(atoms, atoms, nx.array(np.zeros(3)), metric=("minkowski", 7))
        np.testing.assert_array_equal(nx.host(found), 0.0)
        found = ps.semidiscrete_gradient(atoms, atoms, nx.array(np.zeros(3)), metric=("minkowski", 7))
        np.testing.assert_array_equal(nx.host(found), 0.0)
        assert ps.cost_scale(atoms, metric=("minkowski", 7)) == pytest.approx(
            2 / 3 * scale * 2 ** (1 / 7)
        )


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("minkowski", r'as in \("minkowski", 3\), received none'),
        (("minkowski", 0.5), "at least 1"),
        (("minkowski", np.nan), "at least 1"),
        (("minkowski", np.inf), "chebyshev"),
        (("minkowski", "3"), "at least 1"),
        (("minkowski", np.complex128(3)), "at least 1"),
        (("minkowski", 3, [1.0, -1.0]), "at least 0"),
        (("minkowski", 3, "ab"), "at least 0, .* as in"),
        (("minkowski", 3, [1.0, 1j]), "at least 0"),
        (("minkowski", 3, [1.0]), "one for each coordinate"),
    ],
    ids=str,
)
def test_minkowski_says_what_it_takes(metric, words, problem):
    with pytest.raises(ValueError, match=rf"metric: expected .*{words}"):
        call("semidiscrete_c_transform", Backend("numpy", "float64"), problem, metric=metric)


@pytest.mark.parametrize("metric", [("euclidean", 3), (), (3,), ("minkowski", 3, None, 4)], ids=str)
def test_constants_that_a_metric_does_not_take_are_refused(metric, problem):
    with pytest.raises(TypeError, match="metric: expected"):
        call("semidiscrete_c_transform", Backend("numpy", "float64"), problem, metric=metric)


@pytest.mark.parametrize("reg", [0.0, 0.3])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_keeps_backend_and_dtype(name, reg, problem, nx):
    out = call(name, nx, problem, reg=reg)
    assert type(out) is type(nx.array(np.zeros(1)))
    assert str(out.dtype).endswith(nx.dtype)


@pytest.mark.parametrize("reg", [0.0, 0.3])
def test_loss_is_mean_transform_plus_product(reg, problem, nx):
    transform = nx.host(call("semidiscrete_c_transform", nx, problem, reg=reg))
    expected = transform.mean() + problem["a_target"] @ problem["semi_dual_potential"]
    actual = float(call("semidiscrete_loss", nx, problem, reg=reg))
    assert actual == pytest.approx(expected, rel=50 * nx.eps)


@pytest.mark.parametrize("reg", [0.0, 0.3])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_atoms_of_weight_zero_are_not_there(name, reg, problem, nx64):
    problem["a_target"][[0, 7, 29]] = 0.0
    problem["a_target"] /= problem["a_target"].sum()
    problem["semi_dual_potential"][7] = 1e6  # would win everything
    kept = problem["a_target"] > 0
    reduced = {key: value if key == "X_source" else value[kept] for key, value in problem.items()}
    full = nx64.host(call(name, nx64, problem, reg=reg))
    expected = nx64.host(call(name, nx64, reduced, reg=reg))
    if name == "semidiscrete_atom_weights":
        assert np.all(full[:, ~kept] == 0.0)
        full = full[:, kept]
    np.testing.assert_allclose(full, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reg", [0.0, 0.3])
@pytest.mark.parametrize("name", [*FUNCTIONS, "semidiscrete_loss"])
def test_blocks_do_not_show(name, reg, problem, nx64, monkeypatch):
    whole = nx64.host(call(name, nx64, problem, reg=reg))
    monkeypatch.setattr(reduction, "block_rows", lambda target, x: 3)
    np.testing.assert_allclose(
        nx64.host(call(name, nx64, problem, reg=reg)), whole, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("name", [*FUNCTIONS, "semidiscrete_loss"])
def test_passes_over_pieces_of_a_block_do_not_show(name, problem, nx64, monkeypatch):
    whole = nx64.host(call(name, nx64, problem, reg=0.3))
    kernel = kernels.kernel_for(build_target(nx64.array(problem["X_target"])).nx)
    limits = iter([4 * 8 * len(problem["X_target"])] * 100)  # bytes of four rows
    monkeypatch.setattr(kernel, "cache", staticmethod(lambda: next(limits)))
    monkeypatch.setattr(reduction, "block_rows", lambda target, x: 17)
    found = nx64.host(call(name, nx64, problem, reg=0.3))
    np.testing.assert_allclose(found, whole, rtol=1e-12, atol=1e-12)
    assert len(list(limits)) < 100 or not nx64.in_groups


@pytest.mark.parametrize("reg", [0.0, 0.3])
def test_an_output_does_not_depend_on_what_else_is_asked_for(reg, nx, problem, monkeypatch):
    monkeypatch.setattr(reduction, "block_rows", lambda target, x: 7)
    target = build_target(nx.array(problem["X_target"]), nx.array(problem["a_target"]))
    x, psi = target.center(nx.array(problem["X_source"])), nx.array(problem["semi_dual_potential"])

    def outputs(*want):
        out = kernels.reduce(target, x, psi, reg, want, values=psi)
        return [nx.host(getattr(out, name)) for name in want]

    alone = {name: outputs(name)[0] for name in OUTPUTS}
    for want in itertools.product(OUTPUTS, repeat=2):
        for name, found in zip(want, outputs(*want), strict=True):
            np.testing.assert_allclose(
                found, alone[name], rtol=50 * nx.eps, atol=50 * nx.eps, err_msg=f"{name} of {want}"
            )


@pytest.fixture
def in_place(nx):
    """A backend of which arrays are changed in place."""
    if not nx.in_groups:
        pytest.skip("maxima of rows are guessed on the host, by NumPy and torch")
    return nx


@pytest.mark.parametrize("level", [1.0, 0.1, 0.01, 0.001])
@pytest.mark.parametrize(("metric", "scale"), [("sqeuclidean", 0.3), ("cosine", 0.005)])
def test_guessed_maxima_of_rows_do_not_show(metric, scale, level, in_place, rng, monkeypatch):
    atoms, x, reg, nx = 1.0 + rng.random((100, 2)), 1.0 + rng.random((200, 2)), level * scale, in_place
    weights = rng.dirichlet(np.full(100, 0.3)) + 1e-9
    target = build_target(nx.array(atoms), nx.array(weights / weights.sum()), metric)
    kernel, potential = kernels.kernel_for(target.nx), nx.array(0.1 * scale * rng.normal(size=100))
    arguments = (target, target.center(nx.array(x)), potential, reg)

    def found(name):
        return nx.host(getattr(kernels.reduce(*arguments, (name,), values=potential), name))

    expected = {name: found(name) for name in OUTPUTS}
    monkeypatch.setattr(in_place_kernel, "GUESS_COLUMNS", 1)
    monkeypatch.setattr(in_place_kernel, "LIKELY", np.inf)
    monkeypatch.setattr(reduction, "block_rows", lambda target, x: 7)
    guessed, redone = (counted(monkeypatch, kernel, name) for name in ("prepared_block", "normalize"))
    rounded = nx.eps * max(20.0 / level, 1.0 / reg)  # cosines are products of about 1, in units of reg
    for name in OUTPUTS:
        np.testing.assert_allclose(found(name), expected[name], rtol=1e3 * nx.eps, atol=rounded)
    assert len(guessed) == len(OUTPUTS) * 29
    assert any(block is None for block in guessed) == (level <= 0.01)  # given up
    assert bool(redone) == (level < 0.1)


@pytest.mark.parametrize("reg", [0.0, 0.3, 0.02])
@pytest.mark.parametrize("metric", [None, "euclidean", "cityblock"])
def test_tiles_of_atoms_are_one_block(metric, reg, problem, nx):
    """One-row blocks, one-column tiles, and what is both, at the end of (4, 29), included."""
    target = build_target(nx.array(problem["X_target"]), nx.array(problem["a_target"]), metric)
    x = target.center(nx.array(problem["X_source"]))
    potential, values = nx.array(problem["semi_dual_potential"]), nx.array(np.arange(30.0))
    share = nx.array(np.linspace(1.0, 0.01, 17))
    names = [name for name in KNOWN if name != "index" or reg == 0]
    expected = kernels.reduce(target, x, potential, reg, names, values=values)
    cost = nx.host(target.cost_matrix(x)).max()
    tolerance = 50 * nx.eps * (1.0 + (cost / reg if reg else 0.0))
    for rows, columns in ((1, 7), (5, 1), (17, 7), (4, 29), (4, 30)):
        tiles = Tiles(Task(target, potential, reg, names, values), x)
        tiles.rows = rows
        tiles.columns = [slice(k, min(k + columns, 30)) for k in range(0, 30, columns)]
        parts = [tiles(x[k : k + rows]) for k in range(0, 17, rows)]
        for name, pieces in zip(names, zip(*parts, strict=True), strict=True):
            pieces = [nx.host(piece) for piece in pieces]
            found = sum(pieces) if name in SUMS else np.concatenate(pieces)
            wanted = nx.host(getattr(expected, name))
            assert found == pytest.approx(wanted, abs=tolerance * (1.0 + np.abs(wanted).max())), name
        if reg:
            below = nx.host(expected.weights).cumsum(axis=1)
            index = nx.host(tiles.draw(x, share)).astype(int)
            level = nx.host(share) * below[:, -1]
            reached, before = below[range(17), index], below[range(17), index - 1] * (index > 0)
            assert (reached >= level - tolerance).all()
            assert (before < level + tolerance).all()


def test_long_rows_are_tiled(problem, in_place, monkeypatch):
    """The public functions give the same."""
    nx, potential = in_place, problem["semi_dual_potential"]
    whole = [nx.host(call(name, nx, problem, reg=0.3)) for name in FUNCTIONS]
    solve = lambda: ps.solve_semidiscrete(
        nx.array(problem["X_target"]), reg=0.3, init_potential=nx.array(potential), random_state=0
    )
    before, x = solve(), nx.array(problem["X_source"])
    used = []
    monkeypatch.setattr(tiles, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(tiles, "SHARING", 4)
    tiled = tiles.Tiles.__call__
    monkeypatch.setattr(tiles.Tiles, "__call__", lambda *a: used.append(a) or tiled(*a))
    for name, expected in zip(FUNCTIONS, whole, strict=True):
        found = nx.host(call(name, nx, problem, reg=0.3))
        assert found == pytest.approx(expected, abs=1e4 * nx.eps)
    result = solve()
    assert used
    assert result.n_samples == before.n_samples
    scale = 1e4 * nx.eps * (1.0 + np.abs(nx.host(before.potential)).max())
    assert nx.host(result.potential) == pytest.approx(nx.host(before.potential), abs=scale)
    same = nx.host(result.pair(x, random_state=1)) == nx.host(before.pair(x, random_state=1))
    assert same.mean() > 0.9


def test_a_guess_that_is_too_low_is_made_again(in_place, monkeypatch):
    nx, N = in_place, 100
    atoms = np.zeros((N, 1))
    atoms[1, 0] = 40.0  # not one of the few
    target = build_target(nx.array(atoms), merge=False)
    monkeypatch.setattr(in_place_kernel, "GUESS_COLUMNS", 1)
    monkeypatch.setattr(in_place_kernel, "LIKELY", np.inf)
    x = np.zeros((200, 1))
    x[:3, 0] = 39.0, 21.0, np.nan
    psi, want = nx.array(np.zeros(N)), ("c_transform", "weights")
    redone = counted(monkeypatch, kernels.kernel_for(target.nx), "normalize")
    found = kernels.reduce(target, target.center(nx.array(x)), psi, 1.0, want)
    transform, weights = nx.host(found.c_transform), nx.host(found.weights)
    assert [len(top) for top, _ in redone] == [3]
    np.testing.assert_allclose(transform[:2], [1.0 + np.log(N), 19.0**2 + np.log(N)], rtol=1e3 * nx.eps)
    np.testing.assert_allclose(weights[:2, 1], 1.0, rtol=10.0 * nx.eps)
    np.testing.assert_allclose(transform[3:], -np.log((N - 1.0) / N), atol=100.0 * nx.eps)
    assert np.isnan(transform[2])


def test_maxima_of_rows_are_guessed_where_that_pays(in_place, rng):
    nx, N = in_place, in_place_kernel.GUESS_COLUMNS
    atoms = {d: nx.array(rng.random((N, d))) for d in (2, 4)}

    def guesses(d=2, n_atoms=N, n=128, reg=0.05, metric=None):
        target = build_target(atoms[d][:n_atoms], metric=metric)
        psi = nx.array(np.zeros(n_atoms))
        kernel = kernels.kernel_for(target.nx)(target, psi, reg)
        kernel.prepare(atoms[d][:n], 64)
        return kernel.is_guessed

    assert guesses()
    for other in (
        {"d": 4},
        {"n_atoms": N - 1},
        {"n": 127},
        {"reg": 0.0},
        {"reg": 1e-5},
        {"metric": "euclidean"},
    ):
        assert not guesses(**other)


def test_the_bias_is_a_coordinate_where_points_outnumber_coordinates(in_place, rng):
    """The larger product gives the same block as a pass that adds the bias."""
    nx, (n, d) = in_place, (40, 5)
    target = build_target(nx.array(rng.random((30, d))), nx.array(rng.dirichlet(np.ones(30))))
    x, psi = target.center(nx.array(rng.random((n, d)))), nx.array(rng.normal(size=30))
    kernel = kernels.kernel_for(target.nx)(target, psi, 0.1)
    rows, expected = kernel.prepare(x, n), kernel(x)
    assert kernel.right is not None
    weights, transform = nx.host(expected.dense()), nx.host(expected.c_transform)
    block = kernel(x, None, rows)
    np.testing.assert_allclose(nx.host(block.dense()), weights, rtol=1e3 * nx.eps, atol=nx.eps)
    np.testing.assert_allclose(nx.host(block.c_transform), transform, rtol=1e2 * nx.eps, atol=nx.eps)
    assert kernel.prepare(x[: 4 * d - 1], n) is None


def test_landmarks_are_spread_in_a_sobol_sequence(nx64):
    points = qmc.Sobol(2, seed=0).random(4096)
    assert build_target(nx64.array(points)).landmark_radius < 0.02


@pytest.mark.parametrize("reg", [0.0, 0.3])
@pytest.mark.parametrize("metric", METRICS)
def test_bilinear_part_of_the_costs_may_be_known(metric, reg, problem, nx64, monkeypatch):
    monkeypatch.setattr(reduction, "block_rows", lambda target, x: 3)
    target = build_target(nx64.array(problem["X_target"]), nx64.array(problem["a_target"]), metric)
    x = target.center(nx64.array(problem["X_source"]))
    psi, want = nx64.array(problem["semi_dual_potential"]), ("c_transform", "colsum", "map")
    bilinear = kernels.known_bilinear(target, x)
    before = nx64.host(bilinear)
    found, expected = (kernels.reduce(target, x, psi, reg, want, bilinear=b) for b in (bilinear, None))
    for name in want:
        ours, theirs = (nx64.host(getattr(out, name)) for out in (found, expected))
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(nx64.host(bilinear), before)  # it is kept, and not worked in
    for limit, on_host in {"LARGEST_BILINEAR": True, "DEVICE_BILINEAR": False}.items():
        monkeypatch.setattr(reduction, "on_host", lambda x, on_host=on_host: on_host)
        assert kernels.known_bilinear(target, x) is not None
        monkeypatch.setattr(reduction, limit, bilinear.shape[0] * bilinear.shape[1] - 1)
        assert kernels.known_bilinear(target, x) is None


def peak(call):
    """Bytes that a call takes at most, of Python and NumPy."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_that_of_a_block(rng):
    atoms, x, psi = rng.random((4000, 2)), rng.random((20000, 2)), np.zeros(4000)
    for function in (ps.semidiscrete_loss, ps.semidiscrete_ot_map):
        most = peak(lambda function=function: function(atoms, x, psi, reg=0.01))
        assert most < 8 * len(atoms) * len(x) / 20


@pytest.mark.parametrize(
    "cost", [Minkowski(3).matrix, lambda x, y, nx: Capabilities(nx).distances(x, y)]
)
def test_memory_of_costs_does_not_grow_with_the_dimension(cost, rng):
    """Differences of all coordinates are not held at once."""

    def peak_of(d):
        x, y = rng.random((20, d)), rng.random((500, d))
        return peak(lambda: cost(x, y, NumpyBackend()))

    assert peak_of(512) < 1.5 * peak_of(16)


def test_memory_does_not_grow_with_the_samples(rng):
    """Sums over them are not kept block by block."""
    target = build_target(rng.random((4000, 16)))

    def peak_of(n):
        x, psi = target.center(rng.random((n, 16))), 0.0 * target.weights
        return peak(lambda: kernels.reduce(target, x, psi, 0.1, ("colsum", "colsquare")))

    assert peak_of(20_000) < peak_of(2_000) + 8 * 16 * 20_000


@pytest.mark.parametrize("reg", [0.0, 0.3])
@pytest.mark.parametrize("power", [-20, 20])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_powers_of_two_scale_exactly(name, power, reg, problem, nx):
    s = 2.0**power
    scaled = dict(problem)
    for key, factor in (("X_target", s), ("X_source", s), ("semi_dual_potential", s * s)):
        scaled[key] = problem[key].astype(nx.dtype) * np.dtype(nx.dtype).type(factor)
    unit = {
        "semidiscrete_c_transform": s * s,
        "semidiscrete_atom_weights": 1.0,
        "semidiscrete_ot_map": s,
        "semidiscrete_gradient": s,
    }[name]
    expected = nx.host(call(name, nx, problem, reg=reg)) * unit
    np.testing.assert_array_equal(nx.host(call(name, nx, scaled, reg=reg * s * s)), expected)


@pytest.mark.parametrize("reg", [0.0, 0.3])
def test_far_from_the_origin_only_the_input_is_rounded(reg, problem, nx):
    """At 1e4, float32 positions are rounded by up to 5e-4: costs of size 5 move by 1e-2."""
    shifted = dict(problem)
    for key in ("X_target", "X_source"):
        shifted[key] = problem[key] + 1e4
    expected = nx.host(call("semidiscrete_c_transform", nx, problem, reg=reg))
    actual = nx.host(call("semidiscrete_c_transform", nx, shifted, reg=reg))
    assert np.abs(actual - expected).max() < 1e4 * nx.eps * 20


@pytest.mark.parametrize("reg", [0.0, 0.3])
@pytest.mark.parametrize("metric", METRICS)
def test_gradient_by_finite_differences(metric, reg, problem, nx64):
    gradient = nx64.host(call("semidiscrete_gradient", nx64, problem, metric=metric, reg=reg))
    h = 1e-6
    for k in range(5):
        moved = []
        for sign in (1.0, -1.0):
            shifted = dict(problem, X_source=problem["X_source"] + sign * h * np.eye(5)[k])
            out = call("semidiscrete_c_transform", nx64, shifted, metric=metric, reg=reg)
            moved.append(nx64.host(out))
        np.testing.assert_allclose(gradient[:, k], (moved[0] - moved[1]) / (2 * h), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("reg", [0.0, 0.3])
@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "cosine"])
def test_loss_gradients_are_the_envelope_formula(metric, reg, problem, autodiff):
    a = {key: autodiff.array(value) for key, value in problem.items()}

    def loss(x, psi):
        return ps.semidiscrete_loss(a["X_target"], x, psi, a["a_target"], metric, reg)

    in_x, in_psi = autodiff.gradient(loss, a["X_source"], a["semi_dual_potential"])
    gradient = ps.semidiscrete_gradient(**problem, metric=metric, reg=reg)
    marginal = ps.semidiscrete_atom_weights(**problem, metric=metric, reg=reg).mean(axis=0)
    np.testing.assert_allclose(autodiff.host(in_x), gradient / 17, atol=1e-12)
    np.testing.assert_allclose(autodiff.host(in_psi), problem["a_target"] - marginal, atol=1e-12)


@pytest.mark.parametrize("name", [*FUNCTIONS, "semidiscrete_loss"])
def test_differentiable_in_every_array(name, problem, autodiff, rng):
    """A directional derivative through each argument, against central differences."""
    keys = ["X_target", "X_source", "semi_dual_potential"]
    base = [problem[key] for key in keys]
    out = np.asarray(getattr(ps, name)(**problem, reg=0.3))
    cotangent = rng.normal(size=out.shape)

    def scalar(*arrays, array=lambda a: a):
        options = dict(zip(keys, arrays, strict=True), a_target=array(problem["a_target"]))
        return (getattr(ps, name)(**options, reg=0.3) * array(cotangent)).sum()

    gradients = autodiff.gradient(
        lambda *arrays: scalar(*arrays, array=autodiff.array), *map(autodiff.array, base)
    )
    for k, gradient in enumerate(gradients):
        direction = rng.normal(size=base[k].shape)
        ends = [
            scalar(*base[:k], base[k] + sign * 1e-6 * direction, *base[k + 1 :]) for sign in (1.0, -1.0)
        ]
        expected = (ends[0] - ends[1]) / 2e-6
        assert (autodiff.host(gradient) * direction).sum() == pytest.approx(expected, rel=1e-5)


def test_differentiable_in_the_weights(problem, autodiff):
    """The weights stay on the simplex: move mass from one atom to another."""
    direction = np.zeros(30)
    direction[:2] = 1.0, -1.0

    def loss(t, array=lambda a: a):
        a = {key: array(value) for key, value in problem.items()}
        a["a_target"] = a["a_target"] + t * array(direction)
        return ps.semidiscrete_loss(**a, reg=0.3)

    (gradient,) = autodiff.gradient(lambda t: loss(t, autodiff.array), autodiff.array(np.array(0.0)))
    expected = (loss(1e-6) - loss(-1e-6)) / 2e-6
    assert float(gradient) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("reg", [0.0, 0.3])
def test_loss_gradients_in_atoms_and_weights_are_their_formulas(reg, problem, autodiff, rng):
    a = problem | {"a_target": rng.dirichlet(np.full(30, 3.0))}
    x, psi, b = (a[key] for key in ("X_source", "semi_dual_potential", "a_target"))

    def loss(atoms, weights):
        return ps.semidiscrete_loss(atoms, autodiff.array(x), autodiff.array(psi), weights, reg=reg)

    given = (autodiff.array(a[key]) for key in ("X_target", "a_target"))
    in_atoms, in_weights = map(autodiff.host, autodiff.gradient(loss, *given))
    chi = ps.semidiscrete_atom_weights(**a, reg=reg)
    m = chi.mean(axis=0)
    np.testing.assert_allclose(in_atoms, 2.0 * (m[:, None] * a["X_target"] - chi.T @ x / 17), atol=1e-12)
    np.testing.assert_allclose(np.diff(in_weights), np.diff(psi - reg * m / b), atol=1e-11)


def test_callable_metric(problem, nx64):
    def metric(x, y):
        return ((x[:, None, :] - y[None, :, :]) ** 2).sum(2)

    for name in FUNCTIONS[:3]:
        np.testing.assert_allclose(
            nx64.host(call(name, nx64, problem, metric=metric, reg=0.3)),
            nx64.host(call(name, nx64, problem, reg=0.3)),
            atol=1e-12,
        )
    if not nx64.differentiates:
        with pytest.raises(TypeError, match="differentiable callable"):
            call("semidiscrete_gradient", nx64, problem, metric=metric, reg=0.3)
    else:
        np.testing.assert_allclose(
            nx64.host(call("semidiscrete_gradient", nx64, problem, metric=metric, reg=0.3)),
            nx64.host(call("semidiscrete_gradient", nx64, problem, reg=0.3)),
            atol=1e-12,
        )


@pytest.mark.parametrize("reg", [0.0, 0.3])
def test_euclidean_gradient_at_an_atom_is_finite(reg, nx):
    atoms = np.array([[0.0, 0.0], [1.0, 0.0]])
    options = {"metric": "euclidean", "reg": reg}
    problem = {"X_target": atoms, "X_source": atoms, "semi_dual_potential": np.zeros(2)}
    gradient = nx.host(call("semidiscrete_gradient", nx, problem, **options))
    chi = nx.host(call("semidiscrete_atom_weights", nx, problem, **options))
    expected = np.array([[-chi[0, 1], 0.0], [chi[1, 0], 0.0]])
    np.testing.assert_allclose(gradient, expected, atol=20 * nx.eps)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("reg", [0.0, 0.3])
def test_one_atom(metric, reg, rng, nx):
    problem = {
        "X_target": rng.normal(size=(1, 5)),
        "X_source": rng.normal(size=(7, 5)),
        "semi_dual_potential": np.array([0.5]),
    }
    cost = ot.dist(problem["X_source"], problem["X_target"], metric=metric or "sqeuclidean")[:, 0]
    transform = nx.host(call("semidiscrete_c_transform", nx, problem, metric=metric, reg=reg))
    np.testing.assert_allclose(transform, cost - 0.5, rtol=200 * nx.eps, atol=200 * nx.eps)
    np.testing.assert_array_equal(
        nx.host(call("semidiscrete_atom_weights", nx, problem, metric=metric, reg=reg)), 1.0
    )


def test_duplicate_atoms_share_their_mass(problem, nx64):
    """An atom split in two, with the potential kept, changes nothing at ``reg > 0``."""
    split = {
        "X_target": np.vstack([problem["X_target"], problem["X_target"][:1]]),
        "X_source": problem["X_source"],
        "semi_dual_potential": np.append(
            problem["semi_dual_potential"], problem["semi_dual_potential"][0]
        ),
        "a_target": np.append(problem["a_target"], 0.25 * problem["a_target"][0]),
    }
    split["a_target"][0] *= 0.75
    for name in ("semidiscrete_c_transform", "semidiscrete_ot_map", "semidiscrete_gradient"):
        np.testing.assert_allclose(
            nx64.host(call(name, nx64, split, reg=0.3)),
            nx64.host(call(name, nx64, problem, reg=0.3)),
            atol=1e-12,
        )


@pytest.mark.parametrize("ratio", [1e-8, 1e-3, 1e5])
def test_extreme_reg_stays_finite_and_tends_to_its_limits(ratio, problem, nx):
    reg = ratio * ps.cost_scale(problem["X_target"])
    transform = nx.host(call("semidiscrete_c_transform", nx, problem, reg=reg))
    assert np.isfinite(transform).all()
    cost = ot.dist(problem["X_source"], problem["X_target"])
    if ratio < 1e-6:
        hard = (cost - problem["semi_dual_potential"]).min(axis=1)
        np.testing.assert_allclose(transform, hard, atol=1e3 * nx.eps + 10 * reg)
    if ratio > 1:
        mean = (cost - problem["semi_dual_potential"]) @ problem["a_target"]
        np.testing.assert_allclose(transform, mean, atol=1e-3 + reg * 100 * nx.eps)


@pytest.mark.parametrize("metric", [*METRICS, "chebyshev"])
def test_cost_scale(metric, problem):
    atoms, weights = problem["X_target"], problem["a_target"]
    expected = weights @ ot.dist(atoms, metric=metric or "sqeuclidean") @ weights
    assert ps.cost_scale(atoms, weights, metric) == pytest.approx(expected, rel=1e-9)
    if metric not in ("cosine", "correlation"):
        assert ps.cost_scale(atoms + 100.0, weights, metric) == pytest.approx(expected, rel=1e-9)


def test_cost_scale_of_many_atoms_is_an_average(rng):
    atoms = rng.normal(size=(9000, 2))
    exact = ps.cost_scale(atoms[::3], metric="euclidean")
    assert ps.cost_scale(atoms, metric="euclidean") == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize(
    ("differentiated", "outputs"),
    [([], []), (["X_source"], ["gradient"]), (["semi_dual_potential"], ["colsum"])],
)
def test_a_loss_is_one_reduction_to_what_is_differentiated(
    differentiated, outputs, problem, monkeypatch
):
    torch, asked = pytest.importorskip("torch"), []
    a = {key: torch.from_numpy(value) for key, value in problem.items()}

    def reduce(target, x, potential, reg, names, **options):
        asked.append(sorted(names))
        return kernels.reduce(target, x, potential, reg, names, **options)

    monkeypatch.setattr(plan, "reduce", reduce)
    for name in differentiated:
        a[name].requires_grad_()
    value = ps.semidiscrete_loss(**a, reg=0.3)
    if differentiated:
        value.backward()
    assert asked == [sorted(["c_transform", *outputs])]


def test_second_derivative_of_the_loss_is_refused_not_zero(problem):
    torch = pytest.importorskip("torch")
    a = {key: torch.from_numpy(value) for key, value in problem.items()}
    a["X_source"].requires_grad_()
    with pytest.raises(RuntimeError, match="c_transform"):
        torch.autograd.grad(ps.semidiscrete_loss(**a, reg=0.3), a["X_source"], create_graph=True)
    value = ps.semidiscrete_c_transform(**a, reg=0.3).mean()
    (gradient,) = torch.autograd.grad(value, a["X_source"], create_graph=True)
    assert gradient.requires_grad


@pytest.mark.parametrize("d", [2, 64])
@pytest.mark.parametrize("distance", [1e-2, 1e-4])
def test_euclidean_gradient_near_an_atom_has_length_one(d, distance, nx, rng):
    atoms, direction = rng.normal(size=(10, d)), rng.normal(size=d)
    step = distance * direction / np.linalg.norm(direction)
    gradient = ps.semidiscrete_gradient(
        nx.array(atoms), nx.array(atoms[:1] + step), nx.array(np.zeros(10)), metric="euclidean"
    )
    assert np.linalg.norm(nx.host(gradient)) == pytest.approx(1.0, abs=10 * nx.eps * d**0.5 / distance)


@pytest.mark.parametrize("metric", [None, "euclidean", "cosine"])
@pytest.mark.parametrize("name", [*FUNCTIONS, "semidiscrete_loss"])
def test_reg_below_the_rounding_of_the_costs_is_0(name, metric, problem, nx):
    expected = nx.host(call(name, nx, problem, metric=metric))
    unit = ps.cost_scale(problem["X_target"], metric=metric)
    for reg in (unit * nx.eps / 100.0, 1e-39):
        np.testing.assert_array_equal(nx.host(call(name, nx, problem, metric=metric, reg=reg)), expected)


@pytest.mark.parametrize(("far", "reg"), [(0.0, 20.0), (1e4, 1e4)])
def test_reg_above_the_rounding_of_the_costs_is_used(far, reg, nx):
    """Also beside a light atom far away, which makes the mean cost 1e5 times as large."""
    atoms, weights = (
        nx.array([[-1.0], [-0.5], [0.5], [1.0], [far]]),
        np.array([1.0, 1.0, 1.0, 1.0, 4e-3]),
    )
    psi, x = nx.array([-4.0, 0.0, 0.0, -4.0, -4.0]), nx.array([[0.0]])
    weights = nx.array(weights / weights.sum())
    found = nx.host(ps.semidiscrete_atom_weights(atoms, x, psi, weights, reg=reg * nx.eps))
    np.testing.assert_allclose(found, [[0.0, 0.5, 0.5, 0.0, 0.0]], atol=0.1)


@pytest.mark.parametrize("kind", BACKENDS)
def test_reg_that_a_dtype_does_not_divide_by_is_refused(kind):
    """Though small data could tell it from 0, and large ones from infinity."""
    nx = Backend(kind, "float32")
    for atoms, reg in ((2e-15 * np.eye(2), 1e-36), (np.zeros((1, 2)), 1e37)):
        x, psi = nx.array(np.zeros((1, 2))), nx.array(np.zeros(len(atoms)))
        with pytest.raises(ValueError, match="reg: expected 0, or 1e-36 to 3e"):
            ps.semidiscrete_c_transform(nx.array(atoms), x, psi, reg=reg)


def test_reg_that_costs_are_lost_in_is_refused(nx):
    atoms, x = nx.array(np.eye(3)), nx.array(np.zeros((1, 3)))
    transform = lambda reg: ps.semidiscrete_c_transform(atoms, x, nx.array(np.zeros(3)), reg=reg)
    assert nx.host(transform(0.01 / nx.eps)) == pytest.approx(1.0, rel=0.1)
    with pytest.raises(ValueError, match=r"reg: expected at most .*use float64"):
        transform(10.0 / nx.eps)
