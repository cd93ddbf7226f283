"""The contract of a kernel, and the registry of those of a backend.

A kernel turns a block of source points into a block of assignment weights and their c-transform.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

from ..backend import Array, Backend, LazyRegistry, describe
from ..costs import Cost
from .blocks import HardBlock, SoftBlock

CACHE = 2**22  # bytes that a core has to itself, or nearly; benchmarks.kernels
BLOCK_BYTES = 2**28  # bytes of a block on the host, at most
SHARING = 256  # rows that make the reading of the atoms cheap
DEVICE_ENTRIES = 2**26  # of a block in the memory of a device, at most
Block: TypeAlias = SoftBlock | HardBlock


class Atoms(Protocol):
    """What reductions ask of a target; see :class:`pot_semidiscrete.problem.Target`."""

    @property
    def nx(self) -> Backend: ...
    @property
    def cost(self) -> Cost: ...
    @property
    def atoms(self) -> Array: ...
    @property
    def weights(self) -> Array: ...
    @property
    def log_weights(self) -> Array: ...
    @property
    def target_term(self) -> Array: ...
    @property
    def landmark_stride(self) -> int: ...
    @property
    def landmark_radius(self) -> float: ...
    @property
    def kernel(self) -> "type[Kernel]": ...
    @property
    def detached(self) -> "Atoms": ...
    @property
    def is_stored(self) -> bool: ...
    @property
    def shard(self) -> Any: ...
    @property
    def n_problems(self) -> int: ...
    @property
    def local(self) -> "Atoms": ...
    def tile(self, columns: slice) -> "Atoms": ...
    def parts(self) -> "Iterator[tuple[slice, Atoms]]": ...
    def in_parts(self, function: Callable[[Array], Array], axis: int = 0) -> Array: ...
    def total(self, function: Callable[[slice, Any], Array]) -> Array: ...
    def bilinear(self, x: Array) -> Array: ...


class Kernel(ABC):
    """Assignment weights and c-transform of a block of source points.

    With ``s_ij = (psi_j - c(x_i, y_j)) / reg + log b_j`` up to a term of the row, the weights are
    the softmax of ``s`` and the c-transform is ``source_term - reg logsumexp(s)``; at ``reg = 0``,
    the argmax and ``source_term - max(s)`` with ``s = psi - c``. To write one, give it :meth:`soft`
    and :meth:`hard`.

    Parameters
    ----------
    target : Target
    potential : array, shape (n_support,)
    reg : float

    Attributes
    ----------
    target : Target
        Its `cost`, `atoms` and `weights` are those of the support.
    nx : ot.backend.Backend
        POT's backend.
    reg : float
    unit : float
        Of the scores at ``reg > 0``. A subclass that has ``unit = math.log(2.0)`` gets ``s / log 2``: it
        takes powers of 2, and the c-transform is ``source_term - reg * unit * log2(sum)``.
    scale : float
        ``1 / (reg * unit)``, or 1 at ``reg = 0``: what costs are multiplied by to be scores.
    bias : array, shape (n_support,)
        Part of the scores that depends on the atom only, in their unit.
    rounding_unit : float
        Of what the kernel computes in, ``numpy.finfo("float32").eps`` say, where that is less precise
        than the data: :func:`check_kernel` allows for it.
    buffer : array of at least n rows, or None
        Memory for the scores, of which a kernel that overwrites memory may make a block: it then lasts
        until the next block in the same memory.
    threaded : bool
        Whether threads are to reduce parts of the rows, each by an instance of its own, where operations
        would share them otherwise.
    fused : bool
        Whether blocks hold no matrix, until they are asked for it: they may have any number of rows.
    """

    unit = 1.0
    rounding_unit = 0.0
    buffer: Array | None = None
    threaded = False
    fused = False

    def __init__(self, target: Atoms, potential: Array, reg: float) -> None:
        self.target, self.nx, self.reg = target, target.nx, reg
        self.scale = 1.0 / (reg * self.unit) if reg > 0 else 1.0
        self.bias = self.scale * (potential - target.target_term)
        if reg > 0:
            self.bias = self.bias + target.log_weights / self.unit

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n_atoms={len(self.target.weights)}, reg={self.reg:.4g})"

    @abstractmethod
    def soft(self, scores: Array, source_term: Array) -> SoftBlock:
        """Block of the scores less :attr:`bias`, ``(n, n_support)``, which may be overwritten.

        Scores have no bound: subtract the maximum of each row before powers are taken.
        """

    @abstractmethod
    def hard(self, scores: Array, source_term: Array) -> HardBlock:
        """The same at ``reg = 0``, where ``scores + bias`` is ``psi - c`` up to a term of the row."""

    @classmethod
    def suited(cls, target: Atoms) -> "type[Kernel]":
        """The kernel for a target of the backend: this one, or one that is made for such targets."""
        return cls

    def prepare(self, x: Array, rows: int) -> Array | None:
        """What can be made of all points at once, before they are taken in blocks of so many rows."""
        return None

    def prepared_block(self, rows: Array) -> Block | None:
        """Block of points made of that, or None."""
        return None

    def __call__(self, x: Array, bilinear: Array | None = None, prepared: Array | None = None) -> Block:
        """Block for the source points `x`, shape (n, d).

        If known, the bilinear part of their costs is given, or what :meth:`prepare` returned for them.
        """
        block = None if prepared is None else self.prepared_block(prepared)
        if block is not None:
            return block
        target, nx = self.target, self.nx
        if bilinear is None:
            scores = target.cost.bilinear(x, target.atoms, self.scale, nx, self.matmul)
        else:
            scores = self.scaled(bilinear)
        term = target.cost.source_term(x, nx)
        return self.soft(scores, term) if self.reg > 0 else self.hard(scores, term)

    @staticmethod
    def cache() -> int:
        """Bytes that stay in the cache from one pass over them to the next."""
        return CACHE

    def memory(self, rows: Array, n_columns: int) -> Array:
        """Array of so many columns, with the rows, dtype and device of `rows`, to be overwritten."""
        return self.nx.zeros((rows.shape[0], n_columns), type_as=rows)

    def matmul(self, u: Array, v: Array) -> Array:
        """``u v^T``: scores of a cost that has factors, in the dtype of the data unless overridden."""
        return self.nx.dot(u, v.T)

    def scaled(self, bilinear: Array) -> Array:
        """``scale * bilinear``, in memory of its own."""
        return self.scale * bilinear


def sharing_rows(x: Array) -> int:
    """Rows of a block that make the reading of the atoms cheap: in low dimension it always is."""
    return min(2 * x.shape[1], SHARING)


def row_bytes(target: Atoms) -> int:
    """Bytes of a row of scores."""
    return target.weights.shape[0] * target.nx.bitsize(target.weights) // 8


_REGISTRY: "LazyRegistry[type[Kernel]]" = LazyRegistry()


def register_kernel(backend: str, load: type[Kernel] | Callable[[], type[Kernel]]) -> None:
    """Say which kernel the arrays of a backend go to.

    Parameters
    ----------
    backend : str
        POT's name of it: ``"numpy"``, ``"torch"``, ``"jax"``, ``"cupy"``; ``""`` for those that have no
        kernel of their own.
    load : subclass of Kernel, or callable
        ``() -> class``, called when it is needed first.

    Raises
    ------
    TypeError
        If it is neither, or an abstract class.
    ValueError
        If POT has no backend of that name.
    """
    if isinstance(load, type) and issubclass(load, Kernel):
        kernel = _checked(load, backend)
        load = lambda: kernel
    elif isinstance(load, type) or not callable(load):
        raise TypeError(f"load: expected a subclass of Kernel or a function, received {describe(load)}.")
    _REGISTRY.register(backend, load)


def registered_kernels() -> dict[str, Callable[[], type[Kernel]]]:
    """Loaders of the kernels of backends.

    Returns
    -------
    dict of callables
        ``() -> class`` by POT's name of the backend; ``""`` is for all others.

    Examples
    --------
    >>> from pot_semidiscrete.kernels import registered_kernels
    >>> registered_kernels()["numpy"]()
    <class 'pot_semidiscrete.kernels.numpy_kernel.NumpyKernel'>
    """
    return _REGISTRY.loaders()


def kernel_for(nx: Backend) -> type[Kernel]:
    """The fastest kernel for a backend."""
    return _checked(_REGISTRY[nx.__name__], nx.__name__)


def _checked(kernel: object, backend: str) -> type[Kernel]:
    """Check that what a loader returned is a kernel that can be made."""
    words = f"kernel of {backend!r}: expected a subclass of Kernel"
    if not (isinstance(kernel, type) and issubclass(kernel, Kernel)):
        raise TypeError(f"{words}, received {describe(kernel)}; return the class from what loads it.")
    if inspect.isabstract(kernel):
        missing = ", ".join(sorted(kernel.__abstractmethods__))
        raise TypeError(f"{words} that can be made, received {kernel.__name__}, which lacks {missing}.")
    return kernel
