"""One fixture runs a test on every backend and dtype that is installed."""

import numpy as np
import pytest

from tests.backends import BACKENDS, Backend


@pytest.fixture(params=[f"{b}-{d}" for b in BACKENDS for d in ("float64", "float32")])
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
    return np.random.default_rng(0)
