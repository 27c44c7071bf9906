"""`python -m tools.benchmark`: what the meter counts against closed forms, and the table."""

import functools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mi2v_lite import cli
from mi2v_lite.cli import guarded
from mi2v_lite.training.curriculum import Config, load_config
from tools.benchmark import Meter, benchmark, fitting, markdown, sampling_memory, speed, table
from tools.benchmark.__main__ import main
from tools.benchmark.calls import Clip, parts, sampling_calls, training_call
from tools.benchmark.meter import Resident
from tools.benchmark.speed_document import document
from tools.benchmark.turns import Pace, Worker, in_turn

LITE = Path(cli.__file__).parents[1] / "configs" / "lite.yaml"
COSTS = Path(__file__).parents[1] / "docs" / "COSTS.md"


@pytest.fixture
def smaller() -> Config:
    """The lite curriculum with yet smaller UNets: what is tested here does not depend on their size."""
    config = load_config(LITE)
    sizes = {"block_out_channels": [32, 32], "layers_per_block": 1, "attention_levels": [True, False]}
    unets = {name: config.models[name] | sizes for name in ("stage1_unet", "stage2_unet")}
    return replace(config, models=config.models | unets)


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
    config, flops = load_config(LITE), []
    for frames in (4, 8):
        call = sampling_calls(config, Clip(64, 64, frames, "meta", torch.bfloat16))[1]()
        with Meter() as meter, torch.no_grad():
            call.run()
        flops.append(meter.cost.flops)
    assert 1.95 < flops[1] / flops[0] < 2.1  # attention over time grows with the square, and is small


def test_what_a_process_holds_is_measured():
    resident = Resident()
    if resident.peak is None:
        pytest.skip("only Linux tells")
    kept = torch.ones(50 * 2**20)
    passing = torch.ones(100 * 2**20)
    del passing
    assert 4 * 140 * 2**20 < resident.peak < 4 * 180 * 2**20
    resident.restart()
    assert 4 * 45 * 2**20 < resident.peak < 4 * 90 * 2**20, "what was freed before the restart is not there"
    del kept


def test_an_update_on_a_device_trains(smaller):
    """Forward, backward, AdamW and the average, not a forward alone: weights move, frozen ones stay."""
    call = training_call(smaller, smaller.step("stage1_temporal"), Clip(32, 32, 4, "cpu", torch.float32))
    before = {name: value.clone() for name, value in call.models.named_parameters()}
    call.run()
    moved = {name for name, value in call.models.named_parameters() if not torch.equal(value, before[name])}
    trained = {name for name, value in call.models.named_parameters() if value.requires_grad}
    assert moved and moved <= trained and all("motion_modules" in name for name in moved)


def test_8_bit_moments_take_a_quarter(smaller):
    step = smaller.step("stage1_temporal")
    gib = []
    for kind in ("adamw", "8bit"):
        call = training_call(smaller, replace(step, optimizer=kind), Clip(32, 32, 4, "meta", torch.bfloat16))
        gib.append(table._counted(call, train=True)["memory_gib"])
    trained = sum(p.numel() for p in call.models.parameters() if p.requires_grad)
    assert (gib[0] - gib[1]) * 2**30 == pytest.approx(6 * trained)


def test_memory_by_option(smaller):
    config = smaller
    rows = {row["name"]: row for row in sampling_memory(config, 128, 128, card_gib=1.05)}
    assert list(rows) == list(fitting.ladder()) and len(rows) == 9
    gib = {name: row["memory_gib"] for name, row in rows.items()}
    assert gib["bf16"] < 0.6 * gib["float32"]
    for start in ("bf16", "bf16, model offload"):
        names = [name for name in gib if name.startswith(start)]
        assert all(gib[after] <= 1.02 * gib[before] for before, after in zip(names[:-1], names[1:], strict=True))
    assert all(gib[name.replace("bf16", "bf16, model offload")] < gib[name] for name in list(gib)[1:5])
    assert [row["fits"] for row in rows.values()] == [value + fitting.LEFT_FREE <= 1.05 for value in gib.values()]
    assert {row["fits"] for row in rows.values()} == {True, False}
    # By hand: all weights, the flow autoencoder's in 4 bytes, and the worst call's own.
    weights = sum(count * (4 if part == "flow_vae" else 2) for part, count in parts(config).items())
    peaks = []
    for index in (0, 1):
        call = sampling_calls(config, Clip(128, 128, 16, "meta", torch.bfloat16))[index]()
        with Meter() as meter, torch.no_grad():
            call.run()
        peaks.append(meter.cost.peak)
    assert gib["bf16, VAE slicing"] == pytest.approx((weights + max(peaks)) / 2**30)


@pytest.fixture
def few(monkeypatch, smaller):
    """Two steps of the curriculum in place of whichever config is asked for."""
    config = replace(smaller, steps=(smaller.step("flow_vae"), smaller.step("stage1_single")))
    monkeypatch.setattr("mi2v_lite.training.curriculum.load_config", lambda path: config)
    return config


WORDS = ["--scale", "lite", "--height", "64", "--width", "64", "--frames", "4"]


def test_command_line(tmp_path, capsys, few):
    written = tmp_path / "report.json"
    main([*WORDS, "-o", str(written), "--what", "train", "--tflops", "2"])
    report = json.loads(written.read_text())
    assert [row["name"] for row in report["rows"]] == ["flow_vae", "stage1_single"]
    for row in report["rows"]:
        assert row["time"] == row["memory"] == "estimated" and row["seconds"] == pytest.approx(row["tflop"] / 2)
    assert "stage1_single" in capsys.readouterr().out
    main([*WORDS, "-o", str(written)])
    assert [row["name"] for row in json.loads(written.read_text())["options"]] == list(fitting.ladder())
    said = capsys.readouterr().out
    assert "| bf16, model offload, VAE slicing |" in said and "| one clip |" in said
    with pytest.raises(ValueError, match="expected one of"):
        benchmark(few, "rest", 64, 64)
    assert "| - |" in markdown({**report, "rows": [{**report["rows"][0], "seconds": None, "time": "unknown"}]})
    with pytest.raises(ValueError, match="ends in .md"):
        main([*WORDS, "-o", str(written), "--what", "all"])


@pytest.mark.parametrize(
    "words, said",
    [
        ("--device banana", "--device banana cannot be used here"),
        ("--device meta", "--device meta cannot be used here"),
        ("--config none.yaml", "none.yaml: No such file"),
        ("--config .", "Is a directory"),
        ("-o .", "the output . is a folder"),
        ("--config report.json -o report.json", "is an input"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, capsys, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    assert guarded(lambda: main([*WORDS, *words.split()])) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mi2v: error: ") and said in line and not list(tmp_path.iterdir())


def test_the_document_says_what_was_run(tmp_path, capsys, few, monkeypatch):
    monkeypatch.setattr("tools.benchmark.document.CPU_SIDE", 32)
    main([*WORDS, "--what", "all", "--device", "cpu", "-o", str(tmp_path / "COSTS.md")])
    text = (tmp_path / "COSTS.md").read_text()
    assert text.rstrip() in capsys.readouterr().out
    for part in ("## Sampling", "## An update of each training", "## Measured at 32x32", "Not run: anything on a GPU"):
        assert part in text
    assert f"run on: {table.device_name('cpu')}" in text and few.steps[1].name in text
    line = next(line for line in text.split("## Measured")[1].splitlines() if line.startswith("| Stage 2, a step"))
    assert not line.rstrip(" |").endswith("*"), "the time was measured"


def test_the_committed_table_is_that_of_this_code():
    """Counts do not depend on a machine: those of the committed table must be today's."""
    config, text = load_config(LITE.with_name("full.yaml")), COSTS.read_text()
    total = sum(parts(config).values())
    assert f"{total / 1e6:.1f} M parameters" in text and "Not run: anything on a GPU" in text
    call = sampling_calls(config, Clip(320, 512, 16, "meta", torch.bfloat16))[1]()
    with Meter() as meter, torch.no_grad():
        call.run()
    memory = (2 * parts(config)["animation_unet"] + meter.cost.peak) / 2**30
    assert f"| Stage 2, a step | 25 | {meter.cost.flops / 1e12:.3g} | {memory:.2f}* |" in text
    for step in config.steps:
        assert f"| {step.name} | 1 |" in text
    for name in fitting.ladder():
        assert f"| {name} |" in text


class Here(Worker):
    """A worker in this process: that processes start and answer is tested by itself."""

    def __init__(self, make):
        self.run = make()

    def __call__(self):
        self.run()
        return 1.0

    def close(self):
        return 0.5


def test_every_part_of_the_speed_runs_and_the_document_says_what_was_missed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(speed, "Worker", Here)
    said = {"-m": "wrote clip.mp4\nloading 1.0 s, sampling 3.5 s, writing 0.1 s\n", "-c": "0.25\n"}
    monkeypatch.setattr(speed, "_python", lambda *words: said[words[0]])
    written = tmp_path / "performance.md"
    main(["--what", "speed", "--quick", "-o", str(written)])
    report = json.loads(written.with_suffix(".json").read_text())
    assert {task["name"]: task["error"] for task in report["tasks"] if task["state"] != "done"} == {}
    text = written.read_text()
    assert text.rstrip() in capsys.readouterr().out and "these figures mean nothing" in text
    for part in ("What was asked", "What was missed", "Cost against", "Roofline", "did not pay", "How long it took"):
        assert part in text
    # The stand-ins are equally fast and large.
    assert "bf16: 1x where at least 3.5x was asked for" in text and "1x where at most 0.6x was asked for" in text
    assert "3.5 s where" not in text and "| at most 0.3 s | 0.25 s |" in text
    failed = {**report["tasks"][0], "state": "failed", "error": "it broke", "rows": []}
    assert "`splat` was not measured: it broke" in document({**report, "tasks": [failed]})
    with pytest.raises(ValueError, match="--only rest: expected some of splat"):
        main(["--what", "speed", "--quick", "--only", "rest"])


def test_the_plain_form_computes_the_same():
    size = speed.toy_size()
    outputs = []
    for plainly in (False, True):
        torch.manual_seed(0)
        with torch.no_grad():
            outputs.append(speed.network(size, "stage2_unet", torch.float32, plainly)())
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


def test_diffusers_network_is_of_the_same_size():
    config = load_config(LITE.with_name("full.yaml"))
    ours, other = (speed._shell(config, name) for name in ("stage2_unet", "diffusers"))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in other.parameters())


def test_computations_take_turns_and_one_has_its_own_process():
    calls = []
    worker = Worker(functools.partial(functools.partial, sum, [1, 2]))
    pace = Pace(rounds=2, seconds=0.0, call=0.0)
    rounds = in_turn(pace, lambda: calls.append("a"), worker, lambda: calls.append("b"))
    assert calls == ["a", "b"] * 3 and len(rounds) == 2 and all(min(times) >= 0 for times in rounds)
    peak = worker.close()
    assert peak is None or 0.05 < peak < 5


def test_a_straight_line():
    slope, fixed = speed.fitted(np.array([1.0, 2.0, 4.0]), np.array([5.0, 7.0, 11.0]))
    assert (slope, fixed) == (pytest.approx(2), pytest.approx(3))
