"""What ranks of `tests/ranks.py` do with atoms of which each has a part."""

import pickle

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

import pot_semidiscrete as sd
from pot_semidiscrete import generative
from pot_semidiscrete.kernels import expected_cost, mean_cost, reduce
from pot_semidiscrete.problem import build_target, resolve_shards, scale_of, spread_of


def own(X, cut=0.4, group=None):
    """Two fifths of the rows, for the first of two ranks; the others, for the second."""
    n = int(cut * len(X))
    rows = X[:n] if dist.get_rank() == 0 else X[n:]
    return sd.ShardedAtoms(rows, group or dist.group.WORLD)


class Sizes(TorchDispatchMode):
    """Notes the most numbers of a tensor."""

    most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            self.most = max(self.most, found.numel())
        return found


def check_solves(atoms, check_same):
    """The potential, and all estimates, of one process that has all atoms."""
    correct = {"tol": 0, "max_iter": 6}  # by Newton's method at the end
    check_same(60, 0.01, share=own, **correct)
    check_same(300, 0.003, share=own, **correct)
    check_same(40, 0.0, share=own, **correct)
    for reg, reg_m in ((0.02, 0.1), (0.0, 0.2)):  # masses at a price
        assert check_same(60, reg, share=own, reg_m=reg_m, **correct).reg_m == reg_m
    check_same(60, 0.02, share=own, tol=0.3, metric="euclidean", dtype=torch.float32)
    X, weights = atoms(60), torch.arange(60.0, dtype=torch.float64)
    X[50], X[20] = X[3], X[11]  # on two ranks, and on one
    weights[40] = 0.0
    return X, check_same(X, 0.02, share=own, tol=0.3, a_target=weights / weights.sum())


def check_result(X, result, folder):
    """What is asked of a result by all ranks is what one process tells."""
    rank, shards = dist.get_rank(), own(X)
    x = torch.as_tensor(np.random.default_rng(3).random((50, 3)))
    result.save(folder / "shards.npz")
    dist.barrier()
    one = sd.SemiDiscreteResult.load(folder / "shards.npz", X)
    loaded = sd.SemiDiscreteResult.load(folder / "shards.npz", own(X, 0.5))
    for found in (result, loaded):
        assert torch.equal(found.potential, one.potential)
        for name in ("c_transform", "ot_map", "atom_weights"):
            torch.testing.assert_close(
                getattr(found, name)(x), getattr(one, name)(x), rtol=1e-9, atol=1e-9
            )
        assert torch.equal(found.pair(x, random_state=rank), one.pair(x, random_state=0))
        assert repr(found) == repr(one)
    torch.manual_seed(rank)  # the first rank's decides
    pairs = [None] * 2
    dist.all_gather_object(pairs, result.pair(x))
    assert torch.equal(*pairs)
    assert "of 60 atoms of 3 coordinates, float64)" in repr(shards)
    with pytest.raises(ValueError, match="x: expected the same on all ranks"):
        result.c_transform(x + rank)
    for refused in (
        lambda: result.to(torch.float32),
        lambda: result.diagnose(x),
        lambda: result.c_transform(x.clone().requires_grad_()),
        lambda: pickle.dumps(result),
        lambda: sd.semidiscrete_c_transform(shards, x, result.potential),
        lambda: sd.cost_scale(shards),
        lambda: generative.SemiDiscreteLoss(shards),
        lambda: generative.SemiDiscretePairs(result),
    ):
        with pytest.raises(TypeError, match=r"sharded|ShardedAtoms|a group no|gradient"):
            refused()


def check_doors(X):
    """What is no part of one set of atoms is told on all ranks."""
    rank, world = dist.get_rank(), dist.group.WORLD
    with pytest.raises(ValueError, match="dtype: expected the same on all ranks"):
        sd.ShardedAtoms(X.to(torch.float32 if rank else X.dtype), world)
    with pytest.raises(ValueError, match="dimension: expected the same on all ranks"):
        sd.ShardedAtoms(X[:, rank:], world)
    with pytest.raises(TypeError, match="tensors"):
        sd.ShardedAtoms(X.numpy(), world)
    with pytest.raises(ValueError, match="rows: expected finite"):
        sd.ShardedAtoms(X / (0.0 if rank else 1.0), world)
    for group in (None, "gloo"):
        with pytest.raises(TypeError, match=r"group of torch\.distributed"):
            sd.ShardedAtoms(X, group)
    other = dist.new_group(backend="gloo")
    with pytest.raises(ValueError, match="that of X_target"):
        sd.solve_semidiscrete(own(X), process_group=other)
    assert sd.solve_semidiscrete(own(X), reg=1.0, random_state=0, process_group=world).converged
    with pytest.raises(ValueError, match="none on rank 1"):
        sd.solve_semidiscrete(sd.ShardedAtoms(X, world), reg=0.1)  # the same on both


def check_parts():
    """Sums, units and outputs are those of all atoms, of which no rank holds all."""
    rng, n, d = np.random.default_rng(4), 60_000, 150
    X, x = (torch.as_tensor(rng.random((m, d), dtype=np.float32)) for m in (n, 16))
    one, psi = build_target(X), torch.as_tensor(rng.random(n, dtype=np.float32))
    atoms, ranks = resolve_shards(own(X, 0.5))
    names = "c_transform", "colsum", "colsquare"
    with Sizes() as sizes:
        target = build_target(atoms)
        reduce(target, target.center(x), psi, 1.0, names)  # terms of the atoms are known from then on
        sent = ranks.n_bytes
        found = reduce(target, target.center(x), psi, 1.0, names)
        sent = ranks.n_bytes - sent
    assert 0.5 * n * d <= sizes.most < 0.51 * n * d  # this rank's own
    assert sent == found.colsum.element_size() * 2 * (n + len(x))
    assert target.digest == one.digest
    expected = reduce(one, one.center(x), psi, 1.0, names)
    for name in names:
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-3, atol=1e-4)
    for function in (
        lambda t: t.mean,
        lambda t: expected_cost(t, t.center(x), t.weights),
        lambda t: mean_cost(t, t.center(x)),
        lambda t: torch.tensor([scale_of(t), spread_of(t), t.landmark_radius]),
    ):
        torch.testing.assert_close(function(target), function(one), rtol=1e-4, atol=1e-4)


def check(folder):
    """All of the above, on two ranks."""
    from tests.ranks import atoms, check_same_as_one_process

    check_result(*check_solves(atoms, check_same_as_one_process), folder)
    check_doors(atoms(30))
    check_parts()
