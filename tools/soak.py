"""Kills, full disks, dead workers, two programs at once, Ctrl-C and long runs, tried on tiny models.

    python -m tools.soak                    # all parts, about ten minutes on two cores
    python -m tools.soak kills --kills 100  # one part
    python -m tools.soak long --long        # 500 clips in one process and two hours of training, with curves in --keep

Each program is a fork of this one, which has imported everything but computed nothing. The table counts what was tried
and what was wrong; every line that is wrong is printed.
"""

from __future__ import annotations

import argparse
import csv
import gc
import hashlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process that has no threads yet can be forked

import cv2
import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from mi2v_lite import cli
from mi2v_lite.io.files import recover_folders
from mi2v_lite.io.videos import read_video, write_video
from mi2v_lite.models.autoencoder import make_vae
from mi2v_lite.models.controlnet import TrajectoryControlNet
from mi2v_lite.models.text import make_text_encoder
from mi2v_lite.models.unet import VideoUNet
from mi2v_lite.pipelines.saved import check_folders
from mi2v_lite.training import export, trainer  # noqa: F401 - imported before the fork

VAE = {"block_out_channels": [8, 8], "layers_per_block": 1, "norm_num_groups": 4, "sample_size": 32}
UNET = {
    "block_out_channels": [32],
    "layers_per_block": 1,
    "attention_levels": [True],
    "num_attention_heads": 2,
    "cross_attention_dim": 16,
    "motion_num_attention_heads": 2,
}
TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
MODELS = {
    "image_vae": {"kind": "autoencoder", **VAE, "latent_channels": 4},
    "flow_vae": {"kind": "autoencoder", **VAE, "latent_channels": 2, "in_channels": 2, "out_channels": 2},
    "text_encoder": {"kind": "text_encoder", "tokenizer": "weights/tokenizer", **TEXT},
    "stage1_unet": {"kind": "video_unet", **UNET, "in_channels": 6, "out_channels": 2, "use_stride_embedding": True},
    "controlnet": {"kind": "controlnet", "trunk": "stage1_unet", "condition_channels": 3, "condition_hidden": 8},
    "stage2_unet": {"kind": "video_unet", **UNET, "in_channels": 4, "out_channels": 4, "fusion": "attention"},
}
TRAIN = "train config.yaml --step photos --runs runs --resume"
EXPORT = "export config.yaml --runs given -o out/pipe"
SHARDS = "shards videos -o set --size 32x32 --frames 3 --stride 1 --per-shard 2"
ANIMATE = "animate photo.png --prompt red --seed 1 --steps 2 --frames 6 --weights weights --previews --save-flow made "
ANIMATE += "-o made/clip.mp4"
WORK = {"train": TRAIN, "export": EXPORT, "shards": SHARDS, "animate": ANIMATE}
MADE = {"train": "runs", "export": "out", "shards": "set", "animate": "made"}  # the folder that a program writes


class Wrong(Exception):
    """Something was lost or left over."""


def prepare() -> None:
    """Writes what the programs read into the current folder."""
    rng = np.random.default_rng(0)
    Path("photos").mkdir()
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(f"photos/{i}.png")
    Image.fromarray(rng.integers(0, 256, (32, 48, 3), np.uint8)).save("photo.png")
    Path("videos").mkdir()
    picture = cv2.resize(rng.integers(0, 256, (12, 12, 3), np.uint8), (64, 48))
    for i in range(6):
        write_video(f"videos/{i}.mp4", np.stack([np.roll(picture, i + step, 1) for step in range(5)]))
    step = {"name": "photos", "model": "image_vae", "objective": "image_autoencoder", "steps": 24, "batch_size": 2}
    step |= {"learning_rate": 1e-3, "ema_decay": 0.9, "checkpoint_every": 3, "log_every": 1}
    step |= {"data": {"folder": str(Path("photos").resolve()), "size": 32}}
    long = {**step, "name": "long", "steps": 10**9, "checkpoint_every": 200, "log_every": 50}
    noise = {"prediction_type": "v_prediction"}
    pipeline = {"motion_steps": 2, "animation_steps": 2}
    Path("config.yaml").write_text(
        yaml.safe_dump({"models": MODELS, "noise": noise, "pipeline": pipeline, "steps": [step, long]})
    )


def save_models() -> None:
    """Saves the models of `MODELS`, untrained, where `export` looks for them, and the pipeline that they make."""
    torch.manual_seed(0)
    plain = {name: {key: value for key, value in entry.items() if key != "kind"} for name, entry in MODELS.items()}
    del plain["text_encoder"]["tokenizer"], plain["controlnet"]["trunk"]
    models = {name: make_vae(plain[name]) for name in ("image_vae", "flow_vae")}
    models |= {name: VideoUNet(**plain[name]) for name in ("stage1_unet", "stage2_unet")}
    models["controlnet"] = TrajectoryControlNet.from_unet(models["stage1_unet"], **plain["controlnet"])
    from mi2v_lite.training.curriculum import load_config
    from mi2v_lite.training.step_models import load_tokenizer

    size = len(load_tokenizer(load_config("config.yaml")))
    models["text_encoder"] = make_text_encoder({"vocab_size": size, **plain["text_encoder"]})
    for name, model in models.items():
        model.save_pretrained(f"given/photos/final/{name}")
    if cli.main("export config.yaml --runs given -o weights".split()):
        raise SystemExit("the pipeline cannot be exported")


def start(words: str | Callable[[], int | None], limit: int | None = None) -> int:
    """Starts `mi2v WORDS`, or a function, in a process of its own.

    Args:
        words: the words after mi2v, or what to run.
        limit: the largest file that it may write, in bytes.

    Returns:
        The number of the process. What it prints goes to said.txt.
    """
    Path("said.txt").unlink(missing_ok=True)
    gc.collect()  # what is left of a video that was read here has threads, for which a fork would wait for ever
    process = os.fork()
    if process:
        return process
    code = 1
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    try:
        handle = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1), os.dup2(handle, 2)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        code = cli.main(words.split()) if isinstance(words, str) else words() or 0
    except BaseException as error:
        print(f"Traceback: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def ended(process: int) -> int:
    """Waits for a process; returns its exit code, or the number of the signal that ended it, negative."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def run(words: str) -> None:
    if code := ended(start(words)):
        raise Wrong(f"mi2v {words.split()[0]} ended with {code}: {said()}")


def said() -> str:
    lines = Path("said.txt").read_text(errors="replace").splitlines() if Path("said.txt").exists() else []
    return " / ".join(lines[-3:])[-400:]


def fresh(name: str) -> None:
    """Removes what a program made; only `export` and `animate` begin with an older result."""
    shutil.rmtree(MADE[name], ignore_errors=True)
    if name in ("export", "animate"):
        run(WORK[name])


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def result(name: str) -> object:
    """What a finished program has made, to compare with an unbroken run; raises Wrong if it is not whole."""
    folder = Path(MADE[name])
    try:
        if name == "train":
            weights = load_file(folder / "photos/final/image_vae/diffusion_pytorch_model.safetensors")
            losses = [row["loss"] for row in csv.DictReader((folder / "photos/log.csv").open())]
            return {key: value.numpy().tobytes() for key, value in weights.items()}, losses
        if name == "export":
            check_folders(folder / "pipe")
            return {path.name: sorted(load_file(path)) for path in sorted((folder / "pipe").rglob("*.safetensors"))}
        if name == "shards":
            return {path.name: digest(path) for path in folder.iterdir()}
        frames = read_video(folder / "clip.mp4", 99).frames
        fields = sorted(path.name for path in folder.glob("*.flo"))
        return len(frames), digest(folder / "clip.png"), digest(folder / "flow.npz"), fields
    except Exception as error:
        raise Wrong(f"what {name} made is not whole: {type(error).__name__}: {error}") from error


def check_no_leftovers(name: str) -> None:
    """Raises Wrong if there are unfinished files or locks in the folder that a program writes."""
    left = [path.name for path in Path(MADE[name]).rglob(".*") if path.name.endswith((".part", ".old", ".lock"))]
    if left:
        raise Wrong(f"{name} left {', '.join(sorted(left))}")


def check_torn(name: str) -> None:
    """After a kill: what is there under its own name must be whole."""
    if name == "train":
        for path in Path(MADE[name]).glob("photos/checkpoint-*/*.safetensors"):
            load_file(path)
    elif name in ("export", "animate"):
        recover_folders(MADE[name])
        result(name)
    else:
        for path in Path(MADE[name]).glob("shard-*.json"):
            if digest(path) != unbroken(name)[path.name]:
                raise Wrong(f"{path.name} is torn")


UNBROKEN: dict[str, object] = {}
SECONDS: dict[str, float] = {}


def unbroken(name: str) -> object:
    """The result of a run that nothing interrupted; measures how long it takes."""
    if name not in UNBROKEN:
        shutil.rmtree(MADE[name], ignore_errors=True)
        began = time.monotonic()
        run(WORK[name])
        UNBROKEN[name], SECONDS[name] = result(name), time.monotonic() - began
        check_no_leftovers(name)
    return UNBROKEN[name]


def check_result(name: str) -> None:
    """Lets the program go on to its end: the result must be that of an unbroken run, with nothing beside it."""
    run(WORK[name])
    if result(name) != unbroken(name):
        raise Wrong(f"the result of {name} is another than that of an unbroken run")
    check_no_leftovers(name)


Trials = Iterator[tuple[str, Callable[[], object]]]


def kills(options: argparse.Namespace, rng: random.Random) -> Trials:
    """kill -9 at random moments; afterwards the same command goes on to the result of an unbroken run."""
    for name in WORK:
        for number in range(options.kills):

            def trial(name: str = name, number: int = number) -> None:
                unbroken(name)
                if number % 4 == 0 or name not in ("train", "shards"):  # those go on from kill to kill
                    fresh(name)
                process = start(WORK[name])
                time.sleep(rng.uniform(0, SECONDS[name]))
                os.kill(process, signal.SIGKILL)
                ended(process)
                check_torn(name)
                if number % 4 == 3 or name not in ("train", "shards") or Path("runs/photos/final").exists():
                    if Path("runs/photos/final").exists() and name == "train":
                        fresh(name)
                    check_result(name)

            yield f"kill -9 of {name}", trial


def interrupts(options: argparse.Namespace, rng: random.Random) -> Trials:
    """Ctrl-C at random moments: the end within two seconds, exit code 130, and nothing left over."""
    for name in WORK:
        for _ in range(max(1, options.kills // 2)):

            def trial(name: str = name) -> None:
                unbroken(name)
                fresh(name)
                process = start(WORK[name])
                time.sleep(rng.uniform(0.2, 0.9) * SECONDS[name])
                os.kill(process, signal.SIGINT)
                began = time.monotonic()
                code = ended(process)
                if code not in (0, 130):  # 0 if it had ended before
                    raise Wrong(f"{name} ended with {code} after Ctrl-C: {said()}")
                if time.monotonic() - began > 2:
                    raise Wrong(f"{name} took {time.monotonic() - began:.1f} s to stop")
                check_no_leftovers(name)

            yield f"Ctrl-C in {name}", trial


def disk(options: argparse.Namespace, rng: random.Random) -> Trials:
    """No file may grow beyond some size, as on a full disk: one error, the old result, nothing left over."""
    for name, limits in {
        "train": (20_000, 50_000),
        "export": (5_000, 50_000),
        "shards": (1_000, 6_000),
        "animate": (500, 3_000),
    }.items():
        for limit in limits:

            def trial(name: str = name, limit: int = limit) -> None:
                unbroken(name)
                fresh(name)
                if (code := ended(start(WORK[name], limit))) != 2 or "Traceback" in said():
                    raise Wrong(f"{name} ended with {code} on a full disk: {said()}")
                check_no_leftovers(name)
                if name in ("export", "animate"):
                    result(name)

            yield f"full disk in {name}", trial


def twice(options: argparse.Namespace, rng: random.Random) -> Trials:
    """Two programs at once on one output: one is refused, or both are right."""
    for name in WORK:
        for _ in range(3):

            def trial(name: str = name) -> None:
                unbroken(name)
                shutil.rmtree(MADE[name], ignore_errors=True)
                both = [start(WORK[name]), start(WORK[name])]
                codes = sorted(map(ended, both))
                if codes not in ([0, 0], [0, 2]):
                    raise Wrong(f"two of {name} ended with {codes}: {said()}")
                check_result(name)

            yield f"two of {name} at once", trial


def workers(options: argparse.Namespace, rng: random.Random) -> Trials:
    """A process that makes shards dies: the command says so, and the same again goes on."""

    def trial() -> None:
        unbroken("shards")
        fresh("shards")
        process = start(f"{SHARDS} --processes 2")
        deadline, victims = time.monotonic() + 60, []
        while not victims and time.monotonic() < deadline:
            for status in Path("/proc").glob("[0-9]*/stat"):
                try:
                    fields = status.read_text().rpartition(")")[2].split()
                    command = (status.parent / "cmdline").read_text()
                except OSError:
                    continue
                if int(fields[1]) == process and "spawn_main" in command:
                    victims.append(int(status.parent.name))
            time.sleep(0.01)
        if victims:
            os.kill(victims[0], signal.SIGKILL)
        if (code := ended(process)) != 2 or "A process died" not in said():
            raise Wrong(f"shards ended with {code} after a worker's death: {said()}")
        check_result("shards")

    for _ in range(2):
        yield "death of a worker of shards", trial


def repeats(options: argparse.Namespace, rng: random.Random) -> Trials:
    """The same seed gives the same bytes, in one process or two, and whatever else the process made before."""

    def made_again() -> int:
        for seed in (7, 1):
            if code := cli.main(ANIMATE.replace("--seed 1", f"--seed {seed}").split()):
                return code
        return 0

    def trial() -> None:
        unbroken("animate")
        shutil.rmtree("made", ignore_errors=True)
        if code := ended(start(made_again)):
            raise Wrong(f"ended with {code}: {said()}")
        if result("animate") != unbroken("animate"):
            raise Wrong("the second clip of a process is another than the only one of a process")

    yield "the same seed again", trial
    yield "the same seed again", lambda: check_result("animate")


def usage(process: int) -> tuple[float, int]:
    """Memory in MiB and open files of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(list(Path(f"/proc/{process}/fd").iterdir()))


def watched(
    process: int, name: str, counted: Callable[[], int], until: Callable[[], bool], options: argparse.Namespace
) -> None:
    """Follows memory, open files and speed of a process to its end; raises Wrong if they grow or sink."""
    rows, began = [], time.monotonic()
    while os.waitpid(process, os.WNOHANG)[0] == 0:
        try:
            memory, files = usage(process)
        except OSError:
            break
        rows.append((round(time.monotonic() - began, 1), counted(), round(memory, 1), files))
        if until():
            os.kill(process, signal.SIGINT)
        time.sleep(10 if options.long else 0.2)
    options.keep.mkdir(parents=True, exist_ok=True)
    with (options.keep / f"{name}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("seconds", "count", "memory_mib", "files"), *rows])
    rows = [row for row in rows if row[1] >= max(2, rows[-1][1] // 5)]  # the first fifth warms up
    if len(rows) < 4:
        raise Wrong(f"{name} made only {len(rows)} measurements: {said()}")
    seconds, counts, memory, files = zip(*rows, strict=True)
    third = len(rows) // 3
    start_memory, end_memory = (float(np.median(part)) for part in (memory[: third + 1], memory[-third - 1 :]))
    speeds = [
        (part[-1] - part[0]) / max(t[-1] - t[0], 1e-9)
        for part, t in ((counts[: third + 1], seconds[: third + 1]), (counts[-third - 1 :], seconds[-third - 1 :]))
    ]
    print(
        f"{name}: {counts[-1]} in {seconds[-1]:.0f} s, {start_memory:.0f} to {end_memory:.0f} MiB, "
        f"{min(files)} to {max(files)} files, {speeds[0]:.2f} to {speeds[1]:.2f} a second",
        file=sys.stderr,
    )
    if end_memory > 1.03 * start_memory:
        raise Wrong(f"{name}: memory grew from {start_memory:.0f} to {end_memory:.0f} MiB")
    if float(np.median(files[-third - 1 :])) > float(np.median(files[: third + 1])) + 1:
        raise Wrong(f"{name}: open files grew from {files[0]} to {files[-1]}")


def long(options: argparse.Namespace, rng: random.Random) -> Trials:
    """Many clips in one process, and one long training."""
    clips = 500 if options.long else 60

    def many() -> int:
        from mi2v_lite.cli import common

        pipe = common.load(Path("weights"))
        common.load = lambda *_: pipe
        for number in range(clips):
            if code := cli.main(ANIMATE.split()):
                return code
            Path("count.txt").write_text(str(number + 1))
        return 0

    def count() -> int:
        return int(Path("count.txt").read_text() or 0) if Path("count.txt").exists() else 0

    def updates() -> int:
        path = Path("runs/long/log.csv")
        lines = path.read_text().splitlines() if path.exists() else []
        return int(lines[-1].partition(",")[0]) if len(lines) > 1 else 0

    yield f"{clips} clips in one process", lambda: watched(start(many), "clips", count, lambda: False, options)

    def training() -> None:
        shutil.rmtree("runs", ignore_errors=True)
        end = time.monotonic() + (7200 if options.long else 60)
        process = start("train config.yaml --step long --runs runs")
        watched(process, "training", updates, lambda: time.monotonic() > end, options)

    yield "one long training", training


PARTS = {each.__name__: each for each in (kills, interrupts, disk, twice, workers, repeats, long)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--kills", type=int, default=20, help="of each program (default: 20)")
    parser.add_argument("--long", action="store_true", help="500 clips and two hours of training")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--keep", type=Path, default=Path("runs/soak"), help="for the curves (default: runs/soak)")
    options = parser.parse_args()
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]}")
    options.keep = options.keep.resolve()
    counts: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder, suppress(KeyboardInterrupt):  # which prints what was tried so far
        os.chdir(folder)
        prepare()
        if ended(start(save_models)):
            raise SystemExit(f"the models cannot be made: {said()}")
        for part in options.parts or PARTS:
            for what, trial in PARTS[part](options, random.Random(options.seed)):
                if what not in counts:
                    print(f"{what} ...", file=sys.stderr, flush=True)
                counted = counts.setdefault(what, [0, 0])
                try:
                    trial()
                except Wrong as error:
                    counted[1] += 1
                    print(f"{what}: {error}", file=sys.stderr, flush=True)
                counted[0] += 1
    os.chdir("/")
    print("\n| what | tried | wrong |\n|---|---|---|")
    for what, (tried, wrong) in counts.items():
        print(f"| {what} | {tried} | {wrong} |")
    return 1 if any(wrong for _, wrong in counts.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
