"""Ranks, quantiles and depth in several dimensions."""

import math
from typing import Any

import numpy as np

from ..backend import Array, ours
from ..costs import SqEuclidean
from ..plan import SemiDiscretePlan, field, plan_target
from ..problem import build_target, check_count, check_points, check_real, rounding_of
from ..samplers.resolve import resolve_random, resolve_source
from .starts import resolve_n_points


class CenterOutwardRanks:
    r"""Center-outward ranks, quantile contours and depth, by transport from the spherical uniform law.

    With U = r s, the radius r uniform on [0, 1] and the direction s on the sphere, the map T of the
    result sends U to the data; it is the gradient of a convex function, and the quantile function. The
    rank of y is the mean of U under the plan, given that U goes to y:

    .. math::
        R(y) = \frac{\mathbb{E}\big[U e^{(\psi^{c,\lambda}(U) - |U - y|^2) / \lambda}\big]}
        {\mathbb{E}\big[e^{(\psi^{c,\lambda}(U) - |U - y|^2) / \lambda}\big]} .

    For an atom it is the barycentre of its cell, and it is continuous between atoms. At ``reg = 0`` it
    is the limit, a gradient of the conjugate convex function: still the barycentre for an atom, mostly a
    corner of cells for other points. For any law with a density and many atoms, norms of ranks are
    uniform on [0, 1] and directions are uniform on the sphere.

    Parameters
    ----------
    result : SemiDiscreteResult
        Of ``solve_semidiscrete(data, "spherical")``, for the squared distance. A larger `reg` moves
        ranks towards 0: take 1% of :func:`cost_scale` or less.
    n_points : int, optional
        Points for the expectations. By default 64 for each atom, at least 8,192.
    random_state : None, int, numpy Generator or RandomState, or torch Generator
        Randomness of these points.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind or range, or the cost is another.

    References
    ----------
    Chernozhukov, Galichon, Hallin, Henry, "Monge-Kantorovich Depth, Quantiles, Ranks and Signs", Annals
    of Statistics 45, 2017; Hallin, del Barrio, Cuesta-Albertos, Matran, "Distribution and Quantile
    Functions, Ranks and Signs in Dimension d", Annals of Statistics 49, 2021; Pooladian, Niles-Weed,
    "Entropic Estimation of Optimal Transport Maps", arXiv:2109.12004 (the map of a regularised plan).

    Examples
    --------
    On the line, ranks are those of order: ``(2 i + 1) / 4 - 1``.

    >>> import numpy as np
    >>> from pot_semidiscrete import solve_semidiscrete
    >>> from pot_semidiscrete.applications import CenterOutwardRanks
    >>> data = np.array([[3.0], [10.0], [-2.0], [5.0]])
    >>> result = solve_semidiscrete(data, "spherical", tol=0.02, random_state=0)
    >>> ranks = CenterOutwardRanks(result, random_state=0).ranks(data)[:, 0]
    >>> bool(np.allclose(ranks, [-0.25, 0.75, -0.75, 0.25], atol=0.02))
    True
    """

    @ours()
    def __init__(
        self, result: SemiDiscretePlan, *, n_points: int | None = None, random_state: Any = None
    ) -> None:
        target = plan_target(result, 'solve_semidiscrete(data, "spherical")')
        if not isinstance(target.cost, SqEuclidean):
            raise ValueError(
                f"result: expected one for the squared distance, received one of {target.cost.name!r}; "
                "solve again without metric."
            )
        self.result, self._random = result, resolve_random(random_state, target.nx, target.atoms)
        n_points = resolve_n_points(n_points, target.n_atoms)
        points = resolve_source("spherical", target.atoms, random_state)(n_points)
        self._points = build_target(points, merge=False).detached
        self._potential = result.c_transform(points)
        # at 0, the square root of the rounding: points of a cell tie to within that
        rounding = rounding_of(target) or rounding_of(self._points)  # of one atom, there is no cost
        self._reg = result.reg or rounding / math.sqrt(target.unit)

    def __repr__(self) -> str:
        n_points, d = self._points.atoms.shape
        return f"CenterOutwardRanks(dimension={d}, n_points={n_points}, reg={self._reg:.3g})"

    @ours()
    def ranks(self, x: Array) -> Array:
        """Ranks of points of the space of the data, in the unit ball.

        Parameters
        ----------
        x : array, shape (n, d)

        Returns
        -------
        array, shape (n, d)
        """
        x, _ = check_points("x", x, like=self._points.atoms)
        return field("map", self._points, self._points.center(x), self._potential, self._reg)

    @ours()
    def depth(self, x: Array) -> Array:
        """Depth of points, from 1 at the centre to 0: 1 less the norm of the rank.

        Parameters
        ----------
        x : array, shape (n, d)

        Returns
        -------
        array, shape (n,)
        """
        return 1.0 - self._points.nx.sum(self.ranks(x) ** 2, axis=1) ** 0.5

    @ours()
    def contour(self, level: float, n: int = 256) -> Array:
        """Points of the quantile contour that holds a share of `level` of the data: T of a sphere.

        Parameters
        ----------
        level : float
            In [0, 1]: the radius of the sphere.
        n : int, default=256
            Number of points: in the plane one after another along the curve, which they close; in other
            dimensions in random directions.

        Returns
        -------
        array, shape (n, d)
        """
        level, n = check_real("level", level), check_count("n", n)
        if level > 1.0:
            raise ValueError(f"level: expected a number in [0, 1], received {level}.")
        nx, atoms = self._points.nx, self._points.atoms
        if atoms.shape[1] == 2:
            angle = np.linspace(0.0, 2.0 * np.pi, n)
            direction = nx.from_numpy(np.stack([np.cos(angle), np.sin(angle)], axis=1), type_as=atoms)
        else:
            direction = self._random.normal(n, atoms.shape[1])
            direction = direction / nx.sum(direction**2, axis=1)[:, None] ** 0.5
        return self.result.ot_map(level * direction)
