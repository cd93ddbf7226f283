"""Sources as users give them, and the atoms to start from."""

import math
from typing import Any

import numpy as np

from ..backend import Array, describe, guest
from ..problem import build_target, check_count, check_points
from ..problem.places import places
from ..samplers.base import Sampler
from ..samplers.draws import Draws
from ..samplers.resolve import resolve_random, resolve_source
from ..solver import Options


def resolve_n_points(n_points: object, n_atoms: int) -> int:
    """Points of a source for a step: the user's number, or 64 for each atom, 8,192 at least."""
    return max(64 * n_atoms, 8192) if n_points is None else check_count("n_points", n_points, n_atoms)


def resolve_sources(
    given: dict[str, Any],
    n_atoms: int,
    n_points: int,
    X_init: Any,
    random_state: Any,
    *,
    spread: bool,
    n_init: int = 1,
) -> tuple[list[Sampler], list[Array]]:
    """Samplers of sources, and the atoms of so many starts, cut from any graph.

    Parameters
    ----------
    given : dict
        Sources as users give them, by the names of their arguments.
    spread : bool
        Whether atoms that are not given are to be far from each other: chosen by k-means++, not as the
        first points of the first source.
    """
    if X_init is None:
        like = _points_like(*next(iter(given.items())))
    else:
        like, _ = check_points("X_init", X_init)
        if like.shape[0] != n_atoms:
            raise ValueError(
                f"X_init: expected {n_atoms} points, one for each atom, received {describe(like)}."
            )
    target = build_target(like, merge=False).detached
    random = resolve_random(random_state, target.nx, like)
    seeds = np.random.default_rng([int(i) for i in target.nx.to_numpy(random.integers(2**31, 4))])
    sources = [resolve_source(v, like, int(seeds.integers(2**31)), name) for name, v in given.items()]
    if X_init is not None:
        return sources, [target.nx.detach(like)]
    draws = Draws(sources[0], target)
    points: list[Array] = []
    while sum(x.shape[0] for x in points) < n_points:
        points.append(draws(Options.batch_size))
    x = target.nx.concatenate(points, axis=0)
    x = x if target.origin is None else x + target.origin
    host = target.nx.to_numpy(x)
    first, _ = places(host.__getitem__, [slice(None)])  # one of equal points
    if len(first) < n_atoms:
        raise ValueError(
            f"n_atoms: expected at most {len(first)}, as many as {len(host)} points of the source that "
            f"are different, received {n_atoms}; give X_init."
        )
    starts = []
    for k in range(n_init):
        if spread:
            chosen = _kmeans_plus_plus(host[first], n_atoms, seeds)
        else:
            chosen = (seeds.permutation(len(first)) if k else np.arange(len(first)))[:n_atoms]
        starts.append(target.nx.concatenate([x[int(i) : int(i) + 1] for i in first[chosen]], axis=0))
    return sources, starts


def _points_like(name: str, source: Any) -> Array:
    """Points that have the backend, dtype, device and dimension of those of a source."""
    if hasattr(source, "shape") or isinstance(source, (list, tuple)):
        return check_points(name, source)[0]
    if not callable(source) or isinstance(source, type):
        raise ValueError(
            "X_init: expected points to start from, for a source that does not tell backend and "
            f"dimension, {describe(source)}, received None."
        )
    points = guest(source)(Options.batch_size)
    if not hasattr(points, "shape"):
        raise TypeError(
            f"{name}: expected a callable n -> an array of shape (n, d), received {describe(points)}."
        )
    return check_points(f"{name}({Options.batch_size})", points)[0]


def _kmeans_plus_plus(points: np.ndarray, n: int, random: np.random.Generator) -> np.ndarray:
    """Indices of n of the first 16 n points, by greedy k-means++ (Arthur, Vassilvitskii, 2007).

    Each is the best of ``2 + log(n)`` trials, as many as scikit-learn's, drawn in proportion to the
    squared distance to those before (section 7).
    """
    points = points[: 16 * n].astype(float)
    points = points - points.mean(axis=0)
    squares, n_trials = np.sum(points**2, axis=1), 2 + int(math.log(n))
    least = 1e-300  # of squared distances, which rounding may make 0
    chosen = [int(random.integers(len(points)))]
    nearest = np.maximum(np.sum((points - points[chosen[0]]) ** 2, axis=1), least)
    nearest[chosen] = 0.0
    for _ in range(n - 1):
        trials = random.choice(len(points), n_trials, p=nearest / nearest.sum())
        distances = squares - 2.0 * points[trials] @ points.T + squares[trials][:, None]
        found = np.minimum(nearest, np.maximum(distances, least))
        best = int(np.argmin(found.sum(axis=1)))
        nearest = found[best]
        chosen.append(int(trials[best]))
        nearest[chosen[-1]] = 0.0
    return np.array(chosen)
