"""Whether the lite model will understand a prompt: it has learned the words of the captions, and no others."""

from __future__ import annotations

import re

from mi2v_lite.data.captions import STILL_CAMERA, STILL_SCENES, WORDS


def advice(prompt: str) -> str:
    """Says what is wrong with a prompt that names no motion, or rest, as the captions do.

    Args:
        prompt: what a person wrote.

    Returns:
        two sentences for this person; "" if the prompt is empty, or names a motion that the model knows.
    """
    phrases = [phrase for part in (WORDS.objects, WORDS.camera) for group in part.values() for phrase in group]
    known = [phrase.split(" {")[0] for phrase in phrases] + [*STILL_CAMERA, *STILL_SCENES]
    words = " ".join(prompt.lower().split())
    if not words or re.search(rf"\b({'|'.join(known)})\b", words):
        return ""
    return (
        f"The lite model knows no motion that is called {prompt.strip()!r}, so this clip may show anything. It knows, "
        "for instance: the camera pans left, the camera zooms in, it drifts right, it spins left, it grows."
    )
