"""Stores of clips: what is written is what is read, wrong stores are refused. And the photo preparation."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mi2v_lite import cli
from mi2v_lite.data.clips import Clip, open_clips
from mi2v_lite.data.lite_world import LiteWorld
from mi2v_lite.data.store import ClipStore, pairs, write_store
from mi2v_lite.io.arrays import new_array
from mi2v_lite.io.images import list_images
from tools import photos

SAMPLES = Path(__file__).resolve().parents[1] / "data_samples"


def random_clip(seed: int, size: int = 16) -> Clip:
    rng = np.random.default_rng(seed)
    return Clip(
        frames=rng.integers(0, 256, (4, size, size, 3), dtype=np.uint8),
        flow=rng.uniform(-40, 40, (3, 2, size, size)).astype(np.float32),
        visibility=rng.random((3, size, size)) > 0.5,
        caption=f"clip number {seed}",
        stride=2 + seed,
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    clips = [random_clip(seed) for seed in range(3)]
    write_store(tmp_path / "store", iter(clips), 3)
    read = ClipStore(tmp_path / "store")
    assert len(read) == 3 and read.captions == [clip.caption for clip in clips] and read.strides == [2, 3, 4]
    assert (read.frames.dtype, read.flow.dtype, read.visibility.dtype) == (np.uint8, np.float16, np.bool_)
    for index, clip in enumerate(clips):
        assert np.array_equal(read.frames[index], clip.frames) and np.array_equal(
            read.visibility[index], clip.visibility
        )
        np.testing.assert_allclose(read.clip(index).flow, clip.flow, atol=0.02)
    with pytest.raises(ValueError, match="read-only"):
        read.frames[0] = 0


def test_takes_no_more_clips_than_asked(tmp_path: Path) -> None:
    clips = (random_clip(seed) for seed in range(5))
    write_store(tmp_path, clips, 2)
    assert next(clips).caption == "clip number 2"


def test_unfinished_and_wrong_stores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no finished store"):
        ClipStore(tmp_path)
    write_store(tmp_path, [random_clip(0)], 1)
    (tmp_path / "latents_image_0.npy").write_bytes(b"of these clips")
    with pytest.raises(ValueError, match="only 1 of 2"):
        write_store(tmp_path, [random_clip(1)], 2)
    with pytest.raises(ValueError, match="clip 1: frames"):
        write_store(tmp_path, [random_clip(1), random_clip(1, size=8)], 2)
    assert ClipStore(tmp_path).captions == ["clip number 0"], "a store that cannot be replaced stays"
    assert (tmp_path / "latents_image_0.npy").exists()
    write_store(tmp_path, [random_clip(1)], 1)
    assert ClipStore(tmp_path).captions == ["clip number 1"]
    assert not (tmp_path / "latents_image_0.npy").exists(), "latents of other clips would be taken for those of these"
    (tmp_path / "clips.json").unlink()
    with pytest.raises(ValueError, match="something other than a store"):
        write_store(tmp_path, [random_clip(0)], 1)


def test_an_index_of_many_long_captions_is_read(tmp_path: Path) -> None:
    write_store(tmp_path, [random_clip(0)], 1)
    with (tmp_path / "clips.json").open("a") as file:
        file.write(" " * 72_000_000)  # as 600,000 captions take
    assert len(ClipStore(tmp_path)) == 1


def test_command_line_writes_the_clips_of_the_seeds(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out, sizes = tmp_path / "store", ["--size", "64", "--frames", "4", "--clips", "2", "--seed", "7"]
    folders = ["--photos", str(SAMPLES / "photos"), "--sprites", str(SAMPLES / "sprites")]
    assert cli.main(["world", *folders, "--split", "heldout", "-o", str(out), *sizes]) == 0
    assert f"wrote {out}: 2 clips" in capsys.readouterr().out
    world = LiteWorld(SAMPLES / "photos", split="heldout", size=64, num_frames=4)
    read = open_clips(out)
    assert isinstance(read, ClipStore) and read.folder == out
    assert np.array_equal(read.frames[1], world.clip(8).frames) and read.captions[0] == world.clip(7).caption
    for wrong, said in (
        (["--film", "x.mp4", "--photos", "y", "-o", str(tmp_path / "film")], "clips of the film alone"),
        (["--pairs", "2", "-o", str(tmp_path / "sheet.png")], "--pairs is for stores"),
        (["--pairs", "16", "-o", str(tmp_path / "more")], "16 frames has 15 later ones"),
        (["-o", str(out)], "holds a store already"),
        (["-o", str(tmp_path / "sheet.jpg")], "must end in .png for a sheet"),
    ):
        assert cli.main(["world", *wrong]) == 2
        assert said in capsys.readouterr().err


def test_pairs_are_frame_0_and_different_later_frames_of_the_clips(tmp_path: Path) -> None:
    sizes = ["--size", "64", "--frames", "5", "--clips", "2", "--seed", "7", "--pairs", "3"]
    assert cli.main(["world", "--split", "heldout", *sizes, "-o", str(tmp_path / "pairs")]) == 0
    world = LiteWorld(SAMPLES / "photos", split="heldout", size=64, num_frames=5)
    read = ClipStore(tmp_path / "pairs")
    assert read.frames.shape[:2] == (6, 2) and read.flow.shape[:2] == (6, 1)
    for i, seed in enumerate((7, 7, 7, 8, 8, 8)):
        whole, pair = world.clip(seed), read.clip(i)
        step = pair.stride // whole.stride
        assert pair.stride == step * whole.stride and pair.caption == whole.caption
        assert np.array_equal(pair.frames, whole.frames[[0, step]])
        assert np.array_equal(pair.visibility[0], whole.visibility[step - 1])
        np.testing.assert_allclose(pair.flow[0], whole.flow[step - 1], atol=0.02)
    assert len(set(read.strides[:3])) == 3, "the same later frame twice"


def test_no_more_pairs_than_later_frames() -> None:
    class Source:
        clip = staticmethod(random_clip)

    assert len(list(pairs(Source(), 0, 3))) == 3
    with pytest.raises(ValueError, match="a clip has 3 later frames; ask for at most as many pairs, not 4"):
        list(pairs(Source(), 0, 4))


def test_photos_are_scaled_and_dull_or_small_ones_left_out(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    (source / "deep").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    big = Image.fromarray(noise).resize((1200, 900))
    big.save(source / "deep" / "big.png")
    big.resize((100, 75)).save(source / "small.png")
    Image.new("RGB", (600, 600)).save(source / "black.png")
    (source / "text.txt").write_text("no photo")
    assert photos.prepare([source], out) == 1
    with Image.open(out / "big.jpg") as image:
        assert image.size == (683, 512)
    assert photos.prepare([source / "deep" / "big.png"], out) == 1
    assert sorted(path.name for path in out.iterdir()) == ["big.jpg", "big_2.jpg"]
    with pytest.raises(ValueError, match="neither a folder"):
        photos.prepare([tmp_path / "missing"], out)
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match="empty.png cannot be read as a picture"):
        photos.prepare([tmp_path / "empty.png"], out)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="no photo of 256 px"):
        photos.prepare([tmp_path / "none"], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_one_of_several_sizes_is_kept(tmp_path: Path) -> None:
    for name, side in (("100x100", 100), ("400x400", 400), ("screenshot", 300)):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    assert [path.name for path in list_images(tmp_path)] == ["400x400.png"]


def test_video_pictures_come_at_even_times() -> None:
    video = SAMPLES / "clips" / "big_buck_bunny.mp4"
    assert len(list(photos.video_pictures(video, every=0.5))) == 4
    assert len(list(photos.video_pictures(video, every=0.5, start=1.0))) == 2


def test_a_store_that_the_disk_has_no_room_for_is_refused_before_it_is_mapped(tmp_path, monkeypatch) -> None:
    """Memory that cannot be written to the disk would end the process."""

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OSError, match="No space left") as raised:
        new_array(tmp_path / "a.npy", np.uint8, (4, 4))
    assert raised.value.filename == str(tmp_path / "a.npy")
    monkeypatch.undo()
    array = new_array(tmp_path / "a.npy", np.uint8, (1000, 1000))
    array.flush()
    blocks = os.stat(tmp_path / "a.npy").st_blocks
    assert array.sum() == 0 and blocks * 512 >= 1_000_000
