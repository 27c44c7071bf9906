"""What moves in front of what: a clip's field sorted into a backdrop and things (serves `pipelines/detail.py`).

A field alone does not say which of two things that meet covers the other. Two guesses settle nearly all of it: what
leaves the motion of most of the picture is in front of it, and of two things that cross the one that Stage 2 shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mi2v_lite.flow.preimage import preimage

# In cells of the field's grid.
THING = 0.5  # what leaves the motion of the backdrop by so much, on average over the clip, is a thing
SMALLEST_THING = 12  # cells; smaller ones belong to the backdrop
ROBUST_ROUNDS = 12


@dataclass(frozen=True)
class Layers:
    """What is in front of what, on the small grid.

    order: `(h, w)` float32, 0 to 1, larger is nearer. things: `(h, w)` bool. backdrop: the affine motion of all the
    rest, `(N, 2, 3)`: f = backdrop @ (1, x, y), x and y counted from the middle.
    """

    order: np.ndarray
    things: np.ndarray
    backdrop: np.ndarray


def sort_layers(flow: np.ndarray, small: np.ndarray, painted: np.ndarray) -> Layers:
    """Most of a picture moves as one, by the camera; what leaves that motion is a thing, and in front of it.

    Among things that cross, the one is in front under which the crossing looks more as Stage 2 painted it.

    Args:
        flow: f_{0->i}, `(N, 2, h, w)` in cells. small: the photo on that grid, uint8 `(h, w, 3)`. painted: Stage 2's
            frames on it, `(N + 1, h, w, 3)`, 0 to 255.
    """
    motion, apart = _dominant_motion(flow)
    things = cv2.morphologyEx((apart > THING).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(things, connectivity=8)
    for label in range(1, count):
        if stats[label, cv2.CC_STAT_AREA] < SMALLEST_THING:
            labels[labels == label] = 0
    kept = [label for label in range(1, count) if (labels == label).any()]
    kept.sort(key=lambda label: apart[labels == label].mean())
    # The backdrop fills the lower half of the order by how far it leaves its motion, each thing has a place above.
    order = 0.4 * (apart / max(apart.max(), 1e-6))
    ranked = _ranked(kept, labels, flow, small, painted)
    for place, label in enumerate(ranked):
        order[labels == label] = 0.5 + 0.5 * (place + 1) / len(ranked)
    return Layers(order.astype(np.float32), labels > 0, motion)


def _ranked(kept: list[int], labels: np.ndarray, flow: np.ndarray, small: np.ndarray, painted: np.ndarray) -> list[int]:
    """The things from the farthest to the nearest."""
    if len(kept) < 2:
        return kept
    place = np.zeros(labels.max() + 1, np.float32)
    place[kept] = np.linspace(0.1, 1, len(kept))
    votes: dict[tuple[int, int], float] = {}
    for field, picture in zip(flow, painted[1:], strict=True):
        ways = [preimage(field, order[labels]) for order in (place, np.where(place > 0, 1.1 - place, 0))]
        names = [cv2.remap(labels.astype(np.float32), way.x, way.y, cv2.INTER_NEAREST).astype(int) for way in ways]
        errors = [np.abs(cv2.remap(small, way.x, way.y, cv2.INTER_LINEAR) - picture).mean(axis=2) for way in ways]
        cross = ways[0].seen & ways[1].seen & (names[0] != names[1]) & (names[0] > 0) & (names[1] > 0)
        for front, back, vote in zip(names[0][cross], names[1][cross], (errors[1] - errors[0])[cross], strict=True):
            votes[front, back] = votes.get((front, back), 0.0) + float(vote)
    ranked = list(kept)
    for i in range(len(ranked)):  # a bubble sort: few things, and votes need not be transitive
        for j in range(len(ranked) - 1 - i):
            if votes.get((ranked[j + 1], ranked[j]), 0.0) < 0:
                ranked[j], ranked[j + 1] = ranked[j + 1], ranked[j]
    return ranked


def grid(h: int, w: int, beyond: int = 0) -> np.ndarray:
    """(1, x, y) of every cell, counted from the middle, float32 `(3, h + 2 beyond, w + 2 beyond)`."""
    y, x = np.mgrid[-beyond : h + beyond, -beyond : w + beyond].astype(np.float32)
    return np.stack([np.ones_like(x), x - (w - 1) / 2, y - (h - 1) / 2])


def _dominant_motion(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The affine motion that most cells follow, and how far each cell leaves it on average over the clip.

    Iteratively reweighted least squares, one weight a cell for all fields.
    """
    count, _, h, w = flow.shape
    terms = grid(h, w).reshape(3, -1).astype(np.float64)
    fields = flow.reshape(2 * count, -1).astype(np.float64)
    weights = np.ones(h * w)
    for _ in range(ROBUST_ROUNDS):
        motion = np.linalg.solve((terms * weights) @ terms.T, (terms * weights) @ fields.T).T  # (2N, 3)
        apart = np.linalg.norm((fields - motion @ terms).reshape(count, 2, -1), axis=1).mean(axis=0)
        weights = 1 / (1 + (apart / max(1.5 * np.median(apart), 0.1)) ** 2) ** 2
    return motion.reshape(count, 2, 3), apart.reshape(h, w).astype(np.float32)
