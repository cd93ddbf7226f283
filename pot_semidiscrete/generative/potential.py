"""The potential of a data set, which follows a generator, as the state of a torch module."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..backend import capabilities, describe, guest, joint, ours
from ..optim import tracking
from ..optim.ascent import cold_start
from ..optim.semi_dual import SemiDual
from ..plan import semi_dual
from ..problem import (
    Problem,
    check_bool,
    check_callable,
    check_count,
    check_points,
    check_reg,
    scale_of,
    shared,
)
from ..result import SemiDiscreteResult, SolverState, warn_shortfall
from ..samplers.laws import CallableSampler
from ..samplers.resolve import rank_seed, resolve_source
from ..solver import Options, solve_problem
from .compared import ComparedData, require_squared_distance
from .data import check_tensor
from .network import NetworkPotential
from .optimizers import MakeOptimizer
from .shared import all_points, jointly, mean_of_ranks, start_alike


class TrackedPotential(ComparedData):
    """The base of :class:`SemiDiscreteLoss`: all but its values. The parameters are explained there."""

    potential: torch.Tensor
    n_steps: torch.Tensor

    def _start(
        self,
        X_target: torch.Tensor,
        reg: float | None,
        dual_steps: int,
        module: nn.Module | None,
        optimizer: torch.optim.Optimizer | MakeOptimizer | None,
    ) -> None:
        """Begin with a potential of 0, or with that of a network."""
        self.dual_steps = check_count("dual_steps", dual_steps)
        self.reg = 0.01 * scale_of(self.target) if reg is None else reg
        self.register_buffer("potential", 0.0 * self.target.scatter(self.target.weights))
        self.register_buffer("n_steps", torch.zeros((), dtype=torch.long, device="cpu"))
        self.network: NetworkPotential | None = None
        self.moves = 0  # of the potential, in this process
        if module is not None:
            if self.target.is_stored:
                raise TypeError(
                    "potential: expected None with StoredAtoms or ShardedAtoms, of which a network "
                    f"would have to see all, received {describe(module)}; leave it out, or give a "
                    "tensor."
                )
            points = self.target.gather(capabilities(self.target.nx).owned(X_target))
            self.network = NetworkPotential(module, optimizer, points)
            start_alike(self.ranks, [*self.network.parameters(), *self.network.buffers()])
            with torch.no_grad():
                self._store(self.network(), 0)
        elif optimizer is not None:
            raise ValueError(
                "potential_optimizer: expected None with a vector, received one; give potential=."
            )

    @property
    def reg(self) -> float:
        """Regularisation; the potential follows at the one that it is set to."""
        return self._reg

    @reg.setter
    @ours()
    def reg(self, reg: float) -> None:
        self._reg = check_reg(reg, self.target)
        self._tracking_reg, self._eps_start = tracking.tracking_levels(self.target, self._reg)

    @property
    def can_translate(self) -> bool:
        """Whether :meth:`translate` is known: for the squared distance, a vector, and no `reg_m`."""
        return self.has_majorants and self.network is None and not self.target.is_relaxed

    @jointly
    @torch.no_grad()
    def dual_step(self, x: torch.Tensor) -> None:
        """Move the potential by one batch of points, for a loop of your own.

        Make `dual_steps` calls between steps of the generator. One call of :meth:`follow` with all of
        their points is better: it is one round with more steps.

        Parameters
        ----------
        x : tensor, shape (n, ...)
            Fresh points of the generator; its graph is not followed.
        """
        self._dual_ascent(all_points(self.ranks, self.local(x)), 1)

    @jointly
    @torch.no_grad()
    def follow(self, x: torch.Tensor) -> None:
        """Move the potential by a round of many small steps with the points `x`.

        For a generator that takes one or several steps between rounds, as in :func:`train_generator`.
        The potential is an average over the last rounds. One call counts as `dual_steps` dual steps;
        with a network it takes as many, each with a part of the points.

        Parameters
        ----------
        x : tensor, shape (n, ...)
            Fresh points of the generator: several batches.
        """
        self._dual_ascent(all_points(self.ranks, self.local(x)), self.dual_steps)

    def _dual_ascent(self, x: torch.Tensor, n_steps: int, bilinear: torch.Tensor | None = None) -> None:
        """Follow the points `x`, in the coordinates of the atoms; this counts for `n_steps`."""
        if self.network is not None:
            for part in x.tensor_split(min(n_steps, len(x))):
                self.network.ascend(functools.partial(semi_dual, self.target, part, reg=self.reg))
            self._store(self.network(), int(self.n_steps) + n_steps)
            return
        target, calls = self._shared_target, self.dual_steps // n_steps
        potential, count = target.gather(self.potential), int(self.n_steps) // n_steps
        if self.n_steps == 0:
            potential = cold_start(SemiDual(target), x, self._tracking_reg).potential
        potential = tracking.follow(
            potential, count, target, x, self._tracking_reg, self._eps_start, bilinear, calls
        )
        self._store(potential, int(self.n_steps) + n_steps)

    @jointly
    @torch.no_grad()
    def translate(self, shift: torch.Tensor) -> None:
        r"""Correct the potential for points that all move by one vector (squared distance only).

        It becomes :math:`\psi_j - 2 \langle s, y_j \rangle` up to a constant, so that an optimal one
        stays optimal. The points of a generator that is still nearly constant move together, too far for
        :meth:`follow` alone; :func:`train_generator` makes this correction before each round. Before the
        first dual step it does nothing.

        Parameters
        ----------
        shift : tensor, of the shape of a point
            Movement of the mean of the points, or with `features` of the mean of these, shape (d,).
        """
        require_vector(self, "translate")
        require_squared_distance(self, "translate", "where the move is known; leave it to follow")
        if self.target.is_relaxed:
            raise ValueError(
                "translate: expected a loss without reg_m, where masses do not change as points move, "
                f"received one with reg_m={self.reg_m:g}; leave it to follow."
            )
        check_tensor("shift", shift)
        shift, _ = check_points("shift", shift.reshape(1, -1), like=self.target.like)
        shift = mean_of_ranks(self.ranks, shift[0])
        along = self.target.in_parts(lambda atoms: atoms @ shift)
        self._store(self.target.gather(self.potential) - 2.0 * along, int(self.n_steps))

    @jointly
    @torch.no_grad()
    def warm_up(self, draw: Callable[[], torch.Tensor], n_batches: int = 50) -> None:
        """Start the potential by a short annealing.

        Parameters
        ----------
        draw : callable
            ``() -> x``, a fresh batch of points of the generator, of any shape.
        n_batches : int
            Batches to draw; a network takes a dual step with each.
        """
        draw = guest(check_callable("draw", draw, "() -> points"))
        n_batches = check_count("n_batches", n_batches)
        if self.network is None:
            points = lambda: all_points(self.ranks, self.local(draw()))
            start = tracking.warm_up(self._shared_target, points, self._tracking_reg, n_batches)
            self._store(start, self.dual_steps)
            return
        for _ in range(n_batches):
            self.dual_step(draw())

    def fit(
        self,
        sampler: Callable[[int], torch.Tensor] | str | torch.Tensor | Any,
        *,
        tol: float = 0.1,
        max_iter: int = 10_000,
        batch_size: int = 256,
        init_potential: torch.Tensor | None = None,
        random_state: Any = None,
        verbose: bool = False,
        callback: Callable[[SolverState], Any] | None = None,
    ) -> SemiDiscreteResult:
        """Solve for the potential of a generator that stands still.

        Parameters
        ----------
        sampler : callable, str, law, loader or tensor
            ``n -> x``, points of the generator, of any shape; or a source of rows, or of features if
            the loss has these, as :func:`pot_semidiscrete.solve_semidiscrete` takes it.
        tol, max_iter, batch_size, init_potential, random_state, verbose, callback
            As in :func:`pot_semidiscrete.solve_semidiscrete`.

        Returns
        -------
        pot_semidiscrete.SemiDiscreteResult
            Potential, estimates on fresh samples, and why the run ended.
        """
        require_vector(self, "fit")
        if callback is not None:
            callback = guest(check_callable("callback", callback, "of the state"))
        options, verbose = Options.checked(tol, max_iter, batch_size), check_bool("verbose", verbose)
        with ours(), joint(self.ranks):  # no decorator, whose frame the warning would point to
            start = Problem(self.target, self.reg).init_potential(init_potential)
            problem = shared(Problem(self.target, self.reg), self.ranks, start, **vars(options))
            source = resolve_source(sampler, self.target.like, rank_seed(problem.target, random_state))
            if isinstance(source, CallableSampler):  # of points of any shape
                function = source.function
                source = CallableSampler(lambda n: self.rows(function(n)))
            result = solve_problem(problem, source, options, start, verbose, callback)
            self._store(self.target.gather(result.potential), int(tracking.SPAN * self.dual_steps))
            warn_shortfall(result, options.tol)
        return result

    @torch.no_grad()
    def _store(self, potential: torch.Tensor, n_steps: int) -> None:
        self.potential.copy_(self.target.scatter(self.target.normalized(potential)))
        self.n_steps.fill_(n_steps)
        self.moves += 1


def require_vector(loss: TrackedPotential, name: str) -> None:
    """Refuse the method `name` to a potential that is a network."""
    if loss.network is not None:
        raise TypeError(
            f"{name}: expected a loss whose potential is a vector, received one whose potential is "
            "a network, which only follow, dual_step and warm_up train; leave out potential=."
        )
