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
options = {"reg": 0.05, "tol": 0.03, "random_state": 0}
solve = lambda reg_m: solve_semidiscrete(data, "normal", reg_m=reg_m, **options)
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

# %%
# A generator learns outliers as all other data, and points between them and the others, too. With a
# price it does not: the same perceptron, trained for as many steps, from the same weights.

import torch

from pot_semidiscrete.generative import train_generator

torch.set_num_threads(1)
target = torch.as_tensor(data, dtype=torch.float32)
figure, axes = plt.subplots(1, 2, figsize=(8.5, 4), layout="constrained", sharex=True, sharey=True)
for ax, reg_m in zip(axes, (None, 1.0), strict=True):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(8, 128), torch.nn.LeakyReLU(0.2), torch.nn.Linear(128, 128)]
    generator = torch.nn.Sequential(*layers, torch.nn.LeakyReLU(0.2), torch.nn.Linear(128, 2))
    train_generator(generator, 8, target, n_steps=1000, reg=0.05, reg_m=reg_m, random_state=0)
    with torch.no_grad():
        points = generator(torch.randn(2000, 8))
    far = (torch.cdist(points, target[:n]).amin(dim=1) > 1.0).float().mean()
    ax.scatter(*data.T, s=10, color="C1")
    ax.scatter(*points.T, s=2, color="C0")
    ax.set(title=f"reg_m = {reg_m}: {far:.1%} far from the spiral", aspect="equal", xticks=[], yticks=[])
    print(f"reg_m = {reg_m}: {far:.1%} of the points are farther than 1 from the spiral")
plt.show()
