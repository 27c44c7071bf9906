"""What all checks share: how an answer is refused, how it passes, and when two tensors count as equal."""

from __future__ import annotations

import torch
from torch import Tensor


class CheckFailed(AssertionError):
    """The answer to an exercise is wrong; the message says in which way and where to look."""


def require(condition: bool, message: str) -> None:
    """Refuses an answer unless a condition holds.

    Args:
        condition: what must be true of a right answer.
        message: what is wrong otherwise, and where to look.

    Raises:
        CheckFailed: with the message, if the condition does not hold.
    """
    if not condition:
        raise CheckFailed(message)


def passed(message: str) -> None:
    """Tells the student that the answer is right.

    Args:
        message: a sentence about what that shows.
    """
    print(f"Correct. {message}")


def same(got: Tensor, wanted: Tensor) -> bool:
    """Says whether two tensors have the same shape and, up to rounding, the same values.

    Args:
        got: the student's tensor.
        wanted: what to compare it with.
    """
    return got.shape == wanted.shape and torch.allclose(got.float(), wanted.float(), atol=1e-4)
