"""The result of the solver, an :class:`ot.utils.OTResult` that can be used and kept."""

import math
import os
import warnings
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from ot.utils import OTResult

from .backend import Array, joint, ours
from .costs import Metric
from .inference.estimates import Estimates, StoredEstimates
from .inference.storage import FACTS, read, write
from .optim.ascent import AscentState
from .optim.stopping import StoppingRule
from .plan import EstimatedPlan
from .problem import Target, resolve_shards, together
from .runs import SemiDiscreteWarning

_ABSENT = {
    "potentials": "the source potential is a function: see c_transform(x)",
    "potential_a": "the source potential is a function: see c_transform(x)",
    "plan": "the source is not a finite set: see atom_weights(x)",
    "sparse_plan": "the source is not a finite set: see atom_weights(x)",
    "lazy_plan": "the source is not a finite set: see atom_weights(x)",
    "value_quad": "there is no Gromov-Wasserstein term",
    "marginals": "the source is not a finite set: see marginal_b",
    "marginal_a": "the source is not a finite set: see marginal_b",
    "a_to_b": "the source is not a finite set: see ot_map(x) - x",
    "b_to_a": "an atom is not sent to one point",
}


def _absent(name: str, reason: str) -> property:
    def member(self: "SemiDiscreteResult") -> NoReturn:
        raise AttributeError(f"SemiDiscreteResult has no {name}: {reason}.")

    return property(member, doc=f"Not defined: {reason}.")


class _estimate:
    """An attribute of the estimates, made when it is first asked for."""

    def __init__(self, where: str | None, doc: str) -> None:
        self.where, self.__doc__ = where, doc

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @ours()
    def __get__(self, result: Any, owner: type | None = None) -> Any:
        if result is None:
            return self
        estimates = result._estimates
        found = estimates if self.where is None else getattr(estimates, self.where)
        return result._owned(getattr(found, self.name))

    def __set__(self, result: Any, value: Any) -> NoReturn:
        raise AttributeError(f"SemiDiscreteResult.{self.name} is computed, not set.")


class SemiDiscreteResult(EstimatedPlan, OTResult):
    r"""What :func:`solve_semidiscrete` reached.

    Estimates use source points drawn after the potential was fixed; only the upper end of
    `value_interval` also uses points of the run. They are computed at the first access or by `save`;
    `value_interval` and `suboptimality` may take several times as long as the run. Members of
    :class:`ot.utils.OTResult` that make no sense for a continuous source raise :class:`AttributeError`.

    Atoms at one place are solved for as one atom, and share its mass, assignment weights and pairs in
    proportion to their weights.

    Attributes
    ----------
    potential_b, potential : array, shape (n_atoms,)
        Semi-dual potential, :math:`\langle b, \psi \rangle = 0`; 0 at atoms of weight 0. With `reg_m`,
        :math:`\sum_j b_j e^{-\psi_j / \mathrm{reg\_m}} = 1` instead, whose terms are the optimal masses.
    potential_stderr : array, shape (n_atoms,)
        Standard error of `potential`; see :meth:`map_stderr` and :meth:`functional` as well.
    value : scalar of the backend
        Estimate of the semi-dual value, a lower estimate of the transport cost.
    value_stderr : float
        Its Monte-Carlo standard error.
    value_interval : tuple of float or None
        Contains the transport cost :math:`\mathrm{OT}_\lambda(\mu, \nu)` with 95% confidence at any
        potential, if the cost has a finite variance: from the semi-dual value below, and above from the
        cost of a feasible plan, fitted to points of the run, or to the fresh ones if there are more.
    suboptimality : float
        Estimate of :math:`\max H - H(\psi)`: what the samples of the run allow at best, in the mean,
        or more if fresh samples show it; the bound, where near atoms hide boundaries of cells.
    suboptimality_bound : float
        95% upper bound of it: the cost of a plan less the semi-dual value, on fresh samples.
    value_linear : scalar of the backend
        Mean cost under the plan of the potential, without the entropy (and the price of masses).
    marginal_b : array, shape (n_atoms,)
        Mass that the plan of the potential gives to each atom.
    chi2, chi2_stderr : float
        Unbiased estimate of :math:`\sum_j (m_j - b_j)^2 / b_j`, which noise can make negative, and its
        standard error. With `reg_m`, b are the optimal masses for the potential.
    marginal_error, marginal_error_stderr : float
        Largest relative error of a mass, ``|m_j - b_j| / b_j``, which `chi2` may hide if the atom is
        light; and its standard error. With `reg_m`, in units of the weight.
    converged : bool
        Whether a 97.5% upper bound of `chi2` was at most ``tol**2``.
    status : str
        ``"converged"``, ``"stalled"`` (more samples do not help), ``"max_iter"``, ``"stopped"`` (by the
        callback), ``"interrupted"`` or ``"failed"`` (an exception, to which this result is attached).
    n_iter : int
        Batches used by the ascent.
    n_samples : int
        Source points drawn, those for estimates included.
    work : float
        Entries (source points x atoms) that the run evaluated; NaN in a file of version 0.1.0.
    log : dict of ndarray
        History: ``value`` (of the newest step) and ``reg`` of each batch;
        ``check_n_iter``, ``check_chi2`` and ``check_chi2_stderr`` of each check of the tolerance.
    reg, reg_m : float
        Regularisation used: 0 if `reg` was below the rounding of the costs; and the price of masses
        other than the weights, ``inf`` without one.
    """

    def __init__(
        self,
        target: Target,
        potential: Array,
        reg: float,
        estimates: Estimates | StoredEstimates,
        log: dict[str, np.ndarray],
        status: str,
        n_iter: int,
        n_samples: int,
        work: float = math.nan,
    ) -> None:
        OTResult.__init__(self, log=log, backend=target.nx, status=status)
        EstimatedPlan.__init__(self, target, potential, reg, estimates)
        self.n_iter = n_iter
        self.n_samples = n_samples
        self.work = work
        self.converged = status == "converged"

    def __getstate__(self) -> dict[str, Any]:
        """All but the backend, which is found again from the arrays."""
        return {name: value for name, value in vars(self).items() if name != "_backend"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _backend=state["_target"].nx)
        with ours():
            self._target, self._potential = self._target.map(self._owned), self._owned(self._potential)

    def __repr__(self) -> str:
        value = "None" if self.value is None else f"{float(self.value):.6g}"
        return (
            f"SemiDiscreteResult(value={value}, chi2={self.chi2:.3g}, reg={self.reg:.3g}, "
            f"n_atoms={self._target.n_atoms}, n_samples={self.n_samples}, status={self._status!r})"
        )

    value = _estimate("evaluation", "Estimate of the semi-dual value.")
    value_stderr = _estimate("evaluation", "Standard error of `value`.")
    chi2 = _estimate("evaluation", "Estimate of the squared relative error of the masses.")
    chi2_stderr = _estimate("evaluation", "Standard error of `chi2`.")
    marginal_error = _estimate("evaluation", "Largest relative error of a mass.")
    marginal_error_stderr = _estimate("evaluation", "Standard error of that mass, relative as well.")
    value_linear = _estimate(None, "Mean cost under the plan of the potential.")
    value_interval = _estimate("certificate", "It holds the transport cost with 95% confidence.")
    suboptimality = _estimate("certificate", "Estimate of what the value at the potential lacks.")
    suboptimality_bound = _estimate("certificate", "It lacks less than that, with 95% confidence.")

    @property
    @ours()
    def marginal_b(self) -> Array | None:
        """Mass that the plan of the potential gives to each atom."""
        marginal = self._estimates.evaluation.marginal
        return None if marginal is None else self._target.distribute(self._owned(marginal))

    @property
    def citation(self) -> str:
        """The works to cite, POT's among them."""
        return super().citation + (
            "\n        Semi-discrete generator gradients:\n\n"
            "            Antoine Houdard, Arthur Leclaire, Nicolas Papadakis, Julien Rabin,\n"
            "            On the Existence of Optimal Transport Gradient for Learning Generative\n"
            "            Models, arXiv:2102.05542, 2021.\n        "
        )

    @ours()
    def to(self, where: Any) -> "SemiDiscreteResult":
        """The same result in another backend or dtype, or on another device, estimates included.

        Parameters
        ----------
        where : array, dtype or device
            An array whose backend, dtype and device to take; a NumPy dtype, for NumPy arrays; or a torch
            dtype or device (``"cuda"``), for torch tensors, which changes only that.

        Returns
        -------
        SemiDiscreteResult

        Raises
        ------
        TypeError, ValueError
            If it is none of these, or the dtype does not hold the atoms.

        Examples
        --------
        >>> import numpy as np
        >>> from pot_semidiscrete import solve_semidiscrete
        >>> atoms = np.random.default_rng(0).normal(size=(20, 2))
        >>> result = solve_semidiscrete(atoms, "normal", reg=0.5, random_state=0)
        >>> result.to(np.float32).potential.dtype, result.to(np.float32).chi2 == result.chi2
        (dtype('float32'), True)
        """
        convert, target, potential = self._moved(where)
        estimates, log = self._estimates.stored().map(convert), self._log
        facts = {name: getattr(self, name) for name in FACTS}
        return type(self)(target, potential, estimates=estimates, log=log, **facts)

    @ours()
    def save(self, path: str | os.PathLike) -> None:
        """Write the result to an ``.npz`` file that is read without pickle.

        The atoms are not written, only a digest of them. What was not estimated yet is estimated now.

        Parameters
        ----------
        path : str or path-like
            Written as it is; the file appears whole or not at all. With :class:`ShardedAtoms` all ranks
            make the call, and the first writes.
        """
        facts = {name: getattr(self, name) for name in FACTS}
        with together(self._target):
            write(path, self._target, self.potential_b, self._estimates, facts, self._log)

    @classmethod
    def load(
        cls, path: str | os.PathLike, X_target: Array, metric: Metric = None
    ) -> "SemiDiscreteResult":
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path : str or path-like
        X_target : array, shape (n_atoms, d)
            The atoms the result was computed for; backend and dtype may differ. :class:`ShardedAtoms`
            need not be those of as many ranks.
        metric : str, tuple, callable or Cost, optional
            Needed if it was a callable, or one with constants; otherwise what was saved.

        Returns
        -------
        SemiDiscreteResult

        Raises
        ------
        ValueError
            If the file is not one of ours, or the atoms or the metric are not those of the result.
        """
        with ours():  # no decorator, whose frame warnings would point to
            atoms, ranks = resolve_shards(X_target)
            with joint(ranks):
                return cls(**read(path, atoms, metric))


for _name, _reason in _ABSENT.items():
    setattr(SemiDiscreteResult, _name, _absent(_name, _reason))


@dataclass(frozen=True)
class SolverState:
    """What `callback` sees after each batch.

    Attributes
    ----------
    n_iter, n_samples : int
        Batches used, source points drawn.
    reg : float
        Present regularisation, annealed down to the one asked for.
    potential : array, shape (n_atoms,)
        Present estimate.
    chi2 : float
        Last estimate of the squared marginal error; NaN before the first check.
    """

    n_iter: int
    n_samples: int
    reg: float
    chi2: float
    _ascent: AscentState = field(repr=False)
    _target: Target = field(repr=False)

    @property
    @ours()
    def potential(self) -> Array:
        """Present estimate, as in the result."""
        return self._target.scatter(self._target.normalized(self._ascent.average))


def warn_shortfall(
    result: SemiDiscreteResult,
    tol: float | StoppingRule,
    stacklevel: int = 3,
    name: str = "solve_semidiscrete",
    start: str = "init_potential=result.potential",
) -> None:
    """Say how far a run of `name` ended from its tolerance, and what it would take to reach it."""
    if tol == 0 or result.status not in ("max_iter", "stalled", "interrupted"):
        return
    if isinstance(tol, StoppingRule):
        words = f"{name} ended ({result.status}) before {type(tol).__name__} was met."
        remedy = "Change the rule." if result.status == "stalled" else "Raise max_iter or batch_size."
        warnings.warn(f"{words} {remedy}", SemiDiscreteWarning, stacklevel=stacklevel)
        return
    reached, needed = result._estimates.evaluation.bound, ""
    remedy = f"Raise max_iter, batch_size, reg or tol, or continue from {start}."
    if math.isnan(reached):
        words = "before its error was measured"
    else:
        words = f"with a relative marginal error of up to {reached**0.5:.3g} (95%)"
        if result.status == "stalled":
            needed = " It has not halved while the samples grew sixteenfold."
            remedy = "Raise reg, tol or max_memory, or take a higher precision."
        elif reached > tol**2:
            more = (reached / tol**2 - 1.0) * result.n_samples
            needed = f" As it falls with the samples, it needs about {more:.2g} more source points."
        if result.reg == 0 and reached > tol**2:
            needed += (
                " At reg = 0 it never will where source points tie between atoms, as for distances on a "
                "line: the plan is not unique there, and a positive reg makes it so."
            )
    warnings.warn(
        f"{name} ended ({result.status}) {words}, tol is {tol:.3g}.{needed} {remedy}",
        SemiDiscreteWarning,
        stacklevel=stacklevel,
    )
