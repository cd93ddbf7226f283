"""Masses at a price, `reg_m`: against POT's unbalanced solvers, closed forms, quadrature."""

import functools
import math
import pickle
import warnings

import numpy as np
import ot
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

import pot_semidiscrete as ps
from benchmarks import references
from pot_semidiscrete.applications import ErrorBars
from pot_semidiscrete.optim import hessian as hessians
from pot_semidiscrete.optim.newton import eps_scaling, maximize
from pot_semidiscrete.optim.semi_dual import SemiDual
from pot_semidiscrete.problem import Problem
from tests.backends import needs_torch, uncrossed

REG, REG_M = 0.3, 1.0
SEEDS = 25
MOST_MISSED = 4  # of 25, at a probability of 0.05 each: exceeded 0.7% of the time
ATOMS = np.random.default_rng(5).normal(size=(20, 1))
ATOMS[:2] += 4.0
WEIGHTS = np.full(20, 0.05)
SOURCE = references.gauss_legendre(-8.0, 8.0, 1000, references.normal_density)


def cloud(n_atoms=12, n=300):
    """A finite source, atoms of which two are far away, weights of which one is 0."""
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.full(n_atoms, 2.0))
    weights[4] = 0.0
    atoms = rng.normal(size=(n_atoms, 2))
    atoms[:2] += 2.5
    return rng.normal(size=(n, 2)), atoms, weights / weights.sum()


@functools.cache
def pot(reg_m=REG_M):
    """Value, masses and dual potential of POT's solver, the law of the source being held."""
    x, atoms, b = cloud()
    keep, a, M = b > 0, np.full(len(x), 1.0 / len(x)), ot.dist(x, atoms)
    options = {"numItermax": 10_000, "stopThr": 1e-14, "log": True}
    P, log = ot.unbalanced.sinkhorn_unbalanced(a, b[keep], M[:, keep], REG, (math.inf, reg_m), **options)
    m, c = P.sum(axis=0), a[:, None] * b[keep]
    kl = lambda p, q: np.sum(p * np.log(p / q) - p + q)
    masses, psi = np.zeros(len(b)), np.zeros(len(b))
    masses[keep], psi[keep] = m, REG * log["logv"]
    return (P * M[:, keep]).sum() + REG * kl(P, c) + reg_m * kl(m, b[keep]), masses, psi


def solve(x, atoms, b, **options):
    """A run at the prices above."""
    return ps.solve_semidiscrete(atoms, x, b, random_state=0, **{"reg": REG, "reg_m": REG_M} | options)


def test_optimum_is_that_of_pot(nx):
    """Of all points of a finite source at once, to rounding; and the potential is POT's own."""
    x, atoms, b = (nx.array(v) for v in cloud())
    problem = Problem.of(atoms, b, None, REG, reg_m=REG_M)
    target = problem.target
    found = eps_scaling(SemiDual(target), target.center(x), REG)
    value, masses, psi = pot()
    tol = 1e-6 if nx.dtype == "float64" else 1e-4
    assert abs(found.measured.value - value) < tol * value
    np.testing.assert_allclose(nx.host(target.scatter(found.measured.marginal)), masses, atol=tol)
    reached = nx.host(target.scatter(target.normalized(found.potential)))
    np.testing.assert_allclose(reached, psi, atol=100 * tol)


@uncrossed
@pytest.mark.parametrize("reg_m", [0.1, 10.0])
def test_run_agrees_with_pot(reg_m, nx):
    """From samples of the source, within their noise; of an atom of weight 0, nothing."""
    value, masses, _ = pot(reg_m)
    result = solve(*(nx.array(v) for v in cloud()), reg_m=reg_m, tol=0.05)
    assert result.converged
    assert result.reg_m == reg_m
    low, high = result.value_interval
    assert low - 0.01 <= value <= high + 0.01
    assert high - low < 0.15
    np.testing.assert_allclose(nx.host(result.marginal_b), masses, atol=0.01)
    assert float(result.marginal_b[4]) == float(result.potential[4]) == 0.0


@uncrossed
def test_of_one_point_masses_are_known(nx):
    """``m = b exp(-c / (reg + reg_m))`` of sum 1, and the value minus the log of that sum."""
    _, atoms, b = cloud()
    x, total = np.array([[0.3, -0.2]]), REG + REG_M
    with np.errstate(divide="ignore"):
        scores = np.log(b) - ot.dist(x, atoms)[0] / total
    result = solve(nx.array(x), nx.array(atoms), nx.array(b), tol=0.01)
    assert float(result.value) == pytest.approx(-total * logsumexp(scores), rel=1e-4)
    np.testing.assert_allclose(nx.host(result.marginal_b), np.exp(scores - logsumexp(scores)), atol=1e-3)
    np.testing.assert_allclose(result.value_interval, float(result.value), rtol=1e-3)


def test_masses_are_those_that_are_best_for_the_potential(nx64):
    """``b exp(-psi / reg_m)``, of sum 1, is what the plan gives; the value is the mean transform."""
    arrays = [nx64.array(v) for v in cloud()]
    result = solve(*arrays, tol=0.01)
    goal = cloud()[2] * np.exp(-nx64.host(result.potential) / REG_M)
    assert goal.sum() == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(goal, nx64.host(result.marginal_b), atol=3e-3)
    value = ps.semidiscrete_loss(arrays[1], arrays[0], result.potential, arrays[2], reg=REG, reg_m=REG_M)
    transform = nx64.host(result.c_transform(arrays[0]))
    assert float(value) == pytest.approx(transform.mean(), abs=1e-12)


def test_outliers_lose_mass_as_it_is_cheaper():
    x, atoms, b = cloud()
    masses = [pot(reg_m)[1][:2].sum() for reg_m in (0.3, 3.0, 30.0)]
    found = [solve(x, atoms, b, reg_m=reg_m).marginal_b[:2].sum() for reg_m in (0.3, 3.0, 30.0)]
    np.testing.assert_allclose(found, masses, rtol=0.2, atol=1e-3)
    assert found[0] < found[1] / 2
    assert found[1] < found[2] < b[:2].sum()


def test_infinite_price_is_none(nx64):
    arrays = [nx64.array(v) for v in cloud()]
    one, other, near = (solve(*arrays, reg_m=reg_m) for reg_m in (None, np.inf, 1e6))
    np.testing.assert_array_equal(nx64.host(one.potential), nx64.host(other.potential))
    assert one.value_interval == other.value_interval
    assert one.reg_m == np.inf
    np.testing.assert_allclose(float(one.value), float(near.value), rtol=0.03)


@pytest.mark.parametrize("dense_atoms", [0, 256])
def test_hessian_is_that_of_the_value(dense_atoms, nx64, monkeypatch):
    """In its unit; D, in which damping is, bounds it."""
    monkeypatch.setattr(hessians, "DENSE", dense_atoms)
    x, atoms, b = cloud()
    target = Problem.of(nx64.array(atoms), nx64.array(b), None, REG, reg_m=REG_M).target
    dual, x, rng = SemiDual(target), target.center(nx64.array(x)), np.random.default_rng(2)
    psi, v = (nx64.array(rng.normal(size=dual.n_atoms)) for _ in range(2))
    found = hessians.hessian(dual, x, psi, REG, len(x), target.goal(psi))
    ahead, behind = (dual.measure(x, psi + h * v, REG) for h in (1e-5, -1e-5))
    slopes = [nx64.host(end.goal) - nx64.host(end.marginal) for end in (ahead, behind)]
    unit, product = REG * REG_M / (REG + REG_M), nx64.host(found.apply(v))
    np.testing.assert_allclose(product, unit * (slopes[1] - slopes[0]) / 2e-5, rtol=1e-5, atol=1e-9)
    middle = dual.measure(x, psi, REG)
    rise = float(nx64.host(middle.goal - middle.marginal) @ nx64.host(v))
    assert (ahead.value - behind.value) / 2e-5 == pytest.approx(rise, rel=1e-6)
    v, scale = nx64.host(v), nx64.host(np.asarray(found.scale))
    assert 0.0 < v @ product < v @ (scale * v)


def test_loss_has_its_gradients(autodiff):
    """In the potential and, on the sum of weights kept, in these; against differences."""
    x, atoms, b = cloud()
    x, b = x[:20], np.full(12, 1 / 12)
    psi, rng = np.random.default_rng(1).normal(size=12), np.random.default_rng(2)
    moves = rng.normal(size=12), rng.normal(size=12)
    moves = moves[0], moves[1] - moves[1].mean()

    def loss(psi, b):
        return ps.semidiscrete_loss(
            autodiff.array(atoms), autodiff.array(x), psi, b, reg=REG, reg_m=REG_M
        )

    arrays = [autodiff.array(v) for v in (psi, b)]
    gradients = autodiff.gradient(loss, *arrays)
    for k, (gradient, move) in enumerate(zip(gradients, moves, strict=True)):
        ends = []
        for h in (1e-6, -1e-6):
            moved = [psi, b]
            moved[k] = moved[k] + h * move
            ends.append(float(loss(*(autodiff.array(v) for v in moved))))
        assert autodiff.host(gradient) @ move == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


def semi_dual(potential, reg_m):
    """The objective by quadrature, masses and those to reach."""
    value, marginal, _ = references.semi_dual(SOURCE, ATOMS, WEIGHTS, REG, potential)
    scores = np.log(WEIGHTS) - potential / reg_m
    value += -reg_m * logsumexp(scores) - WEIGHTS @ potential
    return value, marginal, np.exp(scores - logsumexp(scores))


@functools.cache
def exact(reg_m):
    """The value, by Sinkhorn's unbalanced iteration, to within the price of the masses left."""
    psi = np.zeros(20)
    for _ in range(10_000):
        value, m, goal = semi_dual(psi, reg_m)
        if reg_m * np.sum(m * np.log(m / goal) - m + goal) < 1e-9:
            return value
        psi = psi + REG * reg_m / (REG + reg_m) * np.log(goal / m)
    raise AssertionError


@pytest.mark.parametrize(("early", "reg_m"), [(True, 0.1), (True, 3000.0), (False, 30.0)])
def test_interval_holds_the_cost_and_the_bound_what_it_lacks(early, reg_m):
    """Whether a run has converged or not; by a plan as it is, or of columns that are the goal."""
    options, missed, lacking, widths = {"max_iter": 5, "batch_size": 64} if early else {}, 0, 0, []
    for seed in range(SEEDS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ps.SemiDiscreteWarning)
            result = ps.solve_semidiscrete(
                ATOMS, "normal", reg=REG, reg_m=reg_m, random_state=seed, **options
            )
        low, high = result.value_interval
        missed += not low <= exact(reg_m) <= high
        lacks = exact(reg_m) - semi_dual(result.potential, reg_m)[0]
        lacking += lacks > result.suboptimality_bound
        widths.append((high - low) / (2.0 * 1.96 * result.value_stderr))
    assert missed <= MOST_MISSED
    assert lacking <= MOST_MISSED
    assert np.median(widths) < 2.0


def test_without_regularisation_masses_are_right(nx64):
    """Uniform on [0, 1], atoms at 0 and 1: the cut t has ``1 - 2 t = reg_m log(t b / ((1 - t) a))``."""
    b, reg_m = np.array([0.8, 0.2]), 0.5
    cut = 0.5
    for _ in range(200):  # psi_1 - psi_0 = 1 - 2 t; m = b exp(-psi / reg_m)
        cut += 0.05 * (1.0 - 2.0 * cut + reg_m * np.log((1.0 - cut) * b[0] / (cut * b[1])))
    cost = cut**3 / 3 + (1 - cut) ** 3 / 3
    m = np.array([cut, 1 - cut])
    atoms = nx64.array(np.array([[0.0], [1.0]]))
    options = {"reg": 0.0, "reg_m": reg_m, "tol": 0.01, "random_state": 0}
    result = ps.solve_semidiscrete(atoms, "unif", nx64.array(b), **options)
    np.testing.assert_allclose(nx64.host(result.marginal_b), m, atol=0.01)
    low, high = result.value_interval
    assert low <= cost + reg_m * np.sum(m * np.log(m / b)) <= high


@uncrossed
def test_run_continues_and_is_kept(nx, tmp_path):
    """A warm start, a file, another backend; pairs have the masses of the plan."""
    x, atoms, b = (nx.array(v) for v in cloud())
    result = solve(x, atoms, b, tol=0.03)
    again = solve(x, atoms, b, tol=0.05, init_potential=result.potential)
    assert again.n_samples < result.n_samples
    result.save(tmp_path / "result.npz")
    read = ps.SemiDiscreteResult.load(tmp_path / "result.npz", atoms)
    assert read.reg_m == result.to(np.float64 if nx.name == "numpy" else atoms).reg_m == REG_M
    assert read.value_interval == result.value_interval
    assert pickle.loads(pickle.dumps(result)).reg_m == REG_M
    np.testing.assert_array_equal(nx.host(read.potential), nx.host(result.potential))
    drawn = nx.host(result.pair(nx.array(np.repeat(cloud()[0], 20, axis=0)), random_state=0))
    shares = np.bincount(drawn.astype(int), minlength=12) / len(drawn)
    np.testing.assert_allclose(shares, pot()[1], atol=0.02)


def test_atoms_at_one_place_share_its_mass(nx64):
    """By their weights, as where masses are held; the price is that of the place."""
    x, atoms, b = cloud()
    twice = np.vstack([atoms, atoms[:3]]), np.append(b, np.zeros(3))
    twice[1][[0, 1, 2]] *= 0.25
    twice[1][12:] = 3.0 * twice[1][:3]
    one, two = (solve(*(nx64.array(v) for v in (x, *pair))) for pair in ((atoms, b), twice))
    np.testing.assert_allclose(nx64.host(two.potential)[:12], nx64.host(one.potential), atol=1e-9)
    m = nx64.host(two.marginal_b)
    np.testing.assert_allclose(m[12:], 3.0 * m[:3], rtol=1e-9)


def test_error_bars_are_right(rng):
    """Standard errors of 30 fits, within a factor, in the mean."""
    result = ps.solve_semidiscrete(ATOMS[2:], "normal", reg=REG, reg_m=0.2, random_state=0)
    bars = [ErrorBars(result, rng.normal(size=(500, 1))) for _ in range(30)]
    spread = np.std([e.potential for e in bars], axis=0, ddof=1)
    told = np.mean([e.potential_stderr for e in bars], axis=0)
    assert 0.8 < np.mean(spread / told) < 1.25
    costs = np.array([e.functional(lambda x, y: (x - y.T) ** 2) for e in bars])
    assert 0.6 < costs[:, 0].std(ddof=1) / costs[:, 1].mean() < 1.5


@pytest.mark.parametrize("reg", [0.0, 1e-4])
def test_error_bars_at_reg_0_have_a_closed_form(reg):
    """On the line, of unequal weights: by the densities at the ends of cells, and the masses to reach.

    Minus the Hessian is that of a chain, ``f(t_j) / (2 (y_{j+1} - y_j))``, and of F. The kernel has a
    bias at light atoms.
    """
    n, y, b = 20_000, np.linspace(-1.5, 1.5, 16), np.tile([1.0, 8.0, 1.0, 20.0], 4) / 120.0
    options = {"reg": reg, "reg_m": 0.5, "tol": 0.2, "random_state": 0}
    result = ps.solve_semidiscrete(y[:, None], "normal", b, **options)
    bars = ErrorBars(result, np.random.default_rng(0).normal(size=(n, 1)), random_state=0)
    psi = bars.potential
    ends = (y[1:] + y[:-1]) / 2.0 - np.diff(psi + reg * np.log(b)) / (2.0 * np.diff(y))
    m = np.diff(norm.cdf(ends), prepend=0.0, append=1.0)
    g = b * np.exp(-psi / 0.5) / np.sum(b * np.exp(-psi / 0.5))
    assert np.all(np.abs(m - g) < 4.0 * np.sqrt(g / n))
    steps = np.diff(np.eye(16), axis=0)
    hessian = steps.T @ np.diag(norm.pdf(ends) / (2.0 * np.diff(y))) @ steps
    hessian += (np.diag(g) - np.outer(g, g)) / 0.5
    moves = (np.eye(16) - g) @ np.linalg.pinv(hessian)  # of mean 0 by g, as psi is normalized
    variance = np.diag(moves @ (np.diag(m) - np.outer(m, m)) @ moves.T) / n
    ratio = bars.potential_stderr / np.sqrt(variance)
    assert ratio.min() > 0.8
    assert ratio.max() < 1.25


@needs_torch
def test_data_that_are_drawn_without_noise_have_masses_of_the_plan():
    import torch

    from pot_semidiscrete.generative import SemiDiscretePairs

    x, atoms, b = (torch.tensor(v) for v in cloud())
    result = solve(x, atoms, b, tol=0.03)
    pairs = SemiDiscretePairs(result, batch_size=4000, independent=1.0, random_state=0)
    data = next(iter(pairs))[1]
    near = (data[:, None] - atoms).abs().sum(dim=2).argmin(dim=1)
    shares = torch.bincount(near, minlength=12).double().numpy() / len(near)
    np.testing.assert_allclose(shares, pot()[1], atol=0.03)


def test_bound_of_many_atoms_is_valid(nx64):
    """More atoms than a matrix is for; the potential of the sample itself."""
    rng = np.random.default_rng(3)
    x, atoms = rng.normal(size=(600, 2)), rng.normal(size=(300, 2))
    target = Problem.of(nx64.array(atoms), None, None, 0.1, reg_m=REG_M).target
    dual, points = SemiDual(target), target.center(nx64.array(x))
    found = maximize(dual, points, 0.0 * target.weights, 0.1, rtol=1e-6)
    M, a, b = ot.dist(x, atoms), np.full(600, 1 / 600), np.full(300, 1 / 300)
    P = ot.unbalanced.sinkhorn_unbalanced(a, b, M, 0.1, (math.inf, REG_M), stopThr=1e-12)
    m = P.sum(axis=0)
    value = (P * M).sum() + 0.1 * np.sum(P * np.log(P * 180_000)) + REG_M * np.sum(m * np.log(m * 300))
    assert found.measured.value == pytest.approx(value, rel=1e-5)
    excess = target.excess(found.measured.marginal, found.measured.goal)
    assert 0.0 <= excess < 1e-4


def planted(n=60, n_outliers=6):
    """A ring, and outliers all around, far from it; float32."""
    rng = np.random.default_rng(7)
    data = rng.normal(size=(n + n_outliers, 2))
    radius = np.where(np.arange(n + n_outliers) < n, 1.0, 6.0)
    return (data / np.linalg.norm(data, axis=1)[:, None] * radius[:, None]).astype(np.float32)


def train(data, generator=None, **options):
    """A small generator, or a given one, trained on a tensor of data or a loss of them; seeded."""
    torch = pytest.importorskip("torch")
    from pot_semidiscrete.generative import train_generator

    if generator is None:
        nn = torch.nn
        with torch.random.fork_rng():
            torch.manual_seed(0)
            generator = nn.Sequential(nn.Linear(4, 32), nn.LeakyReLU(0.2), nn.Linear(32, 2))
    return train_generator(generator, 4, data, **{"n_steps": 200, "random_state": 0} | options)


@pytest.fixture
def torch():
    """The library, or the test is skipped."""
    return pytest.importorskip("torch")


def loss_of(torch, **options):
    """The loss of the cloud, in double precision, and its points."""
    from pot_semidiscrete.generative import SemiDiscreteLoss

    x, atoms, b = (torch.tensor(v) for v in cloud())
    return SemiDiscreteLoss(atoms, b, **{"reg": REG, "reg_m": REG_M} | options), x


@pytest.mark.parametrize("follow", [1, 5])
def test_loss_is_the_semi_dual_with_its_gradient(follow, torch):
    """Of all entries at once, by NumPy; the bound touches it, the gradient is that of differences."""
    loss, x = loss_of(torch)
    for _ in range(follow):
        loss.follow(x)
    _, atoms, b = cloud()
    keep, psi = b > 0, loss.potential.numpy()[cloud()[2] > 0]
    scores = np.log(b[keep]) + (psi - ot.dist(x.numpy(), atoms[keep])) / REG
    free = -REG_M * logsumexp(np.log(b[keep]) - psi / REG_M)
    expected = -REG * logsumexp(scores, axis=1).mean() + free
    x.requires_grad_()
    value = loss(x)
    assert value.item() == pytest.approx(expected, rel=1e-12)
    (bound,) = loss.majorants([x.detach()])
    assert float(bound(loss.local(x))) == pytest.approx(expected, rel=1e-12)
    (gradient,) = torch.autograd.grad(value, x)
    move = torch.tensor(np.random.default_rng(1).normal(size=x.shape))
    ends = [float(loss(x.detach() + h * move)) for h in (1e-5, -1e-5)]
    assert float((gradient * move).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("kind", ["vector", "network"])
def test_potential_that_follows_comes_to_the_masses_of_pot(kind, torch):
    """By rounds of fresh points of a source that rests; solved for, it has no bias."""
    random = torch.Generator().manual_seed(0)
    options = {}
    if kind == "network":
        with torch.random.fork_rng():
            torch.manual_seed(0)
            nn = torch.nn
            module = nn.Sequential(nn.Linear(2, 64), nn.SiLU(), nn.Linear(64, 1)).double()
        make = lambda parameters: torch.optim.Adam(parameters, lr=1e-2)
        options = {"potential": module, "potential_optimizer": make}
    loss, x = loss_of(torch, **options)
    draw = lambda n: x[torch.randint(len(x), (n,), generator=random)]
    masses = lambda: ps.semidiscrete_atom_weights(
        torch.tensor(cloud()[1]), x, loss.potential, torch.tensor(cloud()[2]), reg=REG
    ).mean(dim=0)
    assert np.abs(cloud()[2] - pot()[1]).max() > 0.1
    for _ in range(30):
        loss.follow(draw(300))
    np.testing.assert_allclose(masses(), pot()[1], atol=0.04)  # it has the bias of held masses
    goal = torch.tensor(cloud()[2]) * torch.exp(-loss.potential / REG_M)
    assert float(goal.sum()) == pytest.approx(1.0, rel=1e-9)
    if kind == "vector":
        result = loss.fit(x, tol=0.03, random_state=0)
        assert result.reg_m == loss.reg_m == REG_M
        np.testing.assert_allclose(loss.potential, result.potential)
        np.testing.assert_allclose(masses(), pot()[1], atol=0.01)


@pytest.mark.parametrize("pair_cost", [None, "cityblock"])
def test_generator_forgets_planted_outliers(pair_cost, torch):
    """Trained without a price it has points near them, as many as they weigh; then with one, none."""
    data, options = torch.tensor(planted()), {"reg": 0.02, "pair_cost": pair_cost}

    def measure(result):
        """Shares of the points that the plan sends to outliers, and that lie out there."""
        x = result.generator(torch.randn(2000, 4, generator=torch.Generator().manual_seed(1))).detach()
        sent = result.loss.pair(x, 0, follow=True) >= 60
        return [float(found.double().mean()) for found in (sent, x.norm(dim=1) > 3.0)]

    result = train(data, **options)
    sent, out = measure(result)
    assert sent > 0.05
    assert out > 0.005
    assert max(measure(train(data, reg_m=1.0, **options))) < 0.002
    assert max(measure(train(data, result.generator, reg_m=1.0, **options))) < 0.002


def test_run_with_a_price_continues(torch, tmp_path):
    """Bit for bit; at another price, or by a file that is older than prices, it is refused."""
    data, path = torch.tensor(planted()), tmp_path / "run.pt"
    whole = train(data, n_steps=20, reg_m=1.0)
    stop = lambda result: result.n_steps == 7
    train(data, n_steps=20, reg_m=1.0, checkpoint=path, callback=stop)
    result = train(data, n_steps=20, reg_m=1.0, checkpoint=path)
    assert torch.equal(result.loss.potential, whole.loss.potential)
    assert pickle.loads(pickle.dumps(result.loss)).reg_m == 1.0
    for one, other in zip(result.generator.parameters(), whole.generator.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match=r"reg_m: expected 1.0, as in the checkpoint .*received 2.0"):
        train(data, n_steps=20, reg_m=2.0, checkpoint=path)
    with pytest.raises(ValueError, match=r"reg_m: expected 1.0.*received inf"):
        train(data, n_steps=20, checkpoint=path)
    state = torch.load(path)
    del state["problem"]["reg_m"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"reg_m: expected inf.*received 1.0"):
        train(data, n_steps=20, reg_m=1.0, checkpoint=path)


def test_a_price_is_refused_where_it_makes_no_sense(torch):
    from pot_semidiscrete.generative import GradientPenaltyCritic

    data, images = torch.tensor(planted()), torch.rand(20, 8, 8)
    with pytest.raises(ValueError, match="debias: expected False with reg_m"):
        loss_of(torch, debias=True)
    for use in ("forward", "majorants"):
        loss, x = loss_of(torch)
        loss.debias = True
        with pytest.raises(ValueError, match="debias: expected False with reg_m"):
            getattr(loss, use)(x if use == "forward" else [x])
    loss, _ = loss_of(torch)
    assert not loss.can_translate
    with pytest.raises(ValueError, match="translate: expected a loss without reg_m"):
        loss.translate(torch.ones(2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"reg_m.*expected None with a SemiDiscreteLoss"):
        train(loss, reg_m=1.0)
    for critic in ("wgan-gp", torch.nn.Linear(2, 1)):
        with pytest.raises(ValueError, match="critic: expected a GradientPenaltyCritic, of data"):
            train(data, reg_m=1.0, critic=critic)
    cleaned = GradientPenaltyCritic(data[:60], random_state=0)
    assert train(data, n_steps=2, reg_m=1.0, critic=cleaned).status == "finished"
    from pot_semidiscrete.generative.choices import parts_of_data

    parts = [parts_of_data(images, 0, reg_m=reg_m) for reg_m in (None, 1.0, math.inf)]
    assert [part.critic is None for part in parts] == [False, True, False]
    assert all(part.descent is not None for part in parts)


@pytest.mark.parametrize("reg_m", [None, 0.5])
def test_parameters_are_fitted_to_the_others(reg_m):
    """A translation, to the mean of the data that have mass; the potential is that class's own."""
    rng, data = np.random.default_rng(0), planted()[:63].astype(float)
    data[60:] = [6.0, 0.0]
    result = ps.train_parameters(
        lambda theta, z: z + theta,
        np.zeros(2),
        lambda n: rng.normal(size=(n, 2)) * 0.7,
        data,
        vjp=lambda theta, z, cotangent: cotangent.sum(0),
        **{"reg": 0.05, "reg_m": reg_m, "n_steps": 60, "dual_steps": 2, "learning_rate": 0.05},
    )
    goal = data[: 63 if reg_m is None else 60].mean(axis=0)
    assert np.linalg.norm(data.mean(axis=0) - data[:60].mean(axis=0)) > 0.25
    assert np.linalg.norm(result.theta - goal) < 0.12
    psi = result.potential
    assert abs(psi.mean() if reg_m is None else logsumexp(-psi / reg_m) - np.log(63)) < 1e-9


@pytest.mark.parametrize("reg", [0.0, REG])
def test_stored_atoms_have_the_same_masses(reg):
    x, atoms, b = cloud()
    options = {"reg": reg, "tol": 0.0, "max_iter": 20}
    found, expected = (solve(x, y, b, **options) for y in (ps.StoredAtoms(atoms), atoms))
    np.testing.assert_allclose(found.potential, expected.potential, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.marginal_b, expected.marginal_b, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.value_interval, expected.value_interval, rtol=1e-9)
    assert found.reg_m == REG_M
