"""What only a GPU shows: the torch layers there, files of it, memory."""

import copy

import numpy as np
import pytest

import pot_semidiscrete as ps
from pot_semidiscrete.kernels import draw_atoms, fused, reduce, registered_kernels
from pot_semidiscrete.metrics import covariance_ratio
from pot_semidiscrete.problem import build_target
from tests.backends import use_kernel

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

from pot_semidiscrete.generative import (  # noqa: E402
    ImageFeatures,
    SemiDiscreteLoss,
    dcgan_generator,
    mlp_generator,
    train_generator,
)

pytestmark = pytest.mark.usefixtures("torch_seed")
SHAPE = (8, 8)


def blobs(n, seed=0):
    """Images of one bright spot each, on the GPU."""
    random = torch.Generator().manual_seed(seed)
    place = 2.0 + 4.0 * torch.rand(n, 2, 1, generator=random)
    x, y = torch.exp(-((torch.arange(8.0) - place) ** 2)).unbind(dim=1)
    return (y[:, :, None] * x[:, None, :]).cuda()


def perceptron():
    """A small generator of such images."""
    return mlp_generator(8, SHAPE, widths=(64,)).cuda()


def spread(result):
    """Share of the covariance of the data: 0 of one image, however good."""
    with torch.no_grad():
        x = result.generator(torch.randn(500, 8).cuda())
    return covariance_ratio(x.float().cpu().numpy(), blobs(500).cpu().numpy())


def train(generator, target=None, **options):
    """A short run, to the blobs unless told."""
    options = {"n_steps": 200, "batch_size": 100, "random_state": 0} | options
    return train_generator(generator, 8, blobs(500) if target is None else target, **options)


OPTIONS = {
    "rounds": {},
    "steps": {"reuse": 1},
    "features": {"features": "images"},
    "reg 0": {"reg": 0.0},
    "debiased": {"debias": True},
    "network": {"potential": "network"},
}


@pytest.mark.filterwarnings("ignore:train_generator, reg = 0")
@pytest.mark.parametrize("kind", OPTIONS)
def test_generator_trains(kind):
    images, options = blobs(500), dict(OPTIONS[kind])
    if "features" in options:
        options["features"] = ImageFeatures(images)
    target = images
    if kind == "debiased":
        target = SemiDiscreteLoss(images, **options)
    if kind == "network":
        module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 1)).cuda()
        target = SemiDiscreteLoss(images, potential=module)
    result = train(perceptron(), target, **({} if isinstance(target, SemiDiscreteLoss) else options))
    assert result.status == "finished"
    assert result.loss.potential.is_cuda
    assert spread(result) > 0.4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_generator_trains_in_mixed_precision(dtype):
    with torch.autocast("cuda", dtype=dtype):
        result = train(perceptron())
    assert result.status == "finished"
    assert result.loss.potential.dtype == torch.float32
    assert spread(result) > 0.4


def test_autocast_changes_nothing():
    loss, x = SemiDiscreteLoss(blobs(200)), blobs(50, seed=1)
    loss.follow(x)
    plain = loss(x)
    with torch.autocast("cuda", dtype=torch.float16):
        torch.testing.assert_close(loss(x), plain, rtol=0, atol=0)
        before, shift = loss.potential.clone(), x.mean(dim=0)
        loss.translate(shift)
        loss.translate(-shift)
    torch.testing.assert_close(loss.potential, before, rtol=0, atol=1e-4)


def test_compiled_generator_trains_as_itself():
    module = perceptron()
    plain, compiled = copy.deepcopy(module), torch.compile(module)
    losses = [train(generator, n_steps=20).history["loss"] for generator in (plain, compiled)]
    np.testing.assert_allclose(*losses, rtol=1e-3)


def test_batch_normalisation_trains():
    result = train(dcgan_generator(8, SHAPE, channels=(32, 16)).cuda())
    assert spread(result) > 0.4


def test_interrupted_run_continues(tmp_path):
    """And its file can be read where there is no GPU."""
    whole = train(perceptron(), n_steps=60)
    torch.manual_seed(0)
    path = tmp_path / "run.pt"
    stop = lambda state: state.n_steps == 37
    train(perceptron(), n_steps=60, checkpoint=path, checkpoint_every=10, callback=stop)
    torch.manual_seed(5)
    result = train(perceptron(), n_steps=60, checkpoint=path, checkpoint_every=10)
    np.testing.assert_allclose(result.history["loss"], whole.history["loss"], rtol=1e-3)
    state = torch.load(path, weights_only=True, map_location="cpu")
    here = mlp_generator(8, SHAPE, widths=(64,))
    here.load_state_dict(state["run"]["generator"])
    z = torch.randn(5, 8)
    torch.testing.assert_close(here(z), result.generator(z.cuda()).cpu(), rtol=1e-3, atol=1e-4)


def test_result_is_read_where_there_is_no_gpu(tmp_path):
    atoms, x = blobs(200).flatten(1), blobs(30, seed=1).flatten(1)
    result = ps.solve_semidiscrete(atoms, x, reg=0.5, max_iter=50, tol=0)
    result.save(tmp_path / "result")
    read = ps.SemiDiscreteResult.load(tmp_path / "result", atoms.cpu())
    np.testing.assert_allclose(np.asarray(read.potential), result.potential.cpu())
    again = ps.solve_semidiscrete(atoms, x, reg=0.5, max_iter=1, tol=0, init_potential=result.potential)
    assert again.potential.is_cuda


def test_memory_is_that_of_blocks():
    """20,000 points and 30,000 atoms: the plan would have 2.4 GB."""
    random = torch.Generator("cuda").manual_seed(0)
    atoms = torch.randn(30_000, 16, generator=random, device="cuda")
    sampler = lambda n: torch.randn(n, 16, generator=random, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    start = torch.cuda.memory_allocated()
    result = ps.solve_semidiscrete(atoms, sampler, reg=1.0, max_iter=40, batch_size=512, tol=0)
    x = sampler(20_000)
    ps.semidiscrete_loss(atoms, x, result.potential, reg=1.0)
    result.ot_map(x)
    result.diagnose(x[:2000])
    assert torch.cuda.max_memory_allocated() - start < 1.5e9


KERNELS = ["torch", *["fused"] * (fused.known_fused_kernel() is not None)]
OUTPUTS = ("c_transform", "colsum", "colsquare", "map", "gradient", "linear")


def problem(kernel, n, n_atoms, d):
    """A target with that kernel, points and a potential."""
    random = torch.Generator("cuda").manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=random, device="cuda")
    target = build_target(normal(n_atoms, d))
    if kernel == "fused":
        assert target.kernel is fused.known_fused_kernel()
    else:
        use_kernel(registered_kernels()["torch"](), target)
    return target, normal(n, d), 0.1 * normal(n_atoms)


@pytest.mark.parametrize("reg", [0.0, 0.5])
@pytest.mark.parametrize("kernel", KERNELS)
def test_reductions_do_not_wait_for_the_gpu(kernel, reg):
    target, x, psi = problem(kernel, 500, 3000, 3)
    uniform = lambda n: torch.rand(n, device="cuda")

    def call():
        return reduce(target, x, psi, reg, OUTPUTS), draw_atoms(target, x, psi, reg, uniform)

    call()  # programs are compiled
    torch.cuda.set_sync_debug_mode("error")
    try:
        found, index = call()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert float(found.colsum.sum()) == pytest.approx(500.0, rel=1e-4)
    assert 0 <= int(index.min()) <= int(index.max()) < 3000


@pytest.mark.skipif("fused" not in KERNELS, reason="needs Triton")
@pytest.mark.parametrize("reg", [0.0, 0.5])
def test_fused_reductions_hold_no_block(reg):
    """40,000 points and 50,000 atoms: a block of all has 8 GB, one of torch's kernel 0.27."""
    target, x, psi = problem("fused", 40_000, 50_000, 4)
    uniform = lambda n: torch.rand(n, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    start = torch.cuda.memory_allocated()
    reduce(target, x, psi, reg, OUTPUTS)
    assert torch.cuda.max_memory_allocated() - start < 5e7
    draw_atoms(target, x, psi, reg, uniform)
    assert torch.cuda.max_memory_allocated() - start < 1e9


@pytest.mark.parametrize("kernel", KERNELS)
def test_atoms_are_drawn_by_their_weights(kernel):
    """Masses of far more than 1: cumulative sums are of whole numbers."""
    target, x, psi = problem(kernel, 1, 300, 2)
    rows, reg = x.expand(200_000, 2).contiguous(), 50.0
    uniform = lambda n: (torch.arange(n, device="cuda") + 0.5) / n
    index = draw_atoms(target, rows, psi, reg, uniform)
    share = torch.bincount(index, minlength=300) / 200_000
    expected = reduce(target, x, psi, reg, ("colsum",)).colsum
    torch.testing.assert_close(share, expected, rtol=0.0, atol=2e-5)
