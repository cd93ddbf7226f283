"""The experiments of the paper, beside this package: tables and figures, by one command.

``python -m benchmarks.paper --mnist FOLDER [--share 0.1] [--experiment NAME ...] [--atoms N]
[--generators MLP DCGAN] [--regs ...] [--seed 0] [--device cuda] [--json FILE] [--figures FOLDER]``

- ``three_atoms``: a segment and three atoms in the plane (``examples/plot_three_atoms.py``).
- ``fixed_batch``, ``fresh_batches``: the dual alone (``fixed_batch.py``).
- ``sweep``, ``parts``, ``wgans``: generators of digits (``images.py``).

The settings are those of the scripts that the authors published. ``--share`` is that of the steps,
``--atoms`` takes so many images at random instead of all. A run that the file of ``--json`` has, with
the same settings, is not made again, so that the command may be stopped and repeated; runs of an
experiment with other settings are replaced. One thread unless told; seconds are those of the process,
with ``--device`` those of a clock. Points are measured on the CPU, and ``three_atoms`` runs there.
"""

import contextlib
import functools
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from pot_semidiscrete.datasets import load_mnist, load_mnist_labels
from pot_semidiscrete.metrics import Classifier, Judge
from pot_semidiscrete.runs import Progress

from .. import gallery, machine
from . import fixed_batch, images, report

N_HELD_OUT = 1000
DIGITS = 6  # of what is written: values of the dual are compared
SEGMENT_STEPS = 5000


class Settings:
    """What the runs are made with."""

    def __init__(self, args):
        self.share, self.seed, self.figures = args.share, args.seed, args.figures
        self.generators, self.regs = args.generators, args.regs
        self.folder, self.n_atoms = args.mnist, args.atoms
        self.device = torch.device(args.device)

    def steps(self, n):
        """The share of so many steps."""
        return max(1, round(self.share * n))

    @functools.cached_property
    def data(self):
        """Images to train with, and the judge of those that were generated."""
        (train, test), (labels, _) = load_mnist(self.folder), load_mnist_labels(self.folder)
        rng = np.random.default_rng(self.seed)
        some = train[rng.permutation(len(train))[: self.n_atoms]]
        held_out = test[rng.permutation(len(test))[:N_HELD_OUT]]
        return some, lambda: Judge(some, held_out, Classifier(train, labels, n_steps=1000))

    @property
    def images(self):
        """The atoms, as a tensor on the device of the runs."""
        return torch.as_tensor(self.data[0], device=self.device)

    @functools.cached_property
    def judge(self):
        """The judge, whose classifier is trained when it is first asked for."""
        return self.data[1]()


def three_atoms(_, settings):
    """Name and run of the example, with the steps of the paper; it needs no images."""

    def run(_):
        options = f"--steps {settings.steps(SEGMENT_STEPS)} --seed {settings.seed}"
        with contextlib.ExitStack() as stack:
            folder = settings.figures or stack.enter_context(tempfile.TemporaryDirectory())
            example = functools.partial(gallery.run, "three_atoms", "plot_three_atoms", options, None)
            found, seconds = machine.seconds(lambda: example(Path(folder)))
        return {"runs": found["rows"], "seconds": seconds}

    yield "segments", run


EXPERIMENTS = {
    "three_atoms": (three_atoms, SEGMENT_STEPS),
    "fixed_batch": (fixed_batch.fixed_batch, fixed_batch.STEPS),
    "fresh_batches": (fixed_batch.fresh_batches, fixed_batch.STEPS),
    "sweep": (images.sweep, images.STEPS),
    "parts": (images.parts, images.STEPS),
    "wgans": (images.wgans, images.STEPS),
}


def arguments():
    """Those of the command, checked."""
    parser = machine.parser(__doc__)
    parser.add_argument("--mnist", metavar="FOLDER", help="folder with its IDX files")
    parser.add_argument("--experiment", choices=EXPERIMENTS, nargs="+", default=list(EXPERIMENTS))
    parser.add_argument("--share", type=float, default=1.0, help="of the steps")
    parser.add_argument("--atoms", type=int, help="so many images, at random; all if left out")
    parser.add_argument("--generators", choices=("MLP", "DCGAN"), nargs="+", default=["MLP", "DCGAN"])
    parser.add_argument("--regs", type=float, nargs="+", default=list(images.REGS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="of all but three_atoms, e.g. cuda")
    parser.add_argument("--figures", metavar="FOLDER", type=Path, help="write tables and figures")
    args = parser.parse_args()
    if args.mnist is None and args.experiment != ["three_atoms"]:
        parser.error("--mnist: expected the folder of its IDX files, needed by all but three_atoms")
    return args


def main():
    args = arguments()
    torch.set_flush_denormal(True)  # for all: the weights of the authors' steps have many
    os.environ.setdefault("MPLBACKEND", "agg")
    settings, rows = Settings(args), machine.earlier(args.json).get("rows", [])
    with machine.limit_threads(args.threads):
        for experiment in args.experiment:
            make, n_steps = EXPERIMENTS[experiment]
            rest = [row for row in rows if row["experiment"] != experiment]
            data = None if experiment == "three_atoms" else settings.images
            facts = {"experiment": experiment, "steps": settings.steps(n_steps), "seed": args.seed}
            facts |= {"n_atoms": 3 if data is None else len(data)}
            facts |= {} if data is None else {"shape": list(data.shape[1:])}
            device = "cpu" if data is None else args.device
            where = {} if device == "cpu" else {"device": device}
            there = [row for row in rows if row.get("device", "cpu") == device]
            done = {row["name"]: row for row in there if facts.items() <= row.items()}
            runs = dict(make(data, settings))
            place = {name: k for k, name in enumerate(runs)}
            for k, (name, run) in enumerate(runs.items(), 1):
                if name not in done:
                    bar = Progress(True, facts["steps"], f"{experiment} {k}/{len(runs)}: {name}")
                    row = run(bar.update)
                    bar.close(lambda row=row: {"seconds": row["seconds"]})
                    done[name] = facts | where | {"name": name, "processor": machine.processor()} | row
                found = sorted(done.values(), key=lambda row: place.get(row["name"], -1))
                rows = [*rest, *found]
                machine.write(args.json, DIGITS, machine=machine.facts(), rows=rows)
            show(experiment, found, args.figures)


def show(experiment, rows, folder):
    """Print the table of an experiment, and write it and its figures to a folder."""
    text = "\n".join(report.table(experiment, rows))
    print(f"--- {experiment}: {text}\n", flush=True)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{experiment}.txt").write_text(text + "\n")
        report.draw(experiment, rows, folder)


if __name__ == "__main__":
    main()
