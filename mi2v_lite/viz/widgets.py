"""The interactive widgets, each loaded at first use: `FlowExplorer` (notebooks 00, 01). Needs the notebooks extra."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WIDGETS = {  # name -> module in this folder
    "AttentionExplorer": "attention_explorer",
    "DragCanvas": "drag_canvas",
    "FlowExplorer": "flow_explorer",
    "Sliders": "sliders",
}
__all__ = sorted(_WIDGETS)


def __getattr__(name: str) -> Any:
    """The widget `name`.

    Raises:
        AttributeError: no such widget. ImportError: anywidget is not installed.
    """
    if name not in _WIDGETS:
        raise AttributeError(f"module {__name__!r} has no widget {name!r}; it has {', '.join(__all__)}.")
    try:
        return getattr(import_module(f"mi2v_lite.viz.{_WIDGETS[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name not in ("anywidget", "ipywidgets", "traitlets"):
            raise
        raise ImportError(f"{name} needs {error.name}: pip install 'mi2v_lite[notebooks]'.") from error


def __dir__() -> list[str]:
    return [*globals(), *__all__]
