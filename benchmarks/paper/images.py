"""Generators of MNIST's digits: sweeps of `reg`, training on a part of the atoms, and two WGANs.

Latent law, batches, rates and networks are those of `rules.py`; a run has 3,000 steps of the generator,
and before each of them ten of the potential by an averaged SGD that is made anew, whose last iterate is
kept. ``ours`` is `train_generator` with its default settings, from the same weights and with batches of
the same law. Points are drawn in train mode, in batches of 200; the scripts draw those of the figures in
eval mode. A critic moves five times for each step of the generator.
"""

import base64
import functools
import zlib

import numpy as np
import torch

from pot_semidiscrete.generative import SemiDiscreteLoss, train_generator

from .. import machine
from ..wgan import CRITIC_STEPS, WGAN, perceptron
from .rules import BATCH, DUAL_RATES, DUAL_STEPS, RATE, SemiDual, latent, make_generator

STEPS, PART_REG = 3000, 0.025
REGS = (0.0, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1)  # both of their sweeps
PARTS, FIXED = (10, 100, 1000), 3000
SHOWN = 20  # images of a generator in the figures


def alternate(generator, dual, n_steps, report, n_rows=None):
    """The authors' alternation; losses of the generator's batches, over all atoms."""
    optimizer, losses = torch.optim.Adam(generator.parameters(), lr=RATE), []
    draw = functools.partial(latent, device=dual.atoms.device)
    for _ in range(n_steps):
        rate = DUAL_RATES[dual.kind]
        ascent = torch.optim.ASGD(dual.parameters(), lr=rate, alpha=0.5, t0=1)
        for _ in range(DUAL_STEPS):
            with torch.no_grad():
                x = generator(draw(BATCH))
            dual.ascend(ascent, x, n_rows=n_rows)
        loss = dual(generator(draw(BATCH)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        report(lambda: {"loss": losses[-1]})
    return losses


def round_by_round(generator, atoms, reg, n_steps, report):
    """`train_generator`, in the same units."""
    unit = float(atoms.square().sum(dim=1).mean())
    loss = SemiDiscreteLoss(atoms, reg=reg * unit)
    told = lambda result: report(lambda: {"loss": result.history["loss"][-1] / unit})
    draw = functools.partial(latent, device=atoms.device)
    result = train_generator(generator, draw, loss, n_steps=n_steps, batch_size=BATCH, callback=told)
    return (result.history["loss"] / unit).tolist()


def against_a_critic(generator, atoms, kind, n_steps, report):
    """A WGAN with the settings of its paper; estimates of the distance, in the unit of the pixels."""
    device = atoms.device
    gan, losses = WGAN(perceptron(atoms.shape[1]).to(device), kind), []
    draw = functools.partial(latent, device=device)
    optimizer = gan.make_optimizer(generator.parameters())
    data = lambda: atoms[torch.randint(len(atoms), (BATCH,), device=device)]
    for _ in range(n_steps):
        for _ in range(CRITIC_STEPS):
            with torch.no_grad():
                x = generator(draw(BATCH))
            gan.step(x, data())
        loss = gan.loss(generator(draw(BATCH)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            losses.append(float(gan.critic(data()).mean() + loss))
        report(lambda: {"distance": losses[-1]})
    return losses


def packed(images):
    """Grey images as a string."""
    grey = (255.0 * np.clip(images, 0.0, 1.0)).round().astype(np.uint8)
    return base64.b85encode(zlib.compress(grey.tobytes(), 9)).decode()


def unpacked(text, shape):
    """Images of a shape, from a string."""
    return np.frombuffer(zlib.decompress(base64.b85decode(text)), np.uint8).reshape(-1, *shape) / 255.0


def training(images, settings, name, train, **facts):
    """A run that trains a generator, ``report -> row``: losses, seconds, measures and these facts.

    Parameters
    ----------
    train : callable
        ``(generator, report) -> losses``.
    """

    def run(report):
        judge = settings.judge  # a classifier is trained when it is first asked for
        torch.manual_seed(settings.seed)
        shape, device = images.shape[1:], images.device
        generator = make_generator(name, shape).to(device)
        losses, seconds = machine.seconds(lambda: train(generator, report), device.type)
        torch.manual_seed(1000 + settings.seed)
        batches = -(-len(judge.held_out) // BATCH)
        with torch.no_grad():
            x = torch.cat([generator(latent(BATCH, device)) for _ in range(batches)])
        x, rounded = x.reshape(-1, *shape).cpu().numpy(), [float(f"{loss:.5g}") for loss in losses]
        row = {"generator": name, "seconds": seconds, "losses": rounded, "images": packed(x[:SHOWN])}
        return facts | row | judge(x[: len(judge.held_out)])

    return run


def sweep(images, settings):
    """Names and runs: each generator, at each `reg`, with a vector, a network, and ours."""
    atoms, n_steps = images.flatten(1), settings.steps(STEPS)

    def train(generator, report, reg, kind):
        if kind == "ours":
            return round_by_round(generator, atoms, reg, n_steps, report)
        return alternate(generator, SemiDual(atoms, reg, kind), n_steps, report)

    for name in settings.generators:
        for reg in settings.regs:
            for kind in ("vector", "network", "ours"):
                facts = {"reg": reg, "kind": kind}
                run = training(images, settings, name, functools.partial(train, **facts), **facts)
                yield f"{name}, {kind}, reg {reg:g}", run


def parts(images, settings):
    """Names and runs: the potential sees a random part of the atoms in each step, or always the same."""
    atoms, n_steps = images.flatten(1), settings.steps(STEPS)

    def run(some, n_rows=None):
        def train(generator, report):
            return alternate(generator, SemiDual(some, PART_REG, "vector"), n_steps, report, n_rows)

        return training(images, settings, "DCGAN", train)

    for n_rows in PARTS:
        yield f"{n_rows:,} atoms a step", run(atoms, n_rows)
    order = torch.as_tensor(np.random.default_rng(settings.seed).permutation(len(atoms)))
    yield f"the same {FIXED:,} atoms", run(atoms[order[:FIXED]])
    yield "all atoms", run(atoms)


def wgans(images, settings):
    """Names and runs: weight clipping and the gradient penalty."""
    atoms, n_steps = images.flatten(1), settings.steps(STEPS)

    def train(generator, report, kind):
        return against_a_critic(generator, atoms, kind, n_steps, report)

    for name in settings.generators:
        for kind, words in (("clipping", "WGAN-WC"), ("penalty", "WGAN-GP")):
            yield (
                f"{name}, {words}",
                training(images, settings, name, functools.partial(train, kind=kind)),
            )
