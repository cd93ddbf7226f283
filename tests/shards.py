"""What ranks of `tests/ranks.py` do with atoms of which each has a part."""

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode

import pot_semidiscrete as sd
from pot_semidiscrete import applications, generative
from pot_semidiscrete.kernels import expected_cost, mean_cost, reduce, tiles
from pot_semidiscrete.problem import SharedTarget, build_target, resolve_shards, scale_of, spread_of


def own(X, cut=0.4, group=None):
    """Two fifths of the rows, for the first of the ranks; as many of the others for each other."""
    n, rank = int(cut * len(X)), dist.get_rank()
    others = X[n:].tensor_split(dist.get_world_size() - 1)
    return sd.ShardedAtoms(X[:n] if rank == 0 else others[rank - 1], group or dist.group.WORLD)


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
    weights /= weights.sum()
    return X, weights, check_same(X, 0.02, share=own, tol=0.3, a_target=weights)


def check_result(X, weights, result, folder):
    """What each rank asks of a result, for its own points, is what one process tells."""
    rank, shards = dist.get_rank(), own(X)
    x = torch.as_tensor(np.random.default_rng(rank).random((50 + rank, 3)))
    result.save(folder / "shards.npz")
    assert (folder / "shards.npz").exists()  # on all ranks, when the call returns
    one = sd.SemiDiscreteResult.load(folder / "shards.npz", X)
    loaded = sd.SemiDiscreteResult.load(folder / "shards.npz", own(X, 0.5))
    for found in (result, loaded):
        assert torch.equal(found.potential, one.potential)
        for name in ("c_transform", "ot_map", "atom_weights"):
            torch.testing.assert_close(
                getattr(found, name)(x), getattr(one, name)(x), rtol=1e-9, atol=1e-9
            )
        assert torch.equal(found.pair(x, random_state=rank), one.pair(x, random_state=rank))
        assert repr(found) == repr(one)
    torch.manual_seed(5)
    pairs = result.pair(x)
    torch.manual_seed(5)
    assert torch.equal(pairs, one.pair(x))
    assert "of 60 atoms of 3 coordinates, float64)" in repr(shards)
    for refused in (
        lambda: result.to(torch.float32),
        lambda: result.diagnose(x),
        lambda: result.c_transform(x.clone().requires_grad_()),
        lambda: pickle.dumps(result),
        lambda: sd.semidiscrete_c_transform(shards, x.clone().requires_grad_(), result.potential),
        lambda: sd.gradient_diagnostics(shards, x, result.potential),
        lambda: generative.solve_coupling(shards),
        lambda: sd.train_parameters(len, x, len, shards, reg=0.1, n_steps=1),
    ):
        with pytest.raises(TypeError, match=r"sharded|ShardedAtoms|a group no|gradient|expected a"):
            refused()
    functions = "c_transform", "ot_map", "gradient", "atom_weights", "loss"
    options = {"a_target": weights, "reg": result.reg}
    for function in (getattr(sd, f"semidiscrete_{name}") for name in functions):
        found, known = (function(data, x, one.potential, **options) for data in (shards, X))
        torch.testing.assert_close(found, known, rtol=1e-9, atol=1e-9)
    assert sd.cost_scale(shards) == pytest.approx(sd.cost_scale(X))
    move = lambda theta, z: z + theta
    found, known = (
        sd.generator_gradient(move, x[0], x, data, one.potential, **options) for data in (shards, X)
    )
    torch.testing.assert_close(found, known, rtol=1e-9, atol=1e-9)
    pairs, knowns = (
        generative.SemiDiscretePairs(plan, data=data, batch_size=4, epoch_size=16, random_state=0)
        for plan, data in ((result, shards), (one, X))
    )
    for batch, known in zip(pairs, knowns, strict=True):  # each rank has its own
        assert all(map(torch.equal, batch, known))
    for refused in (
        lambda: pairs.noise_for(torch.arange(3)),
        lambda: pairs.precompute(9, folder / "pairs.npz"),
        lambda: generative.SemiDiscretePairs(result),
        lambda: applications.ErrorBars(result, x),
        lambda: applications.CenterOutwardRanks(result),
    ):
        with pytest.raises(TypeError, match=r"whose atoms this process has|data: expected"):
            refused()
    numbers = torch.tensor([59 - rank, 0, 3])  # others on each rank
    for index in (numbers, numbers.numpy(), numbers.tolist(), slice(rank, 50, 9), slice(0, 0), [], 7):
        assert torch.equal(shards[index], X[index])
    some = [3, 5] if rank else []  # for one of the ranks
    assert torch.equal(shards[some], X[some])
    with pytest.raises(ValueError if rank else RuntimeError, match="numbers of atoms, 0 to 59"):
        shards[numbers + rank * 20]
    for index in (x[0], True, [True, False]):
        with pytest.raises(TypeError, match="whole numbers"):
            shards[index]


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
        target = SharedTarget.of(build_target(atoms), ranks)  # asked for the same points
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
    few, index = x.clone().requires_grad_(), torch.arange(n - 9, n, 2)
    with Sizes() as sizes:
        loss = generative.SemiDiscreteLoss(own(X, 0.5), reg=1.0)
        loss(few)  # terms of the atoms are known from then on
        sent = loss.ranks.n_bytes
        loss(few).backward()
        sent = loss.ranks.n_bytes - sent
        row = own(X, 0.5)[index]
    assert torch.equal(row, X[index])
    assert sent == few.element_size() * (len(few) * d + 2 * len(few) * (2 + d))  # of two ranks
    assert 0.5 * n * d <= sizes.most < 0.51 * n * d  # no more than this rank's own, here neither
    points = torch.as_tensor(rng.random((300, d), dtype=np.float32))
    losses = [generative.SemiDiscreteLoss(data, reg=1.0) for data in (own(X[:400]), X[:400])]
    with pytest.MonkeyPatch.context() as patch:  # no room for weights, which none of these keeps
        patch.setattr(tiles, "BLOCK_BYTES", 1)
        torch.testing.assert_close(*(each(points) for each in losses), rtol=1e-5, atol=1e-5)
        before = losses[0].ranks.n_exchanges
        losses[0](points)
        assert losses[0].ranks.n_exchanges - before == 1 + 2 * 3  # 600 points, by 256 at most
    for function in (
        lambda t: t.mean,
        lambda t: expected_cost(t, t.center(x), t.weights),
        lambda t: mean_cost(t, t.center(x)),
        lambda t: torch.tensor([scale_of(t), spread_of(t), t.landmark_radius]),
    ):
        torch.testing.assert_close(function(target), function(one), rtol=1e-4, atol=1e-4)


LOSSES = [
    {"reg": 0.0, "features": lambda x: torch.cat([x, x.square()], dim=1)},
    {"reg": 0.05, "reg_m": 0.1},
    {"reg": 0.05, "metric": "cityblock", "debias": True},
]


def check_losses(X, all_options=LOSSES):
    """Values, gradients, moves and pairs of each rank's own points are those that one process has."""
    from tests.ranks import Stream, interleaved, of_all

    rank, source = dist.get_rank(), Stream(40 + dist.get_rank())
    weights = torch.arange(1.0, len(X) + 1.0, dtype=X.dtype)
    for options in ({"reg": 0.05, "a_target": weights / weights.sum()}, *all_options):
        loss = generative.SemiDiscreteLoss(own(X), **options)
        one = generative.SemiDiscreteLoss(X, **options)
        for move in ("follow", "dual_step"):
            x = source(10)
            getattr(loss, move)(x)
            getattr(one, move)(interleaved(of_all(x)))
        torch.testing.assert_close(loss.potential, one.potential, rtol=0.0, atol=1e-10)
        points = source(7 + rank)  # some ranks have more
        x, y = (points.clone().requires_grad_() for _ in range(2))
        value, known = loss(x), one(y)
        (2.0 * value).backward()
        (2.0 * known).backward()
        torch.testing.assert_close([value, x.grad], [known, y.grad], rtol=0.0, atol=1e-10)
        assert torch.equal(loss.pair(points, rank), one.pair(points, rank))
        if "metric" not in options:
            bounds, knowns = loss.majorants([points]), one.majorants([points])
            torch.testing.assert_close(bounds[0].goal, knowns[0].goal, rtol=0.0, atol=1e-10)
            torch.testing.assert_close(bounds[0].constant, knowns[0].constant, rtol=0.0, atol=1e-10)


def check_state_of_loss(X):
    """That of a loss of other parts of the same atoms, which may be those of one process."""
    one, loss = (generative.SemiDiscreteLoss(data, reg=0.05) for data in (X, own(X, 0.6)))
    one.follow(torch.rand(20, 3, dtype=X.dtype, generator=torch.Generator().manual_seed(0)))
    loss.load_state_dict(one.state_dict())
    for each in (loss, one):
        each.translate(torch.tensor([0.1, 0.2, -0.1], dtype=X.dtype))
    torch.testing.assert_close(loss.potential, one.potential, rtol=0.0, atol=1e-10)
    result = loss.fit("unif", tol=1.0, random_state=0)
    assert result.converged
    torch.testing.assert_close(loss.potential, result.potential, rtol=0.0, atol=1e-12)
    return loss


def check_refused_losses(loss, X):
    """What takes the atoms of others, or fails on one rank, is told on all."""
    rank, x = dist.get_rank(), torch.rand(5, 3, dtype=X.dtype)
    linear = torch.nn.Linear(3, 3, dtype=X.dtype)
    train = lambda **options: generative.train_generator(linear, 3, own(X), n_steps=1, **options)
    for refused, words in (
        (lambda: copy.deepcopy(loss), "a group no|whose group"),
        (lambda: loss.to("meta"), "where the ranks have"),
        (
            lambda: generative.SemiDiscreteLoss(own(X), potential=torch.nn.Linear(3, 1)),
            "or ShardedAtoms",
        ),
        (lambda: train(n_atoms=9), "ShardedAtoms with pair_cost alone"),
    ):
        with pytest.raises(TypeError, match=words):
            refused()
    with pytest.raises(ValueError if rank == 1 else RuntimeError, match="x: expected 3 columns"):
        loss(x[:, : 3 - (rank == 1)])
    with pytest.raises(ValueError if rank == 1 else RuntimeError, match="reg: expected a finite"):
        generative.SemiDiscreteLoss(own(X), reg=-1.0 if rank == 1 else 1.0)
    with pytest.raises(ValueError, match="features: expected the same on all ranks"):
        train(features=lambda x: x + rank)
    loss.potential.requires_grad_()
    with pytest.raises(TypeError, match="differentiated in its points alone"):
        loss(x)


def check_training(X, folder):
    """A generator is that of one process on the same samples; its checkpoint goes on in other parts."""
    from tests.ranks import DistributedDataParallel, Stream, interleaved, linear, of_all, sharded

    rank, source = dist.get_rank(), Stream(60 + dist.get_rank())
    first = source(40)
    adam = torch.optim.Adam
    options = {"batch_size": 12, "reuse": 2, "optimizer": adam}

    def run(generator, latent, data, n_steps, **more):
        loss = generative.SemiDiscreteLoss(data, reg=0.05, dual_steps=2)
        loss.follow(interleaved(of_all(first)) if isinstance(data, torch.Tensor) else first)
        return generative.train_generator(generator, latent, loss, n_steps=n_steps, **options | more)

    for wrap in (DistributedDataParallel, sharded):
        stream, generator = Stream(20 + rank, 2), linear(0)
        found = run(wrap(generator), stream, own(X), 3)
        batches = (interleaved(parts) for parts in zip(*of_all(stream.drawn), strict=True))
        one = run(linear(0), lambda n, batches=batches: next(batches), X, 3)
        parameters = [getattr(p, "full_tensor", lambda p=p: p)() for p in generator.parameters()]
        torch.testing.assert_close(parameters, [*one.generator.parameters()], rtol=0.0, atol=1e-9)
        torch.testing.assert_close(found.loss.potential, one.loss.potential, rtol=0.0, atol=1e-9)
        np.testing.assert_allclose(found.history["chi2"], one.history["chi2"], rtol=1e-6)
    more = {"random_state": 0, "checkpoint": folder / "shards.pt"}
    whole = run(linear(0), 2, own(X), 5, random_state=0)
    run(linear(0), 2, own(X), 3, **more)
    again = run(linear(0), 2, own(X, 0.6), 5, **more)
    ends = [[*result.generator.parameters()] for result in (whole, again)]
    torch.testing.assert_close(*ends, rtol=0.0, atol=1e-9)
    if rank == 0:  # by one process, which has all
        one = generative.SemiDiscreteLoss(X, reg=0.05, dual_steps=2)
        ended = generative.train_generator(linear(0), 2, one, n_steps=6, **options | more)
        assert (ended.status, ended.n_steps) == ("finished", 6)
    # pairs and a critic, whose data are on other ranks
    paired = {"pair_cost": "cityblock", "critic": "wgan-gp", "batch_size": 12, "dual_steps": 2}
    generator = linear(rank)
    generative.train_generator(generator, 2, own(X), n_steps=2, reg=0.05, random_state=0, **paired)
    (first, *others) = of_all([*generator.parameters()])
    torch.testing.assert_close(others[-1], first, rtol=0.0, atol=0.0)


def check(folder):
    """All of the above, on two ranks."""
    from tests.ranks import atoms, check_same_as_one_process

    check_result(*check_solves(atoms, check_same_as_one_process), folder)
    check_doors(atoms(30))
    check_parts()
    check_losses(atoms(30))
    check_refused_losses(check_state_of_loss(atoms(30)), atoms(30))
    check_training(atoms(30), folder)
