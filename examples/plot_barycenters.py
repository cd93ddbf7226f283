r"""
Between a ring and a cross: barycentres
=======================================

The Wasserstein barycentre of several laws is the law with the least weighted mean cost to all of them,

.. math:: \min_\nu\; \sum_k s_k\, W_2^2(\mu_k, \nu) .

As the weights :math:`s_k` change, one law turns into another (Agueh and Carlier, 2011).
:func:`~pot_semidiscrete.applications.barycenter` finds it on atoms that move. The laws are known by
their samples, with fresh points in each step.
"""

# %%
# A case with a known answer first: the barycentre of normal laws is normal. For two laws with commuting
# covariances, its standard deviations are the means of theirs.

import matplotlib.pyplot as plt
import numpy as np

from pot_semidiscrete.applications import barycenter
from pot_semidiscrete.samplers import SobolSampler

wide = SobolSampler(2, "normal", lambda z: z * [3.0, 1.0], random_state=0)
high = SobolSampler(2, "normal", lambda z: z * [1.0, 2.0] + [4.0, 0.0], random_state=1)
found = barycenter([wide, high], 100, n_steps=10, random_state=0)
least = 0.25 * (4.0**2 + 2.0**2 + 1.0**2)
print(f"standard deviations {found.atoms.std(axis=0).round(3)}, of the barycentre [2, 1.5]")
print(f"mean {found.atoms.mean(axis=0).round(3)}, of the barycentre [2, 0]")
low, high = found.cost_interval
print(f"mean cost {low:.3f} to {high:.3f} (95%); of the barycentre {least}, of atoms a little more")

# %%
# Two shapes, and their barycentres for five weights.


def ring(z):
    """Points of a ring from those of the unit square."""
    radius, angle = 0.75 + 0.25 * z[:, 0], 2.0 * np.pi * z[:, 1]
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def cross(z):
    """Points of a cross: of four arms, which the second coordinate tells apart."""
    arm, along = np.divmod(4.0 * z[:, 1], 1.0)
    points = np.stack([0.15 + 0.85 * along, 0.3 * z[:, 0] - 0.15], axis=1)
    angle = 0.5 * np.pi * arm + 0.25 * np.pi
    (x, y), cosine, sine = points.T, np.cos(angle), np.sin(angle)
    return np.stack([cosine * x - sine * y, sine * x + cosine * y], axis=1)


figure, axes = plt.subplots(1, 5, figsize=(12, 2.8), layout="constrained")
start = None
for axis, share in zip(axes, np.linspace(0.0, 1.0, 5), strict=True):
    sources = [SobolSampler(2, generator=shape, random_state=k) for k, shape in enumerate((ring, cross))]
    options = {"X_init": start, "n_steps": 6, "n_points": 4096, "random_state": 0}
    found = barycenter(sources, 250, source_weights=[1.0 - share, share], **options)
    start = found.atoms
    axis.scatter(*found.atoms.T, s=6, color=plt.cm.plasma(0.8 * share))
    axis.set(title=f"{1.0 - share:.0%} ring, {share:.0%} cross", xticks=[], yticks=[], aspect="equal")
    axis.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1))
    print(f"{share:4.0%} cross: mean cost {found.cost:.4f}, standard error {found.cost_stderr:.4f}")
figure.savefig("barycenters.png", dpi=120)
plt.show()
