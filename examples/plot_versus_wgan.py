r"""
Beside a WGAN and mini-batch Sinkhorn
=====================================

Three ways to train, with one generator, one data set, the same initial weights and the same seconds of
one processor core:

* ``train_generator``: a potential with one entry for each image is kept from step to step. It is run
  by *the paper's gradient*, of the squared distance of pixels; with *pairs*, where
  :class:`~pot_semidiscrete.generative.ImageFeatures` decide the pairs and the sum of absolute
  differences of pixels is minimised; and with pairs and a *critic*, as images have by
  default (:doc:`/training`), here with the network of the next;
* WGAN-GP (Gulrajani et al., arXiv:1704.00028): the potential is a network, the *critic*, kept nearly
  1-Lipschitz by a penalty on its gradient; the cost is the distance, not its square;
* mini-batch Sinkhorn: no potential is kept, each batch of generated points is transported to a batch
  of data; and the same debiased, the Sinkhorn divergence (Genevay, Peyre, Cuturi, arXiv:1706.00292).

WGAN-GP is run with the rate of its paper, and with a rate twenty times higher that falls, and another
momentum. Sinkhorn has the optimiser of ``train_generator``, which is better for it than a rate of 1e-3.
All critics are alike. The data are the 1,797 handwritten digits of scikit-learn; for MNIST run
``python plot_versus_wgan.py --mnist FOLDER --seconds 300``.
"""

# %%
# The data, and the measures: on held-out images, beside those of training images.

import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import ot
import torch
from sklearn.datasets import load_digits
from torch import nn

from pot_semidiscrete.datasets import load_mnist, load_mnist_labels
from pot_semidiscrete.generative import GradientPenaltyCritic, mlp_generator, train_generator
from pot_semidiscrete.metrics import Classifier, Judge
from pot_semidiscrete.plot import plot_images

mnist, seconds, seed, output = None, 8.0, 0, "versus_wgan.png"  # seconds of each run
# sphinx_gallery_start_ignore
# on the command line the same are options; the page leaves them out
import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--mnist", metavar="FOLDER", help="folder with MNIST's IDX files")
parser.add_argument("--seconds", type=float, default=seconds, help="processor time of each run")
parser.add_argument("--seed", type=int, default=seed)
parser.add_argument("--output", default=output, help="where to save the figure")
args = parser.parse_args()
mnist, seconds, seed, output = args.mnist, args.seconds, args.seed, args.output
Path(output).parent.mkdir(parents=True, exist_ok=True)  # before the training, not after it
# sphinx_gallery_end_ignore

torch.set_num_threads(1)
rng = np.random.default_rng(seed)
if mnist:
    (images, test), (classes, _) = load_mnist(mnist), load_mnist_labels(mnist)
    held_out = test[rng.choice(len(test), 2000, replace=False)]
    latent_dim, widths, critic_widths = 100, (256, 512, 1024), (512, 256)
else:
    digits = load_digits()
    order = rng.permutation(len(digits.images))
    images, classes = digits.images[order].astype(np.float32) / 16.0, digits.target[order]
    held_out, images, classes = images[:450], images[450:], classes[450:]
    latent_dim, widths, critic_widths = 32, (128, 256), (256, 128)
judge = Judge(images, held_out, Classifier(images, classes, n_steps=1000))
atoms = torch.as_tensor(images).flatten(1)
unit = float(atoms.square().sum(dim=1).mean())
shape, d = images.shape[1:], atoms.shape[1]


# %%
# What all share: the generator, its batches, and a clock. Where a rate falls, it is constant in the
# first two thirds of the seconds, and falls to 0 in the last third.


class Run:
    """A generator in training, its optimiser and its clock."""

    def __init__(self, lr, betas, falls, batch_size=200):
        torch.manual_seed(seed)
        self.generator, self.batch_size = mlp_generator(latent_dim, shape, widths), batch_size
        self.optimizer = torch.optim.Adam(self.generator.parameters(), lr=lr, betas=betas, fused=True)
        self.lr, self.falls, self.steps, self.start = lr, falls, 0, time.process_time()

    def draw(self):
        return self.generator(torch.randn(self.batch_size, latent_dim)).flatten(1)

    def data(self):
        return atoms[torch.randint(len(atoms), (self.batch_size,))]

    def goes_on(self):
        progress = (time.process_time() - self.start) / seconds
        self.rate = min(1.0, 3.0 * max(1.0 - progress, 0.0)) if self.falls else 1.0
        self.optimizer.param_groups[0]["lr"] = self.lr * self.rate
        return progress < 1.0

    def descend(self, loss):
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.steps += 1


def new_critic():
    """A perceptron from images to numbers."""
    layers = [nn.Flatten()]
    for rows, columns in zip((d, *critic_widths), critic_widths, strict=False):
        layers += [nn.Linear(rows, columns), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Linear(critic_widths[-1], 1))


plain = {"n_atoms": False, "features": False, "pair_cost": False, "critic": False}


def ours(options, **run_options):
    """`train_generator` with these options, stopped by the clock."""
    run, data = Run(**run_options), atoms.reshape(-1, *shape)

    def callback(result):
        run.steps += 1
        return not run.goes_on()

    train_generator(
        run.generator,
        latent_dim,
        data,
        n_steps=10**6,
        optimizer=run.optimizer,
        callback=callback,
        random_state=seed,
        **options,
    )
    return run


# %%
# WGAN-GP, as in its paper: the penalty has a weight of 10, the critic takes five steps for each step of
# the generator, and both use Adam.


def wgan_gp(critic_steps=5, **options):
    """A critic with the gradient penalty."""
    run = Run(**options)
    adam = lambda p: torch.optim.Adam(p, lr=options["lr"], betas=options["betas"], fused=True)
    sizes = dict.fromkeys(("batch_size", "penalty_size"), run.batch_size)
    critic = GradientPenaltyCritic(atoms, new_critic(), optimizer=adam, random_state=seed, **sizes)
    while run.goes_on():
        for _ in range(critic_steps):
            with torch.no_grad():
                x = run.draw()
            critic.step(x, run.rate)
        run.descend(-critic.score(run.draw()).mean())
    return run


# %%
# Mini-batch Sinkhorn, by POT. The derivative of the value is that of the cost under the plan (the
# envelope theorem), so nothing is differentiated through the iterations.


def plan_cost(x, y, reg):
    """Cost of the plan of Sinkhorn's algorithm, differentiable in the points."""
    cost = ot.dist(x.double(), y.double()) / unit
    weights = torch.full((len(x),), 1.0 / len(x), dtype=torch.double)
    with torch.no_grad():
        plan = ot.sinkhorn(weights, weights, cost, reg, numItermax=100, warn=False)
    return (plan * cost).sum()


def sinkhorn(debias, reg=0.01, **options):
    """Mini-batch Sinkhorn, or the Sinkhorn divergence."""
    run = Run(**options)
    while run.goes_on():
        x = run.draw()
        within = plan_cost(x, x, reg) / 2.0 if debias else 0.0
        run.descend(plan_cost(x, run.data(), reg) - within)
    return run


# %%
# The runs. *Cost* and *covariance* are the transport cost to held-out images and the ratio of the
# covariance traces; *Frechet* is a distance in the features of a classifier, *coverage* the share of
# held-out images that come near to one of these, *entropy* that of the classes (at most 2.30), *nearest*
# the cost to the nearest training image, 0 for copies.

adam = {"lr": 3e-3, "betas": (0.9, 0.99), "falls": True}
calm = {"lr": 2e-3, "betas": (0.5, 0.99), "falls": True}
runs = {
    "the paper's gradient": lambda: ours(plain, **adam),
    "pairs": lambda: ours({"critic": False}, **calm),
    "pairs and a critic": lambda: ours({"critic": new_critic()}, **calm),
    "WGAN-GP, its paper": lambda: wgan_gp(lr=1e-4, betas=(0.0, 0.9), falls=False, batch_size=64),
    "WGAN-GP, faster": lambda: wgan_gp(lr=2e-3, betas=(0.5, 0.9), falls=True, batch_size=64),
    "Sinkhorn, batches": lambda: sinkhorn(False, **adam),
    "Sinkhorn divergence": lambda: sinkhorn(True, **adam),
}
columns = ("cost", "covariance", "frechet", "coverage", "entropy", "nearest")
print(f"{'':22}{'steps':>8}" + "".join(f"{name:>12}" for name in columns))
print(f"{'data':30}" + "".join(f"{judge.floor[name]:12.3f}" for name in columns))
samples = {"held-out images": held_out}
for name, train in runs.items():
    run = train()
    with torch.no_grad():
        z = torch.randn(len(held_out), latent_dim, generator=torch.Generator().manual_seed(1))
        samples[name] = run.generator(z).numpy()
    found = judge(samples[name])
    print(f"{name:22}{run.steps:8d}" + "".join(f"{found[name]:12.3f}" for name in columns))

# %%
# The images. This is one seed of short runs on small images, and shows no more. The paper's gradient
# and Sinkhorn have the lowest costs, with images that are grey where they are uncertain. Pairs have
# black strokes, and no larger a Frechet distance. A critic lowers it, at a higher cost. The images of
# WGAN-GP vary as much as the data, but come near to fewer of them, and are rougher; at the rate of its
# paper it does not finish in the time. Sinkhorn is blurred, as is known of mini-batches (Fatras et al.,
# arXiv:1910.04091). Debiasing adds little, because at so small a regularisation the transport of a batch
# to itself costs almost nothing.

figure, axes = plt.subplots(2, 4, figsize=(12, 5.2), layout="constrained")
for axis, (name, images) in zip(axes.flat, samples.items(), strict=False):
    plot_images(images[:80], axis, columns=10, title=name)
figure.savefig(output, dpi=120)
plt.show()
