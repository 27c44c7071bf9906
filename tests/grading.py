"""The tests that the checks of every notebook pass: a solution is praised, each wrong answer is told what is wrong.

test_the_solution_passes, test_a_wrong_answer_is_told_what_is_wrong, test_messages_differ = grading_tests(RIGHT, WRONG)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from mi2v_checks.base import CheckFailed

Check = Callable[[Any], None]


def grading_tests(right: dict[Check, Any], wrong: dict[Check, dict[str, tuple[Any, str]]]) -> tuple[Callable, ...]:
    """Three tests. right: check -> solution. wrong: check -> name -> (wrong answer, what its message must say)."""

    @pytest.mark.parametrize("check", right, ids=lambda check: check.__name__)
    def test_the_solution_passes(check, capsys):
        check(right[check])
        assert capsys.readouterr().out.startswith("Correct.")

    @pytest.mark.parametrize(
        "check, name",
        [(c, n) for c, answers in wrong.items() for n in answers],
        ids=lambda x: getattr(x, "__name__", x),
    )
    def test_a_wrong_answer_is_told_what_is_wrong(check, name):
        answer, message = wrong[check][name]
        with pytest.raises(CheckFailed, match=message):
            check(answer)

    def test_messages_differ():
        for answers in wrong.values():
            assert len({message for _, message in answers.values()}) == len(answers) >= 2

    return test_the_solution_passes, test_a_wrong_answer_is_told_what_is_wrong, test_messages_differ
