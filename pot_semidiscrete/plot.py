"""Figures (need matplotlib, which is imported on use)."""

from typing import Any

import numpy as np

from .backend import converted, describe, in_double, ours
from .problem import check_count, check_images, check_numbers
from .result import SemiDiscreteResult


def plot_history(history: dict[str, Any], axes: Any = None) -> Any:
    """Draw the loss and the marginal error of a training run.

    Parameters
    ----------
    history : dict
        As in :class:`pot_semidiscrete.generative.TrainingResult`.
    axes : pair of matplotlib axes, optional

    Returns
    -------
    pair of matplotlib axes
    """
    names = ("loss", "chi2", "chi2_step")
    if not isinstance(history, dict):
        raise TypeError(f"history: expected a dict, received {describe(history)}; give result.history.")
    if not history.keys() >= set(names):
        raise ValueError(
            f"history: expected the entries {', '.join(names)}, received {list(history)}; give "
            "result.history."
        )
    history = {key: check_numbers(f"history[{key!r}]", history[key], finite=False) for key in names}
    import matplotlib.pyplot as plt

    if axes is None:
        _, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    pair = [ax for ax in axes if hasattr(ax, "set_yscale")] if hasattr(axes, "__len__") else []
    if len(pair) != 2:
        raise TypeError(
            f"axes: expected a pair of matplotlib axes, received {describe(axes)}; make them with "
            "plt.subplots(1, 2)."
        )
    steps = np.arange(1, len(history["loss"]) + 1)
    axes[0].plot(steps, history["loss"], lw=0.5, color="0.7")
    if len(steps):
        width = max(1, len(steps) // 50)
        smooth = np.convolve(history["loss"], np.full(width, 1.0 / width), mode="valid")
        axes[0].plot(steps[width - 1 :], smooth, color="C0")
    axes[0].set(xlabel="generator step", ylabel="loss")
    if len(steps) and min(history["loss"]) > 0:
        axes[0].set_yscale("log")
    axes[1].plot(history["chi2_step"], np.maximum(history["chi2"], 0.0) ** 0.5, color="C1")
    axes[1].set(xlabel="generator step", ylabel="relative marginal error", ylim=(0, None))
    return axes


def plot_images(images: np.ndarray, ax: Any, columns: int = 12, title: str | None = None) -> None:
    """Draw a grid of images, grey ones in ink on paper, or of red, green and blue.

    Parameters
    ----------
    images : ndarray, shape (n, height, width) or (n, 3, height, width)
        Values in [0, 1].
    ax : matplotlib axes
    columns : int
    title : str, optional
    """
    images, columns = check_images("images", images), check_count("columns", columns)
    _check_axes(ax)
    if images.dtype.kind in "iu" and images.max() > 1:
        raise ValueError(
            f"images: expected values in [0, 1], received whole numbers up to {images.max()}; divide "
            "bytes by 255."
        )
    images = np.clip(images, 0.0, 1.0)
    if images.ndim == 3:
        images = 1.0 - np.repeat(images[:, None], 3, axis=1)
    n, channels, height, width = images.shape
    if channels != 3:
        raise ValueError(f"images: expected 3 channels, or grey ones, received {describe(images)}.")
    rows = -(-n // columns)
    frame = np.full((rows * columns, height + 1, width + 1, 3), 1.0)
    frame[:n, :height, :width] = np.moveaxis(images, 1, -1)
    frame = frame.reshape(rows, columns, height + 1, width + 1, 3).swapaxes(1, 2)
    ax.imshow(frame.reshape(rows * (height + 1), -1, 3))
    ax.set(xticks=[], yticks=[], title=title)


@ours()
def plot_cells(
    result: SemiDiscreteResult,
    ax: Any,
    limits: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 1.0),
    colors: np.ndarray | None = None,
    n_pixels: int = 200,
) -> None:
    """Plot the cells of a result in the plane: each place in the colour of the atom that it goes to.

    At ``reg = 0`` these are Laguerre cells. With regularisation a place has a mixture of colours, by its
    assignment weights.

    Parameters
    ----------
    result : SemiDiscreteResult
        Result for atoms in the plane.
    ax : matplotlib axes
    limits : tuple of float
        Bounds of the plot: ``(left, right, bottom, top)``.
    colors : ndarray, shape (n_atoms, 3), optional
        Red, green and blue of the atoms, in [0, 1]; those of matplotlib's ``tab20`` by default.
    n_pixels : int
        Pixels along each side.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> import matplotlib.pyplot as plt
    >>> import numpy as np
    >>> from pot_semidiscrete import solve_semidiscrete
    >>> atoms = np.random.default_rng(0).random((9, 2))
    >>> result = solve_semidiscrete(atoms, "unif", random_state=0)
    >>> figure, axis = plt.subplots()
    >>> plot_cells(result, axis)
    >>> axis.images[0].get_array().shape
    (200, 200, 3)
    """
    if not isinstance(result, SemiDiscreteResult):
        raise TypeError(f"result: expected that of a solve, received {describe(result)}.")
    _check_axes(ax)
    box, n = check_numbers("limits", limits), check_count("n_pixels", n_pixels)
    if box.shape != (4,) or not (box[0] < box[1] and box[2] < box[3]):
        raise ValueError(
            "limits: expected four numbers, least and largest of the two coordinates, received "
            f"{describe(limits)}."
        )
    n_atoms, d = result._target.n_atoms, result._target.like.shape[1]
    if d != 2:
        raise ValueError(
            f"result: expected one of atoms in the plane, received one of atoms of {d} coordinates; "
            "result.atom_weights(places) tells to which atoms places go."
        )
    import matplotlib.pyplot as plt

    if colors is None:
        colors = plt.get_cmap("tab20")(np.arange(n_atoms) % 20)[:, :3]
    colors = check_numbers("colors", colors)
    if colors.shape != (n_atoms, 3) or colors.min() < 0.0 or colors.max() > 1.0:
        raise ValueError(
            f"colors: expected numbers in [0, 1] of shape ({n_atoms}, 3), received {describe(colors)}."
        )
    steps = (np.arange(n) + 0.5) / n
    first, second = (low + (high - low) * steps for low, high in box.reshape(2, 2))
    rows = []
    for height in second:  # a row at a time: weights of all places may be too many
        places = np.stack([first, np.full(n, height)], axis=1)
        x = converted(places, result.potential)
        rows.append(in_double(result.atom_weights(x)) @ colors)
    ax.imshow(np.clip(rows, 0.0, 1.0), origin="lower", extent=tuple(box))
    ax.set(xticks=[], yticks=[])


def _check_axes(ax: Any) -> None:
    if not hasattr(ax, "imshow"):
        raise TypeError(
            f"ax: expected matplotlib axes, received {describe(ax)}; make them with plt.subplots()."
        )
