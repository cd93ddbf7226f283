"""What every long run here shares: interruption, progress, and a word on the outcome."""

import contextlib
import contextvars
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

_depth = contextvars.ContextVar("pot_semidiscrete_run_depth", default=0)


class SemiDiscreteWarning(UserWarning):
    """A run ended in a state that its user should know of."""


class Run(Protocol):
    """What :func:`guarded` asks of a run."""

    status: str

    def result(self) -> Any: ...
    def progress(self) -> dict[str, float]: ...


@contextlib.contextmanager
def guarded(run: Run, bar: "Progress") -> Iterator[None]:
    """Lose nothing that `run` has reached, however its body ends.

    Ctrl-C ends the body, and the outermost of our runs returns what it has; those inside pass it on.
    Another exception takes the result with it.

    Parameters
    ----------
    run : Run
    bar : Progress
    """
    depth = _depth.get()
    token = _depth.set(depth + 1)
    try:
        yield
    except KeyboardInterrupt:
        if depth > 0:
            raise
        run.status = "interrupted"
    except Exception as error:
        run.status = "failed"
        error.partial_result = run.result()  # type: ignore[attr-defined]
        raise
    finally:
        _depth.reset(token)
        bar.close(run.progress)


class Progress:
    """A progress bar on a terminal or in a notebook, if tqdm is installed; else ten lines."""

    def __init__(self, verbose: bool, total: int, name: str, count: int = 0) -> None:
        self.total, self.name, self.count, self.shown = total, name, count, count
        self.bar: Any = None
        self.verbose = bool(verbose)
        if verbose and (sys.stderr.isatty() or "ipykernel" in sys.modules):
            try:
                from tqdm.auto import tqdm

                self.bar = tqdm(total=total, initial=count, desc=name, leave=True)
            except ImportError:
                pass

    def update(self, describe: Callable[[], dict[str, float]]) -> None:
        """Advance by one; `describe` is called, for a dict of numbers, only when it is shown."""
        if not self.verbose:
            return
        self.count += 1
        if self.bar is not None:
            self.bar.update()
            if self.count % max(1, self.total // 100) == 0:
                self.bar.set_postfix({k: f"{v:.4g}" for k, v in describe().items()}, refresh=False)
        elif self.count % max(1, self.total // 10) == 0:
            self._print(describe)

    def close(self, describe: Callable[[], dict[str, float]]) -> None:
        """End the display, with the last numbers."""
        if self.bar is not None:
            self.bar.set_postfix({k: f"{v:.4g}" for k, v in describe().items()})
            self.bar.close()
        elif self.verbose and self.shown < self.count:
            self._print(describe)

    def _print(self, describe: Callable[[], dict[str, float]]) -> None:
        facts = ", ".join(f"{k} {v:.4g}" for k, v in describe().items())
        print(f"{self.name}: {self.count}/{self.total} {facts}", flush=True)
        self.shown = self.count
