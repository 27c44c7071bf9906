"""Pictures and clips: what is written can be read again, colours share one scale, failures leave nothing behind."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mi2v_lite import viz
from mi2v_lite.io import images, videos
from mi2v_lite.viz.flow import with_tracks


def clip(frames: int = 5, height: int = 32, width: int = 48) -> np.ndarray:
    """A bright square that moves over a smooth ground: what video coding keeps well."""
    y, x = np.mgrid[:height, :width]
    ground = np.stack([x * 200 // width, y * 200 // height, np.full_like(x, 90)], -1).astype(np.uint8)
    made = np.stack([ground] * frames)
    for i in range(frames):
        made[i, 8:24, 4 * i : 4 * i + 16] = (230, 40, 40)
    return made


def read_video(path) -> tuple[np.ndarray, str, str, float]:
    """Frames, codec, pixel format and frame rate. All is read while the file is open, as av 19 demands."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
        return frames, stream.codec_context.name, stream.codec_context.pix_fmt, stream.average_rate


def test_video_round_trip(tmp_path):
    frames = clip()
    videos.write_video(tmp_path / "clip.mp4", frames, fps=8)
    seen, codec, pixels, rate = read_video(tmp_path / "clip.mp4")
    assert (codec, pixels) == ("h264", "yuv420p")
    assert rate == 8 and seen.shape == frames.shape
    assert np.abs(seen.astype(int) - frames).mean() < 5  # a swapped channel or a wrong range gives 20 and more
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
    # The encoder's bytes may differ from run to run under load, but hardly what they decode to.
    videos.write_video(tmp_path / "clip.mp4", [Image.fromarray(frame) for frame in frames])
    again, *_ = read_video(tmp_path / "clip.mp4")
    assert np.abs(again.astype(int) - seen).mean() < 0.5


def test_video_of_odd_size_becomes_even(tmp_path):
    frames = clip(3, 33, 47)
    videos.write_video(tmp_path / "odd.mp4", frames)
    seen, *_ = read_video(tmp_path / "odd.mp4")
    assert seen.shape == (3, 34, 48, 3)
    assert np.abs(seen[:, :33, :47].astype(int) - frames).mean() < 5


def test_animated_png_is_exact(tmp_path):
    frames = clip()
    images.write_animated_png(tmp_path / "clip.png", frames, fps=8)
    with Image.open(tmp_path / "clip.png") as image:
        assert image.n_frames == len(frames) and image.info["duration"] == 125 and image.info["loop"] == 0
        for i, frame in enumerate(frames):
            image.seek(i)
            assert np.array_equal(np.asarray(image.convert("RGB")), frame)


def test_image_by_suffix(tmp_path):
    frame = clip()[0]
    images.write_image(tmp_path / "a.png", frame)
    images.write_image(tmp_path / "a.JPG", Image.fromarray(frame))
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), frame)
    with Image.open(tmp_path / "a.JPG") as image:
        assert image.format == "JPEG"
    with pytest.raises(ValueError, match="use .png"):
        images.write_image(tmp_path / "a.mp4", frame)


@pytest.mark.parametrize("write", [videos.write_video, images.write_animated_png, images.write_image])
def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, write, monkeypatch):
    target = tmp_path / ("clip.mp4" if write is videos.write_video else "clip.png")
    target.write_bytes(b"old")

    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(images.os, "replace", fail)  # the last moment: everything is on disk by then
    with pytest.raises(KeyboardInterrupt):
        write(target, clip()[0] if write is images.write_image else clip())
    assert target.read_bytes() == b"old" and list(tmp_path.iterdir()) == [target]


def test_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        videos.write_video(tmp_path / "nowhere" / "clip.mp4", clip())


@pytest.mark.parametrize(
    "frames", [[], [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 6, 3), np.uint8)], np.zeros((2, 4, 4, 3), np.float32)]
)
def test_what_is_no_clip_is_refused(frames, tmp_path):
    with pytest.raises(ValueError, match="clip"):
        videos.write_video(tmp_path / "clip.mp4", frames)
    assert not list(tmp_path.iterdir())


def test_read_image_turns_it_upright(tmp_path):
    image = Image.fromarray(clip()[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn to the right
    image.save(tmp_path / "turned.png", exif=exif)
    upright = images.read_image(tmp_path / "turned.png")
    assert upright.size == (32, 48)
    assert np.array_equal(np.asarray(upright), np.rot90(np.asarray(image), -1))


def test_read_image_of_other_kinds(tmp_path):
    Image.fromarray(np.full((4, 4), 32768, np.uint16)).save(tmp_path / "deep.png")
    assert np.unique(np.asarray(images.read_image(tmp_path / "deep.png"))).tolist() == [127]
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert images.read_image(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)
    assert images.read_image(tmp_path / "clear.png", "black").getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize("content", [None, b"", b"no picture", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0"])
def test_read_image_refuses_what_is_none(tmp_path, content):
    path = tmp_path / "x.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="x.png"):
        images.read_image(path)


def test_read_image_refuses_a_truncated_photo(tmp_path):
    Image.fromarray(clip(1, 200, 200)[0]).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:-800])
    with pytest.raises(ValueError, match="cut.jpg"):
        images.read_image(tmp_path / "cut.jpg")


def test_flow_colours_share_one_scale():
    flow = torch.zeros(3, 2, 4, 6)
    flow[0, 0], flow[1, 0], flow[2, 0] = 1.0, 2.0, 4.0
    rgb = viz.flow_to_rgb(flow)
    saturation = rgb.max(-1).astype(int) - rgb.min(-1)
    assert rgb.shape == (3, 4, 6, 3) and rgb.dtype == np.uint8
    assert saturation[2].min() >= 250 and np.allclose(
        saturation[:2, 0, 0] / saturation[2, 0, 0], [0.25, 0.5], atol=0.02
    )
    assert np.array_equal(viz.flow_to_rgb(flow[:1], max_flow=4.0)[0], rgb[0])
    assert np.array_equal(viz.flow_to_rgb(flow[2:], max_flow=2.0)[0], rgb[2])  # longer than the scale: its end


def test_flow_colours_of_no_and_unknown_motion():
    flow = torch.zeros(1, 2, 4, 6)
    flow[0, :, 0] = float("nan")
    rgb = viz.flow_to_rgb(flow)
    assert (rgb[0, 0] == 0).all() and (rgb[0, 1:] == 255).all()
    assert viz.longest(flow) == 0
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="max_flow"):
            viz.flow_to_rgb(flow, wrong)
    with pytest.raises(ValueError, match="N, 2, H, W"):
        viz.flow_to_rgb(flow[0])


def test_wheel_reads_the_colours():
    wheel = np.asarray(viz.colour_wheel(101)).astype(int)
    for x, y in ((1, 0), (0, 1), (-1, 0), (0, -1)):
        flow = np.broadcast_to(np.array([x, y], float)[None, :, None, None], (1, 2, 1, 1))
        assert np.abs(wheel[50 + 48 * y, 50 + 48 * x] - viz.flow_to_rgb(flow, 1.0)[0, 0, 0]).max() < 20
    assert wheel[50, 50].min() > 250 and wheel[0, 0].min() == 255


@pytest.mark.parametrize("count, height, width", [(15, 32, 32), (15, 16, 32), (3, 48, 24), (1, 8, 8)])
def test_flow_picture(count, height, width):
    image = Image.new("RGB", (100, 100 * height // width), "black")
    still = np.zeros((count, 2, height, width), np.float32)
    moving = still.copy()
    moving[:, 0] = np.arange(1, count + 1)[:, None, None]  # to the right: red
    pages = [np.asarray(viz.flow_picture(image, flow)).astype(int) for flow in (still, moving)]
    assert pages[0].shape == pages[1].shape and min(pages[0].shape[:2]) > 250
    red = [((p[..., 0] > 200) & (p[..., 1] < 60) & (p[..., 2] < 60)).mean() for p in pages]
    assert red[1] > red[0] + 0.02


def test_tracks_end_where_the_flow_goes():
    flow = np.zeros((2, 2, 20, 20), np.float32)
    flow[:, 0, 9, 9] = (4, 8)  # one of the grid's points (every second pixel from 1)
    picture = np.asarray(with_tracks(Image.new("RGB", (20, 20)), flow, (400, 400), 8.0)).astype(int)
    red = (picture[..., 0] > 180) & (picture[..., 1:].max(-1) < 80)
    rows, columns = np.nonzero(red)
    assert abs(rows.mean() - 190) < 4  # pixel 9's centre, twentyfold
    assert abs(columns.min() - 190) < 6 and abs(columns.max() - 350) < 12


def test_the_package_imports_without_pyav_and_says_what_to_install(monkeypatch, tmp_path):
    code = "import sys; sys.modules['av'] = None; import mi2v_lite.io.videos"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "clip.mp4").write_bytes(b"any")
    with pytest.raises(ImportError, match="pip install av"):
        videos.read_video(tmp_path / "clip.mp4")


@pytest.mark.parametrize(
    "size, short, multiple, expected",
    [
        ((75, 110), 32, 8, (32, 48)),
        ((45, 29), None, 8, (48, 32)),
        ((640, 427), 512, 1, (767, 512)),
        ((3, 5), None, 8, (8, 8)),
    ],
)
def test_a_size_keeps_the_aspect_ratio_as_nearly_as_multiples_allow(size, short, multiple, expected):
    assert images.fitted_size(size, short, multiple) == expected
