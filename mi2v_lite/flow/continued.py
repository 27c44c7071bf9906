"""Continuing a motion field into a region where it is not known, from what surrounds the region."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.linalg import splu


def continued(flow: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """Fills a region of a flow with the smoothest continuation of what lies around it.

    Each unknown value becomes the mean of its four neighbours (Laplace's equation). At the border of the picture there
    are fewer neighbours. The continuation never leaves the range of the known values.

    Args:
        flow: `(N, 2, h, w)`.
        unknown: bool `(h, w)`. If no value is known, the flow becomes zero.

    Returns:
        `(N, 2, h, w)` float32, a copy.
    """
    filled = np.array(flow, np.float32, order="C")
    if not unknown.any():
        return filled
    if unknown.all():
        return np.zeros_like(filled)
    h, w = unknown.shape
    number = np.full((h, w), -1)
    count = int(unknown.sum())
    number[unknown] = np.arange(count)
    pad = np.pad(number, 1, constant_values=-1)
    values = np.pad(filled.reshape(-1, h, w), ((0, 0), (1, 1), (1, 1)))
    inside = np.pad(np.ones((h, w), bool), 1)
    y, x = np.nonzero(unknown)
    rows, columns = [np.arange(count)], [np.arange(count)]
    neighbours, known = np.zeros(count), np.zeros((count, len(values)))
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        at = (y + 1 + dy, x + 1 + dx)
        other, there = pad[at], inside[at]
        neighbours += there
        rows.append(np.flatnonzero(other >= 0))
        columns.append(other[other >= 0])
        known += np.where(there & (other < 0), values[:, *at], 0).T
    entries = np.concatenate([neighbours, -np.ones(sum(map(len, rows[1:])))])
    matrix = coo_array((entries, (np.concatenate(rows), np.concatenate(columns))), shape=(count, count))
    filled.reshape(-1, h, w)[:, unknown] = splu(matrix.tocsc()).solve(known).T
    return filled
