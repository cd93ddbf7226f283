"""Constants of the solver, each halved and doubled: what it is worth.

``python -m benchmarks.constants [--constants NAME ...] [--samples 8192] [--seeds 2] [--json FILE]``

Runs are of problems of :mod:`benchmarks.problems`, and of two of them at ``reg = 0``, in float32 on one
thread, by the ascent alone (``max_memory=0``) and with Newton's correction. Figures of a constant are
geometric means over problems, in units of those with the constants as they are: *ascent* and
*corrected* of the sub-optimality, *work* of that of the corrected run. Below 1 is better. Each has two,
of the constant halved and doubled.
"""

import contextlib
import functools
import importlib
import math
import pkgutil
import sys

import numpy as np

import pot_semidiscrete as ps
from pot_semidiscrete import optim

from . import machine, problems
from .adapters import BATCH, torch_problem
from .suboptimality import regularised_case, unregularised_case

FACTORS = (0.5, 2.0)
AT_ZERO = ("uniform_line", "uniform_square")
VARIANTS = {"ascent": {"max_memory": 0}, "corrected": {}}
MODULES = [f"{optim.__name__}.{part.name}" for part in pkgutil.iter_modules(optim.__path__)]


def constants():
    """The numbers that modules of the solver's optimisers name."""
    found = {}
    for module in map(importlib.import_module, MODULES):
        for name, value in vars(module).items():
            if name.isupper() and type(value) in (int, float):
                found.setdefault(name, value)
    return found


@contextlib.contextmanager
def replaced(name, value):
    """The package with another value of a constant, as a global and as a default."""
    old, changes = constants()[name], []
    for module in [m for key, m in sys.modules.items() if key.startswith(ps.__name__)]:
        if getattr(module, name, None) is old:
            changes.append((module, name, old))
            setattr(module, name, value)
        for function in vars(module).values():
            defaults = getattr(function, "__defaults__", None)
            if defaults and any(default is old for default in defaults):
                changes.append((function, "__defaults__", defaults))
                new = tuple(value if default is old else default for default in defaults)
                function.__defaults__ = new
    try:
        yield
    finally:
        for place, attribute, before in changes:
            setattr(place, attribute, before)


@functools.cache
def case_of(label):
    """A problem, by its name, with ``, reg 0`` or without."""
    name, *at_zero = label.split(",")
    return unregularised_case(name) if at_zero else regularised_case(name)


def measured(label, n_samples, seeds):
    """Sub-optimality and work of the variants, means over the seeds, on one problem."""
    case, found = case_of(label), {}
    atoms, weights, draw = torch_problem(case.problem)
    usual = {"tol": 0, "max_iter": -(-n_samples // BATCH), "batch_size": BATCH, "reg": case.problem.reg}
    for variant, options in VARIANTS.items():
        options = usual | options
        runs = [ps.solve_semidiscrete(atoms, draw(s), weights, **options) for s in range(seeds)]
        found[variant] = np.mean([case.loss(run.potential) for run in runs])
        found[f"{variant} work"] = np.mean([run.work for run in runs])
    return found


def compared(found, usual):
    """Figures of a constant: see the module."""
    ratios = lambda key: [found[label][key] / usual[label][key] for label in usual]
    mean = lambda key: math.exp(np.mean(np.log(ratios(key))))
    return {"ascent": mean("ascent"), "corrected": mean("corrected"), "work": mean("corrected work")}


def main():
    parser = machine.parser(__doc__)
    known = constants()
    parser.add_argument("--constants", nargs="+", choices=known, default=list(known))
    parser.add_argument("--samples", type=int, default=8192)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--problems", nargs="+", choices=problems.NAMES, default=list(problems.NAMES))
    args = parser.parse_args()
    labels = args.problems + [f"{name}, reg 0" for name in AT_ZERO if name in args.problems]
    measure = lambda: {label: measured(label, args.samples, args.seeds) for label in labels}
    with machine.limit_threads(1):
        usual, rows = measure(), []
        for name in args.constants:
            found = []
            for factor in FACTORS:
                with replaced(name, type(known[name])(factor * known[name])):
                    found.append(compared(measure(), usual))
            rows.append({"constant": name} | {key: [each[key] for each in found] for key in found[0]})
            texts = (
                f"{key} {below:6.3f} {above:6.3f}" for key, (below, above) in list(rows[-1].items())[1:]
            )
            print(f"{name:15} {'   '.join(texts)}", flush=True)
            facts = {"machine": machine.facts(), "arguments": machine.arguments(args)}
            machine.write(args.json, **facts, rows=rows)


if __name__ == "__main__":
    main()
