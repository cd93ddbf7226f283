"""The semi-dual at a given potential: transform, weights, map, gradient, value."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from .backend import Array, is_traced, joint, ours
from .costs import Metric
from .plan import field, semi_dual
from .problem import Problem, Target, build_target, resolve_shards, scale_of

Function = TypeVar("Function", bound=Callable)
_ORDER = ["Parameters", "Returns", "Raises", "References", "Examples"]  # of sections


def _checked(
    X_target: Array,
    X_source: Array,
    semi_dual_potential: Array,
    a_target: Array | None,
    metric: Metric,
    reg: float,
    **options: Any,
) -> tuple[Target, Array, Array, float]:
    """Check the arguments that all functions here share, and the price of masses."""
    problem = Problem.of(X_target, a_target, metric, reg, merge=False, **options)
    x = problem.points("X_source", X_source)
    potential = problem.potential("semi_dual_potential", semi_dual_potential)
    return problem.target, x, potential, problem.reg


def _field(name: str, X_target: Any, *arguments: Any) -> Array:
    """One output of a reduction, by arguments as users give them."""
    X_target, ranks = resolve_shards(X_target)
    with joint(ranks):
        return field(name, *_checked(X_target, *arguments))


@ours()
def semidiscrete_c_transform(
    X_target: Array,
    X_source: Array,
    semi_dual_potential: Array,
    a_target: Array | None = None,
    metric: Metric = None,
    reg: float = 0.0,
) -> Array:
    r"""(c, reg)-transform of a semi-dual potential at source points.

    .. math::
        \psi^{c,\lambda}(x) = -\lambda \log \sum_j b_j
        \exp\!\big((\psi_j - c(x, y_j)) / \lambda\big), \qquad
        \psi^{c,0}(x) = \min_{j : b_j > 0} c(x, y_j) - \psi_j .

    Parameters
    ----------
    X_target : array, shape (n_atoms, d)
        Atoms :math:`y_j`; also :class:`StoredAtoms`, or :class:`ShardedAtoms`, whose processes all make
        the call, each with its own points.
    X_source : array, shape (n, d)
        Source points, of the backend, dtype and device of `X_target`.
    semi_dual_potential : array, shape (n_atoms,)
        Potential :math:`\psi`, in units of the metric.
    a_target : array, shape (n_atoms,), optional
        Weights :math:`b`, non-negative, of sum 1. Uniform by default.
    metric : str, tuple, callable or Cost, optional
        Ground cost :math:`c`: a name of :func:`ot.dist`, or one with constants, ``("minkowski", 3)``;
        ``(x, y) -> matrix``; or a :class:`costs.Cost`. ``"sqeuclidean"`` by default.
    reg : float, default=0.0
        Regularisation :math:`\lambda \ge 0`, in units of the metric; taken as 0 below the rounding of
        the costs.

    Returns
    -------
    array, shape (n,)
        The transform, in units of the metric; differentiable in every array given (in the weights,
        on their support and with their sum kept).

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape, dtype or range.

    References
    ----------
    Houdard, Leclaire, Papadakis, Rabin, "On the Existence of Optimal Transport Gradient for
    Learning Generative Models", arXiv:2102.05542 (the semi-discrete setting).

    Examples
    --------
    >>> import numpy as np
    >>> from pot_semidiscrete import semidiscrete_c_transform
    >>> atoms = np.array([[0.0], [1.0]])
    >>> semidiscrete_c_transform(atoms, np.array([[0.25], [2.0]]), np.zeros(2))
    array([0.0625, 1.    ])
    """
    return _field("c_transform", X_target, X_source, semi_dual_potential, a_target, metric, reg)


def _with(*sections: str) -> Callable[[Function], Function]:
    """Fill in sections of the docstring of :func:`semidiscrete_c_transform`, and enter our states."""

    def decorate(function: Function) -> Function:
        function = ours()(function)
        if function.__doc__ is None:  # python -OO
            return function
        full, doc = (inspect.getdoc(f) or "" for f in (semidiscrete_c_transform, function))
        for name in sections:
            later = _ORDER[_ORDER.index(name) + 1 :]
            section = full[full.index(f"{name}\n---") : full.index(f"{later[0]}\n---")]
            place = next(place for place in later if f"{place}\n---" in doc)
            doc = doc.replace(f"{place}\n---", f"{section}{place}\n---")
        function.__doc__ = doc + "\n"
        return function

    return decorate


@_with("Parameters", "Raises", "References")
def semidiscrete_atom_weights(
    X_target: Array,
    X_source: Array,
    semi_dual_potential: Array,
    a_target: Array | None = None,
    metric: Metric = None,
    reg: float = 0.0,
) -> Array:
    r"""Assignment weights of source points to atoms.

    .. math::
        \chi_j(x) = \frac{b_j \exp((\psi_j - c(x, y_j)) / \lambda)}
        {\sum_k b_k \exp((\psi_k - c(x, y_k)) / \lambda)},

    the indicator of the Laguerre cell of :math:`y_j` at :math:`\lambda = 0`.

    The arguments are those of :func:`semidiscrete_c_transform`.

    Returns
    -------
    array, shape (n, n_atoms)
        Weights, each row of sum 1; the columns of atoms of weight 0 are 0. The one function whose
        result grows as (samples x atoms).

    Examples
    --------
    >>> import numpy as np
    >>> from pot_semidiscrete import semidiscrete_atom_weights
    >>> atoms = np.array([[0.0], [1.0]])
    >>> semidiscrete_atom_weights(atoms, np.array([[0.5], [2.0]]), np.zeros(2), reg=1.0).round(3)
    array([[0.5  , 0.5  ],
           [0.047, 0.953]])
    """
    return _field("weights", X_target, X_source, semi_dual_potential, a_target, metric, reg)


@_with("Parameters", "Raises", "References")
def semidiscrete_ot_map(
    X_target: Array,
    X_source: Array,
    semi_dual_potential: Array,
    a_target: Array | None = None,
    metric: Metric = None,
    reg: float = 0.0,
) -> Array:
    r"""Barycentric projection :math:`T(x) = \sum_j \chi_j(x) y_j` of source points.

    At ``reg = 0``, the optimal transport map: the atom of the Laguerre cell that holds ``x``.

    The arguments are those of :func:`semidiscrete_c_transform`.

    Returns
    -------
    array, shape (n, d)
        Images of the source points, in units of the atoms.

    Examples
    --------
    >>> import numpy as np
    >>> from pot_semidiscrete import semidiscrete_ot_map
    >>> atoms = np.array([[0.0], [1.0]])
    >>> semidiscrete_ot_map(atoms, np.array([[0.25], [2.0]]), np.zeros(2))
    array([[0.],
           [1.]])
    """
    return _field("map", X_target, X_source, semi_dual_potential, a_target, metric, reg)


@_with("Parameters")
def semidiscrete_gradient(
    X_target: Array,
    X_source: Array,
    semi_dual_potential: Array,
    a_target: Array | None = None,
    metric: Metric = None,
    reg: float = 0.0,
) -> Array:
    r"""Gradient of the (c, reg)-transform in the source points.

    .. math::
        \nabla \psi^{c,\lambda}(x) = \sum_j \chi_j(x)\, \partial_x c(x, y_j),

    which is :math:`2 (x - T(x))` for ``"sqeuclidean"``. At ``reg = 0`` it exists only inside the
    Laguerre cells; on a boundary, that of one of the cells is returned.

    The arguments are those of :func:`semidiscrete_c_transform`.

    Returns
    -------
    array, shape (n, d)
        Gradients, in units of the metric per unit of the atoms.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape, dtype or range, or the gradient of the metric is
        not known on that backend.

    References
    ----------
    Houdard, Leclaire, Papadakis, Rabin, arXiv:2102.05542 (the semi-discrete setting).

    Examples
    --------
    >>> import numpy as np
    >>> from pot_semidiscrete import semidiscrete_gradient
    >>> atoms = np.array([[0.0], [1.0]])
    >>> semidiscrete_gradient(atoms, np.array([[0.25], [2.0]]), np.zeros(2))
    array([[0.5],
           [2. ]])
    """
    return _field("gradient", X_target, X_source, semi_dual_potential, a_target, metric, reg)


@_with("Parameters", "Raises")
def semidiscrete_loss(
    X_target: Array,
    X_source: Array,
    semi_dual_potential: Array,
    a_target: Array | None = None,
    metric: Metric = None,
    reg: float = 0.0,
    *,
    reg_m: float | None = None,
    reg_m_type: str = "kl",
) -> Array:
    r"""Monte-Carlo semi-dual value, differentiable by the envelope formula.

    .. math::
        \hat H(\psi) = \frac1n \sum_i \psi^{c,\lambda}(x_i) + \langle b, \psi \rangle .

    Its expectation is at most :math:`\mathrm{OT}_\lambda(\mu, \nu)`, with equality at an optimal
    potential. It is differentiable in every array given. At an optimal potential the gradients in the
    source points, the atoms and the weights are those of the transport cost (the first is :ref:`formula
    (G) <formula-G>`):

    - in the source points, :math:`\nabla \psi^{c,\lambda}(x_i) / n`;
    - in the atoms, :math:`\frac1n \sum_i \chi_j(x_i)\, \partial_y c(x_i, y_j)`;
    - in the potential, :math:`b - m`, with the masses :math:`m = \frac1n \sum_i \chi(x_i)`;
    - in the weights, on their support and with their sum kept, :math:`\psi_j - \lambda\, m_j / b_j`, up
      to a constant.

    With a `reg_m` of :math:`\rho`, the soft minimum :math:`-\rho \log \sum_j b_j e^{-\psi_j / \rho}`
    replaces :math:`\langle b, \psi \rangle`. In the gradients the masses :math:`g_j \propto b_j
    e^{-\psi_j / \rho}` replace b in :math:`b - m`, and :math:`-\rho\, g_j / b_j` replaces :math:`\psi_j`
    in the last line.

    Memory is that of one block of the cost.

    The arguments are those of :func:`semidiscrete_c_transform`, and `reg_m`.

    Returns
    -------
    scalar of the backend
        The value, in units of the metric.

    Other Parameters
    ----------------
    reg_m : float, optional
        Price of masses other than b, in units of the metric, as in :func:`solve_semidiscrete`.
    reg_m_type : "kl"
        The divergence of the masses.

    References
    ----------
    Houdard et al., arXiv:2102.05542, the theorem on the gradient of the regularised cost.

    Examples
    --------
    >>> import numpy as np
    >>> from pot_semidiscrete import semidiscrete_loss
    >>> atoms = np.array([[0.0], [1.0]])
    >>> print(semidiscrete_loss(atoms, np.array([[0.25], [2.0]]), np.zeros(2)))
    0.53125
    """
    X_target, ranks = resolve_shards(X_target)
    arguments = (X_target, X_source, semi_dual_potential, a_target, metric, reg)
    with joint(ranks):
        return semi_dual(*_checked(*arguments, reg_m=reg_m, reg_m_type=reg_m_type))


@ours()
def cost_scale(X_target: Array, a_target: Array | None = None, metric: Metric = None) -> float:
    r"""Mean cost between two atoms drawn independently: the unit in which to choose `reg`.

    .. math:: \sum_{jk} b_j b_k\, c(y_j, y_k)

    For ``"sqeuclidean"`` it is twice the trace of the covariance of the target: unlike the mean of
    :math:`|y|^2`, it does not depend on where the origin is. A `reg` of 1% of it is a good start.

    Parameters
    ----------
    X_target : array, shape (n_atoms, d)
        Atoms :math:`y_j`.
    a_target : array, shape (n_atoms,), optional
        Weights :math:`b`, non-negative, of sum 1. Uniform by default.
    metric : str or callable, optional
        Ground cost, as in :func:`semidiscrete_c_transform`. Above 4,096 atoms, costs other than
        ``"sqeuclidean"`` are averaged over evenly spaced rows.

    Returns
    -------
    float
        The scale, in units of the metric.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape, dtype or range.

    Examples
    --------
    >>> import numpy as np
    >>> from pot_semidiscrete import cost_scale
    >>> cost_scale(np.array([[0.0], [1.0]]))
    0.5
    """
    X_target, ranks = resolve_shards(X_target)
    with joint(ranks):
        target = build_target(X_target, a_target, metric, merge=False).detached
        if is_traced(target.like):
            raise TypeError(
                "X_target: expected atoms that are known, received those of a function that is traced; "
                "ask for their scale outside of it."
            )
        return scale_of(target)
