"""Backends and dtypes as a test sees them."""

import importlib.util
import itertools
import random

import numpy as np
import ot
import pytest
from scipy.spatial import distance


class Backend:
    """A backend and a dtype, as a test sees them.

    Attributes
    ----------
    kind : str
        One of `BACKENDS`: the name of a library, or ``"cuda"`` for torch on a GPU.
    name : str
        Of the library: ``"numpy"``, ``"torch"``, ``"jax"`` or ``"cupy"``.
    device : str
        ``"cuda"`` or ``"cpu"``.
    dtype : str
        ``"float32"`` or ``"float64"``.
    eps : float
        Rounding unit of the dtype.
    differentiates : bool
        Whether the library does.
    in_groups : bool
        Whether points may be swept in groups: arrays are on the host, and changed in place.
    """

    def __init__(self, kind, dtype):
        self.kind, self.device = kind, "cuda" if kind in ("cuda", "cupy") else "cpu"
        self.name = "torch" if kind == "cuda" else kind
        self.differentiates = self.name in ("torch", "jax")
        self.in_groups = kind in ("numpy", "torch")
        self.dtype, self.eps = dtype, float(np.finfo(dtype).eps)

    def array(self, a):
        """A host array in this backend and dtype."""
        a = np.asarray(a, dtype=self.dtype)
        if self.name == "torch":
            import torch

            return torch.from_numpy(a.copy()).to(self.device)
        if self.name == "jax":
            import jax.numpy

            return jax.numpy.asarray(a)
        if self.name == "cupy":
            import cupy

            return cupy.asarray(a)
        return a

    def host(self, a):
        """Back to NumPy, in float64."""
        if hasattr(a, "detach"):
            a = a.detach().cpu()
        elif self.name == "cupy" and hasattr(a, "get"):
            a = a.get()
        return np.asarray(a, dtype=float)

    def gradient(self, function, *arrays):
        """Gradients of a scalar function of arrays of this backend (torch and jax)."""
        if self.name == "jax":
            import jax

            return jax.grad(function, tuple(range(len(arrays))))(*arrays)
        import torch

        leaves = [a.detach().clone().requires_grad_() for a in arrays]
        return torch.autograd.grad(function(*leaves), leaves)


def _installed(name):
    """Whether there is a package of this name."""
    return importlib.util.find_spec(name) is not None


BACKENDS = [name for name in ("numpy", "torch", "jax") if _installed(name)]
if "torch" in BACKENDS:
    import torch

    torch.set_num_threads(1)  # the tensors are small: a second thread costs more than it gives
    BACKENDS += ["cuda"] * torch.cuda.is_available()
if _installed("cupy"):
    import cupy

    BACKENDS += ["cupy"] * cupy.is_available()
DTYPES = "float64", "float32"
# each backend and each dtype, not each pair: for long runs of code that is the same for all
PAIRS = zip(itertools.cycle(BACKENDS), itertools.cycle(DTYPES))
UNCROSSED = ["-".join(pair) for pair in itertools.islice(PAIRS, max(2, len(BACKENDS)))]
uncrossed = pytest.mark.parametrize("nx", UNCROSSED, indirect=True)
needs_torch = pytest.mark.skipif("torch" not in BACKENDS, reason="needs torch")
if "jax" in BACKENDS:
    import jax

    jax.config.update("jax_enable_x64", True)


def global_states():
    """States of the random generators that all code shares."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    states = [kind, keys.tolist(), *rest, random.getstate()]
    if "torch" in BACKENDS:
        states.append(torch.get_rng_state().tolist())
    return states


def use_kernel(kernel, target):
    """Let a target have a kernel, also cut from its graph."""
    for one in (target, target.detached):
        vars(one)["kernel"] = kernel


def counted(monkeypatch, owner, name):
    """Results of a function that is called on the way."""
    method, results = getattr(owner, name), []
    monkeypatch.setattr(owner, name, lambda *args: results.append(method(*args)) or results[-1])
    return results


# of a registered cost that takes constants, or that POT has not: constants, and its formula
COSTS = {"minkowski": ((3.0,), lambda x, y: distance.cdist(x, y, "minkowski", p=3.0))}


def cost_of(name):
    """The registered cost of a name, with constants if it has a row that tells some."""
    from pot_semidiscrete.costs import registered_costs

    constants, _ = COSTS.get(name, ((), None))
    return registered_costs()[name](*constants)


def costs_of(name, x, y):
    """What it should be: POT's of the same name, but for a row."""
    _, formula = COSTS.get(name, ((), None))
    return ot.dist(x, y, metric=name) if formula is None else formula(x, y)
