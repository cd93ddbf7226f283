"""Semi-discrete optimal transport beside POT, and generators trained by it."""

from .dual import (
    cost_scale,
    semidiscrete_atom_weights,
    semidiscrete_c_transform,
    semidiscrete_gradient,
    semidiscrete_loss,
    semidiscrete_ot_map,
)
