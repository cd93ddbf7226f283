"""Reductions whose rows threads share: the same results, and the user's number of threads afterwards."""

import multiprocessing
import threading

import numpy as np
import pytest
import torch

from pot_semidiscrete.kernels import draw_atoms, reduce
from pot_semidiscrete.kernels import threads as threads_module
from pot_semidiscrete.kernels.torch_kernel import TorchKernel
from pot_semidiscrete.problem import Problem

N_THREADS = 3


@pytest.fixture
def use_threads(monkeypatch):
    """Set torch's number of threads, and let small blocks be a thread's worth."""
    before = torch.get_num_threads()
    monkeypatch.setattr(threads_module, "CACHE", 2**12)
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def names(monkeypatch):
    """Names of the threads in which kernels made blocks, and the threads of their operations."""
    found, make = set(), TorchKernel.__call__

    def noted(self, *args):
        found.add((threading.current_thread().name.partition("_")[0], torch.get_num_threads()))
        return make(self, *args)

    monkeypatch.setattr(TorchKernel, "__call__", noted)
    return found


def problem(dtype=torch.float64, n_atoms=40, d=3):
    """A target, and points."""
    generator = torch.Generator().manual_seed(0)
    atoms, x = (torch.randn(n, d, generator=generator, dtype=dtype) for n in (n_atoms, 500))
    return Problem.of(atoms).target, x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_threads_find_what_one_finds(use_threads, names, reg, dtype):
    target, x = problem(dtype)
    psi, values = target.weights.cumsum(0), target.weights.sqrt()
    outputs = ["c_transform", "map", "gradient", "average", "linear", "colsum", "colsquare", "weights"]

    def found():
        return reduce(target, x, psi, reg, outputs, values=values)

    use_threads(1)
    alone = found()
    assert names == {("MainThread", 1)}
    names.clear()
    use_threads(N_THREADS)
    together = found()
    assert names == {("reduce", 1)}
    assert torch.get_num_threads() == N_THREADS
    for name in outputs:
        torch.testing.assert_close(getattr(together, name), getattr(alone, name))


@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_threads_draw_what_one_draws(use_threads, reg):
    target, x = problem()
    level = torch.rand(len(x), generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    drawn = []
    for n in (1, N_THREADS):
        use_threads(n)
        drawn.append(draw_atoms(target, x, 0.0 * target.weights, reg, lambda n: level))
    torch.testing.assert_close(*drawn)


def test_few_rows_are_not_shared(use_threads, names, monkeypatch):
    """A block's worth has one thread; where reading the atoms is dear, operations have all threads."""
    target, x = problem()
    use_threads(N_THREADS)
    reduce(target, x[:10], 0.0 * target.weights, 0.1)
    assert names == {("MainThread", 1)}
    names.clear()
    monkeypatch.setattr(threads_module, "sharing_rows", len)
    reduce(target, x, 0.0 * target.weights, 0.1)
    assert names == {("MainThread", N_THREADS)}


def test_an_error_in_a_thread_is_raised(use_threads, monkeypatch):
    target, x = problem()
    use_threads(N_THREADS)

    def fails(self, *args):
        raise MemoryError("no memory is left")

    monkeypatch.setattr(TorchKernel, "__call__", fails)
    with pytest.raises(MemoryError, match="no memory"):
        reduce(target, x, 0.0 * target.weights, 0.1)
    assert torch.get_num_threads() == N_THREADS


def masses(queue=None):
    """Masses of atoms, on the host; with a queue, from a process of its own."""
    target, x = problem()
    found = reduce(target, x, 0.0 * target.weights, 0.1, ["colsum"]).colsum.numpy()
    return found if queue is None else queue.put(found)


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="the system has no fork"
)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(use_threads):
    use_threads(N_THREADS)
    expected, context = masses(), multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=masses, args=(queue,))
    child.start()
    np.testing.assert_array_equal(queue.get(timeout=60), expected)
    child.join()
