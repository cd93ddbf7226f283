"""What Newton's correction gains: the solver without it and with it.

``python -m benchmarks.correction [--samples N ...] [--seeds K] [--json FILE]``

For every problem of :mod:`benchmarks.problems`, the efficiency ratio of the average of the ascent
alone (``max_memory=0``) and with default settings, on the same source points, in float32 on one
thread, and the seconds of a run. Both runs end with the same certificates, and the seconds contain
them. The ratio is the sub-optimality in units of what the samples allow at best, in the mean.
"""

import argparse

import torch
from threadpoolctl import threadpool_limits

import pot_semidiscrete as ps

from . import machine, problems
from .solver import regularised, torch_problem, trials, warm_up

BATCH = 256
VARIANTS = {"ascent": {"max_memory": 0}, "corrected": {}}


def compare(name, n_samples, seeds):
    """Ratio, its standard error and seconds of both variants."""
    case, n_iter = regularised(name), -(-n_samples // BATCH)
    atoms, weights, draw = torch_problem(case.problem)
    row = {"problem": name, "samples": n_iter * BATCH, "atoms": len(atoms)}
    unit = case.trace / (2.0 * row["samples"])
    for variant, options in VARIANTS.items():
        options = {"reg": case.problem.reg, "tol": 0, "max_iter": n_iter, "batch_size": BATCH, **options}

        def run(seed, options=options):
            return ps.solve_semidiscrete(atoms, draw(seed), weights, **options).potential

        losses, seconds = trials(case, run, range(seeds))
        row[variant] = losses.mean() / unit
        row[f"{variant}_stderr"] = losses.std(ddof=1) / unit / seeds**0.5 if seeds > 1 else None
        row[f"{variant}_seconds"] = sorted(seconds)[seeds // 2]
    print(
        f"{name:22} {row['samples']:6} samples   ascent {row['ascent']:8.3g} "
        f"({row['ascent_seconds']:.2f} s)   corrected {row['corrected']:8.3g} "
        f"({row['corrected_seconds']:.2f} s)",
        flush=True,
    )
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, nargs="+", default=[64_000])
    parser.add_argument("--problems", nargs="+", choices=problems.NAMES, default=problems.NAMES)
    parser.add_argument("--json", metavar="FILE", help="write the results and machine facts")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows, facts = [], {"machine": machine.facts(), "seeds": args.seeds}
    with threadpool_limits(1):
        warm_up(["ours"])
        for n_samples in args.samples:
            for name in args.problems:
                rows.append(compare(name, n_samples, args.seeds))
                if args.json:
                    machine.write(args.json, **facts, rows=rows)


if __name__ == "__main__":
    main()
