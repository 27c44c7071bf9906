"""How rendered clips look: SSIM, regions, flicker, judges, where the answer is known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel

from mi2v_lite.data.source import Clip
from mi2v_lite.evaluation import appearance, networks, parts
from mi2v_lite.flow.similarity import ssim, ssim_map
from tools.vocabulary import build_tokenizer

SIZE, FRAMES = 64, 5


def noise_blocks(random: np.random.Generator, side: int) -> np.ndarray:
    return np.kron(random.integers(30, 226, (side // 4, side // 4, 3)), np.ones((4, 4, 1))).astype(np.uint8)


@pytest.fixture(scope="module")
def clip() -> Clip:
    """A background that stays and a square that moves 20 px to the right."""
    random = np.random.default_rng(0)
    frames = np.stack([noise_blocks(random, SIZE)] * FRAMES)
    thing = noise_blocks(random, 24)
    flow = np.zeros((FRAMES - 1, 2, SIZE, SIZE), np.float32)
    seen = np.ones((FRAMES - 1, SIZE, SIZE), bool)
    for i in range(FRAMES):
        frames[i, 20:44, 4 + 5 * i : 28 + 5 * i] = thing
        if i:
            flow[i - 1, 0, 20:44, 4:28] = 5 * i
            seen[i - 1, 20:44, 28 : 28 + 5 * i] = False
    return Clip(frames, flow, seen, "a square drifts right", 8)


def test_ssim_of_known_pictures():
    picture = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert ssim(picture, picture).item() == pytest.approx(1)
    flat = torch.full((1, 1, 32, 32), 0.5)
    # Without structure only the means count: (2ab + c1) / (a^2 + b^2 + c1).
    expected = (2 * 0.5 * 0.25 + 1e-4) / (0.5**2 + 0.25**2 + 1e-4)
    assert ssim(flat, flat / 2).item() == pytest.approx(expected, abs=1e-5)
    assert ssim(picture, 1 - picture).item() < -0.5, "a negative has the opposite structure"
    assert torch.allclose(ssim_map(picture, picture**2), ssim_map(picture * 255, picture**2 * 255, max=255), atol=1e-4)
    half = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    assert ssim(picture, picture, half).isnan()
    with pytest.raises(ValueError, match="11 pixels at least"):
        ssim_map(flat[..., :8], flat[..., :8])


def test_a_window_reaches_five_pixels():
    a = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(1))
    b = a.clone()
    b[0, 0, 20, 20] += 0.5
    changed = (ssim_map(a, b) < 1 - 1e-5)[0, 0]
    assert changed[20, 15] and changed[25, 20] and not changed[:, :15].any() and not changed[26:].any()


def test_the_truth_has_no_error_in_any_region(clip):
    frames = parts.frames_tensor(clip)
    numbers = appearance.regions(clip, frames, frames)
    kept = {"visible.small", "visible.medium", "visible.large", "disoccluded.medium"}
    assert kept <= {key.removeprefix("stage2.").rpartition(".")[0] for key in numbers}
    assert all(value == np.inf for key, value in numbers.items() if key.endswith("psnr_db"))
    assert all(value == pytest.approx(1, abs=1e-4) for key, value in numbers.items() if key.endswith(".ssim"))
    assert all(value < 4 for key, value in numbers.items() if key.endswith("warp_error_levels"))


def test_errors_are_found_in_their_region(clip):
    """The moving square is painted 40 levels too bright: only pixels that moved know of it."""
    frames = parts.frames_tensor(clip)
    rendered = frames.clone()
    for i in range(FRAMES):
        rendered[i, :, 20:44, 4 + 5 * i : 28 + 5 * i] += 40 / 127.5
    numbers = appearance.regions(clip, rendered, frames)
    expected = 20 * np.log10(255 / 40)
    assert numbers["stage2.visible.large.psnr_db"] == pytest.approx(expected, abs=0.01)
    assert numbers["stage2.visible.medium.psnr_db"] == pytest.approx(expected, abs=0.01)
    assert numbers["stage2.visible.small.psnr_db"] == numbers["stage2.disoccluded.medium.psnr_db"] == np.inf
    rendered = frames.clone()
    rendered[2::2] += 20 / 127.5  # every second frame: what is still changes from frame to frame
    numbers = appearance.regions(clip, rendered, frames)
    assert numbers["stage2.visible.small.warp_error_levels"] == pytest.approx(20, abs=2)


def test_flicker_and_displacement(clip):
    frames = parts.frames_tensor(clip)
    numbers = appearance.over_time(clip, frames, frames)
    assert numbers["stage2.flicker_levels"] == 0 and numbers["stage2.first_frame_photo_db"] == 99
    moved = np.linalg.norm(clip.flow, axis=1).mean()
    assert numbers["stage2.average_displacement_px"] == pytest.approx(moved, rel=0.35)
    frozen = frames[:1].expand_as(frames)
    shaken = frozen + torch.tensor([0, 1, 0, 1, 0]).view(-1, 1, 1, 1) * 10 / 127.5
    numbers = appearance.over_time(clip, shaken, frames)
    assert numbers["stage2.flicker_levels"] == pytest.approx(10, abs=0.01)
    assert numbers["stage2.average_displacement_px"] < 0.1 < numbers["stage2.true_average_displacement_px"]


class Pipe:
    """Renders what it was given."""

    def __init__(self, frames: torch.Tensor):
        self.frames = frames

    def predict_motion(self, image, prompt, **kwargs):
        return None

    def render(self, image, motion, prompt, **kwargs):
        return SimpleNamespace(frames=self.frames[None])


def test_whole_clips_are_judged_beside_their_motion(clip):
    def judge(frames, photo, prompt):
        assert photo.shape == (1, 3, SIZE, SIZE) and prompt == clip.caption
        return {"mean": frames.mean().item()}

    frames = parts.frames_tensor(clip)
    numbers = networks.whole(Pipe(frames), clip, 0, [judge])
    assert numbers["whole.mean"] == pytest.approx(frames.mean().item())
    assert numbers["whole.average_displacement_px"] > 0.5


def test_consistency_is_the_cosine_of_neighbours():
    features = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    assert networks.consistency(features) == pytest.approx(0.5)


@pytest.fixture
def folders(tmp_path):
    """Tiny networks with random weights, in the files in which the real ones come."""
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = small | {"patch_size": 32, "image_size": 224}
    text = small | {"vocab_size": 2000, "max_position_embeddings": 32}
    CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=16)).save_pretrained(tmp_path / "clip")
    build_tokenizer(tmp_path / "clip")
    ViTModel(ViTConfig(**small, patch_size=32)).save_pretrained(tmp_path / "dino")
    (tmp_path / "lpips").mkdir()
    trunk, heads = {}, {}
    judge = networks.LpipsJudge
    for layer, (place, (inner, outer, kernel, *_)) in enumerate(zip(judge.PLACES, judge.LAYERS, strict=True)):
        trunk[f"features.{place}.weight"] = 0.05 * torch.randn(outer, inner, kernel, kernel)
        trunk[f"features.{place}.bias"] = torch.zeros(outer)
        heads[f"lin{layer}.model.1.weight"] = torch.rand(1, outer, 1, 1)
    torch.save(trunk, tmp_path / "lpips" / "alexnet.pth")
    torch.save(heads, tmp_path / "lpips" / "alex.pth")
    return {name: tmp_path / name for name in networks.LOCAL}


def test_judges_from_local_folders(clip, folders):
    judges, missing = networks.find_judges(folders)
    assert len(judges) + len(missing) == 4 and not any("--" in line for line in missing)
    frames = parts.frames_tensor(clip)
    still, numbers, shown = frames[:1].expand_as(frames), {}, {}
    for judge in judges:
        numbers |= judge(still, frames[:1], clip.caption)
        shown |= judge(frames.flip(1) * torch.linspace(-1, 1, FRAMES).view(-1, 1, 1, 1), frames[:1], clip.caption)
    for name in ("consistency_clip", "subject_dino"):
        assert numbers[name] == pytest.approx(1, abs=1e-4) and shown[name] < 0.999
    assert numbers["lpips_first_frame"] == pytest.approx(0, abs=1e-6) and shown["lpips_first_frame"] > 0
    assert -100 <= numbers["prompt_clip"] <= 100


def test_what_was_not_run_is_said(tmp_path):
    _, missing = networks.find_judges({"clip": None})
    assert sum("not run" in line for line in missing) >= 3 and any("--lpips FOLDER" in line for line in missing)
    with pytest.raises(ValueError, match="--dino .* holds no such network"):
        networks.find_judges({"dino": tmp_path})


def test_efficientnet_sees_a_still_clip_as_consistent(clip):
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra `metrics` is not installed")
    judge, frames = networks.EfficientNetLite(), parts.frames_tensor(clip)
    still = judge(frames[:1].expand(3, -1, -1, -1), frames[:1], "")
    other = judge(torch.cat([frames[:1], -frames[:1], frames[:1].roll(20, -1)]), frames[:1], "")
    assert still["consistency_efficientnet_lite0"] == pytest.approx(1, abs=1e-4)
    assert other["consistency_efficientnet_lite0"] < 0.99


def test_the_page_of_prompts_and_drags(clip, monkeypatch):
    from mi2v_lite.evaluation import sheets

    class Still:
        def predict_motion(self, image, prompt, control=None, **kwargs):
            assert (control is None) == bool(prompt)
            return SimpleNamespace(flow=torch.ones(1, 4, 2, *np.asarray(image).shape[:2]))

        def render(self, image, motion, prompt, **kwargs):
            return SimpleNamespace(frames=np.stack([np.asarray(image)] * FRAMES)[None])

    monkeypatch.setattr(sheets, "SHOWN", (1, 2, 4))
    pages = [sheets.prompt_sheet(Still(), SimpleNamespace(clip=lambda seed: clip)), sheets.drag_sheet(Still())]
    assert [isinstance(page, Image.Image) for page in pages] == [True, True]
    assert pages[0].width > 7 * SIZE and pages[1].height > 12 * 128
