"""The ledger of the equations: where each of them stands in the code, in the notebooks and in the tests.

The equations are listed here; the places are read from marks. A mark is the line `Equation: NAME, NAME` in the
docstring of a function or class of the package, the comment `# Equation: NAME` above a test, and in a Markdown cell
`<!-- equation: NAME -->`, which cannot be seen there. `make exercises` writes `notebooks/equations.md` from them, and
tests/test_equations.py sees to it that this file is up to date and that no equation lacks its function or its test.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import nbformat

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LEDGER = HERE / "equations.md"


class Equation(NamedTuple):
    """An equation of the course.

    Attributes:
        says: in words, what it says.
        latex: the equation, in the symbols of symbols.md.
        source: the section of the paper, or who else it comes from.
    """

    says: str
    latex: str
    source: str


EQUATIONS = {
    "unit-flow": Equation("flow as the autoencoder reads it", r"u = \tfrac12\,(f_x / W,\; f_y / H) + \tfrac12", "3.2"),
    "composition": Equation(
        "two motions, one after the other",
        r"f_{0\to i}(p) = f_{0\to i-1}(p) + f_{i-1\to i}\big(p + f_{0\to i-1}(p)\big)",
        "3.4 (dense tracks)",
    ),
    "backward-warp": Equation(
        "a later frame, brought back to frame 0",
        r"\tilde I_i(p) = I_i\big(p + f_{0\to i}(p)\big)",
        "3 (definition of f)",
    ),
    "noising": Equation(
        "a clean latent, mixed with noise",
        r"x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1 - \bar\alpha_t}\,\epsilon",
        "3.1; Ho et al. 2020",
    ),
    "velocity": Equation(
        "what lite's networks predict",
        r"v_t = \sqrt{\bar\alpha_t}\,\epsilon - \sqrt{1 - \bar\alpha_t}\,x_0",
        "Salimans and Ho 2022",
    ),
    "training-loss": Equation(
        "the loss of Stage 1",
        r"\mathcal L = \mathbb E\,\big\|\epsilon - \epsilon_\theta([y, x_t], t, c, s)\big\|^2",
        "3.2",
    ),
    "sampling": Equation(
        "one step of DDIM",
        r"x_{t'} = \sqrt{\bar\alpha_{t'}}\,\hat x_0 + \sqrt{1 - \bar\alpha_{t'}}\,\hat\epsilon",
        "Song et al. 2021",
    ),
    "guidance": Equation(
        "how loudly the words speak",
        r"\hat\epsilon = \epsilon_\varnothing + g\,(\epsilon_c - \epsilon_\varnothing)",
        "Ho and Salimans 2022",
    ),
    "zero-channels": Equation(
        "the photo comes in and changes nothing at first",
        r"\theta_{\mathrm{in}} = [\,0,\; \theta_{\mathrm{SD}}\,]",
        "3.2",
    ),
    "stride-embedding": Equation(
        "the stride of each frame, added to the time",
        r"e_{t,i} = \mathrm{MLP}_t(\gamma(t)) + \mathrm{MLP}_s(\gamma(s_i))",
        "3.2",
    ),
    "splatting": Equation(
        "features, pushed forward along the motion",
        r"z'_i(q) = \frac{\sum_p b\big(q - p - f(p)\big)\,z_0(p)}{\sum_p b\big(q - p - f(p)\big)},\quad"
        r" b(o) = \max(0, 1 - |o_x|)\max(0, 1 - |o_y|)",
        "3.3",
    ),
    "feature-flow": Equation(
        "a field on the grid of features",
        r"f^{h \times w} = \mathrm{resize}(f) \cdot (w / W,\; h / H)",
        "3.3",
    ),
    "augmented-sequence": Equation(
        "the keys and values of motion-augmented attention",
        r"z_{\mathrm{aug}} = [\,z_0,\; z'_1,\; z_1,\; \dots,\; z'_N,\; z_N\,]",
        "3.3",
    ),
    "attention": Equation(
        "the layer itself",
        r"\mathrm{softmax}\big(Q(z)\,K(z_{\mathrm{aug}})^\top / \sqrt d\,\big)\,V(z_{\mathrm{aug}})",
        "3.3",
    ),
    "clean-first-frame": Equation("the first frame of Stage 2 stays clean", r"x_t^{(0)} = y,\quad t^{(0)} = 1", "3.3"),
    "drag-path": Equation(
        "a drag as displacements", r"f_{0\to i} = P(i / N) - P(0),\quad P \text{ a monotone cubic spline}", "3.4"
    ),
    "condition": Equation(
        "what the ControlNet reads",
        r"\kappa = \big[\,\mathcal E\big((u - \tfrac12)\,m + \tfrac12\big),\; m\,\big]",
        "3.4",
    ),
    "zero-convolution": Equation(
        "how the ControlNet's features come in",
        r"\varphi_l \leftarrow \varphi_l + Z_l\big(\varphi^\kappa_l\big),\quad Z_l = 0 \text{ at first}",
        "3.4",
    ),
    "control-guidance": Equation(
        "two guidances, by words and by control",
        r"\hat\epsilon = \epsilon_{\varnothing,\kappa} + g\,(\epsilon_{c,\kappa} - \epsilon_{\varnothing,\kappa})"
        r" + (g_\kappa - 1)(\epsilon_{c,\kappa} - \epsilon_c)",
        "ours; Brooks et al. 2023",
    ),
    "thing": Equation(
        "a thing, moved by its drags",
        r"f(p) = \bar q + \zeta\,(p - \bar p) - p,\quad"
        r" \zeta = \frac{\sum_k (p_k - \bar p)^*(q_k - \bar q)}{\sum_k |p_k - \bar p|^2}",
        "ours",
    ),
    "brush": Equation(
        "what the brush holds still",
        r"x_{t'} \leftarrow \mu\,x_{t'}"
        r" + (1 - \mu)\big(\sqrt{\bar\alpha_{t'}}\,y + \sqrt{1 - \bar\alpha_{t'}}\,\epsilon\big)",
        "3.4",
    ),
    "guided-enlargement": Equation(
        "the field, enlarged with the photo's edges",
        r"f(p) = \sum_j \omega_j\,[f_j + G_j(p - p_j)],\quad"
        r" \omega_j \propto e^{-|p - p_j|^2 - |I_0(p) - I_0(p_j)|^2 / 2\sigma^2}",
        "ours; Kopf et al. 2007",
    ),
}

MARK = re.compile(r"^\s*(?:# )?Equation: ([\w, -]+)$", re.MULTILINE)
CELL_MARK = re.compile(r"<!-- equation: ([\w-]+) -->")


def code_marks(folder: Path) -> list[tuple[str, str]]:
    """Reads the marks of the docstrings of a folder, or of the comments above its tests.

    Args:
        folder: `mi2v_lite/` or `tests/`.

    Returns:
        pairs (name of the equation, place), sorted by place.
    """
    found = []
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text()
        if "Equation: " not in text:
            continue
        lines, where = text.splitlines(), path.relative_to(ROOT)
        for parent in ast.walk(ast.parse(text)):
            for node in parent.body if isinstance(parent, (ast.Module, ast.ClassDef)) else []:
                if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                    continue
                first = min([node.lineno, *(item.lineno for item in node.decorator_list)])
                above = lines[first - 2] if first > 1 else ""
                marked = ", ".join(MARK.findall(f"{above}\n{ast.get_docstring(node) or ''}"))
                owner = f"{parent.name}." if isinstance(parent, ast.ClassDef) else ""
                found += [(name, f"`{where}` {owner}{node.name}") for name in marked.split(", ") if name]
    return found


def cell_marks() -> list[tuple[str, str]]:
    """Reads the marks of the notebooks.

    Returns:
        pairs (name of the equation, link to the notebook and the heading above the cell).
    """
    found = []
    for path in sorted(HERE.glob("[0-9][0-9]_*.ipynb")):
        heading = ""
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type != "markdown":
                continue
            for line in cell.source.splitlines():
                heading = line.lstrip("# ") if re.match(r"#+ ", line) else heading
                found += [(name, f"[{path.name[:2]}]({path.name}), {heading}") for name in CELL_MARK.findall(line)]
    return found


def places() -> dict[str, dict[str, list[str]]]:
    """Collects all marks.

    Returns:
        name of the equation -> "functions", "cells" and "tests" -> the places.

    Raises:
        ValueError: for a mark that names no equation of the list.
    """
    table = {name: {"functions": [], "cells": [], "tests": []} for name in EQUATIONS}
    kinds = {"functions": code_marks(ROOT / "mi2v_lite"), "cells": cell_marks(), "tests": code_marks(ROOT / "tests")}
    for kind, marks in kinds.items():
        for name, place in marks:
            if name not in table:
                raise ValueError(f"{place} is marked with the equation {name!r}; there are {', '.join(EQUATIONS)}.")
            table[name][kind].append(place)
    return table


def ledger() -> str:
    """Writes the ledger as Markdown."""
    text = [
        "# The equations",
        "",
        "Each equation of the paper that the course covers: where the package computes it, where a notebook builds it,",
        "and which test holds it. Sections are those of the paper; the symbols are explained in [symbols](symbols.md).",
        "This file is generated by `make exercises`; the marks that it reads are described in `equations.py`.",
        "",
    ]
    for name, found in places().items():
        equation = EQUATIONS[name]
        text += [f"## {equation.says[0].upper()}{equation.says[1:]}", "", f"$${equation.latex}$$", ""]
        text += ["| | |", "|---|---|", f"| from | {equation.source} |"]
        for kind, label in (("functions", "computed in"), ("cells", "built in"), ("tests", "tested by")):
            text.append(f"| {label} | {'<br>'.join(found[kind]) or 'no cell is marked yet'} |")
        text.append("")
    return "\n".join(text)
