"""`python -m tools.gpu` without a GPU: the same lines at a small size, and the row of tasks."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from test_world_training import fill

from tools.gpu import check, train
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
def test_the_recipe_has_time_for_each_step_and_its_clips_but_for_stores_that_were_not_carried(tmp_path):
    config = train.recipe(tmp_path, toy=False)
    assert set(train.SHARES) == {step.name for step in config.steps}
    assert config.step("stage1_pans").data.mixed == ("world",)
    assert config.step("stage1_simple").data.mixed == ("world/cameras", "world/solos")
    assert len(config.step("stage1_single").data.mixed) == 4
    (tmp_path / "stores" / "film").mkdir(parents=True)
    assert "stores/film" in train.recipe(tmp_path, toy=False).step("stage1_single").data.mixed


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


@NO_NEED
def test_the_recipe_trains_within_its_minutes_and_a_second_call_goes_on(tmp_path, monkeypatch):
    fill(tmp_path / "runs")
    words = [f"--{name}={tmp_path / 'runs' / name}" for name in ("photos", "things")]
    assert main(["carry", *words, f"--out={tmp_path / 'carried'}"]) == 0
    assert not (tmp_path / "carried" / "stores").exists(), "the film does not travel"
    monkeypatch.setattr(train, "TRIED", (1, 2))
    monkeypatch.setattr(train, "_updates", tried(train._updates))
    lite = train.recipe
    monkeypatch.setattr(train, "recipe", lambda *args: shorter(lite(*args)))
    words = ["train", "--toy", f"--data={tmp_path / 'carried'}", f"--runs={tmp_path / 'gpu'}", f"--out={tmp_path}"]
    assert main([*words, "--minutes", "0"]) == 1, "the time is over in the first step"
    plan = json.loads((tmp_path / "gpu" / "plan.json").read_text())
    assert list(plan) == ["image_vae"] and not list(tmp_path.glob("*.safetensors"))
    assert main([*words, "--minutes", "10"]) == 0
    after = json.loads((tmp_path / "gpu" / "plan.json").read_text())
    assert after["image_vae"] == plan["image_vae"] and len(after) == 3
    written = json.loads((tmp_path / "train.json").read_text())
    assert [record["state"] for record in written["tasks"]] == ["done"] * 3
    weights = {path.stem for path in tmp_path.glob("*.safetensors")}
    assert weights == {"image_vae", "flow_vae", "start_unet", "text_encoder"}
    assert main(["unpack", str(tmp_path), f"--runs={tmp_path / 'back'}"]) == 0
    for path in (tmp_path / "gpu").glob("*/final/*/*.safetensors"):
        there = load_file(tmp_path / "back" / path.relative_to(tmp_path / "gpu"))
        for name, value in load_file(path).items():
            torch.testing.assert_close(there[name], value, atol=1e-3, rtol=1e-3)


def tried(updates):
    """Measures as it is, and says four updates."""
    return lambda *args: min(updates(*args), 4)


def shorter(config):
    """The first three steps, with a row of the log for each update."""
    return replace(config, steps=tuple(replace(step, log_every=1) for step in config.steps[:3]))
