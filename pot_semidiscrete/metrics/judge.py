"""All measures of generated images at once."""

import numpy as np

from ..backend import describe, ours
from ..problem import check_images
from ..samplers.sobol import resolve_seed
from .classifier import Classifier, class_shares, entropy
from .neighbors import coverage, precision_recall
from .transport import covariance_ratio, flat, frechet_distance, nearest_cost, transport_cost


class Judge:
    """All measures of generated images, beside those that training images would get.

    ``judge(images)`` returns a dictionary; ``judge.floor`` is that of training images.

    ===================  =======================================================================
    ``cost``             exact transport cost to the held-out images, over the mean squared norm
    ``covariance``       ratio of covariance traces, over the held-out images
    ``nearest``          cost to the nearest training image, in the same unit: near 0 for copies
    ``frechet``          Frechet distance to the held-out images in a classifier's features
    ``precision``        share of the images that lie among the held-out ones, by those features
    ``recall``           share of the held-out ones that lie among the images
    ``coverage``         share of the held-out ones that an image comes near to
    ``entropy``          entropy of the classes that it finds
    ``rarest``           share of the rarest class
    ===================  =======================================================================

    Read them together: averages of the data have a low cost, and copies a low Frechet distance.

    Parameters
    ----------
    images : ndarray, shape (n, height, width) or (n, channels, height, width)
        Training images: the atoms.
    held_out : ndarray, shape (m, ...)
        Held-out images; 2,000 take seconds, and the time grows as the square.
    classifier : Classifier
        Classifier trained on these images, or on more of the kind.
    random_state : None, int or numpy.random.Generator

    Attributes
    ----------
    floor : dict of float
        Measures of as many training images as there are held-out ones (at most half of all, and
        ``nearest`` is to the others).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> digits = load_digits()
    >>> images, classes = digits.images / 16.0, digits.target
    >>> classifier = Classifier(images[:1400], classes[:1400], n_steps=100)
    >>> judge = Judge(images[:1400], images[1400:], classifier)
    >>> blank = judge(0.0 * images[:300])
    >>> blank["covariance"], blank["entropy"]
    (0.0, 0.0)
    >>> blank["frechet"] > 10 * judge.floor["frechet"]
    True
    """

    @ours()
    def __init__(
        self,
        images: np.ndarray,
        held_out: np.ndarray,
        classifier: Classifier,
        *,
        random_state: int | np.random.Generator | None = 0,
    ) -> None:
        seed = resolve_seed(random_state)
        self.train = images = check_images("images", images, least=8)
        self.held_out = held_out = check_images("held_out", held_out, images.shape[1:], least=6)
        if not all(hasattr(classifier, name) for name in ("features", "labels", "n_classes")):
            raise TypeError(
                f"classifier: expected a Classifier, received {describe(classifier)}; train one on the "
                "images and their classes."
            )
        self.unit = float((flat(images).astype(float) ** 2).sum(axis=1).mean())
        if self.unit == 0.0:
            raise ValueError("images: expected images that are not all blank, received such.")
        if (held_out == held_out[:1]).all():
            raise ValueError("held_out: expected images that differ, received copies of one.")
        self.classifier = classifier
        self._features = classifier.features(held_out)
        order = np.random.default_rng(seed).permutation(len(images))
        few, others = np.split(order, [min(len(held_out), len(images) // 2)])
        self.floor = self._measure(images[few], images[others])

    def __repr__(self) -> str:
        return f"Judge(n={len(self.train)}, n_held_out={len(self.held_out)}, {self.classifier})"

    @ours()
    def __call__(self, images: np.ndarray) -> dict[str, float]:
        """Measures of generated images, ndarray of shape (k, ...): a dict of float."""
        return self._measure(check_images("images", images, self.train.shape[1:], least=4), self.train)

    def _measure(self, images: np.ndarray, train: np.ndarray) -> dict[str, float]:
        """All measures of images, ``nearest`` to those of `train`."""
        shares = class_shares(self.classifier.labels(images), self.classifier.n_classes)
        features = self.classifier.features(images)
        precision, recall = precision_recall(features, self._features)
        return {
            "cost": transport_cost(images, self.held_out, self.unit),
            "covariance": covariance_ratio(images, self.held_out),
            "nearest": nearest_cost(images, train, self.unit),
            "frechet": frechet_distance(features, self._features),
            "precision": precision,
            "recall": recall,
            "coverage": coverage(features, self._features),
            "entropy": entropy(shares),
            "rarest": float(shares.min()),
        }
