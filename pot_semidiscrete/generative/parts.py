"""Tensors of which each rank has a part: those of FSDP2, ``torch.distributed.fsdp.fully_shard``."""

from typing import Any

import torch
from torch.utils import _pytree


def is_sharded(tensor: Any) -> bool:
    """Whether a rank has a part of a tensor only (torch's DTensor)."""
    return hasattr(tensor, "full_tensor")


def at_rest(module: Any) -> Any:
    """A module, whose parameters are in parts again: a forward pass alone leaves them whole."""
    for part in module.modules() if isinstance(module, torch.nn.Module) else ():
        reshard: Any = getattr(part, "reshard", None)
        if reshard is not None:
            reshard()
    return module


def whole(state: Any) -> Any:
    """A state, its tensors whole; all ranks take part."""
    return _pytree.tree_map(lambda value: value.full_tensor() if is_sharded(value) else value, state)


def placed(value: Any, like: Any) -> Any:
    """A tensor that is whole, in parts if that which it is to replace, of the same shape, is."""
    if not is_sharded(like) or getattr(value, "shape", None) != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
