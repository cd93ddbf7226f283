r"""
Plot cells: what the regularisation changes
===========================================

At :math:`\lambda = 0` each point of the source goes to one atom; the points of one atom are its Laguerre
cell. With :math:`\lambda > 0` the atoms share a point, by :math:`\chi_j(x)`, and the cells
overlap. This makes the gradient of a generator exist. It also favours points between the atoms,
so the best generator has less variance than the data. The Sinkhorn divergence,
``debias=True``, removes that bias.
"""

# %%
# Cells of twelve atoms of unequal weights, with the uniform law on the square as the source. Each place
# has the colours of the atoms, mixed by the shares that it sends to them. Each atom receives its weight
# at every :math:`\lambda`. At :math:`\lambda = 0` the weight is the area of its cell, which need not
# contain the atom.

import matplotlib.pyplot as plt
import numpy as np
import torch

from pot_semidiscrete import cost_scale, solve_semidiscrete
from pot_semidiscrete.generative import SemiDiscreteLoss, train_generator
from pot_semidiscrete.plot import plot_cells
from pot_semidiscrete.samplers import SobolSampler

torch.set_num_threads(1)
rng = np.random.default_rng(3)
atoms = rng.random((12, 2))
weights = rng.dirichlet(np.full(12, 2.0))
colors = plt.cm.tab20(np.linspace(0.0, 1.0, 12))[:, :3]
ticks = (np.arange(200) + 0.5) / 200.0
places = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
shares = (0.0, 0.01, 0.1, 1.0)
figure, axes = plt.subplots(1, 4, figsize=(12, 3.3), layout="constrained")
print("   reg   largest error of a mass   mean of the largest share of a place")
for axis, share in zip(axes, shares, strict=True):
    reg = share * cost_scale(atoms, weights)
    source = SobolSampler(2, random_state=0)
    result = solve_semidiscrete(atoms, source, weights, reg=reg, tol=0.02, random_state=0)
    chi = result.atom_weights(places)
    error = np.abs(chi.mean(axis=0) - weights).max()
    print(f"{share:6.0%}{error:20.4f}{chi.max(axis=1).mean():30.2f}")
    plot_cells(result, axis, colors=colors)
    axis.scatter(*atoms.T, s=600 * weights, c=0.7 * colors, edgecolors="k")
    title = "reg 0" if share == 0 else f"reg {share:.0%} of the mean cost"
    axis.set(title=title, xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
figure.savefig("cells.png", dpi=120)

# %%
# A generator: a linear map of normal noise, trained to normal data of variances 1 and 0.25 with a large
# regularisation. In theory its variances become :math:`v - \lambda/2`, and those of the data with the
# divergence.

torch.manual_seed(0)
data = torch.randn(2000, 2) * torch.tensor([1.0, 0.5])
variances = data.var(dim=0).numpy()
reg = 0.4
points = {}
print(f"variances of the data    {variances.round(2)}")
print(f"less half of reg = {reg}   {(variances - reg / 2.0).round(2)}")
for debias in (False, True):
    torch.manual_seed(1)
    loss = SemiDiscreteLoss(data, reg=reg, debias=debias)
    run = train_generator(torch.nn.Linear(2, 2), 2, loss, n_steps=600, random_state=0)
    with torch.no_grad():
        points[debias] = run.generator(torch.randn(2000, 2)).numpy()
    print(f"debias={debias!s:17} {points[debias].var(axis=0).round(2)}")

figure, axes = plt.subplots(1, 3, figsize=(10, 2.4), sharex=True, sharey=True, layout="constrained")
clouds = {"data": data.numpy(), "debias=False": points[False], "debias=True": points[True]}
for axis, (name, cloud) in zip(axes, clouds.items(), strict=True):
    axis.scatter(*cloud.T, s=3)
    axis.set(title=name, aspect="equal", xlim=(-3.5, 3.5), ylim=(-2, 2))
figure.savefig("debias.png", dpi=120)
plt.show()
