"""The former name of reading in `mi2v_lite.io.videos`, for programs that still use it."""

from mi2v_lite.io.videos import Video, copy_with_sound, read_video, resize_frames

__all__ = ["Video", "copy_with_sound", "read_video", "resize_frames"]
