"""Accuracy for the samples drawn, time and memory of semi-discrete solvers, side by side.

``python -m benchmarks.solver [--problems NAME ...] [--solvers NAME ...] [--device cuda] [--json FILE]``

Three measures, for every problem of :mod:`benchmarks.problems`:

- the efficiency ratio: sub-optimality in units of what the samples allow at best, in the mean. It
  depends on neither the machine nor the scale of the data, and 1 is the limit. At ``reg = 0``,
  where a problem's optimum is known exactly, the sub-optimality itself, against POT's;
- the time to POT's accuracy: seconds of the run of the fewest samples tried that is on average as
  accurate as POT with 131,072 samples, over POT's seconds. Tried are 1, 2, 3, 4, 6, 8, 11, 16, ...
  batches of 256 until they are enough, then two bisections between the last two of these;
- the peak of the resident memory of a fresh process above what it holds before the run, libraries
  warm, problem built, code compiled (Linux; for some problems only).

All run in float32 on one thread (with another device, this package and POT run there, and JAX where it
chooses), and draw the same number of samples of the same law:

- ``ours``, ``POT``: default settings (POT's batch is 32 and ours 256).
- ``OTT tutorial``: OTT-JAX with the settings of its tutorial: SGD of step 0.02, batch 128.
- ``OTT tuned``: the same with the best of 7 optimisers and steps, in units of the problem, chosen
  for each problem by the true sub-optimality, which a user does not know, of one seed.
- ``ASGD``, ``SAG``: those of `ot.stochastic`, with their defaults, in float64, for sources that are
  arrays: they need the whole cost matrix, whose making is in their time and memory.

OTT-JAX is compiled before the clock starts. Neither solver is timed for estimates of its error: this
package makes them when they are asked for.
"""

import dataclasses
import json
import math
import subprocess
import sys

import numpy as np
import torch

from . import machine, problems
from .adapters import BATCH, SOLVERS, applicable, warm_up
from .suboptimality import accuracy, regularised_case, trials, unregularised_case

GOAL_SAMPLES = 131_072
HALVINGS = 2  # of the range in which the number of samples lies that is enough
UNREGULARISED = ("normal_line", "uniform_line", "student_line", "uniform_square")
MEMORY = ("uniform_square", "plane_rows", "rows_64")


def budgets(most):
    """Numbers of samples up to `most`, whole batches, each some 1.4 times the one before."""
    last = round(2 * math.log2(most / BATCH))
    return sorted({BATCH * round(2.0 ** (k / 2)) for k in range(last + 1)})


def least_samples(case, solver, seeds, goal, most):
    """Fewest samples tried with which the mean sub-optimality is at most `goal`, and the seconds."""
    enough, lower = goal * seeds, 0

    def try_with(budget):
        losses, seconds = trials(case, solver(case.problem, budget), range(seeds), enough)
        return (budget, np.median(seconds)) if losses.sum() <= enough else None

    for budget in budgets(most):
        found = try_with(budget)
        if found:
            break
        lower = budget
    else:
        return None, math.inf
    for _ in range(HALVINGS):
        budget = BATCH * ((lower + found[0]) // (2 * BATCH))
        if budget > lower:
            better = try_with(budget)
            found, lower = (better, lower) if better else (found, budget)
    return found


def time_to_accuracy(case, solvers, pot, n_samples, seeds):
    """Seconds to be as accurate as `pot` with `n_samples`, over its own: one row for each solver."""
    losses, seconds = trials(case, pot(case.problem, n_samples), range(seeds))
    goal, limit, rows = losses.mean(), np.median(seconds), []
    for name, solver in solvers.items():
        samples, seconds = least_samples(case, solver, seeds, goal, n_samples)
        row = {"problem": case.label, "solver": name, "POT_seconds": limit}
        row |= {"samples": samples, "seconds": seconds, "share": seconds / limit}
        rows.append(row)
        print(
            f"{case.label:22} {name:13} as accurate as POT's {n_samples} with {row['samples']} "
            f"samples, in {row['share']:.4f} of its {limit:.2f} s",
            flush=True,
        )
    return rows


def peak(name, solver, n_samples, device):
    """Bytes that a run adds to the resident memory of this process, at most."""
    problem = problems.get(name)
    factory = applicable([solver], problem, device)[solver]
    # libraries take memory of their own at their first use
    few = min(16, len(problem.atoms))
    weights = problem.weights[:few] / problem.weights[:few].sum()
    small = dataclasses.replace(problem, atoms=problem.atoms[:few], weights=weights)
    factory(small, 512)(0)
    torch.ones(1000, 64) @ torch.ones(64, 5000)
    run = factory(problem, n_samples)
    return machine.peak(lambda: run(0))[1]


def memory(name, solver, n_samples):
    """The same, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.solver", "--samples", str(n_samples)]
    command += ["--problems", name, "--solvers", solver, "--peak"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row = {"problem": name, "solver": solver, "bytes": json.loads(done.stdout.splitlines()[-1])}
    print(f"{name:22} {solver:13} {row['bytes'] / 2**20:8.1f} MiB beyond the problem", flush=True)
    return row


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=64_000)
    parser.add_argument("--problems", nargs="+", choices=problems.NAMES, default=problems.NAMES)
    parser.add_argument("--solvers", nargs="+", choices=list(SOLVERS), default=list(SOLVERS))
    parser.add_argument("--device", default="cpu", help="of torch, e.g. cuda; JAX has its own choice")
    parser.add_argument("--goal-samples", type=int, default=GOAL_SAMPLES, help="of POT")
    parser.add_argument("--peak", action="store_true", help="print the memory of one run, in bytes")
    args = parser.parse_args()
    with machine.limit_threads(1):
        if args.peak:
            print(peak(args.problems[0], args.solvers[0], args.samples, args.device))
        else:
            run(args)


def run(args):
    """All measures; what is known is written after each problem."""
    table, times, sizes = [], [], []
    facts = {"machine": machine.facts(), "samples": args.samples, "seeds": args.seeds}
    facts.update(device=args.device, accuracy=table, time_to_accuracy=times, memory=sizes)
    warm_up(args.solvers, args.device)
    cases = [regularised_case(name) for name in args.problems]
    cases += [unregularised_case(name) for name in args.problems if name in UNREGULARISED]
    for case in cases:
        solvers = applicable(args.solvers, case.problem, args.device)
        rows, tuned = accuracy(case, solvers, args.samples, args.seeds)
        table += rows
        racing = {name: tuned[name] for name in solvers if name in ("ours", "OTT tuned")}
        pot = applicable(["POT"], case.problem, args.device)["POT"]
        times += time_to_accuracy(case, racing, pot, args.goal_samples, min(args.seeds, 3))
        machine.write(args.json, **facts)
    for name in args.problems:
        if name in MEMORY and sys.platform == "linux" and args.device == "cpu":
            solvers = [s for s in applicable(args.solvers, problems.get(name)) if s != "OTT tuned"]
            sizes += [memory(name, solver, args.samples) for solver in solvers]
    machine.write(args.json, **facts)


if __name__ == "__main__":
    main()
