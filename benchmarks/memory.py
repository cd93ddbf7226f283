"""Memory of what is large: atoms on disk, and a million of them in memory.

``python -m benchmarks.memory [--gigabytes G] [--limit G] [--threads N ...] [--folder FOLDER]
[--json FILE]``

- ``stored``: atoms of 3,072 coordinates in float32 that take so many gigabytes (4) on disk, solved for
  with so many (1) of private memory beyond what the imports took: the system refuses more
  (``RLIMIT_DATA``; the pages of the file that it keeps are its own). One batch, looks included.
- ``loss``: a step of a loss, forward and backward, and of its potential, for 256 points, a million
  atoms and 64 coordinates: nanoseconds an entry, beside those at 10,000 atoms, and the largest resident
  set beyond that of the data; with one thread, and with so many.

NumPy and torch, float32, one thread otherwise. Seconds are by the clock.
"""

import itertools
import os
import re
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import pot_semidiscrete as ps
from pot_semidiscrete.generative import SemiDiscreteLoss

from . import machine

DIMENSION, BATCH = 3072, 256


def status(name):
    """Bytes of an entry of the system's account of this process."""
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def loss_steps(n_atoms, n_threads, rounds):
    """Nanoseconds an entry of the two kinds of steps, and bytes beyond those of the data."""
    rng = torch.Generator().manual_seed(0)
    atoms, x = torch.randn(n_atoms, 64, generator=rng), torch.randn(BATCH, 64, generator=rng)
    loss = SemiDiscreteLoss(atoms, reg=0.05 * 128.0)
    loss.dual_step(x.requires_grad_())
    seconds = {"backward": [], "follow": []}

    def steps():
        for _ in range(rounds):
            start = time.perf_counter()
            loss(x).backward()
            middle = time.perf_counter()
            loss.dual_step(x)
            seconds["backward"].append(middle - start)
            seconds["follow"].append(time.perf_counter() - middle)

    with machine.limit_threads(n_threads):
        _, extra = machine.peak(steps)
    unit = 1e9 / (BATCH * n_atoms)
    found = {f"{name}_ns": float(np.median(s)) * unit for name, s in seconds.items()}
    return {"n_atoms": n_atoms, "threads": n_threads} | found | {"extra_bytes": extra}


def solve_stored(path, n_atoms, limit):
    """Facts of a run on atoms of a file."""
    rows = np.memmap(path, dtype=np.float32, mode="r", shape=(n_atoms, DIMENSION))
    most = int(status("VmData") + limit * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))
    start = time.perf_counter()
    result = ps.solve_semidiscrete(
        rows, "normal", reg=0.01 * 2.0 * DIMENSION, tol=0, max_iter=1, random_state=0
    )
    seconds = time.perf_counter() - start
    entries = result.work / 1e9
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return {
        "gigabytes": rows.nbytes / 1e9,
        "n_atoms": n_atoms,
        "limit_gigabytes": limit,
        "seconds": seconds,
        "ns_an_entry": seconds / entries,
        "samples": result.n_samples,
        "chi2": result.chi2,
    }


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--limit", type=float, default=1.0)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="for the file")
    args = parser.parse_args()
    with machine.limit_threads(1):
        facts, rows = machine.facts(), {}
        n_atoms = int(args.gigabytes * 1e9 / (4 * DIMENSION))
        path = os.path.join(args.folder, "pot_semidiscrete_memory.bin")
        try:
            rng = np.random.default_rng(0)
            with open(path, "wb") as file:
                for start in range(0, n_atoms, 4096):
                    shape = (min(4096, n_atoms - start), DIMENSION)
                    file.write(rng.standard_normal(shape, dtype=np.float32).tobytes())
            rows["stored"] = solve_stored(path, n_atoms, args.limit)
        finally:
            if os.path.exists(path):
                os.remove(path)
        print("stored:", ", ".join(f"{k} {v:.4g}" for k, v in rows["stored"].items()), flush=True)
        rows["loss"] = []
        for n_threads, (n, rounds) in itertools.product(args.threads, ((10_000, 30), (1_000_000, 5))):
            rows["loss"].append(loss_steps(n, n_threads, rounds))
            print("loss:", ", ".join(f"{k} {v:.4g}" for k, v in rows["loss"][-1].items()), flush=True)
        machine.write(args.json, machine=facts, **rows)


if __name__ == "__main__":
    main()
