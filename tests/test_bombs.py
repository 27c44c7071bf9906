"""Bombs: files of which a few bytes stand for gigabytes, or that are far too large for their kind.

All are read in one process, which measures by how much each makes its memory grow.
"""

import base64
import io
import json
import os
import re
import struct
import subprocess
import sys
import threading
import tracemalloc
import zipfile
import zlib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from mi2v_lite.data.photo_bank import PhotoBank
from mi2v_lite.data.world import World
from mi2v_lite.io.arrays import read_arrays
from mi2v_lite.io.files import TooLarge, read_bytes

READER = """
import json, resource
from pathlib import Path
from mi2v_lite.control import MotionControl
from mi2v_lite.data.shards import ShardSet
from mi2v_lite.data.store import ClipStore
from mi2v_lite.flow.files import read_flow
from mi2v_lite.flow.trackers import read_tracks
from mi2v_lite.importing.files import Shelf
from mi2v_lite.io.images import check_pixels, read_image
from mi2v_lite.io.videos import import_av, read_video
from mi2v_lite.pipelines.saved import check_folders
from mi2v_lite.training.settings import read_yaml
import_av()
for call in json.loads(input()):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reader, name = call.split()
    try:
        error = None
        eval(reader)(Path(name))
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps([call, grown // 1024, error]), flush=True)
"""
# Who reads which file, and what the error says beside its name.
BOMBS = {
    "read_flow deflated.npz": "4,299,161,600 bytes, and at most 4,294,967,296",
    "read_flow bz2.npz": "packed in another way",
    "read_flow header.npz": "unknown version",
    "read_tracks deflated.npz": "4,299,161,600 bytes, and at most 4,294,967,296",
    "read_flow long.flo": "4,295,098,380 bytes, and at most 4,294,967,308",
    "read_flow long.png": "8,589,934,592 bytes, and at most 4,294,967,296",
    "read_flow kitti.png": "4,608,000,000 bytes, and at most 4,294,967,296",
    "read_image photo.png": "more than the 178,956,970 pixels",
    "read_image long.json": "cannot be read as a picture",
    "check_pixels photo.png": "more than the 178,956,970 pixels",
    "read_video video.mov": "its frames have more than 134,217,728 pixels",
    "read_video video.y4m": "16000x16000 pixels, and at most 134,217,728",
    "read_video video.webp": "256000000 pixels",
    "MotionControl.load long.json": "2,147,483,648 bytes, and at most 67,108,864",
    "MotionControl.load masks.json": "9 masks of 12000x12000 pixels, and at most 1,073,741,824",
    "read_yaml long.yaml": "2,147,483,648 bytes, and at most 1,048,576",
    "ClipStore store": "2,147,483,648 bytes, and at most 1,073,741,824",
    "ShardSet shards": "2,147,483,648 bytes, and at most 67,108,864",
    "check_folders pipe": "2,147,483,648 bytes, and at most 16,777,216",
    "check_folders weights": "67,108,864 bytes, and at most 16,777,216",
    "Shelf().open weights/vae/model.safetensors": "67,108,864 bytes, and at most 16,777,216",
}


def sparse(path: str, size: int, start: bytes = b"") -> None:
    """A file of any size, which takes no room on the disk."""
    with open(path, "wb") as file:
        file.write(start)
        file.truncate(size)


def npz(path: str, method: int = zipfile.ZIP_DEFLATED, version: int = 1) -> None:
    """A field of zeros, of one byte each: a few more than are read. In version 2 all of it is the header.

    Only the first of its 1025 fields is there; what is said of the others is enough for a reader to take the memory.
    """
    header = b"{'descr': '|i1', 'fortran_order': False, 'shape': (1025, 2, 1024, 2048), }".ljust(117) + b"\n"
    start = struct.pack("<H", len(header)) + header if version == 1 else struct.pack("<I", 2**28)
    with zipfile.ZipFile(path, "w", method, compresslevel=1) as archive, archive.open("flow.npy", "w") as file:
        file.write(b"\x93NUMPY" + bytes((version, 0)) + start)
        file.write(bytes(2**22))
        file.close()
        archive.getinfo("flow.npy").file_size += 1024 * 2**22


def png(side: int, bits: int, colour: int = 2, padding: int = 0) -> bytes:
    """A black PNG of which only the first lines are there; `padding` bytes make it as long as a whole one."""
    data = zlib.compress(bytes(10**6)) + bytes(padding)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, 0)), (b"IDAT", data), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def webp(side: int) -> bytes:
    """An animation on a canvas of any size, of one page of 2x2 pixels."""
    page, size = io.BytesIO(), (side - 1).to_bytes(3, "little")
    Image.new("RGB", (2, 2)).save(page, "WEBP", lossless=True)
    page = bytes(6) + 2 * b"\1\0\0" + bytes((40, 0, 0, 0)) + page.getvalue()[12:]
    parts = ((b"VP8X", b"\2\0\0\0" + size + size), (b"ANIM", bytes(6)), (b"ANMF", page))
    body = b"WEBP" + b"".join(name + struct.pack("<I", len(data)) + data for name, data in parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.fixture
def bombs(tmp_path, monkeypatch) -> Path:
    """The folder of the files, which is the current one."""
    monkeypatch.chdir(tmp_path)
    npz("deflated.npz")
    npz("bz2.npz", zipfile.ZIP_BZIP2)
    npz("header.npz", version=2)
    sparse("long.flo", 12 + 8 * 2**14 * 32_769, struct.pack("<fii", 202021.25, 2**14, 32_769))
    sparse("long.png", 2**33, png(8, 16))
    sparse("long.json", 2**31, b"{")
    sparse("long.yaml", 2**31, b"a: ")
    Path("kitti.png").write_bytes(png(24_000, 16, padding=3_500_000))
    Path("photo.png").write_bytes(png(16_000, 8))
    with av.open("video.mov", "w") as container:
        stream = container.add_stream("png", 25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        for number in range(3):
            packet = av.Packet(png(16_000, 8))
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            container.mux(packet)
    Path("video.y4m").write_bytes(b"YUV4MPEG2 W16000 H16000 F25:1 Ip A1:1 C420\nFRAME\n" + bytes(999))
    Path("video.webp").write_bytes(webp(16_000))
    for path in ("store/clips.json", "shards/shards.json", "pipe/model_index.json"):
        Path(path).parent.mkdir()
        sparse(path, 2**31, b"{")
    Path("weights/vae").mkdir(parents=True)
    Path("weights/model_index.json").write_text('{"vae": ["diffusers", "AutoencoderKL"]}')
    sparse("weights/vae/model.safetensors", 2**27, struct.pack("<Q", 2**26) + b"{")
    mask = {"encoding": "png-base64", "data": base64.b64encode(png(12_000, 1, colour=0)).decode()}
    control = {"format": "mi2v-motion-control", "version": 2, "size": [12_000, 12_000], "things": 9 * [{"mask": mask}]}
    Path("masks.json").write_text(json.dumps(control))
    return tmp_path


def test_a_bomb_is_refused_before_memory_is_taken(bombs):
    done = subprocess.run([sys.executable, "-c", READER], input=json.dumps(list(BOMBS)), capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [call for call, _, _ in rows] == list(BOMBS), done.stderr[-2000:]
    for call, grown, error in rows:
        assert error and error.startswith(("ValueError: ", "TooLarge: ", "SettingError: ")), (call, error)
        assert call.split()[1].split("/")[0] in error or call.endswith("masks.json"), (call, error)
        assert BOMBS[call] in error and len(error) < 500, (call, error)
        assert "bytes, and at most" not in error or not re.search("damaged|is not a motion", error), (call, error)
        assert grown < 100, f"{call} took {grown} MiB"


def test_a_long_still_field_is_no_bomb(tmp_path):
    np.savez_compressed(tmp_path / "still.npz", flow=np.zeros((65, 2, 1080, 1920), np.int8))
    assert read_arrays(tmp_path / "still.npz", ["flow"])["flow"].shape == (65, 2, 1080, 1920)


def test_an_empty_file_takes_no_memory(tmp_path):
    (tmp_path / "empty.csv").touch()
    tracemalloc.start()
    assert read_bytes(tmp_path / "empty.csv", 2**32) == b""
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_states_no_size_is_read_up_to_the_limit(tmp_path):
    content = os.urandom(3 * 2**20 + 7)
    os.mkfifo(tmp_path / "pipe")
    for most in (len(content), len(content) - 1):
        threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(content,), daemon=True).start()
        if most == len(content):
            assert read_bytes(tmp_path / "pipe", most) == content
        else:
            with pytest.raises(TooLarge, match="at most 3,145,734 are read"):
                read_bytes(tmp_path / "pipe", most)


def test_a_training_reads_photos_of_200_million_pixels(tmp_path, monkeypatch):
    small = np.zeros((3, 4, 3), np.uint8)
    monkeypatch.setattr(cv2, "imread", lambda *_: small)
    limit = Image.MAX_IMAGE_PIXELS
    for side, refused in ((14_142, False), (16_400, True)):
        path = tmp_path / f"{side}" / "a.png"
        path.parent.mkdir()
        path.write_bytes(png(side, 8))
        for read in (PhotoBank(path.parent, "train").copies, World([path], path.parent)._photo):
            if refused:
                with pytest.raises(ValueError, match="a.png has more than the 268,435,456 pixels"):
                    read(0)
            else:
                read(0)
    assert limit == Image.MAX_IMAGE_PIXELS
