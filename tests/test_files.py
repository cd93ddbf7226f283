"""Files: nothing else is written over, and whatever is wrong with one is said, and not loaded."""

import io
import json
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import pot_semidiscrete as sd
from pot_semidiscrete import SemiDiscreteResult, SemiDiscreteWarning, costs
from tests.backends import BACKENDS, needs_torch

ROOT = Path(__file__).parent.parent
ATOMS = np.random.default_rng(1).normal(size=(12, 3))
ATOMS[4] = ATOMS[2]
WEIGHTS = np.array([0.0, 0.3, *[0.07] * 10])


def solve(atoms=ATOMS, **options):
    """A run of three steps, with an atom of weight 0 and two at one place."""
    options = {"a_target": WEIGHTS, "reg": 0.2, "tol": 0, "max_iter": 3, "random_state": 0} | options
    return sd.solve_semidiscrete(atoms, "normal", **options)


def train(path, n_steps=4, data=None, **options):
    """A run that writes a checkpoint, from the same weights each time."""
    import torch

    from pot_semidiscrete.generative import train_generator

    generator = torch.nn.Linear(2, 3)
    torch.nn.init.eye_(generator.weight)
    torch.nn.init.zeros_(generator.bias)
    data = torch.from_numpy(ATOMS.astype(np.float32)) if data is None else data
    options = {"batch_size": 8, "random_state": 0, "checkpoint": path} | options
    return train_generator(generator, 2, data, n_steps=n_steps, **options)


WRITERS = [solve().save, pytest.param(train, marks=needs_torch)]
each_writer = pytest.mark.parametrize("write", WRITERS, ids=["save", "checkpoint"])


# What is written over.


@each_writer
def test_only_regular_files_are_replaced(write, tmp_path):
    pipe, folder = tmp_path / "pipe", tmp_path / "folder"
    os.mkfifo(pipe)
    folder.mkdir()
    for path in (pipe, folder, "/dev/full"):
        mode = os.stat(path).st_mode
        with pytest.raises(ValueError, match=r"expected a file, received .*(folder|pipe)"):
            write(path)
        assert os.stat(path).st_mode == mode
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "pipe"]


@each_writer
@pytest.mark.parametrize("exists", [True, False])
def test_link_is_followed(write, exists, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    file, link = tmp_path / "elsewhere" / "result", tmp_path / "link"
    if exists:
        write(file)
    link.symlink_to(file)
    write(link)
    assert link.is_symlink()
    assert stat.S_ISREG(file.lstat().st_mode)
    assert [p.name for p in file.parent.iterdir()] == ["result"]


@each_writer
def test_missing_folder_is_named_and_noticed_first(write, tmp_path):
    path = tmp_path / "no" / "result"
    with pytest.raises(
        ValueError, match=r"expected a file in a folder that exists, .*no/result.*make"
    ) as error:
        write(path)
    assert "partial" not in str(error.value)
    assert not hasattr(error.value, "partial_result"), "nothing was begun"


@each_writer
@pytest.mark.parametrize("path", [3, None, object(), 2.5])
def test_no_path_is_a_type_error(write, path):
    if write is train and path is None:
        pytest.skip("no checkpoint")
    with pytest.raises(TypeError, match="expected a path, received"):
        write(path)


def test_partial_file_of_a_killed_run_is_not_followed(tmp_path):
    """What lies where we write first may be anything: a link of another's."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "result.partial").symlink_to(victim)
    solve().save(tmp_path / "result")
    assert victim.read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["result", "victim"]


def test_permissions_of_a_file_stay(tmp_path):
    path = tmp_path / "result"
    solve().save(path)
    path.chmod(0o640)
    solve().save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


# What is read.


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The file of a result."""
    path = tmp_path_factory.mktemp("saved") / "result"
    solve().save(path)
    return path


def told(result):
    """All that a file keeps, as comparable numbers."""
    facts = (
        result.value_interval,
        result.chi2,
        result.n_samples,
        result.work,
        result.reg,
        result.status,
    )
    return (*facts, result.potential.tobytes(), result.marginal_b.tobytes(), result.log["reg"].tobytes())


def flipped(file, path, n, read):
    """Of n copies of a file with one bit wrong each, how many are refused; the others read alike."""
    whole, expected, refused = file.read_bytes(), read(file), 0
    for bit in np.random.default_rng(0).choice(8 * len(whole), n, replace=False):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        try:
            found, error = read(path), None
        except ValueError as raised:
            error = raised
        if error is None:
            assert found == expected
        else:
            assert path.name in str(error)
            refused += 1
    return refused


def test_any_flipped_bit_is_noticed_or_harmless(saved, tmp_path):
    """A file with one bit wrong is refused by name, or gives exactly the result that was saved."""
    read = lambda path: told(SemiDiscreteResult.load(path, ATOMS))
    assert flipped(saved, tmp_path / "bad", 400, read) > 200


def test_any_cut_is_noticed(saved, tmp_path):
    whole, path = saved.read_bytes(), tmp_path / "cut"
    for length in np.linspace(0, len(whole) - 1, 60).astype(int):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut: expected a file written by SemiDiscreteResult.save"):
            SemiDiscreteResult.load(path, ATOMS)


def rewritten(saved, path, facts=None, drop=(), **arrays):
    """A file of ours by another hand: other facts, other arrays."""
    with np.load(saved) as file:
        members = {name: file[name] for name in file.files if name not in drop}
    meta = json.loads(str(members.get("meta", "{}")))
    if facts is not None:
        members["meta"] = np.array(json.dumps({k: v for k, v in (meta | facts).items() if v != "gone"}))
    with open(path, "wb") as file:
        np.savez(file, **(members | arrays))
    return path


BAD_ARRAYS = {
    "potential": [
        np.zeros(11),
        np.zeros((12, 1)),
        np.full(12, np.nan),
        np.array(["a"] * 12),
        np.zeros(12, int),
    ],
    "weights": [np.zeros(12), -WEIGHTS, np.full(12, np.inf), 2 * WEIGHTS, WEIGHTS[:, None], np.zeros(0)],
    "marginal": [np.zeros(11), np.full(12, np.inf), np.zeros(12, complex)],
    "meta": [np.array("{"), np.array("3"), np.array(3.0), np.array("{}"), np.array(["{}"])],
    "log_reg": [np.array(["a"]), np.zeros((2, 2)), np.array(0.0)],
}
BAD_FACTS = {
    "format": [3, None, "1", "gone"],
    "status": ["done", 3, None, "gone"],
    "metric": [None, 3, "gone"],
    "reg": [-0.1, np.nan, np.inf, "0.2", None, True, "gone"],
    "n_iter": [-1, 2.5, "3", None, True, "gone"],
    "n_samples": [-1, np.nan, "gone"],
    "work": [-1.0, "many"],
    "value": [np.nan, np.inf, "1", "gone"],
    "value_linear": [np.nan, [1.0], "gone"],
    "value_stderr": [-1.0, None, "gone"],
    "chi2": ["0", None, [], "gone"],
    "chi2_stderr": [-1.0, "0", "gone"],
    "value_interval": [[1.0], [2.0, 1.0], 1.0, ["a", "b"], [None, 1.0], "gone"],
    "suboptimality": [None, "0", "gone"],
    "suboptimality_bound": [-1.0, "0"],
    "marginal_error": [-1.0, None],
    "digest": ["0", None, 3, "gone"],
}


@pytest.mark.parametrize(("name", "bad"), [(n, v) for n, values in BAD_ARRAYS.items() for v in values])
def test_each_array_is_checked(name, bad, saved, tmp_path):
    path = rewritten(saved, tmp_path / "made", **{name: bad})
    with pytest.raises(ValueError, match=r"made"):
        SemiDiscreteResult.load(path, ATOMS)


@pytest.mark.parametrize(("name", "bad"), [(n, v) for n, values in BAD_FACTS.items() for v in values])
def test_each_fact_is_checked(name, bad, saved, tmp_path):
    path = rewritten(saved, tmp_path / "made", {name: bad})
    with pytest.raises(ValueError, match=r"made"):
        SemiDiscreteResult.load(path, ATOMS)


@pytest.mark.parametrize("name", ["meta", "potential", "weights"])
def test_missing_entry_is_named(name, saved, tmp_path):
    path = rewritten(saved, tmp_path / "made", drop=(name,))
    with pytest.raises(ValueError, match=rf"made: expected a file .*no entry '{name}'.*whole"):
        SemiDiscreteResult.load(path, ATOMS)


def test_unchanged_rewriting_is_read(saved, tmp_path):
    path = rewritten(saved, tmp_path / "made", {})
    assert told(SemiDiscreteResult.load(path, ATOMS)) == told(SemiDiscreteResult.load(saved, ATOMS))


def test_length_that_is_only_claimed_takes_no_memory(saved, tmp_path):
    """A header of 1e12 numbers, in a file of some kilobytes."""
    claim = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        claim, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
    )
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = rewritten(saved, tmp_path / "made", drop=("weights",))
        with zipfile.ZipFile(path, "a", compression) as archive:
            archive.writestr("weights.npy", claim.getvalue() + bytes(1000))
        with pytest.raises(
            ValueError, match=r"made.*'weights' that is said to have 8000000000000 bytes"
        ):
            SemiDiscreteResult.load(path, ATOMS)


def test_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(ValueError, match="expected a file, received"):
            SemiDiscreteResult.load(path, ATOMS)
    with pytest.raises(TypeError, match="expected a path"):
        SemiDiscreteResult.load(3, ATOMS)


# Which atoms a file is of.


def null_direction(d=3):
    """Orthogonal to the projection of version 0.1.0."""
    along = np.cos(1.0 + np.arange(d))
    return np.cross(along, [1.0, 0.0, 0.0])


@pytest.mark.parametrize(
    "atoms",
    [
        ATOMS + np.outer(np.arange(12) == 5, null_direction()),
        ATOMS + np.outer(np.arange(12) == 0, null_direction()),
        np.hstack([ATOMS, np.zeros((12, 1))]),
        ATOMS + np.outer(np.arange(12) == 5, [1e-6, 0.0, 0.0]),
        np.vstack([ATOMS[1:2], ATOMS[:1], ATOMS[2:]]),
        ATOMS.reshape(18, 2),
    ],
    ids=["orthogonal", "of-no-weight", "column", "slightly", "order", "shape"],
)
def test_other_atoms_are_refused(atoms, saved):
    with pytest.raises(ValueError, match="X_target: expected"):
        SemiDiscreteResult.load(saved, atoms)


@pytest.mark.parametrize("reg", [0.0, 0.2])
def test_same_atoms_in_another_form_are_taken(reg, nx, tmp_path):
    solve(nx.array(ATOMS), a_target=nx.array(WEIGHTS), reg=reg).save(tmp_path / "result")
    forms = [ATOMS.astype(np.float32), np.asfortranarray(ATOMS), np.repeat(ATOMS, 2, axis=0)[::2]]
    forms += [ATOMS + 0.0, nx.array(ATOMS), ATOMS.astype(np.float32).astype(float)]
    if "torch" in BACKENDS:
        import torch

        forms += [torch.from_numpy(ATOMS), torch.from_numpy(ATOMS.T.copy()).T.float()]
    for form in forms:
        assert SemiDiscreteResult.load(tmp_path / "result", form).reg == reg


def test_atoms_of_any_size_are_told_apart():
    from pot_semidiscrete.problem import build_target

    for scale in (1e-60, 1e-20, 1.0, 1e20, 1e60):
        digests = {
            build_target(scale * atoms).digest for atoms in (ATOMS, -ATOMS, ATOMS[::-1], ATOMS**3)
        }
        assert len(digests) == 4
    assert build_target(0.0 * ATOMS[:2]).digest == build_target(-0.0 * ATOMS[:2]).digest


class Scaled(costs.Cost):
    """A cost with a constant, which its name does not tell."""

    name = "scaled"

    def __init__(self, scale):
        self.scale = scale

    def matrix(self, x, y, nx):
        return self.scale * nx.sum((x[:, None, :] - y[None, :, :]) ** 2, axis=2)


def test_cost_with_another_constant_is_refused(nx, tmp_path):
    atoms = nx.array(ATOMS)
    solve(atoms, a_target=nx.array(WEIGHTS), metric=Scaled(2.0)).save(tmp_path / "result")
    assert SemiDiscreteResult.load(tmp_path / "result", atoms, Scaled(2.0)).n_iter == 3
    with pytest.raises(ValueError, match=r"metric: .*another of the same name, 'scaled'"):
        SemiDiscreteResult.load(tmp_path / "result", atoms, Scaled(3.0))


# Checkpoints, and states of a loss.


@needs_torch
def test_any_flipped_bit_of_a_checkpoint_is_noticed_or_harmless(tmp_path):
    """It says that the file is broken, or goes on as from the whole one."""
    path, bad = tmp_path / "run.pt", tmp_path / "bad.pt"
    train(path)

    def read(path):
        content = path.read_bytes()
        weight = train(path, 6).generator.weight.detach().numpy().tobytes()
        path.write_bytes(content)  # it went on
        return weight

    assert flipped(path, bad, 150, read) > 30


@needs_torch
def test_a_tensor_that_is_marked_as_a_folder_is_noticed(tmp_path):
    """Torch leaves it as memory was."""
    path = tmp_path / "run.pt"
    train(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02") + 38  # attributes, in the directory
    content[at] |= 0x10
    path.write_bytes(content)
    with pytest.raises(ValueError, match="broken archive"):
        train(path, 6)


@needs_torch
@pytest.mark.parametrize("entry", ["problem", "run", "latent_sampler", "callback", "global_random"])
@pytest.mark.parametrize("value", ["gone", None, 3, {}, {"n_steps": 3}])
def test_checkpoint_by_another_hand_is_refused(entry, value, tmp_path):
    import torch

    path = tmp_path / "run.pt"
    train(path)
    state = torch.load(path, weights_only=True)
    if entry == "callback" and value in (None, {}, {"n_steps": 3}):
        pytest.skip("of a callback that is not given again, it is not asked for")
    if entry == "global_random" and value == {}:
        pytest.skip("that is what it is")
    state[entry] = value
    if value == "gone":
        del state[entry]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"checkpoint: expected .*run\.pt"):
        train(path, 6)


@needs_torch
def test_checkpoint_of_data_moved_orthogonally_is_refused(tmp_path):
    import torch

    path = tmp_path / "run.pt"
    train(path)
    moved = torch.from_numpy((ATOMS + np.outer(np.arange(12) == 5, null_direction())).astype(np.float32))
    with pytest.raises(ValueError, match=r"data: expected"):
        train(path, 6, moved)


@needs_torch
def test_checkpoint_of_the_first_version_continues_with_a_warning(tmp_path):
    from tests.test_checkpoints import run

    path = tmp_path / "run.pt"
    path.write_bytes(Path(__file__).with_name("checkpoint_0.1.0.pt").read_bytes())
    with pytest.warns(SemiDiscreteWarning, match="written by version") as warned:
        result, _ = run(8, checkpoint=path)
    assert "run.pt" in str(warned[0].message)
    assert result.n_steps == 8
    result, _ = run(9, checkpoint=path)  # now it is of this version
    assert result.n_steps == 9


@needs_torch
def test_state_of_a_loss_is_refused_by_other_data():
    import torch

    from pot_semidiscrete.generative import SemiDiscreteLoss

    data = torch.from_numpy(ATOMS.astype(np.float32))
    loss = SemiDiscreteLoss(data)
    loss.follow(data)
    state = loss.state_dict()
    SemiDiscreteLoss(data.double()).load_state_dict(state)
    weights = torch.linspace(1.0, 2.0, 12)
    of_weights = SemiDiscreteLoss(data, weights / weights.sum()).state_dict()["_extra_state"]
    for bad, words in [
        (
            state | {"_extra_state": SemiDiscreteLoss(data + 1.0).state_dict()["_extra_state"]},
            "of others",
        ),
        (state | {"_extra_state": of_weights}, "of others"),
        (state | {"potential": torch.full((12,), torch.nan)}, "NaN"),
        (state | {"_extra_state": 3}, "of others"),
    ]:
        fresh = SemiDiscreteLoss(data)
        with pytest.raises(ValueError, match=rf"state_dict: expected .*{words}"):
            fresh.load_state_dict(bad)
        assert (fresh.potential == 0).all(), "nothing was taken of it"
    del state["_extra_state"]
    with pytest.warns(SemiDiscreteWarning, match=r"0\.1\.0"):
        SemiDiscreteLoss(data).load_state_dict(state)


# Ends of all kinds.


STAGES, STEPS = 60, 100


def stages(path):
    """A long solve in stages, each from the potential that the last one saved."""
    k, potential = 0, None
    if os.path.exists(path):
        result = SemiDiscreteResult.load(path, ATOMS)
        k, potential = result.n_iter, result.potential
    while k < STAGES:
        result = solve(max_iter=1, init_potential=potential, random_state=k)
        if result.status == "interrupted":
            raise KeyboardInterrupt
        k, potential = k + 1, result.potential
        result.n_iter = k
        result.save(path)
    return potential


ENDING = """
import contextlib, errno, os, random, resource, signal, sys, time
from tests import test_files
from pot_semidiscrete.runs import files

folder, *kinds = sys.argv[1:]
WORKS = {
    "solve": test_files.stages,
    "train": lambda path: test_files.train(path, test_files.STEPS, checkpoint_every=1),
}
fsync = os.fsync

def fill_after(n):
    left = iter(range(n))

    def full(file):
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    files.os.fsync = full

def child(way, path, work):
    if way == "size":  # of what is written next, a part
        size = os.path.getsize(path) if os.path.exists(path) else 4000
        resource.setrlimit(resource.RLIMIT_FSIZE, (random.randint(1, size),) * 2)
    fill_after(0 if way == "full" else 5)  # so that it is in its midst, however late a signal comes
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        work(path)
    except (OSError, KeyboardInterrupt):
        os._exit(3)
    os._exit(0)

def wait_for_a_writing(path, pid):
    written = lambda: os.stat(path).st_ino if os.path.exists(path) else None
    before, start = written(), time.monotonic()
    while written() == before and os.waitpid(pid, os.WNOHANG) == (0, 0):
        time.sleep(1e-4)
    return time.monotonic() - start

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background ignores
for kind in kinds:
    path, work = f"{folder}/{kind}", WORKS[kind]
    if kind == "train":
        import torch
        torch.set_num_threads(1)
    work(path + ".first")  # what is imported on first use, is imported once
    random.seed(0)
    for k in range(20):
        way = ["kill", "interrupt", "size", "full"][k % 4]
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        pid = os.fork()
        if pid == 0:
            random.seed(k)
            child(way, path, work)
        with contextlib.suppress(ChildProcessError, ProcessLookupError):  # the signal came too late
            if way in ("kill", "interrupt"):
                for _ in range(random.randint(1, 4)):
                    seconds = wait_for_a_writing(path, pid)
                time.sleep(seconds * random.random())  # at any moment of a step
                os.kill(pid, signal.SIGKILL if way == "kill" else signal.SIGINT)
            os.waitpid(pid, 0)
        print(kind, way, os.path.exists(path))
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A folder with a run of each kind, which ended 20 times, and one that did not."""
    folder, kinds = tmp_path_factory.mktemp("ends"), ["solve", *["train"] * ("torch" in BACKENDS)]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", ENDING, str(folder), *kinds],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 20 * len(kinds)
    return folder


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kind", ["solve", pytest.param("train", marks=needs_torch)])
def test_twenty_ends_leave_the_run_as_it_would_have_been(kind, ended):
    """SIGKILL, SIGINT, a limit of the size of files, a full disk: at any moment."""
    path, first = ended / kind, ended / f"{kind}.first"
    if kind == "solve":
        assert 0 < SemiDiscreteResult.load(path, ATOMS).n_iter < STAGES, "they came in its midst"
        np.testing.assert_array_equal(stages(path), stages(first))
        return
    import torch

    assert 0 < torch.load(path, weights_only=True)["run"]["n_steps"] < STEPS
    again, whole = (train(p, STEPS, checkpoint_every=100) for p in (path, first))
    np.testing.assert_array_equal(again.generator.weight.detach(), whole.generator.weight.detach())
    np.testing.assert_array_equal(again.loss.potential, whole.loss.potential)
    np.testing.assert_array_equal(again.history["loss"], whole.history["loss"])
