"""Clips of a film: the frames asked for, the flow of what moves, words read off the flow, whole shots held out."""

from pathlib import Path

import numpy as np
import pytest

from mi2v_lite import cli
from mi2v_lite.data.clips import ClipSource
from mi2v_lite.data.film import BIG_BUCK_BUNNY, Film, Shot, read_square, told_motion
from mi2v_lite.data.store import ClipStore

av = pytest.importorskip("av")

SAMPLE = Path(__file__).resolve().parents[1] / "data_samples" / "clips" / "big_buck_bunny.mp4"
SHOT = Shot(0, 48, "a fat white rabbit comes out of its burrow")


def moving_square(path: Path, count: int = 40) -> Path:
    """A film: on noise that stays, a square of noise that moves 2 px to the right a frame."""
    random = np.random.default_rng(0)
    still, thing = (np.kron(random.integers(0, 256, (n, n, 3)), np.ones((4, 4, 1))).astype(np.uint8) for n in (32, 10))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv444p"
        stream.options = {"crf": "5", "g": "12"}
        for i in range(count):
            picture = np.pad(still, ((0, 0), (16, 16), (0, 0)), mode="reflect")
            picture[40:80, 24 + 2 * i : 64 + 2 * i] = thing
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def film() -> Film:
    return Film(SAMPLE, [SHOT], size=64)


def test_a_clip_of_the_sample(film: Film) -> None:
    source: ClipSource = film
    clip = source.clip(3)
    assert clip.frames.shape == (16, 64, 64, 3) and clip.frames.dtype == np.uint8
    assert clip.flow.shape == (15, 2, 64, 64) and clip.flow.dtype == np.float32 and np.isfinite(clip.flow).all()
    assert clip.visibility.shape == (15, 64, 64) and clip.visibility.dtype == bool
    assert clip.stride == 2, "48 frames have room for no other stride"
    assert clip.caption.startswith("a fat white rabbit comes out of its burrow, it ")
    again = Film(SAMPLE, [SHOT], size=64).clip(3)
    assert np.array_equal(again.frames, clip.frames) and np.array_equal(again.flow, clip.flow)
    assert not np.array_equal(film.clip(4).frames, clip.frames)


def test_frames_are_those_asked_for(tmp_path: Path) -> None:
    path = moving_square(tmp_path / "square.mp4")
    found = read_square(path, range(13, 40, 9), 128)
    assert found.shape == (3, 128, 128, 3)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24")[:, 16:-16] for frame in container.decode(video=0)]
    for i, picture in zip((13, 22, 31), found, strict=True):
        error = [np.abs(picture.astype(int) - frame).mean() for frame in frames]
        assert int(np.argmin(error)) == i and error[i] < 1
    with pytest.raises(ValueError, match="gave 1 of the 2 frames"):
        read_square(path, range(30, 61, 30), 128)


def test_flow_and_words_tell_what_moves(tmp_path: Path) -> None:
    """At half size, 15 x stride frames of 2 px: the square goes 15 x stride px; mirrored, to the left."""
    film = Film(moving_square(tmp_path / "square.mp4"), [Shot(0, 40, "a square of noise")], size=64)
    directions = set()
    for seed in range(6):
        clip = film.clip(seed)
        way = np.median(clip.flow[9, 0][np.abs(clip.flow[9, 0]) > 5])  # 10 steps of 2 frames
        assert abs(abs(way) - 20) < 1.5 and np.abs(clip.flow[9, 1]).mean() < 1
        still = np.abs(clip.flow[9]).max(axis=0) < 0.3
        assert 0.6 < still.mean() < 0.95
        direction = "right" if way > 0 else "left"
        assert direction in clip.caption and ("quickly" in clip.caption or "fast" in clip.caption)
        directions.add(direction)
    assert directions == {"left", "right"}


def test_words_of_a_flow() -> None:
    field, seen = np.zeros((2, 128, 128), np.float32), np.ones((128, 128), bool)
    assert not told_motion(field, seen, 120).moves
    field[0, 30:60, 30:60], field[1, 30:60, 30:60] = -6, -6
    slow = told_motion(field, seen, 120)
    assert (slow.kind, slow.direction, slow.speed) == ("drift", "up and to the left", "slow")
    assert told_motion(field, seen, 30).speed == "quick", "the same way in a quarter of the time"
    field[:, 30:60, 45:60] *= -1
    assert told_motion(field, seen, 60).direction == "around"
    seen[30:60, 45:60] = False
    assert told_motion(field, seen, 60).direction == "up and to the left"


def test_shots_of_big_buck_bunny_keep_the_splits_apart() -> None:
    ends = [shot.start + shot.length for shot in BIG_BUCK_BUNNY]
    starts = [shot.start for shot in BIG_BUCK_BUNNY]
    assert len(starts) >= 55 and all(end <= start for end, start in zip(ends, starts[1:], strict=False))
    held = [shot for shot in BIG_BUCK_BUNNY if shot.split == "heldout"]
    assert 8 <= len(held) <= len(starts) / 4
    assert not any(1145 <= shot.start < 1346 for shot in BIG_BUCK_BUNNY), "the sample clip's shot is in no list"
    told = {word for shot in BIG_BUCK_BUNNY for word in shot.caption.split()}
    assert not told & {"camera", "left", "right", "up", "down", "quickly", "slowly"}, "the flow tells these"


def test_a_store_of_film_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mi2v_lite.data.film as film

    monkeypatch.setattr(film.Film.__init__, "__defaults__", ((SHOT,), *film.Film.__init__.__defaults__[1:]))
    out = tmp_path / "film"
    assert cli.main(["world", "--film", str(SAMPLE), "--clips", "2", "--size", "32", "-o", str(out)]) == 0
    read = ClipStore(out)
    assert len(read) == 2 and np.array_equal(read.clip(1).frames, film.Film(SAMPLE, [SHOT], size=32).clip(1).frames)


def test_wrong_films_are_refused(tmp_path: Path) -> None:
    (tmp_path / "no.mp4").write_text("no film")
    with pytest.raises(ValueError, match="cannot be read as a video"):
        Film(tmp_path / "no.mp4", [SHOT])
    with pytest.raises(ValueError, match="another film's shots"):
        Film(SAMPLE)
    with pytest.raises(ValueError, match="31 frames"):
        Film(SAMPLE, [Shot(0, 20, "")])
    with pytest.raises(ValueError, match="choose 'train' or 'heldout'"):
        Film(SAMPLE, [SHOT], split="test")
