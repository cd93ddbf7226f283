"""Directions in which data vary most."""

import torch


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
