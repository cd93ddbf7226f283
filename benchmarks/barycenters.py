"""Barycentres on moving atoms, beside POT's on samples.

``python -m benchmarks.barycenters [--atoms 100] [--seeds 3] [--json FILE]``

Of normal laws in the plane, whose barycentre is normal (Agueh and Carlier, 2011), to as many atoms:
:func:`applications.barycenter` in 20 steps, which draws points, and
:func:`ot.lp.free_support_barycenter`, which gets some thousands of them and no more, in its 100 steps at
most; from the same atoms. For each, the time, and by what the mean cost of the atoms, solved for by
65,536 Sobol points, exceeds that of the normal barycentre, which no atoms reach. In double precision,
NumPy, one thread.
"""

import time

import numpy as np
import ot

from pot_semidiscrete import solve_semidiscrete
from pot_semidiscrete.applications import barycenter
from pot_semidiscrete.samplers import SobolSampler

from . import machine

MEANS = np.array([[0.0, 0.0], [4.0, 1.0], [1.0, 3.0]])
ROOTS = np.array([[[2.0, 0.0], [0.0, 0.5]], [[0.6, 0.5], [0.5, 1.5]], [[1.0, -0.6], [-0.6, 1.0]]])
SAMPLES = 500, 2000


def root(matrix):
    """Square root of a positive definite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values)) @ vectors.T


def least_cost():
    """Mean squared distance of Bures and Wasserstein from the laws to their barycentre."""
    covariances = ROOTS @ ROOTS
    S = covariances.mean(axis=0)
    for _ in range(100):  # Alvarez-Esteban, del Barrio, Cuesta-Albertos, Matran, 2016
        half = root(S)
        middle = np.mean([root(half @ C @ half) for C in covariances], axis=0)
        S = np.linalg.inv(half) @ middle @ middle @ np.linalg.inv(half)
    half = root(S)
    spread = [np.trace(S + C - 2.0 * root(half @ C @ half)) for C in covariances]
    return np.mean(np.sum((MEANS - MEANS.mean(axis=0)) ** 2, axis=1) + spread)


def sobol(k, seed):
    """A law, by Sobol points."""
    return SobolSampler(2, "normal", lambda z: z @ ROOTS[k] + MEANS[k], random_state=seed)


def normal(k, seed):
    """A law, by pseudo-random points."""
    rng = np.random.default_rng([k, seed])
    return lambda n: rng.normal(size=(n, 2)) @ ROOTS[k] + MEANS[k]


def cost_of(atoms):
    """Mean transport cost from the laws."""
    options = {"tol": 0, "max_iter": 2**8, "batch_size": 256}
    return np.mean([float(solve_semidiscrete(atoms, sobol(k, 9), **options).value) for k in range(3)])


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--atoms", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    with machine.limit_threads(1):
        compare(args)


def compare(args):
    """All rows; what is known is written after each."""
    least, rows = least_cost(), []
    facts = {"machine": machine.facts(), "least": least, "atoms": args.atoms}
    for seed in range(args.seeds):
        start = normal(0, 100 + seed)(args.atoms)

        def ours(source, start=start, seed=seed):
            sources = [source(k, seed) for k in range(3)]
            return barycenter(sources, args.atoms, X_init=start, n_steps=20).atoms

        def theirs(n, start=start, seed=seed):
            points = [normal(k, seed)(n) for k in range(3)]
            return ot.lp.free_support_barycenter(points, [np.full(n, 1.0 / n)] * 3, start)

        ways = {"Sobol points": (ours, sobol), "random points": (ours, normal)}
        ways |= {f"POT, {n} points": (theirs, n) for n in SAMPLES}
        for way, (find, source) in ways.items():
            begin = time.perf_counter()
            found = find(source)
            row = {"way": way, "seed": seed, "seconds": time.perf_counter() - begin}
            rows.append(row | {"excess": cost_of(found) - least})
            print(f"{way:18} {row['seconds']:7.2f} s   excess {rows[-1]['excess']:.4f}", flush=True)
            machine.write(args.json, **facts, rows=rows)


if __name__ == "__main__":
    main()
