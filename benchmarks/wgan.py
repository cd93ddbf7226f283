"""Critics of Wasserstein GANs, kept Lipschitz by weight clipping or by a penalty on their gradient.

For benchmarks that train a generator beside ours: :class:`WGAN` has the critic, its optimiser and that
of the generator, with the settings of the papers. Weight clipping is that of Arjovsky, Chintala, Bottou
(arXiv:1701.07875, algorithm 1), the penalty of Gulrajani et al. (arXiv:1704.00028, algorithm 1).
"""

import itertools

import torch
from torch import nn

from pot_semidiscrete.generative.critic import gradient_penalty

CRITIC_STEPS = 5  # for each step of the generator, in both papers
CLIP = 0.01
PENALTY = 10.0
RATES = {"clipping": 5e-5, "penalty": 1e-4}


def perceptron(d, widths=(512, 256, 128)):
    """A multilayer perceptron from points to numbers, ReLU between its layers: shape (n, 1)."""
    layers = []
    for rows, columns in itertools.pairwise((d, *widths)):
        layers += [nn.Linear(rows, columns), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 1))


class WGAN:
    """A critic in training, beside a generator.

    Parameters
    ----------
    critic : torch.nn.Module
        ``(n, d) -> (n, 1)``.
    kind : {"clipping", "penalty"}
    rate : float, optional
        Of both optimisers; that of the paper if left out.
    """

    def __init__(self, critic, kind, rate=None):
        self.critic, self.kind, self.rate = critic, kind, rate or RATES[kind]
        self.optimizer = self.make_optimizer(critic.parameters())

    def make_optimizer(self, parameters):
        """The optimiser of the paper, for the critic or a generator."""
        if self.kind == "clipping":
            return torch.optim.RMSprop(parameters, lr=self.rate)
        return torch.optim.Adam(parameters, lr=self.rate, betas=(0.0, 0.9))

    def step(self, x, y):
        """One step of the critic: `x` is generated, `y` are data, rows of a batch each."""
        x = x.detach()
        loss = self.critic(x).mean() - self.critic(y).mean()
        if self.kind == "penalty":
            share = torch.rand(len(x), 1, device=x.device)
            loss = loss + PENALTY * gradient_penalty(self.critic, x, y, share)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.kind == "clipping":
            with torch.no_grad():
                for weights in self.critic.parameters():
                    weights.clamp_(-CLIP, CLIP)

    def loss(self, x):
        """What a generator descends."""
        return -self.critic(x).mean()
