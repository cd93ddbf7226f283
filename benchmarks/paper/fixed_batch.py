"""The dual alone: of a batch of 200 points that stays the same, and of batches that are fresh.

A generator with random weights, 200 points, all images. With the batch fixed the problem is finite, at
`reg` 0.001: its maximum is found by :func:`pot_semidiscrete.solve_semidiscrete` with the roles
exchanged, the points being the atoms and the images the source, dealt in one random order. What the
authors' 100 steps and 100 iterations of `ot.sinkhorn` in the log domain reach is measured beside. These
are given their costs, once for all iterations, and their seconds do not count them; ours do.

Then the authors' comparison of optimisers at `reg` 0.1, where each step has a fresh batch.
"""

import functools

import numpy as np
import ot
import torch
from scipy.special import xlogy

from pot_semidiscrete import solve_semidiscrete

from .. import machine
from .rules import BATCH, DUAL_RATES, SemiDual, latent, make_generator

REG, FRESH_REG, STEPS = 0.001, 0.1, 100
SEED = 2020  # as in the notebook
LEAST_DEALT = 200_000  # images dealt, mostly more than once: the gap is then below 1e-4
BLOCK = 4096  # images at once, for the certificate
N_FRESH = 5  # batches that measure a potential
OPTIMIZERS = {
    "vector ASGD": lambda p: torch.optim.ASGD(p, lr=DUAL_RATES["vector"], alpha=0.5, t0=1),
    "vector Adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "network ASGD": lambda p: torch.optim.ASGD(p, lr=DUAL_RATES["network"], alpha=0.8, t0=1),
    "network Adam": lambda p: torch.optim.Adam(p, lr=1e-3),
}


def dealt(rows, random_state=0):
    """A source that goes through all rows in one random order: as many as there are is the whole."""
    order = np.random.default_rng(random_state).permutation(len(rows))
    order, place = torch.as_tensor(order, device=rows.device), 0

    def deal(n):
        nonlocal place
        index = order[(place + torch.arange(n, device=rows.device)) % len(rows)]
        place += n
        return rows[index]

    return deal


def finite_value(x, y, psi, reg=REG):
    """Semi-dual value in double precision, of uniform points `x`, atoms `y` and their potential."""
    y = torch.as_tensor(y).double()
    dual = SemiDual(y, reg, "vector")
    with torch.no_grad():
        dual.psi.copy_(torch.as_tensor(psi))
        return float(dual(torch.as_tensor(x).to(y)))


def plan_cost(plan, rows, reg):
    """Cost, with entropy, of a plan that is feasible from uniform rows to uniform atoms.

    Columns are scaled down to the masses of the atoms, and what is missing is put back by a product
    (Altschuler, Weed, Rigollet, 2017). It is at least the transport cost, whatever the plan was.

    Parameters
    ----------
    plan : callable
        Some of the rows to their weights, of sum 1, and their costs, (n, n_atoms), in double precision.
    rows : array, shape (n_rows, d)
    reg : float
    """
    blocks = [rows[k : k + BLOCK] for k in range(0, len(rows), BLOCK)]
    mass = sum(plan(block)[0].sum(axis=0) for block in blocks) / len(rows)
    b = 1.0 / len(mass)
    scale = np.minimum(1.0, b / mass)
    lacking, total = b - scale * mass, 0.0
    for block in blocks:
        weights, costs = plan(block)
        weights = weights * scale
        short = np.maximum(1.0 - weights.sum(axis=1, keepdims=True), 0.0)
        weights = weights + short * lacking / max(lacking.sum(), 1e-300)
        total += np.sum(weights * costs) + reg * np.sum(xlogy(weights, weights / b))
    return total / len(rows)


def certified(result, x, y):
    """Value of the potential of a result over all of `y`, and a bound of what it lacks."""
    result, (x, y) = result.to(np.float64), (rows.double().cpu().numpy() for rows in (x, y))
    plan = lambda block: (result.atom_weights(block), ot.dist(block, x))
    below = float(result.c_transform(y).mean() + result.potential.mean())
    return below, plan_cost(plan, y, result.reg) - below


def ours(x, y, reg=REG):
    """The finite problem: every batch is all of the images, and Newton's method ends on them.

    It ends within the error that as many points of an unknown law would have, so that images are dealt
    again and again.
    """
    options = {"batch_size": len(y), "max_iter": -(-LEAST_DEALT // len(y)), "max_memory": 2**31}
    return solve_semidiscrete(x, dealt(y), reg=reg, tol=0, random_state=0, **options)


def ot_sinkhorn(x, y, n_iter, device):
    """`ot.sinkhorn` in the log domain: the potential of the images, and seconds without the costs'."""
    x, y = (rows.double() if rows.is_cuda else rows.double().numpy() for rows in (x, y))
    a, b, costs = ot.unif(len(x), x), ot.unif(len(y), y), ot.dist(x, y)
    options = {
        "method": "sinkhorn_log",
        "numItermax": n_iter,
        "stopThr": 0.0,
        "warn": False,
        "log": True,
    }
    solve = lambda: ot.sinkhorn(a, b, costs, REG, **options)
    (_, log), seconds = machine.seconds(solve, device)
    return REG * (log["log_v"] + np.log(len(y))), seconds


def ascent(x, y, kind, n_iter, report):
    """The authors' optimiser of the notebook: the potential of the images, and the same seconds.

    Their call for the network has a rate of 0.1 and the `alpha` of ASGD. The file that they published
    goes on to Adam, at that rate, and has ASGD in a comment.
    """
    dual = SemiDual(y, REG, kind)
    optimizer = OPTIMIZERS[f"{kind} ASGD"](dual.parameters())
    with torch.no_grad():
        costs = dual.cost(x)

    def climb():
        for _ in range(n_iter):
            value = dual.ascend(optimizer, x, cost=costs)
            report(lambda value=value: {"value": value})

    _, seconds = machine.seconds(climb, x.device.type)
    if kind == "vector":
        return optimizer.state[dual.psi]["ax"], seconds  # the average, here
    with torch.no_grad():
        return dual.potential(), seconds


class Source:
    """Points of a generator with random weights, batch after batch.

    Attributes
    ----------
    y : tensor, shape (n_images, d)
        Images as rows.
    root : float
        Root of their mean squared norm: over it, costs are in units of the mean squared norm.
    """

    def __init__(self, images):
        torch.manual_seed(SEED)
        self.generator, self.y = make_generator("DCGAN", images.shape[1:]), images.flatten(1)
        self.generator.to(self.y.device)
        self.root = float(self.y.square().sum(dim=1).mean().sqrt())

    @torch.no_grad()
    def __call__(self, n=BATCH):
        return self.generator(latent(n, self.y.device))


def fixed_batch(images, settings):
    """Names and runs: what each makes of the same 200 points."""
    source, n_iter, device = Source(images), settings.steps(STEPS), images.device.type
    x, y = source(), source.y
    small = x / source.root, y / source.root

    def of_ours(report):
        result, seconds = machine.seconds(lambda: ours(*small), device)
        value, gap = certified(result, *small)
        return {"value": value, "gap": gap, "seconds": seconds, "work": result.work / (len(x) * len(y))}

    def of_theirs(potential):
        def run(report):
            psi, seconds = potential(report)
            return {"value": finite_value(x, y, psi), "seconds": seconds, "work": n_iter}

        return run

    yield "ours", of_ours
    yield "ot.sinkhorn, log domain", of_theirs(lambda report: ot_sinkhorn(*small, n_iter, device))
    for kind in ("vector", "network"):
        yield kind, of_theirs(lambda report, kind=kind: ascent(x, y, kind, n_iter, report))


def fresh_batches(images, settings):
    """Names and runs: the value of each batch on the way up, and of 1,000 points at the end."""
    n_iter, device = settings.steps(STEPS), images.device.type

    def of_theirs(report, name):
        source, values = Source(images), []
        dual = SemiDual(source.y, FRESH_REG, name.split()[0])
        optimizer = OPTIMIZERS[name](dual.parameters())

        def climb():
            for _ in range(n_iter):
                values.append(dual.ascend(optimizer, source()))
                report(lambda: {"value": values[-1]})

        _, seconds = machine.seconds(climb, device)
        with torch.no_grad():
            psi = dual.potential()
        return {"values": values, "seconds": seconds} | measured(source, psi)

    def measured(source, psi):
        values = [finite_value(source(), source.y, psi, FRESH_REG) for _ in range(N_FRESH)]
        return {"value": float(np.mean(values)), "stderr": float(np.std(values) / N_FRESH**0.5)}

    def of_ours(report):
        source = Source(images)
        draw = lambda n: source(n) / source.root
        options = {"max_iter": n_iter, "batch_size": BATCH, "tol": 0}
        solve = lambda: solve_semidiscrete(source.y / source.root, draw, reg=FRESH_REG, **options)
        result, seconds = machine.seconds(solve, device)
        return {"seconds": seconds} | measured(source, result.potential)

    yield "ours", of_ours
    for name in OPTIMIZERS:
        yield name, functools.partial(of_theirs, name=name)
