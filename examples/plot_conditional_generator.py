r"""
A generator of digits that are asked for
========================================

A generator of images and labels together, :math:`(g_\theta(z, k), k)`, is trained towards pairs of data
:math:`(y_j, k_j)` by the cost

.. math:: |x - y|^2 + w\, 1[k \ne k'] ,

which is the squared distance of points to which the label is appended, as a vector with one entry
:math:`\sqrt{w/2}`. With w as large as the costs of images little mass goes from a label to another, and
the transport is nearly that of each label: with labels drawn as often as in the data, the generator's
images of label k go to those of label k.
"""

# %%
# The 1,797 digits of scikit-learn, some held out, and a classifier trained on the others. An atom is an
# image and its label.

import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from pot_semidiscrete import cost_scale
from pot_semidiscrete.generative import mlp_generator, train_generator
from pot_semidiscrete.metrics import Classifier, Judge
from pot_semidiscrete.plot import plot_images

torch.set_num_threads(1)
digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.images))
images, labels = digits.images[order].astype(np.float32) / 16.0, digits.target[order]
held_out, images = images[:450], images[450:]
held_labels, labels = labels[:450], labels[450:]
classifier = Classifier(images, labels)
judge = Judge(images, held_out, classifier)

flat, known = torch.as_tensor(images).flatten(1), torch.as_tensor(labels)
weight = cost_scale(flat)
one_hot = nn.functional.one_hot(known, 10).float()
atoms = torch.cat([flat, (weight / 2.0) ** 0.5 * one_hot], dim=1)
reg = 0.003 * cost_scale(flat)

# %%
# The generator takes noise and a label. The labels of the data are drawn.

random = torch.Generator().manual_seed(0)


def latent(n):
    """Noise, and labels as they are in the data."""
    rows = torch.randint(len(one_hot), (n,), generator=random)
    return torch.cat([torch.randn(n, 16, generator=random), one_hot[rows]], dim=1)


class WithLabels(nn.Module):
    """Images, with the labels that were asked for appended."""

    def __init__(self):
        super().__init__()
        self.draw = mlp_generator(26, (64,), (128, 256))

    def forward(self, z):
        return torch.cat([self.draw(z), (weight / 2.0) ** 0.5 * z[:, 16:]], dim=1)


torch.manual_seed(0)
start = time.perf_counter()
run = train_generator(WithLabels(), latent, atoms, n_steps=3000, reg=reg)
print(f"{run.status} after {time.perf_counter() - start:.0f} s")

# %%
# Is it the digit that was asked for? The classifier, which is right on so many of the images held out,
# says so of those generated; beside it, the measures of :class:`~pot_semidiscrete.metrics.Judge`.

z = latent(2000)
asked = z[:, 16:].argmax(dim=1).numpy()
with torch.no_grad():
    generated = run.generator.draw(z).reshape(-1, 8, 8).numpy()
for name, pictures, digit in (("held out", held_out, held_labels), ("generated", generated, asked)):
    right = np.mean(classifier.labels(pictures) == digit)
    print(f"{name:10} the digit asked for: {right:.1%}")
print({name: round(value, 3) for name, value in judge(generated).items()})

# %%
# Twelve of each digit.

z = torch.cat([torch.randn(120, 16, generator=random), torch.eye(10).repeat_interleave(12, 0)], dim=1)
with torch.no_grad():
    rows = run.generator.draw(z).reshape(-1, 8, 8).numpy()
figure, axis = plt.subplots(figsize=(6, 5.2), layout="constrained")
plot_images(rows, axis, title="from the first row: 0, 1, ..., 9")
figure.savefig("conditional_generator.png", dpi=120)
plt.show()
