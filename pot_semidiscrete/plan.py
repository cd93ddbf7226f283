"""The plan of a potential, at a built target: what users differentiate, and its pairs."""

from collections.abc import Callable
from typing import Any

from .backend import Array, capabilities, converted, describe, ours, template
from .costs import CallableMetric
from .diagnostics import GradientDiagnostics, diagnose
from .inference.errors import SampleFit
from .inference.estimates import Estimates, StoredEstimates
from .kernels import draw_atoms, reduce
from .problem import (
    Problem,
    Target,
    check_callable,
    check_lengths,
    of_own_points,
    together,
)
from .samplers.resolve import resolve_random


def is_tracked(target: Target, *arrays: Array) -> bool:
    """Tell whether a gradient may be asked for in the arrays or the target, its metric included."""
    arrays += (target.like, target.weights)
    if isinstance(target.cost, CallableMetric):
        y = target.nx.detach(target.like[:1])
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
    r"""Monte-Carlo semi-dual ``mean_i psi^{c,reg}(x_i) + <b, psi>``, or with the soft minimum of psi.

    By the envelope theorem, one reduction gives the value, ``chi d_x c`` (its gradient in x, times n)
    and the column sums (``b - m``, b the goal, is its gradient in psi): Houdard et al., and formula (G)
    of the theory page. If the target itself is tracked, by differentiating each block.
    """
    if is_tracked(target):
        out = reduce(target, x, potential, reg, differentiable=True)
        return target.semi_dual(out.c_transform, potential)
    target, n = target.detached, float(x.shape[0])

    def evaluate(
        arrays: tuple[Array, ...], needed: tuple[bool, ...]
    ) -> tuple[Array, tuple[Array | None, ...]]:
        x, potential = arrays
        # each takes another pass over the block: what is not asked for is skipped
        outputs = ("c_transform",) + ("gradient",) * needed[0] + ("colsum",) * needed[1]
        out = reduce(target, x, potential, reg, outputs)
        gradients = (
            None if out.gradient is None else out.gradient / n,
            None if out.colsum is None else target.goal(potential) - out.colsum / n,
        )
        return target.semi_dual(out.c_transform, potential), gradients

    return capabilities(target.nx).with_gradients(evaluate, x, potential)


def draw_pairs(target: Target, x: Array, potential: Array, reg: float, random_state: Any) -> Array:
    """An atom for each of the points `x`, in the target's coordinates, so that pairs follow the plan.

    Returns
    -------
    array of int, shape (n,)
        Rows of the user's atoms.
    """
    nx = target.nx
    if random_state is None:
        random_state = capabilities(nx).shared_seed()
    random = resolve_random(random_state, nx, target.like)
    uniform = lambda n: random.uniform(n, 1)[:, 0]
    index = draw_atoms(target, x, potential, reg, uniform)
    return target.rows(index, lambda n: nx.to_numpy(uniform(n)))


class SemiDiscretePlan:
    """The base of :class:`SemiDiscreteResult`: what a potential tells of source points.

    Parameters
    ----------
    target : Target
    potential : array, shape (n_support,)
    reg : float
    """

    def __init__(self, target: Target, potential: Array, reg: float) -> None:
        self._target, self._potential, self.reg = of_own_points(target), potential, reg

    @ours()
    def to(self, where: Any) -> "SemiDiscretePlan":
        """The same in another backend or dtype, or on another device: what a result has of it."""
        _, target, potential = self._moved(where)
        return SemiDiscretePlan(target, potential, self.reg)

    def _moved(self, where: Any) -> tuple[Callable[[Array], Array], Target, Array]:
        """What moves an array where a user asks for, and the target and the potential there."""
        like = template("where", where, self._target.like)
        self._check_whole("to")
        convert = lambda array: converted(array, like)
        target = self._target.map(convert)
        check_lengths("where", target.like, target.nx, "ask for float64")
        return convert, target, convert(self._potential)

    @property
    def reg_m(self) -> float:
        """Price of masses other than the weights, ``inf`` if they are held to be these."""
        return self._target.reg_m

    @property
    @ours()
    def potential_b(self) -> Array:
        """Semi-dual potential on the atoms, of weighted mean 0 (or soft minimum 0, with `reg_m`)."""
        return self._target.scatter(self._potential)

    @property
    def potential(self) -> Array:
        """The same as `potential_b`."""
        return self.potential_b

    def c_transform(self, x: Array) -> Array:
        """Potential of the source at `x`: :func:`semidiscrete_c_transform`, shape (n,)."""
        return self._field("c_transform", x)

    def atom_weights(self, x: Array) -> Array:
        """Assignment weights of `x`: :func:`semidiscrete_atom_weights`, shape (n, n_atoms)."""
        return self._field("weights", x)

    def ot_map(self, x: Array) -> Array:
        """Barycentric image of `x`: :func:`semidiscrete_ot_map`, shape (n, d)."""
        return self._field("map", x)

    def _owned(self, value: Any) -> Any:
        """An array as it is used outside of inference mode, whatever mode it was read in."""
        return capabilities(self._target.nx).owned(value)

    @ours()
    def _field(self, name: str, x: Array) -> Array:
        with together(self._target):
            return field(name, self._target, self._points(x), self._potential, self.reg)

    def _points(self, x: Array) -> Array:
        """A user's points, checked, in the coordinates of the target."""
        return Problem(self._target, self.reg).points("x", x)

    def _check_whole(self, name: str) -> None:
        """Refuse what is not done where atoms are sharded."""
        if self._target.shard is not None:
            raise TypeError(
                f"{name}: expected a result whose atoms this process has, received sharded ones; "
                "save it, and load it where they fit."
            )

    @ours()
    def pair(self, x: Array, random_state: Any = None) -> Array:
        """Draw an atom for each source point, so that the pairs follow the plan.

        Parameters
        ----------
        x : array, shape (n, d)
            Source points.
        random_state : None, int or generator
            Randomness of the draw. At ``reg = 0`` the cell decides, and only atoms at one place are
            drawn from. With None and torch data, the seed is from torch's global generator:
            ``torch.manual_seed`` decides, and in a ``DataLoader`` the seed of the worker. This is the
            only such use in the package. For other data the operating system gives a new seed in each
            call.

        Returns
        -------
        array of int, shape (n,)
            Rows of `X_target`.
        """
        with together(self._target):
            x = self._points(x)
            return draw_pairs(self._target, x, self._potential, self.reg, random_state)

    @ours()
    def diagnose(self, x: Array) -> GradientDiagnostics:
        """Tell whether the generator gradient exists: :func:`gradient_diagnostics`.

        Parameters
        ----------
        x : array, shape (n, d)
            Fresh source points, or the whole of a finite source.

        Returns
        -------
        GradientDiagnostics
            The verdict, and what it rests on.
        """
        self._check_whole("diagnose")
        x = self._target.nx.detach(self._points(x))
        return diagnose(self._target, x, self._potential, self.reg)


def plan_target(result: Any, call: str) -> Target:
    """The target of a `result` that a user gave, all of whose atoms this process has."""
    if not isinstance(result, SemiDiscretePlan):
        raise TypeError(
            f"result: expected a SemiDiscreteResult, received {describe(result)}; give that of {call}."
        )
    result._check_whole("result")
    return result._target


class EstimatedPlan(SemiDiscretePlan):
    """A plan whose potential has standard errors: :class:`SemiDiscreteResult` is one.

    Parameters
    ----------
    target : Target
    potential : array, shape (n_support,)
        Normalized.
    reg : float
    estimates : Estimates, StoredEstimates or SampleFit
    """

    def __init__(
        self,
        target: Target,
        potential: Array,
        reg: float,
        estimates: Estimates | StoredEstimates | SampleFit,
    ) -> None:
        SemiDiscretePlan.__init__(self, target, potential, reg)
        self._estimates: Any = estimates

    @ours()
    def to(self, where: Any) -> "EstimatedPlan":
        """The same in another backend or dtype, or on another device, standard errors included."""
        convert, target, potential = self._moved(where)
        return EstimatedPlan(target, potential, self.reg, self._estimates.stored().map(convert))

    @property
    @ours()
    def potential_stderr(self) -> Array:
        r"""Standard error of `potential`, shape (n_atoms,): 0 at atoms of weight 0.

        .. math:: \big( (\psi - \psi_n)^2 + \mathrm{diag}(A^+ \Sigma A^+) / n \big)^{1/2}, \qquad
            A = -\nabla^2 H(\psi_n), \quad \Sigma = \mathrm{Cov}\, \chi(X) .

        :math:`\psi_n` maximises the average over n points: the fresh ones of the result, or those of the
        run that Newton's method was used on, if it holds more of them. By the central limit theorem the
        second term is its variance. The first one is what the run left, along slow modes for example. So
        1.96 standard errors about the potential contain the optimal one with 95% confidence at any
        potential, if the points are fresh; they may be wider than need be.

        At ``reg = 0``, and at a `reg` so small that few points are between some of the cells, A is a
        density on the boundaries of the cells. It is estimated by a kernel, the assignment weights of a
        larger regularisation that leaves the boundaries where they are, as for regression quantiles.
        That takes a source with a density there. Up to 256 atoms, a boundary with few points in reach of
        the kernel has the density of its nearest 16, if its cells have so many.

        Raises
        ------
        ValueError
            If there are fewer points than effective atoms, or none between some of the cells, or none
            at all (in a file that was written before standard errors were asked for; for a metric of
            the user; of sharded atoms): :class:`applications.ErrorBars` takes others.

        References
        ----------
        Bercu, Bigot, Annals of Statistics 49, 2021; del Barrio, Gonzalez-Sanz, Loubes, "Central Limit
        Theorems for Semi-Discrete Wasserstein Distances", Bernoulli 30, 2024 (``reg = 0``); Powell,
        "Estimation of Monotonic Regression Models under Quantile Restrictions", 1991 (the kernel);
        Loftsgaarden, Quesenberry, "A Nonparametric Estimate of a Multivariate Density Function", Annals
        of Mathematical Statistics 36, 1965 (nearest points).

        Examples
        --------
        >>> import numpy as np
        >>> from pot_semidiscrete import solve_semidiscrete
        >>> atoms = np.array([[-1.0], [1.0]])  # mirror images: the optimal potential is 0
        >>> result = solve_semidiscrete(atoms, "normal", reg=1.0, random_state=0)
        >>> bool(np.all(np.abs(result.potential) < 1.96 * result.potential_stderr))
        True
        """
        target = self._target
        with together(self._target):
            found = self._estimates.law.potential_stderr(target, self._potential)
            return target.scatter(self._owned(found))

    @ours()
    def map_stderr(self, x: Array) -> Array:
        r"""Standard error of ``ot_map(x)``, in the same sense as :attr:`potential_stderr`.

        The spread of the map is that at potentials drawn from the normal law of :math:`\psi_n`: 1.96
        standard errors are the farther end of a 95% percentile interval. Such an interval is right for
        any monotone function of a normal variable, where the map is saturated as well, and at ``reg =
        0``, where the map jumps at the boundaries of cells: within 1.96 standard errors of a boundary it
        holds the jump, and farther away the standard error is 0.

        Parameters
        ----------
        x : array, shape (n, d)

        Returns
        -------
        array, shape (n, d)

        References
        ----------
        Davison, Hinkley, "Bootstrap Methods and their Application", 1997, section 5.3 (percentiles); del
        Barrio, Gonzalez-Sanz, Loubes, Rodriguez-Vitores, arXiv:2505.19104 (the law).

        Examples
        --------
        >>> import numpy as np
        >>> from pot_semidiscrete import solve_semidiscrete
        >>> atoms, x = np.array([[-1.0], [1.0]]), np.zeros((1, 1))  # the optimal map is 0 at 0
        >>> result = solve_semidiscrete(atoms, "normal", reg=1.0, random_state=0)
        >>> bool(abs(result.ot_map(x)) < 1.96 * result.map_stderr(x))
        True
        """
        with together(self._target):
            x, law = self._target.nx.detach(self._points(x)), self._estimates.law
            return self._owned(law.map_stderr(self._target, x, self._potential, self.reg))

    @ours()
    def functional(self, f: Callable[[Array, Array], Array]) -> tuple[float, float]:
        r"""Estimate of :math:`\int f \, d\pi`, of the optimal plan, and its standard error.

        The estimate is that of :math:`\psi_n` on its points, see :attr:`potential_stderr`; the standard
        error is that of its influence function, which has the error of the potential in it.

        Parameters
        ----------
        f : callable
            ``(x, y) -> matrix``, shape (n, n_atoms), of source points and atoms, as a metric.

        Returns
        -------
        estimate, stderr : float

        Raises
        ------
        TypeError, ValueError
            If f is not such a function, or as of :attr:`potential_stderr`. A result from a file, or one
            that was moved, has no points.

        References
        ----------
        Bercu, Bigot, Annals of Statistics 49, 2021 (the law of the potential); van der Vaart,
        "Asymptotic Statistics", 1998, chapter 5 (functions of an estimate).

        Examples
        --------
        >>> import numpy as np
        >>> from pot_semidiscrete import solve_semidiscrete
        >>> atoms = np.array([[-1.0], [1.0]])
        >>> result = solve_semidiscrete(atoms, "normal", reg=1.0, random_state=0)
        >>> estimate, stderr = result.functional(lambda x, y: x * y.T)
        >>> bool(abs(estimate - 0.7295) < 1.96 * stderr)  # E X tanh(2 X)
        True
        """
        f = check_callable("f", f, "(x, y) -> matrix")
        with together(self._target):
            return self._estimates.functional(f)
