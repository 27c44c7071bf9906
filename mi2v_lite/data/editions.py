"""What the world draws, and how often: the tables of its two editions. Serves world.py.

The second edition is the world. The first is kept because the shipped weights learned from it and are measured on it,
so its clips must come out exactly as they did: at most two sprites, no parallax, no bounce, no approach, fewer
synonyms, and captions that always tell the motion.
"""

from __future__ import annotations

from dataclasses import dataclass

from mi2v_lite.data.captions import WORDS, Words
from mi2v_lite.data.motion import CAMERA_SHARES, HABITS, OBJECT_SHARES

SPRITE_SHARES = (0.12, 0.45, 0.28, 0.15)  # how often there are 0, 1, 2, 3 sprites


@dataclass(frozen=True)
class Edition:
    """The tables that the world draws from.

    Attributes:
        sprites: how often there are 0, 1, 2, ... sprites.
        objects: how often each motion of a sprite is drawn.
        camera: how often each motion of the camera is drawn.
        words: the synonyms of the captions.
        habits: what some glyphs do when the caption is silent about them.
    """

    sprites: tuple[float, ...]
    objects: dict[str, float]
    camera: dict[str, float]
    words: Words
    habits: dict[str, tuple[str, str, str]]


EDITIONS = {2: Edition(SPRITE_SHARES, OBJECT_SHARES, CAMERA_SHARES, WORDS, HABITS)}

# first edition: goes with the weights that were trained on it
EDITIONS[1] = Edition(
    sprites=(0.14, 0.61, 0.25),
    objects={
        "stay": 0.10, "drift": 0.42, "arc": 0.08, "swoop": 0.06, "swing": 0.08, "spin": 0.12, "grow": 0.07,
        "shrink": 0.07,
    },
    camera={"still": 0.30, "pan": 0.34, "zoom": 0.20, "roll": 0.16},
    words=Words(
        objects={
            "stay": ("stays still", "does not move", "rests"),
            "drift": ("drifts {direction}", "drifts {direction}", "moves {direction}", "slides {direction}",
                      "floats {direction}"),
            "arc": ("arcs {direction}",),
            "swoop": ("swoops {direction}",),
            "swing": ("swings {direction} and {back}",),
            "spin": ("spins {direction}", "turns {direction}", "rotates {direction}"),
            "grow": ("grows", "gets bigger", "approaches"),
            "shrink": ("shrinks", "gets smaller", "recedes"),
        },
        camera={"pan": ("pans {direction}",), "zoom": ("zooms {direction}",), "roll": ("rolls {direction}",)},
    ),
    habits={},
)  # fmt: skip
