"""Pairs and critics: what else a generator may be trained by."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn = torch.nn

from pot_semidiscrete import semidiscrete_atom_weights  # noqa: E402
from pot_semidiscrete.generative import (  # noqa: E402
    GradientPenaltyCritic,
    ImageFeatures,
    SemiDiscreteLoss,
    mlp_generator,
    train_generator,
)
from pot_semidiscrete.generative.choices import are_images, parts_of_data, sample  # noqa: E402
from pot_semidiscrete.generative.critic import guided  # noqa: E402
from pot_semidiscrete.generative.descents import PairDescent, cityblock  # noqa: E402
from pot_semidiscrete.generative.energy import PAIR_COSTS, EnergyDescent, pair_descent  # noqa: E402
from pot_semidiscrete.samplers import Sampler  # noqa: E402
from pot_semidiscrete.samplers.resolve import resolve_random  # noqa: E402

pytestmark = pytest.mark.usefixtures("torch_seed")
PLAIN = {"n_atoms": False, "features": False, "pair_cost": False, "critic": False}


def adam(parameters):
    """An optimiser with a rate that stays."""
    return torch.optim.Adam(parameters, lr=1e-3)


def cloud(*shape, seed=1):
    """Uniform numbers, of a seed of their own."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def trained(data, n_steps=20, **options):
    """Parameters of a small generator after some steps."""
    torch.manual_seed(3)
    shape = tuple(data.shape[1:])
    generator = mlp_generator(3, shape, widths=(16,)) if len(shape) == 2 else nn.Linear(3, *shape)
    options = {"random_state": 0} | options
    result = train_generator(generator, 3, data, n_steps=n_steps, **options)
    return [p.detach().clone() for p in generator.parameters()], result


def assert_same(one, other, rtol=0.0):
    """Lists of parameters are the same."""
    for p, q in zip(one, other, strict=True):
        torch.testing.assert_close(p, q, rtol=rtol, atol=rtol)


# Pairs.


def test_pairs_of_the_squared_distance_are_the_bounds_where_cells_decide():
    """At reg = 0 the drawn atom is the map's; the bound is the cost of the pair, but for a constant."""
    data = cloud(40, 2)
    options = {"reg": 0.0, "optimizer": adam}
    one, _ = trained(data, **options)
    other, _ = trained(data, **options, pair_cost="sqeuclidean")
    assert_same(one, other, rtol=1e-5)
    third, _ = trained(data, **options, pair_cost="cityblock")
    assert (third[0] - one[0]).abs().max() > 1e-4


def test_points_are_followed_and_paired_by_one_look_at_their_features():
    """The same potential and atoms as by one after the other, which look twice."""
    data, x, asked = cloud(20, 3), cloud(200, 3, seed=2), []

    def features(x):
        asked.append(len(x))
        return 2.0 * x

    losses = [SemiDiscreteLoss(data, reg=0.1, features=features) for _ in range(2)]
    del asked[:]
    index = losses[0].pair(x, 0, follow=True)
    assert asked == [200]
    losses[1].follow(x)
    torch.testing.assert_close(losses[0].potential, losses[1].potential, rtol=0, atol=0)
    assert torch.equal(losses[1].pair(x, 0), index)
    assert asked == [200] * 3


@pytest.mark.parametrize("featured", [False, True])
def test_goals_are_drawn_by_the_plan(featured):
    """Each atom as often as the plan of the moved potential gives it."""
    data = cloud(5, 8, 8)
    features = ImageFeatures(data) if featured else None
    loss = SemiDiscreteLoss(data, reg=0.5, features=features)
    descent = pair_descent(loss, data, "cityblock", resolve_random(0, loss.target.nx, loss.potential))
    x = cloud(1, 8, 8, seed=2).expand(2000, 8, 8)
    noted = descent.begin([x[:1500], x[1500:]])
    assert [len(part) for (part,) in noted] == [1500, 500]
    goals = torch.cat([part for (part,) in noted])
    found = torch.stack([(goals == atom).all(dim=(1, 2)).float().mean() for atom in data])
    rows = loss.rows(data)
    expected = semidiscrete_atom_weights(rows, loss.rows(x[:1]), loss.potential, reg=0.5)[0]
    assert found.sum() == 1.0
    assert 0.02 < expected.min() < expected.max() < 0.9
    np.testing.assert_allclose(found, expected, atol=4.0 * 0.5 / math.sqrt(2000))


def test_a_cost_of_pairs_may_be_a_function():
    data = cloud(30, 2)
    one, _ = trained(data, pair_cost="cityblock")
    other, _ = trained(data, pair_cost=lambda x, y: (x - y).abs().sum(dim=1))
    assert_same(one, other)
    with pytest.raises(ValueError, match=r"pair_cost: expected a callable that returns 200 numbers"):
        trained(data, pair_cost=lambda x, y: (x - y).abs())


def test_pairs_lead_to_the_median_of_a_median_cost():
    """A generator of one point: the mean cost of pairs is least at the median of the data."""
    data = torch.tensor([[0.0], [1.0], [10.0]])
    place = nn.Parameter(torch.tensor([4.0]))
    optimizer = torch.optim.Adam([place], lr=0.05)
    train_generator(
        lambda z: place.expand(len(z), 1),
        1,
        data,
        n_steps=400,
        optimizer=optimizer,
        pair_cost="cityblock",
        callback=lambda result: optimizer.param_groups[0].update(lr=1.0 / (1.0 + result.n_steps)),
        random_state=0,
    )
    assert abs(float(place.detach()) - 1.0) < 0.2


def energy_descent(data, share=EnergyDescent.share):
    loss = SemiDiscreteLoss(data, reg=0.5)
    random = resolve_random(0, loss.target.nx, loss.potential)
    descent = EnergyDescent(loss, data, random, cityblock)
    descent.share = share
    return descent


def test_an_energy_score_is_a_distance_to_an_interval():
    """In each coordinate that of y to the interval of the two points; without a second point, to x."""
    data, x = cloud(40, 6), cloud(80, 6, seed=3)
    value = energy_descent(data).value([data])
    one, other = x[:40], x[40:]
    low, high = torch.minimum(one, other), torch.maximum(one, other)
    expected = ((low - data).clamp(min=0.0) + (data - high).clamp(min=0.0)).sum(dim=1)
    assert float(expected.min()) > 0.0
    torch.testing.assert_close(value(x), expected.mean())
    torch.testing.assert_close(value(one), (one - data).abs().sum(dim=1).mean())


def test_an_energy_score_draws_the_nearer_point_only():
    data = torch.zeros(1, 3)
    x = torch.tensor([[1.0, -2.0, 5.0], [3.0, 1.0, 4.0]], requires_grad=True)
    energy_descent(torch.zeros(2, 3)).value([data])(x).backward()
    assert torch.equal(x.grad, torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))


def test_a_second_latent_point_has_a_share_of_new_coordinates():
    z, fresh = torch.zeros(4000, 5), torch.ones(4000, 5)
    labels = torch.arange(4000)
    descent = energy_descent(cloud(9, 2), share=0.3)
    both, doubled = descent.with_neighbors((z, labels), (fresh, labels + 1))
    assert torch.equal(doubled, torch.cat([labels, labels]))
    assert torch.equal(both[:4000], z)
    assert set(both[4000:].unique().tolist()) == {0.0, 1.0}
    share = both[4000:].mean(dim=0)
    np.testing.assert_allclose(share, 0.3, atol=4.0 * math.sqrt(0.3 * 0.7 / 4000))


def test_a_second_latent_point_comes_from_few_fresh_ones():
    """As those of the last batch of a loader; each row of them serves, and no other value."""
    z, fresh = torch.zeros(4000, 5), torch.arange(1.0, 4.0)[:, None].expand(3, 5)
    found = energy_descent(cloud(9, 2), share=0.3).with_neighbors(z, fresh)[4000:]
    assert found.unique().tolist() == [0.0, 1.0, 2.0, 3.0]
    loader = torch.utils.data.DataLoader(cloud(70, 2), batch_size=32)
    options = {"pair_cost": "energy", "n_steps": 30, "random_state": 0}
    assert train_generator(nn.Linear(2, 2), loader, cloud(40, 2), **options).status == "finished"


def test_an_energy_score_begins_where_the_rate_falls():
    """The batches of the generator in a step have twice the points in the last third, and not before."""
    sizes = []

    class Noting(nn.Linear):
        def forward(self, z):
            if torch.is_grad_enabled():
                sizes.append(len(z))
            return super().forward(z)

    options = {"n_steps": 60, "batch_size": 20, "random_state": 0}
    train_generator(Noting(2, 2), 2, cloud(40, 2), pair_cost="energy", **options)
    assert sizes == [20] * 41 + [40] * 19


def test_latent_points_of_an_energy_score_are_tensors():
    """Others are refused in the first step, and not where the rate falls."""
    made, scale = nn.Linear(2, 2), torch.ones(())
    generator = lambda z: made(z["z"] if isinstance(z, dict) else z[0])
    options = {"optimizer": torch.optim.SGD(made.parameters(), lr=0.1), "pair_cost": "energy"}
    for draw in (lambda n: (torch.randn(n, 2), n), lambda n: {"z": torch.randn(n, 2), "s": scale}):
        with pytest.raises(TypeError, match="latent_sampler: expected tensors of latent points"):
            train_generator(generator, draw, cloud(9, 2), n_steps=1, **options)
    with pytest.raises(TypeError, match=r"pair_cost: expected a callable .* one of cityblock.* energy"):
        trained(cloud(9, 2), 1, pair_cost="energies")


def test_a_run_down_an_energy_score_is_continued_bit_for_bit(tmp_path):
    data, path = cloud(40, 2), tmp_path / "run.pt"
    options = {"pair_cost": "energy", "batch_size": 20, "checkpoint_every": 5}
    whole, _ = trained(data, 30, **options)
    # interrupted in the last third, and within a round
    trained(data, 30, checkpoint=path, callback=lambda result: result.n_steps == 25, **options)
    again, result = trained(data, 30, checkpoint=path, **options)
    assert result.n_steps == 30
    assert_same(whole, again)
    other, _ = trained(data, 30, **options | {"pair_cost": "cityblock"})
    assert not torch.equal(whole[0], other[0])


def test_checkpoints_of_before_name_the_same_descents():
    """A file is refused whose name of the descent differs."""
    names = {"cityblock": "cityblock", "sqeuclidean": "sqeuclidean", "energy": "energy score"}
    assert names.keys() == PAIR_COSTS.keys()
    data = cloud(9, 2)
    loss = SemiDiscreteLoss(data, reg=0.5)
    for cost, name in {**names, (lambda x, y: (x - y).abs().sum(dim=1)): "a callable"}.items():
        descent = pair_descent(loss, data, cost, resolve_random(0, loss.target.nx, loss.potential))
        assert repr(descent) == f"costs of pairs, {name}"


def test_a_run_with_more_ranks_knows_that_the_rate_has_fallen(tmp_path):
    """With a rate that has fallen for good, its next steps are down the energy score, too."""
    sizes, path = [], tmp_path / "run.pt"

    class Noting(nn.Linear):
        def forward(self, z):
            if torch.is_grad_enabled():
                sizes.append(len(z))
            return super().forward(z)

    def train(n_steps):
        torch.manual_seed(0)
        generator = Noting(2, 2)
        optimizer = torch.optim.SGD(generator.parameters(), lr=0.1)

        def fall(result):
            if result.n_steps == 2:
                optimizer.param_groups[0]["lr"] = 0.01

        options = {"n_steps": n_steps, "batch_size": 20, "random_state": 0, "callback": fall}
        options |= {"optimizer": optimizer, "pair_cost": "energy", "checkpoint": path}
        train_generator(generator, 2, cloud(40, 2), **options)

    train(4)
    # as two ranks would have left it, of which this process continues the first
    state = torch.load(path, weights_only=True)
    torch.save(state | {"other_ranks": [{}]}, path)
    train(6)
    assert sizes == [20, 20, 40, 40, 40, 40]


# Critics.


def test_critic_finds_the_distance_of_two_laws():
    """Laws a shift by 3 apart: D is linear, of the slope s that is best, 3 s - 10 (s - 1)^2 at most."""
    normal = torch.Generator().manual_seed(0)
    data = 3.0 + torch.randn(2000, 1, generator=normal)
    torch.manual_seed(0)
    critic = GradientPenaltyCritic(data, random_state=0)
    for _ in range(150):
        critic.step(torch.randn(64, 1, generator=normal))
    x = torch.randn(2000, 1, generator=normal)
    found = critic.score(data).mean() - critic.score(x).mean()
    assert float(found.detach()) == pytest.approx(3.0 * 1.15, rel=0.1)


def test_a_penalty_at_some_points_is_that_at_all_where_slopes_are_alike():
    """That of a linear D is the same everywhere; D sees fewer points."""
    found, sizes, x = [], [], cloud(9, 4, seed=5)

    class Noting(nn.Linear):
        def forward(self, x):
            sizes.append(len(x))
            return super().forward(x)

    for penalty_size in (1, 3, 8, 20):
        torch.manual_seed(0)
        options = {"batch_size": 8, "penalty_size": penalty_size, "random_state": 0}
        critic = GradientPenaltyCritic(cloud(50, 4), Noting(4, 1), **options)
        critic.step(x)
        found.append([p.grad for p in critic.network.parameters()])
        few = min(penalty_size, 8)
        assert sorted(sizes) == sorted([few, 16])
        del sizes[:]
    assert found[0][0].abs().max() > 1.0
    for gradients in found[1:]:
        assert_same(gradients, found[0], rtol=1e-5)


def test_networks_of_a_critic_have_their_sizes_and_the_weights_of_the_seed():
    """Sizes by hand; weights are the same wherever torch makes its own, and leave its numbers alone."""
    perceptron = lambda d: 512 * (d + 1) + 256 * 513 + 257
    convolutions = lambda channels: 16 * (25 * channels + 1) + 32 * (16 * 25 + 1)
    for network, shape, expected in (
        ("perceptron", (6,), perceptron(6)),
        ("perceptron", (3, 9, 16), perceptron(3 * 9 * 16)),
        ("convolutional", (28, 28), convolutions(1) + 256 * (32 * 7 * 7 + 1) + 257),
        ("convolutional", (3, 9, 16), convolutions(3) + 256 * (32 * 3 * 4 + 1) + 257),
    ):
        data, start = cloud(9, *shape), torch.get_rng_state()
        critic = GradientPenaltyCritic(data, network, random_state=0)
        assert sum(p.numel() for p in critic.network.parameters()) == expected
        assert torch.equal(torch.get_rng_state(), start)
        with torch.device("meta"):
            again = GradientPenaltyCritic(data, network, random_state=0)
        assert_same(critic.network.parameters(), again.network.parameters())
        other = GradientPenaltyCritic(data, network, random_state=1)
        assert (critic.score(data) - other.score(data)).abs().max() > 1e-4


def test_a_critic_of_images_is_convolutional():
    """Unless it is small, or another network is named."""
    for shape, network in (
        *[((16, 17), "convolutional"), ((3, 17, 16), "convolutional")],
        *[((256,), "perceptron"), ((16, 15), "perceptron"), ((16, 16, 3), "perceptron")],
    ):
        found, named = (
            GradientPenaltyCritic(cloud(9, *shape), kind, random_state=0) for kind in (None, network)
        )
        assert_same(found.network.parameters(), named.network.parameters())
    kinds = [type(layer) for layer in parts_of_data(cloud(50, 16, 16), 0).critic.network]
    assert torch.nn.Conv2d in kinds


def test_a_convolutional_critic_trains_a_generator_of_rows():
    """Its points need not have the shape of images, only as many numbers; D has learnt of them."""
    data = cloud(40, 8, 8)
    critic = GradientPenaltyCritic(data, "convolutional", random_state=0)
    start = [p.detach().clone() for p in critic.network.parameters()]
    trained(data.flatten(1), 20, critic=critic, batch_size=20, pair_cost="cityblock")
    for before, after in zip(start, critic.network.parameters(), strict=True):
        assert (after - before).abs().max() > 1e-3


def test_a_convolutional_critic_is_of_images():
    for shape in ((64,), (2, 3, 8, 8)):
        with pytest.raises(ValueError, match=r"network: expected images of .* give 'perceptron'"):
            GradientPenaltyCritic(cloud(9, *shape), "convolutional")


@pytest.mark.parametrize(("batch_size", "kind", "expected"), [(8, 0, 8), (64, 0, 20), (8, 1, 20)])
def test_a_critic_is_given_as_many_points_as_it_uses(batch_size, kind, expected, monkeypatch):
    """A whole batch, if latent points are no rows of a tensor; the sampler is asked for that always."""
    critic, sizes, asked = GradientPenaltyCritic(cloud(40, 2), batch_size=batch_size), [], set()
    monkeypatch.setattr(critic, "step", lambda x, rate: sizes.append(len(x)))

    def latent(n):
        asked.add(n)
        return {"z": torch.randn(n, 3)} if kind else torch.randn(n, 3)

    class Generator(nn.Linear):
        def forward(self, z):
            return super().forward(z["z"] if kind else z)

    options = {"n_steps": 3, "critic": critic, "batch_size": 20}
    train_generator(Generator(3, 2), latent, cloud(40, 2), **options)
    assert sizes == [expected] * 3
    assert asked == {20}


def test_critic_adds_a_share_of_the_norm():
    data, x = cloud(50, 4), cloud(20, 4, seed=5).requires_grad_()
    value_at = lambda x: 7.0 * x.square().sum(dim=1).mean()
    for share in (0.0, 0.4, 2.0):
        critic = GradientPenaltyCritic(data, share=share)
        value = guided(critic, value_at, x)
        torch.testing.assert_close(value, value_at(x), rtol=1e-6, atol=0.0)
        (found,) = torch.autograd.grad(value, x)
        added = found - 14.0 * x.detach() / 20
        assert float(added.norm()) == pytest.approx(
            share * float((0.7 * x.detach()).norm()), rel=1e-4, abs=1e-5
        )
        (push,) = torch.autograd.grad(-critic.score(x).mean(), x)
        along = (added * push).sum() / push.norm()
        assert float(along) == pytest.approx(float(added.norm()), rel=1e-4, abs=1e-5)


def test_critic_of_no_share_leaves_training_alone():
    data = cloud(40, 2)
    critic = GradientPenaltyCritic(data, share=0.0, random_state=0)
    one, _ = trained(data, 1, optimizer=adam)  # after it, other points: the critic sees some of its own
    other, _ = trained(data, 1, optimizer=adam, critic=critic)
    assert_same(one, other, rtol=1e-6)


def test_rate_of_the_critic_falls_with_that_of_the_generator():
    data = cloud(40, 2)
    critic = GradientPenaltyCritic(data, random_state=0)
    rates = []
    note = lambda result: rates.append(critic.optimizer.param_groups[0]["lr"])
    trained(data, 30, critic=critic, callback=note)
    assert rates[0] == pytest.approx(0.02 * 2e-3)  # it rises in the first twentieth
    assert rates[2:20] == [2e-3] * 18
    assert 0.0 < rates[-1] < 0.4e-3


@pytest.mark.parametrize(("kind", "side"), [("wgan-gp", 8), ("wgan-gp", 16), ("module", 8)])
def test_a_run_with_critic_is_continued_bit_for_bit(kind, side, tmp_path):
    """Of small images, of those whose critic is convolutional, and with a network of one's own."""
    data, critic = cloud(30, side, side), "wgan-gp"
    options = {"n_steps": 30, "checkpoint_every": 20, "batch_size": 20}
    torch.manual_seed(1)
    if kind == "module":
        critic = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 1))
    start = None if kind == "wgan-gp" else {k: v.clone() for k, v in critic.state_dict().items()}

    def run(**more):
        if start is not None:
            critic.load_state_dict(start)
        return trained(data, critic=critic, **options | more)

    whole, _ = run()
    path = tmp_path / "run.pt"
    run(checkpoint=path, callback=lambda result: result.n_steps == 20)
    again, result = run(checkpoint=path)
    assert result.n_steps == 30
    assert_same(whole, again)
    with pytest.raises(
        ValueError, match=r"critic: expected 'kind' of GradientPenaltyCritic.*'kind' of None"
    ):
        trained(data, **options, checkpoint=path, critic=False)
    with pytest.raises(ValueError, match="pair_cost: expected costs of pairs, cityblock"):
        trained(data, **options, checkpoint=path, critic=critic, pair_cost=False)


# What suits the data.


def test_images_have_what_suits_them_and_points_have_not():
    parts = parts_of_data(cloud(50, 8, 8), 0)
    assert isinstance(parts.loss.features, ImageFeatures)
    assert isinstance(parts.descent, PairDescent)
    assert repr(parts.critic).startswith("GradientPenaltyCritic(n=50, shape=(8, 8), share=0.4")
    for data in (
        cloud(50, 64),
        cloud(50, 4, 4),
        cloud(50, 7, 8),
        (255 * cloud(50, 8, 8)).to(torch.uint8),
    ):
        assert not are_images(data)
    with pytest.raises(TypeError, match=r"X_target: expected an array .* cast it"):
        trained(cloud(50, 8, 8).half(), 1)
    parts = parts_of_data(cloud(50, 64), 0)
    assert parts.loss.features is parts.descent is parts.critic is None
    parts = parts_of_data(cloud(50, 8, 8), 0, **PLAIN)
    assert parts.loss.features is parts.descent is parts.critic is None
    parts = parts_of_data(cloud(50, 8, 8), 0, n_atoms=20)
    assert parts.loss.target.n_atoms == 20
    assert len(parts.critic.rows.data) == 50


def test_images_without_a_critic_have_an_energy_score_where_it_holds():
    """Twice the dual steps tell: latent laws of independent coordinates, or who asks for it."""

    class Own(Sampler):
        has_independent_coordinates = True

        def __call__(self, n):
            return torch.randn(n, 3)

    data, normal = cloud(50, 8, 8), torch.distributions.Normal(torch.zeros(3), 1.0)
    function = lambda n: torch.randn(n, 3)

    def dual_steps(latent, **options):
        generator = mlp_generator(3, (8, 8), widths=(16,))
        options = {"critic": False, "n_steps": 1, "random_state": 0} | options
        return train_generator(generator, latent, data, **options).loss.dual_steps

    known, others = (3, ("normal", 3), ("unif", 3), Own()), (function, ("ball", 3), normal)
    assert [dual_steps(latent) for latent in (*known, *others)] == [20] * 4 + [10] * 3
    assert dual_steps(3, critic=None, reg_m=1.0) == dual_steps(function, pair_cost="energy") == 20
    assert dual_steps(3, pair_cost="cityblock") == dual_steps(3, critic="wgan-gp") == 10
    assert dual_steps(3, critic=None, pair_cost="energy") == 10
    assert dual_steps(3, pair_cost=False, reuse=2) == 10
    assert dual_steps(3, dual_steps=7) == 7


def test_the_default_without_a_critic_is_the_energy_score():
    data, options = cloud(50, 8, 8), {"n_steps": 30, "critic": False}
    one, _ = trained(data, **options)
    other, _ = trained(data, **options, pair_cost="energy", dual_steps=20)
    assert_same(one, other)
    other, _ = trained(data, **options, pair_cost="cityblock", dual_steps=20)
    assert (other[0] - one[0]).abs().max() > 1e-4


def test_images_in_colour_are_trained():
    _, result = trained(cloud(60, 3, 8, 8).flatten(1).reshape(60, 3, 8, 8)[:, 0], 5, batch_size=16)
    assert result.status == "finished"
    generator = nn.Sequential(nn.Linear(3, 192), nn.Unflatten(1, (3, 8, 8)))
    result = train_generator(generator, 3, cloud(60, 3, 8, 8), n_steps=5, batch_size=16, random_state=0)
    assert result.status == "finished"


def test_a_sample_is_a_part_without_replacement():
    data = torch.arange(100.0)[:, None]
    some = sample(data, 30)
    assert len(set(some[:, 0].tolist())) == 30
    torch.testing.assert_close(some, sample(data, 30))
    assert sample(data, 100) is data


def test_main_components_keep_distances():
    data = cloud(300, 8, 8) + 3.0 * cloud(300, 1, 1, seed=4)
    whole, few = ImageFeatures(data), ImageFeatures(data, n_components=100)
    assert few(data).shape == (300, 100)
    one, other = (torch.cdist(f(data[:50]), f(data[50:])).square() for f in (whole, few))
    assert (other <= one * (1 + 1e-4)).all()
    assert other.mean() > 0.95 * one.mean()
    assert ImageFeatures(data, n_components=128).directions is None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"critic": "gan"}, TypeError, "critic: expected 'wgan-gp', a torch.nn.Module"),
        ({"pair_cost": "hamming"}, TypeError, "pair_cost: expected a callable"),
        ({"n_atoms": 0}, ValueError, "n_atoms: expected"),
        ({"n_atoms": 2.5}, TypeError, "n_atoms: expected"),
        ({"reg": False}, TypeError, "reg: expected"),  # which is for n_atoms and the like
        ({"dual_steps": False}, TypeError, "dual_steps: expected"),
    ],
)
def test_options_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        trained(cloud(30, 2), 1, **options)


def test_a_loss_has_its_own_options():
    loss = SemiDiscreteLoss(cloud(30, 2))
    with pytest.raises(ValueError, match=r"pair_cost, .*: expected None with a SemiDiscreteLoss"):
        train_generator(nn.Linear(2, 2), 2, loss, n_steps=1, pair_cost="cityblock")
    with pytest.raises(TypeError, match="critic: expected a GradientPenaltyCritic"):
        train_generator(nn.Linear(2, 2), 2, loss, n_steps=1, critic="wgan-gp")
    critic = GradientPenaltyCritic(cloud(30, 2))
    assert train_generator(nn.Linear(2, 2), 2, loss, n_steps=2, critic=critic).status == "finished"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"data": cloud(0, 2)}, ValueError, "data: expected at least one point"),
        ({"data": torch.arange(6).reshape(3, 2)}, TypeError, "data: expected points of floating"),
        ({"network": len}, TypeError, "network: expected a torch.nn.Module"),
        ({"network": nn.ReLU()}, ValueError, "network: expected a module with parameters"),
        ({"share": -1.0}, ValueError, "share: expected"),
        ({"penalty": math.nan}, ValueError, "penalty: expected"),
        ({"batch_size": 0}, ValueError, "batch_size: expected"),
        ({"penalty_size": 0}, ValueError, "penalty_size: expected"),
    ],
)
def test_a_critic_checks_what_it_is_made_of(options, error, message):
    with pytest.raises(error, match=message):
        GradientPenaltyCritic(**{"data": cloud(30, 2)} | options)


def test_a_network_has_one_number_for_each_point():
    critic = GradientPenaltyCritic(cloud(30, 2), nn.Linear(2, 2))
    with pytest.raises(ValueError, match="network: expected a module that returns one number"):
        critic.step(cloud(5, 2))
    with pytest.raises(ValueError, match=r"x: expected points of the shape of the data, \(n, 2\)"):
        critic.step(cloud(5, 3))


def test_random_state_decides_the_critic():
    """Its first weights too; torch's global generator is left alone."""
    data, made = cloud(30, 8, 8), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        critic = GradientPenaltyCritic(data, random_state=0)
        assert torch.equal(torch.get_rng_state(), before)
        made.append([p.detach() for p in critic.network.parameters()])
    assert_same(*made)
    other = GradientPenaltyCritic(data, random_state=1)
    assert not torch.equal(next(other.network.parameters()), made[0][0])


def test_groups_of_a_critic_keep_their_rates():
    network = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))
    groups = [{"params": layer.parameters(), "lr": 10.0**-k} for k, layer in enumerate(network, 2)]
    critic = GradientPenaltyCritic(cloud(30, 2), network, optimizer=torch.optim.SGD(groups))
    for rate in (1.0, 0.5):
        critic.step(cloud(9, 2), rate)
        found = [group["lr"] for group in critic.optimizer.param_groups]
        assert found == pytest.approx([0.01 * rate, 0.001 * rate])


def test_training_with_a_critic_under_autocast_of_halves():
    """Costs and the critic are computed in the precision of the data."""
    with torch.autocast("cpu", dtype=torch.float16):
        _, result = trained(cloud(40, 8, 8), 5, batch_size=16)
    assert result.status == "finished"
    assert np.isfinite(result.history["loss"]).all()


def test_a_critic_that_is_not_finite_ends_the_run():
    critic = GradientPenaltyCritic(cloud(40, 2), optimizer=lambda p: torch.optim.SGD(p, lr=1e30))
    with pytest.warns(UserWarning, match="stopped after"):
        _, result = trained(cloud(40, 2), 20, critic=critic)
    assert result.status == "diverged"
    assert all(p.isfinite().all() for p in result.generator.parameters())
