"""A photo goes in and a clip comes out: a panel that asks for nothing but a picture and a sentence (notebook 00).

AnimatePanel(pipe, "photo.jpg", "the camera pans left")
"""

from __future__ import annotations

import base64
import html
import io
import os
from typing import Any

import ipywidgets
import torch
from PIL import Image

from mi2v_lite.data.prompts import advice
from mi2v_lite.io import images
from mi2v_lite.viz.pictures import Picture, animation, to_image
from mi2v_lite.viz.widgets.files import CLIP_SECONDS, uploaded_picture, video_bytes

STILL_WIDTH, STILL_FRAMES = 320, 6  # of what a page without a kernel shows


class AnimatePanel(ipywidgets.VBox):
    """Chooses a photo, takes a sentence and a seed, and plays the clip beside the photo.

    Args:
        pipeline: anything that is called as `pipeline(photo, prompt, generator=...)` and returns an object with
            `frames`, a clip for each photo, such as `MotionI2VPipeline`.
        photo: path or PIL image to begin with.
        prompt: the first value of the sentence.
        seed: the first value of the seed.

    Attributes:
        photo: the photo, RGB, with at most 512 pixels on its shorter side.
        frames: the frames of the last clip as PIL images; empty before.
    """

    def __init__(self, pipeline: Any, photo: str | os.PathLike | Image.Image, prompt: str = "", seed: int = 0) -> None:
        self._pipeline = pipeline
        self.frames: list[Image.Image] = []
        wide = ipywidgets.Layout(width="32em", max_width="100%")
        whole = ipywidgets.Layout(width="auto")  # as wide as its words
        self._upload = ipywidgets.FileUpload(
            accept="image/*", description="Choose a photo", multiple=False, layout=whole
        )
        self._prompt = ipywidgets.Text(prompt, description="Prompt", placeholder="what happens", layout=wide)
        self._seed = ipywidgets.BoundedIntText(seed, 0, 2**31 - 1, description="Seed")
        self._button = ipywidgets.Button(description="Animate", button_style="primary", icon="play")
        self._message = ipywidgets.HTML()
        # Each has a layout of its own: the clip is hidden until there is one, and the photo never is.
        photo_half, clip_half = (
            ipywidgets.Layout(width="48%", min_width="240px", max_width="512px", object_fit="contain") for _ in range(2)
        )
        self._shown = ipywidgets.Image(format="jpeg", layout=photo_half)
        self._clip = ipywidgets.Video(format="mp4", autoplay=True, loop=True, layout=clip_half)
        self._clip.layout.display = "none"
        self._view = ipywidgets.HBox([self._shown, self._clip], layout=ipywidgets.Layout(flex_flow="row wrap"))
        self._download = ipywidgets.HTML()
        choose = ipywidgets.HBox([self._upload, self._button], layout=ipywidgets.Layout(flex_flow="row wrap"))
        super().__init__([choose, self._prompt, self._seed, self._message, self._view, self._download])
        self._take(to_image(photo) if isinstance(photo, Image.Image) else images.read_image(photo))
        self._upload.observe(self._uploaded, "value")
        self._button.on_click(lambda _: self._try(self.animate))

    @property
    def prompt(self) -> str:
        """The sentence; may be set."""
        return self._prompt.value

    @prompt.setter
    def prompt(self, prompt: str) -> None:
        self._prompt.value = prompt

    def animate(self) -> list[Image.Image]:
        """Makes the clip and plays it.

        Returns:
            its frames, which are also in `frames`.
        """
        self._say("Making the clip. This takes some seconds on a laptop.")
        generator = torch.Generator().manual_seed(self._seed.value)
        clip = self._pipeline(self.photo, self.prompt, generator=generator).frames[0]
        self.frames = [to_image(frame) for frame in clip]
        self._clip.value = video_bytes(self.frames)
        address = f"data:video/mp4;base64,{base64.b64encode(self._clip.value).decode()}"
        self._download.value = f'<a download="clip.mp4" href="{address}"><u>Download clip.mp4</u></a>'
        self._clip.layout.display = ""
        size = f"{len(self.frames)} frames of {self.photo.width} x {self.photo.height} pixels."
        is_lite = getattr(getattr(self._pipeline, "config", None), "detail", "none") == "carry"
        self._say(f"{size} {advice(self.prompt) if is_lite else ''}".strip())
        return self.frames

    def _uploaded(self, change: dict) -> None:
        for file in change["new"]:
            self._try(lambda file=file: self._take(uploaded_picture(file.name, bytes(file.content))))

    def _take(self, photo: Image.Image) -> None:
        self.photo = images.bounded(photo, images.SHORT_SIDE)
        buffer = io.BytesIO()
        self.photo.save(buffer, "JPEG", quality=90)
        self._shown.value = buffer.getvalue()
        self._clip.layout.display, self._download.value, self.frames = "none", "", []
        self._say("Write what shall happen, then press Animate.")

    def _try(self, work: Any) -> None:
        """Does the work of a button, and shows what fails, since nobody reads the log of a kernel."""
        self._button.disabled = True
        try:
            work()
        except Exception as error:
            self._say(f"{type(error).__name__}: {error}")
        finally:
            self._button.disabled = False

    def _say(self, text: str) -> None:
        self._message.value = html.escape(text)

    @property
    def picture(self) -> Picture:
        """What a page without a kernel shows: the clip, or else the photo."""
        if not self.frames:
            return Picture(self.photo, f"A photo of {self.photo.width}x{self.photo.height} pixels to animate.")
        words = f"The clip of the photo with the prompt {self.prompt!r}."
        count = len(self.frames)
        every = max(1, round(count / STILL_FRAMES))
        return animation(self.frames, fps=count / CLIP_SECONDS, width=STILL_WIDTH, every=every, alt=words)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        return self.picture.added_to(super()._repr_mimebundle_(**kwargs))
