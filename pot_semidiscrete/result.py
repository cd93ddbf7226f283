"""The result of the solver, an :class:`ot.utils.OTResult` that can be used and kept."""

import json
import math
from zipfile import BadZipFile

import numpy as np
from ot.utils import OTResult

from .diagnostics import diagnose
from .differentiable import field
from .inference.estimates import Certificate, Evaluation, StoredEstimates
from .kernels import weight_blocks
from .problem import build_target, check_points, fingerprint, same_fingerprint
from .runs import replaced
from .samplers.resolve import resolve_random

_FORMAT = 1
_FACTS = ("status", "reg", "n_iter", "n_samples")
_LATER = ("work", "marginal_error", "marginal_error_stderr", "suboptimality_bound")  # not in 0.1.0
_SCALARS = ("value", "value_linear")
_FLOATS = ("value_stderr", "chi2", "chi2_stderr", "marginal_error", "marginal_error_stderr")
_CERTIFICATE = ("value_interval", "suboptimality", "suboptimality_bound")
_ABSENT = {
    "potentials": "the source potential is a function: see c_transform(x)",
    "potential_a": "the source potential is a function: see c_transform(x)",
    "plan": "the source is not a finite set: see atom_weights(x)",
    "sparse_plan": "the source is not a finite set: see atom_weights(x)",
    "lazy_plan": "the source is not a finite set: see atom_weights(x)",
    "value_quad": "there is no Gromov-Wasserstein term",
    "marginals": "the source is not a finite set: see marginal_b",
    "marginal_a": "the source is not a finite set: see marginal_b",
    "a_to_b": "the source is not a finite set: see ot_map(x) - x",
    "b_to_a": "an atom is not sent to one point",
}


def _absent(name, reason):
    def member(self):
        raise AttributeError(f"SemiDiscreteResult has no {name}: {reason}.")

    return property(member, doc=f"Not defined: {reason}.")


class SemiDiscreteResult(OTResult):
    r"""What :func:`solve_semidiscrete` reached.

    Estimates are made on source points drawn after the potential was fixed, but for the upper end of
    `value_interval`; those that the run did not need itself, when they are first asked for, unless many
    points would be kept until then. Members of
    :class:`ot.utils.OTResult` that make no sense for a continuous source raise
    :class:`AttributeError`, so that ``hasattr`` is False.

    Atoms at one place are solved for as one: each has its potential, and of its mass, of assignment
    weights and of pairs a part in proportion to its own weight.

    Attributes
    ----------
    potential_b, potential : array, shape (n_atoms,)
        Semi-dual potential, :math:`\langle b, \psi \rangle = 0`; 0 at atoms of weight 0.
    value : scalar of the backend
        Estimate of the semi-dual value, a lower estimate of the transport cost.
    value_stderr : float
        Its Monte-Carlo standard error.
    value_interval : tuple of float or None
        It holds the transport cost :math:`\mathrm{OT}_\lambda(\mu, \nu)` with 95% confidence, however
        far the potential is from optimal: below, the semi-dual value at the potential; above, the
        cost of a plan to the atoms, from the points of the run that were kept (or the fresh ones, if
        there are more) and fitted to them. The cost must have a finite variance.
    suboptimality : float
        Estimate of :math:`\max H - H(\psi)`: what the samples of the run allow at best, in the mean,
        or more if fresh samples show it.
    suboptimality_bound : float
        Above it with 95% confidence: the cost of a plan from the fresh samples, less the value there.
    value_linear : scalar of the backend
        Mean cost under the plan of the potential, without the entropy.
    marginal_b : array, shape (n_atoms,)
        Mass that the plan of the potential gives to each atom.
    chi2 : float
        Unbiased estimate of :math:`\sum_j (m_j - b_j)^2 / b_j`; noise can make it negative.
    chi2_stderr : float
        Its standard error.
    marginal_error, marginal_error_stderr : float
        Largest relative error of a mass, ``|m_j - b_j| / b_j``, which `chi2` may hide if the atom is
        light; and the standard error of that mass, its noise.
    converged : bool
        Whether a bound on `chi2` was at most ``tol**2``: at 97.5% in each look, for about 95% in a run.
    status : str
        ``"converged"``, ``"max_iter"``, ``"stopped"`` (by the callback), ``"interrupted"`` or
        ``"failed"`` (an exception, to which this result is attached).
    n_iter : int
        Batches used by the ascent.
    n_samples : int
        Source points drawn, those for estimates included.
    work : float
        Entries (source points x atoms) that the run evaluated; NaN in a file of version 0.1.0.
    log : dict of ndarray
        History: ``value`` (of the newest step) and ``reg`` after each batch; ``check_n_iter``,
        ``check_chi2`` and ``check_chi2_stderr`` for each check of the tolerance.
    reg : float
        Regularisation that was used: 0 if less was given than the rounding of the costs.
    """

    def __init__(self, target, potential, reg, estimates, log, status, n_iter, n_samples, work=math.nan):
        super().__init__(log=log, backend=target.nx, status=status)
        self._target = target
        self._potential = potential
        self._estimates = estimates
        self.reg = reg
        self.n_iter = n_iter
        self.n_samples = n_samples
        self.work = work
        self.converged = status == "converged"

    def __repr__(self):
        value = "None" if self.value is None else f"{float(self.value):.6g}"
        return (
            f"SemiDiscreteResult(value={value}, chi2={self.chi2:.3g}, reg={self.reg:.3g}, "
            f"n_atoms={self._target.n_atoms}, n_samples={self.n_samples}, status={self._status!r})"
        )

    @property
    def potential_b(self):
        """Semi-dual potential on the atoms, of weighted mean 0."""
        return self._target.scatter(self._potential)

    @property
    def potential(self):
        """The same as `potential_b`."""
        return self.potential_b

    @property
    def value(self):
        """Estimate of the semi-dual value."""
        return self._estimates.evaluation.value

    @property
    def value_stderr(self):
        """Standard error of `value`."""
        return self._estimates.evaluation.value_stderr

    @property
    def value_linear(self):
        """Mean cost under the plan of the potential."""
        return self._estimates.value_linear

    @property
    def marginal_b(self):
        """Mass that the plan of the potential gives to each atom."""
        marginal = self._estimates.evaluation.marginal
        return None if marginal is None else self._target.distribute(marginal)

    @property
    def chi2(self):
        """Estimate of the squared relative error of the masses."""
        return self._estimates.evaluation.chi2

    @property
    def chi2_stderr(self):
        """Standard error of `chi2`."""
        return self._estimates.evaluation.chi2_stderr

    @property
    def marginal_error(self):
        """Largest relative error of a mass."""
        return self._estimates.evaluation.marginal_error

    @property
    def marginal_error_stderr(self):
        """Standard error of that mass, relative as well."""
        return self._estimates.evaluation.marginal_error_stderr

    @property
    def value_interval(self):
        """It holds the transport cost with 95% confidence."""
        return self._estimates.certificate.value_interval

    @property
    def suboptimality(self):
        """Estimate of what the semi-dual value at the potential lacks."""
        return self._estimates.certificate.suboptimality

    @property
    def suboptimality_bound(self):
        """It lacks less than that, with 95% confidence."""
        return self._estimates.certificate.suboptimality_bound

    @property
    def citation(self):
        """The works to cite, POT's among them."""
        return super().citation + (
            "\n        Semi-discrete generator gradients:\n\n"
            "            Antoine Houdard, Arthur Leclaire, Nicolas Papadakis, Julien Rabin,\n"
            "            On the Existence of Optimal Transport Gradient for Learning Generative\n"
            "            Models, arXiv:2102.05542, 2021.\n        "
        )

    def c_transform(self, x):
        """Potential of the source at `x`: :func:`semidiscrete_c_transform`, shape (n,)."""
        return self._field("c_transform", x)

    def atom_weights(self, x):
        """Assignment weights of `x`: :func:`semidiscrete_atom_weights`, shape (n, n_atoms)."""
        return self._field("weights", x)

    def ot_map(self, x):
        """Barycentric image of `x`: :func:`semidiscrete_ot_map`, shape (n, d)."""
        return self._field("map", x)

    def _field(self, name, x):
        x, _ = check_points("x", x, like=self._target.atoms)
        return field(name, self._target, self._target.center(x), self._potential, self.reg)

    def pair(self, x, random_state=None):
        """Draw an atom for each source point, so that the pairs follow the plan.

        Parameters
        ----------
        x : array, shape (n, d)
            Source points.
        random_state : None, int or generator
            Randomness of the draw; at ``reg = 0`` the cell decides, and it only draws one of several
            atoms at one place.

        Returns
        -------
        array of int, shape (n,)
            Rows of `X_target`.
        """
        target, nx = self._target, self._target.nx
        x, _ = check_points("x", x, like=target.atoms)
        x = target.center(x)
        random = resolve_random(random_state, nx, target.atoms)
        parts = []
        for rows, chi in weight_blocks(target, x, self._potential, self.reg):
            if self.reg > 0:
                # the first atom whose cumulative weight reaches the level; the level is in (0, 1],
                # not [0, 1), and above all traces that rounding leaves at atoms out of reach
                level = nx.clip(1.0 - random.uniform(rows.shape[0], 1), 1e-12, 1.0)
                cumulative = nx.cumsum(chi, axis=1)
                above = cumulative >= level * cumulative[:, -1:]
                chi = nx.where(above, nx.ones(1, type_as=chi), nx.zeros(1, type_as=chi))
            parts.append(nx.argmax(chi, axis=1))
        index = nx.concatenate(parts, axis=0)
        return target.rows(index, lambda n: nx.to_numpy(random.uniform(n, 1))[:, 0])

    def diagnose(self, x):
        """Tell whether the generator gradient exists: :func:`gradient_diagnostics`.

        Parameters
        ----------
        x : array, shape (n, d)
            Fresh source points, or the whole of a finite source.

        Returns
        -------
        GradientDiagnostics
            The verdict, and what it rests on.
        """
        x, nx = check_points("x", x, like=self._target.atoms)
        x = self._target.center(nx.detach(x))
        return diagnose(self._target, x, self._potential, self.reg)

    def save(self, path):
        """Write the result to an ``.npz`` file that is read without pickle.

        The atoms are not written, only what is needed to recognise them.

        Parameters
        ----------
        path : str or path-like
            Written as it is; the file appears whole or not at all.
        """
        target = self._target
        host = target.nx.to_numpy
        names = (*_FACTS, "work", *_SCALARS, *_FLOATS, *_CERTIFICATE)
        meta = {name: getattr(self, name) for name in names}
        meta |= {name: None if meta[name] is None else float(meta[name]) for name in _SCALARS}
        meta |= {"format": _FORMAT, "metric": target.cost.name, "converged": self.converged}
        arrays = {
            "meta": np.array(json.dumps(meta)),
            "potential": host(self.potential_b),
            "weights": host(target.distribute(target.weights)),
            "fingerprint": fingerprint(target),
        }
        marginal = self.marginal_b
        if marginal is not None:
            arrays["marginal"] = host(marginal)
        arrays |= {f"log_{name}": np.asarray(values) for name, values in self._log.items()}
        with replaced(path) as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path, X_target, metric=None):
        """Read what :meth:`save` wrote.

        Parameters
        ----------
        path : str or path-like
        X_target : array, shape (n_atoms, d)
            The atoms the result was computed for; backend and dtype may differ.
        metric : str or callable, optional
            Needed if the result was computed with a callable; otherwise what was saved.

        Returns
        -------
        SemiDiscreteResult

        Raises
        ------
        ValueError
            If the file is not one of ours, or the atoms or the metric are not those of the result.
        """
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

        def like(a):
            return None if a is None else nx.from_numpy(np.asarray(a), type_as=X_target)

        marginal = like(stored.get("marginal"))
        evaluation = Evaluation(
            marginal=None if marginal is None else target.collect(marginal),
            value=like(meta["value"]),
            **{name: meta[name] for name in _FLOATS},
        )
        interval, *gaps = (meta[name] for name in _CERTIFICATE)
        certificate = Certificate(None if interval is None else tuple(interval), *gaps)
        return cls(
            target.detached,
            target.merge(like(stored["potential"]), meta["reg"]),
            estimates=StoredEstimates(evaluation, like(meta["value_linear"]), certificate),
            log={name[4:]: v for name, v in stored.items() if name.startswith("log_")},
            **{name: meta[name] for name in (*_FACTS, "work")},
        )


for _name, _reason in _ABSENT.items():
    setattr(SemiDiscreteResult, _name, _absent(_name, _reason))


def _read(path):
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
