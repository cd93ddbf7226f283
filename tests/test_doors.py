"""Every argument of every public function, method and class: a bad value is refused by name.

The rows of an argument are those of its name, or of ``function.name`` where a function differs. What has
no rows fails: a new argument needs them, or a reason in `FREE`; a new function needs a call in `CALLS`.
"""

import functools
import importlib
import inspect
import re
from types import SimpleNamespace

import numpy as np
import pytest

import pot_semidiscrete as sd
from tests.backends import BACKENDS, Backend
from tests.idx import idx
from tests.test_style import RECEIVED

HAS_TORCH = "torch" in BACKENDS
MODULES = ["", ".applications", ".samplers", ".plot", ".datasets", ".metrics"]
MODULES += [".generative"] * HAS_TORCH
DERIVED = "Law", "Sampler"  # users derive from these
SHARED = "ShardedAtoms"  # processes make it together: tests/shards.py
HOOKS = "get_extra_state", "set_extra_state"  # torch calls these
ATOMS, POINTS = (np.random.default_rng(k).normal(size=(6 - 2 * k, 2)) for k in range(2))
IMAGES = np.random.default_rng(2).random((8, 4, 4))
LABELS = np.arange(8) % 3
ANY = (TypeError, ValueError)
STATE = {"seed": 0, "batch_size": 2, "chunk_size": 8, "n_reuse": 1, "epoch_size": 6, "epoch": 0}
STATE |= {"worker": 0, "n_workers": 1, "rank": 0, "n_ranks": 1, "batch": 0}
MATRIX = np.ones((4, 2)).view(np.matrix)
MASKED = np.ma.masked_array(np.ones((4, 2)), mask=np.eye(4, 2))


def linear(n=1, frozen=False):
    """A torch module, where torch is installed."""
    if HAS_TORCH:
        return importlib.import_module("torch").nn.Linear(2, n).double().requires_grad_(not frozen)
    return None


def with_entry(a, value):
    """A copy, its first entry replaced."""
    a = a.copy()
    a.flat[0] = value
    return a


# Rows: a bad value, the type of the error, words of it. Arrays are converted to the backend first.
NO_COUNT = [
    (0, ValueError, "at least 1"),
    (-3, ValueError, "at least 1"),
    (2.5, TypeError, "whole number"),
    (2.0, TypeError, "whole number"),
    ("3", TypeError, "whole number"),
    (True, TypeError, "whole number"),
    (None, TypeError, "whole number"),
]
COUNT_FROM_0 = [(-1, ValueError, "at least 0"), *NO_COUNT[2:]]
NO_REAL = [
    (-0.1, ValueError, "at least 0"),
    (-np.inf, ValueError, "finite"),
    (np.nan, ValueError, "finite"),
    (np.inf, ValueError, "finite"),
    (10**400, ValueError, "finite"),
    ("0.1", TypeError, "real number"),
    (True, TypeError, "real number"),
    (np.True_, TypeError, "real number"),
    (np.array(True), TypeError, "real number"),
    (1j, TypeError, "real number"),
    (np.array([0.1, 0.2]), TypeError, "real number"),
    (None, TypeError, "real number"),
]
NO_PRICE = [
    ((np.inf, 1.0), TypeError, "of the target"),
    (1e-20, ValueError, "nearest atom"),
    (1e20, ValueError, "leave it out"),
]
NO_UNIT = [*[(bad, error, "") for bad, error, _ in NO_REAL], (0.0, ValueError, "above 0")]
NO_POINTS = [
    (np.zeros(3), ValueError, "one row per point"),
    (np.zeros((0, 2)), ValueError, "one row per point"),
    (np.zeros((6, 0)), ValueError, "one row per point"),
    (with_entry(ATOMS, np.nan), ValueError, "finite"),
    (with_entry(ATOMS, np.inf), ValueError, "finite"),
    (with_entry(ATOMS, -1e76), ValueError, "divide"),
    (np.ones((6, 2), dtype=np.int32), TypeError, "cast"),
    (np.ones((6, 2), dtype=np.float16), TypeError, "cast"),
    (MASKED, TypeError, "mask"),
    (MATRIX, TypeError, "matrix"),
    ("points", TypeError, "convert"),
    (None, TypeError, "convert"),
]
SHORT = (1e-76 * ATOMS, ValueError, "divide")
NO_SOURCE = [
    *NO_POINTS,
    (np.ones((2, 2, 2)), ValueError, "one row per point"),
    (np.ones((4, 3)), ValueError, "columns"),
    (np.float32(POINTS), TypeError, "cast"),
    ([[0.0, 1.0], [2.0]], TypeError, ""),
    (["a", "b"], ANY, ""),
    ((POINTS, POINTS), ANY, ""),
]
NO_TENSOR = [row for row in NO_POINTS if type(row[0]) is np.ndarray]
NO_TENSOR = [row for row in NO_TENSOR if row[0].dtype != np.float16]  # which a loss casts
NO_ROWS = [
    (np.zeros(3), ValueError, "columns"),
    *NO_TENSOR[1:],
    (POINTS.tolist(), TypeError, "as_tensor"),
    (None, TypeError, "as_tensor"),
]
NO_VECTOR = [
    (np.full(4, 0.25), ValueError, "one entry for each"),
    (np.full((6, 1), 1 / 6), ValueError, "one entry for each"),
    (with_entry(np.full(6, 1 / 6), np.nan), ValueError, "finite"),
    (with_entry(np.full(6, 1 / 6), np.inf), ValueError, "finite"),
    (np.eye(6, dtype=np.int32)[0], TypeError, "cast"),
    (np.full(6, 1 / 6, dtype=np.float32), TypeError, "cast"),
    (0.3, ValueError, "one entry"),
    ("uniform", ValueError, "one entry"),
    (["a"] * 6, TypeError, "one number"),
    ([True] * 6, TypeError, "one number"),
    (MASKED[:, 0], TypeError, "mask"),
    (MATRIX[:, 0], TypeError, "matrix"),
    (SimpleNamespace(potential_b=0), TypeError, "give its potential"),
]
NO_WEIGHTS = [
    *NO_VECTOR,
    (np.full(6, 0.5), ValueError, "divide"),
    (np.zeros(6), ValueError, "divide"),
    (np.full(6, (1 + 1e-6) / 6), ValueError, "divide"),
    (np.array([-0.5, 1.5, 0, 0, 0, 0.0]), ValueError, "non-negative"),
]
NO_METRIC = [
    ("sqeuclid", ValueError, "one of"),
    (3, TypeError, "callable"),
    (["sqeuclidean"], TypeError, "callable"),
    (("minkowski", 0.3), ValueError, "at least 1"),
    (("minkowski", True), ValueError, "at least 1"),
    (("minkowski", np.True_), ValueError, "at least 1"),
    (("minkowski", 3, [True, True]), ValueError, "at least 0"),
    (lambda x, y: x @ y[:-1].T, ValueError, "shape"),
    (lambda x, y: (x @ y.T)[:, 0], ValueError, "shape"),
    (lambda x, y: (x[:1] @ y.T).T, ValueError, "shape"),
    (lambda x, y: cast(x @ y.T, "float32"), ValueError, "dtype"),
    (lambda x, y: np.nan * (x @ y.T), ValueError, "finite"),
    (lambda x, y: np.inf + x @ y.T, ValueError, "finite"),
    (lambda x, y: None, ANY, ""),
    (lambda x, y: [[0.0]], ANY, ""),
]
NO_BOOL = [(bad, TypeError, "True or False") for bad in (2, None, "no", [])]
NO_CALLABLE = [(3, TypeError, "callable"), ("f", TypeError, "callable")]
NO_SEED = [
    (-1, ValueError, "at least 0"),
    (0.5, TypeError, "int"),
    (True, TypeError, "int"),
    ("0", TypeError, "int"),
    ([1, 2], TypeError, "int"),
]
NO_BATCH = [  # of a sampler
    (lambda n: None, TypeError, "an array"),
    (lambda n: "points", TypeError, "an array"),
    (lambda n: [[0.0, 0.0]] * n, TypeError, "an array"),
]
NO_PATH = [
    (3, TypeError, "path"),
    (None, TypeError, "path"),
    ("no/such/folder/file", ValueError, "make the folder"),
    (".", ValueError, "folder"),
]
NO_FILE = [(3, TypeError, "path"), (None, TypeError, "path"), (".", ValueError, "folder")]
NO_FILE += [("no/such/file", FileNotFoundError, "exists")]
NO_FOLDER = [*NO_FILE[:2], ("no/such/folder", FileNotFoundError, "neither")]
NO_PARAMETERS = [
    (None, TypeError, ""),
    ("theta", TypeError, ""),
    (["a", "b"], TypeError, ""),
    (True, TypeError, "numbers"),
    (np.full(2, np.nan), ValueError, "finite"),
]
NO_SAMPLE = [
    (np.zeros(3), ValueError, "shape"),
    (np.zeros((0, 2)), ValueError, "shape"),
    (np.ones((4, 3)), ValueError, "one shape"),
    (np.full((4, 2), np.nan), ValueError, "finite"),
    (np.full((4, 2), 1e200), ValueError, "divide"),
    (MASKED, TypeError, "mask"),
    (POINTS > 0.0, TypeError, "truth"),
    (["a", "b"], TypeError, "numbers"),
    ([[0.0, 1.0], [2.0]], TypeError, "numbers"),
    (np.ones((4, 2)) * 1j, TypeError, "numbers"),
    ("points", TypeError, "numbers"),
    (None, TypeError, "numbers"),
]
NO_IMAGES = [
    (np.zeros(3), ValueError, "(n, height, width)"),
    (np.zeros((0, 4, 4)), ValueError, "(n, height, width)"),
    (np.zeros((2, 4, 0)), ValueError, "(n, height, width)"),
    (np.zeros((8, 1, 1, 4, 4)), ValueError, "(n, height, width)"),
    (np.full((8, 4, 4), np.nan), ValueError, "finite"),
    (np.ma.masked_array(IMAGES, mask=IMAGES > 0.5), TypeError, "mask"),
    (["a"] * 8, TypeError, "numbers"),
    ("images", TypeError, "numbers"),
    (None, TypeError, "numbers"),
]
NO_PICTURE = [
    (np.zeros(4), ValueError, "height, width"),
    (np.zeros((4, 0)), ValueError, "height, width"),
    (np.zeros((3, 4)), ValueError, "4 pixels"),
    (np.full((4, 4), np.nan), ValueError, "finite"),
    (np.zeros((4, 4), dtype=int), TypeError, "floating"),
    (IMAGES[0].tolist(), TypeError, "floating"),
    (None, TypeError, "floating"),
]
OTHER_IMAGES = (np.ones((3, 9, 9)), ValueError, "shape")
NO_LABELS = [
    (LABELS - 1, ValueError, "at least 0"),
    (LABELS + 0.5, TypeError, "whole number"),
    (np.full(8, np.nan), TypeError, "whole number"),
    (["a"] * 8, TypeError, "whole number"),
    (np.zeros((8, 1), dtype=int), ValueError, "(n,)"),
    (np.zeros(0, dtype=int), ValueError, "(n,)"),
    ("0", TypeError, "whole number"),
    (None, TypeError, "whole number"),
]
NO_COUNTS = [
    (3, TypeError, "sequence"),
    ("88", TypeError, "sequence"),
    (None, TypeError, "sequence"),
    ((8, 0), ValueError, "at least 1"),
    ((8, -1), ValueError, "at least 1"),
    ((8, 2.5), TypeError, "whole number"),
]
NO_NOISE = [
    (3, ANY, "noise"),
    ("gauss", ValueError, "normal"),
    (np.ones, TypeError, "seed"),
    (np.ones((5, 3)), ValueError, "columns"),
]
NO_CLASSES = [
    (3, TypeError, "tensor"),
    (np.zeros(5, dtype=int), ValueError, "each"),
    (np.zeros(6), TypeError, "conditions"),
    (["a"] * 6, TypeError, "return_inverse"),
]
NO_INDEX = [
    ([1, 2], TypeError, "tensor"),
    (np.ones(2), TypeError, "int"),
    (np.array([6]), ValueError, "0 to 5"),
    (np.array([-1]), ValueError, "0 to 5"),
    (np.array([[1]]), TypeError, "(n,)"),
    (np.array([True]), TypeError, "int"),
]
NO_DATA = [(3, TypeError, "length"), (np.ones((5, 2)), ValueError, "6 items")]
NO_PROJECTION = [
    (3, TypeError, "callable"),
    (np.ones((3, 1)), ValueError, "dimension"),
    (np.ones(2), ValueError, "row"),
    (np.array([[np.nan], [1.0]]), ValueError, "finite"),
]
NO_STATE = [
    ({}, TypeError, "whole number"),
    (None, TypeError, "state_dict"),
    ("state", TypeError, "state_dict"),
    ({**STATE, "batch_size": 9}, ValueError, "batch_size"),
    ({**STATE, "epoch": -1}, ValueError, "at least 0"),
    ({**STATE, "batch": 0.5}, TypeError, "whole number"),
]
NO_AXES = [(3, TypeError, "axes"), ("axes", TypeError, "axes")]

ROWS = {
    "X_target": [*NO_POINTS, SHORT],
    "X_source": NO_SOURCE,
    "x": NO_SOURCE,
    "semi_dual_potential": [*NO_VECTOR, (None, ValueError, "one entry")],
    "init_potential": NO_VECTOR,
    "a_target": NO_WEIGHTS,
    "metric": NO_METRIC,
    **dict.fromkeys(("reg", "tol", "tol_value", "sample_cost"), NO_REAL),
    "reg_m": [row for row in NO_UNIT if row[0] is not None and row[0] is not np.inf] + NO_PRICE,
    "reg_m_type": [("l2", ValueError, "'kl'"), (None, TypeError, "'kl'"), (3, TypeError, "'kl'")],
    **dict.fromkeys(("learning_rate", "step"), NO_UNIT),
    **dict.fromkeys(("max_iter", "batch_size", "n_steps", "dual_steps", "n_batches"), NO_COUNT),
    **dict.fromkeys(("n", "dimension", "n_classes", "columns", "latent_dim", "channels"), NO_COUNT),
    **dict.fromkeys(("n_filters", "reuse", "checkpoint_every", "penalty_size"), NO_COUNT),
    "one_sided_derivatives.n_batches": [*NO_COUNT, (3, ValueError, "2 points or more")],
    "max_memory": COUNT_FROM_0,
    # applications
    "n_atoms": NO_COUNT,
    "n_points": [*NO_COUNT[2:], (0, ValueError, "at least 6"), (5, ValueError, "at least 6")],
    "level": [*NO_REAL, (1.01, ValueError, "[0, 1]")],
    "result": [(bad, TypeError, "solve_semidiscrete") for bad in (3, None, ATOMS)],
    "X_init": [*NO_POINTS, SHORT, (POINTS, ValueError, "6 points")],
    "n_probes": NO_COUNT,
    "n_init": [*NO_COUNT, (2, ValueError, "leave X_init out")],
    "ErrorBars.x": [*NO_SOURCE, (POINTS[:1], ValueError, "more points than 1")],
    "f": [
        *NO_CALLABLE,
        (lambda x, y: None, TypeError, "shape"),
        (lambda x, y: x @ y[:-1].T, ValueError, "each point and atom"),
        (lambda x, y: cast(x @ y.T, "float32"), ValueError, "float64"),
    ],
    "sources": [
        *[(bad, TypeError, "list") for bad in (3, None, "normal", [], {}, POINTS)],
        ([3], ValueError, "callable"),
        (["gauss"], ValueError, "normal"),
        ([np.ones((4, 3))], ANY, ""),
    ],
    "source_weights": [
        ([1.0], ValueError, "one for each"),
        (0.5, ValueError, "one for each"),
        ([0.6, 0.6], ValueError, "divide"),
        ([-0.5, 1.5], ValueError, "divide"),
        ([True, False], TypeError, "truth"),
        ([np.nan, 1.0], ValueError, "finite"),
        (["a", "b"], TypeError, "numbers"),
    ],
    "quantize.weights": [("Free", ValueError, "free"), (1, ValueError, "free"), (True, ValueError, "")],
    **dict.fromkeys(("callback", "generator", "latent_sampler"), NO_CALLABLE),
    "random_state": NO_SEED,
    "process_group": [(2, TypeError, "WORLD"), ("gloo", TypeError, "WORLD"), (True, TypeError, "WORLD")],
    "sampler_source": [
        (3, ANY, "callable"),
        (None, ANY, "callable"),
        ("gauss", ValueError, "normal"),
        *[row for row in NO_SOURCE if type(row[0]) is np.ndarray],
        (MASKED, TypeError, "mask"),
        *NO_BATCH,
    ],
    "theta": NO_PARAMETERS,
    "z": [
        (with_entry(POINTS, np.nan), ValueError, "finite"),
        (MASKED, TypeError, "mask"),
        (MATRIX, TypeError, "matrix"),
    ],
    "one_sided_derivatives.direction": [
        *NO_PARAMETERS,
        (np.zeros(5), ValueError, "shape"),
        ([np.ones(2)], ValueError, "shape"),
        ({"a": np.ones(2)}, ValueError, "shape"),
    ],
    "vjp": [
        *NO_CALLABLE,
        (lambda theta, z, cotangent: cotangent, ValueError, "sum"),
        (lambda theta, z, cotangent: None, ValueError, "sum"),
    ],
    "StoredAtoms.rows": [
        *[(bad, TypeError, "data set of real numbers") for bad in (3, None, "points", [[1.0]])],
        (np.ones(3), ValueError, "one row"),
        (np.zeros((0, 2)), ValueError, "at least 1"),
    ],
    "StoredAtoms.scale": [*NO_REAL[1:], (0.0, ValueError, "above 0"), (-0.1, ValueError, "above 0")],
    "StoredAtoms.like": [(np.ones(2, dtype=int), TypeError, "float32"), (3, TypeError, "like")],
    "dataset": [
        *[(bad, TypeError, "length") for bad in (3, None)],
        ([], ValueError, "at least one"),
        ([np.ones(2), np.ones(3)], ValueError, "like the first"),
    ],
    # pairs
    "solve_coupling.X_target": [
        *[(bad, error, words) for bad, error, words in NO_TENSOR if bad.ndim > 1],
        *[(bad, TypeError, "torch tensor") for bad in (MASKED, MATRIX, "points", None)],
    ],
    "noise": NO_NOISE,
    **dict.fromkeys(("n_reuse", "epoch_size", "part_size"), NO_COUNT),
    "n_components": [*NO_COUNT, (3, ValueError, "at most 2")],
    "SemiDiscretePairs.max_memory": NO_COUNT,
    "independent": [*NO_REAL, (1.1, ValueError, "at most 1")],
    "proportions": [
        (np.ones(3), ValueError, "2 numbers"),
        (np.array([-1.0, 1.0]), ValueError, "at least 0"),
        (np.zeros(2), ValueError, "at least 0"),
        (np.array([np.nan, 1.0]), ValueError, "finite"),
        (np.array([True, False]), TypeError, "numbers"),
        ([True, False], TypeError, "numbers"),
    ],
    **{f"{name}.labels": NO_CLASSES for name in ("solve_coupling", "SemiDiscretePairs")},
    "conditions": [
        (3, TypeError, "tensor"),
        (np.ones((5, 1)), ValueError, "each"),
        (np.full((6, 1), np.nan), ValueError, "finite"),
    ],
    "condition_weight": NO_REAL[:-1],
    "projection": NO_PROJECTION,
    "X_space": [
        (np.ones((5, 2)), ValueError, "6 points"),
        (np.ones((6, 3)), ValueError, "dimension"),
        (with_entry(ATOMS, np.nan), ValueError, "finite"),
        (3, TypeError, "tensor"),
    ],
    "init_coupling": [(3, TypeError, "solve_coupling")],
    "plan": [
        (3, TypeError, "coupling"),
        (None, TypeError, "coupling"),
        (with_entry(ATOMS, np.nan), ValueError, "X_target"),
    ],
    "data": NO_DATA,
    "transform": NO_CALLABLE,
    "index": NO_INDEX,
    "epoch": COUNT_FROM_0,
    **{f"{name}.load_state_dict.state": NO_STATE for name in ("SemiDiscretePairs", "StoredPairs")},
    **dict.fromkeys(("SemiDiscretePairs.precompute.path", "stack_dataset.path"), NO_PATH),
    "StoredPairs.path": [*NO_FILE, (__file__, ValueError, "SemiDiscretePairs.precompute")],
    "StoredPairs.batch_size": [*NO_COUNT, (3, ValueError, "divisor")],
    "device": [("cuda", ValueError, "cpu"), (3, TypeError, "name"), ("gpu", ValueError, "cpu")],
    "pairs": [(3, TypeError, "SemiDiscretePairs"), (None, TypeError, "SemiDiscretePairs")],
    "x0": [(3, TypeError, "tensor")],
    "x1": [(3, TypeError, "tensor"), (ATOMS + 1.0, ValueError, "augmented")],
    "y0": [(np.zeros(2), ValueError, "None")],
    # results, and files
    "where": [
        *[(bad, TypeError, "dtype") for bad in (3, None, int)],
        *[(bad, TypeError, "device that is here") for bad in ("cuda:99", "gpu")],
    ],
    "SemiDiscreteResult.save.path": NO_PATH,
    "SemiDiscreteResult.load.path": [*NO_FILE, (__file__, ValueError, "SemiDiscreteResult.save")],
    "SemiDiscreteResult.load.X_target": [*NO_POINTS, (np.ones((3, 2)), ValueError, "atoms")],
    "SemiDiscreteResult.load.metric": [
        ("sqeuclid", ValueError, "one of"),
        ("euclidean", ValueError, "sqeuclidean"),
        (3, TypeError, "callable"),
    ],
    "read_idx.path": [*NO_FILE, (__file__, ValueError, "IDX")],
    "folder": NO_FOLDER,
    # samplers
    "SobolSampler.dimension": [*NO_COUNT, (30_000, ValueError, "at most")],
    "law": [("gauss", ValueError, "normal"), (3, ValueError, "normal"), (None, ValueError, "normal")],
    "type_as": [
        ("float32", TypeError, "array"),
        (np.zeros(2, dtype=int), TypeError, "float32"),
        ([0.0], TypeError, "array"),
    ],
    "SobolSampler.load_state_dict.state": [
        ({}, ValueError, "entries"),
        (None, TypeError, "state_dict"),
        ("state", TypeError, "state_dict"),
        ({"dimension": 3, "seed": 0, "position": 0, "n_independent": 0}, ValueError, "dimension"),
        ({"dimension": 2, "seed": -1, "position": 0, "n_independent": 0}, ValueError, "at least"),
        ({"dimension": 2, "seed": "a", "position": 0, "n_independent": 0}, TypeError, "whole"),
        ({"dimension": 2, "seed": 0, "position": 2**33, "n_independent": 0}, ValueError, "at most"),
    ],
    "names": [(3, TypeError, "name"), ("", TypeError, "name")],
    # measures
    **{f"{name}.x": NO_SAMPLE for name in ("transport_cost", "nearest_cost")},
    **{f"{name}.x": NO_SAMPLE for name in ("covariance_ratio", "frechet_distance")},
    **{f"{name}.x": NO_SAMPLE for name in ("coverage", "precision_recall")},
    "y": NO_SAMPLE,
    "covariance_ratio.y": [*NO_SAMPLE, (np.ones((4, 2)), ValueError, "differ")],
    "frechet_distance.y": [*NO_SAMPLE, (np.ones((1, 2)), ValueError, "2 points")],
    "semi_dual_value.y": [*NO_POINTS, SHORT],
    "semi_dual_value.sampler": [(3, ANY, "callable"), (None, ANY, "callable"), *NO_BATCH],
    "unit": NO_UNIT,
    "shares": [
        (np.array([0.5, 0.6]), ValueError, "sum 1"),
        (np.array([1.5, -0.5]), ValueError, "non-negative"),
        (np.array([0.5, np.nan]), ValueError, "finite"),
        (np.ones((1, 1)), ValueError, "(n,)"),
        (np.zeros(0), ValueError, "(n,)"),
        (["a", "b"], TypeError, "numbers"),
        ([True, False], TypeError, "truth"),
        (0.5, ValueError, "(n,)"),
        (None, TypeError, "numbers"),
    ],
    "class_shares.labels": [*NO_LABELS, (LABELS + 1, ValueError, "n_classes")],
    "class_shares.n_classes": [*NO_COUNT, (2, ValueError, "n_classes")],
    "images": NO_IMAGES,
    "Classifier.images": [*NO_IMAGES, (np.ones((8, 3, 4)), ValueError, "4 by 4")],
    "Classifier.labels": [*NO_LABELS, (LABELS[:4], ValueError, "images")],
    **{f"Classifier.{name}.images": [*NO_IMAGES, OTHER_IMAGES] for name in ("features", "labels")},
    "Judge.images": [*NO_IMAGES, (0.0 * IMAGES, ValueError, "blank"), (IMAGES[:7], ValueError, "8")],
    "held_out": [*NO_IMAGES, OTHER_IMAGES, (np.ones((6, 4, 4)), ValueError, "differ")],
    "Judge.__call__.images": [*NO_IMAGES, OTHER_IMAGES, (IMAGES[:3], ValueError, "at least 4")],
    "classifier": [(3, TypeError, "Classifier"), (None, TypeError, "Classifier")],
    # figures
    "plot_cells.result": [(3, TypeError, "solve"), (None, TypeError, "solve")],
    "plot_images.images": [*NO_IMAGES, (np.full((2, 4, 4), 255, np.uint8), ValueError, "by 255")],
    "limits": [
        (3, ValueError, "four numbers"),
        (None, TypeError, "numbers"),
        ((1.0, 0.0, 0.0, 1.0), ValueError, "four numbers"),
        ((0.0, np.nan, 0.0, 1.0), ValueError, "finite"),
        ((False, True, False, True), TypeError, "truth"),
    ],
    "colors": [
        (np.ones((2, 3)), ValueError, "(6, 3)"),
        (2.0 * np.ones((6, 3)), ValueError, "[0, 1]"),
        (np.ones((6, 3), dtype=bool), TypeError, "truth"),
        ("red", TypeError, "numbers"),
    ],
    "n_pixels": NO_COUNT,
    "history": [
        (3, TypeError, "history"),
        (None, TypeError, "history"),
        ({"loss": [1.0]}, ValueError, "chi2"),
        ({"loss": ["a"], "chi2": [], "chi2_step": []}, TypeError, "numbers"),
    ],
    "axes": [*NO_AXES, ([1, 2], TypeError, "axes")],
    "ax": [*NO_AXES, (None, TypeError, "axes")],
    # generators
    "shape": [*NO_COUNTS, ((), ValueError, "at least 1")],
    "dcgan_generator.shape": [
        *NO_COUNTS,
        ((8,), ValueError, "height"),
        ((8, 8, 8), ValueError, "height"),
    ],
    "widths": NO_COUNTS,
    "dcgan_generator.channels": [*NO_COUNTS, ((), ValueError, "at least 1")],
    "kernel_size": [*NO_COUNT, (5, ValueError, "3 or 4")],
    **dict.fromkeys(("bias", "debias", "follow", "verbose"), NO_BOOL),
    "size": [(1, ValueError, "at least 2"), *NO_COUNT[2:]],
    "random_filters.unit": NO_REAL,
    "body": [(3, TypeError, "Module"), (abs, TypeError, "Module")],
    "share": [*NO_REAL, (1.0, ValueError, "[0, 1)")],
    "ImageFeatures.images": [
        *[(bad, ANY, "") for bad, *_ in NO_IMAGES if type(bad) is not np.ndarray or bad.ndim != 4],
        (np.ones((8, 4, 4)), ValueError, "differ"),
    ],
    **{
        f"ImageFeatures.{name}.x": [(None, TypeError, "tensor"), (IMAGES.tolist(), TypeError, "tensor")]
        + [(np.ones((3, 5)), ValueError, "shape")]
        for name in ("forward", "seen")
    },
    **dict.fromkeys(("patch_size", "n_scales", "k", "n_components"), NO_COUNT),
    "GradientPenaltyCritic.data": [
        *[(3, TypeError, "tensor"), (np.ones((0, 2)), ValueError, "at least one")],
        (np.arange(4), TypeError, "floating"),
    ],
    "network": [
        *[(bad, TypeError, "Module") for bad in (3, "mlp", ["perceptron"])],
        ("convolutional", ValueError, "give 'perceptron'"),
        (linear(2, frozen=True), ValueError, "parameters"),
    ],
    "GradientPenaltyCritic.share": NO_REAL,
    "penalty": NO_REAL,
    **{
        f"GradientPenaltyCritic.{name}.x": [
            (None, TypeError, "tensor"),
            (np.ones((3, 5)), ValueError, "shape"),
        ]
        + [(np.ones((0, 2)), ValueError, "at least one")] * (name == "step")
        for name in ("score", "step")
    },
    "rate": NO_REAL,
    "GradientPenaltyCritic.load_state_dict.state": [
        *[(bad, TypeError, "state_dict") for bad in (None, "state", {})],
    ],
    "pair_cost": [(bad, TypeError, "callable") for bad in (3, "gauss", ["cityblock"])],
    "critic": [(3, TypeError, "wgan-gp"), ("gan", TypeError, "wgan-gp")],
    "PatchLoss.image": [*NO_PICTURE, (IMAGES[None], ValueError, "one image")],
    **{f"PatchLoss.{name}.x": NO_PICTURE for name in ("forward", "follow", "patches")},
    "PatchLoss.anneal.share": NO_REAL,
    **{
        f"SemiDiscreteLoss.{name}.x": NO_ROWS
        for name in ("forward", "dual_step", "follow", "pair", "local")
    },
    "SemiDiscreteLoss.rows.x": [(None, TypeError, "as_tensor"), ("x", TypeError, "as_tensor")],
    "shift": [
        (np.zeros(3), ValueError, "columns"),
        (np.full(2, np.nan), ValueError, "finite"),
        ([0.0, 0.0], TypeError, "tensor"),
        (None, TypeError, "tensor"),
    ],
    "draw": [
        *NO_CALLABLE,
        (lambda: None, TypeError, "tensor"),
        (lambda: [[0.0, 0.0]], TypeError, "tensor"),
    ],
    "batches": [
        (3, TypeError, "tensors"),
        (None, TypeError, "tensors"),
        ([], ValueError, "tensors"),
        ([3], TypeError, "tensors"),
    ],
    "SemiDiscreteLoss.fit.sampler": [
        (3, ANY, "callable"),
        (None, ANY, "callable"),
        ("gauss", ValueError, "normal"),
        (np.ones((4, 3)), ValueError, "columns"),
        (lambda n: None, TypeError, "tensor"),
    ],
    "potential": [
        (3, TypeError, "Module"),
        (np.zeros(6), TypeError, "init_potential"),
        (linear(2, frozen=True), ValueError, "parameters"),
        (linear(2), ValueError, "one number for each atom"),
    ],
    "train_generator.generator": [*NO_CALLABLE, (linear(2, frozen=True), ValueError, "parameters")],
    "potential_optimizer": [
        *NO_CALLABLE,
        (lambda p: 3, TypeError, "optimizer"),
    ],
    "features": [
        *NO_CALLABLE,
        (lambda x: None, ValueError, "rows"),
        (lambda x: x[:1], ValueError, "rows"),
        (lambda x: x - x.mean(0), ValueError, "same features"),
    ],
    "optimizer": [*NO_CALLABLE, (lambda p: 3, TypeError, "optimizer")],
    "checkpoint": NO_PATH[:1] + NO_PATH[2:],
    "target": [(None, TypeError, "tensor"), *NO_TENSOR],
    "train_generator.latent_sampler": [
        *NO_COUNT,
        (("gauss", 2), TypeError, "a pair of a name (unif"),
        (POINTS, TypeError, "of an array of points give lambda n"),
        (dict, TypeError, "received the class dict"),
    ],
}
NAMED_OTHERWISE = {  # in errors
    "train_generator.target": "X_target",  # those of the loss that it makes
    "SemiDiscreteLoss.majorants.batches": "batches|x",
    "SemiDiscreteLoss.warm_up.draw": "draw|x",
    "SemiDiscreteLoss.fit.sampler": "sampler|sampler_source|x",
    "semi_dual_value.sampler": "sampler|sampler_source",  # as of the solver
    "SemiDiscreteResult.load.path": "path|test_doors.py",  # the file itself
    "read_idx.path": "path|test_doors.py",
    "StoredPairs.path": "path|test_doors.py",
    "SemiDiscretePairs.plan": "plan|X_target",
}
FREE = {
    "mode": "that of torch.nn.Module.train",
    "title": "any text, as matplotlib takes it",
    "y1": "as it comes, it is returned",
    "replace": "any truth value, of which torchcfm's is meant",
}


def cast(a, dtype):
    """An array in another dtype."""
    if hasattr(a, "astype"):
        return a.astype(dtype)
    return a.to(getattr(importlib.import_module("torch"), dtype))


def module(name):
    """A module of the package."""
    return importlib.import_module(f"pot_semidiscrete{name}")


def reflected():
    """All public functions, methods, setters and classes that users call, by name."""
    found = {}
    for where in MODULES:
        names = getattr(module(where), "__all__", None)
        own = [name for name, v in vars(module(where)).items() if inspect.isfunction(v)]
        own = [name for name in own if vars(module(where))[name].__module__ == module(where).__name__]
        for name in own if names is None else names:
            value = getattr(module(where), name)
            if name in (*DERIVED, SHARED) or name.startswith("_"):
                continue
            if name not in (*RECEIVED, "SemiDiscreteWarning"):
                found[name] = value
            if inspect.isclass(value):
                found |= {f"{name}.{key}": method for key, method in methods(value)}
    return found


def methods(kind):
    """Public methods of a class that the package wrote, and setters of its properties."""
    for key in dir(kind):
        value = inspect.getattr_static(kind, key)
        value = value.fset if isinstance(value, property) else value
        value = getattr(kind, key) if isinstance(value, classmethod) else value
        ours = getattr(value, "__module__", None) or ""
        is_public = key == "__call__" or (not key.startswith("_") and key not in HOOKS)
        if is_public and inspect.isroutine(value) and ours.startswith("pot_semidiscrete"):
            yield key, value


FUNCTIONS = reflected()


def parameters(name):
    """Arguments of a public function, by name."""
    found = inspect.signature(FUNCTIONS[name]).parameters.values()
    return {p.name: p for p in found if p.name != "self"}


def rows_of(name, argument):
    """Bad values of an argument, or None."""
    return next((ROWS[key] for key in (f"{name}.{argument}", argument) if key in ROWS), None)


def is_free(name, argument):
    """Whether there is a reason for no rows."""
    return f"{name}.{argument}" in FREE or (argument in FREE and rows_of(name, argument) is None)


class Given(Backend):
    """What valid calls are made of, in a backend."""

    def __init__(self, kind, folder):
        super().__init__(kind, "float64")
        self.folder = folder

    def __call__(self, *names, **more):
        array = self.array
        values = {
            "X_target": array(ATOMS),
            "a_target": array(np.full(6, 1 / 6)),
            "metric": "sqeuclidean",
            "reg": 0.1,
            "X_source": array(POINTS),
            "x": array(POINTS),
            "semi_dual_potential": array(np.zeros(6)),
            "init_potential": array(np.zeros(6)),
            "generator": lambda theta, z: z + theta,
            "theta": array(np.zeros(2)),
            "z": array(POINTS),
            "vjp": lambda theta, z, cotangent: cotangent.sum(0),
            "latent_sampler": lambda n: array(np.random.default_rng(n).normal(size=(n, 2))),
            "callback": lambda *facts: None,
        }
        values |= dict.fromkeys(("n_steps", "dual_steps", "max_iter"), 1)
        values |= {"batch_size": 8, "tol": 0.0, "random_state": 0}
        return {name: values[name] for name in names} | more

    @property
    def moved(self):
        """What atoms that move are given."""
        return {"n_atoms": 6, "X_init": self.array(ATOMS), "n_points": 300}

    @property
    def fitted(self):
        """What error bars are told of."""
        x = np.random.default_rng(3).normal(size=(100, 2))
        return {"result": solved(self.kind), "x": self.array(x)}

    @property
    def loss(self):
        return FUNCTIONS["SemiDiscreteLoss"](self.array(ATOMS), reg=0.1)

    @property
    def saved(self):
        solved(self.kind).save(self.folder / "result.npz")
        return self.folder / "result.npz"

    @property
    def pairs(self):
        return FUNCTIONS["SemiDiscretePairs"](self.array(ATOMS), batch_size=2, random_state=0)

    @property
    def table(self):
        self.pairs.precompute(6, self.folder / "pairs.npz")
        return self.folder / "pairs.npz"

    def folder_of(self, *names, shape=(2, 4, 4)):
        """A folder that has files of these names."""
        for name in names:
            (self.folder / name).write_bytes(idx(np.zeros(shape, np.uint8)))
        return self.folder

    def axes(self, n):
        pyplot = pytest.importorskip("matplotlib.pyplot")
        pyplot.switch_backend("agg")
        pyplot.close("all")
        return pyplot.subplots(1, n)[1]


@functools.cache
def solved(kind):
    """A result, once for each backend."""
    atoms = Backend(kind, "float64").array(ATOMS)
    return sd.solve_semidiscrete(atoms, "normal", reg=0.1, tol=0, max_iter=2, random_state=0)


@functools.cache
def trained():
    """A classifier."""
    return FUNCTIONS["Classifier"](IMAGES, LABELS, n_steps=1)


@functools.cache
def judged():
    """A judge."""
    return FUNCTIONS["Judge"](IMAGES, IMAGES[:6], trained())


def mean(x):
    return x.flatten(1).mean(1)


OWNERS = {
    "SemiDiscreteResult": lambda given: solved(given.kind),
    "SemiDiscreteLoss": lambda given: given.loss,
    "CenterOutwardRanks": lambda given: FUNCTIONS["CenterOutwardRanks"](solved(given.kind), n_points=9),
    "ErrorBars": lambda given: FUNCTIONS["ErrorBars"](**given.fitted),
    "SobolSampler": lambda given: FUNCTIONS["SobolSampler"](2, random_state=0),
    "SemiDiscreteCoupling": lambda given: given.pairs.coupling,
    "SemiDiscretePairs": lambda given: given.pairs,
    "StoredPairs": lambda given: FUNCTIONS["StoredPairs"](given.table, given.array(ATOMS), batch_size=2),
    "PlanSampler": lambda given: FUNCTIONS["PlanSampler"](given.pairs),
    "ImageFeatures": lambda given: FUNCTIONS["ImageFeatures"](given.array(IMAGES)),
    "PatchLoss": lambda given: FUNCTIONS["PatchLoss"](**CALLS["PatchLoss"](given)),
    "GradientPenaltyCritic": lambda given: FUNCTIONS["GradientPenaltyCritic"](given.array(ATOMS)),
    "TrainingResult": lambda given: module(".generative").TrainingResult(None, None, dict(HISTORY)),
    "Classifier": lambda given: trained(),
    "Judge": lambda given: judged(),
}
TARGET = ("X_target", "a_target", "metric", "reg")
POINTWISE = (*TARGET, "X_source", "semi_dual_potential")
RUN = ("tol", "max_iter", "batch_size", "init_potential", "random_state", "callback")
MOVES = "reg", "n_steps", "random_state"
HISTORY = {"loss": np.ones(3), "chi2": np.ones(1), "chi2_step": np.ones(1)}
SAMPLES = {"x": POINTS, "y": ATOMS}

LOADERS = "SemiDiscretePairs", "StoredPairs"
PLANS = "SemiDiscreteResult", "ErrorBars"

# Arguments of a valid call, by function.
CALLS = {
    "cost_scale": lambda given: given(*TARGET[:-1]),
    "gradient_diagnostics": lambda given: given(*POINTWISE),
    **{name: lambda given: given(*POINTWISE) for name in FUNCTIONS if name.startswith("semidiscrete_")},
    "solve_semidiscrete": lambda given: given(*TARGET, *RUN, sampler_source="normal"),
    "generator_gradient": lambda given: given(
        *TARGET, "generator", "theta", "z", "vjp", "semi_dual_potential"
    ),
    "one_sided_derivatives": lambda given: given(
        *TARGET, "generator", "theta", "z", direction=given.array(np.ones(2)), step=0.1, n_batches=2
    ),
    "train_parameters": lambda given: given(
        *(*TARGET, "generator", "theta", "vjp", "latent_sampler", "n_steps", "dual_steps"),
        *("batch_size", "init_potential", "random_state", "callback"),
    ),
    **{
        f"{kind}.{name}": lambda given: given("x")
        for kind in PLANS
        for name in ("c_transform", "atom_weights", "ot_map", "map_stderr", "diagnose")
    },
    **{f"{kind}.functional": lambda given: {"f": lambda x, y: x @ y.T} for kind in PLANS},
    **{f"{kind}.pair": lambda given: given("x", "random_state") for kind in PLANS},
    **{f"{kind}.to": lambda given: {"where": np.float64} for kind in PLANS},
    "SemiDiscreteResult.save": lambda given: {"path": given.folder / "saved.npz"},
    "SemiDiscreteResult.load": lambda given: given("X_target", path=given.saved),
    "CenterOutwardRanks": lambda given: given("random_state", result=solved(given.kind)),
    **{f"CenterOutwardRanks.{name}": lambda given: given("x") for name in ("ranks", "depth")},
    "CenterOutwardRanks.contour": lambda given: {"level": 0.5, "n": 4},
    "ErrorBars": lambda given: given("random_state", **given.fitted),
    "quantize": lambda given: given(*MOVES, **given.moved, sampler_source=given.array(POINTS)),
    "barycenter": lambda given: given(*MOVES, **given.moved, sources=["normal", given.array(POINTS)]),
    "SobolSampler": lambda given: {"dimension": 2, "generator": lambda z: z},
    "SobolSampler.__call__": lambda given: {"n": 4},
    "SobolSampler.independent": lambda given: {"n": 4},
    "SobolSampler.state_dict": lambda given: {},
    "SobolSampler.load_state_dict": lambda given: {"state": OWNERS["SobolSampler"](given).state_dict()},
    "register_law": lambda given: {"names": "law_of_this_test"},
    "plot_history": lambda given: {"history": HISTORY, "axes": given.axes(2)},
    "plot_cells": lambda given: {"result": solved("numpy"), "ax": given.axes(1), "n_pixels": 3},
    "plot_images": lambda given: {"images": IMAGES, "ax": given.axes(1)},
    "read_idx": lambda given: {"path": given.folder_of("file") / "file"},
    "load_mnist": lambda given: {
        "folder": given.folder_of("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")
    },
    "load_mnist_labels": lambda given: {
        "folder": given.folder_of("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte", shape=(2,))
    },
    "transport_cost": lambda given: SAMPLES,
    "nearest_cost": lambda given: SAMPLES,
    "coverage": lambda given: {**SAMPLES, "k": 1},
    "precision_recall": lambda given: {**SAMPLES, "k": 1},
    "covariance_ratio": lambda given: SAMPLES,
    "frechet_distance": lambda given: SAMPLES,
    "semi_dual_value": lambda given: given(
        "reg",
        "batch_size",
        sampler=lambda n: given.array(np.ones((n, 2))),
        y=given.array(ATOMS),
        n_batches=2,
    ),
    "class_shares": lambda given: {"labels": LABELS, "n_classes": 3},
    "entropy": lambda given: {"shares": np.array([0.5, 0.5])},
    "Classifier": lambda given: {"images": IMAGES, "labels": LABELS, "n_steps": 1},
    "Classifier.features": lambda given: {"images": IMAGES},
    "Classifier.labels": lambda given: {"images": IMAGES},
    "Judge": lambda given: {"images": IMAGES, "held_out": IMAGES[:6], "classifier": trained()},
    "Judge.__call__": lambda given: {"images": IMAGES},
    "TrainingResult.plot": lambda given: {"axes": given.axes(2)},
    "mlp_generator": lambda given: {"latent_dim": 2, "shape": (4, 4), "widths": (8,)},
    "dcgan_generator": lambda given: {"latent_dim": 2, "shape": (8, 8), "channels": (8, 8)},
    "random_filters": lambda given: {"n_filters": 2},
    "ImageFeatures": lambda given: {"images": given.array(IMAGES)},
    "GradientPenaltyCritic": lambda given: {"data": given.array(ATOMS), "random_state": 0},
    "GradientPenaltyCritic.score": lambda given: {"x": given.array(ATOMS)},
    "GradientPenaltyCritic.step": lambda given: {"x": given.array(ATOMS)},
    "GradientPenaltyCritic.state_dict": lambda given: {},
    "GradientPenaltyCritic.load_state_dict": lambda given: {
        "state": OWNERS["GradientPenaltyCritic"](given).state_dict()
    },
    "ImageFeatures.forward": lambda given: {"x": given.array(IMAGES)},
    "ImageFeatures.seen": lambda given: {"x": given.array(IMAGES)},
    "ImageFeatures.train": lambda given: {"mode": True},
    "PatchLoss": lambda given: given(
        *("reg", "random_state"), image=given.array(IMAGES[0]), patch_size=4, n_scales=1
    ),
    **{
        f"PatchLoss.{name}": lambda given: {"x": given.array(IMAGES[1])}
        for name in ("forward", "follow", "patches")
    },
    "PatchLoss.anneal": lambda given: {"share": 0.5},
    "PatchLoss.extra_repr": lambda given: {},
    "SemiDiscreteLoss": lambda given: given(*TARGET),
    **{
        f"SemiDiscreteLoss.{name}": lambda given: given("x")
        for name in ("forward", "dual_step", "follow", "pair", "rows", "local")
    },
    "SemiDiscreteLoss.reg": lambda given: {"reg": 0.2},
    "SemiDiscreteLoss.extra_repr": lambda given: {},
    "SemiDiscreteLoss.translate": lambda given: {"shift": given.array(np.ones(2))},
    "SemiDiscreteLoss.warm_up": lambda given: {"draw": lambda: given.array(POINTS), "n_batches": 2},
    "SemiDiscreteLoss.majorants": lambda given: {"batches": [given.array(POINTS)]},
    "SemiDiscreteLoss.fit": lambda given: given(*RUN, sampler=given("latent_sampler")["latent_sampler"]),
    "StoredAtoms": lambda given: {"rows": given.array(ATOMS)},
    "stack_dataset": lambda given: {"dataset": [given.array(ATOMS), given.array(ATOMS)]},
    "solve_coupling": lambda given: given("X_target", "max_iter", "random_state"),
    "SemiDiscreteCoupling.to": lambda given: {"where": "cpu"},
    "SemiDiscretePairs": lambda given: {"plan": given.array(ATOMS), "random_state": 0},
    **{f"{name}.set_epoch": lambda given: {"epoch": 1} for name in LOADERS},
    **{f"{name}.state_dict": lambda given: {} for name in LOADERS},
    **{
        f"{name}.load_state_dict": lambda given, name=name: {"state": OWNERS[name](given).state_dict()}
        for name in LOADERS
    },
    "SemiDiscretePairs.noise_for": lambda given: {"index": as_given(np.arange(2), given)},
    "SemiDiscretePairs.precompute": lambda given: {"n": 6, "path": given.folder / "pairs.npz"},
    "StoredPairs": lambda given: {"path": given.table, "data": given.array(ATOMS), "batch_size": 2},
    "PlanSampler": lambda given: {"pairs": given.pairs},
    **{
        f"PlanSampler.{name}": lambda given: {"x0": given.array(ATOMS), "x1": given.array(ATOMS)}
        for name in ("sample_plan", "sample_plan_with_labels")
    },
    "train_generator": lambda given: given(
        "batch_size", "n_steps", generator=linear(2), latent_sampler=2, target=given.array(ATOMS)
    ),
}
NEEDS = {  # beside what a call has
    "potential_optimizer": lambda given: {"potential": linear()},
    "proportions": lambda given: {"labels": as_given(np.arange(6) % 2, given)},
    "condition_weight": lambda given: {"conditions": given.array(ATOMS)},
}


def backends_of(name):
    """Those in which a function is tested: one, if it is not for users' arrays."""
    where = FUNCTIONS[name].__module__.removeprefix("pot_semidiscrete.").partition(".")[0]
    if where == "generative":
        return ["torch"]
    on_host = where in ("metrics", "plot", "datasets", "samplers") and name != "semi_dual_value"
    if on_host and name.startswith(("Classifier", "Judge")) and not HAS_TORCH:
        return []
    return ["numpy"] if on_host else BACKENDS


def call(name, given, **changed):
    """Call a function with the arguments of its valid call, some of them changed."""
    owner, _, method = name.partition(".")
    kwargs = CALLS[name](given) | changed
    before = [OWNERS[owner](given)] if method and not inspect.ismethod(FUNCTIONS[name]) else []
    for p in parameters(name).values():  # by place, where a name will not do
        if p.kind is inspect.Parameter.VAR_POSITIONAL:
            before.append(kwargs.pop(p.name))
    return FUNCTIONS[name](*before, **kwargs)


def as_given(bad, given):
    """A bad value, an array of NumPy in the backend of the call, its dtype kept."""
    if type(bad) is not np.ndarray or given.name == "numpy":
        return bad
    if given.name == "torch":
        return importlib.import_module("torch").as_tensor(bad, device=given.device)
    return importlib.import_module({"jax": "jax.numpy"}.get(given.name, given.name)).asarray(bad)


NAMES = [(name, kind) for name in FUNCTIONS if name in CALLS for kind in backends_of(name)]
CASES = [
    pytest.param(name, argument, kind, id=f"{name}-{argument}-{kind}")
    for name, kind in NAMES
    for argument in parameters(name)
    if rows_of(name, argument)
]


def test_every_argument_has_rows_or_a_reason():
    used = set()
    for name in FUNCTIONS:
        assert name in CALLS, f"{name} has no valid call in CALLS"
        for argument in parameters(name):
            assert is_free(name, argument) != bool(rows_of(name, argument)), (
                f"{name}: {argument} is in ROWS, of bad values, or in FREE, of reasons for none"
            )
            used |= {argument, f"{name}.{argument}"}
    if HAS_TORCH:  # or some tables are for what is not there
        assert set(ROWS) | set(FREE) | set(NAMED_OTHERWISE) | set(NEEDS) <= used
        assert set(CALLS) <= set(FUNCTIONS)


@pytest.mark.parametrize(("name", "kind"), NAMES)
def test_call_is_valid(name, kind, tmp_path):
    call(name, Given(kind, tmp_path))


def check_refusal(name, argument, bad, error, words, given):
    """An error says of this argument what was expected and what was received."""
    more = NEEDS.get(argument, lambda given: {})(given)
    with pytest.raises(error) as caught:
        call(name, given, **more | {argument: as_given(bad, given)})
    said = str(caught.value)
    called = NAMED_OTHERWISE.get(f"{name}.{argument}", re.escape(argument))
    assert re.search(rf"\b({called})\b", said), said
    for word in ("expected", "received", words):
        assert word in said, said


@pytest.mark.parametrize(("name", "argument", "kind"), CASES)
def test_bad_values_are_refused_by_name(name, argument, kind, tmp_path):
    is_none_allowed = parameters(name)[argument].default is None  # and no mistake
    for k, (bad, error, words) in enumerate(rows_of(name, argument)):
        folder = tmp_path / str(k)
        folder.mkdir()
        if bad is not None or not is_none_allowed:
            check_refusal(name, argument, bad, error, words, Given(kind, folder))
