"""AttentionExplorer without a browser: its answers are the layer's own weights and the field's own sources."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from mi2v_lite.flow.splat_cache import SplatCache
from mi2v_lite.models.unet import VideoUNet
from mi2v_lite.viz.attention import Record, record

pytest.importorskip("matplotlib")
traitlets = pytest.importorskip("traitlets")

from mi2v_lite.viz.widgets import AttentionExplorer  # noqa: E402 - imports matplotlib and anywidget

SIDE, FRAMES = 32, 4


@pytest.fixture(scope="module")
def flow() -> torch.Tensor:
    """Everything goes 4 pixels a frame to the right: one feature pixel at 8 x 8."""
    field = torch.zeros(1, FRAMES - 1, 2, SIDE, SIDE)
    field[0, :, 0] = 4.0 * torch.arange(1, FRAMES).view(FRAMES - 1, 1, 1)
    return field


@pytest.fixture(scope="module")
def seen(flow) -> Record:
    torch.manual_seed(0)
    unet = VideoUNet(
        4, 4, (32, 32), 1, (True, False), 2, cross_attention_dim=8, motion_num_attention_heads=2, fusion="attention"
    )
    sample = torch.randn(1, 4, FRAMES, 8, 8)
    with torch.no_grad(), record(unet.eval()) as found:
        for step in range(3):
            unet(sample + step, 5, torch.zeros(1, 2, 8), flow=SplatCache(flow))
    return found


@pytest.fixture
def explorer(flow, seen) -> AttentionExplorer:
    frames = np.random.default_rng(0).integers(0, 255, (FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
    return AttentionExplorer(frames, flow, seen)


def test_the_answer_is_the_layers_own(explorer, seen):
    explorer.layer, explorer.step, explorer.head, explorer.query = seen.names[0], 1, 1, (2, 21, 9)
    weights = seen.call(seen.names[0], 1).weights()  # (F, heads, h, w, M)
    h, w = weights.shape[2:4]
    wanted = weights[2, 1, 9 * h // SIDE, 21 * w // SIDE]
    answer = explorer.answer
    np.testing.assert_allclose(answer["weights"], wanted, atol=1e-6)
    assert answer["size"] == (h, w) and answer["place"] == (21 * w // SIDE, 9 * h // SIDE)
    assert answer["reference"] + answer["warped"] + answer["own"] == pytest.approx(1, abs=1e-5)
    assert answer["warped"] == pytest.approx(float(wanted[1::2].sum()), abs=1e-5)
    explorer.head = -1
    mean = weights[2, :, 9 * h // SIDE, 21 * w // SIDE].mean(0)
    np.testing.assert_allclose(explorer.answer["weights"], mean, atol=1e-6)


def test_sources_and_the_way_follow_the_field(explorer):
    explorer.query = (2, 21, 9)
    assert explorer.answer["sources"] == [(17, 9), (13, 9), (9, 9)]
    assert explorer.answer["source"] == (13, 9)
    assert explorer.answer["track"] == [(13, 9), (17, 9), (21, 9), (25, 9)]
    explorer.query = (3, 1, 9)  # what was here has left, and nothing came
    assert explorer.answer["source"] is None and explorer.answer["track"] == []
    explorer.query = (0, 1, 9)
    assert explorer.answer["source"] == (1, 9) and explorer.answer["track"][-1] == (13, 9)


def test_the_first_query_is_where_the_longest_way_ends(flow, seen):
    one = torch.zeros_like(flow)
    one[0, :, :, 5, 7] = torch.tensor([[2.0, 1.0], [4.0, 2.0], [6.0, 3.0]])
    frames = np.zeros((FRAMES, SIDE, SIDE, 3), np.uint8)
    assert AttentionExplorer(frames, one, seen).query == (3, 13, 8)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("query", (4, 0, 0), "0 to 3, 31 and 31"),
        ("query", (0, 0), "query must be"),
        ("query", (0, 1.5, 2), "whole numbers"),
        ("layer", "nowhere", "layer must be one of"),
        ("step", 7, r"step must be one of \[0, 1, 2\]"),
        ("head", 2, r"head must be one of \[-1, 0, 1\]"),
    ],
)
def test_a_wrong_setting_is_refused_and_nothing_changes(explorer, name, value, message):
    before, answer = getattr(explorer, name), explorer.answer
    with pytest.raises(traitlets.TraitError, match=message):
        setattr(explorer, name, value)
    assert getattr(explorer, name) == before and explorer.answer == answer


def test_refusals_at_the_door(flow, seen):
    frames = np.zeros((FRAMES, SIDE, SIDE, 3), np.uint8)
    with pytest.raises(ValueError, match=r"flow must be \(3, 2, 32, 32\)"):
        AttentionExplorer(frames, flow[..., :16], seen)
    with pytest.raises(ValueError, match="3 frames are shown but 4 were recorded"):
        AttentionExplorer(frames[:3], flow[:, :2], seen)
    with pytest.raises(ValueError, match="Nothing was recorded"):
        AttentionExplorer(frames, flow, Record())
    with pytest.raises(TypeError, match=r"no settings \['colour'\]"):
        AttentionExplorer(frames, flow, seen, colour="red")


def test_a_record_without_motion_is_refused(flow):
    unet = VideoUNet(4, 4, (32, 32), 1, (False, False), 2, cross_attention_dim=8, motion_num_attention_heads=2)
    with torch.no_grad(), record(unet.eval()) as plain:
        unet(torch.randn(1, 4, FRAMES, 8, 8), 5, torch.zeros(1, 2, 8))
    with pytest.raises(ValueError, match="plain attention"):
        AttentionExplorer(np.zeros((FRAMES, SIDE, SIDE, 3), np.uint8), flow, plain)


def test_a_still_remains_without_a_kernel(explorer):
    data, metadata = explorer._repr_mimebundle_()
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert image.width > 600 and np.asarray(image.convert("L")).std() > 20
    assert len(metadata["image/png"]["alt"].split()) >= 3
    first = explorer.still.bytes()
    explorer.query = (1, 3, 3)
    assert explorer.still.bytes() != first
