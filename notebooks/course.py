"""Runs the notebooks, and makes of them what students, instructors and readers get.

    python notebooks/course.py run [NN ...]           executes the notebooks (all by default), stores their outputs, and
                                                      writes their times into README.md
    python notebooks/course.py exercises              writes exercises/, and equations.md, from the solved notebooks
    python notebooks/course.py assignments DIR        writes a course directory for nbgrader (instructor/README.md)
    python notebooks/course.py slides DIR [NN ...]    writes slides as HTML (instructor/README.md)

The environment chooses how long the notebooks train: MI2V_PRESET=fast (the default) or full.
"""

from __future__ import annotations

import argparse
import copy
import os
import re
import sys
import time
from pathlib import Path

import equations
import nbformat
import psutil
from nbclient import NotebookClient

from mi2v_lite.io.files import atomic

HERE = Path(__file__).resolve().parent
EXERCISES = HERE / "exercises"
PAGES = ("README.md", "symbols.md", "equations.md")  # what students get beside their notebooks
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
CELL_TIMEOUT = 1800  # seconds


def notebooks(chosen: list[str] | None = None) -> list[Path]:
    """Lists the solved notebooks in order.

    Args:
        chosen: the numbers of those to list, such as "03"; all by default.

    Returns:
        their paths.

    Raises:
        ValueError: for a number that no notebook has.
    """
    numbered = {path.name[:2]: path for path in sorted(HERE.glob("[0-9][0-9]_*.ipynb"))}
    unknown = sorted(set(chosen or []) - set(numbered))
    if unknown:
        raise ValueError(f"There is no notebook {', '.join(unknown)}; there are {', '.join(numbered)}.")
    return [path for number, path in numbered.items() if not chosen or number in chosen]


def write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Writes a notebook whole or not at all.

    Args:
        notebook: what to write.
        path: the file.
    """
    nbformat.validate(notebook)
    with atomic(path) as beside:
        nbformat.write(notebook, beside)


WIDGET = "application/vnd.jupyter.widget-view+json"


def without_kernel(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """Makes of an output what a page without a kernel can show.

    A widget gives way to its still, for a stored widget shows an error, and a stored progress bar stands at zero for
    ever. A video gives way to its animated PNG: videos would make the file large, and many pages do not show them.

    Args:
        output: the output of a cell; it is changed.

    Returns:
        the output as it is stored; None for a widget without a still.
    """
    data = output.get("data", {})
    has_picture = any(kind.startswith("image/") for kind in data)
    if WIDGET in data:
        if not has_picture:
            return None
        data.pop(WIDGET)
    if has_picture and "<video" in data.get("text/html", ""):
        data.pop("text/html")
    return output


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Leaves out what belongs to one run only: widgets and their state, videos, times of cells, the version of Python.

    Args:
        notebook: what was run; it is changed.

    Returns:
        the same notebook.
    """
    notebook.metadata.pop("widgets", None)
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(without_kernel, cell.outputs) if output is not None]
    return notebook


def run(path: Path) -> tuple[float, float, float]:
    """Executes a notebook in its folder and stores its outputs.

    Args:
        path: the notebook.

    Returns:
        the seconds that it took by the clock, the seconds of processor time of its kernel and what that started, and
        the peak memory of its kernel in MB.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails; the file then stays as it was.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=CELL_TIMEOUT, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    )
    started, busy, peak = time.perf_counter(), 0.0, 0.0

    def measure(**_: object) -> None:
        nonlocal busy, peak
        for child in psutil.Process().children(recursive=True):
            try:
                peak = max(peak, child.memory_info().rss / 1e6)
                used = child.cpu_times()  # with the times of its own children that have ended
                busy = max(busy, used.user + used.system + used.children_user + used.children_system)
            except psutil.Error:
                continue

    client.on_cell_executed = measure
    client.execute()
    write(tidy(notebook), path)
    return time.perf_counter() - started, busy, peak


def note_time(name: str, seconds: float) -> None:
    """Writes into the map of the notebooks how much processor time a notebook took.

    Args:
        name: the file name of the notebook.
        seconds: of processor time.

    Raises:
        ValueError: if the map does not have exactly one row for it.
    """
    page = HERE / "README.md"
    row = rf"^(\| \[[^]]*\]\({re.escape(name)}\) \|.*\|) [^|]* \|$"
    text, count = re.subn(row, rf"\g<1> {seconds / 60:.1f} |", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if count != 1:
        raise ValueError(f"{page} has {count} rows for {name}; it needs one, whose last column is the time.")
    with atomic(page) as beside:
        beside.write_text(text, encoding="utf-8")


def student_version(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Makes the notebook that students get: stubs in place of the solutions, no outputs, the marks of nbgrader.

    Args:
        notebook: a solved notebook, which stays as it is.

    Returns:
        the notebook for students.

    Raises:
        ValueError: if a solution has a beginning without an end, or its cell has no mark of nbgrader.
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
    """Makes the notebooks for students of all solved notebooks, and the pages beside them.

    Returns:
        file name -> content.
    """
    lessons = {path.name: student_version(nbformat.read(path, as_version=4)) for path in notebooks()}
    texts = {name: nbformat.writes(lesson) + "\n" for name, lesson in lessons.items()}
    return texts | {name: (HERE / name).read_text() for name in PAGES}


def write_exercises() -> int:
    """Writes `exercises/` anew and returns how many files it holds."""
    EXERCISES.mkdir(exist_ok=True)
    texts = exercise_texts()
    for old in EXERCISES.glob("*.*"):
        if old.name not in texts:
            old.unlink()
    for name, text in texts.items():
        with atomic(EXERCISES / name) as beside:
            beside.write_text(text, encoding="utf-8")
    return len(texts)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: its words; those of the process by default.

    Returns:
        the exit code, 0.
    """
    parser = argparse.ArgumentParser(description="Runs the notebooks, and makes of them what others get.")
    commands = parser.add_subparsers(dest="what", required=True)
    some = {"nargs": "*", "metavar": "NN", "help": "the numbers of the notebooks, for example 00 03; all by default"}
    commands.add_parser("run", help="execute notebooks and store their outputs").add_argument("numbers", **some)
    commands.add_parser("exercises", help="write exercises/ and equations.md")
    given = commands.add_parser("assignments", help="write a course directory for nbgrader")
    given.add_argument("folder", type=Path, metavar="DIR", help="the course directory")
    given.add_argument(
        "--seed", type=int, default=0, help="of the hidden tests: a number that your students do not know"
    )
    slides = commands.add_parser("slides", help="write slides as HTML")
    slides.add_argument("folder", type=Path, metavar="DIR", help="where the slides go")
    slides.add_argument("numbers", **some)
    options = parser.parse_args(arguments)
    if options.what == "run":
        print("notebook | seconds | of a processor | peak MB | size kB")
        for path in notebooks(options.numbers):
            seconds, busy, peak = run(path)
            size = path.stat().st_size / 1000
            print(f"{path.stem} | {seconds:.0f} | {busy:.0f} | {peak:.0f} | {size:.0f}", flush=True)
            if os.environ.get("MI2V_PRESET", "fast") == "fast":
                note_time(path.name, busy)
    elif options.what == "exercises":
        with atomic(equations.LEDGER) as beside:
            beside.write_text(equations.ledger(), encoding="utf-8")
        print(f"{write_exercises()} files in {EXERCISES.relative_to(HERE.parent)}")
    elif options.what == "assignments":
        from instructor.assignments import write_course

        print(f"{', '.join(write_course(notebooks(), options.folder, options.seed))} in {options.folder}")
    else:
        from instructor.slides import write_slides

        for path in notebooks(options.numbers):
            print(write_slides(path, options.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
