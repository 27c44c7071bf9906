"""What motion-augmented attention saw: its features, the warped ones, and where it attends (notebook 03).

Within `record`, the inputs of the attentions are kept; no output changes, and outside of it the models hold no hook.
Here is a field of your own:

    my_flow = torch.zeros(1, 15, 2, 128, 128)               # (B, N, 2, H, W) pixels of its own grid, (x right, y down)
    my_flow[:, :, 0] = torch.arange(1, 16).view(15, 1, 1)   # everything moves right, a pixel a frame
    with record(pipe.animation_unet, steps=(9,)) as seen:   # few steps: each keeps whole inputs
        pipe.render(photo, my_flow, prompt)
    for name in seen.names:                                 # layers from the input to the output
        call = seen.call(name, step=9)
        z0, warped, own = call.features()                   # z[0], W(z[0], f_{0->i}), z[i]
        weights = call.weights()                            # how much each entry counts
    AttentionExplorer(frames, my_flow, seen)                # the same, to click on

What the layers do with their inputs is computed when you ask for it, with the weights that the layer has at that time.
With guidance the network's batch is [negative, positive]; item -1, which is the default here, belongs to the prompt.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from mi2v_lite.flow.splat_cache import SplatCache
from mi2v_lite.models.temporal import TemporalAttention


@dataclass(frozen=True)
class Call:
    """One recorded call of a temporal attention.

    Attributes:
        layer: the attention.
        z: its input `(B*F, h*w, C)`, after the layer norm, float32 on the CPU.
        num_frames: F, the number of frames.
        size: (h, w), the height and width of the features.
        motion: the motion field; None in plain attention.
    """

    layer: TemporalAttention
    z: Tensor
    num_frames: int
    size: tuple[int, int]
    motion: SplatCache | None

    def features(self, item: int = -1) -> tuple[Tensor, Tensor, Tensor]:
        """Computes what the layer could compare: the photo's features, the same carried along, and the frames' own.

        Args:
            item: which clip of the batch.

        Returns:
            z[0] `(C, h, w)`, W(z[0], f_{0->i}) `(N, C, h, w)` and z[i] `(N, C, h, w)`, on the CPU.

        Raises:
            ValueError: if the call had no motion field.
        """
        if self.motion is None:
            raise ValueError("This layer was called without a motion field; record a Stage 2 UNet with attention.")
        frames = rearrange(self.z, "(b f) (h w) c -> b f c h w", f=self.num_frames, h=self.size[0])
        warped = self.motion.warp(frames[:, 0].to(self.motion.flow.device)).cpu()
        return frames[item, 0], warped[item], frames[item, 1:]

    @torch.no_grad()
    def weights(self, item: int = -1) -> Tensor:
        """Computes the attention weights: how much each frame takes from each entry, at each place and in each head.

        Args:
            item: which clip of the batch.

        Returns:
            `(F, heads, h, w, M)` on the CPU, with the sum 1 over the M entries. With a motion field M = 2F - 1, in the
            order z0, z'1, z1, ..., z'N, zN: the odd entries are the warped ones.
        """
        z = self.z.to(self.layer.to_q.weight)  # where the layer is now, and in its precision
        own, context = self.layer.entries(z, self.num_frames, self.size, self.motion)
        query, key = (self.layer.head_to_batch_dim(part) for part in (self.layer.to_q(own), self.layer.to_k(context)))
        scores = self.layer.get_attention_scores(query, key)  # (B*h*w*heads, F, M)
        pattern = "(b h w heads) f m -> b f heads h w m"
        scores = rearrange(scores, pattern, h=self.size[0], w=self.size[1], heads=self.layer.heads)
        return scores[item].float().cpu()


@dataclass
class Record:
    """What `record` saw.

    Attributes:
        names: the recorded layers, in the order of the network.
        calls: (layer, denoising step) -> the call.
    """

    names: list[str] = field(default_factory=list)
    calls: dict[tuple[str, int], Call] = field(default_factory=dict)

    def call(self, name: str, step: int) -> Call:
        """Finds the call of a layer at a denoising step.

        Args:
            name: one of `names`.
            step: the denoising step; 0 is the first.

        Returns:
            the recorded call.

        Raises:
            KeyError: if it was not recorded; the message says what was.
        """
        if (name, step) not in self.calls:
            steps = sorted({number for _, number in self.calls})
            raise KeyError(f"{name!r} was not recorded at step {step}; recorded: layers {self.names}, steps {steps}.")
        return self.calls[name, step]


@contextmanager
def record(
    unet: nn.Module, layers: Collection[str] | None = None, steps: Collection[int] | None = None
) -> Iterator[Record]:
    """Keeps the inputs of a network's temporal attentions on the CPU, within a `with` statement.

    Args:
        unet: any module that has `TemporalAttention` layers.
        layers: the names of those to record, as in `unet.named_modules()`; all by default.
        steps: the calls of the network to record; 0 is the first, all by default. At full size keep few.

    Yields:
        the `Record`, which is filled as the network runs.

    Raises:
        ValueError: if `unet` lacks one of the layers, or has no temporal attention at all.
    """
    attentions = {name: module for name, module in unet.named_modules() if isinstance(module, TemporalAttention)}
    unknown = sorted(set(layers or ()) - set(attentions))
    if unknown or not attentions:
        raise ValueError(f"No such temporal attention: {unknown}; the network has {sorted(attentions)}.")
    seen, step = Record(), -1

    def begin(module: nn.Module, inputs: tuple) -> None:
        nonlocal step
        step += 1

    def keep(name: str):
        def hook(module: TemporalAttention, inputs: Sequence) -> None:
            if steps is None or step in steps:
                z, num_frames, size, motion = (*inputs, None)[:4]
                seen.calls[name, step] = Call(module, z.detach().cpu().float(), num_frames, size, motion)
                if name not in seen.names:
                    seen.names.append(name)

        return hook

    handles = [unet.register_forward_pre_hook(begin)]
    handles += [
        module.register_forward_pre_hook(keep(name))
        for name, module in attentions.items()
        if layers is None or name in layers
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def pca_rgb(features: Sequence[Tensor], known: Sequence[Tensor] | None = None) -> list[np.ndarray]:
    """Paints feature maps on ONE basis, so that equal colours stand for equal features.

    The first three principal components of all maps together become red, green and blue.

    Args:
        features: maps `(C, h, w)`, all with the same number of channels.
        known: bool `(h, w)` for each map; other places are left out of the basis and painted black.

    Returns:
        uint8 `(h, w, 3)` for each map.

    Raises:
        ValueError: if there are no maps, or if their channels differ or are fewer than 3.
    """
    if not features or len({part.shape[0] for part in features}) != 1 or features[0].shape[0] < 3:
        raise ValueError("pca_rgb needs maps (C, h, w) with the same C of at least 3.")
    known = known or [torch.ones(part.shape[1:], dtype=torch.bool) for part in features]
    rows = torch.cat([part[:, mask].T for part, mask in zip(features, known, strict=True)]).float()  # (pixels, C)
    mean = rows.mean(0)
    _, _, basis = torch.linalg.svd(rows - mean, full_matrices=False)
    basis = basis[:3].T  # (C, 3)
    basis = basis * basis.sum(0).sign().where(basis.sum(0) != 0, 1.0)  # so that the signs do not depend on chance
    spread = ((rows - mean) @ basis).std(0).clamp(min=1e-8)
    pictures = []
    for part, mask in zip(features, known, strict=True):
        places = (part.flatten(1).T.float() - mean) @ basis / spread  # (pixels, 3)
        rgb = (places.clamp(-2.5, 2.5) / 5 + 0.5) * mask.flatten()[:, None]
        pictures.append((rgb * 255).round().byte().unflatten(0, part.shape[1:]).numpy())
    return pictures
