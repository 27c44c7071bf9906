"""The experiments of the course: their stored results belong to them, and what helps to read them is right."""

import importlib

import numpy as np
import pytest
import torch
from experiments.__main__ import NAMES, RESULTS, rounded
from mi2v_checks.results import differs, interval, load
from mi2v_checks.scenes import KINDS, view
from mi2v_checks.steering import obedience, seen_at, steered
from PIL import Image

from mi2v_lite.data.samples import find_samples
from mi2v_lite.flow.warp import backward_warp

STORED = sorted(path.stem for path in RESULTS.glob("*.json"))


def test_every_experiment_has_a_result_and_every_result_an_experiment():
    waiting = {name for name in NAMES if hasattr(importlib.import_module(f"experiments.{name}"), "NEEDS")}
    assert set(STORED) <= set(NAMES), "a result without an experiment"
    assert set(NAMES) - set(STORED) <= waiting, "an experiment without a result, though it needs no trained networks"


@pytest.mark.parametrize("name", STORED)
def test_the_stored_result_is_of_these_seeds_and_settings(name):
    experiment, result = importlib.import_module(f"experiments.{name}"), load(name)
    assert result.seeds == tuple(experiment.SEEDS) and len(set(result.seeds)) >= 3
    assert result.settings == rounded(experiment.SETTINGS), f"run: make experiments EXP={name}"
    assert result.question == experiment.QUESTION and result.commit and result.minutes > 0
    for arm, measures in result.values.items():
        for measure, values in measures.items():
            assert len(values) == len(result.seeds) and np.isfinite(values).all(), (arm, measure)


def test_an_unknown_result_is_refused_with_the_names_of_the_others():
    with pytest.raises(ValueError, match="views"):
        load("nothing")


def test_intervals():
    mean, half = interval(np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]]))
    assert mean.tolist() == [2, 5] and half[1] == 0
    assert half[0] == pytest.approx(4.303 / 3**0.5, rel=1e-3)  # Student's t with two degrees of freedom
    assert differs(np.array([1.0, 1.1, 0.9])) and not differs(np.array([1.0, -1.0, 0.5]))
    with pytest.raises(ValueError, match="two repetitions"):
        interval(np.array([1.0]))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "light"])
def test_a_scene_moves_along_its_field(kind):
    photos = [Image.open(path) for path in sorted((find_samples() / "photos").glob("*.jpg"))[:2]]
    scene = view(kind, 4.0, *photos, side=64)
    assert scene.flow.norm(dim=1).mean() == pytest.approx(4.0, abs=0.01)
    first, last = (torch.from_numpy(frame).permute(2, 0, 1)[None].float() for frame in scene.frames)
    back, inside = backward_warp(last, scene.flow)
    near = (back - first).abs().mean(1, keepdim=True)[inside]
    still = (last - first).abs().mean(1, keepdim=True)[inside]
    assert near.median() < 0.25 * still.median()


def test_a_thing_that_can_be_dragged_is_measured_and_found_again():
    thing = steered(1, first=40_000)[0]
    flow, photo = torch.from_numpy(thing.clip.flow), thing.clip.frames[0]
    assert obedience(flow, thing) == {"end": 0, "thing": 0, "slip": pytest.approx(0, abs=0.5)}
    assert obedience(0 * flow, thing) == {"end": pytest.approx(1), "thing": pytest.approx(1), "slip": 0}
    place, likeness = seen_at(photo, np.roll(photo, 7, axis=1), thing.mask)
    assert place.tolist() == [7, 0] and likeness > 0.99
    assert seen_at(photo, 255 - photo, thing.mask)[1] < likeness
