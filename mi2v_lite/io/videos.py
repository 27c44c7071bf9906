"""Video files: reads frames at the size that is asked for, writes a clip, and copies the sound (notebook 05).

Frames are found by their times and not by their numbers, so that a video of variable rate plays at its true speed. Each
frame is made smaller as soon as it is decoded, and the decoding ends with the last frame asked for. The memory needed
therefore depends on what is asked for, not on how long or how large the video is.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import cv2
import numpy as np

from mi2v_lite.io.files import atomic
from mi2v_lite.io.images import NETWORK_FPS, Frames, fitted_size, frames_array

if TYPE_CHECKING:
    import av

RATE_LIMITS = (1, 240)  # frames a second; a file that states another rate is not believed
USUAL_RATE = Fraction(25)  # what is assumed then
AUDIO_RATE = 48_000  # samples a second of the sound that is written
LARGE_FRAME = 4_000_000  # pixels; the encoder looks less far ahead in clips of larger frames


@dataclass(frozen=True)
class Video:
    """Some frames of a video.

    Attributes:
        frames: uint8 `(F, H, W, 3)`, RGB, upright, with square pixels.
        fps: the rate at which these frames play as fast as the source.
        start: seconds from the beginning of the source to the first of them.
    """

    frames: np.ndarray
    fps: Fraction
    start: float


def import_av() -> ModuleType:
    """PyAV, imported where a video is read or written, so that all the rest of the package works without it.

    Raises:
        ImportError: If PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError("Reading and writing videos needs PyAV: install it with `pip install av`.") from error
    return av


def read_video(
    path: str | os.PathLike,
    num_frames: int = 16,
    start: float = 0.0,
    step: int = 1,
    size: int | None = None,
    multiple: int = 1,
    enlarge: bool = True,
) -> Video:
    """Reads some frames of a video.

    Args:
        path: a file of any format that FFmpeg reads.
        num_frames: the largest number of frames to read.
        start: seconds to skip at the beginning.
        step: take every step-th frame, counted at the mean rate of the file.
        size: what the shorter side becomes, in pixels; its own length if None.
        multiple: what both sides become multiples of, for example the autoencoder's downsampling factor.
        enlarge: whether a video that is smaller than `size` is enlarged to it.

    Returns:
        `Video`. It has fewer frames if the file ends before.

    Raises:
        ValueError: if the file is missing, is not a video, or holds no frame after `start`.
        ImportError: if PyAV is not installed.
    """
    av, path = import_av(), Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give the path of a video file.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; give a video file.")
    frames: list[np.ndarray] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} has no pictures; give a video file.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            rate = _rate(stream)
            try:
                for picture in _at_rate(container, stream, start, rate, step):
                    frames.append(_upright(picture, stream, size, multiple, enlarge))
                    if len(frames) == num_frames:
                        break
            except av.error.FFmpegError as error:
                # The frames before the damage are good, if they make a clip.
                if len(frames) < 2:
                    raise ValueError(
                        f"{path} is damaged: only {len(frames)} frame(s) can be decoded ({error})"
                    ) from error
    except av.error.FFmpegError as error:
        raise ValueError(f"{path} cannot be read as a video ({error}); is it whole?") from error
    if not frames:
        after = f" after {start:g} s" if start else ""
        raise ValueError(f"{path} has no frame{after} that can be decoded.")
    return Video(np.stack(frames), rate / step, start)


def _rate(stream: av.VideoStream) -> Fraction:
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and RATE_LIMITS[0] <= rate <= RATE_LIMITS[1]:
            return Fraction(rate)
    return USUAL_RATE


def _at_rate(
    container: av.container.InputContainer, stream: av.VideoStream, start: float, rate: Fraction, step: int
) -> Iterator[av.VideoFrame]:
    """Yields the frame seen at each of the times start, start + step / rate, ...; it may be the same frame twice."""
    if start > 0:
        container.seek(int(start / stream.time_base) + (stream.start_time or 0), stream=stream, backward=True)
    zero = (stream.start_time or 0) * stream.time_base if start > 0 else None
    # Time stamps are rounded, so a frame may come a little late and still be in time.
    due, late, last = Fraction(start), Fraction(2, 5) / rate, None
    for number, frame in enumerate(container.decode(stream)):
        # Frames without time stamps are counted.
        time = Fraction(frame.pts) * frame.time_base if frame.pts is not None else number / rate
        zero = time if zero is None else zero
        while last is not None and time - zero > due + late:
            yield last
            due += step / rate
        last, end = frame, time - zero + 1 / rate
    while last is not None and due + late < end:
        yield last
        due += step / rate


def _upright(
    frame: av.VideoFrame, stream: av.VideoStream, size: int | None, multiple: int, enlarge: bool
) -> np.ndarray:
    """One frame as uint8 `(H, W, 3)`. It is scaled while it is still YUV, which is fast, and then turned upright."""
    aspect = float(stream.sample_aspect_ratio or 1)
    own = frame.width * aspect, float(frame.height)
    if size is not None and not enlarge:
        size = min(size, round(min(own)))
    picture, smaller = frame, size is not None and size < min(own)
    if size is not None or aspect != 1 or multiple > 1:
        target = fitted_size(own, size, multiple)
        picture = frame.reformat(*target, format="rgb24", interpolation="AREA" if smaller else "BICUBIC")
    array = picture.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(array, round(frame.rotation / 90)))  # the rotation is counter-clockwise


def write_video(
    path: str | os.PathLike, frames: Frames | Iterator[np.ndarray], fps: float | Fraction = NETWORK_FPS
) -> None:
    """Writes an MP4 that plays everywhere: H.264, yuv420p.

    This format needs even sides. If a side is odd, the last row or column is doubled.

    Args:
        path: the file to write.
        frames: see `frames_array`; or an iterator of uint8 `(H, W, 3)`, of which one frame at a time is held in memory.
        fps: frames a second.

    Raises:
        ValueError: if the frames are not a clip.
        OSError: if the file cannot be written.
        ImportError: if PyAV is not installed.
    """
    av = import_av()
    frames = _even(frames if isinstance(frames, Iterator) else iter(frames_array(frames)))
    first = next(frames, None)
    if first is None:
        raise ValueError("A clip needs at least one frame; got none.")
    with atomic(path) as beside:
        try:
            with av.open(str(beside), "w", format="mp4", options={"movflags": "faststart"}) as container:
                rate = Fraction(fps).limit_denominator(1001)  # 23.976 is 24000/1001
                # With one thread the same frames nearly always give the same bytes, on any machine.
                options = {"crf": "12", "threads": "1"}
                if first.shape[0] * first.shape[1] > LARGE_FRAME:
                    options["rc-lookahead"] = "5"  # frames that the encoder holds; its usual 40 would not fit in memory
                stream = container.add_stream("libx264", rate, options=options)
                stream.height, stream.width = first.shape[:2]
                stream.pix_fmt = "yuv420p"
                _tag_colours(stream.codec_context)
                for frame in chain([first], frames):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
                container.mux(stream.encode(None))
        except av.error.FFmpegError as error:
            raise OSError(f"{path} cannot be written: {error}") from error


def _even(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Each frame with even sides. Raises ValueError if one is not a picture or differs from the first in size."""
    shape = None
    for frame in frames:
        frame = frames_array(frame[None])[0]
        shape = shape or frame.shape
        if frame.shape != shape:
            raise ValueError(f"A clip needs frames of one size; got {frame.shape} after {shape}.")
        yield np.pad(frame, ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0)), mode="edge")


def _tag_colours(codec: av.VideoCodecContext) -> None:
    """States how RGB was converted, by BT.601 with limited range; otherwise players guess it from the size."""
    codec.color_range, codec.colorspace = 1, 6
    codec.color_primaries, codec.color_trc = 1, 13  # those of sRGB


def resize_frames(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a clip, by area means if it gets smaller and by cubic interpolation if it gets larger.

    Args:
        frames: uint8 `(F, H, W, 3)`.
        size: the new (height, width).

    Returns:
        uint8 `(F, height, width, 3)`.
    """
    height, width = size
    mode = cv2.INTER_AREA if height * width < frames.shape[1] * frames.shape[2] else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, (width, height), interpolation=mode) for frame in frames])


def copy_with_sound(
    clip: str | os.PathLike, source: str | os.PathLike, output: str | os.PathLike, start: float = 0.0
) -> bool:
    """Writes a clip again, together with the sound of the video that it was made from.

    The pictures are copied bit by bit. The sound becomes AAC and is cut to the length of the clip.

    Args:
        clip: an MP4 without sound.
        source: the video that has the sound.
        output: the MP4 to write, another file than `clip`.
        start: the time in `source`, in seconds, at which the clip begins.

    Returns:
        Whether the source has sound; if it has none, nothing is written.

    Raises:
        ValueError: if the sound cannot be decoded.
        ImportError: if PyAV is not installed.
    """
    av = import_av()
    with av.open(str(source)) as sound, av.open(str(clip)) as pictures:
        if not sound.streams.audio:
            return False
        heard, seen = sound.streams.audio[0], pictures.streams.video[0]
        length = float(seen.duration * seen.time_base)
        with av.open(str(output), "w", format="mp4", options={"movflags": "faststart"}) as out:
            video, audio = out.add_stream_from_template(seen), out.add_stream("aac", AUDIO_RATE)
            audio.layout = "stereo" if heard.channels and heard.channels > 1 else "mono"
            for packet in pictures.demux(seen):
                if packet.dts is not None:
                    packet.stream = video
                    out.mux(packet)
            try:
                for frame in _sound(sound, heard, audio, start, length):
                    out.mux(audio.encode(frame))
            except av.error.FFmpegError as error:
                raise ValueError(f"the sound of {source} cannot be decoded: {error}") from error
            out.mux(audio.encode(None))
    return True


def _sound(
    container: av.container.InputContainer, heard: av.AudioStream, audio: av.AudioStream, start: float, length: float
) -> Iterator[av.AudioFrame]:
    """Yields `length` seconds of sound from `start` on, resampled to `AUDIO_RATE`."""
    av, layout = import_av(), audio.layout.name
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=AUDIO_RATE)
    skip, left, written = round(start * AUDIO_RATE), round(length * AUDIO_RATE), 0
    for decoded in container.decode(heard):
        for part in resampler.resample(decoded):
            samples = part.to_ndarray()[:, skip:][:, :left]  # (channels, samples)
            skip = max(0, skip - part.samples)
            if samples.shape[1]:
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
                frame.sample_rate, frame.pts, frame.time_base = AUDIO_RATE, written, Fraction(1, AUDIO_RATE)
                written, left = written + samples.shape[1], left - samples.shape[1]
                yield frame
        if left <= 0:
            return
