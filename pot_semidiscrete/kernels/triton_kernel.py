"""torch on a GPU: the block of samples by atoms is never in memory, by Triton."""

import functools
import math
from typing import Any

import torch
import triton

from ..backend import Array, Backend, is_foreign, on_host
from . import triton_programs
from .base import Atoms, Block, Kernel
from .blocks import SoftBlock, level_in_group
from .torch_kernel import TorchHardBlock, TorchKernel


class FusedScores:
    """Scores ``u_i . v_j + bias_j`` in tiles, of which sums are taken as they are made.

    The products ``u_i . v_j`` are of a `precision` of :func:`fused_kernel`.
    """

    rows, columns, chunk = 64, 128, 32  # of a tile; coordinates that are multiplied at once
    values = 64  # columns of values that are averaged at once
    few = 8  # coordinates up to which the products are plain sums
    options = {"num_warps": 8, "num_stages": 2}  # noqa: RUF012
    programs = 4  # for each multiprocessor of the device, at least

    def __init__(self, u: Array, v: Array, bias: Array, precision: str) -> None:
        if precision == "bf16" and u.shape[1] > self.few:
            u, v = u.bfloat16(), v.bfloat16()
            if on_host(u):  # Triton's interpreter has no such products; these are the same numbers
                u, v = u.float(), v.float()
        self.u, self.v = u.contiguous(), v.contiguous()
        self.bias, self.precision = bias.contiguous(), precision
        self.n_rows, self.n_atoms = len(u), len(v)
        self.shape = {
            "d": u.shape[1],
            "M": min(self.rows, max(16, triton.next_power_of_2(self.n_rows))),
            "N": self.columns,
            "K": self.chunk if u.shape[1] > self.few else 0,
            "PRECISION": "ieee" if precision == "bf16" else precision,
        }
        self.n_row_tiles = triton.cdiv(self.n_rows, self.shape["M"])
        self.n_column_tiles = triton.cdiv(self.n_atoms, self.columns)

    def parts(self, n_tiles: int, others: int) -> tuple[int, int]:
        """Tiles of a part, and parts: enough programs, where there are `others` of each part."""
        device = self.u.device
        cores = 1 if on_host(self.u) else torch.cuda.get_device_properties(device).multi_processor_count
        size = triton.cdiv(n_tiles, min(n_tiles, triton.cdiv(self.programs * cores, others)))
        return size, triton.cdiv(n_tiles, size)

    def launch(self, program: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
        """Run a program, on the device of the factors."""
        with torch.cuda.device_of(self.u):
            program[grid](self.u, self.v, self.bias, *arguments, **constants, **self.options)

    def new(self, *shape: int, dtype: torch.dtype = torch.float32) -> Array:
        """Uninitialised array."""
        return torch.empty(shape, dtype=dtype, device=self.u.device)

    def row_sums(self, group: int | None = None) -> tuple[Array, Array]:
        """Maxima, and sums of powers of 2 less these, ``(parts, n)``, of parts of so many tiles."""
        size, n_parts = self.parts(self.n_column_tiles, self.n_row_tiles)
        if group is not None:
            size, n_parts = group, triton.cdiv(self.n_column_tiles, group)
        maxima, totals = (self.new(n_parts, self.n_rows) for _ in range(2))
        grid, sizes = (self.n_row_tiles, n_parts), (self.n_rows, self.n_atoms, size)
        self.launch(triton_programs.row_sums, grid, maxima, totals, *sizes, **self.shape)
        return maxima, totals

    def row_argmax(self) -> tuple[Array, Array]:
        """Largest score of each row, and the first atom that has it."""
        size, n_parts = self.parts(self.n_column_tiles, self.n_row_tiles)
        maxima = self.new(n_parts, self.n_rows)
        indices = self.new(n_parts, self.n_rows, dtype=torch.int32)
        grid, sizes = (self.n_row_tiles, n_parts), (self.n_rows, self.n_atoms, size)
        self.launch(triton_programs.row_argmax, grid, maxima, indices, *sizes, **self.shape)
        top, part = maxima.max(dim=0)
        return top, indices.gather(0, part[None, :])[0].long()

    def column_sums(self, row_max: Array, inverse: Array, square: bool) -> Array:
        """Sums of the weights of each atom, or of their squares."""
        size, n_parts = self.parts(self.n_row_tiles, self.n_column_tiles)
        sums = self.new(n_parts, self.n_atoms)
        grid, sizes = (self.n_column_tiles, n_parts), (self.n_rows, self.n_atoms, size)
        arguments = (row_max, inverse, sums, *sizes)
        self.launch(triton_programs.column_sums, grid, *arguments, **self.shape, SQUARE=square)
        return sums.sum(dim=0)

    def row_averages(self, row_max: Array, inverse: Array, values: Array) -> Array:
        """Sums of the weights of each row times `values`, ``(n_atoms, k)``."""
        exact, width = self.precision == "ieee", values.shape[1]
        across = min(self.values, max(16, triton.next_power_of_2(width)))
        # values are not rounded, whatever the factors are; of three products, larger tiles have no room
        how = {"N": self.columns if exact else self.columns // 2, "W": across}
        n_across, n_tiles = triton.cdiv(width, across), triton.cdiv(self.n_atoms, how["N"])
        size, n_parts = self.parts(n_tiles, self.n_row_tiles * n_across)
        averages = self.new(n_parts, self.n_rows, width)
        grid, sizes = (self.n_row_tiles, n_across, n_parts), (self.n_rows, self.n_atoms, size, width)
        arguments = (row_max, inverse, values.contiguous(), averages, *sizes)
        constants = self.shape | how | {"AVERAGE": "ieee" if exact else "tf32x3"}
        self.launch(triton_programs.row_averages, grid, *arguments, **constants)
        return averages.sum(dim=0)

    def group_weights(self, first: Array, size: int, maxima: Array) -> Array:
        """Powers of 2 of scores less `maxima`, ``(n, size)``, of atoms from `first` of each row on."""
        weights, d = self.new(self.n_rows, size), self.shape["d"]
        grid = (self.n_rows, triton.cdiv(size, self.columns))
        chunk = min(self.chunk, triton.next_power_of_2(d))
        arguments = (maxima.contiguous(), first, weights, self.n_atoms, size)
        self.launch(triton_programs.group_weights, grid, *arguments, d=d, N=self.columns, K=chunk)
        return weights


class FusedBlock(SoftBlock):
    """Rows of a softmax that is made anew for each sum, and for whoever asks for the matrix."""

    def __init__(
        self, tiles: FusedScores, source_term: Array, unit: float, make: Any, nx: Backend
    ) -> None:
        self.tiles, self.source_term, self.unit, self.nx = tiles, source_term, unit, nx
        self.make = make  # () -> SoftBlock, the same by torch

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n={self.tiles.n_rows}, n_atoms={self.tiles.n_atoms})"

    @functools.cached_property
    def made(self) -> SoftBlock:
        """The block in memory."""
        return self.make()

    @property
    def exp_scores(self) -> Array:
        return self.made.exp_scores

    @property
    def inv_row_sums(self) -> Array:
        return self.made.inv_row_sums

    @functools.cached_property
    def rows(self) -> tuple[Array, Array]:
        """Maxima of the rows, and sums of powers of 2 less these."""
        maxima, totals = self.tiles.row_sums()
        if len(maxima) == 1:
            return maxima[0], totals[0]
        row_max = maxima.amax(dim=0)
        return row_max, (totals * (maxima - row_max).exp2_()).sum(dim=0)

    @functools.cached_property
    def inverse(self) -> Array:
        """Inverses of these sums."""
        return self.rows[1].reciprocal()

    @functools.cached_property
    def c_transform(self) -> Array:
        row_max, total = self.rows
        return self.source_term - self.unit * (row_max + total.log2())

    def colsum(self) -> Array:
        return self.tiles.column_sums(self.rows[0], self.inverse, square=False)

    def colsquare(self) -> Array:
        return self.tiles.column_sums(self.rows[0], self.inverse, square=True)

    def average(self, values: Array) -> Array:
        return self.tiles.row_averages(self.rows[0], self.inverse, values)

    def scaled(self, share: Array) -> SoftBlock:
        return self.made.scaled(share)

    def cdf_group(self, level: Array) -> tuple[Array, Array, Array]:
        tiles = self.tiles
        size = triton.cdiv(math.isqrt(tiles.n_atoms), tiles.columns)
        maxima, totals = tiles.row_sums(size)
        masses = (totals * (maxima - maxima.amax(dim=0)).exp2_()).T.contiguous()
        group, level = level_in_group(masses, level, self.nx)
        first, width = group * (size * tiles.columns), size * tiles.columns
        top = maxima.gather(0, group[None, :])[0]
        return first, tiles.group_weights(first, width, top), level


class TritonKernel(TorchKernel):
    """Fused reductions of float32 data and costs that have factors; all else goes by torch.

    Each sum makes the scores again, a tile at a time, as attention does (Dao, Fu, Ermon, Rudra, Ré,
    2022): the log-sum-exp of rows, sums of columns, averages, an atom of each row.
    """

    fused = True
    precision = "ieee"
    most_coordinates: int | None = FusedScores.values  # above, a product is made again for each so many

    @classmethod
    def suited(cls, target: Atoms) -> type[Kernel]:
        """The class, for float32 data on a GPU and a cost of the package that has factors."""
        atoms, cost, most = target.atoms, target.cost, cls.most_coordinates
        if (
            target.is_stored
            or not atoms.is_cuda
            or atoms.dtype != torch.float32
            or is_foreign(type(cost))
        ):
            return TorchKernel
        factors = cost.factors(atoms[:1], atoms[:1], 1.0, target.nx)
        few = factors is not None and (most is None or factors[0].shape[1] <= most)
        return cls if few else TorchKernel

    def __call__(self, x: Array, bilinear: Array | None = None, prepared: Array | None = None) -> Block:
        target, nx = self.target, self.nx
        factors: tuple[Array, Array] | None = None
        if bilinear is None and x.dtype == torch.float32:
            factors = target.cost.factors(x, target.atoms, self.scale, nx)
        if factors is None:
            return super().__call__(x, bilinear, prepared)
        tiles = FusedScores(*factors, self.bias, self.precision)
        term = target.cost.source_term(x, nx)
        if self.reg > 0:
            make = functools.partial(super().__call__, x)
            return FusedBlock(tiles, term, self.reg * self.unit, make, nx)
        top, index = tiles.row_argmax()
        return TorchHardBlock(index, tiles.n_atoms, term - top, nx)
