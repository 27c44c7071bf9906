"""Shows training logs as one table and one picture: `mi2v curves` (the model card; notebook 02 reads the same logs)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from mi2v_lite.io.files import brief
from mi2v_lite.viz.pictures import Picture
from mi2v_lite.viz.plots import figure_picture, style

COLUMNS = 3
SMOOTH = 9  # rows of the training loss that one drawn point averages


@dataclass(frozen=True)
class Log:
    """What a training step wrote to its `log.csv`.

    Attributes:
        name: of the step.
        loss: updates and values of the training loss.
        heldout: updates and values of the held-out figure.
        measure: the name of the held-out figure.
        minutes: the time of all updates in the log, also of those before a run was resumed.
    """

    name: str
    loss: tuple[np.ndarray, np.ndarray]
    heldout: tuple[np.ndarray, np.ndarray]
    measure: str
    minutes: float


def read_logs(folder: Path) -> list[Log]:
    """Reads the logs in a folder, `NAME.csv` or `NAME/log.csv` as the trainer leaves them, sorted by name.

    Raises:
        ValueError: if there is none, or if a file is not a log of the trainer.
    """
    paths = {path.stem: path for path in folder.glob("*.csv") if path.is_file()}
    paths |= {path.parent.name: path for path in folder.glob("*/log.csv") if path.is_file()}
    if not paths:
        raise ValueError(f"{folder} has no training logs: NAME.csv or NAME/log.csv.")
    return [_read(name, paths[name]) for name in sorted(paths)]


def _read(name: str, path: Path) -> Log:
    try:
        whole = path.read_text(encoding="utf-8").rpartition("\n")[0]  # a killed training may leave a torn last line
        rows = list(csv.DictReader(whole.splitlines(), restval=""))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a training log ({brief(error)}); expected a CSV file.") from error
    if not rows or not {"step", "loss", "seconds"} <= set(rows[0]):
        raise ValueError(f"{path} is not a training log; expected the columns step, loss and seconds.")
    measure = next((key for key in rows[0] if key and key.startswith("heldout")), "")
    try:
        trained = [(int(row["step"]), float(row["loss"]), float(row["seconds"])) for row in rows if row["loss"]]
        held = [(int(row["step"]), float(row[measure])) for row in rows if measure and row[measure]]
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({brief(error)}), expected numbers: mend or remove that row.") from error
    if not trained:
        raise ValueError(f"{path} has no row with a training loss yet: wait for the training, or remove the file.")
    steps, loss, seconds = (np.array(column) for column in zip(*trained, strict=True))
    between = np.diff(steps, prepend=steps[0] - (steps[1] - steps[0] if len(steps) > 1 else steps[0]))
    x, y = (np.array([pair[i] for pair in held]) for i in (0, 1))
    return Log(name, (steps, loss), (x, y), measure, float((between * seconds).sum() / 60))


def markdown(logs: list[Log]) -> str:
    """Writes a Markdown table of the updates in each log, the minutes and the last held-out figure."""
    rows = ["| step | updates in the log | minutes | held out at the end |", "|---|---|---|---|"]
    for log in logs:
        last = f"{log.heldout[1][-1]:.4f} ({log.measure})" if len(log.heldout[1]) else ""
        rows.append(f"| {log.name} | to {log.loss[0][-1]} | {log.minutes:.0f} | {last} |")
    return "\n".join(rows)


def picture(logs: list[Log]) -> Picture:
    """Draws a small plot for each step: the training loss, averaged over some rows, and the held-out figure as dots."""
    lines = -(-len(logs) // COLUMNS)
    with style():
        plt.rcParams["font.size"] = 10
        figure, axes = plt.subplots(lines, COLUMNS, figsize=(3.2 * COLUMNS, 2.4 * lines), squeeze=False, layout="tight")
        for plot, log in zip(axes.flat, logs, strict=False):
            steps, loss = log.loss
            kernel = np.ones(min(SMOOTH, len(loss))) / min(SMOOTH, len(loss))
            smooth = np.convolve(loss, kernel, "valid")
            plot.plot(steps[len(steps) - len(smooth) :], smooth, linewidth=1, label="training")
            plot.plot(*log.heldout, "o-", markersize=3, linewidth=1.5, label="held out")
            plot.set(title=log.name, xlabel="update")
        for plot in axes.flat[len(logs) :]:
            plot.axis("off")
        axes.flat[0].legend(fontsize=8)
        names = ", ".join(log.name for log in logs)
        return figure_picture(figure, f"Training and held-out loss against updates of the steps {names}.")
