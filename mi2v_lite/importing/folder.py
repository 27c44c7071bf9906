"""Writes an import, whole or not at all: the models as safetensors, their configs, and the report."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mi2v_lite import __version__
from mi2v_lite.importing.names import POSITIONS
from mi2v_lite.importing.parts import Part
from mi2v_lite.importing.plan import Plan, Sources, make_plan
from mi2v_lite.io.files import atomic_folder
from mi2v_lite.pipelines import MotionI2VPipeline
from mi2v_lite.training.checkpoints import as_os_error
from mi2v_lite.training.curriculum import Config
from mi2v_lite.training.step_models import make_scheduler

REPORT = "import_report.json"
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def import_pipeline(config: Config, sources: Sources, output: str | Path, dtype: str = "float16") -> dict:
    """Makes a folder that `MotionI2VPipeline.from_pretrained` can load.

    Args:
        config: see `make_plan`; its `noise` and `pipeline` become the scheduler and the pipeline's defaults.
        sources: the files to import from.
        output: the folder to make.
        dtype: the precision of the weights, one of `DTYPES`.

    Returns:
        the report, which is also written into the folder: what came from where, what was not used, and what is new.

    Raises:
        ValueError: for a file that is missing, damaged or of another model, for a value that is not finite or does not
            fit `dtype`, and for an output that exists. Then nothing is written.
    """
    output = Path(output)
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}.")
    if output.exists():
        raise ValueError(f"{output} exists already; choose another folder or remove it.")
    plan = make_plan(config, sources)
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(output) as partial, as_os_error(output):
        for part in plan.parts.values():
            _write_part(part, partial / part.name, DTYPES[dtype])
        _write_rest(plan, partial)
        report = make_report(plan, dtype)
        (partial / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def make_report(plan: Plan, dtype: str) -> dict:
    """Reports what came from where, as plain data; every file is read once more for its checksum."""
    parts = {}
    for part in plan.parts.values():
        origins: dict[str, dict[str, int]] = {}
        for name, origin in part.origins.items():
            entry = origins.setdefault(origin, {"tensors": 0, "values": 0})
            entry["tensors"] += 1
            entry["values"] += part.tensors[name].numel()
        parameters = sum(parameter.numel() for parameter in part.model.parameters())
        parts[part.name] = {"parameters": parameters, "from": origins}
    files = {
        str(path): {"bytes": path.stat().st_size, "sha256": checkpoint.sha256(), "not_used": checkpoint.unused()}
        for path, checkpoint in plan.shelf.opened.items()
    }
    return {"mi2v_lite": __version__, "dtype": dtype, "parts": parts, "files": files, "notes": plan.notes}


def report_text(report: dict) -> str:
    """Writes the report for people, with a line for each model and origin."""
    lines = []
    for name, part in report["parts"].items():
        lines.append(f"{name}: {part['parameters']:,} parameters")
        lines += [f"    {entry['tensors']:5d} tensors  {origin}" for origin, entry in part["from"].items()]
    for path, file in report["files"].items():
        if file["not_used"]:
            counts = ", ".join(f"{count} {first}.*" for first, count in file["not_used"].items())
            lines.append(f"not used of {path}: {counts}")
    return "\n".join([*lines, *(f"note: {note}" for note in report["notes"])])


def _write_part(part: Part, folder: Path, dtype: torch.dtype) -> None:
    folder.mkdir(parents=True)
    text = part.name == "text_encoder"
    state = {name: _stored(part, name, value, dtype) for name, value in part.tensors.items()}
    save_file(
        state, folder / ("model.safetensors" if text else "diffusion_pytorch_model.safetensors"), {"format": "pt"}
    )
    if text:
        part.model.config.dtype = str(dtype).removeprefix("torch.")
        part.model.config.architectures = [type(part.model).__name__]
        part.model.config.save_pretrained(folder)
    else:
        part.model.save_config(folder)


def _stored(part: Part, name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    """Converts a tensor to `dtype`; position tables stay in float32, since rounding harms them more than weights."""
    # This copies, because safetensors refuses one table that two attentions share.
    stored = value.to(torch.float32, copy=True) if name.endswith(POSITIONS) else value.to(dtype).contiguous()
    if not torch.isfinite(stored).all():
        what = "too large for float16" if torch.isfinite(value).all() else "not finite"
        raise ValueError(f"{part.origins[name]}: {name} of the {part.name} has values that are {what}.")
    return stored


def _write_rest(plan: Plan, folder: Path) -> None:
    models = {name: part.model for name, part in plan.parts.items()}
    settings = {**plan.config.pipeline, "stage1_image_range": plan.image_range}
    scheduler = make_scheduler(plan.config.noise)
    pipe = MotionI2VPipeline(
        **{"controlnet": None, **models}, tokenizer=plan.tokenizer, scheduler=scheduler, **settings
    )
    pipe.save_config(folder)
    scheduler.save_pretrained(folder / "scheduler")
    plan.tokenizer.save_pretrained(folder / "tokenizer")
