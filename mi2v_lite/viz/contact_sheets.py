"""Contact sheets: many clips on one page, each in a row under its caption (`mi2v world`, `mi2v evaluate --sheets`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mi2v_lite.data.clips import Clip
from mi2v_lite.viz.drawing import draw_outline
from mi2v_lite.viz.flow import colour_wheel, flow_to_rgb, longest
from mi2v_lite.viz.pictures import INK, PAPER, Pictured, to_image

if TYPE_CHECKING:
    from mi2v_lite.data.scene_drawing import WorldBatch

GAP, TEXT = 6, 14
GREY = (110, 110, 110)
OUTLINES = {1: (255, 255, 0), 2: (255, 0, 255), 3: (0, 255, 255), -1: (255, 255, 255)}  # of the things by their labels


@dataclass(frozen=True)
class Row:
    """One row of a contact sheet.

    Attributes:
        caption: the line above the pictures.
        pictures: what the row shows, as `to_image` takes it, all of one size.
    """

    caption: str
    pictures: Sequence[Pictured]


def sheet(rows: Sequence[Row], titles: Sequence[str], note: str = "") -> Image.Image:
    """Puts rows below one another, under the titles of their columns.

    Args:
        rows: what to show.
        titles: one title for each column.
        note: a line at the foot of the page.

    Returns:
        RGB picture of the whole page.

    Raises:
        ValueError: if there are no rows, or if a row has another number of pictures than there are titles.
    """
    if not rows:
        raise ValueError("a sheet needs one row at least")
    for number, row in enumerate(rows):
        if len(row.pictures) != len(titles):
            raise ValueError(f"row {number} has {len(row.pictures)} pictures, there are {len(titles)} titles")
    tiles = [[to_image(picture) for picture in row.pictures] for row in rows]
    width, height = tiles[0][0].size
    line = TEXT + GAP
    size = (GAP + len(titles) * (width + GAP), line + len(rows) * (line + height + GAP) + (line if note else 0))
    page = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(TEXT)
    for column, title in enumerate(titles):
        draw.text((GAP + column * (width + GAP), GAP // 2), title, GREY, font)
    for number, row in enumerate(rows):
        top = line + number * (line + height + GAP)
        draw.text((GAP, top), _cut(row.caption, draw, font, size[0] - 2 * GAP), INK, font)
        for column, tile in enumerate(tiles[number]):
            page.paste(tile, (GAP + column * (width + GAP), top + line))
    if note:
        draw.text((GAP, size[1] - line), note, GREY, font)
    return page


def clip_sheet(clips: Sequence[Clip], shown: int = 6) -> Image.Image:
    """Shows clips as rows: some frames, the flow to the last one, what is still visible there, and the colour wheel.

    All flows have one scale, which the foot of the page names.

    Args:
        clips: what to show, all of one size.
        shown: the number of frames in a row, evenly spread from the first to the last.

    Returns:
        RGB picture of the whole page.
    """
    top = max(longest(clip.flow[-1:]) for clip in clips) or 1.0
    picked = np.linspace(0, len(clips[0].frames) - 1, shown).round().astype(int)
    rows = []
    for clip in clips:
        colours = flow_to_rgb(clip.flow[-1:], top)[0]
        seen = np.repeat(clip.visibility[-1, :, :, None].astype(np.uint8) * 255, 3, axis=2)
        wheel = colour_wheel(clip.frames.shape[2])
        words = f"{clip.caption} (stride {clip.stride})"
        rows.append(Row(words, [*clip.frames[picked], colours, seen, wheel]))
    titles = [*(f"frame {i}" for i in picked), f"flow 0 to {picked[-1]}", "visible", "directions"]
    return sheet(rows, titles, note=f"Full colour: {top:.1f} px. White in 'visible': seen in the last frame, too.")


def scene_sheet(batch: WorldBatch) -> Image.Image:
    """Shows scenes of the lite world as rows: frame 0, the outlines of things, the last motion field, what is visible.

    All flows have one scale, which the foot of the page names.

    Args:
        batch: the scenes.

    Returns:
        RGB picture of the whole page.
    """
    flow = batch.flow[:, -1].cpu().numpy()
    top = longest(flow) or 1.0
    rows = []
    for number, words in enumerate(batch.captions):
        frame = batch.frames[number, 0].add(1).mul(127.5).round().byte().permute(1, 2, 0).cpu().numpy()
        outlined, labels = _large(frame).copy(), _large(batch.labels[number].cpu().numpy())
        for label, colour in OUTLINES.items():
            draw_outline(outlined, labels == label, colour)
        colours = flow_to_rgb(flow[number : number + 1], top)[0]
        seen = np.repeat(batch.visibility[number, -1, :, :, None].byte().mul(255).cpu().numpy(), 3, axis=2)
        pictures = [_large(frame), outlined, _large(colours), _large(seen), colour_wheel(len(outlined))]
        rows.append(Row(f"{words} (stride {int(batch.stride[number])})", pictures))
    titles = ("frame 0", "things", "flow", "visible", "directions")
    note = (
        f"Full colour: {top:.1f} px. White in 'visible': seen in the last frame, too. White outlines: scenery in front."
    )
    return sheet(rows, titles, note)


def _large(picture: np.ndarray, side: int = 256) -> np.ndarray:
    """Repeats the pixels of a small picture until it is about `side` pixels high."""
    times = max(1, round(side / len(picture)))
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def _cut(text: str, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, width: int) -> str:
    """As much of the text as fits, with dots for the rest."""
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + " ...", font) > width:
        text = text[:-1]
    return text + " ..."
