"""Clips on disk as memory-mapped arrays: what the training reads. Serves the training recipes.

    python -m mi2v_lite.data.store --photos runs/photos/train --sprites data_samples/sprites --split train \\
        --count 1600 --out runs/stores/train
    python -m mi2v_lite.data.store --film bbb.mp4 --split train --count 400 --out runs/stores/film

With `--pairs 4` it holds of each clip only frame 0 and a later frame, for four later frames: all that the steps on
single displacements read, so that for the same disk and encoding many more clips can be drawn.

A store is a folder with frames.npy (uint8), flow.npy (float16), visibility.npy (bool) and clips.json (captions,
strides). float16 keeps 40 pixels of motion to within 0.02 pixels.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from mi2v_lite.data.source import Clip, ClipSource
from mi2v_lite.data.world import World
from mi2v_lite.io.files import atomic
from mi2v_lite.io.images import list_images


def write_store(folder: str | Path, clips_iter: Iterable[Clip], count: int) -> None:
    """Write `count` clips of one shape to `folder`; a progress bar shows how far it is.

    clips.json is written last: a folder without it is unfinished and ClipStore refuses it. Raises ValueError if the
    clips run out before `count` or differ in shape.
    """
    if count < 1:
        raise ValueError(f"count is {count}; a store needs at least one clip")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "clips.json").unlink(missing_ok=True)
    arrays: dict[str, np.memmap] = {}
    captions, strides = [], []
    dtypes = {"frames": np.uint8, "flow": np.float16, "visibility": np.bool_}
    for index, clip in enumerate(tqdm(_take(clips_iter, count), total=count, desc=f"writing {folder.name}")):
        for name, dtype in dtypes.items():
            value = getattr(clip, name)
            if name not in arrays:
                path = str(folder / f"{name}.npy")
                arrays[name] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(count, *value.shape))
            if arrays[name].shape[1:] != value.shape:
                raise ValueError(
                    f"clip {index}: {name} is {value.shape}, the clips before have {arrays[name].shape[1:]}"
                )
            arrays[name][index] = value
        captions.append(clip.caption)
        strides.append(int(clip.stride))
    if len(captions) < count:
        raise ValueError(f"only {len(captions)} of {count} clips came; give an iterator that is long enough")
    for array in arrays.values():
        array.flush()
    with atomic(folder / "clips.json") as beside:
        beside.write_text(json.dumps({"captions": captions, "strides": strides}, indent=0))


def pairs(source: ClipSource, seed: int, each: int) -> Iterator[Clip]:
    """Clips of two frames, frame 0 and a later one, for `each` different later frames of the clip of this seed.

    Single displacements at random strides (Motion-I2V, section 3.2, step 1 of the curriculum): F = 2 and N = 1, the
    stride is the number of source frames between the two. Raises ValueError if the clip has fewer later frames.
    """
    clip = source.clip(seed)
    if each > len(clip.flow):
        raise ValueError(f"each is {each}, but a clip has {len(clip.flow)} later frames; ask for at most as many pairs")
    for i in np.random.default_rng(seed).choice(len(clip.flow), each, replace=False):
        steps, later = int(i) + 1, slice(i, i + 1)
        yield Clip(clip.frames[[0, steps]], clip.flow[later], clip.visibility[later], clip.caption, clip.stride * steps)


def _take(clips: Iterable[Clip], count: int) -> Iterable[Clip]:
    """The first `count` clips, without asking for one more."""
    if count:
        for index, clip in enumerate(clips, 1):
            yield clip
            if index == count:
                return


class ClipStore:
    """Read a store. All arrays are memory-mapped and read-only.

    frames: uint8 (C, F, H, W, 3). flow: float16 (C, N, 2, H, W), pixels. visibility: bool (C, N, H, W). captions:
    list of str. strides: list of int. Raises ValueError if `folder` holds no finished store.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        index = folder / "clips.json"
        if not index.is_file():
            raise ValueError(
                f"{folder} holds no finished store (clips.json is missing); make one with mi2v_lite.data.store"
            )
        told = json.loads(index.read_text())
        self.captions: list[str] = told["captions"]
        self.strides: list[int] = told["strides"]
        self.frames = np.load(folder / "frames.npy", mmap_mode="r")
        self.flow = np.load(folder / "flow.npy", mmap_mode="r")
        self.visibility = np.load(folder / "visibility.npy", mmap_mode="r")
        lengths = {len(self.captions), len(self.strides), len(self.frames), len(self.flow), len(self.visibility)}
        if len(lengths) != 1:
            raise ValueError(
                f"{folder}: the arrays and clips.json differ in length ({sorted(lengths)}); write the store again"
            )

    def __len__(self) -> int:
        return len(self.captions)

    def clip(self, index: int) -> Clip:
        """Clip number `index` in memory, flow as float32."""
        return Clip(
            frames=np.array(self.frames[index]),
            flow=self.flow[index].astype(np.float32),
            visibility=np.array(self.visibility[index]),
            caption=self.captions[index],
            stride=self.strides[index],
        )


def main(arguments: list[str] | None = None) -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m mi2v_lite.data.store", description="Write clips of the lite world or of a film to disk."
    )
    parser.add_argument("--photos", type=Path, nargs="+", help="folders of photos: clips of the world")
    parser.add_argument("--sprites", type=Path, help="folder with train/ and heldout/, with --photos")
    parser.add_argument(
        "--edition", type=int, choices=(1, 2), default=2, help="of the world; 1 is the shipped weights'"
    )
    parser.add_argument("--objects-only", action="store_true", help="clips of the world whose camera rests")
    parser.add_argument("--film", type=Path, help="Big Buck Bunny as a video file: clips of its still shots")
    parser.add_argument("--split", choices=("train", "heldout"), default="train")
    parser.add_argument("--count", type=int, required=True, help="number of clips")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first clip; the others follow")
    parser.add_argument("--pairs", type=int, metavar="N", help="instead of each clip N pairs: frame 0 and a later one")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--num-frames", type=int, default=16)
    parser.add_argument("--out", required=True, type=Path, help="folder of the store")
    options = parser.parse_args(arguments)
    source, what = _source(parser, options)
    seeds = range(options.first_seed, options.first_seed + options.count)
    if options.pairs is None:
        write_store(options.out, map(source.clip, seeds), options.count)
        print(f"{options.count} clips from {what} in {options.out}")
    else:
        count = options.count * options.pairs
        write_store(options.out, (pair for seed in seeds for pair in pairs(source, seed, options.pairs)), count)
        print(f"{count} pairs of {options.count} clips from {what} in {options.out}")


def _source(parser: argparse.ArgumentParser, options: argparse.Namespace) -> tuple[ClipSource, str]:
    """What the options ask for, and its name."""
    shape = {"split": options.split, "size": options.size, "num_frames": options.num_frames}
    if options.film is not None:
        if options.photos or options.sprites:
            parser.error("a store comes from --film or from --photos with --sprites, not from both")
        from mi2v_lite.data.film import Film  # the tracker needs torch; the world does not

        film = Film(options.film, **shape)
        return film, f"{len(film.shots)} shots"
    if not (options.photos and options.sprites):
        parser.error("give --photos and --sprites for clips of the world, or --film for clips of Big Buck Bunny")
    photos = [photo for folder in options.photos for photo in list_images(folder)]
    world = World(photos, options.sprites, edition=options.edition, objects_only=options.objects_only, **shape)
    return world, f"{len(photos)} photos"


if __name__ == "__main__":
    main()
