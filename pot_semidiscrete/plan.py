"""The plan of a potential, at a built target: what users differentiate, and its pairs."""

from collections.abc import Callable
from typing import Any

from .backend import Array, capabilities, converted, ours, template
from .costs import CallableMetric
from .diagnostics import GradientDiagnostics, diagnose
from .kernels import draw_atoms, reduce
from .problem import Problem, Target, check_lengths, of_own_points, together
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
