"""Decides which file serves which model, and checks everything before anything is written.

There are two ways. One imports the release. The other makes the models that a training at full scale starts from: both
UNets are Stable Diffusion's with AnimateDiff's motion modules, Stage 1 with zeros for its new input channels (paper,
section 3.2), and the flow autoencoder is made from the image autoencoder (notebook 01).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from mi2v_lite.importing import names
from mi2v_lite.importing.files import Checkpoint, Shelf, agree
from mi2v_lite.importing.official import unet_config_from_official
from mi2v_lite.importing.parts import STRIDE, Part, shell, stride_embedding, widened_input
from mi2v_lite.io.files import absent
from mi2v_lite.models.autoencoder import make_vae
from mi2v_lite.training.curriculum import Config
from mi2v_lite.training.export import PARTS
from mi2v_lite.training.starts import flow_vae_from_image_vae

# Where the release keeps its files, below its folder `models`.
RELEASE = {
    "stable_diffusion": "stage2/StableDiffusion",
    "motion_module": "stage2/Motion_Module/motion_block.bin",
    "dreambooth": "stage2/DreamBooth_LoRA/realistic_unet.ckpt",
    "vae": "stage2/DreamBooth_LoRA/realisticVisionV51_v20Novae.safetensors",
    "stage1_unet": "stage1/StableDiffusion-FlowGen/unet",
    "controlnet": "stage1/StableDiffusion-FlowGen/controlnet/controlnet.bin",
    "flow_vae": "stage1/StableDiffusion-FlowGen/vae_flow/diffusion_pytorch_model.bin",
}
# In what a config beside published weights must agree with ours. Shapes would not show all of these differences.
UNET_KEYS = ("block_out_channels", "layers_per_block", "attention_levels", "num_attention_heads", "norm_num_groups",
             "norm_eps", "cross_attention_dim")  # fmt: skip
VAE_KEYS = ("block_out_channels", "layers_per_block", "latent_channels", "norm_num_groups", "scaling_factor")
TEXT_KEYS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act",
             "max_position_embeddings", "layer_norm_eps")  # fmt: skip
ADAPTER_KEYS = ("motion_num_attention_heads", "motion_norm_num_groups", "motion_max_seq_length", "use_motion_mid_block")


@dataclass(frozen=True)
class Sources:
    """The local files and folders to import from; None stands for what is not given.

    Attributes:
        release: the folder of Motion-I2V's release, with `models/` or `stage1/` and `stage2/`; the others override it.
        stable_diffusion: Stable Diffusion 1.5, a diffusers folder or a single file.
        motion_module: AnimateDiff v2, its `.ckpt` or a `MotionAdapter` folder, or the release's motion block.
        dreambooth: a fine-tuned UNet for Stage 2.
        vae: another image autoencoder.
        flow_vae: the release's flow autoencoder.
        stage1_unet: the release's UNet of Stage 1.
        controlnet: the release's ControlNet.
        tokenizer: the folder of a CLIP tokenizer.
    """

    release: Path | None = None
    stable_diffusion: Path | None = None
    motion_module: Path | None = None
    dreambooth: Path | None = None
    vae: Path | None = None
    flow_vae: Path | None = None
    stage1_unet: Path | None = None
    controlnet: Path | None = None
    tokenizer: Path | None = None

    def resolved(self) -> Sources:
        """Returns these sources with the release's files in place of what is not given.

        Raises:
            ValueError: if something that is given does not exist, the folder of the release does not have its layout,
                or something necessary is not given.
        """
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        for name, path in given.items():
            if path is not None and not path.exists():
                raise ValueError(f"The {name.replace('_', ' ')} {absent(path, 'a file or a folder')}")
        if self.release is not None:
            inside = [folder for folder in (self.release / "models", self.release) if (folder / "stage1").is_dir()]
            if not inside:
                raise ValueError(f"{self.release} is not Motion-I2V's release: it has no folder models/stage1.")
            given |= {name: inside[0] / path for name, path in RELEASE.items() if given[name] is None}
        for name in ("stable_diffusion", "motion_module"):
            if given[name] is None:
                raise ValueError(f"{name.replace('_', ' ')} is needed; give it, or the release, which contains it.")
        return Sources(**given)


@dataclass
class Plan:
    """A pipeline that is complete but not written yet.

    Attributes:
        config: the curriculum that says its sizes.
        parts: the models with all their tensors, by the pipeline's names.
        tokenizer: the text encoder's.
        image_range: the pixels that Stage 1 reads, `unit` for [0, 1] or `signed` for [-1, 1].
        shelf: the files that were opened.
        notes: what the report should mention.
    """

    config: Config
    parts: dict[str, Part]
    tokenizer: CLIPTokenizer
    image_range: str
    shelf: Shelf
    notes: list[str] = field(default_factory=list)


def make_plan(config: Config, sources: Sources) -> Plan:
    """Opens all files and puts the models together, but reads little more than headers.

    Args:
        config: a curriculum, for the sizes of its `models`, for instance `configs/full.yaml`.
        sources: the files to import from.

    Raises:
        ValueError: for a file that is missing, damaged or of another model; names it.
    """
    sources = sources.resolved()
    shelf, notes = Shelf(), []
    parts = {name: Part(name, shell(config, model)) for name, model in PARTS.items()}
    base = sources.stable_diffusion
    _text_encoder(parts["text_encoder"], shelf, _inside(base, "text_encoder"))
    _vae(parts["vae"], shelf, sources.vae or _inside(base, "vae"))
    if sources.release:
        notes += _compared(parts["vae"], shelf, base / "vae", _vae)
        notes += _compared(parts["text_encoder"], shelf, sources.stage1_unet.with_name("text_encoder"), _text_encoder)
    _animation_unet(parts["animation_unet"], shelf, sources)
    _motion_unet(parts["motion_unet"], shelf, sources)
    if sources.flow_vae:
        _vae(parts["flow_vae"], shelf, sources.flow_vae)
    else:
        _new_flow_vae(parts["flow_vae"], parts["vae"], config)
    source = sources.controlnet
    if source:
        parts["controlnet"].take(names.controlnet_state(shelf.open(source)), source)
    else:
        del parts["controlnet"]
        notes.append("no ControlNet: drags and brushes need one, trained or imported")
    for part in parts.values():
        part.check()
    tokenizer = _tokenizer(sources, parts["text_encoder"])
    # The release's Stage 1 reads pictures in [0, 1]; what is trained here reads [-1, 1] (golden README).
    return Plan(config, parts, tokenizer, "unit" if sources.stage1_unet else "signed", shelf, notes)


def _inside(base: Path, name: str) -> Path:
    """Returns the place of a model in a diffusers folder; a single file holds all of them."""
    return base / name if base.is_dir() else base


def _text_encoder(part: Part, shelf: Shelf, source: Path) -> None:
    checkpoint = shelf.open(source)
    _agree(checkpoint, part, TEXT_KEYS)
    part.take(names.text_state(checkpoint), checkpoint.path)


def _vae(part: Part, shelf: Shelf, source: Path) -> None:
    checkpoint = shelf.open(source)
    _agree(checkpoint, part, VAE_KEYS)
    part.take(names.vae_state(checkpoint, len(part.model.config.block_out_channels)), checkpoint.path)


def _new_flow_vae(part: Part, image_vae: Part, config: Config) -> None:
    entry = {key: value for key, value in config.models[PARTS["flow_vae"]].items() if key != "kind"}
    model = make_vae({key: value for key, value in config.models[PARTS["vae"]].items() if key != "kind"})
    model.load_state_dict({name: value.float() for name, value in image_vae.tensors.items()})
    part.new(flow_vae_from_image_vae(model, entry).state_dict(), "made from the image autoencoder, not trained yet")


def _animation_unet(part: Part, shelf: Shelf, sources: Sources) -> None:
    for source in (_inside(sources.stable_diffusion, "unet"), sources.motion_module, sources.dreambooth):
        if source is not None:
            if source.is_dir() and (source / "unet").is_dir():  # a fine-tuned model as a whole diffusers folder
                source = source / "unet"
            part.take_unet(*_unet(shelf, source, part))


def _motion_unet(part: Part, shelf: Shelf, sources: Sources) -> None:
    if sources.stage1_unet:
        part.take_unet(*_unet(shelf, sources.stage1_unet, part))
        return
    state, origin = _unet(shelf, _inside(sources.stable_diffusion, "unet"), part)
    first = state.pop("conv_in.weight", torch.empty(0))
    stride = {name for name in part.spatial if name.startswith(STRIDE)}
    part.take(state, origin, part.spatial - stride - {"conv_in.weight"})
    # Stage 2's UNet has the same file's first convolution and was checked against it.
    part.new({"conv_in.weight": widened_input(first, part.model.config.in_channels)}, f"{origin}, zeros for the image")
    part.new(stride_embedding(part), "random, with a last layer of zeros")
    state, origin = _unet(shelf, sources.motion_module, part)
    # AnimateDiff's training saves the whole UNet.
    part.take({name: value for name, value in state.items() if names.MOTION in name}, origin, part.motion)


def _unet(shelf: Shelf, source: Path, part: Part) -> tuple[dict[str, Tensor], Path]:
    checkpoint = shelf.open(source)
    config = checkpoint.config
    if config and "motion_num_attention_heads" in config:
        ours = {"motion_num_attention_heads": part.model.config.motion_num_attention_heads,
                "motion_max_seq_length": part.model.config.motion_max_length,
                "motion_norm_num_groups": 32, "use_motion_mid_block": True}  # fmt: skip
        agree(source / "config.json", config, ours, ADAPTER_KEYS)
    elif config:
        mid = str(config.get("mid_block_type") or "UNetMidBlock2DCrossAttn").replace("2D", "3D")
        try:
            theirs = unet_config_from_official({**config, "mid_block_type": mid}, stage=2)
        except (KeyError, ValueError) as error:
            raise ValueError(f"{source / 'config.json'} does not belong to a UNet of this kind: {error}") from error
        agree(source / "config.json", theirs, part.model.config, UNET_KEYS)
    return names.unet_state(checkpoint, part.model.config.layers_per_block), checkpoint.path


def _agree(checkpoint: Checkpoint, part: Part, keys: tuple[str, ...]) -> None:
    if checkpoint.config is not None:
        ours = part.model.config if isinstance(part.model.config, Mapping) else part.model.config.to_dict()
        agree(checkpoint.path.with_name("config.json"), checkpoint.config, ours, keys)


def _compared(part: Part, shelf: Shelf, source: Path, take: Callable[[Part, Shelf, Path], None]) -> list[str]:
    """Says where models differ that the release has once for each stage, and this pipeline only once."""
    if not source.is_dir():
        return []
    other = Part(part.name, part.model)
    take(other, shelf, source)
    away = max(float((value.float() - other.tensors[name].float()).abs().max()) for name, value in part.tensors.items())
    return [f"one {part.name} for both stages; {source} differs from it by up to {away:.2g}"] if away else []


def _tokenizer(sources: Sources, text_encoder: Part) -> CLIPTokenizer:
    folder = sources.tokenizer or sources.stable_diffusion / "tokenizer"
    if not folder.is_dir():
        raise ValueError(
            f"there is no tokenizer at {folder}, and a single file has none; give the folder with vocab.json and "
            "merges.txt."
        )
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises many kinds for what is missing or damaged
        raise ValueError(f"{folder} does not hold a CLIP tokenizer that can be read ({error}).") from error
    size = text_encoder.model.config.vocab_size
    if len(tokenizer) != size:
        raise ValueError(f"{folder} has {len(tokenizer)} tokens, but the text encoder {size}.")
    return tokenizer
