"""Nanoseconds per (sample, atom) entry of one dual step, against the limit of the libraries.

``python -m benchmarks.kernels [--rounds 25] [--case BATCH ATOMS DIMENSION REG ...] [--json FILE]``

A step gives the c-transforms and the column sums of a batch. The limit is the library's matrix
product into a kept buffer plus one pass of ``torch.exp`` over the block of samples by atoms; at
``reg = 0``, the product and one pass of ``torch.amax``. POT's step is what its solver does with a
batch: `semidiscrete_atom_weights` and the mean over the rows (it has no c-transforms to give).
``pair`` draws an atom for each sample, ``map`` gives its barycentric image, both by torch.

Float32, one thread. All steps take turns in every round, so that a change of the machine's load
meets them all: two calls each, of which the second is timed, as in a loop of its own. The first finds
the caches filled by another step, and pays for giving back the memory that the other freed. Figures are
medians over the rounds.
"""

import functools
import time

import numpy as np
import ot
import torch

from pot_semidiscrete.kernels import draw_atoms, reduce
from pot_semidiscrete.problem import build_target

from . import machine

CASES = [
    (256, 10_000, 2, 0.05),
    (512, 2_000, 2, 0.05),
    (512, 10_000, 64, 0.05),
    (256, 10_000, 784, 0.05),
    (256, 60_000, 784, 0.05),
    (256, 10_000, 2, 0.0),
    (256, 10_000, 784, 0.0),
]
# most that a ratio should be, by dimension
GOALS = {
    "torch / limit": {2: 1.5, 64: 1.35, 784: 1.15},
    "numpy / torch": {2: 1.3, 64: 1.3, 784: 1.3},
    "torch / POT": {2: 0.3, 64: 0.35, 784: 0.8},
    "pair / torch": {2: 1.5, 64: 1.5, 784: 1.5},
    "map / torch": {2: 2.0, 64: 2.0, 784: 2.0},
}


def steps(B, N, d, relative_reg):
    """The steps to time, by name; `relative_reg` is in units of the mean cost."""
    rng = torch.Generator().manual_seed(0)
    x, atoms = torch.randn((B, d), generator=rng), torch.randn((N, d), generator=rng)
    potential, reg = 0.1 * torch.randn(N, generator=rng), relative_reg * 2.0 * d
    buffer, scores = torch.empty((B, N)), -10.0 * torch.rand((B, N), generator=rng)
    uniform = lambda n: torch.rand(n, generator=rng)

    def arguments(points, y, psi):
        target = build_target(y)
        return target, target.center(points), psi, reg

    by_numpy = arguments(x.numpy(), atoms.numpy(), potential.numpy())
    by_torch = arguments(x, atoms, potential)
    ours = {
        "numpy": functools.partial(reduce, *by_numpy, ("c_transform", "colsum")),
        "torch": functools.partial(reduce, *by_torch, ("c_transform", "colsum")),
        "pair": functools.partial(draw_atoms, *by_torch, uniform),
        "map": functools.partial(reduce, *by_torch, ("map",)),
    }

    def one_pass():
        return torch.exp(scores, out=buffer) if reg > 0 else torch.amax(scores, dim=1)

    def pot():
        weights = ot.semidiscrete.semidiscrete_atom_weights(atoms, x, potential, reg=reg)
        return weights.mean(axis=0)

    product = {"GEMM": lambda: torch.matmul(x, atoms.T, out=buffer)}
    return {**product, "pass": one_pass, **ours, "POT": pot}


def measure(case, rounds):
    """Median and least nanoseconds per entry of each step, one turn each in every round."""
    functions = steps(*case)
    seconds = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            function()
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    B, N, d, relative_reg = case
    unit = 1e9 / (B * N)
    median = {name: float(np.median(s)) * unit for name, s in seconds.items()}
    limit = median["GEMM"] + median["pass"]
    ratios = {
        "torch / limit": median["torch"] / limit,
        "numpy / torch": median["numpy"] / median["torch"],
        "torch / POT": median["torch"] / median["POT"],
        "pair / torch": median["pair"] / median["torch"],
        "map / torch": median["map"] / median["torch"],
    }
    missed = [name for name, ratio in ratios.items() if goal(name, d, relative_reg) < ratio]
    least = {name: min(s) * unit for name, s in seconds.items()}
    facts = {"batch": B, "atoms": N, "dimension": d, "relative_reg": relative_reg}
    return {**facts, "median_ns": median, "min_ns": least, "ratios": ratios, "missed": missed}


def goal(name, d, relative_reg):
    """Goal of a ratio: there is none at ``reg = 0``, nor in other dimensions."""
    return GOALS[name].get(d, np.inf) if relative_reg > 0 else np.inf


def show(row):
    """One line."""
    ns = "  ".join(f"{name} {value:6.2f}" for name, value in row["median_ns"].items())
    ratios = "  ".join(f"{name} {value:5.2f}" for name, value in row["ratios"].items())
    missed = f"   missed: {', '.join(row['missed'])}" if row["missed"] else ""
    print(
        f"B {row['batch']:3} N {row['atoms']:5} d {row['dimension']:3} "
        f"reg {row['relative_reg']:<4g} | {ns} | {ratios}{missed}",
        flush=True,
    )


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    names = ("BATCH", "ATOMS", "DIMENSION", "REG")
    parser.add_argument(
        "--case", type=float, nargs=4, metavar=names, action="append", help="instead of all"
    )
    args = parser.parse_args()
    chosen = [(*map(int, sizes), reg) for *sizes, reg in args.case] if args.case else CASES
    with machine.limit_threads(1):
        facts, rows = machine.facts(), []
        for case in chosen:
            rows.append(measure(case, args.rounds))
            show(rows[-1])
    machine.write(args.json, machine=facts, goals=GOALS, rows=rows)


if __name__ == "__main__":
    main()
