"""DragCanvas in JupyterLab: what pointer, finger and keys do arrives in the kernel, exactly; and it stays a picture."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from mi2v_lite.control import Anchor, Drag, MotionControl
from mi2v_lite.viz.widgets.drag_edits import painted

nbformat = pytest.importorskip("nbformat")

SETUP = """
import time
import numpy as np
from PIL import Image
from mi2v_lite.viz.widgets import DragCanvas

def predict(image, prompt, control, *, control_scale, generator):
    if prompt == "break":
        return {{}}["weights"]
    return control.resized(*image.size).field(15)[0]

def render(image, motion, prompt, *, generator):
    return [image.rotate(turn) for turn in range(16)]

{photo}
canvas = DragCanvas(photo, predict=predict, render=render, size=96)
canvas
"""
NOISE = "photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)).resize({size}, 0)"
BALL = """pixels = np.full((240, 320, 3), (30, 60, 90), np.uint8)
pixels[np.hypot(*np.mgrid[-120:120, -100:220]) < 30] = (230, 120, 40)
photo = Image.fromarray(pixels)"""  # around (100, 120)
TWO_BALLS = BALL.replace("photo =", "pixels[np.hypot(*np.mgrid[-120:120, -220:100]) < 20] = (230, 230, 230)\nphoto =")
CONTROL = "print(canvas.control.to_json())"


class Hand:
    """Mouse and buttons of one canvas. Places are (x, y) in the photo's pixels."""

    def __init__(self, open_notebook, size=(320, 240), photo=NOISE, **options):
        self.size = size
        setup = SETUP.format(photo=photo.format(size=size))
        self.notebook = open_notebook([setup, CONTROL], **options)
        self.notebook.run(0)
        self.page, self.cell = self.notebook.page, self.notebook.cell(0)
        self.canvas = self.cell.locator("canvas.mi2v-canvas")
        self.canvas.wait_for()

    def at(self, point) -> tuple[float, float]:
        """The middle of a pixel of the photo, in the page's CSS pixels."""
        self.canvas.scroll_into_view_if_needed()
        box = self.canvas.bounding_box()
        x, y = ((value + 0.5) / length for value, length in zip(point, self.size, strict=True))
        return box["x"] + x * box["width"], box["y"] + y * box["height"]

    def stroke(self, *points) -> None:
        self.page.mouse.move(*self.at(points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.at(point), steps=5)
        self.page.mouse.up()

    def click(self, point) -> None:
        self.page.mouse.click(*self.at(point))

    def press(self, *names: str) -> None:
        for name in names:
            self.cell.get_by_role("button", name=name, exact=True).click()

    def status(self, words: str) -> str:
        """What the page says of the work, as soon as it holds the words."""
        self.cell.locator(".mi2v-status").filter(has_text=words).wait_for()
        return self.cell.locator(".mi2v-status").inner_text()

    def control(self) -> MotionControl:
        """What the kernel has."""
        return MotionControl.from_json(self.notebook.run(1))


@pytest.mark.parametrize("scale", [1, 2])
def test_the_hand_draws_exactly(open_notebook, scale):
    hand = Hand(open_notebook, device_scale_factor=scale)
    hand.press("Drag")
    hand.stroke((40, 60), (200, 100))
    drag = Drag([(40, 60), (200, 100)])
    assert hand.control() == MotionControl(hand.size, [drag])

    for point in ((300, 30), (280, 90), (240, 30), (240, 30)):  # the last again: the end
        hand.click(point)
    hand.press("Anchor")
    hand.click((150, 200))
    drawn = MotionControl(hand.size, [drag, Drag([(300, 30), (280, 90), (240, 30)])], [Anchor((150, 200))])
    assert hand.control() == drawn

    hand.press("Undo", "Undo")
    assert hand.control() == MotionControl(hand.size, [drag])
    hand.press("Redo", "Redo")
    assert hand.control() == drawn

    hand.press("Select")
    hand.stroke((40, 60), (45, 80))  # the whole drag by its start, which is no point of its own yet
    hand.control()  # as a person does, it looks where the drag now is before it takes hold of its end
    hand.stroke((205, 120), (310, 230))  # now its end
    hand.stroke((150, 200), (10, 20))
    moved = MotionControl(hand.size, [Drag([(45, 80), (310, 230)]), drawn.drags[1]], [Anchor((10, 20))])
    assert hand.control() == moved
    hand.press("Delete")
    hand.click((280, 90))
    hand.page.keyboard.press("Delete")
    assert hand.control() == MotionControl(hand.size, [Drag([(45, 80), (310, 230)])])
    hand.press("Anchor background")
    ground = hand.control().things[0]
    assert not ground.drags and not ground.mask[80, 45] and ground.mask.mean() > 0.3
    hand.press("Undo")
    hand.press("Clear all", "Undo")
    assert len(hand.control().drags) == 1
    assert not hand.notebook.errors


def test_paint_predict_render_save_and_load(open_notebook):
    hand = Hand(open_notebook)
    hand.press("Paint")
    hand.cell.get_by_label("Brush size").fill("40")
    hand.stroke((60, 60), (160, 60))
    expected = painted(MotionControl(hand.size), [(60, 60), (160, 60)], 40)
    assert np.array_equal(hand.control().brush, expected)
    assert f"Painted: {100 * expected.mean():.1f} %" in hand.cell.locator(".mi2v-hint").inner_text()
    hand.press("Invert")
    assert np.array_equal(hand.control().brush, ~expected)
    hand.press("Invert", "Erase")
    hand.click((60, 60))
    expected = painted(MotionControl(hand.size, brush=expected), [(60, 60)], 40, erase=True)
    assert np.array_equal(hand.control().brush, expected)

    hand.press("Drag")
    hand.stroke((130, 60), (150, 60))
    hand.press("Select")
    hand.click((130, 60))
    hand.cell.get_by_label("Radius").fill("9.375")  # ten steps of the slider
    drawn = hand.control()
    assert drawn.drags == (Drag([(130, 60), (150, 60)], 9.375),)

    hand.press("Render clip")
    assert "0.0 px of the photo from what you drew" in hand.status("The clip took")
    video = hand.cell.locator("video")
    video.evaluate("each => each.readyState > 1 || new Promise(done => each.onloadeddata = done)")
    assert video.evaluate("each => [each.videoWidth, each.videoHeight, each.duration]") == [128, 96, 2]
    assert hand.cell.get_by_label("Over the photo").input_value() == "motion"
    photo, clip = (hand.cell.locator(name).bounding_box() for name in (".mi2v-stage", "video"))
    assert clip["x"] > photo["x"] + photo["width"] and abs(clip["y"] - photo["y"]) < 1, (
        "the clip plays beside the photo"
    )
    with hand.page.expect_download() as download:
        hand.cell.get_by_text("Download clip.mp4").click()
    assert download.value.path().stat().st_size > 1000
    hand.press("Save")
    hand.notebook.settle()
    saved = hand.notebook.folder / "control.json"
    assert MotionControl.load(saved) == drawn
    assert "mi2v animate PHOTO --control control.json" in hand.status("Saved in control.json")
    hand.press("Clear all", "Load")
    assert hand.control() == drawn

    hand.cell.get_by_label("Prompt").fill("break")
    hand.press("Predict motion")
    hand.status("KeyError: 'weights'")
    assert not hand.notebook.errors


def test_keys_and_a_finger(open_notebook):
    hand = Hand(open_notebook)
    hand.press("Drag")
    hand.canvas.focus()
    keys = ["Space", "ArrowRight", "Shift+ArrowRight", "Space", "Shift+ArrowDown", "Space"]
    for key in [*keys, "Shift+ArrowLeft", "Space", "Control+z", "Enter"]:  # undone: the fourth point alone
        hand.page.keyboard.press(key)
    # From the middle, in steps of 2.5, rounded; with Shift eight of them.
    first, second = (159.5, 119.5), (159.5 + 9 * 3, 119.5)
    drag = Drag([first, second, (second[0], second[1] + 8 * 3)])
    assert hand.control() == MotionControl(hand.size, [drag])
    hand.canvas.focus()
    for key in ("n", "ArrowLeft", "ArrowLeft", "ArrowUp"):
        hand.page.keyboard.press(key)
    moved = Drag([(x - 6, y - 3) for x, y in drag.points])
    assert hand.control().drags == (moved,)
    hand.canvas.focus()
    hand.page.keyboard.press("Control+z")
    assert hand.control().drags == (drag,), "arrows are one step"
    hand.canvas.focus()
    hand.page.keyboard.press("n")
    hand.page.keyboard.press("Delete")
    assert hand.control() == MotionControl(hand.size)
    assert hand.page.locator(".jp-Notebook .jp-Cell").count() == 2, "no key went to JupyterLab"

    hand.press("Drag")
    touch = hand.page.context.new_cdp_session(hand.page)
    for kind, point in (("Start", (50, 50)), ("Move", (80, 50)), ("Move", (120, 200)), ("End", None)):
        points = [] if point is None else [dict(zip("xy", hand.at(point), strict=True))]
        touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
    points = hand.control().drags[0].points
    assert points[0] == (50, 50) and points[-1] == (120, 200), "the page did not scroll instead"


def test_a_photo_of_twelve_megapixels(open_notebook):
    hand = Hand(open_notebook, size=(4000, 3000), viewport=(900, 900))
    hand.press("Drag")
    hand.stroke((500, 700), (3500, 2200))
    hand.press("Paint")
    hand.stroke((1000, 1000), (2500, 1000))
    box = hand.canvas.bounding_box()
    control = hand.control()
    near = 4000 / box["width"]  # one CSS pixel
    assert np.allclose(control.drags[0].points, [(500, 700), (3500, 2200)], atol=near)
    expected = painted(MotionControl(hand.size), [(1000, 1000), (2500, 1000)], 375)
    assert abs(int(control.brush.sum()) - int(expected.sum())) < 0.01 * expected.sum()
    shown = hand.cell.locator("img.mi2v-layer").first
    assert shown.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [1024, 768]
    # Many strokes in a row: the answers to edits under way are not waited for, and none of the strokes is lost.
    hand.press("Drag")
    for i in range(5):
        hand.stroke((500 + 500 * i, 2000), (700 + 500 * i, 2700))
    assert len(hand.control().drags) == 6
    assert not hand.notebook.errors


def test_without_a_kernel_a_picture_remains(open_notebook):
    live = Hand(open_notebook)
    live.press("Drag")
    live.stroke((40, 60), (200, 100))
    live.notebook.run(0)  # shown again, on a fresh photo
    live.page.evaluate("async () => { await jupyterapp.commands.execute('docmanager:save'); }")
    stored = nbformat.read(live.notebook.folder / "test.ipynb", as_version=4)
    assert "widgets" not in stored.metadata, "no state is stored"
    output = stored.cells[0].outputs[0]
    data, words = output["data"], "A photo of 320x240 pixels with nothing drawn on it yet."
    assert data["text/plain"] == output["metadata"]["image/png"]["alt"] == words
    with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as still:
        assert still.size == (384, 288)
    data.pop("application/vnd.jupyter.widget-view+json")  # as the course's notebooks are stored
    later = open_notebook(stored)
    image = later.cell(0).locator(".jp-OutputArea-output img")
    image.wait_for()
    assert image.evaluate("image => image.naturalWidth") == 384


def test_a_picture_is_chosen_and_another_dropped(open_notebook):
    hand = Hand(open_notebook)
    hand.press("Drag")
    hand.stroke((40, 60), (200, 100))
    file = io.BytesIO()
    Image.new("RGB", (60, 90), "teal").save(file, "PNG")
    with hand.page.expect_file_chooser() as chooser:
        hand.press("Open a photo")
    chooser.value.set_files([{"name": "mine.png", "mimeType": "image/png", "buffer": file.getvalue()}])
    hand.status("mine.png: 60 x 90 pixels")
    hand.size = (60, 90)
    hand.stroke((10, 10), (50, 80))
    assert hand.control() == MotionControl((60, 90), [Drag([(10, 10), (50, 80)])])
    drop = """(stage, base64) => {
        const data = new DataTransfer();
        const bytes = Uint8Array.from(atob(base64), each => each.charCodeAt(0));
        data.items.add(new File([bytes], 'dropped.png', { type: 'image/png' }));
        for (const kind of ['dragover', 'drop']) {
            stage.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: data }));
        }
    }"""
    hand.cell.locator(".mi2v-stage").evaluate(drop, base64.b64encode(file.getvalue()).decode())
    hand.status("dropped.png: 60 x 90 pixels")
    assert hand.control() == MotionControl((60, 90))
    assert not hand.notebook.errors


def test_after_a_restart_the_page_says_what_to_do(open_notebook):
    hand = Hand(open_notebook)
    hand.press("Drag")
    panels = "[...jupyterapp.shell.widgets('main')]"
    hand.page.evaluate(f"Promise.all({panels}.map(each => each.sessionContext?.restartKernel()))")
    hand.stroke((40, 60), (200, 100))
    hand.cell.locator(".mi2v-hint").filter(has_text="un this cell again").wait_for()


def is_orange(hand: Hand, point) -> bool:
    """Whether the ball is seen at a place: first what the canvas has drawn there, then the photo."""
    script = """([page, x, y]) => {
        const at = (canvas) => canvas.getContext('2d').getImageData(x * canvas.width, y * canvas.height, 1, 1).data;
        const drawn = at(page.querySelector('canvas'));
        if (drawn[3] > 250) return [...drawn];
        const photo = page.querySelector('img');
        const copy = Object.assign(document.createElement('canvas'), { width: 320, height: 240 });
        copy.getContext('2d').drawImage(photo, 0, 0, 320, 240);
        return [...at(copy)].map((value) => value * (1 - drawn[3] / 255));
    }"""
    stage = hand.cell.locator(".mi2v-stage").element_handle()
    x, y = ((value + 0.5) / length for value, length in zip(point, hand.size, strict=True))
    red, _, blue, _ = hand.page.evaluate(script, [stage, x, y])
    return red > 180 and blue < 80


def test_a_thing_is_found_pulled_and_turned_at_once(open_notebook):
    hand = Hand(open_notebook, photo=BALL)
    hint = hand.cell.locator(".mi2v-hint")
    hand.click((100, 120))
    hint.filter(has_text="Now pull the thing").wait_for()
    (thing,) = hand.control().things
    x, y = np.meshgrid(np.arange(320), np.arange(240))
    ball = np.hypot(x - 100, y - 120) < 30
    assert (thing.mask != ball).mean() < 0.005 and not thing.drags
    hand.page.wait_for_timeout(300)

    assert is_orange(hand, (118, 120)) and not is_orange(hand, (200, 100))
    hand.page.mouse.move(*hand.at((110, 125)))
    hand.page.mouse.down()
    hand.page.mouse.move(*hand.at((210, 105)), steps=8)
    hand.page.wait_for_timeout(200)
    assert is_orange(hand, (218, 100)) and not is_orange(hand, (82, 120)), (
        "it moves under the hand, before it is let go"
    )
    hand.page.mouse.up()
    (thing,) = hand.control().things
    start, end = np.array(thing.drags[0].points)[[0, -1]]
    assert len(thing.drags) == 1 and np.allclose(end - start, (100, -20), atol=0.6)

    # The handle above it, pulled to its right: a quarter of a turn.
    scale = 320 / hand.canvas.bounding_box()["width"]
    reach = start[1] - thing.mask.nonzero()[0].min() + 28 * scale
    hand.stroke((end[0], end[1] - reach), (end[0] + 0.7 * reach, end[1] - 0.7 * reach), (end[0] + reach, end[1]))
    (turned,) = hand.control().things
    motion = turned.motion(15)[-1, :, :2] + np.eye(2)
    assert len(turned.drags) == 2 and np.allclose(motion, [[0, -1], [1, 0]], atol=0.08)
    hand.canvas.focus()
    for key in ("[", "[", "+"):  # by 5 degrees each; 5 % larger
        hand.page.keyboard.press(key)
    motion = hand.control().things[0].motion(15)[-1, :, :2] + np.eye(2)
    assert np.allclose(np.linalg.det(motion), 1.05**2, atol=0.1)
    assert abs(np.degrees(np.arctan2(motion[1, 0], motion[0, 0])) - 80) < 5

    hand.press("Undo", "Undo", "Undo")  # keys of one kind are one step
    assert not hand.control().things[0].drags
    hand.press("Delete")
    hand.stroke((100, 120), (60, 60))  # before its outline is known
    hint.filter(has_text="Render clip makes the clip").wait_for()
    (thing,) = hand.control().things
    assert np.allclose(np.diff(np.array(thing.drags[0].points)[[0, -1]], axis=0), (-40, -60), atol=0.6)
    hand.press("Anchor background")
    ground, _ = hand.control().things
    assert not ground.drags and np.array_equal(ground.mask, ~thing.mask)
    hand.press("Render clip")
    assert "0.0 px of the photo from what you drew" in hand.status("The clip took")
    assert not hand.notebook.errors


def test_an_outline_is_mended_and_the_photo_keeps_its_place(open_notebook):
    hand = Hand(open_notebook, photo=TWO_BALLS)
    hint = hand.cell.locator(".mi2v-hint")
    top = hand.cell.locator(".mi2v-canvas-widget")

    def below_the_top():  # the window may scroll
        return hand.canvas.bounding_box()["y"] - top.bounding_box()["y"]

    place = below_the_top()
    hand.press("Box")  # nothing is drawn yet
    hint.filter(has_text="Draw a box around the whole thing").wait_for()
    hand.stroke((66, 86), (134, 154))
    hint.filter(has_text="Now pull the thing").wait_for()
    (boxed,) = hand.control().things
    assert boxed.mask[120, 100] and not boxed.mask[120, 220] and not boxed.drags
    hand.press("Add")
    hand.stroke((215, 110), (225, 130))  # a line over the other ball
    (both,) = hand.control().things
    assert both.mask[120, 220] and both.mask[120, 100]
    hand.press("Take away")
    hand.stroke((215, 110), (225, 130))
    assert not hand.control().things[0].mask[120, 220]

    hand.press("Add")
    hand.stroke((105, 125), (185, 65))  # a pull of the thing, as always
    (thing,) = hand.control().things
    start, end = np.array(thing.drags[0].points)[[0, -1]]
    assert np.allclose(end - start, (80, -60), atol=0.6)
    hint.filter(has_text="Render clip makes the clip").wait_for()
    assert is_orange(hand, (195, 65)) and not is_orange(hand, (85, 120))
    hand.press("Take away")
    hand.page.wait_for_timeout(200)
    assert is_orange(hand, (85, 120)) and not is_orange(hand, (195, 65)), "it is mended where it is in the photo"
    hand.press("Take away")
    # On the cut-out, at another place: the mark is for the pixel that is seen there.
    hand.page.keyboard.down("Alt")
    hand.click((195, 60))
    hand.page.keyboard.up("Alt")
    (mended,) = hand.control().things
    assert not mended.mask[120, 115] and len(mended.drags) == 1

    for tool in ("Drag", "Paint", "Select", "Thing"):
        hand.press(tool)
    hand.press("Predict motion")
    hand.status("The motion took")
    hint.filter(has_text="The colours say where each pixel goes").wait_for()
    assert abs(below_the_top() - place) < 0.5, "nothing that comes or goes moves the photo"
    assert not hand.notebook.errors
