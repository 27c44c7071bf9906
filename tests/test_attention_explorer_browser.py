"""AttentionExplorer in Chromium: a click asks the kernel, its answer is drawn, and code sees what the page did."""

import numpy as np
from PIL import Image

CELLS = [
    """
import numpy as np, torch
from mi2v_lite.flow.splat_cache import SplatCache
from mi2v_lite.models.unet import VideoUNet
from mi2v_lite.viz.attention import record
from mi2v_lite.viz.widgets import AttentionExplorer
torch.manual_seed(0)
flow = torch.zeros(1, 3, 2, 32, 32)
flow[0, :, 0] = 4.0 * torch.arange(1, 4).view(3, 1, 1)
unet = VideoUNet(
    4, 4, (32, 32), 1, (True, False), 2, cross_attention_dim=8, motion_num_attention_heads=2, fusion="attention"
)
with torch.no_grad(), record(unet.eval()) as seen:
    for step in range(2):
        unet(torch.randn(1, 4, 4, 8, 8), 5, torch.zeros(1, 2, 8), flow=SplatCache(flow))
frames = np.zeros((4, 32, 32, 3), np.uint8)
frames[..., 2] = 40 * np.arange(1, 5).reshape(4, 1, 1)
explorer = AttentionExplorer(frames, flow, seen)
explorer
""",
    "print(explorer.query, explorer.answer['source'], len(explorer.layers) - explorer.layers.index(explorer.layer), "
    "explorer.step, explorer.head)",
    "explorer.query = (1, 20, 9)",
]


def picture(cell, name, tmp_path) -> np.ndarray:
    """Pixels of one of the widget's canvases."""
    path = tmp_path / f"{name}.png"
    cell.locator(f"canvas.{name}").screenshot(path=path)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def place(canvas, x: float, y: float) -> dict:
    """The middle of pixel (x, y) of the 32 x 32 clip, on the canvas."""
    box = canvas.bounding_box()
    return {"x": (x + 0.5) * box["width"] / 32, "y": (y + 0.5) * box["height"] / 32}


def test_click_choose_and_set_from_code(open_notebook, tmp_path):
    notebook = open_notebook(CELLS, device_scale_factor=2)
    notebook.run(0)
    cell = notebook.cell(0)
    asks = cell.locator("canvas.asks")
    readout = cell.locator(".readout")
    before = picture(cell, "chart", tmp_path)

    asks.click(position=place(asks, 21, 9))
    readout.get_by_text("Pixel (21, 9) of frame 3 comes from (9, 9)").wait_for()
    assert notebook.run(1) == "(3, 21, 9) (9, 9) 1 1 -1\n"
    photo = picture(cell, "photo", tmp_path)
    scale = photo.shape[1] / 32
    around = photo[int(9.5 * scale) - 12 : int(9.5 * scale) + 12, int(9.5 * scale) - 12 : int(9.5 * scale) + 12]
    assert (around[..., 0] > 150).any(), "the source is marked on the photo, which is blue"
    assert np.abs(picture(cell, "chart", tmp_path) - before).max() > 50

    asks.press("ArrowRight")
    asks.press("ArrowDown")
    readout.get_by_text("Pixel (22, 10) of frame 3").wait_for()

    cell.get_by_label("layer").select_option(index=0)
    cell.get_by_label("head").select_option("1")
    cell.get_by_label("step").select_option("0")
    cell.get_by_label("frame", exact=True).fill("2")
    readout.get_by_text("Pixel (22, 10) of frame 2 comes from (14, 10)").wait_for()
    printed = notebook.run(1).split()
    assert printed[:3] == ["(2,", "22,", "10)"] and printed[-2:] == ["0", "1"] and int(printed[-3]) > 1

    notebook.run(2)
    readout.get_by_text("Pixel (20, 9) of frame 1 comes from (16, 9)").wait_for()
    assert cell.get_by_label("frame", exact=True).input_value() == "1"
    cell.screenshot(path=tmp_path / "explorer.png")

    # A pixel of the photo is followed to the frame that is shown.
    cell.get_by_label("frame", exact=True).fill("3")
    photo = cell.locator("canvas.photo")
    photo.click(position=place(photo, 5, 20))
    readout.get_by_text("Pixel (17, 20) of frame 3 comes from (5, 20)").wait_for()

    # In frame 3 the left edge of the photo lands at x = 12, more than a feature pixel away from x = 1.
    cell.get_by_label("frame", exact=True).fill("3")
    asks.click(position=place(asks, 1, 9))
    readout.get_by_text("has no source in the photo: a hole").wait_for()
    assert not notebook.errors
