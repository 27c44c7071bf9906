"""Holds the motion of a control's things to the pixel, on the grid of the networks and on that of the photo.

The latents of Stage 1 are coarse, one for 8x8 pixels, so its decoded flow is soft at the border of a thing: pixels
around it move along in part, and its own outer pixels stay behind. But who took hold of a thing has said what it is and
how it moves. So the flow is made of two layers: that of the things is drawn, exactly, and that of the rest is the
network's, continued underneath the things from where they have no influence.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor

from mi2v_lite.control import MotionControl, displacements
from mi2v_lite.flow.continued import continued
from mi2v_lite.pipelines.layers import THING, Layers, grid


class HeldThings:
    """The things of a control on a grid of its size.

    Attributes:
        control: the control.
        map: `(H, W)` uint8, which thing decides on each pixel, 0 for none; see `MotionControl.thing_map`.
        motions: for each thing `(N, 2, 3)`, see `Thing.motion`.
    """

    def __init__(self, control: MotionControl, num_frames: int) -> None:
        self.control = control
        self.map = control.thing_map()
        self.motions = [thing.motion(num_frames) for thing in control.things]

    def write(self, field: np.ndarray, index: int) -> np.ndarray:
        """Sets the pixels of the things in one field.

        Args:
            field: f_{0->index+1}, `(2, H, W)`; it is changed.
            index: from 0 to N - 1.

        Returns:
            The field.
        """
        for number, motion in enumerate(self.motions, start=1):
            part = self.map == number
            field[:, part] = displacements(motion[index], part)
        return field

    def write_all(self, flow: np.ndarray) -> np.ndarray:
        """A copy of all fields, `(N, 2, H, W)`, with the things in them."""
        return np.stack([self.write(field.copy(), index) for index, field in enumerate(flow)])

    def on_grid(self, h: int, w: int) -> HeldThings:
        """The same things on another grid."""
        return HeldThings(self.control.resized(w, h), len(self.motions[0]))

    def beneath(self, flow: Tensor) -> Tensor:
        """The motion of all that is no thing, continued underneath the things.

        Args:
            flow: `(N, 2, h, w)`, on any grid.

        Returns:
            A flow of the same shape.
        """
        touched = cv2.resize((self.map > 0).astype(np.float32), flow.shape[:1:-1], interpolation=cv2.INTER_AREA) > 0
        return torch.from_numpy(continued(flow.float().cpu().numpy(), touched))

    def in_front(self, layers: Layers, order: np.ndarray, thing: np.ndarray) -> tuple[Layers, np.ndarray, np.ndarray]:
        """Puts the things in front of all else, in the order in which they were drawn.

        Those that move apart from the backdrop uncover it, as the things do that `sort_layers` finds.

        Args:
            layers: what lies beneath the things, on a grid of h x w cells.
            order: `(H, W)`, the order of these layers on the control's grid.
            thing: `(H, W)`, how much each pixel belongs to things among them, from 0 to 1.

        Returns:
            The three with the things.
        """
        h, w = layers.order.shape
        small = self.on_grid(h, w)
        layers = replace(layers, order=layers.order / 2, things=layers.things.copy())
        order, thing = order / 2, np.where(self.map > 0, 0, thing)
        layers.things[small.map > 0] = False
        for number, motion in enumerate(small.motions, start=1):
            cells, pixels = small.map == number, self.map == number
            place = 0.5 + 0.5 * number / len(small.motions)
            layers.order[cells], order[pixels] = place, place
            apart = displacements(motion, cells) - layers.backdrop @ grid(h, w)[:, cells]  # (N, 2, n)
            if cells.any() and np.linalg.norm(apart, axis=1).mean() > THING:
                layers.things[cells], thing[pixels] = True, 1
        return layers, order, thing


def hold_things(flow: Tensor, control: MotionControl, reach: int) -> Tensor:
    """Makes a predicted flow obey the things of a control.

    Args:
        flow: what the network predicts, `(N, 2, H, W)`.
        control: what was drawn, of the size of the flow.
        reach: how far the decoder of the flow blurs a border, in pixels. The flow of everything that is so near to a
            thing is continued from further away, unless the control says how it moves.

    Returns:
        `(N, 2, H, W)`, the same tensor if there is no thing.
    """
    if not control.things:
        return flow
    held = HeldThings(control, len(flow))
    near = cv2.dilate((held.map > 0).astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8)) > 0
    _, drawn = control.field(1)
    elsewhere = (drawn[0, 0].numpy() > 0) & (held.map == 0)
    fields = continued(flow.float().cpu().numpy(), near & ~elsewhere)
    return torch.from_numpy(held.write_all(fields)).to(flow)
