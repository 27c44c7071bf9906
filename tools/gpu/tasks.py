"""Tasks in a row, each of a known length, that stop by themselves before a limit and keep what they have."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mi2v_lite.io.files import atomic

Rows = list[dict]


@dataclass(frozen=True)
class Task:
    """Something to measure or to check.

    Attributes:
        name: what the table calls it.
        seconds: how long it is expected to take.
        run: does it; returns rows for the table, each a mapping of column names to plain values.
    """

    name: str
    seconds: float
    run: Callable[[], Rows]


def run_tasks(
    tasks: Sequence[Task], limit: float, path: Path, about: dict, clock: Callable[[], float] = time.monotonic
) -> bool:
    """Runs tasks until the limit would be passed, and writes what is known to a JSON file after each of them.

    A task that fails does not stop the others: its row holds the error. A task that would not end before the limit is
    left out, and a shorter one after it may still run.

    Args:
        tasks: in the order of their importance.
        limit: seconds for all of them together.
        path: the JSON file, `{"about": ..., "tasks": [{"name", "state", "seconds", "expected", "rows", "error"}]}`.
        about: what the file says of the machine.
        clock: seconds that only grow.

    Returns:
        whether every task ran and none failed.
    """
    start, results = clock(), []
    print(f"plan, {limit:.0f} s at most:")
    for task in tasks:
        print(f"  {task.seconds:5.0f} s  {task.name}")
    for task in tasks:
        began = clock()
        left = limit - (began - start)
        record = {"name": task.name, "expected": task.seconds, "seconds": 0.0, "rows": [], "error": ""}
        if task.seconds > left:
            record["state"] = "left out"
            record["error"] = f"it takes about {task.seconds:.0f} s, and {max(left, 0):.0f} s were left"
        else:
            try:
                record["rows"] = task.run()
                record["state"] = "done"
            except Exception as error:  # whatever it is, the other tasks go on
                record["state"] = "failed"
                record["error"] = f"{type(error).__name__}: {error}"
                traceback.print_exc()
        record["seconds"] = round(clock() - began, 2)
        results.append(record)
        with atomic(path) as beside:
            beside.write_text(json.dumps({"about": about, "tasks": results}, indent=1) + "\n", encoding="utf-8")
        print(f"[{clock() - start:5.0f} s] {task.name}: {record['state']} {record['error']}", flush=True)
    return all(record["state"] == "done" for record in results)


def table(results: Sequence[dict]) -> str:
    """The rows of all tasks as one Markdown table, with the tasks that failed or were left out below it."""
    rows = [{"task": record["name"], **row} for record in results for row in record["rows"]]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)] if rows else []
    lines += ["| " + " | ".join(_shown(row.get(column, "")) for column in columns) + " |" for row in rows]
    missing = [record for record in results if record["state"] != "done"]
    return "\n".join([*lines, *(f"- {record['name']}: {record['state']}: {record['error']}" for record in missing)])


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
