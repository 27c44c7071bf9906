"""Stage 1 beyond one sample: several samples of a clip, and what the control's scale does."""

from __future__ import annotations

import numpy as np

from mi2v_lite.data.source import Clip
from mi2v_lite.evaluation.control import drag_errors, dragged, true_drag
from mi2v_lite.evaluation.parts import Numbers, flow_tensor, noise
from mi2v_lite.flow.metrics import endpoint_error
from mi2v_lite.pipelines import MotionI2VPipeline

SAMPLES_EACH = 4
OTHER_NOISE = 1_000_003  # apart from the seeds of other clips
CONTROL_SCALES = (0.0, 0.5, 1.0)


def stage1_samples(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """`stage1.epe_min_of_4_px`, `stage1.epe_mean_of_4_px`: best and mean of four samples of one caption, as
    `stage1.epe_px`; `stage1.spread_of_4_px`: mean distance of the samples from their mean field. A caption leaves
    something open, so a model that knows this spreads, and its best sample is better than its mean one (best of many
    as in Gupta et al., "Social GAN", CVPR 2018).
    """
    fields = [
        pipe.predict_motion(clip.frames[0], clip.caption, stride=clip.stride, generator=noise(seed + i * OTHER_NOISE))
        for i in range(SAMPLES_EACH)
    ]
    errors = [endpoint_error(field.flow.cpu(), flow_tensor(clip)).item() for field in fields]
    mean = sum(field.flow.cpu() for field in fields) / SAMPLES_EACH
    spread = float(np.mean([(field.flow.cpu() - mean).norm(dim=2).mean().item() for field in fields]))
    return {
        "stage1.epe_min_of_4_px": min(errors),
        "stage1.epe_mean_of_4_px": float(np.mean(errors)),
        "stage1.spread_of_4_px": spread,
    }


def control_scales(pipe: MotionI2VPipeline, clip: Clip, seed: int) -> Numbers:
    """`drags.error_px_scale_0`, `_0.5`, `_1`: one drag, no caption, as `drags.error_px_1`, at these values of
    `control_scale` and by the ControlNet alone (`hold_control` would pin the drawn path at any scale). Scale 0 is what
    an undirected motion gives; a control that works brings the error down from there.
    """
    drag = true_drag(clip)
    if drag is None:
        return {}
    found = {}
    for scale in CONTROL_SCALES:
        flow = dragged(pipe, clip, [drag], seed, hold_control=False, control_scale=scale)
        found[f"drags.error_px_scale_{scale:g}"] = drag_errors(flow, [drag])[0]
    return found
