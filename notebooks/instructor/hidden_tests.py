"""The hidden tests of the graded assignments: an answer must agree with the course's own on inputs drawn at random.

The seed is the instructor's (`--seed` of assignments.py), so whoever reads this file knows what kind of inputs will
come, and not which. The tests of an exercise are the function of `INPUTS` under the name of what students write.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import nbformat
import torch
from torch import Tensor, nn

from mi2v_lite.models.temporal import TemporalAttention

SEED = 0  # assignments.py writes the instructor's here
CASES = 5
COURSE = Path(__file__).resolve().parent  # the course directory, once assignments.py has copied this file there


class HiddenTestFailed(AssertionError):
    """The answer is wrong on inputs that the notebook does not show."""


def number(r: Random, low: float = 0.1, high: float = 0.9) -> float:
    return r.uniform(low, high)


def normal(r: Random, *shape: int, size: float = 1.0) -> Tensor:
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(r.randrange(2**31)))


def mask(r: Random, *shape: int) -> Tensor:
    return normal(r, *shape) > 0


def inward(r: Random, height: int, width: int) -> Tensor:
    """A field (1, 2, H, W) that leads every pixel to a place inside the picture."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return -number(r, 0.5, 1.5) * torch.stack([x, y])[None]


def conv(r: Random) -> nn.Conv2d:
    layer = nn.Conv2d(r.randint(1, 4), r.randint(1, 5), 3, padding=r.randint(0, 1), stride=r.randint(1, 2))
    with torch.no_grad():
        layer.weight.copy_(normal(r, *layer.weight.shape))
        layer.bias.copy_(normal(r, *layer.bias.shape))
    return layer


def times(r: Random, count: int) -> Tensor:
    return torch.tensor([r.randint(0, 999) for _ in range(count)])


def alpha_bar() -> Tensor:
    return torch.linspace(0.999, 0.0, 1000)


def mlp(r: Random, width: int) -> nn.Module:
    layers = nn.Sequential(nn.Linear(width, 6), nn.SiLU(), nn.Linear(6, 5)).requires_grad_(False)
    for parameter in layers.parameters():
        parameter.copy_(normal(r, *parameter.shape))
    return layers


def names(r: Random) -> list[str]:
    parts = ["conv_in.weight", "down_blocks.0.motion_modules.0.norm.bias", "mid_block.resnets.1.conv1.weight"]
    return [f"{r.choice('abc')}.{name}" for name in r.choices(parts, k=r.randint(2, 8))]


def shapes(r: Random) -> dict[str, tuple[int, ...]]:
    kinds = (".motion_modules.0.to_q.weight", ".attentions.0.to_q.weight", ".motion_modules.0.pos_encoder.pe")
    return {f"block_{i}{r.choice(kinds)}": tuple(r.randint(1, 9) for _ in range(r.randint(1, 4))) for i in range(9)}


def points(r: Random) -> list[tuple[float, float]]:
    return [(r.uniform(0, 99), r.uniform(0, 99)) for _ in range(r.randint(2, 4))]


def keys_and_values(r: Random) -> list[Tensor]:
    count = r.randint(2, 6)
    return [normal(r, 3, count, 8) for _ in range(2)]


def temporal_attention(r: Random) -> nn.Module:
    layer = TemporalAttention(16, heads=r.choice([1, 2, 4]), max_length=32).eval().requires_grad_(False)
    for parameter in layer.parameters():
        parameter.copy_(normal(r, *parameter.shape, size=0.5))
    return layer


# What students write -> the arguments of one call, drawn with Python's random numbers.
INPUTS: dict[str, Callable[[Random], tuple]] = {
    # 00
    "place_in_frame": lambda r: (normal(r, 1, 6, 2, 5, 7), r.randrange(7), r.randrange(5), r.randint(0, 6)),
    "shapes": lambda r: (8 * r.randint(2, 9), 8 * r.randint(10, 20), r.randint(2, 20)),
    "mean_motion": lambda r: (normal(r, r.randint(1, 6), 2, 5, 7, size=4),),
    "still_outside": lambda r: (normal(r, 2, 3, 2, 5, 7), mask(r, 5, 7)),
    # 01
    "plane_field": lambda r: (torch.eye(3) + normal(r, 3, 3, size=0.01), r.randint(2, 9), r.randint(2, 9)),
    "my_splat": lambda r: (normal(r, r.randint(1, 4), 6, 9), normal(r, 2, 6, 9, size=2)),
    "resized": lambda r: (normal(r, 2, 1, 1, size=5).repeat(1, 24, 36), r.randint(2, 9), r.randint(2, 9)),
    "chained_field": lambda r: (inward(r, 6, 9), normal(r, 1, 2, 6, 9)),
    "kept": lambda r: (normal(r, 40, 6) * torch.arange(1.0, 7.0), r.randint(1, 5)),
    # 02
    "noisy_sample": lambda r: (normal(r, 2, 3), normal(r, 2, 3), number(r)),
    "clean_and_noise": lambda r: (normal(r, 2, 3), normal(r, 2, 3), number(r)),
    "ddim_step": lambda r: (normal(r, 2, 3), normal(r, 2, 3), number(r), number(r)),
    "training_pair": lambda r: (*(normal(r, 2, 3, 4, 2, 2) for _ in range(2)), times(r, 2), alpha_bar()),
    "frame_embedding": lambda r: (mlp(r, 8), mlp(r, 8), r.randint(0, 999), times(r, 4), 8),
    "widen": lambda r: (conv(r), r.randint(1, 4)),
    "trained_names": lambda r: (names(r), r.randint(1, 3)),
    "guided": lambda r: (normal(r, 2, 3), normal(r, 2, 3), number(r, 0, 9)),
    # 03
    "attend": lambda r: (normal(r, 3, r.randint(2, 5), 8), *keys_and_values(r), r.choice([1, 2, 4])),
    "augmented": lambda r: (lambda n: (normal(r, n + 1, 3, 4, 6), normal(r, n, 2, 16, 18, size=6)))(r.randint(1, 5)),
    "layer_output": lambda r: (temporal_attention(r), normal(r, 2 * r.randint(1, 6) + 1, 16, 2, 3)),
    "warped_share": lambda r: (normal(r, 4, 2, 3, 3, 7).softmax(-1),),
    "keep_first_clean": lambda r: (normal(r, 2, 3, 4, 5, 6), normal(r, 2, 3, 5, 6), r.randint(2, 999)),
    # 04
    "drag_field": lambda r: (points(r), r.randint(1, 12), 100, 100, r.randint(2, 15)),
    "for_the_encoder": lambda r: (normal(r, 3, 2, 8, 12, size=9), mask(r, 3, 1, 8, 12).float(), 4),
    "zero_convolution": lambda r: (r.randint(1, 9),),
    "gradients": lambda r: (lambda o, c: (normal(r, o, c), normal(r, 2, c, 3, 5), normal(r, 2, o, 3, 5)))(
        r.randint(1, 5), r.randint(1, 5)
    ),
    "part_of_thing": lambda r: (
        normal(r, 3, 2, 12, 16),
        mask(r, 12, 16).long() + mask(r, 12, 16).long(),
        r.randint(1, 2),
        (r.randrange(16), r.randrange(12)),
        number(r, 2, 7),
    ),
    "two_drags": lambda r: (normal(r, 2, 2, size=9), normal(r, 2, 2, size=9), normal(r, 7, 2, size=9)),
    "guided_twice": lambda r: (*(normal(r, 2, 3) for _ in range(3)), number(r, 0, 4), number(r, 0, 4)),
    # 05
    "chain": lambda r: (inward(r, 6, 9).repeat(r.randint(1, 5), 1, 1, 1) / 3,),
    "comes_home": lambda r: (inward(r, 7, 9)[0], normal(r, 2, 7, 9)),
    "camera_motion": lambda r: (normal(r, 3, 2, 5, 7),),
    "windows": lambda r: (r.randint(2, 90), r.randint(2, 20)),
    "flicker": lambda r: (normal(r, 4, 3, 6, 9), inward(r, 6, 9).repeat(3, 1, 1, 1), mask(r, 3, 6, 9)),
    # 06
    "group_sizes": lambda r: (shapes(r),),
    "training_bytes": lambda r: (r.randrange(10**9), r.randrange(10**9)),
    "sync_seconds": lambda r: (r.uniform(1e8, 1e10), r.randint(1, 8), r.randint(1, 99), r.uniform(1e11, 1e12), 2e10),
    "when_to_stop": lambda r: ([r.uniform(0, 5) + 9 / (i + 1) for i in range(20)], r.randint(1, 5), number(r, 0, 1)),
    "checkpoint_interval": lambda r: (number(r, 1, 300), number(r, 1, 900), r.randint(1, 2000)),
}

# Open exercises: many answers are right, so that there is nothing to compare with, and the check alone judges.
OPEN = {"my_motion", "hard_field", "my_times", "unseen_thing", "tilted_rocket", "hard_clip", "training_plan"}


def equal(got: Any, wanted: Any) -> bool:
    """Says whether two answers are the same up to rounding; a list may stand for a tuple, a number for a tensor.

    Args:
        got: the student's.
        wanted: the course's.
    """
    if isinstance(wanted, nn.Module):
        if not isinstance(got, nn.Module):
            return False
        ours, theirs = dict(wanted.named_parameters()), dict(got.named_parameters())
        trains = all(
            theirs[name].requires_grad == value.requires_grad for name, value in ours.items() if name in theirs
        )
        return ours.keys() == theirs.keys() and trains and all(equal(theirs[name], ours[name]) for name in ours)
    if isinstance(wanted, dict):
        return isinstance(got, dict) and got.keys() == wanted.keys() and all(equal(got[k], wanted[k]) for k in wanted)
    if isinstance(wanted, str):
        return got == wanted
    if isinstance(wanted, (list, tuple, range)):
        return hasattr(got, "__len__") and len(got) == len(wanted) and all(map(equal, got, wanted))
    try:
        mine, ours = (torch.as_tensor(value, dtype=torch.double).detach() for value in (got, wanted))
    except (TypeError, ValueError, RuntimeError):
        return False
    return mine.shape == ours.shape and torch.allclose(mine, ours, rtol=1e-4, atol=1e-5)


def reference(name: str) -> Callable:
    """The course's own answer, from the solved notebooks below `source/`.

    Args:
        name: of the function that students write.

    Returns:
        the function.

    Raises:
        KeyError: if no notebook has it.
    """
    for path in sorted(COURSE.glob("source/*/*.ipynb")):
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        if any(f"def {name}(" in cell.source for cell in cells):
            # An answer may call the answers of earlier exercises.
            solved = [cell.source for cell in cells if cell.metadata.get("nbgrader", {}).get("solution")]
            space: dict[str, Any] = {}
            for source in [cells[0].source, *solved]:
                exec(source, space)
            return space[name]
    raise KeyError(f"no notebook below {COURSE / 'source'} has a solution of {name}")


def agrees(answer: Callable, name: str) -> None:
    """Compares an answer with the course's own on hidden inputs.

    Args:
        answer: the student's function.
        name: what students call it.

    Raises:
        HiddenTestFailed: if they differ.
    """
    own, random = reference(name), Random(f"{SEED} {name}")
    for case in range(CASES):
        seed = random.randrange(2**31)
        wanted, got = own(*INPUTS[name](Random(seed))), answer(*INPUTS[name](Random(seed)))
        if not equal(got, wanted):
            raise HiddenTestFailed(
                f"{name} passes what the notebook shows, but is wrong on input {case + 1} of {CASES} hidden ones. Does"
                " it hold for other sizes and numbers than those of the check?"
            )
