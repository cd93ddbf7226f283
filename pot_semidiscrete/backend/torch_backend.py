"""torch: devices, autograd, autocast."""

import contextlib
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree
from torch.utils.checkpoint import checkpoint

from .ambient import theirs
from .arrays import Array, describe
from .capabilities import Capabilities, Detour, Evaluate
from .random import Random


class KnownGradients(torch.autograd.Function):
    """A value whose gradients are computed with it."""

    @staticmethod
    def forward(ctx: Any, evaluate: Evaluate, *arrays: torch.Tensor) -> torch.Tensor:
        value, gradients = evaluate(arrays, ctx.needs_input_grad[1:])
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> tuple:
        if torch.is_grad_enabled():  # create_graph: a second derivative would be 0 unseen
            raise RuntimeError(
                "semidiscrete_loss: expected one derivative, asked for a graph of it "
                "(create_graph=True); differentiate semidiscrete_c_transform(...).mean() twice, "
                "or semidiscrete_gradient once."
            )
        return None, *(None if g is None else cotangent * g for g in ctx.saved_tensors)


def whole_cumsum(weights: torch.Tensor) -> torch.Tensor:
    """Cumulative sums of rows, by whole numbers: exact, where those of floats depend on the order.

    On a GPU, ``torch.use_deterministic_algorithms`` refuses those.
    """
    unit = weights.sum(dim=1, keepdim=True) / 2.0**61
    return (weights / unit).long().cumsum(dim=1).to(weights.dtype) * unit


class TorchRandom:
    """Draws by a torch generator, on its device, moved to that of `like`."""

    def __init__(self, generator: torch.Generator, like: torch.Tensor) -> None:
        self.generator, self.like = generator, like
        self.options: dict[str, Any] = {"generator": generator, "device": generator.device}

    def uniform(self, *shape: int) -> Array:
        return torch.rand(*shape, dtype=self.like.dtype, **self.options).to(self.like.device)

    def normal(self, *shape: int) -> Array:
        return torch.randn(*shape, dtype=self.like.dtype, **self.options).to(self.like.device)

    def integers(self, high: int, n: int) -> Array:
        return torch.randint(high, (n,), **self.options).to(self.like.device)

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])


class TorchCapabilities(Capabilities):
    """Those of torch."""

    differentiates = True

    def tracks_gradient(self, *arrays: Array) -> bool:
        return torch.is_grad_enabled() and any(getattr(a, "requires_grad", False) for a in arrays)

    def no_grad(self) -> AbstractContextManager:
        return torch.no_grad()

    @staticmethod
    def detours() -> list[Detour]:
        detours: list[Detour] = []
        if torch.is_inference_mode_enabled():  # which records no graph either
            detours.append((torch.inference_mode(False), torch.inference_mode))
            detours.append((torch.no_grad(), contextlib.nullcontext))
        for kind in filter(torch.amp.is_autocast_available, ("cpu", "cuda", "mps", "xpu")):
            if torch.is_autocast_enabled(kind):
                kept = kind, torch.get_autocast_dtype(kind), True, torch.is_autocast_cache_enabled()
                detours.append(
                    (torch.autocast(kind, enabled=False), functools.partial(torch.autocast, *kept))
                )
        return detours

    @staticmethod
    def n_threads() -> int:
        return torch.get_num_threads()

    @staticmethod
    def use_threads(n: int) -> None:
        torch.set_num_threads(n)

    def require_autograd(self, name: str) -> None:
        with theirs():
            if torch.is_inference_mode_enabled():
                raise RuntimeError(
                    f"{name}: expected a call outside of torch.inference_mode, in which torch "
                    "differentiates nothing, received one inside; leave it, or use torch.no_grad."
                )

    def owned(self, x: Array) -> Array:
        return x.clone() if isinstance(x, torch.Tensor) and x.is_inference() else x

    def checkpoint(self, function: Callable) -> Callable:
        return lambda *arrays: checkpoint(
            function, *arrays, use_reentrant=False, preserve_rng_state=False
        )

    def with_gradients(self, evaluate: Evaluate, *arrays: Array) -> Array:
        if not self.tracks_gradient(*arrays):
            return super().with_gradients(evaluate, *arrays)
        return KnownGradients.apply(evaluate, *arrays)

    def vjp(self, function: Callable, x: Array, cotangent: Array) -> Array:
        keep = torch.is_grad_enabled() and (x.requires_grad or cotangent.requires_grad)
        with torch.enable_grad():
            if not x.requires_grad:
                x = x.detach().requires_grad_()
            values = function(x)
            if not values.requires_grad:
                raise TypeError(
                    "metric: expected a callable that torch can differentiate in x, received one whose "
                    "result is cut from the graph; write it with torch operations, without detach or "
                    "numpy."
                )
            return torch.autograd.grad((cotangent * values).sum(), x, create_graph=keep)[0]

    def pullback(self, generator: Callable, theta: Any, z: Array, cotangent_of: Callable) -> tuple:
        leaves, structure = _pytree.tree_flatten(theta)
        if not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
            raise TypeError(
                "theta: expected a tensor, or a list, tuple or dict of tensors, received "
                f"{', '.join(sorted({describe(leaf) for leaf in leaves}))}; use torch.as_tensor."
            )
        leaves = [self.owned(leaf.detach()).requires_grad_() for leaf in leaves]
        with torch.enable_grad():
            points = generator(_pytree.tree_unflatten(leaves, structure), z)
        value, cotangent = cotangent_of(points.detach())
        if not points.requires_grad:
            raise TypeError(
                "generator: expected points that torch can differentiate in theta, received points cut "
                "from the graph; use theta, and neither detach nor numpy, inside generator(theta, z)."
            )
        found = torch.autograd.grad(points, leaves, cotangent, allow_unused=True)
        gradients = [
            torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)
        ]
        return value, _pytree.tree_unflatten(gradients, structure)

    def distances(self, x: Array, y: Array) -> Array:
        return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")

    def cumulative(self, weights: Array) -> Array:
        return super().cumulative(weights) if weights.is_cpu else whole_cumsum(weights)

    @staticmethod
    def index(rows: np.ndarray, like: Array) -> Array:
        return torch.from_numpy(rows).to(like.device)

    def shared_seed(self) -> int:
        return int(torch.randint(2**63 - 1, (), dtype=torch.int64, device="cpu"))

    def seeded(self, seed: int | None, like: Array) -> Random:
        generator = torch.Generator(like.device)
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed % 2**63)
        return TorchRandom(generator, like)

    def random_of(self, generator: object, like: Array) -> Random:
        if isinstance(generator, torch.Generator):
            return TorchRandom(generator, like)
        return super().random_of(generator, like)
