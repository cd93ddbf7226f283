"""Seconds of a solve by the number of threads, on an idle machine and beside a busy process.

``python -m benchmarks.threads [--threads 1 2] [--libraries torch numpy] [--rounds 3]
[--share 1] [--json FILE]``

Normal atoms and source, float32, regularisation 1% of the mean cost, to a `tol` of 0.3. Each number is
the least of the rounds, by the clock, for threads that wait take no time of a processor. The busy
process counts. `--share` is that of the atoms.
"""

import contextlib
import itertools
import os
import subprocess
import sys
import time

import numpy as np
import torch

import pot_semidiscrete as ps

from . import machine

SIZES = ((1_000, 16), (10_000, 2), (10_000, 16))
COUNTING = [sys.executable, "-c", "while True: pass"]


def solve(library, n_atoms, dimension, rounds):
    """The least seconds of a solve."""
    atoms = np.random.default_rng(0).standard_normal((n_atoms, dimension), dtype=np.float32)
    atoms = torch.from_numpy(atoms) if library == "torch" else atoms
    options, seconds = {"reg": 0.01 * ps.cost_scale(atoms), "tol": 0.3}, []
    for _ in range(rounds + 1):  # the first warms up
        start = time.perf_counter()
        ps.solve_semidiscrete(atoms, "normal", random_state=0, **options)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


@contextlib.contextmanager
def busy():
    """Context in which another process takes a core."""
    with subprocess.Popen(COUNTING) as process:
        try:
            yield
        finally:
            process.kill()


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count()])
    parser.add_argument("--libraries", nargs="+", default=["torch", "numpy"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0)
    args = parser.parse_args()
    print(f"{'':24}" + "".join(f"{f'{n:,} x {d}':>13}" for n, d in SIZES))
    machines, rows = {"idle": contextlib.nullcontext, "busy": busy}, []
    for library, load, n in itertools.product(args.libraries, machines, args.threads):
        with machine.limit_threads(n), machines[load]():
            sizes = ((round(args.share * whole), d) for whole, d in SIZES)
            seconds = [solve(library, *size, args.rounds) for size in sizes]
        rows.append({"library": library, "load": load, "threads": n, "seconds": seconds})
        found = "".join(f"{s:11.2f} s" for s in seconds)
        print(f"{library:6} {load}, {n:2} threads  {found}", flush=True)
        machine.write(args.json, machine=machine.facts(), rows=rows)


if __name__ == "__main__":
    main()
