"""Look inside motion-augmented attention: record what a layer saw, warp it, and see where it attends (notebook 03).

Nothing is recorded unless asked for: without `record` the models hold no hook, and within it no output changes. On a
field of your own:

    my_flow = torch.zeros(1, 15, 2, 128, 128)               # (B, N, 2, H, W) pixels of its own grid, (x right, y down)
    my_flow[:, :, 0] = torch.arange(1, 16).view(15, 1, 1)   # everything goes to the right, a pixel a frame
    with record(pipe.animation_unet, steps=(9,)) as seen:   # few layers and steps: each keeps the layer's whole input
        pipe.render(photo, my_flow, prompt)
    for name in seen.names:                                 # layers from the input to the output
        call = seen.call(name, step=9)
        z0, warped, own = call.features()                   # z[0], W(z[0], f_{0->i}), z[i]
        weights = call.weights()                            # how much each entry counts
    AttentionExplorer(frames, my_flow, seen)                # the same to click on (viz/widgets.py)

Only the inputs of the layers are kept. What they do with them is computed when it is asked for, with the weights that
the layer has then: a layer trained on after the recording gives other numbers. With guidance the network's batch is
[negative, positive]; item -1 is the prompt's half, which is the default here.
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
    """One call of a temporal attention, as it was recorded.

    Attributes:
        layer: the attention. z: its input, `(B*F, h*w, C)`, after the layer norm. num_frames: F. size: (h, w).
        motion: the motion field; None in plain attention.
    """

    layer: TemporalAttention
    z: Tensor
    num_frames: int
    size: tuple[int, int]
    motion: SplatCache | None

    def features(self, item: int = -1) -> tuple[Tensor, Tensor, Tensor]:
        """z[0] `(C, h, w)`, W(z[0], f_{0->i}) and z[i], each `(N, C, h, w)`, of one item of the batch, on the CPU.

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
        """Attention weights `(F, heads, h, w, M)` of one item, on the CPU: rows of frame i sum to 1 over the M entries.

        With a motion field M = 2F - 1, in the order z0, z'1, z1, ..., z'N, zN: odd entries are warped ones.
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
    """What `record` saw: calls by layer and step. `names` are in the order of the network."""

    names: list[str] = field(default_factory=list)
    calls: dict[tuple[str, int], Call] = field(default_factory=dict)

    def call(self, name: str, step: int) -> Call:
        """The call of a layer at a denoising step.

        Raises:
            KeyError: naming what was recorded.
        """
        if (name, step) not in self.calls:
            steps = sorted({number for _, number in self.calls})
            raise KeyError(f"no call of {name!r} at step {step}; layers {self.names}, steps {steps} were recorded")
        return self.calls[name, step]


@contextmanager
def record(
    unet: nn.Module, layers: Collection[str] | None = None, steps: Collection[int] | None = None
) -> Iterator[Record]:
    """Within the context, the inputs of the temporal attentions of `unet` are kept, on the CPU.

    Args:
        unet: any module that has `TemporalAttention` layers. layers: their names (`unet.named_modules()`), all by
            default. steps: which calls of the network, 0 is the first, all by default. At full size keep few of both.

    Yields:
        the `Record`, filled as the network runs.

    Raises:
        ValueError: if `unet` has none of the layers.
    """
    found = {name: module for name, module in unet.named_modules() if isinstance(module, TemporalAttention)}
    wanted = {name: module for name, module in found.items() if layers is None or name in layers}
    if not wanted or (layers is not None and set(layers) - set(found)):
        raise ValueError(
            f"No such temporal attention: {sorted(set(layers or ()) - set(found))}; there are {sorted(found)}"
        )
    seen, step = Record(), [-1]

    def begin(module: nn.Module, inputs: tuple) -> None:
        step[0] += 1

    def keep(name: str):
        def hook(module: TemporalAttention, inputs: Sequence) -> None:
            if steps is None or step[0] in steps:
                z, num_frames, size, motion = (*inputs, None)[:4]
                seen.calls[name, step[0]] = Call(module, z.detach().cpu().float(), num_frames, size, motion)
                if name not in seen.names:
                    seen.names.append(name)

        return hook

    handles = [unet.register_forward_pre_hook(begin)]
    handles += [module.register_forward_pre_hook(keep(name)) for name, module in wanted.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def pca_rgb(features: Sequence[Tensor], known: Sequence[Tensor] | None = None) -> list[np.ndarray]:
    """Feature maps as colours on ONE basis, so that equal colours are equal features.

    The first three principal components of all maps together become red, green and blue.

    Args:
        features: maps `(C, h, w)` of one number of channels. known: bool `(h, w)` for each; the rest is left out of the
            basis and drawn black.

    Returns:
        uint8 `(h, w, 3)` for each.

    Raises:
        ValueError: without maps, or with different channels.
    """
    if not features or len({part.shape[0] for part in features}) != 1 or features[0].shape[0] < 3:
        raise ValueError("pca_rgb needs maps (C, h, w) with the same C of at least 3.")
    known = known or [torch.ones(part.shape[1:], dtype=torch.bool) for part in features]
    rows = torch.cat([part[:, mask].T for part, mask in zip(features, known, strict=True)]).float()  # (pixels, C)
    mean = rows.mean(0)
    _, _, basis = torch.linalg.svd(rows - mean, full_matrices=False)
    basis = basis[:3].T  # (C, 3)
    basis = basis * basis.sum(0).sign().where(basis.sum(0) != 0, 1.0)  # repeatable signs
    spread = ((rows - mean) @ basis).std(0).clamp(min=1e-8)
    pictures = []
    for part, mask in zip(features, known, strict=True):
        places = (part.flatten(1).T.float() - mean) @ basis / spread  # (pixels, 3)
        rgb = (places.clamp(-2.5, 2.5) / 5 + 0.5) * mask.flatten()[:, None]
        pictures.append((rgb * 255).round().byte().unflatten(0, part.shape[1:]).numpy())
    return pictures
