"""Results in files that are read without pickle, and are not trusted."""

import json
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
from ot.backend import get_backend

from ..backend import Array, all_finite, describe
from ..costs import Metric, registered_costs
from ..problem import (
    Target,
    build_target,
    check_atoms,
    projection,
    same_costs,
    same_projection,
    sample_costs,
)
from ..runs import SemiDiscreteWarning, check_input, replaced
from ..runs.archive import Archive, check_facts, is_count
from .errors import NormalLaw
from .estimates import Certificate, Estimates, Evaluation, StoredEstimates

_FORMATS = [1, 2]  # 1: of version 0.1.0, which knows its atoms by a projection
FACTS = ("status", "reg", "n_iter", "n_samples", "work")
_FLOATS = ("value_stderr", "chi2", "chi2_stderr", "marginal_error", "marginal_error_stderr")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_estimate(value: Any) -> bool:
    """A finite number, or None where nothing is known."""
    return value is None or (_is_number(value) and math.isfinite(value))


def _is_error(value: Any) -> bool:
    """A number of at least 0, or NaN where nothing is known."""
    return _is_number(value) and not value < 0.0


def _is_interval(value: Any) -> bool:
    """Two ordered numbers, or None where nothing is known."""
    if value is None:
        return True
    ends = isinstance(value, list) and len(value) == 2 and all(_is_number(end) for end in value)
    return ends and not value[0] > value[1]


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "format": _FORMATS.__contains__,
    "status": ["converged", "stalled", "max_iter", "stopped", "interrupted", "failed"].__contains__,
    "metric": lambda value: isinstance(value, str),
    "reg": lambda value: _is_number(value) and 0.0 <= value < math.inf,
    "reg_m": lambda value: _is_number(value) and not value <= 0.0,
    "n_iter": is_count,
    "n_samples": is_count,
    "work": _is_error,
    "value": _is_estimate,
    "value_linear": _is_estimate,
    "chi2": _is_number,
    "value_interval": _is_interval,
    "suboptimality": _is_number,
    "entries": lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value),
    **dict.fromkeys(("value_stderr", "chi2_stderr", "suboptimality_bound"), _is_error),
    **dict.fromkeys(("marginal_error", "marginal_error_stderr"), _is_error),
}


def write(
    path: str | os.PathLike,
    target: Target,
    potential: Array,
    estimates: Estimates | StoredEstimates,
    facts: dict[str, Any],
    log: dict[str, np.ndarray],
) -> None:
    """Write a result: potential of all atoms, estimates, facts and history.

    The atoms are not written, only what is needed to recognise them.
    """
    host, evaluation = target.nx.to_numpy, estimates.evaluation
    number = lambda value: None if value is None else float(value)
    meta = facts | {name: getattr(evaluation, name) for name in _FLOATS}
    meta |= {"value": number(evaluation.value), "value_linear": number(estimates.value_linear)}
    meta |= asdict(estimates.certificate)
    meta |= {"format": _FORMATS[-1], "metric": target.cost.name, "digest": target.digest}
    meta |= {"reg_m": target.reg_m}
    arrays = {
        "potential": host(potential),
        "weights": host(target.distribute(target.weights)),
        "costs": sample_costs(target),
    }
    if evaluation.marginal is not None:
        arrays["marginal"] = host(target.distribute(evaluation.marginal))
    if estimates.made_law is not None:
        arrays |= {f"law_{name}": host(v) for name, v in vars(estimates.made_law).items()}
    arrays |= {f"log_{name}": np.asarray(values) for name, values in log.items()}
    arrays["meta"] = np.array(json.dumps(meta | {"entries": sorted(arrays)}))
    ranks = None if target.shard is None else target.shard.ranks
    if ranks is None or ranks.rank == 0:
        with replaced(path) as file:
            np.savez_compressed(file, **arrays)
    if ranks is not None:
        ranks.handshake("state")  # no rank goes on before there is a file


def read(path: str | os.PathLike, X_target: Array, metric: Metric) -> dict[str, Any]:
    """Arguments of the result that :func:`write` wrote, for the atoms it was computed for."""
    path = check_input("path", path)
    X_target, like = check_atoms(X_target)
    try:
        with open(path, "rb") as file:
            archive = Archive(file)
            meta = _facts(archive)
            stored = _arrays(archive, meta)
    except ValueError as error:
        raise ValueError(
            f"{path}: expected a file written by SemiDiscreteResult.save, format 1 or 2, received "
            f"{error}; solve again, or read a copy of the file that is whole."
        ) from error
    n_atoms = len(stored["weights"])
    if n_atoms != X_target.shape[0]:
        raise ValueError(
            f"X_target: expected the {n_atoms} atoms of the result in {path}, received "
            f"{X_target.shape[0]}."
        )
    if metric is None and meta["metric"] not in registered_costs():
        raise ValueError(
            f"metric: expected that of the result in {path}, {meta['metric']!r}, a callable or one with "
            "constants, of which the file has the name only, received None; give it."
        )
    weights = stored["weights"] / stored["weights"].sum()
    weights = get_backend(like).from_numpy(weights, type_as=like)
    target = build_target(X_target, weights, metric if metric is not None else meta["metric"])
    if target.cost.name != meta["metric"]:
        raise ValueError(
            f"metric: expected {meta['metric']!r}, that of the result in {path}, received "
            f"{target.cost.name!r}."
        )
    _check_atoms(path, target, meta, stored)
    return _arguments(replace(target, reg_m=float(meta["reg_m"])), meta, stored)


def _facts(archive: Archive) -> dict[str, Any]:
    """Facts of a file, each of the kind and in the range that it should have."""
    meta = json.loads(str(archive.array("meta", "U", ())))
    if not isinstance(meta, dict) or not _CHECKS["format"](meta.get("format")):
        raise ValueError(f"format {meta.get('format') if isinstance(meta, dict) else meta!r}")
    not_in_0_1_0 = ("work", "marginal_error", "marginal_error_stderr", "suboptimality_bound")
    meta = dict.fromkeys(not_in_0_1_0, math.nan) | {"reg_m": math.inf, "entries": []} | meta
    check_facts(meta, _CHECKS)
    return meta


def _arrays(archive: Archive, meta: dict[str, Any]) -> dict[str, np.ndarray]:
    """Arrays of a file, finite, of the shapes and in the range that they should have."""
    stored = {"weights": archive.array("weights", "f", (None,)).astype(float)}
    for name in ("potential",) + ("marginal",) * ("marginal" in archive):
        stored[name] = archive.array(name, "f", stored["weights"].shape)
    if meta["format"] > 1 and sorted(archive) != sorted([*meta["entries"], "meta"]):
        raise ValueError(f"the entries {sorted(archive)}")
    if meta["format"] == 1:
        stored["fingerprint"] = archive.array("fingerprint", "f", (None,))
    else:
        stored["costs"] = archive.array("costs", "f", (None, None))
    if "law_mean" in archive:
        stored["law_mean"] = archive.array("law_mean", "f", (None,))
        stored["law_deviations"] = archive.array(
            "law_deviations", "f", (None, *stored["law_mean"].shape)
        )
    for name, values in stored.items():
        if not np.isfinite(values).all():
            raise ValueError(f"an entry {name!r} with NaN or inf")
    weights = stored["weights"]
    if weights.min(initial=0.0) < 0.0 or abs(weights.sum() - 1.0) > 1e-3:
        raise ValueError(f"weights of sum {weights.sum():.6g}, the least of them {weights.min():.3g}")
    for name in archive:
        if name.startswith("log_"):
            stored[name] = archive.array(name, "fiu", (None,))
    return stored


def _check_atoms(path: str, target: Target, meta: dict[str, Any], stored: dict[str, np.ndarray]) -> None:
    """Refuse atoms that are not those of the file."""
    if meta["format"] == 1:
        same = same_projection(stored["fingerprint"], projection(target))
        warnings.warn(
            f"{path}: it was written by version 0.1.0, which kept too little of the atoms to tell them "
            "from all others; save it again.",
            SemiDiscreteWarning,
            stacklevel=4,
        )
    else:
        same = meta.get("digest") == target.digest
    if not same:
        raise ValueError(
            f"X_target: expected the atoms of the result in {path}, in the same order and of the same "
            "values in single precision, received others."
        )
    places = target.weights.shape
    if "law_mean" in stored and stored["law_mean"].shape != places:
        raise ValueError(
            f"{path}: expected an entry 'law_mean' of shape {tuple(places)}, received "
            f"{describe(stored['law_mean'])}; give the atoms in the dtype of the run, or read a "
            "copy of the file that is whole."
        )
    if "costs" in stored and not same_costs(stored["costs"], sample_costs(target)):
        raise ValueError(
            f"metric: expected the one of the result in {path}, received another of the same name, "
            f"{meta['metric']!r}; give it the constants that it had."
        )


def _arguments(target: Target, meta: dict[str, Any], stored: dict[str, np.ndarray]) -> dict[str, Any]:
    """Keyword arguments of SemiDiscreteResult, in the backend and dtype of the target."""
    nx = target.nx

    def like(a: Any) -> Array:
        return None if a is None else nx.from_numpy(np.asarray(a), type_as=target.weights)

    marginal, potential = like(stored.get("marginal")), like(stored["potential"])
    if not all_finite(potential, nx):
        raise ValueError("X_target: expected a dtype that holds the potential, received float32.")
    evaluation = Evaluation(
        marginal=None if marginal is None else target.collect(marginal),
        value=like(meta["value"]),
        **{name: meta[name] for name in _FLOATS},
    )
    facts = {f.name: meta[f.name] for f in fields(Certificate)}
    interval = facts["value_interval"]
    certificate = Certificate(
        **facts | {"value_interval": None if interval is None else tuple(interval)}
    )
    law = None
    if "law_mean" in stored:
        law = NormalLaw(like(stored["law_mean"]), like(stored["law_deviations"]))
    return {
        "target": target,
        "potential": target.merge(potential, meta["reg"]),
        "estimates": StoredEstimates(evaluation, like(meta["value_linear"]), certificate, law),
        "log": {name[4:]: v for name, v in stored.items() if name.startswith("log_")},
        **{name: meta[name] for name in FACTS},
    }
