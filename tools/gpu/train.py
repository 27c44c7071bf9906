"""The training: the lite recipe from nothing in minutes, with larger batches and as many updates as there is time for.

What it needs travels in one folder, which `carry` fills: the photos, made smaller, and the masks of the things in them.
Each step gets a share of the minutes that are left. Its first updates tell how long one takes, and so how many there
can be; `plan.json` in the folder of the runs keeps that number, and a second call goes on with it. The newest weights
of each model are written as soon as a step is done, as one file of half precision; `unpack` makes results of steps of
them again, for `mi2v export`.
"""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mi2v_lite.io.files import atomic
from mi2v_lite.io.images import list_images, read_image
from mi2v_lite.training import trainer
from mi2v_lite.training.curriculum import Config, Step, is_done, parse_config
from mi2v_lite.training.schema import WORLD
from tools.gpu.check import CONFIGS, about
from tools.gpu.tasks import table

# What each step gets of the time, in any unit: about as much as in lite.yaml, and more for the autoencoders, whose
# batches are no larger.
SHARES = {
    "image_vae": 5, "flow_vae": 4, "start_image": 4, "start_video": 3, "stage1_pans": 4, "stage1_drifts": 6,
    "stage1_simple": 6, "stage1_words": 12, "stage1_single": 10, "stage1_temporal": 3, "stage1_full": 6,
    "controlnet_single": 13, "controlnet": 7, "stage2_single": 20, "stage2": 10,
}  # fmt: skip
LARGER = 8  # how many times larger the batches of the denoisers are than in lite.yaml
TRIED = (4, 16)  # an update takes as long as those between these two
RESERVE = 0.05  # of a step's time that is left for its validations and its end
TOY_UNET = {"block_out_channels": [32, 32], "attention_levels": [True, False], "norm_num_groups": 8}


def carry(photos: Path, things: Path, out: Path, side: int = 256) -> None:
    """Fills the folder that travels, and prints how large it is.

    Args:
        photos: the folder with `train/` and `heldout/`.
        things: the folder with the masks of things, see `tools.things.masks`.
        out: the folder to fill, which git should ignore.
        side: of the photos, the shorter one, in pixels.
    """
    for split in ("train", "heldout"):
        folder = out / "photos" / split
        folder.mkdir(parents=True, exist_ok=True)
        for path in list_images(photos / split):
            photo = read_image(path)
            scale = min(1.0, side / min(photo.size))
            small = photo.resize([round(length * scale) for length in photo.size], Image.Resampling.LANCZOS)
            small.save(folder / path.name, format="JPEG", quality=88)
    shutil.copytree(things, out / "things", dirs_exist_ok=True)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out} holds {size / 1e6:.1f} MB")


def lite_content(toy: bool = False) -> dict[str, Any]:
    """The lite recipe as plain data, to be changed.

    Args:
        toy: with small models, pictures and batches, for a dry run and for tests.
    """
    content = yaml.safe_load((CONFIGS / "lite.yaml").read_text(encoding="utf-8"))
    if not toy:
        return json.loads(json.dumps(content))  # what YAML's anchors share must not be changed together
    for name, model in content["models"].items():
        if model["kind"] == "autoencoder":
            model |= {"block_out_channels": [16], "norm_num_groups": 4}
        elif model["kind"] == "video_unet":
            model |= TOY_UNET | {"cross_attention_dim": 16}
        elif model["kind"] == "controlnet":
            model |= {"condition_hidden": 8}
        elif name == "text_encoder":
            model |= {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    content["world"] |= {"size": 32, "num_frames": 4}
    for step in content["steps"]:
        step |= {"batch_size": 2, "warmup_steps": 1}
        step["data"] = {**step["data"], "size": 32} if step["name"] == "image_vae" else step["data"]
    return json.loads(json.dumps(content))


def recipe(data: Path, toy: bool) -> Config:
    """The lite recipe for a GPU: larger batches, and of the clips in its data those that have travelled.

    Args:
        data: the folder that `carry` has filled.
        toy: small sizes.
    """
    content = lite_content(toy)
    data = data.resolve()
    content["world"] |= {"photos": str(data / "photos"), "things": str(data / "things")}
    for step in content["steps"]:
        if step["name"] == "image_vae":
            step["data"] |= {key: str(data / step["data"][key]) for key in ("folder", "heldout")}
        mixed = step["data"].get("mixed_with", [])
        mixed = [mixed] if isinstance(mixed, str) else mixed
        if mixed:  # a store that was not carried is left out
            step["data"]["mixed_with"] = [name for name in mixed if name in WORLD or (data / name).exists()]
        if not toy and not step["objective"].endswith("autoencoder"):
            step["batch_size"] *= LARGER
        step |= {"checkpoint_every": 10**9, "validate_every": 10**9, "log_every": 4}
    return parse_config(content)


def train(
    data: Path,
    runs: Path,
    out: Path,
    seconds: float,
    toy: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Trains all steps that are not done, and stops by itself.

    Args:
        data: the folder that `carry` has filled.
        runs: the folder of the results of the steps, where another call goes on.
        out: the folder of what comes back: the weights of each model and `train.json`.
        seconds: for all of it.
        toy: small sizes.
        clock: seconds that only grow.

    Returns:
        whether all steps are done.
    """
    torch.set_float32_matmul_precision("high")  # TF32: the networks are small, and casting to bf16 costs more
    start, config, device = clock(), recipe(data, toy), "cuda" if torch.cuda.is_available() else "cpu"
    deadline = start + seconds
    path, kept = out / "train.json", runs / "plan.json"
    runs.mkdir(parents=True, exist_ok=True)
    plan = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    waiting = [step for step in config.steps if not is_done(runs, step)]
    print(f"plan, {seconds:.0f} s at most:")
    for step in waiting:
        print(f"  {seconds * _share(step, waiting):5.0f} s  {step.name}, batches of {step.batch_size}")
    results = []
    while waiting and (not results or clock() < deadline):
        step, began = waiting[0], clock()
        record = {"name": step.name, "state": "done", "rows": [], "error": ""}
        if step.name not in plan:
            plan[step.name] = _updates(config, step, runs, _share(step, waiting) * (deadline - clock()))
            with atomic(kept) as beside:
                beside.write_text(json.dumps(plan) + "\n", encoding="utf-8")
        steps = plan[step.name]
        config = replace(config, steps=tuple(replace(s, steps=steps) if s is step else s for s in config.steps))
        trainer.train(config, step.name, runs, resume=True, deadline=deadline)
        if is_done(runs, step):
            record["rows"] = [_row(runs, step, steps)]
            pack(runs, step, out)
            waiting = waiting[1:]
        else:
            record |= {"state": "interrupted", "error": "the time is over; another call goes on"}
        record["seconds"] = round(clock() - began, 2)
        results.append(record)
        with atomic(path) as beside:
            beside.write_text(json.dumps({"about": about(device), "tasks": results}, indent=1) + "\n", encoding="utf-8")
        print(f"[{clock() - start:5.0f} s] {step.name}: {record['state']} {record['error']}", flush=True)
    print(table(results))
    return not waiting


def _share(step: Step, waiting: list[Step]) -> float:
    """The share of the time that is left which this step gets."""
    return SHARES[step.name] / sum(SHARES[other.name] for other in waiting)


def _updates(config: Config, step: Step, runs: Path, seconds: float) -> int:
    """Makes the first updates of a step; returns how many of them, with these, fit into a time."""
    began = time.monotonic()
    trainer.train(config, step.name, runs, resume=True, stop_at=TRIED[1])
    elapsed = {int(row["step"]): int(row["step"]) * float(row["seconds"]) for row in _log(runs, step)}
    each = (elapsed[TRIED[1]] - elapsed[TRIED[0]]) / (TRIED[1] - TRIED[0])
    # What is not updates, the opening of models and data, comes once more when the step goes on.
    once = time.monotonic() - began - elapsed[TRIED[1]]
    left = (1 - RESERVE) * seconds - (time.monotonic() - began) - once
    return TRIED[1] + max(4, round(left / max(each, 1e-6)))


def _log(runs: Path, step: Step) -> list[dict[str, str]]:
    """The rows of the log that have a loss."""
    with (runs / step.name / "log.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["loss"]]


def _row(runs: Path, step: Step, steps: int) -> dict[str, Any]:
    """What the table says of a step that is done."""
    with (runs / step.name / "log.csv").open(newline="", encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    heldout = {key: float(value) for key, value in last.items() if key.startswith("heldout") and value}
    return {"updates": steps, "batch": step.batch_size, **heldout}


def pack(runs: Path, step: Step, out: Path) -> None:
    """Writes each model that a step has trained to `out/<model>.safetensors`, in half precision.

    The newest form of a model replaces the one before. Position codes, which are computed and not learned, keep their
    precision. The header tells the step, the config and the name of the file.
    """
    out.mkdir(parents=True, exist_ok=True)
    for folder in (runs / step.name / "final").iterdir():
        (file,) = folder.glob("*.safetensors")
        half = {
            name: value if name.endswith(".pe") or not value.is_floating_point() else value.half()
            for name, value in load_file(file).items()
        }
        told = {"step": step.name, "file": file.name, "config": (folder / "config.json").read_text(encoding="utf-8")}
        with atomic(out / f"{folder.name}.safetensors") as beside:
            save_file(half, beside, metadata=told)


def unpack(folder: Path, runs: Path) -> None:
    """Makes results of steps from what `train` has brought back.

    Args:
        folder: with the files that `pack` has written.
        runs: the folder of the results, for `mi2v export`.

    Raises:
        ValueError: there are no such files.
    """
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise ValueError(f"{folder} holds no .safetensors files of `python -m tools.gpu train`.")
    for path in paths:
        with safe_open(path, "pt") as opened:
            told = opened.metadata()
        place = runs / told["step"] / "final" / path.stem
        place.mkdir(parents=True, exist_ok=True)
        save_file({name: value.float() for name, value in load_file(path).items()}, place / told["file"])
        (place / "config.json").write_text(told["config"], encoding="utf-8")
        print(f"wrote {place}")
