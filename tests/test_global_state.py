"""Whatever state all code of a process or a thread shares, results are the same."""

import contextlib
import copy
import functools
import pickle
import warnings

import numpy as np
import pytest

import pot_semidiscrete as sd
from pot_semidiscrete import metrics, samplers
from tests.backends import BACKENDS, Backend

HAS_TORCH = "torch" in BACKENDS
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="needs torch")
if HAS_TORCH:
    import torch

    from pot_semidiscrete import generative

KINDS = [Backend(kind, "float32") for kind in ("numpy", "torch") if kind in BACKENDS]
RNG = np.random.default_rng(0)
ATOMS = np.vstack([RNG.normal(size=(22, 2)), np.zeros((2, 2)) + 0.5])  # the last are at one place
WEIGHTS = np.array([0.0, 1e-30, 1e-12, *np.full(21, (1.0 - 1e-12) / 21)])
POINTS, POTENTIAL = RNG.normal(size=(70, 2)), 0.3 * RNG.normal(size=24)
IMAGES = RNG.random((40, 8, 8))
LABELS = np.arange(40) % 4
REGS = 0.0, 1e-4, 0.2


# The states that all code shares.


@contextlib.contextmanager
def filtered():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@contextlib.contextmanager
def default(name, value, before):
    """A default of torch."""
    getattr(torch, name)(value)
    try:
        yield
    finally:
        getattr(torch, name)(before)


CONTEXTS = {"seterr": lambda: np.errstate(all="raise"), "warnings": filtered}
if HAS_TORCH:
    dtype = functools.partial(default, "set_default_dtype", before=torch.float32)
    CONTEXTS |= {
        "default device": lambda: default("set_default_device", "meta", None),
        "float64": lambda: dtype(torch.float64),
        "float16": lambda: dtype(torch.float16),
        "bfloat16": lambda: dtype(torch.bfloat16),
        "inference_mode": torch.inference_mode,
        "no_grad": torch.no_grad,
        "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        "deterministic": lambda: default("use_deterministic_algorithms", True, False),
    }


# A row for each public function and method: of a backend, what is made before, and what is called.

ROWS = {}


def row(*names, kinds=("numpy", "torch"), refuses=(), skips=()):
    """Say how the functions of these names are called.

    Parameters
    ----------
    refuses : sequence of str
        Contexts in which an error is due, that names them.
    skips : sequence of str
        Contexts that the function is to follow.
    """

    def register(prepare):
        ROWS["+".join(names)] = (prepare, names, kinds, refuses, skips)
        return prepare

    return register


def problem(nx):
    """Atoms, points, potential and weights."""
    return [nx.array(a) for a in (ATOMS, POINTS, POTENTIAL, WEIGHTS)]


for _name in ("c_transform", "atom_weights", "ot_map", "gradient", "loss"):

    @row(f"semidiscrete_{_name}")
    def _(nx, name=f"semidiscrete_{_name}"):
        arguments, call = problem(nx), getattr(sd, name)
        metrics = ("sqeuclidean", "euclidean", "cosine")
        return lambda: [call(*arguments, metric, reg) for metric in metrics for reg in REGS]


@row("cost_scale")
def _(nx):
    X, _, _, a = problem(nx)
    return lambda: [sd.cost_scale(X, a, metric) for metric in ("sqeuclidean", "euclidean")]


@row("gradient_diagnostics")
def _(nx):
    arguments = problem(nx)
    return lambda: [repr(sd.gradient_diagnostics(*arguments, reg=reg)) for reg in REGS]


def shift(theta, z):
    return theta * z + theta


def shift_vjp(theta, z, cotangent):
    return ((z + 1.0) * cotangent).sum(0)


def law(nx, d=2):
    """A sampler of its own state."""
    rng = np.random.default_rng(3)
    return lambda n: nx.array(rng.normal(size=(n, d)))


@row("one_sided_derivatives")
def _(nx):
    X, z, _, a = problem(nx)
    theta, v = nx.array(np.ones(2)), nx.array(np.array([1.0, 2.0]))
    return lambda: [repr(sd.one_sided_derivatives(shift, theta, v, z, X, a, reg=r)) for r in (0.0, 0.2)]


@row("generator_gradient", refuses=["inference_mode"])
def _(nx):
    X, z, psi, a = problem(nx)
    theta, vjp = nx.array(np.ones(2)), None if nx.differentiates else shift_vjp
    return lambda: [sd.generator_gradient(shift, theta, z, X, psi, a, reg=reg, vjp=vjp) for reg in REGS]


@row("train_parameters", refuses=["inference_mode"])
def _(nx):
    X, _, _, a = problem(nx)
    theta, vjp = nx.array(np.ones(2)), None if nx.differentiates else shift_vjp
    options = {"n_steps": 3, "batch_size": 40, "vjp": vjp, "a_target": a}

    def call():
        runs = [sd.train_parameters(shift, theta, law(nx), X, reg=r, **options) for r in REGS]
        return [[run.theta, run.potential, run.history["loss"], run.status] for run in runs]

    return call


ESTIMATES = (
    *("value", "value_stderr", "value_interval", "suboptimality", "suboptimality_bound"),
    *("chi2", "chi2_stderr", "marginal_error", "marginal_error_stderr"),
    *("value_linear", "marginal_b", "potential", "potential_b"),
)


def solve(nx, reg, source="normal", **options):
    X, _, _, a = problem(nx)
    options = {"tol": 0, "max_iter": 20, "batch_size": 64, "random_state": 0} | options
    return sd.solve_semidiscrete(X, source, a, reg=reg, **options)


def told(result):
    facts = [getattr(result, name) for name in ESTIMATES]
    return [*facts, result.log, result.status, result.n_samples, repr(result)]


@row("solve_semidiscrete")
def _(nx):
    states = []
    options = {"tol": 0.3, "max_iter": 60, "callback": lambda state: states.append(state.potential)}

    def call():
        found = [told(solve(nx, reg, source, **options)) for reg in REGS for source in ("ball", law(nx))]
        return [found, states[-1]]

    return call


@functools.cache
def solved(nx, reg):
    return solve(nx, reg)


@row(*(f"SemiDiscreteResult.{name}" for name in ESTIMATES), "SemiDiscreteResult.citation")
def _(nx):
    results = [copy.deepcopy(solved(nx, reg)) for reg in REGS]
    return lambda: [told(result) for result in results]


for _name in ("c_transform", "atom_weights", "ot_map", "pair", "diagnose"):

    @row(f"SemiDiscreteResult.{_name}")
    def _(nx, name=_name):
        x, more = nx.array(POINTS), {"random_state": 3} if name == "pair" else {}
        read = repr if name == "diagnose" else lambda value: value
        return lambda: [read(getattr(solved(nx, reg), name)(x, **more)) for reg in REGS]


@row("SemiDiscreteResult.to", "SemiDiscreteResult.save", "SemiDiscreteResult.load")
def _(nx):
    results, path = [copy.deepcopy(solved(nx, reg)) for reg in REGS], "/tmp/result.npz"
    X = nx.array(ATOMS)

    def call():
        found = []
        for result in results:
            result.save(path)
            found += [told(sd.SemiDiscreteResult.load(path, X)), told(result.to(np.float64))]
            found.append(told(pickle.loads(pickle.dumps(result))))
            if HAS_TORCH:
                found += [told(result.to(torch.float64)), told(result.to("cpu"))]
        return found

    return call


# Metrics.


@row("class_shares", "entropy", "covariance_ratio", "frechet_distance", "nearest_cost", "transport_cost")
def _(nx):
    x, y = 1e-30 * IMAGES[:20].astype("float32"), IMAGES[20:].astype("float32")

    def call():
        pairs = [(a, b) for a in (x, y) for b in (x, y)]
        names = ("covariance_ratio", "frechet_distance", "nearest_cost", "transport_cost")
        found = [getattr(metrics, name)(*pair) for name in names for pair in pairs]
        return [*found, metrics.class_shares(LABELS, 5), metrics.entropy(np.array([1e-310, 0.5, 0.0]))]

    return call


@row("semi_dual_value")
def _(nx):
    options = {"n_batches": 5, "batch_size": 40}
    return lambda: [metrics.semi_dual_value(law(nx), nx.array(ATOMS), reg, **options) for reg in REGS]


@row("Classifier", "Judge", kinds=("numpy",))
def _(nx):
    if not HAS_TORCH:
        pytest.skip("needs torch")

    def call():
        classifier = metrics.Classifier(IMAGES, LABELS, n_steps=2)
        judge = metrics.Judge(IMAGES[:20], IMAGES[20:], classifier)
        found = [classifier.features(IMAGES), classifier.labels(IMAGES), judge.floor, judge(IMAGES[:9])]
        return [*found, repr(classifier), repr(judge)]

    return call


@row("SobolSampler")
def _(nx):
    like = nx.array(ATOMS)

    def call():
        found = [
            samplers.SobolSampler(2, law, type_as=like, random_state=0) for law in ("unif", "normal")
        ]
        return [[sampler(9), sampler.independent(5), repr(sampler)] for sampler in found]

    return call


# What needs torch.

only_torch = functools.partial(row, kinds=("torch",))
FOLLOWS = ("default device", "float64", "float16", "bfloat16", "inference_mode")  # as torch.nn's modules


class Affine(torch.nn.Module if HAS_TORCH else object):
    """A generator that autocast leaves alone."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(2, dtype=torch.float32, device="cpu"))

    def forward(self, z):
        return self.scale * z


def potential_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def losses(nx, network=None, **options):
    """Losses, each to be used once."""
    X, _, _, a = problem(nx)
    X, a = X[2:], a[2:] / a[2:].sum()  # no step sees atoms of 1e-30
    made = [generative.SemiDiscreteLoss(X, a, reg=reg, **options) for reg in REGS]
    network = network or potential_network()
    made.append(generative.SemiDiscreteLoss(X, potential=network, reg=0.2, **options))
    return made


def kept(loss):
    """The state of a loss but for its optimiser, of which torch has a part in its default dtype."""
    state = loss.state_dict()
    return {name: state[name] for name in state if name != "network._extra_state"}


def vectors(nx, **options):
    return losses(nx, **options)[:-1]


@only_torch("SemiDiscreteLoss")
def _(nx):
    network = potential_network()
    return lambda: [[kept(one), one.reg, repr(one)] for one in losses(nx, network)]


@only_torch("SemiDiscreteLoss.forward", "SemiDiscreteLoss.follow", "SemiDiscreteLoss.dual_step")
def _(nx):
    made, x = losses(nx) + vectors(nx, debias=True), nx.array(POINTS)

    def call():
        for one in made:
            one.follow(x)
            one.dual_step(x)
        return [[one(x), kept(one)] for one in made]

    return call


@only_torch("SemiDiscreteLoss.warm_up")
def _(nx):
    made = losses(nx)

    def call():
        for one in made:
            one.warm_up(functools.partial(law(nx), 30), 5)
        return [kept(one) for one in made]

    return call


@only_torch("SemiDiscreteLoss.translate", "SemiDiscreteLoss.majorants", "SemiDiscreteLoss.rows")
def _(nx):
    made, x = vectors(nx), nx.array(POINTS)

    def call():
        found = []
        for one in made:
            bounds = one.majorants([x[:30], x[30:]], follow=True)
            one.translate(x[0])
            found += [[b.goal, b.constant, b(b.goal)] for b in bounds] + [one.state_dict(), one.rows(x)]
        return found

    return call


@only_torch("SemiDiscreteLoss.fit")
def _(nx):
    made, options = vectors(nx), {"tol": 0, "max_iter": 5, "batch_size": 64}
    return lambda: [[told(one.fit(law(nx), **options)), kept(one)] for one in made]


@only_torch(
    "SemiDiscreteLoss.local",
    "SemiDiscreteLoss.extra_repr",
    *(f"SemiDiscreteLoss.{name}" for name in ("reg", "features", "has_majorants", "can_translate")),
    "SemiDiscreteLoss.get_extra_state",
    "SemiDiscreteLoss.set_extra_state",
)
def _(nx):
    made, x = losses(nx), nx.array(POINTS)

    def call():
        for one in made:
            one.reg = 0.1
            one.load_state_dict(one.state_dict())
        facts = ("reg", "features", "has_majorants", "can_translate")
        return [[one.local(x), one.state_dict(), *(getattr(one, f) for f in facts)] for one in made]

    return call


@only_torch("ImageFeatures", "random_filters")
def _(nx):
    images = nx.array(IMAGES)

    def call():
        features = generative.ImageFeatures(images)
        body = generative.random_filters(4, channels=1)
        other = generative.ImageFeatures(images, body, 0.3)
        loss = generative.SemiDiscreteLoss(images, features=features)
        found = [one(images).numpy() for one in (features, other)]
        return [features.state_dict(), body.state_dict(), loss(images), *found, repr(features)]

    return call


@only_torch("train_generator", refuses=["inference_mode"])
def _(nx):
    X, path = nx.array(ATOMS), "/tmp/run.pt"
    options = {"batch_size": 20, "random_state": 0}

    def call():
        found = []
        for more in ({}, {"reg": 0.0}, {"reuse": 1}, {"optimizer": torch.optim.Adam}):
            run = generative.train_generator(Affine(), 2, X, n_steps=6, **options, **more)
            history = [run.history[name] for name in ("loss", "chi2", "chi2_step")]
            found.append([run.generator.state_dict(), run.loss.state_dict(), history, run.status])
        return found

    return call


@only_torch("mlp_generator", "dcgan_generator", skips=FOLLOWS)
def _(nx):
    def call():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made = [
                generative.mlp_generator(3, (2,), (4,)),
                generative.dcgan_generator(3, (8, 8), (4, 2)),
            ]
        return [[one.state_dict(), repr(one)] for one in made]

    return call


# The tests.


def flat(value):
    """Numbers and strings of whatever is made of arrays."""
    if isinstance(value, dict):
        return flat(list(value.items()))
    if isinstance(value, (list, tuple)):
        return [entry for part in value for entry in flat(part)]
    if HAS_TORCH and isinstance(value, torch.Tensor):
        assert not value.is_inference()
        return [str(value.dtype), str(value.device), value.detach().numpy()]
    return [value]


def assert_same(found, expected):
    found, expected = flat(found), flat(expected)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


@functools.cache
def reference(name, nx):
    return ROWS[name][0](nx)()


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("nx", KINDS, ids=lambda nx: nx.name)
@pytest.mark.parametrize("name", ROWS)
def test_results_are_the_same(name, nx, context):
    prepare, _, kinds, refuses, skips = ROWS[name]
    if nx.name not in kinds or context in skips:
        pytest.skip("another backend" if nx.name not in kinds else "as torch's own modules")
    expected, call = reference(name, nx), prepare(nx)
    if context in refuses and nx.name == "torch":
        with CONTEXTS[context](), pytest.raises(RuntimeError, match=context):
            call()
        return
    with CONTEXTS[context]():
        found = call()
    assert_same(found, expected)
