"""What a pipeline can do, measured on clips whose true motion is known: `mi2v evaluate` prints the table.

`table.FIGURES` says in one sentence what each figure means. Every figure is a mean over clips with its spread (the
standard deviation) and the number of clips. Clips, noise and drags follow from the seed alone.
"""

from mi2v_lite.evaluation.control import drag_errors, true_drag, true_drags
from mi2v_lite.evaluation.judges import ClipJudge
from mi2v_lite.evaluation.sheets import detail_clips, drag_sheet, fusion_clips, prompt_sheet
from mi2v_lite.evaluation.table import ALL_MEASURES, FIGURES, evaluate, markdown

__all__ = [
    "ALL_MEASURES",
    "FIGURES",
    "ClipJudge",
    "detail_clips",
    "drag_errors",
    "drag_sheet",
    "evaluate",
    "fusion_clips",
    "markdown",
    "prompt_sheet",
    "true_drag",
    "true_drags",
]
