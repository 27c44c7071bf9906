"""The pictures of the course: one scale, holes where they are, words on each, and refusals that help."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mi2v_lite import MotionControl, viz
from mi2v_lite.control import Drag, Thing
from mi2v_lite.viz.drawing import still
from mi2v_lite.viz.pictures import Picture

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))


def shift(x: float, y: float = 0.0) -> torch.Tensor:
    return torch.tensor([x, y]).view(1, 2, 1, 1).expand(3, 2, 32, 32) * torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1)


def test_a_picture_brings_its_words_into_the_notebook():
    data, metadata = viz.panels([PHOTO, PHOTO], ["left", "right"], alt="twice the same")._repr_mimebundle_()
    assert data["text/plain"] == "twice the same" and metadata["image/png"]["alt"] == "twice the same"
    with pytest.raises(ValueError, match="needs alt"):
        Picture(PHOTO, " ")


def test_to_image_takes_all_forms_of_the_same_picture():
    array = np.asarray(PHOTO)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 127.5 - 1
    for form in (PHOTO, array, tensor, Picture(PHOTO, "a photo")):
        assert np.array_equal(np.asarray(viz.to_image(form)), array)
    with pytest.raises(ValueError, match=r"float tensor \(3, H, W\)"):
        viz.to_image(tensor[None])


def test_fields_are_compared_on_one_scale():
    """The same field has the same colour beside a field that is twice as long as beside itself only if the scale is."""
    beside = viz.flow_panels({"slow": shift(1), "fast": shift(2)})
    fixed = viz.flow_panels({"slow": shift(1), "fast": shift(2)}, max_flow=6.0)
    assert np.array_equal(np.asarray(beside.image), np.asarray(fixed.image)), "6 px is the longest of both"
    alone = viz.flow_panels({"slow": shift(1), "same": shift(1)})
    assert not np.array_equal(np.asarray(beside.image), np.asarray(alone.image))


def test_warped_marks_holes_and_only_holes():
    moved = np.asarray(viz.warped(PHOTO, shift(4), frame=0).image.resize((32, 32), Image.Resampling.NEAREST))
    assert (moved[:, :4] == viz.HOLE).all(), "nothing lands on the first four columns"
    assert np.array_equal(moved[:, 4:], np.asarray(PHOTO)[:, :-4])


@pytest.mark.filterwarnings("error")
def test_a_drag_that_ends_where_it_begins_is_a_dot():
    control = MotionControl((40, 30), things=[Thing(np.ones((30, 40), bool), [Drag([(20, 15), (20, 15)])])])
    picture = np.asarray(still(Image.new("RGB", (40, 30)), control).image)
    assert picture[149, 197].any()


def test_an_animation_keeps_its_frames_and_its_time(tmp_path):
    frames = np.zeros((5, 16, 16, 3), np.uint8)
    frames[range(5), :, range(5)] = 255
    picture = viz.animation(frames, fps=4, width=64, alt="a line that moves")
    picture.save(tmp_path / "clip.png")
    with Image.open(tmp_path / "clip.png") as opened:
        assert opened.n_frames == 5 and opened.size == (64, 64)
        durations = []
        for i in range(5):
            opened.seek(i)
            durations.append(opened.info["duration"])
            assert np.asarray(opened.convert("RGB"))[0, i * 4 + 2, 0] == 255
    assert durations == [250.0] * 5


def test_clips_side_by_side_play_together(tmp_path):
    white, black = np.full((6, 16, 16, 3), 255, np.uint8), np.zeros((6, 16, 16, 3), np.uint8)
    black[range(6), :8] += np.arange(6, dtype=np.uint8)[:, None, None, None] * 40
    picture = viz.side_by_side({"white": white, "black": black}, fps=12, every=2, width=108, alt="white beside black")
    assert picture.video() is None and "text/html" not in picture._repr_mimebundle_()[0], "no kernel: no video"
    picture.save(tmp_path / "clips.png")
    with Image.open(tmp_path / "clips.png") as opened:
        assert opened.n_frames == 3 and opened.info["duration"] == 1000 / 6
        pixels = np.asarray(opened.convert("L"))
        assert pixels[-24, 24] > 240 and pixels[-24, -24] < 10
    with pytest.raises(ValueError, match="same number of frames"):
        viz.side_by_side({"long": white, "short": black[:3]}, alt="x")


def test_a_live_kernel_gets_videos_beside_the_png(monkeypatch):
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=object()))
    frames = np.zeros((4, 15, 17, 3), np.uint8)  # odd sides, which players refuse
    data, _ = viz.side_by_side({"left": frames, "right": frames}, width=113, alt="two clips")._repr_mimebundle_()
    assert data["text/html"].count("<video") == 2 and "left" in data["text/html"]
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert viz.animation(frames, alt="one clip")._repr_mimebundle_()[0]["text/html"].count("<video") == 1
    assert "text/html" not in viz.panels([PHOTO], alt="a still picture")._repr_mimebundle_()[0]
    single = viz.side_by_side({"left": frames[:1], "right": frames[:1]}, alt="two stills")._repr_mimebundle_()[0]
    assert "text/html" not in single, "the buttons of a player would only hide a picture that does not move"


@pytest.mark.parametrize(
    "draw",
    [
        lambda: viz.curve({"a": ([0, 1], [1, 2]), "b": ([0, 1], [2, 1])}, xlabel="x", ylabel="y", alt="two lines"),
        lambda: viz.bars({"a": 1.0, "b": (2.0, 0.5)}, ylabel="px", alt="two bars"),
        lambda: viz.curve(
            {"a": ([1, 9], [0.2, 2], [0.1, 0.5])}, xlabel="x", ylabel="y", log_x=True, log_y=True, alt="a band"
        ),
        lambda: viz.diagram(
            [viz.Box("a", "2×8×8", (0, 0), "data"), viz.Box("b", "4×4", (1, 0)), viz.Box("c", "2", (1, 1), "latent")],
            [(0, 1), (1, 2), (0, 2, [(0, 1)])],
            alt="three boxes",
        ),
        lambda: viz.heat({"a": np.eye(4), "b": np.ones((4, 4))}, label="weight", alt="two maps"),
    ],
    ids=["curve", "bars", "band", "diagram", "heat"],
)
def test_plots_are_pictures(draw):
    picture = draw()
    with Image.open(io.BytesIO(picture.bytes())) as opened:
        assert opened.width > 200 and np.asarray(opened.convert("L")).std() > 5


def test_fields_that_move_and_holes_that_are_magenta():
    flow = torch.zeros(4, 2, 16, 16)
    flow[:, 0, 4:8, 4:8] = torch.arange(1.0, 5.0).view(4, 1, 1)
    with Image.open(io.BytesIO(viz.flow_clips({"a": flow, "b": -flow}, width=156).png)) as opened:
        assert opened.n_frames == 4 and opened.size[0] == 156
    frames = viz.splat_frames(np.full((16, 16, 3), 90, np.uint8), flow)
    holes = (frames == viz.HOLE).all(-1)
    assert holes.sum((1, 2)).tolist() == [4, 8, 12, 16] and (frames[~holes] <= 90).all()


def test_refusals():
    with pytest.raises(ValueError, match="title for each"):
        viz.panels([PHOTO], ["a", "b"], alt="x")
    with pytest.raises(ValueError, match="at least one series"):
        viz.curve({}, xlabel="x", ylabel="y", alt="x")
    with pytest.raises(ValueError, match=r"\(N, 2, H, W\)"):
        viz.warped(PHOTO, torch.zeros(3, 32, 32))
