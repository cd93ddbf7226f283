"""Solving for a coupling: the space, the groups, and a potential of each."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from ot.backend import get_backend

from ...backend import describe, joint, ours, ranks_of
from ...backend.torch_backend import TorchRandom
from ...optim.stopping import StoppingRule
from ...plan import SemiDiscretePlan
from ...problem import (
    Problem,
    Target,
    check_bool,
    check_count,
    check_points,
    check_real,
    check_weights,
    flat_rows,
    shared,
)
from ...result import SemiDiscreteResult, warn_shortfall
from ...runs import Progress
from ...samplers.base import Sampler
from ...samplers.laws import NormalSampler
from ...solver import Options, can_stack, solve_problem, solve_stacked
from ..data import check_tensor, stacked
from ..features import principal_components
from .conditions import balanced_weight, check_conditions
from .coupling import SemiDiscreteCoupling
from .groups import Groups, check_labels, draw_by_weights
from .space import PairingSpace, Projection, check_projection
from .streams import NoiseLaw, seed_of, stream

MAX_COMPONENTS = 64  # principal components by default, at most; as many as have ...
EXPLAINED_VARIANCE = 0.5  # ... this share of the variance; benchmarks.flow_matching


def solve_coupling(
    X_target: torch.Tensor,
    noise: Any = "normal",
    a_target: torch.Tensor | None = None,
    *,
    labels: Any = None,
    conditions: Any = None,
    condition_weight: float | None = None,
    projection: Projection = None,
    X_space: torch.Tensor | None = None,
    n_components: int | None = None,
    part_size: int = 10_000,
    reg: float = 0.0,
    tol: float = 0.55,
    max_iter: int = 10_000,
    batch_size: int = 256,
    init_coupling: SemiDiscreteCoupling | None = None,
    random_state: Any = None,
    verbose: bool = False,
    process_group: Any = None,
) -> SemiDiscreteCoupling:
    r"""Solve for the potentials that pair noise with data, for :class:`SemiDiscretePairs`.

    Noise and data are compared in a space of low dimension, by default the principal components of the
    data. The other coordinates of the noise stay independent of the data, so the law of the noise is
    right for any space.

    Parameters
    ----------
    X_target : tensor or Dataset, shape (n_data, ...)
        Data of any shape, compared after flattening; a data set of torch is read by
        :func:`stack_dataset`.
    noise : str, law or tensor of shape (n, ...), default="normal"
        Law of the noise, of the shape of a data point: a name, as `sampler_source` of
        :func:`pot_semidiscrete.solve_semidiscrete`; a frozen law of SciPy or a distribution of torch; or
        points, drawn uniformly.
    a_target : tensor, shape (n_data,), optional
        Weights of the data. Uniform by default.
    labels : tensor of int, shape (n_data,), optional
        Solve one problem for each class, with the weights within it. The noise is then independent of
        the label, which it is not with one problem for all.
    conditions : tensor, shape (n_data, ...), optional
        Continuous conditions. Noise gets conditions drawn from the data, and the cost is
        :math:`|x - y|^2 + \beta |c - c'|^2`.
    condition_weight : float, optional
        The weight :math:`\beta`. By default three times about the smallest at which exact pairs in
        mini-batches of 512 points leave 2% of the squared distance of conditions (Cheng and Schwing).
        A larger one makes the noise depend on the condition less, and pairs farther apart.
    projection : tensor of shape (d, k), or callable, optional
        Map from noise to the space of comparison; a callable takes noise in the shape of the data.
    X_space : tensor, shape (n_data, k), optional
        Data in that space, such as features or latents. By default the matrix applied to the centred
        data, or the callable applied to the data.
    n_components : int, optional
        Number of principal components, if there is no `projection`. By default all coordinates if there
        are at most 64; otherwise as many components as have half of the variance, at most 64.
    part_size : int, default=10000
        More data than that, or more of a class, are split at random into parts of at most that size,
        each with its own potential. Noise is assigned to a random part and paired within it. With k
        parts solving and pairing cost k times less, for pairs that are a little farther apart.
    reg : float, default=0.0
        Regularisation, in units of the squared distance in the space. A large one makes pairs
        independent.
    tol : float, default=0.55
        Relative error of the masses, as in :func:`pot_semidiscrete.solve_semidiscrete`; its square is
        the `chi2` to reach. For images a smaller one makes no better flow. Errors of neighbouring points
        add up: if the data are clusters far apart, or repeated, take 0.05 and a positive `reg`.
    max_iter : int, default=10000
        Largest number of batches, for each potential.
    batch_size : int, default=256
        Noise samples drawn at once.
    init_coupling : SemiDiscreteCoupling, optional
        Coupling of the same data to continue from.
    random_state : None, int or generator
        Randomness.
    verbose : bool, default=False
        Show how many of the runs are done and, if there are at most 10, the progress of each. A run
        solves for one group, or for several small ones at once.
    process_group : torch.distributed.ProcessGroup, optional
        Processes that all make this call, with the same arguments, and solve each problem together: see
        :doc:`/distributed`.

    Returns
    -------
    SemiDiscreteCoupling
        The potentials, with their certificates.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong kind, shape, dtype or range.

    References
    ----------
    Mousavi-Hosseini, Zhang, Klein, Cuturi, arXiv:2509.25519 (semi-discrete couplings for flow matching).
    Cheng, Schwing, arXiv:2503.10636 (why plain transport hurts conditional models).

    Examples
    --------
    >>> import torch
    >>> from pot_semidiscrete.generative import SemiDiscretePairs, solve_coupling
    >>> images = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> coupling = solve_coupling(images, labels=torch.arange(200) % 3, random_state=0)
    >>> [result.converged for result in coupling.results]
    [True, True, True]
    >>> pairs = SemiDiscretePairs(coupling, batch_size=16, random_state=0)
    >>> noise, data, index, label = next(iter(pairs))
    >>> noise.shape, torch.equal(data, images[index]), torch.equal(label, index % 3)
    (torch.Size([16, 1, 8, 8]), True, True)
    """
    verbose = check_bool("verbose", verbose)
    with ours(), contextlib.ExitStack() as stack:  # not a decorator: warnings would point to it
        X_target = stacked(X_target)
        remedy = "use torch.as_tensor, or solve_semidiscrete for atoms that are not in memory"
        check_tensor("X_target", X_target, remedy)
        rows, nx = check_points("X_target", flat_rows(X_target.detach(), get_backend(X_target)))
        ranks = ranks_of(process_group, rows)
        stack.enter_context(joint(ranks))
        seed, shape = seed_of(random_state, rows), tuple(X_target.shape[1:])
        rank: tuple[int, ...] = ()  # tells the noise of this rank from that of others
        if ranks is not None:
            seed, rank = ranks.first_seed(seed), (ranks.rank,)
        law = NoiseLaw(noise, rows[:1])
        space = PairingSpace(shape, _resolve_projection(rows, projection, n_components, seed))
        atoms = _atoms_in(space, rows, X_space)
        weights = check_weights(a_target, atoms, nx)
        if labels is not None and conditions is not None:
            raise ValueError(
                "conditions: expected labels or conditions, received both; join them in one."
            )
        if conditions is not None:
            conditions = check_conditions(conditions, rows)
            if condition_weight is None:
                random = stream(seed, 3, like=atoms)
                condition_weight = balanced_weight(space, law, atoms, conditions, random)
            space.condition_weight = check_real("condition_weight", condition_weight)
            atoms = space.joined(atoms, conditions)
        elif condition_weight is not None:
            raise ValueError("condition_weight: expected None without conditions, received a number.")
        labels = None if labels is None else check_labels(labels, len(rows), rows.device)
        random = stream(seed, 1, like=rows)
        groups = Groups.made(labels, weights, check_count("part_size", part_size), random)
        if init_coupling is not None:
            groups = _continued_groups(init_coupling, groups, weights)
        options, was_interrupted = Options.checked(tol, max_iter, batch_size), False
        results: dict[int, SemiDiscreteResult] = {}
        is_common = conditions is None and ranks is None  # the noise of all groups
        for bundle, is_shown in _shown(_bundles(groups, options.tol, is_common), verbose):
            problems, starts = [], []
            for k in bundle:
                member = groups.members[k]
                share = weights[member] / groups.weights[k]
                problems.append(Problem.of(atoms[member], share, None, reg))
                start = None if init_coupling is None else init_coupling.results[k].potential
                starts.append(problems[-1].init_potential(start))
            random = stream(seed, 2, bundle[0], *rank, like=rows)
            first = groups.members[bundle[0]]
            given = None if conditions is None else (conditions[first], weights[first])
            source = _sampler_in(space, law, given, random, problems[0].target)
            # once interrupted, the rest get one iteration: init_coupling goes on from what is whole
            run = replace(options, max_iter=1) if was_interrupted else options
            name = _name(bundle, len(groups.members))
            found = _solve(problems, starts, source, run, ranks, is_shown, name)
            results |= zip(bundle, found, strict=True)
            for k in bundle:
                warn_shortfall(results[k], tol, name="solve_coupling", start="init_coupling=coupling")
                was_interrupted = was_interrupted or results[k].status == "interrupted"
        whole: list[SemiDiscretePlan] = [results[k] for k in sorted(results)]
        return SemiDiscreteCoupling(whole, groups, space, law, X_target, conditions)


def _bundles(groups: Groups, tol: float | StoppingRule, is_common: bool) -> list[list[int]]:
    """Groups to solve for at once: of the same noise, if each run ends by its own chi2."""
    at_once = is_common and not isinstance(tol, StoppingRule) and tol > 0.0
    return groups.bundles() if at_once else groups.bundles(0)


def _shown(bundles: list[list[int]], verbose: bool) -> Iterator[tuple[list[int], bool]]:
    """Runs, and whether each shows its progress; of several, how many are done is shown."""
    if len(bundles) == 1:
        yield bundles[0], verbose
        return
    bar = Progress(verbose, len(bundles), "solve_coupling")
    try:
        for bundle in bundles:
            yield bundle, verbose and len(bundles) <= 10
            bar.update(dict)
    finally:
        bar.close(dict)


def _name(bundle: list[int], n_groups: int) -> str:
    """What the run for some of the groups is called."""
    which = f"group {bundle[0] + 1}" if len(bundle) == 1 else f"{len(bundle)} groups"
    return "solve_coupling" if n_groups == 1 else f"solve_coupling, {which} of {n_groups}"


def _solve(
    problems: list[Problem],
    starts: list[torch.Tensor | None],
    source: Sampler,
    options: Options,
    ranks: Any,
    verbose: bool,
    name: str,
) -> list[SemiDiscreteResult]:
    """Results of problems of one source: at once, if they are several that can be stacked."""
    if min(len(problems), options.max_iter) > 1 and can_stack(problems):
        return solve_stacked(problems, source, options, starts, verbose, name)
    results: list[SemiDiscreteResult] = []
    for problem, start in zip(problems, starts, strict=True):
        if any(result.status == "interrupted" for result in results):
            options = replace(options, max_iter=1)
        problem = shared(problem, ranks, start, **vars(options))
        results.append(solve_problem(problem, source, options, start, verbose, None, name))
    return results


def _continued_groups(coupling: SemiDiscreteCoupling, groups: Groups, weights: torch.Tensor) -> Groups:
    """The groups of a coupling that is continued, of the same classes, and of these weights."""
    if not isinstance(coupling, SemiDiscreteCoupling):
        raise TypeError(
            f"init_coupling: expected what solve_coupling returned, received {describe(coupling)}."
        )
    kinds = [(like.dtype, like.device) for like in (weights, coupling.like)]
    if kinds[0] != kinds[1]:
        raise TypeError(
            f"init_coupling: expected one of the dtype and device of the data, {kinds[0]}, received one "
            f"of {kinds[1]}; give init_coupling.to(X_target)."
        )
    found, expected = coupling.groups, groups.labels
    both = [labels if labels is not None else groups.codes[:0] for labels in (found.labels, expected)]
    if len(found.codes) != len(groups.codes) or not torch.equal(*both):
        raise ValueError(
            f"init_coupling: expected one of these {len(groups.codes)} data and labels, received "
            f"{coupling!r}; leave it out to begin anew."
        )
    total = torch.zeros_like(found.weights).index_add_(0, found.codes, weights)
    if not bool((total > 0.0).all()):
        raise ValueError(
            "init_coupling: expected one whose groups have positive weights here, received one with a "
            f"group of weight 0, of {len(total)}; leave it out to begin anew."
        )
    return found if torch.equal(total, found.weights) else replace(found, weights=total)


def _resolve_projection(
    rows: torch.Tensor, projection: Projection, n_components: int | None, seed: int
) -> Projection:
    """The user's projection, checked, or principal components of the data; None for all coordinates."""
    d = rows.shape[1]
    if n_components is not None and projection is not None:
        raise ValueError("n_components: expected None with a projection, received a number.")
    k = min(d, MAX_COMPONENTS) if n_components is None else check_count("n_components", n_components)
    if k > d:
        raise ValueError(f"n_components: expected at most {d}, the dimension of the data, received {k}.")
    if projection is None and k < d:
        start = stream(seed, 0, like=rows).normal(d, min(2 * k, d))
        projection, shares = principal_components(rows, k, start)
        if n_components is None:
            k = int((shares.cumsum(0) < EXPLAINED_VARIANCE).sum()) + 1
            projection = projection[:, :k].contiguous()
    projection = check_projection(projection, rows)
    if isinstance(projection, torch.Tensor) and projection.shape[0] != d:
        raise ValueError(
            f"projection: expected {d} rows, the dimension of the noise, received "
            f"{describe(projection)}."
        )
    return projection


def _atoms_in(space: PairingSpace, rows: torch.Tensor, X_space: torch.Tensor | None) -> torch.Tensor:
    """The data in the space: those of the user, or the data projected."""
    if X_space is None:
        if isinstance(space.projection, torch.Tensor):
            return rows @ space.projection - rows.mean(dim=0) @ space.projection
        return space.points(rows)
    check_tensor("X_space", X_space)
    atoms, _ = check_points("X_space", flat_rows(X_space.detach().to(rows), get_backend(rows)))
    if len(atoms) != len(rows):
        raise ValueError(f"X_space: expected {len(rows)} points, received {describe(X_space)}.")
    k = space.points(rows[:2]).shape[1]
    if atoms.shape[1] != k:
        raise ValueError(
            f"X_space: expected points of the dimension of the projected noise, {k}, received "
            f"{describe(atoms)}; give the projection."
        )
    return atoms


class SpaceSampler(Sampler):
    """Noise, and conditions drawn from those given by their weights, as points of the space."""

    def __init__(
        self,
        space: PairingSpace,
        law: NoiseLaw,
        conditions: tuple[torch.Tensor, torch.Tensor] | None,
        random: TorchRandom,
    ) -> None:
        self.space, self.law, self.conditions, self.random = space, law, conditions, random

    def __call__(self, n: int) -> torch.Tensor:
        noise = self.law.draw(n, self.random)
        if self.conditions is None:
            return self.space.points(noise)
        conditions, weights = self.conditions
        return self.space.points(noise, conditions[draw_by_weights(weights, n, self.random)])


def _sampler_in(
    space: PairingSpace,
    law: NoiseLaw,
    conditions: tuple[torch.Tensor, torch.Tensor] | None,
    random: TorchRandom,
    target: Target,
) -> Sampler:
    """Noise in the space, as a sampler; drawn there directly if it is normal there, too."""
    if law.is_normal and conditions is None and (space.projection is None or space.is_orthogonal):
        return NormalSampler(target.atoms.shape[1], random)
    return SpaceSampler(space, law, conditions, random)
