"""One motion field and its splats at every feature size, each built once (Motion-I2V, section 3.3; notebook 03)."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

from mi2v_lite.flow.fields import resize
from mi2v_lite.flow.warp import SplatOperator, splat_average


class SplatCache:
    """One motion field, ready to warp features of any resolution.

    The field is constant while a clip is sampled, so each resolution's splat is built once, on first use, and then
    shared by all layers, denoising steps and guidance halves.

    Args:
        flow: forward displacements f_{0->i}, ``(B, N, 2, H, W)``, pixels of the H x W grid, channels (x, y).
        official_batch_quirk: pair features and flows of different items as the released code does when ``B > 1``
            (row j of the warp takes the features of item ``j % B`` and the flow of item ``j // N``). For comparison
            with the release only: it mixes up the items of a batch.

    Raises:
        ValueError: when ``flow`` has not five dimensions with two channels.
    """

    def __init__(self, flow: Tensor, official_batch_quirk: bool = False):
        if flow.ndim != 5 or flow.shape[2] != 2:
            raise ValueError(f"flow has shape {tuple(flow.shape)}; expected (batch, frames - 1, 2, height, width)")
        self.flow = flow.float()
        self.official_batch_quirk = official_batch_quirk
        self._operators: dict[tuple[int, int], SplatOperator] = {}

    @property
    def num_frames(self) -> int:
        """Frames of the clip that this field belongs to: the reference frame and one per displacement map."""
        return self.flow.shape[1] + 1

    def operator(self, size: tuple[int, int]) -> SplatOperator:
        """The splat of this field at feature size ``(h, w)``; built on the first call."""
        if size not in self._operators:
            self._operators[size] = SplatOperator(resize(self.flow, size))
        return self._operators[size]

    def travelled(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """How far what lands on each feature pixel has come.

        Returns:
            the splatted displacement ``(B, N, 2, h, w)``, feature pixels, channels (x, y), 0 where nothing lands; and
            ``(B, N, 1, h, w)`` bool, False there.
        """
        flow = resize(self.flow, size)
        moved, weight = splat_average(flow.flatten(0, 1), flow.flatten(0, 1))
        return moved.unflatten(0, flow.shape[:2]), (weight > 0).unflatten(0, flow.shape[:2])

    def warp(self, features: Tensor) -> Tensor:
        """Splat the reference frame's features to every later frame.

        Args:
            features: z[0], ``(k * B, C, h, w)``: k = 2 when the two guidance halves are stacked before the items.

        Returns:
            z'[i], ``(k * B, N, C, h, w)``; exactly 0 where nothing lands.

        Raises:
            ValueError: when the number of feature maps is no multiple of the field's batch.
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
        return rearrange(self.operator((h, w))(stacked), "b n (k c) h w -> (k b) n c h w", k=halves)

    def _warp_official(self, features: Tensor) -> Tensor:
        batch, n = features.shape[0], self.flow.shape[1]
        flow = resize(self.flow, features.shape[-2:])
        flow = rearrange(flow.repeat(batch // flow.shape[0], 1, 1, 1, 1), "b n c h w -> (b n) c h w")
        crossed = features.repeat(n, 1, 1, 1)  # row j holds item j % B, while flow row j belongs to item j // N
        warped, _ = splat_average(crossed.float(), flow)
        return rearrange(warped.to(features.dtype), "(b n) c h w -> b n c h w", n=n)
