"""The training loop, for torch generators: in rounds, or the paper's alternation."""

import contextlib
import copy
import time
import warnings
from dataclasses import dataclass, field

import numpy as np
import torch

from ..backend import on_host
from ..diagnostics import diagnose
from ..inference.chi2 import chi_square
from ..optim.newton import maximize
from ..optim.semi_dual import SemiDual
from ..problem import NotFiniteError, check_callable, check_count
from ..runs import Progress, SemiDiscreteWarning, guarded
from ..samplers.laws import NormalSampler
from ..samplers.resolve import resolve_random
from .checkpoint import Checkpoint, check_path, problem_of, restore, shapes, state_of
from .loss import SemiDiscreteLoss
from .optimizers import (
    describe_optimizer,
    fall,
    load_optimizer,
    parameters_of,
    resolve_optimizer,
    set_rate,
)
from .rounds import Rounds, resolve_reuse

N_LOOKS = 50  # estimates of chi2 in a run
LOOK_BATCHES = 5
POINTS_PER_ATOM = 10.0  # that tell enough of a potential to improve it by
LEARNING_RATE, BETAS = 3e-3, (0.9, 0.99)
DEVICE_SHARE, DEVICE_POINTS = 0.125, 8192  # of the atoms, and at most, in a round on a GPU
SHARPER = 0.3  # of the loss's default reg: rounds can follow at less than its own steps
COLUMNS = ("loss", "seconds", "chi2_step", "chi2")


@dataclass
class TrainingResult:
    """What :func:`train_generator` reached.

    Attributes
    ----------
    generator : torch.nn.Module
        The generator that was given, trained.
    loss : SemiDiscreteLoss
        The loss, with its potential.
    history : dict of ndarray
        ``loss`` (semi-dual value, or the bound of it that a step descends) and ``seconds`` (since the
        start) for each step; ``chi2`` (squared relative marginal error, on fresh points) at the steps
        ``chi2_step``.
    status : str
        ``"finished"``, ``"stopped"`` (by the callback), ``"interrupted"``, ``"diverged"`` (the loss
        was not finite; generator and potential are those of step `n_steps`) or ``"failed"``.
    n_steps : int
        Steps of the generator taken.
    """

    generator: torch.nn.Module
    loss: SemiDiscreteLoss
    history: dict = field(default_factory=dict)
    status: str = "finished"

    @property
    def n_steps(self):
        """Steps of the generator taken."""
        return len(self.history["loss"])

    def plot(self, axes=None):
        """Draw the loss and the marginal error (needs matplotlib).

        Parameters
        ----------
        axes : pair of matplotlib axes, optional

        Returns
        -------
        pair of matplotlib axes
        """
        from ..plot import plot_history

        return plot_history(self.history, axes)


class Column:
    """Numbers that grow by one at the end; what was handed out before never changes."""

    def __init__(self, dtype=float):
        self.values, self.n = np.empty(64, dtype), 0

    def append(self, value):
        if self.n == len(self.values):
            self.values = np.concatenate([self.values, np.empty_like(self.values)])
        self.values[self.n] = value
        self.n += 1

    def view(self):
        """What there is, without a copy."""
        return self.values[: self.n]

    def replace(self, values):
        self.values, self.n = np.concatenate([values, np.empty(64, self.values.dtype)]), len(values)


class Trainer:
    """One run: generator, loss, optimiser and the schedule of its rate, rounds, history."""

    def __init__(self, generator, latent_sampler, loss, optimizer, schedule, batch_size, reuse):
        self.generator, self.latent_sampler, self.loss = generator, latent_sampler, loss
        self.optimizer, self.schedule, self.batch_size = optimizer, schedule, batch_size
        self.rounds = Rounds(generator, self.latent, loss, reuse)
        self.status, self.start, self.begun = "finished", time.perf_counter(), False
        self.columns = {name: Column(int if name == "chi2_step" else float) for name in COLUMNS}
        # torch.compile wraps a module, whose names and tensors it shares
        self.module = getattr(generator, "_orig_mod", generator)
        self.warned = False

    @property
    def n_steps(self):
        return self.columns["loss"].n

    def problem(self):
        """What a checkpoint must agree on."""
        parameters = {f"parameter {k}": p for k, p in enumerate(parameters_of(self.optimizer))}
        return problem_of(self.loss) | {
            "batch_size": self.batch_size,
            "reuse": self.rounds.reuse,
            "generator": shapes((state_of(self.module) or {}) | parameters),
            "optimizer": describe_optimizer(self.optimizer) + (" that falls" if self.schedule else ""),
        }

    def latent(self):
        """Fresh latent points."""
        return self.latent_sampler(self.batch_size)

    def points(self):
        """Fresh points, in the generator's present mode."""
        return self.generator(self.latent())

    @contextlib.contextmanager
    def whole_or_not(self):
        """If points, a value, a gradient or parameters are not finite, undo what the body changed.

        All but the generator's optimiser, which moves last, and its random numbers.
        """
        buffers = self.module.buffers() if isinstance(self.module, torch.nn.Module) else ()
        tensors = [*parameters_of(self.optimizer), *buffers]
        kept = [t.detach().clone() for t in tensors]
        rounds = self.rounds.state_dict()
        # within a round the loss stands still
        loss = copy.deepcopy(self.loss.state_dict()) if self.rounds.due else None
        try:
            yield
        except NotFiniteError:
            with torch.no_grad():
                for tensor, good in zip(tensors, kept, strict=True):
                    tensor.copy_(good)
            if loss is not None:
                self.loss.load_state_dict(loss)
            self.rounds.load_state_dict(rounds)
            raise

    def step(self):
        """Follow with the potential if a round begins, then move the generator.

        Raises NotFiniteError, all being as after the step before, if the generator's points, their
        value, its gradient or what the optimiser made of it are not finite.
        """
        with self.whole_or_not():
            objective, values = self.rounds.objective(), []
            if self.schedule is not None:
                set_rate(self.optimizer, self.schedule(self.n_steps))
            self.optimizer.step(lambda: self.differentiate(objective, values))
            torch.clear_autocast_cache()  # or a caller's autocast would go on with the old weights
            _check_finite("parameters", parameters_of(self.optimizer))
        self.columns["loss"].append(float(values[0]))
        self.columns["seconds"].append(time.perf_counter() - self.start)

    @torch.enable_grad()
    def differentiate(self, objective, values):
        """Value of a batch, noted in `values`, and its gradient: the closure of an optimiser."""
        torch.clear_autocast_cache()
        value = objective()
        if not value.requires_grad:
            raise TypeError(
                "generator: expected points that torch can differentiate in the parameters, received "
                "points cut from the graph; use neither detach nor numpy inside it."
            )
        self.optimizer.zero_grad()
        value.backward()
        _check_finite("loss", [value])
        self.begun = True
        gradients = [p.grad for p in parameters_of(self.optimizer) if p.grad is not None]
        _check_finite("gradient", gradients)
        values.append(value.detach())
        return value

    def look(self):
        """Measure the marginal error on fresh points."""
        loss, target = self.loss, self.loss.target
        potential = target.gather(loss.potential)
        with self.whole_or_not(), torch.no_grad():
            batches = [loss.local(self.points()) for _ in range(LOOK_BATCHES)]
        measured = SemiDual(target).measure(torch.cat(batches), potential, loss.reg)
        chi2, _ = chi_square(measured, target.weights, target.nx)
        self.columns["chi2_step"].append(self.n_steps)
        self.columns["chi2"].append(chi2)
        n_looks = self.columns["chi2"].n
        # a diagnosis takes longer than a look: at the 1st, 2nd, 4th, 8th, ...
        if loss.reg == 0 and not self.warned and n_looks & (n_looks - 1) == 0:
            self.warned = warn_of_boundaries(_diagnosis(target, torch.cat(batches), potential))

    def progress(self):
        if not self.n_steps:
            return {}
        history = self.history()
        facts = {"loss": history["loss"][-1]}
        if len(history["chi2"]):
            facts["chi2"] = history["chi2"][-1]
        facts["images/s"] = self.n_steps * self.batch_size / max(history["seconds"][-1], 1e-9)
        return facts

    def history(self):
        return {name: column.view() for name, column in self.columns.items()}

    def result(self):
        return TrainingResult(self.generator, self.loss, self.history(), self.status)

    def state_dict(self):
        """All that the rest of the run depends on, but for what a :class:`Checkpoint` adds."""
        module, parameters = self.module, parameters_of(self.optimizer)
        own, buffers = state_of(module) or {}, {}
        if isinstance(module, torch.nn.Module):
            buffers = {name: b for name, b in module.named_buffers() if name not in own}
            inside = {id(p) for p in module.parameters()}
            parameters = [p for p in parameters if id(p) not in inside]
        return {
            "n_steps": self.n_steps,
            "generator": own,
            "buffers": buffers,  # those that state_dict leaves out
            "parameters": [p.detach() for p in parameters],  # those that are not the generator's
            "loss": self.loss.state_dict(),
            "reg": self.loss.reg,
            "warned": self.warned,
            "round": self.rounds.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": {name: torch.as_tensor(values) for name, values in self.history().items()},
        }

    @torch.no_grad()
    def load_state_dict(self, state):
        """Go on where another trainer was."""
        here = self.state_dict()
        restore(self.module, state["generator"])
        for name, buffer in here["buffers"].items():
            buffer.copy_(state["buffers"][name])
        for parameter, value in zip(here["parameters"], state["parameters"], strict=True):
            parameter.copy_(value)
        self.loss.load_state_dict(state["loss"])
        self.loss.reg, self.warned = state["reg"], state["warned"]
        self.rounds.load_state_dict(state["round"])
        load_optimizer(self.optimizer, state["optimizer"])
        for name, column in self.columns.items():
            column.replace(state["history"][name].numpy())
        self.begun = True
        self.start = time.perf_counter() - float(state["history"]["seconds"][-1])


def train_generator(
    generator,
    latent_sampler,
    target,
    *,
    n_steps,
    reg=None,
    dual_steps=None,
    batch_size=200,
    reuse=None,
    optimizer=None,
    features=None,
    callback=None,
    random_state=None,
    verbose=False,
    checkpoint=None,
    checkpoint_every=100,
):
    r"""Train a generator to minimise its regularised transport cost to a data set.

    In rounds: the potential moves by stochastic ascent on `dual_steps` fresh batches of the generator;
    then the generator takes `reuse` steps with the potential frozen. They go through the same batches,
    down the bound

    .. math:: \psi^{c,\lambda}(x') \le \psi^{c,\lambda}(x) - |x - T(x)|^2 + |x' - T(x)|^2,

    which touches the loss where the round began; its gradient is there that of formula (G). As the mean
    of the points moves in a round, so does a potential that is a vector, in closed form
    (:meth:`SemiDiscreteLoss.translate`; with ``reuse=1`` too, for the squared distance).

    Parameters
    ----------
    generator : torch.nn.Module or callable
        ``z -> x``, points of any shape with d entries. Its train or eval mode is never changed, and
        potential and generator see batches of the same size: with batch normalisation both define
        the law, and points drawn for the potential update the running statistics too.
    latent_sampler : callable or int
        ``n -> z``; or the dimension of a standard normal law, drawn by `random_state`.
    target : tensor of shape (n_atoms, ...) or SemiDiscreteLoss
        Data; or a loss, whose potential is continued if it has one.
    n_steps : int
        Number of steps of the generator.
    reg : float, optional
        Regularisation, in units of the metric; 0.3% of the cost scale by default. Only with data.
    dual_steps : int, optional
        Batches for the potential in each round. By default 5; on a GPU, if that is more, as many as have
        an eighth as many points as there are atoms, but at most 8,192. Only with data.
    batch_size : int, default=200
        Points in a batch.
    reuse : int, optional
        Steps of the generator in each round; 16 by default. With 1, and by default for another metric
        than the squared distance or a potential that is a network, they are steps along (G), each on a
        fresh batch.
    optimizer : torch.optim.Optimizer, or callable of parameters, optional
        By default ``Adam(lr=3e-3, betas=(0.9, 0.99))``, whose rate falls to 0 in the last third.
    features : torch.nn.Module or callable, optional
        What images are compared by, instead of their pixels: see :class:`ImageFeatures`. Only with data.
    callback : callable, optional
        Called with the :class:`TrainingResult` so far after each step; stops by returning True. A
        checkpoint keeps its state, if it has ``state_dict`` and ``load_state_dict``.
    random_state : None, int or torch.Generator
        Randomness of the latent law, if `latent_sampler` is a dimension.
    verbose : bool, default=False
        Show a progress bar (tqdm's if it is installed).
    checkpoint : str or path-like, optional
        File that keeps the run. If it exists, its run is continued up to `n_steps` in all: the other
        arguments must be those of that run, but `n_steps` may be larger.
    checkpoint_every : int, default=100
        Steps from one writing to the next; the last step is written too.

    Returns
    -------
    TrainingResult
        Generator, loss, history, and why the run ended.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape, dtype or range, or `checkpoint` is the file of another
        problem. An exception of a callable passes through with what was reached as its attribute
        ``partial_result``.

    Warns
    -----
    SemiDiscreteWarning
        If the loss ceased to be finite; if a checkpoint cannot keep the state of `latent_sampler`; once,
        if at ``reg = 0`` so much mass lies on the boundaries of the cells, or near them, that the
        gradient need not exist: see :func:`pot_semidiscrete.gradient_diagnostics`.

    Notes
    -----
    A checkpoint replaces the one before as a whole: a kill at any moment leaves a file that
    ``torch.load(path, weights_only=True)`` reads. With the same `n_steps`, on the same CPU, the
    continued run is bit for bit the one that was never interrupted: generator, optimiser, potential,
    history (its seconds aside), and random numbers, which are those of `random_state`, of a
    `latent_sampler` with ``state_dict`` and ``load_state_dict``, and of torch's global generators if
    the run uses them. With more `n_steps` the default learning rate is from there on that of the longer
    run, which is still high where the shorter one was at its end.

    If the loss ceases to be finite, generator (with its running statistics) and potential are put back
    to the last good step; the warning names it, and that of the checkpoint.

    Optimisers are given a closure, which those that evaluate several times, as ``torch.optim.LBFGS``
    does, call for one batch. A generator may be compiled by ``torch.compile``.

    References
    ----------
    Houdard, Leclaire, Papadakis, Rabin, arXiv:2102.05542 (the alternating algorithm).

    Examples
    --------
    >>> import torch
    >>> from pot_semidiscrete.generative import train_generator
    >>> generator = torch.nn.Linear(2, 2)
    >>> data = torch.randn(200, 2) + 3
    >>> result = train_generator(generator, 2, data, n_steps=20, random_state=0)
    >>> result.status, len(result.history["loss"])
    ('finished', 20)
    """
    n_steps, batch_size = check_count("n_steps", n_steps), check_count("batch_size", batch_size)
    every = check_count("checkpoint_every", checkpoint_every)
    check_callable("generator", generator, "z -> points")
    if callback is not None:
        check_callable("callback", callback, "of the result so far")
    if isinstance(target, SemiDiscreteLoss):
        if not (reg is dual_steps is features is None):
            raise ValueError(
                "reg, dual_steps, features: expected None with a SemiDiscreteLoss, which has its own; "
                "give them to the loss."
            )
        loss = target
    else:
        loss = _loss(target, reg, dual_steps, features, batch_size)
    latent = _latent(latent_sampler, loss, random_state)
    schedule = None if optimizer is not None else lambda k: LEARNING_RATE * fall(k / n_steps)
    optimizer = resolve_optimizer("optimizer", optimizer, generator, "generator", adam)
    reuse = resolve_reuse(reuse, loss)
    trainer = Trainer(generator, latent, loss, optimizer, schedule, batch_size, reuse)
    if checkpoint is not None:
        problem = trainer.problem() | _latent_problem(latent_sampler, random_state)
        checkpoint = Checkpoint(check_path(checkpoint), every, problem, latent, callback)
        trainer.latent_sampler = checkpoint.watched(latent)
        checkpoint.load(trainer)
        if trainer.n_steps > n_steps:
            raise ValueError(
                f"n_steps: expected at least {trainer.n_steps}, the steps in the checkpoint "
                f"{checkpoint.path!r}, received {n_steps}; give more, or another path."
            )
    bar = Progress(verbose, n_steps, "train_generator", trainer.n_steps)
    with guarded(trainer, bar):
        try:
            _run(trainer, n_steps, callback, bar, checkpoint)
        except NotFiniteError as error:
            if not trainer.begun:  # the input is at fault, not the training
                raise
            trainer.status = "diverged"
            n = trainer.n_steps
            kept = f"generator and potential are those of step {n}"
            if checkpoint is not None and checkpoint.n_steps is not None:
                kept += f", the checkpoint {checkpoint.path!r} is that of step {checkpoint.n_steps}"
            warnings.warn(
                f"train_generator stopped after {n} steps: {error} What is kept: {kept}. A lower "
                "learning rate may help.",
                SemiDiscreteWarning,
                stacklevel=2,
            )
    return trainer.result()


def _run(trainer, n_steps, callback, bar, checkpoint):
    """Iterate until the callback or `n_steps` says stop."""
    look_every = max(1, n_steps // N_LOOKS)
    if trainer.loss.n_steps == 0:
        with torch.no_grad():
            trainer.loss.warm_up(trainer.points)
    for k in range(trainer.n_steps + 1, n_steps + 1):
        trainer.step()
        if k % look_every == 0 or k == n_steps:
            trainer.look()
        bar.update(trainer.progress)
        stop = callback is not None and bool(callback(trainer.result()))
        # after the callback: what it changes, a learning rate say, is part of the step
        if checkpoint is not None and (k % checkpoint.every == 0 or k == n_steps or stop):
            checkpoint.save(trainer)
        if stop:
            trainer.status = "stopped"
            return


def _diagnosis(target, x, potential):
    """Diagnosis of points at ``reg = 0``, at a potential that does not lag behind them.

    If atoms see enough points, half of these improve the potential that the other half is told by.
    """
    half = x[::2]
    if len(half) * float(target.weights.min()) > POINTS_PER_ATOM:
        x, potential = x[1::2], maximize(SemiDual(target), half, potential, 0.0).potential
    return diagnose(target, x, potential, 0.0)


def warn_of_boundaries(found):
    """Warn if mass on cell boundaries, or near them, endangers the gradient; tell whether it does."""
    if found.boundary_reasons:
        warnings.warn(
            f"train_generator, reg = 0: the gradient is {found.verdict}, for "
            f"{'; '.join(found.boundary_reasons)}. A reg of 1% of cost_scale(data) makes it exist.",
            SemiDiscreteWarning,
            stacklevel=5,
        )
    return bool(found.boundary_reasons)


def _check_finite(name, tensors):
    # finite sums have finite terms, and are looked at all at once; one that is not finite may be large
    sums = [t.sum().to(tensors[0].device) for t in tensors]
    if tensors and not (torch.stack(sums).isfinite().all() or all(t.isfinite().all() for t in tensors)):
        raise NotFiniteError(f"{name}: expected finite numbers, received NaN or inf.")


def _latent_problem(latent_sampler, random_state):
    """What a checkpoint must agree on about a latent law of ours."""
    if callable(latent_sampler):
        return {"latent_sampler": "callable", "random_state": None}
    seed = random_state if isinstance(random_state, (int, np.integer)) else None
    return {
        "latent_sampler": f"dimension {latent_sampler}",
        "random_state": None if seed is None else int(seed),
    }


def _latent(latent_sampler, loss, random_state):
    """The latent law: the user's, or standard normal of a dimension."""
    random = resolve_random(random_state, loss.target.nx, loss.potential)
    if callable(latent_sampler):
        return latent_sampler
    return NormalSampler(check_count("latent_sampler", latent_sampler), random)


def _loss(target, reg, dual_steps, features, batch_size):
    """A loss on data, by default of a sharper `reg` than its own."""
    given = {} if dual_steps is None else {"dual_steps": dual_steps}
    loss = SemiDiscreteLoss(target, reg=reg, features=features, **given)
    if reg is None:
        loss.reg *= SHARPER
    if dual_steps is None and not on_host(loss.potential):
        # a round is bound there by the number of its operations
        points = min(DEVICE_SHARE * loss.target.n_atoms, DEVICE_POINTS)
        loss.dual_steps = max(loss.dual_steps, int(points) // batch_size)
    return loss


def adam(parameters):
    """The default optimiser of a list of parameters: in one pass over them, where torch has it."""
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters)
    return torch.optim.Adam(parameters, lr=LEARNING_RATE, betas=BETAS, fused=fused)
