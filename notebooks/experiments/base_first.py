"""Question 3: why is a base trained on words first and the control added afterwards, instead of both at once?

This is a toy. A rectangle moves over a resting ground of 6 x 6 positions, and the photo shows where it is. A word names
the quarter of all directions in which it goes, and a drag tells the displacement of a single one of its positions. The
three ways of training use the same networks and the same number of updates in all. The control is what each of them
predicts when nothing is told.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from experiments import shipped_pipeline
from mi2v_lite.diffusion import denoise, prediction_target
from mi2v_lite.models.controlnet import TrajectoryControlNet
from mi2v_lite.models.unet import VideoUNet

QUESTION = "Why is a base trained on words first and the control added afterwards, instead of both at once?"
SEEDS = (0, 1, 2, 3)
BASE, CONTROL = 240, 160  # updates of the base and of its ControlNet; a way that trains both at once makes their sum
BATCH, RATE, ITEMS, STEPS = 24, 4e-3, 128, 10
WAYS = ("base first", "at once", "at once, half dropped")
SETTINGS = {
    "updates": BASE + CONTROL,
    "batch": BATCH,
    "learning_rate": RATE,
    "held_out_items": ITEMS,
    "sampling_steps": STEPS,
}
WORDS = 4 * torch.eye(5, 16)[:, None]  # (5, 1, 16): right, down, left, up, and no word
NO_WORD = 4

Networks = tuple[VideoUNet, TrajectoryControlNet]


def draw(count: int, generator: torch.Generator, told: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    """Draws moving rectangles.

    Args:
        count: B.
        generator: of everything random.
        told: the share of the items that have a word.

    Returns:
        the rectangle `(B, 1, 1, 6, 6)` of 0 and 1, its flow `(B, 2, 1, 6, 6)`, and the numbers of the words `(B,)`.
    """
    y, x = torch.meshgrid(torch.arange(6), torch.arange(6), indexing="ij")
    size = torch.randint(2, 5, (count, 2), generator=generator)
    corner = (torch.rand(count, 2, generator=generator) * (7 - size)).long()
    first, last = corner[..., None, None], (corner + size)[..., None, None]
    inside = (x >= first[:, 0]) & (x < last[:, 0]) & (y >= first[:, 1]) & (y < last[:, 1])
    thing = inside.float()[:, None, None]
    angle = 2 * torch.pi * torch.rand(count, generator=generator)
    length = 0.75 + 1.5 * torch.rand(count, generator=generator)
    shift = length * torch.stack([angle.cos(), angle.sin()])  # (2, B)
    word = (2 * angle / torch.pi + 0.5).long() % 4
    word = torch.where(torch.rand(count, generator=generator) < told, word, NO_WORD)
    return thing, shift.T[:, :, None, None, None] * thing, word


def drag(thing: Tensor, flow: Tensor, generator: torch.Generator) -> Tensor:
    """The condition `(B, 3, 1, 6, 6)`: the flow at one random position of each rectangle, and the mask of it."""
    place = torch.multinomial(thing.flatten(1), 1, generator=generator)
    mask = torch.zeros_like(thing).flatten(1).scatter_(1, place, 1.0).view_as(thing)
    return torch.cat([flow * mask, mask], 1)


def predict(networks: Networks, sample: Tensor, t: Tensor, word: Tensor, condition: Tensor | None) -> Tensor:
    """What the base predicts, steered by the ControlNet where there is a condition."""
    base, control = networks
    if condition is None:
        return base(sample, t, WORDS[word])
    down, middle = control(sample, t, WORDS[word], condition)
    return base(sample, t, WORDS[word], down_residuals=down, mid_residual=middle)


def train(
    networks: Networks,
    parameters: Iterable[nn.Parameter],
    updates: int,
    seed: int,
    with_drag: bool,
    dropped: float = 0.0,
) -> None:
    """Trains some parameters on Stage 1's loss.

    Args:
        networks: the base and the ControlNet.
        parameters: those that are trained.
        updates: how many.
        seed: of the items and the noise.
        with_drag: whether the ControlNet takes part.
        dropped: the share of the items whose condition is empty.
    """
    scheduler, parameters = shipped_pipeline().scheduler, list(parameters)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(parameters, lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=updates, pct_start=0.1)
    for _ in range(updates):
        thing, flow, word = draw(BATCH, generator)
        noise = torch.randn(flow.shape, generator=generator)
        t = ((torch.arange(BATCH) + torch.rand(BATCH, generator=generator)) * 1000 / BATCH).long()
        condition = None
        if with_drag:
            kept = (torch.rand(BATCH, generator=generator) >= dropped).float().view(-1, 1, 1, 1, 1)
            condition = drag(thing, flow, generator) * kept
        sample = torch.cat([thing, scheduler.add_noise(flow, noise, t)], 1)
        v = predict(networks, sample, t, word, condition)
        loss = (v - prediction_target(scheduler, flow, noise, t)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()


@torch.no_grad()
def sampled(networks: Networks, thing: Tensor, word: Tensor, condition: Tensor | None) -> Tensor:
    """The flow `(B, 2, 1, 6, 6)` that is sampled from noise, which is the same for all networks."""
    noise = torch.randn(len(thing), 2, 1, 6, 6, generator=torch.Generator().manual_seed(7))
    return denoise(
        lambda x, t: predict(networks, torch.cat([thing, x], 1), t.expand(len(x)), word, condition),
        noise,
        shipped_pipeline().scheduler,
        STEPS,
    )


def fresh(seed: int) -> Networks:
    """A base of one resolution, and a ControlNet that begins as a copy of its encoder."""
    torch.manual_seed(seed)
    base = VideoUNet(
        in_channels=3,
        out_channels=2,
        block_out_channels=(24,),
        layers_per_block=1,
        attention_levels=(False,),
        num_attention_heads=2,
        norm_num_groups=8,
        cross_attention_dim=16,
        motion_modules=False,
    )
    return base, control_of(base)


def control_of(base: VideoUNet) -> TrajectoryControlNet:
    """A fresh ControlNet beside a base."""
    return TrajectoryControlNet.from_unet(base, condition_channels=3, condition_hidden=16)


def trained(way: str, seed: int) -> Networks:
    """Trains the networks from nothing.

    Args:
        way: one of WAYS.
        seed: of the weights and the items.
    """
    base, control = networks = fresh(seed)
    if way == "base first":
        train(networks, base.parameters(), BASE, seed, with_drag=False)
        base.requires_grad_(False)
        control = control_of(base)
        train((base, control), control.parameters(), CONTROL, seed + 1000, with_drag=True)
        return base, control
    both = [*base.parameters(), *control.parameters()]
    train(networks, both, BASE + CONTROL, seed, with_drag=True, dropped=0.5 if "dropped" in way else 0.0)
    return networks


def run(seed: int) -> dict:
    """Trains each way anew and measures it on items that it was not trained on.

    Args:
        seed: of the weights and of all items.

    Returns:
        way -> "drag", "word", "both" and "nothing", after what is told: the mean error on the rectangles as a share of
        their motion. 1 is as far off as predicting no motion at all.
    """
    generator = torch.Generator().manual_seed(10_000 + seed)
    thing, flow, word = draw(ITEMS, generator, told=1.0)
    shown, no_word = drag(thing, flow, generator), torch.full_like(word, NO_WORD)
    told = {"drag": (no_word, shown), "word": (word, None), "both": (word, shown), "nothing": (no_word, None)}
    on = thing[:, 0].bool()  # (B, 1, 6, 6)
    values: dict = {way: {} for way in WAYS}
    for way in WAYS:
        networks = trained(way, seed)
        for name, (words, condition) in told.items():
            error = (sampled(networks, thing, words, condition) - flow).norm(dim=1)[on].mean()
            values[way][name] = float(error / flow.norm(dim=1)[on].mean())
    return values
