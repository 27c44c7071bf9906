"""`mi2v doctor`: what a bug report needs to say about this installation, without anything private.

Nothing here fails because something is missing: every section says what it lacks. Paths are relative to the package,
and folders that name the user are replaced in every message.
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
# Looked up where mi2v_lite runs from a folder that was not installed, and so has no list of requirements.
ESSENTIAL = ("torch", "numpy", "diffusers", "transformers", "safetensors", "pillow", "av")


def add(commands: argparse._SubParsersAction) -> None:
    """Registers `doctor`."""
    parser = commands.add_parser(
        "doctor", help="show the facts for a bug report", description="Prints the facts that a bug report needs."
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print them as JSON")


def run(options: argparse.Namespace) -> None:
    """Runs `mi2v doctor`."""
    findings = examine()
    print(json.dumps(findings, indent=1) if options.json else as_text(findings))


def examine() -> dict[str, dict]:
    """Returns all findings: section to name to a plain value, which JSON can hold."""
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
    """Writes the findings as lines to paste into a bug report."""
    lines = []
    for section, values in findings.items():
        lines.append(section)
        for name, value in values.items():
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"  {name}: {shown}")
    return "\n".join(lines)


def packages() -> dict[str, str]:
    """Returns the versions of all packages that mi2v_lite requires, the optional ones included."""
    try:
        required = metadata.requires("mi2v_lite") or []
    except metadata.PackageNotFoundError:
        required = list(ESSENTIAL)
    names = sorted({re.match(r"[A-Za-z0-9._-]+", text).group().lower() for text in required})

    def version(name: str) -> str:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return "not installed"

    return {name: version(name) for name in names}


def machine() -> dict[str, object]:
    """Returns the cores and the memory."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts: dict[str, object] = {"cores": os.cpu_count(), "cores for this process": allowed}
    for name, pages in (("memory", "SC_PHYS_PAGES"), ("memory free", "SC_AVPHYS_PAGES")):
        try:
            facts[name] = f"{os.sysconf(pages) * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
        except (AttributeError, ValueError, OSError):  # not every system knows
            facts[name] = "unknown"
    return facts


def devices() -> dict[str, object]:
    """Returns what torch can compute on."""
    import torch

    facts: dict[str, object] = {"threads": torch.get_num_threads(), "cuda": torch.version.cuda or "not in this build"}
    facts["devices"] = ["cpu"]
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        facts["devices"].append(f"cuda:{index} {card.name} {card.total_memory / 2**30:.1f} GiB")
    if torch.backends.mps.is_available():
        facts["devices"].append("mps")
    return facts


def weights(folder: Path) -> dict[str, str]:
    """Returns size and SHA-256 of the files of the model and its vocabulary, by path relative to the package."""
    sums = {}
    files = [path for part in ("lite", "tokenizer") for path in (folder / part).rglob("*") if path.is_file()]
    for path in sorted(files):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        sums[path.relative_to(folder.parent).as_posix()] = f"{path.stat().st_size} bytes, SHA-256 {digest}"
    if not (folder / "lite" / "model_index.json").is_file():
        sums[f"{folder.name}/lite"] = "missing or incomplete: there is no model_index.json"
    return sums


def video() -> dict[str, str]:
    """Writes a small MP4 with the library that `mi2v animate` uses, and reads it again."""
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
    return {"write and read MP4": "works" if right else "the frames that were read are not those that were written"}


def _attempt(examination: Callable[[], dict]) -> dict:
    """Returns the findings, or why there are none: this command is there for broken installations."""
    try:
        return examination()
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return {"not available": private(f"{type(error).__name__}: {lines[0]}")}


def private(text: str) -> str:
    """Replaces the folders that name the user: the package, the interpreter, home and temporary files."""
    known = {str(PACKAGE): "mi2v_lite", sys.prefix: "<python>", sys.base_prefix: "<python>"}
    known |= {tempfile.gettempdir(): "<temporary folder>", os.path.expanduser("~"): "~"}  # "~" where there is no home
    for folder in sorted(known, key=len, reverse=True):
        if len(folder) > 1:
            text = text.replace(folder, known[folder])
    return text
