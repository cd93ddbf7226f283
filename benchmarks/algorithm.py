"""One run of the solver as a figure: 10,000 atoms in 16 dimensions, in about 15 seconds.

``python -m benchmarks.algorithm`` draws ``doc/_static/algorithm.png``.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from pot_semidiscrete import cost_scale
from pot_semidiscrete.inference.estimates import evaluate
from pot_semidiscrete.optim.semi_dual import SemiDual
from pot_semidiscrete.problem import build_target
from pot_semidiscrete.runs import Progress
from pot_semidiscrete.samplers.draws import Draws
from pot_semidiscrete.samplers.laws import CallableSampler
from pot_semidiscrete.solve import Solver

TOL, SIZE, rng, fresh = 0.2, (10_000, 16), np.random.default_rng(0), np.random.default_rng(1)
normal = lambda n, rng=rng: rng.standard_normal((n, SIZE[1]), dtype=np.float32)
target = build_target(normal(SIZE[0]))
reg, draw = 0.01 * float(cost_scale(target.atoms)), Draws(CallableSampler(normal), target)
solver = Solver(target, draw, reg, TOL, 10**6, 256, 2**28, 0.0, 0.0)
path, true, others = [], [], Draws(CallableSampler(lambda n: normal(n, fresh)), target)


def note(_):
    """After each batch where the ascent is, and at times its true chi2, on many other points."""
    path.append(
        (solver.n_used, solver.ascent.eps / reg, solver.rule.expected(solver.dual, solver.ascent))
    )
    if solver.ascent.samples > 0.0 and (not true or solver.n_used > 1.41 * true[-1][0]):
        found = evaluate(SemiDual(target), others(20_000), solver.ascent.average, reg)
        true.append((solver.n_used, found.chi2))


solver.run(note, Progress(False, 1, ""))
n, eps, expected = np.array(path).T
looks = np.array([(n[int(k) - 1], chi2, 1.96 * error) for k, chi2, error in solver.rule.history]).T
plt.rcParams |= {"axes.spines.top": False, "axes.spines.right": False, "font.size": 10.5}
figure, (top, low) = plt.subplots(2, sharex=True, height_ratios=(1, 2), figsize=(8, 5.4), layout="tight")
top.loglog(n, eps, color="C1", lw=2)
top.set(ylabel=r"$\varepsilon\,/\,\lambda$", ylim=(0.7, 60), yticks=(1, 10), yticklabels=("1", "10"))
low.loglog(n, expected, color="C0", lw=2, label="chi2 expected of the average")
low.loglog(*np.transpose(true), "o", mfc="white", color="C0", label="the same, measured on other points")
low.loglog(
    n, solver.rule.n_eff / n, "--", color="0.5", label=r"law of $n$ samples, $N_{\mathrm{eff}}\,/\,n$"
)
low.axhline(TOL**2, color="C3", lw=1.2, ls=":", label=r"tolerance, tol$^2$")
low.errorbar(*looks, fmt="D", color="C3", capsize=4, label="look, with its 97.5% bound")
low.set(xlabel="source points n", ylabel="chi2", ylim=(0.012, 5), xlim=(n[0], 1.4 * n[-1]))
low.legend(frameon=False, loc=(0.0, 0.21), labelspacing=0.35)
for axis in (top, low):
    axis.axvspan(n[0], n[np.isfinite(expected)][0], color="C1", alpha=0.09, lw=0)
top.text(300, 1.3, "the regularisation falls", color="C1")
top.text(4e4, 1.3, "iterates are averaged", color="C0")
figure.savefig(Path(__file__).parents[1] / "doc/_static/algorithm.png", dpi=130)
