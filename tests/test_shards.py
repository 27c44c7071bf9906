"""Shards: videos in, clips out, none lost or doubled; killed, broken, resumed, and read by webdataset itself."""

import csv
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from multiprocessing import popen_spawn_posix
from pathlib import Path

import numpy as np
import pytest
import torch

from mi2v_lite import cli
from mi2v_lite.data import videos_to_shards
from mi2v_lite.data.clips import Clip, open_clips
from mi2v_lite.data.shards import Order, Shard, ShardSet, Skipped, decode_motion, encode_clip, write_index, write_shard
from mi2v_lite.data.store import ClipStore, write_store
from mi2v_lite.data.video_list import list_folder, read_webvid
from mi2v_lite.data.videos_to_shards import Recipe, make_shards
from mi2v_lite.flow.tracking import Tracks
from mi2v_lite.io.files import locked
from mi2v_lite.training.batches import Draws
from tools import corpus
from tools.corpus import lost_and_doubled, make_corpus, write_mp4

ROOT = Path(__file__).resolve().parent.parent
RECIPE = Recipe(32, 32, num_frames=4, stride=1, per_shard=3)


class StandingStill:
    """A tracker that costs nothing; its field tells which clip it saw."""

    def __call__(self, frames: np.ndarray) -> Tracks:
        level = float(frames.mean()) / 8
        shape = (len(frames) - 1, 2, *frames.shape[1:3])
        return Tracks(torch.full(shape, level), torch.ones(shape[0], *shape[2:], dtype=torch.bool))


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Ten videos; one is cut off, one no video at all."""
    folder = tmp_path_factory.mktemp("videos")
    make_corpus(folder, 10, size=32, samples=ROOT / "data_samples")
    os.truncate(folder / "000004.mp4", (folder / "000004.mp4").stat().st_size // 2)
    (folder / "000007.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def shards(videos, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "set"
    report = make_shards(list_folder(videos), folder, RECIPE, StandingStill)
    assert (report.shards, report.done, report.videos, report.clips, report.skipped) == (4, 4, 10, 8, 2)
    return folder


def smooth_clip(seed: int, size: int = 32, num_frames: int = 4) -> Clip:
    """Colours without edges, which a JPEG keeps."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, size)
    colours = rng.uniform(40, 200, (num_frames, 1, 1, 3)) + 30 * ramp[:, None, None] + 20 * ramp[None, :, None]
    flow = rng.uniform(-40, 40, (num_frames - 1, 2, size, size)).astype(np.float32)
    seen = rng.random((num_frames - 1, size, size)) > 0.5
    return Clip(colours.astype(np.uint8), flow, seen, f"clip number {seed}", 2 + seed)


def write_set(folder: Path, clips: list[Clip], per_shard: int) -> None:
    """Clips that are there already as a finished set of shards."""
    folder.mkdir(exist_ok=True)
    parts = [clips[start : start + per_shard] for start in range(0, len(clips), per_shard)]
    shards = [
        write_shard(folder, number, [(f"{number:06d}_{i:02d}", clip, {}) for i, clip in enumerate(part)], len(part))
        for number, part in enumerate(parts)
    ]
    write_index(folder, shards, dict(zip(("num_frames", "height", "width"), clips[0].frames.shape[:3], strict=True)))


def test_what_is_written_is_read(tmp_path):
    clips = [smooth_clip(seed) for seed in range(5)]
    write_set(tmp_path, clips, per_shard=2)
    read = open_clips(tmp_path)
    assert isinstance(read, ShardSet) and len(read) == 5 and [count for _, count in read.shards] == [2, 2, 1]
    assert list(read.captions) == [clip.caption for clip in clips] and list(read.strides) == [2, 3, 4, 5, 6]
    for index, clip in enumerate(clips):
        again = read.clip(index)
        assert np.abs(again.frames.astype(int) - clip.frames).max() <= 4
        assert again.flow.dtype == np.float32 and np.abs(again.flow - clip.flow).max() <= 0.024
        assert np.array_equal(again.visibility, clip.visibility)
        assert np.array_equal(read.flow[index], again.flow) and np.array_equal(read.frames[index], again.frames)
    assert read.flow.shape == (5, 3, 2, 32, 32) and read.visibility.shape == (5, 3, 32, 32)
    with pytest.raises(IndexError, match="clip 5 of 5"):
        read.frames[5]
    write_store(tmp_path / "store", iter(clips[:2]), 2)
    assert isinstance(open_clips(tmp_path / "store"), ClipStore)


def test_webdataset_reads_the_same_shards(shards):
    webdataset = pytest.importorskip("webdataset")
    read = ShardSet(shards)
    urls = sorted(str(path) for path in shards.glob("*.tar"))
    found = {sample["__key__"]: sample for sample in webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8")}
    assert sorted(found) == [read.key(i) for i in range(len(read))]
    for index in range(len(read)):
        sample, clip = found[read.key(index)], read.clip(index)
        about = sample["json"]
        assert (about["caption"], about["stride"]) == (clip.caption, clip.stride) and about["video"].endswith(".mp4")
        assert np.array_equal(sample["motion.npz"]["flow"], read.flow[index])
        flow, visibility = decode_motion(read.part(index, "motion.npz"))  # whatever its size
        assert np.array_equal(flow, read.flow[index]) and np.array_equal(visibility, read.visibility[index])
        assert np.abs(sample["frames.jpg"].reshape(clip.frames.shape).astype(int) - clip.frames).max() <= 3


def test_every_video_is_a_clip_or_on_the_list(videos, shards):
    with (shards / "skipped.csv").open(newline="") as file:
        skipped = {row["video"]: row["reason"] for row in csv.DictReader(file)}
    assert set(skipped) == {"000004.mp4", "000007.mp4"}
    assert "cannot be read as a video" in skipped["000007.mp4"]
    read = ShardSet(shards)
    kept = [read.about(i)["video"] for i in range(len(read))]
    assert sorted([*kept, *skipped]) == [video.name for video in list_folder(videos)]
    assert read.captions[0] == (videos / "000000.txt").read_text()


def test_each_clip_has_its_own_field_and_frames(videos, shards):
    """The tracker wrote the mean of the frames that it saw into the field."""
    read = ShardSet(shards)
    for index in range(len(read)):
        clip = read.clip(index)
        assert clip.flow.flat[0] * 8 == pytest.approx(clip.frames.mean(), abs=1)
    assert len({float(read.flow[i].flat[0]) for i in range(len(read))}) == len(read)


def test_two_nodes_make_the_same_set_and_read_it_once(videos, shards, tmp_path):
    listed = list_folder(videos)
    first = make_shards(listed, tmp_path, RECIPE, StandingStill, processes=2, node=1, nodes=2)
    assert (first.done, first.shards, first.made) == (2, 4, 4) and not (tmp_path / "shards.json").exists()
    with pytest.raises(ValueError, match="no finished shards"):
        ShardSet(tmp_path)
    make_shards(listed, tmp_path, RECIPE, StandingStill, node=0, nodes=2)
    for path in sorted(shards.iterdir()):
        if path.suffix != ".tar" and path.name != "plan.json":
            assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
    ours, theirs = ShardSet(tmp_path), ShardSet(shards)
    assert all(ours.part(i, name) == theirs.part(i, name) for i in range(8) for name in ("frames.jpg", "json"))
    assert lost_and_doubled(tmp_path, nodes=2, processes=1) == (0, 0)


def test_loss_and_doubling_would_be_seen(shards, monkeypatch):

    monkeypatch.setattr(
        corpus, "read_all", lambda *_: Counter({ShardSet(shards).key(0): 2, ShardSet(shards).key(1): 1})
    )
    assert corpus.lost_and_doubled(shards, 1, 1) == (6, 1)


def test_a_second_run_makes_only_what_is_missing(videos, shards, tmp_path, monkeypatch):
    listed = list_folder(videos)
    make_shards(listed, tmp_path, RECIPE, StandingStill)
    (tmp_path / "shard-000002.json").unlink()  # as if it had been killed between the two files
    (tmp_path / ".shard-000002.tar.0123abcd.part").write_bytes(b"half")
    before = (tmp_path / "shard-000001.tar").stat().st_mtime_ns
    report = make_shards(listed, tmp_path, RECIPE, StandingStill)
    assert report.made == 3 and report.done == 4 and not list(tmp_path.glob(".*"))
    assert (tmp_path / "shard-000001.tar").stat().st_mtime_ns == before
    assert make_shards(listed, tmp_path, RECIPE, StandingStill).made == 0
    with pytest.raises(ValueError, match="begun with other settings"):
        make_shards(listed, tmp_path, Recipe(32, 32, 4, 1, per_shard=4), StandingStill)
    with pytest.raises(ValueError, match="other videos"):
        make_shards(listed[:9], tmp_path, RECIPE, StandingStill)


def test_killed_and_run_again(videos, shards, tmp_path):
    """SIGKILL in the middle leaves whole shards only; the second run ends as one that was never killed."""
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import sys, time\nfrom test_shards import *\n"
        "class Slow(StandingStill):\n"
        "    def __call__(self, frames):\n        time.sleep(0.15)\n        return super().__call__(frames)\n"
        "make_shards(list_folder(sys.argv[1]), sys.argv[2], RECIPE, Slow)\n"
    )
    out = tmp_path / "out"
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen(
        [sys.executable, str(slow), str(videos), str(out)], env=environment, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 600  # on a busy machine, torch alone takes minutes to load
    while not (out / "shard-000001.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = sorted(path.stem for path in out.glob("shard-*.json"))
    assert finished[:2] == ["shard-000000", "shard-000001"] and not (out / "shards.json").exists()
    plan = json.loads((out / "plan.json").read_text())
    (out / "plan.json").write_text(json.dumps({**plan, "tracker": f"{__name__}:StandingStill"}))
    report = make_shards(list_folder(videos), out, RECIPE, StandingStill)
    assert report.made == 10 - sum(Shard.read(out, name).videos for name in finished)
    for name in ("shards.json", "skipped.csv"):
        assert (out / name).read_bytes() == (shards / name).read_bytes()


def test_a_process_that_dies_while_another_starts_ends_the_work(videos, tmp_path, monkeypatch):
    """The pool does not know the second process yet when it tells all to stop."""
    launch, pids, hung = popen_spawn_posix.Popen._launch, [], []

    def launched(self, process):
        launch(self, process)
        pids.append(self.pid)
        if len(pids) == 2:
            os.kill(pids[0], signal.SIGKILL)
            time.sleep(1)  # in which the pool hears of it

    def end() -> None:
        hung.append(pids[1])
        os.kill(pids[1], signal.SIGKILL)

    monkeypatch.setattr(popen_spawn_posix.Popen, "_launch", launched)
    timer = threading.Timer(60, end)
    timer.start()
    with pytest.raises(ValueError, match="A process died"):
        make_shards(list_folder(videos), tmp_path, RECIPE, StandingStill, processes=2)
    timer.cancel()
    assert len(pids) == 2 and not hung


def test_a_shard_is_written_whole_or_not_at_all(tmp_path):
    def breaking():
        yield "a", smooth_clip(0), {}
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="disk is full"):
        write_shard(tmp_path, 0, breaking(), 2)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="comes twice"):
        write_shard(tmp_path, 0, [("a", smooth_clip(0), {}), ("a", smooth_clip(1), {})], 2)
    assert not list(tmp_path.iterdir())
    assert write_shard(tmp_path, 0, [Skipped("v", "why")], 1).skipped == [Skipped("v", "why")]
    assert [path.name for path in tmp_path.iterdir()] == ["shard-000000.json"], "no tar without a clip"


def test_a_tracker_at_fault_is_not_a_broken_video(videos, tmp_path):
    def wild(frames):
        return Tracks(torch.full((3, 2, 32, 32), torch.nan), torch.ones(3, 32, 32, dtype=torch.bool))

    with pytest.raises(ValueError, match="not finite for 000000.mp4"):
        make_shards(list_folder(videos), tmp_path, RECIPE, lambda: wild)
    assert not list(tmp_path.glob("*.tar"))


def test_several_clips_a_video_and_links_between_frames(tmp_path):
    ramp = np.arange(48) * 5  # rolled a pixel a frame: the grey at one place tells the frame
    frames = np.stack([np.roll(ramp, i)[None, :, None].repeat(32, 0).repeat(3, 2) for i in range(20)]).astype(np.uint8)
    write_mp4(tmp_path / "in.mp4", frames)
    recipe = Recipe(32, 32, num_frames=3, stride=4, clips=2, links=2)
    assert recipe.cuts(20) == (4, [3, 8])
    assert recipe.cuts(9) == (4, [0]) and recipe.cuts(8) == (4, [])
    seen = []

    def recording(given):
        seen.append(given)
        return Tracks(
            torch.arange(1.0, 5).view(4, 1, 1, 1).expand(4, 2, 32, 32), torch.ones(4, 32, 32, dtype=torch.bool)
        )

    (video,) = list_folder(tmp_path)
    out = list(videos_to_shards.clips_of(video, 7, recipe, recording))
    assert [key for key, _, _ in out] == ["000000007_00", "000000007_01"] and all(len(frames) == 5 for frames in seen)
    for (_, clip, about), start in zip(out, recipe.cuts(20)[1], strict=True):
        numbers = 30 - clip.frames[:, 8:24, 22].mean(axis=(1, 2)) / 5  # column 30 of the video is 22 of its middle
        np.testing.assert_allclose(numbers, [start, start + 4, start + 8], atol=0.5)
        assert clip.flow[:, 0, 0, 0].tolist() == [2, 4] and about == {"video": "in.mp4", "start": start}


def test_cuts_and_short_videos_are_listed(tmp_path):
    rng = np.random.default_rng(0)
    one, other = (
        np.full((4, 32, 32, 3), level, np.uint8) + rng.integers(0, 9, (1, 32, 32, 3), np.uint8) for level in (10, 200)
    )
    write_mp4(tmp_path / "cut.mp4", np.concatenate([one, other]))
    write_mp4(tmp_path / "short.mp4", one)
    recipe = Recipe(32, 32, num_frames=8, stride=1)
    with pytest.raises(ValueError, match="None of the 2 videos"):
        make_shards(list_folder(tmp_path), tmp_path / "out", recipe, StandingStill)
    text = (tmp_path / "out" / "skipped.csv").read_text()
    assert "cuts to another scene at frame 4" in text and "too short: it has 4 frames, 8 are needed" in text
    command = ["shards", str(tmp_path), "-o", str(tmp_path / "one"), *"--size 32x32 --frames 8 --stride 1".split()]
    assert cli.main([*command, "--one-take"]) == 0
    assert len(ShardSet(tmp_path / "one")) == 1 and "scene" not in (tmp_path / "one" / "skipped.csv").read_text()


def test_a_set_that_was_begun_by_an_older_version_goes_on(videos, tmp_path):
    """Its plan does not say whether the videos are of one take each."""
    report = make_shards(list_folder(videos), tmp_path, RECIPE, StandingStill)
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["recipe"].pop("one_take") is False
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert make_shards(list_folder(videos), tmp_path, RECIPE, StandingStill).clips == report.clips
    with pytest.raises(ValueError, match="begun with other settings"):
        make_shards(list_folder(videos), tmp_path, dataclasses.replace(RECIPE, one_take=True), StandingStill)


def test_only_the_clip_with_the_cut_is_left_out(tmp_path):
    """Of a video of two scenes the clips inside each are kept, and the one across is on the list."""
    scenes = [np.full((8, 32, 32, 3), level, np.uint8) for level in (10, 200)]
    write_mp4(tmp_path / "two.mp4", np.concatenate(scenes))
    recipe = Recipe(32, 32, num_frames=4, stride=1, clips=3)
    report = make_shards(list_folder(tmp_path), tmp_path / "out", recipe, StandingStill)
    read = ShardSet(tmp_path / "out")
    starts = recipe.cuts(16)[1]
    assert [read.about(i)["start"] for i in range(len(read))] == [starts[0], starts[2]] and report.skipped == 1
    assert f"the clip from frame {starts[1]} on: The clip cuts" in (tmp_path / "out" / "skipped.csv").read_text()


def test_webvid_tables(videos, tmp_path):
    (tmp_path / "clips" / "p1").mkdir(parents=True)
    for name in ("000000", "000001"):
        (tmp_path / "clips" / "p1" / f"{name}.mp4").write_bytes((videos / f"{name}.mp4").read_bytes())
    table = tmp_path / "results.csv"
    table.write_text(
        "videoid,contentUrl,duration,page_dir,name\n"
        '000000,https://a.example/0.mp4,PT1S,p1,"A dog, running"\n'
        "000001,https://a.example/1.mp4,PT1S,p1,A  cat\n"
        "000000,https://a.example/0.mp4,PT1S,p1,A dog again\n"
        "000009,https://a.example/9.mp4,PT1S,p1,Gone\n"
        "../x,https://a.example/x.mp4,PT1S,p1,Out of the folder\n"
    )
    listed = read_webvid(table, tmp_path / "clips")
    assert [video.caption for video in listed[:2]] == ["A dog, running", "A cat"]
    out = tmp_path / "out"
    command = ["shards", str(table), "--videos", str(tmp_path / "clips"), "-o", str(out), "--size", "32x32"]
    assert cli.main([*command, "--frames", "4", "--stride", "1"]) == 0
    assert list(ShardSet(out).captions) == ["A dog, running", "A cat"]
    reasons = (out / "skipped.csv").read_text()
    assert "stands in a row before" in reasons and "its address is https://a.example/9.mp4" in reasons
    assert "no videoid, or one that cannot be a file name" in reasons and reasons.count("\n") == 4
    table.write_text("url,text\na,b\n")
    with pytest.raises(ValueError, match="lacks the columns \\['videoid'"):
        read_webvid(table, tmp_path)


def test_a_real_clip_through_the_command(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bunny.mp4").write_bytes((ROOT / "data_samples" / "clips" / "big_buck_bunny.mp4").read_bytes())
    command = ["shards", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--size", "64x96", "--frames", "4"]
    assert cli.main([*command, "--stride", "4", "--links", "2", "--clips", "2"]) == 0
    said = capsys.readouterr().out
    assert "1 of 1 videos: 2 clips, 0 skipped" in said and "1 videos have no caption" in said
    clip = ShardSet(tmp_path / "out").clip(1)
    assert clip.frames.shape == (4, 64, 96, 3) and clip.stride == 4
    # What the field says must be in the pictures: frame 3, pulled back, is nearer to frame 0 than it was.
    from mi2v_lite.flow.warp import backward_warp

    pictures = torch.from_numpy(clip.frames).permute(0, 3, 1, 2).float()
    back, inside = backward_warp(pictures[3:], torch.from_numpy(clip.flow[2:]))
    seen = torch.from_numpy(clip.visibility[2])[None, None] & inside.bool()
    error, still = ((other - pictures[:1]).abs().mean(1, keepdim=True)[seen].mean() for other in (back, pictures[3:]))
    assert error < still


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", "31x32"], "height is 31; expected a multiple of 8"),
        (["--size", "large"], "is not a size"),
        (["--links", "3", "--stride", "8"], "expected a divisor of the stride 8"),
        (["--tracker", "python:nowhere:Raft"], "tracker 'python:nowhere:Raft' cannot be imported"),
        (["--tracker", "fields:f.npz"], "cannot be right for all videos"),
        (["--tracker", "raft:nowhere.pth"], "nowhere.pth does not exist"),
        (["--node", "2", "--nodes", "2"], "nodes are counted from 0"),
    ],
)
def test_mistakes_are_told(videos, tmp_path, capsys, words, said):
    assert cli.main(["shards", str(videos), "-o", str(tmp_path / "out"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.tar"))


def test_sources_that_hold_nothing(tmp_path, capsys):
    for source, said in ((tmp_path, "holds no videos"), (tmp_path / "a.csv", "does not exist")):
        assert cli.main(["shards", str(source), "-o", str(tmp_path / "out")]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(ValueError, match="do not fit one JPEG"):
        encode_clip(smooth_clip(0, size=20), {})


def test_the_order_names_every_clip_once_an_epoch():
    counts = [3, 0, 5, 1, 4]
    order = Order(counts, seed=1, group=2)
    epochs = [[order[epoch * 13 + i] for i in range(13)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(13)) for epoch in epochs) and len({tuple(epoch) for epoch in epochs}) == 3
    again = Order(counts, seed=1, group=2)
    assert [again[i] for i in (38, 0, 20, 7)] == [epochs[2][12], epochs[0][0], epochs[1][7], epochs[0][7]]
    assert [Order(counts, seed=2, group=2)[i] for i in range(13)] != epochs[0]


def test_groups_keep_the_reading_near():
    order = Order([10] * 8, seed=0, group=2)
    for start in range(0, 80, 20):
        assert len({order[start + i] // 10 for i in range(20)}) == 2


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_an_epoch_and_go_on_where_they_stopped(shards, processes):
    """As the training reads: the positions of a process's samples in each batch, and the clips at these positions."""
    read = ShardSet(shards)
    counts = [count for _, count in read.shards]
    whole = [Order(counts, seed=3)[position] for position in range(16)]
    assert sorted(whole[:8]) == sorted(whole[8:]) == list(range(8))
    seen = []
    for batch in range(8 // processes, 16 // processes):  # from the second epoch on, with readers that are new
        for rank in range(processes):
            draws = Draws.of(0, batch, count=1, rank=rank, processes=processes, batch=batch)
            seen += [Order(counts, seed=3)[position] for position in draws.positions()]
    assert seen == whole[8:]


def test_a_damaged_tar_is_named(shards, tmp_path):
    for path in shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    os.truncate(tmp_path / "shard-000003.tar", 700)
    with pytest.raises(ValueError, match="shard-000003.tar is shorter than its index"):
        ShardSet(tmp_path).clip(7)
    assert io.BytesIO(ShardSet(tmp_path).part(0, "frames.jpg")).read(2) == b"\xff\xd8"


def test_a_folder_of_videos_is_tracked_once_and_read_ever_after(videos, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("000000.mp4", "000001.mp4", "000000.txt"):
        (folder / name).write_bytes((videos / name).read_bytes())
    made = open_clips(folder, size=(32, 32), num_frames=2)
    assert isinstance(made, ShardSet) and made.folder == tmp_path / "mine.shards" and len(made) == 2
    assert made.frames.shape == (2, 2, 32, 32, 3) and list(made.strides) == [2, 2], "4 frames have no room for more"
    assert made.captions[0] == (folder / "000000.txt").read_text() and sorted(folder.iterdir())[0].name == "000000.mp4"
    before = (tmp_path / "mine.shards" / "shard-000000.tar").stat().st_mtime_ns
    again = open_clips(str(folder), size=(32, 32), num_frames=2)
    assert len(again) == 2 and (again.folder / "shard-000000.tar").stat().st_mtime_ns == before
    assert len(open_clips(made.folder)) == 2
    with pytest.raises(ValueError, match=r"another size, .* name .*mine.shards instead.* remove that folder"):
        open_clips(folder, size=(32, 32), num_frames=3)
    command = ["shards", str(folder), "-o", str(made.folder), "--size", "32x32", "--frames", "2"]
    assert cli.main(command) == 0, "the command with the same settings makes the same"
    assert (again.folder / "shard-000000.tar").stat().st_mtime_ns == before
    (folder / "000001.mp4").unlink()
    with pytest.raises(ValueError, match="other videos"):
        open_clips(folder, size=(32, 32), num_frames=2)


def test_a_table_finds_its_videos_beside_it_or_in_the_folder_named(videos, tmp_path):
    table = tmp_path / "webvid.csv"
    table.write_text("videoid,contentUrl,page_dir,name\n000000,https://a.example/0.mp4,,A dog\n")
    clips = open_clips(table, size=(32, 32), num_frames=4, stride=1, videos=videos)
    assert clips.folder == tmp_path / "webvid.csv.shards" and list(clips.captions) == ["A dog"]
    (tmp_path / "000000.mp4").write_bytes((videos / "000000.mp4").read_bytes())
    assert list(open_clips(table, size=(32, 32), num_frames=4, stride=1).captions) == ["A dog"]


def test_paths_that_hold_no_clips(tmp_path):
    (tmp_path / "text.txt").write_text("no clips")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "frames.npy").write_bytes(b"")
    for name, said in (("nowhere", "does not exist"), ("text.txt", "neither a folder"), ("", "holds no videos")):
        with pytest.raises(ValueError, match=f"{said}.* Clips come from a store .* shards .* a WebVid table"):
            open_clips(tmp_path / name)
    with pytest.raises(ValueError, match="not finished"):
        open_clips(tmp_path / "half")
    assert not list(tmp_path.parent.glob("*.shards")) and not list(tmp_path.glob("*.shards"))


def test_the_columns_that_the_training_reads_need_neither_torch_nor_ffmpeg():
    names = "clips, store, shards, video_list, samples, world"
    code = f"import sys; from mi2v_lite.data import {names}; sys.exit(bool({{'torch', 'av'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def copied(shards: Path, folder: Path) -> Path:
    for path in shards.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_every_bit_that_changes_in_a_shard_is_noticed(shards, tmp_path):
    path = copied(shards, tmp_path) / "shard-000000.tar"
    whole, clips = bytearray(path.read_bytes()), Shard.read(tmp_path, "shard-000000").clips
    for offset, size, _ in (place for clip in clips for place in clip["parts"].values()):
        for where in (offset, offset + size // 2, offset + size - 1):
            path.write_bytes(whole[:where] + bytes([whole[where] ^ 4]) + whole[where + 1 :])
            read = ShardSet(tmp_path)
            with pytest.raises(ValueError, match="shard-000000.tar: .* of the clip 00000000._.. has changed"):
                for index in range(len(clips)):
                    read.clip(index)


@pytest.mark.parametrize("part, data", [("frames.jpg", b"no"), ("motion.npz", b"PK"), ("json", b"{}"), ("json", b"[")])
def test_a_clip_of_older_shards_that_cannot_be_read_is_named(shards, tmp_path, part, data):
    """Those have no checksums."""
    path = copied(shards, tmp_path) / "shard-000000.json"
    content = json.loads(path.read_text())
    for clip in content["clips"]:
        clip["parts"] = {name: place[:2] for name, place in clip["parts"].items()}
    offset, size = content["clips"][0]["parts"][part]
    path.write_text(json.dumps(content))
    assert ShardSet(tmp_path).clip(0).frames.shape == ShardSet(shards).clip(0).frames.shape
    with path.with_suffix(".tar").open("r+b") as tar:
        tar.seek(offset)
        tar.write(data.ljust(size, b" "))
    with pytest.raises(ValueError, match=f"shard-000000.tar: {part} of the clip 0.* is damaged"):
        ShardSet(tmp_path).clip(0)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"clip": {}, "shards": []}', "[" * 100_000, '{"shards": [["../x", 3]], "clip": {}}']
)
def test_a_damaged_index_is_named(shards, tmp_path, content):
    (copied(shards, tmp_path) / "shards.json").write_text(content)
    with pytest.raises(ValueError, match="shards.json is damaged"):
        ShardSet(tmp_path)


def test_a_shard_is_made_by_one_program(videos, tmp_path):
    with locked(tmp_path / "shard-000000.tar"), pytest.raises(BlockingIOError, match="another program"):
        make_shards(list_folder(videos), tmp_path, RECIPE, StandingStill)


def test_opening_a_finished_set_again_writes_nothing(videos, tmp_path):
    for _ in range(2):
        make_shards(list_folder(videos), tmp_path, RECIPE, StandingStill)
        (tmp_path / "skipped.csv").chmod(0o444)
        times = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    make_shards(list_folder(videos), tmp_path, RECIPE, StandingStill)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == times


ENCODED = {
    "UTF-8 with a mark": "\ufeffa bird \u2019s flight".encode(),
    "UTF-16": "a bird \u2019s flight".encode("utf-16"),
    "UTF-16, the other way round": b"\xfe\xff" + "a bird \u2019s flight".encode("utf-16-be"),
    "old line ends": "a bird\r\u2019s\r\nflight\r".encode(),
}


def test_captions_in_every_unicode_are_read_and_others_are_listed(tmp_path):
    for number, content in enumerate([*ENCODED.values(), "caf\u00e9 \u2019".encode("cp1252"), "a".encode("utf-16-le")]):
        (tmp_path / f"{number}.mp4").touch()
        (tmp_path / f"{number}.txt").write_bytes(content)
    *good, legacy, unmarked = list_folder(tmp_path)
    assert {video.caption for video in good} == {"a bird \u2019s flight"} and not any(video.trouble for video in good)
    assert "4.txt is not in UTF-8 (byte 3 is 0xe9)" in legacy.trouble and "5.txt is no text" in unmarked.trouble


def test_every_file_of_a_folder_is_in_the_list(tmp_path):
    for name in ("a.TS", "b.wmv", "c.mts", "d.webp", "d.txt", "alone.txt", "notes.md", "none", ".hidden.mp4"):
        (tmp_path / name).touch()
    listed = {video.name: video.trouble for video in list_folder(tmp_path)}
    assert [name for name in listed if not listed[name]] == ["a.TS", "b.wmv", "c.mts", "d.webp"]
    assert set(listed) == {"a.TS", "b.wmv", "c.mts", "d.webp", "alone.txt", "notes.md", "none"}
    assert "a caption without a video" in listed["alone.txt"] and "a file .md" in listed["notes.md"]


def test_names_that_are_no_utf_8_are_read(tmp_path, capsys):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/v/caf\xe9")
    (tmp_path / "v").mkdir()
    write_mp4(Path(f"{odd}.mp4"), np.full((8, 32, 32, 3), 90, np.uint8))
    Path(f"{odd}2.mp4").write_bytes(b"no video")
    command = ["shards", str(tmp_path / "v"), "-o", str(tmp_path / "out"), "--size", "32x32", "--frames", "3"]
    assert cli.main(command) == 0
    assert len(ShardSet(tmp_path / "out")) == 1 and "caf\\udce92.mp4" in (tmp_path / "out" / "skipped.csv").read_text()


@pytest.mark.parametrize(
    "delimiter, start", [(",", "\ufeff"), (";", "sep=;\n"), ("\t", ""), ("|", ""), (";", "\ufeff")]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_of_every_program(tmp_path, delimiter, start, end):
    rows = [["videoid", " contentUrl", "page_dir ", "name"], ["7", "x", "", '"a, b; c"'], [], ["8", "x"]]
    text = start + end.join(delimiter.join(row) for row in rows)
    (tmp_path / "t.csv").write_bytes(text.encode())
    (tmp_path / "7.mp4").touch()
    first, short = read_webvid(tmp_path / "t.csv", tmp_path)
    assert (first.name, first.caption, first.trouble) == ("7", "a, b; c", "") and "no file" in short.trouble
    (tmp_path / "t.csv").write_bytes(text.encode("utf-16"))
    if not start:
        assert read_webvid(tmp_path / "t.csv", tmp_path)[0].caption == "a, b; c"
