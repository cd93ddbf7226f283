"""Many small classes: one call of ``solve_coupling`` with labels against a call for each class.

``python -m benchmarks.classes [--case K N ...] [--rounds R] [--mnist FOLDER] [--json FILE]``

K classes of N points each, normal in 64 dimensions, torch, float32, one thread, at the defaults; with
``--mnist``, its 60,000 images in 10 classes and 64 components, too. Seconds are those of the processor,
of the two ways in turn, and the ratio is the median of the rounds. With labels, classes of at most
2,500 points are solved at once.
"""

import time

import numpy as np
import torch

from pot_semidiscrete.datasets import load_mnist, load_mnist_labels
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


def images(folder):
    """The components of images, and labels: as ``solve_coupling`` would take them, but for all classes."""
    rows = torch.from_numpy(load_mnist(folder)[0]).flatten(1)
    rows = rows - rows.mean(0)
    directions = torch.linalg.eigh(rows.T @ rows)[1][:, -DIMENSION:]
    return rows @ directions, torch.from_numpy(load_mnist_labels(folder)[0])


def row(name, data, labels, rounds):
    """Seconds and certificates of both ways."""
    parts, seconds = [data[labels == k] for k in labels.unique()], []
    for seed in range(rounds):
        times = [time.process_time()]
        alone = [solve_coupling(part, random_state=seed).results[0] for part in parts]
        times.append(time.process_time())
        at_once = solve_coupling(data, labels=labels, random_state=seed).results
        times.append(time.process_time())
        seconds.append(np.diff(times))
    facts = {"name": name, "n_classes": len(parts), "n_data": len(data)}
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
    parser.add_argument("--mnist")
    args = parser.parse_args()
    with machine.limit_threads(1):
        cases = args.case or [(1000, 20), (1000, 100), (100, 300), (100, 1300), (10, 5000)]
        problems = [(f"{k} x {n}", *classes(k, n)) for k, n in cases]
        problems += [("MNIST", *images(args.mnist))] if args.mnist else []
        rows = []
        for name, data, labels in problems:
            rows.append(found := row(name, data, labels, args.rounds))
            print(
                f"{name:10} alone {found['seconds_alone']:.2f} s, at once {found['seconds_at_once']:.2f} s, "
                f"ratio {found['ratio']:.2f}; chi2 {found['chi2_alone']:.3f}, {found['chi2_at_once']:.3f}, "
                f"converged {found['converged_alone']}, {found['converged_at_once']}",
                flush=True,
            )
        machine.write(args.json, machine=machine.facts(), rows=rows)


if __name__ == "__main__":
    main()
