"""Temporal attention, plain and motion-augmented: the layer that carries the photo's features along the motion.

Notebook 03 rebuilds it. Motion-I2V, section 3.3 and Figure 4: with z[0] the features of the reference frame and
f_{0->i} the motion field, the keys and values of temporal attention are
``z_aug = [z[0], z'[1], z[1], ..., z'[N], z[N]]`` with ``z'[i] = splat(z[0], f_{0->i})``; the queries are z itself.

Shapes in this file: ``B`` items, ``F`` frames (frame 0 is the reference), ``C`` channels, ``h x w`` feature pixels.
"""

import math

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from einops import rearrange, repeat
from torch import Tensor, nn

from mi2v_lite.flow.splat_cache import SplatCache

FUSIONS = ("attention", "addition", "none")
MOTION_NORM_GROUPS = 32  # AnimateDiff's motion modules always use 32 groups, whatever the UNet's own number is


class PositionCode(nn.Module):
    """Sinusoidal position code along the frames: sine on even channels, cosine on odd ones, base 10000."""

    def __init__(self, channels: int, max_length: int):
        super().__init__()
        position = torch.arange(max_length).unsqueeze(1)
        frequency = torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
        table = torch.zeros(1, max_length, channels)
        table[0, :, 0::2] = torch.sin(position * frequency)
        table[0, :, 1::2] = torch.cos(position * frequency)
        self.register_buffer("pe", table)

    def forward(self, x: Tensor) -> Tensor:
        """Add the code to ``x`` of shape ``(batch, length, channels)``."""
        if x.shape[1] > self.pe.shape[1]:
            raise ValueError(
                f"{x.shape[1]} positions along time, but the position table holds {self.pe.shape[1]}; use fewer frames "
                "(motion-augmented attention needs 2 * frames - 1 positions) or a model with a longer table"
            )
        return x + self.pe[:, : x.shape[1]].to(x.dtype)


class OffsetCode(nn.Module):
    """Tells a warped feature how far it has come, above all the fraction of a feature pixel: ours, not the paper's.

    Bilinear splatting mixes four neighbours, and from the mixture alone nobody can tell by which fraction the picture
    moved. Where a feature pixel is 8x8 pixels of the picture and stands for a whole patch, that fraction decides what
    the patch looks like. Sine and cosine of one and two turns a feature pixel, the displacement and a constant, through
    a learned linear map; exactly 0 where nothing lands.
    """

    INPUTS = 11

    def __init__(self, channels: int):
        super().__init__()
        self.proj = nn.Linear(self.INPUTS, channels, bias=False)

    def forward(self, motion: SplatCache, size: tuple[int, int]) -> Tensor:
        """The code of every landing feature, ``(B, N, h*w, C)``, to add to the warped features of size ``(h, w)``."""
        moved, valid = motion.travelled(size)
        turns = 2 * math.pi * moved
        waves = [turns.sin(), turns.cos() - 1, (2 * turns).sin(), (2 * turns).cos() - 1]
        inputs = torch.cat([*waves, moved / 4, torch.ones_like(moved[:, :, :1])], dim=2) * valid
        return self.proj(rearrange(inputs, "b n c h w -> b n (h w) c").to(self.proj.weight.dtype))


class PieceWarp(nn.Module):
    """Warps a feature in smaller pieces, each by its own displacement: ours, not the paper's.

    A feature that stands for 8x8 pixels moves as one block, and what has moved by half of it arrives blurred. Here a
    linear map spreads every feature over ``pieces x pieces`` places of a finer grid, about as many numbers in all; the
    field splats these at that resolution, and a second map gathers what lands within each feature pixel. The result is
    added to the warped features; the second map begins at zero, and nothing is added where nothing lands.
    """

    def __init__(self, channels: int, pieces: int):
        super().__init__()
        self.pieces = pieces
        inner = pieces**2 * max(1, channels // pieces**2)
        self.spread = nn.Linear(channels, inner)
        self.gather = nn.Linear(inner, channels, bias=False)
        nn.init.zeros_(self.gather.weight)

    def forward(self, reference: Tensor, motion: SplatCache) -> Tensor:
        """z[0] ``(k * B, C, h, w)`` as for `SplatCache.warp` -> what to add to z', ``(k * B, N, h*w, C)``."""
        grid = {"p": self.pieces, "q": self.pieces}
        fine = rearrange(self.spread(reference.movedim(1, -1)), "b h w (c p q) -> b c (h p) (w q)", **grid)
        landed = motion.warp(fine)
        return self.gather(rearrange(landed, "b n c (h p) (w q) -> b n (h w) (c p q)", **grid))


class TemporalAttention(Attention):
    """Self-attention over frames, separately for each feature pixel; with a motion field, motion-augmented.

    Args:
        channels: C. heads: attention heads, C must divide by it. max_length: size of the position table.
        fusion: what to do with the warped reference features z': ``"attention"`` interleaves them into keys and
            values (the method), ``"addition"`` adds them to z (ablation), ``"none"`` ignores them.
        detach_reference: no gradient through the warp to z[0], as in the release.
        offset_code: add an `OffsetCode` to the warped features (not in the release).
        warp_pieces: above 1, also warp the features in so many by so many pieces, see `PieceWarp` (not in the release).
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
        super().__init__(query_dim=channels, heads=heads, dim_head=channels // heads)
        self.pos_encoder = PositionCode(channels, max_length)
        self.fusion = fusion
        self.detach_reference = detach_reference
        self.offset_code = OffsetCode(channels) if offset_code else None
        self.piece_warp = PieceWarp(channels, warp_pieces) if warp_pieces > 1 else None
        self.slice_size: int | None = None  # feature pixels at once, see VideoEncoder.set_attention_slice

    def forward(self, z: Tensor, num_frames: int, size: tuple[int, int], motion: SplatCache | None = None) -> Tensor:
        """Attend over time.

        Args:
            z: normed features, ``(B*F, h*w, C)``.
            num_frames: F. size: ``(h, w)``. motion: the motion field, for ``fusion`` other than ``"none"``.

        Returns:
            ``(B*F, h*w, C)``, without the residual.
        """
        warped = self._fused(z, num_frames, size, motion)
        parts = []
        for part in slices(z.shape[1], self.slice_size):  # pixels do not see each other: some at a time is the same
            own, context = self._sequences(z[:, part], num_frames, None if warped is None else warped[:, :, part])
            out = super().forward(own, encoder_hidden_states=context)
            parts.append(rearrange(out, "(b d) f c -> (b f) d c", b=len(z) // num_frames))
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def entries(
        self, z: Tensor, num_frames: int, size: tuple[int, int], motion: SplatCache | None = None
    ) -> tuple[Tensor, Tensor]:
        """What asks and what answers, with position codes, one sequence a feature pixel. Arguments as in `forward`.

        Returns:
            queries' side ``(B*h*w, F, C)``, and keys' and values' side ``(B*h*w, M, C)``: M = 2F - 1 entries
            z0, z'1, z1, ..., z'N, zN for ``"attention"`` with a motion field, otherwise M = F.
        """
        return self._sequences(z, num_frames, self._fused(z, num_frames, size, motion))

    def _fused(self, z: Tensor, num_frames: int, size: tuple[int, int], motion: SplatCache | None) -> Tensor | None:
        """The warped features with what is added to them, ``(B, N, h*w, C)``; None where none are used."""
        if motion is None or self.fusion == "none":
            return None
        warped = self.warp(z, num_frames, size, motion)
        if self.piece_warp is not None:
            warped = warped + self.piece_warp(self._reference(z, num_frames, size), motion)
        if self.offset_code is not None:
            code = self.offset_code(motion, size)  # once for each guidance half
            warped = warped + code.repeat(len(warped) // len(code), 1, 1, 1).to(warped.dtype)
        return warped

    def _sequences(self, z: Tensor, num_frames: int, warped: Tensor | None) -> tuple[Tensor, Tensor]:
        """`entries` of some pixels: z ``(B*F, d, C)`` and warped ``(B, N, d, C)``."""
        if warped is None:
            own = self.pos_encoder(rearrange(z, "(b f) d c -> (b d) f c", f=num_frames))  # (B*d, F, C)
            return own, own
        frames = rearrange(z, "(b f) d c -> b f d c", f=num_frames)
        if self.fusion == "addition":
            frames = torch.cat([frames[:, :1], frames[:, 1:] + warped], dim=1)
            own = self.pos_encoder(rearrange(frames, "b f d c -> (b d) f c"))
            return own, own
        pairs = torch.stack([warped, frames[:, 1:]], dim=2)  # z'1, z1, z'2, z2, ...
        pairs = rearrange(pairs, "b n two d c -> b (n two) d c")
        augmented = torch.cat([frames[:, :1], pairs], dim=1)  # (B, 2F-1, d, C)
        context = self.pos_encoder(rearrange(augmented, "b m d c -> (b d) m c"))
        return context[:, ::2], context  # z0, z1, ..., zN keep the position codes 0, 2, 4, ...

    def warp(self, z: Tensor, num_frames: int, size: tuple[int, int], motion: SplatCache) -> Tensor:
        """z'[i] = splat(z[0], f_{0->i}) for all later frames: ``(B*F, h*w, C)`` -> ``(B, N, h*w, C)``."""
        if motion.num_frames != num_frames:
            raise ValueError(
                f"the motion field belongs to {motion.num_frames} frames, the features to {num_frames}; "
                "expected one displacement map for each frame after the first"
            )
        return rearrange(motion.warp(self._reference(z, num_frames, size)), "b n c h w -> b n (h w) c")

    def _reference(self, z: Tensor, num_frames: int, size: tuple[int, int]) -> Tensor:
        """z[0], ``(B, C, h, w)``."""
        reference = rearrange(z, "(b f) (h w) c -> b f c h w", f=num_frames, h=size[0])[:, 0]
        return reference.detach() if self.detach_reference else reference


class TemporalBlock(nn.Module):
    """Two temporal attentions and a GEGLU feed-forward, each after a LayerNorm and with a residual."""

    def __init__(self, channels: int, heads: int, max_length: int, num_attentions: int, **attention: object):
        super().__init__()
        self.attention_blocks = nn.ModuleList(
            TemporalAttention(channels, heads, max_length, **attention) for _ in range(num_attentions)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(num_attentions))
        self.ff = FeedForward(channels, activation_fn="geglu")
        self.ff_norm = nn.LayerNorm(channels)
        self.slice_size: int | None = None

    def forward(self, z: Tensor, num_frames: int, size: tuple[int, int], motion: SplatCache | None) -> Tensor:
        """``(B*F, h*w, C)`` -> the same shape."""
        for norm, attention in zip(self.norms, self.attention_blocks, strict=True):
            z = z + attention(norm(z), num_frames, size, motion)
        changes = [self.ff(self.ff_norm(z[:, part])) for part in slices(z.shape[1], self.slice_size)]
        return z + (torch.cat(changes, dim=1) if len(changes) > 1 else changes[0])


class TemporalTransformer(nn.Module):
    """GroupNorm per frame, linear in, temporal blocks, zero-initialised linear out, residual."""

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
        nn.init.zeros_(
            self.proj_out.weight
        )  # a fresh motion module changes nothing: training starts from the 2-D model
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, x: Tensor, num_frames: int, motion: SplatCache | None = None) -> Tensor:
        """``x``: ``(B*F, C, h, w)`` -> the same shape."""
        h, w = x.shape[-2:]
        z = rearrange(self.norm(x), "n c h w -> n (h w) c")
        z = self.proj_in(z)
        for block in self.transformer_blocks:
            z = block(z, num_frames, (h, w), motion)
        return x + rearrange(self.proj_out(z), "n (h w) c -> n c h w", h=h)


class MotionModule(nn.Module):
    """The holder that gives the official parameter names (``motion_modules.i.temporal_transformer...``)."""

    def __init__(self, channels: int, **transformer: object):
        super().__init__()
        self.temporal_transformer = TemporalTransformer(channels, **transformer)

    def forward(self, x: Tensor, num_frames: int, motion: SplatCache | None = None) -> Tensor:
        """``x``: ``(B*F, C, h, w)`` -> the same shape."""
        return self.temporal_transformer(x, num_frames, motion)


def slices(length: int, size: int | None) -> list[slice]:
    """Pieces of at most ``size`` that cover ``length``; one piece if ``size`` is None."""
    size = size or length
    return [slice(start, start + size) for start in range(0, length, size)]


def fold_frames(x: Tensor) -> Tensor:
    """``(B, C, F, h, w)`` -> ``(B*F, C, h, w)``: how 2-D layers see a clip."""
    return rearrange(x, "b c f h w -> (b f) c h w")


def unfold_frames(x: Tensor, num_frames: int) -> Tensor:
    """``(B*F, C, h, w)`` -> ``(B, C, F, h, w)``."""
    return rearrange(x, "(b f) c h w -> b c f h w", f=num_frames)


def repeat_for_frames(x: Tensor, num_frames: int) -> Tensor:
    """Text embeddings ``(B, L, D)`` -> ``(B*F, L, D)``: every frame reads the same prompt."""
    return repeat(x, "b l d -> (b f) l d", f=num_frames)
