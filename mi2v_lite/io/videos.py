"""Video files: write a clip, read a few frames at the size asked for, and the sound to go with them (notebook 05).

Frames are taken by their times, not by their numbers, so a clip of variable rate plays as fast as it should. They are
turned upright, made smaller one by one as they are decoded, and decoding ends with the last frame asked for: memory
follows what is asked, not what the file holds.
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

RATE_LIMITS = (1, 240)  # frames a second; what a file says outside of it is taken for a mistake
USUAL_RATE = Fraction(25)
AUDIO_RATE = 48_000
LARGE_FRAME = 4_000_000  # pixels


@dataclass(frozen=True)
class Video:
    """Part of a video.

    Attributes:
        frames: uint8 `(F, H, W, 3)`, RGB, upright, square pixels.
        fps: frames a second at which these frames play as fast as the source.
        start: seconds from the source's beginning to the first of them.
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
    """Read some frames of a video.

    Args:
        path: anything that FFmpeg reads. num_frames: how many at most. start: seconds to leave out.
        step: every step-th frame, of the file's mean rate. size: what the shorter side becomes, pixels; by default as
            it is. multiple: of which both sides must be, the autoencoder's factor; the aspect ratio is kept as far as
            it allows. enlarge: whether a video smaller than `size` is enlarged to it.

    Returns:
        `Video`; fewer frames where the file ends before.

    Raises:
        ValueError: the file is missing, no video, or holds no frame after `start`.
    """
    av, path = import_av(), Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist; give the path of a video file.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; give a video file.")
    kept: list[np.ndarray] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} has no pictures; give a video file.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            rate = _rate(stream)
            try:
                for picture in _at_rate(container, stream, start, rate, step):
                    kept.append(_upright(picture, stream, size, multiple, enlarge))
                    if len(kept) == num_frames:
                        break
            except av.error.FFmpegError as error:
                # What was decoded before the damage is good, if it is a clip.
                if len(kept) < 2:
                    raise ValueError(
                        f"{path} is damaged: only {len(kept)} frame(s) can be decoded ({error})"
                    ) from error
    except av.error.FFmpegError as error:
        raise ValueError(f"{path} cannot be read as a video ({error}); is it whole?") from error
    if not kept:
        after = f" after {start:g} s" if start else ""
        raise ValueError(f"{path} has no frame{after} that can be decoded.")
    return Video(np.stack(kept), rate / step, start)


def _rate(stream: av.VideoStream) -> Fraction:
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and RATE_LIMITS[0] <= rate <= RATE_LIMITS[1]:
            return Fraction(rate)
    return USUAL_RATE


def _at_rate(
    container: av.container.InputContainer, stream: av.VideoStream, start: float, rate: Fraction, step: int
) -> Iterator[av.VideoFrame]:
    """The picture that is seen at start, start + step / rate, ...; one that is seen twice comes twice."""
    if start > 0:
        container.seek(int(start / stream.time_base) + (stream.start_time or 0), stream=stream, backward=True)
    zero = (stream.start_time or 0) * stream.time_base if start > 0 else None
    # Time stamps are rounded: a frame may be a little late and still count as in time.
    due, late, last = Fraction(start), Fraction(2, 5) / rate, None
    for number, frame in enumerate(container.decode(stream)):
        # Without time stamps frames are counted at the usual rate.
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
    """One frame as uint8 `(H, W, 3)`: scaled while it is still YUV, then turned."""
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
    """Write an MP4: H.264, yuv420p, so that it plays everywhere.

    Args:
        path: where to. frames: see `frames_array`, or an iterator of uint8 `(H, W, 3)`, of which one frame is held at a
            time; an odd side is made even by doubling the last row or column, which yuv420p needs. fps: frames per
            second.

    Raises:
        ValueError: frames that are no clip. OSError: it cannot be written.
    """
    av = import_av()
    frames = _even(frames if isinstance(frames, Iterator) else iter(frames_array(frames)))
    first = next(frames, None)
    if first is None:
        raise ValueError("A clip needs at least one frame; got none.")
    with atomic(path) as beside:
        try:
            with av.open(str(beside), "w", format="mp4", options={"movflags": "faststart"}) as container:
                # One thread: the same frames give the same bytes on every machine.
                rate = Fraction(fps).limit_denominator(1001)  # 23.976 is 24000/1001
                options = {"crf": "12", "threads": "1"}
                if first.shape[0] * first.shape[1] > LARGE_FRAME:
                    options["rc-lookahead"] = "5"  # the encoder holds so many frames; 40 of them would not fit
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
    """Each frame with even sides. Raises ValueError where one is no picture, or not of the first one's size."""
    shape = None
    for frame in frames:
        frame = frames_array(frame[None])[0]
        shape = shape or frame.shape
        if frame.shape != shape:
            raise ValueError(f"A clip needs frames of one size; got {frame.shape} after {shape}.")
        yield np.pad(frame, ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0)), mode="edge")


def _tag_colours(codec: av.VideoCodecContext) -> None:
    """Says what the conversion from RGB does, BT.601 of limited range: players otherwise guess by the size."""
    codec.color_range, codec.colorspace = 1, 6
    codec.color_primaries, codec.color_trc = 1, 13  # those of sRGB


def resize_frames(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 `(F, H, W, 3)` at another (height, width): area means when it gets smaller, cubic when larger."""
    height, width = size
    mode = cv2.INTER_AREA if height * width < frames.shape[1] * frames.shape[2] else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, (width, height), interpolation=mode) for frame in frames])


def copy_with_sound(
    clip: str | os.PathLike, source: str | os.PathLike, output: str | os.PathLike, start: float = 0.0
) -> bool:
    """Write `clip` again with the sound of `source` from `start` on, as long as the clip is.

    The pictures are copied bit by bit; the sound becomes AAC, whatever it was.

    Args:
        clip: an MP4 without sound. source: where the sound is from. output: the MP4 to write, not `clip`.

    Returns:
        False where the source has no sound (nothing is written then), else True.

    Raises:
        ValueError: the sound cannot be decoded.
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
    """The samples from `start` on, `length` seconds of them, as float planes at AUDIO_RATE."""
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
