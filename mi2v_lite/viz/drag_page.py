"""What DragCanvas and its page tell each other: pictures and scenes to the browser, edits and wishes from it.

static/drag_*.js only shows and asks; drag_edit.py changes the control, drag_view.py shows it, drag_work.py makes motion
and clip of it. What a person calls is in drag_canvas.py.
"""

from __future__ import annotations

import base64
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from PIL import Image

from mi2v_lite.control import MotionControl
from mi2v_lite.viz import drag_view
from mi2v_lite.viz.drag_edit import History, edited
from mi2v_lite.viz.drag_work import Maker, Request
from mi2v_lite.viz.picture import Picture

STATIC = Path(__file__).parent / "static"


class DragPage(anywidget.AnyWidget):
    """The side of `DragCanvas` that faces the browser.

    Args:
        photo: what is drawn on. maker: what predict and render run. settings: of `control`, `prompt`, `seed`,
            `control_scale`.
    """

    _esm = "\n".join(
        (STATIC / f"{name}.js").read_text("utf-8") for name in ("drag_controls", "drag_scene", "drag_canvas")
    )
    _css = (STATIC / "drag_canvas.css").read_text("utf-8")

    _size = traitlets.List().tag(sync=True)
    _photo = traitlets.Bytes().tag(sync=True)
    _overlay = traitlets.Bytes().tag(sync=True)
    _scene = traitlets.Dict().tag(sync=True)
    _settings = traitlets.Dict().tag(sync=True)
    _report = traitlets.Dict().tag(sync=True)  # kind ("", busy, done, error), text, details
    _motion_picture = traitlets.Bytes().tag(sync=True)
    _clip_picture = traitlets.Bytes().tag(sync=True)

    control = traitlets.Instance(MotionControl)
    prompt = traitlets.Unicode()
    seed = traitlets.Int(min=0)
    control_scale = traitlets.Float(min=0)

    def __init__(self, photo: Image.Image, maker: Maker, **settings: Any) -> None:
        self.photo = photo
        self.error: BaseException | None = None
        self._maker = maker
        self._history = History(settings["control"])
        self._ack: list[Any] = []  # the browser's last message that was dealt with
        self._quiet = True  # while things change that shall be no step of the history, and shown later
        super().__init__(**settings)
        self._size, self._photo = list(photo.size), drag_view.jpeg(photo)
        self.on_msg(self._receive)
        self._quiet = False
        self._settings_changed()

    def still(self) -> Picture:
        """The photo with all that is drawn, as a picture to show or save."""
        return drag_view.still(self.photo, self.control, self._maker.num_frames - 1)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        """The widget, and a still picture of what is drawn now for where no kernel runs."""
        data, metadata = super()._repr_mimebundle_(**kwargs)
        still = self.still()
        data = {**data, "image/png": base64.b64encode(still.bytes()).decode(), "text/plain": still.alt}
        return data, {**metadata, "image/png": {"alt": still.alt}}

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

    def _receive(self, _widget: Any, message: Mapping[str, Any], _buffers: Any) -> None:
        """One message of static/drag_canvas.js. What fails is shown there: nobody reads a kernel's log."""
        self._ack = [message.get("view"), message.get("number")]
        trial = None
        try:
            trial = self._act(message)
        except (Exception, KeyboardInterrupt) as error:
            self._tell(error)
        finally:
            self._show(trial)

    def _act(self, message: Mapping[str, Any]) -> MotionControl | None:
        """Does what the message says. Returns what to show instead of the control, for an edit under way."""
        match message["do"]:
            case "look":
                return None
            case "undo" | "redo" | "predict" | "render" as name:
                getattr(self, name)()
            case "settings":
                for name in ("prompt", "seed", "control_scale"):
                    self.set_trait(name, message[name])
            case "save":
                self.save(message["path"])
                self._say(
                    "done", f"Saved in {message['path']}. The same from a terminal:", self.command(message["path"])
                )
            case "load":
                self.load(message["path"])
                self._say("done", f"Loaded from {message['path']}.")
            case name:
                control = edited(self.control, message)
                if message.get("trial"):
                    return control
                # Arrow keys make many small edits of one thing: one step for undo.
                key = (name, message["kind"], message["index"]) if message.get("merge") else None
                self._set(control, show=False)
                self._history.push(control, key)
                self._say("")
        return None

    @property
    def _request(self) -> Request:
        return Request(self.control, self.prompt, self.seed, self.control_scale)

    def _set(self, control: MotionControl, show: bool = True) -> None:
        """Sets the control without a step in the history."""
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
        control, future = trial or self.control, self._maker.num_frames - 1
        made_for = self._maker.made_for
        more = {"ack": self._ack, "undo": self._history.can_undo, "redo": self._history.can_redo}
        with self.hold_sync():
            self._overlay = drag_view.png(drag_view.overlay(control, future))
            self._scene = {
                **drag_view.drawing(control, future),
                **more,
                "stale": made_for is not None and made_for != self._request,
            }

    @traitlets.observe("prompt", "seed", "control_scale")
    def _settings_changed(self, _change: Any = None) -> None:
        self._settings = {
            "prompt": self.prompt,
            "seed": self.seed,
            "control_scale": self.control_scale,
            "predicts": self._maker.predictor is not None,
            "renders": self._maker.renderer is not None,
        }
        self._show()

    def _say(self, kind: str, text: str = "", details: str = "") -> None:
        self._report = {"kind": kind, "text": text, "details": details}

    def _tell(self, error: BaseException) -> None:
        """Shows an error: our own messages as they are, others with where they came from."""
        self.error = error
        if isinstance(error, ValueError | OSError) and str(error):
            self._say("error", str(error))
        else:
            self._say("error", f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))

    @contextmanager
    def _working(self, what: str) -> Iterator[list[str]]:
        """Shows that `what` is being made; then how long it took and what the block put on the list, or its error."""
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
        report += [f"Warning: {each.message}" for each in caught if issubclass(each.category, UserWarning)]
        self._say("done", " ".join([f"The {what} took {time.perf_counter() - start:.1f} s.", *report]))
