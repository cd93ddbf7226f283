"""What is printed of an object is a few lines, whatever it holds."""

import inspect
import os
import tempfile

import numpy as np
import pytest

import pot_semidiscrete as sd
from pot_semidiscrete import applications, costs, kernels, metrics, samplers
from pot_semidiscrete.inference.estimates import evaluate
from pot_semidiscrete.optim import stopping
from pot_semidiscrete.optim.semi_dual import SemiDual
from pot_semidiscrete.problem import build_target
from pot_semidiscrete.samplers.laws import CallableSampler, RowSampler
from tests.backends import BACKENDS, cost_of

RNG = np.random.default_rng(0)
ATOMS, POINTS, POTENTIAL = RNG.random((3000, 2)), RNG.random((3000, 2)), np.zeros(3000)
NOT_MADE = {sd.SemiDiscreteWarning, samplers.Law, samplers.Sampler, costs.Cost, costs.SeparableCost}
NOT_MADE |= {kernels.Kernel, kernels.InPlaceKernel, kernels.Atoms, costs.Weights, stopping.StoppingRule}
NOT_MADE |= {sd.ShardedAtoms}  # by one process: tests/shards.py


def shift(theta, z):
    """A generator that moves its points."""
    return theta + z


def objects():
    """One of each public class."""
    states, target = [], build_target(ATOMS)
    result = sd.solve_semidiscrete(
        ATOMS, "unif", reg=0.1, tol=0, max_iter=2, callback=states.append, random_state=0
    )
    options = {"vjp": lambda theta, z, cotangent: cotangent.sum(0), "reg": 0.1, "n_steps": 2}
    trained = sd.train_parameters(shift, np.zeros(2), lambda n: RNG.random((n, 2)), ATOMS, **options)
    diagnosis = sd.gradient_diagnostics(ATOMS, POINTS, POTENTIAL, reg=0.1)
    sided = sd.one_sided_derivatives(shift, np.zeros(2), np.ones(2), POINTS[:50], ATOMS[:50], reg=0.1)
    evaluation = evaluate(SemiDual(target), POINTS, POTENTIAL, 0.1)
    found = [result, states[-1], trained, diagnosis, sided, target, evaluation]
    found.append(applications.quantize(POINTS, 4, n_steps=1, n_points=100))
    found.append(applications.barycenter([POINTS], 4, n_steps=1, n_points=100))
    found.append(applications.ErrorBars(result, POINTS))
    found.append(applications.CenterOutwardRanks(result, n_points=3000))
    found += [samplers.SobolSampler(2), RowSampler(ATOMS, None), CallableSampler(shift)]
    found += [cost_of(name) for name in costs.registered_costs()] + [costs.CallableMetric(shift)]
    found += [kind(target, POTENTIAL, 0.1) for kind in (target.kernel, kernels.GenericKernel)]
    few = POINTS[:100]
    found += [kernels.GenericKernel(target, POTENTIAL, reg)(few) for reg in (0.0, 0.1)]
    found.append(kernels.reduce(target, few, POTENTIAL, 0.1, ("colsum", "gradient")))
    found.append(sd.StoredAtoms(ATOMS))
    found += [stopping.Look(), stopping.FixedSamples(), stopping.ChiSquareRule(0.1)]
    return found + (torch_objects() if "torch" in BACKENDS else [])


def torch_objects():
    """Those of the part that needs torch."""
    import torch

    from pot_semidiscrete import generative

    images = torch.as_tensor(RNG.random((40, 8, 8)), dtype=torch.float32)
    loss, features = generative.SemiDiscreteLoss(images), generative.ImageFeatures(images)
    run = generative.train_generator(generative.mlp_generator(2, (8, 8), (4,)), 2, images, n_steps=2)
    judge = images.numpy()
    classifier = metrics.Classifier(judge, np.arange(40) % 4, n_steps=1)
    made = [generative.mlp_generator(2, (8, 8)), generative.dcgan_generator(2, (8, 8), (4, 2))]
    made.append(generative.GradientPenaltyCritic(images))
    made.append(generative.PatchLoss(images[0], patch_size=4, n_scales=2))
    found = [loss, features, run, *made, generative.random_filters(), *loss.majorants([images])]
    labels, path = torch.arange(40, device="cpu") % 2, os.path.join(tempfile.mkdtemp(), "pairs.npz")
    pairs = [generative.SemiDiscretePairs(images, labels=given) for given in (None, labels)]
    pairs[0].precompute(40, path)
    found += [*pairs, pairs[0].coupling, *(next(iter(one)) for one in pairs)]
    found += [generative.StoredPairs(path, images), generative.PlanSampler(pairs[0])]
    return [*found, classifier, metrics.Judge(judge[:20], judge[20:], classifier)]


@pytest.fixture(scope="module")
def things():
    return objects()


def test_reprs_are_short(things):
    for thing in things:
        text = repr(thing)
        assert type(thing).__name__ in text
        assert " at 0x" not in text
        assert len(text) < 700
        assert len(text.splitlines()) <= (12 if hasattr(thing, "modules") else 1)


def test_no_public_class_is_left_out(things):
    modules = [sd, applications, samplers, metrics, costs, kernels]
    if "torch" in BACKENDS:
        from pot_semidiscrete import generative

        modules.append(generative)
    public = {getattr(module, name) for module in modules for name in module.__all__}
    public |= {c for c in vars(stopping).values() if getattr(c, "__module__", "") == stopping.__name__}
    if "torch" not in BACKENDS:
        public -= {metrics.Classifier, metrics.Judge}
    classes = {c for c in public if inspect.isclass(c)} - NOT_MADE
    assert not {c for c in classes if not any(isinstance(thing, c) for thing in things)}
