"""Bad inputs: to each command and public function, one clear sentence, exit code 2, and every file as it was.

A row is a command and what must stand in its error; or a call and what its ValueError must say. All run in one process,
in a folder of good and bad files that is made once, where what a command left behind would be found.
"""

import base64
import json
import os
import pickle
import re
import shlex
import shutil
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from test_cli import PIPES, weights  # noqa: F401 - a fixture
from test_settings import GOOD

from mi2v_lite import cli
from mi2v_lite.cli import common
from mi2v_lite.control import Anchor, Drag, MotionControl
from mi2v_lite.data.clips import Clip, open_clips
from mi2v_lite.data.photo_bank import PhotoBank
from mi2v_lite.data.shards import ShardSet
from mi2v_lite.data.store import ClipStore, write_store
from mi2v_lite.data.world import World
from mi2v_lite.flow import fields, metrics, warp
from mi2v_lite.flow.files import read_flow, write_flow, write_npz
from mi2v_lite.flow.trackers import load_tracker, read_tracks
from mi2v_lite.flow.tracking import ChainTracker, check_clip
from mi2v_lite.importing import plan
from mi2v_lite.importing.parts import shell
from mi2v_lite.io.images import read_image, write_animated_png, write_image
from mi2v_lite.io.pixels import image_tensor
from mi2v_lite.io.videos import read_video, write_video
from mi2v_lite.pipelines.restyle import restyle
from mi2v_lite.training.batches import PhotoCrops
from mi2v_lite.training.curves import read_logs

LITE = Path(cli.__file__).parents[1] / "configs" / "lite.yaml"


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG whose header says any size, with next to nothing in it."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(data))]
    chunks = [
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in [*parts, (b"IEND", b"")]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def npz(path: str, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)


def npy(header: str) -> bytes:
    """A file in NumPy's format with any header and no data."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header.encode() + b"\n"


class Evil:
    """A pickle that would write a file."""

    def __reduce__(self):
        return exec, ("open('executed', 'w')",)


def control(**changes: object) -> dict:
    good = {"format": "mi2v-motion-control", "version": 1, "size": [90, 60], "anchors": [], "brush": None}
    return {**good, "drags": [{"points": [[5, 5], [9, 9]], "radius": None}], **changes}


CONTROLS = {
    "list": "[]",
    "null": "null",
    "empty": "",
    "open": '{"format"',
    "deep": "[" * 100_000,
    "digits": '{"size": ' + "9" * 5000 + "}",
    "twice": json.dumps(control())[:-1] + ', "drags": []}',
    "twice_inside": json.dumps(control()).replace('"radius"', '"points": [[1, 1], [2, 2]], "radius"'),
    "other": '{"format": "x"}',
    "version": control(version=99),
    "version_text": control(version="1"),
    "version_true": control(version=True),
    "no_size": {k: v for k, v in control().items() if k != "size"},
    "size_text": control(size=["90", "60"]),
    "size_true": control(size=[True, True]),
    "size_zero": control(size=[0, 60]),
    "size_three": control(size=[1, 2, 3]),
    "size_huge": control(size=[10**9, 10**9]),
    "size_float": control(size=[90.5, 60]),
    "size_infinite": control(size=[1e999, 60]),
    "drags_dict": control(drags={"points": 1}),
    "drags_null": control(drags=None),
    "drags_number": control(drags=[7]),
    "drags_text": control(drags="points"),
    "points_text": control(drags=[{"points": ["12", "34"]}]),
    "points_true": control(drags=[{"points": [[True, 1], [2, 2]]}]),
    "points_words": control(drags=[{"points": [["5", "5"], ["9", "9"]]}]),
    "points_null": control(drags=[{"points": None}]),
    "points_none": control(drags=[{}]),
    "points_one": control(drags=[{"points": [[1, 1]]}]),
    "points_triple": control(drags=[{"points": [[1, 1, 1], [2, 2, 2]]}]),
    "points_outside": control(drags=[{"points": [[1, 1], [900, 9]]}]),
    "points_infinite": control(drags=[{"points": [[1, 1], [1e999, 9]]}]),
    "points_huge": control(drags=[{"points": [[1, 1], [int("9" * 400), 9]]}]),
    "radius_true": control(drags=[{"points": [[1, 1], [2, 2]], "radius": True}]),
    "radius_negative": control(drags=[{"points": [[1, 1], [2, 2]], "radius": -3}]),
    "radius_text": control(drags=[{"points": [[1, 1], [2, 2]], "radius": "3"}]),
    "drag_key": control(drags=[{"points": [[1, 1], [2, 2]], "radios": 3}]),
    "key": control(anchor=[]),
    "anchor_list": control(anchors=[[1, 1]]),
    "anchor_outside": control(anchors=[{"point": [1, 600]}]),
    "anchor_key": control(anchors=[{"point": [1, 1], "points": []}]),
    "anchors_text": control(anchors="x"),
    "brush_text": control(brush="x"),
    "brush_list": control(brush=[]),
    "brush_key": control(brush={"encoding": "png-base64"}),
    "brush_number": control(brush={"encoding": "png-base64", "data": 7}),
    "brush_code": control(brush={"encoding": "gif", "data": ""}),
    "brush_damaged": control(brush={"encoding": "png-base64", "data": "AAAA"}),
    "brush_other": None,
    "brush_bomb": None,
}
# A tracker of somebody else that ends the program: when it is made, or when it is called.
OWN_LEAVES = """
class Maker:
    def __init__(self):
        raise SystemExit(0)

class Tracker:
    def __call__(self, frames):
        raise SystemExit(0)
"""
CONFIGS = {
    "empty": "",
    "list": "[]",
    "text": "hello",
    "tabs": "models:\n\tx: 1",
    "deep": "[" * 5000,
    "date": "models: 2024-02-31",
    "python": "models: !!python/object/apply:os.system ['touch executed']",
    "tag": "models: !x 1",
    "twice": "models: {}\nmodels: {}",
    "loop": "&a [*a]",
    "bomb": "a: &a [x, x]\n"
    + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)),
}
STEP_CHANGES = {
    "steps": 0,
    "batch_size": 1.5,
    "learning_rate": "fast",
    "seed": -1,
    "ema_decay": 5,
    "text_dropout": 7,
    "grad_clip": -1,
    "warmup_steps": -5,
    "name": "../evil",
    "objective": "photos",
    "model": "vae",
    "data": {"folder": 3},
    "options": {"edge": 1},
    "optimizer": "sgd",
    "schedule": "linear",
    "precision": "fp16",
    "trainable": [],
    "checkpoint_every": 0,
    "accumulation": 0,
    "log_every": 0,
    "start_from": {"vae": "photos"},
    "learning_rat": 1,
}


@pytest.fixture(scope="module")
def there(tmp_path_factory, weights) -> Path:  # noqa: F811
    """The folder of good and bad files."""
    folder = tmp_path_factory.mktemp("bad")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        random = np.random.default_rng(0)
        noise = random.integers(0, 256, (60, 90, 3), dtype=np.uint8)
        Image.fromarray(noise).save("photo.png")
        Image.fromarray(noise).save("photo.jpg")
        Image.fromarray(noise).save("photo.webp")
        Image.new("RGB", (100, 40)).save("long.png")
        Image.new("L", (90, 60)).save("black.png")
        Image.new("L", (90, 60), 255).save("white.png")
        Image.new("RGB", (1, 1)).save("dot.png")
        for name in ("photo.png", "photo.jpg", "photo.webp"):
            whole = Path(name).read_bytes()
            Path(f"cut_{name}").write_bytes(whole[: len(whole) // 2])
        Path("empty").write_bytes(b"")
        for name in (
            "empty.png",
            "empty.mp4",
            "empty.npz",
            "empty.flo",
            "empty.yaml",
            "empty.safetensors",
            "empty.ckpt",
        ):
            Path(name).write_bytes(b"")
        for name in (
            "text.txt",
            "text.png",
            "text.mp4",
            "text.npz",
            "text.flo",
            "text.safetensors",
            "text.ckpt",
            "text.csv",
        ):
            Path(name).write_text("no such thing, only words\n")
        Path("bomb.png").write_bytes(png(60_000, 60_000))
        for name in ("damaged", "large", "pipes"):
            Path(name).mkdir()
        shutil.copy("text.png", "damaged/a.png")
        shutil.copy("bomb.png", "large/a.png")
        os.mkfifo("pipes/a.png")
        Path("folder").mkdir()
        Path("folder.mp4").mkdir()
        Path("locked").mkdir()
        os.mkfifo("pipe")
        os.mkfifo("pipe.mp4")
        os.mkfifo("pipe.npz")
        Path("loop").symlink_to("loop")

        frames = np.stack([np.roll(noise, i, 1) for i in range(6)])
        write_video("clip.mp4", frames)
        whole = Path("clip.mp4").read_bytes()
        Path("cut.mp4").write_bytes(whole[: len(whole) // 3])
        write_video("one.mp4", frames[:1])
        with av.open("huge.avi", "w") as container:
            stream = container.add_stream("rawvideo", 25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for picture in (noise[:48, :64], None):
                picture = picture if picture is None else av.VideoFrame.from_ndarray(np.ascontiguousarray(picture))
                container.mux(stream.encode(picture))
        whole = bytearray(Path("huge.avi").read_bytes())
        struct.pack_into("<ii", whole, whole.find(b"strf") + 12, 16_000, 16_000)
        Path("huge.avi").write_bytes(whole)
        write_video("cut_scene.mp4", np.concatenate([frames[:3] // 4, 255 - frames[:3] // 4]))
        Path("videos").mkdir()
        for name in ("text.mp4", "one.mp4"):
            shutil.copy(name, "videos")
        Path("twice.csv").write_text("videoid,contentUrl,page_dir,name\n1,u,,a\n1,u,,b\n")
        Path("latin.csv").write_bytes("videoid,contentUrl,page_dir,name\n1,u,,Caf\xe9\n".encode("latin-1"))
        Path("no_rows.csv").write_text("videoid,contentUrl,page_dir,name\n")

        write_npz("fields.npz", torch.zeros(3, 2, 60, 90))
        write_npz("unknown.npz", torch.full((3, 2, 60, 90), torch.nan))
        write_npz("far.npz", torch.full((3, 2, 60, 90), 1e38))
        Path("own_fails.py").write_text("1 / 0")
        Path("own_words.py").write_text("no such thing, only words")
        Path("own_exits.py").write_text("raise SystemExit(0)")
        Path("own_leaves.py").write_text(OWN_LEAVES)
        Path("taken/flow_01.flo").mkdir(parents=True)
        Image.fromarray(noise).save("program.eps")
        write_npz("small.npz", torch.zeros(3, 2, 6, 9))
        np.savez("seen.npz", flow=np.zeros((3, 2, 6, 9), np.float32), visibility=np.ones((2, 6, 9), bool))
        np.savez("other.npz", motion=np.zeros(3))
        np.savez("shape.npz", flow=np.zeros((3, 3)))
        np.savez("words.npz", flow=np.array(["a"]))
        np.savez("pickle.npz", flow=np.array([Evil()], dtype=object))
        npz("huge.npz", flow=npy("{'descr': '<f4', 'fortran_order': False, 'shape': (99999, 2, 99999, 99999), }"))
        npz("header.npz", flow=npy("{'descr': '<f4'"))
        npz("negative.npz", flow=npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2, 3, 3), }"))
        whole = bytearray(Path("fields.npz").read_bytes())
        whole[60:80] = bytes(20)
        Path("rotten.npz").write_bytes(whole)
        Path("size.flo").write_bytes(struct.pack("<fii", 202021.25, 90_000, 90_000))
        Path("minus.flo").write_bytes(struct.pack("<fii", 202021.25, -1, 4))
        Path("flows").mkdir()
        write_flow("flows/a.flo", torch.zeros(2, 6, 9))
        write_flow("flows/b.flo", torch.zeros(2, 3, 9))

        brush = MotionControl((9, 6), brush=np.ones((6, 9), bool)).to_json()
        bomb = json.loads(brush)
        bomb["size"] = [90, 60]
        CONTROLS["brush_other"] = dict(bomb)
        CONTROLS["brush_bomb"] = {
            **bomb,
            "brush": {"encoding": "png-base64", "data": base64.b64encode(png(60_000, 60_000)).decode()},
        }
        for name, content in CONTROLS.items():
            Path(f"control_{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
        Path("control_nan.json").write_text(json.dumps(control()).replace("[9, 9]", "[NaN, 9]"))
        Path("control_latin.json").write_bytes(b'{"format": "\xe9"}')
        for name, content in CONFIGS.items():
            Path(f"config_{name}.yaml").write_text(content)
        Path("good.yaml").write_text(yaml.safe_dump(GOOD))
        for key, value in STEP_CHANGES.items():
            changed = json.loads(json.dumps(GOOD))
            changed["steps"][0][key] = value
            Path(f"step_{key}.yaml").write_text(yaml.safe_dump(changed))
        missing = json.loads(json.dumps(GOOD))
        missing["models"]["text_encoder"]["tokenizer"] = "no/such/tokenizer"
        missing["steps"][2]["data"]["clips"] = "runs/stores/train"
        Path("no_tokenizer.yaml").write_text(yaml.safe_dump(missing))
        del missing["steps"][0]["data"]
        Path("no_data.yaml").write_text(yaml.safe_dump(missing))

        for name in (
            "no_tokenizer",
            "no_vae",
            "cut_vae",
            "text_index",
            "list_index",
            "text_vae",
            "no_unet_config",
            "unet_type",
        ):
            shutil.copytree(weights, f"w_{name}")
        shutil.rmtree("w_no_tokenizer/tokenizer")
        shutil.rmtree("w_no_vae/vae")
        (file,) = Path("w_cut_vae/vae").glob("*.safetensors")
        file.write_bytes(file.read_bytes()[:3000])
        Path("w_text_index/model_index.json").write_text("hello")
        Path("w_list_index/model_index.json").write_text("[]")
        (file,) = Path("w_text_vae/vae").glob("*.safetensors")
        file.write_text("hello")
        Path("w_no_unet_config/motion_unet/config.json").unlink()
        path = Path("w_unet_type/motion_unet/config.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), "block_out_channels": "many"}))

        Path("logs_words").mkdir()
        Path("logs_words/a.csv").write_text("step,loss,seconds\nx,y,z\n")
        Path("logs_empty").mkdir()
        Path("logs_empty/a.csv").write_text("")
        Path("logs_header").mkdir()
        Path("logs_header/a.csv").write_text("step,loss,seconds\n")
        Path("logs_bytes").mkdir()
        Path("logs_bytes/a.csv").write_bytes(bytes(range(256)))

        save_file({"x": torch.zeros(1)}, "x.safetensors")
        torch.save({"x": torch.zeros(1)}, "x.ckpt")
        Path("evil.ckpt").write_bytes(pickle.dumps(Evil()))
        torch.save([1, 2], "list.ckpt")
        torch.save({"state_dict": {"x": 3}}, "number.ckpt")
        whole = Path("x.ckpt").read_bytes()
        Path("cut.ckpt").write_bytes(whole[: len(whole) // 2])
        Path("long.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")
        Path("lfs.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
        for name in ("sd_empty", "sd_json"):
            Path(name).mkdir()
            for part in ("unet", "vae", "text_encoder", "tokenizer"):
                Path(name, part).mkdir()
        for part in ("unet", "vae", "text_encoder"):
            Path("sd_json", part, "config.json").write_text("[]")
            save_file({"x": torch.zeros(1)}, f"sd_json/{part}/model.safetensors")

        write_store("store", [clip()] * 2, 2)
        for name in ("cut", "index", "words", "length"):
            shutil.copytree("store", f"store_{name}")
        os_truncate("store_cut/flow.npy", 200)
        Path("store_index/clips.json").write_text("hello")
        Path("store_words/clips.json").write_text("{}")
        Path("store_length/clips.json").write_text('{"captions": ["a"], "strides": [1]}')
    return folder


def os_truncate(path: str, length: int) -> None:
    Path(path).write_bytes(Path(path).read_bytes()[:length])


def clip(frames: int = 3, side: int = 16) -> Clip:
    flow = np.zeros((frames - 1, 2, side, side), np.float32)
    return Clip(np.zeros((frames, side, side, 3), np.uint8), flow, np.ones((frames - 1, side, side), bool), "a", 1)


# What stands for words that are hard to read.
WORDS = {
    "LITE": str(LITE),
    "LONG.mp4": "n" * 300 + ".mp4",
    "UMLAUTS.mp4": "ä" * 140 + ".mp4",
    "ENDLESS.png": "n" * 5000 + ".png",
    "NUL": "nul\0byte.png",
}
# A command, into whose {} the words of each line go; after the bar, what its error must contain.
ROWS = {
    "{}": """
        -- | COMMAND
        anmate | invalid choice
        --verbose | COMMAND
        doctor extra | unrecognized
        animate photo.png -o out.mp4 | nothing says what
        animate photo.png --prompt red | -o
        track clip.mp4 -o out.flo | must end in .npz
        track clip.mp4 -o /proc/out.npz | cannot be written
        track clip.mp4 --tracker fields:fields.npz -o fields.npz | is an input
        restyle clip.mp4 --style oil -o clip.mp4 | is an input
        restyle clip.mp4 --style oil -o out.avi | must end in .mp4
        world  | -o
        import  | -o
    """,
    "animate {} --prompt red -o out.mp4": """
        none.png | does not exist
        https://a.example/photo.png | is a URL
        ENDLESS.png | name too long
        http:photo.png | URLs are not read
        '' | cannot be read
        folder | cannot be read as a picture
        empty.png | cannot be read as a picture
        text.png | cannot be read as a picture
        cut_photo.png | cannot be read
        cut_photo.jpg | cannot be read
        cut_photo.webp | cannot be read
        bomb.png | bomb.png
        clip.mp4 | cannot be read
        long.png | 2.50 times
        dot.png | the photo is 1x1 px
        program.eps | it is PostScript
        photo.png/x | Not a directory
        NUL | cannot be read as a picture
        /dev/null | cannot be read
        pipe | is a pipe, a socket or a device
    """,
    "animate photo.png --prompt red {} -o out.mp4": """
        --drag | expected one argument
        --drag 1,2 | two or more points
        --drag '1,2 3' | is not a point
        --drag 'nan,1 2,2' | is not a point
        --drag '1e999,1 2,2' | is not a point
        --drag '' | not a drag
        --drag '-1,5 5,5' | outside
        --drag '5,5 90,5' | outside
        --anchor 1 | is not a point
        --anchor 100,1 | outside
        --brush none.png | does not exist
        --brush pipe | is a pipe, a socket or a device
        --control pipe | is a pipe, a socket or a device
        --weights pipe | is a pipe, a socket or a device
        --thing-mask pipe | is a pipe, a socket or a device
        --save-flow pipe | is a pipe, a socket or a device
        --brush https://a.example/mask.png | is a URL
        --thing-mask s3://a.example/mask.png | is a URL
        --control https://a.example/control.json | is a URL
        --control ENDLESS.png | name too long
        --weights ENDLESS.png | name too long
        --weights https://a.example/weights | is a URL
        --brush text.png | cannot be read
        --brush long.png | make them equal
        --brush black.png | no white pixel
        --brush folder | cannot be read
        --anchor-background | --drag
        --control control_list.json --drag '1,2 3,4' | holds all
        --control folder | folder
        --control photo.png | photo.png
        --size 7 | must be a whole number from 8 to 16384
        --size 2147483648 | must be a whole number from 8 to 16384
        --size -1 | must be a whole number from 8 to 16384
        --size 1e3 | must be a whole number from 8 to 16384
        --size big | must be a whole number from 8 to 16384
        --fps 0 | must be a number from 1 to 1000
        --fps nan | must be a number from 1 to 1000
        --fps 1e9 | must be a number from 1 to 1000
        --fps inf | must be a number from 1 to 1000
        --seconds 0 | must be a number from 0.1 to 3600
        --seconds 1e12 | must be a number from 0.1 to 3600
        --frames 1 | must be a whole number from 2 to 1000
        --frames 17x | must be a whole number from 2 to 1000
        --frames 99999999999999999999 | must be a whole number from 2 to 1000
        --frames 33 | 2 to 16 frames
        --seed -1 | must be a whole number of at least 0
        --seed 99999999999999999999999 | must be a whole number of at least 0
        --steps 0 | must be a whole number from 1 to 1000
        --steps 1001 | must be a whole number from 1 to 1000
        --guidance nan | must be a number of at least 0
        --guidance -1 | must be a number of at least 0
        --control-scale inf | must be a number of at least 0
        --stride 0 | must be a number of at least 1
        --stride nan | must be a number of at least 1
        --device banana | cannot be used
        --device cuda:99 | cannot be used
        --device meta | cannot be used here
        --device privateuseone | cannot be used here
        --device mps | cannot be used here
        --dtype int8 | invalid choice
        --device cpu --dtype fp16 | needs a GPU
        --plain --fps 12 | leave out
        --plain --size original | leave out
    """,
    "animate photo.png --prompt red --control control_{}.json -o out.mp4": """
        list | the JSON is not a motion control: "format" must be "mi2v-mot
        null | the JSON is not a motion control: "format" must be "mi2v-mot
        empty | the motion control is not valid JSON
        open | the motion control is not valid JSON
        deep | the motion control is not valid JSON
        digits | the motion control is not valid JSON
        twice | control_twice.json: the motion control is not valid JSON (the key 'drags' is given twice)
        twice_inside | the key 'points' is given twice
        other | the JSON is not a motion control: "format" must be "mi2v-mot
        version | the motion control has version 99, but this version of the p
        version_text | the motion control has version '1', but this version of the
        version_true | the motion control has version True, but this version of the
        no_size | the motion control lacks 'size'
        size_text | size ['90', '60'] is not
        size_true | size [True, True] is not
        size_zero | size [0, 60] must be two whole numbers above 0
        size_three | size [1, 2, 3] is not
        size_huge | control_size_huge.json was drawn on 1000000000x1000000000 px
        size_float | size [90.5, 60] must be two whole numbers above 0
        size_infinite | size [inf, 60] must be two whole numbers above 0
        drags_dict | drags has the wrong type: expected a list, got {'points': 1}
        drags_null | drags has the wrong type: expected a list, got None
        drags_number | number 1 of drags has the wrong type: expected an object wit
        drags_text | drags has the wrong type: expected a list, got 'points'
        points_text | drag point '12' is not a pair of numbers
        points_true | drag point [True, 1] is not a pair of numbers
        points_words | drag point ['5', '5'] is not a pair of numbers
        points_null | must be a list of [x, y], got None.
        points_none | number 1 of drags lacks 'points'
        points_one | a drag has only one point, [1, 1]
        points_triple | drag point [1, 1, 1] is not a pair of numbers
        points_outside | drag 1 has the point
        points_infinite | drag point
        points_huge | drag point
        radius_true | drag radius True is not a number
        radius_negative | drag radius -3 must be above 0 pixels
        radius_text | drag radius '3' is not a number
        drag_key | number 1 of drags has the unknown key 'radios'
        key | the motion control has the unknown key 'anchor'
        anchor_list | number 1 of anchors has the wrong type: expected an object w
        anchor_outside | anchor 1 has the point
        anchor_key | number 1 of anchors has the unknown key 'points'
        anchors_text | anchors has the wrong type: expected a list, got 'x'
        brush_text | the brush has the wrong type: expected an object with encodi
        brush_list | the brush has the wrong type: expected an object with encodi
        brush_key | the brush lacks 'data'
        brush_number | the brush of the motion control is not a readable PNG
        brush_code | brush encoding 'gif' is not 'png-base64'
        brush_damaged | the brush of the motion control is not a readable PNG
        brush_other | brush has shape
        brush_bomb | the brush of the motion control is not a readable PNG
        nan | finite
        latin | error: control_latin.json is not in UTF-8
        none | No such file
    """,
    "animate photo.png --prompt red -o {}": """
        out.gif | must end in .mp4
        '' | must end in .mp4
        . | must end in .mp4
        folder.mp4 | is a folder
        pipe.mp4 | is a pipe, a socket or a device
        loop/out.mp4 | the output folder loop cannot be written
        text.txt/out.mp4 | cannot be written
        /proc/out.mp4 | cannot be written
        /dev/null/out.mp4 | cannot be written
        https://a.example/out.mp4 | is a URL
        LONG.mp4 | bytes
        UMLAUTS.mp4 | bytes
        photo.mp4 --previews | is an input
        x.mp4 --save-flow text.txt | cannot be written
        x.mp4 --save-flow x.mp4 | the output x.mp4 is a folder
        x.mp4 --save-flow taken | the output taken/flow_01.flo is a folder
    """,
    "animate photo.png --prompt red --weights {} -o out.mp4": """
        none | holds no pipeline
        text.txt | holds no pipeline
        w_no_tokenizer | lacks tokenizer/
        w_no_vae | lacks vae/
        w_cut_vae | cannot be loaded
        w_text_index | cannot be loaded
        w_list_index | cannot be loaded
        w_text_vae | cannot be loaded
        w_no_unet_config | cannot be loaded
        w_unet_type | cannot be loaded
    """,
    "track {} -o out.npz": """
        none.mp4 | does not exist
        https://a.example/clip.mp4 | is a URL
        ENDLESS.png | name too long
        http:clip.mp4 | URLs are not read
        rtsp:clip | URLs are not read
        empty.mp4 | is empty
        pipe.mp4 | is a pipe, a socket or a device
        text.mp4 | text.mp4
        photo.txt | photo.txt does not exist
        folder | is a folder
        cut.mp4 | cut.mp4
        huge.avi | huge.avi is damaged, or its frames have more than 134,217,728 pixels: only 0 frame(s)
        one.mp4 | The clip has 1 frame
        cut_scene.mp4 | cut
    """,
    "track clip.mp4 {} -o out.npz": """
        --start 99 | clip.mp4 has no frame after 99 s that can be decoded
        --start 1e18 | must be a number from 0 to 1e+07
        --start -1 | must be a number from 0 to 1e+07
        --start nan | must be a number from 0 to 1e+07
        --frames 1 | must be a whole number from 2 to 100000
        --step 0 | must be a whole number from 1 to 100000
        --step 99999999 | must be a whole number from 1 to 100000
        --size 4 | must be a whole number from 16 to 16384
        --size 99999999 | must be a whole number from 16 to 16384
        --tracker nope | tracker 'nope' is unknown: write dis, raft:FILE, cotracker:F
        --tracker raft:none.pth | tracker 'raft:none.pth': none.pth does not exist
        --tracker cotracker:text.txt | text.txt is not a TorchScript file
        --tracker dot:evil.ckpt | evil.ckpt is not a TorchScript file
        --tracker python:os | tracker 'python:os' cannot be imported
        --tracker python:os:sep | tracker 'python:os:sep' cannot be called
        --tracker python:no.such:thing | tracker 'python:no.such:thing' cannot be imported
        --tracker python:own_fails:thing | cannot be imported (ZeroDivisionError: division by zero)
        --tracker python:own_words:thing | cannot be imported (SyntaxError:
        --tracker python:own_exits:thing | cannot be imported (SystemExit: 0)
        --tracker python:own_leaves:Maker | failed when it was called without arguments (SystemExit: 0)
        --tracker python:own_leaves:Tracker | failed (SystemExit: 0)
        --tracker fields:far.npz | far.npz: a field has no known pixel
        --tracker fields:none.npz | tracker 'fields:none.npz': none.npz does not exist
        --tracker raft:https://a.example/raft.pth | URLs are not read
        --tracker dis: | tracker 'dis:' is unknown
        --tracker fields:pipe.npz | is a pipe, a socket or a device
        --tracker '' | tracker '' is unknown: write dis, raft:FILE, cotracker:FILE,
        --tracker fields:small.npz | small.npz has 3 fields of 9x6
        --tracker fields:unknown.npz | unknown.npz: a field has no known pixel
        --tracker raft: | tracker 'raft:' is unknown: write dis, raft:FILE, cotracker:
        --tracker fields:flows | flows must hold .flo or KITTI .png files of one size, got 2
        --tracker fields:folder | folder must hold .flo or KITTI .png files of one size, got 0
        --tracker fields:seen.npz | seen.npz: "visibility" is
        --device banana | --device banana cannot be used here
    """,
    "restyle {} -o out.mp4": """
        clip.mp4 | one of the arguments --first-frame --style --sd is required
        none.mp4 --style oil | not exist
        text.mp4 --style oil | text.mp4
        one.mp4 --style oil | The clip has 1 frame
    """,
    "restyle clip.mp4 {} -o out.mp4": """
        --style cubist | is unknown
        --style colours | go together
        --style oil --style-image photo.png | go together
        --style colours --style-image none.png | not exist
        --first-frame none.png | not exist
        --first-frame text.png | cannot be read
        --first-frame photo.png --style oil | not allowed
        --sd folder | needs --prompt
        --sd none --prompt x | --sd none is not a diffusers folder of Stable Diffusion: it
        --sd folder --prompt x | --sd folder is not a diffusers folder of Stable Diffusion: i
        --style oil --strength 2 | must be a number from 0 to 1
        --style oil --tracker nope | tracker 'nope' is unknown: write dis, raft:FILE, cotracker:F
        --style oil --size 3 | must be a whole number from 8 to 16384
    """,
    "evaluate {}": """
        -o out.md | must end in .json
        --clips 0 | must be a whole number of at least 1
        --only beauty | no measure
        --only | expected
        --clip none | none holds no CLIP model: config.json is missing there
        --clip folder | folder holds no CLIP model: config.json is missing there
        --ablation none | --ablation: none/ablation_none/final/ablation_unet does not
        --ablation-clips x.png | give both
        --weights none | holds no pipeline
        -o /proc/out.json | cannot be written
        --detail-clips /proc/x.png | cannot be written
        --sheets text.txt | cannot be written
        --detail-clips x.txt | the picture x.txt must end in .png
    """,
    "train {}": """
        LITE --step nope | No step
        pipe --step x | is a pipe, a socket or a device
        no_data.yaml --step photos | The step photos has no data
        none.yaml --step x | none.yaml
        folder --step x | Is a directory
        photo.jpg --step x | photo.jpg
        text.txt --step x | text.txt: expected a mapping of names to values, found 'no s
        good.yaml --step photos --runs none | No pictures
        good.yaml --step motion --runs none | The model flow_vae cannot be built: num_channels
        good.yaml --step photos --runs text.txt | text.txt/photos: Not a directory
        good.yaml --step photos --resume --restart | not allowed
        no_tokenizer.yaml --step motion --runs none | tokenizer
    """,
    "train config_{}.yaml --step x": """
        empty | models is missing or empty, expected at least one of them
        list | expected a mapping of names to values, found []
        text | expected a mapping of names to values, found 'hello'
        tabs | that cannot start any token
        deep | it is nested too deeply
        date | day is out of range for month
        python | line 1: could not determine a constructor for the tag 'tag:y
        tag | line 1: could not determine a constructor for the tag '!x'
        twice | line 2: the key 'models' is given twice, first in line 1
        loop | expected a mapping of names to values, found [[[...]]]
        bomb | unknown key 'a'
    """,
    "train step_{}.yaml --step photos": """
        steps | steps
        batch_size | batch_size
        learning_rate | learning_rate
        seed | seed
        ema_decay | ema_decay
        text_dropout | text_dropout
        grad_clip | grad_clip
        warmup_steps | warmup_steps
        name | name
        objective | objective
        model | model
        data | data
        options | options
        optimizer | optimizer
        schedule | schedule
        precision | precision
        trainable | trainable
        checkpoint_every | checkpoint_every
        accumulation | accumulation
        log_every | log_every
        start_from | start_from
        learning_rat | learning_rat
    """,
    "export {}": """
        none.yaml -o out | none.yaml
        good.yaml | -o
        good.yaml -o store | something other
        good.yaml -o text.txt | is a file
        good.yaml -o . --runs folder | The output . would replace folder, from which the curriculum
        good.yaml -o out --runs none | no result of the model
        good.yaml -o /proc/out --runs none | the output folder /proc cannot be written: No such file or d
        photo.jpg -o out | photo.jpg
    """,
    "curves {}": """
        none | no training logs
        folder | no training logs
        logs -o /dev/null | is a pipe, a socket or a device
        text.txt | text.txt has no training logs: NAME.csv or NAME/log.csv
        logs_words | logs_words/a.csv is damaged
        logs_empty | not a training log
        logs_header | logs_header/a.csv is not a training log
        logs_bytes | logs_bytes/a.csv cannot be read as a training log
    """,
    "world -o {}": """
        out.jpg | must end in .png
        store | holds a store already
        text.txt | text.txt must end in .png for a sheet, or have no suffix for
        out.png --pairs 1 | for stores
        out.png --film text.mp4 | text.mp4
        out.png --film rtsp:clip | URLs are not read
        folder --photos none | none
        videos | videos holds something other than a store: choose a new or a
        /proc/out | the output folder /proc/out cannot be written: No such file
    """,
    "world -o out {}": """
        --clips 0 | must be a whole number of at least 1
        --size 8 | must be a whole number from 16 to 4096
        --size 99999999 | must be a whole number from 16 to 4096
        --frames 1 | must be a whole number from 2 to 1000
        --pairs 16 | later ones
        --photos none | none
        --photos folder | folder
        --sprites none | none
        --photos text.txt | text.txt
        --film none.mp4 | none.mp4
        --film clip.mp4 --photos folder | leave out
        --split test | invalid choice
        --seed -1 | must be a whole number of at least 0
        --edition 3 | invalid choice
    """,
    "shards {}": """
        videos | -o
        none -o out | does not exist
        https://a.example/videos.csv -o out | is a URL
        ENDLESS.png -o out | name too long
        text.csv -o out | lacks the columns
        text.txt -o out | neither
        folder -o out | no videos
        no_rows.csv -o out | no rows
        videos -o videos | the output videos is the folder of the videos
        videos -o text.txt | the output text.txt is a file, but a folder is expected
        videos -o /proc/out | the output folder /proc/out cannot be written: No such file
    """,
    "shards videos -o out {}": """
        --size 5 | is not a size
        --size 10x10 | multiple of 8
        --frames 1 | must be a whole number of at least 2
        --links 3 --stride 8 | divisor
        --node 1 | counted from 0
        --processes 0 | must be a whole number of at least 1
        --tracker nope | nope
        --tracker fields:x.npz | cannot be right
        --per-shard 0 | must be a whole number of at least 1
        --stride 0 | must be a whole number of at least 1
    """,
    "import -o {}": """
        out | is needed
        out --sd none | none
        out --sd folder | motion module is needed
        out --release none | none
        out --release folder | not Motion-I2V's release
        out --config none.yaml --release folder | none.yaml
        out --dtype int8 --release folder | invalid choice
        store --release folder | exists already
        text.txt --release folder | exists already
    """,
    "import -o out --motion-module x.ckpt --sd {}": """
        sd_empty | no weights
        sd_json | JSON object
        x.safetensors | x.safetensors
        long.safetensors | long.safetensors
        evil.ckpt | evil.ckpt
        lfs.safetensors | LFS
        text.ckpt | text.ckpt
        empty.ckpt | empty.ckpt
        list.ckpt | list.ckpt
        number.ckpt | number.ckpt
        cut.ckpt | cut.ckpt
        photo.png | (Unsupported operand 80)
    """,
}
CASES = [
    (words, [WORDS.get(word, word) for word in shlex.split(command.format(words))], said)
    for command, lines in ROWS.items()
    for words, _, said in (line.strip(" ").rpartition(" | ") for line in lines.strip("\n").splitlines() if line.strip())
]


def state(folder: Path) -> dict[str, tuple[int, int] | None]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def before(there) -> dict:
    return state(there)


@pytest.fixture
def inside(there, before, weights, monkeypatch) -> Path:  # noqa: F811
    """Works in the folder, with a pipeline that is loaded once where none is named."""
    monkeypatch.chdir(there)
    monkeypatch.syspath_prepend(there)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # beside the modules of trackers
    load = common.load

    def loaded(folder, *device):
        if folder is not None or device[:1] not in ((), (None,)) or device[1:] not in ((), (None,)):
            return load(folder or weights, *device)
        if weights not in PIPES:
            PIPES[weights] = load(weights)
        return PIPES[weights]

    monkeypatch.setattr(common, "load", loaded)
    monkeypatch.setattr(plan, "shell", lambda config, name: SHELLS.setdefault(name, None) or built(config, name))
    return there


SHELLS: dict[str, torch.nn.Module | None] = {}


def built(config: object, name: str) -> torch.nn.Module:
    """An empty model of full.yaml, which takes a while to build and is therefore built once."""
    SHELLS[name] = shell(config, name)
    return SHELLS[name]


@pytest.mark.parametrize("name, words, said", CASES, ids=[f"{i}: {case[0]}" for i, case in enumerate(CASES)])
def test_a_bad_command_is_one_sentence_and_changes_nothing(inside, before, capfd, name, words, said):
    code = cli.main(words)
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("mi2v: error: ")]
    assert code == 2, (code, out, err)
    assert len(lines) == 1 and err.endswith("\n") and "Traceback" not in err, err
    assert said in lines[0], lines[0]
    assert len(lines[0]) < 700 and lines[0].count("  ") == 0, lines[0]
    after = state(inside)
    for name in sorted(after.keys() - before.keys(), reverse=True):  # so that the next row begins as this one did
        (Path.unlink if Path(name).is_file() else Path.rmdir)(Path(name))
    assert after == before


CALLS: dict[str, tuple[Callable[[], object], str]] = {
    "drag without points": (lambda: Drag([]), "no points"),
    "drag of one point": (lambda: Drag([(1, 2)]), "only one point"),
    "drag of text": (lambda: Drag(["12", "34"]), "pair of numbers"),
    "drag of truths": (lambda: Drag([(True, 1), (2, 2)]), "pair of numbers"),
    "drag of words": (lambda: Drag([("a", 1), (2, 2)]), "pair of numbers"),
    "drag without numbers": (lambda: Drag([None, None]), "pair of numbers"),
    "drag of nan": (lambda: Drag([(float("nan"), 1), (2, 2)]), "not finite"),
    "drag beyond floats": (lambda: Drag([(10**400, 1), (2, 2)]), "not finite"),
    "radius of text": (lambda: Drag([(1, 1), (2, 2)], "3"), "not a number"),
    "radius true": (lambda: Drag([(1, 1), (2, 2)], True), "not a number"),
    "radius 0": (lambda: Drag([(1, 1), (2, 2)], 0), "above 0"),
    "anchor of text": (lambda: Anchor("12"), "pair of numbers"),
    "anchor of three": (lambda: Anchor((1, 2, 3)), "pair of numbers"),
    "control of no size": (lambda: MotionControl(None), "size None"),
    "control of text": (lambda: MotionControl(("90", "60")), "size"),
    "control of truths": (lambda: MotionControl((True, True)), "size"),
    "control of infinity": (lambda: MotionControl((float("inf"), 3)), "size"),
    "control of half pixels": (lambda: MotionControl((1.5, 3)), "whole numbers"),
    "brush of numbers": (lambda: MotionControl((9, 6), brush=np.ones((6, 9))), "expected bool"),
    "brush turned": (lambda: MotionControl((9, 6), brush=np.ones((9, 6), bool)), "brush has shape"),
    "brush empty": (lambda: MotionControl((9, 6), brush=np.zeros((6, 9), bool)), "no pixel that may move"),
    "field of no frames": (lambda: MotionControl((9, 6)).field(0), "at least 1"),
    "background without a drag": (lambda: MotionControl((9, 6)).anchor_background(), "there is no drag"),
    "resized to nothing": (lambda: MotionControl((9, 6)).resized(0, 5), "above 0"),
    "JSON of a number": (lambda: MotionControl.from_json("7"), "not a motion control"),
    "flo": (lambda: read_flow("size.flo"), "truncated"),
    "flo with negative sides": (lambda: read_flow("minus.flo"), "damaged"),
    "flo that is empty": (lambda: read_flow("empty.flo"), "empty.flo"),
    "flo of words": (lambda: read_flow("text.flo"), "not a .flo file"),
    "KITTI bomb": (lambda: read_flow("bomb.png"), "do not fit into its"),
    "KITTI photo": (lambda: read_flow("photo.png"), "16-bit"),
    "KITTI cut": (lambda: read_flow("cut_photo.png"), "truncated"),
    "npz empty": (lambda: read_flow("empty.npz"), "empty.npz"),
    "npz of words": (lambda: read_flow("words.npz"), "not numbers"),
    "npz without flow": (lambda: read_flow("other.npz"), "there are .'motion'"),
    "npz of another shape": (lambda: read_flow("shape.npz"), "N, 2, H, W"),
    "npz of pickles": (lambda: read_flow("pickle.npz"), "not numbers"),
    "npz larger than the world": (lambda: read_flow("huge.npz"), "cannot have"),
    "npz with half a header": (lambda: read_flow("header.npz"), "damaged"),
    "npz with negative sides": (lambda: read_flow("negative.npz"), "damaged"),
    "npz that rots": (lambda: read_flow("rotten.npz"), "damaged"),
    "flow of another suffix": (lambda: read_flow("photo.jpg"), "unknown suffix"),
    "flow of three channels": (lambda: write_flow("out.flo", torch.zeros(3, 4, 4)), "shape"),
    "flow too far for KITTI": (lambda: write_flow("out.png", torch.full((2, 4, 4), 600.0)), "KITTI"),
    "visibility of another size": (
        lambda: write_npz("out.npz", torch.zeros(1, 2, 4, 4), torch.ones(1, 3, 3)),
        "visibility",
    ),
    "tracks of unknown flow": (lambda: read_tracks("unknown.npz"), "no known pixel"),
    "tracks of another visibility": (lambda: read_tracks("seen.npz"), "visibility"),
    "tracks of two sizes": (lambda: read_tracks("flows"), "one size"),
    "no such tracker": (lambda: load_tracker("nope"), "unknown"),
    "tracker pickle": (lambda: load_tracker("dot:evil.ckpt"), "not a TorchScript"),
    "clip of one frame": (lambda: check_clip(np.zeros((1, 8, 8, 3), np.uint8)), "at least two"),
    "clip of floats": (lambda: ChainTracker()(np.zeros((2, 8, 8, 3))), "uint8"),
    "picture in a pipe": (lambda: read_image("pipe"), "is a pipe"),
    "video in a pipe": (lambda: read_video("pipe.mp4"), "is a pipe"),
    "flow in a pipe": (lambda: read_flow("pipe.npz"), "is a pipe"),
    "picture missing": (lambda: read_image("none.png"), "does not exist"),
    "picture on the network": (lambda: read_image("https://a.example/x.png"), "URLs are not read"),
    "picture bomb": (lambda: read_image("bomb.png"), "bomb.png"),
    "picture of floats": (lambda: write_image("out.png", np.zeros((4, 4, 3))), "uint8"),
    "picture of another kind": (lambda: write_image("out.xyz", np.zeros((4, 4, 3), np.uint8)), "cannot be written"),
    "animation of nothing": (lambda: write_animated_png("out.png", []), "at least one"),
    "tensor of no picture": (lambda: image_tensor(torch.zeros(7)), "."),
    "video missing": (lambda: read_video("none.mp4"), "does not exist"),
    "video on the network": (lambda: read_video("https://a.example/x.mp4"), "URLs are not read"),
    "video of 0 frames": (lambda: read_video("clip.mp4", 0), "num_frames is 0"),
    "video in steps of 0": (lambda: read_video("clip.mp4", 2, step=0), "step is 0"),
    "video from minus 1": (lambda: read_video("clip.mp4", 2, -1), "start is -1"),
    "video from nan": (lambda: read_video("clip.mp4", 2, float("nan")), "start is nan"),
    "video of words": (lambda: read_video("text.mp4"), "text.mp4"),
    "video of no frames": (lambda: write_video("out.mp4", []), "at least one"),
    "video of two sizes": (
        lambda: write_video("out.mp4", [np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)]),
        "size",
    ),
    "clips that are not there": (lambda: open_clips("none"), "does not exist"),
    "clips of words": (lambda: open_clips("text.txt"), "neither a folder"),
    "clips of no videos": (lambda: open_clips("folder"), "no videos"),
    "store not finished": (lambda: ClipStore("folder"), "clips.json is missing"),
    "store cut off": (lambda: ClipStore("store_cut"), "store_cut"),
    "store with words for an index": (lambda: ClipStore("store_index"), "store_index"),
    "store with an empty index": (lambda: ClipStore("store_words"), "store_words"),
    "store with too few captions": (lambda: ClipStore("store_length"), "differ in length"),
    "photos to train on that are damaged": (lambda: PhotoCrops("damaged"), "damaged/a.png cannot be read as a picture"),
    "photos to train on that are too large": (lambda: PhotoCrops("large"), "large/a.png has more than the"),
    "photos to train on in a pipe": (lambda: PhotoCrops("pipes"), "pipes/a.png is a pipe"),
    "world of a photo that is too large": (
        lambda: PhotoBank("large", "train").copies(0),
        "large/a.png has more than the",
    ),
    "store of nothing": (lambda: write_store("out", [], 0), "at least one clip"),
    "store of too few": (lambda: write_store("out", [clip()], 2), "only 1 of 2"),
    "store of two shapes": (lambda: write_store("out", [clip(), clip(4)], 2), "clip 1"),
    "store over something else": (lambda: write_store("videos", [clip()], 1), "something other"),
    "shards not finished": (lambda: ShardSet("folder"), "no finished shards"),
    "world without photos": (lambda: World([], "none"), "photos"),
    "logs missing": (lambda: read_logs(Path("none")), "no training logs"),
    "fields of two sizes": (lambda: fields.compose(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 5, 5)), "."),
    "resize of a picture": (lambda: fields.resize(torch.zeros(1, 3, 4, 4), (8, 8)), "."),
    "warp by three channels": (lambda: warp.backward_warp(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)), "."),
    "splat by another size": (lambda: warp.splat_average(torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 5, 5)), "."),
    "error of two shapes": (lambda: metrics.endpoint_error(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 5, 5)), "."),
    "psnr of two shapes": (lambda: metrics.psnr(torch.zeros(3, 4, 4), torch.zeros(3, 5, 5)), "."),
    "no such style": (lambda: restyle(Image.new("RGB", (8, 8)), "cubist"), "cubist"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_bad_call_is_one_sentence_and_changes_nothing(inside, before, name):
    call, said = CALLS[name]
    with pytest.raises(ValueError) as raised:
        call()
    assert re.search(said, str(raised.value)), raised.value
    assert len(str(raised.value)) < 700
    assert state(inside) == before


def test_there_are_enough_rows():
    assert len(CASES) + len(CALLS) >= 250
