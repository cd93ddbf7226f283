"""The gallery's examples at full size: what they print, and their figures.

``python -m benchmarks.gallery --mnist FOLDER [--examples NAME ...] [--output FOLDER]``

Runs each script of `EXAMPLES` with its arguments, and writes what it printed, after the facts of the
machine, to ``NAME.txt``, and its figures, as small as a page shows them, to ``NAME*.png``. The
documentation shows the files of ``benchmarks/results/gallery``.
"""

import argparse
import contextlib
import io
import os
import runpy
import sys
import time
from pathlib import Path

from PIL import Image

from . import machine

ROOT = Path(__file__).parents[1]
EXAMPLES = {
    "mnist_regularisation": ("plot_mnist_regularisation", "--steps 800 --generators MLP"),
    "mnist_regularisation_dcgan": (
        "plot_mnist_regularisation",
        "--steps 800 --generators DCGAN --output mnist_regularisation_dcgan",
    ),
}

WIDTH, GREYS, COLORS = 960, 16, 64  # of a picture


class Tee(io.TextIOBase):
    """What is written goes to two places."""

    def __init__(self, *streams):
        self.streams = streams

    def write(self, text):
        for stream in self.streams:
            stream.write(text)
            stream.flush()
        return len(text)


def shrink(path):
    """Write a picture again, at most `WIDTH` pixels wide, in few greys or colours."""
    image = Image.open(path).convert("RGB")
    width = min(WIDTH, image.width)
    image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    red, green, blue = image.split()
    number = GREYS if red.tobytes() == green.tobytes() == blue.tobytes() else COLORS
    image.quantize(number, dither=Image.Dither.NONE).save(path, optimize=True)


def run(name, script, options, mnist, output):
    """Run a script of the examples in the folder `output`, keep what it prints there, and its names.

    `mnist` is None for one that needs no images.
    """
    data, told = (
        ([], "") if mnist is None else (["--mnist", str(Path(mnist).resolve())], " --mnist FOLDER")
    )
    script, facts, start = ROOT / "examples" / f"{script}.py", machine.facts(), time.perf_counter()
    output.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(output / f"{name}.txt", "w"))
        stack.enter_context(contextlib.chdir(output))
        argv = sys.argv
        stack.callback(setattr, sys, "argv", argv)
        sys.argv = [str(script), *data, *options.split()]
        command = f"{script.name}{told} {options}"
        file.write(f"{command}\n{', '.join(f'{key} {value}' for key, value in facts.items())}\n\n")
        stack.enter_context(contextlib.redirect_stdout(Tee(sys.stdout, file)))
        names = runpy.run_path(str(script), run_name="__main__")
        print(f"\n{time.perf_counter() - start:.0f} seconds in all")
    for path in output.glob(f"{name}*.png"):
        shrink(path)
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--mnist", metavar="FOLDER", required=True, help="folder with its IDX files")
    parser.add_argument("--examples", choices=EXAMPLES, nargs="+", default=list(EXAMPLES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "gallery")
    args = parser.parse_args()
    os.environ.setdefault("MPLBACKEND", "agg")
    with machine.limit_threads(args.threads):
        for name in args.examples:
            run(name, *EXAMPLES[name], args.mnist, args.output)


if __name__ == "__main__":
    main()
