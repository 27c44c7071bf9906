"""The table: which figures there are, on which clips they are measured, and how they are put together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from tqdm.auto import tqdm

from mi2v_lite.data.clips import Clip, ClipSource
from mi2v_lite.data.lite_world import LiteWorld
from mi2v_lite.data.samples import find_samples
from mi2v_lite.evaluation import control, scenes, stages
from mi2v_lite.evaluation import video as restyling
from mi2v_lite.evaluation.detail import detail
from mi2v_lite.evaluation.judges import Judge, judged
from mi2v_lite.evaluation.stages import Numbers
from mi2v_lite.evaluation.things import things as moved_things
from mi2v_lite.models.unet import VideoUNet
from mi2v_lite.pipelines import MotionI2VPipeline

# What each figure means, in which unit, and whether more or less is better. Errors are lengths of wrong displacements;
# likeness is the peak signal-to-noise ratio (PSNR).
FIGURES = {
    "flow_vae.epe_relative": (
        "Error that encoding and decoding leave in a motion field, over the mean motion; less is better."
    ),
    "image_vae.psnr_db": "Likeness of photos to themselves after encoding and decoding, in dB; more is better.",
    "stage1.epe_relative": (
        "Error of the predicted motion over the mean motion, 1 for no motion at all; less is better."
    ),
    "stage1.epe_over_training_mean": (
        "Error of the predicted motion over that of the mean training motion; less is better."
    ),
    "stage1.direction_accuracy": "Share of clips that go where the caption says, to within 45 degrees; more is better.",
    "stage1.followed": "How far the prediction goes along the true motion, as a share of it; 1 is right.",
    "objects.stage1.direction_accuracy": (
        "Share of things that go where the caption says while the camera rests; more is better."
    ),
    "objects.stage1.followed": "How far these things go along their true motion, as a share of it; 1 is right.",
    "prompts.direction_accuracy": (
        "Share of named things that go where the caption says, to within 45 degrees, while the camera rests; more is "
        "better."
    ),
    "prompts.others_rest": ("Share of these scenes in which all else moves less than 1 px on average; more is better."),
    "prompts.followed": "How far the named things go along their true motion, as a share of it; 1 is right.",
    "film.stage1.epe_relative": (
        "Error of the predicted motion over the mean motion on clips of a film; less is better."
    ),
    "drags.error_px_1": (
        "Distance of a single drag's start from its goal in the last frame, held, in px; less is better."
    ),
    "drags.error_px_3": "The same distance with 3 drags, held, in px; less is better.",
    "drags.error_px_10": "The same distance with 10 drags, held, in px; less is better.",
    "drags.error_px_1_network": "The same distance with 1 drag through the ControlNet alone, in px; less is better.",
    "drags.error_px_3_network": "The same distance with 3 drags through the ControlNet alone, in px; less is better.",
    "drags.error_px_10_network": "The same distance with 10 drags through the ControlNet alone, in px; less is better.",
    "drags.epe_moving_px": "Error over all that really moves when one drag is given, held, in px; less is better.",
    "drags.thing_epe_px_network": (
        "Error over all pixels of a thing that one drag names, through the ControlNet alone, in px; less is better."
    ),
    "photos.follows": (
        "Share of an outlined thing of a real photo that comes along with a single drag over 20 px of 128, to within 5 "
        "px; more is better."
    ),
    "photos.iou_click": (
        "Likeness of the mask that one click finds in a real photo to the outline there, which GrabCut made of marks "
        "set by eye (IoU); 1 is right."
    ),
    "photos.iou_click_box": "The same for a click and a box; 1 is right.",
    "things.iou_click": "Likeness of a thing's mask, found by one click, to the true one (IoU); 1 is right.",
    "things.iou_click_box": "The same for a click and a box; 1 is right.",
    "things.epe_px": (
        "Error over a thing that moves by its true mask and two of its true tracks, held, in px; less is better."
    ),
    "things.epe_px_click": "The same with the mask that one click found, in px; less is better.",
    "things.epe_px_click_one_drag": "The same with one track, which cannot turn the thing, in px; less is better.",
    "things.turn_degrees": "Error of the angle of things that turn, by two tracks, in degrees; less is better.",
    "things.slip_px": (
        "How far the background moves, which rests and is anchored, when a thing is moved, in px; less is better."
    ),
    "things.slip_px_free": "The same when the background is left to the network, in px; less is better.",
    "anchors.drift_px": "How far anchored points move, in px; less is better.",
    "brush.leakage_px": "Mean motion outside the brush, in px; less is better.",
    "stage2.psnr_gap_db": (
        "How far visible pixels stay below what the image autoencoder can show, in dB; less is better."
    ),
    "stage2.psnr_holes_db": "Likeness to the truth where frame 0 shows nothing, in dB; more is better.",
    "stage2.psnr_very_large_motion_db": (
        "Likeness to the truth of pixels that moved more than 12 px, in dB; more is better."
    ),
    "ablation.none.psnr_large_motion_db": "The same for a Stage 2 without warped features, in dB; more is better.",
    "ablation.addition.psnr_large_motion_db": (
        "The same for a Stage 2 that adds warped features, in dB; more is better."
    ),
    "ablation.attention.psnr_large_motion_db": (
        "The same for a Stage 2 that attends to warped features, in dB; more is better."
    ),
    "detail.visible_psnr_db_carried": (
        "Likeness of visible pixels of large clips, with carried detail, in dB; more is better."
    ),
    "detail.visible_psnr_db_plain": "The same for Stage 2's frames enlarged, in dB; more is better.",
    "detail.visible_psnr_db_telea": (
        "The same for the photo splatted along every pixel's true motion, in dB; more is better."
    ),
    "detail.holes_psnr_db_carried": "Likeness where frame 0 shows nothing, with carried detail, in dB; more is better.",
    "detail.holes_psnr_db_telea": "The same for holes filled by Telea's inpainting, in dB; more is better.",
    "detail.holes_sharpness_carried": (
        "Mean step between neighbouring pixels in holes over the truth's there, with carried detail; 1 is right."
    ),
    "detail.flicker_levels_carried": (
        "Change along the motion from frame to frame, carried, in levels of 255; less is better."
    ),
    "detail.flicker_levels_plain": "The same for Stage 2's frames enlarged, in levels of 255; less is better.",
    "detail.sharpness_carried": (
        "Mean step between neighbouring pixels over the truth's, with carried detail; 1 is right."
    ),
    "detail.sharpness_plain": "The same for Stage 2's frames enlarged; 1 is right.",
    "detail.predicted_psnr_db_carried": (
        "Likeness of all pixels with predicted motion and carried detail, in dB; more is better."
    ),
    "detail.predicted_psnr_db_plain": "The same for Stage 2's frames enlarged, in dB; more is better.",
    "detail.field_roughness_predicted_guided": (
        "Creases (mean Laplacian) of motion enlarged along the photo's edges; less is better."
    ),
    "detail.field_roughness_predicted_bilinear": "The same for motion enlarged bilinearly; less is better.",
    "tracking.epe_large_px": "Error of the tracker where pixels move more than 8 px, in px; less is better.",
    "video.same_motion_warp_error_ratio": (
        "Flicker of frames painted one by one over that of a driven clip; more is better."
    ),
    "whole.consistency_clip": "Frame consistency: CLIP's cosine of neighbouring frames; more is better.",
    "whole.prompt_clip": "Prompt consistency: CLIP's cosine of frames and prompt, times 100; more is better.",
    "whole.average_displacement_px": (
        "Mean motion of these clips, in px, since standing still is consistent; neither is better."
    ),
}

Measure = Callable[[MotionI2VPipeline, Clip, int], Numbers]

# Measures on the clips of the world, and on how many of them at most: the expensive ones take only the first.
ALL = 10**9
MEASURES: dict[str, tuple[Measure, int]] = {
    "autoencoders": (stages.flow_vae, ALL),
    "stage1": (stages.stage1, ALL),
    "drags": (control.drags, 24),
    "network_drags": (control.network_drags, 8),
    "things": (moved_things, 16),
    "anchors": (control.anchors, 24),
    "brush": (control.brush, 24),
    "stage2": (stages.stage2, ALL),
    "detail": (detail, 24),
    "tracking": (restyling.tracking, 24),
    "video": (restyling.video, 8),
}
# Measures on the scenes of `LiteWorld` in which the camera rests.
SCENE_MEASURES: dict[str, tuple[Callable, int]] = {
    "prompts": (scenes.prompts, 96),
    "thing_drags": (scenes.thing_drags, 24),
}
ALL_MEASURES = (*MEASURES, *SCENE_MEASURES, "photos", "outlines")
FILM_CLIPS, ABLATION_CLIPS, JUDGED_CLIPS = 3, 24, 8


def evaluate(
    pipe: MotionI2VPipeline,
    world: ClipSource,
    clips: int = 96,
    seed: int = 0,
    measures: Collection[str] = ALL_MEASURES,
    *,
    things: LiteWorld | None = None,
    large: ClipSource | None = None,
    large_objects: ClipSource | None = None,
    objects: ClipSource | None = None,
    film: ClipSource | None = None,
    fusions: dict[str, VideoUNet] | None = None,
    judge: Judge | None = None,
) -> dict[str, dict[str, float]]:
    """Measures a pipeline on clips whose true motion is known.

    Args:
        pipe: both stages.
        world: the clips to measure on.
        clips: how many of them; expensive measures take only the first (`MEASURES`).
        seed: of the first clip, and of all noise.
        measures: which of `ALL_MEASURES` to take.
        things: the held-out world whose scenes are for `SCENE_MEASURES`, and its outlined things for `photos` and
            `outlines`; none leaves these measures out.
        large: square clips, several times the pipeline's working size, for the measures `detail` and `things`, which
            are left out without it.
        large_objects: such clips whose camera rests, for `things`.
        objects: clips whose camera rests, for `stage1`; their figures begin with `objects.`.
        film: clips of real video, for `stage1`; their figures begin with `film.`. Their motion is a tracker's estimate,
            so the error is not all the model's.
        fusions: name to Stage 2 UNet, for the ablation; the figures begin with `ablation.`.
        judge: what whole clips, made by both stages, are judged by; the figures begin with `whole.`.

    Returns:
        figure to `{"value", "spread", "n"}`, in the order of `FIGURES`: mean, standard deviation and number of clips.

    Raises:
        ValueError: for a measure that does not exist.
    """
    unknown = sorted(set(measures) - set(ALL_MEASURES))
    if unknown:
        raise ValueError(f"there is no measure called {', '.join(unknown)}; there are {', '.join(ALL_MEASURES)}.")
    numbers: dict[str, list] = {}

    def add(measured: Numbers, prefix: str = "") -> None:
        for key, value in measured.items():
            numbers.setdefault(prefix + key, []).append(value)

    def take(name: str, measure: Measure, source: ClipSource, most: int = ALL, prefix: str = "") -> None:
        for number in tqdm(range(seed, seed + min(clips, most)), desc=name):
            add(measure(pipe, source.clip(number), number), prefix)

    for name in (name for name in measures if name in MEASURES):
        measure, most = MEASURES[name]
        source = large if name in ("detail", "things") else world
        if source is not None:
            take(name, measure, source, most)
    if things is not None:
        for name in (name for name in measures if name in SCENE_MEASURES):
            measure, most = SCENE_MEASURES[name]
            count = min(clips, most)
            for number, scene in tqdm(scenes.resting_scenes(things, count, seed), desc=name, total=count):
                add(measure(pipe, scene, number))
        for number in tqdm(range(len(things.sources.things) if "photos" in measures else 0), desc="photos"):
            add(scenes.photo_drags(pipe, things, number, seed))
        for number in range(len(things.sources.things) if "outlines" in measures else 0):
            add(scenes.photo_outlines(things, number, seed))
    if "things" in measures and large_objects is not None:
        measure, most = MEASURES["things"]
        take("things, still camera", measure, large_objects, most)
    if "autoencoders" in measures:
        for path in sorted((find_samples() / "photos").glob("*.jpg")):
            add(stages.image_vae(pipe, path))
    if "stage1" in measures and objects is not None:
        take("objects", stages.stage1, objects, prefix="objects.")
    if "stage1" in measures and film is not None:
        take("film", stages.stage1, film, FILM_CLIPS, "film.")
    for name, unet in (fusions or {}).items():
        with painting_with(pipe, unet):
            take(f"ablation {name}", _ablation, world, ABLATION_CLIPS, f"ablation.{name}.")
    if judge is not None:
        take("whole", lambda *arguments: judged(*arguments, judge), world, JUDGED_CLIPS)
    order = [*FIGURES, *(name for name in numbers if name.startswith(("ablation.", "whole.")) and name not in FIGURES)]
    return {name: summary(numbers[name]) for name in order if name in numbers}


def _ablation(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """What the fusions differ in: pixels that moved far."""
    numbers = stages.stage2(pipe, clip, seed)
    name = "stage2.psnr_very_large_motion_db"
    return {"psnr_large_motion_db": numbers[name]} if name in numbers else {}


@contextmanager
def painting_with(pipe: MotionI2VPipeline, unet: VideoUNet) -> Iterator[None]:
    """Inside the block, Stage 2 of the pipeline is `unet`."""
    own = pipe.animation_unet
    pipe.register_modules(animation_unet=unet)
    try:
        yield
    finally:
        pipe.register_modules(animation_unet=own)


def summary(values: Sequence[float] | Sequence[tuple[float, float]]) -> dict[str, float]:
    """Sums a figure up.

    Args:
        values: one for each clip. Of pairs (error, size) the mean error is divided by the mean size, for a mean of
            ratios would be ruled by the clips that hardly move; their spread is that of the ratios of sizes above 1.

    Returns:
        `{"value", "spread", "n"}`, over the values that are finite.
    """
    if values and isinstance(values[0], tuple):
        errors, sizes = np.array(values).T
        ratios = errors[sizes > 1] / sizes[sizes > 1]
        value = float(errors.mean() / sizes.mean()) if sizes.any() else float("nan")
        return {"value": value, "spread": float(ratios.std()) if len(ratios) else float("nan"), "n": len(values)}
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return {"value": float("nan"), "spread": float("nan"), "n": 0}
    return {"value": float(np.mean(finite)), "spread": float(np.std(finite)), "n": len(finite)}


def markdown(metrics: dict[str, dict[str, float]]) -> str:
    """Returns the figures as a Markdown table, each with its meaning."""
    rows = ["| figure | mean | spread | clips | meaning |", "|---|---|---|---|---|"]
    for name, m in metrics.items():
        meaning = FIGURES.get(name, "")
        rows.append(f"| {name} | {m['value']:.3f} | {m['spread']:.3f} | {m['n']} | {meaning} |")
    return "\n".join(rows)
