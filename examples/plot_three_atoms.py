r"""
A segment and three atoms
=========================

The synthetic experiment of Houdard, Leclaire, Papadakis and Rabin (arXiv:2102.05542), with the settings
of their published scripts: three atoms in the plane, and an affine generator of a uniform number, whose
image is a segment. Before each step of the generator, by Adam, the potential takes ten steps along its
normalised gradient, on fresh batches of 200 points.

Without regularisation the best segment is oblique, and its mirror image is as good; at
:math:`\lambda = 0.1` the best one is horizontal. Each point of the segment moves towards the atom of
its cell, or towards several. But with steps of constant length the potential
never settles, and the segment sways with it; less so at a large :math:`\lambda`, which makes boundaries
wide. The package's :func:`~pot_semidiscrete.train_parameters` follows the same gradient with as many
points, but averages the potential: it settles at the minimum.
"""

# %%
# The atoms, the segment :math:`g(\theta, z) = \theta_1 + z\, \theta_2` with :math:`z` uniform on
# :math:`[-1, 1]`, and where it starts. The cost is the squared distance over the mean squared norm of
# the atoms, as in the scripts, whose generator has two linear layers and starts at random.

import matplotlib.pyplot as plt
import numpy as np
import ot

from pot_semidiscrete import generator_gradient, semidiscrete_atom_weights, train_parameters
from pot_semidiscrete.metrics import transport_cost

n_steps, seed, output = 1500, 0, "three_atoms.png"  # 5,000 steps in the paper
# sphinx_gallery_start_ignore
# on the command line the same are options; the page leaves them out
import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=n_steps, help="steps of each generator")
parser.add_argument("--seed", type=int, default=seed)
parser.add_argument("--output", default=output, help="where to save the figure")
args = parser.parse_args()
n_steps, seed, output = args.steps, args.seed, args.output
# sphinx_gallery_end_ignore

atoms = np.array([[0.0, 0.3], [0.0, 0.7], [0.5**0.5, 0.5]])
atoms /= np.sqrt(np.mean(np.sum(atoms**2, axis=1)))  # costs are then in units of the mean squared norm
b = np.full(3, 1.0 / 3.0)
start = np.array([[0.8, 0.9], [0.1, -0.2]])
batch_size, dual_steps, rate = 200, 10, 5.0 / n_steps  # 1e-3 with the steps of the paper


def segment(theta, z):
    """Points of the segment."""
    return theta[0] + z * theta[1]


def vjp(theta, z, cotangent):
    """Product of a cotangent with the derivative of the segment in theta."""
    return np.stack([cotangent.sum(axis=0), z[:, 0] @ cotangent])


# %%
# The authors' alternation. Their optimiser of the potential is ``torch.optim.ASGD(lr=0.1, alpha=0.5,
# t0=1)``, made anew for each step of the generator; its average is not used. Step k has the length
# :math:`0.1\, (1 + 10^{-5} k)^{-1/2}`, and the potential first shrinks by 1e-4 times that length.


def masses(x, psi, reg):
    """What the atoms receive of the points: the mean of the assignment weights."""
    scores = psi + 2.0 * x @ atoms.T - np.sum(atoms**2, axis=1)
    if reg == 0.0:
        return np.bincount(scores.argmax(axis=1), minlength=3) / len(x)
    weights = np.exp((scores - scores.max(axis=1, keepdims=True)) / reg)
    return np.mean(weights / weights.sum(axis=1, keepdims=True), axis=0)


def authors(latent, reg):
    """Path of theta, and the last potential."""
    theta, psi, path = start.copy(), np.zeros(3), []
    mean = square = np.zeros_like(theta)
    for step in range(1, n_steps + 1):
        for k in range(dual_steps):
            length = 0.1 / np.sqrt(1.0 + 1e-5 * k)
            ascent = b - masses(segment(theta, latent(batch_size)), psi, reg)
            psi = (1.0 - 1e-4 * length) * psi + length * ascent / max(np.linalg.norm(ascent), 1e-12)
        z = latent(batch_size)
        _, slope = generator_gradient(segment, theta, z, atoms, psi, reg=reg, vjp=vjp)
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        scale = np.sqrt(square / (1.0 - 0.999**step)) + 1e-8
        theta = theta - rate * mean / (1.0 - 0.9**step) / scale
        path.append(theta)
    return np.array(path), psi


def ours(latent, reg):
    """The same."""
    path = []
    result = train_parameters(
        segment,
        start,
        latent,
        atoms,
        vjp=vjp,
        reg=reg,
        n_steps=n_steps,
        dual_steps=dual_steps,
        batch_size=batch_size,
        learning_rate=rate,
        callback=lambda step, theta, loss: path.append(theta),
    )
    return np.array(path), result.potential


# %%
# The runs. ``W_reg`` is the transport cost at the last step, ``W_0`` without regularisation, and ``mean
# W_0`` that in the last tenth of the steps, where the ends of the segment move by ``sway``, a standard
# deviation.

z = np.linspace(-1.0, 1.0, 1001)[:, None]
ends = np.array([[-1.0], [1.0]])
regs, rules = (0.0, 0.01, 0.1), {"authors": authors, "train_parameters": ours}
cost = lambda theta: transport_cost(segment(theta, z), atoms)


def regularised(theta, reg):
    """Transport cost at `reg`."""
    costs = ot.dist(segment(theta, z), atoms)
    return cost(theta) if reg == 0.0 else ot.solve(costs, reg=reg, reg_type="KL", max_iter=5000).value


runs, rows = {}, []
print(f"{'':18}{'reg':>6}{'W_reg':>9}{'W_0':>9}{'mean W_0':>10}{'sway':>9}")
for reg in regs:
    for name, rule in rules.items():
        rng = np.random.default_rng(seed)
        path, psi = rule(lambda n, rng=rng: rng.uniform(-1.0, 1.0, size=(n, 1)), reg)
        last = path[-len(path) // 10 :]
        moves = np.array([segment(theta, ends) for theta in last]).std(axis=0)
        row = {"rule": name, "reg": reg, "cost": cost(path[-1]), "sway": float(np.linalg.norm(moves))}
        row["mean_cost"] = float(np.mean([cost(theta) for theta in last[:: -(-len(last) // 20)]]))
        row["regularised"] = float(regularised(path[-1], reg))
        rows.append(row)
        runs[name, reg] = path, psi
        costs = f"{row['regularised']:9.4f}{row['cost']:9.4f}{row['mean_cost']:10.4f}"
        print(f"{name:18}{reg:6g}{costs}{row['sway']:9.4f}")

# %%
# Paths and cells. The black bar is the segment at the end. The paths of its ends are grey, and red in
# the last tenth of the steps. Each place has the colours of the atoms, mixed by the shares that it
# sends to them: plain in the Laguerre cells at :math:`\lambda = 0`. Below: the height of one end, step
# by step.

colors = np.array([[0.55, 0.75, 1.0], [1.0, 0.75, 0.5], [0.6, 0.9, 0.65]])
box = np.array([-0.7, 1.4, -0.1, 1.6])
ticks = [np.linspace(*side, 151) for side in (box[:2], box[2:])]
places = np.stack(np.meshgrid(*ticks), axis=-1).reshape(-1, 2)
figure, axes = plt.subplots(3, len(regs), figsize=(3.4 * len(regs), 8.2), layout="constrained")
for column, reg in enumerate(regs):
    for row, name in enumerate(rules):
        (path, psi), axis = runs[name, reg], axes[row, column]
        shares = semidiscrete_atom_weights(atoms, places, psi, reg=reg)
        axis.imshow((shares @ colors).reshape(151, 151, 3), origin="lower", extent=box, aspect="equal")
        left, right = (path[:, 0] + end * path[:, 1] for end in ends)
        for way in (left, right):
            axis.plot(*way.T, color="0.35", lw=0.7)
            axis.plot(*way[-len(path) // 10 :].T, color="C3", lw=1.0)
        axis.plot(*segment(path[-1], ends).T, "k", lw=2.5)
        axis.scatter(*atoms.T, c=0.7 * colors, s=45, edgecolors="k", zorder=3)
        axis.set(xticks=[], yticks=[], xlim=box[:2], ylim=box[2:], title=f"{name}, reg {reg:g}")
        axes[2, column].plot(right[:, 1], lw=0.8, label=name)
    axes[2, column].set(xlabel="step of the generator", ylim=(0.5, 1.0))
axes[2, 0].set_ylabel("height of an end")
axes[2, -1].legend()
figure.savefig(output, dpi=120)
plt.show()
