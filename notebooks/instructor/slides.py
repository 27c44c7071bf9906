"""Slides from the notebooks, one HTML file each, for reveal.js.

`make slides` calls this and puts reveal.js and MathJax beside the files, so that they need no network. Nothing is
written twice: what a slide shows is chosen from the notebook.

- The headings `##` and `###` begin a slide, `##` to the right and `###` below it; what does not fit goes on below.
- Of the text a slide shows formulas, lists, tables, folded answers, and paragraphs that begin in bold, such as
  **Predict before you run**. All the rest becomes the speaker's notes (key S).
- Of the code it shows what it draws and prints, and the source only where it is short and draws nothing. The set-up,
  the exercises and what follows them are left out: students have them in their own notebooks.
"""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path

import nbformat
from nbconvert.filters import Highlight2HTML, markdown2html_mistune

SHORT = 14  # lines of source that fit on a slide
LAST = ("Exercises", "What could go wrong", "Where we differ", "Recap")
WHOLE = re.compile(r"(<details>.*?</details>|\$\$.*?\$\$|```.*?```)", re.DOTALL)
SHOWN = re.compile(r"\$\$|\||[-*] |\d+\. |\*\*|<details>|!\[|<img")

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<link rel="stylesheet" href="reveal.js/reveal.css"><link rel="stylesheet" href="reveal.js/theme/white.css">
<style>
.reveal {{ font-size: 26px }} .reveal h1, .reveal h2, .reveal h3 {{ text-transform: none; font-size: 1.6em }}
.reveal .slides section {{ text-align: left }} .reveal section img {{ max-width: 100%; max-height: 480px; margin: 0 }}
.reveal pre {{ font-size: 0.62em; width: 100%; box-shadow: none; white-space: pre-wrap }}
.reveal table {{ font-size: 0.75em }}
.reveal .source {{ background: #f5f5f5; padding: 0.4em }} .reveal ul, .reveal ol {{ display: block }}
.k, .kn, .ow {{ color: #0f5f2d; font-weight: bold }} .s1, .s2, .sd, .si, .sa {{ color: #a31515 }}
.c1 {{ color: #3d6b6b; font-style: italic }} .mi, .mf {{ color: #0550ae }} .nf {{ color: #6639ba }}
</style></head><body><div class="reveal"><div class="slides">
{slides}
</div></div>
<script>
window.MathJax = {{tex: {{inlineMath: [["$", "$"], ["\\\\(", "\\\\)"]]}}, chtml: {{scale: 0.9}}}}</script>
<script src="mathjax/tex-chtml.js"></script>
<script src="reveal.js/reveal.js"></script><script src="reveal.js/plugin/notes/notes.js"></script>
<script>
Reveal.initialize({{hash: true, slideNumber: true, transition: "none", center: false, plugins: [RevealNotes]}})
</script>
</body></html>
"""


class Deck:
    """Slides as they grow: columns of slides, each with what it shows and what the speaker says."""

    def __init__(self) -> None:
        self.columns: list[list[tuple[list[str], list[str]]]] = []
        self.filled = 0.0  # share of the slide that is taken

    def begin(self, below: bool = False) -> None:
        """Begins a slide, to the right of the last one or below it."""
        if not below or not self.columns:
            self.columns.append([])
        self.columns[-1].append(([], []))
        self.filled = 0.0

    def show(self, text: str, share: float) -> None:
        """Puts HTML on the slide, or on a new one below if it takes more of a slide than there is room."""
        if self.filled and self.filled + share > 1:
            self.begin(below=True)
        self.columns[-1][-1][0].append(text)
        self.filled += share

    def say(self, text: str) -> None:
        """Puts HTML into the speaker's notes."""
        self.columns[-1][-1][1].append(text)

    def as_html(self) -> str:
        """All slides as sections for reveal.js; a slide with notes alone gives them to the one before it."""
        columns = []
        for column in self.columns:
            kept: list[tuple[list[str], list[str]]] = []
            for shown, notes in column:
                if shown or not kept:
                    kept.append((shown, notes))
                else:
                    kept[-1][1].extend(notes)
            slides = [
                f"<section>{''.join(shown)}<aside class='notes'>{''.join(notes)}</aside></section>"
                for shown, notes in kept
            ]
            columns.append(slides[0] if len(slides) == 1 else f"<section>{''.join(slides)}</section>")
        return "\n".join(columns)


def blocks(text: str) -> list[str]:
    """Splits Markdown into its paragraphs; formulas and folded answers stay whole.

    Args:
        text: the source of a cell.
    """
    parts = WHOLE.split(re.sub(r"<!--.*?-->", "", text))
    found = [[part] if number % 2 else re.split(r"\n\s*\n", part) for number, part in enumerate(parts)]
    return [block.strip() for group in found for block in group if block.strip()]


def markdown(text: str) -> str:
    """Markdown as HTML, without the links to its headings."""
    return re.sub(r'<a class="anchor-link".*?</a>', "", markdown2html_mistune(text))


def embedded(text: str, folder: Path) -> str:
    """Puts the pictures that Markdown refers to into it, since the slides lie elsewhere."""

    def data(match: re.Match) -> str:
        picture = folder / match[1]
        return f"](data:image/{picture.suffix[1:]};base64,{base64.b64encode(picture.read_bytes()).decode()})"

    return re.sub(r"\]\(([^)\s:]+\.(?:png|jpg))\)", data, text)


def rendered(outputs: list[nbformat.NotebookNode]) -> list[tuple[float, str]]:
    """What a cell drew or printed: (the share of a slide that it takes, HTML)."""
    found = []
    for output in outputs:
        data = output.get("data", {})
        if "image/png" in data:
            words = html.escape(output.metadata.get("image/png", {}).get("alt", ""), quote=True)
            found.append((0.75, f'<img alt="{words}" src="data:image/png;base64,{data["image/png"].strip()}">'))
        elif "text/markdown" in data:
            found.append((0.06 * data["text/markdown"].count("\n"), markdown(data["text/markdown"])))
        elif output.get("text") or data.get("text/plain"):
            text = output.get("text") or data["text/plain"]
            found.append(
                (
                    0.04 + 0.03 * sum(1 + len(line) // 100 for line in text.splitlines()),
                    f"<pre>{html.escape(text)}</pre>",
                )
            )
    return found


def to_slides(notebook: nbformat.NotebookNode, folder: Path) -> Deck:
    """Chooses what the slides of a notebook show.

    Args:
        notebook: as it is stored, with its outputs.
        folder: where it lies.
    """
    deck, code, ended = Deck(), 0, False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for block in blocks(embedded(cell.source, folder)):
                heading = re.match(r"(#+) (.+)", block)
                if heading and len(heading[1]) <= 2:
                    ended = heading[2].startswith(LAST)
                if ended:
                    continue
                if heading:
                    deck.begin(below=len(heading[1]) > 2)
                    deck.show(markdown(heading[0]), 0.1)
                    block = block[heading.end() :].strip()
                if block and SHOWN.match(block):
                    deck.show(
                        markdown(block),
                        0.75 if "](data:" in block else 0.06 * (1 + max(len(block) // 80, block.count("\n"))),
                    )
                elif block:
                    deck.say(markdown(block))
            continue
        code += 1
        if ended or code == 1:
            continue
        outputs, lines = rendered(cell.outputs), cell.source.count("\n") + 1
        if lines <= SHORT and not any("<img" in output for _, output in outputs):
            deck.show(f'<div class="source">{Highlight2HTML()(cell.source, "python")}</div>', 0.12 + 0.035 * lines)
        for share, output in outputs:
            deck.show(output, share)
    return deck


def write_slides(path: Path, folder: Path) -> Path:
    """Writes the slides of a notebook.

    Args:
        path: the notebook, with its outputs.
        folder: where they go; `make slides` puts `reveal.js/` and `mathjax/` there.

    Returns:
        the HTML file.
    """
    notebook = nbformat.read(path, as_version=4)
    title = re.match(r"# (.+)", notebook.cells[0].source)[1]
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{path.stem}.html"
    target.write_text(PAGE.format(title=html.escape(title), slides=to_slides(notebook, path.parent).as_html()))
    return target
