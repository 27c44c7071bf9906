"""Is the order of Stage 1's three steps worth it, at toy size, against training everything at once?

A thing slides left or right, and a word may tell the side. The curriculum trains single displacements without temporal
layers, then the temporal layers alone, then the whole UNet on clips. The control trains all parameters on clips from
the first update on. Both see the same number of fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from mi2v_checks.toy import ToyStage1, draw_scenes, one_sided, sample_toy, toy_loss, train_toy
from torch import Tensor, nn

QUESTION = "Is the order of the three steps better than training everything at once with as many fields?"
SEEDS = (0, 1, 2)
UPDATES = (75, 60, 20)  # of the three steps, before they are multiplied by one of TIMES
TIMES = (4,)
FRAMES, CLIPS, RATES, STEPS, HELD_OUT = 4, 8, (2e-3, 2e-3, 1e-3), 10, 64
SETTINGS = {
    "updates": UPDATES,
    "times": TIMES,
    "frames": FRAMES,
    "clips": CLIPS,
    "learning_rates": RATES,
    "sampling_steps": STEPS,
    "held_out_clips": HELD_OUT,
}


def train(toy: ToyStage1, parameters: Iterable[nn.Parameter], updates: int, rate: float, loss: Callable) -> None:
    """Trains some parameters; the rate falls to zero along half a cosine."""
    optimiser = torch.optim.AdamW(list(parameters), lr=rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
    for _ in range(updates):
        train_toy(partial(loss, toy), optimiser, 1)
        falling.step()


@torch.no_grad()
def measured(toy: ToyStage1) -> dict[str, float]:
    """How well the word is obeyed, and how well the frames agree where nothing is told.

    Returns:
        `explained`, the share of the motion that is explained where the word tells the side; `agree`, the share of the
        clips without a word whose frames all go to one side.
    """
    told, open_ = (
        draw_scenes(HELD_OUT, torch.Generator().manual_seed(99), "slides", frames=FRAMES, told=share)
        for share in (1.0, 0.0)
    )
    error = (sample_toy(toy, told, STEPS) - told.flow).square().sum()
    agree = one_sided(sample_toy(toy, open_, STEPS), open_)
    return {"explained": float(1 - error / told.flow.square().sum()), "agree": float(agree.float().mean())}


def run(seed: int) -> dict:
    """Trains by the three steps and at once, with each multiple of the updates.

    Args:
        seed: of the weights, the scenes and the noise.

    Returns:
        way -> `explained` and `agree` (see `measured`) for each of TIMES, after "step 1", "step 2" and "step 3", and
        "at once".
    """
    generator = torch.Generator().manual_seed(seed)

    def single(toy: ToyStage1) -> Tensor:
        return toy_loss(toy, draw_scenes(CLIPS * FRAMES, generator, "slides"), generator)

    def clips(toy: ToyStage1) -> Tensor:
        return toy_loss(toy, draw_scenes(CLIPS, generator, "slides", frames=FRAMES), generator)

    values: dict = {}
    for times in TIMES:
        first, second, third = (times * count for count in UPDATES)
        flat, toy, once = ToyStage1(seed), ToyStage1(seed, motion_modules=True), ToyStage1(seed, motion_modules=True)
        results = {}
        train(flat, flat.parameters(), first, RATES[0], single)
        results["step 1"] = measured(flat)
        toy.load_state_dict(flat.state_dict(), strict=False)
        temporal = [value for name, value in toy.unet.named_parameters() if "motion_modules" in name]
        train(toy, temporal, second, RATES[1], clips)
        results["step 2"] = measured(toy)
        train(toy, toy.unet.parameters(), third, RATES[2], clips)
        results["step 3"] = measured(toy)
        train(once, once.parameters(), first + second + third, RATES[0], clips)
        results["at once"] = measured(once)
        for way, figures in results.items():
            for name, figure in figures.items():
                values.setdefault(way, {}).setdefault(name, []).append(figure)
    return values
