"""What sampling and training cost, measured where there is a device for it, estimated where not (notebook 06)."""

from mi2v_lite.benchmark.meter import Cost, Meter
from mi2v_lite.benchmark.table import benchmark, markdown

__all__ = ["Cost", "Meter", "benchmark", "markdown"]
