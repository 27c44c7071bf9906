"""Choosing a tracker by its name, and the trackers beside the default one of `tracking.py`.

| name | file | what it is |
| --- | --- | --- |
| dis | none | OpenCV's DIS, chained and corrected; the default |
| raft:FILE | state dict of torchvision's `raft_large` or `raft_small` | flow from frame to frame, used like DIS |
| cotracker:FILE | TorchScript of CoTracker | tracks of a grid of points, interpolated between them |
| dot:FILE | TorchScript of DOT | dense tracks from frame 0 |
| fields:PATH | .npz, or a folder with one .flo or KITTI .png for each frame | flows that were computed elsewhere |
| python:MODULE:NAME | a module that Python can import | a tracker of your own |

A tracker of your own is one method, the `__call__` of the `Tracker` in `tracking.py`. NAME is a class or a function
that is called without arguments and returns the tracker.

Nothing is downloaded. State dicts are read with `weights_only=True`. A TorchScript file is a program, so load only
files that you trust.

Motion-I2V (section 3.4) uses dense tracks like these for its video-to-video; notebook 05 uses the default. Sources:
Teed and Deng, "RAFT", ECCV 2020; Karaev et al., "CoTracker", ECCV 2024; Le Moing et al., "Dense Optical Tracking:
Connecting the Dots" (DOT), CVPR 2024.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional as F

from mi2v_lite.io.arrays import read_arrays
from mi2v_lite.io.files import absent, check_ordinary
from mi2v_lite.io.pixels import frames_tensor

from .fields import resize
from .files import FLO_UNKNOWN, is_kitti, read_flow
from .tracking import ChainTracker, Tracker, Tracks, check_clip

STRETCHED = 1.05  # by which the aspect ratio of fields may differ from that of a clip
NUMBERS = re.compile(r"(\d+)")
GRID_STEP = 4  # pixels between CoTracker's points
RAFT_MULTIPLE, RAFT_LEAST = 8, 128  # sides that torchvision's RAFT accepts: multiples of 8, at least 128 pixels


def load_tracker(spec: str = "dis", device: torch.device | str | None = None) -> Tracker:
    """Make a tracker from its name.

    Args:
        spec: a name as in the table at the head of this file.
        device: where a network runs; None means on the GPU if there is one, and otherwise on the CPU.

    Returns:
        The tracker.

    Raises:
        ValueError: if the name is unknown, the file is missing or cannot be read, the module does not have that name,
            or torchvision is needed and not installed.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, name = spec.partition(":")
    if spec == "dis":
        return ChainTracker()
    if kind == "python":
        return _of_module(spec, name)
    kinds = {"raft": _raft, "cotracker": _cotracker, "dot": _dot, "fields": lambda path, _: FieldFile(path)}
    if kind not in kinds or not name:
        files = ", ".join(f"{name}:FILE" for name in kinds)
        raise ValueError(f"tracker {spec!r} is unknown: write dis, {files}, or python:MODULE:NAME.")
    if not Path(name).exists():
        raise ValueError(f"tracker {spec!r}: {absent(name, 'the path of a file')}")
    check_ordinary(name)
    return kinds[kind](Path(name), torch.device(device))


@dataclass(frozen=True)
class TrackerMaker:
    """Makes a tracker when it is called. Other processes are sent this instead of a network, and each makes its own.

    Attributes:
        spec: as in `load_tracker`.
    """

    spec: str

    def __repr__(self) -> str:
        """The name of the tracker, which a set of shards keeps to say how it was tracked."""
        return self.spec

    def __call__(self) -> Tracker:
        """Call `load_tracker`."""
        return load_tracker(self.spec)


class RaftFlow:
    """A network with the interface of RAFT as a `PairFlow`.

    Args:
        model: `model(a, b)` takes two pictures `(1, 3, H, W)` in [-1, 1] and returns a list of flows `(1, 2, H, W)`, of
            which the last is the best.
        device: where it runs.
    """

    def __init__(self, model: Callable, device: torch.device | str = "cpu") -> None:
        self.model, self.device = model, torch.device(device)

    @torch.no_grad()
    def __call__(self, a: np.ndarray, b: np.ndarray) -> Tensor:
        """As `PairFlow` says. Pictures are padded at the right and at the bottom to sides that the network accepts."""
        height, width = a.shape[:2]
        target = [max(RAFT_LEAST, -(-side // RAFT_MULTIPLE) * RAFT_MULTIPLE) for side in (height, width)]
        pictures = frames_tensor(np.stack([a, b]))
        padded = F.pad(pictures, (0, target[1] - width, 0, target[0] - height), mode="replicate").to(self.device)
        flow = self.model(padded[:1], padded[1:])[-1]
        if tuple(flow.shape) != (1, 2, *target):
            raise ValueError(f"the network's flow must have the shape {(1, 2, *target)}, got {tuple(flow.shape)}.")
        return flow[0, :, :height, :width].float().cpu()


class PointTracker:
    """A network with the interface of CoTracker as a `Tracker`.

    A grid of points is tracked. Between the points the flow is interpolated bilinearly, and the visibility is that of
    the nearest point.

    Args:
        model: `model(video, queries)` takes a video `(1, F, 3, H, W)`, float in [0, 255], and queries `(1, P, 3)` of
            (frame, x, y); it returns tracks `(1, F, P, 2)` in pixels and their visibility `(1, F, P)`.
        device: where it runs.
        step: about how many pixels lie between neighbouring points of the grid.
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
                f"the network's tracks must have the shape {(1, count, rows * columns, 2)}, got {tuple(tracks.shape)}."
            )
        moved = (tracks[0, 1:] - queries[0, :, 1:]).float().cpu()  # (N, P, 2)
        coarse = moved.unflatten(1, (rows, columns)).permute(0, 3, 1, 2)  # (N, 2, rows, columns)
        visible = seen.reshape(1, count, -1)[0, 1:].float().cpu().unflatten(1, (rows, columns))[:, None]
        # The corners of the picture are points of the grid, so the corners are aligned.
        flow = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
        return Tracks(flow, F.interpolate(visible, (height, width), mode="nearest")[:, 0] > 0.5)


class DenseTracker:
    """A network with the interface of DOT as a `Tracker`.

    Args:
        model: `model(video)` takes a video `(1, F, 3, H, W)`, float in [0, 1], and returns `(1, F, H, W, 3)`: for each
            pixel of frame 0 its x and y in every frame, in pixels, and whether it is seen there.
        device: where it runs.
    """

    def __init__(self, model: Callable, device: torch.device | str = "cpu") -> None:
        self.model, self.device = model, torch.device(device)

    @torch.no_grad()
    def __call__(self, frames: np.ndarray) -> Tracks:
        """See `Tracker`."""
        check_clip(frames)
        count, height, width = frames.shape[:3]
        dense = self.model(_video(frames, 1.0).to(self.device))
        if tuple(dense.shape) != (1, count, height, width, 3):
            raise ValueError(
                f"the network's tracks must have the shape {(1, count, height, width, 3)}, got {tuple(dense.shape)}."
            )
        dense = dense[0, 1:].float().cpu()  # (N, H, W, 3)
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        flow = dense[..., :2] - torch.stack([x, y], dim=-1)
        return Tracks(flow.permute(0, 3, 1, 2).contiguous(), dense[..., 2] > 0.5)


class FieldFile:
    """Flows from a file as a `Tracker`, which only checks that the frames fit to them.

    Args:
        path: the file or folder, see `read_tracks`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __call__(self, frames: np.ndarray) -> Tracks:
        """Read the tracks and cut them to the length of the clip.

        Args:
            frames: uint8 `(F, H, W, 3)`.

        Returns:
            The tracks of F - 1 frames.

        Raises:
            ValueError: if the file has fewer flows than the clip needs, or flows of another shape, and not only
                of another size, to which they are resized.
        """
        check_clip(frames)
        tracks = read_tracks(self.path)
        count, size = len(frames) - 1, frames.shape[1:3]
        shape = tuple(tracks.flow.shape)
        stretched = (shape[2] * size[1]) / (shape[3] * size[0])
        if shape[0] < count or not 1 / STRETCHED <= stretched <= STRETCHED:
            raise ValueError(
                f"{self.path} has {shape[0]} fields of {shape[3]}x{shape[2]}; the clip needs {count} of "
                f"{size[1]}x{size[0]}. Track the same frames at the same size, or change --frames and --size."
            )
        flow, seen = tracks.flow[:count], tracks.visibility[:count]
        if shape[2:] != size:
            warnings.warn(
                f"{self.path} has fields of {shape[3]}x{shape[2]} pixels for a clip of {size[1]}x{size[0]}: they are "
                "resized.",
                stacklevel=2,
            )
            flow = resize(flow, size)
            seen = F.interpolate(seen[:, None].float(), size, mode="nearest")[:, 0] > 0.5
        return Tracks(flow, seen)


class OwnTracker:
    """A tracker of somebody else as a `Tracker`, whose result is checked.

    Args:
        name: what errors call it.
        tracker: is called with the frames of a clip.
    """

    def __init__(self, name: str, tracker: Callable) -> None:
        self.name, self.tracker = name, tracker

    def __call__(self, frames: np.ndarray) -> Tracks:
        """See `Tracker`.

        Raises:
            ValueError: if the tracker fails, or returns anything but finite tracks of the frames' size.
        """
        check_clip(frames)
        try:
            result = self.tracker(frames)
        except (Exception, SystemExit) as error:  # it is a program of somebody else
            raise ValueError(f"tracker {self.name!r} failed ({type(error).__name__}: {error}).") from error
        count, height, width = len(frames) - 1, *frames.shape[1:3]
        wanted = (
            f"it must return Tracks(flow, visibility): flow of shape {(count, 2, height, width)}, visibility of "
            f"{(count, height, width)}"
        )
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise ValueError(f"tracker {self.name!r} returned a {type(result).__name__}; {wanted}.")
        try:
            flow, seen = (torch.as_tensor(part).detach().cpu() for part in result)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"tracker {self.name!r} returned no arrays ({error}); {wanted}.") from error
        shapes = tuple(flow.shape), tuple(seen.shape)
        if shapes != ((count, 2, height, width), (count, height, width)):
            raise ValueError(f"tracker {self.name!r} returned shapes {shapes[0]} and {shapes[1]}; {wanted}.")
        if not torch.isfinite(flow).all():
            raise ValueError(f"tracker {self.name!r} returned a flow that is not finite; {wanted}, with no nan or inf.")
        return Tracks(flow.float(), seen.bool())


def read_tracks(path: str | Path) -> Tracks:
    """Read tracks from a file, or from a folder with one file for each frame.

    Where the flow is unknown (nan), it is taken from the nearest pixel where it is known, and the pixel counts as
    hidden. If there is no visibility in the file, all pixels with a known flow count as visible.

    Args:
        path: an .npz file, a .flo or KITTI .png file, or a folder. In a folder, the .flo files are read, or the KITTI
            .png files if there are none, in the order of the numbers in their names; other pictures are passed over.

    Returns:
        The tracks.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, the flows have several sizes, or one of them has no known pixel.
    """
    path = Path(path)
    if path.is_dir():
        files = _fields_in(path)
        fields = [read_flow(file) for file in files]
        if len({tuple(field.shape) for field in fields}) != 1:
            raise ValueError(f"{path} must hold .flo or KITTI .png files of one size, got {len(files)} files.")
        flow = torch.stack(fields)
    else:
        flow = read_flow(path)
        flow = flow[None] if flow.ndim == 3 else flow
    known = (flow.abs() <= FLO_UNKNOWN).all(dim=1)  # (N, H, W); no nan is
    if not known.flatten(1).any(dim=1).all():
        raise ValueError(f"{path}: a field has no known pixel.")
    seen = known
    if path.suffix.lower() == ".npz":
        try:
            visibility = read_arrays(path, (), ("visibility",)).get("visibility")
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if visibility is not None:
            if visibility.shape != tuple(known.shape):
                raise ValueError(f'{path}: "visibility" is {visibility.shape}, not {tuple(known.shape)}.')
            seen = known & torch.from_numpy(visibility.astype(bool, copy=False))
    for field, mask in zip(flow, known, strict=True):
        if not mask.all():
            rows, columns = distance_transform_edt(~mask.numpy(), return_distances=False, return_indices=True)
            field[:] = field[:, rows, columns]
    return Tracks(flow, seen)


def _fields_in(folder: Path) -> list[Path]:
    """The files of one kind in a folder of fields, flow_2 before flow_10."""
    files = [file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")]
    fields = [file for file in files if file.suffix.lower() == ".flo"]
    fields = fields or [file for file in files if file.suffix.lower() == ".png" and is_kitti(file)]
    return sorted(
        fields, key=lambda file: [int(part) if part.isdecimal() else part for part in NUMBERS.split(file.name)]
    )


def _video(frames: np.ndarray, largest: float) -> Tensor:
    """A clip as the networks take it, `(1, F, 3, H, W)` from 0 to `largest`."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float()[None] * (largest / 255)


def _of_module(spec: str, name: str) -> Tracker:
    module, _, attribute = name.partition(":")
    try:
        maker = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # it is a program of somebody else
        said = f"{error}" if isinstance(error, (ImportError, AttributeError)) else f"{type(error).__name__}: {error}"
        raise ValueError(f"tracker {spec!r} cannot be imported ({said}): write python:MODULE:NAME.") from error
    if not callable(maker):
        raise ValueError(f"tracker {spec!r} cannot be called; name a function or class that returns a tracker.")
    try:
        tracker = maker()
    except (Exception, SystemExit) as error:  # it may even end the program, and nobody would know why
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"tracker {spec!r} failed when it was called without arguments ({reason}): NAME must return a tracker, and "
            "not be one itself."
        ) from error
    if not callable(tracker):
        raise ValueError(f"tracker {spec!r} returned a {type(tracker).__name__}, which cannot be called with frames.")
    ours = isinstance(tracker, (ChainTracker, PointTracker, DenseTracker))
    return tracker if ours else OwnTracker(spec, tracker)


def _raft(path: Path, device: torch.device) -> Tracker:
    try:
        networks = importlib.import_module("torchvision.models.optical_flow")
    except ImportError as error:
        raise ValueError("tracker raft needs torchvision, which is not installed; install it, or use dis.") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        large = any(name.startswith("mask_predictor") for name in state)
        model = networks.raft_large() if large else networks.raft_small()
        model.load_state_dict(state)
    except Exception as error:  # torch raises errors of many kinds for what is not a state dict
        raise ValueError(f"{path} is not a state dict of torchvision's RAFT: {error}") from error
    return ChainTracker(RaftFlow(model.to(device).eval(), device))


def _script(path: Path, device: torch.device) -> torch.jit.ScriptModule:
    try:
        return torch.jit.load(str(path), map_location=device).eval()
    except RuntimeError as error:
        raise ValueError(f"{path} is not a TorchScript file (torch.jit.save): {str(error).splitlines()[0]}") from error


def _cotracker(path: Path, device: torch.device) -> Tracker:
    return PointTracker(_script(path, device), device)


def _dot(path: Path, device: torch.device) -> Tracker:
    return DenseTracker(_script(path, device), device)
