"""`mi2v doctor`: what a bug report needs to know of this installation, without anything private.

Nothing here fails because something is missing: each part says what it lacks. Paths are relative to the package; the
home folder's name is taken out of every message.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import mi2v_lite

PACKAGE = Path(mi2v_lite.__file__).parent
# Asked for by name where mi2v_lite runs from a folder that was not installed and so has no list of its own.
ESSENTIAL = ("torch", "numpy", "diffusers", "transformers", "safetensors", "pillow", "av")


def add(commands: argparse._SubParsersAction) -> None:
    """Register `doctor`."""
    each = commands.add_parser("doctor", help="facts for a bug report", description="Facts for a bug report.")
    each.set_defaults(run=run)
    each.add_argument("--json", action="store_true", help="as JSON")


def run(options: argparse.Namespace) -> None:
    """`mi2v doctor`: facts for a bug report."""
    findings = examine()
    print(json.dumps(findings, indent=1) if options.json else as_text(findings))


def examine() -> dict[str, dict]:
    """All findings: section -> name -> plain value (text, number, bool, or a list or mapping of these)."""
    return {
        "mi2v_lite": {"version": mi2v_lite.__version__},
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        },
        "packages": _attempt(packages),
        "machine": _attempt(machine),
        "torch": _attempt(devices),
        "weights": _attempt(lambda: weights(PACKAGE / "weights")),
        "video": _attempt(video),
    }


def as_text(findings: dict[str, dict]) -> str:
    """The findings as lines to paste in a bug report."""
    lines = []
    for section, values in findings.items():
        lines.append(section)
        for name, value in values.items():
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"  {name}: {shown}")
    return "\n".join(lines)


def packages() -> dict[str, str]:
    """Versions of what mi2v_lite asks for, optional parts included; "not installed" for those that are not there."""
    try:
        asked = metadata.requires("mi2v_lite") or []
    except metadata.PackageNotFoundError:
        asked = list(ESSENTIAL)
    names = sorted({re.match(r"[A-Za-z0-9._-]+", text).group().lower() for text in asked})

    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "not installed"

    return {name: version(name) for name in names}


def machine() -> dict[str, object]:
    """Cores and memory."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, object] = {"cores": os.cpu_count(), "cores for this process": allowed}
    for name, pages in (("memory", "SC_PHYS_PAGES"), ("memory free", "SC_AVPHYS_PAGES")):
        try:
            found[name] = f"{os.sysconf(pages) * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
        except (AttributeError, ValueError, OSError):  # not every system tells
            found[name] = "unknown"
    return found


def devices() -> dict[str, object]:
    """What torch can calculate on."""
    import torch

    found: dict[str, object] = {"threads": torch.get_num_threads(), "cuda": torch.version.cuda or "not in this build"}
    found["devices"] = ["cpu"]
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        found["devices"].append(f"cuda:{index} {card.name} {card.total_memory / 2**30:.1f} GiB")
    if torch.backends.mps.is_available():
        found["devices"].append("mps")
    return found


def weights(folder: Path) -> dict[str, str]:
    """Size and SHA-256 of the files of the model and its vocabulary in `folder`, by path relative to the package."""
    found = {}
    for path in sorted(each for part in ("lite", "tokenizer") for each in (folder / part).rglob("*") if each.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[path.relative_to(folder.parent).as_posix()] = f"{path.stat().st_size} bytes, SHA-256 {digest}"
    if not (folder / "lite" / "model_index.json").is_file():
        found[f"{folder.name}/lite"] = "missing or not whole: no model_index.json"
    return found


def video() -> dict[str, str]:
    """Writes a small MP4 with the library that `mi2v animate` uses (no ffmpeg program) and reads it again."""
    import av
    import numpy as np

    from mi2v_lite.io.videos import write_video

    frames = np.zeros((4, 32, 32, 3), np.uint8)
    frames[:, :, 16:] = 200
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "check.mp4"
        write_video(path, frames)
        with av.open(str(path)) as container:
            seen = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    right = seen.shape == frames.shape and np.abs(seen.astype(int) - frames).mean() < 10
    return {"write and read MP4": "works" if right else "the frames read are not those written"}


def _attempt(examination: Callable[[], dict]) -> dict:
    """The findings, or why there are none: a broken installation is just what this command is for."""
    try:
        return examination()
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return {"not available": private(f"{type(error).__name__}: {lines[0]}")}


def private(text: str) -> str:
    """`text` without the paths that name the user: the package, the interpreter, the home and temporary folders."""
    known = {str(PACKAGE): "mi2v_lite", sys.prefix: "<python>", sys.base_prefix: "<python>"}
    known |= {tempfile.gettempdir(): "<temporary folder>", str(Path.home()): "~"}
    for folder in sorted(known, key=len, reverse=True):
        if len(folder) > 1:
            text = text.replace(folder, known[folder])
    return text
