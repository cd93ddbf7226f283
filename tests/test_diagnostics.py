"""Does the gradient exist? Verdicts on the counterexamples and on densities; the theorem itself."""

import functools
import re
import warnings
from collections import namedtuple

import numpy as np
import pytest

import pot_semidiscrete as ps
from pot_semidiscrete import (
    SemiDiscreteWarning,
    generator_gradient,
    gradient_diagnostics,
    one_sided_derivatives,
    train_parameters,
)
from pot_semidiscrete.diagnostics import ROUGH
from tests.backends import Backend

PAIR = np.array([[1.0, 0.0], [-1.0, 0.0]])
LINE = np.array([[-1.0], [1.0]])


def two_points(theta):
    """First counterexample: the kink is at 0."""
    return np.array([[theta, 1.0], [-theta, -1.0]])


def optimal_on_line(theta):
    """Second counterexample: potential of one point, which every optimal one ties."""
    return np.array([(theta + 1.0) ** 2, (theta - 1.0) ** 2]) - theta**2 - 1.0


def segment(n=400, offset=0.0):
    """Points of the bisector of the pair, or beside it."""
    height = np.random.default_rng(0).uniform(-1.0, 1.0, n)
    return np.stack([np.full(n, offset), height], axis=1)


COUNTEREXAMPLES = {
    "kink": (PAIR, two_points(0.0), np.zeros(2)),
    "smooth cost": (LINE, np.array([[0.37]]), optimal_on_line(0.37)),
    "segment": (PAIR, segment(), np.zeros(2)),
    "a fifth on the bisector": (
        PAIR,
        np.concatenate([segment(100), np.random.default_rng(1).uniform(-1, 1, (400, 2))]),
        np.zeros(2),
    ),
}


def diagnose(nx, atoms, points, potential, *options, **more):
    """The diagnosis of arrays of a backend."""
    return gradient_diagnostics(nx.array(atoms), nx.array(points), nx.array(potential), *options, **more)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("name", COUNTEREXAMPLES)
def test_counterexamples_are_undefined(name, scale, nx):
    atoms, points, potential = COUNTEREXAMPLES[name]
    found = diagnose(nx, scale * atoms, scale * points, scale**2 * potential)
    assert found.verdict == "undefined"
    assert found.tied_mass == pytest.approx(0.2 if "fifth" in name else 1.0)
    assert found.density == found.roughness == np.inf
    assert found.n_groups == 1
    assert found.max_jump == pytest.approx(4.0 * scale, rel=1e-5)


@pytest.mark.parametrize("name", COUNTEREXAMPLES)
def test_regularised_counterexamples_are_fine(name, nx64):
    found = diagnose(nx64, *COUNTEREXAMPLES[name], reg=0.5)
    assert found.verdict == "fine"
    assert found.tied_mass == pytest.approx(0.2 if "fifth" in name else 1.0)  # the points have not moved


def test_counterexample_moved_is_undefined(nx):
    """Far from the origin the points are rounded, which must not hide the ties."""
    shift = np.array([300.3, -70.7])
    atoms, points = PAIR + shift, segment(4000) + shift
    assert diagnose(nx, atoms, points, np.zeros(2)).verdict == "undefined"


@pytest.mark.parametrize("error", [1e-6, 1e-3, 0.03, 0.3])
def test_potential_near_the_optimum_of_a_segment_is_at_risk(error, nx):
    """Whatever its error, and whatever units: no mass ties, but it is near, or on one side."""
    for scale in (1.0, 1e4):
        potential = scale**2 * error * np.array([1.0, -1.0])
        found = diagnose(nx, scale * PAIR, scale * segment(), potential)
        assert found.verdict == ("undefined" if error < 8 * nx.eps else "at risk")
        assert (found.roughness > ROUGH) == (error < 8e-3)
        assert "potential" in str(found.reasons) or error < 8 * nx.eps


@pytest.mark.parametrize("seed", range(3))
def test_potential_of_the_solver_on_a_segment_is_undefined(seed):
    """Half of the mass ties, to rounding or to what the run has left."""
    rng = np.random.default_rng(seed)
    source = lambda n: np.stack([np.zeros(n), rng.uniform(-1.0, 1.0, n)], axis=1)
    atoms = np.array([[1.0, 0.2], [-1.0, 0.2], [0.3, 2.0]])
    result = ps.solve_semidiscrete(atoms, source, np.array([0.3, 0.2, 0.5]), tol=0, max_iter=100)
    found = result.diagnose(source(2000))
    assert found.verdict == "undefined"
    assert abs(result.potential[0] - result.potential[1]) < 1e-7


@functools.cache
def density(dimension, stretch=1.0):
    """Atoms of the image of a normal law by a stretch, points of the law, and a solved potential."""
    rng = np.random.default_rng(dimension)
    atoms = stretch * rng.normal(size=(30, dimension)) + 3.0
    source = lambda n: rng.normal(size=(n, dimension))
    result = ps.solve_semidiscrete(atoms, source, tol=0, max_iter=150)
    points = source(4000)
    assert result.diagnose(points) == gradient_diagnostics(atoms, points, result.potential)
    return atoms, points, result.potential


@pytest.mark.parametrize("dimension", [1, 2, 8])
def test_a_density_is_fine(dimension, nx):
    found = diagnose(nx, *density(dimension))
    assert (found.verdict, found.reasons) == ("fine", ())
    assert found.tied_mass == found.tied_mass_stderr == found.empty_cells == 0
    assert found.n_groups == 1
    # the transport of a law to its own sample moves a shift as it is
    assert found.roughness == pytest.approx(1.0, rel=0.35)


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**10])
def test_nothing_depends_on_the_scale(scale, nx):
    atoms, points, potential = density(2)
    found = diagnose(nx, atoms, points, potential)
    other = diagnose(nx, scale * atoms, scale * points, scale**2 * potential)
    assert other.verdict == found.verdict
    assert other.density * scale == pytest.approx(found.density, rel=1e-3)
    assert other.mean_jump == pytest.approx(found.mean_jump * scale, rel=1e-3)
    assert other.roughness == pytest.approx(found.roughness, rel=1e-3)
    soft = [
        diagnose(nx, s * atoms, s * points[:500], s**2 * potential, reg=0.1 * s**2) for s in (1.0, scale)
    ]
    assert soft[0].smoothness == pytest.approx(soft[1].smoothness, rel=1e-3)


def test_a_source_far_narrower_than_the_target_is_at_risk(nx64):
    """The map stretches 100 times: so does the gradient change."""
    found = diagnose(nx64, *density(1, stretch=100.0))
    assert found.verdict == "at risk"
    assert found.roughness == pytest.approx(100.0, rel=0.35)


@pytest.mark.parametrize("n", [1000, 100_000])
def test_density_at_the_boundary_has_its_error(n):
    """Two atoms and a uniform law on a square of side 2: half of the mass is within 1/2, density 1."""
    errors = []
    for seed in range(20):
        points = np.random.default_rng(seed).uniform(-1.0, 1.0, size=(n, 2))
        found = gradient_diagnostics(PAIR, points, np.zeros(2))
        errors.append((found.density - 1.0) / found.density_stderr)
        assert found.mean_jump == found.max_jump == pytest.approx(4.0)
        assert found.roughness == pytest.approx(found.density)  # J / (2 unit) = 1
    assert abs(np.mean(errors)) < 3.0 / 20**0.5
    assert 0.6 < np.std(errors) < 1.6


def test_smoothness_is_the_norm_of_the_second_derivative(nx64):
    """Closed form for the squared distance: ``2 I - (4 / reg) Cov_chi(y)``."""
    rng = np.random.default_rng(0)
    atoms, points, potential = rng.normal(size=(9, 3)), rng.normal(size=(30, 3)), rng.normal(size=9)
    for reg in (0.01, 1.0, 30.0):
        found = diagnose(nx64, atoms, points, potential, reg=reg)
        norms = []
        for chi in ps.semidiscrete_atom_weights(atoms, points, potential, reg=reg):
            covariance = np.cov(atoms.T, aweights=chi, ddof=0)
            norms.append(np.linalg.norm(2.0 * np.eye(3) - 4.0 / reg * covariance, 2))
        assert found.smoothness == pytest.approx(max(norms), rel=0.02)
        assert found.mean_smoothness == pytest.approx(np.mean(norms), rel=0.02)
        assert found.step == 2.0 / found.smoothness


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_smoothness_of_other_metrics(metric, nx64):
    """Against differences of the gradient."""
    rng = np.random.default_rng(0)
    atoms, points, potential = (
        rng.normal(size=(9, 2)),
        rng.normal(size=(30, 2)),
        0.1 * rng.normal(size=9),
    )
    gradient = lambda x: ps.semidiscrete_gradient(atoms, x, potential, metric=metric, reg=0.2)
    columns = [(gradient(points + h) - gradient(points - h)) / 2e-5 for h in 1e-5 * np.eye(2)]
    norms = np.linalg.norm(np.stack(columns, axis=-1), 2, axis=(1, 2))
    found = diagnose(nx64, atoms, points, potential, metric=metric, reg=0.2)
    assert found.smoothness == pytest.approx(norms.max(), rel=0.02)
    assert found.mean_smoothness == pytest.approx(norms.mean(), rel=0.02)


def test_any_step_lowers_a_transform_without_curvature():
    """Left of all atoms it is a constant less x: its second derivative is 0, by all differences."""
    atoms, x = np.array([[0.0], [1.0]]), np.linspace(-3.0, -2.0, 20)[:, None]
    found = gradient_diagnostics(atoms, x, np.zeros(2), metric="cityblock", reg=0.1)
    assert found.smoothness == 0.0
    assert found.step == np.inf
    assert "smoothness, longest step    0, inf" in str(found)


@pytest.mark.parametrize("length", [0.9, 1.1])
def test_the_step_is_what_descent_bears(length):
    """Each point at the bisector, where the transform is most curved: beyond ``step`` it diverges."""
    x = np.array([[1e-6, 0.0]])
    found = gradient_diagnostics(PAIR, x, np.zeros(2), reg=0.5)
    step = length * found.step  # the second derivative there is 2 - 4 / reg = -6
    moved = x - step * ps.semidiscrete_gradient(PAIR, x, np.zeros(2), reg=0.5)
    value = lambda x: float(ps.semidiscrete_c_transform(PAIR, x, np.zeros(2), reg=0.5)[0])
    assert found.smoothness == pytest.approx(6.0, rel=1e-4)
    assert value(moved) < value(x)


def test_small_reg_behaves_as_none(nx64):
    rng = np.random.default_rng(0)
    square = rng.uniform(-1.0, 1.0, size=(2000, 2))
    tiny = diagnose(nx64, PAIR, square, np.zeros(2), reg=1e-6)
    assert tiny.verdict == "fine"
    assert "as at reg = 0" in tiny.notes[0]
    assert not diagnose(nx64, PAIR, square, np.zeros(2), reg=0.5).notes
    # on the bisector the gradient exists, and no step bears it
    edge = diagnose(nx64, PAIR, segment(), np.zeros(2), reg=1e-6)
    assert edge.verdict == "at risk"
    assert edge.step == pytest.approx(2.0 / (4.0 / 1e-6 - 2.0), rel=1e-3)
    # beside it, the points are assigned as at 0, and as near the boundary
    beside = diagnose(nx64, PAIR, segment(offset=1e-4), np.zeros(2), reg=1e-6)
    assert beside.verdict == "at risk"
    assert "boundaries" in beside.reasons[0]


def test_atoms_at_one_place_tie_in_vain(nx):
    """Two at each place: their ties do not count, those of the places do."""
    square = np.random.default_rng(0).uniform(-1.0, 1.0, size=(2000, 2))
    twice = np.repeat(PAIR, 2, axis=0)
    for reg in (0.0, 0.3):
        found = diagnose(nx, twice, square, np.zeros(4), reg=reg)
        once = diagnose(nx, PAIR, square, np.zeros(2), reg=reg)
        assert found.verdict == "fine"
        assert found.density == pytest.approx(once.density, rel=1e-3)
        assert found.smoothness == pytest.approx(once.smoothness, rel=1e-3)
    assert diagnose(nx, twice, segment(), np.zeros(4)).verdict == "undefined"
    assert diagnose(nx, np.zeros((3, 2)), square, np.zeros(3)).verdict == "fine"


@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_one_atom_is_fine(reg, nx):
    found = diagnose(nx, PAIR[:1], segment(), np.zeros(1), reg=reg)
    assert (found.verdict, found.density, found.n_groups, found.notes) == ("fine", 0.0, 1, ())


def test_atoms_without_weight_do_not_count(nx):
    atoms = np.concatenate([PAIR, [[0.0, 0.0]]])
    weights = nx.array([0.5, 0.5, 0.0])
    assert diagnose(nx, atoms, segment(), np.zeros(3), weights).verdict == "undefined"
    assert diagnose(nx, atoms, segment(), np.zeros(3)).verdict != "undefined"


def test_empty_cells_and_wrong_masses(nx):
    square = np.random.default_rng(0).uniform(-1.0, 1.0, size=(2000, 2))
    empty = diagnose(nx, PAIR, square, np.array([100.0, 0.0]))
    assert (empty.verdict, empty.empty_cells) == ("at risk", 1)
    wrong = diagnose(nx, PAIR, square, np.array([2.8, 0.0]))  # masses 0.85 and 0.15
    assert (wrong.verdict, wrong.empty_cells) == ("at risk", 0)
    assert wrong.marginal_error == pytest.approx(0.7, abs=0.05)
    assert "masses are wrong" in wrong.reasons[0]


def test_groups_of_cells_that_are_apart(nx):
    """Two far supports: one constant each. The gap is seen for points, and not made up for a density."""
    rng = np.random.default_rng(0)
    side = np.where(np.arange(4000) % 2, 10.0, -10.0)[:, None]
    points, atoms = rng.normal(size=(4000, 2)), rng.normal(size=(60, 2))
    centre = np.where(np.arange(60) % 2, 10.0, -10.0)[:, None]
    together = diagnose(nx, atoms, points, np.zeros(60))
    apart = diagnose(nx, atoms + centre, points + side, np.zeros(60))
    assert (together.n_groups, apart.n_groups) == (1, 2)
    assert "2 groups" in apart.notes[-1]
    # two atoms, and a gap between two halves of a square
    square = rng.uniform(-1.0, 1.0, size=(2000, 2))
    halves = square + np.where(square[:, :1] > 0, 1.0, -1.0)
    assert diagnose(nx, PAIR, square, np.zeros(2)).n_groups == 1
    assert diagnose(nx, PAIR, halves, np.zeros(2)).n_groups == 2


@pytest.mark.parametrize("n", [1, 2, 3, 5, 17])
@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_few_points_and_many_atoms(n, reg, nx):
    rng = np.random.default_rng(0)
    found = diagnose(nx, rng.normal(size=(30, 3)), rng.normal(size=(n, 3)), np.zeros(30), reg=reg)
    assert found.tied_mass == 0.0
    assert found.n_samples == n
    assert found.n_groups == 1


def test_cells_finer_than_rounding_are_told():
    """A uniform line of 10,000 atoms, 2 points for each: fine, no gap made up; float32 cannot see it."""
    n, points = 10_000, np.random.default_rng(0).random((20_000, 1))
    atoms = ((np.arange(n) + 0.5) / n)[:, None]
    found = gradient_diagnostics(atoms, points, np.zeros(n))
    assert (found.verdict, found.n_groups, found.notes) == ("fine", 1, ())
    assert found.density == pytest.approx(2.0 * n, rel=0.15)
    single = (a.astype(np.float32) for a in (atoms, points, np.zeros(n)))
    assert "float64" in str(gradient_diagnostics(*single).notes)


def test_report_is_readable():
    text = str(gradient_diagnostics(PAIR, segment(), np.zeros(2)))
    assert text.startswith("undefined: ")
    assert "100% of the mass lies on cell boundaries, where the gradient jumps by 4" in text
    assert "longest step" in str(gradient_diagnostics(PAIR, segment(), np.zeros(2), reg=0.5))


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="X_source"):
        gradient_diagnostics(PAIR, np.zeros((3, 1)), np.zeros(2))
    with pytest.raises(ValueError, match="semi_dual_potential"):
        gradient_diagnostics(PAIR, segment(), np.zeros(3))
    with pytest.raises(TypeError, match="gradient in the source points is not known"):
        gradient_diagnostics(PAIR, segment(), np.zeros(2), metric="chebyshev")


def turn(theta, z):
    """Generator of the first counterexample, latent points of +1 and -1."""
    return theta * z[:, None] * np.array([1.0, 0.0]) + z[:, None] * np.array([0.0, 1.0])


def kink(theta, reg=0.0, **options):
    """Derivatives of the first counterexample at theta."""
    one = np.ones(1)
    return one_sided_derivatives(turn, theta * one, one, np.array([1.0, -1.0]), PAIR, reg=reg, **options)


def test_first_counterexample_has_two_derivatives():
    """``W_0 = (|theta| - 1)^2 + 1``."""
    found = kink(0.0)
    assert found.kink
    assert found.left == pytest.approx(2.0, abs=1e-9)
    assert found.right == pytest.approx(-2.0, abs=1e-9)
    away = kink(0.3)
    assert not away.kink
    assert away.left == pytest.approx(-1.4, abs=1e-9)


@pytest.mark.parametrize("reg", [1.0, 0.1, 0.01, 1e-4])
@pytest.mark.parametrize("theta", [0.0, 0.3])
def test_regularised_counterexample_has_one(theta, reg):
    """And formula (G), where every optimal potential is 0 by symmetry, gives it."""
    found = kink(theta, reg)
    vjp = lambda theta, z, c: (c[:, :1] * z[:, None]).sum(axis=0)
    z = np.array([1.0, -1.0])
    _, gradient = ps.generator_gradient(turn, np.full(1, theta), z, PAIR, np.zeros(2), reg=reg, vjp=vjp)
    assert not found.kink
    assert abs(found.jump) < 1e-3
    for side, error in ((found.left, found.left_error), (found.right, found.right_error)):
        assert side == pytest.approx(gradient[0], abs=3.0 * error + 1e-9)
        assert error < 1e-3


def test_second_counterexample_is_smooth_and_the_formula_is_wrong():
    """``W_0 = theta^2 + 1``; (G) gives ``2 (theta -+ 1)``, whichever cell is chosen."""
    theta, z, one = np.array([0.37]), np.zeros((1, 1)), np.ones(1)
    translation = lambda theta, z: z + theta
    found = one_sided_derivatives(translation, theta, one, z, LINE)
    assert not found.kink
    assert found.left == pytest.approx(0.74, abs=1e-9)
    vjp = lambda theta, z, c: c.sum(axis=0)
    for side in (-1.0, 1.0):
        potential = optimal_on_line(0.37) + np.array([0.0, side * 1e-9])
        gradient = ps.generator_gradient(translation, theta, z, LINE, potential, vjp=vjp)[1]
        assert gradient[0] == pytest.approx(0.74 - 2.0 * side, abs=1e-6)
    regularised = ps.generator_gradient(
        translation, theta, z, LINE, optimal_on_line(0.37), reg=0.1, vjp=vjp
    )
    assert regularised[1][0] == pytest.approx(0.74, abs=1e-9)


def translated(nx, reg, seed=0, **options):
    """Derivative along a shift less ``2 <theta + E Z - ybar, v>``, the mean of the law being 0."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(160, 2))
    atoms, theta, v = rng.normal(size=(10, 2)), np.array([0.3, -0.2]), np.array([1.0, 0.5])
    arrays = (nx.array(a) for a in (theta, v, z, atoms))
    found = one_sided_derivatives(lambda theta, z: z + theta, *arrays, reg=reg, **options)
    assert not found.kink
    slope = 2.0 * (theta - atoms.mean(axis=0)) @ v
    return found, found.left - slope, slope + 2.0 * z.mean(axis=0) @ v


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**20])
def test_derivatives_know_no_unit(scale):
    """``2 s^2 <theta + E Z - ybar, v>``, of a linear program whose costs are as small as that."""
    rng = np.random.default_rng(0)
    z, atoms, theta, v = rng.normal(size=(200, 2)), rng.normal(size=(20, 2)), np.zeros(2), np.ones(2)
    found = one_sided_derivatives(lambda theta, z: scale * (z + theta), theta, v, z, scale * atoms)
    slope = 2.0 * scale**2 * (z.mean(axis=0) - atoms.mean(axis=0)) @ v
    for side, error in ((found.left, found.left_error), (found.right, found.right_error)):
        assert side == pytest.approx(slope, rel=1e-6)
        assert error < 1e-6 * scale**2


@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_derivative_of_a_translation(reg, nx):
    found, _, sample = translated(nx, reg)
    for side, error in ((found.left, found.left_error), (found.right, found.right_error)):
        assert side == pytest.approx(sample, abs=error)
        assert error < (1e-6 if nx.dtype == "float64" else 0.05)


@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_statistical_error_of_one_sided_derivatives(reg):
    """The errors of a dozen samples are what is claimed; the two sides share them."""
    errors = []
    for seed in range(12):
        found, error, _ = translated(Backend("numpy", "float64"), reg, seed, n_batches=8)
        errors.append(error / found.left_error)
        assert found.jump_error < 1e-6
    assert 0.3 < np.std(errors) < 2.5


@pytest.mark.parametrize("reg", [0.0, 0.1, 1.0])
def test_kinks_of_a_generator_are_none_of_the_cost(reg):
    """Points of a ReLU network that cross one of its kinks within the steps of the differences."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        theta = [rng.normal(size=(2, 16)), 0.5 * rng.normal(size=16), rng.normal(size=(16, 2)) / 4.0]
        direction = [rng.normal(size=part.shape) for part in theta]
        z, atoms = rng.normal(size=(400, 2)), rng.normal(size=(20, 2))
        network = lambda theta, z: np.maximum(z @ theta[0] + theta[1], 0.0) @ theta[2]
        found = one_sided_derivatives(network, theta, direction, z, atoms, reg=reg)
        assert not found.kink
        assert found.jump_error < 0.1 * max(abs(found.left), abs(found.right))


@pytest.mark.parametrize("number", [float, np.float64, np.float32, np.array])
def test_a_parameter_that_is_a_number(number, nx64):
    """A translation in the line: the derivative is that of `generator_gradient`, 2 (theta + mean)."""
    z, atoms = nx64.array([[1.0], [3.0], [4.0]]), nx64.array([[0.0]])
    translation = lambda theta, z: z + theta
    theta, one = (number(v) if number is not np.array else nx64.array(v) for v in (0.5, 1.0))
    for reg in (0.0, 0.3):
        found = one_sided_derivatives(translation, theta, one, z, atoms, reg=reg)
        assert not found.kink
        assert found.left == pytest.approx(2.0 * (0.5 + 8.0 / 3.0), abs=1e-6)
    vjp = None if nx64.differentiates else lambda theta, z, cotangent: float(cotangent.sum())
    psi = nx64.array(np.zeros(1))
    _, gradient = generator_gradient(translation, theta, z, atoms, psi, reg=0.3, vjp=vjp)
    assert tuple(gradient.shape) == ()
    assert float(gradient) == pytest.approx(2.0 * (0.5 + 8.0 / 3.0))
    result = train_parameters(
        translation,
        theta,
        lambda n: z,
        atoms,
        reg=0.3,
        vjp=vjp,
        n_steps=1,
        batch_size=3,
        learning_rate=0.1,
    )  # Adam's first step has the length of the learning rate
    assert float(result.theta) == pytest.approx(0.4)


def test_parameters_of_several_arrays_and_errors_of_one_sided_derivatives():
    z, atoms = np.random.default_rng(0).normal(size=(20, 2)), PAIR
    generator = lambda t, z: z @ t["matrix"] + t["shift"]
    theta = {"matrix": np.eye(2), "shift": np.zeros(2)}
    v = {"matrix": np.zeros((2, 2)), "shift": np.array([1.0, 0.0])}
    found = one_sided_derivatives(generator, theta, v, z, atoms, reg=0.5)
    assert found.left == pytest.approx(2.0 * z.mean(axis=0)[0], abs=1e-6)
    named = namedtuple("Parameters", "matrix shift")
    same = one_sided_derivatives(
        lambda t, z: generator(t._asdict(), z), named(**theta), named(**v), z, atoms, reg=0.5
    )
    assert same == found
    with pytest.raises(ValueError, match="direction: expected the shape"):
        one_sided_derivatives(generator, theta, {"matrix": np.eye(3), "shift": np.zeros(2)}, z, atoms)
    with pytest.raises(TypeError, match="theta: expected an array, or a list"):
        one_sided_derivatives(generator, theta | {"shift": object()}, v | {"shift": 1.0}, z, atoms)
    found = one_sided_derivatives(generator, theta | {"shift": 0}, v | {"shift": 1.0}, z, atoms, reg=0.5)
    assert found.right == pytest.approx(2.0 * z.mean(axis=0).sum(), abs=1e-6)
    still = {"matrix": np.zeros((2, 2)), "shift": np.zeros(2)}
    with pytest.raises(ValueError, match="does not"):
        one_sided_derivatives(generator, theta, still, z, atoms)
    with pytest.raises(ValueError, match="n_batches"):
        one_sided_derivatives(generator, theta, v, z, atoms, n_batches=11)


def train(reg, n_steps=3, offset=0.0, lr=1e-9, atoms=PAIR, **options):
    """A segment generator of one number, on the bisector of two atoms of the data or beside it."""
    torch = pytest.importorskip("torch")
    from pot_semidiscrete.generative import SemiDiscreteLoss, train_generator

    place = torch.nn.Parameter(torch.tensor(offset))
    random = torch.Generator().manual_seed(0)
    latent = lambda n: torch.rand(n, 1, generator=random) * 2.0 - 1.0
    generator = lambda z: torch.cat([place + 0.0 * z, z], dim=1)
    loss = SemiDiscreteLoss(torch.tensor(np.array(atoms), dtype=torch.float32), reg=reg)
    optimizer = torch.optim.SGD([place], lr=lr)
    return train_generator(generator, latent, loss, n_steps=n_steps, optimizer=optimizer, **options)


def test_training_without_reg_on_a_bisector_warns_once():
    with pytest.warns(SemiDiscreteWarning, match="mass lies") as caught:
        train(0.0)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "cost_scale" in str(caught[0].message)


@pytest.mark.parametrize("reuse", [1, 16])
@pytest.mark.parametrize("atoms", [PAIR, [*PAIR, [0.0, 3.0]]], ids=len)
def test_training_that_oscillates_warns_with_the_measured_mass(atoms, reuse):
    """The potential is always behind, and its own boundaries are elsewhere."""
    with pytest.warns(SemiDiscreteWarning, match="reg = 0") as caught:
        train(0.0, n_steps=80, offset=0.9, lr=0.05, atoms=atoms, reuse=reuse)
    assert len(caught) == 1
    text = str(caught[0].message)
    tied, near = re.search(r"([\d.]+)% of the mass lies", text), re.search(r", (\S+) per unit", text)
    assert float(tied[1]) > 10.0 if tied else float(near[1]) > 100.0


def test_continued_training_does_not_warn_again(tmp_path):
    found = []
    for n_steps in (3, 20):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            train(0.0, n_steps=n_steps, checkpoint=tmp_path / "run.pt")
        found.append(sum("mass lies" in str(warning.message) for warning in caught))
    assert found == [1, 0]


def test_segment_beside_three_atoms_is_undefined_at_a_solved_potential(nx64):
    """The boundary is as near to the segment as the solver came, which is not to rounding."""
    atoms, x = nx64.array(np.array([*PAIR, [0.0, 3.0]])), nx64.array(segment(4000, offset=0.1))
    result = ps.solve_semidiscrete(atoms, x, random_state=0, max_iter=300, tol=0)
    assert result.diagnose(x).verdict == "undefined"


@pytest.mark.parametrize("n", [4, 40])
def test_few_points_do_not_tell_whether_a_potential_is_unique(n, nx64):
    corners = np.array([[0.3, 1.0], [0.3, -1.0], [-0.3, 1.0], [-0.3, -1.0]])
    found = diagnose(nx64, PAIR, np.tile(corners, (n // 4, 1)), np.zeros(2))
    assert any("too few points" in note for note in found.notes)


def test_training_with_reg_does_not_warn():
    train(0.1)


def test_training_without_reg_on_a_density_does_not_warn():
    torch = pytest.importorskip("torch")
    from pot_semidiscrete.generative import SemiDiscreteLoss, train_generator

    torch.manual_seed(0)
    data = torch.randn(100, 2)
    generator = torch.nn.Linear(2, 2)
    train_generator(generator, 2, SemiDiscreteLoss(data, reg=0.0), n_steps=50, random_state=0)


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean", "cityblock", "cosine"])
@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_atoms_at_one_place_are_one_cell(reg, metric, nx):
    """Also where the mean of the weights, or of the atoms, is rounded."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        n = rng.integers(1, 9)
        atoms = nx.array(np.tile(rng.normal(size=(1, 3)), (n, 1)))
        weights = nx.array(rng.dirichlet(np.ones(n)))
        x, potential = nx.array(rng.normal(size=(100, 3))), nx.array(np.zeros(n))
        found = gradient_diagnostics(atoms, x, potential, weights, metric, reg)
        assert (found.verdict, found.reasons) == ("fine", ())
        assert found.tied_mass == found.mean_jump == 0.0
