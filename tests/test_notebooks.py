"""The form of the notebooks: what every lesson has, that it was run, and that its exercises can be given and graded."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))
LESSONS = [path for path in NOTEBOOKS if not path.name.startswith("00")]


def load_course() -> ModuleType:
    spec = importlib.util.spec_from_file_location("course", FOLDER / "course.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


course = load_course()


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def text(notebook: nbformat.NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def code(notebook: nbformat.NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=[path.stem for path in paths])


@each(NOTEBOOKS)
def test_first_cell_says_what_where_and_how_long(path):
    first = read(path).cells[0].source
    assert re.match(rf"# {path.name[:2]} · \S", first), "the title is '# NN · Title'"
    for word in (r"\*\*Time\*\* about \d+ minutes", r"\*\*Device\*\*", r"\*\*Needs\*\*", r"\*\*Paper\*\* .*section"):
        assert re.search(word, first), f"the first cell lacks {word}"
    objectives = re.search(r"\*\*You will be able to\*\*\n+((?:- .+\n(?:  .+\n)*)+)", first + "\n")
    assert objectives and 3 <= objectives[1].count("\n- ") + 1 <= 5, "3 to 5 objectives"


@each(NOTEBOOKS)
def test_one_setup_cell_comes_first(path):
    setup = code(read(path))[0]
    for name in ("PRESET", "DEVICE", "SEED", "torch.manual_seed"):
        assert name in setup, f"the setup cell lacks {name}"


@each(NOTEBOOKS)
def test_sections_come_in_order(path):
    headings = re.findall(r"^## (.+)$", text(read(path)), re.MULTILINE)
    wanted = ["The result first", "Exercises", "What could go wrong", "Recap"]
    if path in LESSONS:
        wanted[1:2] = ["Build it, then prove it", "Exercises"]
        wanted[-1:] = ["Where we differ from the paper", "Recap"]
    places = [next((i for i, h in enumerate(headings) if h.startswith(name)), -1) for name in wanted]
    assert -1 not in places and places == sorted(places), f"wanted in this order {wanted}, found {headings}"
    assert "**Next**" in text(read(path))
    if path in LESSONS:
        assert "assert_close" in "\n".join(code(read(path))), "what is built is proved equal to the package's"


@each(NOTEBOOKS)
def test_exercises_have_a_stub_a_check_and_hints(path):
    notebook = read(path)
    asked = re.findall(r"^### Exercise \d+: .+ \(.+, \d+ minutes\)", text(notebook), re.MULTILINE)
    marks = [cell.metadata.get("nbgrader", {}) for cell in notebook.cells]
    solutions, grades = ([mark for mark in marks if mark.get(kind)] for kind in ("solution", "grade"))
    assert len(asked) >= (4 if path in LESSONS else 2)
    assert len(asked) == len(solutions) == len(grades), "a stub and a check for every exercise"
    assert len({mark["grade_id"] for mark in [*solutions, *grades]}) == 2 * len(asked)
    for exercise in re.split(r"^### Exercise ", text(notebook), flags=re.MULTILINE)[1:]:
        assert exercise.split("\n## ")[0].count("Hint") >= 2, f"two hints: {exercise.splitlines()[0]}"


@each(NOTEBOOKS)
def test_was_run_without_errors_in_order(path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run it: make notebooks"
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr" or "Traceback" not in output.text


@each(NOTEBOOKS)
def test_pictures_have_words(path):
    for cell in read(path).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                alt = output.metadata.get("image/png", {}).get("alt", "")
                assert len(alt.split()) >= 3, f"a picture without alternative text below: {cell.source[:80]!r}"


@each(NOTEBOOKS)
def test_nothing_private_nothing_of_this_machine(path):
    for source in code(read(path)):
        plain = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())
        assert not re.search(r"^\s*[%!]\s*(pip|conda|wget|curl)", source, re.MULTILINE), "nothing is fetched"
        for node in ast.walk(ast.parse(plain)):
            names = []
            if isinstance(node, ast.Attribute):
                names = [node.attr]
            elif isinstance(node, ast.ImportFrom):
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            assert not any(re.match(r"_(?!_)", name) for name in names), f"private: {names} in {source[:80]!r}"
    raw = path.read_text()
    assert not re.search(r"/(home|Users|root|work|tmp)/", raw), "a path of one machine"
    assert "widgets" not in read(path).metadata and len(raw) < 3e6


def test_exercises_are_up_to_date():
    written = {path.name: path.read_text() for path in (FOLDER / "exercises").glob("*.*")}
    assert written == course.exercise_texts(), "run: make exercises"


@each(NOTEBOOKS)
def test_students_get_stubs_and_nothing_else_changes(path):
    solved, student = read(path), course.student_version(read(path))
    assert len(solved.cells) == len(student.cells)
    for before, after in zip(solved.cells, student.cells, strict=True):
        if course.BEGIN in before.source:
            assert "raise NotImplementedError()" in after.source and "SOLUTION" not in after.source
        else:
            assert before.source == after.source
        assert not after.get("outputs")


def lesson(*sources: tuple[str, dict]) -> nbformat.NotebookNode:
    cells = []
    for source, mark in sources:
        cells.append(nbformat.v4.new_code_cell(source, metadata={"nbgrader": mark} if mark else {}))
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return notebook


def test_what_is_stored_needs_no_kernel():
    def output(**data: str) -> nbformat.NotebookNode:
        return nbformat.v4.new_output("display_data", data)

    still, table = {"image/png": "iVBORw0KGgo="}, {"text/html": "<table></table>"}
    stored = course.without_kernel(output(**still, **{"text/html": "<table><video controls></video></table>"}))
    assert dict(stored.data) == still, "a video gives way to its animated PNG"
    assert dict(course.without_kernel(output(**table)).data) == table
    assert dict(course.without_kernel(output(**still, **{course.WIDGET: ""})).data) == still
    assert course.without_kernel(output(**{course.WIDGET: ""})) is None, "a progress bar"


def test_the_map_says_how_long_each_notebook_took(tmp_path, monkeypatch):
    rows = [line for line in (FOLDER / "README.md").read_text().splitlines() if line.startswith("| [0")]
    assert [row.split("](")[1].split(")")[0] for row in rows] == [path.name for path in NOTEBOOKS]
    (tmp_path / "README.md").write_text("\n".join(rows))
    monkeypatch.setattr(course, "HERE", tmp_path)
    course.note_time(NOTEBOOKS[2].name, 150)
    after = (tmp_path / "README.md").read_text().splitlines()
    assert after[2].endswith(" | 2.5 |") and after[2].count("|") == rows[2].count("|")
    assert after[:2] + after[3:] == rows[:2] + rows[3:]
    with pytest.raises(ValueError, match="0 rows for 99"):
        course.note_time("99_nothing.ipynb", 1)


STUB = {"grade": False, "grade_id": "twice", "locked": False, "schema_version": 3, "solution": True, "task": False}
SOLVED = "def twice(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"


def test_a_solution_without_end_or_mark_is_refused():
    with pytest.raises(ValueError, match="cell 0 has a solution but no nbgrader mark"):
        course.student_version(lesson((SOLVED, {})))
    with pytest.raises(ValueError, match="cell 0: every"):
        course.student_version(lesson((SOLVED.replace("### END SOLUTION", ""), STUB)))


@each(NOTEBOOKS)
def test_nbgrader_reads_the_marks(path):
    from nbgrader.nbgraderformat import MetadataValidator

    for cell in read(path).cells:
        if "nbgrader" in cell.metadata:
            MetadataValidator().validate_cell(cell)


def test_slides_show_pictures_and_questions_and_tell_the_rest(tmp_path):
    from instructor.slides import write_slides

    text = "# 01 · A lesson\n\n## A part\n\nSpoken.\n\n**Predict before you run.** Which?\n\n$$x = 1$$"
    picture = nbformat.v4.new_output(
        "display_data", {"image/png": "aGk="}, metadata={"image/png": {"alt": "three dots"}}
    )
    cells = [nbformat.v4.new_markdown_cell(text), nbformat.v4.new_code_cell("import torch")]
    cells += [
        nbformat.v4.new_code_cell("draw()", outputs=[picture]),
        nbformat.v4.new_markdown_cell("## Exercises\n\n- no"),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "01_lesson.ipynb")
    page = write_slides(tmp_path / "01_lesson.ipynb", tmp_path).read_text()
    aside = re.compile(r"<aside.*?</aside>", re.DOTALL)
    shown, spoken = aside.sub("", page), "".join(aside.findall(page))
    assert "Spoken." in spoken and "Spoken." not in shown
    assert all(part in shown for part in ("Which?", "x = 1", 'alt="three dots"')) and "import torch" not in page
    assert "Exercises" not in page
