"""One run of the solver as a figure: 10,000 atoms in 16 dimensions, in a minute or two.

``python -m benchmarks.algorithm [--n-atoms N] [--figure FILE]`` draws ``doc/_static/algorithm.png``.
"""

import argparse
from pathlib import Path

import numpy as np

import pot_semidiscrete as ps
from pot_semidiscrete.inference.estimates import evaluate
from pot_semidiscrete.optim.semi_dual import SemiDual
from pot_semidiscrete.optim.stopping import ChiSquareRule
from pot_semidiscrete.problem import build_target

TOL, DIMENSION = 0.2, 16
EVERY = 1.41  # times the samples of one measurement, the next one
FIGURE = Path(__file__).parents[1] / "doc/_static/algorithm.png"


class WatchedRule(ChiSquareRule):
    """The solver's rule, which notes the state of the ascent after each batch.

    Attributes
    ----------
    path : list of (float, float, float)
        Samples, regularisation, and the chi2 that is expected of the average.
    measured : list of (float, float)
        Samples, and the chi2 of the average on many other points, at some of the batches.
    """

    def __init__(self, tol, measure):
        super().__init__(tol)
        self.measure, self.path, self.measured = measure, [], []

    def __deepcopy__(self, memo):
        return self  # a run works on a copy, as a rule; this one is to tell what it saw

    def is_due(self, dual, ascent, n_samples, is_last):
        self.path.append((n_samples, ascent.eps, self.expected(dual, ascent)))
        if ascent.samples > 0.0 and (not self.measured or n_samples > EVERY * self.measured[-1][0]):
            self.measured.append((n_samples, self.measure(ascent.average)))
        return super().is_due(dual, ascent, n_samples, is_last)


def watched_run(n_atoms):
    """The rule after a run with normal atoms and a normal source, and the regularisation."""
    rng, fresh = np.random.default_rng(0), np.random.default_rng(1)
    normal = lambda n, rng=rng: rng.standard_normal((n, DIMENSION), dtype=np.float32)
    atoms = normal(n_atoms)
    target, reg = build_target(atoms), 0.01 * float(ps.cost_scale(atoms))

    def measure(potential):
        points = target.center(normal(20_000, fresh))
        return evaluate(SemiDual(target), points, potential, reg).chi2

    rule = WatchedRule(TOL, measure)
    ps.solve_semidiscrete(atoms, normal, reg=reg, tol=rule, max_iter=10**6)
    return rule, reg


def draw(rule, reg, path):
    """The regularisation and chi2 against the samples (needs matplotlib)."""
    import matplotlib.pyplot as plt

    n, eps, expected = np.array(rule.path).T
    looks = np.array([(n[k - 1], chi2, 1.96 * error) for k, chi2, error in rule.history]).T
    style = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 10.5}
    with plt.rc_context(style):
        options = {"height_ratios": (1, 2), "figsize": (8, 5.4), "layout": "tight"}
        figure, (top, low) = plt.subplots(2, sharex=True, **options)
        top.loglog(n, eps / reg, color="C1", lw=2)
        top.set(ylabel=r"$\varepsilon\,/\,\lambda$", ylim=(0.7, 60))
        top.set(yticks=(1, 10), yticklabels=("1", "10"))
        low.loglog(n, expected, color="C0", lw=2, label="chi2 expected of the average")
        label = "the same, measured on other points"
        low.loglog(*np.transpose(rule.measured), "o", mfc="white", color="C0", label=label)
        label = r"law of $n$ samples, $N_{\mathrm{eff}}\,/\,n$"
        low.loglog(n, rule.n_eff / n, "--", color="0.5", label=label)
        low.axhline(TOL**2, color="C3", lw=1.2, ls=":", label=r"tolerance, tol$^2$")
        low.errorbar(*looks, fmt="D", color="C3", capsize=4, label="evaluation, with its 97.5% bound")
        low.set(xlabel="source points n", ylabel="chi2", ylim=(0.012, 5), xlim=(n[0], 1.4 * n[-1]))
        low.legend(frameon=False, loc=(0.0, 0.21), labelspacing=0.35)
        for axis in (top, low):
            axis.axvspan(n[0], n[np.isfinite(expected)][0], color="C1", alpha=0.09, lw=0)
        top.text(300, 1.3, "the regularisation falls", color="C1")
        top.text(4e4, 1.3, "iterates are averaged", color="C0")
        figure.savefig(path, dpi=130)
        plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--n-atoms", type=int, default=10_000)
    parser.add_argument("--figure", metavar="FILE", default=FIGURE)
    args = parser.parse_args()
    draw(*watched_run(args.n_atoms), args.figure)


if __name__ == "__main__":
    main()
