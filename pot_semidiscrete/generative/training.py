"""The training loop: the paper's alternating algorithm, for torch generators."""

import time
import warnings
from dataclasses import dataclass, field

import numpy as np
import torch

from .._run import Progress, SemiDiscreteWarning, guarded
from .._validation import NotFiniteError, check_callable, check_count, check_points, describe
from ..certificates import chi_square
from ..kernels import sweep
from ..samplers import resolve_random
from .loss import SemiDiscreteLoss

N_LOOKS = 50  # estimates of chi2 in a run
LOOK_BATCHES = 5
LEARNING_RATE, BETAS = 3e-3, (0.9, 0.99)
SHARPER = 0.3  # of the loss's default reg: rounds can follow at less than its own steps
REUSE = 16  # steps of the generator for one sweep of its points


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
        was not finite; the last good state is kept) or ``"failed"``.
    """

    generator: torch.nn.Module
    loss: SemiDiscreteLoss
    history: dict = field(default_factory=dict)
    status: str = "finished"

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


class Trainer:
    """One run: generator, loss, optimiser, history."""

    def __init__(self, generator, latent_sampler, loss, optimizer, batch_size, reuse):
        self.reuse, self.position = reuse, 0
        optimizer, self.schedule = optimizer
        self.generator, self.latent_sampler, self.loss = generator, latent_sampler, loss
        self.optimizer, self.batch_size = optimizer, batch_size
        self.status, self.start, self.begun = "finished", time.perf_counter(), False
        self.losses, self.seconds, self.looks = [], [], []

    def points(self):
        """Fresh points, in the generator's present mode."""
        return self.generator(self.latent_sampler(self.batch_size))

    @property
    def parameters(self):
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def value(self):
        """Loss of a batch of points, to be differentiated; the potential has moved if that was due."""
        if self.reuse == 1:
            with torch.no_grad():
                for _ in range(self.loss.dual_steps):
                    self.loss.dual_step(self.points())
            return self.loss(self.points())
        if self.position % self.reuse == 0:
            self.begin_round()
        k = self.position % len(self.latents)
        self.position += 1
        x = self.loss.rows(self.generator(self.latents[k]))
        return self.bounds[k](self.loss.target.local(x))

    @torch.no_grad()
    def begin_round(self):
        """Follow with the potential, by points whose bounds the generator will then descend."""
        self.latents = [self.latent_sampler(self.batch_size) for _ in range(self.loss.dual_steps)]
        batches = [self.loss.rows(self.generator(z)) for z in self.latents]
        self.loss.follow(torch.cat(batches))
        self.bounds = self.loss.majorants(batches)

    def step(self):
        """Follow with the potential, then move the generator.

        Raises NotFiniteError, the generator being that of the step before, if its points, their
        value, its gradient or what the optimiser made of it are not finite.
        """
        value = self.value()
        if not value.requires_grad:
            raise TypeError(
                "generator: expected points that torch can differentiate in the parameters, received "
                "points cut from the graph; use neither detach nor numpy inside it."
            )
        self.optimizer.zero_grad()
        value.backward()
        _check_finite("loss", [value])
        self.begun = True
        _check_finite("gradient", [p.grad for p in self.parameters if p.grad is not None])
        before = [p.detach().clone() for p in self.parameters]
        self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        torch.clear_autocast_cache()  # or a caller's autocast would go on with the old weights
        try:
            _check_finite("parameters", self.parameters)
        except NotFiniteError:
            with torch.no_grad():
                for p, good in zip(self.parameters, before, strict=True):
                    p.copy_(good)
            raise
        self.losses.append(float(value.detach()))
        self.seconds.append(time.perf_counter() - self.start)

    def look(self):
        """Measure the marginal error on fresh points."""
        loss, target, n = self.loss, self.loss.target, self.batch_size
        potential, sums = target.compress(loss.average), []
        with torch.no_grad():
            for _ in range(LOOK_BATCHES):
                x = target.local(check_points("points", loss.rows(self.points()), like=target.atoms)[0])
                sums.append(sweep(target, x, potential, loss.reg, ("colsum",)).colsum)
        sums = torch.stack(sums).double().cpu().numpy()
        weights = target.weights.double().cpu().numpy()
        chi2, _ = chi_square(np.full(LOOK_BATCHES, float(n)), sums, weights)
        self.looks.append((len(self.losses), chi2))

    def progress(self):
        if not self.losses:
            return {}
        facts = {"loss": self.losses[-1]}
        if self.looks:
            facts["chi2"] = self.looks[-1][1]
        facts["images/s"] = len(self.losses) * self.batch_size / max(self.seconds[-1], 1e-9)
        return facts

    def result(self):
        looks = np.array(self.looks, dtype=float).reshape(-1, 2)
        history = {
            "loss": np.array(self.losses),
            "seconds": np.array(self.seconds),
            "chi2_step": looks[:, 0].astype(int),
            "chi2": looks[:, 1],
        }
        return TrainingResult(self.generator, self.loss, history, self.status)


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
    callback=None,
    random_state=None,
    verbose=False,
):
    r"""Train a generator to minimise its regularised transport cost to a data set.

    In rounds: the potential moves by stochastic ascent on `dual_steps` fresh batches of the generator;
    then the generator takes `reuse` steps with the potential frozen. They go through the same batches,
    down the bound

    .. math:: \psi^{c,\lambda}(x') \le \psi^{c,\lambda}(x) - |x - T(x)|^2 + |x' - T(x)|^2,

    which touches the loss where the round began; its gradient is there that of formula (G).

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
        Batches for the potential in each round; 5 by default. Only with data.
    batch_size : int, default=200
        Points in a batch.
    reuse : int, optional
        Steps of the generator in each round; 16 by default. With 1, and by default for another metric
        than the squared distance, they are steps along (G), each on a fresh batch.
    optimizer : torch.optim.Optimizer, or callable of parameters, optional
        By default ``Adam(lr=3e-3, betas=(0.9, 0.99))``, whose rate falls to 0 in the second half.
    callback : callable, optional
        Called with the :class:`TrainingResult` so far after each step; stops by returning True.
    random_state : None, int or torch.Generator
        Randomness of the latent law, if `latent_sampler` is a dimension.
    verbose : bool, default=False
        Show a progress bar (tqdm's if it is installed).

    Returns
    -------
    TrainingResult
        Generator, loss, history, and why the run ended.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape, dtype or range. An exception of a callable passes
        through with what was reached as its attribute ``partial_result``.

    Warns
    -----
    SemiDiscreteWarning
        If the loss ceased to be finite.

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
    check_callable("generator", generator, "z -> points")
    if callback is not None:
        check_callable("callback", callback, "of the result so far")
    if isinstance(target, SemiDiscreteLoss):
        if reg is not None or dual_steps is not None:
            raise ValueError(
                "reg, dual_steps: expected None with a SemiDiscreteLoss, which has its own; give them "
                "to the loss."
            )
        loss = target
    else:
        loss = _loss(target, reg, 5 if dual_steps is None else dual_steps)
    trainer = Trainer(
        generator,
        _latent(latent_sampler, loss, random_state),
        loss,
        _optimizer(optimizer, generator, n_steps),
        batch_size,
        _reuse(reuse, loss),
    )
    bar = Progress(verbose, n_steps, "train_generator")
    with guarded(trainer, bar):
        try:
            _run(trainer, n_steps, callback, bar)
        except NotFiniteError as error:
            if not trainer.begun:  # the input is at fault, not the training
                raise
            trainer.status = "diverged"
            warnings.warn(
                f"train_generator stopped after {len(trainer.losses)} steps, with the generator of the "
                f"last one: {error} A lower learning rate may help.",
                SemiDiscreteWarning,
                stacklevel=2,
            )
    return trainer.result()


def _run(trainer, n_steps, callback, bar):
    """Iterate until the callback or `n_steps` says stop."""
    look_every = max(1, n_steps // N_LOOKS)
    if trainer.loss.n_steps == 0:
        with torch.no_grad():
            trainer.loss.warm_up(trainer.points)
    for k in range(1, n_steps + 1):
        trainer.step()
        if k % look_every == 0 or k == n_steps:
            trainer.look()
        bar.update(trainer.progress)
        if callback is not None and callback(trainer.result()):
            trainer.status = "stopped"
            return


def _check_finite(name, tensors):
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise NotFiniteError(f"{name}: expected finite numbers, received NaN or inf.")


def _latent(latent_sampler, loss, random_state):
    """The latent law: the user's, or standard normal of a dimension."""
    random = resolve_random(random_state, loss.target.nx, loss.average)
    if callable(latent_sampler):
        return latent_sampler
    dimension = check_count("latent_sampler", latent_sampler)
    return lambda n: random.normal(n, dimension)


def fall(progress):
    """Learning rate after a share of a run, relative to the first: it falls to 0 in the second half."""
    return min(1.0, 2.0 * max(1.0 - progress, 0.0))


def _loss(target, reg, dual_steps):
    """A loss on data, by default of a sharper `reg` than its own."""
    if reg is None:
        reg = SHARPER * SemiDiscreteLoss(target).reg
    return SemiDiscreteLoss(target, reg=reg, dual_steps=dual_steps)


def _reuse(reuse, loss):
    """Steps of the generator in a round: more than one need the squared distance."""
    squared = loss.target.cost.name == "sqeuclidean"
    if reuse is None:
        return REUSE if squared else 1
    reuse = check_count("reuse", reuse)
    if reuse > 1 and not squared:
        raise ValueError(
            f"reuse: expected 1 with metric {loss.target.cost.name!r}, received {reuse}; the bound that "
            "several steps descend is known for 'sqeuclidean'."
        )
    return reuse


def _optimizer(optimizer, generator, n_steps):
    """An optimiser, and the schedule of its rate: the user's, or our own with ours."""
    if isinstance(optimizer, torch.optim.Optimizer):
        return optimizer, None
    if not isinstance(generator, torch.nn.Module):
        raise TypeError(
            "optimizer: expected a torch optimizer, for the generator is not a torch.nn.Module whose "
            "parameters could be asked for."
        )
    parameters = [p for p in generator.parameters() if p.requires_grad]
    if optimizer is None:
        adam = torch.optim.Adam(parameters, lr=LEARNING_RATE, betas=BETAS)
        return adam, torch.optim.lr_scheduler.LambdaLR(adam, lambda k: fall(k / n_steps))
    built = check_callable("optimizer", optimizer, "of parameters")(parameters)
    if not isinstance(built, torch.optim.Optimizer):
        raise TypeError(
            "optimizer: expected a torch optimizer, or a callable of parameters that makes one, "
            f"received one that made {describe(built)}."
        )
    return built, None
