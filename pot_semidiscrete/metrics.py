"""Measures of how close generated points are to data."""

import numpy as np
import ot

from .solve import solve_semidiscrete

BLOCK = 500  # points at a time


def _samples(x, y):
    """Points of any shape as rows of one length, in double precision."""
    x, y = (np.asarray(points, dtype=float) for points in (x, y))
    if x.ndim < 2 or y.ndim < 2 or x.shape[1:] != y.shape[1:] or 0 in x.shape + y.shape:
        raise ValueError(
            "x, y: expected points of one shape, arrays of shape (n, ...) and (m, ...), received shapes "
            f"{x.shape} and {y.shape}."
        )
    return _flat(x), _flat(y)


def transport_cost(x, y, unit=1.0):
    """Exact squared Euclidean transport cost between two samples, by :func:`ot.emd2`.

    Alone it can be gamed, by points that are averages of data: see :func:`covariance_ratio`.

    Parameters
    ----------
    x : ndarray, shape (n, ...)
    y : ndarray, shape (m, ...)
    unit : float
        What to divide the cost by.

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> transport_cost(np.zeros((2, 1)), np.ones((2, 1)))
    1.0
    """
    x, y = _samples(x, y)
    # 10 million iterations: ot.emd2's own limit is met at 2,000 points
    return float(ot.emd2([], [], ot.dist(x, y), numItermax=10_000_000)) / unit


def semi_dual_value(sampler, y, reg, *, n_batches=50, batch_size=200, unit=1.0):
    """Regularised transport cost from a source to data, and a 95% interval of it.

    Unlike :func:`transport_cost`, that of the law itself, and not of a sample; with the `reg` that a
    generator was trained with, it is what training lowers. The estimate is the semi-dual value on fresh
    points, at a potential solved for anew.

    Parameters
    ----------
    sampler : callable
        ``n -> x``, shape (n, d), in the backend of `y`.
    y : array, shape (m, d)
        Data.
    reg : float
        Regularisation, in units of the squared distance.
    n_batches, batch_size : int
        Points to solve with; an interval takes some of its own.
    unit : float
        What to divide the cost by.

    Returns
    -------
    value : float
    interval : tuple of float

    Examples
    --------
    >>> import numpy as np
    >>> normal = np.random.default_rng(0).normal
    >>> value, (low, high) = semi_dual_value(lambda n: normal(size=(n, 1)), np.array([[2.0]]), 0.1)
    >>> low < 5.0 < high  # the squared distance to the only point is 1 + 2**2
    True
    """
    result = solve_semidiscrete(y, sampler, reg=reg, tol=0, max_iter=n_batches, batch_size=batch_size)
    low, high = result.value_interval
    return float(result.value) / unit, (low / unit, high / unit)


def covariance_ratio(x, y):
    """Trace of the covariance of `x` over that of `y`: below 1, `x` lacks diversity.

    Parameters
    ----------
    x : ndarray, shape (n, ...)
    y : ndarray, shape (m, ...)

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> covariance_ratio(np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]]))
    0.25
    """
    x, y = _samples(x, y)
    return float(x.var(axis=0, ddof=1).sum() / y.var(axis=0, ddof=1).sum())


def nearest_cost(x, y, unit=1.0):
    """Mean squared distance from the points `x` to the nearest of `y`: near 0, they are copies.

    Parameters
    ----------
    x : ndarray, shape (n, ...)
    y : ndarray, shape (m, ...)
    unit : float
        What to divide it by.

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> nearest_cost(np.array([[0.0], [1.0]]), np.array([[0.0], [3.0]]))
    0.5
    """
    x, y = _samples(x, y)
    nearest = [ot.dist(part, y).min(axis=1) for part in np.array_split(x, -(-len(x) // BLOCK))]
    return float(np.concatenate(nearest).mean()) / unit


def frechet_distance(x, y):
    r"""Squared Wasserstein distance between the Gaussian laws fitted to two samples.

    .. math:: |m_x - m_y|^2 + \mathrm{tr}\big(C_x + C_y - 2 (C_x^{1/2} C_y C_x^{1/2})^{1/2}\big).

    Of the features of a network it is what is called FID (Heusel et al., arXiv:1706.08500).

    Parameters
    ----------
    x : ndarray, shape (n, ...)
    y : ndarray, shape (m, ...)

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> frechet_distance(np.array([[-1.0], [1.0]]), np.array([[0.0], [4.0]]))  # sd sqrt(2), sqrt(8)
    6.0
    """
    x, y = _samples(x, y)
    cx, cy = (np.atleast_2d(np.cov(points.T)) for points in (x, y))
    values, vectors = np.linalg.eigh(cx)
    root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cy @ root), 0.0)).sum()
    distance = ((x.mean(axis=0) - y.mean(axis=0)) ** 2).sum() + np.trace(cx) + np.trace(cy) - 2 * cross
    return float(np.round(distance, 12))


def class_shares(labels, n_classes):
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
    return np.bincount(labels, minlength=n_classes) / len(labels)


def entropy(shares):
    """Entropy of a vector of shares, in nats: at most the logarithm of its length.

    Parameters
    ----------
    shares : ndarray, shape (n,)

    Returns
    -------
    float

    Examples
    --------
    >>> import numpy as np
    >>> round(entropy(np.array([0.5, 0.5, 0.0])), 6)
    0.693147
    """
    positive = shares[shares > 0]
    return float((positive * np.log(1.0 / positive)).sum())


class Classifier:
    """A small convolutional network trained on the spot (needs torch).

    Two convolutions with pooling, a hidden layer of 64 features, Adam. A few seconds for small
    images, half a minute for those of MNIST.

    Parameters
    ----------
    images : ndarray, shape (n, height, width)
        At least 4 by 4 pixels.
    labels : ndarray of int, shape (n,)
        Classes, from 0.
    n_steps : int
        Steps of training, on 128 images each.
    random_state : int

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

    def __init__(self, images, labels, *, n_steps=1500, random_state=0):
        import torch
        from torch import nn

        _, height, width = images.shape
        self.n_classes = int(labels.max()) + 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_state)
            self.body = nn.Sequential(
                *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Flatten(), nn.Linear(32 * (height // 4) * (width // 4), 64), nn.ReLU()),
            )
            self.head = nn.Linear(64, self.n_classes)
        x, labels = self._tensor(images), torch.as_tensor(labels).long()
        parameters = [*self.body.parameters(), *self.head.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=1e-3)
        rng = torch.Generator().manual_seed(random_state)
        for _ in range(n_steps):
            batch = torch.randint(len(x), (128,), generator=rng)
            optimizer.zero_grad()
            logits = self.head(self.body(x[batch]))
            nn.functional.cross_entropy(logits, labels[batch]).backward()
            optimizer.step()

    def features(self, images):
        """Values of the hidden layer, ndarray of shape (n, 64)."""
        import torch

        with torch.no_grad():
            parts = [self.body(part) for part in self._tensor(images).split(BLOCK)]
        return torch.cat(parts).numpy()

    def labels(self, images):
        """Classes, ndarray of int of shape (n,)."""
        import torch

        with torch.no_grad():
            return self.head(torch.as_tensor(self.features(images))).argmax(dim=1).numpy()

    @staticmethod
    def _tensor(images):
        import torch

        return torch.as_tensor(np.asarray(images, dtype=np.float32))[:, None]


class Judge:
    """All measures of generated images, beside those that training images would get.

    ``judge(images)`` returns a dictionary; ``judge.floor`` is that of training images.

    ===================  =======================================================================
    ``cost``             exact transport cost to the held-out images, over the mean squared norm
    ``covariance``       ratio of covariance traces, over the held-out images
    ``nearest``          cost to the nearest training image, in the same unit: near 0 for copies
    ``frechet``          Frechet distance to the held-out images in a classifier's features
    ``entropy``          entropy of the classes that it finds
    ``rarest``           share of the rarest class
    ===================  =======================================================================

    The cost alone is gamed by averages of the data, the distance in features by copies of them.

    Parameters
    ----------
    images : ndarray, shape (n, height, width)
        Training images: the atoms.
    held_out : ndarray, shape (m, height, width)
        Images that the generator has not seen; 2,000 take seconds, the time grows as the square.
    classifier : Classifier
        Trained on them, or on more of the kind.
    random_state : int

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

    def __init__(self, images, held_out, classifier, *, random_state=0):
        self.train, self.held_out = images, held_out
        self.unit = float((_flat(images).astype(float) ** 2).sum(axis=1).mean())
        self.classifier = classifier
        self._features = classifier.features(held_out)
        order = np.random.default_rng(random_state).permutation(len(images))
        some, rest = np.split(order, [min(len(held_out), len(images) // 2)])
        self.floor = self._measure(images[some], self.train[rest])

    def __call__(self, images):
        """Measures of generated images, ndarray of shape (k, height, width): a dict of float."""
        return self._measure(images, self.train)

    def _measure(self, images, train):
        shares = class_shares(self.classifier.labels(images), self.classifier.n_classes)
        return {
            "cost": transport_cost(images, self.held_out, self.unit),
            "covariance": covariance_ratio(images, self.held_out),
            "nearest": nearest_cost(images, train, self.unit),
            "frechet": frechet_distance(self.classifier.features(images), self._features),
            "entropy": entropy(shares),
            "rarest": float(shares.min()),
        }


def _flat(images):
    return images.reshape(len(images), -1)
