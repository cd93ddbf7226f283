"""Accuracy for the samples drawn, time and memory of semi-discrete solvers, side by side.

``python -m benchmarks.solver [--problems NAME ...] [--solvers NAME ...] [--device cuda] [--json FILE]``

Three measures, for every problem of :mod:`benchmarks.problems`:

- the efficiency ratio: sub-optimality in units of what the samples allow at best, in the mean. It
  depends on neither the machine nor the scale of the data, and 1 is the limit. At ``reg = 0``,
  where a problem's optimum is known exactly, the sub-optimality itself, against POT's;
- the time to POT's accuracy: seconds of the run of the fewest samples tried that is on average as
  accurate as POT with 131,072 samples, over POT's seconds. Tried are 1, 2, 3, 4, 6, 8, 11, 16, ...
  batches of 256 until they are enough, then two bisections between the last two of these;
- the peak of the resident memory of a fresh process above what it holds before the run, libraries
  warm, problem built, code compiled (Linux; for some problems only).

All run in float32 on one thread (with another device, this package and POT run there, and JAX where it
chooses), and draw the same number of samples of the same law:

- ``ours``, ``POT``: default settings (POT's batch is 32 and ours 256).
- ``OTT tutorial``: OTT-JAX with the settings of its tutorial: SGD of step 0.02, batch 128.
- ``OTT tuned``: the same with the best of 7 optimisers and steps, in units of the problem, chosen
  for each problem by the true sub-optimality, which a user does not know, of one seed.
- ``ASGD``, ``SAG``: those of `ot.stochastic`, with their defaults, in float64, for sources that are
  arrays: they need the whole cost matrix, whose making is in their time and memory.

OTT-JAX is compiled before the clock starts. Neither solver is timed for estimates of its error: this
package makes them when they are asked for (at once, and that is in its time, where a result would hold
more than 2**23 numbers until then).
"""

import dataclasses
import functools
import importlib.util
import json
import math
import subprocess
import sys
import time

import numpy as np
import ot
import torch

import pot_semidiscrete as ps

from . import machine, problems, references, unregularised

DEVICE = "cpu"  # of torch, as --device says; its default device would slow each operation down
BATCH, GOAL_SAMPLES = 256, 131_072
HALVINGS = 2  # of the range in which the number of samples lies that is enough
UNREGULARISED = ("normal_line", "uniform_line", "student_line", "uniform_square")
MEMORY = ("uniform_square", "plane_rows", "rows_64")
# steps of Adam in units of the potential's scale, of SGD in units of reg / b; both decay as a cosine
OTT_GRID = [("adam", s) for s in (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)] + [("sgd", s) for s in (0.3, 3.0)]


def torch_problem(problem):
    """Atoms, weights, and ``seed -> sampler``, on `DEVICE`."""
    arrays = (problem.atoms, problem.weights)
    atoms, weights = (torch.as_tensor(a, dtype=torch.float32, device=DEVICE) for a in arrays)
    draw = lambda seed: problem.sampler(torch.Generator(DEVICE).manual_seed(seed), torch.float32)
    return atoms, weights, draw


def numpy_problem(problem):
    """The same in NumPy."""
    atoms, weights = (a.astype(np.float32) for a in (problem.atoms, problem.weights))
    return atoms, weights, lambda seed: problem.sampler(np.random.default_rng(seed), np.float32)


def ours(problem, n_samples, arrays=torch_problem, **options):
    atoms, weights, draw = arrays(problem)
    options |= {"reg": problem.reg, "tol": 0, "max_iter": -(-n_samples // BATCH), "batch_size": BATCH}
    return lambda seed: ps.solve_semidiscrete(atoms, draw(seed), weights, **options).potential


def pot(problem, n_samples):
    atoms, weights, draw = torch_problem(problem)
    options = {"reg": problem.reg, "max_iter": -(-n_samples // 32)}
    return lambda seed: ot.semidiscrete.solve_semidiscrete(atoms, draw(seed), weights, **options)


def ott_sampler(source):
    """A problem's law for OTT-JAX, ``(rng, shape, dtype) -> array``."""
    import jax

    if isinstance(source, problems.Rows):
        rows = jax.numpy.asarray(source.rows, jax.numpy.float32)
        return lambda rng, shape, dtype: rows[jax.random.randint(rng, shape[:1], 0, len(rows))]
    axes = np.eye(source.dimension) if source.axes is None else source.axes
    place = (source.scale * axes.T).astype(np.float32)

    def sample(rng, shape, dtype):
        if source.name == "unif":
            return jax.random.uniform(rng, shape, dtype) @ place
        if source.name == "normal":
            return jax.random.normal(rng, shape, dtype) @ place
        return problems.student(jax.random.normal(rng, (*shape, 4), dtype)) @ place

    return sample


def potential_scale(problem):
    """How far potentials have to go: the spread of the mean cost to an atom, or the mean cost."""
    source, atoms = problem.quadrature(), problem.atoms
    costs = (atoms**2).sum(axis=1) - 2.0 * atoms @ (source.mass @ source.nodes)
    return max(problem.cost_scale, float(costs.std()))


def ott(problem, n_samples, setting=None):
    """OTT-JAX, compiled; `setting` is one of `OTT_GRID`, or None for the tutorial's."""
    import jax
    import optax
    from ott.geometry import semidiscrete_pointcloud
    from ott.problems.linear import semidiscrete_linear_problem
    from ott.solvers.linear import semidiscrete

    n_iter = -(-n_samples // 128)
    if setting is None:
        optimizer = optax.sgd(0.02)
    else:
        name, factor = setting
        unit = potential_scale(problem) if name == "adam" else problem.reg * len(problem.atoms)
        optimizer = getattr(optax, name)(optax.cosine_decay_schedule(factor * unit, n_iter))
    atoms, weights = (jax.numpy.asarray(a, "float32") for a in (problem.atoms, problem.weights))
    geometry = semidiscrete_pointcloud.SemidiscretePointCloud(
        ott_sampler(problem.source), atoms, epsilon=problem.reg
    )
    solver = semidiscrete.SemidiscreteSolver(
        num_iterations=n_iter,
        batch_size=128,
        optimizer=optimizer,
        error_eval_every=n_iter,
        error_num_repeats=1,
    )
    uniform = np.ptp(problem.weights) == 0.0
    task = semidiscrete_linear_problem.SemidiscreteLinearProblem(
        geometry, b=None if uniform else weights
    )
    compiled = jax.jit(lambda rng: solver(rng, task).g).lower(jax.random.key(0)).compile()
    return lambda seed: compiled(jax.random.key(seed)).block_until_ready()


def stochastic(problem, n_samples, method):
    """A method of `ot.stochastic`; one sample an iteration."""
    rows = problem.source.rows

    def run(seed):
        cost = ot.dist(rows, problem.atoms)
        masses = np.full(len(rows), 1.0 / len(rows))
        return method(
            masses, problem.weights, cost, problem.reg, numItermax=n_samples, random_state=seed
        )

    return run


# (problem, n_samples) -> (seed -> potential); what they do before is not timed
SOLVERS = {
    "ours": ours,
    "POT": pot,
    "OTT tutorial": ott,
    "OTT tuned": ott,
    "ASGD": functools.partial(stochastic, method=ot.stochastic.averaged_sgd_entropic_transport),
    "SAG": functools.partial(stochastic, method=ot.stochastic.sag_entropic_transport),
}


def applies(solver, problem):
    """Whether a solver can be run on a problem."""
    if solver in ("ASGD", "SAG"):
        return problem.reg > 0 and isinstance(problem.source, problems.Rows)
    if solver == "OTT tuned" and problem.reg == 0:
        return False
    return not solver.startswith("OTT") or importlib.util.find_spec("ott") is not None


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem, its optimal value, and ``potential -> value, marginal, ...`` of its semi-dual."""

    problem: problems.Problem
    optimum: float
    semi_dual: object
    trace: float = math.nan

    @property
    def label(self):
        return self.problem.name + (", reg 0" if self.problem.reg == 0 else "")

    def loss(self, potential):
        """Sub-optimality, in float64."""
        potential = np.asarray(potential, dtype=float)
        return self.optimum - self.semi_dual(potential)[0] if np.isfinite(potential).all() else math.nan


@functools.cache
def regularised(name):
    """The problem, with its stored reference."""
    problem, reference = problems.get(name), references.load(name)
    facts = (problem.quadrature(), problem.atoms, problem.weights, problem.reg)
    semi_dual = functools.partial(references.semi_dual, *facts)
    return Case(problem, reference.value, semi_dual, reference.trace)


@functools.cache
def unregularised_case(name):
    """The problem at ``reg = 0``, solved exactly."""
    problem = dataclasses.replace(problems.get(name), reg=0.0)
    atoms, weights = problem.atoms, problem.weights
    if atoms.shape[1] == 1:
        facts = (problem.source, atoms, weights)
        optimum, semi_dual = unregularised.line_optimum(*facts)[1], unregularised.line_semi_dual
    else:
        facts = (atoms, weights)
        optimum, semi_dual = unregularised.square_optimum(*facts)[1], unregularised.square_semi_dual
    return Case(problem, optimum, functools.partial(semi_dual, *facts))


def trials(case, run, seeds, enough=math.inf):
    """Sub-optimality and seconds of each seed, until their sum is over `enough` or not a number."""
    losses, seconds = [], []
    for seed in seeds:
        start = time.perf_counter()
        potential = run(seed)
        if torch.is_tensor(potential):
            potential = potential.cpu()  # when it is there
        seconds.append(time.perf_counter() - start)
        losses.append(case.loss(potential))
        if not sum(losses) <= enough:
            break
    return np.array(losses), np.array(seconds)


def tune(case, n_samples):
    """The setting of `OTT_GRID` of the least sub-optimality, with seed 0."""
    losses = [trials(case, ott(case.problem, n_samples, s), [0])[0][0] for s in OTT_GRID]
    return OTT_GRID[int(np.argmin(np.nan_to_num(losses, nan=np.inf)))]


def accuracy(case, solvers, n_samples, seeds):
    """One row for each solver, and the solvers as they were run."""
    rows, tuned = [], {}
    for name in solvers:
        tuned[name], facts = SOLVERS[name], {}
        if name == "OTT tuned":
            facts["setting"] = tune(case, n_samples)
            tuned[name] = functools.partial(ott, setting=facts["setting"])
        losses, seconds = trials(case, tuned[name](case.problem, n_samples), range(seeds))
        unit = case.trace / (2.0 * n_samples)
        row = {
            "problem": case.label,
            "solver": name,
            "loss": losses.mean(),
            "ratio": losses.mean() / unit,
            "ratio_stderr": losses.std(ddof=1) / unit / seeds**0.5 if seeds > 1 else math.nan,
            "seconds": np.median(seconds),
            **facts,
        }
        rows.append(row)
        print(
            f"{case.label:22} {name:13} loss {row['loss']:9.2e}  ratio {row['ratio']:9.3g} "
            f"+- {row['ratio_stderr']:8.2g}  {row['seconds']:7.2f} s  {facts.get('setting', '')}",
            flush=True,
        )
    return rows, tuned


def budgets():
    """Numbers of samples, whole batches, each some 1.4 times the one before."""
    last = round(2 * math.log2(GOAL_SAMPLES / BATCH))
    return sorted({BATCH * round(2.0 ** (k / 2)) for k in range(last + 1)})


def least_samples(case, solver, seeds, goal):
    """Fewest samples tried with which the mean sub-optimality is at most `goal`, and the seconds."""
    enough, lower = goal * seeds, 0

    def try_with(budget):
        losses, seconds = trials(case, solver(case.problem, budget), range(seeds), enough)
        return (budget, np.median(seconds)) if losses.sum() <= enough else None

    for budget in budgets():
        found = try_with(budget)
        if found:
            break
        lower = budget
    else:
        return None, math.inf
    for _ in range(HALVINGS):
        budget = BATCH * ((lower + found[0]) // (2 * BATCH))
        if budget > lower:
            better = try_with(budget)
            found, lower = (better, lower) if better else (found, budget)
    return found


def time_to_accuracy(case, solvers, seeds):
    """Seconds to be as accurate as POT with `GOAL_SAMPLES`, over POT's: one row for each solver."""
    losses, seconds = trials(case, pot(case.problem, GOAL_SAMPLES), range(seeds))
    goal, limit, rows = losses.mean(), np.median(seconds), []
    for name, solver in solvers.items():
        samples, seconds = least_samples(case, solver, seeds, goal)
        row = {"problem": case.label, "solver": name, "POT_seconds": limit}
        row |= {"samples": samples, "seconds": seconds, "share": seconds / limit}
        rows.append(row)
        print(
            f"{case.label:22} {name:13} as accurate as POT's {GOAL_SAMPLES} with {row['samples']} "
            f"samples, in {row['share']:.4f} of its {limit:.2f} s",
            flush=True,
        )
    return rows


def peak(name, solver, n_samples):
    """Bytes that a run adds to the resident memory of this process, at most."""
    problem, factory = problems.get(name), SOLVERS[solver]
    # libraries take memory of their own at their first use
    few = min(16, len(problem.atoms))
    weights = problem.weights[:few] / problem.weights[:few].sum()
    small = dataclasses.replace(problem, atoms=problem.atoms[:few], weights=weights)
    factory(small, 512)(0)
    torch.ones(1000, 64) @ torch.ones(64, 5000)
    run = factory(problem, n_samples)
    return machine.peak(lambda: run(0))[1]


def memory(name, solver, n_samples):
    """The same, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.solver", "--samples", str(n_samples)]
    command += ["--problems", name, "--solvers", solver, "--peak"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row = {"problem": name, "solver": solver, "bytes": json.loads(done.stdout.splitlines()[-1])}
    print(f"{name:22} {solver:13} {row['bytes'] / 2**20:8.1f} MiB beyond the problem", flush=True)
    return row


def warm_up(solvers):
    """Let each library start before it is timed."""
    for name in solvers:
        problem = problems.get("student_10")
        if applies(name, problem):
            SOLVERS[name](problem, 512)(0)


def main():
    global DEVICE
    parser = machine.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=64_000)
    parser.add_argument("--problems", nargs="+", choices=problems.NAMES, default=problems.NAMES)
    parser.add_argument("--solvers", nargs="+", choices=list(SOLVERS), default=list(SOLVERS))
    parser.add_argument("--device", default=DEVICE, help="of torch, e.g. cuda; JAX has its own choice")
    parser.add_argument("--peak", action="store_true", help="print the memory of one run, in bytes")
    args = parser.parse_args()
    DEVICE = args.device
    with machine.limit_threads(1):
        if args.peak:
            print(peak(args.problems[0], args.solvers[0], args.samples))
        else:
            run(args)


def run(args):
    """All measures; what is known is written after each problem."""
    table, times, sizes = [], [], []
    facts = {"machine": machine.facts(), "samples": args.samples, "seeds": args.seeds}
    facts.update(device=args.device, accuracy=table, time_to_accuracy=times, memory=sizes)
    write = lambda: args.json and machine.write(args.json, **facts)
    warm_up(args.solvers)
    cases = [regularised(name) for name in args.problems]
    cases += [unregularised_case(name) for name in args.problems if name in UNREGULARISED]
    for case in cases:
        solvers = [name for name in args.solvers if applies(name, case.problem)]
        rows, tuned = accuracy(case, solvers, args.samples, args.seeds)
        table += rows
        racing = {name: tuned[name] for name in solvers if name in ("ours", "OTT tuned")}
        times += time_to_accuracy(case, racing, min(args.seeds, 3))
        write()
    for name in args.problems:
        if name in MEMORY and sys.platform == "linux" and args.device == "cpu":
            solvers = [s for s in args.solvers if applies(s, problems.get(name)) and s != "OTT tuned"]
            sizes += [memory(name, solver, args.samples) for solver in solvers]
    write()


if __name__ == "__main__":
    main()
