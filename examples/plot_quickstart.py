r"""
Quickstart: solve, map, check
=============================

Noise is transported to 30 weighted points of the plane, the *atoms*, at the least mean squared
distance. One call solves for one number per atom, the *potential*. The potential gives the cells, the
map and the pairs, and the result says how accurate it is.
"""

import matplotlib.pyplot as plt
import numpy as np

from pot_semidiscrete import cost_scale, solve_semidiscrete
from pot_semidiscrete.plot import plot_cells

# %%
# **Solve.** The source is a function that draws `n` points. The regularisation is 1% of the mean cost
# between two atoms.

rng = np.random.default_rng(0)
atoms, weights = rng.normal(size=(30, 2)), rng.dirichlet(np.full(30, 2.0))
source = lambda n: rng.uniform(-2.0, 2.0, size=(n, 2))
result = solve_semidiscrete(atoms, source, weights, reg=0.01 * cost_scale(atoms), tol=0.05)

# %%
# **Check.** The interval contains the transport cost with 95% confidence. The atoms receive their
# weights up to a relative error of 5%, the tolerance, in the root mean square.

low, high = result.value_interval
print(f"{result.status} after {result.n_samples:,} samples of the source")
print(f"transport cost {result.value:.4f}, between {low:.4f} and {high:.4f} (95%)")
print(f"relative error of the masses: {max(result.chi2, 0.0) ** 0.5:.3f}, measured on fresh samples")

# %%
# **Use.** The map sends a point to the mean of the atoms that share it; a pair is a point with one
# atom. Each place has the colour of its atom: this shows the cells. Lines join 60 points with their
# atoms.

x = source(60)
partners = result.pair(x, random_state=0)
print(f"the map sends {x[0].round(2)} to {result.ot_map(x[:1])[0].round(2)}")

colors = plt.cm.tab20(np.arange(30) % 20)[:, :3]
figure, axis = plt.subplots(figsize=(6, 6), layout="constrained")
plot_cells(result, axis, (-2.0, 2.0, -2.0, 2.0), 0.5 + 0.5 * colors, n_pixels=300)
axis.plot(*np.stack([x, atoms[partners]], axis=1).T, color="k", lw=0.8)
axis.scatter(*x.T, s=12, color="k")
axis.scatter(*atoms.T, s=2500 * weights, c=colors, edgecolors="k", zorder=3)
axis.set(xticks=[], yticks=[], xlim=(-2.5, 2.5), ylim=(-2.5, 2.5))
figure.savefig("quickstart.png", dpi=120)
plt.show()
