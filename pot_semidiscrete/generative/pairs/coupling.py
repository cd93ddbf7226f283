"""The potentials by which noise is paired with data: of all data, or of each group."""

import math
from typing import Any

import torch

from ...backend import describe, ours, template
from ...plan import SemiDiscretePlan
from ..potential import TrackedPotential
from .groups import Groups
from .space import PairingSpace, Projection, check_projection
from .streams import NoiseLaw, stream


class SemiDiscreteCoupling:
    r"""Coupling of noise and data, the result of :func:`solve_coupling`.

    Attributes
    ----------
    results : list of SemiDiscreteResult
        Results in the space of pairing, one for each group, in the order of the classes.
    groups : Groups
        `codes` has the group of each data point, `classes` the distinct labels.
    conditions : tensor, shape (n_data, m), or None
    data : tensor, shape (n_data, ...), or None
        The data given, not copied.
    space : PairingSpace
        Where noise and data are compared, with `projection` and `condition_weight`.
    law : NoiseLaw
        Of the noise.
    """

    def __init__(
        self,
        results: list[SemiDiscretePlan],
        groups: Groups,
        space: PairingSpace,
        law: NoiseLaw,
        data: torch.Tensor | None = None,
        conditions: torch.Tensor | None = None,
    ) -> None:
        self.results, self.groups, self.space, self.law = results, groups, space, law
        self.data, self.conditions = data, conditions

    def __repr__(self) -> str:
        facts = {"n_data": self.n_data, "dimension": self.results[0]._target.atoms.shape[1]}
        facts |= {} if self.groups.classes is None else {"n_classes": len(self.groups.classes)}
        facts |= {} if len(self.results) == 1 else {"n_groups": len(self.results)}
        shown = ", ".join(f"{name}={value}" for name, value in facts.items())
        return f"SemiDiscreteCoupling(chi2={self.chi2:.3g}, reg={self.results[0].reg:.3g}, {shown})"

    @property
    def n_data(self) -> int:
        """Number of data points."""
        return len(self.groups.codes)

    @property
    def like(self) -> torch.Tensor:
        """A tensor of the dtype and on the device of the potentials."""
        return self.results[0]._target.weights

    @property
    def classes(self) -> torch.Tensor | None:
        """Labels that there are, sorted, shape (n_classes,)."""
        return self.groups.classes

    @property
    @ours()
    def labels(self) -> torch.Tensor | None:
        """Labels of the data, or conditions; None if there are neither."""
        return self.groups.labels if self.conditions is None else self.conditions

    @property
    def chi2(self) -> float:
        r"""Squared relative error of the masses of all data, NaN if it was not estimated.

        The weighted mean over the data of the squared relative error of a mass. From the groups, with
        their weights: :math:`\sum_k p_k \chi^2_k`.
        """
        found = [getattr(result, "chi2", math.nan) for result in self.results]
        return float(sum(p * chi2 for p, chi2 in zip(self.groups.weights.tolist(), found, strict=True)))

    @ours()
    def to(self, where: Any) -> "SemiDiscreteCoupling":
        """The same coupling on another device or in another dtype; the data stay where they are.

        Parameters
        ----------
        where : tensor, torch dtype or device

        Returns
        -------
        SemiDiscreteCoupling
        """
        like = template("where", where, self.like)
        if not isinstance(like, torch.Tensor):
            raise TypeError(
                f"where: expected a tensor, torch dtype or device, received {describe(where)}."
            )
        results = [result.to(like) for result in self.results]
        moved = (self.groups.to(like), self.space.to(like), self.law.to(like))
        conditions = None if self.conditions is None else self.conditions.to(like)
        return SemiDiscreteCoupling(results, *moved, self.data, conditions)


def check_whole(coupling: SemiDiscreteCoupling, name: str) -> None:
    """Refuse what ranks would not do in step where atoms are sharded."""
    for result in coupling.results:
        result._check_whole(name)


def coupling_of_potential(
    plan: SemiDiscretePlan | TrackedPotential,
    noise: Any,
    projection: Projection,
    shape: tuple[int, ...] | None,
) -> SemiDiscreteCoupling:
    """The coupling of a result, or of the present potential of a loss."""
    if isinstance(plan, TrackedPotential):
        loss, shape = plan, tuple(plan.shape)
        plan = SemiDiscretePlan(loss.target, loss.target.gather(loss.potential).clone(), loss.reg)
        if loss.features is not None and projection is None:
            projection = loss.rows
    elif not isinstance(plan._potential, torch.Tensor):
        plan = plan.to("cpu")  # as torch's tensors
    target, like = plan._target, plan._target.like
    projection = check_projection(projection, like)
    d = projection.shape[0] if isinstance(projection, torch.Tensor) else like.shape[1]
    if callable(projection) and shape is None:
        raise ValueError(
            "data: expected data of the shape of the noise with a callable projection, received None."
        )
    if shape is None or (not callable(projection) and math.prod(shape) != d):
        shape = (d,)
    space = PairingSpace(shape, projection)
    law, data = NoiseLaw(noise, like.new_zeros((1, space.dimension))), None
    if projection is None and target.shard is None:
        atoms = target.scatter(target.atoms[:]) + (0.0 if target.origin is None else target.origin)
        data = atoms.reshape(-1, *shape)
    weights = target.distribute(target.weights)
    groups = Groups.made(None, weights, len(weights), stream(0, like=weights))
    return SemiDiscreteCoupling([plan], groups, space, law, data)
