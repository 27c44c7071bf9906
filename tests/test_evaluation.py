"""The measures give the right numbers for pipelines whose answers are known: the truth, no motion, half of it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mi2v_lite import evaluation
from mi2v_lite.data.world import Clip
from mi2v_lite.evaluation import control, evaluate, motion, parts, table
from mi2v_lite.models.autoencoder import make_vae
from mi2v_lite.training.starts import start_pca

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
        flow = parts.flow_tensor(clip(0)) * self.scale
        if kwargs.get("num_inference_steps") == parts.MANY_STEPS:
            flow = parts.flow_tensor(clip(0)) * (1 + self.scale) / 2
        return SimpleNamespace(flow=flow)

    def render(self, image, motion, prompt="", **kwargs):
        frames = parts.frames_tensor(clip(int(image.sum() != clip(0).frames[0].sum())))
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
    assert value(metrics, "flow_vae.epe_relative") < 0.05
    assert value(metrics, "image_vae.psnr_db") > 40 and value(metrics, "image_vae.world_psnr_db") > 40
    assert value(metrics, "stage1.epe_px") == 0 and value(metrics, "stage1.direction_accuracy") == 1
    for name in (
        "drags.error_px_1",
        "drags.error_px_3",
        "drags.error_px_10",
        "drags.error_relative",
        "drags.epe_moving_px",
    ):
        assert value(metrics, name) == pytest.approx(0, abs=1e-4)
    assert value(metrics, "anchors.drift_px") == 0 and value(metrics, "brush.leakage_px") == 0
    assert value(metrics, "stage2.psnr_large_motion_db") == np.inf or metrics["stage2.psnr_large_motion_db"]["n"] == 0


def test_no_motion_scores_one(world):
    metrics = evaluate(Pipe(scale=0.0), world, clips=2, measures=("autoencoders", "stage1", "drags"))
    assert value(metrics, "stage1.epe_relative") == pytest.approx(1)
    assert value(metrics, "drags.error_relative") == pytest.approx(1)
    assert value(metrics, "stage1.direction_accuracy") == 0
    assert metrics["drags.error_px_1"]["n"] == 2 and value(metrics, "drags.error_px_1") == pytest.approx(12)


def test_opposite_motion_points_the_wrong_way(world):
    metrics = evaluate(Pipe(scale=-1.0), world, clips=1, measures=("autoencoders", "stage1"))
    assert value(metrics, "stage1.direction_accuracy") == 0 and value(metrics, "stage1.epe_relative") == pytest.approx(
        2
    )


def test_ten_steps_over_fifty(world):
    """At half of the motion in few steps and three quarters in 50, the error is twice as large."""
    metrics = evaluate(Pipe(scale=0.5), world, clips=2, measures=("stage1", "stage1_steps"))
    assert value(metrics, "stage1.epe_10_over_50_steps") == pytest.approx(2)
    assert "stage1.epe_50_steps_px" not in metrics


def test_drags_are_asked_without_caption_at_the_stride_of_the_clip(world):
    pipe = Pipe()
    control.drags(pipe, clip(0), 0)
    assert [len(asked.drags) for _, asked, _ in pipe.asked] == [1, 1, 3, 10]
    assert [options.get("hold_control") for _, _, options in pipe.asked] == [None, False, None, None]
    control.network_drags(pipe, clip(0), 0)
    assert [(len(c.drags), o["hold_control"]) for _, c, o in pipe.asked[4:]] == [(3, False), (10, False)]
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


def test_tracks_and_pokes_of_half_the_motion(world):
    """Half of 4, 8, 12 px is missing: 2, 4, 6 px, 4 on average, on the square's 24 x 24 of 64 x 64 pixels."""
    drawn = control.true_drags(clip(0), 3, seed=0)
    half = parts.flow_tensor(clip(0))[0] / 2
    assert control.objmc(clip(0), half, drawn[:1]) == pytest.approx(4)
    metrics = evaluate(Pipe(scale=0.5), world, clips=1, measures=("autoencoders", "drags", "network_drags"))
    for name in ("poke.epe_px_1", "poke.epe_px_10", "poke.epe_px_3_network"):
        assert value(metrics, name) == pytest.approx(4 * 24**2 / SIZE**2)
    assert value(metrics, "poke.epe_relative_3") == pytest.approx(0.5)
    assert value(metrics, "drags.objmc_px_1") == pytest.approx(4) and value(metrics, "drags.error_px_1") == 6


def test_the_best_of_four_samples_and_their_spread():
    class Unsure(Pipe):
        def predict_motion(self, image, prompt, control=None, **kwargs):
            self.scale = len(self.asked) / 2  # 0, 0.5, 1, 1.5 of the truth
            return super().predict_motion(image, prompt, control, **kwargs)

    pipe = Unsure()
    numbers = motion.stage1_samples(pipe, clip(0), 5)
    mean = np.linalg.norm(clip(0).flow, axis=1).mean()
    assert numbers["stage1.epe_min_of_4_px"] == 0
    assert numbers["stage1.epe_mean_of_4_px"] == pytest.approx(0.5 * mean)
    assert numbers["stage1.spread_of_4_px"] == pytest.approx(0.5 * mean)
    seeds = [kwargs["generator"].initial_seed() for _, _, kwargs in pipe.asked]
    assert len(set(seeds)) == 4 and seeds[0] == 5


def test_control_scales_are_those_of_the_network_alone():
    pipe = Pipe(scale=0.0)
    numbers = motion.control_scales(pipe, clip(0), 0)
    assert {name: round(found) for name, found in numbers.items()} == {
        f"drags.error_px_scale_{scale}": 12 for scale in ("0", "0.5", "1")
    }
    asked = [(kwargs["control_scale"], kwargs["hold_control"]) for _, _, kwargs in pipe.asked]
    assert asked == [(0.0, False), (0.5, False), (1.0, False)]


def test_film_and_judges_have_names_of_their_own(world):
    metrics = evaluate(
        Pipe(),
        world,
        clips=2,
        measures=("autoencoders", "stage1", "brush"),
        film=world,
        objects=world,
        judges=[lambda frames, photo, prompt: {"beauty": 7.0}],
    )
    assert metrics["film.motion_px"] == metrics["world.motion_px"]
    assert metrics["film.image_vae.psnr_db"] == metrics["image_vae.world_psnr_db"]
    assert "film.stage1.epe_relative" in metrics and not any(name.startswith("film.brush") for name in metrics)
    assert metrics["objects.stage1.epe_px"] == metrics["stage1.epe_px"]
    assert not any(name.startswith("objects.") and "stage1" not in name and "mean" not in name for name in metrics)
    assert metrics["whole.beauty"] == {"value": 7.0, "spread": 0.0, "n": 2}


def test_the_mean_training_motion(tmp_path):
    from mi2v_lite.data.store import ClipStore, write_store
    from mi2v_lite.evaluation import mean_flow

    write_store(tmp_path / "store", [clip(0), clip(1)], 2)
    output = tmp_path / "mean.npz"
    mean_flow.main([str(tmp_path / "store"), "-o", str(output)])
    assert set(mean_flow.mean_flows(ClipStore(tmp_path / "store"))) == {8}
    mean = mean_flow.training_mean(8, 3, (SIZE, SIZE), output)
    assert mean.shape == (3, 2, SIZE, SIZE) and mean[2, 0, 32, 20] == pytest.approx(12, abs=0.05)
    assert mean_flow.training_mean(8, 3, (32, 128), output)[2, 0, 16, 40] == pytest.approx(24, abs=0.1)
    assert mean_flow.training_mean(4, 3, (SIZE, SIZE), output) is None
    shipped = mean_flow.training_mean(8, 15, (128, 128))
    assert 0 < shipped.norm(dim=1).mean() < 3, "all ways are as likely: the mean is near zero"


def test_ratios_are_of_means():
    assert table.share([1, 3], [1, 9])["value"] == pytest.approx(0.4)
    assert table.summary([1.0, float("nan"), 3.0]) == {"value": 2.0, "spread": 1.0, "n": 2}


def test_unknown_measures_are_refused(world):
    with pytest.raises(ValueError, match="unknown measures"):
        evaluate(Pipe(), world, measures=("beauty",))
