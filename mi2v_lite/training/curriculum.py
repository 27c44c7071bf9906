"""The curriculum as data: what each step trains, what it starts from, and on which data (section 3.2; notebook 02).

A YAML file holds `models` (the kind and the config of each), `noise` (the arguments of the scheduler), `steps` and
`pipeline`. Nothing else differs between the lite and the full scale, and no step has code of its own. All of it is
checked when it is loaded, before torch is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from mi2v_lite.training.schema import DECLARED, KINDS, NEEDED, WORLD, Noise, PatchAutoencoder, Pipeline, World
from mi2v_lite.training.settings import (
    Amount,
    Count,
    Name,
    PartialShare,
    Positive,
    Rule,
    Seed,
    SettingError,
    Settings,
    Share,
    Whole,
    given,
    inside,
    nearest,
    read,
    read_yaml,
    shown,
)

FOLDER = "folder:"  # stands before a source that is the folder of a model, such as `mi2v import` makes
SHOWN = 3  # steps in an error about what several need


@dataclass(frozen=True)
class Step(Settings):
    """One step of the curriculum. What cannot be trained is refused with a `SettingError`.

    Attributes:
        name: the name of the step and of the folder of its results: letters, digits, _ and -.
        model: the model that it trains.
        objective: what it minimises, one of `schema.DECLARED`.
        steps: the number of updates.
        batch_size: samples of one process at a time.
        learning_rate: of AdamW, above 0.
        trainable: patterns (`fnmatch`) over `<model>.<parameter>` that say what trains.
        others: models that stand beside it, such as the text encoder or the frozen trunk.
        start_from: what a model loads: the result of a step, "step" or "step/model", or "folder:PATH". Of several in a
            list, the later overwrite the earlier. A model that is not named starts anew.
        fresh: patterns over parameters of `model` that start anew all the same.
        model_overrides: changes to the config of `model` in this step.
        data: where the samples come from, of the class that `schema.DECLARED` names for the objective. Without any, a
            step cannot be trained; `mi2v import` needs no more of its config.
        options: settings of the objective, likewise.
        final_learning_rate: where the schedule "cosine" ends, 0 or more.
        warmup_steps: updates over which the learning rate rises from nothing.
        schedule: of the learning rate after that.
        optimizer: the form of AdamW, see `trainer.make_optimizer`.
        weight_decay: of AdamW, 0 or more.
        grad_clip: the longest gradient, above 0; longer ones are shortened to it.
        ema_decay: of the moving average of the weights, which is the result: 0 (no average) to below 1.
        text_dropout: the share of the captions that are left empty, 0 to 1, for guidance.
        precision: "bf16" computes in bfloat16 where that is safe.
        channels_last: whether the models have this memory format.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them.
        seed: of all that is random.
        accumulation: batches for one update.
        checkpoint_every: updates between checkpoints.
        validate_every: updates between validations; 0 for none.
        validation_clips: held-out samples to draw at each validation.
        log_every: updates between rows of the log.
    """

    name: Name
    model: str
    objective: Literal[
        "image_autoencoder", "flow_autoencoder", "text_to_video", "motion_field", "trajectory_control", "animation"
    ]
    steps: Count
    batch_size: Count
    learning_rate: Positive
    trainable: Annotated[tuple[str, ...], Rule(len, "that is not empty")] = ("*",)
    others: tuple[str, ...] = ()
    start_from: dict[str, str | tuple[str, ...]] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()
    model_overrides: dict[str, Any] = field(default_factory=dict)
    data: Settings | None = None
    options: Settings = field(default_factory=dict)
    final_learning_rate: Amount = 0.0
    warmup_steps: Whole = 0
    schedule: Literal["constant", "cosine"] = "constant"
    optimizer: Literal["adamw", "fused", "8bit"] = "adamw"
    weight_decay: Amount = 1e-2
    grad_clip: Positive = 1.0
    ema_decay: PartialShare = 0.0
    text_dropout: Share = 0.0
    precision: Literal["no", "bf16"] = "no"
    channels_last: bool = False
    gradient_checkpointing: bool = False
    seed: Seed = 0
    accumulation: Count = 1
    checkpoint_every: Count = 500
    validate_every: Whole = 0
    validation_clips: Whole = 0
    log_every: Count = 10

    def check(self) -> None:
        """Reads `data` and `options` as the objective declares them, and checks the names of models."""
        declared = DECLARED[self.objective]
        for key in ("options",) if self.data is None else ("data", "options"):
            with inside(key):
                object.__setattr__(self, key, read(getattr(declared, key), getattr(self, key)))
        lacking = [name for name in declared.needs if name not in self.others]
        if lacking:
            raise SettingError(f"others lacks {', '.join(lacking)}, which the objective {self.objective} needs.")
        there = (self.model, *self.others)
        for name in self.start_from:
            if name not in there:
                raise SettingError(
                    f"start_from names {shown(name)}, expected the model of this step or one of its others"
                    f"{nearest(name, there)}"
                )
        for pattern in self.trainable:
            model, dot, _ = pattern.partition(".")
            if dot and not set("*?[") & set(model) and model not in there:
                raise SettingError(
                    f"trainable names {shown(model)}, expected the model of this step or one of its others"
                    f"{nearest(model, there)}"
                )

    def check_trainable(self) -> None:
        """Raises `SettingError` if the step has no data."""
        if self.data is None:
            raise SettingError(f"The step {self.name} has no data, expected a mapping that says where its samples are.")

    def sources(self, name: str) -> tuple[str, ...]:
        """What the model `name` loads, in this order; () if it starts anew."""
        sources = self.start_from.get(name, ())
        return (sources,) if isinstance(sources, str) else sources

    def earlier(self, name: str) -> list[tuple[str, str]]:
        """The sources of the model `name` that are results of steps, as (step, model)."""
        results = [source.partition("/") for source in self.sources(name) if not source.startswith(FOLDER)]
        return [(step, model or name) for step, _, model in results]

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
    """A whole curriculum.

    Attributes:
        models: name -> `{"kind": ..., **config}`, with the settings that the file gives, see `schema.KINDS`.
        noise: the scheduler's arguments, see `schema.Noise`.
        steps: in the order of the training.
        pipeline: defaults of the pipeline that the results become, see `schema.Pipeline`.
        world: the world that steps draw clips from, if any does.
    """

    models: dict[str, dict[str, Any]]
    noise: dict[str, Any]
    steps: tuple[Step, ...]
    pipeline: dict[str, Any] = field(default_factory=dict)
    world: World | None = None

    def step(self, name: str) -> Step:
        """The step of that name.

        Raises:
            ValueError: If there is none; the error names all steps and the one with the most similar name.
        """
        names = [step.name for step in self.steps]
        if name in names:
            return self.steps[names.index(name)]
        close = nearest(name, names)
        raise ValueError(f"No step {name!r}; the config has {names}{close if close.endswith('?') else '.'}")


def is_done(runs: Path, step: Step) -> bool:
    """Whether the result of a step is in its folder below `runs`."""
    return (runs / step.name / "final").is_dir()


def check_data(config: Config, runs: Path, steps: Sequence[Step]) -> None:
    """Checks that all is there that steps need and that no step makes.

    Args:
        config: the curriculum.
        runs: the folder of the data and of the results.
        steps: those that are to be trained.

    Raises:
        ValueError: If something is missing; the error names all of it, and the first steps that need it.
    """
    needed: dict[Path, list[str]] = {}
    for step in steps:
        step.check_trainable()
        names = {name for name in step.data.names if name not in WORLD}
        if WORLD.keys() & step.data.names:
            world = config.world
            names |= {f"{world.photos}/train", f"{world.photos}/heldout"} | ({world.things, world.sprites} - {None})
        for name in names:
            needed.setdefault(runs / name, []).append(step.name)
    lacking = []
    for path, names in sorted(needed.items()):
        if not path.exists():
            more = f" and {len(names) - SHOWN} more steps" if len(names) > SHOWN + 1 else ""
            lacking.append(f"{path} (for {', '.join(names[:SHOWN] if more else names)}{more})")
    if lacking:
        raise ValueError(
            f"The training needs what is not there: {'; '.join(lacking)}. tools/things/README.md says where photos and "
            "the masks of things come from, and `mi2v world --film` writes a store of clips of a film."
        )


class _Content(TypedDict, total=False):
    models: dict[str, Settings]
    noise: Settings
    steps: list[Settings]
    pipeline: Settings
    world: Settings


class _Model(TypedDict, total=False):
    name: Name
    kind: Literal["autoencoder", "text_encoder", "video_unet", "controlnet"]


def load_config(path: str | Path) -> Config:
    """Reads a curriculum from YAML and checks all of it, without torch.

    Args:
        path: the YAML file.

    Raises:
        SettingError: A ValueError of one sentence, with the file, the place in it, what was found and what was
            expected. If the file cannot be read; a key is unknown, missing or given twice; a value has a wrong type or
            is out of its range; a model is not described or of a kind that the objective does not take; or a
            `start_from` points to a later step.
    """
    path = Path(path)
    return parse_config(read_yaml(path), str(path))


def parse_config(content: Any, where: str = "config") -> Config:
    """Builds a `Config` from plain data with the checks of `load_config`; its errors begin with `where`."""
    with inside(where):
        sections = given(_Content, content)
        for key in ("models", "steps"):
            if not sections.get(key):
                raise SettingError(f"{key} is missing or empty, expected at least one of them.")
        models: dict[str, dict[str, Any]] = {}
        for name, entry in sections["models"].items():
            with inside(f"models: {name}"):
                given(_Model, {"name": name})
                models[name] = _read_model(entry)
        for name, entry in models.items():
            with inside(f"models: {name}"):
                _check_trunk(entry, models)
        with inside("noise"):
            noise = given(Noise, sections.get("noise"))
        with inside("pipeline"):
            pipeline = given(Pipeline, sections.get("pipeline"))
            _check_pipeline(pipeline, noise, models)
        with inside("world"):
            world = read(World, sections["world"]) if sections.get("world") is not None else None
        steps: list[Step] = []
        for index, entry in enumerate(sections["steps"]):
            name = entry.get("name") if isinstance(entry, Mapping) else None
            with inside(f"steps[{index}]" + (f' "{name[:60]}"' if isinstance(name, str) else "")):
                step = read(Step, entry)
                _check_models(step, models)
                _check_world(step, world)
                _check_sources(step, steps)
                steps.append(_with_overrides(step, models[step.model]))
    return Config(models=models, noise=noise, steps=tuple(steps), pipeline=pipeline, world=world)


def _read_model(entry: Any) -> dict[str, Any]:
    """The kind and the settings of a model."""
    if not isinstance(entry, Mapping) or "kind" not in entry:
        raise SettingError(f"expected a mapping with a key kind, found {shown(entry)}.")
    kind = given(_Model, {"kind": entry["kind"]})
    return kind | _read_entry(kind["kind"], {key: value for key, value in entry.items() if key != "kind"})


def _read_entry(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model of the given kind."""
    entry = given(PatchAutoencoder if kind == "autoencoder" and "patch_size" in content else KINDS[kind], content)
    if kind == "video_unet":
        levels, widths = (len(entry.get(key, range(4))) for key in ("attention_levels", "block_out_channels"))
        if levels != widths:
            raise SettingError(
                f"attention_levels has {levels} entries for {widths} block_out_channels, expected one for each."
            )
    return entry


def _check_trunk(entry: dict[str, Any], models: dict[str, dict[str, Any]]) -> None:
    """Checks that a ControlNet has a trunk."""
    unets = [name for name, other in models.items() if other["kind"] == "video_unet"]
    if entry["kind"] == "controlnet" and entry.get("trunk") not in unets:
        trunk = entry.get("trunk")
        raise SettingError(f"trunk is {shown(trunk)}, expected the video_unet that it copies{nearest(trunk, unets)}")


def _check_pipeline(pipeline: dict[str, Any], noise: dict[str, Any], models: dict[str, dict[str, Any]]) -> None:
    """Checks what would otherwise fail only after the training, when the results become a pipeline."""
    most = noise.get("num_train_timesteps", 1000)
    for key in ("motion_steps", "animation_steps"):
        if pipeline.get(key, 1) > most:
            raise SettingError(f"{key} is {pipeline[key]}, expected at most the noise's num_train_timesteps, {most}.")
    vae = models.get("image_vae", {})
    side = vae.get("patch_size", 1) * 2 ** (len(vae.get("block_out_channels", [0])) - 1)
    if (pipeline.get("working_size") or 0) % side:
        raise SettingError(
            f"working_size is {pipeline['working_size']}, expected a multiple of {side}, which one latent of the "
            "image_vae covers."
        )


def _check_models(step: Step, models: dict[str, dict[str, Any]]) -> None:
    """Checks that the models of a step exist and are of the kinds that its objective takes."""
    for key, names in (("model", (step.model,)), ("others", step.others)):
        for name in names:
            if name not in models:
                raise SettingError(f"{key} names {shown(name)}, which is not among the models{nearest(name, models)}")
    declared = DECLARED[step.objective]
    wanted = {step.model: declared.trains} | {name: NEEDED[name] for name in declared.needs}
    for name, kind in wanted.items():
        if models[name]["kind"] != kind:
            raise SettingError(
                f"the model {name} is of kind {models[name]['kind']}, but the objective {step.objective} expects one "
                f"of kind {kind} there."
            )
    if "text_encoder" in wanted and "tokenizer" not in models["text_encoder"]:
        raise SettingError("the model text_encoder has no key tokenizer, the folder of vocab.json and merges.txt.")
    trunk = models[step.model].get("trunk")
    if trunk is not None and trunk not in step.others:
        raise SettingError(f"others lacks {trunk}, the trunk of {step.model}.")


def _check_world(step: Step, world: World | None) -> None:
    """Checks that a step which draws from the world has one."""
    named = [name for name in (step.data.names if step.data else ()) if name in WORLD]
    if world is None and named:
        raise SettingError(f"data names {named[0]!r}, but the config has no section world that describes it.")


def _check_sources(step: Step, before: list[Step]) -> None:
    """Checks that a step has a name of its own and starts from results of earlier steps."""
    results = {earlier.name: (earlier.model, *earlier.others) for earlier in before}
    if step.name in results:
        raise SettingError("a step before has the same name, expected one of its own.")
    for name in step.start_from:
        for origin, model in step.earlier(name):
            if origin not in results:
                raise SettingError(
                    f"start_from: {name} starts from {shown(origin)}, expected a step before this one"
                    f"{nearest(origin, results)}"
                )
            if model not in results[origin]:
                raise SettingError(
                    f"start_from: {name} starts from {origin}/{model}, expected a model of that step after the "
                    f"slash{nearest(model, results[origin])}"
                )


def _with_overrides(step: Step, entry: dict[str, Any]) -> Step:
    """The step with its `model_overrides` read as settings of its model."""
    kind = entry["kind"]
    with inside("model_overrides"):
        merged = _read_entry(kind, {key: entry[key] for key in entry if key != "kind"} | step.model_overrides)
    start, anew = getattr(step.options, "start", None), step.model not in step.start_from
    if start == "pca" and anew and "patch_size" not in merged:
        raise SettingError(f"options: start is 'pca', but {step.model} has no patch_size to cut patches with.")
    if start == "warped" and (anew or step.fresh) and merged.get("fusion") != "attention":
        raise SettingError(f"options: start is 'warped', but the fusion of {step.model} is not 'attention'.")
    return replace(step, model_overrides={key: merged[key] for key in step.model_overrides})
