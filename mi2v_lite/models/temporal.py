"""Temporal attention, plain and motion-augmented: the layer that carries the photo's features along the motion.

Notebook 03 rebuilds it. In Stage 2 of Motion-I2V (section 3.3, Figure 4), with z[0] the features of the reference frame
and f_{0->i} the motion field, the queries of temporal attention are the frames' features z, and its keys and values are

    z_aug = [z[0], z'[1], z[1], ..., z'[N], z[N]],    z'[i] = splat(z[0], f_{0->i}).

The layers of the paper come first in this file; `OffsetCode` and `PieceWarp` below them are additions of ours, which
the lite model uses and the released model does not.

Shapes: `B` items, `F` frames (frame 0 is the reference), `N = F - 1` later frames, `C` channels, `h x w`
feature pixels.
"""

import math

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from einops import rearrange, repeat
from torch import Tensor, nn

from mi2v_lite.flow.splat_cache import SplatCache
from mi2v_lite.flow.warp import SplatOperator, travelled
from mi2v_lite.models.cpu import CacheAttention, slices
from mi2v_lite.models.fusion import FUSIONS, ignore

MOTION_NORM_GROUPS = 32  # AnimateDiff's motion modules always use 32 groups, whatever the UNet itself uses


class PositionCode(nn.Module):
    """Sinusoidal position code along the frames: sine in even channels, cosine in odd ones, base 10000.

    Args:
        channels: C, an even number.
        max_length: the number of positions in the table, which is the longest sequence that can be coded.
    """

    def __init__(self, channels: int, max_length: int):
        super().__init__()
        position = torch.arange(max_length).unsqueeze(1)
        frequency = torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
        table = torch.zeros(1, max_length, channels)
        table[0, :, 0::2] = torch.sin(position * frequency)
        table[0, :, 1::2] = torch.cos(position * frequency)
        self.register_buffer("pe", table)

    def forward(self, x: Tensor) -> Tensor:
        """Add the code of position m to entry m of each sequence.

        Args:
            x: `(batch, length, C)`.

        Returns:
            `(batch, length, C)`.

        Raises:
            ValueError: if the sequence is longer than the table.
        """
        if x.shape[1] > self.pe.shape[1]:
            raise ValueError(
                f"{x.shape[1]} positions along time, but the position table holds {self.pe.shape[1]}; use fewer frames "
                "(motion-augmented attention needs 2 * frames - 1 positions) or a model with a longer table"
            )
        return x + self.pe[:, : x.shape[1]].to(x.dtype)


class TemporalAttention(Attention):
    """Self-attention over the frames, separately for each feature pixel; with a motion field, motion-augmented.

    Equation: attention

    Args:
        channels: C.
        heads: number of attention heads; C must be divisible by it.
        max_length: length of the table of position codes.
        fusion: how the warped reference features z' are used, a name in `mi2v_lite.models.fusion.FUSIONS`:
            `"attention"` interleaves them into the keys and values (the paper's method), `"addition"` adds them to
            z (the paper's ablation), `"none"` does without them (Stage 1).
        detach_reference: whether gradients stop at z[0] before it is warped, as in the release.
        offset_code: whether to add an `OffsetCode` to the warped features (not in the release).
        warp_pieces: above 1, the features are also warped in `warp_pieces x warp_pieces` pieces, see `PieceWarp`
            (not in the release).

    Raises:
        ValueError: if the fusion is unknown.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        max_length: int,
        fusion: str = "none",
        detach_reference: bool = True,
        offset_code: bool = False,
        warp_pieces: int = 1,
    ):
        if fusion not in FUSIONS:
            raise ValueError(f"fusion is {fusion!r}; expected one of {', '.join(FUSIONS)}")
        super().__init__(query_dim=channels, heads=heads, dim_head=channels // heads, processor=CacheAttention())
        self.pos_encoder = PositionCode(channels, max_length)
        self.fusion = fusion
        self.detach_reference = detach_reference
        self.offset_code = OffsetCode(channels) if offset_code else None
        self.piece_warp = PieceWarp(channels, warp_pieces) if warp_pieces > 1 else None
        self.slice_size: int | None = None  # feature pixels at a time, see VideoEncoder.set_attention_slice

    def forward(self, z: Tensor, num_frames: int, size: tuple[int, int], motion: SplatCache | None = None) -> Tensor:
        """Attend over time.

        Args:
            z: the features after the layer norm, `(B*F, h*w, C)`.
            num_frames: F.
            size: `(h, w)`.
            motion: the motion field; without one this is plain temporal attention, whatever the fusion.

        Returns:
            `(B*F, h*w, C)`, without the residual connection.

        Raises:
            ValueError: if the motion field belongs to another number of frames.
        """
        warped = self._warped_with_extras(z, num_frames, size, motion)  # (B, N, h*w, C) or None
        parts = []
        for part in slices(z, 1, self.slice_size):  # pixels do not see each other, so they can take turns
            own, context = self._sequences(z[:, part], num_frames, None if warped is None else warped[:, :, part])
            out = super().forward(own, encoder_hidden_states=context)  # (B*d, F, C)
            parts.append(rearrange(out, "(b d) f c -> (b f) d c", b=len(z) // num_frames))
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def entries(
        self, z: Tensor, num_frames: int, size: tuple[int, int], motion: SplatCache | None = None
    ) -> tuple[Tensor, Tensor]:
        """The sequences that `forward` turns into queries and into keys and values, with their position codes.

        The arguments are those of `forward`.

        Returns:
            The queries' side `(B*h*w, F, C)`, and the keys' and values' side `(B*h*w, M, C)`. With a motion field
            and `"attention"` that is M = 2F - 1 entries z0, z'1, z1, ..., z'N, zN.
        """
        return self._sequences(z, num_frames, self._warped_with_extras(z, num_frames, size, motion))

    def prepare(self, motion: SplatCache, size: tuple[int, int]) -> None:
        """Compute what this layer will ask of a motion field, so that it is there when the layer runs.

        Args:
            motion: the motion field, which keeps it.
            size: `(h, w)` of the features.
        """
        if self.fusion == "none" or motion.official_batch_quirk:
            return
        motion.at(size, SplatOperator)
        if self.offset_code is not None:
            motion.at(size, offset_waves)
        if self.piece_warp is not None:
            motion.at((size[0] * self.piece_warp.pieces, size[1] * self.piece_warp.pieces), SplatOperator)

    def warp(self, z: Tensor, num_frames: int, size: tuple[int, int], motion: SplatCache) -> Tensor:
        """Splat the reference features to every later frame: z'[i] = splat(z[0], f_{0->i}).

        The arguments are those of `forward`.

        Returns:
            `(B, N, h*w, C)`.

        Raises:
            ValueError: if the motion field belongs to another number of frames.
        """
        if motion.num_frames != num_frames:
            raise ValueError(
                f"the motion field belongs to {motion.num_frames} frames, the features to {num_frames}; "
                "expected one displacement map for each frame after the first"
            )
        return rearrange(motion.warp(self._reference(z, num_frames, size)), "b n c h w -> b n (h w) c")

    def _reference(self, z: Tensor, num_frames: int, size: tuple[int, int]) -> Tensor:
        """z[0], `(B, C, h, w)`."""
        reference = rearrange(z, "(b f) (h w) c -> b f c h w", f=num_frames, h=size[0])[:, 0]
        return reference.detach() if self.detach_reference else reference

    def _warped_with_extras(
        self, z: Tensor, num_frames: int, size: tuple[int, int], motion: SplatCache | None
    ) -> Tensor | None:
        """z' with the additions of ours that are switched on, `(B, N, h*w, C)`; None for plain attention."""
        if motion is None or self.fusion == "none":
            return None
        warped = self.warp(z, num_frames, size, motion)
        if self.piece_warp is not None:
            warped = warped + self.piece_warp(self._reference(z, num_frames, size), motion)
        if self.offset_code is not None:
            code = self.offset_code(motion, size)  # (items of the field, N, h*w, C)
            warped = warped + code.repeat(len(warped) // len(code), 1, 1, 1).to(warped.dtype)  # for each guidance half
        return warped

    def _sequences(self, z: Tensor, num_frames: int, warped: Tensor | None) -> tuple[Tensor, Tensor]:
        """`entries` for some of the pixels, from z `(B*F, d, C)` and z' `(B, N, d, C)`."""
        frames = rearrange(z, "(b f) d c -> b f d c", f=num_frames)
        context, own = ignore(frames) if warped is None else FUSIONS[self.fusion](frames, warped)  # (B, M, d, C)
        context = self.pos_encoder(rearrange(context, "b m d c -> (b d) m c"))
        return context[:, own], context


class TemporalBlock(nn.Module):
    """Temporal attentions and a GEGLU feed-forward, each after a LayerNorm and with a residual connection.

    Args:
        channels: C.
        heads: attention heads.
        max_length: length of the table of position codes.
        num_attentions: how many temporal attentions follow each other; two in AnimateDiff and the release.
        attention: further arguments of `TemporalAttention`.
    """

    def __init__(self, channels: int, heads: int, max_length: int, num_attentions: int, **attention: object):
        super().__init__()
        self.attention_blocks = nn.ModuleList(
            TemporalAttention(channels, heads, max_length, **attention) for _ in range(num_attentions)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(num_attentions))
        self.ff = FeedForward(channels, activation_fn="geglu")
        self.ff_norm = nn.LayerNorm(channels)
        self.slice_size: int | None = None  # as in TemporalAttention

    def forward(self, z: Tensor, num_frames: int, size: tuple[int, int], motion: SplatCache | None) -> Tensor:
        """`(B*F, h*w, C)` -> the same shape; the arguments are those of `TemporalAttention.forward`."""
        for norm, attention in zip(self.norms, self.attention_blocks, strict=True):
            z = z + attention(norm(z), num_frames, size, motion)
        changes = [self.ff(self.ff_norm(z[:, part])) for part in slices(z, 1, self.slice_size)]
        return z + (torch.cat(changes, dim=1) if len(changes) > 1 else changes[0])


class TemporalTransformer(nn.Module):
    """Group norm for each frame, a linear map, temporal blocks, a linear map that starts at zero, and a residual.

    Because the last map starts at zero, a fresh motion module changes nothing, and training starts from the 2-D model.

    Args:
        channels: C, a multiple of 32.
        heads: attention heads.
        max_length: length of the table of position codes.
        num_blocks: how many `TemporalBlock`s follow each other.
        num_attentions: temporal attentions in each block.
        attention: further arguments of `TemporalAttention`.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        max_length: int,
        num_blocks: int = 1,
        num_attentions: int = 2,
        **attention: object,
    ):
        super().__init__()
        self.norm = nn.GroupNorm(MOTION_NORM_GROUPS, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList(
            TemporalBlock(channels, heads, max_length, num_attentions, **attention) for _ in range(num_blocks)
        )
        self.proj_out = nn.Linear(channels, channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, x: Tensor, num_frames: int, motion: SplatCache | None = None) -> Tensor:
        """Mix the features of a clip over time.

        Args:
            x: `(B*F, C, h, w)`.
            num_frames: F.
            motion: the motion field, for motion-augmented attention.

        Returns:
            `(B*F, C, h, w)`.
        """
        h, w = x.shape[-2:]
        z = self.proj_in(rearrange(self.norm(x), "n c h w -> n (h w) c"))  # (B*F, h*w, C)
        for block in self.transformer_blocks:
            z = block(z, num_frames, (h, w), motion)
        return x + rearrange(self.proj_out(z), "n (h w) c -> n c h w", h=h)


class MotionModule(nn.Module):
    """A holder for the transformer, which gives the official parameter names `motion_modules.i.temporal_transformer`.

    Args:
        channels: C.
        transformer: further arguments of `TemporalTransformer`.
    """

    def __init__(self, channels: int, **transformer: object):
        super().__init__()
        self.temporal_transformer = TemporalTransformer(channels, **transformer)

    def forward(self, x: Tensor, num_frames: int, motion: SplatCache | None = None) -> Tensor:
        """As `TemporalTransformer.forward`."""
        return self.temporal_transformer(x, num_frames, motion)


class OffsetCode(nn.Module):
    """Tells a warped feature how far it has come, above all by which fraction of a feature pixel (ours).

    Bilinear splatting mixes four neighbours, and nobody can tell from the mixture by which fraction of a feature pixel
    the picture moved. Where one feature stands for a patch of 8x8 pixels, that fraction decides what the patch looks
    like. The code is a learned linear map of the displacement, its sines and cosines and a constant (`offset_waves`);
    it is exactly 0 where nothing lands.

    Args:
        channels: C.
    """

    INPUTS = 11  # numbers that `offset_waves` gives for each feature

    def __init__(self, channels: int):
        super().__init__()
        self.proj = nn.Linear(self.INPUTS, channels, bias=False)

    def forward(self, motion: SplatCache, size: tuple[int, int]) -> Tensor:
        """The code of every feature that lands.

        Args:
            motion: the motion field of B items.
            size: `(h, w)` of the features.

        Returns:
            `(B, N, h*w, C)`, to be added to the warped features.
        """
        return self.proj(motion.at(size, offset_waves).to(self.proj.weight.dtype))


def offset_waves(flow: Tensor) -> Tensor:
    """What an `OffsetCode` knows about the displacement of what lands on each feature pixel.

    Args:
        flow: f_{0->i}, `(B, N, 2, h, w)` in feature pixels.

    Returns:
        `(B, N, h*w, 11)`: sines and cosines of one and of two turns for each feature pixel of displacement, the
        displacement itself, and a constant 1; all 0 where nothing lands.
    """
    moved, landed = travelled(flow)  # (B, N, 2, h, w), (B, N, 1, h, w)
    turns = 2 * math.pi * moved
    waves = [turns.sin(), turns.cos() - 1, (2 * turns).sin(), (2 * turns).cos() - 1]
    inputs = torch.cat([*waves, moved / 4, torch.ones_like(moved[:, :, :1])], dim=2) * landed
    return rearrange(inputs, "b n c h w -> b n (h w) c")


class PieceWarp(nn.Module):
    """Warps a feature in smaller pieces, each by its own displacement (ours).

    A feature that stands for 8x8 pixels moves as one block, and after a move by half a feature pixel it is blurred.
    Here a linear map spreads every feature over `pieces x pieces` cells of a finer grid, with about as many numbers
    in all; the motion field splats these cells at the finer resolution, and a second linear map gathers what lands
    within each feature pixel. The second map starts at zero, and nothing is added where nothing lands.

    Args:
        channels: C.
        pieces: pieces along each side of a feature pixel.
    """

    def __init__(self, channels: int, pieces: int):
        super().__init__()
        self.pieces = pieces
        inner = pieces**2 * max(1, channels // pieces**2)
        self.spread = nn.Linear(channels, inner)
        self.gather = nn.Linear(inner, channels, bias=False)
        nn.init.zeros_(self.gather.weight)

    def forward(self, reference: Tensor, motion: SplatCache) -> Tensor:
        """What to add to the warped features.

        Args:
            reference: z[0], `(k * B, C, h, w)`, as in `SplatCache.warp`.
            motion: the motion field of B items.

        Returns:
            `(k * B, N, h*w, C)`.
        """
        grid = {"p": self.pieces, "q": self.pieces}
        fine = rearrange(self.spread(reference.movedim(1, -1)), "b h w (c p q) -> b c (h p) (w q)", **grid)
        landed = motion.warp(fine)  # (k * B, N, inner / pieces^2, h * pieces, w * pieces)
        return self.gather(rearrange(landed, "b n c (h p) (w q) -> b n (h w) (c p q)", **grid))


def fold_frames(x: Tensor) -> Tensor:
    """`(B, C, F, h, w)` -> `(B*F, C, h, w)`: how 2-D layers see a clip."""
    return rearrange(x, "b c f h w -> (b f) c h w")


def unfold_frames(x: Tensor, num_frames: int) -> Tensor:
    """`(B*F, C, h, w)` -> `(B, C, F, h, w)`."""
    return rearrange(x, "(b f) c h w -> b c f h w", f=num_frames)


def repeat_for_frames(x: Tensor, num_frames: int) -> Tensor:
    """Text embeddings `(B, L, D)` -> `(B*F, L, D)`: every frame reads the same prompt."""
    return repeat(x, "b l d -> (b f) l d", f=num_frames)
