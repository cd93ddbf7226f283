"""Things looked up by POT's name of a backend, and imported when they are first needed."""

from collections.abc import Callable
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class LazyRegistry(Generic[Thing]):
    """Loaders by name; ``""`` is that of all names that have none."""

    def __init__(self) -> None:
        self._loaders: dict[str, Callable[[], Thing]] = {}
        self._loaded: dict[str, Thing] = {}

    def register(self, name: str, load: Callable[[], Thing]) -> None:
        """Say what loads the thing of a name, from now on."""
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
