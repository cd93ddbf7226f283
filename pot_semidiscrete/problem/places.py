"""Atoms at one place: solved for as one, and separate in what a user gets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..backend import brief


def places(
    read: Callable[[slice | np.ndarray], np.ndarray], parts: Sequence[slice]
) -> tuple[np.ndarray, np.ndarray]:
    """Index of the first of the points at each place, and the place of each point.

    Some of the points are `read` at once: `parts` of them, or those that are asked for.
    """
    hashes = np.concatenate([_hashes(read(part)) for part in parts])
    _, first, place = np.unique(hashes, return_index=True, return_inverse=True)
    leader = first[place]
    followers = np.flatnonzero(leader != np.arange(len(leader)))
    for some in np.array_split(followers, len(parts)):
        if (read(leader[some]) != read(some)).any():  # numbers are sorted ten times as fast as points
            points = np.concatenate([read(part) + 0.0 for part in parts])
            _, first, place = np.unique(points, axis=0, return_index=True, return_inverse=True)
            place = place.ravel()  # NumPy 2.0 gives it two axes
            break
    order = np.argsort(first)
    return first[order], np.argsort(order)[place]


def _hashes(points: np.ndarray) -> np.ndarray:
    """A number for each point, the same for the same points, and else as good as never."""
    words = np.ascontiguousarray(points + 0.0).view(np.uint16)  # -0 becomes 0
    key = 2 * np.random.default_rng(0).integers(2**63, size=words.shape[1], dtype=np.uint64) + 1
    parts = np.array_split(words, -(-len(words) // 1024))  # which the cache holds
    return np.concatenate([part.astype(np.uint64) @ key for part in parts])


@dataclass(frozen=True, eq=False)
class Copies:
    """Which of the user's atoms are at which place, and what part of its weight each has."""

    place: np.ndarray  # shape (n_atoms,), n_places for an atom of weight 0
    share: np.ndarray  # shape (n_atoms,)
    n_places: int

    __repr__ = brief

    @classmethod
    def of(cls, place: np.ndarray, weights: np.ndarray, user: np.ndarray) -> tuple["Copies", np.ndarray]:
        """Copies among the atoms of positive weight, and the weight of each place.

        `place`, shape (n,), is that of each of these atoms. `user`, shape (n_atoms,), tells which of
        them each of the user's atoms is; n if its weight is 0.
        """
        total = np.bincount(place, weights)
        share = np.append(weights / total[place], 0.0)[user]
        return cls(np.append(place, len(total))[user], share, len(total)), total

    def sum(self, masses: np.ndarray) -> np.ndarray:
        """Sum of the masses at each place."""
        return np.bincount(self.place, masses, self.n_places + 1)[:-1]

    def merge(self, potential: np.ndarray, reg: float) -> np.ndarray:
        r"""Potential of each place, of the same c-transform as that of the copies.

        It is :math:`\lambda \log \sum_k (b_k / b) \exp(\psi_k / \lambda)` over the atoms at a place, b
        the weight of all of them, or the largest of theirs at ``reg = 0``; mostly they are the same.
        """
        top = np.full(self.n_places + 1, -np.inf)
        np.maximum.at(top, self.place, potential)
        if reg > 0:
            sums = np.bincount(
                self.place, self.share * np.exp((potential - top[self.place]) / reg), len(top)
            )
            top[:-1] += reg * np.log(sums[:-1])
        return top[:-1]

    def draw(self, places: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """An atom for each of the places, by its share, with a number in [0, 1) each."""
        order = np.argsort(self.place, kind="stable")
        place, edges = self.place[order], np.append(0.0, np.cumsum(self.share[order]))
        start, end = (np.searchsorted(place, places, side) for side in ("left", "right"))
        level = edges[start] + uniform * (edges[end] - edges[start])
        return order[np.clip(np.searchsorted(edges, level, "right") - 1, start, end - 1)]
