"""`mi2v world` and the contact sheets: what is on the page is what the clips hold."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mi2v_lite.cli import main
from mi2v_lite.data.samples import sample_world
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
    assert main(["world", "--seed", "7", "--clips", "2", "-o", str(out)]) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    world = sample_world("train")
    with Image.open(out) as page:
        assert np.array_equal(tile(page, 1, 0, 128), world.clip(8).frames[0])
    assert main(["world", "--seed", "7", "--clips", "1", "--edition", "1", "--split", "heldout", "-o", str(out)]) == 0
    with Image.open(out) as page:
        assert not np.array_equal(tile(page, 0, 0, 128), world.clip(7).frames[0])


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
