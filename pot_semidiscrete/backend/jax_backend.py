"""JAX: its transformations of functions."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax

from .arrays import Array
from .capabilities import Capabilities, Evaluate


class JaxCapabilities(Capabilities):
    """Those of JAX."""

    differentiates = True

    def eager(self) -> AbstractContextManager:
        return jax.ensure_compile_time_eval()

    def checkpoint(self, function: Callable) -> Callable:
        return jax.checkpoint(function)

    def with_gradients(self, evaluate: Evaluate, *arrays: Array) -> Array:
        @jax.custom_vjp
        def value(*arrays: Array) -> Array:
            return evaluate(arrays, (False,) * len(arrays))[0]

        def forward(*arrays: Array) -> tuple:
            return evaluate(arrays, (True,) * len(arrays))

        def backward(gradients: tuple, cotangent: Array) -> tuple:
            return tuple(cotangent * g for g in gradients)

        value.defvjp(forward, backward)
        return value(*arrays)

    def vjp(self, function: Callable, x: Array, cotangent: Array) -> Array:
        return jax.vjp(function, x)[1](cotangent)[0]

    def pullback(self, generator: Callable, theta: Any, z: Array, cotangent_of: Callable) -> tuple:
        points, vjp = jax.vjp(lambda t: generator(t, z), theta)
        value, cotangent = cotangent_of(points)
        return value, vjp(cotangent)[0]
