r"""
Stippling: a picture drawn by 2,000 points
==========================================

:func:`~pot_semidiscrete.applications.quantize` finds the best atoms for a law: it moves them until the
transport cost is least. With uniform weights each atom stands for the same mass,

.. math:: \min_{y_1, \dots, y_N} \mathrm{OT}_0\Big(\mu, \frac1N \sum_j \delta_{y_j}\Big),

so points are dense where the law is and, unlike random points, nowhere too near to each other. Such
blue noise is used for stippling (Balzer, Schloemer, Deussen, 2009; de Goes, Breeden,
Ostromoukhov, Desbrun, 2012).
"""

# %%
# The law: a point is as likely as the picture, which matplotlib ships, is dark there. A map of the unit
# square gives this law: the first coordinate chooses the row, the second the column. So Sobol points
# can be used, which are far more accurate than random points in the plane.

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import cbook

from pot_semidiscrete.applications import quantize
from pot_semidiscrete.samplers import SobolSampler

with cbook.get_sample_data("grace_hopper.jpg") as file:
    picture = plt.imread(file, format="jpg")[30:430, 110:390].mean(axis=2) / 255.0
darkness = (1.0 - picture) ** 2 + 0.002
height, width = darkness.shape
rows = np.cumsum(darkness.sum(axis=1)) / darkness.sum()
columns = np.cumsum(darkness, axis=1) / darkness.sum(axis=1, keepdims=True)
columns = (columns + np.arange(height)[:, None]).ravel()  # those of row k are in [k, k + 1]


def place(z):
    """Points of the picture, in units of its height, from points of the unit square."""
    row = np.minimum(np.searchsorted(rows, z[:, 0]), height - 1)
    before = np.where(row > 0, rows[row - 1], 0.0)
    inside = (z[:, 0] - before) / (rows[row] - before)
    cell = np.searchsorted(columns, row + z[:, 1]).clip(0, height * width - 1)
    column = cell - row * width + np.random.default_rng(0).random(len(z))
    return np.stack([column, row + inside], axis=1).astype(np.float32) / height


def source(seed):
    """The law of the picture, by Sobol points."""
    return SobolSampler(2, generator=place, type_as=np.zeros(1, np.float32), random_state=seed)


# %%
# The points. They start from random ones.

n_atoms = 2000
start = source(1).independent(n_atoms)
found = quantize(source(0), n_atoms, X_init=start, n_steps=8, n_points=16_384)
high = found.transport.value_interval[1]
print(f"cost of random points {found.history['cost'][0]:.1e}, of the best ones at most {high:.1e} (95%)")

# %%
# The figure, and the distances from each point to its nearest neighbour: those of random points are
# often near 0.


def nearest(points):
    """Distance to the nearest other point, over what it is for points on a grid of that density."""
    gaps = np.sum((points[:, None] - points) ** 2, axis=2) + np.where(np.eye(len(points)), np.inf, 0.0)
    area = picture.size / height**2
    row, column = (np.minimum(points * height, [width - 1, height - 1]).astype(int).T)[::-1]
    density = darkness[row, column] / darkness.mean() * len(points) / area
    return np.sqrt(gaps.min(axis=1) * density)


figure, axes = plt.subplots(2, 2, figsize=(8, 10.8), layout="constrained")
axes[0, 0].imshow(picture, cmap="gray", extent=(0, width / height, 1, 0))
axes[0, 0].set_title("the picture")
for axis, points, title in (
    (axes[0, 1], start, f"{n_atoms:,} random points"),
    (axes[1, 0], found.atoms, f"the best {n_atoms:,} points"),
):
    axis.scatter(*points.T, s=5, color="k", linewidths=0)
    axis.set(title=title, xlim=(0, width / height), ylim=(1, 0), aspect="equal")
for axis in axes.flat[:3]:
    axis.set(xticks=[], yticks=[])
bins = np.linspace(0.0, 1.4, 43)
axes[1, 1].hist(nearest(start), bins, alpha=0.6, color="C1", label="random points")
axes[1, 1].hist(nearest(found.atoms), bins, alpha=0.6, color="C0", label="the best points")
axes[1, 1].set_box_aspect(height / width)
axes[1, 1].set(title="distance to the nearest", xlabel="in units of the local spacing", ylabel="points")
axes[1, 1].legend()
figure.savefig("stippling.png", dpi=120)
plt.show()
