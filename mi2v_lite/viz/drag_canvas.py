"""Draw the motion: drags, anchors and a brush on a photo, in a notebook (notebook 04).

    canvas = DragCanvas("photo.jpg", pipeline=pipe, prompt="the balloon floats up")
    canvas                                   # draw with mouse, pen, finger or keys; predict; render
    canvas.control                           # the MotionControl that pipelines and `mi2v animate --control` take
    canvas.drags = [[(40, 60), (90, 40)]]    # the same from code
    canvas.save("control.json")

The one truth is `canvas.control` in the kernel; drag_page.py shows it in the browser and does what is asked there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mi2v_lite.control import Anchor, Drag, MotionControl, Point
from mi2v_lite.io import images
from mi2v_lite.viz import drag_view
from mi2v_lite.viz.drag_page import DragPage
from mi2v_lite.viz.drag_work import Maker, flow_of
from mi2v_lite.viz.picture import to_image


class DragCanvas(DragPage):
    """A photo to draw motion on.

    Args:
        photo: path, PIL image or uint8 `(H, W, 3)`. All coordinates are its pixels, upright, x right and y down.
        pipeline: anything with `predict_motion` and `render`, such as `MotionI2VPipeline`.
        predict: instead, a function `(image, prompt, control, *, control_scale, generator) -> motion`, that is, a flow
            `(N, 2, H, W)` or `(1, N, 2, H, W)` in pixels, or an object with such a `flow`. The control is None where
            nothing is drawn.
        render: instead, a function `(image, motion, prompt, *, generator) -> clip`, that is, pictures, or an object
            with such `frames`.
        prompt, seed, control_scale: what the fields of the widget start with.
        size: short side in pixels at which the callbacks see the photo. With a pipeline that carries detail it only
            bounds it, by default to 512. Else the default is the pipeline's own, or the photo's.
        num_frames: of the clip, the photo included. control: what to start with.

    Attributes:
        control: the `MotionControl`; may be set and observed, and so may `prompt`, `seed` and `control_scale`.
        error: the last exception of a button or an edit; None after a success.

    Raises:
        ValueError: for a photo that cannot be read, or a control of another size.
    """

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
        upright = to_image(photo) if self._path is None else images.read_image(self._path)
        super().__init__(
            upright,
            Maker(upright, pipeline, predict, render, size, num_frames),
            control=MotionControl(upright.size) if control is None else control,
            prompt=prompt,
            seed=seed,
            control_scale=control_scale,
        )

    def __repr__(self) -> str:
        return f"DragCanvas: {drag_view.in_words(self.control)}"

    # What is drawn.

    @property
    def drags(self) -> tuple[Drag, ...]:
        """The drags; may be set to a sequence of `Drag` or of lists of points."""
        return self.control.drags

    @drags.setter
    def drags(self, drags: Sequence[Drag | Sequence[Point]]) -> None:
        made = [drag if isinstance(drag, Drag) else Drag(drag) for drag in drags]
        self.control = replace(self.control, drags=made)

    @property
    def anchors(self) -> tuple[Anchor, ...]:
        """The anchors; may be set to a sequence of `Anchor` or of points."""
        return self.control.anchors

    @anchors.setter
    def anchors(self, anchors: Sequence[Anchor | Point]) -> None:
        made = [anchor if isinstance(anchor, Anchor) else Anchor(anchor) for anchor in anchors]
        self.control = replace(self.control, anchors=made)

    @property
    def brush(self) -> np.ndarray | None:
        """Where motion is allowed, bool (height, width), or None for everywhere; may be set."""
        return self.control.brush

    @brush.setter
    def brush(self, brush: np.ndarray | None) -> None:
        self.control = replace(self.control, brush=brush)

    def undo(self) -> None:
        """One step back, of the hand's or the code's."""
        self._set(self._history.undo())

    def redo(self) -> None:
        """One step forward."""
        self._set(self._history.redo())

    def save(self, path: str | os.PathLike) -> None:
        """Writes the control as JSON, for `load`, `MotionControl.load` and `mi2v animate --control`."""
        self.control.save(path)

    def load(self, path: str | os.PathLike) -> None:
        """Takes the control of a file. Errors: ValueError for another photo's size or a damaged file; OSError."""
        control = MotionControl.load(path)
        self._set(control, show=False)
        self._history.push(control)
        self._show()

    # What it becomes.

    @property
    def image(self) -> Image.Image:
        """The photo as the callbacks see it."""
        return self._maker.image

    @property
    def motion(self) -> Any:
        """What predict gave, or None. What is set instead is rendered as long as nothing else changes."""
        return self._maker.motion

    @motion.setter
    def motion(self, motion: Any) -> None:
        flow_of(motion)
        self._maker.motion, self._maker.made_for = motion, self._request
        self._motion_picture = self._maker.motion_picture()
        self._show()

    @property
    def clip(self) -> Any:
        """What render gave, or None."""
        return self._maker.clip

    def predict(self) -> Any:
        """Stage 1 for what is drawn; the widget shows it.

        Returns:
            what the callback gave; also in `motion`.

        Raises:
            ValueError: there is no callback, or nothing says what shall move. Also whatever the callback raises.
        """
        with self._working("motion") as report:
            self._predict(report)
        self._show()
        return self.motion

    def _predict(self, report: list[str]) -> None:
        self._maker.predict(self._request)
        self._motion_picture = self._maker.motion_picture()
        miss = drag_view.missed(self.control, flow_of(self.motion))
        if miss is not None:
            report.append(f"The motion is {miss:.1f} px of the photo from the drawn paths, on average.")

    def render(self) -> Any:
        """Stage 2 for the motion, which is predicted first where it is missing or something has changed since.

        Returns:
            what the callback gave; also in `clip`.

        Raises:
            ValueError: there is no callback. Also whatever the callbacks raise.
        """
        with self._working("clip") as report:
            if self._maker.made_for != self._request:
                self._predict(report)
            self._maker.render(self._request)
            self._clip_picture = self._maker.clip_picture()
        self._show()
        return self.clip

    def command(self, control: str = "control.json") -> str:
        """The command line that makes the same clip, with the control in that file and the lite weights."""
        return self._maker.command(self._path, self._request, str(control))
