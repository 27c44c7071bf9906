"""One motion field and what is computed from it at each feature size, kept for the next layer that asks for it.

The UNet of Stage 2 warps features of several resolutions by the same field, in every layer and at every denoising step
(Motion-I2V, section 3.3; notebook 03). The field does not change while a clip is sampled, so its splat operator at each
resolution is built once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from einops import rearrange
from torch import Tensor

from mi2v_lite.flow.fields import resize
from mi2v_lite.flow.warp import SplatOperator, splat_average

T = TypeVar("T")


class SplatCache:
    """A motion field that is ready to warp features of any resolution.

    Args:
        flow: f_{0->i}, `(B, N, 2, H, W)` in pixels of its own H x W grid, channels (x right, y down).
        official_batch_quirk: whether to pair features and flows of different items as the released code does when
            `B > 1`: row j of the warp then takes the features of item `j % B` and the flow of item `j // N`. This
            mixes up the items of a batch and only serves the comparison with the release.

    Raises:
        ValueError: if `flow` has another shape.
    """

    def __init__(self, flow: Tensor, official_batch_quirk: bool = False):
        if flow.ndim != 5 or flow.shape[2] != 2:
            raise ValueError(f"flow has shape {tuple(flow.shape)}; expected (batch, frames - 1, 2, height, width)")
        self.flow = flow.float()
        self.official_batch_quirk = official_batch_quirk
        self._kept: dict[tuple[tuple[int, int], Callable], object] = {}

    @property
    def num_frames(self) -> int:
        """Frames of the clip that this field belongs to: the reference frame and one for each displacement map."""
        return self.flow.shape[1] + 1

    def at(self, size: tuple[int, int], compute: Callable[[Tensor], T]) -> T:
        """What a function makes of the field at a feature size; computed on the first call and then kept.

        Args:
            size: `(h, w)` of the features.
            compute: a function of the field resized to that size, `(B, N, 2, h, w)` in feature pixels. The result is
                kept under the function itself, so pass a named function and not a new lambda for each call.

        Returns:
            What `compute` returned.
        """
        if (size, compute) not in self._kept:
            self._kept[size, compute] = compute(resize(self.flow, size))
        return self._kept[size, compute]

    def warp(self, features: Tensor) -> Tensor:
        """Splat the reference frame's features to every later frame.

        Args:
            features: z[0], `(k * B, C, h, w)`; k = 2 when the two halves of guidance are stacked before the items.

        Returns:
            z'[i], `(k * B, N, C, h, w)`; exactly 0 where nothing lands.

        Raises:
            ValueError: if the number of feature maps is not a multiple of the field's batch.
        """
        items, (h, w) = self.flow.shape[0], features.shape[-2:]
        if features.shape[0] % items:
            raise ValueError(
                f"{features.shape[0]} feature maps for a motion field of {items} items; give each item its field, "
                "or one field for all"
            )
        if self.official_batch_quirk:
            return self._warp_official(features)
        halves = features.shape[0] // items
        stacked = rearrange(features, "(k b) c h w -> b (k c) h w", k=halves)  # one sparse product for both halves
        warped = self.at((h, w), SplatOperator)(stacked)
        return rearrange(warped, "b n (k c) h w -> (k b) n c h w", k=halves)

    def _warp_official(self, features: Tensor) -> Tensor:
        """The release's warp, which repeats the features in one order and the flows in another."""
        batch, n = features.shape[0], self.flow.shape[1]
        flow = resize(self.flow, features.shape[-2:])
        flow = rearrange(flow.repeat(batch // flow.shape[0], 1, 1, 1, 1), "b n c h w -> (b n) c h w")
        crossed = features.repeat(n, 1, 1, 1)  # row j holds item j % B, while flow row j belongs to item j // N
        warped, _ = splat_average(crossed.float(), flow)
        return rearrange(warped.to(features.dtype), "(b n) c h w -> b n c h w", n=n)
