"""Captions that tell a scene's motion completely: what moves, where to, how fast, and what the camera does.

Serves the training recipes; Stage 1 reads the motion from such a text (Motion-I2V, Section 3.1). A caption that does
not mention the camera means that the camera is still; no speed word means medium speed; a thing that is named without
a motion does what it always does (`motion.HABITS`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mi2v_lite.data.motion import Motion
from mi2v_lite.data.sprites import with_article

SPEED_WORDS = {"slow": ("slowly", "slowly", "gently"), "medium": ("",), "quick": ("quickly", "quickly", "fast")}
SILENT = ("there is {thing}", "{thing} is there")


@dataclass(frozen=True)
class Words:
    """The synonyms of an edition of the world: kind of motion -> phrases, in which {direction} and {back} stand."""

    objects: dict[str, tuple[str, ...]]
    camera: dict[str, tuple[str, ...]]


_FIRST = Words(
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
)  # fmt: skip
WORDS = {
    1: _FIRST,
    2: Words(
        objects=_FIRST.objects
        | {
            "drift": (*_FIRST.objects["drift"], "glides {direction}", "travels {direction}"),
            "arc": ("arcs {direction}", "leaps {direction}"),
            "swoop": ("swoops {direction}", "dives {direction}"),
            "swing": ("swings {direction} and {back}", "sways {direction} and {back}"),
            "bounce": ("bounces {direction}", "hops {direction}"),
            "grow": ("grows", "gets bigger"),
            "approach": ("approaches", "comes closer", "comes towards us"),
        },
        camera={
            "pan": ("pans {direction}", "turns {direction}"),
            "zoom": ("zooms {direction}",),
            "roll": ("rolls {direction}", "tilts {direction}"),
            "parallax": ("moves {direction}", "slides {direction}", "travels {direction}"),
        },
    ),
}
STILL_CAMERA = ("the camera is still", "the camera stays still", "the camera does not move")
STILL_SCENES = ("nothing moves", "a still picture", "the scene is still and nothing moves")


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def motion_phrase(motion: Motion, rng: np.random.Generator, edition: int) -> str:
    """`"drifts left quickly"`: verb, direction, speed; what a thing does."""
    to = motion.direction
    if motion.kind == "drift" and to in ("left", "right") and rng.random() < 0.25:
        to = f"to the {to}"
    back = "right" if motion.direction == "left" else "left"
    words = _pick(rng, WORDS[edition].objects[motion.kind]).format(direction=to, back=back)
    return f"{words} {_pick(rng, SPEED_WORDS[motion.speed]) if motion.moves else ''}".strip()


def object_phrase(name: str, motion: Motion | None, rng: np.random.Generator, edition: int) -> str:
    """`"a red balloon drifts left quickly"`; without a motion `"there is a red balloon"`."""
    thing = with_article(name)
    if motion is None:
        return _pick(rng, SILENT).format(thing=thing)
    return f"{thing} {motion_phrase(motion, rng, edition)}"


def camera_phrase(motion: Motion, rng: np.random.Generator, edition: int) -> str:
    """`"the camera pans up slowly"`, `"the camera zooms in"`, `"the camera is still"`."""
    if not motion.moves:
        return _pick(rng, STILL_CAMERA)
    words = _pick(rng, WORDS[edition].camera[motion.kind]).format(direction=motion.direction)
    return f"the camera {words} {_pick(rng, SPEED_WORDS[motion.speed])}".strip()


def caption(
    objects: list[tuple[str, Motion | None]], camera: Motion, rng: np.random.Generator, edition: int = 2
) -> str:
    """The caption of a scene with these objects (name without article, motion or None) and this camera.

    A still camera is mentioned in two captions out of three. Without objects the camera's motion alone is told.
    """
    if not objects and not camera.moves:
        return _pick(rng, STILL_SCENES)
    if not objects:
        return camera_phrase(camera, rng, edition) + (
            " over a scene" if rng.random() < 0.3 and camera.kind == "pan" else ""
        )
    told = " and ".join(object_phrase(name, motion, rng, edition) for name, motion in objects)
    if not camera.moves and rng.random() < 1 / 3:
        return told
    joint = " while " if camera.moves or rng.random() < 0.5 else ", "
    return told + joint + camera_phrase(camera, rng, edition)
