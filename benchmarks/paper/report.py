"""Tables and figures of what was found."""

import numpy as np

from . import images as digits

FACTS = "{n_atoms:,} atoms, {steps} steps"


def table(experiment, rows):
    """Lines of a table of the runs of an experiment."""
    return [FACTS.format(**rows[-1]), *TABLES[experiment](rows)]


def values(rows):
    """What a potential is worth, and the gap to the maximum where one is known to be near."""
    best = next((row["value"] for row in rows if "gap" in row), None)
    yield f"{'':24}{'value':>9}{'falls short by':>16}{'passes':>8}{'seconds':>9}"
    for row in rows:
        short = "" if best is None else f"{best - row['value']:.4f}"
        if "gap" in row:
            short = f"<= {row['gap']:.0e}"
        yield f"{row['name']:24}{row['value']:9.4f}{short:>16}{row['work']:8.0f}{row['seconds']:9.1f}"


def ends(rows):
    """What a potential is worth on fresh points."""
    yield f"{'':24}{'value':>9}{'stderr':>9}{'seconds':>9}"
    for row in rows:
        yield f"{row['name']:24}{row['value']:9.4f}{row['stderr']:9.4f}{row['seconds']:9.1f}"


def measures(rows):
    """Measures of generators. *Varies* is the standard deviation of the last fifth of the losses."""
    columns = ("cost", "covariance", "frechet", "entropy", "nearest")
    yield f"{'':28}" + "".join(f"{name:>11}" for name in columns) + f"{'varies':>9}{'seconds':>9}"
    for row in rows:
        found = "".join(f"{row[name]:11.3f}" for name in columns)
        varies = np.std(row["losses"][-(len(row["losses"]) // 5 + 1) :])
        yield f"{row['name']:28}{found}{varies:9.4f}{row['seconds']:9.1f}"


def segments(rows):
    """The segment and the three atoms."""
    yield f"{'':24}{'reg':>6}{'W_reg':>9}{'W_0':>9}{'mean W_0':>10}{'sway':>9}"
    for run in rows[-1]["runs"]:
        found = f"{run['regularised']:9.4f}{run['cost']:9.4f}{run['mean_cost']:10.4f}{run['sway']:9.4f}"
        yield f"{run['rule']:24}{run['reg']:6g}{found}"


TABLES = {
    "three_atoms": segments,
    "fixed_batch": values,
    "fresh_batches": ends,
    "sweep": measures,
    "parts": measures,
    "wgans": measures,
}


def draw(experiment, rows, folder):
    """Figures of an experiment, to files (needs matplotlib)."""
    import matplotlib.pyplot as plt

    figures = {}
    if experiment == "fresh_batches":
        figures = {"": curves({row["name"]: row["values"] for row in rows if "values" in row}, "value")}
    elif experiment in ("parts", "wgans"):
        name = "loss" if experiment == "parts" else "distance"
        losses = curves({row["name"]: row["losses"] for row in rows}, name)
        figures = {"_losses": losses, "_images": pictures([rows])}
    elif experiment == "sweep":
        for name in {row["generator"]: None for row in rows}:
            runs = [row for row in rows if row["generator"] == name]
            kinds = sorted({row["kind"] for row in runs})
            groups = {kind: [row for row in runs if row["kind"] == kind] for kind in kinds}
            figures[f"_{name}_images"] = pictures(list(groups.values()))
            losses = lambda group: {f"reg {row['reg']:g}": row["losses"] for row in group}
            figures[f"_{name}_losses"] = panels({kind: losses(groups[kind]) for kind in kinds})
    for name, figure in figures.items():
        figure.savefig(folder / f"{experiment}{name}.png", dpi=110)
        plt.close(figure)


def curves(lines, label):
    """One set of axes."""
    return panels({"": lines}, label)


def panels(groups, label="loss"):
    """Lines against the step, of each group in its own axes."""
    import matplotlib.pyplot as plt

    size = (4.5 * len(groups) + 1.0 * (len(groups) == 1), 3.3)
    figure, axes = plt.subplots(
        1, len(groups), figsize=size, layout="constrained", sharey=True, squeeze=False
    )
    for axis, (title, lines) in zip(axes[0], groups.items(), strict=True):
        for name, line in lines.items():
            axis.plot(np.arange(1, len(line) + 1), line, lw=0.9, label=name)
        axis.set(title=title, xlabel="step")
    axes[0, 0].set_ylabel(label)
    axes[0, -1].legend(fontsize=8)
    return figure


def pictures(groups):
    """Images of each run; a row of panels for each group.

    The file in git has none, to be short: their panels stay empty.
    """
    import matplotlib.pyplot as plt

    from pot_semidiscrete.plot import plot_images

    columns = max(len(group) for group in groups)
    size = (2.3 * columns, 2.2 * len(groups))
    figure, axes = plt.subplots(len(groups), columns, figsize=size, layout="constrained", squeeze=False)
    for line, group in zip(axes, groups, strict=True):
        for axis in line[len(group) :]:
            axis.axis("off")
        for axis, row in zip(line, group, strict=False):
            if "images" in row:
                images = digits.unpacked(row["images"], row["shape"])
                plot_images(images, axis, columns=5)
            axis.set_title(row["name"])
            axis.title.set_fontsize(8)
    return figure
