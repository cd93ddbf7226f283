"""Networks of critics that have a name."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from .data import is_image


def perceptron(shape: Sequence[int]) -> nn.Sequential:
    """Two hidden layers, of LeakyReLU 0.2, on points of a shape."""
    sizes = ((torch.Size(shape).numel(), 512), (512, 256), (256, 1))
    layers = [nn.Linear(*size) for size in sizes]
    slope = nn.LeakyReLU(0.2)
    return nn.Sequential(nn.Flatten(1), layers[0], slope, layers[1], slope, layers[2])


def convolutional(shape: Sequence[int]) -> nn.Sequential:
    """Two convolutions of 5 by 5 pixels that halve the sides, and a hidden layer, on images of a shape.

    As the critic of digits in the code of Gulrajani et al. (2017), which has three convolutions, of 64,
    128 and 256 channels, and no hidden layer.
    """
    if len(shape) not in (2, 3):
        raise ValueError(
            "network: expected images of (height, width) or (channels, height, width) with "
            f"'convolutional', received points of shape {tuple(shape)}; give 'perceptron', or a module."
        )
    inner, height, width = (1, *shape)[-3:]
    slope, layers = nn.LeakyReLU(0.2), [nn.Flatten(1), nn.Unflatten(1, (inner, height, width))]
    for outer in (16, 32):
        layers += [nn.Conv2d(inner, outer, 5, stride=2, padding=2), slope]
        inner, height, width = outer, -(-height // 2), -(-width // 2)
    layers += [nn.Flatten(1), nn.Linear(inner * height * width, 256), slope, nn.Linear(256, 1)]
    return nn.Sequential(*layers)


NETWORKS: dict[str, Callable[[Sequence[int]], nn.Sequential]] = {
    "perceptron": perceptron,
    "convolutional": convolutional,
}


def suited(shape: Sequence[int]) -> str:
    """Name of the network for points of a shape: of small images a perceptron, as of all else.

    The perceptron has the lower Frechet distance at 8 by 8 pixels, convolutions at 28 by 28.
    """
    return "convolutional" if is_image(shape, least=16) else "perceptron"


def network_of(name: str, shape: Sequence[int], seed: int) -> nn.Sequential:
    """The network of a name for points of a shape, with the weights of a seed."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        return NETWORKS[name](shape)
