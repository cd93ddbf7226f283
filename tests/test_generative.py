"""The torch layers: a loss that carries its potential, and the loop that trains with it."""

import copy
import math
import warnings

import numpy as np
import ot
import pytest

import pot_semidiscrete as sd
from pot_semidiscrete import (
    SemiDiscreteResult,
    SemiDiscreteWarning,
    cost_scale,
    semidiscrete_atom_weights,
    semidiscrete_gradient,
    semidiscrete_loss,
)
from pot_semidiscrete.metrics import covariance_ratio, transport_cost
from pot_semidiscrete.optim import tracking

torch = pytest.importorskip("torch")
nn = torch.nn

from pot_semidiscrete.generative import (  # noqa: E402
    SemiDiscreteLoss,
    TrainingResult,
    choices,
    dcgan_generator,
    mlp_generator,
    train_generator,
)

pytestmark = pytest.mark.usefixtures("torch_seed")
DTYPES = [torch.float32, torch.float64]
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
each_reg = pytest.mark.parametrize("reg", [0.0, 0.3])


def randn(*shape, seed=0, dtype=torch.float32):
    """Normal numbers, of a seed of their own."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def source(seed=7, dtype=torch.float32):
    """A sampler of normal points in the plane."""
    generator = torch.Generator().manual_seed(seed)
    return lambda n: torch.randn(n, 2, generator=generator, dtype=dtype)


def stepped(n_steps=7, dtype=torch.float32, **options):
    """A loss on 20 atoms after some dual steps."""
    loss = SemiDiscreteLoss(randn(20, 2, seed=1, dtype=dtype), **options)
    sampler = source(dtype=dtype)
    for _ in range(n_steps):
        loss.dual_step(sampler(64))
    return loss


def buffers(loss):
    """A copy of the state of a loss."""
    return {name: value.clone() for name, value in loss.state_dict().items()}


def assert_equal(one, other):
    """Two states are the same to the bit."""
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype, name
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=0)


# The loss.


def test_state_is_the_potential_and_not_the_data():
    loss = stepped()
    assert loss.state_dict().keys() == {"potential", "n_steps", "_extra_state"}
    assert {name for name, _ in loss.named_buffers()} == {"potential", "n_steps"}
    assert list(loss.parameters()) == []
    assert [b.shape for b in loss.state_dict().values()] == [(20,), (), (48,)]
    assert loss.n_steps == 7


@each_dtype
def test_state_restores_the_value_and_the_course(dtype, tmp_path):
    loss, x = stepped(dtype=dtype), randn(50, 2, dtype=dtype)
    torch.save(loss.state_dict(), tmp_path / "loss.pt")
    again = SemiDiscreteLoss(randn(20, 2, seed=1, dtype=dtype))
    assert again(x) != loss(x)
    again.load_state_dict(torch.load(tmp_path / "loss.pt", weights_only=True))
    assert again(x) == loss(x)
    for each in (loss, again):
        each.dual_step(x)
    assert_equal(again.state_dict(), loss.state_dict())


def test_state_inside_a_larger_module():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.generator, self.loss = nn.Linear(2, 2), stepped()

    state = Model().state_dict()
    assert {name for name in state if name.startswith("loss.")} == {
        "loss.potential",
        "loss.n_steps",
        "loss._extra_state",
    }


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double", "float", "cpu"])
def test_casts_leave_the_potential_alone(cast):
    loss, x = stepped(), randn(50, 2)
    before, value = buffers(loss), loss(x)
    model = nn.ModuleDict({"loss": loss, "generator": nn.Linear(2, 2)})
    getattr(model, cast)()
    assert_equal(buffers(loss), before)
    assert loss(x) == value


@pytest.mark.parametrize("move", [("cpu",), (torch.device("cpu"),), ("cpu", torch.float16)], ids=str)
def test_moves_keep_state_and_value(move):
    loss, x = stepped(a_target=weights(20, empty=(0, 5))), randn(50, 2)
    before, value = buffers(loss), loss(x)
    assert loss.to(*move) is loss
    assert_equal(buffers(loss), before)
    assert loss(x) == value
    loss.dual_step(x)


def test_copy_is_independent():
    loss = stepped()
    other, before = copy.deepcopy(loss), buffers(loss)
    other.dual_step(randn(50, 2))
    assert_equal(buffers(loss), before)
    assert other.n_steps == loss.n_steps + 1


@each_reg
def test_forward_never_moves_the_potential(reg):
    loss = stepped(reg=reg)
    before = buffers(loss)
    for mode in (loss.train, loss.eval):
        mode()
        loss(randn(50, 2).requires_grad_()).backward()
        with torch.no_grad():
            loss(randn(50, 2))
    assert_equal(buffers(loss), before)


@each_dtype
@each_reg
@pytest.mark.parametrize("metric", [None, "euclidean", "cityblock"])
def test_forward_is_the_loss_and_its_gradient(metric, reg, dtype):
    loss = stepped(metric=metric, reg=reg, dtype=dtype)
    x = randn(50, 2, dtype=dtype).requires_grad_()
    loss(x).backward()
    atoms, problem = randn(20, 2, seed=1, dtype=dtype), {"metric": metric, "reg": reg}
    value = semidiscrete_loss(atoms, x.detach(), loss.potential, **problem)
    gradient = semidiscrete_gradient(atoms, x.detach(), loss.potential, **problem) / 50
    tolerance = (
        {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    )
    torch.testing.assert_close(loss(x).detach(), value, **tolerance)
    torch.testing.assert_close(x.grad, gradient, **tolerance)


def test_forward_does_not_reach_into_the_potential():
    """Its buffers are not trained by an optimiser, nor do they keep a graph."""
    loss = stepped()
    loss(randn(50, 2).requires_grad_()).backward()
    assert all(not b.requires_grad and b.grad is None for b in loss.buffers())


@pytest.mark.parametrize("shape", [(6,), (2, 3), (1, 2, 3), (3, 2, 1), (6, 1, 1, 1)], ids=str)
def test_points_of_any_shape(shape):
    atoms, x = randn(20, 6, seed=1), randn(50, 6)
    flat, shaped = SemiDiscreteLoss(atoms), SemiDiscreteLoss(atoms.reshape(20, *shape))
    points = x.reshape(50, *shape).requires_grad_()
    for each, batch in ((flat, x), (shaped, points)):
        each.dual_step(batch)
    assert_equal(shaped.state_dict(), flat.state_dict())
    assert shaped(points) == flat(x)
    shaped(points).backward()
    assert points.grad.shape == points.shape
    assert shaped.fit(lambda n: points[:n], tol=0, max_iter=2, batch_size=50).n_iter == 2


def test_points_may_be_strided():
    x = randn(3, 2, 50).permute(2, 1, 0).requires_grad_()
    loss = SemiDiscreteLoss(randn(20, 6, seed=1))
    loss.dual_step(x)
    assert loss(x) == loss(x.contiguous())
    loss(x).backward()


def test_a_gradient_without_a_potential_is_warned_of():
    """Not a value alone, and not once the potential has moved, or was set."""
    loss, x = SemiDiscreteLoss(randn(20, 2, seed=1)), randn(50, 2)
    loss(x)
    with pytest.warns(SemiDiscreteWarning, match=r"call follow\(points\)") as caught:
        loss(x.requires_grad_()).backward()
    assert caught[0].filename == __file__
    loss.follow(x)
    loss(x).backward()
    known = SemiDiscreteLoss(randn(20, 2, seed=1))
    known.potential.copy_(loss.potential)
    known(x).backward()


@each_reg
@pytest.mark.parametrize("metric", [None, "euclidean"])
def test_autocast_changes_nothing(metric, reg):
    """In the last bit: products of float32 are not rounded to bfloat16, in any method."""
    atoms, x = randn(30, 8, seed=1), randn(64, 8)
    outcome = []
    for enabled in (False, True):
        points = x.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = SemiDiscreteLoss(atoms, metric=metric, reg=reg)
            for _ in range(6):
                loss.dual_step(points)
            value = loss(points)
        value.backward()
        outcome.append({"value": value.detach(), "grad": points.grad, **buffers(loss)})
    assert_equal(outcome[1], outcome[0])


def test_autocast_changes_no_fit():
    outcome = []
    for enabled in (False, True):
        loss, sampler = (
            SemiDiscreteLoss(randn(30, 8, seed=1), metric="euclidean", reg=0.1),
            iter(range(99)),
        )
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            result = loss.fit(lambda n: randn(n, 8, seed=next(sampler)), tol=0, max_iter=5)  # noqa: B023
        outcome.append({"value": result.value, "marginal": result.marginal_b, **buffers(loss)})
    assert_equal(outcome[1], outcome[0])


@pytest.mark.parametrize("metric", [None, "euclidean", "cosine"])
def test_autocast_changes_no_function(metric):
    atoms, x, psi, theta = randn(30, 8, seed=1), randn(64, 8), randn(30, seed=2), randn(8, seed=3)
    functions = [getattr(sd, f"semidiscrete_{name}") for name in ("c_transform", "ot_map", "gradient")]
    outcome = []
    for enabled in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            values = [torch.tensor(cost_scale(atoms, metric=metric))]
            values += [f(atoms, x, psi, metric=metric, reg=0.3) for f in functions]
            values += sd.generator_gradient(
                lambda theta, z: z + theta, theta, x, atoms, psi, metric=metric, reg=0.3
            )
            result = sd.solve_semidiscrete(
                atoms, "normal", metric=metric, reg=0.3, tol=0, max_iter=3, random_state=0
            )
            values += [result.potential, result.value, result.marginal_b]
        outcome.append(dict(enumerate(values)))
    assert_equal(outcome[1], outcome[0])


def test_generator_trains_under_autocast():
    """Its layers in bfloat16, the transport in the precision of the data."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = train(n_steps=150, optimizer=lambda p: torch.optim.Adam(p, lr=0.05))
    assert result.loss.potential.dtype == torch.float32
    assert result.history["loss"][-20:].mean() < 0.3 * result.history["loss"][:5].mean()


def test_low_precision_points_are_lifted():
    """As a generator under autocast returns them."""
    loss, x = stepped(), randn(50, 2).bfloat16().requires_grad_()
    value = loss(x)
    assert value.dtype == torch.float32
    assert value == loss(x.float())
    value.backward()
    assert x.grad.dtype == torch.bfloat16


def test_generator_under_autocast_gets_gradients():
    loss, generator = stepped(), nn.Linear(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(generator(randn(50, 2)))
    value.backward()
    assert torch.isfinite(generator.weight.grad).all()
    assert generator.weight.grad.abs().max() > 0


def test_dual_steps_and_fit_leave_no_graph():
    generator, z = nn.Linear(2, 2), source()
    loss = SemiDiscreteLoss(randn(20, 2, seed=1))
    loss.dual_step(generator(z(64)))
    result = loss.fit(lambda n: generator(z(n)), tol=0, max_iter=3)
    loss.warm_up(lambda: generator(z(64)), n_batches=3)
    for tensor in (*loss.buffers(), result.potential, result.value, result.marginal_b):
        assert not tensor.requires_grad
        assert tensor.grad_fn is None
    assert generator.weight.grad is None


def test_potential_has_mean_zero():
    b = weights(20, empty=(3,), dtype=torch.float64)
    assert abs(b @ stepped(a_target=b, dtype=torch.float64).potential) < 1e-12


def weights(n, empty, dtype=torch.float32):
    """Random weights, some of which are 0."""
    w = 0.5 + torch.rand(n, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    w[list(empty)] = 0
    return (w / w.sum()).to(dtype)


@each_dtype
@each_reg
def test_fit_balances_the_marginal(reg, dtype):
    """Measured afresh: mean chi-square over 200 batches, 6 standard errors above is 1e-9."""
    b = weights(20, empty=(2, 3), dtype=dtype)
    loss = SemiDiscreteLoss(randn(20, 2, seed=1, dtype=dtype), b, reg=reg)
    result = loss.fit(source(dtype=dtype), tol=0.1)
    assert isinstance(result, SemiDiscreteResult)
    assert result.converged
    torch.testing.assert_close(result.potential, loss.potential, rtol=1e-5, atol=1e-5)
    n = 20_000
    chi = result.atom_weights(source(seed=8, dtype=dtype)(n)).double()
    assert (chi[:, [2, 3]] == 0).all()
    kept = b > 0
    chi, b = chi[:, kept], b[kept].double()
    sums, squares = chi.sum(dim=0), chi.square().sum(dim=0)
    chi2 = float(((sums.square() - squares) / b).sum() / (n * (n - 1)) - 1)
    noise = math.sqrt(2 * (len(b) - 1)) / n  # of the U-statistic, the weights being within [0, 1]
    assert chi2 < 0.1**2 + 6 * noise + 6 * 0.1 * 2 / math.sqrt(n)


def test_fit_continues_by_dual_steps_and_by_itself():
    loss = SemiDiscreteLoss(randn(20, 2, seed=1))
    sampler = source()
    result = loss.fit(sampler, tol=0.1)
    reached = float(loss(source(seed=9)(5000)))
    for _ in range(10):
        loss.dual_step(sampler(256))
    assert abs(float(loss(source(seed=9)(5000))) - reached) < 0.05 * reached
    again = loss.fit(sampler, tol=0.1, init_potential=result.potential)
    assert again.converged
    assert (again.log["reg"] == loss.reg).all()


@pytest.mark.parametrize("n_atoms", [500, 2000])
def test_dual_steps_follow_as_rounds_do(n_atoms):
    """Batch by batch, the potential of a source that stands still is nearly as good as by rounds."""
    losses = [SemiDiscreteLoss(randn(n_atoms, 2, seed=1)) for _ in range(2)]
    sampler, x = source(), source(seed=9)(20_000)
    for _ in range(40):
        points = sampler(1000)
        losses[0].follow(points)
        for part in points.split(200):
            losses[1].dual_step(part)
    best = copy.deepcopy(losses[0])
    best.fit(sampler, tol=0, max_iter=400)
    gaps = [float(best(x) - loss(x)) / best.reg for loss in losses]
    assert gaps[1] < 2.5 * gaps[0]


def test_network_follows_with_fewer_points_than_steps():
    loss = with_network()
    loss.follow(randn(3, 2))
    assert loss.n_steps == 5


def test_fit_warns_when_it_falls_short():
    loss = SemiDiscreteLoss(randn(20, 2, seed=1))
    with pytest.warns(SemiDiscreteWarning, match="max_iter"):
        result = loss.fit(source(), tol=1e-3, max_iter=2)
    assert not result.converged


def test_fit_of_atoms_without_weight():
    loss = SemiDiscreteLoss(randn(20, 2, seed=1), weights(20, empty=(0, 19)))
    loss.fit(source(), tol=0, max_iter=3, init_potential=torch.ones(20))
    assert (loss.potential[[0, 19]] == 0).all()


@pytest.mark.parametrize("metric", [None, "euclidean"])
@pytest.mark.parametrize("shift", [0.0, 100.0])
def test_default_reg_is_a_hundredth_of_the_cost_scale(metric, shift):
    atoms, b = randn(20, 2, seed=1, dtype=torch.float64) + shift, weights(20, (4,), torch.float64)
    loss = SemiDiscreteLoss(atoms, b, metric)
    assert loss.reg == pytest.approx(0.01 * cost_scale(atoms, b, metric), rel=1e-12)
    mean_cost = b @ torch.cdist(atoms, atoms) ** (2 if metric is None else 1) @ b
    assert loss.reg == pytest.approx(0.01 * float(mean_cost), rel=1e-6)
    assert SemiDiscreteLoss(atoms, b, metric, reg=0).reg == 0.0


@each_reg
def test_atoms_without_weight_are_as_if_absent(reg):
    atoms, b = randn(20, 2, seed=1, dtype=torch.float64), weights(20, (0, 7, 19), torch.float64)
    kept = b > 0
    full = SemiDiscreteLoss(atoms, b, reg=reg)
    less = SemiDiscreteLoss(atoms[kept], b[kept], reg=reg)
    sampler = source(dtype=torch.float64)
    for _ in range(12):
        x = sampler(64)
        full.dual_step(x)
        less.dual_step(x)
    assert (full.potential[~kept] == 0).all()
    torch.testing.assert_close(full.potential[kept], less.potential, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(full(x), less(x), rtol=1e-10, atol=1e-10)


def test_data_given_to_the_loss_are_not_changed_nor_aliased():
    atoms = randn(20, 2, seed=1)
    before, loss, x = atoms.clone(), SemiDiscreteLoss(atoms, metric="cosine"), randn(50, 2)
    loss.dual_step(x)
    torch.testing.assert_close(atoms, before, rtol=0, atol=0)


def test_repr_names_the_problem():
    assert "n_atoms=20, d=2, metric='sqeuclidean', reg=0.3" in repr(stepped(reg=0.3))


# The potential as a network.


def network(seed=0, dtype=torch.float32, d=2):
    """A perceptron from points to potentials."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = nn.Sequential(
            nn.Linear(d, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1)
        )
    return module.to(dtype)


def with_network(**options):
    """A loss on 50 atoms whose potential is that network."""
    return SemiDiscreteLoss(randn(50, 2, seed=1), reg=0.2, **{"potential": network()} | options)


def chi_square(loss, x):
    """Unbiased squared relative error of the masses that the points give to the atoms."""
    atoms = loss.target.atoms + loss.target.origin
    chi = sd.semidiscrete_atom_weights(atoms, x, loss.potential, reg=loss.reg).double()
    n, N = chi.shape
    return float((chi.sum(dim=0).square() - chi.square().sum(dim=0)).sum() * N / (n * (n - 1)) - 1)


def test_network_comes_close_to_the_vector():
    """Its squared error falls by ten, its value to a hundredth of the maximum."""
    atoms, sampler, x = 0.5 * randn(50, 2, seed=1) + 0.5, source(), source(seed=9)(4000)
    vector = SemiDiscreteLoss(atoms, reg=0.05)
    loss = SemiDiscreteLoss(atoms, reg=0.05, potential=network())
    vector.fit(sampler, tol=0.05)
    best, start = float(vector(x)), chi_square(loss, x)
    assert start > 1.0
    assert float(loss(x)) < 0.7 * best
    for _ in range(300):
        loss.dual_step(sampler(256))
    assert chi_square(loss, x) < min(0.15, start / 10)
    assert abs(float(loss(x)) - best) < 0.01 * best
    assert (loss.potential - vector.potential).abs().mean() < 0.1 * vector.potential.abs().mean()


@each_reg
@pytest.mark.parametrize("shape", [(6,), (2, 3)], ids=str)
def test_network_is_moved_along_the_gradient_and_read_without_one(shape, reg):
    """One step of plain SGD, against the derivative of the loss through the module."""
    atoms, x = randn(20, *shape, seed=1), randn(50, *shape).requires_grad_()
    b = weights(20, empty=(3, 5))
    module = nn.Sequential(nn.Flatten(), network(d=6))
    expected = copy.deepcopy(module)
    loss = SemiDiscreteLoss(
        atoms,
        b,
        reg=reg,
        potential=module,
        potential_optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
    )
    psi = expected(atoms).squeeze(1)
    semidiscrete_loss(atoms.flatten(1), x.detach().flatten(1), psi, b, reg=reg).backward()
    loss.dual_step(x)
    for p, q in zip(module.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p.detach(), (q + 0.1 * q.grad).detach(), rtol=1e-4, atol=1e-6)
        assert p.grad is None
    after = module(atoms).detach().squeeze(1)
    torch.testing.assert_close(loss.potential[b > 0], (after - b @ after)[b > 0], rtol=1e-4, atol=1e-5)
    assert (loss.potential[[3, 5]] == 0).all()
    loss(x).backward()
    assert x.grad.shape == x.shape
    assert x.grad.abs().max() > 0
    assert all(p.grad is None for p in module.parameters())


def test_network_is_in_the_state_with_its_optimizer(tmp_path):
    loss, sampler = with_network(), source()
    for _ in range(5):
        loss.dual_step(sampler(64))
    names = {f"network.module.{name}" for name in network().state_dict()}
    assert loss.state_dict().keys() == names | {
        "potential",
        "n_steps",
        "_extra_state",
        "network._extra_state",
    }
    torch.save(loss.state_dict(), tmp_path / "loss.pt")
    again, x = with_network(potential=network(1)), sampler(64)
    assert again(x) != loss(x)
    again.load_state_dict(torch.load(tmp_path / "loss.pt", weights_only=True))
    copied = copy.deepcopy(loss)
    assert again(x) == copied(x) == loss(x)
    for each in (loss, again, copied):
        each.dual_step(x)
    for each in (again, copied):
        assert_equal(each.network.module.state_dict(), loss.network.module.state_dict())
        assert torch.equal(each.potential, loss.potential)
    copied.dual_step(x)
    assert not torch.equal(copied.potential, loss.potential), "a copy is independent"


@pytest.mark.parametrize("cast", ["half", "double", "cpu"])
def test_casts_leave_the_network_alone(cast):
    loss, x = with_network(), randn(50, 2)
    loss.dual_step(x)
    before = loss(x)
    getattr(loss, cast)()
    assert loss(x) == before
    loss.dual_step(x)
    assert {p.dtype for p in loss.parameters()} == {torch.float32}


def test_network_that_is_not_finite_is_refused():
    loss = with_network()
    torch.nn.init.constant_(next(loss.network.module.parameters()), torch.nan)
    with pytest.raises(ValueError, match="potential: expected finite numbers of the module"):
        loss.follow(randn(50, 2))


def test_autocast_changes_no_network():
    outcome = []
    for enabled in (False, True):
        loss = with_network()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss.warm_up(lambda: randn(64, 2), n_batches=3)
        outcome.append(loss.potential)
    assert torch.equal(*outcome)


@pytest.mark.parametrize("metric", [None, "euclidean"])
def test_generator_trains_with_a_network(metric):
    loss = SemiDiscreteLoss(randn(50, 2, seed=1) + 3, metric=metric, potential=network())
    result = train(target=loss, n_steps=100, optimizer=lambda p: torch.optim.Adam(p, lr=0.05))
    assert loss.n_steps == 50 + 100 * loss.dual_steps
    assert result.history["loss"][-20:].mean() < 0.3 * result.history["loss"][:5].mean()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        (
            {"potential": randn(50)},
            TypeError,
            r"potential: expected a torch\.nn\.Module.*init_potential",
        ),
        ({"potential": nn.Linear(2, 2)}, ValueError, r"potential: expected.*\(50, 1\).*\(50, 2\)"),
        ({"potential_optimizer": 3}, TypeError, "potential_optimizer: expected"),
        ({"potential_optimizer": lambda p: 3}, TypeError, "potential_optimizer: expected"),
        ({"potential": None, "potential_optimizer": torch.optim.SGD}, ValueError, "potential_optimizer"),
    ],
)
def test_bad_network_is_refused(options, error, match):
    with pytest.raises(error, match=match):
        with_network(**options)


def test_fit_is_refused_with_a_network():
    with pytest.raises(TypeError, match=r"fit: expected.*vector.*dual_step"):
        with_network().fit(source())


# The training loop.


class Recorder(nn.Module):
    """A generator that notes what it is called with."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*(layers or [nn.Linear(2, 2)]))
        self.batches, self.modes, self.graphs = [], [], []

    def forward(self, z):
        self.batches.append(len(z))
        self.modes.append([m.training for m in self.modules()])
        self.graphs.append(torch.is_grad_enabled())
        return self.layers(z)


def linear(seed=0, **options):
    """A generator in the plane."""
    torch.manual_seed(seed)
    return nn.Linear(2, 2, **options)


def train(generator=None, latent=2, target=None, **options):
    """A short run to 50 atoms, with what is given instead."""
    target = randn(50, 2, seed=1) + 3 if target is None else target
    options = {"n_steps": 5, "batch_size": 32, "random_state": 0} | options
    return train_generator(linear() if generator is None else generator, latent, target, **options)


def test_history_has_a_row_for_each_step():
    result = train(n_steps=12)
    history = result.history
    assert isinstance(result, TrainingResult)
    assert history.keys() == {"loss", "seconds", "chi2_step", "chi2"}
    assert all(isinstance(rows, np.ndarray) for rows in history.values())
    assert len(history["loss"]) == len(history["seconds"]) == 12
    assert len(history["chi2"]) == len(history["chi2_step"]) > 0
    assert np.isfinite(history["loss"]).all()
    assert np.isfinite(history["chi2"]).all()
    assert (np.diff(history["seconds"]) >= 0).all()
    assert history["chi2_step"][-1] == 12
    assert (np.diff(history["chi2_step"]) > 0).all()
    assert result.status == "finished"


def test_a_callback_sees_a_run_that_goes_on():
    seen = []
    result = train(callback=lambda state: seen.append((state.status, state.n_steps)))
    assert seen == [("running", k) for k in range(1, 6)]
    assert result.status == "finished"


def test_it_trains_the_generator_it_is_given():
    """A translation, whose optimum is known: the means agree (Theory: translation family)."""

    class Translation(nn.Module):
        def __init__(self):
            super().__init__()
            self.theta = nn.Parameter(torch.zeros(2))

        def forward(self, z):
            return z + self.theta

    generator, target = Translation(), randn(100, 2, seed=1) + 3
    result = train(
        generator,
        target=target,
        n_steps=300,
        batch_size=128,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.05),
    )
    assert result.generator is generator
    # the gradient is 2 (theta + mean z - mean y): 0.3 is ten standard errors of a batch at this rate
    assert (generator.theta - target.mean(dim=0)).abs().max() < 0.3
    assert result.history["loss"][-20:].mean() < 0.5 * result.history["loss"][:20].mean()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_modes_of_the_generator_are_left_alone(training):
    """Batch norm and dropout make another law in another mode: all points come from one."""
    generator = Recorder(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 2))
    generator.train(training)
    generator.layers[1].eval()  # a mixture, set by the user
    modes = [m.training for m in generator.modules()]
    loss = SemiDiscreteLoss(randn(50, 2, seed=1)).eval()
    train(generator, target=loss)
    assert [m.training for m in generator.modules()] == modes
    assert all(seen == modes for seen in generator.modes)
    assert not loss.training


@pytest.mark.parametrize("target", ["data", "loss"])
def test_every_batch_has_the_same_size(target):
    generator, data = Recorder(), randn(50, 2, seed=1)
    train(generator, target=SemiDiscreteLoss(data) if target == "loss" else data, batch_size=24)
    assert set(generator.batches) == {24}


def test_graph_is_recorded_for_generator_steps_only():
    generator = Recorder()
    train(generator, n_steps=5)
    assert sum(generator.graphs) == 5


@pytest.mark.parametrize(("reuse", "expected"), [(1, [4, 7, 10, 13, 16]), (2, [4, 4, 7, 7, 10])])
def test_potential_moves_before_each_round(reuse, expected):
    loss = SemiDiscreteLoss(randn(50, 2, seed=1), dual_steps=3)
    loss.dual_step(randn(32, 2))  # so that there is no warm-up
    stages = []
    callback = lambda result: stages.append(int(loss.n_steps))
    train(target=loss, n_steps=5, reuse=reuse, callback=callback)
    assert stages == expected


def test_round_goes_through_its_batches():
    """Drawn once for the potential, then used in turn by the steps of the generator."""
    generator, seen = Recorder(), []

    def latent(n):
        seen.append(randn(n, 2, seed=len(seen)))
        return seen[-1]

    loss = stepped(dual_steps=3)
    drawn = []
    callback = lambda result: drawn.append(len(seen))
    train(generator, latent, loss, n_steps=9, reuse=8, callback=callback)
    looks = 5 * np.arange(9)  # after each step of so short a run
    np.testing.assert_array_equal(np.array(drawn) - looks, 5 + 3 * np.array([1] * 8 + [2]))


def test_other_metrics_have_rounds_of_one_step():
    loss = stepped(metric="euclidean", dual_steps=3)
    train(target=loss, n_steps=4)
    assert loss.n_steps == 7 + 4 * 3
    with pytest.raises(ValueError, match="reuse: expected 1 with metric 'euclidean'"):
        train(target=loss, reuse=2)


def test_network_has_rounds_if_they_are_asked_for():
    for reuse, moves in ((None, 4), (1, 4), (3, 2)):
        loss = with_network(dual_steps=3)
        loss.dual_step(randn(32, 2))
        train(target=loss, n_steps=4, reuse=reuse)
        assert loss.n_steps == 1 + moves * 3


def test_majorants_are_of_the_squared_distance():
    loss = SemiDiscreteLoss(torch.rand(20, 2), metric="euclidean")
    with pytest.raises(ValueError, match="sqeuclidean"):
        loss.majorants([torch.rand(5, 2)])


@each_dtype
@each_reg
def test_majorant_bounds_the_loss_and_touches_it(reg, dtype):
    loss = stepped(reg=reg, dtype=dtype, a_target=weights(20, (3,), dtype))
    x = randn(50, 2, dtype=dtype).requires_grad_()
    (bound,) = loss.majorants([x])
    at = lambda points: bound(loss.target.center(points))
    value = at(x)
    torch.testing.assert_close(value, loss(x))
    ours, expected = (torch.autograd.grad(v, x)[0] for v in (value, loss(x)))
    torch.testing.assert_close(ours, expected)
    for k, size in enumerate((0.01, 0.1, 1.0, 10.0)):
        moved = x.detach() + size * randn(50, 2, seed=20 + k, dtype=dtype)
        assert at(moved) >= loss(moved) - 1e-6
    assert at(moved) > loss(moved)


@each_dtype
@each_reg
def test_potential_translates_as_in_closed_form(reg, dtype):
    """The value at moved points changes as that of the optimum does: the translation family."""
    b = weights(20, (3,), dtype)
    loss = stepped(reg=reg, dtype=dtype, a_target=b)
    x, shift = randn(50, 2, dtype=dtype), torch.tensor([10.0, -3.0], dtype=dtype)
    before, steps = loss(x), int(loss.n_steps)
    loss.translate(shift)
    mean = x.mean(dim=0) - b @ randn(20, 2, seed=1, dtype=dtype)
    expected = before + shift.square().sum() + 2.0 * shift @ mean
    torch.testing.assert_close(loss(x + shift), expected)
    assert loss.n_steps == steps
    assert loss.potential[3] == 0


def test_translation_is_refused_where_it_is_not_known():
    with pytest.raises(ValueError, match=r"translate: expected.*sqeuclidean.*euclidean"):
        SemiDiscreteLoss(torch.rand(20, 2), metric="euclidean").translate(torch.zeros(2))
    with pytest.raises(TypeError, match=r"translate: expected.*vector.*network"):
        with_network().translate(torch.zeros(2))
    with pytest.raises(ValueError, match=r"shift: expected 2 columns"):
        SemiDiscreteLoss(torch.rand(20, 2)).translate(torch.zeros(3))
    with pytest.raises(TypeError, match=r"shift: expected a torch tensor"):
        SemiDiscreteLoss(torch.rand(20, 2)).translate([0.0, 1.0])


def test_translation_of_images_under_autocast():
    """There and back, with what half precision could not hold."""
    loss = SemiDiscreteLoss(255.0 * torch.rand(20, 8, 8))
    loss.follow(255.0 * torch.rand(100, 8, 8))
    before, shift = loss.potential.clone(), 300.0 * torch.rand(8, 8)
    with torch.autocast("cpu", dtype=torch.float16):
        loss.translate(shift)
        assert (loss.potential - before).abs().max() > 1e4
        loss.translate(-shift)
    torch.testing.assert_close(loss.potential, before, rtol=0, atol=1.0)


@pytest.mark.parametrize("reuse", [1, 4])
def test_potential_moved_by_others_is_not_translated(reuse, monkeypatch):
    shifts = []
    monkeypatch.setattr(SemiDiscreteLoss, "translate", lambda self, shift: shifts.append(shift))
    fit = lambda state: state.n_steps == 8 and state.loss.fit(source(), max_iter=2, tol=0) and False
    for callback, expected in ((None, 11 // reuse), (fit, 11 // reuse - 1)):
        shifts.clear()
        train(n_steps=12, reuse=reuse, callback=callback)
        assert len(shifts) == expected


def test_potential_goes_along_with_points_that_move_as_one(monkeypatch):
    """A generator that is nearly constant, and far away: in the fourth round the masses are near."""

    def error():
        generator = nn.Linear(2, 2)
        with torch.no_grad():
            generator.weight.copy_(0.05 * torch.eye(2))
            generator.bias.copy_(torch.tensor([5.0, -5.0]))
        optimizer = torch.optim.Adam(generator.parameters(), lr=0.1)
        kept = {"optimizer": optimizer, "n_steps": 49, "batch_size": 50}
        return train(generator, target=randn(100, 2), **kept).history["chi2"][-1]

    along = error()
    monkeypatch.setattr(SemiDiscreteLoss, "can_translate", False)
    assert along < 1.0
    assert 5.0 * along < error()


class Scale(nn.Module):
    """A centred Gaussian law of one parameter."""

    def __init__(self, scale):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, z):
        return self.scale * z


def gaussian_atoms(n):
    """Normal quantiles along an axis, in the plane: as near to the law as n atoms are."""
    u = (torch.arange(n) + 0.5) / n
    y = torch.special.ndtri(u)
    return torch.cartesian_prod(y, y)


@pytest.mark.parametrize("reuse", [1, 16])
@pytest.mark.parametrize(("debias", "expected"), [(False, 0.5), (True, 1.0)])
def test_debiasing_undoes_the_shrinkage(debias, expected, reuse):
    """Theory, entropic shrinkage: the best variance is ``v - reg / 2`` without, and `v` with it."""
    atoms, generator = gaussian_atoms(15), Scale(1.3)
    v = float(atoms.var(dim=0, correction=0).mean())
    loss = SemiDiscreteLoss(atoms, reg=v, debias=debias)
    adam = torch.optim.Adam(generator.parameters(), lr=0.02)
    train(generator, target=loss, n_steps=120, batch_size=256, reuse=reuse, optimizer=adam)
    ratio = covariance_ratio(generator(randn(20_000, 2, seed=5)).detach().numpy(), atoms.numpy())
    assert ratio == pytest.approx(expected, abs=0.08)


def test_debiased_value_is_the_sinkhorn_divergence():
    """Up to the constant of the data: half the cost from the batch to itself is subtracted."""
    x, atoms = randn(60, 2, dtype=torch.float64), randn(20, 2, seed=1, dtype=torch.float64)
    plain, debiased = (SemiDiscreteLoss(atoms, reg=0.5, debias=debias) for debias in (False, True))
    cost = ot.dist(x.numpy())
    within = ot.solve(cost, reg=0.5, reg_type="KL", tol=1e-12, max_iter=10_000).value
    assert float(plain(x) - debiased(x)) == pytest.approx(within / 2, rel=1e-6)


def test_gradient_of_the_debiased_value():
    """By central differences, the potential to the data being held."""
    loss, x = stepped(reg=0.5, dtype=torch.float64, debias=True), randn(30, 2, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(loss(x.requires_grad_()), x)
    for k in range(3):
        direction = randn(30, 2, seed=10 + k, dtype=torch.float64)
        difference = (loss(x + 1e-4 * direction) - loss(x - 1e-4 * direction)) / 2e-4
        assert float(difference.detach()) == pytest.approx(float((gradient * direction).sum()), rel=1e-4)


def test_debiased_model_is_of_first_order():
    loss, x = stepped(reg=0.5, dtype=torch.float64, debias=True), randn(30, 2, dtype=torch.float64)
    x.requires_grad_()
    (model,) = loss.majorants([x])
    at = lambda points: model(loss.target.center(points))
    ours, expected = (torch.autograd.grad(v, x)[0] for v in (at(x), loss(x)))
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=1e-9)


def test_rounds_find_the_potential_of_a_generator_that_stands_still():
    b, sampler, fresh = weights(20, (2,)), source(), source(seed=9)(20_000)
    exact, loss = (SemiDiscreteLoss(randn(20, 2, seed=1), b) for _ in range(2))
    exact.fit(sampler, tol=0, max_iter=400)
    for _ in range(40):
        loss.follow(sampler(640))
    assert loss.potential[2] == 0
    assert -1e-3 < exact(fresh) - loss(fresh) < 0.02 * exact(fresh)
    chi = semidiscrete_atom_weights(randn(20, 2, seed=1), fresh, loss.potential, b, reg=loss.reg)
    assert (chi.mean(dim=0) - b).abs().max() < 0.5 / 20


def test_data_and_options_are_as_a_loss_with_them():
    data, kwargs = randn(50, 2, seed=1), {"reg": 0.2, "dual_steps": 2}
    one, other = train(target=data, **kwargs), train(target=SemiDiscreteLoss(data, **kwargs))
    np.testing.assert_array_equal(one.history["loss"], other.history["loss"])
    assert (one.loss.reg, one.loss.dual_steps) == (0.2, 2)
    assert train(target=data).loss.reg == pytest.approx(0.003 * cost_scale(data))


@pytest.mark.parametrize(("n_atoms", "expected"), [(1600, 5), (8000, 10), (65_600, 81), (80_000, 81)])
def test_rounds_have_more_points_on_a_gpu(n_atoms, expected, monkeypatch):
    """As many as a share of the atoms, up to a limit; what is given is kept."""
    monkeypatch.setattr(choices, "on_host", lambda x: False)
    data = randn(n_atoms, 1, seed=1)
    for given in (None, 3):
        parts = choices.parts_of_data(data, 0, batch_size=100, dual_steps=given)
        assert parts.loss.dual_steps == (given or expected)


def test_rounds_have_five_batches_on_a_processor():
    assert choices.parts_of_data(randn(8000, 1, seed=1), 0, batch_size=100).loss.dual_steps == 5


@pytest.mark.parametrize(("count", "expected"), [(0, 63), (1, 32)])
def test_steps_of_a_round_of_many_points(count, expected, monkeypatch):
    """The first one has as far to go as its points allow; later ones have more points in each step."""
    sizes, step = [], tracking._step
    monkeypatch.setattr(tracking, "_step", lambda *args: sizes.append(len(args[1])) or step(*args))
    target = SemiDiscreteLoss(randn(50, 2, seed=1)).target
    tracking.follow(0.0 * target.weights, count, target, randn(2000, 2), 0.1, 10.0)
    assert len(sizes) == expected
    assert sum(sizes) == 2000


def test_loss_with_a_potential_is_continued():
    loss = SemiDiscreteLoss(randn(50, 2, seed=1))
    loss.fit(source(), tol=0.1)
    steps = int(loss.n_steps)
    generator = Recorder()
    result = train(generator, target=loss, n_steps=1)
    assert result.loss is loss
    assert loss.n_steps == steps + loss.dual_steps
    assert len(generator.batches) < 20, "no warm-up"


def sgd(parameters):
    """An optimiser as a callable."""
    return torch.optim.SGD(parameters, lr=0.05)


def test_optimizer_as_instance_and_as_callable():
    one, other = linear(), linear()
    result = train(one, optimizer=sgd(one.parameters()))
    train(other, optimizer=sgd)
    assert result.status == "finished"
    assert_equal(one.state_dict(), other.state_dict())
    assert not torch.equal(one.weight, linear().weight)


def test_frozen_parameters_stay():
    generator = nn.Sequential(linear(), linear(1))
    generator[0].requires_grad_(False)
    before = copy.deepcopy(generator)
    train(generator)
    assert_equal(generator[0].state_dict(), before[0].state_dict())
    assert not torch.equal(generator[1].weight, before[1].weight)


def test_plain_function_with_an_optimizer_is_a_generator():
    theta = torch.zeros(2, requires_grad=True)
    train(lambda z: z + theta, optimizer=sgd([theta]))
    assert theta.detach().abs().min() > 0


def test_a_parameter_beside_a_frozen_module_is_trained():
    """One that the module uses, and does not register."""

    class Moved(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.shift = linear().requires_grad_(False), [torch.zeros(2, requires_grad=True)]

        def forward(self, z):
            return self.inner(z) + self.shift[0]

    generator = Moved()
    train(generator, optimizer=sgd(generator.shift))
    assert generator.shift[0].detach().abs().min() > 0


def test_an_optimizer_may_have_no_learning_rate():
    class Signs(torch.optim.Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {"step": 0.01})

        def step(self, closure):
            value = closure()
            with torch.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        p -= group["step"] * p.grad.sign()
            return value

    generator = linear()
    assert train(generator, optimizer=Signs).status == "finished"
    assert not torch.equal(generator.weight, linear().weight)


def test_gradients_left_by_others_are_not_followed():
    one, other = linear(), linear()
    other.weight.grad = torch.full_like(other.weight, 1e3)
    train(one, optimizer=sgd)
    train(other, optimizer=sgd)
    assert_equal(one.state_dict(), other.state_dict())


@pytest.mark.parametrize(
    "random_state",
    [0, np.int64(0), lambda: torch.Generator().manual_seed(0)],
    ids=["int", "numpy", "torch"],
)
def test_same_seed_same_generator(random_state):
    def run():
        seed = random_state() if callable(random_state) else random_state
        return train(random_state=seed, n_steps=8)

    one, other = run(), run()
    assert_equal(one.generator.state_dict(), other.generator.state_dict())
    assert_equal(one.loss.state_dict(), other.loss.state_dict())
    for name in ("loss", "chi2"):
        np.testing.assert_array_equal(one.history[name], other.history[name])
    another = train(random_state=1, n_steps=8)
    assert not torch.equal(another.generator.weight, one.generator.weight)


def test_callback_sees_the_result_so_far_and_stops():
    seen = []

    def callback(result):
        assert isinstance(result, TrainingResult)
        seen.append(len(result.history["loss"]))
        return len(seen) == 4

    result = train(n_steps=100, callback=callback)
    assert seen == [1, 2, 3, 4]
    assert result.status == "stopped"
    assert len(result.history["loss"]) == 4


def test_interruption_keeps_what_was_trained():
    weights = []

    def callback(result):
        weights.append(result.generator.weight.detach().clone())
        if len(weights) == 3:
            raise KeyboardInterrupt

    generator = linear()
    result = train(generator, n_steps=100, callback=callback)
    assert result.status == "interrupted"
    assert result.generator is generator
    assert len(result.history["loss"]) == 3
    assert torch.equal(generator.weight, weights[-1])
    assert not torch.equal(weights[0], weights[-1])


def test_exception_carries_what_was_trained():
    calls = iter(range(80))

    def latent(n):
        if next(calls, None) is None:
            raise OSError("the disk is gone")
        return randn(n, 2)

    with pytest.raises(OSError, match="disk") as caught:
        train(latent=latent, n_steps=100)
    partial = caught.value.partial_result
    assert partial.status == "failed"
    assert 0 < len(partial.history["loss"]) < 20
    assert isinstance(partial.generator, nn.Linear)


class Failing(nn.Module):
    """A generator whose points cease to be finite in its fourth step, or just before it."""

    def __init__(self, value, before):
        super().__init__()
        self.linear, self.value, self.before, self.steps = linear(), value, before, 0

    def forward(self, z):
        self.steps += torch.is_grad_enabled()
        fails = self.steps == 3 and not torch.is_grad_enabled() if self.before else self.steps > 3
        return self.linear(z) * self.value if fails else self.linear(z)


DIVERGING = {
    "rate-1e10": (linear, 1e10),
    "rate-1e30": (linear, 1e30),
    "rate-inf": (linear, math.inf),
    "NaN-in-dual-step": (lambda: Failing(math.nan, before=True), 0.01),
    "NaN-in-generator-step": (lambda: Failing(math.nan, before=False), 0.01),
    "inf-in-dual-step": (lambda: Failing(math.inf, before=True), 0.01),
    "overflow-in-generator-step": (lambda: Failing(1e30, before=False), 0.01),
}


@pytest.mark.parametrize("case", DIVERGING)
def test_divergence_is_reported_and_the_generator_kept(case):
    make, rate = DIVERGING[case]
    generator = make()
    with pytest.warns(SemiDiscreteWarning, match=r"finite.*learning rate"):
        result = train(
            generator, n_steps=50, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=rate)
        )
    assert result.status == "diverged"
    assert len(result.history["loss"]) < 50
    assert np.isfinite(result.history["loss"]).all()
    for name, tensor in [*generator.state_dict().items(), *result.loss.state_dict().items()]:
        assert torch.isfinite(tensor).all(), name


class Spike(torch.autograd.Function):
    """The identity, with a derivative that is not a number."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * math.nan


def test_gradient_that_is_not_finite_is_a_divergence():
    """The value was fine, the step would have lost the generator."""

    class Generator(nn.Linear):
        calls = 0

        def forward(self, z):
            self.calls += torch.is_grad_enabled()
            x = super().forward(z)
            return Spike.apply(x) if self.calls == 4 else x

    generator = Generator(2, 2)
    with pytest.warns(SemiDiscreteWarning, match="finite"):
        result = train(generator, n_steps=20)
    assert result.status == "diverged"
    assert len(result.history["loss"]) == 3
    assert all(torch.isfinite(p).all() for p in generator.parameters())


def test_no_warning_without_a_cause():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train()


@pytest.mark.parametrize("steps", [1, 5, 60])
def test_plot(steps):
    pytest.importorskip("matplotlib").use("Agg")
    axes = train(n_steps=steps).plot()
    assert len(axes) == 2
    assert all(len(ax.lines) > 0 for ax in axes)
    axes[0].figure.canvas.draw()


def test_plot_of_a_run_that_took_no_step():
    pytest.importorskip("matplotlib").use("Agg")

    def latent(n):
        raise KeyboardInterrupt

    result = train(latent=latent)
    assert result.status == "interrupted"
    assert len(result.plot()) == 2


@pytest.mark.parametrize("reg", [0.0, None])
def test_images_are_trained_as_images(reg):
    """Generator and data have images of different, equivalent shapes."""
    data = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    shapes = []

    class Images(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp_generator(3, (4, 4), widths=(16,))

        def forward(self, z):
            x = self.net(z)
            shapes.append(tuple(x.shape))
            return x

    result = train(Images(), 3, data, reg=reg, n_steps=6)
    assert result.status == "finished"
    assert set(shapes) == {(32, 4, 4)}
    assert result.loss.reg == (0.0 if reg == 0 else pytest.approx(0.003 * cost_scale(data.flatten(1))))


@pytest.mark.parametrize("reuse", [1, 4, 16])
def test_no_regularisation_trains_too(reuse):
    data = randn(50, 2, seed=1) + 3
    optimizer = lambda parameters: torch.optim.Adam(parameters, lr=0.05)
    result = train(target=data, reg=0.0, reuse=reuse, n_steps=320, optimizer=optimizer)
    points = result.generator(randn(1000, 2, seed=2)).detach()
    # a normal law, of which the data are 50 points, is at a distance of its own
    assert transport_cost(points, data) < 1.3 * transport_cost(randn(1000, 2, seed=2) + 3, data)
    assert np.isfinite(result.history["chi2"]).all()


@each_dtype
def test_dtype_of_the_data_is_that_of_the_latent_law(dtype):
    seen = []

    class Generator(nn.Linear):
        def forward(self, z):
            seen.append(z.dtype)
            return super().forward(z)

    train(Generator(2, 2).to(dtype), target=randn(50, 2, seed=1, dtype=dtype))
    assert set(seen) == {dtype}


@pytest.mark.parametrize("shape", [(5,), (4, 4), (1, 6, 5), (3, 4, 4)], ids=str)
def test_mlp_generator_makes_images(shape):
    generator = mlp_generator(7, shape, widths=(16, 8))
    x = generator(randn(9, 7))
    assert x.shape == (9, *shape)
    assert ((x >= 0) & (x <= 1)).all()
    sizes = [m.out_features for m in generator if isinstance(m, nn.Linear)]
    assert sizes == [16, 8, math.prod(shape)]


def test_mlp_generator_is_that_of_the_paper_by_default():
    sizes = [m.weight.shape for m in mlp_generator(100, (28, 28)) if isinstance(m, nn.Linear)]
    assert sizes == [(256, 100), (512, 256), (1024, 512), (784, 1024)]


def test_mlp_generator_starts_with_different_images():
    """Nearly equal ones would start at a saddle: at least a tenth of a uniform pixel's variance."""
    x = mlp_generator(32, (8, 8))(randn(200, 32))
    assert x.var(dim=0).mean() > 0.1 / 12


@pytest.mark.parametrize("shape", [(28, 28), (8, 8), (7, 12), (32, 15)], ids=str)
@pytest.mark.parametrize("channels", [(8,), (8, 4), (8, 6, 4)], ids=str)
def test_dcgan_generator_makes_images(shape, channels):
    x = dcgan_generator(7, shape, channels)(randn(9, 7))
    assert x.shape == (9, *shape)
    assert ((x >= 0) & (x <= 1)).all()


@pytest.mark.parametrize("shape", [(28, 28), (31, 15), (9, 30)], ids=str)
def test_dcgan_generator_of_small_kernels_makes_images(shape):
    assert dcgan_generator(7, shape, (8, 6, 4), kernel_size=3)(randn(9, 7)).shape == (9, *shape)
    with pytest.raises(ValueError, match="give more channels"):
        dcgan_generator(7, (*shape[:1], 32), (8, 6, 4), kernel_size=3)


def test_dcgan_generator_of_small_kernels_is_that_of_the_paper():
    """Four layers of 3 by 3 pixels without bias: Houdard et al., the scripts of the journal version."""
    generator, x = dcgan_generator(100, (28, 28), kernel_size=3, bias=False), torch.zeros(2, 100)
    layers, sides = [], []
    for module in generator:
        x = module(x)
        if isinstance(module, nn.ConvTranspose2d):
            assert module.bias is None
            layers.append(tuple(module.weight.shape))
            sides.append(x.shape[-2:])
    assert layers == [(100, 256, 3, 3), (256, 128, 3, 3), (128, 64, 3, 3), (64, 1, 3, 3)]
    assert sides == [(3, 3), (7, 7), (15, 15), (28, 28)]
    assert sum(p.numel() for p in generator.parameters()) == 600_512
