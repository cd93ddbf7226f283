"""Generators of MNIST's digits trained for the same seconds by several recipes.

``python -m benchmarks.training --mnist FOLDER [--recipe NAME ...] [--seconds 180] [--atoms 10000]
[--coordinates 100] [--colors ink] [--device cuda] [--json FILE]``

The generator is the paper's perceptron, or with ``--generator dcgan`` convolutional, from the same
initialisation, and its latent law is normal: 100 independent coordinates, or `--coordinates` of them,
the others 0 and the variance in all the same. Adam has a rate of 1e-3 and batches 200 points, unless
the recipe says otherwise; ours have what is theirs by default, or `--batch` points. The cost is the
squared distance, in units of the mean squared norm of the atoms, and the regularisation 0.01 of that.

With ``--colors ink`` each digit has a random colour, on black, with ``both`` it is on another. The
folder of another data set in MNIST's format, as Fashion-MNIST, serves as well.

- ``ours``: `train_generator` with its default settings, those of images: pairs drawn by features of
  4,000 of them, the distance of pixels, and a critic. The rate of its optimiser falls by the clock
  instead of by the steps, whose number is not known.
- ``energy``: the same with ``critic=False``, and so an energy score once the rate falls. The score is
  named here, for the latent law is a function, of which the package knows nothing. The share of the
  coordinates that a second latent point has anew is the package's, or with ``--grid`` each of `RENEWED`.
- ``cityblock``: as that, with the cost of pairs of other latent laws, ``pair_cost="cityblock"``.
- ``batches`` and ``batches_cityblock``: ``ours`` and ``cityblock``, with pairs by an exact plan of the
  points of a round and as many atoms at random (``ot.emd``) in place of the plan of the potential.
- ``pixels``: the same with none of these: the paper's gradient, of the squared distance of pixels.
- ``features``: as that, with images compared by `ImageFeatures`: pixels and the responses of random
  filters, which have `--share` of the variance. No labels, and no other network, take part.
- ``few_features``: the same, with 4 filters instead of 16, and 5% of the variance in their responses.
- ``wgan_gp``: Gulrajani et al.'s, batches of 64 points, the critic of `GradientPenaltyCritic` with the
  penalty at all of them, or at `--penalty-size`; rates of both rise and fall by the clock as ours. The
  rate and the critic's steps for one of the generator are `--rate` and `--critic-steps`, or with
  ``--grid`` each of `RATES` and `CRITIC_STEPS`. Its network is a perceptron, or that of `--network`,
  which is for the critic of ``ours``, too, in place of the package's default.
- ``authors``: the alternation of Houdard et al.: before each step of the generator, 10 steps of an
  averaged SGD made anew, of which the last iterate is kept. The step is the best of `STEPS`, in runs
  of a sixth of the seconds.
- ``sinkhorn``: `ot.sinkhorn` between a batch of points and one of atoms.
- ``pot``: before each step of the generator, POT's solver for 10 batches of 32 points, from the
  potential before.

With ``--grid`` the settings of a recipe run with the first seed, and the best of them with each seed.

Seconds are those of the processor for each thread, which are those of a clock if nothing else runs: on
a shared machine a run loses nothing to its neighbours but their use of the caches. On a GPU they are
those of a clock. With ``--json``, rows of the file for other recipes and seeds are kept, so are grids
of other recipes. What is measured is in `pot_semidiscrete.metrics`, on 2,000 images of each generator,
2,000 held-out ones, and a classifier trained on all training images. With ``--value``, ``value`` is a
95% interval of the transport cost at the regularisation above. Measuring is outside the seconds.
"""

import itertools
import math
import time
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import ot
import torch

from pot_semidiscrete.datasets import load_mnist, load_mnist_labels
from pot_semidiscrete.generative import (
    GradientPenaltyCritic,
    ImageFeatures,
    SemiDiscreteLoss,
    dcgan_generator,
    mlp_generator,
    random_filters,
    train_generator,
)
from pot_semidiscrete.generative.critic_networks import NETWORKS
from pot_semidiscrete.generative.energy import EnergyDescent
from pot_semidiscrete.generative.optimizers import (
    adam,
    calm_adam,
    fall,
    rise_and_fall,
    set_relative_rate,
)
from pot_semidiscrete.metrics import Classifier, Judge, semi_dual_value

from . import machine

LATENT, BATCH, RATE, REG = 100, 200, 1e-3, 0.01
N_HELD_OUT, INTERVAL_BATCHES = 2000, 10
FILTERS, SHARE = 4, 0.05  # where they are few
STEPS = (0.05, 0.5, 5.0, 50.0, 500.0)  # of the authors' averaged SGD
SHORT = 5.0 / 6.0  # of the seconds, for all of them together
DUAL_STEPS, POT_BATCH, SINKHORN_STEPS = 10, 32, 200
RATES, CRITIC_STEPS = (1e-4, 5e-4, 1e-3, 2e-3, 4e-3), (1, 5)  # of WGAN-GP
RENEWED = (0.05, 0.13, 0.3)  # shares of the coordinates, of the energy score
GRIDS = {
    "wgan_gp": [{"rate": r, "critic_steps": k} for r, k in itertools.product(RATES, CRITIC_STEPS)],
    "energy": [{"renewed": share} for share in RENEWED],
}
MEASURES = ("steps", "cost", "covariance", "nearest", "frechet", "precision", "recall", "coverage")
SETTINGS = ("seconds", "atoms", "coordinates", "generator", "colors", "batch", "device", "network")
GENERATORS = {"mlp": mlp_generator, "dcgan": dcgan_generator}
PLAIN = {"n_atoms": False, "features": False, "pair_cost": False, "critic": False}


def clock(device):
    """Seconds, from anywhere."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


class Run:
    """A generator in training: seeded, and stopped by the clock.

    Parameters
    ----------
    images : tensor, shape (n_atoms, height, width)
        On the device of the run.
    seconds : float
    seed : int
    coordinates : int
        Of the latent law that are not 0.
    kind : {"mlp", "dcgan"}
        Of the generator.

    Attributes
    ----------
    root : float
        Root of the mean squared norm of the images: coordinates are in units of it, costs of its square.
    steps : int
        Steps of the generator so far.
    """

    def __init__(self, images, seconds, seed, coordinates=LATENT, kind="mlp"):
        torch.manual_seed(seed)
        self.images, self.seconds, self.seed, self.steps = images, seconds, seed, 0
        self.coordinates = coordinates
        self.generator = GENERATORS[kind](LATENT, images.shape[1:]).to(images.device)
        self.optimizer = torch.optim.Adam(self.generator.parameters(), lr=RATE, fused=True)
        self.root = float(images.flatten(1).square().sum(dim=1).mean().sqrt())
        self.atoms = images.flatten(1) / self.root
        self.begin = clock(images.device)

    @property
    def used(self):
        """Seconds so far."""
        return clock(self.images.device) - self.begin

    @property
    def goes_on(self):
        """Whether seconds are left."""
        return self.used < self.seconds

    def at(self, z):
        """Points of the generator at these latent ones."""
        return self.generator(z).flatten(1) / self.root

    def latent(self, n):
        """Points of the latent law."""
        z = torch.randn(n, self.coordinates, device=self.images.device)
        z *= (LATENT / self.coordinates) ** 0.5
        return torch.nn.functional.pad(z, (0, LATENT - self.coordinates))

    def points(self, n=BATCH):
        """Generated points, with their graph."""
        return self.at(self.latent(n))

    def draw(self, n):
        """Generated points, without a graph."""
        with torch.no_grad():
            return self.points(n)

    def follow(self, x, goal):
        """One step of the generator, its points `x` being drawn to `goal`."""
        self.optimizer.zero_grad()
        x.backward(2.0 * (x.detach() - goal) / len(x))
        self.optimizer.step()
        self.count()

    def count(self):
        """Count a step of the generator."""
        self.steps += 1

    def follow_potential(self, potential):
        """One step of the generator along formula (G)."""
        x = self.points()
        goal = ot.semidiscrete.semidiscrete_ot_map(self.atoms, x.detach(), potential, reg=REG)
        self.follow(x, goal)


def ours(run, make=calm_adam, rate=rise_and_fall, network=None, **options):
    """`train_generator`, whose rate falls by the clock; its critic may have another network."""
    optimizer = make(list(run.generator.parameters()))  # the default
    if network is not None:
        options["critic"] = GradientPenaltyCritic(run.images, network, random_state=run.seed)

    def by_the_clock(result):
        run.count()
        left = 1.0 - run.used / run.seconds
        set_relative_rate(optimizer, rate(1.0 - left))
        return left < 0.0

    train_generator(
        run.generator,
        run.latent,
        run.images,
        n_steps=10**6,
        optimizer=optimizer,
        random_state=run.seed,
        callback=by_the_clock,
        **options,
    )


def energy(run, renewed=None, **options):
    """The same without a critic: an energy score once the rate falls, of a share `renewed`."""
    with mock.patch.object(EnergyDescent, "share", renewed or EnergyDescent.share):
        ours(run, **{"critic": False, "pair_cost": "energy"} | options)


def cityblock(run, **options):
    """As `energy`, down absolute differences until the end."""
    ours(run, **{"critic": False, "pair_cost": "cityblock"} | options)


def exact_pairs(loss, x, random_state=None, *, follow=False):
    """Atoms by an exact plan of points and as many atoms, in place of `SemiDiscreteLoss.pair`."""
    some = torch.randperm(loss.target.n_atoms)[: len(x)]
    costs = torch.cdist(loss.local(x).double(), loss.target.atoms[some].double()).square()
    plan = ot.emd(ot.unif(len(x)), ot.unif(len(some)), costs.numpy(), numItermax=10**6)
    return some[torch.as_tensor(plan.argmax(axis=1))]


def batches(run, like=ours, **options):
    """As `ours`, or as the recipe `like`, with pairs of exact plans of batches."""
    with mock.patch.object(SemiDiscreteLoss, "pair", exact_pairs):
        like(run, **options)


def batches_cityblock(run, **options):
    """As `cityblock`, with pairs of exact plans of batches."""
    batches(run, cityblock, **options)


def pixels(run, **options):
    """The paper's gradient: no features, pairs or critic."""
    ours(run, **PLAIN | {"make": adam, "rate": fall} | options)


def features(run, share=0.6, **options):
    """As `pixels`, with images compared by their features."""
    pixels(run, features=ImageFeatures(run.images, share=share), **options)


def few_features(run, **options):
    """As `features`, with few filters."""
    few = ImageFeatures(run.images, random_filters(FILTERS), share=SHARE)
    pixels(run, features=few, **options)


def wgan_gp(run, rate=2e-3, critic_steps=5, penalty_size=64, network="perceptron"):
    """A critic with the gradient penalty (Gulrajani et al., arXiv:1704.00028)."""
    optimizer = torch.optim.Adam(run.generator.parameters(), lr=rate, betas=(0.5, 0.9), fused=True)
    like = partial(adam, lr=rate, betas=(0.5, 0.9))
    options = {"penalty_size": penalty_size, "random_state": run.seed}
    critic = GradientPenaltyCritic(run.images, network, optimizer=like, **options)
    while run.goes_on:
        progress = rise_and_fall(run.used / run.seconds)
        set_relative_rate(optimizer, progress)
        for _ in range(critic_steps):
            with torch.no_grad():
                x = run.generator(run.latent(critic.batch_size))
            critic.step(x, progress)
        optimizer.zero_grad()
        (-critic.score(run.generator(run.latent(critic.batch_size))).mean()).backward()
        optimizer.step()
        run.count()


def authors(run, step):
    """The alternation of Houdard et al., by averaged SGD."""
    potential = torch.zeros(len(run.atoms), device=run.atoms.device, requires_grad=True)
    squared, log_n = run.atoms.square().sum(dim=1), math.log(len(run.atoms))
    while run.goes_on:
        ascent = torch.optim.ASGD([potential], lr=step, alpha=0.5, t0=1)
        for _ in range(DUAL_STEPS):
            x = run.draw(BATCH)
            cost = x.square().sum(dim=1)[:, None] + squared - 2.0 * x @ run.atoms.T
            transform = -REG * (torch.logsumexp((potential - cost) / REG, dim=1) - log_n)
            ascent.zero_grad()
            (-transform.mean() - potential.mean()).backward()
            ascent.step()
        run.follow_potential(potential.detach())


def sinkhorn(run):
    """Sinkhorn's algorithm between a batch of points and one of atoms."""
    uniform = np.full(BATCH, 1.0 / BATCH)
    while run.goes_on:
        x, y = run.points(), run.atoms[torch.randint(len(run.atoms), (BATCH,))]
        cost = ot.dist(*(points.detach().double().cpu().numpy() for points in (x, y)))
        plan = ot.sinkhorn(uniform, uniform, cost, REG, numItermax=SINKHORN_STEPS, warn=False)
        shares = torch.as_tensor(plan / plan.sum(axis=1, keepdims=True)).to(y)
        run.follow(x, shares @ y)


def pot(run):
    """POT's solver before each step, from the potential before."""
    potential = None
    while run.goes_on:
        potential = ot.semidiscrete.solve_semidiscrete(
            run.atoms,
            run.draw,
            reg=REG,
            max_iter=DUAL_STEPS,
            batch_size=POT_BATCH,
            init_potential=potential,
        )
        run.follow_potential(potential)


OURS = (ours, energy, cityblock, batches, batches_cityblock, pixels, features, few_features)
RECIPES = {recipe.__name__: recipe for recipe in (*OURS, wgan_gp, authors, sinkhorn, pot)}


def train(recipe, images, seconds, seed, coordinates=LATENT, kind="mlp", **options):
    """A run of a recipe, ended."""
    run = Run(images, seconds, seed, coordinates, kind)
    RECIPES[recipe](run, **options)
    return run


def written(found):
    """Of what a judge found, the measures that rows have."""
    return {name: found[name] for name in MEASURES if name in found}


def measure(run, judge):
    """Measures of a trained generator."""
    torch.manual_seed(1000 + run.seed)
    with torch.no_grad():
        return written(judge(run.generator(run.latent(len(judge.held_out))).cpu().numpy()))


def interval(run):
    """Interval of the transport cost from a trained generator."""
    options = {"n_batches": INTERVAL_BATCHES, "batch_size": BATCH}
    return semi_dual_value(run.draw, run.atoms, REG, **options)[1]


def best_step(images, seconds, judge, *law):
    """The authors' step of least Frechet distance in short runs."""
    found = {}
    for step in STEPS:
        run = train("authors", images, seconds / len(STEPS), 0, *law, step=step)
        found[step] = measure(run, judge)["frechet"]
        print(f"authors, step {step:<5g} frechet {found[step]:8.2f}", flush=True)
    return min(found, key=found.get), found


def show(name, row):
    """One line of measures."""
    found = (f"{measure} {row[measure]:.4g}" for measure in MEASURES if measure in row)
    print(f"{name:15} {'  '.join(found)}", flush=True)


def medians(rows):
    """Median over the seeds of each measure, by recipe."""
    return {
        recipe: {
            name: float(np.median([row[name] for row in group]))
            for name in MEASURES
            if all(name in row for row in group)  # files of older versions lack some
        }
        for recipe in RECIPES
        if (group := [row for row in rows if row["recipe"] == recipe])
    }


def tinted(images, colors, rng):
    """Grey images as of red, green and blue, each of a random colour, on black or on another colour."""
    ink, paper = rng.random((2, len(images), 3, 1, 1), dtype=np.float32)
    paper = paper if colors == "both" else 0.0
    return paper + (ink - paper) * images[:, None]


def load(folder, n_atoms, colors=None):
    """Images for the atoms, and the judge."""
    (images, test), (labels, _) = load_mnist(folder), load_mnist_labels(folder)
    rng = np.random.default_rng(0)
    if colors is not None:
        images, test = tinted(images, colors, rng), tinted(test, colors, rng)
    atoms = images[rng.choice(len(images), n_atoms, replace=False)]
    held_out = test[rng.choice(len(test), min(N_HELD_OUT, len(test)), replace=False)]
    return torch.as_tensor(atoms), Judge(atoms, held_out, Classifier(images, labels))


def kept(path, recipes, seeds, settings):
    """Facts of a file, and the rows that a run of these recipes and seeds leaves as they are."""
    facts = machine.earlier(path)
    if any(facts.get(name, value) != value for name, value in settings.items()):
        raise SystemExit(f"{path}: expected runs of {settings}; give another file")
    rows = facts.pop("rows", [])
    others = lambda row: row["recipe"] not in recipes or row["seed"] not in seeds
    like = {name: facts["machine"][name] for name in ("processor",) if rows}
    return facts, [like | row for row in rows if row["recipe"] in RECIPES and others(row)]


def unlike(rows, processor):
    """The rows as they are written: a processor that is the machine's is not said again in each."""
    own = ("processor", processor)
    return [dict(fact for fact in row.items() if fact != own) for row in rows]


def arguments():
    """Those of the command."""
    parser = machine.parser(__doc__)
    parser.add_argument("--mnist", metavar="FOLDER", required=True, help="folder with its IDX files")
    parser.add_argument("--recipe", choices=RECIPES, nargs="+", default=list(RECIPES))
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--atoms", type=int, default=10_000)
    parser.add_argument("--coordinates", type=int, default=LATENT, help="of the latent law")
    parser.add_argument("--generator", choices=GENERATORS, default="mlp")
    parser.add_argument("--colors", choices=("ink", "both"), help="that are random; grey if left out")
    parser.add_argument("--device", default="cpu", help="of all but the measures, e.g. cuda")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--step", type=float, help="of the authors' recipe; the best of a grid if left out"
    )
    parser.add_argument("--batch", type=int, help="points in a batch of ours; their own if left out")
    parser.add_argument("--share", type=float, help="of the features in the variance; 0.6 if left out")
    parser.add_argument("--rate", type=float, default=2e-3, help="of WGAN-GP")
    parser.add_argument("--critic-steps", type=int, default=5, help="of WGAN-GP")
    parser.add_argument("--penalty-size", type=int, help="of WGAN-GP; the published 64 if left out")
    parser.add_argument("--network", choices=NETWORKS, help="of the critics of WGAN-GP and ours")
    parser.add_argument("--value", action="store_true", help="an interval of the transport cost, too")
    parser.add_argument("--grid", action="store_true", help="settings of recipes, with the first seed")
    parser.add_argument("--images", metavar="FOLDER", help="save 96 images of each generator")
    return parser.parse_args()


def options_of(args):
    """Options of each recipe, by the arguments of the command."""
    options = {recipe: {} for recipe in RECIPES}
    options["wgan_gp"] = {"rate": args.rate, "critic_steps": args.critic_steps}
    if args.penalty_size is not None:
        options["wgan_gp"]["penalty_size"] = args.penalty_size
    options["authors"] = {"step": args.step}
    if args.network is not None:
        for recipe in ("ours", "wgan_gp"):
            options[recipe] = options[recipe] | {"network": args.network}
    if args.batch is not None:
        for recipe in OURS:
            options[recipe.__name__] = options[recipe.__name__] | {"batch_size": args.batch}
    if args.share is not None:
        options["features"]["share"] = args.share
    return options


def main():
    args = arguments()
    torch.set_flush_denormal(True)  # for all: the weights of POT's and the authors' steps have many
    settings = {name: getattr(args, name) for name in SETTINGS}
    facts, rows = kept(args.json, args.recipe, args.seeds, settings)
    made_anew = args.recipe if args.grid else ()
    grid = facts.pop("grid", [])  # rows of older files name no recipe
    grid = [row for row in grid if row.get("recipe", "wgan_gp") not in made_anew]
    options = options_of(args)
    here = machine.processor()
    write = lambda: machine.write(args.json, **facts, grid=grid, rows=unlike(rows, here))
    with machine.limit_threads(args.threads):
        facts |= {"machine": machine.facts(), **settings}
        images, judge = load(args.mnist, args.atoms, args.colors)
        images = images.to(args.device)
        facts["floor"] = written(judge.floor)
        show("floor", facts["floor"])
        law = (args.coordinates, args.generator)
        if "authors" in args.recipe and args.step is None:
            best, facts["authors_steps"] = best_step(images, SHORT * args.seconds, judge, *law)
            options["authors"]["step"] = best
        for recipe in made_anew:
            settings, found = GRIDS.get(recipe, []), []
            for setting in settings:
                given = options[recipe] | setting
                run = train(recipe, images, args.seconds, args.seeds[0], *law, **given)
                found.append(setting | {"steps": run.steps} | measure(run, judge))
                show(f"{recipe} {setting}", found[-1])
                grid.append({"recipe": recipe} | found[-1])
                write()
            if settings:
                best = min(found, key=lambda row: row["frechet"])
                options[recipe] |= {name: best[name] for name in settings[0]}
        for seed in args.seeds:
            for recipe in args.recipe:
                run = train(recipe, images, args.seconds, seed, *law, **options[recipe])
                row = {"recipe": recipe, "seed": seed, "steps": run.steps}
                row["processor"] = here
                row |= {"value": interval(run)} if args.value else {}
                rows.append({**row, **options[recipe], **measure(run, judge)})
                show(f"{recipe} {seed}", rows[-1])
                write()
                if args.images:
                    draw(Path(args.images) / f"{recipe}_{seed}.png", run)
    for recipe, row in medians(rows).items():
        show(recipe, row)


def draw(path, run):
    """96 images of a generator, to a file (needs matplotlib)."""
    import matplotlib.pyplot as plt

    from pot_semidiscrete.plot import plot_images

    figure, axes = plt.subplots(figsize=(6, 4))
    plot_images((run.draw(96) * run.root).reshape(-1, *run.images.shape[1:]).cpu().numpy(), axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    main()
