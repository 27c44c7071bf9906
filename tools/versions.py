"""Runs the unit tests with the oldest, the pinned and the newest versions of the dependencies, and prints a table.

    python -m tools.versions                    # all three sets; about 15 GB below runs/versions, and an hour
    python -m tools.versions lowest -- -k warp  # one set; what follows -- goes to pytest

The lowest set has exactly the lower bounds of pyproject.toml, the lock what requirements.lock pins, the newest whatever
pip finds. Notebooks and tests in a browser are not run. An environment is made once: delete its folder to make it anew.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETS = ("lowest", "lock", "newest")
# Needed by the notebooks or the browser alone.
LEFT_OUT = {
    "jupyterlab",
    "ipykernel",
    "mediapy",
    "imageio-ffmpeg",
    "nbconvert",
    "nbmake",
    "nbgrader",
    "playwright",
    "ruff",
}


def wanted() -> dict[str, str]:
    """The name and the lower bound of every package that the unit tests need, as pyproject.toml has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    floors = dict(re.match(r"([\w.-]+)>=([\w.]+)", line).groups() for line in lines)
    return {name: floor for name, floor in floors.items() if name not in LEFT_OUT}


def make(which: str, folder: Path) -> Path:
    """Makes the environment unless it is there.

    Args:
        which: "lowest", "lock" or "newest".
        folder: where it goes.

    Returns:
        Its python.
    """
    python = folder / "bin" / "python"
    if (folder / ".ready").exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pins = {name: f"{name}=={floor}" if which == "lowest" else name for name, floor in wanted().items()}
    options = ["-c", str(ROOT / "requirements.lock")] if which == "lock" else []
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *options]
    subprocess.run([*install, pins["torch"]], check=True)  # first and alone, so that nothing else chooses its version
    subprocess.run([*install, *pins.values()], check=True)
    (folder / ".ready").touch()
    return python


def versions(python: Path) -> dict[str, str]:
    """The versions that an environment has of the packages that the tests need."""
    code = "import sys, json; from importlib.metadata import version as of; "
    code += "print(json.dumps({name: of(name) for name in sys.argv[1:]}))"
    return json.loads(subprocess.check_output([python, "-c", code, *wanted()], text=True))


def run_tests(python: Path, words: list[str]) -> str:
    """Runs the unit tests in an environment; returns pytest's last line: how many passed, failed and were skipped."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "notebooks")])
    environment = {"GOMP_SPINCOUNT": "1000", **os.environ, "PYTHONPATH": paths}
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", *(words or ["tests"])]
    command += [f"--ignore={path}" for path in (ROOT / "tests").glob("*_browser.py")]
    done = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    line = ""
    for line in done.stdout:
        print(line, end="", flush=True)
    done.wait()
    return line.strip()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"{', '.join(SETS)} (default: all three)")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "versions", help="where the environments go")
    words = sys.argv[1:] if argv is None else argv
    split = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:split])
    sets = options.sets or SETS
    for which in sets:
        if which not in SETS:
            parser.error(f"there is no set {which!r}; choose from {', '.join(SETS)}")
    table, results = {}, {}
    for which in sets:
        python = make(which, options.folder / which)
        table[which] = versions(python)
        results[which] = run_tests(python, words[split + 1 :])
    for name in wanted():
        print(f"{name:24}" + "".join(f"{table[which][name]:16}" for which in sets))
    for which in sets:
        print(f"{which}: {results[which]}")


if __name__ == "__main__":
    main()
