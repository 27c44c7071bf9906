"""The measures give the right numbers for pipelines whose answers are known: the truth, no motion, half of it."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel

from mi2v_lite import evaluation
from mi2v_lite.data.clips import Clip
from mi2v_lite.data.samples import heldout_scenes
from mi2v_lite.evaluation import FIGURES, control, evaluate, judges, scenes, sheets, stages, table
from mi2v_lite.evaluation.video import displacement
from mi2v_lite.io.pixels import frames_tensor
from mi2v_lite.models.autoencoder import make_vae
from mi2v_lite.models.text import build_tokenizer
from mi2v_lite.training.starts import start_pca
from tools import mean_flow

SIZE, FRAMES = 64, 4


def clip(seed: int) -> Clip:
    """A textured background that stays, and a square that moves 12 px to the right over three frames."""
    random = np.random.default_rng(seed)
    still = random.integers(60, 196, (SIZE, SIZE, 3), np.uint8)
    thing = random.integers(0, 256, (24, 24, 3), np.uint8)
    frames = np.stack([still] * FRAMES)
    flow = np.zeros((FRAMES - 1, 2, SIZE, SIZE), np.float32)
    for i in range(FRAMES):
        frames[i, 20:44, 8 + 4 * i : 32 + 4 * i] = thing
        if i:
            flow[i - 1, 0, 20:44, 8:32] = 4 * i
    seen = np.ones((FRAMES - 1, SIZE, SIZE), bool)
    return Clip(frames, flow, seen, "a square drifts right", 8)


class Pipe:
    """Predicts a multiple of the truth and renders the true frames; both autoencoders are nearly perfect."""

    def __init__(self, scale: float = 1.0):
        self.scale, self.asked = scale, []
        common = {"patch_size": 4, "block_out_channels": [8], "layers_per_block": 1, "norm_num_groups": 4}
        self.vae = start_pca(make_vae({**common, "latent_channels": 48}), [torch.randn(4, 3, 64, 64)])
        field = {**common, "in_channels": 2, "out_channels": 2, "latent_channels": 32, "data_mean": 0.5}
        self.flow_vae = start_pca(make_vae(field), [torch.rand(4, 2, 64, 64)])
        self.animation_unet = "own"

    def register_modules(self, animation_unet):
        self.animation_unet = animation_unet

    def predict_motion(self, image, prompt, control=None, **kwargs):
        self.asked.append((prompt, control, kwargs))
        return SimpleNamespace(flow=stages.flow_tensor(clip(0)) * self.scale)

    def render(self, image, motion, prompt="", **kwargs):
        frames = frames_tensor(clip(int(image.sum() != clip(0).frames[0].sum())).frames)
        if self.animation_unet == "blank":
            frames = torch.zeros_like(frames)
        if kwargs.get("output_type") == "np":
            return SimpleNamespace(frames=((frames + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()[None])
        return SimpleNamespace(frames=frames[None])


@pytest.fixture(scope="module")
def world():
    return SimpleNamespace(clip=lambda seed: clip(0))


def value(metrics: dict, name: str) -> float:
    return metrics[name]["value"]


def test_a_perfect_pipeline_has_perfect_numbers(world):
    here = [name for name in table.MEASURES if name not in ("tracking", "video")]  # those need clips of full size
    metrics = evaluate(Pipe(), world, clips=2, measures=here)
    assert list(metrics) == [name for name in FIGURES if name in metrics], "in the order of FIGURES, and nothing else"
    assert value(metrics, "flow_vae.epe_relative") < 0.05 and value(metrics, "image_vae.psnr_db") > 40
    assert value(metrics, "stage1.epe_relative") == 0 and value(metrics, "stage1.epe_over_training_mean") == 0
    assert value(metrics, "stage1.direction_accuracy") == 1 and value(metrics, "stage1.followed") == pytest.approx(1)
    for count in (1, 3, 10):
        assert value(metrics, f"drags.error_px_{count}") == pytest.approx(0, abs=1e-4)
        assert value(metrics, f"drags.error_px_{count}_network") == pytest.approx(0, abs=1e-4)
    for name in ("drags.epe_moving_px", "anchors.drift_px", "brush.leakage_px"):
        assert value(metrics, name) == 0
    assert metrics["stage2.psnr_gap_db"]["n"] == 0, "the truth is infinitely far above any autoencoder"


def test_no_motion_scores_one(world):
    metrics = evaluate(Pipe(scale=0.0), world, clips=2, measures=("stage1", "drags"))
    assert value(metrics, "stage1.epe_relative") == pytest.approx(1)
    assert value(metrics, "drags.epe_moving_px") == pytest.approx(12)
    assert value(metrics, "stage1.direction_accuracy") == 0
    assert metrics["drags.error_px_1"]["n"] == 2 and value(metrics, "drags.error_px_1") == pytest.approx(12)


def test_opposite_motion_points_the_wrong_way(world):
    metrics = evaluate(Pipe(scale=-1.0), world, clips=1, measures=("stage1",))
    assert value(metrics, "stage1.direction_accuracy") == 0 and value(metrics, "stage1.followed") == pytest.approx(-1)
    assert value(metrics, "stage1.epe_relative") == pytest.approx(2)


def test_drags_are_asked_without_caption_at_the_stride_of_the_clip(world):
    pipe = Pipe()
    control.drags(pipe, clip(0), 0)
    assert [len(asked.drags) for _, asked, _ in pipe.asked] == [1, 1, 3, 10]
    assert [options.get("hold_control") for _, _, options in pipe.asked] == [None, False, None, None]
    control.network_drags(pipe, clip(0), 0)
    assert [(len(c.drags), o["hold_control"]) for _, c, o in pipe.asked[4:]] == [(3, False), (10, False)]
    assert all(asked.size == (SIZE, SIZE) for _, asked, _ in pipe.asked)
    assert all(prompt == "" and kwargs["stride"] == 8 for prompt, _, kwargs in pipe.asked)


def test_drags_are_tracks_apart_from_each_other():
    drawn = control.true_drags(clip(0), 10, seed=3)
    starts = np.array([drag.points[0] for drag in drawn])
    apart = np.linalg.norm(starts[:, None] - starts[None], axis=-1) + 1e9 * np.eye(len(starts))
    assert len(drawn) == 10 and apart.min() > SIZE / 16
    for drag in drawn:
        x, y = (int(v) for v in drag.points[0])
        moved = np.array(drag.points[-1]) - drag.points[0]
        assert np.allclose(moved, clip(0).flow[-1, :, y, x])


def test_the_ablation_puts_the_pipeline_back(world):
    pipe = Pipe()
    fusions = {"none": "blank", "attention": "own"}
    metrics = evaluate(pipe, world, clips=1, measures=(), fusions=fusions)
    assert pipe.animation_unet == "own"
    assert "ablation.none.psnr_large_motion_db" not in metrics, "nothing moves more than 12 px here"


def test_clips_of_the_ablation_stand_beside_the_truth(world):
    pipe = Pipe()
    sheet = evaluation.fusion_clips(pipe, world, {"none": "blank", "attention": "own"}, clips=2, count=2)
    assert sheet.dtype == np.uint8 and sheet.shape == (FRAMES, 2 * SIZE + 4, 3 * SIZE + 8, 3)
    truth, blank, own = (sheet[:, :SIZE, i * (SIZE + 4) : i * (SIZE + 4) + SIZE] for i in range(3))
    assert np.array_equal(truth, clip(0).frames) and np.array_equal(own, truth) and (blank == 128).all()
    assert (sheet[:, SIZE : SIZE + 4] == 255).all() and pipe.animation_unet == "own"


def test_half_the_motion_is_half_the_error(world):
    metrics = evaluate(Pipe(scale=0.5), world, clips=1, measures=("stage1", "drags"))
    assert value(metrics, "stage1.epe_relative") == value(metrics, "stage1.followed") == pytest.approx(0.5)
    assert value(metrics, "drags.error_px_1") == value(metrics, "drags.epe_moving_px") == pytest.approx(6)


def test_other_sources_and_the_judge_have_names_of_their_own(world):
    def judge(frames, prompt):
        assert frames.shape == (FRAMES, 3, SIZE, SIZE) and prompt == "a square drifts right"
        return {"whole.beauty": 7.0}

    metrics = evaluate(Pipe(), world, clips=2, measures=("stage1", "brush"), film=world, objects=world, judge=judge)
    assert metrics["film.stage1.epe_relative"] == metrics["stage1.epe_relative"]
    assert metrics["objects.stage1.followed"] == metrics["stage1.followed"]
    assert not any(name.startswith(("film.brush", "objects.brush")) for name in metrics)
    assert metrics["whole.beauty"] == {"value": 7.0, "spread": 0.0, "n": 2}
    assert 0 < value(metrics, "whole.average_displacement_px") < 12


def test_the_mean_training_motion(tmp_path):
    from mi2v_lite.data.store import ClipStore, write_store

    write_store(tmp_path / "store", [clip(0), clip(1)], 2)
    output = tmp_path / "mean.npz"
    mean_flow.main([str(tmp_path / "store"), "-o", str(output)])
    assert set(mean_flow.mean_flows(ClipStore(tmp_path / "store"))) == {8}
    mean = stages.training_mean(8, 3, (SIZE, SIZE), output)
    assert mean.shape == (3, 2, SIZE, SIZE) and mean[2, 0, 32, 20] == pytest.approx(12, abs=0.05)
    assert stages.training_mean(8, 3, (32, 128), output)[2, 0, 16, 40] == pytest.approx(24, abs=0.1)
    assert stages.training_mean(4, 3, (SIZE, SIZE), output) is None
    shipped = stages.training_mean(8, 15, (128, 128))
    assert 0 < shipped.norm(dim=1).mean() < 3, "all ways are as likely: the mean is near zero"


def test_ratios_are_of_means():
    assert table.summary([(1, 1), (3, 9)])["value"] == pytest.approx(0.4)
    assert table.summary([(1, 2), (1, 4), (9, 0.5)])["spread"] == pytest.approx(0.125)
    assert table.summary([1.0, float("nan"), 3.0]) == {"value": 2.0, "spread": 1.0, "n": 2}


def test_unknown_measures_are_refused(world):
    with pytest.raises(ValueError, match="no measure called beauty"):
        evaluate(Pipe(), world, measures=("beauty",))


def test_the_shipped_report_holds_the_figures_of_the_table():
    report = json.loads((stages.MEAN_FLOW.parent / "report.json").read_text())
    assert list(report["metrics"]) == [name for name in FIGURES if not name.startswith("whole.")]


def test_consistency_is_the_cosine_of_neighbours():
    features = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    assert judges.consistency(features) == pytest.approx(0.5)


def test_clip_judges_from_a_local_folder(tmp_path):
    """A tiny network with random weights, in the files in which the real one comes."""
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = small | {"patch_size": 32, "image_size": 224}
    text = small | {"vocab_size": 3000, "max_position_embeddings": 32}
    CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=16)).save_pretrained(tmp_path / "clip")
    build_tokenizer(tmp_path / "clip", ["red"])
    judge = judges.ClipJudge(tmp_path / "clip")
    frames = frames_tensor(clip(0).frames)
    still = judge(frames[:1].expand_as(frames), "a square")
    other = judge(frames.flip(1) * torch.linspace(-1, 1, FRAMES).view(-1, 1, 1, 1), "a square")
    assert still["whole.consistency_clip"] == pytest.approx(1, abs=1e-4) and other["whole.consistency_clip"] < 0.999
    assert -100 <= still["whole.prompt_clip"] <= 100
    with pytest.raises(ValueError, match="holds no CLIP model"):
        judges.ClipJudge(tmp_path)


def test_displacement_is_that_of_the_pixels():
    coarse = torch.rand(1, 3, 10, 10, generator=torch.Generator().manual_seed(0)) * 2 - 1
    photo = torch.nn.functional.interpolate(coarse, (80, 80), mode="bicubic").clamp(-1, 1)
    frames = torch.cat([photo.roll(2 * i, -1) for i in range(4)])  # 2, 4, 6 px to the right
    assert displacement(photo.expand(4, -1, -1, -1)) < 0.1
    assert displacement(frames) == pytest.approx(4, rel=0.25)


def test_sheets_of_prompts_and_drags(monkeypatch):
    class Still:
        def predict_motion(self, image, prompt, control=None, **kwargs):
            assert (control is None) == bool(prompt)
            return SimpleNamespace(flow=torch.ones(1, 3, 2, *np.asarray(image).shape[:2]))

        def render(self, image, motion, prompt, **kwargs):
            return SimpleNamespace(frames=np.stack([np.asarray(image)] * FRAMES)[None])

    monkeypatch.setattr(sheets, "SHOWN", (1, 2, 3))
    pages = [sheets.prompt_sheet(Still(), SimpleNamespace(clip=clip)), sheets.drag_sheet(Still())]
    assert [isinstance(page, Image.Image) for page in pages] == [True, True]
    assert pages[0].width > 7 * SIZE and pages[1].height > 12 * 128


class _Knows:
    """A pipeline whose Stage 1 predicts a given field."""

    def __init__(self, flow: torch.Tensor):
        self.flow = flow

    def predict_motion(self, *_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(flow=self.flow)


def test_each_thing_of_a_scene_is_judged_by_itself() -> None:
    world = heldout_scenes()
    seed, scene = next(scenes.resting_scenes(world, 1, 0))
    right = scenes.prompts(_Knows(scene.flow), scene, seed)
    assert right == pytest.approx(
        {"prompts.direction_accuracy": 1, "prompts.followed": 1, "prompts.others_rest": 1}, abs=1e-4
    )
    nothing = scenes.prompts(_Knows(0 * scene.flow), scene, seed)
    assert nothing["prompts.direction_accuracy"] == nothing["prompts.followed"] == 0
    assert nothing["prompts.others_rest"] == 1
    all_of_it = scenes.prompts(_Knows(0 * scene.flow + 30), scene, seed)
    assert all_of_it["prompts.others_rest"] == 0
    assert scenes.thing_drags(_Knows(scene.flow), scene, seed)["drags.thing_epe_px_network"] == pytest.approx(
        0, abs=1e-4
    )
    assert scenes.thing_drags(_Knows(scene.flow + 3), scene, seed)["drags.thing_epe_px_network"] == pytest.approx(
        18**0.5
    )


def test_a_dragged_thing_of_a_photo_follows_as_far_as_it_is_near_its_goal() -> None:
    world, side = heldout_scenes(), 128
    assert len(world.sources.things) == 6
    flow = torch.zeros(1, 15, 2, side, side)
    flow[:, :, 0] = (
        20.0  # everything goes to the right: the one drag to the right is obeyed, those to other sides are not
    )
    shares = [scenes.photo_drags(_Knows(flow), world, number, 0) for number in range(6)]
    assert all(0.2 < share["photos.follows"] <= 1 / 2 for share in shares)


def test_things_of_photos_are_found_where_their_outlines_are() -> None:
    found = [scenes.photo_outlines(heldout_scenes(), number, 0) for number in (0, 1)]
    assert all(0 <= likeness <= 1 for numbers in found for likeness in numbers.values())
    assert np.mean([numbers["photos.iou_click_box"] for numbers in found]) > 0.6
