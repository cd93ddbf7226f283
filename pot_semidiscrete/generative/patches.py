"""Textures: images whose patches have the law of those of an example."""

from typing import Any

import torch
import torch.nn.functional as F
from ot.backend import get_backend
from torch import nn

from ..backend import describe, ours
from ..problem import check_count, check_points, check_real, scale_of
from ..samplers.resolve import resolve_random
from .loss import SemiDiscreteLoss


class PatchLoss(nn.Module):
    r"""Transport cost from the patches of an image to those of an example, at several scales.

    .. math:: L(x) = \sum_{s=0}^{S-1} \mathrm{OT}_\lambda\big(P_s(x), P_s(\mathrm{example})\big),

    with :math:`P_s` the uniform law on all patches of an image whose sides were halved s times. An
    image that minimises it has the patches of the example with the same frequencies: the same texture.
    It may have another size, or be the output of a generator.

    Parameters
    ----------
    image : tensor, shape (height, width) or (channels, height, width)
        The example.
    patch_size : int, default=7
        Sides of a patch, in pixels of its scale.
    n_scales : int, default=4
        Number of scales. At the last one pixels are means of squares of ``2 ** (n_scales - 1)`` pixels.
    n_atoms : int, default=1000
        Largest number of patches of the example at each scale, drawn without replacement.
    reg : float, optional
        Regularisation, in units of squared distances of patches, at all scales. 0.1% of the cost scale
        of each by default. In a descent from noise, let it fall: :meth:`anneal`.
    random_state : None, int, numpy Generator or RandomState, or torch Generator
        Randomness of the atoms.

    Attributes
    ----------
    losses : torch.nn.ModuleList of SemiDiscreteLoss
        One for each scale, the finest first. Their potentials are in ``state_dict``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape, dtype or range, or is too small for the scales.

    References
    ----------
    Galerne, Leclaire, Rabin, "A Texture Synthesis Model Based on Semi-Discrete Optimal Transport in
    Patch Space", SIAM Journal on Imaging Sciences 11, 2018; Houdard, Leclaire, Papadakis, Rabin, "A
    Generative Model for Texture Synthesis Based on Optimal Transport Between Feature Distributions",
    Journal of Mathematical Imaging and Vision 65, 2023; Rose, "Deterministic Annealing for Clustering,
    Compression, Classification, Regression, and Related Optimization Problems", Proceedings of the IEEE
    86, 1998 (:meth:`anneal`).

    Examples
    --------
    >>> import torch
    >>> from pot_semidiscrete.generative import PatchLoss
    >>> example = torch.rand(32, 32, generator=torch.Generator().manual_seed(0))
    >>> loss = PatchLoss(example, patch_size=5, n_scales=2, n_atoms=200, random_state=0)
    >>> x = torch.full((24, 40), 0.5, requires_grad=True)
    >>> loss.follow(x)
    >>> loss(x).backward()
    >>> x.grad.shape
    torch.Size([24, 40])
    """

    losses: Any

    @ours()
    def __init__(
        self,
        image: torch.Tensor,
        *,
        patch_size: int = 7,
        n_scales: int = 4,
        n_atoms: int = 1000,
        reg: float | None = None,
        random_state: object = None,
    ) -> None:
        super().__init__()
        n_scales, n_atoms = check_count("n_scales", n_scales), check_count("n_atoms", n_atoms)
        self.patch_size = check_count("patch_size", patch_size)
        if getattr(image, "requires_grad", False) or getattr(image, "ndim", 2) == 4:
            raise ValueError(f"image: expected one image, without a graph, received {describe(image)}.")
        self.channels = image.shape[0] if getattr(image, "ndim", 2) == 3 else 1
        scales = patches_of("image", image, self.channels, self.patch_size, n_scales)
        random = resolve_random(random_state, get_backend(scales[0]), scales[0])
        self.losses, self._regs = nn.ModuleList(), []
        for rows in scales:
            chosen = random.uniform(len(rows), 1)[:, 0].argsort()[:n_atoms]
            loss = SemiDiscreteLoss(rows[chosen])
            # patches differ most in their means: a larger reg would see little else
            fine = 0.1 * loss.reg
            loss.reg = fine if reg is None else reg
            self._regs.append((max(scale_of(loss.target), loss.reg), loss.reg or fine, loss.reg))
            self.losses.append(loss)

    @ours()
    def anneal(self, share: float) -> None:
        """Set the regularisations for a descent of which this share is done.

        Patches overlap, so the cost of a picture has many local minima, the fewer the larger `reg` is.
        Over a descent it falls geometrically, from the mean squared distance between patches of the
        example, where all patches move towards their mean (deterministic annealing, Rose 1998).

        Parameters
        ----------
        share : float
            0 at the start. From 1 on, as without this call, `reg` holds.
        """
        share = min(check_real("share", share), 1.0)
        for loss, (start, end, reg) in zip(self.losses, self._regs, strict=True):
            loss.reg = start ** (1.0 - share) * end**share if share < 1.0 else reg

    @ours()
    @torch.no_grad()
    def follow(self, x: torch.Tensor) -> None:
        """Move the potentials by a round of small steps with all patches of images.

        Call it before each step of the image or the generator: see :meth:`SemiDiscreteLoss.follow`.

        Parameters
        ----------
        x : tensor, shape (height, width), (channels, height, width) or (n, channels, height, width)
            Images; their graph is not followed. Grey ones may be of shape (n, height, width).
        """
        for loss, rows in zip(self.losses, self.patches(x), strict=True):
            loss.follow(rows)

    @ours()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sum of the semi-dual values of images, of shapes as in :meth:`follow`."""
        scales = zip(self.losses, self.patches(x), strict=True)
        return torch.stack([loss(rows) for loss, rows in scales]).sum()

    @ours()
    def patches(self, x: torch.Tensor) -> list[torch.Tensor]:
        """All patches of images, of shapes as in :meth:`follow`: one row each, for each scale."""
        if isinstance(x, torch.Tensor) and x.is_floating_point():
            x = x.to(self.losses[0].potential.dtype)
        return patches_of("x", x, self.channels, self.patch_size, len(self.losses))

    def extra_repr(self) -> str:
        """What ``repr`` tells beside the losses."""
        return f"patch_size={self.patch_size}, channels={self.channels}"


def patches_of(
    name: str, x: torch.Tensor, channels: int, patch_size: int, n_scales: int
) -> list[torch.Tensor]:
    """Check images; all their patches, one row each, for each scale."""
    c, least = channels, patch_size * 2 ** (n_scales - 1)
    kind = f"of shape (height, width), ({c}, height, width) or (n, {c}, height, width)"
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        raise TypeError(f"{name}: expected a floating tensor, {kind}, received {describe(x)}.")
    is_grey = c == 1 and x.ndim in (2, 3)
    if not (is_grey or (x.ndim in (3, 4) and x.shape[-3] == c)) or min(x.shape) < 1:
        raise ValueError(f"{name}: expected one {kind}, received {describe(x)}; permute its axes.")
    if min(x.shape[-2:]) < least:
        raise ValueError(
            f"{name}: expected a height and a width of at least {least} pixels, received {describe(x)}; "
            "take fewer scales, or permute its axes if channels come last."
        )
    x, found = x.reshape(-1, c, *x.shape[-2:]), []
    for scale in range(n_scales):
        x = F.avg_pool2d(x, 2) if scale else x
        rows = F.unfold(x, patch_size).transpose(1, 2).flatten(0, 1)
        found.append(check_points(name, rows)[0])
    return found
