r"""
Train a generator on real images
================================

A multilayer perceptron is trained to minimise its entropic transport cost to a data set,

.. math:: \min_\theta\; \mathrm{OT}_\lambda(g_\theta \sharp \zeta, \nu), \qquad
          \nu = \frac1N \sum_j \delta_{y_j},

by the alternating algorithm of Houdard, Leclaire, Papadakis and Rabin (arXiv:2102.05542), in rounds:
stochastic ascent on the potential of the atoms, then some steps of the generator with the potential
frozen (:doc:`/training`).

Three measures on held-out images, and two controls, say how good it is:

* the exact transport cost between generated and held-out images, beside its floor, the cost
  between training and held-out images;
* the ratio of the traces of the covariances, because blurry averages of the data have a low
  transport cost too;
* the same for the untrained generator, and for one trained with the potential frozen at 0,
  that is, towards the nearest atoms, however many points each atom gets.

The data are the 1,797 handwritten digits of scikit-learn. For the 60,000 of MNIST, run
``python plot_train_generator.py --mnist FOLDER --steps 3000``, where the folder holds its IDX files.
"""

# %%
# The data: a held-out set, and the rest as atoms.

import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

from pot_semidiscrete import SemiDiscreteWarning, cost_scale
from pot_semidiscrete.datasets import load_mnist
from pot_semidiscrete.generative import SemiDiscreteLoss, mlp_generator, train_generator
from pot_semidiscrete.metrics import covariance_ratio, transport_cost
from pot_semidiscrete.plot import plot_images

mnist, n_steps, seed, output = None, 6000, 0, "train_generator.png"
# sphinx_gallery_start_ignore
# on the command line the same are options; the page leaves them out
import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--mnist", metavar="FOLDER", help="folder with MNIST's IDX files")
parser.add_argument("--steps", type=int, default=n_steps, help="steps of the generator")
parser.add_argument("--seed", type=int, default=seed)
parser.add_argument("--output", default=output, help="where to save the figure")
args = parser.parse_args()
mnist, n_steps, seed, output = args.mnist, args.steps, args.seed, args.output
Path(output).parent.mkdir(parents=True, exist_ok=True)  # before the training, not after it
# sphinx_gallery_end_ignore

rng = np.random.default_rng(seed)
if mnist:
    train, held_out = load_mnist(mnist)
    held_out = held_out[rng.choice(len(held_out), 2000, replace=False)]
    latent_dim, widths = 100, (256, 512, 1024)
else:
    images = rng.permutation(load_digits().images.astype(np.float32) / 16.0)
    train, held_out = images[450:], images[:450]
    latent_dim, widths = 32, (128, 256)
    torch.set_num_threads(1)  # products are small: threads would wait for each other
atoms = torch.as_tensor(train).flatten(1)
reg = 0.01 * cost_scale(atoms)
print(f"{len(atoms)} atoms in dimension {atoms.shape[1]}, reg = {reg:.3g} (1% of the mean cost)")

# %%
# Training. Potential and generator continue from round to round; ``chi2`` in the history is the squared
# relative error of the masses that the atoms receive.


def new_generator():
    """A perceptron, always with the same initial weights."""
    torch.manual_seed(seed)
    return mlp_generator(latent_dim, train.shape[1:], widths)


start = time.perf_counter()
result = train_generator(
    new_generator(),
    latent_dim,
    SemiDiscreteLoss(atoms, reg=reg),
    n_steps=n_steps,
    random_state=seed,
    verbose=True,
)
seconds = time.perf_counter() - start
print(f"{result.status}: {n_steps} steps in {seconds:.0f} s")

# %%
# The controls. A potential that is never stepped stays at 0, of which the loss warns.


def frozen_control():
    """A generator that is trained towards the nearest atoms."""
    generator = new_generator()
    loss = SemiDiscreteLoss(atoms, reg=reg)
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3)
    latent = torch.Generator().manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SemiDiscreteWarning)
        for _ in range(n_steps):
            optimizer.zero_grad()
            loss(generator(torch.randn(200, latent_dim, generator=latent))).backward()
            optimizer.step()
    return generator


generators = {
    "trained": result.generator,
    "potential frozen at 0": frozen_control(),
    "untrained": new_generator(),
}

# %%
# The measures, on as many fresh points as there are held-out images.

unit = float(atoms.square().sum(dim=1).mean())
flat = held_out.reshape(len(held_out), -1)
floor = np.mean(
    [
        transport_cost(atoms[rng.choice(len(atoms), len(flat), replace=False)], flat, unit)
        for _ in range(3)
    ]
)
print(f"{'':24}{'cost':>8}{'/ floor':>9}{'covariance':>12}")
print(f"{'training data (floor)':24}{floor:8.3f}{1.0:9.2f}{covariance_ratio(atoms, flat):12.2f}")
latent = torch.Generator().manual_seed(seed + 1)
z = torch.randn(len(flat), latent_dim, generator=latent)
samples = {}
for name, generator in generators.items():
    with torch.no_grad():
        samples[name] = generator(z).numpy()
    x = samples[name].reshape(len(flat), -1)
    cost = transport_cost(x, flat, unit)
    print(f"{name:24}{cost:8.3f}{cost / floor:9.2f}{covariance_ratio(x, flat):12.2f}")

# %%
# Real and generated images, and the course of the training.

figure, axes = plt.subplot_mosaic(
    [["real", "trained"], ["loss", "chi2"]], figsize=(9, 7), layout="constrained"
)
plot_images(held_out[:96], axes["real"], title="held-out images")
plot_images(samples["trained"][:96], axes["trained"], title="generated images")
result.plot((axes["loss"], axes["chi2"]))
figure.savefig(output, dpi=120)
print(f"figure: {output}")
plt.show()
