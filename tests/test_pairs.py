"""Pairs for flow matching: laws, streams, states, files, labels and clients."""

import math
import pickle

import numpy as np
import pytest
import scipy.stats

torch = pytest.importorskip("torch")

import pot_semidiscrete as ps  # noqa: E402
from pot_semidiscrete.generative import (  # noqa: E402
    LabelledPairs,
    Pairs,
    PlanSampler,
    SemiDiscreteLoss,
    SemiDiscretePairs,
    StoredPairs,
    random_filters,
    solve_coupling,
)
from pot_semidiscrete.generative.pairs import solving, streams  # noqa: E402
from pot_semidiscrete.samplers import SobolSampler  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def cloud(n=300, d=2, seed=0, dtype=torch.float32):
    """Normal points."""
    return torch.randn((n, d), generator=torch.Generator().manual_seed(seed), dtype=dtype)


def collected(pairs, n_epochs=1):
    """Noise, data and numbers of some epochs, joined."""
    batches = [batch for _ in range(n_epochs) for batch in pairs]
    return [torch.cat([batch[k] for batch in batches]) for k in range(len(batches[0]))]


def same(first, second):
    """Whether two streams have the same batches, to the bit."""
    first, second = list(first), list(second)
    return len(first) == len(second) and all(
        torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)
    )


# laws


@pytest.mark.parametrize("reg", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pairs_follow_the_plan(reg, dtype):
    """Noise is normal; data have the masses and, given the noise, the weights of the plan."""
    atoms = cloud(5, 2, dtype=dtype)
    weights = torch.tensor([0.1, 0.4, 0.0, 0.3, 0.2], dtype=dtype)
    result = ps.solve_semidiscrete(atoms, "normal", weights, reg=reg, tol=0.02, random_state=0)
    pairs = SemiDiscretePairs(result, batch_size=500, epoch_size=40_000, random_state=1)
    noise, data, index = collected(pairs)
    assert noise.dtype == data.dtype == dtype
    assert index.dtype == torch.long
    assert torch.allclose(data, atoms[index])
    assert not bool((index == 2).any())
    for moment, value in ((noise.mean(0), 0.0), (noise.var(0), 1.0)):
        np.testing.assert_allclose(moment, value, atol=0.03)
    np.testing.assert_allclose(index.bincount(minlength=5) / len(index), weights, atol=0.02)
    chi = result.atom_weights(noise)
    hit = torch.nn.functional.one_hot(index, 5).to(dtype)
    if reg == 0:
        assert torch.equal(hit.argmax(1), chi.argmax(1))
    # a score of mean 0 for every function of the noise: here 1 and the coordinates
    for factor in (1.0, noise[:, :1], noise[:, 1:]):
        score = factor * (hit - chi)
        deviation = (score.var(0) / len(score)).sqrt() + 1e-9
        assert float((score.mean(0).abs() / deviation).max()) < 4.5
    inverted = (hit - chi.flip(1)).mean(0).abs().max()
    assert inverted > 0.05  # the test can fail


@pytest.mark.parametrize(
    ("noise", "mean", "variance"),
    [
        ("unif", 0.5, 1 / 12),
        (scipy.stats.multivariate_normal([1.0, 1.0], [[2.0, 0.0], [0.0, 2.0]]), 1.0, 2.0),
        (torch.distributions.Independent(torch.distributions.Laplace(torch.zeros(2), 1.0), 1), 0.0, 2.0),
        (1.0 + 3.0 * cloud(50, seed=3), None, None),
    ],
)
def test_noise_of_any_law(noise, mean, variance):
    if mean is None:
        mean, variance = noise.mean(0), noise.var(0, correction=0)
    pairs = SemiDiscretePairs(cloud(50), noise, batch_size=500, epoch_size=20_000, random_state=0)
    drawn, _, _index = collected(pairs)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.15)
    np.testing.assert_allclose(drawn.var(0), variance, rtol=0.15)
    assert pairs.coupling.results[0].converged
    assert pairs.coupling.results[0].chi2 < 0.31
    again = SemiDiscretePairs(pairs.coupling, batch_size=500, epoch_size=20_000, random_state=0)
    assert torch.equal(collected(again)[0], drawn)


def test_pairs_are_near_each_other():
    """In the line, data in order belong to noise in order: quantiles of the normal law."""
    data = cloud(100, 1, dtype=torch.float64)
    coupling = solve_coupling(data, tol=0.1, random_state=0)
    noise, found, _ = collected(
        SemiDiscretePairs(coupling, batch_size=100, epoch_size=5000, random_state=0)
    )
    ends = scipy.stats.norm.ppf(np.arange(101) / 100)
    rank = np.searchsorted(np.sort(data[:, 0].numpy()), found[:, 0].numpy())
    outside = np.maximum(ends[rank] - noise[:, 0].numpy(), noise[:, 0].numpy() - ends[rank + 1])
    assert np.quantile(outside, 0.9) < 0.05


def test_a_share_of_independent_pairs():
    data = cloud(200)
    coupling = solve_coupling(data, random_state=0)

    def correlation(share):
        pairs = SemiDiscretePairs(coupling, epoch_size=8192, independent=share, random_state=0)
        noise, found, _ = collected(pairs)
        return float((noise * (found - found.mean(0))).sum(1).mean())

    whole, half, none = (correlation(share) for share in (0.0, 0.5, 1.0))
    assert abs(none) < 0.08
    assert abs(half - whole / 2) < 0.1
    assert whole > 1.0


# spaces


def test_the_space_has_the_principal_components():
    data = cloud(400, 6) @ torch.diag(torch.tensor([5.0, 0.1, 3.0, 0.2, 0.1, 0.05]))
    space = solve_coupling(data, n_components=2, random_state=0).space
    assert space.projection.shape == (6, 2)
    assert space.is_orthogonal
    exact = torch.linalg.svd(data - data.mean(0), full_matrices=False)[2][:2].T
    np.testing.assert_allclose((space.projection.T @ exact).abs(), np.eye(2), atol=0.02)
    assert solve_coupling(data, random_state=0).space.projection is None  # all coordinates
    scales = torch.tensor([3.0, 2.0, 2.0, *[0.27] * 70])  # shares .41, .18, .18, and 70 times .0033
    many = solve_coupling(cloud(2000, 73) * scales, random_state=0)
    assert many.space.projection.shape == (73, 2)


def test_a_pair_is_used_again_with_fresh_noise_out_of_the_space():
    data = cloud(400, 6)
    coupling = solve_coupling(data, n_components=2, random_state=0)
    pairs = SemiDiscretePairs(coupling, batch_size=50, epoch_size=400, random_state=0)
    assert pairs.stream.n_reuse == 2
    assert len(pairs) == 8
    noise, _, index = collected(pairs)
    v = coupling.space.projection
    order = [torch.argsort((noise[k : k + 200] @ v)[:, 0]) for k in (0, 200)]
    first, second = noise[:200][order[0]], noise[200:][order[1]]
    assert torch.equal(index[:200][order[0]], index[200:][order[1]])
    np.testing.assert_allclose(first @ v, second @ v, atol=1e-5)
    apart = first - second
    np.testing.assert_allclose(apart.var(0).sum(), 2 * 4, rtol=0.15)  # 4 other directions, independent
    assert not torch.equal(order[0], order[1])
    np.testing.assert_allclose(noise.var(0), 1.0, atol=0.2)
    once = SemiDiscretePairs(coupling, batch_size=50, n_reuse=1, random_state=0)
    assert len(torch.unique(collected(once)[0] @ v, dim=0)) == 400


def test_latents_are_paired_and_images_returned():
    images, latents = cloud(100, 48).reshape(100, 3, 4, 4), cloud(100, 5, seed=1)
    result = ps.solve_semidiscrete(latents, "normal", tol=0.5, random_state=0)
    noise, data, index = next(iter(SemiDiscretePairs(result, data=images, batch_size=8)))
    assert noise.shape == (8, 5)
    assert torch.equal(data, images[index])
    flat = ps.solve_semidiscrete(images.flatten(1), "normal", tol=0.9, random_state=0)
    assert next(iter(SemiDiscretePairs(flat, data=images, batch_size=8))).noise.shape == (8, 3, 4, 4)
    matrix = torch.linalg.qr(cloud(48, 5, seed=2))[0]
    for projection in (matrix, lambda noise: noise.flatten(1) @ matrix):
        coupling = solve_coupling(images, projection=projection, X_space=latents, random_state=0)
        noise, data, index = next(iter(SemiDiscretePairs(coupling, batch_size=8, random_state=0)))
        assert noise.shape == data.shape == (8, 3, 4, 4)
        assert torch.equal(data, images[index])
        chosen = coupling.results[0].pair(noise.flatten(1) @ matrix)
        assert torch.equal(chosen, index)
        ours = SemiDiscretePairs(coupling.results[0], data=images, projection=projection, batch_size=8)
        assert next(iter(ours)).noise.shape == (8, 3, 4, 4)


class Photographs(torch.utils.data.Dataset):
    """Items are an array and a label."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        return self.data[i].numpy(), i


def test_data_of_any_kind():
    data = cloud(60)
    coupling = solve_coupling(data, random_state=0)
    options = {"batch_size": 8, "random_state": 0}
    _noise, found, index = next(iter(SemiDiscretePairs(coupling, data=Photographs(data), **options)))
    assert torch.equal(found, data[index])
    doubled = SemiDiscretePairs(coupling, data=data, transform=lambda item: 2 * item, **options)
    assert torch.equal(next(iter(doubled)).data, 2 * data[index])
    numpy = ps.solve_semidiscrete(data.numpy(), "normal", tol=0.5, random_state=0)
    assert isinstance(next(iter(SemiDiscretePairs(numpy, batch_size=8))).data, torch.Tensor)


def test_a_loss_pairs_by_its_present_potential():
    images = torch.rand(40, 1, 6, 6)
    loss = SemiDiscreteLoss(images, reg=0.5)
    loss.fit("normal", tol=0.3, random_state=0)
    pairs = SemiDiscretePairs(loss, batch_size=10, random_state=0)
    noise, data, index = next(iter(pairs))
    assert noise.shape == (10, 1, 6, 6)
    assert torch.allclose(data, images[index])
    before = pairs.coupling.results[0].potential.clone()
    loss.dual_step(torch.randn(64, 1, 6, 6))
    assert torch.equal(pairs.coupling.results[0].potential, before)
    featured = SemiDiscreteLoss(images, features=random_filters(4))
    with pytest.raises(TypeError, match="data: expected a tensor"):
        SemiDiscretePairs(featured)
    assert next(iter(SemiDiscretePairs(featured, data=images, batch_size=4))).noise.shape == (4, 1, 6, 6)


# groups


def test_large_data_are_paired_in_parts():
    """Each part has its share of the noise, and masses are right in all."""
    data, weights = cloud(1000), torch.ones(1000)
    weights[::10] = 0.0
    coupling = solve_coupling(data, a_target=weights / weights.sum(), part_size=250, random_state=0)
    sizes = coupling.groups.codes[weights > 0].bincount()
    assert sizes.tolist() == [225] * 4
    assert len(coupling.results) == 4
    assert coupling.groups.codes.bincount().sum() == 1000
    for result, member in zip(coupling.results, coupling.groups.members, strict=True):
        assert result.converged
        assert not bool((member.diff() <= 0).any())
        chosen = result.atom_weights(torch.randn(9, data.shape[1], dtype=data.dtype))
        assert not chosen[:, weights[member] == 0].any()
    pairs = SemiDiscretePairs(coupling, batch_size=1000, epoch_size=200_000, random_state=0)
    noise, found, index = collected(pairs)
    share = index.bincount(minlength=1000) / len(index)
    assert bool((share[weights == 0] == 0).all())
    chi2 = float(((share[weights > 0] - 1 / 900) ** 2 * 900).sum()) - 900 / len(index)
    assert abs(chi2 - coupling.chi2) < 0.1
    near = ((noise - found) ** 2).sum(1).mean()
    apart = ((noise - found[torch.randperm(len(found))]) ** 2).sum(1).mean()
    assert near < 0.2 * apart


def labelled(n=2000):
    """Data of two classes that are far apart in the first coordinate, and unlike in number."""
    label = (torch.arange(n) % 4 == 0).long() * 7  # 0 or 7
    data = cloud(n, 2) + torch.where(label == 7, 3.0, -1.0)[:, None] * torch.tensor([1.0, 0.0])
    return data, label


def moments(noise, label):
    """Worst deviation of mean and variance of the noise from 0 and 1, given a label."""
    parts = [noise[label == value] for value in (0, 7)]
    return max(float(torch.stack([part.mean(0).abs(), (part.var(0) - 1).abs()]).max()) for part in parts)


def test_noise_says_nothing_of_the_label():
    data, label = labelled()
    coupling = solve_coupling(data, labels=label, random_state=0)
    assert torch.equal(coupling.labels, label)
    assert len(coupling.results) == 2
    assert [result.converged for result in coupling.results] == [True, True]
    weights = coupling.groups.weights
    expected = (
        float(weights[0]) * coupling.results[0].chi2 + float(weights[1]) * coupling.results[1].chi2
    )
    assert math.isclose(coupling.chi2, expected, rel_tol=1e-5)
    pairs = SemiDiscretePairs(coupling, batch_size=500, epoch_size=40_000, random_state=0)
    batch = next(iter(pairs))
    assert isinstance(batch, LabelledPairs)
    assert torch.equal(batch.label, label[batch.index])
    noise, _, index, told = collected(pairs)
    assert moments(noise, told) < 0.06
    assert abs(float((told == 7).float().mean()) - 0.25) < 0.02
    even = SemiDiscretePairs(
        coupling, batch_size=500, epoch_size=40_000, random_state=0, proportions=[3.0, 1.0]
    )
    assert abs(float((collected(even)[3] == 7).float().mean()) - 0.25) < 0.02
    only = SemiDiscretePairs(coupling, batch_size=500, random_state=0, proportions=[0.0, 1.0])
    assert set(collected(only)[3].tolist()) == {7}
    plain = SemiDiscretePairs(data, batch_size=500, epoch_size=40_000, random_state=0)
    noise, _, index = collected(plain)
    assert isinstance(next(iter(plain)), Pairs)
    assert moments(noise, label[index]) > 0.5
    shortcut = SemiDiscretePairs(data, labels=label, batch_size=500, random_state=0)
    assert torch.equal(next(iter(shortcut)).index, batch.index)


def test_conditions_are_kept_and_leave_the_noise_normal():
    data, label = labelled(800)
    onehot = torch.nn.functional.one_hot(label // 7, 2).float()
    coupling = solve_coupling(data, conditions=onehot, tol=0.3, random_state=0)
    assert coupling.space.condition_weight > 0
    pairs = SemiDiscretePairs(coupling, batch_size=500, epoch_size=40_000, random_state=0)
    noise, _, index, told = collected(pairs)
    assert torch.equal(told, onehot[index])
    # as with a potential of each class; without, it is off by more than 0.5
    assert moments(noise, label[index]) < 0.06
    assert abs(float((told[:, 1] == 1).float().mean()) - 0.25) < 0.03
    # a continuous condition, which the data depend on
    angle = torch.rand(800, 1, generator=torch.Generator().manual_seed(5))
    moved = cloud(800, 2, seed=2) * 0.3 + torch.cat([4.0 * angle, 0.0 * angle], dim=1)
    dependence = {}
    for weight in (0.0, None):
        found = solve_coupling(moved, conditions=angle, condition_weight=weight, tol=0.3, random_state=0)
        pairs = SemiDiscretePairs(found, batch_size=500, epoch_size=10_000, random_state=0)
        noise, _, index, told = collected(pairs)
        dependence[weight] = abs(float(torch.corrcoef(torch.stack([noise[:, 0], told[:, 0]]))[0, 1]))
    assert dependence[None] < 0.15 < 0.8 < dependence[0.0]


# streams


def loaded(pairs, n_workers, context=None):
    """Batches of an epoch that workers make."""
    options = {"multiprocessing_context": context} if n_workers else {}
    return list(torch.utils.data.DataLoader(pairs, batch_size=None, num_workers=n_workers, **options))


def test_streams_of_workers():
    """Each worker has its own, together those of one process; epochs differ, runs are the same."""
    make = lambda seed=0: SemiDiscretePairs(cloud(400, 3), batch_size=10, random_state=seed)
    alone = make()
    first, second = list(alone), list(alone)
    assert len(first) == len(alone) == 40
    assert not same(first, second)
    assert same(make(), first)
    assert not same(make(1), first)
    key = lambda batch: float(batch.noise.sum())
    assert same(loaded(make(), 1, "spawn"), first)
    pairs = make()
    one = loaded(pairs, 2, "fork")
    assert not same(one, first)
    assert same(sorted(one, key=key), sorted(first, key=key))
    two = loaded(pairs, 2, "fork")
    assert same(sorted(two, key=key), sorted(second, key=key))
    assert same(loaded(make(), 0), first)
    chosen = make()
    chosen.set_epoch(1)
    assert same(chosen, second)
    many = make()
    assert len(loaded(many, 8, "fork")) == 40  # fewer chunks than workers


def test_streams_of_processes(monkeypatch):
    def as_rank(rank, n_ranks):
        monkeypatch.setattr(streams.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(streams.distributed, "get_rank", lambda: rank)
        monkeypatch.setattr(streams.distributed, "get_world_size", lambda: n_ranks)

    coupling, found = solve_coupling(cloud(400, 3), random_state=0), []
    for rank in range(3):
        as_rank(rank, 3)
        pairs = SemiDiscretePairs(coupling, batch_size=10, random_state=0)
        assert len(pairs) == 14
        copy = pickle.loads(pickle.dumps(pairs))
        found += [list(pairs), list(pairs)]
        monkeypatch.undo()  # as in a worker that is spawned
        assert same(copy, found[-2])
    noises = torch.cat([batch.noise for batches in found for batch in batches])
    assert len(torch.unique(noises, dim=0)) == len(noises) == 3 * 2 * 140


@pytest.mark.parametrize("n_components", [None, 2])
def test_resumed_bit_for_bit(n_components):
    coupling = solve_coupling(cloud(300, 5), n_components=n_components, random_state=0)
    make = lambda **options: SemiDiscretePairs(coupling, batch_size=10, random_state=0, **options)
    whole = make()
    batches = list(whole) + list(whole)
    assert len(batches) == 60
    for stop in (0, 1, 7, 29, 30, 31, 45):
        pairs, seen = make(), []
        while len(seen) < stop:
            for batch in pairs:
                seen.append(batch)
                if len(seen) == stop:
                    break
        state = pairs.state_dict()
        assert all(type(value) is int for value in state.values())
        again = make()
        again.load_state_dict(state)
        assert again.state_dict() == state
        rest = list(again) + (list(again) if stop < 30 else [])
        assert same(seen + rest, batches), stop
    with pytest.raises(ValueError, match="with batch_size 10, received 20"):
        make().load_state_dict(SemiDiscretePairs(coupling, batch_size=20, random_state=0).state_dict())
    with pytest.raises(ValueError, match="with of"):
        make(independent=0.5).load_state_dict(make().state_dict())
    resumed = make()
    next(iter(resumed))
    resumed.load_state_dict(resumed.state_dict())
    with pytest.raises(ValueError, match="expected to go on with num_workers=0"):
        loaded(resumed, 2, "fork")
    resumed.set_epoch(1)
    assert resumed.state_dict()["epoch"] == 1
    assert same(resumed, batches[30:])
    with pytest.raises(ValueError, match="with seed 1, received 0"):
        SemiDiscretePairs(coupling, batch_size=10, random_state=1).load_state_dict(make().state_dict())


@pytest.mark.parametrize("n_workers", [0, 1, 2])
def test_resumed_at_an_epoch_by_a_plain_loader(n_workers):
    """The main process knows how many epochs its workers have begun."""
    make = lambda: SemiDiscretePairs(cloud(400, 3), batch_size=10, random_state=0)
    pairs = make()
    epochs = [loaded(pairs, n_workers, "fork") for _ in range(3)]
    pairs = make()
    for k in range(3):
        state, again = pairs.state_dict(), make()
        assert (state["epoch"], state["batch"]) == (k, 0)
        again.load_state_dict(state)
        assert again.state_dict() == state
        assert same(loaded(again, n_workers, "fork"), epochs[k])
        assert same(loaded(pairs, n_workers, "fork"), epochs[k])


def test_resumed_by_a_stateful_loader():
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    coupling = solve_coupling(cloud(400, 3), random_state=0)

    def make(n_workers):
        pairs = SemiDiscretePairs(coupling, batch_size=10, random_state=0)
        return stateful.StatefulDataLoader(pairs, batch_size=None, num_workers=n_workers)

    for n_workers in (0, 2):
        loader = make(n_workers)
        batches = list(loader)
        following = list(loader)
        part = make(n_workers)
        steps = iter(part)
        for _ in range(13):
            next(steps)
        state = part.state_dict()
        again = make(n_workers)
        again.load_state_dict(state)
        assert same(again, batches[13:])
        assert same(again, following)


# noise for data


def test_noise_for_data_has_the_law_of_the_pairs():
    """On the line the noise of a data point is normal, cut off at the ends of its cell."""
    data = torch.tensor([[-2.0], [-0.5], [0.3], [1.0]], dtype=torch.float64)
    weights = torch.tensor([0.1, 0.2, 0.4, 0.3], dtype=torch.float64)
    coupling = solve_coupling(data, a_target=weights, tol=0.01, random_state=0)
    pairs = SemiDiscretePairs(coupling, batch_size=128, random_state=0)
    ends = scipy.stats.norm.ppf([0.0, 0.1, 0.3, 0.7, 1.0])
    asked = torch.tensor([0, 1, 2, 3, 3, 3] * 200)
    noise = torch.cat([pairs.noise_for(part) for part in asked.split(100)])[:, 0]
    assert len(torch.unique(noise)) == len(noise)
    assert pairs.reservoir.n_nearest == 0
    for k in range(4):
        law = scipy.stats.truncnorm(ends[k], ends[k + 1])
        assert scipy.stats.kstest(noise[asked == k].numpy(), law.cdf).pvalue > 1e-3, k
    assert scipy.stats.kstest(noise[asked == 0].numpy(), "norm").pvalue < 1e-6


def test_excess_of_data_at_one_place_is_that_of_the_plan():
    """``c - psi - psi^c`` of all data, by which the noise nearest to one is found."""
    data = torch.cat([cloud(20), cloud(20)[:5]])
    coupling = solve_coupling(data, random_state=0)
    pairing, points = SemiDiscretePairs(coupling, random_state=0).reservoir.pairing, cloud(50, seed=1)
    condition = pairing.condition_on(torch.zeros(50, dtype=torch.long), streams.stream(0, like=data))
    found = pairing.excess(points, condition, torch.arange(25))
    scores = torch.cdist(points, data) ** 2 - coupling.results[0].potential
    torch.testing.assert_close(found, scores - scores.min(dim=1).values[:, None], rtol=0.0, atol=1e-4)


def test_noise_for_images_of_a_class():
    """Each point once, of the class asked for, fresh out of the space; memory is bounded."""
    data, label = labelled(400)
    images = torch.cat([data, 0.1 * cloud(400, 6, seed=9)], dim=1).reshape(400, 2, 2, 2)
    coupling = solve_coupling(images, labels=label, n_components=2, random_state=0)
    make = lambda memory: SemiDiscretePairs(coupling, batch_size=32, max_memory=memory, random_state=0)
    pairs, v = make(2**20), coupling.space.projection
    found, wrong = [], 0
    for epoch in range(3):
        for index in torch.randperm(400, generator=torch.Generator().manual_seed(epoch)).split(32):
            noise = pairs.noise_for(index)
            assert noise.shape == (len(index), 2, 2, 2)
            found.append(noise.flatten(1))
            for row, i in zip(noise.flatten(1), index.tolist(), strict=True):
                k = int(coupling.groups.codes[i])
                chosen = coupling.results[k].pair(row[None] @ v)
                wrong += int(coupling.groups.members[k][chosen]) != i
    assert wrong <= pairs.reservoir.n_nearest + 2 < 60  # rounding at the ends of cells
    found = torch.cat(found)
    assert len(torch.unique(found, dim=0)) == 1200
    np.testing.assert_allclose(found.mean(0), 0.0, atol=0.12)
    np.testing.assert_allclose(found.var(0), 1.0, atol=0.2)
    small = make(400 * 2 * 4)
    small.noise_for(torch.arange(400))
    small.noise_for(torch.arange(400))
    assert len(small.reservoir.kept) <= 800
    assert max(map(len, small.reservoir.slots.values())) == 1
    with pytest.raises(ValueError, match="max_memory: expected 3200 bytes at least"):
        make(3199).noise_for(torch.arange(3))
    # it goes on from a state
    again = make(2**20)
    again.reservoir.load_state_dict(pairs.reservoir.state_dict())
    asked = torch.arange(0, 400, 7)
    assert torch.equal(pairs.noise_for(asked), again.noise_for(asked))
    assert pairs.noise_for(torch.tensor([], dtype=torch.long)).shape == (0, 2, 2, 2)


class Noisy(torch.utils.data.Dataset):
    """A data set of its own order, which asks for noise in the workers."""

    def __init__(self, pairs):
        self.pairs = pairs

    def __len__(self):
        return 60

    def __getitem__(self, i):
        return self.pairs.noise_for(torch.tensor([i]))[0]


@pytest.mark.parametrize("n_workers", [0, 2])
def test_noise_for_data_is_another_in_each_worker_and_epoch(n_workers):
    pairs = SemiDiscretePairs(cloud(60), batch_size=8, random_state=0)
    assert pairs.noise_for(torch.arange(4)).shape == (4, 2)
    assert len(pickle.dumps(pairs)) < 100_000  # what is kept stays here
    loader = torch.utils.data.DataLoader(Noisy(pairs), batch_size=10, num_workers=n_workers)
    noise = torch.cat([batch for _ in range(2) for batch in loader])
    assert len(torch.unique(noise, dim=0)) == 120


# tables


def test_pairs_are_stored_by_their_seed(tmp_path):
    data, label = labelled(400)
    wide = torch.cat([data, cloud(400, 4, seed=3)], dim=1)
    coupling = solve_coupling(wide, labels=label, n_components=2, random_state=0)
    pairs = SemiDiscretePairs(coupling, batch_size=20, random_state=5)
    path = tmp_path / "pairs.npz"
    pairs.precompute(480, path)  # of 80 pairs, three for an epoch
    stored = StoredPairs(path, wide, batch_size=20)
    assert same(stored, pairs)
    assert same(stored, pairs)
    assert path.stat().st_size < 10_000
    later, _, index, _ = collected(stored)  # the table begins anew, with fresh noise out of the space
    stored_first = list(StoredPairs(path, wide, batch_size=20))
    first = [torch.cat([batch[k] for batch in stored_first]) for k in range(4)]
    assert sorted(index.tolist()) == sorted(first[2].tolist())
    assert len(torch.unique(torch.cat([later, first[0]]), dim=0)) == 800
    state = stored.state_dict()
    again = StoredPairs(path, wide, batch_size=20)
    again.load_state_dict(state)
    assert same(again, stored)
    assert same(pickle.loads(pickle.dumps(StoredPairs(path, wide, batch_size=20))), stored_first)
    content = path.read_bytes()
    for broken in (content[:200], content[:-40], b""):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="expected a file written by SemiDiscretePairs"):
            StoredPairs(path, wide)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="device: expected 'cpu'"):
        StoredPairs(path, wide, device="cuda")
    with pytest.raises(ValueError, match="batch_size: expected a divisor of 80"):
        StoredPairs(path, wide, batch_size=33)
    with pytest.raises(ValueError, match="data: expected 400 items"):
        StoredPairs(path, wide[:-1], batch_size=20)
    points = SemiDiscretePairs(cloud(20), cloud(500, seed=4), random_state=0)
    with pytest.raises(ValueError, match="noise: expected a law with a name"):
        points.precompute(10, path)
    with pytest.raises(ValueError, match="path: expected a file in a folder"):
        pairs.precompute(10, tmp_path / "none" / "pairs.npz")


# clients


def test_the_place_of_a_plan_sampler():
    data, label = labelled(300)
    pairs = SemiDiscretePairs(data, labels=label, random_state=0)
    sampler = PlanSampler(pairs)
    index = torch.arange(0, 300, 5)
    x0, x1 = sampler.sample_plan(torch.randn(60, 2), data[index])
    assert torch.equal(x1, data[index])
    assert x0.shape == x1.shape
    y0, y1 = sampler.sample_plan(torch.randn(60, 2), index)
    assert torch.equal(y1, data[index])
    assert not torch.equal(x0, y0)
    images = PlanSampler(SemiDiscretePairs(data.reshape(-1, 1, 2), random_state=0))
    x0, x1 = images.sample_plan(torch.randn(60, 2), data[index])  # flattened
    assert x0.shape == x1.shape == (60, 2)
    *_, none, found = sampler.sample_plan_with_labels(torch.randn(60, 2), data[index], y1=label[index])
    assert none is None
    assert torch.equal(found, label[index])
    with pytest.raises(
        ValueError, match="x1: expected data points to the bit, received 60 of 60 others"
    ):
        sampler.sample_plan(torch.randn(60, 2), data[index] + 1e-3)
    with pytest.raises(ValueError, match="y0: expected None"):
        sampler.sample_plan_with_labels(torch.randn(60, 2), data[index], label[index])
    with pytest.raises(TypeError, match="pairs: expected SemiDiscretePairs"):
        PlanSampler(data)


def test_a_step_of_torchcfm():
    matching = pytest.importorskip("torchcfm.conditional_flow_matching")
    data, _ = labelled(300)
    matcher = matching.ExactOptimalTransportConditionalFlowMatcher(sigma=0.0)
    matcher.ot_sampler = PlanSampler(SemiDiscretePairs(data, random_state=0))
    t, xt, ut = matcher.sample_location_and_conditional_flow(torch.randn(64, 2), data[:64])
    start = xt - t[:, None] * ut
    np.testing.assert_allclose(start + ut, data[:64], atol=1e-5)
    index = matcher.ot_sampler.pairs.coupling.results[0].pair(start)
    assert float((index == torch.arange(64)).float().mean()) > 0.9  # rounding, and points taken nearby


def test_a_step_of_flow_matching():
    path_module = pytest.importorskip("flow_matching.path")
    scheduler = pytest.importorskip("flow_matching.path.scheduler")
    path = path_module.AffineProbPath(scheduler=scheduler.CondOTScheduler())
    data, _ = labelled(300)
    noise, found, _ = next(iter(SemiDiscretePairs(data, batch_size=64, random_state=0)))
    t = torch.rand(64)
    sample = path.sample(t=t, x_0=noise, x_1=found)
    np.testing.assert_allclose(sample.x_t, (1 - t)[:, None] * noise + t[:, None] * found, atol=1e-6)
    np.testing.assert_allclose(sample.dx_t, found - noise, atol=1e-6)


# doors


def test_a_solve_is_continued():
    data, label = labelled(400)
    rough = solve_coupling(data, labels=label, tol=0, max_iter=1, random_state=0)
    good = solve_coupling(data, labels=label, init_coupling=rough, random_state=1)
    assert good.chi2 < rough.chi2
    assert good.groups is rough.groups
    again = solve_coupling(data, labels=label, init_coupling=good, random_state=2)
    assert [result.n_iter for result in again.results] == [0, 0]
    with pytest.raises(ValueError, match="init_coupling: expected one of these 400 data and labels"):
        solve_coupling(data, init_coupling=good)
    double = data.double()
    with pytest.raises(TypeError, match=r"init_coupling: .*give init_coupling.to\(X_target\)"):
        solve_coupling(double, labels=label, init_coupling=good)
    options = {"labels": label, "init_coupling": good.to(double), "random_state": 2}
    assert solve_coupling(double, **options).results[0].n_iter == 0


def test_a_coupling_is_continued_with_other_weights():
    data, label = labelled(400)
    even = solve_coupling(data, labels=label, random_state=0)
    weights = torch.where(label == 7, 2.0, 1.0)
    weights /= weights.sum()
    other = solve_coupling(data, a_target=weights, labels=label, init_coupling=even, random_state=1)
    expected = torch.stack([weights[label == value].sum() for value in other.classes])
    torch.testing.assert_close(other.groups.weights, expected)
    for k, (result, member) in enumerate(zip(other.results, other.groups.members, strict=True)):
        share = weights[member] / expected[k]
        torch.testing.assert_close(result._target.weights, share)
    parts = solve_coupling(data, part_size=100, random_state=0)
    weights[parts.groups.members[2]] = 0.0
    with pytest.raises(ValueError, match=r"init_coupling: .* a group of weight 0, of 4; leave it out"):
        solve_coupling(data, a_target=weights / weights.sum(), part_size=100, init_coupling=parts)


@pytest.mark.parametrize("scale", [2.0**-30, 2.0**20])
def test_the_weight_of_conditions_follows_their_unit(scale):
    data, condition = cloud(100), cloud(100, seed=1)[:, :1]
    options = {"tol": 0, "max_iter": 1, "random_state": 0}
    one, other = (
        solve_coupling(data, conditions=s * condition, **options).space.condition_weight
        for s in (1.0, scale)
    )
    assert one > 0.0
    assert other * scale**2 == pytest.approx(one, rel=1e-6)
    small = solve_coupling(scale * data, scale * cloud(50, seed=2), conditions=condition, **options)
    large = solve_coupling(data, cloud(50, seed=2), conditions=condition, **options)
    found = small.space.condition_weight / scale**2
    assert found == pytest.approx(large.space.condition_weight, rel=1e-6)


def test_nothing_is_weighed_where_all_is_alike(recwarn):
    """Noise and data at one place, or one condition for all: no weight, and no transport of NaN."""
    same, condition = torch.zeros(20, 2), torch.arange(20.0)[:, None]
    options = {"tol": 0, "max_iter": 1, "random_state": 0}
    for data, noise, conditions in ((same, same, condition), (cloud(20), "normal", 0.0 * condition)):
        found = solve_coupling(data, noise, conditions=conditions, **options)
        assert found.space.condition_weight == 0.0
    assert not recwarn.list


def test_conditions_are_drawn_by_the_weights_of_the_data():
    """Or potentials would be of another source than pairs are drawn from."""
    data, condition = cloud(40), cloud(40, seed=1)[:, :1]
    weights = torch.where(condition[:, 0] > 0.0, 0.95, 0.05)
    weights /= weights.sum()
    options = {"conditions": condition, "condition_weight": 50.0, "tol": 0.1, "random_state": 0}
    pairs = SemiDiscretePairs(
        solve_coupling(data, a_target=weights, **options), epoch_size=50_000, random_state=1
    )
    index = torch.cat([batch.index for batch in pairs])
    masses = index.bincount(minlength=40) / len(index)
    assert pairs.coupling.chi2 < 0.02
    assert ((masses - weights) ** 2 / weights).sum() < 0.02


def test_an_interrupted_solve_keeps_what_it_has(monkeypatch):
    data, label = labelled(400)
    solve, calls = solving.solve_problem, []

    def interrupted(problem, source, options, start, verbose, *more):
        calls.append(options.max_iter)

        def stop(state):
            raise KeyboardInterrupt

        return solve(problem, source, options, start, verbose, stop if len(calls) == 1 else None)

    monkeypatch.setattr(solving, "solve_problem", interrupted)
    with pytest.warns(ps.SemiDiscreteWarning) as caught:
        coupling = solve_coupling(data, labels=label, random_state=0)
    assert {warning.filename for warning in caught} == {__file__}
    assert calls == [10_000, 1]
    assert [r.status for r in coupling.results] == ["interrupted", "max_iter"]
    monkeypatch.undo()
    assert solve_coupling(data, labels=label, init_coupling=coupling, random_state=0).chi2 < 0.3


@pytest.mark.parametrize(
    ("error", "words", "arguments", "options"),
    [
        (TypeError, "X_target: expected a torch tensor", [np.zeros((5, 2))], {}),
        (TypeError, "torch.cat", [torch.utils.data.DataLoader(cloud(9))], {}),
        (TypeError, "noise: expected the name of a law", [cloud(9), torch.randn], {}),
        (TypeError, "noise: expected the name of a law", [cloud(9), SobolSampler(2)], {}),
        (ValueError, "labels or conditions", [cloud(9)], {"labels": [0] * 9, "conditions": cloud(9)}),
        (ValueError, r"labels: expected shape \(9,\)", [cloud(9)], {"labels": [0] * 8}),
        (TypeError, "labels: expected whole numbers", [cloud(9)], {"labels": cloud(9)[:, 0]}),
        (ValueError, "conditions: expected 9 rows", [cloud(9)], {"conditions": cloud(8)}),
        (ValueError, "condition_weight: expected None", [cloud(9)], {"condition_weight": 1.0}),
        (ValueError, "n_components: expected at most 2", [cloud(9)], {"n_components": 3}),
        (ValueError, "projection: expected 2 rows", [cloud(9)], {"projection": cloud(3, 1)}),
        (TypeError, "projection: expected a tensor", [cloud(9)], {"projection": 3}),
        (ValueError, "with a proj", [cloud(9)], {"projection": cloud(2, 1), "n_components": 1}),
        (ValueError, "X_space: expected 9 points", [cloud(9)], {"X_space": cloud(8)}),
        (ValueError, "X_space: expected points of the dim", [cloud(9)], {"X_space": cloud(9, 3)}),
        (ValueError, "part_size", [cloud(9)], {"part_size": 0}),
    ],
)
def test_refusals_of_the_solver(error, words, arguments, options):
    with pytest.raises(error, match=words):
        solve_coupling(*arguments, **options)


@pytest.mark.parametrize(
    ("error", "words", "options"),
    [
        (ValueError, "labels: expected None with a potential", {"labels": [0] * 60}),
        (ValueError, "noise, projection: expected None", {"noise": "normal"}),
        (ValueError, "data: expected 60 items", {"data": cloud(59)}),
        (TypeError, "data: expected a tensor", {"data": 3}),
        (TypeError, "transform: expected a callable", {"transform": 3}),
        (ValueError, "independent: expected a share", {"independent": 1.5}),
        (ValueError, "proportions: expected None", {"proportions": [1.0]}),
        (ValueError, "batch_size", {"batch_size": 0}),
        (ValueError, "n_reuse", {"n_reuse": 0}),
    ],
)
def test_refusals_of_pairs(error, words, options):
    coupling = solve_coupling(cloud(60), random_state=0)
    with pytest.raises(error, match=words):
        SemiDiscretePairs(coupling, **options)


def test_other_refusals():
    with pytest.raises(TypeError, match="plan: expected a coupling"):
        SemiDiscretePairs(3)
    pairs = SemiDiscretePairs(cloud(60), random_state=0)
    with pytest.raises(TypeError, match="index: expected a tensor of int"):
        pairs.noise_for([1, 2])
    weights = torch.tensor([0.0, 0.5, 0.5])
    empty = SemiDiscretePairs(solve_coupling(cloud(3), a_target=weights, random_state=0))
    with pytest.raises(ValueError, match="index: expected data of positive weight, received row 0"):
        empty.noise_for(torch.tensor([1, 0]))
    with pytest.raises(ValueError, match="projection: expected a function to a tensor of 60 rows"):
        solve_coupling(cloud(60), projection=lambda x: x.sum())
    with pytest.raises(ValueError, match="rows of the data, 0 to 59, received 7 to 60; number the data"):
        pairs.noise_for(torch.tensor([7, 60]))
    data, label = labelled(40)
    with pytest.raises(ValueError, match="labels: expected classes of positive weight"):
        solve_coupling(data, a_target=(label == 0).float() / (label == 0).sum(), labels=label)
    with pytest.raises(ValueError, match="proportions: expected 2 numbers"):
        SemiDiscretePairs(data, labels=label, proportions=[1.0])
    with pytest.raises(TypeError, match="proportions: expected numbers"):
        SemiDiscretePairs(data, labels=label, proportions="even")
    with pytest.raises(TypeError, match="where: expected a tensor"):
        pairs.coupling.to(np.zeros(1))
    with pytest.raises(TypeError, match="items that are arrays"):
        next(iter(SemiDiscretePairs(pairs.coupling, data=["image"] * 60)))


def test_couplings_move():
    data, label = labelled(100)
    coupling = solve_coupling(data, labels=label, random_state=0)
    moved = coupling.to(torch.float64)
    assert moved.chi2 == pytest.approx(coupling.chi2)
    assert moved.like.dtype == torch.float64
    assert next(iter(SemiDiscretePairs(moved, batch_size=4))).noise.dtype == torch.float64
    copy = pickle.loads(pickle.dumps(coupling))
    make = lambda coupling: SemiDiscretePairs(coupling, batch_size=8, random_state=0)
    assert same(make(copy), make(coupling))


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, "solve_coupling: 2/2"),
        ({"part_size": 100}, "solve_coupling, 2 groups of 2: 1/2"),
        ({"labels": torch.arange(200) % 3 // 2}, "solve_coupling, group 2 of 2: 2/2"),  # 133 and 67
    ],
)
def test_a_run_that_ends_early_says_whose_it_is(options, shown, capsys):
    with pytest.warns(ps.SemiDiscreteWarning, match=r"solve_coupling ended .* init_coupling=coupling"):
        solve_coupling(cloud(200, 3), max_iter=2, tol=0.01, random_state=0, verbose=True, **options)
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize(("n_runs", "own"), [(10, True), (11, False), (20, False)])
def test_many_runs_show_how_many_of_them_are_done(n_runs, own, capsys, monkeypatch):
    """Ten lines or so in all, and those of a run only if runs are few."""
    monkeypatch.setattr("time.monotonic", lambda: 0.0)  # the clock decides about words
    labels = torch.arange(12 * n_runs) // 12
    options = {"labels": labels, "max_iter": 1, "tol": 0.0, "random_state": 0, "verbose": True}
    solve_coupling(cloud(len(labels), 3), **options)
    lines = [line.split(" ")[:2] for line in capsys.readouterr().out.splitlines()]
    done = range(n_runs // 10, n_runs + 1, n_runs // 10)
    assert [count for name, count in lines if name == "solve_coupling:"] == [
        f"{k}/{n_runs}" for k in done
    ]
    assert any(name == "solve_coupling," for name, _ in lines) == own
