"""Trackers from files, by stubs of the networks' interfaces: everything moves by (2, 1) a frame."""

import pickle
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mi2v_lite.flow.files import read_npz, write_flo, write_flow, write_npz
from mi2v_lite.flow.trackers import (
    DenseTracker,
    FieldFile,
    PointTracker,
    RaftFlow,
    TrackerMaker,
    load_tracker,
    read_tracks,
)
from mi2v_lite.flow.tracking import ChainTracker

FRAMES = np.random.default_rng(0).integers(0, 255, (4, 36, 50, 3), dtype=np.uint8)
TRUE = torch.tensor([[2.0 * i, 1.0 * i] for i in (1, 2, 3)]).view(3, 2, 1, 1).expand(3, 2, 36, 50)


class Points(nn.Module):
    """CoTracker's interface; a point that leaves on the right is not seen."""

    def forward(self, video, queries):
        steps = torch.arange(video.shape[1]).view(1, -1, 1, 1)
        tracks = queries[:, None, :, 1:] + steps * torch.tensor([2.0, 1.0])
        return tracks, tracks[..., 0] < video.shape[-1]


class Dense(nn.Module):
    """DOT's interface."""

    def forward(self, video):
        height, width = video.shape[-2], video.shape[-1]
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        steps = torch.arange(video.shape[1]).view(1, -1, 1, 1)
        moved = x + 2.0 * steps
        return torch.stack([moved, y + 1.0 * steps, (moved < width).float()], dim=-1)


class Raft(nn.Module):
    """RAFT's interface: a list of estimates, the last one best."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor([0.0, 0.0]))

    def forward(self, a, b):
        assert a.shape[-1] % 8 == 0 and min(a.shape[-2:]) >= 128 and -1 <= a.min() and a.max() <= 1
        shift = self.shift.view(1, 2, 1, 1).expand(1, 2, *a.shape[-2:])
        return [torch.zeros_like(shift), shift]


@pytest.mark.parametrize("make", [lambda: PointTracker(Points()), lambda: DenseTracker(Dense())])
def test_networks_that_track_all_at_once(make):
    flow, seen = make()(FRAMES)
    torch.testing.assert_close(flow, TRUE.contiguous(), atol=1e-4, rtol=0)
    assert seen.shape == (3, 36, 50) and seen[-1, :, :40].all() and not seen[-1, :, -3:].any()


def test_they_load_from_torchscript(tmp_path):
    for kind, module in {"cotracker": Points(), "dot": Dense()}.items():
        torch.jit.script(module).save(str(tmp_path / f"{kind}.pt"))
        flow, _ = load_tracker(f"{kind}:{tmp_path / kind}.pt")(FRAMES)
        torch.testing.assert_close(flow, TRUE.contiguous(), atol=1e-4, rtol=0)


def test_raft_loads_a_state_dict(tmp_path, monkeypatch):
    module = types.ModuleType("torchvision.models.optical_flow")
    module.raft_small = module.raft_large = Raft
    monkeypatch.setitem(sys.modules, "torchvision.models.optical_flow", module)
    torch.save({"shift": torch.tensor([2.0, 1.0])}, tmp_path / "raft.pth")
    tracker = load_tracker(f"raft:{tmp_path / 'raft.pth'}")
    assert isinstance(tracker, ChainTracker)
    torch.testing.assert_close(tracker.pairs(FRAMES[0], FRAMES[1]), TRUE[0].contiguous())
    torch.save({"other": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match="not a state dict of torchvision's RAFT"):
        load_tracker(f"raft:{tmp_path / 'wrong.pth'}")
    torch.save(Raft(), tmp_path / "object.pth")  # a pickled object, which must not be executed
    with pytest.raises(ValueError, match="not a state dict"):
        load_tracker(f"raft:{tmp_path / 'object.pth'}")


def test_without_torchvision_raft_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.models.optical_flow", None)
    (tmp_path / "raft.pth").touch()
    with pytest.raises(ValueError, match="needs torchvision"):
        load_tracker(f"raft:{tmp_path / 'raft.pth'}")


def test_a_network_of_another_interface_is_refused():
    with pytest.raises(ValueError, match="must have the shape"):
        DenseTracker(lambda video: torch.zeros(1, 4, 8, 8, 3))(FRAMES)
    with pytest.raises(ValueError, match="must have the shape"):
        PointTracker(lambda video, queries: (torch.zeros(1, 4, 3, 2), torch.zeros(1, 4, 3)))(FRAMES)
    with pytest.raises(ValueError, match="must have the shape"):
        RaftFlow(lambda a, b: [torch.zeros(1, 2, 4, 4)])(FRAMES[0], FRAMES[1])


def test_fields_from_files(tmp_path):
    seen = torch.rand(3, 36, 50) > 0.3
    write_npz(tmp_path / "fields.npz", TRUE, seen)
    torch.testing.assert_close(read_npz(tmp_path / "fields.npz"), TRUE.contiguous())
    flow, visibility = load_tracker(f"fields:{tmp_path / 'fields.npz'}")(FRAMES[:3])
    torch.testing.assert_close(flow, TRUE[:2].contiguous())
    assert torch.equal(visibility, seen[:2])
    for number, field in enumerate(TRUE):
        write_flo(tmp_path / f"{number:02d}.flo", field)
    torch.testing.assert_close(read_tracks(tmp_path).flow, TRUE.contiguous())
    with pytest.raises(ValueError, match="has 3 fields of 50x36; the clip needs 4"):
        FieldFile(tmp_path / "fields.npz")(np.zeros((5, 36, 50, 3), np.uint8))
    with pytest.raises(ValueError, match="visibility must be"):
        write_npz(tmp_path / "x.npz", TRUE, seen[:2])


def test_unknown_flow_is_taken_from_beside_and_not_seen(tmp_path):
    flow = TRUE.clone()
    flow[:, :, 10:20, 10:20] = torch.nan
    write_npz(tmp_path / "f.npz", flow)
    tracks = read_tracks(tmp_path / "f.npz")
    torch.testing.assert_close(tracks.flow, TRUE.contiguous())
    assert not tracks.visibility[:, 10:20, 10:20].any() and tracks.visibility[:, :10].all()
    flow[1] = torch.nan
    write_npz(tmp_path / "f.npz", flow)
    with pytest.raises(ValueError, match="no known pixel"):
        read_tracks(tmp_path / "f.npz")


def test_trackers_of_a_module():
    assert isinstance(load_tracker("python:mi2v_lite.flow.tracking:ChainTracker"), ChainTracker)
    with pytest.raises(ValueError, match="'python:json:__doc__' cannot be called"):
        load_tracker("python:json:__doc__")
    for spec in ("python:", "python:json", "python:json:Tracker", "python:nowhere:Raft"):
        with pytest.raises(ValueError, match="cannot be imported .* write python:MODULE:NAME"):
            load_tracker(spec)
    maker = TrackerMaker("dis")
    assert isinstance(maker(), ChainTracker) and pickle.loads(pickle.dumps(maker)) == maker


@pytest.mark.parametrize("spec", ["lucas", "raft", "dot:", "dis:file"])
def test_unknown_trackers(spec):
    with pytest.raises(ValueError, match="is unknown"):
        load_tracker(spec)
    with pytest.raises(ValueError, match="does not exist"):
        load_tracker("dot:no_such_file.pt")
    assert isinstance(load_tracker(), ChainTracker)


def test_a_folder_of_fields_is_read_in_the_order_of_its_numbers(tmp_path):
    for number in (1, 2, 10, 11, 3):
        write_flow(tmp_path / f"flow_{number}.flo", np.full((2, 16, 16), number, np.float32))
    Image.new("RGB", (16, 16)).save(tmp_path / "flow.png")  # a preview, which is no field
    write_npz(tmp_path / "flow.npz", np.zeros((1, 2, 16, 16), np.float32))
    assert read_tracks(tmp_path).flow[:, 0, 0, 0].tolist() == [1, 2, 3, 10, 11]
    (tmp_path / "kitti").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "kitti" / "preview.png")
    for number in (10, 2):
        write_flow(tmp_path / "kitti" / f"{number}.png", np.full((2, 16, 16), number, np.float32))
    assert read_tracks(tmp_path / "kitti").flow[:, 0, 0, 0].tolist() == [2, 10]


def test_fields_of_another_size_are_resized_and_of_another_shape_refused(tmp_path):
    write_npz(tmp_path / "f.npz", np.full((2, 2, 32, 48), 3, np.float32))
    with pytest.warns(UserWarning, match="fields of 48x32 pixels for a clip of 96x64"):
        flow, seen = FieldFile(tmp_path / "f.npz")(np.zeros((3, 64, 96, 3), np.uint8))
    assert flow.shape == (2, 2, 64, 96) and seen.shape == (2, 64, 96) and torch.allclose(flow, torch.tensor(6.0))
    with pytest.raises(ValueError, match="2 fields of 48x32; the clip needs 2 of 64x64"):
        FieldFile(tmp_path / "f.npz")(np.zeros((3, 64, 64, 3), np.uint8))


OWN = """
import numpy as np, torch
def zeros(frames, value=0.0, extra=0):
    n, h, w = len(frames) - 1, *frames.shape[1:3]
    return np.full((n + extra, 2, h, w), value, np.float32), np.ones((n + extra, h, w), bool)
pair = lambda: zeros
nan = lambda: lambda frames: zeros(frames, np.nan)
long = lambda: lambda frames: zeros(frames, extra=1)
flow = lambda: lambda frames: zeros(frames)[0]
none = lambda: lambda frames: None
text = lambda: lambda frames: ("flow", "seen")
broken = lambda: lambda frames: frames.nothing
thing = lambda: 3
"""


@pytest.mark.parametrize(
    "name, said",
    [
        ("zeros", "failed when it was called without arguments .*NAME must return a tracker"),
        ("thing", "returned a int, which cannot be called"),
        ("nan", "returned a flow that is not finite"),
        ("long", "returned shapes .*flow of shape \\(2, 2, 16, 24\\)"),
        ("flow", "returned a ndarray; it must return Tracks"),
        ("none", "returned a NoneType; it must return Tracks"),
        ("text", "returned no arrays"),
        ("broken", "failed \\(AttributeError"),
    ],
)
def test_a_wrong_tracker_of_ones_own_is_told_what_is_expected(tmp_path, monkeypatch, name, said):
    (tmp_path / "own_trackers.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    frames = np.zeros((3, 16, 24, 3), np.uint8)
    with pytest.raises(ValueError, match=f"python:own_trackers:{name}' {said}"):
        load_tracker(f"python:own_trackers:{name}")(frames)
    flow, seen = load_tracker("python:own_trackers:pair")(frames)
    assert flow.dtype == torch.float32 and seen.dtype == torch.bool, "a plain pair of arrays is taken"
