"""Textures by the patches of an example, against mini-batch Sinkhorn, at equal processor time.

``python -m benchmarks.textures [--seconds 60] [--seeds 1] [--wgenpatex FOLDER] [--json FILE]``

The example is the left half of a photograph of a flower, which scikit-learn ships, shrunk to 105 by 52
pixels; patches of the right half measure a texture: at each scale the exact squared W2 between 500 of
its patches and 500 held out, in units of the variance of these. Each method moves a picture from noise:
ours, which has the potentials of all scales follow, with a regularisation that falls over the first half
of the time, and with one that is held; Sinkhorn's algorithm between 200 patches drawn afresh; and, with
``--wgenpatex`` and a folder that has their code (github.com/ahoudard/wgenpatex), the program of Houdard,
Leclaire, Papadakis and Rabin. All take the settings of the latter: patches of 4 by 4 pixels, 4 scales,
2,000 atoms a scale, a picture as large as the example; steps of Adam are 0.03, and theirs 0.01. Their
pyramid is a Gaussian one; the patches that are measured are those of means of squares, as ours. The
second line of a method has what is minimised, the cost from all patches to all of the example, in units
of their variance.
"""

import argparse
import contextlib
import importlib
import io
import os
import sys
import tempfile
import time
from pathlib import Path

import ot
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_image

from pot_semidiscrete.generative import PatchLoss
from pot_semidiscrete.metrics import covariance_ratio, transport_cost

from . import machine

N_ATOMS, N_MEASURED, N_SINKHORN = 2000, 500, 200


def photograph(shrink):
    """The two halves of the middle of a photograph, pixels averaged over squares of a side."""
    pixels = load_sample_image("flower.jpg")[120:330, 200:410].astype("float32") / 255.0
    flower = F.avg_pool2d(torch.as_tensor(pixels).permute(2, 0, 1), shrink)
    middle = flower.shape[2] // 2
    return flower[:, :, :middle].contiguous(), flower[:, :, middle:].contiguous()


def descend(start, cost, seconds):
    """Move a picture down a cost by Adam, for so many seconds; the steps, too.

    The cost is one of the picture and of the share of the seconds that has passed.
    """
    x = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.03)
    begin, n_steps = time.process_time(), 0
    while time.process_time() - begin < seconds:
        optimizer.zero_grad()
        cost(x, (time.process_time() - begin) / seconds).backward()
        optimizer.step()
        n_steps += 1
    return x.detach(), n_steps


def ours(loss, start, seconds, anneal):
    """The potentials follow, and all patches move towards their atoms."""

    def cost(x, share):
        loss.anneal(2.0 * share if anneal else 1.0)
        loss.follow(x)
        return loss(x)

    return descend(start, cost, seconds)


def sinkhorn(loss, example, start, seconds, random):
    """Plans between a few patches of the picture and of the example, at the same scales."""
    others = loss.patches(example)
    loss.anneal(1.0)

    def cost(x, _):
        total = 0.0
        for one, rows, atoms in zip(loss.losses, loss.patches(x), others, strict=True):
            few, some = (
                p[torch.randint(len(p), (N_SINKHORN,), generator=random)] for p in (rows, atoms)
            )
            costs = torch.cdist(few, some).square()
            options = {"numItermax": 100, "method": "sinkhorn_log", "warn": False}
            plan = ot.sinkhorn([], [], costs.detach(), 10.0 * one.reg, **options)
            total = total + (plan * costs).sum()
        return total

    return descend(start, cost, seconds)


def wgenpatex(folder, example, patch_size, n_scales, seconds, seed):
    """Their image optimisation with their settings, for as many iterations as take the time."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    sys.path.insert(0, str(folder))
    options = {"size": None, "patch_size": patch_size, "scales": n_scales, "n_iter_psi": 10}
    options |= {"n_patches_in": -1, "n_patches_out": N_ATOMS}
    options |= dict.fromkeys(("visu", "save", "keops"), False)
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(io.StringIO()):
        theirs = importlib.import_module("wgenpatex")
        path = Path(place) / "example.png"
        theirs.imsave(path, example[None])

        def synthesize(n):
            torch.manual_seed(seed)
            call = lambda: theirs.optim_synthesis(
                argparse.Namespace(target_image_path=str(path), n_iter_max=n, **options)
            )
            return machine.seconds(call)

        synthesize(1)
        n_steps = max(round(seconds * 3 / synthesize(3)[1]), 1)
        picture, taken = synthesize(n_steps)
    return picture.detach()[0].cpu(), n_steps, taken


def some(patches):
    """A few of them, at random."""
    order = torch.randperm(len(patches), generator=torch.Generator().manual_seed(1))
    return patches[order[:N_MEASURED]].numpy()


def costs_to(rows, others):
    """Costs at all scales, the finest first, in units of the variance of the others."""
    pairs = zip(rows, others, strict=True)
    return [float(transport_cost(a, b, b.var(axis=0).sum())) for a, b in pairs]


def quality(loss, picture, example, held_out):
    """Costs to what is held out, the ratio of variances at the finest scale, costs to the example."""
    rows, others = ([some(p) for p in loss.patches(image)] for image in (picture, held_out))
    all_rows = ([p.numpy() for p in loss.patches(image)] for image in (picture, example))
    return costs_to(rows, others), float(covariance_ratio(rows[0], others[0])), costs_to(*all_rows)


def textures(args, seed):
    """A picture of each method, with the steps and the seconds that it took."""
    example, held_out = photograph(args.shrink)
    options = {"patch_size": args.patch_size, "n_scales": args.scales, "n_atoms": N_ATOMS}
    loss = PatchLoss(example, random_state=seed, **options)
    random = torch.Generator().manual_seed(seed)
    middle, spread = example.mean(dim=(1, 2), keepdim=True), example.std(dim=(1, 2), keepdim=True)
    start = middle + spread * torch.randn(example.shape, generator=random)
    yield "the example", quality(loss, example, example, held_out), 0, 0.0
    for name, call in {
        "semi-discrete": lambda: ours(loss, start, args.seconds, True),
        "the same, reg held": lambda: ours(loss, start, args.seconds, False),
        "mini-batch Sinkhorn": lambda: sinkhorn(loss, example, start, args.seconds, random),
    }.items():
        (picture, n_steps), taken = machine.seconds(call)
        yield name, quality(loss, picture, example, held_out), n_steps, taken
    if args.wgenpatex:
        settings = (args.patch_size, args.scales, args.seconds, seed)
        picture, n_steps, taken = wgenpatex(args.wgenpatex, example, *settings)
        yield "wgenpatex", quality(loss, picture, example, held_out), n_steps, taken


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the processor, for each method")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--shrink", type=int, default=2, help="pixels of the photograph in one")
    parser.add_argument("--patch-size", type=int, default=4)
    parser.add_argument("--scales", type=int, default=4)
    parser.add_argument("--wgenpatex", metavar="FOLDER", help="that has their code")
    args = parser.parse_args()
    with machine.limit_threads(1):
        facts, rows = {"machine": machine.facts(), "seconds": args.seconds}, []
        header = "".join(f"{f'1/{2**s}':>8}" for s in range(args.scales))
        print(f"{'scale':20}{header}{'variance':>10}{'steps':>7}{'seconds':>9}")
        for seed in range(args.seeds):
            for name, (costs, ratio, fit), n_steps, taken in textures(args, seed):
                numbers, of_fit = ("".join(f"{cost:8.3f}" for cost in part) for part in (costs, fit))
                print(f"{name:20}{numbers}{ratio:10.2f}{n_steps:7}{taken:9.1f}")
                print(f"{'  to the example':20}{of_fit}", flush=True)
                row = {"name": name, "seed": seed, "costs": costs, "variance": ratio, "fit": fit}
                rows.append(row)
                machine.write(args.json, **facts, rows=rows)


if __name__ == "__main__":
    main()
