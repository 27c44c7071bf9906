"""Captions that tell the whole motion of a scene: what moves, where to, how fast, and what the camera does.

Stage 1 reads the motion from such a text (Motion-I2V, Section 3.1). Where a caption does not mention the camera, the
camera is still; where there is no word for the speed, the speed is medium; and a thing that is named without a motion
does what it always does (`motion.HABITS`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mi2v_lite.data.motion import Motion

SPEED_WORDS = {"slow": ("slowly", "slowly", "gently"), "medium": ("",), "quick": ("quickly", "quickly", "fast")}
SILENT = ("there is {thing}", "{thing} is there")


@dataclass(frozen=True)
class Words:
    """Synonyms for motions.

    Attributes:
        objects: phrases for each kind of a thing's motion; {direction} and {back} in them are filled in.
        camera: phrases for each kind of the camera's motion.
    """

    objects: dict[str, tuple[str, ...]]
    camera: dict[str, tuple[str, ...]]


WORDS = Words(
    objects={
        "stay": ("stays still", "does not move", "rests"),
        "drift": ("drifts {direction}", "drifts {direction}", "moves {direction}", "slides {direction}",
                  "floats {direction}", "glides {direction}", "travels {direction}"),
        "arc": ("arcs {direction}", "leaps {direction}"),
        "swoop": ("swoops {direction}", "dives {direction}"),
        "swing": ("swings {direction} and {back}", "sways {direction} and {back}"),
        "bounce": ("bounces {direction}", "hops {direction}"),
        "spin": ("spins {direction}", "turns {direction}", "rotates {direction}"),
        "grow": ("grows", "gets bigger"),
        "shrink": ("shrinks", "gets smaller", "recedes"),
        "approach": ("approaches", "comes closer", "comes towards us"),
    },
    camera={
        "pan": ("pans {direction}", "turns {direction}"),
        "zoom": ("zooms {direction}",),
        "roll": ("rolls {direction}", "tilts {direction}"),
        "parallax": ("moves {direction}", "slides {direction}", "travels {direction}"),
    },
)  # fmt: skip
# Where a thing is in frame 0, and the names of a thing that is told by its place alone.
PLACES = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}
MIDDLE = "in the middle"
ANYTHING = ("thing", "object")
APART = 0.18  # of the side: how much further left a thing must lie to be called the left one
STILL_CAMERA = ("the camera is still", "the camera stays still", "the camera does not move")
STILL_SCENES = ("nothing moves", "a still picture", "the scene is still and nothing moves")


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def place_words(centre: tuple[float, float], others: Sequence[tuple[float, float]], rng: np.random.Generator) -> str:
    """Words for the place of a thing that no other thing in the picture answers to; "" if there are none.

    Args:
        centre: (x, y) of the thing in frame 0, as fractions of the side.
        others: the centres of all other things.
        rng: chooses among the words that fit.
    """
    fitting = []
    for word, axis, sign in (("left", 0, -1), ("right", 0, 1), ("top", 1, -1), ("bottom", 1, 1)):
        # How far the thing lies to that side of the middle, and how much further than any other.
        beyond = sign * (centre[axis] - 0.5)
        if beyond > (0.0 if others else 0.12) and all(beyond > sign * (o[axis] - 0.5) + APART for o in others):
            fitting.append(PLACES[word])
    if not others and max(abs(centre[0] - 0.5), abs(centre[1] - 0.5)) < 0.12:
        fitting.append(MIDDLE)
    return _pick(rng, tuple(fitting)) if fitting else ""


def motion_phrase(motion: Motion, rng: np.random.Generator, words: Words = WORDS) -> str:
    """What a thing does: verb, direction and speed, as in "drifts left quickly"."""
    direction = motion.direction
    if motion.kind == "drift" and direction in ("left", "right") and rng.random() < 0.25:
        direction = f"to the {direction}"
    back = "right" if motion.direction == "left" else "left"
    phrase = _pick(rng, words.objects[motion.kind]).format(direction=direction, back=back)
    return f"{phrase} {_pick(rng, SPEED_WORDS[motion.speed]) if motion.moves else ''}".strip()


def object_phrase(subject: str, motion: Motion | None, rng: np.random.Generator, words: Words = WORDS) -> str:
    """A thing and what it does, "a red balloon drifts left quickly"; without a motion, "there is a red balloon"."""
    if motion is None:
        return _pick(rng, SILENT).format(thing=subject)
    return f"{subject} {motion_phrase(motion, rng, words)}"


def camera_phrase(motion: Motion, rng: np.random.Generator, words: Words = WORDS) -> str:
    """What the camera does: "the camera pans up slowly", "the camera zooms in", "the camera is still"."""
    if not motion.moves:
        return _pick(rng, STILL_CAMERA)
    phrase = _pick(rng, words.camera[motion.kind]).format(direction=motion.direction)
    return f"the camera {phrase} {_pick(rng, SPEED_WORDS[motion.speed])}".strip()


def caption(
    objects: list[tuple[str, Motion | None]], camera: Motion, rng: np.random.Generator, words: Words = WORDS
) -> str:
    """The caption of a scene. A still camera is mentioned in two captions out of three.

    Args:
        objects: what each thing is called, as "a red balloon" or "the thing on the left", and its motion; None leaves
            the motion to its habit.
        camera: the camera's motion, which alone is told where there are no objects.
        rng: chooses among the synonyms.
        words: the synonyms.
    """
    if not objects and not camera.moves:
        return _pick(rng, STILL_SCENES)
    if not objects:
        phrase = camera_phrase(camera, rng, words)
        return phrase + (" over a scene" if rng.random() < 0.3 and camera.kind == "pan" else "")
    phrases = " and ".join(object_phrase(subject, motion, rng, words) for subject, motion in objects)
    if not camera.moves and rng.random() < 1 / 3:
        return phrases
    joint = " while " if camera.moves or rng.random() < 0.5 else ", "
    return phrases + joint + camera_phrase(camera, rng, words)
