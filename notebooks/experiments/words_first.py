"""Does a network that knows no words learn them sooner where the first scenes are plain ones?

In `configs/lite.yaml` the text encoder starts from nothing, and Stage 1's first step begins with scenes in which only
the camera pans. Here is this step at toy size: no temporal layers, one field a scene, nearly nothing but noise. All
ways begin with the same weights and are measured on the same held-out scenes, of which most have things and a camera.
The control is all scenes at once, with the same number of updates and with four times as many.
"""

from __future__ import annotations

from functools import partial

import torch
from mi2v_checks.toy import Scenes, ToyStage1, draw_scenes, sample_toy, toy_loss, train_toy

QUESTION = "Does a network that knows no words learn them sooner where the first scenes are plain ones?"
SEEDS = (0, 1, 2)
UPDATES, BATCH, RATE, EARLIEST, HELD_OUT = 400, 32, 1e-3, 0.95, 256
EVERY = 100  # updates between two measurements
# Way -> its parts: how many updates, and the kinds of scenes that come in turn.
WAYS = {
    "all at once": ((4 * UPDATES, ("all",)),),
    "pans, then all": ((100, ("pans",)), (UPDATES - 100, ("all",))),
    "pans, then both in turn": ((100, ("pans",)), (UPDATES - 100, ("all", "pans"))),
    "both in turn": ((UPDATES, ("all", "pans")),),
}
SETTINGS = {
    "updates": UPDATES,
    "batch": BATCH,
    "learning_rate": RATE,
    "times_from": EARLIEST,
    "held_out_scenes": HELD_OUT,
    "measured_every": EVERY,
}


@torch.no_grad()
def explained(toy: ToyStage1, scenes: Scenes) -> float:
    """The share of the motion that one step of sampling explains: 0 for no motion at all, 1 for the truth."""
    error = (sample_toy(toy, scenes, steps=1) - scenes.flow).square().sum()
    return float(1 - error / scenes.flow.square().sum())


def plain_loss(toy: ToyStage1, kinds: tuple[str, ...], generator: torch.Generator) -> torch.Tensor:
    """The loss on fresh scenes of these kinds in turn."""
    return toy_loss(toy, draw_scenes(BATCH, generator, *kinds), generator, EARLIEST)


def run(seed: int) -> dict:
    """Trains a network in each of WAYS.

    Args:
        seed: of the weights, the scenes and the noise.

    Returns:
        way -> the share of the motion that is explained after each EVERY updates: `all`, in all scenes; `pans`, in
        scenes of the camera alone; `wrong_words`, in all scenes with the caption of another one.
    """
    held_out = {kind: draw_scenes(HELD_OUT, torch.Generator().manual_seed(99), kind) for kind in ("all", "pans")}
    captions = held_out["all"].captions
    held_out["wrong_words"] = held_out["all"].saying([*captions[1:], captions[0]])
    values = {}
    for way, parts in WAYS.items():
        toy, generator = ToyStage1(seed), torch.Generator().manual_seed(seed)
        optimiser = torch.optim.AdamW(toy.parameters(), lr=RATE)
        found: dict[str, list[float]] = {name: [] for name in held_out}
        for updates, kinds in parts:
            for _ in range(updates // EVERY):
                train_toy(partial(plain_loss, toy, kinds, generator), optimiser, EVERY)
                for name, scenes in held_out.items():
                    found[name].append(explained(toy, scenes))
        values[way] = found
    return values
