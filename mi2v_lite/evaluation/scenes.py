"""Who moves: scenes whose camera rests, where the caption or a single drag names one thing (notebooks 02 and 04).

The other measures look at a picture as a whole, and there a wrong thing that moves can hide behind the right one. Here
each thing is looked at by itself: the scenes of `LiteWorld`, and the outlines of things in photos, say which pixels of
frame 0 belong to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor

from mi2v_lite.control import Drag, MotionControl, select_thing
from mi2v_lite.control.select import innermost, iou
from mi2v_lite.data.things import read_mask
from mi2v_lite.evaluation.stages import Numbers, noise
from mi2v_lite.evaluation.things import click_and_box
from mi2v_lite.io.images import read_image
from mi2v_lite.io.pixels import to_uint8
from mi2v_lite.pipelines import MotionI2VPipeline

if TYPE_CHECKING:
    from mi2v_lite.data.lite_world import LiteWorld, WorldBatch

AT_REST = 1.0  # pixels: what moves less than this on average, rests
GOES = 4.0  # pixels: what moves at least so far on average, is asked to follow
SMALLEST = 60  # pixels of a thing that is measured
HALF_RIGHT = 0.5**0.5  # the cosine of 45 degrees
DRAGGED = 20.0 / 128  # how far a thing of a photo is dragged, as a share of the photo's shorter side
CLOSE = 5.0 / 128  # how far a pixel of it may be from where it belongs in the end
WAYS = ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))


def resting_scenes(world: LiteWorld, count: int, seed: int) -> Iterator[tuple[int, WorldBatch]]:
    """Draws scenes whose camera rests and in which at least one thing goes somewhere.

    Args:
        world: the held-out world.
        count: how many scenes.
        seed: the first seed that is tried.

    Yields:
        the seed and the scene, a batch of one.
    """
    given = 0
    while given < count:
        scene = world.batch([seed], later=None)
        means = mean_motion(scene.flow[0, -1], scene.labels[0])
        if means[0].norm() < AT_REST / 2 and any(way.norm() >= GOES for label, way in means.items() if label > 0):
            yield seed, scene
            given += 1
        seed += 1


def mean_motion(flow: Tensor, labels: Tensor) -> dict[int, Tensor]:
    """The mean displacement of each thing that is large enough to be measured.

    Args:
        flow: `(2, H, W)` in pixels.
        labels: `(H, W)`: 0 the background, 1, 2, ... the things.

    Returns:
        For each label from 0 on `(2,)` in pixels.
    """
    present = [int(label) for label in labels.unique() if label >= 0]
    return {
        label: flow[:, labels == label].mean(dim=1)
        for label in present
        if label == 0 or int((labels == label).sum()) >= SMALLEST
    }


def prompts(pipe: MotionI2VPipeline, scene: WorldBatch, seed: int) -> Numbers:
    """Gives the caption to Stage 1: does the thing that it names move the right way, and does all else rest?"""
    predicted = _predicted(pipe, scene, seed, scene.captions[0])
    true, labels = scene.flow[0, -1].cpu(), scene.labels[0].cpu()
    asked, got = mean_motion(true, labels), mean_motion(predicted, labels)
    right, share = [], []
    for label, way in asked.items():
        if label > 0 and way.norm() >= GOES:
            along = got[label] @ way / way.norm()
            right.append(float(along >= HALF_RIGHT * got[label].norm() and got[label].norm() >= AT_REST))
            share.append(float(along / way.norm()))
    resting = [got[label].norm() < AT_REST for label, way in asked.items() if way.norm() < AT_REST / 2]
    numbers: Numbers = {
        "prompts.direction_accuracy": sum(right) / len(right),
        "prompts.followed": sum(share) / len(share),
    }
    if resting:
        numbers["prompts.others_rest"] = float(all(resting))
    return numbers


def thing_drags(pipe: MotionI2VPipeline, scene: WorldBatch, seed: int) -> Numbers:
    """Gives a single drag on a thing to the ControlNet alone, without a caption and without a mask."""
    true, labels = scene.flow[0].cpu(), scene.labels[0].cpu()
    means = mean_motion(true[-1], labels)
    label = max((label for label in means if label > 0), key=lambda label: float(means[label].norm()))
    x, y = innermost((labels == label).numpy())
    height, width = labels.shape
    points = [(x + float(way[0]), y + float(way[1])) for way in (torch.zeros(2), *true[2::3, :, y, x])]
    if any(not (0 <= a <= width - 1 and 0 <= b <= height - 1) for a, b in points):
        return {}
    control = MotionControl(size=(width, height), drags=[Drag(points)])
    predicted = _predicted(pipe, scene, seed, "", control, hold_control=False)
    return {"drags.thing_epe_px_network": (predicted - true[-1]).norm(dim=0)[labels == label].mean().item()}


def photo_drags(pipe: MotionI2VPipeline, world: LiteWorld, number: int, seed: int) -> Numbers:
    """Drags an outlined thing of a real photo, with nothing but the drag: how much of it comes along?

    Args:
        pipe: both stages.
        world: its sources have the photos and the outlines.
        number: which of the world's things.
        seed: of the noise; the ways of the drags, left, right, up and down, follow each other.
    """
    photo, mask = _outlined(world, number)
    height, width = mask.shape
    x, y = innermost(mask)
    share = []
    for way in WAYS:
        goal = np.array([x, y]) + np.array(way) * DRAGGED * min(height, width)
        if (goal < 0).any() or (goal > (width - 1, height - 1)).any():
            continue
        drag = Drag([(float(x), float(y)), tuple(map(float, goal))])
        control = MotionControl(size=(width, height), drags=[drag])
        flow = pipe.predict_motion(photo, "", control, generator=noise(seed)).flow[0, -1].cpu()  # (2, h, w)
        h, w = flow.shape[1:]
        cells = cv2.resize(mask.astype(np.float32), (w, h), interpolation=cv2.INTER_AREA) > 0.5
        wanted = torch.tensor(way).view(2, 1) * DRAGGED * min(h, w)
        error = (flow[:, torch.from_numpy(cells)] - wanted).norm(dim=0)
        share.append((error <= CLOSE * min(h, w)).float().mean().item())
    return {"photos.follows": float(np.mean(share))} if share else {}


def photo_outlines(world: LiteWorld, number: int, seed: int) -> Numbers:
    """Clicks an outlined thing of a real photo, then draws a box around it as well: is it found whole?

    The outline itself was made by GrabCut, from more marks, and checked by eye. It is no ground truth: errors that both
    make alike do not show.

    Args:
        world: its sources have the photos and the outlines.
        number: which of the world's things.
        seed: of the click and of the box.
    """
    photo, mask = _outlined(world, number)
    point, box = click_and_box(mask, seed + number)
    return {
        "photos.iou_click": iou(select_thing(photo, [point]), mask),
        "photos.iou_click_box": iou(select_thing(photo, [point], box=box), mask),
    }


def _outlined(world: LiteWorld, number: int) -> tuple[np.ndarray, np.ndarray]:
    """A photo, uint8 `(H, W, 3)`, and the mask of a thing in it, bool `(H, W)`."""
    sources = world.sources
    thing = sources.things[number]
    photo = np.asarray(read_image(sources.photos.paths[sources.photos.numbers[thing.photo]]))
    mask = np.zeros(photo.shape[:2], bool)
    left, top, right, bottom = thing.box
    mask[top:bottom, left:right] = read_mask(sources.folder, thing) > 0
    return photo, mask


def _predicted(pipe: MotionI2VPipeline, scene: WorldBatch, seed: int, *words: object, **options: object) -> Tensor:
    """The last field `(2, H, W)` that Stage 1 predicts for a scene."""
    photo = to_uint8(scene.frames[0, :1].cpu())[0]
    stride = int(scene.stride[0])
    return pipe.predict_motion(photo, *words, stride=stride, generator=noise(seed), **options).flow[0, -1].cpu()
