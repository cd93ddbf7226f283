r"""
Pairs for conditional flow matching
===================================

In a conditional flow the noise must be independent of the label. One potential for all data pairs
noise with nearby data of any label, so each label gets only a part of the noise. The flow
of that label is trained on this part alone, but sampling starts from all noise. Cheng and Schwing
(arXiv:2503.10636) describe this for transport in mini-batches.
:func:`~pot_semidiscrete.generative.solve_coupling` has two remedies:

* ``labels=``: a potential of each class, as in Mousavi-Hosseini, Zhang, Klein and Cuturi
  (arXiv:2509.25519);
* ``conditions=``: for continuous conditions, which are added to the cost with a weight.
"""

# %%
# The data are eight Gaussians in the plane. A class is two neighbours.

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from pot_semidiscrete.generative import SemiDiscretePairs, solve_coupling
from pot_semidiscrete.metrics import frechet_distance
from pot_semidiscrete.plot import plot_images

torch.set_num_threads(1)
angles = torch.arange(8) * math.pi / 4.0
centers = 4.0 * torch.stack([angles.cos(), angles.sin()], dim=1)
mode = torch.arange(2000) % 8
points = centers[mode] + 0.3 * torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
labels = mode // 2


def independent(data, labels, batch_size=128, seed=0):
    """Endless batches of noise, data and labels."""
    random = torch.Generator().manual_seed(seed)
    while True:
        index = torch.randint(len(data), (batch_size,), generator=random)
        yield torch.randn(batch_size, data.shape[1], generator=random), data[index], labels[index]


def paired(coupling, labels):
    """The same, by a coupling."""
    pairs = SemiDiscretePairs(coupling, batch_size=128, random_state=0)
    while True:
        for batch in pairs:
            yield batch.noise, batch.data, labels[batch.index]


def streams(data, labels):
    """A stream of batches of each kind of pairs."""
    couplings = {
        "labels ignored": solve_coupling(data, random_state=0),
        "per class": solve_coupling(data, labels=labels, random_state=0),
    }
    for name, coupling in couplings.items():
        print(f"{name:16}{coupling}")
    found = {name: paired(coupling, labels) for name, coupling in couplings.items()}
    return {"independent": independent(data, labels), **found}


# %%
# The noise of each label should have mean 0 and variance 1. Up to chance this is so if pairs are
# independent or made per class. If labels are ignored, the noise of a label is a sector of the plane;
# these pairs are the closest, but wrong. Colours are labels; large dots are the means of the noise,
# which should coincide.


def many(batches, n=250):
    """So many batches, joined."""
    return (torch.cat(parts) for parts in zip(*(next(batches) for _ in range(n)), strict=True))


figure, axes = plt.subplots(1, 3, figsize=(10, 3.65), layout="constrained")
batches = streams(points, labels)
print(f"{'':16}{'largest |mean|':>16}{'|variance - 1|':>16}{'squared distance':>18}")
for axis, (name, stream) in zip(axes, batches.items(), strict=True):
    noise, x, label = many(stream)
    parts = [noise[label == k] for k in range(4)]
    mean = max(part.mean(dim=0).abs().max() for part in parts)
    variance = max((part.var(dim=0) - 1.0).abs().max() for part in parts)
    print(f"{name:16}{mean:16.3f}{variance:16.3f}{(noise - x).square().sum(dim=1).mean():18.2f}")
    axis.scatter(*noise[:1000].T, c=label[:1000], cmap="tab10", vmax=9, s=5)
    for k, part in enumerate(parts):
        axis.plot(*part.mean(dim=0), "o", color=f"C{k}", markersize=11, markeredgecolor="k")
    axis.set(title=name, xticks=[], yticks=[], xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal")
figure.savefig("conditional_noise.png", dpi=120)

# %%
# A conditional flow is trained on each kind of pairs, with the same network.


class Network(torch.nn.Module):
    """Estimate of the end of a segment, from a point of it, its time and its label."""

    def __init__(self, dimension, width, n_classes):
        super().__init__()
        self.enter = torch.nn.Linear(dimension + 9, width)
        self.classes = torch.nn.Embedding(n_classes, width)
        layers = [torch.nn.SiLU()]
        for _ in range(2):
            layers += [torch.nn.Linear(width, width), torch.nn.SiLU()]
        self.layers = torch.nn.Sequential(*layers, torch.nn.Linear(width, dimension))

    def forward(self, x, t, label):
        phase = math.pi * t * 2.0 ** torch.arange(4)
        hidden = self.enter(torch.cat([x, t, phase.sin(), phase.cos()], dim=1))
        return self.layers(hidden + self.classes(label))


def train(batches, dimension, width, n_classes, n_steps):
    """A network, trained on the pairs of a stream."""
    torch.manual_seed(0)
    network = Network(dimension, width, n_classes)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps)
    for _ in range(n_steps):
        noise, x, label = next(batches)
        t = torch.rand(len(x), 1)
        optimizer.zero_grad()
        (network((1.0 - t) * noise + t * x, t, label) - x).square().mean().backward()
        optimizer.step()
        schedule.step()
    return network


@torch.no_grad()
def flow(network, x, label, n_steps):
    """Where noise of a label goes in so many Euler steps."""
    for k in range(n_steps):
        t = torch.full((len(x), 1), k / n_steps)
        x = x + (network(x, t, label) - x) / (1.0 - t) / n_steps
    return x


# %%
# Points are generated for each label. The table has the share that is nearest to a Gaussian of the
# right class, and the share that is also within a distance of 1 of it. If labels are ignored, about a
# third of the points are in a wrong class after one or two steps, and a tenth after many. With pairs
# per class most points are right after one step. With independent pairs they are in the right class,
# but only many steps bring them to its Gaussians.

steps = (1, 2, 8, 32)
noise = torch.randn(1000, 2, generator=torch.Generator().manual_seed(1))
wanted = torch.arange(1000) % 4
figure, axes = plt.subplots(2, 3, figsize=(10, 6.8), layout="constrained")
print(f"{'Euler steps':16}" + "".join(f"{k:>14}" for k in steps) + "   (right, right and near)")
for column, (name, stream) in zip(axes.T, batches.items(), strict=True):
    network = train(stream, 2, 96, 4, 2000)
    made = {k: flow(network, noise, wanted, k) for k in steps}
    figures = ""
    for x in made.values():
        away, nearest = torch.cdist(x, centers).min(dim=1)
        right = nearest // 2 == wanted
        figures += f"{right.float().mean():8.0%}{(right & (away < 1.0)).float().mean():6.0%}"
    print(f"{name:16}{figures}")
    for axis, k in zip(column, (2, 32), strict=True):
        axis.scatter(*made[k].T, c=wanted, cmap="tab10", vmax=9, s=5)
        axis.set(xticks=[], yticks=[], xlim=(-5.5, 5.5), ylim=(-5.5, 5.5), aspect="equal")
    column[0].set_title(name)
axes[0, 0].set_ylabel("2 Euler steps")
axes[1, 0].set_ylabel("32 Euler steps")
figure.savefig("conditional_flows.png", dpi=120)

# %%
# The same with the digits of scikit-learn, 450 of which are held out. The table has the share of images
# to which the five nearest training images give the right label, and the Frechet distance to the
# held-out images. In 64 dimensions ignored labels do less harm: few images are of a wrong class. But
# after many steps that flow is farther from the data than that of independent pairs. The flow of pairs
# per class is nearest throughout. The images below are made in two steps.

digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.data))
images = torch.from_numpy(digits.data[order]).float() / 8.0 - 1.0
classes = torch.from_numpy(digits.target[order])
held_out, wanted = images[:450], classes[:450]
judge = KNeighborsClassifier(5).fit(images[450:], classes[450:])
print(f"held-out images: {judge.score(held_out, wanted):.0%} right")
batches = streams(images[450:], classes[450:])
noise, shown = torch.randn(450, 64, generator=torch.Generator().manual_seed(1)), wanted.argsort()[:450:9]
figure, axes = plt.subplots(1, 3, figsize=(10, 2.1), layout="constrained")
print(f"{'Euler steps':16}" + "".join(f"{k:>14}" for k in steps) + "   (right, Frechet distance)")
for axis, (name, stream) in zip(axes, batches.items(), strict=True):
    network = train(stream, 64, 192, 10, 1500)
    figures = ""
    for k in steps:
        x = flow(network, noise, wanted, k).clamp(-1.0, 1.0)
        figures += f"{judge.score(x, wanted):8.0%}{frechet_distance(x, held_out):6.2f}"
        if k == 2:
            plot_images((x[shown].reshape(-1, 8, 8).numpy() + 1.0) / 2.0, axis, columns=10, title=name)
    print(f"{name:16}{figures}")
figure.savefig("conditional_digits.png", dpi=120)

# %%
# A continuous condition: points on two circles, with the cosine and sine of the angle as the condition.
# Noise gets a condition :math:`c`, drawn from those of the data, and goes to a data point :math:`y` of
# condition :math:`c'` at the cost :math:`|x - y|^2 + \beta |c - c'|^2`. A weight of 0 ignores
# conditions. With a large weight only conditions count, and pairs are nearly as far apart as independent
# ones. By default the weight is three times the smallest at which exact pairs of 512 points leave
# 2% of the squared distance of conditions.

random = torch.Generator().manual_seed(0)
angle = 2.0 * math.pi * torch.rand(2000, generator=random)
conditions = torch.stack([angle.cos(), angle.sin()], dim=1)
radius = 2.0 + 2.0 * torch.randint(2, (2000, 1), generator=random)
rings = radius * conditions + 0.1 * torch.randn(2000, 2, generator=random)

found = []
print(f"{'weight':>10}{'correlation':>14}{'squared distance':>18}")
for weight in (0.0, 1.0, 3.0, 10.0, None, 100.0, 1000.0, 10000.0):
    coupling = solve_coupling(rings, conditions=conditions, condition_weight=weight, random_state=0)
    pairs = SemiDiscretePairs(coupling, batch_size=128, epoch_size=32_000, random_state=0)
    noise, x, _, condition = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    correlation = abs(np.corrcoef(noise.T, condition.T)[:2, 2:]).max()
    apart = float((noise - x).square().sum(dim=1).mean())
    found.append((coupling.space.condition_weight, correlation, apart, noise[:1000], condition[:1000]))
    rule = "  by the rule" if weight is None else ""
    print(f"{found[-1][0]:10.1f}{correlation:14.3f}{apart:18.2f}{rule}")
apart_independent = float((torch.randn(2000, 2, generator=random) - rings).square().sum(dim=1).mean())
print(f"squared distance of independent pairs {apart_independent:.2f}")

# %%
# The noise has the colour of the angle of its data point. The default weight is a compromise: a little
# correlation is left. Larger weights remove it, with pairs that are a little farther apart.

figure, axes = plt.subplots(1, 3, figsize=(10, 3.65), layout="constrained")
for axis, k, name in ((axes[0], 0, "ignored"), (axes[1], 4, "the rule's")):
    weight, *_, noise, condition = found[k]
    axis.scatter(*noise.T, c=torch.atan2(condition[:, 1], condition[:, 0]), cmap="hsv", s=5)
    axis.set(xticks=[], yticks=[], xlim=(-3.5, 3.5), ylim=(-3.5, 3.5), aspect="equal")
    axis.set_title(f"noise, weight {weight:.3g} ({name})")
weights, correlations, aparts, *_ = zip(*found, strict=True)
axes[2].plot(aparts, correlations, "o-")
axes[2].plot(aparts[4], correlations[4], "o", color="C3", markersize=9, label="weight of the rule")
for weight, correlation, apart in zip(weights[:4], correlations, aparts, strict=False):
    axes[2].annotate(f"{weight:g}", (apart, correlation), (5, 5), textcoords="offset points")
axes[2].axvline(apart_independent, color="k", linestyle="--", label="independent pairs")
axes[2].set(xlabel="squared distance of pairs", ylabel="correlation of noise and condition")
axes[2].set_ylim(-0.05, 1.0)
axes[2].grid(alpha=0.3)
axes[2].legend(loc="lower left")
figure.savefig("conditional_continuous.png", dpi=120)
plt.show()
