"""What all checks share: how an answer is read, refused or passed, and when two tensors count as equal."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from types import FunctionType, TracebackType

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
    require(value is not None, "Your function returned nothing. Does it have a `return`?")
    return torch.as_tensor(value)


def same(got: Tensor, wanted: Tensor) -> bool:
    """Says whether two tensors have the same shape and, up to rounding, the same values.

    Args:
        got: the student's tensor.
        wanted: what to compare it with.
    """
    return got.shape == wanted.shape and torch.allclose(got.float(), wanted.float(), atol=1e-4)


def hide_answers(module: dict[str, object]) -> None:
    """Makes the checks of a module leave themselves out of tracebacks.

    Where a student's own function raises an error, the traceback would show the check that called it, and with it the
    right answer.

    Args:
        module: its `globals()`; the public functions in it are replaced.
    """
    for name, check in list(module.items()):
        if isinstance(check, FunctionType) and check.__module__ == module["__name__"] and not name.startswith("_"):
            module[name] = _hidden(check)


def _hidden(check: FunctionType) -> FunctionType:
    @wraps(check)
    def call(*args: object, **kwargs: object) -> object:
        __tracebackhide__ = True  # IPython leaves out frames that have this
        try:
            return check(*args, **kwargs)
        except CheckFailed:
            raise
        except Exception as error:
            error.__traceback__ = _of_others(error.__traceback__)
            raise

    return call


def _of_others(traceback: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames that are in this folder."""
    if traceback is None:
        return None
    rest = _of_others(traceback.tb_next)
    if Path(traceback.tb_frame.f_code.co_filename).parent == Path(__file__).parent:
        return rest
    return TracebackType(rest, traceback.tb_frame, traceback.tb_lasti, traceback.tb_lineno)
