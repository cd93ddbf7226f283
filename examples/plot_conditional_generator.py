r"""
A conditional generator of digits
=================================

The generator makes images and labels together, :math:`(g_\theta(z, k), k)`. It is trained towards pairs
of images and labels :math:`(y_j, k_j)` by the cost

.. math:: |x - y|^2 + w\, 1[k \ne k'] .

This is the squared distance of images to which the label is appended, as a vector with one entry
:math:`\sqrt{w/2}`. If w is as large as the costs of images, little mass goes from one label to another.
With labels drawn as often as in the data, the images of label k are then transported to the data of
label k.
"""

# %%
# The data are the 1,797 digits of scikit-learn; some are held out, and a classifier is trained on the
# others. An atom is an image with its label.

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
# The generator takes noise and a label. Labels are drawn with their frequencies in the data.

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
# Is it the digit that was asked for? The classifier decides; its accuracy on held-out images is beside
# it. The last line has the measures of :class:`~pot_semidiscrete.metrics.Judge`.

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
