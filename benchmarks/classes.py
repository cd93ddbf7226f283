"""Many small classes: one call of ``solve_coupling`` with labels against a call for each class.

``python -m benchmarks.classes [--case K N ...] [--rounds R] [--json FILE]``

K classes of N points each, normal in 64 dimensions, torch, float32, one thread, at the defaults. Seconds
are those of the processor, of the two ways in turn, and the ratio is the median of the rounds.
"""

import time

import numpy as np
import torch

from pot_semidiscrete.generative import solve_coupling

from . import machine

DIMENSION = 64


def classes(n_classes, n_points):
    """Points and labels."""
    random = torch.Generator().manual_seed(0)
    centers = torch.randn((n_classes, DIMENSION), generator=random)
    labels = torch.arange(n_classes).repeat_interleave(n_points)
    noise = torch.randn((len(labels), DIMENSION), generator=random)
    return centers[labels] + 0.7 * noise, labels


def row(n_classes, n_points, rounds):
    """Seconds and certificates of both ways."""
    data, labels = classes(n_classes, n_points)
    parts, seconds = [data[labels == k] for k in labels.unique()], []
    for seed in range(rounds):
        times = [time.process_time()]
        alone = [solve_coupling(part, random_state=seed).results[0] for part in parts]
        times.append(time.process_time())
        at_once = solve_coupling(data, labels=labels, random_state=seed).results
        times.append(time.process_time())
        seconds.append(np.diff(times))
    facts = {"n_classes": n_classes, "n_points": n_points}
    for way, results in (("alone", alone), ("at_once", at_once)):
        facts[f"chi2_{way}"] = float(np.mean([result.chi2 for result in results]))
        facts[f"converged_{way}"] = int(sum(result.converged for result in results))
    alone, at_once = np.median(seconds, axis=0)
    ratio = float(np.median([a / b for a, b in seconds]))
    return facts | {"seconds_alone": alone, "seconds_at_once": at_once, "ratio": ratio}


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--case", type=int, nargs=2, action="append", metavar=("K", "N"))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with machine.limit_threads(1):
        rows = []
        for case in args.case or [(200, 20), (200, 100), (50, 300), (20, 1300)]:
            rows.append(row(*case, args.rounds))
            print(", ".join(f"{key} {value:.3g}" for key, value in rows[-1].items()), flush=True)
        machine.write(args.json, machine=machine.facts(), rows=rows)


if __name__ == "__main__":
    main()
