"""Registries: names taken once, and things of a backend that are imported when first needed."""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from ot.backend import Backend

Thing = TypeVar("Thing")


def check_free(name: str, known: Mapping[str, type], new: type) -> None:
    """Refuse a name that another class has; the same one, defined again, may have it again."""
    old = known.get(name, new)
    if (old.__module__, old.__qualname__) != (new.__module__, new.__qualname__):
        raise ValueError(
            f"name: expected one that is not taken, received {name!r}, that of "
            f"{old.__module__}.{old.__qualname__}; take another."
        )


class LazyRegistry(Generic[Thing]):
    """Loaders by name; ``""`` is that of all names that have none."""

    def __init__(self) -> None:
        self._loaders: dict[str, Callable[[], Thing]] = {}
        self._loaded: dict[str, Thing] = {}

    def register(self, name: str, load: Callable[[], Thing]) -> None:
        """Say what loads the thing of a name, from now on."""
        known = ["", *(vars(kind).get("__name__") for kind in Backend.__subclasses__())]
        if name not in known:
            raise ValueError(f"backend: expected one of {known}, as POT calls it, received {name!r}.")
        self._loaders[name] = load
        self._loaded.clear()

    def loaders(self) -> dict[str, Callable[[], Thing]]:
        """All of them."""
        return dict(self._loaders)

    def __getitem__(self, name: str) -> Thing:
        """The thing of a name."""
        if name not in self._loaded:
            self._loaded[name] = self._loaders.get(name, self._loaders[""])()
        return self._loaded[name]
