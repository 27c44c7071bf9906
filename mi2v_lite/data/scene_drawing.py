"""Draws scenes of the lite world in batches: pictures, exact motion fields and visibility. Serves lite_world.py.

Places are counted in two ways. In *pixels* the centre of the first pixel is 0; motions are given so. In *edges* the
corner of the picture is 0 and the centre of the first pixel is 0.5, so that a change of scale is one factor.

The photo is drawn at twice the size and averaged down. Things are pictures of their own (tiles) that have about as many
pixels as they are drawn with. All frames of all scenes are drawn by a few calls of `grid_sample`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mi2v_lite.data.scene_plan import Layer, ScenePlan, Sources, camera_matrix, frame_times, layer_matrix
from mi2v_lite.data.sprites import load_glyph, photo_shape, plain_shape, ridge

SUPERSAMPLE = 2
DENSITY = 1.25  # pixels of a thing's tile to a pixel of the frame
TILE, WINDOW = 32, 96  # the sides of tiles and of windows of photos are multiples of these
RIM = 2  # empty pixels around what is cut out
_TO_EDGES = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
_TO_PIXELS = np.linalg.inv(_TO_EDGES)


@dataclass(frozen=True)
class WorldBatch:
    """B scenes, on the world's device.

    Attributes:
        frames: float32 `(B, F, 3, H, W)` in [-1, 1]; F is 1 where only frame 0 was asked for.
        flow: float32 `(B, N, 2, H, W)`, f_{0->i} in pixels (x, y); N is 1 where one later frame of each was asked for.
        visibility: bool `(B, N, H, W)`, on the grid of frame 0: whether its point is still seen in that frame.
        labels: int64 `(B, H, W)`, who owns each pixel of frame 0: 0 the background, 1, 2, ... the things of the
            caption from the farthest to the nearest, -1 scenery in front.
        captions: B descriptions of what is to be seen and how it moves.
        stride: int64 `(B,)`, source frames between two frames.
    """

    frames: Tensor
    flow: Tensor
    visibility: Tensor
    labels: Tensor
    captions: list[str]
    stride: Tensor


@dataclass(frozen=True)
class _Tile:
    """The picture of a layer.

    Attributes:
        scene: the number of its scene.
        layer: its number in this scene.
        pixels: float32 `(4, h, w)`, colours 0 to 1 times alpha, and alpha; `(1, h, w)` where only alpha counts.
        place: the map `(3, 3)` from its edges to the pixels of frame 0.
    """

    scene: int
    layer: int
    pixels: np.ndarray
    place: np.ndarray


def draw(
    plans: list[ScenePlan], sources: Sources, later: list[list[int]], whole: bool, device: torch.device
) -> WorldBatch:
    """Draws scenes.

    Args:
        plans: of B scenes.
        sources: what they are made of.
        later: for each scene the N frames, from 1 on, to which the fields go.
        whole: whether to draw all these frames, too, or only frame 0.
        device: where to draw.
    """
    size = sources.size
    cameras, moved = [], []  # of each scene: (1 + N, 3, 3), and of its layers (K, 1 + N, 3, 3)
    for plan, frames in zip(plans, later, strict=True):
        taus = frame_times(plan.stride, sources.num_frames)[[0, *frames]]
        cameras.append(np.stack([_square(camera_matrix(plan.camera, tau, size)) for tau in taus]))
        moved.append([np.stack([_square(layer_matrix(layer, tau, size)) for tau in taus]) for layer in plan.layers])
    tiles = [
        _tile(scene, number, layer, plan, sources)
        for scene, plan in enumerate(plans)
        for number, layer in enumerate(plan.layers)
    ]
    shown = slice(None) if whole else slice(0, 1)
    frames = _photos(plans, sources, [camera[shown] for camera in cameras], device)
    owner = torch.full((len(plans), size, size), -1, device=device)
    flow, groups = _flow(np.stack([camera[1:] for camera in cameras]), size, device), _groups(tiles, device)
    alphas, coloured = {}, {}
    for members, pixels in groups:
        back = np.stack([_texture(tile, moved[tile.scene][tile.layer][shown], pixels.shape[-1]) for tile in members])
        drawn = _sample(pixels, _grid(back, size, 1, device), frames.shape[1])
        for tile, picture in zip(members, drawn, strict=True):
            coloured[tile.scene, tile.layer] = picture  # (F, 4 or 1, H, W)
            alphas[tile.scene, tile.layer] = picture[0, -1]
    for tile in tiles:  # from the farthest to the nearest
        picture = coloured[tile.scene, tile.layer]
        if picture.shape[1] == 4:
            frames[tile.scene].mul_(1 - picture[:, 3:]).add_(picture[:, :3])
        mine = alphas[tile.scene, tile.layer] > 0.5
        owner[tile.scene].masked_fill_(mine, tile.layer)
    for tile in tiles:
        mine = owner[tile.scene] == tile.layer
        own = _flow(moved[tile.scene][tile.layer][None, 1:], size, device)[0]
        flow[tile.scene] = torch.where(mine, own, flow[tile.scene])
    visibility, labels = _visibility(groups, moved, owner, flow), _labels(plans, owner)
    words, strides = [plan.caption for plan in plans], [plan.stride for plan in plans]
    return WorldBatch(frames.mul_(2).sub_(1), flow, visibility, labels, words, torch.tensor(strides, device=device))


def _square(matrix: np.ndarray) -> np.ndarray:
    return np.vstack([matrix, [0.0, 0.0, 1.0]])


def _grid(matrices: np.ndarray, size: int, finer: int, device: torch.device) -> Tensor:
    """Where `matrices` (n, F, 3, 3) take the pixels of a frame, counted from its edges: (n, F * H, W, 2).

    `finer` pixels to a pixel of the frame.
    """
    m = torch.as_tensor(matrices[:, :, :2], dtype=torch.float32).to(device)[..., None, None]  # (n, F, 2, 3, 1, 1)
    axis = (torch.arange(size * finer, device=device) + 0.5) / finer
    along, down = m[:, :, :, 0] * axis + m[:, :, :, 2], m[:, :, :, 1] * axis[:, None]
    grid = along.new_empty((*along.shape[:2], len(axis), len(axis), 2))
    for i in (0, 1):
        torch.add(along[:, :, i], down[:, :, i], out=grid[..., i])
    return grid.flatten(1, 2)


def _sample(pictures: Tensor, grid: Tensor, frames: int) -> Tensor:
    """Samples n pictures (n, C, h, w) at a grid (n, F * H, W, 2) in [-1, 1]: (n, F, C, H, W)."""
    drawn = functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return drawn.unflatten(2, (frames, -1)).transpose(1, 2)


def _unit(width: int, height: int) -> np.ndarray:
    """The map from the edges of a picture to grid_sample's coordinates, in which it reaches from -1 to 1."""
    return np.array([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]])


def _photos(plans: list[ScenePlan], sources: Sources, cameras: list[np.ndarray], device: torch.device) -> Tensor:
    """The photos as the camera sees them, float32 `(B, F, 3, H, W)` in 0 to 1."""
    size, windows, maps = sources.size, [], []
    groups: dict[int, list[int]] = {}  # scenes by the size of the window: the same for a scene in any batch
    corners = np.array([[0, size, 0, size], [0, 0, size, size], [1, 1, 1, 1]])
    for scene, (plan, camera) in enumerate(zip(plans, cameras, strict=True)):
        crop = plan.crop
        copy, scale = sources.photos.copy_for(crop.photo, crop.density / SUPERSAMPLE)
        ratio = crop.density * scale
        to_copy = np.array([[ratio, 0, crop.origin[0] * scale], [0, ratio, crop.origin[1] * scale], [0, 0, 1.0]])
        if crop.mirrored:
            to_copy = np.array([[-1, 0, copy.shape[2]], [0, 1, 0], [0, 0, 1]]) @ to_copy
        to_copy = to_copy @ _TO_EDGES @ np.linalg.inv(camera) @ _TO_PIXELS  # (F, 3, 3)
        seen = (to_copy @ corners)[:, :2]
        left, top = np.maximum(np.floor(seen.min(axis=(0, 2))).astype(int) - 1, 0)
        right, bottom = np.ceil(seen.max(axis=(0, 2))).astype(int) + 1
        windows.append(copy[:, top:bottom, left:right])
        to_copy[:, 0, 2] -= left
        to_copy[:, 1, 2] -= top
        maps.append(to_copy)
        groups.setdefault(-(-max(windows[-1].shape) // WINDOW) * WINDOW, []).append(scene)
    frames = torch.empty((len(plans), len(cameras[0]), 3, size, size), device=device)
    for side, scenes in groups.items():
        canvas = torch.zeros((len(scenes), 3, side, side), dtype=torch.uint8)
        for place, scene in zip(canvas, scenes, strict=True):
            window = windows[scene]
            place[:, : window.shape[1], : window.shape[2]] = torch.from_numpy(window)
        grid = _grid(_unit(side, side) @ np.stack([maps[scene] for scene in scenes]), size, SUPERSAMPLE, device)
        fine = _sample(canvas.to(device).float(), grid, len(cameras[0]))
        rows = fine[..., ::2, :] + fine[..., 1::2, :]
        frames[scenes] = rows[..., ::2] + rows[..., 1::2]
    gains = torch.tensor([plan.crop.gains for plan in plans], device=device)[:, None, :, None, None]
    return frames.mul_(gains / (255 * SUPERSAMPLE**2)).clamp_(max=1)


def _tile(scene: int, number: int, layer: Layer, plan: ScenePlan, sources: Sources) -> _Tile:
    """The picture of a layer and its place in frame 0."""
    rng, photos = np.random.default_rng(layer.seed), sources.photos
    if layer.kind in ("own", "cutout"):
        pixels, place = _cut_out(layer, sources)
        if layer.kind == "own":
            # The thing is where the photo shows it.
            crop, box = plan.crop, sources.box(layer.source)
            width = photos.size(crop.photo)[0]
            left = width - box[2] if crop.mirrored else box[0]
            to_frame = np.array([[1, 0, -crop.origin[0]], [0, 1, -crop.origin[1]], [0, 0, crop.density]])
            to_frame /= crop.density
            place = _TO_PIXELS @ to_frame @ np.array([[1, 0, left], [0, 1, box[1]], [0, 0, 1]]) @ place
            return _Tile(scene, number, pixels[3:], place)
        box = sources.box(layer.source)
        span = np.array([box[2] - box[0], box[3] - box[1]])
        scale, middle = layer.size / span.max(), span / 2
        return _Tile(scene, number, pixels, _placed(layer, scale, middle) @ place)
    side = round(layer.size * (1.0 if layer.kind == "ridge" else DENSITY * _growth(layer, sources.size)))
    if layer.kind == "glyph":
        sprite = load_glyph(sources.glyphs[layer.source], side, layer.mirrored)
    elif layer.kind == "shape":
        colour, shape = layer.shape.split()
        sprite = plain_shape(shape, colour, side, rng)
    else:
        photo = photos.copy_for(layer.source, 2.0)[0].transpose(1, 2, 0)
        sprite = ridge(photo, side, rng) if layer.kind == "ridge" else photo_shape(layer.shape, photo, side, rng)
    pixels = sprite.pixels.transpose(2, 0, 1) / np.array([255, 255, 255, 1], np.float32)[:, None, None]
    return _Tile(scene, number, pixels, _placed(layer, layer.size / side, np.full(2, side / 2)))


def _growth(layer: Layer, size: int) -> float:
    """How many times more pixels a tile gets because the thing grows: enough for half of its growth."""
    last = layer.motion.matrix(1.0, (0.0, 0.0), layer.size / 2, size)[:, :2]
    return float(max(1.0, np.sqrt(abs(np.linalg.det(last)))) ** 0.5)


def _placed(layer: Layer, scale: float, middle: np.ndarray) -> np.ndarray:
    """The map from a picture with this middle to the pixels of frame 0: scaled, tilted, and moved to its centre."""
    cos, sin = scale * np.cos(layer.tilt), scale * np.sin(layer.tilt)
    centred = np.array([[1, 0, -middle[0]], [0, 1, -middle[1]], [0, 0, 1]])
    return np.array([[cos, -sin, layer.centre[0]], [sin, cos, layer.centre[1]], [0, 0, 1]]) @ centred


def _cut_out(layer: Layer, sources: Sources) -> tuple[np.ndarray, np.ndarray]:
    """A thing as its mask cuts it out of its photo.

    Returns:
        float32 `(4, h, w)`, and the map from its edges to those of the thing's box, pixels of the bank's largest copy.
    """
    thing, box = sources.things[layer.source], sources.box(layer.source)
    span = np.array([box[2] - box[0], box[3] - box[1]])
    growth = 1.0 if layer.kind == "own" else _growth(layer, sources.size)
    width, height = np.maximum(np.round(span * (layer.size * DENSITY * growth / span.max())), 4).astype(int).tolist()
    alpha = cv2.resize(sources.mask(layer.source), (width, height), interpolation=cv2.INTER_AREA)[
        ..., None
    ] / np.float32(255)
    pixels = np.zeros((height, width, 4), np.float32)
    pixels[..., 3:] = alpha
    if layer.kind == "cutout":
        number = sources.photos.numbers[thing.photo]
        copy, scale = sources.photos.copy_for(number, span.max() / max(width, height) / 1.5)
        # The window is a little smaller or larger than the box: its edges are whole pixels of the copy.
        left, top, right, bottom = np.round(box * scale).astype(int)
        window = copy[:, top : max(bottom, top + 1), left : max(right, left + 1)].transpose(1, 2, 0)
        colours = cv2.resize(window, (width, height), interpolation=cv2.INTER_AREA)
        pixels[..., :3] = colours * (alpha / 255)
    if layer.mirrored:
        pixels = pixels[:, ::-1]
    pixels = np.pad(pixels, ((RIM, RIM), (RIM, RIM), (0, 0))).transpose(2, 0, 1)
    x, y = span / (width, height)
    return pixels, np.array([[x, 0, -RIM * x], [0, y, -RIM * y], [0, 0, 1]])


def _groups(tiles: list[_Tile], device: torch.device) -> list[tuple[list[_Tile], Tensor]]:
    """Tiles of about the same size together, each group with its pixels `(n, C, T, T)`."""
    sizes: dict[tuple[int, int], list[_Tile]] = {}
    for tile in tiles:
        channels, height, width = tile.pixels.shape
        sizes.setdefault((channels, -(-max(height, width) // TILE) * TILE), []).append(tile)
    groups = []
    for (channels, side), members in sizes.items():
        pixels = np.zeros((len(members), channels, side, side), np.float32)
        for place, tile in zip(pixels, members, strict=True):
            place[:, : tile.pixels.shape[1], : tile.pixels.shape[2]] = tile.pixels
        groups.append((members, torch.from_numpy(pixels).to(device)))
    return groups


def _texture(tile: _Tile, moved: np.ndarray, side: int) -> np.ndarray:
    """The maps (F, 3, 3) from the edges of frames to grid_sample's coordinates in a tile."""
    return _unit(side, side) @ np.linalg.inv(moved @ tile.place) @ _TO_PIXELS


def _flow(matrices: np.ndarray, size: int, device: torch.device) -> Tensor:
    """How far `matrices` (n, N, 3, 3) move each pixel: (n, N, 2, H, W)."""
    m = torch.as_tensor((matrices - np.eye(3))[:, :, :2], dtype=torch.float32).to(device)[..., None, None]
    axis = torch.arange(size, dtype=torch.float32, device=device)
    return m[:, :, :, 0] * axis + m[:, :, :, 1] * axis[:, None] + m[:, :, :, 2]


def _visibility(
    groups: list[tuple[list[_Tile], Tensor]], moved: list[list[np.ndarray]], owner: Tensor, flow: Tensor
) -> Tensor:
    """Which pixels of frame 0 are still in the picture, and not behind a nearer thing: bool `(B, N, H, W)`."""
    size = flow.shape[-1]
    axis = torch.arange(size, dtype=torch.float32, device=flow.device)
    target = flow + torch.stack(torch.meshgrid(axis, axis, indexing="xy"))
    visible = ((target > -0.5) & (target < size - 0.5)).all(dim=2)
    for members, pixels in groups:
        scenes = torch.tensor([tile.scene for tile in members], device=flow.device)
        layers = torch.tensor([tile.layer for tile in members], device=flow.device)[:, None, None]
        # _texture counts from the edges; targets are pixels.
        back = np.stack([_texture(tile, moved[tile.scene][tile.layer][1:], pixels.shape[-1]) for tile in members])
        m = torch.as_tensor((back @ _TO_EDGES)[:, :, :2], dtype=torch.float32).to(flow.device)[..., None, None]
        there = target[scenes]  # (n, N, 2, H, W)
        x, y = there[:, :, 0], there[:, :, 1]
        grid = torch.stack([m[:, :, i, 0] * x + m[:, :, i, 1] * y + m[:, :, i, 2] for i in (0, 1)], dim=-1)
        cover = _sample(pixels[:, -1:], grid.flatten(1, 2), flow.shape[1])[:, :, 0]  # (n, N, H, W)
        clear = (cover <= 0.5) | (owner[scenes] >= layers)[:, None]
        for scene, free in zip([tile.scene for tile in members], clear, strict=True):
            visible[scene] &= free
    return visible


def _labels(plans: list[ScenePlan], owner: Tensor) -> Tensor:
    """Numbers the owners as `Drawn.labels` says."""
    most = max(len(plan.layers) for plan in plans)
    table = torch.zeros((len(plans), most + 1), dtype=torch.int64)
    for scene, plan in enumerate(plans):
        things = 0
        for number, layer in enumerate(plan.layers):
            things += bool(layer.names)
            table[scene, number + 1] = things if layer.names else -1
    index = (owner + 1).flatten(1)
    return table.to(owner.device).gather(1, index).view_as(owner)
