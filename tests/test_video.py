"""Video files as people have them: whole, cut off, empty, turned, of variable rate, large, with and without sound."""

import io
import os
import warnings
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image, ImageFilter

from mi2v_lite.io.videos import copy_with_sound, count_frames, read_sound, read_video, write_video

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


def write_as(path, frames, codec="libx264", form=None, rate=25, pixels="yuv420p", **options):
    """A clip in any container and codec, with a key frame every 12 frames."""
    with av.open(str(path), "w", format=form) as out:
        stream = out.add_stream(codec, rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.codec_context.gop_size = pixels, 12
        stream.codec_context.bit_rate, stream.codec_context.qmin, stream.codec_context.qmax = 20_000_000, 1, 3
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        out.mux(stream.encode(None))


CONTAINERS = [
    ("a.mp4", "libx264", "mp4"),
    ("a.mkv", "libx264", "matroska"),
    ("a.flv", "libx264", "flv"),
    ("a.ts", "libx264", "mpegts"),
    ("b.ts", "mpeg2video", "mpegts"),
    ("a.avi", "libx264", "avi"),
    ("b.avi", "mpeg4", "avi"),
    ("a.mpg", "mpeg2video", "mpeg"),
    ("a.m2v", "mpeg2video", "mpeg2video"),
    ("a.h264", "libx264", "h264"),
    ("a.mxf", "mpeg2video", "mxf"),
    ("a.wmv", "wmv2", "asf"),
    ("a.gif", "gif", "gif"),
    ("a.y4m", "rawvideo", "yuv4mpegpipe"),
]


@pytest.mark.parametrize("name, codec, form", CONTAINERS, ids=[f"{n}-{c}" for n, c, _ in CONTAINERS])
def test_every_container_gives_the_same_frames_from_any_start(tmp_path, name, codec, form):
    options = {"bf": "2"} if codec in ("libx264", "mpeg2video", "mpeg4") else {}
    write_as(tmp_path / name, numbered(50), codec, form, pixels="rgb8" if codec == "gif" else "yuv420p", **options)
    video = read_video(tmp_path / name, 99)
    assert numbers(video.frames) == list(range(50)) and video.fps == 25
    assert numbers(read_video(tmp_path / name, 3, start=0.6).frames) == [15, 16, 17]
    assert numbers(read_video(tmp_path / name, 3, start=1.4, step=3).frames) == [35, 38, 41]
    assert count_frames(tmp_path / name) == 50


@pytest.mark.parametrize("kind", ["webp", "avif", "png", "gif"])
def test_animations_play_at_their_own_rate(tmp_path, kind):
    first, *rest = (Image.fromarray(frame) for frame in numbered(12))
    lossless = {"lossless": True} if kind == "webp" else {}
    first.save(tmp_path / f"a.{kind}", save_all=True, append_images=rest, duration=50, **lossless)
    video = read_video(tmp_path / f"a.{kind}", 99)
    assert numbers(video.frames) == list(range(12)) and video.fps == 20 and count_frames(tmp_path / f"a.{kind}") == 12
    assert numbers(read_video(tmp_path / f"a.{kind}", 3, start=0.25, step=2).frames) == [5, 7, 9]


def test_a_gif_without_durations_plays_as_in_a_browser(tmp_path):
    first, *rest = (Image.fromarray(frame) for frame in numbered(5))
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest)
    video = read_video(tmp_path / "a.gif", 99)
    assert numbers(video.frames) == list(range(5)) and video.fps == 10


def test_a_gif_that_is_cut_off_gives_its_whole_frames_but_is_not_counted(tmp_path):
    first, *rest = (Image.fromarray(frame) for frame in numbered(12))
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest)
    content = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(content[: len(content) * 6 // 10])
    shown = numbers(read_video(tmp_path / "a.gif", 99).frames)
    assert 2 <= len(shown) < 12 and shown == list(range(len(shown)))
    with pytest.raises(ValueError, match="a.gif cannot be read to its end"):
        count_frames(tmp_path / "a.gif")
    (tmp_path / "a.gif").write_bytes(content[:40])
    with pytest.raises(ValueError, match="a.gif cannot be read as a video"):
        read_video(tmp_path / "a.gif")


@pytest.mark.parametrize("orientation, corner", [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_motion_jpeg_with_exif_is_read_and_upright(tmp_path, orientation, corner):
    """As cameras write it: each picture has EXIF data, a kind of side data that PyAV does not know."""
    picture, exif, jpeg = np.zeros((48, 64, 3), np.uint8), Image.Exif(), io.BytesIO()
    picture[:16, :16] = 255
    exif[0x0112] = orientation
    Image.fromarray(picture).save(jpeg, "JPEG", exif=exif)
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", 25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number in range(3):
            packet = av.Packet(jpeg.getvalue())
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            container.mux(packet)
    frames = read_video(tmp_path / "a.avi").frames
    assert frames.shape == ((3, 48, 64, 3) if orientation < 5 else (3, 64, 48, 3))
    assert frames[0, corner[0], corner[1], 0] > 200 and frames[0].mean() < 40


@pytest.mark.parametrize("rate", [Fraction(1, 10), Fraction(1, 2), 12, Fraction(24000, 1001), 120, 480])
def test_any_rate_is_believed_if_the_times_agree(tmp_path, rate):
    write_as(tmp_path / "a.mp4", numbered(8), rate=rate)
    video = read_video(tmp_path / "a.mp4", 99)
    assert numbers(video.frames) == list(range(8)) and video.fps == rate


def test_a_rate_that_contradicts_the_times_is_not_believed(tmp_path):
    write_times(tmp_path / "a.mkv", [5 + round(i * 100 / 3) for i in range(20)], numbered(20))  # the file says 1000
    video = read_video(tmp_path / "a.mkv", 99)
    assert numbers(video.frames) == list(range(20)) and float(video.fps) == pytest.approx(30, abs=0.2)


def with_times(source, path, change, form=None):
    """A copy of a clip whose packets' times were changed."""
    with av.open(str(source)) as given, av.open(str(path), "w", format=form) as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None:
                change(packet)
                packet.stream = stream
                out.mux(packet)


def test_times_that_run_backwards_are_replaced_by_counting(tmp_path):
    write_as(tmp_path / "a.mp4", numbered(30), bf="3")
    with_times(tmp_path / "a.mp4", tmp_path / "b.mkv", lambda packet: setattr(packet, "pts", packet.dts))
    assert numbers(read_video(tmp_path / "b.mkv", 99).frames) == list(range(30))
    assert numbers(read_video(tmp_path / "b.mkv", 3, start=0.8).frames) == [20, 21, 22]


def test_a_recording_that_was_cut_anywhere_begins_with_its_first_whole_picture(tmp_path):
    write_as(tmp_path / "a.ts", numbered(40), "mpeg2video", "mpegts", bf="2")
    content = (tmp_path / "a.ts").read_bytes()
    (tmp_path / "b.ts").write_bytes(content[188 * 12 + 50 :])
    shown = numbers(read_video(tmp_path / "b.ts", 99).frames)
    assert 0 < shown[0] < 30 and shown == list(range(shown[0], 40))
    (tmp_path / "c.ts").write_bytes(content * 2)  # two recordings one behind the other
    assert numbers(read_video(tmp_path / "c.ts", 99).frames) == [*range(40)] * 2


def test_a_recording_whose_size_is_known_only_later_is_read(tmp_path):
    """Its first whole picture comes after the seconds that FFmpeg looks at when it opens a file."""
    frames = np.concatenate([*[numbered(50)] * 4, numbered(5)])
    write_as(tmp_path / "a.ts", frames, form="mpegts", bf="0", g="200", keyint_min="200", sc_threshold="0")
    (tmp_path / "b.ts").write_bytes((tmp_path / "a.ts").read_bytes()[188 * 12 + 50 :])
    with av.open(str(tmp_path / "b.ts")) as container:
        assert container.streams.video[0].width == 0
    assert numbers(read_video(tmp_path / "b.ts", 99).frames) == [0, 1, 2, 3, 4]


def test_a_start_that_is_not_zero_is_no_gap(tmp_path):
    write_as(tmp_path / "a.mp4", numbered(20))

    def later(packet):
        packet.pts, packet.dts = (time + round(10 / packet.time_base) for time in (packet.pts, packet.dts))

    for name in ("b.mkv", "b.ts"):
        with_times(tmp_path / "a.mp4", tmp_path / name, later)
        assert numbers(read_video(tmp_path / name, 99).frames) == list(range(20))
        assert numbers(read_video(tmp_path / name, 2, start=0.4).frames) == [10, 11]


def test_a_cover_is_no_video_and_the_larger_of_two_streams_is(tmp_path):
    with av.open(str(tmp_path / "two.ts"), "w") as out:
        streams = []
        for size in (32, 64):
            stream = out.add_stream("libx264", 25, options={"bf": "0"})
            stream.height, stream.width, stream.pix_fmt = size, size, "yuv420p"
            streams.append(stream)
        for i in range(5):
            for stream, size in zip(streams, (32, 64), strict=True):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(5, size, size)[i], "rgb24")))
        for stream in streams:
            out.mux(stream.encode(None))
    assert read_video(tmp_path / "two.ts", 9).frames.shape == (5, 64, 64, 3)
    with av.open(str(tmp_path / "song.mp4"), "w") as out:
        cover = out.add_stream("mjpeg", 25)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        tone(out, 0.5)
        out.mux(cover.encode(av.VideoFrame.from_ndarray(numbered(1, 32, 32)[0], "rgb24")))
        out.mux(cover.encode(None))
    with pytest.raises(ValueError, match="no pictures but a cover"):
        read_video(tmp_path / "song.mp4")


@pytest.mark.parametrize("matrix", [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)])
def test_a_mirrored_video_comes_as_it_is_shown(tmp_path, matrix):
    write_video(tmp_path / "a.mp4", numbered(3), fps=8)
    content, (a, b, c, d) = (tmp_path / "a.mp4").read_bytes(), matrix
    at = content.index(b"tkhd") + 4 + 40
    written = b"".join(
        v.to_bytes(4, "big", signed=True) for v in (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    )
    (tmp_path / "b.mp4").write_bytes(content[:at] + written + content[at + 36 :])
    frame = read_video(tmp_path / "b.mp4", 1).frames[0]
    # The left top corner is at (x, y) = (-1, -1) as seen from the middle, and moves as the matrix says.
    right, low = -a - c > 0, -b - d > 0
    assert frame.shape == ((48, 64, 3) if a else (64, 48, 3))
    assert frame[-4 if low else 4, -4 if right else 4, 0] > 200


@pytest.mark.parametrize("speed", [6, 0])
def test_interlaced_pictures_show_one_moment(tmp_path, speed):
    """The odd lines of a camera's interlaced pictures are half a picture later than the even ones."""
    texture = np.kron(np.random.default_rng(0).integers(30, 226, (14, 40), np.uint8), np.ones((8, 8), np.uint8))
    texture = np.asarray(Image.fromarray(texture).filter(ImageFilter.GaussianBlur(4)))
    moments = [np.repeat(texture[:96, speed * i :][:, :128, None], 3, 2) for i in range(20)]
    woven = [first.copy() for first in moments[::2]]
    for picture, second in zip(woven, moments[1::2], strict=True):
        picture[1::2] = second[1::2]
    with av.open(str(tmp_path / "x.mpg"), "w") as container:
        stream = container.add_stream("mpeg2video", 25, options={"flags": "+ilme+ildct"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 128, 96, "yuv420p", 20_000_000
        for picture in (*woven, None):
            picture = picture if picture is None else av.VideoFrame.from_ndarray(np.ascontiguousarray(picture))
            container.mux(stream.encode(picture))
    read = read_video(tmp_path / "x.mpg", 10).frames.astype(int)
    wrong = np.abs(read - np.stack(moments[::2])).mean()
    assert len(read) == 10 and wrong < 3, wrong


def test_a_stream_may_change_its_size_but_not_its_shape(tmp_path):
    for name, size in (("small", (48, 64)), ("large", (96, 128)), ("tall", (64, 48))):
        write_as(tmp_path / f"{name}.ts", numbered(10, *size), form="mpegts")
    (tmp_path / "a.ts").write_bytes((tmp_path / "large.ts").read_bytes() + (tmp_path / "small.ts").read_bytes())
    video = read_video(tmp_path / "a.ts", 20)
    assert video.frames.shape == (20, 96, 128, 3) and numbers(video.frames)[-5:] == [5, 6, 7, 8, 9]
    (tmp_path / "b.ts").write_bytes((tmp_path / "large.ts").read_bytes() + (tmp_path / "tall.ts").read_bytes())
    with pytest.raises(ValueError, match="from 128x96 to 48x64 pixels after 10"):
        read_video(tmp_path / "b.ts", 20)


def test_what_is_transparent_is_white(tmp_path):
    with av.open(str(tmp_path / "a.mov"), "w") as out:
        stream = out.add_stream("qtrle", 25)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "argb"
        picture = np.zeros((32, 32, 4), np.uint8)
        picture[:, :16] = (200, 40, 40, 255)
        for _ in range(2):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgba")))
        out.mux(stream.encode(None))
    frame = read_video(tmp_path / "a.mov", 1).frames[0]
    assert frame[4, 4].tolist() == [200, 40, 40] and frame[4, 28].tolist() == [255, 255, 255]


def test_names_that_look_like_something_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video("a.mp4", numbered(3))
    for name in (
        "http:a.mp4",
        "a%03d.mp4",
        "-a.mp4",
        "a?b#c.mp4",
        "\u65e5\u672c.mp4",
        os.fsdecode(b"caf\xe9.mp4"),
        "l" * 251 + ".mp4",
    ):
        os.rename("a.mp4", name)
        assert len(read_video(name).frames) == 3
        write_video(name, numbered(3))
        os.rename(name, "a.mp4")


def test_what_is_no_single_file_is_told(tmp_path):
    with pytest.raises(ValueError, match="is a folder; .*ffmpeg -framerate"):
        read_video(tmp_path)
    write_as(tmp_path / "a.mkv", numbered(3))
    content = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "b.mkv").write_bytes(content.replace(b"V_MPEG4/ISO/AVC", b"V_XYZ00/ABC/DEF"))
    with pytest.raises(ValueError, match="format that is unknown here; convert"):
        read_video(tmp_path / "b.mkv")


def sounding(path, pieces, codec="pcm_s16le", length=1.0):
    """A clip of some length with sound: a list of (time, seconds) that are loud."""
    with av.open(str(path), "w") as out:
        video, audio = out.add_stream("libx264", 25, options={"bf": "0"}), out.add_stream(codec, 48000)
        video.height, video.width, video.pix_fmt, audio.layout = 32, 32, "yuv420p", "mono"
        packets = []
        for frame in numbered(round(25 * length), 32, 32):
            packets += video.encode(av.VideoFrame.from_ndarray(frame, "rgb24"))
        packets += video.encode(None)
        for time, seconds in pieces:
            wave = np.full((1, round(48000 * seconds)), 16000, np.int16)
            wave[:, np.arange(wave.shape[1]) % 8 < 4] *= -1  # 6 kHz
            frame = av.AudioFrame.from_ndarray(wave, "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, round(48000 * time), Fraction(1, 48000)
            for part in av.AudioResampler(audio.codec_context.format.name, "mono", 48000).resample(frame):
                packets += audio.encode(part)
        packets += audio.encode(None)
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            out.mux(packet)


def loud(samples):
    """Where sound is loud: the seconds, in steps of a tenth."""
    return [
        i / 10 for i in range(samples.shape[1] // 4800) if abs(samples[0, 4800 * i + 960 : 4800 * i + 3840]).max() > 0.2
    ]


def test_sound_stays_where_its_times_say(tmp_path):
    sounding(tmp_path / "a.mkv", [(0.3, 0.2), (0.7, 0.1)])  # it begins late, and has a gap
    assert loud(read_sound(tmp_path / "a.mkv", 0.0, 1.0)) == [0.3, 0.4, 0.7]
    assert loud(read_sound(tmp_path / "a.mkv", 0.4, 0.6)) == [0.0, 0.3]
    assert read_sound(tmp_path / "a.mkv", 0.0, 2.0).shape == (1, 96000), "silent where there is none"


def test_sound_that_cannot_be_decoded_costs_only_itself(tmp_path):
    sounding(tmp_path / "a.mkv", [(0.0, 1.0)])
    content = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "b.mkv").write_bytes(content.replace(b"A_PCM/INT/LIT", b"A_XYZ/ABC/DEF"))
    with pytest.warns(UserWarning, match="b.mkv is in a format that is unknown here: the clip is silent"):
        assert read_sound(tmp_path / "b.mkv", 0.0, 1.0) is None
    sounding(tmp_path / "c.mp4", [(0.0, 1.0)], "aac")
    with av.open(str(tmp_path / "c.mp4")) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    content = bytearray((tmp_path / "c.mp4").read_bytes())
    for at, size in places[len(places) // 2 :]:
        content[at : at + size] = np.random.default_rng(at).integers(0, 256, size, np.uint8).tobytes()
    (tmp_path / "c.mp4").write_bytes(content)
    with pytest.warns(UserWarning, match="A part of the sound .* is damaged"):
        samples = read_sound(tmp_path / "c.mp4", 0.0, 1.0)
    assert abs(samples[:, 4800:19200]).max() > 0.2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_sound(SAMPLE, 0.0, 1.0) is None
