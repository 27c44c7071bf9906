"""Warping with a motion field: forward splatting, the same as a sparse matrix, and backward warping.

The motion-augmented temporal attention of Motion-I2V (arXiv 2401.15977, section 3.3) needs z'_i = W(z_0, f_{0->i}),
the features of frame 0 splatted to every later frame. Notebook 01 builds the splat, notebook 03 uses it.

In average splatting, the value v(p) of a source pixel p with the flow f(p) is distributed to the four pixels q around
its target p + f(p), with the bilinear weights b, and each pixel takes the weighted mean of what lands on it:

    out(q) = sum_p b(q, p + f(p)) v(p) / (sum_p b(q, p + f(p)) + eps)

Where one of the four pixels lies outside the frame, that share is dropped; nothing is moved to the border. A pixel
whose flow is nan or infinite is dropped as a whole. Pixels on which nothing lands (holes) are exactly 0.

Softmax splatting, where important pixels win: Niklaus and Liu, "Softmax Splatting for Video Frame Interpolation",
CVPR 2020.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def _check_pair(features: Tensor, flow: Tensor, name: str) -> None:
    if features.ndim != 4:
        raise ValueError(f"{name} must have the shape (B, C, H, W), got {tuple(features.shape)}")
    expected = (features.shape[0], 2, *features.shape[-2:])
    if tuple(flow.shape) != expected:
        raise ValueError(
            f"flow must have the shape {expected} to go with {name} {tuple(features.shape)}, got {tuple(flow.shape)}; "
            "resize it with mi2v_lite.flow.resize if the size differs"
        )


def _compute_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 if one of the tensors has it, otherwise float32: half precision cannot represent pixel coordinates."""
    return torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32


def _targets(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Where each pixel lands: x and y, (M, H*W) each. Targets that are far outside or not finite are moved close by."""
    height, width = flow.shape[-2:]
    grid_y, grid_x = torch.meshgrid(
        torch.arange(height, device=flow.device, dtype=flow.dtype),
        torch.arange(width, device=flow.device, dtype=flow.dtype),
        indexing="ij",
    )
    finite = torch.isfinite(flow).all(dim=1)
    outside = flow.new_tensor(-2.0)
    # Integers could not hold a target that is far away; at -2 and at size + 1 all four corners are outside as well.
    x = torch.where(finite, grid_x + flow[:, 0], outside).clamp(-2, width + 1)
    y = torch.where(finite, grid_y + flow[:, 1], outside).clamp(-2, height + 1)
    return x.flatten(1), y.flatten(1)


def _corners(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Indices and bilinear weights of the four corners of each target, both (M, 4, H*W).

    The index H*W means that the corner lies outside the frame. Gradients to the flow go through the weights.
    """
    height, width = flow.shape[-2:]
    x, y = _targets(flow)
    west, north = x.detach().floor(), y.detach().floor()
    east, south = west + 1, north + 1
    weights = torch.stack(
        [(east - x) * (south - y), (x - west) * (south - y), (east - x) * (y - north), (x - west) * (y - north)], dim=1
    )
    cx = torch.stack([west, east, west, east], dim=1).long()
    cy = torch.stack([north, north, south, south], dim=1).long()
    inside = (cx >= 0) & (cx < width) & (cy >= 0) & (cy < height)
    return torch.where(inside, cy * width + cx, height * width), weights


def _scatter(values: Tensor, index: Tensor, weights: Tensor, size: tuple[int, int]) -> Tensor:
    """Add up weighted values (B, C, H*W) at their corners (B, 4, H*W): (B, C, H, W)."""
    batch, channels, pixels = values.shape
    # There is one cell more than there are pixels. It collects what falls outside, and is then cut off.
    out = values.new_zeros(batch, channels, pixels + 1)
    for corner in range(4):
        target = index[:, corner, None].expand(-1, channels, -1)
        out = out.scatter_add(2, target, values * weights[:, corner, None])
    return out[..., :pixels].unflatten(2, size)


def splat_average(features: Tensor, flow: Tensor, eps: float = 1e-7) -> tuple[Tensor, Tensor]:
    """Forward-warp features by average splatting (the formula at the head of this file).

    This is the plain form, which also has gradients to the flow. Where one flow warps many features, `SplatOperator`
    is faster.

    Equation: splatting

    Args:
        features: (B, C, H, W), any range, any float dtype.
        flow: (B, 2, H, W), pixels, (x right, y down), on the grid of `features`. Pixels whose flow is nan or infinite
            are dropped.
        eps: is added to the sum of weights, as in the released code. A pixel on which a weight of less than about 1e-5
            lands therefore becomes visibly darker.

    Returns:
        `out` (B, C, H, W) in the dtype of `features`, with holes exactly 0, and `weight` (B, 1, H, W), the sum of
        the bilinear weights that landed on each pixel; where it is 0 there is a hole.

    Raises:
        ValueError: if the shapes do not fit.

    Source: the operator W of Stage 2 in Motion-I2V, section 3.3.
    """
    _check_pair(features, flow, "features")
    dtype, size = _compute_dtype(features, flow), features.shape[-2:]
    index, weights = _corners(flow.to(dtype))
    values = features.to(dtype).flatten(2)
    weight = _scatter(torch.ones_like(values[:, :1]), index, weights, size)
    out = _scatter(values, index, weights, size) / (weight + eps)
    return out.to(features.dtype), weight


def travelled(flow: Tensor) -> tuple[Tensor, Tensor]:
    """How far what lands on each pixel has come: the flow, splatted along itself.

    Args:
        flow: f_{0->i}, (B, N, 2, H, W), pixels, (x right, y down). Pixels whose flow is nan or infinite are dropped.

    Returns:
        `moved` (B, N, 2, H, W), pixels, on the grid of frame i, 0 where nothing lands; and `landed` (B, N, 1, H, W)
        bool, which is False there.
    """
    moved, weight = splat_average(flow.flatten(0, 1), flow.flatten(0, 1))
    return moved.unflatten(0, flow.shape[:2]), (weight > 0).unflatten(0, flow.shape[:2])


def splat_softmax(features: Tensor, flow: Tensor, importance: Tensor, eps: float = 1e-7) -> tuple[Tensor, Tensor]:
    """Forward-warp features by softmax splatting: where pixels collide, the more important one wins.

    In the formula of average splatting, b * exp(importance) takes the place of b. To keep the exponential in range, the
    largest importance among the pixels that reach a target is subtracted at that target. This leaves the quotient as it
    is, and it does not make unimportant regions vanish against `eps`, as subtracting one maximum for the whole image
    would.

    Args:
        features: (B, C, H, W), any range, any float dtype.
        flow: (B, 2, H, W), pixels, (x right, y down), on the grid of `features`. Pixels whose flow is nan or infinite
            are dropped.
        importance: (B, 1, H, W), finite. Only differences matter: a constant importance gives `splat_average`.
        eps: is added to the sum of weights.

    Returns:
        `out` (B, C, H, W) in the dtype of `features`, with holes exactly 0, and `weight` (B, 1, H, W), the sum of
        b * exp(importance - largest importance there); where it is 0 there is a hole.

    Raises:
        ValueError: if the shapes do not fit.

    Source: Niklaus and Liu, CVPR 2020, whose Z is `importance`.
    """
    _check_pair(features, flow, "features")
    expected = (features.shape[0], 1, *features.shape[-2:])
    if tuple(importance.shape) != expected:
        raise ValueError(f"importance must have the shape {expected}, got {tuple(importance.shape)}")
    dtype, size = _compute_dtype(features, flow, importance), features.shape[-2:]
    index, weights = _corners(flow.to(dtype))
    level = importance.to(dtype).flatten(1)

    # The quotient does not depend on the maximum, so it needs no gradient. A corner of weight 0 must not set it.
    candidates = torch.where(weights.detach() > 0, level.detach()[:, None].expand_as(weights), -torch.inf)
    largest = level.new_full((level.shape[0], level.shape[1] + 1), -torch.inf)
    largest = largest.scatter_reduce(1, index.flatten(1), candidates.flatten(1), "amax")
    exponent = level[:, None] - largest.gather(1, index.flatten(1)).view_as(weights)
    exponent = torch.where(torch.isfinite(exponent), exponent, 0)
    # The exponent is kept from exceeding 0 by rounding. To clamp it directly would, in some versions of torch, lose the
    # gradient at 0, which is where the most important pixel stands; what is subtracted here has no gradient.
    weights = weights * (exponent - exponent.detach().clamp(min=0)).exp()

    values = features.to(dtype).flatten(2)
    weight = _scatter(torch.ones_like(values[:, :1]), index, weights, size)
    out = _scatter(values, index, weights, size) / (weight + eps)
    return out.to(features.dtype), weight


class _Rows(NamedTuple):
    """A sparse matrix, row by row (CSR): row r has the entries `starts[r]` to `starts[r + 1]`."""

    starts: Tensor
    columns: Tensor
    values: Tensor

    @staticmethod
    def build(rows: Tensor, columns: Tensor, values: Tensor, count: int) -> _Rows:
        """A matrix of `count` rows from (row, column, value) triplets in any order."""
        order = torch.argsort(rows, stable=True)
        counts = torch.bincount(rows, minlength=count)
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return _Rows(starts, columns[order], values[order])

    def transposed(self, count: int) -> _Rows:
        """The transposed matrix, where `count` is the number of columns of this one."""
        rows = torch.arange(len(self.starts) - 1, device=self.starts.device)
        return _Rows.build(self.columns, torch.repeat_interleave(rows, self.starts.diff()), self.values, count)

    def product(self, dense: Tensor) -> Tensor:
        """The product with a dense float32 matrix (columns, C), in float32 even under autocast; empty rows give 0."""
        with torch.autocast(dense.device.type, enabled=False):
            # A weighted embedding bag is a sparse times dense product; it is twice as fast here as torch.sparse.
            return F.embedding_bag(
                self.columns, dense, self.starts, mode="sum", per_sample_weights=self.values, include_last_offset=True
            )


class _SparseProduct(torch.autograd.Function):
    """The operator's matrix times a dense one; the backward pass multiplies by the transposed matrix."""

    @staticmethod
    def forward(ctx, dense: Tensor, operator: SplatOperator) -> Tensor:
        ctx.operator = operator
        return operator._rows.product(dense)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.operator._transposed().product(gradient.contiguous()), None


class SplatOperator:
    """Average splatting as a sparse matrix, which is built once from a motion field and applied to many features.

    The matrix is float32, its rows are normalised, and it is block diagonal over the batch: row (b, n, y, x) only has
    entries in the columns (b, y', x'), so the items of a batch never mix. Up to rounding it equals `splat_average` of
    each frame. Gradients go to the features, not to the flow.

    Equation: splatting

    Attributes:
        shape: (B, N, H, W).
        valid: (B, N, 1, H, W) bool, True where something lands. Holes are False here and exactly 0 in the result.
        device: where the matrix is stored.
    """

    def __init__(self, flow: Tensor, eps: float = 1e-7) -> None:
        """Build the matrix.

        Args:
            flow: f_{0->i}, (B, N, 2, H, W), pixels, (x right, y down), on the grid of the features that it will warp.
                Pixels whose flow is nan or infinite are dropped.
            eps: is added to the sums of weights, as in `splat_average`.

        Raises:
            ValueError: if `flow` has another shape.
        """
        if flow.ndim != 5 or flow.shape[2] != 2:
            raise ValueError(f"flow must have the shape (B, N, 2, H, W), got {tuple(flow.shape)}")
        batch, frames, _, height, width = flow.shape
        self.shape = (batch, frames, height, width)
        pixels = height * width
        with torch.no_grad():
            index, weights = _corners(flow.detach().float().flatten(0, 1))
            keep = (index < pixels) & (weights > 0)
            item = torch.arange(batch * frames, device=flow.device)[:, None, None]
            source = torch.arange(pixels, device=flow.device)
            rows = (item * pixels + index)[keep]
            cols = ((item // frames) * pixels + source).expand_as(index)[keep]
            values = weights[keep]
            sums = values.new_zeros(batch * frames * pixels).index_add_(0, rows, values)
            self.valid = (sums > 0).view(batch, frames, 1, height, width)
            self._rows = _Rows.build(rows, cols, values / (sums + eps)[rows], batch * frames * pixels)
        self._columns: _Rows | None = None

    @property
    def device(self) -> torch.device:
        """Where the matrix is stored."""
        return self.valid.device

    def _transposed(self) -> _Rows:
        """The transposed matrix, which only training needs; it is therefore built on first use."""
        if self._columns is None:
            batch, _, height, width = self.shape
            self._columns = self._rows.transposed(batch * height * width)
        return self._columns

    def __call__(self, features: Tensor) -> Tensor:
        """Splat the features of frame 0 to every later frame.

        Args:
            features: (B, C, H, W), any float dtype, with the B, H and W of the flow. The product is computed in
                float32, even under autocast.

        Returns:
            (B, N, C, H, W) in the dtype of `features`, with holes exactly 0. It is a view whose channels are the
            innermost dimension in memory.

        Raises:
            ValueError: if the shape or the device does not fit.
        """
        batch, frames, height, width = self.shape
        if features.ndim != 4 or features.shape[0] != batch or tuple(features.shape[-2:]) != (height, width):
            raise ValueError(
                f"features must have the shape ({batch}, C, {height}, {width}), as the flow of this operator has, "
                f"got {tuple(features.shape)}; build an operator from the flow of that size and batch"
            )
        if features.device != self.device:
            raise ValueError(f"features are on {features.device}, the operator on {self.device}; move it with .to(...)")
        # The product is fast on contiguous rows; for B = 1, reshape alone would leave them strided.
        dense = features.permute(0, 2, 3, 1).float().reshape(batch * height * width, -1).contiguous()
        out = _SparseProduct.apply(dense, self)
        return out.view(batch, frames, height, width, -1).permute(0, 1, 4, 2, 3).to(features.dtype)

    def to(self, device: torch.device | str) -> SplatOperator:
        """The operator on another device; the operator itself if it is there already."""
        valid = self.valid.to(device)
        if valid.device == self.device:
            return self
        moved = object.__new__(SplatOperator)
        moved.shape, moved.valid = self.shape, valid
        moved._rows, moved._columns = _Rows(*(part.to(device) for part in self._rows)), None
        return moved


def gather_bilinear(field: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Read a field between its pixels by bilinear interpolation.

    Args:
        field: (M, C, H, W).
        x: (M, P), pixel columns, where 0 is the centre of the first pixel. Beyond the border, the border is read; a nan
            reads nan.
        y: (M, P), pixel rows, likewise.

    Returns:
        (M, C, P) in the dtype of `field`, exact at pixel centres.
    """
    height, width = field.shape[-2:]
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    west, north = x.detach().nan_to_num().floor(), y.detach().nan_to_num().floor()
    right, down = (x - west)[:, None].to(field.dtype), (y - north)[:, None].to(field.dtype)
    west, north = west.long(), north.long()
    east, south = (west + 1).clamp(max=width - 1), (north + 1).clamp(max=height - 1)
    flat = field.flatten(2)

    def at(row: Tensor, column: Tensor) -> Tensor:
        return flat.gather(2, (row * width + column)[:, None].expand(-1, field.shape[1], -1))

    above = at(north, west) * (1 - right) + at(north, east) * right
    below = at(south, west) * (1 - right) + at(south, east) * right
    return above * (1 - down) + below * down


def backward_warp(image: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Backward-warp an image: `out(p) = image(p + flow(p))`, bilinear.

    Given f_{0->i} and frame i, this rebuilds the pixels of frame 0 that stay visible.

    Equation: backward-warp

    Args:
        image: (B, C, H, W), any range, any float dtype.
        flow: (B, 2, H, W), pixels, (x right, y down), from the grid of the result into `image`.

    Returns:
        `out` (B, C, H, W) in the dtype of `image`, and `valid` (B, 1, H, W) bool, which says whether the point
        that was read lies inside the image. A point outside reads the border, and a pixel whose flow is nan or infinite
        reads itself; both are not valid.

    Raises:
        ValueError: if the shapes do not fit.
    """
    _check_pair(image, flow, "image")
    dtype, (height, width) = _compute_dtype(image, flow), image.shape[-2:]
    finite = torch.isfinite(flow).all(dim=1, keepdim=True)
    flow = torch.where(finite, flow, 0).to(dtype)
    x = (torch.arange(width, device=flow.device, dtype=dtype) + flow[:, 0]).flatten(1)
    y = (torch.arange(height, device=flow.device, dtype=dtype)[:, None] + flow[:, 1]).flatten(1)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    out = gather_bilinear(image.to(dtype), x, y).unflatten(2, (height, width))
    return out.to(image.dtype), inside.view(-1, 1, height, width) & finite
