"""Work, time and memory that a given accuracy takes at the sizes of users' problems.

``python -m benchmarks.scaling [--n-atoms N ...] [--dimensions D ...] [--targets NAME ...]
[--solvers NAME ...] [--chi2 X ...] [--patience S] [--limit S] [--samples-of-the-million N]
[--mnist FOLDER] [--device DEVICE] [--json FILE]``, or ``--headline [SHARE ...] [--relative-reg X ...]
[--seeds N] [--chi2 X] [--device DEVICE] [--json FILE]``

The accuracy is the squared relative error of the masses of the N atoms, ``chi2 = sum_j (m_j - b_j)**2 /
b_j``, measured here, on points that no solver has seen (:func:`measured`). The source is a normal law,
N(0, I); weights are even; `reg` is 1% of the mean cost between two atoms. Targets, from a fixed seed:

- ``normal``: N(0, I); in dimension 2 a potential of 0 is near the best one already, and rows hold the
  chi2 of 0. ``clusters``: 10 round clusters. ``heavy``: independent Student t, of 3 degrees of freedom.
- ``images``: MNIST's, whatever `--dimensions` says, and 70,000 where N is larger. The source is normal
  with their mean and a multiple of I of the trace of their covariance.

This package stops by itself, at ``tol = sqrt(chi2)``: its own bound has to be below it. Of the others,
the time is that of the first run that reached chi2, of 256, 512, 1024, ... samples, up to twice what was
needed. "OTT tuned" may try all settings of :mod:`benchmarks.solver` at each of these, and only the run
that reached chi2 counts. Rows say "more than" where the next run would have taken longer than
`--patience` seconds, or this package longer than `--limit`.

The work is the number of (sample, atom) entries evaluated, looks included, in units of ``N * N_eff /
chi2``: one pass over the samples that the error allows at best, ``N_eff / chi2`` of them. ``N_eff =
E sum_j chi_j(x)**2 / b_j - 1``, at most N, is how many atoms the masses count as when they are sampled.

From a million atoms on, each solver gets a few samples only, and nothing is said of its accuracy. All
run in float32 on one thread; seconds are the process's, without the compilation of OTT-JAX. With
``--device cuda`` tensors of this package and of POT are there, seconds are by the clock, and bytes are
those of the GPU.

``--headline`` is one problem of the size of CIFAR-10 with its mirror images, 100,000 atoms in dimension
3,072, or shares of it: without a GPU 1/50, and three about it. The source is N(0, I), the atoms are
fields of 32 by 32 pixels and 3 channels (:func:`fields`), `reg` is 1% of the mean cost, and 0.1%, where
nearly all atoms count. What the whole should take is told by :mod:`benchmarks.predictions`.
"""

import functools
import itertools
import math
import time
from typing import NamedTuple

import numpy as np
import torch

import pot_semidiscrete as ps
from pot_semidiscrete.datasets import load_mnist

from . import adapters, machine, predictions, problems

TARGETS = ("normal", "clusters", "heavy", "images")
MILLION = 10**6
GROUPS = 32
BLOCK = 2**20  # entries
MOST = 2e10  # entries for one measurement
PRECISE = 0.1  # of chi2, for its standard error
LEAST = 256  # samples
SHARES = {"cpu": [0.005, 0.01, 0.02, 0.04]}  # of the headline's atoms; elsewhere:
LARGE_SHARES = [0.25, 0.5, 1.0]


def law(dimension, scale=1.0):
    """Normal source; its quadrature is its mean, which is all that units of steps need."""
    mean = problems.Quadrature(np.zeros((1, dimension)), np.ones(1))
    return problems.Law("normal", dimension, 1, scale, rule=lambda n, d: mean)


def rows(target, n_atoms, dimension):
    """Atoms of a law, float32; fewer are the first of more."""
    rng = np.random.default_rng(TARGETS.index(target))
    centres = rng.standard_normal((10, dimension))
    atoms = np.empty((n_atoms, dimension), np.float32)
    for part in np.split(atoms, range(1000, n_atoms, 1000)):
        if target == "heavy":
            drawn = rng.standard_t(3, (1000, dimension))
        else:
            drawn = rng.standard_normal((1000, dimension))
        if target == "clusters":
            drawn = centres[rng.integers(10, size=1000)] + 0.4 * drawn
        part[:] = drawn[: len(part)]
    return atoms


def fields(n_atoms, side=32, channels=3):
    """Normal fields with a spectrum like that of natural images, float32; fewer are the first of more.

    Amplitudes fall as 1 / frequency (Field, 1987), also from one channel to another: 80% of the variance
    is common. A log-normal factor is the contrast of an image. The standard deviation is 1/2, as of
    images between -1 and 1.
    """
    rng = np.random.default_rng(len(TARGETS))
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)).astype(np.float32)
    frequency[0, 0] = 1.0 / side  # of the mean
    folded = np.full(frequency.shape[1], 2.0)  # each but the first and the last stands for two
    folded[[0, -1]] = 1.0
    power = float((folded * frequency**-2.0).sum()) / side**2
    atoms = np.empty((n_atoms, channels * side**2), np.float32)
    for part in np.split(atoms, range(1000, n_atoms, 1000)):
        noise = rng.standard_normal((1000, channels + 1, side, side), np.float32)
        mixed = math.sqrt(0.8) * noise[:, :1] + math.sqrt(0.2) * noise[:, 1:]
        drawn = np.fft.irfft2(np.fft.rfft2(mixed) / frequency, s=(side, side))
        contrast = np.exp(0.35 * rng.standard_normal((1000, 1)) - 0.35**2)
        drawn = drawn.reshape(1000, -1) * (0.5 * contrast / math.sqrt(power))
        part[:] = drawn[: len(part)]
    return atoms


def build(name, atoms, source, relative_reg=0.01):
    """A problem of even weights, with a `reg` of 1% of the mean cost, or another share."""
    reg = relative_reg * float(ps.cost_scale(torch.from_numpy(atoms)))
    return problems.Problem(name, source, atoms, problems.even(len(atoms)), reg)


def synthetic(name, n_atoms, dimension):
    """A problem of atoms of a law."""
    return build(name, rows(name, n_atoms, dimension), law(dimension))


class Images:
    """Those of MNIST in a random order, and a normal law like them; both moved to their mean."""

    def __init__(self, folder):
        images = np.concatenate([part.reshape(len(part), -1) for part in load_mnist(folder)])
        images -= images.mean(axis=0, dtype=float).astype(np.float32)
        self.images = np.random.default_rng(0).permutation(images)
        self.dimension = images.shape[1]
        self.scale = float(images.var(axis=0, dtype=float).mean() ** 0.5)

    def problem(self, n_atoms):
        return build("images", self.images[:n_atoms], law(self.dimension, self.scale))


def cases(args):
    """Functions that build the problems, the small ones first."""
    images = Images(args.mnist) if args.mnist and "images" in args.targets else None
    if images is None and "images" in args.targets:
        print("images: left out, for want of --mnist FOLDER", flush=True)
    for n_atoms, dimension in itertools.product(sorted(args.n_atoms), args.dimensions):
        for name in args.targets:
            if name != "images":
                yield functools.partial(synthetic, name, n_atoms, dimension)
    for n_atoms in sorted({min(n, len(images.images)) for n in args.n_atoms}) if images else ():
        yield functools.partial(images.problem, n_atoms)


class Measure(NamedTuple):
    """What :func:`measured` found, and from how many points."""

    chi2: float
    stderr: float
    n_eff: float
    points: int


def measured(problem, potential, goal, device="cpu"):
    """Unbiased estimate of chi2 and its standard error, and of N_eff, on fresh points.

    By ``n`` of them, ``chi2 = sum_j ((sum_i chi_ij)**2 - sum_i chi_ij**2) / (n (n - 1) b_j) - 1``. The
    error is the jackknife's over groups of points, which is not too small in the mean. There are as many
    points as make it a tenth of `goal`, or of chi2 where that is larger, up to `MOST` entries.
    """
    if not isinstance(potential, torch.Tensor):
        potential = torch.as_tensor(np.asarray(potential, dtype=float))
    potential, n_atoms = potential.to(device, torch.float64), len(problem.atoms)
    if not potential.isfinite().all():
        return Measure(math.inf, math.nan, math.nan, 0)
    atoms = torch.from_numpy(problem.atoms).to(device)
    norms = torch.linalg.vector_norm(atoms, dim=1, dtype=torch.float64)
    offset = (potential - norms**2) / problem.reg
    offset = (offset - offset.max()).float()
    draw = problem.sampler(torch.Generator(device).manual_seed(2**31), torch.float32)
    n_rows = max(64, BLOCK // max(atoms.shape))
    sums, squares = np.zeros((GROUPS, n_atoms)), np.zeros(GROUPS)
    for n_blocks in itertools.count(1):
        scores = torch.addmm(offset, draw(n_rows), atoms.T, alpha=2.0 / problem.reg)
        chi = torch.softmax(scores, dim=1)
        sums[n_blocks % GROUPS] += chi.sum(dim=0).cpu().numpy()
        squares[n_blocks % GROUPS] += float(chi.square_().sum())
        if n_blocks % GROUPS == 0:
            found = summary(sums, squares, n_blocks * n_rows)
            precise = found.stderr <= PRECISE * max(goal, found.chi2)
            if precise or found.points * n_atoms >= MOST:
                return found


def summary(sums, squares, n):
    """The estimates, from the sums of the weights and of their squares of each group."""
    n_atoms, total = sums.shape[1], sums.sum(axis=0)
    statistic = lambda pairs, n: n_atoms * pairs / (n * (n - 1)) - 1.0
    pairs = total @ total - squares.sum()
    without = pairs - 2.0 * sums @ total + (sums**2).sum(axis=1) + squares
    variance = (len(sums) - 1) * statistic(without, n - n // len(sums)).var()
    n_eff = n_atoms * squares.sum() / n - 1.0
    return Measure(float(statistic(pairs, n)), math.sqrt(variance), float(n_eff), n)


def ours(problem, chi2, limit, device="cpu"):
    """This package, for as long as it takes or `limit` seconds."""
    atoms, _, draw = adapters.torch_problem(problem, device)

    def run(seed):
        end = time.process_time() + limit
        options = {"reg": problem.reg, "tol": chi2**0.5, "max_iter": 10**9}
        options["callback"] = lambda state: time.process_time() > end
        return ps.solve_semidiscrete(atoms, draw(seed), **options)

    return run


# (problem, chi2, seconds, device) -> (seed -> result): solvers that stop by themselves; a result has a
# potential, n_samples, converged and, if they are known, chi2 and work
STOPPING = {"ours": ours}
# (problem, n_samples) -> (seed -> potential), like those of `adapters`; more can be added
SOLVERS = {name: adapters.SOLVERS[name] for name in ("ours", "POT", "OTT tutorial", "OTT tuned")}
# values of the argument `setting` of a solver, of which the best counts
SETTINGS = {"OTT tuned": adapters.OTT_GRID}


def timed(run, seed=0, device="cpu"):
    """What a run returns, and facts of it: seconds, and bytes at their peak (nan if not known)."""
    call = functools.partial(machine.seconds, functools.partial(run, seed), device)
    (found, seconds), size = machine.peak(call, device)
    return found, {"seconds": seconds, "bytes": size}


def by_itself(name, problem, chi2, limit, seed=0, device="cpu"):
    """Facts of a solver that stops by itself."""
    result, facts = timed(STOPPING[name](problem, chi2, limit, device), seed, device)
    facts |= {"samples": result.n_samples, "reached": bool(result.converged)}
    facts |= {"claimed": float(getattr(result, "chi2", math.nan))}
    facts |= {"work": float(getattr(result, "work", math.nan))}
    return facts, measured(problem, result.potential, chi2, device)


def by_search(name, problem, chi2, patience, device="cpu"):
    """Facts of the first run that reached chi2, of twice the samples each time, or of the last."""
    settings, n_samples = SETTINGS.get(name, [None]), LEAST
    solver = adapters.on_device(name, SOLVERS[name], device)
    while True:
        tries = []
        for setting in settings:
            options = {} if setting is None else {"setting": setting}
            potential, facts = timed(solver(problem, n_samples, **options), device=device)
            found = measured(problem, potential, chi2, device)
            facts |= {"samples": n_samples, "reached": found.chi2 <= chi2, **options}
            facts |= {"work": float(n_samples * len(problem.atoms))}
            tries.append((facts, found))
            if facts["reached"]:
                return tries[-1]
        # what was best is tried first next time: others of the same number of samples take as long
        tries.sort(key=lambda tried: tried[1].chi2)
        if 2.0 * tries[0][0]["seconds"] > patience:
            return tries[0]
        settings, n_samples = [facts.get("setting") for facts, _ in tries], 2 * n_samples


def accuracy(name, problem, chi2, args, seed=0):
    """Row of a solver that has to reach chi2."""
    if name in STOPPING:
        facts, found = by_itself(name, problem, chi2, args.limit, seed, args.device)
    else:
        facts, found = by_search(name, problem, chi2, args.patience, args.device)
    unit = len(problem.atoms) * found.n_eff / chi2
    ratio = facts["work"] / unit if facts["reached"] else math.nan
    measure = {f"measured_{key}": value for key, value in found._asdict().items()}
    return {**identity(name, problem), "chi2": chi2, **facts, "work_ratio": ratio, **measure}


def few(name, problem, n_samples, device="cpu"):
    """Row of a solver that gets a few samples."""
    solver = adapters.on_device(name, SOLVERS[name], device)
    _, facts = timed(solver(problem, n_samples), device=device)
    return {**identity(name, problem), "chi2": math.nan, "samples": n_samples, **facts}


def identity(name, problem):
    """What a row is of."""
    n_atoms, dimension = problem.atoms.shape
    return {"target": problem.name, "dimension": dimension, "n_atoms": n_atoms, "solver": name}


def show(row):
    """One line."""
    each = 1e6 * row["seconds"] / row["samples"]
    more = "" if row.get("reached", True) else "more than "
    text = f"{row['target']:8} d {row['dimension']:3} N {row['n_atoms']:7} {row['solver']:12} "
    text += f"{more + format(row['seconds'], '.2f'):>16} s  {row['samples']:8} samples of "
    text += f"{each:8.1f} us  {row['bytes'] / 2**20:6.0f} MiB"
    if "measured_chi2" in row:
        text += f"  chi2 {row['measured_chi2']:.2g} +- {row['measured_stderr']:.1g} for {row['chi2']:g}"
        text += f"  N_eff {row['measured_n_eff']:.4g}  work {row['work_ratio']:.3g}"
    print(text, row.get("setting", ""), flush=True)


def exponents(table):
    """Of the time per sample against N, by all rows of a target, dimension and solver."""
    names = ("target", "dimension", "solver")
    key = lambda row: tuple(row[name] for name in names)
    found = []
    for which, group in itertools.groupby(sorted(table, key=key), key):
        points = [(row["n_atoms"], row["seconds"] / row["samples"]) for row in group]
        sizes, seconds = np.log(points).T
        if np.ptp(sizes) > 0:
            slope = float(np.polyfit(sizes, seconds, 1)[0])
            found.append({**dict(zip(names, which, strict=True)), "exponent": slope})
    return found


def run(args):
    """All rows; what is known is written after each."""
    table, facts = [], {"machine": machine.facts(), "arguments": machine.arguments(args)}
    small = synthetic("normal", 100, 2)
    names = [name for name in args.solvers if adapters.applies(name, small)]
    for name in names:
        # let each library start before it is timed
        adapters.on_device(name, SOLVERS[name], args.device)(small, 512)(0)

    def add(row):
        table.append(row)
        show(row)
        machine.write(args.json, **facts, rows=table, exponents=exponents(table))

    for case in cases(args):
        problem = case()
        small_enough = len(problem.atoms) < MILLION
        if small_enough:
            start = measured(problem, np.zeros(len(problem.atoms)), 1.0, args.device).chi2
        for name in names:
            if small_enough:
                for chi2 in args.chi2:
                    add({**accuracy(name, problem, chi2, args), "chi2_at_zero": start})
            elif name not in SETTINGS:
                add(few(name, problem, args.samples_of_the_million, args.device))
    for found in exponents(table):
        print(
            "{target:8} d {dimension:3} {solver:12} time per sample: N**{exponent:.2f}".format(**found)
        )


def headline(args):
    """Rows of shares of the headline, the largest first, and what the whole should take."""
    shares = args.headline or SHARES.get(args.device, LARGE_SHARES)
    sizes = sorted({round(share * predictions.ATOMS) for share in shares}, reverse=True)
    table, facts = [], {"machine": machine.facts(), "arguments": machine.arguments(args)}
    chi2, dimension, atoms = args.chi2[0], predictions.DIMENSION, fields(sizes[0])
    here = predictions.measured_rates(args.device, sizes[0], dimension)
    ours(build("fields", atoms[:50], law(dimension)), 1.0, 60.0, args.device)(0)  # let the library start
    for relative_reg, n_atoms in itertools.product(args.relative_reg, sizes):
        problem = build("fields", atoms[:n_atoms], law(dimension), relative_reg)
        for seed in range(args.seeds):
            row = {"relative_reg": relative_reg, "seed": seed}
            row |= accuracy("ours", problem, chi2, args, seed)
            row |= {"factor": row["samples"] * chi2 / row["measured_n_eff"]}
            row |= {"ns_an_entry": 1e9 * row["seconds"] / row["work"]}
            row |= {"flops": 2.0 * dimension * row["work"] / row["seconds"]}
            table.append(row)
            show(row)
            predictions.show_row(row, here)
            machine.write(args.json, **facts, rows=table)
    if len(sizes) > 1:
        found = predictions.predicted(table, here)
        predictions.show(found)
        machine.write(args.json, **facts, rows=table, **found)


def main():
    count = lambda text: int(float(text))
    parser = machine.parser(__doc__)
    parser.add_argument("--n-atoms", type=count, nargs="+", default=[1000, 10_000, 100_000, MILLION])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2, 16, 64, 784])
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--solvers", nargs="+", choices=list(SOLVERS), default=list(SOLVERS))
    parser.add_argument("--chi2", type=float, nargs="+", default=[0.05, 0.01])
    parser.add_argument("--patience", type=float, default=120.0, help="seconds of a run of the others")
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds of a run of this package")
    parser.add_argument("--samples-of-the-million", type=count, default=4096)
    parser.add_argument("--mnist", metavar="FOLDER", help="folder with its IDX files")
    parser.add_argument("--device", default="cpu", help="of tensors")
    parser.add_argument("--headline", type=float, nargs="*", metavar="SHARE", help="instead of the rest")
    parser.add_argument("--relative-reg", type=float, nargs="+", default=[0.01, 0.001])
    parser.add_argument("--seeds", type=int, default=1, help="of the headline")
    args = parser.parse_args()
    with machine.limit_threads(1):
        run(args) if args.headline is None else headline(args)


if __name__ == "__main__":
    main()
