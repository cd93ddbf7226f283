r"""
A generator in the plane
========================

A multilayer perceptron maps a normal law in the plane to two data sets, eight Gaussians and a spiral. It
is trained by the alternating algorithm of Houdard, Leclaire, Papadakis and Rabin (arXiv:2102.05542).
In the plane one sees what training does. Each atom of the data has a cell: the points where the squared
distance to it less its potential is smallest. The potential keeps the masses of
all cells equal, and each generated point moves towards the atom of its cell. A sweep of the
regularisation follows: a small one is sharp, a large one shrinks the law, and at 0 the gradient may not
exist.
"""

# %%
# The data, and as many held-out points.

import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
import torch

from pot_semidiscrete import cost_scale, gradient_diagnostics, semidiscrete_atom_weights
from pot_semidiscrete.generative import SemiDiscreteLoss, train_generator
from pot_semidiscrete.metrics import covariance_ratio, transport_cost

torch.set_num_threads(1)
n_atoms, n_steps = 250, 1000


def eight_gaussians(n, rng):
    """Points of eight Gaussians, on a circle."""
    angle = 2.0 * np.pi * rng.integers(8, size=n) / 8.0
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.08 * rng.normal(size=(n, 2))


def spiral(n, rng):
    """Points of a spiral, with a little noise."""
    t = np.sqrt(rng.random(n))
    angle = 3.0 * np.pi * t
    return (t * np.array([np.cos(angle), np.sin(angle)])).T + 0.03 * rng.normal(size=(n, 2))


laws = {"eight Gaussians": eight_gaussians, "spiral": spiral}
rng = np.random.default_rng(0)
data = {
    name: [torch.tensor(draw(n_atoms, rng), dtype=torch.float32) for _ in range(2)]
    for name, draw in laws.items()
}


def new_generator():
    """A perceptron, always with the same initial weights."""
    torch.manual_seed(0)
    layers = [torch.nn.Linear(2, 64), torch.nn.LeakyReLU(0.2)]
    for _ in range(2):
        layers += [torch.nn.Linear(64, 64), torch.nn.LeakyReLU(0.2)]
    return torch.nn.Sequential(*layers, torch.nn.Linear(64, 2))


z = torch.randn(n_atoms, 2, generator=torch.Generator().manual_seed(1))
shown = (1, 20, 60, 200, n_steps)


def train(atoms, reg):
    """Generator, loss, and what was seen at some steps: points and potential."""
    frames = {}

    def look(result):
        step = len(result.history["loss"])
        if step in shown:
            with torch.no_grad():
                frames[step] = result.generator(z), result.loss.potential.clone()

    result = train_generator(
        new_generator(),
        2,
        SemiDiscreteLoss(atoms, reg=reg),
        n_steps=n_steps,
        callback=look,
        random_state=0,
    )
    return result, frames


def measure(generator, held_out):
    """Transport cost to held-out data, and ratio of the traces of the covariances."""
    with torch.no_grad():
        x = generator(z)
    return transport_cost(x, held_out), covariance_ratio(x, held_out)


# %%
# Training at a `reg` of 1% of the mean cost between atoms. The floor is the cost between the two
# samples of the data.

runs = {}
print(f"{'':16}{'seconds':>8}{'floor':>8}{'before':>8}{'cost':>8}{'covariance':>12}")
for name, (atoms, held_out) in data.items():
    start = time.perf_counter()
    runs[name] = train(atoms, 0.01 * cost_scale(atoms))
    seconds = time.perf_counter() - start
    cost, ratio = measure(runs[name][0].generator, held_out)
    before = measure(new_generator(), held_out)[0]
    floor = transport_cost(atoms, held_out)
    print(f"{name:16}{seconds:8.1f}{floor:8.4f}{before:8.3f}{cost:8.4f}{ratio:12.2f}")

# %%
# Cells and points during training. A cell has the colour of its atom, which is drawn darker; the
# generated points are black.

ticks = np.linspace(-1.5, 1.5, 201, dtype=np.float32)
places = torch.from_numpy(np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2))


def palette(atoms):
    """A colour for each atom: hue by angle, lightness at random."""
    hue = plt.cm.hsv((np.arctan2(*atoms.T.numpy()) / (2.0 * np.pi)) % 1.0)[:, :3]
    light = np.random.default_rng(0).uniform(0.35, 0.75, size=(len(atoms), 1))
    return 1.0 - light * (1.0 - hue)


figure, axes = plt.subplots(2, len(shown), figsize=(2.6 * len(shown), 5.6), layout="constrained")
for row, (name, (_, frames)) in zip(axes, runs.items(), strict=True):
    atoms = data[name][0]
    colors = palette(atoms)
    for axis, (step, (points, potential)) in zip(row, frames.items(), strict=True):
        cell = semidiscrete_atom_weights(atoms, places, potential).argmax(dim=1)
        image = colors[cell.numpy()].reshape(len(ticks), len(ticks), 3)
        axis.imshow(image, origin="lower", extent=[-1.5, 1.5, -1.5, 1.5])
        axis.scatter(*atoms.T, c=0.6 * colors, s=3)
        axis.scatter(*points.T, c="k", s=4)
        axis.set(xticks=[], yticks=[], xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), title=f"step {step}")
    row[0].set_ylabel(name)
figure.savefig("synthetic_cells.png", dpi=120)

# %%
# The sweep, on the eight Gaussians: the cost, the covariance, the variation of the loss in the last 100
# steps, and the verdict of the package on the gradient at the end. The verdict is about the last
# potential too: without regularisation the one of training is far from optimal.

atoms, held_out = data["eight Gaussians"]
shares = (0.0, 0.001, 0.01, 0.1, 0.3)
figure, axes = plt.subplots(1, len(shares), figsize=(2.6 * len(shares), 2.9), layout="constrained")
print(f"{'reg':>8}{'cost':>8}{'covariance':>12}{'varies':>8}  gradient")
for axis, share in zip(axes, shares, strict=True):
    reg = share * cost_scale(atoms)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = runs["eight Gaussians"][0] if share == 0.01 else train(atoms, reg)[0]
    cost, ratio = measure(result.generator, held_out)
    with torch.no_grad():
        points = result.generator(z)
        fresh = result.generator(torch.randn(2000, 2, generator=torch.Generator().manual_seed(2)))
    found = gradient_diagnostics(atoms, fresh, result.loss.potential, reg=reg)
    varies = np.std(result.history["loss"][-100:]) / np.mean(result.history["loss"][-100:])
    print(f"{share:8.1%}{cost:8.4f}{ratio:12.2f}{varies:8.3f}  {found.verdict}")
    for words in (*found.reasons, *found.notes, *(f"warned: {w.message}" for w in caught)):
        print(f"{'':8}{words}")
    axis.scatter(*atoms.T, c="C1", s=3)
    axis.scatter(*points.T, c="k", s=3)
    title = f"reg {100 * share:g}%"
    axis.set(xticks=[], yticks=[], xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), title=title)
    axis.set_aspect("equal")
figure.savefig("synthetic_reg.png", dpi=120)
plt.show()
