"""What a user gives to the pipelines: images, prompts, brushes and noise are checked here and made one batch.

Each function takes one kind of input in all its forms, and `VideoPipeline` holds what needs the networks of a stage.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from torch.nn import functional as F

from mi2v_lite.diffusion import Generators
from mi2v_lite.io.images import fitted_size
from mi2v_lite.io.pixels import ImageInput, image_tensor
from mi2v_lite.models import autoencoder, text
from mi2v_lite.models.fusion import most_frames
from mi2v_lite.models.unet import VideoUNet

DECODE_BATCH = 8  # how many pictures are decoded at once; it bounds the memory and changes nothing else


def prepare_images(image: ImageInput, multiple: int, height: int | None = None, width: int | None = None) -> Tensor:
    """Images of any kind, at a size that the autoencoder can encode.

    Args:
        image: see `image_tensor`.
        multiple: what both sides must be multiples of, the autoencoder's downsampling factor.
        height: the height wanted; the image's own, to the nearest multiple, if None.
        width: the width wanted, likewise. If the size has to change without having been asked for, a warning says so.

    Returns:
        `(B, 3, H, W)` in [-1, 1].

    Raises:
        ValueError: if `height` or `width` is not a positive multiple, or as `image_tensor`.
    """
    pixels = image_tensor(image)
    for name, value in (("height", height), ("width", width)):
        if value is not None and (value <= 0 or value % multiple):
            raise ValueError(f"{name} must be a positive multiple of {multiple}, got {value}.")
    own = tuple(pixels.shape[-2:])
    nearest = fitted_size(own, multiple=multiple)
    size = (height or nearest[0], width or nearest[1])
    if size == own:
        return pixels
    if height is None or width is None:
        say(
            f"The image is {own[1]}x{own[0]} (width x height); its sides must be multiples of {multiple}, "
            f"so it was resized to {size[1]}x{size[0]}."
        )
    return F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False).clamp(-1, 1)


def resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """`(B, 3, H, W)` in [-1, 1] at another (height, width), sharply and without aliasing."""
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    return F.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)


def say(message: str) -> None:
    """Warns of something that nobody asked for; the warning names the line that called the pipeline."""
    warnings.warn(message, stacklevel=4)


def to_batch(x: Tensor, batch: int, name: str) -> Tensor:
    """Expands `(1, ...)` to `(batch, ...)`, and hands `(batch, ...)` back; raises ValueError for another batch."""
    if x.shape[0] not in (1, batch):
        raise ValueError(f"{name} is a batch of {x.shape[0]}, but the other inputs make a batch of {batch}.")
    return x if x.shape[0] == batch else x.expand(batch, *x.shape[1:])


def brush_tensor(brush: np.ndarray | Tensor | Sequence | None, height: int, width: int) -> Tensor | None:
    """A motion brush of any kind, checked.

    Args:
        brush: bool `(H, W)`, `(B, H, W)` or `(B, 1, H, W)`, an array or a tensor; True = may move.
        height: the height wanted; a brush of another size is resized to its nearest pixels.
        width: the width wanted.

    Returns:
        `(B, 1, height, width)` float, 0 or 1; None for None.

    Raises:
        ValueError: if the layout is another, or there are values other than 0 and 1.
    """
    if brush is None:
        return None
    mask = torch.as_tensor(np.asarray(brush) if not isinstance(brush, Tensor) else brush)
    shape = tuple(mask.shape)
    mask = mask[None, None] if mask.dim() == 2 else mask[:, None] if mask.dim() == 3 else mask
    if mask.dim() != 4 or mask.shape[1] != 1 or 0 in shape:
        raise ValueError(f"brush must be (H, W), (B, H, W) or (B, 1, H, W), got {shape}.")
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("brush must be bool (True = may move) or hold only 0 and 1: threshold it, e.g. brush > 127.")
    return F.interpolate(mask.float(), (height, width), mode="nearest")


def batch_size(**inputs: object) -> int:
    """The size of the batch that the inputs make together.

    Args:
        inputs: what was given, by the names that an error message shall use: sizes, texts, lists or tensors. A single
            text and None count as 1, and 1 goes with every size.

    Returns:
        The largest size.

    Raises:
        ValueError: if there are two sizes larger than 1.
    """

    def size(value: object) -> int:
        if isinstance(value, int):
            return value
        return 1 if value is None or isinstance(value, str) else len(value)  # type: ignore[arg-type]

    sizes = {name: size(value) for name, value in inputs.items()}
    largest = max(sizes.values())
    for name, count in sizes.items():
        if count not in (1, largest):
            given = ", ".join(f"{key} {value}" for key, value in sizes.items() if value != 1)
            raise ValueError(f"The inputs make batches of different sizes ({given}); {name} must be 1 or {largest}.")
    return largest


def check_output_type(output_type: str, known: Sequence[str]) -> None:
    """Raises ValueError for an `output_type` that is not among the `known` ones."""
    if output_type not in known:
        *most, last = map(repr, known)
        raise ValueError(f"output_type must be {', '.join(most)} or {last}, got {output_type!r}.")


def decode(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Decodes the latents of clips or of motion fields, a few pictures at a time.

    Args:
        vae: the autoencoder.
        latents: `(B, C, F, h, w)`, scaled.

    Returns:
        `(B, F, channels, H, W)` in the autoencoder's dtype, not clamped.

    Raises:
        ValueError: if values are not finite, which would look like black pictures. In float16 a decoder can overflow.
    """
    pictures = autoencoder.decode(vae, latents.transpose(1, 2).to(vae.dtype), batch=DECODE_BATCH)
    if not pictures.isfinite().all():
        raise ValueError(
            f"The autoencoder gave values that are not numbers, in {vae.dtype}: use bfloat16 or float32 if this is "
            "float16, or other weights."
        )
    return pictures


def check_frames(num_frames: int, unet: VideoUNet) -> None:
    """Raises ValueError for a number of frames for which the UNet's table of positions is too short."""
    most = most_frames(unet.config.fusion, unet.config.motion_max_length)
    if int(num_frames) != num_frames or not 2 <= num_frames <= most:
        raise ValueError(f"A clip must have 2 to {most} frames (the reference and the future ones), got {num_frames}.")


def check_prompts(prompt: str | Sequence[str], prompt_embeds: Tensor | None, name: str = "prompt") -> None:
    """Raises ValueError for a prompt that is not text, and if both text and embeddings are given."""
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(item, str) for item in texts):
        raise ValueError(f"{name} must be a string or a list of at least one string, got {prompt!r}; '' for none.")
    if prompt_embeds is not None and any(texts):
        raise ValueError(f"Give {name} or {name}_embeds, not both.")


class VideoPipeline(DiffusionPipeline):
    """The base of both stages' pipelines: prompts, noise and callbacks."""

    _callback_tensor_inputs = ["latents"]
    _optional_components = ["text_encoder", "tokenizer"]

    def _setting(self, name: str, value: Any) -> Any:
        """The value that was given to the call, or that of the pipeline's config if it is None.

        Raises:
            ValueError: If a number is not finite.
        """
        value = getattr(self.config, name) if value is None else value
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, got {value}.")
        return value

    def _encode_one(self, prompt: str | Sequence[str], embeds: Tensor | None, name: str) -> Tensor:
        """The prompts of one side of the guidance, as text or as embeddings, to `(b, L, D)`."""
        dim = self.unet.config.cross_attention_dim
        if embeds is not None:
            if not isinstance(embeds, Tensor) or embeds.dim() != 3 or embeds.shape[-1] != dim:
                got = tuple(embeds.shape) if isinstance(embeds, Tensor) else type(embeds)
                raise ValueError(f"{name}_embeds must be a tensor (B, tokens, {dim}), got {got}.")
            return embeds.to(self._execution_device, self.unet.dtype)
        if self.text_encoder is None or self.tokenizer is None:
            raise ValueError(f"The pipeline has no text encoder: give {name}_embeds, or load both parts.")
        embeds = text.encode_text(self.tokenizer, self.text_encoder, prompt)
        return embeds.to(self._execution_device, self.unet.dtype)

    def _encode_prompts(
        self,
        prompt: str | Sequence[str],
        negative_prompt: str | Sequence[str],
        prompt_embeds: Tensor | None,
        negative_prompt_embeds: Tensor | None,
        batch: int,
        guided: bool,
    ) -> Tensor:
        """The embeddings of the prompts: `(B, L, D)`, or with guidance `(2B, L, D)`, the negative prompts first."""
        positive = to_batch(self._encode_one(prompt, prompt_embeds, "prompt"), batch, "prompt")
        if not guided:
            return positive
        negative = self._encode_one(negative_prompt, negative_prompt_embeds, "negative_prompt")
        negative = to_batch(negative, batch, "negative_prompt")
        if negative.shape != positive.shape:
            raise ValueError(
                f"prompt_embeds {tuple(positive.shape)} and negative_prompt_embeds {tuple(negative.shape)} must have "
                "one shape: pad both to the same number of tokens."
            )
        return torch.cat([negative, positive])

    def _noise(self, shape: tuple[int, ...], latents: Tensor | None, generator: Generators) -> Tensor:
        """Unit normal noise of `shape`: the caller's, or newly drawn; a list has one generator for each item."""
        device, dtype = self._execution_device, self.unet.dtype
        if isinstance(generator, list) and len(generator) != shape[0]:
            raise ValueError(f"The list of generators has {len(generator)} entries for a batch of {shape[0]}.")
        if latents is None:
            return randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        if tuple(latents.shape) != tuple(shape):
            raise ValueError(f"latents must be unit normal noise of {tuple(shape)}, got {tuple(latents.shape)}.")
        return latents.to(device, dtype)

    def _call_back(self, callback: Callable | None, i: int, t: Tensor, latents: Tensor) -> Tensor:
        """Calls diffusers' `callback(pipe, step, timestep, {"latents": ...})`, which may return other latents."""
        if callback is None:
            return latents
        return (callback(self, i, t, {"latents": latents}) or {}).pop("latents", latents)
