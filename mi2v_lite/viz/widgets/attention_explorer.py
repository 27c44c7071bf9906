"""Ask a pixel where it looks: its way from the photo, its sources there, its attention over time (notebook 03).

    with record(pipe.animation_unet, steps=(0, 9)) as seen:         # viz/attention.py
        frames = pipe.render(photo, flow, prompt).frames[0]
    explorer = AttentionExplorer(frames, flow, seen)
    explorer.query = (15, 84, 60)                                   # frame, x, y; or click in the frame
    explorer.follow(40, 52)                                         # a pixel of the photo; or click there
    explorer.answer["warped"]                                       # share of attention on warped entries

The kernel answers each question, and the page draws the answer (static/attention_explorer.js). On a page without a
kernel a still of the last answer remains.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import matplotlib.pyplot as plt
import numpy as np
import torch
import traitlets
from torch import Tensor

from mi2v_lite.viz.attention import Record
from mi2v_lite.viz.pictures import Frames, Picture, to_image
from mi2v_lite.viz.plots import COLOURS, figure_picture, style

STATIC = Path(__file__).parent / "static"
MEAN = -1  # stands for the mean of all heads
SETTINGS = ("query", "layer", "step", "head")


class AttentionExplorer(anywidget.AnyWidget):
    """Shows for one pixel of one frame what motion-augmented attention sees, and what it takes from it.

    Attributes:
        query: (frame, x, y): the frame that asks, and a pixel of it on the clip's grid. At first it is the place in the
            last frame where the longest motion arrives.
        layer: one of `layers`, the recorded attentions in the order of the network.
        step: one of `steps`, the recorded denoising steps.
        head: 0, 1, ..., or -1 for the mean of all heads.
        answer: what the query sees, read-only:
            "weights": over the 2F - 1 entries z0, z'1, z1, ..., z'N, zN of its column, with the sum 1;
            "reference", "warped", "own": the shares of z0, of all z'j, and of all zj with j > 0;
            "sources": for each frame j > 0 the pixel (x, y) of the photo that z'j brings to this place, None in holes;
            "source": that of the query's own frame (in frame 0 the pixel itself);
            "track": the F places (x, y) where this source is in each frame, [] without a source;
            "place", "size": the feature pixel (x, y) that asks, and (height, width) of the layer's features.
    """

    _esm = "\n".join((STATIC / f"{name}.js").read_text("utf-8") for name in ("page", "attention_explorer"))
    _css = (STATIC / "attention_explorer.css").read_text("utf-8")

    _frames = traitlets.Bytes().tag(sync=True)  # uint8 (F, H, W, 3)
    _shape = traitlets.Tuple().tag(sync=True)  # F, H, W
    layers = traitlets.List(trait=traitlets.Unicode(), read_only=True).tag(sync=True)
    steps = traitlets.List(trait=traitlets.Int(), read_only=True).tag(sync=True)
    heads = traitlets.Int(read_only=True).tag(sync=True)
    query = traitlets.Tuple().tag(sync=True)
    layer = traitlets.Unicode().tag(sync=True)
    step = traitlets.Int().tag(sync=True)
    head = traitlets.Int(MEAN).tag(sync=True)
    answer = traitlets.Dict(read_only=True).tag(sync=True)

    def __init__(
        self, frames: Frames, flow: Tensor | np.ndarray, record: Record, item: int = -1, **settings: Any
    ) -> None:
        """Takes a clip, its motion, and what was recorded while it was made.

        Args:
            frames: the clip of F frames, a tensor, an array or a sequence of pictures.
            flow: the field that was rendered, `(N, 2, H, W)` or `(1, N, 2, H, W)` in pixels of the frames' grid, where
                N = F - 1.
            record: what `viz.attention.record` saw, of a network with motion.
            item: which clip of the recorded batch.
            settings: first values of query, layer, step and head.

        Raises:
            ValueError: if nothing was recorded, or without motion; if frames, flow and record do not fit together.
            TypeError: for an unknown setting.
            traitlets.TraitError: for a setting out of its range, also when it is set later.
        """
        wrong = sorted(set(settings) - set(SETTINGS))
        if wrong:
            raise TypeError(f"AttentionExplorer has no settings {wrong}; there are {', '.join(SETTINGS)}.")
        images = [to_image(frame) for frame in frames]
        field = torch.as_tensor(flow).detach().float().cpu()
        field = field[0] if field.ndim == 5 and len(field) == 1 else field
        expected = (len(images) - 1, 2, images[0].height, images[0].width)
        if tuple(field.shape) != expected:
            raise ValueError(
                f"flow must be {expected}, pixels of the frames' grid, got {tuple(field.shape)}; use "
                "mi2v_lite.flow.fields.resize where the size differs, and one item of a batch."
            )
        self._check_record(record, len(images))
        self._record, self._field, self._item = record, field, item
        self._weights: tuple[tuple[str, int], Tensor] | None = None  # of the last layer and step
        steps = sorted({step for _, step in record.calls})
        self.set_trait("layers", list(record.names))
        self.set_trait("steps", steps)
        self.set_trait("heads", record.calls[record.names[0], steps[-1]].layer.heads)
        super().__init__(
            _frames=np.stack([np.asarray(image) for image in images]).tobytes(),
            _shape=(len(images), images[0].height, images[0].width),
        )
        first = {"layer": record.names[-1], "step": steps[-1], "query": self._longest_way()}
        for name, value in (first | settings).items():
            setattr(self, name, value)
        self.observe(self._reply, ["query", "layer", "step", "head"])
        self.on_msg(lambda _, place, __: self.follow(place["x"], place["y"]))
        self._reply()

    def follow(self, x: int, y: int) -> None:
        """Lets the place ask where a pixel of the photo is in the frame of the query.

        Args:
            x: the pixel's column in the photo; a place outside is taken to the border, there and in the frame.
            y: its row.
        """
        frame, (_, height, width) = self.query[0], self._shape
        x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
        away = self._field[frame - 1, :, y, x].nan_to_num(0).round().int().tolist() if frame else (0, 0)
        places = (min(max(at + off, 0), most - 1) for at, off, most in ((x, away[0], width), (y, away[1], height)))
        self.query = (frame, *places)

    @property
    def still(self) -> Picture:
        """What a page without a kernel shows: the photo with the sources and the way, the query, and its weights."""
        frame, x, y = self.query
        answer, (count, height, width) = self.answer, self._shape
        frames = np.frombuffer(self._frames, np.uint8).reshape(count, height, width, 3)
        weights = np.array(answer["weights"])
        with style():
            figure, (photo, query, bars) = plt.subplots(
                1, 3, figsize=(12, 3.6), width_ratios=(1, 1, 1.5), layout="constrained"
            )
            for axis, picture, title in ((photo, frames[0], "photo"), (query, frames[frame], f"frame {frame}")):
                axis.imshow(picture)
                axis.set(title=title, xticks=[], yticks=[])
            for source, weight in zip(answer["sources"], weights[1::2], strict=True):
                if source:
                    photo.scatter(*source, s=20 + 1500 * weight, color=COLOURS[1], edgecolors="white", alpha=0.6)
            if answer["track"]:
                photo.plot(*np.transpose(answer["track"]), color=COLOURS[4])
                photo.scatter(*answer["source"], s=60, marker="x", color="white", zorder=3)
            query.scatter(x, y, s=80, marker="+", color="white", zorder=3)
            later = np.arange(1, count)
            bars.bar([0], weights[:1], color=COLOURS[6], label="photo, same place")
            bars.bar(later - 0.2, weights[1::2], 0.4, color=COLOURS[1], label="photo, warped")
            bars.bar(later + 0.2, weights[2::2], 0.4, color=COLOURS[0], label="frame itself")
            head = "mean of heads" if self.head == MEAN else f"head {self.head}"
            size = "x".join(map(str, answer["size"]))
            bars.set(xlabel="frame", ylabel="weight", title=f"step {self.step}, {head}, {size} features")
            bars.legend(fontsize=10)
            words = f"A pixel of frame {frame}, its sources in the photo and its attention over {count} frames."
            return figure_picture(figure, words)

    def _reply(self, change: dict | None = None) -> None:
        """Computes `answer`."""
        (frame, x, y), (_, height, width) = self.query, self._shape
        if self._weights is None or self._weights[0] != (self.layer, self.step):
            call = self._record.call(self.layer, self.step)
            self._weights = (self.layer, self.step), call.weights(self._item)  # (F, heads, h, w, M)
        weights = self._weights[1]
        h, w = weights.shape[2:4]
        column, row = x * w // width, y * h // height
        seen = weights[frame, :, row, column]  # (heads, M)
        seen = seen.mean(0) if self.head == MEAN else seen[self.head]  # (M,)
        sources = self._sources(x, y, (height / h, width / w))
        source = sources[frame - 1] if frame else (x, y)
        track = []
        if source:
            way = self._field[:, :, source[1], source[0]] + torch.tensor(source)
            track = [source, *(tuple(round(value, 2) for value in point) for point in way.tolist())]
        answer = {
            "weights": [round(value, 6) for value in seen.tolist()],
            "reference": float(seen[0]),
            "warped": float(seen[1::2].sum()),
            "own": float(seen[2::2].sum()),
            "sources": sources,
            "source": source,
            "track": track,
            "place": (column, row),
            "size": (h, w),
        }
        self.set_trait("answer", answer)

    def _sources(self, x: int, y: int, reach: tuple[float, float]) -> list[tuple[int, int] | None]:
        """The pixel of the photo that lands nearest to (x, y) in each later frame; None where none lands in reach.

        `reach` (y, x) is the side of a feature pixel in pixels: a bilinear splat spreads as far as that. Where several
        pixels land, the layer sees their average, and this names the nearest of them.
        """
        _, height, width = self._shape
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        off_x = (self._field[:, 0] + columns - x).abs() / reach[1]  # (N, H, W), feature pixels
        off_y = (self._field[:, 1] + rows - y).abs() / reach[0]
        far = torch.maximum(off_x, off_y).flatten(1)  # nan, where the flow is unknown, is out of reach
        away = torch.hypot(off_x, off_y).nan_to_num(torch.inf).flatten(1)
        # Of pixels that land equally near, take the one that moved least: on a still background, the pixel itself.
        nearest = (away + 1e-6 * self._field.norm(dim=1).nan_to_num(0).flatten(1)).argmin(1)
        reached = far.gather(1, nearest[:, None])[:, 0] < 1
        return [
            (place % width, place // width) if lands else None
            for place, lands in zip(nearest.tolist(), reached.tolist(), strict=True)
        ]

    def _longest_way(self) -> tuple[int, int, int]:
        """(frame, x, y) where the longest displacement of the last frame arrives inside the picture."""
        count, height, width = self._shape
        last = self._field[-1].nan_to_num(0)
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        x, y = (columns + last[0]).round(), (rows + last[1]).round()
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        place = int((last.norm(dim=0) * inside).argmax())
        x, y = (int(part.flatten()[place].clamp(0, most - 1)) for part, most in ((x, width), (y, height)))
        return count - 1, x, y

    @staticmethod
    def _check_record(record: Record, frames: int) -> None:
        if not record.calls:
            raise ValueError(
                "Nothing was recorded: run the pipeline within `with record(pipe.animation_unet) as seen`."
            )
        for call in record.calls.values():
            if call.motion is None or call.layer.fusion != "attention":
                raise ValueError("The record is of plain attention; record a Stage 2 UNet with a motion field.")
            if call.num_frames != frames:
                raise ValueError(f"{frames} frames are shown but {call.num_frames} were recorded; give the same clip.")

    @traitlets.validate("query")
    def _check_query(self, proposal: dict) -> tuple[int, int, int]:
        value, (count, height, width) = tuple(proposal["value"]), self._shape
        whole = len(value) == 3 and all(isinstance(part, (int, np.integer)) for part in value)
        if not whole or not all(0 <= part < most for part, most in zip(value, (count, width, height), strict=True)):
            raise traitlets.TraitError(
                f"query must be (frame, x, y) in whole numbers, 0 to {count - 1}, {width - 1} and {height - 1}; "
                f"got {value}."
            )
        return tuple(int(part) for part in value)

    @traitlets.validate("layer", "step", "head")
    def _check_choice(self, proposal: dict) -> str | int:
        name, value = proposal["trait"].name, proposal["value"]
        choices = {"layer": self.layers, "step": self.steps, "head": [MEAN, *range(self.heads)]}[name]
        if value not in choices:
            raise traitlets.TraitError(f"{name} must be one of {choices}, got {value!r}.")
        return value

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict, dict]:
        return self.still.added_to(super()._repr_mimebundle_(**options))

    def __repr__(self) -> str:
        return f"AttentionExplorer(query={self.query}, layer={self.layer!r}, step={self.step}, head={self.head})"
