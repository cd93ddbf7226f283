"""Whatever the arguments are: an invariant of the theory holds, or an error says what was expected.

Never NaN, and never a wrong answer in silence. 200 cases in the suite, always the same ones; 2,000 new
ones by ``pytest tests/test_properties.py --hypothesis-profile=nightly``.
"""

import warnings

import numpy as np
import pytest
from scipy.special import logsumexp

import pot_semidiscrete as sd
from tests.backends import BACKENDS, Backend

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
SUITE, NIGHTLY = 200, 2000


def cases(share):
    """So many of the cases of a profile, as the share of a test."""

    def decorate(test):
        def run():
            is_nightly = hypothesis.settings.get_current_profile_name() == "nightly"
            n = int(share * (NIGHTLY if is_nightly else SUITE))
            hypothesis.settings(max_examples=n)(test)()

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


METRICS = {
    "sqeuclidean": lambda x, y: ((x[:, None] - y) ** 2).sum(axis=2),
    "euclidean": lambda x, y: ((x[:, None] - y) ** 2).sum(axis=2) ** 0.5,
    "cityblock": lambda x, y: np.abs(x[:, None] - y).sum(axis=2),
}


@st.composite
def problems(draw):
    """Atoms of any scale and place, some of them alike, any weights, and a source beside them."""
    n_atoms, n, d = draw(st.integers(1, 12)), draw(st.integers(1, 9)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nx = Backend(draw(st.sampled_from(BACKENDS)), draw(st.sampled_from(["float32", "float64"])))
    metric = draw(st.sampled_from(list(METRICS)))
    scale = 2.0 ** draw(st.sampled_from([0, 0, 0, -40, -20, 20, 40]))
    place = draw(st.sampled_from([0.0, 0.0, 1.0, 100.0]))
    atoms = (rng.normal(size=(n_atoms, d)) + place) * scale
    x = (rng.normal(size=(n, d)) * draw(st.sampled_from([1.0, 0.0, 10.0])) + place) * scale
    if draw(st.booleans()):
        atoms[-1], x[0] = atoms[0], atoms[0]
    weights = rng.dirichlet(np.full(n_atoms, draw(st.sampled_from([0.05, 1.0, 10.0]))))
    if n_atoms > 1 and draw(st.booleans()):
        weights[np.argmin(weights)] = 0.0
    weights = weights / weights.sum()
    unit = scale**2 if metric == "sqeuclidean" else scale
    reg = unit * draw(st.sampled_from([0.0, 0.0, 1e-12, 1e-6, 1e-2, 1.0, 1e3]))
    typical = np.median(METRICS[metric](atoms, atoms[weights > 0]))
    reg = min(reg, 1e3 * typical) if typical > 0 else reg  # beyond, single precision has not the value
    potential = unit * rng.normal(size=n_atoms) * draw(st.sampled_from([0.0, 0.1, 1.0, 100.0]))
    cast = lambda a: np.asarray(nx.host(nx.array(a)))  # what the dtype has of it
    return nx, *map(cast, (atoms, x, weights, potential)), metric, reg, unit, place


def exactly(atoms, x, weights, potential, metric, reg):
    """c-transform and assignment weights, dense, in double precision."""
    b = weights / weights.sum()
    with np.errstate(divide="ignore"):
        costs = METRICS[metric](x, atoms)
        scores = np.where(b > 0, potential - costs, -np.inf)
        if reg == 0:
            return -scores.max(axis=1), scores
        scores = scores / reg + np.log(b)
    total = logsumexp(scores, axis=1)
    return -reg * total, scores - total[:, None]


@cases(0.6)
@hypothesis.given(problems())
def test_functions_of_a_potential(problem):
    nx, atoms, x, weights, potential, metric, reg, unit, place = problem
    arrays = [nx.array(a) for a in (atoms, x, potential, weights)]
    call = lambda name: getattr(sd, name)(*arrays, metric=metric, reg=reg)
    costs = METRICS[metric](x, atoms)
    # what the dtype makes of costs, of centred points, and of the potential
    size = (
        costs.max() + np.abs(potential).max() + unit * (1.0 + place) * (1.0 + costs.max() / unit) ** 0.5
    )
    size += reg * (1.0 + np.abs(np.log(weights[weights > 0])).max())  # and of the entropy
    rounding = 64.0 * nx.eps * size
    transform, scores = exactly(
        atoms, x, weights, potential, metric, reg if reg > rounding / 64 else 0.0
    )
    found = nx.host(call("semidiscrete_c_transform"))
    np.testing.assert_allclose(found, transform, rtol=0.0, atol=rounding + reg * 1e-30)
    chi = nx.host(call("semidiscrete_atom_weights"))
    assert (chi >= 0).all()
    np.testing.assert_allclose(chi.sum(axis=1), 1.0, rtol=0.0, atol=64.0 * nx.eps)
    assert (chi[:, weights == 0] == 0).all()
    if reg > 100.0 * rounding:
        np.testing.assert_allclose(chi, np.exp(scores), rtol=0.0, atol=4.0 * rounding / reg)
    elif reg == 0:
        worst = np.where(chi > 0, scores, np.inf).min(axis=1)
        assert (worst >= scores.max(axis=1) - rounding).all(), "the cell is that of the best atom"
    value = float(call("semidiscrete_loss"))
    expected = transform.mean() + weights @ potential / weights.sum()
    np.testing.assert_allclose(value, expected, rtol=0.0, atol=2.0 * rounding)
    image, slack = nx.host(call("semidiscrete_ot_map")), 64.0 * nx.eps * np.abs(atoms).max()
    held = atoms[weights > 0]
    assert ((image >= held.min(axis=0) - slack) & (image <= held.max(axis=0) + slack)).all()
    assert np.isfinite(nx.host(call("semidiscrete_gradient"))).all()


@cases(0.4)
@hypothesis.given(problems(), st.integers(0, 3), st.sampled_from([1, 5]))
def test_runs_of_the_solver(problem, seed, max_iter):
    nx, atoms, x, weights, potential, metric, reg, unit, _ = problem
    rng = np.random.default_rng(seed)
    draw = lambda n: nx.array(
        x[rng.integers(len(x), size=n)] + 0.1 * unit**0.0 * np.ptp(x, axis=0) * rng.normal(size=(n, 1))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sd.SemiDiscreteWarning)
        result = sd.solve_semidiscrete(
            nx.array(atoms),
            draw,
            nx.array(weights),
            metric,
            reg,
            tol=0,
            max_iter=max_iter,
            init_potential=nx.array(potential) if seed else None,
        )
    found = nx.host(result.potential)
    assert np.isfinite(found).all()
    assert (found[weights == 0] == 0).all()
    size = np.abs(found).max() + METRICS[metric](x, atoms).max()
    assert abs(found @ weights) <= 64.0 * nx.eps * size
    marginal = nx.host(result.marginal_b)
    assert (marginal >= 0).all()
    np.testing.assert_allclose(marginal.sum(), 1.0, atol=64.0 * nx.eps)
    low, high = result.value_interval
    slack = 8.0 * nx.eps * size  # the value is of the dtype, its interval is not
    assert low - slack <= float(result.value) <= high + slack
    numbers = (result.chi2, result.chi2_stderr, result.suboptimality, result.suboptimality_bound)
    assert np.isfinite([*numbers, low, high, float(result.value), float(result.value_linear)]).all()
    assert result.suboptimality <= result.suboptimality_bound
    assert result.reg in (0.0, reg)


HOSTILE = st.sampled_from(
    [np.nan, np.inf, -np.inf, 1e300, -1e39, 1e20, 1e-30, 1e-300, 0.0, "a", None, 1j, True, 2**70]
)


@cases(0.25)
@hypothesis.given(problems(), st.sampled_from(["atoms", "x", "weights", "potential", "reg"]), HOSTILE)
def test_hostile_numbers_are_refused_or_answered_with_numbers(problem, place, bad):
    nx, atoms, x, weights, potential, metric, reg, *_ = problem
    arguments = {"atoms": atoms, "x": x, "weights": weights, "potential": potential, "reg": reg}
    if place == "reg":
        arguments["reg"] = bad
    else:
        array = np.array(arguments[place], dtype=object)
        array.flat[0] = bad
        arguments[place] = array.tolist()
        if isinstance(bad, (int, float)):
            with np.errstate(over="ignore"):
                arguments[place] = np.array(arguments[place], dtype=float)
    as_array = lambda a: nx.array(a) if isinstance(a, np.ndarray) else a
    a, points, b, psi = (as_array(arguments[name]) for name in ("atoms", "x", "weights", "potential"))
    for call in (
        lambda: sd.semidiscrete_loss(a, points, psi, b, metric, arguments["reg"]),
        lambda: (
            sd.solve_semidiscrete(
                a,
                points,
                b,
                metric,
                arguments["reg"],
                tol=0,
                max_iter=1,
                init_potential=psi,
                random_state=0,
            ).value
        ),
        lambda: sd.cost_scale(a, b, metric),
    ):
        value = answer(call)
        assert value is None or np.isfinite(value)


def answer(call):
    """What a function returns, or None if it says what it expected."""
    try:
        return float(call())
    except (TypeError, ValueError) as error:
        if "expected" not in str(error):
            raise
        return None
