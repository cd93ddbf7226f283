"""Whether a kernel keeps its contract, by the generic one."""

from typing import Any

import numpy as np

from ..backend import Array, describe, largest_exponent, rounding_unit
from .base import Atoms, Kernel
from .blocks import SoftBlock
from .generic import GenericKernel

PARTS = {  # what authors write, and what it means
    "soft": {
        "c_transform": "c_transform = source_term - reg * logsumexp(scores + bias)",
        "dense": "exp_scores * inv_row_sums[:, None] = softmax(scores + bias)",
        "colsum": "colsum() of its block, the sum of exp_scores * inv_row_sums[:, None] over rows",
        "colsquare": "colsquare() of its block, the same of squares",  # the last: it spends the block
    },
    "hard": {
        "c_transform": "c_transform = source_term - max(scores + bias)",
        "dense": "index = argmax(scores + bias)",
        "colsum": "colsum() of its block, how often each atom is chosen",
        "colsquare": "colsquare() of its block, how often each atom is chosen",
    },
}


def check_kernel(kernel: type[Kernel], target: Atoms, x: Array, potential: Array, reg: float) -> None:
    """Compare the blocks of a kernel with those of :class:`GenericKernel`, at a few points.

    Targets do so with each kernel that is not the package's own, at ``reg = 0``, at a large `reg`, and
    at one so small that powers of scores overflow.

    Parameters
    ----------
    kernel : subclass of Kernel
        To be checked.
    target : Target
        Its backend is that of the kernel.
    x : array, shape (n, d)
        Points, in the coordinates of the target.
    potential : array, shape (n_support,)
        Any.
    reg : float
        Regularisation; 0 for :meth:`Kernel.hard`.

    Raises
    ------
    ValueError
        If a kind, a shape, a dtype or a number is another.

    Examples
    --------
    >>> import numpy as np
    >>> from pot_semidiscrete.kernels import check_kernel
    >>> from pot_semidiscrete.problem import build_target
    >>> target = build_target(np.eye(3))
    >>> check_kernel(target.kernel, target, np.zeros((2, 3)), np.zeros(3), 0.1)
    """
    nx, built = target.nx, kernel(target, potential, reg)
    method = "soft" if reg > 0 else "hard"
    words = f"kernel {kernel.__name__}: expected {method}(scores, source_term) to return"
    if not hasattr(built, "bias"):
        raise ValueError(
            f"kernel {kernel.__name__}: expected an __init__(target, potential, reg) that calls that of "
            "Kernel, received one that leaves no bias; call super().__init__(target, potential, reg)."
        )
    with np.errstate(all="ignore"):
        block = built(x, None, built.prepare(x, x.shape[0]))
    known, unit = GenericKernel(target, potential, reg), max(rounding_unit(x, nx), kernel.rounding_unit)
    generic, largest = known(x), float(nx.max(nx.abs(known.bias)))  # of the scores, about
    _check_fields(words, block, generic)
    for name, meaning in PARTS[method].items():
        found, expected = (getattr(b, name) for b in (block, generic))
        found, expected = (v() if callable(v) else v for v in (found, expected))
        _check_kind(f"{words} {name}", found, tuple(expected.shape), expected)
        error, size = (float(nx.max(nx.abs(nx.detach(v)))) for v in (found - expected, expected + 1.0))
        if not np.isfinite(error):
            raise ValueError(
                f"{words} {meaning}, received NaN or inf at reg = {reg:.2g}; scores have no bound: "
                "subtract the maximum of each row before powers are taken."
            )
        if not error <= unit * (1e4 * max(size, 1.0) + 100.0 * largest):
            raise ValueError(
                f"{words} {meaning}, received one that differs by {error:.2g} from that of "
                f"GenericKernel at reg = {reg:.2g}; mend it, or, if it computes in less than the "
                f"precision of {x.dtype}, give the class its rounding_unit."
            )


def check_at(kernel: type[Kernel], few: Atoms, scale: float) -> None:
    """Check a kernel at a few atoms, whose costs are of that scale, as :func:`check_kernel` tells."""
    potential = scale * (1.0 + 0.1 * few.weights)
    # at the last, powers of the scores overflow, unless the maxima are subtracted
    for reg in (0.0, scale, 0.5 * scale / largest_exponent(few.weights, few.nx)):
        check_kernel(kernel, few, few.atoms[:3], potential, reg)


def _check_fields(words: str, block: Any, generic: Any) -> None:
    """Check the kinds of what a block was made of."""
    kind, n, transform = type(generic), generic.c_transform.shape[0], generic.c_transform
    if not isinstance(block, kind):
        fields = "exp_scores, inv_row_sums" if kind is SoftBlock else "index, n_atoms"
        raise ValueError(
            f"{words} a {kind.__name__}, received {describe(block)}; return "
            f"{kind.__name__}({fields}, c_transform, self.nx)."
        )
    if kind is SoftBlock:
        _check_kind(f"{words} exp_scores", block.exp_scores, tuple(generic.exp_scores.shape), transform)
        _check_kind(f"{words} inv_row_sums", block.inv_row_sums, (n,), transform)
    else:
        if "int" not in str(getattr(block.index, "dtype", None)) or tuple(block.index.shape) != (n,):
            raise ValueError(
                f"{words} index of shape ({n},) and whole numbers, received {describe(block.index)}."
            )
        if not isinstance(block.n_atoms, int) or block.n_atoms != generic.n_atoms:
            raise ValueError(
                f"{words} n_atoms = {generic.n_atoms}, the columns of the scores, received "
                f"{describe(block.n_atoms)}."
            )
    _check_kind(f"{words} c_transform", block.c_transform, (n,), transform)


def _check_kind(words: str, value: Any, shape: tuple[int, ...], like: Array) -> None:
    if tuple(getattr(value, "shape", (None,))) != shape or value.dtype != like.dtype:
        raise ValueError(f"{words} of shape {shape} and dtype {like.dtype}, received {describe(value)}.")
