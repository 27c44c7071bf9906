"""What sampling and training cost, measured where there is a device for it and estimated elsewhere (notebook 06)."""

from tools.benchmark.document import costs
from tools.benchmark.fitting import Options, sampling_memory
from tools.benchmark.meter import Cost, Meter
from tools.benchmark.table import benchmark, markdown, options_markdown

__all__ = ["Cost", "Meter", "Options", "benchmark", "costs", "markdown", "options_markdown", "sampling_memory"]
