"""`mi2v world` and the contact sheets: what is on the page is what the clips hold."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mi2v_lite.cli import main
from mi2v_lite.data.lite_world import LiteWorld
from mi2v_lite.data.samples import find_samples, sample_world
from mi2v_lite.viz.contact_sheets import GAP, TEXT, Row, clip_sheet, sheet

LINE = TEXT + GAP


def tile(page: Image.Image, row: int, column: int, size: int) -> np.ndarray:
    left, top = GAP + column * (size + GAP), LINE + row * (LINE + size + GAP) + LINE
    return np.asarray(page.crop((left, top, left + size, top + size)))


def test_a_sheet_shows_frames_flow_and_visibility():
    world = sample_world("train", size=64, num_frames=8)
    clips = [world.clip(seed) for seed in (2, 5)]
    page = clip_sheet(clips, shown=4)
    for row, clip in enumerate(clips):
        for column, frame in enumerate((0, 2, 5, 7)):
            assert np.array_equal(tile(page, row, column, 64), clip.frames[frame])
        assert np.array_equal(tile(page, row, 5, 64)[..., 0] > 0, clip.visibility[-1])
        still = np.abs(clip.flow[-1]).max(axis=0) == 0
        assert (tile(page, row, 4, 64)[still] == 255).all(), "white where nothing moves"
    assert np.asarray(page.crop((0, LINE, page.width, 2 * LINE))).min() < 100, "the caption stands above the row"


def test_rows_must_fit_their_titles():
    picture = np.zeros((8, 8, 3), np.uint8)
    assert sheet([Row("a" * 500, [picture])], ["one"], note="n").width == 8 + 2 * GAP
    with pytest.raises(ValueError, match="row 0 has 1 pictures, there are 2 titles"):
        sheet([Row("", [picture])], ["one", "two"])
    with pytest.raises(ValueError, match="one row at least"):
        sheet([], [])


def test_world_draws_the_same_sheet_from_the_same_seed(tmp_path: Path, capsys: pytest.CaptureFixture):
    out = tmp_path / "new" / "world.png"
    assert main(["world", "--seed", "7", "--clips", "2", "--pasted", "-o", str(out)]) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    world = LiteWorld(find_samples() / "photos")
    with Image.open(out) as page:
        assert np.array_equal(tile(page, 1, 0, 128), world.clip(8).frames[0])
    first = ["--clips", "1", "--edition", "1", "--split", "heldout"]
    assert main(["world", "--seed", "7", *first, "-o", str(out)]) == 0
    with Image.open(out) as page:
        expected = sample_world("heldout", edition=1).clip(7)
        assert np.array_equal(tile(page, 0, 0, 128), expected.frames[0])


def test_a_sheet_of_scenes_shows_frame_0_and_outlines(tmp_path: Path):
    out = tmp_path / "world.png"
    assert main(["world", "--seed", "3", "--clips", "4", "--size", "64", "-o", str(out)]) == 0
    batch = LiteWorld(find_samples() / "photos", size=64).batch(range(3, 7), later=[15] * 4)
    with Image.open(out) as page:
        for number in range(4):
            shown = tile(page, number, 0, 256)[::4, ::4]
            expected = batch.frames[number, 0].add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
            assert np.array_equal(shown, expected)
            yellow = (tile(page, number, 1, 256) == (255, 255, 0)).all(axis=-1)
            assert yellow.any() == bool((batch.labels[number] == 1).any())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "world.jpg"], "must end in .png"),
        (["-o", "world.png", "--seed", "-1"], "must be a whole number"),
        (["-o", "world.png", "--film", "absent.mp4"], "absent.mp4"),
        ([], "required: -o/--output"),
    ],
)
def test_wrong_use_of_world_is_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["world", *words]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not list(tmp_path.glob("*.png"))
