r"""
Flow matching: three ways to pair noise and data
================================================

A flow from noise :math:`x_0` to data :math:`x_1` is learned from segments between them. At a point
:math:`x_t = (1 - t)\, x_0 + t\, x_1` a network estimates the end :math:`\hat x_1(x_t, t)`; the
velocity of the flow is :math:`(\hat x_1(x_t, t) - x_t) / (1 - t)`. Noise and data may be coupled in any
way that keeps their laws. Three couplings are compared:

* independent: noise and data are drawn independently;
* mini-batches: exact transport, `ot.emd`, within batches of 64;
* semi-discrete: :class:`~pot_semidiscrete.generative.SemiDiscretePairs`, one potential of all data,
  after Mousavi-Hosseini, Zhang, Klein and Cuturi (arXiv:2509.25519).

Where segments cross, the network estimates a mean of their ends. The paths of the flow then bend, and
a few long Euler steps do not follow them. The first part is in the plane, the second with digits.
"""

# %%
# The data in the plane are eight Gaussians of equal weight, around the noise.

import math
import time

import matplotlib.pyplot as plt
import numpy as np
import ot
import torch
from matplotlib.collections import LineCollection
from sklearn.datasets import load_digits

from pot_semidiscrete.generative import SemiDiscretePairs, solve_coupling
from pot_semidiscrete.metrics import frechet_distance, transport_cost
from pot_semidiscrete.plot import plot_images
from pot_semidiscrete.samplers import SobolSampler

torch.set_num_threads(1)
angles = torch.arange(8) * math.pi / 4.0
centers = 4.0 * torch.stack([angles.cos(), angles.sin()], dim=1)


def eight_gaussians(n, seed):
    """Points, as many of each Gaussian."""
    random = torch.Generator().manual_seed(seed)
    return centers[torch.arange(n) % 8] + 0.3 * torch.randn(n, 2, generator=random)


points = eight_gaussians(2000, seed=0)

# %%
# The couplings, each an endless stream of batches of noise and data.


def mini_batches(data, size, batch_size=128, seed=0):
    """Exact transport in mini-batches of that size; independent pairs if it is 1."""
    random = torch.Generator().manual_seed(seed)
    while True:
        noise = torch.randn(batch_size, data.shape[1], generator=random)
        x = data[torch.randint(len(data), (batch_size,), generator=random)]
        if size > 1:
            parts = zip(noise.split(size), x.split(size), strict=True)
            x = torch.cat([y[ot.emd([], [], ot.dist(z, y)).argmax(dim=1)] for z, y in parts])
        yield noise, x


def semi_discrete(pairs):
    """Pairs of one potential, epoch after epoch."""
    while True:
        for noise, x, _ in pairs:
            yield noise, x


def couplings(data):
    """The three streams, and the coupling by a potential."""
    pairs = SemiDiscretePairs(data, batch_size=128, random_state=0)
    streams = {"independent": mini_batches(data, 1), "mini-batches": mini_batches(data, 64)}
    return streams | {"semi-discrete": semi_discrete(pairs)}, pairs.coupling


streams, coupling = couplings(points)

# %%
# The pairs solve for a potential up to a tolerance. ``chi2`` measures it: the mean squared relative
# error of the masses, that is, of how often each data point is drawn. By default it need only be below
# 0.3. Errors of neighbours cancel only in part, so whole Gaussians get too much or too little mass.
# Hence there is a stricter coupling, too; a regularisation that is small beside the spread of a
# Gaussian makes it easy to find.

strict = solve_coupling(points, reg=0.1, tol=0.02, random_state=0)
streams["semi-discrete, strict"] = semi_discrete(SemiDiscretePairs(strict, random_state=0))
for found in (coupling, strict):
    pairs = SemiDiscretePairs(found, batch_size=4096, epoch_size=2**18, random_state=1)
    counts = sum(torch.cdist(x, centers).argmin(dim=1).bincount(minlength=8) for _, x, _ in pairs)
    errors = 8.0 * counts / counts.sum() - 1.0
    print(found)
    print(f"  relative error of the mass of a point    {found.chi2**0.5:.3f} (root mean square)")
    print(f"  relative error of the mass of a Gaussian {errors.square().mean().sqrt():.3f} (the same)")

# %%
# The network and its training, the same for all couplings.


class Network(torch.nn.Module):
    """Estimate of the end of a segment, from a point of it and its time."""

    def __init__(self, dimension, width):
        super().__init__()
        layers = [torch.nn.Linear(dimension + 9, width), torch.nn.SiLU()]
        for _ in range(2):
            layers += [torch.nn.Linear(width, width), torch.nn.SiLU()]
        self.layers = torch.nn.Sequential(*layers, torch.nn.Linear(width, dimension))

    def forward(self, x, t):
        phase = math.pi * t * 2.0 ** torch.arange(4)
        return self.layers(torch.cat([x, t, phase.sin(), phase.cos()], dim=1))


def train(batches, dimension, width, n_steps):
    """A network, trained on the pairs of a stream."""
    torch.manual_seed(0)
    network = Network(dimension, width)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    for _ in range(n_steps):
        noise, x = next(batches)
        t = torch.rand(len(x), 1)
        optimizer.zero_grad()
        (network((1.0 - t) * noise + t * x, t) - x).square().mean().backward()
        optimizer.step()
        schedule.step()
    return network


@torch.no_grad()
def flow(network, x, n_steps):
    """Paths in so many Euler steps, shape (n_steps + 1, n, dimension)."""
    path = [x]
    for k in range(n_steps):
        t = torch.full((len(x), 1), k / n_steps)
        x = x + (network(x, t) - x) / (1.0 - t) / n_steps
        path.append(x)
    return torch.stack(path)


networks = {name: train(batches, 2, 96, 2000) for name, batches in streams.items()}

# %%
# Pairs, and the paths of the flows that are learned from them. Lines have the colour of the Gaussian
# nearest to their end. Independent segments cross everywhere, those of mini-batches sometimes, and
# those of one potential hardly ever.


def draw(axis, path):
    """Lines, from noise to data."""
    colors = plt.cm.hsv(torch.cdist(path[-1], centers).argmin(dim=1) / 8.0)
    lines = LineCollection(path.transpose(0, 1).numpy(), colors=colors, linewidths=0.6, alpha=0.7)
    axis.add_collection(lines)
    axis.scatter(*path[0].T, c="0.4", s=4, zorder=2)
    axis.scatter(*path[-1].T, c=colors, edgecolors="k", linewidths=0.3, s=14, zorder=3)
    axis.set(xticks=[], yticks=[], xlim=(-5.5, 5.5), ylim=(-5.5, 5.5), aspect="equal")


noise = SobolSampler(2, "normal", type_as=points, random_state=1)(1024)
figure, axes = plt.subplots(2, 3, figsize=(10, 7), layout="constrained")
for (upper, lower), (name, batches) in zip(axes.T, streams.items(), strict=False):
    pairs = (next(batches) for _ in range(2))
    draw(upper, torch.stack([torch.cat(x) for x in zip(*pairs, strict=True)]))
    draw(lower, flow(networks[name], noise[:256], 100))
    upper.set_title(name)
axes[0, 0].set_ylabel("pairs")
axes[1, 0].set_ylabel("learned flow, 100 Euler steps")
figure.savefig("flow_matching_paths.png", dpi=120)

# %%
# In numbers: the mean squared distance of pairs, and the squared transport cost between fresh data and
# points made in a few Euler steps. The floor is the cost between fresh data and training data. The
# noise is of Sobol points, because the counts of independent points in the eight sectors vary by
# chance.

steps = (1, 2, 4, 8, 32)
fresh = eight_gaussians(1024, seed=1)


def distance_of_pairs(batches):
    """Mean squared distance, of 50 batches."""
    some = (next(batches) for _ in range(50))
    return np.mean([(noise - x).square().sum(dim=1).mean() for noise, x in some])


costs = {}
print(f"{'':22}{'pairs':>8}" + "".join(f"{f'{k} steps':>10}" for k in steps))
for name, network in networks.items():
    costs[name] = [transport_cost(flow(network, noise, k)[-1], fresh) for k in steps]
    figures = "".join(f"{cost:10.3f}" for cost in costs[name])
    print(f"{name:22}{distance_of_pairs(streams[name]):8.2f}{figures}")
cost_floor = transport_cost(points[:1024], fresh)
print(f"floor {cost_floor:.3f}")

# %%
# The digits of scikit-learn: 64 pixels in [-1, 1], and 450 images held out. The measure is the Frechet
# distance between the pixels of generated and of held-out images; the floor is that of training images.
# The seconds include training and making pairs.

images = np.random.default_rng(0).permutation(load_digits().data).astype(np.float32) / 8.0 - 1.0
images, held_out = torch.from_numpy(images[450:]), images[:450]
start = time.process_time()
streams, coupling = couplings(images)
print(f"{coupling}, solved in {time.process_time() - start:.1f} s")

noise = torch.randn(1000, 64, generator=torch.Generator().manual_seed(1))
distances, made = {}, {}
print(f"{'':22}{'seconds':>8}{'pairs':>8}" + "".join(f"{f'{k} steps':>10}" for k in steps))
for name, batches in streams.items():
    start = time.process_time()
    network = train(batches, 64, 256, 2000)
    seconds = time.process_time() - start
    made[name] = [flow(network, noise, k)[-1].clamp(-1.0, 1.0).numpy() for k in steps]
    distances[name] = [frechet_distance(x, held_out) for x in made[name]]
    figures = "".join(f"{distance:10.2f}" for distance in distances[name])
    print(f"{name:22}{seconds:8.1f}{distance_of_pairs(batches):8.1f}{figures}")
distance_floor = frechet_distance(images, held_out)
print(f"floor {distance_floor:.2f}")

# %%
# Images from the same noise in one and two steps.

figure, axes = plt.subplots(2, 3, figsize=(10, 3.0), layout="constrained")
for column, (name, sets) in zip(axes.T, made.items(), strict=True):
    for axis, x in zip(column, sets, strict=False):
        plot_images((x[:40].reshape(-1, 8, 8) + 1.0) / 2.0, axis, columns=10)
    column[0].set_title(name)
axes[0, 0].set_ylabel("1 Euler step")
axes[1, 0].set_ylabel("2 Euler steps")
figure.savefig("flow_matching_digits.png", dpi=120)

# %%
# Quality against the number of Euler steps, of one run each. In the plane semi-discrete pairs are best
# in one and two steps. With many steps mini-batches are best there, because every Gaussian has its mass
# in the mean; the strict coupling is better than the default one, which is even behind independent
# pairs. With digits the default is clearly best in one and two steps. With eight or more it is close to
# mini-batches, which took longer to train.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
for axis, values, floor in ((left, costs, cost_floor), (right, distances, distance_floor)):
    for name, color in zip(values, ("C1", "C2", "C0", "C4"), strict=False):
        axis.loglog(steps, values[name], "o-", color=color, label=name)
    axis.axhline(floor, color="k", linestyle="--", label="floor")
    axis.set_xticks(steps, steps)
    axis.minorticks_off()
    axis.set_xlabel("Euler steps")
    axis.grid(alpha=0.3)
left.set(title="eight Gaussians", ylabel="squared transport cost to fresh data")
right.set(title="digits", ylabel="Frechet distance to held-out images")
left.legend()
figure.savefig("flow_matching_steps.png", dpi=120)
plt.show()
