"""Captions that tell a scene's motion completely: what moves, where to, how fast, and what the camera does.

Serves the training recipes; Stage 1 reads the motion from such a text (Motion-I2V, Section 3.1). A caption that does
not mention the camera means that the camera is still; no speed word means medium speed.
"""

from __future__ import annotations

import numpy as np

from mi2v_lite.data.motion import Motion
from mi2v_lite.data.sprites import with_article

SPEED_WORDS = {"slow": ("slowly", "slowly", "gently"), "medium": ("",), "quick": ("quickly", "quickly", "fast")}
DRIFT_VERBS = ("drifts", "drifts", "moves", "slides", "floats")
OBJECT_PHRASES = {
    "stay": ("stays still", "does not move", "rests"),
    "arc": ("arcs {direction}",),
    "swoop": ("swoops {direction}",),
    "spin": ("spins {direction}", "turns {direction}", "rotates {direction}"),
    "grow": ("grows", "gets bigger", "approaches"),
    "shrink": ("shrinks", "gets smaller", "recedes"),
}
STILL_CAMERA = ("the camera is still", "the camera stays still", "the camera does not move")
STILL_SCENES = ("nothing moves", "a still picture", "the scene is still and nothing moves")


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def object_phrase(name: str, motion: Motion, rng: np.random.Generator) -> str:
    """`"a red balloon drifts left quickly"`: article, name, verb, direction, speed."""
    if motion.kind == "drift":
        to = motion.direction
        if to in ("left", "right") and rng.random() < 0.25:
            to = f"to the {to}"
        words = f"{_pick(rng, DRIFT_VERBS)} {to}"
    elif motion.kind == "swing":
        other = "right" if motion.direction == "left" else "left"
        words = f"swings {motion.direction} and {other}"
    else:
        words = _pick(rng, OBJECT_PHRASES[motion.kind]).format(direction=motion.direction)
    speed = _pick(rng, SPEED_WORDS[motion.speed]) if motion.moves else ""
    return f"{with_article(name)} {words} {speed}".strip()


def camera_phrase(motion: Motion, rng: np.random.Generator) -> str:
    """`"the camera pans up slowly"`, `"the camera zooms in"`, `"the camera is still"`."""
    if not motion.moves:
        return _pick(rng, STILL_CAMERA)
    return f"the camera {motion.kind}s {motion.direction} {_pick(rng, SPEED_WORDS[motion.speed])}".strip()


def caption(objects: list[tuple[str, Motion]], camera: Motion, rng: np.random.Generator) -> str:
    """The caption of a scene with these objects (name without article, motion) and this camera.

    A still camera is mentioned in two captions out of three. Without objects the camera's motion alone is told.
    """
    if not objects and not camera.moves:
        return _pick(rng, STILL_SCENES)
    if not objects:
        return camera_phrase(camera, rng) + (" over a scene" if rng.random() < 0.3 and camera.kind == "pan" else "")
    told = " and ".join(object_phrase(name, motion, rng) for name, motion in objects)
    if not camera.moves and rng.random() < 1 / 3:
        return told
    joint = " while " if camera.moves or rng.random() < 0.5 else ", "
    return told + joint + camera_phrase(camera, rng)
