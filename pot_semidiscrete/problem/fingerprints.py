"""How a file knows its atoms, without holding them."""

import hashlib

import numpy as np

from ..backend import Array, Backend, capabilities, in_double, is_traced, slices
from .target import Target


def digest(X: Array, nx: Backend) -> str:
    """Digest of the shape of points and of their values in single precision.

    The same points in another dtype, backend or order of memory have the same.
    """
    if is_traced(X):
        return ""
    found, rows = hashlib.sha256(str(tuple(X.shape)).encode()), max(2**22 // X.shape[1], 1)
    for part in slices(X.shape[0], rows):
        block = nx.to_numpy(nx.detach(X[part]))
        largest = float(np.abs(block).max())
        with np.errstate(all="ignore"):
            if not 1e-37 < largest < 1e37:  # single precision does not have them
                block = np.ldexp(block, -np.frexp(largest)[1])
            block = block.astype("<f4") + np.float32(0.0)  # not -0
        found.update(np.ascontiguousarray(block).data)
    return found.hexdigest()


def projection(target: Target) -> np.ndarray:
    """What files of version 0.1.0 know their atoms by: a number for each, and one for the origin."""
    direction = np.cos(1.0 + np.arange(target.like.shape[1]))
    along = lambda atoms: target.nx.from_numpy(in_double(atoms) @ direction, type_as=target.weights)
    numbers = in_double(target.in_parts(along))[target.entries]
    origin = 0.0 if target.origin is None else in_double(target.origin) @ direction
    return np.append(numbers, origin)


def same_projection(expected: np.ndarray, received: np.ndarray) -> bool:
    """Tell whether two projections are of the same atoms, up to dtype and rounding."""
    if expected.shape != received.shape:
        return False
    tolerance = 1e-3 * np.abs(expected[:-1]).max(initial=0.0) + 1e-5 * np.abs(expected)
    return bool((np.abs(expected - received) <= tolerance).all())


def sample_costs(target: Target) -> np.ndarray:
    """Costs between a few of the atoms: what tells a cost from another of the same name.

    They are of the user's atoms, for which of these are merged depends on the dtype.
    """
    target = target.detached
    chosen = target.entries[:: -(-len(target.entries) // 8)]
    few = target.subset(capabilities(target.nx).index(chosen, target.weights))
    return in_double(few.cost_matrix(few.atoms))


def same_costs(expected: np.ndarray, received: np.ndarray) -> bool:
    """Tell whether they are of the same cost, up to dtype and rounding."""
    if expected.shape != received.shape:
        return False
    return bool(np.allclose(received, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max()))
