"""The problem: a target, its units, and the checks at the door."""

from .fingerprints import digest, projection, same_costs, same_projection, sample_costs
from .host import (
    check_counts,
    check_images,
    check_labels,
    check_numbers,
    check_parameters,
    check_shares,
    number_as_array,
)
from .names import named_options
from .problem import Problem, at_price, build_target, check_atoms, check_reg, check_reg_m_type
from .sharded import ShardedAtoms, resolve_shards, together
from .shared import SharedTarget, of_own_points, shared, unshared
from .stacked import StackedTarget
from .stored import StoredAtoms
from .target import Target
from .units import rounding_of, scale_of, spread_of, unit_curvature
from .validation import (
    NotFiniteError,
    check_array,
    check_bool,
    check_callable,
    check_count,
    check_lengths,
    check_plain,
    check_points,
    check_real,
    check_same_kind,
    check_vector,
    check_weights,
    flat_rows,
    remedy_for,
)

__all__ = [
    "NotFiniteError",
    "Problem",
    "ShardedAtoms",
    "SharedTarget",
    "StackedTarget",
    "StoredAtoms",
    "Target",
    "at_price",
    "build_target",
    "check_array",
    "check_atoms",
    "check_bool",
    "check_callable",
    "check_count",
    "check_counts",
    "check_images",
    "check_labels",
    "check_lengths",
    "check_numbers",
    "check_parameters",
    "check_plain",
    "check_points",
    "check_real",
    "check_reg",
    "check_reg_m_type",
    "check_same_kind",
    "check_shares",
    "check_vector",
    "check_weights",
    "digest",
    "flat_rows",
    "named_options",
    "number_as_array",
    "of_own_points",
    "projection",
    "remedy_for",
    "resolve_shards",
    "rounding_of",
    "same_costs",
    "same_projection",
    "sample_costs",
    "scale_of",
    "shared",
    "spread_of",
    "together",
    "unit_curvature",
    "unshared",
]
