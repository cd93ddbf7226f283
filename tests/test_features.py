"""Images compared by features: the loss is that of the composed generator."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

from pot_semidiscrete.generative import (  # noqa: E402
    ImageFeatures,
    SemiDiscreteLoss,
    mlp_generator,
    random_filters,
    train_generator,
)

pytestmark = pytest.mark.usefixtures("torch_seed")


def images(n=60, seed=1, dtype=torch.float32, shape=(8, 8)):
    """Bars of random place and width, and a little noise."""
    rng = np.random.default_rng(seed)
    x, place = np.arange(shape[-1]), rng.uniform(1.0, 7.0, size=(n, 1))
    bars = np.abs(x - place) < rng.uniform(0.5, 2.0, size=(n, 1))
    bars = bars.reshape(n, *[1] * (len(shape) - 1), shape[-1])
    noisy = bars + 0.05 * rng.random((n, *shape))
    return torch.as_tensor(noisy, dtype=dtype)


def new_generator(dtype=torch.float32):
    """Always the same one."""
    torch.manual_seed(3)
    return mlp_generator(4, (8, 8), widths=(16,)).to(dtype)


def featured(features, x):
    """Features without a graph."""
    with torch.no_grad():
        return features(x)


# The loss.


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean"])
@pytest.mark.parametrize("reg", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_loss_is_that_of_the_features(dtype, reg, metric):
    data, z = images(dtype=dtype), torch.randn(50, 4, dtype=dtype)
    features, generator = ImageFeatures(data), new_generator(dtype)
    loss = SemiDiscreteLoss(data, metric=metric, reg=reg, features=features)
    plain = SemiDiscreteLoss(featured(features, data), metric=metric, reg=reg)
    outcomes = []
    for one, points in ((loss, generator(z)), (plain, features(generator(z)))):
        one.follow(points)
        one.dual_step(points)
        generator.zero_grad()
        value = one(points)
        value.backward()
        outcomes.append([value, one.potential, *(p.grad.clone() for p in generator.parameters())])
    for found, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(found, expected, rtol=0.0, atol=0.0)
    assert outcomes[0][2].abs().max() > 0.0


@pytest.mark.parametrize("reuse", [1, 4])
def test_training_is_that_of_the_composed_generator(reuse):
    data = images()
    features, runs = ImageFeatures(data), []
    for composed in (False, True):
        generator = new_generator()
        options = {"n_steps": 12, "reuse": reuse, "random_state": 0, "batch_size": 200}
        if composed:
            optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3)
            whole = nn.Sequential(generator, features)
            train_generator(whole, 4, featured(features, data), optimizer=optimizer, **options)
        else:
            optimizer = lambda parameters: torch.optim.Adam(parameters, lr=1e-3)
            options |= {"n_atoms": False, "pair_cost": False, "critic": False, "dual_steps": 5}
            options["features"] = features
            train_generator(generator, 4, data, optimizer=optimizer, **options)
        runs.append([p.detach() for p in generator.parameters()])
    for found, expected in zip(*runs, strict=True):
        torch.testing.assert_close(found, expected, rtol=0.0, atol=0.0)


def test_fit_is_to_the_features():
    data = images()
    features = ImageFeatures(data)
    loss = SemiDiscreteLoss(data, features=features)
    result = loss.fit(lambda n: data[torch.randint(len(data), (n,))], tol=0.2)
    assert result.converged
    mean = (data[:, None] - data[None]).square().flatten(2).sum(dim=2).mean()
    # pixels have 0.4 of the variance, features the rest
    assert 2.4 < loss.reg / (0.01 * mean) < 2.6


def test_features_may_be_a_function():
    data = images()
    loss = SemiDiscreteLoss(data, features=lambda x: x.flatten(1)[:, ::2])
    assert loss.target.atoms.shape == (60, 32)
    assert torch.isfinite(loss(data))


def test_features_are_no_part_of_the_state_and_move_with_the_loss():
    data = images()
    loss = SemiDiscreteLoss(data, features=ImageFeatures(data))
    assert set(loss.state_dict()) == {"potential", "n_steps", "_extra_state"}
    assert list(loss.parameters()) == []
    moved = copy.deepcopy(loss).to("meta")
    assert {p.device.type for p in moved.features.parameters()} == {"meta"}
    assert {p.device.type for p in loss.features.parameters()} == {"cpu"}
    assert loss.half().features.body[0].weight.dtype == torch.float32


def test_autocast_changes_nothing():
    data, found = images(), []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = SemiDiscreteLoss(data, features=ImageFeatures(data))
            loss.follow(data[:40])
            found.append([loss.target.atoms, loss.potential, loss(data)])
    for plain, cast in zip(*found, strict=True):
        torch.testing.assert_close(cast, plain, rtol=0.0, atol=0.0)


def test_generated_points_of_any_shape():
    data = images()
    loss = SemiDiscreteLoss(data, features=ImageFeatures(data))
    torch.testing.assert_close(loss(data[:, None]), loss(data), rtol=0.0, atol=0.0)
    flat = SemiDiscreteLoss(data.flatten(1), features=ImageFeatures(data))
    torch.testing.assert_close(flat(data), loss(data), rtol=0.0, atol=0.0)


def test_a_module_is_copied_frozen_and_in_eval_mode():
    data, body = images(), nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 5))
    one, other = (SemiDiscreteLoss(data, features=body) for _ in range(2))
    one.to("meta")
    assert other.features[1].weight.device.type == body[1].weight.device.type == "cpu"
    generator = new_generator()
    train_generator(generator, 4, other, n_steps=3, random_state=0)
    assert body.training
    assert float(body[1].running_mean.abs().max()) == 0.0
    assert all(p.grad is None for p in [*body.parameters(), *other.features.parameters()])


def test_interrupted_run_continues_with_the_same_features_only(tmp_path):
    data, runs = images(), []
    features, path = ImageFeatures(data), str(tmp_path / "run.pt")
    for stops in ([None], [7, None]):
        for stop in stops:
            generator = new_generator()
            result = train_generator(
                *(generator, 4, data),
                **{"n_steps": 15, "random_state": 0, "features": features, "checkpoint": path},
                callback=None if stop is None else lambda state: state.n_steps == 7,
            )
        runs.append([*generator.parameters(), result.loss.potential])
        if stops == [None]:
            (tmp_path / "run.pt").unlink()
    for found, expected in zip(*runs, strict=True):
        torch.testing.assert_close(found, expected, rtol=0.0, atol=0.0)
    other = ImageFeatures(data, random_filters(random_state=1))
    with pytest.raises(ValueError, match="checkpoint"):
        train_generator(
            new_generator(), 4, data, n_steps=15, random_state=0, features=other, checkpoint=path
        )


@pytest.mark.parametrize(
    ("features", "error"),
    [
        (3, TypeError),
        (lambda x: x.sum(), ValueError),
        (lambda x: x.flatten(1)[:5], ValueError),
        (lambda x: x.numpy(), ValueError),
        (lambda x: x > 0, ValueError),
        (lambda x: x.flatten(1) - x.mean(), ValueError),
        (lambda x: x.flatten(1) * torch.rand(()), ValueError),
    ],
)
def test_bad_features_are_refused(features, error):
    with pytest.raises(error, match="features: expected"):
        SemiDiscreteLoss(images(), features=features)


@pytest.mark.parametrize("data", [torch.zeros((5, 8, 8), dtype=torch.uint8), torch.zeros(0, 8, 8)])
def test_bad_data_are_refused_as_without_features(data):
    with pytest.raises((TypeError, ValueError), match="X_target: expected"):
        SemiDiscreteLoss(data, features=lambda x: x.float().flatten(1))


def test_a_loss_has_its_own_features():
    data = images()
    with pytest.raises(ValueError, match=r"features, .*: expected None with a SemiDiscreteLoss"):
        train_generator(
            new_generator(), 4, SemiDiscreteLoss(data), n_steps=1, features=ImageFeatures(data)
        )


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_modules_that_cannot_be_copied_are_refused_with_a_remedy():
    data = images()
    body = nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(64, 3)))
    body(data)
    with pytest.raises(ValueError, match="remove its weight"):
        SemiDiscreteLoss(data, features=body)


# Features of images.


@pytest.mark.parametrize("shape", [(8, 8), (3, 8, 8), (1, 12, 9)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5])
def test_share_is_that_of_the_variance(share, shape):
    data = images(shape=shape)
    found = ImageFeatures(data, share=share)(data)
    pixels = found[:, : data[0].numel()]
    torch.testing.assert_close(pixels, data.flatten(1), rtol=0.0, atol=0.0)
    variance = found.var(dim=0)
    assert float(variance[data[0].numel() :].sum() / variance.sum()) == pytest.approx(share, abs=1e-4)


def test_body_is_copied_frozen_and_left_in_eval_mode():
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Dropout(0.5), nn.BatchNorm2d(4))
    features = ImageFeatures(images(), body).train()
    assert all(p.requires_grad for p in body.parameters())
    assert not any(p.requires_grad for p in features.parameters())
    assert body[1].training
    assert not features.body[1].training
    torch.testing.assert_close(features(images()), features(images()), rtol=0.0, atol=0.0)


def test_an_average_is_farther_by_filters_than_by_pixels():
    """By pixels, a quarter of the squared distance of two images away from both, exactly."""
    digits = pytest.importorskip("sklearn.datasets").load_digits().images
    data = torch.as_tensor(digits, dtype=torch.float32) / 16.0
    data = nn.functional.interpolate(data[:, None], scale_factor=3.0, mode="bilinear")[:, 0]
    features, other = ImageFeatures(data), data.roll(1, dims=0)
    ratios = []
    for of in (lambda x: x.flatten(1), features.seen):
        away = (of(data) - of((data + other) / 2.0)).square().sum(dim=1).mean()
        ratios.append(float(away / (of(data) - of(other)).square().sum(dim=1).mean()))
    assert ratios[0] == pytest.approx(0.25, abs=1e-5)
    assert ratios[1] > 0.33


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"images": np.zeros((3, 8, 8))}, "images: expected a floating"),
        ({"images": torch.zeros(3, 64)}, "images: expected a floating"),
        ({"images": images(), "share": 1.0}, "share: expected"),
        ({"images": images(), "share": -0.1}, "share"),
        ({"images": torch.zeros(3, 8, 8)}, "images: expected images that differ"),
        (
            {"images": torch.full((3, 8, 8), torch.nan), "share": 0.0},
            "images: expected images that differ",
        ),
        ({"images": images(), "body": nn.Threshold(9.0, 1.0)}, "body: expected features that differ"),
        ({"images": torch.zeros((3, 8, 8), dtype=torch.uint8)}, "images: expected a floating"),
    ],
)
def test_bad_images_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        ImageFeatures(**options)


def test_filters_are_of_norm_one_and_of_a_seed():
    state = torch.get_rng_state()
    one, same, other = (random_filters(random_state=k)[0].weight for k in (0, 0, 1))
    torch.testing.assert_close(torch.get_rng_state(), state)
    torch.testing.assert_close(one, same, rtol=0.0, atol=0.0)
    assert (one - other).abs().max() > 0.1
    torch.testing.assert_close(one.sum(dim=(1, 2, 3)), torch.zeros(16), rtol=0.0, atol=1e-5)
    torch.testing.assert_close(one.square().sum(dim=(1, 2, 3)), torch.ones(16))
    flat = featured(random_filters(), torch.full((1, 1, 28, 28), 0.7))[..., 1:-1, 1:-1]
    assert float(flat.max()) < 0.04
    for options, match in (({"n_filters": 0}, "n_filters"), ({"size": 1}, "size")):
        with pytest.raises(ValueError, match=match):
            random_filters(**options)


@pytest.mark.parametrize("factor", [2.0**-7, 2.0**8])
def test_features_scale_with_the_images(factor):
    data = images()
    found, scaled = ImageFeatures(data)(data), ImageFeatures(factor * data)(factor * data)
    torch.testing.assert_close(scaled / factor, found, rtol=1e-4, atol=1e-5)


def test_scale_is_in_the_state():
    one, other = ImageFeatures(images()), ImageFeatures(2.0 * images())
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(other(images())[:, 64:], one(images())[:, 64:], rtol=1e-6, atol=1e-6)
