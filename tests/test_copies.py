"""Atoms at one place: one is solved for, and all of them get their part."""

import numpy as np
import pytest
from scipy import stats
from scipy.sparse import csgraph
from scipy.spatial.distance import cdist

import pot_semidiscrete as sd
from pot_semidiscrete.inference.estimates import Estimates
from pot_semidiscrete.inference.gaps import hides_boundaries, nearest_boundaries
from pot_semidiscrete.kernels import reduce
from pot_semidiscrete.problem import build_target, projection
from pot_semidiscrete.problem.places import places
from tests.backends import needs_torch

PLACES = np.random.default_rng(5).random((20, 2))
POINTS = np.random.default_rng(6).random((40, 2))
PLACE = np.random.default_rng(7).permutation(np.repeat(np.arange(20), 5))
LAWS = {
    "uniform": np.full(100, 0.01),
    "unequal": np.random.default_rng(8).dirichlet(np.ones(100)),
    "zeros": np.where(np.arange(100) % 7 == 0, 0.0, 1.0) / np.count_nonzero(np.arange(100) % 7),
}
each_law = pytest.mark.parametrize("law", LAWS)
each_reg = pytest.mark.parametrize("reg", [0.0, 0.02])


def together(masses):
    """Masses of the places."""
    return np.bincount(PLACE, masses, minlength=20)


def part(law):
    """Share of each atom in its place."""
    return LAWS[law] / together(LAWS[law])[PLACE]


def solve(nx, law="unequal", reg=0.0, **options):
    """A run on 100 atoms at 20 places."""
    options = {"random_state": 0} | options
    return sd.solve_semidiscrete(
        nx.array(PLACES[PLACE]), "unif", nx.array(LAWS[law]), reg=reg, **options
    )


def unequal_potential(law, reg):
    """Potential of all atoms, which differs from copy to copy by some reg."""
    return np.random.default_rng(9).normal(size=100) * max(reg, 0.02) - 1e6 * (LAWS[law] == 0)


@each_reg
@each_law
def test_copies_are_one_atom_of_their_weights(law, reg, nx):
    result = solve(nx, law, reg, tol=0.1)
    once = sd.solve_semidiscrete(
        nx.array(PLACES), "unif", nx.array(together(LAWS[law])), reg=reg, tol=0.1, random_state=0
    )
    assert result.converged
    # in float32 rounding may decide when to look: by then the points are others
    assert float(result.value) == pytest.approx(float(once.value), abs=4.0 * result.value_stderr)
    potential, marginal = nx.host(result.potential), nx.host(result.marginal_b)
    present = LAWS[law] > 0
    np.testing.assert_array_equal(potential[~present], 0.0)
    np.testing.assert_allclose(
        potential[present], nx.host(once.potential)[PLACE][present], atol=0.03 * np.ptp(potential)
    )
    assert abs(together(marginal) - together(LAWS[law])).sum() / 2 < 0.05
    np.testing.assert_allclose(marginal, together(marginal)[PLACE] * part(law), rtol=1e3 * nx.eps)


@each_law
def test_methods_are_the_free_functions(law, nx):
    """Of the potential of all atoms, at ``reg > 0``; at 0, a free function gives all to the first."""
    for reg in (0.0, 0.02):
        result, x = solve(nx, law, reg, tol=0, max_iter=10), nx.array(POINTS)
        for method in ("c_transform", "atom_weights", "ot_map"):
            free = getattr(sd, f"semidiscrete_{method}")
            expected = free(nx.array(PLACES[PLACE]), x, result.potential, nx.array(LAWS[law]), reg=reg)
            found, expected = nx.host(getattr(result, method)(x)), nx.host(expected)
            if reg == 0 and method == "atom_weights":
                expected = np.stack([together(row)[PLACE] * part(law) for row in expected])
            np.testing.assert_allclose(found, expected, rtol=1e4 * nx.eps, atol=1e3 * nx.eps)


@each_reg
@each_law
def test_pairs_are_in_proportion_to_the_weights(law, reg, nx):
    """Chi-square of the copies drawn, given the places: probability below 1e-5."""
    result, x = solve(nx, law, reg, tol=0, max_iter=10), nx.array(np.repeat(POINTS, 500, axis=0))
    pairs = nx.host(result.pair(x, random_state=1)).astype(int)
    counts, share = np.bincount(pairs, minlength=100), part(law)
    assert (counts[LAWS[law] == 0] == 0).all()
    expected = together(counts)[PLACE] * share
    enough = expected > 5
    statistic = ((counts - expected)[enough] ** 2 / expected[enough]).sum()
    assert statistic < stats.chi2.isf(1e-5, df=enough.sum())
    if reg == 0:
        cells = nx.host(result.ot_map(x))
        np.testing.assert_allclose(PLACES[PLACE][pairs], cells, atol=10 * nx.eps)
    np.testing.assert_array_equal(nx.host(result.pair(x, random_state=1)), pairs)


@each_reg
@each_law
def test_merging_leaves_the_transform_alone(law, reg, nx):
    atoms, weights = nx.array(PLACES[PLACE]), nx.array(LAWS[law])
    psi, x = nx.array(unequal_potential(law, reg)), nx.array(POINTS)
    target = build_target(atoms, weights)
    assert target.atoms.shape == (20, 2)
    merged = target.merge(psi, reg)
    found = nx.host(reduce(target, target.center(x), merged, reg).c_transform)
    expected = nx.host(sd.semidiscrete_c_transform(atoms, x, psi, weights, reg=reg))
    np.testing.assert_allclose(found, expected, rtol=100 * nx.eps, atol=100 * nx.eps)


def test_minus_zero_is_zero(nx):
    assert build_target(nx.array([[0.0, 1.0], [-0.0, 1.0]]), metric="cosine").atoms.shape == (1, 2)
    assert build_target(nx.array([[0.0, 1.0], [1e-6, 1.0]]), metric="cosine").support is None


@each_law
def test_atoms_that_rounding_does_not_tell_apart_are_one(law, nx):
    """At ``reg = 0``, against the problem of one of them with all the weight."""
    moved = PLACES[PLACE] + 2.0 * nx.eps * np.random.default_rng(1).normal(size=(100, 2))
    weights, present = LAWS[law], LAWS[law] > 0
    result, once = (
        sd.solve_semidiscrete(nx.array(atoms), "unif", nx.array(b), reg=0, random_state=0)
        for atoms, b in ((moved, weights), (PLACES, together(weights)))
    )
    assert result.converged
    assert float(result.value) == pytest.approx(float(once.value), abs=4.0 * result.value_stderr)
    assert result.suboptimality == pytest.approx(once.suboptimality, rel=0.2)
    potential, marginal = nx.host(result.potential), nx.host(result.marginal_b)
    expected = nx.host(once.potential)[PLACE]
    np.testing.assert_allclose(potential[present], expected[present], atol=0.03 * np.ptp(potential))
    np.testing.assert_allclose(marginal, together(marginal)[PLACE] * part(law), rtol=1e3 * nx.eps)
    assert abs(together(marginal) - together(weights)).sum() / 2 < 0.05
    cells = PLACES[PLACE][nx.host(result.pair(nx.array(POINTS), random_state=1)).astype(int)]
    np.testing.assert_allclose(cells, nx.host(result.ot_map(nx.array(POINTS))), atol=100 * nx.eps)


CENTERS = 0.2 * np.arange(5.0) + 0.1  # of cells of a uniform law: the best potential is 0


def triples(nx, distance):
    """Three atoms at each of the centres, that distance apart."""
    return build_target(nx.array((CENTERS[:, None] + distance * np.arange(3)).reshape(15, 1)))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_near_atoms_do_not_hide_what_is_lacking(share, seed, nx):
    """Boundaries between groups of them are seen by few points, or none; against the value of groups.

    They are some roundings apart, or a ten thousandth, or a share of the way between.
    """
    distance, psi = (300.0 * nx.eps) ** (1.0 - share) * 1e-4**share, 0.02 * np.cos(7.0 * np.arange(5))
    target = triples(nx, distance)
    assert target.atoms.shape[0] == 15
    grid = (np.arange(10**5)[:, None] + 0.5) / 10**5
    transforms = [np.min((grid - CENTERS) ** 2 - p, axis=1) for p in (0.0 * psi, psi)]
    lack = transforms[0].mean() - transforms[1].mean() - psi.mean()
    assert lack > 5e-4
    x = target.center(nx.array(np.random.default_rng(seed).random((4000, 1))))
    found = Estimates(target, nx.array(np.repeat(psi, 3)), 0.0, x, n_samples=1e5).certificate
    assert lack - 3.0 * distance < found.suboptimality <= found.suboptimality_bound < 0.01


def test_boundaries_are_hidden_by_near_atoms_alone(nx):
    """Not where each point's second atom is another's, nor by a gap of the source."""
    x = np.random.default_rng(0).random((4000, 1))
    few = x[:100]

    def is_hidden(target, points):
        facts = target, target.center(nx.array(points)), 0.0 * target.weights, 0.0
        return hides_boundaries(*facts, nearest_boundaries(*facts))

    for points, distance, hidden in ((x, 1e-4, True), (x, 0.05, False), (few, 1e-4, False)):
        assert is_hidden(triples(nx, distance), points) is hidden
    target = build_target(nx.array(np.array([[0.0], [0.1], [0.9], [1.0]])))
    assert not is_hidden(target, np.where(x < 0.5, 0.4 * x, 1.0 - 0.4 * (1.0 - x)))  # to .2, from .8


@pytest.mark.parametrize("is_written", [False, True])
def test_a_file_knows_its_atoms_in_another_dtype(is_written, nx, tmp_path):
    """Of the result in double precision, with some of them merged in the other one or in none."""
    host = (PLACES[PLACE] + 4e-7 * np.random.default_rng(1).normal(size=(100, 2))).astype(np.float32)
    double, other = host.astype(float), nx.array(host)
    assert build_target(double).atoms.shape == (100, 2)
    assert build_target(other).atoms.shape == ((20, 2) if nx.eps > 1e-10 else (100, 2))
    written, read = (other, double) if is_written else (double, other)
    result = sd.solve_semidiscrete(written, "unif", reg=0.02, tol=0, max_iter=8, random_state=0)
    result.save(tmp_path / "result.npz")
    loaded = sd.SemiDiscreteResult.load(tmp_path / "result.npz", read)
    kept, found = (nx.host(v) for v in (result.potential, loaded.potential))
    np.testing.assert_allclose(kept - kept.mean(), found - found.mean(), atol=1e-4 * np.ptp(kept))
    assert loaded.suboptimality == result.suboptimality


@pytest.mark.parametrize("scale", [2.0**-20, 1.0, 2.0**20])
def test_atoms_are_merged_at_roundings_of_their_scale(scale, nx):
    """Costs of the last two differ by ten times more than those that are merged."""
    unit = np.array([[1.0, 0.0]]) * nx.eps
    for distance, n_atoms in ((16.0, 20), (1000.0, 21)):
        atoms = scale * np.concatenate([PLACES - 0.5, PLACES[:1] - 0.5 + distance * unit])
        assert build_target(nx.array(atoms)).atoms.shape == (n_atoms, 2)
        assert build_target(nx.array(atoms), metric="euclidean").atoms.shape == (21, 2)


@pytest.mark.parametrize(("d", "spread"), [(1, 1.0), (2, 1.0), (3, 1.0), (4, 0.1), (50, 0.1)])
def test_places_are_farther_apart_than_a_distance(d, spread):
    """Each of them is connected by steps of that distance at most (single linkage)."""
    rng, within = np.random.default_rng(d), 1e-3
    points = np.repeat(rng.random((300, d)), 1 + np.arange(300) % 4, axis=0)
    points = points + within * spread * rng.normal(size=points.shape) / (2.0 * d) ** 0.5
    points[::50] = points[0]
    points = rng.permutation(points)
    parts = [slice(0, 90), slice(90, 400), slice(400, len(points))]
    first, place = places(points.__getitem__, parts, within)
    distances = cdist(points, points)
    assert (distances[np.ix_(first, first)] + np.eye(len(first)) > within).all()
    assert (np.diff(first) > 0).all()
    np.testing.assert_array_equal(place[first], np.arange(len(first)))
    same = place[:, None] == place
    n_groups, _ = csgraph.connected_components((distances <= within) & same)
    assert n_groups == len(first) < len(points) / 1.5


@pytest.mark.parametrize("shape", ["even", "narrowing"])
def test_a_chain_of_near_points_is_not_one_place(shape):
    """Though each of them is near to the next: it is as long as hundreds of the distance."""
    within, ratio = 1e-3, {"even": 1.0, "narrowing": 0.999}[shape]
    steps = 0.999 * within * ratio ** np.arange(999.0)
    points = np.append(0.0, np.cumsum(steps))[:, None]
    assert (steps < within).all()
    assert points[-1] > 600.0 * within
    first, place = places(points.__getitem__, [slice(None)], within)
    assert (np.diff(points[first], axis=0) > within).all()
    assert (np.abs(points - points[first][place]) < 3.0 * within).all()


@pytest.mark.parametrize("collide", [False, True])
def test_places_are_told_apart_whatever_their_hashes(collide, monkeypatch):
    """All of them the same, or as they are."""
    unique = np.unique
    monkeypatch.setattr(
        np, "unique", lambda a, **options: unique(a if a.ndim > 1 else a * (not collide), **options)
    )
    rng = np.random.default_rng(0)
    points = rng.integers(3, size=(200, 3)).astype(float)
    first, place = places(points.__getitem__, [slice(0, 90), slice(90, 200)])
    np.testing.assert_array_equal(points[first][place], points)
    assert len(first) == len({tuple(point) for point in points})
    assert (np.diff(first) > 0).all()
    assert (first[place] <= np.arange(200)).all()


@each_law
def test_masses_and_potentials_go_there_and_back(law, nx64):
    target = build_target(nx64.array(PLACES[PLACE]), nx64.array(LAWS[law]))
    masses = np.random.default_rng(0).random(20)
    spread = target.distribute(nx64.array(masses))
    np.testing.assert_allclose(nx64.host(target.collect(spread)), masses, rtol=1e-12)
    np.testing.assert_allclose(nx64.host(target.distribute(target.weights)), LAWS[law], rtol=1e-12)
    back = target.gather(target.scatter(nx64.array(masses)))
    np.testing.assert_array_equal(nx64.host(back), masses)


@each_reg
def test_file_gives_the_result_back(reg, nx, tmp_path):
    result, atoms, x = solve(nx, reg=reg, tol=0, max_iter=10), PLACES[PLACE], nx.array(POINTS)
    result.save(tmp_path / "result")
    again = sd.SemiDiscreteResult.load(tmp_path / "result", nx.array(atoms))
    for name in ("potential_b", "marginal_b"):
        ours, theirs = (nx.host(getattr(one, name)) for one in (again, result))
        np.testing.assert_allclose(ours, theirs, rtol=100 * nx.eps)
    for method in ("c_transform", "atom_weights", "ot_map"):
        ours, theirs = (nx.host(getattr(one, method)(x)) for one in (again, result))
        np.testing.assert_allclose(ours, theirs, rtol=1e4 * nx.eps, atol=1e3 * nx.eps)
    np.testing.assert_array_equal(nx.host(again.pair(x, 0)), nx.host(result.pair(x, 0)))


@each_reg
def test_file_of_copies_that_were_not_merged_is_read(reg, nx, tmp_path):
    """As versions before wrote it: each has a potential of its own."""
    atoms, weights, x = nx.array(PLACES[PLACE]), nx.array(LAWS["zeros"]), nx.array(POINTS)
    psi = nx.array(unequal_potential("zeros", reg) * (LAWS["zeros"] > 0))
    solve(nx, "zeros", reg, tol=0, max_iter=2).save(tmp_path / "merged")
    with np.load(tmp_path / "merged") as merged:
        np.savez(tmp_path / "result.npz", **dict(merged) | {"potential": nx.host(psi)})
    again = sd.SemiDiscreteResult.load(tmp_path / "result.npz", atoms)
    expected = nx.host(sd.semidiscrete_c_transform(atoms, x, psi, weights, reg=reg))
    found = nx.host(again.c_transform(x))
    np.testing.assert_allclose(found, expected, rtol=100 * nx.eps, atol=100 * nx.eps)


def test_projection_is_that_of_the_copies(nx):
    for law in LAWS:
        arrays = nx.array(PLACES[PLACE]), nx.array(LAWS[law])
        found, expected = (projection(build_target(*arrays, merge=merge)) for merge in (True, False))
        np.testing.assert_array_equal(found, expected)


def test_gradients_see_each_copy(autodiff):
    """A copy that moves is one no longer: against central differences."""
    x, psi = autodiff.array(POINTS), autodiff.array(0.1 * POINTS[:4, 0])
    atoms, direction = PLACES[[0, 0, 1, 1]], np.array([[1.0, 2.0], [0, 0], [0, 0], [-1.0, 0.0]])
    loss = lambda y: sd.semidiscrete_loss(y, x, psi, reg=0.1)
    (gradient,) = autodiff.gradient(loss, autodiff.array(atoms))
    ends = [float(loss(autodiff.array(atoms + h * direction))) for h in (1e-6, -1e-6)]
    expected = (ends[0] - ends[1]) / 2e-6
    assert (autodiff.host(gradient) * direction).sum() == pytest.approx(expected, rel=1e-6)


def test_parameters_are_trained_on_copies(nx64):
    rng = np.random.default_rng(0)
    result = sd.train_parameters(
        lambda theta, z: z + theta,
        nx64.array(np.zeros(2)),
        lambda n: nx64.array(rng.random((n, 2))),
        nx64.array(PLACES[PLACE] + 3.0),
        vjp=lambda theta, z, cotangent: cotangent.sum(0),
        reg=0.02,
        n_steps=100,
        learning_rate=0.1,
    )
    assert np.abs(nx64.host(result.theta) - (PLACES.mean(axis=0) + 2.5)).max() < 0.2
    potential = nx64.host(result.potential)
    np.testing.assert_array_equal(potential, potential[np.unique(PLACE, return_index=True)[1]][PLACE])


@needs_torch
@each_reg
@each_law
def test_loss_of_copies(law, reg):
    import torch

    from pot_semidiscrete.generative import SemiDiscreteLoss, checkpoint

    loss = SemiDiscreteLoss(torch.tensor(PLACES[PLACE]), torch.tensor(LAWS[law]), reg=reg)
    once = SemiDiscreteLoss(torch.tensor(PLACES), torch.tensor(together(LAWS[law])), reg=reg)
    x = torch.tensor(POINTS, requires_grad=True)
    for one in (loss, once):
        one.follow(x)
    gradients = [torch.autograd.grad(one(x), x)[0] for one in (loss, once)]
    torch.testing.assert_close(gradients[0], gradients[1])
    present = LAWS[law] > 0
    np.testing.assert_allclose(loss.potential[present], once.potential[PLACE][present], atol=1e-10)
    again = SemiDiscreteLoss(torch.tensor(PLACES[PLACE]), torch.tensor(LAWS[law]), reg=reg)
    again.load_state_dict(loss.state_dict())
    assert float(again(x.detach())) == float(loss(x.detach()))
    problem = checkpoint.problem_of(loss)
    np.testing.assert_allclose(problem["a_target"], LAWS[law][present], rtol=1e-12)
    assert loss.fit(lambda n: torch.rand(n, 2, dtype=torch.float64), tol=0.1).converged


@needs_torch
def test_network_gives_copies_one_potential():
    import torch

    from pot_semidiscrete.generative import SemiDiscreteLoss

    net = torch.nn.Linear(2, 1).double()
    loss = SemiDiscreteLoss(torch.tensor(PLACES[PLACE]), reg=0.02, potential=net)
    loss.follow(torch.tensor(POINTS))
    expected = net(torch.tensor(PLACES[PLACE]))[:, 0].detach()
    torch.testing.assert_close(loss.potential, expected - expected.mean())
