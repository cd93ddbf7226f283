"""Generator networks like those of the paper's experiments."""

import itertools
import math
from collections.abc import Sequence

from torch import nn

from ..problem import check_count, check_counts


def mlp_generator(
    latent_dim: int, shape: Sequence[int], widths: Sequence[int] = (256, 512, 1024)
) -> nn.Sequential:
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
        ``(n, latent_dim) -> (n, *shape)``; made as torch's own modules are, by its global generator and
        in its default dtype and device.

    Examples
    --------
    >>> import torch
    >>> from pot_semidiscrete.generative import mlp_generator
    >>> mlp_generator(16, (8, 8), widths=(32,))(torch.zeros(5, 16)).shape
    torch.Size([5, 8, 8])
    """
    shape = check_counts("shape", shape, least=1)
    sizes = [check_count("latent_dim", latent_dim), *check_counts("widths", widths), math.prod(shape)]
    layers: list[nn.Module] = []
    for rows, columns in itertools.pairwise(sizes):
        linear = nn.Linear(rows, columns)
        nn.init.kaiming_normal_(linear.weight, a=0.2)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1], nn.Sigmoid(), nn.Unflatten(1, tuple(shape)))


def dcgan_generator(
    latent_dim: int, shape: Sequence[int], channels: Sequence[int] = (256, 128, 64)
) -> nn.Sequential:
    """Transposed convolutions with batch normalisation, from latent points to images in [0, 1].

    After Radford et al. (2016), as the one of the paper (Houdard et al., arXiv:2102.05542), whose four
    layers of 3 by 3 pixels without bias are others: each layer doubles the size, but for one pixel where
    it is odd; ReLU between layers and a sigmoid at the end.

    Parameters
    ----------
    latent_dim : int
        Dimension of the latent points.
    shape : tuple of int
        Height and width of an image.
    channels : sequence of int
        Of the hidden layers. Three suit 28 by 28 pixels, two suit 8 by 8.

    Returns
    -------
    torch.nn.Sequential
        ``(n, latent_dim) -> (n, height, width)``; made as :func:`mlp_generator` is. In train mode its
        law depends on n: draw all points in one mode, and in batches of one size.

    Examples
    --------
    >>> import torch
    >>> from pot_semidiscrete.generative import dcgan_generator
    >>> dcgan_generator(16, (28, 28))(torch.zeros(5, 16)).shape
    torch.Size([5, 28, 28])
    >>> dcgan_generator(16, (8, 8), channels=(64, 32))(torch.zeros(5, 16)).shape
    torch.Size([5, 8, 8])
    """
    latent_dim, shape = check_count("latent_dim", latent_dim), check_counts("shape", shape)
    channels = check_counts("channels", channels, least=1)
    if len(shape) != 2:
        raise ValueError(f"shape: expected (height, width), received {len(shape)} numbers.")
    height, width = shape
    sizes = [(height, width)]
    for _ in channels:
        height, width = -(-height // 2), -(-width // 2)
        sizes.insert(0, (height, width))
    start = nn.ConvTranspose2d(latent_dim, channels[0], sizes[0])
    layers: list[nn.Module] = [nn.Unflatten(1, (latent_dim, 1, 1)), start]
    for k, (inner, outer) in enumerate(itertools.pairwise([*channels, 1])):
        height, width = sizes[k + 1]
        kernel = (4 - height % 2, 4 - width % 2)
        grow = nn.ConvTranspose2d(inner, outer, kernel, stride=2, padding=1)
        layers += [nn.BatchNorm2d(inner), nn.ReLU(), grow]
    return nn.Sequential(*layers, nn.Sigmoid(), nn.Flatten(1, 2))
