"""What images are compared by, beside their pixels."""

import copy
import math

import torch
from torch import nn

from .._validation import check_count, check_real, describe

SMOOTH = 1e-3  # added to the square of a filter's response, whose root is then differentiable


class Modulus(nn.Module):
    """``sqrt(x^2 + SMOOTH)``: the absolute value, smooth at 0."""

    def forward(self, x):
        return (x.square() + SMOOTH).sqrt()


def random_filters(n_filters=16, size=5, *, channels=1, random_state=0):
    """Network of random filters: their responses, without sign, averaged over patches.

    Every second pixel has the responses of `n_filters` filters, independent normal numbers less their
    mean, of norm 1; their absolute values are averaged over 2 by 2 places. To an average of two images,
    grey where they differ, filters respond less than to each of the two.

    Parameters
    ----------
    n_filters : int, default=16
        Number of filters.
    size : int, default=5
        Of a filter, in pixels along each side.
    channels : int, default=1
        Of the images.
    random_state : int, default=0
        Seed of the filters.

    Returns
    -------
    torch.nn.Sequential
        ``(n, channels, height, width) -> (n, n_filters, height / 4, width / 4)``.

    Raises
    ------
    TypeError, ValueError
        If a number is not a positive integer.

    References
    ----------
    Saxe, Koh, Chen, Bhand, Suresh, Ng, "On Random Weights and Unsupervised Feature Learning", ICML 2011.

    Examples
    --------
    >>> import torch
    >>> from pot_semidiscrete.generative import random_filters
    >>> random_filters()(torch.zeros(3, 1, 28, 28)).shape
    torch.Size([3, 16, 7, 7])
    """
    for name, value in {"n_filters": n_filters, "size": size, "channels": channels}.items():
        check_count(name, value)
    # whose own initialisation would take random numbers of torch's global generator
    options = {"stride": 2, "padding": size // 2, "bias": False}
    filters = nn.utils.skip_init(nn.Conv2d, channels, n_filters, size, **options)
    random = torch.Generator().manual_seed(random_state)
    with torch.no_grad():
        weight = torch.randn(filters.weight.shape, generator=random)
        weight -= weight.mean(dim=(1, 2, 3), keepdim=True)
        filters.weight.copy_(weight / weight.square().sum(dim=(1, 2, 3), keepdim=True).sqrt())
    return nn.Sequential(filters, Modulus(), nn.AvgPool2d(2))


class ImageFeatures(nn.Module):
    r"""Images as their pixels beside features: the `features` of a loss.

    .. math:: \varphi(x) = (x,\; s\, f(x)), \qquad
              |\varphi(x) - \varphi(y)|^2 = |x - y|^2 + s^2\, |f(x) - f(y)|^2,

    with s such that the features have a given share of the variance of the data. By pixels, an average
    of two images is as near to both as anything can be, at a quarter of their squared distance, and
    generated images are such averages. By features that tell them from images, it is farther.

    Parameters
    ----------
    images : tensor, shape (n, height, width) or (n, channels, height, width)
        Data: they set the scale.
    body : torch.nn.Module, optional
        The map f, ``(n, channels, height, width) -> (n, ...)``; a copy is kept, in eval mode and frozen.
        :func:`random_filters` by default.
    share : float, default=0.5
        Of the features in the variance, at least 0 and below 1.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape or range.

    References
    ----------
    Johnson, Alahi, Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", ECCV
    2016, with features of a trained network.

    Examples
    --------
    >>> import torch
    >>> from pot_semidiscrete.generative import ImageFeatures, mlp_generator, train_generator
    >>> images = torch.rand(200, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> features = ImageFeatures(images)
    >>> features(images[:5]).shape
    torch.Size([5, 128])
    >>> generator = mlp_generator(16, (8, 8), widths=(32,))
    >>> train_generator(generator, 16, images, n_steps=20, features=features).status
    'finished'
    """

    def __init__(self, images, body=None, share=0.5):
        super().__init__()
        if not isinstance(images, torch.Tensor) or images.ndim not in (3, 4):
            raise ValueError(
                "images: expected a tensor of shape (n, height, width) or (n, channels, height, width), "
                f"received {describe(images)}."
            )
        share = check_real("share", share)
        if not share < 1.0:
            raise ValueError(f"share: expected a number in [0, 1), received {share:g}.")
        if body is None:
            body = random_filters(channels=1 if images.ndim == 3 else images.shape[1])
        self.body = copy.deepcopy(body).to(images).eval().requires_grad_(False)
        self.scale = 1.0
        spread = lambda x: float(x.var(dim=0, unbiased=False).sum())
        with torch.no_grad():
            found = torch.cat([self.seen(part) for part in images.split(500)])
        if share > 0.0 and not spread(found) > 0.0:
            raise ValueError(
                "body: expected features that differ between images, received the same for all."
            )
        ratio = share / (1.0 - share)
        self.scale = math.sqrt(ratio * spread(images.flatten(1)) / max(spread(found), 1e-300))

    def seen(self, x):
        """Features of images, one row each."""
        return self.body(x[:, None] if x.ndim == 3 else x).flatten(1)

    def forward(self, x):
        """Pixels and features of images, one row each."""
        return torch.cat([x.flatten(1), self.scale * self.seen(x)], dim=1)

    def train(self, mode=True):
        """Leave the body in eval mode: its features must not change."""
        super().train(mode)
        self.body.eval()
        return self
