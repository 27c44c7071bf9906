"""Video files as people have them: whole, cut off, empty, turned, of variable rate, large, with and without sound."""

from fractions import Fraction

import numpy as np
import pytest

from mi2v_lite.io.videos import copy_with_sound, read_video, write_video

av = pytest.importorskip("av")

SAMPLE = "data_samples/clips/big_buck_bunny.mp4"


def numbered(count, height=48, width=64):
    """Frames that say their number by their brightness, with the left top corner red."""
    frames = np.stack([np.full((height, width, 3), 5 * i, np.uint8) for i in range(count)])
    frames[:, : height // 2, : width // 2] = (255, 0, 0)
    return frames


def numbers(frames):
    """What `numbered` frames say: from the right bottom corner."""
    return (frames[:, -8:, -8:].mean(axis=(1, 2, 3)) / 5).round().astype(int).tolist()


def write_times(path, times, frames):
    """A clip whose frames stand at such times, in milliseconds."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", 1000, options={"crf": "8", "bf": "0"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        for time, frame in zip(times, frames, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, "rgb24")
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))


def test_what_is_asked_for_comes(tmp_path):
    write_video(tmp_path / "a.mp4", numbered(40), fps=20)
    video = read_video(tmp_path / "a.mp4", num_frames=5)
    assert numbers(video.frames) == [0, 1, 2, 3, 4] and video.fps == 20
    video = read_video(tmp_path / "a.mp4", num_frames=5, start=0.5, step=4)
    assert numbers(video.frames) == [10, 14, 18, 22, 26] and video.fps == 5
    assert numbers(read_video(tmp_path / "a.mp4", num_frames=99, start=1.75).frames) == [35, 36, 37, 38, 39]
    with pytest.raises(ValueError, match="no frame after 3 s"):
        read_video(tmp_path / "a.mp4", start=3)


def test_size_keeps_the_shape(tmp_path):
    assert read_video(SAMPLE, 2).frames.shape == (2, 180, 320, 3)
    assert read_video(SAMPLE, 2, size=128, multiple=8).frames.shape == (2, 128, 224, 3)
    assert read_video(SAMPLE, 2, size=256).frames.shape == (2, 256, 455, 3)


def test_a_large_video_is_made_small_frame_by_frame(tmp_path, monkeypatch):
    write_video(tmp_path / "4k.mp4", numbered(6, 2160, 3840), fps=24)
    sizes, plain = [], np.ascontiguousarray
    monkeypatch.setattr(np, "stack", lambda parts, real=np.stack: sizes.extend(p.nbytes for p in parts) or real(parts))
    video = read_video(tmp_path / "4k.mp4", num_frames=3, size=128)
    assert plain(video.frames).shape == (3, 128, 228, 3) and len(sizes) == 3
    assert max(sizes) == 128 * 228 * 3, "no frame is kept at its full size"


def test_variable_rate_is_played_by_the_clock(tmp_path):
    # Frames 0 to 9 every 40 ms, then one that stands for 400 ms, then 40 ms again.
    times = [40 * i for i in range(10)] + [400, 800, 840, 880]
    write_times(tmp_path / "v.mkv", times, numbered(14))
    video = read_video(tmp_path / "v.mkv", 50)
    found, gap = numbers(video.frames), float(1 / video.fps)
    due = [sum(t <= 1000 * i * gap + 1e-6 for t in times) - 1 for i in range(len(found))]
    assert max(abs(a - b) for a, b in zip(found, due, strict=True)) <= 1
    assert found.count(10) >= 3, "the picture that stands is seen for as long as it stands"
    assert abs(len(found) * gap - 0.92) < 0.1


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_video_comes_upright(tmp_path, degrees):
    write_video(tmp_path / "a.mp4", numbered(3), fps=8)
    content = (tmp_path / "a.mp4").read_bytes()
    at = content.index(b"tkhd") + 4 + 40  # the matrix of the track's header, 16.16 fixed point, clockwise
    a, b = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = [a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30]
    turned = content[:at] + b"".join(v.to_bytes(4, "big", signed=True) for v in matrix) + content[at + 36 :]
    (tmp_path / "b.mp4").write_bytes(turned)
    frames = read_video(tmp_path / "b.mp4", 1).frames
    assert frames.shape[1:3] == ((48, 64) if degrees == 180 else (64, 48))
    height, width = frames.shape[1:3]
    corner = {90: (0, -1), 180: (-1, -1), 270: (-1, 0)}[degrees]  # where the left top one is to be seen
    assert frames[0, corner[0] % height, corner[1] % width, 0] > 200


def test_a_cut_off_file_gives_what_is_whole_or_an_error(tmp_path):
    content = open(SAMPLE, "rb").read()
    (tmp_path / "half.mp4").write_bytes(content[: len(content) // 2])
    frames = read_video(tmp_path / "half.mp4", 48).frames
    assert 2 <= len(frames) < 48
    np.testing.assert_array_equal(frames[:8], read_video(SAMPLE, 8).frames)
    (tmp_path / "start.mp4").write_bytes(content[:200])
    with pytest.raises(ValueError, match="cannot be read as a video|damaged|no pictures"):
        read_video(tmp_path / "start.mp4")


def test_what_is_no_video_is_named(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello")
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        tone(out, 0.2)
    for name, said in {"none.mp4": "not exist", "empty.mp4": "is empty", "text.mp4": "cannot be read"}.items():
        with pytest.raises(ValueError, match=f"{name}.*{said}"):
            read_video(tmp_path / name)
    with pytest.raises(ValueError, match="no pictures"):
        read_video(tmp_path / "sound.mp4")


def test_one_frame_is_read(tmp_path):
    write_video(tmp_path / "one.mp4", numbered(1))
    assert len(read_video(tmp_path / "one.mp4").frames) == 1


def tone(out, seconds, rate=22_050):
    """Sound that is silent in its first half and 440 Hz in its second."""
    stream = out.add_stream("aac", rate)
    stream.layout = "mono"
    time = np.arange(int(seconds * rate)) / rate
    wave = (0.5 * np.sin(2 * np.pi * 440 * time) * (time > seconds / 2)).astype(np.float32)[None]
    for start in range(0, wave.shape[1], 1024):
        part = np.ascontiguousarray(wave[:, start : start + 1024])
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, start
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


@pytest.mark.parametrize("start, loud", [(0.0, (False, True)), (1.0, (True, True))])
def test_sound_comes_along_from_the_right_place(tmp_path, start, loud):
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        tone(out, 2.0)
    write_video(tmp_path / "clip.mp4", numbered(16), fps=16)  # one second
    if start == 0.0:
        write_video(tmp_path / "clip.mp4", numbered(32), fps=16)  # two seconds
    assert copy_with_sound(tmp_path / "clip.mp4", tmp_path / "sound.mp4", tmp_path / "out.mp4", start)
    with av.open(str(tmp_path / "out.mp4")) as made:
        stream = made.streams.audio[0]
        wave = np.concatenate([frame.to_ndarray()[0] for frame in made.decode(stream)])
        length = len(wave) / stream.rate
    assert abs(length - (2.0 if start == 0.0 else 1.0)) < 0.1
    halves = np.array_split(wave, 2)
    assert tuple(bool(np.abs(half[2000:-2000]).max() > 0.2) for half in halves) == loud
    assert len(read_video(tmp_path / "out.mp4", 99).frames) == (32 if start == 0.0 else 16)


def test_no_sound_no_file(tmp_path):
    write_video(tmp_path / "clip.mp4", numbered(4))
    assert not copy_with_sound(tmp_path / "clip.mp4", SAMPLE, tmp_path / "out.mp4", 0.0)
    assert not (tmp_path / "out.mp4").exists()
