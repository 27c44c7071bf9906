"""`mi2v copy-course`: the notebooks of the course, where only the package is installed."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
# In an installed package it is inside it; in the repository it is beside it.
COURSE = (PACKAGE / "course", PACKAGE.parent / "notebooks" / "exercises")


def add(commands: argparse._SubParsersAction) -> None:
    """Registers `copy-course`."""
    parser = commands.add_parser(
        "copy-course",
        help="copy the notebooks of the course into a folder",
        description="Copies the notebooks, with their exercises unsolved, to DIR/notebooks, and the photos and clips "
        "that they use to DIR/data_samples. Files that are there already stay as they are.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("folder", type=Path, metavar="DIR", help="where to; it is made if it is not there")
    parser.add_argument(
        "--install",
        metavar="WHAT",
        help="begin each notebook with a cell that installs WHAT by pip, for Colab: git+https://..., or a wheel's URL",
    )


def run(options: argparse.Namespace) -> None:
    """Runs `mi2v copy-course`.

    Raises:
        ValueError: if the installation lacks the course.
    """
    from mi2v_lite.data.samples import find_samples
    from mi2v_lite.io.files import atomic

    course, samples = next((place for place in COURSE if place.is_dir()), None), find_samples()
    if course is None:
        raise ValueError("this installation of mi2v_lite lacks the course; install it again from a wheel or from git.")
    files = {path: options.folder / "notebooks" / path.name for path in sorted(course.glob("[!.]*.*"))}
    for part in ("photos", "clips", "flows"):
        files |= {path: options.folder / "data_samples" / part / path.name for path in (samples / part).glob("[!.]*.*")}
    kept = [target for target in files.values() if target.exists()]
    for source, target in files.items():
        if target in kept:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic(target) as beside:  # half a file would be kept by the next run
            if options.install and source.suffix == ".ipynb":
                beside.write_text(_installing(source.read_text(encoding="utf-8"), options.install), encoding="utf-8")
            else:
                shutil.copyfile(source, beside)
    print(f"{len(files) - len(kept)} files copied to {options.folder}" + (f", {len(kept)} kept" if kept else ""))
    print(f"next: jupyter lab {options.folder / 'notebooks' / '00_start_here.ipynb'}")


def _installing(notebook: str, what: str) -> str:
    """The text of a notebook with a cell in front that installs the package and the course's files."""
    book = json.loads(notebook)
    source = (
        "# On Colab: installs the package, and fetches the photos and clips that the notebooks use.\n"
        f'%pip install -q "mi2v_lite[notebooks] @ {what}"\n'
        "!mi2v copy-course /content/course\n"
        "%cd /content/course/notebooks"
    )
    cell = {"cell_type": "code", "execution_count": None, "id": "install", "metadata": {}, "outputs": []}
    book["cells"].insert(0, {**cell, "source": source.splitlines(keepends=True)})
    return json.dumps(book, indent=1, ensure_ascii=False) + "\n"
