"""The ledger of the equations is up to date, and each equation has its function and its test."""

import equations
import pytest


def test_each_equation_is_computed_and_tested():
    for name, found in equations.places().items():
        assert found["functions"], f"no docstring says `Equation: {name}`"
        assert found["tests"], f"no test has the comment `# Equation: {name}` above it"


def test_the_ledger_is_up_to_date():
    assert equations.LEDGER.read_text() == equations.ledger(), "run: make exercises"


def test_a_mark_of_no_equation_is_refused(monkeypatch):
    monkeypatch.setattr(equations, "cell_marks", lambda: [("splating", "a cell")])
    with pytest.raises(ValueError, match="a cell is marked with the equation 'splating'; there are unit-flow"):
        equations.places()
