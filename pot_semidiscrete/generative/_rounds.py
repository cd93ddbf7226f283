"""What a step of the generator goes down: the loss at fresh points, or the bounds of a round."""

import torch

from .._validation import check_count
from .loss import Majorant

REUSE = 16  # steps of the generator for one sweep of its points


def resolve_reuse(reuse, loss):
    """Steps of the generator in a round: more than one need the squared distance."""
    if reuse is None:
        return REUSE if loss.has_majorants and loss.network is None else 1
    reuse = check_count("reuse", reuse)
    if reuse > 1 and not loss.has_majorants:
        raise ValueError(
            f"reuse: expected 1 with metric {loss.target.cost.name!r}, received {reuse}; the bound that "
            "several steps descend is known for 'sqeuclidean'."
        )
    return reuse


class Rounds:
    """Moves of the potential, and what each step of the generator goes down after them.

    Parameters
    ----------
    generator : callable
    latent : callable
        ``() -> z``, a fresh batch.
    loss : SemiDiscreteLoss
    reuse : int
        Steps of the generator in a round.

    Attributes
    ----------
    latents, bounds : list
        Batches of the present round, and the :class:`Majorant` of each.
    origin : tensor, shape (d,), or None
        Mean of the first batch's points when the round began.
    position : int
        Steps taken in it.
    """

    def __init__(self, generator, latent, loss, reuse):
        self.generator, self.latent, self.loss, self.reuse = generator, latent, loss, reuse
        self.latents, self.bounds, self.origin, self.position = [], [], None, 0

    @property
    def ended(self):
        """Whether the next step begins a round, and so moves the potential."""
        return self.reuse == 1 or not self.latents or self.position == self.reuse

    @torch.no_grad()
    def objective(self):
        """Value of the next step's batch, to be differentiated: a function of nothing.

        Optimisers may call it several times. The potential has moved before, if that was due.
        """
        if self.reuse == 1:
            return self.fresh()
        if self.ended:
            self.begin()
        k = self.position % len(self.latents)
        z, bound = self.latents[k], self.bounds[k]
        self.position += 1
        return lambda: bound(self.loss.target.local(self.loss.rows(self.generator(z))))

    def fresh(self):
        """The loss at points that nothing has seen: formula (G)."""
        self.loss.follow(torch.cat(self.draw()))
        z = self.latent()
        return lambda: self.loss(self.generator(z))

    def draw(self):
        """Points for the potential, which first goes along with the mean of those before."""
        if self.loss.translates and self.origin is not None:
            self.loss.translate(self.mean(self.generator(self.latents[0])) - self.origin)
        self.latents = [self.latent() for _ in range(self.loss.dual_steps)]
        batches = [self.generator(z) for z in self.latents]
        if self.loss.translates:
            self.origin = self.mean(batches[0])
        return batches

    def mean(self, points):
        return self.loss.local(points).mean(dim=0)

    def begin(self):
        """Follow with the potential, by points whose bounds the generator will then go down."""
        self.bounds, self.position = self.loss.majorants(self.draw(), follow=True), 0

    def state_dict(self):
        return {
            "latents": self.latents,
            "bounds": [[bound.goal, bound.constant] for bound in self.bounds],
            "origin": self.origin,
            "position": self.position,
        }

    def load_state_dict(self, state):
        device = self.loss.target.atoms.device
        move = lambda z: z.to(device) if isinstance(z, torch.Tensor) else z
        self.latents = [move(z) for z in state["latents"]]
        self.bounds = [Majorant(move(goal), move(constant)) for goal, constant in state["bounds"]]
        self.origin = move(state["origin"])
        self.position = state["position"]
