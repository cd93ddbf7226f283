"""Reductions whose rows threads share: the same results, and the user's number of threads afterwards."""

import multiprocessing
import threading

import numpy as np
import pytest

from pot_semidiscrete.backend import capabilities
from pot_semidiscrete.kernels import draw_atoms, kernel_for, reduce
from pot_semidiscrete.kernels import threads as threads_module
from pot_semidiscrete.problem import Problem
from tests.backends import Backend

N_THREADS = 3
THREADED = ["numpy", "torch"]


class Threads:
    """A backend whose operations have so many threads, and a problem in float64."""

    def __init__(self, name):
        rng, self.nx = np.random.default_rng(0), Backend(name, "float64")
        atoms, self.x = (self.nx.array(rng.standard_normal((n, 3))) for n in (40, 500))
        self.target = Problem.of(atoms).target
        self.zero, self.backend = 0.0 * self.target.weights, capabilities(self.target.nx)
        self.kernel, self.before = kernel_for(self.target.nx), self.backend.n_threads()

    def use(self, n):
        """Let operations have so many."""
        self.backend.use_threads(n)
        if self.backend.n_threads() != n:
            pytest.skip("the number of threads cannot be told: install threadpoolctl")


@pytest.fixture(params=THREADED)
def case(request, monkeypatch):
    """A backend that has threads, and small blocks that are a thread's worth."""
    monkeypatch.setattr(threads_module, "CACHE", 2**12)
    found = Threads(request.param)
    yield found
    found.backend.use_threads(found.before)


@pytest.fixture
def names(case, monkeypatch):
    """Names of the threads in which kernels made blocks, and the threads of their operations."""
    found, make = set(), case.kernel.__call__

    def noted(self, *args):
        name = threading.current_thread().name.partition("_")[0]
        found.add((name, case.backend.n_threads()))
        return make(self, *args)

    monkeypatch.setattr(case.kernel, "__call__", noted)
    return found


@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_threads_find_what_one_finds(case, names, reg):
    target, nx = case.target, case.target.nx
    psi = case.nx.array(np.linspace(0.0, 0.5, 40))
    outputs = ["c_transform", "map", "gradient", "average", "linear", "colsum", "colsquare", "weights"]

    def found():
        return reduce(target, case.x, psi, reg, outputs, values=target.weights * psi)

    case.use(1)
    alone = found()
    assert names == {("MainThread", 1)}
    names.clear()
    case.use(N_THREADS)
    together = found()
    assert names == {("reduce", 1)}
    assert case.backend.n_threads() == N_THREADS
    for name in outputs:
        both = (nx.to_numpy(getattr(result, name)) for result in (together, alone))
        np.testing.assert_allclose(*both, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_threads_draw_what_one_draws(case, names, reg):
    level = case.nx.array(np.random.default_rng(1).random(len(case.x)))
    drawn = []
    for n in (1, N_THREADS):
        case.use(n)
        names.clear()
        found = draw_atoms(case.target, case.x, case.zero, reg, lambda n: level)
        drawn.append(case.target.nx.to_numpy(found))
    assert names == {("reduce", 1)}
    np.testing.assert_array_equal(*drawn)


def test_few_rows_are_not_shared(case, names, monkeypatch):
    """A block's worth has one thread; where reading the atoms is dear, operations have all threads."""
    case.use(N_THREADS)
    reduce(case.target, case.x[:10], case.zero, 0.1)
    assert names == {("MainThread", 1)}
    names.clear()
    monkeypatch.setattr(threads_module, "sharing_rows", len)
    reduce(case.target, case.x, case.zero, 0.1)
    assert names == {("MainThread", N_THREADS)}


def test_an_error_in_a_thread_is_raised(case, monkeypatch):
    case.use(N_THREADS)

    def fails(self, *args):
        raise MemoryError("no memory is left")

    monkeypatch.setattr(case.kernel, "__call__", fails)
    with pytest.raises(MemoryError, match="no memory"):
        reduce(case.target, case.x, case.zero, 0.1)
    assert case.backend.n_threads() == N_THREADS


def masses(case, queue=None):
    """Masses of atoms, on the host; with a queue, from a process of its own."""
    found = reduce(case.target, case.x, case.zero, 0.1, ["colsum"]).colsum
    found = case.target.nx.to_numpy(found)
    return found if queue is None else queue.put(found)


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="the system has no fork"
)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(case):
    case.use(N_THREADS)
    expected, context = masses(case), multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=masses, args=(case, queue))
    child.start()
    np.testing.assert_array_equal(queue.get(timeout=60), expected)
    child.join()
