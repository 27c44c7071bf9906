"""Checks of notebook 06, full scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mi2v_checks.base import passed, require


def _near(got: float, wanted: float, share: float = 1e-3) -> bool:
    return abs(got - wanted) <= share * abs(wanted)


def group_sizes(answer: Callable[[dict[str, Sequence[int]]], dict[str, int]]) -> None:
    """Checks how many values the motion modules and the spatial layers of a file hold.

    Args:
        answer: `answer(shapes)` counts them as "motion" and "spatial", for name -> shape, as the header of the file has
            them.

    Raises:
        CheckFailed: if it counts tensors, adds the sides of a shape, or counts position tables as parameters.
    """
    shapes = {
        "conv_in.weight": [320, 4, 3, 3],
        "conv_in.bias": [320],
        "down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight": [320, 320],
        "down_blocks.0.motion_modules.0.temporal_transformer.norm.bias": [320],
        "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe": [
            *(1, 32, 320)
        ],
    }
    got = {key: int(value) for key, value in answer(dict(shapes)).items()}
    require(set(got) == {"motion", "spatial"}, f"Two groups are asked for, 'motion' and 'spatial'; got {sorted(got)}.")
    require(
        got != {"motion": 3, "spatial": 2},
        "These are numbers of tensors; a tensor has as many values as its shape's product.",
    )
    require(got["spatial"] != 320 + 4 + 3 + 3 + 320, "The sides of a shape are multiplied, not added.")
    require(got["spatial"] == 11840, f"conv_in has 320 x 4 x 3 x 3 + 320 = 11,840 values; got {got['spatial']:,}.")
    require(
        got["motion"] != 102_720 + 10_240,
        "The position table (pos_encoder.pe) was counted: it is a constant, no parameter. Leave it out.",
    )
    require(got["motion"] == 102_720, f"The motion module has 320 x 320 + 320 = 102,720; got {got['motion']:,}.")
    passed("The header alone tells what a file holds; no weight was read.")


def training_bytes(answer: Callable[[int, int], int]) -> None:
    """Checks how many bytes the trainer holds for parameters, without activations.

    Args:
        answer: `answer(frozen, trained)` gives the bytes. All weights are float32; what trains also has a gradient, two
            moments of AdamW and an average, all float32.

    Raises:
        CheckFailed: if frozen weights get moments, something is forgotten, or numbers are taken for bytes.
    """
    got = int(answer(1000, 10))
    require(got != 1060 - 10, "These are numbers, not bytes: a float32 takes 4 bytes.")
    require(
        got != 4 * 5 * 1010, "Frozen weights have no gradient, no moments and no average: only what trains has them."
    )
    require(
        got != 4 * (1000 + 4 * 10), "Something that trains is there five times: weight, gradient, two moments, average."
    )
    require(got != 4 * (1000 + 3 * 10), "AdamW keeps two moments, and the trainer keeps the average as well.")
    require(got != 4 * 5 * 10, "Frozen weights are held too, once.")
    require(got == 4 * (1000 + 5 * 10), f"1000 frozen and 10 trained make 4 x (1000 + 5 x 10) = 4200 bytes; got {got}.")
    require(int(answer(0, 7)) == 140, "Right for that case; but 7 trained alone take 140 bytes.")
    passed("Stage 2 trains a third of its values, and that costs half of the bytes.")


def attention_flops(answer: Callable[[int, int, int, int], float]) -> None:
    """Checks the operations of the two products in a spatial self-attention.

    Args:
        answer: `answer(frames, height, width, channels)` gives them at latent size. Each position of a frame attends to
            all of its frame; a multiplication with its addition counts as two operations.

    Raises:
        CheckFailed: if frames see each other, a product is forgotten, or a multiplication counts once.
    """
    f, h, w, c = 3, 4, 6, 10
    wanted = 4.0 * f * (h * w) ** 2 * c
    got = float(answer(f, h, w, c))
    require(not _near(got, wanted * f), "Here all frames attend to each other; in space each frame is on its own.")
    require(
        not _near(got, wanted / 2),
        "Half of it: there are two products, queries with keys and weights with values, two operations a term.",
    )
    require(not _near(got, wanted / 4), "A quarter of it: two products, and two operations a multiplication.")
    require(not _near(got, 4.0 * f * h * w * c), "Each position meets *every* position of its frame: squared.")
    require(_near(got, wanted), f"4 F (h w)^2 C = {wanted:.0f} for F=3, 4x6, C=10; got {got:.0f}.")
    require(_near(float(answer(1, 8, 8, 2)), 4.0 * 64**2 * 2), "Right for one case only; try F=1, 8x8, C=2.")
    passed("Twice the side, sixteen times the attention: this is what makes large pictures expensive.")


def joined_gradient(answer: Callable[[list[Tensor], list[int]], Tensor]) -> None:
    """Checks the gradient that several processes have together: that of the mean loss over all items.

    Args:
        answer: `answer(gradients, counts)` gives it, of each process's own mean gradient and its number of items.

    Raises:
        CheckFailed: if it sums, or takes the plain mean where the processes have different numbers of items.
    """
    gradients, counts = [torch.tensor([1.0, 2.0]), torch.tensor([5.0, -2.0])], [3, 1]
    got = torch.as_tensor(answer([g.clone() for g in gradients], list(counts))).float()
    require(got.shape == (2,), f"The result has the gradient's shape (2,), got {tuple(got.shape)}.")
    require(
        not torch.allclose(got, torch.tensor([6.0, 0.0])), "This is the sum: the step would grow with the processes."
    )
    require(
        not torch.allclose(got, torch.tensor([3.0, 0.0])),
        "The plain mean counts the process with 1 item as much as the one with 3: weigh them by their items.",
    )
    require(
        not torch.allclose(got, torch.tensor([8.0, 4.0])), "Weighed and summed, but not divided by the number of items."
    )
    require(
        torch.allclose(got, torch.tensor([2.0, 1.0])), f"(3 x [1, 2] + 1 x [5, -2]) / 4 = [2, 1]; got {got.tolist()}."
    )
    passed("With equal batches this is the plain mean that all-reduce takes, so every process gets an equal batch.")


def checkpoint_interval(answer: Callable[[float, float, int], float]) -> None:
    """Checks the time between checkpoints that loses least, after Young (1974).

    Args:
        answer: `answer(write_seconds, days_between, gpus)` gives it in seconds, where `days_between` are the days
            between two failures of *one* GPU.

    Raises:
        CheckFailed: if the number of GPUs is forgotten, days are taken for seconds, or the 2 or the root is missing.
    """
    write, days, gpus = 60.0, 2000.0, 1000
    mean = days * 86_400 / gpus
    wanted = (2 * write * mean) ** 0.5
    got = float(answer(write, days, gpus))
    require(
        not _near(got, (2 * write * days * 86_400) ** 0.5),
        "This is for one GPU: a thousand fail a thousand times as often.",
    )
    require(not _near(got, (2 * write * days / gpus) ** 0.5), "Days went in as seconds: a day has 86,400.")
    require(not _near(got, (write * mean) ** 0.5), "The 2 is missing: sqrt(2 x write time x time between failures).")
    require(not _near(got, 2 * write * mean), "The root is missing.")
    require(
        not _near(got, (2 * write * days * 86_400 * gpus) ** 0.5), "More GPUs fail more often: divide by their number."
    )
    require(_near(got, wanted), f"sqrt(2 x 60 s x {mean:,.0f} s) = {wanted:,.0f} s; got {got:,.0f}.")
    require(_near(float(answer(10.0, 100.0, 10)), (2 * 10 * 864_000) ** 0.5), "Right for one case only.")
    passed("Ten times the GPUs, a third of the interval: failures set the pace.")
