"""The door: arguments of users become a problem, once, and are trusted from then on."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ot.backend import get_backend

from ..backend import (
    Array,
    Backend,
    capabilities,
    describe,
    eager,
    finfo,
    in_double,
    is_foreign,
    is_traced,
)
from ..costs import Metric, SqEuclidean, check_cost, resolve_metric
from ..kernels import BLOCK_BYTES
from .fingerprints import digest
from .places import Copies, places
from .sharded import ShardedAtoms, TargetShard
from .stored import LazyAtoms, StoredAtoms, TargetAtoms
from .target import Target
from .units import rounding_of
from .validation import check_points, check_real, check_vector, check_weights


@dataclass(frozen=True)
class Problem:
    """A target and the regularisation at which it is transported to."""

    target: Target
    reg: float

    @classmethod
    def of(
        cls,
        X_target: Array,
        a_target: Array | None = None,
        metric: Metric = None,
        reg: object = 0.0,
        *,
        reg_m: object = None,
        reg_m_type: object = "kl",
        merge: bool = True,
    ) -> "Problem":
        """Check the arguments that describe a problem; see :func:`build_target`."""
        target = build_target(X_target, a_target, metric, merge=merge)
        reg = check_reg(reg, target)
        return cls(at_price(target, reg_m, reg_m_type), reg)

    @property
    def nx(self) -> Backend:
        """Backend of POT."""
        return self.target.nx

    def points(self, name: str, x: Array) -> Array:
        """A user's source points, checked, in the coordinates of the atoms."""
        x, nx = check_points(name, x, like=self.target.like)
        return self.target.center(capabilities(nx).owned(x))

    def potential(self, name: str, potential: Array) -> Array:
        """A user's potential, checked, at the support."""
        target = self.target
        all_atoms = target.scatter(target.weights)[:, None]
        potential = capabilities(target.nx).owned(check_vector(name, potential, all_atoms, target.nx))
        return target.merge(potential, self.reg)

    def init_potential(self, potential: Array | None) -> Array | None:
        """A potential to start from, None included, cut from any graph."""
        return None if potential is None else self.nx.detach(self.potential("init_potential", potential))


def build_target(
    X_target: Array, a_target: Array | None = None, metric: Metric = None, *, merge: bool = True
) -> Target:
    """Check the user's target and build the :class:`Target`.

    Atoms at one place are merged, for solvers: at ``reg = 0`` they would tie at each point, and one of
    them get all of their mass. So are atoms that the rounding of costs does not tell apart. With
    ``merge=False`` they are left as they are, and the target in the graph of the user's arrays: what is
    asked for at a given potential is right for copies, too.
    """
    X_target, like = check_atoms(X_target)
    nx = get_backend(like)
    with eager(nx):
        target = _build(X_target, nx, a_target, metric)
        return replace(_merged(target.detached), digest=digest(X_target, nx)) if merge else target


def check_atoms(X_target: Any) -> tuple[Any, Array]:
    """Check the atoms of users, and tell what arrays are like them; large memory maps are stored."""
    if isinstance(X_target, np.memmap) and X_target.nbytes > BLOCK_BYTES:
        check_points("X_target", X_target[:1])
        X_target = StoredAtoms(X_target)
    if isinstance(X_target, StoredAtoms):
        X_target = TargetAtoms(X_target)
        X_target.check("X_target")
        return X_target, X_target.like
    if isinstance(X_target, TargetShard):
        return X_target, X_target.like
    if isinstance(X_target, ShardedAtoms):
        raise TypeError(
            f"X_target: expected atoms that this process has, received {X_target!r}; give them to "
            "solve_semidiscrete, SemiDiscreteLoss or train_generator."
        )
    X_target, _ = check_points("X_target", X_target)
    return X_target, X_target


def _build(X_target: Array, nx: Backend, a_target: Array | None, metric: Metric) -> Target:
    is_stored, able = isinstance(X_target, LazyAtoms), capabilities(nx)
    cost = resolve_metric(metric, nx)
    if is_foreign(type(cost)):
        check_cost(cost, X_target[-3:], X_target[:4], nx)  # no atom twice, if there are enough
    atoms = X_target if is_stored else able.owned(X_target)
    column = nx.zeros((X_target.shape[0], 1), type_as=X_target.like) if is_stored else atoms
    weights = able.owned(check_weights(a_target, column, nx))
    support, place = None, None
    if not is_traced(weights):
        positive = nx.to_numpy(nx.detach(weights)) > 0
        if not positive.all():
            support = able.index(np.flatnonzero(positive), weights)
            place = np.where(positive, np.cumsum(positive) - 1, positive.sum())
            atoms = atoms.chosen(np.flatnonzero(positive)) if is_stored else atoms[support]
            weights = weights[support]
    target = Target(atoms, weights, None, support, X_target.shape[0], cost, place)
    if not cost.translation_invariant:
        return target
    # any constant will do: the cost does not see it, so it stays out of the graph
    origin = nx.detach(target.mean)
    return replace(target, atoms=atoms.centred(origin) if is_stored else atoms - origin, origin=origin)


def _merged(target: Target) -> Target:
    """The same measure, atoms at one place being one, whose weight is the sum of theirs.

    So are those that rounding does not tell apart: the measure is the same up to it.
    """
    if is_traced(target.atoms):
        return target
    nx, parts = target.nx, list(target.atoms.parts()) if target.is_stored else [slice(None)]
    read = target.atoms.__getitem__ if target.is_stored else nx.to_numpy(target.atoms).__getitem__
    first, place = places(lambda which: nx.to_numpy(read(which)), parts, _indistinct(target))
    if len(first) == len(place):
        return target
    where = capabilities(nx).index(first, target.weights)
    user = np.arange(target.n_atoms) if target.place is None else target.place
    copies, total = Copies.of(place, in_double(target.weights), user)
    return replace(
        target,
        atoms=target.atoms.chosen(first) if target.is_stored else target.atoms[where],
        weights=nx.from_numpy(total, type_as=target.weights),
        support=where if target.support is None else target.support[where],
        place=copies.place,
        copies=copies,
    )


def _indistinct(target: Target) -> float:
    """Distance below which the costs do not tell two atoms apart, so that they are merged.

    At a distance L, typical of the atoms, a squared distance has the rounding ``u L^2``. Those from a
    point to two atoms that are ``k u L`` apart differ by at most ``2 k`` roundings, and the difference
    varies by ``2 k r / L`` of them over a cell of size r. So at k = 64 rounding leaves the masses of the
    two uncertain by a tenth, the default of `tol`, if r is a sixth of L, and by more if it is smaller.
    Other costs have no such bound: there, only equal atoms are merged.
    """
    if not isinstance(target.cost, SqEuclidean):
        return 0.0
    return 64.0 * math.sqrt(target.unit * _rounding(target))


def check_reg(reg: object, target: Target) -> float:
    """Check a regularisation that costs can be divided by, and take 0 for what is as good as 0.

    That is what is below the rounding of a cost: the dtype does not have the differences that it would
    tell apart. Results have the `reg` that was used.
    """
    reg, rounding = check_real("reg", reg), _rounding(target)
    if 0 < reg < rounding:
        return 0.0
    _check_size("reg", reg, rounding, target, "at this one the plan is the product of the measures")
    return reg


def at_price(target: Target, reg_m: object, reg_m_type: object) -> Target:
    """The target with masses that are free at a price, which is checked; None holds them."""
    check_reg_m_type(reg_m_type)
    reg_m = check_reg_m(reg_m, target)
    return target if reg_m == target.reg_m else replace(target, reg_m=reg_m)


def check_reg_m_type(reg_m_type: object) -> None:
    """Check the name of a divergence of masses: there is one."""
    if not isinstance(reg_m_type, str):
        raise TypeError(f"reg_m_type: expected 'kl', received {describe(reg_m_type)}.")
    if reg_m_type.lower() != "kl":
        raise ValueError(f"reg_m_type: expected 'kl', received {reg_m_type!r}; leave it out.")


def check_reg_m(reg_m: object, target: Target) -> float:
    """Check the price of masses that are not the weights; ``inf`` if they are to be the weights."""
    if reg_m is None or (isinstance(reg_m, float) and reg_m == math.inf):
        return math.inf
    if isinstance(reg_m, (tuple, list)):
        raise TypeError(
            f"reg_m: expected one number, received {describe(reg_m)}; give that of the target, for "
            "the law of the source is held."
        )
    reg_m, rounding = check_real("reg_m", reg_m, positive=True), _rounding(target)
    if reg_m < rounding:
        raise ValueError(
            f"reg_m: expected at least {rounding:.2g}, a rounding of these costs, received {reg_m:g}; "
            "use a larger one: at this one each point goes to the nearest atom."
        )
    _check_size("reg_m", reg_m, rounding, target, "at this one masses are the weights, so leave it out")
    return reg_m


def _rounding(target: Target) -> float:
    """Of a cost, 0 if there is but one atom."""
    with eager(target.nx):
        return rounding_of(target)


def _check_size(name: str, value: float, rounding: float, target: Target, why: str) -> None:
    """Refuse what the costs vanish beside, or the dtype has no inverse of."""
    largest = rounding / target.unit**2  # a rounding of which is a cost
    if 0 < largest < value:
        raise ValueError(
            f"{name}: expected at most {largest:.2g} for these costs and dtype, received {value:g}, a "
            "rounding of which, and so of the value, is larger than they are; use float64, or a smaller "
            f"{name}: {why}."
        )
    limits = finfo(target.weights, target.nx)
    least, most = 1e2 * float(limits.tiny), 1e-2 * float(limits.max)  # so that 1 / value is a number
    if value > most or 0 < value < least:
        raise ValueError(
            f"{name}: expected 0, or {least:.0e} to {most:.0e} for costs of this dtype, received "
            f"{value:g}; rescale the data, or cast them to float64."
        )
