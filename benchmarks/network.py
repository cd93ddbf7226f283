"""The potential as a network of the atoms beside the potential as a vector.

``python -m benchmarks.network [--seeds 0 1] [--steps 800] [--still-steps 2000] [--json FILE]``

The digits of scikit-learn, three quarters of them as atoms, and the perceptron of the gallery. Both
potentials are followed by ``dual_steps`` batches for each step of the generator (``reuse=1``,
``Adam(lr=1e-3)``), at a `reg` of 1% of the cost scale. Then a source that stands still, normal in
dimension 10, against 1,000 normal atoms at 5%: the squared marginal error after 2,000 dual steps.
One thread.
"""

import time

import numpy as np
import torch
from sklearn.datasets import load_digits

from pot_semidiscrete import cost_scale
from pot_semidiscrete.generative import SemiDiscreteLoss, mlp_generator, train_generator
from pot_semidiscrete.inference.chi2 import chi_square
from pot_semidiscrete.metrics import Classifier, Judge
from pot_semidiscrete.optim.semi_dual import SemiDual

from . import machine

LATENT, WIDTH, RATE, BATCH = 32, 128, 1e-3, 200
STILL = {"n_atoms": 1000, "dimension": 10, "share": 0.05}
KINDS = ("vector", "network")


def loss_of(kind, data, **options):
    """A loss whose potential is of this kind, for data that are rows."""
    if kind == "vector":
        return SemiDiscreteLoss(data, **options)
    layers = [torch.nn.Linear(data.shape[1], WIDTH), torch.nn.SiLU()]
    layers += [torch.nn.Linear(WIDTH, WIDTH), torch.nn.SiLU(), torch.nn.Linear(WIDTH, 1)]
    unit = float(cost_scale(data))
    module = torch.nn.Sequential(*layers)
    module.register_forward_hook(lambda module, given, psi: unit * psi)  # its steps have no unit
    return SemiDiscreteLoss(data, potential=module, **options)


def load():
    """Images, flattened, for the atoms, and the judge."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    images, classes = digits.images[order].astype(np.float32) / 16.0, digits.target[order]
    return images[450:], Judge(images[450:], images[:450], Classifier(images[450:], classes[450:]))


def train(kind, images, judge, steps, seed):
    """Measures of a generator that was trained with this kind of potential."""
    torch.manual_seed(seed)
    loss = loss_of(kind, torch.as_tensor(images).flatten(1))
    generator = torch.nn.Sequential(mlp_generator(LATENT, (8, 8), (128, 256)), torch.nn.Flatten())
    options = {"reuse": 1, "optimizer": lambda parameters: torch.optim.Adam(parameters, lr=RATE)}
    start = time.perf_counter()
    run = train_generator(
        generator, LATENT, loss, n_steps=steps, batch_size=BATCH, random_state=seed, **options
    )
    seconds = time.perf_counter() - start
    with torch.no_grad():
        found = judge(generator(torch.randn(450, LATENT)).reshape(-1, 8, 8).numpy())
    chi2 = run.history["chi2"]
    return found | {"chi2": float(np.mean(chi2[-len(chi2) // 5 :])), "seconds": seconds}


def follow_what_stands_still(kind, n_steps):
    """Squared marginal error after dual steps."""
    torch.manual_seed(0)
    atoms = torch.randn(STILL["n_atoms"], STILL["dimension"])
    loss = loss_of(kind, atoms, reg=STILL["share"] * float(cost_scale(atoms)))
    for _ in range(n_steps):
        loss.dual_step(torch.randn(BATCH, STILL["dimension"]))
    points, target = loss.local(torch.randn(20_000, STILL["dimension"])), loss.target
    measured = SemiDual(target).measure(points, target.gather(loss.potential), loss.reg)
    return chi_square(measured)[0]


def main():
    parser = machine.parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--still-steps", type=int, default=2000, help="where the source stands still")
    args = parser.parse_args()
    with machine.limit_threads(1):
        rows, facts = [], {"machine": machine.facts(), "steps": args.steps}
        facts["still"] = {**STILL, "n_steps": args.still_steps}
        images, judge = load()
        for kind in KINDS:
            for seed in args.seeds:
                rows.append({"kind": kind, "seed": seed, **train(kind, images, judge, args.steps, seed)})
                print(
                    "{kind:8} seed {seed}  chi2 {chi2:.2f}  cost {cost:.3f}  covariance "
                    "{covariance:.2f}  {seconds:.1f} s".format(**rows[-1]),
                    flush=True,
                )
            facts[f"{kind}_still"] = follow_what_stands_still(kind, args.still_steps)
            print(
                f"{kind:8} of a source that stands still: chi2 {facts[f'{kind}_still']:.3f}", flush=True
            )
            machine.write(args.json, **facts, rows=rows)


if __name__ == "__main__":
    main()
