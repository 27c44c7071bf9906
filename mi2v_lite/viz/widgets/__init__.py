"""The widgets of the notebooks, each loaded at first use: they need the notebooks extra.

- `AnimatePanel` (notebook 00) asks for a photo and a sentence, and plays the clip.
- `FlowExplorer` (notebooks 00 and 01) shows a motion field over its photo; `AttentionExplorer` (03) shows where a pixel
  looks; `DragCanvas` (04) draws motion on a photo; `Sliders` (06) redraw a picture.
- `drag_edits`, `thing_edits` and `drag_runner` serve DragCanvas; `files` reads uploads and makes videos. The pages' own
  code is in `static`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "AnimatePanel": "animate_panel",
    "AttentionExplorer": "attention_explorer",
    "DragCanvas": "drag_canvas",
    "FlowExplorer": "flow_explorer",
    "Sliders": "sliders",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Imports a widget at its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no widget {name!r}; it has {', '.join(__all__)}.")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name not in ("anywidget", "ipywidgets", "traitlets"):
            raise
        raise ImportError(f"{name} needs {error.name}: pip install 'mi2v_lite[notebooks]'.") from error


def __dir__() -> list[str]:
    return [*globals(), *__all__]
