r"""
Error bars of a potential and a map
===================================

A potential that is fitted to n points has an error of order :math:`1/\sqrt{n}` with a known law,

.. math::
    \sqrt{n}\, (\psi_n - \psi^*) \to \mathcal{N}(0, A^+ \Sigma A^+), \qquad
    A = -\nabla^2 H(\psi^*), \quad \Sigma = \mathrm{Cov}\, \chi(X)

(Bercu and Bigot, 2021). :class:`~pot_semidiscrete.applications.ErrorBars` estimates both matrices, and
has the standard errors of the potential, of the map, and of any integral under the plan. They are
compared with the truth on the line, over 100 runs. A result has standard errors of its own, by points
that it kept: ``result.potential_stderr``, ``result.map_stderr(x)``, ``result.functional(f)``.
"""

# %%
# The problem, and its solution by quadrature and Newton's method.

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from pot_semidiscrete import (
    cost_scale,
    semidiscrete_atom_weights,
    semidiscrete_ot_map,
    solve_semidiscrete,
)
from pot_semidiscrete.applications import ErrorBars

atoms = np.sort(np.random.default_rng(0).normal(size=(20, 1)), axis=0)
reg = 0.05 * cost_scale(atoms)
t, w = np.polynomial.legendre.leggauss(1000)
nodes, mass = 8.0 * t[:, None], w * stats.norm.pdf(8.0 * t)
mass = mass / mass.sum()
result = solve_semidiscrete(atoms, "normal", reg=reg, random_state=0)
truth = result.potential
for _ in range(30):
    chi = semidiscrete_atom_weights(atoms, nodes, truth, reg=reg)
    marginal, products = mass @ chi, (chi * mass[:, None]).T @ chi
    hessian = (np.diag(marginal) - products) / reg
    truth = truth + np.linalg.lstsq(hessian, 1.0 / len(atoms) - marginal, rcond=1e-12)[0]
truth = truth - truth.mean()
print(f"largest relative error of a mass {abs(20.0 * marginal - 1.0).max():.0e}")

# %%
# Each run has 4,000 fresh points. Bars of 1.96 standard errors should contain the truth in 95% of the
# runs.

squares = lambda x, y: (x - y.T) ** 2
cost, x = mass @ (chi * squares(nodes, atoms)).sum(axis=1), np.linspace(-2.5, 2.5, 101)[:, None]
images = semidiscrete_ot_map(atoms, x, truth, reg=reg)
held = {"potential": [], "map": [], "cost": []}
for seed in range(100):
    fresh = np.random.default_rng([seed, 1]).normal(size=(4000, 1))
    bars = ErrorBars(result, fresh, random_state=seed)
    held["potential"].append(abs(bars.potential - truth) < 1.96 * bars.potential_stderr)
    held["map"].append(abs(bars.ot_map(x) - images) < 1.96 * bars.map_stderr(x))
    estimate, stderr = bars.functional(squares)
    held["cost"].append(abs(estimate - cost) < 1.96 * stderr)
for name, values in held.items():
    print(f"bars of the {name} that hold the truth: {np.mean(values):.1%}")

# %%
# ``python -m benchmarks.error_bars --seeds 1000`` does so for 1,000 runs, and with ``--dimensions 2
# --shares 0.2 0.05 0.02 0`` in the plane. Its shares are, for 20 atoms: of the potential, the mean over
# atoms and the worst; of the map; and of the cost. ``reg`` is in units of the mean cost. *Result* is of
# the members of a result that stopped at the default ``tol``. Its bars are wider than need be, for the
# potential is compared with hardly more points than its own.
#
# =====  =====  ============  =====  =====  ============  =====
# law    reg    potential,    map    cost   potential,    map
#               ErrorBars                   result
# =====  =====  ============  =====  =====  ============  =====
# line   0.2    0.951, 0.941  0.959  0.942  0.995, 0.989  0.997
# line   0.02   0.951, 0.938  0.969  0.942  0.992, 0.986  0.994
# line   0      0.949, 0.939  0.996  0.942  0.985, 0.980  0.999
# plane  0.2    0.955, 0.946  0.961  0.955  0.995, 0.990  0.995
# plane  0.02   0.958, 0.950  0.976  0.951  0.994, 0.989  0.998
# plane  0      0.963, 0.953  1.000  0.951  0.991, 0.986  1.000
# =====  =====  ============  =====  =====  ============  =====
#
# At 0 the map jumps between cells, and bars near a boundary hold the jump.

# %%
# The last run, with its error bars.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
options = {"fmt": "o", "ms": 3, "lw": 1, "capsize": 2}
deviation = bars.potential - truth
left.errorbar(atoms[:, 0], deviation, 1.96 * bars.potential_stderr, **options)
left.axhline(0.0, color="k", lw=0.8)
left.set(title="potential, less the truth", xlabel="atom", ylabel="in units of the cost")
centre, error = bars.ot_map(x)[:, 0], 1.96 * bars.map_stderr(x)[:, 0]
right.fill_between(x[:, 0], centre - error - images[:, 0], centre + error - images[:, 0], alpha=0.3)
right.plot(x, centre[:, None] - images, label="map, less the truth")
right.axhline(0.0, color="k", lw=0.8)
right.set(title="map, less the truth", xlabel="point of the source", ylabel="in units of the atoms")
figure.savefig("error_bars.png", dpi=120)
plt.show()
