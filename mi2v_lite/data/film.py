"""Clips of a real film: how things move that nobody drew. The training recipes use them beside those of the world.

    film = Film("bbb.mp4"); clip = film.clip(7)

Only shots with a still camera are taken: there the caption can tell the motion without a word on the camera. A clip is
16 frames of a shot at a random stride, cut to the middle square and mirrored half of the time. Its flow is an estimate
by the chained tracker of `flow/tracking.py`, which also sees the frames in between. Its caption says what is to be
seen, as a person wrote it for each shot, and then what moves where and how fast, as read off the flow, in the words of
captions.py. (In Motion-I2V, Section 4.1, captions come from the data set and flow from a tracker.)

`BIG_BUCK_BUNNY` lists the shots of that film, some of which are held out whole; another film needs its own list.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mi2v_lite.data import captions
from mi2v_lite.data.clips import SPLITS, Clip
from mi2v_lite.data.motion import DIRECTIONS, SOURCE_FRAMES, Motion
from mi2v_lite.flow.tracking import ChainTracker, Tracker
from mi2v_lite.io.videos import read_video

STRIDES = (2, 4, 8)
LINK = 4  # the tracker sees at least every fourth frame of the film, whatever the stride
TRACK_AT = 2  # the tracker sees pictures this many times larger than the clip's
# Where less than this share of frame 0 is still seen in the last frame, since somebody walks out of the picture or in
# front of everything, there is hardly a flow to learn from: another part is drawn, at most so many times.
LEAST_SEEN, TRIES = 0.5, 4
# In the last frame: a pixel moves from this share of the side on, a clip from this share of its pixels on, and it has
# a direction when its mean displacement is this share of the mean length.
MOVES_FROM, LEAST_MOVING, ONE_WAY = 0.015, 0.01, 0.5
# In the gaps of motion.OBJECT_SPEEDS.
SLOW_BELOW, QUICK_ABOVE = 0.11, 0.25


@dataclass(frozen=True)
class Shot:
    """One take of a film.

    Attributes:
        start: its first frame, counted from 0.
        length: its number of frames.
        caption: what is to be seen.
        split: "train" or "heldout".
    """

    start: int
    length: int
    caption: str
    split: str = "train"


def read_shots(path: Path) -> tuple[Shot, ...]:
    """Read the shots of a JSON file, `{"shots": [{"start", "length", "split", "caption"}, ...]}`."""
    return tuple(Shot(**shot) for shot in json.loads(path.read_text(encoding="utf-8"))["shots"])


BIG_BUCK_BUNNY = read_shots(Path(__file__).with_name("big_buck_bunny.json"))


class Film:
    """Draws clips from the shots of a video; the same seed gives the same clip. A `ClipSource`.

    Args:
        video: the file.
        shots: where to take clips from.
        split: "train" or "heldout", which of the shots.
        size: side of the square frames in pixels.
        num_frames: F of a clip.
        tracker: gives flow and visibility, `ChainTracker` by default.

    Raises:
        ValueError: the file cannot be read as a video, it is another film than the shots', or no shot is long enough.
    """

    def __init__(
        self,
        video: str | Path,
        shots: Sequence[Shot] = BIG_BUCK_BUNNY,
        split: str = "train",
        size: int = 128,
        num_frames: int = 16,
        tracker: Tracker | None = None,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split is {split!r}; choose 'train' or 'heldout'")
        self.video, self.split, self.size, self.num_frames = Path(video), split, size, num_frames
        needed = STRIDES[0] * (num_frames - 1) + 1
        self.shots = [shot for shot in shots if shot.split == split and shot.length >= needed]
        if not self.shots:
            raise ValueError(f"no shot of the split {split!r} has the {needed} frames that a clip needs")
        self.tracker = ChainTracker() if tracker is None else tracker
        import av

        last = max(shot.start + shot.length for shot in self.shots)
        read_video(self.video, 1)  # says what is wrong with a file that is no video
        with av.open(str(self.video)) as container:
            length = container.streams.video[0].frames
        if length and length < last:
            raise ValueError(
                f"{self.video} has {length} frames, but the shots go to {last}: these are another film's shots"
            )

    def clip(self, seed: int) -> Clip:
        """The clip of this seed (an integer, 0 or more)."""
        rng = np.random.default_rng([SPLITS[self.split], seed])
        for _ in range(TRIES):
            clip = self._draw(rng)
            if clip.visibility[-1].mean() >= LEAST_SEEN:
                break
        return clip

    def _draw(self, rng: np.random.Generator) -> Clip:
        lengths = np.array([shot.length for shot in self.shots], np.float64)
        shot = self.shots[int(rng.choice(len(self.shots), p=lengths / lengths.sum()))]
        future = self.num_frames - 1
        stride = int(rng.choice([stride for stride in STRIDES if stride * future < shot.length]))
        start = shot.start + int(rng.integers(shot.length - stride * future))
        mirrored = bool(rng.random() < 0.5)

        link = min(stride, LINK)
        large = read_square(self.video, range(start, start + stride * future + 1, link), TRACK_AT * self.size)
        if mirrored:
            large = np.ascontiguousarray(large[:, :, ::-1])
        flow, seen = self.tracker(large)
        every = stride // link
        frames = np.stack([_smaller(frame) for frame in large[::every]])
        flow = np.stack([_smaller(f.transpose(1, 2, 0)) for f in flow.numpy()[every - 1 :: every]]) / TRACK_AT
        visibility = np.stack([_smaller(v.astype(np.float32)) > 0.5 for v in seen.numpy()[every - 1 :: every]])
        flow = np.ascontiguousarray(flow.transpose(0, 3, 1, 2), np.float32)
        words = captions.motion_phrase(told_motion(flow[-1], visibility[-1], stride * future), rng)
        return Clip(frames, flow, visibility, f"{shot.caption}, it {words}", stride)


def _smaller(picture: np.ndarray) -> np.ndarray:
    return cv2.resize(picture, None, fx=1 / TRACK_AT, fy=1 / TRACK_AT, interpolation=cv2.INTER_AREA)


def read_square(video: Path, indices: range, size: int) -> np.ndarray:
    """The middle square of some frames of a video.

    Args:
        video: the file.
        indices: rising numbers of frames, counted from 0.
        size: side of the square in pixels.

    Returns:
        uint8 `(len(indices), size, size, 3)`, RGB.

    Raises:
        ValueError: the video ends before.
    """
    import av

    wanted, squares = set(indices), []
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        first, rate = stream.start_time or 0, stream.average_rate
        container.seek(first + int(indices[0] / rate / stream.time_base), stream=stream)  # to the key frame before
        for frame in container.decode(stream):
            number = round((frame.pts - first) * stream.time_base * rate)
            if number in wanted:
                scale = size / min(frame.width, frame.height)
                shape = {"width": round(frame.width * scale), "height": round(frame.height * scale)}
                picture = frame.reformat(**shape, format="rgb24", interpolation="AREA").to_ndarray()
                top, left = (picture.shape[0] - size) // 2, (picture.shape[1] - size) // 2
                squares.append(picture[top : top + size, left : left + size])
            if number >= indices[-1]:
                break
    if len(squares) != len(indices):
        raise ValueError(f"{video} gave {len(squares)} of the {len(indices)} frames from {indices[0]} to {indices[-1]}")
    return np.stack(squares)


def told_motion(flow: np.ndarray, seen: np.ndarray, frames: int) -> Motion:
    """What a caption tells of a motion: a drift in one of eight directions (or "around") at a speed, or a stay.

    Args:
        flow: f_{0->last} `(2, H, W)`, pixels.
        seen: bool `(H, W)`, where the flow is more than a guess.
        frames: how many film frames the motion took; the speeds are those of motion.py.
    """
    length = np.linalg.norm(flow, axis=0)
    moving = seen & (length > MOVES_FROM * flow.shape[-1])
    if moving.mean() < LEAST_MOVING:
        return Motion("stay")
    amount = float(length[moving].mean()) / flow.shape[-1] * SOURCE_FRAMES / frames
    speed = "slow" if amount < SLOW_BELOW else "quick" if amount > QUICK_ABOVE else "medium"
    mean = flow[:, moving].mean(axis=1)
    if np.linalg.norm(mean) < ONE_WAY * length[moving].mean():
        return Motion("drift", "around", speed, amount)
    direction = max(DIRECTIONS, key=lambda name: float(np.dot(DIRECTIONS[name], mean)))
    return Motion("drift", direction, speed, amount)
