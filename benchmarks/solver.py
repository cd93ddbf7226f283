"""Accuracy for the samples drawn, and time, of semi-discrete solvers side by side.

``python -m benchmarks.solver [--seeds 5] [--samples 64000] [--json FILE]``

The efficiency ratio is the sub-optimality of the potential in units of what the samples allow at
best, in the mean: it depends on neither the machine nor the scale of the data, and 1 is the limit.
Every solver draws the same number of samples and has its default settings.
"""

import argparse
import json
import os
import platform
import time

import numpy as np
import ot
import torch

import pot_semidiscrete as ps

from . import problems, references

BATCH = {"pot_semidiscrete": 256, "POT": 32}


NAMES = ("uniform_square", "shifted_normal")


def solve(solver, atoms, source, reg, n_samples):
    """Potential of one run."""
    options = {"reg": reg, "max_iter": n_samples // BATCH[solver], "batch_size": BATCH[solver]}
    if solver == "POT":
        return ot.semidiscrete.solve_semidiscrete(atoms, source, **options)
    return ps.solve_semidiscrete(atoms, source, tol=0, **options).potential


def machine():
    """Facts about the machine, for the record."""
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
        "POT": ot.__version__,
    }


def run(seeds, n_samples):
    """One row for each problem, scale of the data, and solver."""
    rows = []
    for name in NAMES:
        problem, reference = problems.get(name), references.load(name)
        quadrature = problem.quadrature()
        for scale in (1.0, 255.0):
            atoms = torch.from_numpy(reference.atoms).float() * scale
            for solver in BATCH:
                ratios, seconds = [], []
                for seed in range(seeds):
                    draw = problem.sampler(torch.Generator().manual_seed(seed), atoms.dtype)
                    start = time.perf_counter()
                    potential = solve(
                        solver,
                        atoms,
                        lambda n, draw=draw, scale=scale: draw(n) * scale,
                        reference.reg * scale**2,
                        n_samples,
                    )
                    seconds.append(time.perf_counter() - start)
                    potential = potential.double().numpy() / scale**2
                    ratios.append(reference.efficiency_ratio(quadrature, potential, n_samples))
                row = {
                    "problem": name,
                    "scale": scale,
                    "solver": solver,
                    "ratio": float(np.mean(ratios)),
                    "ratio_stderr": float(np.std(ratios, ddof=1) / seeds**0.5),
                    "seconds": float(np.median(seconds)),
                }
                rows.append(row)
                print(
                    f"{name:16} x{scale:<5g} {solver:18} ratio {row['ratio']:10.4g} "
                    f"+- {row['ratio_stderr']:8.2g}   {row['seconds']:.2f} s",
                    flush=True,
                )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=64_000)
    parser.add_argument("--json", metavar="FILE", help="write the results and machine facts")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = run(args.seeds, args.samples)
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"machine": machine(), "samples": args.samples, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
