"""DragCanvas without a browser: what edits do, undo, what is shown, callbacks, errors that stay seen, files."""

import base64
import io
import threading
from dataclasses import replace
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from PIL import Image

from mi2v_lite.control import Anchor, Drag, MotionControl, Thing, resample
from mi2v_lite.viz import drawing
from mi2v_lite.viz.widgets import DragCanvas
from mi2v_lite.viz.widgets.drag_edits import History, edited, painted, simplified
from mi2v_lite.viz.widgets.thing_edits import led, paced, turn_and_scale

SIZE = (60, 40)
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8))
EMPTY = MotionControl(SIZE)


def predict(image, prompt, control, *, control_scale, generator):
    """A model that obeys by `control_scale`, with noise in its last digits."""
    flow, _ = control.resized(*image.size).field(3)
    return control_scale * flow[None] + 1e-6 * torch.rand(1, generator=generator)


def render(image, motion, prompt, *, generator):
    shade = int(torch.randint(256, (1,), generator=generator))
    return [image.rotate(turn) for turn in (0, 10, 20)] + [Image.new("RGB", image.size, (shade,) * 3)]


@pytest.fixture
def canvas() -> DragCanvas:
    return DragCanvas(PHOTO, predict=predict, render=render, num_frames=4)


def say(canvas: DragCanvas, do: str, **more) -> None:
    """What the browser sends, until all that follows from it is through."""
    canvas._receive(canvas, {"do": do, "view": "v", "number": 7, **more}, [])
    canvas.wait()


# Edits.


@pytest.mark.parametrize("tolerance", [0.5, 2.0])
def test_a_straight_line_keeps_its_ends_alone(tolerance):
    line = [(5, 7), *((5 + t, 7 + t / 2) for t in range(1, 20)), (25.25, 17.13)]
    assert simplified(line, tolerance) == [(5.0, 7.0), (25.2, 17.1)]


def test_a_curve_stays_within_the_tolerance_whatever_the_hands_speed():
    angle = np.linspace(0, np.pi, 400) ** 2 / np.pi  # the hand speeds up
    circle = np.stack([30 + 20 * np.cos(angle), 20 + 20 * np.sin(angle)], axis=1)
    points = simplified(circle.tolist(), 0.5)
    assert 3 <= len(points) <= 10
    path = resample(points, 50)
    assert abs(np.hypot(*(path - (30, 20)).T) - 20).max() < 0.6
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert steps.max() / steps.min() < 1.1, "even speed"


def test_a_line_without_length_is_refused():
    with pytest.raises(ValueError, match="no length"):
        simplified([(5, 5), (5, 5)], 1.0)


def test_paint_covers_exactly_the_pixels_near_the_line():
    brush = painted(EMPTY, [(10, 10), (30, 20), (50, 8)], 9)
    x, y = np.meshgrid(np.arange(60), np.arange(40))
    off = np.full(x.shape, np.inf)
    for t in np.linspace(0, 1, 2000):
        for (ax, ay), (bx, by) in (((10, 10), (30, 20)), ((30, 20), (50, 8))):
            off = np.minimum(off, np.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay)))
    assert (brush[off < 4.499]).all() and not brush[off > 4.501].any()
    disc = painted(EMPTY, [(20, 20)], 10)
    assert disc.sum() == sum(dx * dx + dy * dy <= 25 for dx in range(-5, 6) for dy in range(-5, 6)) == 81


def test_paint_reaches_over_the_edge_and_the_eraser_takes_away():
    control = edited(EMPTY, {"do": "paint", "points": [(0, 0)], "size": 10, "erase": False})
    assert control.brush.sum() == sum(dx * dx + dy * dy <= 25 for dx in range(6) for dy in range(6))
    inverted = edited(control, {"do": "invert"})
    assert np.array_equal(inverted.brush, ~control.brush)
    erased = edited(control, {"do": "paint", "points": [(0, 0)], "size": 12, "erase": True})
    assert erased.brush is None, "nothing left: everything may move"
    for edit in ({"do": "invert"}, {"do": "paint", "points": [(0, 0)], "size": 4, "erase": True}):
        with pytest.raises(ValueError, match="nothing is painted"):
            edited(EMPTY, edit)


def test_moving_keeps_the_shape_and_stops_at_the_edge():
    control = MotionControl(SIZE, [Drag([(50, 10), (40, 30)], 5)], [Anchor((3, 3))])
    moved = edited(control, {"do": "move", "kind": "drag", "index": 0, "by": (100, -4)})
    assert moved.drags == (Drag([(59, 6), (49, 26)], 5),)
    assert edited(control, {"do": "move", "kind": "anchor", "index": 0, "by": (-9, 1)}).anchors[0].point == (0, 4)
    pointed = edited(control, {"do": "point", "kind": "drag", "index": 0, "number": 1, "to": (1, 2)})
    assert pointed.drags == (Drag([(50, 10), (1, 2)], 5),)
    wider = edited(control, {"do": "radius", "kind": "anchor", "index": 0, "radius": 12})
    assert wider.anchors == (Anchor((3, 3), 12),)
    assert edited(control, {"do": "delete", "kind": "drag", "index": 0}) == MotionControl(SIZE, [], [Anchor((3, 3))])
    with pytest.raises(ValueError, match="no drag number 2"):
        edited(control, {"do": "delete", "kind": "drag", "index": 1})


def test_history_goes_back_and_forth_and_forgets_what_was_undone():
    first, second, third = (MotionControl(SIZE, anchors=[Anchor((x, x))]) for x in (1, 2, 3))
    second = edited(second, {"do": "paint", "points": [(9, 9)], "size": 7, "erase": False})
    history = History(first)
    history.push(second)
    assert history.undo() == first and not history.can_undo
    assert history.redo() == second and not history.can_redo
    history.undo()
    history.push(third)
    assert not history.can_redo and history.undo() == first
    for x in (4, 5):
        history.push(MotionControl(SIZE, anchors=[Anchor((x, x))]), key="arrow")
    assert history.undo() == first, "two of one key are one step"


# Things.

BALL = np.hypot(*np.mgrid[-20:20, -30:30]) < 9.5  # around (30, 20)
THING = Thing(BALL)


def last_pose(thing: Thing) -> np.ndarray:
    """(2, 3): where a pixel (x, y, 1) is in the last of 15 frames."""
    return thing.motion(15)[-1] + np.eye(2, 3)


def test_a_thing_follows_the_hand_and_is_taken_further_and_stays_where_it_started():
    control = MotionControl(SIZE, things=[THING])
    carried = edited(control, {"do": "carry", "index": 0, "points": [(33, 22), (38, 25), (43, 28)], "tolerance": 1})
    (drag,) = carried.things[0].drags
    assert drag.points == ((30, 20), (40, 26)), "by its middle, wherever it was taken"
    further = edited(carried, {"do": "move", "kind": "thing", "index": 0, "by": (5, -6)})
    assert further.things[0].drags[0].points == ((30, 20), (45, 20))
    back = edited(further, {"do": "move", "kind": "thing", "index": 0, "by": (-15, 0)})
    assert back.things == (THING,), "taken back to its place it has no drag"
    assert edited(carried, {"do": "delete", "kind": "thing", "index": 0}) == EMPTY


@pytest.mark.parametrize("turn, scale", [(0.5, 1.0), (-4.0, 1.0), (0.0, 1.5), (7.0, 0.5)])
def test_a_turn_is_exact_in_every_frame_and_is_read_back(turn, scale):
    path = [(20, 20), (30, 15), (40, 20)]
    thing = led(THING, path, turn, scale, SIZE, 15)
    motion = thing.motion(15)
    share = np.arange(1, 16) / 15
    factor = scale**share * np.exp(1j * turn * share)
    assert np.allclose(motion[:, 0, 0] + 1 + 1j * motion[:, 1, 0], factor, atol=1e-9)
    assert np.allclose(turn_and_scale(thing), (turn, scale))
    start = np.array([20, 20, 1])
    assert np.allclose(motion @ start + start[:2], resample(path, 16)[1:], atol=1e-9), "the middle stays on its path"
    turned = edited(MotionControl(SIZE, things=[thing]), {"do": "turn", "index": 0, "by": -turn, "times": 1 / scale})
    assert turned.things[0].drags == (Drag(path),), "turned back, it only shifts"


def test_a_thing_turns_in_place_and_keeps_its_turn_on_another_path():
    control = MotionControl(SIZE, things=[THING])
    turned = edited(control, {"do": "turn", "index": 0, "by": np.pi / 2, "times": 1})
    assert np.allclose(last_pose(turned.things[0]) @ (30, 20, 1), (30, 20))
    moved = edited(turned, {"do": "move", "kind": "thing", "index": 0, "by": (8, 3)})
    assert np.allclose(last_pose(moved.things[0])[:, :2], [[0, -1], [1, 0]])
    assert np.allclose(last_pose(moved.things[0]) @ (30, 20, 1), (38, 23))


def test_the_pace_is_in_the_distances_of_the_points():
    path = [(10.0, 20.0), (50.0, 20.0)]
    slow = resample(paced(path, "starts slowly"), 5)[:, 0]
    assert np.allclose(slow, 10 + 40 * (np.arange(5) / 4) ** 2, atol=0.5)
    assert paced(paced(path, "ends slowly"), "even") == path
    control = MotionControl(SIZE, [Drag(path, 5)], things=[replace(THING, drags=[Drag(path)])])
    for kind in ("drag", "thing"):
        drawn = edited(control, {"do": "pace", "kind": kind, "index": 0, "pace": "starts slowly"})
        drag = drawn.drags[0] if kind == "drag" else drawn.things[0].drags[0]
        assert drag.points[-1] == path[-1] and len(drag.points) > 2


def test_things_lie_in_an_order_that_can_be_undone():
    near, far = Thing(np.roll(BALL, 9, 1)), THING
    control = MotionControl(SIZE, things=[far, near])
    swapped = edited(control, {"do": "layer", "index": 0, "to": 1})
    assert swapped.things == (near, far)
    history = History(control)
    history.push(swapped)
    assert history.undo() == control and history.redo() == swapped


@pytest.fixture
def ball() -> DragCanvas:
    pixels = np.full((40, 60, 3), (30, 60, 90), np.uint8)
    pixels[BALL] = (230, 120, 40)
    pixels[30:, :8] = (230, 120, 40)
    return DragCanvas(Image.fromarray(pixels), predict=predict, render=render, num_frames=4)


def test_a_click_finds_a_thing_and_more_clicks_mend_it(ball):
    say(ball, "thing", points=[[30, 20]])
    assert (ball.things[0].mask != BALL).mean() < 0.02 and len(ball._masks) == 1
    with Image.open(io.BytesIO(ball._masks[0])) as mask:
        left, top, right, bottom = ball._scene["things"][0]["box"]
        assert np.array_equal(np.asarray(mask)[..., 1] > 127, ball.things[0].mask[top:bottom, left:right])
    alone = ball.things[0].mask
    say(ball, "thing", points=[[3, 36]], index=0)
    assert ball.things[0].mask[36, 3] and ball.things[0].mask[20, 30], "both"
    say(ball, "thing", not_points=[[3, 36]], points=[], index=0)
    assert not ball.things[0].mask[36, 3]
    marks = {"points": [[30, 20], [3, 36]], "not_points": [[3, 36]], "scribbles": [], "not_scribbles": []}
    assert ball._scene["things"][0]["marks"] == marks, "the page shows them"
    say(ball, "thing", not_scribbles=[[[25, 20], [30, 20], [35, 20]]], index=0)
    assert not ball.things[0].mask[20, 25:36].any()
    for _ in range(3):
        say(ball, "undo")
    assert np.array_equal(ball.things[0].mask, alone)
    say(ball, "thing", box=[18, 8, 42, 32])
    assert len(ball.things) == 2 and (ball.things[1].mask != BALL).mean() < 0.02
    assert repr(ball) == "DragCanvas: A photo of 60x40 pixels with 2 things."
    say(ball, "thing", points=[[3, 36]], index=1)
    assert ball.things[1].mask[36, 3] and ball.things[1].mask[20, 30], "what the box has found stays"
    ball.things = [BALL]  # of which no click is known
    say(ball, "thing", points=[[3, 36]], index=0)
    assert ball.things[0].mask[36, 3] and ball.things[0].mask[20, 30]


def test_adding_loses_nothing_and_taking_away_gains_nothing(ball, monkeypatch):
    """GrabCut may find something else altogether with one click more."""
    left, right = (np.arange(60) < 30) & BALL, (np.arange(60) >= 25) & BALL
    answers = iter([left, right, left, right])
    monkeypatch.setattr("mi2v_lite.viz.widgets.drag_canvas.select_thing", lambda *_, **marks: next(answers))
    say(ball, "thing", points=[[25, 20]])
    say(ball, "thing", points=[[35, 20]], index=0)
    assert np.array_equal(ball.things[0].mask, BALL)
    say(ball, "thing", not_points=[[35, 20]], index=0)
    assert np.array_equal(ball.things[0].mask, left) and ball._scene["things"][0]["marks"]["not_points"] == [[35, 20]]
    say(ball, "thing", box=[18, 8, 42, 32], index=0)
    assert np.array_equal(ball.things[0].mask, right), "a box starts anew"


def test_things_are_predicted_measured_saved_and_shown(ball, tmp_path):
    plain = ball.still().image
    ball.things = [BALL]
    say(ball, "carry", index=0, points=[[30, 20], [42, 20]], tolerance=1)
    say(ball, "predict")
    assert "The motion is 0.0 px of the photo from what you drew" in ball._report["text"]
    say(ball, "save", path=str(tmp_path / "control.json"))
    assert MotionControl.load(tmp_path / "control.json") == ball.control
    shown = np.asarray(ball.still().image, int)
    assert shown.shape[:2] == (256, 384)
    right = shown[128, int(6.4 * 49)]  # there was nothing before
    assert np.abs(right - (230, 120, 40)).max() < 30 and plain.getpixel((int(6.4 * 49), 128))[0] < 60


def test_the_background_is_held_but_never_what_is_dragged():
    pixels = np.full((120, 160, 3), (30, 60, 90), np.uint8)
    pixels[45:75, 20:110] = (230, 120, 40)  # longer than what anchor_background leaves free around a drag
    canvas = DragCanvas(Image.fromarray(pixels), predict=predict)
    canvas.drags = [[(65, 60), (65, 90)]]
    say(canvas, "background", hold=True)
    (ground,) = canvas.things
    assert drawing.is_ground(ground) and not ground.mask[45:75, 20:110].any() and ground.mask.mean() > 0.5
    assert repr(canvas).endswith("with 1 drag and a background that stays.")
    say(canvas, "thing", points=[[80, 60]])
    assert len(canvas.things) == 2 and drawing.is_ground(canvas.things[0])
    say(canvas, "background", hold=False)
    assert len(canvas.things) == 1 and not drawing.is_ground(canvas.things[0])


# The widget.


def test_the_hand_draws_what_code_reads(canvas):
    say(canvas, "stroke", points=[[5, 5], [15, 5], [25, 5]], tolerance=1, radius=None)
    say(canvas, "drag", points=[[5, 30], [9, 30], [9, 20]], radius=6)
    say(canvas, "anchor", point=[50, 10], radius=None)
    say(canvas, "paint", points=[[20, 20]], size=30, erase=False)
    expected = MotionControl(
        SIZE, [Drag([(5, 5), (25, 5)]), Drag([(5, 30), (9, 30), (9, 20)], 6)], [Anchor((50, 10))], canvas.brush
    )
    assert canvas.control == expected and canvas.brush.sum() == painted(EMPTY, [(20, 20)], 30).sum()
    assert canvas._scene["ack"] == ["v", 7]
    for _ in range(4):
        canvas.undo()
    assert canvas.control == EMPTY and not canvas._scene["undo"] and canvas._scene["redo"]
    for _ in range(4):
        say(canvas, "redo")
    assert canvas.control == expected


def test_without_a_motion_there_is_no_background(canvas):
    say(canvas, "background", hold=True)
    assert "there is no drag" in canvas._report["text"] and canvas.control == EMPTY


def test_a_trial_is_shown_but_not_kept(canvas):
    before = canvas._overlay
    say(canvas, "stroke", points=[[5, 5], [25, 5]], tolerance=1, radius=None, trial=True)
    assert canvas.control == EMPTY and len(canvas._scene["drags"]) == 1 and canvas._overlay != before
    say(canvas, "look")
    assert canvas._scene["drags"] == [] and canvas._overlay == before and not canvas._scene["undo"]


def test_code_draws_what_the_browser_shows(canvas):
    heard = []
    canvas.observe(lambda change: heard.append(change["new"]), "control")
    canvas.drags = [[(5, 5), (25, 5)], Drag([(30, 30), (20, 30)], 5)]
    canvas.anchors = [(50, 10), Anchor((50, 30), 4)]
    canvas.brush = np.tri(40, 60, 10, dtype=bool)
    assert heard[-1] == canvas.control == MotionControl(SIZE, canvas.drags, canvas.anchors, canvas.brush)
    assert canvas._scene["painted"] == canvas.brush.sum()
    path = np.array(canvas._scene["drags"][0]["path"])
    assert np.allclose(path, resample([(5, 5), (25, 5)], 4), atol=0.01)
    assert [drag["held"] for drag in canvas._scene["drags"]] == [not canvas.brush[5, 5], not canvas.brush[30, 30]]
    canvas.undo()
    assert canvas.brush is None and len(canvas.anchors) == 2
    with pytest.raises(ValueError, match=r"drawn on 10x10 pixels, but the photo has 60x40"):
        canvas.control = MotionControl((10, 10))


def test_the_overlay_is_the_field_that_is_asked_for():
    control = MotionControl(SIZE, [Drag([(15, 15), (30, 15)], 5)], [Anchor((45, 15), 5)])
    shown = np.array(drawing.overlay(control))
    flow, mask = control.field()
    moves = flow[-1].norm(dim=0).numpy() > 0
    said = mask[-1, 0].numpy() > 0
    assert np.array_equal(shown[..., 3] > 0, said) and said.sum() == 200
    assert np.array_equal(shown[..., 3] == drawing.MOVES, moves)
    brush = np.zeros((40, 60), bool)
    brush[:, :20] = True
    shown = np.array(drawing.overlay(MotionControl(SIZE, control.drags, brush=brush)))
    assert (shown[:, 20:] == (*drawing.STILL_COLOUR, drawing.STAYS)).all() and (shown[0, :20, 3] == 0).all()


def test_predict_and_render_are_shown_and_kept(canvas):
    canvas.drags = [Drag([(15, 15), (30, 15)], 5)]
    canvas.control_scale = 0.5
    say(canvas, "render")
    assert canvas.error is None and canvas._report["kind"] == "done"
    # Half of a drag of 15 px: off by 2.5, 5 and 7.5 px in the three frames, 5 px on average.
    assert "5.0 px of the photo from what you drew" in canvas._report["text"]
    assert canvas.motion.shape == (1, 3, 2, 40, 60) and len(canvas.clip) == 4
    with av.open(io.BytesIO(canvas._clip)) as clip:
        assert len(list(clip.decode(video=0))) == 4
    with Image.open(io.BytesIO(canvas._field["strip"])) as strip:
        assert strip.size == (60, 3 * 40) and strip.mode == "RGBA"
        alpha = np.asarray(strip)[..., 3].reshape(3, 40, 60)
    assert (alpha[:, 12:18, 12:18] == 255).all() and (alpha[:, :8] == 0).all(), "only what moves is coloured"
    assert canvas._field["longest"] == 7.5
    assert not canvas._scene["stale"]
    canvas.seed = 3
    assert canvas._scene["stale"], "the field is of another seed"
    canvas.motion = np.zeros((3, 2, 40, 60), np.float32)
    canvas.render()
    assert not canvas.motion.any(), "a motion that was set is rendered as it is"
    say(canvas, "settings", prompt="up", seed=4, control_scale=2.0, num_inference_steps=5, full_size=True)
    assert (canvas.prompt, canvas.seed, canvas.control_scale) == ("up", 4, 2.0)
    assert (canvas.num_inference_steps, canvas.guidance_scale, canvas.full_size) == (5, None, True)


def test_one_seed_draws_both_stages_as_one_call_would(canvas):
    canvas.drags, canvas.seed = [[(5, 5), (25, 5)]], 11
    shade = canvas.render()[-1].getpixel((0, 0))[0]
    generator = torch.Generator().manual_seed(11)
    torch.rand(1, generator=generator)  # predict's
    assert shade == int(torch.randint(256, (1,), generator=generator))
    assert canvas.render()[-1].getpixel((0, 0))[0] == shade


def test_errors_are_seen(canvas):
    say(canvas, "predict")
    assert canvas._report["kind"] == "error" and "nothing says what shall move" in canvas._report["text"]
    assert isinstance(canvas.error, ValueError)

    def broken(*inputs, **options):
        return {}["weights"]

    control = MotionControl(SIZE, [Drag([(1, 1), (9, 1)])], [Anchor((1, 1))])
    canvas = DragCanvas(PHOTO, predict=broken, control=control)
    say(canvas, "predict")
    assert canvas._report["text"] == "KeyError: 'weights'" and "in broken" in canvas._report["details"]
    with pytest.raises(KeyError):
        canvas.predict()
    with pytest.raises(ValueError, match="expected a flow"):
        DragCanvas(PHOTO, predict=lambda *inputs, **options: "no flow", control=control).predict()
    with pytest.raises(ValueError, match="nothing to render with"):
        DragCanvas(PHOTO, predict=predict, control=control, num_frames=4).render()
    say(canvas, "load", path="no_such.json")
    assert "no_such.json" in canvas._report["text"]
    say(canvas, "anchor", point=[70, 1], radius=None)
    assert "outside the 60x40 image" in canvas._report["text"] and len(canvas.anchors) == 1


def test_a_warning_of_the_model_is_seen(canvas):
    import warnings

    def warn(image, prompt, control, **options):
        warnings.warn("falls between the cells", stacklevel=1)
        return np.zeros((3, 2, 40, 60))

    canvas = DragCanvas(PHOTO, predict=warn, prompt="up")
    canvas.predict()
    assert "Warning: falls between the cells" in canvas._report["text"]


def test_files_and_the_command_line(canvas, tmp_path):
    canvas.drags, canvas.anchors, canvas.brush = [[(5, 5), (25, 5)]], [(50, 10)], np.tri(40, 60, 3, dtype=bool)
    path = tmp_path / "control.json"
    say(canvas, "save", path=str(path))
    assert MotionControl.load(path) == canvas.control
    canvas.prompt, canvas.seed = "it's up", 5
    command = f"mi2v animate PHOTO --control {path} --prompt 'it'\"'\"'s up' --seed 5 --frames 4 -o clip.mp4"
    assert canvas.command(path) == command and "--control" in canvas._report["details"]
    for name, complaint in (("", "has no name"), (str(tmp_path / "no_such" / "a.json"), "there is no folder")):
        say(canvas, "save", path=name)
        assert complaint in canvas._report["text"] and ".part" not in canvas._report["text"]
    drawn = canvas.control
    say(canvas, "clear")
    assert canvas.control == EMPTY
    say(canvas, "load", path=str(path))
    assert canvas.control == drawn
    canvas.undo()
    assert canvas.control == EMPTY, "loading can be undone"


def test_the_still_remains_without_a_kernel(canvas):
    plain = canvas.still()
    canvas.drags, canvas.anchors = [[(5, 5), (45, 30)]], [(50, 10)]
    data, metadata = canvas._repr_mimebundle_()
    assert data["text/plain"] == metadata["image/png"]["alt"] == "A photo of 60x40 pixels with 1 drag and 1 anchor."
    with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as image:
        assert image.size == plain.image.size == (384, 256)
        assert np.abs(np.asarray(image.convert("RGB"), int) - np.asarray(plain.image, int)).max() > 100
    assert "application/vnd.jupyter.widget-view+json" in data


def test_a_large_photo_goes_to_the_browser_small_and_keeps_its_coordinates():
    photo = Image.new("RGB", (4000, 3000), "grey")
    canvas = DragCanvas(photo, predict=predict, size=128, num_frames=4)
    say(canvas, "drag", points=[[3900.25, 2900.5], [100, 50]], radius=None)
    say(canvas, "paint", points=[[2000, 1500], [3900, 2900]], size=375, erase=False)
    assert canvas.drags[0].points == ((3900.25, 2900.5), (100, 50)) and canvas.brush.shape == (3000, 4000)
    assert canvas._scene["painted"] == canvas.brush.sum() > 375 * 2000
    for picture, most in ((canvas._photo, 300_000), (canvas._overlay, 300_000)):
        assert len(picture) < most
        with Image.open(io.BytesIO(picture)) as image:
            assert image.size == (1024, 768)
    assert canvas.image.size == (171, 128)
    canvas.predict()
    canvas.undo()
    assert canvas.brush is None


class Pipeline:
    """What DragCanvas needs of a pipeline that carries detail; it samples in five steps."""

    config = SimpleNamespace(detail="carry")

    def __init__(self):
        self.asked = []
        self.step_done = threading.Event()  # set when a step is through
        self.go_on = threading.Event()
        self.go_on.set()

    def predict_motion(self, image, prompt, control, num_frames, callback_on_step_end, **options):
        self.asked.append({"num_frames": num_frames, **options})
        for step in range(5):
            callback_on_step_end(self, step, None, {})
            self.step_done.set()
            assert self.go_on.wait(30)
        return torch.zeros(num_frames - 1, 2, 32, 48)

    def render(self, image, motion, prompt, output_type, **options):
        self.asked.append({"size": image.size, **options})
        return SimpleNamespace(frames=[iter([np.asarray(image)] * 6)])


def test_the_sampling_of_a_pipeline_can_be_set_and_its_clip_is_as_large_as_asked():
    pipeline = Pipeline()
    canvas = DragCanvas(PHOTO.resize((96, 64)), pipeline, size=32, prompt="up")
    assert canvas.image.size == (48, 32) and canvas._settings["larger"] == "96 x 64"
    say(canvas, "settings", num_frames=9, num_inference_steps=5, guidance_scale=2.5, full_size=True)
    say(canvas, "render")
    motion, clip = pipeline.asked
    assert (motion["num_frames"], motion["num_inference_steps"], motion["guidance_scale"]) == (9, 5, 2.5)
    assert clip["size"] == (96, 64) and len(canvas.clip.frames[0]) == 6
    assert "--frames 9 --steps 5 --guidance 2.5 --size 32" in canvas.command()


def test_work_can_be_cancelled_and_the_page_can_go_on_meanwhile():
    pipeline = Pipeline()
    canvas = DragCanvas(PHOTO, pipeline, prompt="up")
    canvas.predict()
    before = canvas.motion
    pipeline.step_done.clear()
    pipeline.go_on.clear()
    canvas._receive(canvas, {"do": "predict", "view": "v", "number": 1}, [])
    assert pipeline.step_done.wait(30)
    assert canvas._report["kind"] == "busy" and "step 1" in canvas._report["text"]
    canvas._receive(canvas, {"do": "anchor", "point": [5, 5], "radius": None, "view": "v", "number": 2}, [])
    assert len(canvas.anchors) == 1 and canvas._report["kind"] == "busy"
    canvas._receive(canvas, {"do": "predict", "view": "v", "number": 3}, [])
    assert "still being made" in str(canvas.error)
    canvas._receive(canvas, {"do": "cancel", "view": "v", "number": 4}, [])
    pipeline.go_on.set()
    canvas.wait()
    assert "Cancelled" in canvas._report["text"] and canvas.motion is before


def test_another_photo_takes_the_place_of_the_first(canvas, tmp_path):
    canvas.drags = [[(5, 5), (25, 5)]]
    canvas.render()
    file = io.BytesIO()
    PHOTO.resize((30, 50)).save(file, "PNG")
    canvas._receive(canvas, {"do": "photo", "name": "mine.png", "view": "v", "number": 1}, [file.getvalue()])
    assert canvas._size == [30, 50] == list(canvas.photo.size) and canvas.control == MotionControl((30, 50))
    assert canvas.clip is None and canvas._clip == b"" and not canvas._scene["undo"] and not canvas._scene["stale"]
    assert "animate mine.png" in canvas.command()
    canvas._receive(canvas, {"do": "photo", "name": "notes.txt", "view": "v", "number": 2}, [b"words"])
    assert "notes.txt cannot be read as a picture" in canvas._report["text"] and canvas.photo.size == (30, 50)
    PHOTO.save(tmp_path / "third.png")
    canvas.photo = tmp_path / "third.png"
    assert canvas.control == EMPTY


def test_a_pipeline_sees_the_photo_at_its_own_size():
    class Small:
        def predict_motion(self, image, prompt, control, num_frames, **options):
            return torch.zeros(num_frames - 1, 2, image.height, image.width)

        def render(self, image, motion, prompt, **options):
            return [image] * 4

    from mi2v_lite.models.autoencoder import make_vae

    Small.vae = make_vae({"block_out_channels": [4, 4, 4], "norm_num_groups": 2, "sample_size": 20})
    canvas = DragCanvas(PHOTO, Small(), num_frames=4, prompt="up")
    assert canvas.image.size == (32, 20)
    assert canvas.render() and canvas.motion.shape == (3, 2, 20, 32)
