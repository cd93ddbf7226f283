"""The gallery: its order, to be learned from, and thumbnails that show one telling panel."""

from pathlib import Path

from PIL import Image

# script: the figure of its thumbnail, and the panel in it: left, top, right, bottom, as shares
ORDER = {
    "plot_quickstart": (1, (0.0, 0.0, 1.0, 1.0)),
    "plot_regularisation": (1, (0.25, 0.0, 0.5, 1.0)),
    "plot_color_transfer": (1, (0.5, 0.5, 1.0, 1.0)),
    "plot_flow_matching_pairs": (1, (0.67, 0.0, 1.0, 0.5)),
    "plot_conditional_pairs": (2, (0.674, 0.0, 1.0, 0.515)),
    "plot_train_generator": (1, (0.54, 0.0, 1.0, 0.47)),
    "plot_synthetic_generator": (1, (0.804, 0.0, 1.0, 0.5)),
    "plot_conditional_generator": (1, (0.0, 0.0, 1.0, 1.0)),
    "plot_texture": (1, (0.0, 0.5, 0.335, 1.0)),
    "plot_ranks": (1, (0.0, 0.0, 0.45, 1.0)),
    "plot_stippling": (1, (0.0, 0.48, 0.46, 0.97)),
    "plot_barycenters": (1, (0.4, 0.0, 0.6, 1.0)),
    "plot_error_bars": (1, (0.0, 0.0, 0.506, 1.0)),
    "plot_outliers": (1, (0.32, 0.0, 0.62, 1.0)),
    "plot_solver_accuracy": (1, (0.0, 0.0, 0.5, 1.0)),
    "plot_gradient_may_not_exist": (1, (0.0, 0.0, 0.515, 0.465)),
    "plot_three_atoms": (1, (0.02, 0.0, 0.35, 0.315)),
    "plot_mnist_regularisation": (2, (0.0, 0.0, 0.6, 1.0)),
    "plot_versus_wgan": (1, (0.25, 0.0, 0.5, 0.5)),
}


class Order:
    """Key by which scripts are sorted; those that are not listed come last."""

    def __init__(self, src_dir):
        self.names = list(ORDER)

    def __call__(self, filename):
        name = Path(filename).stem
        return self.names.index(name) if name in ORDER else len(self.names)

    def __repr__(self):
        return "Order()"


def crop(app):
    """Make the thumbnails of the scripts that were run."""
    folder = Path(app.srcdir) / "auto_examples" / "images"
    for name, (number, (left, top, right, bottom)) in ORDER.items():
        figure = folder / f"sphx_glr_{name}_{number:03d}.png"
        if not figure.exists():
            continue
        with Image.open(figure) as image:
            width, height = image.size
            panel = image.crop(
                (int(left * width), int(top * height), int(right * width), int(bottom * height))
            )
            panel.thumbnail((400, 280))
            panel.convert("RGB").save(folder / "thumb" / f"sphx_glr_{name}_thumb.png")
