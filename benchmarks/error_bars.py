"""Whether error bars hold what they are to hold, over many runs.

``python -m benchmarks.error_bars [--seeds 200] [--points 4096] [--shares 0.2 0] [--dimensions 1 2]
[--problems NAME ...] [--first-seed 0]``

A normal source on the line or in the plane and 20 atoms, several regularisations, the truth by
quadrature and Newton's method, or, at ``reg = 0``, by the quantiles of the source or the masses of
cells; and problems of ``benchmarks/problems.py``. The share of runs in which 1.96 standard errors hold
the truth, 95% if they are right: of the potential (the mean over atoms, and the worst atom), of the map
(the mean over nine points, and the worst coordinate), and of the mean squared distance under the plan.
Of ``ErrorBars``, for fresh points; of the members of a result, which are compared with points that it
has: of a run that stopped by its tolerance, and of one of as many samples, which Newton's method
corrects. The median of the standard errors of the potential is in units of their root mean square
error: 1 if they are as narrow as can be.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import optimize
from scipy.stats import norm

import pot_semidiscrete as ps
from pot_semidiscrete.applications import ErrorBars

from . import machine, problems, references

N_ATOMS, SHARES, BATCH = 20, (0.2, 0.05, 0.02, 0.002, 0.0), 256
LAWS = {1: problems.Law("normal", 1, 20_000), 2: problems.Law("normal", 2, 600)}


def squares(x, y):
    """Squared distances."""
    return (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2.0 * x @ y.T


@dataclass(frozen=True)
class Case:
    """A problem, its optimal potential, a quadrature, and points at which the map is asked."""

    problem: problems.Problem
    potential: np.ndarray
    source: problems.Quadrature
    at: np.ndarray

    @property
    def options(self):
        """What the problem is, for the functions of the package."""
        return {"a_target": self.problem.weights, "reg": self.problem.reg}

    def truth(self):
        """Potential, map and mean squared distance under the plan."""
        atoms, psi, cost = self.problem.atoms, self.potential, 0.0
        for k in range(0, len(self.source.nodes), 4096):
            x, mass = self.source.nodes[k : k + 4096], self.source.mass[k : k + 4096]
            chi = ps.semidiscrete_atom_weights(atoms, x, psi, **self.options)
            cost += mass @ (chi * squares(x, atoms)).sum(axis=1)
        return {
            "potential": psi - self.problem.weights @ psi,
            "map": ps.semidiscrete_ot_map(atoms, self.at, psi, **self.options),
            "cost": cost,
        }

    def plans(self, seed, n):
        """A run's plans, by kind."""
        fresh, draw = (
            self.problem.sampler(np.random.default_rng([seed, k]), np.float64) for k in (1, 2)
        )
        draw = "normal" if self.problem.source in LAWS.values() else draw
        options = self.options | {"random_state": seed}
        result = ps.solve_semidiscrete(self.problem.atoms, draw, **options)
        fixed = {"tol": 0, "max_iter": n // BATCH, "batch_size": BATCH}
        corrected = ps.solve_semidiscrete(self.problem.atoms, draw, **options, **fixed)
        return {"ErrorBars": ErrorBars(result, fresh(n)), "result": result, "corrected": corrected}


def normal(share, dimension):
    """The problem of a dimension, with `reg` in units of the cost scale."""
    atoms = np.random.default_rng(0).normal(size=(N_ATOMS, dimension))
    atoms = atoms[np.argsort(atoms[:, 0])]
    b, reg = problems.even(N_ATOMS), float(share * ps.cost_scale(atoms))
    problem = problems.Problem(f"{dimension}d, reg {share}", LAWS[dimension], atoms, b, reg)
    source = problem.quadrature()
    if reg > 0.0:
        psi = references.newton(source, atoms, b, reg).potential
    elif dimension == 1:
        psi = references.quantile_potential(atoms[:, 0], b, norm.ppf)
    else:
        start = normal(0.02, dimension).potential
        error = lambda v: (normal_masses(atoms, np.append(start[:1], v)) - b)[1:]
        found = optimize.root(error, start[1:])
        if not np.abs(found.fun).max() < 1e-9:
            raise ArithmeticError(f"masses of cells: {found.message}")
        psi = np.append(start[:1], found.x)
    at = np.linspace(-2.0, 2.0, 9)[:, None] if dimension == 1 else source_points(problem)
    return Case(problem, psi, source, at)


def normal_masses(atoms, psi):
    """Masses of the cells of a normal law in the plane, at ``reg = 0``: along lines, by its quantiles.

    On a line of height v, the score of an atom ``y`` is ``2 u y_1 + height``, linear in u.
    """
    lines = problems.normal_nodes(1000, 1)
    height = psi - (atoms**2).sum(axis=1) + 2.0 * lines.nodes * atoms[:, 1]
    slope = 2.0 * (atoms[:, 0] - atoms[:, :1])  # of the others, above that of an atom
    with np.errstate(divide="ignore", invalid="ignore"):
        cut = (height[:, :, None] - height[:, None, :]) / slope
    low = np.where(slope < 0.0, cut, -np.inf).max(axis=2)
    high = np.where(slope > 0.0, cut, np.inf).min(axis=2)
    return lines.mass @ np.maximum(norm.cdf(high) - norm.cdf(low), 0.0)


def source_points(problem):
    """Nine points of a source."""
    return problem.sampler(np.random.default_rng(0), np.float64)(9)


def stored(name):
    """A problem of the benchmarks, with nine points of its source."""
    problem = problems.get(name)
    psi = references.load(name).potential
    return Case(problem, psi, problem.quadrature(), source_points(problem))


def coverage(case, seeds, n_points):
    """Rows of a case, one for each kind of standard errors."""
    truth, held, errors = case.truth(), {}, {}
    for seed in seeds:
        for kind, plan in case.plans(seed, n_points).items():
            estimate, stderr = plan.functional(squares)
            pairs = {
                "potential": (plan.potential, plan.potential_stderr),
                "map": (plan.ot_map(case.at), plan.map_stderr(case.at)),
                "cost": (estimate, stderr),
            }
            # within a cell, at reg = 0, the error of the map is that of rounding
            inside = {
                name: abs(value - truth[name]) <= 1.96 * bar + 1e-9 * np.max(np.abs(value))
                for name, (value, bar) in pairs.items()
            }
            held.setdefault(kind, []).append(inside)
            off = plan.potential - truth["potential"]
            errors.setdefault(kind, []).append((off, plan.potential_stderr))
    rows = []
    for kind, runs in held.items():
        shares = {name: np.mean([run[name] for run in runs], axis=0) for name in runs[0]}
        out = {name: float(np.mean(values)) for name, values in shares.items()}
        worst = {name: float(np.min(shares[name])) for name in ("potential", "map")}
        off, bars = map(np.array, zip(*errors[kind], strict=True))
        width = float(np.median(np.median(bars, axis=0) / np.sqrt((off**2).mean(axis=0))))
        words = "   ".join(f"{name} {out[name]:.3f} (worst {worst[name]:.3f})" for name in worst)
        print(
            f"{case.problem.name:20} {kind:9}   {words}   cost {out['cost']:.3f}   width {width:.2f}",
            flush=True,
        )
        rows.append({"problem": case.problem.name, "kind": kind, **out, "worst": worst, "width": width})
    return rows


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first-seed", type=int, default=0, help="of others, runs are independent")
    parser.add_argument("--points", type=int, default=4096)
    parser.add_argument("--shares", type=float, nargs="*", default=SHARES, help="for `reg`")
    parser.add_argument("--dimensions", type=int, nargs="*", default=[1], choices=sorted(LAWS))
    parser.add_argument("--problems", nargs="*", default=[], choices=problems.NAMES)
    args = parser.parse_args()
    with machine.limit_threads(1):
        seeds = range(args.first_seed, args.first_seed + args.seeds)
        rows, facts = [], {"machine": machine.facts(), "seeds": args.seeds, "points": args.points}
        facts["first_seed"] = args.first_seed
        cases = (normal(share, d) for d in args.dimensions for share in args.shares)
        for case in itertools.chain(cases, map(stored, args.problems)):
            rows += coverage(case, seeds, args.points)
            machine.write(args.json, **facts, rows=rows)


if __name__ == "__main__":
    main()
