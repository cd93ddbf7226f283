"""Pairs of noise and data by a coupling."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import get_worker_info

from ...backend import describe, ours
from ...plan import SemiDiscretePlan
from ...problem import check_count, check_real
from ...runs import check_output
from ..data import DataRows, stacked
from ..potential import TrackedPotential
from .assignment import CouplingAssignment
from .coupling import SemiDiscreteCoupling, check_whole, coupling_of_potential
from .loader import LabelledPairs, PairLoader, Pairs
from .reservoir import Reservoir
from .solving import solve_coupling
from .space import Projection
from .streams import PairStream, can_refresh, seed_of
from .table import write_table

CHUNK = 4  # batches whose pairs are drawn at once, and mixed; benchmarks.flow_matching


class SemiDiscretePairs(PairLoader):
    """Batches of paired noise and data, for flow matching.

    For ``DataLoader(pairs, batch_size=None, num_workers=k)``, whose own batches must be off, or for a
    plain loop. Batches are named tuples ``(noise, data, index)``; with labels or conditions, which are
    those of the data, ``(noise, data, index, label)``. All have `batch_size` pairs.

    Parameters
    ----------
    plan : SemiDiscreteCoupling, SemiDiscreteResult, SemiDiscreteLoss or tensor
        The coupling; or a result or a loss, for its present potential and noise of the dimension of the
        atoms; or a tensor of data, shape (n_data, ...), for which :func:`solve_coupling` is called with
        its defaults.
    noise : str, law or tensor, optional
        Law of the noise, as in :func:`solve_coupling`, which a coupling already has. ``"normal"`` by
        default.
    data : tensor of shape (n_data, ...), Dataset or ShardedAtoms, optional
        What to return in the place of what was paired, in the same order: images for latents, say. Of
        items that are tuples, the first entry. By default what was paired; for a result its atoms, up to
        rounding.
    batch_size : int, default=128
        Pairs of a batch.
    labels : tensor of int, shape (n_data,), optional
        Labels of a tensor of data. Otherwise give them to :func:`solve_coupling`: with one potential for
        all, the noise would depend on the label.
    transform : callable, optional
        ``item -> tensor``, applied to each item of the data.
    projection : tensor or callable, optional
        Map from noise to the space of the atoms of a result or a loss: see :func:`solve_coupling`.
    n_reuse : int, optional
        How often a pair is used, each time with fresh noise in the coordinates outside of the space of
        pairing. By default 2 if there are such coordinates, else 1.
    epoch_size : int, optional
        Pairs of an epoch, over all workers and processes. As many as data by default; a very large
        number gives an endless stream.
    proportions : tensor, shape (n_classes,), optional
        Proportions of the labels, in the order of ``coupling.classes``. Those of the data by default.
    independent : float, default=0.0
        Share of pairs that are independent.
    max_memory : int, default=2**28
        Bytes of noise that :meth:`noise_for` keeps at most.
    random_state : None, int or generator
        Randomness. Each worker of a loader, each process of ``torch.distributed`` and each epoch has its
        own pairs, the same in each run with as many workers and processes.

    Attributes
    ----------
    coupling : SemiDiscreteCoupling
    labels : tensor, shape (n_data,) or (n_data, m), or None
        Labels or conditions of the data.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind or range, or arguments contradict each other.

    Notes
    -----
    A coupling on a GPU makes pairs there: use ``num_workers=0``, or spawned workers. Of a result with
    :class:`pot_semidiscrete.ShardedAtoms`, which are given as `data`, too, all processes make their
    batches in step, without workers.

    References
    ----------
    Mousavi-Hosseini, Zhang, Klein, Cuturi, arXiv:2509.25519.

    Examples
    --------
    >>> import torch
    >>> from pot_semidiscrete.generative import SemiDiscretePairs
    >>> points = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    >>> pairs = SemiDiscretePairs(points, batch_size=50, random_state=0)
    >>> for noise, data, index in torch.utils.data.DataLoader(pairs, batch_size=None):
    ...     t = torch.rand(50, 1)
    ...     at_t, velocity = (1 - t) * noise + t * data, data - noise  # for the step of a flow
    >>> len(pairs), torch.equal(data, points[index])
    (10, True)
    """

    def __init__(
        self,
        plan: Any,
        noise: Any = None,
        data: Any = None,
        *,
        batch_size: int = 128,
        labels: Any = None,
        transform: Callable[[Any], torch.Tensor] | None = None,
        projection: Projection = None,
        n_reuse: int | None = None,
        epoch_size: int | None = None,
        proportions: Any = None,
        independent: float = 0.0,
        max_memory: int = 2**28,
        random_state: Any = None,
    ) -> None:
        batch_size = check_count("batch_size", batch_size)
        share = check_real("independent", independent)
        if share > 1.0:
            raise ValueError(f"independent: expected a share of at most 1, received {share}.")
        max_memory = check_count("max_memory", max_memory)
        rows = None if data is None else DataRows(data, transform)
        shape = None if rows is None else rows.shape
        coupling = _coupling_of(plan, noise, labels, projection, shape, random_state)
        with ours():
            seed, free = seed_of(random_state, coupling.like), can_refresh(coupling.space, coupling.law)
            n_reuse = (2 if free else 1) if n_reuse is None else check_count("n_reuse", n_reuse)
            pairing = CouplingAssignment(coupling, seed, proportions, share)
            chunk_size = CHUNK * batch_size
            stream = PairStream(coupling.space, coupling.law, pairing, seed, chunk_size, n_reuse)
            rows = DataRows(coupling.data, transform) if rows is None else rows
            super().__init__(stream, rows, coupling.labels, coupling.n_data, batch_size, epoch_size)
            self.coupling, self.reservoir = coupling, Reservoir(pairing, stream, max_memory)

    def __iter__(self) -> Iterator[Pairs | LabelledPairs]:
        """Batches of the next epoch, or of the one that was resumed."""
        if get_worker_info() is not None:
            check_whole(self.coupling, "num_workers")
        return super().__iter__()

    def __repr__(self) -> str:
        return (
            f"SemiDiscretePairs({self.coupling!r}, batch_size={self.batch_size}, n_batches={len(self)})"
        )

    @ours()
    def noise_for(self, index: torch.Tensor) -> torch.Tensor:
        """Draw noise for the data points of a batch of your own loader.

        The noise has its law given the data point. Pairs are drawn, and their noise is kept until its
        data point is requested; each is returned once. At most 4 pairs are drawn for each of the data,
        and 8 for each requested point. A data point of small mass may then have none: it gets the
        nearest noise of another point, and ``reservoir.n_nearest`` counts it.

        The noise that is kept is in ``reservoir.state_dict()``, not in ``state_dict()``.

        Parameters
        ----------
        index : tensor of int, shape (n,)
            Rows of the data.

        Returns
        -------
        tensor, shape (n, ...)
        """
        check_whole(self.coupling, "noise_for")
        return self.reservoir.take(index)

    @ours()
    def precompute(self, n: int, path: str | os.PathLike) -> None:
        """Write a table of pairs for :class:`StoredPairs`: seeds of the noise, and rows of the data.

        Parameters
        ----------
        n : int
            Number of pairs, each used `n_reuse` times; rounded up to whole chunks of 4 batches.
        path : str or path-like
            Of the file, ``.npz``, which appears whole or not at all.

        Raises
        ------
        ValueError
            If the noise is not a law with a name.
        """
        check_whole(self.coupling, "precompute")
        path = check_output("path", path)
        write_table(path, self.stream, self.labels, len(self.rows.data), check_count("n", n))


def _coupling_of(
    plan: Any,
    noise: Any,
    labels: Any,
    projection: Projection,
    shape: tuple[int, ...] | None,
    random_state: Any,
) -> SemiDiscreteCoupling:
    """The coupling of what users have: data, a potential of them, or a coupling.

    `shape` is that of an item of the data that are returned, if they are given.
    """
    plan = stacked(plan)
    if isinstance(plan, torch.Tensor):
        noise = "normal" if noise is None else noise
        return solve_coupling(
            plan, noise, labels=labels, projection=projection, random_state=random_state
        )
    if labels is not None:
        raise ValueError(
            "labels: expected None with a potential that was solved without, by which the noise would "
            "depend on the label, received some; give labels to solve_coupling, and its coupling."
        )
    if isinstance(plan, SemiDiscreteCoupling):
        if noise is not None or projection is not None:
            raise ValueError(
                "noise, projection: expected None with a coupling, which has its own, received some; "
                "give them to solve_coupling."
            )
        return plan
    if not isinstance(plan, (SemiDiscretePlan, TrackedPotential)):
        raise TypeError(
            "plan: expected a coupling, a result, a loss or a tensor of data, received "
            f"{describe(plan)}; make a tensor of an array by torch.as_tensor."
        )
    with ours():
        return coupling_of_potential(plan, "normal" if noise is None else noise, projection, shape)
