"""How masses are held to the weights of a target: exactly, or at a price."""

import math

import numpy as np
from scipy.special import kl_div, logsumexp

from ..backend import Array, Backend, in_double


class Marginal:
    r"""The term of the semi-dual that is of the weights alone: a base of :class:`Target`.

    Masses m of the atoms are the weights b, or they are free at the price ``reg_m KL(m | b)``. Then the
    place of ``<b, psi>`` has its soft minimum,

    ``F(psi) = min_m <m, psi> + reg_m KL(m | b) = -reg_m log sum_j b_j exp(-psi_j / reg_m)``,

    over masses of sum 1: that of the plan is the source's, so that F is concave and follows constants,
    as ``<b, psi>`` does, which is its limit (Chizat, Peyre, Schmitzer, Vialard, 2018; Sejourne, Vialard,
    Peyre, 2022). Minus its Hessian is ``(diag(g) - g g^T) / reg_m``, with g the gradient.

    Attributes
    ----------
    weights, log_weights : array, shape (n_support,)
    reg_m : float
        ``inf`` if masses are the weights.
    nx : ot.backend.Backend
    """

    weights: Array
    log_weights: Array
    reg_m: float
    nx: Backend

    @property
    def is_relaxed(self) -> bool:
        """Whether masses are free, at a price."""
        return self.reg_m < math.inf

    def goal(self, potential: Array) -> Array:
        """Gradient of F: the masses to reach, ``b``, or ``b exp(-psi / reg_m)`` of sum 1."""
        if not self.is_relaxed:
            return self.weights
        scores = self.log_weights - potential / self.reg_m
        masses = self.nx.exp(scores - self.nx.logsumexp(scores, axis=0))
        return self.nx.clip(masses, 1e-30)  # what is divided by them stays finite

    def zero_mean(self, potential: Array) -> Array:
        """The potential of the class ``psi + const`` with ``<b, psi> = 0``."""
        return potential - self.nx.sum(self.weights * potential)

    def normalized(self, potential: Array) -> Array:
        """The potential of the class with ``F(psi) = 0``, as it is reported."""
        return potential - self._term(potential)

    def semi_dual(self, transform: Array, potential: Array) -> Array:
        """Semi-dual value ``mean(psi^c) + F(psi)`` of points with that c-transform."""
        return self.nx.mean(transform) + self._term(potential)

    def _term(self, potential: Array) -> Array:
        """F, in the graph of the potential."""
        mean = self.nx.sum(self.weights * potential)
        if not self.is_relaxed:
            return mean
        scores = self.log_weights - (potential - mean) / self.reg_m
        return mean - self.reg_m * self.nx.logsumexp(scores, axis=0)

    def precise_term(self, potential: Array) -> float:
        """F, summed in double precision."""
        mean = np.sum(self.nx.to_numpy(self.weights * potential), dtype=float)
        if not self.is_relaxed:
            return float(mean)
        log_weights, potential = map(in_double, (self.log_weights, potential))
        return float(mean - self.reg_m * logsumexp(log_weights - (potential - mean) / self.reg_m))

    def exponent(self, eps: float) -> float:
        """``reg_m / (reg_m + eps)``, 1 for masses that are held: as in Sinkhorn's unbalanced iteration.

        In units of ``u = eps * exponent``, minus the Hessian of the semi-dual is the mean, with the
        weights ``exponent`` and ``1 - exponent``, of those of the transform and of F in units of 1.
        """
        return 1.0 / (1.0 + eps / self.reg_m)

    def excess(self, masses: Array, goal: Array) -> float:
        """``reg_m KL(m | g)``: what the plan of a potential costs more than its semi-dual value.

        It has the masses m, and g are those to reach: the gap of Fenchel and Young, 0 at an optimum.
        Masses that are held are another: it is ``inf``.
        """
        if not self.is_relaxed:
            return math.inf
        m, g = map(in_double, (masses, goal))
        return self.reg_m * float(np.sum(kl_div(m, g)))
