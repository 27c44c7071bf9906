"""A toy of Stage 1 in which every right answer is known: 4 x 4 places, a few words, networks that train in a minute.

scenes = draw_scenes(32, generator, "all")          # what moves, and the words that tell it
toy = ToyStage1(seed=0)                             # a text encoder and a UNet, both fresh
loss = toy_loss(toy, scenes, generator)

Notebook 02 and its experiments `words_first` and `three_steps` train on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from mi2v_lite.diffusion import denoise, prediction_target
from mi2v_lite.models.text import make_text_encoder
from mi2v_lite.models.unet import VideoUNet

DIRECTIONS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
SPEEDS = {"slowly": 0.4, "": 0.8, "quickly": 1.6}
NAMES = {"ball": (1.0, 0.0, 0.0), "cat": (0.0, 1.0, 0.0), "leaf": (0.0, 0.0, 1.0), "kite": (1.0, 1.0, 0.0)}  # colours
GOES, PANS = ("drifts", "slides", "floats", "moves"), ("pans", "turns", "moves")
REST = ("rests", "stays")
WORDS = ["", *DIRECTIONS, "slowly", "quickly", *NAMES, *GOES, "pans", "turns", *REST, "still", "the", "camera", "and"]
LENGTH = 20  # tokens of a caption, padding included
SIDE = 4
LAST = 120  # the largest stride, at which a motion has its full length
KINDS = ("all", "pans", "slides")
SCHEDULE = DDIMScheduler(
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="linear",
    prediction_type="v_prediction",
    rescale_betas_zero_snr=True,
    timestep_spacing="trailing",
    clip_sample=False,
)  # as in configs/lite.yaml


@dataclass(frozen=True)
class Scenes:
    """Scenes of the toy.

    Attributes:
        image: `(B, 3, 1, 4, 4)`: the colour of each place in the photo; 0 is the background.
        flow: `(B, 2, N, 4, 4)`: what is to be predicted, in places.
        stride: `(B, N)`.
        things: bool `(B, 4, 4)`: which places belong to a thing.
        captions: B strings.
    """

    image: Tensor
    flow: Tensor
    stride: Tensor
    things: Tensor
    captions: list[str]

    def saying(self, captions: Iterable[str]) -> Scenes:
        """The same scenes with other words."""
        return replace(self, captions=list(captions))


def draw_scenes(count: int, generator: torch.Generator, *kinds: str, frames: int = 1, told: float = 0.5) -> Scenes:
    """Draws scenes of one kind, or of several kinds in turn.

    "all": the camera pans or is still, and one or two things, a quarter of the picture each, drift in the frame or
    stay. "pans": the camera pans, and there is nothing else. "slides": the camera is still, and one thing, half of the
    picture, goes left or right; its brightness tells how fast, and in some of the scenes a word tells the side.

    Args:
        count: how many.
        generator: of all that is random.
        kinds: one or more of KINDS.
        frames: N; with 1 the only field has a stride drawn from 15, 30, ..., 120, with more they are spread evenly.
        told: the share of "slides" with a word.

    Returns:
        the scenes.

    Raises:
        ValueError: for an unknown kind.
    """
    if not kinds or not set(kinds) <= set(KINDS):
        raise ValueError(f"Scenes are of the kinds {', '.join(KINDS)}, not {kinds!r}.")

    random = Random(int(torch.randint(2**31, (), generator=generator)))
    image, field = np.zeros((count, 3, SIDE, SIDE), np.float32), np.zeros((count, 2, SIDE, SIDE), np.float32)
    things, captions, half = np.zeros((count, SIDE, SIDE), bool), [], SIDE // 2
    first, last, whole = slice(half), slice(half, None), slice(None)

    def put(i: int, place: tuple[slice, slice], colour: np.ndarray, way: np.ndarray) -> None:
        image[(i, whole, *place)] = colour[:, None, None]
        field[(i, whole, *place)] = way[:, None, None]
        things[(i, *place)] = True

    def motion() -> tuple[np.ndarray, str]:
        direction, speed = random.choice(list(DIRECTIONS)), random.choice(list(SPEEDS))
        return SPEEDS[speed] * np.array(DIRECTIONS[direction]), f"{direction} {speed}".strip()

    for i in range(count):
        kind, phrases = kinds[i % len(kinds)], []
        if kind == "slides":
            side, speed = random.choice(("left", "right")), random.uniform(0.5, 1.5)
            place = random.choice(((first, whole), (last, whole), (whole, first), (whole, last)))
            put(i, place, speed * np.array(NAMES["ball"]), 2 * speed * np.array(DIRECTIONS[side]))
            captions.append(side if random.random() < told else "")
            continue
        if kind == "pans" or random.random() < 0.6:
            way, words = motion()
            field[i] = -way[:, None, None]  # when the camera pans left, everything goes right
            phrases.append(f"the camera {random.choice(PANS)} {words}")
        elif random.random() < 0.6:
            phrases.append(f"the camera {random.choice((*REST, 'still'))}")
        count_of_things = 0 if kind == "pans" else random.choice((1, 2))
        places = random.sample([(y, x) for y in (first, last) for x in (first, last)], count_of_things)
        for place, name in zip(places, random.sample(list(NAMES), count_of_things), strict=True):
            way, words = motion()
            said = f"{random.choice(GOES)} {words}"
            if random.random() < 0.2:
                way, said = 0 * way, random.choice(REST)
            put(i, place, np.array(NAMES[name]), way)
            phrases.append(f"the {name} {said}")
        random.shuffle(phrases)
        captions.append(" and ".join(phrases))
    image, field, things = (torch.from_numpy(part) for part in (image, field, things))
    stride = LAST / 8 * torch.arange(1, 9).expand(count, -1)
    if frames == 1:
        stride = stride.gather(1, torch.randint(8, (count, 1), generator=generator))
    else:
        stride = LAST / frames * torch.arange(1, frames + 1).expand(count, -1)
    flow = field[:, :, None] * (stride / LAST).view(count, 1, -1, 1, 1)
    return Scenes(image[:, :, None], flow, stride, things, captions)


Predict = Callable[[Tensor, Tensor, Scenes], Tensor]  # noisy flow, times and scenes to the velocity


class ToyStage1(nn.Module):
    """A Stage 1 of about 400,000 parameters: a text encoder and a UNet of one resolution, both fresh.

    Args:
        seed: of the weights.
        motion_modules: whether there are temporal layers.
        image_channels: channels for the photo in front of those of the flow; 0 is a network without a photo.
    """

    def __init__(self, seed: int, motion_modules: bool = False, image_channels: int = 3) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.text_encoder = make_text_encoder(
            {"vocab_size": len(WORDS) + 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2,
             "max_position_embeddings": LENGTH, "projection_dim": 32}
        )  # fmt: skip
        self.unet = VideoUNet(
            in_channels=image_channels + 2,
            out_channels=2,
            block_out_channels=(32,),
            layers_per_block=1,
            attention_levels=(False,),
            num_attention_heads=2,
            norm_num_groups=8,
            cross_attention_dim=32,
            motion_modules=motion_modules,
            motion_num_attention_heads=2,
            use_stride_embedding=True,
        )

    def words(self, captions: Iterable[str]) -> Tensor:
        """The embedded captions, `(B, LENGTH, 32)`."""
        ids = [[WORDS.index(word) for word in caption.split()] for caption in captions]
        ids = torch.tensor([[*row, *[0] * (LENGTH - len(row))] for row in ids])
        return self.text_encoder(input_ids=ids).last_hidden_state

    def forward(self, x: Tensor, t: Tensor, scenes: Scenes, **residuals: object) -> Tensor:
        """The velocity that belongs to the noisy flow `x` `(B, 2, N, 4, 4)` at the times `t` `(B,)`."""
        image = scenes.image.expand(-1, -1, x.shape[2], -1, -1)
        return self.unet(torch.cat([image, x], 1), t, self.words(scenes.captions), stride=scenes.stride, **residuals)


def toy_loss(predict: Predict, scenes: Scenes, generator: torch.Generator, earliest: float = 0.0) -> Tensor:
    """Stage 1's training loss, with the velocity as the target.

    Args:
        predict: a `ToyStage1`, or what is called like one.
        scenes: what is learned from.
        generator: of the noise and of the times.
        earliest: times are drawn from this share of the schedule on: near 1 there is nearly nothing but noise.
    """
    flow, count = scenes.flow, len(scenes.flow)
    noise = torch.randn(flow.shape, generator=generator)
    share = (torch.arange(count) + torch.rand(count, generator=generator)) / count  # spread evenly over the batch
    t = (1000 * (earliest + (1 - earliest) * share)).long().clamp(max=999)
    x = SCHEDULE.add_noise(flow, noise, t)
    return (predict(x, t, scenes) - prediction_target(SCHEDULE, flow, noise, t)).square().mean()


def sample_toy(
    predict: Callable[[Tensor, Tensor, Scenes], Tensor], scenes: Scenes, steps: int, seed: int = 7
) -> Tensor:
    """Samples a field for every scene, `(B, 2, N, 4, 4)`, from noise of this seed."""
    noise = torch.randn(scenes.flow.shape, generator=torch.Generator().manual_seed(seed))
    return denoise(lambda x, t: predict(x, t.expand(len(x)), scenes), noise, SCHEDULE, steps)


def one_sided(flow: Tensor, scenes: Scenes) -> Tensor:
    """Whether the thing goes to one and the same side in all N fields, bool `(B,)`."""
    things = scenes.things[:, None].float()  # (B, 1, 4, 4)
    side = (flow[:, 0] * things).sum((-1, -2)).sign()  # (B, N)
    return side.sum(1).abs() == side.shape[1]


def train_toy(loss: Callable[[], Tensor], optimiser: torch.optim.Optimizer, updates: int) -> list[float]:
    """Makes some steps of an optimiser, with gradients of a length of at most 1.

    Args:
        loss: draws scenes and gives their loss.
        optimiser: of the parameters that are trained.
        updates: how many.

    Returns:
        the loss of every update.
    """
    losses = []
    for _ in range(updates):
        value = loss()
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], 1.0)
        optimiser.step()
        losses.append(float(value.detach()))
    return losses
