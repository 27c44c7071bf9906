"""The command line with a tiny random pipeline: what it writes, and one clear line for each mistake."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image

from mi2v_lite import cli, evaluation
from mi2v_lite.cli import common
from mi2v_lite.control import Anchor, Drag, MotionControl
from mi2v_lite.flow.files import read_flo, read_npz
from mi2v_lite.io import images, videos
from mi2v_lite.models.autoencoder import make_vae
from mi2v_lite.models.controlnet import TrajectoryControlNet
from mi2v_lite.models.text import build_tokenizer, make_text_encoder
from mi2v_lite.models.unet import VideoUNet
from mi2v_lite.pipelines import MotionI2VPipeline

ROOT = Path(__file__).resolve().parent.parent
LITE = ROOT / "mi2v_lite" / "configs" / "lite.yaml"


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A saved pipeline, as small as the classes allow, for pictures of 32 pixels."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    tokenizer = build_tokenizer(tmp_path_factory.mktemp("tokenizer"), ["red", "balloon"])
    vae = {"block_out_channels": [8, 8, 8, 8], "norm_num_groups": 4, "layers_per_block": 1, "sample_size": 32}
    unet = {
        "block_out_channels": (32,),
        "layers_per_block": 1,
        "attention_levels": (True,),
        "num_attention_heads": 2,
        "cross_attention_dim": 8,
        "motion_num_attention_heads": 2,
        "motion_max_length": 31,
    }
    stage1 = VideoUNet(in_channels=5, out_channels=2, use_stride_embedding=True, **unet)
    text = {"vocab_size": len(tokenizer), "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    flow_vae = make_vae({**vae, "latent_channels": 2, "in_channels": 2, "out_channels": 2})
    for model in (stage1, flow_vae):
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.3)
    MotionI2VPipeline(
        vae=make_vae({**vae, "latent_channels": 3}),
        flow_vae=flow_vae,
        text_encoder=make_text_encoder({**text, "num_attention_heads": 2}),
        tokenizer=tokenizer,
        motion_unet=stage1,
        controlnet=TrajectoryControlNet.from_unet(stage1, condition_channels=3, condition_hidden=4),
        animation_unet=VideoUNet(in_channels=3, out_channels=3, fusion="attention", first_frame_timestep=1, **unet),
        scheduler=DDIMScheduler(prediction_type="v_prediction"),
        motion_steps=2,
        animation_steps=2,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sharp(weights, tmp_path_factory) -> Path:
    """The same, set to work at 32 pixels and to carry detail."""
    folder = tmp_path_factory.mktemp("sharp") / "weights"
    shutil.copytree(weights, folder)
    settings = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**settings, "detail": "carry", "working_size": 32}))
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty folder to work in, with a photo of 90x60 pixels and a brush for it."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save("photo.png")
    brush = np.zeros((60, 90), np.uint8)
    brush[:, :45] = 255
    Image.fromarray(brush).save("brush.png")
    return tmp_path


def run(capsys, *words: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def read_clip(path: str) -> np.ndarray:
    import av

    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture
def loaded(weights, monkeypatch) -> Path:
    """The same, loaded once for all: most tests are not about loading."""
    if weights not in PIPES:
        PIPES[weights] = common.load(weights)
    monkeypatch.setattr(common, "load", lambda folder, *_: PIPES[folder])
    return weights


PIPES: dict[Path, MotionI2VPipeline] = {}
GIVEN = {"photo.png", "brush.png"}


def test_animate_writes_everything(here, weights, capsys):
    code, out, err = run(
        capsys, "animate", "photo.png", "--prompt", "red balloon", "--drag", "20,30 40,30 60,20", "--anchor", "80,50",
        "--anchor", "85,5", "--brush", "brush.png", "--frames", 4, "--seed", 3, "--steps", 1, "--guidance", "2.5",
        "--control-scale", "0.5", "--stride", 2, "--save-flow", "flows", "--previews", "--weights", weights,
        "-o", "new/deep/clip.mp4",
    )  # fmt: skip
    assert (code, err) == (0, "")
    made = {"new/deep/clip.mp4", "flows/flow.npz", *(f"new/deep/clip{part}.png" for part in ("", "_flow", "_drawn"))}
    assert files(here) == GIVEN | made | {f"flows/flow_0{i}.flo" for i in (1, 2, 3)}
    assert read_clip("new/deep/clip.mp4").shape == (4, 32, 48, 3)
    field = read_npz("flows/flow.npz")
    assert field.shape == (3, 2, 32, 48) and torch.equal(read_flo("flows/flow_03.flo"), field[2])
    assert field[..., :23].abs().max() > 0 and field[..., 25:].abs().max() == 0  # outside the brush
    with Image.open("new/deep/clip.png") as image:
        assert image.size == (48, 32) and getattr(image, "n_frames", 1) == 4
    with Image.open("new/deep/clip_flow.png") as image:
        assert image.width > 500
    for word in (*made, "flow_01.flo to flow_03.flo", "90x60", "48x32", "seed 3", "loading", "sampling", "writing"):
        assert word in out, word


def test_the_seed_repeats_a_clip_and_options_reach_the_model(here, loaded, capsys):
    def field(*words: object) -> torch.Tensor:
        base = ["animate", "photo.png", "--frames", 3, "--save-flow", ".", "--weights", loaded, "-o", "a.mp4"]
        code, _, err = run(capsys, *base, *words)
        assert code == 0, err
        return read_npz("flow.npz")

    plain, seen = field("--prompt", "red", "--seed", 1, "--previews"), Path("a.png").read_bytes()
    assert torch.equal(plain, field("--prompt", "red", "--seed", 1, "--previews"))
    assert Path("a.png").read_bytes() == seen
    for words in (
        ["--prompt", "red", "--seed", 2],
        ["--prompt", "balloon", "--seed", 1],
        ["--prompt", "red", "--seed", 1, "--stride", 30],
        ["--prompt", "red", "--seed", 1, "--steps", 1],
        ["--prompt", "red", "--seed", 1, "--guidance", 20],
        ["--prompt", "red", "--seed", 1, "--brush", "brush.png"],
    ):
        assert not torch.equal(plain, field(*words)), words
    assert field("--prompt", "red", "--seed", 1, "--size", 16).shape[-2:] == (16, 24)


def test_a_clip_has_the_size_of_the_photo_and_its_own_rate(here, sharp, capsys):
    import av

    words = ["animate", "photo.png", "--prompt", "red", "--frames", 3, "--seed", 1, "--weights", sharp]

    def made(*more: object) -> tuple[np.ndarray, float, str]:
        code, out, err = run(capsys, *words, *more, "-o", "clip.mp4")
        assert (code, err) == (0, "")
        with av.open("clip.mp4") as container:
            rate = float(container.streams.video[0].average_rate)
        return read_clip("clip.mp4"), rate, out

    clip, rate, out = made()
    assert clip.shape == (48, 60, 90, 3) and rate == 24 and "90x60 px, 48 frames, 24 a second" in out
    clip, rate, out = made("--fps", 10, "--seconds", 1.5, "--size", 31)
    assert clip.shape == (15, 32, 46, 3) and rate == 10 and "the clip gets 46x32 px, 15 frames" in out
    Image.open("photo.png").resize((900, 600)).save("photo.png")
    assert made("--seconds", 0.2)[0].shape == (5, 512, 768, 3)
    assert made("--seconds", 0.2, "--size", "original")[0].shape == (5, 600, 900, 3)
    clip, rate, out = made("--plain")
    assert clip.shape == (3, 32, 48, 3) and rate == 8 and "48x32 px, 3 frames, 8 a second" in out
    assert made("--plain", "--size", 40)[0].shape == (3, 40, 64, 3)
    made("--seconds", 1, "--previews")
    with Image.open("clip.png") as image:
        assert image.size == (384, 256) and image.n_frames == 8


def test_device_and_precision_reach_the_networks(weights):
    pipe = common.load(weights, "cpu", "bf16")
    assert pipe.device == torch.device("cpu") and pipe.motion_unet.dtype == pipe.vae.dtype == torch.bfloat16
    assert pipe.flow_vae.dtype == torch.float32
    assert common.load(weights, "cpu").motion_unet.dtype == torch.float32
    usual = "cuda" if torch.cuda.is_available() else "cpu"
    assert common.device(None).type == usual and common.load(weights).device.type == usual


def test_a_drawn_seed_is_told(here, loaded, capsys):
    words = ["--prompt", "red", "--frames", 2, "--steps", 1, "--weights", loaded]
    _, out, _ = run(capsys, "animate", "photo.png", *words, "-o", "a.mp4")
    seed = next(line for line in out.splitlines() if line.startswith("seed")).split()[1]
    run(capsys, "animate", "photo.png", *words, "--seed", seed, "-o", "b.mp4")
    assert Path("a.mp4").read_bytes() == Path("b.mp4").read_bytes()


def test_control_is_in_the_pixels_of_the_upright_photo(here, loaded, capsys, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: viewers show 60x90
    Image.open("photo.png").save("turned.jpg", exif=exif)
    seen = {}

    def spy(self, image, prompt, control, **kwargs):
        seen.update(image=image, prompt=prompt, control=control, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(MotionI2VPipeline, "__call__", spy)
    words = ["--drag", "50,85 10.5,3", "--anchor", "1,2", "--control-scale", "0.25", "--weights", loaded]
    assert run(capsys, "animate", "turned.jpg", *words, "-o", "a.mp4")[0] == 130
    assert seen["image"].size == (32, 48) and seen["control"].size == (60, 90)
    assert seen["control"].drags[0].points == ((50, 85), (10.5, 3)) and seen["control"].anchors[0].point == (1, 2)
    assert (seen["prompt"], seen["control_scale"], seen["num_frames"]) == ("", 0.25, 16)
    assert run(capsys, "animate", "turned.jpg", "--drag", "85,50 3,3", "-o", "a.mp4")[0] == 2  # outside, once upright
    more = ["--anchor-background", "--control-guidance", "2"]
    assert run(capsys, "animate", "turned.jpg", *words, *more, "-o", "a.mp4")[0] == 130
    drawn = MotionControl((60, 90), [Drag([(50, 85), (10.5, 3)])], [Anchor((1, 2))])
    assert seen["control"] == drawn.anchor_background() and seen["control_guidance_scale"] == 2


def test_a_drag_that_starts_on_a_thing_moves_it(here, loaded, capsys, monkeypatch):
    picture = np.full((60, 90, 3), 90, np.uint8)
    picture[10:30, 20:40], picture[35:55, 60:80] = (220, 40, 30), (30, 60, 220)
    Image.fromarray(picture).save("things.png")
    mask = np.zeros((60, 90), np.uint8)
    mask[35:55, 60:80] = 255
    Image.fromarray(mask).save("mask.png")
    seen = {}

    def spy(self, image, prompt, control, **kwargs):
        seen.update(control=control)
        raise KeyboardInterrupt

    monkeypatch.setattr(MotionI2VPipeline, "__call__", spy)
    words = ["--drag", "25,20 40,25", "--drag", "35,15 50,12", "--drag", "5,50 9,50", "--weights", loaded]
    words += ["--thing-mask", "mask.png", "--thing", "30,20 25,15", *OUT]
    code, out, _ = run(capsys, "animate", "things.png", *words)
    assert code == 130 and "thing 1: 7.4% of the photo, 0 drags" in out and "thing 2" in out
    blue, red = seen["control"].things
    assert np.array_equal(blue.mask, mask > 0) and not blue.drags, "in the order of the command line"
    assert red.drags == (Drag([(25, 20), (40, 25)]), Drag([(35, 15), (50, 12)]))
    assert abs(int(red.mask.sum()) - 400) < 60 and seen["control"].drags == (Drag([(5, 50), (9, 50)]),)
    seen["control"].anchor_background().save("saved.json")
    code, out, _ = run(capsys, "animate", "things.png", "--control", "saved.json", "--weights", loaded, *OUT)
    assert code == 130 and "background: " in out and "thing 2" in out and "thing 3" not in out


def test_what_was_drawn_is_replayed_exactly(here, loaded, capsys):
    """The widget's clip, its command line's, and the same drags as options: one and the same."""
    from mi2v_lite.viz.widgets import DragCanvas

    canvas = DragCanvas("photo.png", PIPES[loaded], prompt="red", seed=5, control_scale=0.5, num_frames=3)
    canvas.drags, canvas.anchors = [[(20, 30), (40.5, 30)]], [(80, 50)]
    videos.write_video("drawn.mp4", canvas.render().frames[0])
    canvas.save("control.json")
    replay = [*shlex.split(canvas.command()), "--weights", loaded]
    assert replay[:5] == ["mi2v", "animate", "photo.png", "--control", "control.json"] and replay[-4] == "-o"
    options = ["--drag", "20,30 40.5,30", "--anchor", "80,50", *replay[5:-3], "again.mp4", *replay[-2:]]
    for words in (replay[1:], ["animate", "photo.png", *options]):
        code, _, err = run(capsys, *words)
        assert code == 0, err
    clips = [Path(name).read_bytes() for name in ("drawn.mp4", "clip.mp4", "again.mp4")]
    assert clips[0] == clips[1] == clips[2]


def test_a_control_in_which_nothing_is_drawn_has_no_picture(here, loaded, capsys):
    with Image.open("photo.png") as photo:
        MotionControl(photo.size).save("nothing.json")
    code, out, err = run(
        capsys, "animate", "photo.png", "--control", "nothing.json", "--prompt", "red", "--previews", "--steps", 1,
        "--weights", loaded, *OUT,
    )  # fmt: skip
    assert code == 0, err
    assert "clip_flow.png" in out and "clip_drawn.png" not in out


PROMPT = ["--prompt", "red"]
OUT = ["-o", "clip.mp4"]
MISTAKES = {
    "no such photo": (["animate", "none.png", *PROMPT, *OUT], "none.png does not exist"),
    "photo is no image": (["animate", "text.txt", *PROMPT, *OUT], "text.txt cannot be read as a picture"),
    "photo is a folder": (["animate", ".", *PROMPT, *OUT], "cannot be read as a picture"),
    "photo too long": (["animate", "long.png", *PROMPT, *OUT], "100x40 px, 2.50 times"),
    "nothing asked": (["animate", "photo.png", *OUT], "--prompt, --drag or --brush"),
    "blank prompt": (["animate", "photo.png", "--prompt", " ", "--anchor", "3,3", *OUT], "nothing says what"),
    "drag outside": (["animate", "photo.png", "--drag", "5,5 90,5", *OUT], r"drag 1 has the point \(90, 5\) outside"),
    "anchor outside": (["animate", "photo.png", *PROMPT, "--anchor", "5,60", *OUT], "anchor 1 .* outside"),
    "drag of words": (["animate", "photo.png", "--drag", "up", *OUT], "'up' is not a point"),
    "drag of triples": (["animate", "photo.png", "--drag", "1,2,3 4,5", *OUT], "'1,2,3' is not a point"),
    "drag of nan": (["animate", "photo.png", "--drag", "nan,2 4,5", *OUT], "'nan,2' is not a point"),
    "drag of one point": (["animate", "photo.png", "--drag", "1,2", *OUT], "two or more points"),
    "brush of another size": (["animate", "photo.png", "--brush", "long.png", *OUT], "100x40 px but the photo 90x60"),
    "black brush": (["animate", "photo.png", "--brush", "black.png", *OUT], "brush black.png has no white pixel"),
    "no such control": (["animate", "photo.png", "--control", "none.json", *OUT], "none.json: No such file"),
    "control is no JSON": (["animate", "photo.png", "--control", "text.txt", *OUT], "text.txt: .* not valid JSON"),
    "control of another photo": (
        ["animate", "photo.png", "--control", "long.json", *OUT],
        "long.json was drawn on 100x40 px but the photo photo.png has 90x60",
    ),
    "all held": (["animate", "photo.png", *PROMPT, "--anchor-background", *OUT], "--anchor-background holds all but"),
    "all held but for an anchor": (
        ["animate", "photo.png", *PROMPT, "--anchor", "1,2", "--anchor-background", *OUT],
        "there is no drag",
    ),
    "empty control": (["animate", "photo.png", "--control", "empty.json", *OUT], "empty.json has no drag"),
    **{
        f"control and {option}": (
            ["animate", "photo.png", *PROMPT, "--control", "empty.json", option, value, *OUT],
            "--control holds all",
        )
        for option, value in (
            ("--drag", "1,2 3,4"),
            ("--anchor", "1,2"),
            ("--brush", "black.png"),
            ("--thing", "1,2"),
            ("--thing-mask", "black.png"),
        )
    },
    "thing outside": (["animate", "photo.png", *PROMPT, "--thing", "90,5", *OUT], r"\(90, 5\) lies outside the 90x60"),
    "thing of words": (["animate", "photo.png", *PROMPT, "--thing", "it", *OUT], "'it' is not a point"),
    "thing of nothing": (["animate", "photo.png", *PROMPT, "--thing", " ", *OUT], "' ' is not a point"),
    "still thing alone": (["animate", "photo.png", "--thing", "5,5", *OUT], "nothing says what is to move"),
    "mask of another size": (
        ["animate", "photo.png", *PROMPT, "--thing-mask", "long.png", *OUT],
        "the mask long.png is 100x40 px but the photo 90x60",
    ),
    "black mask": (
        ["animate", "photo.png", *PROMPT, "--thing-mask", "black.png", *OUT],
        "black.png has no white pixel",
    ),
    "white mask": (["animate", "photo.png", *PROMPT, "--thing-mask", "white.png", *OUT], "white.png covers the whole"),
    "no such mask": (["animate", "photo.png", *PROMPT, "--thing-mask", "none.png", *OUT], "none.png does not exist"),
    "things all still": (
        ["animate", "photo.png", *PROMPT, "--thing", "5,5", "--anchor-background", *OUT],
        "there is no drag",
    ),
    "no such brush": (["animate", "photo.png", "--brush", "none.png", *OUT], "none.png does not exist"),
    "no output": (["animate", "photo.png", *PROMPT], "-o/--output"),
    "output no mp4": (["animate", "photo.png", *PROMPT, "-o", "clip.gif"], "clip.gif must end in .mp4"),
    "output is a folder": (["animate", "photo.png", *PROMPT, "-o", "folder.mp4"], "folder.mp4 is a folder"),
    "output in a file": (["animate", "photo.png", *PROMPT, "-o", "text.txt/clip.mp4"], "text.txt cannot be written"),
    "flow in a file": (
        ["animate", "photo.png", *PROMPT, "--save-flow", "text.txt", *OUT],
        "text.txt cannot be written",
    ),
    "output over the photo": (["animate", "photo.png", *PROMPT, "--previews", "-o", "photo.mp4"], "it is an input"),
    "no weights": (["animate", "photo.png", *PROMPT, "--weights", "none", *OUT], "none holds no pipeline"),
    "damaged weights": (["animate", "photo.png", *PROMPT, "--weights", "bad", *OUT], "weights in bad cannot be loaded"),
    "unknown option": (["animate", "photo.png", *PROMPT, "--colour", *OUT], "unrecognized arguments: --colour"),
    "shortened option": (["animate", "photo.png", "--promp", "red", *OUT], "unrecognized arguments"),
    "half a frame": (["animate", "photo.png", *PROMPT, "--frames", "2.5", *OUT], "'2.5' must be a whole number"),
    "one frame": (["animate", "photo.png", *PROMPT, "--frames", "1", *OUT], "from 2 to 1000"),
    "negative seed": (["animate", "photo.png", *PROMPT, "--seed", "-1", *OUT], "--seed"),
    "no steps": (["animate", "photo.png", *PROMPT, "--steps", "0", *OUT], "from 1 to 1000"),
    "guidance nan": (["animate", "photo.png", *PROMPT, "--guidance", "nan", *OUT], "must be a number"),
    "plain and fast": (["animate", "photo.png", *PROMPT, "--plain", "--fps", "30", *OUT], "leave out --fps, --seconds"),
    "plain and large": (
        ["animate", "photo.png", *PROMPT, "--plain", "--size", "original", *OUT],
        "leave out --fps, --seconds and --size original",
    ),
    "size in words": (["animate", "photo.png", *PROMPT, "--size", "huge", *OUT], "'huge' must be a whole number"),
    "no length": (["animate", "photo.png", *PROMPT, "--seconds", "0", *OUT], "must be a number from 0.1 to 3600"),
    "no such device": (
        ["animate", "photo.png", *PROMPT, "--device", "banana", *OUT],
        "--device banana cannot be used here",
    ),
    "half precision on a CPU": (
        ["animate", "photo.png", *PROMPT, "--device", "cpu", "--dtype", "fp16", *OUT],
        "--dtype fp16 needs a GPU",
    ),
    "no such precision": (["animate", "photo.png", *PROMPT, "--dtype", "int8", *OUT], "invalid choice: 'int8'"),
    "stride 0": (["animate", "photo.png", *PROMPT, "--stride", "0", *OUT], "at least 1"),
    "no command": ([], "COMMAND"),
    "unknown command": (["animte"], "animte"),
    "report no json": (["evaluate", "-o", "report.md"], "must end in .json"),
    "report in a file": (["evaluate", "-o", "text.txt/report.json"], "cannot be written"),
    "no logs": (["curves", "."], "has no training logs"),
    "clips without ablation": (["evaluate", "--ablation-clips", "x.png"], "give both"),
    "evaluate without weights": (["evaluate", "--weights", "none"], "holds no pipeline"),
    "unknown measure": (["evaluate", "--only", "beauty"], "there is no measure called beauty"),
    "no such config": (["train", "none.yaml", "--step", "x"], "none.yaml"),
    "resume without a step": (["train", LITE, "--resume"], "name it with --step"),
    "no data": (["train", LITE, "--runs", "nowhere"], r"nowhere/photos/train \(for image_vae, "),
    "no such step": (["train", LITE, "--step", "x"], "No step 'x'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(here, capsys, name):
    Path("text.txt").write_text("no picture")
    Path("folder.mp4").mkdir()
    Image.new("RGB", (100, 40)).save("long.png")
    Image.new("L", (90, 60)).save("black.png")
    Image.new("L", (90, 60), 255).save("white.png")
    MotionControl((100, 40)).save("long.json")
    MotionControl((90, 60)).save("empty.json")
    Path("bad").mkdir()
    Path("bad/model_index.json").write_text('{"_class_name": "MotionI2VPipeline", "vae": ["diffusers", "Nothing"]}')
    before = {path: (here / path).read_bytes() for path in files(here)}
    words, expected = MISTAKES[name]
    code, out, err = run(capsys, *words)
    assert code == 2 and out == ""
    assert err.startswith("mi2v: error: ") and err.count("\n") == 1 and err.endswith("\n"), err
    assert re.search(expected, err), err
    assert {path: (here / path).read_bytes() for path in files(here)} == before


@pytest.mark.parametrize(
    "words, expected",
    [
        (["--frames", 17], "2 to 16 frames"),
        (["--size", 20], "multiple of 8"),
    ],
)
def test_what_only_the_model_knows_is_one_line_too(here, loaded, capsys, words, expected):
    code, _, err = run(capsys, "animate", "photo.png", *PROMPT, *words, "--weights", loaded, *OUT)
    assert code == 2 and err.count("\n") == 1 and expected in err and files(here) == GIVEN


@pytest.mark.parametrize("error, code", [(KeyboardInterrupt(), 130), (OSError(28, "No space left", "x"), 2)])
def test_a_failure_while_writing_leaves_nothing(here, loaded, capsys, monkeypatch, error, code):
    from mi2v_lite.io import images

    def fail(*args):
        raise error

    monkeypatch.setattr(images.os, "replace", fail)
    words = [*PROMPT, "--frames", 2, "--steps", 1, "--weights", loaded]
    got, _, err = run(capsys, "animate", "photo.png", *words, *OUT)
    assert got == code and err.count("\n") == 1 and "Traceback" not in err
    assert files(here) == GIVEN


def test_warnings_are_one_line_each(here, loaded, capsys, monkeypatch):
    def warn(self, *args, **kwargs):
        warnings.warn("first line\n  second line", stacklevel=1)
        raise ValueError("stop\nhere")

    monkeypatch.setattr(MotionI2VPipeline, "__call__", warn)
    before = warnings.showwarning
    code, _, err = run(capsys, "animate", "photo.png", *PROMPT, "--weights", loaded, *OUT)
    assert code == 2 and err == "mi2v: warning: first line second line\nmi2v: error: stop here\n"
    assert warnings.showwarning is before


@pytest.mark.parametrize(
    "size, expected",
    [((640, 427), (192, 128)), ((427, 640), (128, 192)), ((128, 128), (128, 128)), ((9, 9), (128, 128)),
     ((2000, 1000), (256, 128)), ((1000, 999), (128, 128))],
)  # fmt: skip
def test_the_size_of_the_clip(size, expected):
    assert images.fitted(Image.new("RGB", size), 128, 8).size == expected


def test_evaluate(here, loaded, capsys, monkeypatch):
    calls = {}

    def measured(pipe, world, clips, seed, measures, fusions, film, objects, large, large_objects, judge, things):
        assert len(things.sources.things) == 6 and large_objects.size == 512 and large_objects.objects_only
        assert fusions == {} and judge is None and film.clip(0).frames.shape == (16, 128, 128, 3)
        assert objects.objects_only and not world.objects_only and large.size == 512
        calls.update(clips=clips, seed=seed, size=world.clip(0).frames.shape)
        nothing = {"value": float("nan"), "spread": float("nan"), "n": 0}
        return {"anchors.drift_px": {"value": 1.5, "spread": 0.5, "n": clips}, "c": nothing}

    monkeypatch.setattr(evaluation, "evaluate", measured)
    words = ["--clips", 2, "--seed", 5, "--weights", loaded, "-o", "new/report.json"]
    code, out, err = run(capsys, "evaluate", *words)
    assert (code, err) == (0, "") and calls == {"clips": 2, "seed": 5, "size": (16, 128, 128, 3)}
    assert "| anchors.drift_px | 1.500 | 0.500 | 2 | How far anchored points move, in px; less is better. |" in out
    assert "new/report.json" in out
    report = json.loads(Path("new/report.json").read_text())
    assert report["metrics"]["anchors.drift_px"] == {"value": 1.5, "spread": 0.5, "n": 2}
    assert report["metrics"]["c"] == {"value": None, "spread": None, "n": 0}
    assert any("seed 5" in note for note in report["notes"])


def test_evaluate_really(here, loaded, capsys):
    words = ["--clips", 1, "--weights", loaded, "--only", "autoencoders", "stage1"]
    code, out, _ = run(capsys, "evaluate", *words)
    assert code == 0 and "flow_vae.epe_relative" in out and "stage1.epe_relative" in out and files(here) == GIVEN
    assert "film.stage1.epe_relative" in out and "drags." not in out and "whole." not in out


def test_train_hands_on_its_options(here, capsys, monkeypatch):
    from mi2v_lite.training import trainer
    from mi2v_lite.training.curriculum import load_config

    config = LITE
    step = load_config(config).steps[0].name
    calls = []
    monkeypatch.setattr(trainer, "train", lambda *args: calls.append(args) or Path("done"))
    for option in ("--resume", "--restart"):
        code, out, err = run(capsys, "train", config, "--step", step, "--runs", "elsewhere", option)
        assert (code, out, err) == (0, "wrote done\n", "")
    assert [call[1:] for call in calls] == [
        (step, Path("elsewhere"), True, False),
        (step, Path("elsewhere"), False, True),
    ]
    code, out, err = run(capsys, "train", config, "--step", step, "--resume", "--restart")
    assert code == 2 and len(calls) == 2 and "--restart: not allowed with argument --resume" in err


@pytest.mark.parametrize(
    "module, expected",
    [
        (
            "matplotlib.pyplot",
            "the package matplotlib is not installed; install it by: pip install 'mi2v_lite[notebooks]'",
        ),
        (
            "cv2",
            "the package opencv-python-headless is not installed; install it by: pip install opencv-python-headless",
        ),
    ],
)
def test_a_missing_package_is_one_line_that_says_how_to_install_it(capsys, monkeypatch, module, expected):
    from mi2v_lite.cli import doctor

    def lacking(options):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(doctor, "run", lacking)
    assert run(capsys, "doctor") == (2, "", f"mi2v: error: {expected}\n")


def test_doctor(here, capsys):
    code, out, err = run(capsys, "doctor", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    local = torch.__version__.partition("+")  # 2.11.0+cu130: what pip reports may lack the part behind the plus
    assert found["packages"]["torch"].partition("+")[0] == local[0] and found["machine"]["cores"] >= 1
    assert "cpu" in found["torch"]["devices"] and found["video"] == {"write and read MP4": "works"}
    vocabulary = found["weights"]["weights/tokenizer/vocab.json"]
    assert vocabulary.startswith(f"{(ROOT / 'mi2v_lite/weights/tokenizer/vocab.json').stat().st_size} bytes, SHA-256 ")
    code, text, _ = run(capsys, "doctor")
    assert code == 0 and "  torch: " in text and vocabulary in text
    for private in (str(Path.home()), str(ROOT), str(here), os.environ.get("USER") or "\0"):
        assert private == "/" or f"{private}/" not in out + text


def test_doctor_says_what_is_missing(capsys, monkeypatch, tmp_path):
    from importlib import metadata

    from mi2v_lite.cli import doctor

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    def broken(*args):
        raise OSError(f"{Path.home()}/secret: no codec\nmore")

    monkeypatch.setattr(doctor.metadata, "requires", absent)
    monkeypatch.setattr(doctor.metadata, "version", absent)
    monkeypatch.setattr(videos, "write_video", broken)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(doctor, "PACKAGE", tmp_path)
    code, out, _ = run(capsys, "doctor", "--json")
    found = json.loads(out)
    assert code == 0 and found["packages"]["torch"] == "not installed"
    assert "not available" in found["torch"] and "missing" in found["weights"]["weights/lite"]
    assert found["video"] == {"not available": "OSError: ~/secret: no codec"}


def start(*words: object, **kwargs) -> subprocess.Popen:
    command = [sys.executable, "-m", "mi2v_lite.cli", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    own = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C by default
    try:
        return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}, **pipes, **kwargs)
    finally:
        signal.signal(signal.SIGINT, own)


def test_help_does_not_load_torch():
    code = "import sys; from mi2v_lite.cli import main; main(['animate', '--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("False\n") and "EXIF" in done.stdout and done.stderr == ""


def test_control_c_as_a_process(here, weights):
    words = [*PROMPT, "--steps", 1000, "--seed", 1, "--weights", weights]
    process = start("animate", "photo.png", *words, *OUT, cwd=here)
    for line in process.stdout:
        if line.startswith("seed"):  # told when all is loaded and the sampling begins
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    lines = err.splitlines()
    assert process.returncode == 130 and lines[-1] == "mi2v: stopped"
    assert all(line.startswith("mi2v: warning: ") for line in lines[:-1])
    assert files(here) == GIVEN


def test_control_c_that_a_library_takes_for_a_damaged_file(capsys):
    def program():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("the file is damaged") from None

    own = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert cli.guarded(program) == 130 and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, own)
    assert capsys.readouterr().err == "mi2v: stopped\n"


def test_the_course_is_copied_and_nothing_is_overwritten(capsys, tmp_path):
    code, out, _ = run(capsys, "copy-course", str(tmp_path))
    assert code == 0 and "00_start_here.ipynb" in out
    first = tmp_path / "notebooks" / "00_start_here.ipynb"
    assert (
        tmp_path / "data_samples" / "photos" / "flower.jpg"
    ).is_file() and "NotImplementedError" in first.read_text()
    first.write_text("mine")
    (tmp_path / "notebooks" / "symbols.md").unlink()
    code, out, _ = run(capsys, "copy-course", str(tmp_path))
    assert code == 0 and out.startswith("1 files copied") and first.read_text() == "mine"


def test_the_course_for_colab_begins_with_its_installation(capsys, tmp_path):
    assert run(capsys, "copy-course", str(tmp_path), "--install", "git+https://example.org/mi2v")[0] == 0
    for path in (tmp_path / "notebooks").glob("*.ipynb"):
        first = json.loads(path.read_text())["cells"][0]
        assert '%pip install -q "mi2v_lite[notebooks] @ git+https://example.org/mi2v"\n' in first["source"]


def test_an_error_of_the_system_names_the_file_that_was_to_be_written():
    """Not the unfinished one, whose name nobody knows, nor the one that was copied."""
    unfinished = OSError(27, "File too large", "from/a.txt", None, "to/.b.txt.0123abcd.part")
    assert common.reason(unfinished) == "to/b.txt: File too large"


def test_a_reader_that_ends_early_and_a_folder_that_is_gone(tmp_path):
    """Real programs, since both concern the process itself."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from mi2v_lite import cli; "
    code += "cli._run = lambda argv: [print(argv, flush=True) for _ in range(10**6)]; sys.exit(cli.main(['x']))"
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=pipe, stderr=pipe, env=environment, text=True
    ) as program:
        program.stdout.readline()
        program.stdout.close()
        assert program.stderr.read() == ""
    assert program.returncode == 141
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os; os.rmdir({str(gone)!r}); from mi2v_lite import cli; raise SystemExit(cli.main(['doctor']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=gone, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and "the current folder has been removed" in done.stderr
