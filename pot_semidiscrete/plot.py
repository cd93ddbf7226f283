"""Figures (need matplotlib, which is imported on use)."""

from typing import Any

import numpy as np

from .backend import describe
from .problem import check_count, check_images, check_numbers


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
    axes[0].set(xlabel="generator step", ylabel="semi-dual value")
    if len(steps) and min(history["loss"]) > 0:
        axes[0].set_yscale("log")
    axes[1].plot(history["chi2_step"], np.maximum(history["chi2"], 0.0) ** 0.5, color="C1")
    axes[1].set(xlabel="generator step", ylabel="relative marginal error", ylim=(0, None))
    return axes


def plot_images(images: np.ndarray, ax: Any, columns: int = 12, title: str | None = None) -> Any:
    """Draw a grid of grey images.

    Parameters
    ----------
    images : ndarray, shape (n, height, width)
        Values in [0, 1].
    ax : matplotlib axes
    columns : int
    title : str, optional
    """
    images, columns = check_images("images", images), check_count("columns", columns)
    if not hasattr(ax, "imshow"):
        raise TypeError(
            f"ax: expected matplotlib axes, received {describe(ax)}; make them with plt.subplots()."
        )
    rows = -(-len(images) // columns)
    height, width = images.shape[1:]
    frame = np.full((rows * columns, height + 1, width + 1), 1.0)
    frame[: len(images), :height, :width] = 1.0 - np.clip(images, 0.0, 1.0)
    frame = frame.reshape(rows, columns, height + 1, width + 1).swapaxes(1, 2)
    ax.imshow(frame.reshape(rows * (height + 1), -1), cmap="gray", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[], title=title)
