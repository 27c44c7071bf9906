"""What people look at: pictures, plots and clips, which notebooks reach as `viz.panels`, `viz.curve` and so on.

- `pictures`: the `Picture` that shows itself in a notebook; pictures in rows, clips that move, clips side by side.
- `flow`: motion fields as colours and tracks. `drawing`: what was drawn on a photo. `plots`: numbers.
- `diagrams`: architecture figures. `attention`: what a layer of Stage 2 saw. `contact_sheets`: many clips on one page.
- `widgets`: what answers to a hand.

The names below are loaded at first use, so that the command line draws a motion field without matplotlib.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "pictures": ("Picture", "animation", "panels", "side_by_side", "strip", "to_image"),
    "flow": (
        *("HOLE", "colour_wheel", "flow_clips", "flow_panels", "flow_picture", "flow_to_rgb", "longest"),
        *("splat_frames", "tracks", "warped"),
    ),
    "plots": ("bars", "curve", "heat"),
    "diagrams": ("Box", "diagram"),
}
__all__ = sorted(name for names in _HOMES.values() for name in names)


def __getattr__(name: str) -> Any:
    """Imports one of the names at its first use (PEP 562)."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"mi2v_lite.viz.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}.")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
