r"""
Ranks and quantiles in the plane
================================

On the line the rank of a point is the share of the data to its left. In the plane transport replaces
left and right. The source is the spherical uniform law, with radius uniform on [0, 1] and uniform
direction; its map T to the data is a quantile function. The image under T of the sphere of radius q is
a contour that contains a share q of the data, whatever their shape. The rank of a point is its
preimage under T, and the norm of the rank says how far out the point is (Chernozhukov, Galichon,
Hallin, Henry, 2017). :class:`~pot_semidiscrete.applications.CenterOutwardRanks` makes them from a
solved problem.
"""

# %%
# The data have the shape of a banana. A small regularisation makes contours smooth.

import matplotlib.pyplot as plt
import numpy as np

from pot_semidiscrete import cost_scale, solve_semidiscrete
from pot_semidiscrete.applications import CenterOutwardRanks

rng = np.random.default_rng(0)


def banana(n):
    """Points on both sides of a parabola."""
    z = rng.normal(size=(n, 2))
    return np.stack([z[:, 0], 0.5 * z[:, 0] ** 2 + 0.5 * z[:, 1]], axis=1)


data, fresh = banana(1000), banana(5000)
reg = 0.001 * cost_scale(data)
result = solve_semidiscrete(data, "spherical", reg=reg, random_state=0)
ranks = CenterOutwardRanks(result, random_state=0)
print(result)

# %%
# Contours should contain their share of fresh points: those whose rank is inside the sphere. Ellipses
# of the covariance with the same shares have their middle where hardly any point is.

levels = np.array([0.25, 0.5, 0.75, 0.9])
inside = 1.0 - ranks.depth(fresh)
mean, covariance = data.mean(axis=0), np.cov(data.T)
squares = lambda x: np.sum((x - mean) @ np.linalg.inv(covariance) * (x - mean), axis=1)
radii = np.quantile(squares(data), levels) ** 0.5
print(" level   held by the contour   held by the ellipse")
for level, radius in zip(levels, radii, strict=True):
    print(f"{level:6.2f}{np.mean(inside <= level):15.3f}{np.mean(squares(fresh) <= radius**2):22.3f}")

# %%
# Left: the contours, and the ellipses. Contours cross between the horns, where no data are. Right: the
# ranks of the fresh points, coloured by the position of the points, left or right. Ranks have the
# spherical uniform law, whatever the law of the data.

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 5), layout="constrained")
left.scatter(*data.T, s=4, color="0.7")
angles = np.linspace(0.0, 2.0 * np.pi, 200)
circle = np.stack([np.cos(angles), np.sin(angles)])
for k, (level, radius) in enumerate(zip(levels, radii, strict=True)):
    color = plt.cm.viridis(0.9 - 0.25 * k)
    ellipse = mean[:, None] + radius * np.linalg.cholesky(covariance) @ circle
    left.plot(*ranks.contour(level).T, color=color, lw=2, label=f"holds {level:.0%}")
    left.plot(*ellipse, color=color, lw=0.8, ls="--")
left.set(title="contours (dashed: ellipses of the covariance)", xlim=(-3.3, 3.3), ylim=(-1.8, 4.8))
left.legend()
dots = right.scatter(*ranks.ranks(fresh).T, s=5, c=fresh[:, 0], cmap="coolwarm", vmin=-2, vmax=2)
for level in levels:
    right.plot(*(level * circle), color="k", lw=0.8)
figure.colorbar(dots, ax=right, label="first coordinate of the point")
right.set(title="ranks of 5,000 fresh points", aspect="equal", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
figure.savefig("ranks.png", dpi=120)
plt.show()
