"""The transport cost to a data set, as a torch loss that carries its potential."""

from dataclasses import dataclass

import torch
from torch import nn

from ..backend import describe, full_precision
from ..costs import SqEuclidean
from ..differentiable import semi_dual
from ..kernels import known_bilinear, reduce
from ..optim import tracking
from ..optim.ascent import cold_start
from ..optim.semi_dual import SemiDual
from ..problem import (
    Problem,
    build_target,
    check_callable,
    check_count,
    check_points,
    check_real,
    check_reg,
    flat_rows,
    scale_of,
)
from ..samplers.laws import CallableSampler
from ..solve import solve_target, warn_shortfall
from .features import FeatureMap, in_parts
from .network import NetworkPotential

RELATIVE_REG = 0.01
SELF_STEPS = 20  # for the potential from a batch to itself


@dataclass(frozen=True)
class Majorant:
    r"""Upper bound of ``loss(x)`` for the squared distance, which touches it at a batch of points.

    :math:`|x|^2 - \psi^{c,\lambda}(x)` is convex, of gradient :math:`2 T(x)`: so
    :math:`\psi^{c,\lambda}(x') \le \psi^{c,\lambda}(x) - |x - T(x)|^2 + |x' - T(x)|^2`, and a generator
    can take several steps along the bound for the price of one reduction, the first along formula (G).

    Attributes
    ----------
    goal : tensor, shape (n, d)
        :math:`T(x)`, in the coordinates of the atoms.
    constant : tensor, shape (n,)
    """

    goal: torch.Tensor
    constant: torch.Tensor

    def __call__(self, x):
        """Bound of the mean over the points `x`, shape (n, d), moved from where it touches."""
        return (self.constant + (x - self.goal).square().sum(dim=1)).mean()


def self_target(x, metric, reg):
    """The law of the points `x` as a target, and the potential from it to itself.

    By the symmetric iteration ``phi <- (phi + phi^{c,reg}) / 2`` (Feydy et al., 2019).
    """
    target = build_target(x.detach(), metric=metric, merge=False)
    points, potential = target.atoms, 0.0 * target.weights
    for _ in range(SELF_STEPS):
        potential = (potential + reduce(target, points, potential, reg).c_transform) / 2.0
    return target, potential


class SemiDiscreteLoss(nn.Module):
    r"""Regularised transport cost from generated points to a data set.

    ``loss(x)`` is the Monte-Carlo semi-dual value
    :math:`\frac1n \sum_i \psi^{c,\lambda}(x_i) + \langle b, \psi \rangle`, whose gradient in `x`
    makes ``backward()`` follow :math:`\nabla W_\lambda(\theta)`, formula (G). The potential is only
    moved by :meth:`follow`, :meth:`dual_step` and :meth:`fit`, never by ``loss(x)``.

    Parameters
    ----------
    X_target : tensor, shape (n_atoms, ...)
        Data; points of any shape, flattened. Kept by the module, but not in its ``state_dict``. Copies
        of a point count as one, of the sum of their weights, and have one potential.
    a_target : tensor, shape (n_atoms,), optional
        Weights, non-negative, of sum 1. Uniform by default.
    metric : str or callable, optional
        Ground cost, as in :func:`pot_semidiscrete.semidiscrete_gradient`.
    reg : float, optional
        Regularisation, in units of the metric. 1% of :func:`pot_semidiscrete.cost_scale` by default.
    dual_steps : int, default=5
        Batches for the potential between moves of the generator: calls of :meth:`dual_step`, or what
        one call of :meth:`follow` counts for.
    debias : bool, default=False
        Subtract half the cost from the generated points to themselves, which makes the loss the
        Sinkhorn divergence, up to a constant: without, the best generator has less variance than the
        data, by `reg` / 2 along each axis for Gaussian laws and the squared distance. The cost is
        that of the batch: it does nothing where `reg` is small beside the squared distances within it.
    potential : torch.nn.Module, optional
        The potential as a network, :math:`\psi_j = \mathrm{module}(y_j)`: takes the atoms, of the shape
        given, to shape (n_atoms,) or (n_atoms, 1). A vector by default.
    potential_optimizer : torch.optim.Optimizer, or callable of parameters, optional
        Of the network; ``Adam(lr=1e-3)`` by default.
    features : torch.nn.Module or callable, optional
        Points, of the shape given, to features of any shape: data and generated points are compared by
        these, :math:`c(\varphi(x), \varphi(y))`. See :class:`ImageFeatures`. Of a module a copy is kept,
        in eval mode and frozen; it moves with the loss, and is not in its ``state_dict``.

    Attributes
    ----------
    potential : tensor, shape (n_atoms,)
        What ``loss(x)`` uses (a buffer).
    network : torch.nn.Module or None
        Holds the potential's network and its optimiser.
    n_steps : tensor
        Number of dual steps so far (a buffer).
    reg : float
        Regularisation. It may be set, between steps: :func:`train_generator` goes on at the new one.

    Notes
    -----
    The buffers keep the dtype of the data, whatever ``half()`` or ``double()`` ask, and ``loss(x)``
    is computed in that precision under autocast; ``to(device)`` moves them and the data.

    :meth:`follow` and :meth:`dual_step` follow a generator that moves, by rounds of small steps that
    start at a larger regularisation: what they settle at is the potential of a slightly larger `reg`,
    the more so for very unequal weights. :meth:`fit` has no such bias.

    With a network (SDOT-NN in the reference), :meth:`dual_step` is one step of its optimiser along
    :math:`b - m` pulled back through it, and ``loss(x)`` uses its values less their mean. Its weights
    and its optimiser are in ``state_dict``. Its steps have no unit of the problem: bring the costs to
    about 1.

    With `features`, the loss is that of the generator :math:`\varphi \circ g`, whose gradient goes on
    through :math:`\varphi`: it must be differentiable almost everywhere, and the same in each call. The
    result of :meth:`fit` is then one of features, too.

    Batch normalisation makes the law of a generator depend on its mode and on the batch size: give
    :meth:`follow` and :meth:`dual_step` points drawn in the mode and batch size of the generator's own
    steps.

    References
    ----------
    Houdard, Leclaire, Papadakis, Rabin, arXiv:2102.05542 (the differentiation theorem for
    the regularised cost, and the alternating algorithm). Feydy et al., arXiv:1810.08278 (the
    Sinkhorn divergence).

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

    def __init__(
        self,
        X_target,
        a_target=None,
        metric=None,
        reg=None,
        *,
        dual_steps=5,
        debias=False,
        potential=None,
        potential_optimizer=None,
        features=None,
    ):
        super().__init__()
        self.debias, self._metric = bool(debias), metric
        if not isinstance(X_target, torch.Tensor):
            raise TypeError(
                f"X_target: expected a torch tensor, received {type(X_target).__name__}; use "
                "torch.as_tensor."
            )
        points, self._map = X_target, None
        if X_target.ndim > 2:
            X_target = X_target.flatten(1)
        if features is not None:
            X_target, nx = check_points("X_target", X_target)
            self._map = FeatureMap(features, points, nx)
            X_target = in_parts(self._map, points)
        self.target = build_target(X_target, a_target, metric).detached
        self.dual_steps = check_count("dual_steps", dual_steps)
        self.reg = RELATIVE_REG * scale_of(self.target) if reg is None else reg
        zeros = torch.zeros(self.target.n_atoms, dtype=X_target.dtype, device=X_target.device)
        self.register_buffer("potential", zeros)
        self.register_buffer("n_steps", torch.zeros((), dtype=torch.long))
        self.network, self.moves = None, 0  # of the potential, in this process
        if potential is not None:
            self.network = NetworkPotential(
                potential, potential_optimizer, self.target.gather(points), self.target.nx
            )
            with torch.no_grad():
                self._store(self.network(), 0)
        elif potential_optimizer is not None:
            raise ValueError(
                "potential_optimizer: expected None with a vector, received one; give potential=, a "
                "module."
            )

    @property
    def reg(self):
        """Regularisation; the potential follows at the one that it is set to."""
        return self._reg

    @reg.setter
    def reg(self, reg):
        self._reg = check_reg(reg, self.target)
        self._level = tracking.tracking_reg(self.target, self._reg)
        self._heat = tracking.round_heat(self.target, self._level)

    @property
    def features(self):
        """What points are compared by; None for the points themselves."""
        return None if self._map is None else self._map.function

    def forward(self, x):
        """Semi-dual value of the points `x`, shape (n, ...): a scalar in units of the metric."""
        x = self.rows(x)
        points = Problem(self.target, self.reg).points("x", x)
        value = semi_dual(self.target, points, self.target.gather(self.potential), self.reg)
        if not self.debias:
            return value
        # its derivative in x, the target being held, is that of half the cost (both marginals move)
        target, potential = self_target(x, self._metric, self.reg)
        within = semi_dual(target, target.center(x), potential, self.reg)
        return value - within + within.detach() / 2.0

    @torch.no_grad()
    def dual_step(self, x):
        """Move the potential by one batch of points, for a loop of your own.

        `dual_steps` calls come between moves of the generator. One call of :meth:`follow` with all of
        their points is better: each has a round of its own, of fewer steps.

        Parameters
        ----------
        x : tensor, shape (n, ...)
            Fresh points of the generator; its graph is not followed.
        """
        self._move(self.local(x), 1)

    @torch.no_grad()
    def follow(self, x):
        """Move the potential by a round of many small steps with the points `x`.

        For a generator that takes one or several steps between rounds, as in :func:`train_generator`:
        the potential is an average over the last rounds. It counts for `dual_steps`, and with a network
        it is as many, each with a share of the points.

        Parameters
        ----------
        x : tensor, shape (n, ...)
            Fresh points of the generator: several batches.
        """
        self._move(self.local(x), self.dual_steps)

    def _move(self, x, n_steps, bilinear=None):
        """Follow the points `x`, in the coordinates of the atoms; this counts for `n_steps`."""
        if self.network is not None:
            for part in x.tensor_split(min(n_steps, len(x))):
                self.network.ascend(lambda psi, x=part: semi_dual(self.target, x, psi, self.reg))
            self._store(self.network(), self.n_steps + n_steps)
            return
        potential, calls = self.target.gather(self.potential), self.dual_steps // n_steps
        count = int(self.n_steps) // n_steps
        if self.n_steps == 0:
            potential = cold_start(SemiDual(self.target), x, self._level).potential
        potential = tracking.follow(
            potential, count, self.target, x, self._level, self._heat, bilinear, calls
        )
        self._store(potential, self.n_steps + n_steps)

    @torch.no_grad()
    def translate(self, shift):
        r"""Let the potential go along with points that all move by one vector (squared distance only).

        It becomes :math:`\psi_j - 2 \langle s, y_j \rangle` up to a constant: an optimal one stays
        optimal. The points of a generator that is still nearly constant move so, too far for
        :meth:`follow` alone; :func:`train_generator` lets the potential go along before each round. It
        does nothing before the first dual step.

        Parameters
        ----------
        shift : tensor, of the shape of a point
            By what the mean of the points has moved; with `features`, that of these, shape (d,).
        """
        self._needs_vector("translate")
        self._needs_squared_distance("translate", "where the move is known; leave it to follow")
        nx, atoms = self.target.nx, self.target.atoms
        if not isinstance(shift, torch.Tensor):
            raise TypeError(f"shift: expected a torch tensor, received {describe(shift)}.")
        shift, _ = check_points("shift", shift.reshape(1, -1), like=atoms)
        with full_precision(nx, atoms):
            moved = self.target.gather(self.potential) - 2.0 * (atoms @ shift[0])
        self._store(moved, self.n_steps)

    @property
    def has_majorants(self):
        """Whether bounds of the loss are known: for the squared distance only."""
        return isinstance(self.target.cost, SqEuclidean)

    @property
    def can_translate(self):
        """Whether :meth:`translate` is known: for the squared distance and a vector."""
        return self.has_majorants and self.network is None

    @torch.no_grad()
    def majorants(self, batches, follow=False):
        """Bounds of the loss that touch it at each of the batches (squared distance only).

        With `debias` they are models of first order, and no bounds.

        Parameters
        ----------
        batches : list of tensors, shape (n, ...)
        follow : bool, default=False
            Whether to :meth:`follow` the points first. One product of the points and the atoms then
            serves both, if it can be kept.

        Returns
        -------
        list of Majorant
        """
        self._needs_squared_distance("majorants", "whose bound is known; go down the loss itself")
        x, bilinear = self.local(torch.cat(batches)), None
        if follow:
            bilinear = known_bilinear(self.target, x) if self.network is None else None
            self._move(x, self.dual_steps, bilinear)
        potential = self.target.gather(self.potential)
        out = reduce(self.target, x, potential, self.reg, ("c_transform", "map"), bilinear=bilinear)
        goal, value = out.map, out.c_transform
        if self.debias:
            target, potential = self_target(x, self._metric, self.reg)
            out = reduce(target, target.atoms, potential, self.reg, ("c_transform", "gradient"))
            goal, value = goal + out.gradient / 2.0, value - out.c_transform
        constant, sizes = value - (x - goal).square().sum(dim=1), [len(batch) for batch in batches]
        return list(map(Majorant, goal.split(sizes), constant.split(sizes)))

    @torch.no_grad()
    def warm_up(self, draw, n_batches=50):
        """Start the potential from a short annealing, enough to follow a generator from.

        Parameters
        ----------
        draw : callable
            ``() -> x``, a fresh batch of points of the generator, of any shape.
        n_batches : int
            Batches to draw; a network takes a dual step with each.
        """
        if self.network is None:
            start = tracking.warm_up(self.target, lambda: self.local(draw()), self._level, n_batches)
            self._store(start, self.dual_steps)
            return
        for _ in range(n_batches):
            self.dual_step(draw())

    def fit(
        self,
        sampler,
        *,
        tol=0.1,
        max_iter=10_000,
        batch_size=256,
        init_potential=None,
        verbose=False,
        callback=None,
    ):
        """Solve for the potential of a generator that stands still.

        Parameters
        ----------
        sampler : callable
            ``n -> x``, points of the generator, of any shape.
        tol, max_iter, batch_size, init_potential, verbose, callback
            As in :func:`pot_semidiscrete.solve_semidiscrete`.

        Returns
        -------
        pot_semidiscrete.SemiDiscreteResult
            Potential, estimates on fresh samples, and why the run ended.
        """
        self._needs_vector("fit")
        check_callable("sampler", sampler, "n -> points")
        if callback is not None:
            check_callable("callback", callback, "of the state")
        init_potential = Problem(self.target, self.reg).init_potential(init_potential)
        tol = check_real("tol", tol)
        result = solve_target(
            self.target,
            CallableSampler(lambda n: self.rows(sampler(n))),
            self.reg,
            tol,
            check_count("max_iter", max_iter),
            check_count("batch_size", batch_size),
            init_potential=init_potential,
            verbose=verbose,
            callback=callback,
        )
        self._store(self.target.gather(result.potential), tracking.MEMORY * self.dual_steps)
        warn_shortfall(result, tol)
        return result

    def extra_repr(self):
        n_atoms, d = self.target.n_atoms, self.target.atoms.shape[1]
        return f"n_atoms={n_atoms}, d={d}, metric={self.target.cost.name!r}, reg={self.reg:.4g}"

    def _needs_vector(self, name):
        if self.network is not None:
            raise TypeError(
                f"{name}: expected a loss whose potential is a vector, received one whose potential is "
                "a network, which only follow, dual_step and warm_up train; leave out potential=."
            )

    def _needs_squared_distance(self, name, remark):
        if not self.has_majorants:
            raise ValueError(
                f"{name}: expected a loss with metric 'sqeuclidean', {remark}, received "
                f"{self.target.cost.name!r}."
            )

    @torch.no_grad()
    def _store(self, potential, n_steps):
        self.potential.copy_(self.target.scatter(self.target.zero_mean(potential)))
        self.n_steps.fill_(int(n_steps))
        self.moves += 1

    def rows(self, x):
        """Points of any shape, or their features, as one row each, in the dtype of the data."""
        if isinstance(x, torch.Tensor) and x.is_floating_point() and x.ndim > 0:
            x = x.to(self.target.atoms.dtype)
            x = x if self._map is None or 0 in x.shape else self._map(x)
        return flat_rows(x, self.target.nx)

    def local(self, x):
        """Points in the coordinates of the atoms, checked, and cut from their graph."""
        x, _ = check_points("x", self.rows(x), like=self.target.atoms)
        return self.target.center(x.detach())

    def _apply(self, fn, recurse=True):
        # follow the device that fn moves to, and only that: the potential needs its precision
        device = fn(torch.empty(0, dtype=self.potential.dtype, device=self.potential.device)).device
        self.target = self.target.map(lambda array: array.to(device))
        if self._map is not None:
            self._map.to(device)
        return super()._apply(lambda tensor: tensor.to(device), recurse)
