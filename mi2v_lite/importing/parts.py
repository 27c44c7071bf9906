"""The models of a pipeline that is being put together: which tensors they need, which they have, and from where."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers.models.embeddings import TimestepEmbedding
from torch import Tensor, nn

from mi2v_lite.importing.names import MOTION, POSITIONS
from mi2v_lite.models.autoencoder import make_vae
from mi2v_lite.models.controlnet import TrajectoryControlNet
from mi2v_lite.models.temporal import PositionCode
from mi2v_lite.models.text import make_text_encoder
from mi2v_lite.models.unet import VideoUNet
from mi2v_lite.training.curriculum import Config
from mi2v_lite.training.step_models import load_tokenizer

STRIDE = "stride_embedding."
COMPUTED = "computed: sinusoidal position table"


def shell(config: Config, model: str) -> nn.Module:
    """Builds a model of a curriculum on the meta device: it has names, shapes and a config, and needs no memory.

    Args:
        config: the curriculum.
        model: a name in its section `models`.
    """
    entry: dict[str, Any] = {key: value for key, value in config.models[model].items() if key != "kind"}
    with torch.device("meta"):
        match config.models[model]["kind"]:
            case "autoencoder":
                return make_vae(entry)
            case "text_encoder":
                if "vocab_size" not in entry:
                    entry["vocab_size"] = len(load_tokenizer(config))
                entry.pop("tokenizer", None)
                return make_text_encoder(entry)
            case "controlnet":
                trunk = shell(config, entry.pop("trunk"))
                return TrajectoryControlNet.from_unet(trunk, **entry)
            case _:
                return VideoUNet(**entry)


class Part:
    """One model: a shell without memory, the tensors that it has so far, and where they came from.

    Args:
        name: what the pipeline calls the model.
        model: the shell, from `shell`.
    """

    def __init__(self, name: str, model: nn.Module) -> None:
        self.name, self.model = name, model
        self.shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        self.tensors: dict[str, Tensor] = {}
        self.origins: dict[str, str] = {}

    @property
    def motion(self) -> set[str]:
        """The names of the motion modules."""
        return {name for name in self.shapes if MOTION in name}

    @property
    def spatial(self) -> set[str]:
        """All other names."""
        return self.shapes.keys() - self.motion

    def take(self, tensors: dict[str, Tensor], origin: str | Path, wanted: Iterable[str] | None = None) -> None:
        """Takes over tensors; those taken later replace earlier ones.

        Args:
            tensors: by our names.
            origin: where they came from, for the report.
            wanted: the names that must be there, and no others; by default all names of the model.

        Raises:
            ValueError: if a name is missing, left over or of another shape; names the origin.
        """
        wanted = set(self.shapes if wanted is None else wanted)
        # A position table is a constant, and some converters leave it out.
        tables = {name for name in wanted - tensors.keys() if name.endswith(POSITIONS)}
        missing, extra = sorted(wanted - tensors.keys() - tables), sorted(tensors.keys() - wanted)
        shapes = sorted(name for name in wanted & tensors.keys() if tuple(tensors[name].shape) != self.shapes[name])
        if missing or extra or shapes:
            raise ValueError(
                f"{origin} does not fit the {self.name}: {self._differences(tensors, missing, extra, shapes)}"
            )
        self._put(tensors, str(origin))
        self._put({name: _position_table(self.shapes[name]) for name in tables}, COMPUTED)

    def take_unet(self, tensors: dict[str, Tensor], origin: str | Path) -> None:
        """Takes over the 2-D layers of a UNet, its motion modules, or both, each of them completely.

        Args:
            tensors: by our names.
            origin: where they came from, for the report.

        Raises:
            ValueError: if a name is missing, left over or of another shape.
        """
        motion = {name: value for name, value in tensors.items() if MOTION in name}
        spatial = {name: value for name, value in tensors.items() if MOTION not in name}
        if spatial or not motion:
            self.take(spatial, origin, self.spatial)
        if motion:
            self.take(motion, origin, self.motion)

    def new(self, tensors: dict[str, Tensor], why: str) -> None:
        """Adds tensors that no file has, and says in the report why they are new."""
        self._put(tensors, f"new: {why}")

    def check(self) -> None:
        """Checks that the model is complete.

        Raises:
            ValueError: if a tensor is still missing.
        """
        missing = sorted(self.shapes.keys() - self.tensors.keys())
        if missing:
            raise ValueError(f"no file has {len(missing)} of the {self.name}'s tensors, e.g. {missing[0]}.")

    def _put(self, tensors: dict[str, Tensor], origin: str) -> None:
        self.tensors |= tensors
        self.origins |= dict.fromkeys(tensors, origin)

    def _differences(self, tensors: dict[str, Tensor], missing: list, extra: list, shapes: list) -> str:
        faults = []
        if missing:
            faults.append(f"{len(missing)} names are missing, e.g. {missing[0]}")
        if missing and all(name.startswith("mid_block.") for name in missing):
            faults.append("it looks like AnimateDiff v1 or v3, which have no motion module there; v2 is needed")
        if extra:
            faults.append(f"{len(extra)} are unknown, e.g. {extra[0]}")
        if shapes:
            name = shapes[0]
            faults.append(
                f"{len(shapes)} have another shape, e.g. {name} {tuple(tensors[name].shape)} for {self.shapes[name]}"
            )
        return "; ".join(faults) + "."


def widened_input(weight: Tensor, channels: int) -> Tensor:
    """Widens the first convolution of Stage 1 by zeros for the image latent (paper, section 3.2).

    The input is [image latent, noisy latent], so the old weights go on reading the noisy one.

    Equation: zero-channels

    Args:
        weight: `(O, I, 3, 3)`.
        channels: the channels of the new input.

    Returns:
        `(O, channels, 3, 3)`.
    """
    zeros = weight.new_zeros(len(weight), channels - weight.shape[1], *weight.shape[2:])
    return torch.cat([zeros, weight], dim=1)


def stride_embedding(part: Part) -> dict[str, Tensor]:
    """Makes Stage 1's stride embedding as a training starts with it: its last layer is zero, so it adds nothing yet."""
    first, last = part.shapes[f"{STRIDE}linear_1.weight"], part.shapes[f"{STRIDE}linear_2.weight"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = TimestepEmbedding(first[1], last[0]).state_dict()
    return {
        STRIDE + name: value if name.startswith("linear_1") else torch.zeros_like(value)
        for name, value in state.items()
    }


def _position_table(shape: tuple[int, ...]) -> Tensor:
    return PositionCode(shape[2], shape[1]).pe
