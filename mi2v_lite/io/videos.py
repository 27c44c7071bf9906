"""Video files: reads frames at the size that is asked for, writes a clip, and copies the sound (notebook 05).

Frames are found by their times and not by their numbers, so that a video of variable rate plays at its true speed. Each
frame is made smaller as soon as it is decoded, and the decoding ends with the last frame asked for. The memory needed
therefore depends on what is asked for, not on how long or how large the video is.

Not every file can be believed. A rate is compared with the times of the first frames; where a container cannot seek
exactly, its frames are decoded from the beginning; and where its times run backwards, the frames are counted.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice, pairwise
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageSequence

from mi2v_lite.io.files import absent, atomic, check_ordinary
from mi2v_lite.io.images import HDR, NETWORK_FPS, Frames, as_rgb, fitted_size, frames_array, warn_hdr

if TYPE_CHECKING:
    import av

USUAL_RATE = Fraction(25)  # frames a second, where a file says nothing that can be believed
MEASURED = 250  # frames at the beginning whose times are compared with the rate that a file states
SEEKABLE = ("mov", "matroska", "mpegts", "flv", "asf", "mxf", "ogg", "nut")  # the frame after a seek has its true time
EARLIER = (0, 2, 10)  # seconds: in a container without an index, a seek may end behind the frame that was wanted
SPLICE = 10  # seconds: a larger jump in a transport stream is where two recordings meet
HIGHEST_RATE = 1000  # frames a second that are believed where no times can be compared
LATE = Fraction(2, 5)  # of the time between two frames: a frame that comes so late is still in time
NO_TIMES, SPLICED = 0x80, 0x200  # of FFmpeg's flags of formats: AVFMT_NOTIMESTAMPS, AVFMT_TS_DISCONT
SHAPE_CHANGE = 0.05  # by which the aspect ratio may change within a video
BROWSER_DELAY = 100  # milliseconds that browsers show a frame of an animation that states no duration
AUDIO_RATE = 48_000  # samples a second of the sound that is written
AAC_FRAME = 1024  # samples
AUDIO_JITTER = Fraction(1, 50)  # seconds: a smaller difference between two times of sound is rounding, not a gap
LARGEST_FRAME = 2**27  # pixels: a header that says more, which is more than 16K, is taken for damage or an attack
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
        path: a file of any format that FFmpeg reads, or an animated WebP, AVIF or GIF.
        num_frames: the largest number of frames to read, at least 1.
        start: seconds to skip at the beginning.
        step: take every step-th frame, counted at the mean rate of the file.
        size: what the shorter side becomes, in pixels; its own length if None.
        multiple: what both sides become multiples of, for example the autoencoder's downsampling factor.
        enlarge: whether a video that is smaller than `size` is enlarged to it.

    Returns:
        `Video`. It has fewer frames if the file ends before.

    Raises:
        ValueError: if the file is missing, is not a video, or holds no frame after `start`; or if a number does not
            fit.
        ImportError: if PyAV is not installed.
    """
    av, path = import_av(), Path(path)
    for name, value in (("num_frames", num_frames), ("step", step), ("multiple", multiple)):
        if value < 1:
            raise ValueError(f"{name} is {value}; expected a whole number of at least 1.")
    if not (math.isfinite(start) and start >= 0):
        raise ValueError(f"start is {start}; expected seconds of at least 0.")
    try:
        rate = _rate(path)
        try:
            frames = _read(path, num_frames, start, step, rate, size, multiple, enlarge)
        except _UntimedError:
            frames = _read(path, num_frames, start, step, rate, size, multiple, enlarge, counted=True)
    except (av.error.FFmpegError, _CutError) as error:
        raise ValueError(f"{path} cannot be read as a video ({error}); is it whole?") from error
    if not frames:
        after = f" after {start:g} s" if start else ""
        raise ValueError(f"{path} has no frame{after} that can be decoded.")
    return Video(np.stack(frames), rate / step, start)


def count_frames(path: str | os.PathLike) -> int:
    """Counts the frames that `read_video` can give at the rate of a file, without decoding them.

    Args:
        path: the file.

    Returns:
        Their number.

    Raises:
        ValueError: if the file cannot be read to its end, or has fewer frames than its header says.
        ImportError: if PyAV is not installed.
    """
    av, path = import_av(), Path(path)
    try:
        rate = _rate(path)
        times, packets, stated = _frame_times(path)
    except (av.error.FFmpegError, _CutError) as error:
        raise ValueError(f"{path} cannot be read to its end ({error})") from error
    if packets < stated:
        raise ValueError(f"{path} is cut off: {packets} of its {stated} frames are there")
    return round((times[-1] - times[0]) * rate) + 1 if times else packets


class _UntimedError(Exception):
    """The times of the frames are missing or run backwards."""


class _CutError(ValueError):
    """An animation cannot be read, or only its beginning."""


def _read(
    path: Path,
    num_frames: int,
    start: float,
    step: int,
    rate: Fraction,
    size: int | None,
    multiple: int,
    enlarge: bool,
    counted: bool = False,
) -> list[np.ndarray]:
    """Reads frames for `read_video`; raises `_UntimedError` if they have to be `counted` instead."""
    av, frames = import_av(), []
    try:
        for frame, aspect in _at_rate(_shown(path, start, rate, counted), start, rate, step):
            if not frames and frame.color_trc in HDR:
                warn_hdr(path, frame.color_trc)
            frames.append(_like(path, _upright(frame, aspect, size, multiple, enlarge), frames))
            if len(frames) == num_frames:
                break
    except (av.error.FFmpegError, _CutError) as error:
        # The frames before the damage are good, if they make a clip.
        if len(frames) < 2:
            what = "is damaged" if frames else f"is damaged, or its frames have more than {LARGEST_FRAME:,} pixels"
            raise ValueError(f"{path} {what}: only {len(frames)} frame(s) can be decoded ({error})") from error
    return frames


def _like(path: Path, frame: np.ndarray, before: list[np.ndarray]) -> np.ndarray:
    """The frame at the size of those before, since a stream may change its size but not its shape."""
    if not before or frame.shape == before[0].shape:
        return frame
    (height, width), (now_high, now_wide) = before[0].shape[:2], frame.shape[:2]
    if abs(now_wide * height / (now_high * width) - 1) > SHAPE_CHANGE:
        raise ValueError(
            f"{path} changes its shape from {width}x{height} to {now_wide}x{now_high} pixels after {len(before)} of "
            "the frames asked for: take fewer frames, or begin after the change."
        )
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if now_high > height else cv2.INTER_CUBIC)


def _open(path: Path) -> av.container.InputContainer:
    """Opens a file and nothing else: a colon in its name makes no address of it, and a playlist reaches no network."""
    av = import_av()
    _check_file(path)
    # Titles in another encoding than UTF-8 are common, and nobody reads them here.
    options = {"protocol_whitelist": "file", "max_pixels": str(LARGEST_FRAME)}  # opening decodes some frames
    return av.open(f"file:{path}", metadata_errors="replace", options=options)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise ValueError(
            f"{path} is a folder; give a video file. Numbered pictures become one with, for example, "
            "`ffmpeg -framerate 25 -i %04d.png clip.mp4`."
        )
    check_ordinary(path)
    if not path.is_file():
        raise ValueError(absent(path, "the path of a video file"))
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; give a video file.")


def _moving(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The stream of moving pictures: not a cover, and the best one of several."""
    av = import_av()
    moving = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not moving:
        cover = " but a cover" if container.streams.video else ""
        raise ValueError(f"{path} has no pictures{cover}; give a video file.")
    known = [stream for stream in moving if stream.codec_context is not None]
    if not known:
        raise ValueError(f"{path} has pictures in a format that is unknown here; convert it to an MP4 with H.264.")
    default = av.stream.Disposition.default
    stream = max(known, key=lambda stream: (bool(stream.disposition & default), stream.width * stream.height))
    if stream.width * stream.height > LARGEST_FRAME:
        raise ValueError(
            f"{path} says that its frames have {stream.width}x{stream.height} pixels, and at most {LARGEST_FRAME:,} "
            "are read: make it smaller first, unless it is damaged."
        )
    # The pictures may say another size, as they do where a stream begins in their middle: its size is 0x0 so far.
    stream.codec_context.options = {"max_pixels": str(LARGEST_FRAME)}
    stream.thread_type = "AUTO"
    return stream


def _is_animation(path: Path) -> bool:
    """Whether a file is a WebP, an AVIF or a GIF, which Pillow reads; FFmpeg reads only some of those that move."""
    _check_file(path)
    with path.open("rb") as file:
        start = file.read(12)
    webp, avif = (start[:4], start[8:]) == (b"RIFF", b"WEBP"), start[4:] in (b"ftypavif", b"ftypavis")
    return webp or avif or start[:4] == b"GIF8"


def _animation(path: Path) -> Iterator[tuple[Fraction, av.VideoFrame, float]]:
    """Yields the time and the frame of each page of a WebP, an AVIF or a GIF; the pixels are square."""
    av, time = import_av(), Fraction(0)
    try:
        with Image.open(path) as image:
            for page in ImageSequence.Iterator(image):
                yield time, av.VideoFrame.from_ndarray(np.asarray(as_rgb(page)), "rgb24"), 1.0
                time += Fraction(round(image.info.get("duration", 0)) or BROWSER_DELAY, 1000)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _CutError(str(error)) from error


def _frame_times(path: Path, most: int | None = None) -> tuple[list[Fraction], int, int]:
    """The times of a file's frames, as far as they can be told without decoding.

    Args:
        path: the file.
        most: the number of frames to look at, from the beginning; if None, all, and then an animation must be whole.

    Returns:
        the times in seconds in rising order, or an empty list if the file has none that can be used; how many frames
        there are; and how many the header says.
    """
    if _is_animation(path):
        times = []
        try:
            for time, _, _ in islice(_animation(path), most):
                times.append(time)
        except _CutError:
            if most is None or not times:
                raise
        return times, len(times), 0
    with _open(path) as container:
        stream = _moving(container, path)
        packets = [packet for packet in islice(container.demux(stream), most) if packet.dts is not None or packet.size]
        stamps = [
            (packet.dts if container.format.name == "avi" else packet.pts)  # AVI knows only the order of decoding
            for packet in packets
            if packet.size and not packet.is_discard
        ]
        times = sorted({stamp * stream.time_base for stamp in stamps if stamp is not None})
        return times if len(times) > 0.9 * len(stamps) else [], len(packets), stream.frames


def _rate(path: Path) -> Fraction:
    """Frames a second: what the file states, if the times of its first frames agree with it, or else by these times."""
    times, _, _ = _frame_times(path, MEASURED)
    gaps = sorted(after - before for before, after in pairwise(times))
    usual = [gap for gap in gaps if gap <= 2 * gaps[len(gaps) // 2]]  # without the pauses
    measured = len(usual) / sum(usual) if usual else None
    stated: list[Fraction] = []
    if not _is_animation(path):
        with _open(path) as container:
            stream = _moving(container, path)
            stated = [rate for rate in (stream.guessed_rate, stream.average_rate) if rate]
    if not measured:
        return next((rate for rate in stated if rate <= HIGHEST_RATE), USUAL_RATE)
    nearest = min(stated, key=lambda rate: abs(rate - measured), default=measured)
    if Fraction(2, 3) <= nearest / measured <= Fraction(3, 2):
        return Fraction(nearest)
    return Fraction(measured).limit_denominator(1001)


def _shown(
    path: Path, start: float, rate: Fraction, counted: bool
) -> Iterator[tuple[Fraction, tuple[av.VideoFrame, float]]]:
    """Yields frames from the one that is seen at `start` on, or from an earlier one.

    Args:
        path: the file.
        start: seconds after the first frame.
        rate: of the file.
        counted: whether the frames are numbered, because their own times are wrong.

    Yields:
        seconds after the first frame of the file, and the frame with the aspect ratio of its pixels.
    """
    av = import_av()
    if _is_animation(path):
        yield from ((time, (frame, aspect)) for time, frame, aspect in _animation(path))
        return
    for earlier in EARLIER:
        with _open(path) as container:
            stream = _moving(container, path)
            names = container.format.name.split(",")
            counted = counted or "avi" in names or bool(container.format.flags & NO_TIMES)
            if counted or start <= earlier or not set(names) & set(SEEKABLE):
                break
            aspect = float(stream.sample_aspect_ratio or 1)
            zero = next((time for time, _ in _timed(container, stream, rate)), Fraction(0))
            try:
                where = int((zero + Fraction(start) - earlier) / stream.time_base)
                container.seek(where, stream=stream, backward=True)
                frames = _timed(container, stream, rate)
                first = next(frames, None)
            except av.error.FFmpegError:
                continue
            if first is not None and first[0] - zero <= Fraction(start) + LATE / rate:
                for time, frame in chain([first], frames):
                    yield time - zero, (frame, aspect)
                return
    with _open(path) as container:
        stream = _moving(container, path)
        aspect, zero = float(stream.sample_aspect_ratio or 1), None
        times = _frame_times(path)[0] if counted else []
        for number, (time, frame) in enumerate(_timed(container, stream, rate, counted)):
            if counted:
                time = times[number] if number < len(times) else number / rate
            zero = time if zero is None else zero
            yield time - zero, (frame, aspect)


def _timed(
    container: av.container.InputContainer, stream: av.VideoStream, rate: Fraction, counted: bool = False
) -> Iterator[tuple[Fraction, av.VideoFrame]]:
    """Yields each frame with its time, in seconds. What comes before the first whole picture is left out."""
    av = import_av()
    last, shift, failure = None, Fraction(0), None
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError as error:
            if last is not None:
                raise
            failure = error
            continue
        for frame in frames:
            if last is None and frame.is_corrupt:
                continue
            if frame.pts is None and not counted:
                raise _UntimedError
            following = Fraction(0) if last is None else last + 1 / rate
            time = following if frame.pts is None else frame.pts * frame.time_base + shift
            if last is not None and not counted:
                ahead = time - last
                if container.format.flags & SPLICED and (ahead < -1 or ahead > max(SPLICE, 20 / rate)):
                    shift, time = shift + following - time, following
                elif ahead <= 0:
                    raise _UntimedError
            last = time
            yield time, frame
    if last is None and failure is not None:
        raise failure


def _at_rate(
    shown: Iterator[tuple[Fraction, tuple[av.VideoFrame, float]]], start: float, rate: Fraction, step: int
) -> Iterator[tuple[av.VideoFrame, float]]:
    """Yields the frame seen at each of the times start, start + step / rate, ...; it may be the same frame twice."""
    # Time stamps are rounded, so a frame may come a little late and still be in time.
    due, late, last = Fraction(start), LATE / rate, None
    for time, picture in shown:
        while last is not None and time > due + late:
            yield last
            due += step / rate
        last, end = picture, time + 1 / rate
    while last is not None and due + late < end:
        yield last
        due += step / rate


def _upright(frame: av.VideoFrame, aspect: float, size: int | None, multiple: int, enlarge: bool) -> np.ndarray:
    """One frame as uint8 `(H, W, 3)`. It is scaled while it is still YUV, which is fast, and then turned upright."""
    own, turns = (frame.width * aspect, float(frame.height)), 0
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # among FFmpeg's kinds of side data is one that PyAV does not know, as EXIF in Motion JPEG
        matrix, turns = None, round(frame.rotation / 90)
    if frame.interlaced_frame:
        frame = _without_comb(frame)
    if size is not None and not enlarge:
        size = min(size, round(min(own)))
    pixels = "rgba" if any(part.is_alpha for part in frame.format.components) else "rgb24"
    picture, smaller = frame, size is not None and size < min(own)
    if size is not None or aspect != 1 or multiple > 1:
        target = fitted_size(own, size, multiple)
        picture = frame.reformat(*target, format=pixels, interpolation="AREA" if smaller else "BICUBIC")
    array = picture.to_ndarray(format=pixels)
    if pixels == "rgba":  # on white, as `read_image` does it
        opaque = array[..., 3:].astype(np.uint16)
        array = ((array[..., :3] * opaque + 255 * (255 - opaque) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(np.rot90(_turned(array, matrix), turns))


def _without_comb(frame: av.VideoFrame) -> av.VideoFrame:
    """An interlaced frame; if its odd lines show another moment than the even ones, they are made anew from these."""
    grey = frame.to_ndarray(format="gray").astype(np.int16)
    between, within = (np.abs(2 * grey[n:-n] - grey[: -2 * n] - grey[2 * n :]).mean() for n in (1, 2))
    if between <= within:
        return frame
    lines = frame.to_ndarray(format="rgb24")
    lines[1:-1:2] = (lines[:-2:2].astype(np.uint16) + lines[2::2] + 1) // 2
    if len(lines) % 2 == 0:
        lines[-1] = lines[-2]
    return import_av().VideoFrame.from_ndarray(lines)


def _turned(array: np.ndarray, matrix: object) -> np.ndarray:
    """Turns and mirrors a frame as its display matrix says, to the nearest right angle."""
    if matrix is not None:
        # A pixel (x, y) is shown at (a x + c y, b x + d y); y points down.
        a, b, _, c, d = np.frombuffer(bytes(matrix), "<i4" if sys.byteorder == "little" else ">i4")[:5].tolist()
        if abs(b) + abs(c) > abs(a) + abs(d):
            array, across, down = array.swapaxes(0, 1), c, b
        else:
            across, down = a, d
        array = array[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]
    return np.ascontiguousarray(array)


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
            with av.open(f"file:{beside}", "w", format="mp4", options={"movflags": "faststart"}) as container:
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
            raise OSError(error.errno, f"cannot be written ({error.strerror})", str(path)) from error


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


def read_sound(path: str | os.PathLike, start: float, length: float) -> np.ndarray | None:
    """Reads the sound of a part of a video. What is missing or damaged is silent, with a warning.

    Args:
        path: the video.
        start: seconds from its first frame on, as in `read_video`.
        length: seconds.

    Returns:
        float32 `(1 or 2, samples)` in [-1, 1], `AUDIO_RATE` samples a second; None if there is no sound that can be
        decoded.

    Raises:
        ValueError: if the file is missing or has no moving pictures.
        ImportError: if PyAV is not installed.
    """
    av, path = import_av(), Path(path)
    if _is_animation(path):
        return None
    zero = Fraction(0)
    with _open(path) as container:
        if not container.streams.audio:
            return None
        if container.streams.video and container.format.name != "avi":  # an AVI has no times, and begins at 0
            pictures = _timed(container, _moving(container, path), USUAL_RATE, counted=True)
            zero = next((time for time, _ in pictures), zero)
    begin = zero + Fraction(start)
    with _open(path) as container:
        heard = container.streams.best("audio")
        if heard is None or heard.codec_context is None:
            warnings.warn(f"The sound of {path} is in a format that is unknown here: the clip is silent.", stacklevel=2)
            return None
        if begin > EARLIER[-1] and set(container.format.name.split(",")) & set(SEEKABLE):
            container.seek(int((begin - EARLIER[1]) * av.time_base), backward=True)
        samples = np.zeros((2 if (heard.channels or 1) > 1 else 1, round(length * AUDIO_RATE)), np.float32)
        pieces, damaged = 0, False
        try:
            for time, piece in _sounding(container, heard, samples.shape[0], begin + Fraction(length)):
                if piece is None:
                    damaged |= time is None or time >= begin
                    continue
                pieces += 1
                at = round((time - begin) * AUDIO_RATE)
                first, last = max(at, 0), min(at + piece.shape[1], samples.shape[1])
                if last > first:
                    samples[:, first:last] = piece[:, first - at : last - at]
        except av.error.FFmpegError:
            damaged = True
    if damaged:
        what = "A part of the sound of {} is damaged, and silent in the clip." if pieces else (
            "The sound of {} cannot be decoded: the clip is silent.")  # fmt: skip
        warnings.warn(what.format(path), stacklevel=2)
    return samples if pieces or not damaged else None


def _sounding(
    container: av.container.InputContainer, heard: av.AudioStream, channels: int, end: Fraction
) -> Iterator[tuple[Fraction | None, np.ndarray | None]]:
    """Yields pieces of sound, float32 `(channels, samples)` at `AUDIO_RATE`, with their times; None where damaged."""
    av = import_av()
    resampler, kind, following = None, None, None
    for packet in container.demux(heard):
        time = None if packet.pts is None else packet.pts * packet.time_base
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            yield time, None
            continue
        for frame in frames:
            time = following if frame.pts is None else frame.pts * frame.time_base
            time = Fraction(0) if time is None else time
            if time > end:
                return
            apart = following is None or abs(time - following) > AUDIO_JITTER
            if apart or kind != (frame.format.name, frame.layout.name, frame.sample_rate):
                kind, following = (frame.format.name, frame.layout.name, frame.sample_rate), time
                resampler = av.AudioResampler("fltp", "mono" if channels == 1 else "stereo", AUDIO_RATE)
            frame.pts = None
            for part in resampler.resample(frame):
                yield following, part.to_ndarray()
                following += Fraction(part.samples, AUDIO_RATE)


def add_sound(clip: str | os.PathLike, samples: np.ndarray, output: str | os.PathLike) -> None:
    """Writes a clip again with sound, as AAC. The pictures are copied bit by bit.

    Args:
        clip: an MP4 without sound.
        samples: float32 `(1 or 2, samples)` in [-1, 1], `AUDIO_RATE` samples a second.
        output: the MP4 to write, another file than `clip`.

    Raises:
        OSError: if the file cannot be written.
        ImportError: if PyAV is not installed.
    """
    av, layout = import_av(), "mono" if len(samples) == 1 else "stereo"
    try:
        with (
            _open(Path(clip)) as pictures,
            av.open(f"file:{output}", "w", format="mp4", options={"movflags": "faststart"}) as out,
        ):
            seen = pictures.streams.video[0]
            video, audio = out.add_stream_from_template(seen), out.add_stream("aac", AUDIO_RATE)
            audio.layout = layout
            for packet in pictures.demux(seen):
                if packet.dts is not None:
                    packet.stream = video
                    out.mux(packet)
            for at in range(0, samples.shape[1], AAC_FRAME):
                part = np.ascontiguousarray(samples[:, at : at + AAC_FRAME])
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
                frame.sample_rate, frame.pts, frame.time_base = AUDIO_RATE, at, Fraction(1, AUDIO_RATE)
                out.mux(audio.encode(frame))
            out.mux(audio.encode(None))
    except av.error.FFmpegError as error:
        raise OSError(error.errno, f"cannot be written ({error.strerror})", str(output)) from error


def copy_with_sound(
    clip: str | os.PathLike, source: str | os.PathLike, output: str | os.PathLike, start: float = 0.0
) -> bool:
    """Writes a clip again, together with the sound of the video that it was made from.

    Args:
        clip: an MP4 without sound.
        source: the video that has the sound, which is cut to the length of the clip.
        output: the MP4 to write, another file than `clip`.
        start: the time in `source`, in seconds, at which the clip begins.

    Returns:
        Whether the source has sound that can be decoded; if it has none, nothing is written.

    Raises:
        ValueError: if a file is missing or has no moving pictures.
        OSError: if the output cannot be written.
        ImportError: if PyAV is not installed.
    """
    with _open(Path(clip)) as pictures:
        seen = pictures.streams.video[0]
        length = float(seen.duration * seen.time_base)
    samples = read_sound(source, start, length)
    if samples is not None:
        add_sound(clip, samples, output)
    return samples is not None
