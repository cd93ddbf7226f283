"""Runs in several processes at a time, each on one thread."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from . import machine
from .adapters import warm_up


def start():
    """Begin a process: one thread, libraries warm."""
    machine.limit_threads(1)
    warm_up(["ours"])


class Pool(ProcessPoolExecutor):
    """Processes that start afresh; if the body fails, the runs that have not begun never do."""

    def __init__(self, n_jobs):
        machine.limit_threads(1)  # here, too: the record tells
        super().__init__(n_jobs, multiprocessing.get_context("spawn"), start)

    def __exit__(self, kind, *error):
        self.shutdown(cancel_futures=kind is not None)
