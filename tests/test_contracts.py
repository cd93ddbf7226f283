"""What every cost, kernel, sampler and stopping rule owes; whatever is registered is tested."""

from types import SimpleNamespace

import numpy as np
import ot
import pytest

import pot_semidiscrete as ps
from pot_semidiscrete.costs import Cost, SeparableCost, register_cost, registered_costs
from pot_semidiscrete.kernels import GenericKernel, SoftBlock, registered_kernels
from pot_semidiscrete.kernels.numpy_kernel import NumpyKernel
from pot_semidiscrete.optim.ascent import AscentState
from pot_semidiscrete.optim.semi_dual import SemiDual
from pot_semidiscrete.optim.stopping import registered_rules
from pot_semidiscrete.problem import build_target
from pot_semidiscrete.samplers import Sampler, register_law
from pot_semidiscrete.samplers.base import registered_laws
from pot_semidiscrete.samplers.laws import NormalSampler
from pot_semidiscrete.samplers.resolve import resolve_random, resolve_source

BINARY = {"dice", "jaccard", "rogerstanimoto", "russellrao", "sokalsneath", "yule"}
BY_HAND = {"sqeuclidean", "euclidean", "minkowski", "cityblock", "cosine", "correlation"}
N, N_ATOMS, D = 7, 5, 4


@pytest.fixture
def backend(nx64):
    return ot.backend.get_backend(nx64.array(np.zeros(1)))


def arrays(name, nx64, rng):
    """Source points and atoms, away from kinks; zeros and ones for metrics of these."""
    x, y = rng.normal(size=(N, D)) + 2.0, rng.normal(size=(N_ATOMS, D)) + 2.0
    return [nx64.array(v > 2.0 if name in BINARY else v) for v in (x, y)]


@pytest.mark.parametrize("name", registered_costs())
def test_cost_is_one_cost_however_it_is_asked_for(name, nx64, backend, rng):
    if name not in registered_costs(backend):
        pytest.skip("not on this backend")
    (x, y), cost, nx, close = arrays(name, nx64, rng), registered_costs()[name](), backend, 1e-10
    matrix = nx64.host(cost.matrix(x, y, nx))
    np.testing.assert_allclose(matrix, ot.dist(nx64.host(x), nx64.host(y), metric=name), atol=close)
    terms = nx64.host(cost.source_term(x, nx))[:, None] + nx64.host(cost.target_term(y, nx))
    bilinear = terms - matrix
    np.testing.assert_allclose(nx64.host(cost.bilinear(x, y, 3.0, nx)), 3.0 * bilinear, atol=close)
    share, law, chi = (rng.dirichlet(np.ones(k), n) for k, n in ((N, 1), (N_ATOMS, 1), (N_ATOMS, N)))
    block = SoftBlock(nx64.array(2.0 * chi), nx64.array(np.full(N, 0.5)), None, nx)
    for found, expected in (
        (cost.source_mean(x, y, nx64.array(share[0]), nx), share[0] @ bilinear),
        (cost.target_mean(x, y, nx64.array(law[0]), nx), bilinear @ law[0]),
        (cost.weighted_mean(x, y, block, nx), (chi * bilinear).sum(axis=1)),
    ):
        np.testing.assert_allclose(nx64.host(found), expected, atol=close)
    if cost.translation_invariant:
        moved = nx64.host(cost.matrix(x + 1.0, y + 1.0, nx))
        np.testing.assert_allclose(moved, matrix, atol=close)


@pytest.mark.parametrize("name", registered_costs())
def test_gradient_of_a_cost_is_right_or_refused(name, nx64, backend, rng):
    if name not in registered_costs(backend):
        pytest.skip("not on this backend")
    (x, y), cost, nx = arrays(name, nx64, rng), registered_costs()[name](), backend
    chi, steps = rng.dirichlet(np.ones(N_ATOMS), N), 1e-6 * np.eye(D)
    block = SoftBlock(nx64.array(chi), nx64.array(np.ones(N)), None, nx)
    if name not in BY_HAND and not nx64.differentiates:
        with pytest.raises(TypeError, match="its gradient in the source points is not known"):
            cost.vjp(x, y, block, nx)
        return
    gradient = nx64.host(cost.vjp(x, y, block, nx))
    costs = lambda points: nx64.host(cost.matrix(nx64.array(points), y, nx))
    host = nx64.host(x)
    slopes = [(chi * (costs(host + h) - costs(host - h))).sum(axis=1) / 2e-6 for h in steps]
    np.testing.assert_allclose(gradient, np.transpose(slopes), atol=1e-6)


def test_cost_that_is_said_twice_is_refused():
    """One of the two was added to the other, unseen."""
    term = lambda self, x, nx: nx.sum(x * x, axis=1)
    matrix = lambda self, x, y, nx: ot.dist(x, y)
    with pytest.raises(TypeError, match="by its matrix only, received source_term"):
        type("Twice", (Cost,), {"source_term": term, "matrix": matrix})
    with pytest.raises(TypeError, match="by its terms only, received matrix"):
        type("Twice", (SeparableCost,), {"factors": lambda *args: None, "matrix": matrix})
    with pytest.raises(TypeError, match="expected a subclass of Cost"):
        register_cost(dict, "dict")


@pytest.mark.parametrize("reg", [0.0, 0.3])
@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean"])
def test_kernels_agree(metric, reg, nx64, rng):
    """That of the backend with the generic one, which has no other passes than the formula."""
    target = build_target(nx64.array(rng.normal(size=(N_ATOMS, D))), metric=metric)
    assert target.kernel in [load() for load in known(registered_kernels())]
    x = target.center(nx64.array(rng.normal(size=(N, D))))
    psi = nx64.array(rng.normal(size=N_ATOMS))
    blocks = [kind(target, psi, reg)(x) for kind in (target.kernel, GenericKernel)]
    for name in ("c_transform", "dense", "colsum", "colsquare"):
        values = [getattr(block, name) for block in blocks]
        found, expected = (nx64.host(v() if callable(v) else v) for v in values)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        if name == "dense":
            np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-12)


def known(loaders):
    """Those whose library is installed."""
    for load in loaders.values():
        try:
            load()
        except ImportError:
            continue
        yield load


def test_kernel_need_not_take_powers_in_place(rng):
    """The sums were those of the powers, the weights of what was left in the buffer: -22 in all."""

    class OutOfPlace(NumpyKernel):
        def power(self, part, floor):
            return self.exp(np.maximum(part, floor))

    target, psi = build_target(rng.normal(size=(N_ATOMS, D))), rng.normal(size=N_ATOMS)
    x = rng.normal(size=(N, D))
    found, expected = (kind(target, psi, 0.3)(x) for kind in (OutOfPlace, NumpyKernel))
    np.testing.assert_allclose(found.dense(), expected.dense())
    np.testing.assert_allclose(found.c_transform, expected.c_transform)


@pytest.mark.parametrize("name", registered_laws())
def test_law(name, nx, rng):
    """Shape and kind; the same seed gives the same points; a state goes on where it was."""
    like = nx.array(np.zeros((1, D)))
    backend = ot.backend.get_backend(like)
    make = lambda: registered_laws()[name](D, resolve_random(3, backend, like))
    first, second = make(), make()
    points = first(100)
    assert points.shape == (100, D)
    assert points.dtype == like.dtype
    np.testing.assert_array_equal(nx.host(points), nx.host(second(100)))
    state = first.state_dict()
    ahead = nx.host(first(10))
    second.load_state_dict(state)
    np.testing.assert_array_equal(ahead, nx.host(second(10)))
    assert not first.is_quasi_random
    assert first.independent(10).shape == (10, D)


def test_sampler_of_a_user_is_taken_as_it_is(rng):
    class Shifted(Sampler):
        is_quasi_random = True
        asked = 0

        def __call__(self, n):
            return rng.normal(size=(n, 2)) + 1.0

        def independent(self, n):
            self.asked += n
            return self(n)

    sampler = Shifted()
    result = ps.solve_semidiscrete(rng.normal(size=(10, 2)), sampler, reg=0.5, tol=0.3)
    assert result.converged
    assert sampler.asked > 0
    target = build_target(rng.normal(size=(10, 2)))
    assert resolve_source(sampler, target, None) is sampler
    assert isinstance(resolve_source("normal", target, 0), NormalSampler)
    with pytest.raises(TypeError, match="expected a subclass of Law"):
        register_law("dict")(dict)


@pytest.mark.parametrize("name", registered_rules())
def test_stopping_rule(name, rng):
    rule = registered_rules()[name](0.1, 0.0)
    dual = SemiDual(build_target(rng.normal(size=(20, 2))))
    zero = 0.0 * dual.target.weights
    assert 0.0 < rule.budget(1000.0, 20) <= 1000.0
    assert not rule.is_due(dual, AscentState(zero, zero, 1.0), 0.0, False)
    look = lambda chi2: SimpleNamespace(chi2=chi2, chi2_stderr=0.0, look_bound=chi2, n_eff=10.0)
    assert not rule.note(1, look(1.0))
    rule.wait(look(1.0), 100.0)
    rule.corrected(3.0)
    assert rule.history == [(1, 1.0, 0.0)]
    assert rule.n_eff == 10.0
    assert rule.n_points >= 0.0
    if rule.may_be_met(look(0.0)):
        assert rule.note(2, look(0.0))
        assert rule.is_due(dual, AscentState(zero, zero, 1.0), 1e9, True)
    else:
        assert not rule.prefers_correction(100)
