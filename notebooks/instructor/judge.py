"""Marks submissions where they cannot reach the tests: the student's code runs in a process of its own.

nbgrader runs a test in the kernel that also runs the answer. There an answer can replace the check, the comparison that
the check calls, or print what a pass prints. `Judge` takes the place of that step. The cells of the submission run in a
second process (answers.py), which has no tests. Tests run here; to them an answer is a `Remote`, a function whose calls
travel to the second process, and what comes back can only be plain values: numbers, texts, lists, tensors, layers.

What this does not stop: the second process is no sandbox, and may read files and use the network as you may. Mark
submissions that you do not trust in a container of their own.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import io
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from typing import Any

import nbformat
import torch
from nbgrader.api import Gradebook
from nbgrader.preprocessors import NbGraderPreprocessor
from torch import Tensor, nn
from traitlets import Float

try:
    from . import answers
except ImportError:  # in a course directory
    import answers

# The layers that may come back as an answer. Their classes are read from the message by torch, which takes no others.
LAYERS = [nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.Sequential, nn.Identity]


class AnswerFailed(Exception):
    """The answer raised an error, took too long, or gave something that cannot be read."""


class Student:
    """The process that runs a submission.

    Args:
        cells: the sources of its code cells, in order; the tests are not among them.
        seconds: how long a cell, or one call of an answer, may take.
    """

    def __init__(self, cells: list[str], seconds: float) -> None:
        self.cells, self.seconds = list(cells), seconds
        self.process: subprocess.Popen | None = None
        self.folder = tempfile.TemporaryDirectory()

    def __enter__(self) -> Student:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.folder.cleanup()

    def stop(self) -> None:
        """Ends the process and what it has started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def start(self) -> None:
        """Starts the process and runs the cells. A cell that takes too long is left out from then on."""
        kept = []
        for cell in self.cells:
            if self.process is None:
                self._launch(kept)
            try:
                self._ask("run", cell)
            except AnswerFailed:
                if self.process is None:  # it hung, or it ended the process
                    continue
            kept.append(cell)
        self.cells = kept
        if self.process is None:
            self._launch(kept)

    def _launch(self, cells: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, answers.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.folder.name,
            start_new_session=True,
        )
        self._receive(120)  # until it has imported torch
        for cell in cells:
            with contextlib.suppress(AnswerFailed):
                self._ask("run", cell)

    def call(self, name: str, arguments: tuple) -> Any:
        """Calls a function of the submission.

        Args:
            name: of the function.
            arguments: for it; a tensor that the function changes is changed here, too.

        Returns:
            what the function returned.

        Raises:
            AnswerFailed: if it raised an error, took too long, or returned something that is no plain value.
        """
        if self.process is None:
            self.start()
        result, after = self._ask("call", name, [_portable(value) for value in arguments])
        for mine, theirs in zip(arguments, after, strict=True):
            if isinstance(mine, Tensor) and mine.shape == theirs.shape and not torch.equal(mine, theirs):
                with torch.no_grad():
                    mine.copy_(theirs)
        return result

    def _ask(self, *message: Any) -> Any:
        try:
            answers.send(self.process.stdin, pickle.dumps(message))
        except OSError:
            self.stop()
            raise AnswerFailed("the answer ended Python.") from None
        good, value = self._receive(self.seconds)
        if not good:
            raise AnswerFailed(str(value))
        return value

    def _receive(self, seconds: float) -> Any:
        """The next message. torch.load with weights_only builds plain values only, whatever the bytes say."""
        try:
            data = answers.receive(self.process.stdout, seconds)
            with torch.serialization.safe_globals(LAYERS):
                return torch.load(io.BytesIO(data), weights_only=True)
        except TimeoutError:
            self.stop()
            raise AnswerFailed(f"the answer took longer than {seconds:.0f} seconds.") from None
        except EOFError:
            self.stop()
            raise AnswerFailed("the answer ended Python.") from None
        except Exception as error:  # whatever unreadable bytes lead to
            self.stop()
            raise AnswerFailed(f"the answer gave something that cannot be read ({type(error).__name__}).") from None


class Remote:
    """A function of the submission, as the tests see it."""

    def __init__(self, student: Student, name: str) -> None:
        self._student, self.__name__ = student, name

    def __call__(self, *arguments: Any) -> Any:
        return self._student.call(self.__name__, arguments)


class Judge(NbGraderPreprocessor):
    """Takes the place of nbgrader's `Execute` when a submission is marked. It reads all tests from the gradebook."""

    seconds = Float(60, help="How long a cell, or one call of an answer, may take.").tag(config=True)

    def preprocess(self, nb, resources):
        about = resources["nbgrader"]
        with Gradebook(about["db_url"]) as gradebook:
            notebook = gradebook.find_notebook(about["notebook"], about["assignment"])
            locked = {cell.name: cell.source for cell in notebook.source_cells if cell.locked}
            tests = {cell.name: locked[cell.name] for cell in notebook.grade_cells if cell.name in locked}
        given: dict[str, Any] = {}
        for name in locked.keys() - tests.keys():  # the imports that the course gives
            exec(locked[name], given)
        cells = [(cell, cell.metadata.get("nbgrader", {}).get("grade_id")) for cell in nb.cells if "outputs" in cell]
        with Student([cell.source for cell, name in cells if name not in tests], self.seconds) as student:
            for cell, name in cells:
                cell.outputs, cell.execution_count = [], None
                if name in tests:
                    cell.source, cell.outputs = tests[name], [_verdict(tests[name], given, student)]
        return nb, resources


def _verdict(test: str, given: dict[str, Any], student: Student) -> dict:
    """Runs one test and returns the output of its cell: what it printed, or the error."""
    names = {node.id for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Name)}
    remote = {name: Remote(student, name) for name in names if name not in given and not hasattr(builtins, name)}
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(test, {**given, **remote})
    except Exception as error:
        kind = type(error).__name__
        return nbformat.v4.new_output("error", ename=kind, evalue=str(error), traceback=[f"{kind}: {error}"])
    return nbformat.v4.new_output("stream", name="stdout", text=printed.getvalue())


def _portable(value: Any) -> Any:
    """Arguments as they can travel: an iterator is written out."""
    return list(value) if hasattr(value, "__next__") or isinstance(value, (map, filter)) else value
