"""`python -m tools.gpu` without a GPU: the same lines at a small size, and the row of tasks."""

import json

import pytest
import torch

from tools.gpu import check
from tools.gpu.__main__ import main
from tools.gpu.tasks import Task, run_tasks, table

NO_NEED = pytest.mark.skipif(torch.cuda.is_available(), reason="where there is a GPU the check itself runs")


def fail():
    raise ValueError("it broke")


def test_tasks_stop_before_the_limit_and_a_failure_does_not_stop_the_others(tmp_path, capsys):
    now = iter(range(0, 1000, 10))
    tasks = [
        Task("short", 5, lambda: [{"what": "a", "seconds": 0.12345}]),
        Task("broken", 5, fail),
        Task("long", 500, lambda: [{"what": "never"}]),
        Task("short again", 5, lambda: [{"what": "b"}]),
    ]
    assert not run_tasks(tasks, 200, tmp_path / "out.json", {"device": "none"}, clock=lambda: next(now))
    written = json.loads((tmp_path / "out.json").read_text())
    assert [record["state"] for record in written["tasks"]] == ["done", "failed", "left out", "done"]
    text = table(written["tasks"])
    assert "| short | a | 0.1235 |" in text and "broken: failed: ValueError: it broke" in text and "never" not in text


@NO_NEED
def test_without_a_gpu_it_says_so(tmp_path, capsys):
    assert main(["check", "--out", str(tmp_path / "none")]) == 2
    assert "--toy" in capsys.readouterr().err and not (tmp_path / "none").exists()


@NO_NEED
def test_the_dry_run_does_every_task(tmp_path, monkeypatch):
    # The tests on the device run in this very suite; here only that they would be asked for.
    asked = []
    monkeypatch.setattr(check, "device_tests", lambda toy: asked.append(toy) or [{"what": "tests"}])
    monkeypatch.setattr(check, "timed", lambda run, device, least=0.0: (run(), (0.5, 0.0))[1])
    assert main(["check", "--toy", "--out", str(tmp_path), "--limit", "100000"]) == 0
    written = json.loads((tmp_path / "check.json").read_text())
    assert asked == [True] and {record["state"] for record in written["tasks"]} == {"done"}
    assert len(written["tasks"]) == len(check.tasks("cpu", toy=True)) and (tmp_path / "check.md").is_file()
