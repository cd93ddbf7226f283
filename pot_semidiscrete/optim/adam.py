"""Adam, for the parameters of a generator on any backend."""

from typing import Any

from ..backend import Array, Backend, capabilities, describe


class Adam:
    """Adam (Kingma, Ba 2015), for one array of any backend."""

    def __init__(self, theta: Any, learning_rate: float, nx: Backend) -> None:
        if not isinstance(theta, nx.__type__):
            raise TypeError(
                f"theta: expected a {capabilities(nx).name} array, as X_target is, received "
                f"{describe(theta)}; put the parameters into one array."
            )
        self.theta, self.learning_rate, self.nx = nx.copy(nx.detach(theta)), learning_rate, nx
        self.mean = self.square = 0.0 * self.theta
        self.count = 0

    def step(self, gradient: Array) -> None:
        """Move `theta` down a gradient."""
        self.count += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        mean = self.mean / (1.0 - 0.9**self.count)
        square = self.square / (1.0 - 0.999**self.count)
        self.theta = self.theta - self.learning_rate * mean / (self.nx.sqrt(square) + 1e-8)
