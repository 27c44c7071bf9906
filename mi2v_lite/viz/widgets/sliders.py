"""A picture that is drawn anew when a slider moves (notebook 06).

def draw(side, steps):                       # any function that makes a Picture
    return viz.bars({"time": side * steps}, ylabel="s", alt="...")
Sliders(draw, side=ipywidgets.IntSlider(320, 64, 768, 64), steps=ipywidgets.IntSlider(25, 1, 50))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets

from mi2v_lite.viz.pictures import Picture


class Sliders(ipywidgets.VBox):
    """Controls above the picture that they change; on a page without a kernel, the picture as a still.

    Args:
        draw: called with the value of every control by its name; returns the `Picture` to show.
        controls: ipywidgets with a `value`, such as sliders, a Dropdown or a Checkbox. A control without a description
            is described by its name.

    Attributes:
        picture: what is shown.
        values: name -> value of every control; may be set for some or all of them.

    Raises:
        ValueError: if there are no controls, or if one has no value.
    """

    def __init__(self, draw: Callable[..., Picture], **controls: ipywidgets.Widget) -> None:
        valueless = [name for name, control in controls.items() if not hasattr(control, "value")]
        if not controls or valueless:
            raise ValueError(
                f"Sliders needs controls with a value, such as ipywidgets.IntSlider(); {valueless} have none."
            )
        self._draw, self._controls, self._quiet = draw, controls, False
        for name, control in controls.items():
            control.description = control.description or name.replace("_", " ")
            control.style.description_width = "10em"
            control.layout.width = "32em"
            if hasattr(control, "continuous_update"):
                control.continuous_update = False  # draw once the slider is let go
        self._view = ipywidgets.Image(format="png")
        self._view.layout.align_self = "flex-start"
        super().__init__([*controls.values(), self._view])
        for control in controls.values():
            control.observe(self._refresh, "value")
        self._refresh()

    @property
    def values(self) -> dict[str, Any]:
        """The value of every control by its name; may be set for some or all of them."""
        return {name: control.value for name, control in self._controls.items()}

    @values.setter
    def values(self, values: Mapping[str, Any]) -> None:
        unknown = sorted(set(values) - set(self._controls))
        if unknown:
            raise ValueError(f"There is no control {', '.join(unknown)}; there are {', '.join(self._controls)}.")
        self._quiet = True
        try:
            for name, value in values.items():
                self._controls[name].value = value
        finally:
            self._quiet = False
        self._refresh()

    def _refresh(self, change: object = None) -> None:
        if not self._quiet:
            self.picture = self._draw(**self.values)
            self._view.value = self.picture.bytes()
            self._view.layout.width = f"{self.picture.image.width}px"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        """The widget, and the picture as it is now for pages without a kernel."""
        return self.picture.added_to(super()._repr_mimebundle_(**kwargs))
