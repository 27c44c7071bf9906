"""Things in real photos: where they are, and what a caption may call them. Serves the lite world.

`python -m tools.things.masks --out runs/things` finds the masks of the things that `tools/things/things.json` marks. It
writes them into a folder: a PNG of one bit a pixel for each thing, and `things.json`, the list of them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from mi2v_lite.io.files import atomic

INDEX = "things.json"
# Words that tell where a thing is. A mirrored or cropped photo would make them wrong, so names go without them.
PLACES = {
    "left", "right", "first", "second", "third", "front", "back", "middle", "upper", "lower", "large", "small", "lying",
    "standing", "bending",
}  # fmt: skip
NAMES = {"two giraffes": "pair of giraffes", "blue flowers": "bunch of blue flowers"}  # where the name is a plural
# Other words for a thing: the whole name, or its last word, with what one may also say.
SYNONYMS = {
    "alpaca": ("animal",), "ball": ("toy",), "bee": ("insect", "honeybee"), "bird": ("animal",), "boat": ("ship",),
    "butterfly": ("insect",), "calf head": ("head of a calf", "cow"), "camel": ("animal",), "castle": ("building",),
    "cathedral": ("church", "building"), "chinchilla": ("animal",), "couple": ("pair of people",), "cow": ("animal",),
    "crocodile": ("animal", "reptile"), "cup": ("mug",), "dandelion": ("flower",), "dog": ("animal", "puppy"),
    "drum": ("instrument",), "foal": ("horse",), "guitar": ("instrument",), "hen": ("chicken", "bird"),
    "heron": ("bird",), "horse": ("animal",), "house": ("building",), "jaguar": ("animal", "big cat"),
    "kingfisher": ("bird",), "kitten": ("cat",), "ladybird": ("ladybug", "beetle"), "leaf": ("piece of foliage",),
    "lemur": ("animal",), "lighthouse": ("tower",), "lute": ("instrument",), "macaque": ("monkey",),
    "man in pink shirt": ("man", "person"), "marigold flower": ("flower",), "minaret": ("tower",),
    "opera house": ("building",), "orange slice": ("slice of an orange",), "osprey": ("bird",), "otter": ("animal",),
    "palace": ("building",), "parrot": ("bird",), "piglet": ("pig",), "pyramid": ("building",), "rabbit": ("bunny",),
    "rocket": ("spaceship",), "saturn": ("planet",), "space shuttle": ("spaceship",), "spoonbill": ("bird",),
    "squirrel": ("animal",), "stupa": ("temple",), "swan": ("bird",), "temple": ("building",), "toucan": ("bird",),
    "woman": ("person",), "wren": ("bird",), "aeroplane": ("plane", "airplane"), "flower": ("blossom",),
}  # fmt: skip


@dataclass(frozen=True)
class Thing:
    """A thing in a photo.

    Attributes:
        name: what it is, as it was marked.
        photo: the file name of the photo.
        split: "train" or "heldout", where the photo lies.
        mask: the file of its mask, relative to the folder with the list. The mask is cut to the box.
        box: left, top, right and bottom of the mask in the photo, in pixels.
        size: width and height of the photo, in pixels.
    """

    name: str
    photo: str
    split: str
    mask: str
    box: tuple[int, int, int, int]
    size: tuple[int, int]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What a caption may call it, the usual name first: "pink cup", "cup", "mug"."""
        return names_of(self.name)


def names_of(marked: str) -> tuple[str, ...]:
    """What a caption may call a thing that was marked with this name, the usual name first."""
    marked = NAMES.get(marked, marked)
    usual = " ".join(word for word in marked.split() if word not in PLACES)
    last = usual if " in " in usual or " of " in usual else usual.split()[-1]
    return tuple(dict.fromkeys([usual, last, *SYNONYMS.get(usual, ()), *SYNONYMS.get(last, ())]))


def write_things(folder: Path, things: list[Thing]) -> None:
    """Writes the list of the things into the folder of their masks."""
    lines = ",\n".join(json.dumps(asdict(thing)) for thing in things)
    with atomic(folder / INDEX) as beside:
        beside.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def read_things(folder: Path, split: str) -> list[Thing]:
    """Reads the list of the things in the photos of a split.

    Args:
        folder: as `tools.things.masks` writes it.
        split: "train" or "heldout".

    Returns:
        The things, in the order of the list.

    Raises:
        ValueError: there is no such list, or it cannot be read.
    """
    path = Path(folder) / INDEX
    if not path.is_file():
        raise ValueError(f"{path} is missing: `python -m tools.things.masks --out {folder}` writes it with the masks.")
    try:
        things = [
            Thing(**{**entry, "box": tuple(entry["box"]), "size": tuple(entry["size"])})
            for entry in json.loads(path.read_text(encoding="utf-8"))
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is not a list of things ({error}): `python -m tools.things.masks --out {folder}` writes it anew."
        ) from error
    return [thing for thing in things if thing.split == split]


def read_mask(folder: Path, thing: Thing) -> np.ndarray:
    """Reads the mask of a thing.

    Returns:
        uint8 `(h, w)`, the size of its box, 255 on the thing and 0 beside it.

    Raises:
        ValueError: the file is missing or has another size.
    """
    path = Path(folder) / thing.mask
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    left, top, right, bottom = thing.box
    if mask is None or mask.shape != (bottom - top, right - left):
        raise ValueError(f"{path} is missing or damaged: `python -m tools.things.masks --out {folder}` writes it anew.")
    return np.where(mask > 127, np.uint8(255), np.uint8(0))
