"""The former name of `mi2v_lite.io.images` and of writing in `mi2v_lite.io.videos`, for programs that still use it."""

from mi2v_lite.io.images import read_image, write_animated_png, write_image
from mi2v_lite.io.videos import write_video

__all__ = ["read_image", "write_animated_png", "write_image", "write_video"]
