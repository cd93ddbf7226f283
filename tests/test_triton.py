"""The fused kernel against dense formulas in float64; without a GPU, by Triton's interpreter."""

import importlib.util
import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import pot_semidiscrete as ps
from pot_semidiscrete.kernels import (
    SoftBlock,
    check_kernel,
    draw_atoms,
    fused,
    fused_kernel,
    kernel_for,
    known_bilinear,
    reduce,
    reduction,
    register_kernel,
    registered_kernels,
)
from pot_semidiscrete.problem import build_target
from tests.backends import cost_of, use_kernel

torch = pytest.importorskip("torch")
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="needs Triton: pip install pot_semidiscrete[triton]",
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# rows, atoms, coordinates: ragged tiles, one of each, plain sums and products, several parts
SHAPES = [(1, 1, 1), (3, 1, 2), (1, 300, 3), (70, 129, 8), (17, 700, 9), (65, 128, 65), (200, 260, 33)]


class Problem:
    """A problem in float32, and what is to be found, in float64.

    Weights differ by factors of up to 1e6; `reg` is in units of the mean cost.
    """

    def __init__(self, n, n_atoms, d, reg=0.1, metric="sqeuclidean", dtype=torch.float32, seed=0):
        rng = np.random.default_rng([seed, n, n_atoms, d])
        atoms, weights = rng.normal(size=(n_atoms, d)), 10.0 ** rng.uniform(-6.0, 0.0, n_atoms)
        array = lambda a: torch.tensor(a, dtype=dtype, device=DEVICE)
        weights = array(weights)
        self.target = build_target(array(atoms), weights / weights.sum(), metric=metric)
        self.x = self.target.center(array(rng.normal(size=(n, d))))
        self.psi, self.reg = array(0.3 * rng.normal(size=n_atoms)), 2.0 * d * reg
        wide = [array.double().cpu().numpy() for array in (self.x, self.target.atoms, self.psi)]
        (x, y, psi), b = wide, self.target.weights.double().cpu().numpy()
        cost = cost_of(metric)
        nx = build_target(y).nx
        self.cost, self.b = cost.matrix(x, y, nx), b
        scores = psi - self.cost
        if reg > 0:
            scores = scores / self.reg + np.log(b)
            top = scores.max(axis=1, keepdims=True)
            chi = np.exp(scores - top)
            total = chi.sum(axis=1, keepdims=True)
            self.chi, self.c_transform = chi / total, -self.reg * (top + np.log(total))[:, 0]
        else:
            self.chi = (scores.argmax(axis=1)[:, None] == np.arange(n_atoms)) + 0.0
            self.c_transform = -scores.max(axis=1)
        self.map = self.chi @ y
        self.colsum, self.colsquare = self.chi.sum(axis=0), (self.chi**2).sum(axis=0)
        self.linear = (self.chi * self.cost).sum(axis=1)
        # rounding of a score, of sums and of costs
        self.unit = 20.0 * float(torch.finfo(torch.float32).eps)
        self.size = 1.0 + np.abs(scores).max() if reg > 0 else 1.0

    def block(self, precision="ieee"):
        return fused_kernel(precision)(self.target, self.psi, self.reg)(self.x)

    def check(self, found, expected, factor=1.0):
        close = factor * self.unit * self.size * max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(found.double().cpu().numpy(), expected, rtol=0.0, atol=close)

    def check_block(self, block, factor=1.0):
        self.check(block.c_transform, self.c_transform, factor / self.size)
        self.check(block.colsum(), self.colsum, factor)
        self.check(block.average(self.target.atoms), self.map, factor)
        self.check(block.dense(), self.chi, factor)
        self.check(block.colsquare(), self.colsquare, factor)  # the last: torch's spends the block


@needs_triton
@pytest.mark.parametrize("reg", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_block_is_that_of_the_formula(shape, reg):
    problem = Problem(*shape, reg)
    block = problem.block()
    assert ("made" in dir(block)) == (reg > 0)  # or this is torch's own
    problem.check_block(block)
    assert block.c_transform.dtype == block.colsum().dtype == torch.float32


@needs_triton
@pytest.mark.parametrize("seed", range(4))
def test_block_of_any_shape(seed):
    rng = np.random.default_rng(seed)
    n, n_atoms, d = (int(1.0 + 2.0 ** rng.uniform(0.0, most)) for most in (7.5, 9.0, 7.0))
    problem = Problem(n, n_atoms, d, 10.0 ** rng.uniform(-2.0, 1.0), seed=seed)
    problem.check_block(problem.block())


@needs_triton
@pytest.mark.parametrize("d", [2, 20])
def test_scores_have_no_bound(d):
    """Scores of 1e6 leave roundings of 0.1: rows still have sum 1, c-transforms are those of costs."""
    problem = Problem(40, 300, d, reg=1e-6 / d)
    assert problem.size > 1e6
    block = problem.block()
    problem.check(block.c_transform, problem.c_transform, 1.0 / problem.size)
    total = float(block.colsum().sum())
    assert total == pytest.approx(40.0, rel=0.2 if DEVICE == "cuda" else 1e-5)
    assert torch.isfinite(block.average(problem.target.atoms)).all()


@needs_triton
@pytest.mark.parametrize("metric", ["sqeuclidean", "cosine"])
@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_reductions_of_all_kinds(metric, reg, monkeypatch):
    """In blocks of rows, too; nothing as large as samples by atoms is made on the way."""
    problem = Problem(90, 700, 12, reg, metric)
    target = problem.target
    use_kernel(fused_kernel(), target)
    assert known_bilinear(target, problem.x) is None
    monkeypatch.setattr(reduction, "fused_rows", lambda target, x: 50)
    with Largest() as largest:
        found = reduce(
            target,
            problem.x,
            problem.psi,
            problem.reg,
            ("c_transform", "colsum", "colsquare", "map", "gradient", "linear", "average"),
            values=problem.psi,
        )
        draw_atoms(target, problem.x, problem.psi, problem.reg, lambda n: torch.rand(n, device=DEVICE))
    assert largest.entries < 50 * 700 / 2
    for name in ("c_transform", "colsum", "colsquare", "map", "linear"):
        problem.check(getattr(found, name), getattr(problem, name), 3.0)
    problem.check(found.average, problem.chi @ problem.psi.double().cpu().numpy())
    y, x = (v.double().cpu().numpy() for v in (target.atoms, problem.x))
    block = SoftBlock(problem.chi, np.ones(90), None, build_target(y).nx)
    problem.check(found.gradient, cost_of(metric).vjp(x, y, block, block.nx), 3.0)


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """Entries of the largest tensor that is made."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, torch.Tensor):
                self.entries = max(self.entries, tensor.untyped_storage().nbytes() // 4)
        return made


@needs_triton
@pytest.mark.parametrize(
    ("n_atoms", "reg"), [(1, 0.3), (100, 0.3), (128, 0.3), (700, 0.3), (700, 1e-3), (17_000, 0.3)]
)
def test_atoms_are_drawn_by_their_weights(n_atoms, reg):
    """Where the distribution function of a row reaches a number, but for rounding."""
    problem, numbers = Problem(20, n_atoms, 2, reg), np.random.default_rng(1).random(20)
    use_kernel(fused_kernel(), problem.target)
    uniform = lambda n: torch.tensor(numbers, dtype=torch.float32, device=DEVICE)
    index = draw_atoms(problem.target, problem.x, problem.psi, problem.reg, uniform).cpu().numpy()
    below = np.cumsum(problem.chi, axis=1)
    rows, close = np.arange(20), problem.size * problem.unit
    assert (below[rows, index] >= 1.0 - numbers - close).all()
    assert ((below - problem.chi)[rows, index] <= 1.0 - numbers + close).all()
    assert (problem.chi[rows, index] > 0).all()


@needs_triton
def test_ties_go_to_the_first_atom():
    target = build_target(torch.arange(700.0, device=DEVICE)[:, None])
    potential = target.target_term.clone()
    potential[:3] -= 1.0
    block = fused_kernel()(target, potential, 0.0)(torch.zeros((2, 1), device=DEVICE))
    assert block.index.tolist() == [3, 3]


@needs_triton
@pytest.mark.parametrize("reg", [0.0, 0.2])
def test_gradients_of_the_loss(reg, monkeypatch):
    """In points and potential, through the public door."""
    from pot_semidiscrete.kernels.torch_kernel import TorchKernel

    problem = Problem(30, 140, 3, reg)
    used = fused_kernel()
    monkeypatch.setattr(TorchKernel, "suited", classmethod(lambda cls, target: used))
    y, b = problem.target.atoms, problem.target.weights
    x, psi = (v.clone().requires_grad_() for v in (problem.x, problem.psi))
    ps.semidiscrete_loss(y, x, psi, a_target=b, reg=problem.reg).backward()
    wide = lambda v: v.detach().double().cpu().numpy()
    gradient = 2.0 * (wide(x) - problem.map) / 30
    problem.check(x.grad, gradient)
    problem.check(psi.grad, wide(b) - problem.colsum / 30)


@needs_triton
def test_solver_goes_the_same_way(monkeypatch):
    from pot_semidiscrete.kernels.torch_kernel import TorchKernel

    atoms = torch.tensor(np.random.default_rng(0).normal(size=(40, 2)), dtype=torch.float32)
    options = {"reg": 0.4, "max_iter": 3, "tol": 0, "random_state": 0}
    solve = lambda: ps.solve_semidiscrete(atoms.to(DEVICE), "normal", **options)
    monkeypatch.setattr(TorchKernel, "suited", classmethod(lambda cls, target: TorchKernel))
    expected, used = solve(), fused_kernel()
    monkeypatch.setattr(TorchKernel, "suited", classmethod(lambda cls, target: used))
    found = solve()
    torch.testing.assert_close(found.potential, expected.potential, rtol=0.0, atol=1e-4)
    torch.testing.assert_close(found.ot_map(atoms.to(DEVICE)), expected.ot_map(atoms.to(DEVICE)))


@needs_triton
def test_rounded_products_are_those_of_rounded_points():
    """Of bfloat16: the formula with points and atoms so rounded; the interpreter has no tf32."""
    problem = Problem(40, 200, 50, 0.05)
    exact, rounded = problem.block(), problem.block("bf16")
    error = (rounded.dense() - exact.dense()).abs().max()  # by torch, which rounds nothing
    assert error == 0.0
    factors = problem.target.cost.factors(problem.x, problem.target.atoms, 1.0, problem.target.nx)
    scale = 1.0 / problem.reg / np.log(2.0)
    u, v = (scale * factors[0]).bfloat16().double() / scale, factors[1].bfloat16().double()
    bilinear = (u @ v.T).cpu().numpy()
    x, y = (a.double().cpu().numpy() for a in (problem.x, problem.target.atoms))
    cost = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - bilinear
    scores = (problem.psi.double().cpu().numpy() - cost) / problem.reg + np.log(problem.b)
    chi = np.exp(scores - scores.max(axis=1, keepdims=True))
    total = chi.sum(axis=1)
    problem.check(rounded.colsum(), (chi / total[:, None]).sum(axis=0))
    problem.check(rounded.average(problem.target.atoms), chi @ y / total[:, None])
    assert np.abs(rounded.colsum().double().cpu().numpy() - problem.colsum).max() > 1e-3
    if DEVICE == "cpu":
        for precision in ("tf32x3", "tf32"):
            problem.check_block(problem.block(precision))


@needs_triton
def test_what_is_not_fused_goes_by_torch():
    for problem in (Problem(9, 20, 3, dtype=torch.float64), Problem(9, 20, 3, metric="euclidean")):
        block = problem.block()
        assert not hasattr(block, "tiles")
        problem.check_block(block)
    problem = Problem(9, 20, 3)
    kernel = fused_kernel()(problem.target, problem.psi, problem.reg)
    bilinear = problem.target.cost.bilinear(problem.x, problem.target.atoms, 1.0, problem.target.nx)
    assert not hasattr(kernel(problem.x, bilinear), "tiles")
    check_kernel(fused_kernel(), problem.target, problem.x, problem.psi, problem.reg)


class OnGPU:
    """Atoms that say that they are on a GPU."""

    is_cuda, device, dtype = True, "cuda:0", torch.float32

    def __init__(self, d):
        self.d = d

    def __getitem__(self, rows):
        return torch.ones(1, self.d)


@needs_triton
def test_who_gets_it():
    from pot_semidiscrete.kernels.torch_kernel import TorchKernel
    from pot_semidiscrete.kernels.triton_kernel import TritonKernel

    class Mine(type(cost_of("sqeuclidean"))):
        pass

    nx = build_target(torch.eye(2)).nx
    on_gpu = lambda d, cost: SimpleNamespace(atoms=OnGPU(d), cost=cost, nx=nx, is_stored=False)
    square, always = cost_of("sqeuclidean"), fused_kernel("tf32")
    for d, cost, usual, registered in (
        (64, square, TritonKernel, always),
        (65, square, TorchKernel, always),
        (2, cost_of("cosine"), TritonKernel, always),
        (2, cost_of("euclidean"), TorchKernel, TorchKernel),
        (2, Mine(), TorchKernel, TorchKernel),
    ):
        target = on_gpu(d, cost)
        assert TorchKernel.suited(target) is usual
        assert always.suited(target) is registered
    stored = on_gpu(2, square)
    stored.is_stored = True
    assert TorchKernel.suited(stored) is always.suited(stored) is TorchKernel
    double = on_gpu(2, square)
    double.atoms.dtype = torch.float64
    assert TorchKernel.suited(double) is TorchKernel
    for dtype in (torch.float32, torch.float64):
        assert build_target(torch.eye(2, dtype=dtype)).kernel is TorchKernel
    assert always is fused_kernel("tf32")
    usual = registered_kernels()["torch"]
    register_kernel("torch", always)
    try:
        assert kernel_for(build_target(torch.eye(2)).nx) is always
        assert build_target(torch.eye(2)).kernel is TorchKernel
    finally:
        register_kernel("torch", usual)


def test_without_triton_torch_goes_on_and_says_so_once(monkeypatch, caplog):
    from pot_semidiscrete.kernels.torch_kernel import TorchKernel

    monkeypatch.setitem(sys.modules, "pot_semidiscrete.kernels.triton_kernel", None)
    fused.known_fused_kernel.cache_clear()
    try:
        target = SimpleNamespace(atoms=OnGPU(2), cost=cost_of("sqeuclidean"), is_stored=False)
        with caplog.at_level(logging.INFO, logger="pot_semidiscrete"):
            assert [TorchKernel.suited(target) for _ in range(2)] == [TorchKernel] * 2
        assert [record.name for record in caplog.records] == ["pot_semidiscrete"]
        assert "Triton is not installed" in caplog.text
        with pytest.raises(ImportError, match="expected Triton, which is not installed; run pip"):
            fused_kernel()
    finally:
        fused.known_fused_kernel.cache_clear()


@pytest.mark.parametrize("precision", [3, None, ["tf32"], "TF32"])
def test_unknown_precision_is_refused(precision):
    with pytest.raises(
        ValueError, match=r"^precision: expected one of 'ieee', 'tf32x3', 'tf32', 'bf16', "
    ):
        fused_kernel(precision)


COMPILE = """
import sys

import torch

import pot_semidiscrete as ps

ps.semidiscrete_c_transform(torch.eye(2), torch.eye(2), torch.zeros(2), reg=0.1)
assert "triton" not in sys.modules, "nobody waits for it on the host"

from types import SimpleNamespace

from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from pot_semidiscrete.kernels.triton_kernel import FusedScores

gpu = SimpleNamespace(
    get_current_target=lambda: GPUTarget("cuda", 90, 32),
    get_current_device=lambda: 0,
    get_current_stream=lambda device=None: 0,
)
driver.set_active(gpu)


def launch(tiles, program, grid, *arguments, **constants):
    arguments = (tiles.u, tiles.v, tiles.bias, *arguments)
    made = program.warmup(*arguments, grid=grid, **constants, **tiles.options)
    assert made.asm["cubin"] and made.metadata.shared <= 99 * 2**10, program


FusedScores.launch = launch
x, atoms, row, first = torch.ones(9, 33), torch.ones(300, 33), torch.ones(9), torch.zeros(9).long()
tiles = FusedScores(x, atoms, torch.zeros(300), "ieee")
tiles.row_sums()
tiles.row_argmax()
tiles.column_sums(row, row, square=True)
tiles.row_averages(row, row, atoms)
tiles.group_weights(first, 128, row)
FusedScores(x[:, :2], atoms[:, :2], torch.zeros(300), "ieee").row_sums()
FusedScores(x, atoms, torch.zeros(300), "bf16").row_averages(row, row, atoms)
"""


@needs_triton
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Triton compiles on Linux")
def test_programs_compile_for_a_gpu(tmp_path):
    """The interpreter takes what the compiler refuses. All but the launch itself: this needs no GPU."""
    states = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    states |= {"TRITON_CACHE_DIR": str(tmp_path)}
    run = subprocess.run([sys.executable, "-c", COMPILE], env=states, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
