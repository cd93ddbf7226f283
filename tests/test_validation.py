"""Bad input gets an error that says what was expected and what was received; odd input works."""

import contextlib
import importlib

import numpy as np
import pytest

import pot_semidiscrete as sd
from tests.backends import BACKENDS, needs_torch

N_ATOMS, N_POINTS = 5, 4


@contextlib.contextmanager
def refused(error, *words):
    """The block raises `error`, whose message says what was expected and received, and `words`."""
    with pytest.raises(error) as caught:
        yield
    for word in ("expected", "received", *words):
        assert word in str(caught.value)


def draw(*shape):
    """Normal numbers, the same for the same shape."""
    return np.random.default_rng(sum(shape)).normal(size=shape)


def cast(a, dtype):
    """An array in another dtype."""
    if hasattr(a, "detach"):
        import torch

        return a.to(getattr(torch, dtype))
    return a.astype(dtype)


def with_entry(a, value):
    """A copy of a host array, its first entry replaced."""
    a = np.array(a, dtype=float)
    a.flat[0] = value
    return a


def shift(theta, z):
    """A generator that moves its points."""
    return z + theta


def shift_vjp(theta, z, cotangent):
    """Product of a cotangent with its derivative in theta."""
    return cotangent.sum(axis=0)


def torch_array(a):
    """A tensor in double precision, where torch is installed."""
    return pytest.importorskip("torch").as_tensor(np.asarray(a, dtype=float))


def build_loss(**kwargs):
    """A loss, where torch is installed."""
    pytest.importorskip("torch")
    from pot_semidiscrete.generative import SemiDiscreteLoss

    return SemiDiscreteLoss(**kwargs)


def train(**kwargs):
    """A training; what others call X_target is its target."""
    torch = pytest.importorskip("torch")
    from pot_semidiscrete.generative import train_generator

    kwargs["target"] = kwargs.pop("X_target", kwargs.get("target"))
    kwargs.setdefault("generator", torch.nn.Linear(2, 2).double())
    return train_generator(**kwargs)


def valid(name, array):
    """A function, and keyword arguments that it accepts, in small."""
    kwargs = {"X_target": array(draw(N_ATOMS, 2))}
    if name == "solve_semidiscrete":
        kwargs |= {"sampler_source": "normal", "reg": 0.1, "max_iter": 2, "tol": 0, "batch_size": 512}
        kwargs |= {"random_state": 0}
    elif name in ("generator_gradient", "train_parameters"):
        kwargs |= {"generator": shift, "theta": array(np.zeros(2)), "vjp": shift_vjp, "reg": 0.1}
        if name == "generator_gradient":
            kwargs |= {"z": array(draw(N_POINTS, 2)), "semi_dual_potential": array(np.zeros(N_ATOMS))}
        else:
            kwargs |= {"latent_sampler": lambda n: array(draw(n, 2)), "n_steps": 1, "batch_size": 4}
    elif name == "train":
        kwargs |= {"latent_sampler": lambda n: array(draw(n, 2)), "n_steps": 1, "batch_size": 4}
    elif name.startswith("semidiscrete_"):
        kwargs |= {
            "X_source": array(draw(N_POINTS, 2)),
            "semi_dual_potential": array(np.zeros(N_ATOMS)),
            "reg": 0.1,
        }
    return getattr(sd, name, globals().get(name)), kwargs


POINTWISE = (
    "semidiscrete_c_transform",
    "semidiscrete_atom_weights",
    "semidiscrete_ot_map",
    "semidiscrete_gradient",
    "semidiscrete_loss",
)
GENERATOR = ("generator_gradient", "train_parameters")
EVERYWHERE = (*POINTWISE, "cost_scale", "solve_semidiscrete", *GENERATOR)
TORCH_ONLY = ("build_loss", "train")

# Tables: name of the case, bad value as a function of `array` (host array -> backend), error.
POINTS = [
    ("1-D", lambda array: array(draw(N_ATOMS)), ValueError),
    ("no-columns", lambda array: array(np.zeros((N_ATOMS, 0))), ValueError),
    ("no-rows", lambda array: array(np.zeros((0, 2))), ValueError),
    ("NaN", lambda array: array(with_entry(draw(N_ATOMS, 2), np.nan)), ValueError),
    ("inf", lambda array: array(with_entry(draw(N_ATOMS, 2), np.inf)), ValueError),
    ("long", lambda array: array(with_entry(draw(N_ATOMS, 2), 1e76)), ValueError),
    ("integer", lambda array: cast(array(draw(N_ATOMS, 2)), "int32"), TypeError),
    ("float16", lambda array: cast(array(draw(N_ATOMS, 2)), "float16"), TypeError),
    ("string", lambda array: "atoms", TypeError),
    ("None", lambda array: None, TypeError),
]
ATOMS_ONLY = [("short", lambda array: array(1e-76 * draw(N_ATOMS, 2)), ValueError)]
VECTOR = [
    ("length", lambda array: array(np.full(N_ATOMS + 1, 1 / (N_ATOMS + 1))), ValueError),
    ("2-D", lambda array: array(np.full((N_ATOMS, 1), 1 / N_ATOMS)), ValueError),
    ("scalar", lambda array: 0.2, ValueError),
    ("NaN", lambda array: array(with_entry(np.full(N_ATOMS, 0.2), np.nan)), ValueError),
    ("inf", lambda array: array(with_entry(np.full(N_ATOMS, 0.2), np.inf)), ValueError),
    ("integer", lambda array: cast(array(np.eye(N_ATOMS)[0]), "int32"), TypeError),
    ("float32", lambda array: cast(array(np.full(N_ATOMS, 0.2)), "float32"), TypeError),
    ("string", lambda array: "uniform", (TypeError, ValueError)),
    ("strings", lambda array: ["a"] * N_ATOMS, (TypeError, ValueError)),
]
WEIGHTS = [
    *VECTOR,
    ("negative", lambda array: array([-0.2, 0.6, 0.2, 0.2, 0.2]), ValueError),
    ("sum-2", lambda array: array(np.full(N_ATOMS, 0.4)), ValueError),
    ("sum-0", lambda array: array(np.zeros(N_ATOMS)), ValueError),
    ("sum-1.000001", lambda array: array(np.full(N_ATOMS, 0.2000002)), ValueError),
]
METRIC = [
    ("unknown", lambda array: "sqeuclid", ValueError),
    ("number", lambda array: 2, TypeError),
    ("list", lambda array: ["sqeuclidean"], TypeError),
    ("gives-NaN", lambda array: lambda x, y: np.nan * (x @ y.T), ValueError),
    ("gives-inf", lambda array: lambda x, y: np.inf + x @ y.T, ValueError),
    ("gives-rows", lambda array: lambda x, y: x @ y[:-1].T, ValueError),
    ("gives-vector", lambda array: lambda x, y: (x @ y.T)[:, 0], ValueError),
    ("gives-transposed", lambda array: lambda x, y: (x[:1] @ y.T).T, ValueError),
    ("gives-float32", lambda array: lambda x, y: cast(x @ y.T, "float32"), ValueError),
    ("gives-None", lambda array: lambda x, y: None, (TypeError, ValueError)),
    ("gives-list", lambda array: lambda x, y: [[0.0]], (TypeError, ValueError)),
]
REAL = [
    ("negative", -1.0, ValueError),
    ("-inf", -np.inf, ValueError),
    ("NaN", np.nan, ValueError),
    ("inf", np.inf, ValueError),
    ("huge-int", 10**400, (TypeError, ValueError)),
    ("string", "0.1", TypeError),
    ("bool", True, TypeError),
    ("numpy-bool", np.True_, TypeError),
    ("complex", 0.1j, TypeError),
    ("vector", np.array([0.1, 0.2]), TypeError),
    ("None", None, TypeError),
]
COUNT = [
    ("0", 0, ValueError),
    ("-1", -1, ValueError),
    ("float", 2.5, TypeError),
    ("whole-float", 2.0, TypeError),
    ("bool", True, TypeError),
    ("string", "2", TypeError),
    ("None", None, TypeError),
]
NOT_CALLABLE = [("number", 3, TypeError), ("string", "f", TypeError)]
RANDOM = [
    ("negative", -1, ValueError),
    ("float", 0.5, TypeError),
    ("bool", True, TypeError),
    ("string", "seed", TypeError),
    ("list", [1, 2], TypeError),
]


def table(names, argument, cases, drop=()):
    """Parameters (function, argument, bad value, error), one for each name and case."""
    return [
        pytest.param(name, argument, bad, error, id=f"{name}-{argument}-{case}")
        for name in names
        for case, bad, error in cases
        if case not in drop
    ]


@pytest.mark.parametrize("scale", [1e18, 1e19, 1e-20])
def test_squares_that_float32_has_not_are_refused(scale, nx):
    atoms, options = nx.array(scale * draw(N_ATOMS, 2)), {"tol": 0, "max_iter": 2}
    sampler = lambda n: nx.array(scale * draw(n, 2))
    if nx.dtype == "float64":
        assert np.isfinite(float(sd.solve_semidiscrete(atoms, sampler, **options).value))
        return
    with refused(ValueError, "X_target", "divide all data"):
        sd.solve_semidiscrete(atoms, sampler, **options)
    if scale > 1:
        with refused(ValueError, "sampler_source", "divide all data"):
            sd.solve_semidiscrete(nx.array(draw(N_ATOMS, 2)), sampler, **options)


@pytest.mark.parametrize("reg", [0.0, 0.05])
@pytest.mark.parametrize("power", [-1, 1])
def test_squares_that_the_dtype_has_are_exact(power, reg, nx):
    """To the ends of what is let in: the same times a power of 2."""
    s, found = 2.0 ** (power * (46 if nx.dtype == "float32" else 246)), []
    for unit in (1.0, s):
        random = np.random.default_rng(1)
        sampler = lambda n, unit=unit, random=random: unit * nx.array(random.normal(size=(n, 2)))
        options = {"reg": reg * unit**2, "tol": 0, "max_iter": 20}
        result = sd.solve_semidiscrete(unit * nx.array(draw(N_ATOMS, 2)), sampler, **options)
        numbers = (result.potential, result.value, result.value_stderr, result.suboptimality)
        numbers += (result.value_linear, *result.value_interval)
        found.append([nx.host(v) / unit**2 for v in numbers])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("name", "argument", "bad", "error"),
    [
        *table(TORCH_ONLY, "X_target", POINTS + ATOMS_ONLY),
        *table(("build_loss",), "a_target", WEIGHTS),
        *table(("build_loss",), "metric", METRIC),
    ],
)
def test_bad_array_or_metric_is_refused_by_torch_layers(name, argument, bad, error):
    function, kwargs = valid(name, torch_array)
    with refused(error, argument):
        function(**kwargs | {argument: bad(torch_array)})


@pytest.mark.parametrize(
    ("name", "argument", "bad", "error"),
    [
        *table(TORCH_ONLY, "reg", REAL, drop=("None",)),
        *table(("build_loss",), "dual_steps", COUNT),
        *table(("train",), "dual_steps", COUNT, drop=("None",)),
        *table(("train",), "n_steps", COUNT),
        *table(("train",), "batch_size", COUNT, drop=("None",)),
        *table(("train",), "callback", NOT_CALLABLE),
        *table(("train",), "generator", NOT_CALLABLE),
        *table(("train",), "latent_sampler", COUNT),
        *table(("train",), "optimizer", [*NOT_CALLABLE, ("gives-number", lambda p: 3, TypeError)]),
    ],
)
def test_bad_option_is_refused_by_torch_layers(name, argument, bad, error):
    function, kwargs = valid(name, torch_array)
    with refused(error, argument):
        function(**kwargs | {argument: bad})


@pytest.mark.parametrize("bad", [draw(N_ATOMS, 2), "mnist", None], ids=["numpy", "str", "None"])
def test_torch_layers_want_a_tensor(bad):
    torch_array(0.0)
    with refused(TypeError, "X_target", "torch tensor"):
        build_loss(X_target=bad)
    with refused(TypeError, "X_target", "torch tensor"):
        train(target=bad, latent_sampler=2, n_steps=1)


@pytest.mark.parametrize(("case", "bad", "error"), RANDOM, ids=[case for case, *_ in RANDOM])
def test_bad_random_state_is_refused_by_trainer(case, bad, error):
    with refused(error, "random_state"):
        train(X_target=torch_array(draw(N_ATOMS, 2)), latent_sampler=2, n_steps=1, random_state=bad)


@pytest.mark.parametrize("given", [{"reg": 0.1}, {"dual_steps": 3}], ids=str)
def test_options_of_the_loss_go_to_the_loss(given):
    loss = build_loss(X_target=torch_array(draw(N_ATOMS, 2)))
    with pytest.raises(ValueError, match=next(iter(given))):
        train(target=loss, latent_sampler=2, n_steps=1, **given)


def test_numbers_that_are_not_finite_have_a_remedy(nx64):
    function, kwargs = valid("solve_semidiscrete", nx64.array)
    for name in ("a_target", "init_potential"):
        with refused(ValueError, name, "see what made them"):
            function(**kwargs | {name: nx64.array(np.full(N_ATOMS, np.nan))})


@needs_torch
def test_torch_generator_does_not_drive_other_backends(nx64):
    import torch

    if nx64.name == "torch":
        pytest.skip("it does drive torch")
    function, kwargs = valid("solve_semidiscrete", nx64.array)
    with refused(TypeError, "random_state", "received torch Generator; give an int"):
        function(**kwargs | {"random_state": torch.Generator()})


# What samplers and generators return; dtypes and rows matter to some callers only.
BATCHES = [
    ("columns", lambda array, n: array(draw(n, 3)), ValueError),
    ("1-D", lambda array, n: array(draw(n)), ValueError),
    ("no-rows", lambda array, n: array(np.zeros((0, 2))), ValueError),
    ("0-D", lambda array, n: array(1.0), ValueError),
    ("None", lambda array, n: None, TypeError),
    ("list", lambda array, n: draw(n, 2).tolist(), TypeError),
    ("string", lambda array, n: "points", TypeError),
]
NOT_FINITE = [
    ("NaN", lambda array, n: array(with_entry(draw(n, 2), np.nan)), ValueError),
    ("inf", lambda array, n: array(with_entry(draw(n, 2), np.inf)), ValueError),
    ("long", lambda array, n: array(with_entry(draw(n, 2), -1e76)), ValueError),
]
DTYPES = [
    ("float32", lambda array, n: cast(array(draw(n, 2)), "float32"), TypeError),
    ("integer", lambda array, n: cast(array(draw(n, 2)), "int32"), TypeError),
]
ROWS = [("too-many-rows", lambda array, n: array(draw(n + 1, 2)), ValueError)]


def batches(cases):
    """A test for each bad batch."""
    return pytest.mark.parametrize(
        ("bad", "error"), [pytest.param(bad, error, id=case) for case, bad, error in cases]
    )


@batches(BATCHES + NOT_FINITE + DTYPES + ROWS)
def test_bad_batch_of_the_sampler_is_refused(bad, error, nx64):
    function, kwargs = valid("solve_semidiscrete", nx64.array)
    with refused(error, "sampler_source"):
        function(**kwargs | {"sampler_source": lambda n: bad(nx64.array, n)})


@pytest.mark.parametrize("name", GENERATOR)
@batches(BATCHES + NOT_FINITE + DTYPES)
def test_bad_points_of_the_generator_are_refused(name, bad, error, nx64):
    function, kwargs = valid(name, nx64.array)
    with refused(error, "generator(theta, z)"):
        function(**kwargs | {"generator": lambda theta, z: bad(nx64.array, len(z))})


@pytest.mark.parametrize("method", ["forward", "dual_step", "fit"])
@batches(BATCHES + NOT_FINITE)
def test_bad_points_are_refused_by_the_loss(method, bad, error):
    loss = build_loss(X_target=torch_array(draw(N_ATOMS, 2)))
    with refused(error):
        if method == "fit":
            loss.fit(lambda n: bad(torch_array, n), max_iter=2, tol=0, batch_size=4)
        else:
            getattr(loss, method)(bad(torch_array, 4))


@batches(BATCHES + NOT_FINITE)
def test_bad_points_of_a_torch_generator_are_refused(bad, error):
    """From the start: those that cease to be finite are a divergence, see test_generative.py."""
    function, kwargs = valid("train", torch_array)
    optimizer = pytest.importorskip("torch").optim.SGD([torch_array(np.zeros(1))], lr=1.0)
    with refused(error):
        function(**kwargs | {"generator": lambda z: bad(torch_array, len(z)), "optimizer": optimizer})


def test_generator_cut_from_its_parameters_is_refused():
    torch = pytest.importorskip("torch")

    class Cut(torch.nn.Linear):
        def forward(self, z):
            return super().forward(z).detach()

    function, kwargs = valid("train", torch_array)
    with refused(TypeError, "generator"):
        function(**kwargs | {"generator": Cut(2, 2).double()})
    function, kwargs = valid("generator_gradient", torch_array)
    del kwargs["vjp"]
    with refused(TypeError, "generator"):
        function(**kwargs | {"generator": lambda theta, z: z + theta.detach()})


def test_module_free_generator_needs_an_optimizer():
    function, kwargs = valid("train", torch_array)
    with pytest.raises(TypeError, match=r"optimizer: expected a torch optimizer"):
        function(**kwargs | {"generator": lambda z: z})


@pytest.mark.parametrize(
    ("argument", "bad", "error"),
    [
        ("tol", -1.0, ValueError),
        ("tol", None, TypeError),
        ("max_iter", 0, ValueError),
        ("batch_size", 2.5, TypeError),
        ("callback", 3, TypeError),
        ("sampler", "gauss", ValueError),
        ("init_potential", np.zeros(N_ATOMS + 1), ValueError),
        ("init_potential", with_entry(np.zeros(N_ATOMS), np.nan), ValueError),
    ],
)
def test_bad_argument_of_fit_is_refused(argument, bad, error):
    loss = build_loss(X_target=torch_array(draw(N_ATOMS, 2)))
    bad = torch_array(bad) if isinstance(bad, np.ndarray) else bad
    kwargs = {"sampler": lambda n: torch_array(draw(n, 2)), "max_iter": 2, "tol": 0}
    with refused(error, argument):
        loss.fit(**kwargs | {argument: bad})


def test_fit_wants_a_potential_of_its_backend():
    loss = build_loss(X_target=torch_array(draw(N_ATOMS, 2)))
    with refused(TypeError, "init_potential"):
        loss.fit(lambda n: torch_array(draw(n, 2)), init_potential=np.zeros(N_ATOMS), max_iter=1)


def test_unknown_names_are_answered_with_the_known_ones():
    function, kwargs = valid("solve_semidiscrete", np.array)
    with pytest.raises(ValueError, match=r"unif.*ball.*normal.*gaussian"):
        function(**kwargs | {"sampler_source": "gaussian"})
    with pytest.raises(ValueError, match=r"sqeuclidean.*chebyshev.*manhattan"):
        function(**kwargs | {"metric": "manhattan"})


def foreign(nx64):
    """A function that makes arrays of another backend."""
    if nx64.name != "numpy":
        return np.array
    if "torch" in BACKENDS:
        return torch_array
    if "jax" in BACKENDS:
        return importlib.import_module("jax.numpy").asarray
    pytest.skip("one backend is installed only")


@pytest.mark.parametrize(
    ("name", "argument", "shape"),
    [
        *((name, "X_source", (N_POINTS, 2)) for name in POINTWISE),
        *((name, "semi_dual_potential", (N_ATOMS,)) for name in (*POINTWISE, "generator_gradient")),
        *((name, "init_potential", (N_ATOMS,)) for name in ("solve_semidiscrete", "train_parameters")),
        *((name, "a_target", (N_ATOMS,)) for name in EVERYWHERE),
        ("solve_semidiscrete", "sampler_source", (N_POINTS, 2)),
    ],
)
def test_mixed_backends_are_refused(name, argument, shape, nx64):
    function, kwargs = valid(name, nx64.array)
    with refused(TypeError, argument):
        function(**kwargs | {argument: foreign(nx64)(np.full(shape, 1 / shape[0]))})


def test_sampler_of_another_backend_is_refused(nx64):
    function, kwargs = valid("solve_semidiscrete", nx64.array)
    with refused(TypeError, "sampler_source"):
        function(**kwargs | {"sampler_source": lambda n: foreign(nx64)(draw(n, 2))})


@pytest.mark.parametrize("name", ["jaccard", "chebyshev", "canberra"])
def test_scipy_metrics_are_for_numpy(name, nx64):
    atoms = nx64.array(np.abs(draw(N_ATOMS, 2)))
    if nx64.name == "numpy":
        assert np.isfinite(sd.cost_scale(atoms, metric=name))
        return
    with refused(ValueError, "metric", nx64.name, "sqeuclidean"):
        sd.cost_scale(atoms, metric=name)


def expanded_square(x, y):
    return (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None, :] - 2.0 * x @ y.T


@pytest.mark.parametrize("metric", ["chebyshev", expanded_square], ids=["scipy", "callable"])
@pytest.mark.parametrize("name", ["semidiscrete_gradient", *GENERATOR])
def test_numpy_says_which_metrics_have_a_gradient(name, metric):
    function, kwargs = valid(name, np.array)
    with pytest.raises(TypeError, match=r"metric.*gradient.*sqeuclidean"):
        function(**kwargs | {"metric": metric})


def test_metric_cut_from_the_graph_has_no_gradient():
    function, kwargs = valid("semidiscrete_gradient", torch_array)
    with refused(TypeError, "metric"):
        function(**kwargs | {"metric": lambda x, y: expanded_square(x, y).detach()})


@pytest.mark.parametrize("name", GENERATOR)
def test_numpy_needs_a_vjp(name):
    function, kwargs = valid(name, np.array)
    with pytest.raises(TypeError, match=r"vjp: expected a callable \(theta, z, cotangent\)"):
        function(**kwargs | {"vjp": None})


def test_gradient_that_is_not_finite_stops_the_training(nx64):
    function, kwargs = valid("train_parameters", nx64.array)
    with refused(ValueError, "gradient"):
        function(**kwargs | {"vjp": lambda theta, z, cotangent: np.nan * cotangent.sum(axis=0)})


@pytest.mark.parametrize(
    "theta",
    [lambda: np.zeros(2), lambda: "theta", lambda: cast(torch_array([0, 0]), "int64")],
    ids=["numpy", "string", "whole"],
)
def test_torch_differentiates_in_floating_tensors(theta):
    function, kwargs = valid("generator_gradient", torch_array)
    del kwargs["vjp"]
    with refused(TypeError, "theta"):
        function(**kwargs | {"theta": theta(), "generator": lambda theta, z: z})


# Odd input that is right.


@pytest.mark.parametrize("name", EVERYWHERE)
def test_atoms_may_be_a_list(name):
    function, kwargs = valid(name, np.array)
    as_list = kwargs | {"X_target": kwargs["X_target"].tolist()}

    def outcome(arguments):
        out = function(**arguments)
        out = getattr(out, "potential", out)
        return out[1] if isinstance(out, tuple) else out

    np.testing.assert_array_equal(outcome(as_list), outcome(kwargs))


@pytest.mark.parametrize("name", POINTWISE)
def test_weights_and_potential_may_be_lists(name, nx64):
    function, kwargs = valid(name, nx64.array)
    weights = [0.1, 0.2, 0.3, 0.4, 0.0]
    lists = {"a_target": weights, "semi_dual_potential": [0.1] * N_ATOMS}
    arrays = {key: nx64.array(value) for key, value in lists.items()}
    np.testing.assert_array_equal(
        nx64.host(function(**kwargs | lists)), nx64.host(function(**kwargs | arrays))
    )


@pytest.mark.parametrize("name", [*EVERYWHERE, *TORCH_ONLY])
@pytest.mark.parametrize("reg", [0, 0.1])
def test_one_atom_is_a_target(name, reg):
    function, kwargs = valid(name, torch_array if name in TORCH_ONLY else np.array)
    kwargs |= {"X_target": kwargs["X_target"][:1]}
    kwargs |= {} if name == "cost_scale" else {"reg": reg}
    if "semi_dual_potential" in kwargs:
        kwargs["semi_dual_potential"] = kwargs["semi_dual_potential"][:1]
    function(**kwargs)


@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("reg", [0, 0.1])
def test_one_point_is_a_source(name, reg, nx):
    function, kwargs = valid(name, nx.array)
    out = function(**kwargs | {"X_source": kwargs["X_source"][:1], "reg": reg})
    assert np.isfinite(nx.host(out)).all()


@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_batches_of_one_point(reg):
    function, kwargs = valid("solve_semidiscrete", np.array)
    result = function(**kwargs | {"batch_size": 1, "max_iter": 5, "reg": reg})
    assert result.n_iter == 5
    assert np.isfinite(result.value)


def test_sampler_may_run_short(nx):
    """Fewer rows than asked for are taken as they come."""
    function, kwargs = valid("solve_semidiscrete", nx.array)
    rows = []

    def short(n):
        rows.append(max(1, n // 2))
        return nx.array(draw(rows[-1], 2))

    result = function(**kwargs | {"sampler_source": short})
    assert result.n_samples == sum(rows)


def test_weights_that_sum_to_one_within_rounding(nx):
    n = 20_000 if nx.dtype == "float32" else 1000
    weights = np.random.default_rng(0).random(n).astype(nx.dtype)
    weights = weights / weights.sum(dtype=nx.dtype)
    weights *= 1 + (1e-5 if nx.dtype == "float32" else 1e-11)
    assert np.isfinite(sd.cost_scale(nx.array(draw(n, 2)), nx.array(weights)))


@pytest.mark.parametrize(
    "number", [np.float32(0.25), np.float64(0.25), np.array(0.25)], ids=["float32", "float64", "0-D"]
)
def test_numbers_of_numpy_are_numbers(number):
    function, kwargs = valid("semidiscrete_loss", np.array)
    assert function(**kwargs | {"reg": number}) == function(**kwargs | {"reg": 0.25})
    function, kwargs = valid("solve_semidiscrete", np.array)
    assert function(**kwargs | {"max_iter": np.int64(3)}).n_iter == 3


def test_options_are_taken_by_name_only():
    """After the problem, options are keyword-only: their order is not a promise."""
    atoms = draw(N_ATOMS, 2)
    with pytest.raises(TypeError, match="at most 5 arguments without a name"):
        sd.solve_semidiscrete(atoms, "unif", None, None, 0.1, 0.05)
    with pytest.raises(TypeError, match="positional"):
        sd.train_parameters(shift, np.zeros(2), lambda n: draw(n, 2), atoms, None)


def test_arguments_are_left_alone(nx64):
    """No function writes into what it is given."""
    for name in EVERYWHERE:
        function, kwargs = valid(name, nx64.array)
        weights = nx64.array([0.1, 0.2, 0.3, 0.4, 0.0])
        before = {k: nx64.host(v).copy() for k, v in kwargs.items() if hasattr(v, "shape")}
        function(**kwargs | {"a_target": weights})
        for key, value in before.items():
            np.testing.assert_array_equal(nx64.host(kwargs[key]), value, err_msg=f"{name}: {key}")
        np.testing.assert_array_equal(
            nx64.host(weights), nx64.host(nx64.array([0.1, 0.2, 0.3, 0.4, 0.0]))
        )


# What users of other packages bring.


def test_result_in_place_of_a_potential_is_told_what_to_give(nx64):
    function, kwargs = valid("semidiscrete_loss", nx64.array)
    solve, problem = valid("solve_semidiscrete", nx64.array)
    result = solve(**problem)
    with refused(TypeError, "semi_dual_potential", "SemiDiscreteResult", "give its potential"):
        function(**kwargs | {"semi_dual_potential": result})
    with refused(TypeError, "init_potential", "give its potential"):
        solve(**problem | {"init_potential": result})


@pytest.mark.parametrize("method", ["c_transform", "atom_weights", "ot_map", "pair", "diagnose"])
def test_points_may_be_a_list_and_one_point_needs_a_row(method, nx):
    result = sd.solve_semidiscrete(nx.array(draw(5, 2)), reg=0.1, tol=0, max_iter=2, random_state=0)
    options = {"random_state": 0} if method == "pair" else {}
    points = nx.array(draw(3, 2))
    told = [getattr(result, method)(x, **options) for x in (points, nx.host(points).tolist())]
    if method == "diagnose":
        assert told[0].verdict == told[1].verdict
    else:
        np.testing.assert_array_equal(nx.host(told[0]), nx.host(told[1]))
    with refused(ValueError, "x: ", "one row per point"):
        getattr(result, method)(points[0], **options)


def test_weights_of_single_precision_for_atoms_of_double(nx64):
    """A softmax in float32 sums to 1 within 1e-7, and is no mistake in float64; what never was is."""
    logits = draw(1000).astype(np.float32)
    weights = np.exp(logits) / np.exp(logits).sum(dtype=np.float32)
    weights *= np.float32(1.0 + 3e-7)
    atoms = nx64.array(draw(1000, 2))
    assert sd.cost_scale(atoms, nx64.array(weights.astype(float))) > 0
    with refused(ValueError, "a_target", "sum 1"):
        sd.cost_scale(atoms, nx64.array(weights.astype(float) + 1e-10 * np.arange(1000)))


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ({"lr0": 0.1}, "units of the problem"),
        ({"log": True}, "attribute log"),
        ({"decreasing_reg": True}, "falls"),
        ({"numItermax": 3}, "max_iter"),
        ({"stopThr": 0.1}, "tol"),
        ({"warmstart": None}, "init_potential"),
        ({"M": np.zeros((2, 2))}, "metric"),
        ({"seed": 0}, "random_state"),
        ({"epsilon": 0.1}, "reg"),
        ({"device": "cuda"}, "those of X_target"),
        ({"tolerance": 0.1}, "the options are reg_m"),
    ],
    ids=lambda case: str(case)[:20],
)
def test_options_of_pot_are_told_what_takes_their_place(option, instead):
    with refused(TypeError, next(iter(option)), instead):
        sd.solve_semidiscrete(draw(N_ATOMS, 2), **option)
    with refused(TypeError, "by name", "max_iter"):
        sd.solve_semidiscrete(draw(N_ATOMS, 2), "unif", None, None, 0.1, 10_000)


# Images and arrays for a loss.


@pytest.mark.parametrize("method", ["forward", "dual_step", "follow", "local", "rows"])
def test_points_of_another_shape_are_refused_by_the_loss(method):
    torch = pytest.importorskip("torch")
    loss = build_loss(X_target=torch.rand(6, 1, 8, 8))
    for bad in (torch.rand(6, 8, 8, 1), torch.rand(6, 64), torch.rand(6, 2, 8, 4)):
        with refused(ValueError, "x: ", "(n, 1, 8, 8)", "permute"):
            getattr(loss, method)(bad)
    with refused(TypeError, "x: ", "numpy", "torch.as_tensor"):
        getattr(loss, method)(np.zeros((6, 1, 8, 8), dtype=np.float32))


@pytest.mark.parametrize("argument", ["X_target", "a_target"])
def test_loss_of_data_that_ask_for_gradients_is_refused(argument):
    torch = pytest.importorskip("torch")
    kwargs = {"X_target": torch.rand(4, 2), "a_target": torch.full((4,), 0.25)}
    kwargs[argument].requires_grad_()
    with refused(ValueError, argument, "requires_grad", "semidiscrete_loss"):
        build_loss(**kwargs)


def test_users_functions_return_no_masked_arrays():
    masked = lambda n, m: np.ma.masked_array(draw(n, m), mask=True)
    with refused(TypeError, "sampler_source", "mask"):
        sd.solve_semidiscrete(draw(N_ATOMS, 2), lambda n: masked(n, 2))
    with refused(TypeError, "metric", "mask"):
        sd.solve_semidiscrete(draw(N_ATOMS, 2), metric=lambda x, y: masked(len(x), len(y)))


BAD_POINTS = {  # what a generator returns, and words of the error
    "a tuple": (lambda x: (x, 0), TypeError, "tuple", "return a tensor"),
    "NumPy": (lambda x: x.detach().numpy(), TypeError, "numpy", "return a tensor"),
    "smaller": (lambda x: x[..., :2], ValueError, "(n, 3, 4, 4)", "(32, 3, 4, 2)"),
    "NaN": (lambda x: x * np.nan, ValueError, "finite", "what made them"),
}


@pytest.mark.parametrize("kind", BAD_POINTS)
def test_what_a_generator_returns_is_told_from_data(kind):
    torch = pytest.importorskip("torch")
    change, error, *words = BAD_POINTS[kind]

    class Bad(torch.nn.Linear):
        def forward(self, z):
            return change(super().forward(z).reshape(-1, 3, 4, 4))

    options = dict.fromkeys(("features", "pair_cost", "critic"), False) | {
        "n_steps": 1,
        "batch_size": 32,
    }
    with refused(error, "x: " if kind == "NaN" else "generator(z): ", *words):
        train(generator=Bad(2, 48), target=torch.rand(9, 3, 4, 4), latent_sampler=2, **options)


def test_an_optimizer_of_other_parameters_is_refused():
    torch = pytest.importorskip("torch")
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    kwargs = {"generator": one, "target": torch.rand(9, 2), "latent_sampler": 2, "n_steps": 1}
    with refused(ValueError, "optimizer: ", "generator", "SGD", "generator.parameters()"):
        train(optimizer=torch.optim.SGD(other.parameters()), **kwargs)
    both = [*other.parameters(), one.bias]
    assert train(optimizer=torch.optim.SGD(both, 1e-3), **kwargs).status == "finished"


def test_an_error_of_a_generator_says_what_it_was_given():
    torch = pytest.importorskip("torch")
    kwargs = {"generator": torch.nn.Linear(2, 2), "latent_sampler": 2, "n_steps": 1}
    with pytest.raises(RuntimeError, match="dtype") as caught:
        train(target=torch.rand(9, 2, dtype=torch.float64), **kwargs)
    (note,) = caught.value.__notes__
    assert "dtype torch.float64" in note
    assert "of the data" in note


class Frame:
    """What a table of pandas has."""

    shape = (6, 2)

    def __getitem__(self, column):
        return None

    def __len__(self):
        return 6

    def to_numpy(self):
        return draw(6, 2)


def test_a_table_is_told_how_it_becomes_an_array():
    for arguments in ((Frame(),), (draw(N_ATOMS, 2), Frame())):
        with refused(TypeError, "Frame of shape (6, 2)", "to_numpy()"):
            sd.solve_semidiscrete(*arguments)


def test_cells_are_of_atoms_in_the_plane():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    from pot_semidiscrete.plot import plot_cells

    result = sd.solve_semidiscrete(draw(N_ATOMS, 3), reg=0.1, max_iter=1, tol=0, random_state=0)
    with refused(ValueError, "result: ", "plane", "3 coordinates"):
        plot_cells(result, pyplot.figure().subplots())
