"""How runs behave: seeds, stopping, interruption, failure, warnings, progress, imports."""

import contextlib
import dataclasses
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

import pot_semidiscrete as sd
from pot_semidiscrete import SemiDiscreteWarning, solve_semidiscrete, train_parameters
from pot_semidiscrete.backend import uninterrupted
from pot_semidiscrete.runs import Progress
from tests.backends import Backend, global_states, needs_torch

ATOMS = np.random.default_rng(1).normal(size=(6, 2))


def normal(n):
    """Normal points, the same for each n."""
    return np.random.default_rng(n).normal(size=(n, 2))


# The runs of the package, in small: each takes a sampler of NumPy points and a callback.


def solve(sampler=normal, callback=None, **options):
    """`solve_semidiscrete`."""
    options = {"reg": 0.2, "tol": 0, "max_iter": 20, "batch_size": 32} | options
    return solve_semidiscrete(ATOMS, sampler, callback=callback, **options)


def parameters(sampler=normal, callback=None, **options):
    """`train_parameters`."""
    options = {"reg": 0.2, "n_steps": 20, "batch_size": 32} | options
    return train_parameters(
        lambda theta, z: z + theta,
        np.zeros(2),
        sampler,
        ATOMS,
        vjp=lambda theta, z, cotangent: cotangent.sum(axis=0),
        callback=callback,
        **options,
    )


def generator(sampler=normal, callback=None, **options):
    """`train_generator`."""
    import torch

    from pot_semidiscrete.generative import train_generator

    return train_generator(
        torch.nn.Linear(2, 2).double(),
        lambda n: torch.as_tensor(sampler(n)),
        torch.as_tensor(ATOMS),
        callback=callback,
        **{"reg": 0.2, "n_steps": 20, "batch_size": 32} | options,
    )


def fit(sampler=normal, callback=None, **options):
    """`SemiDiscreteLoss.fit`."""
    import torch

    from pot_semidiscrete.generative import SemiDiscreteLoss

    loss = SemiDiscreteLoss(torch.as_tensor(ATOMS), reg=0.2)
    options = {"tol": 0, "max_iter": 20, "batch_size": 32} | options
    return loss.fit(lambda n: torch.as_tensor(sampler(n)), callback=callback, **options)


RUNS = [
    solve,
    parameters,
    pytest.param(generator, marks=needs_torch),
    pytest.param(fit, marks=needs_torch),
]
each_run = pytest.mark.parametrize("run", RUNS)


def after(n, action, then=normal):
    """A callable that acts as `then` n times, and raises `action` after."""
    left = iter(range(n))

    def function(*args):
        if next(left, None) is None:
            raise action
        return then(*args)

    return function


# Randomness.

SEEDS = {
    "int": lambda seed: seed,
    "numpy-int": np.int64,
    "Generator": np.random.default_rng,
    "RandomState": np.random.RandomState,
    "PCG64": lambda seed: np.random.Generator(np.random.PCG64(seed)),
}


def seeded(nx, random_state, source="normal"):
    """The potential of a short run."""
    result = solve_semidiscrete(
        nx.array(ATOMS), source, reg=0.2, tol=0, max_iter=3, random_state=random_state
    )
    return nx.host(result.potential)


@pytest.mark.parametrize("kind", SEEDS)
def test_same_seed_same_result(kind, nx64):
    first = seeded(nx64, SEEDS[kind](3))
    np.testing.assert_array_equal(seeded(nx64, SEEDS[kind](3)), first)
    assert (seeded(nx64, SEEDS[kind](4)) != first).any()


def test_same_seed_same_result_bit_for_bit_in_every_dtype(nx):
    np.testing.assert_array_equal(seeded(nx, 3), seeded(nx, 3))


@pytest.mark.parametrize("source", ["unif", "unif_cube", "ball", "unif_ball", "normal", "array"])
def test_same_seed_same_result_for_every_source(source, nx64):
    source = nx64.array(normal(40)) if source == "array" else source
    np.testing.assert_array_equal(seeded(nx64, 3, source), seeded(nx64, 3, source))


def test_no_seed_is_a_new_one(nx64):
    assert (seeded(nx64, None) != seeded(nx64, None)).any()


@pytest.mark.parametrize("kind", ["Generator", "RandomState"])
def test_a_generator_is_advanced(kind, nx64):
    random_state = SEEDS[kind](0)
    assert (seeded(nx64, random_state) != seeded(nx64, random_state)).any()


@needs_torch
def test_torch_generator_is_accepted_and_advanced():
    import torch

    nx = Backend("torch", "float64")
    random_state = torch.Generator().manual_seed(0)
    first, second = seeded(nx, random_state), seeded(nx, random_state)
    assert (first != second).any()
    np.testing.assert_array_equal(seeded(nx, torch.Generator().manual_seed(0)), first)


@pytest.mark.parametrize("random_state", [None, 0], ids=["None", "int"])
def test_global_generators_are_left_alone(random_state, nx64):
    before = global_states()
    result = solve_semidiscrete(
        nx64.array(ATOMS), "ball", reg=0.2, tol=0, max_iter=3, random_state=random_state
    )
    seeded(nx64, random_state, nx64.array(normal(40)))
    if random_state is not None or nx64.name != "torch":  # see test_pairs_follow_torch
        result.pair(nx64.array(normal(9)), random_state=random_state)
    assert global_states() == before


@needs_torch
def test_global_generators_are_left_alone_by_torch_layers():
    import torch

    from pot_semidiscrete.generative import SemiDiscreteLoss, train_generator

    module = torch.nn.Linear(2, 2).double()
    before = global_states()
    loss = SemiDiscreteLoss(torch.as_tensor(ATOMS))
    x = torch.as_tensor(normal(32)).requires_grad_()
    loss.dual_step(x)
    loss(x).backward()
    loss.fit(lambda n: torch.as_tensor(normal(n)), tol=0, max_iter=3)
    for random_state in (None, 0):
        train_generator(module, 2, loss, n_steps=3, random_state=random_state)
    assert global_states() == before


# Stopping.


@pytest.mark.parametrize("max_iter", [1, 7])
@pytest.mark.parametrize("reg", [0.0, 0.2])
def test_no_tolerance_runs_to_the_end(max_iter, reg):
    """The source needs no potential at all here: any test of convergence would stop the run."""
    seen = []
    result = solve_semidiscrete(
        ATOMS[:1], normal, reg=reg, tol=0, max_iter=max_iter, callback=lambda s: seen.append(s.n_iter)
    )
    assert seen == list(range(1, max_iter + 1))
    assert (result.n_iter, result.status, result.converged) == (max_iter, "max_iter", False)


def test_callback_sees_the_state():
    states = []
    result = solve(callback=states.append, max_iter=50, max_memory=0)
    assert all(type(state) is sd.SolverState for state in states)
    assert [state.n_iter for state in states] == list(range(1, 51))
    assert [state.n_samples for state in states] == list(range(32, 32 * 51, 32))
    levels = [state.reg for state in states]
    assert levels == sorted(levels, reverse=True)
    assert levels[-1] == 0.2
    assert np.isnan(states[0].chi2)
    np.testing.assert_array_equal(states[-1].potential, result.potential)
    with pytest.raises(dataclasses.FrozenInstanceError):
        states[0].n_iter = 3


def test_callback_sees_the_last_check():
    states, rng = [], np.random.default_rng(2)
    sampler = lambda n: rng.normal(size=(n, 2))
    result = solve(sampler, states.append, reg=0.0, tol=0.05, max_iter=3000)
    checks = dict(zip(result.log["check_n_iter"], result.log["check_chi2"], strict=True))
    assert len(checks) > 2  # one failed, and what was corrected, too
    expected, found = np.nan, []
    for state in states:
        found.append(state.chi2)
        np.testing.assert_equal(state.chi2, expected)
        expected = checks.get(state.n_iter, expected)
    assert np.isfinite(found[-1])


@each_run
@pytest.mark.parametrize("answer", [0.3, 1, "go on", np.ones(2), [True]], ids=str)
def test_callback_that_returns_no_truth_value_is_refused(run, answer):
    """A loss, say, which is true as a rule: the run would end at its first step."""
    with pytest.raises(TypeError, match=r"callback: expected a return of True.* received .*; return"):
        run(callback=lambda *args: answer)


@each_run
def test_callback_stops(run):
    calls = []

    def callback(*args):
        calls.append(args)
        return len(calls) == 3

    assert run(callback=callback).status == "stopped"
    assert len(calls) == 3


@each_run
@pytest.mark.parametrize("answer", [None, False])
def test_callback_goes_on(run, answer):
    calls = []
    result = run(callback=lambda *args: calls.append(args) or answer)
    assert result.status in ("max_iter", "finished")
    assert len(calls) == 20


# Ctrl-C and exceptions.


def losses(result):
    """History of the values: one for each step taken."""
    return result.log["value"] if hasattr(result, "log") else result.history["loss"]


@each_run
@pytest.mark.parametrize("calls", [0, 1, 2, 20, 51])
def test_outermost_run_returns_a_result_when_the_sampler_is_interrupted(run, calls):
    """Wherever that happens: at the start, in a warm-up, in a step, or in an evaluation."""
    result = run(sampler=after(calls, KeyboardInterrupt()))
    assert result.status == "interrupted"
    assert np.isfinite(losses(result)).all()


@each_run
def test_outermost_run_returns_what_was_reached_when_the_callback_is_interrupted(run):
    result = run(callback=after(3, KeyboardInterrupt(), then=lambda *args: None))
    assert result.status == "interrupted"
    assert len(losses(result)) == 4


def test_interrupted_solver_keeps_its_potential():
    potentials = []
    result = solve(
        callback=lambda state: potentials.append(state.potential), sampler=after(10, KeyboardInterrupt())
    )
    assert (result.n_iter, result.converged) == (10, False)
    np.testing.assert_array_equal(result.potential, potentials[-1])
    assert np.abs(result.potential).max() > 0


def test_interruption_before_the_first_batch():
    result = solve(sampler=after(0, KeyboardInterrupt()))
    assert (result.status, result.n_iter, result.n_samples) == ("interrupted", 0, 0)
    np.testing.assert_array_equal(result.potential, np.zeros(6))


def test_interruption_of_the_last_evaluation_keeps_the_run():
    result = solve(sampler=after(20, KeyboardInterrupt()))
    assert (result.status, result.n_iter) == ("interrupted", 20)
    assert np.abs(result.potential).max() > 0


@pytest.mark.filterwarnings("ignore:solve_semidiscrete ended")
def test_estimates_of_a_run_are_of_its_potential_wherever_it_is_interrupted():
    """In a warm start, a step, Newton's method and looks at the same 32 points again and again."""
    points, start, found = normal(32), solve(max_iter=40).potential, []

    def interrupted(n_calls):
        costs = after(n_calls, KeyboardInterrupt(), lambda x, y: ((x[:, None] - y) ** 2).sum(axis=2))
        options = {"metric": costs, "tol": 1e-3, "tol_value": 1e-6, "init_potential": start}
        return solve(lambda n: points, **options)

    for n_calls in itertools.count(2, 4):  # how many there are depends on rounding
        result = interrupted(n_calls)
        if result.status != "interrupted":
            break
        if result.marginal_b is None:
            assert result.value is None
        else:
            scores = (result.potential - ((points[:, None] - ATOMS) ** 2).sum(axis=2)) / 0.2
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            masses = (weights / weights.sum(axis=1, keepdims=True)).mean(axis=0)
            np.testing.assert_allclose(result.marginal_b, masses)
        found.append(result.value is None)
    assert {True, False} == set(found)
    assert len(found) > 20


@each_run
@pytest.mark.parametrize("where", ["sampler", "callback"])
@pytest.mark.parametrize("inner", [solve, parameters])
def test_inner_run_passes_interruption_on(run, where, inner):
    returned = []

    def nest(*args):
        inner(sampler=after(2, KeyboardInterrupt()))
        returned.append("inner")

    result = run(**{where: nest})
    assert result.status == "interrupted"
    assert returned == []


@each_run
def test_inner_run_that_ends_well_disturbs_nobody(run):
    inner = []

    def callback(*args):
        inner.append(solve(max_iter=1).status)

    assert run(callback=callback).status in ("max_iter", "finished")
    assert inner == ["max_iter"] * 20


@each_run
def test_run_after_a_nested_failure_is_outermost_again(run):
    with pytest.raises(OSError, match="disk"):
        solve(callback=lambda state: run(sampler=after(2, OSError("the disk is gone"))))
    assert run(sampler=after(2, KeyboardInterrupt())).status == "interrupted"


@each_run
@pytest.mark.parametrize("where", ["sampler", "callback"])
def test_exception_carries_what_was_reached(run, where):
    error = OSError("the disk is gone")
    with pytest.raises(OSError, match="disk") as caught:
        run(**{where: after(2, error, then=normal if where == "sampler" else lambda *args: None)})
    assert caught.value is error
    partial = error.partial_result
    assert partial.status == "failed"
    if where == "callback":
        assert len(losses(partial)) == 3


def test_bad_batch_carries_what_was_reached():
    rows = iter([32] * 5 + [33])
    with pytest.raises(ValueError, match="sampler_source") as caught:
        solve(sampler=lambda n: normal(next(rows)))
    assert caught.value.partial_result.n_iter == 5


# Warnings.


def test_warning_says_how_far_and_what_to_change():
    with pytest.warns(SemiDiscreteWarning) as caught:
        result = solve(tol=1e-6, max_iter=20)
    (warning,) = caught
    text = str(warning.message)
    assert warning.filename == __file__
    reached = float(re.search(r"up to ([\d.e-]+)", text)[1])
    bound = max(result.chi2, 0.0) + 1.645 * result.chi2_stderr
    np.testing.assert_allclose(reached, bound**0.5, rtol=0.01)
    for word in ("1e-06", "more source points", "max_iter", "batch_size", "reg", "tol"):
        assert word in text
    assert not result.converged


def test_warning_of_an_interruption_has_a_number_or_none():
    with pytest.warns(SemiDiscreteWarning, match="interrupted") as caught:
        solve(sampler=after(3, KeyboardInterrupt()), tol=0.1)
    assert "nan" not in str(caught[0].message)


@pytest.mark.parametrize(
    "options",
    [{"tol": 0.5, "max_iter": 2000}, {"tol": 0}, {"tol": 0.1, "callback": lambda state: True}],
    ids=["converged", "tol=0", "stopped"],
)
def test_no_warning_without_a_cause(options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(**options)


def test_warning_as_error_is_raised():
    with warnings.catch_warnings():
        warnings.simplefilter("error", SemiDiscreteWarning)
        with pytest.raises(SemiDiscreteWarning):
            solve(tol=1e-6)


# Progress.


@each_run
def test_silence_is_the_default(run, capfd):
    run()
    assert capfd.readouterr() == ("", "")


@each_run
@pytest.mark.parametrize("tqdm", ["with", "without"])
def test_verbose_prints_lines_off_a_terminal(run, tqdm, capsys, monkeypatch):
    if tqdm == "without":
        monkeypatch.setitem(sys.modules, "tqdm", None)
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    run(verbose=True)
    out = capsys.readouterr().out
    assert "20/20" in out
    assert 5 <= len(out.splitlines()) <= 20


@each_run
@pytest.mark.parametrize("tqdm", ["with", "without"])
def test_verbose_shows_a_bar_on_a_terminal(run, tqdm, capsys, monkeypatch):
    if tqdm == "without":
        monkeypatch.setitem(sys.modules, "tqdm", None)
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    else:
        pytest.importorskip("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run(verbose=True)
    out, err = capsys.readouterr()
    assert "20/20" in (out if tqdm == "without" else err)
    assert not (err if tqdm == "without" else out)


def test_verbose_says_something_of_a_short_run(capsys):
    """One that converges long before `max_iter`."""
    result = solve(tol=0.5, max_iter=100_000, verbose=True)
    assert result.converged
    assert f"{result.n_iter}" in "".join(capsys.readouterr())


def test_an_estimate_that_is_past_is_not_shown(capsys):
    """More samples were taken than were needed, as was thought."""
    bar = Progress(True, 2, "run")
    for needed in (20.0, 10.0):
        bar.update(lambda needed=needed: {"samples": 15.0, "samples needed": needed})
    first, second = capsys.readouterr().out.splitlines()
    assert "samples needed 20, seconds left" in first
    assert second == "run: 2/2 samples 15"


def test_long_run_tells_what_it_needs(caplog, monkeypatch):
    """Samples within a factor of 2 of those that it took, and seconds, by a clock of one a batch."""
    clock = iter(range(10**6))
    monkeypatch.setattr("pot_semidiscrete.runs.progress.time.monotonic", lambda: float(next(clock)))
    with caplog.at_level("INFO", logger="pot_semidiscrete"):
        result = solve(tol=0.05, max_iter=10_000, random_state=0, sampler="normal")
    pattern = r"(\d+)/10000 .*samples needed ([\d.e+]+), seconds left ([\d.]+)"
    told = [re.search(pattern, record.getMessage()) for record in caplog.records]
    told = [tuple(map(float, found.groups())) for found in told if found]
    assert result.converged
    assert 2 <= len(told) <= 1.0 + np.log2(result.n_iter)
    for n_iter, needed, seconds in told:
        assert result.n_samples / 2 < needed < 2 * result.n_samples
        assert seconds == pytest.approx(needed / 32 - n_iter, rel=0.2, abs=3.0)


@each_run
def test_long_run_is_silent_without_a_listener(run, capfd, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr("pot_semidiscrete.runs.progress.time.monotonic", lambda: float(next(clock)))
    run()
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("capsys")
@pytest.mark.parametrize(
    "end", [KeyboardInterrupt(), OSError("the disk is gone")], ids=["Ctrl-C", "error"]
)
def test_bar_is_closed_at_any_end(end, monkeypatch):
    tqdm = pytest.importorskip("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with contextlib.suppress(OSError):
        solve(sampler=after(5, end), verbose=True)
    assert not list(getattr(tqdm.tqdm, "_instances", []))


# A torch generator as the source.


@needs_torch
@pytest.mark.parametrize("reg", [0.0, 0.2])
def test_source_with_parameters_leaks_no_graph(reg):
    import torch

    module = torch.nn.Linear(2, 2).double()
    modes = []

    def sampler(n):
        modes.append(torch.is_grad_enabled())
        return module(torch.as_tensor(normal(n)))

    atoms = torch.as_tensor(ATOMS).requires_grad_()
    states = []
    result = solve_semidiscrete(atoms, sampler, reg=reg, tol=0, max_iter=5, callback=states.append)
    assert modes
    assert not any(modes)
    for name in ("potential", "value", "value_linear", "marginal_b"):
        assert not getattr(result, name).requires_grad, name
        assert getattr(result, name).grad_fn is None, name
    assert not states[-1].potential.requires_grad
    assert all(p.grad is None and p.requires_grad for p in module.parameters())
    assert atoms.grad is None


@needs_torch
def test_source_that_insists_on_its_graph_is_cut():
    import torch

    module = torch.nn.Linear(2, 2).double()

    def sampler(n):
        with torch.enable_grad():
            return module(torch.as_tensor(normal(n)))

    result = solve_semidiscrete(torch.as_tensor(ATOMS), sampler, reg=0.2, tol=0, max_iter=5)
    assert not result.potential.requires_grad
    assert not result.value.requires_grad


@needs_torch
def test_gradient_mode_is_given_back():
    import torch

    with pytest.raises(OSError, match="disk"):
        solve_semidiscrete(torch.as_tensor(ATOMS), after(0, OSError("the disk is gone")))
    assert torch.is_grad_enabled()


# Imports.

OPTIONAL = ("torch", "jax", "matplotlib", "tensorflow", "cupy", "tqdm", "sklearn")
QUIET_POT = {f"POT_BACKEND_DISABLE_{name}": "1" for name in ("PYTORCH", "JAX", "TENSORFLOW", "CUPY")}
MISSING = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL}:
            raise ModuleNotFoundError(f"no {{name}} here", name=name)

sys.meta_path.insert(0, Missing())
"""


def python(code, **environment):
    """Run code in a new interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True
    )


def test_import_adds_no_optional_package():
    """POT imports the backends it finds unless told not to; what is left is ours."""
    done = python(
        f"""
import sys
import ot
before = set(sys.modules)
import pot_semidiscrete, pot_semidiscrete.datasets, pot_semidiscrete.metrics, pot_semidiscrete.plot
print((set(sys.modules) - before) & set({OPTIONAL}), set(sys.modules) & {{"torch", "jax"}})
""",
        **QUIET_POT,
    )
    assert done.stdout.strip() == "set() set()", done.stderr


def test_core_runs_where_the_optional_packages_are_missing():
    """And the layers of torch name the remedy."""
    done = python(
        MISSING
        + """
import numpy as np
import pot_semidiscrete as sd, pot_semidiscrete.datasets, pot_semidiscrete.metrics, pot_semidiscrete.plot
atoms = np.random.default_rng(0).random((5, 2))
result = sd.solve_semidiscrete(atoms, reg=0.1, tol=0, max_iter=3, random_state=0, verbose=True)
print(result.pair(atoms, 0).shape)
try:
    import pot_semidiscrete.generative
except ImportError as error:
    print(error)
"""
    )
    assert done.returncode == 0, done.stderr
    *_, shape, remedy = done.stdout.splitlines()
    assert shape == "(5,)"
    assert re.search(r"pot_semidiscrete\.generative needs torch.*pot_semidiscrete\[torch\]", remedy)
    assert "train_parameters" in remedy


@needs_torch
def test_import_touches_no_gpu():
    done = python("""
import pot_semidiscrete, pot_semidiscrete.generative, torch
print(torch.cuda.is_initialized())
""")
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("times", [1, 2])
def test_interruption_waits_for_what_must_not_be_left_halfway(times):
    """The first one until the end, a second one not; another thread has none."""
    before, reached = signal.signal(signal.SIGINT, signal.default_int_handler), []

    def work(times):
        with uninterrupted():
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
            reached.append(times)

    try:
        with pytest.raises(KeyboardInterrupt):
            work(times)
        assert reached == [1] * (times == 1)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        other = threading.Thread(target=work, args=(0,))
        other.start()
        other.join()
        assert reached[-1] == 0
    finally:
        signal.signal(signal.SIGINT, before)
