"""Frechet distance of generators of MNIST's digits against the time of their training, as a figure.

``python -m benchmarks.training_curves --mnist FOLDER [--recipe NAME ...] [--seconds 300]
[--marks 10 20 ...] [--atoms 60000] [--ends FILE ...] [--figure FILE] [--json FILE]``

A curve is one run of a recipe of :mod:`benchmarks.training`, with its settings there. The generator is
measured where the clock passes a mark, and the clock stands still meanwhile. The learning rate falls in
the last third of the run, so that a run which ends at a mark is better there than the curve: ``--ends``
takes files of :mod:`benchmarks.training`, whose medians at their ends are drawn beside the curves. A
curve that the file of ``--json`` has, with the same settings, is not made again.
"""

import json
from pathlib import Path

import torch

from pot_semidiscrete.metrics import coverage, frechet_distance, precision_recall

from . import machine
from .training import RECIPES, Run, clock, load, medians

N_IMAGES = 2000
MEASURES = ("frechet", "precision", "recall", "coverage")
MARKS = (10, 20, 30, 45, 60, 90, 120, 150, 180, 210, 240, 270, 300)
STYLES = {
    "ours": ("the default", "C0"),
    "energy": ("critic=False", "C1"),
    "cityblock": ('the same, pair_cost="cityblock"', "C2"),
    "wgan_gp": ("WGAN-GP", "C3"),
}


class Measures:
    """Those that need features only, of a judge's classifier and its held-out images."""

    def __init__(self, judge):
        self.classifier = judge.classifier
        self.features = self.classifier.features(judge.held_out)

    def __call__(self, images):
        """Measures of images."""
        features = self.classifier.features(images)
        found = [
            frechet_distance(features, self.features),
            *precision_recall(features, self.features),
            coverage(features, self.features),
        ]
        return dict(zip(MEASURES, found, strict=True))


class Watched(Run):
    """A run whose generator is measured at marks of the clock.

    Parameters
    ----------
    marks : iterable of float
        Seconds, increasing.
    measures : callable
        Of images, array of shape (n, ...), to a dictionary.
    *facts
        Those of :class:`benchmarks.training.Run`.

    Attributes
    ----------
    curve : list of dict
        Seconds, steps and measures at each mark that was passed.
    """

    def __init__(self, marks, measures, *facts):
        super().__init__(*facts)
        self.marks, self.measures, self.curve = list(marks), measures, []

    def count(self):
        """Count a step of the generator, and measure it at a mark."""
        super().count()
        used = self.used
        if not self.marks or used < self.marks[0]:
            return
        while self.marks and used >= self.marks[0]:
            self.marks.pop(0)
        with torch.random.fork_rng(), torch.no_grad():  # the run goes on as if nobody had looked
            torch.manual_seed(1000 + self.seed)
            found = self.measures(self.generator(self.latent(N_IMAGES)).cpu().numpy())
        self.curve.append({"seconds": used, "steps": self.steps} | found)
        print(f"{used:8.1f} s  " + "  ".join(f"{k} {v:.4g}" for k, v in found.items()), flush=True)
        self.begin = clock(self.images.device) - used


def draw(rows, ends, floor, path):
    """The curves, and medians of runs that ended elsewhere (needs matplotlib)."""
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for row in rows:
        label, color = STYLES.get(row["recipe"], (row["recipe"], "C7"))
        axis.loglog(row["seconds"], row["frechet"], f"{color}.-", lw=1, label=label)
    drawn = {row["recipe"] for row in rows} & STYLES.keys()
    for file in ends:
        found = json.loads(Path(file).read_text())
        for recipe, row in medians(found["rows"]).items():
            if recipe in drawn:
                axis.plot(found["seconds"], row["frechet"], f"{STYLES[recipe][1]}o", mfc="none")
    axis.axhline(floor, color="k", ls="--", lw=1, label="training images")
    ticks = [10, 20, 30, 45, 60, 90, 120, 180, 300]
    axis.set_xticks(ticks, map(str, ticks))
    axis.set_xticks([], minor=True)
    axis.set(xlabel="seconds of one core", ylabel="Frechet distance")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--mnist", metavar="FOLDER", required=True, help="folder with its IDX files")
    parser.add_argument("--recipe", choices=RECIPES, nargs="+", default=list(STYLES))
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--marks", type=float, nargs="+", default=MARKS, help="where to measure")
    parser.add_argument("--atoms", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ends", metavar="FILE", nargs="+", default=(), help="of benchmarks.training")
    parser.add_argument("--figure", metavar="FILE", help="draw the curves (needs matplotlib)")
    args = parser.parse_args()
    torch.set_flush_denormal(True)  # as benchmarks.training
    settings = {name: getattr(args, name) for name in ("seconds", "atoms", "seed")}
    with machine.limit_threads(1):
        facts = {"machine": machine.facts(), **settings}
        known = machine.earlier(args.json)
        same = all(known.get(name) == value for name, value in settings.items())
        rows = known["rows"] if same else []
        done = {row["recipe"] for row in rows}
        images, judge = load(args.mnist, args.atoms)
        measures = Measures(judge)
        facts["floor"] = {name: judge.floor[name] for name in MEASURES}
        for recipe in (name for name in args.recipe if name not in done):
            run = Watched(args.marks, measures, images, args.seconds, args.seed)
            print(recipe, flush=True)
            RECIPES[recipe](run)
            columns = {name: [point[name] for point in run.curve] for name in run.curve[0]}
            rows.append({"recipe": recipe} | columns)
            machine.write(args.json, **facts, rows=rows)
    if args.figure:
        draw(rows, args.ends, facts["floor"]["frechet"], args.figure)


if __name__ == "__main__":
    main()
