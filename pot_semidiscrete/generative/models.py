"""Generator networks like those of the paper's experiments, and its DCGAN itself."""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from ..problem import check_bool, check_count, check_counts


def mlp_generator(
    latent_dim: int, shape: Sequence[int], widths: Sequence[int] = (256, 512, 1024)
) -> nn.Sequential:
    """Multilayer perceptron from latent points to images in [0, 1].

    LeakyReLU 0.2 between layers and a sigmoid at the end, as in the paper (Houdard et al.,
    arXiv:2102.05542), but with the initialisation of He et al. (2015): torch's default
    starts with all images nearly equal, at a saddle of the transport cost.

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
    latent_dim: int,
    shape: Sequence[int],
    channels: Sequence[int] = (256, 128, 64),
    *,
    kernel_size: int = 4,
    bias: bool = True,
) -> nn.Sequential:
    """Transposed convolutions with batch normalisation, from latent points to images in [0, 1].

    After Radford et al. (2016): each layer doubles the size, with ReLU between layers and a sigmoid at
    the end. The one of the paper (Houdard et al., arXiv:2102.05542) has ``kernel_size=3, bias=False``.

    Parameters
    ----------
    latent_dim : int
        Dimension of the latent points.
    shape : tuple of int
        Height and width of an image.
    channels : sequence of int
        Channels of the hidden layers. Three suit 28 by 28 pixels, two suit 8 by 8.
    kernel_size : {4, 3}, default=4
        With 4, the first layer makes a small image, which the others double to `shape`; a layer before
        an odd side has a kernel of 3. With 3, sides are 3, 7, 15, and so on, and the last layer crops to
        `shape`.
    bias : bool, default=True
        Whether convolutions have biases. Those before a batch normalisation do nothing.

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
    >>> paper = dcgan_generator(100, (28, 28), kernel_size=3, bias=False)
    >>> paper(torch.zeros(5, 100)).shape, sum(p.numel() for p in paper.parameters())
    (torch.Size([5, 28, 28]), 600512)
    """
    latent_dim, shape = check_count("latent_dim", latent_dim), check_counts("shape", shape)
    channels, bias = check_counts("channels", channels, least=1), check_bool("bias", bias)
    if len(shape) != 2:
        raise ValueError(f"shape: expected (height, width), received {len(shape)} numbers.")
    kernel_size = check_count("kernel_size", kernel_size)
    if kernel_size not in (3, 4):
        raise ValueError(f"kernel_size: expected 3 or 4, received {kernel_size}.")
    geometries = (_doubled if kernel_size == 4 else _cropped)(shape, len(channels))
    layers: list[nn.Module] = [nn.Unflatten(1, (latent_dim, 1, 1))]
    for (inner, outer), geometry in zip(
        itertools.pairwise([latent_dim, *channels, 1]), geometries, strict=True
    ):
        layers += [nn.ConvTranspose2d(inner, outer, bias=bias, **geometry)]
        layers += [nn.BatchNorm2d(outer), nn.ReLU()]
    return nn.Sequential(*layers[:-2], nn.Sigmoid(), nn.Flatten(1, 2))


def _doubled(shape: Sequence[int], n_layers: int) -> Iterator[dict[str, Any]]:
    """Arguments of transposed convolutions that double each side, or one pixel less where it is odd."""
    sizes = [tuple(shape)]
    for _ in range(n_layers):
        sizes.insert(0, tuple(-(-side // 2) for side in sizes[0]))
    yield {"kernel_size": sizes[0]}
    for size in sizes[1:]:
        yield {"kernel_size": tuple(4 - side % 2 for side in size), "stride": 2, "padding": 1}


def _cropped(shape: Sequence[int], n_layers: int) -> Iterator[dict[str, Any]]:
    """The same with kernels of 3 by 3 pixels: sides 3, 7, 15, ...; the last layer crops to `shape`."""
    over = [2 ** (n_layers + 2) - 1 - side for side in shape]
    if min(over) < 0:
        raise ValueError(
            f"shape: expected sides of at most {2 ** (n_layers + 2) - 1} with {n_layers} hidden layers "
            f"of 3 by 3 pixels, received {tuple(shape)}; give more channels."
        )
    for _ in range(n_layers):
        yield {"kernel_size": 3, "stride": 2}
    padding, added = tuple(-(-cut // 2) for cut in over), tuple(cut % 2 for cut in over)
    yield {"kernel_size": 3, "stride": 2, "padding": padding, "output_padding": added}
