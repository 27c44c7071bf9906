"""The video UNet of both stages: Stable Diffusion's 2-D UNet with a motion module after every layer.

See Motion-I2V, sections 3.2 (Stage 1) and 3.3 (Stage 2), and notebooks 02 and 03. For the 2-D layers the frames are
folded into the batch, so that every convolution and group norm works on one frame at a time, as in the release. The
parameters have the names of the official checkpoints.

Shapes: latents are `(B, C, F, h, w)` outside the network and `(B*F, C, h, w)` inside.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, get_timestep_embedding
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mi2v_lite.flow.splat_cache import SplatCache
from mi2v_lite.models.cpu import CacheAttention, slices
from mi2v_lite.models.strict import check_names
from mi2v_lite.models.temporal import (
    MotionModule,
    TemporalAttention,
    TemporalBlock,
    fold_frames,
    repeat_for_frames,
    unfold_frames,
)

WARP_SETTINGS = ("fusion", "detach_reference", "offset_code", "warp_pieces")  # a ControlNet does not have these
SLICES = {"auto": 512, "max": 128}  # feature pixels at a time, by diffusers' names for attention slicing


class Layer:
    """Builds the three parts of a UNet layer, which are a resnet, a spatial transformer and a motion module.

    Args:
        config: the settings of a `VideoUNet` or a ControlNet.
    """

    def __init__(self, config: dict):
        self.config = config
        self.time_channels = 4 * config["block_out_channels"][0]

    def resnet(self, inputs: int, outputs: int) -> ResnetBlock2D:
        """A residual block of two convolutions, between which the time embedding is added."""
        return ResnetBlock2D(
            in_channels=inputs,
            out_channels=outputs,
            temb_channels=self.time_channels,
            groups=self.config["norm_num_groups"],
            eps=self.config["norm_eps"],
        )

    def attention(self, channels: int) -> Transformer2DModel:
        """A spatial transformer: self-attention within each frame, cross-attention to the text, and a feed-forward."""
        heads = self.config["num_attention_heads"]
        transformer = Transformer2DModel(
            num_attention_heads=heads,
            attention_head_dim=channels // heads,
            in_channels=channels,
            norm_num_groups=self.config["norm_num_groups"],
            cross_attention_dim=self.config["cross_attention_dim"],
        )
        for block in transformer.transformer_blocks:
            block.attn1.set_processor(CacheAttention())
            block.attn2.set_processor(CacheAttention())
        return transformer

    def motion(self, channels: int) -> MotionModule:
        """A temporal transformer, which is motion-augmented in Stage 2."""
        return MotionModule(
            channels,
            heads=self.config["motion_num_attention_heads"],
            max_length=self.config["motion_max_length"],
            num_blocks=self.config["motion_num_blocks"],
            num_attentions=self.config["motion_num_attentions"],
            **{name: self.config[name] for name in WARP_SETTINGS if name in self.config},
        )


class Block(nn.Module):
    """The layers of one resolution, followed by a resampler if there is another resolution to go to.

    Args:
        build: makes the parts of the layers.
        widths: (channels in, channels out) of each layer.
        attention: whether the layers have spatial transformers.
        motion_modules: whether the layers have motion modules.
        resample: "down", "up" or None, for what follows the last layer.
    """

    def __init__(
        self,
        build: Layer,
        widths: Sequence[tuple[int, int]],
        attention: bool,
        motion_modules: bool,
        resample: str | None = None,
    ):
        super().__init__()
        self.slice_size: int | None = None
        out = widths[-1][1]
        self.resnets = nn.ModuleList(build.resnet(i, o) for i, o in widths)
        if attention:
            self.attentions = nn.ModuleList(build.attention(o) for _, o in widths)
        if motion_modules:
            self.motion_modules = nn.ModuleList(build.motion(o) for _, o in widths)
        if resample == "down":
            self.downsamplers = nn.ModuleList([Downsample2D(out, use_conv=True, name="op", padding=1)])
        elif resample == "up":
            self.upsamplers = nn.ModuleList([Upsample2D(out, use_conv=True)])

    def layer(self, index: int, x: Tensor, emb: Tensor, text: Tensor, frames: int, motion: SplatCache | None) -> Tensor:
        """Apply one layer: resnet, spatial transformer, motion module.

        Args:
            index: which layer.
            x: `(B*F, C, h, w)`.
            emb: time embedding of each frame, `(B*F, D)`.
            text: text embeddings of each frame, `(B*F, L, cross_attention_dim)`.
            frames: F.
            motion: the motion field, for motion-augmented attention.

        Returns:
            `(B*F, C', h, w)`.
        """
        x = self.resnets[index](x, emb)
        if hasattr(self, "attentions"):
            x = self._attend_in_space(self.attentions[index], x, text)
        if hasattr(self, "motion_modules"):
            x = self.motion_modules[index](x, frames, motion)
        return x

    def _attend_in_space(self, attention: Transformer2DModel, x: Tensor, text: Tensor) -> Tensor:
        """Apply a spatial transformer, which sees each frame by itself, to all frames or to some at a time."""
        frames = None if self.slice_size is None else max(1, self.slice_size * len(x) // x[0, 0].numel())
        parts = [
            attention(x[part], encoder_hidden_states=text[part], return_dict=False)[0] for part in slices(x, 0, frames)
        ]
        return torch.cat(parts) if len(parts) > 1 else parts[0]


class MidBlock(Block):
    """The middle of the UNet, at the lowest resolution: resnet, spatial transformer, motion module, resnet.

    Args:
        build: makes the parts.
        channels: width of the lowest resolution.
        motion_modules: whether there is a motion module.
    """

    def __init__(self, build: Layer, channels: int, motion_modules: bool):
        super().__init__(build, [(channels, channels)], attention=True, motion_modules=motion_modules)
        self.resnets.append(build.resnet(channels, channels))

    def forward(self, x: Tensor, emb: Tensor, text: Tensor, frames: int, motion: SplatCache | None) -> Tensor:
        """`(B*F, C, h, w)` -> the same shape; the arguments are those of `Block.layer`."""
        return self.resnets[1](self.layer(0, x, emb, text, frames, motion), emb)


class VideoEncoder(ModelMixin, ConfigMixin):
    """What the UNet and its ControlNet have in common: the embeddings, the down blocks and the mid block."""

    _supports_gradient_checkpointing = True

    @classmethod
    def from_pretrained(cls, folder: str | Path, **kwargs: Any) -> Self | tuple[Self, dict]:
        """As in diffusers, but a file that lacks tensors of the network, or holds others, is an error.

        Args:
            folder: the folder that `save_pretrained` wrote.
            kwargs: further arguments of diffusers' `from_pretrained`.

        Raises:
            ValueError: if the file and the network do not have the same tensors.
            OSError: if there is no such folder or no file in it.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        network, info = super().from_pretrained(folder, output_loading_info=True, **kwargs)
        check_names(folder, info["missing_keys"], info["unexpected_keys"])
        return (network, info) if wants_info else network

    def _build_encoder(self) -> Layer:
        """Make the modules of the encoder from the config, and return the builder for further layers."""
        config = self.config
        widths = list(config.block_out_channels)
        if len(config.attention_levels) != len(widths):
            raise ValueError(
                f"attention_levels has {len(config.attention_levels)} entries for {len(widths)} block_out_channels; "
                "expected one true or false for each resolution"
            )
        self.gradient_checkpointing = False
        build = Layer(config)
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimestepEmbedding(widths[0], build.time_channels)
        if config.use_stride_embedding:
            self.stride_embedding = TimestepEmbedding(widths[0], build.time_channels)
        self.down_blocks = nn.ModuleList()
        previous = widths[0]
        for level, width in enumerate(widths):
            pairs = [(previous if layer == 0 else width, width) for layer in range(config.layers_per_block)]
            resample = "down" if level < len(widths) - 1 else None
            self.down_blocks.append(
                Block(build, pairs, config.attention_levels[level], config.motion_modules, resample)
            )
            previous = width
        self.mid_block = MidBlock(build, widths[-1], config.motion_modules)
        return build

    def _set_gradient_checkpointing(self, enable: bool = True, gradient_checkpointing_func=checkpoint) -> None:
        self.gradient_checkpointing = enable

    def set_attention_slice(self, slice_size: int | str | None) -> None:
        """Work on some of the pixels at a time, which takes less memory and gives the same result.

        Temporal attention treats each feature pixel by itself and spatial attention each frame, so they need not be in
        memory all at once. The slices apply to both attentions and to their feed-forwards, which take most of the
        memory at full size. `pipe.enable_attention_slicing` calls this method.

        Args:
            slice_size: the number of feature pixels at a time, each with all its frames; "auto" or "max" for the
                numbers in `SLICES`; or None for all pixels at once.

        Raises:
            ValueError: if it is none of these.
        """
        size = SLICES.get(slice_size, slice_size) if isinstance(slice_size, str) else slice_size
        if size is not None and (isinstance(size, (bool, str)) or int(size) != size or size < 1):
            raise ValueError(
                f"slice_size is {slice_size!r}; expected a number of pixels of at least 1, {', '.join(SLICES)} or None"
            )
        for module in self.modules():
            if isinstance(module, (Block, TemporalBlock, TemporalAttention)):
                module.slice_size = size

    def _run(self, layer: Callable[..., Tensor], *args: object) -> Tensor:
        """Apply a layer, and with gradient checkpointing keep only its input for the backward pass."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, *args, use_reentrant=False)
        return layer(*args)

    def skip_channels(self) -> list[int]:
        """The channels of the skip tensors, in order: conv_in, then each layer and downsampler of the down path."""
        widths = list(self.config.block_out_channels)
        channels = [widths[0]]
        for level, width in enumerate(widths):
            channels += [width] * (self.config.layers_per_block + (level < len(widths) - 1))
        return channels

    def embed(self, timestep: Tensor | float | int, stride: Tensor | None, batch: int, frames: int) -> Tensor:
        """The embedding of the diffusion time, and in Stage 1 also of the frame stride, for each frame.

        Stage 1 adds the embedding of the stride to that of the time (section 3.2). In Stage 2, frame 0 has the time
        `first_frame_timestep` instead of that of the other frames (section 3.3).

        Equation: stride-embedding

        Args:
            timestep: a scalar, `(B,)` or `(B, F)`, in [0, 1000).
            stride: `(B, F)` or `(1, F)`, how many frames of the source video each frame lies after the reference;
                needed if the config has `use_stride_embedding`.
            batch: B.
            frames: F.

        Returns:
            `(B*F, 4 * block_out_channels[0])`.

        Raises:
            ValueError: if the stride is missing.
        """
        device, dtype = self.conv_in.weight.device, self.conv_in.weight.dtype
        time = torch.as_tensor(timestep, device=device)
        time = time.reshape(-1, 1) if time.ndim < 2 else time
        time = time.expand(batch, frames).clone()
        if self.config.get("first_frame_timestep") is not None:  # Stage 2; a ControlNet's config has no such entry
            time[:, 0] = self.config.first_frame_timestep
        emb = self.time_embedding(self._sinusoid(time, dtype))  # (B*F, D)
        if self.config.use_stride_embedding:
            if stride is None:
                raise ValueError("this UNet has a stride embedding: pass stride=(batch, frames), e.g. 8, 16, ..., 120")
            stride = torch.as_tensor(stride, device=device).expand(batch, frames)
            emb = emb + self.stride_embedding(self._sinusoid(stride, dtype))
        return emb

    def _sinusoid(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        width = self.config.block_out_channels[0]
        return get_timestep_embedding(value.flatten(), width, flip_sin_to_cos=True, downscale_freq_shift=0).to(dtype)

    def encode(
        self, x: Tensor, emb: Tensor, text: Tensor, frames: int, motion: SplatCache | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Apply the down path and the mid block.

        Args:
            x: the output of conv_in, `(B*F, C, h, w)`.
            emb: from `embed`.
            text: text embeddings of each frame, `(B*F, L, cross_attention_dim)`.
            frames: F.
            motion: the motion field, for motion-augmented attention.

        Returns:
            The mid block's output, and the skip tensors in the order of `skip_channels`.
        """
        skips = [x]
        for block in self.down_blocks:
            for index in range(len(block.resnets)):
                x = self._run(block.layer, index, x, emb, text, frames, motion)
                skips.append(x)
            if hasattr(block, "downsamplers"):
                x = block.downsamplers[0](x)
                skips.append(x)
        return self._run(self.mid_block, x, emb, text, frames, motion), skips


class VideoUNet(VideoEncoder):
    """The denoiser of latents `(B, C, F, h, w)`.

    In Stage 1 (`use_stride_embedding=True`) the channels of the input are [image latent, noisy flow latent]. In
    Stage 2 (`fusion="attention"`, `first_frame_timestep=1`) frame 0 of the input is the clean image latent, and the
    features of frame 0 are warped to the other frames by the motion field.

    Args:
        in_channels: latent channels of the input; in Stage 1 those of the image and of the flow.
        out_channels: latent channels of the output.
        block_out_channels: width of each resolution, from the highest to the lowest; multiples of 32.
        layers_per_block: layers of each resolution on the way down; on the way up there is one more.
        attention_levels: whether each resolution has spatial transformers; in SD 1.5, all but the lowest have.
        num_attention_heads: heads of the spatial transformers.
        norm_num_groups: groups of the group norms in the resnets.
        norm_eps: epsilon of these group norms.
        cross_attention_dim: width of the text embeddings.
        motion_modules: whether there are motion modules; without them this is the 2-D model that step 1 of the
            curriculum trains.
        motion_num_attention_heads: heads of the temporal attentions.
        motion_max_length: length of their table of position codes.
        motion_num_blocks: temporal blocks in each motion module.
        motion_num_attentions: temporal attentions in each of these blocks.
        use_stride_embedding: whether the frame stride is an input (Stage 1), as a measure of the motion's strength.
        fusion: how warped reference features are used, a name in `mi2v_lite.models.fusion.FUSIONS`.
        first_frame_timestep: diffusion time of frame 0, or None if it is that of the other frames.
        detach_reference: whether gradients stop at the reference features before they are warped, as in the release.
        offset_code: whether to tell warped features how far they have come, see
            `mi2v_lite.models.temporal.OffsetCode`.
        warp_pieces: above 1, features are also warped in so many by so many pieces, see
            `mi2v_lite.models.temporal.PieceWarp`.
        official_batch_quirk: whether to mix up the items of a batch as the release does, for comparison only.

    Raises:
        ValueError: if `attention_levels` and `block_out_channels` have different lengths, or the fusion is unknown.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 4,
        block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        attention_levels: Sequence[bool] = (True, True, True, False),
        num_attention_heads: int = 8,
        norm_num_groups: int = 32,
        norm_eps: float = 1e-5,
        cross_attention_dim: int = 768,
        motion_modules: bool = True,
        motion_num_attention_heads: int = 8,
        motion_max_length: int = 32,
        motion_num_blocks: int = 1,
        motion_num_attentions: int = 2,
        use_stride_embedding: bool = False,
        fusion: str = "none",
        first_frame_timestep: int | None = None,
        detach_reference: bool = True,
        offset_code: bool = False,
        warp_pieces: int = 1,
        official_batch_quirk: bool = False,
    ):
        super().__init__()
        build = self._build_encoder()
        widths, layers = list(block_out_channels), layers_per_block + 1
        skips = self.skip_channels()
        self.up_blocks = nn.ModuleList()
        previous = widths[-1]
        for level in reversed(range(len(widths))):
            pairs = []
            for _ in range(layers):
                pairs.append((previous + skips.pop(), widths[level]))
                previous = widths[level]
            self.up_blocks.append(
                Block(build, pairs, attention_levels[level], motion_modules, "up" if level > 0 else None)
            )
        self.conv_norm_out = nn.GroupNorm(norm_num_groups, widths[0], eps=norm_eps)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        *,
        stride: Tensor | None = None,
        flow: Tensor | SplatCache | None = None,
        down_residuals: Sequence[Tensor] | None = None,
        mid_residual: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise (or v) of every frame.

        Args:
            sample: `(B, in_channels, F, h, w)`.
            timestep: a scalar, `(B,)` or `(B, F)`, in [0, 1000).
            encoder_hidden_states: text embeddings, `(B, L, cross_attention_dim)`.
            stride: `(B, F)`, how many frames of the source video each frame lies after the reference (Stage 1).
            flow: f_{0->i}, `(B, F-1, 2, H, W)` in pixels of its own grid of any size, or a `SplatCache` of it
                (Stage 2).
            down_residuals: from the ControlNet, one to add to each skip tensor.
            mid_residual: from the ControlNet, to add to the mid block's output.

        Returns:
            `(B, out_channels, F, h, w)`.

        Raises:
            ValueError: if channels, frames or the motion field do not fit together.
        """
        if sample.ndim != 5 or sample.shape[1] != self.config.in_channels:
            raise ValueError(
                f"sample has shape {tuple(sample.shape)}; expected (batch, {self.config.in_channels}, frames, h, w)"
            )
        batch, _, frames = sample.shape[:3]
        motion = self._motion(flow)
        emb = self.embed(timestep, stride, batch, frames)
        text = repeat_for_frames(encoder_hidden_states, frames)
        x, skips = self.encode(self.conv_in(fold_frames(sample)), emb, text, frames, motion)
        if down_residuals is not None:
            skips = [skip + residual for skip, residual in zip(skips, down_residuals, strict=True)]
        if mid_residual is not None:
            x = x + mid_residual
        for block in self.up_blocks:
            for index in range(len(block.resnets)):
                x = torch.cat([x, skips.pop()], dim=1)
                x = self._run(block.layer, index, x, emb, text, frames, motion)
            if hasattr(block, "upsamplers"):
                x = block.upsamplers[0](x, output_size=skips[-1].shape[-2:])  # sides may be odd: take the next skip's
        return unfold_frames(self.conv_out(self.conv_act(self.conv_norm_out(x))), frames)

    def prepare(self, motion: SplatCache, size: tuple[int, int]) -> SplatCache:
        """Compute what all layers will ask of a motion field before the first of them runs.

        Building a splat operator depends on the values of the field. On a GPU that stops the sampling loop until they
        are known, and `torch.compile` cannot put it into one graph with the layers.

        Args:
            motion: the motion field, which keeps what is computed.
            size: `(h, w)` of the latents.

        Returns:
            The motion field.
        """
        attentions = [module for module in self.modules() if isinstance(module, TemporalAttention)]
        for _ in self.config.block_out_channels:
            for attention in attentions:
                attention.prepare(motion, size)
            size = (-(-size[0] // 2), -(-size[1] // 2))  # each level has half the resolution of the one above
        return motion

    def _motion(self, flow: Tensor | SplatCache | None) -> SplatCache | None:
        """The motion field ready for warping; None where the network does not warp."""
        if self.config.fusion == "none" or not self.config.motion_modules:
            return None
        if flow is None:
            raise ValueError(
                f"this UNet fuses warped features by {self.config.fusion!r}: pass flow=(batch, frames - 1, 2, H, W)"
            )
        if isinstance(flow, SplatCache):
            return flow
        return SplatCache(flow, official_batch_quirk=self.config.official_batch_quirk)
