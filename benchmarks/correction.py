"""What Newton's correction gains: the solver without it and with it, in torch and in NumPy.

``python -m benchmarks.correction [--samples N ...] [--seeds K] [--jobs J] [--json FILE]``

For every problem of :mod:`benchmarks.problems`, the efficiency ratio of the average of the ascent
alone (``max_memory=0``) and with default settings, on the same source points, in float32; with default
settings in NumPy, too, on other points; and the seconds of a run, each on one thread. Certificates, the
same for all, are in the seconds only where they are not left until they are asked for. The ratio is the
sub-optimality in units of what the samples allow at best, in the mean. With several jobs at a time, the
seconds are those of a machine that is shared.
"""

import numpy as np

from . import machine, problems
from .adapters import BATCH, numpy_problem, ours
from .jobs import Pool
from .suboptimality import regularised_case, trials

VARIANTS = {"ascent": {"max_memory": 0}, "corrected": {}, "numpy": {"arrays": numpy_problem}}


def trial(name, n_iter, variant, seed):
    """Efficiency ratio and seconds of a run."""
    case, n_samples = regularised_case(name), n_iter * BATCH
    run = ours(case.problem, n_samples, **VARIANTS[variant])
    (loss,), (seconds,) = trials(case, run, [seed])
    return loss * 2.0 * n_samples / case.trace, seconds


def row(name, n_iter, found):
    """Ratio, its standard error and seconds of each variant, from its trials."""
    out = {
        "problem": name,
        "samples": n_iter * BATCH,
        "atoms": len(regularised_case(name).problem.atoms),
    }
    for variant, runs in found.items():
        ratios, seconds = np.array(runs).T
        out[variant] = ratios.mean()
        out[f"{variant}_stderr"] = ratios.std(ddof=1) / len(ratios) ** 0.5 if len(ratios) > 1 else None
        out[f"{variant}_seconds"] = float(np.median(seconds))
    texts = (f"{variant} {out[variant]:8.3g} ({out[f'{variant}_seconds']:.2f} s)" for variant in found)
    print(f"{name:22} {out['samples']:6} samples   {'   '.join(texts)}", flush=True)
    return out


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, nargs="+", default=[64_000])
    parser.add_argument("--problems", nargs="+", choices=problems.NAMES, default=problems.NAMES)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    args = parser.parse_args()
    sizes = [-(-n_samples // BATCH) for n_samples in args.samples]
    with Pool(args.jobs) as pool:
        rows, facts = [], {"machine": machine.facts(), "seeds": args.seeds, "jobs": args.jobs}
        plans = {
            (name, n_iter): {
                variant: [pool.submit(trial, name, n_iter, variant, s) for s in range(args.seeds)]
                for variant in args.variants
            }
            for n_iter in sizes
            for name in args.problems
        }
        for (name, n_iter), plan in plans.items():
            found = {variant: [run.result() for run in runs] for variant, runs in plan.items()}
            rows.append(row(name, n_iter, found))
            machine.write(args.json, **facts, rows=rows)


if __name__ == "__main__":
    main()
