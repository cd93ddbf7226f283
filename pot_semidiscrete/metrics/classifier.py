"""What classes generated images belong to."""

from typing import Any

import numpy as np

from ..backend import ours
from ..problem import check_count, check_images, check_labels, check_shares
from ..samplers.sobol import resolve_seed
from .transport import BLOCK


@ours()
def class_shares(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Share of each class among labels.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
    n_classes : int

    Returns
    -------
    ndarray, shape (n_classes,)

    Examples
    --------
    >>> import numpy as np
    >>> class_shares(np.array([0, 2, 2, 2]), 3)
    array([0.25, 0.  , 0.75])
    """
    labels, n_classes = check_labels("labels", labels), check_count("n_classes", n_classes)
    if labels.max() >= n_classes:
        raise ValueError(
            f"labels: expected classes below n_classes, {n_classes}, received {labels.max()}; count "
            "them from 0, or give a larger n_classes."
        )
    return np.bincount(labels, minlength=n_classes) / len(labels)


@ours()
def entropy(shares: np.ndarray) -> float:
    """Entropy of a vector of shares, in nats: at most the logarithm of its length.

    Parameters
    ----------
    shares : ndarray, shape (n,)
        Non-negative, of sum 1 to within 1e-4; they are divided by their sum.

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> round(entropy(np.array([0.5, 0.5, 0.0])), 6)
    0.693147
    """
    shares = check_shares("shares", shares)
    positive = shares[shares > 0]
    return float(0.0 - (positive * np.log(positive)).sum())


class Classifier:
    """A small convolutional network trained on the spot (needs torch).

    Two convolutions with pooling, a hidden layer of 64 features, Adam. A few seconds for small
    images, half a minute for those of MNIST.

    Parameters
    ----------
    images : ndarray, shape (n, height, width) or (n, channels, height, width)
        At least 4 by 4 pixels.
    labels : ndarray of int, shape (n,)
        Classes, from 0.
    n_steps : int
        Steps of training, on 128 images each.
    random_state : None, int or numpy.random.Generator

    Raises
    ------
    ImportError
        Without torch.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits()
    >>> classifier = Classifier(digits.images / 16.0, digits.target, n_steps=300)
    >>> classifier.labels(digits.images[:5] / 16.0)
    array([0, 1, 2, 3, 4])
    >>> classifier.features(digits.images).shape
    (1797, 64)
    """

    @ours()
    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        *,
        n_steps: int = 1500,
        random_state: int | np.random.Generator | None = 0,
    ) -> None:
        try:
            import torch
            from torch import nn
        except ImportError as error:
            raise ImportError(
                "metrics.Classifier needs torch: install it, or pot_semidiscrete[torch]."
            ) from error

        images, labels = check_images("images", images), check_labels("labels", labels)
        n_steps, seed = check_count("n_steps", n_steps), resolve_seed(random_state)
        if len(labels) != len(images):
            raise ValueError(
                f"labels: expected one for each of {len(images)} images, received {len(labels)}."
            )
        self.shape = images.shape[1:]
        height, width = self.shape[-2:]
        n_channels = 1 if len(self.shape) == 2 else self.shape[0]
        if min(height, width) < 4:
            raise ValueError(f"images: expected at least 4 by 4 pixels, received {height} by {width}.")
        self.n_classes = int(labels.max()) + 1
        kind: Any = {"dtype": torch.float32, "device": "cpu"}
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.body = nn.Sequential(
                *(nn.Conv2d(n_channels, 16, 3, padding=1, **kind), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Conv2d(16, 32, 3, padding=1, **kind), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Flatten(), nn.Linear(32 * (height // 4) * (width // 4), 64, **kind), nn.ReLU()),
            )
            self.head = nn.Linear(64, self.n_classes, **kind)
        x, classes = self._tensor(images), torch.from_numpy(np.array(labels)).long()
        parameters = [*self.body.parameters(), *self.head.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=1e-3)
        rng = torch.Generator().manual_seed(seed)
        for _ in range(n_steps):
            batch = torch.randint(len(x), (128,), generator=rng, device="cpu")
            optimizer.zero_grad()
            with torch.enable_grad():
                logits = self.head(self.body(x[batch]))
                nn.functional.cross_entropy(logits, classes[batch]).backward()
            optimizer.step()

    def __repr__(self) -> str:
        return f"Classifier(shape={self.shape}, n_classes={self.n_classes})"

    @ours()
    def features(self, images: np.ndarray) -> np.ndarray:
        """Values of the hidden layer, ndarray of shape (n, 64)."""
        import torch

        images = check_images("images", images, self.shape)
        with torch.no_grad():
            parts = [self.body(part) for part in self._tensor(images).split(BLOCK)]
        return torch.cat(parts).numpy()

    @ours()
    def labels(self, images: np.ndarray) -> np.ndarray:
        """Classes, ndarray of int of shape (n,)."""
        import torch

        with torch.no_grad():
            return self.head(torch.from_numpy(self.features(images))).argmax(dim=1).numpy()

    @staticmethod
    def _tensor(images: np.ndarray) -> Any:
        """Images in float32, with an axis of channels."""
        import torch

        x = torch.from_numpy(np.array(images, dtype=np.float32))
        return x[:, None] if x.ndim == 3 else x
