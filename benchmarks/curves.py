"""Sub-optimality against the samples drawn: all solvers, and the limit, as a figure.

``python -m benchmarks.curves [--problems NAME ...] [--samples N ...] [--figure FILE] [--json FILE]``

The accuracy of :mod:`benchmarks.solver`, of the same solvers as they are run there, at several numbers
of samples: the rule of "OTT tuned" is chosen for each. The limit is what the samples allow in the mean,
asymptotically.
"""

import numpy as np

from . import machine, problems
from .adapters import SOLVERS, applicable, warm_up
from .suboptimality import accuracy, regularised_case

NAMES = ("uniform_square", "uniform_line", "light_atoms", "clusters_10", "mlp_64", "rows_64")
STYLES = {
    "ours": ("pot_semidiscrete", "C0o-"),
    "POT": ("POT", "C1o-"),
    "OTT tutorial": ("OTT-JAX, the step of its tutorial", "C3v:"),
    "OTT tuned": ("OTT-JAX, the best of seven rules", "C3o-"),
    "ASGD": ("ot.stochastic, ASGD", "C7v:"),
    "SAG": ("ot.stochastic, SAG", "C7s:"),
}


def draw(cases, rows, path):
    """One panel for each problem (needs matplotlib)."""
    import matplotlib.pyplot as plt

    n_columns = min(3, len(cases))
    shape = (-(-len(cases) // n_columns), n_columns)
    figure, axes = plt.subplots(
        *shape, figsize=(11, 3.3 * shape[0]), squeeze=False, layout="constrained"
    )
    for case, axis in zip(cases, axes.flat, strict=False):
        points = [row for row in rows if row["problem"] == case.label]
        samples = np.unique([row["samples"] for row in points])
        for solver, (label, style) in STYLES.items():
            curve = [(row["samples"], row["loss"]) for row in points if row["solver"] == solver]
            if curve:
                axis.loglog(*np.array(curve, dtype=float).T, style, label=label, markersize=4)
        axis.loglog(samples, case.trace / (2.0 * samples), "k--", label="limit")
        n_atoms, d = case.problem.atoms.shape
        axis.set_title(f"{case.label}: {n_atoms:,} atoms, dimension {d}", fontsize="medium")
        axis.set_xscale("log", base=2)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(cases) :]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("sub-optimality")
    for axis in axes[-1]:
        axis.set_xlabel("source points")
    found = {}
    for axis in axes.flat:
        handles, labels = axis.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    figure.legend(found.values(), found, loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, nargs="+", default=[1024, 4096, 16_384, 65_536])
    parser.add_argument("--problems", nargs="+", choices=problems.NAMES, default=NAMES)
    parser.add_argument("--solvers", nargs="+", choices=list(SOLVERS), default=list(SOLVERS))
    parser.add_argument("--figure", metavar="FILE", help="draw the curves (needs matplotlib)")
    args = parser.parse_args()
    with machine.limit_threads(1):
        facts, rows, cases = {"machine": machine.facts(), "seeds": args.seeds}, [], []
        warm_up(args.solvers)
        for name in args.problems:
            cases.append(regularised_case(name))
            solvers = applicable(args.solvers, cases[-1].problem)
            for n in args.samples:
                found, _ = accuracy(cases[-1], solvers, n, args.seeds)
                rows += [{"samples": n, "limit": cases[-1].trace / (2.0 * n), **row} for row in found]
            machine.write(args.json, **facts, rows=rows)
            if args.figure:
                draw(cases, rows, args.figure)


if __name__ == "__main__":
    main()
