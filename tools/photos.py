"""Prepare the photos that the lite world uses as backgrounds and textures.

Nothing is downloaded: the sources are image files, folders of images and videos that are already on the disk.

    python -m tools.photos --out runs/photos/train mate-backgrounds/ kodak/kodim01.png bbb.mp4

Sources used for the published checkpoints (training only, none of these files is part of the repository):

- Kodak Lossless True Color Image Suite, 01 to 18 for training, 19 to 24 held out: released by Eastman Kodak Company for
  unrestricted use.
- Debian package mate-backgrounds 1.26.0: GPL-2+ and CC BY-SA 4.0, per file.
- Debian package plasma-workspace-wallpapers 5.27.5 (KDE contributors): LGPL-3, CC BY-SA 4.0 and GPL-2+, per file.
- Debian packages lomiri-wallpapers-16.04 and -20.04 20.04.0 (authors in the file names): CC BY 4.0, CC BY-SA 3.0 and
  4.0, CC0, per file.
- Debian package ukui-wallpapers 20.04.3: CC BY-SA 3.0.
- Big Buck Bunny from the moviepy 2.2.1 source archive, `--every 1.5 --start 20 --end 490`: CC BY 3.0,
  (c) 2008, Blender Foundation / www.bigbuckbunny.org. Single frames, scaled down and saved as JPEG. (The clips of
  `film.py` come from the same file: `make weights FILM=bbb.mp4`.)

Unpack a Debian package without installing it by `dpkg -x package.deb folder`.

tools/things/README.md lists a larger set, in which the things that can move are marked, and the commands that fill it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from mi2v_lite.cli import common, guarded
from mi2v_lite.io.images import IMAGE_SUFFIXES, list_images, read_image
from mi2v_lite.io.videos import read_video

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mpg")
# Small files are icons and previews, never photos worth training on.
MIN_SIDE = 256
MIN_CONTRAST = 12.0
MIN_CHANGE = 6.0


def shrink(image: Image.Image, short_side: int = 512) -> Image.Image:
    """RGB copy of `image`, scaled down so that its shorter side is at most `short_side` pixels. Never enlarges."""
    image = image.convert("RGB")
    scale = short_side / min(image.size)
    if scale >= 1:
        return image
    size = (round(image.width * scale), round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def views(image: Image.Image, short_side: int = 512) -> Iterator[Image.Image]:
    """The whole picture, and, where it is large enough, also two tiles at twice the scale: they show finer texture."""
    yield shrink(image, short_side)
    width, height = image.size
    if min(width, height) >= 3 * short_side:
        half = (width // 2, height // 2)
        for left, top in ((width // 8, height // 2), (width - half[0] - width // 8, height // 4)):
            yield shrink(image.crop((left, top, left + half[0], top + half[1])), short_side)


def contrast(image: Image.Image) -> float:
    """Standard deviation of the grey values, 0 to 127: low for empty or black pictures."""
    return float(np.asarray(image.convert("L"), dtype=np.float32).std())


def video_pictures(path: Path, every: float, start: float = 0.0, end: float | None = None) -> Iterator[Image.Image]:
    """One picture every `every` seconds of a video between `start` and `end` (seconds), as RGB PIL images."""
    import av

    read_video(path, 1)  # says what is wrong with a file that is no video
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        due = start
        for frame in container.decode(video=0):
            time = float(frame.time or 0.0)
            if end is not None and time > end:
                break
            if time >= due:
                due = time + every - 1e-3
                yield frame.to_image()


def save_photo(image: Image.Image, out: Path, stem: str) -> Path:
    """Write `image` as `<stem>.jpg` (quality 95) into `out`; a number is added if the name is taken."""
    out.mkdir(parents=True, exist_ok=True)
    path, number = out / f"{stem}.jpg", 2
    while path.exists():
        path, number = out / f"{stem}_{number}.jpg", number + 1
    image.save(path, quality=95, subsampling=0)
    return path


def prepare(
    sources: Iterable[Path],
    out: Path,
    *,
    every: float = 1.5,
    start: float = 0.0,
    end: float | None = None,
    short_side: int = 512,
) -> int:
    """Write the photos of all sources to a folder, as JPEG.

    Pictures without contrast are left out, and so are video frames that hardly differ from the last one kept.

    Args:
        sources: image files, folders of images, and videos.
        out: the folder to write to.
        every: seconds between two frames of a video.
        start: the first second of a video.
        end: the last second of a video, by default its end.
        short_side: what the shorter side is scaled down to, in pixels.

    Returns:
        how many photos were written.

    Raises:
        ValueError: a source is none of these, cannot be read, or no source gives a photo.
    """
    written = 0
    for source in sources:
        if source.is_dir():
            files = list_images(source)
        elif source.is_file() and source.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES:
            files = [source]
        else:
            raise ValueError(f"{source} is neither a folder, an image nor a video; give paths that exist on this disk")
        for file in tqdm(files, desc=source.name):
            if file.suffix.lower() in VIDEO_SUFFIXES:
                written += _save_video(file, out, every, start, end, short_side)
                continue
            image = read_image(file)
            if min(image.size) < MIN_SIDE:
                continue
            stem = file.stem
            if stem.replace("x", "").isdigit():
                stem = file.parents[2].name + "_" + file.parent.name
            for view in views(image, short_side):
                if contrast(view) >= MIN_CONTRAST:
                    save_photo(view, out, stem)
                    written += 1
    if not written:
        raise ValueError(f"there is no photo of {MIN_SIDE} px or more with some contrast in what was given.")
    return written


def _save_video(file: Path, out: Path, every: float, start: float, end: float | None, short_side: int) -> int:
    written, last = 0, None
    for picture in video_pictures(file, every, start, end):
        thumbnail = np.asarray(picture.resize((32, 18), Image.Resampling.BOX), dtype=np.float32)
        if last is not None and np.abs(thumbnail - last).mean() < MIN_CHANGE:
            continue
        small = shrink(picture, short_side)
        if contrast(small) < MIN_CONTRAST:
            continue
        save_photo(small, out, f"{file.stem}_{written:04d}")
        last, written = thumbnail, written + 1
    return written


def main(arguments: list[str] | None = None) -> None:
    """Command line: `python -m tools.photos --out FOLDER SOURCE [SOURCE ...]`."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.photos", description="Prepare training photos from local files."
    )
    parser.add_argument("sources", nargs="+", type=Path, help="image files, folders of images, videos")
    parser.add_argument("--out", required=True, type=Path, help="folder for the JPEG files")
    parser.add_argument("--every", type=common.number(0.001), default=1.5, help="seconds between two frames of a video")
    parser.add_argument("--start", type=common.number(0), default=0.0, help="first second of a video")
    parser.add_argument(
        "--end", type=common.number(0), default=None, help="last second of a video, for instance before the credits"
    )
    parser.add_argument("--short-side", type=common.whole(8), default=512, help="largest shorter side, in pixels")
    options = parser.parse_args(arguments)
    common.check_folder(options.out)
    count = prepare(
        options.sources,
        options.out,
        every=options.every,
        start=options.start,
        end=options.end,
        short_side=options.short_side,
    )
    print(f"{count} photos in {options.out}")


if __name__ == "__main__":
    sys.exit(guarded(main))
