"""The contract of a ground cost, and the registry of those with a name."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from ..backend import Array, Backend, capabilities, check_free, describe


class UnknownGradientError(TypeError):
    """The gradient of a cost is not known on a backend."""


class Weights(Protocol):
    """Assignment weights ``chi`` of a block of points, however they are stored.

    Averages need no matrix at ``reg = 0``: prefer them.
    """

    def average(self, values: Array) -> Array:
        """``sum_j chi_ij values_j``, for values of shape (n_atoms, k)."""

    def dense(self) -> Array:
        """``chi``, shape (n, n_atoms)."""


class Cost(ABC):
    """A ground cost ``c(x, y)``. To write one, give it a name and its :meth:`matrix`.

    Where the cost is a sum of a term of each point and a product of matrices, be a
    :class:`SeparableCost`: it is faster, and its blocks are made in place. The gradient, if it is not
    given, is that of automatic differentiation, where the backend has it.

    Attributes
    ----------
    name : str
        As users give it, and as errors and files name it, constants included.
    translation_invariant : bool
        Whether moving both points by one vector leaves the cost alone: the data are then centred.
    """

    name = ""
    translation_invariant = False
    _is_separable = False

    def __init_subclass__(cls, **options: object) -> None:
        """Refuse a class that says its cost twice: one of the two would be added to the other."""
        super().__init_subclass__(**options)
        if "_is_separable" in vars(cls):
            return
        terms = ("source_term", "target_term", "factors")
        twice = [name for name in (("matrix",) if cls._is_separable else terms) if name in vars(cls)]
        if twice:
            kind, other = ("SeparableCost", "its terms") if cls._is_separable else ("Cost", "its matrix")
            raise TypeError(
                f"{cls.__name__}: expected a {kind} that says its cost by {other} only, received "
                f"{', '.join(twice)}, too; leave them out, or be the other kind."
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @classmethod
    def available(cls, nx: Backend) -> bool:
        """Whether the cost can be computed on a backend."""
        return True

    @abstractmethod
    def matrix(self, x: Array, y: Array, nx: Backend) -> Array:
        """Costs, ``(n, n_atoms)``, of points ``(n, d)`` and atoms ``(n_atoms, d)``."""

    def source_term(self, x: Array, nx: Backend) -> Array:
        """Term of the cost that depends on the source point only, ``(n,)``."""
        return 0.0 * x[:, 0]

    def target_term(self, y: Array, nx: Backend) -> Array:
        """Term of the cost that depends on the atom only, ``(n_atoms,)``."""
        return 0.0 * y[:, 0]

    def factors(self, x: Array, y: Array, scale: float, nx: Backend) -> tuple[Array, Array] | None:
        """``u, v`` with ``u v^T`` the same as :meth:`bilinear`, or None if it is no product."""
        return None

    def bilinear(
        self, x: Array, y: Array, scale: float, nx: Backend, matmul: Callable | None = None
    ) -> Array:
        """``scale`` times what is left, ``source_term + target_term - c``, ``(n, n_atoms)``.

        Parameters
        ----------
        matmul : callable, optional
            ``(u, v) -> u v^T``, in the memory of a kernel.
        """
        factors = self.factors(x, y, scale, nx)
        if factors is None:
            return -scale * self.matrix(x, y, nx)
        u, v = factors
        return nx.dot(u, v.T) if matmul is None else matmul(u, v)

    def source_mean(self, x: Array, y: Array, share: Array, nx: Backend) -> Array:
        """``sum_i share_i bilinear_ij``, ``(n_atoms,)``: of a product, without making it."""
        factors = self.factors(x, y, 1.0, nx)
        if factors is None:
            return nx.dot(share, self.bilinear(x, y, 1.0, nx))
        u, v = factors
        return nx.dot(v, nx.dot(share, u))

    def target_mean(self, x: Array, y: Array, law: Array, nx: Backend) -> Array:
        """``sum_j law_j bilinear_ij``, ``(n,)``: of a product, without making it."""
        factors = self.factors(x, y, 1.0, nx)
        if factors is None:
            return nx.dot(self.bilinear(x, y, 1.0, nx), law)
        u, v = factors
        return nx.dot(u, nx.dot(law, v))

    def weighted_mean(self, x: Array, y: Array, chi: Weights, nx: Backend) -> Array:
        """``sum_j chi_ij bilinear_ij``, ``(n,)``."""
        factors = self.factors(x, y, 1.0, nx)
        if factors is None:
            return nx.sum(chi.dense() * self.bilinear(x, y, 1.0, nx), axis=1)
        u, v = factors
        return nx.sum(u * chi.average(v), axis=1)

    def vjp(self, x: Array, y: Array, chi: Weights, nx: Backend) -> Array:
        """``sum_j chi_ij d_x c(x_i, y_j)``, ``(n, d)``."""
        able = capabilities(nx)
        if not able.differentiates:
            known = [name for name in registered_costs(nx) if _CLASSES[name].vjp is not Cost.vjp]
            raise UnknownGradientError(
                f"metric {self.name!r}: its gradient in the source points is not known on the "
                f"{able.name} backend; use one of {', '.join(known)}, give a differentiable callable "
                "with torch or jax, or your Cost a vjp."
            )
        return able.vjp(lambda points: self.matrix(points, y, nx), x, chi.dense())


class SeparableCost(Cost):
    """A cost ``source_term(x) + target_term(y) - <u(x), v(y)>``: give it these.

    Parts that depend on one point only never make a matrix.
    """

    _is_separable = True

    @abstractmethod
    def factors(self, x: Array, y: Array, scale: float, nx: Backend) -> tuple[Array, Array]:
        """``u, v``, shapes (n, k) and (n_atoms, k), with ``u v^T`` ``scale`` times the product."""

    def matrix(self, x: Array, y: Array, nx: Backend) -> Array:
        """Costs, from the terms."""
        u, v = self.factors(x, y, 1.0, nx)
        terms = self.source_term(x, nx)[:, None] + self.target_term(y, nx)[None, :]
        return terms - nx.dot(u, v.T)


_NAMED: dict[str, Callable[..., Cost]] = {}
_CLASSES: dict[str, type[Cost]] = {}


def register_cost(cost: type[Cost], *names: str, make: Callable[[], Cost] | None = None) -> type[Cost]:
    """Make a cost known by a name, as `metric`. A decorator, if it has no other name than its own.

    Parameters
    ----------
    cost : subclass of Cost
    *names : str
        Its own name if left out.
    make : callable, optional
        ``() -> Cost``; the class itself if left out, which then takes no arguments.

    Returns
    -------
    subclass of Cost
        The same.

    Raises
    ------
    TypeError
        If it is no subclass of :class:`Cost`, has no name, or cannot be made.
    ValueError
        If a name is that of another class.

    Examples
    --------
    >>> import ot
    >>> import numpy as np
    >>> from pot_semidiscrete import cost_scale
    >>> from pot_semidiscrete.costs import Cost, register_cost
    >>> @register_cost
    ... class Quartic(Cost):
    ...     name = "quartic"
    ...
    ...     def matrix(self, x, y, nx):
    ...         return ot.dist(x, y) ** 2
    >>> cost_scale(np.array([[0.0], [2.0]]), metric="quartic")
    8.0
    """
    if not (isinstance(cost, type) and issubclass(cost, Cost)):
        raise TypeError(f"cost: expected a subclass of Cost, received {describe(cost)}.")
    if make is None:
        _check_made_of_nothing(cost)
    names = names or (cost.name,)
    for name in names:
        if not (isinstance(name, str) and name):
            raise TypeError(
                f"name: expected a name for {cost.__name__}, received {name!r}; give it one."
            )
        check_free(name, _CLASSES, cost)
    for name in names:
        _NAMED[name], _CLASSES[name] = make or cost, cost
    return cost


def _check_made_of_nothing(cost: type[Cost]) -> None:
    """Check that a class can be called without arguments."""
    if inspect.isabstract(cost):
        missing = ", ".join(sorted(cost.__abstractmethods__))
        raise TypeError(
            f"cost: expected a class that can be made, received {cost.__name__}, which lacks {missing}; "
            "define it, or give make=, a function that returns a Cost."
        )
    try:
        inspect.signature(cost).bind()
    except TypeError as error:
        raise TypeError(
            f"cost: expected a class that takes no arguments, received {cost.__name__} ({error}); give "
            f"make=, as in make=lambda: {cost.__name__}(...)."
        ) from None


def registered_costs(nx: Backend | None = None) -> dict[str, Callable[[], Cost]]:
    """Makers of the costs that have a name, of those that a backend can compute if one is given."""
    return {name: make for name, make in _NAMED.items() if nx is None or _CLASSES[name].available(nx)}


def cost_of(name: object, nx: Backend, *constants: object) -> Cost:
    """The cost of a name, which may take constants."""
    if not isinstance(name, str):
        raise TypeError(
            f"metric: expected None, a name or a callable (x, y) -> matrix, received {describe(name)}."
        )
    known = registered_costs(nx)
    if name not in known:
        raise ValueError(
            f"metric: expected a callable or, on the {capabilities(nx).name} backend, one of "
            f"{', '.join(known)}, received {name!r}."
        )
    try:
        cost = known[name](*constants)
    except TypeError as error:
        if not constants:
            raise
        raise TypeError(
            f"metric: expected {name!r}, or constants that it takes, received {constants}: {error}."
        ) from error
    if not isinstance(cost, Cost):
        raise TypeError(f"metric {name!r}: expected a Cost of its make, received {describe(cost)}.")
    return cost
