"""Reads what `make experiments` found, and says how certain it is.

start = load("flow_vae_start")
start.values["from scratch"]["epe"]                  # an array, one row for each seed
mean, half = interval(start.values["from scratch"]["epe"])
print(start)                                         # seeds, settings, commit and minutes in one line
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

# In an installed package the results are inside it; in the repository they are beside it.
PLACES = (Path(__file__).parent / "findings", Path(__file__).parents[1] / "results")


@dataclass(frozen=True)
class Result:
    """What an experiment found.

    Attributes:
        experiment: its name, a file of `notebooks/experiments`.
        question: what it was to find out.
        seeds: one for each repetition.
        settings: what a reader needs to judge it, such as the number of updates.
        commit: of the code that ran.
        minutes: how long it ran, by the clock.
        values: arm -> measure -> array whose first dimension counts the seeds.
    """

    experiment: str
    question: str
    seeds: tuple[int, ...]
    settings: dict
    commit: str
    minutes: float
    values: dict[str, dict[str, np.ndarray]]

    def __str__(self) -> str:
        settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in self.settings.items())
        return f"{self.experiment}: {len(self.seeds)} seeds; {settings}; {self.minutes:.1f} minutes at {self.commit}"


def load(name: str) -> Result:
    """Reads the stored result of an experiment.

    Args:
        name: the experiment's name.

    Returns:
        what it found.

    Raises:
        ValueError: if it has not been run.
    """
    path = next((place / f"{name}.json" for place in PLACES if (place / f"{name}.json").is_file()), None)
    if path is None:
        stored = sorted(path.stem for place in PLACES for path in place.glob("*.json"))
        raise ValueError(
            f"There is no result {name!r}; there are {', '.join(stored)}. Run: make experiments EXP={name}"
        )
    found = json.loads(path.read_text())
    values = {
        arm: {measure: np.asarray(value, dtype=float) for measure, value in measures.items()}
        for arm, measures in found["values"].items()
    }
    return Result(
        experiment=found["experiment"],
        question=found["question"],
        seeds=tuple(found["seeds"]),
        settings=found["settings"],
        commit=found["commit"],
        minutes=found["wall_minutes"],
        values=values,
    )


def interval(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean over repetitions and its 95 % interval, by Student's t.

    For a comparison give it the *differences* of two arms, seed by seed: what both share then drops out.

    Args:
        samples: `(seeds, ...)`, two repetitions at least.

    Returns:
        the mean `(...)` and the half-width of the interval `(...)`: the true mean lies within mean +- half in 95 of
        100 such experiments, if the repetitions are independent and roughly normal.

    Raises:
        ValueError: for fewer than two repetitions.
    """
    samples = np.asarray(samples, dtype=float)
    count = len(samples)
    if count < 2:
        raise ValueError(f"An interval needs two repetitions at least, got {count}.")
    error = samples.std(axis=0, ddof=1) / np.sqrt(count)
    return samples.mean(axis=0), stats.t.ppf(0.975, count - 1) * error


def differs(samples: np.ndarray, least: float = 0.0) -> bool:
    """Says whether paired differences are above `least` with 95 % certainty; what the notebooks assert.

    Args:
        samples: `(seeds,)`, one arm minus another.
        least: what the difference must exceed.
    """
    mean, half = interval(samples)
    return bool(mean - half > least)
