"""What processes of `tests/test_distributed.py` run: ``python -m tests.ranks CASE SIZE FOLDER``."""

import datetime
import math
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import pot_semidiscrete as sd
from pot_semidiscrete import generative
from pot_semidiscrete.backend import ranks_of
from pot_semidiscrete.generative import choices
from pot_semidiscrete.generative.fsdp import full_tensors, resharded
from pot_semidiscrete.optim.hessian import HessianOperator
from pot_semidiscrete.optim.semi_dual import SemiDual
from pot_semidiscrete.problem import SharedTarget, build_target
from tests import shards

TIMEOUT = 20.0  # seconds that ranks wait for each other


def atoms(n, d=3):
    """The same on each rank."""
    return torch.as_tensor(np.random.default_rng(0).random((n, d)))


class Stream:
    """Uniform points, of another seed on each rank, which are remembered."""

    def __init__(self, seed, d=3, after=None, do=None):
        self.generator, self.d, self.drawn = torch.Generator().manual_seed(seed), d, []
        self.after, self.do = after, do

    def __call__(self, n):
        if self.after is not None and len(self.drawn) >= self.after:
            self.do()
        self.drawn.append(torch.rand(n, self.d, generator=self.generator, dtype=torch.float64))
        return self.drawn[-1]


def of_all(thing):
    """What each rank has."""
    things = [None] * dist.get_world_size()
    dist.all_gather_object(things, thing)
    return things


def interleaved(parts):
    """The batch of which the ranks drew these parts."""
    return torch.stack([part[i] for i in range(max(map(len, parts))) for part in parts if i < len(part)])


def check_same_as_one_process(X, reg, share=None, **options):
    """The potential of one process on the same samples, and the certificates of all of them.

    Each rank has what `share` gives it of the atoms, or all.
    """
    X, stream = atoms(X) if isinstance(X, int) else X, Stream(10 + dist.get_rank())
    X = X.to(options.pop("dtype", X.dtype))
    given = (X, dist.group.WORLD) if share is None else (share(X), None)
    sampler, options = (lambda n: stream(n).to(X.dtype)), {"batch_size": 250} | options
    result = sd.solve_semidiscrete(given[0], sampler, reg=reg, process_group=given[1], **options)
    streams, potentials = of_all(stream.drawn), of_all(result.potential)
    assert all(torch.equal(potential, potentials[0]) for potential in potentials)
    batches = (interleaved(parts).to(X.dtype) for parts in zip(*streams, strict=True))
    one = sd.solve_semidiscrete(X, lambda n: next(batches), reg=reg, **options)
    tol = 1e-6 if X.dtype == torch.float64 else 2e-4  # of float32, after many steps
    scale = float(one.potential.abs().max())
    assert float((result.potential - one.potential).abs().max()) <= tol * scale
    assert (result.n_samples, result.status) == (one.n_samples, one.status)
    assert result.n_samples >= len(stream.drawn[0]) * dist.get_world_size()
    assert result.work == one.work
    for name in ("chi2", "chi2_stderr", "value_interval", "suboptimality", "suboptimality_bound"):
        assert getattr(result, name) == pytest.approx(getattr(one, name), rel=50 * tol), name
    return result


def check_sources():
    """Each rank has a stream of its own, and all have the result of all."""
    X, options = atoms(40, 2), {"reg": 0.05, "tol": 0.5, "process_group": dist.group.WORLD}
    sobol = sd.samplers.SobolSampler(2, type_as=X, random_state=dist.get_rank())
    laws = "unif", sobol, np.random.default_rng(1).random((500, 2))
    for source in laws:
        source = torch.as_tensor(source) if isinstance(source, np.ndarray) else source  # rows
        result = sd.solve_semidiscrete(X, source, random_state=0, **options)
        potentials = of_all(result.potential)
        assert result.converged
        assert all(torch.equal(potential, potentials[0]) for potential in potentials)
        if isinstance(source, str):  # the seed decides
            again = sd.solve_semidiscrete(X, source, random_state=0, **options)
            assert torch.equal(again.potential, result.potential)
    sequence = Stream(0, 2)
    sequence.independent = sequence.__call__  # which makes it one, and has no parts
    assert sd.solve_semidiscrete(X, sequence, **options).converged
    assert bool(sequence.drawn) == (dist.get_rank() == 0)
    result = sd.solve_semidiscrete(X, "unif", a_target=torch.ones(40, dtype=X.dtype) / 40, **options)
    values = of_all(result.value_interval)  # no exchange is left for what is asked later
    assert values[0] == values[-1]
    if dist.get_rank() == 0:
        assert result.suboptimality >= 0.0
        assert pickle.loads(pickle.dumps(result)).suboptimality == result.suboptimality
    options |= {"batch_size": 3, "tol": 0, "max_iter": 2}  # of which a rank draws one, another two
    short = sd.solve_semidiscrete(X, Stream(dist.get_rank(), 2), **options)
    assert short.n_iter == 2


def check_hessian():
    """Products and random sums of one process, where the first of two ranks has no points, too."""
    target = build_target(atoms(300))
    psi, ranks = 0.0 * target.weights, ranks_of(dist.group.WORLD, atoms(1))
    dual, shared = SemiDual(target), SemiDual(SharedTarget.of(target, ranks))
    for n_points in (1, 4):
        x = target.center(atoms(n_points))
        with ranks.together():
            found, one = (HessianOperator(d, x, psi, 0.1, target.weights) for d in (shared, dual))
            assert (len(found.blocks) == 0) == (n_points == 1 and dist.get_rank() == 0)
            sums, expected = (h.probes(3, np.random.default_rng(0)) for h in (found, one))
            assert float((sums - expected).abs().max()) < 1e-12
            for v in (target.atoms[:, 0], expected + target.atoms[:, 0]):
                assert float((found.apply(v) - one.apply(v)).abs().max()) < 1e-12
                assert float(one.apply(v).abs().max()) > 1e-6


def check_refusals():
    """Ranks that were given different things, or draw the same points, are told."""
    rank, group = dist.get_rank(), dist.group.WORLD

    def refused(words, X=None, source="unif", error=ValueError, **options):
        X = atoms(9) if X is None else X
        options = {"reg": 0.1, "max_iter": 3, "tol": 0, "process_group": group} | options
        with pytest.raises(error, match=words):
            sd.solve_semidiscrete(X, source, **options)

    refused("reg: expected the same on all ranks, received on rank 1", reg=0.1 + 0.1 * rank)
    refused("X_target: expected the same", X=atoms(9 + rank))
    refused("max_iter: expected the same", max_iter=3 + rank)
    refused("received on rank 1 those of rank 0; seed", source=Stream(0))
    refused("tensors", X=atoms(9).numpy(), error=TypeError)
    # at the door of one rank, in the middle on the other
    words = "rank 1 of .* left: ValueError: reg: expected" if rank != 1 else "reg: expected"
    refused(words, reg=-float(rank == 1), error=ValueError if rank == 1 else RuntimeError)
    # of the last argument of a loss, the others are told in its next exchange
    words, error = "debias: expected True or False", TypeError
    if rank != 1:
        words, error = f"rank 1 of .* left: TypeError: {words}", RuntimeError
    with pytest.raises(error, match=words):
        generative.SemiDiscreteLoss(
            atoms(9), debias="no" if rank == 1 else False, process_group=group
        ).follow(atoms(9))
    with pytest.raises(TypeError, match="process_group: expected None or a group"):
        sd.solve_semidiscrete(atoms(9), process_group="gloo")


def check_apart():
    """Ranks that are at different places of a run are told, and go on to the next one."""
    x = atoms(4)

    def apart(words, one, other):
        ranks = ranks_of(dist.group.WORLD, x)
        with pytest.raises(RuntimeError, match=words), ranks.together():
            (one if dist.get_rank() == 0 else other)(ranks)

    apart("same place.*rank 0 'sums', rank 1 'minima'", lambda r: r.sum(x), lambda r: r.min(x))
    apart("exchanges of one size", lambda r: r.sum(x), lambda r: r.sum(x[:3]))
    for group in (dist.GroupMember.NON_GROUP_MEMBER, x):
        with pytest.raises(TypeError, match=r"process_group: expected .*group of torch.distributed"):
            ranks_of(group, x)


def check_exits():
    """What ends one rank ends all, with what was reached."""
    rank, options = dist.get_rank(), {"reg": 0.05, "tol": 0, "process_group": dist.group.WORLD}

    def fail():
        raise ZeroDivisionError("of the user")

    for after in (0, 3):
        source = Stream(rank, after=after if rank == 1 else None, do=fail)
        words = "of the user" if rank == 1 else "rank 1 of .* left: ZeroDivisionError: of the user"
        with pytest.raises(ZeroDivisionError if rank == 1 else RuntimeError, match=words) as info:
            sd.solve_semidiscrete(atoms(30), source, max_iter=100, **options)
        assert info.value.partial_result.status == "failed"
        assert info.value.partial_result.n_iter == after

    def interrupt():
        signal.raise_signal(signal.SIGINT)

    for interrupted in ([1], [0, 1]):
        source = Stream(rank, after=4 if rank in interrupted else None, do=interrupt)
        result = sd.solve_semidiscrete(atoms(30), source, max_iter=100, **options)
        assert result.status == "interrupted"

    begun = threading.Event()

    def interrupt_from_beside():
        begun.wait()
        os.kill(os.getpid(), signal.SIGINT)

    if rank == 1:  # whatever it does then
        threading.Thread(target=interrupt_from_beside, daemon=True).start()
    note = lambda state: begun.set()
    result = sd.solve_semidiscrete(atoms(30), "unif", callback=note, max_iter=10**6, **options)
    assert result.status == "interrupted"
    source = Stream(rank, after=4 if rank == 1 else None, do=sys.exit)  # no Exception
    with pytest.raises(SystemExit if rank == 1 else RuntimeError):
        sd.solve_semidiscrete(atoms(30), source, max_iter=100, **options)

    def callback(state):
        if state.n_iter == 5 and rank == 1 and doing == "raise":
            fail()
        return state.n_iter == 5 and rank == 1

    doing = "stop"
    result = sd.solve_semidiscrete(atoms(30), "unif", callback=callback, max_iter=100, **options)
    assert (result.status, result.n_iter) == ("stopped", 5)
    doing = "raise"
    with pytest.raises(ZeroDivisionError if rank == 1 else RuntimeError, match="of the user"):
        sd.solve_semidiscrete(atoms(30), "unif", callback=callback, max_iter=100, **options)

    def costs(x, y):
        if rank == 1 and len(x) > 100 and source.drawn:
            fail()
        return ((x[:, None] - y[None]) ** 2).sum(-1)

    source = Stream(rank)
    with pytest.raises(ZeroDivisionError if rank == 1 else RuntimeError, match="of the user"):
        sd.solve_semidiscrete(atoms(30), source, metric=costs, max_iter=100, **options)


def linear(seed):
    """A small generator."""
    torch.manual_seed(seed)
    return torch.nn.Linear(2, 3, dtype=torch.float64)


def train(generator, latent=2, group=True, n_steps=11, **options):
    """A short run, of which a step ends amid a round."""
    options = {"batch_size": 24, "dual_steps": 3, "reuse": 4, "reg": 0.05} | options
    options |= {"process_group": dist.group.WORLD} if group else {}
    return generative.train_generator(generator, latent, atoms(50), n_steps=n_steps, **options)


def check_training():
    """The run of one process on the same samples, by DDP and without."""
    rank, runs = dist.get_rank(), []
    for wrap, reuse, n_steps in ((lambda module: module, 4, 5), (DistributedDataParallel, 1, 2)):
        stream, generator = Stream(20 + rank, 2), linear(rank)  # all start as the first does
        runs.append(train(wrap(generator), stream, reuse=reuse, n_steps=n_steps))
        assert len(stream.drawn[0]) == 12  # of 24
        batches = (interleaved(parts) for parts in zip(*of_all(stream.drawn), strict=True))
        one = train(linear(0), lambda n, batches=batches: next(batches), False, n_steps, reuse=reuse)
        found, known = ([*module.parameters()] for module in (generator, one.generator))
        torch.testing.assert_close(found, known, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(runs[-1].loss.potential, one.loss.potential, rtol=1e-8, atol=1e-8)
        for name in ("loss", "chi2"):
            np.testing.assert_allclose(runs[-1].history[name], one.history[name], rtol=1e-6)
    states = of_all([[run.loss.potential, *run.generator.parameters()] for run in runs])
    torch.testing.assert_close(states[1], states[0], rtol=0.0, atol=0.0)
    # pairs and a critic, of which each rank has its own draws, and all the same network
    for wrap in (lambda module: module, DistributedDataParallel):
        critic = generative.GradientPenaltyCritic(atoms(50), share=0.2, random_state=rank)
        generator = linear(rank)
        train(wrap(generator), 2, pair_cost="cityblock", critic=critic, n_steps=4, random_state=0)
        made = [*generator.parameters(), *critic.network.parameters()]
        first, *_ = of_all(made)
        torch.testing.assert_close(made, first, rtol=0.0, atol=1e-12)


def check_loss():
    """A loop of one's own, the potential solved for, and pairs by it."""
    rank, X = dist.get_rank(), atoms(50)
    source = Stream(30 + rank)
    with pytest.raises(ValueError, match="reg_m"):
        generative.SemiDiscreteLoss(X, reg_m=1.0 + rank, process_group=dist.group.WORLD)
    for reg_m in (0.1, None):
        loss = generative.SemiDiscreteLoss(X, reg=0.05, reg_m=reg_m, process_group=dist.group.WORLD)
        one = generative.SemiDiscreteLoss(X, reg=0.05, reg_m=reg_m)
        for move in ("follow", "dual_step", "follow"):
            x = source(160)
            getattr(loss, move)(x)
            getattr(one, move)(interleaved(of_all(x)))
            assert float((loss.potential - one.potential).abs().max()) < 1e-9
        values = of_all(loss(x))
        assert float(sum(values) / 2 - one(interleaved(of_all(x)))) == pytest.approx(0.0, abs=1e-12)
    result = loss.fit(source, tol=0.2)
    assert result.converged
    assert all(torch.equal(p, result.potential) for p in of_all(result.potential))
    assert pickle.loads(pickle.dumps(loss)).ranks is None
    torch.manual_seed(rank)  # networks start as the first does
    network = torch.nn.Linear(3, 1, dtype=torch.float64)
    neural = generative.SemiDiscreteLoss(X, reg=0.05, potential=network, process_group=dist.group.WORLD)
    neural.follow(x)
    assert all(torch.equal(p, neural.potential) for p in of_all(neural.potential))
    options = {"labels": torch.arange(50) % 2, "process_group": dist.group.WORLD}
    coupling = generative.solve_coupling(X, random_state=rank, **options)  # the first rank's seed
    for one in coupling.results:
        assert one.converged
        assert all(torch.equal(p, one.potential) for p in of_all(one.potential))
    for plan in (result, coupling):
        pairs = generative.SemiDiscretePairs(plan, batch_size=8, random_state=0)
        assert not torch.equal(*of_all(next(iter(pairs)).noise))


def check_ends_of_training():
    """What ends the training of one rank ends that of all."""
    rank = dist.get_rank()
    generator, steps = linear(0), []

    def latent(n):
        steps.append(n)
        z = torch.rand(n, 2, dtype=torch.float64)
        if rank == 1 and len(steps) > 70:
            if doing == "fail":
                raise ZeroDivisionError("of the user")
            z += math.nan
        return z

    torch.manual_seed(rank)
    doing = "diverge"
    with pytest.warns(sd.SemiDiscreteWarning, match="stopped after"):
        result = train(generator, latent)
    assert result.status == "diverged"
    told = of_all([result.n_steps, result.loss.potential, *generator.parameters()])
    assert told[0][0] == told[1][0] > 0
    assert all(torch.equal(a, b) for a, b in zip(told[0][1:], told[1][1:], strict=True))
    doing = "fail"
    steps.clear()
    with pytest.raises(ZeroDivisionError if rank == 1 else RuntimeError, match="of the user") as info:
        train(generator, latent)
    assert info.value.partial_result.status == "failed"
    with pytest.raises(ValueError, match="pair_cost: expected the same on all ranks"):
        train(generator, latent, pair_cost=("cityblock", "sqeuclidean")[rank])
    with pytest.raises(ValueError, match="multiple of the number of ranks"):
        train(generator, batch_size=25)
    steps.clear()
    usual, choices.POINTS = choices.POINTS, 25
    train(generator, latent, batch_size=None, n_steps=1)
    choices.POINTS = usual
    assert set(steps) == {13}  # the default is rounded up
    assert train(generator, callback=lambda result: result.n_steps == 3 and rank == 1).n_steps == 3


def sharded(generator):
    """In parts, by FSDP2, where torch has it."""
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
    except ImportError:
        return generator
    return fully_shard(generator, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))


def check_checkpoints(folder):
    """A run that is continued is the one that was not interrupted, its generator in parts or not."""
    path = folder / "run.pt"
    generators = [sharded(linear(0)), linear(dist.get_rank()), sharded(linear(1))]
    options = {"random_state": 0, "checkpoint": path, "checkpoint_every": 3}
    whole = train(linear(0), random_state=0, n_steps=14, optimizer=torch.optim.Adam)
    for generator, n_steps in zip(generators, (3, 6, 14), strict=True):
        run = train(generator, n_steps=n_steps, optimizer=torch.optim.Adam, **options)
    found = full_tensors([*run.generator.parameters()])
    torch.testing.assert_close(found, [*whole.generator.parameters()], rtol=0.0, atol=0.0)
    np.testing.assert_array_equal(run.history["loss"], whole.history["loss"])

    # with a critic, of which each rank has its own stream
    options = {"random_state": 0, "pair_cost": "cityblock", "critic": "wgan-gp", "n_steps": 6}
    whole, again = linear(0), linear(0)
    train(whole, **options)
    more = options | {"checkpoint": folder / "critic.pt"}
    train(linear(0), **more, callback=lambda run: run.n_steps == 3)
    train(again, **more)
    torch.testing.assert_close([*again.parameters()], [*whole.parameters()], rtol=0.0, atol=0.0)

    # a generator in parts that has drawn points without a gradient, as a run does at its end
    generator, whole = sharded(linear(0)), linear(0)
    for optimize in (torch.optim.Adam, None):
        optimizers = [optimize and optimize(one.parameters()) for one in (generator, whole)]
        for _ in range(2):
            for one, optimizer in zip((generator, whole), optimizers, strict=True):
                train(one, random_state=0, n_steps=2, optimizer=optimizer)
    found = full_tensors([*resharded(generator).parameters()])
    torch.testing.assert_close(found, [*whole.parameters()], rtol=0.0, atol=0.0)


def check_continued(folder):
    """By more ranks, with as many samples a step."""
    rank, steps = dist.get_rank(), []
    options = {"random_state": 0, "checkpoint": folder / "one.pt", "optimizer": torch.optim.Adam}
    if rank == 0:
        train(linear(0), n_steps=2, group=False, **options)
    dist.barrier()
    note = lambda result: steps.append(result.n_steps)
    run = train(linear(5), n_steps=4, callback=note, **options)
    assert steps == [3, 4]
    assert run.status == "finished"
    states = of_all([run.loss.potential, *run.generator.parameters()])
    torch.testing.assert_close(states[1], states[0], rtol=0.0, atol=0.0)


def check_silence(folder):
    """A rank that does not answer: the other ends at the time-out of the group."""
    rank, ended = dist.get_rank(), folder / "ended"

    def wait():
        while not ended.exists():
            time.sleep(0.01)

    dist.barrier()  # or the time-out may be that of a rank that comes late
    group = dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=1))
    source = Stream(rank, after=2 if rank == 1 else None, do=wait)
    with pytest.raises(RuntimeError, match=f"rank {rank} of .* lost another rank"):
        sd.solve_semidiscrete(atoms(30), source, reg=0.05, tol=0, max_iter=9, process_group=group)
    ended.touch()


def check_kill(folder):
    """A rank that is killed: the others end within the time-out, and what was saved is whole."""
    rank, saved = dist.get_rank(), folder / "result.npz"

    def kill():
        os.kill(os.getpid(), signal.SIGKILL)

    def callback(state):
        if rank == 0 and state.n_iter == 2:
            sd.solve_semidiscrete(X, Stream(5), reg=0.05, tol=0, max_iter=2).save(saved)

    X = atoms(30)
    source = Stream(rank, after=4 if rank == 1 else None, do=kill)
    options = {"reg": 0.05, "tol": 0, "max_iter": 100, "process_group": dist.group.WORLD}
    with pytest.raises(RuntimeError, match=f"rank {rank} of .* lost another rank") as info:
        sd.solve_semidiscrete(X, source, callback=callback, **options)
    assert info.value.partial_result.n_iter >= 3
    info.value.partial_result.save(folder / "partial.npz")
    if rank == 0:
        assert sd.SemiDiscreteResult.load(saved, X).n_iter == 2


def two(folder):
    """All that two ranks are tested for; the second is killed in the end."""
    correct = {"tol": 0, "max_iter": 10}  # by Newton's method at the end
    check_same_as_one_process(60, 0.01, **correct)  # the Hessian is a matrix
    found = check_same_as_one_process(300, 0.003, **correct)  # and an operator
    check_same_as_one_process(300, 0.003, init_potential=found.potential, **correct)  # and its trace
    check_same_as_one_process(40, 0.0, **correct)
    check_same_as_one_process(60, 0.02, tol=0.2, dtype=torch.float32)
    check_same_as_one_process(60, 0.02, reg_m=0.1, **correct)
    check_hessian()
    check_sources()
    check_refusals()
    check_apart()
    check_exits()
    shards.check(folder)
    check_loss()
    check_training()
    check_ends_of_training()
    check_checkpoints(folder)
    check_continued(folder)
    check_silence(folder)
    check_kill(folder)


def four(folder):
    """Parts of a batch that are not alike."""
    check_same_as_one_process(60, 0.01, tol=0.3)  # 250 points of a batch, 62 or 63 of each
    shards.check_losses(atoms(30), [])


def run(case, rank, size, folder):
    """Join the group as a rank, and run a case."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background ignores
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous of {size}",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=TIMEOUT),
    )
    globals()[case](folder)


def main():
    """Fork the ranks, once all is imported, and tell their exit codes."""
    case, size, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    processes = []
    for rank in range(size):
        processes.append(os.fork())
        if processes[-1] == 0:
            try:
                run(case, rank, size, folder)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)  # no farewell to a rank that is gone
    codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
    print(*codes)


if __name__ == "__main__":
    main()
