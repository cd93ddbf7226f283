"""One fixture runs a test on every backend and dtype that is installed."""

import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.backends import BACKENDS, DTYPES, Backend

with contextlib.suppress(ImportError):  # tests/test_properties.py
    from hypothesis import settings

    settings.register_profile("suite", derandomize=True, deadline=None, database=None)
    settings.register_profile("nightly", deadline=None, database=None, print_blob=True)
    settings.load_profile("suite")


@pytest.fixture(params=[f"{b}-{d}" for b in BACKENDS for d in DTYPES])
def nx(request):
    """Every backend, in both dtypes."""
    return Backend(*request.param.split("-"))


@pytest.fixture(params=BACKENDS)
def nx64(request):
    """Every backend, in float64."""
    return Backend(request.param, "float64")


@pytest.fixture(params=[b for b in BACKENDS if Backend(b, "float64").differentiates])
def autodiff(request):
    """Every backend that differentiates, in float64."""
    return Backend(request.param, "float64")


@pytest.fixture
def rng():
    """A generator of NumPy, the same for each test."""
    return np.random.default_rng(0)


@pytest.fixture
def torch_seed():
    """Weights of networks come from torch's global generator: it is seeded, and given back as it was."""
    torch = pytest.importorskip("torch")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session", autouse=True)
def mypy(request):
    """Where its test is run, a process of mypy, beside the tests that come before."""
    if all(item.name != "test_types" for item in request.session.items):
        yield
        return
    command = [sys.executable, "-m", "mypy", "pot_semidiscrete"]
    options = {"cwd": Path(__file__).parent.parent, "text": True}
    with subprocess.Popen(
        command, **options, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        yield process
        process.kill()
