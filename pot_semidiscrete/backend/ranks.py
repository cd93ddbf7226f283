"""The door to processes that work together: torch is imported where there is a group of them."""

import contextlib
from contextlib import AbstractContextManager
from typing import Any

from .arrays import Array, describe


def ranks_of(process_group: Any, like: Array) -> Any:
    """The ranks of a group of ``torch.distributed``, for data like `like`; None without a group."""
    if process_group is None:
        return None
    if not type(process_group).__module__.startswith("torch"):
        raise TypeError(
            "process_group: expected None or a group of torch.distributed, received "
            f"{describe(process_group)}; after init_process_group, give torch.distributed.group.WORLD."
        )
    from .torch_ranks import ranks_of_group

    return ranks_of_group(process_group, like)


def joint(ranks: Any) -> AbstractContextManager:
    """Context of what ranks do together, in which an exception of one ends all; None is one process."""
    return contextlib.nullcontext() if ranks is None else ranks.together()
