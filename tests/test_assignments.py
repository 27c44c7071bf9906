"""The graded assignments: made from the notebooks, handed out, collected, marked apart from the answers, returned."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from course import BEGIN, notebooks
from instructor import assignments, hidden_tests, judge

STUB = "    # YOUR CODE HERE\n    raise NotImplementedError()"


def solutions(book: nbformat.NotebookNode) -> dict[str, str]:
    return {c.metadata.nbgrader.grade_id: c.source for c in book.cells if BEGIN in c.source}


@pytest.mark.parametrize("path", notebooks(), ids=lambda path: path.stem)
def test_an_assignment_needs_nothing_of_the_lesson(path, monkeypatch, capsys):
    """Its imports, solutions and checks run by themselves, hidden tests too: what they use is imported."""
    book = assignments.assignment(nbformat.read(path, as_version=4), set(hidden_tests.INPUTS))
    code, space = [cell for cell in book.cells if cell.cell_type == "code"], {}
    monkeypatch.setitem(sys.modules, "hidden_tests", hidden_tests)
    monkeypatch.setattr(hidden_tests, "reference", lambda name: space[name])
    for cell in code:
        exec(cell.source, space)
    checked = [cell for cell in code if cell.metadata.nbgrader.grade and not cell.metadata.nbgrader.solution]
    assert capsys.readouterr().out.count("Correct.") == len(checked) >= 2
    written = re.findall(r"^def (\w+)\(", "\n".join(solutions(book).values()), re.MULTILINE)
    tests = "".join(cell.source for cell in checked)
    closed = [name for name in written if name not in hidden_tests.OPEN]
    lacking = [name for name in closed if f'agrees({name}, "{name}")' not in tests]
    assert not lacking, f"give {lacking} inputs in notebooks/instructor/hidden_tests.py"


def test_hidden_tests_compare_what_answers_return():
    equal, conv = hidden_tests.equal, judge.torch.nn.Conv2d
    assert equal([(0, 1)], ((0, 1),)) and equal(judge.torch.tensor(1.0), 1) and equal(range(3), [0, 1, 2])
    assert not equal([1.0, 2.0], [1.0, 2.1]) and not equal([1.0], [1.0, 2.0]) and not equal("a", 1.0)
    layer, other = conv(1, 2, 3), conv(1, 2, 3)
    assert equal(layer, layer) and not equal(other, layer) and not equal(3, layer)


def test_the_judge_gives_each_answer_its_own_process():
    """What an answer prints, replaces, ends or never ends reaches neither the tests nor the other answers."""
    cells = [
        "def right(x):\n    return 2 * x",
        "import time\ndef slow(x):\n    time.sleep(60)",
        "import os\ndef leaves(x):\n    os._exit(0)",
        "class Yes:\n    def __eq__(self, other):\n        return True\ndef agreeable(x):\n    return Yes()",
        "def changes(x):\n    x += 1\n    return x",
        "raise SystemExit",
        "import builtins, torch\nbuiltins.AssertionError = torch.allclose = None\ndef late(x):\n    return x",
    ]
    torch = judge.torch
    with judge.Student(cells, seconds=2) as student:

        def call(name: str, value: object = 3) -> object:
            return judge.Remote(student, name)(value)

        assert call("right") == 6
        for name, why in (
            ("slow", "longer than 2"),
            ("leaves", "ended Python"),
            ("agreeable", "cannot be read|raised"),
        ):
            with pytest.raises(judge.AnswerFailed, match=why):
                call(name)
        value = torch.zeros(2)
        assert call("changes", value).tolist() == value.tolist() == [1, 1], "a changed argument is seen"
        assert call("late") == 3 and torch.allclose(value, torch.ones(2)) and AssertionError
        with pytest.raises(judge.AnswerFailed, match="no function nowhere"):
            call("nowhere")


CHEAT = """
import builtins, sys, torch
from mi2v_checks import base, nb01
import mi2v_checks
for name in dir(nb01):
    if callable(getattr(nb01, name)) and not name.startswith("_"):
        setattr(nb01, name, lambda answer: print("Correct. All of it."))
base.require = lambda condition, message: None
torch.allclose = lambda *a, **k: True
sys.modules["hidden_tests"] = type(sys)("hidden_tests")
sys.modules["hidden_tests"].agrees = lambda *a: None
class Anything:
    def __reduce__(self): return exec, ("import mi2v_checks.base; mi2v_checks.base.same = lambda *a: True",)
    def __getattr__(self, name): return Anything()
    def __call__(self, *a, **k): return Anything()
    def __eq__(self, other): return True
    def __bool__(self): return True
"""


def submission(released: nbformat.NotebookNode, solved: dict[str, str], kind: str) -> nbformat.NotebookNode:
    """What a student hands in: a right, a wrong, a half-right one, or one that tries to cheat."""
    book = nbformat.reads(nbformat.writes(released), as_version=4)
    answers = [cell for cell in book.cells if cell.metadata.get("nbgrader", {}).get("solution")]
    for number, cell in enumerate(answers):
        name = cell.source.split("def ")[1].split("(")[0]
        right = kind == "right" or (kind == "half" and number % 2 == 0)
        if right:
            cell.source = solved[cell.metadata.nbgrader.grade_id]
        elif kind == "wrong":
            cell.source = cell.source.replace("raise NotImplementedError()", "return 0.0")
        elif kind == "cheat":
            cell.source = CHEAT + f"def {name}(*arguments):\n    return Anything()"
    if kind == "cheat":
        tests = [cell for cell in book.cells if cell.metadata.get("nbgrader", {}).get("grade")]
        tests[0].source = "print('Correct. I said so.')"
        tests[1].metadata.nbgrader.update(points=100, locked=False)
        book.cells.remove(tests[2])
    return book


def test_release_collect_autograde_feedback(tmp_path):
    """An instructor's round with four submissions, as notebooks/instructor/README.md describes it."""
    (lesson,) = notebooks(["01"])
    assert assignments.write_course([lesson], tmp_path, seed=7) == ["nb01"]
    assert "SEED = 7" in (tmp_path / "hidden_tests.py").read_text()

    def nbgrader(*words: str) -> None:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # it calls alembic
        done = subprocess.run(
            [sys.executable, "-m", "nbgrader", *words],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=900,  # seconds; half a minute where nothing else runs
        )
        assert done.returncode == 0, done.stderr[-3000:]

    nbgrader("generate_assignment", "nb01")
    released = nbformat.read(tmp_path / "release" / "nb01" / lesson.name, as_version=4)
    text = nbformat.writes(released)
    assert "NotImplementedError" in text and "HIDDEN" not in text and "agrees" not in text and "SOLUTION" not in text
    solved = solutions(nbformat.read(tmp_path / "source" / "nb01" / lesson.name, as_version=4))
    incoming = tmp_path / "downloaded" / "nb01" / "archive"
    incoming.mkdir(parents=True)
    kinds = ("right", "wrong", "half", "cheat")
    for kind in kinds:
        nbformat.write(submission(released, solved, kind), incoming / f"{kind}_{lesson.name}")
    nbgrader("zip_collect", "nb01")
    nbgrader("autograde", "nb01")
    nbgrader("generate_feedback", "nb01")

    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{tmp_path / 'gradebook.db'}") as gradebook:
        marks = {kind: gradebook.find_submission("nb01", kind) for kind in kinds}
        scores, full = {kind: mark.score for kind, mark in marks.items()}, marks["right"].max_score
    assert scores["right"] == full > 0 and scores["wrong"] == scores["cheat"] == 0
    assert 0.3 * full < scores["half"] < 0.8 * full
    pages = {kind: (tmp_path / "feedback" / kind / "nb01" / f"{lesson.stem}.html").read_text() for kind in kinds}
    assert "Expected the shape" in pages["wrong"] and "agrees(" not in "".join(pages.values())
