"""Atoms that are read in parts give what those in memory give, in the memory of a part."""

import os
import subprocess
import sys

import numpy as np
import pytest

import pot_semidiscrete as ps
from pot_semidiscrete.backend import converted
from pot_semidiscrete.problem import problem, stored
from tests.backends import uncrossed

N, D = 120, 5


class DataSet:
    """Rows as files of h5py have them: by slices, or by rising numbers without copies."""

    def __init__(self, rows):
        self._rows, self.shape, self.dtype = rows, rows.shape, rows.dtype

    def __getitem__(self, which):
        if not isinstance(which, slice):
            assert (np.diff(which) > 0).all()
        return self._rows[which]


@pytest.fixture
def rows(rng, monkeypatch):
    """Some at one place, in parts of a few."""
    monkeypatch.setattr(stored, "BLOCK_BYTES", 16 * 50 * D * 8)
    rows = rng.normal(size=(N, D)) + 3.0
    rows[[7, 70]] = rows[110]
    return rows


@pytest.fixture
def weights(rng):
    """Random ones, two of them 0."""
    weights = rng.random(N)
    weights[[3, 90]] = 0.0
    return weights / weights.sum()


def assert_close(nx, found, expected, factor=1e3):
    """The same but for rounding, in units of the largest number."""
    found, expected = nx.host(found), nx.host(expected)
    np.testing.assert_allclose(found, expected, atol=factor * nx.eps * (1.0 + np.abs(expected).max()))


def stored_atoms(kind, rows, nx, folder):
    """Rows in a file, or in a data set, of the dtype of `nx`."""
    rows = rows.astype(nx.dtype)
    rows.tofile(folder / "rows")
    file = np.memmap(folder / "rows", dtype=nx.dtype, mode="r", shape=rows.shape)
    return ps.StoredAtoms(file if kind == "memmap" else DataSet(rows), like=nx.array(np.zeros(1)))


KINDS = ("memmap", "sqeuclidean"), ("data set", "euclidean")


@pytest.mark.parametrize("reg", [0.0, 0.5])
@pytest.mark.parametrize(("kind", "metric"), KINDS)
def test_fields_equal_those_in_memory(kind, metric, reg, rows, weights, rng, nx, tmp_path):
    kept, atoms = stored_atoms(kind, rows, nx, tmp_path), nx.array(rows)
    x, psi = nx.array(rows[:40] + 0.1), nx.array(rng.normal(size=N))
    options = {"a_target": nx.array(weights), "metric": metric, "reg": reg}
    for name in ("c_transform", "atom_weights", "ot_map", "gradient", "loss"):
        function = getattr(ps, f"semidiscrete_{name}")
        assert_close(nx, function(kept, x, psi, **options), function(atoms, x, psi, **options))


@uncrossed
@pytest.mark.parametrize("reg", [0.0, 0.5])
@pytest.mark.parametrize(("kind", "metric"), KINDS)
def test_equal_those_in_memory(kind, metric, reg, rows, weights, nx, tmp_path):
    rows, kept = rows.astype(nx.dtype), stored_atoms(kind, rows, nx, tmp_path)
    atoms, b, x = nx.array(rows), nx.array(weights), nx.array(rows[:40] + 0.1)
    options = {"a_target": b, "metric": metric, "reg": reg}
    settings = {"tol": 0, "max_iter": 3, "max_memory": 0, "random_state": 0}  # no Newton: it forks
    expected = ps.solve_semidiscrete(atoms, nx.array(rows[::3] + 0.3), **options, **settings)
    found = ps.solve_semidiscrete(kept, nx.array(rows[::3] + 0.3), **options, **settings)
    assert found.n_samples == expected.n_samples
    psi = expected.potential
    if reg > 0 or nx.dtype == "float64":
        assert_close(nx, found.potential, psi, 1e4)
    else:  # where 40 points tie between 120 atoms, rounding chooses
        assert float(found.value) == pytest.approx(float(expected.value), rel=0.01)
    again = ps.solve_semidiscrete(kept, x, **options, init_potential=psi, tol=0, max_iter=1)
    path = tmp_path / "result"
    again.save(path)
    loaded = ps.SemiDiscreteResult.load(path, kept, metric)
    np.testing.assert_array_equal(nx.host(loaded.potential), nx.host(again.potential))
    ps.SemiDiscreteResult.load(path, atoms, metric)
    pairs = [nx.host(result.pair(x, random_state=0)) for result in (again, loaded)]
    np.testing.assert_array_equal(*pairs)
    assert ps.cost_scale(kept, b, metric) == pytest.approx(ps.cost_scale(atoms, b, metric), rel=1e-4)
    if reg > 0:
        np.testing.assert_allclose(
            again.suboptimality, loaded.suboptimality, atol=1e3 * nx.eps * again.value
        )
        assert str(again.diagnose(x)) == str(loaded.diagnose(x))


def test_bytes_are_scaled(nx, rng, monkeypatch):
    monkeypatch.setattr(stored, "BLOCK_BYTES", 1600)
    images = rng.integers(256, size=(30, 2, 3), dtype=np.uint8)
    kept = ps.StoredAtoms(images, 1 / 255, like=nx.array([0.0]))
    x, psi = nx.array(rng.random((9, 6))), nx.array(rng.normal(size=30))
    found = ps.semidiscrete_ot_map(kept, x, psi, reg=0.1)
    assert_close(
        nx, found, ps.semidiscrete_ot_map(nx.array(images.reshape(30, 6) / 255), x, psi, reg=0.1)
    )


def test_a_large_memory_map_stays_on_disk(rng, tmp_path, monkeypatch):
    rng.normal(size=(50, 4)).tofile(tmp_path / "rows")
    file = np.memmap(tmp_path / "rows", dtype=float, mode="r", shape=(50, 4))
    before = ps.solve_semidiscrete(file, reg=0.5, random_state=0)
    monkeypatch.setattr(problem, "BLOCK_BYTES", 100)
    after = ps.solve_semidiscrete(file, reg=0.5, random_state=0)
    assert not before._target.is_stored
    assert after._target.is_stored
    np.testing.assert_allclose(after.potential, before.potential, atol=1e-10)


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ([[0.0, 1.0]], TypeError, "expected an array or a data set"),
        (np.array(["a"]), TypeError, "real numbers"),
        (np.zeros((3, 2), complex), TypeError, "real numbers"),
        (np.zeros(3), ValueError, "one row for each atom"),
        (np.zeros((3, 0)), ValueError, "at least 1 of each"),
    ],
)
def test_what_has_no_rows_is_refused(rows, error, words):
    with pytest.raises(error, match=words):
        ps.StoredAtoms(rows)


INDICES = [[3, 1], (3, 1), [], np.zeros(0, int), slice(2, 9, 3), slice(0, 0), 5, np.int64(5)]
NO_INDICES = [np.eye(2), "first", None, 1.0, [1.0], np.zeros(0), True, [True, False], np.ones(N, bool)]


@pytest.mark.parametrize("kind", ["memmap", "data set"])
def test_atoms_are_chosen_as_those_of_an_array(kind, rows, nx, tmp_path):
    kept = stored_atoms(kind, rows, nx, tmp_path)
    for index in INDICES:
        expected = rows.astype(nx.dtype)[list(index) if isinstance(index, tuple) else index]
        np.testing.assert_array_equal(nx.host(kept[index]), expected)
    numbers = converted(np.array([3, 1]), nx.array(np.zeros(1)))  # of the backend
    np.testing.assert_array_equal(nx.host(kept[numbers]), rows.astype(nx.dtype)[[3, 1]])
    assert len(kept) == len(list(kept)) == N


@pytest.mark.parametrize("which", NO_INDICES, ids=str)
def test_what_are_no_numbers_of_atoms_is_refused(which, rows):
    kept = ps.StoredAtoms(rows)
    with pytest.raises(TypeError, match=r"index: expected a slice.* received .*; give "):
        kept[which]
    with pytest.raises(
        ValueError, match=r"index: expected numbers of atoms, 0 to 119, received -1 to 5"
    ):
        kept[[-1, 5]]


def test_numbers_are_checked_at_the_door(rows):
    rows[100, 1] = np.nan
    with pytest.raises(ValueError, match="X_target: expected finite numbers"):
        ps.solve_semidiscrete(ps.StoredAtoms(rows), reg=0.1)
    with pytest.raises(TypeError, match="dtype and device of X_target"):
        ps.semidiscrete_loss(ps.StoredAtoms(rows[:9]), np.zeros((2, D), np.float32), np.zeros(9))
    with pytest.raises(ValueError, match="scale"):
        ps.StoredAtoms(rows, scale=0.0)


@pytest.mark.parametrize("reg", [0.0, 0.5])
def test_loss_of_stored_atoms(reg, rows):
    torch = pytest.importorskip("torch")
    from pot_semidiscrete.generative import SemiDiscreteLoss, train_generator

    def outcome(atoms):
        loss = SemiDiscreteLoss(atoms, reg=reg)
        x = torch.from_numpy(rows[:30] + 0.2).reshape(30, 1, 5).requires_grad_()
        loss.follow(x.detach())
        value = loss(x)
        (gradient,) = torch.autograd.grad(value, x)
        shift = torch.full((D,), 0.1, dtype=torch.float64)
        loss.translate(shift)
        torch.manual_seed(0)
        generator = torch.nn.Linear(2, D).double()
        latent = lambda n: torch.ones(n, 2, dtype=torch.float64) * torch.arange(n)[:, None] / n
        train_generator(generator, latent, loss, n_steps=3, batch_size=20, random_state=0)
        return value.detach(), gradient, loss.potential, next(generator.parameters()).detach()

    kept = ps.StoredAtoms(DataSet(rows), like=torch.zeros(1, dtype=torch.float64))
    for found, expected in zip(outcome(kept), outcome(torch.from_numpy(rows)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    with pytest.raises(TypeError, match="potential: expected None with StoredAtoms"):
        SemiDiscreteLoss(kept, potential=torch.nn.Linear(D, 1).double())
    with pytest.raises(TypeError, match=r"that torch computes with.* like=torch.zeros\(1\)"):
        SemiDiscreteLoss(ps.StoredAtoms(rows))
    with pytest.raises(TypeError, match="features: expected None with stored atoms"):
        SemiDiscreteLoss(kept, features=lambda x: x)
    with pytest.raises(TypeError, match=r"target: expected a tensor.*received StoredAtoms"):
        train_generator(torch.nn.Linear(2, D), 2, kept, n_steps=1, n_atoms=3)


class ReadBy:
    """Items, whose numbers are noted when they are read."""

    def __init__(self, reads, items):
        self.reads, self.items = reads, items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        self.reads.append(i)
        return self.items[i]


@pytest.mark.parametrize("on_disk", [False, True])
def test_data_set_becomes_a_tensor(on_disk, tmp_path, capsys):
    torch = pytest.importorskip("torch")
    from pot_semidiscrete.generative import (
        SemiDiscreteLoss,
        SemiDiscretePairs,
        solve_coupling,
        stack_dataset,
        train_generator,
    )

    images = torch.arange(60.0).reshape(10, 1, 2, 3)
    dataset = torch.utils.data.TensorDataset(images, torch.arange(10))
    path = tmp_path / "images.npy" if on_disk else None
    found = stack_dataset(dataset, path, transform=lambda x: x.byte(), verbose=True)
    assert torch.equal(found, images.byte())
    assert "stack_dataset: 10/10" in capsys.readouterr().out
    reads = []
    stack_dataset(ReadBy(reads, dataset.tensors[0]), path)
    assert reads == list(range(10))  # each once
    with pytest.raises(ValueError, match="like the first"):
        stack_dataset([torch.ones(2), torch.ones(3)], path)
    with pytest.raises(ValueError, match="at least one"):
        stack_dataset([], path)
    data = torch.utils.data.TensorDataset(images, torch.arange(10))
    for make in (SemiDiscreteLoss, lambda data: solve_coupling(data, random_state=0).results[0]):
        assert torch.equal(make(data).potential, make(images).potential)
    batch = next(iter(SemiDiscretePairs(data, batch_size=4, random_state=0)))
    assert torch.equal(batch.data, images[batch.index])
    generator = torch.nn.Sequential(torch.nn.Linear(2, 6), torch.nn.Unflatten(1, (1, 2, 3)))
    train_generator(generator, 2, data, n_steps=1, batch_size=4)
    if on_disk:  # a failure leaves what there was
        np.testing.assert_array_equal(np.load(path), images.byte().numpy())


LIMITED = """
import re, resource, sys
import numpy as np
import pot_semidiscrete as ps

file = np.memmap(sys.argv[1], dtype=np.uint8, mode="r", shape=(80_000, 784))
data = int(re.search(r"VmData:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (data + 217 * 2**20, data + 217 * 2**20))
atoms = ps.StoredAtoms(file, 1 / 255)
result = ps.solve_semidiscrete(atoms, "unif", reg=5.0, tol=0, max_iter=1, batch_size=64, random_state=0)
print(result.pair(np.zeros((2, 784), dtype=np.float32), random_state=0).shape)
try:
    np.ones(atoms.shape, dtype=np.float32)
except MemoryError:
    print("limited")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_memory_is_that_of_a_part(tmp_path, rng):
    """251 MB of atoms, in 228 MB, of which 156 are taken if what is freed is given back at once."""
    block = rng.integers(256, size=(8_000, 784), dtype=np.uint8)
    with open(tmp_path / "rows", "wb") as file:
        for k in range(10):
            file.write((block + np.uint8(k)).tobytes())
    run = [sys.executable, "-c", LIMITED, str(tmp_path / "rows")]
    states = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}  # or glibc keeps some for each thread
    done = subprocess.run(run, env=states, capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:2] == ["(2,)", "limited"], done.stderr
