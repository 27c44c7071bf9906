"""Feeds damaged files and drawn values to every reader, and reports what is neither read nor refused in one sentence.

    python -m tools.fuzz                              # all targets, ten minutes together
    python -m tools.fuzz video kitti --seconds 3600   # some of them, an hour each

Files are good ones with some bytes changed, cut out, doubled or replaced by numbers that readers stumble over. Values
of flows, controls and things are drawn by hypothesis. A finding is an error other than ValueError and OSError, a call
that computes for more than `SLOW` seconds or does not return within `STUCK`, more memory than `MEMORY`, or the end of
the process. The file is kept in --keep.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

SLOW, MEMORY = 5, 12 * 2**30  # seconds that a processor is busy, whatever else the machine does meanwhile; bytes
STUCK = 600  # seconds
NUMBERS = [
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x80\0\0\0",
    b"\1\0\0\0",
    b"\0\0\0\1",
]
WORDS = [
    b"NaN",
    b"Infinity",
    b"-1",
    b"1e999",
    b"9" * 400,
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'""',
    b"[" * 3000,
    b"\xe9",
    b"\0",
]
WORDS += [b"../../x", b"!!python/name:os.system", b"&a [*a]", b"0.5", b"99999999999"]
Reader = Callable[[Path], object]


def noise(*shape: int) -> np.ndarray:
    """Smooth noise, uint8, which every codec can write."""
    import cv2

    small = np.random.default_rng(0).integers(0, 256, (*shape[:-3], 6, 6, shape[-1]), np.uint8)
    frames = small.reshape(-1, 6, 6, shape[-1])
    return np.stack([cv2.resize(frame, shape[-3:-1][::-1]) for frame in frames]).reshape(shape)


# For each target a function that writes good files into a folder and returns them and the reader.


def flo(folder: Path) -> tuple[list[Path], Reader]:
    from mi2v_lite.flow.files import read_flow, write_flow

    write_flow(folder / "a.flo", torch.randn(2, 9, 7))
    return [folder / "a.flo"], read_flow


def kitti(folder: Path) -> tuple[list[Path], Reader]:
    from mi2v_lite.flow.files import read_flow, write_flow

    write_flow(folder / "a.png", torch.randn(2, 40, 30))
    return [folder / "a.png"], read_flow


def npz(folder: Path) -> tuple[list[Path], Reader]:
    from mi2v_lite.flow.files import write_npz
    from mi2v_lite.flow.trackers import read_tracks

    write_npz(folder / "a.npz", torch.randn(2, 2, 9, 7), torch.ones(2, 9, 7))
    np.savez(folder / "b.npz", flow=np.zeros((1, 2, 5, 6), np.float32))
    return [folder / "a.npz", folder / "b.npz"], read_tracks


def control(folder: Path) -> tuple[list[Path], Reader]:
    from mi2v_lite.control import Anchor, Drag, MotionControl, Thing

    mask = np.zeros((48, 64), bool)
    mask[10:20, 10:30] = True
    drags, anchors = [Drag([(12, 12), (30, 20), (40, 20)], 9), Drag([(1, 1), (2, 2)])], [Anchor((60, 40), 8)]
    MotionControl((64, 48), drags, anchors, ~mask).save(folder / "a.json")
    MotionControl((64, 48), anchors=anchors, things=[Thing(mask, drags[:1])]).save(folder / "b.json")
    return [folder / "a.json", folder / "b.json"], lambda path: MotionControl.load(path).field(3)


def picture(folder: Path) -> tuple[list[Path], Reader]:
    from PIL import Image

    from mi2v_lite.io.images import read_image

    image, paths = Image.fromarray(noise(40, 50, 3)), []
    for suffix in ("png", "jpg", "webp", "gif", "bmp", "tiff", "avif", "dds", "blp", "ppm", "tga", "pcx", "ico"):
        try:
            (image.quantize() if suffix == "blp" else image).save(folder / f"a.{suffix}")
            paths.append(folder / f"a.{suffix}")
        except (OSError, ValueError, KeyError):  # this Pillow cannot write it
            continue
    return paths, read_image


def video(folder: Path) -> tuple[list[Path], Reader]:
    import av

    from mi2v_lite.data.videos_to_shards import Recipe, read_moments
    from mi2v_lite.io.videos import read_video

    paths = []
    for name, codec in (
        ("a.mp4", "libx264"),
        ("a.webm", "libvpx"),
        ("a.avi", "mpeg4"),
        ("a.ts", "mpeg2video"),
        ("a.mkv", "libx264"),
    ):
        try:
            with av.open(str(folder / name), "w") as container:
                stream = container.add_stream(codec, 25, options={"g": "3"})
                stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
                for frame in noise(8, 48, 64, 3):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
                container.mux(stream.encode(None))
            paths.append(folder / name)
        except (av.FFmpegError, ValueError):  # this FFmpeg has no such encoder
            continue

    def read(path: Path) -> None:
        read_video(path, 4, size=32)
        read_moments(path, Recipe(16, 16, 3))

    return paths, read


def config(folder: Path) -> tuple[list[Path], Reader]:
    from mi2v_lite.training.curriculum import load_config

    for path in sorted((Path(__file__).parents[1] / "mi2v_lite" / "configs").glob("l*.yaml")):
        shutil.copy(path, folder / path.name)
    return sorted(folder.glob("*.yaml")), load_config


def log(folder: Path) -> tuple[list[Path], Reader]:
    from mi2v_lite.training.curves import read_logs

    rows = [f"{10 * i},{1 / i},0.001,0.5,{2 / i if i % 3 == 0 else ''}" for i in range(1, 9)]
    (folder / "a.csv").write_text("\n".join(["step,loss,lr,seconds,heldout_loss", *rows]) + "\n")
    return [folder / "a.csv"], lambda path: read_logs(path.parent)


def checkpoint(folder: Path) -> tuple[list[Path], Reader]:
    from safetensors.torch import save_file

    from mi2v_lite.importing.files import Shelf

    tensors = {"a.weight": torch.randn(4, 3), "b": torch.zeros(2, dtype=torch.float16)}
    save_file(tensors, folder / "a.safetensors")
    torch.save(tensors, folder / "a.ckpt")
    torch.save({"state_dict": tensors, "epoch": 3}, folder / "old.ckpt", _use_new_zipfile_serialization=False)
    return sorted(folder.iterdir()), lambda path: Shelf().open(path)


def training(folder: Path) -> tuple[list[Path], Reader]:
    """A checkpoint of the trainer, of which one file is damaged: the one before must be used."""
    from types import SimpleNamespace

    from mi2v_lite.training.checkpoints import Ema, restore, write_checkpoint

    parameters = {"a.weight": torch.randn(4, 3, requires_grad=True)}
    optimizer, step = torch.optim.AdamW(parameters.values()), SimpleNamespace(name="a", seed=0)
    parameters["a.weight"].sum().backward()
    optimizer.step()
    for done in (2, 4):
        write_checkpoint(folder, step, done, parameters, optimizer, Ema(parameters, 0.9))

    def read(path: Path) -> None:
        done = restore(folder, step, parameters, optimizer, Ema(parameters, 0.9))
        if done != 2 and path.name != "step.json":  # in that one, words may change that nobody reads
            raise AssertionError("a damaged checkpoint was used")

    return sorted((folder / "checkpoint-4").iterdir()), read


def shards(folder: Path) -> tuple[list[Path], Reader]:
    from mi2v_lite.data.clips import Clip
    from mi2v_lite.data.shards import ShardSet, write_index, write_shard

    flow, seen = np.random.default_rng(0).normal(size=(2, 2, 16, 24)).astype(np.float32), np.ones((2, 16, 24), bool)
    clips = [(f"{i:09d}_00", Clip(noise(3, 16, 24, 3), flow, seen, "a red ball", 2), {"video": "x"}) for i in range(3)]
    shard = write_shard(folder, 0, clips, 3)
    write_index(folder, [shard], {"num_frames": 3, "height": 16, "width": 24})

    def read(path: Path) -> None:
        read = ShardSet(folder)
        for index in range(min(len(read), 9)):
            clip = read.clip(index)
            if path.suffix == ".tar" and not np.array_equal(clip.frames, wanted[index].frames):
                raise AssertionError("a damaged clip was read")

    wanted = [ShardSet(folder).clip(index) for index in range(3)]
    return sorted(folder.iterdir()), read


def store(folder: Path) -> tuple[list[Path], Reader]:
    from mi2v_lite.data.clips import Clip
    from mi2v_lite.data.store import ClipStore, write_store

    seen = np.ones((2, 16, 24), bool)
    clip = Clip(noise(3, 16, 24, 3), np.zeros((2, 2, 16, 24), np.float32), seen, "a red ball", 2)
    write_store(folder / "store", [clip] * 2, 2)
    return sorted((folder / "store").iterdir()), lambda path: ClipStore(path.parent).clip(1)


def table(folder: Path) -> tuple[list[Path], Reader]:
    from mi2v_lite.data.video_list import read_webvid

    (folder / "a.csv").write_text("videoid,contentUrl,page_dir,name\n" + '1,https://x/1,000,A "dog"\n2,u,,B, c\n' * 3)
    return [folder / "a.csv"], lambda path: read_webvid(path, path.parent)


FILES = {
    target.__name__: target
    for target in (flo, kitti, npz, control, picture, video, config, log, checkpoint, training, shards, store, table)
}


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to a few changes; most often near the beginning, where headers are."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        size = len(data)
        at = rng.randrange(min(size, rng.choice((64, 512, size or 1)))) if size else 0
        kind = rng.randrange(8)
        if kind == 0 and size:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and size:
            data[at] = rng.randrange(256)
        elif kind == 2:
            number = rng.choice(NUMBERS)
            data[at : at + len(number)] = number
        elif kind == 3:
            del data[at : at + rng.choice((1, 2, 8, 100))]
        elif kind == 4:
            del data[at:]
        elif kind == 5:
            data[at:at] = data[at : at + rng.choice((1, 8, 64, 1000))]
        elif kind == 6:
            data[at : at + rng.choice((0, 1, 4))] = rng.choice(WORDS)
        else:
            other = rng.randrange(size) if size else 0
            data[at : at + 16] = data[other : other + 16]
    return bytes(data)


def fuzz_files(name: str, seconds: float, seed: int, keep: Path) -> Iterator[tuple[str, str]]:
    """Feeds mutated files to the reader of a target; yields findings, and at the end the count under the name ''."""
    rng, count, ends = random.Random(seed), 0, time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as place:
        paths, read = FILES[name](Path(place))
        good = {path: path.read_bytes() for path in paths}
        while time.monotonic() < ends:
            path = rng.choice(paths)
            data = mutated(good[path], rng)
            if data == good[path]:
                continue
            path.write_bytes(data)
            (keep / f"{name}.last").write_bytes(data)  # there if the process dies
            before, said = time.process_time(), ""
            signal.alarm(STUCK)  # ends the process
            try:
                read(path)
            except (ValueError, OSError) as error:
                if len(str(error)) > 2000:
                    said = f"the message has {len(str(error))} characters"
            except BaseException as error:
                said = f"{type(error).__name__}: {''.join(traceback.format_exc().splitlines()[-3:])[:300]}"
            signal.alarm(0)
            took = time.process_time() - before
            if took > SLOW:
                said = said or f"took {took:.0f} s of a processor"
            if said:
                kept = keep / f"{name}-{count}{path.suffix}"
                kept.write_bytes(data)
                yield kept.name, said
            path.write_bytes(good[path])
            count += 1
    (keep / f"{name}.last").unlink(missing_ok=True)
    yield "", str(count)


def values(name: str) -> Callable[[], None]:
    """A test of hypothesis: any flow, control or thing is either refused or gives finite numbers."""
    from hypothesis import given
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as arrays

    from mi2v_lite.control import Anchor, Drag, MotionControl, Thing
    from mi2v_lite.flow import backward_warp, splat_average, splat_softmax
    from mi2v_lite.flow.fields import compose, resize

    anything = st.one_of(st.floats(), st.integers(), st.booleans(), st.text(max_size=3), st.none())
    number = st.one_of(st.floats(-4, 30), anything)
    points = st.one_of(st.lists(st.one_of(st.tuples(number, number), anything), max_size=4), anything)
    sizes = st.one_of(st.tuples(st.integers(1, 24), st.integers(1, 24)), st.tuples(number, number), anything)
    floats = st.one_of(st.floats(-30, 30, width=32), st.floats(width=32))
    fields = st.tuples(st.integers(1, 5), st.integers(1, 5)).flatmap(
        lambda size: arrays.arrays(np.float32, (1, 2, *size), elements=floats)
    )

    @given(fields)
    def flow(array: np.ndarray) -> None:
        field = torch.from_numpy(array)
        image = torch.ones(1, 3, *field.shape[-2:])
        for made, weight in (splat_average(image, field), splat_softmax(image, field, image[:, :1])):
            assert made.isfinite().all() and weight.isfinite().all() and (made >= -1e-4).all() and (made <= 1.001).all()
        assert backward_warp(image, field)[0].isfinite().all()
        resize(field, (3, 4)), compose(field, field)

    @given(sizes, st.lists(st.tuples(points, number), max_size=3), st.lists(st.tuples(number, number), max_size=3))
    def controls(size: object, drags: list, anchors: list) -> None:
        try:
            given = MotionControl(size, [Drag(*drag) for drag in drags], [Anchor(point) for point in anchors])
        except ValueError:
            return
        motion, mask = given.field(2) if max(given.size) < 100 else (torch.zeros(1), torch.zeros(1))
        assert motion.isfinite().all() and ((mask == 0) | (mask == 1)).all()
        assert MotionControl.from_json(given.to_json()) == given

    @given(st.data(), st.integers(1, 9), st.integers(1, 9), st.lists(points, max_size=3))
    def things(data: st.DataObject, width: int, height: int, paths: list) -> None:
        try:
            mask = data.draw(arrays.arrays(bool, (height, width)))
            given = MotionControl((width, height), things=[Thing(mask, [Drag(path) for path in paths])])
        except ValueError:
            return
        motion, _ = given.field(2)
        assert motion.isfinite().all() and MotionControl.from_json(given.to_json()) == given
        given.resized(5, 7)

    return {"flow": flow, "controls": controls, "things": things}[name]


VALUES = ("flow", "controls", "things")


def fuzz_values(name: str, seconds: float, seed: int) -> Iterator[tuple[str, str]]:
    """Lets hypothesis look for values that break a property; yields as `fuzz_files` does."""
    from hypothesis import HealthCheck, settings
    from hypothesis import seed as seeded

    slow = settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    test, count, ends = slow(values(name)), 0, time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            seeded(seed + count)(test)()
        except Exception as error:
            notes = " ".join(getattr(error, "__notes__", []))
            yield name, f"{type(error).__name__}: {error} {notes}"[:600]
            break
        count += 500
    yield "", str(count)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"of {', '.join((*FILES, *VALUES))} (default: all)"
    )
    parser.add_argument("--seconds", type=float, help="for each target (default: 600 shared by all of them)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="repeats a run (default: the time)")
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"), help="where findings go (default: runs/fuzz)")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)  # the process of one target
    options = parser.parse_args()
    targets = options.targets or [*FILES, *VALUES]
    if unknown := [name for name in targets if name not in (*FILES, *VALUES)]:
        parser.error(f"there is no target {unknown[0]}")
    seconds = options.seconds or 600 / len(targets)
    options.keep.mkdir(parents=True, exist_ok=True)
    if options.inside:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        (name,) = targets
        found = (
            fuzz_values(name, seconds, options.seed)
            if name in VALUES
            else fuzz_files(name, seconds, options.seed, options.keep)
        )
        for finding in found:
            print(json.dumps(finding), flush=True)
        return 0
    print(f"seed {options.seed}, {seconds:.0f} s a target\n\n| target | inputs | findings |\n|---|---|---|", flush=True)
    total = 0
    for name in targets:
        command = [sys.executable, "-m", "tools.fuzz", name, "--inside", "--seconds", str(seconds)]
        command += ["--seed", str(options.seed), "--keep", str(options.keep)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        findings = [line for line in lines if line[0]]
        if done.returncode:
            findings.append([f"{name}.last", f"the process ended with {done.returncode}: {done.stderr[-300:]}"])
        print(f"| {name} | {next((said for kept, said in lines if not kept), '?')} | {len(findings)} |", flush=True)
        for kept, said in {said[:120]: (kept, said) for kept, said in findings}.values():
            print(f"    {kept}: {said}", file=sys.stderr, flush=True)
        total += len(findings)
    print(f"\n{total} findings" + (f", kept in {options.keep}" if total else ""))
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
