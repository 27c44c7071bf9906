"""Styles, the alignment of a first frame, windows, and video-to-video with a pipeline whose answer is known."""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mi2v_lite.data.samples import SAMPLES, heldout_world
from mi2v_lite.evaluation import video as measured
from mi2v_lite.flow.files import write_npz
from mi2v_lite.flow.trackers import FieldFile
from mi2v_lite.flow.tracking import Tracks
from mi2v_lite.flow.warp import splat_average
from mi2v_lite.io.pixels import frames_tensor, image_tensor
from mi2v_lite.models.autoencoder import make_vae
from mi2v_lite.pipelines.animation import AnimationOutput
from mi2v_lite.pipelines.restyle import STYLES, alignment, diffuse, restyle, warn_of_misalignment
from mi2v_lite.pipelines.video import video_to_video, windows


@pytest.fixture(scope="module")
def photo():
    return Image.open(SAMPLES / "photos" / "coffee.jpg").convert("RGB").resize((120, 80))


@pytest.fixture(scope="module")
def flower():
    return Image.open(SAMPLES / "photos" / "flower.jpg").convert("RGB").resize((96, 64))


def array(image):
    return np.asarray(image).astype(float)


def test_styles_are_what_they_say(photo, flower):
    posterised = restyle(photo, "posterise")
    assert len(np.unique(np.asarray(posterised).reshape(-1, 3), axis=0)) <= 8
    drawn = array(restyle(photo, "sketch"))
    assert (drawn[..., 0] == drawn[..., 2]).all() and drawn.mean() > 200, "grey pencil on white paper"
    oil = array(restyle(photo, "oil"))
    assert np.abs(np.diff(oil, axis=1)).mean() < 0.7 * np.abs(np.diff(array(photo), axis=1)).mean(), "flat areas"
    coloured = array(restyle(photo, "colours", flower))
    far = np.abs(array(photo).mean((0, 1)) - array(flower).mean((0, 1))).max()
    assert np.abs(coloured.mean((0, 1)) - array(flower).mean((0, 1))).max() < far / 2


@pytest.mark.parametrize("style", STYLES)
def test_styles_keep_size_and_repeat(photo, style):
    once, again, other = (restyle(photo, style, seed=seed) for seed in (3, 3, 4))
    assert once.size == photo.size and once.mode == "RGB"
    assert np.array_equal(array(once), array(again))
    assert style != "strokes" or not np.array_equal(array(once), array(other))


def test_a_wrong_style_is_refused(photo, flower):
    with pytest.raises(ValueError, match="'cubist' is unknown; there are posterise"):
        restyle(photo, "cubist")
    for style, image in (("colours", None), ("oil", flower)):
        with pytest.raises(ValueError, match="style image"):
            restyle(photo, style, image)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("shift", [(0, 0), (5, -4), (-9, 7)])
def test_the_shift_is_measured(photo, style, shift):
    moved = Image.fromarray(np.roll(np.asarray(restyle(photo, style)), shift, axis=(1, 0)))
    found = alignment(moved, photo)
    assert np.abs(np.subtract(found.shift, shift)).max() < 1.0 and found.same_size


def test_misalignment_is_warned_of(photo, flower):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_misalignment(restyle(photo, "oil"), photo)
    moved = Image.fromarray(np.roll(np.asarray(photo), (6, 0), axis=(1, 0)))
    with pytest.warns(UserWarning, match=r"lies \+[56]\.\d px \(x\)"):
        warn_of_misalignment(moved, photo)
    with pytest.warns(UserWarning, match="60x40 px where the source has 120x80"):
        warn_of_misalignment(photo.resize((60, 40)), photo)
    with pytest.warns(UserWarning, match="no edges in common|lies"):
        warn_of_misalignment(flower.resize(photo.size), photo)


def test_diffusion_runs_from_a_folder_on_disk(tmp_path, photo):
    from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline, UNet2DConditionModel

    from mi2v_lite.models.text import build_tokenizer, make_text_encoder

    torch.manual_seed(0)
    tokenizer = build_tokenizer(tmp_path / "tokens", ["oil", "painting"])
    text = {"vocab_size": len(tokenizer), "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    vae = make_vae({"block_out_channels": [8] * 4, "norm_num_groups": 4, "layers_per_block": 1, "latent_channels": 4})
    StableDiffusionImg2ImgPipeline(
        vae=vae,
        text_encoder=make_text_encoder({**text, "num_attention_heads": 2}),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(tmp_path / "sd")
    one, two = (diffuse(photo, "oil painting", tmp_path / "sd", seed=1, num_inference_steps=4) for _ in range(2))
    assert one.size == photo.size and np.array_equal(array(one), array(two))
    with pytest.raises(ValueError, match="holds no Stable Diffusion"):
        diffuse(photo, "oil", tmp_path / "tokens")


def test_windows_share_one_frame():
    assert windows(16) == [(0, 15)]
    assert windows(17) == [(0, 15), (15, 16)]
    assert windows(31) == [(0, 15), (15, 30)]
    assert windows(10, 4) == [(0, 3), (3, 6), (6, 9)]
    for wrong in ((1, 16), (16, 1)):
        with pytest.raises(ValueError, match="2 frames"):
            windows(*wrong)


class Splat:
    """Instead of Stage 2: the photo splatted along the flow. Each rendering makes it darker by 0.1 after frame 0."""

    def __init__(self):
        self.vae = make_vae({"block_out_channels": [8] * 4, "norm_num_groups": 4, "layers_per_block": 1})
        self.photos = []
        self.config = SimpleNamespace(detail="none", working_size=None)

    def render(self, image, motion, prompt="", output_type="pt", **_):
        photo = image_tensor(image)
        self.photos.append(photo)
        frames = [splat_average(photo, flow[None])[0] - 0.1 for flow in motion[0]]
        return AnimationOutput(frames=torch.stack([photo, *frames], 1).clamp(-1, 1))

    def video_to_video(self, video, first_frame, prompt="", **options):
        return video_to_video(self, video, first_frame, prompt, **options)


def still(frames):
    """A tracker that finds no motion."""
    shape = (len(frames) - 1, *frames.shape[1:3])
    return Tracks(torch.zeros(shape[0], 2, *shape[1:]), torch.ones(shape, dtype=torch.bool))


@pytest.fixture
def clip(photo):
    return np.stack([np.asarray(photo)] * 10)


def test_each_window_starts_from_the_last_rendered_frame(clip, photo):
    pipe = Splat()
    made = video_to_video(pipe, clip, photo, tracker=still, window=4, output_type="pt")
    assert made.frames.shape == (1, 10, 3, 80, 120) and made.starts == [0, 3, 6] and len(made.tracks) == 3
    torch.testing.assert_close(pipe.photos[1], made.frames[:, 3])
    torch.testing.assert_close(pipe.photos[2], made.frames[:, 6])
    darker = (made.frames[0, 0] - made.frames[0]).flatten(1).median(1).values
    torch.testing.assert_close(darker[[0, 1, 3, 4, 9]], torch.tensor([0.0, 0.1, 0.1, 0.2, 0.3]))
    assert len(video_to_video(pipe, clip, photo, tracker=still).frames[0]) == 10


def test_what_does_not_fit_is_refused(clip, photo, flower, tmp_path):
    pipe = Splat()
    with pytest.raises(ValueError, match="110x80 px; its sides must be multiples of 8"):
        video_to_video(pipe, clip[:, :, :110], photo)
    with pytest.raises(ValueError, match="motion needs at least two"):
        video_to_video(pipe, clip[:1], photo)
    cut = np.concatenate([clip[:4], np.stack([np.asarray(flower.resize(photo.size))] * 4)])
    with pytest.raises(ValueError, match="cuts to another scene at frame 4"):
        video_to_video(pipe, cut, photo)
    write_npz(tmp_path / "f.npz", torch.zeros(9, 2, 80, 120))
    with pytest.raises(ValueError, match="drives one window of 4 frames; the clip has 10"):
        video_to_video(pipe, clip, photo, tracker=FieldFile(tmp_path / "f.npz"), window=4)
    with pytest.raises(ValueError, match="one picture, got 2"):
        video_to_video(pipe, clip, [photo, photo])
    assert not pipe.photos, "refused before any rendering"


@pytest.fixture(scope="module")
def world_clip():
    return heldout_world().clip(2)


def test_tracking_is_measured_against_the_truth(world_clip):
    true = Tracks(torch.from_numpy(world_clip.flow), torch.from_numpy(world_clip.visibility))
    exact = measured.tracking(None, world_clip, 0, tracker=lambda _: true)
    assert exact["tracking.epe_large_px"] == 0
    found = measured.tracking(None, world_clip, 0)
    assert 0 < found["tracking.epe_large_px"] < 4, "half of what no motion would err at least"


def test_warp_error_sees_flicker_and_drift():
    tracks = still(np.zeros((5, 16, 16, 3), np.uint8))
    steady = torch.rand(1, 3, 16, 16).expand(5, 3, 16, 16) - 0.5
    assert measured.warp_error(steady, tracks) == (0, 0)
    step = 2 / 255  # one level
    slow = steady + step * torch.arange(5.0).view(5, 1, 1, 1)
    assert measured.warp_error(slow, tracks) == pytest.approx((1, 2.5), abs=1e-3)
    flicker = steady + step * torch.tensor([0.0, 1, 0, 1, 0]).view(5, 1, 1, 1)
    assert measured.warp_error(flicker, tracks) == pytest.approx((1, 0.5), abs=1e-3)


def test_warp_error_follows_the_tracks_and_leaves_out_what_is_hidden(world_clip):
    frames = frames_tensor(world_clip.frames)
    true = Tracks(torch.from_numpy(world_clip.flow), torch.from_numpy(world_clip.visibility))
    unmoved = Tracks(torch.zeros_like(true.flow), true.visibility)
    everything = Tracks(true.flow, torch.ones_like(true.visibility))
    assert measured.warp_error(frames, true)[1] < 0.3 * measured.warp_error(frames, unmoved)[1]
    assert measured.warp_error(frames, true)[1] < measured.warp_error(frames, everything)[1]


def test_a_perfect_renderer_flickers_less_than_painting_anew(world_clip):
    assert measured.video(Splat(), world_clip, 0)["video.same_motion_warp_error_ratio"] > 2


class Frozen(Splat):
    """A renderer that repeats its photo."""

    def render(self, photo, flow, **options):
        made = super().render(photo, flow, **options)
        made.frames[:] = made.frames[:, :1]
        return made


def test_where_nothing_moves_counts_as_the_same_motion_only_where_the_source_rests(world_clip):
    tracks = Tracks(torch.from_numpy(world_clip.flow), torch.from_numpy(world_clip.visibility))
    same = measured.same_motion(torch.zeros_like(tracks.flow), tracks)
    assert torch.equal(same, tracks.visibility & (tracks.flow.norm(dim=1) <= 0.5))


def test_a_still_output_of_a_moving_source_is_not_measured(world_clip):
    moving = replace(world_clip, flow=world_clip.flow + 20)
    assert measured.video(Frozen(), moving, 0) == {}
