"""The kernel in POT's backend vocabulary: runs anywhere, and can be differentiated.

What is differentiated must not ask for ``nx.zeros(..., type_as=x)``: under JAX, `x` is traced and
has no device to tell.
"""

from ._blocks import HardBlock, SoftBlock

# Exponents are cut off here, by bytes of the dtype: far below one rounding of the sum, and above
# the denormal numbers, on which a processor is some twenty times slower.
EXP_FLOOR = {4: -70.0, 8: -600.0}
CACHE = 2**20  # bytes that a core has to itself


def equal_rows(n_rows, most):
    """Rows of blocks of equal length, none of a few rows."""
    return max(1, -(-n_rows // -(-n_rows // max(most, 1)))) if n_rows else 1


def joined(parts, nx):
    """Arrays, one after the other in their first axis."""
    return parts[0] if len(parts) == 1 else nx.concatenate(list(parts), axis=0)


class Kernel:
    """Assignment weights and c-transform of a block of source points.

    With ``s_ij = (psi_j - c(x_i, y_j)) / reg + log b_j`` up to a term of the row, the weights are
    the softmax of ``s`` and the c-transform is ``row - reg logsumexp(s)``; at ``reg = 0``,
    the argmax and ``row - max(s)`` with ``s = psi - c``. Subclasses may hold ``s`` in units of
    ``log 2``, for powers of 2 where they are the faster ones.

    Parameters
    ----------
    target : Target
    potential : array, shape (n_support,)
    reg : float
    """

    unit = 1.0  # of the scores at reg > 0

    def __init__(self, target, potential, reg):
        self.target, self.nx, self.reg = target, target.nx, reg
        self.scale = 1.0 / (reg * self.unit) if reg > 0 else 1.0
        self.bias = self.scale * (potential - target.column)
        if reg > 0:
            self.bias = self.bias + target.log_weights / self.unit

    def prepare(self, x, rows):
        """What can be made of all points at once, before they are taken in blocks of so many rows."""
        return None

    def guessed(self, prepared):
        """Block of points made of that, or None."""
        return None

    def __call__(self, x, cross=None, prepared=None):
        """Block for the source points `x`, shape (n, d).

        If known, the cross part of their costs is given, or what :meth:`prepare` returned for them.
        """
        block = None if prepared is None else self.guessed(prepared)
        if block is not None:
            return block
        target, nx = self.target, self.nx
        if cross is None:
            scores = target.cost.cross(x, target.atoms, self.scale, nx, self.matmul)
        else:
            scores = self.scaled(cross)
        row = target.cost.row(x, nx)
        return self.soft(scores, row) if self.reg > 0 else self.hard(scores, row)

    @staticmethod
    def cache():
        """Bytes that stay in the cache from one pass over them to the next."""
        return 2 * CACHE  # cores, how many is not known, share a pass

    def matmul(self, u, v):
        return self.nx.dot(u, v.T)

    def scaled(self, cross):
        return self.scale * cross

    def soft(self, scores, row):
        nx = self.nx
        scores = scores + self.bias
        total = nx.logsumexp(scores, axis=1)
        shares = nx.exp(scores - total[:, None])
        return SoftBlock(shares, 1.0 / nx.sum(shares, axis=1), row - self.reg * total, nx)

    def hard(self, scores, row):
        nx = self.nx
        scores = scores + self.bias
        block = HardBlock(nx.argmax(scores, axis=1), scores.shape[1], row, nx)
        # max(s), with the derivative of the atom chosen, ties included
        block.c_transform = row - nx.sum(block.dense() * scores, axis=1)
        return block
