"""Results in files that are read without pickle."""

import json
import math
import os
from dataclasses import asdict, fields
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ..backend import Array
from ..costs import Metric
from ..problem import Target, build_target, check_points, fingerprint, same_fingerprint
from ..runs import replaced
from .estimates import Certificate, Estimates, Evaluation, StoredEstimates

_FORMAT = 1
FACTS = ("status", "reg", "n_iter", "n_samples", "work")
_LATER = ("work", "marginal_error", "marginal_error_stderr", "suboptimality_bound")  # not in 0.1.0
_FLOATS = ("value_stderr", "chi2", "chi2_stderr", "marginal_error", "marginal_error_stderr")


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
    meta |= {"format": _FORMAT, "metric": target.cost.name, "converged": facts["status"] == "converged"}
    arrays = {
        "meta": np.array(json.dumps(meta)),
        "potential": host(potential),
        "weights": host(target.distribute(target.weights)),
        "fingerprint": fingerprint(target),
    }
    if evaluation.marginal is not None:
        arrays["marginal"] = host(target.distribute(evaluation.marginal))
    arrays |= {f"log_{name}": np.asarray(values) for name, values in log.items()}
    with replaced(path) as file:
        np.savez_compressed(file, **arrays)


def read(path: str | os.PathLike, X_target: Array, metric: Metric) -> dict[str, Any]:
    """Arguments of the result that :func:`write` wrote, for the atoms it was computed for."""
    stored, meta = _read(path)
    X_target, nx = check_points("X_target", X_target)
    if len(stored["weights"]) != X_target.shape[0]:
        raise ValueError(
            f"X_target: expected the {len(stored['weights'])} atoms of the saved result, "
            f"received {X_target.shape[0]}."
        )
    weights = stored["weights"].astype(float)
    weights = nx.from_numpy(weights / weights.sum(), type_as=X_target)
    target = build_target(X_target, weights, metric if metric is not None else meta["metric"])
    if target.cost.name != meta["metric"]:
        raise ValueError(
            f"metric: expected {meta['metric']!r}, that of the saved result, received "
            f"{target.cost.name!r}."
        )
    if not same_fingerprint(stored["fingerprint"], fingerprint(target)):
        raise ValueError(
            "X_target: expected the atoms of the saved result, in the same order, received others."
        )

    def like(a: Any) -> Array:
        return None if a is None else nx.from_numpy(np.asarray(a), type_as=X_target)

    marginal = like(stored.get("marginal"))
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
    return {
        "target": target,
        "potential": target.merge(like(stored["potential"]), meta["reg"]),
        "estimates": StoredEstimates(evaluation, like(meta["value_linear"]), certificate),
        "log": {name[4:]: v for name, v in stored.items() if name.startswith("log_")},
        **{name: meta[name] for name in FACTS},
    }


def _read(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and facts of a file that :meth:`SemiDiscreteResult.save` wrote."""
    try:
        with np.load(path, allow_pickle=False) as file:
            stored = {name: file[name] for name in file.files}
        meta = json.loads(str(stored.pop("meta")))
        received = f"format {meta['format']}"
    except FileNotFoundError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OSError, EOFError, BadZipFile) as error:
        meta, received = {}, f"something else ({type(error).__name__})"
    if meta.get("format") != _FORMAT:
        raise ValueError(
            f"{path}: expected a file written by SemiDiscreteResult.save, format {_FORMAT}, received "
            f"{received}."
        )
    return stored, dict.fromkeys(_LATER, math.nan) | meta
