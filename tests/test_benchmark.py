"""`mi2v benchmark`: what the meter counts against closed forms, and the table."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from mi2v_lite import cli
from mi2v_lite.benchmark import Meter, benchmark, markdown
from mi2v_lite.benchmark.calls import Clip, training_call
from mi2v_lite.training.curriculum import load_config

LITE = Path(cli.__file__).parents[1] / "configs" / "lite.yaml"


def test_a_product_and_what_it_holds():
    x, weight = torch.empty(8, 16, device="meta"), torch.empty(32, 16, device="meta")
    with Meter() as meter:
        y = x @ weight.T
        z = y + 1
        del y
        w = z * 2
        v = w.view(-1)  # a view holds nothing more
    assert meter.cost.flops == 2 * 8 * 16 * 32
    assert meter.cost.peak == 2 * 8 * 32 * 4  # never more than two of them at once
    del z, v


@pytest.mark.parametrize("backward", [False, True])
def test_attention_is_counted_and_never_holds_its_matrix(backward):
    q, k, v = (torch.empty(2, 4, length, 16, device="meta", requires_grad=backward) for length in (1000, 3000, 3000))
    plain = F.scaled_dot_product_attention
    with Meter() as meter:
        out = F.scaled_dot_product_attention(q, k, v)
        if backward:
            out.sum().backward()
    forward = 4 * 2 * 4 * 1000 * 3000 * 16
    assert meter.cost.flops == (3.5 * forward if backward else forward)
    assert meter.cost.peak < 2 * 4 * 1000 * 3000 * 4 / 2
    assert F.scaled_dot_product_attention is plain


def test_checkpointing_trades_memory_for_operations():
    config = load_config(LITE)
    step = config.step("stage2")
    costs = []
    for checkpointing in (False, True):
        clip = Clip(128, 128, 16, "meta", torch.bfloat16)
        call = training_call(config, type(step)(**{**vars(step), "gradient_checkpointing": checkpointing}), clip)
        with Meter() as meter:
            call.run()
        costs.append(meter.cost)
    assert costs[1].peak < 0.6 * costs[0].peak
    assert 1.1 * costs[0].flops < costs[1].flops < 1.5 * costs[0].flops


def test_twice_the_frames_cost_twice():
    config = load_config(LITE)
    few, many = (benchmark(config, "sample", 64, 64, frames)["rows"][1]["tflop"] for frames in (4, 8))
    assert 1.95 < many / few < 2.1  # attention over time grows with the square, and is small


def test_command_line(tmp_path, capsys):
    words = ["benchmark", "--scale", "lite", "--height", "64", "--width", "64", "-o", str(tmp_path / "report.json")]
    assert cli.main([*words, "--what", "train", "--tflops", "2"]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    steps = [step.name for step in load_config(LITE).steps if "vae" not in step.name]
    assert [row["name"] for row in report["rows"]] == steps
    for row in report["rows"]:
        assert row["time"] == row["memory"] == "estimated" and row["seconds"] == pytest.approx(row["tflop"] / 2)
    assert "stage1_full" in capsys.readouterr().out
    assert cli.main([*words[:7], "--frames", "4", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if line.startswith("| Stage 2, a step"))
    assert not line.rstrip(" |").endswith("*")  # the time was measured
    with pytest.raises(ValueError, match="expected one of"):
        benchmark(load_config(LITE), "rest", 64, 64)
    assert "| - |" in markdown({**report, "rows": [{**report["rows"][0], "seconds": None, "time": "unknown"}]})
