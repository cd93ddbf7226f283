"""Pairs of noise and data by a coupling."""

import os
from collections.abc import Callable
from typing import Any

import torch

from ...backend import ours
from ...problem import check_count, check_real
from ...runs import check_output
from ..data import DataRows
from .adopting import coupling_of
from .chunks import PairStream, can_refresh
from .loader import PairLoader
from .pairing import CouplingAssignment
from .reservoir import Reservoir
from .space import Projection
from .streams import seed_of
from .table import PairTable

QUEUE = 4  # batches that are drawn at once, and mixed; benchmarks.flow_matching


class SemiDiscretePairs(PairLoader):
    """Batches of noise and data that belong together, for flow matching.

    For ``DataLoader(pairs, batch_size=None, num_workers=k)``, whose own batches must be off, or for a
    plain loop. Batches are named tuples ``(noise, data, index)``; with labels or conditions, which are
    those of the data, ``(noise, data, index, label)``. All have `batch_size` pairs.

    Parameters
    ----------
    plan : SemiDiscreteCoupling, SemiDiscreteResult, SemiDiscreteLoss or tensor
        What pairs. Of a result or a loss, the present potential: noise of the dimension of the atoms.
        For a tensor of data, shape (n_data, ...), :func:`solve_coupling` with its defaults: call that to
        choose others.
    noise : str, law or tensor, optional
        Law of the noise, of all but a coupling: see :func:`solve_coupling`. ``"normal"`` by default.
    data : tensor of shape (n_data, ...) or Dataset, optional
        What is returned, in the order of what was paired: images where these were latents, say. Of items
        that are tuples, the first entry. By default what was paired; for a result its atoms, up to
        rounding.
    batch_size : int, default=128
        Pairs of a batch.
    labels : tensor of int, shape (n_data,), optional
        Of a tensor of data. Otherwise :func:`solve_coupling` takes labels: with one potential for all,
        the noise would depend on the label.
    transform : callable, optional
        ``item -> tensor``, applied to each item of the data.
    projection : tensor or callable, optional
        From noise to the atoms of a result or a loss: see :func:`solve_coupling`.
    n_reuse : int, optional
        How often a pair is used, each time with fresh noise out of the space of pairing. 2 by default
        where there is such noise, else 1.
    epoch_size : int, optional
        Pairs of an epoch, those of all workers and processes. As many as data by default; a very large
        number makes one endless stream.
    proportions : tensor, shape (n_classes,), optional
        Of the labels, in the order of ``coupling.classes``. Those of the data by default.
    independent : float, default=0.0
        Share of pairs whose data are drawn whatever the noise is.
    max_memory : int, default=2**28
        Bytes of noise that :meth:`noise_for` keeps at most.
    random_state : None, int or generator
        Randomness. Every worker of a loader, every process of ``torch.distributed`` and every epoch has
        pairs of its own, the same in each run with the same numbers of these.

    Attributes
    ----------
    coupling : SemiDiscreteCoupling
    labels : tensor, shape (n_data,) or (n_data, m), or None
        Or conditions.

    Raises
    ------
    TypeError, ValueError
        If arguments are of another kind, or contradict each other, with what was expected.

    Notes
    -----
    A coupling on a GPU makes pairs there: with ``num_workers=0``, or with workers that are spawned.

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
        coupling = coupling_of(plan, noise, labels, projection, shape, random_state)
        with ours():
            seed, free = seed_of(random_state, coupling.like), can_refresh(coupling.space, coupling.law)
            n_reuse = (2 if free else 1) if n_reuse is None else check_count("n_reuse", n_reuse)
            pairing = CouplingAssignment(coupling, seed, proportions, share)
            size = (coupling.space, coupling.law, pairing, seed, QUEUE * batch_size, n_reuse)
            stream = PairStream(*size)
            rows = DataRows(coupling.data, transform) if rows is None else rows
            rows.check_length(coupling.n_data)
            epoch_size = coupling.n_data if epoch_size is None else epoch_size
            super().__init__(stream, rows, coupling.labels, batch_size, epoch_size)
            self.coupling, self.reservoir = coupling, Reservoir(pairing, stream, max_memory)

    def __repr__(self) -> str:
        return (
            f"SemiDiscretePairs({self.coupling!r}, batch_size={self.batch_size}, n_batches={len(self)})"
        )

    @ours()
    def noise_for(self, index: torch.Tensor) -> torch.Tensor:
        """Draw noise that belongs to data points of your own loader, of its augmentation and order.

        Pairs are drawn and their noise is kept, until it is asked for; each is returned once. Its law is
        that of the noise given the data point. In all, 4 pairs are drawn for each of the data and 8 for
        each point that is asked for, at most: a data point for which these brought none, as its mass is
        small, gets the nearest noise of another, and ``reservoir.n_nearest`` counts it.

        ``state_dict()`` does not contain what is kept: ``reservoir.state_dict()`` does.

        Parameters
        ----------
        index : tensor of int, shape (n,)
            Rows of the data.

        Returns
        -------
        tensor, shape (n, ...)
        """
        return self.reservoir.take(index)

    @ours()
    def precompute(self, n: int, path: str | os.PathLike) -> None:
        """Write a table of pairs, for :class:`StoredPairs`: a seed and the number of the data of each.

        Parameters
        ----------
        n : int
            Pairs, each of which is used `n_reuse` times; whole chunks of 4 batches are made.
        path : str or path-like
            Of the file, ``.npz``, which appears whole or not at all.

        Raises
        ------
        ValueError
            If the noise is not a law with a name.
        """
        path = check_output("path", path)
        PairTable.made(self.stream, self.labels, len(self.rows.data), check_count("n", n)).write(path)
