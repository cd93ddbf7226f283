"""Quasi-random points."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from ot.backend import get_backend
from scipy.special import ndtri
from scipy.stats import qmc

from ..backend import Array, capabilities, describe, no_grad, ours, theirs
from ..problem import check_callable, check_count
from .base import Sampler

SOBOL_BITS = 32
RNG = "rng" if "rng" in inspect.signature(qmc.Sobol).parameters else "seed"  # SciPy before 1.15


class SobolSampler(Sampler):
    r"""Scrambled Sobol points of a law, or of its image by a generator.

    ``sampler(n)`` is the next n points of the sequence, the same whatever the sizes of the batches.
    Together they fill the space more evenly than independent points. In low dimension the mean of a
    smooth function over n of them has an error of nearly :math:`1/n` instead of :math:`1/\sqrt{n}`; n is
    best a power of 2. Each point follows the law, but the points are not independent, as standard errors
    need: those of :meth:`independent` are.

    Parameters
    ----------
    dimension : int
        Dimension of the latent points, at most 21201.
    law : {"unif", "normal"}, default="unif"
        Latent law: uniform on the unit cube, or standard Gaussian.
    generator : callable, optional
        Latent points, shape (n, dimension), to as many points; the identity by default. A torch
        module is called without gradient.
    type_as : array, optional
        The points have its backend, dtype (float32 or float64) and device: that of the atoms.
        NumPy, in float64, by default.
    random_state : None, int or numpy.random.Generator
        Seed of the scrambling and of the independent points. The same int gives the same points
        on any backend. A generator is advanced by one draw; global generators are never touched.

    Attributes
    ----------
    position : int
        Points of the sequence drawn so far.
    n_independent : int
        Independent points drawn so far.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind or range.

    References
    ----------
    Owen, "Scrambling Sobol' and Niederreiter-Xing Points", Journal of Complexity 14, 1998;
    Joe and Kuo, "Constructing Sobol' Sequences with Better Two-Dimensional Projections", SIAM
    Journal on Scientific Computing 30, 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from pot_semidiscrete import solve_semidiscrete
    >>> from pot_semidiscrete.samplers import SobolSampler
    >>> sampler = SobolSampler(2, "normal", generator=lambda z: 0.5 * z + 1.0, random_state=0)
    >>> atoms = np.random.default_rng(0).normal(size=(20, 2))
    >>> solve_semidiscrete(atoms, sampler, reg=0.5).converged
    True
    """

    def __init__(
        self,
        dimension: int,
        law: str = "unif",
        generator: Callable | None = None,
        *,
        type_as: Array | None = None,
        random_state: int | np.random.Generator | None = None,
    ) -> None:
        self.dimension = check_count("dimension", dimension)
        if self.dimension > qmc.Sobol.MAXDIM:
            raise ValueError(
                f"dimension: expected at most {qmc.Sobol.MAXDIM}, as far as Sobol's sequence is known, "
                f"received {self.dimension}; draw pseudo-random points instead."
            )
        if not isinstance(law, str) or law not in ("unif", "normal"):
            raise ValueError(f'law: expected "unif" or "normal", received {describe(law)}.')
        if generator is not None:
            check_callable("generator", generator, "of latent points")
        self.law, self.generator = law, generator
        self._type_as, self._largest = resolve_type(type_as)
        self._restart(resolve_seed(random_state))

    def __repr__(self) -> str:
        return f"SobolSampler({self.dimension}, {self.law!r}, position={self.position})"

    def __getstate__(self) -> dict[str, Any]:
        """The positions of the two streams, not the streams: a copy makes its own."""
        kept = ("dimension", "law", "generator", "_type_as", "_largest")
        return {name: getattr(self, name) for name in kept} | {"streams": self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        streams = state.pop("streams")
        self.__dict__.update(state)
        self._restart(streams["seed"], streams["position"], streams["n_independent"])

    @ours()
    def __call__(self, n: int) -> Array:
        """Draw the next n points of the sequence."""
        n = check_count("n", n)
        if self.position + n > 2**SOBOL_BITS:
            raise ValueError(
                f"n: expected at most {2**SOBOL_BITS - self.position}, what is left of the sequence, "
                f"received {n}; start another with another random_state."
            )
        # SciPy warns of a first draw of other than 2^m points, and it draws the first point alone
        parts = [self._sobol.random(n)] if self.position else [self._first, self._sobol.random(n - 1)]
        self.position += n
        # the middles of the sequence's cells: never 0, nor 1
        return self._points(np.concatenate(parts) + 0.5**SOBOL_BITS / 2.0)

    @ours()
    def independent(self, n: int) -> Array:
        """Draw n independent points of the same law, from a pseudo-random stream of its own.

        Parameters
        ----------
        n : int

        Returns
        -------
        array, shape (n, d)
        """
        n = check_count("n", n)
        self.n_independent += n
        return self._points(np.maximum(self._pseudo.random((n, self.dimension)), 2.0**-54))

    def state_dict(self) -> dict[str, int]:
        """Seed and positions, as plain numbers.

        Returns
        -------
        dict of int
        """
        return {
            "dimension": self.dimension,
            "seed": self._seed,
            "position": self.position,
            "n_independent": self.n_independent,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where another sampler of the same dimension was.

        Parameters
        ----------
        state : dict of int
            What :meth:`state_dict` returned.

        Raises
        ------
        TypeError, ValueError
            If it is not such a dictionary, or of another dimension.
        """
        names = list(self.state_dict())
        if not isinstance(state, dict):
            raise TypeError(f"state: expected a dict of state_dict(), received {describe(state)}.")
        if set(state) != set(names):
            raise ValueError(f"state: expected the entries {names}, received {list(state)}.")
        plain = lambda value: np.asarray(value)[()]  # numbers of a file are arrays
        found = {name: check_count(f"state[{name!r}]", plain(state[name]), 0) for name in names}
        if found["position"] > 2**SOBOL_BITS:
            raise ValueError(
                f"state['position']: expected at most {2**SOBOL_BITS}, the length of the sequence, "
                f"received {found['position']}."
            )
        dimension = found.pop("dimension")
        if dimension != self.dimension:
            raise ValueError(f"state: expected one of dimension {self.dimension}, received {dimension}.")
        self._restart(**found)

    def _restart(self, seed: int, position: int = 0, n_independent: int = 0) -> None:
        """Make both streams of a seed, at these positions."""
        scrambling, stream = np.random.SeedSequence(seed).spawn(2)
        self._sobol = qmc.Sobol(
            self.dimension, bits=SOBOL_BITS, **{RNG: np.random.default_rng(scrambling)}
        )
        self._first = self._sobol.random(1)
        if position > 1:
            self._sobol.fast_forward(position - 1)
        # each uniform number takes one step of PCG64: a place in the stream is a count of steps
        self._pseudo = np.random.Generator(
            np.random.PCG64(stream).advance(n_independent * self.dimension)
        )
        self._seed, self.position, self.n_independent = seed, position, n_independent

    def _points(self, uniform: np.ndarray) -> Array:
        """Image of points of the open cube."""
        nx = get_backend(self._type_as)
        z = ndtri(uniform) if self.law == "normal" else np.minimum(uniform, self._largest)
        z = nx.from_numpy(z, type_as=self._type_as)
        if self.generator is None:
            return z
        with no_grad(nx), theirs():
            x = self.generator(z)
        if tuple(getattr(x, "shape", ()))[:1] != (len(uniform),):
            raise ValueError(
                f"generator: expected one point for each of {len(uniform)} latent points, received "
                f"{describe(x)}."
            )
        return capabilities(nx).owned(nx.detach(x))


def resolve_type(type_as: Array | None) -> tuple[Array, float]:
    """An array of one number like `type_as`, and the largest number below 1 of its dtype."""
    if type_as is None:
        type_as = np.zeros(1)
    try:
        nx = get_backend(type_as)
    except ValueError:
        nx = None
    dtype = str(getattr(type_as, "dtype", None)).rsplit(".", 1)[-1]
    if nx is None or dtype not in ("float32", "float64"):
        raise TypeError(
            "type_as: expected an array, float32 or float64, of a backend POT knows, received "
            f"{describe(type_as)}; pass the atoms."
        )
    return nx.zeros((1,), type_as=type_as), 1.0 - float(np.finfo(dtype).epsneg)


def resolve_seed(random_state: object) -> int:
    """Seed that can be stored: the one given, or one drawn."""
    if random_state is None:
        random_state = np.random.default_rng()
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**63))
    if not isinstance(random_state, (int, np.integer)) or isinstance(random_state, bool):
        raise TypeError(
            "random_state: expected None, an int, or a NumPy Generator, received "
            f"{describe(random_state)}."
        )
    return check_count("random_state", random_state, 0)
