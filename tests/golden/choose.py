"""Builds this folder from the full set of reference tensors: python tests/golden/choose.py FULL_FOLDER

Weights, layouts and the tensors named in KEEP are copied bit by bit, and packed as tests/golden_io.py says; a sidecar
loses what it says about the others. Every file is read back and compared.
"""

import json
import lzma
import re
import sys
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import load, load_file, save

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from golden_io import MARK, SIDECARS, read_safetensors  # noqa: E402

KEEP = {
    "drag_control": r"(ex3|full)\..*",
    "end_to_end": r"first_frame_u8|painted|noise_.*|.*_embedding|latents_.*",
    "image_vae": r"b\.(latent|decoded)",
    "pipeline_stage1": r"timesteps.*|alphas_cumprod",
    "softsplat_avg": r"(collision|nonfinite|outside_topleft|right_edge|tiny_weight|zoom)\..*",
    "stage1_unet_controlnet": r"a\.(sample|timestep|stride|encoder_hidden_states|control|control_scale|output)",
}
PLAIN = {"softsplat_avg"}  # another test reads it without golden_io
# The one tensor of which only a part is kept: the release draws eight channels of noise and uses the first four.
CUT = ("end_to_end", "noise_stage1", np.s_[:, :4], "; 4-7 are left out of this selection")
DTYPES = {"float16": "F16", "float32": "F32", "float64": "F64", "int32": "I32", "int64": "I64", "uint8": "U8"}


def in_planes(tensors: dict[str, np.ndarray]) -> bytes:
    """A safetensors file, taken apart: numbers of the chief type last, ordered by their size (like compress alike)."""
    chief = np.dtype(np.float16 if any(t.dtype == np.float16 for t in tensors.values()) else np.float32)
    order = {k: (t.dtype == chief, float(np.abs(t.astype(np.float32)).mean())) for k, t in tensors.items()}
    header, body, plain = {}, b"", 0
    for name in sorted(tensors, key=order.get):
        tensor, begin = tensors[name], len(body)
        body += tensor.tobytes()
        header[name] = {"dtype": DTYPES[str(tensor.dtype)], "shape": tensor.shape, "data_offsets": [begin, len(body)]}
        plain = plain if tensor.dtype == chief else len(body)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = len(text).to_bytes(8, "little") + text + body[:plain]
    top, *lower = np.frombuffer(body[plain:], np.uint8).reshape(-1, chief.itemsize).T[::-1]
    top, deflated = top.tobytes(), 0
    if chief == np.float16:  # few exponents and no repeats: a plain Huffman code beats xz
        coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
        top = coder.compress(top) + coder.flush()
        deflated = len(top)
    line = MARK + f"{chief.itemsize} {len(start)} {deflated}\n".encode()
    return line + start + top + b"".join(plane.tobytes() for plane in lower)


def xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)


def choose(full: Path, name: str) -> dict:
    """Copies the tensors to keep and returns the sidecar for them."""
    info, source = json.loads((full / f"{name}.json").read_text()), full / f"{name}.safetensors"
    if not source.exists():
        return info
    tensors = {k: t for k, t in load_file(source).items() if re.fullmatch(KEEP.get(name, ".*"), k)}
    if name == CUT[0]:
        tensors[CUT[1]] = np.ascontiguousarray(tensors[CUT[1]][CUT[2]])
        meaning = info["tensors"][CUT[1]]["meaning"] + CUT[3]
        info["tensors"][CUT[1]] = {"shape": tensors[CUT[1]].shape, "dtype": "float32", "meaning": meaning}
    kept = {part for key in tensors for part in (key, key.split(".")[0])}
    for section in {"tensors", "cases", "examples", "runs", "accuracy"} & set(info):
        info[section] = {k: v for k, v in info[section].items() if k in kept}
    if name in PLAIN:
        (HERE / source.name).write_bytes(save(tensors))
    else:
        (HERE / f"{source.name}.xz").write_bytes(xz(in_planes(tensors)))
    found = load(read_safetensors(HERE, name))
    assert found.keys() == tensors.keys() and all(found[k].tobytes() == t.tobytes() for k, t in tensors.items())
    return info


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for old in [*HERE.glob("*.safetensors*"), *HERE.glob("*.json*")]:
        old.unlink()
    names = [path.stem for path in sorted(folder.glob("*.json"))]
    names = [name for name in names if name in KEEP or name.startswith(("weights_", "layout_"))]
    sidecars = {name: choose(folder, name) for name in names}
    for name in PLAIN:
        (HERE / f"{name}.json").write_text(json.dumps(sidecars.pop(name), separators=(",", ":")))
    (HERE / SIDECARS).write_bytes(xz(json.dumps(sidecars, separators=(",", ":")).encode()))
    print(f"{sum(path.stat().st_size for path in HERE.iterdir() if path.is_file()):,} bytes; the bound is 12,000,000")
