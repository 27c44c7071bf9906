"""A picture that answers to sliders, in a notebook (notebook 06). Needs ipywidgets.

def draw(side, steps):                       # any function that makes a Picture
    return pictures.bars({"time": side * steps}, ylabel="s", alt="...")
Sliders(draw, side=widgets.IntSlider(320, 64, 768, 64), steps=widgets.IntSlider(25, 1, 50))
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets

from mi2v_lite.viz.picture import Picture


class Sliders(ipywidgets.VBox):
    """Controls above the picture that they change; a still of it where no kernel runs.

    Args:
        draw: called with the value of every control by its name; returns the Picture to show.
        controls: ipywidgets with a `value`: sliders, a Dropdown, a Checkbox. One without a description gets its name.

    Attributes:
        picture: what is shown. values: the controls' values; may be set, for some or all of them.

    Raises:
        ValueError: without a control, or for one that has no value.
    """

    def __init__(self, draw: Callable[..., Picture], **controls: ipywidgets.Widget) -> None:
        odd = [name for name, control in controls.items() if not hasattr(control, "value")]
        if not controls or odd:
            raise ValueError(f"Sliders needs controls with a value, such as ipywidgets.IntSlider(); {odd} have none.")
        self._draw, self._controls, self._quiet = draw, controls, False
        for name, control in controls.items():
            control.description = control.description or name.replace("_", " ")
            control.style.description_width = "10em"
            control.layout.width = "32em"
            if hasattr(control, "continuous_update"):
                control.continuous_update = False  # draw when the slider is let go
        self._view = ipywidgets.Image(format="png")
        self._view.layout.align_self = "flex-start"
        super().__init__([*controls.values(), self._view])
        for control in controls.values():
            control.observe(self._refresh, "value")
        self._refresh()

    @property
    def values(self) -> dict[str, Any]:
        """Name -> value of every control."""
        return {name: control.value for name, control in self._controls.items()}

    @values.setter
    def values(self, values: Mapping[str, Any]) -> None:
        unknown = sorted(set(values) - set(self._controls))
        if unknown:
            raise ValueError(f"no control {', '.join(unknown)}; there are {', '.join(self._controls)}.")
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
        """The widget, and the picture as it is now for where no kernel runs."""
        data = super()._repr_mimebundle_(**kwargs)
        still = {"image/png": base64.b64encode(self.picture.bytes()).decode(), "text/plain": self.picture.alt}
        return {**data, **still}, {"image/png": {"alt": self.picture.alt}}
