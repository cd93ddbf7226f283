"""The transport cost to a data set, as a torch loss that carries its potential."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..backend import joint, ours
from ..costs import Metric
from ..kernels import known_bilinear, reduce
from ..plan import draw_pairs, semi_dual
from ..problem import Problem, Target, check_bool, resolve_shards, together
from ..runs import SemiDiscreteWarning
from .compared import require_squared_distance
from .data import stacked
from .debias import self_cost, self_gradient
from .features import Features
from .majorant import Majorant, check_batches
from .optimizers import MakeOptimizer
from .potential import TrackedPotential
from .shared import all_points, jointly


class SemiDiscreteLoss(TrackedPotential):
    r"""Regularised transport cost from generated points to a data set.

    ``loss(x)`` is the Monte-Carlo semi-dual value
    :math:`\frac1n \sum_i \psi^{c,\lambda}(x_i) + \langle b, \psi \rangle`, whose gradient in `x`
    makes ``backward()`` follow :math:`\nabla W_\lambda(\theta)`, formula (G). The potential is only
    moved by :meth:`follow`, :meth:`dual_step` and :meth:`fit`, never by ``loss(x)``. That warns if its
    gradient is wanted before any of them.

    Parameters
    ----------
    X_target : tensor, Dataset, StoredAtoms or ShardedAtoms, shape (n_atoms, ...)
        Data; points of any shape, flattened. Kept by the module, but not in its ``state_dict``. Copies
        of a point count as one point with the sum of their weights.
    a_target : tensor, shape (n_atoms,), optional
        Weights, non-negative, of sum 1. Uniform by default.
    metric : str or callable, optional
        Ground cost, as in :func:`pot_semidiscrete.semidiscrete_gradient`.
    reg : float, optional
        Regularisation, in units of the metric. 1% of :func:`pot_semidiscrete.cost_scale` by default.
    reg_m : float, optional
        Price of masses other than the weights, in units of the metric, as in
        :func:`pot_semidiscrete.solve_semidiscrete`: generated points do not go to outliers that are
        much farther. Not with `debias`.
    reg_m_type : "kl"
        The divergence of the masses.
    dual_steps : int, default=5
        Batches for the potential between steps of the generator: calls of :meth:`dual_step`; one call of
        :meth:`follow` stands for all of them.
    debias : bool, default=False
        Subtract half the cost from the generated points to themselves: the Sinkhorn divergence, up to a
        constant. Without it the best Gaussian generator of Gaussian data lacks a variance of `reg` / 2
        along each axis. The cost is that of the batch, with no effect if `reg` is small beside distances
        within it.
    potential : torch.nn.Module, optional
        The potential as a network, :math:`\psi_j = \mathrm{module}(y_j)`. It maps the atoms, of the
        shape given, to shape (n_atoms,) or (n_atoms, 1). A vector by default.
    potential_optimizer : torch.optim.Optimizer, or callable of parameters, optional
        Optimiser of the network; ``Adam(lr=1e-3)`` by default.
    features : torch.nn.Module or callable, optional
        Map :math:`\varphi` from points, of the shape given, to features of any shape, for the cost
        :math:`c(\varphi(x), \varphi(y))`. See :class:`ImageFeatures`. A module is copied, frozen, and
        kept in eval mode; the copy moves with the loss, and is not in its ``state_dict``.
    process_group : torch.distributed.ProcessGroup, optional
        Processes that make this loss together and move its potential by the points of all; ``loss(x)``
        is the value of those of one process (see :doc:`/distributed`). Not needed with
        :class:`pot_semidiscrete.ShardedAtoms`, whose processes also call ``loss(x)`` together.

    Attributes
    ----------
    potential : tensor, shape (n_atoms,)
        The potential that ``loss(x)`` uses (a buffer).
    network : torch.nn.Module or None
        Holds the potential's network and its optimiser.
    n_steps : tensor
        Number of dual steps so far (a buffer).
    reg : float
        Regularisation. It may be set between steps; :func:`train_generator` continues with the new one.

    Notes
    -----
    The buffers keep the dtype of the data, also after ``half()`` and ``double()``, and ``loss(x)`` is
    computed in it, also under autocast. ``to(device)`` moves them and the data.

    :meth:`follow` and :meth:`dual_step` are for a generator that moves. Their rounds of small steps
    start at a larger regularisation, so they settle at the potential of a slightly larger `reg`, above
    all for very unequal weights. :meth:`fit` has no such bias.

    With a network (SDOT-NN in the journal version), :meth:`dual_step` is one step of its optimiser along
    :math:`b - m` pulled back through it, and ``loss(x)`` uses its values less their mean. Its weights
    and its optimiser are in ``state_dict``. Its steps have no unit: scale the costs to about 1.

    With `features`, the generator is :math:`\varphi \circ g`, and the result of :meth:`fit` is about
    features. :math:`\varphi` must be differentiable almost everywhere, and the same in each call.

    Batch normalisation makes the law of a generator depend on its mode and on the batch size: draw the
    points for :meth:`follow` and :meth:`dual_step` as those of the generator's own steps.

    References
    ----------
    Houdard, Leclaire, Papadakis, Rabin, arXiv:2102.05542 (the differentiation theorem for
    the regularised cost, and the alternating algorithm), and its journal version, TMLR 2023 (the
    potential as a network). Feydy et al., arXiv:1810.08278 (the Sinkhorn divergence).

    Examples
    --------
    >>> import torch
    >>> from pot_semidiscrete.generative import SemiDiscreteLoss
    >>> generator = torch.nn.Linear(2, 2)
    >>> loss = SemiDiscreteLoss(torch.rand(100, 2))
    >>> loss.follow(generator(torch.randn(320, 2)))
    >>> loss(generator(torch.randn(64, 2))).backward()
    >>> generator.weight.grad.shape
    torch.Size([2, 2])
    """

    @ours()
    def __init__(
        self,
        X_target: torch.Tensor,
        a_target: torch.Tensor | None = None,
        metric: Metric = None,
        reg: float | None = None,
        *,
        reg_m: float | None = None,
        reg_m_type: str = "kl",
        dual_steps: int = 5,
        debias: bool = False,
        potential: nn.Module | None = None,
        potential_optimizer: torch.optim.Optimizer | MakeOptimizer | None = None,
        features: Features | None = None,
        process_group: Any = None,
    ) -> None:
        X_target, ranks = resolve_shards(stacked(X_target), process_group)
        with joint(ranks):
            super().__init__(X_target, a_target, metric, reg_m, reg_m_type, features, ranks)
            self._start(X_target, reg, dual_steps, potential, potential_optimizer)
            self.debias, self._metric = check_debias(debias, self.target), metric

    @ours()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Semi-dual value of the points `x`, shape (n, ...): a scalar in units of the metric."""
        with together(self.target):
            x = self.rows(x)
            if x.requires_grad and self.n_steps == 0 and not self.potential.any():
                warn_of_no_potential()
            points = Problem(self.target, self.reg).points("x", x)
            value = semi_dual(self.target, points, self.target.gather(self.potential), self.reg)
        if not check_debias(self.debias, self.target):  # it may have been set since
            return value
        # half of it is taken off: its derivative, the target being held, is that of the half
        within = self_cost(x, self._metric, self.reg)
        return value - within + within.detach() / 2.0

    @jointly
    @torch.no_grad()
    def majorants(self, batches: Sequence[torch.Tensor], follow: bool = False) -> list[Majorant]:
        """Bounds of the loss that touch it at each of the batches (squared distance only).

        With `debias` they are first-order models instead of bounds.

        Parameters
        ----------
        batches : list of tensors, shape (n, ...)
        follow : bool, default=False
            Whether to :meth:`follow` the points first. Both then share one product of points and atoms,
            if memory allows.

        Returns
        -------
        list of Majorant
        """
        require_squared_distance(self, "majorants", "whose bound is known; go down the loss itself")
        x, bilinear = self.local(torch.cat(check_batches(batches))), None
        if check_bool("follow", follow):
            is_alone = self.network is None and self.ranks is None
            bilinear = known_bilinear(self.target, x) if is_alone else None
            self._dual_ascent(all_points(self.ranks, x), self.dual_steps, bilinear)
        potential = self.target.gather(self.potential)
        out = reduce(self.target, x, potential, self.reg, ("c_transform", "map"), bilinear=bilinear)
        value, goal = out.c_transform, out.map
        if check_debias(self.debias, self.target):
            within, gradient = self_gradient(x, self._metric, self.reg)
            value, goal = value - within, goal + gradient / 2.0
        constant, sizes = value - (x - goal).square().sum(dim=1), [len(batch) for batch in batches]
        return list(map(Majorant, goal.split(sizes), constant.split(sizes)))

    @jointly
    @torch.no_grad()
    def pair(self, x: torch.Tensor, random_state: Any = None, *, follow: bool = False) -> torch.Tensor:
        """Draw an atom for each point, so that the pairs follow the plan of the potential.

        Parameters
        ----------
        x : tensor, shape (n, ...)
        random_state : None, int or generator
            Randomness of the draw, as in :meth:`pot_semidiscrete.SemiDiscreteResult.pair`.
        follow : bool, default=False
            Whether to :meth:`follow` the points first; `features` are asked once for both.

        Returns
        -------
        tensor of int, shape (n,)
            Rows of `X_target`.
        """
        x = self.local(x)
        if check_bool("follow", follow):
            self._dual_ascent(all_points(self.ranks, x), self.dual_steps)
        potential = self.target.gather(self.potential)
        return draw_pairs(self.target, x, potential, self.reg, random_state)

    def extra_repr(self) -> str:
        """What ``repr`` tells of the problem."""
        n_atoms, d = self.target.n_atoms, self.target.atoms.shape[1]
        return f"n_atoms={n_atoms}, d={d}, metric={self.target.cost.name!r}, reg={self.reg:.4g}"


def check_debias(debias: object, target: Target) -> bool:
    """Refuse to debias where masses are free at a price."""
    debias = check_bool("debias", debias)
    if debias and target.is_relaxed:
        raise ValueError(
            "debias: expected False with reg_m, for a Sinkhorn divergence is of masses that are held, "
            "received True; leave out either."
        )
    return debias


def warn_of_no_potential() -> None:
    """Warn that the gradient of a loss is that of a potential of 0: Python shows it once a line."""
    warnings.warn(
        "SemiDiscreteLoss: expected a potential before a gradient, received points before any step of "
        "it, so that the loss draws them to their nearest atoms; call follow(points) before each step "
        "of the generator, or fit(source) once.",
        SemiDiscreteWarning,
        stacklevel=6,  # where the loss was called
    )
