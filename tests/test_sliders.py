"""Sliders: a picture that answers to controls, from code and in Chromium."""

import ipywidgets
import numpy as np
import pytest
from PIL import Image

from mi2v_lite.viz.pictures import Picture
from mi2v_lite.viz.widgets import Sliders


def drawn(calls):
    def draw(width, red):
        calls.append((width, red))
        return Picture(Image.new("RGB", (width, 20), (200 if red else 0, 0, 0)), f"a bar {width} pixels wide")

    return draw


def test_controls_change_the_picture():
    calls = []
    sliders = Sliders(drawn(calls), width=ipywidgets.IntSlider(40, 10, 100), red=ipywidgets.Checkbox(False))
    assert calls == [(40, False)] and sliders.picture.alt == "a bar 40 pixels wide"
    sliders.children[0].value = 60
    sliders.values = {"width": 80, "red": True}
    assert calls[1:] == [(60, False), (80, True)], "several values set at once are drawn once"
    assert sliders.values == {"width": 80, "red": True}
    data, metadata = sliders._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in data and data["image/png"]
    assert metadata["image/png"]["alt"] == data["text/plain"] == "a bar 80 pixels wide"
    assert not sliders.children[0].continuous_update


def test_what_is_refused():
    with pytest.raises(ValueError, match="controls with a value"):
        Sliders(drawn([]))
    with pytest.raises(ValueError, match="label"):
        Sliders(drawn([]), label=object())
    sliders = Sliders(drawn([]), width=ipywidgets.IntSlider(40, 10, 100), red=ipywidgets.Checkbox(False))
    with pytest.raises(ValueError, match="no control height; there are width, red"):
        sliders.values = {"height": 3}


CELLS = [
    """
import ipywidgets
from PIL import Image
from mi2v_lite.viz.pictures import Picture
from mi2v_lite.viz.widgets import Sliders
def draw(width):
    return Picture(Image.new("RGB", (width, 20), (200, 0, 0)), "a bar")
sliders = Sliders(draw, width=ipywidgets.IntSlider(40, 10, 100, 10))
sliders
""",
    "print(sliders.values)",
    "sliders.values = {'width': 90}",
]


def test_in_the_browser(open_notebook, tmp_path):
    notebook = open_notebook(CELLS)
    notebook.run(0)
    cell = notebook.cell(0)
    image = cell.locator(".jp-OutputArea img")
    image.wait_for()
    assert image.count() == 1, "the widget alone is shown, not its still beside it"
    handle = cell.get_by_role("slider")
    handle.focus()
    handle.press("ArrowRight")
    notebook.settle()
    assert notebook.run(1) == "{'width': 50}\n"
    notebook.run(2)
    notebook.page.wait_for_function("document.querySelector('.jp-OutputArea img').naturalWidth === 90")
    image.screenshot(path=tmp_path / "bar.png")
    assert np.asarray(Image.open(tmp_path / "bar.png").convert("RGB"))[10, 40, 0] > 150
    assert not notebook.errors
