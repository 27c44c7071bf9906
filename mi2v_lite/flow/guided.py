"""Enlarging a small motion field to the grid of a large photo, with its edges where the photo has them (notebook 03).

The networks work on a small grid, and photos are large. Where two things that move differently touch, a field that is
enlarged bilinearly is wrong: in a band as wide as a cell of the small grid, it passes through motions that neither of
them has. Each cell k of the small grid, with its centre at x_k, is therefore given a plane instead of one displacement,

    f(p) = f_k + G_k (p - x_k),

which is fitted by weighted least squares to those cells around it that look like it and move like it. This also removes
noise from a predicted field, and it is exact where the motion is affine. A pixel of the photo then takes a weighted
mean of the planes of the nine cells around it. Their weights depend on how near they are and how much they look like
the pixel, and planes that disagree with that of the best cell get none.

The weights are those of the joint bilateral filter (Kopf et al., "Joint Bilateral Upsampling", SIGGRAPH 2007). Fitting
local planes is the idea of the guided filter (He et al., ECCV 2010), here in space and not in colour. Motion-I2V has no
such step.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mi2v_lite.flow.preimage import bands

FIT_RADIUS = 4  # cells on each side to which a plane is fitted
FIT_SIGMA = 3.0  # cells: the weight of a cell falls off with its distance
FIT_COLOUR = 40.0  # CIELAB units: and with the difference of its colour
# And with the difference of its motion, in cells. Things turn and come nearer, so this width grows with the distance.
FIT_MOTION, FIT_MOTION_SLOPE = 1.0, 0.3
FIT_ROUNDS = 2  # the second fit uses the motions and colours of the first
FIT_RIDGE = 0.05  # keeps the slope small where a plane is fitted to few cells
PIXEL_COLOUR = 25.0  # CIELAB units: how much a pixel may differ from the colour of its cell
LEAST_ALIKE = 1e-3  # added to the likeness of colours, so that a pixel like none of its cells takes the nearest
PLANES_AGREE = 1.0  # cells by which two planes may differ where they should continue each other
BAND = 2**20  # pixels that are processed at a time, which bounds the memory for large photos


class GuidedEnlarger:
    """Enlarges the flows of a clip to the grid of its photo.

    Equation: guided-enlargement

    Attributes:
        flow: the fitted flows on the small grid, `(N, 2, h, w)` float32, in pixels of that grid.
        size: (H, W) of the photo.
    """

    def __init__(self, flow: Tensor, photo: np.ndarray) -> None:
        """Fit the planes of all cells, and compute the weights of all pixels.

        Args:
            flow: f_{0->i}, `(N, 2, h, w)` in pixels of its own grid, finite, on any device.
            photo: frame 0, uint8 `(H, W, 3)`, RGB, of any size. Its aspect ratio may differ a little from the flow's.

        Raises:
            ValueError: if the shape or type of one of them is wrong.
        """
        if flow.ndim != 4 or flow.shape[1] != 2 or 0 in flow.shape:
            raise ValueError(f"flow must have the shape (N, 2, h, w), got {tuple(flow.shape)}")
        if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8:
            raise ValueError(f"photo must be uint8 (H, W, 3), got {photo.dtype} {photo.shape}")
        h, w = flow.shape[-2:]
        self.size = photo.shape[:2]
        small = cv2.resize(photo, (w, h), interpolation=cv2.INTER_AREA)
        self.flow, self._slopes, colours = _planes(flow.float().cpu(), _lab(small))
        # The cell in which each row and each column of pixels lies, and the place within the cell, from -0.5 to 0.5.
        (self._row, self._down), (self._column, self._right) = (
            _cells(large, side) for large, side in zip(self.size, (h, w), strict=True)
        )
        self._weights = self._pixel_weights(photo, colours)

    def __call__(self, index: int) -> Tensor:
        """Enlarge one flow.

        Args:
            index: from 0 to N - 1.

        Returns:
            f_{0->index+1} on the grid of the photo, `(2, H, W)` float32, in pixels of the photo.
        """
        (height, width), (h, w) = self.size, self.flow.shape[-2:]
        flow, slopes = self.flow[index], self._slopes[index]  # (2, h, w), (2 components, 2 axes, h, w)
        planes = torch.cat([flow, slopes.flatten(0, 1)])  # (6, h, w)
        out = torch.empty(2, height, width)
        for rows in bands(height, width, BAND):
            mixed = self._mixed(planes, rows, sloped=True)
            slope = mixed[2:].unflatten(0, (2, 2))
            out[:, rows] = mixed[:2] + slope[:, 0] * self._right + slope[:, 1] * self._down[rows, None]
        return out * torch.tensor([width / w, height / h]).view(2, 1, 1)

    def spread(self, values: Tensor) -> Tensor:
        """Enlarge one number for each cell, with the same weights as the flow and thus with the same edges.

        Args:
            values: `(h, w)`.

        Returns:
            `(H, W)` float32.
        """
        out = torch.empty(self.size)
        for rows in bands(*self.size, BAND):
            out[rows] = self._mixed(values[None], rows, sloped=False)[0]
        return out

    def _mixed(self, planes: Tensor, rows: slice, sloped: bool) -> Tensor:
        """Weighted means over the nine cells around each pixel, `(C, rows, W)`.

        With `sloped`, the planes of the neighbouring cells are read at the centre of the own cell: the first two
        channels are displacements, and the other four are their slopes.
        """
        h, w = planes.shape[-2:]
        padded = F.pad(planes[None], (1, 1, 1, 1), mode="replicate")[0]
        at = self._row[rows]
        own = planes[:, at][:, :, self._column]
        total = own.clone()
        for number, (dy, dx) in enumerate(_NINE):
            if (dy, dx) == (0, 0):
                continue
            other = padded[:, 1 + dy : 1 + dy + h, 1 + dx : 1 + dx + w]
            if sloped:
                x, y = other[2::2], other[3::2]
                other = torch.cat([other[:2] - x * dx - y * dy, other[2:]])
            # By weighting differences, weights in half precision cause no error where all cells agree.
            total += self._weights[number, rows].float() * (other[:, at][:, :, self._column] - own)
        return total

    def _pixel_weights(self, photo: np.ndarray, colours: Tensor) -> Tensor:
        """The weights of the nine cells around each pixel, `(9, H, W)` float16, which add up to 1."""
        h, w = colours.shape[-2:]
        alike = _agreement(self.flow, self._slopes)  # (25, h, w)
        near = [_spline(self._down), _spline(self._right)]  # (3, H), (3, W)
        weights = torch.empty(9, *self.size, dtype=torch.float16)
        for rows in bands(*self.size, BAND):
            pixels = _lab(photo[rows])
            at, column = self._row[rows], self._column
            band = torch.zeros(9, len(at), len(column))
            for number, (dy, dx) in enumerate(_NINE):
                y, x = at + dy, column + dx
                inside = ((y >= 0) & (y < h))[:, None] & ((x >= 0) & (x < w))
                cell = colours[:, y.clamp(0, h - 1)][:, :, x.clamp(0, w - 1)]
                looks = torch.exp(-(cell - pixels).square().sum(0) / (2 * PIXEL_COLOUR**2)) + LEAST_ALIKE
                band[number] = near[0][dy + 1, rows, None] * near[1][dx + 1] * looks * inside
            best = band.argmax(0)
            best_y, best_x = best // 3 - 1, best % 3 - 1
            place = (at[:, None] + best_y).clamp(0, h - 1) * w + (column + best_x).clamp(0, w - 1)
            for number, (dy, dx) in enumerate(_NINE):
                offset = (dy - best_y + 2) * 5 + (dx - best_x + 2)
                band[number] *= alike.flatten()[offset * (h * w) + place]
            weights[:, rows] = (band / band.sum(0)).half()
        return weights


_NINE = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]


def _lab(picture: np.ndarray) -> Tensor:
    """A uint8 picture `(H, W, 3)` in CIELAB, `(3, H, W)`, each channel from 0 to 255."""
    lab = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2LAB)
    return torch.from_numpy(lab).permute(2, 0, 1).float()


def _cells(large: int, small: int) -> tuple[Tensor, Tensor]:
    """For each of `large` pixels in a line, its cell among `small` ones, and its place within that cell."""
    place = (torch.arange(large) + 0.5) * (small / large) - 0.5
    cell = place.round().long().clamp(0, small - 1)
    return cell, place - cell


def _spline(place: Tensor) -> Tensor:
    """Quadratic B-spline weights of the previous cell, the own cell and the next one, `(3, L)`; they add up to 1."""
    place = place.clamp(-0.5, 0.5)
    return torch.stack([(0.5 - place).square() / 2, 0.75 - place.square(), (0.5 + place).square() / 2])


def _window(radius: int) -> list[tuple[int, int]]:
    """The offsets (dy, dx) in a square around a cell."""
    span = range(-radius, radius + 1)
    return [(dy, dx) for dy in span for dx in span]


def _planes(flow: Tensor, colours: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit the plane of each cell for each flow.

    Args:
        flow: `(N, 2, h, w)`.
        colours: `(3, h, w)`.

    Returns:
        The values of the planes at the centres of their cells, `(N, 2, h, w)`; their slopes
        `(N, 2 components, 2 axes, h, w)`; and the mean colours of the cells to which they were fitted, `(3, h, w)`.
    """
    count, _, h, w = flow.shape
    radius = FIT_RADIUS
    fields = flow.flatten(0, 1)  # (2N, h, w)
    some = slice(2, None, 3) if count > 4 else slice(None)  # these frames are enough to tell two motions apart
    inside = F.pad(torch.ones(1, h, w), (radius,) * 4)
    for _ in range(FIT_ROUNDS):
        tracks = fields.unflatten(0, (count, 2))[some].flatten(0, 1)
        padded = [F.pad(x[None], (radius,) * 4, mode="replicate")[0] for x in (fields, tracks, colours)]
        moments, sums = torch.zeros(h, w, 3, 3), torch.zeros(3, 2 * count, h, w)
        seen, weight = torch.zeros_like(colours), torch.zeros(h, w)
        for dy, dx in _window(radius):
            there = (..., slice(radius + dy, radius + dy + h), slice(radius + dx, radius + dx + w))
            far = float(np.hypot(dy, dx))
            field, track, colour = (x[there] for x in padded)
            apart = (track - tracks).square().sum(0) * (2 / len(tracks))
            alike = (colour - colours).square().sum(0) / FIT_COLOUR**2
            alike = alike + apart / (FIT_MOTION + FIT_MOTION_SLOPE * far) ** 2 + (far / FIT_SIGMA) ** 2
            own = torch.exp(-alike / 2) * inside[there][0]
            terms = torch.tensor([1.0, dx, dy])
            moments += own[..., None, None] * torch.outer(terms, terms)
            weighted = own * field
            for term, total in zip(terms, sums, strict=True):
                total += term * weighted
            seen, weight = seen + own * colour, weight + own
        moments += torch.diag(torch.tensor([0.0, FIT_RIDGE, FIT_RIDGE]))
        fitted = torch.einsum("hwab,bchw->achw", torch.linalg.inv(moments), sums)  # (3, 2N, h, w)
        fields, colours = fitted[0], seen / weight
    slopes = fitted[1:].transpose(0, 1).unflatten(0, (count, 2))
    return fields.unflatten(0, (count, 2)), slopes, colours


def _agreement(flow: Tensor, slopes: Tensor) -> Tensor:
    """How well the planes of the 5x5 cells around each cell continue its own plane, `(25, h, w)`, from 0 to 1."""
    h, w = flow.shape[-2:]
    some = slice(2, None, 4) if len(flow) > 4 else slice(None)
    flow, slopes = flow[some], slopes[some]
    planes = torch.cat([flow[:, :, None], slopes], dim=2)  # (n, 2, 3, h, w)
    padded = F.pad(planes.flatten(0, 2)[None], (2,) * 4, mode="replicate")[0].unflatten(0, planes.shape[:3])
    agreement = []
    for dy, dx in _window(2):
        centre, x, y = padded[..., 2 + dy : 2 + dy + h, 2 + dx : 2 + dx + w].unbind(2)
        apart = (centre - x * dx - y * dy - flow).norm(dim=1).mean(0)
        agreement.append(torch.exp(-((apart / PLANES_AGREE) ** 2) / 2))
    return torch.stack(agreement)
