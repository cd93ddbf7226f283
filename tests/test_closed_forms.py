"""The solver against problems whose answer is known.

Statistical tests are seeded; their thresholds are quantiles that a right solver exceeds with
probability below 1e-5.
"""

import functools

import numpy as np
import ot
import pytest
from scipy import stats

import pot_semidiscrete as ps
from benchmarks import problems, references, unregularised
from tests.backends import uncrossed


def normal_source(nx, seed, d, shift=0.0):
    """A standard normal sampler, moved."""
    rng = np.random.default_rng(seed)
    return lambda n: nx.array(rng.normal(size=(n, d)) + shift)


@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_one_atom(reg, nx):
    atom = np.array([[1.0, -2.0]])
    result = ps.solve_semidiscrete(nx.array(atom), "normal", reg=reg, max_iter=5, random_state=0)
    assert result.converged
    assert result.chi2 == pytest.approx(0.0, abs=nx.eps)
    assert float(result.potential[0]) == 0.0
    # E |X - y|^2 = d + |y|^2
    assert float(result.value) == pytest.approx(7.0, abs=5 * result.value_stderr)


@uncrossed
@pytest.mark.parametrize("relative_reg", [1e-2, 1e-1, 1.0])
@pytest.mark.parametrize("d", [1, 5, 50])
def test_gradient_of_a_translation(d, relative_reg, nx):
    """For ``g = z + theta``, grad W = 2 (theta + E Z - ybar) for every target and reg.

    One chi-square over the coordinates. The covariance of the estimate is that of the fresh
    samples, ``4 Cov(x - T(x)) / n``, plus that of the fit, ``4 Cov(T(x)) (4/3) / T``: the average
    of T samples with linear weights costs 4/3 of the limit.
    """
    rng = np.random.default_rng(1)
    atoms = rng.normal(size=(60, d)) * rng.uniform(0.5, 2.0, size=d) + 1.0
    theta = rng.normal(size=d)
    reg = relative_reg * ps.cost_scale(atoms)
    n_fit, n = 400 * 128, 10_000
    result = ps.solve_semidiscrete(
        nx.array(atoms),
        normal_source(nx, 2, d, theta),
        reg=reg,
        tol=0,
        max_iter=n_fit // 128,
        batch_size=128,
    )
    z = np.random.default_rng(3).normal(size=(n, d))
    _, gradient = ps.generator_gradient(
        lambda theta, z: z + theta,
        nx.array(theta),
        nx.array(z),
        nx.array(atoms),
        result.potential,
        reg=reg,
        vjp=(lambda theta, z, cotangent: cotangent.sum(0)) if not nx.differentiates else None,
    )
    image = nx.host(result.ot_map(nx.array(z + theta)))
    covariance = 4.0 * np.cov((z + theta - image).T).reshape(d, d) / n
    covariance += 4.0 * np.cov(image.T).reshape(d, d) * (4.0 / 3.0) / n_fit
    error = nx.host(gradient) - 2.0 * (theta - atoms.mean(axis=0))
    assert error @ np.linalg.solve(covariance, error) < stats.chi2.isf(1e-5, d)


@pytest.mark.parametrize("relative_reg", [0.0, 1e-2, 1.0])
def test_value_and_potential_of_a_translation(relative_reg, nx64):
    """W(theta) = W(0) + |theta|^2 + 2 <theta, E Z - ybar>; psi moves by -2 <theta, y> + const."""
    d, theta = 3, np.array([5.0, -2.0, 0.5])
    atoms = np.random.default_rng(1).normal(size=(40, d)) + 1.0
    reg = relative_reg * ps.cost_scale(atoms)
    results = [
        ps.solve_semidiscrete(
            nx64.array(atoms), normal_source(nx64, 2, d, shift), reg=reg, tol=0, max_iter=100
        )
        for shift in (np.zeros(d), theta)
    ]
    moved = -2.0 * (atoms - atoms.mean(axis=0)) @ theta
    difference = nx64.host(results[1].potential) - nx64.host(results[0].potential)
    np.testing.assert_allclose(difference, moved, atol=1e-8)
    expected = theta @ theta - 2.0 * theta @ atoms.mean(axis=0)
    n = results[0].n_samples - 100 * 256
    stderr = 2.0 * np.linalg.norm(theta) / np.sqrt(n)
    error = float(results[1].value) - float(results[0].value) - expected
    assert abs(error) < stats.norm.isf(5e-6) * stderr


@uncrossed
@pytest.mark.parametrize("uniform", [True, False])
def test_quantile_formula_on_the_line(uniform, nx):
    """``reg = 0``: the excess value is 1e-3 of the cost, the potential right to 2% of its range."""
    rng = np.random.default_rng(4)
    atoms = np.sort(0.5 * rng.normal(size=50) + 1.0)
    weights = np.full(50, 0.02) if uniform else rng.dirichlet(np.full(50, 2.0))
    exact = references.quantile_potential(atoms, weights, stats.norm.ppf)
    result = ps.solve_semidiscrete(
        nx.array(atoms[:, None]),
        "normal",
        nx.array(weights),
        tol=0,
        max_iter=250,
        random_state=0,
    )
    potential = nx.host(result.potential)
    x = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000)[:, None]
    values = [ps.semidiscrete_loss(atoms[:, None], x, psi, weights) for psi in (potential, exact)]
    assert 0.0 <= values[1] - values[0] < 1e-3 * values[1]
    error = np.sqrt(weights @ (potential - exact) ** 2)
    assert error < 0.02 * np.ptp(exact)


@pytest.mark.parametrize("name", ["normal_line", "uniform_line", "student_line"])
def test_unregularised_line_is_exact(name):
    """The cells have the atoms' masses; values as by sums over the quadrature."""
    problem = problems.get(name)
    atoms, weights, source = problem.atoms, problem.weights, problem.quadrature()
    potential, value = unregularised.line_optimum(problem.source, atoms, weights)
    cost = (source.nodes - atoms.T) ** 2
    assert value == pytest.approx(source.mass @ (cost - potential).min(axis=1), abs=1e-6)
    kept, cuts = unregularised.line_cells(atoms[:, 0], potential)
    cdf = {"normal": stats.norm.cdf, "unif": stats.uniform.cdf, "student": stats.t(3).cdf}
    mass = np.diff(cdf[problem.source.name](cuts), prepend=0.0, append=1.0)
    np.testing.assert_allclose(mass, weights[kept], atol=1e-10)
    # the first move leaves atoms without a cell
    for size in (1.0, 1e-3):
        moved = potential + size * np.random.default_rng(0).normal(size=len(atoms))
        lower = unregularised.line_semi_dual(problem.source, atoms, weights, moved)[0]
        expected = source.mass @ (cost - moved).min(axis=1) + weights @ moved
        assert lower < value
        assert lower == pytest.approx(expected, abs=1e-5)


def test_unregularised_square_is_exact(rng):
    atoms, weights = rng.random((30, 2)), rng.dirichlet(np.full(30, 3.0))
    potential, value = unregularised.square_optimum(atoms, weights)
    _, marginal, hessian = unregularised.square_semi_dual(atoms, weights, potential)
    np.testing.assert_allclose(marginal, weights, atol=1e-10)
    middles = (np.indices((200, 200)).reshape(2, -1).T + 0.5) / 200
    costs = ((middles[:, None] - atoms) ** 2).sum(axis=2)
    assert value == pytest.approx((costs - potential).min(axis=1).mean() + weights @ potential, rel=1e-4)
    direction = rng.normal(size=30)
    nudged = unregularised.square_semi_dual(atoms, weights, potential + 1e-6 * direction)[1]
    np.testing.assert_allclose((nudged - marginal) / 1e-6, hessian @ direction, atol=1e-3)


@pytest.mark.parametrize("name", ["student_line", "light_atoms", "mlp_64"])
def test_samples_follow_the_law_that_is_integrated(name):
    """Both libraries, each dtype: means of bounded functions within 5 standard errors."""
    torch = pytest.importorskip("torch")
    problem, n = problems.get(name), 20_000
    source = problem.quadrature()
    exact = source.mass @ np.tanh(source.nodes)
    deviation = np.sqrt(source.mass @ np.tanh(source.nodes) ** 2 / n)
    for generator, dtypes in (
        (np.random.default_rng(1), (np.float32, np.float64)),
        (torch.Generator().manual_seed(1), (torch.float32, torch.float64)),
    ):
        for dtype in dtypes:
            x = problem.sampler(generator, dtype)(n)
            assert x.dtype == dtype
            assert np.all(np.abs(np.tanh(np.asarray(x)).mean(axis=0) - exact) < 5.0 * deviation)


SMALL = {
    "line": ("normal", references.gauss_legendre(-8.0, 8.0, 2000, references.normal_density), 1),
    "square": ("unif", references.gauss_legendre(0.0, 1.0, 100, dimension=2), 2),
}


@functools.cache
def small_reference(name, relative_reg):
    """40 atoms of unequal weights, some of them 50 times lighter than the mean."""
    rng = np.random.default_rng(5)
    atoms = rng.random((40, SMALL[name][2])) * 1.5
    weights = rng.dirichlet(np.full(40, 1.0))
    return references.newton(SMALL[name][1], atoms, weights, relative_reg * ps.cost_scale(atoms))


@uncrossed
@pytest.mark.parametrize("relative_reg", [0.05, 0.2])
@pytest.mark.parametrize("name", SMALL)
def test_reaches_the_newton_solution(name, relative_reg, nx):
    """Mean efficiency ratio of 3 seeds; the limit is 1."""
    source, quadrature, _ = SMALL[name]
    reference, ratios = small_reference(name, relative_reg), []
    for seed in range(3):
        result = ps.solve_semidiscrete(
            nx.array(reference.atoms),
            source,
            nx.array(reference.weights),
            reg=reference.reg,
            tol=0,
            max_iter=250,
            random_state=seed,
        )
        psi = nx.host(result.potential)
        ratios.append(reference.efficiency_ratio(quadrature, psi, 250 * 256))
        assert abs(float(result.value) - reference.value) < 5 * result.value_stderr
    assert np.mean(ratios) < 2.0


@pytest.mark.parametrize("name", SMALL)
def test_small_reference_is_a_solution(name):
    reference = small_reference(name, 0.05)
    marginal = references.semi_dual(
        SMALL[name][1], reference.atoms, reference.weights, reference.reg, reference.potential
    )[1]
    np.testing.assert_allclose(marginal, reference.weights, atol=1e-7)


@pytest.mark.parametrize("name", problems.NAMES)
def test_stored_reference_is_a_solution(name):
    if name == "digits":
        pytest.importorskip("sklearn")
    references.load(name).verify(problems.get(name))


@pytest.mark.parametrize(
    ("name", "library", "dtype"),
    [("uniform_square", "numpy", "float64"), ("shifted_normal", "torch", "float32")],
)
def test_near_the_statistical_limit(name, library, dtype):
    """64,000 samples, 1,000 atoms, 2 seeds, default settings; 1 is the limit."""
    reference, problem = references.load(name), problems.get(name)
    atoms = reference.atoms.astype(dtype)
    if library == "torch":
        atoms = pytest.importorskip("torch").from_numpy(atoms)
    quadrature, ratios = problem.quadrature(), []
    for seed in range(2):
        result = ps.solve_semidiscrete(
            atoms, problem.source.name, reg=reference.reg, tol=0, max_iter=250, random_state=seed
        )
        psi = np.asarray(result.potential, dtype=float)
        ratios.append(reference.efficiency_ratio(quadrature, psi, 64_000))
    assert np.mean(ratios) < 2.0


def test_sub_optimality_where_few_points_lie():
    """32,000 points of a heavy tail, 3 seeds: some cells end where no point is near."""
    reference, problem, estimates = references.load("student_line"), problems.get("student_line"), []
    for seed in range(3):
        source = problem.sampler(np.random.default_rng(seed), np.float64)
        options = {"reg": problem.reg, "tol": 0, "max_iter": 125}
        result = ps.solve_semidiscrete(problem.atoms, source, problem.weights, **options)
        estimates.append(result.suboptimality / (reference.trace / (2.0 * 32_000)))
    assert 0.2 < np.median(estimates) < 2.0
    assert max(estimates) < 5.0


@pytest.mark.parametrize("name", ["normal_line", "uniform_line"])
def test_sub_optimality_without_regularisation(name):
    """Within 2 of the limit: boundary j, ``t_j``, has the variance ``B (1 - B) / (n f(t)^2)``."""
    problem, n = problems.get(name), 16_000
    law = {"normal": stats.norm(), "unif": stats.uniform()}[problem.source.name]
    order = np.argsort(problem.atoms[:, 0])
    below = np.cumsum(problem.weights[order])[:-1]
    gaps, density = np.diff(problem.atoms[order, 0]), law.pdf(law.ppf(below))
    limit = (gaps * below * (1.0 - below) / density).sum() / n
    estimates = []
    for seed in range(3):
        source = problem.sampler(np.random.default_rng(seed), np.float64)
        result = ps.solve_semidiscrete(problem.atoms, source, problem.weights, tol=0, max_iter=n // 256)
        estimates.append(result.suboptimality / limit)
    assert 0.5 < np.median(estimates) < 2.0


SQUARE = np.random.default_rng(9).random((100, 2)), np.full(100, 1.0 / 100)


@functools.cache
def square_optimum():
    """Semi-dual value at ``reg = 0`` of 100 atoms in the unit square."""
    return unregularised.square_optimum(*SQUARE)[1]


def square_gap(potential):
    """What it lacks there, by the areas of polygons."""
    return square_optimum() - unregularised.square_semi_dual(*SQUARE, np.asarray(potential))[0]


def solve_square(seed, **options):
    """A run on the 100 atoms in the square, without regularisation."""
    return ps.solve_semidiscrete(SQUARE[0], "unif", tol=0, random_state=seed, **options)


@functools.cache
def solved_square(seed):
    """The same with 16,384 points."""
    return solve_square(seed, max_iter=64)


def test_sub_optimality_without_regularisation_in_the_plane():
    """Within 2 of the truth in the mean over 3 runs."""
    said, truth = [], []
    for seed in range(3):
        result = solved_square(seed)
        said.append(result.suboptimality)
        truth.append(square_gap(result.potential))
    assert 0.5 < np.mean(said) / np.mean(truth) < 2.0


@pytest.mark.parametrize(("max_iter", "most"), [(4, 1.5), (128, 1.2)])
def test_warm_start_without_regularisation_loses_nothing(max_iter, most):
    """In the plane: neither to few new points nor to more than before."""
    first = solved_square(0).potential
    then = solve_square(100, max_iter=max_iter, init_potential=first).potential
    assert square_gap(then) < most * square_gap(first)


def empirical(rng, n=80, m=40):
    """Source points, atoms and weights of a discrete problem."""
    return rng.normal(size=(n, 2)), rng.normal(size=(m, 2)) + 1.0, rng.dirichlet(np.full(m, 2.0))


@pytest.mark.parametrize("reg", [0.1, 1.0])
def test_sinkhorn_gives_the_potential(reg, rng, nx64):
    """POT's scalings: psi = reg (log v - log b), psi^c = reg (log u - log a), up to constants."""
    x, atoms, b = empirical(rng)
    a = np.full(len(x), 1.0 / len(x))
    log = ot.sinkhorn(a, b, ot.dist(x, atoms), reg, stopThr=1e-14, numItermax=100_000, log=True)[1]
    psi = reg * (np.log(log["v"]) - np.log(b))
    transform = nx64.host(ps.semidiscrete_c_transform(*map(nx64.array, (atoms, x, psi, b)), reg=reg))
    difference = transform - reg * (np.log(log["u"]) - np.log(a))
    np.testing.assert_allclose(difference, difference.mean(), atol=1e-8)
    value = ot.solve(ot.dist(x, atoms), a, b, reg=reg, reg_type="KL", tol=1e-12, max_iter=100_000).value
    loss = ps.semidiscrete_loss(*map(nx64.array, (atoms, x, psi, b)), reg=reg)
    assert float(loss) == pytest.approx(value, rel=1e-8)


@uncrossed
@pytest.mark.parametrize("reg", [0.1, 1.0])
def test_array_source_is_the_problem_of_sinkhorn(reg, rng, nx):
    """Mean efficiency ratio of 3 seeds on a source of 80 points; values as ot.solve's."""
    x, atoms, b = empirical(rng)
    source = references.Quadrature(x, np.full(len(x), 1.0 / len(x)))
    reference, ratios = references.newton(source, atoms, b, reg), []
    expected = ot.solve(ot.dist(x, atoms), None, b, reg=reg, reg_type="KL", tol=1e-12, max_iter=100_000)
    assert reference.value == pytest.approx(expected.value, rel=1e-8)
    for seed in range(3):
        result = ps.solve_semidiscrete(
            nx.array(atoms), nx.array(x), nx.array(b), reg=reg, tol=0, random_state=seed, max_iter=150
        )
        ratios.append(reference.efficiency_ratio(source, nx.host(result.potential), 150 * 256))
        assert abs(float(result.value) - reference.value) < 5.0 * result.value_stderr
    assert np.mean(ratios) < 2.0
    assert float(result.value_linear) == pytest.approx(float(expected.value_linear), rel=0.1)


def test_value_grows_with_reg_between_its_bounds(rng):
    """OT_0 <= OT_reg <= OT_0 + reg Ent(b), the derivative is the entropy of the plan."""
    x, atoms, b = empirical(rng)
    regs = [0.0, 0.01, 0.1, 1.0, 10.0]
    values = [
        float(ps.solve_semidiscrete(atoms, x, b, reg=reg, tol=0, max_iter=100, random_state=0).value)
        for reg in regs
    ]
    exact = [ot.emd2(np.full(len(x), 1.0 / len(x)), b, ot.dist(x, atoms))]
    source = references.Quadrature(x, np.full(len(x), 1.0 / len(x)))
    exact += [references.newton(source, atoms, b, reg).value for reg in regs[1:]]
    entropy = -(b * np.log(b)).sum()
    assert np.all(np.diff(exact) > 0)
    assert np.all(np.array(exact) <= exact[0] + np.array(regs) * entropy + 1e-9)
    product = (ot.dist(x, atoms) @ b).mean()
    assert values[-1] == pytest.approx(product, rel=0.1)
    # fresh draws of 80 rows: the error is that of a mean over at least 1,024 of them
    np.testing.assert_allclose(values, exact, atol=5.0 * ot.dist(x, atoms).std() / np.sqrt(1024))


@pytest.mark.parametrize("x", [-0.3, 0.2])
def test_two_atoms_and_a_point(x, nx):
    """W_0(theta) = theta^2 + 1 is smooth, yet (G) gives 2 (theta -+ 1) at ``reg = 0``."""
    atoms, point = nx.array([[-1.0], [1.0]]), nx.array([[x]])
    psi = nx.array([2.0 * x, -2.0 * x])  # puts the point on the boundary of the cells
    jumps = []
    for nudge in (-1e-3, 1e-3):
        moved = nx.array([[x + nudge]])
        jumps.append(float(ps.semidiscrete_gradient(atoms, moved, psi)[0, 0]))
    assert jumps == pytest.approx([2.0 * (x + 1.0), 2.0 * (x - 1.0)], abs=0.01)
    smooth = float(ps.semidiscrete_gradient(atoms, point, psi, reg=0.1)[0, 0])
    assert smooth == pytest.approx(2.0 * x, abs=1e-5)


def test_regularisation_shrinks_a_gaussian():
    """The scale s of ``g = s z`` is stationary at ``s^2 = v - reg / 2``, not at v."""
    n_atoms, n = 300, 3000
    atoms = stats.norm.ppf((np.arange(n_atoms) + 0.5) / n_atoms)[:, None]
    z = stats.norm.ppf((np.arange(n) + 0.5) / n)[:, None]
    weights, reg = np.full(n_atoms, 1.0 / n_atoms), 0.8
    slopes = {}
    for variance in (1.0 - reg / 2.0, 1.0):
        s = np.sqrt(variance)
        source = references.Quadrature(s * z, np.full(n, 1.0 / n))
        psi = references.newton(source, atoms, weights, reg).potential
        _, slopes[variance] = ps.generator_gradient(
            lambda s, z: s * z, s, z, atoms, psi, reg=reg, vjp=lambda s, z, c: (c * z).sum()
        )
    assert abs(slopes[1.0 - reg / 2.0]) < 0.02
    assert slopes[1.0] > 0.2
