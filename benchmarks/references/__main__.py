"""Solve problems of the benchmarks, and store what they are compared with."""

import argparse
import time

import numpy as np

from .. import problems
from . import FOLDER, newton


def store(name):
    """Solve a problem and write its reference."""
    problem, start = problems.get(name), time.perf_counter()
    source = problem.quadrature()
    coarse = problem.quadrature(0.25 if problem.atoms.shape[1] > 2 else 0.5)
    reference = newton(source, problem.atoms, problem.weights, problem.reg, tol=1e-20, coarse=coarse)
    np.savez_compressed(
        FOLDER / f"{name}.npz",
        potential=reference.potential,
        value=reference.value,
        trace=reference.trace,
        chi2=reference.chi2,
        n_nodes=len(source.nodes),
        fingerprint=problem.fingerprint(),
    )
    print(
        f"{name:20} N {len(problem.atoms):4} d {problem.atoms.shape[1]:2} reg {problem.reg:9.3g} "
        f"value {reference.value:.12g} trace {reference.trace:.6g} chi2 {reference.chi2:.1e} "
        f"{time.perf_counter() - start:.0f} s",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser("python -m benchmarks.references", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", default=problems.NAMES)
    for name in parser.parse_args().names:
        store(name)


if __name__ == "__main__":
    main()
