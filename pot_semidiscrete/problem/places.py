"""Atoms at one place, or as good as: solved for as one, and separate in what a user gets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from ..backend import brief

Reader = Callable[[slice | np.ndarray], np.ndarray]


def places(read: Reader, parts: Sequence[slice], within: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Index of one of the points at each place, the first if they are equal, and the place of each.

    Some of the points are `read` at once: `parts` of them, or those that are asked for. Points at one
    place are equal. With a positive `within`, points that near to each other are merged, too, until
    those that stand for all places are farther apart. In more than three dimensions a point may stay
    apart from near ones if another, which is farther away, has the nearest projection: see
    :func:`_near`.
    """
    first, place = _equal(read, parts)
    if within == 0.0:
        return first, place
    leader, some, random = np.arange(len(first)), np.arange(len(first)), np.random.default_rng(0)
    while len(some) > 1:
        pairs, following = _near(read, first[some], len(parts), within), np.arange(len(first))
        led_by, left = _led_by(pairs, random.permutation(len(some))), np.unique(pairs)
        following[some] = some[led_by]
        leader, some = following[leader], some[left[led_by[left] == left]]  # others have no neighbour
    kept, group = np.unique(leader, return_inverse=True)
    return first[kept], group[place]


def _led_by(pairs: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Which of the points each is merged into, itself perhaps, of near pairs, shape (2, n_pairs).

    Leaders are the points that come before all their neighbours in a random order (Luby, 1986), and
    neighbours are merged into them. Of a chain of neighbours, however long, only near ones are merged.
    """
    least, led_by = np.full(len(order), len(order)), np.arange(len(order))
    np.minimum.at(least, pairs, order[pairs[::-1]])
    for one, other in (pairs, pairs[::-1]):
        is_led = order[one] < least[one]
        led_by[other[is_led]] = one[is_led]
    return led_by


def _near(read: Reader, some: np.ndarray, n_parts: int, within: float) -> np.ndarray:
    """Pairs of some points and their nearest neighbours that are within a distance, (2, n_pairs).

    The k-d tree (Bentley, 1975) is that of the points, or of their projection on three directions, in
    which distances are no larger, and hardly ever that small by chance.
    """
    origin = read(some[:1]).astype(float)
    directions = np.random.default_rng(0).normal(size=(origin.shape[1], 3))
    directions = np.linalg.qr(directions)[0] if origin.shape[1] > 3 else np.eye(origin.shape[1])
    projected = [
        (points - origin) @ directions
        for part in np.array_split(some, min(n_parts, len(some)))
        for points in _pieces(read(_as_slice(part)))
    ]
    tree = KDTree(np.concatenate(projected))
    rows = tree.indices  # in this order, the part of the tree that is read stays in the cache
    found = tree.query(tree.data[rows], 2, distance_upper_bound=2.0 * within)[1]  # rounding is less
    other = np.where(found[:, 0] == rows, found[:, 1], found[:, 0])
    pairs = np.stack([rows, other], axis=1)[other < len(some)]
    if len(pairs) == 0:
        return pairs.T
    is_near = [
        np.linalg.norm(read(some[ends[:, 0]]).astype(float) - read(some[ends[:, 1]]), axis=1) <= within
        for ends in _pieces(pairs)
    ]
    return pairs[np.concatenate(is_near)].T


def _pieces(rows: np.ndarray) -> list[np.ndarray]:
    """Parts of an array that the cache holds."""
    return np.array_split(rows, max(-(-len(rows) // 1024), 1))


def _as_slice(rows: np.ndarray) -> slice | np.ndarray:
    """Rising numbers of rows, as a slice if they are neighbours: of files, it is read faster."""
    start, stop = int(rows[0]), int(rows[-1]) + 1
    return slice(start, stop) if stop - start == len(rows) else rows


def _equal(read: Reader, parts: Sequence[slice]) -> tuple[np.ndarray, np.ndarray]:
    """The same of points that are equal."""
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
    return np.concatenate([part.astype(np.uint64) @ key for part in _pieces(words)])


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
