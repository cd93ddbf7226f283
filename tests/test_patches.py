"""Textures: the cost from the patches of images to those of an example."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional

from pot_semidiscrete.generative import PatchLoss  # noqa: E402

OPTIONS = {"patch_size": 3, "n_scales": 2, "random_state": 0}


def image(*shape, seed=0, dtype=torch.float64):
    """Stripes, and noise."""
    rng = np.random.default_rng(seed)
    stripes = (np.arange(shape[-1]) + np.arange(shape[-2])[:, None]) % 4 < 2
    return torch.as_tensor(stripes + 0.3 * rng.random(shape), dtype=dtype)


def rows(x, k):
    """Patches by slices."""
    height, width = x.shape[-2:]
    found = [x[..., i : i + k, j : j + k] for i in range(height - k + 1) for j in range(width - k + 1)]
    return torch.stack([patch.flatten() for patch in found])


def halved(x):
    """Means of two by two pixels."""
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4.0


def dense(loss, x):
    """The loss with all costs in memory, differentiated by torch alone."""
    total = 0.0
    for one, patches in zip(loss.losses, (rows(x, 3), rows(halved(x), 3)), strict=True):
        atoms = one.target.atoms + (0.0 if one.target.origin is None else one.target.origin)
        psi = one.target.gather(one.potential)
        scores = psi - torch.cdist(patches, atoms).square()
        if one.reg > 0:
            logits = scores / one.reg + one.target.weights.log()
            value = -one.reg * logits.logsumexp(1)
        else:
            value = -scores.max(1).values
        total = total + value.mean() + one.target.weights @ psi
    return total


@pytest.mark.parametrize("reg", [0.0, 0.2, None])
@pytest.mark.parametrize("shape", [(12, 14), (3, 12, 14)], ids=str)
def test_value_and_gradient_are_those_of_all_patches(shape, reg):
    loss = PatchLoss(image(*shape), n_atoms=50, reg=reg, **OPTIONS)
    x = image(*shape[:-2], 10, 12, seed=1).requires_grad_()
    loss.follow(x)
    assert all(one.potential.abs().max() > 0 for one in loss.losses)
    value, expected = loss(x), dense(loss, x)
    torch.testing.assert_close(value, expected)
    (found,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(found, torch.autograd.grad(expected, x)[0])


@pytest.mark.parametrize("reg", [0.0, 0.2, 100.0, None])
def test_annealing_falls_geometrically_to_reg(reg):
    """From the mean squared distance between atoms; ``reg = 0`` holds at the end alone."""
    loss, plain = (PatchLoss(image(12, 14), n_atoms=50, reg=reg, **OPTIONS) for _ in range(2))
    regs = {}
    for share in (0.0, 0.25, 0.5, 1.0, 3.0):
        loss.anneal(share)
        regs[share] = np.array([one.reg for one in loss.losses])
    atoms = [one.target.atoms for one in loss.losses]
    scales = [float(torch.cdist(y, y).square().mean()) for y in atoms]
    np.testing.assert_allclose(regs[0.0], np.maximum(scales, reg or 0.0))
    np.testing.assert_allclose(regs[0.25] ** 2, regs[0.0] * regs[0.5])
    end = 1e-3 * np.array(scales) if reg in (0.0, None) else reg
    np.testing.assert_allclose(regs[0.5] ** 2, regs[0.0] * end)
    for share in (1.0, 3.0):
        np.testing.assert_array_equal(regs[share], [one.reg for one in plain.losses])


def test_atoms_are_patches_each_once():
    example = image(12, 14)
    few, all_of = (PatchLoss(example, n_atoms=n, **OPTIONS) for n in (40, 1000))
    for scale, patches in enumerate(few.patches(example)):
        for loss, n in ((few, 40), (all_of, 1000)):
            target = loss.losses[scale].target
            atoms = target.atoms + (0.0 if target.origin is None else target.origin)
            distances = torch.cdist(atoms, patches, compute_mode="donot_use_mm_for_euclid_dist")
            assert distances.min(1).values.max() < 1e-12
            assert len(distances.argmin(1).unique()) == min(n, len(patches))
    again = PatchLoss(example, n_atoms=40, **OPTIONS)
    x = image(9, 9)
    assert again(x) == few(x) != PatchLoss(example, n_atoms=40, **OPTIONS | {"random_state": 1})(x)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_of_any_size_and_number(channels):
    """The patches of several images together: the mean over images of one size."""
    lead = () if channels == 1 else (3,)
    loss = PatchLoss(image(*lead, 12, 12), **OPTIONS)
    batch = torch.stack([image(*lead, 8, 14, seed=k) for k in range(3)])
    loss.follow(batch)
    torch.testing.assert_close(loss(batch), torch.stack([loss(x) for x in batch]).mean())
    torch.testing.assert_close(loss(batch.reshape(3, channels, 8, 14)), loss(batch))
    assert loss(batch.half()).dtype == torch.float64
    assert loss(image(*lead, 6, 30)).isfinite()


def test_descent_goes_from_noise_to_the_texture():
    """As the costs say that are followed to where they stay."""
    example, held_out = (image(n, n, seed=n, dtype=torch.float32) for n in (24, 16))
    loss = PatchLoss(example, **OPTIONS)
    noise = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    x = noise.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.1)
    for _ in range(30):
        loss.follow(x)
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()

    def cost(image):
        for _ in range(6):
            loss.follow(image)
        return loss(image).item()

    assert cost(held_out) < cost(x) < 0.1 * cost(noise)


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (torch.zeros(2, 12, 12), ValueError, r"\(3, height, width\)"),
        (torch.zeros(12, 12, 3), ValueError, "permute"),
        (torch.zeros(12, 12), ValueError, "permute"),
        (torch.zeros(12), ValueError, "permute"),
        (torch.zeros(0, 3, 12, 12), ValueError, "permute"),
        (torch.zeros(3, 12, 5), ValueError, "width of at least 6 pixels, .* permute its axes"),
        (torch.zeros(3, 12, 12, dtype=torch.uint8), TypeError, "floating"),
        (torch.full((3, 12, 12), torch.nan), ValueError, "finite"),
        (np.zeros((3, 12, 12)), TypeError, "tensor"),
    ],
)
def test_bad_images_are_refused(bad, error, words):
    loss = PatchLoss(image(3, 12, 12), **OPTIONS)
    for call in (loss, loss.follow):
        with pytest.raises(error, match=words):
            call(bad)
    if words != "permute" and "3, h" not in words:
        with pytest.raises(error, match=words):
            PatchLoss(bad, **OPTIONS)


def test_state_is_kept():
    loss, x = PatchLoss(image(12, 12), **OPTIONS), image(8, 8, seed=1)
    loss.follow(x)
    other = PatchLoss(image(12, 12), **OPTIONS)
    other.load_state_dict(loss.state_dict())
    assert other(x) == loss(x)
    with pytest.raises(ValueError, match="these data"):
        PatchLoss(image(12, 12, seed=1), **OPTIONS).load_state_dict(loss.state_dict())
