"""The picture of the start page: cells, shares, pairs."""

import matplotlib.pyplot as plt
import numpy as np

from pot_semidiscrete import cost_scale, solve_semidiscrete

rng = np.random.default_rng(4)
turn = 3.0 * np.pi * np.sqrt(np.linspace(0.02, 1.0, 36))
atoms = 0.16 * turn[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)


def source(n):
    """Uniform points of a square."""
    return rng.uniform(-1.6, 1.6, size=(n, 2))


found = {
    f"cells, reg {100 * share:g}% of the mean cost": solve_semidiscrete(
        atoms, source, reg=share * cost_scale(atoms), random_state=0
    )
    for share in (0.0005, 0.03)
}
ticks = np.linspace(-1.6, 1.6, 400)
places = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
colors = plt.cm.twilight_shifted((np.arange(36) * 11 % 36) / 36)[:, :3]
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.6), layout="constrained")
for axis, (name, result) in zip(axes, found.items(), strict=False):
    image = (result.atom_weights(places) @ colors).reshape(400, 400, 3)
    axis.imshow(image, origin="lower", extent=(-1.6, 1.6, -1.6, 1.6))
    axis.scatter(*atoms.T, s=14, color="w", edgecolors="k")
    axis.set_title(name)
x = source(250)
ends = atoms[next(iter(found.values())).pair(x, random_state=0)]
axes[2].plot(*np.stack([x, ends], axis=1).T, color="0.65", lw=0.7)
axes[2].scatter(*x.T, s=5, color="k")
axes[2].scatter(*atoms.T, s=20, color="C1", zorder=3)
axes[2].set_title("noise paired with data")
for axis in axes:
    axis.set(xticks=[], yticks=[], xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal")
