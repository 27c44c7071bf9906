"""The experiments whose results the notebooks show: `make experiments` runs them, one file each.

An experiment is a module with

    QUESTION   one sentence: what it is to find out
    SEEDS      three or more; everything random in a run follows from its seed
    SETTINGS   the numbers that a reader needs to judge the result, such as how many updates were made
    run(seed)  one repetition: arm -> measure -> a number or a list of numbers, in the same shape for every seed
    NEEDS      a path that must be there, for an experiment on networks that have to be trained first; most have none

`__main__.py` repeats it over the seeds and writes `notebooks/results/NAME.json`; a notebook reads that with
`mi2v_checks.results.load`. One arm at least is a control: what is left when the idea under test is taken away.
"""

from functools import cache

from mi2v_lite import MotionI2VPipeline


@cache
def shipped_pipeline() -> MotionI2VPipeline:
    """The pipeline with the weights that come with the package, loaded once and quiet."""
    pipe = MotionI2VPipeline.from_lite()
    pipe.set_progress_bar_config(disable=True)
    return pipe
