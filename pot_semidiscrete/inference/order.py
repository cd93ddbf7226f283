"""Points in an order in which neighbours lie together."""

import numpy as np


def ordered(x: np.ndarray, rows: int) -> np.ndarray:
    """Indices of points, in NumPy, with which any `rows` consecutive ones lie together.

    Halves of halves, each time across the longest side.
    """
    groups, found = [np.arange(len(x))], []
    columns = [np.ascontiguousarray(column) for column in x.T]  # reductions of rows are much slower
    while groups:
        group = groups.pop()
        if len(group) <= rows:
            found.append(group)
            continue
        part = [column[group] for column in columns]
        middle = max(round(len(group) / (2 * rows)), 1) * rows
        order = np.argpartition(part[np.argmax([np.ptp(column) for column in part])], middle)
        groups += [group[order[middle:]], group[order[:middle]]]
    return np.concatenate(found)
