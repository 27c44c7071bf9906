"""Floor 4: measured quality of a pipeline on worlds whose truth is known. `mi2v evaluate` prints the table.

Every figure has a mean, a spread (standard deviation over clips) and the number of clips. Clips, noise and drags follow
from the seed alone. What each name means stands with the function that measures it.
"""

from mi2v_lite.data.samples import SAMPLES, heldout_world, sample_film
from mi2v_lite.evaluation.control import drag_errors, dragged, true_drag, true_drags
from mi2v_lite.evaluation.detail import detail_clips
from mi2v_lite.evaluation.fusions import fusion_clips
from mi2v_lite.evaluation.networks import find_judges
from mi2v_lite.evaluation.parts import LARGE_MOTION_PX
from mi2v_lite.evaluation.sheets import drag_sheet, prompt_sheet
from mi2v_lite.evaluation.table import LARGE_MEASURES, MEASURES, evaluate, markdown, report

__all__ = [
    "LARGE_MEASURES",
    "LARGE_MOTION_PX",
    "MEASURES",
    "SAMPLES",
    "detail_clips",
    "drag_errors",
    "drag_sheet",
    "dragged",
    "evaluate",
    "find_judges",
    "fusion_clips",
    "heldout_world",
    "markdown",
    "prompt_sheet",
    "report",
    "sample_film",
    "true_drag",
    "true_drags",
]
