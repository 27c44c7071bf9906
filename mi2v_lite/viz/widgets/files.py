"""Files as a browser sends and plays them: uploaded pictures, and clips as MP4."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mi2v_lite.io.images import read_image
from mi2v_lite.io.videos import write_video
from mi2v_lite.viz.pictures import Frames, to_image

CLIP_SECONDS = 2  # how long every clip plays on a page


def uploaded_picture(name: str, content: bytes) -> Image.Image:
    """Reads a picture that a browser sent.

    Args:
        name: that of its file.
        content: the bytes of its file.

    Returns:
        the picture, see `read_image`.

    Raises:
        ValueError: for anything else; the message has the name that the person knows.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(name).name
        path.write_bytes(content)
        try:
            return read_image(path)
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), name)) from error


def video_bytes(frames: Frames | Sequence[Image.Image]) -> bytes:
    """Returns a clip as the content of an MP4 file that plays for two seconds.

    Args:
        frames: the clip, a tensor `(F, 3, H, W)`, an array `(F, H, W, 3)` or a sequence of pictures.
    """
    pixels = np.stack([np.asarray(to_image(frame)) for frame in frames])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, pixels, max(1.0, len(pixels) / CLIP_SECONDS))
        return path.read_bytes()
