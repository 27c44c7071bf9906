"""The things that are marked in real photos: the marks are well formed, and masks follow from them."""

import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mi2v_lite.io.images import read_image
from tools.things.masks import contact_sheets, mask, read_things
from tools.things.rcc import resource_files

PHOTOS = Path(__file__).resolve().parent.parent / "data_samples" / "photos"
THINGS = read_things()


def origin(name: str) -> str:
    """The picture that a photo was cut from: `LadyBird_3.jpg` is a tile of LadyBird."""
    return re.sub(r"_[23]$", "", Path(name).stem)


def test_marks_are_well_formed():
    assert list(THINGS) == sorted(THINGS)
    for name, entry in THINGS.items():
        assert set(entry) == {"source", "split", "size", "things"}, name
        assert entry["split"] in ("train", "heldout") and min(entry["size"]) >= 256 and entry["things"], name
        names = [thing["name"] for thing in entry["things"]]
        assert len(set(names)) == len(names), f"{name}: two things have the same name"
        for thing in entry["things"]:
            where = f"{name}: {thing['name']}"
            assert re.fullmatch(r"[a-z]+( [a-z]+)*", thing["name"]), where
            assert {"name", "box", "inside", "outside"} <= set(thing), where
            assert set(thing) <= {"name", "box", "inside", "outside", "cut", "holes"}, where
            left, top, right, bottom = thing["box"]
            assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1, where
            assert thing["inside"], where
            for x, y in thing["inside"]:
                assert left <= x <= right and top <= y <= bottom, f"{where}: ({x}, {y}) is not in the box"
            coordinates = [*thing["inside"], *thing["outside"], *thing.get("cut", [])]
            assert all(0 <= value <= 1 for point in coordinates for value in point), where


def test_no_picture_is_both_in_training_and_held_out():
    train, held_out = ({origin(n) for n, e in THINGS.items() if e["split"] == s} for s in ("train", "heldout"))
    assert len(held_out) == 11
    assert not train & held_out


def test_mask_finds_a_disc_on_noise():
    height, width, radius = 240, 320, 50
    y, x = np.mgrid[:height, :width] + 0.5
    disc = np.hypot(x - 130, y - 110) <= radius
    noise = np.random.default_rng(0).normal(0, 25, (height, width, 3))
    colours = np.where(disc[..., None], [190, 90, 60], [70, 110, 140])
    photo = (colours + noise).clip(0, 255).astype(np.uint8)
    box = [70 / width, 50 / height, 190 / width, 170 / height]
    found = mask(photo, {"name": "disc", "box": box, "inside": [[130 / width, 110 / height]], "outside": []})
    assert found.dtype == bool and found.shape == disc.shape
    assert (found & disc).sum() / (found | disc).sum() >= 0.9


@pytest.mark.parametrize("name", sorted(path.name for path in PHOTOS.iterdir() if path.name in THINGS))
def test_masks_of_the_sample_photos_are_plausible(name):
    photo = np.asarray(read_image(PHOTOS / name))
    assert THINGS[name]["split"] == "heldout" and THINGS[name]["size"] == [*photo.shape[1::-1]]
    for thing in THINGS[name]["things"]:
        found = mask(photo, thing)
        assert 0.005 <= found.mean() <= 0.4, f"{thing['name']}: {found.mean():.1%}"


def test_contact_sheets_show_all_photos(tmp_path):
    (tmp_path / "heldout").symlink_to(PHOTOS)
    some = {name: THINGS[name] for name in ("coffee.jpg", "rocket.jpg")}
    assert contact_sheets(tmp_path, tmp_path / "out", some) == 1
    with Image.open(tmp_path / "out" / "things_00.jpg") as page:
        assert page.width > 3 * 400


def test_pictures_are_unpacked_from_resource_files():
    """A file made by hand: the root folder with one stored and one compressed file."""
    names = b"".join(struct.pack(">HI", len(text), 0) + text.encode("utf-16-be") for text in ("a.png", "ü.jpg"))
    packed = struct.pack(">I", 4) + zlib.compress(b"more")
    data = struct.pack(">I", 5) + b"bytes" + struct.pack(">I", len(packed)) + packed
    # name, flags, then count and first child of a folder, or country, language and place of a file
    tree = struct.pack(">IHII", 0, 2, 2, 1)
    tree += struct.pack(">IHHHI", 0, 0, 0, 1, 0) + struct.pack(">IHHHI", 16, 1, 0, 1, 9)
    start = 20
    header = b"qres" + struct.pack(">4I", 1, start, start + len(tree), start + len(tree) + len(data))
    assert dict(resource_files(header + tree + data + names)) == {"a.png": b"bytes", "ü.jpg": b"more"}
    with pytest.raises(ValueError, match="qres"):
        list(resource_files(b"PNG"))
