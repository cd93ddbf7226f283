"""What every cost, kernel, sampler and stopping rule owes; whatever is registered is tested."""

from types import SimpleNamespace

import numpy as np
import ot
import pytest

import pot_semidiscrete as ps
from pot_semidiscrete.costs import (
    Cost,
    SeparableCost,
    check_cost,
    register_cost,
    registered_costs,
)
from pot_semidiscrete.kernels import (
    GenericKernel,
    SoftBlock,
    check_kernel,
    register_kernel,
    registered_kernels,
)
from pot_semidiscrete.kernels.numpy_kernel import NumpyKernel
from pot_semidiscrete.optim.ascent import AscentState
from pot_semidiscrete.optim.semi_dual import SemiDual
from pot_semidiscrete.optim.stopping import ChiSquareRule, registered_rules
from pot_semidiscrete.problem import build_target
from pot_semidiscrete.samplers import Sampler, register_law
from pot_semidiscrete.samplers.base import registered_laws
from pot_semidiscrete.samplers.laws import NormalSampler
from pot_semidiscrete.samplers.resolve import resolve_random, resolve_source
from tests.backends import cost_of

BINARY = {"dice", "jaccard", "rogerstanimoto", "russellrao", "sokalsneath", "yule"}
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
    (x, y), cost, nx, close = arrays(name, nx64, rng), cost_of(name), backend, 1e-10
    matrix = nx64.host(cost.matrix(x, y, nx))
    check_cost(cost, x, y, nx)
    if type(cost).__module__.startswith("pot_semidiscrete"):  # a user's has a name of its own
        expected = ot.dist(nx64.host(x), nx64.host(y), metric=name)
        np.testing.assert_allclose(matrix, expected, atol=close)
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
    (x, y), cost, nx = arrays(name, nx64, rng), cost_of(name), backend
    chi, steps = rng.dirichlet(np.ones(N_ATOMS), N), 1e-6 * np.eye(D)
    block = SoftBlock(nx64.array(chi), nx64.array(np.ones(N)), None, nx)
    if type(cost).vjp is Cost.vjp and not nx64.differentiates:
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
    with pytest.raises(TypeError, match="name: expected a name for Nameless"):
        register_cost(type("Nameless", (Cost,), {"matrix": matrix}))


class Weighed(SeparableCost):
    """Right, but for what a test changes."""

    name = "weighed"

    def source_term(self, x, nx):
        return nx.sum(x**2, axis=1)

    def target_term(self, y, nx):
        return 4.0 * nx.sum(y**2, axis=1)

    def factors(self, x, y, scale, nx):
        return 4.0 * scale * x, y


@pytest.mark.parametrize(
    ("name", "wrong", "word"),
    [
        ("factors", lambda self, x, y, scale, nx: (4.0 * x, y), "in proportion to scale"),
        ("source_term", lambda self, x, nx: nx.sum(x**2, axis=1)[:, None], "source_term"),
        ("target_term", lambda self, y, nx: np.zeros(len(y), np.float32), "dtype"),
        ("target_term", lambda self, y, nx: nx.sum(y**2, axis=1) + np.inf, "finite"),
        ("translation_invariant", True, "stay as all points move"),
    ],
)
def test_cost_of_a_user_is_checked_at_the_door(name, wrong, word, nx64, rng):
    atoms = nx64.array(rng.normal(size=(10, 3)))
    assert ps.cost_scale(atoms, metric=Weighed()) > 0.0
    with pytest.raises(ValueError, match=word):
        ps.cost_scale(atoms, metric=type("Wrong", (Weighed,), {name: wrong})())


@pytest.mark.parametrize("part", ["reg", "source_term", "shape", "dtype", "soft", "hard"])
def test_kernel_of_a_user_is_checked_at_the_door(part, rng):
    """What is wrong in one of its two blocks made a run that converged, to another value."""

    class Wrong(GenericKernel):
        def soft(self, scores, source_term):
            block = super().soft(scores if part != "soft" else 2.0 * scores, source_term)
            if part == "reg":
                block.c_transform = source_term - (source_term - block.c_transform) / self.reg
            if part == "source_term":
                block.c_transform = block.c_transform - source_term
            if part == "shape":
                block.c_transform = block.c_transform[:, None]
            if part == "dtype":
                block.exp_scores = block.exp_scores.astype(np.float32)
                block.inv_row_sums = block.inv_row_sums.astype(np.float32)
            return block

        def hard(self, scores, source_term):
            return super().hard(scores if part != "hard" else 2.0 * scores, source_term)

    usual = registered_kernels()["numpy"]
    register_kernel("numpy", Wrong)
    try:
        with pytest.raises(ValueError, match="kernel Wrong: expected"):
            ps.solve_semidiscrete(rng.normal(size=(20, 3)), "normal", reg=0.5, tol=0.5)
    finally:
        register_kernel("numpy", usual)


def test_kernel_is_registered_as_a_class_or_what_makes_it():
    usual = registered_kernels()["numpy"]
    for load in (NumpyKernel, lambda: NumpyKernel):
        register_kernel("numpy", load)
        assert build_target(np.eye(2)).kernel is NumpyKernel
    register_kernel("numpy", usual)
    with pytest.raises(TypeError, match="expected a subclass of Kernel"):
        register_kernel("numpy", dict)


def test_rule_of_a_user_is_a_tolerance(rng):
    """It is copied: a run leaves it as it was."""

    class Often(ChiSquareRule):
        looks = 0

        def is_met(self, found):
            type(self).looks += 1
            return super().is_met(found)

    rule, atoms = Often(0.3), rng.normal(size=(10, 2))
    results = [
        ps.solve_semidiscrete(atoms, "normal", reg=0.5, tol=t, random_state=0) for t in (rule, 0.3)
    ]
    assert rule.history == []
    assert Often.looks > 0
    np.testing.assert_array_equal(*[result.potential for result in results])
    with pytest.warns(ps.SemiDiscreteWarning, match="before Often was met"):
        ps.solve_semidiscrete(atoms, "normal", reg=0.5, tol=Often(1e-9), max_iter=3)


@pytest.mark.parametrize("reg", [0.0, 0.3])
@pytest.mark.parametrize(
    ("metric", "n", "n_atoms", "d"),
    [("sqeuclidean", N, N_ATOMS, D), ("euclidean", N, N_ATOMS, D), ("sqeuclidean", 130, 4200, 2)],
)
def test_kernels_agree(metric, n, n_atoms, d, reg, nx, rng):
    """That of the backend with the generic one, which has no other passes than the formula.

    In the last case the maxima of rows are guessed, where they are.
    """
    target = build_target(nx.array(rng.random((n_atoms, d))), metric=metric)
    assert target.kernel in [load() for load in known(registered_kernels())]
    x = target.center(nx.array(rng.random((n, d))))
    psi = nx.array(0.1 * rng.random(n_atoms))
    check_kernel(target.kernel, target, x, psi, reg)
    block = target.kernel(target, psi, reg)(x)
    chi = nx.host(block.dense())
    np.testing.assert_allclose(chi.sum(axis=1), 1.0, atol=1e3 * nx.eps)
    mean = nx.host(block.average(target.atoms))
    np.testing.assert_allclose(mean, chi @ nx.host(target.atoms), atol=1e3 * nx.eps)


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
        asked = 0

        def __call__(self, n):
            return rng.normal(size=(n, 2)) + 1.0

        def independent(self, n):
            self.asked += n
            return self(n)

    sampler = Shifted()
    result = ps.solve_semidiscrete(rng.normal(size=(10, 2)), sampler, reg=0.5, tol=0.3)
    assert result.converged
    assert sampler.is_quasi_random
    assert sampler.asked > 0
    target = build_target(rng.normal(size=(10, 2)))
    assert resolve_source(sampler, target, None) is sampler
    assert isinstance(resolve_source("normal", target, 0), NormalSampler)
    with pytest.raises(TypeError, match="expected a subclass of Law"):
        register_law("dict")(dict)
    with pytest.raises(TypeError, match="expected names"):
        register_law(Shifted)


@pytest.mark.parametrize("name", registered_rules())
def test_stopping_rule(name, rng):
    rule = registered_rules()[name](0.1, 0.0)
    dual = SemiDual(build_target(rng.normal(size=(20, 2))))
    zero = 0.0 * dual.target.weights
    assert 0.0 < rule.budget(1000.0, 20) <= 1000.0
    assert not rule.is_due(dual, AscentState(zero, zero, 1.0), 0.0, False)
    facts = {"chi2_stderr": 0.0, "n_eff": 10.0, "marginal_error_stderr": 0.0}
    look = lambda chi2: SimpleNamespace(chi2=chi2, look_bound=chi2, marginal_error=chi2, **facts)
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
