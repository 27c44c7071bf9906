"""`mi2v world`: what the model learns from and is measured on, drawn as a contact sheet."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import common


def add(commands: argparse._SubParsersAction) -> None:
    """Register `world`."""
    each = commands.add_parser(
        "world",
        help="draw training clips",
        description="A contact sheet of clips: frames, flow, visibility, caption. From the shipped photos and sprites.",
    )
    each.set_defaults(run=world)
    each.add_argument("-o", "--output", type=Path, required=True, metavar="world.png", help="the picture")
    each.add_argument("--seed", type=common.whole(0), default=0, metavar="N", help="of the first clip (default: 0)")
    each.add_argument("--clips", type=common.whole(1), default=4, metavar="N", help="how many (default: 4)")
    each.add_argument(
        "--split", choices=("train", "heldout"), default="train", help="whose sprites, or whose shots (default: train)"
    )
    each.add_argument(
        "--edition", type=int, choices=(1, 2), default=2, help="1: as the shipped weights know it; 2: all of it"
    )
    each.add_argument("--film", type=Path, metavar="bbb.mp4", help="clips of Big Buck Bunny's shots instead")


def world(options: argparse.Namespace) -> None:
    """`mi2v world`: a contact sheet of the world's clips, or of a film's."""
    if options.output.suffix.lower() != ".png":
        raise ValueError(f"the picture {options.output} must end in .png.")
    common.check_writable([options.output], [options.film])
    from mi2v_lite.io.files import atomic
    from mi2v_lite.viz.contact_sheets import clip_sheet

    if options.film is None:
        from mi2v_lite.data.samples import sample_world

        source = sample_world(options.split, edition=options.edition)
    else:
        from mi2v_lite.data.film import Film

        source = Film(options.film, split=options.split)
    clips = [source.clip(options.seed + i) for i in range(options.clips)]
    with atomic(options.output) as beside:
        clip_sheet(clips).save(beside, format="PNG")
    print(f"wrote {options.output}")
