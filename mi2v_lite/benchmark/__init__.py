"""What sampling and training cost, measured where there is a device for it, estimated where not (notebook 06)."""

from mi2v_lite.benchmark.document import costs
from mi2v_lite.benchmark.fitting import Options, sampling_memory
from mi2v_lite.benchmark.meter import Cost, Meter
from mi2v_lite.benchmark.table import benchmark, markdown, options_markdown

__all__ = ["Cost", "Meter", "Options", "benchmark", "costs", "markdown", "options_markdown", "sampling_memory"]
