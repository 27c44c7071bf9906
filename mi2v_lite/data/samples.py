"""Clips of what comes with the package (`data_samples/`): the held-out world, and the sample clip of the film."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mi2v_lite.data.world import World

if TYPE_CHECKING:
    from mi2v_lite.data.film import Film
    from mi2v_lite.data.lite_world import LiteWorld

# In an installed package the samples are inside it; in the repository they are beside it.
PLACES = tuple(Path(__file__).parents[level] / "data_samples" for level in (1, 2))
SAMPLES = next((place for place in PLACES if place.is_dir()), PLACES[-1])


def find_samples() -> Path:
    """The folder of the samples: photos/, sprites/, clips/, flows/.

    Raises:
        ValueError: it is nowhere.
    """
    if not SAMPLES.is_dir():
        raise ValueError(
            f"the samples are in none of {', '.join(map(str, PLACES))}: install mi2v_lite again, or copy data_samples/ "
            "from its repository to one of these places."
        )
    return SAMPLES


def sample_world(split: str, samples: Path | None = None, **options: int) -> World:
    """The world of the shipped photos and of the shipped sprites of a split.

    Args:
        split: "train" or "heldout".
        samples: another folder with photos/ and sprites/.
        options: further arguments of `World`.

    Raises:
        ValueError: the folder is missing, or has no photos or sprites.
    """
    samples = samples or find_samples()
    return World(sorted((samples / "photos").glob("*.jpg")), samples / "sprites", split, **options)


def heldout_world(
    samples: Path | None = None,
    size: int = 128,
    num_frames: int = 16,
    # first edition: goes with the weights that were trained on it
    edition: int = 1,
    objects_only: bool = False,
) -> World:
    """The world of photos and sprites that no training saw, as the evaluation draws it.

    Args:
        samples: another folder with photos/ and sprites/.
        size: side of the frames in pixels.
        num_frames: F of a clip.
        edition: of the world; the shipped weights know the first.
        objects_only: whether the camera rests in every clip.

    Raises:
        ValueError: the folder is missing, or has no photos or sprites.
    """
    return sample_world(
        "heldout", samples, size=size, num_frames=num_frames, edition=edition, objects_only=objects_only
    )


def heldout_scenes(photos: Path | None = None, things: Path | None = None, size: int = 128) -> LiteWorld:
    """The held-out scenes of the lite world, in which things of photos move that no training saw.

    Args:
        photos: a folder with `heldout/`; None takes the photos that come with mi2v_lite.
        things: the masks of the things in them, as `tools.things.masks` writes them; None takes those that come with
            mi2v_lite.
        size: the side of the frames, in pixels.

    Raises:
        ValueError: a folder is missing, or there are no things in these photos.
    """
    from mi2v_lite.data.lite_world import LiteWorld

    samples = find_samples()
    folders = photos or samples / "photos", samples / "sprites", things or samples / "things"
    return LiteWorld(*folders, split="heldout", size=size)


def sample_film(samples: Path | None = None) -> Film:
    """Clips of the sample clip of Big Buck Bunny: 48 frames of one shot, so all are of stride 2.

    No training saw it move; single frames of the film, also of this shot, were among the photos.

    Args:
        samples: another folder with clips/.
    """
    from mi2v_lite.data.film import Film, Shot  # its tracker needs torch, which the world does not

    shot = Shot(0, 48, "a fat white rabbit comes out of its burrow", "heldout")
    return Film((samples or find_samples()) / "clips" / "big_buck_bunny.mp4", [shot], "heldout")
