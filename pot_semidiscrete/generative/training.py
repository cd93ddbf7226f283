"""Training of torch generators: in rounds, or by the paper's alternation."""

import os
import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch

from ..backend import capabilities, describe, joint, ours
from ..problem import NotFiniteError, check_bool, check_callable, check_count, check_reg_m_type
from ..runs import Progress, SemiDiscreteWarning, check_output, guarded
from ..samplers.adapters import adapted, has_independent_coordinates, named_law
from ..samplers.base import registered_laws
from ..samplers.laws import NormalSampler
from ..samplers.resolve import rank_seed, resolve_random
from .checkpoint import Checkpoint
from .choices import parts_of_data, parts_of_loss
from .critic import GradientPenaltyCritic
from .descents import PairCost
from .features import Features
from .loss import SemiDiscreteLoss
from .optimizers import MakeOptimizer, adam, calm_adam, fall, resolve_optimizer, rise_and_fall
from .result import TrainingResult
from .trainer import Callback, Trainer


def train_generator(
    generator: Callable[..., torch.Tensor],
    latent_sampler: int | Callable[[int], Any],
    target: torch.Tensor | SemiDiscreteLoss,
    *,
    n_steps: int,
    reg: float | None = None,
    reg_m: float | None = None,
    reg_m_type: str = "kl",
    dual_steps: int | None = None,
    batch_size: int | None = None,
    reuse: int | None = None,
    optimizer: torch.optim.Optimizer | MakeOptimizer | None = None,
    n_atoms: int | Literal[False] | None = None,
    features: Features | Literal[False] | None = None,
    pair_cost: str | PairCost | Literal[False] | None = None,
    critic: str | torch.nn.Module | GradientPenaltyCritic | Literal[False] | None = None,
    callback: Callback | None = None,
    random_state: object = None,
    verbose: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 100,
    process_group: Any = None,
) -> TrainingResult:
    r"""Train a generator to minimise its regularised transport cost to a data set.

    For points, training follows the paper's gradient. For images the defaults are those that gave the
    best images after the same time, and steps no longer follow that gradient: see `pair_cost` and
    `critic`, and :doc:`/training` for what each option does.

    Training goes in rounds. The potential moves by stochastic ascent on `dual_steps` fresh batches of
    the generator; then the generator takes `reuse` steps on the same batches with the potential frozen.
    They minimise the bound

    .. math:: \psi^{c,\lambda}(x') \le \psi^{c,\lambda}(x) - |x - T(x)|^2 + |x' - T(x)|^2,

    which touches the loss where the round began, with the gradient of formula (G). For the squared
    distance the next round first corrects a vector potential for the movement of the mean of the points
    (:meth:`SemiDiscreteLoss.translate`; not with `reg_m`).

    Parameters
    ----------
    generator : torch.nn.Module or callable
        ``z -> x``, points of the shape of the data, or of any shape if data are rows. Its train or eval
        mode is never changed, and potential and generator see batches of the same size: with batch
        normalisation both define the law. A critic sees batches of its own size. Points drawn for
        either update the running statistics, too.
    latent_sampler : callable, int, law or loader
        ``n -> z``; the dimension of a standard normal law, a name and a dimension, ``("unif", 16)``, or
        a law of SciPy or torch, drawn by `random_state`; or a ``DataLoader`` of latent points.
    target : tensor of shape (n_atoms, ...), Dataset, StoredAtoms, ShardedAtoms or SemiDiscreteLoss
        Data; or a loss, whose potential is continued. Data count as images if they are a floating tensor
        of three or four axes, of which the last two have at least 8 entries.
    n_steps : int
        Number of steps of the generator.
    reg : float, optional
        Regularisation, in units of the metric; 0.3% of the cost scale by default. Only with data.
    reg_m : float, optional
        Price of masses other than the weights, as in :func:`pot_semidiscrete.solve_semidiscrete`:
        outliers that are much farther than that are not learnt. Only with data.
    reg_m_type : "kl"
        The divergence of the masses.
    dual_steps : int, optional
        Batches for the potential in each round: by default 5, for images 10, or 20 with an energy score
        and no critic. For other data on a GPU there are more if an eighth of the atoms, at most 8,192,
        is more points than 5 batches. Only with data.
    batch_size : int, optional
        Points in a batch: 200 by default, for images 100.
    reuse : int, optional
        Steps of the generator in each round: 16 by default, for images 20. With 1, each step is along
        (G) on a fresh batch, unless there is a `pair_cost`. 1 is the default for another metric than the
        squared distance and for a potential that is a network.
    optimizer : torch.optim.Optimizer, or callable of parameters, optional
        By default ``Adam(lr=3e-3, betas=(0.9, 0.99))``, whose rate falls to 0 in the last third; with a
        `pair_cost` or a critic ``Adam(lr=2e-3, betas=(0.5, 0.99))``, which also rises in the first
        twentieth.
    n_atoms : int or False, optional
        Number of data taken as atoms, always the same sample; a critic sees all data. By default 4,000
        for images, all for other data. Only with data.
    features : torch.nn.Module, callable or False, optional
        Map to features by which points are compared. By default 64 components of :class:`ImageFeatures`
        for images, none otherwise. Only with data.
    pair_cost : str, callable or False, optional
        Cost c' of pairs, ``(x, y) -> (n,)``, ``"cityblock"``, ``"sqeuclidean"`` or ``"energy"``. The
        potential then only decides which atom y each point x of a round is paired with, drawn from the
        plan. Steps minimise the mean of :math:`c'(x, y)`, an upper bound of the transport cost of c' to
        the masses of the plan. No gradient goes through `features`. ``"energy"`` is ``"cityblock"``
        until the learning rate falls, and then an energy score with a second latent point, for latent
        laws of independent coordinates. By default none, but for images: ``"energy"`` if there is no
        critic and `latent_sampler` is known to be such a law, which is a dimension, or ``"normal"`` or
        ``"unif"`` with one; else ``"cityblock"``, whose minimum is a median and not a grey average. Only
        with data.
    critic : str, torch.nn.Module, GradientPenaltyCritic or False, optional
        Critic whose gradient is added: ``"wgan-gp"``, a network of your own, or a
        :class:`GradientPenaltyCritic`. By default ``"wgan-gp"`` for images, none otherwise.
    callback : callable, optional
        Called with the :class:`TrainingResult` so far after each step; stops by returning True. A
        checkpoint keeps its state, if it has ``state_dict`` and ``load_state_dict``.
    random_state : None, int or torch.Generator
        Randomness of the latent law, if `latent_sampler` is a dimension, of pairs and of the critic.
    verbose : bool, default=False
        Show a progress bar (tqdm's if it is installed).
    checkpoint : str or path-like, optional
        File that keeps the run. If it exists, its run is continued up to `n_steps` in all: the other
        arguments must be those of that run, but `n_steps` may be larger.
    checkpoint_every : int, default=100
        Steps between two writings; the last step is written, too.
    process_group : torch.distributed.ProcessGroup, optional
        Processes that all make this call, with the same arguments (see :doc:`/distributed`). Each draws
        an equal part of a batch; the gradient is that of the whole batch. The first rank writes the
        checkpoint, from which any number of ranks continues the run. Only with data; a loss has its own
        group.

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
    RuntimeError
        In torch's inference mode.

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

    If the loss ceases to be finite, generator (with its running statistics) and potential are reset to
    the last good step; the warning names it, and that of the checkpoint.

    The optimiser gets a closure, so ``torch.optim.LBFGS`` works; all its evaluations in a step are of
    one batch. A generator may be compiled by ``torch.compile``.

    References
    ----------
    Houdard, Leclaire, Papadakis, Rabin, arXiv:2102.05542 (the alternating algorithm). Gulrajani et al.,
    arXiv:1704.00028 (the critic).

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
    n_steps, every = check_count("n_steps", n_steps), check_count("checkpoint_every", checkpoint_every)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    verbose = check_bool("verbose", verbose)
    check_reg_m_type(reg_m_type)
    check_callable("generator", generator, "z -> points")
    if callback is not None:
        check_callable("callback", callback, "of the result so far")
    options: dict[str, Any] = {
        "reg": reg,
        "reg_m": reg_m,
        "dual_steps": dual_steps,
        "batch_size": batch_size,
        "reuse": reuse,
        "n_atoms": n_atoms,
        "features": features,
        "pair_cost": pair_cost,
        "critic": critic,
        "process_group": process_group,
    }
    with ours():  # no decorator, whose frame warnings would point to
        if isinstance(target, SemiDiscreteLoss):
            parts = parts_of_loss(target, **options)
        else:
            options["has_independent_coordinates"] = has_independent_coordinates(latent_sampler)
            parts = parts_of_data(target, random_state, **options)
        loss = parts.loss
        with joint(loss.ranks):
            capabilities(loss.target.nx).require_autograd("train_generator")
            latent = _latent(latent_sampler, loss, rank_seed(loss._shared_target, random_state))
            is_plain = parts.descent is None and parts.critic is None
            default, rate = (adam, fall) if is_plain else (calm_adam, rise_and_fall)
            schedule = None if optimizer is not None else lambda k: rate(k / n_steps)
            optimizer = resolve_optimizer("optimizer", optimizer, generator, "generator", default)
            trainer = Trainer(generator, latent, parts, optimizer, schedule)
            if loss.ranks is not None:
                loss.ranks.check_same(
                    **{"batch_size": parts.batch_size, "reuse": parts.reuse, "reg": loss.reg},
                    **{"pair_cost": repr(trainer.rounds.descent), "dual_steps": loss.dual_steps},
                    **{"n_steps": n_steps, "checkpoint": checkpoint is not None},
                    checkpoint_every=every,
                )
            file = None
            if checkpoint is not None:
                problem = trainer.problem() | _latent_problem(latent_sampler, random_state)
                path = check_output("checkpoint", checkpoint)
                others = {"latent_sampler": latent, "callback": callback}
                file = Checkpoint(path, every, problem, others, loss.ranks)
                _continue(trainer, file, n_steps)
            bar = Progress(verbose, n_steps, "train_generator", trainer.n_steps)
            with guarded(trainer, bar):
                try:
                    with joint(loss.ranks):
                        trainer.run(n_steps, callback, bar, file)
                except NotFiniteError as error:
                    if not trainer.begun:  # the input is at fault, not the training
                        raise
                    trainer.status = "diverged"
                    _warn_of_divergence(error, trainer.n_steps, file)
    return trainer.result()


def _continue(trainer: Trainer, file: Checkpoint, n_steps: int) -> None:
    """Go on with the run of a checkpoint, if there is one, which may have no more than `n_steps`."""
    trainer.latent_sampler = file.watched(trainer.latent_sampler)
    file.load(trainer)
    if trainer.n_steps > n_steps:
        raise ValueError(
            f"n_steps: expected at least {trainer.n_steps}, the steps in the checkpoint {file.path!r}, "
            f"received {n_steps}; give more, or another path."
        )


def _warn_of_divergence(error: NotFiniteError, n_steps: int, file: Checkpoint | None) -> None:
    """Say where a run ended, and what is kept of it."""
    kept = f"generator and potential are those of step {n_steps}"
    if file is not None and file.n_steps is not None:
        kept += f", the checkpoint {file.path!r} is that of step {file.n_steps}"
    warnings.warn(
        f"train_generator stopped after {n_steps} steps: {error} What is kept: {kept}. A lower "
        "learning rate may help.",
        SemiDiscreteWarning,
        stacklevel=3,
    )


def _latent_problem(latent_sampler: Any, random_state: object) -> dict[str, Any]:
    """What a checkpoint must agree on about a latent law of ours."""
    if callable(latent_sampler):
        return {"latent_sampler": "callable", "random_state": None}
    if named_law(latent_sampler) is not None:
        name, dimension = latent_sampler
        law = f"{name!r} and dimension {dimension}"
    elif isinstance(latent_sampler, (int, np.integer)):
        law = f"dimension {latent_sampler}"
    else:
        law = f"dimension {type(latent_sampler).__name__}"
    seed = int(random_state) if isinstance(random_state, (int, np.integer)) else None
    return {"latent_sampler": law, "random_state": seed}


def _latent(
    latent_sampler: int | Callable[[int], Any], loss: SemiDiscreteLoss, random_state: object
) -> Callable[[int], Any]:
    """The latent law: the user's, or standard normal of a dimension."""
    random = resolve_random(random_state, loss.target.nx, loss.potential)
    found = adapted(latent_sampler, loss.potential, random)
    if found is not None:
        return found
    if isinstance(latent_sampler, (int, np.integer)):
        return NormalSampler(check_count("latent_sampler", latent_sampler), random)
    if callable(latent_sampler) and not isinstance(latent_sampler, type):
        return latent_sampler
    raise TypeError(
        "latent_sampler: expected a callable n -> z, a whole number, which is the dimension of a normal "
        f"law, a pair of a name ({', '.join(registered_laws())}) and a dimension, a law of SciPy or "
        f"torch, or a loader, received {describe(latent_sampler)}; of an array of points give "
        "lambda n: points[torch.randint(len(points), (n,))]."
    )
