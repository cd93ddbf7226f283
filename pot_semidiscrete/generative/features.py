"""Features by which points are compared instead of their coordinates."""

import copy
import math
from collections.abc import Callable
from typing import Self, TypeAlias

import torch
from ot.backend import get_backend
from torch import nn

from ..backend import describe, ours
from ..metrics.transport import BLOCK
from ..problem import check_callable, check_count, check_real
from ..samplers.resolve import resolve_random
from .data import in_shape

Features: TypeAlias = Callable[..., torch.Tensor]
"""Points of any shape to one row of features each; a module or a function."""


def frozen(module: nn.Module) -> nn.Module:
    """A copy in eval mode, whose parameters are not trained."""
    try:
        module = copy.deepcopy(module).eval()
    except RuntimeError as error:  # what parametrisations of weights leave behind
        raise ValueError(
            f"features, body: expected a module that can be copied, received {describe(module)} "
            f"({error}); remove its weight or spectral norm, or give a function."
        ) from error
    for parameter in module.parameters():  # one by one: a compiled script has no requires_grad_
        parameter.requires_grad_(False)
    return module


def in_parts(function: Features, points: torch.Tensor) -> torch.Tensor:
    """A function of points, evaluated in parts and without a graph."""
    with torch.no_grad():
        return torch.cat([function(part) for part in points.split(BLOCK)])


class FeatureMap:
    """The `features` of a loss: points, of the shape of the data `points`, to one row each.

    Of a module, a frozen copy is kept.
    """

    def __init__(self, function: Features, points: torch.Tensor) -> None:
        check_callable("features", function, "points -> features")
        self.function = frozen(function) if isinstance(function, nn.Module) else function
        self.shape = points.shape[1:]
        with torch.no_grad():
            self.check(points[:BLOCK])

    def check(self, points: torch.Tensor, rtol: float = 1e-3) -> None:
        """Refuse what is not one row of numbers for each point, the same in each call.

        To within `rtol` of the largest feature: products of other sizes round otherwise.
        """
        found = self.function(points)
        is_floating = isinstance(found, torch.Tensor) and found.is_floating_point()
        if not is_floating or found.ndim == 0 or len(found) != len(points):
            raise ValueError(
                f"features: expected a callable that returns a floating tensor of {len(points)} rows "
                f"for points of shape {tuple(points.shape)}, received {describe(found)}."
            )
        few = 1 + len(points) // 3
        change = (self.function(points[:few]) - found[:few]).abs().max()
        if change > max(rtol, 8.0 * torch.finfo(found.dtype).eps) * found.abs().max():
            raise ValueError(
                "features: expected the same features of a point in each call, received others in a "
                "call with fewer points; leave out dropout, and what a batch has in common."
            )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Features of the points `x`, of any shape, in their dtype."""
        if x.shape[1:] != self.shape and x[0].numel() == math.prod(self.shape):
            x = x.reshape(-1, *self.shape)
        return self.function(x).flatten(1).to(x.dtype)

    def to(self, device: torch.device) -> None:
        """Move a module."""
        if isinstance(self.function, nn.Module):
            self.function.to(device)


def principal_components(
    x: torch.Tensor, n_components: int, start: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Principal components, nearly: an orthonormal matrix (d, n_components), and shares of variance.

    By two steps of randomized subspace iteration (Halko, Martinsson, Tropp, 2011, algorithm 4.4), each a
    pass over the data `x`, shape (n, d). `start` has normal numbers, shape (d, k); k is twice
    `n_components`, say.
    """
    mean, basis = x.mean(dim=0), start

    def covariance(q: torch.Tensor) -> torch.Tensor:
        image = x @ q - mean @ q
        return x.T @ image - mean[:, None] * image.sum(dim=0)

    for _ in range(2):
        basis = torch.linalg.qr(covariance(torch.linalg.qr(basis)[0]))[0]
    small = basis.T @ covariance(basis)
    values, vectors = torch.linalg.eigh((small + small.T) / 2.0)
    shares = values.flip(0)[:n_components] / (len(x) * x.var(dim=0, correction=0).sum())
    return (basis @ vectors.flip(1)[:, :n_components]).contiguous(), shares


class Modulus(nn.Module):
    """The absolute value, smooth at 0: ``sqrt(x^2 + smoothing unit^2)``."""

    unit: torch.Tensor  # standard deviation of a pixel
    smoothing = 0.015

    def __init__(self, unit: float) -> None:
        super().__init__()
        self.register_buffer("unit", torch.tensor(unit, dtype=torch.float32, device="cpu"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Smoothed absolute value of each number."""
        return (x.square() + self.smoothing * self.unit**2).sqrt()


@ours()
def random_filters(
    n_filters: int = 16,
    size: int = 5,
    *,
    channels: int = 1,
    unit: float = 0.25,
    random_state: object = 0,
) -> nn.Sequential:
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
    unit : float, default=0.25
        Standard deviation of a pixel: responses below an eighth of it count as next to none.
    random_state : None, int, numpy Generator or RandomState, or torch Generator, default=0
        Randomness of the filters.

    Returns
    -------
    torch.nn.Sequential
        ``(n, channels, height, width) -> (n, n_filters, height / 4, width / 4)``; in float32 and on the
        processor, whatever torch's defaults.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind or range.

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
    for name, value in {"n_filters": n_filters, "channels": channels}.items():
        check_count(name, value)
    check_count("size", size, minimum=2)
    unit = check_real("unit", unit)
    # its own initialisation would take random numbers of torch's global generator
    options = {"stride": 2, "padding": size // 2, "bias": False, "dtype": torch.float32}
    filters = nn.utils.skip_init(nn.Conv2d, channels, n_filters, size, **options)
    random = resolve_random(random_state, get_backend(filters.weight), filters.weight)
    with torch.no_grad():
        weight = random.normal(n_filters, filters.weight[0].numel())
        weight = weight - weight.mean(dim=1, keepdim=True)
        filters.weight.copy_((weight / weight.norm(dim=1, keepdim=True)).reshape(filters.weight.shape))
    return nn.Sequential(filters, Modulus(unit), nn.AvgPool2d(2))


class ImageFeatures(nn.Module):
    r"""Images as their pixels beside features: the `features` of a loss.

    .. math:: \varphi(x) = (x,\; s\, f(x)), \qquad
              |\varphi(x) - \varphi(y)|^2 = |x - y|^2 + s^2\, |f(x) - f(y)|^2,

    with s such that the features have a given share of the variance of the data. By pixels, the average
    of two images is at a quarter of their squared distance from each: blur costs little. Features that
    tell averages from images make it cost more.

    Parameters
    ----------
    images : tensor, shape (n, height, width) or (n, channels, height, width)
        Data, which set the scale.
    body : torch.nn.Module, optional
        The map f, ``(n, channels, height, width) -> (n, ...)``; a copy is kept, in eval mode and frozen.
        :func:`random_filters` by default.
    share : float, default=0.6
        Share of the features in the variance, at least 0 and below 1.
    n_components : int, optional
        Number of principal components of images and features together that are kept: distances are
        nearly the same, and cost less. By default all coordinates.

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

    scale: torch.Tensor
    directions: torch.Tensor | None

    @ours()
    def __init__(
        self,
        images: torch.Tensor,
        body: nn.Module | None = None,
        share: float = 0.6,
        *,
        n_components: int | None = None,
    ) -> None:
        super().__init__()
        shaped = isinstance(images, torch.Tensor) and images.is_floating_point()
        if not shaped or images.ndim not in (3, 4) or 0 in images.shape:
            raise ValueError(
                "images: expected a floating tensor of shape (n, height, width) or (n, channels, "
                f"height, width), received {describe(images)}."
            )
        share = check_real("share", share)
        if not share < 1.0:
            raise ValueError(f"share: expected a number in [0, 1), received {share:g}.")
        images, self.shape = images.detach(), images.shape[1:]
        spread = lambda x: x.var(dim=0, unbiased=False).sum()
        pixels = spread(images.flatten(1))
        if not 0.0 < float(pixels) < math.inf:
            raise ValueError(
                f"images: expected images that differ, received a variance of {float(pixels):g}."
            )
        if body is None:
            unit = float((pixels / images[0].numel()).sqrt())
            body = random_filters(channels=1 if images.ndim == 3 else images.shape[1], unit=unit)
        if not isinstance(body, nn.Module):
            raise TypeError(f"body: expected a torch.nn.Module, received {describe(body)}.")
        self.body = frozen(body).to(images)
        seen = spread(in_parts(self.seen, images))
        if not (0.0 < float(seen) < math.inf or share == 0.0):
            raise ValueError(
                f"body: expected features that differ between images, received a variance of {seen:g}."
            )
        ratio = share / (1.0 - share)
        self.register_buffer("scale", (ratio * pixels / seen.clamp(min=1e-30)).sqrt())
        self.register_buffer("directions", None)
        if n_components is not None:
            k, rows = check_count("n_components", n_components), in_parts(self._joined, images)
            d = rows.shape[1]
            if k < d:
                start = resolve_random(0, get_backend(rows), rows).normal(d, min(2 * k, d))
                self.directions = principal_components(rows, k, start)[0]

    def seen(self, x: torch.Tensor) -> torch.Tensor:
        """Features of images, one row each."""
        x = in_shape(x, self.shape)
        return self.body(x[:, None] if x.ndim == 3 else x).flatten(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels and features of images, or their main components, one row each, in full precision."""
        kind = x.device.type if isinstance(x, torch.Tensor) else "cpu"
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):  # and not ours(), which torch.compile cannot trace
                return self.forward(x.to(self.scale.dtype))
        rows = self._joined(x)
        return rows if self.directions is None else rows @ self.directions

    def _joined(self, x: torch.Tensor) -> torch.Tensor:
        """Pixels and features of images side by side."""
        seen = self.seen(x)
        return torch.cat([x.flatten(1), self.scale * seen], dim=1)

    def train(self, mode: bool = True) -> Self:
        """Leave the body in eval mode: its features must not change."""
        super().train(mode)
        self.body.eval()
        return self
