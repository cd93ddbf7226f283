r"""
Color transfer: the colours of one picture for another
======================================================

The colours of a picture are a law on the unit cube. The transport map from the colours of one picture
to those of another,

.. math:: T(x) = \sum_j \chi_j(x)\, y_j ,

gives each pixel a colour of the other picture. Each colour is then used as often as in the other
picture, and light pixels stay light (Rabin, Ferradans, Papadakis, 2014). The atoms are a sample of the
colours of the other picture, the source is the pixels, and
:meth:`~pot_semidiscrete.SemiDiscreteResult.ot_map` maps all of them in blocks.
"""

# %%
# Two photographs that scikit-learn ships, of 273,280 pixels each.

import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_image

from pot_semidiscrete import cost_scale, solve_semidiscrete
from pot_semidiscrete.metrics import transport_cost

pictures = [load_sample_image(f"{name}.jpg").astype(np.float32) / 255.0 for name in ("china", "flower")]
pixels, palette = (picture.reshape(-1, 3) for picture in pictures)
rng = np.random.default_rng(0)
atoms = palette[rng.choice(len(palette), 2000, replace=False)]

# %%
# Solve, and map all pixels. Many pixels of the sky have the same colour, whose mass must go to several
# colours. Without regularisation no map does that, and the solver would not converge.

start = time.perf_counter()
result = solve_semidiscrete(atoms, pixels, reg=0.005 * cost_scale(atoms), tol=0.05, random_state=0)
solved = time.perf_counter()
recoloured = result.ot_map(pixels)
end = time.perf_counter()
print(result)
print(f"{len(pixels):,} pixels, {len(atoms):,} colours: {solved - start:.1f} s to solve, ", end="")
print(f"{end - solved:.1f} s for the map")

# %%
# Does the result have the colours of the other picture? Compare the transport cost between 2,000
# colours of each with the cost between two samples of the other picture, and with a map that only
# matches the means and standard deviations of the channels.


def some(colors, seed):
    """As many colours as there are atoms."""
    return colors[np.random.default_rng(seed).choice(len(colors), 2000, replace=False)]


moments = (pixels - pixels.mean(axis=0)) / pixels.std(axis=0) * palette.std(axis=0) + palette.mean(
    axis=0
)
results = {"as it was": pixels, "means and deviations": moments, "transport": recoloured}
for name, colors in {**results, "the other picture": palette}.items():
    print(f"{name:22}{transport_cost(some(colors, 1), some(palette, 2)):9.5f}")

# %%
# The pictures.

shape = pictures[0].shape
shown = {"the picture": pictures[0], "the colours to have": pictures[1]}
shown |= {name: results[name].reshape(shape) for name in list(results)[1:]}
figure, axes = plt.subplots(2, 2, figsize=(10, 7.2), layout="constrained")
for axis, (name, picture) in zip(axes.flat, shown.items(), strict=True):
    axis.imshow(np.clip(picture, 0.0, 1.0))
    axis.set(title=name, xticks=[], yticks=[])
figure.savefig("color_transfer.png", dpi=120)
plt.show()
