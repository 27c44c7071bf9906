"""The little that all checks share: how an answer is refused, and how it passes."""

from __future__ import annotations


class CheckFailed(AssertionError):
    """An exercise's answer is wrong; the message says in which way and where to look."""


def require(condition: bool, message: str) -> None:
    """Raises CheckFailed with `message` unless `condition` holds."""
    if not condition:
        raise CheckFailed(message)


def passed(message: str) -> None:
    """Tells the student that the answer is right, and in one sentence what that shows."""
    print(f"Correct. {message}")
