"""A critic that is trained beside a generator, and what it adds to the generator's gradient."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from ot.backend import get_backend
from torch import nn

from ..backend import capabilities, describe, ours
from ..problem import check_count, check_real
from ..samplers.resolve import resolve_random
from .checkpoint import shapes
from .critic_networks import NETWORKS, network_of, suited
from .data import DataRows, in_shape
from .optimizers import (
    MakeOptimizer,
    adam,
    describe_optimizer,
    load_optimizer,
    note_rates,
    parameters_of,
    resolve_optimizer,
    set_relative_rate,
)
from .shared import average_gradients, mean_of_ranks


def gradient_penalty(
    score: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, y: torch.Tensor, share: torch.Tensor
) -> torch.Tensor:
    r"""Mean of :math:`(|\nabla D| - 1)^2` between two batches (Gulrajani et al., 2017, algorithm 1).

    D is `score`; `share`, shape (n, 1, ...), tells where between y and x its gradient is taken.
    """
    between = (y + share * (x - y)).detach().requires_grad_()
    (slope,) = torch.autograd.grad(score(between).sum(), between, create_graph=True)
    return (slope.flatten(1).norm(dim=1) - 1.0).square().mean()


class GradientPenaltyCritic:
    r"""A critic of generated points, for the `critic` of :func:`train_generator`.

    A network D that is trained to be larger at data than at generated points,

    .. math:: \min_D \; E D(x) - E D(y) + \rho \, E \bigl(|\nabla D(u)| - 1\bigr)^2,

    with generated points x, data y, and u between the two: the critic of WGAN-GP. It takes one step for
    each step of the generator. In every batch the gradient of :math:`-D(x)` is scaled to `share` times
    the norm of the generator's other gradient, and added to it. So the units of both and of the data do
    not matter.

    With a critic the generator no longer follows the gradient of a transport cost, formula (G). If it
    converges, then to a compromise between two objectives, one of which is a game.

    Parameters
    ----------
    data : tensor, Dataset or ShardedAtoms, shape (n, ...)
        All data, in the shape of generated points. There may be more than atoms.
    network : torch.nn.Module or str, optional
        D: ``(m, ...) -> (m,)`` or ``(m, 1)``, called without autocast. ``"convolutional"``, the default
        for images, (height, width) or (channels, height, width), of at least 16 by 16 pixels, has two
        convolutions, of 16 and 32 channels, and a layer of 256. ``"perceptron"``, the default for all
        else, as rows, shards and images whose channels come last, has two layers, of 512 and 256
        (:ref:`networks-of-critics`). Name it for sequences, whose shape may be that of images.
    optimizer : torch.optim.Optimizer, or callable of parameters, optional
        ``Adam(lr=2e-3, betas=(0.5, 0.9))`` by default. Its rate falls as that of the generator does.
    share : float, default=0.4
        Norm of the critic's gradient in the points, relative to the other gradient.
    penalty : float, default=10
        The factor :math:`\rho`.
    batch_size : int, default=64
        Points, and data, in a step of each process; at most those of its batch. So many points are made
        for the step: beside a generator with batch normalisation, give the size of its batches.
    penalty_size : int, default=16
        How many of these points, the first ones, the penalty is taken at. At all of them it takes as
        long as the rest of the step; the published critic has ``penalty_size=batch_size``.
    random_state : None, int or torch.Generator
        Randomness of the first weights, of the data drawn, and of u; another one in each process.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape or range.

    References
    ----------
    Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville, "Improved Training of Wasserstein GANs", NeurIPS
    2017 (the critic). Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020,
    section 4.1 (a penalty that is estimated less often than the rest). Esser, Rombach, Ommer, "Taming
    Transformers for High-Resolution Image Synthesis", CVPR 2021, equation 7 (the scale, by the ratio of
    two norms).

    Examples
    --------
    >>> import torch
    >>> from pot_semidiscrete.generative import GradientPenaltyCritic, train_generator
    >>> data = torch.randn(200, 2) + 3
    >>> critic = GradientPenaltyCritic(data, share=0.2, random_state=0)
    >>> train_generator(torch.nn.Linear(2, 2), 2, data, n_steps=20, critic=critic).status
    'finished'
    """

    @ours()
    def __init__(
        self,
        data: torch.Tensor,
        network: nn.Module | str | None = None,
        *,
        optimizer: torch.optim.Optimizer | MakeOptimizer | None = None,
        share: float = 0.4,
        penalty: float = 10.0,
        batch_size: int = 64,
        penalty_size: int = 16,
        random_state: object = None,
    ) -> None:
        self.rows = DataRows(data, None)
        if len(data) == 0:
            raise ValueError("data: expected at least one point, received none.")
        first = self.rows.item(0)
        if not first.is_floating_point() or first.ndim == 0:
            raise TypeError(
                f"data: expected points of floating numbers, received {describe(first)}; convert them."
            )
        self.shape = first.shape
        self.random = resolve_random(random_state, get_backend(first), first)
        network = suited(self.shape) if network is None else network
        self.kind = network if isinstance(network, str) else type(network).__name__
        if isinstance(network, str) and network in NETWORKS:
            seed = int(self.random.integers(2**31, 1)[0])
            network = network_of(network, self.shape, seed).to(first)
        if not isinstance(network, nn.Module):
            raise TypeError(
                "network: expected a torch.nn.Module of points, 'perceptron' or 'convolutional', "
                f"received {describe(network)}."
            )
        self.network = network
        default = partial(adam, lr=2e-3, betas=(0.5, 0.9))  # python -m benchmarks.training --grid
        self.optimizer = resolve_optimizer("optimizer", optimizer, network, "network", default)
        self.share, self.penalty = check_real("share", share), check_real("penalty", penalty)
        self.batch_size = check_count("batch_size", batch_size)
        self.penalty_size = check_count("penalty_size", penalty_size)
        note_rates(self.optimizer)
        self.like = parameters_of(self.optimizer)[0].detach()
        self.ranks: Any = None

    def __repr__(self) -> str:
        return (
            f"GradientPenaltyCritic(n={len(self.rows.data)}, shape={tuple(self.shape)}, "
            f"share={self.share:g}, penalty={self.penalty:g}, batch_size={self.batch_size}, "
            f"penalty_size={self.penalty_size}, network={self.kind})"
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"ranks": None}

    def _points(self, x: torch.Tensor) -> torch.Tensor:
        """Points in the shape of the data."""
        return in_shape(x, self.shape).to(self.like.dtype)

    @ours()
    def score(self, x: torch.Tensor) -> torch.Tensor:
        """D at points.

        Parameters
        ----------
        x : tensor, shape (n, ...)

        Returns
        -------
        tensor, shape (n,)
        """
        found = self.network(self._points(x))
        if not isinstance(found, torch.Tensor) or found.shape not in ((len(x),), (len(x), 1)):
            raise ValueError(
                f"network: expected a module that returns one number for each of {len(x)} points, "
                f"received {describe(found)}."
            )
        return found.reshape(-1)

    @ours()
    @torch.enable_grad()
    def step(self, x: torch.Tensor, rate: float = 1.0) -> None:
        """One step of the critic, at points of the generator.

        Parameters
        ----------
        x : tensor, shape (n, ...)
            Points of the generator, of which the first `batch_size` are used, without their graph.
        rate : float, default=1
            Learning rate, relative to that of the given optimiser.
        """
        capabilities(get_backend(self.like)).require_autograd("GradientPenaltyCritic.step")
        x, rate = self._points(x).detach()[: self.batch_size], check_real("rate", rate)
        if len(x) == 0:
            raise ValueError("x: expected at least one point of the generator, received none.")
        y = self.rows(self.random.integers(len(self.rows.data), len(x))).to(x)
        few = slice(self.penalty_size)
        share = self.random.uniform(len(x[few]), *[1] * (x.ndim - 1)).to(x)
        penalty = self.penalty * gradient_penalty(self.score, x[few], y[few], share)
        made, real = self.score(torch.cat([x, y])).tensor_split(2)
        self.optimizer.zero_grad()
        (made.mean() - real.mean() + penalty).backward()
        if self.ranks is not None:
            average_gradients(self.ranks, parameters_of(self.optimizer))
        set_relative_rate(self.optimizer, rate)
        self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Network, optimiser, and where the random numbers are."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.state_dict(),
        }

    @ours()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there.

        Parameters
        ----------
        state : dict
            Of :meth:`state_dict`.
        """
        if not isinstance(state, dict) or state.keys() != {"network", "optimizer", "random"}:
            raise TypeError(f"state: expected what state_dict() returned, received {describe(state)}.")
        self.network.load_state_dict(state["network"])
        load_optimizer(self.optimizer, state["optimizer"])
        if state["random"] is not None:  # that of another rank
            self.random.load_state_dict(state["random"])


def guided(
    critic: GradientPenaltyCritic, value_at: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor
) -> torch.Tensor:
    """The value of points `x`, whose derivative in them has the critic's beside its own."""
    points = x.detach().requires_grad_()
    value = value_at(points)
    (own,) = torch.autograd.grad(value, points)
    (push,) = torch.autograd.grad(-critic.score(points).mean(), points)
    squares = mean_of_ranks(critic.ranks, torch.stack([own.square().sum(), push.square().sum()]))
    ratio = (squares[0] / squares[1].clamp(min=torch.finfo(squares.dtype).tiny)).sqrt()
    direction = own + critic.share * ratio * push
    return value.detach() + ((x - points.detach()) * direction).sum()


def facts_of(critic: GradientPenaltyCritic | None) -> dict[str, str]:
    """What a checkpoint must agree on, in words."""
    if critic is None:
        return {"kind": "None"}
    facts = {"kind": repr(critic), "optimizer": describe_optimizer(critic.optimizer)}
    return facts | shapes(critic.network.state_dict())


def tensors_of(critic: GradientPenaltyCritic | None) -> list[torch.Tensor]:
    """Parameters and buffers."""
    if critic is None:
        return []
    return [*parameters_of(critic.optimizer), *critic.network.buffers()]


def resolve_critic(critic: Any, data: Any, seed: object) -> GradientPenaltyCritic | None:
    """The critic that was asked for: None, ``"wgan-gp"`` or a network, for `data`, or one as it is."""
    if critic is None or isinstance(critic, GradientPenaltyCritic):
        return critic
    if isinstance(critic, nn.Module):
        return GradientPenaltyCritic(data, critic, random_state=seed)
    if critic == "wgan-gp":
        return GradientPenaltyCritic(data, random_state=seed)
    raise TypeError(
        "critic: expected 'wgan-gp', a torch.nn.Module, a GradientPenaltyCritic, or False for none, "
        f"received {describe(critic)}."
    )
