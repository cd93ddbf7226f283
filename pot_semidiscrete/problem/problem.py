"""The door: arguments of users become a problem, once, and are trusted from then on."""

from dataclasses import dataclass, replace

import numpy as np

from ..backend import Array, Backend, capabilities, eager, is_foreign, is_traced
from ..costs import Metric, check_cost, resolve_metric
from .fingerprints import digest
from .target import Target
from .units import rounding_of
from .validation import check_points, check_real, check_vector, check_weights


@dataclass(frozen=True)
class Problem:
    """A target and the regularisation at which it is transported to.

    Attributes
    ----------
    target : Target
    reg : float
    """

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
        merge: bool = True,
    ) -> "Problem":
        """Check the arguments that describe a problem; see :func:`build_target`."""
        target = build_target(X_target, a_target, metric, merge=merge)
        return cls(target, check_reg(reg, target))

    @property
    def nx(self) -> Backend:
        """Backend of POT."""
        return self.target.nx

    def points(self, name: str, x: Array) -> Array:
        """A user's source points, checked, in the coordinates of the atoms."""
        x, nx = check_points(name, x, like=self.target.atoms)
        return self.target.center(capabilities(nx).owned(x))

    def potential(self, name: str, potential: Array) -> Array:
        """A user's potential, checked, at the support."""
        target = self.target
        all_atoms = target.atoms if target.support is None else target.scatter(target.weights)[:, None]
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
    them get all of their mass. With ``merge=False`` they are left as they are, and the target in the
    graph of the user's arrays: what is asked for at a given potential is right for copies, too.
    """
    X_target, nx = check_points("X_target", X_target)
    with eager(nx):
        target = _build(capabilities(nx).owned(X_target), nx, a_target, metric)
        return replace(target.detached.merged, digest=digest(X_target, nx)) if merge else target


def _build(X_target: Array, nx: Backend, a_target: Array | None, metric: Metric) -> Target:
    cost = resolve_metric(metric, nx)
    if is_foreign(type(cost)):
        check_cost(cost, X_target[-3:], X_target[:4], nx)  # no atom twice, if there are enough
    weights = capabilities(nx).owned(check_weights(a_target, X_target, nx))
    atoms, support, place = X_target, None, None
    if not is_traced(weights):
        positive = nx.to_numpy(nx.detach(weights)) > 0
        if not positive.all():
            support = capabilities(nx).index(np.flatnonzero(positive), X_target)
            place = np.where(positive, np.cumsum(positive) - 1, positive.sum())
            atoms, weights = atoms[support], weights[support]
    origin = None
    if cost.translation_invariant:
        # any constant will do: the cost does not see it, so it stays out of the graph
        origin = nx.detach(nx.dot(weights, atoms))
        atoms = atoms - origin
    return Target(atoms, weights, origin, support, X_target.shape[0], cost, place)


def check_reg(reg: object, target: Target) -> float:
    """Check a regularisation that costs can be divided by, and take 0 for what is as good as 0.

    That is what is below the rounding of a cost: the dtype does not have the differences that it would
    tell apart. Results have the `reg` that was used.
    """
    reg = check_real("reg", reg)
    with eager(target.nx):
        rounding = rounding_of(target)
    if 0 < reg < rounding:
        return 0.0
    largest = rounding / target.unit**2  # a rounding of which is a cost
    if 0 < largest < reg:
        raise ValueError(
            f"reg: expected at most {largest:.2g} for these costs and this dtype, received {reg:g}, a "
            "rounding of which, and so of the value, is larger than they are; use float64, or a smaller "
            "reg: at this one the plan is the product of the measures."
        )
    dtype = np.finfo("float32" if target.nx.bitsize(target.atoms) == 32 else "float64")
    least, most = 1e2 * float(dtype.tiny), 1e-2 * float(dtype.max)  # so that 1 / reg is a number, too
    if reg > most or 0 < reg < least:
        raise ValueError(
            f"reg: expected 0, or {least:.0e} to {most:.0e} for costs of this dtype, received {reg:g}; "
            "rescale the data, or cast them to float64."
        )
    return reg
