"""Benchmarks tell what they do, and run with the least of everything where that is short."""

import functools
import importlib
import json
import pickle
import sys
from concurrent.futures import Executor, Future
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import ot
import pytest

from pot_semidiscrete.metrics import Classifier
from pot_semidiscrete.plan import SemiDiscretePlan
from pot_semidiscrete.problem import Problem
from tests.idx import idx

torch = pytest.importorskip("torch")
pytest.importorskip("threadpoolctl")

from torch import nn  # noqa: E402

from pot_semidiscrete.generative import mlp_generator  # noqa: E402

FOLDER = Path(__file__).parent.parent / "benchmarks"
COMMANDS = sorted(
    ".".join(path.relative_to(FOLDER).with_suffix("").parts)
    for path in FOLDER.rglob("*.py")
    if "def main()" in path.read_text()
)
LEAST = {
    "certificates": "--seeds 2 --truths 1 --problems normal_line",
    "choosing": "--share 0.03 --tables tol dtype",
    "curves": "--seeds 2 --samples 512 1024 --problems normal_line --solvers ours POT",
    "classes": "--case 3 20 --rounds 1",
    "constants": "--constants STEP MANY --seeds 1 --samples 512 --problems uniform_line",
    "correction": "--seeds 2 --samples 512 --problems normal_line",
    "distributed": "--ranks 1 --rounds 1 --atoms 300 --batch 64",
    "error_bars": "--seeds 1 --points 256 --shares 0 --dimensions 1 2",
    "gpu": "--device cpu --case 8 40 3 --rounds 1",
    "guard": "--rounds 1",
    "kernels": "--rounds 1 --case 32 500 64 0.01",
    "multilevel": "--n-atoms 320 --chi2 0.2 --seeds 1",
    "network": "--seeds 0 --steps 4 --still-steps 2",
    "quasi": "--seeds 2 --samples 512 --problems normal_line --dimensions",
    "scaling": "--n-atoms 50 --dimensions 2 --targets normal --solvers ours POT --chi2 0.2",
    "threads": "--threads 1 --libraries numpy --rounds 1 --share 0.01",
    "solver": "--seeds 2 --samples 512 --problems normal_line --solvers ours POT --goal-samples 2048",
    "textures": "--seconds 0.1 --shrink 8 --scales 1",
}


def write_spots(folder, rng, n_train=2000, n_test=2000):
    """Files like MNIST's: wide spots of 8 by 8 pixels, in ten places."""
    places = np.stack(np.meshgrid(np.arange(8), np.arange(8), indexing="ij"), axis=-1)
    for part, n in {"train": n_train, "t10k": n_test}.items():
        labels = rng.integers(10, size=n)
        spots = np.stack([labels % 5, 4 * (labels // 5)], axis=-1) + rng.random((n, 2)) + 1.0
        distance = ((places - spots[:, None, None]) ** 2).sum(axis=-1)
        images = (255 * np.exp(-distance / 10.0)).astype("uint8")
        for kind, array in {"images-idx3": images, "labels-idx1": labels.astype("uint8")}.items():
            (folder / f"{part}-{kind}-ubyte").write_bytes(idx(array))
    return folder


class Here(Executor):
    """In place of the processes of a pool; it asks as they do for what can be pickled."""

    def __init__(self, n_jobs):
        pass

    def submit(self, *call):
        function, *args = pickle.loads(pickle.dumps(call))
        future = Future()
        future.set_result(function(*args))
        return future


def quick_to_judge(module, monkeypatch):
    """Let it judge images by a classifier of a few steps."""
    monkeypatch.setattr(module, "Classifier", functools.partial(module.Classifier, n_steps=20))


def run(module, monkeypatch, arguments):
    """A benchmark, as its command would be."""
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)  # it would stay for other tests
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    module.main()


@pytest.mark.parametrize("name", COMMANDS)
def test_benchmark_says_what_it_does(name, monkeypatch, capsys):
    if name == "memory":
        pytest.importorskip("resource", reason="needs a system with limits of memory")
    module = importlib.import_module(f"benchmarks.{name}")
    with pytest.raises(SystemExit, match="0"):
        run(module, monkeypatch, ["--help"])
    assert module.__doc__.split("\n", 1)[0].split()[0] in capsys.readouterr().out


@pytest.mark.parametrize("name", LEAST)
def test_benchmark_runs_and_writes_its_results(name, monkeypatch, tmp_path):
    module = importlib.import_module(f"benchmarks.{name}")
    path = tmp_path / "results.json"
    if name == "guard":  # the machine may have other work
        monkeypatch.setattr(module, "WORSE", 1000.0)
    if name == "certificates":  # "correction" starts a process
        monkeypatch.setattr(module, "Pool", Here)
    if name == "network":
        quick_to_judge(module, monkeypatch)
    run(module, monkeypatch, [*LEAST[name].split(), "--json", path])
    found = json.loads(path.read_text())
    assert found["machine"]["numpy"]
    assert found["accuracy" if name == "solver" else "rows"]


def test_constants_are_replaced_wherever_they_are_read():
    """As globals of modules that import them, and as defaults; and put back."""
    from benchmarks import constants
    from pot_semidiscrete.optim import ascent, newton, stopping

    usual = (ascent.STEP, stopping.STEP, ascent.compute_move.__defaults__, newton.maximize.__defaults__)
    with constants.replaced("STEP", 1.0), constants.replaced("NEGLIGIBLE", 0.25):
        assert ascent.STEP == stopping.STEP == ascent.compute_move.__defaults__[0] == 1.0
        assert newton.NEGLIGIBLE == newton.maximize.__defaults__[0] == 0.25
    now = (ascent.STEP, stopping.STEP, ascent.compute_move.__defaults__, newton.maximize.__defaults__)
    assert now == usual
    assert 1.0 not in usual


def test_guard_fails_where_a_run_has_become_slower(monkeypatch):
    """By 1.6, and not by 1.4, in units of the plain sweep."""
    from benchmarks import guard

    known = {row["name"]: row["ratio"] for row in json.loads(guard.COMMITTED.read_text())["rows"]}
    for factor, fails in ((1.4, False), (1.6, True)):
        rows = [{"name": name, "seconds": 1.0, "ratio": factor * known[name]} for name in known]
        monkeypatch.setattr(guard, "measured", lambda rounds, rows=rows: rows)
        with pytest.raises(SystemExit, match="solve, correct, train") if fails else nullcontext():
            run(guard, monkeypatch, [])


def test_results_are_written_short_and_read_back(tmp_path):
    from benchmarks import machine

    rows = [{"seconds": 1.23456789, "bytes": 504_624.0, "lost": float("nan")}, {"setting": ["sgd", 3.0]}]
    machine.write(tmp_path / "results.json", rows=rows, n=3)
    found = json.loads((tmp_path / "results.json").read_text())
    expected = [{"seconds": 1.235, "bytes": 504_624, "lost": None}, {"setting": ["sgd", 3]}]
    assert found == {"rows": expected, "n": 3}


def test_results_in_git_are_few():
    """Under 100 KB, pictures aside, and each is of a page or of a benchmark."""
    sizes = {path.name: path.stat().st_size for path in (FOLDER / "results").glob("*.json")}
    assert sum(sizes.values()) < 100_000
    pages = [*(FOLDER.parent / "doc").glob("*.rst"), *FOLDER.rglob("*.py")]
    text = "\n".join(path.read_text() for path in pages)
    assert [name for name in sizes if name not in text] == []


def test_curves_are_drawn_with_the_limit(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    module, path = importlib.import_module("benchmarks.curves"), tmp_path / "curves.png"
    run(module, monkeypatch, [*LEAST["curves"].split(), "--figure", path])
    assert path.stat().st_size > 10_000


def test_figures_of_a_gpu_are_added_to_what_is_there(monkeypatch, tmp_path):
    module, path = importlib.import_module("benchmarks.gpu"), tmp_path / "results.json"
    arguments = ["--device", "cpu", "--case", 8, 40, 3, "--rounds", 1, "--json", path]
    run(module, monkeypatch, [*arguments, "--minutes", -1])
    assert not path.exists()
    run(module, monkeypatch, arguments)
    rows = json.loads(path.read_text())["rows"]
    found = {row["name"]: row["seconds"] for row in rows if "seconds" in row}
    assert found["torch: dual step"] > 0.0
    run(module, monkeypatch, arguments)
    rows = json.loads(path.read_text())["rows"]
    assert {row["name"]: row["seconds"] for row in rows if "seconds" in row} == found


def test_products_of_fewer_bits_are_further_off():
    from benchmarks.gpu import rounding_errors

    errors = rounding_errors(3, 0.05, n=8, n_atoms=50)["errors"]
    for kind in ("c_transform", "weights", "masses"):
        few, two, three = (errors[precision][kind] for precision in ("bf16", "tf32", "tf32x3"))
        assert few > 2.0 * two > 200.0 * three > 0.0


def test_run_of_the_algorithm_is_drawn(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    module, path = importlib.import_module("benchmarks.algorithm"), tmp_path / "algorithm.png"
    run(module, monkeypatch, ["--n-atoms", 200, "--figure", path])
    assert path.stat().st_size > 10_000


def test_benchmark_of_training_compares_its_recipes(rng, monkeypatch, tmp_path):
    mnist = write_spots(tmp_path, rng, n_test=200)
    module, path = importlib.import_module("benchmarks.training"), tmp_path / "results.json"
    quick_to_judge(module, monkeypatch)
    monkeypatch.setattr(module, "INTERVAL_BATCHES", 4)
    options = f"--seconds 0.05 --seeds 0 --atoms 300 --step 1 --value --mnist {mnist} --json {path}"
    run(module, monkeypatch, options.split())
    found = json.loads(path.read_text())
    assert {row["recipe"] for row in found["rows"]} == set(module.RECIPES)
    assert all(row["steps"] > 0 and row["value"][0] < row["value"][1] for row in found["rows"])
    options = "--seconds 0.05 --seeds 0 --atoms 300 --colors both --recipe ours wgan_gp --network"
    files, path = ["--mnist", mnist, "--images", tmp_path], tmp_path / "convolutional.json"
    run(module, monkeypatch, [*options.split(), "convolutional", *files, "--json", path])
    found = json.loads(path.read_text())
    assert [(row["recipe"], row["network"]) for row in found["rows"]] == [
        ("ours", "convolutional"),
        ("wgan_gp", "convolutional"),
    ]
    assert (tmp_path / "ours_0.png").stat().st_size > 10_000


def test_a_grid_of_training_leads_to_its_best_setting(rng, monkeypatch, tmp_path):
    mnist = write_spots(tmp_path, rng, n_test=200)
    module, path = importlib.import_module("benchmarks.training"), tmp_path / "results.json"
    quick_to_judge(module, monkeypatch)
    share, shares, ours = module.EnergyDescent.share, [], module.ours
    seen = lambda *run, **given: shares.append(module.EnergyDescent.share) or ours(*run, **given)
    monkeypatch.setattr(module, "ours", seen)
    train, sizes = module.train, []
    noting = lambda *run, **given: sizes.append(given["batch_size"]) or train(*run, **given)
    monkeypatch.setattr(module, "train", noting)
    options = "--seconds 0.05 --seeds 3 --atoms 300 --recipe energy cityblock --grid --batch 24"
    run(module, monkeypatch, [*options.split(), "--mnist", mnist, "--json", path])
    found = json.loads(path.read_text())
    assert [row["renewed"] for row in found["grid"]] == list(module.RENEWED)
    best = min(found["grid"], key=lambda row: row["frechet"])["renewed"]
    assert [row.get("renewed") for row in found["rows"]] == [best, None]
    assert shares == [*module.RENEWED, best, share]
    assert sizes == [24] * 5  # other options hold in a grid, too
    run(module, monkeypatch, [*options.split(), "--mnist", mnist, "--json", path])
    again = json.loads(path.read_text())
    assert [len(again[name]) for name in ("grid", "rows")] == [3, 2]


def test_rows_of_training_name_another_processor_than_the_machine(tmp_path):
    from benchmarks import machine, training

    rows = [{"recipe": "ours", "seed": k, "processor": name} for k, name in enumerate("aab")]
    path, facts = tmp_path / "results.json", {"machine": {"processor": "a"}, "seconds": 1.0}
    machine.write(path, **facts, rows=training.unlike(rows, "a"))
    written = json.loads(path.read_text())["rows"]
    assert [row.get("processor") for row in written] == [None, None, "b"]
    assert training.kept(path, ["energy"], [0], {"seconds": 1.0}) == (facts, rows)


def test_curves_of_training_are_those_of_runs_that_nobody_watched(monkeypatch):
    """By a clock that counts its readings, a look changes neither steps nor weights nor the end."""
    from benchmarks import training, training_curves

    readings, ends, images = iter(range(10**6)), [], torch.rand(100, 8, 8)
    for module in (training, training_curves):
        monkeypatch.setattr(module, "clock", lambda device: float(next(readings)))
    look = lambda images: {"frechet": float(torch.rand(9).sum())}
    for marks in ((), (30.0, 45.0, 60.0)):
        run = training_curves.Watched(marks, look, images, 60.0, 0)
        training.RECIPES["wgan_gp"](run)
        ends.append(run)
    assert [len(run.curve) for run in ends] == [0, 3]
    assert ends[0].steps == ends[1].steps == ends[1].curve[-1]["steps"] > 5
    for weights in zip(*(run.generator.parameters() for run in ends), strict=True):
        assert torch.equal(*weights)


def test_curves_of_training_are_made_once_and_drawn(rng, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks import training, training_curves

    mnist, path = write_spots(tmp_path, rng, n_test=200), tmp_path / "results.json"
    quick_to_judge(training, monkeypatch)
    options = f"--seconds 0.3 --marks 0.1 0.3 --atoms 300 --mnist {mnist} --json {path}"
    run(training_curves, monkeypatch, options.split())
    found = json.loads(path.read_text())
    assert [row["recipe"] for row in found["rows"]] == list(training_curves.STYLES)
    for row in found["rows"]:
        assert 0.1 <= row["seconds"][0] <= row["seconds"][-1]
        assert row["seconds"][-1] >= 0.3
        assert all(len(row[name]) == len(row["steps"]) for name in training_curves.MEASURES)
    figure, ends = tmp_path / "curves.png", FOLDER / "results" / "training_90.json"
    run(training_curves, monkeypatch, [*options.split(), "--figure", figure, "--ends", ends])
    assert json.loads(path.read_text())["rows"] == found["rows"]
    assert figure.stat().st_size > 10_000


def test_step_of_the_authors_is_found_for_the_generator_that_is_trained(monkeypatch):
    training, laws = importlib.import_module("benchmarks.training"), []
    monkeypatch.setattr(training, "train", lambda *facts, step: laws.append(facts[4:]) or step)
    monkeypatch.setattr(training, "measure", lambda run, judge: {"frechet": abs(run - 5.0)})
    best, found = training.best_step(None, 1.0, None, 7, "dcgan")
    assert (best, set(found)) == (5.0, set(training.STEPS))
    assert set(laws) == {(7, "dcgan")}


@pytest.fixture
def paper(rng, monkeypatch, tmp_path):
    """A call of the benchmark of the paper, with two steps of each generator: its rows."""
    mnist = write_spots(tmp_path, rng, n_train=200, n_test=100)
    module, path = importlib.import_module("benchmarks.paper.__main__"), tmp_path / "results.json"
    few = lambda images, labels, n_steps: Classifier(images, labels, n_steps=20)
    monkeypatch.setattr(module, "Classifier", few)
    small = lambda name, shape: nn.Sequential(mlp_generator(100, shape, (16,)), nn.Flatten())
    for part in (module.fixed_batch, module.images):
        monkeypatch.setattr(part, "make_generator", small)

    def call(options):
        run(module, monkeypatch, [*options.split(), "--mnist", mnist, "--json", path])
        return json.loads(path.read_text())["rows"]

    return call


def test_paper_solves_the_dual_of_a_fixed_batch_and_certifies_it(paper):
    rows = {row["name"]: row for row in paper("--share 0.05 --experiment fixed_batch")}
    best = rows.pop("ours")
    assert 0.0 <= best["gap"] < 1e-4
    assert len(rows) == 3
    assert all(row["value"] <= best["value"] + best["gap"] for row in rows.values())


def test_paper_certifies_its_maximum_where_masses_are_uneven():
    """With many points an atom, a good start must not be given up for what few of them say."""
    from benchmarks.paper import fixed_batch

    rng = np.random.default_rng(1)
    x, y = 0.3 * rng.standard_t(3, (200, 10)), rng.standard_t(3, (60_000, 10))
    unit = np.sqrt((y**2).sum(axis=1).mean())
    x, y = (torch.as_tensor(rows / unit, dtype=torch.float32) for rows in (x, y))
    value, gap = fixed_batch.certified(fixed_batch.ours(x, y), x, y)
    assert 0.0 <= gap < 2e-4 * value


def test_generators_of_the_paper_are_those_of_its_scripts():
    from benchmarks.paper.rules import make_generator

    for name, count in (("DCGAN", 600_512), ("MLP", 1_486_352)):
        generator = make_generator(name, (28, 28))
        assert generator(torch.zeros(2, 100)).shape == (2, 784)
        assert sum(p.numel() for p in generator.parameters()) == count


def test_certificate_of_the_paper_tells_a_potential_that_is_not_optimal(rng):
    from benchmarks.paper import fixed_batch

    x, y = torch.as_tensor(rng.normal(size=(10, 2))), torch.as_tensor(rng.normal(size=(400, 2)))
    value, gap = fixed_batch.certified(fixed_batch.ours(x, y, 0.1), x, y)
    costs, a, b = ot.dist(x.numpy(), y.numpy()), np.full(10, 0.1), np.full(400, 1 / 400)
    plan, log = ot.sinkhorn(a, b, costs, 0.1, method="sinkhorn_log", stopThr=1e-12, log=True)
    cost = np.sum(plan * (costs + 0.1 * np.log(plan * 4000.0)))
    assert value - 1e-6 <= cost <= value + gap + 1e-6
    assert gap < 1e-4  # within the error of as many points of an unknown law
    target = Problem.of(x, None, None, 0.1).target
    best = SemiDiscretePlan(target, torch.as_tensor(0.1 * (log["log_u"] - np.log(a))), 0.1)
    below, gap = fixed_batch.certified(best, x, y)
    assert below == pytest.approx(cost, abs=1e-8)
    assert 0.0 <= gap < 1e-8
    poor = SemiDiscretePlan(target, 0.0 * target.weights, 0.1)
    below, gap = fixed_batch.certified(poor, x, y)
    assert 0.01 < value - below <= gap


def test_paper_trains_its_generators_once(paper, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    options = "--share 0.0006 --experiment fresh_batches sweep parts wgans --generators MLP --regs 0"
    monkeypatch.setenv("MPLBACKEND", "agg")
    rows = paper(f"{options} --figures {tmp_path / 'figures'}")
    count = {name: sum(row["experiment"] == name for row in rows) for name in options.split()[3:7]}
    assert count == {"fresh_batches": 5, "sweep": 3, "parts": 5, "wgans": 2}
    assert all(len(row["losses"]) == 2 for row in rows if "losses" in row)
    for name in ("fresh_batches", "sweep_MLP_images", "parts_losses", "wgans_images"):
        assert (tmp_path / "figures" / f"{name}.png").stat().st_size > 5_000
    assert "vector, reg 0" in (tmp_path / "figures" / "sweep.txt").read_text()
    assert paper(options) == rows  # seconds and all


def test_paper_makes_all_on_the_device_that_was_asked_for(paper, tmp_path, monkeypatch):
    """Nothing that it makes itself goes to torch's default device; seconds are those of the device."""
    from benchmarks import machine
    from benchmarks.paper.__main__ import Settings

    found, clocks, seconds = set(), set(), machine.seconds

    def noting(name, make):
        def noted(*args, **options):
            if sys._getframe(1).f_globals["__name__"].startswith("benchmarks.paper."):
                found.add((name, str(options.get("device"))))
            return make(*args, **options)

        return noted

    names = ("rand", "randint", "arange", "zeros")
    for name in names:
        monkeypatch.setattr(torch, name, noting(name, getattr(torch, name)))
    monkeypatch.setattr(machine, "seconds", lambda call, *on: clocks.add(on) or seconds(call, *on))
    options = "--share 0.0006 --experiment fixed_batch fresh_batches sweep parts wgans --generators MLP"
    rows = paper(f"{options} --regs 0.1 --device cpu")
    assert found == {(name, "cpu") for name in names}
    assert clocks == {("cpu",)}
    assert len(rows) == 19
    assert not any("device" in row for row in rows)
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"rows": [row | {"device": "cuda"} for row in rows]}))
    rows = paper("--share 0.0006 --experiment wgans --generators MLP")
    assert {row.get("device") for row in rows if row["experiment"] == "wgans"} == {None}  # made again

    images, settings = np.zeros((3, 8, 8), np.float32), object.__new__(Settings)
    settings.data, settings.device = (images, None), torch.device("meta")
    assert settings.images.device.type == "meta"


def test_paper_runs_the_example_of_three_atoms(paper):
    pytest.importorskip("matplotlib")
    (row,) = paper("--share 0.002 --experiment three_atoms")
    assert {run["rule"] for run in row["runs"]} == {"authors", "train_parameters"}


def test_critics_stay_lipschitz():
    from benchmarks.wgan import CLIP, WGAN, perceptron
    from pot_semidiscrete.generative.critic import gradient_penalty

    torch.manual_seed(0)
    x, y = torch.randn(200, 3), torch.randn(200, 3) + torch.tensor([2.0, 0.0, 0.0])
    clipped, penalised = (WGAN(perceptron(3, (32,)), kind, 1e-2) for kind in ("clipping", "penalty"))
    for _ in range(100):
        clipped.step(x, y)
        penalised.step(x, y)
    weights = torch.nn.utils.parameters_to_vector(clipped.critic.parameters()).detach()
    assert weights.abs().max() <= CLIP < 1.1 * weights.abs().max()
    assert gradient_penalty(penalised.critic, x, y, torch.rand(200, 1)) < 0.1
    with torch.no_grad():
        distance = float(penalised.critic(y).mean() - penalised.critic(x).mean())
    assert distance == pytest.approx(2.0, abs=0.5)


def test_scaling_measures_the_error_of_what_stops_by_itself(rng, monkeypatch, tmp_path):
    mnist = write_spots(tmp_path, rng)
    module, path = importlib.import_module("benchmarks.scaling"), tmp_path / "results.json"
    options = f"--n-atoms 100 --targets images --solvers ours --chi2 0.05 --mnist {mnist} --json {path}"
    run(module, monkeypatch, options.split())
    (row,) = json.loads(path.read_text())["rows"]
    assert row["reached"]
    assert row["measured_chi2"] <= 0.05 + 3.0 * row["measured_stderr"]
    assert row["chi2_at_zero"] > 0.05
    assert 0.0 < row["measured_n_eff"] < 100.0


@pytest.mark.parametrize("name", ["scaling", "scaling_peers"])
def test_exponents_in_git_are_of_their_rows(name):
    """Rows of several commands stand in one file; what is fitted to them has to be fitted again."""
    from benchmarks import scaling

    known = json.loads((FOLDER / "results" / f"{name}.json").read_text())
    fitted, written = scaling.exponents(known["rows"]), known["exponents"]
    assert len(written) > 0
    label = lambda row: (row["target"], row["dimension"], row["solver"])
    assert sorted(map(label, written)) == sorted(map(label, fitted))
    exponents = {label(row): row["exponent"] for row in fitted}
    for row in written:  # seconds have four digits, and so has an exponent
        assert row["exponent"] == pytest.approx(exponents[label(row)], abs=1e-3)


def test_scaling_times_a_few_samples_of_many_atoms():
    from benchmarks import scaling

    problem = scaling.synthetic("heavy", 100, 2)
    row = scaling.few("ours", problem, 512)
    assert row["n_atoms"] == 100
    assert row["samples"] == 512
    assert row["seconds"] > 0.0


def test_headline_is_certified_and_predicts_the_whole(monkeypatch, tmp_path):
    module, path = importlib.import_module("benchmarks.scaling"), tmp_path / "results.json"
    monkeypatch.setattr(module, "BLOCK", 2**17)  # fewer points of 3,072 coordinates
    options = f"--headline 0.0002 0.0003 0.0004 --relative-reg 0.01 --json {path}"
    run(module, monkeypatch, options.split())
    found = json.loads(path.read_text())
    assert [row["n_atoms"] for row in found["rows"]] == [40, 30, 20]
    for row in found["rows"]:
        assert row["reached"]
        assert row["measured_chi2"] <= 0.05 + 3.0 * row["measured_stderr"]
        assert row["work"] >= row["samples"] * row["n_atoms"]
    (held_out,) = found["held_out"]
    assert held_out["samples"] == found["rows"][0]["samples"]
    assert 0.5 < held_out["predicted"] / held_out["samples"] < 2.0
    whole, *_, most, imagenet = found["predicted"]
    law = whole["samples"]["power_law"]
    assert law["low"] < law["value"] < law["high"]
    assert whole["samples"]["value"] < most["samples"]["value"]  # where all atoms count
    assert imagenet["entries"] == pytest.approx(12.8**2 * most["entries"], rel=1e-3)
    # as long as the largest run took for an entry
    largest = max(found["rows"], key=lambda row: row["work"])
    here = 1e-9 * largest["ns_an_entry"] * whole["entries"]
    assert whole["seconds"]["as here"] == pytest.approx(here, rel=1e-3)


def test_predictions_are_those_of_a_power_law_and_of_rates():
    from benchmarks import predictions

    sizes = np.array([500, 500, 1000, 2000])
    found = predictions.extrapolated(100_000, sizes, 7.0 * sizes**0.8)
    assert found["exponent"] == pytest.approx(0.8)
    for name in ("low", "value", "high"):
        assert found[name] == pytest.approx(7.0 * 100_000**0.8)
    rates = predictions.Rates(flops=100.0, powers=10.0, products=3, passes=2, bandwidth=16.0)
    assert rates.seconds(5, dimension=50) == pytest.approx(5 * (3 * (1.0 + 0.1) + 0.5))


def test_interval_of_an_extrapolation_covers_the_law(rng):
    from benchmarks import predictions

    sizes, covered = np.repeat([500, 1000, 2000, 4000], 2), 0
    for _ in range(200):
        noisy = 3.0 * sizes**0.9 * np.exp(0.1 * rng.standard_normal(8))
        found = predictions.extrapolated(100_000, sizes, noisy)
        covered += found["low"] <= 3.0 * 100_000**0.9 <= found["high"]
    assert 180 <= covered <= 199  # 190 expected, with a standard deviation of 3


def test_fields_have_the_spectrum_of_images():
    from benchmarks import scaling

    fields = scaling.fields(1001, side=16)
    np.testing.assert_array_equal(fields[:20], scaling.fields(20, side=16))
    images = fields[:1000].reshape(1000, 3, 16, 16).astype(float)
    assert images.std() == pytest.approx(0.5, rel=0.1)
    power = (np.abs(np.fft.fft2(images)) ** 2).mean(axis=(0, 1))
    for k in (1, 2, 4):  # twice the frequency has a fourth of the power
        assert power[0, k] / power[0, 2 * k] == pytest.approx(4.0, rel=0.15)
    across = np.corrcoef(images[:, 0].ravel(), images[:, 1].ravel())[0, 1]
    assert across == pytest.approx(0.8, abs=0.03)


def test_error_that_scaling_measures_is_that_of_an_integral():
    from benchmarks import problems, references, scaling

    problem = scaling.synthetic("heavy", 200, 2)
    potential = 0.1 * problem.atoms[:, 0].astype(float)
    found = scaling.measured(problem, potential, 0.1)
    nodes = problems.normal_nodes(300, 2)
    facts = (nodes, problem.atoms.astype(float), problem.weights, problem.reg)
    marginal = references.semi_dual(*facts, potential)[1]
    exact = ((marginal - problem.weights) ** 2 / problem.weights).sum()
    assert found.stderr <= 0.1 * max(0.1, found.chi2)
    assert abs(found.chi2 - exact) < 4.0 * found.stderr


def test_gallery_keeps_what_an_example_prints_and_draws(rng, monkeypatch, tmp_path, capsys):
    pytest.importorskip("sklearn")
    from benchmarks import gallery

    mnist, output = write_spots(tmp_path, rng), tmp_path / "output"
    monkeypatch.setenv("MPLBACKEND", "agg")
    gallery.run("train_generator", "plot_train_generator", "--steps 5", mnist, output)
    printed = (output / "train_generator.txt").read_text()
    assert printed.startswith("plot_train_generator.py --mnist FOLDER --steps 5")
    assert capsys.readouterr().out.strip() in printed
    assert (output / "train_generator.png").stat().st_size > 1000
