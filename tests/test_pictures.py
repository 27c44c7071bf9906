"""The pictures of the course: one scale, holes where they are, words on each, and refusals that help."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from mi2v_lite.viz import pictures
from mi2v_lite.viz.picture import Picture

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))


def shift(x: float, y: float = 0.0) -> torch.Tensor:
    return torch.tensor([x, y]).view(1, 2, 1, 1).expand(3, 2, 32, 32) * torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1)


def test_a_picture_brings_its_words_into_the_notebook():
    data, metadata = pictures.panels([PHOTO, PHOTO], ["left", "right"], alt="twice the same")._repr_mimebundle_()
    assert data["text/plain"] == "twice the same" and metadata["image/png"]["alt"] == "twice the same"
    with pytest.raises(ValueError, match="needs alt"):
        Picture(PHOTO, " ")


def test_to_image_takes_all_forms_of_the_same_picture():
    array = np.asarray(PHOTO)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1).float() / 127.5 - 1
    for form in (PHOTO, array, tensor, Picture(PHOTO, "a photo")):
        assert np.array_equal(np.asarray(pictures.to_image(form)), array)
    with pytest.raises(ValueError, match=r"float tensor \(3, H, W\)"):
        pictures.to_image(tensor[None])


def test_fields_are_compared_on_one_scale():
    """The same field has the same colour beside a field that is twice as long as beside itself only if the scale is."""
    beside = pictures.flow_panels({"slow": shift(1), "fast": shift(2)})
    fixed = pictures.flow_panels({"slow": shift(1), "fast": shift(2)}, max_flow=6.0)
    assert np.array_equal(np.asarray(beside.image), np.asarray(fixed.image)), "6 px is the longest of both"
    alone = pictures.flow_panels({"slow": shift(1), "same": shift(1)})
    assert not np.array_equal(np.asarray(beside.image), np.asarray(alone.image))


def test_warped_marks_holes_and_only_holes():
    moved = np.asarray(pictures.warped(PHOTO, shift(4), frame=0).image.resize((32, 32), Image.Resampling.NEAREST))
    assert (moved[:, :4] == pictures.HOLE).all(), "nothing lands on the first four columns"
    assert np.array_equal(moved[:, 4:], np.asarray(PHOTO)[:, :-4])


def test_an_animation_keeps_its_frames_and_its_time(tmp_path):
    frames = np.zeros((5, 16, 16, 3), np.uint8)
    frames[range(5), :, range(5)] = 255
    picture = pictures.animation(frames, fps=4, width=64, alt="a line that moves")
    picture.save(tmp_path / "clip.png")
    with Image.open(tmp_path / "clip.png") as opened:
        assert opened.n_frames == 5 and opened.size == (64, 64)
        durations = []
        for i in range(5):
            opened.seek(i)
            durations.append(opened.info["duration"])
            assert np.asarray(opened.convert("RGB"))[0, i * 4 + 2, 0] == 255
    assert durations == [250.0] * 5


def test_tracks_and_arrows_differ_where_the_way_bends():
    bent = shift(2).clone()
    bent[1, 1] += 6
    still = pictures.quiver(PHOTO, bent)
    assert not np.array_equal(np.asarray(still.image), np.asarray(pictures.tracks(PHOTO, bent).image))
    assert still.image.width >= 256


@pytest.mark.parametrize(
    "draw",
    [
        lambda: pictures.curve({"a": ([0, 1], [1, 2]), "b": ([0, 1], [2, 1])}, xlabel="x", ylabel="y", alt="two lines"),
        lambda: pictures.bars({"a": 1.0, "b": 2.0}, ylabel="px", alt="two bars"),
        lambda: pictures.heat({"a": np.eye(4), "b": np.ones((4, 4))}, label="weight", alt="two maps"),
    ],
    ids=["curve", "bars", "heat"],
)
def test_plots_are_pictures(draw):
    picture = draw()
    with Image.open(io.BytesIO(picture.bytes())) as opened:
        assert opened.width > 200 and np.asarray(opened.convert("L")).std() > 5


def test_refusals():
    with pytest.raises(ValueError, match="title for each"):
        pictures.panels([PHOTO], ["a", "b"], alt="x")
    with pytest.raises(ValueError, match="at least one series"):
        pictures.curve({}, xlabel="x", ylabel="y", alt="x")
    with pytest.raises(ValueError, match=r"\(N, 2, H, W\)"):
        pictures.warped(PHOTO, torch.zeros(3, 32, 32))
