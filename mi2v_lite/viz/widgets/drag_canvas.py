"""Take hold of things and show where they go: drags, anchors and a brush on a photo, in a notebook (notebook 04).

    canvas = DragCanvas("photo.jpg", pipeline=pipe, prompt="the balloon floats up")
    canvas                                   # draw with mouse, pen, finger or keys; predict; render
    canvas.control                           # the MotionControl that pipelines and `mi2v animate --control` take
    canvas.drags = [[(40, 60), (90, 40)]]    # the same from code
    canvas.save("control.json")

`canvas.control`, in the kernel, is all there is. The page (static/drag_*.js) shows it and sends what a person does;
drag_edits.py and thing_edits.py make the next control of that, viz/drawing.py paints it, and drag_runner.py makes
motion and clip. The page itself moves the cut-out of a thing under the hand, and plays the preview.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from PIL import Image

from mi2v_lite.control import Anchor, Drag, MotionControl, Point, Thing, select_thing
from mi2v_lite.control.select import innermost
from mi2v_lite.data.prompts import advice
from mi2v_lite.io import images
from mi2v_lite.viz import drawing
from mi2v_lite.viz.pictures import Picture, to_image
from mi2v_lite.viz.widgets.drag_edits import History, edited
from mi2v_lite.viz.widgets.drag_runner import Cancelled, Request, Runner, flow_of
from mi2v_lite.viz.widgets.files import uploaded_picture

STATIC = Path(__file__).parent / "static"
MARKS = ("points", "not_points", "scribbles", "not_scribbles")  # on a thing and beside it; a box may come with them
SCRIPTS = ("page", "drag_controls", "drag_link", "drag_picture", "drag_things", "drag_scene", "drag_canvas")
SETTINGS = (
    "prompt",
    "seed",
    "control_scale",
    "num_frames",
    "num_inference_steps",
    "guidance_scale",
    "full_size",
)


class DragCanvas(anywidget.AnyWidget):
    """A photo to draw motion on.

    Args:
        photo: path, PIL image or uint8 array `(H, W, 3)`. All coordinates are its pixels, upright, (x right, y down).
        pipeline: anything with `predict_motion` and `render`, such as `MotionI2VPipeline`.
        predict: instead of the pipeline, a function `(image, prompt, control, *, control_scale, generator) -> motion`.
            The motion is a flow `(N, 2, H, W)` or `(1, N, 2, H, W)` in pixels, or an object with such a `flow`; the
            control is None where nothing is drawn.
        render: instead of the pipeline, a function `(image, motion, prompt, *, generator) -> clip`. The clip is a
            sequence of pictures, or an object with such `frames`.
        prompt: the first value of the prompt's field.
        seed: the first value of the seed's field.
        control_scale: the first value of the scale's field: how strongly the control counts.
        size: the short side in pixels at which the functions see the photo. By default it is the pipeline's own, or the
            photo's. A pipeline that carries detail sees the photo as it is, bounded by `size`, 512 by default.
        num_frames: the number of frames that the networks make, with the photo.
        control: what is drawn at first.

    Attributes:
        control: the `MotionControl`; may be set and observed, and so may the following.
        prompt: what happens.
        seed: of all randomness.
        control_scale: how strongly the control counts.
        num_frames: the number of frames that the networks make, with the photo.
        num_inference_steps: the steps of each stage of the pipeline; None for its own number.
        guidance_scale: the guidance of the pipeline by the prompt; None for its own.
        full_size: whether a pipeline that carries detail renders the clip as large as the photo.
        error: the last exception of a button or an edit; None after a success.

    Raises:
        ValueError: for a photo that cannot be read, or for a control of another size.
    """

    _esm = "\n".join((STATIC / f"{name}.js").read_text("utf-8") for name in SCRIPTS)
    _css = (STATIC / "drag_canvas.css").read_text("utf-8")

    _size = traitlets.List().tag(sync=True)
    _photo = traitlets.Bytes().tag(sync=True)
    _overlay = traitlets.Bytes().tag(sync=True)
    _masks = traitlets.List(trait=traitlets.Bytes()).tag(sync=True)  # of the things of the scene
    _scene = traitlets.Dict().tag(sync=True)
    _settings = traitlets.Dict().tag(sync=True)
    _report = traitlets.Dict().tag(sync=True)  # kind ("", busy, done, error), text, details
    _field = traitlets.Dict().tag(sync=True)  # see Runner.field
    _clip = traitlets.Bytes().tag(sync=True)  # MP4

    control = traitlets.Instance(MotionControl)
    prompt = traitlets.Unicode()
    seed = traitlets.Int(min=0)
    control_scale = traitlets.Float(min=0)
    num_frames = traitlets.Int(16, min=2)
    num_inference_steps = traitlets.Int(None, min=1, allow_none=True)
    guidance_scale = traitlets.Float(None, min=0, allow_none=True)
    full_size = traitlets.Bool(False)

    def __init__(
        self,
        photo: str | os.PathLike | Image.Image | np.ndarray,
        pipeline: Any = None,
        *,
        predict: Callable[..., Any] | None = None,
        render: Callable[..., Any] | None = None,
        prompt: str = "",
        seed: int = 0,
        control_scale: float = 1.0,
        size: int | None = None,
        num_frames: int = 16,
        control: MotionControl | None = None,
    ) -> None:
        self._path = Path(photo) if isinstance(photo, str | os.PathLike) else None
        photo = to_image(photo) if self._path is None else images.read_image(self._path)
        self.error: BaseException | None = None
        self._runner = Runner(photo, pipeline, predict, render, size)
        control = MotionControl(photo.size) if control is None else control
        self._history = History(control)
        self._clicks: dict[bytes, dict[str, Any]] = {}  # by which a mask was found, so that more can mend it
        self._shown_masks: dict[bytes, bytes] = {}  # PNGs
        self._ack: list[Any] = []  # the browser's last message that was dealt with
        self._quiet = True  # while values change that are no step of the history and are shown later
        # JupyterLab delivers messages in another thread than cells, and the work has its own so that it can be stopped.
        self._lock = threading.RLock()
        self._worker: threading.Thread | None = None
        self._stop = threading.Event()
        super().__init__(control=control, prompt=prompt, seed=seed, control_scale=control_scale, num_frames=num_frames)
        self._size, self._photo = list(photo.size), drawing.jpeg(photo)
        self.on_msg(self._receive)
        self._quiet = False
        self._settings_changed()

    def __repr__(self) -> str:
        return f"DragCanvas: {drawing.in_words(self.control)}"

    @property
    def photo(self) -> Image.Image:
        """The photo; may be set to another, which takes away all that is drawn."""
        return self._runner.photo

    @photo.setter
    def photo(self, photo: str | os.PathLike | Image.Image | np.ndarray) -> None:
        path = Path(photo) if isinstance(photo, str | os.PathLike) else None
        self._take(to_image(photo) if path is None else images.read_image(path), path)

    def _take(self, photo: Image.Image, path: Path | None) -> None:
        with self._lock, self.hold_sync():
            self._path = path
            self._runner.take(photo)
            self._size, self._photo = list(photo.size), drawing.jpeg(photo)
            self._field, self._clip = {}, b""
            control = MotionControl(photo.size)
            self._history = History(control)
            self._clicks.clear()
            self._set(control)
            self._settings_changed()

    # What is drawn.

    @property
    def things(self) -> tuple[Thing, ...]:
        """The things, the farthest first; may be set to a sequence of `Thing`, or of masks."""
        return self.control.things

    @things.setter
    def things(self, things: Sequence[Thing | np.ndarray]) -> None:
        things = [thing if isinstance(thing, Thing) else Thing(thing) for thing in things]
        self.control = replace(self.control, things=things)

    @property
    def drags(self) -> tuple[Drag, ...]:
        """The drags; may be set to a sequence of `Drag`, or of lists of points."""
        return self.control.drags

    @drags.setter
    def drags(self, drags: Sequence[Drag | Sequence[Point]]) -> None:
        drags = [drag if isinstance(drag, Drag) else Drag(drag) for drag in drags]
        self.control = replace(self.control, drags=drags)

    @property
    def anchors(self) -> tuple[Anchor, ...]:
        """The anchors; may be set to a sequence of `Anchor`, or of points."""
        return self.control.anchors

    @anchors.setter
    def anchors(self, anchors: Sequence[Anchor | Point]) -> None:
        anchors = [anchor if isinstance(anchor, Anchor) else Anchor(anchor) for anchor in anchors]
        self.control = replace(self.control, anchors=anchors)

    @property
    def brush(self) -> np.ndarray | None:
        """Where motion is allowed, bool `(height, width)`, or None for everywhere; may be set."""
        return self.control.brush

    @brush.setter
    def brush(self, brush: np.ndarray | None) -> None:
        self.control = replace(self.control, brush=brush)

    def undo(self) -> None:
        """Takes back the last step, whether a hand or code made it."""
        self._set(self._history.undo())

    def redo(self) -> None:
        """Makes the step again that was taken back last."""
        self._set(self._history.redo())

    def save(self, path: str | os.PathLike) -> None:
        """Writes the control as JSON, for `load`, `MotionControl.load` and `mi2v animate --control`.

        Args:
            path: the file.
        """
        self.control.save(path)

    def load(self, path: str | os.PathLike) -> None:
        """Takes the control of a file, as one step of the history.

        Args:
            path: what `save` wrote.

        Raises:
            ValueError: if the file is damaged, or the control belongs to a photo of another size.
            OSError: if the file cannot be read.
        """
        control = MotionControl.load(path)
        self._set(control, show=False)
        self._history.push(control)
        self._show()

    # What it becomes.

    @property
    def image(self) -> Image.Image:
        """The photo as `predict` and `render` see it."""
        return self._runner.image

    @property
    def motion(self) -> Any:
        """The predicted motion, or None. A motion that you set is rendered as long as nothing else changes."""
        return self._runner.motion

    @motion.setter
    def motion(self, motion: Any) -> None:
        flow_of(motion)
        self._runner.motion, self._runner.made_for = motion, self._request
        self._field = self._runner.field()
        self._show()

    @property
    def clip(self) -> Any:
        """The rendered clip, or None."""
        return self._runner.clip

    def predict(self) -> Any:
        """Runs Stage 1 on what is drawn, and shows the motion.

        Returns:
            the motion, which is also in `motion`.

        Raises:
            ValueError: if there is nothing to predict with, or if nothing says what shall move.
        """
        with self._working("motion") as report:
            self._predict(self._request, report)
        self._show()
        return self.motion

    def _predict(self, request: Request, report: list[str]) -> None:
        self._runner.predict(request, self._watch("motion"))
        self._field = self._runner.field()
        if self._runner.carries_detail and (unknown := advice(request.prompt)):
            report.append(unknown)
        miss = drawing.missed(request.control, flow_of(self.motion))
        if miss is not None:
            report.append(f"The motion is {miss:.1f} px of the photo from what you drew, on average.")

    def render(self) -> Any:
        """Runs Stage 2 and shows the clip; Stage 1 runs first if something has changed since its last run.

        Returns:
            the clip, which is also in `clip`.

        Raises:
            ValueError: if there is nothing to render with.
        """
        with self._working("clip") as report:
            request = self._request
            if self._runner.made_for != request:
                self._predict(request, report)
            self._runner.render(request, self.full_size, self._watch("clip"))
            self._clip = self._runner.video()
        self._show()
        return self.clip

    def cancel(self) -> None:
        """Stops what a button of the page has started, at the next step of the pipeline."""
        self._stop.set()

    def wait(self) -> None:
        """Waits until what a button of the page has started is through."""
        if self._worker is not None:
            self._worker.join()

    def command(self, control: str = "control.json") -> str:
        """Returns the command line that makes the same clip with the lite weights.

        Args:
            control: the file that holds the control.
        """
        return self._runner.command(self._path, self._request, str(control))

    # What the page shows, and what it asks for.

    def still(self) -> Picture:
        """Returns the photo with everything that is drawn, as a picture to show or save."""
        return drawing.still(self.photo, self.control, self.num_frames - 1)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        """The widget, and a still of what is drawn now for pages without a kernel."""
        return self.still().added_to(super()._repr_mimebundle_(**kwargs))

    @traitlets.validate("control")
    def _check_control(self, proposal: Mapping[str, Any]) -> MotionControl:
        control = proposal["value"]
        if control.size != self.photo.size:
            (width, height), (own_width, own_height) = control.size, self.photo.size
            raise ValueError(
                f"the control was drawn on {width}x{height} pixels, but the photo has {own_width}x{own_height}; take "
                f"that photo, or control.resized({own_width}, {own_height})."
            )
        return control

    @traitlets.observe("control")
    def _control_changed(self, change: Mapping[str, Any]) -> None:
        if not self._quiet:
            self._history.push(change["new"])
            self._show()

    def _receive(self, _widget: Any, message: Mapping[str, Any], buffers: Sequence[Any]) -> None:
        """Deals with one message of the page, and shows there what fails, since nobody reads the log of a kernel."""
        with self._lock:
            self._ack = [message.get("view"), message.get("number")]
            trial = None
            try:
                trial = self._act(message, buffers)
            except (Exception, KeyboardInterrupt) as error:
                self._tell(error)
            finally:
                self._show(trial)

    def _act(self, message: Mapping[str, Any], buffers: Sequence[Any]) -> MotionControl | None:
        """Does what a message says. Returns what to show instead of the control while an edit is under way."""
        match message["do"]:
            case "look":
                return None
            case "undo" | "redo" as name:
                getattr(self, name)()
            case "predict" | "render" as name:
                self._start(getattr(self, name))
            case "cancel":
                self.cancel()
            case "settings":
                for name in SETTINGS:
                    if name in message:
                        self.set_trait(name, message[name])
            case "photo":
                name = Path(message["name"]).name
                photo = uploaded_picture(name, buffers[0])
                self._take(photo, Path(name))
                self._say("done", f"{name}: {photo.width} x {photo.height} pixels.")
            case "save":
                path = _named(message["path"])
                self.save(path)
                self._say("done", f"Saved in {path}. The same from a terminal:", self.command(str(path)))
            case "load":
                path = _named(message["path"])
                self.load(path)
                self._say("done", f"Loaded from {path}.")
            case name:
                control = self._edited(message)
                if message.get("trial"):
                    return control
                # Arrow keys make many small edits of one thing, which are one step of the history.
                key = (name, message["kind"], message["index"]) if message.get("merge") else None
                self._set(control, show=False)
                self._history.push(control, key)
                if self._report.get("kind") != "busy":
                    self._say("")
        return None

    def _edited(self, message: Mapping[str, Any]) -> MotionControl:
        """The control after an edit; here are those which look at the photo, the rest is in drag_edits.py."""
        match message["do"]:
            case "thing":
                return self._with_thing(message)
            case "background":
                return self._with_background(message["hold"])
        return edited(self.control, message, self.num_frames - 1)

    def _with_background(self, hold: bool) -> MotionControl:
        """The control with all that does not move as one thing behind the others, or without this thing."""
        things = [thing for thing in self.things if not drawing.is_ground(thing)]
        control = replace(self.control, things=things)
        if not hold:
            return control
        # What is dragged shall not be held, so it is found first, for this question only.
        dragged = [Thing(self._found({"points": [drag.points[0]]})) for drag in self.drags]
        ground = replace(control, things=[*things, *dragged]).anchor_background().things[0]
        return replace(control, things=[ground, *things])

    def _with_thing(self, message: Mapping[str, Any]) -> MotionControl:
        """The control with another thing, or with another mask of one."""
        index, things = message.get("index"), list(self.things)
        marks = {name: message.get(name) or [] for name in MARKS} | {"box": message.get("box")}
        if index is None:
            things.append(Thing(self._found(marks)))
        else:
            old = things[index]
            clicks = self._clicks.get(_digest(old.mask), {"box": drawing.mask_box(old.mask)})
            if not (marks["box"] or clicks.get("points") or clicks.get("scribbles")):
                clicks = {**clicks, "points": [[*innermost(old.mask)]]}  # what was found before shall stay
            # Adding loses nothing that was found before, and taking away gains nothing; a new box starts anew.
            adds, takes = (any(marks[prefix + name] for name in ("points", "scribbles")) for prefix in ("", "not_"))
            kept = old.mask if adds and not takes and not marks["box"] else None
            within = old.mask if takes and not adds and not marks["box"] else None
            marks = {name: clicks.get(name, []) + marks[name] for name in MARKS} | {
                "box": marks["box"] or clicks.get("box")
            }
            things[index] = replace(old, mask=self._found(marks, kept, within))
        return replace(self.control, things=things)

    def _found(
        self, marks: Mapping[str, Any], kept: np.ndarray | None = None, within: np.ndarray | None = None
    ) -> np.ndarray:
        """The mask of the thing that the marks are on, with `kept` and inside `within`; the marks are remembered."""
        mask = select_thing(self.photo, **{name: mark for name, mark in marks.items() if mark})
        mask = mask if kept is None else mask | kept
        mask = mask if within is None else mask & within
        if not mask.any():
            raise ValueError("no thing was found there; click its middle, or draw a box around it.")
        self._clicks[_digest(mask)] = dict(marks)
        return mask

    def _start(self, work: Callable[[], Any]) -> None:
        """Does the work of a button in a thread of its own, so that the page can go on, or cancel it."""
        if self._worker is not None and self._worker.is_alive():
            raise ValueError("the last motion or clip is still being made; wait for it, or cancel it.")

        def quietly() -> None:
            try:
                work()
            except BaseException as error:  # the page already shows it
                self.error = error

        self._stop.clear()
        self._worker = threading.Thread(target=quietly, daemon=True)
        self._worker.start()

    def _watch(self, what: str) -> Callable[[str], None]:
        """Reports the steps of the work, and ends it where that was asked for."""

        def watch(done: str) -> None:
            if self._stop.is_set():
                self._stop.clear()
                raise Cancelled(f"Cancelled; the last {what} stays.")
            self._say("busy", f"Making the {what}: {done}")

        return watch

    @property
    def _request(self) -> Request:
        return Request(
            self.control,
            self.prompt,
            self.seed,
            self.control_scale,
            self.num_frames,
            self.num_inference_steps,
            self.guidance_scale,
        )

    def _set(self, control: MotionControl, show: bool = True) -> None:
        """Sets the control without adding a step to the history."""
        self._quiet = True
        try:
            self.control = control
        finally:
            self._quiet = False
        if show:
            self._show()

    def _show(self, trial: MotionControl | None = None) -> None:
        """Sends what is drawn to the browser."""
        if self._quiet:
            return
        control, future = trial or self.control, self.num_frames - 1
        made_for = self._runner.made_for
        more = {"ack": self._ack, "undo": self._history.can_undo, "redo": self._history.can_redo}
        with self._lock, self.hold_sync():
            scene = drawing.scene(control, future)
            digests = [_digest(thing.mask) for thing in control.things]
            for thing, digest in zip(scene["things"], digests, strict=True):
                thing["marks"] = {name: self._clicks.get(digest, {}).get(name, []) for name in MARKS}
            self._overlay = drawing.png(drawing.overlay(control, future))
            self._masks = self._mask_pngs(control, digests)
            self._scene = {**scene, **more, "stale": made_for is not None and made_for != self._request}

    def _mask_pngs(self, control: MotionControl, digests: Sequence[bytes]) -> list[bytes]:
        """The masks as the browser gets them; each is packed once."""
        self._shown_masks = {
            digest: self._shown_masks.get(digest) or drawing.mask_png(thing.mask)
            for digest, thing in zip(digests, control.things, strict=True)
        }
        return [self._shown_masks[digest] for digest in digests]

    @traitlets.observe(*SETTINGS)
    def _settings_changed(self, _change: Any = None) -> None:
        runner = self._runner
        larger = runner.carries_detail and min(runner.photo.size) > min(runner.image.size)
        self._settings = {
            **{name: getattr(self, name) for name in SETTINGS},
            "predicts": runner.predicts,
            "renders": runner.renders,
            "sampling": runner.pipeline is not None,
            "larger": "{} x {}".format(*runner.photo.size) if larger else "",
        }
        self._show()

    def _say(self, kind: str, text: str = "", details: str = "") -> None:
        with self._lock:
            self._report = {"kind": kind, "text": text, "details": details}

    def _tell(self, error: BaseException) -> None:
        """Shows an error: our own messages as they are, others with their traceback."""
        self.error = error
        if isinstance(error, Cancelled):
            self._say("done", str(error))
        elif isinstance(error, ValueError | OSError) and str(error):
            self._say("error", str(error))
        else:
            self._say("error", f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))

    @contextmanager
    def _working(self, what: str) -> Iterator[list[str]]:
        """Shows that `what` is being made, then how long it took and what the block put on the list, or its error."""
        report: list[str] = []
        self._say("busy", f"Making the {what}")
        start = time.perf_counter()
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                yield report
        except (Exception, KeyboardInterrupt) as error:
            self._tell(error)
            raise
        self.error = None
        report += [f"Warning: {entry.message}" for entry in caught if issubclass(entry.category, UserWarning)]
        self._say("done", " ".join([f"The {what} took {time.perf_counter() - start:.1f} s.", *report]))


def _digest(mask: np.ndarray) -> bytes:
    return hashlib.sha256(np.packbits(mask)).digest()


def _named(text: str) -> Path:
    """The path that a person typed. Raises ValueError for one that cannot be a file."""
    if not text.strip():
        raise ValueError("the file has no name; write one, such as control.json.")
    path = Path(text.strip()).expanduser()
    if not path.parent.is_dir():
        raise ValueError(f"{path} cannot be used: there is no folder {path.parent}.")
    return path
