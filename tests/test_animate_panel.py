"""AnimatePanel: an uploaded photo, a sentence and a button make a clip; what fails is said on the page."""

import base64
import io
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from PIL import Image

from mi2v_lite.data.captions import SILENT, WORDS, caption, object_phrase
from mi2v_lite.data.motion import Motion
from mi2v_lite.data.prompts import advice
from mi2v_lite.viz.widgets import AnimatePanel

PHOTO = Image.new("RGB", (60, 40), "teal")


def pipeline(photo, prompt, generator):
    if prompt == "break":
        raise RuntimeError("<b>broken</b>")
    turn = int(torch.randint(90, (1,), generator=generator))
    return SimpleNamespace(frames=[[photo.rotate(turn * i) for i in range(6)]])


@pytest.fixture
def panel() -> AnimatePanel:
    return AnimatePanel(pipeline, PHOTO, "turn", seed=3)


def test_a_press_makes_the_clip_that_code_makes(panel):
    panel._button.click()
    with av.open(io.BytesIO(panel._clip.value)) as clip:
        assert len(list(clip.decode(video=0))) == 6
    link, end = panel._download.value.split("base64,")[1], "Download clip.mp4</u></a>"
    assert base64.b64decode(link.split('"')[0]) == panel._clip.value and link.endswith(end)
    frames = panel.frames
    assert panel.animate() == frames and panel._clip.layout.display == ""
    assert "6 frames of 60 x 40 pixels" in panel._message.value


def test_an_uploaded_photo_takes_the_place_of_the_first(panel):
    panel.animate()
    file = io.BytesIO()
    Image.new("RGB", (900, 1200), "red").save(file, "PNG")
    upload = SimpleNamespace(name="mine.png", content=memoryview(file.getvalue()))
    panel._uploaded({"new": (upload,)})
    assert panel.photo.size == (512, 683) and panel.frames == [] and not panel._download.value
    assert panel._clip.layout.display == "none" and panel._shown.layout.display is None, "the photo is always seen"
    panel._uploaded({"new": (SimpleNamespace(name="notes.txt", content=memoryview(b"words")),)})
    assert "notes.txt cannot be read as a picture" in panel._message.value and panel.photo.size == (512, 683)


def test_what_fails_is_said_and_the_button_works_again(panel):
    panel.prompt = "break"
    panel._button.click()
    assert "RuntimeError: &lt;b&gt;broken" in panel._message.value and not panel._button.disabled


def test_a_page_without_a_kernel_shows_the_photo_and_then_the_clip(panel):
    data, metadata = panel._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == "A photo of 60x40 pixels to animate."
    panel.animate()
    data, metadata = panel._repr_mimebundle_()
    with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as picture:
        assert picture.is_animated and picture.width == 320
    assert "'turn'" in metadata["image/png"]["alt"] and "application/vnd.jupyter.widget-view+json" in data


def test_words_that_the_lite_model_does_not_know_are_named(panel):
    panel.prompt = "the parrot flies away"
    panel.animate()
    assert "knows no motion" not in panel._message.value, "another model may know them"
    lite = AnimatePanel(Lite(), PHOTO, "the parrot flies away")
    lite.animate()
    assert "the parrot flies away" in lite._message.value and "the camera pans left" in lite._message.value
    lite.prompt = "the camera pans left slowly"
    lite.animate()
    assert lite._message.value == "6 frames of 60 x 40 pixels."


class Lite:
    config = SimpleNamespace(detail="carry")
    __call__ = staticmethod(pipeline)


def test_every_caption_of_a_motion_is_understood():
    rng = np.random.default_rng(0)
    for kind in WORDS.objects:
        for _ in range(12):  # no word of the camera helps
            assert advice(object_phrase("the red balloon", Motion(kind, "left", "slow"), rng)) == "", kind
    for kind in WORDS.camera:
        assert advice(caption([], Motion(kind, "left", "slow"), rng)) == "", kind
    assert all(advice(phrase.format(thing="a rocket")) == "" for phrase in SILENT)
    assert len(advice("whatever " * 500)) < 350
    assert advice("") == "" and advice("a dahlia opens its petals") and advice("the gateway to a nest")
