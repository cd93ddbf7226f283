"""Where source points come from, and where randomness does."""

import numpy as np

from . import envelope
from ._validation import NotFiniteError, all_finite, check_points, check_same_kind, describe

NAMED_SOURCES = ("unif", "unif_cube", "ball", "unif_ball", "normal")


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
        with envelope.no_grad(self.target.nx):
            x = check_batch(f"sampler_source({n})", self.source(n), n, self.target)
            x = self.target.local(x)
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
    if not all_finite(x, nx):
        raise NotFiniteError(
            f"{name}: expected finite points, received NaN or inf; check the generator."
        )
    return nx.detach(x)
