r"""
Outliers: masses at a price
===========================

Transport to data sends mass to each data point, also to an outlier, however far it is. With `reg_m`
the masses m of the atoms may differ from the weights b, at the price
:math:`\mathrm{reg\_m} \cdot \mathrm{KL}(m \,|\, b)`. It is paid where transport would cost more. This
is unbalanced transport, relaxed on the side of the data alone: the source keeps its law. In POT it is
``reg_m=(inf, reg_m)``.
"""

# %%
# The data are on a spiral, and one in twenty is far away. A normal law is transported to them.

import matplotlib.pyplot as plt
import numpy as np

from pot_semidiscrete import solve_semidiscrete

rng = np.random.default_rng(0)
n, n_outliers = 400, 20
angle = np.sqrt(rng.random(n)) * 3.0 * np.pi
spiral = 0.22 * angle[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
spiral += 0.05 * rng.normal(size=spiral.shape)
direction = rng.normal(size=(n_outliers, 2))
outliers = (
    rng.uniform(6.0, 8.0, (n_outliers, 1)) * direction / np.linalg.norm(direction, axis=1)[:, None]
)
data = np.concatenate([spiral, outliers])
solve = lambda reg_m: solve_semidiscrete(data, "normal", reg=0.05, reg_m=reg_m, random_state=0)
balanced, relaxed = solve(None), solve(1.0)

# %%
# The price has the units of the cost, here a squared length. At the optimum the mass of an atom is its
# weight times :math:`e^{-\psi / \mathrm{reg\_m}}`. The potential :math:`\psi` of an outlier is about
# the extra cost of reaching it. As the price rises, masses tend to the weights. As it falls, good data
# also lose mass, to those that are nearest to the source.

prices = np.geomspace(100.0, 0.1, 7)
shares, spreads = [], []
print(" reg_m   mass of the outliers   relative spread of the other masses   cost (95%)")
for price in prices:
    result = solve(price)
    mass = result.marginal_b
    shares.append(mass[n:].sum())
    spreads.append(mass[:n].std() / mass[:n].mean())
    low, high = result.value_interval
    print(f"{price:6.3g}{shares[-1]:23.4f}{spreads[-1]:38.2f}     {low:.3f} to {high:.3f}")

# %%
# Left: where a thousand points of the normal law go if all masses are the weights; one in twenty goes
# far, to an outlier. Middle: the same with a `reg_m` of 1. Right: the masses for each price.

x = rng.normal(size=(1000, 2))
figure, axes = plt.subplots(1, 3, figsize=(12.5, 4), layout="constrained")
for ax, plan, title in zip(
    axes, (balanced, relaxed), ("masses are the weights", "reg_m = 1"), strict=False
):
    y = data[plan.pair(x, random_state=0)]
    ax.plot(*np.stack([x, y], axis=1).T, color="0.8", lw=0.4, zorder=0)
    ax.scatter(*x.T, s=3, color="C0")
    ax.scatter(*data.T, s=10, color="C1")
    share = plan.marginal_b[n:].sum()
    ax.set(title=f"{title}: {share:.2%} to outliers", aspect="equal", xticks=[], yticks=[])
right = axes[2]
right.loglog(prices, shares, "o-", color="C3", label="mass of the outliers")
right.loglog(prices, spreads, "s-", color="C2", label="relative spread of the other masses")
right.axhline(n_outliers / len(data), color="0.6", lw=1, ls="--", label="weight of the outliers")
right.set(xlabel="reg_m", ylim=(1e-5, 10.0))
right.legend(frameon=False, fontsize=9)
plt.show()
