"""How a file knows its target, without holding the atoms."""

import numpy as np

from .target import Target


def fingerprint(target: Target) -> np.ndarray:
    """A number for each atom of positive weight and one for the origin."""
    atoms = target.nx.to_numpy(target.nx.detach(target.atoms)).astype(float)
    if target.copies is not None:  # as if they had not been merged
        atoms = atoms[target.copies.place[target.copies.share > 0]]
    origin = 0.0 if target.origin is None else target.nx.to_numpy(target.origin).astype(float)
    points = np.vstack([atoms, np.zeros(atoms.shape[1]) + origin])
    return points @ np.cos(1.0 + np.arange(atoms.shape[1]))


def same_fingerprint(expected: np.ndarray, received: np.ndarray) -> bool:
    """Tell whether two fingerprints are of the same atoms, up to dtype and rounding."""
    if expected.shape != received.shape:
        return False
    tolerance = 1e-3 * np.abs(expected[:-1]).max() + 1e-5 * np.abs(expected)
    return bool((np.abs(expected - received) <= tolerance).all())
