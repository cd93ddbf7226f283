"""The authors' way to the potential: torch's optimisers on the semi-dual of all atoms.

Costs are divided by the mean squared norm of the atoms, and `reg` is in that unit. The potential is a
vector, or a perceptron 784-512-256-128-1 of the atoms.
"""

import math

import torch
from torch import nn

from pot_semidiscrete.generative import dcgan_generator, mlp_generator

from ..wgan import perceptron

LATENT, BATCH, RATE = 100, 200, 1e-3
DUAL_STEPS = 10
DUAL_RATES = {"vector": 5.0, "network": 0.1}  # of the plots; 0.05 is the scripts' default


class SemiDual(nn.Module):
    """The semi-dual of uniform atoms.

    Parameters
    ----------
    atoms : tensor, shape (n_atoms, d)
    reg : float
    kind : {"vector", "network"}
    """

    def __init__(self, atoms, reg, kind):
        super().__init__()
        self.atoms, self.reg, self.kind = atoms, reg, kind
        self.squared = atoms.square().sum(dim=1)
        self.unit = float(self.squared.mean())
        vector = lambda: nn.Parameter(torch.zeros(len(atoms), device=atoms.device))
        self.psi = vector() if kind == "vector" else perceptron(atoms.shape[1]).to(atoms.device)

    def potential(self, rows=slice(None)):
        """Potential of some atoms."""
        return self.psi[rows] if self.kind == "vector" else self.psi(self.atoms[rows])[:, 0]

    def cost(self, x, rows=slice(None)):
        """Cost of some atoms, in units of the mean squared norm."""
        products = x @ self.atoms[rows].T
        return (x.square().sum(dim=1)[:, None] + self.squared[rows] - 2.0 * products) / self.unit

    def forward(self, x, n_rows=None, cost=None):
        """Semi-dual of points, with all atoms or with so many of them, drawn at random."""
        rows = slice(None)
        if n_rows is not None:
            rows = torch.randint(len(self.atoms), (n_rows,), device=self.atoms.device)
        psi, cost = self.potential(rows), self.cost(x, rows) if cost is None else cost
        if self.reg > 0.0:
            scores = (psi - cost) / self.reg - math.log(len(self.atoms))
            transform = -self.reg * torch.logsumexp(scores, dim=1)
        else:
            transform = (cost - psi).min(dim=1).values
        return transform.mean() + psi.mean()

    def ascend(self, optimizer, x, **options):
        """One step of an optimiser of the parameters; the value before it."""
        optimizer.zero_grad()
        loss = -self(x, **options)
        loss.backward()
        optimizer.step()
        return -loss.item()


def latent(n, device):
    """Latent points, uniform on the cube ``[-1, 1]^100``."""
    return 2.0 * torch.rand(n, LATENT, device=device) - 1.0


def make_generator(name, shape):
    """The perceptron or the DCGAN of the scripts, ``z -> rows``, with torch's initialisation."""
    if name == "DCGAN":
        return nn.Sequential(dcgan_generator(LATENT, shape, kernel_size=3, bias=False), nn.Flatten())
    generator = nn.Sequential(mlp_generator(LATENT, shape), nn.Flatten())
    for module in generator.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    return generator
