"""What users differentiate: the semi-dual value and the fields of a potential, at a built target."""

from .backend import Array, capabilities
from .costs import CallableMetric
from .kernels import reduce
from .problem import Target


def is_tracked(target: Target, *arrays: Array) -> bool:
    """Tell whether a gradient may be asked for in the arrays or the target, its metric included."""
    arrays += (target.atoms, target.weights)
    if isinstance(target.cost, CallableMetric):
        y = target.nx.detach(target.atoms[:1])
        arrays += (target.cost.matrix(y, y, target.nx),)
    return capabilities(target.nx).tracks_gradient(*arrays)


def field(name: str, target: Target, x: Array, potential: Array, reg: float) -> Array:
    """One output of a reduction over all atoms, differentiable if a gradient may be asked for.

    Parameters
    ----------
    name : str
        Of a field of :class:`pot_semidiscrete.kernels.Reduction`.
    target : Target
    x : array, shape (n, d)
        In the target's coordinates, as everywhere here.
    potential : array, shape (n_support,)
    reg : float
    """
    tracked = is_tracked(target, x, potential)
    values = getattr(reduce(target, x, potential, reg, (name,), differentiable=tracked), name)
    if name == "weights":
        return target.distribute(values, axis=1)
    return values + target.origin if name == "map" and target.origin is not None else values


def semi_dual(target: Target, x: Array, potential: Array, reg: float) -> Array:
    r"""Monte-Carlo semi-dual ``mean_i psi^{c,reg}(x_i) + <b, psi>``.

    By the envelope theorem, one reduction gives the value, ``chi d_x c`` (its gradient in x, times n)
    and the column sums (``b - m`` is its gradient in psi): Houdard et al., and formula (G) of the theory
    page. If the target itself is tracked, by differentiating each block.
    """
    if is_tracked(target):
        out = reduce(target, x, potential, reg, differentiable=True)
        return target.semi_dual(out.c_transform, potential)
    target, n = target.detached, x.shape[0]

    def evaluate(
        arrays: tuple[Array, ...], needed: tuple[bool, ...]
    ) -> tuple[Array, tuple[Array | None, ...]]:
        x, potential = arrays
        # the second product of a reduction is for the gradient in x: skip it if unasked
        outputs = ("c_transform",) + ("colsum",) * any(needed) + ("gradient",) * needed[0]
        out = reduce(target, x, potential, reg, outputs)
        gradients = (
            None if out.gradient is None else out.gradient / n,
            None if out.colsum is None else target.weights - out.colsum / n,
        )
        return target.semi_dual(out.c_transform, potential), gradients

    return capabilities(target.nx).with_gradients(evaluate, x, potential)
