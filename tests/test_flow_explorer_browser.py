"""FlowExplorer in JupyterLab, in a real browser: what is shown is what the kernel knows, to the last bit."""

import ast
import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from mi2v_lite import viz
from mi2v_lite.flow.warp import splat_average
from mi2v_lite.viz.widgets.flow_explorer import FlowExplorer

nbformat = pytest.importorskip("nbformat")

WIDGET = ".flow-explorer"
HEIGHT, WIDTH = 24, 32

# Quarters of a pixel, another at every place: two decimals show them whole. The same lines run here and in the kernel.
FIELD = f"""
import numpy as np
y, x = np.mgrid[:{HEIGHT}, :{WIDTH}]
flow = np.stack([np.stack([k * (x - y) / 4, k * (y - 11) / 4]) for k in (1, 2, 5)]).astype(np.float32)
flow[:, :, 20, 3] = np.nan
photo = np.stack([8 * x, 10 * y, 255 - 4 * (x + y)], axis=2).astype(np.uint8)
"""
SHOW = f"""{FIELD}
from mi2v_lite.viz.widgets import FlowExplorer
explorer = FlowExplorer(photo, flow, overlay="arrows", density=8)
explorer
"""


@pytest.fixture(scope="module")
def made() -> dict:
    """`flow` (3, 2, H, W) and `photo` (H, W, 3), as the kernel makes them."""
    names: dict = {}
    exec(FIELD, names)
    return names


def readout(widget) -> dict[str, str]:
    """What the page says of the hovered pixel."""
    lines = widget.locator(".readout > div").all()
    return {line.locator("span").inner_text(): line.locator("b").inner_text() for line in lines}


def wait_drawn(widget, overlay: str, frame: int) -> None:
    """Until the page has drawn it."""
    widget.page.wait_for_selector(f"{WIDGET}[data-drawn='{overlay},{frame}']")


def test_slider_pointer_keys_and_code_agree_with_the_kernel(open_notebook, made, tmp_path):
    cells = [SHOW, "print(explorer.frame, explorer.hovered)", "explorer.frame, explorer.overlay = 3, 'tracks'"]
    notebook = open_notebook([*cells, "explorer.hovered = {'x': 30, 'y': 22}"], device_scale_factor=2)
    notebook.run(0)
    widget = notebook.cell(0).locator(WIDGET)

    def kernel() -> tuple[int, dict]:
        frame, point = notebook.run(1).split(" ", 1)
        return int(frame), ast.literal_eval(point)

    slider = widget.get_by_role("slider", name="frame")
    assert slider.input_value() == "3"
    slider.press("ArrowLeft")  # a key on the slider, and a fine pointer on the picture
    wait_drawn(widget, "arrows", 2)

    canvas = widget.locator("canvas.canvas")
    box = canvas.bounding_box()
    assert box["width"] == 512 and box["height"] == 384
    assert canvas.evaluate("each => [each.width, each.height]") == [1024, 768], "sharp at device scale 2"
    x, y = 21, 7
    # The last quarter of the pixel, where a border of one pixel would already give the next one's value.
    canvas.hover(position={"x": 16 * x + 15.5, "y": 16 * y + 15.5})
    frame, point = kernel()
    u, v = (float(part) for part in made["flow"][1, :, y, x])
    assert frame == 2 and point == {"frame": 2, "x": x, "y": y, "u": u, "v": v}
    shown = readout(widget)
    assert (shown["(x, y)"], shown["(u, v)"]) == (f"{x}, {y}", f"{u:.2f}, {v:.2f} px")
    assert shown["lands at"] == f"{x + u:.2f}, {y + v:.2f}"

    canvas.focus()
    for key in ("ArrowDown", "ArrowLeft", "."):
        notebook.page.keyboard.press(key)
    wait_drawn(widget, "arrows", 3)
    u, v = (float(part) for part in made["flow"][2, :, y + 1, x - 1])
    assert kernel() == (3, {"frame": 3, "x": x - 1, "y": y + 1, "u": u, "v": v})
    assert readout(widget)["(u, v)"] == f"{u:.2f}, {v:.2f} px"

    canvas.hover(position={"x": 16 * 3 + 8, "y": 16 * 20 + 8})
    assert kernel()[1] == {"frame": 3, "x": 3, "y": 20, "u": None, "v": None}
    assert readout(widget)["(u, v)"] == "unknown"

    notebook.run(2)
    wait_drawn(widget, "tracks", 3)
    assert widget.get_by_role("combobox").input_value() == "tracks"
    notebook.run(3)
    widget.get_by_text("30, 22").wait_for()
    notebook.cell(0).screenshot(path=tmp_path / "tracks.png")

    widget.get_by_role("button", name="play").press("Space")
    widget.page.wait_for_selector(f"{WIDGET}[data-drawn='tracks,1']")
    widget.get_by_role("button", name="pause").press("Space")
    frame, point = kernel()
    assert point["frame"] == frame and slider.input_value() == str(frame)
    assert not notebook.errors


OCCLUSION = """
flow = np.zeros((1, 2, 24, 32), np.float32)
flow[0, 0, 4:10, 4:10] = 12   # a square that lands on still ground
flow[0, 1, 22:] = 5           # two rows that leave
FlowExplorer(np.full((24, 32, 3), 200, np.uint8), flow, overlay="occlusion")
"""


def base_pixels(widget, overlay: str, frame: int, zoom: int) -> np.ndarray:
    """What the canvas shows in the middle of each pixel of the field, uint8 (H, W, 3)."""
    wait_drawn(widget, overlay, frame)
    url = widget.locator("canvas.canvas").evaluate("each => each.toDataURL()")
    with Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))) as image:
        return np.asarray(image.convert("RGB"))[zoom // 2 :: zoom, zoom // 2 :: zoom].astype(int)


def test_overlays_show_what_python_computes(open_notebook, made):
    """The page computes its pixels itself; they must be those of flow_to_rgb and splat_average."""
    notebook = open_notebook(
        [SHOW, "explorer.overlay = overlays.pop(0)", "overlays = ['colours', 'warped', 'holes']", OCCLUSION]
    )
    for cell in (0, 2, 3):
        notebook.run(cell)
    widget = notebook.cell(0).locator(WIDGET)
    flow = torch.from_numpy(made["flow"])

    notebook.run(1)
    colours = base_pixels(widget, "colours", 3, 16)
    expected = viz.flow_to_rgb(flow)[2].astype(int)
    assert np.abs(colours - expected).max() <= 1
    assert (colours[20, 3] == 0).all(), "unknown flow is black"

    photo = torch.from_numpy(made["photo"]).permute(2, 0, 1)[None].float()
    moved, weight = splat_average(photo, flow[2:])
    hole = (weight[0, 0] == 0).numpy()
    assert 0.1 < hole.mean() < 0.9
    notebook.run(1)
    warped = base_pixels(widget, "warped", 3, 16)
    assert np.abs(warped - moved[0].permute(1, 2, 0).round().numpy()).max() <= 1
    assert f"nothing lands: {100 * hole.mean():.1f} %" in widget.inner_text()

    notebook.run(1)
    marked = (base_pixels(widget, "holes", 3, 16) == viz.HOLE).all(axis=2)
    assert np.array_equal(marked, hole)

    seen = base_pixels(notebook.cell(3).locator(WIDGET), "occlusion", 1, 16)
    leaves, collides = (seen == (230, 159, 0)).all(axis=2), (seen == (0, 114, 178)).all(axis=2)
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[22:] = True
    assert np.array_equal(leaves, expected)
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[4:10, 4:10] = expected[4:10, 16:22] = True
    assert np.array_equal(collides, expected), "the square and the ground under it"
    assert not notebook.errors


LARGE = """
import numpy as np
from mi2v_lite.viz.widgets import FlowExplorer
y, x = np.mgrid[:512, :512] - 255.5
flow = np.stack([np.stack([-y, x]) * k / 60 for k in range(1, 17)])
explorer = FlowExplorer(np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8), flow, density=24)
explorer
"""
REDRAW = """async ([root, overlay]) => {
    const next = () => new Promise(done => requestAnimationFrame(done));
    const choice = root.querySelector('select'), slider = root.querySelector("input[aria-label='frame']");
    choice.value = overlay;
    choice.dispatchEvent(new Event('change'));
    await next(); await next();
    const times = [];
    for (const frame of [3, 11, 16, 7]) {
        const began = performance.now();
        slider.value = frame;
        slider.dispatchEvent(new Event('input'));
        while (root.dataset.drawn !== overlay + ',' + frame) await next();
        root.querySelector('canvas').getContext('2d').getImageData(0, 0, 1, 1);  // until the pixels are there
        times.push(performance.now() - began);
    }
    return times.sort((a, b) => a - b);
}"""


def test_the_largest_field_is_drawn_and_its_times_are_told(open_notebook, capsys, tmp_path):
    """From the slider's event to the pixels, 512 x 512 x 16, the waiting for the next frame of the screen included."""
    notebook = open_notebook([LARGE, "print(explorer.frame, explorer.overlay)"])
    notebook.run(0)
    widget = notebook.cell(0).locator(WIDGET)
    widget.wait_for()
    root = widget.element_handle()
    for overlay in ("colours", "arrows", "tracks", "warped", "holes", "occlusion"):
        times = notebook.page.evaluate(REDRAW, [root, overlay])
        widget.screenshot(path=tmp_path / f"large_{overlay}.png")
        with capsys.disabled():
            print(f"\nFlowExplorer 512x512x16 {overlay}: median {times[2]:.0f} ms, largest {times[-1]:.0f} ms", end="")
    assert notebook.run(1) == "7 occlusion\n"
    assert not notebook.errors


def test_a_stored_notebook_shows_the_still(open_notebook, made):
    """What GitHub and a reader without a kernel see: the stored output's picture, when the live view is left out."""
    data, metadata = FlowExplorer(made["photo"], made["flow"])._repr_mimebundle_()
    stored = {kind: value for kind, value in data.items() if "widget" not in kind}
    output = nbformat.v4.new_output("execute_result", stored, metadata=metadata, execution_count=1)
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("explorer", outputs=[output], execution_count=1)])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    notebook = open_notebook(book)
    still = notebook.cell(0).locator(".jp-OutputArea img")
    assert still.evaluate("each => each.naturalWidth") > 800
