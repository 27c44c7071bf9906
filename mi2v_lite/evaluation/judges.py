"""Whole clips, from photo and prompt through both stages, judged by CLIP as in table 1 of the paper.

CLIP is no part of the package: `mi2v evaluate --clip FOLDER` takes it from a folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from mi2v_lite.data.clips import Clip
from mi2v_lite.evaluation.stages import Numbers, noise
from mi2v_lite.evaluation.video import displacement
from mi2v_lite.pipelines import MotionI2VPipeline

ENCODED_AT = 224  # pixels a side
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP's colours

# From frames `(F, 3, H, W)` in [-1, 1] and the prompt to figures.
Judge = Callable[[Tensor, str], Numbers]


def judged(pipe: MotionI2VPipeline, clip: Clip, seed: int, judge: Judge) -> Numbers:
    """Makes a clip from frame 0 and the caption by both stages, and asks the judge about it."""
    generator = noise(seed)
    motion = pipe.predict_motion(clip.frames[0], clip.caption, stride=clip.stride, generator=generator)
    options = {"detail": "none", "generator": generator, "output_type": "pt"}
    frames = pipe.render(clip.frames[0], motion, clip.caption, **options).frames[0].cpu()
    return judge(frames, clip.caption) | {"whole.average_displacement_px": displacement(frames)}


def consistency(features: Tensor) -> float:
    """Returns the mean cosine between neighbouring frames' features, `(F, D)`."""
    return F.cosine_similarity(features[1:], features[:-1]).mean().item()


class ClipJudge:
    """Frame consistency and prompt consistency by CLIP (paper, section 4.2).

    Args:
        folder: a CLIP model as transformers saves it, with its weights as safetensors and its tokenizer.

    Raises:
        ValueError: if the folder holds no such model.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.
    """

    def __init__(self, folder: Path) -> None:
        from transformers import CLIPModel, CLIPTokenizer

        if not (Path(folder) / "config.json").is_file():
            raise ValueError(f"{folder} holds no CLIP model: config.json is missing there.")
        try:
            self.net = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
            self.tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # transformers raises many kinds of errors for a folder that does not fit
            raise ValueError(f"{folder} holds no CLIP model that can be loaded ({error}).") from error

    @torch.no_grad()
    def __call__(self, frames: Tensor, prompt: str) -> Numbers:
        """Judges one clip, `(F, 3, H, W)` in [-1, 1]."""
        size = (ENCODED_AT, ENCODED_AT)
        pixels = F.interpolate(frames.float(), size, mode="bicubic", align_corners=False, antialias=True).clamp(-1, 1)
        mean, deviation = (torch.tensor(colours).view(1, 3, 1, 1) for colours in (MEAN, DEVIATION))
        pixels = ((pixels + 1) / 2 - mean) / deviation
        seen = self.net.visual_projection(self.net.vision_model(pixels).pooler_output)  # (F, D)
        length = self.net.config.text_config.max_position_embeddings
        words = self.tokenizer(prompt, truncation=True, max_length=length, return_tensors="pt")
        said = self.net.text_projection(self.net.text_model(**words).pooler_output)  # (1, D)
        return {
            "whole.consistency_clip": consistency(seen),
            "whole.prompt_clip": 100 * F.cosine_similarity(seen, said).mean().item(),
        }
