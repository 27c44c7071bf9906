"""The trajectory ControlNet: a trainable copy of Stage 1's encoder that reads sparse displacements.

Motion-I2V, section 3.4; notebook 04. It is a ControlNet (Zhang et al., "Adding Conditional Control to Text-to-Image
Diffusion Models", ICCV 2023) whose condition is a sparse motion field and its mask.
"""

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401 - from_pretrained looks for it in this module
from torch import Tensor, nn

from mi2v_lite.models.temporal import fold_frames, repeat_for_frames
from mi2v_lite.models.unet import VideoEncoder, VideoUNet

ENCODER_PARTS = ("conv_in", "time_embedding", "stride_embedding", "down_blocks", "mid_block")


def zero_init(module: nn.Module) -> nn.Module:
    """Set all parameters of a module to zero, so that its output is zero until training changes it.

    Equation: zero-convolution
    """
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class ConditionEmbedding(nn.Module):
    """Two convolutions for each frame, from the condition to the width of conv_in; the second starts at zero.

    Args:
        condition_channels: channels of the condition.
        hidden: channels between the two convolutions.
        out_channels: channels after conv_in.
    """

    def __init__(self, condition_channels: int, hidden: int, out_channels: int):
        super().__init__()
        kernel = {"kernel_size": (1, 3, 3), "padding": (0, 1, 1)}
        self.layers = nn.Sequential(
            nn.Conv3d(condition_channels, hidden, **kernel),
            nn.SiLU(),
            zero_init(nn.Conv3d(hidden, out_channels, **kernel)),
        )

    def forward(self, condition: Tensor) -> Tensor:
        """`(B, C, F, h, w)` -> `(B, out_channels, F, h, w)`."""
        return self.layers(condition)


class TrajectoryControlNet(VideoEncoder):
    """A copy of the encoder with zero convolutions at its outputs, whose residuals steer the frozen Stage 1 UNet.

    Args:
        in_channels: as in `VideoUNet`, and so are all arguments that are not listed here.
        condition_channels: channels of the condition: those of a flow latent, and one for the mask.
        condition_hidden: channels between the two convolutions of the condition; 512 in the release.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 8,
        condition_channels: int = 5,
        condition_hidden: int = 512,
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
        use_stride_embedding: bool = True,
    ):
        super().__init__()
        self._build_encoder()
        widths = list(block_out_channels)
        self.controlnet_cond_embedding = ConditionEmbedding(condition_channels, condition_hidden, widths[0])
        self.controlnet_down_blocks = nn.ModuleList(zero_init(nn.Conv2d(c, c, 1)) for c in self.skip_channels())
        self.controlnet_mid_block = zero_init(nn.Conv2d(widths[-1], widths[-1], 1))

    @classmethod
    def from_unet(
        cls, unet: VideoUNet, condition_channels: int = 5, condition_hidden: int = 512
    ) -> "TrajectoryControlNet":
        """A fresh ControlNet for a UNet, which begins with the UNet's encoder and residuals of zero.

        Args:
            unet: of Stage 1.
            condition_channels: as in the class.
            condition_hidden: as in the class.

        Returns:
            The ControlNet.

        Raises:
            ValueError: if the UNet's encoder has parameters that a ControlNet does not have.
        """
        names = cls._get_init_keys(cls) & set(unet.config)  # the settings that the two networks share
        net = cls(
            **{name: unet.config[name] for name in names},
            condition_channels=condition_channels,
            condition_hidden=condition_hidden,
        )
        copied = {k: v for k, v in unet.state_dict().items() if k.split(".")[0] in ENCODER_PARTS}
        _, unexpected = net.load_state_dict(copied, strict=False)
        if unexpected:
            raise ValueError(f"the UNet has encoder parameters that the ControlNet lacks: {unexpected[:3]}")
        return net

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float | int,
        encoder_hidden_states: Tensor,
        condition: Tensor,
        *,
        stride: Tensor | None = None,
        control_scale: float = 1.0,
    ) -> tuple[list[Tensor], Tensor]:
        """Compute the residuals for the UNet.

        Args:
            sample: as for the UNet, `(B, in_channels, F, h, w)`.
            timestep: as for the UNet.
            encoder_hidden_states: as for the UNet.
            condition: `(B, condition_channels, F, h, w)`: the flow autoencoder's latent (not scaled) of the masked
                flow, and the mask; see `mi2v_lite.control.condition`.
            stride: as for the UNet.
            control_scale: a factor on all residuals; 0 switches the control off.

        Returns:
            One residual `(B*F, C, h, w)` for each skip tensor, and one for the mid block's output.

        Raises:
            ValueError: if the shape of the condition does not fit.
        """
        expected = (sample.shape[0], self.config.condition_channels, *sample.shape[2:])
        if tuple(condition.shape) != expected:
            raise ValueError(f"condition has shape {tuple(condition.shape)}; expected {expected}")
        batch, _, frames = sample.shape[:3]
        emb = self.embed(timestep, stride, batch, frames)
        text = repeat_for_frames(encoder_hidden_states, frames)
        x = self.conv_in(fold_frames(sample)) + fold_frames(self.controlnet_cond_embedding(condition))
        mid, skips = self.encode(x, emb, text, frames, motion=None)
        scale = torch.as_tensor(control_scale, device=sample.device, dtype=mid.dtype)
        down = [conv(skip) * scale for conv, skip in zip(self.controlnet_down_blocks, skips, strict=True)]
        return down, self.controlnet_mid_block(mid) * scale
