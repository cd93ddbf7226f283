"""Runs that survive: checkpoints, and a divergence that loses nothing."""

import copy
import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from pot_semidiscrete import SemiDiscreteWarning, cost_scale
from pot_semidiscrete.samplers import SobolSampler

torch = pytest.importorskip("torch")
nn = torch.nn

from pot_semidiscrete.generative import SemiDiscreteLoss, train_generator  # noqa: E402
from pot_semidiscrete.generative.checkpoint import GlobalRandom  # noqa: E402

pytestmark = pytest.mark.usefixtures("torch_seed")
DATA = torch.randn(30, 2, generator=torch.Generator().manual_seed(1)) + 3


def new_generator(dtype=torch.float32, mixed=True):
    """Always the same one, with or without batch norm and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Linear(2, 2)]
        if mixed:
            layers = [nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2)]
        return nn.Sequential(*layers).to(dtype)


def global_latent(n):
    """Randomness of torch's global generator."""
    return torch.randn(n, 2)


class OwnLatent:
    """Randomness of its own, that it tells."""

    def __init__(self):
        self.random = torch.Generator().manual_seed(5)

    def __call__(self, n):
        return torch.randn(n, 2, generator=self.random)

    def state_dict(self):
        return {"random": self.random.get_state()}

    def load_state_dict(self, state):
        self.random.set_state(state["random"])


class Decay:
    """A learning rate scheduler as a callback."""

    def __init__(self, optimizer):
        self.scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 4, gamma=0.5)
        self.state_dict, self.load_state_dict = (
            self.scheduler.state_dict,
            self.scheduler.load_state_dict,
        )

    def __call__(self, state):
        self.scheduler.step()


class Killed(Exception):
    """The end of a run as by a kill, before its step is written."""


def interrupted_at(step, callback=None):
    """A callback that ends the run at a step."""

    def function(result):
        if callback is not None:
            callback(result)
        if result.n_steps == step:
            raise Killed

    if callback is not None:
        function.state_dict, function.load_state_dict = callback.state_dict, callback.load_state_dict
    return function


def run(n_steps=15, **options):
    """A run, and the optimiser that made it: None is the default one."""
    generator = options.pop("generator", None) or new_generator()
    optimizer = options.pop("optimizer", torch.optim.Adam)
    if optimizer is not None:
        optimizer = optimizer(generator.parameters(), lr=0.02)
    callback = options.pop("callback", None)
    if options.pop("decay", False):
        callback = Decay(optimizer) if callback is None else interrupted_at(8, Decay(optimizer))
    latent, target = options.pop("latent", 2), options.pop("target", DATA)
    options = {"batch_size": 16, "random_state": 0, "callback": callback} | options
    result = train_generator(generator, latent, target, n_steps=n_steps, optimizer=optimizer, **options)
    return result, optimizer


def flat(tree, name=""):
    """Numbers and tensors of nested states, by name."""
    if isinstance(tree, (list, tuple)):
        tree = dict(enumerate(tree))
    if not isinstance(tree, dict):
        return {name: tree}
    return {k: v for key, entry in tree.items() for k, v in flat(entry, f"{name}.{key}").items()}


def assert_same(one, other):
    """Nested states are the same to the bit."""
    one, other = flat(one), flat(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, (torch.Tensor, np.ndarray)):
            assert value.dtype == other[name].dtype, name
            np.testing.assert_array_equal(value, other[name], err_msg=name)
        else:
            assert value == other[name], name


def assert_same_run(one, other):
    """All but the clock."""
    (one, one_optimizer), (other, other_optimizer) = one, other
    assert_same(one.generator.state_dict(), other.generator.state_dict())
    assert_same(one.loss.state_dict(), other.loss.state_dict())
    if one_optimizer is not None:
        assert_same(one_optimizer.state_dict(), other_optimizer.state_dict())
    assert one.status == other.status
    assert one.history.keys() == other.history.keys()
    for name in one.history.keys() - {"seconds"}:
        np.testing.assert_array_equal(one.history[name], other.history[name])
    assert len(one.history["seconds"]) == len(other.history["seconds"])
    assert (np.diff(one.history["seconds"]) >= 0).all()


def assert_continues(tmp_path, make=dict, step=8):
    """A run cut off at a step and continued is the one that was not; `make` makes its options."""
    path = tmp_path / "run.pt"
    torch.manual_seed(7)
    whole = run(**make())
    torch.manual_seed(7)
    with pytest.raises(Killed):
        run(checkpoint=path, checkpoint_every=3, **{"callback": interrupted_at(step)} | make())
    torch.manual_seed(99)  # another process
    again = run(checkpoint=path, checkpoint_every=3, **make())
    assert_same_run(again, whole)
    return again, whole


# The same run, bit for bit.


def network_loss():
    """A loss whose potential is a network."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = nn.Sequential(nn.Linear(2, 16), nn.SiLU(), nn.Linear(16, 1))
    return SemiDiscreteLoss(DATA, potential=module, potential_optimizer=torch.optim.NAdam)


CASES = {
    "dimension": dict,
    "global": lambda: {"latent": global_latent},
    "own": lambda: {"latent": OwnLatent()},
    "sobol": lambda: {"latent": SobolSampler(2, "normal", type_as=DATA, random_state=0)},
    "numpy": lambda: {"random_state": np.random.default_rng(3)},
    "legacy-numpy": lambda: {"random_state": np.random.RandomState(3)},
    "torch": lambda: {"random_state": torch.Generator().manual_seed(3)},
    "reg-0": lambda: {"target": SemiDiscreteLoss(DATA, reg=0.0)},
    "network": lambda: {"target": network_loss()},
    "single-steps": lambda: {"reuse": 1},
    "rounds-that-end": lambda: {"reuse": 3},
    "rounds-that-do-not": lambda: {"reuse": 4},
    "rounds-of-a-network": lambda: {"target": network_loss(), "reuse": 4},
    "debias": lambda: {"target": SemiDiscreteLoss(DATA, debias=True)},
    "default-optimizer": lambda: {"optimizer": None, "reuse": 4},
}


@pytest.mark.parametrize("case", CASES)
def test_continued_run_is_the_uninterrupted_one(case, tmp_path):
    (again, _), (whole, _) = assert_continues(tmp_path, CASES[case])
    torch.testing.assert_close(again.loss.potential, whole.loss.potential, rtol=0, atol=0)
    assert len(again.history["chi2"]) == 15


def test_streams_go_on_as_if_nothing_had_happened(tmp_path):
    """Those of the latent law and of torch, after the last step."""
    states = []
    for latent in (OwnLatent(), OwnLatent()):
        path = tmp_path / f"{len(states)}.pt"
        torch.manual_seed(7)
        if states:
            with pytest.raises(Killed):
                run(latent=latent, callback=interrupted_at(8), checkpoint=path, checkpoint_every=3)
            torch.manual_seed(99)
            latent = OwnLatent()
        run(latent=latent, checkpoint=path, checkpoint_every=3)
        states.append({"own": latent.random.get_state(), "global": torch.get_rng_state()})
    assert_same(*states)


OPTIMIZERS = [
    name
    for name in dir(torch.optim)
    if isinstance(kind := getattr(torch.optim, name), type)
    # SparseAdam wants sparse gradients, Muon matrices only
    and name not in ("Optimizer", "SparseAdam", "Muon")
    and issubclass(kind, torch.optim.Optimizer)
]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_trains_and_continues(name, tmp_path):
    """In float64 too, to which torch would cast what some keep in float32."""

    def make():
        return {
            "generator": new_generator(torch.float64, mixed=False),
            "target": DATA.double(),
            "optimizer": getattr(torch.optim, name),
        }

    (again, _), _ = assert_continues(tmp_path, make)
    moved = again.generator[0].weight - make()["generator"][0].weight
    assert torch.isfinite(moved).all()
    assert moved.abs().min() > 0


@pytest.mark.parametrize("reuse", [1, 3])
def test_lbfgs_evaluates_one_batch_several_times(reuse):
    calls = []

    def latent(n):
        calls.append(n)
        return global_latent(n)

    generator = new_generator(mixed=False)
    generator.register_forward_hook(lambda *args: calls.append("forward"))
    loss = SemiDiscreteLoss(DATA, dual_steps=1)
    loss.dual_step(DATA)
    options = {"latent": latent, "target": loss, "optimizer": torch.optim.LBFGS, "reuse": reuse}
    result, _ = run(reuse, generator=generator, **options)
    potential = [16, "forward"]
    start = potential if reuse > 1 else potential + [16]  # a round begins with one sweep of its points
    assert calls[: len(start) + 3] == start + ["forward"] * 3
    assert (np.diff(result.history["loss"]) < 0).all()


def test_optimizer_that_evaluates_several_times_sees_its_moves_under_autocast():
    """Not weights that autocast had cast before."""
    points, generator = [], new_generator(mixed=False)
    generator.register_forward_hook(
        lambda module, z, x: points.append(x.detach()) if torch.is_grad_enabled() else None
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        run(1, generator=generator, optimizer=torch.optim.LBFGS)
    assert len(points) > 2
    assert not any(torch.equal(one, other) for one, other in itertools.pairwise(points))


def test_schedule_of_a_callback_with_a_state_continues(tmp_path):
    (_, again), (_, whole) = assert_continues(tmp_path, lambda: {"decay": True})
    assert again.param_groups[0]["lr"] == whole.param_groups[0]["lr"] == 0.02 / 8


def test_schedule_by_the_step_continues(tmp_path):
    path, outcome = tmp_path / "run.pt", []
    for stop in (None, 8, None):
        generator = new_generator()
        optimizer = torch.optim.Adam(generator.parameters(), lr=0.02)

        def callback(state, optimizer=optimizer, stop=stop):
            optimizer.param_groups[0]["lr"] = 0.02 / state.n_steps
            return state.n_steps == stop

        kept = {"checkpoint": path} if outcome else {}
        torch.manual_seed(7)
        result = train_generator(
            generator,
            2,
            DATA,
            n_steps=15,
            batch_size=16,
            optimizer=optimizer,
            random_state=0,
            callback=callback,
            **kept,
        )
        outcome.append((result, optimizer))
    assert outcome[1][0].n_steps == 8, "a run that the callback stops is written"
    assert outcome[1][0].status == "stopped"
    assert_same_run(outcome[2], outcome[0])


@pytest.mark.parametrize("reuse", [1, 4])
def test_regularisation_that_a_callback_sets_continues(reuse, tmp_path):
    """What follows, and the level at which the potential follows."""
    path, outcome = tmp_path / "run.pt", []
    for stop in (None, 8, None):

        def callback(result, stop=stop):
            if result.n_steps % 5 == 0:
                result.loss.reg /= 2.0
            return result.n_steps == stop

        torch.manual_seed(7)
        outcome.append(run(reuse=reuse, callback=callback, checkpoint=path if outcome else None))
    assert outcome[1][0].n_steps == 8
    assert_same_run(outcome[2], outcome[0])
    loss = outcome[2][0].loss
    assert loss.reg == outcome[0][0].loss.reg == SemiDiscreteLoss(DATA).reg * 0.3 / 8.0
    fresh = SemiDiscreteLoss(DATA, reg=loss.reg)
    fresh.load_state_dict(loss.state_dict())
    for one in (fresh, loss):
        one.follow(DATA + 1.0)
    assert torch.equal(fresh.potential, loss.potential)
    with pytest.raises(ValueError, match="reg: expected"):
        loss.reg = -1.0


@pytest.mark.parametrize("kind", ["callable", "parameters-of-a-function"])
def test_optimizer_given_otherwise_continues(kind, tmp_path):
    """As a callable; or of parameters that no module holds."""
    outcome = []
    for checkpoint, stop in ((None, None), (tmp_path / "a", 4), (tmp_path / "a", None)):
        generator = new_generator(mixed=False)
        theta, optimizer = generator[0].weight, lambda p: torch.optim.AdamW(p, lr=0.1)
        if kind != "callable":
            theta = torch.zeros(2, requires_grad=True)
            generator = lambda z, theta=theta: z + theta
            optimizer = torch.optim.SGD([theta], lr=0.1, momentum=0.9)
        result = train_generator(
            generator,
            2,
            DATA,
            n_steps=9,
            optimizer=optimizer,
            callback=lambda state, stop=stop: state.n_steps == stop,
            random_state=0,
            checkpoint=checkpoint,
        )
        outcome.append((theta.detach(), result.loss.state_dict(), result.history["loss"]))
    assert_same(outcome[2], outcome[0])
    assert not torch.equal(outcome[1][0], outcome[0][0])


def test_buffers_that_state_dict_leaves_out_continue(tmp_path):
    class Drifting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = new_generator(mixed=False)
            self.register_buffer("shift", torch.zeros(()), persistent=False)

        def forward(self, z):
            self.shift += 1e-3
            return self.inner(z) + self.shift

    (again, _), (whole, _) = assert_continues(tmp_path, lambda: {"generator": Drifting()})
    assert again.generator.shift == whole.generator.shift > 0


def test_run_with_a_checkpoint_is_the_run_without(tmp_path):
    torch.manual_seed(7)
    one = run()
    torch.manual_seed(7)
    assert_same_run(run(checkpoint=tmp_path / "run.pt", checkpoint_every=1), one)


def test_finished_run_is_returned_and_a_longer_one_goes_on(tmp_path):
    path, calls = tmp_path / "run.pt", []
    first = run(6, checkpoint=path)
    before = path.read_bytes()
    again = run(6, checkpoint=path, callback=calls.append)
    assert_same_run(again, first)
    np.testing.assert_array_equal(again[0].history["seconds"], first[0].history["seconds"])
    assert calls == []
    assert path.read_bytes() == before
    longer, _ = run(10, checkpoint=path)
    assert longer.n_steps == 10
    np.testing.assert_array_equal(longer.history["loss"][:6], first[0].history["loss"])
    with pytest.raises(ValueError, match=r"n_steps: expected at least 10.*run\.pt.*received 7"):
        run(7, checkpoint=path)


def test_longer_run_takes_up_its_own_learning_rate(tmp_path):
    """The default one, which falls to 0 in the last third of `n_steps`."""
    rates, kept = [], {"checkpoint": tmp_path / "run.pt", "optimizer": None}
    for n_steps in (8, 16):
        run(n_steps, **kept)
        state = torch.load(kept["checkpoint"], weights_only=True)["run"]["optimizer"]
        rates.append(state["param_groups"][0]["lr"])
    np.testing.assert_allclose(rates, [3e-3 * 3 / 8, 3e-3 * 3 / 16])


def test_global_generator_is_left_alone_if_the_run_does_not_use_it(tmp_path):
    path = tmp_path / "run.pt"
    for n_steps in (3, 6):
        generator = new_generator(mixed=False)
        torch.manual_seed(n_steps)
        before = torch.get_rng_state()
        run(n_steps, generator=generator, checkpoint=path)
        assert torch.equal(torch.get_rng_state(), before)


def test_global_generator_is_written_again_though_it_rests():
    """In the process of the run it is already where a file would put it."""
    random = GlobalRandom()
    torch.rand(1)
    state = random.state_dict()
    again = GlobalRandom()
    assert again.state_dict() == {}
    again.load_state_dict(state)
    assert_same(again.state_dict(), state)


@pytest.mark.parametrize("order", [(False, True), (True, False), (True, True)], ids=str)
def test_compiled_generator_trains_and_continues_and_is_the_same_run(order, tmp_path):
    """Its file is that of the module inside."""
    torch.manual_seed(7)
    whole = run(8)
    torch.manual_seed(7)
    for n_steps, compiled in zip((4, 8), order, strict=True):
        generator = inner = new_generator()
        if compiled:
            generator = torch.compile(inner, backend="eager")
        torch.manual_seed(7)
        result, optimizer = run(
            8,
            generator=generator,
            checkpoint=tmp_path / "run.pt",
            callback=lambda state, n=n_steps: state.n_steps == n < 8,
        )
    result.generator = inner
    assert_same_run((result, optimizer), whole)


# The file.


def test_file_is_read_without_pickle_and_holds_the_generator(tmp_path):
    path = tmp_path / "run.pt"
    result, _ = run(5, checkpoint=path)
    state = torch.load(path, weights_only=True)
    generator = new_generator()
    generator.load_state_dict(state["run"]["generator"])
    assert_same(generator.state_dict(), result.generator.state_dict())
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    run(3, checkpoint=path)
    before = path.read_bytes()

    def crash(state, file):
        file.write(b"PK half of it")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", crash)
    with pytest.raises(OSError, match="space") as caught:
        run(6, checkpoint=path, checkpoint_every=1)
    assert caught.value.partial_result.n_steps == 4, "what was reached is not lost"
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


@pytest.mark.parametrize(
    "state", [Path("."), lambda: None, np.zeros(3)], ids=["path", "lambda", "numpy"]
)
def test_state_that_needs_pickle_is_refused_when_it_is_written(state, tmp_path):
    callback = lambda result: None
    callback.state_dict, callback.load_state_dict = lambda: {"state": state}, lambda state: None
    with pytest.raises(TypeError, match=r"checkpoint: expected states.*callback"):
        run(3, checkpoint=tmp_path / "run.pt", callback=callback)
    assert list(tmp_path.iterdir()) == []


SHIFTED = DATA + torch.tensor([0.1, 0.0])
UNEQUAL = torch.linspace(1, 2, 30) / torch.linspace(1, 2, 30).sum()
OTHERS = {
    "target-shift": {"target": SHIFTED},
    "target-order": {"target": DATA.flip(0)},
    "target-fewer": {"target": DATA[:-1]},
    "a_target": {"target": SemiDiscreteLoss(DATA, UNEQUAL)},
    "metric": {"target": SemiDiscreteLoss(DATA, metric="euclidean")},
    "reg": {"reg": 0.3},
    "dual_steps": {"dual_steps": 4},
    "debias": {"target": SemiDiscreteLoss(DATA, reg=0.003 * cost_scale(DATA), debias=True)},
    "potential": {
        "target": SemiDiscreteLoss(DATA, reg=0.003 * cost_scale(DATA), potential=nn.Linear(2, 1))
    },
    "batch_size": {"batch_size": 17},
    "reuse": {"reuse": 1},
    "generator": {"generator": nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))},
    "optimizer-kind": {"optimizer": torch.optim.AdamW},
    "optimizer-option": {"optimizer": lambda p, lr: torch.optim.Adam(p, lr=0.03)},
    "optimizer-default": {"optimizer": None},
    "random_state": {"random_state": 1},
    "latent_sampler": {"latent": global_latent},
}


@pytest.mark.parametrize("case", OTHERS)
def test_checkpoint_of_another_problem_is_refused(case, tmp_path):
    path = tmp_path / "run.pt"
    run(2, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"^{case.split('-')[0]}: expected.*run\.pt.*received"):
        run(4, checkpoint=path, **OTHERS[case])
    assert path.read_bytes() == before


def test_laws_of_other_names_are_told_apart(tmp_path):
    """An older file has of a name and a dimension that they are a tuple."""
    path = tmp_path / "run.pt"
    first, _ = run(2, checkpoint=path, latent=("normal", 2))
    with pytest.raises(
        ValueError, match=r"^latent_sampler: expected 'normal' and dimension 2.*received 'unif' and"
    ):
        run(4, checkpoint=path, latent=("unif", 2))
    state = torch.load(path, weights_only=True)
    state["problem"]["latent_sampler"] = "dimension tuple"
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"latent_sampler: expected dimension tuple.*dimension 2"):
        run(4, checkpoint=path, latent=2)
    longer, _ = run(4, checkpoint=path, latent=("normal", 2))
    assert longer.n_steps == 4
    np.testing.assert_array_equal(longer.history["loss"][:2], first.history["loss"])


@pytest.mark.parametrize(
    ("optimizer", "expected", "received"),
    [
        (lambda p, lr: torch.optim.Adam(p, lr=0.03), "Adam(lr=0.02)", "Adam(lr=0.03)"),
        (lambda p, lr: torch.optim.Adam(p, lr, (0.5, 0.9)), "betas=(0.9, 0.999))", "betas=(0.5, 0.9))"),
        (torch.optim.SGD, "Adam,", "SGD;"),
    ],
)
def test_of_other_optimizers_what_differs_is_told(optimizer, expected, received, tmp_path):
    run(1, checkpoint=tmp_path / "run.pt")
    with pytest.raises(ValueError, match=r"^optimizer") as caught:
        run(2, checkpoint=tmp_path / "run.pt", optimizer=optimizer)
    said = str(caught.value)
    assert expected in said
    assert received in said
    assert "maximize" not in said


def test_checkpoint_of_other_parameters_of_a_function_is_refused(tmp_path):
    def train(*shape):
        theta = torch.zeros(shape, requires_grad=True)
        optimizer = torch.optim.SGD([theta], lr=0.1)
        path = tmp_path / "run.pt"
        train_generator(
            lambda z: z + theta, 2, DATA, n_steps=1, optimizer=optimizer, random_state=0, checkpoint=path
        )

    train(2)
    with pytest.raises(ValueError, match=r"generator: expected.*\(2,\).*run\.pt.*received.*\(1, 2\)"):
        train(1, 2)


def test_refusal_leaves_generator_and_loss_alone(tmp_path):
    run(2, checkpoint=tmp_path / "run.pt")
    generator, loss = new_generator(), SemiDiscreteLoss(DATA, reg=0.3)
    with pytest.raises(ValueError, match=r"^reg: expected"):
        run(4, generator=generator, target=loss, checkpoint=tmp_path / "run.pt")
    assert_same(generator.state_dict(), new_generator().state_dict())
    assert loss.n_steps == 0


@pytest.mark.parametrize("content", [b"", b"no checkpoint", "tensor", "dict"], ids=str)
def test_other_files_are_refused_and_kept(content, tmp_path):
    path = tmp_path / "run.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(torch.zeros(3) if content == "tensor" else {"weight": torch.zeros(3)}, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"checkpoint: expected a file .*run\.pt.*another path"):
        run(3, checkpoint=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"checkpoint": 3}, TypeError),
        ({"checkpoint": "no_such_folder/run.pt"}, ValueError),
        ({"checkpoint": "."}, ValueError),
        ({"checkpoint_every": 0}, ValueError),
        ({"checkpoint_every": 2.5}, TypeError),
    ],
    ids=str,
)
def test_bad_option_is_refused_before_the_run(option, error):
    calls = []
    with pytest.raises(error, match=f"^{next(iter(option))}: expected.*received"):
        run(3, callback=calls.append, **option)
    assert calls == []


def test_hidden_randomness_is_warned_of(tmp_path):
    random = torch.Generator().manual_seed(0)
    latent = lambda n: torch.randn(n, 2, generator=random)
    with pytest.warns(SemiDiscreteWarning, match="latent_sampler.*state_dict"):
        run(3, latent=latent, checkpoint=tmp_path / "run.pt")
    run(3, latent=latent)  # without a checkpoint, nobody needs to know (a warning would raise)


def test_progress_goes_on(tmp_path, capsys):
    path = tmp_path / "run.pt"
    run(15, checkpoint=path, callback=lambda state: state.n_steps == 10)
    run(20, checkpoint=path, verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("train_generator: 12/20 ")
    assert lines[-1].startswith("train_generator: 20/20 ")
    assert all(word in lines[0] for word in ("loss", "chi2", "images/s"))


# A divergence, and a history.


class Diverging(nn.Module):
    """Batch norm whose points cease to be finite in a phase of the seventh step."""

    def __init__(self, phase):
        super().__init__()
        self.inner, self.phase, self.steps, self.calls = new_generator(), phase, 0, 0

    def forward(self, z):
        grad = torch.is_grad_enabled()
        self.steps += grad
        self.calls = 0 if grad else self.calls + 1
        x = self.inner(z)
        if self.steps == 7 and self.phase == "value" and grad:
            x = x * math.nan
        if self.steps == 6 and self.phase == "dual" and self.calls == 2 + 5:  # the look has five batches
            x = x * math.nan
        if self.steps == 7 and self.phase == "gradient" and grad:
            x.register_hook(lambda g: g * math.nan)
        if self.steps == 6 and self.phase == "look" and self.calls == 3:
            x = x * math.nan
        return x


PHASES = [
    (phase, reuse)
    for phase in ("dual", "value", "gradient", "look")
    for reuse in (1, 3, 4)
    if (phase, reuse) != ("dual", 4)
]


@pytest.mark.parametrize("potential", ["vector", "network"])
@pytest.mark.parametrize(("phase", "reuse"), PHASES)
def test_divergence_keeps_all_of_the_last_good_state(phase, potential, reuse, tmp_path):
    """Running statistics and the potential too, and the file of before; both are named.

    A round of 3 begins with the seventh step; one of 4 is then in the middle, where the potential rests.
    """
    generator, path, states = Diverging(phase), tmp_path / "run.pt", []
    loss = network_loss() if potential == "network" else SemiDiscreteLoss(DATA)

    def callback(result):
        states.append(copy.deepcopy([generator.state_dict(), loss.state_dict()]))

    if phase == "look":  # before the callback of its step

        def hook(*args):
            if generator.steps == 6 and generator.calls == 1 and not torch.is_grad_enabled():
                callback(None)

        generator.inner[0].register_forward_pre_hook(hook)
    options = {"generator": generator, "target": loss, "callback": callback, "reuse": reuse}
    options |= {"checkpoint": path, "checkpoint_every": 4}
    with pytest.warns(
        SemiDiscreteWarning, match=r"after 6 steps.*finite.*those of step 6.*run\.pt' is that of step 4"
    ):
        result, _ = run(50, **options)
    assert result.status == "diverged"
    assert result.n_steps == 6
    assert_same([generator.state_dict(), loss.state_dict()], states[-1])
    assert torch.load(path, weights_only=True)["run"]["n_steps"] == 4


def test_divergence_in_the_first_steps_names_no_file(tmp_path):
    with pytest.warns(SemiDiscreteWarning, match="those of step 6") as caught:
        run(50, generator=Diverging("value"), checkpoint=tmp_path / "run.pt")
    assert "run.pt" not in str(caught[0].message)
    assert list(tmp_path.iterdir()) == []


def test_history_of_a_callback_is_light_and_does_not_change():
    """Each is a view of one record, which grows by doubling: no copy at each step."""
    seen, copies = [], []

    def callback(state):
        seen.append(state)
        copies.append({name: rows.copy() for name, rows in state.history.items()})

    result, _ = run(150, callback=callback)
    assert [state.n_steps for state in seen] == list(range(1, 151))
    for state, kept in zip(seen, copies, strict=True):
        assert_same(state.history, kept)
    assert_same(seen[-1].history, result.history)
    pairs = itertools.pairwise(state.history["loss"] for state in seen)
    assert [np.shares_memory(one, other) for one, other in pairs].count(False) < 5
