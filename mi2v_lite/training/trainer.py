"""One loop for every step of the curriculum, on Accelerate (notebooks 01 to 04 train with it).

    python -m mi2v_lite.training.trainer CONFIG --step NAME [--runs runs] [--resume]

Update k of a step is a pure function of the step's seed and k: every sample's data and noise are drawn from generators
seeded by them and by the sample's place in the batch of all processes. So a training that was interrupted and resumed
repeats an uninterrupted one, and two processes train as one with the double batch does.
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from mi2v_lite.training.batches import Draws
from mi2v_lite.training.builders import build_models
from mi2v_lite.training.curriculum import Config, Step, load_config
from mi2v_lite.training.objectives import OBJECTIVES

KEEP_CHECKPOINTS = 2


class _Objective(nn.Module):
    """The models and their objective as one module, so that `forward` is what autocast and DDP wrap."""

    def __init__(self, models: nn.ModuleDict, objective: object, step: Step) -> None:
        super().__init__()
        self.models = models
        self.objective, self.step = objective, step

    def forward(self, batch: dict[str, Tensor], draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        with self.autocast():
            return self.objective.loss(self.models, batch, draws, self.step)

    def validate(self) -> dict[str, float]:
        """Figures on held-out data at the step's precision."""
        with self.autocast():
            return self.objective.validate(self.models, self.step)

    def autocast(self) -> torch.autocast:
        """bfloat16 where the step asks for it, on any device."""
        device = next(self.models.parameters()).device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.step.precision == "bf16")


class Ema:
    """Exponential moving average of named parameters in float32, with the usual warm-up (1 + k) / (10 + k)."""

    def __init__(self, parameters: dict[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.shadow = {name: value.detach().float().clone() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: dict[str, Tensor], k: int) -> None:
        """Moves the average towards `parameters` after update `k`."""
        rate = 1 - min(self.decay, (1 + k) / (10 + k))
        current = [parameters[name].detach().float() for name in self.shadow]
        torch._foreach_lerp_(list(self.shadow.values()), current, rate)

    @contextmanager
    def applied(self, parameters: dict[str, Tensor]) -> Iterator[None]:
        """Within the context the parameters hold the average."""
        kept = {name: value.detach().clone() for name, value in parameters.items()}
        _copy(self.shadow, parameters)
        try:
            yield
        finally:
            _copy(kept, parameters)


def trainable_parameters(models: nn.ModuleDict, patterns: tuple[str, ...]) -> dict[str, nn.Parameter]:
    """Sets `requires_grad` by the patterns over `<model>.<parameter>` and returns what trains.

    Raises:
        ValueError: if a pattern matches no parameter.
    """
    chosen: dict[str, nn.Parameter] = {}
    named = dict(models.named_parameters())
    for pattern in patterns:
        matched = fnmatch.filter(named, pattern)
        if not matched:
            raise ValueError(f"The pattern {pattern!r} matches no parameter; one is called {next(iter(named))!r}.")
        chosen.update({name: named[name] for name in matched})
    for name, parameter in named.items():
        parameter.requires_grad_(name in chosen)
    return {name: parameter for name, parameter in named.items() if name in chosen}


def train(
    config: Config, name: str, runs: str | Path = "runs", resume: bool = False, stop_at: int | None = None
) -> Path:
    """Trains one step and writes `runs/<step>/`: `log.csv`, `checkpoint-<n>/`, `final/<model>/`.

    Args:
        config: the curriculum.
        name: the step to train.
        runs: holds the data and the results of the steps.
        resume: go on from the newest checkpoint, if there is one.
        stop_at: leave after this many updates with a checkpoint, without `final` (the tests interrupt with it).

    Returns:
        the folder `final`, or the last checkpoint where `stop_at` ended the run.

    Raises:
        ValueError: for a step, model, folder or pattern that does not exist, or a checkpoint of another config.
    """
    step, runs = config.step(name), Path(runs)
    folder = runs / step.name
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(
        mixed_precision="no",  # autocast is ours: Accelerate's cannot change between the steps of one process
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    torch.manual_seed(step.seed)  # the start of what is built anew
    models = build_models(config, step, runs)
    parameters = trainable_parameters(models, step.trainable)
    with accelerator.main_process_first():  # it encodes the latents that are not there yet
        objective = OBJECTIVES[step.objective](config, step, runs, models)
    if step.channels_last:
        models.to(memory_format=torch.channels_last)
    for key, model in models.items():
        model.train(any(parameter.startswith(f"{key}.") for parameter in parameters))
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=step.learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=step.weight_decay
    )
    module, optimizer = accelerator.prepare(_Objective(models, objective, step), optimizer)
    ema = Ema(parameters, step.ema_decay)
    first = _restore(folder, step, parameters, optimizer, ema) if resume else 0
    last = min(step.steps, stop_at or step.steps)
    log = _Log(folder / "log.csv", first) if accelerator.is_main_process else None
    bar = tqdm(
        total=step.steps, initial=first, desc=step.name, disable=not accelerator.is_main_process, mininterval=5.0
    )
    started = time.perf_counter()
    for k in range(first, last):
        for group in optimizer.param_groups:
            group["lr"] = step.learning_rate_at(k)
        loss, logs = _update(accelerator, module, optimizer, objective, parameters, step, k)
        ema.update(parameters, k)
        done = k + 1
        bar.update()
        if log and (done % step.log_every == 0 or done == last):
            seconds = (time.perf_counter() - started) / (done - first)
            values = {key: float(value.detach()) for key, value in logs.items()}
            log.write({"step": done, "loss": float(loss), "lr": step.learning_rate_at(k), "seconds": seconds, **values})
            bar.set_postfix(loss=f"{float(loss):.4f}", s=f"{seconds:.2f}")
        if step.validate_every and (done % step.validate_every == 0 or done == step.steps) and log:
            with ema.applied(parameters):
                values = accelerator.unwrap_model(module).validate()
            bar.write(f"{step.name} {done}: " + ", ".join(f"{key} {value:.4f}" for key, value in values.items()))
            log.write({"step": done, **values})
        if log and (done % step.checkpoint_every == 0 or done == last):
            saved = _checkpoint(folder, step, done, parameters, optimizer, ema)
    bar.close()
    if last < step.steps:
        return saved
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        with ema.applied(parameters):
            objective.finish(models, step)
            _final(folder, step, models, parameters)
    return folder / "final"


def _update(
    accelerator: Accelerator,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    objective: object,
    parameters: dict[str, Tensor],
    step: Step,
    k: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    total = 0.0
    for micro in range(step.accumulation):
        key, place = (step.seed, k, micro), (accelerator.process_index, accelerator.num_processes)
        batch = objective.batch(step, _draws(step, *key, 0, *place))
        batch = {name: value.to(accelerator.device) for name, value in batch.items()}
        loss, logs = module(batch, _draws(step, *key, 1, *place))
        accelerator.backward(loss / step.accumulation)
        total = total + loss.detach() / step.accumulation
    total = accelerator.reduce(total, "mean")
    if not torch.isfinite(total):
        raise ValueError(f"Step {step.name}: the loss of update {k} is {float(total)}; lower the learning rate.")
    norm = accelerator.clip_grad_norm_(parameters.values(), step.grad_clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, {"grad_norm": norm, **logs}


def _draws(step: Step, *key_and_place: int) -> Draws:
    *key, rank, processes = key_and_place
    return Draws.of(*key, count=step.batch_size, rank=rank, processes=processes)


def _checkpoint(
    folder: Path, step: Step, done: int, parameters: dict[str, Tensor], optimizer: torch.optim.Optimizer, ema: Ema
) -> Path:
    """Writes a checkpoint under another name first: a folder `checkpoint-<n>` is always whole."""
    target, partial = folder / f"checkpoint-{done}", folder / f"partial-{done}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for file, tensors in (("weights", parameters), ("ema", ema.shadow)):
        packed = {name: value.detach().contiguous() for name, value in tensors.items()}
        save_file(packed, partial / f"{file}.safetensors")
    torch.save(optimizer.state_dict(), partial / "optimizer.pt")
    (partial / "step.json").write_text(json.dumps({"step": step.name, "done": done, "seed": step.seed}))
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
    for old in _checkpoints(folder)[:-KEEP_CHECKPOINTS]:
        shutil.rmtree(old)
    return target


def _restore(
    folder: Path, step: Step, parameters: dict[str, Tensor], optimizer: torch.optim.Optimizer, ema: Ema
) -> int:
    """Loads the newest checkpoint; returns how many updates it holds, 0 if there is none."""
    found = _checkpoints(folder)
    if not found:
        return 0
    newest = found[-1]
    state = json.loads((newest / "step.json").read_text())
    weights = load_file(newest / "weights.safetensors")
    if state["seed"] != step.seed or weights.keys() != parameters.keys():
        raise ValueError(f"{newest} belongs to another config of step {step.name}: remove it, or train without resume.")
    _copy(weights, parameters)
    _copy(load_file(newest / "ema.safetensors"), ema.shadow)
    optimizer.load_state_dict(torch.load(newest / "optimizer.pt", weights_only=True, map_location="cpu"))
    return int(state["done"])


def _final(folder: Path, step: Step, models: nn.ModuleDict, parameters: dict[str, Tensor]) -> None:
    """Writes every model that trained, as float32 safetensors with its config.json."""
    partial = folder / "partial-final"
    shutil.rmtree(partial, ignore_errors=True)
    for key, model in models.items():
        if any(name.startswith(f"{key}.") for name in parameters):
            model.to(memory_format=torch.contiguous_format).save_pretrained(partial / key)
    shutil.rmtree(folder / "final", ignore_errors=True)
    os.replace(partial, folder / "final")


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


@torch.no_grad()
def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
    for name, value in target.items():
        value.copy_(source[name])


class _Log:
    """A CSV whose columns grow with what is logged; on resume, rows of updates after `first` are dropped."""

    def __init__(self, path: Path, first: int) -> None:
        self.path, self.rows, self.columns = path, [], []
        if first and path.exists():
            with path.open(newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= first]
            self.columns = list(self.rows[0]) if self.rows else []
        self._rewrite()

    def write(self, row: dict[str, float]) -> None:
        """Adds a row, at once on disk."""
        self.rows.append({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
        if set(row) <= set(self.columns):
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.columns, restval="").writerow(self.rows[-1])
            return
        self.columns = list(dict.fromkeys([*self.columns, *row]))
        self._rewrite()

    def _rewrite(self) -> None:
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            if self.columns:
                writer.writeheader()
            writer.writerows(self.rows)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="mi2v_lite.training.trainer", description="Trains a step of a curriculum.")
    parser.add_argument("config", help="a YAML file, for example mi2v_lite/configs/lite.yaml")
    parser.add_argument("--step", required=True, help="the step's name")
    parser.add_argument("--runs", default="runs", help="folder of the data and the results")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    options = parser.parse_args(arguments)
    print(train(load_config(options.config), options.step, options.runs, options.resume))


if __name__ == "__main__":
    main()
