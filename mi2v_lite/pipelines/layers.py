"""Sorts the motion of a clip into a backdrop and things in front of it (used by `pipelines/detail.py`).

A motion field does not say which of two things covers the other where they meet. Two guesses decide nearly all cases:
what moves differently from most of the picture is in front of it, and of two things that cross, the one that Stage 2
painted is in front.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mi2v_lite.flow.preimage import preimage

# Lengths are in cells of the field's grid.
THING = 0.5  # what departs from the backdrop's motion by more than this, on average over the clip, is a thing
SMALLEST_THING = 12  # cells; anything smaller belongs to the backdrop
ROBUST_ROUNDS = 12  # iterations of the reweighted least squares


@dataclass(frozen=True)
class Layers:
    """What is in front of what, on the grid of the field.

    Attributes:
        order: `(h, w)` float32 from 0 to 1; larger is nearer.
        things: `(h, w)` bool, True on the things.
        backdrop: the affine motion of all the rest, `(N, 2, 3)`: f = backdrop @ (1, x, y), where x and y are counted
            from the middle of the picture.
    """

    order: np.ndarray
    things: np.ndarray
    backdrop: np.ndarray


def sort_layers(flow: np.ndarray, small: np.ndarray, painted: np.ndarray) -> Layers:
    """Finds the backdrop and the things, and sorts them by their distance.

    Most of a picture moves as one, because the camera moves. What departs from that motion is a thing and in front. Of
    things that cross, the front one is that with which the crossing looks more like what Stage 2 painted.

    Args:
        flow: f_{0->i}, `(N, 2, h, w)` in cells.
        small: the photo on that grid, uint8 `(h, w, 3)`.
        painted: Stage 2's frames on that grid, `(N + 1, h, w, 3)`, 0 to 255.

    Returns:
        `Layers`.
    """
    motion, apart = _dominant_motion(flow)
    things = cv2.morphologyEx((apart > THING).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(things, connectivity=8)
    for label in range(1, count):
        if stats[label, cv2.CC_STAT_AREA] < SMALLEST_THING:
            labels[labels == label] = 0
    kept = [label for label in range(1, count) if (labels == label).any()]
    kept.sort(key=lambda label: apart[labels == label].mean())
    # The backdrop lies below 0.4, ordered by how far it departs from its motion; each thing has a place above 0.5.
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
    for i in range(len(ranked)):  # a bubble sort, since there are few things and votes need not be transitive
        for j in range(len(ranked) - 1 - i):
            if votes.get((ranked[j + 1], ranked[j]), 0.0) < 0:
                ranked[j], ranked[j + 1] = ranked[j + 1], ranked[j]
    return ranked


def grid(h: int, w: int, beyond: int = 0) -> np.ndarray:
    """(1, x, y) of every cell, counted from the middle, float32 `(3, h + 2 beyond, w + 2 beyond)`.

    Args:
        h: rows of the field's grid.
        w: its columns.
        beyond: how many more cells there are on each side.
    """
    y, x = np.mgrid[-beyond : h + beyond, -beyond : w + beyond].astype(np.float32)
    return np.stack([np.ones_like(x), x - (w - 1) / 2, y - (h - 1) / 2])


def _dominant_motion(flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The affine motion that most cells follow, and how far each cell departs from it on average over the clip.

    It is found by iteratively reweighted least squares, with one weight for each cell in all fields.
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
