"""Does it pay to pair noise with data by one potential? Flow matching on MNIST, three couplings.

``python -m benchmarks.flow_matching --mnist FOLDER [--images 10000] [--seconds 120 | --steps K]
[--rows NAME ...] [--seeds 3] [--jobs J] [--json FILE]``; other rows than the default ones are those that
defaults were chosen from.

One network, a perceptron that estimates the data point from the point of the path, is trained with the
same optimiser on batches of 128 pairs, for seconds of the processor, of which solving and pairing take
their part, or for a number of steps. One thread.

- ``independent``: noise and images that have nothing to do with each other.
- ``batch_128``, ``batch_256``: exact transport (`ot.emd`) within a batch of as many, as torchcfm does.
- ``semidiscrete``: `SemiDiscretePairs` with default settings.
- ``pixels``: the same in all 784 coordinates.
- ``label_...``: conditional models. ``label_batch_128`` ignores labels in pairing, as torchcfm does, and
  ``label_ignored`` is one potential for all; ``label_semidiscrete`` has one of each class.
- ``label_condition``: the label as a condition, ten coordinates, with the weight by the rule.

``fd_k`` is the Frechet distance of 2,000 images made in k Euler steps to as many held-out ones, in the
features of a classifier; of a conditional model, images of the labels of these, and ``agrees_k`` the
share that the classifier finds right. ``curvature`` is the mean squared deviation of the velocity from
the straight line, in units of its squared length; ``cost`` the mean squared distance of pairs, in units
of that of independent ones, without the means; ``solve`` seconds; ``pairing`` the share of the time in
which pairs are made, noise and data included: that of ``independent`` is for these alone.
"""

import functools
import itertools
import math
import time

import numpy as np
import ot
import torch
from torch import nn

from pot_semidiscrete import datasets
from pot_semidiscrete.generative import SemiDiscretePairs, solve_coupling
from pot_semidiscrete.metrics import Classifier, frechet_distance

from . import machine
from .jobs import Pool

BATCH, RATE, WARM_UP, MOMENTA = 128, 1e-3, 100, (0.9, 0.99)
WIDTH, DEPTH, FREQUENCIES = 512, 2, 16
EULER, N_IMAGES, N_PAIRS = (1, 2, 4, 8, 100), 2000, 4096


class Network(nn.Module):
    """An estimate of the data point x1 from ``x_t``, the time and the class, if there are classes."""

    def __init__(self, dimension, n_classes):
        super().__init__()
        n_features = 2 * FREQUENCIES + 1
        self.enter, self.leave = nn.Linear(dimension, WIDTH), nn.Linear(WIDTH, dimension)
        self.shifts = nn.Sequential(
            nn.Linear(n_features, 128), nn.SiLU(), nn.Linear(128, WIDTH * (DEPTH + 1))
        )
        self.classes = nn.Embedding(n_classes, WIDTH) if n_classes else None
        pair = lambda: nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)])
        self.blocks = nn.ModuleList([pair() for _ in range(DEPTH)])
        self.register_buffer("frequencies", math.pi * 32.0 ** torch.linspace(0, 1, FREQUENCIES))
        for block in self.blocks:
            nn.init.zeros_(block[1].weight)

    def forward(self, x, t, label=None):
        angle = t[:, None] * self.frequencies
        features = torch.cat([t[:, None], angle.sin(), angle.cos()], dim=1)
        first, *shifts = self.shifts(features).chunk(DEPTH + 1, dim=1)
        hidden = self.enter(x) + first
        if self.classes is not None:
            hidden = hidden + self.classes(label)
        for (inner, outer), shift in zip(self.blocks, shifts, strict=True):
            hidden = hidden + outer(nn.functional.silu(inner(hidden) + shift))
        return self.leave(nn.functional.silu(hidden))


class MiniBatches:
    """Exact transport within batches, torchcfm's way: data and noise that are drawn independently."""

    def __init__(self, data, labels, size, seed):
        self.data, self.labels, self.size = data, labels, size
        self.random = torch.Generator().manual_seed(seed)

    def __iter__(self):
        n = max(self.size, BATCH)
        while True:
            index = torch.randint(len(self.data), (n,), generator=self.random)
            noise = torch.randn((n, self.data.shape[1]), generator=self.random)
            if self.size > 1:
                costs = torch.cdist(noise, self.data[index]) ** 2
                columns = ot.emd([], [], costs.numpy().astype(float)).argmax(axis=1)
                index = index[torch.from_numpy(columns)]
            for part in range(0, n, BATCH):
                chosen = index[part : part + BATCH]
                yield noise[part : part + BATCH], self.data[chosen], self.labels[chosen]


class SemiDiscrete:
    """Pairs by a potential, or by one of each class."""

    def __init__(self, data, labels, seed, given=None, n_reuse=None, independent=0.0, **options):
        told = {None: {}, "labels": {"labels": labels}}
        told["conditions"] = {"conditions": nn.functional.one_hot(labels).float()}
        self.coupling = solve_coupling(data, random_state=seed, **told[given], **options)
        self.labels, own = labels, {"n_reuse": n_reuse, "independent": independent}
        own |= {"batch_size": BATCH, "random_state": seed, "epoch_size": 10**9}
        self.pairs = SemiDiscretePairs(self.coupling, **own)

    def __iter__(self):
        for batch in self.pairs:
            yield batch.noise, batch.data, self.labels[batch.index]


def semidiscrete(**options):
    """What makes pairs by a potential with these options."""
    return lambda data, labels, seed: SemiDiscrete(data, labels, seed, **options)


def mini_batches(size):
    """What makes pairs within batches of this size; independent ones if it is 1."""
    return lambda data, labels, seed: MiniBatches(data, labels, size, seed)


ROWS = {
    "independent": mini_batches(1),
    "batch_128": mini_batches(128),
    "batch_256": mini_batches(256),
    "semidiscrete": semidiscrete(),
    "pixels": semidiscrete(n_components=784),
    "label_independent": mini_batches(1),
    "label_batch_128": mini_batches(128),
    "label_ignored": semidiscrete(),
    "label_condition": semidiscrete(given="conditions"),
    "label_semidiscrete": semidiscrete(given="labels"),
}
# what defaults were chosen from
SPACE = {
    **{f"components_{k}": semidiscrete(n_components=k) for k in (4, 8, 12, 16, 24, 32, 64, 128, 256)},
    **{f"part_{n}": semidiscrete(n_components=64, part_size=n) for n in (1000, 2500, 5000)},
    **{f"tol_{tol}": semidiscrete(n_components=64, tol=tol) for tol in (0.22, 1.0, 2.0)},
    **{f"reuse_{k}": semidiscrete(n_components=64, n_reuse=k) for k in (1, 4, 8)},
    **{f"reg_{reg}": semidiscrete(n_components=64, reg=reg) for reg in (0.25, 2.5, 25.0)},
    **{f"share_{share}": semidiscrete(independent=share) for share in (0.25, 0.5)},
}


def velocity(network, x, t, label):
    """Of the flow at that time, data being in [-1, 1]."""
    return (network(x, x.new_full((len(x),), t), label).clamp(-1, 1) - x) / (1.0 - t)


@torch.no_grad()
def flow(network, x, label, n_steps):
    """Images made in so many Euler steps, and the curvature of the paths."""
    start, lengths = x, []
    for k in range(n_steps):
        v = velocity(network, x, k / n_steps, label)
        lengths.append((v**2).sum(dim=1))
        x = x + v / n_steps
    straight = ((x - start) ** 2).sum(dim=1)
    return x, float(((torch.stack(lengths).mean(dim=0) - straight) / straight).mean())


def train(network, pairs, left):
    """Train until nothing is left; the steps, and the seconds in which pairs are made.

    Parameters
    ----------
    left : callable
        ``n_steps -> float``, the share of the training that is left.
    """
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.0, betas=MOMENTA, fused=True)
    batches, n, pairing, share = iter(pairs), 0, 0.0, 1.0
    while (share := left(n)) > 0.0:
        start = time.process_time()
        noise, data, label = next(batches)
        pairing += time.process_time() - start
        t = torch.rand(len(noise), 1)
        estimate = network((1.0 - t) * noise + t * data, t[:, 0], label)
        errors = ((estimate - data) ** 2).mean(dim=1)
        loss = (errors / (1.0 - t[:, 0]).clamp(min=0.05) ** 2).mean()  # that of the velocity
        for group in optimizer.param_groups:
            cosine = 0.5 * (1.0 - math.cos(math.pi * share))
            group["lr"] = RATE * min(1.0, (n + 1) / WARM_UP) * max(0.02, cosine)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        n += 1
    return n, pairing


def coupling_cost(pairs, data):
    """Mean squared distance of pairs, in units of that of independent ones, without the means."""
    found, total, center = 0, 0.0, data.mean(dim=0)
    for noise, image, _ in itertools.islice(pairs, N_PAIRS // BATCH):
        total += float(((noise - image + center) ** 2).sum())
        found += len(noise)
    return total / found / float(data.shape[1] + ((data - center) ** 2).sum(dim=1).mean())


@functools.cache
def load(folder, n_images):
    """Training images in [-1, 1] and their labels, and held-out ones in [0, 1]."""
    images, test = datasets.load_mnist(folder)
    labels, test_labels = datasets.load_mnist_labels(folder)
    judge = Classifier(images, labels)
    chosen = np.random.default_rng(0).permutation(len(images))[:n_images]
    data = torch.from_numpy(2.0 * images[chosen].reshape(len(chosen), -1) - 1.0)
    to_long = lambda array: torch.from_numpy(array.astype(np.int64))
    return data, to_long(labels[chosen]), judge, test, to_long(test_labels[:N_IMAGES])


def trial(name, folder, n_images, seconds, n_steps, seed):
    """Figures of one run."""
    machine.limit_threads(1)
    data, labels, judge, test, wanted = load(folder, n_images)
    is_conditional = name.startswith("label")
    torch.manual_seed(seed)
    network = Network(data.shape[1], int(labels.max()) + 1 if is_conditional else 0)
    begin = time.process_time()
    pairs = (ROWS | SPACE)[name](data, labels, seed)
    solve = time.process_time() - begin
    if n_steps:
        left = lambda n: 1.0 - n / n_steps
    else:
        left = lambda n: (begin + seconds - time.process_time()) / (seconds - solve)
    steps, pairing = train(network, pairs, left)
    spent = time.process_time() - begin - solve
    row = {"row": name, "seed": seed, "images": n_images, "budget": n_steps or seconds, "steps": steps}
    row |= {"solve": solve, "pairing": pairing / spent, "ms": 1e3 * spent / steps}
    row["cost"] = coupling_cost(pairs, data)
    x = torch.randn((N_IMAGES, data.shape[1]), generator=torch.Generator().manual_seed(1000 + seed))
    held_out = judge.features(test)
    for k in EULER:
        made, curvature = flow(network, x, wanted if is_conditional else None, k)
        made = ((made + 1.0) / 2.0).clamp(0.0, 1.0).numpy().reshape(-1, *test.shape[1:])
        row[f"fd_{k}"] = frechet_distance(judge.features(made), held_out)
        if is_conditional:
            row[f"agrees_{k}"] = float((judge.labels(made) == wanted.numpy()).mean())
    return row | {"curvature": curvature}


def show(row):
    """One line."""
    fd = " ".join(f"{row[f'fd_{k}']:7.1f}" for k in EULER)
    agrees = " ".join(f"{row[f'agrees_{k}']:.2f}" for k in EULER if f"agrees_{k}" in row)
    print(
        f"{row['row']:20s} seed {row['seed']} {row['images']:6d} images: solve {row['solve']:5.1f} s, "
        f"{row['steps']:5d} steps of {row['ms']:4.1f} ms, pairing {row['pairing']:4.0%}, cost "
        f"{row['cost']:.4f}, curvature {row['curvature']:.4f}, FD {fd} {agrees}",
        flush=True,
    )


def merged(path, rows):
    """Rows of the file that are not made anew, and these."""
    key = lambda row: tuple(row[name] for name in ("row", "seed", "images", "budget"))
    known = {key(row): row for row in machine.earlier(path).get("rows", [])}
    return list((known | {key(row): row for row in rows}).values())


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--mnist", required=True, metavar="FOLDER")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--steps", type=int, default=0, help="train for so many steps instead")
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, *SPACE], default=list(ROWS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    args = parser.parse_args()
    rows, facts = [], machine.facts()
    with Pool(args.jobs) as pool:
        sizes = (args.mnist, args.images, args.seconds, args.steps)
        runs = [
            pool.submit(trial, name, *sizes, seed) for seed in range(args.seeds) for name in args.rows
        ]
        for run in runs:
            rows.append(run.result())
            show(rows[-1])
            machine.write(args.json, machine=facts, rows=merged(args.json, rows))


if __name__ == "__main__":
    main()
