"""Sub-optimality of potentials, on the problems whose optimal value is known.

Its unit is what the samples allow at best, in the mean: in that unit it is the efficiency ratio.
"""

import dataclasses
import functools
import math
import time

import numpy as np
import torch

from . import problems, references, unregularised
from .adapters import OTT_GRID, ott


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem, its optimal value, and ``potential -> value, marginal, ...`` of its semi-dual."""

    problem: problems.Problem
    optimum: float
    semi_dual: object
    trace: float = math.nan

    @property
    def label(self):
        """Name of the problem, and whether it is at ``reg = 0``."""
        return self.problem.name + (", reg 0" if self.problem.reg == 0 else "")

    def loss(self, potential):
        """Sub-optimality, in float64."""
        potential = np.asarray(potential, dtype=float)
        return self.optimum - self.semi_dual(potential)[0] if np.isfinite(potential).all() else math.nan


@functools.cache
def regularised_case(name):
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
    """Sub-optimality and seconds of each seed, until their sum is over `enough` or not a number.

    Seconds are those of the processor, for the machine may have other work; with a GPU, of a clock.
    """
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    losses, seconds = [], []
    for seed in seeds:
        start = clock()
        potential = run(seed)
        if torch.is_tensor(potential):
            potential = potential.cpu()  # when it is there
        seconds.append(clock() - start)
        losses.append(case.loss(potential))
        if not sum(losses) <= enough:
            break
    return np.array(losses), np.array(seconds)


def tune(case, n_samples):
    """The setting of `OTT_GRID` of the least sub-optimality, with seed 0."""
    losses = [trials(case, ott(case.problem, n_samples, s), [0])[0][0] for s in OTT_GRID]
    return OTT_GRID[int(np.argmin(np.nan_to_num(losses, nan=np.inf)))]


def accuracy(case, solvers, n_samples, seeds):
    """One row for each of the solvers, a dict by name, and the solvers as they were run."""
    rows, tuned = [], {}
    for name, solver in solvers.items():
        tuned[name], facts = solver, {}
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
