"""Clips from what the repository ships (`data_samples/`): the held-out world and the film's sample clip."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mi2v_lite.data.world import World

if TYPE_CHECKING:
    from mi2v_lite.data.film import Film

SAMPLES = Path(__file__).parents[2] / "data_samples"


def sample_world(split: str, samples: Path = SAMPLES, **options: int) -> World:
    """The world over the shipped photos and the shipped sprites of ``split``; ``options`` are `World`'s.

    Raises:
        ValueError: when the folder has no photos or sprites.
    """
    return World(sorted((samples / "photos").glob("*.jpg")), samples / "sprites", split, **options)


def heldout_world(
    samples: Path = SAMPLES, size: int = 128, num_frames: int = 16, edition: int = 1, objects_only: bool = False
) -> World:
    """The world of photos and sprites that no training saw, built from ``data_samples/`` alone.

    edition: 1 is the world that the shipped weights know; objects_only: with a resting camera (`World`).

    Raises:
        ValueError: when the folder has no photos or sprites.
    """
    return sample_world(
        "heldout", samples, size=size, num_frames=num_frames, edition=edition, objects_only=objects_only
    )


def sample_film(samples: Path = SAMPLES) -> Film:
    """Clips of the sample clip of Big Buck Bunny (48 frames of one shot, so all at stride 2).

    No training saw it move; single frames of the film, also of this shot, were among the photos.
    """
    from mi2v_lite.data.film import Film, Shot  # its tracker needs torch; the world does not

    shot = Shot(0, 48, "a fat white rabbit comes out of its burrow", "heldout")
    return Film(samples / "clips" / "big_buck_bunny.mp4", [shot], "heldout")
