"""What benchmarks share: arguments, threads, and facts about the machine for their record."""

import argparse
import contextlib
import ctypes
import functools
import importlib.metadata
import json
import math
import os
import platform
import sys
import time
from pathlib import Path

from threadpoolctl import threadpool_limits

import pot_semidiscrete

PACKAGES = ("numpy", "scipy", "torch", "POT", "jax", "ott-jax", "triton", "flash-sinkhorn", "pykeops")


def parser(doc):
    """Parser of the arguments of a benchmark, by its docstring; all can write their results."""
    found = argparse.ArgumentParser(description=doc.split("\n", 1)[0])
    found.add_argument("--json", metavar="FILE", help="write the results and machine facts")
    return found


def limit_threads(n):
    """Let torch, XLA (which reads it when it first computes) and, in this context, BLAS use `n`."""
    import torch

    torch.set_num_threads(n)
    multi = str(n > 1).lower()
    os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={multi} intra_op_parallelism_threads={n}"
    return threadpool_limits(n)


def processor():
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def facts():
    """Processor, threads, GPU, load before the run, and versions of what is installed."""
    import torch

    versions = {"pot_semidiscrete": pot_semidiscrete.__version__}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "python": platform.python_version(),
        **versions,
    }


def seconds(call, device="cpu"):
    """What a call returns, and its seconds: of the process on the CPU, by the clock elsewhere."""
    if device == "cpu":
        start = time.process_time()
        return call(), time.process_time() - start
    import torch

    torch.cuda.synchronize(device)
    start, found = time.perf_counter(), call()
    torch.cuda.synchronize(device)
    return found, time.perf_counter() - start


def peak(call, device="cpu"):
    """What a call returns, and the bytes it adds to the resident memory, at most (Linux; else nan).

    Elsewhere than on the CPU, to the memory of the device.
    """
    if device != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        return call(), torch.cuda.max_memory_allocated(device) - before
    if sys.platform != "linux":
        return call(), math.nan
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    except (AttributeError, OSError):  # another C library, or a container that forbids it
        return call(), math.nan
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    found = call()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return found, int(status["VmHWM"].split()[0]) * 1024 - before


DIGITS = 4  # of what is written, unless more are asked for


def plain(value, digits=DIGITS):
    """The same to so many digits, whole numbers as they are; None where JSON has no number."""
    if isinstance(value, dict):
        return {key: plain(item, digits) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, digits) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, float):
        value = value if value.is_integer() else float(f"{value:.{digits}g}")
        return int(value) if value.is_integer() else value
    return value


def entry(value):
    """A line of JSON, or one for each row of a table."""
    line = functools.partial(json.dumps, separators=(",", ":"))
    is_table = isinstance(value, list) and any(isinstance(row, (dict, list)) for row in value)
    return "[\n  " + ",\n  ".join(map(line, value)) + "\n ]" if is_table else line(value)


def earlier(path):
    """Results that :func:`write` left at a path; none, if there is no file."""
    return json.loads(Path(path).read_text()) if path is not None and Path(path).exists() else {}


def arguments(args):
    """What a command was given, but for files and folders of this machine."""
    return {name: value for name, value in vars(args).items() if name not in ("json", "mnist")}


def write(path, digits=DIGITS, **results):
    """Results as JSON, short enough to be kept, if there is a path."""
    if path is not None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        found = plain(results, digits).items()
        entries = ",\n ".join(f'"{key}": {entry(value)}' for key, value in found)
        path.write_text(f"{{\n {entries}\n}}\n")
