"""Solvers of several libraries in one form: ``(problem, n_samples) -> (seed -> potential)``.

What they do before they are given a seed need not be timed. All draw `n_samples` points of the law of
the problem; :mod:`benchmarks.solver` tells their settings.
"""

import functools
import importlib.util

import numpy as np
import ot
import torch

import pot_semidiscrete as ps

from . import problems

BATCH = 256  # of this package
# steps of Adam in units of the potential's scale, of SGD in units of reg / b; both decay as a cosine
OTT_GRID = [("adam", s) for s in (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)] + [("sgd", s) for s in (0.3, 3.0)]


def torch_problem(problem, device="cpu"):
    """Atoms, weights, and ``seed -> sampler``, on a device."""
    arrays = (problem.atoms, problem.weights)
    atoms, weights = (torch.as_tensor(a, dtype=torch.float32, device=device) for a in arrays)
    draw = lambda seed: problem.sampler(torch.Generator(device).manual_seed(seed), torch.float32)
    return atoms, weights, draw


def numpy_problem(problem):
    """The same in NumPy."""
    atoms, weights = (a.astype(np.float32) for a in (problem.atoms, problem.weights))
    return atoms, weights, lambda seed: problem.sampler(np.random.default_rng(seed), np.float32)


def ours(problem, n_samples, arrays=torch_problem, **options):
    """This package, on whole batches."""
    atoms, weights, draw = arrays(problem)
    options |= {"reg": problem.reg, "tol": 0, "max_iter": -(-n_samples // BATCH), "batch_size": BATCH}
    return lambda seed: ps.solve_semidiscrete(atoms, draw(seed), weights, **options).potential


def pot(problem, n_samples, arrays=torch_problem):
    """POT's solver, with its batch of 32."""
    atoms, weights, draw = arrays(problem)
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


def on_device(name, solver, device):
    """A solver of this name on a device, if it is one of torch's; others as they are."""
    if name not in ("ours", "POT"):
        return solver
    return functools.partial(solver, arrays=functools.partial(torch_problem, device=device))


def applicable(names, problem, device="cpu"):
    """Those of `SOLVERS` with these names that can be run on a problem; torch's run on a device."""
    return {name: on_device(name, SOLVERS[name], device) for name in names if applies(name, problem)}


def warm_up(names, device="cpu"):
    """Let each library start before it is timed."""
    problem = problems.get("student_10")
    for solver in applicable(names, problem, device).values():
        solver(problem, 512)(0)
