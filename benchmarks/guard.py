"""Guard of speed: three short runs, in units of a plain sweep that the same process makes.

``python -m benchmarks.guard [--rounds 5] [--json FILE]``

A row's *ratio* is the processor's seconds of a run over those of the plain sweep, log-sum-exp and column
sums of `POINTS` by `ATOMS` in lines of NumPy; each has the least of its rounds, which take turns. Ratios
hardly depend on the machine or on its load. Where one is `WORSE` times that of
``benchmarks/results/guard.json`` the command fails; ``--json`` of that file renews it. On one thread, in
float32:

- *solve*: 1,000 normal atoms in dimension 16, regularisation 1% of the mean cost, to the default `tol`;
- *correct*: 300 atoms in the plane, 25,600 samples and Newton's method on them, of three seeds, for its
  work is 36 to 62 million entries by the seed;
- *train*: 20 steps of the potential and 20 losses with their gradients, in torch, of 1,000 atoms in
  dimension 64.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

import pot_semidiscrete as ps
from pot_semidiscrete.generative import SemiDiscreteLoss

from . import machine

POINTS, ATOMS, DIMENSION = 8192, 1000, 16
WORSE = 1.5
COMMITTED = Path(__file__).parent / "results" / "guard.json"


def normal(n, dimension, seed=0):
    """Normal points, float32."""
    return np.random.default_rng(seed).standard_normal((n, dimension), dtype=np.float32)


def sweep():
    """The yardstick: c-transforms of points and masses of atoms at a potential of 0."""
    atoms, points = normal(ATOMS, DIMENSION), normal(POINTS, DIMENSION, seed=1)
    reg = np.float32(0.01 * ps.cost_scale(atoms))
    masses, total = np.zeros(ATOMS, np.float32), 0.0
    for x in np.split(points, POINTS // 256):
        costs = (x**2).sum(axis=1)[:, None] - 2.0 * x @ atoms.T + (atoms**2).sum(axis=1)
        least = costs.min(axis=1, keepdims=True)
        scores = np.exp((least - costs) / reg)
        sums = scores.sum(axis=1, keepdims=True)
        total += (least - reg * np.log(sums)).sum()
        masses += (scores / sums).sum(axis=0)
    return total, masses


def solve():
    """A solve to the default tolerance."""
    atoms = normal(1000, 16)
    return ps.solve_semidiscrete(atoms, "normal", reg=0.01 * ps.cost_scale(atoms), random_state=0)


def correct():
    """So many samples, and Newton's method on them."""
    atoms = normal(300, 2)
    options = {"reg": 0.01 * ps.cost_scale(atoms), "tol": 0, "max_iter": 100, "batch_size": 256}
    return [ps.solve_semidiscrete(atoms, "normal", random_state=k, **options) for k in range(3)]


def train():
    """Steps of a potential, and gradients of its loss."""
    atoms, points = (torch.from_numpy(normal(n, 64)) for n in (1000, 512))
    loss = SemiDiscreteLoss(atoms)
    for _ in range(20):
        loss.follow(points)
        x = points.clone().requires_grad_()
        loss(x).backward()
    return loss


RUNS = {"solve": solve, "correct": correct, "train": train}


def measured(rounds):
    """One row for each run: its least seconds, over those of the sweep."""
    least = dict.fromkeys(["sweep", *RUNS], np.inf)
    sweep()
    for _ in range(rounds):
        for name in least:
            seconds = machine.seconds({"sweep": sweep, **RUNS}[name])[1]
            least[name] = min(least[name], seconds)
    return [
        {"name": name, "seconds": least[name], "ratio": least[name] / least["sweep"]} for name in RUNS
    ]


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    known = {row["name"]: row["ratio"] for row in json.loads(COMMITTED.read_text())["rows"]}
    with machine.limit_threads(1):
        facts, rows = machine.facts(), measured(args.rounds)
    worse = {row["name"]: row["ratio"] / known[row["name"]] for row in rows}
    for row in rows:
        print(
            f"{row['name']:8} {row['seconds']:7.3f} s, {row['ratio']:6.2f} sweeps, "
            f"{worse[row['name']]:5.2f} times what is committed"
        )
    machine.write(args.json, machine=facts, rounds=args.rounds, rows=rows)
    slower = [name for name, ratio in worse.items() if ratio > WORSE]
    if slower:
        sys.exit(f"slower than {WORSE} times what {COMMITTED.name} has: {', '.join(slower)}")


if __name__ == "__main__":
    main()
