"""Whether the solver's word on its own result is true, over many runs.

``python -m benchmarks.certificates [--problems NAME ...] [--seeds 1000] [--truths 100] [--json FILE]``

For problems of :mod:`benchmarks.problems` whose law has a quadrature, on runs that end at ``tol=0.1``
(``converged``) and on runs of one point per atom, at least 512 (``early``):

- coverage: the share of runs whose ``value_interval`` holds the transport cost, 95% if it is right;
- width: of the interval, over that of a plain Monte-Carlo interval from as many points as the run
  evaluates itself on, median;
- wrong: the share of converged runs whose true marginal error exceeds `tol`, at most 5% if it is right;
- sub-optimality: the run's estimate over the truth, median, of the first runs.

In float32, torch, one thread.
"""

import argparse
import warnings

import numpy as np
import torch
from threadpoolctl import threadpool_limits

import pot_semidiscrete as ps

from . import machine, problems, references
from .solver import torch_problem

NAMES = (
    "normal_line",
    "uniform_line",
    "uniform_square",
    "shifted_normal",
    "anisotropic_clusters",
    "far_atoms",
    "light_atoms",
)
TOL = 0.1
KINDS = ("converged", "early")


def options(problem, kind):
    """Of the solver."""
    if kind == "converged":
        return {"tol": TOL, "max_iter": 100_000}
    n_points = max(len(problem.atoms), 512)
    return {"tol": 0, "max_iter": -(-n_points // 64), "batch_size": 64}


def measure(name, kind, seeds, truths):
    """One row: what the runs of a problem say, against its reference."""
    problem, exact = problems.get(name), references.load(name)
    atoms, weights, draw = torch_problem(problem)
    facts = (problem.quadrature(), problem.atoms, problem.weights, problem.reg)
    held, widths, wrong, ratios, n_converged = [], [], [], [], 0
    for seed in range(seeds):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ps.SemiDiscreteWarning)
            result = ps.solve_semidiscrete(
                atoms, draw(seed), weights, reg=problem.reg, **options(problem, kind)
            )
        low, high = result.value_interval
        held.append(low <= exact.value <= high)
        widths.append((high - low) / (2.0 * 1.96 * result.value_stderr))
        n_converged += result.converged
        if seed < truths:
            value, marginal, _ = references.semi_dual(*facts, np.asarray(result.potential, dtype=float))
            ratios.append(result.suboptimality / (exact.value - value))
            error = references.marginal_error(marginal, problem.weights)
            if result.converged:
                wrong.append(error > TOL**2)
    row = {
        "problem": name,
        "kind": kind,
        "runs": seeds,
        "coverage": float(np.mean(held)),
        "width": float(np.median(widths)),
        "converged": n_converged / seeds,
        "wrong": float(np.mean(wrong)) if wrong else None,
        "suboptimality": float(np.median(ratios)),
    }
    print(
        f"{name:22} {kind:10} {seeds:5} runs   coverage {row['coverage']:.3f}   width "
        f"{row['width']:5.2f}   wrong {row['wrong']}   sub-optimality x {row['suboptimality']:.2f}",
        flush=True,
    )
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--problems", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--truths", type=int, default=100, help="runs compared with the truth")
    parser.add_argument("--json", metavar="FILE", help="write the results and machine facts")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows, facts = [], {"machine": machine.facts(), "tol": TOL}
    with threadpool_limits(1):
        for name in args.problems:
            for kind in args.kinds:
                rows.append(measure(name, kind, args.seeds, args.truths))
                if args.json:
                    machine.write(args.json, **facts, rows=rows)


if __name__ == "__main__":
    main()
