r"""
Regularisation: sharp or stable
===============================

The experiment of Houdard, Leclaire, Papadakis and Rabin (arXiv:2102.05542) on images. Generators
are trained at several :math:`\lambda`; the cost is divided by the mean of :math:`|y|^2`. A small
:math:`\lambda` gives sharp images, but the potential is hard to keep optimal, and at 0 the gradient
need not exist. A large one is easy and blurs, because each point moves towards an average of many
images. There are two generators like those of the paper: a multilayer perceptron (MLP), and
transposed convolutions with batch normalisation (DCGAN).

The data are the 1,797 handwritten digits of scikit-learn; the runs are short, with one seed.
For the 60,000 images of MNIST and the paper's sizes, run
``python plot_mnist_regularisation.py --mnist FOLDER --steps 3000``, where the folder holds its IDX
files.
"""

# %%
# The data, and the measures: on held-out images, beside those of training images.

import time
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits

from pot_semidiscrete.datasets import load_mnist, load_mnist_labels
from pot_semidiscrete.generative import SemiDiscreteLoss, dcgan_generator, mlp_generator, train_generator
from pot_semidiscrete.metrics import Classifier, Judge
from pot_semidiscrete.plot import plot_images

mnist, generators, n_steps, output = None, ("MLP", "DCGAN"), 400, "mnist_regularisation"
# sphinx_gallery_start_ignore
# on the command line the same are options; the page leaves them out
import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--mnist", metavar="FOLDER", help="folder with MNIST's IDX files")
parser.add_argument("--generators", choices=generators, nargs="+", default=generators)
parser.add_argument("--steps", type=int, default=n_steps, help="steps of each generator")
parser.add_argument("--output", default=output, help="start of the figures' names")
args = parser.parse_args()
mnist, generators, n_steps, output = args.mnist, args.generators, args.steps, args.output
Path(output).parent.mkdir(parents=True, exist_ok=True)  # before the training, not after it
# sphinx_gallery_end_ignore

rng = np.random.default_rng(0)
if mnist:
    (images, test), (classes, _) = load_mnist(mnist), load_mnist_labels(mnist)
    held_out = test[rng.choice(len(test), 2000, replace=False)]
    latent_dim, widths, channels = 100, (256, 512, 1024), (256, 128, 64)
else:
    digits = load_digits()
    order = rng.permutation(len(digits.images))
    images, classes = digits.images[order].astype(np.float32) / 16.0, digits.target[order]
    held_out, images, classes = images[:450], images[450:], classes[450:]
    latent_dim, widths, channels = 32, (128, 256), (32, 16)
    torch.set_num_threads(1)  # products are small: threads would wait for each other
judge = Judge(images, held_out, Classifier(images, classes, n_steps=1000))
device = "cuda" if torch.cuda.is_available() else "cpu"
atoms = torch.as_tensor(images, device=device)
unit = float(atoms.square().sum(dim=(1, 2)).mean())
print(f"{len(images)} images of {images.shape[1]} by {images.shape[2]} pixels")

# %%
# Theory says how large is too large: near the mean of the data a direction of variance v grows only if
# :math:`2 v > \lambda`. Beyond the largest such value a generator shrinks to the mean.

largest = 2.0 * np.linalg.eigvalsh(np.cov(images.reshape(len(images), -1).T))[-1] / unit
print(f"no direction grows from reg {largest:.3f} on")

# %%
# The runs. Batch normalisation makes the law of a generator depend on its mode and on the batch size.
# So all points are drawn in train mode, in batches of 200: for the potential, the generator and the
# measures.

batch_size, regs = 200, (0.0, 0.005, 0.01, 0.05, 0.1)
makers = {
    "MLP": lambda: mlp_generator(latent_dim, images.shape[1:], widths),
    "DCGAN": lambda: dcgan_generator(latent_dim, images.shape[1:], channels),
}


def train(make, reg):
    """A run of a generator from the same initial weights."""
    torch.manual_seed(0)
    loss = SemiDiscreteLoss(atoms, reg=reg * unit)
    return train_generator(
        make().to(device), latent_dim, loss, n_steps=n_steps, batch_size=batch_size, random_state=0
    )


@torch.no_grad()
def draw(generator, n):
    """Images of a generator, drawn in train mode in batches of its training."""
    latent = torch.Generator().manual_seed(1)
    batches = [torch.randn(batch_size, latent_dim, generator=latent) for _ in range(-(-n // batch_size))]
    return torch.cat([generator(z.to(device)) for z in batches])[:n].cpu().numpy()


def varies(loss):
    """Standard deviation of the last fifth of a loss, relative to its mean, in per cent."""
    last = loss[-len(loss) // 5 :]
    return 100.0 * np.std(last) / abs(np.mean(last))


# %%
# The table. *Cost* and *covariance* are the transport cost to held-out images and the ratio of the
# covariance traces: averages of the data have a low cost and lack covariance. *Frechet* is a distance
# in the features of a classifier. *Masses* is the relative error of the masses that the atoms receive.
# *Varies* is the variation of the loss between batches, in per cent: small if the potential is near its
# optimum.

runs, samples, measures = {}, {}, {}
floor = judge.floor
print(
    f"{'':8}{'reg':>6}{'seconds':>9}{'cost':>8}{'covariance':>12}{'Frechet':>9}{'masses':>8}{'varies':>8}"
)
print(f"{'data':23}{floor['cost']:8.3f}{floor['covariance']:12.2f}{floor['frechet']:9.1f}")
for name in generators:
    for reg in regs:
        start = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run = runs[name, reg] = train(makers[name], reg)
        seconds = time.perf_counter() - start
        samples[name, reg] = draw(run.generator, len(held_out))
        found, history = judge(samples[name, reg]), run.history
        measures[name, reg] = found
        masses = np.sqrt(max(np.mean(history["chi2"][-10:]), 0.0))
        print(
            f"{name:8}{reg:6g}{seconds:9.1f}{found['cost']:8.3f}{found['covariance']:12.2f}"
            f"{found['frechet']:9.1f}{masses:8.2f}{varies(history['loss']):8.1f}"
        )
        for warning in caught:
            print(f"{'':8}{warning.message}")

# %%
# The trade-off in :math:`\lambda`, beside the values of training images (dotted).

figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
places = range(len(regs))
for axis, (measure, text) in zip(
    axes,
    {
        "cost": "cost to held-out images",
        "covariance": "covariance",
        "frechet": "Frechet distance",
    }.items(),
    strict=True,
):
    for name in generators:
        axis.plot(places, [measures[name, reg][measure] for reg in regs], "o-", label=name)
    axis.axhline(floor[measure], color="gray", ls=":", label="training images")
    axis.set(xlabel="reg", title=text, xticks=places, xticklabels=[f"{reg:g}" for reg in regs])
axes[2].set_yscale("log")
axes[0].legend()
figure.savefig(f"{output}_tradeoff.png", dpi=120)

# %%
# Images of each generator, from the same latent points.

shape = len(generators), len(regs)
size = 2.4 * len(regs), 2.7 * len(generators)
figure, axes = plt.subplots(*shape, figsize=size, layout="constrained", squeeze=False)
for row, name in zip(axes, generators, strict=True):
    for axis, reg in zip(row, regs, strict=True):
        plot_images(samples[name, reg][:48], axis, columns=6, title=f"reg {reg:g}")
    row[0].set_ylabel(name)
figure.savefig(f"{output}_images.png", dpi=120)

# %%
# The losses, in the unit of the table. Their heights differ by the entropy term, so compare their noise
# only.

shape = 1, len(generators)
size = 4.5 * len(generators), 3.6
figure, axes = plt.subplots(*shape, figsize=size, layout="constrained", sharey=True, squeeze=False)
for axis, name in zip(axes[0], generators, strict=True):
    for k, reg in enumerate(regs):
        loss = runs[name, reg].history["loss"] / unit
        axis.plot(np.arange(1, len(loss) + 1), loss, color=plt.cm.viridis(k / len(regs)), lw=0.6)
        axis.plot([], [], color=plt.cm.viridis(k / len(regs)), label=f"reg {reg:g}")
    axis.set(title=name, xlabel="step of the generator", xscale="log", ylim=(0, 1))
axes[0, 0].set_ylabel("loss of a batch / mean $|y|^2$")
axes[0, -1].legend()
figure.savefig(f"{output}_losses.png", dpi=120)
plt.show()
