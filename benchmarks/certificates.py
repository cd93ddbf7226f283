"""Whether the solver's word on its own result is true, over many runs.

``python -m benchmarks.certificates [--problems NAME ...] [--seeds 1000] [--truths 100] [--jobs J]
[--json FILE]``

For problems of :mod:`benchmarks.problems` whose law has a quadrature, and two of them at ``reg = 0``, on
runs that end at ``tol=0.1`` (``converged``) and on runs of one point per atom, at least 512 (``early``):

- coverage: the share of runs whose ``value_interval`` holds the transport cost, 95% if it is right;
- width: of the interval, over that of a plain Monte-Carlo interval from as many points as the run
  evaluates itself on, median;
- wrong: the share of converged runs whose true marginal error exceeds `tol`, at most 5% if it is right;
- sub-optimality: the run's estimate and its bound over the truth, medians, of the first runs.

In float32, torch, one thread for each of the jobs.
"""

import warnings

import numpy as np

import pot_semidiscrete as ps

from . import machine, references
from .adapters import torch_problem
from .jobs import Pool
from .suboptimality import regularised_case, unregularised_case

NAMES = (
    "normal_line",
    "uniform_line",
    "uniform_square",
    "shifted_normal",
    "anisotropic_clusters",
    "far_atoms",
    "light_atoms",
)
UNREGULARISED = ("normal_line", "uniform_line")
TOL = 0.1
KINDS = ("converged", "early")


def options(problem, kind):
    """Of the solver."""
    if kind == "converged":
        return {"tol": TOL, "max_iter": 100_000}
    n_points = max(len(problem.atoms), 512)
    return {"tol": 0, "max_iter": -(-n_points // 64), "batch_size": 64}


def run(make, name, kind, seed, compare):
    """What one run says, and how far it was from the truth, if that is to be compared."""
    case = make(name)
    problem = case.problem
    atoms, weights, draw = torch_problem(problem)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ps.SemiDiscreteWarning)
        result = ps.solve_semidiscrete(
            atoms, draw(seed), weights, reg=problem.reg, **options(problem, kind)
        )
    low, high = result.value_interval
    said = {
        "held": low <= case.optimum <= high,
        "width": (high - low) / (2.0 * 1.96 * result.value_stderr),
        "converged": result.converged,
    }
    if not compare:
        return said
    value, marginal, *_ = case.semi_dual(np.asarray(result.potential, dtype=float))
    lacks = case.optimum - value
    return said | {
        "ratio": result.suboptimality / lacks,
        "bound": result.suboptimality_bound / lacks,
        "far": references.marginal_error(marginal, problem.weights) > TOL**2,
    }


def row(name, kind, runs):
    """One row: what the runs of a problem say, against its reference."""
    compared = [run for run in runs if "ratio" in run]
    wrong = [run["far"] for run in compared if run["converged"]]
    out = {
        "problem": name,
        "kind": kind,
        "runs": len(runs),
        "coverage": float(np.mean([run["held"] for run in runs])),
        "width": float(np.median([run["width"] for run in runs])),
        "converged": float(np.mean([run["converged"] for run in runs])),
        "wrong": float(np.mean(wrong)) if wrong else None,
        "suboptimality": float(np.median([run["ratio"] for run in compared])),
        "bound": float(np.median([run["bound"] for run in compared])),
    }
    print(
        f"{name:22} {kind:10} {len(runs):5} runs   coverage {out['coverage']:.3f}   width "
        f"{out['width']:5.2f}   wrong {out['wrong']}   sub-optimality x {out['suboptimality']:.2f}   "
        f"its bound x {out['bound']:.3g}",
        flush=True,
    )
    return out


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--problems", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--truths", type=int, default=100, help="runs compared with the truth")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    args = parser.parse_args()
    with Pool(args.jobs) as pool:
        rows, known = [], {"machine": machine.facts(), "tol": TOL}
        known |= {"truths": args.truths, "jobs": args.jobs}
        chosen = [(regularised_case, name) for name in args.problems]
        chosen += [(unregularised_case, name) for name in args.problems if name in UNREGULARISED]
        plans = {
            (*case, kind): [pool.submit(run, *case, kind, s, s < args.truths) for s in range(args.seeds)]
            for case in chosen
            for kind in args.kinds
        }
        for (make, name, kind), plan in plans.items():
            rows.append(row(make(name).label, kind, [task.result() for task in plan]))
            machine.write(args.json, **known, rows=rows)


if __name__ == "__main__":
    main()
