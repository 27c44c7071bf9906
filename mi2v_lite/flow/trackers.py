"""Other trackers behind the protocol of `tracking.py`: networks from a local file, and fields computed elsewhere.

| spec | file | what it is |
| --- | --- | --- |
| dis | none | OpenCV's DIS, chained and refined: the default |
| raft:FILE | state dict of torchvision's `raft_large` or `raft_small` | frame to frame, chained and refined like DIS |
| cotracker:FILE | TorchScript of CoTracker | tracks of a grid of points, interpolated in between |
| dot:FILE | TorchScript of DOT | dense tracks from frame 0 |
| fields:PATH | .npz, or a folder with one .flo or KITTI .png a frame | precomputed |
| python:MODULE:NAME | an installed module | what its NAME gives when called without arguments: a tracker of your own |

Nothing is fetched. State dicts are read with `weights_only=True`; TorchScript holds a program and no pickled objects of
yours, but it is a program: load files that you trust.

RAFT: Teed and Deng, ECCV 2020. CoTracker: Karaev et al., ECCV 2024. DOT: Le Moing et al., "Dense Optical Tracking:
Connecting the Dots", CVPR 2024. Motion-I2V, section 3.4, drives its video-to-video with such dense tracks.
Notebook 05 uses the default.
"""

from __future__ import annotations

import importlib
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional as F

from mi2v_lite.io.pixels import frames_tensor

from .files import read_flow
from .tracking import ChainTracker, Tracker, Tracks, check_clip

GRID_STEP = 4  # pixels between CoTracker's points
RAFT_MULTIPLE, RAFT_LEAST = 8, 128  # what torchvision's RAFT takes


def load_tracker(spec: str = "dis", device: torch.device | str | None = None) -> Tracker:
    """A tracker by name, see the table above.

    Args:
        spec: "dis", or "kind:file". device: where a network runs; None is a GPU if there is one, else the CPU.

    Raises:
        ValueError: unknown kind, a missing or unreadable file, a module without that name, or torchvision is not
            installed.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, name = spec.partition(":")
    if kind == "dis" and not name:
        return ChainTracker()
    if kind == "python":
        return _of_module(spec, name)
    kinds = {"raft": _raft, "cotracker": _cotracker, "dot": _dot, "fields": lambda path, _: FieldFile(path)}
    if kind not in kinds or not name:
        files = ", ".join(f"{each}:FILE" for each in kinds)
        raise ValueError(f"tracker {spec!r} is unknown: write dis, {files}, or python:MODULE:NAME.")
    if not Path(name).exists():
        raise ValueError(f"tracker {spec!r}: {name} does not exist.")
    return kinds[kind](Path(name), torch.device(device))


@dataclass(frozen=True)
class TrackerMaker:
    """`load_tracker` put off: other processes get this instead of a network, and each makes its own."""

    spec: str

    def __repr__(self) -> str:
        """The spec: how a set of shards notes what tracked it."""
        return self.spec

    def __call__(self) -> Tracker:
        """See `load_tracker`."""
        return load_tracker(self.spec)


class RaftFlow:
    """A network of RAFT's interface as a `PairFlow`: `model(a, b)` of `(1, 3, H, W)` in [-1, 1] gives a list of flows
    `(1, 2, H, W)`, the last one best."""

    def __init__(self, model: Callable, device: torch.device | str = "cpu") -> None:
        self.model, self.device = model, torch.device(device)

    @torch.no_grad()
    def __call__(self, a: np.ndarray, b: np.ndarray) -> Tensor:
        """See `PairFlow`. Sides are padded at the right and below to what the network takes."""
        height, width = a.shape[:2]
        target = [max(RAFT_LEAST, -(-side // RAFT_MULTIPLE) * RAFT_MULTIPLE) for side in (height, width)]
        pictures = frames_tensor(np.stack([a, b]))
        padded = F.pad(pictures, (0, target[1] - width, 0, target[0] - height), mode="replicate").to(self.device)
        flow = self.model(padded[:1], padded[1:])[-1]
        if tuple(flow.shape) != (1, 2, *target):
            raise ValueError(f"the network's flow must be {(1, 2, *target)}, got {tuple(flow.shape)}.")
        return flow[0, :, :height, :width].float().cpu()


class PointTracker:
    """A network of CoTracker's interface as a `Tracker`.

    `model(video, queries)`: video `(1, F, 3, H, W)` float in [0, 255], queries `(1, P, 3)` as (frame, x, y); it gives
    tracks `(1, F, P, 2)` in pixels and visibility `(1, F, P)`. A grid of points is tracked; flow in between is
    interpolated bilinearly, visibility taken from the nearest point.
    """

    def __init__(self, model: Callable, device: torch.device | str = "cpu", step: int = GRID_STEP) -> None:
        self.model, self.device, self.step = model, torch.device(device), step

    @torch.no_grad()
    def __call__(self, frames: np.ndarray) -> Tracks:
        """See `Tracker`."""
        check_clip(frames)
        count, height, width = frames.shape[:3]
        rows, columns = (max(2, round(side / self.step)) for side in (height, width))
        y, x = torch.meshgrid(torch.linspace(0, height - 1, rows), torch.linspace(0, width - 1, columns), indexing="ij")
        queries = torch.stack([torch.zeros_like(x), x, y], dim=-1).reshape(1, -1, 3).to(self.device)
        tracks, seen = self.model(_video(frames, 255.0).to(self.device), queries)[:2]
        if tuple(tracks.shape) != (1, count, rows * columns, 2):
            raise ValueError(
                f"the network's tracks must be {(1, count, rows * columns, 2)}, got {tuple(tracks.shape)}."
            )
        moved = (tracks[0, 1:] - queries[0, :, 1:]).float().cpu()  # (N, P, 2)
        coarse = moved.unflatten(1, (rows, columns)).permute(0, 3, 1, 2)  # (N, 2, rows, columns)
        visible = seen.reshape(1, count, -1)[0, 1:].float().cpu().unflatten(1, (rows, columns))[:, None]
        # The points stand on the corners too, so the corners are aligned.
        flow = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
        return Tracks(flow, F.interpolate(visible, (height, width), mode="nearest")[:, 0] > 0.5)


class DenseTracker:
    """A network of DOT's interface as a `Tracker`: `model(video)`, video `(1, F, 3, H, W)` float in [0, 1], gives
    `(1, F, H, W, 3)`: for each pixel of frame 0 its (x, y) in every frame, pixels, and whether it is seen there."""

    def __init__(self, model: Callable, device: torch.device | str = "cpu") -> None:
        self.model, self.device = model, torch.device(device)

    @torch.no_grad()
    def __call__(self, frames: np.ndarray) -> Tracks:
        """See `Tracker`."""
        check_clip(frames)
        count, height, width = frames.shape[:3]
        dense = self.model(_video(frames, 1.0).to(self.device))
        if tuple(dense.shape) != (1, count, height, width, 3):
            raise ValueError(f"the network's tracks must be {(1, count, height, width, 3)}, got {tuple(dense.shape)}.")
        dense = dense[0, 1:].float().cpu()  # (N, H, W, 3)
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        flow = dense[..., :2] - torch.stack([x, y], dim=-1)
        return Tracks(flow.permute(0, 3, 1, 2).contiguous(), dense[..., 2] > 0.5)


class FieldFile:
    """Fields computed elsewhere as a `Tracker`: the file says how the clip moves, the frames are only checked."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __call__(self, frames: np.ndarray) -> Tracks:
        """The tracks of the file, cut to the clip's length.

        Raises:
            ValueError: the file has fewer fields than the clip needs, or of another size.
        """
        check_clip(frames)
        tracks = read_tracks(self.path)
        count, height, width = frames.shape[:3]
        have = tuple(tracks.flow.shape)
        if have[0] < count - 1 or have[2:] != (height, width):
            raise ValueError(
                f"{self.path} has {have[0]} fields of {have[3]}x{have[2]}; the clip needs {count - 1} of "
                f"{width}x{height}. Track the same frames at the same size, or change --frames and --size."
            )
        return Tracks(tracks.flow[: count - 1], tracks.visibility[: count - 1])


def read_tracks(path: str | Path) -> Tracks:
    """Tracks from an .npz file, or from a folder with one .flo or KITTI .png file a frame in the order of their names.

    Unknown flow (nan) takes the nearest known pixel's and counts as hidden. Without a "visibility" everything known
    counts as seen.

    Raises:
        FileNotFoundError: no such file.
        ValueError: nothing readable there, fields of several sizes, or a field without any known pixel.
    """
    path = Path(path)
    if path.is_dir():
        parts = sorted(p for p in path.iterdir() if p.suffix.lower() in (".flo", ".png"))
        fields = [read_flow(part) for part in parts]
        if len({tuple(field.shape) for field in fields}) != 1:
            raise ValueError(f"{path} must hold .flo or KITTI .png files of one size, got {len(parts)} files.")
        flow = torch.stack(fields)
    else:
        flow = read_flow(path)
        flow = flow[None] if flow.ndim == 3 else flow
    known = torch.isfinite(flow).all(dim=1)  # (N, H, W)
    if not known.flatten(1).any(dim=1).all():
        raise ValueError(f"{path}: a field has no known pixel.")
    seen = known
    if path.suffix.lower() == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            if "visibility" in arrays:
                if arrays["visibility"].shape != tuple(known.shape):
                    raise ValueError(f'{path}: "visibility" is {arrays["visibility"].shape}, not {tuple(known.shape)}.')
                seen = known & torch.from_numpy(arrays["visibility"].astype(bool))
    for field, mask in zip(flow, known, strict=True):
        if not mask.all():
            rows, columns = distance_transform_edt(~mask.numpy(), return_distances=False, return_indices=True)
            field[:] = field[:, rows, columns]
    return Tracks(flow, seen)


def _video(frames: np.ndarray, top: float) -> Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float()[None] * (top / 255)  # (1, F, 3, H, W)


def _of_module(spec: str, name: str) -> Tracker:
    module, _, attribute = name.partition(":")
    try:
        maker = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"tracker {spec!r} cannot be imported ({error}): write python:MODULE:NAME.") from error
    if not callable(maker):
        raise ValueError(f"tracker {spec!r} cannot be called; name a function or class that gives a tracker.")
    return maker()


def _raft(path: Path, device: torch.device) -> Tracker:
    try:
        networks = importlib.import_module("torchvision.models.optical_flow")
    except ImportError as error:
        raise ValueError("tracker raft needs torchvision, which is not installed; or use dis.") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        large = any(name.startswith("mask_predictor") for name in state)
        model = networks.raft_large() if large else networks.raft_small()
        model.load_state_dict(state)
    except (RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError, TypeError) as error:
        raise ValueError(f"{path} is no state dict of torchvision's RAFT: {error}") from error
    return ChainTracker(RaftFlow(model.to(device).eval(), device))


def _script(path: Path, device: torch.device) -> torch.jit.ScriptModule:
    try:
        return torch.jit.load(str(path), map_location=device).eval()
    except RuntimeError as error:
        raise ValueError(f"{path} is no TorchScript file (torch.jit.save): {str(error).splitlines()[0]}") from error


def _cotracker(path: Path, device: torch.device) -> Tracker:
    return PointTracker(_script(path, device), device)


def _dot(path: Path, device: torch.device) -> Tracker:
    return DenseTracker(_script(path, device), device)
