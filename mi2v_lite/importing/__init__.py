"""Turns published checkpoints into one pipeline folder: Motion-I2V's release, Stable Diffusion 1.5, AnimateDiff.

`files` reads them, `names` translates their names to ours, `parts` puts the models together and says what is missing,
`plan` knows which file serves which model, and `folder` writes the result with its report. `official` builds single
models from the release's configs (notebook 06).
"""

from mi2v_lite.importing.folder import import_pipeline, report_text
from mi2v_lite.importing.plan import Plan, Sources, make_plan

__all__ = ["Plan", "Sources", "import_pipeline", "make_plan", "report_text"]
