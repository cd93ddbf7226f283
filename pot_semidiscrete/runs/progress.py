"""What every long run here shares: interruption, progress, and a word on the outcome."""

import contextlib
import contextvars
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

_depth = contextvars.ContextVar("pot_semidiscrete_run_depth", default=0)


class SemiDiscreteWarning(UserWarning):
    """Warning of a run that ended early, or of a result to be used with care."""


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


def say(words: str, verbose: bool = False) -> None:
    """Print a message, or, if not `verbose`, log it, of level INFO."""
    if verbose:
        print(words, flush=True)
    else:
        logging.getLogger("pot_semidiscrete").info(words)


class Progress:
    """What a run says of itself, on a terminal, in a notebook, or to :mod:`logging`.

    If `verbose`, a bar where there is a screen and tqdm is installed, else ten lines. A run that takes
    long says more: after 2 seconds, 4, 8 and so on it shows what it has reached and how long it should
    still take; without `verbose` that is a message of level INFO. The clock decides about words only.
    """

    def __init__(self, verbose: bool, total: int, name: str, count: int = 0) -> None:
        self.total, self.name, self.count, self.shown = total, name, count, count
        self.start, self.began, self.pause = count, time.monotonic(), 2.0
        self.bar: Any = None
        self.verbose = verbose
        if verbose and (sys.stderr.isatty() or "ipykernel" in sys.modules):
            try:
                from tqdm.auto import tqdm

                self.bar = tqdm(total=total, initial=count, desc=name, leave=True)
            except ImportError:
                pass

    def update(self, describe: Callable[[], dict[str, float]]) -> None:
        """Advance by one; `describe` is called, for a dict of numbers, only when it is shown.

        If it has "samples" and "samples needed", they tell how much of the run is done; else the count.
        """
        self.count += 1
        if self.bar is not None:
            self.bar.update()
        parts = 100 if self.bar is not None else 10
        due = self.verbose and self.count % max(1, self.total // parts) == 0
        seconds = time.monotonic() - self.began
        if seconds >= self.pause:
            due, self.pause = True, 2.0 * seconds
        if due:
            facts = describe()
            done = facts.get("samples", self.count - self.start)
            needed = facts.get("samples needed", self.total - self.start)
            if 0.0 < done <= needed:
                facts["seconds left"] = seconds * (needed / done - 1.0)
            elif done > needed:  # the estimate was too low: there is none
                facts.pop("samples needed", None)
            self._show(facts)

    def tell(self, words: str) -> None:
        """Say what is done now, where that may take a while."""
        if self.bar is not None:
            self.bar.set_postfix_str(words)
        elif not self.verbose:
            say(f"{self.name}: {words}")

    def close(self, describe: Callable[[], dict[str, float]]) -> None:
        """End the display, with the last numbers."""
        if self.bar is not None:
            self._show(describe())
            self.bar.close()
        elif self.verbose and self.shown < self.count:
            self._show(describe())

    def _show(self, facts: dict[str, float]) -> None:
        known = {key: value for key, value in facts.items() if not math.isnan(value)}
        words = ", ".join(f"{key} {value:.4g}" for key, value in known.items())
        if self.bar is not None:
            self.bar.set_postfix_str(words)
        elif self.verbose:
            say(f"{self.name}: {self.count}/{self.total} {words}", verbose=True)
        else:
            self.tell(f"{self.count}/{self.total} {words}")
        self.shown = self.count
