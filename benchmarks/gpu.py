"""Seconds of the reductions on a GPU, fused and by torch, against the roofline and other packages.

``python -m benchmarks.gpu [--device cpu] [--case BATCH ATOMS DIMENSION ...] [--minutes 6] [--tiles]
[--errors] [--json FILE]``; ``benchmarks/gpu.sh`` runs it after the tests that need a GPU.

A dual step gives c-transforms and column sums, a training step also the gradient in the points.
``torch`` is the kernel that passes over blocks in memory, ``fused ...`` that of Triton, by the precision
of its products. The roofline of a dual step is the library's product of matrices in the same precision,
and as many powers of 2, of numbers that a processor has: one of each is needed for every pair.
KeOps makes the two sums of a dual step, flash-sinkhorn an alternating iteration, which is the same two
sums. What is not installed is said.

Errors are those of 64 points against float64: of c-transforms in units of reg, of weights the sum of
differences of column sums, halved, for each point. ``--errors`` measures on the host what rounding of
the factors does, the rest in float64; Triton's interpreter multiplies in float32 for tf32.

Rows are written as they are found; a second run with the same FILE adds those that are missing.
"""

import functools
import json
import statistics
import time

import torch

from pot_semidiscrete.kernels import draw_atoms, fused_kernel, reduce, registered_kernels
from pot_semidiscrete.kernels.fused import PRODUCTS, known_fused_kernel
from pot_semidiscrete.problem import build_target

from . import machine

CASES = [(4096, 60_000, 784), (4096, 1_000_000, 64), (65_536, 10_000, 2)]
RELATIVE_REG = 0.05  # in units of the mean cost
ENTRIES = 2**28  # of a product that is kept
DUAL, TRAINING = ("c_transform", "colsum"), ("c_transform", "colsum", "gradient")
TILES = [(64, 128, 32, 8, 2), (64, 128, 32, 8, 3), (128, 128, 16, 8, 2), (64, 64, 32, 4, 2)]
TILES += [(128, 64, 32, 8, 2), (32, 256, 32, 8, 2), (128, 256, 64, 8, 3)]


def use(kernel, target):
    """Let a target have a kernel, also cut from its graph."""
    for one in (target, target.detached):
        vars(one)["kernel"] = kernel


class Case:
    """Points, atoms and a potential, and what is timed, by name."""

    def __init__(self, n, n_atoms, d, device):
        random = torch.Generator(device).manual_seed(0)
        normal = lambda *shape: torch.randn(*shape, generator=random, device=device)
        self.target, self.reg = build_target(normal(n_atoms, d)), RELATIVE_REG * 2.0 * d
        self.x, self.potential = normal(n, d), 0.1 * normal(n_atoms)
        self.shape, self.device = (n, n_atoms, d), device
        self.uniform = lambda n: torch.rand(n, generator=random, device=device)
        self.kernels = {"torch": registered_kernels()["torch"]()}
        if known_fused_kernel() is not None:
            self.kernels |= {f"fused {precision}": fused_kernel(precision) for precision in PRODUCTS}

    def functions(self, tiles):
        """What is timed, the most wanted first."""
        found = {f"{name}: dual step": self.step(name, DUAL) for name in self.kernels}
        found |= {
            f"GEMM {kind}": functools.partial(self.gemm, kind) for kind in ("fp32", "tf32", "bf16")
        }
        found["powers"] = self.powers
        few = [name for name in self.kernels if name in ("torch", "fused ieee", "fused tf32")]
        found |= {f"{name}: training step": self.step(name, TRAINING) for name in few}
        found |= {f"{name}: argmin": self.step(name, DUAL, reg=0.0) for name in few}
        found |= {f"{name}: draw": self.draw(name) for name in few}
        found |= {"flash-sinkhorn: iteration": None, "KeOps: dual step": self.keops}
        if tiles and "fused ieee" in self.kernels:
            for name in ("fused ieee", "fused tf32"):
                for tile in TILES:
                    found[f"{name}: dual step, tile {tile}"] = self.step(name, DUAL, tile=tile)
        return found

    def step(self, name, outputs, reg=None, tile=None):
        """A reduction by a kernel, to be timed."""
        level = self.reg if reg is None else reg

        def call():
            use(self.kernels[name], self.target)
            return reduce(self.target, self.x, self.potential, level, outputs)

        return call if tile is None else functools.partial(tiled, tile, call)

    def draw(self, name):
        """The drawing of atoms by a kernel, to be timed."""

        def call():
            use(self.kernels[name], self.target)
            return draw_atoms(self.target, self.x, self.potential, self.reg, self.uniform)

        return call

    def gemm(self, kind):
        """The product of points and atoms, by blocks of rows into a kept buffer."""
        if kind == "tf32" and self.device == "cpu":
            raise ImportError("no tf32 on a processor")
        dtype = torch.bfloat16 if kind == "bf16" else torch.float32
        x, y = self.x.to(dtype), self.target.atoms.to(dtype)
        rows = max(1, min(len(x), ENTRIES // len(y)))
        buffer = torch.empty((rows, len(y)), dtype=dtype, device=self.device)

        def call():
            torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
            for start in range(0, len(x), rows):
                part = x[start : start + rows]
                torch.matmul(part, y.T, out=buffer[: len(part)])
            torch.backends.cuda.matmul.allow_tf32 = False

        return call

    def powers(self):
        """As many powers of 2 as there are pairs, of which none waits for memory."""
        n, n_atoms, _ = self.shape
        if self.device == "cpu":
            some = torch.rand(min(n * n_atoms, 2**20))
            return lambda: [some.exp2() for _ in range(-(-n * n_atoms // len(some)))]
        from .gpu_powers import powers

        return functools.partial(powers, n * n_atoms, self.device)

    def keops(self):
        """The two sums of a dual step by KeOps."""
        from pykeops.torch import LazyTensor

        target, n = self.target, len(self.x)
        bias = (self.potential / self.reg + target.log_weights)[None, :, None]
        x, y = LazyTensor(self.x[:, None, :]), LazyTensor(target.atoms[None, :, :])
        scores = LazyTensor(bias.contiguous()) - ((x - y) ** 2).sum(-1) / self.reg

        def call():
            total = scores.logsumexp(dim=1)
            return (scores - LazyTensor(total.reshape(n, 1, 1))).exp().sum(dim=0)

        return call

    def error(self, name):
        """Of the c-transforms over reg, and of the weights, at 64 points."""
        n = min(64, len(self.x))
        x, wide = self.x[:n], self.target.map(torch.Tensor.double)
        use(self.kernels["torch"], wide)
        use(self.kernels[name], self.target)
        outputs = ("c_transform", "colsum", "gradient")
        found = reduce(self.target, x, self.potential, self.reg, outputs)
        exact = reduce(wide, x.double(), self.potential.double(), self.reg, outputs)
        return {
            "c_transform": float((found.c_transform - exact.c_transform).abs().max()) / self.reg,
            "colsum": float((found.colsum - exact.colsum).abs().sum()) / (2 * n),
            "gradient": float((found.gradient - exact.gradient).norm() / exact.gradient.norm()),
        }


def tiled(tile, call):
    """A call with tiles of other sizes."""
    from pot_semidiscrete.kernels.triton_kernel import FusedScores

    names = ("rows", "columns", "chunk", "options")
    *sizes, warps, stages = tile
    known = {name: getattr(FusedScores, name) for name in names}
    try:
        for name, value in zip(names, (*sizes, {"num_warps": warps, "num_stages": stages}), strict=True):
            setattr(FusedScores, name, value)
        return call()
    finally:
        for name, value in known.items():
            setattr(FusedScores, name, value)


def flash_sinkhorn(case, rounds):
    """Seconds of an alternating iteration: those of ten more of them, over ten."""
    from flash_sinkhorn import SamplesLoss

    options = {"use_epsilon_scaling": False, "eps": case.reg, "allow_tf32": False, "potentials": True}
    weights = torch.full((len(case.x),), 1.0 / len(case.x), device=case.device)
    seconds = []
    for n_iters in (2, 12):
        loss = SamplesLoss("sinkhorn", backend="alternating", n_iters=n_iters, **options)
        call = functools.partial(loss, weights, case.x, case.target.weights, case.target.atoms)
        seconds.append(measure(call, case.device, rounds)[0])
    return (seconds[1] - seconds[0]) / 10


def measure(function, device, rounds):
    """Median seconds of a call, after two that compile and warm up, and bytes that it takes at most."""
    on_gpu, seconds = device != "cpu", []
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    for _ in range(2):
        function()
    wait()
    before = torch.cuda.memory_allocated() if on_gpu else 0
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        wait()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() - before if on_gpu else None
    return statistics.median(seconds), peak


def row_of(case, name, function, rounds):
    """What is found of one function, or why nothing is."""
    try:
        if name.startswith("flash"):
            seconds, peak = flash_sinkhorn(case, rounds), None
        else:
            prepares = name in ("powers", "KeOps: dual step") or name.startswith("GEMM")
            seconds, peak = measure(function() if prepares else function, case.device, rounds)
    except ImportError as missing:
        return {"missing": str(missing)}
    except Exception as error:  # of another package, or of too little memory: the rest goes on
        return {"failed": f"{type(error).__name__}: {error}"[:300]}
    n, n_atoms, _ = case.shape
    found = {"seconds": seconds, "ps_per_pair": 1e12 * seconds / (n * n_atoms), "peak_bytes": peak}
    if name.endswith(": dual step") and not name.startswith("KeOps"):
        found["error"] = case.error(name.removesuffix(": dual step"))
    return found


def ratios(rows):
    """Of the dual steps of a case to their rooflines, and to torch's kernel."""
    seconds = {row["name"]: row["seconds"] for row in rows if "seconds" in row}
    found = {}
    for name in seconds:
        kernel = name.removesuffix(": dual step")
        if kernel == name or kernel == "KeOps":
            continue
        kind = {"fused bf16": "bf16", "fused tf32": "tf32"}.get(kernel, "fp32")
        limit = [seconds.get(part) for part in (f"GEMM {kind}", "powers")]
        found[f"{kernel} / roofline"] = seconds[name] / sum(limit) if all(limit) else None
        found[f"{kernel} / torch"] = seconds[name] / seconds.get("torch: dual step", float("nan"))
    return found


def rounded(a, precision):
    """Numbers that are multiplied instead of these, one or two for each."""
    if precision == "bf16":
        return [a.bfloat16().double()]
    if precision == "ieee":
        return [a.double()]
    tf32 = lambda b: ((b.view(torch.int32) + 2**12) & ~(2**13 - 1)).view(torch.float32)
    high = tf32(a)
    return [high.double()] + ([tf32(a - high).double()] if precision == "tf32x3" else [])


def rounding_errors(d, relative_reg, n=64, n_atoms=2000):
    """What rounding of the factors does to c-transforms over reg, weights and masses, else float64."""
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, d, generator=random), torch.randn(n_atoms, d, generator=random)
    reg, target = relative_reg * 2.0 * d, (y.double() ** 2).sum(dim=1)
    found, exact = {}, None
    for precision in PRODUCTS:
        u, v = rounded((2.0 / reg) * x, precision), rounded(y, precision)
        products = sum(u[i] @ v[j].T for i in range(len(u)) for j in range(len(v)) if i + j < 2)
        scores = products - target / reg
        transform, chi = scores.logsumexp(dim=1), scores.softmax(dim=1)
        exact = (transform, chi) if exact is None else exact
        found[precision] = {
            "c_transform": float((transform - exact[0]).abs().max()),
            "weights": float((chi - exact[1]).abs().sum(dim=1).mean()) / 2,
            "masses": float((chi.mean(dim=0) - exact[1].mean(dim=0)).abs().sum()) / 2,
        }
    del found["ieee"]
    return {"dimension": d, "relative_reg": relative_reg, "errors": found}


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--case", type=int, nargs=3, action="append", help="instead of all")
    parser.add_argument("--minutes", type=float, default=6.0, help="after which no row is begun")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tiles", action="store_true", help="other sizes of tiles, too")
    parser.add_argument("--errors", action="store_true", help="only those of rounding, on the host")
    args = parser.parse_args()
    if args.errors:
        rows = [rounding_errors(d, reg) for d in (2, 64, 784) for reg in (0.01, 0.05)]
        for row in rows:
            print(json.dumps(row), flush=True)
        machine.write(args.json, machine=machine.facts(), rows=rows)
        return
    end, facts = time.monotonic() + 60.0 * args.minutes, machine.facts()
    rows = machine.earlier(args.json).get("rows", [])
    for shape in [tuple(case) for case in args.case or CASES]:
        case, facts_of = None, dict(zip(("batch", "atoms", "dimension"), shape, strict=True))
        mine = [row for row in rows if facts_of.items() <= row.items()]
        done = {row["name"] for row in mine if "failed" not in row and "missing" not in row}
        case = Case(*shape, args.device)
        for name, function in case.functions(args.tiles).items():
            if name in done or time.monotonic() > end:
                continue
            rows = [row for row in rows if not (row["name"] == name and row in mine)]
            rows.append({**facts_of, "name": name, **row_of(case, name, function, args.rounds)})
            print(json.dumps(rows[-1]), flush=True)
            machine.write(args.json, machine=facts, rows=rows)
        found = ratios([row for row in rows if facts_of.items() <= row.items()])
        print(json.dumps({**facts_of, "ratios": machine.plain(found)}), flush=True)


if __name__ == "__main__":
    main()
