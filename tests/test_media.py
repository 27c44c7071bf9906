"""Pictures and clips: what is written can be read again, colours share one scale, failures leave nothing behind."""

import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFilter

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


def profile(*primaries):
    """A matrix profile with gamma 2.2, made by hand: the XYZ of red, green and blue, as in the ICC's specification."""

    def fixed(*values):
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    def xyz(*values):
        return b"XYZ \0\0\0\0" + fixed(*values)

    name = b"wide\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + b"\0" * 79,
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        **{key: xyz(*value) for key, value in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv\0\0\0\0\0\0\0\1\2\x33\0\0"),
    }
    table, body, at = b"", b"", 132 + 12 * len(tags)
    for key, value in tags.items():
        value += b"\0" * (-len(value) % 4)
        table += key + struct.pack(">II", at + len(body), len(value))
        body += value
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += b"\0" * 12 + b"acsp" + b"\0" * 28 + fixed(0.9642, 1.0, 0.8249) + b"\0" * 48
    return head + struct.pack(">I", len(tags)) + table + body


DISPLAY_P3 = profile((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp", "palette.png", "alpha.png"])
def test_a_colour_profile_is_applied(tmp_path, name):
    image = Image.new("RGB", (32, 32), (234, 51, 35))  # how Display P3 writes the red of sRGB
    image = {"palette": image.quantize(4), "alpha": image.convert("RGBA")}.get(name.split(".")[0], image)
    image.save(tmp_path / name, icc_profile=DISPLAY_P3, **({"quality": 95} if name == "a.jpg" else {}))
    seen = images.read_image(tmp_path / name).getpixel((4, 4))
    assert max(abs(a - b) for a, b in zip(seen, (255, 0, 0), strict=True)) < 12


def test_a_profile_that_cannot_be_used_is_told_and_one_of_srgb_changes_nothing(tmp_path):
    image = Image.fromarray(clip()[0])
    image.save(tmp_path / "a.png", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert np.array_equal(np.asarray(images.read_image(tmp_path / "a.png")), clip()[0])
    image.save(tmp_path / "b.png", icc_profile=b"junk" * 50)
    with pytest.warns(UserWarning, match="colour profile cannot be used"):
        assert np.array_equal(np.asarray(images.read_image(tmp_path / "b.png")), clip()[0])


def png_with(image, path, **chunks):
    """Saves a PNG with further chunks before its pixels."""
    image.save(path)
    whole, stated = path.read_bytes(), b""
    for name, data in chunks.items():
        body = name.encode() + data
        stated += struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(whole[:33] + stated + whole[33:])  # behind the header
    return path


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "I;16"])
def test_a_gamma_is_converted_unless_it_is_that_of_srgb_or_something_better_is_stated(tmp_path, mode):
    """Half of the light is written as 128 at a gamma of 1, and as 188 in sRGB (188.0 by IEC 61966-2-1)."""
    image = Image.new(mode, (8, 8), 128 * 257) if mode == "I;16" else Image.new("L", (8, 8), 128).convert(mode)
    linear, usual = struct.pack(">I", 100000), struct.pack(">I", 45455)
    read = images.read_image(png_with(image, tmp_path / "linear.png", gAMA=linear))
    assert read.getpixel((4, 4)) == (188, 188, 188)
    assert images.as_rgb(read).getpixel((4, 4)) == (188, 188, 188)  # not twice
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    better = [{"gAMA": usual}, {"gAMA": linear, "sRGB": b"\0"}, {"gAMA": bytes(4)}]
    better += [
        {"gAMA": linear, "cICP": bytes((1, 13, 0, 1))},
        {"gAMA": linear, "iCCP": b"srgb\0\0" + zlib.compress(profile)},
    ]
    for chunks in better:
        path = png_with(image, tmp_path / "a.png", **chunks)
        assert images.read_image(path).getpixel((4, 4)) == (128, 128, 128), chunks


def test_colours_that_are_not_converted_are_told(tmp_path):
    image = Image.fromarray(clip()[0])
    wide = struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)  # Adobe RGB
    for chunks, said in (
        ({"cHRM": wide}, "a.png has other primary colours"),
        ({"cICP": bytes((9, 16, 0, 1))}, "a.png is HDR .PQ"),
    ):
        with pytest.warns(UserWarning, match=said) as caught:
            seen = images.read_image(png_with(image, tmp_path / "a.png", **chunks))
        assert np.array_equal(np.asarray(seen), clip()[0])
        assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for mode in ("1", "L", "LA", "I;16"):
            images.read_image(png_with(Image.new(mode, (8, 8)), tmp_path / "a.png", cHRM=wide))
        for chunks in ({"cHRM": bytes(32)}, {"cHRM": wide, "cICP": bytes((1, 13, 0, 1))}):
            images.read_image(png_with(image, tmp_path / "a.png", **chunks))


RAMP = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (8, 1))


@pytest.mark.parametrize(
    "name, values",
    [
        ("grey.png", RAMP.astype(np.uint16) * 257),
        ("grey.tif", RAMP.astype(np.uint16) * 257),
        ("whole.tif", RAMP.astype(np.int32) * 257),
        ("unit.tif", RAMP.astype(np.float32) / 255),
        ("levels.tif", RAMP.astype(np.float32)),
    ],
)
def test_values_of_more_than_8_bits_are_scaled(tmp_path, name, values):
    Image.fromarray(values).save(tmp_path / name)
    assert np.abs(np.asarray(images.read_image(tmp_path / name))[..., 0].astype(int) - RAMP).max() <= 1


@pytest.mark.parametrize("scale, shift", [(100, 0), (1 / 255, -0.3), (1 / 80, 0), (np.nan, 0)])
def test_values_without_a_known_scale_are_refused(tmp_path, scale, shift):
    Image.fromarray(RAMP.astype(np.float32) * scale + shift).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="a.tif .* no scale of brightness explains; save it with 8 or 16 bits"):
        images.read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif", "avif"])
def test_every_orientation_in_every_format(tmp_path, kind):
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:10, :10] = 255
    corners = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}
    for orientation, corner in corners.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(picture).save(tmp_path / f"a.{kind}", exif=exif)
        seen = np.asarray(images.read_image(tmp_path / f"a.{kind}"))[..., 0]
        assert seen.shape == ((40, 60) if orientation < 5 else (60, 40))
        assert seen[4 if corner[0] == "t" else -5, 4 if corner[1] == "l" else -5] > 200


def test_files_that_pillow_would_read_wrongly(tmp_path):
    Image.fromarray(clip()[0]).save(tmp_path / "a.nef", "TIFF", tiffinfo={254: 1, 330: 8})  # a preview among others
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 40)
    header = struct.pack(">4sIIBBBBB", b"IHDR", 30000, 30000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I4s", 9, b"IDAT") + b"\0" * 20)
    for name, said in (("a.nef", "raw file"), ("a.heic", "save it as a JPEG"), ("a.png", "make it smaller first")):
        with pytest.raises(ValueError, match=f"{name}.*{said}"):
            images.read_image(tmp_path / name)


def painted(kind):
    """A mask of each habit, of a square that may move."""
    inside = np.zeros((32, 48), bool)
    inside[8:24, 12:36] = True
    white = np.where(inside, 255, 0).astype(np.uint8)
    colour = np.zeros((32, 48, 3), np.uint8)
    colour[inside] = (255, 0, 0)
    return inside, {
        "plain": Image.fromarray(white),
        "one bit": Image.fromarray(inside),
        "soft edges": Image.fromarray(white).filter(ImageFilter.GaussianBlur(2)),
        "white on transparent": Image.fromarray(np.dstack([np.full_like(white, 255), white]), "LA"),
        "16 bits": Image.fromarray(white.astype(np.uint16) * 257),
        "palette": Image.fromarray(white).convert("P"),
        "labels": Image.fromarray(inside.astype(np.uint8)),
        "red": Image.fromarray(colour),
        "black on transparent": Image.fromarray(np.dstack([0 * white, white]), "LA"),
        "photo with a hole": Image.fromarray(np.dstack([clip()[0], 255 - white])),
        "grey photo": Image.fromarray(np.tile(np.linspace(0, 255, 48).astype(np.uint8), (32, 1))),
        "empty": Image.new("L", (48, 32)),
    }[kind]


@pytest.mark.parametrize("kind", ["plain", "one bit", "soft edges", "white on transparent", "16 bits", "palette"])
def test_masks_are_read(tmp_path, kind):
    inside, image = painted(kind)
    image.save(tmp_path / "m.png")
    assert (images.as_mask(images.read_image(tmp_path / "m.png", "black"), "m.png") == inside).mean() > 0.98


@pytest.mark.parametrize(
    "kind, said",
    [
        ("labels", "brightest value is 1 of 255"),
        ("red", "has colours in 25%"),
        ("black on transparent", "has no white"),
        ("photo with a hole", "has colours"),
        ("grey photo", "is grey in 5"),
        ("empty", "has no white"),
    ],
)
def test_what_is_no_mask_is_refused_with_the_rule(tmp_path, kind, said):
    painted(kind)[1].save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=f"m.png .*{said}.*white where something may move, and black elsewhere"):
        images.as_mask(images.read_image(tmp_path / "m.png", "black"), "m.png")
