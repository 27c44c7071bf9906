"""One loop for every step of the curriculum, on Accelerate (notebooks 01 to 04 train with it).

    mi2v train CONFIG [--runs runs]                                             all steps, in one process
    mi2v train CONFIG --step NAME [--runs runs] [--resume | --restart]          one step
    accelerate launch ... -m mi2v_lite.cli train CONFIG --step NAME ...         in several

Update k of a step is a pure function of the step's seed and of k: the data and the noise of every sample are drawn from
generators seeded by them and by the sample's place in the batch of all processes. So a training that was interrupted
and resumed repeats an uninterrupted one, and two processes train as one with the double batch does.

The way of an update: `batches` makes a batch of clips, a loss of `objectives` judges what the models make of it, and
`_update` takes the step of the optimiser.
"""

from __future__ import annotations

import csv
import fnmatch
import importlib
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType
from torch import Tensor, nn
from tqdm.auto import tqdm

from mi2v_lite.io.files import atomic, locked, new_folder, recover_folders
from mi2v_lite.training.batches import Batch
from mi2v_lite.training.checkpoints import (
    Ema,
    check_start,
    copy_all,
    full,
    is_sharded,
    remove_results,
    restore,
    whole,
    write_checkpoint,
    write_final,
)
from mi2v_lite.training.curriculum import Config, Step, check_data, is_done
from mi2v_lite.training.draws import Draws
from mi2v_lite.training.objectives import OBJECTIVES, Task, make_task, validate
from mi2v_lite.training.samples import write_pairs
from mi2v_lite.training.step_models import build_models


class _Forward(nn.Module):
    """Loss and validation as the `forward` of one module, which is what DDP and FSDP wrap, at the step's precision."""

    def __init__(self, models: nn.ModuleDict, task: Task) -> None:
        super().__init__()
        self.models, self.task = models, task

    def forward(self, batch: Batch | None = None, draws: Draws | None = None) -> tuple:
        """Loss and figures of a batch; without one, figures and pairs of the held-out data.

        Both come through here, since sharded parameters are whole only inside `forward`.
        """
        device, bf16 = next(self.models.parameters()).device.type, self.task.step.precision == "bf16"
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            if batch is None:
                return validate(self.models, self.task)
            return OBJECTIVES[self.task.step.objective].loss(self.models, batch, draws, self.task)


def trainable_parameters(models: nn.ModuleDict, patterns: tuple[str, ...]) -> dict[str, nn.Parameter]:
    """Sets `requires_grad` of all parameters and returns those that train.

    Args:
        models: by name.
        patterns: over `<model>.<parameter>`.

    Raises:
        ValueError: If a pattern matches no parameter.
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


def make_optimizer(
    step: Step, parameters: Iterable[nn.Parameter], device: torch.device | str = "cpu"
) -> torch.optim.Optimizer:
    """AdamW with the step's learning rate and weight decay (paper: betas 0.9 and 0.999, eps 1e-8; notebook 06).

    Args:
        step: its setting `optimizer` is "adamw"; or "fused", which does an update in one kernel; or "8bit", whose two
            averages take a quarter of the memory (Dettmers et al. 2022; bitsandbytes, on a GPU).
        parameters: what trains.
        device: where it trains.

    Raises:
        ValueError: If this form does not work on this machine; the error says what to set instead.
    """
    settings: dict[str, Any] = {"lr": step.learning_rate, "betas": (0.9, 0.999), "eps": 1e-8}
    settings["weight_decay"] = step.weight_decay
    if step.optimizer == "8bit":
        return _bitsandbytes(step, torch.device(device)).optim.AdamW8bit(parameters, **settings)
    try:
        return torch.optim.AdamW(parameters, fused=step.optimizer == "fused" or None, **settings)
    except RuntimeError as error:  # torch has no such kernel for this device or kind of number
        raise ValueError(f"Step {step.name}: there is no fused AdamW here ({error}); set optimizer: adamw.") from error


def _bitsandbytes(step: Step, device: torch.device) -> Any:
    instead = "set optimizer: fused, or adamw"
    if device.type == "cpu":
        raise ValueError(f"Step {step.name}: optimizer 8bit needs a GPU; {instead}.")
    try:
        return importlib.import_module("bitsandbytes")
    except ImportError as error:
        raise ValueError(
            f"Step {step.name}: optimizer 8bit needs bitsandbytes, which is not installed ({error}): "
            f"pip install bitsandbytes, or {instead}."
        ) from error


def train(
    config: Config,
    name: str,
    runs: str | Path = "runs",
    resume: bool = False,
    restart: bool = False,
    stop_at: int | None = None,
    deadline: float | None = None,
) -> Path:
    """Trains one step and writes `runs/<step>/`: `log.csv`, `checkpoint-<n>/`, `final/<model>/`.

    Args:
        config: the curriculum.
        name: the step to train.
        runs: the folder of the data and of the results of the steps.
        resume: whether to go on from the newest checkpoint, if there is one.
        restart: whether to start anew. Once the models and the data are loaded, the step's old checkpoints, `final`,
            `log.csv` and `validation` are removed; a line on stderr says so.
        stop_at: the number of updates after which to leave with a checkpoint and without `final`, as if interrupted.
        deadline: the time, by `time.monotonic`, after which to leave likewise. For a training in one process.

    Returns:
        The folder `final`, or the last checkpoint if `stop_at` or `deadline` ended the training.

    Raises:
        ValueError: If a step, model, folder or pattern does not exist; if the checkpoint belongs to another config; if
            there are results of an earlier training and neither `resume` nor `restart` is given, or both are.
        BlockingIOError: If another training of this step is running on the same folder.
    """
    if resume and restart:
        raise ValueError("resume goes on from the old results and restart removes them: ask for one of the two.")
    step, runs = config.step(name), Path(runs)
    step.check_trainable()
    accelerator = Accelerator(
        mixed_precision="no",  # autocast is ours: Accelerate's cannot change between the steps of one process
        cpu=not torch.cuda.is_available(),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    with ExitStack() as held:
        if accelerator.is_main_process:
            held.enter_context(new_folder(runs / step.name))
            held.enter_context(locked(runs / step.name))
        accelerator.wait_for_everyone()
        return _train(config, step, runs, accelerator, resume, restart, stop_at, deadline)


def _train(
    config: Config,
    step: Step,
    runs: Path,
    accelerator: Accelerator,
    resume: bool,
    restart: bool,
    stop_at: int | None,
    deadline: float | None,
) -> Path:
    """What `train` does once the folder of the step is there and belongs to this training alone."""
    folder = runs / step.name
    check_start(folder, resume, restart)
    accelerator.wait_for_everyone()  # all have looked before one changes anything
    if accelerator.is_main_process:
        recover_folders(folder)
    torch.manual_seed(step.seed)  # the start of what is built anew
    models = build_models(config, step, runs)
    parameters = trainable_parameters(models, step.trainable)
    task = make_task(config, step, runs, models, accelerator.device)  # encodes the latents that are not there yet
    if step.channels_last:
        models.to(memory_format=torch.channels_last)
    for key, model in models.items():
        model.train(any(parameter.startswith(f"{key}.") for parameter in parameters))
    optimizer = make_optimizer(step, parameters.values(), accelerator.device)
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise ValueError(
            "DeepSpeed keeps parameters and updates to itself; to shard them, launch with configs/fsdp.yaml."
        )
    module, optimizer = accelerator.prepare(_Forward(models, task), optimizer)
    plain = accelerator.unwrap_model(module)
    named = dict(plain.models.named_parameters())
    parameters = {name: named[name] for name in parameters}  # FSDP has put sharded ones in their place
    sharded = is_sharded(parameters)
    ema = Ema(parameters, step.ema_decay)
    if restart and accelerator.is_main_process:
        remove_results(folder)
    accelerator.wait_for_everyone()
    first = restore(folder, step, parameters, optimizer, ema) if resume else 0
    last = min(step.steps, stop_at or step.steps)
    log = _Log(folder / "log.csv", first) if accelerator.is_main_process else None
    bar = tqdm(
        total=step.steps, initial=first, desc=step.name, disable=not accelerator.is_main_process, mininterval=5.0
    )
    started, done = time.perf_counter(), first
    for k in range(first, last):
        for group in optimizer.param_groups:
            group["lr"] = step.learning_rate_at(k)
        loss, logs = _update(accelerator, module, optimizer, task, parameters, k)
        ema.update(parameters, k)
        done = k + 1
        bar.update()
        if log and (done % step.log_every == 0 or done == last):
            seconds = (time.perf_counter() - started) / (done - first)
            values = {key: float(value.detach()) for key, value in logs.items()}
            log.write({"step": done, "loss": float(loss), "lr": step.learning_rate_at(k), "seconds": seconds, **values})
            bar.set_postfix(loss=f"{float(loss):.4f}", s=f"{seconds:.2f}")
        if step.validate_every and (done % step.validate_every == 0 or done == step.steps) and (log or sharded):
            with ema.applied(parameters):
                values, pairs = plain()
            if log:
                write_pairs(folder / "validation", done, pairs)
                bar.write(f"{step.name} {done}: " + ", ".join(f"{key} {value:.4f}" for key, value in values.items()))
                log.write({"step": done, **values})
        late = deadline is not None and time.monotonic() >= deadline
        if done % step.checkpoint_every == 0 or done == last or late:
            saved = write_checkpoint(folder, step, done, parameters, optimizer, ema, accelerator.is_main_process)
        if late:
            break
    bar.close()
    accelerator.wait_for_everyone()
    if done < step.steps:
        return saved
    averaged = whole(ema.shadow, accelerator.is_main_process)
    if accelerator.is_main_process:
        if sharded:  # builds whole models once more, for the gathered average
            torch.manual_seed(step.seed)
            models = build_models(config, step, runs)
        trained = trainable_parameters(models, step.trainable)
        copy_all(averaged, trained)
        OBJECTIVES[step.objective].finish(models, task)
        write_final(folder, step, models, trained)
    return folder / "final"


def train_all(config: Config, runs: str | Path = "runs", deadline: float | None = None) -> list[Path]:
    """Trains all steps that are not done yet, one after the other; an interrupted one goes on where it stopped.

    Args:
        config: the curriculum.
        runs: the folder of the data and of the results of the steps.
        deadline: the time, by `time.monotonic`, after which to leave; another call goes on.

    Returns:
        The results of these steps; of the last one a checkpoint, if the deadline ended it.

    Raises:
        ValueError: If data are missing, before anything is trained; the error names all of them. Or as `train` does.
    """
    runs, results = Path(runs), []
    waiting = [step for step in config.steps if not is_done(runs, step)]
    check_data(config, runs, waiting)
    for step in waiting:
        if deadline is not None and time.monotonic() >= deadline:
            break
        results.append(train(config, step.name, runs, resume=True, deadline=deadline))
    return results


def _update(
    accelerator: Accelerator,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    task: Task,
    parameters: dict[str, Tensor],
    k: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Update `k`: the mean loss over all processes, and figures for the log."""
    step, total = task.step, 0.0
    for micro in range(step.accumulation):
        batch = task.train.draw(_draws(step, accelerator, k, micro, 0))
        batch = {name: value.to(accelerator.device) for name, value in batch.items()}
        loss, logs = module(batch, _draws(step, accelerator, k, micro, 1))
        accelerator.backward(loss / step.accumulation)
        total = total + loss.detach() / step.accumulation
    total = accelerator.reduce(total, "mean")
    if not torch.isfinite(total):
        raise ValueError(f"Step {step.name}: the loss of update {k} is {float(total)}; lower the learning rate.")
    norm = full(accelerator.clip_grad_norm_(parameters.values(), step.grad_clip))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, {"grad_norm": norm, **logs}


def _draws(step: Step, accelerator: Accelerator, k: int, micro: int, purpose: int) -> Draws:
    """The draws of this process for one batch of update `k`: those of the data (purpose 0) or of the noise (1)."""
    place = {"rank": accelerator.process_index, "processes": accelerator.num_processes}
    batch = k * step.accumulation + micro
    return Draws.of(step.seed, k, micro, purpose, count=step.batch_size, **place, batch=batch)


class _Log:
    """The log as a CSV file whose columns grow with what is logged.

    Args:
        path: the file.
        first: the update that the training goes on from; rows of later updates are dropped.
    """

    def __init__(self, path: Path, first: int) -> None:
        self.path, self.rows, self.columns = path, [], []
        if first and path.exists():
            whole = path.read_text(encoding="utf-8").rpartition("\n")[0]  # a last line may be torn
            rows = csv.DictReader(whole.splitlines())
            self.rows = [row for row in rows if (row.get("step") or "").isdecimal() and int(row["step"]) <= first]
            self.columns = list(self.rows[0]) if self.rows else []
        self._rewrite()

    def write(self, row: dict[str, float]) -> None:
        """Adds a row and writes it to the disk at once."""
        self.rows.append({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})
        if set(row) <= set(self.columns):
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.columns, restval="").writerow(self.rows[-1])
            return
        self.columns = list(dict.fromkeys([*self.columns, *row]))
        self._rewrite()

    def _rewrite(self) -> None:
        with atomic(self.path) as beside, beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            if self.columns:
                writer.writeheader()
            writer.writerows(self.rows)
