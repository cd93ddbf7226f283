"""What users give as a source, or as randomness, and what becomes of it."""

import numpy as np
from ot.backend import get_backend

from ..backend import Array, Backend, Random, capabilities, describe
from ..kernels import ranks_at
from ..problem import Target, check_points
from .adapters import adapted
from .base import Law, Sampler, registered_laws
from .laws import CallableSampler, RowSampler


def resolve_random(random_state: object, nx: Backend, like: Array) -> Random:
    """Source of randomness of our own, of draws like `like`: no global generator is read or written.

    None draws a seed from the operating system. An int seeds a torch generator on the device of the data
    for torch, a NumPy generator otherwise. A generator, of NumPy or torch, is advanced.
    """
    able, like = capabilities(nx), nx.zeros((1,), type_as=like)  # keeps no large array alive
    if random_state is None:
        return able.seeded(None, like)
    if isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool):
        if random_state < 0:
            raise ValueError(f"random_state: expected a seed of at least 0, received {random_state}.")
        return able.seeded(int(random_state), like)
    return able.random_of(random_state, like)


def rank_seed(target: Target, random_state: object) -> object:
    """A seed for this rank of a shared target, made by the first rank; else `random_state` itself."""
    ranks = ranks_at(target)
    if ranks is None:
        return random_state
    random = resolve_random(random_state, target.nx, target.like)
    return ranks.seed(int(random.integers(2**31, 1)[0]))


def resolve_source(
    sampler_source: object, like: Array, random_state: object, name: str = "sampler_source"
) -> Sampler:
    """Turn `sampler_source` into a :class:`Sampler` in the backend and of the dimension of `like`.

    A callable is taken as it is. The names are POT's: ``unif`` (``unif_cube``), the uniform law on the
    unit cube; ``ball`` (``unif_ball``), on the unit ball; ``normal``, the standard Gaussian. The rows of
    an array are drawn uniformly, with replacement.
    """
    nx, laws = get_backend(like), registered_laws()
    random = resolve_random(random_state, nx, like)
    if isinstance(sampler_source, Sampler):
        return _check_made(sampler_source)
    if isinstance(sampler_source, type) and issubclass(sampler_source, Sampler):
        is_law = issubclass(sampler_source, Law)
        remedy = "the name by which @register_law made it known" if is_law else "an instance of it"
        raise TypeError(
            f"{name}: expected a sampler, received {describe(sampler_source)}; give {remedy}."
        )
    if isinstance(sampler_source, str) and sampler_source in laws:
        return _check_made(laws[sampler_source](like.shape[1], random))
    found = adapted(sampler_source, like, random)
    if found is not None:
        return found
    if callable(sampler_source):
        return CallableSampler(sampler_source)
    if hasattr(sampler_source, "shape"):
        rows, _ = check_points(name, sampler_source, like=like)
        return RowSampler(nx.detach(rows), random)
    raise ValueError(
        f"{name}: expected a callable n -> (n, d), an (n, d) array, or one of "
        f"{', '.join(laws)}, received {describe(sampler_source)}."
    )


def _check_made(sampler: Sampler) -> Sampler:
    """Check that a law has a dimension and randomness; the sampler."""
    random, name = getattr(sampler, "random", None), type(sampler).__name__
    is_made = hasattr(sampler, "dimension") and hasattr(random, "state_dict")
    if isinstance(sampler, Law) and not is_made:
        raise TypeError(
            f"sampler_source: expected a law made by {name}(dimension, random), as the solver does, "
            f"received one with random {describe(random)}; give its name, made known by @register_law, "
            "and let its __init__, if it has one, call super().__init__."
        )
    return sampler
