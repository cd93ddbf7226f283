"""Whether error bars hold what they are to hold, over many runs.

``python -m benchmarks.error_bars [--seeds 200] [--points 4096] [--shares 0.2 0.02 0] [--json FILE]``

A normal source on the line and 20 atoms, several regularisations, the truth by quadrature and Newton's
method, or, at ``reg = 0``, by the quantiles of the source. The share of runs in which 1.96 standard
errors hold the truth, 95% if they are right: of the potential (the mean over atoms, and the worst atom),
of the map (the mean over nine points, and the worst one), and of the mean squared distance under the
plan. Of ``ErrorBars``, for fresh points; of the members of a result, which are compared with points that
it has: of a run that stopped by its tolerance, and of one of 16 batches, which Newton's method corrects.
"""

import numpy as np
from scipy.stats import norm

import pot_semidiscrete as ps
from pot_semidiscrete.applications import ErrorBars

from . import machine, problems, references

N_ATOMS, SHARES = 20, (0.2, 0.05, 0.02, 0.002, 0.0)


def squares(x, y):
    """Squared distances."""
    return (x - y.T) ** 2


def coverage(share, seeds, n_points):
    """Rows of a regularisation, in units of the cost scale."""
    atoms = np.sort(np.random.default_rng(0).normal(size=(N_ATOMS, 1)), axis=0)
    reg, at = share * ps.cost_scale(atoms), np.linspace(-2.0, 2.0, 9)[:, None]
    source, b = problems.midpoint(-8.0, 8.0, 20_000, problems.normal_density), problems.even(N_ATOMS)
    if reg > 0.0:
        psi = references.newton(source, atoms, b, reg).potential
    else:
        psi = references.quantile_potential(atoms[:, 0], b, norm.ppf)
    chi = ps.semidiscrete_atom_weights(atoms, source.nodes, psi, reg=reg)
    cost = source.mass @ (chi * squares(source.nodes, atoms)).sum(axis=1)
    images = ps.semidiscrete_ot_map(atoms, at, psi, reg=reg)
    held = {kind: [] for kind in ("ErrorBars", "result", "corrected")}
    for seed in range(seeds):
        fresh = np.random.default_rng([seed, 1]).normal(size=(n_points, 1))
        options = {"reg": reg, "random_state": seed}
        result = ps.solve_semidiscrete(atoms, "normal", **options)
        corrected = ps.solve_semidiscrete(atoms, "normal", tol=0, max_iter=16, **options)
        found = {"ErrorBars": ErrorBars(result, fresh), "result": result, "corrected": corrected}
        for kind, plan in found.items():
            estimate, stderr = plan.functional(squares)
            pairs = {
                "potential": (plan.potential - psi, plan.potential_stderr),
                "map": ((plan.ot_map(at) - images)[:, 0], plan.map_stderr(at)[:, 0]),
                "cost": (estimate - cost, stderr),
            }
            # within a cell, at reg = 0, the error of the map is that of rounding
            inside = {name: abs(off) <= 1.96 * bar + 1e-9 for name, (off, bar) in pairs.items()}
            held[kind].append(inside)
    rows = []
    for kind, runs in held.items():
        shares = {name: np.mean([run[name] for run in runs], axis=0) for name in runs[0]}
        out = {name: float(np.mean(values)) for name, values in shares.items()}
        worst = {name: float(np.min(shares[name])) for name in ("potential", "map")}
        words = "   ".join(f"{name} {out[name]:.3f} (worst {worst[name]:.3f})" for name in worst)
        print(f"reg {share:.3f} of the scale   {kind:9}   {words}   cost {out['cost']:.3f}", flush=True)
        rows.append({"reg": share, "kind": kind, **out, "worst": worst})
    return rows


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--points", type=int, default=4096)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="for `reg`")
    args = parser.parse_args()
    with machine.limit_threads(1):
        rows, facts = [], {"machine": machine.facts(), "seeds": args.seeds, "points": args.points}
        for share in args.shares:
            rows += coverage(share, args.seeds, args.points)
            machine.write(args.json, **facts, rows=rows)


if __name__ == "__main__":
    main()
