"""What every cost, kernel, sampler and stopping rule owes; whatever is registered is tested."""

import numpy as np
import ot
import pytest
from scipy.stats import qmc

import pot_semidiscrete as ps
from pot_semidiscrete.costs import (
    Cost,
    SeparableCost,
    check_cost,
    register_cost,
    registered_costs,
)
from pot_semidiscrete.costs import base as costs
from pot_semidiscrete.kernels import (
    GenericKernel,
    Kernel,
    SoftBlock,
    check_kernel,
    register_kernel,
    registered_kernels,
)
from pot_semidiscrete.kernels.numpy_kernel import NumpyKernel
from pot_semidiscrete.optim.ascent import AscentState
from pot_semidiscrete.optim.semi_dual import SemiDual
from pot_semidiscrete.optim.stopping import RULES, ChiSquareRule, FixedSamples, Look, StoppingRule
from pot_semidiscrete.problem import build_target
from pot_semidiscrete.samplers import Law, Sampler, register_law
from pot_semidiscrete.samplers import base as laws
from pot_semidiscrete.samplers.base import registered_laws
from pot_semidiscrete.samplers.laws import NormalSampler
from pot_semidiscrete.samplers.resolve import resolve_random, resolve_source
from pot_semidiscrete.solver.run import Solver
from tests.backends import cost_of, costs_of, counted

BINARY = {"dice", "jaccard", "rogerstanimoto", "russellrao", "sokalsneath", "yule"}
N, N_ATOMS, D = 7, 5, 4


@pytest.fixture(autouse=True)
def same_registries(monkeypatch):
    """What a test registers is forgotten after it."""
    for module, name in ((costs, "_NAMED"), (costs, "_CLASSES"), (laws, "_LAWS")):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))


@pytest.fixture
def backend(nx64):
    """POT's backend of the arrays."""
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
        np.testing.assert_allclose(matrix, costs_of(name, nx64.host(x), nx64.host(y)), atol=close)
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


class Huber(Cost):
    """That of doc/extending.rst, with an argument, and no name of its own."""

    translation_invariant = True

    def __init__(self, name, sign=1.0):
        self.name, self.sign = name, sign

    def matrix(self, x, y, nx):
        squares = nx.sum(x * x, axis=1)[:, None] + nx.sum(y * y, axis=1)[None, :]
        squares = nx.maximum(squares - 2.0 * nx.dot(x, y.T), 0.0 * squares)
        return nx.sqrt(1.0 + squares) - 1.0

    def vjp(self, x, y, chi, nx):
        share = self.sign * chi.dense() / (1.0 + self.matrix(x, y, nx))
        return x * nx.sum(share, axis=1)[:, None] - nx.dot(share, y)


def test_cost_that_cannot_be_made_is_refused():
    """Its error came from inside the package, when the name was used."""
    with pytest.raises(TypeError, match=r"received Huber \(missing .*'name'\); give make="):
        register_cost(Huber, "huber of a test")
    with pytest.raises(TypeError, match=r"received Partial, which lacks factors; .*make="):
        register_cost(type("Partial", (SeparableCost,), {"name": "partial"}))
    with pytest.raises(TypeError, match="received the class Huber; give Huber"):
        ps.cost_scale(np.eye(2), metric=Huber)
    register_cost(Huber, "huber of a test", make=lambda: Huber("huber of a test"))
    assert ps.cost_scale(np.eye(2), metric="huber of a test") == pytest.approx((3.0**0.5 - 1.0) / 2.0)
    register_cost(Huber, "huber of a test", make=lambda: 3)
    with pytest.raises(TypeError, match=r"'huber of a test': expected a Cost of its make, received int"):
        ps.cost_scale(np.eye(2), metric="huber of a test")


def test_names_that_are_taken_are_refused():
    """They replaced the package's own; what is defined again, in a notebook, does replace itself."""
    made = lambda kind, **members: type(f"Mine{kind.__name__}", (kind,), members)
    matrix = lambda self, x, y, nx: 3.0 * ot.dist(x, y)
    with pytest.raises(
        ValueError, match=r"received 'sqeuclidean', that of pot_semidiscrete\..*SqEuclidean"
    ):
        register_cost(made(Cost, name="sqeuclidean", matrix=matrix))
    with pytest.raises(
        ValueError, match=r"received 'normal', that of pot_semidiscrete\..*NormalSampler"
    ):
        register_law("mine", "normal")(made(NormalSampler))
    assert "mine" not in registered_laws()
    for scale in (1.0, 2.0):
        again = lambda self, x, y, nx, scale=scale: scale * ot.dist(x, y)
        register_cost(made(Cost, name="mine", matrix=again))
        assert float(ps.cost_scale(np.eye(2), metric="mine")) == scale
    for _ in range(2):
        register_law("mine")(made(NormalSampler))


@pytest.mark.parametrize(
    ("n", "d", "mean", "scale"), [(50, 3072, 128, 64), (50, 2, 300, 1), (9, 2, 1e4, 1)]
)
def test_cost_is_as_right_far_from_the_origin(n, d, mean, scale, nx, rng):
    """Points were not centred for the check, and moved by more than they differ by."""
    atoms = (mean + scale * rng.normal(size=(n, d))).astype("float32")
    x = (mean + scale * rng.normal(size=(20, d))).astype("float32")
    found = ps.semidiscrete_c_transform(
        nx.array(atoms), nx.array(x), nx.array(np.zeros(n)), None, Huber("h")
    )
    exact = np.sqrt(1.0 + ot.dist(x.astype(float), atoms.astype(float))) - 1.0
    np.testing.assert_allclose(nx.host(found), exact.min(axis=1), rtol=1e3 * nx.eps, atol=1e3 * nx.eps)
    wrong = lambda self, x, y, nx: Huber.matrix(self, x, 1.5 * y, nx)
    with pytest.raises(ValueError, match="stay as all points move"):
        ps.cost_scale(nx.array(atoms), metric=type("Wrong", (Huber,), {"matrix": wrong})("w"))


@pytest.mark.parametrize("name", ["", None, 3])
def test_cost_without_a_name_is_refused(name):
    with pytest.raises(ValueError, match="metric: expected a cost with a name"):
        ps.cost_scale(np.eye(2), metric=Huber(name))


@pytest.mark.parametrize("factor", [-1.0, 0.0, 0.5, 2.0])
@pytest.mark.parametrize("mean", [0.0, 300.0])
def test_gradient_of_wrong_sign_or_size_is_refused(mean, factor, nx, rng):
    atoms = nx.array(mean + rng.normal(size=(10, 3)))
    assert ps.cost_scale(atoms, metric=Huber("h")) > 0.0
    with pytest.raises(ValueError, match=r"metric 'h': expected vjp.* as the differences of matrix"):
        ps.cost_scale(atoms, metric=Huber("h", factor))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("start", [False, True])
def test_costs_that_are_not_finite_at_the_source_are_refused(start, wrong, nx64):
    """NaN could not be converted to an integer, deep inside."""

    class Holed(Huber):
        def matrix(self, x, y, nx):
            zero = 0.0 * x[:, :1] + 0.0 * y[:, 0]
            return nx.where(x[:, :1] + zero > 2.0, zero + wrong, super().matrix(x, y, nx))

    atoms, psi = nx64.array(np.eye(3)), nx64.array(np.zeros(3)) if start else None
    points = nx64.array(np.random.default_rng(0).normal(size=(1000, 3)))
    with pytest.raises(
        ValueError, match=r"metric 'holed': expected finite costs at the source points"
    ) as e:
        ps.solve_semidiscrete(
            atoms, points, None, Holed("holed"), 0.1, init_potential=psi, random_state=0
        )
    assert e.value.partial_result.status == "failed"


class Bilinear(SeparableCost):
    """``-<x, y>``, its vjp as a test has it."""

    name = "bilinear"

    def factors(self, x, y, scale, nx):
        return scale * x, y


@pytest.mark.parametrize(
    ("vjp", "word"),
    [
        (lambda self, x, y, chi, nx: -chi.average(y)[:, 0], r"of shape \(3, 2\), received"),
        (lambda self, x, y, chi, nx: None, r"of shape \(3, 2\), received NoneType"),
        (lambda self, x, y, chi, nx: nx.dot(chi.dense() > 1.0, y > 0), "of dtype"),
        (lambda self, x, y, chi, nx: -nx.dot(1.0 + 0.0 * chi.dense(), y), "differences of matrix"),
        (lambda self, x, y, chi, nx: -chi.average(y), None),
        (lambda self, x, y, chi, nx: -nx.dot(chi.dense(), y), None),
    ],
)
def test_gradient_is_checked_at_the_door(vjp, word, rng):
    atoms = rng.normal(size=(10, 2))
    made = type("Made", (Bilinear,), {"vjp": vjp})()
    if word is None:
        assert ps.cost_scale(atoms, metric=made) >= 0.0
        return
    with pytest.raises(ValueError, match=rf"metric 'bilinear': expected vjp.*{word}"):
        ps.cost_scale(atoms, metric=made)


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "cityblock", "cosine", "correlation"])
@pytest.mark.parametrize("law", ["normal", "cauchy", "binary", "sparse", "far", "tiny", "copies"])
def test_gradient_that_is_right_is_not_refused(law, metric, nx):
    """Kinks, jumps and rounding are no mistakes."""
    for d in (1, 2, 50):
        for n in (2, 10):
            rng = np.random.default_rng([d, n])
            points = {
                "normal": rng.normal(size=(n, d)),
                "cauchy": rng.standard_cauchy(size=(n, d)),
                "binary": rng.integers(2, size=(n, d)),
                "sparse": rng.random((n, d)) * (rng.random((n, d)) < 0.2),
                "far": 1000.0 + rng.normal(size=(n, d)),
                "tiny": 1e-6 * rng.normal(size=(n, d)),
                "copies": np.repeat(rng.normal(size=(1, d)), n, axis=0),
            }[law]
            x, cost = nx.array(points), registered_costs()[metric]()
            check_cost(cost, x[-3:], x[:4], ot.backend.get_backend(x))


def test_gradient_that_a_backend_has_not_is_not_asked_for(nx64, rng):
    def vjp(self, x, y, chi, nx):
        return Cost.vjp(self, x, y, chi, nx)

    made = type("Made", (Bilinear,), {"vjp": vjp})()
    assert ps.cost_scale(nx64.array(rng.normal(size=(10, 2))), metric=made) >= 0.0


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
        ("factors", lambda self, x, y, scale, nx: nx.dot(x, y.T), "factors.* two arrays u, v"),
        ("factors", lambda self, x, y, scale, nx: (x[1:], y), r"u of factors.* of shape \(3, 3\)"),
        ("factors", lambda self, x, y, scale, nx: (x, y.T), r"v of factors.* of shape \(4, 3\)"),
        ("factors", lambda self, x, y, scale, nx: (x, None), "v of factors.*received NoneType"),
        ("source_term", lambda self, x, nx: nx.sum(x**2, axis=1)[:, None], r"source_term.*shape \(3,\)"),
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


@pytest.mark.parametrize(
    ("matrix", "word"),
    [
        (lambda x, y: ot.dist(y, x), r"shape \(3, 4\), received .*\(4, 3\).*; here x has 3 rows, y 4.$"),
        (lambda x, y: ot.dist(x, y)[:, 0], r"shape \(3, 4\), received .*; here x has 3 rows, y 4.$"),
        (lambda x, y: None, r"shape \(3, 4\), received NoneType; here x has"),
        (lambda x, y: ot.dist(x, y) > 1.0, r"dtype .*float64, received .*bool.*; make constants with"),
    ],
)
def test_matrix_is_what_errors_name(matrix, word, nx64, rng):
    """They spoke of bilinear, which is made of it, and advised on dtypes whatever was wrong."""
    made = type("Made", (Cost,), {"name": "made", "matrix": lambda self, x, y, nx: matrix(x, y)})
    with pytest.raises(ValueError, match=rf"metric 'made': expected matrix\(x, y, nx\) of {word}"):
        ps.cost_scale(nx64.array(rng.normal(size=(10, 3))), metric=made())


def test_cost_that_writes_to_its_points_is_refused(rng):
    """It was told that its factors are not in proportion, and changed the atoms of the user."""

    class Spoils(Weighed):
        def source_term(self, x, nx):
            x *= x
            return nx.sum(x, axis=1)

    atoms = rng.normal(size=(10, 3))
    before = atoms.copy()
    with pytest.raises(ValueError, match="metric 'weighed': expected points that stay as they are"):
        ps.cost_scale(atoms, metric=Spoils())
    np.testing.assert_array_equal(atoms, before)


def test_gradients_that_a_backend_knows_are_named():
    """Of costs that are registered; one with constants was left out."""
    matrix = lambda self, x, y, nx: ot.dist(x, y) ** 2
    made = type("Made", (Cost,), {"name": "made", "matrix": matrix})()
    with pytest.raises(TypeError, match=r"use one of .*sqeuclidean.* minkowski, give a diff") as caught:
        ps.semidiscrete_gradient(np.eye(2), np.eye(2), np.zeros(2), metric=made)
    assert "canberra" not in str(caught.value)


@pytest.fixture
def numpy_kernel():
    """Registers a kernel for NumPy, for the time of a test."""
    usual = registered_kernels()["numpy"]
    yield lambda kernel: register_kernel("numpy", kernel)
    register_kernel("numpy", usual)


WRONG_BLOCKS = {
    "reg": "soft.* c_transform = source_term - reg",
    "source_term": "soft.* c_transform = source_term - reg",
    "shape": r"soft.* c_transform of shape \(3,\) .*, received .*\(3, 1\)",
    "inverse": r"soft.* inv_row_sums of shape \(3,\) .*, received .*\(3, 1\)",
    "transposed": r"soft.* exp_scores of shape \(3, 4\) .*, received .*\(4, 3\)",
    "dtype": "soft.* exp_scores of shape .* dtype float64, received .* float32",
    "tuple": r"soft.* a SoftBlock, received tuple; return SoftBlock\(exp_scores, inv_row_sums",
    "soft": "soft.* received one that differs",
    "max": "soft.* received NaN or inf .*; .*subtract the maximum of each row",
    "hard": "hard.* received one that differs",
    "None": r"hard.* a HardBlock, received NoneType; return HardBlock\(index, n_atoms",
    "float": r"hard.* index of shape \(3,\) and whole numbers, received .*float64",
    "swapped": "hard.* n_atoms = 4, .*, received numpy array",
}


@pytest.mark.parametrize("part", WRONG_BLOCKS)
def test_kernel_of_a_user_is_checked_at_the_door(part, numpy_kernel, rng):
    """What is wrong in one of its two blocks made a run that converged, to another value.

    Errors speak of what its author wrote, and come in one way.
    """

    class Wrong(GenericKernel):
        def soft(self, scores, source_term):
            if part == "max":
                powers = np.exp(scores + self.bias)
                total = powers.sum(axis=1)
                return SoftBlock(powers, 1.0 / total, source_term - self.reg * np.log(total), self.nx)
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
            if part == "inverse":
                block.inv_row_sums = block.inv_row_sums[:, None]
            if part == "transposed":
                block.exp_scores = block.exp_scores.T
            return block if part != "tuple" else (block.exp_scores, block.inv_row_sums)

        def hard(self, scores, source_term):
            block = super().hard(scores if part != "hard" else 2.0 * scores, source_term)
            if part == "float":
                block.index = block.index.astype(float)
            if part == "swapped":
                block.n_atoms, block.c_transform = block.c_transform, block.n_atoms
            return block if part != "None" else None

    numpy_kernel(Wrong)
    with pytest.raises(ValueError, match=f"kernel Wrong: expected {WRONG_BLOCKS[part]}"):
        ps.solve_semidiscrete(rng.normal(size=(20, 3)), "normal", reg=0.5, tol=0.5)


def test_kernel_that_leaves_out_what_its_base_does_is_refused(numpy_kernel):
    class Rootless(GenericKernel):
        def __init__(self, target, potential, reg):
            self.target, self.nx, self.reg, self.scale = target, target.nx, reg, 1.0

    numpy_kernel(Rootless)
    with pytest.raises(ValueError, match=r"kernel Rootless: expected an __init__.*call super"):
        ps.semidiscrete_c_transform(np.eye(3), np.eye(3), np.zeros(3))


@pytest.mark.parametrize(
    "metric", [None, "euclidean", "cosine", Weighed()], ids=["square", "euclidean", "cosine", "weighed"]
)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_kernel_that_is_right_is_not_refused(mean, scale, metric, nx):
    """At the smallest of the regularisations scores are rounded the most."""
    usual = registered_kernels()
    load = usual.get(nx.name, usual[""])
    foreign = type("Foreign", (load(),), {"__module__": "elsewhere"})
    register_kernel(nx.name, foreign)
    try:
        for n in (1, 2, 20):
            points = scale * (mean + np.random.default_rng(n).normal(size=(n, 3)))
            assert build_target(nx.array(points), metric=metric).kernel is foreign
    finally:
        register_kernel(nx.name, load)


def test_kernel_tells_if_it_is_less_precise(numpy_kernel, rng):
    """A product in float32 was refused for data in float64."""

    class SingleProduct(NumpyKernel):
        def product(self, u, v, out=None):
            return super().product(u.astype("float32"), v.astype("float32")).astype(u.dtype)

    atoms = rng.normal(size=(20, 3))
    numpy_kernel(SingleProduct)
    with pytest.raises(ValueError, match="of float64, give the class its rounding_unit"):
        build_target(atoms).kernel.cache()
    numpy_kernel(type("Told", (SingleProduct,), {"rounding_unit": float(np.finfo("float32").eps)}))
    found = ps.solve_semidiscrete(atoms, "normal", reg=0.5, random_state=0)
    assert found.converged
    numpy_kernel(NumpyKernel)
    exact = ps.semidiscrete_c_transform(atoms, atoms, found.potential, reg=0.5)
    error = np.abs(found.c_transform(atoms) - exact).max()
    assert 0.0 < error < 1e-5
    numpy_kernel(type("Rough", (SingleProduct,), {"rounding_unit": 1e-14}))
    with pytest.raises(ValueError, match=r"kernel Rough: .* received one that differs"):
        build_target(atoms).kernel.cache()


def test_kernel_is_registered_as_a_class_or_what_makes_it(numpy_kernel):
    for load in (NumpyKernel, lambda: NumpyKernel):
        numpy_kernel(load)
        assert build_target(np.eye(2)).kernel is NumpyKernel
    with pytest.raises(
        TypeError, match="expected a subclass of Kernel or a function, received the class"
    ):
        numpy_kernel(dict)
    with pytest.raises(
        TypeError, match=r"kernel of 'numpy': .*, received Kernel, which lacks hard, soft"
    ):
        numpy_kernel(Kernel)
    with pytest.raises(ValueError, match=r"backend: expected one of .*'numpy'.*, received 'NumPy'"):
        register_kernel("NumPy", NumpyKernel)
    for wrong, words in ((3, r"int \(3\)"), (None, "NoneType")):
        numpy_kernel(lambda wrong=wrong: wrong)
        with pytest.raises(TypeError, match=f"kernel of 'numpy': expected .*, received {words}"):
            build_target(np.eye(2)).kernel.cache()


def test_kernel_that_overflows_is_named(numpy_kernel, rng):
    """What is not finite was said of the costs, or could not be converted to an integer."""

    class Late(GenericKernel):
        def soft(self, scores, source_term):
            block = super().soft(scores, source_term)
            block.c_transform = block.c_transform + np.where(len(scores) > 20, np.inf, 0.0)
            return block

    numpy_kernel(Late)
    with pytest.raises(
        ValueError, match="kernel Late: expected finite c-transforms at the source points"
    ):
        ps.solve_semidiscrete(rng.normal(size=(20, 3)), "normal", reg=0.5, random_state=0)


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


class Doubling(StoppingRule):
    """Looks whenever the samples have doubled, until its standard error is small."""

    n_points = 20_000

    def __init__(self, stderr=0.0, corrects=False):
        super().__init__()
        self.stderr, self.corrects, self.next = stderr, corrects, 1000

    def budget(self, most, n_atoms):
        return most

    def is_due(self, dual, ascent, n_samples, is_last):
        return is_last or (ascent.samples > 0 and n_samples >= self.next)

    def is_met(self, found):
        return found.look_bound < 0.1 and found.chi2_stderr <= self.stderr

    def wait(self, found, n_samples):
        self.next = 2 * n_samples

    def prefers_correction(self, n_samples):
        return self.corrects


def drawn(draws):
    """A normal source that notes how much it is asked for."""
    rng = np.random.default_rng(0)
    return lambda n: draws.append(n) or rng.normal(size=(n, 2))


def test_a_run_is_corrected_at_its_end_whatever_its_start_was(rng, monkeypatch):
    """A rule that is never due looks at the start of a run, and at nothing else."""
    never = type("Never", (Doubling,), {"is_due": lambda self, *facts: False})
    calls, atoms = counted(monkeypatch, Solver, "correct"), rng.normal(size=(30, 2))
    options = {"reg": 0.2, "tol": never(), "max_iter": 40, "random_state": 0}
    start = ps.solve_semidiscrete(atoms, "normal", **options | {"tol": 0.0}).potential
    for potential in (None, start):
        calls.clear()
        with pytest.warns(ps.SemiDiscreteWarning, match="before Never was met"):
            result = ps.solve_semidiscrete(atoms, "normal", init_potential=potential, **options)
        assert (len(result.log["check_chi2"]) > 0) == (potential is not None)
        assert calls == [True]


def test_look_takes_no_more_points_than_there_were_samples(rng):
    """And 1024 at least, whatever the rule wants; they serve the ascent from then on."""
    atoms, sizes, draws = rng.normal(size=(10, 2)), [], []

    class Watched(Doubling):
        def note(self, n_iter, found):
            sizes.append(found.n)
            return super().note(n_iter, found)

    with pytest.warns(ps.SemiDiscreteWarning, match="before Watched was met"):
        result = ps.solve_semidiscrete(atoms, drawn(draws), reg=0.5, tol=Watched(), max_iter=200)
    looks = result.log["check_n_iter"]
    assert len(looks) >= 4
    for n, n_iter in zip(sizes, looks, strict=True):
        wanted = max(min(20_000, 256 * n_iter), 1024)
        assert 0.9 * wanted <= n < wanted + 512  # whole batches
    # 200 batches are drawn, and points of the last looks and the estimate: those of others serve steps
    ends = dict(zip(looks, 256 * looks + np.array(sizes), strict=True))
    beyond = sum(max(end - 256 * 200, 0) for end in ends.values())
    assert sum(draws) == result.n_samples < 256 * 200 + beyond + 5000 < 256 * 200 + sum(sizes)


def test_rule_on_a_standard_error(rng):
    """Its points by a property that follows the effective number of atoms."""

    class Precise(Doubling):
        @property
        def n_points(self):
            chi2 = 0.1
            a, b = 4.0 * chi2 / self.stderr**2, (2.0 * self.n_eff) ** 0.5 / self.stderr
            return a + b

    atoms, rule = rng.normal(size=(10, 2)), Precise(0.005)
    result = ps.solve_semidiscrete(atoms, "normal", reg=0.5, tol=rule, random_state=0)
    assert result.converged
    assert result.chi2_stderr <= 0.005
    assert rule.history == []
    log = result.log
    assert len(log["check_chi2"]) == len(log["check_n_iter"]) == len(log["check_chi2_stderr"]) > 0
    assert log["check_chi2_stderr"][-1] == result.chi2_stderr


def test_rule_may_prefer_a_correction(rng, monkeypatch):
    """By default it draws on: Newton's method runs at the end only."""
    atoms, passes = rng.normal(size=(30, 2)), []
    monkeypatch.setattr(StoppingRule, "corrected", lambda self, n: passes.append(n))
    counts = []
    for corrects in (False, True):
        passes.clear()
        with pytest.warns(ps.SemiDiscreteWarning):
            ps.solve_semidiscrete(
                atoms, "normal", reg=0.1, tol=Doubling(0.0, corrects), max_iter=100, random_state=0
            )
        counts.append(len(passes))
    assert counts[0] <= 1
    assert counts[1] >= 4


@pytest.mark.parametrize(
    ("member", "wrong", "error", "words"),
    [
        ("is_met", lambda self, found: None, TypeError, "expected True or False, received NoneType"),
        ("is_met", lambda self, found: found.chi2, TypeError, "expected True or False, received float"),
        ("is_due", lambda self, *facts: None, TypeError, "expected True or False, received NoneType"),
        ("is_stalled", property(lambda self: 0.5), TypeError, "expected True or False, received float"),
        ("n_points", "many", TypeError, "expected a real number, received str"),
        ("n_points", lambda self: 20, TypeError, "expected a real number, received function|method"),
        ("n_points", -5, ValueError, "expected a finite number above 0, received -5"),
        ("n_points", np.nan, ValueError, "expected a finite number above 0, received nan"),
        (
            "budget",
            lambda self, most, n_atoms: None,
            TypeError,
            "expected a real number, received NoneType",
        ),
        (
            "budget",
            lambda self, most, n_atoms: 0,
            ValueError,
            "expected a finite number above 0, received 0",
        ),
    ],
)
def test_answers_of_a_rule_are_checked(member, wrong, error, words, rng):
    """What `is_met` returned was taken for True or False, and other errors came from inside."""
    rule = type("Wrong", (Doubling,), {member: wrong})()
    with pytest.raises(error, match=rf"^tol: {member} of Wrong: {words}"):
        ps.solve_semidiscrete(rng.normal(size=(10, 2)), "normal", reg=0.5, tol=rule, random_state=0)


@pytest.mark.parametrize(("tol", "words"), [("chi2", "str"), (Doubling, "the class Doubling")])
def test_what_is_no_tolerance_is_refused(tol, words):
    with pytest.raises(
        TypeError, match=f"a real number or an instance of StoppingRule, received {words}"
    ):
        ps.solve_semidiscrete(np.eye(2), "normal", tol=tol)


def test_rule_that_leaves_out_what_its_base_does_is_refused():
    class Rootless(FixedSamples):
        def __init__(self):
            self.next = 0

    with pytest.raises(TypeError, match=r"received Rootless without; call super\(\).__init__"):
        ps.solve_semidiscrete(np.eye(2), "normal", tol=Rootless())


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
    assert issubclass(target.kernel, tuple(load() for load in known(registered_kernels())))
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
def test_law(name, nx):
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
    assert first.is_quasi_random == (type(first).independent is not Sampler.independent)
    assert first.independent(10).shape == (10, D)
    assert first.independent(10).dtype == like.dtype


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
    assert resolve_source(sampler, target.atoms, None) is sampler
    assert isinstance(resolve_source("normal", target.atoms, 0), NormalSampler)
    with pytest.raises(TypeError, match="expected a subclass of Law"):
        register_law("dict")(dict)
    with pytest.raises(TypeError, match="expected names"):
        register_law(Shifted)


class Scaled(NormalSampler):
    """With an argument of its own."""

    def __init__(self, scale):
        self.scale = scale


class Rootless(NormalSampler):
    """It leaves out what its base does."""

    def __init__(self, dimension, random):
        self.scale = dimension


def test_law_that_cannot_be_drawn_is_refused(nx64, rng):
    """Its errors came from inside the package."""
    atoms = nx64.array(rng.normal(size=(10, 2)))
    with pytest.raises(TypeError, match=r"made by Scaled\(dimension, random\), received another"):
        register_law("scaled")(Scaled)
    with pytest.raises(TypeError, match="received Silent without"):
        register_law("silent")(type("Silent", (Law,), {}))
    register_law("rootless")(Rootless)
    for source, word in (
        (NormalSampler, "received the class NormalSampler; give the name by which"),
        (Sampler, "received the class Sampler; give an instance"),
        (Scaled(2.0), "received one with random NoneType; give its name"),
        (NormalSampler(2, rng), "received one with random Generator; give its name"),
        ("rootless", r"received one with random NoneType.*super\(\).__init__"),
    ):
        with pytest.raises(TypeError, match=rf"^sampler_source: expected .*{word}"):
            ps.solve_semidiscrete(atoms, source, reg=0.5)


def test_sequence_of_scipy_is_refused(rng):
    """It was taken for a law, which it is not: of independent points it tells nothing."""
    with pytest.raises(ValueError, match=r"^sampler_source: expected a callable .*, received Halton"):
        ps.solve_semidiscrete(rng.normal(size=(10, 2)), qmc.Halton(2), reg=0.5)


def test_law_with_a_parameter_is_a_class_for_each_value(nx64):
    target = build_target(nx64.array(np.eye(2)))
    for scale in (1.0, 3.0):
        draw = lambda self, n: self.scale * NormalSampler.__call__(self, n)
        law = type(f"Normal{scale}", (NormalSampler,), {"scale": scale, "__call__": draw})
        register_law(f"normal {scale}")(law)
        points = nx64.host(resolve_source(f"normal {scale}", target.atoms, 0)(4000))
        assert points.std() == pytest.approx(scale, rel=0.05)


@pytest.mark.parametrize("rate", [1.0, 0.3, 0.0])
def test_run_is_stalled_where_chi2_does_not_fall(rate, rng):
    """The noise of looks stops no run that is only slow."""
    rule = ChiSquareRule(0.01)
    for k in range(12):
        n = 1000.0 * 2.0**k
        rule.wait(Look(n**-rate + 0.1 * rng.normal() * n**-rate, 0.1 * n**-rate, n_eff=10.0), n)
        assert rule.is_stalled == (rate == 0.0 and k >= 4)


@pytest.mark.parametrize("name", RULES)
def test_stopping_rule(name, rng):
    rule = RULES[name](0.1, 0.0)
    dual = SemiDual(build_target(rng.normal(size=(20, 2))))
    zero = 0.0 * dual.target.weights
    assert 0.0 < rule.budget(1000.0, 20) <= 1000.0
    assert not rule.is_due(dual, AscentState(zero, zero, 1.0), 0.0, False)
    look = lambda chi2: Look(chi2, 0.0, chi2, 0.0, n_eff=10.0, n=100)
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
