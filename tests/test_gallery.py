"""The README's gallery: its controls fit their photos, and the picture is made of drawings and clips."""

import importlib.util
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageSequence

from mi2v_lite.control import Drag, MotionControl

ROOT = Path(__file__).parents[1]


def load():
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "notebooks" / "gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


gallery = load()


class Turning:
    """Stands for the pipeline: 16 frames, each turned further than the last."""

    def __call__(self, image, prompt, control, *, generator):
        assert prompt == "" and generator.initial_seed() == 0
        return SimpleNamespace(frames=[[image.rotate(3 * turn) for turn in range(16)]])


def test_what_was_drawn_fits_the_shipped_photos():
    works = gallery.read_drawings()
    assert len(works) == 8
    moving = [[thing for thing in control.things if thing.drags] for _, control in works.values()]
    assert all(moving) and any(len(thing.drags) == 2 for things in moving for thing in things), "some are turned"


def test_the_gallery_moves_below_its_drawings():
    works = {}
    for name in ("a", "b"):
        photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8))
        works[name] = photo, MotionControl(photo.size, [Drag([(30, 40), (80, 40)])])
    made = gallery.gallery(Turning(), works)
    assert "a: A photo of 120x80 pixels with 1 drag." in made.alt
    (width, height), gap = gallery.TILE, gallery.GAP
    assert made.image.size == (2 * width + gap, 2 * height + gap)
    with Image.open(io.BytesIO(made.png)) as image:
        frames = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    assert len(frames) == 16
    first, last = frames[0], frames[-1]
    assert np.array_equal(first[:height], last[:height]) and not np.array_equal(first[height:], last[height:])


def test_controls_of_other_photos_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no controls"):
        gallery.read_drawings(tmp_path)
    for folder in ("controls", "photos"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "photos" / "x.jpg")
    MotionControl((30, 40)).save(tmp_path / "controls" / "x.json")
    with pytest.raises(ValueError, match=r"x.json was drawn on \(30, 40\)"):
        gallery.read_drawings(tmp_path)


def test_the_stored_gallery_is_small_and_moves():
    path = ROOT / "data_samples" / "gallery.png"
    assert path.stat().st_size <= gallery.LARGEST
    with Image.open(path) as image:
        assert image.n_frames == gallery.FRAMES
