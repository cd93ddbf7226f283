"""What quasi-random samples gain: the solver on pseudo-random and on Sobol points.

``python -m benchmarks.quasi [--seeds 10] [--samples 4000 16000 64000] [--problems NAME ...]
[--dimensions D ...] [--json FILE]``

The efficiency ratio is the sub-optimality of the potential in units of what independent samples
allow at best, in the mean; Sobol points may be under 1. In 1 and 2 dimensions it is computed on
the quadratures and references of ``benchmarks.problems``. In 5 and 10 the potential compared with
is the mean of Newton's on two sets of 2^18 Sobol points, and both are evaluated on 2^18 others: what
that potential lacks is the row's ``reference_ratio``, in the same units, and ratios are too low by
about as much.
"""

import functools
import time
from dataclasses import dataclass, replace

import numpy as np

import pot_semidiscrete as ps
from pot_semidiscrete.samplers import SobolSampler

from . import machine, problems, references

NAMES = ("normal_line", "uniform_square", "shifted_normal")
DIMENSIONS = (5, 10)
BATCH = 256


def sobol_points(dimension, n, seed):
    """Equal masses on Sobol points of the normal law."""
    nodes = SobolSampler(dimension, "normal", random_state=seed)(n)
    return references.Quadrature(nodes, np.full(n, 1.0 / n))


@dataclass(frozen=True)
class Case:
    """A problem of a standard law, and what runs on it are compared with.

    Attributes
    ----------
    name, law : str
    source : references.Quadrature
        For evaluation.
    reference : references.Reference
    lack : float
        Estimated sub-optimality of its potential, which its value does not have.
    """

    name: str
    law: str
    source: references.Quadrature
    reference: references.Reference
    lack: float


def stored(name):
    """A problem of the suite."""
    problem = problems.get(name)
    return Case(name, problem.source.name, problem.quadrature(), references.load(name), 0.0)


def normal(dimension):
    """A normal law and 200 atoms of another."""
    rng = np.random.default_rng(dimension)
    atoms, weights = 0.5 + 0.7 * rng.normal(size=(200, dimension)), problems.even(200)
    reg = 0.02 * float(ps.cost_scale(atoms))
    # seeds that no run has
    source = sobol_points(dimension, 2**18, seed=1000)

    def solved(seed):
        fit, coarse = (sobol_points(dimension, 2**m, seed) for m in (18, 13))
        return references.newton(fit, atoms, weights, reg, coarse=coarse)

    def value(potential):
        return references.semi_dual(source, atoms, weights, reg, potential)[0]

    one, two = solved(1001), solved(1002)
    middle = (one.potential + two.potential) / 2.0
    # H is nearly a parabola there: independent errors that cost e each leave e / 2 in their middle
    lack = value(middle) - (value(one.potential) + value(two.potential)) / 2.0
    reference = replace(one, potential=middle, value=value(middle) + lack)
    return Case(f"normal_{dimension}", "normal", source, reference, lack)


def solve(case, sampler, seed, n_samples):
    """Potential of one run, and the samples of its batches."""
    source = case.law
    if sampler == "sobol":
        source = SobolSampler(case.reference.atoms.shape[1], case.law, random_state=seed)
    result = ps.solve_semidiscrete(
        case.reference.atoms,
        source,
        case.reference.weights,
        reg=case.reference.reg,
        tol=0,
        max_iter=n_samples // BATCH,
        batch_size=BATCH,
        random_state=seed,
    )
    return result.potential, result.n_iter * BATCH


def run(case, seeds, samples):
    """One row for each number of samples."""
    rows = []
    for n_samples in samples:
        row = {"problem": case.name, "dimension": case.reference.atoms.shape[1]}
        for sampler in ("pseudo", "sobol"):
            ratios = []
            for seed in range(seeds):
                potential, used = solve(case, sampler, seed, n_samples)
                ratios.append(case.reference.efficiency_ratio(case.source, potential, used))
            row |= {
                "samples": used,
                sampler: float(np.mean(ratios)),
                f"{sampler}_stderr": float(np.std(ratios, ddof=1) / seeds**0.5),
            }
        row["gain"] = row["pseudo"] / row["sobol"]
        row["reference_ratio"] = case.lack * 2.0 * used / case.reference.trace
        rows.append(row)
        print(
            f"{case.name:16} {used:6} samples   pseudo-random {row['pseudo']:8.4g} "
            f"+- {row['pseudo_stderr']:<8.2g} Sobol {row['sobol']:8.4g} +- {row['sobol_stderr']:<8.2g} "
            f"gain {row['gain']:5.3g}   reference {row['reference_ratio']:.2g}",
            flush=True,
        )
    return rows


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--samples", type=int, nargs="+", default=[4000, 16_000, 64_000])
    parser.add_argument("--problems", nargs="*", choices=NAMES, default=NAMES)
    parser.add_argument("--dimensions", type=int, nargs="*", default=DIMENSIONS, help="of normal laws")
    args = parser.parse_args()
    start, rows = time.perf_counter(), []
    with machine.limit_threads(1):
        facts = {"machine": machine.facts(), "seeds": args.seeds}
        makers = [functools.partial(stored, name) for name in args.problems]
        makers += [functools.partial(normal, dimension) for dimension in args.dimensions]
        for make in makers:
            rows += run(make(), args.seeds, args.samples)
            machine.write(args.json, **facts, rows=rows)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
