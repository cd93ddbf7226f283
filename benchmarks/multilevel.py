"""Coarse-to-fine atoms as the start of a run, in the plane: the work beside that of a plain run.

``python -m benchmarks.multilevel [--n-atoms N] [--chi2 X ...] [--seeds K] [--json FILE]``

The atoms are grouped by k-means into a sixteenth as many (Merigot, 2011). The run on these ends at the
same `tol`. Its c-transform at 2,048 other points goes back to all atoms by a c-transform (half an
iteration of Sinkhorn's), and the run on these begins there. Targets, source, `reg` and `tol` are those
of :mod:`benchmarks.scaling`. The work is that of entries (samples x atoms), of both runs and the way
between them; the seconds have k-means, too. NumPy, float32, one thread.
"""

import math
import time

import numpy as np
from sklearn.cluster import MiniBatchKMeans

import pot_semidiscrete as ps

from . import machine, scaling

COARSER, POINTS = 16, 2048


def coarse_start(atoms, seed, **options):
    """Potential for all atoms by way of a few, and the work that it took."""
    n_groups = len(atoms) // COARSER
    groups = MiniBatchKMeans(n_groups, random_state=seed, n_init=1, batch_size=4096, max_iter=20).fit(
        atoms
    )
    sizes = np.bincount(groups.labels_, minlength=n_groups)
    centers = groups.cluster_centers_[sizes > 0].astype(atoms.dtype)
    weights = (sizes[sizes > 0] / len(atoms)).astype(atoms.dtype)
    coarse = ps.solve_semidiscrete(centers, "normal", weights, **options)
    x = np.random.default_rng([seed, 1]).normal(size=(POINTS, atoms.shape[1])).astype(atoms.dtype)
    potential = ps.semidiscrete_c_transform(x, atoms, coarse.c_transform(x), reg=options["reg"])
    return potential, coarse.work + POINTS * (len(atoms) + len(centers))


def row(name, n_atoms, chi2, seed):
    """Work and seconds of both ways, in units of the plain one's."""
    atoms = np.asarray(scaling.rows(name, n_atoms, 2), dtype=np.float32)
    options = {"reg": 0.01 * ps.cost_scale(atoms), "tol": math.sqrt(chi2), "random_state": seed}
    start = time.process_time()
    plain = ps.solve_semidiscrete(atoms, "normal", **options)
    middle = time.process_time()
    potential, work = coarse_start(atoms, seed, **options)
    fine = ps.solve_semidiscrete(atoms, "normal", init_potential=potential, **options)
    seconds = middle - start, time.process_time() - middle
    facts = {"target": name, "n_atoms": n_atoms, "chi2": chi2, "seed": seed}
    reached = {"chi2_plain": plain.chi2, "chi2_multilevel": fine.chi2}
    ratios = {"work": (work + fine.work) / plain.work, "seconds": seconds[1] / seconds[0]}
    return facts | reached | ratios


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--n-atoms", type=float, default=1e4)
    parser.add_argument("--chi2", type=float, nargs="+", default=[0.05, 0.01])
    parser.add_argument("--seeds", type=int, default=4)
    args = parser.parse_args()
    with machine.limit_threads(1):
        rows = []
        for name in ("normal", "clusters", "heavy"):
            for chi2 in args.chi2:
                found = [row(name, int(args.n_atoms), chi2, seed) for seed in range(args.seeds)]
                rows += found
                means = [np.exp(np.mean(np.log([r[key] for r in found]))) for key in ("work", "seconds")]
                print(
                    f"{name:9} chi2 {chi2:.2g}: work {means[0]:.2f}, seconds {means[1]:.2f}", flush=True
                )
        print(f"all: work {np.exp(np.mean(np.log([r['work'] for r in rows]))):.2f}")
        machine.write(args.json, machine=machine.facts(), rows=rows)


if __name__ == "__main__":
    main()
