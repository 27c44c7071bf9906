"""FlowExplorer without a browser: what it takes and refuses, what it sends, and the still that remains."""

import base64
import io
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from traitlets import TraitError

from mi2v_lite import viz
from mi2v_lite.flow.files import write_flow
from mi2v_lite.viz import widgets
from mi2v_lite.viz.widgets.flow_explorer import STATIC, FlowExplorer

ROOT = Path(__file__).resolve().parent.parent
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8))


def field(frames: int = 3, height: int = 8, width: int = 12) -> torch.Tensor:
    """Another value at every place, not all of them exact in half precision."""
    values = np.random.default_rng(1).normal(0, 3, (frames, 2, height, width))
    return torch.from_numpy(values.astype(np.float32))


def sent(explorer: FlowExplorer) -> np.ndarray:
    """The field in the bytes that go to the browser."""
    state = explorer.get_state()
    count, height, width = state["_shape"]
    return np.frombuffer(state["_flow"], "<f4").reshape(count, 2, height, width)


def test_every_form_of_a_field_arrives_exactly(tmp_path):
    flow = field()
    write_flow(tmp_path / "motion.npz", flow)
    forms = [flow, flow.numpy(), flow[None], flow.double(), SimpleNamespace(flow=flow[None]), tmp_path / "motion.npz"]
    for form in [*forms, str(tmp_path / "motion.npz")]:
        explorer = FlowExplorer(PHOTO, form)
        assert np.array_equal(sent(explorer), flow.numpy())
        assert np.array_equal(explorer.flow, flow.numpy())
    write_flow(tmp_path / "one.flo", flow[0])
    for form in (flow[0], tmp_path / "one.flo"):
        assert np.array_equal(sent(FlowExplorer(PHOTO, form)), flow[:1].numpy())


def test_the_photo_is_sent_at_the_fields_size():
    state = FlowExplorer(PHOTO, field()).get_state()
    assert state["_photo"] == PHOTO.tobytes(), "the same size: not resampled"
    assert len(FlowExplorer(PHOTO.resize((60, 41)), field()).get_state()["_photo"]) == 8 * 12 * 3
    with pytest.raises(ValueError, match="50x40 pixels, but the flow 12x8: another aspect ratio"):
        FlowExplorer(PHOTO.resize((50, 40)), field())


@pytest.mark.parametrize(
    "flow, message",
    [
        (torch.zeros(2, 3, 2, 8, 12), r"batch of 2 fields; show one of them, as flow\[0\]"),
        (torch.zeros(3, 8, 12, 2), r"must be \(N, 2, H, W\).*got \(3, 8, 12, 2\)"),
        (torch.zeros(0, 2, 8, 12), r"must be \(N, 2, H, W\)"),
        (torch.zeros(1).expand(17, 2, 512, 512), "17 frames of 512x512 pixels; .* 16 of 512x512.*resize"),
        ("motion.mp4", "unknown suffix"),
        (object(), "must be numbers"),
    ],
)
def test_what_is_no_field_is_refused(flow, message):
    with pytest.raises(ValueError, match=message):
        FlowExplorer(PHOTO, flow)


def test_what_is_no_picture_and_no_setting_is_refused():
    with pytest.raises(ValueError, match="A picture is"):
        FlowExplorer(np.zeros((8, 12)), field())
    with pytest.raises(TypeError, match="frames"):
        FlowExplorer(PHOTO, field(), frames=2)


def test_settings_come_from_code_and_stay_in_range():
    explorer = FlowExplorer(PHOTO, field(), overlay="tracks", frame=1)
    assert (explorer.frame, explorer.overlay) == (1, "tracks")
    assert FlowExplorer(PHOTO, field()).frame == 3, "at first the last frame"
    for name, wrong in {"frame": 4, "overlay": "colors", "density": 0, "scale": 0.0, "max_flow": 0.0, "fps": 0}.items():
        with pytest.raises(TraitError):
            setattr(explorer, name, wrong)
    assert (explorer.frame, explorer.overlay, explorer.density) == (1, "tracks", 16)
    with pytest.raises(TraitError, match="frame must be 0 to 3, got -1"):
        explorer.frame = -1


def test_hovered_has_the_exact_flow_and_follows_the_frame():
    flow = field()
    flow[1, :, 2, 5] = torch.nan
    explorer = FlowExplorer(PHOTO, flow)
    assert explorer.hovered is None
    explorer.hovered = {"x": 5, "y": 2}
    u, v = flow[2, :, 2, 5].tolist()
    assert explorer.hovered == {"frame": 3, "x": 5, "y": 2, "u": u, "v": v}
    explorer.frame = 2
    assert explorer.hovered == {"frame": 2, "x": 5, "y": 2, "u": None, "v": None}, "unknown flow"
    explorer.frame = 0
    assert explorer.hovered == {"frame": 0, "x": 5, "y": 2, "u": 0.0, "v": 0.0}, "nothing has moved yet"
    for wrong in ({"x": 12, "y": 0}, {"x": -1, "y": 0}, {"x": 1.5, "y": 0}, {"y": 0}):
        with pytest.raises(TraitError, match='"x": 0 to 11, "y": 0 to 7'):
            explorer.hovered = wrong


def test_full_colour_is_one_length_for_all_frames():
    flow = field()
    flow[0, :, 0, 0] = torch.nan
    assert FlowExplorer(PHOTO, flow).max_flow == viz.longest(flow)
    assert FlowExplorer(PHOTO, torch.zeros(2, 8, 12)).max_flow == 1.0, "no motion, no division by zero"


def test_a_still_remains_without_a_kernel():
    explorer = FlowExplorer(PHOTO, field())
    data, metadata = explorer._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.model_id
    with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as still:
        assert still.size == tuple(side * 2 // 3 for side in viz.flow_picture(PHOTO, field()).size)
    assert "motion over 3 frames" in data["text/plain"] and metadata["image/png"]["alt"] == data["text/plain"]
    assert repr(explorer) == "FlowExplorer(3 frames, 12x8 px, frame=3, overlay='colours')"


def test_the_pages_files_are_shipped():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["mi2v_lite"]
    shipped = {path for pattern in declared for path in (ROOT / "mi2v_lite").glob(pattern)}
    assert {STATIC / f"flow_{name}" for name in ("pixels.js", "drawing.js", "explorer.js", "explorer.css")} <= shipped


def test_widgets_are_handed_out_by_name():
    assert widgets.FlowExplorer is FlowExplorer and "FlowExplorer" in dir(widgets)
    with pytest.raises(AttributeError, match="no widget 'FlowExplorers'; it has .*FlowExplorer"):
        _ = widgets.FlowExplorers
