"""What `tools.benchmark.speed` has measured as a document: docs/performance.md."""

from __future__ import annotations

from collections.abc import Sequence


def document(report: dict) -> str:
    """Writes the document in Markdown.

    Args:
        report: `{"about", "tasks"}` as `tools.gpu.tasks.run_tasks` writes it, with the rows of `tools.benchmark.speed`;
            `about["toy"]` says whether everything was small.
    """
    about, tasks = report["about"], report["tasks"]
    rows = [{"task": task["name"], **row} for task in tasks for row in task["rows"]]
    kinds = {kind: [row for row in rows if row["kind"] == kind] for kind in ("asked", "roofline", "tried")}
    lines = ["# How fast it is", "", *_preface(about, tasks), ""]
    if kinds["asked"]:
        lines += ["## What was asked and what was measured", "", *_asked(kinds["asked"]), ""]
    lines += ["## What was missed", "", *_missed(kinds["asked"], tasks), ""]
    if any("numbers" in row for row in rows):
        lines += ["## Cost against frames, pixels and steps", "", *_linear(kinds["asked"]), ""]
    if kinds["roofline"]:
        lines += ["## Roofline", "", *_roofline(kinds["roofline"]), ""]
    if kinds["tried"]:
        lines += ["## What was tried and did not pay", "", *_tried(kinds["tried"]), ""]
    lines += ["## How long it took, and what else the machine did", "", *_watched(tasks)]
    return "\n".join(lines)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """A Markdown table as lines."""
    return [f"| {' | '.join(str(cell) for cell in cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def _preface(about: dict, tasks: list[dict]) -> list[str]:
    environment = ", ".join(f"{key}={value or 'not set'}" for key, value in about["environment"].items())
    took = sum(task["seconds"] for task in tasks)
    lines = [
        "Printed by `python -m tools.benchmark --what speed -o docs/performance.md`, which also writes every single "
        f"measurement to a JSON file beside it; it took {took / 60:.1f} minutes. No figure is typed by hand, and no "
        "test asserts a time.",
        "",
        *table(
            ("machine", ""),
            [
                ("processor", f"{about['cpu']}, {about['cores']} cores, {about['instructions']}"),
                ("threads", f"{about['threads']} ({environment})"),
                ("versions", f"Python {about['python']}, torch {about['torch']}, diffusers {about['diffusers']}"),
                ("commit", about["commit"] or "not known"),
                ("load at the start", _number(about["load"])),
            ],
        ),
        "",
        "Two computations are compared by turns: in each round ours makes a call and then the other, so a busy moment "
        "of the machine hits both, and the ratio is taken within the round. The tables give the median over the "
        "rounds and, in brackets, the lowest and the highest. A first call of each does not count. The full-size "
        "networks are those of `mi2v_lite/configs/full.yaml` with random weights, one clip without guidance. The most "
        "memory is the highest resident size of a process that does nothing else, with Python and torch themselves. "
        "A new process finds its files in the system's cache.",
    ]
    return [*lines, "", "**Everything was small: these figures mean nothing.**"] if about["toy"] else lines


def _asked(rows: list[dict]) -> list[str]:
    cells = []
    for row in rows:
        measured = f"{row['measured']:.3g}{row['unit']}"
        if row["rounds"] > 1 and row["lowest"] != row["highest"]:
            measured += f" ({row['lowest']:.3g} to {row['highest']:.3g})"
        cells.append((row["what"], row["against"], row["asked"], f"{measured}{'' if row['met'] else ', missed'}",
                      _pair(row), row["rounds"]))  # fmt: skip
    return table(("what", "against", "asked", "measured", "ours, the other", "rounds"), cells)


def _pair(row: dict) -> str:
    if "ours_gib" in row:
        return f"{row['ours_gib']:.2f} GiB, {row['other_gib']:.2f} GiB"
    return f"{_seconds(row['ours'])}, {_seconds(row['other'])}" if "ours" in row else "-"


def _missed(rows: list[dict], tasks: list[dict]) -> list[str]:
    lines = [
        f"- {row['what']}: {row['measured']:.3g}{row['unit']} where {row['asked']} was asked for."
        for row in rows
        if not row["met"]
    ]
    lines += [f"- `{task['name']}` was not measured: {task['error']}." for task in tasks if task["state"] != "done"]
    return lines or ["Nothing of what was asked for and is in the table above."]


def _linear(rows: list[dict]) -> list[str]:
    fits = [row for row in rows if "numbers" in row]
    cells = []
    for row in fits:
        points = ", ".join(f"{n}: {_seconds(time)}" for n, time in zip(row["numbers"], row["times"], strict=True))
        line = f"{_seconds(row['fixed'])} + {_seconds(row['slope'])} each"
        cells.append((row["what"].removeprefix("cost against "), points, line, f"{row['measured']:.1f} %"))
    return [
        "The line has the smallest relative errors over the medians; the deviation is the largest of any point from "
        "it.",
        "",
        *table(("what", "measured", "line", "deviation"), cells),
    ]


def _roofline(rows: list[dict]) -> list[str]:
    cells = [
        (row["what"], _seconds(row["time"]), f"{row['gflops']:.3g}", f"{row['gbytes']:.3g}",
         f"{row['operations_a_byte']:.3g}", row["limit"], f"{100 * row['share']:.0f} %")
        for row in rows
    ]  # fmt: skip
    return [
        "The main parts of the full-size Stage 2 UNet, one call of each. The limits are measured in the same rounds: "
        "the highest rate of any of these computations in its precision is what the cores do at best, and the copy "
        "says how much the memory moves. Bytes are what must be read and written at least, so a part whose data stay "
        "in the caches can exceed the memory's limit. The share is that of the nearer limit.",
        "",
        *table(("part", "a call", "GFLOP/s", "GB/s", "FLOP a byte", "limited by", "share of the limit"), cells),
    ]


def _tried(rows: list[dict]) -> list[str]:
    better = [row for row in rows if row["highest"] < 0.97]
    lines = [
        "Other forms of the same computations beside those that the package has; above 1 the other form is slower.",
        "",
        *table(
            ("what was tried", "instead of", "times as long", "the package's, this", "rounds"),
            [
                (row["what"], row["against"], f"{row['measured']:.3g} ({row['lowest']:.3g} to {row['highest']:.3g})",
                 _pair(row), row["rounds"])
                for row in rows
            ],
        ),
        "",
    ]  # fmt: skip
    if better:
        names = "; ".join(f"{row['what']} ({row['measured']:.3g} times as long)" for row in better)
        return [*lines, f"Faster on this machine in every round, and not what the package does: {names}."]
    return [*lines, "None of them was faster in every round."]


def _watched(tasks: list[dict]) -> list[str]:
    cells = []
    for task in tasks:
        first = task["rows"][0] if task["rows"] else {}
        cells.append((task["name"], f"{task['seconds']:.0f}", _number(first.get("load")), _number(first.get("others"))))
    return table(("part (`--only`)", "seconds", "load before it", "cores that other programs kept busy"), cells)


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.2f}"


def _seconds(value: float) -> str:
    """Seconds in a unit that is read easily."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} µs"
