"""What a run of another size, or on another machine, should take: samples, entries and seconds.

A run of N atoms takes about ``factor N_eff / chi2`` samples, and evaluates each at all atoms, looks
included: ``overdraw N samples`` entries (:mod:`benchmarks.scaling`). An entry is a product of d
coordinates, an exponential, and what is read and written of it.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from . import gpu, machine

ATOMS, DIMENSION = 100_000, 3072
IMAGENET = (1_280_000, 500)  # images, principal components
# what the script of AlignFlow's experiment on CIFAR-10 draws (Kong et al., arXiv:2510.15038), for 50,000
# images and their mirror images: steps times points of each of its three stages
ALIGNFLOW = 1_000 * 1024 + 5_000 * 4096 + 5_000 * 16_384


class Rates(NamedTuple):
    """Operations a second, and how many an entry takes.

    Attributes
    ----------
    flops : float
        Of matrix products, a second.
    powers : float
        Exponentials a second.
    products : int
        How often the product and the exponential of an entry are made.
    passes : int
        How often an entry is read or written, in float32.
    bandwidth : float
        Bytes a second.
    """

    flops: float
    powers: float
    products: int = 1
    passes: int = 0
    bandwidth: float = math.inf

    def seconds(self, entries, dimension):
        """Of so many entries, one operation after the other."""
        product = 2.0 * dimension / self.flops + 1.0 / self.powers
        return entries * (self.products * product + 4.0 * self.passes / self.bandwidth)


# Of an H100; none was measured. Exponentials are half of 16 for each of 132 multiprocessors and each of
# 1.7e9 clocks, bandwidth is 3/4 of 3.35e12. Products and passes are counted in the kernels. A step asks
# for c-transforms, sums of the weights and of their squares: by torch that is one product and 17 passes;
# fused, one product for each. "One product" is what no kernel of the package does: the least.
ASSUMED = {
    "float32, blocks in memory": Rates(4e13, 1.8e12, passes=17, bandwidth=2.5e12),
    "tf32, fused": Rates(4e14, 1.8e12, products=3),
    "tf32, one product": Rates(4e14, 1.8e12),
}


def measured_rates(device, n_atoms, dimension, rounds=11):
    """Best rates of the library's product in float32, and of exponentials, on a device."""
    n = 256 if device == "cpu" else 4096
    case = gpu.Case(n, n_atoms, dimension, device)
    best = lambda call: min(machine.seconds(call, device)[1] for _ in range(rounds))
    product, powers = best(case.gemm("fp32")), best(case.powers())
    return Rates(2.0 * dimension * n * n_atoms / product, n * n_atoms / powers)


def extrapolated(n_atoms, sizes, values):
    """Value at another size by a power law, with the 95% interval of its line (nan by two points).

    Least squares of the logarithms. The interval has the noise of the values, not what the law lacks.
    """
    x, y = np.log(np.asarray(sizes, float)), np.log(np.asarray(values, float))
    slope, height = np.polyfit(x - x.mean(), y, 1)
    away, freedom, width = math.log(n_atoms) - x.mean(), len(x) - 2, math.nan
    if freedom > 0:
        variance = ((y - height - slope * (x - x.mean())) ** 2).sum() / freedom
        error = math.sqrt(variance * (1.0 / len(x) + away**2 / ((x - x.mean()) ** 2).sum()))
        width = stats.t.ppf(0.975, freedom) * error
    at = height + slope * away
    found = {"value": math.exp(at), "low": math.exp(at - width), "high": math.exp(at + width)}
    return {**found, "exponent": float(slope)}


def fits(rows, n_atoms):
    """Samples of a run of so many atoms for each `reg`, from rows of smaller ones.

    ``factor N_eff / chi2`` for each `reg`: N_eff by a power law, the factor that of the largest runs,
    although it falls with N; a power law of the samples themselves, in which it goes on falling, is
    beside it.
    """
    found = {}
    for reg in sorted({row["relative_reg"] for row in rows}, reverse=True):
        mine = [row for row in rows if row["relative_reg"] == reg]
        sizes = [row["n_atoms"] for row in mine]
        law = lambda name, sizes=sizes, mine=mine: extrapolated(
            n_atoms, sizes, [row[name] for row in mine]
        )
        largest = [row for row in mine if row["n_atoms"] == max(sizes)]
        factor = float(np.mean([row["factor"] for row in largest]))
        overdraw = float(np.mean([row["work"] / (row["n_atoms"] * row["samples"]) for row in largest]))
        n_eff = law("measured_n_eff")
        samples = factor * min(n_eff["value"], n_atoms) / rows[0]["chi2"]
        facts = {"value": samples, "factor": factor, "overdraw": overdraw}
        found[reg] = {**facts, "n_eff": n_eff, "power_law": law("samples")}
    return found


def cases(rows):
    """The runs to predict, and their samples: of each `reg`, and as if all atoms counted.

    ``N_eff = N`` is the most; the factor is that of the least `reg`.
    """
    by_reg = fits(rows, ATOMS)
    found = [(f"images, reg {reg:g}", ATOMS, DIMENSION, fit) for reg, fit in by_reg.items()]
    factor, overdraw = (by_reg[min(by_reg)][name] for name in ("factor", "overdraw"))
    sizes = {"images, N_eff = N": (ATOMS, DIMENSION), "ImageNet, N_eff = N": IMAGENET}
    for name, (n_atoms, dimension) in sizes.items():
        samples = factor * n_atoms / rows[0]["chi2"]
        facts = {"value": samples, "factor": factor, "overdraw": overdraw}
        found.append((name, n_atoms, dimension, facts))
    return found


def held_out(rows):
    """Samples of the largest runs, and what the others predict of them, if they have two sizes."""
    most = max(row["n_atoms"] for row in rows)
    smaller = [row for row in rows if row["n_atoms"] < most]
    found = []
    if len({row["n_atoms"] for row in smaller}) > 1:
        for reg, fit in fits(smaller, most).items():
            are = [r["samples"] for r in rows if (r["n_atoms"], r["relative_reg"]) == (most, reg)]
            facts = {"relative_reg": reg, "n_atoms": most, "samples": float(np.mean(are))}
            found.append({**facts, "predicted": fit["value"], "power_law": fit["power_law"]})
    return found


def predicted(rows, here):
    """Samples and seconds of the large runs, by `ASSUMED` and by the rates measured here.

    These are slowed by what the largest run took in units of them.
    """
    largest = max(rows, key=lambda row: row["work"])
    slower = largest["seconds"] / here.seconds(largest["work"], largest["dimension"])
    table = []
    for name, n_atoms, dimension, samples in cases(rows):
        entries = samples["overdraw"] * n_atoms * samples["value"]
        seconds = {kind: rates.seconds(entries, dimension) for kind, rates in ASSUMED.items()}
        seconds["as here"] = slower * here.seconds(entries, dimension)
        facts = {"run": name, "n_atoms": n_atoms, "dimension": dimension, "samples": samples}
        table.append({**facts, "entries": entries, "seconds": seconds})
    return {
        "slower_than_rates": slower,
        "measured_rates": here._asdict(),
        "assumed_rates": {name: rates._asdict() for name, rates in ASSUMED.items()},
        "alignflow_samples": ALIGNFLOW,
        "held_out": held_out(rows),
        "predicted": table,
    }


def show_row(row, here):
    """One line, of how a run went."""
    reached = "certified" if row["reached"] else "not reached"
    print(
        f"  reg {row['relative_reg']:g}: {reached}, its own chi2 {row['claimed']:.3g}; "
        f"{row['factor']:.2f} N_eff / chi2 samples, {row['ns_an_entry']:.3g} ns an entry, "
        f"{row['flops'] / 1e9:.4g} Gflop/s in all; the product alone {here.flops / 1e9:.4g}",
        flush=True,
    )


def show(found):
    """Two lines of each prediction, one of each that can be compared with a run."""
    for row in found["held_out"]:
        print(
            f"reg {row['relative_reg']:g} N {row['n_atoms']}: {row['samples']:.4g} samples, predicted "
            f"by the smaller {row['predicted']:.4g}; by their own law {row['power_law']['value']:.4g}"
        )
    for row in found["predicted"]:
        samples = row["samples"]
        law = samples.get("power_law")
        by_law = "; by their own law {value:.3g}, {low:.3g} to {high:.3g}".format(**law) if law else ""
        seconds = ", ".join(f"{name}: {value:.3g} s" for name, value in row["seconds"].items())
        is_cifar = row["n_atoms"] == ATOMS
        share = f", {samples['value'] / ALIGNFLOW:.2g} of AlignFlow's" if is_cifar else ""
        print(
            f"{row['run']:20} N {row['n_atoms']:7} d {row['dimension']:4}  {samples['value']:.3g} "
            f"samples{share}{by_law}\n  {seconds}",
            flush=True,
        )
