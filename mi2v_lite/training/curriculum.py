"""The curriculum as data: what each step trains, from what, on what (section 3.2; notebook 02).

A YAML file holds `models` (name -> kind and config), `noise` (the scheduler's arguments) and `steps`. Nothing else
differs between the lite and the full scale, and no step has a code path of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

# What each objective needs beside the model it trains; a config gives its models these names.
NEEDS: dict[str, tuple[str, ...]] = {
    "image_autoencoder": (),
    "flow_autoencoder": (),
    "text_to_video": ("text_encoder", "image_vae"),
    "motion_field": ("text_encoder", "image_vae", "flow_vae"),
    "trajectory_control": ("text_encoder", "image_vae", "flow_vae", "stage1_unet"),
    "animation": ("text_encoder", "image_vae"),
}
SCHEDULES = ("constant", "cosine")
OPTIMIZERS = ("adamw", "fused", "8bit")
FOLDER = "folder:"  # before a source that is no step's result but a model's folder, such as `mi2v import` makes


@dataclass(frozen=True)
class Step:
    """One step of the curriculum.

    `model` is trained by `objective`; `others` stand beside it (the text encoder, the frozen trunk). `trainable` are
    patterns over `<model>.<parameter>` (`fnmatch`). `start_from` maps a model to what it loads: the result of a step,
    "step" or "step/model", or "folder:PATH"; of several in a list, the later overwrite the earlier. Parameters of
    `model` that match a pattern of `fresh` start anew all the same. `model_overrides` change the config of `model` in
    this step. `data` and `options` are settings of the data source and of the objective. `optimizer`: one of
    `OPTIMIZERS`, see `optimizers.make_optimizer`. `validation_clips`: held-out samples to draw at each validation.
    """

    name: str
    model: str
    objective: str
    steps: int
    batch_size: int
    learning_rate: float
    trainable: tuple[str, ...] = ("*",)
    others: tuple[str, ...] = ()
    start_from: dict[str, str | list[str]] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()
    model_overrides: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    final_learning_rate: float = 0.0
    warmup_steps: int = 0
    schedule: str = "constant"
    optimizer: str = "adamw"
    weight_decay: float = 1e-2
    grad_clip: float = 1.0
    ema_decay: float = 0.0
    text_dropout: float = 0.0
    precision: str = "no"
    channels_last: bool = False
    gradient_checkpointing: bool = False
    seed: int = 0
    accumulation: int = 1
    checkpoint_every: int = 500
    validate_every: int = 0
    validation_clips: int = 0
    log_every: int = 10

    def __post_init__(self) -> None:
        """Refuses what cannot be trained.

        Raises:
            ValueError: naming the step, the setting and what it may be.
        """
        choices = {
            "objective": tuple(NEEDS),
            "schedule": SCHEDULES,
            "precision": ("no", "bf16"),
            "optimizer": OPTIMIZERS,
        }
        for key, allowed in choices.items():
            if getattr(self, key) not in allowed:
                raise ValueError(f"Step {self.name}: {key} is {getattr(self, key)!r}, expected one of {allowed}.")
        lacking = [name for name in NEEDS[self.objective] if name not in self.others]
        if lacking:
            raise ValueError(f"Step {self.name}: {self.objective} needs {lacking} among its others.")
        for key in ("steps", "batch_size", "accumulation", "checkpoint_every", "log_every"):
            if getattr(self, key) < 1:
                raise ValueError(f"Step {self.name}: {key} is {getattr(self, key)}, expected at least 1.")

    def sources(self, name: str) -> tuple[str, ...]:
        """What the model `name` loads, in order; () if it starts anew."""
        given = self.start_from.get(name, ())
        return (given,) if isinstance(given, str) else tuple(given)

    def earlier(self, name: str) -> list[tuple[str, str]]:
        """(step, model) of those of its sources that are results of steps."""
        found = [source.partition("/") for source in self.sources(name) if not source.startswith(FOLDER)]
        return [(step, model or name) for step, _, model in found]

    def learning_rate_at(self, k: int) -> float:
        """The learning rate of update `k` (from 0): linear warm-up, then constant or half a cosine."""
        if k < self.warmup_steps:
            return self.learning_rate * (k + 1) / self.warmup_steps
        if self.schedule == "constant":
            return self.learning_rate
        done = (k - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        span = self.learning_rate - self.final_learning_rate
        return self.final_learning_rate + span * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@dataclass(frozen=True)
class Config:
    """A whole curriculum: `models` name -> `{"kind": ..., **config}`, `noise` the scheduler's arguments, `steps`, and
    `pipeline`: the defaults of the pipeline that the results become (steps, guidance, stride)."""

    models: dict[str, dict[str, Any]]
    noise: dict[str, Any]
    steps: tuple[Step, ...]
    pipeline: dict[str, Any] = field(default_factory=dict)

    def step(self, name: str) -> Step:
        """The step of that name.

        Raises:
            ValueError: if there is none; names those that exist.
        """
        for step in self.steps:
            if step.name == name:
                return step
        raise ValueError(f"No step {name!r}; the config has {[step.name for step in self.steps]}.")


def load_config(path: str | Path) -> Config:
    """Reads a curriculum from YAML.

    Raises:
        ValueError: for a file that is no mapping, an unknown key, a missing key, a wrong type, a model that no
            entry describes or a `start_from` that points to a step after this one.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"Cannot read the config {path}: {error}") from error
    return parse_config(content, str(path))


def parse_config(content: Any, where: str = "config") -> Config:
    """Builds a `Config` from plain data, with the checks of `load_config`."""
    known = {item.name for item in fields(Config)}
    _check_keys(content, known, where)
    for key in ("models", "steps"):
        if not content.get(key):
            raise ValueError(f"{where}: {key} is missing or empty.")
    models = dict(content["models"])
    for name, model in models.items():
        if not isinstance(model, dict) or "kind" not in model:
            raise ValueError(f"{where}: model {name} must be a mapping with a key kind.")
    steps: list[Step] = []
    for index, entry in enumerate(content["steps"]):
        step = _parse_step(entry, f"{where}: step {index}")
        for name in (step.model, *step.others, *step.start_from):
            if name not in models:
                raise ValueError(f"{where}: step {step.name} names the model {name!r}, known are {sorted(models)}.")
        earlier = {one.name: (one.model, *one.others) for one in steps}
        for name in step.start_from:
            for origin, model in step.earlier(name):
                if origin not in earlier:
                    raise ValueError(
                        f"{where}: step {step.name} starts from {origin!r}, earlier steps: {list(earlier)}."
                    )
                if model not in earlier[origin]:
                    raise ValueError(
                        f"{where}: step {step.name} starts {name} from {origin}/{model}, but {origin} has only the "
                        f"models {earlier[origin]}: name one of them after a slash."
                    )
        if step.name in earlier:
            raise ValueError(f"{where}: two steps are called {step.name}.")
        steps.append(step)
    return Config(
        models=models,
        noise=dict(content.get("noise") or {}),
        steps=tuple(steps),
        pipeline=dict(content.get("pipeline") or {}),
    )


def _parse_step(entry: Any, where: str) -> Step:
    kinds = {item.name: item.type for item in fields(Step)}
    _check_keys(entry, set(kinds), where)
    where = f"{where} ({entry.get('name', 'without a name')})"
    values = dict(entry)
    for key, value in values.items():
        kind = kinds[key]
        if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if kind.startswith("tuple") and isinstance(value, list) and all(isinstance(item, str) for item in value):
            value = tuple(value)
        expected = {"str": str, "int": int, "float": float, "bool": bool}.get(kind, dict if "dict" in kind else tuple)
        if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
            raise ValueError(f"{where}: {key} is {value!r}, expected {kind} (write 1.0e-3 for a power of ten).")
        values[key] = value
    try:
        return Step(**values)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error


def _check_keys(content: Any, known: set[str], where: str) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{where}: expected a mapping, found {type(content).__name__}.")
    unknown = sorted(set(content) - known)
    if unknown:
        raise ValueError(f"{where}: unknown keys {unknown}; known are {sorted(known)}.")
