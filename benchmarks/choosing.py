"""What a tolerance, a regularisation, a dtype, a batch and memory cost, at a newcomer's size.

``python -m benchmarks.choosing [--share S] [--tables NAME ...] [--json FILE]``

The source is N(0, I). Targets are the 1,797 digits of scikit-learn, pixels in [0, 1], and 500 normal
atoms in the plane; ``--share`` takes that share of the atoms. A row changes one thing of a default run:
float32, `reg` at 1% of the mean cost, `tol` of 0.1, one seed. Seconds are those of one core. The tables
are those of ``doc/choosing.rst``.
"""

import warnings

import numpy as np
import torch
from sklearn.datasets import load_digits

from pot_semidiscrete import SemiDiscreteWarning, cost_scale, solve_semidiscrete

from . import machine

TABLES = {
    "tol": [{"tol": tol} for tol in (0.3, 0.2, 0.1, 0.05)],
    "reg": [{"share": share} for share in (0.0, 0.001, 0.01, 0.1)],
    "reg, in the plane": [{"plane": True, "share": share} for share in (0.0, 0.001, 0.01, 0.1)],
    "dtype": [{"dtype": "float64"}, {}, {"dtype": "torch float32"}],
    "batch_size": [{"batch_size": n} for n in (32, 256, 2048)],
}


def atoms_of(plane, dtype, of_all):
    """Atoms of a row, in its backend and dtype."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 2)) if plane else rng.permutation(load_digits().data) / 16.0
    rows = rows[: int(of_all * len(rows))].astype(dtype.split()[-1])
    return torch.from_numpy(rows) if dtype.startswith("torch") else rows


def row(of_all, plane=False, share=0.01, dtype="float32", **options):
    """What one run took, and the value it found."""
    atoms = atoms_of(plane, dtype, of_all)
    options |= {"reg": share * float(cost_scale(atoms)), "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SemiDiscreteWarning)  # the row tells its status
        result, seconds = machine.seconds(lambda: solve_semidiscrete(atoms, "normal", **options))
    return {
        "seconds": seconds,
        "samples": result.n_samples,
        "status": result.status,
        "chi2": result.chi2,
        "value": float(result.value),
        "value_stderr": result.value_stderr,
        "suboptimality": result.suboptimality,
    }


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the atoms")
    parser.add_argument("--tables", choices=TABLES, nargs="+", default=list(TABLES))
    args = parser.parse_args()
    rows = []
    with machine.limit_threads(1):
        row(0.05, dtype="torch float32")  # libraries warm up
        for name in args.tables:
            print(f"\n{name:34}{'seconds':>9}{'samples':>11}{'chi2':>10}{'value':>10}  status")
            for options in TABLES[name]:
                found = row(args.share, **options)
                rows.append({"table": name, **options, **found})
                words = ", ".join(f"{key} {value}" for key, value in options.items())
                print(
                    f"{words or 'the default run':34}{found['seconds']:9.2f}{found['samples']:11,}"
                    f"{found['chi2']:10.4f}{found['value']:10.4f}  {found['status']}",
                    flush=True,
                )
    machine.write(args.json, machine=machine.facts(), rows=rows)


if __name__ == "__main__":
    main()
