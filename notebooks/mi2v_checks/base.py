"""What all checks share: how an answer is read, refused or passed, and when two tensors count as equal."""

from __future__ import annotations

import torch
from torch import Tensor


class CheckFailed(AssertionError):
    """The answer to an exercise is wrong; the message says in which way and where to look."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the message alone. A traceback would show the check, and with it the right answer."""
        return [f"Not yet. {self}"]


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


def tensor(value: object) -> Tensor:
    """Reads what a student's function returned.

    Args:
        value: a tensor or something that can become one.

    Returns:
        the tensor.

    Raises:
        CheckFailed: if it is None.
    """
    require(value is not None, "Your function returned nothing. Has it a `return`?")
    return torch.as_tensor(value)


def same(got: Tensor, wanted: Tensor) -> bool:
    """Says whether two tensors have the same shape and, up to rounding, the same values.

    Args:
        got: the student's tensor.
        wanted: what to compare it with.
    """
    return got.shape == wanted.shape and torch.allclose(got.float(), wanted.float(), atol=1e-4)
