"""Where source points come from, and where randomness does."""

import inspect

import numpy as np
from ot.backend import get_backend
from scipy.special import ndtri
from scipy.stats import qmc

from . import envelope
from ._validation import (
    check_callable,
    check_count,
    check_lengths,
    check_points,
    check_same_kind,
    describe,
)

__all__ = ["SobolSampler"]

NAMED_SOURCES = ("unif", "unif_cube", "ball", "unif_ball", "normal")
SOBOL_BITS = 32
RNG = "rng" if "rng" in inspect.signature(qmc.Sobol).parameters else "seed"  # SciPy before 1.15


class HostRandom:
    """Draws by a NumPy generator, moved to the backend and device of `type_as`."""

    def __init__(self, generator, nx, type_as):
        self.generator, self.nx, self.type_as = generator, nx, type_as

    def uniform(self, *shape):
        return self.nx.from_numpy(self.generator.random(shape), type_as=self.type_as)

    def normal(self, *shape):
        return self.nx.from_numpy(self.generator.standard_normal(shape), type_as=self.type_as)

    def integers(self, high, n):
        index = self.nx.from_numpy(self.generator.integers(high, size=n))
        return index.to(self.type_as.device) if self.nx.__name__ == "torch" else index

    def state_dict(self):
        return _plain(self.generator.bit_generator.state)

    def load_state_dict(self, state):
        self.generator.bit_generator.state = state


class TorchRandom:
    """Draws by a torch generator, on its device."""

    def __init__(self, generator, type_as):
        self.generator, self.type_as = generator, type_as
        self.options = {"generator": generator, "device": generator.device}

    def uniform(self, *shape):
        import torch

        return torch.rand(*shape, dtype=self.type_as.dtype, **self.options).to(self.type_as.device)

    def normal(self, *shape):
        import torch

        return torch.randn(*shape, dtype=self.type_as.dtype, **self.options).to(self.type_as.device)

    def integers(self, high, n):
        import torch

        return torch.randint(high, (n,), **self.options).to(self.type_as.device)

    def state_dict(self):
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state):
        self.generator.set_state(state["generator"])


def _plain(state):
    """The state of a NumPy generator, without arrays."""
    if isinstance(state, dict):
        return {name: _plain(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray) else state


def resolve_random(random_state, nx, type_as):
    """Source of randomness of our own: no global generator is read or written.

    Parameters
    ----------
    random_state : None, int, numpy.random.Generator, numpy.random.RandomState or torch.Generator
        None draws a seed from the operating system. An int seeds a torch generator on the device of
        the data for torch, a NumPy generator otherwise. A generator is advanced.
    nx : ot.backend.Backend
    type_as : array
        What the draws should look like.
    """
    if isinstance(random_state, np.random.RandomState):
        return HostRandom(np.random.Generator(random_state._bit_generator), nx, type_as)
    if isinstance(random_state, np.random.Generator):
        return HostRandom(random_state, nx, type_as)
    is_seed = isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool)
    if random_state is None or is_seed:
        if is_seed and random_state < 0:
            raise ValueError(f"random_state: expected a seed of at least 0, received {random_state}.")
        if nx.__name__ != "torch":
            return HostRandom(np.random.default_rng(random_state), nx, type_as)
        import torch

        generator = torch.Generator(type_as.device)
        if random_state is None:
            generator.seed()
        else:
            generator.manual_seed(int(random_state) % 2**63)
        return TorchRandom(generator, type_as)
    if type(random_state).__module__.startswith("torch") and hasattr(random_state, "manual_seed"):
        if nx.__name__ != "torch":
            raise TypeError(
                f"random_state: expected a NumPy generator or a seed for {nx.__name__} data, received "
                "a torch generator."
            )
        return TorchRandom(random_state, type_as)
    raise TypeError(
        "random_state: expected None, an int, a NumPy Generator or RandomState, or a torch Generator, "
        f"received {describe(random_state)}."
    )


def resolve_source(sampler_source, target, random_state):
    """Turn `sampler_source` into a callable ``n -> (n, d)`` in the backend of the target.

    Parameters
    ----------
    sampler_source : callable, str, or array of shape (n, d)
        A callable is returned as it is. The names are POT's: ``unif`` (``unif_cube``), the uniform
        law on the unit cube; ``ball`` (``unif_ball``), on the unit ball; ``normal``, the standard
        Gaussian. The rows of an array are drawn uniformly, with replacement.
    """
    nx, d = target.nx, target.atoms.shape[1]
    random = resolve_random(random_state, nx, target.atoms)
    if callable(sampler_source):
        return sampler_source
    if isinstance(sampler_source, str):
        if sampler_source in ("unif", "unif_cube"):
            return lambda n: random.uniform(n, d)
        if sampler_source == "normal":
            return lambda n: random.normal(n, d)
        if sampler_source in ("ball", "unif_ball"):

            def ball(n):
                direction = random.normal(n, d)
                length = nx.sqrt(nx.einsum("ij,ij->i", direction, direction))[:, None]
                return direction / length * random.uniform(n, 1) ** (1.0 / d)

            return ball
    elif hasattr(sampler_source, "shape"):
        rows, _ = check_points("sampler_source", sampler_source, like=target.atoms)
        rows = nx.detach(rows)
        return lambda n: rows[random.integers(rows.shape[0], n)]
    raise ValueError(
        "sampler_source: expected a callable n -> (n, d), an (n, d) array, or one of "
        f"{', '.join(NAMED_SOURCES)}, received {describe(sampler_source)}."
    )


class NormalSampler:
    """Standard normal points of a dimension, drawn by a source of randomness of our own."""

    def __init__(self, dimension, random):
        self.dimension, self.random = dimension, random
        self.state_dict, self.load_state_dict = random.state_dict, random.load_state_dict

    def __call__(self, n):
        return self.random.normal(n, self.dimension)


class SobolSampler:
    r"""Scrambled Sobol points of a law, or of its image by a generator.

    ``sampler(n)`` is the next n points of the sequence, the same whatever the sizes of the batches.
    Together they fill the space more evenly than independent points: the mean of a smooth function
    over n of them is wrong by nearly :math:`1/n` instead of :math:`1/\sqrt{n}`, the less so the
    larger the dimension; n is best a power of 2. Each point follows the law, but they are not
    independent of each other, as standard errors need: those of :meth:`independent` are.

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

    def __init__(self, dimension, law="unif", generator=None, *, type_as=None, random_state=None):
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
        self._nx, self._type_as, self._largest = resolve_type(type_as)
        self._restart(resolve_seed(random_state))

    def __call__(self, n):
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

    def independent(self, n):
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

    def state_dict(self):
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

    def load_state_dict(self, state):
        """Go on where another sampler was, of the same dimension.

        Parameters
        ----------
        state : dict of int
            What :meth:`state_dict` returned.

        Raises
        ------
        ValueError
            If it is not such a dictionary, or of another dimension.
        """
        names = list(self.state_dict())
        if sorted(state) != sorted(names):
            raise ValueError(f"state: expected the entries {names}, received {list(state)}.")
        found = [check_count(f"state[{name!r}]", int(state[name]), 0) for name in names]
        if found[0] != self.dimension:
            raise ValueError(f"state: expected one of dimension {self.dimension}, received {found[0]}.")
        self._restart(*found[1:])

    def _restart(self, seed, position=0, n_independent=0):
        """Go to a place of both streams of a seed."""
        scrambling, stream = np.random.SeedSequence(seed).spawn(2)
        self._sobol = qmc.Sobol(
            self.dimension, bits=SOBOL_BITS, **{RNG: np.random.default_rng(scrambling)}
        )
        self._first = self._sobol.random(1)
        if position > 1:
            self._sobol.fast_forward(position - 1)
        # a number of this stream takes one step of its generator: a place in it is a count
        self._pseudo = np.random.Generator(
            np.random.PCG64(stream).advance(n_independent * self.dimension)
        )
        self._seed, self.position, self.n_independent = seed, position, n_independent

    def _points(self, uniform):
        """Image of points of the open cube."""
        nx = self._nx
        z = ndtri(uniform) if self.law == "normal" else np.minimum(uniform, self._largest)
        z = nx.from_numpy(z, type_as=self._type_as)
        if self.generator is None:
            return z
        with envelope.no_grad(nx):
            x = self.generator(z)
        if tuple(getattr(x, "shape", ()))[:1] != (len(uniform),):
            raise ValueError(
                f"generator: expected one point for each of {len(uniform)} latent points, received "
                f"{describe(x)}."
            )
        return nx.detach(x)


def resolve_type(type_as):
    """Backend, a number like those of `type_as`, and the largest one below 1."""
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
    return nx, nx.zeros((1,), type_as=type_as), 1.0 - float(np.finfo(dtype).epsneg)


def resolve_seed(random_state):
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


class Draws:
    """Checked batches of a source, in the target's coordinates and cut from any graph.

    Attributes
    ----------
    n_samples : int
        Source points drawn so far.
    """

    def __init__(self, source, target):
        self.source, self.target, self.n_samples = source, target, 0

    def __call__(self, n):
        """Draw the next batch."""
        return self._draw("sampler_source", self.source, n)

    @property
    def evenly(self):
        """Whether the batches are quasi-random."""
        return hasattr(self.source, "independent")

    def independent(self, n):
        """Draw independent points, of a source whose next points are not (quasi-random ones)."""
        if not self.evenly:
            return self(n)
        return self._draw("sampler_source.independent", self.source.independent, n)

    def _draw(self, name, source, n):
        with envelope.no_grad(self.target.nx):
            x = check_batch(f"{name}({n})", source(n), n, self.target)
            # a sampler may return the same memory each time
            x = self.target.nx.copy(x) if self.target.center is None else self.target.local(x)
        self.n_samples += x.shape[0]
        return x


def check_batch(name, x, n, target):
    """Check what a sampler returned when asked for `n` points; fewer are taken as they come."""
    nx, atoms = target.nx, target.atoms
    expected = f"an array of shape ({n}, {atoms.shape[1]}), backend and dtype of X_target"
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        raise TypeError(f"{name}: expected {expected}, received {describe(x)}.")
    check_same_kind(name, x, atoms)
    if len(x.shape) != 2 or x.shape[1] != atoms.shape[1] or not 0 < x.shape[0] <= n:
        raise ValueError(f"{name}: expected {expected}, received {describe(x)}.")
    check_lengths(name, x, nx, "check the generator")
    return nx.detach(x)
