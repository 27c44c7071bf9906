"""`mi2v world`: the clips that the model learns from and is measured on, drawn as a sheet or written as a store."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from . import common

if TYPE_CHECKING:
    from mi2v_lite.data.clips import ClipSource


def add(commands: argparse._SubParsersAction) -> None:
    """Register `world`."""
    parser = commands.add_parser(
        "world",
        help="make training clips",
        description="Clips of the lite world or of a film, with their motion fields and captions: a contact sheet to "
        "look at (-o world.png), or a store to train on (-o FOLDER). Without --photos and --sprites the world is "
        "made of those that come with mi2v_lite. A sheet shows frame 0, the things that the caption tells of, and the "
        "motion until the last frame; with --pasted it shows the frames, too.",
    )
    parser.set_defaults(run=world)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUTPUT", help="a .png for a sheet, a folder for a store"
    )
    parser.add_argument("--seed", type=common.whole(0), default=0, metavar="N", help="of the first clip (default: 0)")
    parser.add_argument("--clips", type=common.whole(1), default=4, metavar="N", help="how many (default: 4)")
    parser.add_argument(
        "--split", choices=("train", "heldout"), default="train", help="whose sprites, or whose shots (default: train)"
    )
    parser.add_argument(
        "--size", type=common.whole(16, 4096), default=128, metavar="N", help="side, pixels (default: 128)"
    )
    parser.add_argument("--frames", type=common.whole(2, 1000), default=16, metavar="N", help="of a clip (default: 16)")
    parser.add_argument(
        "--pairs", type=common.whole(1), metavar="N", help="store N pairs of each clip: frame 0 and a later frame"
    )
    parser.add_argument("--photos", type=Path, nargs="+", metavar="DIR", help="a folder with train/ and heldout/")
    parser.add_argument("--things", type=Path, metavar="DIR", help="masks of things, from tools.things.masks")
    parser.add_argument(
        "--pasted", action="store_true", help="pasted things alone: every pixel of every frame is known"
    )
    parser.add_argument("--sprites", type=Path, metavar="DIR", help="a folder with train/ and heldout/")
    parser.add_argument("--objects-only", action="store_true", help="the camera rests, and something moves")
    # first edition: goes with the weights that were trained on it
    parser.add_argument("--edition", type=int, choices=(1,), help="1: the world that the shipped weights learned from")
    parser.add_argument("--film", type=Path, metavar="bbb.mp4", help="clips of Big Buck Bunny's still shots instead")


def world(options: argparse.Namespace) -> None:
    """`mi2v world`: a contact sheet or a store of the world's clips, or of a film's."""
    from mi2v_lite.data.clips import STORE_INDEX

    sheet = options.output.suffix.lower() == ".png"
    if options.output.suffix and not sheet and not options.output.is_dir():
        raise ValueError(f"{options.output} must end in .png for a sheet, or have no suffix for the folder of a store.")
    if options.pairs and sheet:
        raise ValueError("--pairs is for stores; a sheet shows whole clips.")
    if options.pairs and options.pairs >= options.frames:
        later = options.frames - 1
        raise ValueError(f"--pairs is {options.pairs}, but a clip of {options.frames} frames has {later} later ones.")
    if not sheet and (options.output / STORE_INDEX).is_file():
        raise ValueError(f"{options.output} holds a store already: choose another folder, or remove it.")
    if sheet:
        common.check_writable([options.output], [options.film])
    else:
        common.check_folder(options.output)
    source = _source(options)
    seeds = range(options.seed, options.seed + options.clips)
    if sheet:
        from mi2v_lite.data.lite_world import LiteWorld
        from mi2v_lite.io.files import atomic
        from mi2v_lite.viz.contact_sheets import clip_sheet, scene_sheet

        if isinstance(source, LiteWorld) and not options.pasted:
            page = scene_sheet(source.batch(seeds, later=[options.frames - 1] * options.clips))
        else:
            page = clip_sheet([source.clip(seed) for seed in seeds])
        with atomic(options.output) as beside:
            page.save(beside, format="PNG")
        print(f"wrote {options.output}")
        return
    from mi2v_lite.data.store import pairs, write_store

    if options.pairs:
        clips = (pair for seed in seeds for pair in pairs(source, seed, options.pairs))
    else:
        clips = map(source.clip, seeds)
    count = options.clips * (options.pairs or 1)
    write_store(options.output, clips, count)
    print(f"wrote {options.output}: {count} {'pairs' if options.pairs else 'clips'}")


def _source(options: argparse.Namespace) -> ClipSource:
    """The world or the film of the options. Raises ValueError if they ask for both."""
    shape = {"split": options.split, "size": options.size, "num_frames": options.frames}
    if options.film is not None:
        if options.photos or options.sprites or options.things or options.objects_only:
            raise ValueError(
                "--film gives clips of the film alone: leave out --photos, --sprites, --things and --objects-only."
            )
        from mi2v_lite.data.film import Film

        return Film(options.film, **shape)
    from mi2v_lite.data.samples import find_samples
    from mi2v_lite.io.images import IMAGE_SUFFIXES, list_images

    sprites = options.sprites or find_samples() / "sprites"
    folders = options.photos or [find_samples() / "photos"]
    photos = []
    for folder in folders:
        found = list_images(folder)
        if not found:
            kinds = ", ".join(IMAGE_SUFFIXES)
            raise ValueError(f"--photos {folder} is not a folder of photos: there are no files {kinds} in it.")
        photos += found
    if options.edition == 1:  # first edition: goes with the weights that were trained on it
        from mi2v_lite.data.world import World

        return World(photos, sprites, edition=1, objects_only=options.objects_only, **shape)
    if len(folders) > 1:
        raise ValueError(f"--photos names {len(folders)} folders: put the photos into one, with train/ and heldout/.")
    from mi2v_lite.data.lite_world import LiteWorld

    scenes = "resting" if options.objects_only else "all"
    return LiteWorld(folders[0], sprites, options.things, scenes=scenes, **shape)
