"""Lays out the sources of the site: `python docs/site/stage.py FOLDER`.

The pages keep their places in the repository, so the links between them hold. Pictures in notebooks get their
alternative text where myst-nb looks for it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import nbformat

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGES = ("*.md", "docs/*.md", "docs/*.svg", "notebooks/*.md", "notebooks/instructor/*.md", "data_samples/*.md")
FILES = ("data_samples/*.png", "mi2v_lite/weights/README.md", "mi2v_lite/weights/*.png", "tools/*/README.md")


def with_words(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Moves the alternative texts of pictures from the outputs to their cells, where myst-nb reads them."""
    for cell in notebook.cells:
        words = [output.get("metadata", {}).get("image/png", {}).get("alt") for output in cell.get("outputs", [])]
        if any(words):
            cell.metadata["mystnb"] = {"image": {"alt": " ".join(filter(None, words))}}
    return notebook


def stage(folder: Path) -> None:
    """Writes the sources.

    Args:
        folder: where to; what was there before goes.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for pattern in (*PAGES, *FILES):
        for path in ROOT.glob(pattern):
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    for path in ROOT.glob("notebooks/[0-9][0-9]_*.ipynb"):
        notebook = with_words(nbformat.read(path, as_version=4))
        (folder / "notebooks" / path.name).write_text(nbformat.writes(notebook))
    for name in ("conf.py", "index.md"):
        shutil.copyfile(HERE / name, folder / name)
    shutil.copytree(HERE / "static", folder / "_static")


if __name__ == "__main__":
    stage(Path(sys.argv[1]))
