"""The only code that touches automatic differentiation (torch, jax).

Fitting is done without a graph. What users differentiate is one of two things:

* the semi-dual value, by the envelope theorem: the gradient in the source points and in the
  potential comes out of the same sweep as the value (:func:`semi_dual_value`);
* anything else a sweep returns, by recomputing each block when it is needed
  (:func:`checkpoint`), so that memory stays that of a block.
"""

import contextlib

from . import kernels
from ._validation import describe, is_traced


def tracks_gradient(nx, *arrays):
    """Tell whether a gradient may be asked for with respect to one of the arrays."""
    if nx.__name__ == "torch":
        import torch

        return torch.is_grad_enabled() and any(getattr(a, "requires_grad", False) for a in arrays)
    return any(is_traced(a) for a in arrays)


def no_grad(nx):
    """Context in which no graph is recorded."""
    if nx.__name__ == "torch":
        import torch

        return torch.no_grad()
    return contextlib.nullcontext()


def full_precision(nx, x):
    """Context in which autocast does not lower the precision."""
    if nx.__name__ == "torch":
        import torch

        if torch.is_autocast_enabled(x.device.type):
            return torch.autocast(x.device.type, enabled=False)
    return contextlib.nullcontext()


def checkpoint(nx):
    """Decorator: recompute the function when it is differentiated, keep only its inputs."""
    if nx.__name__ == "torch":
        from torch.utils.checkpoint import checkpoint as torch_checkpoint

        return lambda function: (
            lambda *arrays: torch_checkpoint(
                function, *arrays, use_reentrant=False, preserve_rng_state=False
            )
        )
    if nx.__name__ == "jax":
        import jax

        return jax.checkpoint
    return lambda function: function


def exact_distances(x, y):
    """Distances between torch points, by differences; their derivative at 0 is taken as 0."""
    import torch

    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def metric_pullback(metric, x, weights, nx):
    """``sum_j weights_ij d_x metric(x)_ij`` by differentiating the user's metric."""
    if nx.__name__ == "jax":
        import jax

        return jax.vjp(metric, x)[1](weights)[0]
    import torch

    keep = torch.is_grad_enabled() and (x.requires_grad or weights.requires_grad)
    with torch.enable_grad():
        if not x.requires_grad:
            x = x.detach().requires_grad_()
        costs = metric(x)
        if not costs.requires_grad:
            raise TypeError(
                "metric: expected a callable that torch can differentiate in x, received one whose "
                "result is cut from the graph; write it with torch operations, without detach or numpy."
            )
        return torch.autograd.grad((weights * costs).sum(), x, create_graph=keep)[0]


def semi_dual_value(target, x, potential, reg):
    r"""Monte-Carlo semi-dual ``mean_i psi^{c,reg}(x_i) + <b, psi>``, with envelope gradients.

    One sweep gives the value, ``chi d_x c`` (its gradient in x, times n) and the column sums
    (``b - m`` is its gradient in psi): Houdard et al., and formula (G) of
    the theory page.

    `target` must be free of gradients; `x` and `potential` may carry them.
    """
    nx = target.nx
    want = ("c_transform", "colsum", "gradient")

    def pieces(x, potential, want):
        out = kernels.sweep(target, x, potential, reg, want)
        return target.dual_value(out.c_transform, potential), out

    if nx.__name__ == "torch":
        if not tracks_gradient(nx, x, potential):
            return pieces(x, potential, ("c_transform",))[0]
        return _torch_function().apply(x, potential, pieces, target.weights)
    if nx.__name__ == "jax":
        import jax

        @jax.custom_vjp
        def value(x, potential):
            return pieces(x, potential, ("c_transform",))[0]

        def forward(x, potential):
            v, out = pieces(x, potential, want)
            return v, (out.gradient / x.shape[0], target.weights - out.colsum / x.shape[0])

        def backward(saved, cotangent):
            return tuple(cotangent * g for g in saved)

        value.defvjp(forward, backward)
        return value(x, potential)
    return pieces(x, potential, ("c_transform",))[0]


def generator_vjp(generator, theta, z, cotangent_of, nx):
    """Points ``generator(theta, z)``, and the pullback of ``cotangent_of(points)`` to theta.

    Parameters
    ----------
    generator : callable
    theta : pytree of arrays (jax), or tensor, or list, tuple or dict of tensors (torch)
    z : array
    cotangent_of : callable
        ``points -> (value, cotangent)``, the cotangent of the shape of the points.

    Returns
    -------
    value : scalar
    gradient : same structure as `theta`
    """
    if nx.__name__ == "jax":
        import jax

        points, vjp = jax.vjp(lambda t: generator(t, z), theta)
        value, cotangent = cotangent_of(points)
        return value, vjp(cotangent)[0]
    import torch
    from torch.utils import _pytree

    leaves, structure = _pytree.tree_flatten(theta)
    if not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
        raise TypeError(
            "theta: expected a tensor, or a list, tuple or dict of tensors, received "
            f"{', '.join(sorted({describe(leaf) for leaf in leaves}))}; use torch.as_tensor."
        )
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    with torch.enable_grad():
        points = generator(_pytree.tree_unflatten(leaves, structure), z)
    value, cotangent = cotangent_of(points.detach())
    if not points.requires_grad:
        raise TypeError(
            "generator: expected points that torch can differentiate in theta, received points cut "
            "from the graph; use theta, and neither detach nor numpy, inside generator(theta, z)."
        )
    gradients = torch.autograd.grad(points, leaves, cotangent, allow_unused=True)
    gradients = [
        torch.zeros_like(leaf) if g is None else g for g, leaf in zip(gradients, leaves, strict=True)
    ]
    return value, _pytree.tree_unflatten(gradients, structure)


def _torch_function():
    """The torch function of :func:`semi_dual_value`, made on first use (torch is optional)."""
    global _SEMI_DUAL
    if _SEMI_DUAL is None:
        import torch

        class SemiDualValue(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x, potential, pieces, weights):
                # the second product of a sweep is for the gradient in x: skip it if unasked
                want = ("c_transform", "colsum") + ("gradient",) * ctx.needs_input_grad[0]
                value, out = pieces(x, potential, want)
                n = x.shape[0]
                ctx.save_for_backward(
                    None if out.gradient is None else out.gradient / n, weights - out.colsum / n
                )
                return value

            @staticmethod
            def backward(ctx, cotangent):
                if torch.is_grad_enabled():  # create_graph: a second derivative would be 0 unseen
                    raise RuntimeError(
                        "semidiscrete_loss: expected one derivative, asked for a graph of it "
                        "(create_graph=True); differentiate semidiscrete_c_transform(...).mean() twice, "
                        "or semidiscrete_gradient once."
                    )
                grads = (None if g is None else cotangent * g for g in ctx.saved_tensors)
                return *grads, None, None

        _SEMI_DUAL = SemiDualValue
    return _SEMI_DUAL


_SEMI_DUAL = None
