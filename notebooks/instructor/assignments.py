"""Graded assignments: from the solved notebooks to a course directory of nbgrader.

Called by `python notebooks/course.py assignments DIR`. An assignment holds the exercises of a notebook alone: the
imports that they need, each exercise with its hints, its stub and its check. It runs in seconds, for nothing of the
lesson is run again. Each check is followed by hidden tests (hidden_tests.py), which nbgrader takes out of what students
get and puts back when it marks.
"""

from __future__ import annotations

import ast
import copy
import re
import shutil
from pathlib import Path

import nbformat

HERE = Path(__file__).resolve().parent
INTRODUCTION = """Write your answers where it says `YOUR CODE HERE`. The cell below each of them checks it. Marking also
tries inputs that you do not see here."""
FILES = ("judge.py", "answers.py", "hidden_tests.py", "nbgrader_config.py")
HIDDEN = """
### BEGIN HIDDEN TESTS
from hidden_tests import agrees
agrees({0}, "{0}")
### END HIDDEN TESTS"""


def names(source: str) -> set[str]:
    """Lists the names that a piece of code uses.

    Args:
        source: Python, which may have lines of IPython in it.
    """
    plain = "\n".join(line for line in source.splitlines() if not line.lstrip().startswith(("%", "!")))
    return {node.id for node in ast.walk(ast.parse(plain)) if isinstance(node, ast.Name)}


def needed_imports(setup: str, used: set[str]) -> str:
    """Picks from the first cell of a notebook what its exercises need.

    Args:
        setup: the source of that cell.
        used: the names that solutions and checks use.

    Returns:
        the import statements that bind one of these names, each as it stands.
    """
    kept = []
    for node in ast.parse(setup).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            aliases = [alias for alias in node.names if (alias.asname or alias.name.split(".")[0]) in used]
            if aliases:
                kept.append(ast.unparse(type(node)(**{**vars(node), "names": aliases})))
    return "\n".join(kept)


def check_alone(source: str) -> str:
    """Keeps the calls of the check of a cell; lines that go on with the lesson's own variables are left out."""
    calls = [
        node for node in ast.parse(source).body if isinstance(node, ast.Expr) and "checks" in names(ast.unparse(node))
    ]
    return "\n".join(ast.get_source_segment(source, call) for call in calls)


def assignment(notebook: nbformat.NotebookNode, hidden: set[str]) -> nbformat.NotebookNode:
    """Makes the exercises-only notebook of a lesson, with solutions: nbgrader's source.

    Args:
        notebook: the solved lesson.
        hidden: the names of the functions for which there are hidden tests.

    Returns:
        the notebook that `nbgrader generate_assignment` reads.
    """
    cells, used, before = [], set(), ""
    number = re.match(r"# (\d\d) · (.+)", notebook.cells[0].source)
    for cell in notebook.cells:
        mark = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "markdown":
            before = cell.source
        if not (mark.get("solution") or mark.get("grade")):
            continue
        kept = copy.deepcopy(cell)
        if cell.cell_type == "code":
            kept.outputs, kept.execution_count = [], None
        if mark.get("solution"):
            section = re.search(r"^### Exercise .*\Z", before, re.MULTILINE | re.DOTALL)
            cells.append(nbformat.v4.new_markdown_cell(section[0] if section else before))
            answer = next(iter(re.findall(r"^def (\w+)\(", cell.source, re.MULTILINE)), "")
        else:
            kept.source = check_alone(cell.source)
            used |= names(kept.source)
            kept.source += HIDDEN.format(answer) if answer in hidden else ""
        used |= names(cell.source) if mark.get("solution") else set()
        cells.append(kept)
    setup = nbformat.v4.new_code_cell(
        needed_imports(next(c.source for c in notebook.cells if c.cell_type == "code"), used)
    )
    locked = {"grade": False, "locked": True, "schema_version": 3, "solution": False, "task": False}
    setup.metadata["nbgrader"] = {**locked, "grade_id": f"nb{number[1]}-setup"}
    title = f"# Exercises of notebook {number[1]}: {number[2]}\n\n{INTRODUCTION}"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(title), setup, *cells])
    for place, cell in enumerate(book.cells):
        cell["id"] = f"cell-{place}"
    book.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return book


def write_course(lessons: list[Path], folder: Path, seed: int) -> list[str]:
    """Writes a course directory: one assignment for each lesson, the judge, the hidden tests and the settings.

    Args:
        lessons: the solved notebooks.
        folder: where to; its gradebook and its submissions stay as they are.
        seed: of the hidden inputs.

    Returns:
        the names of the assignments.
    """
    from .hidden_tests import INPUTS

    written = []
    for path in lessons:
        book = assignment(nbformat.read(path, as_version=4), set(INPUTS))
        nbformat.validate(book)
        target = folder / "source" / f"nb{path.name[:2]}" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(book, target)
        written.append(target.parent.name)
    for name in FILES:
        shutil.copyfile(HERE / name, folder / name)
    tests = folder / "hidden_tests.py"
    tests.write_text(re.sub(r"^SEED = \d+", f"SEED = {seed}", tests.read_text(), flags=re.MULTILINE))
    return written
