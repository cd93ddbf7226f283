r"""
The gradient may not exist
==========================

WGAN training follows formula (G), the gradient of the transport cost :math:`W_\lambda` in the
parameters of a generator,

.. math:: \nabla W_\lambda(\theta) = \mathbb{E}\Big[ \big(\partial_\theta g(\theta, Z)\big)^{\!\top}
          \nabla \psi^{c,\lambda}\big(g(\theta, Z)\big) \Big].

At :math:`\lambda = 0` it can fail in two ways (Houdard, Leclaire, Papadakis and
Rabin, arXiv:2102.05542): the cost has a kink, or the cost is smooth but the formula has no value,
because mass lies on the boundary of Laguerre cells. Any :math:`\lambda > 0` removes both problems. The
last part trains a segment towards four atoms, which never settles at :math:`\lambda = 0`.
"""

# %%
# Two counterexamples. On the left, two points :math:`\pm(\theta, 1)` and the atoms
# :math:`(\pm 1, 0)`; on the right, one point :math:`\theta` of the line and the atoms :math:`\pm 1`.

import matplotlib.pyplot as plt
import numpy as np

from pot_semidiscrete import (
    cost_scale,
    generator_gradient,
    gradient_diagnostics,
    one_sided_derivatives,
    semidiscrete_atom_weights,
    solve_semidiscrete,
)

signs, zero = np.array([1.0, -1.0]), np.zeros(1)
kinked = {
    "generator": lambda theta, z: np.stack([theta * z, z], axis=1),
    "z": signs,
    "X_target": np.array([[1.0, 0.0], [-1.0, 0.0]]),
    "vjp": lambda theta, z, c: np.atleast_1d(c[:, 0] @ z),
}
smooth = {
    "generator": lambda theta, z: z + theta,
    "z": np.zeros((1, 1)),
    "X_target": np.array([[1.0], [-1.0]]),
    "vjp": lambda theta, z, c: c.sum(axis=0),
}


def law(case):
    """The same without what formula (G) alone needs."""
    return {name: value for name, value in case.items() if name != "vjp"}


def formula(case, theta, potential, reg):
    """Value and derivative that a potential gives."""
    theta = np.array([theta])
    value, slope = generator_gradient(theta=theta, semi_dual_potential=potential, reg=reg, **case)
    return float(value), float(slope[0])


# %%
# What ``gradient_diagnostics`` says at these points, with an optimal potential.

theta = 0.37
tie = np.array([-2.0 * theta, 2.0 * theta])  # every optimal potential of the second case ties
bad = {"kink": (kinked, 0.0, np.zeros(2)), "no value": (smooth, theta, tie)}
for name, (case, at, potential) in bad.items():
    points = case["generator"](np.array([at]), case["z"])
    print(f"--- {name}\n{gradient_diagnostics(case['X_target'], points, potential)}")
    for reg in (0.0, 0.1):
        found = one_sided_derivatives(theta=np.array([at]), direction=np.ones(1), reg=reg, **law(case))
        print(f"reg {reg}: left {found.left:+.4f}, right {found.right:+.4f}, kink: {found.kink}")
print("(G) of the second case on either side of the tie:")
for side in (-1e-9, 1e-9):
    print(f"  reg 0.0: {formula(smooth, theta, tie + [side, 0.0], 0.0)[1]:+.4f}")
print(f"  reg 0.1: {formula(smooth, theta, tie, 0.1)[1]:+.4f}, which is 2 theta")

# %%
# The cost and its derivative. On the left, the potential 0 is optimal for every :math:`\theta` by
# symmetry. On the right, the derivative is that of the formula with a fixed potential, the one of
# :math:`\theta = 0`, as in a training step: it jumps at the boundary.

grid = np.linspace(-1.5, 1.5, 301)
figure, axes = plt.subplots(2, 2, figsize=(9, 6), layout="constrained", sharex=True)
for reg, color in ((0.0, "k"), (0.1, "C0"), (0.5, "C1"), (2.0, "C2")):
    label = f"reg = {reg:g}"
    left = np.array([formula(kinked, t, np.zeros(2), reg) for t in grid])
    right = np.array([formula(smooth, t, np.zeros(2), reg) for t in grid])
    cost = [formula(smooth, t, np.array([-2.0 * t, 2.0 * t]), reg)[0] for t in grid]
    for column, (values, slopes) in enumerate(((left[:, 0], left[:, 1]), (cost, right[:, 1]))):
        slopes = np.where(np.abs(np.diff(slopes, prepend=slopes[0])) > 1.0, np.nan, slopes)
        axes[0, column].plot(grid, values, color=color, label=label)
        axes[1, column].plot(grid, slopes, color=color)
axes[1, 1].plot(grid, 2.0 * grid, "k:", label="derivative of the cost")
axes[0, 0].set(title="the cost has a kink", ylabel="transport cost")
axes[0, 1].set(title="the cost is smooth, and the same for all reg")
axes[1, 0].set(xlabel="theta", ylabel="formula (G)")
axes[1, 1].set(xlabel="theta", title="the formula, its potential that of theta = 0")
axes[0, 0].legend()
axes[1, 1].legend()
for axis in axes.flat:
    axis.grid(alpha=0.3)
figure.savefig("gradient_may_not_exist.png", dpi=120)

# %%
# Training. The segment is :math:`g(\theta, z) = (\theta_1, \theta_2) + z\, (0, 2)` with :math:`z`
# uniform on :math:`[-1/2, 1/2]`, and the four atoms are the corners of a rectangle. The cost is lowest
# with the segment in the middle. Each step solves for the potential on fresh points, then moves
# :math:`\theta` along (G).

atoms = np.array([[-1.0, -0.5], [1.0, -0.5], [-1.0, 0.5], [1.0, 0.5]])
start, n_steps, rate = np.array([0.9, 0.8]), 30, 0.15
along = np.array([[0.0, 2.0]])


def segment(theta, z):
    """Points of the segment whose middle is theta."""
    return theta + z[:, None] * along


def descend(reg):
    """Path of theta, potentials on the way, and the last diagnosis."""
    rng = np.random.default_rng(0)
    draw = lambda n: rng.random(n) - 0.5
    theta, psi, path, potentials = start, None, [start], []
    for _ in range(n_steps):
        source = lambda n, theta=theta: segment(theta, draw(n))
        result = solve_semidiscrete(
            atoms, source, reg=reg, tol=0, max_iter=20, batch_size=50, init_potential=psi
        )
        psi = result.potential
        vjp = lambda theta, z, c: c.sum(axis=0)
        _, slope = generator_gradient(segment, theta, draw(200), atoms, psi, reg=reg, vjp=vjp)
        theta = theta - rate * slope
        path.append(theta)
        potentials.append(psi)
    return np.array(path), np.array(potentials), result.diagnose(source(2000))


regs = {"reg = 0": 0.0, "reg = 10% of the cost scale": 0.1 * float(cost_scale(atoms))}
runs = {name: descend(reg) for name, reg in regs.items()}
for name, (path, _, found) in runs.items():
    place = np.abs(path[-20:, 0])
    print(
        f"--- {name}: {place.mean():.3f} from the middle in the last 20 steps, at most {place.max():.3f}"
    )
    print(found)

# %%
# The training in frames. Each place of the plane has the colours of the atoms, mixed by the shares that
# it sends to them: plain in the Laguerre cells at :math:`\lambda = 0`, mixed for :math:`\lambda > 0`.
# The black bar is the segment before the step, the arrow is the step. At :math:`\lambda = 0` every
# optimal potential puts the whole segment on a boundary, and chance decides the side and so the step: it
# never settles. With :math:`\lambda > 0` it settles in the middle.

frames = (0, 1, 2, 4, 8, n_steps - 2, n_steps - 1)
colors = np.array([[0.55, 0.75, 1.0], [1.0, 0.75, 0.5], [0.6, 0.9, 0.65], [1.0, 0.65, 0.75]])
extent = 2.0
ticks = np.linspace(-extent, extent, 151)
places = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
figure, axes = plt.subplots(2, len(frames), figsize=(2 * len(frames), 4.6), layout="constrained")
for row, (name, (path, potentials, _)) in zip(axes, runs.items(), strict=True):
    for axis, k in zip(row, frames, strict=True):
        shares = semidiscrete_atom_weights(atoms, places, potentials[k], reg=regs[name])
        image = (shares @ colors).reshape(len(ticks), len(ticks), 3)
        axis.imshow(image, origin="lower", extent=2 * [-extent, extent])
        axis.scatter(*atoms.T, c=0.7 * colors, s=40, edgecolors="k", zorder=3)
        axis.plot(*segment(path[k], np.array([-0.5, 0.5])).T, "k", lw=3)
        axis.annotate("", path[k + 1], path[k], arrowprops={"arrowstyle": "->", "lw": 1.5})
        limits = (-extent, extent)
        axis.set(xticks=[], yticks=[], xlim=limits, ylim=limits, title=f"step {k}")
    row[0].set_ylabel(name)
figure.savefig("segment_in_frames.png", dpi=120)

# %%
# The position of the segment between the atoms, 0 being the middle, step by step.

figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
for name, (path, _, _) in runs.items():
    axis.plot(path[:, 0], "o-", ms=3, label=name)
axis.axhline(0.0, color="0.5", lw=0.5)
axis.set(xlabel="step", ylabel="first coordinate")
axis.legend()
figure.savefig("segment_path.png", dpi=120)
plt.show()
