"""Steps on several ranks: bytes against the formula, efficiency here, and what to expect elsewhere.

``python -m benchmarks.distributed [--ranks 1 2 4] [--atoms 20000] [--dimension 16] [--batch 2048]
[--rounds 10] [--share points] [--device cpu] [--bandwidth 50e9] [--latency 5e-6] [--json FILE]``

A step is what the solver does with a batch: c-transforms, masses and sums of squares at all atoms, in
float32. Each rank draws its part of the points, which go to all, ``P = 4 batch dimension`` bytes; and
reduces its part of the rows, of which an all-reduce has ``V = 4 (2 atoms + batch)`` bytes. In rings each
rank sends ``(ranks - 1) / ranks (P + 2 V)``. What all ranks sent is read from the counter of the
loopback device (Linux; gloo): whatever else used it, headers of TCP and the handshakes before each
exchange are in it, too.

Efficiency is ``t_1 / (ranks t)``: of the best seconds by the clock, where ranks share the cores that
there are with all else, and of seconds of the processor, the sum of all ranks'. A solve is of as many
batches for each number of ranks, and Newton's method at its end. Parts are those of a step, of all ranks
at once, and nothing exchanged: what a machine loses by itself, whose cores share what they have.

With ``--share atoms`` each rank has a part of the atoms instead, and reduces all rows at these: least
c-transforms go before the sums, so that ``V = 8 (atoms + batch)``.

Predicted is ``e batch atoms / ranks + (ranks - 1) / ranks (P + 2 V) / bandwidth + 8 log2(ranks)
latency``, of four exchanges, as if nothing were done meanwhile, in 784 dimensions. The seconds e of an
entry are those measured here, with ``--device cuda --dimension 784``; without, at most those of
``benchmarks/results/training_gpu.json``: a whole training of version 0.1.0 on images of 784 pixels, in
float32, with two passes a round and the steps of the generator in them. A kernel may be faster, so a
quarter of that is shown, too. Bandwidth, in bytes a second into and out of each GPU, and latency are
assumed, not measured. Predictions are of shared points, and are printed only.
"""

import datetime
import itertools
import json
import math
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import pot_semidiscrete as sd
from pot_semidiscrete.backend import ranks_of
from pot_semidiscrete.kernels import reduce
from pot_semidiscrete.problem import SharedTarget, build_target, resolve_shards

from . import machine

OUTPUTS = ("c_transform", "colsum", "colsquare")
TRAINING = Path(__file__).parent / "results" / "training_gpu.json"
ROUND_POINTS, ROUND_PASSES, ROUND_STEPS = 7200, 2, 16  # of train_generator there: 9 batches of 800
GPUS = (8, 16, 32, 64, 128, 256, 512)
SHAPES = ((60_000, 8_192), (60_000, 30_000), (1_000_000, 8_192), (1_000_000, 500_000))  # atoms, batch
PIXELS = 784  # of that training
ITEM = 4  # bytes of a number


def ring_bytes(ranks, n_atoms, dimension, batch, share="points"):
    """Bytes that a rank sends in a step, in rings: points, and sums at the atoms."""
    sums = 2 * n_atoms + batch * (2 if share == "atoms" else 1)
    return (ranks - 1) / ranks * ITEM * (batch * dimension + 2 * sums)


def loopback():
    """Bytes that the loopback device has sent; nan where nobody counts them."""
    try:
        lines = Path("/proc/net/dev").read_text().splitlines()
    except OSError:
        return math.nan
    found = [line.split(":", 1)[1].split() for line in lines if line.strip().startswith("lo:")]
    return float(found[0][8]) if found else math.nan


def work(rank, size, folder, sizes, rounds, share, device, queue):
    """What each rank does: steps, then a solve; the first tells what it measured."""
    machine.limit_threads(1)
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=120),
    )
    n_atoms, d, batch = sizes
    rng = torch.Generator().manual_seed(0)
    atoms, x = (torch.randn((n, d), generator=rng).to(device) for n in (n_atoms, batch))
    psi = 0.1 * torch.randn(n_atoms, generator=rng).to(device)
    ranks = ranks_of(dist.group.WORLD, atoms)
    part = x[ranks.part(batch)]
    given, rows, mine, group = atoms, part, psi, dist.group.WORLD
    if share == "atoms":
        mine, own_atoms = (array[ranks.part(n_atoms)] for array in (psi, atoms))
        given, rows, group = sd.ShardedAtoms(own_atoms, group), x, None
        shards, ranks = resolve_shards(given)
        local, target = build_target(own_atoms), SharedTarget.of(build_target(shards), ranks)
    else:
        local = build_target(atoms)
        target = SharedTarget.of(local, ranks)

    def step():
        """Points of all ranks are gathered, and outputs of all reduced."""
        return reduce(target, target.center(ranks.gather(part)), psi, 0.1 * d, OUTPUTS)

    def own():
        """This rank's part of a step, nothing exchanged."""
        return reduce(local, local.center(rows), mine, 0.1 * d, OUTPUTS)

    step()
    float(own().colsum[0])
    dist.barrier()
    alone = time.process_time()
    for _ in range(rounds):
        float(own().colsum[0])
    alone = (time.process_time() - alone) / rounds
    dist.barrier()
    seconds, sent, put = [], loopback(), ranks.n_bytes
    processor = time.process_time()
    for _ in range(rounds):
        dist.barrier()
        start = time.perf_counter()
        float(step().colsum[0])  # a GPU is waited for
        seconds.append(time.perf_counter() - start)
    processor, put = (time.process_time() - processor) / rounds, (ranks.n_bytes - put) / rounds
    dist.barrier()
    sent = (loopback() - sent) / rounds
    start, used = time.perf_counter(), time.process_time()
    sampler = lambda n: torch.randn((n, d), generator=rng).to(device)
    rng.manual_seed(rank + 1)
    options = {"batch_size": batch, "tol": 0, "max_iter": max(rounds, 2)}
    sd.solve_semidiscrete(given, sampler, reg=0.1 * d, process_group=group, **options)
    start, used = time.perf_counter() - start, time.process_time() - used
    totals = torch.tensor([processor, used, alone], dtype=torch.float64, device=device)
    dist.all_reduce(totals)
    if rank == 0:
        facts = {"ranks": size, "step_s": min(seconds), "step_processor_s": float(totals[0])}
        facts |= {"put_bytes": put, "sent_bytes": sent, "solve_s": start}
        queue.put(facts | {"solve_processor_s": float(totals[1]), "parts_processor_s": float(totals[2])})
    dist.barrier()
    dist.destroy_process_group()


def measure(size, sizes, rounds, share, device):
    """The row of a number of ranks."""
    queue = mp.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, (size, folder, sizes, rounds, share, device, queue), nprocs=size)
        row = queue.get()
    row["formula_bytes"] = size * ring_bytes(size, *sizes, share)
    return row


def efficiencies(rows):
    """Of each row against the first, which is of one rank."""
    for row in rows:
        for name in ("step", "solve"):
            seconds, used = f"{name}_s", f"{name}_processor_s"
            row[f"{name}_efficiency"] = rows[0][seconds] / (row["ranks"] * row[seconds])
            row[f"{name}_processor_efficiency"] = rows[0][used] / row[used]
        row["parts_processor_efficiency"] = rows[0]["parts_processor_s"] / row["parts_processor_s"]
    return rows


def entry_of_training():
    """Seconds of an entry, at most, in the training that was measured on a GPU; and on which."""
    found = json.loads(TRAINING.read_text())
    rows = [row for row in found["rows"] if row["recipe"] == "pixels"]
    rounds = sum(row["steps"] for row in rows) / ROUND_STEPS
    entries = rounds * ROUND_PASSES * ROUND_POINTS * found["atoms"]
    return len(rows) * found["seconds"] / entries, found["machine"]["gpu"]


def predict(entry, gpus, n_atoms, batch, bandwidth, latency):
    """Seconds of a step, and the share of one GPU's speed that each keeps."""
    compute = entry * batch * n_atoms / gpus
    exchange = ring_bytes(gpus, n_atoms, PIXELS, batch) / bandwidth
    exchange += 8.0 * math.log2(gpus) * latency
    return compute + exchange, compute / (compute + exchange)


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    for name, default in {"atoms": 20_000, "dimension": 16, "batch": 2048, "rounds": 10}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--share", choices=["points", "atoms"], default="points")
    parser.add_argument("--device", default="cpu", help="cuda: a GPU for each rank")
    parser.add_argument("--bandwidth", type=float, default=50e9, help="bytes a second, assumed")
    parser.add_argument("--latency", type=float, default=5e-6, help="seconds, assumed")
    args = parser.parse_args()
    sizes = args.atoms, args.dimension, args.batch
    facts = machine.facts()
    rows = efficiencies(
        [measure(n, sizes, args.rounds, args.share, args.device) for n in sorted({1, *args.ranks})]
    )
    for row in rows:
        shares = [
            f"{name} {row[name + '_efficiency']:.2f} ({row[name + '_processor_efficiency']:.2f})"
            for name in ("step", "solve")
        ]
        print(
            f"{row['ranks']} ranks: step {1e3 * row['step_s']:.1f} ms; efficiency by the clock (of the "
            f"processor): {', '.join(shares)}, "
            f"parts ({row['parts_processor_efficiency']:.2f}); {row['sent_bytes']:.3g} bytes "
            f"sent in a step, by the formula {row['formula_bytes']:.3g}",
            flush=True,
        )
    here = rows[0]["step_s"] / (args.atoms * args.batch)
    entry, gpu = entry_of_training()
    kernels = {"at most, " + gpu: entry, "a quarter of it": entry / 4.0}
    if args.device == "cuda" and args.dimension == PIXELS:
        kernels["measured"] = here
    assumed = {"bandwidth": args.bandwidth, "latency": args.latency}
    cases = itertools.product(kernels, SHAPES, GPUS) if args.share == "points" else ()
    for kernel, shape, gpus in cases:
        step, efficiency = predict(kernels[kernel], gpus, *shape, **assumed)
        print(
            f"{kernel}: {shape[0]} atoms, batch {shape[1]}, {gpus} GPUs: step {1e3 * step:.3g} ms, "
            f"efficiency {efficiency:.2f} (predicted)"
        )
    shape = dict(zip(("atoms", "dimension", "batch"), sizes, strict=True)) | {"share": args.share}
    found = {"entry_s": here, "training_entry_s": entry, "rows": rows}
    machine.write(args.json, machine=facts, **shape, assumed=assumed, **found)


if __name__ == "__main__":
    main()
