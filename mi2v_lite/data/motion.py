"""How the things of the lite world move: affine maps that are smooth functions of time. Serves world.py.

Time is tau = stride * i / 120 for frame i: with 16 frames and stride 8 the last frame is at tau = 1. A stride therefore
scales the motion, which is what Stage 1 learns from its stride embedding (Motion-I2V, Section 3.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

SOURCE_FRAMES = 120
_S = 0.5**0.5
DIRECTIONS = {
    "left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0),
    "up and to the left": (-_S, -_S), "up and to the right": (_S, -_S),
    "down and to the left": (-_S, _S), "down and to the right": (_S, _S),
}  # fmt: skip
# Kind of motion -> the directions that it can have. One table for sprites, one for the camera.
OBJECT_MOTIONS = {
    "stay": ("",),
    "drift": tuple(DIRECTIONS),
    "arc": ("left", "right"),
    "swoop": ("left", "right"),
    "swing": ("left", "right"),
    "bounce": ("left", "right", "up and down"),
    "spin": ("clockwise", "counterclockwise"),
    "grow": ("",),
    "shrink": ("",),
    "approach": ("",),
}
CAMERA_MOTIONS = {
    "still": ("",),
    "pan": ("left", "right", "up", "down"),
    "zoom": ("in", "out"),
    "roll": ("left", "right"),
    "parallax": ("left", "right"),
}
# How often each kind is drawn.
OBJECT_SHARES = {
    "stay": 0.10, "drift": 0.34, "arc": 0.08, "swoop": 0.06, "swing": 0.08, "bounce": 0.08, "spin": 0.10,
    "grow": 0.05, "shrink": 0.05, "approach": 0.06,
}  # fmt: skip
CAMERA_SHARES = {"still": 0.30, "pan": 0.24, "zoom": 0.17, "roll": 0.13, "parallax": 0.16}
# What a glyph does when the caption is silent about it: kind, direction, speed. "ahead" is where it looks: to the left
# as drawn, to the right when mirrored.
HABITS = {
    "rocket": ("drift", "up", "quick"),
    "red balloon": ("drift", "up", "slow"),
    "ghost": ("drift", "up", "medium"),
    "maple leaf": ("drift", "down", "slow"),
    "snail": ("drift", "ahead", "slow"),
    "turtle": ("drift", "ahead", "slow"),
    "snake": ("drift", "ahead", "medium"),
    "fire engine": ("drift", "ahead", "quick"),
    "police car": ("drift", "ahead", "quick"),
    "steam locomotive": ("drift", "ahead", "medium"),
    "rabbit": ("bounce", "ahead", "medium"),
    "soccer ball": ("bounce", "up and down", "quick"),
    "basketball": ("bounce", "up and down", "medium"),
    "bell": ("swing", "left", "medium"),
    "globe": ("spin", "counterclockwise", "slow"),
    "cactus": ("stay", "", "medium"),
    "house": ("stay", "", "medium"),
}
# Total motion at tau = 1 as a fraction of the side. The gaps keep the speed words apart.
OBJECT_SPEEDS = {"slow": (0.05, 0.10), "medium": (0.12, 0.24), "quick": (0.26, 0.40)}
SPEED_SHARES = {"slow": 0.25, "medium": 0.45, "quick": 0.30}
CAMERA_SPEEDS = {"slow": (0.04, 0.08), "medium": (0.09, 0.16), "quick": (0.18, 0.30)}


@dataclass(frozen=True)
class Motion:
    """One motion of a thing or of the camera.

    Attributes:
        kind: a key of OBJECT_MOTIONS or CAMERA_MOTIONS.
        direction: one of the directions that the kind can have.
        speed: "slow", "medium" or "quick".
        amount: how far it goes until tau = 1, as a fraction of the picture's side.
        ease: from -0.3 (it sets off slowly) to 0.3 (it slows down); 0 is even.
    """

    kind: str
    direction: str = ""
    speed: str = "medium"
    amount: float = 0.0
    ease: float = 0.0

    @property
    def moves(self) -> bool:
        """False for "stay" and "still"."""
        return self.kind not in ("stay", "still")

    def progress(self, tau: float) -> float:
        """The share of the motion that is done at time tau: 0 at 0, 1 at 1, and strictly rising."""
        return tau + self.ease * tau * (1 - tau)

    def matrix(self, tau: float, centre: tuple[float, float], radius: float, side: float) -> np.ndarray:
        """The map from a point of frame 0 to where it is at time tau.

        For the camera it is the map of the *content*: when the camera pans left, the content moves right; when it rolls
        left, the content turns clockwise. Parallax is a pan whose amount differs from plane to plane (`World`).

        Args:
            tau: the time.
            centre: (x, y) of the thing in frame 0, in pixels; for the camera that of the picture.
            radius: of the thing in frame 0, in pixels; for the camera half the picture's side.
            side: of the picture, in pixels.

        Returns:
            float64 `(2, 3)`, which acts on (x, y, 1).
        """
        done = self.progress(tau)
        distance = self.amount * side * done
        if not self.moves:
            return _affine(1, 0, centre, (0, 0))
        if self.kind == "drift":
            dx, dy = DIRECTIONS[self.direction]
            return _affine(1, 0, centre, (dx * distance, dy * distance))
        if self.kind in ("arc", "swoop"):
            bow = 0.5 * self.amount * side * np.sin(np.pi * done) * (-1 if self.kind == "arc" else 1)
            return _affine(1, 0, centre, (DIRECTIONS[self.direction][0] * distance, bow))
        if self.kind == "swing":
            # A pendulum that hangs from a point above; turning clockwise takes what hangs below the pivot to the left.
            length = 2 * radius
            turn = min(self.amount * side / length, 1.2) * np.sin(2 * np.pi * done)
            turn *= 1 if self.direction == "left" else -1
            return _affine(1, turn, (centre[0], centre[1] - length), (0, 0))
        if self.kind == "bounce":
            # Two hops, of half the way's length each or, in place, of the whole amount.
            hop = abs(np.sin(2 * np.pi * done)) * self.amount * side
            if self.direction == "up and down":
                return _affine(1, 0, centre, (0, -hop))
            return _affine(1, 0, centre, (DIRECTIONS[self.direction][0] * distance, -0.5 * hop))
        if self.kind == "spin":
            turn = distance / radius
            return _affine(1, turn if self.direction == "clockwise" else -turn, centre, (0, 0))
        if self.kind in ("grow", "shrink"):
            factor = 1 + 0.5 * distance / radius
            return _affine(factor if self.kind == "grow" else 1 / factor, 0, centre, (0, 0))
        if self.kind == "approach":
            # What comes nearer at an even pace grows faster and faster and sinks away from the horizon above it.
            last = 1 + 0.5 * self.amount * side / radius
            factor = 1 / (1 - done * (1 - 1 / last))
            return _affine(factor, 0, (centre[0], centre[1] - radius), (0, 0))
        if self.kind in ("pan", "parallax"):
            dx, dy = DIRECTIONS[self.direction]
            return _affine(1, 0, centre, (-dx * distance, -dy * distance))
        if self.kind == "zoom":
            factor = 1 + distance / radius
            return _affine(factor if self.direction == "in" else 1 / factor, 0, centre, (0, 0))
        if self.kind == "roll":
            turn = distance / radius
            return _affine(1, turn if self.direction == "left" else -turn, centre, (0, 0))
        raise ValueError(f"unknown motion {self.kind!r}; choose from {', '.join([*OBJECT_MOTIONS, *CAMERA_MOTIONS])}")


def _affine(scale: float, turn: float, centre: tuple[float, float], shift: tuple[float, float]) -> np.ndarray:
    """Scale and turn (radians, clockwise on the screen) about `centre`, then shift."""
    cos, sin, (x, y) = scale * math.cos(turn), scale * math.sin(turn), centre
    return np.array([[cos, -sin, x - (cos * x - sin * y) + shift[0]], [sin, cos, y - (sin * x + cos * y) + shift[1]]])


def choose(rng: np.random.Generator, shares: dict[Any, float]) -> Any:
    """One of the keys, each as often as its share says; the shares sum to 1."""
    draw = rng.random()
    for key, share in shares.items():
        if draw < share:
            return key
        draw -= share
    return key  # the shares sum to a little less than 1 by rounding


def draw_habit(name: str, mirrored: bool, rng: np.random.Generator) -> Motion | None:
    """The motion that a glyph of this name has by habit, with a random amount; None if it has no habit."""
    if name not in HABITS:
        return None
    kind, direction, speed = HABITS[name]
    if direction == "ahead":
        direction = "right" if mirrored else "left"
    if kind == "stay":
        return Motion(kind)
    return Motion(kind, direction, speed, float(rng.uniform(*OBJECT_SPEEDS[speed])), float(rng.uniform(-0.3, 0.3)))


def draw_motion(rng: np.random.Generator, shares: dict[str, float]) -> Motion:
    """A random motion.

    Args:
        rng: draws kind, direction, speed, amount and ease.
        shares: how often each kind is drawn; kinds of sprites or kinds of the camera.
    """
    camera = "still" in shares
    table, speeds = (CAMERA_MOTIONS, CAMERA_SPEEDS) if camera else (OBJECT_MOTIONS, OBJECT_SPEEDS)
    kind = choose(rng, shares)
    direction = table[kind][int(rng.integers(len(table[kind])))]
    speed = choose(rng, SPEED_SHARES)
    amount, ease = float(rng.uniform(*speeds[speed])), float(rng.uniform(-0.3, 0.3))
    if kind in ("stay", "still"):
        return Motion(kind)
    return Motion(kind, direction, speed, amount, ease)
