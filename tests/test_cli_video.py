"""`mi2v track` and `mi2v restyle` with a tiny random pipeline: what they write, and one clear line for each mistake."""

import numpy as np
import pytest
from PIL import Image
from test_cli import weights  # noqa: F401 - the tiny pipeline
from test_video import sounding, tone

from mi2v_lite import cli
from mi2v_lite.flow.trackers import read_tracks
from mi2v_lite.io.videos import copy_with_sound, read_video, write_video

av = pytest.importorskip("av")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a clip of 20 frames that slides to the left, 2 pixels a frame, 96x64, 10 frames a second."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    wide = np.kron(random.integers(0, 255, (16, 40, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8))
    write_video("clip.mp4", np.stack([wide[:, 2 * i : 2 * i + 96] for i in range(20)]), fps=10)
    return tmp_path


def test_track_writes_what_was_found(here, capsys):
    assert cli.main("track clip.mp4 -o out/fields.npz --size 64 --frames 6 --previews".split()) == 0
    flow, seen = read_tracks("out/fields.npz")
    assert flow.shape == (5, 2, 64, 96) and seen.shape == (5, 64, 96)
    assert flow[-1, 0, 20:44, 30:80].median().item() == pytest.approx(-10, abs=0.5)
    assert Image.open("out/fields.png").width > 600
    said = capsys.readouterr().out
    assert "6 frames of 96x64 px, 10 a second" in said and "wrote out/fields.npz" in said
    # The fields drive the tracker's place again.
    assert cli.main("track clip.mp4 -o again.npz --size 64 --frames 6 --tracker fields:out/fields.npz".split()) == 0
    assert np.array_equal(np.load("again.npz")["flow"], np.load("out/fields.npz")["flow"])


def test_restyle_keeps_length_speed_and_sound(here, weights, capsys):  # noqa: F811
    with av.open("sound.mp4", "w") as out:
        tone(out, 2.0)
    copy_with_sound("clip.mp4", "sound.mp4", "loud.mp4")
    command = f"restyle loud.mp4 --style oil --frames 18 --size 32 --weights {weights} -o made.mp4"
    assert cli.main(command.split()) == 0
    said = capsys.readouterr().out
    assert "2 windows, from frames 0, 15" in said
    made = read_video("made.mp4", 99)
    assert made.frames.shape == (18, 32, 48, 3) and made.fps == 10
    with av.open("made.mp4") as clip:
        (sound,) = clip.streams.audio
        assert abs(float(sound.duration * sound.time_base) - 1.8) < 0.1
    command = f"restyle clip.mp4 --style sketch --frames 3 --size 32 --weights {weights} -o mute.mp4"
    assert cli.main(command.split()) == 0
    with av.open("mute.mp4") as clip:
        assert not clip.streams.audio and clip.streams.video[0].frames == 3


def test_a_full_disk_is_told_by_the_name_of_the_output(here, weights, monkeypatch, capsys):  # noqa: F811
    def full(path, *given):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("mi2v_lite.io.videos.write_video", full)
    command = f"restyle clip.mp4 --style oil --frames 3 --size 32 --weights {weights} -o out.mp4"
    assert cli.main(command.split()) == 2
    assert capsys.readouterr().err.endswith("mi2v: error: out.mp4: No space left on device\n")
    assert not list(here.glob("*out*"))


def test_a_full_disk_is_told_so_with_sound_too(here, weights, monkeypatch, capsys):  # noqa: F811
    with av.open("sound.mp4", "w") as out:
        tone(out, 2.0)
    copy_with_sound("clip.mp4", "sound.mp4", "loud.mp4")

    def full(clip, samples, output):
        raise OSError(28, "No space left on device", str(output))

    monkeypatch.setattr("mi2v_lite.io.videos.add_sound", full)
    command = f"restyle loud.mp4 --style oil --frames 3 --size 32 --weights {weights} -o out.mp4"
    assert cli.main(command.split()) == 2
    assert capsys.readouterr().err.endswith("mi2v: error: out.mp4: No space left on device\n")
    assert not list(here.glob("*out*"))


def test_a_first_frame_of_ones_own(here, weights, capsys):  # noqa: F811
    Image.fromarray(read_video("clip.mp4", 1).frames[0]).save("first.png")
    command = f"restyle clip.mp4 --first-frame first.png --frames 3 --size 32 --weights {weights} -o a.mp4"
    assert cli.main(command.split()) == 0
    assert "has 96x64 px where the source has 48x32; it is resized" in capsys.readouterr().err


def test_a_cut_is_told_in_seconds_and_can_be_overruled(here, capsys):
    left = read_video("clip.mp4", 8).frames
    write_video("cut.mp4", np.concatenate([left // 8, 255 - left // 8]), fps=10)
    assert cli.main("track cut.mp4 --start 0.2 --size 32 -o f.npz".split()) == 2
    said = capsys.readouterr().err
    assert "at frame 6 of those read, which is at 0.8 s" in said
    assert "take --frames 6, or begin after it with --start 0.8; or say with --one-take" in said
    assert cli.main("track cut.mp4 --start 0.8 --frames 4 --size 32 -o f.npz".split()) == 0
    assert cli.main("track cut.mp4 --start 0.2 --frames 8 --size 32 --one-take -o f.npz".split()) == 0
    write_video("black.mp4", np.concatenate([left[:3] * 0, left]), fps=10)
    assert cli.main("track black.mp4 --size 32 -o f.npz".split()) == 2
    assert (
        "is of one colour until 0.3 s, and nothing can be tracked from there: give --start 0.3"
        in capsys.readouterr().err
    )


def test_sound_that_cannot_be_kept_is_told_before_the_work(here, weights, capsys):  # noqa: F811
    sounding("a.mkv", [(0.0, 0.4)], length=0.4)
    with open("a.mkv", "r+b") as file:
        content = file.read()
        file.seek(content.index(b"A_PCM"))
        file.write(b"A_XYZ")
    command = f"restyle a.mkv --style oil --frames 3 --size 32 --one-take --weights {weights} -o made.mp4"
    assert cli.main(command.split()) == 0
    assert "unknown here: the clip is silent" in capsys.readouterr().err
    assert len(read_video("made.mp4").frames) == 3


@pytest.mark.parametrize(
    "command, said",
    [
        ("track none.mp4 -o f.npz", "none.mp4 does not exist"),
        ("track text.mp4 -o f.npz", "cannot be read as a video"),
        ("track one.mp4 -o f.npz", "has 1 frame(s); motion needs at least two"),
        ("track cut.mp4 -o f.npz", "cuts to another scene at frame 4"),
        ("track clip.mp4 -o f.flo", "must end in .npz"),
        ("track clip.mp4 --tracker magic -o f.npz", "'magic' is unknown"),
        ("track clip.mp4 --start 9 -o f.npz", "no frame after 9 s"),
        ("restyle clip.mp4 -o a.mp4", "is required"),
        ("restyle clip.mp4 --style cubist -o a.mp4", "'cubist' is unknown; there are posterise"),
        ("restyle clip.mp4 --style colours -o a.mp4", "--style-image go together"),
        ("restyle clip.mp4 --sd folder -o a.mp4", "--sd needs --prompt"),
        ("restyle clip.mp4 --style oil -o clip.mp4", "is an input"),
        ("restyle clip.mp4 --style oil -o a.gif", "must end in .mp4"),
    ],
)
def test_mistakes_are_one_line(here, capsys, command, said):
    (here / "text.mp4").write_text("hello")
    write_video("one.mp4", np.zeros((1, 32, 32, 3), np.uint8))
    left = read_video("clip.mp4", 4).frames
    write_video("cut.mp4", np.concatenate([left // 8, 255 - left // 8]))
    assert cli.main(command.split()) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and len(error.splitlines()) == 1
    assert not (here / "f.npz").exists() and not (here / "a.mp4").exists()


def test_styles_of_the_command_line_are_those_of_the_package():
    from mi2v_lite.cli.video import STYLES
    from mi2v_lite.pipelines.restyle import STYLES as OURS

    assert set(STYLES) == {*OURS, "colours"}
