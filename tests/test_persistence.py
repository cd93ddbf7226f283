"""What is kept, copied or sent to another process answers as before."""

import copy
import importlib.util
import inspect
import io
import multiprocessing
import os
import pickle
import tempfile

import numpy as np
import pytest

import pot_semidiscrete as sd
from pot_semidiscrete import applications, metrics, samplers
from tests.backends import BACKENDS, Backend, needs_torch, uncrossed

ATOMS = np.random.default_rng(1).normal(size=(12, 2))
WEIGHTS = np.array([0.0, 0.3, *[0.07] * 10])
POINTS = np.random.default_rng(2).normal(size=(9, 2))
ESTIMATES = (
    "value_stderr",
    "value_interval",
    "chi2",
    "chi2_stderr",
    "marginal_error",
    "marginal_error_stderr",
    "suboptimality",
    "suboptimality_bound",
)


def solve(nx, metric="sqeuclidean", reg=0.2, **options):
    """A short run, with an atom of weight 0 and a copy of another."""
    atoms = nx.array(np.vstack([ATOMS[:11], ATOMS[1]]))
    options = {"tol": 0, "max_iter": 20, "random_state": 0} | options
    return sd.solve_semidiscrete(atoms, "normal", nx.array(WEIGHTS), metric, reg, **options)


def answers(result, nx):
    """All that a result says, on the host."""
    x = nx.array(POINTS)
    told = [getattr(result, name) for name in ESTIMATES] + [float(result.value), result.reg]
    told += [nx.host(getattr(result, name)) for name in ("potential", "marginal_b", "value_linear")]
    told += [nx.host(getattr(result, name)(x)) for name in ("c_transform", "atom_weights", "ot_map")]
    return [*told, nx.host(result.pair(x, random_state=3)), result.diagnose(x).verdict, repr(result)]


def assert_same(one, other):
    """Lists of answers are the same to the bit."""
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def torch_file(thing):
    """What torch.load reads of what torch.save wrote."""
    import torch

    file = io.BytesIO()
    torch.save(thing, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = {
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "torch": torch_file,
}


@pytest.fixture(params=WAYS)
def way(request):
    """Each way in which an object is kept, copied or sent."""
    if request.param == "torch":
        pytest.importorskip("torch")
    return WAYS[request.param]


@pytest.mark.parametrize("pending", [True, False])
@pytest.mark.parametrize("reg", [0.0, 0.2])
def test_result_survives(way, reg, pending, nx):
    """Also before its estimates were asked for: they are made of the points that it holds."""
    result = solve(nx, reg=reg)
    if not pending:
        _ = result.value_interval
    assert_same(answers(way(result), nx), answers(result, nx))
    assert type(way(result)) is type(result)


@pytest.mark.parametrize("metric", ["euclidean", "cityblock", "cosine", "correlation"])
def test_result_of_another_metric_survives(metric, nx):
    result = solve(nx, metric)
    assert_same(answers(WAYS["pickle"](result), nx), answers(result, nx))


def test_result_holds_no_backend(nx):
    """What pickle writes names none: it is found again from the arrays."""
    written = pickle.dumps(solve(nx))
    assert b"ot.backend" not in written
    assert b"Backend" not in written


def test_result_goes_through_joblib(nx, tmp_path):
    joblib = pytest.importorskip("joblib")
    result = solve(nx)
    joblib.dump(result, tmp_path / "result")
    assert_same(answers(joblib.load(tmp_path / "result"), nx), answers(result, nx))


def made_objects():
    """One of each public class that users hold, and what tells whether two are the same."""
    atoms = np.vstack([ATOMS[:11], ATOMS[1]])
    states = []
    sd.solve_semidiscrete(
        atoms, "normal", reg=0.2, random_state=0, callback=states.append, tol=0, max_iter=3
    )
    trained = sd.train_parameters(generator, np.zeros(2), latent, atoms, vjp=vjp, reg=0.3, n_steps=5)
    diagnosis = sd.gradient_diagnostics(atoms, POINTS, np.zeros(12), reg=0.1)
    sided = sd.one_sided_derivatives(generator, np.zeros(2), np.ones(2), POINTS, atoms, reg=0.1)
    sobol = samplers.SobolSampler(2, "normal", random_state=0)
    sobol(5)
    moved = applications.quantize(POINTS, 4, n_steps=2, random_state=0)
    few = sd.solve_semidiscrete(atoms, "normal", reg=0.2, tol=0, max_iter=3, random_state=0)
    bars = applications.ErrorBars(few, latent(200))
    middle = applications.barycenter([POINTS, ATOMS], 4, n_steps=2, random_state=0)
    result = sd.solve_semidiscrete(atoms, "spherical", reg=0.2, tol=0, max_iter=3, random_state=0)
    ranks = applications.CenterOutwardRanks(result, n_points=99, random_state=0)
    objects = {
        applications.CenterOutwardRanks: (ranks, lambda r: [r.ranks(POINTS), r.contour(0.5, 4)]),
        applications.BarycenterResult: (middle, lambda q: [q.atoms, q.cost, q.cost_interval]),
        applications.ErrorBars: (bars, lambda e: [e.potential_stderr, e.map_stderr(POINTS)]),
        applications.QuantizationResult: (
            moved,
            lambda q: [q.atoms, q.weights, q.cost, *q.history.values()],
        ),
        sd.SolverState: (states[-1], lambda s: [s.n_iter, s.reg, s.potential]),
        sd.ParameterResult: (trained, lambda r: [r.theta, r.potential, r.status, *r.history.values()]),
        sd.GradientDiagnostics: (diagnosis, lambda d: [repr(d)]),
        sd.OneSidedDerivatives: (sided, lambda d: [repr(d)]),
        sd.StoredAtoms: (sd.StoredAtoms(atoms, 2.0), lambda s: [s[2:9], repr(s)]),
        samplers.SobolSampler: (sobol, lambda s: [s(7), s.independent(3)]),
    }
    if "torch" in BACKENDS:
        objects |= torch_objects(Backend("torch", "float32").array(atoms))
    return objects


def generator(theta, z):
    return theta + z


def latent(n):
    return np.random.default_rng(n).normal(size=(n, 2))


def vjp(theta, z, cotangent):
    return cotangent.sum(axis=0)


def torch_objects(atoms):
    """Those of the part that needs torch."""
    import torch

    from pot_semidiscrete import generative

    x = Backend("torch", "float32").array(POINTS)
    torch.manual_seed(0)
    loss = generative.SemiDiscreteLoss(atoms)
    loss.follow(x)
    of_features = generative.SemiDiscreteLoss(atoms, features=torch.nn.Linear(2, 3))
    network = generative.SemiDiscreteLoss(atoms, potential=torch.nn.Linear(2, 1))
    trained = generative.train_generator(torch.nn.Linear(2, 2), 2, atoms, n_steps=5)
    images = torch.rand(20, 8, 8)
    features = generative.ImageFeatures(images)

    patches = generative.PatchLoss(images[0], patch_size=3, n_scales=2, n_atoms=9)
    patches.follow(images[1])

    critic = generative.GradientPenaltyCritic(atoms, random_state=0)
    critic.step(x)

    def played(critic):
        critic = copy.deepcopy(critic)
        critic.step(x)
        return critic.score(x).detach().numpy()

    def moved(loss):
        loss = copy.deepcopy(loss)  # a shallow copy is the same potential
        before = loss(x).item()
        loss.follow(x)
        return [before, loss(x).item(), loss.potential.numpy()]

    def all_of(result):
        return [*moved(result.loss), result.generator(x).detach().numpy(), *result.history.values()]

    labels, path = torch.arange(12) % 2, os.path.join(tempfile.mkdtemp(), "pairs.npz")
    plain, labelled = (
        generative.SemiDiscretePairs(atoms, labels=given, batch_size=5, random_state=0)
        for given in (None, labels)
    )
    plain.precompute(20, path)
    stored, plan = generative.StoredPairs(path, atoms, batch_size=5), generative.PlanSampler(plain)
    coupling = labelled.coupling

    def batches(pairs):
        pairs.set_epoch(1)
        return [x.numpy() for batch in pairs for x in batch]

    return {
        generative.SemiDiscreteCoupling: (coupling, lambda c: [repr(c), c.results[1].potential.numpy()]),
        generative.SemiDiscretePairs: (plain, batches),
        (generative.SemiDiscretePairs, "labels"): (labelled, batches),
        generative.StoredPairs: (stored, batches),
        generative.PlanSampler: (plan, lambda p: p.sample_plan(x, torch.arange(9))[1].numpy()),
        generative.Pairs: (next(iter(plain)), lambda b: [x.numpy() for x in b]),
        generative.LabelledPairs: (next(iter(labelled)), lambda b: [x.numpy() for x in b]),
        generative.SemiDiscreteLoss: (loss, moved),
        (generative.SemiDiscreteLoss, "features"): (of_features, moved),
        (generative.SemiDiscreteLoss, "network"): (network, moved),
        generative.TrainingResult: (trained, all_of),
        generative.PatchLoss: (
            patches,
            lambda p: [p(images[1]).item(), p.patches(images[2])[1].numpy()],
        ),
        generative.GradientPenaltyCritic: (critic, played),
        generative.ImageFeatures: (features, lambda f: [f(images).numpy()]),
    }


def test_every_public_object_survives(way):
    for thing, told in made_objects().values():
        found = way(thing)
        assert type(found) is type(thing)
        assert_same(told(found), told(thing))


def test_no_public_class_is_left_out():
    """A new one needs a row above."""
    known = {sd.SemiDiscreteResult, sd.SemiDiscreteWarning, metrics.Classifier, metrics.Judge}
    known |= {samplers.Sampler, samplers.Law}  # bases
    known |= {sd.ShardedAtoms}  # which refuse to leave their process: tests/shards.py
    known |= {kind for kind in made_objects() if isinstance(kind, type)}
    faces = [sd, applications, samplers, metrics]
    if "torch" in BACKENDS:
        faces.append(importlib.import_module("pot_semidiscrete.generative"))
    public = {getattr(face, name) for face in faces for name in face.__all__}
    assert {thing for thing in public if inspect.isclass(thing)} <= known


def pair_elsewhere(result, x):
    """What a worker is asked for."""
    return result.pair(x, random_state=3), result.chi2, result.value_interval


@pytest.fixture(scope="module")
def spawned():
    """A process that inherits nothing: the start of processes on macOS and Windows."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        yield pool


@needs_torch
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_spawned_worker_answers_alike(kind, spawned):
    nx = Backend(kind, "float64")
    result = solve(nx)
    found = spawned.apply(pair_elsewhere, (result, nx.array(POINTS)))
    expected = pair_elsewhere(result, nx.array(POINTS))
    assert_same(nx.host(found[0]), nx.host(expected[0]))
    assert found[1:] == expected[1:]


class Pairs:
    """A data set of points and what they are paired with."""

    def __init__(self, result, points):
        self.result, self.points = result, points

    def __len__(self):
        return len(self.points)

    def __getitem__(self, k):
        return self.points[k], int(self.result.pair(self.points[k : k + 1], random_state=k)[0])


def batches(pairs):
    """Numbers that a loader of them gives."""
    from torch.utils.data import DataLoader

    return [index.tolist() for _, index in DataLoader(pairs, batch_size=3)]


@needs_torch
def test_spawned_loader_of_pairs_answers_alike(spawned):
    nx = Backend("torch", "float32")
    pairs = Pairs(solve(nx), nx.array(POINTS))
    assert spawned.apply(batches, (pairs,)) == batches(pairs)


# To another backend, dtype or device.


@uncrossed
@pytest.mark.parametrize("reg", [0.0, 0.2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", BACKENDS)
def test_result_goes_to_another_backend_with_its_certificate(kind, dtype, reg, nx):
    other, result = Backend(kind, dtype), solve(nx, reg=reg)
    found = result.to(other.array([0.0]))
    assert type(found.potential) is type(other.array([0.0]))
    assert str(found.potential.dtype).endswith(dtype)
    for name in (*ESTIMATES, "status", "converged", "n_iter", "n_samples", "work", "reg"):
        np.testing.assert_equal(getattr(found, name), getattr(result, name))
    rounding = 10 * max(nx.eps, other.eps)
    assert float(found.value) == pytest.approx(float(result.value), rel=rounding)
    for name in ("potential", "marginal_b", "value_linear"):
        np.testing.assert_allclose(
            other.host(getattr(found, name)),
            nx.host(getattr(result, name)),
            rtol=rounding,
            atol=rounding,
        )
    one, two = other.host(found.ot_map(other.array(POINTS))), nx.host(result.ot_map(nx.array(POINTS)))
    np.testing.assert_allclose(one, two, atol=200 * rounding)
    index = other.host(found.pair(other.array(POINTS), random_state=0))
    assert (WEIGHTS[index.astype(int)] > 0).all()
    assert repr(found) == repr(found.to(other.array([0.0])))


def test_to_takes_a_dtype():
    result = solve(Backend("numpy", "float64"))
    assert result.to(np.float32).potential.dtype == np.float32


@needs_torch
def test_to_takes_a_torch_dtype_and_device():
    import torch

    result = solve(Backend("numpy", "float64"))
    assert result.to(torch.float32).potential.dtype == torch.float32
    assert result.to("cpu").potential.dtype == torch.float64
    assert result.to(torch.device("cpu")).to(torch.float32).potential.device.type == "cpu"
    assert result.to(torch.float32).to(np.float64).potential.dtype == np.float64


@pytest.mark.parametrize("where", [np.int64, 3, None, "no device", np.zeros(3, dtype=int), [1.0]])
def test_to_says_what_it_takes(where):
    with pytest.raises(TypeError, match="where: expected an array, a NumPy dtype, or a torch dtype"):
        solve(Backend("numpy", "float64")).to(where)


def test_atoms_that_a_dtype_does_not_hold_are_refused():
    atoms = 1e20 * ATOMS
    result = sd.solve_semidiscrete(atoms, lambda n: 1e20 * latent(n), reg=1e39, tol=0, max_iter=3)
    with pytest.raises(ValueError, match="where: expected a longest point"):
        result.to(np.float32)
