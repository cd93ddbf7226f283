"""Laws and loaders of other packages as samplers."""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from ot.backend import get_backend

from ..backend import Array, Random, converted, describe, theirs
from ..problem import check_count
from .base import Law, Sampler, registered_laws


class ForeignLaw(Sampler):
    """A law of another package, seeded by a generator of our own, of points of the kind of `like`."""

    def __init__(self, law: Any, like: Array, seed: int) -> None:
        self.law, self.like, self.generator = law, like, np.random.default_rng(seed)

    def state_dict(self) -> dict[str, Any]:
        """Where the randomness is."""
        return dict(self.generator.bit_generator.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.generator.bit_generator.state = state


class LawOfScipy(ForeignLaw):
    """A frozen law of ``scipy.stats``."""

    def __call__(self, n: int) -> Array:
        if hasattr(self.law, "rvs"):
            points = self.law.rvs(size=n, random_state=self.generator)
        else:  # those of scipy.stats.make_distribution
            points = self.law.sample(shape=(n,), rng=self.generator)
        points = np.reshape(points, (n, -1))  # of one point, some have no first axis
        return get_backend(self.like).from_numpy(points, type_as=self.like)


class LawOfTorch(ForeignLaw):
    """A ``torch.distributions.Distribution``, which draws by torch's global generators.

    These are seeded for each draw, and restored.
    """

    def __call__(self, n: int) -> Array:
        import torch

        device = getattr(self.like, "device", None)
        devices = [device] if getattr(device, "type", "cpu") == "cuda" else []
        seed = int(self.generator.integers(2**63))
        with torch.random.fork_rng(devices), torch.no_grad():
            torch.default_generator.manual_seed(seed)
            if devices:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            points = self.law.sample((n,))
        return converted(points.reshape(n, -1), self.like)


class LoaderOfTorch(Sampler):
    """Points of a ``torch.utils.data.DataLoader``, epoch after epoch; of tuples, the first entries."""

    def __init__(self, loader: Any, like: Array) -> None:
        self.loader, self.like = loader, like
        self.batches = self._forever()
        self.leftover: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the place in an epoch, which no loader tells."""
        return {"loader": self.loader, "like": self.like}

    def __setstate__(self, state: dict[str, Any]) -> None:
        LoaderOfTorch.__init__(self, **state)

    def _forever(self) -> Iterator[Any]:
        """Batches of points as rows, of one epoch after another."""
        while True:
            batch: Any = None
            for batch in self.loader:
                points = batch[0] if isinstance(batch, (list, tuple)) else batch
                if not hasattr(points, "reshape"):
                    raise TypeError(
                        "sampler_source: expected a loader of points, or of tuples that begin with "
                        f"them, received batches of {describe(points)}."
                    )
                yield points.reshape(len(points), -1)
            if batch is None:
                raise ValueError("sampler_source: expected a loader of points, received an empty one.")

    def __call__(self, n: int) -> Array:
        with theirs():  # data sets are code of users
            points = next(self.batches) if self.leftover is None else self.leftover
        self.leftover = points[n:] if len(points) > n else None
        return converted(points[:n], self.like)


def named_law(source: Any) -> type[Law] | None:
    """The law of our own that a name and a dimension tell, ``("unif", 16)``; None of all else."""
    name = source[0] if isinstance(source, tuple) and len(source) == 2 else None
    return registered_laws().get(name) if isinstance(name, str) else None


def adapted(source: Any, like: Array, random: Random) -> Sampler | None:
    """A sampler of points like `like` from what a user gave; None if it is neither of these.

    A law of SciPy or torch, seeded by a number of `random`; a loader of torch; or the name of a law of
    our own and a dimension, ``("unif", 16)``.
    """
    law = named_law(source)
    if law is not None:
        return law(check_count("dimension", source[1]), random)
    if isinstance(source, str) and source in registered_laws():
        raise ValueError(
            f"latent_sampler: expected a name and a dimension, received {source!r} only; give a pair."
        )
    seed = lambda: int(random.integers(2**31, 1)[0])
    is_drawn = hasattr(source, "rvs") or hasattr(source, "sample")  # scipy.stats.qmc has neither
    if type(source).__module__.startswith("scipy.stats") and is_drawn and not callable(source):
        return LawOfScipy(source, like, seed())
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    if isinstance(source, torch.distributions.Distribution):
        return LawOfTorch(source, like, seed())
    return LoaderOfTorch(source, like) if isinstance(source, torch.utils.data.DataLoader) else None


def has_independent_coordinates(source: Any) -> bool:
    """Whether the coordinates of what a user gave as latent law are known to be independent.

    Of a dimension, which is that of a standard normal law, and of a law or sampler that says so.
    """
    if isinstance(source, (int, np.integer)):
        return True
    return getattr(named_law(source) or source, "has_independent_coordinates", False) is True
