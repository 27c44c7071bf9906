"""Flow files: round trips, the formats' bytes, and what is said about files that are wrong."""

import struct

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mi2v_lite.flow.files import (
    read_flo,
    read_flow,
    read_kitti,
    read_npz,
    write_flo,
    write_flow,
    write_kitti,
)

quick = settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 2**31)
sides = st.integers(1, 9)


def random_flow(seed, *shape, scale=100.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


@quick
@given(seeds, sides, sides)
def test_flo_round_trip_is_exact(tmp_path, seed, height, width):
    flow = random_flow(seed, 2, height, width)
    write_flow(tmp_path / "a.flo", flow)
    assert torch.equal(read_flow(tmp_path / "a.flo"), flow)


@quick
@given(seeds, sides, sides)
def test_kitti_round_trip_is_within_half_a_step(tmp_path, seed, height, width):
    flow = random_flow(seed, 2, height, width)
    valid = torch.rand(1, height, width, generator=torch.Generator().manual_seed(seed)) > 0.3
    write_kitti(tmp_path / "a.png", flow, valid)
    back, known = read_kitti(tmp_path / "a.png")
    assert torch.equal(known, valid)
    assert ((back - flow).abs()[:, valid[0]] <= 0.5 / 64).all() and back[:, ~valid[0]].isnan().all()
    write_flow(tmp_path / "b.png", back)  # nan says what is not valid; a second trip changes nothing
    assert torch.equal(read_flow(tmp_path / "b.png").nan_to_num(7.0), back.nan_to_num(7.0))


@quick
@given(seeds, st.integers(0, 3), sides, sides)
def test_npz_round_trip_is_exact(tmp_path, seed, frames, height, width):
    frames += 1
    flow = random_flow(seed, frames, 2, height, width)
    flow[0, 0, 0, 0] = torch.nan
    write_flow(tmp_path / "a.npz", flow)
    assert torch.equal(read_flow(tmp_path / "a.npz").nan_to_num(7.0), flow.nan_to_num(7.0))


def test_flo_bytes_are_middlebury_s(tmp_path):
    body = struct.pack("<fii8f", 202021.25, 2, 2, 1, 2, 3, 4, 5, 6, 7, 8)
    (tmp_path / "a.flo").write_bytes(body)
    flow = read_flo(tmp_path / "a.flo")
    assert flow[0].tolist() == [[1, 3], [5, 7]] and flow[1].tolist() == [[2, 4], [6, 8]]
    write_flo(tmp_path / "b.flo", flow.numpy())
    assert (tmp_path / "b.flo").read_bytes() == body


def test_flo_keeps_unknown_flow_unknown(tmp_path):
    flow = random_flow(0, 2, 3, 4)
    flow[0, 1, 2] = torch.nan
    write_flo(tmp_path / "a.flo", flow)
    back = read_flo(tmp_path / "a.flo")
    assert back[:, 1, 2].isnan().all() and back.isnan().sum() == 2
    values = np.frombuffer((tmp_path / "a.flo").read_bytes(), "<f4", offset=12)
    assert np.isfinite(values).all() and (values > 1e9).sum() == 2
    with pytest.raises(ValueError, match="unknown"):
        write_flo(tmp_path / "a.flo", torch.full((2, 1, 1), 2e9))


def test_kitti_channels_are_u_v_valid(tmp_path):
    write_kitti(tmp_path / "a.png", torch.tensor([1.0, -2.0]).view(2, 1, 1))
    blue, green, red = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)[0, 0]
    assert (int(red), int(green), int(blue)) == (2**15 + 64, 2**15 - 128, 1)


def test_kitti_range(tmp_path):
    ends = torch.tensor([[-512.0, 511.98]]).expand(2, 1, 2)
    write_kitti(tmp_path / "a.png", ends)
    assert (read_kitti(tmp_path / "a.png")[0] - ends).abs().max() <= 0.5 / 64
    with pytest.raises(ValueError, match="511.98"):
        write_kitti(tmp_path / "a.png", ends + 1)
    write_kitti(tmp_path / "a.png", ends + 1, valid=torch.tensor([[True, False]]))


@pytest.mark.parametrize("suffix", [".flo", ".png", ".npz"])
def test_every_truncation_is_an_error(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_flow(path, random_flow(0, *((2,) if suffix == ".npz" else ()), 2, 5, 6))
    whole = path.read_bytes()
    for length in {0, 3, 4, 10, 12, 20, len(whole) // 2, len(whole) - 5, len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=path.name):
            read_flow(path)


@pytest.mark.parametrize("suffix", [".flo", ".png", ".npz"])
def test_files_of_another_kind_are_an_error(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"this is not a flow" * 20)
    with pytest.raises(ValueError, match=path.name):
        read_flow(path)
    with pytest.raises(FileNotFoundError):
        read_flow(tmp_path / f"missing{suffix}")


def test_wrong_contents_are_named(tmp_path):
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match="16-bit"):
        read_kitti(tmp_path / "photo.png")
    np.savez(tmp_path / "other.npz", motion=np.zeros((1, 2, 4, 4)))
    with pytest.raises(ValueError, match="motion"):
        read_npz(tmp_path / "other.npz")
    np.savez(tmp_path / "shape.npz", flow=np.zeros((1, 3, 4, 4)))
    with pytest.raises(ValueError, match=r"\(N, 2, H, W\)"):
        read_npz(tmp_path / "shape.npz")
    np.savez(tmp_path / "object.npz", flow=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="numeric"):
        read_npz(tmp_path / "object.npz")
    np.save(tmp_path / "plain.npy", np.zeros((1, 2, 4, 4)))
    (tmp_path / "plain.npy").rename(tmp_path / "plain.npz")
    with pytest.raises(ValueError, match="npz"):
        read_npz(tmp_path / "plain.npz")
    (tmp_path / "header.flo").write_bytes(struct.pack("<fii", 202021.25, -1, 4))
    with pytest.raises(ValueError, match="damaged"):
        read_flo(tmp_path / "header.flo")
    (tmp_path / "long.flo").write_bytes(struct.pack("<fii3f", 202021.25, 1, 1, 0, 0, 0))
    with pytest.raises(ValueError, match="too long"):
        read_flo(tmp_path / "long.flo")
    with pytest.raises(ValueError, match=".flo, .npz, .png"):
        write_flow(tmp_path / "a.jpg", torch.zeros(2, 1, 1))
    with pytest.raises(ValueError, match="unknown suffix"):
        read_flow(tmp_path / "a")
    for suffix, shape in ((".flo", (1, 2, 3, 3)), (".png", (3, 3, 3)), (".npz", (2, 3, 3))):
        with pytest.raises(ValueError, match="shape"):
            write_flow(tmp_path / f"a{suffix}", torch.zeros(shape))
        assert not (tmp_path / f"a{suffix}").exists()


@pytest.mark.parametrize("step", ["os.fsync", "os.replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "a.flo"
    old = random_flow(0, 2, 3, 4)
    write_flo(path, old)

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(step, fail)
    with pytest.raises(OSError, match="no space"):
        write_flo(path, random_flow(1, 2, 3, 4))
    assert torch.equal(read_flo(path), old) and [p.name for p in tmp_path.iterdir()] == ["a.flo"]
    monkeypatch.undo()
    write_flo(path, old + 1)
    assert torch.equal(read_flo(path), old + 1) and [p.name for p in tmp_path.iterdir()] == ["a.flo"]
