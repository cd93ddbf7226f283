"""Triton programs over tiles of (samples x atoms): each makes the scores of a tile, and keeps sums only.

All get factors of the cost and make scores ``u_i . v_j + bias_j`` of them in the same way, so that a
weight is the same number in each. A program has one tile of rows, or of columns, and goes along a part
of the other axis: parts are added in a fixed order, and no result depends on which program was first.
"""

import triton
import triton.language as tl


@triton.jit
def _scores(
    u: tl.tensor,
    v: tl.tensor,
    bias: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    n_rows: tl.tensor,
    n_atoms: tl.tensor,
    d: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """Scores of a tile, (M, N); minus infinity right of the last atom. K is 0 for few coordinates."""
    is_row, is_atom = rows < n_rows, columns < n_atoms
    scores = tl.zeros((M, N), tl.float32)
    left, right = u + rows.to(tl.int64) * d, v + columns.to(tl.int64) * d
    if K == 0:
        for k in tl.static_range(d):
            a = tl.load(left + k, mask=is_row, other=0.0).to(tl.float32)
            b = tl.load(right + k, mask=is_atom, other=0.0).to(tl.float32)
            scores += a[:, None] * b[None, :]
    else:
        for start in range(0, d, K):
            k = start + tl.arange(0, K)
            a = tl.load(left[:, None] + k[None, :], mask=is_row[:, None] & (k < d)[None, :], other=0.0)
            b = tl.load(right[None, :] + k[:, None], mask=is_atom[None, :] & (k < d)[:, None], other=0.0)
            scores = tl.dot(a, b, scores, input_precision=PRECISION)
    added = tl.load(bias + columns, mask=is_atom, other=float("-inf"))
    return scores + added[None, :]


@triton.jit(do_not_specialize=["n_rows", "n_tiles"])
def row_sums(
    u: tl.tensor,
    v: tl.tensor,
    bias: tl.tensor,
    maxima: tl.tensor,
    totals: tl.tensor,
    n_rows: tl.tensor,
    n_atoms: tl.tensor,
    n_tiles: tl.tensor,
    d: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Maximum of each row in each part of `n_tiles` tiles of atoms, and sum of powers of 2 less that.

    Both are (parts, n_rows). The sum is rescaled when the maximum grows (Milakov, Gimelshein, 2018).
    """
    rows, part = tl.program_id(0) * M + tl.arange(0, M), tl.program_id(1)
    top, total = tl.full((M,), -3.4e38, tl.float32), tl.zeros((M,), tl.float32)
    for tile in range(part * n_tiles, min((part + 1) * n_tiles, tl.cdiv(n_atoms, N))):
        columns = tile * N + tl.arange(0, N)
        scores = _scores(u, v, bias, rows, columns, n_rows, n_atoms, d, M, N, K, PRECISION)
        grown = tl.maximum(top, tl.max(scores, axis=1))
        total = total * tl.exp2(top - grown) + tl.sum(tl.exp2(scores - grown[:, None]), axis=1)
        top = grown
    place = part.to(tl.int64) * n_rows + rows
    tl.store(maxima + place, top, mask=rows < n_rows)
    tl.store(totals + place, total, mask=rows < n_rows)


@triton.jit(do_not_specialize=["n_rows", "n_tiles"])
def row_argmax(
    u: tl.tensor,
    v: tl.tensor,
    bias: tl.tensor,
    maxima: tl.tensor,
    indices: tl.tensor,
    n_rows: tl.tensor,
    n_atoms: tl.tensor,
    n_tiles: tl.tensor,
    d: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Maximum and the first atom that has it, of each row and part of `n_tiles` tiles of atoms."""
    rows, part = tl.program_id(0) * M + tl.arange(0, M), tl.program_id(1)
    top, index = tl.full((M,), float("-inf"), tl.float32), tl.zeros((M,), tl.int32)
    for tile in range(part * n_tiles, min((part + 1) * n_tiles, tl.cdiv(n_atoms, N))):
        columns = tile * N + tl.arange(0, N)
        scores = _scores(u, v, bias, rows, columns, n_rows, n_atoms, d, M, N, K, PRECISION)
        best, where = tl.max(scores, axis=1, return_indices=True)
        index = tl.where(best > top, tile * N + where, index)
        top = tl.maximum(top, best)
    place = part.to(tl.int64) * n_rows + rows
    tl.store(maxima + place, top, mask=rows < n_rows)
    tl.store(indices + place, index, mask=rows < n_rows)


@triton.jit(do_not_specialize=["n_rows", "n_tiles"])
def column_sums(
    u: tl.tensor,
    v: tl.tensor,
    bias: tl.tensor,
    row_max: tl.tensor,
    inverse: tl.tensor,
    sums: tl.tensor,
    n_rows: tl.tensor,
    n_atoms: tl.tensor,
    n_tiles: tl.tensor,
    d: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    PRECISION: tl.constexpr,
    SQUARE: tl.constexpr,
) -> None:
    """Sum of weights, or of their squares, of each atom and part of `n_tiles` tiles of rows."""
    columns, part = tl.program_id(0) * N + tl.arange(0, N), tl.program_id(1)
    total = tl.zeros((N,), tl.float32)
    for tile in range(part * n_tiles, min((part + 1) * n_tiles, tl.cdiv(n_rows, M))):
        rows = tile * M + tl.arange(0, M)
        scores = _scores(u, v, bias, rows, columns, n_rows, n_atoms, d, M, N, K, PRECISION)
        top = tl.load(row_max + rows, mask=rows < n_rows, other=float("inf"))
        weights = tl.exp2(scores - top[:, None])
        weights *= tl.load(inverse + rows, mask=rows < n_rows, other=0.0)[:, None]
        if SQUARE:
            weights *= weights
        total += tl.sum(weights, axis=0)
    tl.store(sums + part.to(tl.int64) * n_atoms + columns, total, mask=columns < n_atoms)


@triton.jit(do_not_specialize=["n_rows", "n_tiles"])
def row_averages(
    u: tl.tensor,
    v: tl.tensor,
    bias: tl.tensor,
    row_max: tl.tensor,
    inverse: tl.tensor,
    values: tl.tensor,
    averages: tl.tensor,
    n_rows: tl.tensor,
    n_atoms: tl.tensor,
    n_tiles: tl.tensor,
    width: tl.constexpr,
    d: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    W: tl.constexpr,
    PRECISION: tl.constexpr,
    AVERAGE: tl.constexpr,
) -> None:
    """Sum of weights times W columns of `values`, (n_atoms, width), of each row and part of atoms."""
    rows, part = tl.program_id(0) * M + tl.arange(0, M), tl.program_id(2)
    across = tl.program_id(1) * W + tl.arange(0, W)
    is_row, is_value = rows < n_rows, across < width
    top = tl.load(row_max + rows, mask=is_row, other=float("inf"))
    share = tl.load(inverse + rows, mask=is_row, other=0.0)
    total = tl.zeros((M, W), tl.float32)
    for tile in range(part * n_tiles, min((part + 1) * n_tiles, tl.cdiv(n_atoms, N))):
        columns = tile * N + tl.arange(0, N)
        scores = _scores(u, v, bias, rows, columns, n_rows, n_atoms, d, M, N, K, PRECISION)
        weights = tl.exp2(scores - top[:, None]) * share[:, None]
        place = values + columns.to(tl.int64)[:, None] * width + across[None, :]
        some = tl.load(place, mask=(columns < n_atoms)[:, None] & is_value[None, :], other=0.0)
        total = tl.dot(weights, some, total, input_precision=AVERAGE)
    place = averages + (part.to(tl.int64) * n_rows + rows)[:, None] * width + across[None, :]
    tl.store(place, total, mask=is_row[:, None] & is_value[None, :])


@triton.jit(do_not_specialize=["n_atoms"])
def group_weights(
    u: tl.tensor,
    v: tl.tensor,
    bias: tl.tensor,
    maxima: tl.tensor,
    first: tl.tensor,
    weights: tl.tensor,
    n_atoms: tl.tensor,
    size: tl.tensor,
    d: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
) -> None:
    """Powers of 2 of scores less a maximum, of `size` atoms from the `first` of each row on."""
    row = tl.program_id(0).to(tl.int64)
    inside = tl.program_id(1) * N + tl.arange(0, N)
    columns = tl.load(first + row) + inside
    is_atom = (columns < n_atoms) & (inside < size)
    scores = tl.load(bias + columns, mask=is_atom, other=float("-inf"))
    for start in range(0, d, K):
        k = start + tl.arange(0, K)
        a = tl.load(u + row * d + k, mask=k < d, other=0.0).to(tl.float32)
        place = v + columns.to(tl.int64)[:, None] * d + k[None, :]
        b = tl.load(place, mask=is_atom[:, None] & (k < d)[None, :], other=0.0).to(tl.float32)
        scores += tl.sum(a[None, :] * b, axis=1)
    power = tl.exp2(scores - tl.load(maxima + row))
    tl.store(weights + row * size + inside, power, mask=inside < size)
