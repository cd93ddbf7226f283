"""Tensors of which each rank has a part: those of FSDP2, ``torch.distributed.fsdp.fully_shard``."""

from typing import Any

import torch
from torch.utils import _pytree


def is_sharded(tensor: Any) -> bool:
    """Whether each rank has only a part of the tensor (torch's DTensor)."""
    return hasattr(tensor, "full_tensor")


def resharded(module: Any) -> Any:
    """The module, its parameters sharded again: a forward pass without a backward leaves them whole."""
    for part in module.modules() if isinstance(module, torch.nn.Module) else ():
        reshard: Any = getattr(part, "reshard", None)
        if reshard is not None:
            reshard()
    return module


def full_tensors(state: Any) -> Any:
    """The state with whole tensors; all ranks must call it."""
    return _pytree.tree_map(lambda value: value.full_tensor() if is_sharded(value) else value, state)


def sharded_like(value: Any, like: Any) -> Any:
    """A whole tensor, sharded as `like`, which it replaces, if that is sharded and of its shape."""
    if not is_sharded(like) or getattr(value, "shape", None) != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
