"""Flows in files: Middlebury .flo, KITTI 16-bit .png, and .npz for a whole motion field.

| suffix | content | values |
| --- | --- | --- |
| .flo | one flow (2, H, W) | float32, exact |
| .png | one flow (2, H, W), and where it is valid | steps of 1/64 px, from -512 to 511.98 px |
| .npz | a motion field (N, 2, H, W) under the key "flow" | float32, exact |

Unknown flow is nan in memory, whatever the format. A file is first written under another name and then moved to its
place, so that a reader never finds half a file, and a failed write leaves an older file as it was.

OpenCV's own `readOpticalFlow` is not used: a damaged .flo file can end the whole process in it.

Formats: Baker et al., "A Database and Evaluation Methodology for Optical Flow", IJCV 2011 (Middlebury); Menze and
Geiger, "Object Scene Flow for Autonomous Vehicles", CVPR 2015 (KITTI).
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from mi2v_lite.io.arrays import LARGEST, check_length, read_arrays
from mi2v_lite.io.files import TooLarge, atomic, check_ordinary, read_bytes

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
FLO_MAGIC = b"PIEH"  # 202021.25 as a little-endian float32
FLO_UNKNOWN = 1e9  # in Middlebury's format, a larger absolute value means unknown flow
FLO_LARGEST = 99_999  # Middlebury's bound on width and height
KITTI_STEPS = 64.0  # steps of the format in a pixel
KITTI_ZERO = 2**15
PNG_RATIO = 1032  # the most bytes that one byte of a PNG can stand for


def _write(path: str | os.PathLike, content: bytes) -> None:
    """Write a file whole or not at all."""
    with atomic(path) as beside:
        beside.write_bytes(content)


def _array(flow: Tensor | np.ndarray, ndim: int, shape: str) -> np.ndarray:
    """The flow as a float32 array; ValueError if it does not have the shape."""
    array = flow.detach().cpu().float().numpy() if isinstance(flow, Tensor) else np.asarray(flow, dtype=np.float32)
    if array.ndim != ndim or array.shape[-3] != 2 or 0 in array.shape:
        raise ValueError(f"flow must have the shape {shape}, got {tuple(array.shape)}")
    return array


def read_flo(path: str | os.PathLike) -> Tensor:
    """Read a Middlebury .flo file.

    Args:
        path: the file.

    Returns:
        (2, H, W) float32, pixels, (x right, y down). Where the flow is unknown, both channels are nan.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a .flo file, is shorter or longer than its header says, or implausibly large.
    """
    content = read_bytes(path, 12 + LARGEST)
    if content[:4] != FLO_MAGIC:
        raise ValueError(f"{path} is not a .flo file: it must begin with {FLO_MAGIC!r}, got {content[:4]!r}")
    if len(content) < 12:
        raise ValueError(f"{path} is truncated: a .flo header has 12 bytes, this file {len(content)}")
    width, height = (int(side) for side in np.frombuffer(content, "<i4", count=2, offset=4))
    if not (1 <= width <= FLO_LARGEST and 1 <= height <= FLO_LARGEST):
        raise ValueError(f"{path} is damaged: its header says {width} x {height} pixels")
    expected = 12 + 8 * width * height
    if len(content) != expected:
        what = "truncated" if len(content) < expected else "too long"
        raise ValueError(f"{path} is {what}: {width} x {height} pixels take {expected} bytes, got {len(content)}")
    flow = np.frombuffer(content, "<f4", offset=12).reshape(height, width, 2).transpose(2, 0, 1).astype(np.float32)
    np.copyto(flow, np.nan, where=~(np.abs(flow) <= FLO_UNKNOWN).all(axis=0))
    return torch.from_numpy(flow)


def write_flo(path: str | os.PathLike, flow: Tensor | np.ndarray) -> None:
    """Write a Middlebury .flo file.

    Args:
        path: the file to write.
        flow: (2, H, W), pixels, (x right, y down). A pixel whose flow is nan or infinite is written as unknown (1e10).

    Raises:
        ValueError: if the shape is not that of one flow, or a finite value is beyond 1e9, which the format would read
            as unknown.
        OSError: if the file cannot be written.
    """
    array = _array(flow, 3, "(2, H, W)")
    known = np.isfinite(array).all(axis=0)
    if (np.abs(array[:, known]) > FLO_UNKNOWN).any():
        raise ValueError("flow has values beyond 1e9 px, which .flo reads as unknown; set them to nan if they are")
    height, width = array.shape[1:]
    if max(height, width) > FLO_LARGEST:
        raise ValueError(f"flow is {width} x {height}; .flo holds at most {FLO_LARGEST} pixels a side")
    body = np.where(known, array, np.float32(10 * FLO_UNKNOWN)).transpose(1, 2, 0).astype("<f4")
    _write(path, FLO_MAGIC + np.array([width, height], "<i4").tobytes() + body.tobytes())


def read_kitti(path: str | os.PathLike) -> tuple[Tensor, Tensor]:
    """Read a KITTI flow PNG of 16 bits: x = (red - 2^15) / 64, y likewise from green, and validity from blue.

    Args:
        path: the file.

    Returns:
        The flow (2, H, W) float32, pixels, (x right, y down), nan where it is not valid; and (1, H, W) bool, which says
        where it is valid.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a PNG, is damaged or implausibly large, or does not have three channels of 16
            bits.
    """
    content = np.frombuffer(read_bytes(path, LARGEST), np.uint8)
    _check_png(path, content)
    image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError(f"{path} is a damaged PNG: it cannot be decoded")
    if image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"{path} is not a KITTI flow: it must be a 16-bit PNG with 3 channels, got {image.dtype} {image.shape}"
        )
    blue, green, red = np.moveaxis(image, 2, 0)
    valid = blue > 0
    flow = np.stack([red, green]).astype(np.float32)
    flow -= KITTI_ZERO
    flow /= KITTI_STEPS
    np.copyto(flow, np.nan, where=~valid)
    return torch.from_numpy(flow), torch.from_numpy(valid[None])


def is_kitti(path: str | os.PathLike) -> bool:
    """Tells from the header whether a file is a PNG with three channels of 16 bits, as KITTI's flows are."""
    with open(path, "rb") as file:
        head = file.read(26)
    return head[:8] == PNG_MAGIC and head[24:] == bytes((16, 2))  # bits of a channel, and RGB


def _check_png(path: str | os.PathLike, content: np.ndarray) -> None:
    """Check both ends of a PNG, since the decoder does not report that a file was cut off but fills up the picture."""
    if content[:8].tobytes() != PNG_MAGIC:
        raise ValueError(f"{path} is not a PNG file")
    if content[-8:-4].tobytes() != b"IEND":
        raise ValueError(f"{path} is truncated: the PNG has no end mark")
    if content[12:16].tobytes() != b"IHDR" or len(content) < 33:
        raise ValueError(f"{path} is damaged: the PNG has no header")
    width, height = (int(side) for side in np.frombuffer(content, ">u4", count=2, offset=16))
    bits = int(content[24]) * {0: 1, 2: 3, 4: 2, 6: 4}.get(int(content[25]), 1)  # of a pixel
    if height * (width * bits // 8) > PNG_RATIO * len(content):
        raise ValueError(f"{path} is damaged: {width} x {height} pixels do not fit into its {len(content)} bytes")
    check_length(8 * width * height, f"{path}, a flow of {width} x {height} pixels,")  # as float32


def write_kitti(path: str | os.PathLike, flow: Tensor | np.ndarray, valid: Tensor | np.ndarray | None = None) -> None:
    """Write a KITTI flow PNG. Values are rounded to 1/64 px.

    Args:
        path: the file to write.
        flow: (2, H, W), pixels, (x right, y down), from -512 to 511.98 where it is valid.
        valid: (1, H, W) or (H, W), True where the flow is valid. By default it is valid where it is finite; where it is
            not finite, it is never valid.

    Raises:
        ValueError: if a shape is wrong, or a valid value is outside the range of the format.
        OSError: if the file cannot be written.
    """
    array = _array(flow, 3, "(2, H, W)")
    known = np.isfinite(array).all(axis=0)
    if valid is not None:
        mask = np.asarray(valid.cpu() if isinstance(valid, Tensor) else valid)
        if mask.shape not in (known.shape, (1, *known.shape)):
            raise ValueError(f"valid must have the shape {(1, *known.shape)} or {known.shape}, got {mask.shape}")
        known &= mask.reshape(known.shape).astype(bool)
    codes = np.rint(np.where(known, array, 0).astype(np.float64) * KITTI_STEPS) + KITTI_ZERO
    if codes.min() < 0 or codes.max() > 2**16 - 1:
        raise ValueError(
            "flow has values outside -512 to 511.98 px, the range of a KITTI PNG; write .flo or .npz instead"
        )
    # In KITTI's own files, all channels are zero where the flow is not valid.
    red, green = np.where(known, codes, 0).astype(np.uint16)
    done, content = cv2.imencode(".png", np.stack([known.astype(np.uint16), green, red], axis=-1))
    if not done:
        raise OSError(f"{path}: the PNG could not be encoded")
    _write(path, content.tobytes())


def read_npz(path: str | os.PathLike) -> Tensor:
    """Read a motion field from an .npz file.

    Args:
        path: the file.

    Returns:
        (N, 2, H, W) float32, pixels, (x right, y down), as it was written.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not an .npz file, is damaged, has no array "flow", or if that array has another shape, does
            not hold numbers, or is implausibly large.
    """
    try:
        flow = read_arrays(Path(path), ["flow"])["flow"]
    except TooLarge as error:
        raise TooLarge(f"{path}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not a motion field: {error}") from error
    if flow.dtype.kind not in "fiu" or flow.ndim != 4 or flow.shape[1] != 2:
        raise ValueError(f'{path}: "flow" must be numbers of the shape (N, 2, H, W), got {flow.dtype} {flow.shape}')
    return torch.from_numpy(flow.astype(np.float32, copy=False))


def write_npz(
    path: str | os.PathLike, flow: Tensor | np.ndarray, visibility: Tensor | np.ndarray | None = None
) -> None:
    """Write a motion field to an .npz file, compressed.

    Args:
        path: the file to write.
        flow: (N, 2, H, W), pixels, (x right, y down). Stored as float32, with nan and infinite values.
        visibility: (N, H, W) bool, which pixels of frame 0 are still seen; stored under the key "visibility".

    Raises:
        ValueError: if the shape is not that of a motion field, or the visibility does not fit to it.
        OSError: if the file cannot be written.
    """
    arrays = {"flow": _array(flow, 4, "(N, 2, H, W)")}
    if visibility is not None:
        seen = np.asarray(visibility, dtype=bool)
        if seen.shape != (len(arrays["flow"]), *arrays["flow"].shape[2:]):
            raise ValueError(f"visibility must be (N, H, W) as the flow {arrays['flow'].shape}, got {seen.shape}")
        arrays["visibility"] = seen
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    _write(path, buffer.getvalue())


def _format(path: str | os.PathLike, formats: dict[str, Callable]) -> Callable:
    """The function for a file's suffix."""
    suffix = Path(path).suffix.lower()
    if suffix not in formats:
        raise ValueError(f"{path}: unknown suffix {suffix!r}; a flow is kept in {', '.join(sorted(formats))}")
    return formats[suffix]


def read_flow(path: str | os.PathLike) -> Tensor:
    """Read a flow in the format that the file's suffix tells.

    Args:
        path: a .flo, .png or .npz file.

    Returns:
        (2, H, W) float32 from .flo and .png, (N, 2, H, W) from .npz, in pixels; unknown flow is nan.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the suffix is unknown, or as the reader of the format says.
    """
    check_ordinary(path)
    return _format(path, {".flo": read_flo, ".png": lambda p: read_kitti(p)[0], ".npz": read_npz})(path)


def write_flow(path: str | os.PathLike, flow: Tensor | np.ndarray) -> None:
    """Write a flow in the format that the file's suffix tells.

    Args:
        path: a .flo, .png or .npz file.
        flow: (2, H, W) for .flo and .png, (N, 2, H, W) for .npz, in pixels.

    Raises:
        ValueError: if the suffix is unknown, or as the writer of the format says.
        OSError: if the file cannot be written.
    """
    _format(path, {".flo": write_flo, ".png": write_kitti, ".npz": write_npz})(path, flow)
