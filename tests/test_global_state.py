"""Whatever states a process or a thread shares, results are the same."""

import contextlib
import copy
import functools
import inspect
import pickle
import re
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from ot.backend import get_backend
from scipy import stats

import pot_semidiscrete as sd
from pot_semidiscrete import applications, kernels, metrics, samplers
from tests.backends import BACKENDS, Backend, global_states, needs_torch

HAS_TORCH = "torch" in BACKENDS
if HAS_TORCH:
    import torch

    from pot_semidiscrete import generative

KINDS = [Backend(kind, "float32") for kind in ("numpy", "torch") if kind in BACKENDS]
RNG = np.random.default_rng(0)
ATOMS = np.vstack([RNG.normal(size=(22, 2)), np.zeros((2, 2)) + 0.5])  # the last are at one place
WEIGHTS = np.array([0.0, 1e-30, 1e-12, *np.full(21, (1.0 - 1e-12) / 21)])
POINTS, POTENTIAL = RNG.normal(size=(70, 2)), 0.3 * RNG.normal(size=24)
IMAGES, LABELS = RNG.random((40, 8, 8)), np.arange(40) % 4
REGS = 0.0, 1e-4, 0.2
FOLDER = tempfile.TemporaryDirectory()


# The states.


@contextlib.contextmanager
def filtered():
    """Warnings are errors."""
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
    default_dtype = functools.partial(default, "set_default_dtype", before=torch.float32)
    CONTEXTS |= {
        # where whatever is made by mistake breaks
        "default device": lambda: default("set_default_device", "meta", None),
        "float64": lambda: default_dtype(torch.float64),
        "float16": lambda: default_dtype(torch.float16),
        "inference_mode": torch.inference_mode,
        "no_grad": torch.no_grad,
        "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        "deterministic": lambda: default("use_deterministic_algorithms", True, False),
    }
NO_GRADIENT = "inference_mode", "no_grad"
DEFAULTS = "default device", "float64", "float16"
MODES = "float16", "inference_mode", "no_grad", "autocast", "deterministic"  # of torch's tensors only
# states that are there at once: none of them hides what another one does
TOGETHER = (
    ("seterr", "warnings", "default device", "float64", "inference_mode"),
    ("float16", "no_grad", "autocast", "deterministic"),
)


# A row for each public function, and method of a result or a loss. It prepares, for a backend, a call.

ROWS, REFUSALS, SKIPPED, NAMES = {}, {}, {}, set()


def row(*names, kinds=("numpy", "torch"), refused=(), skipped=()):
    """Say how functions are called.

    Parameters
    ----------
    *names : str
    refused : sequence of str
        Contexts in which an error of that name is due, with torch.
    skipped : sequence of str
        Contexts that they are to follow, as torch's own modules do.
    """

    def register(prepare):
        NAMES.update(names)
        key = "-".join(names[:1] + ("and more",) * (len(names) > 1))
        for kind in set(kinds) & set(BACKENDS):
            ROWS[f"{key}-{kind}"] = functools.partial(prepare, Backend(kind, "float32"))
            REFUSALS[f"{key}-{kind}"] = refused if kind == "torch" else ()
            SKIPPED[f"{key}-{kind}"] = skipped
        return prepare

    return register


def problem(nx):
    """Atoms, points, potential and weights."""
    return [nx.array(a) for a in (ATOMS, POINTS, POTENTIAL, WEIGHTS)]


FUNCTIONS = [
    f"semidiscrete_{name}" for name in ("c_transform", "atom_weights", "ot_map", "gradient", "loss")
]


@row(*FUNCTIONS)
def _(nx):
    arguments, names = problem(nx), ("sqeuclidean", "euclidean", "cosine", square)
    return lambda: [
        getattr(sd, function)(*arguments, metric, reg)
        for function in FUNCTIONS
        for metric in (names if nx.differentiates or function != "semidiscrete_gradient" else names[:-1])
        for reg in REGS
    ]


def square(x, y):
    return ((x[:, None] - y[None]) ** 2).sum(-1)


@row("gradients of functions", kinds=["torch"], skipped=NO_GRADIENT)
def _(nx):
    arrays = [a.requires_grad_() for a in problem(nx)[:3]]

    def call():
        found = []
        for function in FUNCTIONS:
            for reg in REGS:
                value = getattr(sd, function)(*arrays, reg=reg)
                with torch.autocast("cpu", enabled=False):  # torch advises against it in backward passes
                    found.append(torch.autograd.grad(value.sum(), arrays, allow_unused=True))
        return found

    return call


@row("cost_scale")
def _(nx):
    X, _, _, a = problem(nx)
    return lambda: [sd.cost_scale(X, a, metric) for metric in ("sqeuclidean", "euclidean")]


@row("quantize")
def _(nx):
    source, X = nx.array(POINTS), nx.array(ATOMS[:9])
    options = {"X_init": X, "n_steps": 2, "n_points": 300, "random_state": 0}

    def call():
        kinds = [(weights, reg) for weights in (None, "free") for reg in REGS]
        found = [applications.quantize(source, 9, weights=w, reg=reg, **options) for w, reg in kinds]
        return [[q.atoms, q.weights, *q.history.values(), *told(q.transport)] for q in found]

    return call


@row("barycenter")
def _(nx):
    options = {"X_init": nx.array(ATOMS[:9]), "n_steps": 2, "n_points": 300, "random_state": 0}
    sources = ["normal", nx.array(POINTS)]

    def call():
        found = [applications.barycenter(sources, 9, reg=reg, **options) for reg in REGS]
        return [[b.atoms, b.cost, b.cost_interval, *b.history.values()] for b in found]

    return call


PLAN = (
    "potential",
    "potential_b",
    "reg_m",
    "c_transform",
    "atom_weights",
    "ot_map",
    "pair",
    "diagnose",
    "to",
)


@row(*(f"ErrorBars.{name}" for name in ("potential_stderr", "map_stderr", "functional", *PLAN)))
def _(nx):
    x, fresh = nx.array(POINTS), nx.array(np.random.default_rng(5).normal(size=(500, 2)))
    result = results(nx)[-1]

    def call():
        bars = applications.ErrorBars(result, fresh, random_state=0)
        found = [bars.potential_stderr, bars.map_stderr(x), bars.functional(lambda x, y: x @ y.T)]
        found += [bars.to(fresh).potential_b, bars.potential, bars.reg_m, repr(bars.diagnose(x))]
        return [*found, bars.c_transform(x), bars.atom_weights(x), bars.ot_map(x), bars.pair(x, 3)]

    return call


@row(*(f"CenterOutwardRanks.{name}" for name in ("ranks", "depth", "contour")))
def _(nx):
    x = nx.array(POINTS)
    made = [applications.CenterOutwardRanks(r, n_points=300, random_state=0) for r in results(nx)]
    return lambda: [[r.ranks(x), r.depth(x), r.contour(0.5)] for r in made]


@row("gradient_diagnostics")
def _(nx):
    arguments = problem(nx)
    return lambda: [repr(sd.gradient_diagnostics(*arguments, reg=reg)) for reg in REGS]


def shift(theta, z):
    return theta * z + theta


def shift_vjp(theta, z, cotangent):
    return ((z + 1.0) * cotangent).sum(0)


def law(nx):
    """A sampler with a state of its own."""
    rng = np.random.default_rng(3)
    return lambda n: nx.array(rng.normal(size=(n, 2)))


@row("one_sided_derivatives")
def _(nx):
    X, z, _, a = problem(nx)
    theta, v = nx.array(np.ones(2)), nx.array(np.array([1.0, 2.0]))
    return lambda: [repr(sd.one_sided_derivatives(shift, theta, v, z, X, a, reg=r)) for r in (0.0, 0.2)]


@row("generator_gradient", refused=["inference_mode"])
def _(nx):
    X, z, psi, a = problem(nx)
    theta, options = nx.array(np.ones(2)), {} if nx.differentiates else {"vjp": shift_vjp}
    return lambda: [
        sd.generator_gradient(shift, theta, z, X, psi, a, reg=reg, **options) for reg in REGS
    ]


def trained_parameters(nx, **options):
    """A call that trains parameters at each `reg`."""
    X, _, _, a = problem(nx)
    theta, options = nx.array(np.ones(2)), options | {"n_steps": 3, "batch_size": 40, "a_target": a}

    def call():
        runs = [sd.train_parameters(shift, theta, law(nx), X, reg=reg, **options) for reg in REGS]
        return [[run.theta, run.potential, run.history["loss"], run.status] for run in runs]

    return call


@row("train_parameters")
def _(nx):
    return trained_parameters(nx, vjp=shift_vjp)


@row("train_parameters by autograd", kinds=["torch"], refused=["inference_mode"])
def _(nx):
    return trained_parameters(nx)


ESTIMATES = (
    *("value", "value_stderr", "value_interval", "suboptimality", "suboptimality_bound"),
    *("chi2", "chi2_stderr", "marginal_error", "marginal_error_stderr"),
    *("value_linear", "marginal_b", "potential", "potential_b"),
)


def solve(nx, reg, source="normal", **options):
    """A short run."""
    X, _, _, a = problem(nx)
    options = {"tol": 0, "max_iter": 20, "batch_size": 64, "random_state": 0} | options
    return sd.solve_semidiscrete(X, source, a, reg=reg, **options)


def told(result):
    """All that a result says."""
    facts = [getattr(result, name) for name in ESTIMATES]
    return [*facts, result.log, result.status, result.n_samples, repr(result)]


@row("solve_semidiscrete")
def _(nx):
    states = []
    options = {"tol": 0.3, "max_iter": 120, "callback": lambda state: states.append(state.potential)}

    def call():
        found = [told(solve(nx, reg, source, **options)) for reg in REGS for source in ("ball", law(nx))]
        return [found, states[-1]]

    return call


@row("solve_semidiscrete with masses at a price", "SemiDiscreteResult.reg_m")
def _(nx):
    return lambda: [told(solve(nx, reg, reg_m=0.5)) for reg in REGS]


def sources(nx):
    """Those of other packages, but for a loader, which under ``meta`` has no seed."""
    found = [stats.multivariate_normal(np.zeros(2)), nx.array(POINTS)]
    if HAS_TORCH:
        found.append(torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2)))
    return found


@row("solve_semidiscrete by sources of other packages")
def _(nx):
    made = sources(nx)
    return lambda: [told(solve(nx, 0.2, source)) for source in made]


def loader():
    """A loader of points in order."""
    points = torch.tensor(POINTS, dtype=torch.float32)
    return torch.utils.data.DataLoader(points, batch_size=16)


@row("solve_semidiscrete by a loader", kinds=["torch"], skipped=["default device"])
def _(nx):
    return lambda: told(solve(nx, 0.2, loader()))


@functools.cache
def solved(nx, reg):
    """A result of which nothing was asked yet: copies are."""
    return solve(nx, reg)


def results(nx):
    """Copies of one result for each `reg`."""
    return [copy.deepcopy(solved(nx, reg)) for reg in REGS]


@row(*(f"SemiDiscreteResult.{name}" for name in ESTIMATES), "SemiDiscreteResult.citation")
def _(nx):
    made = results(nx)
    return lambda: [[told(result), result.citation] for result in made]


@row(*(f"SemiDiscreteResult.{name}" for name in ("potential_stderr", "map_stderr", "functional")))
def _(nx):
    x, result = nx.array(POINTS), results(nx)[-1]

    def call():
        found = [result.potential_stderr, result.map_stderr(x)]
        return [found, result.functional(lambda x, y: x @ y.T)]

    return call


@row(*(f"SemiDiscreteResult.{m}" for m in ("c_transform", "atom_weights", "ot_map", "pair", "diagnose")))
def _(nx):
    made, x = results(nx), nx.array(POINTS)

    def call():
        found = [[r.c_transform(x), r.atom_weights(x), r.ot_map(x)] for r in made]
        return [found, [[r.pair(x, random_state=3), repr(r.diagnose(x))] for r in made]]

    return call


@row("SemiDiscreteResult.to", "SemiDiscreteResult.save", "SemiDiscreteResult.load")
def _(nx):
    made, path, X = results(nx), Path(FOLDER.name) / "result.npz", nx.array(ATOMS)

    def call():
        found = []
        for result in made:
            result.save(path)
            found += [told(sd.SemiDiscreteResult.load(path, X)), told(result.to(np.float64))]
            found.append(told(pickle.loads(pickle.dumps(result))))
            if HAS_TORCH:
                found += [told(result.to(torch.float64)), told(result.to("cpu"))]
        return found

    return call


@row("stack_dataset", kinds=["torch"])
def _(nx):
    dataset, x = torch.utils.data.TensorDataset(nx.array(ATOMS)), nx.array(ATOMS[:5] + 0.1)

    def call():
        stacked = generative.stack_dataset(dataset, f"{FOLDER.name}/stacked.npy")
        atoms = sd.StoredAtoms(stacked, 0.5)
        loss = generative.SemiDiscreteLoss(atoms, reg=0.1)
        loss.follow(x)
        images = sd.semidiscrete_ot_map(atoms, x, loss.potential.clone(), reg=0.1)
        return [generative.stack_dataset(dataset), stacked, atoms[1:3], loss.potential, images]

    return call


PAIRS = "chi2", "classes", "labels", "like", "n_data", "to"
PAIRS = [f"SemiDiscreteCoupling.{name}" for name in PAIRS]
PAIRS += [f"SemiDiscretePairs.{name}" for name in ("noise_for", "precompute")]
PAIRS += [
    f"{kind}.{name}"
    for kind in ("SemiDiscretePairs", "StoredPairs")
    for name in ("set_epoch", "state_dict", "load_state_dict")
]
PAIRS += [f"PlanSampler.{name}" for name in ("sample_plan", "sample_plan_with_labels")]


@row("solve_coupling", *PAIRS, kinds=["torch"])
def _(nx):
    data, path = nx.array(np.hstack([ATOMS, ATOMS[::-1] + 0.1])), f"{FOLDER.name}/pairs.npz"
    data, labels = data.reshape(-1, 2, 2), torch.arange(len(ATOMS), device="cpu") % 2
    few = data[:3].clone()
    options = {"batch_size": 5, "random_state": 0}

    def call():
        found = []
        for given in ({"labels": labels}, {"conditions": data[:, 0], "condition_weight": 0.5}):
            coupling = generative.solve_coupling(data, n_components=2, random_state=0, **given)
            facts = [coupling.chi2, coupling.classes, coupling.labels, coupling.like, coupling.n_data]
            pairs = generative.SemiDiscretePairs(coupling.to("cpu"), **options)
            pairs.set_epoch(3)
            found += [*facts, coupling.results[0].potential, [list(batch) for batch in pairs]]
            state, asked = pairs.state_dict(), torch.arange(0, 20, 3, device="cpu")
            pairs.load_state_dict(state)
            pairs.precompute(30, path)
            stored = generative.StoredPairs(path, data, batch_size=5)
            plan = generative.PlanSampler(pairs)
            found += [state, pairs.noise_for(asked), [list(batch) for batch in stored]]
            found += [
                plan.sample_plan(few, asked),
                plan.sample_plan_with_labels(few, few),
            ]
            found += [repr(coupling), repr(pairs), repr(stored)]
        return found

    return call


SCORES = "covariance_ratio", "frechet_distance", "nearest_cost", "transport_cost"
NEAR = "coverage", "precision_recall"


@row("class_shares", "entropy", *SCORES, *NEAR, kinds=["numpy"])
def _(nx):
    x, y = 1e-30 * IMAGES[:20].astype("float32"), IMAGES[20:].astype("float32")

    def call():
        found = [getattr(metrics, name)(a, b) for name in SCORES for a in (x, y) for b in (x, y)]
        found += [getattr(metrics, name)(x, y) for name in NEAR]
        shares = np.array([1e-310, 0.5, 0.5, 0.0])
        return [*found, metrics.class_shares(LABELS, 5), metrics.entropy(shares)]

    return call


@row("semi_dual_value")
def _(nx):
    X, options = nx.array(ATOMS), {"n_batches": 5, "batch_size": 40}
    return lambda: [metrics.semi_dual_value(law(nx), X, reg, **options) for reg in REGS]


@row("Classifier", "Judge", kinds=["numpy"] * HAS_TORCH)
def _(nx):
    def call():
        classifier = metrics.Classifier(IMAGES, LABELS, n_steps=2)
        judge = metrics.Judge(IMAGES[:20], IMAGES[20:], classifier)
        return [classifier.features(IMAGES), classifier.labels(IMAGES), judge.floor, judge(IMAGES[:9])]

    return call


@row("SobolSampler")
def _(nx):
    like = nx.array(ATOMS)

    def call():
        made = [
            samplers.SobolSampler(2, kind, type_as=like, random_state=0) for kind in ("unif", "normal")
        ]
        return [[sampler(9), sampler.independent(5)] for sampler in made]

    return call


# What needs torch.

only_torch = functools.partial(row, kinds=["torch"])


class Affine(torch.nn.Module if HAS_TORCH else object):
    """A generator that autocast leaves alone."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(2, dtype=torch.float32, device="cpu"))

    def forward(self, z):
        return self.scale * z


def potential_network():
    """A network from points to potentials, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))


def vectors(nx, **options):
    """Losses, each to be used once; their steps see no atoms of 1e-30."""
    X, a = nx.array(ATOMS[2:]), nx.array(WEIGHTS[2:])
    return [generative.SemiDiscreteLoss(X, a, reg=reg, **options) for reg in REGS]


CRITIC = "", ".score", ".step", ".state_dict", ".load_state_dict"


def losses(nx):
    network = generative.SemiDiscreteLoss(nx.array(ATOMS), potential=potential_network(), reg=0.2)
    return [*vectors(nx), *vectors(nx, debias=True), *vectors(nx, reg_m=0.5), network]


def kept(loss):
    """The state of a loss but for its optimiser, of which torch has a part in its default dtype."""
    state = loss.state_dict()
    return {name: state[name] for name in state if name != "network._extra_state"}


@only_torch("SemiDiscreteLoss")
def _(nx):
    X, network = nx.array(ATOMS), potential_network()

    def call():
        made = [*vectors(nx), generative.SemiDiscreteLoss(X, potential=network)]
        return [[kept(one), one.reg, repr(one)] for one in made]

    return call


@only_torch("SemiDiscreteLoss.forward", "SemiDiscreteLoss.follow", "SemiDiscreteLoss.dual_step")
def _(nx):
    made, x = losses(nx), nx.array(POINTS)

    def call():
        for one in made:
            one.follow(x)
            one.dual_step(x)
        return [[one(x), kept(one)] for one in made]

    return call


@only_torch("gradients of losses", skipped=NO_GRADIENT)
def _(nx):
    made, x = losses(nx), nx.array(POINTS).requires_grad_()
    for one in made:
        one.follow(x.detach())
    return lambda: [torch.autograd.grad(one(x), x) for one in made]


@only_torch("SemiDiscreteLoss.warm_up", "SemiDiscreteLoss.fit")
def _(nx):
    made, fitted, options = losses(nx), vectors(nx), {"tol": 0, "max_iter": 5, "batch_size": 64}

    def call():
        for one in made:
            one.warm_up(functools.partial(law(nx), 30), 5)
        return [[kept(one) for one in made], [told(one.fit(law(nx), **options)) for one in fitted]]

    return call


@only_torch(*(f"SemiDiscreteLoss.{name}" for name in ("translate", "majorants", "pair", "rows")))
def _(nx):
    made, x = vectors(nx), nx.array(POINTS)

    def call():
        found = []
        for one in made:
            bounds = one.majorants([x[:30], x[30:]], follow=True)
            one.translate(x[0])
            found.append([one.pair(x, 0, follow=True)])
            found += [[b.goal, b.constant, b(b.goal)] for b in bounds] + [kept(one), one.rows(x)]
        return found

    return call


FACTS = "reg", "reg_m", "features", "has_majorants", "can_translate"
CALLED = "local", "get_extra_state", "set_extra_state", "extra_repr"


@only_torch(*(f"SemiDiscreteLoss.{name}" for name in (*CALLED, *FACTS)))
def _(nx):
    made, x = losses(nx), nx.array(POINTS)

    def call():
        for one in made:
            one.reg = 0.1
            one.load_state_dict(copy.deepcopy(one).state_dict())
            one.to("cpu")
        facts = [[getattr(one, name) for name in FACTS] for one in made]
        return [facts, [[one.local(x), kept(one), one.extra_repr()] for one in made]]

    return call


@only_torch("ImageFeatures", "random_filters")
def _(nx):
    images = nx.array(IMAGES)

    def call():
        filters = generative.random_filters(4)
        features = [generative.ImageFeatures(images), generative.ImageFeatures(images, filters, 0.3)]
        loss = generative.SemiDiscreteLoss(images, features=features[0])
        found = [[one.state_dict(), one(images).numpy()] for one in features]
        return [found, filters.state_dict(), loss(images)]

    return call


PATCHES = ("", ".forward", ".anneal", ".follow", ".patches", ".extra_repr")


@only_torch(*(f"PatchLoss{name}" for name in PATCHES))
def _(nx):
    images = nx.array(IMAGES)

    def call():
        loss = generative.PatchLoss(images[0], patch_size=3, n_scales=1, n_atoms=9, random_state=0)
        loss.anneal(0.5)
        loss.follow(images[1])
        return [loss(images[1]), loss.patches(images[2]), loss.state_dict(), repr(loss)]

    return call


@only_torch(*(f"GradientPenaltyCritic{name}" for name in CRITIC), refused=["inference_mode"])
def _(nx):
    x, network = nx.array(ATOMS), potential_network()

    def call():
        critic = generative.GradientPenaltyCritic(x, copy.deepcopy(network), random_state=0)
        critic.step(x)
        critic.load_state_dict(critic.state_dict())
        return [critic.score(x), repr(critic), critic.state_dict()["network"]]

    return call


@only_torch("train_generator", refused=["inference_mode"])
def _(nx):
    X, options = nx.array(ATOMS), {"batch_size": 20, "random_state": 0, "n_steps": 6}

    def call():
        path = Path(tempfile.mkdtemp(dir=FOLDER.name)) / "run.pt"
        stop = {"checkpoint": path, "callback": lambda run: run.n_steps == 3}
        found = []
        for more in ({}, {"reg": 0.0}, {"reuse": 1}, {"optimizer": torch.optim.SGD}, stop, stop):
            run = generative.train_generator(Affine(), 2, X, **options | more)
            history = [run.history[name] for name in ("loss", "chi2", "chi2_step")]
            found.append([run.generator.state_dict(), run.loss.state_dict(), history, run.status])
        return found

    return call


@only_torch("mlp_generator", "dcgan_generator", skipped=(*DEFAULTS, "inference_mode"))
def _(nx):
    def call():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made = [
                generative.mlp_generator(3, (2,), (4,)),
                generative.dcgan_generator(3, (8, 8), (4, 2)),
                generative.dcgan_generator(3, (8, 8), (4, 2), kernel_size=3, bias=False),
            ]
        return [one.state_dict() for one in made]

    return call


def own_members(kind):
    """Public methods and properties of a class that the package defines."""
    owners = [base for base in kind.__mro__ if base.__module__.startswith("pot_semidiscrete")]
    members = {name: member for base in owners for name, member in vars(base).items()}
    return {
        f"{kind.__name__}.{name}"
        for name, member in members.items()
        if not name.startswith("_") and not str(member.__doc__).startswith("Not defined")
    }


def test_each_public_function_has_a_row():
    faces, kinds = [sd, applications, metrics], [sd.SemiDiscreteResult, applications.CenterOutwardRanks]
    kinds.append(applications.ErrorBars)
    if HAS_TORCH:
        faces.append(generative)
        kinds += [generative.SemiDiscreteLoss, generative.SemiDiscreteCoupling, generative.PlanSampler]
        kinds += [generative.SemiDiscretePairs, generative.StoredPairs, generative.PatchLoss]
    public = {name for face in faces for name in face.__all__ if inspect.isfunction(getattr(face, name))}
    for kind in kinds:
        public |= own_members(kind)
    missing = public - NAMES
    assert not missing, "each is named by a row above"


def test_each_state_is_tried():
    assert set(CONTEXTS) <= {context for together in TOGETHER for context in together}


# Results.


def flat(value):
    """Numbers and strings in whatever is made of arrays; no tensor is one that autograd refuses."""
    if isinstance(value, dict):
        return flat(list(value.items()))
    if isinstance(value, (list, tuple)):
        return [entry for part in value for entry in flat(part)]
    if HAS_TORCH and isinstance(value, torch.Tensor):
        assert not value.is_inference()
        return [str(value.dtype), str(value.device), value.detach().numpy()]
    return [value]


def assert_same(found, expected):
    for one, other in zip(flat(found), flat(expected), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)


@functools.cache
def reference(name):
    """What a row gives in no context."""
    return ROWS[name]()()


def cases():
    """Rows, and states that are there at once; a state that is refused has a case of its own."""
    for name in ROWS:
        left_out = {*SKIPPED[name], *REFUSALS[name], *(MODES if name.endswith("-numpy") else ())}
        for together in TOGETHER:
            if contexts := [c for c in together if c in CONTEXTS and c not in left_out]:
                yield pytest.param(name, contexts, id=f"{name}-{contexts[0]}_and_more".replace(" ", "_"))


@pytest.mark.parametrize(("name", "contexts"), list(cases()))
def test_results_are_the_same(name, contexts):
    expected, call = reference(name), ROWS[name]()
    with contextlib.ExitStack() as stack:
        for context in contexts:
            stack.enter_context(CONTEXTS[context]())
        found = call()
    assert_same(found, expected)


@pytest.mark.parametrize(("name", "context"), [(name, c) for name in ROWS for c in REFUSALS[name]])
def test_states_are_refused_by_name(name, context):
    call = ROWS[name]()
    with (
        CONTEXTS[context](),
        pytest.raises(RuntimeError, match=f"expected a call outside of torch.{context}"),
    ):
        call()


def test_results_are_the_same_in_double_precision_with_atoms_of_no_weight():
    """Whose squares are below the least number."""
    weights = np.array([1e-300, 1e-200, *np.full(22, 1.0 / 22)])
    arguments, options = (ATOMS, POINTS, POTENTIAL, weights), {"tol": 0, "max_iter": 10}

    def call():
        found = [getattr(sd, name)(*arguments, reg=reg) for name in FUNCTIONS for reg in REGS]
        solve = functools.partial(sd.solve_semidiscrete, ATOMS, "ball", weights, random_state=0)
        return [found, [told(solve(reg=reg, **options)) for reg in REGS]]

    with filtered():
        expected = call()
    with np.errstate(all="raise"):
        assert_same(call(), expected)


# What is the user's is called in the states of the user.


def states():
    """Those that the package changes inside."""
    found = [np.geterr()]
    if HAS_TORCH:
        found += [torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")]
        found += [torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled()]
    return found


def noting(function, seen):
    """A function that notes in which states it is called."""

    def call(*arguments):
        seen.append(states())
        return function(*arguments)

    return call


class Source(samplers.Sampler):
    """A sampler of the user's own class."""

    def __init__(self, draw):
        self.draw = draw

    def __call__(self, n):
        return self.draw(n)


class Data(torch.utils.data.Dataset if HAS_TORCH else object):
    """A data set of the user's own class."""

    def __init__(self, seen):
        self.seen = seen

    def __len__(self):
        return 100

    def __getitem__(self, k):
        self.seen.append(states())
        return torch.zeros(2, dtype=torch.float64)


@contextlib.contextmanager
def every_state(inference):
    """Errors, autocast and, if asked for, inference mode, all other than usual."""
    with np.errstate(all="raise", over="call", divide="print"), contextlib.ExitStack() as stack:
        if HAS_TORCH:
            options = {"dtype": torch.float16, "cache_enabled": False}
            stack.enter_context(torch.autocast("cpu", **options))
            if inference:
                stack.enter_context(torch.inference_mode())
        yield


@pytest.mark.parametrize("nx", KINDS, ids=lambda nx: nx.name)
@pytest.mark.parametrize("inference", [False, True])
def test_users_functions_are_called_in_the_states_of_the_user(inference, nx):
    X, z, psi, _ = problem(nx)
    theta, seen = nx.array(np.ones(2)), []
    note = lambda function: noting(function, seen)
    options = {"reg": 0.2, "tol": 0, "max_iter": 2}
    sobol = samplers.SobolSampler(2, type_as=X, generator=note(lambda z: z))
    train = {"vjp": note(shift_vjp), "reg": 0.2, "n_steps": 1, "callback": note(lambda *_: False)}
    with every_state(inference):
        outside = states()
        for sampler in (note(law(nx)), Source(note(law(nx))), sobol):
            sd.solve_semidiscrete(X, sampler, callback=note(lambda state: False), **options)
        sd.generator_gradient(note(shift), theta, z, X, psi, reg=0.2, vjp=note(shift_vjp))
        sd.one_sided_derivatives(note(shift), theta, theta, z, X, reg=0.2)
        sd.train_parameters(note(shift), theta, note(law(nx)), X, **train)
        assert states() == outside
    assert len(seen) > 20
    assert all(found == outside for found in seen)


@needs_torch
def test_functions_of_a_training_are_called_in_the_states_of_the_user():
    X, seen = torch.tensor(ATOMS), []
    draw = noting(lambda n: torch.tensor(RNG.normal(size=(n, 2))), seen)
    loss = generative.SemiDiscreteLoss(X)
    generator = Affine().double()
    generator.register_forward_pre_hook(lambda *_: seen.append(states()))
    with every_state(False):
        outside = states()
        loss.fit(draw, tol=0, max_iter=2, callback=noting(lambda state: False, seen))
        loss.warm_up(functools.partial(draw, 30), 2)
        loss.fit(torch.utils.data.DataLoader(Data(seen)), tol=0, max_iter=1)
        options = {"n_steps": 3, "callback": noting(lambda run: False, seen)}
        for reuse in (1, 16):
            generative.train_generator(generator, draw, loss, reuse=reuse, **options)
        assert states() == outside
    assert len(seen) > 50
    assert all(found == outside for found in seen)


@pytest.mark.parametrize("nx", KINDS, ids=lambda nx: nx.name)
def test_a_metric_is_called_in_the_states_of_the_package(nx):
    """It is a part of what is computed."""
    X, z, psi, a = problem(nx)
    seen = []
    with every_state(False):
        sd.semidiscrete_loss(X, z, psi, a, noting(square, seen))
    assert seen
    for errors, *of_torch in seen:
        assert errors == {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
        assert not any(of_torch[:2])


def test_states_are_as_before_after_an_error():
    with every_state(False):
        before = states()
        with pytest.raises(ZeroDivisionError):
            sd.solve_semidiscrete(ATOMS, lambda n: 1 / 0)
        assert states() == before


# Inference mode.


@needs_torch
def test_a_loss_of_inference_mode_trains_outside():
    with torch.inference_mode():
        loss = generative.SemiDiscreteLoss(torch.tensor(ATOMS))
        loss.follow(torch.tensor(POINTS))
        read = pickle.loads(pickle.dumps(loss))
    for one in (loss, read):
        one.follow(torch.tensor(POINTS))
        assert generative.train_generator(Affine().double(), 2, one, n_steps=2).status == "finished"


@needs_torch
def test_a_network_of_a_loss_of_inference_mode_is_trained_outside():
    module = potential_network().double()
    with torch.inference_mode():
        loss = generative.SemiDiscreteLoss(torch.tensor(ATOMS), potential=module)
    before = loss.potential.clone()
    loss.follow(torch.tensor(POINTS))
    assert (loss.potential != before).any()


@needs_torch
def test_arrays_of_inference_mode_take_part_in_gradients_outside():
    nx = Backend("torch", "float64")
    with torch.inference_mode():
        X, z, psi, a = problem(nx)
        result = sd.solve_semidiscrete(X, "normal", reg=0.2, tol=0, max_iter=2)
        read = pickle.loads(pickle.dumps(result))
    x, scale = nx.array(POINTS).requires_grad_(), nx.array(np.ones(())).requires_grad_()
    for one in (result, read, copy.deepcopy(read)):
        one.c_transform(x).sum().backward()
        (scale * one.value * one.value_linear * one.marginal_b.sum()).backward()
    for metric in ("sqeuclidean", square):
        sd.semidiscrete_c_transform(X, x, psi, a, metric, 0.2).sum().backward()
        sd.semidiscrete_gradient(X, z, psi, a, metric, 0.2)
        sd.generator_gradient(lambda theta, z: theta + z, X[0], z, X, psi, a, metric, 0.2)
    assert x.grad.isfinite().all()


# Pairs.


@needs_torch
def test_pairs_of_torch_data_follow_the_seed_of_torch():
    result, x = solve(Backend("torch", "float32"), 1.0), torch.tensor(POINTS, dtype=torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, second = result.pair(x), result.pair(x)
        torch.manual_seed(0)
        again, before = result.pair(x), global_states()
        given = [result.pair(x, 3), result.pair(x, torch.Generator().manual_seed(3))]
        assert global_states() == before
    assert torch.equal(again, first)
    assert not torch.equal(second, first)
    assert torch.equal(*given)


def test_pairs_of_other_data_leave_global_generators_alone():
    result, before = solve(KINDS[0], 1.0), global_states()
    x = POINTS.astype("float32")
    assert (result.pair(x) != result.pair(x)).any()
    assert global_states() == before


class Pairs:
    """A data set of the same points, paired anew."""

    def __init__(self, nx):
        self.result, self.points = solve(nx, 1.0), nx.array(POINTS)

    def __len__(self):
        return 4

    def __getitem__(self, k):
        return self.result.pair(self.points)


def loaded(pairs, start, epochs=2, n_workers=2):
    """What a loader with so many workers gives, as tuples."""
    from torch.utils.data import DataLoader

    with torch.random.fork_rng():
        torch.manual_seed(0)
        loader = DataLoader(pairs, batch_size=1, num_workers=n_workers, multiprocessing_context=start)
        return [tuple(batch[0].tolist()) for _ in range(epochs) for batch in loader]


@needs_torch
def test_pairs_of_torch_data_follow_the_workers_of_a_loader():
    """Workers and epochs differ, and the seed of torch tells them, however workers are started."""
    pairs = Pairs(Backend("torch", "float32"))
    found = loaded(pairs, "fork")
    assert len(set(found)) == 8
    assert loaded(pairs, "fork") == found
    assert loaded(pairs, "spawn", 1, n_workers=1) == loaded(pairs, "fork", 1, n_workers=1)


@needs_torch
def test_pairs_of_other_data_differ_between_workers():
    """Also where they inherit the state of the process."""
    assert len(set(loaded(Pairs(KINDS[0]), "fork"))) == 8


@needs_torch
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_of_whole_numbers_are_cumulative_sums(dtype):
    """What a GPU adds up, for that is deterministic there."""
    from pot_semidiscrete.backend.torch_backend import whole_cumsum

    weights = torch.softmax(10.0 * torch.tensor(RNG.normal(size=(20, 3000))), dim=1)
    for total in (1.0, 3000.0):  # of powers of which the largest is 1
        found = whole_cumsum(total * weights.to(getattr(torch, dtype))) / total
        rounding = 100 * float(np.finfo(dtype).eps)
        torch.testing.assert_close(found.double(), weights.cumsum(dim=1), rtol=0.0, atol=rounding)


@needs_torch
def test_atoms_are_drawn_by_sums_of_whole_numbers(monkeypatch):
    """As on a GPU, where one atom was drawn nearly always: sums had another unit than masses."""
    from pot_semidiscrete.backend.torch_backend import TorchCapabilities, whole_cumsum

    monkeypatch.setattr(TorchCapabilities, "cumulative", lambda self, weights: whole_cumsum(weights))
    powers = torch.tensor(np.random.default_rng(1).random((1, 50)))
    share = (torch.arange(5000.0) + 0.5) / 5000.0
    total, nx = powers.sum(), get_backend(powers)
    rows = powers.repeat(len(share), 1)
    block = kernels.SoftBlock(rows, (1.0 / total).expand(len(share)), None, nx)
    start, weights, share = block.cdf_group(share.double())
    drawn = start + kernels.blocks.inverse_cdf(weights, share, nx)[0]
    found = torch.bincount(drawn, minlength=50) / len(share)
    torch.testing.assert_close(found.double(), powers[0] / total, rtol=0.0, atol=2.0 / len(share))


# Without torch.


def test_a_classifier_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    expected = "metrics.Classifier needs torch: install it, or pot_semidiscrete[torch]."
    with pytest.raises(ImportError, match=re.escape(expected)):
        metrics.Classifier(IMAGES, LABELS)
