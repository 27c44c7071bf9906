"""The table: which measures are taken, on which clips, and how their numbers are put together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
from tqdm.auto import tqdm

from mi2v_lite.data.samples import SAMPLES
from mi2v_lite.data.source import Clip, ClipSource
from mi2v_lite.evaluation import control, motion, networks, parts, video
from mi2v_lite.evaluation.detail import detail
from mi2v_lite.evaluation.fusions import painting_with
from mi2v_lite.evaluation.parts import Numbers
from mi2v_lite.models.unet import VideoUNet
from mi2v_lite.pipelines import MotionI2VPipeline

MEASURES: dict[str, Callable[[MotionI2VPipeline, Clip, int], Numbers]] = {
    "autoencoders": parts.autoencoders,
    "stage1": parts.stage1,
    "stage1_steps": parts.stage1_steps,
    "stage1_samples": motion.stage1_samples,
    "drags": control.drags,
    "network_drags": control.network_drags,
    "control_scales": motion.control_scales,
    "anchors": control.anchors,
    "brush": control.brush,
    "stage2": parts.stage2,
    "tracking": video.tracking,
    "video": video.restyled,
}
# Dear ones are taken on the first clips only. Clips differ much: the mean of few says little where a target is near.
FIRST_CLIPS = {
    "drags": 24,
    "anchors": 24,
    "brush": 24,
    "tracking": 24,
    "fusions": 24,
    "stage1_steps": 8,
    "stage1_samples": 8,
    "network_drags": 8,
    "control_scales": 8,
    "judges": 8,
    "video": 8,
}
# What a film's clips, whose flow is an estimate, can be measured on. Their keys begin with "film.".
FILM_MEASURES, FILM_CLIPS = ("autoencoders", "stage1", "drags", "stage2"), 3
# What needs clips drawn at the size of a photo, and on how many of them: each takes seconds.
LARGE_MEASURES, LARGE_CLIPS = {"detail": detail}, 24
# Where the camera rests, only a thing that obeys its words can be right. Their keys begin with "objects.".
OBJECT_MEASURES = ("stage1",)


def evaluate(
    pipe: MotionI2VPipeline,
    world: ClipSource,
    clips: int = 96,
    seed: int = 0,
    measures: Collection[str] = (*MEASURES, *LARGE_MEASURES),
    fusions: dict[str, VideoUNet] | None = None,
    film: ClipSource | None = None,
    objects: ClipSource | None = None,
    large: ClipSource | None = None,
    judges: Collection[networks.Judge] = (),
) -> dict[str, dict[str, float]]:
    """Measure a pipeline on ``clips`` clips of ``world``, and apart from them on those of ``film`` and ``objects``.

    Args:
        pipe: both stages. world: clips with exact flow. clips: how many; what is dear is measured
        on the first of them (``FIRST_CLIPS``). seed: of the clips and of all noise.
        measures: which of ``MEASURES`` and ``LARGE_MEASURES``; their docstrings say what their names mean.
        fusions: name -> Stage 2 UNet: the ablation, ``ablation.NAME.psnr_large_motion_db`` (``parts.fusion``).
        film: clips of real video with tracked flow. Their figures have the same names after ``film.``; where a pixel is
        hidden their flow is the tracker's guess, so errors against it are not all the model's.
        objects: clips whose camera rests (``World``); what Stage 1 makes of them stands after ``objects.``.
        large: clips of squares as large as photos, several times the pipeline's working size, for ``LARGE_MEASURES``.
        judges: of whole clips, made by both stages (``networks.whole``): figures after ``whole.``.

    Returns:
        metric name -> ``{"value", "spread", "n"}``. Besides those of the measures: ``flow_vae.epe_relative``,
        ``stage1.epe_relative`` and ``poke.epe_relative_1`` (3, 10), mean error over mean motion (1 is the error of the
        zero field); ``stage1.epe_over_training_mean``, over the error of the mean training motion;
        ``stage1.epe_10_over_50_steps``, the error in 10 steps over that in 50, on the same clips.

    Raises:
        ValueError: for a measure that does not exist.
    """
    unknown = sorted(set(measures) - set(MEASURES) - set(LARGE_MEASURES))
    if unknown:
        raise ValueError(f"unknown measures {unknown}; there are {sorted([*MEASURES, *LARGE_MEASURES])}")
    own = [name for name in measures if name in MEASURES]
    metrics = _measured(pipe, world, clips, seed, own, fusions or {}, judges) if own or fusions or judges else {}
    for name in [name for name in measures if name in LARGE_MEASURES and large is not None]:
        bar = tqdm(range(seed, seed + min(clips, LARGE_CLIPS)), desc=name)
        found = [LARGE_MEASURES[name](pipe, large.clip(number), number) for number in bar]
        keys = dict.fromkeys(key for numbers in found for key in numbers)
        metrics |= {key: summary([numbers[key] for numbers in found if key in numbers]) for key in keys}
    if "autoencoders" in measures:
        found = parts.photos(pipe, SAMPLES / "photos")
        metrics |= {name: summary([numbers[name] for numbers in found]) for name in found[0]}
    if "video" in measures:
        found = video.real_clips(pipe, SAMPLES / "clips")
        metrics |= {name: summary([each[name] for each in found if name in each]) for name in found[0]}
    apart = (("film", film, FILM_MEASURES, min(clips, FILM_CLIPS)), ("objects", objects, OBJECT_MEASURES, clips))
    for prefix, source, possible, count in apart:
        own = [name for name in possible if name in measures]
        if source is not None and own:
            found = _measured(pipe, source, count, seed, own, {}, ())
            found = {name.removeprefix("world.").replace("world_", ""): each for name, each in found.items()}
            metrics |= {f"{prefix}.{name}": each for name, each in found.items()}
    return metrics


def _measured(
    pipe: MotionI2VPipeline,
    source: ClipSource,
    clips: int,
    seed: int,
    measures: Collection[str],
    fusions: dict[str, VideoUNet],
    judges: Collection[networks.Judge],
) -> dict[str, dict[str, float]]:
    """The figures of the measures on the clips of one source."""
    numbers: dict[str, list[float]] = {}
    pairs: dict[str, list[tuple[float, float]]] = {}

    def put(found: Numbers) -> None:
        for name, value in found.items():
            numbers.setdefault(name, []).append(value)

    for index in tqdm(range(clips), desc="evaluate"):
        clip, found = source.clip(seed + index), {}
        for name in measures:
            if index < FIRST_CLIPS.get(name, clips):
                found |= MEASURES[name](pipe, clip, seed + index)
        put({name: value for name, value in found.items() if name not in ONLY_IN_RATIOS})
        for name, top, bottom in RATIOS:
            if top in found and bottom in found:
                pairs.setdefault(name, []).append((found[top], found[bottom]))
        if judges and index < FIRST_CLIPS["judges"]:
            put(networks.whole(pipe, clip, seed + index, judges))
        for name, unet in fusions.items() if index < FIRST_CLIPS["fusions"] else ():
            with painting_with(pipe, unet):
                put({f"ablation.{name}.{key}": value for key, value in parts.fusion(pipe, clip, seed + index).items()})
    metrics = {name: summary(values) for name, values in numbers.items()}
    return metrics | {name: share(*zip(*values, strict=True)) for name, values in pairs.items()}


# name, the error above, the error or motion below
RATIOS = (
    ("flow_vae.epe_relative", "flow_vae.epe_px", "world.motion_px"),
    ("stage1.epe_relative", "stage1.epe_px", "world.motion_px"),
    ("stage1.epe_over_training_mean", "stage1.epe_px", "world.training_mean_epe_px"),
    ("stage1.epe_10_over_50_steps", "stage1.epe_10_steps_px", "stage1.epe_50_steps_px"),
    *((f"poke.epe_relative_{count}", f"poke.epe_px_{count}", "world.motion_px") for count in control.DRAG_COUNTS),
)
# Taken on few clips, for their ratio alone: as figures they would not compare with those of all clips.
ONLY_IN_RATIOS = {"stage1.epe_10_steps_px", "stage1.epe_50_steps_px"}


def share(errors: Sequence[float], motions: Sequence[float]) -> dict[str, float]:
    """Mean error over mean motion (not the mean of ratios: a clip that hardly moves would outweigh all others).

    The spread is that of the ratios of the clips that move more than 1 px.
    """
    ratios = [error / motion for error, motion in zip(errors, motions, strict=True) if motion > 1]
    spread = float(np.std(ratios)) if ratios else float("nan")
    value = float(np.mean(errors) / np.mean(motions)) if np.any(motions) else float("nan")
    return {"value": value, "spread": spread, "n": len(errors)}


def summary(values: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation and number of the finite values."""
    kept = [v for v in values if np.isfinite(v)]
    if not kept:
        return {"value": float("nan"), "spread": float("nan"), "n": 0}
    return {"value": float(np.mean(kept)), "spread": float(np.std(kept)), "n": len(kept)}


def markdown(metrics: dict[str, dict[str, float]]) -> str:
    """The metrics as a Markdown table."""
    rows = ["| metric | mean | spread | clips |", "|---|---|---|---|"]
    rows += [f"| {name} | {m['value']:.3f} | {m['spread']:.3f} | {m['n']} |" for name, m in sorted(metrics.items())]
    return "\n".join(rows)


def report(metrics: dict[str, dict[str, float]], notes: Iterable[str] = ()) -> dict:
    """The JSON form: ``{"metrics": {KEY: {"value", "spread", "n"}}, "notes": [...]}``."""
    return {"metrics": metrics, "notes": list(notes)}
