"""Generator networks of the paper's experiments."""

import itertools
import math

from torch import nn


def mlp_generator(latent_dim, shape, widths=(256, 512, 1024)):
    """Multilayer perceptron from latent points to images in [0, 1].

    LeakyReLU 0.2 between layers and a sigmoid at the end, as in the paper (Houdard et al.,
    arXiv:2102.05542), but with the initialisation of He et al. (2015): torch's default
    starts with all images nearly equal, a saddle of the transport cost.

    Parameters
    ----------
    latent_dim : int
        Dimension of the latent points.
    shape : tuple of int
        Shape of an image, or ``(d,)``.
    widths : sequence of int
        Sizes of the hidden layers.

    Returns
    -------
    torch.nn.Sequential
        ``(n, latent_dim) -> (n, *shape)``.

    Examples
    --------
    >>> import torch
    >>> from pot_semidiscrete.generative import mlp_generator
    >>> mlp_generator(16, (8, 8), widths=(32,))(torch.zeros(5, 16)).shape
    torch.Size([5, 8, 8])
    """
    sizes = [latent_dim, *widths, math.prod(shape)]
    layers = []
    for rows, columns in itertools.pairwise(sizes):
        linear = nn.Linear(rows, columns)
        nn.init.kaiming_normal_(linear.weight, a=0.2)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1], nn.Sigmoid(), nn.Unflatten(1, tuple(shape)))
