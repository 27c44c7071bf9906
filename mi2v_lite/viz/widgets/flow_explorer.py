"""A motion field to explore: overlays, a slider for the frame, the displacement under the pointer (notebooks 00, 01).

    explorer = FlowExplorer(photo, motion)      # a pipeline's output, a tensor, or the path of a .flo or .npz
    explorer.frame, explorer.overlay = 7, "arrows"
    explorer.hovered                            # {'frame': 7, 'x': 40, 'y': 52, 'u': 3.25, 'v': -1.5}

The field goes to the browser once, as float32, and is drawn there (static/flow_*.js), so that the slider does not wait
for the kernel. On a page without a kernel, the still of `flow_picture` remains.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anywidget
import flow_vis
import numpy as np
import traitlets
from PIL import Image
from torch import Tensor

from mi2v_lite.flow.files import read_flow
from mi2v_lite.io.images import read_image
from mi2v_lite.viz import drawing
from mi2v_lite.viz.flow import flow_picture, longest
from mi2v_lite.viz.pictures import Picture, Pictured, to_image

STATIC = Path(__file__).parent / "static"
OVERLAYS = ("photo", "colours", "arrows", "tracks", "warped", "holes", "occlusion")
SETTINGS = ("frame", "overlay", "opacity", "density", "scale", "max_flow", "playing", "fps", "hovered")
LARGEST = (16, 512, 512)  # frames, height, width: 34 MB go to the browser

Field = Tensor | np.ndarray | str | os.PathLike | Any  # Any: an output of a pipeline, which has .flow


class FlowExplorer(anywidget.AnyWidget):
    """Shows f_{0->i} over its photo. All coordinates are on frame 0's grid.

    Attributes:
        frame: i, from 0 (nothing has moved) to N; N at first.
        overlay: "photo"; "colours" of the flow; "arrows" to where points go; "tracks" of points up to frame i;
            "warped", the photo splatted forward; "holes" that this leaves, in magenta; "occlusion": the pixels of
            frame 0 that leave the picture (orange), and those that land where others land (blue), so that one of the
            two is hidden.
        opacity: of the colours over the photo, 0 to 1.
        density: how many arrows or tracks fit along the longer side, 4 to 64.
        scale: the length of the arrows, as a multiple of the true one.
        max_flow: the length in pixels that gets full colour in all frames.
        playing: whether the frames run.
        fps: frames a second while they run, 1 to 30.
        hovered: {"frame", "x", "y", "u", "v"} in pixels, of the pixel that the pointer was on last; None before. u and
            v are None where the flow is unknown. May be set; {"x": 40, "y": 52} is enough.
    """

    _esm = "\n".join(
        (STATIC / f"{name}.js").read_text("utf-8") for name in ("page", "flow_pixels", "flow_drawing", "flow_explorer")
    )
    _css = (STATIC / "flow_explorer.css").read_text("utf-8")

    _flow = traitlets.Bytes().tag(sync=True)  # float32 (N, 2, H, W), little-endian
    _photo = traitlets.Bytes().tag(sync=True)  # uint8 (H, W, 3)
    _sharp = traitlets.Bytes().tag(sync=True)  # a JPEG of the photo, where it is larger than the field
    _photo_size = traitlets.Tuple().tag(sync=True)  # width, height
    _shape = traitlets.Tuple().tag(sync=True)  # N, H, W
    _wheel = traitlets.Bytes().tag(sync=True)  # flow_vis' colours, uint8 (n, 3)
    frame = traitlets.Int().tag(sync=True)
    overlay = traitlets.Enum(OVERLAYS, "colours").tag(sync=True)
    opacity = traitlets.Float(1.0, min=0, max=1).tag(sync=True)
    density = traitlets.Int(16, min=4, max=64).tag(sync=True)
    scale = traitlets.Float(1.0, min=0.25, max=8).tag(sync=True)
    max_flow = traitlets.Float().tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)
    fps = traitlets.Int(8, min=1, max=30).tag(sync=True)
    hovered = traitlets.Dict(default_value=None, allow_none=True).tag(sync=True)

    def __init__(self, image: Pictured | str | os.PathLike, flow: Field, **settings: Any) -> None:
        """Takes the photo and its motion.

        Args:
            image: the photo, as a path or as `to_image` takes it, of the flow's aspect ratio. A photo of another size
                is resized to the flow's where something is computed of it, and the page says so.
            flow: pixels, (x right, y down), nan where unknown: a tensor or array `(N, 2, H, W)`, `(1, N, 2, H, W)` or
                `(2, H, W)`; the path of a .flo, .npz or KITTI .png; or the output of a pipeline, with a `.flow`.
            settings: first values of the attributes, such as `overlay="tracks"`.

        Raises:
            ValueError: if the flow has another shape, is a batch of several, or is larger than 16 frames of 512x512; if
                the photo has another aspect ratio.
            TypeError: for an unknown setting.
            traitlets.TraitError: for a setting out of its range, also when it is set later.
        """
        wrong = sorted(set(settings) - set(SETTINGS))
        if wrong:
            raise TypeError(f"FlowExplorer has no settings {wrong}; see its attributes.")
        array = _field_array(flow)
        count, _, height, width = array.shape
        photo = read_image(image) if isinstance(image, (str, os.PathLike)) else to_image(image)
        if not 0.9 < (photo.width * height) / (photo.height * width) < 1.1:
            raise ValueError(
                f"the photo has {photo.width}x{photo.height} pixels, but the flow {width}x{height}: another aspect "
                "ratio, so it is the flow of another picture. Give the photo that the flow was made of."
            )
        sharp = drawing.jpeg(photo) if photo.width > width else b""
        small = photo.resize((width, height), Image.Resampling.BICUBIC)
        first = {"frame": count, "max_flow": longest(array) or 1.0}
        super().__init__(
            _flow=array.tobytes(),
            _photo=small.tobytes(),
            _sharp=sharp,
            _photo_size=photo.size,
            _shape=(count, height, width),
            _wheel=flow_vis.make_colorwheel().astype(np.uint8).tobytes(),
            **first | settings,
        )

    @property
    def flow(self) -> np.ndarray:
        """The field as the browser has it, float32 `(N, 2, H, W)` in pixels, read-only."""
        count, height, width = self._shape
        return np.frombuffer(self._flow, "<f4").reshape(count, 2, height, width)

    @property
    def still(self) -> Picture:
        """What a page without a kernel shows: the photo with tracks, four frames in colours, and the wheel."""
        count, height, width = self._shape
        photo = Image.frombytes("RGB", (width, height), self._photo)
        words = (
            f"A photo and its motion over {count} frames, {width}x{height} pixels: tracks, colours, and their wheel."
        )
        page = flow_picture(photo, self.flow)
        size = (page.width * 2 // 3, page.height * 2 // 3)  # small, because notebooks store it
        return Picture(page.resize(size, Image.Resampling.LANCZOS), words)

    def displacement(self, x: int, y: int, frame: int) -> tuple[float | None, float | None]:
        """Reads one displacement: where a pixel is in a frame, minus where it was in frame 0.

        Args:
            x: the pixel's column in frame 0.
            y: its row.
            frame: 0 to N.

        Returns:
            (u, v) in pixels; (None, None) where the flow is unknown.
        """
        u, v = self.flow[frame - 1, :, y, x] if frame else (0.0, 0.0)
        return (float(u), float(v)) if np.isfinite(u) and np.isfinite(v) else (None, None)

    @traitlets.validate("frame")
    def _check_frame(self, proposal: dict) -> int:
        last = self._shape[0]
        if not 0 <= proposal["value"] <= last:
            raise traitlets.TraitError(f"frame must be 0 to {last}, got {proposal['value']}.")
        return proposal["value"]

    @traitlets.validate("max_flow")
    def _check_max_flow(self, proposal: dict) -> float:
        if not (np.isfinite(proposal["value"]) and proposal["value"] > 0):
            raise traitlets.TraitError(f"max_flow must be a positive number of pixels, got {proposal['value']}.")
        return proposal["value"]

    @traitlets.validate("hovered")
    def _check_hovered(self, proposal: dict) -> dict | None:
        point = proposal["value"]
        if point is None:
            return None
        _, height, width = self._shape
        x, y = (point.get(name) if isinstance(point, Mapping) else None for name in "xy")
        if not (isinstance(x, int) and isinstance(y, int) and 0 <= x < width and 0 <= y < height):
            raise traitlets.TraitError(
                f'hovered must be {{"x": 0 to {width - 1}, "y": 0 to {height - 1}}} in whole pixels, got {point}.'
            )
        u, v = self.displacement(x, y, self.frame)
        return {"frame": self.frame, "x": x, "y": y, "u": u, "v": v}

    @traitlets.observe("frame")
    def _follow_frame(self, change: dict) -> None:
        if self.hovered:
            self.hovered = {"x": self.hovered["x"], "y": self.hovered["y"]}

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict, dict]:
        return self.still.added_to(super()._repr_mimebundle_(**options))

    def __repr__(self) -> str:
        count, height, width = self._shape
        return f"FlowExplorer({count} frames, {width}x{height} px, frame={self.frame}, overlay={self.overlay!r})"


def _field_array(flow: Field) -> np.ndarray:
    """Any form of a field that `FlowExplorer` takes, as float32 `(N, 2, H, W)`."""
    flow = getattr(flow, "flow", flow)
    if isinstance(flow, (str, os.PathLike)):
        flow = read_flow(flow)
    array = flow.detach().float().cpu().numpy() if isinstance(flow, Tensor) else np.asarray(flow)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"flow must be numbers, got {type(flow).__name__} of {array.dtype}.")
    if array.ndim == 5 and array.shape[0] != 1:
        raise ValueError(f"flow is a batch of {array.shape[0]} fields; show one of them, as flow[0].")
    array = array[0] if array.ndim == 5 else array[None] if array.ndim == 3 else array
    if array.ndim != 4 or array.shape[1] != 2 or 0 in array.shape:
        raise ValueError(f"flow must be (N, 2, H, W), (1, N, 2, H, W) or (2, H, W) pixels, got {array.shape}.")
    if array.shape[0] * array.shape[2] * array.shape[3] > np.prod(LARGEST):
        raise ValueError(
            f"flow has {array.shape[0]} frames of {array.shape[3]}x{array.shape[2]} pixels; FlowExplorer takes at "
            "most 16 of 512x512. Show fewer frames, or make the field smaller with mi2v_lite.flow.fields.resize."
        )
    return np.ascontiguousarray(array, dtype="<f4")
