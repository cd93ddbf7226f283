"""Whether error bars hold what they are to hold, over many runs.

``python -m benchmarks.error_bars [--seeds 200] [--points 16384] [--shares 0.2 0.05 0.02] [--json FILE]``

A normal source on the line and 20 atoms, three regularisations, the truth by quadrature and Newton's
method. For each run, fresh points: the share of runs in which 1.96 standard errors about what is fitted
hold the truth, 95% if they are right; of the potential (the mean over atoms, and the worst atom), of the
map (the mean over nine points), and of the mean squared distance under the plan.
"""

import numpy as np

import pot_semidiscrete as ps
from pot_semidiscrete.applications import ErrorBars

from . import machine, problems, references

N_ATOMS = 20


def squares(x, y):
    """Squared distances."""
    return (x - y.T) ** 2


def row(share, seeds, n_points):
    """One row: a regularisation, in units of the cost scale."""
    atoms = np.random.default_rng(0).normal(size=(N_ATOMS, 1))
    reg, at = share * ps.cost_scale(atoms), np.linspace(-2.0, 2.0, 9)[:, None]
    source = references.gauss_legendre(-8.0, 8.0, 2000, references.normal_density)
    psi = references.newton(source, atoms, problems.even(N_ATOMS), reg).potential
    chi = ps.semidiscrete_atom_weights(atoms, source.nodes, psi, reg=reg)
    cost = source.mass @ (chi * squares(source.nodes, atoms)).sum(axis=1)
    images = ps.semidiscrete_ot_map(atoms, at, psi, reg=reg)
    held = {"potential": [], "map": [], "cost": []}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        result = ps.solve_semidiscrete(atoms, "normal", reg=reg, random_state=seed)
        bars = ErrorBars(result, rng.normal(size=(n_points, 1)))
        held["potential"].append(abs(bars.plan.potential - psi) < 1.96 * bars.potential_stderr)
        held["map"].append(abs(bars.plan.ot_map(at) - images) < 1.96 * bars.map_stderr(at))
        estimate, stderr = bars.functional(squares)
        held["cost"].append(abs(estimate - cost) < 1.96 * stderr)
    out = {name: float(np.mean(values)) for name, values in held.items()}
    worst = float(np.mean(held["potential"], axis=0).min())
    words = f"reg {share:.2f} of the scale   potential {out['potential']:.3f} (worst atom {worst:.3f})"
    print(f"{words}   map {out['map']:.3f}   cost {out['cost']:.3f}", flush=True)
    return {"reg": share, "worst_atom": worst, **out}


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--points", type=int, default=16384)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.2, 0.05, 0.02], help="for `reg`")
    args = parser.parse_args()
    with machine.limit_threads(1):
        rows, facts = [], {"machine": machine.facts(), "seeds": args.seeds, "points": args.points}
        for share in args.shares:
            rows.append(row(share, args.seeds, args.points))
            machine.write(args.json, **facts, rows=rows)


if __name__ == "__main__":
    main()
