"""Whether a cost keeps its contract, at a few points."""

import numpy as np

from ..backend import Array, Backend, is_traced
from .base import Cost


def check_cost(cost: Cost, x: Array, y: Array, nx: Backend) -> None:
    """Check what a :class:`Cost` says of a few points: kinds, and that its parts agree.

    Targets do so for each cost that is not the package's own. That the matrix is the cost that you mean
    only your own test can tell.

    Parameters
    ----------
    cost : Cost
        To be checked.
    x, y : array, shapes (n, d) and (m, d)
        Points, n and m different, so that a matrix is not mistaken for its transpose.
    nx : ot.backend.Backend
        Backend of the points.

    Raises
    ------
    ValueError
        If a shape or a dtype is wrong, costs are not finite, ``factors`` not in proportion to `scale`,
        or costs change as all points move though the cost is said to be translation invariant.

    Examples
    --------
    >>> import numpy as np
    >>> from ot.backend import NumpyBackend
    >>> from pot_semidiscrete.costs import SqEuclidean, check_cost
    >>> check_cost(SqEuclidean(), np.ones((2, 3)), np.zeros((4, 3)), NumpyBackend())
    """
    if is_traced(x) or is_traced(y):
        return
    n, m = x.shape[0], y.shape[0]
    for name, make, shape in (
        ("source_term(x, nx)", lambda: cost.source_term(x, nx), (n,)),
        ("target_term(y, nx)", lambda: cost.target_term(y, nx), (m,)),
        ("bilinear(x, y, 1.0, nx)", lambda: cost.bilinear(x, y, 1.0, nx), (n, m)),
        ("matrix(x, y, nx)", lambda: cost.matrix(x, y, nx), (n, m)),
    ):
        value = make()
        received = tuple(getattr(value, "shape", ())), getattr(value, "dtype", type(value).__name__)
        if received != (shape, x.dtype):
            raise ValueError(
                f"metric {cost.name!r}: expected {name} of shape {shape} and dtype {x.dtype}, received "
                f"shape {received[0]}, dtype {received[1]}; make constants with nx.from_numpy(..., "
                "type_as=x)."
            )
    matrix, once, thrice = (
        nx.to_numpy(nx.detach(v)).astype(float)
        for v in (cost.matrix(x, y, nx), *(cost.bilinear(x, y, s, nx) for s in (1.0, 3.0)))
    )
    if not np.isfinite(matrix).all():
        raise ValueError(f"metric {cost.name!r}: expected finite costs, received NaN or inf.")
    size = 1e-3 * (np.abs(matrix).max() + np.abs(once).max())
    if np.abs(3.0 * once - thrice).max() > size:
        raise ValueError(
            f"metric {cost.name!r}: expected factors in proportion to scale, received those at scale 3 "
            "that are not 3 times those at 1; multiply one of the two factors by it, once."
        )
    if cost.translation_invariant:
        shift = nx.max(nx.abs(x - y[:1]))
        moved = nx.to_numpy(nx.detach(cost.matrix(x + shift, y + shift, nx))).astype(float)
        if np.abs(moved - matrix).max() > size:
            raise ValueError(
                f"metric {cost.name!r}: expected costs that stay as all points move by one vector, "
                "received others; leave out translation_invariant, or mend the matrix."
            )
