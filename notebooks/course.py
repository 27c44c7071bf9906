"""Keeps the course in order.

    python notebooks/course.py run [NN ...]   executes the notebooks (all by default) and keeps their outputs
    python notebooks/course.py exercises      writes notebooks/exercises/ from the solved notebooks

The preset is that of the environment: MI2V_PRESET=fast (default) or full.
"""

from __future__ import annotations

import argparse
import copy
import os
import re
import sys
import time
from pathlib import Path

import nbformat
import psutil
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
EXERCISES = HERE / "exercises"
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
CELL_TIMEOUT = 1800  # seconds


def notebooks(chosen: list[str] | None = None) -> list[Path]:
    """The solved notebooks in order, or those whose numbers are chosen.

    Raises:
        ValueError: for a number that no notebook has.
    """
    found = {path.name[:2]: path for path in sorted(HERE.glob("[0-9][0-9]_*.ipynb"))}
    unknown = sorted(set(chosen or []) - set(found))
    if unknown:
        raise ValueError(f"no notebook {', '.join(unknown)}; there are {', '.join(found)}")
    return [path for number, path in found.items() if not chosen or number in chosen]


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Writes a notebook whole or not at all."""
    nbformat.validate(notebook)
    partial = path.with_suffix(".partial")
    nbformat.write(notebook, partial)
    os.replace(partial, path)


WIDGET = "application/vnd.jupyter.widget-view+json"


def without_kernel(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """An output as it is stored: a widget's still picture in place of the widget; None for a widget without one.

    A stored widget without its state shows an error, and a stored progress bar stands at zero for ever.
    """
    if WIDGET not in output.get("data", {}):
        return output
    if not any(kind.startswith("image/") for kind in output.data):
        return None
    output.data.pop(WIDGET)
    return output


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Leaves out what only this run knows: widgets and their state, times of cells, the version of Python."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(without_kernel, cell.outputs) if output is not None]
    return notebook


def run(path: Path) -> tuple[float, float]:
    """Executes a notebook in its folder and keeps its outputs; returns seconds and the kernel's peak memory in MB.

    Raises:
        nbclient.exceptions.CellExecutionError: where a cell fails; the file then stays as it was.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=CELL_TIMEOUT, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    started, peak = time.perf_counter(), 0.0

    def measure(**_: object) -> None:
        nonlocal peak
        for child in psutil.Process().children(recursive=True):
            try:
                peak = max(peak, child.memory_info().rss / 1e6)
            except psutil.Error:
                continue

    client.on_cell_executed = measure
    client.execute()
    write(tidy(notebook), path)
    return time.perf_counter() - started, peak


def student_version(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with every solution replaced by a stub, without outputs; nbgrader's marks stay.

    Raises:
        ValueError: if a solution has a beginning without an end, or a cell with a solution has no mark.
    """
    student = copy.deepcopy(notebook)
    for number, cell in enumerate(student.cells):
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = [], None
        if BEGIN not in cell.source and END not in cell.source:
            continue
        if not cell.metadata.get("nbgrader", {}).get("solution"):
            raise ValueError(f"cell {number} has a solution but no nbgrader mark with solution: true")
        pattern = rf"^([ \t]*){re.escape(BEGIN)}\n.*?^[ \t]*{re.escape(END)}[ \t]*$"
        cell.source, count = re.subn(
            pattern, r"\1# YOUR CODE HERE\n\1raise NotImplementedError()", cell.source, flags=re.DOTALL | re.MULTILINE
        )
        if not count or BEGIN in cell.source or END in cell.source:
            raise ValueError(f"cell {number}: every {BEGIN!r} needs its {END!r} on a later line")
    return student


def exercise_texts() -> dict[str, str]:
    """File name -> content of every exercise notebook, as it follows from the solved ones."""
    return {
        path.name: nbformat.writes(student_version(nbformat.read(path, as_version=4))) + "\n" for path in notebooks()
    }


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Runs the notebooks, or writes their exercises.")
    parser.add_argument("what", choices=("run", "exercises"))
    parser.add_argument("numbers", nargs="*", help="run: which notebooks, for example 00 03")
    options = parser.parse_args(arguments)
    if options.what == "run":
        print("notebook | seconds | peak MB | size kB")
        for path in notebooks(options.numbers):
            seconds, peak = run(path)
            print(f"{path.stem} | {seconds:.0f} | {peak:.0f} | {path.stat().st_size / 1000:.0f}", flush=True)
    else:
        EXERCISES.mkdir(exist_ok=True)
        texts = exercise_texts()
        for old in EXERCISES.glob("*.ipynb"):
            if old.name not in texts:
                old.unlink()
        for name, text in texts.items():
            partial = (EXERCISES / name).with_suffix(".partial")
            partial.write_text(text)
            os.replace(partial, EXERCISES / name)
        print(f"{len(texts)} notebooks in {EXERCISES.relative_to(HERE.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
