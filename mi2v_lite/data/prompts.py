"""Whether the lite model will understand a prompt: it has learned the words of the captions, and no others."""

from __future__ import annotations

import re
from textwrap import shorten

from mi2v_lite.data.captions import SILENT, STILL_CAMERA, STILL_SCENES, WORDS

SHOWN = 80  # characters of a prompt that are repeated


def advice(prompt: str) -> str:
    """Says what is wrong with a prompt that names no motion, or rest, as the captions do.

    Args:
        prompt: what a person wrote.

    Returns:
        two sentences for this person; "" if the prompt is empty, or names a motion that the model knows.
    """
    phrases = [phrase for part in (WORDS.objects, WORDS.camera) for group in part.values() for phrase in group]
    known = [phrase.split(" {")[0] for phrase in phrases] + [*STILL_CAMERA, *STILL_SCENES, "the scene is still"]
    known += [phrase.replace("{thing}", "").strip() for phrase in SILENT]  # some things do what they always do
    words = " ".join(prompt.lower().split())
    if not words or re.search(rf"\b({'|'.join(known)})\b", words):
        return ""
    return (
        f"The lite model knows no motion that is called {shorten(words, SHOWN)!r}, so this clip may show anything. It "
        "knows, for instance: the camera pans left, the camera zooms in, it drifts right, it spins left, it grows."
    )
